//! Characters that a reader of a text cannot see, or that change how the rest of it looks.

use std::fmt::Write as _;

/// What a hidden character does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hidden {
    /// Takes no room on the screen; some languages and emoji need a few of them.
    Invisible,
    /// Reorders what surrounds it, so that a text reads differently from what it is.
    Bidi,
    /// A Unicode tag: a whole ASCII text that models read and people do not.
    Tag,
    /// Moves the cursor, or begins an escape sequence.
    Control,
}

impl Hidden {
    /// Returns what it is called in a message.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invisible => "an invisible character",
            Self::Bidi => "a bidirectional control",
            Self::Tag => "an invisible tag character",
            Self::Control => "a control character",
        }
    }
}

/// Returns what is hidden about a character; line breaks and tabs count as control characters here.
pub fn hidden(c: char) -> Option<Hidden> {
    Some(match c {
        _ if c.is_control() => Hidden::Control,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Hidden::Bidi,
        '\u{e0000}'..='\u{e007f}' => Hidden::Tag,
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0100}'..='\u{e01ef}' => Hidden::Invisible,
        _ => return None,
    })
}

/// Returns JSON in which what is hidden is escaped, so that a terminal shows it harmless and its value is exact. Line breaks, which
/// JSON has between values only, stay.
pub fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || hidden(c).is_none() {
            escaped.push(c);
        } else {
            // Writing to a String cannot fail.
            let _ = c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(escaped, "\\u{unit:04x}"));
        }
    }
    escaped
}

/// Returns the worst hidden character of a text of several lines, and the first of its kind. Line breaks, tabs, and
/// joiners between letters or pictures beyond ASCII are what they should be.
pub fn worst_hidden(text: &str) -> Option<(char, Hidden)> {
    let mut worst: Option<(char, Hidden)> = None;
    let mut before = '\0';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let joins = matches!(c, '\u{200c}' | '\u{200d}')
            && !before.is_ascii()
            && chars.peek().is_some_and(|after| !after.is_ascii() && hidden(*after).is_none());
        before = c;
        if matches!(c, '\n' | '\r' | '\t') || joins {
            continue;
        }
        if let Some(kind) = hidden(c)
            && worst.is_none_or(|(_, have)| kind > have)
        {
            worst = Some((c, kind));
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_told_from_writing() {
        let cases = [
            ("plain\n\ttext, naïve 技能 ✓", None),
            ("family 👩\u{200d}👩\u{200d}👧", None),
            ("می\u{200c}خواهم", None),
            ("a\u{200d}b", Some(('\u{200d}', Hidden::Invisible))),
            ("a\u{200b}b\u{e0041}", Some(('\u{e0041}', Hidden::Tag))),
            ("abc\u{202e}fed", Some(('\u{202e}', Hidden::Bidi))),
            ("\u{1b}[31m\u{200b}", Some(('\u{1b}', Hidden::Control))),
            ("\u{9b}31m", Some(('\u{9b}', Hidden::Control))),
        ];
        for (text, expected) in cases {
            assert_eq!(worst_hidden(text), expected, "{text:?}");
        }
    }
}
