//! containers.conf(5): where podman looks for hooks, and the file that adds our directory.
//!
//! podman takes one list, `hooks_dir` of `[engine]`: that of the file read last, or from 4.8 on a list that grows where a file
//! says `{append=true}`. Of two hook files of one name, that in the directory listed later counts, so ours is listed last.
//! Older podman fails on `{append=true}` in every command, so they are given the whole list; whoever changes another file then
//! has to enable the hook again, which `hook status` notices.

use std::path::PathBuf;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::process::Version;

/// The directory that podman reads where nothing else is configured.
pub const DEFAULT: &str = "/usr/share/containers/oci/hooks.d";
/// What the file is called in `containers.conf.d`: the last by name.
pub const FILE: &str = "99-skillctl.conf";
/// What a file of ours begins with.
const MARK: &str = "# Written by skillctl hook enable";
/// The first podman that can add to a list.
const APPENDS: Version = (4, 8, 0);

/// Returns whether a podman can add to a list; one that is not known cannot.
pub fn appends(podman: Option<Version>) -> bool {
    podman.is_some_and(|version| version >= APPENDS)
}

#[derive(Debug, Default, Deserialize)]
struct Conf {
    #[serde(default)]
    engine: Engine,
}

#[derive(Debug, Default, Deserialize)]
struct Engine {
    hooks_dir: Option<Vec<Item>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Item {
    Dir(String),
    Attributes { append: Option<bool> },
}

/// Returns the directories that podman reads hooks from, by its files in the order in which it reads them.
///
/// # Errors
/// [`Error::Unavailable`] for a file that is no TOML: podman does not start with it either.
pub fn effective(files: &[(PathBuf, String)]) -> Result<Vec<String>> {
    let mut dirs = vec![DEFAULT.to_owned()];
    // Once said it holds for all files after it, until one says otherwise.
    let mut append = false;
    for (path, text) in files {
        let bad = |e: toml::de::Error| {
            let reason = format!("{}: {}", path.display(), e.message());
            Error::Unavailable { reason, hint: Some("podman does not start with it either".into()) }
        };
        let conf: Conf = toml::from_str(text).map_err(bad)?;
        let Some(items) = conf.engine.hooks_dir else { continue };
        append = items
            .iter()
            .filter_map(|item| match item {
                Item::Attributes { append } => *append,
                Item::Dir(_) => None,
            })
            .next_back()
            .unwrap_or(append);
        if !append {
            dirs.clear();
        }
        dirs.extend(items.into_iter().filter_map(|item| match item {
            Item::Dir(dir) => Some(dir),
            Item::Attributes { .. } => None,
        }));
    }
    Ok(dirs)
}

/// Returns the file that adds `ours` to what podman reads by its `others`.
pub fn render(ours: &str, others: &[String], append: bool) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let list = match append {
        true => format!("{}, {{append=true}}", quoted(ours)),
        false => others
            .iter()
            .map(String::as_str)
            .filter(|dir| *dir != ours)
            .chain([ours])
            .map(quoted)
            .collect::<Vec<_>>()
            .join(", "),
    };
    let why = match append {
        true => "podman reads this directory after all others.",
        false => "podman before 4.8 takes one whole list: enable again after changing hooks_dir elsewhere.",
    };
    format!("{MARK}; skillctl hook disable removes it.\n# {why}\n[engine]\nhooks_dir = [{list}]\n")
}

/// Returns whether a file is one that we wrote.
pub fn is_ours(text: &str) -> bool {
    text.starts_with(MARK)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn dirs(files: &[&str]) -> Vec<String> {
        let files: Vec<_> = files.iter().map(|text| (PathBuf::from("f"), (*text).to_owned())).collect();
        effective(&files).unwrap()
    }

    #[test]
    fn lists_are_replaced_or_grow_as_podman_has_it() {
        let cases: [(&[&str], &[&str]); 7] = [
            (&[], &[DEFAULT]),
            (&["[engine]\nruntime = \"crun\""], &[DEFAULT]),
            (&["[engine]\nhooks_dir = [\"/a\", \"/b\"]"], &["/a", "/b"]),
            (&["[engine]\nhooks_dir = [\"/a\"]", "[engine]\nhooks_dir = [\"/b\"]"], &["/b"]),
            (&["[engine]\nhooks_dir = [\"/a\"]", "[engine]\nhooks_dir = [\"/b\", {append=true}]"], &["/a", "/b"]),
            (
                &["[engine]\nhooks_dir = [\"/b\", {append=true}]", "[engine]\nhooks_dir = [\"/c\"]"],
                &[DEFAULT, "/b", "/c"],
            ),
            (
                &["[engine]\nhooks_dir = [\"/b\", {append=true}]", "[engine]\nhooks_dir = [\"/c\", {append=false}]"],
                &["/c"],
            ),
        ];
        for (files, want) in cases {
            assert_eq!(dirs(files), want, "{files:?}");
        }
    }

    #[test]
    fn ours_is_last_and_others_stay() {
        let others = vec!["/a b\"".to_owned(), "/ours".to_owned(), "/c".to_owned()];
        for append in [false, true] {
            let text = render("/ours", &others, append);
            assert!(is_ours(&text) && !is_ours("[engine]"), "{text}");
            assert_eq!(dirs(&["[engine]\nhooks_dir = ['/a b\"', \"/c\"]", &text]), ["/a b\"", "/c", "/ours"], "{text}");
        }
    }

    #[test]
    fn versions_that_append_are_known() {
        let cases = [(None, false), (Some((4, 7, 9)), false), (Some((4, 8, 0)), true), (Some((5, 0, 0)), true)];
        for (version, want) in cases {
            assert_eq!(appends(version), want, "{version:?}");
        }
    }

    #[test]
    fn a_broken_file_is_named() {
        let broken = effective(&[(PathBuf::from("/etc/x.conf"), "[engine".into())]).unwrap_err().to_string();
        assert!(broken.starts_with("/etc/x.conf: "), "{broken}");
    }
}
