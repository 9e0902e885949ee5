//! Trees of the cache: made of images of the store, checked, and removed where nobody needs them.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::drift::differences;
use super::fsck::{Problem, Report};
use crate::image::NAMESPACE;
use crate::layer::{Listing, UnpackOptions};
use crate::reference::Reference;
use crate::store::layout::{Entry, Layout};
use crate::store::skill::{for_host, instances, mountable};
use crate::store::unpacked::{Cache, Kept};
use crate::store::{self, Found, trusted};

/// How long a tree stays that was used: whoever has used it may just be about to start a container.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);

/// A tree of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The image as the store has it.
    pub reference: String,
    /// Digest of its manifest.
    pub digest: String,
    /// The skill's namespace and name.
    pub skill: (String, String),
    /// Where the tree is.
    pub path: String,
}

/// Finds an image in the store and returns its tree, which is made where there is none.
///
/// # Errors
/// If the image is not there, is no skill image, or is damaged.
pub fn tree(layout: &Layout, cache: &Cache, text: &str, options: &UnpackOptions<'_>) -> Result<Tree> {
    let context = || format!("Unpacking {text}");
    let found = store::open(layout, text).with_context(context)?;
    trusted::found(layout, &found, text, None).with_context(context)?;
    let instance = for_host(instances(layout, &found.entry.descriptor)?).with_context(context)?;
    let layer = mountable(layout, &instance, text).with_context(context)?;
    let path =
        cache.tree(&layer.expected, &|| layer.open(layout), options).with_context(context)?.path.display().to_string();
    let reference = found.entry.name.clone().unwrap_or_else(|| text.to_owned());
    Ok(Tree { digest: found.entry.digest().to_owned(), skill: named(&found, &reference), path, reference })
}

/// Returns namespace and name of a skill of the store.
///
/// # Errors
/// If it is not there.
pub fn skill(layout: &Layout, text: &str) -> Result<(String, String)> {
    let found = store::open(layout, text)?;
    let reference = found.entry.name.clone().unwrap_or_else(|| text.to_owned());
    Ok(named(&found, &reference))
}

fn named(found: &Found, reference: &str) -> (String, String) {
    let basename = || Some(reference.parse::<Reference>().ok()?.basename().to_owned());
    let name = found.info.skill_name().map(str::to_owned).or_else(basename).unwrap_or_default();
    (found.info.get(NAMESPACE).to_owned(), name)
}

/// Returns the images of the store that a tree of the cache is made of.
///
/// # Errors
/// If the store cannot be read.
pub fn images_of(layout: &Layout, tree: &str) -> Result<Vec<Entry>> {
    let diff_id = format!("sha256:{}", tree.rsplit('/').next().unwrap_or(tree));
    let mut entries = layout.entries().context("Looking for the images of a tree")?;
    entries.retain(|entry| {
        // Of what cannot be read or mounted there is no tree.
        let instance = instances(layout, &entry.descriptor).and_then(for_host);
        let layer = instance.and_then(|instance| mountable(layout, &instance, entry.digest()));
        layer.is_ok_and(|layer| layer.expected.diff_id.as_deref() == Some(&diff_id))
    });
    Ok(entries)
}

/// What was removed.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Names of the trees.
    pub trees: Vec<String>,
    /// Trees that stay because something names them, or used them lately.
    pub kept: usize,
}

/// Removes the trees that `named` says nothing of, and that nobody has used since [`GRACE`]; a tree that was replaced goes as
/// soon as nothing names it.
///
/// # Errors
/// If the cache cannot be read or a tree not removed.
pub fn prune(cache: &Cache, named: &dyn Fn(&str) -> bool, dry_run: bool) -> Result<Removed> {
    let now = SystemTime::now();
    let recent = |used: SystemTime| now.duration_since(used).unwrap_or_default() < GRACE;
    let goes = |kept: &Kept| !named(&kept.name) && (kept.old || !kept.used.is_some_and(recent));
    let all = cache.list().context("Listing the cache")?;
    let trees = match dry_run {
        true => all.iter().filter(|kept| goes(kept)).map(|kept| kept.name.clone()).collect(),
        false => cache.remove(goes).context("Pruning the cache")?,
    };
    let kept = all.len() - trees.len().min(all.len());
    Ok(Removed { trees, kept })
}

/// Compares each tree with the layer that it was made of, where the store still has that.
///
/// # Errors
/// If store or cache cannot be read; trees that differ are problems in the report.
pub fn fsck(layout: &Layout, cache: &Cache, report: &mut Report, options: &UnpackOptions<'_>) -> Result<()> {
    let trees: Vec<Kept> = cache.list().context("Checking the cache")?.into_iter().filter(|kept| !kept.old).collect();
    let mut checked = HashSet::new();
    for entry in layout.all_entries().context("Checking the cache")? {
        // What cannot be read is a problem of the store, which has been told of.
        let instance = instances(layout, &entry.descriptor).and_then(for_host);
        let Ok(layer) = instance.and_then(|instance| mountable(layout, &instance, entry.digest())) else { continue };
        let own = |tree: &&Kept| Some(&tree.diff_id) == layer.expected.diff_id.as_ref();
        let Some(tree) = trees.iter().find(own).filter(|tree| checked.insert(tree.name.clone())) else { continue };
        let object = cache.path().join(&tree.name).display().to_string();
        let listed = layer.open(layout).and_then(|blob| Listing::read(blob, &layer.expected, options));
        let found = listed.and_then(|(listing, _)| differences(&listing, &cache.open(&tree.name)?, options));
        let message = found.map_or_else(|e| Some(e.to_string()), |found| Some(found.first()?.to_string()));
        report.problems.extend(message.map(|message| Problem { image: object, message, store: None }));
    }
    // What the store has no layer of was taken from containers-storage, or is left of an image that is gone.
    for tree in trees.iter().filter(|tree| !checked.contains(&tree.name)) {
        if !cache.is_sealed(&tree.name)? {
            let image = cache.path().join(&tree.name).display().to_string();
            report.problems.push(Problem { image, message: "it is not as it was unpacked".into(), store: None });
        }
    }
    report.trees = checked.len();
    Ok(())
}
