//! Who may have signed: keys and identities, of which one suffices.

use std::fmt;

use super::bundle::{self, Statement};
use super::identity::{Identities, Proved};
use super::key::PublicKey;
use super::keyless::CANNOT;
use super::simple::{Claim, Signature};

/// Who may have signed; nobody is asked for where it is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct By<'a> {
    /// Keys.
    pub keys: &'a [PublicKey],
    /// Identities.
    pub identities: &'a [Identities],
}

/// One of them, or those of one trusted root.
#[derive(Debug, Clone, Copy)]
pub enum Who<'a> {
    /// A key.
    Key(&'a PublicKey),
    /// Identities.
    Identities(&'a Identities),
}

/// Who has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    /// The key, as [`PublicKey::id`] names it.
    Key(String),
    /// An identity.
    Identity(Proved),
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => f.write_str(id),
            Self::Identity(proved) => proved.identity.fmt(f),
        }
    }
}

impl<'a> By<'a> {
    /// Returns those who hold one of these keys.
    pub fn keys(keys: &'a [PublicKey]) -> Self {
        Self { keys, ..Self::default() }
    }

    /// Returns whether nobody is asked for.
    pub fn is_empty(self) -> bool {
        self.keys.is_empty() && self.identities.is_empty()
    }

    /// Returns each of them.
    pub fn each(self) -> impl Iterator<Item = Who<'a>> {
        self.keys.iter().map(Who::Key).chain(self.identities.iter().map(Who::Identities))
    }
}

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.iter().map(PublicKey::id);
        let mut names: Vec<String> = keys.chain(self.identities.iter().map(ToString::to_string)).collect();
        // By several roots they are the same.
        names.dedup();
        f.write_str(&names.join(" or "))?;
        match CANNOT {
            Some(why) if !self.identities.is_empty() => write!(f, " ({why})"),
            _ => Ok(()),
        }
    }
}

impl Who<'_> {
    /// Returns what a bundle states of the manifest with this digest; where a key has signed it, of whatever.
    ///
    /// Errors are why it counts for nothing.
    pub fn statement(self, bundle: &[u8], digest: &str) -> Result<(Statement, Author), String> {
        match self {
            Self::Key(key) => Ok((bundle::verify(bundle, key)?, Author::Key(key.id()))),
            Self::Identities(any) => {
                let (statement, proved) = any.statement(bundle, digest)?;
                Ok((statement, Author::Identity(proved)))
            }
        }
    }

    /// Returns what a simple signature claims.
    ///
    /// Errors are why it counts for nothing.
    pub fn claim(self, signature: &Signature) -> Result<(Claim, Author), String> {
        match self {
            Self::Key(key) => Ok((signature.verify(key)?, Author::Key(key.id()))),
            Self::Identities(any) => any.claim(signature).map(|(claim, proved)| (claim, Author::Identity(proved))),
        }
    }
}
