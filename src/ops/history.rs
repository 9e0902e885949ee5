//! `history`: the states of a skill that the store and the registry still hold.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Context as _, Result};
use semver::Version;
use serde::Serialize;

use super::remote_list;
use crate::error::Error;
use crate::image::{Info, STATUS, oci};
use crate::lifecycle::State;
use crate::reference::Reference;
use crate::store;
use crate::store::layout::Layout;
use crate::store::registry::Registry;

/// One manifest of a skill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The version annotation.
    pub version: String,
    /// The lifecycle state; empty where it has none.
    pub status: String,
    /// The tags that it has; empty where a later state took them.
    pub tags: BTreeSet<String>,
    /// The manifest digest.
    pub digest: String,
    /// The image ID: equal for all states of one content. Empty for an index.
    pub image_id: String,
    /// The created annotation.
    pub created: String,
    /// Where it is: `store`, `registry`.
    pub places: BTreeSet<&'static str>,
}

/// Returns every manifest of a name that is in one of the places, by version and state. With a tag or digest, of that
/// version only.
///
/// # Errors
/// If a place cannot be read, or has nothing of that name.
pub fn history(layout: Option<&Layout>, registry: Option<&Registry>, reference: &Reference) -> Result<Vec<Row>> {
    let mut rows = BTreeMap::new();
    if let Some(layout) = layout {
        in_store(layout, reference, &mut rows).context("Reading the store")?;
    }
    if let Some(registry) = registry {
        on_registry(registry, reference, &mut rows).map_err(without_registry)?;
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    let missing = || missing(layout, reference);
    if let Some(version) = wanted_version(&rows, reference).ok_or_else(missing)? {
        rows.retain(|row| row.version == version);
    }
    if rows.is_empty() {
        return Err(missing().into());
    }
    rows.sort_by_cached_key(|row| {
        let version = Version::parse(&row.version).ok();
        (version, row.version.clone(), row.status.parse::<State>().ok(), row.digest.clone())
    });
    Ok(rows)
}

/// Adds the way out where a registry is the trouble.
fn without_registry(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(Error::Registry { registry, fault, reason, hint: None }) => {
            let hint = Some("--local shows what the store has".to_owned());
            Error::Registry { registry, fault, reason, hint }.into()
        }
        Ok(error) => error.into(),
        Err(error) => error,
    }
}

/// Returns the error for what is nowhere, with what the store has instead.
fn missing(layout: Option<&Layout>, reference: &Reference) -> Error {
    let text = reference.to_string();
    match layout.map(|layout| store::lookup(layout, &text)) {
        Some(Err(error)) => error,
        _ => Error::ImageNotFound(text),
    }
}

/// Returns the version that a tag or digest selects, where there is one; `None` where it selects nothing.
fn wanted_version(rows: &[Row], reference: &Reference) -> Option<Option<String>> {
    let selected = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => rows.iter().find(|row| row.digest == digest),
        (None, Some(tag)) => rows.iter().find(|row| row.tags.contains(tag)),
        (None, None) => return Some(None),
    };
    selected.map(|row| Some(row.version.clone()))
}

/// Adds what the store has under the name, what had it before, and what has the same content under another.
fn in_store(layout: &Layout, reference: &Reference, rows: &mut BTreeMap<String, Row>) -> Result<()> {
    let mut others = Vec::new();
    let mut contents = HashSet::new();
    for entry in layout.all_entries()? {
        let name = entry.name.as_deref().map(str::parse::<Reference>).and_then(Result::ok);
        let own = name.filter(|name| name.name() == reference.name());
        // A damaged one is fsck's to report.
        let read = layout.read_json(&entry.descriptor).and_then(|bytes| Info::parse(&bytes, entry.digest()));
        let Ok(info) = read else { continue };
        match own {
            Some(name) => {
                contents.insert(info.image_id());
                add(rows, (entry.digest(), &info), name.or_latest().tag(), "store");
            }
            None => others.push((entry, info)),
        }
    }
    for (entry, info) in others {
        let same_content = !info.image_id().is_empty() && contents.contains(&info.image_id());
        if same_content || entry.is_of(reference) {
            add(rows, (entry.digest(), &info), None, "store");
        }
    }
    Ok(())
}

fn add(rows: &mut BTreeMap<String, Row>, (digest, info): (&str, &Info), tag: Option<&str>, place: &'static str) {
    let row = rows.entry(digest.to_owned()).or_insert_with(|| Row {
        version: info.get(oci::VERSION).to_owned(),
        status: info.get(STATUS).to_owned(),
        tags: BTreeSet::new(),
        digest: digest.to_owned(),
        image_id: info.image_id(),
        created: info.get(oci::CREATED).to_owned(),
        places: BTreeSet::new(),
    });
    row.tags.extend(tag.map(str::to_owned));
    row.places.insert(place);
}

fn on_registry(registry: &Registry, reference: &Reference, rows: &mut BTreeMap<String, Row>) -> Result<()> {
    for found in remote_list::list(registry, &reference.repository())? {
        let row = rows.entry(found.digest.clone()).or_insert_with(|| Row {
            version: found.version,
            status: found.status,
            tags: BTreeSet::new(),
            digest: found.digest,
            image_id: found.image_id,
            created: found.created,
            places: BTreeSet::new(),
        });
        row.tags.insert(found.tag);
        row.places.insert("registry");
    }
    Ok(())
}
