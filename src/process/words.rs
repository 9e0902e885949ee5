//! The line of a program's standard error that tells most.

/// Returns the line of `stderr` that tells most: the last error, else the last line that is no warning, else the last.
///
/// The wrappers of logrus (`time="…" level=fatal msg="…"`) and of podman (`Error: `) are taken off.
pub fn last_words(stderr: &str) -> Option<String> {
    let lines = stderr.lines().map(str::trim).filter(|l| !l.is_empty()).map(unwrap_line);
    // `max_by_key` returns the last of equals.
    lines.max_by_key(|(rank, _)| *rank).map(|(_, text)| without_measures(text))
}

/// Takes off what skopeo has measured of a connection that broke, which is for its authors.
fn without_measures(mut text: String) -> String {
    if let Some(at) = text.find("(heuristic tuning data:")
        && let Some(end) = text[at..].find("): ")
    {
        text.replace_range(at..at + end + 3, "");
    }
    text
}

/// Returns how much a line tells, and its text without wrapper.
fn unwrap_line(line: &str) -> (u8, String) {
    if let Some(text) = line.strip_prefix("Error: ") {
        return (2, text.to_owned());
    }
    let (Some(level), Some((_, message))) = (field(line, "level="), line.split_once(" msg=")) else {
        return (1, line.to_owned());
    };
    let rank = match level {
        "fatal" | "error" | "panic" => 2,
        _ => 0,
    };
    (rank, unquote(message))
}

fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    if !line.starts_with("time=") && !line.starts_with(key) {
        return None;
    }
    line.split(' ').find_map(|word| word.strip_prefix(key))
}

/// Undoes Go's `%q` where the text begins with a quote, and takes the first word otherwise.
fn unquote(text: &str) -> String {
    let Some(rest) = text.strip_prefix('"') else {
        return text.split(' ').next().unwrap_or(text).to_owned();
    };
    let mut out = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('n' | 't' | 'r') => out.push(' '),
                Some(c) => out.push(c),
                None => break,
            },
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_line_that_tells_most() {
        let cases = [
            (
                r#"time="2026-01-01T00:00:00Z" level=fatal msg="Source image rejected: Running image oci:/s is rejected by policy.""#,
                Some("Source image rejected: Running image oci:/s is rejected by policy."),
            ),
            (r#"time="x" level=fatal msg="reading \"a b\":\nno""#, Some(r#"reading "a b": no"#)),
            ("level=error msg=plain extra=1\n", Some("plain")),
            ("time=\"x\" level=fatal msg=\"first\"\ntime=\"x\" level=warning msg=\"later\"\n", Some("first")),
            ("Error: unknown flag: --x\nSee 'podman untag --help'\n\n", Some("unknown flag: --x")),
            ("time=\"x\" level=warning msg=\"only\"", Some("only")),
            (
                "level=fatal msg=\"reading blob x: (heuristic tuning data: total 191 @1 ms): unexpected EOF\"",
                Some("reading blob x: unexpected EOF"),
            ),
            ("a\nb\n", Some("b")),
            ("  \n", None),
            ("", None),
        ];
        for (stderr, expected) in cases {
            assert_eq!(last_words(stderr).as_deref(), expected, "{stderr}");
        }
    }
}
