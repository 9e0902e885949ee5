//! `list --remote`: the skills of a repository, by their manifests only.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use serde::Serialize;

use crate::error::Result as TypedResult;
use crate::image::{STATUS, oci};
use crate::reference::Reference;
use crate::store::registry::Registry;
use crate::store::remote::not_found;

/// How many manifests are asked for at once: enough that a slow network and not we decide, and fewer than any registry
/// takes for an attack.
const AT_ONCE: usize = 16;

/// One tag of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The whole reference.
    pub reference: String,
    /// The repository.
    pub name: String,
    /// The tag.
    pub tag: String,
    /// The version annotation.
    pub version: String,
    /// The lifecycle state; empty for images of other tools.
    pub status: String,
    /// The manifest digest.
    pub digest: String,
    /// The image ID; empty for an index.
    pub image_id: String,
    /// The created annotation.
    pub created: String,
}

/// Returns one row for each tag, sorted; with a tag in the reference, for that one.
///
/// # Errors
/// If the tags cannot be listed, or a manifest cannot be read.
pub fn list(registry: &Registry, repository: &Reference) -> Result<Vec<Row>> {
    if let Some(tag) = repository.tag() {
        let row = row(registry, repository, tag)?;
        return Ok(vec![row.ok_or_else(|| not_found(repository))?]);
    }
    let tags: Vec<String> = registry.tags(repository)?.into_iter().filter(|tag| !is_attachment(tag)).collect();
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(tags.len())));
    let work = || {
        while let Some(tag) = tags.get(next.fetch_add(1, Ordering::Relaxed)) {
            let row = row(registry, repository, tag);
            let failed = row.is_err();
            rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(row);
            if failed {
                // The first failure is the answer; nothing more is asked for.
                next.store(tags.len(), Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(tags.len()) {
            scope.spawn(work);
        }
    });
    let rows = rows.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut rows: Vec<Row> = rows.into_iter().filter_map(TypedResult::transpose).collect::<TypedResult<_>>()?;
    rows.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(rows)
}

/// Returns what a tag names; `None` where it has gone meanwhile, or names something that is no image.
fn row(registry: &Registry, repository: &Reference, tag: &str) -> TypedResult<Option<Row>> {
    let reference = repository.with_tag(tag)?;
    let Some(found) = registry.manifest(&reference)? else { return Ok(None) };
    let Ok(manifest) = found.read(&reference) else { return Ok(None) };
    let text = |key: &str| manifest.info.get(key).to_owned();
    Ok(Some(Row {
        reference: reference.to_string(),
        name: reference.name().to_owned(),
        tag: tag.to_owned(),
        version: text(oci::VERSION),
        status: text(STATUS),
        digest: manifest.digest.clone(),
        image_id: manifest.info.image_id(),
        created: text(oci::CREATED),
    }))
}

/// Returns whether a tag is of cosign's or of the referrers fallback: `sha256-<hex>` and what follows.
fn is_attachment(tag: &str) -> bool {
    tag.strip_prefix("sha256-").is_some_and(|rest| {
        let hex = rest.split('.').next().unwrap_or(rest);
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_no_skills() {
        let hex = "0".repeat(64);
        for (tag, attachment) in [
            (format!("sha256-{hex}.sig"), true),
            (format!("sha256-{hex}"), true),
            ("sha256-1".to_owned(), false),
            ("1.0.0".to_owned(), false),
        ] {
            assert_eq!(is_attachment(&tag), attachment, "{tag}");
        }
    }
}
