//! `trust.toml`: what has to hold of the images of a repository before they are used.
//!
//! ```toml
//! [[scope]]
//! prefix = "registry.example/acme"            # this repository, and all below it
//! keys = ["/etc/pki/acme.pub"]                # a file, or the key itself in PEM; one of them has to have signed
//! identities = [{ identity-regexp = "^https://github\\.com/acme/.*$", issuer = "https://token.actions.githubusercontent.com" }]
//! trusted-root = "trusted_root.json"          # or one of these, without a key: who is believed about them
//! signed-as = "registry.upstream/acme"        # what signatures call it, where it is a copy
//! states = ["published"]
//! attestations = ["provenance", "spdx"]       # made by one of the keys, too
//! pin = true                                  # of several keys the one that signed first stays
//! ```
//!
//! All scopes count that a name is in, of the machine's file and of the user's: a narrower one adds to a broader one, and takes
//! nothing away.

use serde::Deserialize;

use super::by::By;
use super::identity::{self, Identities, MAX_ROOT};
use super::key::{MAX_KEY, PublicKey};
use super::names::{spellings, with_one_host};
use crate::attest::kind::predicate_type;
use crate::error::{Error, Result};
use crate::lifecycle::State;
use crate::reference::{Reference, is_digest};

/// What the file is called, below the directory of the system's configuration or of the user's.
pub const FILE: &str = "skillctl/trust.toml";
/// Longest file, in bytes: a thousand scopes with keys in them.
pub const MAX_FILE: u64 = 1 << 20;

/// What has to hold of an image, because somebody asks for it.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// Who asks: a scope and its file; nothing where it was asked for by flags.
    pub source: String,
    /// Keys of which one has to have signed it.
    pub keys: Vec<PublicKey>,
    /// Identities of which one suffices in place of a key, by trusted roots. Where there are neither, no signature is asked for.
    pub identities: Vec<Identities>,
    /// The repository that signatures are for, where it is not the one that was asked for.
    pub identity: Option<Reference>,
    /// States that it may be in; any where there are none.
    pub states: Vec<State>,
    /// Types of predicates that one of the keys or identities has to have attested.
    pub attestations: Vec<String>,
    /// What names are mirrors of: what was signed for the one counts for the other.
    pub mirrors: Vec<Mirror>,
    /// Whether the first key that has signed an image of a repository is the only one from then on.
    pub pin: bool,
    /// Whether somebody has to have signed it, whoever another rule names.
    pub must: bool,
}

/// A scope as the file has it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Written {
    /// A repository, or what is before a slash of its name.
    pub prefix: String,
    /// Files of keys, or keys in PEM.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Identities.
    #[serde(default)]
    pub identities: Vec<identity::Written>,
    /// File with the authorities and logs that are believed about them.
    pub trusted_root: Option<String>,
    /// What signatures have in place of the prefix.
    pub signed_as: Option<String>,
    /// Lifecycle states.
    #[serde(default)]
    pub states: Vec<String>,
    /// Types of predicates, or their short names.
    #[serde(default)]
    pub attestations: Vec<String>,
    /// Whether the first key stays.
    #[serde(default)]
    pub pin: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    scope: Vec<Written>,
}

/// A scope.
#[derive(Debug, Clone)]
pub struct Scope {
    /// A repository, or what is before a slash of its name.
    pub prefix: String,
    /// What signatures have in place of the prefix.
    pub signed_as: Option<String>,
    /// The file.
    pub path: String,
    /// What holds in it.
    pub rule: Rule,
}

/// A mirror and what it is one of, as prefixes of names.
pub type Mirror = (String, String);

/// What is asked for on a machine.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    scopes: Vec<Scope>,
    /// Why it cannot be told what is asked for.
    broken: Option<Broken>,
}

#[derive(Debug, Clone)]
struct Broken {
    reason: String,
    hint: Option<String>,
}

/// Reads a file by the name that a policy has for it, and the most bytes that it may have.
pub type Read<'a> = &'a dyn Fn(&str, u64) -> Result<Vec<u8>>;

impl Rule {
    /// Returns whether what it lets pass another one does, too. Of identities that is not told: they are as good as their roots.
    fn is_as_strict_as(&self, other: &Self) -> bool {
        let states = other.states.is_empty()
            || !self.states.is_empty() && self.states.iter().all(|state| other.states.contains(state));
        let by = other.by().is_empty()
            || self.identities.is_empty()
                && !self.keys.is_empty()
                && self.keys.iter().all(|key| other.keys.contains(key));
        let attestations = other.attestations.iter().all(|one| self.attestations.contains(one));
        states && by && attestations && (self.pin || !other.pin)
    }

    /// Returns who may have signed.
    pub fn by(&self) -> By<'_> {
        By { keys: &self.keys, identities: &self.identities }
    }

    /// Returns the names that signatures of a repository may have: its own and what it is a mirror of, or the one that was given.
    pub fn names(&self, reference: &Reference) -> Vec<String> {
        if let Some(identity) = &self.identity {
            return vec![identity.name().to_owned()];
        }
        let name = reference.name();
        let of_mirror = self.mirrors.iter().filter_map(|(mirror, origin)| Some(origin.clone() + rest(name, mirror)?));
        [name.to_owned()].into_iter().chain(of_mirror).collect()
    }
}

impl Policy {
    /// Adds the scopes of the file at `path`. `read` reads the files of keys and roots.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the file and the place: of a policy that cannot be read nobody knows what it asks for.
    pub fn add(&mut self, text: &str, path: &str, read: Read<'_>) -> Result<()> {
        let bad = |reason: String| Error::Unavailable { reason: format!("{path}: {reason}"), hint: None };
        let file: File = toml::from_str(text).map_err(|e| match e.span() {
            Some(span) => {
                let line = text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
                bad(format!("line {line}: {}", e.message()))
            }
            None => bad(e.message().to_owned()),
        })?;
        for written in file.scope {
            let scope = written.scope(path, read).map_err(bad)?;
            self.scopes.push(scope);
        }
        Ok(())
    }

    /// Says which names are mirrors of which, in the scopes of the file at `path`: whoever may write that may widen what it says.
    #[must_use]
    pub fn mirrored(mut self, path: &str, mirrors: &[Mirror]) -> Self {
        for scope in self.scopes.iter_mut().filter(|scope| scope.path == path) {
            scope.rule.mirrors = mirrors.to_vec();
        }
        self
    }

    /// Returns a policy that nobody can read: nothing may be used, and what uses nothing goes on working.
    pub fn unreadable(error: &Error) -> Self {
        let broken = Broken { reason: error.to_string(), hint: error.hint() };
        Self { broken: Some(broken), ..Self::default() }
    }

    /// Returns whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.scopes.is_empty() && self.broken.is_none()
    }

    /// Returns an error where it cannot be read.
    ///
    /// # Errors
    /// [`Error::Unavailable`] that says where and why.
    pub fn check(&self) -> Result<()> {
        match &self.broken {
            Some(Broken { reason, hint }) => Err(Error::Unavailable { reason: reason.clone(), hint: hint.clone() }),
            None => Ok(()),
        }
    }

    /// Returns all scopes, the machine's first.
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// Returns the scopes that a repository is in.
    pub fn covering<'a>(&'a self, reference: &'a Reference) -> impl Iterator<Item = &'a Scope> {
        let names = spellings(reference.name());
        self.scopes.iter().filter(move |scope| below(&names, &scope.prefix).is_some())
    }

    /// Returns the scopes whose images are held to less under another name.
    pub fn left<'a>(&'a self, from: &'a Reference, to: &'a Reference) -> Vec<&'a Scope> {
        let same = |scope: &Scope| {
            self.covering(to).any(|other| other.prefix == scope.prefix || other.rule.is_as_strict_as(&scope.rule))
        };
        self.covering(from).filter(|scope| !same(scope)).collect()
    }

    /// Returns what has to hold of the images of a repository; nothing where no scope covers it.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn rules(&self, reference: &Reference) -> Result<Vec<Rule>> {
        self.check()?;
        let rule = |scope: &Scope| {
            let signed_as = scope.signed_as.as_ref();
            let names = spellings(reference.name());
            let mapped = signed_as.and_then(|to| Some(to.clone() + below(&names, &scope.prefix)?));
            Rule { identity: mapped.and_then(|name| name.parse().ok()), ..scope.rule.clone() }
        };
        Ok(self.covering(reference).map(rule).collect())
    }
}

/// Returns what a repository has after a prefix, whichever of its names it is in by.
fn below<'a>(names: &'a [String], prefix: &str) -> Option<&'a str> {
    names.iter().find_map(|name| rest(name, prefix))
}

/// Returns what a name has after a prefix that ends where one of its parts does.
fn rest<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Written {
    fn scope(self, path: &str, read: Read<'_>) -> Result<Scope, String> {
        let prefix = prefix(&self.prefix)?;
        let signed_as = self.signed_as.as_deref().map(self::prefix).transpose()?;
        let mut keys = Vec::new();
        for key in &self.keys {
            let own = key.trim_start().starts_with(PublicKey::BEGIN);
            let (pem, named) = match own {
                true => (key.clone().into_bytes(), format!("a key of {prefix:?}")),
                false => (read(key, MAX_KEY).map_err(|e| e.to_string())?, key.clone()),
            };
            keys.push(PublicKey::from_pem(&pem, &named).map_err(|e| e.to_string())?);
        }
        let identities = match (&self.trusted_root, self.identities.is_empty()) {
            (None, true) => Vec::new(),
            (Some(_), true) => return Err(format!("{prefix:?} has a trusted-root, and no identities")),
            (None, false) => return Err(format!("{prefix:?} has identities, and no trusted-root that is believed")),
            (Some(root), false) => {
                let text = read(root, MAX_ROOT).map_err(|e| e.to_string())?;
                let bad = |e: String| format!("{prefix:?}: {e}");
                vec![Identities::new((&text, root), self.identities.clone()).map_err(bad)?]
            }
        };
        let states = self.states.iter().map(|state| {
            state
                .parse::<State>()
                .map_err(|_| format!("states of {prefix:?} has {state:?}, which is no lifecycle state"))
        });
        let states = states.collect::<Result<Vec<_>, _>>()?;
        let attestations = self.attestations.iter().map(|name| predicate_type(name)).collect::<Result<Vec<_>, _>>()?;
        let nobody = keys.is_empty() && identities.is_empty();
        if nobody && (self.pin || !attestations.is_empty()) {
            return Err(format!("{prefix:?} has no keys, whose attestations or signatures could count"));
        }
        if nobody && states.is_empty() {
            return Err(format!("{prefix:?} asks for nothing: it has neither keys nor states (--key, --state)"));
        }
        let source = format!("{path}, {prefix}");
        let rule = Rule { source, keys, identities, states, attestations, pin: self.pin, ..Rule::default() };
        Ok(Scope { prefix, signed_as, path: path.to_owned(), rule })
    }
}

/// Returns a prefix as names have it.
///
/// # Errors
/// Why no repository could be in it.
pub fn prefix(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    let trimmed = trimmed.strip_prefix("localhost/").unwrap_or(trimmed);
    let below = format!("{trimmed}/x");
    match below.parse::<Reference>() {
        Ok(reference) if reference.name() == below && !is_digest(text) => Ok(with_one_host(trimmed)),
        _ => Err(format!(
            "{text:?} is no name of a repository, and no beginning of one: write it without transport, tag and wildcards"
        )),
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
