//! What becomes of every file when a skill is replaced: those of the old version, of the new one, and of the user.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::drift::{Change, Difference, differences};
use super::present::Present;
use crate::layer::{Listing, Node, UnpackOptions};
use crate::skills::SkillsDir;

/// What changes in a skill's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// New files.
    pub added: Vec<String>,
    /// Files with other content or another mode.
    pub modified: Vec<String>,
    /// Files that go.
    pub removed: Vec<String>,
    /// The user's files that stay.
    pub kept: Vec<String>,
    /// The user's files and changes that would be lost.
    pub conflicts: Vec<Difference>,
    #[serde(skip)]
    pub(super) kept_paths: Vec<PathBuf>,
}

/// Decides what becomes of every file, where `after` is to come, which is `of_image` with another card. A file is the user's
/// where it is not as it was installed.
///
/// # Errors
/// If the directory cannot be looked at.
pub fn changes(
    there: &Present,
    (after, of_image): (&Listing, &Listing),
    skills: &SkillsDir,
    name: &str,
    options: &UnpackOptions<'_>,
) -> Result<Changes> {
    let Some(dir) = skills.open(name)? else {
        let conflicts = match there {
            Present::Foreign(kind) => vec![Difference::of(name, *kind)],
            _ => Vec::new(),
        };
        let added = files(after);
        return Ok(Changes { added, conflicts, ..Changes::default() });
    };
    let new = differences(after, &dir, options)?;
    let mut gone = Vec::new();
    let listing = there.listing()?;
    let known = listing.is_some();
    let (before, own) = match listing {
        Some(listing) => {
            let found = differences(&listing, &dir, options)?;
            gone.extend(found.iter().filter(|d| d.change == Change::Missing).map(|d| d.path.clone()));
            (listing, found.into_iter().filter(|difference| there.is_of_user(difference)).collect())
        }
        // Nothing vouches for what is there but the image itself, where somebody has unpacked it there.
        None => {
            let found = differences(of_image, &dir, options)?;
            (Listing::default(), found.into_iter().filter(|difference| difference.change.is_work()).collect::<Vec<_>>())
        }
    };
    let mut changes = compare(&before, after);
    // What somebody has deleted comes back.
    changes.modified.retain(|path| !gone.contains(path));
    changes
        .added
        .extend(gone.into_iter().filter(|path| matches!(after.get(path), Some(Node::File(_) | Node::Symlink(_)))));
    for difference in own {
        settle(&difference, &new, known, &mut changes);
    }
    Ok(changes)
}

/// Decides about one change of the user's: `new` is how the directory differs from what is to come.
fn settle(own: &Difference, new: &[Difference], known: bool, changes: &mut Changes) {
    let path = &own.os_path;
    let at = |difference: &&Difference| difference.os_path == *path;
    // A directory above it goes, or becomes something else.
    let above = new.iter().find(|difference| path.starts_with(&difference.os_path) && difference.os_path != *path);
    let mut keep = |difference: &Difference| {
        changes.kept.push(difference.path.clone());
        changes.kept_paths.push(difference.os_path.clone());
    };
    match (own.change, above.or(new.iter().find(at))) {
        (Change::Extra, Some(found)) if found.change == Change::Extra && known => keep(own),
        (Change::Extra, None) if known => {
            // A directory that both have: what is in it decides.
            for below in new.iter().filter(|difference| difference.os_path.starts_with(path)) {
                match below.change {
                    Change::Extra => keep(below),
                    Change::Missing | Change::Mode { .. } => {}
                    Change::Modified | Change::Kind { .. } => changes.conflicts.push(below.clone()),
                }
            }
        }
        // It is what is to come.
        (_, None) => {}
        (_, Some(found)) if matches!(found.change, Change::Missing | Change::Mode { .. }) => {}
        _ => changes.conflicts.push(own.clone()),
    }
}

/// Returns how the files of two versions differ.
fn compare(before: &Listing, after: &Listing) -> Changes {
    let mut changes = Changes::default();
    for (path, node) in after.entries() {
        match (before.get(&path), node) {
            (Some(old), _) if old == node => {}
            (Some(Node::Directory(_)) | None, Node::Directory(_)) => {}
            (None, _) => changes.added.push(path),
            (Some(_), _) => changes.modified.push(path),
        }
    }
    let gone = |(path, node): (String, &Node)| {
        (!matches!(node, Node::Directory(_)) && after.get(&path).is_none()).then_some(path)
    };
    changes.removed = before.entries().into_iter().filter_map(gone).collect();
    changes
}

/// Returns the files of a listing.
pub fn files(listing: &Listing) -> Vec<String> {
    compare(&Listing::default(), listing).added
}
