//! `rm`: takes a name from the store. Blobs stay until [`super::prune`].

use anyhow::{Context as _, Result};

use crate::error::Error;
use crate::store::layout::{Entry, Layout, entry_name};
use crate::store::{self};

/// Returns the entries that the given texts name, and the texts that name none.
///
/// # Errors
/// If the store cannot be read.
pub fn select(layout: &Layout, texts: &[String]) -> Result<(Vec<Entry>, Vec<String>)> {
    let entries = layout.entries()?;
    let mut found: Vec<Entry> = Vec::new();
    let mut missing = Vec::new();
    for text in texts {
        match store::find(&entries, text) {
            Ok(entry)
                if found
                    .iter()
                    .any(|f| f.name == entry.name && f.digest() == entry.digest()) => {}
            Ok(entry) => found.push(entry),
            Err(Error::ImageNotFound(_) | Error::InvalidReference { .. }) => {
                missing.push(text.clone())
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok((found, missing))
}

/// Removes one entry; false where it had gone already.
///
/// # Errors
/// If the index cannot be changed.
pub fn remove(layout: &Layout, entry: &Entry) -> Result<bool> {
    let removed = layout.update(|entries| {
        let before = entries.len();
        entries.retain(|e| entry_name(e) != entry.name.as_deref() || e["digest"] != entry.digest());
        Ok::<_, Error>(entries.len() < before)
    });
    removed.with_context(|| {
        format!(
            "Removing {}",
            entry.name.as_deref().unwrap_or(entry.digest())
        )
    })
}
