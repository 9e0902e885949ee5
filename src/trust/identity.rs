//! Who may have signed without a key: identities that certificates name, and who is believed about them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bundle::{Statement, short};
use super::keyless::{Pattern, Root};
use super::simple::{Claim, Signature};

/// What GitHub and GitLab call a workflow by, before the tag that it ran for.
const TAG: &str = "@refs/tags/";
/// Longest trusted root, in bytes: GitHub's, with the authorities of years, has 31 KiB.
pub const MAX_ROOT: u64 = 1 << 20;

/// Who has signed, as a certificate says that was valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// An address, or the workflow of a CI system.
    pub name: String,
    /// Who says so.
    pub issuer: String,
}

impl Identity {
    /// Returns whoever signs the next image is, as pins have it: of a workflow that ran for a tag the tag is another one then.
    pub fn kept(&self) -> Self {
        let name = self.workflow().map_or_else(|| self.name.clone(), |workflow| format!("{workflow}{TAG}"));
        Self { name, issuer: self.issuer.clone() }
    }

    /// Returns the same as what is asked for.
    pub fn wanted(&self) -> Written {
        let issuer = Some(self.issuer.clone());
        match self.workflow() {
            Some(workflow) => {
                let pattern = format!("^{}{TAG}.+$", escaped(workflow));
                Written { identity_regexp: Some(pattern), issuer, ..Written::default() }
            }
            None => Written { identity: Some(self.name.clone()), issuer, ..Written::default() },
        }
    }

    fn workflow(&self) -> Option<&str> {
        self.name.rsplit_once(TAG).filter(|(name, _)| name.starts_with("https://")).map(|(workflow, _)| workflow)
    }
}

/// Returns a pattern that matches a text alone.
fn escaped(text: &str) -> String {
    let escape = |c: char| r"\.+*?()|[]{}^$".contains(c).then_some('\\');
    text.chars().flat_map(|c| escape(c).into_iter().chain([c])).collect()
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name, self.issuer)
    }
}

/// An identity, and who says so, as they are written: each as it is, or as a pattern from `^` to `$`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all(deserialize = "kebab-case"))]
pub struct Written {
    /// The identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// What it is like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_regexp: Option<String>,
    /// Who says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What that is like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_regexp: Option<String>,
}

impl Written {
    /// Returns whether the identity, or its pattern, is written so.
    pub fn is_called(&self, name: &str) -> bool {
        [&self.identity, &self.identity_regexp].into_iter().flatten().any(|own| own == name)
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let either = |one: &'_ Option<String>, other: &'_ Option<String>| one.clone().or(other.clone());
        let name = either(&self.identity, &self.identity_regexp).unwrap_or_default();
        write!(f, "{name} of {}", either(&self.issuer, &self.issuer_regexp).unwrap_or_default())
    }
}

/// What an identity, or its issuer, has to be.
#[derive(Debug, Clone)]
enum Wanted {
    Exact(String),
    Like(Pattern),
}

impl Wanted {
    fn new(what: &str, exact: Option<&String>, pattern: Option<&String>) -> Result<Self, String> {
        match (exact, pattern) {
            (Some(exact), None) if !exact.is_empty() => Ok(Self::Exact(exact.clone())),
            (None, Some(pattern)) => Pattern::new(pattern).map(Self::Like),
            _ => Err(format!("an identity has one {what}, as it is or as a pattern ({what}, {what}-regexp)")),
        }
    }

    fn is(&self, value: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == value,
            Self::Like(pattern) => pattern.is_match(value),
        }
    }
}

/// Identities of which one suffices, and who is believed about them.
#[derive(Debug, Clone)]
pub struct Identities {
    written: Vec<Written>,
    wanted: Vec<(Wanted, Wanted)>,
    root: Arc<Root>,
    text: Arc<str>,
}

impl fmt::Display for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.written.iter().map(ToString::to_string).collect();
        f.write_str(&names.join(" or "))
    }
}

impl Identities {
    /// Returns who may have signed; `root` is a trusted root, in JSON, which errors call `named`.
    ///
    /// Errors are why it is none, or what is wrong with an identity.
    pub fn new((root, named): (&[u8], &str), written: Vec<Written>) -> Result<Self, String> {
        let no_root = |e: &dyn fmt::Display| format!("{named} is no trusted root: {e}");
        // On one line, as a receipt has it.
        let text = serde_json::from_slice::<Value>(root).map_err(|e| no_root(&e))?.to_string();
        let root = Root::new(&text).map_err(|e| no_root(&e))?;
        Ok(Self { wanted: wanted(&written)?, written, root: Arc::new(root), text: text.into() })
    }

    /// Returns the identities, as they were written.
    pub fn written(&self) -> &[Written] {
        &self.written
    }

    /// Returns the trusted root, in JSON.
    pub fn root(&self) -> &str {
        &self.text
    }

    /// Returns what a bundle states of the manifest with this digest, where one of them has signed it.
    ///
    /// Errors are why it counts for nothing.
    pub fn statement(&self, bundle: &[u8], digest: &str) -> Result<(Statement, Proved), String> {
        let (statement, identity) = self.root.statement(bundle, digest).map_err(short)?;
        Ok((statement, self.proved(identity)?))
    }

    /// Returns what a simple signature claims, where one of them has signed it.
    ///
    /// Errors are why it counts for nothing.
    pub fn claim(&self, signature: &Signature) -> Result<(Claim, Proved), String> {
        let proved = self.root.signer_of(signature).map_err(short).and_then(|identity| self.proved(identity))?;
        Ok((signature.claim()?, proved))
    }

    fn proved(&self, identity: Identity) -> Result<Proved, String> {
        match self.wanted.iter().any(|(name, issuer)| name.is(&identity.name) && issuer.is(&identity.issuer)) {
            true => Ok(Proved { identity, root: Arc::clone(&self.text) }),
            false => Err(short(format!("by {identity}"))),
        }
    }
}

/// Reads identities.
///
/// Errors are what is wrong with one.
fn wanted(written: &[Written]) -> Result<Vec<(Wanted, Wanted)>, String> {
    let one = |own: &Written| {
        let name = Wanted::new("identity", own.identity.as_ref(), own.identity_regexp.as_ref())?;
        Ok((name, Wanted::new("issuer", own.issuer.as_ref(), own.issuer_regexp.as_ref())?))
    };
    written.iter().map(one).collect()
}

/// Who has signed, and the trusted root by which that is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// Who.
    pub identity: Identity,
    /// The root, in JSON.
    pub root: Arc<str>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_is_the_same_for_every_tag_and_nothing_else_is() {
        let cases = [
            ("ana@example.org", "ana@example.org", None),
            ("https://x/a.yaml@refs/tags/v1", "https://x/a.yaml@refs/tags/", Some(r"^https://x/a\.yaml@refs/tags/.+$")),
            (
                "https://x/a@refs/tags/b+c.yaml@refs/tags/v1",
                "https://x/a@refs/tags/b+c.yaml@refs/tags/",
                Some(r"^https://x/a@refs/tags/b\+c\.yaml@refs/tags/.+$"),
            ),
            ("https://x/a.yaml@refs/heads/main", "https://x/a.yaml@refs/heads/main", None),
            ("https://x/a.yaml@refs/pull/5/merge", "https://x/a.yaml@refs/pull/5/merge", None),
            ("ana@refs/tags/v1", "ana@refs/tags/v1", None),
        ];
        for (name, kept, pattern) in cases {
            let identity = Identity { name: name.into(), issuer: "https://y".into() };
            assert_eq!(identity.kept().to_string(), format!("{kept} of https://y"));
            let wanted = identity.wanted();
            assert_eq!(wanted.identity_regexp.as_deref(), pattern);
            assert_eq!(wanted.identity.is_none(), pattern.is_some());
            assert_eq!(wanted.issuer.as_deref(), Some("https://y"));
        }
    }

    #[test]
    fn an_identity_is_one_name_and_one_issuer() {
        let some = |text: &str| Some(text.to_owned());
        let good =
            Written { identity: some("ana@example.org"), issuer_regexp: some("^https://x$"), ..Written::default() };
        assert_eq!(good.to_string(), "ana@example.org of ^https://x$");
        assert_eq!(wanted(std::slice::from_ref(&good)).unwrap().len(), 1);
        let bad = [
            Written { identity: None, ..good.clone() },
            Written { issuer_regexp: None, ..good.clone() },
            Written { identity_regexp: some("^a$"), ..good.clone() },
            Written { identity: some(""), ..good.clone() },
        ];
        for one in bad {
            assert!(wanted(std::slice::from_ref(&one)).unwrap_err().starts_with("an identity has one "), "{one:?}");
        }
    }
}
