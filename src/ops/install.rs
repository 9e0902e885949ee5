//! `install`: an image of the store into a directory of skills, whole or not at all.
//!
//! What is there already is compared with what was installed, by its receipt. Files that the user added stay; files that
//! the user changed stop it, and are named. With force they are replaced, and kept in a backup.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cap_std::fs::Dir;
use oci_spec::image::Descriptor;
use serde::Serialize;

use super::drift::{Change, Difference, Kind, differences};
use super::extract;
use super::present::{Present, present};
use super::provenance::{self, version_of_tag};
use crate::error::Error;
use crate::frontmatter::FILE as SKILL_FILE;
use crate::image::{Info, oci};
use crate::layer::{Listing, Node, UnpackOptions, unpack_listed};
use crate::process::Cancel;
use crate::receipt::{Image, Receipt};
use crate::reference::Reference;
use crate::skills::{Locked, SkillsDir, carry, check_name};
use crate::store::layout::Layout;

/// Most conflicts that an error names.
const NAMED: usize = 5;

/// An image of the store that is to be installed.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The store.
    pub layout: &'a Layout,
    /// The image's manifest, or an index with an image for this host.
    pub manifest: &'a Descriptor,
    /// What the manifest says.
    pub info: &'a Info,
    /// What it is called, with its registry.
    pub reference: &'a Reference,
    /// The skill's directory.
    pub name: &'a str,
}

/// How it is installed.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Whether what is in the way is replaced.
    pub force: bool,
    /// Whether it is only said what would change.
    pub dry_run: bool,
    /// The images that `rollback` goes back to; where this is not given, those of before and the one that is replaced.
    pub previous: Option<&'a [Image]>,
    /// How the layer is read.
    pub unpack: UnpackOptions<'a>,
    /// Ends the waiting for others.
    pub cancel: &'a Cancel,
}

/// A skill that is installed, or would be.
#[derive(Debug, Clone, Serialize)]
pub struct Installed {
    /// Its directory's name.
    pub name: String,
    /// The whole reference.
    pub reference: String,
    /// The manifest's digest.
    pub digest: String,
    /// Its version.
    pub version: String,
    /// The version of the one that was there.
    pub before: Option<String>,
    /// Whether anything was written, or would be: it may be there already.
    pub written: bool,
    /// What changes.
    #[serde(flatten)]
    pub changes: Changes,
    /// Where the user's files are that were replaced.
    pub backup: Option<PathBuf>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// [`Listing::digest`] of what the image unpacks to.
    pub content_digest: String,
}

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
    kept_paths: Vec<PathBuf>,
}

/// Returns the name of a skill's directory: the card's, else the reference's last part.
pub fn directory<'a>(info: &'a Info, reference: &'a Reference) -> &'a str {
    info.skill_name().unwrap_or(reference.basename())
}

/// Installs an image.
///
/// # Errors
/// If the image is damaged, no skill, or has a name that no directory should have; if something else has that name, or
/// the user has changed what is replaced, and `force` is not given. The directory is then as it was.
pub fn install(source: &Source<'_>, skills: &SkillsDir, options: &Options<'_>) -> Result<Installed> {
    check_name(source.name)?;
    let locked = skills.lock(options.cancel)?;
    check_case(skills, source.name)?;
    let there = present(skills, source.name, Some(source.layout), &options.unpack)
        .or_else(|e| if options.force { Ok(Present::unknown(skills, source.name)?) } else { Err(e) })?;
    let mut installed = Installed {
        name: source.name.to_owned(),
        reference: source.reference.to_string(),
        digest: source.manifest.digest().to_string(),
        version: version(source),
        before: there.version().map(str::to_owned),
        written: false,
        changes: Changes::default(),
        backup: None,
        warnings: Vec::new(),
        content_digest: String::new(),
    };
    if is_same(&there, &installed, skills, &options.unpack)? {
        installed.content_digest = there.receipt().map(|there| there.image.content_digest.clone()).unwrap_or_default();
        return Ok(installed);
    }
    let staged = stage(source, &locked, options)?;
    installed.content_digest.clone_from(&staged.receipt.image.content_digest);
    installed.changes = changes(&there, &staged, skills, source.name, &options.unpack)?;
    installed.written = true;
    if options.dry_run {
        return Ok(installed);
    }
    if !installed.changes.conflicts.is_empty() && !options.force {
        return Err(conflict(source.name, &there, &installed.changes.conflicts).into());
    }
    publish(source, skills, &locked, staged, options, &mut installed)?;
    Ok(installed)
}

/// A skill that was made in the work directory.
struct Staged {
    dir: Dir,
    receipt: Receipt,
    /// What is in it.
    listing: Listing,
    /// What the image unpacks to: the same with another card.
    of_image: Listing,
}

fn stage(source: &Source<'_>, locked: &Locked<'_>, options: &Options<'_>) -> Result<Staged> {
    let layer = extract::layer(source.layout, source.manifest)?;
    // What a crash has left there is in nobody's way, and all is brought to disk at once, later.
    let unpack = UnpackOptions { replace: true, durable: false, ..options.unpack };
    let file = layer.open(source.layout)?;
    let (_, mut listing) = unpack_listed(file, &layer.expected, locked.work(), source.name, &unpack)?;
    if !matches!(listing.get(SKILL_FILE), Some(Node::File(_))) {
        let reason = format!("{} has no {SKILL_FILE}: it is no skill", source.reference);
        return Err(Error::Unavailable { reason, hint: None }.into());
    }
    let of_image = listing.clone();
    let dir = locked.work().open_dir(source.name)?;
    let image = Image {
        reference: source.reference.to_string(),
        digest: source.manifest.digest().to_string(),
        skill_version: version(source),
        content_digest: listing.digest(),
    };
    let card = provenance::write(&dir, &mut listing, source.name, source.reference, &image.digest)?;
    let mut receipt = Receipt::new(source.name, image, &listing);
    receipt.card = card;
    Ok(Staged { dir, receipt, listing, of_image })
}

fn publish(
    source: &Source<'_>,
    skills: &SkillsDir,
    locked: &Locked<'_>,
    mut staged: Staged,
    options: &Options<'_>,
    installed: &mut Installed,
) -> Result<()> {
    let name = source.name;
    let changes = &installed.changes;
    if let Some(old) = skills.open(name)? {
        for path in &changes.kept_paths {
            carry(&old, &staged.dir, path).with_context(|| format!("Keeping {}", path.display()))?;
        }
    }
    if !changes.conflicts.is_empty() {
        installed.backup = Some(keep(skills, locked, name, &changes.conflicts)?);
    }
    // Also where the directory is gone: somebody may have moved it away.
    let before = skills.receipt(name).ok().flatten();
    staged.receipt.previous = match (options.previous, before) {
        (Some(previous), _) => previous.to_vec(),
        (None, Some(before)) if before.image.digest == staged.receipt.image.digest => before.previous,
        (None, Some(before)) => before.history(),
        (None, None) => Vec::new(),
    };
    if !locked.publish(name, &staged.receipt)? {
        let left = skills.path().join(crate::skills::OWN).join("work").join(name);
        installed.warnings.push(format!("what was there before could not be removed: {}", left.display()));
    }
    Ok(())
}

/// Makes a skill's directory a relative symbolic link to a copy that agents share. Returns whether anything was written.
///
/// # Errors
/// If something else has that name, or the user has files in it, and `force` is not given.
pub fn link(
    source: &Source<'_>,
    skills: &SkillsDir,
    target: &str,
    content_digest: &str,
    options: &Options<'_>,
) -> Result<(bool, Option<PathBuf>)> {
    let name = source.name;
    let locked = skills.lock(options.cancel)?;
    check_case(skills, name)?;
    let there = present(skills, name, Some(source.layout), &options.unpack)
        .or_else(|e| if options.force { Ok(Present::unknown(skills, name)?) } else { Err(e) })?;
    let image = Image {
        reference: source.reference.to_string(),
        digest: source.manifest.digest().to_string(),
        skill_version: version(source),
        content_digest: content_digest.to_owned(),
    };
    let mut receipt = Receipt::of_link(name, image, target);
    if there.receipt().is_some_and(|there| there.link == receipt.link && there.image == receipt.image) {
        return Ok((false, None));
    }
    let own = match (&there, skills.open(name)?) {
        (Present::Foreign(kind), None) => vec![whole(name, *kind)],
        (_, None) => Vec::new(),
        (_, Some(dir)) => differences(&there.listing()?.unwrap_or_default(), &dir, &options.unpack)?
            .into_iter()
            .filter(|difference| there.is_of_user(difference))
            .collect(),
    };
    if !own.is_empty() && !options.force {
        return Err(conflict(name, &there, &own).into());
    }
    if options.dry_run {
        return Ok((true, None));
    }
    let backup = if own.is_empty() { None } else { Some(keep(skills, &locked, name, &own)?) };
    receipt.previous = there.receipt().map(|there| there.previous.clone()).unwrap_or_default();
    locked.work().symlink_contents(target, name).with_context(|| format!("Linking {name}"))?;
    locked.publish(name, &receipt)?;
    Ok((true, backup))
}

/// Copies what is the user's into a new backup, and returns its path.
fn keep(skills: &SkillsDir, locked: &Locked<'_>, name: &str, own: &[Difference]) -> Result<PathBuf> {
    let (backup, path) = locked.backup(name)?;
    match skills.open(name)? {
        Some(old) => own.iter().try_for_each(|difference| {
            carry(&old, &backup, &difference.os_path).with_context(|| format!("Keeping {}", difference.path))
        })?,
        None => carry(skills.dir(), &backup, Path::new(name)).with_context(|| format!("Keeping {name}"))?,
    }
    Ok(path)
}

/// Returns the version that an image is installed as: its tag's where that is one, else its own.
fn version(source: &Source<'_>) -> String {
    version_of_tag(source.reference).unwrap_or_else(|| source.info.get(oci::VERSION).to_owned())
}

/// Returns whether the image is installed already, by the same name, and nobody has changed it.
fn is_same(there: &Present, wanted: &Installed, skills: &SkillsDir, options: &UnpackOptions<'_>) -> Result<bool> {
    let Present::Ours(receipt) = there else { return Ok(false) };
    if receipt.link.is_some() || receipt.image.digest != wanted.digest || receipt.image.reference != wanted.reference {
        return Ok(false);
    }
    let Some(dir) = skills.open(&wanted.name)? else { return Ok(false) };
    let found = differences(&receipt.installed(&wanted.name)?, &dir, options)?;
    Ok(found.iter().all(|difference| difference.change == Change::Extra))
}

/// Decides what becomes of every file. A file is the user's where it is not as it was installed.
fn changes(
    there: &Present,
    staged: &Staged,
    skills: &SkillsDir,
    name: &str,
    options: &UnpackOptions<'_>,
) -> Result<Changes> {
    let Some(dir) = skills.open(name)? else {
        let conflicts = match there {
            Present::Foreign(kind) => vec![whole(name, *kind)],
            _ => Vec::new(),
        };
        let added = files(&staged.listing);
        return Ok(Changes { added, conflicts, ..Changes::default() });
    };
    let new = differences(&staged.listing, &dir, options)?;
    let (before, own) = match there.listing()? {
        Some(listing) => {
            let found = differences(&listing, &dir, options)?;
            (listing, found.into_iter().filter(|difference| there.is_of_user(difference)).collect())
        }
        // Nothing vouches for what is there but the image itself, where somebody has unpacked it there.
        None => {
            let found = differences(&staged.of_image, &dir, options)?;
            (Listing::default(), found.into_iter().filter(|difference| difference.change.is_work()).collect::<Vec<_>>())
        }
    };
    let mut changes = compare(&before, &staged.listing);
    for difference in own {
        settle(&difference, &new, there.listing()?.is_some(), &mut changes);
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

fn files(listing: &Listing) -> Vec<String> {
    compare(&Listing::default(), listing).added
}

fn whole(name: &str, found: Kind) -> Difference {
    Difference { path: name.to_owned(), change: Change::Kind { found }, os_path: name.into() }
}

fn conflict(name: &str, there: &Present, conflicts: &[Difference]) -> Error {
    let named: Vec<String> = conflicts.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match conflicts.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let named = named.join(", ");
    let (reason, hint) = match there {
        Present::Foreign(Kind::Directory) => (
            format!("{name} exists already, and skillctl did not install it: {named}{more}"),
            "move it away, or replace it with --force, which keeps its files in a backup",
        ),
        Present::Foreign(kind) => (
            format!("{name} exists already: it is {kind}"),
            "move it away, or replace it with --force, which keeps it in a backup",
        ),
        _ => (
            format!("{name} is not as it was installed: {named}{more}"),
            "keep your files elsewhere, or replace them with --force, which keeps them in a backup",
        ),
    };
    Error::Unavailable { reason, hint: Some(hint.to_owned()) }
}

/// Refuses a name that another skill has in another case: on file systems that ignore case they are one directory.
fn check_case(skills: &SkillsDir, name: &str) -> Result<(), Error> {
    let same = |other: &String| other != name && other.eq_ignore_ascii_case(name);
    match skills.names()?.into_iter().find(same) {
        Some(other) => Err(Error::Unavailable {
            reason: format!("{name} and {other}, which is in {} already, differ only in case", skills.path().display()),
            hint: Some(format!("rename or remove {other}")),
        }),
        None => Ok(()),
    }
}
