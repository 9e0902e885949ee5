//! Manifests as the parser takes them. kubectl reads more: brackets and quoted texts that go on further left than their key,
//! and in JSON characters that are two escapes. So the parser gets a copy, and where in the manifest its characters are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use saphyr_parser::{Parser, ScanError};

/// Most bytes that are parsed to find what stands too far left, as each time shows one place: some thousand lines, in seconds.
const MAX_WORK: usize = 256 << 20;
/// How far a line is moved to the right, and moved again where that was not enough.
const STEP: usize = 16;

/// A text for the parser.
pub struct Legible<'a> {
    /// It.
    pub text: Cow<'a, str>,
    /// The byte of the manifest of each of its characters, and of its end; `None` where those are the same.
    places: Option<Vec<usize>>,
}

impl<'a> Legible<'a> {
    /// Returns the text that means what a manifest means to kubectl. What nobody could read, stays as it is.
    pub fn of(manifest: &'a str) -> Self {
        let text = if manifest.trim_start().starts_with('{') { private(manifest) } else { manifest.into() };
        let mut moved = BTreeMap::new();
        let mut copy = text.clone();
        let mut work = 0;
        while let Some(lines) = too_far_left(&copy).filter(|_| work < MAX_WORK) {
            lines.for_each(|line| *moved.entry(line).or_default() += STEP);
            copy = shifted(&text, &moved).into();
            work += copy.len();
        }
        let same = moved.is_empty() && text.is_ascii();
        let places = (!same).then(|| places(&text, &moved));
        Self { text: copy, places }
    }

    /// Returns the byte of the manifest of a character.
    pub fn byte(&self, index: usize) -> usize {
        match &self.places {
            None => index.min(self.text.len()),
            Some(places) => places.get(index).or(places.last()).copied().unwrap_or_default(),
        }
    }
}

/// Returns JSON in which other characters stand for the halves of surrogate pairs, which are no characters by themselves.
fn private(json: &str) -> Cow<'_, str> {
    let half = |at: usize, ranks: &[u8]| {
        let escape = json.as_bytes().get(at..at + 6)?;
        let is = escape.starts_with(b"\\u") && matches!(escape[2], b'd' | b'D') && ranks.contains(&escape[3]);
        (is && escape[4..].iter().all(u8::is_ascii_hexdigit)).then_some(at)
    };
    let pairs = json.match_indices("\\u").filter_map(|(at, _)| half(at, b"89abAB").and(half(at + 6, b"cdefCDEF")));
    let mut out = String::new();
    let mut from = 0;
    for second in pairs {
        // Private characters, so many bytes long, too.
        for at in [second - 6, second] {
            out += &json[from..at];
            out += "\\ue";
            from = at + 3;
        }
    }
    if out.is_empty() { json.into() } else { (out + &json[from..]).into() }
}

/// Returns the lines, from 0, by which the parser is stopped because they begin too far left in brackets or quotes. There
/// space at the beginning of a line means nothing.
fn too_far_left(text: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let mut parser = Parser::new_from_str(text);
    let error: ScanError = loop {
        match parser.next_event()? {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let line = error.marker().line().saturating_sub(1);
    match error.info() {
        "invalid indentation" | "invalid indentation in flow construct" => Some(line..=line),
        // That is said of its first line.
        "invalid indentation in quoted scalar" => {
            let (start, quote) = text.char_indices().nth(error.marker().index())?;
            let inside = quoted(&text[start + 1..], quote);
            // A document ends there, whatever is still open.
            let end = ["\n---", "\n..."].iter().filter_map(|mark| inside.find(mark)).min().unwrap_or(inside.len());
            let lines = inside[..end].matches('\n').count();
            (lines > 0).then_some(line + 1..=line + lines)
        }
        _ => None,
    }
}

/// Returns what is in quotes.
fn quoted(text: &str, quote: char) -> &str {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quote == '"' => drop(chars.next()),
            c if c == quote => match chars.next_if(|(_, next)| quote == '\'' && *next == quote) {
                Some(_) => {}
                None => return &text[..at],
            },
            _ => {}
        }
    }
    text
}

fn shifted(text: &str, moved: &BTreeMap<usize, usize>) -> String {
    let lines = text.split_inclusive('\n').enumerate();
    lines.map(|(number, line)| " ".repeat(moved.get(&number).copied().unwrap_or_default()) + line).collect()
}

fn places(text: &str, moved: &BTreeMap<usize, usize>) -> Vec<usize> {
    let mut places = Vec::with_capacity(text.len() + 1);
    let mut start = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        places.extend(std::iter::repeat_n(start, moved.get(&number).copied().unwrap_or_default()));
        places.extend(line.char_indices().map(|(at, _)| start + at));
        start += line.len();
    }
    places.push(start);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_brackets_and_quotes_are_moved() {
        let cases = [
            ("a: [\n]\n", "a: [\n>]\n"),
            ("a:\n  b: {\n c: d\n }\ne: f\n", "a:\n  b: {\n> c: d\n> }\ne: f\n"),
            ("é:\n  - \"x\\\"\ny\n  z\"\n", "é:\n  - \"x\\\"\n>y\n>  z\"\n"),
            ("a:\n  - 'x''\n\ny'\n", "a:\n  - 'x''\n>\n>y'\n"),
            // Nobody's.
            ("a:\n  b: c\n d: e\n", "a:\n  b: c\n d: e\n"),
            ("a: [\n", "a: [\n"),
            ("a:\n  - 'x\ny\n---\nz'\n", "a:\n  - 'x\n>y\n---\nz'\n"),
            ("a: [\n  b\n  c: ]\n", "a: [\n  b\n  c: ]\n"),
        ];
        for (manifest, want) in cases {
            let legible = Legible::of(manifest);
            assert_eq!(legible.text, want.replace('>', &" ".repeat(STEP)), "{manifest}");
            let mut found: Vec<usize> = (0..=legible.text.chars().count()).map(|index| legible.byte(index)).collect();
            found.dedup();
            let want: Vec<usize> = manifest.char_indices().map(|(at, _)| at).chain([manifest.len()]).collect();
            assert_eq!(found, want, "{manifest}");
        }
        // Further than one step.
        let deep = format!("{}a: [\n]\n", "- ".repeat(60));
        assert_eq!(Legible::of(&deep).text.matches(' ').count(), 61 + 8 * STEP);
        // As many as anybody writes.
        let many = format!("a:\n  b: [\n{}  ]\n", "  c,\n".repeat(500));
        assert!(too_far_left(&Legible::of(&many).text).is_none());
    }

    #[test]
    fn pairs_of_escapes_stay_as_long() {
        let cases = [
            (r#"{"a": "\ud83d\ude00é\uD83D\uDE00"}"#, r#"{"a": "\ue83d\uee00é\ue83D\ueE00"}"#),
            (r#"{"a": "\ud83d \ude00 \u0041"}"#, r#"{"a": "\ud83d \ude00 \u0041"}"#),
            (r#"{"a": "\ud83d"}"#, r#"{"a": "\ud83d"}"#),
            (r#"{"a": "\u"}"#, r#"{"a": "\u"}"#),
            // kubectl reads YAML so.
            (r#"a: "\ud83d\ude00""#, r#"a: "\ud83d\ude00""#),
        ];
        for (manifest, want) in cases {
            let legible = Legible::of(manifest);
            assert_eq!((&*legible.text, legible.text.len()), (want, manifest.len()));
        }
    }
}
