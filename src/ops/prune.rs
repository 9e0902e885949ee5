//! `prune`: takes superseded states out of the index and frees the blobs that nothing names.
//!
//! Of the entries of one name and version the one with the highest state stays, as in the Go tool. An image that an
//! installed skill's receipt pins stays in any case, and so do referrers (signatures, SBOMs) of an image that stays.
//!
//! Blobs are swept while nobody adds any (see [`Layout::sweeping`]). The Go tool takes no lock, so that a blob younger
//! than the grace period is spared as well: one of its builds may be about to name it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use cap_std::fs::Dir;
use serde::Serialize;
use serde_json::Value;

use crate::error::Error;
use crate::image::oci;
use crate::lifecycle::State;
use crate::reference::split_tag;
use crate::store::layout::{Entry, Layout, Sweeping, TMP, entry_name};

/// How old a blob must be before it is freed: longer than any build of the Go tool that was measured (20 s for 500 MB).
pub const DEFAULT_GRACE: Duration = Duration::from_secs(3600);

/// What to prune.
#[derive(Debug)]
pub struct Options {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Spare blobs that are younger.
    pub grace: Duration,
    /// Manifest digests that installed skills pin.
    pub pinned: BTreeSet<String>,
}

/// What was pruned, or would be.
#[derive(Debug, Default, Serialize)]
pub struct Pruned {
    /// The names that went.
    pub removed: Vec<Removed>,
    /// Number of blobs that were freed.
    pub blobs: u64,
    /// Their sizes, in bytes, with those of unfinished files.
    pub bytes: u64,
    /// Number of unnamed blobs that are younger than the grace period.
    pub spared: u64,
}

/// A name that was superseded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The reference.
    pub reference: String,
    /// Its state.
    pub status: String,
}

/// Prunes a store.
///
/// # Errors
/// If a manifest is damaged: what it names cannot be told from garbage then.
pub fn prune(layout: &Layout, options: &Options) -> Result<Pruned> {
    let sweeping = layout.sweeping().context("Pruning")?;
    let (removed, kept) = prune_index(layout, options).context("Pruning")?;
    let mut pruned = Pruned {
        removed,
        ..Pruned::default()
    };
    let living = reachable(layout, &kept).context("Pruning")?;
    sweep(layout, &sweeping, options, &living, &mut pruned).context("Pruning")?;
    Ok(pruned)
}

/// Drops superseded and unnamed entries; returns the names that went and the entries that stay.
fn prune_index(layout: &Layout, options: &Options) -> Result<(Vec<Removed>, Vec<Entry>)> {
    let entries = layout.entries()?;
    let superseded = superseded(layout, &entries)?;
    let goes = |name: Option<&str>, digest: &str| match name {
        Some(name) => superseded.iter().any(|(n, d, _)| n == name && d == digest),
        None => false,
    };
    let named: HashSet<&str> = entries
        .iter()
        .filter(|e| e.name.is_some() && !goes(e.name.as_deref(), e.digest()))
        .map(Entry::digest)
        .chain(options.pinned.iter().map(String::as_str))
        .collect();
    let referrers = living_referrers(layout, &entries, &named)?;
    let stays = |name: Option<&str>, digest: &str| match name {
        Some(_) => !goes(name, digest),
        None => options.pinned.contains(digest) || referrers.contains(digest),
    };
    let mut removed: Vec<Removed> = superseded
        .iter()
        .map(|(reference, _, status)| Removed {
            reference: reference.clone(),
            status: status.clone(),
        })
        .collect();
    removed.sort_by(|a, b| a.reference.cmp(&b.reference));
    if options.dry_run {
        let kept = entries.iter().filter(|e| {
            stays(e.name.as_deref(), e.digest()) || options.pinned.contains(e.digest())
        });
        return Ok((removed, kept.cloned().collect()));
    }
    layout.update(|list| {
        for entry in list.iter_mut() {
            let digest = entry["digest"].as_str().unwrap_or_default().to_owned();
            if options.pinned.contains(&digest) && goes(entry_name(entry), &digest) {
                // Pinned by an installed skill: the name goes, the image stays.
                if let Some(annotations) = entry["annotations"].as_object_mut() {
                    annotations.shift_remove(crate::store::layout::REF_NAME);
                }
            }
        }
        list.retain(|entry| {
            stays(
                entry_name(entry),
                entry["digest"].as_str().unwrap_or_default(),
            )
        });
        Ok::<_, Error>(())
    })?;
    Ok((removed, layout.entries()?))
}

/// Returns name, digest and state of each entry that has a sibling of the same name and version in a higher state.
fn superseded(layout: &Layout, entries: &[Entry]) -> Result<Vec<(String, String, String)>> {
    let mut groups: BTreeMap<(String, String), Vec<(State, &Entry)>> = BTreeMap::new();
    for entry in entries {
        let Some(name) = &entry.name else { continue };
        if name.contains('@') {
            continue;
        }
        let found = crate::store::read(layout, entry.clone());
        let Ok(found) = found else { continue };
        if let Some(state) = found.info.state() {
            let key = (
                split_tag(name).0.to_owned(),
                found.info.get(oci::VERSION).to_owned(),
            );
            groups.entry(key).or_default().push((state, entry));
        }
    }
    let mut result = Vec::new();
    for group in groups.into_values() {
        let highest = group.iter().map(|(state, _)| *state).max();
        for (state, entry) in group {
            if Some(state) < highest {
                result.push((
                    entry.name.clone().unwrap_or_default(),
                    entry.digest().to_owned(),
                    state.to_string(),
                ));
            }
        }
    }
    Ok(result)
}

/// Returns the digests of unnamed manifests whose subject stays, directly or through another referrer.
fn living_referrers(
    layout: &Layout,
    entries: &[Entry],
    named: &HashSet<&str>,
) -> Result<HashSet<String>> {
    let mut subjects = Vec::new();
    for entry in entries.iter().filter(|e| e.name.is_none()) {
        let Ok(bytes) = layout.read_json(&entry.descriptor) else {
            continue;
        };
        let manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if let Some(subject) = manifest["subject"]["digest"].as_str() {
            subjects.push((entry.digest().to_owned(), subject.to_owned()));
        }
    }
    let mut living: HashSet<String> = HashSet::new();
    loop {
        let before = living.len();
        for (digest, subject) in &subjects {
            if named.contains(subject.as_str()) || living.contains(subject) {
                living.insert(digest.clone());
            }
        }
        if living.len() == before {
            return Ok(living);
        }
    }
}

/// Returns the digests of all blobs that the entries reach.
fn reachable(layout: &Layout, entries: &[Entry]) -> Result<HashSet<String>> {
    let mut living = HashSet::new();
    let mut queue: Vec<oci_spec::image::Descriptor> =
        entries.iter().map(|e| e.descriptor.clone()).collect();
    while let Some(descriptor) = queue.pop() {
        if !living.insert(descriptor.digest().to_string()) {
            continue;
        }
        let bytes = layout.read_json(&descriptor)?;
        let manifest: Value = serde_json::from_slice(&bytes).map_err(|e| Error::Damaged {
            object: format!("manifest {}", descriptor.digest()),
            reason: e.to_string(),
        })?;
        for child in manifest["manifests"].as_array().into_iter().flatten() {
            let child = serde_json::from_value(child.clone()).map_err(|e| Error::Damaged {
                object: format!("index {}", descriptor.digest()),
                reason: e.to_string(),
            })?;
            queue.push(child);
        }
        let blobs = manifest["layers"]
            .as_array()
            .into_iter()
            .flatten()
            .chain([&manifest["config"]]);
        living.extend(blobs.filter_map(|blob| blob["digest"].as_str().map(str::to_owned)));
    }
    Ok(living)
}

/// Frees blobs that are not living, and unfinished files; both only beyond the grace period.
fn sweep(
    layout: &Layout,
    _right: &Sweeping,
    options: &Options,
    living: &HashSet<String>,
    pruned: &mut Pruned,
) -> Result<()> {
    let now = SystemTime::now();
    let old =
        |modified: SystemTime| now.duration_since(modified).unwrap_or_default() >= options.grace;
    for (directory, counts) in [("blobs/sha256", true), (TMP, false), ("ingest", false)] {
        let dir = match layout.dir().open_dir(directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            result => result.with_context(|| format!("Opening {directory}"))?,
        };
        for entry in dir.entries()? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if counts && living.contains(&format!("sha256:{name}")) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if !metadata.modified().is_ok_and(|m| old(m.into_std())) {
                pruned.spared += u64::from(counts);
                continue;
            }
            if !options.dry_run {
                remove(&dir, &name, metadata.is_dir())
                    .with_context(|| format!("Removing {directory}/{name}"))?;
            }
            pruned.blobs += u64::from(counts);
            pruned.bytes += if metadata.is_file() {
                metadata.len()
            } else {
                0
            };
        }
    }
    Ok(())
}

fn remove(dir: &Dir, name: &str, is_dir: bool) -> io::Result<()> {
    match if is_dir {
        dir.remove_dir_all(name)
    } else {
        dir.remove_file(name)
    } {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Returns the manifest digests that skills installed below the given directories pin, by our receipts or by the Go
/// tool's provenance.
pub fn pins(skills_dirs: &[Dir]) -> BTreeSet<String> {
    let mut pins = BTreeSet::new();
    for dir in skills_dirs {
        for receipt in files(dir, ".skillimage/receipts") {
            let value: Value = serde_json::from_str(&receipt).unwrap_or_default();
            pins.extend(value["digest"].as_str().map(str::to_owned));
        }
        let Ok(entries) = dir.entries() else { continue };
        for skill in entries.flatten() {
            let card = skill
                .open_dir()
                .and_then(|d| d.read_to_string("skill.yaml"))
                .unwrap_or_default();
            let commit = card
                .lines()
                .find_map(|line| line.trim().strip_prefix("commit:"));
            let digest = commit.map(|c| c.trim().trim_matches(['"', '\'']).to_owned());
            pins.extend(digest.filter(|d| crate::reference::is_digest(d)));
        }
    }
    pins
}

fn files(dir: &Dir, path: &str) -> Vec<String> {
    let Ok(dir) = dir.open_dir(path) else {
        return Vec::new();
    };
    let Ok(entries) = dir.entries() else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| dir.read_to_string(e.file_name()).ok())
        .collect()
}
