//! The skill card: `skill.yaml` as the Go tool defines it, read, written, and derived where there is none.

use serde::{Deserialize, Serialize};

use crate::{finding::Finding, frontmatter::FrontMatter, yaml::Node};

pub(crate) mod emit;
mod read;
mod schema;

pub use schema::{Violation, is_name};

/// The file's name.
pub const FILE: &str = "skill.yaml";

/// Largest card. The largest public ones have a few kilobytes; one that fills this with examples still parses in
/// milliseconds.
pub const MAX_CARD: usize = 256 << 10;

/// `apiVersion` of the cards that the Go tool reads and that we write.
pub const V1ALPHA1: &str = "skillimage.io/v1alpha1";

/// `apiVersion` of cards beside a `SKILL.md` that is authoritative.
pub const V1ALPHA2: &str = "skillimage.io/v1alpha2";

/// Namespace of a skill that names none and comes from a local directory.
pub const LOCAL_NAMESPACE: &str = "local";

/// Version of a skill that names none.
pub const DEFAULT_VERSION: &str = "0.1.0";

/// A skill card. Empty texts are absent ones, as in the Go tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Card {
    /// [`V1ALPHA1`] or [`V1ALPHA2`], when valid.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// `SkillCard`, when valid.
    pub kind: String,
    /// What the skill is.
    pub metadata: Metadata,
    /// Where it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// What it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<Spec>,
    /// What only v1alpha2 can say.
    #[serde(skip)]
    pub catalog: Catalog,
}

/// `metadata`, in the order in which it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Metadata {
    /// Last component of the image's name.
    pub name: String,
    /// Name for people; `title` in v1alpha2.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// What comes before the name in the image's name.
    pub namespace: String,
    /// SemVer.
    pub version: String,
    /// What the skill does and when to use it.
    pub description: String,
    /// SPDX expression or bundled file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub license: String,
    /// What the skill needs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub compatibility: String,
    /// Words to find it by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Who wrote it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authors: Vec<Author>,
    /// Tools that it may use without asking, separated by spaces.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub allowed_tools: String,
}

/// One of `metadata.authors`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Author {
    /// Name.
    pub name: String,
    /// Address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
}

/// `provenance`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Reference or URL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Digest or Git commit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// Path in the source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// `spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// File with the instructions.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// Examples of use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
    /// Skills that it needs; nothing reads them yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
}

/// One of `spec.examples`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Example {
    /// What is said to the agent.
    pub input: String,
    /// What it answers.
    pub output: String,
}

/// One of `spec.dependencies`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// Name of the skill.
    pub name: String,
    /// Version of the skill.
    pub version: String,
}

/// What a v1alpha2 card says beyond v1alpha1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Who distributes it.
    pub vendor: String,
    /// Home page.
    pub url: String,
    /// Documentation.
    pub documentation: String,
    /// Where to ask.
    pub support: String,
    /// What changed.
    pub changelog: String,
    /// Annotations that the manifest gets as they are, in the order of the file.
    pub annotations: Vec<(String, String)>,
}

/// What is known of a skill besides its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Name of the skill's directory; empty when it has none that says anything.
    pub dir_name: &'a str,
    /// Namespace when the skill names none, such as the owner of a Git repository; else [`LOCAL_NAMESPACE`].
    pub namespace: Option<&'a str>,
    /// Version when the skill names none; else [`DEFAULT_VERSION`].
    pub version: Option<&'a str>,
    /// Author when the skill names none.
    pub author: Option<&'a str>,
    /// Where it comes from.
    pub provenance: Option<Provenance>,
}

/// What [`read`] made of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The card, as far as it can be understood.
    pub card: Option<Card>,
    /// The tree that it was read from, for positions.
    pub root: Option<Node>,
    /// What is wrong with the form; the values are for [`Card::violations`].
    pub findings: Vec<Finding>,
}

/// Reads `skill.yaml` as far as possible, and says what is wrong with its form.
pub fn read(bytes: &[u8]) -> Read {
    read::read(bytes)
}

impl Default for Card {
    fn default() -> Self {
        Self {
            api_version: V1ALPHA1.into(),
            kind: "SkillCard".into(),
            metadata: Metadata::default(),
            provenance: None,
            spec: None,
            catalog: Catalog::default(),
        }
    }
}

impl Card {
    /// Reads a card, as strictly as the Go tool: unknown fields are errors, values are not looked at.
    ///
    /// # Errors
    /// All that is wrong with the form.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<Finding>> {
        let read = read(bytes);
        match read.card {
            Some(card) if read.findings.is_empty() => Ok(card),
            _ => Err(read.findings),
        }
    }

    /// Returns whether `SKILL.md` is authoritative for name, description and the like.
    pub fn is_v1alpha2(&self) -> bool {
        self.api_version == V1ALPHA2
    }

    /// Returns `skill.yaml`, in the Go tool's order of fields.
    pub fn to_yaml(&self) -> String {
        emit::yaml(&self.to_value())
    }

    /// Returns what the JSON Schema and SemVer object to, in a stable order.
    pub fn violations(&self) -> Vec<Violation> {
        schema::violations(self)
    }

    /// Returns the card of a skill without `skill.yaml`.
    pub fn derive(front: &FrontMatter, origin: &Origin<'_>) -> Self {
        let mut card = Self {
            provenance: origin.provenance.clone(),
            spec: Some(Spec { prompt: crate::frontmatter::FILE.into(), ..Spec::default() }),
            ..Self::default()
        };
        card.complete(front, origin);
        card.metadata.version = match front.metadata("version").map(|text| text.value.trim()) {
            None | Some("") => origin.version.unwrap_or(DEFAULT_VERSION).into(),
            Some(version) => three_parts(version),
        };
        let author = front.metadata("author").map(|text| text.value.trim()).or(origin.author).unwrap_or_default();
        if !author.is_empty() {
            card.metadata.authors = vec![Author { name: author.into(), email: String::new() }];
        }
        card
    }

    /// Takes from `SKILL.md` what it is authoritative for.
    pub fn complete(&mut self, front: &FrontMatter, origin: &Origin<'_>) {
        let text = |field: &Option<crate::frontmatter::Text>| {
            field.as_ref().map(|text| text.value.trim().to_owned()).unwrap_or_default()
        };
        let metadata = &mut self.metadata;
        (metadata.name, metadata.namespace) = identity(front, origin);
        metadata.description = text(&front.description);
        metadata.license = text(&front.license);
        metadata.compatibility = text(&front.compatibility);
        metadata.allowed_tools = text(&front.allowed_tools);
    }

    /// Returns the card as JSON, in the order and with the keys of the file.
    fn to_value(&self) -> serde_json::Value {
        if self.is_v1alpha2() {
            return self.to_v1alpha2();
        }
        // Structs of strings and lists: nothing in them can fail to serialise.
        serde_json::to_value(self).unwrap_or_default()
    }

    fn to_v1alpha2(&self) -> serde_json::Value {
        let (metadata, catalog) = (&self.metadata, &self.catalog);
        let mut fields = serde_json::Map::new();
        let mut put = |key: &str, value: serde_json::Value| fields.insert(key.into(), value);
        let texts = |put: &mut dyn FnMut(&str, serde_json::Value) -> Option<serde_json::Value>,
                     all: &[(&str, &str)]| {
            for (key, text) in all.iter().filter(|(_, text)| !text.is_empty()) {
                put(key, (*text).into());
            }
        };
        put("version", metadata.version.as_str().into());
        texts(&mut put, &[("title", &metadata.display_name), ("vendor", &catalog.vendor)]);
        if !metadata.tags.is_empty() {
            put("tags", metadata.tags.clone().into());
        }
        if !metadata.authors.is_empty() {
            put("authors", serde_json::to_value(&metadata.authors).unwrap_or_default());
        }
        texts(
            &mut put,
            &[
                ("url", &catalog.url),
                ("documentation", &catalog.documentation),
                ("support", &catalog.support),
                ("changelog", &catalog.changelog),
            ],
        );
        if !catalog.annotations.is_empty() {
            put("annotations", catalog.annotations.iter().cloned().collect());
        }
        serde_json::json!({ "apiVersion": self.api_version, "kind": self.kind, "metadata": fields })
    }
}

/// Returns name and namespace: `metadata.namespace`, else the part before a colon in `name`, else where it comes from.
fn identity(front: &FrontMatter, origin: &Origin<'_>) -> (String, String) {
    let given = front.name.as_ref().map(|text| text.value.trim()).unwrap_or_default();
    let (prefix, name) = match given.split_once(':') {
        Some((prefix, name)) if !prefix.is_empty() && !name.is_empty() => (Some(prefix), name),
        _ => (None, given),
    };
    // An image's name is ASCII. A skill with another name has one all the same if its directory has.
    let name = match name {
        "" => origin.dir_name,
        _ if !name.is_ascii() && is_name(origin.dir_name) => origin.dir_name,
        _ => name,
    };
    let own = front.metadata("namespace").map(|text| text.value.trim()).filter(|namespace| !namespace.is_empty());
    let namespace = own.or(prefix).or(origin.namespace).unwrap_or(LOCAL_NAMESPACE);
    (name.into(), namespace.into())
}

/// Pads a version of one or two numbers; anything else is left for the check to object to.
fn three_parts(version: &str) -> String {
    let numeric = version.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    match (numeric, version.split('.').count()) {
        (true, 1) => format!("{version}.0.0"),
        (true, 2) => format!("{version}.0"),
        _ => version.into(),
    }
}

#[cfg(test)]
mod tests;
