//! Counting the words of a text that arrives in pieces.

use std::str;

/// Counts the words below the front matter, as the Go tool does: front matter is there when the text begins with `---`,
/// and ends at the first `\n---` (whatever follows on that line); words are what white space separates.
#[derive(Debug, Clone, Default)]
pub struct WordCount {
    whole: Words,
    body: Words,
    state: State,
    /// The last bytes of the pieces before, in which a fence may have begun.
    tail: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    FrontMatter,
    Body,
    NoFrontMatter,
}

const OPENING: &[u8] = b"---";
const CLOSING: &[u8] = b"\n---";

impl WordCount {
    /// Returns the number of words of a whole text.
    pub fn of(text: &[u8]) -> u64 {
        let mut count = Self::default();
        count.add(text);
        count.finish()
    }

    /// Takes the next piece.
    pub fn add(&mut self, piece: &[u8]) {
        match self.state {
            State::Body => return self.body.add(piece),
            State::NoFrontMatter => return self.whole.add(piece),
            State::Start | State::FrontMatter => {}
        }
        // Counted in full as well, since front matter that is never closed is text.
        self.whole.add(piece);
        self.tail.extend_from_slice(piece);
        if self.state == State::Start {
            if self.tail.len() < OPENING.len() {
                return;
            }
            if !self.tail.starts_with(OPENING) {
                self.state = State::NoFrontMatter;
                return;
            }
            self.tail.drain(..OPENING.len());
            self.state = State::FrontMatter;
        }
        match self.tail.windows(CLOSING.len()).position(|window| window == CLOSING) {
            Some(at) => {
                self.state = State::Body;
                self.body.add(&self.tail[at + CLOSING.len()..]);
                self.tail.clear();
            }
            None => {
                let keep = self.tail.len().min(CLOSING.len() - 1);
                self.tail.drain(..self.tail.len() - keep);
            }
        }
    }

    /// Returns the number of words, when all pieces were taken.
    pub fn finish(self) -> u64 {
        match self.state {
            State::Body => self.body.finish(),
            _ => self.whole.finish(),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Words {
    count: u64,
    inside: bool,
    /// The beginning of a character whose end comes with the next piece.
    partial: Vec<u8>,
}

impl Words {
    fn add(&mut self, piece: &[u8]) {
        let mut piece = piece;
        // At most three rounds: a character has four bytes.
        while let (false, Some((first, rest))) = (self.partial.is_empty(), piece.split_first()) {
            self.partial.push(*first);
            let partial = std::mem::take(&mut self.partial);
            match str::from_utf8(&partial) {
                Err(error) if error.error_len().is_none() => self.partial = partial,
                Err(error) if partial.len() > 1 && error.valid_up_to() == 0 => {
                    // Not the character it began as: the last byte begins anew.
                    self.inside_word();
                    break;
                }
                _ => self.complete(&partial),
            }
            piece = rest;
        }
        self.complete(piece);
    }

    fn complete(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (valid, bad, after) = split_invalid(rest);
            for c in valid.chars() {
                if c.is_whitespace() {
                    self.inside = false;
                } else {
                    self.inside_word();
                }
            }
            match bad {
                Some(0) => {
                    self.partial = after.to_vec();
                    return;
                }
                Some(_) => self.inside_word(),
                None => {}
            }
            rest = after;
        }
    }

    fn inside_word(&mut self) {
        self.count += u64::from(!self.inside);
        self.inside = true;
    }

    fn finish(mut self) -> u64 {
        if !self.partial.is_empty() {
            self.inside_word();
        }
        self.count
    }
}

/// Splits off the valid beginning; then how many bytes were invalid (0: a character is cut off), and what follows them.
fn split_invalid(bytes: &[u8]) -> (&str, Option<usize>, &[u8]) {
    match str::from_utf8(bytes) {
        Ok(text) => (text, None, &[]),
        Err(error) => {
            let (valid, rest) = bytes.split_at(error.valid_up_to());
            let bad = error.error_len().unwrap_or(0);
            (str::from_utf8(valid).unwrap_or_default(), Some(bad), &rest[bad..])
        }
    }
}
