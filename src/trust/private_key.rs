//! Private keys, as `cosign generate-key-pair` writes them: PKCS #8 in a box that a passphrase opens.
//!
//! ```text
//! -----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----     (cosign 2 and older, skopeo: ENCRYPTED COSIGN PRIVATE KEY)
//! base64 of {"kdf": {"name": "scrypt", "params": {"N", "r", "p"}, "salt"}, "cipher": {"name": "nacl/secretbox", "nonce"}, "ciphertext"}
//! ```
//!
//! The form is that of go-securesystemslib's package `encrypted`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::key::{PublicKey, encode};
use crate::error::{Error, Result};

/// What we write, and cosign 3.
const LABEL: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
/// What cosign 2 and skopeo write.
const OLD_LABEL: &str = "ENCRYPTED COSIGN PRIVATE KEY";

const KDF: &str = "scrypt";
const CIPHER: &str = "nacl/secretbox";
/// Costs of what we write: those of cosign 3.
const COSTS: Costs = Costs { n: 65_536, r: 8, p: 1 };
/// Most memory that a key may ask for, in bytes, which is 128 · N · r: 16 times that of cosign's.
const MAX_MEMORY: u64 = 1 << 30;
/// DER up to the point of a P-256 key: SEQUENCE { SEQUENCE { ecPublicKey, prime256v1 }, BIT STRING } (RFC 5480).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[derive(Serialize, Deserialize)]
struct Box {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Costs,
    salt: String,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
struct Costs {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// A key that signs: ECDSA P-256 with SHA-256.
pub struct PrivateKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
    random: SystemRandom,
}

impl PrivateKey {
    /// Makes a key. Returns it in PKCS #8, which [`seal`] puts into a file.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>)> {
        let none = || Error::Unavailable { reason: "the system has no randomness for a key".into(), hint: None };
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(|_| none())?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        let key = Self::from_pkcs8(&pkcs8).map_err(|_| none())?;
        Ok((key, pkcs8))
    }

    /// Opens the file of a key; `path` is named in errors.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for anything but a key that this passphrase opens.
    pub fn open(text: &[u8], passphrase: &[u8], path: &str) -> Result<Self> {
        let bad = |reason: String| Error::Unavailable { reason: format!("{path}: {reason}"), hint: None };
        let pkcs8 = unseal(text, passphrase).map_err(bad)?;
        Self::from_pkcs8(&pkcs8).map_err(|reason| bad(format!("a key that is not ECDSA P-256 does not sign: {reason}")))
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, String> {
        let random = SystemRandom::new();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &random).map_err(|e| e.to_string())?;
        let public = PublicKey::from_der(&[&P256_PREFIX, pair.public_key().as_ref()].concat())?;
        Ok(Self { pair, public, random })
    }

    /// Returns what verifies its signatures.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message, in ASN.1 (RFC 3279).
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let none = |_| Error::Unavailable { reason: "the system has no randomness to sign with".into(), hint: None };
        Ok(self.pair.sign(&self.random, message).map_err(none)?.as_ref().to_vec())
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Returns whether a file is one of a private key, which its first line says.
pub fn is_private(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"-----BEGIN ENCRYPTED")
}

/// Returns the file of a key in PKCS #8, which this passphrase opens.
///
/// # Errors
/// If the system has no randomness.
pub fn seal(pkcs8: &[u8], passphrase: &[u8]) -> Result<String> {
    let none = |_| Error::Unavailable { reason: "the system has no randomness for a key".into(), hint: None };
    let (mut salt, mut nonce) = ([0; 32], [0; 24]);
    let random = SystemRandom::new();
    random.fill(&mut salt).and_then(|()| random.fill(&mut nonce)).map_err(none)?;
    let damaged = |reason| Error::damaged("the key", reason);
    let cipher = cipher(COSTS, &salt, passphrase).map_err(damaged)?;
    let ciphertext = cipher.encrypt(&nonce.into(), pkcs8).map_err(|e| damaged(e.to_string()))?;
    let sealed = Box {
        kdf: Kdf { name: KDF.into(), params: COSTS, salt: STANDARD.encode(salt) },
        cipher: Cipher { name: CIPHER.into(), nonce: STANDARD.encode(nonce) },
        ciphertext: STANDARD.encode(ciphertext),
    };
    let json = serde_json::to_vec(&sealed).map_err(|e| damaged(e.to_string()))?;
    Ok(encode(LABEL, json))
}

/// Returns the PKCS #8 in a file. Errors are why there is none.
fn unseal(text: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    let pem = pem::parse(text).map_err(|e| format!("no key: {e}"))?;
    if ![LABEL, OLD_LABEL].contains(&pem.tag()) {
        return Err(format!("no key that cosign or skillctl key generate made, but a {}", pem.tag()));
    }
    let sealed: Box = serde_json::from_slice(pem.contents()).map_err(|e| format!("a damaged key: {e}"))?;
    if (sealed.kdf.name.as_str(), sealed.cipher.name.as_str()) != (KDF, CIPHER) {
        return Err(format!("a key by {} and {}, which are not supported", sealed.kdf.name, sealed.cipher.name));
    }
    let decode = |text: &str| STANDARD.decode(text).map_err(|e| format!("a damaged key: {e}"));
    let nonce: [u8; 24] = decode(&sealed.cipher.nonce)?.try_into().map_err(|_| "a damaged key: its nonce")?;
    let cipher = cipher(sealed.kdf.params, &decode(&sealed.kdf.salt)?, passphrase)?;
    let pkcs8 = cipher.decrypt(&nonce.into(), decode(&sealed.ciphertext)?.as_slice());
    pkcs8.map(Zeroizing::new).map_err(|_| "the passphrase does not open it".into())
}

fn cipher(costs: Costs, salt: &[u8], passphrase: &[u8]) -> Result<XSalsa20Poly1305, String> {
    let Costs { n, r, p } = costs;
    let memory = n.checked_mul(128 * u64::from(r)).filter(|memory| *memory <= MAX_MEMORY && p == 1);
    if memory.is_none() || !n.is_power_of_two() {
        return Err(format!("its scrypt costs N={n}, r={r}, p={p} are not supported"));
    }
    let log_n = u8::try_from(n.trailing_zeros()).unwrap_or(u8::MAX);
    let params = scrypt::Params::new(log_n, r, p).map_err(|e| e.to_string())?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(passphrase, salt, &params, key.as_mut()).map_err(|e| e.to_string())?;
    Ok(XSalsa20Poly1305::new(key.as_ref().into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_opened_by_its_passphrase_and_its_signatures_verify() {
        let (key, pkcs8) = PrivateKey::generate().unwrap();
        let file = seal(&pkcs8, b"secret").unwrap();
        assert!(file.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----"), "{file}");
        let opened = PrivateKey::open(file.as_bytes(), b"secret", "a.key").unwrap();
        assert_eq!(opened.public(), key.public());
        assert!(!file.contains('\r') && !key.public().to_pem().contains('\r'), "{file}");
        let public = PublicKey::from_pem(key.public().to_pem().as_bytes(), "a.pub").unwrap();
        let signature = opened.sign(b"message").unwrap();
        assert!(public.verifies(b"message", &signature));
        assert!(!public.verifies(b"massage", &signature));
        let (other, _) = PrivateKey::generate().unwrap();
        assert!(!other.public().verifies(b"message", &signature));
        let wrong = PrivateKey::open(file.as_bytes(), b"Secret", "a.key").unwrap_err();
        assert_eq!(wrong.to_string(), "a.key: the passphrase does not open it");
    }

    #[test]
    fn a_key_cannot_ask_for_all_memory() {
        let json = |n: u64, r: u32, p: u32| {
            let params = Costs { n, r, p };
            let kdf = Kdf { name: KDF.into(), params, salt: STANDARD.encode([0; 32]) };
            let cipher = Cipher { name: CIPHER.into(), nonce: STANDARD.encode([0; 24]) };
            let sealed = Box { kdf, cipher, ciphertext: String::new() };
            encode(OLD_LABEL, serde_json::to_vec(&sealed).unwrap())
        };
        for (n, r, p) in
            [(1 << 24, 8, 1), (u64::MAX, 8, 1), (1 << 16, 1 << 30, 1), (1 << 16, 8, 1 << 20), (3, 8, 1), (0, 8, 1)]
        {
            let error = PrivateKey::open(json(n, r, p).as_bytes(), b"", "a.key").unwrap_err().to_string();
            assert!(error.contains("not supported"), "{n} {r} {p}: {error}");
        }
    }
}
