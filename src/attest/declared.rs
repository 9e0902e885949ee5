//! What files of a skill declare that they need.
//!
//! ```text
//! *.py, and what begins with #! and python or uv     inline script metadata (PEP 723): dependencies
//! requirements*.txt                                  requirements (pip), without what they include
//! package.json, not of node_modules                  dependencies, optionalDependencies, devDependencies
//! ```
//!
//! What cannot be read is a warning: a skill is no less a skill for it. A version counts where it is pinned, and nowhere else:
//! which one somebody will get for `>=2` nobody knows.

use serde_json::Value;

use crate::redact::without_credentials;

/// Largest file that is looked into, in bytes: those that people write are a hundred times smaller.
pub const MAX_FILE: u64 = 1 << 20;
/// Longest text of a declaration that is kept, in characters.
const MAX_TEXT: usize = 256;
/// Most warnings of one file.
const MAX_WARNINGS: usize = 8;
/// Longest name and version of a package: npm has 214, PyPI fewer.
const MAX_NAME: usize = 214;

/// Where packages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ecosystem {
    /// The registry of npm.
    Npm,
    /// The Python Package Index.
    Pypi,
}

impl Ecosystem {
    /// Returns the type of its package URLs.
    pub fn purl_type(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pypi => "pypi",
        }
    }
}

/// What a package is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// It is needed.
    Required,
    /// It is used where it is there.
    Optional,
    /// It is for those who work on the skill.
    Development,
}

/// A package that a file declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Where it comes from.
    pub ecosystem: Ecosystem,
    /// Its name, as its registry spells it.
    pub name: String,
    /// Its version, where that is pinned.
    pub version: Option<String>,
    /// What it is for.
    pub scope: Scope,
    /// The declaration, without credentials.
    pub text: String,
}

/// What a file declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The packages.
    pub declared: Vec<Declared>,
    /// What could not be read.
    pub warnings: Vec<String>,
}

/// A kind of file that declares something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A script of Python, with metadata in it.
    Script,
    /// A file of requirements.
    Requirements,
    /// The manifest of a package of npm.
    Package,
}

impl Kind {
    /// Returns what a file is, by its path and the first bytes of its content.
    pub fn of(path: &str, head: &[u8]) -> Option<Self> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let first = head.split(|b| *b == b'\n').next().unwrap_or_default();
        let runs = |word: &[u8]| first.windows(word.len()).any(|part| part == word);
        match name {
            // What others have installed there declares what it needs itself.
            "package.json" => (!path.split('/').any(|part| part == "node_modules")).then_some(Self::Package),
            name if name.starts_with("requirements") && name.ends_with(".txt") => Some(Self::Requirements),
            name if name.ends_with(".py") => Some(Self::Script),
            _ if first.starts_with(b"#!") && (runs(b"python") || runs(b"uv ")) => Some(Self::Script),
            _ => None,
        }
    }

    /// Returns what a file of this kind declares.
    pub fn read(self, content: &[u8]) -> Found {
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        let mut found = Found::default();
        match self {
            Self::Script => script(&String::from_utf8_lossy(content), &mut found),
            Self::Requirements => requirements(&String::from_utf8_lossy(content), &mut found),
            Self::Package => package(content, &mut found),
        }
        found
    }
}

impl Found {
    fn warn(&mut self, warning: String) {
        match self.warnings.len() {
            count if count < MAX_WARNINGS => self.warnings.push(short(&warning)),
            MAX_WARNINGS => self.warnings.push("and more".to_owned()),
            _ => {}
        }
    }

    fn add_python(&mut self, text: &str, place: &str) {
        match python(text) {
            Ok((name, version)) => self.declared.push(Declared {
                ecosystem: Ecosystem::Pypi,
                name,
                version,
                scope: Scope::Required,
                text: short(text),
            }),
            Err(reason) => self.warn(format!("{place}: {reason}")),
        }
    }
}

/// Reads the metadata in a script, as the reference implementation of PEP 723 does.
fn script(text: &str, found: &mut Found) {
    let block = match metadata(text) {
        Ok(Some(block)) => block,
        Ok(None) => return,
        Err(reason) => return found.warn(reason),
    };
    let metadata: toml::Table = match toml::from_str(&block) {
        Ok(metadata) => metadata,
        Err(e) => return found.warn(format!("its metadata is no TOML: {}", e.message())),
    };
    let dependencies = match metadata.get("dependencies") {
        None => return,
        Some(toml::Value::Array(dependencies)) => dependencies,
        Some(_) => return found.warn("its dependencies are no list".to_owned()),
    };
    for dependency in dependencies {
        match dependency.as_str() {
            Some(text) => found.add_python(text, "dependencies"),
            None => found.warn("one of its dependencies is no text".to_owned()),
        }
    }
}

/// Returns the content of the block `script`. A block that does not end is none.
fn metadata(text: &str) -> Result<Option<String>, String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let begins = lines[at]
            .strip_prefix("# /// ")
            .filter(|kind| !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        let Some(kind) = begins else {
            at += 1;
            continue;
        };
        let content = &lines[at + 1..];
        let content =
            &content[..content.iter().position(|l| *l != "#" && !l.starts_with("# ")).unwrap_or(content.len())];
        match content.iter().rposition(|line| *line == "# ///") {
            Some(end) if end > 0 => {
                if kind == "script" {
                    let own = |line: &&str| line.strip_prefix("# ").unwrap_or_default().to_owned();
                    blocks.push(content[..end].iter().map(own).collect::<Vec<_>>().join("\n"));
                }
                at += end + 2;
            }
            // Nothing in these lines ends a block, so none that begins there is one.
            _ => at += content.len() + 1,
        }
    }
    match blocks.len() {
        0 | 1 => Ok(blocks.pop()),
        count => Err(format!("it has {count} blocks of metadata, and not one")),
    }
}

/// Reads the lines of a file of requirements.
fn requirements(text: &str, found: &mut Found) {
    let mut logical = String::new();
    let mut begin = None;
    for (number, line) in text.lines().enumerate() {
        let begun = *begin.get_or_insert(number + 1);
        if let Some(continued) = line.strip_suffix('\\') {
            logical += continued;
            logical.push(' ');
            continue;
        }
        logical += line;
        requirement(&logical, begun, found);
        logical.clear();
        begin = None;
    }
    if let Some(begun) = begin {
        requirement(&logical, begun, found);
    }
}

fn requirement(line: &str, number: usize, found: &mut Found) {
    let spaced = |word: &str| {
        let at = line.match_indices(word).find(|(at, _)| line[..*at].chars().last().is_none_or(char::is_whitespace));
        at.map_or(line.len(), |(at, _)| at)
    };
    // A comment, and options of this requirement alone: hashes and settings.
    let end = spaced("#").min(if line.trim_start().starts_with('-') { line.len() } else { spaced("--") });
    let own = line[..end].trim();
    if own.is_empty() {
        return;
    }
    let is_option = own.starts_with('-');
    let edits = ["-e", "--editable"].iter().any(|flag| own.starts_with(flag));
    match is_option {
        // Indexes, constraints and other files.
        true if !edits => {}
        true => found.warn(format!("line {number}: {own:?} names no package")),
        false => found.add_python(own, &format!("line {number}")),
    }
}

/// Reads a requirement (PEP 508). Returns the name as the index spells it (PEP 503), and the version where it is pinned.
fn python(text: &str) -> Result<(String, Option<String>), String> {
    let wrong = || format!("{:?} is no requirement of Python", short(text));
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    if !name.starts_with(alphanumeric) || !name.ends_with(alphanumeric) || name.len() > MAX_NAME {
        return Err(wrong());
    }
    let mut rest = rest.trim_start();
    if let Some(extras) = rest.strip_prefix('[') {
        rest = extras.split_once(']').ok_or_else(wrong)?.1.trim_start();
    }
    let version = match rest.chars().next() {
        None | Some(';' | '@') => None,
        Some('<' | '>' | '=' | '!' | '~' | '(') => pinned(rest.split(';').next().unwrap_or_default()),
        Some(_) => return Err(wrong()),
    };
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    Ok((parts.collect::<Vec<_>>().join("-").to_ascii_lowercase(), version))
}

/// Returns the version that the only clause of a specifier pins.
fn pinned(specifier: &str) -> Option<String> {
    let specifier = specifier.trim().trim_start_matches('(').trim_end_matches(')').trim();
    let version = specifier.strip_prefix("===").or_else(|| specifier.strip_prefix("=="))?.trim();
    let is_version = |b: u8| b.is_ascii_alphanumeric() || b".+!-_".contains(&b);
    (!version.is_empty() && version.len() <= MAX_NAME && version.bytes().all(is_version)).then(|| version.to_owned())
}

/// Reads the manifest of a package of npm.
fn package(content: &[u8], found: &mut Found) {
    const SECTIONS: [(&str, Scope); 3] = [
        ("dependencies", Scope::Required),
        ("optionalDependencies", Scope::Optional),
        ("devDependencies", Scope::Development),
    ];
    let manifest: Value = match serde_json::from_slice(content) {
        Ok(manifest) => manifest,
        Err(e) => return found.warn(format!("it is no JSON: {e}")),
    };
    if !manifest.is_object() {
        return found.warn("it is no object".to_owned());
    }
    for (section, scope) in SECTIONS {
        let dependencies = match &manifest[section] {
            Value::Null => continue,
            Value::Object(dependencies) => dependencies,
            _ => {
                found.warn(format!("its {section} are no object"));
                continue;
            }
        };
        for (key, value) in dependencies {
            match value.as_str().ok_or(()).and_then(|range| node(key, range)) {
                Ok(Some((name, version))) => {
                    let text = short(&format!("{key}@{}", value.as_str().unwrap_or_default()));
                    found.declared.push(Declared { ecosystem: Ecosystem::Npm, name, version, scope, text });
                }
                Ok(None) => {}
                Err(()) => found.warn(format!("{section}: {:?} is no dependency", short(key))),
            }
        }
    }
}

/// Returns name and pinned version of a dependency; `None` for one that is a directory beside it.
fn node(key: &str, range: &str) -> Result<Option<(String, Option<String>)>, ()> {
    let range = range.trim();
    if ["file:", "link:", "workspace:"].iter().any(|local| range.starts_with(local)) {
        return Ok(None);
    }
    // Under another name.
    let (name, range) = match range.strip_prefix("npm:") {
        Some(alias) => match alias.char_indices().skip(1).find(|(_, c)| *c == '@') {
            Some((at, _)) => (&alias[..at], &alias[at + 1..]),
            None => (alias, ""),
        },
        None => (key, range),
    };
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b));
    let is_name = match name.strip_prefix('@').map(|scoped| scoped.split_once('/')) {
        Some(Some((scope, name))) => part(scope) && part(name),
        Some(None) => false,
        None => part(name),
    };
    if !is_name || name.len() > MAX_NAME {
        return Err(());
    }
    let exact = range.trim_start_matches(['=', 'v']);
    let version = semver::Version::parse(exact).is_ok() && exact.len() <= MAX_NAME;
    Ok(Some((name.to_owned(), version.then(|| exact.to_owned()))))
}

/// Returns a text of a stranger as it is kept: cut, and without what an address may have in it that nobody else may see.
fn short(text: &str) -> String {
    let text = text.trim();
    // Only so much is looked at; an address that is cut in two might not be known for one any more.
    let looked_at = match text.char_indices().nth(4 * MAX_TEXT) {
        Some((end, _)) => text[..end].rsplit_once(char::is_whitespace).map_or("", |(whole, _)| whole),
        None => text,
    };
    let clean = without_credentials(looked_at);
    match clean.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None if looked_at.len() < text.len() => clean + "…",
        None => clean,
    }
}
