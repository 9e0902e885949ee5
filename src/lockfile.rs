//! What a project wants installed, and what exactly that is: `skills.json` and `skills.lock.json`.
//!
//! The form is that of the Agent Skills OCI artifacts specification (v0.1) and its tools. We add `contentDigest`, and leave
//! the dates out, so that the same skills make the same file. Of `skills.json`, which people write, fields that we do not
//! know stay where they are.

pub mod import;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::address::Address;
use crate::error::{Error, Result};
use crate::reference::{Reference, is_digest};
use crate::skills::check_name;

/// The file of what is wanted.
pub const INTENT: &str = "skills.json";
/// The file of what exactly that is.
pub const LOCK: &str = "skills.lock.json";
/// Where every skill of a project is, relative to the project's root; some agents look elsewhere, too.
pub const BASE: &str = ".agents/skills";

/// Least Jaro-Winkler similarity of two names of which one is meant for the other.
const ALIKE: f64 = 0.85;

/// Largest of either file, in bytes: 10,000 skills have some megabytes.
pub const MAX_FILE: u64 = 16 << 20;

/// The fields of a skill in `skills.json`.
const FIELDS: [&str; 5] = ["name", "source", "path", "version", "additionalBasePaths"];

/// The form of lock files that we read and write.
const LOCK_VERSION: u32 = 1;

/// `skills.json`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The skills, sorted by name when we write them.
    pub skills: Vec<Wanted>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// A skill that is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// The name of its directory.
    pub name: String,
    /// Its repository, with the registry and without a tag, or the URL of a Git repository.
    pub source: String,
    /// Its directory in a Git repository or an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A tag, or a digest; where it is not given, the newest published version. Of a Git repository a branch, tag or commit;
    /// where it is not given, the default branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Directories beside [`BASE`] that get a copy, for agents that do not look there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_base_paths: Vec<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// `skills.lock.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lock {
    lockfile_version: u32,
    /// RFC 3339; only where `SOURCE_DATE_EPOCH` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated_at: Option<String>,
    /// The skills, sorted by name.
    #[serde(default)]
    pub skills: Vec<Locked>,
}

/// A skill, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Locked {
    /// The name of its directory.
    pub name: String,
    /// Its directory, relative to the project's root.
    pub path: String,
    /// Its image.
    pub source: Source,
    /// What the image was built from, where that was done for the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// [`Listing::digest`](crate::layer::Listing::digest) of what the image unpacks to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_digest: Option<String>,
    /// Its other directories.
    #[serde(default, alias = "additionalInstalledPaths", skip_serializing_if = "Vec::is_empty")]
    pub additional_paths: Vec<String>,
}

/// From what a skill was built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// A Git repository, the index of a web site, or a path in the project; without credentials.
    pub source: String,
    /// The branch, tag or commit of a repository that was asked for.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The commit's whole hash, or the digest of an archive; empty for a directory.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// The skill's directory in it; empty for its root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// An image, by its parts and as one reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The registry's host; empty for an image of the store.
    #[serde(default)]
    pub registry: String,
    /// The repository on it.
    pub repository: String,
    /// The tag; empty where it was named by digest.
    #[serde(default)]
    pub tag: String,
    /// The manifest's digest.
    pub digest: String,
    /// All of it: `registry.example/acme/hr:1.0.0@sha256:…`.
    #[serde(rename = "ref")]
    pub reference: String,
}

impl Intent {
    /// Reads `skills.json`.
    ///
    /// # Errors
    /// In one line, what is wrong with it.
    pub fn parse(bytes: &[u8], object: &str) -> Result<Self> {
        let value: Value = serde_json::from_slice(bytes).map_err(|e| invalid(object, e))?;
        if !value.is_object() {
            return Err(invalid(object, "it is no JSON object with a list of skills"));
        }
        check_fields(&value, &["skills"]).map_err(|e| invalid(object, e))?;
        // First: a field that is missing may be there, misspelt.
        for (at, fields) in value["skills"].as_array().into_iter().flatten().enumerate() {
            let name = fields["name"].as_str().map_or_else(|| format!("skills[{at}]"), str::to_owned);
            check_fields(fields, &FIELDS).map_err(|e| invalid(object, format!("{name}: {e}")))?;
        }
        let intent: Self = serde_json::from_value(value).map_err(|e| invalid(object, e))?;
        let mut names = BTreeSet::new();
        for skill in &intent.skills {
            skill.check().map_err(|e| invalid(object, e))?;
            if !names.insert(&skill.name) {
                return Err(invalid(object, format!("{} is in it twice", skill.name)));
            }
        }
        Ok(intent)
    }

    /// Returns what is wanted under a name.
    pub fn get(&self, name: &str) -> Option<&Wanted> {
        self.skills.iter().find(|skill| skill.name == name)
    }

    /// Puts a skill in the place of the one of that name, or adds it.
    pub fn put(&mut self, skill: Wanted) {
        match self.skills.iter_mut().find(|own| own.name == skill.name) {
            Some(own) => *own = Wanted { rest: std::mem::take(&mut own.rest), ..skill },
            None => self.skills.push(skill),
        }
        self.skills.sort_by(|one, other| one.name.cmp(&other.name));
    }

    /// Returns it as it is written.
    pub fn to_json(&self) -> String {
        pretty(self)
    }
}

impl Wanted {
    /// Returns a skill that is wanted.
    pub fn new(name: &str, repository: &Reference, version: Option<&str>, paths: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            source: repository.repository().to_string(),
            path: None,
            version: version.map(str::to_owned),
            additional_base_paths: paths,
            rest: Map::new(),
        }
    }

    /// Returns a skill that is wanted from elsewhere than a registry.
    pub fn of(name: &str, origin: &Origin, paths: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            source: origin.source.clone(),
            path: (!origin.path.is_empty()).then(|| origin.path.clone()),
            version: origin.reference.clone(),
            additional_base_paths: paths,
            rest: Map::new(),
        }
    }

    /// Returns where it comes from, of a repository at the revision that is wanted; `None` for an image.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for an address that is refused.
    pub fn address(&self) -> Result<Option<Address>> {
        let refused = |reason: String| Err(Error::Unavailable { reason, hint: None });
        match Address::of(&self.source)? {
            None => Ok(None),
            Some(Address::Git(source)) => {
                let source = source.with_path(self.path.as_deref().unwrap_or_default())?;
                let source = match &self.version {
                    Some(version) => source.with_reference(version)?,
                    None => source,
                };
                Ok(Some(Address::Git(Box::new(source))))
            }
            Some(Address::Local(path)) if !path.starts_with("./") || path.split('/').any(|part| part == "..") => {
                refused(format!("{path:?} is no path in the project, such as ./skills/hr"))
            }
            other if self.version.is_none() => Ok(other),
            Some(other) => refused(format!("{other} has no versions")),
        }
    }

    fn check(&self) -> Result<()> {
        check_name(&self.name)?;
        if self.address()?.is_none() {
            self.repository()?;
        }
        for path in &self.additional_base_paths {
            check_path(path)?;
        }
        Ok(())
    }

    /// Returns its repository.
    ///
    /// # Errors
    /// [`Error::InvalidReference`]
    pub fn repository(&self) -> Result<Reference> {
        let reference: Reference = self.source.parse()?;
        if reference.tag().is_some() || reference.digest().is_some() {
            let reason = "a source has no tag and no digest: those are the version".to_owned();
            return Err(Error::InvalidReference { input: self.source.clone(), reason });
        }
        Ok(reference)
    }

    /// Returns its directories, the first of which is [`BASE`].
    pub fn bases(&self) -> Vec<&str> {
        let more = self.additional_base_paths.iter().map(String::as_str).filter(|path| *path != BASE);
        std::iter::once(BASE).chain(more).collect()
    }

    /// Returns the paths of the skill in all of them.
    pub fn paths(&self) -> impl Iterator<Item = String> {
        self.bases().into_iter().map(|base| format!("{base}/{}", self.name))
    }

    /// Returns whether a locked skill is one that is wanted.
    pub fn is(&self, locked: &Locked) -> bool {
        if let Some(origin) = &locked.origin {
            let own = Self::of(&locked.name, origin, Vec::new());
            return (&own.name, &own.source, &own.path, &own.version)
                == (&self.name, &self.source, &self.path, &self.version);
        }
        let version = match &self.version {
            None => true,
            Some(version) if is_digest(version) => *version == locked.source.digest,
            Some(version) => *version == locked.source.tag,
        };
        let own = locked.reference().is_ok_and(|own| Ok(own.repository()) == self.repository().map_err(drop));
        locked.name == self.name && own && version
    }
}

impl Default for Lock {
    fn default() -> Self {
        Self { lockfile_version: LOCK_VERSION, generated_at: None, skills: Vec::new() }
    }
}

impl Lock {
    /// Reads `skills.lock.json`.
    ///
    /// # Errors
    /// In one line, what is wrong with it.
    pub fn parse(bytes: &[u8], object: &str) -> Result<Self> {
        let lock: Self = serde_json::from_slice(bytes).map_err(|e| invalid(object, e))?;
        if lock.lockfile_version != LOCK_VERSION {
            let reason = format!("its lockfileVersion is {}, and {LOCK_VERSION} is known", lock.lockfile_version);
            return Err(invalid(object, reason));
        }
        for skill in &lock.skills {
            check_name(&skill.name).map_err(|e| invalid(object, e))?;
            skill.reference().map_err(|e| invalid(object, e))?;
            for path in skill.paths() {
                check_path(path).map_err(|e| invalid(object, e))?;
            }
        }
        Ok(lock)
    }

    /// Returns what is locked under a name.
    pub fn get(&self, name: &str) -> Option<&Locked> {
        self.skills.iter().find(|skill| skill.name == name)
    }

    /// Returns it as it is written.
    pub fn to_json(&self) -> String {
        pretty(self)
    }
}

impl Locked {
    /// Locks what a name stands for.
    pub fn new(wanted: &Wanted, reference: &Reference, digest: &str, content_digest: &str) -> Self {
        let name = reference.name();
        let (registry, repository) = match (reference.registry(), name.split_once('/')) {
            (Some(registry), Some((_, repository))) => (registry, repository),
            _ => ("", name),
        };
        let tag = reference.tag().unwrap_or_default();
        let with_tag = if tag.is_empty() { name.to_owned() } else { format!("{name}:{tag}") };
        let mut paths = wanted.paths();
        Self {
            name: wanted.name.clone(),
            path: paths.next().unwrap_or_default(),
            source: Source {
                registry: registry.to_owned(),
                repository: repository.to_owned(),
                tag: tag.to_owned(),
                digest: digest.to_owned(),
                reference: format!("{with_tag}@{digest}"),
            },
            origin: None,
            content_digest: Some(content_digest.to_owned()),
            additional_paths: paths.collect(),
        }
    }

    /// Returns the reference that the skill is known by: with its tag, or its digest where it has none.
    ///
    /// # Errors
    /// [`Error::InvalidReference`] where the parts make none.
    pub fn reference(&self) -> Result<Reference> {
        let Source { registry, repository, tag, digest, .. } = &self.source;
        let name = if registry.is_empty() { repository.clone() } else { format!("{registry}/{repository}") };
        let name: Reference = name.parse()?;
        let exact = name.with_digest(digest)?;
        if tag.is_empty() { Ok(exact) } else { name.with_tag(tag) }
    }

    /// Returns all of its directories.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.path.as_str()).chain(self.additional_paths.iter().map(String::as_str))
    }
}

/// Checks that a path stays in the project and out of its version control.
fn check_path(path: &str) -> Result<()> {
    let bad = |part: &str| matches!(part, "" | "." | ".." | ".git") || part.contains(['\0', '\\']);
    match path.split('/').any(bad) {
        true => {
            Err(Error::Unavailable { reason: format!("{path:?} is no directory of a project's skills"), hint: None })
        }
        false => Ok(()),
    }
}

/// Checks that no field is a misspelt one of those that are known: what it says would be passed over.
fn check_fields(value: &Value, known: &[&str]) -> std::result::Result<(), String> {
    for field in value.as_object().into_iter().flat_map(Map::keys).filter(|field| !known.contains(&field.as_str())) {
        let folded = field.to_ascii_lowercase();
        let meant = known.iter().find(|known| strsim::jaro_winkler(&folded, &known.to_ascii_lowercase()) > ALIKE);
        if let Some(meant) = meant {
            return Err(format!("{field:?} is no field: is {meant:?} meant?"));
        }
    }
    Ok(())
}

fn invalid(object: &str, reason: impl ToString) -> Error {
    Error::Unavailable { reason: format!("{object}: {}", reason.to_string()), hint: None }
}

fn pretty(value: &impl Serialize) -> String {
    // Texts, numbers and lists: nothing in it can fail to serialise.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    fn wanted(version: Option<&str>) -> Wanted {
        Wanted::new("hr", &"registry.example/acme/hr".parse().unwrap(), version, vec![".claude/skills".into()])
    }

    #[test]
    fn the_lock_has_the_form_of_the_specification() {
        let reference = "registry.example/acme/hr:1.0.0".parse().unwrap();
        let lock = Lock { skills: vec![Locked::new(&wanted(None), &reference, DIGEST, DIGEST)], ..Lock::default() };
        let want = json!({
            "lockfileVersion": 1,
            "skills": [{
                "name": "hr",
                "path": ".agents/skills/hr",
                "source": {
                    "registry": "registry.example", "repository": "acme/hr", "tag": "1.0.0", "digest": DIGEST,
                    "ref": format!("registry.example/acme/hr:1.0.0@{DIGEST}"),
                },
                "contentDigest": DIGEST,
                "additionalPaths": [".claude/skills/hr"],
            }],
        });
        assert_eq!(serde_json::from_str::<Value>(&lock.to_json()).unwrap(), want);
        assert_eq!(Lock::parse(lock.to_json().as_bytes(), LOCK).unwrap(), lock);
        // Another tool's, with its dates and its name for the other paths.
        let mut other = want;
        other["generatedAt"] = json!("2026-01-01T00:00:00Z");
        other["skills"][0]["installedAt"] = json!("2026-01-01T00:00:00Z");
        let paths = other["skills"][0].as_object_mut().unwrap().remove("additionalPaths").unwrap();
        other["skills"][0]["additionalInstalledPaths"] = paths;
        assert_eq!(Lock::parse(other.to_string().as_bytes(), LOCK).unwrap().skills, lock.skills);
    }

    #[test]
    fn a_locked_skill_is_what_is_wanted_by_source_and_version() {
        let locked = |text: &str| Locked::new(&wanted(None), &text.parse().unwrap(), DIGEST, DIGEST);
        let cases = [
            (None, "registry.example/acme/hr:1.0.0", true),
            (Some("1.0.0"), "registry.example/acme/hr:1.0.0", true),
            (Some("1.1.0"), "registry.example/acme/hr:1.0.0", false),
            (Some(DIGEST), "registry.example/acme/hr:1.0.0", true),
            (None, "registry.example/acme/legal:1.0.0", false),
            (None, "acme/hr:1.0.0", false),
        ];
        for (version, reference, want) in cases {
            assert_eq!(wanted(version).is(&locked(reference)), want, "{version:?} {reference}");
        }
    }

    #[test]
    fn what_is_not_known_stays() {
        let text = json!({"$schema": "x", "skills": [{"name": "hr", "source": "registry.example/acme/hr", "note": 1}]});
        let mut intent = Intent::parse(text.to_string().as_bytes(), INTENT).unwrap();
        intent.put(wanted(Some("2.0.0")));
        intent.put(Wanted { name: "a".into(), ..wanted(None) });
        let written: Value = serde_json::from_str(&intent.to_json()).unwrap();
        assert_eq!((&written["$schema"], &written["skills"][1]["note"]), (&json!("x"), &json!(1)));
        assert_eq!((&written["skills"][0]["name"], &written["skills"][1]["version"]), (&json!("a"), &json!("2.0.0")));
    }

    #[test]
    fn bad_files_are_named_with_what_is_wrong() {
        let skill = |name: &str, source: &str, path: &str| {
            json!({"skills": [{"name": name, "source": source, "additionalBasePaths": [path]}]}).to_string()
        };
        let good = "registry.example/acme/hr";
        let twice = json!({"skills": [{"name": "hr", "source": good}, {"name": "hr", "source": good}]}).to_string();
        let cases = [
            (skill("../x", good, "a"), "\"../x\" cannot be the name"),
            (skill("hr", "registry.example/acme/hr:1", "a"), "a source has no tag"),
            (skill("hr", good, "../a"), "\"../a\" is no directory of a project's skills"),
            (skill("hr", good, "/etc"), "\"/etc\" is no directory of a project's skills"),
            (skill("hr", good, ".git/hooks"), "\".git/hooks\" is no directory"),
            (twice, "hr is in it twice"),
            ("{\"skills\": 1}".into(), "invalid type"),
            ("{}".into(), "missing field `skills`"),
            ("[]".into(), "it is no JSON object"),
            (
                json!({"skills": [{"name": "hr", "sorce": good}]}).to_string(),
                "hr: \"sorce\" is no field: is \"source\" meant?",
            ),
            (json!({"skills": [{"nmae": "hr", "source": good}]}).to_string(), "skills[0]: \"nmae\" is no field"),
            ("{\"skils\": []}".into(), "\"skils\" is no field: is \"skills\" meant?"),
            (json!({"skills": [{"name": "hr", "source": good, "verison": "1"}]}).to_string(), "is \"version\" meant?"),
            (
                json!({"skills": [{"name": "hr", "source": good, "additionalBasePath": []}]}).to_string(),
                "hr: \"additionalBasePath\" is no field: is \"additionalBasePaths\" meant?",
            ),
        ];
        for (text, why) in cases {
            let error = Intent::parse(text.as_bytes(), INTENT).unwrap_err().to_string();
            assert!(error.starts_with("skills.json: ") && error.contains(why), "{error}");
        }
        let error = Lock::parse(br#"{"lockfileVersion": 3, "skills": []}"#, LOCK).unwrap_err().to_string();
        assert_eq!(error, "skills.lock.json: its lockfileVersion is 3, and 1 is known");
    }
}
