//! A collection as registries keep it: an artifact whose one layer is the file, or an index of the skills themselves.
//!
//! The artifact is the Go tool's. The index is that of the Agent Skills OCI artifacts specification; its members are in the
//! collection's own repository, which is what a mirror without a network has.

use std::collections::{BTreeMap, HashMap, HashSet};

use oci_spec::image::{Descriptor, ImageIndex, MediaType};
use serde_json::{Map, Value, json};

use super::{Collection, MAX_MEMBERS, MAX_YAML, Member, Origin, pin};
use crate::error::{Error, Result};
use crate::image::{Info, STATUS, oci};
use crate::reference::Reference;
use crate::strict;

/// Media type of the artifact and of its layer.
pub const ARTIFACT: &str = "application/vnd.skillimage.collection.v1+yaml";
/// Artifact type of the index.
pub const INDEX: &str = "application/vnd.agentskills.collection.v1";
/// The artifact's config, which says nothing.
pub const CONFIG: &[u8] = b"{}";

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The name, in an artifact and in an index.
const NAMES: [&str; 2] = ["io.skillimage.collection.name", "io.agentskills.collection.name"];
/// What an index says of each skill.
const SKILL_NAME: &str = "io.agentskills.skill.name";
/// Where a skill of an index comes from, in the words of most tools and of one.
const SKILL_REFS: [&str; 2] = ["io.agentskills.skill.ref", "org.opencontainers.image.ref.name"];

/// How a collection is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The file, which names the skills.
    Artifact,
    /// An index, which has them.
    Index,
}

/// An artifact that is to be written, beside [`CONFIG`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The file.
    pub layer: Vec<u8>,
}

/// Returns a collection as an artifact; `hash` gives a blob's digest.
pub fn artifact(collection: &Collection, created: &str, hash: impl Fn(&[u8]) -> String) -> Artifact {
    let layer = collection.to_yaml().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.to_string(),
        "artifactType": ARTIFACT,
        "config": {"mediaType": EMPTY, "digest": hash(CONFIG), "size": CONFIG.len()},
        "layers": [{"mediaType": ARTIFACT, "digest": hash(&layer), "size": layer.len()}],
        "annotations": annotations(collection, created, NAMES[0]),
    });
    Artifact { manifest: manifest.to_string().into_bytes(), layer }
}

/// One skill of an index that is to be written.
#[derive(Debug, Clone)]
pub struct Item {
    /// The member's name.
    pub name: String,
    /// Where it comes from, with its digest.
    pub reference: Reference,
    /// Its manifest's size.
    pub size: u64,
    /// What its manifest says.
    pub info: Info,
}

/// Returns a collection as an index.
pub fn index(collection: &Collection, items: &[Item], created: &str) -> Vec<u8> {
    let descriptor = |item: &Item| {
        let mut annotations = BTreeMap::from([
            (SKILL_NAME, item.name.clone()),
            (SKILL_REFS[0], item.reference.to_string()),
            (SKILL_REFS[1], item.reference.to_string()),
        ]);
        let copied = [oci::VERSION, oci::TITLE, oci::DESCRIPTION].map(|key| (key, item.info.get(key).to_owned()));
        annotations.extend(copied.into_iter().filter(|(_, text)| !text.is_empty()));
        json!({
            "mediaType": MediaType::ImageManifest.to_string(),
            "digest": item.reference.digest(),
            "size": item.size,
            "annotations": annotations,
        })
    };
    let index = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageIndex.to_string(),
        "artifactType": INDEX,
        "manifests": items.iter().map(descriptor).collect::<Vec<_>>(),
        "annotations": annotations(collection, created, NAMES[1]),
    });
    index.to_string().into_bytes()
}

fn annotations(collection: &Collection, created: &str, name: &str) -> Map<String, Value> {
    let mut all = BTreeMap::from([
        (oci::TITLE, collection.name.as_str()),
        (oci::VERSION, &collection.version),
        (oci::CREATED, created),
        (name, &collection.name),
    ]);
    if !collection.description.is_empty() {
        all.insert(oci::DESCRIPTION, &collection.description);
    }
    all.into_iter().map(|(key, text)| (key.to_owned(), text.into())).collect()
}

/// Returns the name of the collection that annotations say a manifest is; nothing where they do not.
pub fn collection_name(annotations: &BTreeMap<String, String>) -> Option<&str> {
    NAMES.iter().find_map(|key| annotations.get(*key)).map(String::as_str)
}

/// Returns which form of a collection a manifest is; `object` is its reference.
///
/// # Errors
/// [`Error::Unavailable`] that says what it is instead.
pub fn form(manifest: &[u8], object: &str) -> Result<Form> {
    strict::check(manifest).map_err(|reason| Error::damaged(object, reason))?;
    let value: Value = serde_json::from_slice(manifest).map_err(|e| Error::damaged(object, e))?;
    let artifact_type = value["artifactType"].as_str().unwrap_or_default();
    let found = match (artifact_type, value["manifests"].as_array(), value["annotations"].get(STATUS)) {
        (ARTIFACT, None, _) => return Ok(Form::Artifact),
        (INDEX, Some(_), _) => return Ok(Form::Index),
        (_, None, Some(_)) => "a skill".to_owned(),
        ("", Some(images), _) => format!("an index of {} images", images.len()),
        ("", None, _) => "an image".to_owned(),
        (other, ..) => format!("an artifact of type {other:?}"),
    };
    let reason = format!("{object} is no collection: it is {found}");
    Err(Error::Unavailable { reason, hint: Some(format!("skillctl inspect {object} says more")) })
}

/// Returns the one layer of an artifact.
///
/// # Errors
/// [`Error::Unavailable`] where there is another number, of another type, or too large.
pub fn layer<'a>(info: &'a Info, object: &str) -> Result<&'a Descriptor> {
    let [layer] = &info.layers[..] else {
        return Err(refused(object, format!("it has {} layers, and a collection has one", info.layers.len())));
    };
    if layer.media_type().as_ref() != ARTIFACT {
        return Err(refused(object, format!("its layer is {:?}, not {ARTIFACT}", layer.media_type().as_ref())));
    }
    if layer.size() > MAX_YAML as u64 {
        return Err(refused(object, format!("{} bytes exceed the limit of {MAX_YAML}", layer.size())));
    }
    Ok(layer)
}

/// A skill as an index lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its manifest; a size of 0 is none that anything can have.
    pub descriptor: Descriptor,
    /// Where it says that it comes from, with the digest.
    pub own: Option<Reference>,
}

/// A collection that was an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The collection; a member of unknown origin is named in its repository.
    pub collection: Collection,
    /// Its members, in the same order.
    pub listed: Vec<Listed>,
}

/// Reads an index that is a collection in the repository of `reference`.
///
/// # Errors
/// [`Error::Damaged`] where it is no index; [`Error::Unavailable`] that names the member that is refused.
pub fn read_index(manifest: &[u8], reference: &Reference) -> Result<Index> {
    let object = reference.to_string();
    let index: ImageIndex = serde_json::from_slice(manifest).map_err(|e| Error::damaged(&object, e))?;
    if index.manifests().len() > MAX_MEMBERS {
        return Err(refused(&object, format!("{} skills exceed the limit of {MAX_MEMBERS}", index.manifests().len())));
    }
    if index.manifests().is_empty() {
        return Err(refused(&object, "at least one skill is required".into()));
    }
    let (mut members, mut listed) = (Vec::new(), Vec::new());
    let (mut names, mut digests) = (HashSet::new(), HashMap::new());
    for descriptor in index.manifests() {
        let (member, one) = read_listed(descriptor, reference, &object)?;
        let name = member.label();
        if !names.insert(name.clone()) {
            return Err(refused(&object, format!("duplicate skill name {name:?}")));
        }
        if let Some(other) = digests.insert(descriptor.digest().to_string(), name.clone()) {
            return Err(refused(&object, format!("{other} and {name} are both {}", descriptor.digest())));
        }
        members.push(member);
        listed.push(one);
    }
    let annotations = index.annotations().clone().unwrap_or_default();
    let text = |key: &str| annotations.get(key).cloned().unwrap_or_default();
    let name = [text(NAMES[1]), text(oci::TITLE), reference.basename().to_owned()];
    let collection = Collection {
        name: name.into_iter().find(|name| !name.is_empty()).unwrap_or_default(),
        version: text(oci::VERSION),
        description: text(oci::DESCRIPTION),
        members,
    };
    Ok(Index { collection, listed })
}

fn read_listed(descriptor: &Descriptor, reference: &Reference, object: &str) -> Result<(Member, Listed)> {
    let annotations = descriptor.annotations().clone().unwrap_or_default();
    let text = |key: &str| annotations.get(key).filter(|text| !text.is_empty());
    let digest = descriptor.digest().to_string();
    let own = SKILL_REFS.iter().find_map(|key| text(key)).map(|own| own.parse::<Reference>());
    let name = text(SKILL_NAME).or_else(|| text(oci::TITLE)).cloned();
    let name = name.or_else(|| Some(own.as_ref()?.as_ref().ok()?.basename().to_owned())).unwrap_or(digest.clone());
    let no = |reason: String| refused(object, format!("{name}: {reason}"));
    // A tag alone, or a name of somebody's store, says nothing here.
    let own = own.transpose().map_err(|e| no(e.to_string()))?.filter(|own| own.registry().is_some());
    if let Some(other) = own.as_ref().and_then(Reference::digest).filter(|own| *own != digest) {
        return Err(no(format!("it is listed as {digest}, and its reference says {other}")));
    }
    if !matches!(descriptor.media_type(), MediaType::ImageManifest | MediaType::ImageIndex) {
        return Err(no(format!("it is of type {:?}, which is no image", descriptor.media_type().as_ref())));
    }
    if descriptor.size() == 0 && own.is_none() {
        return Err(no("the index says that it has 0 bytes, and not where it comes from".into()));
    }
    let own = own.map(|own| pin(&own, &digest)).transpose().map_err(|e| no(e.to_string()))?;
    let from = match &own {
        Some(own) => own.clone(),
        None => reference.with_digest(&digest).map_err(|e| no(e.to_string()))?,
    };
    let member = Member { name: Some(name.clone()), from: Origin::Image(from) };
    Ok((member, Listed { descriptor: descriptor.clone(), own }))
}

/// Returns whether an index can be kept as it is, with all its members: `most` are copied at once, true sizes are needed, and
/// what is an index itself is copied by nobody.
pub fn whole(index: &Index, most: usize) -> bool {
    let plain = |one: &Listed| one.descriptor.size() > 0 && one.descriptor.media_type() == &MediaType::ImageManifest;
    index.listed.len() <= most && index.listed.iter().all(plain)
}

fn refused(object: &str, reason: String) -> Error {
    Error::Unavailable { reason: format!("{object}: {reason}"), hint: None }
}
