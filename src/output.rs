//! What a terminal sees: tables, relative dates, sizes, and text by strangers made harmless.
//!
//! JSON output is exact; nothing here touches it.

use std::path::Path;

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::redact::without_credentials;
use crate::text::{escaped, hidden};

/// Returns `text` without what could steer a terminal or forge a line: control characters, bidirectional controls,
/// zero-width and tag characters (Unicode TR36, and "Trojan Source").
pub fn harmless(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || *c == '\t' || hidden(*c).is_none()).collect()
}

/// Returns JSON that a terminal shows harmless: what [`harmless`] would drop is escaped, so that the value is exact.
///
/// # Errors
/// If the value cannot be JSON.
pub fn json(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|text| escaped(&text))
}

/// The same on one line: a newline would forge a line that scripts parse.
pub fn harmless_line(text: &str) -> String {
    harmless(text).replace(['\n', '\t'], " ")
}

/// The same without what an address may have in it that nobody else may see.
pub fn public_line(text: &str) -> String {
    harmless_line(&without_credentials(text))
}

/// Longest cell of a table, in characters: more than any name and version of a skill, and far less than what a hostile
/// annotation makes of a thousand rows that are padded to it.
const MAX_CELL: usize = 200;

/// Cuts text for a cell of a table.
pub fn cell(text: &str) -> String {
    // Some of these may go, but not nearly all: a cell of nothing else tells as little.
    let begin: String = text.chars().take(2 * MAX_CELL).collect();
    let shown = harmless_line(&begin);
    match shown.char_indices().nth(MAX_CELL - 1) {
        Some((end, last)) if shown.len() > end + last.len_utf8() => format!("{}…", &shown[..end]),
        _ => shown,
    }
}

/// Returns a path for a line of text.
pub fn shown(path: &Path) -> String {
    harmless_line(&path.display().to_string())
}

/// Returns the line that says where replaced files are kept; nothing where there are none.
pub fn backup(path: Option<&Path>) -> String {
    path.map(|path| format!("Backup: {}\n", shown(path))).unwrap_or_default()
}

/// Returns a table as Go's tabwriter makes it: two spaces between columns, none after the last.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<&str> = cells.collect();
        for (i, cell) in cells.iter().enumerate() {
            text.push_str(cell);
            if i + 1 < cells.len() {
                let padding = widths[i] - cell.chars().count() + 2;
                text.extend(std::iter::repeat_n(' ', padding));
            }
        }
        text.push('\n');
    };
    line(&mut heading.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// Returns how long ago `then` was, in the words of go-humanize; text that is no RFC 3339 date is returned as it is.
pub fn relative(then: &str, now: DateTime<Utc>) -> String {
    let Ok(date) = DateTime::parse_from_rfc3339(then) else {
        return then.to_owned();
    };
    let seconds = (now - date.with_timezone(&Utc)).num_seconds();
    let suffix = if seconds < 0 { "from now" } else { "ago" };
    span(seconds.unsigned_abs()).map_or_else(|| "now".to_owned(), |span| format!("{span} {suffix}"))
}

fn span(seconds: u64) -> Option<String> {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    const WEEK: u64 = 7 * DAY;
    const MONTH: u64 = 30 * DAY;
    const YEAR: u64 = 12 * MONTH;
    let some = |text: &str| Some(text.to_owned());
    match seconds {
        0 => None,
        1 => some("1 second"),
        s if s < MINUTE => Some(format!("{s} seconds")),
        s if s < 2 * MINUTE => some("1 minute"),
        s if s < HOUR => Some(format!("{} minutes", s / MINUTE)),
        s if s < 2 * HOUR => some("1 hour"),
        s if s < DAY => Some(format!("{} hours", s / HOUR)),
        s if s < 2 * DAY => some("1 day"),
        s if s < WEEK => Some(format!("{} days", s / DAY)),
        s if s < 2 * WEEK => some("1 week"),
        s if s < MONTH => Some(format!("{} weeks", s / WEEK)),
        s if s < 2 * MONTH => some("1 month"),
        s if s < YEAR => Some(format!("{} months", s / MONTH)),
        s if s < 18 * MONTH => some("1 year"),
        s if s < 2 * YEAR => some("2 years"),
        s if s < 37 * YEAR => Some(format!("{} years", s / YEAR)),
        _ => some("a long while"),
    }
}

/// Returns a size as podman prints it: three significant digits, decimal units.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(text, "{value:.digits$} {}", UNITS[unit]);
    text
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn hostile_text_is_harmless_on_a_terminal() {
        let cases = [
            ("plain", "plain"),
            ("\u{1b}[31mred\u{7}", "[31mred"),
            ("a\u{202e}b\u{200b}c\u{e0041}d", "abcd"),
            ("x\nDigest: sha256:0", "x Digest: sha256:0"),
            ("grün 技能", "grün 技能"),
        ];
        for (text, shown) in cases {
            assert_eq!(harmless_line(text), shown);
        }
    }

    #[test]
    fn json_is_exact_and_harmless() {
        let text = "a\u{9b}31m\u{202e}b\u{e0041}\n\u{1b}ü";
        let shown = json(&text).expect("JSON");
        assert_eq!(shown, r#""a\u009b31m\u202eb\udb40\udc41\n\u001bü""#);
        assert_eq!(serde_json::from_str::<String>(&shown).expect("JSON"), text);
    }

    #[test]
    fn cells_are_cut() {
        assert_eq!(cell("acme/hr"), "acme/hr");
        let long = cell(&"x".repeat(3_000_000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (MAX_CELL, true));
    }

    #[test]
    fn dates_are_relative_as_in_go_humanize() {
        let now = DateTime::<Utc>::from_timestamp(2_000_000_000, 0).unwrap_or_default();
        let cases = [
            (0, "now"),
            (1, "1 second ago"),
            (59, "59 seconds ago"),
            (119, "1 minute ago"),
            (7_300, "2 hours ago"),
            (2 * 86_400, "2 days ago"),
            (8 * 86_400, "1 week ago"),
            (45 * 86_400, "1 month ago"),
            (400 * 86_400, "1 year ago"),
            (600 * 86_400, "2 years ago"),
            (40 * 365 * 86_400, "a long while ago"),
            (-120, "2 minutes from now"),
        ];
        for (seconds, text) in cases {
            assert_eq!(relative(&(now - TimeDelta::seconds(seconds)).to_rfc3339(), now), text);
        }
        assert_eq!(relative("soon", now), "soon");
    }

    #[test]
    fn sizes_have_three_digits() {
        let cases = [(0, "0 B"), (999, "999 B"), (12_400, "12.4 kB"), (1_000_000, "1.00 MB"), (524_288_000, "524 MB")];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn tables_have_no_trailing_space() {
        let rows = vec![vec!["acme/alpha".to_owned(), "1".to_owned()], vec!["x".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "TAG"], &rows), "NAME        TAG\nacme/alpha  1\nx           \n");
    }
}
