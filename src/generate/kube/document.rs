//! Manifests as trees whose nodes know their bytes, so that text can be put between those.
//!
//! Other than [`crate::yaml`] this takes all documents of a stream, and aliases: a manifest is somebody's own file, of which
//! only a few nodes are looked into. Aliases are never expanded.

use std::collections::HashSet;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::legible::Legible;
use crate::error::{Error, Result};

/// Largest stream that is read, in bytes; the objects of etcd have 1.5 MiB.
pub const MAX_BYTES: usize = 8 << 20;
/// Deepest nesting: a schema in a CustomResourceDefinition beside the workload may have some forty levels.
const MAX_DEPTH: usize = 128;

/// A node and where it is.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Byte of its first character; of a block list somewhere in its first item.
    pub start: usize,
    /// Byte from which the end of its last line is searched.
    pub end: usize,
    /// Column, in characters from 0, of its first character.
    pub column: usize,
    /// Its anchor, or 0.
    pub anchor: usize,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A text, number, or nothing.
    Scalar {
        /// What it says.
        text: String,
        /// Whether it stands there without quotes.
        plain: bool,
    },
    /// What has the anchor of that number.
    Alias(usize),
    /// A list.
    Sequence {
        /// Whether in brackets.
        flow: bool,
        /// Its items.
        items: Vec<Node>,
    },
    /// Keys and values.
    Mapping {
        /// Whether in braces.
        flow: bool,
        /// Them, in order.
        entries: Vec<(Node, Node)>,
    },
}

/// The documents of a stream.
#[derive(Debug)]
pub struct Stream {
    /// Their roots.
    pub documents: Vec<Node>,
    /// Anchors that an alias refers to.
    pub aliased: HashSet<usize>,
}

impl Node {
    /// Returns the text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Returns whether nothing stands there at all.
    pub fn is_absent(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if text.is_empty()) && self.start == self.end
    }

    /// Returns the value under a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(have, _)| have.text() == Some(key)).map(|(_, node)| node)
    }

    /// Returns the value at the end of a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// Returns the entries of a mapping; of anything else none.
    pub fn entries(&self) -> &[(Node, Node)] {
        match &self.kind {
            Kind::Mapping { entries, .. } => entries,
            _ => &[],
        }
    }

    /// Returns the items of a list; of anything else none.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::Sequence { items, .. } => items,
            _ => &[],
        }
    }

    /// Returns the text under a key.
    pub fn text_at(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Node::text)
    }
}

/// Returns the line, from 1, of a byte.
pub fn line(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1
}

/// Reads a stream. It must not begin with a byte order mark, which belongs to the file and not to the text.
///
/// # Errors
/// For what is no YAML, or has keys twice, of which readers take different ones.
pub fn parse(text: &str) -> Result<Stream> {
    let legible = Legible::of(text);
    let parser = Parser::new_from_str(&legible.text);
    let mut builder = Builder { text, parser, legible: &legible, aliased: HashSet::new() };
    let mut documents = Vec::new();
    loop {
        let (event, span) = builder.next()?;
        match event {
            Event::StreamEnd => return Ok(Stream { documents, aliased: builder.aliased }),
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            event => documents.push(builder.node(event, span, 0)?),
        }
    }
}

struct Builder<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    legible: &'a Legible<'a>,
    aliased: HashSet<usize>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span)> {
        let next = self.parser.next_event().unwrap_or(Ok((Event::StreamEnd, Span::default())));
        next.map_err(|e| refused(e.marker().line(), e.info()))
    }

    fn byte(&self, index: usize) -> usize {
        self.legible.byte(index)
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node> {
        if depth > MAX_DEPTH {
            return Err(refused(span.start.line(), &format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (start, mut end) = (self.byte(span.start.index()), self.byte(span.end.index()));
        let mut anchor = 0;
        let kind = match event {
            Event::Scalar(text, style, own, _) => {
                anchor = own;
                if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
                    end = self.block_end((start, end), span.start.col(), &text);
                }
                Kind::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::Alias(of) => {
                self.aliased.insert(of);
                Kind::Alias(of)
            }
            Event::SequenceStart(own, _) => {
                anchor = own;
                let flow = self.begins(start, end, '[');
                let (items, last) = self.items(depth)?;
                end = if flow { last } else { items.last().map_or(end, |item| item.end) };
                Kind::Sequence { flow, items }
            }
            Event::MappingStart(own, _) => {
                anchor = own;
                let flow = self.begins(start, end, '{');
                let (entries, last) = self.pairs(depth)?;
                end = if flow { last } else { entries.last().map_or(end, |(key, value)| value.end.max(key.end)) };
                Kind::Mapping { flow, entries }
            }
            other => return Err(refused(span.start.line(), &format!("unexpected {other:?}"))),
        };
        Ok(Node { kind, start, end, column: span.start.col(), anchor })
    }

    /// Returns whether what begins in a span is in brackets; the mark of a block lies between characters.
    fn begins(&self, start: usize, end: usize, bracket: char) -> bool {
        self.text.get(start..end).is_some_and(|text| text.trim_end().ends_with(bracket))
            || start < end && self.text[start..].starts_with(bracket)
    }

    fn items(&mut self, depth: usize) -> Result<(Vec<Node>, usize)> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok((items, self.byte(span.end.index())));
            }
            items.push(self.node(event, span, depth + 1)?);
        }
    }

    fn pairs(&mut self, depth: usize) -> Result<(Vec<(Node, Node)>, usize)> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut keys = HashSet::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok((entries, self.byte(span.end.index())));
            }
            let line = span.start.line();
            let key = self.node(event, span, depth + 1)?;
            if let Some(text) = key.text()
                && !keys.insert(text.to_owned())
            {
                return Err(refused(line, &format!("the key {text:?} is there twice")));
            }
            let (event, span) = self.next()?;
            entries.push((key, self.node(event, span, depth + 1)?));
        }
    }

    /// Returns where a block of text ends: before the line break after its last line that goes further than its indentation,
    /// be it only spaces. Empty lines after that are its own where it keeps them.
    fn block_end(&self, (start, end): (usize, usize), indent: usize, value: &str) -> usize {
        if value.is_empty() {
            // It has no place of its own, but for its mark.
            return self.text.get(..end).unwrap_or_default().trim_end().len();
        }
        let text = self.text.get(start..end).unwrap_or_default();
        if value.ends_with("\n\n") {
            return start + text.rfind('\n').unwrap_or(text.len());
        }
        let (mut at, mut last) = (0, text.trim_end().len());
        for line in text.split_inclusive('\n') {
            let content = line.trim_end_matches(['\n', '\r']);
            if at > 0 && content.len() > indent {
                last = last.max(at + content.len());
            }
            at += line.len();
        }
        start + last
    }
}

/// Returns that something is wrong in a line.
pub fn refused(line: usize, what: &str) -> Error {
    Error::Unavailable { reason: format!("line {}: {what}", line.max(1)), hint: None }
}
