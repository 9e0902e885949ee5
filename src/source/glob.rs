//! Patterns for names of skills, as Go's `path.Match` and so the Go tool's `--filter` understand them.
//!
//! `*` and `?` stand for any characters, `[a-z]` and `[^a-z]` for one of a class; `\` takes the meaning from the next.

use crate::error::{Error, Result};

/// One thing that a pattern asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Any number of characters.
    Any,
    /// One character.
    One,
    /// This character.
    Literal(char),
    /// A character in one of these ranges, or in none.
    Class(bool, Vec<(char, char)>),
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => c != '/',
            Self::Literal(own) => *own == c,
            Self::Class(negated, ranges) => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
        }
    }
}

/// Patterns of which a name has to match one; without any, every name does.
#[derive(Debug, Clone, Default)]
pub struct Filter(Vec<(String, Vec<Token>)>);

impl Filter {
    /// Reads patterns.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for one that is malformed.
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self> {
        let one = |pattern: &S| {
            let pattern = pattern.as_ref();
            let tokens = tokens(pattern).ok_or_else(|| Error::Unavailable {
                reason: format!("invalid --filter pattern {pattern:?}"),
                hint: Some(
                    r"* and ? stand for any characters, [a-z] for one of these; \ takes their meaning away".into(),
                ),
            })?;
            Ok((pattern.to_owned(), tokens))
        };
        Ok(Self(patterns.iter().map(one).collect::<Result<_>>()?))
    }

    /// Returns whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether one of the names matches.
    pub fn matches(&self, names: &[&str]) -> bool {
        self.0.is_empty() || self.0.iter().any(|(_, tokens)| names.iter().any(|name| matches(tokens, name)))
    }

    /// Returns the first pattern that no name matches.
    pub(super) fn unmatched<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Option<&str> {
        let none = |(_, tokens): &&(String, Vec<Token>)| !names.clone().any(|name| matches(tokens, name));
        self.0.iter().find(none).map(|(pattern, _)| pattern.as_str())
    }
}

fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut chars = pattern.chars().peekable();
    let mut found = Vec::new();
    while let Some(c) = chars.next() {
        found.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => Token::Literal(chars.next()?),
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                while ranges.is_empty() || chars.peek() != Some(&']') {
                    let low = bound(&mut chars)?;
                    let high = match chars.next_if_eq(&'-') {
                        Some(_) => bound(&mut chars)?,
                        None => low,
                    };
                    ranges.push((low, high));
                }
                chars.next();
                Token::Class(negated, ranges)
            }
            c => Token::Literal(c),
        });
    }
    Some(found)
}

/// Reads an end of a range.
fn bound(chars: &mut impl Iterator<Item = char>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

/// Matches in time that grows with the product of both lengths: only the last `*` is ever tried again.
fn matches(tokens: &[Token], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut token, mut at) = (0, 0);
    let mut retry = None;
    loop {
        match tokens.get(token) {
            Some(Token::Any) => {
                retry = Some((token, at));
                token += 1;
                continue;
            }
            Some(asked) if name.get(at).is_some_and(|c| asked.takes(*c)) => {
                (token, at) = (token + 1, at + 1);
                continue;
            }
            None if at == name.len() => return true,
            _ => {}
        }
        match retry {
            // `*` takes one more character.
            Some((star, from)) if name.get(from).is_some_and(|c| *c != '/') => {
                retry = Some((star, from + 1));
                (token, at) = (star + 1, from + 1);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        let cases = [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*", "", true),
            ("*", "abc", true),
            ("*", "a/b", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*b*c*d", "axbxcxd", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^b-d]", "abc", false),
            (r"a\*b", "a*b", true),
            (r"a\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a][^a][^a]b", "a☺b", false),
            (r"[\]a]", "]", true),
            (r"[x\-]", "-", true),
            ("pdf-*", "pdf-tools", true),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, name, want) in cases {
            assert_eq!(Filter::parse(&[pattern]).unwrap().matches(&[name]), want, "{pattern} {name}");
        }
        assert!(Filter::default().matches(&[]));
        let long = "a*".repeat(50) + "b";
        assert!(!Filter::parse(&[long]).unwrap().matches(&[&"a".repeat(5000)]));
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for pattern in ["[]a]", "[-]", "[x-]", "[-x]", "[", "[^", "[^bc", "a[", r"\", "[a-b-c]"] {
            let error = Filter::parse(&[pattern]).unwrap_err().to_string();
            assert_eq!(error, format!("invalid --filter pattern {pattern:?}"));
        }
    }
}
