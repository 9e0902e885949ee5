//! What an image of signatures, or what refers to an image, has to say: the same from a store and from a registry.

use serde_json::Value;

use super::bundle::{BUNDLE, PREDICATE_TYPE, SIGNED};
use super::simple::{self, Signature};
use super::verify::{Bundle, Signatures};
use crate::error::{Error, Fault, Result};

/// Most signatures of one image that are looked at, of each form: more than any image has, and quickly read.
pub const MAX_SIGNATURES: usize = 64;
/// Largest payload or bundle, in bytes: with a certificate and a proof of a log it has some 10 KiB.
pub const MAX_SIGNATURE: u64 = 1 << 20;
/// Most manifests that refer to an image that are looked at, of whatever kind: signatures are to be found among attestations.
pub const MAX_REFERRERS: usize = 256;

impl Signatures {
    /// Adds those of a manifest, whose blobs `blob` returns by digest and size. Manifests of other kinds have none. What cannot be
    /// looked at is noted, and does no harm to the others.
    ///
    /// # Errors
    /// Those of `blob`, unless they are about what there is and not about how it is reached.
    pub fn add(&mut self, bytes: &[u8], mut blob: impl FnMut(&str, u64) -> Result<Vec<u8>>) -> Result<()> {
        let Ok(manifest) = serde_json::from_slice::<Value>(bytes) else {
            self.unread.push("in a manifest that is no JSON".to_owned());
            return Ok(());
        };
        if states(&manifest).is_some_and(|kind| kind != SIGNED) {
            return Ok(());
        }
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            let signature = simple::signature_of(layer);
            let have = match &signature {
                Some(_) => self.simple.len(),
                None if layer["mediaType"] == BUNDLE => self.bundles.len(),
                None => continue,
            };
            if have >= MAX_SIGNATURES {
                self.unread.push(format!("beyond the first {MAX_SIGNATURES}"));
                return Ok(());
            }
            let size = layer["size"].as_u64().unwrap_or(u64::MAX);
            if size > MAX_SIGNATURE {
                self.unread.push(format!("of {size} bytes, more than {MAX_SIGNATURE}"));
                continue;
            }
            let digest = layer["digest"].as_str().unwrap_or_default();
            let Some(read) = had(blob(digest, size), &mut self.unread)? else { continue };
            match signature {
                Some(signature) => self.simple.push(Signature { payload: read, signature, layer: layer.clone() }),
                None => self.bundles.push(Bundle { bytes: read, manifest: bytes.to_vec() }),
            }
        }
        Ok(())
    }
}

/// Returns what a blob is; `None`, with a note, where that is not to be had.
///
/// # Errors
/// Those that are about how it is reached.
pub(super) fn had(blob: Result<Vec<u8>>, unread: &mut Vec<String>) -> Result<Option<Vec<u8>>> {
    match blob {
        Err(e) if matches!(e.fault(), Some(Fault::NotFound | Fault::Protocol)) => {
            unread.push(format!("not to be had: {e}"));
            Ok(None)
        }
        read => read.map(Some),
    }
}

/// Returns what the manifest of a bundle says that its statement is about. The signer does not sign that: what is left out by it is
/// what whoever wrote the manifest could have left out, too.
pub(super) fn states(manifest: &Value) -> Option<&str> {
    manifest["annotations"][PREDICATE_TYPE].as_str()
}

/// Returns the layers of an image of signatures, of all kinds.
///
/// # Errors
/// [`Error::Damaged`] where it is none.
pub fn layers(manifest: &[u8]) -> Result<Vec<Value>> {
    let manifest: Value = serde_json::from_slice(manifest).map_err(|e| Error::damaged("the image of signatures", e))?;
    Ok(manifest["layers"].as_array().cloned().unwrap_or_default())
}
