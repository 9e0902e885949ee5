//! `list`: what is in the store and what is loaded, in one table and in the order of the Go tool.

use anyhow::{Context as _, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::image::{self, STATUS, oci};
use crate::reference::{Reference, split_tag};
use crate::store::layout::{Entry, Layout};
use crate::store::storage::Storage;
use crate::store::storage_images::{Images, LoadState, StorageImage};
use crate::store::{self};

/// Whether containers-storage has an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Loaded {
    /// The name is there with this manifest.
    Yes,
    /// The name is there with another manifest.
    Other,
    /// The name is not there.
    No,
    /// It is not there and never will be: it is no image.
    #[serde(rename = "no")]
    Never,
    /// It is there, and not in the store.
    Only,
}

impl Loaded {
    /// Returns the word of the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Other => "other",
            Self::No => "no",
            Self::Never => "-",
            Self::Only => "only",
        }
    }
}

/// One name of the store.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The whole reference.
    pub reference: String,
    /// The reference without its tag or digest.
    pub name: String,
    /// The tag, or the digest of a reference by digest.
    pub tag: String,
    /// The lifecycle state; empty for images of other tools.
    pub status: String,
    /// The manifest digest.
    pub digest: String,
    /// RFC 3339: what the image says, or when the store got it where the image is reproducible and says 1970.
    pub created: String,
    /// Whether containers-storage has it; absent where that could not be looked at.
    pub loaded: Option<Loaded>,
    /// Whether it is in a store that is only read.
    pub read_only: bool,
}

/// Returns one row for each named entry, and one for each skill that only containers-storage has, sorted by reference.
///
/// # Errors
/// If the index cannot be read. An image whose manifest is damaged is listed with an empty state.
pub fn list(layout: Option<&Layout>, storage: Option<&Storage>) -> Result<Vec<Row>> {
    let entries = layout.map(Layout::everywhere).transpose().context("Listing images")?.unwrap_or_default();
    let images = storage.map(Storage::images).transpose().context("Listing containers-storage")?;
    let mut rows = Vec::with_capacity(entries.len());
    rows.extend(entries.into_iter().filter_map(|(store, entry)| row(store, entry, images.as_ref())));
    if let (Some(storage), Some(images)) = (storage, &images) {
        rows.extend(only_loaded(storage, images, &rows));
    }
    rows.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(rows)
}

fn row(layout: &Layout, entry: Entry, images: Option<&Images>) -> Option<Row> {
    let reference = entry.name.clone()?;
    let digest = entry.digest().to_owned();
    let (name, tag) = name_and_tag(&reference);
    let loaded = images.map(|images| match loaded(images, &reference, &digest) {
        Loaded::No if is_artifact(layout, &entry) => Loaded::Never,
        loaded => loaded,
    });
    let (status, created) = state_and_date(layout, &entry);
    Some(Row { reference, name, tag, status, digest, created, loaded, read_only: layout.is_read_only() })
}

/// Returns whether an entry is no image. Ours say so; of those that other tools wrote only what has no state is looked at.
fn is_artifact(layout: &Layout, entry: &Entry) -> bool {
    let says = entry.descriptor.artifact_type().is_some();
    let has_state = entry.descriptor.annotations().as_ref().is_some_and(|all| all.contains_key(STATUS));
    says || !has_state && store::read(layout, entry.clone()).is_ok_and(|found| !found.info.is_loadable())
}

/// Splits a reference as the Go tool's table does: a digest stands in the column of tags.
fn name_and_tag(reference: &str) -> (String, String) {
    let (name, tag) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => split_tag(reference),
    };
    (name.to_owned(), tag.unwrap_or_default().to_owned())
}

fn loaded(images: &Images, reference: &str, digest: &str) -> Loaded {
    let Ok(reference) = reference.parse::<Reference>() else {
        return Loaded::No;
    };
    match images.load_state(&reference.in_storage(), digest) {
        LoadState::Yes => Loaded::Yes,
        LoadState::Other => Loaded::Other,
        LoadState::No => Loaded::No,
    }
}

/// Returns the skills whose names the store does not have. Their state is unknown: containers-storage keeps one record
/// for all states of one content.
fn only_loaded(storage: &Storage, images: &Images, rows: &[Row]) -> Vec<Row> {
    let plain = |name: &str| name.parse().map_or_else(|_| name.to_owned(), |name: Reference| name.to_string());
    let known: std::collections::HashSet<String> = rows.iter().map(|row| plain(&row.reference)).collect();
    let mut only = Vec::new();
    for image in images.iter() {
        let unknown: Vec<Reference> = image
            .names
            .iter()
            .filter_map(|name| name.parse().ok())
            .filter(|name: &Reference| !known.contains(&name.to_string()))
            .collect();
        if unknown.is_empty() || !is_skill(storage, image) {
            continue;
        }
        only.extend(unknown.iter().map(|name| only_row(&name.to_string(), image)));
    }
    only
}

fn is_skill(storage: &Storage, image: &StorageImage) -> bool {
    storage.labels(image).is_ok_and(|labels| labels.contains_key(image::NAME))
}

fn only_row(reference: &str, image: &StorageImage) -> Row {
    let (name, tag) = name_and_tag(reference);
    Row {
        reference: reference.to_owned(),
        name,
        tag,
        status: "unknown".to_owned(),
        digest: image.digest.clone().unwrap_or_default(),
        created: image.created.as_deref().map(whole_seconds).unwrap_or_default(),
        loaded: Some(Loaded::Only),
        read_only: false,
    }
}

/// Reads state and date from the entry's copy of the annotations, else from the manifest.
fn state_and_date(layout: &Layout, entry: &Entry) -> (String, String) {
    let get = |key: &str| entry.descriptor.annotations().as_ref().and_then(|a| a.get(key)).cloned();
    let (status, created) = match (get(STATUS), get(oci::CREATED)) {
        (Some(status), Some(created)) => (status, created),
        // An unreadable manifest is fsck's to report: a list that fails because of one image helps nobody.
        _ => store::read(layout, entry.clone())
            .map(|found| (found.info.get(STATUS).to_owned(), found.info.get(oci::CREATED).to_owned()))
            .unwrap_or_default(),
    };
    let unknown = created.is_empty() || created == "1970-01-01T00:00:00Z";
    let created = if unknown { layout.written_at(entry.digest()).map(rfc3339).unwrap_or(created) } else { created };
    (status, created)
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Drops the fraction of a date, which containers-storage records and the store does not.
fn whole_seconds(date: &str) -> String {
    DateTime::parse_from_rfc3339(date).map_or_else(|_| date.to_owned(), |date| rfc3339(date.to_utc()))
}
