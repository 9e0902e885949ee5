//! Public keys: the algorithms that cosign writes, and what a key is called.
//!
//! ```text
//! ECDSA P-256, SHA-256   signed and verified: all that podman and cosign read alike
//! RSA 2048-8192, SHA-256, PKCS#1 v1.5
//! ECDSA P-384, Ed25519   verified only: podman refuses them. cosign 3 signs hashes with Ed25519 (Ed25519ph, RFC 8032)
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pem::{EncodeConfig, LineEnding, Pem};
use ring::digest::{SHA256, digest};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use sha2::{Digest as _, Sha512};
use spki::der::Decode as _;
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use crate::error::{Error, Result};

/// What the PEM of a public key is called.
const LABEL: &str = "PUBLIC KEY";
/// Longest file of a key, in bytes: RSA of 8,192 bits takes some 1,500.
pub const MAX_KEY: u64 = 64 << 10;

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A kind of key, and what its signatures may be made with.
struct Algorithm {
    name: &'static str,
    ways: &'static [&'static dyn VerificationAlgorithm],
    /// Another way, which ring does not have: of the key, a message and a signature.
    other: fn(&[u8], &[u8], &[u8]) -> bool,
}

fn no_other(_: &[u8], _: &[u8], _: &[u8]) -> bool {
    false
}

/// Returns whether a signature is one of the SHA-512 of a message (Ed25519ph, RFC 8032, without a context).
fn ed25519_prehashed(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = key.try_into().ok().and_then(|key| ed25519_dalek::VerifyingKey::from_bytes(key).ok());
    let signature = ed25519_dalek::Signature::from_slice(signature);
    let (Some(key), Ok(signature)) = (key, signature) else { return false };
    key.verify_prehashed_strict(Sha512::new_with_prefix(message), None, &signature).is_ok()
}

static P256_SHA256: Algorithm =
    Algorithm { name: "ECDSA P-256", ways: &[&signature::ECDSA_P256_SHA256_ASN1], other: no_other };
// cosign 2 hashes to 256 bits whatever the curve.
static P384_ANY: Algorithm = Algorithm {
    name: "ECDSA P-384",
    ways: &[&signature::ECDSA_P384_SHA384_ASN1, &signature::ECDSA_P384_SHA256_ASN1],
    other: no_other,
};
static RSA_SHA256: Algorithm =
    Algorithm { name: "RSA", ways: &[&signature::RSA_PKCS1_2048_8192_SHA256], other: no_other };
static ED25519_BOTH: Algorithm = Algorithm { name: "Ed25519", ways: &[&signature::ED25519], other: ed25519_prehashed };

/// A key that verifies.
#[derive(Clone)]
pub struct PublicKey {
    /// SubjectPublicKeyInfo (RFC 5280), in DER.
    spki: Vec<u8>,
    /// The key in it.
    bits: Vec<u8>,
    algorithm: &'static Algorithm,
}

impl PublicKey {
    /// How a key in PEM begins.
    pub const BEGIN: &str = "-----BEGIN";

    /// Reads a key in PEM, as `cosign.pub` has it; `path` is named in errors.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for anything else, and for an algorithm that is not listed above.
    pub fn from_pem(text: &[u8], path: &str) -> Result<Self> {
        let bad = |reason: &str| Error::Unavailable {
            reason: format!("{path} is no public key: {reason}"),
            hint: Some("a key begins with -----BEGIN PUBLIC KEY-----, as cosign.pub does".into()),
        };
        let pem = pem::parse(text).map_err(|e| bad(&e.to_string()))?;
        match pem.tag() {
            LABEL => Self::from_der(pem.contents()).map_err(|reason| bad(&reason)),
            other => Err(bad(&format!("it is a {other}"))),
        }
    }

    /// Reads the SubjectPublicKeyInfo of a key. Errors are why it is none.
    pub(super) fn from_der(spki: &[u8]) -> Result<Self, String> {
        let info = SubjectPublicKeyInfoRef::from_der(spki).map_err(|e| e.to_string())?;
        let curve = || info.algorithm.parameters_oid().ok();
        let algorithm = match info.algorithm.oid {
            EC if curve() == Some(P256) => &P256_SHA256,
            EC if curve() == Some(P384) => &P384_ANY,
            RSA => &RSA_SHA256,
            ED25519 => &ED25519_BOTH,
            other => return Err(format!("keys of the algorithm {other} are not supported")),
        };
        let bits = info.subject_public_key.as_bytes().ok_or("its bits are not whole bytes")?.to_vec();
        Ok(Self { spki: spki.to_vec(), bits, algorithm })
    }

    /// Returns whether `signature` is one of `message` by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let Algorithm { ways, other, .. } = self.algorithm;
        ways.iter().any(|way| UnparsedPublicKey::new(*way, &self.bits).verify(message, signature).is_ok())
            || other(&self.bits, message, signature)
    }

    /// Returns what the key is of, for people.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name
    }

    /// Returns whether podman and cosign verify its signatures alike.
    pub fn is_read_by_all(&self) -> bool {
        [P256_SHA256.name, RSA_SHA256.name].contains(&self.algorithm())
    }

    /// Returns the key in PEM.
    pub fn to_pem(&self) -> String {
        encode(LABEL, self.spki.clone())
    }

    /// Returns what a sigstore bundle calls the key: its digest in base64.
    pub fn hint(&self) -> String {
        STANDARD.encode(digest(&SHA256, &self.spki))
    }

    /// Returns what we call the key: `sha256:` and the digest of its SubjectPublicKeyInfo, as `openssl pkey -pubin -outform der |
    /// sha256sum` prints it.
    pub fn id(&self) -> String {
        format!("sha256:{}", hex::encode(digest(&SHA256, &self.spki)))
    }
}

/// Returns a file in PEM, with the line ends of all others.
pub(super) fn encode(label: &str, contents: Vec<u8>) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new(label, contents), config)
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PublicKey").field(&self.id()).finish()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // By OpenSSL 3.0, and the last by 3.6, of the text `message`.
    const CASES: [(&str, &str, &str); 5] = [
        (
            "RSA",
            "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA6Aijo3fQVt4kmx8BihuffTpArMfK8M+kDCU7lgVxY8WGx88jCLZ+IvyxRotWH7QmOJrbUmN4PsJCd9oj2YBwP6hrFrGn250kdj4aqvL6jrLyJlP4XttHVJtS21Mx3agai/nK0VbEz2yKDDJsiPRWbWWTpkxpQCGHv68davVMaA2KYQqnIoK5EIbX6/cDWi84ZbrZ8eEdn3qzBk/GrpuQO+IDkG8mCnG19jrJ7ookYwzzbqEMR6FCHYFWvrvVnW6V5VCNte1BTxhfZAmOT+YjF9Lomlqj3lNf6g/ngiBZ5jFTt4NvS45KtQGOdTGL+X92ay2BEIdSf9xF5T/XPvhBBwIDAQAB",
            "WWWDjVHB49N4qUVhXMduv1IN1lOFSfaH9RrazXM61507arrJCMhFyDkJ4pVxsD/52OPMfF/dlnxdyWJfuQqu1eEubE2WKJpOGd3Vmy5b9i4Fo3k3UVGo4xNYg68NKlM3c2jHiVDEeuWzJ/pB0/oZRFZKA+107A9d+UGCkMlt2JVn4mEVr4JR7cma834roJUy+kM8JDR6E2u7YO4mMqEQfGwqdclEzOMTpsefCSxZYozZmB4dnV5C4+9u3XVsdhy50jP5NybejntCZ4Crx/+J1GqwWEQe7CNsYvy9k3G99pm5PdtvbRWTIcO9jP8bJTFQAwaMJh9k7VwyE3uzUa96qQ==",
        ),
        (
            "ECDSA P-384",
            "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE8esIyghqko9TPNOcmXHi/Vo6ZD+OwXM1oFMEjnv6v/0QS3szTQy8CxLLvNmz+pzCNfkf3Xxf3DIEzBp/caUGEJgc6jBd5z6RH1/XO1/f945PH0bpStB5wEJzvjpucZdi",
            "MGYCMQCtg7oTrLstQq/ECRfgJHulFy/RPi4xLNmd6WgLpLDw0WDEC1xpoD8OVJmRrzccFtUCMQDbFMROdxKDar8dfoXaAf8loOtUZqI9KzE+lL9AFeO073ShlYrhUFE1XnjRfcf1kXE=",
        ),
        (
            "ECDSA P-384",
            "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE8esIyghqko9TPNOcmXHi/Vo6ZD+OwXM1oFMEjnv6v/0QS3szTQy8CxLLvNmz+pzCNfkf3Xxf3DIEzBp/caUGEJgc6jBd5z6RH1/XO1/f945PH0bpStB5wEJzvjpucZdi",
            "MGYCMQDOD0hd1zwvAtO/YzWL/c6M1AMzSFCSQFEsSwb+acfKMxv33g4BlCsrfgfhgTxBOhICMQDehNX6gBtkxmRlHRL/2sdKuB/ivADAzbtJQfRfE8KcPjbXSmrH41pK1pkHjCVfcbo=",
        ),
        (
            "Ed25519",
            "MCowBQYDK2VwAyEAJoXLRRdrK8fp4j1ETos2h35Df67sswUR0V+U5ACmH7M=",
            "rY3mcOnDN6bnG1ZCbfoWqkMiVtfezAYjBnC7N3rO3U743NyleJR9DnBeyyrewVsuqFmGR/MRfpNV43qIB4ShAQ==",
        ),
        // Ed25519ph
        (
            "Ed25519",
            "MCowBQYDK2VwAyEA+SFkAcEjZvdXonglf89Wc+eRK3pA/vt+2im54MNfv9Y=",
            "z1UM6gkgMh/qucUyrlveEmqqyKYzIOsD3CbGamVAHPtEnLAR1jS1KxH42ogCDdXs3ljbE40hQeIFSnr4lbZ9Dg==",
        ),
    ];
    const P521: &str = "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQADrIzqA46i4jQC/d2zyA8a5r9EICLkavUjYcmuBAY2FA2ju64yAjt1hs3kVfYQbzgbjNAWpng1GXQyk5UW7SQoiQB4KeT9Tl0qKdPUjMIV0QULsuKoltSZ/4+/hE+4QnxwIB1P/YgFT/WVMoj8tz5/GssczM/YAqizX+NbOSvE7WeUZE=";

    fn file(base64: &str) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n")
    }

    #[test]
    fn keys_of_all_kinds_verify_what_others_signed() {
        for (name, key, signature) in CASES {
            let key = PublicKey::from_pem(file(key).as_bytes(), "a.pub").unwrap();
            let signature = STANDARD.decode(signature).unwrap();
            assert_eq!(key.algorithm(), name);
            assert!(key.verifies(b"message", &signature), "{name}");
            assert!(!key.verifies(b"messages", &signature), "{name}");
        }
    }

    #[test]
    fn other_files_are_no_keys() {
        let private = file(CASES[0].1).replace("PUBLIC", "PRIVATE");
        let cases = [
            (file(P521), "is no public key: keys of the algorithm 1.2.840.10045.2.1 are not supported"),
            (private, "is no public key: it is a PRIVATE KEY"),
            (file("AAAA"), "is no public key"),
            (String::new(), "is no public key"),
        ];
        for (text, why) in cases {
            let error = PublicKey::from_pem(text.as_bytes(), "a.pub").unwrap_err().to_string();
            assert!(error.starts_with("a.pub ") && error.contains(why), "{error}");
        }
    }
}
