//! Simple signatures, which podman calls sigstore attachments (containers-signature(5) has the payload): layers of an image of their own,
//! which a tag connects with the image that they are for.
//!
//! ```text
//! NAME:sha256-<hex>.sig    one layer per signature: the payload; its annotation dev.cosignproject.cosign/signature has the signature
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use serde::Deserialize;
use serde_json::{Value, json};

use super::key::PublicKey;
use super::signer::Signer;
use crate::error::Result;

/// Media type of a payload.
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Where a layer has its signature, in base64.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What a payload says it is.
const KIND: &str = "cosign container image signature";

/// A layer of the image of signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The payload, in the bytes that were signed.
    pub payload: Vec<u8>,
    /// Its signature.
    pub signature: Vec<u8>,
    /// The layer, a descriptor, as its signer has written it: it may have a certificate, and the proof of a log.
    pub layer: Value,
}

/// What a signature says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The repository that the image was signed for, and the tag where the signer knew one.
    pub reference: String,
    /// Digest of the manifest.
    pub digest: String,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
    // Anybody's, and nothing follows from it.
    #[serde(rename = "optional")]
    _optional: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: String,
}

impl Signature {
    /// Signs a manifest under the name that it is pulled by, `REPOSITORY:TAG` as podman's default policy wants it.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn make(key: &dyn Signer, reference: &str, of: &str) -> Result<Self> {
        let payload = json!({
            "critical": {
                "identity": {"docker-reference": reference},
                "image": {"docker-manifest-digest": of},
                "type": KIND,
            },
            "optional": null,
        });
        let payload = payload.to_string().into_bytes();
        let signature = key.sign(&payload)?;
        let layer = json!({
            "mediaType": PAYLOAD,
            "size": payload.len(),
            "digest": format!("sha256:{}", hex::encode(digest::digest(&digest::SHA256, &payload))),
            "annotations": {SIGNATURE: STANDARD.encode(&signature)},
        });
        Ok(Self { payload, signature, layer })
    }

    /// Returns what is claimed, where the key has signed it. What no key has signed is not even parsed.
    ///
    /// Errors are why it counts for nothing.
    pub fn verify(&self, key: &PublicKey) -> Result<Claim, String> {
        if !key.verifies(&self.payload, &self.signature) {
            return Err(format!("not by the key {}", key.id()));
        }
        self.claim()
    }

    /// Returns what is claimed by whoever has signed it, which is known by now.
    pub(super) fn claim(&self) -> Result<Claim, String> {
        let payload: Payload = serde_json::from_slice(&self.payload).map_err(|e| format!("its payload: {e}"))?;
        let Critical { identity, image, kind } = payload.critical;
        match kind == KIND {
            true => Ok(Claim { reference: identity.docker_reference, digest: image.docker_manifest_digest }),
            false => Err(format!("its payload is a {kind:?}")),
        }
    }
}

/// Returns the tag of the signatures of a manifest.
pub fn tag(digest: &str) -> String {
    digest.replacen(':', "-", 1) + ".sig"
}

/// Returns the signature that a layer has; `None` for layers of other kinds.
pub fn signature_of(layer: &Value) -> Option<Vec<u8>> {
    (layer["mediaType"] == PAYLOAD).then(|| STANDARD.decode(layer["annotations"][SIGNATURE].as_str()?).ok()).flatten()
}

/// Returns the manifest of an image of signatures; of its config digest and size are given.
pub fn manifest((config, size): (&str, usize), layers: &[Value]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size},
        "layers": layers,
    })
}

/// Returns the config of an image of signatures, which says nothing that its manifest does not.
pub fn config(layers: &[Value]) -> Value {
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    json!({"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::trust::private_key::PrivateKey;

    #[test]
    fn what_was_signed_is_what_is_claimed() {
        let (key, _) = PrivateKey::generate().unwrap();
        let digest = format!("sha256:{}", "a".repeat(64));
        let made = Signature::make(&key, "quay.io/acme/hr:1.0.0", &digest).unwrap();
        let claim = Claim { reference: "quay.io/acme/hr:1.0.0".into(), digest: digest.clone() };
        assert_eq!(made.verify(key.public()), Ok(claim));
        assert_eq!(signature_of(&made.layer).unwrap(), made.signature);
        assert_eq!(tag(&digest), format!("sha256-{}.sig", "a".repeat(64)));
        let (other, _) = PrivateKey::generate().unwrap();
        assert_eq!(made.verify(other.public()), Err(format!("not by the key {}", other.public().id())));
        let altered = Signature { payload: [&made.payload[..], b" "].concat(), ..made };
        assert!(altered.verify(key.public()).is_err());
    }

    #[test]
    fn payloads_that_readers_could_read_differently_count_for_nothing() {
        let (key, _) = PrivateKey::generate().unwrap();
        let sign = |payload: &str| {
            let signature = key.sign(payload.as_bytes()).unwrap();
            Signature { payload: payload.into(), signature, layer: Value::Null }.verify(key.public())
        };
        let whole = |inner: &str| format!(r#"{{"critical":{{{inner}}},"optional":null}}"#);
        let identity = r#""identity":{"docker-reference":"a/b"}"#;
        let image = r#""image":{"docker-manifest-digest":"sha256:a"}"#;
        let kind = r#""type":"cosign container image signature""#;
        assert!(sign(&whole(&[identity, image, kind].join(","))).is_ok());
        let without_optional = format!(r#"{{"critical":{{{identity},{image},{kind}}}}}"#);
        assert!(sign(&without_optional).is_ok());
        let cases = [
            (whole(&[identity, image].join(",")), "missing field `type`"),
            (whole(&[identity, image, kind, kind].join(",")), "duplicate field `type`"),
            (whole(&[identity, identity, image, kind].join(",")), "duplicate field `identity`"),
            (whole(&[identity, image, kind, r#""more":1"#].join(",")), "unknown field `more`"),
            (whole(&[identity, image, r#""type":"atomic container signature""#].join(",")), "is a \"atomic"),
            (
                whole(&[r#""identity":{"docker-reference":"a/b","docker-reference":"c"}"#, image, kind].join(",")),
                "duplicate",
            ),
            (format!("{without_optional}{without_optional}"), "trailing characters"),
            ("[]".into(), "its payload"),
        ];
        for (payload, why) in cases {
            let error = sign(&payload).unwrap_err();
            assert!(error.contains(why), "{payload}: {error}");
        }
    }
}
