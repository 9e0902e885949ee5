//! What an identity has signed: a certificate for some minutes says whose, and a log or a timestamp that it was valid then.
//!
//! All of it is in the bundle, or beside the simple signature, and who is believed in a file, the trusted root; nothing is fetched.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::{Regex, RegexBuilder};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::{Value, json};
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{Artifact, Bundle, Sha256Hash};
use sigstore_verify::{Error, VerificationPolicy, Verifier};

use super::bundle::{self, Statement};
use super::identity::Identity;
use super::simple::Signature;

/// Why this build cannot verify identities: it can.
pub const CANNOT: Option<&str> = None;

/// Most memory that a pattern may take, in bytes.
const MAX_PATTERN: usize = 1 << 20;
/// Two who have nothing in common: what is like both is like anybody.
const STRANGERS: [&str; 2] = ["https://one.invalid/a", "b-2@two.example"];

/// Where a simple signature has the certificate, in PEM, those above it, and what the log has promised (cosign, specs/SIGNATURE_SPEC.md).
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const PROMISE: &str = "dev.sigstore.cosign/bundle";
/// The only form of bundles that a promise suffices for.
const OLD_BUNDLE: &str = "application/vnd.dev.sigstore.bundle+json;version=0.1";
/// What is said of signatures that have no certificate.
const BY_A_KEY: &str = "not by an identity";

/// What an identity or its issuer has to be like, from its first character to its last.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Reads a pattern, which has to begin with `^` and end in `$`: cosign's may match anywhere.
    ///
    /// Errors are why it is none.
    pub fn new(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')).filter(|rest| !rest.ends_with('\\'));
        let inner = inner.ok_or_else(|| format!("{text} has to begin with ^ and end in $: it would match a part"))?;
        // As a whole, also where it has alternatives.
        let whole = format!(r"\A(?:{inner})\z");
        let pattern = RegexBuilder::new(&whole).size_limit(MAX_PATTERN).build().map_err(|e| e.to_string())?;
        match STRANGERS.iter().all(|stranger| pattern.is_match(stranger)) {
            true => Err(format!("{text} matches anybody")),
            false => Ok(Self(pattern)),
        }
    }

    /// Returns whether a text is like that.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// Who is believed: authorities, and logs.
pub struct Root {
    verifier: Verifier,
    policy: VerificationPolicy,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root").finish_non_exhaustive()
    }
}

/// What a log has promised, as cosign writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Promise {
    signed_entry_timestamp: String,
    payload: Entry,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    body: String,
    integrated_time: i64,
    log_index: i64,
    #[serde(rename = "logID")]
    log_id: String,
}

impl Root {
    /// Reads a trusted root, in JSON.
    ///
    /// Errors are why it is none.
    pub fn new(text: &str) -> Result<Self, String> {
        let root = TrustedRoot::from_json(text).map_err(|e| e.to_string())?;
        // Whoever it is: who it may be is compared by patterns, which the library does not have.
        let anybody = VerificationPolicy::any_identity();
        // Whoever lists no log of certificates has an authority that uses none.
        let policy = if root.ctlogs.is_empty() { anybody.skip_sct() } else { anybody };
        Ok(Self { verifier: Verifier::new(&root).map_err(|e| e.to_string())?, policy })
    }

    /// Returns what a bundle states of the manifest with this digest, and who has signed it.
    ///
    /// Errors are why it counts for nothing.
    pub fn statement(&self, bundle: &[u8], digest: &str) -> Result<(Statement, Identity), String> {
        // What readers could read differently is refused first.
        let (payload, _) = bundle::open(bundle)?;
        let text = std::str::from_utf8(bundle).map_err(|e| format!("a damaged bundle: {e}"))?;
        let bundle = Bundle::from_json(text).map_err(|e| format!("a damaged bundle: {e}"))?;
        let hash = Sha256Hash::from_hex(digest.strip_prefix("sha256:").unwrap_or(digest)).map_err(|e| e.to_string())?;
        let identity = self.signer(&bundle, hash.into())?;
        Ok((bundle::statement(&payload)?, identity))
    }

    /// Returns who has signed the payload of a simple signature.
    ///
    /// Errors are why it counts for nothing.
    pub fn signer_of(&self, signature: &Signature) -> Result<Identity, String> {
        let bundle =
            serde_json::from_value(rewrapped(signature)?).map_err(|e| format!("a damaged certificate: {e}"))?;
        self.signer(&bundle, signature.payload.as_slice().into())
    }

    fn signer(&self, bundle: &Bundle, artifact: Artifact<'_>) -> Result<Identity, String> {
        if bundle.signing_certificate().is_none() {
            return Err(BY_A_KEY.to_owned());
        }
        let result = self.verifier.verify(artifact, bundle, &self.policy).map_err(|e| match e {
            Error::ArtifactMismatch(_) => "of another digest".to_owned(),
            e => format!("by an identity that is not proved: {e}"),
        })?;
        if !(result.certificate_verified() && result.tlog_verified()) {
            return Err("by an identity that is not proved: its certificate is not verified".to_owned());
        }
        match (result.identity(), result.issuer()) {
            (Some(name), Some(issuer)) => Ok(Identity { name: name.as_str().to_owned(), issuer: issuer.to_owned() }),
            _ => Err("by nobody: its certificate has no identity".to_owned()),
        }
    }
}

/// Returns a simple signature as a bundle, in whose oldest form everything has a place that cosign keeps beside the payload.
fn rewrapped(signature: &Signature) -> Result<Value, String> {
    let annotation = |name| signature.layer["annotations"][name].as_str();
    let certificate = annotation(CERTIFICATE).ok_or(BY_A_KEY)?;
    let promise = annotation(PROMISE).ok_or("by an identity that is not proved: no log has an entry of it")?;
    let damaged = |what: &str, e: &dyn std::fmt::Display| format!("with a damaged {what}: {e}");
    let mut certificates = Vec::new();
    for text in [Some(certificate), annotation(CHAIN)].into_iter().flatten() {
        let parsed = pem::parse_many(text).map_err(|e| damaged("certificate", &e))?;
        certificates.extend(parsed.iter().map(|one| json!({"rawBytes": STANDARD.encode(one.contents())})));
    }
    let Promise { signed_entry_timestamp, payload } =
        serde_json::from_str(promise).map_err(|e| damaged("entry of a log", &e))?;
    let body = STANDARD.decode(&payload.body).map_err(|e| damaged("entry of a log", &e))?;
    let body: Value = serde_json::from_slice(&body).map_err(|e| damaged("entry of a log", &e))?;
    let log = hex::decode(&payload.log_id).map_err(|e| damaged("entry of a log", &e))?;
    Ok(json!({
        "mediaType": OLD_BUNDLE,
        "verificationMaterial": {
            "x509CertificateChain": {"certificates": certificates},
            "tlogEntries": [{
                "logIndex": payload.log_index.to_string(),
                "logId": {"keyId": STANDARD.encode(log)},
                "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
                "integratedTime": payload.integrated_time.to_string(),
                "inclusionPromise": {"signedEntryTimestamp": signed_entry_timestamp},
                "canonicalizedBody": payload.body,
            }],
        },
        "messageSignature": {
            "messageDigest": {
                "algorithm": "SHA2_256",
                "digest": STANDARD.encode(digest(&SHA256, &signature.payload)),
            },
            "signature": STANDARD.encode(&signature.signature),
        },
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use sigstore_verify::trust_root::{
        SIGSTORE_PRODUCTION_TRUSTED_ROOT as ROOT, SIGSTORE_STAGING_TRUSTED_ROOT as STAGING,
    };

    use super::*;
    use crate::trust::identity::{Identities, Written};

    /// Of sigstore-rust (Apache-2.0): what GitHub Actions have signed, in the public log.
    const BUNDLE: &str = include_str!("../../tests/fixtures/keyless.sigstore.json");
    const DIGEST: &str = "sha256:54303491a8418fbed24344b513546182c29b43bf282ceb433af65e2299f9271f";
    const ISSUER: &str = "https://token.actions.githubusercontent.com";
    const NAME: &str = "https://github.com/prefix-dev/sigstore-example/.github/workflows/action.yaml@refs/heads/main";

    type Asked = (Written, &'static str);

    /// Who is asked for, and the trusted root.
    fn asked(name: &str, issuer: &str) -> Written {
        let either = |text: &str| match text.starts_with('^') {
            true => (None, Some(text.to_owned())),
            false => (Some(text.to_owned()), None),
        };
        let ((identity, identity_regexp), (issuer, issuer_regexp)) = (either(name), either(issuer));
        Written { identity, identity_regexp, issuer, issuer_regexp }
    }

    fn verify((written, root): Asked, bundle: &str, digest: &str) -> Result<Identity, String> {
        let identities = Identities::new((root.as_bytes(), "it"), vec![written])?;
        identities.statement(bundle.as_bytes(), digest).map(|(_, proved)| proved.identity)
    }

    #[test]
    fn an_identity_is_who_the_certificate_names() {
        let identity = Identity { name: NAME.into(), issuer: ISSUER.into() };
        for (name, issuer) in [(NAME, ISSUER), ("^https://github.com/[^/]+/.*$", "^https://token\\.actions\\..*$")] {
            assert_eq!(verify((asked(name, issuer), ROOT), BUNDLE, DIGEST), Ok(identity.clone()));
        }
        let refused = [
            ("https://github.com/mallory", ISSUER, "by https://github.com/"),
            (NAME, "https://accounts.google.com", "of https://token.actions.githubusercontent.com"),
            ("^https://github.com/mallory/.*$", ISSUER, "by https://github.com/"),
        ];
        for (name, issuer, why) in refused {
            let error = verify((asked(name, issuer), ROOT), BUNDLE, DIGEST).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_is_not_proved_counts_for_nothing() {
        let check = |root, bundle: &str, digest: &str| verify((asked(NAME, ISSUER), root), bundle, digest);
        assert!(check(ROOT, BUNDLE, DIGEST).is_ok());
        // Another image, another root, and what was altered: the time that the log says, above all.
        assert!(check(ROOT, BUNDLE, &format!("sha256:{}", "a".repeat(64))).is_err());
        assert!(check(STAGING, BUNDLE, DIGEST).is_err());
        let value: serde_json::Value = serde_json::from_str(BUNDLE).unwrap();
        let changes = [
            ("/verificationMaterial/tlogEntries/0/integratedTime", serde_json::json!("1893456000")),
            ("/verificationMaterial/tlogEntries/0/logIndex", serde_json::json!("1")),
            ("/verificationMaterial/tlogEntries", serde_json::json!([])),
            ("/verificationMaterial/certificate", serde_json::Value::Null),
            ("/dsseEnvelope/signatures/0/sig", serde_json::json!("AAAA")),
        ];
        for (pointer, to) in changes {
            let mut altered = value.clone();
            *altered.pointer_mut(pointer).unwrap() = to;
            assert!(check(ROOT, &altered.to_string(), DIGEST).is_err(), "{pointer}");
        }
        let none = Identities::new((b"{}", "it"), vec![asked(NAME, ISSUER)]).unwrap_err();
        assert!(none.starts_with("it is no trusted root: "), "{none}");
    }

    #[test]
    fn patterns_are_of_the_whole_and_not_of_anybody() {
        for text in
            [".*", "^.*", ".*$", "github.com", "^a", r"^a\$", "^.*$", "^.+$", "^$|^.*$", "^(.|\\n)*$", "^(a$", ""]
        {
            assert!(Pattern::new(text).is_err(), "{text}");
        }
        let cases = [
            ("^a@example\\.org$", "a@example.org", true),
            ("^a@example\\.org$", "a@example.org.invalid", false),
            ("^a@example\\.org$", "ba@example.org", false),
            ("^a|b$", "a", true),
            ("^a|b$", "ab", false),
            ("^a$", "a\n", false),
        ];
        for (pattern, value, is) in cases {
            assert_eq!(Pattern::new(pattern).unwrap().is_match(value), is, "{pattern} {value}");
        }
    }
}
