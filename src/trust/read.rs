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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layer(size: u64) -> Value {
        json!({
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": "sha256:a", "size": size,
            "annotations": {"dev.cosignproject.cosign/signature": "AAAA"},
        })
    }

    fn read(layers: &[Value]) -> (Signatures, usize) {
        let mut fetched = 0;
        let mut signatures = Signatures::default();
        let manifest = json!({"layers": layers}).to_string();
        let blob = |_: &str, size: u64| {
            fetched += 1;
            Ok(vec![0; usize::try_from(size).unwrap()])
        };
        signatures.add(manifest.as_bytes(), blob).unwrap();
        (signatures, fetched)
    }

    #[test]
    fn nobody_can_have_us_read_without_end() {
        let bundle = |size: u64| json!({"mediaType": BUNDLE, "digest": "sha256:a", "size": size});
        let cases: [(&str, Vec<Value>, usize, usize, &str); 6] = [
            ("10,000 signatures", vec![layer(10); 10_000], 64, 0, "beyond the first 64"),
            ("10,000 bundles", vec![bundle(10); 10_000], 0, 64, "beyond the first 64"),
            ("a payload of 1 GB", vec![layer(1 << 30), layer(10)], 1, 0, "of 1073741824 bytes, more than 1048576"),
            ("a bundle of 1 GB", vec![bundle(1 << 30)], 0, 0, "of 1073741824 bytes"),
            (
                "no size",
                vec![json!({"mediaType": BUNDLE, "digest": "sha256:a"})],
                0,
                0,
                "of 18446744073709551615 bytes",
            ),
            ("others", vec![json!({"mediaType": "text/plain", "size": 1})], 0, 0, ""),
        ];
        for (what, layers, simple, bundles, why) in cases {
            let (found, fetched) = read(&layers);
            assert_eq!(
                (found.simple.len(), found.bundles.len(), fetched),
                (simple, bundles, simple + bundles),
                "{what}"
            );
            match why {
                "" => assert!(found.unread.is_empty(), "{what}"),
                why => assert!(found.unread[0].starts_with(why), "{what}: {:?}", found.unread),
            }
        }
    }

    #[test]
    fn what_cannot_be_had_does_no_harm_to_the_others() {
        let mut first = true;
        let mut signatures = Signatures::default();
        let manifest = json!({"layers": [layer(1), layer(1)]}).to_string();
        let blob = |_: &str, _: u64| match std::mem::take(&mut first) {
            true => {
                Err(Error::Registry { registry: "r".into(), fault: Fault::NotFound, reason: "gone".into(), hint: None })
            }
            false => Ok(vec![1]),
        };
        signatures.add(manifest.as_bytes(), blob).unwrap();
        assert_eq!((signatures.simple.len(), signatures.unread.len()), (1, 1));
        signatures.add(b"{", |_, _| unreachable!()).unwrap();
        assert_eq!(signatures.unread[1], "in a manifest that is no JSON");
    }
}
