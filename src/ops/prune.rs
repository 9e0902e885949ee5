//! `prune`: takes superseded states out of the index and frees the blobs that nothing names.
//!
//! Of the entries of one name and version the one with the highest state stays, as in the Go tool. An image that an
//! installed skill's receipt pins stays in any case, and so do referrers (signatures, SBOMs) of an image that stays.
//!
//! Blobs are swept while nobody adds any (see [`Layout::sweeping`]). The Go tool takes no lock, so that a blob younger
//! than the grace period is spared as well: one of its builds may be about to name it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use cap_std::fs::Dir;
use nix::fcntl::Flock;
use oci_spec::image::Descriptor;
use serde::Serialize;
use serde_json::Value;

use crate::card;
use crate::error::Error;
use crate::image::{Info, oci};
use crate::lifecycle::State;
use crate::lock::try_lock_dir;
use crate::receipt::Receipt;
use crate::reference::split_tag;
use crate::skills::{SkillsDir, read_bounded};
use crate::store::attached;
use crate::store::layout::{Entry, Layout, TMP, entry_name, is_nameless, take_name};

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
/// If a manifest is damaged: what it names cannot be told from garbage then. Nothing is changed in that case.
pub fn prune(layout: &Layout, options: &Options) -> Result<Pruned> {
    let context = "Pruning";
    // A dry run needs no lock, so that it works in a read-only store.
    let sweeping = (!options.dry_run).then(|| layout.sweeping()).transpose().context(context)?;
    if let Some(malformed) = layout.malformed().context(context)?.into_iter().next() {
        return Err(Error::damaged("an entry of index.json", malformed)).context(context);
    }
    let entries = layout.entries().context(context)?;
    let superseded = superseded(layout, &entries).context(context)?;
    let goes = |name: &str, digest: &str| superseded.iter().any(|(n, d, _)| n == name && d == digest);
    let living = living(layout, &entries, &goes, &options.pinned).context(context)?;
    if sweeping.is_some() {
        layout.update(|list| drop_entries(list, &goes, &living)).context(context)?;
    }
    let removed = superseded.into_iter().map(|(reference, _, status)| Removed { reference, status });
    let mut pruned = Pruned { removed: removed.collect(), ..Pruned::default() };
    pruned.removed.sort_by(|a, b| a.reference.cmp(&b.reference));
    sweep(layout, options, &living, &mut pruned).context(context)?;
    Ok(pruned)
}

/// Drops the entries that go, and those without a name that nothing needs.
fn drop_entries(
    list: &mut Vec<Value>,
    goes: &dyn Fn(&str, &str) -> bool,
    living: &HashSet<String>,
) -> Result<(), Error> {
    let digest = |entry: &Value| entry["digest"].as_str().unwrap_or_default().to_owned();
    let superseded: HashSet<(String, String)> = list
        .iter()
        .filter_map(|entry| Some((entry_name(entry)?.to_owned(), digest(entry))))
        .filter(|(name, digest)| goes(name, digest))
        .collect();
    take_name(list, |name| superseded.iter().any(|(gone, _)| gone == name));
    let named: HashSet<String> = list.iter().filter(|entry| entry_name(entry).is_some()).map(digest).collect();
    // What has a name needs no memory of another one that it had.
    let needed = |entry: &Value| {
        let digest = digest(entry);
        living.contains(&digest) && !(is_nameless(entry) && named.contains(&digest))
    };
    list.retain(|entry| entry_name(entry).is_some() || needed(entry));
    Ok(())
}

/// Returns the digests of all blobs that something needs: a name that stays, an installed skill, or the subject of a
/// referrer, whose own subject may be a referrer again.
fn living(
    layout: &Layout,
    entries: &[Entry],
    goes: &dyn Fn(&str, &str) -> bool,
    pinned: &BTreeSet<String>,
) -> Result<HashSet<String>> {
    let stays = |entry: &&Entry| entry.name.as_deref().is_some_and(|name| !goes(name, entry.digest()));
    let mut roots: Vec<Descriptor> = entries.iter().filter(stays).map(|entry| entry.descriptor.clone()).collect();
    roots.extend(pinned.iter().filter_map(|digest| layout.describe(digest)));
    let mut living = HashSet::new();
    reach(layout, roots, &mut living)?;
    let mut referrers = Vec::new();
    for entry in entries.iter().filter(|entry| entry.name.is_none()) {
        let manifest: Value = match layout.read_json(&entry.descriptor) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            // Without a name and not what its digest says: nothing can need it.
            Err(Error::Damaged { .. }) => continue,
            Err(e) => return Err(e.into()),
        };
        // Images of signatures have no subject of their own.
        if let Some(subject) = attached::subject(entry).or_else(|| manifest["subject"]["digest"].as_str()) {
            referrers.push((entry, subject.to_owned()));
        }
    }
    loop {
        let (found, rest): (Vec<_>, Vec<_>) = referrers.into_iter().partition(|(_, subject)| living.contains(subject));
        if found.is_empty() {
            return Ok(living);
        }
        reach(layout, found.iter().map(|(entry, _)| entry.descriptor.clone()).collect(), &mut living)?;
        referrers = rest;
    }
}

/// Returns name, digest and state of each entry that has a sibling of the same name and version in a higher state.
fn superseded(layout: &Layout, entries: &[Entry]) -> Result<Vec<(String, String, String)>> {
    let mut groups: BTreeMap<(String, String), Vec<(State, &Entry)>> = BTreeMap::new();
    for entry in entries {
        let Some(name) = &entry.name else { continue };
        if name.contains('@') {
            continue;
        }
        // What is neither image nor index has no state.
        let manifest = layout.read_json(&entry.descriptor)?;
        let Ok(info) = Info::parse(&manifest, name) else { continue };
        if let Some(state) = info.state() {
            let key = (split_tag(name).0.to_owned(), info.get(oci::VERSION).to_owned());
            groups.entry(key).or_default().push((state, entry));
        }
    }
    let mut result = Vec::new();
    for group in groups.into_values() {
        let highest = group.iter().map(|(state, _)| *state).max();
        for (state, entry) in group {
            if Some(state) < highest {
                result.push((entry.name.clone().unwrap_or_default(), entry.digest().to_owned(), state.to_string()));
            }
        }
    }
    Ok(result)
}

/// Adds the digests of all blobs that manifests and indexes reach.
fn reach(layout: &Layout, mut queue: Vec<Descriptor>, living: &mut HashSet<String>) -> Result<()> {
    while let Some(descriptor) = queue.pop() {
        if !living.insert(descriptor.digest().to_string()) {
            continue;
        }
        let damaged = |what: &str, e: serde_json::Error| Error::damaged(format!("{what} {}", descriptor.digest()), e);
        let bytes = layout.read_json(&descriptor)?;
        let manifest: Value = serde_json::from_slice(&bytes).map_err(|e| damaged("manifest", e))?;
        for child in manifest["manifests"].as_array().into_iter().flatten() {
            queue.push(serde_json::from_value(child.clone()).map_err(|e| damaged("index", e))?);
        }
        let blobs = manifest["layers"].as_array().into_iter().flatten().chain([&manifest["config"]]);
        living.extend(blobs.filter_map(|blob| blob["digest"].as_str().map(str::to_owned)));
    }
    Ok(())
}

/// Frees blobs that are not living, and unfinished files; both only beyond the grace period.
fn sweep(layout: &Layout, options: &Options, living: &HashSet<String>, pruned: &mut Pruned) -> Result<()> {
    let now = SystemTime::now();
    let old = |modified: SystemTime| now.duration_since(modified).unwrap_or_default() >= options.grace;
    // The index is written in .tmp by those who hold this.
    let _changing = (!options.dry_run).then(|| layout.changing()).transpose()?;
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
            let lock = metadata.is_dir().then(|| unused(&dir, &name));
            if matches!(lock, Some(None)) {
                continue;
            }
            let bytes = if metadata.is_dir() { tree_size(&dir, &name) } else { metadata.len() };
            if !options.dry_run {
                remove(&dir, &name, metadata.is_dir()).with_context(|| format!("Removing {directory}/{name}"))?;
            }
            pruned.blobs += u64::from(counts);
            pruned.bytes = pruned.bytes.saturating_add(bytes);
        }
    }
    Ok(())
}

/// Locks a directory that nobody uses; `None` for one in use, or where that cannot be told.
fn unused(dir: &Dir, name: &str) -> Option<Flock<File>> {
    dir.open_dir(name).and_then(|dir| try_lock_dir(&dir)).ok().flatten()
}

/// Returns the sum of the sizes of the files below a private layout; what cannot be read counts as nothing.
fn tree_size(dir: &Dir, name: &str) -> u64 {
    let entries = dir.open_dir(name).and_then(|dir| Ok((dir.entries()?, dir)));
    let Ok((entries, dir)) = entries else { return 0 };
    entries.flatten().fold(0, |sum: u64, entry| {
        let size = match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => tree_size(&dir, &entry.file_name().to_string_lossy()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        };
        sum.saturating_add(size)
    })
}

fn remove(dir: &Dir, name: &str, is_dir: bool) -> io::Result<()> {
    match if is_dir { dir.remove_dir_all(name) } else { dir.remove_file(name) } {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Returns the manifest digests that the skills of a directory pin: those that are installed, by their receipts or by the
/// Go tool's provenance, also where a skill is a symbolic link, and those that `rollback` goes back to.
///
/// # Errors
/// If a receipt or card is there and cannot be read: what it pins must not be freed.
pub fn pins(skills: &SkillsDir) -> Result<BTreeSet<String>> {
    let mut pins = BTreeSet::new();
    for name in skills.receipts()? {
        // Also of a skill that is not there any more: it may have been moved away for a moment.
        if let Some(bytes) = skills.receipt_bytes(&name)? {
            pins.extend(
                Receipt::digests(&bytes)
                    .with_context(|| format!("Reading the receipt {name}.json in {}", skills.path().display()))?,
            );
        }
    }
    for name in skills.names()? {
        let shown = || format!("Reading {}", skills.path().join(&name).join(card::FILE).display());
        let Ok(dir) = skills.follow(&name) else { continue };
        let card = read_bounded(&dir, card::FILE, card::MAX_CARD as u64).with_context(shown)?.unwrap_or_default();
        let card = String::from_utf8_lossy(&card).into_owned();
        // Not parsed: what is wrong elsewhere in the card must not free the image.
        let commits = card.lines().filter_map(|line| line.trim().strip_prefix("commit:"));
        let digests = commits.map(|commit| commit.trim().trim_matches(['"', '\'']).to_owned());
        pins.extend(digests.filter(|digest| crate::reference::is_digest(digest)));
    }
    Ok(pins)
}
