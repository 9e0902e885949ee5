//! Sigstore bundles v0.3: a DSSE envelope with an in-toto statement about a manifest, which refers to that as its subject.
//!
//! A signature is a statement of the type `https://sigstore.dev/cosign/sign/v1`; attestations are statements of other types.
//! Sources: the protobuf specifications of sigstore (bundle), DSSE 1.0 (envelope, encoding), in-toto attestation framework (statement).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::key::PublicKey;
use super::signer::Signer;
use crate::error::{Error, Result};
use crate::strict;

/// Media type of a bundle, and of what a bundle's manifest is.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The type of a statement that is a signature.
pub const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";
/// The empty JSON object, which artifacts have for a config (image specification).
pub const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The annotation of a bundle's manifest that says what kind of statement is in it, so that others need not be fetched.
pub const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Longest reason why a bundle counts for nothing, in characters.
const MAX_REASON: usize = 256;
/// The form of what we state; older ones are read, too.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const OLD_STATEMENT: &str = "https://in-toto.io/Statement/v0.1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Sig>,
}

#[derive(Deserialize)]
struct Sig {
    sig: String,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    #[serde(default)]
    predicate: Value,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digests,
}

#[derive(Deserialize)]
struct Digests {
    sha256: Option<String>,
}

/// What a bundle states.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// Digests of what it is about.
    pub subjects: Vec<String>,
    /// What kind of thing is said about it.
    pub predicate_type: String,
    /// What is said.
    pub predicate: Value,
}

/// Returns a bundle with a statement about manifests, signed.
///
/// # Errors
/// If it cannot be signed.
pub fn make(key: &dyn Signer, statement: &Statement) -> Result<Vec<u8>> {
    let subjects: Vec<Value> = statement
        .subjects
        .iter()
        .map(|digest| json!({"digest": {"sha256": digest.strip_prefix("sha256:").unwrap_or(digest)}}))
        .collect();
    let payload = json!({
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": statement.predicate_type,
        "predicate": statement.predicate,
    });
    let payload = payload.to_string();
    let signature = key.sign(&encoding(PAYLOAD_TYPE, payload.as_bytes()))?;
    let bundle = json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": key.public().hint()}},
        "dsseEnvelope": {
            "payload": STANDARD.encode(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": STANDARD.encode(signature)}],
        },
    });
    serde_json::to_vec(&bundle).map_err(|e| Error::damaged("the bundle", e))
}

/// Returns what a bundle states, where the key has signed it; the statement of another signer is not even parsed.
///
/// Errors are why it counts for nothing.
pub fn verify(bundle: &[u8], key: &PublicKey) -> Result<Statement, String> {
    let (payload, signature) = open(bundle).map_err(short)?;
    match key.verifies(&encoding(PAYLOAD_TYPE, &payload), &signature) {
        true => statement(&payload).map_err(short),
        false => Err(format!("not by the key {}", key.id())),
    }
}

/// Returns what a bundle states, whoever has signed it: to be shown, and for nothing else.
///
/// Errors are why it says nothing.
pub fn unverified(bundle: &[u8]) -> Result<Statement, String> {
    open(bundle).and_then(|(payload, _)| statement(&payload)).map_err(short)
}

/// Cuts a reason, which may repeat all of what somebody has put where a word belongs.
pub(super) fn short(mut reason: String) -> String {
    if let Some((end, _)) = reason.char_indices().nth(MAX_REASON) {
        reason.truncate(end);
        reason.push('…');
    }
    reason
}

/// Returns the payload of a bundle, and its only signature.
pub(super) fn open(bundle: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let bundle: Bundle = serde_json::from_slice(bundle).map_err(|e| format!("a damaged bundle: {e}"))?;
    if bundle.media_type != BUNDLE {
        return Err(format!("a bundle of the type {}, which is not supported", bundle.media_type));
    }
    let envelope = bundle.dsse_envelope.ok_or("a bundle without an envelope, which is not about an image")?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(format!("an envelope with {}, and not {PAYLOAD_TYPE}", envelope.payload_type));
    }
    let [signature] = envelope.signatures.as_slice() else {
        return Err(format!("an envelope with {} signatures, and not one", envelope.signatures.len()));
    };
    let decode = |text: &str| STANDARD.decode(text).map_err(|e| format!("a damaged envelope: {e}"));
    Ok((decode(&envelope.payload)?, decode(&signature.sig)?))
}

/// Returns what a payload states that was verified.
///
/// Errors are why it counts for nothing.
pub(super) fn statement(payload: &[u8]) -> Result<Statement, String> {
    // Of two equal keys readers take one or the other.
    strict::unique(payload).map_err(|e| format!("its statement: {e}"))?;
    let wire: Wire = serde_json::from_slice(payload).map_err(|e| format!("its statement: {e}"))?;
    if ![STATEMENT, OLD_STATEMENT].contains(&wire.kind.as_str()) {
        return Err(format!("its statement is a {:?}", wire.kind));
    }
    let subjects = wire.subject.into_iter().filter_map(|subject| subject.digest.sha256);
    Ok(Statement {
        subjects: subjects.map(|hex| format!("sha256:{hex}")).collect(),
        predicate_type: wire.predicate_type,
        predicate: wire.predicate,
    })
}

/// Returns the manifest of a bundle: an artifact that refers to `subject`, a descriptor.
pub fn manifest(subject: &Value, predicate_type: &str, (digest, size): (&str, usize), empty: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": BUNDLE,
        "config": {"mediaType": EMPTY_TYPE, "digest": empty, "size": EMPTY.len()},
        "layers": [{"mediaType": BUNDLE, "digest": digest, "size": size}],
        "subject": {"mediaType": subject["mediaType"], "digest": subject["digest"], "size": subject["size"]},
        "annotations": {
            "dev.sigstore.bundle.content": "dsse-envelope",
            PREDICATE_TYPE: predicate_type,
        },
    })
}

/// What is signed of a payload (DSSE, pre-authentication encoding).
fn encoding(kind: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::trust::private_key::PrivateKey;

    fn statement() -> Statement {
        Statement {
            subjects: vec![format!("sha256:{}", "a".repeat(64))],
            predicate_type: SIGNED.into(),
            predicate: json!({}),
        }
    }

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        let text = encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(text, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn what_was_signed_is_what_is_stated() {
        let (key, _) = PrivateKey::generate().unwrap();
        let bundle = make(&key, &statement()).unwrap();
        assert_eq!(verify(&bundle, key.public()), Ok(statement()));
        let (other, _) = PrivateKey::generate().unwrap();
        assert_eq!(verify(&bundle, other.public()), Err(format!("not by the key {}", other.public().id())));
    }

    #[test]
    fn bundles_of_other_kinds_count_for_nothing() {
        let (key, _) = PrivateKey::generate().unwrap();
        let bundle: Value = serde_json::from_slice(&make(&key, &statement()).unwrap()).unwrap();
        let changed = |pointer: &str, to: Value| {
            let mut bundle = bundle.clone();
            *bundle.pointer_mut(pointer).unwrap() = to;
            verify(bundle.to_string().as_bytes(), key.public()).unwrap_err()
        };
        let sig = &bundle["dsseEnvelope"]["signatures"][0];
        let other = STANDARD.encode(r#"{"_type":"https://in-toto.io/Statement/v1"}"#);
        let cases = [
            ("/mediaType", json!("application/vnd.dev.sigstore.bundle+json;version=0.1"), "which is not supported"),
            ("/dsseEnvelope", Value::Null, "without an envelope"),
            ("/dsseEnvelope/payloadType", json!("text/plain"), "an envelope with text/plain"),
            ("/dsseEnvelope/signatures", json!([sig, sig]), "with 2 signatures"),
            ("/dsseEnvelope/signatures", json!([]), "with 0 signatures"),
            ("/dsseEnvelope/payload", json!(other), "not by the key"),
            ("/dsseEnvelope/payload", json!("%"), "damaged envelope"),
        ];
        for (pointer, to, why) in cases {
            let error = changed(pointer, to);
            assert!(error.contains(why), "{pointer}: {error}");
        }
        let long = changed("/dsseEnvelope/payloadType", json!("x".repeat(1 << 20)));
        assert_eq!(long.chars().count(), MAX_REASON + 1);
        let twice = bundle.to_string().replacen("\"payloadType\"", "\"payloadType\":\"text/plain\",\"payloadType\"", 1);
        assert!(verify(twice.as_bytes(), key.public()).unwrap_err().contains("duplicate field"));
    }
}
