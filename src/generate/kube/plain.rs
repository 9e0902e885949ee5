//! Manifests as trees without places, to compare what one means with what it was to mean.

use serde_json::Value;

use super::document::{Kind, Node};

/// A node without places: what a reader of the manifest makes of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plain {
    /// Its text, and whether it is one and no number, truth value or nothing.
    Scalar(String, bool),
    /// What has the anchor of that number.
    Alias(usize),
    /// Items.
    Sequence(Vec<Plain>),
    /// Entries, sorted because their order means nothing.
    Mapping(Vec<(Plain, Plain)>),
}

impl Plain {
    /// Returns what a node means.
    pub fn of(node: &Node) -> Self {
        match &node.kind {
            Kind::Scalar { text, plain } => Self::Scalar(text.clone(), !plain || is_text(text)),
            Kind::Alias(of) => Self::Alias(*of),
            Kind::Sequence { items, .. } => Self::Sequence(items.iter().map(Self::of).collect()),
            Kind::Mapping { entries, .. } => {
                Self::sorted(entries.iter().map(|(key, value)| (Self::of(key), Self::of(value))).collect())
            }
        }
    }

    /// Returns what is meant by JSON.
    pub fn value(value: &Value) -> Self {
        let text = |text: &str| Self::Scalar(text.to_owned(), true);
        match value {
            Value::Object(entries) => {
                Self::sorted(entries.iter().map(|(key, value)| (text(key), Self::value(value))).collect())
            }
            Value::Array(items) => Self::Sequence(items.iter().map(Self::value).collect()),
            Value::String(own) => text(own),
            other => Self::Scalar(other.to_string(), false),
        }
    }

    fn sorted(mut entries: Vec<(Self, Self)>) -> Self {
        entries.sort();
        Self::Mapping(entries)
    }

    /// Returns the value under a key.
    pub fn get(&mut self, key: &str) -> Option<&mut Self> {
        let Self::Mapping(entries) = self else { return None };
        entries
            .iter_mut()
            .find(|(have, _)| matches!(have, Self::Scalar(text, _) if text == key))
            .map(|(_, value)| value)
    }

    /// Returns an item of a list.
    pub fn item(&mut self, at: usize) -> Option<&mut Self> {
        match self {
            Self::Sequence(items) => items.get_mut(at),
            _ => None,
        }
    }

    /// Adds entries to a mapping, and items to the beginning of a list.
    pub fn merge(&mut self, added: &Self) {
        match (&mut *self, added) {
            (Self::Mapping(entries), Self::Mapping(more)) => {
                for (key, value) in more {
                    match entries.iter_mut().find(|(have, _)| have == key) {
                        Some((_, there)) => there.merge(value),
                        None if *value == Self::Mapping(Vec::new()) => {}
                        None => entries.push((key.clone(), value.clone())),
                    }
                }
                entries.sort();
            }
            (Self::Sequence(items), Self::Sequence(more)) => drop(items.splice(0..0, more.iter().cloned())),
            _ => *self = added.clone(),
        }
    }
}

/// Returns whether text without quotes is text.
fn is_text(text: &str) -> bool {
    const OTHERS: [&str; 5] = ["", "~", "null", "true", "false"];
    !OTHERS.iter().any(|other| text.eq_ignore_ascii_case(other)) && text.parse::<f64>().is_err()
}
