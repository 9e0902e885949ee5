//! Bundles that an identity has signed: a certificate for some minutes says whose, and a log or a timestamp that it was valid then.
//!
//! All of it is in the bundle, and who is believed in a file, the trusted root; nothing is fetched.

use regex::{Regex, RegexBuilder};
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{Bundle, Sha256Hash};
use sigstore_verify::{VerificationPolicy, Verifier};

use super::bundle::{self, Statement};

/// Most memory that a pattern may take, in bytes.
const MAX_PATTERN: usize = 1 << 20;
/// Two who have nothing in common: what is like both is like anybody.
const STRANGERS: [&str; 2] = ["https://one.invalid/a", "b-2@two.example"];

/// What an identity, or its issuer, has to be.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// This.
    Exact(String),
    /// Like this, from its first character to its last.
    Pattern(Regex),
}

impl Wanted {
    /// Reads a pattern, which has to begin with `^` and end in `$`: cosign's may match anywhere.
    ///
    /// Errors are why it is none.
    pub fn pattern(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')).filter(|rest| !rest.ends_with('\\'));
        let inner = inner.ok_or_else(|| format!("{text} has to begin with ^ and end in $: it would match a part"))?;
        // As a whole, also where it has alternatives.
        let whole = format!(r"\A(?:{inner})\z");
        let pattern = RegexBuilder::new(&whole).size_limit(MAX_PATTERN).build().map_err(|e| e.to_string())?;
        match STRANGERS.iter().all(|stranger| pattern.is_match(stranger)) {
            true => Err(format!("{text} matches anybody")),
            false => Ok(Self::Pattern(pattern)),
        }
    }

    fn is(&self, value: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == value,
            Self::Pattern(pattern) => pattern.is_match(value),
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(wanted) => f.write_str(wanted),
            Self::Pattern(pattern) => {
                let inner = pattern.as_str().strip_prefix(r"\A(?:").and_then(|rest| rest.strip_suffix(r")\z"));
                write!(f, "^{}$", inner.unwrap_or_default())
            }
        }
    }
}

/// Who has signed, as a certificate says that was valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// An address, or the workflow of a CI system.
    pub name: String,
    /// Who says so.
    pub issuer: String,
}

/// Who may have signed, and who says so.
pub struct Identities {
    verifier: Verifier,
    name: Wanted,
    issuer: Wanted,
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identities").field("name", &self.name).field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl std::fmt::Display for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.name, self.issuer)
    }
}

impl Identities {
    /// Returns who may have signed; `root` is the file of a trusted root, in JSON.
    ///
    /// Errors are why it is none.
    pub fn new(root: &[u8], name: Wanted, issuer: Wanted) -> Result<Self, String> {
        let text = std::str::from_utf8(root).map_err(|e| e.to_string())?;
        let root = TrustedRoot::from_json(text).map_err(|e| e.to_string())?;
        Ok(Self { verifier: Verifier::new(&root).map_err(|e| e.to_string())?, name, issuer })
    }

    /// Returns what a bundle states of the manifest with this digest, and who has signed it.
    ///
    /// Errors are why it counts for nothing.
    pub fn verify(&self, bundle: &[u8], digest: &str) -> Result<(Statement, Identity), String> {
        // What readers could read differently is refused first.
        let (payload, _) = bundle::open(bundle)?;
        let text = std::str::from_utf8(bundle).map_err(|e| format!("a damaged bundle: {e}"))?;
        let parsed = Bundle::from_json(text).map_err(|e| format!("a damaged bundle: {e}"))?;
        let hash = Sha256Hash::from_hex(digest.strip_prefix("sha256:").unwrap_or(digest)).map_err(|e| e.to_string())?;
        // Whoever it is: who it may be is compared below, by patterns that the library does not have.
        let anybody = VerificationPolicy::any_identity();
        let result = self.verifier.verify(hash, &parsed, &anybody).map_err(|e| format!("not by an identity: {e}"))?;
        if !(result.certificate_verified() && result.tlog_verified()) {
            return Err("not by an identity: its certificate is not verified".to_owned());
        }
        let (Some(name), Some(issuer)) = (result.identity(), result.issuer()) else {
            return Err("not by an identity: its certificate has none".to_owned());
        };
        let identity = Identity { name: name.as_str().to_owned(), issuer: issuer.to_owned() };
        match self.name.is(&identity.name) && self.issuer.is(&identity.issuer) {
            true => Ok((bundle::statement(&payload)?, identity)),
            false => Err(format!("by {} of {}", identity.name, identity.issuer)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use sigstore_verify::trust_root::{
        SIGSTORE_PRODUCTION_TRUSTED_ROOT as ROOT, SIGSTORE_STAGING_TRUSTED_ROOT as STAGING,
    };

    use super::*;

    /// Of sigstore-rust (Apache-2.0): what GitHub Actions have signed, in the public log.
    const BUNDLE: &str = include_str!("../../tests/fixtures/keyless.sigstore.json");
    const DIGEST: &str = "sha256:54303491a8418fbed24344b513546182c29b43bf282ceb433af65e2299f9271f";
    const ISSUER: &str = "https://token.actions.githubusercontent.com";
    const NAME: &str = "https://github.com/prefix-dev/sigstore-example/.github/workflows/action.yaml@refs/heads/main";

    fn exact(text: &str) -> Wanted {
        Wanted::Exact(text.to_owned())
    }

    fn verify(root: &str, name: Wanted, issuer: Wanted, bundle: &str, digest: &str) -> Result<Identity, String> {
        Identities::new(root.as_bytes(), name, issuer)?.verify(bundle.as_bytes(), digest).map(|(_, identity)| identity)
    }

    #[test]
    fn an_identity_is_who_the_certificate_names() {
        let identity = Identity { name: NAME.into(), issuer: ISSUER.into() };
        assert_eq!(verify(ROOT, exact(NAME), exact(ISSUER), BUNDLE, DIGEST), Ok(identity.clone()));
        let pattern = |text: &str| Wanted::pattern(text).unwrap();
        let like = "^https://github.com/[^/]+/.*$";
        assert_eq!(
            verify(ROOT, pattern(like), pattern("^https://token\\.actions\\..*$"), BUNDLE, DIGEST),
            Ok(identity)
        );
        let refused = [
            (exact("https://github.com/mallory"), exact(ISSUER), "by https://github.com/"),
            (exact(NAME), exact("https://accounts.google.com"), "of https://token.actions.githubusercontent.com"),
            (pattern("^https://github.com/mallory/.*$"), exact(ISSUER), "by https://github.com/"),
        ];
        for (name, issuer, why) in refused {
            let error = verify(ROOT, name, issuer, BUNDLE, DIGEST).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_is_not_proved_counts_for_nothing() {
        let check = |root: &str, bundle: &str, digest: &str| verify(root, exact(NAME), exact(ISSUER), bundle, digest);
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
        assert!(Identities::new(b"{}", exact(NAME), exact(ISSUER)).is_err_and(|e| !e.is_empty()));
    }

    #[test]
    fn patterns_are_of_the_whole_and_not_of_anybody() {
        for text in
            [".*", "^.*", ".*$", "github.com", "^a", r"^a\$", "^.*$", "^.+$", "^$|^.*$", "^(.|\\n)*$", "^(a$", ""]
        {
            assert!(Wanted::pattern(text).is_err(), "{text}");
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
            assert_eq!(Wanted::pattern(pattern).unwrap().is(value), is, "{pattern} {value}");
        }
        assert_eq!(Wanted::pattern("^a|b$").unwrap().to_string(), "^a|b$");
    }
}
