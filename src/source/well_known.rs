//! Skills that a web site offers: the discovery index of `cloudflare/agent-skills-discovery-rfc`.
//!
//! | version | index | entries |
//! |---|---|---|
//! | 0.2 | `/.well-known/agent-skills/index.json` | `type` `skill-md` or `archive`, `url` and `digest` |
//! | 0.1 | `/.well-known/skills/index.json` | `files`, below the directory of the skill's name |
//!
//! Of 0.2 every byte is verified before anything is looked at; 0.1 has no digests. An index of an unknown version is not read.

use std::collections::HashSet;
use std::fs::File;

use serde::Deserialize;

use super::archive::{self, Options};
use crate::card::is_name;
use crate::error::{Error, Fault, Result};
use crate::frontmatter::FILE as SKILL_FILE;
use crate::git_url::check_path;
use crate::layer::Tree;
use crate::limits::Limits;
use crate::reference::is_digest;
use crate::store::blob::sha256;
use crate::store::web::{Web, host, resolve};
use crate::strict;

/// What the version that we know says it is.
const SCHEMA: &str = "https://schemas.agentskills.io/discovery/0.2.0/schema.json";
/// Where the indexes are, the newer first.
const PLACES: [&str; 2] = ["/.well-known/agent-skills/", "/.well-known/skills/"];
const INDEX: &str = "index.json";
/// Largest index: 10,000 skills with descriptions of 400 bytes.
const MAX_INDEX: usize = 4 << 20;
const MAX_ENTRIES: usize = 10_000;
/// Largest `SKILL.md`, and largest file of version 0.1. Instructions have some kilobytes.
const MAX_FILE: usize = 4 << 20;
/// Files of a skill of version 0.1, each of which is a request.
const MAX_FILES: usize = 500;
/// Largest archive. It is verified in memory; what is larger belongs into a registry.
const MAX_ARCHIVE: usize = 64 << 20;

/// The skills of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its address.
    pub url: String,
    /// In its order.
    pub entries: Vec<Entry>,
}

/// A skill of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it does, in anybody's words.
    pub description: String,
    /// Where it is.
    pub content: Content,
}

/// Where a skill is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One file, `SKILL.md`.
    SkillMd {
        /// Its address.
        url: String,
        /// The digest of its bytes, `sha256:…`.
        digest: String,
    },
    /// An archive with `SKILL.md` at its root.
    Archive {
        /// Its address.
        url: String,
        /// The digest of its bytes, `sha256:…`.
        digest: String,
    },
    /// Single files without digests (version 0.1): paths and addresses.
    Files(Vec<(String, String)>),
    /// Of a type that this version does not know.
    Unknown(String),
}

/// A skill that was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// Its files.
    pub tree: Tree,
    /// Where it came from: the archive, the file, or the index that lists the files.
    pub url: String,
    /// The digest of what came from there, `sha256:…`, where there is one.
    pub digest: Option<String>,
}

/// Returns the addresses at which the index of a site may be, the best first; `None` where `text` is no address of the web.
///
/// An address that has `/.well-known/` in it is taken as it is meant; any other is the site whose index is wanted.
pub fn candidates(text: &str) -> Option<Vec<String>> {
    let url = text.split(['?', '#']).next().unwrap_or_default();
    host(url)?;
    let known = PLACES.iter().find_map(|place| {
        let place = place.trim_end_matches('/');
        url.split_once(place)
            .filter(|(_, rest)| matches!(*rest, "" | "/" | "/index.json"))
            .map(|(site, _)| (site, place))
    });
    Some(match known {
        Some((site, place)) => vec![format!("{site}{place}/{INDEX}")],
        None => PLACES.iter().map(|place| format!("{}{place}{INDEX}", url.trim_end_matches('/'))).collect(),
    })
}

/// Returns whether an address names an index by itself.
pub fn is_index(text: &str) -> bool {
    candidates(text).is_some_and(|found| found.len() == 1)
}

/// Fetches and reads the index of a site.
///
/// # Errors
/// [`Error::Registry`] where the site does not answer, or what it has is no index that we know; [`Error::Unavailable`] where
/// there is none.
pub fn index(web: &Web, site: &str) -> Result<Index> {
    let addresses = candidates(site).unwrap_or_default();
    for address in &addresses {
        if let Some(bytes) = web.get(address, MAX_INDEX)? {
            return parse(&bytes, address);
        }
    }
    let hint = addresses.first().map(|address| format!("{address} is where a site lists its skills"));
    let shown = host(site).unwrap_or_else(|| "this address".into());
    Err(Error::Unavailable { reason: format!("{shown} has no index of skills"), hint })
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "$schema")]
    schema: Option<String>,
    skills: Vec<RawEntry>,
}

#[derive(Deserialize)]
struct RawEntry {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    url: Option<String>,
    digest: Option<String>,
    files: Option<Vec<String>>,
}

/// Reads an index that was found at `url`.
///
/// # Errors
/// [`Error::Registry`] that says what is wrong with it.
pub fn parse(bytes: &[u8], url: &str) -> Result<Index> {
    let bad = |reason: String| wrong(url, format!("the index of skills: {reason}"));
    strict::check(bytes).map_err(&bad)?;
    // A struct would also be read from an array.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad("it is no JSON object".into()));
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    match raw.schema.as_deref() {
        None | Some(SCHEMA) => {}
        Some(other) => return Err(bad(format!("its $schema is {other:?}, and {SCHEMA:?} is known"))),
    }
    if raw.skills.len() > MAX_ENTRIES {
        return Err(bad(format!("it has more than {MAX_ENTRIES} skills")));
    }
    let versioned = raw.schema.is_some();
    let mut seen = HashSet::new();
    let mut entries = Vec::with_capacity(raw.skills.len());
    for entry in raw.skills {
        let name = entry.name.clone();
        if !is_name(&name) {
            return Err(bad(format!("{name:?} cannot be the name of a skill")));
        }
        if !seen.insert(name.clone()) {
            return Err(bad(format!("{name} is in it twice")));
        }
        entries.push(read(entry, url, versioned).map_err(|reason| bad(format!("{name}: {reason}")))?);
    }
    Ok(Index { url: url.to_owned(), entries })
}

fn read(raw: RawEntry, index: &str, versioned: bool) -> Result<Entry, String> {
    let content = match raw.files {
        Some(files) if !versioned => Content::Files(file_addresses(&raw.name, files, index)?),
        _ if !versioned => return Err("it has no files, and the index has no $schema".into()),
        _ => {
            let kind = raw.kind.ok_or("it has no type")?;
            let url = raw.url.ok_or("it has no url")?;
            let url = resolve(index, &url).ok_or("its url is none that can be used: https, and no user")?;
            let digest = raw.digest.filter(|digest| is_digest(digest)).ok_or("it has no digest sha256:…")?;
            match kind.as_str() {
                "skill-md" => Content::SkillMd { url, digest },
                "archive" => Content::Archive { url, digest },
                _ => Content::Unknown(kind),
            }
        }
    };
    Ok(Entry { name: raw.name, description: raw.description, content })
}

fn file_addresses(name: &str, files: Vec<String>, index: &str) -> Result<Vec<(String, String)>, String> {
    if files.len() > MAX_FILES {
        return Err(format!("it has more than {MAX_FILES} files"));
    }
    if !files.iter().any(|file| file == SKILL_FILE) {
        return Err(format!("it has no {SKILL_FILE}"));
    }
    let address = |file: String| {
        if file.is_empty() || check_path(&file).is_err() {
            return Err(format!("{file:?} is no path of a file in a skill"));
        }
        // What would end the path of an address, or be read as more than one character.
        let encoded: String = file
            .bytes()
            .map(|b| {
                if b.is_ascii_alphanumeric() || b"-._~/".contains(&b) {
                    char::from(b).to_string()
                } else {
                    format!("%{b:02X}")
                }
            })
            .collect();
        let url = resolve(index, &format!("{name}/{encoded}")).ok_or("it has a file without an address")?;
        Ok((file, url))
    };
    files.into_iter().map(address).collect()
}

/// Fetches a skill into `contents`: an empty file that nobody else has.
///
/// # Errors
/// [`Error::Registry`] where the site does not answer, or what it sends has another digest; [`Error::RefusedEntry`] and
/// [`Error::LimitExceeded`] as for any archive.
pub fn fetch(web: &Web, index: &Index, entry: &Entry, contents: File, limits: Limits) -> Result<Fetched> {
    match &entry.content {
        Content::SkillMd { url, digest } => {
            let bytes = verified(web, (url, digest), MAX_FILE)?;
            let mut tree = Tree::new(contents, limits);
            tree.add_file(SKILL_FILE, false, (&mut bytes.as_slice(), bytes.len() as u64))?;
            Ok(Fetched { tree, url: url.clone(), digest: Some(digest.clone()) })
        }
        Content::Archive { url, digest } => {
            let bytes = verified(web, (url, digest), MAX_ARCHIVE)?;
            let options = Options { digest: Some(digest.clone()), limits, cancel: web.cancel().clone() };
            let read = archive::read_bytes(url, (bytes.as_slice(), bytes.len() as u64), contents, &options)?;
            Ok(Fetched { tree: read.tree, url: url.clone(), digest: Some(digest.clone()) })
        }
        Content::Files(files) => {
            let mut tree = Tree::new(contents, limits);
            for (path, url) in files {
                let bytes = found(url, web.get(url, MAX_FILE)?)?;
                tree.add_file(path, false, (&mut bytes.as_slice(), bytes.len() as u64))?;
            }
            Ok(Fetched { tree, url: index.url.clone(), digest: None })
        }
        Content::Unknown(kind) => {
            Err(wrong(&index.url, format!("{} is of the type {kind:?}, which is not known", entry.name)))
        }
    }
}

fn verified(web: &Web, (url, digest): (&str, &str), limit: usize) -> Result<Vec<u8>> {
    let bytes = found(url, web.get(url, limit)?)?;
    match sha256(&bytes) {
        own if own == digest => Ok(bytes),
        own => Err(wrong(url, format!("{url} has the digest {own}, and the index says {digest}"))),
    }
}

fn found(url: &str, bytes: Option<Vec<u8>>) -> Result<Vec<u8>> {
    bytes.ok_or_else(|| Error::Registry {
        registry: host(url).unwrap_or_default(),
        fault: Fault::NotFound,
        reason: format!("{url}: not found"),
        hint: None,
    })
}

fn wrong(url: &str, reason: String) -> Error {
    Error::Registry { registry: host(url).unwrap_or_default(), fault: Fault::Protocol, reason, hint: None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const URL: &str = "https://h.example/.well-known/agent-skills/index.json";

    fn digest() -> String {
        format!("sha256:{}", "0".repeat(64))
    }

    fn entry(changes: Value) -> Value {
        let mut entry =
            json!({"name": "hr", "type": "archive", "description": "d", "url": "hr.zip", "digest": digest()});
        for (key, value) in changes.as_object().unwrap() {
            entry[key] = value.clone();
        }
        json!({"$schema": SCHEMA, "skills": [entry]})
    }

    #[test]
    fn indexes_are_read() {
        let index = parse(entry(json!({})).to_string().as_bytes(), URL).unwrap();
        let url = "https://h.example/.well-known/agent-skills/hr.zip".to_owned();
        let content = Content::Archive { url: url.clone(), digest: digest() };
        assert_eq!(index.entries, [Entry { name: "hr".into(), description: "d".into(), content }]);
        let one =
            |changes: Value| parse(entry(changes).to_string().as_bytes(), URL).unwrap().entries[0].content.clone();
        assert_eq!(one(json!({"type": "skill-md"})), Content::SkillMd { url, digest: digest() });
        assert_eq!(one(json!({"type": "plugin"})), Content::Unknown("plugin".into()));
        let old = json!({"skills": [{"name": "hr", "files": ["SKILL.md", "a/b c.md"]}]}).to_string();
        let files = [("SKILL.md", "SKILL.md"), ("a/b c.md", "a/b%20c.md")];
        let files =
            files.map(|(file, at)| (file.into(), format!("https://h.example/.well-known/agent-skills/hr/{at}")));
        assert_eq!(parse(old.as_bytes(), URL).unwrap().entries[0].content, Content::Files(files.into()));
    }

    #[test]
    fn what_is_wrong_with_an_index_is_told() {
        let twice =
            json!({"$schema": SCHEMA, "skills": [entry(json!({}))["skills"][0], entry(json!({}))["skills"][0]]});
        let old = |entry: Value| json!({"skills": [entry]}).to_string();
        let cases = [
            ("<html>".to_owned(), "expected value"),
            ("[]".into(), "it is no JSON object"),
            (r#"{"skills": [], "skills": []}"#.into(), "the key \"skills\" is there twice"),
            (
                r#"{"$schema": "https://x/9.json", "skills": []}"#.into(),
                "its $schema is \"https://x/9.json\", and \"https://schemas",
            ),
            (entry(json!({"name": "../x"})).to_string(), "\"../x\" cannot be the name of a skill"),
            (entry(json!({"name": "HR"})).to_string(), "\"HR\" cannot be the name of a skill"),
            (twice.to_string(), "hr is in it twice"),
            (entry(json!({"digest": "sha256:00"})).to_string(), "hr: it has no digest sha256:…"),
            (entry(json!({"digest": "md5:00"})).to_string(), "hr: it has no digest sha256:…"),
            (entry(json!({"digest": null})).to_string(), "hr: it has no digest sha256:…"),
            (entry(json!({"type": null})).to_string(), "hr: it has no type"),
            (entry(json!({"url": null})).to_string(), "hr: it has no url"),
            (entry(json!({"url": "http://h.example/x"})).to_string(), "hr: its url is none that can be used"),
            (entry(json!({"url": "file:///etc/passwd"})).to_string(), "hr: its url is none that can be used"),
            (old(json!({"name": "hr", "url": "x"})), "hr: it has no files, and the index has no $schema"),
            (old(json!({"name": "hr", "files": ["a.md"]})), "hr: it has no SKILL.md"),
            (old(json!({"name": "hr", "files": ["SKILL.md", "../x"]})), "hr: \"../x\" is no path of a file in a skill"),
            (old(json!({"name": "hr", "files": ["SKILL.md", ""]})), "hr: \"\" is no path of a file in a skill"),
        ];
        for (text, want) in cases {
            let error = parse(text.as_bytes(), URL).unwrap_err().to_string();
            assert!(error.starts_with("h.example: the index of skills: ") && error.contains(want), "{want}: {error}");
        }
    }

    #[test]
    fn sites_have_their_indexes_in_two_places() {
        let new = "https://h.example/.well-known/agent-skills/index.json";
        let old = "https://h.example/.well-known/skills/index.json";
        let cases: [(&str, Option<&[&str]>); 9] = [
            ("https://h.example", Some(&[new, old])),
            ("https://h.example/", Some(&[new, old])),
            (new, Some(&[new])),
            ("https://h.example/.well-known/agent-skills", Some(&[new])),
            ("https://h.example/.well-known/agent-skills/?x", Some(&[new])),
            (old, Some(&[old])),
            ("https://u:p@h.example/", None),
            ("h.example", None),
            ("ssh://h.example", None),
        ];
        for (text, want) in cases {
            let want = want.map(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(candidates(text), want, "{text}");
            assert_eq!(is_index(text), want.is_some_and(|found| found.len() == 1));
        }
    }
}
