//! What a check found: a rule, a place and a remedy.

use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Accepted by clients in the wild; an error with `--strict`.
    Warning,
    /// The skill cannot be built.
    Error,
}

/// One thing that is wrong with a skill, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, relative to the skill directory.
    pub file: String,
    /// Line, from 1; absent where the finding is about a file as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// Stable identifier of the rule, such as `card/name`.
    pub rule: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// Dotted path of the field, or `(root)`.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}
