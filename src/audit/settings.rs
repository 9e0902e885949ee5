//! `audit.toml`: whether actions are logged, and have to be.

use serde::Deserialize;

use crate::error::{Error, Result};

/// What the file is called, below a directory of configuration.
pub const FILE: &str = "skillctl/audit.toml";

/// Whether actions are logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are; what cannot be logged is done all the same, with a warning.
    #[default]
    On,
    /// What cannot be logged is not done.
    Required,
    /// They are not.
    Off,
}

/// What one file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    audit: Option<Mode>,
    journald: Option<bool>,
}

/// What counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effective {
    /// Whether actions are logged.
    pub mode: Mode,
    /// Whether the journal gets each record, too.
    pub journald: bool,
}

impl Settings {
    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the file and the line: whether an action has to be logged is not known then.
    pub fn parse(text: &str, path: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e: toml::de::Error| {
            let line = e.span().and_then(|span| text.get(..span.start)).map(|text| text.matches('\n').count() + 1);
            let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            let hint = Some(format!("edit {path}: audit is \"on\", \"required\" or \"off\", journald true or false"));
            Error::Unavailable { reason: format!("{path}: {line}{}", e.message()), hint }
        })
    }

    /// Returns what counts of the machine's file and the user's, which says what the machine's does not, and nothing where that
    /// requires the log.
    pub fn effective(machine: Option<Self>, user: Option<Self>) -> Effective {
        let machine = machine.unwrap_or_default();
        let user = user.filter(|_| machine.audit != Some(Mode::Required)).unwrap_or_default();
        Effective {
            mode: machine.audit.or(user.audit).unwrap_or_default(),
            journald: machine.journald.or(user.journald).unwrap_or(true),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_user_does_not_weaken_what_the_machine_requires() {
        let cases = [
            (None, None, Mode::On, true),
            (None, Some("audit = \"off\""), Mode::Off, true),
            (None, Some("audit = \"required\"\njournald = false"), Mode::Required, false),
            (Some("audit = \"required\""), Some("audit = \"off\"\njournald = false"), Mode::Required, true),
            (Some("audit = \"off\""), Some("audit = \"required\""), Mode::Off, true),
            (Some("journald = false"), Some("audit = \"off\"\njournald = true"), Mode::Off, false),
            (Some(""), Some("journald = false"), Mode::On, false),
        ];
        for (machine, user, mode, journald) in cases {
            let read = |text: Option<&str>| text.map(|text| Settings::parse(text, "audit.toml").unwrap());
            let found = Settings::effective(read(machine), read(user));
            assert_eq!(found, Effective { mode, journald }, "{machine:?} {user:?}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let cases = [
            ("audit = \"require\"", "audit.toml: line 1: unknown variant `require`"),
            ("# ok\nmode = \"on\"", "audit.toml: line 2: unknown field `mode`"),
            ("audit = true", "audit.toml: line 1: "),
            ("audit", "audit.toml: line 1: "),
        ];
        for (text, want) in cases {
            let error = Settings::parse(text, "audit.toml").unwrap_err();
            assert!(error.to_string().starts_with(want), "{error}");
            assert!(error.hint().unwrap().contains("required"));
        }
    }
}
