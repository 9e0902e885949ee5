//! What is attested of an image, by the short names of it that cosign has, too.

use super::bundle;
use super::key::PublicKey;
use super::verify::Signatures;

/// Short names, and the types of predicates that they are for.
const TYPES: [(&str, &str); 6] = [
    ("spdx", "https://spdx.dev/Document"),
    ("spdxjson", "https://spdx.dev/Document"),
    ("cyclonedx", "https://cyclonedx.org/bom"),
    ("provenance", "https://slsa.dev/provenance/v1"),
    ("slsaprovenance1", "https://slsa.dev/provenance/v1"),
    ("vuln", "https://cosign.sigstore.dev/attestation/vuln/v1"),
];

/// Returns the type that a name is for; what is no short name is a type itself.
pub fn predicate_type(name: &str) -> String {
    TYPES.iter().find(|(short, _)| *short == name).map_or(name, |(_, full)| full).to_owned()
}

/// Returns whether one of `keys` has attested something of a type about the manifest `digest`.
pub fn is_attested(signatures: &Signatures, digest: &str, predicate_type: &str, keys: &[PublicKey]) -> bool {
    let states = |bytes: &[u8], key: &PublicKey| {
        bundle::verify(bytes, key).is_ok_and(|statement| {
            statement.predicate_type == predicate_type && statement.subjects.iter().any(|subject| subject == digest)
        })
    };
    signatures.bundles.iter().any(|bundle| keys.iter().any(|key| states(&bundle.bytes, key)))
}
