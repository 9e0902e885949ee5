//! Who signs: a key that is at hand, or a command that reaches one which is not.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::key::PublicKey;
use super::private_key::PrivateKey;
use crate::error::{Error, Result};
use crate::process::{Cancel, Process};

/// How long a command may take: somebody may have to touch a token, or to approve.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Longest output of a command, in bytes: RSA of 8,192 bits in base64 takes some 1,400.
const MAX_OUTPUT: usize = 4096;

/// What makes signatures that a public key verifies.
pub trait Signer: std::fmt::Debug {
    /// Returns what verifies its signatures.
    fn public(&self) -> &PublicKey;

    /// Signs a message, hashed by SHA-256: ECDSA in ASN.1 (RFC 3279), or RSA in PKCS #1.
    ///
    /// # Errors
    /// If it cannot.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>>;
}

impl Signer for PrivateKey {
    fn public(&self) -> &PublicKey {
        self.public()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        self.sign(message)
    }
}

/// A command that signs, with a key of a KMS or of a token (PKCS #11): it gets the message on stdin, hashes it, and writes the
/// signature to stdout, as it is or in base64.
#[derive(Debug)]
pub struct Command {
    process: Process,
    public: PublicKey,
}

impl Command {
    /// Returns a signer by a command of the shell, which `public` verifies.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where not everybody would verify signatures of such a key.
    pub fn new(command: &str, public: PublicKey, cancel: &Cancel) -> Result<Self> {
        if !public.is_read_by_all() {
            let reason = format!("podman verifies no signatures by keys of {}", public.algorithm());
            return Err(Error::Unavailable { reason, hint: Some("sign with ECDSA P-256 or RSA".into()) });
        }
        // By the shell, as git runs its commands: what a KMS answers mostly needs another program to be a signature.
        let process = Process::new("/bin/sh").args(["-c", command]).called("the signer command");
        let process = process.stdout_limit(MAX_OUTPUT).timeout(TIMEOUT).cancel(cancel);
        Ok(Self { process, public })
    }
}

impl Signer for Command {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let said = self.process.clone().stdin(message).run()?;
        if self.public.verifies(message, &said) {
            return Ok(said);
        }
        let text: Vec<u8> = said.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        match STANDARD.decode(&text) {
            Ok(signature) if self.public.verifies(message, &signature) => Ok(signature),
            _ => Err(Error::Unavailable {
                reason: format!(
                    "the signer command: the {} bytes that it wrote are no signature by the key {}",
                    said.len(),
                    self.public.id()
                ),
                hint: Some(
                    "it gets the message on stdin, hashes it by SHA-256, and writes an ASN.1 signature, as it is or in base64: \
                     openssl dgst -sha256 -sign KEY"
                        .into(),
                ),
            }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What verifies nothing that these commands write.
    fn public() -> PublicKey {
        PrivateKey::generate().unwrap().0.public().clone()
    }

    #[test]
    fn what_is_no_signature_is_none() {
        let bytes = "are no signature by the key";
        let cases = [
            ("echo AAAA", bytes),
            ("cat", bytes),
            ("true", "the 0 bytes that it wrote"),
            ("head -c 5000 /dev/zero", "more than 4096 bytes"),
            ("echo one >&2; echo 'no such token' >&2; exit 3", "the signer command: no such token"),
            ("exit 3", "the signer command: exit status 3"),
            ("skillctl-no-such-program", "not found"),
        ];
        for (command, why) in cases {
            let signer = Command::new(command, public(), &Cancel::default()).unwrap();
            let error = signer.sign(b"message").unwrap_err().to_string();
            assert!(error.starts_with("the signer command: ") && error.contains(why), "{command}: {error}");
        }
    }

    #[test]
    fn keys_that_podman_does_not_read_do_not_sign() {
        const ED25519: &[u8] = b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJoXLRRdrK8fp4j1ETos2h35Df67sswUR0V+U5ACmH7M=\n-----END PUBLIC KEY-----\n";
        let public = PublicKey::from_pem(ED25519, "a.pub").unwrap();
        let error = Command::new("true", public, &Cancel::default()).unwrap_err();
        assert_eq!(error.to_string(), "podman verifies no signatures by keys of Ed25519");
    }
}
