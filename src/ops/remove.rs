//! `rm`: takes a name from the store. The image stays without a name, and its blobs until [`super::prune`].

use anyhow::{Context as _, Result};

use crate::error::Error;
use crate::reference::is_digest;
use crate::store::layout::{Entry, Layout, entry_name, take_name};
use crate::store::{self};

/// Returns the entries that the given texts name, and the texts that name none.
///
/// # Errors
/// If the store cannot be read, or a digest has several names: which one is meant is not to be guessed.
pub fn select(layout: &Layout, texts: &[String]) -> Result<(Vec<Entry>, Vec<String>)> {
    let entries = layout.entries()?;
    let mut found: Vec<Entry> = Vec::new();
    let mut missing = Vec::new();
    for text in texts {
        match store::find(&entries, text) {
            Ok(entry) if found.iter().any(|f| f.name == entry.name && f.digest() == entry.digest()) => {}
            Ok(entry) => {
                check_single(&entries, &entry, text)?;
                found.push(entry);
            }
            Err(Error::ImageNotFound(_) | Error::InvalidReference { .. }) => missing.push(text.clone()),
            Err(e) => return Err(e.into()),
        }
    }
    Ok((found, missing))
}

fn check_single(entries: &[Entry], entry: &Entry, text: &str) -> Result<()> {
    let by_digest = is_digest(text) || text.bytes().all(|b| b.is_ascii_hexdigit());
    let names: Vec<&str> =
        entries.iter().filter(|e| e.digest() == entry.digest()).filter_map(|e| e.name.as_deref()).collect();
    if by_digest && names.len() > 1 {
        let reason = format!("{text} has several names: {}", names.join(", "));
        return Err(Error::Unavailable { reason, hint: Some("give the names that are to go".into()) }.into());
    }
    Ok(())
}

/// Takes the name of an entry; an entry without one goes as it is.
///
/// # Errors
/// If the index cannot be changed, or the name stands for something else by now.
pub fn remove(layout: &Layout, entry: &Entry) -> Result<()> {
    let shown = entry.name.as_deref().unwrap_or(entry.digest());
    // The new index is written in .tmp, which prune must leave alone.
    let _writing = layout.writing().with_context(|| format!("Removing {shown}"))?;
    let removed = layout.update(|entries| {
        let same = |e: &serde_json::Value| entry_name(e) == entry.name.as_deref() && e["digest"] == entry.digest();
        if !entries.iter().any(same) {
            let reason = "it was changed meanwhile".to_owned();
            return Err(Error::Unavailable { reason, hint: Some("look at it again, and repeat".into()) });
        }
        match &entry.name {
            Some(name) => take_name(entries, |other| other == name),
            None => entries.retain(|e| !same(e)),
        }
        Ok(())
    });
    removed.with_context(|| format!("Removing {shown}"))
}
