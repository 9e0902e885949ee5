//! Writing YAML: two spaces, block style, and every text that could be read as anything else in double quotes.

use std::fmt::Write as _;

use serde_json::Value;

use crate::text;

/// Returns a mapping of texts, lists and mappings as YAML.
pub(crate) fn yaml(value: &Value) -> String {
    block(value, 0)
}

/// Returns the lines of a mapping or a list, as far to the right as `indent`.
pub(crate) fn block(value: &Value, indent: usize) -> String {
    let mut out = String::new();
    match value {
        Value::Object(entries) => entries.iter().for_each(|(key, value)| entry(&mut out, indent, key, value)),
        Value::Array(items) => items.iter().for_each(|value| item(&mut out, indent, value)),
        _ => {}
    }
    out
}

fn entry(out: &mut String, indent: usize, key: &str, value: &Value) {
    out.extend(std::iter::repeat_n(' ', indent));
    scalar(out, key);
    out.push(':');
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            out.push('\n');
            entries.iter().for_each(|(key, value)| entry(out, indent + 2, key, value));
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            items.iter().for_each(|value| item(out, indent + 2, value));
        }
        Value::Object(_) => out.push_str(" {}\n"),
        Value::Array(_) => out.push_str(" []\n"),
        other => {
            out.push(' ');
            leaf(out, indent, other);
        }
    }
}

fn item(out: &mut String, indent: usize, value: &Value) {
    let start = out.len();
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            entries.iter().for_each(|(key, value)| entry(out, indent + 2, key, value));
            // The first key stands on the line of the dash.
            out.replace_range(start + indent..start + indent + 1, "-");
        }
        Value::Object(_) => {
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str("- {}\n");
        }
        other => {
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str("- ");
            leaf(out, indent, other);
        }
    }
}

/// Writes what holds nothing else, and the end of its line. A card has only texts.
fn leaf(out: &mut String, indent: usize, value: &Value) {
    match value {
        Value::Bool(_) | Value::Number(_) => {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{value}");
        }
        other => text_value(out, indent, other.as_str().unwrap_or_default()),
    }
}

/// Writes a value and the end of its line; several plain lines become a literal block, as people write them.
fn text_value(out: &mut String, indent: usize, text: &str) {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let is_literal = text.contains('\n')
        && !body.starts_with([' ', '\n'])
        && body.lines().all(|line| line.is_empty() || !line.trim().is_empty())
        && !body.ends_with('\n')
        && !body.is_empty()
        && text.chars().all(|c| c == '\n' || (text::hidden(c).is_none() && !is_noncharacter(c)));
    if !is_literal {
        scalar(out, text);
        out.push('\n');
        return;
    }
    out.push_str(if body.len() < text.len() { "|\n" } else { "|-\n" });
    for line in body.split('\n') {
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent + 2));
            out.push_str(line);
        }
        out.push('\n');
    }
}

fn is_noncharacter(c: char) -> bool {
    matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Appends a text so that it means itself: as it is, or in double quotes.
pub(crate) fn scalar(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            _ if text::hidden(c).is_some() || is_noncharacter(c) => escape(out, c),
            _ => out.push(c),
        }
    }
    out.push('"');
}

fn escape(out: &mut String, c: char) {
    let code = u32::from(c);
    // Writing to a string cannot fail.
    let _ = match code {
        0..=0xff => write!(out, "\\x{code:02X}"),
        0x100..=0xffff => write!(out, "\\u{code:04X}"),
        _ => write!(out, "\\U{code:08X}"),
    };
}

/// Returns whether a text means itself without quotes, in YAML 1.1 as well, where `no` is false and `1:30` is ninety.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let version = text.starts_with(|c: char| c.is_ascii_digit())
        && text.split('.').count() >= 3
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    // A colon with no space after it is part of a word, as in a URL or a digest.
    let words = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || " -_./,;:()+@<>~%=&?'".contains(c))
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    // A reference or path with a slash in it is nothing else, also where it begins with a digit.
    let path = text.contains('/')
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && !text.ends_with(':')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:@+%".contains(c));
    version || words || path
}
