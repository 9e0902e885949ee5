//! Names of entries in archives of unknown origin.

use super::bounds::check_path;
use crate::error::{Error, Result};

/// A name without ornaments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// The path; empty for the root.
    pub(super) path: String,
    /// Whether it ended in a slash.
    pub(super) directory: bool,
}

/// How the name of a file begins that stands for one that is deleted, in the layers of a container image.
pub(super) const WHITEOUT: &str = ".wh.";

/// Returns the path that `raw` stands for, or why it is refused; whiteouts are refused unless they mean something.
pub(super) fn clean(raw: &[u8], whiteouts: bool) -> Result<Name> {
    let refuse = |reason: &str| Err(refused(raw, reason));
    if raw.is_empty() {
        return Err(refused(b"(unnamed)", "has no name"));
    }
    if raw.contains(&0) {
        return refuse("has a zero byte in its name");
    }
    let Ok(name) = std::str::from_utf8(raw) else {
        return refuse("has a name that is not UTF-8");
    };
    if name.starts_with('/') {
        return refuse("has an absolute name");
    }
    check_path(name)?;
    let directory = name.ends_with('/');
    let mut path = name.strip_suffix('/').unwrap_or(name);
    while let Some(rest) = path.strip_prefix("./") {
        path = rest;
    }
    if path == "." {
        path = "";
    }
    for part in path.split('/').filter(|_| !path.is_empty()) {
        match part {
            ".." => return refuse("leaves the skill"),
            "" | "." => return refuse("has an empty part in its name"),
            part if part.starts_with(WHITEOUT) && !whiteouts => {
                return refuse("is a whiteout, which deletes another file");
            }
            _ => {}
        }
    }
    Ok(Name { path: path.to_owned(), directory })
}

/// Returns an error about the entry `raw`.
pub(super) fn refused(raw: &[u8], reason: impl Into<String>) -> Error {
    Error::RefusedEntry { entry: show(raw), reason: reason.into(), hint: None }
}

/// Returns `raw` as text, escaped where it is not UTF-8.
pub(super) fn show(raw: &[u8]) -> String {
    std::str::from_utf8(raw).map_or_else(|_| raw.escape_ascii().to_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_or_refused() {
        type Want = Result<(&'static str, bool), &'static str>;
        let cases: [(&[u8], Want); 17] = [
            (b"SKILL.md", Ok(("SKILL.md", false))),
            (b"./SKILL.md", Ok(("SKILL.md", false))),
            (b"././a/b", Ok(("a/b", false))),
            (b"a/", Ok(("a", true))),
            (b".", Ok(("", false))),
            (b"./", Ok(("", true))),
            (b"...", Ok(("...", false))),
            (b"", Err("(unnamed) has no name")),
            (b"/etc/passwd", Err("/etc/passwd has an absolute name")),
            (b"/", Err("/ has an absolute name")),
            (b"../x", Err("../x leaves the skill")),
            (b"a/../../x", Err("a/../../x leaves the skill")),
            (b"a//b", Err("a//b has an empty part in its name")),
            (b"a/./b", Err("a/./b has an empty part in its name")),
            (b"a/.wh.b", Err("a/.wh.b is a whiteout, which deletes another file")),
            (b"a\0b", Err("a\0b has a zero byte in its name")),
            (b"\xff", Err("\\xff has a name that is not UTF-8")),
        ];
        for (raw, want) in cases {
            let got = clean(raw, false).map(|name| (name.path, name.directory)).map_err(|error| error.to_string());
            let want = want.map(|(path, directory)| (path.to_owned(), directory)).map_err(ToOwned::to_owned);
            assert_eq!(got, want, "{}", show(raw));
        }
    }
}
