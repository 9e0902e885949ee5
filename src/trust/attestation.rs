//! Whether somebody has attested something of an image: bundles whose statements are no signatures.

use serde_json::Value;

use super::bundle::{BUNDLE, SIGNED, Statement};
use super::by::{Author, By};
use super::read::{had, states};
use super::verify::Bundle;
use crate::error::Result;

/// Most attestations of one image that are looked at.
pub const MAX_ATTESTATIONS: usize = 64;
/// Largest bundle of one, in bytes: a bill of materials of some 30,000 files.
pub const MAX_ATTESTATION: u64 = 16 << 20;
/// Most bytes of all that are looked at: they are in memory at once.
pub const MAX_ATTESTATIONS_SIZE: u64 = 64 << 20;

/// The attestations of a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attestations {
    /// The bundles.
    pub bundles: Vec<Bundle>,
    /// Why others could not be looked at.
    pub unread: Vec<String>,
}

/// An attestation that holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Attested {
    /// Who has signed it.
    pub by: Author,
    /// What it states.
    pub statement: Statement,
}

impl Attestations {
    /// Adds those of a manifest, whose blobs `blob` returns by digest and size. Manifests of other kinds have none, and neither
    /// have those of signatures. What cannot be looked at is noted, and does no harm to the others.
    ///
    /// # Errors
    /// Those of `blob`, unless they are about what there is and not about how it is reached.
    pub fn add(&mut self, bytes: &[u8], mut blob: impl FnMut(&str, u64) -> Result<Vec<u8>>) -> Result<()> {
        let Ok(manifest) = serde_json::from_slice::<Value>(bytes) else {
            self.unread.push("in a manifest that is no JSON".to_owned());
            return Ok(());
        };
        if states(&manifest) == Some(SIGNED) {
            return Ok(());
        }
        for layer in manifest["layers"].as_array().into_iter().flatten().filter(|layer| layer["mediaType"] == BUNDLE) {
            if self.bundles.len() >= MAX_ATTESTATIONS {
                self.unread.push(format!("beyond the first {MAX_ATTESTATIONS}"));
                return Ok(());
            }
            let size = layer["size"].as_u64().unwrap_or(u64::MAX);
            let most = MAX_ATTESTATION.min(MAX_ATTESTATIONS_SIZE - self.size());
            if size > most {
                self.unread.push(format!("of {size} bytes, more than {most}"));
                continue;
            }
            let digest = layer["digest"].as_str().unwrap_or_default();
            if let Some(bytes_of) = had(blob(digest, size), &mut self.unread)? {
                self.bundles.push(Bundle { bytes: bytes_of, manifest: bytes.to_vec() });
            }
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.bundles.iter().map(|bundle| bundle.bytes.len() as u64).sum::<u64>().min(MAX_ATTESTATIONS_SIZE)
    }
}

/// Returns what a bundle attests of the manifest `digest`, where one of `any` has signed that.
///
/// Errors are why it counts for nothing.
pub fn verify(bundle: &[u8], digest: &str, any: By<'_>) -> Result<Attested, String> {
    let mut reasons = Vec::new();
    for who in any.each() {
        match who.statement(bundle, digest) {
            Err(reason) => reasons.push(reason),
            Ok((statement, _)) if statement.predicate_type == SIGNED => return Err("a signature".to_owned()),
            Ok((statement, by)) => {
                return match statement.subjects.iter().any(|subject| subject == digest) {
                    true => Ok(Attested { by, statement }),
                    false => Err(match &statement.subjects[..] {
                        [other] => format!("of {other}"),
                        others => format!("of {} digests, and not of this one", others.len()),
                    }),
                };
            }
        }
    }
    reasons.dedup();
    Err(reasons.join(", "))
}

/// Returns an attestation of the type `predicate_type` of the manifest `digest`, by one of `any`.
///
/// Errors are what there is instead, in one line. Of several one suffices, and others do no harm.
pub fn attested(bundles: &[Bundle], digest: &str, predicate_type: &str, any: By<'_>) -> Result<Attested, String> {
    let mut refused = Vec::new();
    for bundle in bundles {
        match verify(&bundle.bytes, digest, any) {
            Ok(attested) if attested.statement.predicate_type == predicate_type => return Ok(attested),
            Ok(other) => refused.push(format!("of the type {}", other.statement.predicate_type)),
            Err(reason) => refused.push(reason),
        }
    }
    let count = refused.len();
    refused.sort();
    refused.dedup();
    match count {
        0 => Err("it has no attestation".to_owned()),
        1 => Err(format!("its attestation is {}", refused.join("; "))),
        count => Err(format!("its {count} attestations are {}", refused.join("; "))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;
    use crate::error::{Error, Fault};
    use crate::trust::bundle;
    use crate::trust::private_key::PrivateKey;
    use crate::trust::read::MAX_SIGNATURES;
    use crate::trust::verify::Signatures;

    const TYPE: &str = "https://spdx.dev/Document";

    fn digest() -> String {
        format!("sha256:{}", "a".repeat(64))
    }

    fn statement(subjects: &[String], predicate_type: &str) -> Statement {
        let predicate = json!({"SPDXID": "SPDXRef-DOCUMENT"});
        Statement { subjects: subjects.to_vec(), predicate_type: predicate_type.to_owned(), predicate }
    }

    fn bundle(key: &PrivateKey, statement: &Statement) -> Bundle {
        Bundle { bytes: bundle::make(key, statement).unwrap(), manifest: Vec::new() }
    }

    #[test]
    fn what_is_attested_has_key_subject_and_type() {
        let (key, _) = PrivateKey::generate().unwrap();
        let (other, _) = PrivateKey::generate().unwrap();
        let keys = [other.public().clone(), key.public().clone()];
        let elsewhere = format!("sha256:{}", "b".repeat(64));
        let own = bundle(&key, &statement(&[digest()], TYPE));
        let good = attested(std::slice::from_ref(&own), &digest(), TYPE, By::keys(&keys)).unwrap();
        assert_eq!((good.by, good.statement), (Author::Key(key.public().id()), statement(&[digest()], TYPE)));
        // Several subjects, as of an index and its images.
        let several = bundle(&key, &statement(&[elsewhere.clone(), digest()], TYPE));
        assert!(attested(&[several], &digest(), TYPE, By::keys(&keys)).is_ok());
        let cases = [
            (vec![], "it has no attestation"),
            (vec![bundle(&key, &statement(&[], TYPE))], "its attestation is of 0 digests"),
            (
                vec![bundle(&key, &statement(std::slice::from_ref(&elsewhere), TYPE))],
                "its attestation is of sha256:bbb",
            ),
            (vec![bundle(&key, &statement(&[digest()], SIGNED))], "its attestation is a signature"),
            (vec![bundle(&key, &statement(&[digest()], "urn:x"))], "its attestation is of the type urn:x"),
        ];
        for (bundles, why) in cases {
            let error = attested(&bundles, &digest(), TYPE, By::keys(&keys)).unwrap_err();
            assert!(error.starts_with(why), "{error}");
        }
        let error = attested(std::slice::from_ref(&own), &digest(), TYPE, By::keys(&keys[..1])).unwrap_err();
        assert_eq!(error, format!("its attestation is not by the key {}", other.public().id()));
        assert!(attested(std::slice::from_ref(&own), &digest(), TYPE, By::default()).is_err());
        // Others do no harm.
        let strange = Bundle { bytes: b"{".to_vec(), manifest: Vec::new() };
        let foreign = bundle(&other, &statement(&[elsewhere], TYPE));
        assert!(attested(&[strange, foreign, own], &digest(), TYPE, By::keys(&keys)).is_ok());
    }

    #[test]
    fn what_was_made_to_deceive_counts_for_nothing() {
        let (key, _) = PrivateKey::generate().unwrap();
        let (other, _) = PrivateKey::generate().unwrap();
        let keys = [key.public().clone()];
        let of = |value: &Value| verify(value.to_string().as_bytes(), &digest(), By::keys(&keys));
        let good: Value = serde_json::from_slice(&bundle(&key, &statement(&[digest()], TYPE)).bytes).unwrap();
        assert!(of(&good).is_ok());
        let strange: Value = serde_json::from_slice(&bundle(&other, &statement(&[digest()], TYPE)).bytes).unwrap();
        let (own, foreign) = (&good["dsseEnvelope"]["signatures"][0], &strange["dsseEnvelope"]["signatures"][0]);
        let payload = |text: &str| json!(STANDARD.encode(text));
        let altered = json!({"_type": "https://in-toto.io/Statement/v1", "subject": [], "predicateType": TYPE});
        let changes = [
            ("/dsseEnvelope/signatures", json!([own, foreign]), "2 signatures"),
            ("/dsseEnvelope/signatures", json!([foreign]), "not by the key"),
            ("/dsseEnvelope/signatures/0/sig", json!(""), "not by the key"),
            ("/dsseEnvelope/payloadType", json!("application/vnd.in-toto+JSON"), "an envelope with"),
            ("/dsseEnvelope/payload", payload(&altered.to_string()), "not by the key"),
            ("/mediaType", json!("application/vnd.dev.sigstore.bundle.v0.4+json"), "not supported"),
        ];
        for (pointer, to, why) in changes {
            let mut changed = good.clone();
            *changed.pointer_mut(pointer).unwrap() = to;
            let error = of(&changed).unwrap_err();
            assert!(error.contains(why), "{pointer}: {error}");
        }
        let twice = good.to_string().replacen("\"payload\"", "\"payload\":\"e30=\",\"payload\"", 1);
        assert!(verify(twice.as_bytes(), &digest(), By::keys(&keys)).unwrap_err().contains("duplicate field"));
    }

    #[test]
    fn a_statement_that_says_two_things_says_nothing() {
        let (key, _) = PrivateKey::generate().unwrap();
        let hex = "a".repeat(64);
        let whole = |predicate: &str, more: &str| {
            format!(
                r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{hex}"}}}}],"predicateType":"{TYPE}","predicate":{predicate}{more}}}"#
            )
        };
        let signed = |payload: &str| {
            let kind = "application/vnd.in-toto+json";
            let message = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
            let sig = STANDARD.encode(key.sign(message.as_bytes()).unwrap());
            let envelope =
                json!({"payload": STANDARD.encode(payload), "payloadType": kind, "signatures": [{"sig": sig}]});
            let bundle = json!({"mediaType": BUNDLE, "dsseEnvelope": envelope});
            verify(bundle.to_string().as_bytes(), &digest(), By::keys(std::slice::from_ref(key.public())))
        };
        assert!(signed(&whole(r#"{"Data":1,"data":2}"#, "")).is_ok());
        let cases = [
            whole(r#"{"a":1,"a":2}"#, ""),
            whole("{}", r#","predicateType":"urn:x""#),
            whole("{}", r#","predicate":{}"#),
            whole("{}", "} {"),
            format!("[{}]", whole("{}", "")),
            whole("{}", "").replace("Statement/v1", "Statement/v2"),
        ];
        for payload in cases {
            assert!(signed(&payload).unwrap_err().contains("its statement"), "{payload}");
        }
    }

    #[test]
    fn of_many_and_of_large_ones_only_some_are_read() {
        let manifest = |kind: &str, size: u64| {
            let layer = json!({"mediaType": BUNDLE, "digest": digest(), "size": size});
            json!({"layers": [layer], "annotations": {bundle::PREDICATE_TYPE: kind}}).to_string().into_bytes()
        };
        let bytes = |size: u64| Ok(vec![0; usize::try_from(size).unwrap()]);
        let mut all = Attestations::default();
        all.add(&manifest(TYPE, MAX_ATTESTATION + 1), |_, _| panic!("it is not read")).unwrap();
        all.add(&manifest(SIGNED, 1), |_, _| panic!("it is a signature")).unwrap();
        let gone = |_: &str, _: u64| {
            let (registry, reason) = ("r".to_owned(), "gone".to_owned());
            Err(Error::Registry { registry, fault: Fault::NotFound, reason, hint: None })
        };
        all.add(&manifest(TYPE, 1), gone).unwrap();
        assert_eq!((all.bundles.len(), all.unread.len()), (0, 2));
        for _ in 0..5 {
            all.add(&manifest(TYPE, MAX_ATTESTATION), |_, size| bytes(size)).unwrap();
        }
        assert_eq!((all.bundles.len(), all.unread.len()), (4, 3));
        let mut many = Attestations::default();
        let mut signatures = Signatures::default();
        for _ in 0..=MAX_ATTESTATIONS {
            many.add(&manifest(TYPE, 1), |_, size| bytes(size)).unwrap();
            signatures.add(&manifest(TYPE, 1), |_, _| panic!("it is no signature")).unwrap();
        }
        assert_eq!((many.bundles.len(), many.unread.len()), (MAX_ATTESTATIONS, 1));
        // Attestations take nothing from the number of signatures.
        for _ in 0..=MAX_SIGNATURES {
            signatures.add(&manifest(SIGNED, 1), |_, size| bytes(size)).unwrap();
        }
        assert_eq!((signatures.bundles.len(), signatures.unread.len()), (MAX_SIGNATURES, 1));
    }
}
