//! `list`: what is in the store, in the order of the Go tool.

use anyhow::{Context as _, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::image::{STATUS, oci};
use crate::reference::split_tag;
use crate::store::layout::{Entry, Layout};
use crate::store::{self};

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
}

/// Returns one row for each named entry, sorted by reference.
///
/// # Errors
/// If the index cannot be read. An image whose manifest is damaged is listed with an empty state.
pub fn list(layout: &Layout) -> Result<Vec<Row>> {
    let mut entries: Vec<Entry> = layout.entries().context("Listing images")?;
    entries.retain(|entry| entry.name.is_some());
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries
        .into_iter()
        .map(|entry| row(layout, entry))
        .collect())
}

fn row(layout: &Layout, entry: Entry) -> Row {
    let reference = entry.name.clone().unwrap_or_default();
    let digest = entry.digest().to_owned();
    let (name, tag) = match reference.split_once('@') {
        Some((name, digest)) => (name.to_owned(), digest.to_owned()),
        None => {
            let (name, tag) = split_tag(&reference);
            (name.to_owned(), tag.unwrap_or_default().to_owned())
        }
    };
    let (status, created) = state_and_date(layout, entry);
    Row {
        reference,
        name,
        tag,
        status,
        digest,
        created,
    }
}

/// Reads state and date from the entry's copy of the annotations, else from the manifest.
fn state_and_date(layout: &Layout, entry: Entry) -> (String, String) {
    let digest = entry.digest().to_owned();
    let get = |key: &str| {
        entry
            .descriptor
            .annotations()
            .as_ref()
            .and_then(|a| a.get(key))
            .cloned()
    };
    let (status, created) = match (get(STATUS), get(oci::CREATED)) {
        (Some(status), Some(created)) => (status, created),
        // An unreadable manifest is fsck's to report: a list that fails because of one image helps nobody.
        _ => store::read(layout, entry.clone())
            .map(|found| {
                (
                    found.info.get(STATUS).to_owned(),
                    found.info.get(oci::CREATED).to_owned(),
                )
            })
            .unwrap_or_default(),
    };
    let unknown = created.is_empty() || created == "1970-01-01T00:00:00Z";
    let created = if unknown {
        layout.written_at(&digest).map(rfc3339).unwrap_or(created)
    } else {
        created
    };
    (status, created)
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
