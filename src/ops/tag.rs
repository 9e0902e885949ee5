//! `tag`: one more name for an image of the store.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::immutable;
use crate::error::Error;
use crate::reference::Reference;
use crate::store::layout::{Entry, Layout, entry_name, is_nameless, same_name, take_name};
use crate::store::{self};

/// Gives the image that `source` names the name `target` as well, taking it from another image that has it.
///
/// # Errors
/// If there is no such image, the target is not a reference with a tag, or it is published with other content and
/// `force` is not given.
pub fn tag(layout: &Layout, source: &str, target: &Reference, force: bool) -> Result<Entry> {
    let (from, entry) = store::locate(layout, source).with_context(|| format!("Tagging {source}"))?;
    let target = target.clone().or_latest();
    if target.digest().is_some() {
        let reason = "a digest cannot be assigned; give a tag".into();
        return Err(Error::InvalidReference { input: target.to_string(), reason }).context("Tagging");
    }
    let name = target.to_string();
    // The new index is written in .tmp, which prune must leave alone.
    let _writing = layout.writing()?;
    let brought = from.is_read_only().then_some(&entry.descriptor);
    brought.map(|manifest| layout.bring(manifest)).transpose().with_context(|| format!("Copying {source}"))?;
    let copied = layout.update(|entries| {
        // Looked up again under the lock: another process may have moved or removed it meanwhile.
        let own = entries.iter().find(|e| e["digest"] == entry.digest() && entry_name(e) == entry.name.as_deref());
        let mut copy: Value = match (own, brought) {
            (Some(own), _) => own.clone(),
            (None, Some(manifest)) => serde_json::to_value(manifest).map_err(|e| Error::damaged(source, e))?,
            (None, None) => return Err(Error::ImageNotFound(source.to_owned())),
        };
        let held = entries.iter().find(|e| entry_name(e).is_some_and(|other| same_name(other, &name)));
        if let Some(held) = held.filter(|_| !force) {
            immutable::check_entry(layout, &target, held, &copy)?;
        }
        copy["annotations"][crate::store::layout::REF_NAME] = name.as_str().into();
        take_name(entries, |other| same_name(other, &name));
        entries.retain(|e| !is_nameless(e) || e["digest"] != copy["digest"]);
        entries.push(copy.clone());
        Ok::<_, Error>(copy)
    });
    copied.with_context(|| format!("Tagging {source} as {name}"))?;
    Ok(Entry { name: Some(name), descriptor: entry.descriptor })
}
