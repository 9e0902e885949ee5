//! In place of `keyless` in builds without that feature: identities are read, and nothing counts that they have signed.

use super::bundle::Statement;
use super::identity::Identity;
use super::simple::Signature;

/// Why this build cannot verify identities.
pub const CANNOT: Option<&str> = Some(WHY);
const WHY: &str = "this build of skillctl verifies keys, and no identities: it is without the feature keyless";

/// A pattern, which nothing is compared with.
#[derive(Debug, Clone)]
pub struct Pattern;

impl Pattern {
    /// Returns one, whatever the text is.
    ///
    /// Errors are none.
    pub fn new(_: &str) -> Result<Self, String> {
        Ok(Self)
    }

    /// Returns that a text is not like it.
    pub fn is_match(&self, _: &str) -> bool {
        false
    }
}

/// Who is believed, by which nothing is verified.
#[derive(Debug)]
pub struct Root;

impl Root {
    /// Returns one, whatever the text is.
    ///
    /// Errors are none.
    pub fn new(_: &str) -> Result<Self, String> {
        Ok(Self)
    }

    /// Returns that a bundle counts for nothing.
    ///
    /// Errors are why.
    pub fn statement(&self, _: &[u8], _: &str) -> Result<(Statement, Identity), String> {
        Err(NOT_BY.to_owned())
    }

    /// Returns that a simple signature counts for nothing.
    ///
    /// Errors are why.
    pub fn signer_of(&self, _: &Signature) -> Result<Identity, String> {
        Err(NOT_BY.to_owned())
    }
}

/// What is said of each signature; that identities cannot be verified is said of what is required.
const NOT_BY: &str = "not by an identity that this build could verify";
