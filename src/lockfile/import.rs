//! The lock files of other tools: `npx skills` and `gh skill` (JSON, versions 1 and 3), and ToolHive (YAML).

use serde_json::Value;

use crate::error::{Error, Result};
use crate::git_url::GitSource;
use crate::reference::{Reference, is_digest};
use crate::yaml::{self, Node};

/// A skill of another tool's lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The name of its directory.
    pub name: String,
    /// Where it comes from.
    pub from: From,
}

/// Where a skill comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// An image, by tag where it has one, and its digest.
    Image(Reference, String),
    /// A directory of a Git repository: `URL#REF:DIRECTORY`.
    Git(String),
    /// Something else, in words.
    Other(String),
}

/// Reads a lock file of another tool.
///
/// # Errors
/// In one line, where it is none that is known.
pub fn read(bytes: &[u8], object: &str) -> Result<Vec<Imported>> {
    let unknown = |reason: String| Error::Unavailable {
        reason: format!("{object}: {reason}"),
        hint: Some("known are the lock files of npx skills and gh skill (versions 1 and 3) and of ToolHive".into()),
    };
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => npx(&value).map_err(unknown),
        Err(_) => toolhive(bytes).map_err(unknown),
    }
}

fn npx(value: &Value) -> std::result::Result<Vec<Imported>, String> {
    match value["version"].as_u64() {
        Some(1 | 3) => {}
        Some(version) => return Err(format!("its version is {version}")),
        None => return Err("it has no version".into()),
    }
    let skills = value["skills"].as_object().ok_or("it has no skills")?;
    let mut imported: Vec<Imported> = skills.iter().map(|(name, skill)| from_npx(name, skill)).collect();
    imported.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(imported)
}

fn from_npx(name: &str, skill: &Value) -> Imported {
    let text = |key: &str| skill[key].as_str().filter(|text| !text.is_empty());
    let source = text("sourceUrl").or(text("source")).unwrap_or("nowhere that it names");
    let at = text("ref").or(text("pinnedRef")).map(|at| format!(" at {at}")).unwrap_or_default();
    let path = text("skillPath").map(|path| format!(", {path}")).unwrap_or_default();
    let kind = text("sourceType").unwrap_or("source");
    // Tools that write the same file for images have the digest of one.
    let digest = text("digest").filter(|digest| is_digest(digest));
    let from = match (digest, text("source").and_then(|source| source.parse::<Reference>().ok())) {
        (Some(digest), Some(reference)) if reference.registry().is_some() => From::Image(reference, digest.to_owned()),
        _ => repository(kind, source, text("ref").or(text("pinnedRef")), text("skillPath"))
            .unwrap_or_else(|| From::Other(format!("{kind} {source}{at}{path}"))),
    };
    Imported { name: name.to_owned(), from }
}

/// Returns the repository of a skill, where it comes from one.
fn repository(kind: &str, source: &str, at: Option<&str>, path: Option<&str>) -> Option<From> {
    let url = match kind {
        "github" if !source.contains(':') => format!("https://github.com/{source}"),
        "gitlab" if !source.contains(':') => format!("https://gitlab.com/{source}"),
        "github" | "gitlab" | "git" => source.to_owned(),
        _ => return None,
    };
    let git = GitSource::parse(&url)?.ok()?;
    let git = match at {
        Some(at) => git.with_reference(at).ok()?,
        None => git,
    };
    let directory = path.unwrap_or_default();
    let directory = directory.strip_suffix("SKILL.md").unwrap_or(directory).trim_end_matches('/');
    Some(From::Git(git.with_path(directory).ok()?.to_string()))
}

fn toolhive(bytes: &[u8]) -> std::result::Result<Vec<Imported>, String> {
    let document = yaml::parse(bytes, bytes.len()).map_err(|e| e.to_string())?;
    match document.root.as_ref().and_then(|root| root.get("skills")).map(|skills| &skills.value) {
        Some(yaml::Value::Sequence(skills)) => skills.iter().map(from_toolhive).collect(),
        _ => Err("it has no skills".into()),
    }
}

fn from_toolhive(skill: &Node) -> std::result::Result<Imported, String> {
    let text = |key: &str| skill.get(key).and_then(Node::text).filter(|text| !text.is_empty());
    let name = text("name").ok_or("a skill has no name")?.to_owned();
    let source = text("resolvedReference").or(text("source")).unwrap_or("nowhere that it names");
    let digest = text("digest").filter(|digest| is_digest(digest));
    let from = match (digest, source.parse::<Reference>()) {
        (Some(digest), Ok(reference)) if reference.registry().is_some() => {
            // What was resolved may have the digest, too.
            let tagged = reference.tag().map_or_else(|| Ok(reference.repository()), |tag| reference.with_tag(tag));
            From::Image(tagged.map_err(|e| e.to_string())?, digest.to_owned())
        }
        _ => From::Other(source.to_owned()),
    };
    Ok(Imported { name, from })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

    fn imported(text: &str) -> Vec<(String, Result<String, String>)> {
        let read = read(text.as_bytes(), "lock").expect("a lock file");
        let from = |from: From| match from {
            From::Image(reference, digest) => Ok(format!("{reference} {digest}")),
            From::Git(text) | From::Other(text) => Err(text),
        };
        read.into_iter().map(|one| (one.name, from(one.from))).collect()
    }

    #[test]
    fn lock_files_of_other_tools_are_read() {
        let v1 = r#"{"version": 1, "skills": {"b": {"source": "acme/skills", "ref": "v2", "sourceType": "github",
            "computedHash": "0a"}, "a": {"source": "https://git.example/x.git", "sourceType": "git", "computedHash": "0b"}}}"#;
        let git = |text: &str| Err(text.to_owned());
        assert_eq!(
            imported(v1),
            [
                ("a".into(), git("https://git.example/x.git")),
                ("b".into(), git("https://github.com/acme/skills.git#v2"))
            ]
        );
        let v3 = format!(
            r#"{{"version": 3, "skills": {{"hr": {{"source": "acme/skills", "sourceType": "github",
            "sourceUrl": "https://github.example/acme/skills", "skillPath": "skills/hr/SKILL.md", "skillFolderHash": "0c"}},
            "oci": {{"source": "registry.example/acme/oci:1.0.0", "sourceType": "oci", "digest": "{DIGEST}"}}}}}}"#
        );
        let from = "https://github.example/acme/skills#:skills/hr";
        let image = Ok(format!("registry.example/acme/oci:1.0.0 {DIGEST}"));
        assert_eq!(imported(&v3), [("hr".into(), git(from)), ("oci".into(), image)]);
        let toolhive = format!(
            "version: 1\nskills:\n  - name: hr\n    version: 1.0.0\n    source: registry.example/acme/hr\n    \
             resolvedReference: registry.example/acme/hr:1.0.0@{DIGEST}\n    digest: {DIGEST}\n    contentDigest: sha256:00\n  \
             - name: legal\n    source: git://git.example/acme/legal\n    digest: 0123456789012345678901234567890123456789\n"
        );
        let image = Ok(format!("registry.example/acme/hr:1.0.0 {DIGEST}"));
        assert_eq!(imported(&toolhive), [("hr".into(), image), ("legal".into(), git("git://git.example/acme/legal"))]);
    }

    #[test]
    fn what_is_no_lock_file_is_said_so() {
        for (text, why) in [
            ("{}", "lock: it has no version"),
            (r#"{"version": 2, "skills": {}}"#, "lock: its version is 2"),
            (r#"{"version": 1}"#, "lock: it has no skills"),
            ("a: b\n", "lock: it has no skills"),
            ("skills:\n  - version: 1\n", "lock: a skill has no name"),
        ] {
            assert_eq!(read(text.as_bytes(), "lock").expect_err(text).to_string(), why);
        }
    }
}
