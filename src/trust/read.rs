//! What an image of signatures, or what refers to an image, has to say: the same from a store and from a registry.

use serde_json::Value;

use super::bundle::BUNDLE;
use super::simple::{self, Signature};
use super::verify::{Bundle, Signatures};
use crate::error::{Error, Result};

/// Most signatures of one image that are looked at, of each form: more than any image has, and quickly read.
pub const MAX_SIGNATURES: usize = 64;
/// Largest payload or bundle, in bytes: with a certificate and a proof of a log it has some 10 KiB.
pub const MAX_SIGNATURE: u64 = 1 << 20;

impl Signatures {
    /// Adds those of a manifest, whose blobs `blob` returns by digest and size. Manifests of other kinds have none.
    ///
    /// # Errors
    /// Those of `blob`; [`Error::LimitExceeded`] for what no signer makes.
    pub fn add(&mut self, bytes: &[u8], mut blob: impl FnMut(&str, u64) -> Result<Vec<u8>>) -> Result<()> {
        let manifest: Value = serde_json::from_slice(bytes).map_err(|e| Error::damaged("a signature", e))?;
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            let mut read = || {
                let size = layer["size"].as_u64().unwrap_or(u64::MAX);
                if size > MAX_SIGNATURE {
                    return Err(limit(format!("a signature of {size} bytes"), format!("{MAX_SIGNATURE} bytes")));
                }
                blob(layer["digest"].as_str().unwrap_or_default(), size)
            };
            if let Some(signature) = simple::signature_of(layer) {
                room(self.simple.len())?;
                self.simple.push(Signature { payload: read()?, signature });
            } else if layer["mediaType"] == BUNDLE {
                room(self.bundles.len())?;
                self.bundles.push(Bundle { bytes: read()?, manifest: bytes.to_vec() });
            }
        }
        Ok(())
    }
}

fn room(have: usize) -> Result<()> {
    match have < MAX_SIGNATURES {
        true => Ok(()),
        false => Err(limit("the number of signatures".to_owned(), MAX_SIGNATURES.to_string())),
    }
}

fn limit(what: String, limit: String) -> Error {
    Error::Unavailable { reason: format!("{what} exceeds the limit of {limit}"), hint: None }
}
