//! Kinds of attestations: the short names of predicate types, for flags, policies and people.

/// A software bill of materials in SPDX.
pub const SPDX: &str = "https://spdx.dev/Document";
/// A software bill of materials in CycloneDX.
pub const CYCLONEDX: &str = "https://cyclonedx.org/bom";
/// How something was built, by SLSA 1.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// Short names, the first of each type ours, the others those of `cosign attest --type`.
const NAMES: [(&str, &str); 11] = [
    ("spdx", SPDX),
    ("spdxjson", SPDX),
    ("cyclonedx", CYCLONEDX),
    ("provenance", PROVENANCE),
    ("slsaprovenance1", PROVENANCE),
    ("slsaprovenance", "https://slsa.dev/provenance/v0.2"),
    ("slsaprovenance02", "https://slsa.dev/provenance/v0.2"),
    ("link", "https://in-toto.io/Link/v1"),
    ("vuln", "https://cosign.sigstore.dev/attestation/vuln/v1"),
    ("openvex", "https://openvex.dev/ns"),
    ("custom", "https://cosign.sigstore.dev/attestation/v1"),
];

/// Longest predicate type, in bytes: index entries repeat it, and short it has to be there.
const MAX_TYPE: usize = 256;

/// Returns the predicate type of a short name, or the type itself.
///
/// # Errors
/// In one line, for what is neither.
pub fn predicate_type(text: &str) -> Result<String, String> {
    if let Some((_, known)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Ok((*known).to_owned());
    }
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    match is_scheme && text.len() <= MAX_TYPE && text.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => {
            let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            Err(format!("{text:?} is neither a URI nor one of {}", known.join(", ")))
        }
    }
}

/// Returns the short name of a predicate type, where it has one.
pub fn short_name(predicate_type: &str) -> Option<&'static str> {
    NAMES.iter().find(|(_, known)| *known == predicate_type).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_and_addresses_are_types() {
        let cases = [
            ("spdx", Some(SPDX)),
            ("spdxjson", Some(SPDX)),
            ("cyclonedx", Some(CYCLONEDX)),
            ("provenance", Some(PROVENANCE)),
            ("slsaprovenance1", Some(PROVENANCE)),
            ("https://acme.example/review/v1", Some("https://acme.example/review/v1")),
            ("urn:acme:review", Some("urn:acme:review")),
            ("review", None),
            ("", None),
            (":x", None),
            ("https://acme.example/a b", None),
            ("https://acme.example/\u{202e}", None),
        ];
        for (text, want) in cases {
            assert_eq!(predicate_type(text).ok().as_deref(), want, "{text}");
        }
        assert!(predicate_type(&format!("urn:{}", "x".repeat(MAX_TYPE))).is_err());
    }

    #[test]
    fn the_first_name_of_a_type_is_shown() {
        assert_eq!(short_name(SPDX), Some("spdx"));
        assert_eq!(short_name(PROVENANCE), Some("provenance"));
        assert_eq!(short_name("https://slsa.dev/provenance/v0.2"), Some("slsaprovenance"));
        assert_eq!(short_name("urn:x"), None);
    }
}
