//! The entries of `index.json`, as values and as JSON that keeps what is unknown to us.

use std::collections::HashSet;

use oci_spec::image::{Descriptor, MediaType};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::reference::Reference;

/// The annotation that holds the name of an index entry.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// One entry of the index.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The whole reference, where the entry has one.
    pub name: Option<String>,
    /// What it names.
    pub descriptor: Descriptor,
}

/// What is read of `index.json`, in a form that gives the descriptors away: copying a thousand takes milliseconds.
#[derive(Deserialize)]
pub(super) struct Index {
    #[serde(rename = "schemaVersion")]
    _schema_version: u32,
    pub(super) manifests: Vec<Descriptor>,
}

/// The same with entries that are still text.
#[derive(Deserialize)]
struct RawIndex<'a> {
    #[serde(borrow)]
    manifests: Vec<&'a RawValue>,
}

impl Entry {
    /// Returns whether it has, or had when it lost it, a name in the repository of `reference`.
    pub fn is_of(&self, reference: &Reference) -> bool {
        match &self.name {
            Some(name) => name.parse::<Reference>().is_ok_and(|own| own.name() == reference.name()),
            None => self.was() == Some(reference.name()),
        }
    }

    /// Returns its name, else the repository that it had one in, with its digest, or that alone.
    pub fn shown(&self) -> String {
        match (&self.name, self.was()) {
            (Some(name), _) => name.clone(),
            (None, Some(was)) => format!("{was}@{}", self.digest()),
            (None, None) => self.digest().to_owned(),
        }
    }

    /// Returns the repository that it had its last name in, where it has lost that.
    pub fn was(&self) -> Option<&str> {
        self.descriptor.annotations().as_ref().and_then(|a| a.get(WAS)).map(String::as_str)
    }

    pub(super) fn new(descriptor: Descriptor) -> Self {
        let name = descriptor.annotations().as_ref().and_then(|a| a.get(REF_NAME)).cloned();
        Self { name, descriptor }
    }

    /// Returns the digest of the manifest, `sha256:…`.
    pub fn digest(&self) -> &str {
        self.descriptor.digest().as_ref()
    }
}

/// Returns the descriptors of an index whose text `wanted` takes, and what is wrong with those that are none.
pub(super) fn raw_entries(
    bytes: &[u8],
    wanted: impl Fn(&str) -> bool,
) -> serde_json::Result<(Vec<Descriptor>, Vec<String>)> {
    let index: RawIndex<'_> = serde_json::from_slice(bytes)?;
    let mut entries = Vec::new();
    let mut malformed = Vec::new();
    for raw in index.manifests.into_iter().map(RawValue::get).filter(|raw| wanted(raw)) {
        match serde_json::from_str(raw) {
            Ok(descriptor) => entries.push(descriptor),
            Err(e) => {
                let value: Value = serde_json::from_str(raw)?;
                malformed.push(format!("{}: {e}", entry_name(&value).unwrap_or("an entry without a name")));
            }
        }
    }
    Ok((entries, malformed))
}

/// Returns whether two names are one reference: `localhost/` and `:latest` may be left out.
pub fn same_name(one: &str, other: &str) -> bool {
    let reference = |name: &str| name.parse::<Reference>().ok().map(Reference::or_latest);
    one == other || reference(one).is_some_and(|one| Some(one) == reference(other))
}

/// The annotation of an entry without a name that says which digest it belongs to: it is a signature of that.
pub const SUBJECT: &str = "io.skillimage.subject";

/// Returns whether an entry has no name and is of nothing else: another entry of the same digest makes it needless.
pub fn is_nameless(entry: &Value) -> bool {
    entry_name(entry).is_none() && !entry["annotations"][SUBJECT].is_string()
}

/// The annotation by which an entry that lost its name remembers the repository that it was in.
pub const WAS: &str = "io.skillimage.was";

/// Takes the name from the entries that `which` picks by it. An entry whose digest no other of its repository has stays
/// without a name, and remembers the repository: something may still pin it, and a directory may have been written from it.
pub fn take_name(entries: &mut Vec<Value>, which: impl Fn(&str) -> bool) {
    let taken: Vec<Value> = entries.extract_if(.., |entry| entry_name(entry).is_some_and(&which)).collect();
    for mut entry in taken {
        let repository = entry_name(&entry).and_then(repository_of);
        let same = |other: &Value| {
            let named = entry_name(other).and_then(repository_of);
            let was = || other["annotations"][WAS].as_str().map(str::to_owned);
            other["digest"] == entry["digest"] && named.or_else(was) == repository
        };
        if entries.iter().any(same) {
            continue;
        }
        if let Some(annotations) = entry["annotations"].as_object_mut() {
            let name = annotations.shift_remove(REF_NAME);
            let name = name.as_ref().and_then(Value::as_str).and_then(|name| name.parse::<Reference>().ok());
            if let Some(reference) = name {
                annotations.insert(WAS.to_owned(), reference.name().into());
            }
        }
        entries.push(entry);
    }
}

/// Gives names to entries, all at once: each comes under its reference as it is written without `localhost/` and with its tag. What
/// had one of the names is handled as [`take_name`] does.
pub fn put_names(entries: &mut Vec<Value>, named: Vec<(Reference, Value)>) {
    let digests: HashSet<Value> = named.iter().map(|(_, entry)| entry["digest"].clone()).collect();
    let taken: HashSet<Reference> = named.iter().map(|(name, _)| name.clone()).collect();
    take_name(entries, |other| {
        other.parse::<Reference>().is_ok_and(|reference| taken.contains(&reference.or_latest()))
    });
    entries.retain(|other| !is_nameless(other) || !digests.contains(&other["digest"]));
    entries.extend(named.into_iter().map(|(name, mut entry)| {
        entry["annotations"][REF_NAME] = name.to_string().into();
        entry
    }));
}

fn repository_of(name: &str) -> Option<String> {
    name.parse::<Reference>().ok().map(|reference| reference.name().to_owned())
}

/// Returns an index without entries.
pub(super) fn empty_index() -> Value {
    json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex.to_string(), "manifests": []})
}

/// Returns the name of an index entry that is still JSON.
pub fn entry_name(entry: &Value) -> Option<&str> {
    entry["annotations"][REF_NAME].as_str()
}
