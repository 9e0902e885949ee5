//! YAML as a small tree in which every node knows its line and column.
//!
//! Built from parser events, never by expanding: aliases are refused, so a few bytes cannot become gigabytes. Scalars
//! stay text (`version: 1.0` is `"1.0"`), which is what both the Go tool and the reference validator make of them.

use std::{collections::HashMap, fmt, str};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

/// Deepest nesting of sequences and mappings: a card needs four levels, free-form metadata seldom more than six.
pub const MAX_DEPTH: usize = 32;

/// A position in a file, both numbers from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Place {
    /// The first character of a file.
    pub const START: Self = Self { line: 1, column: 1 };

    fn of(span: Span) -> Self {
        Self { line: span.start.line().max(1), column: span.start.col() + 1 }
    }
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`, unquoted.
    Null,
    /// Any other scalar, as text.
    Scalar {
        /// The text, after unquoting and folding.
        text: String,
        /// Whether it was quoted or a block, and so cannot have been meant as a number.
        quoted: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in the order of the file.
    Mapping(Vec<(Key, Node)>),
}

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Its first character.
    pub at: Place,
}

/// A key of a mapping and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Its first character.
    pub at: Place,
}

impl Node {
    /// Returns the text of a scalar; nothing at all counts as the empty text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Null => Some(""),
            Value::Scalar { text, .. } => Some(text),
            Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    /// Returns the value under a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Value::Mapping(entries) = &self.value else {
            return None;
        };
        entries.iter().find(|(have, _)| have.text == key).map(|(_, node)| node)
    }

    /// Returns the kind in YAML's own terms, such as `!!seq`.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "!!null",
            Value::Scalar { .. } => "!!str",
            Value::Sequence(_) => "!!seq",
            Value::Mapping(_) => "!!map",
        }
    }
}

/// The first document of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its root; absent when the stream holds nothing but comments.
    pub root: Option<Node>,
    /// Where a second document begins, which nobody reads.
    pub ignored: Option<Place>,
}

/// Text that is not YAML, or more of YAML than is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// Where it was noticed.
    pub at: Place,
    /// What is wrong.
    pub message: String,
}

impl YamlError {
    fn new(at: Place, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.at.line, self.message)
    }
}

impl std::error::Error for YamlError {}

impl From<ScanError> for YamlError {
    fn from(error: ScanError) -> Self {
        let mark = error.marker();
        Self::new(Place { line: mark.line().max(1), column: mark.col() + 1 }, error.info())
    }
}

/// Returns the first document of `bytes`, which may begin with a byte order mark.
///
/// # Errors
/// When there are more than `limit` bytes (told before any is looked at), when they are not UTF-8 or not YAML, and for
/// aliases, tags other than the core ones, duplicate keys and nesting deeper than [`MAX_DEPTH`].
pub fn parse(bytes: &[u8], limit: usize) -> Result<Document, YamlError> {
    if bytes.len() > limit {
        let message = format!("{} bytes exceed the limit of {limit}", bytes.len());
        return Err(YamlError::new(Place::START, message));
    }
    let text = utf8(bytes)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    refuse_controls(text)?;
    let mut builder = Builder { parser: Parser::new_from_str(text) };
    let root = builder.first_document()?;
    // What follows is looked at only far enough to say that it is there.
    let ignored = match builder.parser.next_event() {
        Some(Ok((Event::DocumentStart(_), span))) => Some(Place::of(span)),
        _ => None,
    };
    Ok(Document { root, ignored })
}

/// Returns `bytes` as text.
///
/// # Errors
/// At the first byte that is not UTF-8.
pub fn utf8(bytes: &[u8]) -> Result<&str, YamlError> {
    str::from_utf8(bytes).map_err(|error| {
        let valid = str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
        YamlError::new(place_at(valid, valid.len()), "not valid UTF-8")
    })
}

/// Returns the position of a byte offset in a text.
pub fn place_at(text: &str, offset: usize) -> Place {
    let end = (0..=offset.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    let before = &text[..end.unwrap_or(0)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// Refuses the characters that YAML does. The parser takes NUL for the end of the text, which would hide what follows it.
fn refuse_controls(text: &str) -> Result<(), YamlError> {
    let control = |c: char| match c {
        '\t' | '\n' | '\r' | '\u{85}' => false,
        '\u{fffe}' | '\u{ffff}' => true,
        _ => c.is_control(),
    };
    match text.find(control) {
        Some(offset) => Err(YamlError::new(place_at(text, offset), "control characters are not allowed")),
        None => Ok(()),
    }
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), YamlError> {
        self.parser.next_event().unwrap_or(Ok((Event::StreamEnd, Span::default()))).map_err(YamlError::from)
    }

    fn first_document(&mut self) -> Result<Option<Node>, YamlError> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::DocumentEnd | Event::StreamEnd => return Ok(root),
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => {}
                event => root = Some(self.node(event, span, 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, YamlError> {
        let at = Place::of(span);
        if depth >= MAX_DEPTH && matches!(event, Event::SequenceStart(..) | Event::MappingStart(..)) {
            return Err(YamlError::new(at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let value = match event {
            Event::Scalar(text, style, _, tag) => scalar(text.into_owned(), style, tag.as_deref(), at)?,
            Event::SequenceStart(_, tag) => {
                core_tag(tag.as_deref(), &["seq"], at)?;
                Value::Sequence(self.sequence(depth + 1)?)
            }
            Event::MappingStart(_, tag) => {
                core_tag(tag.as_deref(), &["map"], at)?;
                Value::Mapping(self.mapping(depth + 1)?)
            }
            Event::Alias(_) => return Err(YamlError::new(at, "aliases are not allowed")),
            other => return Err(YamlError::new(at, format!("unexpected {other:?}"))),
        };
        Ok(Node { value, at })
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, YamlError> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(items);
            }
            items.push(self.node(event, span, depth)?);
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, YamlError> {
        let mut entries = Vec::new();
        let mut lines = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(entries);
            }
            let key = self.key(event, span)?;
            if let Some(line) = lines.insert(key.text.clone(), key.at.line) {
                let message = format!("mapping key {:?} already defined at line {line}", key.text);
                return Err(YamlError::new(key.at, message));
            }
            let (event, span) = self.next()?;
            let mut node = self.node(event, span, depth)?;
            if node.value == Value::Null {
                // Nothing has no first character; its key is where one looks.
                node.at = key.at;
            }
            entries.push((key, node));
        }
    }

    fn key(&mut self, event: Event<'a>, span: Span) -> Result<Key, YamlError> {
        let at = Place::of(span);
        match event {
            Event::Scalar(text, _, _, tag) => {
                core_tag(tag.as_deref(), SCALAR_TAGS, at)?;
                Ok(Key { text: text.into_owned(), at })
            }
            Event::Alias(_) => Err(YamlError::new(at, "aliases are not allowed")),
            _ => Err(YamlError::new(at, "a key must be a text")),
        }
    }
}

const SCALAR_TAGS: &[&str] = &["str", "int", "float", "bool", "null"];

fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>, at: Place) -> Result<Value, YamlError> {
    core_tag(tag, SCALAR_TAGS, at)?;
    let quoted = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str");
    Ok(match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" if !quoted => Value::Null,
        _ => Value::Scalar { text, quoted },
    })
}

fn core_tag(tag: Option<&Tag>, allowed: &[&str], at: Place) -> Result<(), YamlError> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() && allowed.contains(&tag.suffix.as_str()) => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() => {
            Err(YamlError::new(at, format!("the tag !!{} is not allowed here", tag.suffix)))
        }
        Some(tag) => Err(YamlError::new(at, format!("the tag {tag} is not allowed"))),
    }
}

#[cfg(test)]
mod tests;
