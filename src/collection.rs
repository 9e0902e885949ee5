//! A collection: skills that belong together, as a YAML file of the Go tool's form lists them.
//!
//! Read as strictly as a skill card, and more strictly than by the Go tool where that would do the wrong thing later:
//! references are parsed, and everything that is wrong is one error.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde_json::json;

use crate::card::emit;
use crate::error::{Error, Result};
use crate::redact::without_credentials;
use crate::reference::Reference;
use crate::yaml::{self, Node, Place, Value};

mod wire;

pub use wire::{
    ARTIFACT, Artifact, CONFIG, Form, INDEX, Index, Item, Listed, artifact, collection_name, form, index, layer,
    read_index, whole,
};

/// Largest file, in bytes: a thousand members with names, digests and comments have some 300 KiB.
pub const MAX_YAML: usize = 1 << 20;
/// Most members. The largest public sets have some hundred skills, and an agent reads the front matter of each.
pub const MAX_MEMBERS: usize = 1000;

/// `apiVersion` of what we write.
const API_VERSION: &str = "skillimage.io/v1alpha1";
const KIND: &str = "SkillCollection";
/// Most problems that an error names.
const NAMED: usize = 5;

/// A collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// Its name.
    pub name: String,
    /// Its version, free text.
    pub version: String,
    /// What it is for; empty where nobody said.
    pub description: String,
    /// The skills, in order.
    pub members: Vec<Member>,
}

/// One skill of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name; one from Git may have none.
    pub name: Option<String>,
    /// Where it is.
    pub from: Origin,
}

/// Where a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An image of a registry or, without one in its name, of the store.
    Image(Reference),
    /// A URL of a Git repository.
    Source(String),
}

impl Member {
    /// Returns what it is called in messages: its name, else where it is.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.shown())
    }

    /// Returns the reference, or the URL without credentials.
    pub fn shown(&self) -> String {
        without_credentials(&self.address())
    }

    /// Returns the reference or the URL.
    pub fn address(&self) -> String {
        match &self.from {
            Origin::Image(reference) => reference.to_string(),
            Origin::Source(url) => url.clone(),
        }
    }

    /// Returns the image.
    pub fn image(&self) -> Option<&Reference> {
        match &self.from {
            Origin::Image(reference) => Some(reference),
            Origin::Source(_) => None,
        }
    }
}

impl Collection {
    /// Reads a collection; `origin` is the file or the image that it is in.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with all that is wrong with it.
    pub fn parse(bytes: &[u8], origin: &str) -> Result<Self> {
        let mut reader = Reader::default();
        let collection = match yaml::parse(bytes, MAX_YAML) {
            Err(error) => {
                reader.note(error.at, error.message);
                None
            }
            Ok(document) => {
                if let Some(at) = document.ignored {
                    reader.note(at, "more than one document");
                }
                reader.collection(document.root.as_ref())
            }
        };
        match collection {
            Some(collection) if reader.problems.is_empty() => Ok(collection),
            _ => Err(Error::Unavailable { reason: reader.reason(origin), hint: None }),
        }
    }

    /// Returns the file, in the Go tool's fields and order.
    pub fn to_yaml(&self) -> String {
        let mut metadata = json!({"name": self.name, "version": self.version});
        if !self.description.is_empty() {
            metadata["description"] = self.description.as_str().into();
        }
        let members: Vec<_> = self.members.iter().map(to_value).collect();
        emit::yaml(&json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "skills": members}))
    }

    /// Returns the same with the digest that each image has now beside its tag; `digests` are those of the members.
    ///
    /// # Errors
    /// If one is no digest.
    pub fn pinned(&self, digests: &[Option<String>]) -> Result<Self> {
        let pin = |(member, digest): (&Member, &Option<String>)| -> Result<Member> {
            match (&member.from, digest) {
                (Origin::Image(reference), Some(digest)) => {
                    Ok(Member { from: Origin::Image(pin(reference, digest)?), ..member.clone() })
                }
                _ => Ok(member.clone()),
            }
        };
        let members = self.members.iter().zip(digests).map(pin).collect::<Result<_>>()?;
        Ok(Self { members, ..self.clone() })
    }
}

/// Returns a reference with its tag and a digest.
///
/// # Errors
/// If it is no digest.
pub fn pin(reference: &Reference, digest: &str) -> Result<Reference> {
    match reference.digest() {
        Some(own) if own == digest => Ok(reference.clone()),
        Some(_) => reference.with_digest(digest),
        None => format!("{}@{digest}", reference.clone().or_latest()).parse(),
    }
}

fn to_value(member: &Member) -> serde_json::Value {
    let mut value = json!({});
    if let Some(name) = &member.name {
        value["name"] = name.as_str().into();
    }
    let key = if member.image().is_some() { "image" } else { "source" };
    value[key] = member.address().into();
    value
}

/// Reads a tree, and notes everything that is wrong.
#[derive(Default)]
struct Reader {
    problems: Vec<(Place, String)>,
}

impl Reader {
    fn collection(&mut self, root: Option<&Node>) -> Option<Collection> {
        let Some(root) = root else {
            self.note(Place::START, "the file is empty");
            return None;
        };
        let mut kind = String::new();
        let (mut metadata, mut skills) = ((root.at, [const { String::new() }; 3]), (root.at, Vec::new()));
        self.fields(root, "a collection", |reader, key, node| {
            match key {
                "apiVersion" => drop(reader.text(node)),
                "kind" => kind = reader.text(node),
                "metadata" => metadata = (node.at, reader.metadata(node)),
                "skills" => skills = (node.at, reader.members(node)),
                _ => return false,
            }
            true
        });
        if kind != KIND {
            // What else is wrong does not matter: it is something else.
            self.problems.clear();
            self.note(root.get("kind").map_or(root.at, |kind| kind.at), format!("expected kind {KIND}, got {kind:?}"));
            return None;
        }
        let (at, [name, version, description]) = metadata;
        for (field, text) in [("name", &name), ("version", &version)] {
            if text.is_empty() {
                self.note(at, format!("metadata.{field} is required"));
            }
        }
        let (at, members) = skills;
        if members.is_empty() {
            self.note(at, "at least one skill is required");
        }
        Some(Collection { name, version, description, members })
    }

    fn metadata(&mut self, node: &Node) -> [String; 3] {
        let mut all = [const { String::new() }; 3];
        self.fields(node, "metadata", |reader, key, node| {
            let at = ["name", "version", "description"].iter().position(|field| *field == key);
            let text = reader.text(node);
            at.map(|at| all[at] = text).is_some()
        });
        all
    }

    fn members(&mut self, node: &Node) -> Vec<Member> {
        let items = match &node.value {
            Value::Sequence(items) => items,
            Value::Null => return Vec::new(),
            _ => {
                self.note(node.at, format!("skills should be a list, and is {}", said(node)));
                return Vec::new();
            }
        };
        if items.len() > MAX_MEMBERS {
            self.note(node.at, format!("{} skills exceed the limit of {MAX_MEMBERS}", items.len()));
            return Vec::new();
        }
        let mut seen = HashSet::new();
        let mut members = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let member = self.member(at, item);
            if let Some(name) = &member.name
                && !seen.insert(name.clone())
            {
                self.note(item.at, format!("duplicate skill name {name:?}"));
            }
            members.push(member);
        }
        members
    }

    fn member(&mut self, index: usize, node: &Node) -> Member {
        let (mut name, mut image, mut source) = (String::new(), String::new(), String::new());
        self.fields(node, "a skill", |reader, key, node| {
            let field = match key {
                "name" => &mut name,
                "image" => &mut image,
                "source" => &mut source,
                _ => return false,
            };
            *field = reader.text(node);
            true
        });
        if image.is_empty() == source.is_empty() {
            let what = if image.is_empty() {
                "image or source is required"
            } else {
                "image and source are mutually exclusive"
            };
            self.note(node.at, format!("skills[{index}]: {what}"));
        }
        if !image.is_empty() && name.is_empty() {
            self.note(node.at, format!("skills[{index}].name is required for image entries"));
        }
        let name = Some(name).filter(|name| !name.is_empty());
        let from = match image.parse::<Reference>() {
            _ if image.is_empty() => Origin::Source(source),
            Ok(reference) => Origin::Image(reference),
            Err(error) => {
                let at = node.get("image").map_or(node.at, |image| image.at);
                self.note(at, format!("skills[{index}].image: {error}"));
                Origin::Source(source)
            }
        };
        Member { name, from }
    }

    /// Hands each entry of a mapping to `take`, and notes those that it does not know.
    fn fields(&mut self, node: &Node, kind: &str, mut take: impl FnMut(&mut Self, &str, &Node) -> bool) {
        let entries = match &node.value {
            Value::Mapping(entries) => entries,
            Value::Null => return,
            _ => return self.note(node.at, format!("{kind} should be a mapping, and is {}", said(node))),
        };
        for (key, node) in entries {
            if !take(self, &key.text, node) {
                self.note(key.at, format!("{:?} is no field of {kind}", key.text));
            }
        }
    }

    fn text(&mut self, node: &Node) -> String {
        if node.text().is_none() {
            self.note(node.at, format!("text is expected, and this is {}", said(node)));
        }
        node.text().unwrap_or_default().to_owned()
    }

    fn note(&mut self, at: Place, message: impl Into<String>) {
        self.problems.push((at, message.into()));
    }

    fn reason(&self, origin: &str) -> String {
        let mut reason = format!("{origin}: ");
        for (number, (at, message)) in self.problems.iter().take(NAMED).enumerate() {
            let separator = if number > 0 { "; " } else { "" };
            // Writing to a string cannot fail.
            let _ = write!(reason, "{separator}line {}: {message}", at.line);
        }
        match self.problems.len().saturating_sub(NAMED) {
            0 => reason,
            more => format!("{reason}; and {more} more"),
        }
    }
}

/// Says what is there instead of something else.
fn said(node: &Node) -> &'static str {
    match &node.value {
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Null => "nothing",
        Value::Scalar { .. } => "text",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
