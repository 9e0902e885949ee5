//! An authority and a log like those of sigstore, with keys of their own: what they say of identities is what cosign writes.
#![allow(dead_code)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use skillctl::trust::bundle::{BUNDLE, SIGNED};
use skillctl::trust::simple::Signature;

/// When certificates are given: 2025, in seconds.
const GIVEN: i64 = 1_735_689_600;
/// How long they are valid, as Fulcio's.
const VALID: i64 = 600;

const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
/// Who says who it is (Fulcio, docs/oid-info.md); for simple signatures cosign looks for it where it was at first.
const ISSUER: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0xbf, 0x30, 1, 8];
const OLD_ISSUER: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0xbf, 0x30, 1, 1];

/// What is before the point of a P-256 key.
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3,
    0x42, 0,
];

struct Key(EcdsaKeyPair);

impl Key {
    fn new() -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
        Self(EcdsaKeyPair::from_pkcs8(kind, key.as_ref(), &random).expect("a key"))
    }

    fn public(&self) -> Vec<u8> {
        [P256, self.0.public_key().as_ref()].concat()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// A value of DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u16::try_from(body.len()).expect("a short value").to_be_bytes();
    let length = match body.len() {
        0..128 => vec![length[1]],
        128..256 => vec![0x81, length[1]],
        _ => vec![0x82, length[0], length[1]],
    };
    [&[tag][..], &length, &body].concat()
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    der(0x30, parts)
}

fn oid(bytes: &[u8]) -> Vec<u8> {
    der(6, &[bytes])
}

fn time(seconds: i64) -> Vec<u8> {
    let time = DateTime::from_timestamp(seconds, 0).expect("a time");
    der(0x17, &[time.format("%y%m%d%H%M%SZ").to_string().as_bytes()])
}

fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der(1, &[&[0xff]]) } else { Vec::new() };
    sequence(&[&oid(id), &critical, &der(4, &[value])])
}

fn name(common: &str) -> Vec<u8> {
    sequence(&[&der(0x31, &[&sequence(&[&oid(COMMON_NAME), &der(0x0c, &[common.as_bytes()])])])])
}

fn certificate(by: &Key, subject: &[u8], of: &Key, (from, to): (i64, i64), extensions: &[&[u8]]) -> Vec<u8> {
    let algorithm = sequence(&[&oid(ECDSA_SHA256)]);
    let signed = sequence(&[
        &der(0xa0, &[&der(2, &[&[2]])]),
        &der(2, &[&[1], &sha256(&of.public())[..8]]),
        &algorithm,
        &name("An authority"),
        &sequence(&[&time(from), &time(to)]),
        subject,
        &of.public(),
        &der(0xa3, &[&sequence(extensions)]),
    ]);
    sequence(&[&signed, &algorithm, &der(3, &[&[0], &by.sign(&signed)])])
}

fn pem(certificate: &[u8]) -> String {
    let text = base64(certificate);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// An authority and a log.
pub struct Sigstore {
    authority: Key,
    log: Key,
    root: Vec<u8>,
}

/// Who signs, and when.
#[derive(Clone, Copy)]
pub struct Signing<'a> {
    pub identity: &'a str,
    pub issuer: &'a str,
    /// How many seconds after the certificate is given the log has it; none where no log has it.
    pub logged: Option<i64>,
}

impl Signing<'_> {
    pub const ANA: Signing<'static> =
        Signing { identity: "ana@example.org", issuer: "https://accounts.example", logged: Some(60) };
    /// A workflow.
    pub const RELEASE: Signing<'static> = Signing {
        identity: "https://github.com/acme/hr/.github/workflows/release.yaml@refs/tags/v1",
        issuer: "https://token.actions.githubusercontent.com",
        logged: Some(60),
    };
}

impl Sigstore {
    pub fn new() -> Self {
        let authority = Key::new();
        let constraints = extension(BASIC_CONSTRAINTS, true, &sequence(&[&der(1, &[&[0xff]])]));
        let usage = extension(KEY_USAGE, true, &[3, 2, 1, 6]);
        let (subject, valid) = (name("An authority"), (GIVEN - VALID, GIVEN + 10 * 365 * 86_400));
        let root = certificate(&authority, &subject, &authority, valid, &[&constraints, &usage]);
        Self { authority, log: Key::new(), root }
    }

    fn log_id(&self) -> Vec<u8> {
        sha256(&self.log.public())
    }

    /// What is believed by whoever believes these two: no log of certificates is among them.
    pub fn trusted_root(&self) -> Value {
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [{
                "baseUrl": "https://rekor.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": base64(self.log.public()),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": {"start": "2024-01-01T00:00:00Z"},
                },
                "logId": {"keyId": base64(self.log_id())},
            }],
            "certificateAuthorities": [{
                "subject": {"organization": "example", "commonName": "An authority"},
                "uri": "https://fulcio.example",
                "certChain": {"certificates": [{"rawBytes": base64(&self.root)}]},
                "validFor": {"start": "2024-01-01T00:00:00Z"},
            }],
        })
    }

    /// A certificate, and its key.
    fn issue(&self, signing: Signing<'_>) -> (Vec<u8>, Key) {
        let key = Key::new();
        let kind = if signing.identity.contains("://") { 0x86 } else { 0x81 };
        let extensions = [
            extension(KEY_USAGE, true, &[3, 2, 7, 0x80]),
            extension(EXTENDED_KEY_USAGE, false, &sequence(&[&oid(CODE_SIGNING)])),
            extension(ALTERNATIVE_NAME, true, &sequence(&[&der(kind, &[signing.identity.as_bytes()])])),
            extension(OLD_ISSUER, false, signing.issuer.as_bytes()),
            extension(ISSUER, false, &der(0x0c, &[signing.issuer.as_bytes()])),
        ];
        let extensions: Vec<&[u8]> = extensions.iter().map(Vec::as_slice).collect();
        let (valid, nobody) = ((GIVEN, GIVEN + VALID), sequence(&[]));
        (certificate(&self.authority, &nobody, &key, valid, &extensions), key)
    }

    /// What the log promises of an entry.
    fn promise(&self, body: &str, time: i64) -> String {
        let promise = json!({"body": body, "integratedTime": time, "logID": hex(&self.log_id()), "logIndex": 0});
        // The keys are in order, and there is nothing else that a canonical form would change.
        base64(self.log.sign(promise.to_string().as_bytes()))
    }

    /// A statement about a manifest, signed.
    pub fn bundle(&self, signing: Signing<'_>, (predicate_type, digest): (&str, &str)) -> Vec<u8> {
        let (certificate, key) = self.issue(signing);
        let digest = digest.trim_start_matches("sha256:");
        let payload = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": digest}}],
            "predicateType": predicate_type,
            "predicate": {},
        });
        let (kind, payload) = ("application/vnd.in-toto+json", payload.to_string());
        let sig = base64(key.sign(format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len()).as_bytes()));
        let envelope = json!({"payload": base64(&payload), "payloadType": kind, "signatures": [{"sig": sig}]});
        let entry = |logged: i64| {
            let body = json!({
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": {"algorithm": "sha256", "value": hex(&sha256(envelope.to_string().as_bytes()))},
                    "payloadHash": {"algorithm": "sha256", "value": hex(&sha256(payload.as_bytes()))},
                    "signatures": [{"signature": sig, "verifier": base64(pem(&certificate))}],
                },
            });
            let (body, time) = (body.to_string(), GIVEN + logged);
            // A log with one entry.
            let root = base64(sha256(&[&[0], body.as_bytes()].concat()));
            let note = format!("rekor.example - 1\n1\n{root}\n");
            let signed = base64([&self.log_id()[..4], &self.log.sign(note.as_bytes())].concat());
            json!({
                "logIndex": "0",
                "logId": {"keyId": base64(self.log_id())},
                "kindVersion": {"kind": "dsse", "version": "0.0.1"},
                "integratedTime": time.to_string(),
                "inclusionPromise": {"signedEntryTimestamp": self.promise(&base64(&body), time)},
                "inclusionProof": {
                    "logIndex": "0",
                    "rootHash": root,
                    "treeSize": "1",
                    "hashes": [],
                    "checkpoint": {"envelope": format!("{note}\n\u{2014} rekor.example {signed}\n")},
                },
                "canonicalizedBody": base64(&body),
            })
        };
        let entries: Vec<Value> = signing.logged.map(entry).into_iter().collect();
        let bundle = json!({
            "mediaType": BUNDLE,
            "verificationMaterial": {"certificate": {"rawBytes": base64(&certificate)}, "tlogEntries": entries},
            "dsseEnvelope": envelope,
        });
        bundle.to_string().into_bytes()
    }

    /// A bundle that is a signature.
    pub fn signed(&self, signing: Signing<'_>, digest: &str) -> Vec<u8> {
        self.bundle(signing, (SIGNED, digest))
    }

    /// A simple signature, with what cosign 2 keeps beside it.
    pub fn simple(&self, signing: Signing<'_>, (reference, digest): (&str, &str)) -> Signature {
        let (certificate, key) = self.issue(signing);
        let payload = json!({
            "critical": {
                "identity": {"docker-reference": reference},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": null,
        });
        let payload = payload.to_string().into_bytes();
        let signature = key.sign(&payload);
        let mut annotations = json!({
            "dev.cosignproject.cosign/signature": base64(&signature),
            "dev.sigstore.cosign/certificate": pem(&certificate),
            "dev.sigstore.cosign/chain": pem(&self.root),
        });
        if let Some(logged) = signing.logged {
            let body = json!({
                "apiVersion": "0.0.1",
                "kind": "hashedrekord",
                "spec": {
                    "data": {"hash": {"algorithm": "sha256", "value": hex(&sha256(&payload))}},
                    "signature": {
                        "content": base64(&signature),
                        "publicKey": {"content": base64(pem(&certificate))},
                    },
                },
            });
            let (body, time) = (base64(body.to_string()), GIVEN + logged);
            let promise = json!({
                "SignedEntryTimestamp": self.promise(&body, time),
                "Payload": {"body": body, "integratedTime": time, "logIndex": 0, "logID": hex(&self.log_id())},
            });
            annotations["dev.sigstore.cosign/bundle"] = json!(promise.to_string());
        }
        let layer = json!({
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "size": payload.len(),
            "digest": format!("sha256:{}", hex(&sha256(&payload))),
            "annotations": annotations,
        });
        Signature { payload, signature, layer }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
