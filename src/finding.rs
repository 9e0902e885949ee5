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

impl Finding {
    /// Returns a finding about a file as a whole, that stops a build.
    pub fn error(file: &str, rule: &'static str, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: None,
            column: None,
            rule,
            severity: Severity::Error,
            field: "(root)".into(),
            message: message.into(),
            remedy: String::new(),
        }
    }

    /// Returns a finding about a file as a whole, that stops a build with `--strict` only.
    pub fn warning(file: &str, rule: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(file, rule, message) }
    }

    /// Sets where it is, both numbers from 1.
    #[must_use]
    pub fn at(mut self, line: usize, column: usize) -> Self {
        (self.line, self.column) = (Some(line), Some(column));
        self
    }

    /// Sets which field it is about.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Sets what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}
