//! Holds the direction of dependencies: `cli -> ops -> source -> store -> core`, and beside ops `hook -> store`.

use std::fs;
use std::path::{Path, PathBuf};

const CORE: [&str; 7] =
    ["crate::cli", "crate::ops", "crate::source", "crate::store", "crate::env", "crate::output", "ambient_authority"];
const SOURCE: [&str; 5] = ["crate::cli", "crate::env", "crate::output", "crate::ops", "ambient_authority"];
const STORE: [&str; 6] =
    ["crate::cli", "crate::env", "crate::output", "crate::ops", "crate::source", "ambient_authority"];
const HOOK: [&str; 9] = [
    "crate::cli",
    "crate::env",
    "crate::output",
    "crate::ops",
    "crate::source",
    "ambient_authority",
    "crate::process::Tools",
    "crate::store::skopeo",
    "crate::store::registry",
];

/// Each layer and what it must not use. Core is everything that is in none of the others.
fn forbidden(file: &Path) -> &'static [&'static str] {
    let text = file.to_string_lossy();
    match () {
        () if text.contains("src/cli") => &[],
        // Only the shell opens absolute paths: everything below it is given directories.
        () if text.contains("src/ops") => &["crate::cli", "crate::env", "crate::output", "ambient_authority"],
        () if text.contains("src/source") => &SOURCE,
        () if text.contains("src/store") => &STORE,
        // Hooks start no program, and use no network.
        () if text.contains("src/hook") => &HOOK,
        () if text.ends_with("src/main.rs") || text.ends_with("src/lib.rs") => &[],
        () => &CORE,
    }
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// Returns the lines without comments and without the items that are `#[cfg(test)]`, which as rustfmt writes them end in
/// a line of their indentation and `}`, or in `;`.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        if line.trim() != "#[cfg(test)]" {
            code += line;
            code.push('\n');
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let attribute = |line: &&str| line.trim_start().starts_with("#[") || line.trim_start().starts_with("//");
        let first = lines.by_ref().find(|line| !attribute(line)).unwrap_or_default();
        if !first.ends_with([';', ',']) && !first.ends_with('}') {
            lines.by_ref().find(|line| line.strip_prefix(indent) == Some("}"));
        }
    }
    code
}

/// Returns the paths of a use tree: `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let (mut depth, mut start) = (0, 0);
    let mut parts = Vec::new();
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[start..]);
    for part in parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()) {
        match part.split_once('{') {
            Some((head, rest)) => {
                let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
                expand(&format!("{prefix}{}", head.trim()), inner, paths);
            }
            None => paths.push(format!("{prefix}{part}")),
        }
    }
}

/// Returns every line of code, and every path that is imported in a group.
fn uses(text: &str) -> Vec<String> {
    let code = code(text);
    let mut found: Vec<String> = code.lines().map(str::to_owned).collect();
    let mut rest = code.as_str();
    while let Some((_, after)) = rest.split_once("use ") {
        let (tree, after) = after.split_once(';').unwrap_or((after, ""));
        if tree.contains('{') {
            expand("", &tree.split_whitespace().collect::<Vec<_>>().join(" "), &mut found);
        }
        rest = after;
    }
    found
}

fn names(path: &str, word: &str) -> bool {
    path.match_indices(word)
        .any(|(at, _)| !path[at + word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn dependencies_go_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    assert!(files.len() > 20, "{} sources found", files.len());
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy();
        if name.contains("test") || file.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        for used in uses(&fs::read_to_string(&file).unwrap()) {
            for word in forbidden(&file) {
                let itself = file.ends_with("src/output.rs") && *word == "crate::output";
                assert!(itself || !names(&used, word), "{}: {used}", file.display());
            }
        }
    }
}

#[test]
fn imports_are_seen_however_they_are_written() {
    let seen = |text: &str| uses(text).iter().any(|used| names(used, "crate::store"));
    let cases = [
        ("use crate::store::layout;\n", true),
        ("use crate::{\n    error::Error,\n    store::layout::{self, Layout},\n};\n", true),
        ("use crate::{error::{Error, Result}, store};\n", true),
        ("fn f() { crate::store::open(); }\n", true),
        ("#[cfg(test)]\nfn f() {\n}\nuse crate::store;\n", true),
        ("#[cfg(test)]\nuse crate::env;\nuse crate::store;\n", true),
        ("#[cfg(test)]\nmod tests {\n    use crate::store;\n}\n", false),
        ("// use crate::store;\nuse crate::stores;\n", false),
        ("use crate::{error, stores};\n", false),
    ];
    for (text, want) in cases {
        assert_eq!(seen(text), want, "{text}");
    }
}

#[test]
fn files_stay_small_enough_to_read() {
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default().lines().count();
        assert!(code <= 500, "{} has {code} lines", file.display());
    }
}
