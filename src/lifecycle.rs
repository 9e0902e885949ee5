//! The states of a skill and the tags that they carry.
//!
//! `draft -> testing -> published -> deprecated -> archived`: no skips and no way back, as in the Go `skillctl`.
//! A state lives in one manifest annotation ([`crate::image::STATUS`]), so that promotion leaves config and layer alone.

use std::{fmt, str::FromStr};

use serde::Serialize;

use crate::error::{Error, Result};

/// A lifecycle state; the order is that of promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Just built.
    Draft,
    /// Being tried.
    Testing,
    /// Released; its tag is immutable.
    Published,
    /// Superseded; still there for those that pinned it.
    Deprecated,
    /// Kept by digest only.
    Archived,
}

/// All states, in order.
pub const STATES: [State; 5] = [State::Draft, State::Testing, State::Published, State::Deprecated, State::Archived];

/// Suffixes that a version must not end in, because the tags of states are made with them.
pub const TAG_SUFFIXES: [&str; 2] = ["-draft", "-testing"];

impl State {
    /// Returns the only state that can follow.
    pub fn next(self) -> Option<Self> {
        STATES.get(self as usize + 1).copied()
    }

    /// Returns the tag of `version` in this state; an archived skill has none.
    pub fn tag(self, version: &str) -> Option<String> {
        match self {
            Self::Draft => Some(format!("{version}-draft")),
            Self::Testing => Some(format!("{version}-testing")),
            Self::Published | Self::Deprecated => Some(version.to_owned()),
            Self::Archived => None,
        }
    }

    /// Returns the name that annotations and flags use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Testing => "testing",
            Self::Published => "published",
            Self::Deprecated => "deprecated",
            Self::Archived => "archived",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        STATES.into_iter().find(|state| state.as_str() == s).ok_or_else(|| Error::InvalidState(s.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_one_successor_and_its_tag() {
        let cases = [
            (State::Draft, Some(State::Testing), Some("1.2.0-draft")),
            (State::Testing, Some(State::Published), Some("1.2.0-testing")),
            (State::Published, Some(State::Deprecated), Some("1.2.0")),
            (State::Deprecated, Some(State::Archived), Some("1.2.0")),
            (State::Archived, None, None),
        ];
        for (state, next, tag) in cases {
            assert_eq!(state.next(), next);
            assert_eq!(state.tag("1.2.0").as_deref(), tag);
            assert_eq!(state.to_string().parse::<State>().ok(), Some(state));
        }
    }

    #[test]
    fn an_unknown_state_is_named() {
        let error = "retired".parse::<State>().expect_err("not a state");
        assert_eq!(error.to_string(), "invalid lifecycle state: \"retired\"");
    }
}
