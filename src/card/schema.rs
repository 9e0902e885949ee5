//! What the published JSON Schemas say about a card, in the words of the Go tool.

use std::{fmt::Write as _, sync::LazyLock};

use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde_json::Value;

use crate::{card::Card, text};

static V1ALPHA1: LazyLock<Validator> = LazyLock::new(|| compile(include_str!("../../schemas/skillcard-v1.json")));
static V1ALPHA2: LazyLock<Validator> = LazyLock::new(|| compile(include_str!("../../schemas/skillcard-v1alpha2.json")));

/// A value that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Dotted path of the field, such as `metadata.authors.0.name`; `(root)` for the whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

fn compile(schema: &str) -> Validator {
    let schema: Value = serde_json::from_str(schema).expect("the embedded schema is JSON");
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options.build(&schema).expect("the embedded schema is a JSON Schema")
}

/// Returns whether a name can be the last component of a skill's image name.
pub fn is_name(name: &str) -> bool {
    name.len() <= 64 && is_component(name)
}

fn is_component(text: &str) -> bool {
    text.split('-')
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()))
}

/// Returns whether a card keeps v1alpha1's schema. Compiling the schema takes 2 ms, as long as the rest of a build, so it
/// is left to say what is wrong; a test holds the two together.
fn keeps_v1alpha1(card: &Card) -> bool {
    let metadata = &card.metadata;
    card.api_version == super::V1ALPHA1
        && card.kind == "SkillCard"
        && is_name(&metadata.name)
        && metadata.namespace.len() <= 128
        && metadata.namespace.split('/').all(is_component)
        && !metadata.version.is_empty()
        && !metadata.description.is_empty()
        && metadata.display_name.chars().count() <= 128
        && metadata.authors.iter().all(|author| !author.name.is_empty())
}

fn objections(card: &Card) -> Vec<Violation> {
    let validator = if card.is_v1alpha2() { &V1ALPHA2 } else { &V1ALPHA1 };
    validator.iter_errors(&card.to_value()).map(|error| violation(&error)).collect()
}

pub(super) fn violations(card: &Card) -> Vec<Violation> {
    let mut all = if keeps_v1alpha1(card) { Vec::new() } else { objections(card) };
    let version = &card.metadata.version;
    if !version.is_empty()
        && semver::Version::parse(version).is_err()
        && all.iter().all(|violation| violation.field != "metadata.version")
    {
        let message = format!("invalid semantic version: {}", semver_reason(version));
        all.push(Violation { field: "metadata.version".into(), message });
    }
    all.sort();
    all
}

fn violation(error: &ValidationError<'_>) -> Violation {
    let path: Vec<String> = error.instance_path().iter().map(|segment| segment.to_string()).collect();
    let field = if path.is_empty() { "(root)".into() } else { path.join(".") };
    let text = error.instance().as_str().unwrap_or_default();
    let message = match error.kind() {
        ValidationErrorKind::Pattern { pattern } => {
            format!("{} does not match pattern {}", quote(text), quote(pattern))
        }
        ValidationErrorKind::MinLength { limit } => {
            format!("minLength: got {}, want {limit}", text.chars().count())
        }
        ValidationErrorKind::MaxLength { limit } => {
            format!("maxLength: got {}, want {limit}", text.chars().count())
        }
        ValidationErrorKind::Constant { expected_value } => {
            format!("value must be {}", quote(expected_value.as_str().unwrap_or_default()))
        }
        ValidationErrorKind::Format { format } => format!("{} is not valid {format}", quote(text)),
        _ => error.to_string(),
    };
    Violation { field, message }
}

/// Quotes as the Go library does: single quotes around, backslashes and what cannot be seen escaped.
fn quote(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => out.push_str("\\'"),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            _ if text::hidden(c).is_some() => {
                let code = u32::from(c);
                // Writing to a string cannot fail.
                let _ = match code {
                    0..=0x7f => write!(out, "\\x{code:02x}"),
                    0x80..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
            _ => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// Returns why the Go tool's library refuses a version.
fn semver_reason(version: &str) -> &'static str {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    if parts.len() != 3 {
        "invalid semantic version"
    } else if !parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit())) {
        "invalid characters in version"
    } else if parts.iter().any(|part| part.len() > 1 && part.starts_with('0')) {
        "version segment starts with 0"
    } else if parts.iter().any(|part| part.is_empty()) || core.len() == version.len() {
        "invalid semantic version"
    } else {
        "invalid prerelease string"
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::card::{Author, Metadata};

    proptest! {
        #[test]
        fn the_quick_answer_is_the_schemas(
            api in "skillimage.io/v1alpha1|skillimage.io/v1|",
            kind in "SkillCard|Skill",
            name in "[a-z0-9]{0,3}(-[a-z0]{1,2}){0,2}|[a-c]{62,66}|[a-cA_é-]{0,3}",
            namespace in "[a-z]{0,2}(/[a-z-]{1,3}){0,2}|[a-b]{126,130}|/a|a/|é",
            version in "1.0.0|",
            description in ".?",
            display_name in "é{127,129}|.{0,2}",
            authors in proptest::collection::vec("A?", 0..2),
        ) {
            let authors = authors.into_iter().map(|name| Author { name, email: String::new() }).collect();
            let metadata =
                Metadata { name, display_name, namespace, version, description, authors, ..Metadata::default() };
            let card = Card { api_version: api, kind, metadata, ..Card::default() };
            prop_assert_eq!(keeps_v1alpha1(&card), objections(&card).is_empty(), "{:?}", card);
        }
    }
}
