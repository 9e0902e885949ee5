//! `install`: an image of the store into a directory of skills, whole or not at all.
//!
//! What is there already is compared with what was installed, by its receipt. Files that the user added stay; files that
//! the user changed stop it, and are named. With force they are replaced, and kept in a backup.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cap_std::fs::Dir;
use oci_spec::image::Descriptor;
use serde::Serialize;

use super::changes::{Changes, changes, files};
use super::contents::Contents;
use super::drift::{Change, Difference, Kind, differences};
use super::present::{Present, present};
use super::provenance::{self, version_of_tag};
use super::verify;
use crate::card::{self, Provenance};
use crate::error::Error;
use crate::frontmatter::FILE as SKILL_FILE;
use crate::image::{Info, oci};
use crate::layer::{FileNode, Listing, Node, UnpackOptions, unpack_listed};
use crate::process::Cancel;
use crate::receipt::{Image, Receipt, SignedBy};
use crate::reference::Reference;
use crate::skills::{Locked, OWN, SkillsDir, carry, check_name};
use crate::store::layout::Layout;
use crate::store::trusted;
use crate::trust::check::Verified;
use crate::trust::key::PublicKey;
use crate::trust::policy::Rule;

/// Most conflicts that an error names.
const NAMED: usize = 5;

/// An image of the store that is to be installed.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The store.
    pub layout: &'a Layout,
    /// What is in the image.
    pub contents: &'a Contents,
    /// The image's manifest, or an index with an image for this host.
    pub manifest: &'a Descriptor,
    /// What the manifest says.
    pub info: &'a Info,
    /// What it is called, with its registry.
    pub reference: &'a Reference,
    /// The skill's directory.
    pub name: &'a str,
    /// Where the image was built from, where that was done to install it.
    pub origin: Option<&'a Provenance>,
    /// What has to hold of it beside what the policy of the machine asks for.
    pub trust: Option<&'a Rule>,
}

/// How it is installed.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Whether what is in the way is replaced.
    pub force: bool,
    /// What is to be there before, and what `rollback` goes back to afterwards; where this is not given, the images of
    /// before and the one that is replaced.
    pub back: Option<Back<'a>>,
    /// What the image has to unpack to, where that is known: [`Listing::digest`].
    pub content: Option<&'a str>,
    /// Whether the skill may have come from another repository before.
    pub any_source: bool,
    /// How the layer is read.
    pub unpack: UnpackOptions<'a>,
    /// Ends the waiting for others.
    pub cancel: &'a Cancel,
}

/// A step back.
#[derive(Debug, Clone, Copy)]
pub struct Back<'a> {
    /// The digest of what is installed.
    pub from: &'a str,
    /// What is left to go back to.
    pub rest: &'a [Image],
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
    /// Who has signed it, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
}

/// Installs an image.
///
/// # Errors
/// [`Error::NotVerified`]; if the image is damaged, no skill, or has a name that no directory should have; if something else has that name, or
/// the user has changed what is replaced, and `force` is not given. The directory is then as it was.
pub fn install(source: &Source<'_>, skills: &SkillsDir, options: &Options<'_>) -> Result<Installed> {
    check_name(source.name)?;
    let locked = skills.lock(options.cancel)?;
    let (there, mut installed) = look(source, skills, options)?;
    if is_same(&there, &installed, skills, &options.unpack)? {
        installed.content_digest = there.receipt().map(|there| there.image.content_digest.clone()).unwrap_or_default();
        check_content(source, &installed.content_digest, options)?;
        trusted::pin(source.layout, source.reference, installed.verified.as_ref())?;
        return Ok(installed);
    }
    let staged = stage(source, &locked, installed.verified.as_ref(), options)?;
    installed.content_digest.clone_from(&staged.receipt.image.content_digest);
    check_content(source, &installed.content_digest, options)?;
    installed.changes = changes(&there, (&staged.listing, &staged.of_image), skills, source.name, &options.unpack)?;
    installed.written = true;
    if !installed.changes.conflicts.is_empty() && !options.force {
        return Err(conflict(source.name, &there, &installed.changes.conflicts).into());
    }
    trusted::pin(source.layout, source.reference, installed.verified.as_ref())?;
    publish(source, skills, &locked, (&there, staged), options, &mut installed)?;
    Ok(installed)
}

/// Says what [`install`] would change, without writing anything; `skills` is nothing where the directory is not there yet.
///
/// # Errors
/// As [`install`], but not for what the user has changed.
pub fn preview(source: &Source<'_>, skills: Option<&SkillsDir>, options: &Options<'_>) -> Result<Installed> {
    check_name(source.name)?;
    let list = || -> Result<Listing> {
        let layer = source.contents.layer(source.layout, source.name, &options.unpack)?;
        let (listing, _) = layer.list(source.layout, &options.unpack)?;
        check_skill(source, &listing)?;
        Ok(listing)
    };
    let Some(skills) = skills else {
        let listing = list()?;
        let mut installed = Installed { verified: verify::installed(source, None)?, ..nothing_yet(source) };
        installed.content_digest = listing.digest();
        installed.changes.added = files(&listing);
        installed.written = true;
        return Ok(installed);
    };
    let _reading = skills.reading(options.cancel)?;
    let (there, mut installed) = look(source, skills, options)?;
    if is_same(&there, &installed, skills, &options.unpack)? {
        installed.content_digest = there.receipt().map(|there| there.image.content_digest.clone()).unwrap_or_default();
        return Ok(installed);
    }
    let listing = list()?;
    installed.content_digest = listing.digest();
    let mut after = listing.clone();
    // The card will be another in any case; what exactly is in it does not matter here.
    if there.receipt().is_none_or(|there| there.card.is_some()) {
        after.insert(card::FILE, Node::File(FileNode { size: 0, executable: false, sha256: [0; 32] }))?;
    }
    installed.changes = changes(&there, (&after, &listing), skills, source.name, &options.unpack)?;
    installed.written = true;
    Ok(installed)
}

/// Checks that [`install`] would replace nothing of the user's.
///
/// # Errors
/// As [`install`].
pub fn check(source: &Source<'_>, skills: &SkillsDir, options: &Options<'_>) -> Result<()> {
    if options.force {
        return Ok(());
    }
    let preview = preview(source, Some(skills), options)?;
    match preview.changes.conflicts.is_empty() {
        true => Ok(()),
        false => {
            let there = present(skills, source.name, Some(source.layout), &options.unpack)?;
            Err(conflict(source.name, &there, &preview.changes.conflicts).into())
        }
    }
}

/// Looks at what is there, whether it may be replaced at all, and whether the image is what is asked for.
fn look(source: &Source<'_>, skills: &SkillsDir, options: &Options<'_>) -> Result<(Present, Installed)> {
    check_case(skills, source.name)?;
    let there = present(skills, source.name, Some(source.layout), &options.unpack)
        .or_else(|e| if options.force { Ok(Present::unknown(skills, source.name)?) } else { Err(e) })?;
    if let Some(back) = &options.back
        && there.receipt().is_none_or(|there| there.image.digest != back.from)
    {
        let reason = format!("{} was changed by another process meanwhile", source.name);
        return Err(Error::Unavailable { reason, hint: None }.into());
    }
    if let (Some(before), false) = (there.source(), options.force || options.any_source)
        && before.parse::<Reference>().is_ok_and(|before| before.name() != source.reference.name())
    {
        return Err(Error::Unavailable {
            reason: format!("{} is installed from {before}", source.name),
            hint: Some("replace it by that of another repository with --force".into()),
        }
        .into());
    }
    let before = there.version().map(str::to_owned);
    // A step back is to what was there.
    let receipt = there.receipt().filter(|_| options.back.is_none() && !options.force);
    let verified = verify::installed(source, receipt.map(|receipt| &receipt.image))?;
    Ok((there, Installed { before, verified, ..nothing_yet(source) }))
}

fn nothing_yet(source: &Source<'_>) -> Installed {
    Installed {
        name: source.name.to_owned(),
        reference: source.reference.to_string(),
        digest: source.manifest.digest().to_string(),
        version: version(source),
        before: None,
        written: false,
        changes: Changes::default(),
        backup: None,
        warnings: Vec::new(),
        content_digest: String::new(),
        verified: None,
    }
}

fn check_content(source: &Source<'_>, found: &str, options: &Options<'_>) -> Result<(), Error> {
    let Some(wanted) = options.content.filter(|wanted| *wanted != found) else { return Ok(()) };
    match source.origin {
        // It was built just now, from what has no versions: a directory, or an index without digests.
        Some(from) if from.commit.is_empty() => Err(Error::Unavailable {
            reason: format!("{} has changed: its content is {found}, and {wanted} was expected", from.source),
            hint: Some(format!("skillctl update {} takes what is there", source.name)),
        }),
        _ => Err(Error::damaged(source.reference, format!("its content is {found}, and {wanted} was expected"))),
    }
}

fn check_skill(source: &Source<'_>, listing: &Listing) -> Result<(), Error> {
    match listing.get(SKILL_FILE) {
        Some(Node::File(_)) => Ok(()),
        _ => {
            let reason = format!("{} has no {SKILL_FILE}: it is no skill", source.reference);
            Err(Error::Unavailable { reason, hint: None })
        }
    }
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

fn stage(
    source: &Source<'_>,
    locked: &Locked<'_>,
    verified: Option<&Verified>,
    options: &Options<'_>,
) -> Result<Staged> {
    let layer = source.contents.layer(source.layout, source.name, &options.unpack)?;
    // What a crash has left there is in nobody's way, and all is brought to disk at once, later.
    let unpack = UnpackOptions { replace: true, durable: false, ..options.unpack };
    let file = layer.open(source.layout)?;
    let (_, mut listing) = unpack_listed(file, &layer.expected, locked.work(), source.name, &unpack)?;
    check_skill(source, &listing)?;
    let of_image = listing.clone();
    let dir = locked.work().open_dir(source.name)?;
    let image = Image {
        reference: source.reference.to_string(),
        digest: source.manifest.digest().to_string(),
        skill_version: version(source),
        content_digest: listing.digest(),
        origin: source.origin.cloned(),
        signed_by: verified.iter().flat_map(|verified| &verified.keys).map(PublicKey::to_pem).collect(),
        signed_by_identities: verified.map(|verified| SignedBy::among(&verified.signers)).unwrap_or_default(),
        signed_as: verified.and_then(|verified| Some(verified.identity.as_ref()?.to_string())),
    };
    let card = provenance::write(&dir, &mut listing, source.name, source.reference, &image)?;
    let mut receipt = Receipt::new(source.name, image, &listing);
    receipt.card = card;
    Ok(Staged { dir, receipt, listing, of_image })
}

fn publish(
    source: &Source<'_>,
    skills: &SkillsDir,
    locked: &Locked<'_>,
    (there, mut staged): (&Present, Staged),
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
    staged.receipt.previous = match (options.back, before) {
        (Some(back), _) => back.rest.to_vec(),
        (None, Some(before)) if before.image.digest == staged.receipt.image.digest => before.previous,
        (None, Some(before)) => before.history(),
        (None, None) => Vec::new(),
    };
    locked.publish(name, &staged.receipt)?;
    rescue(skills, locked, there, options, installed);
    if !locked.discard(name) {
        let left = skills.path().join(OWN).join("work").join(name);
        installed.warnings.push(format!("what was there before could not be removed: {}", left.display()));
    }
    Ok(())
}

/// Keeps what the user has written into the old directory since it was looked at. What cannot be kept is said; the
/// skill is installed by now.
fn rescue(skills: &SkillsDir, locked: &Locked<'_>, there: &Present, options: &Options<'_>, installed: &mut Installed) {
    let name = installed.name.clone();
    let mut keep = || -> Result<()> {
        let (Ok(old), Some(listing)) = (locked.work().open_dir(&name), there.listing()?) else { return Ok(()) };
        let known = |difference: &Difference| {
            let path = &difference.os_path;
            installed.changes.kept_paths.contains(path)
                || installed.changes.conflicts.iter().any(|conflict| conflict.os_path == *path)
        };
        let found = differences(&listing, &old, &options.unpack)?;
        let late: Vec<Difference> =
            found.into_iter().filter(|difference| there.is_of_user(difference) && !known(difference)).collect();
        let new = skills.open(&name)?;
        let mut rest = Vec::new();
        for difference in late {
            let same = |new: &Dir| new.symlink_metadata(&difference.os_path).is_ok();
            match &new {
                Some(new) if !same(new) => carry(&old, new, &difference.os_path)?,
                _ => rest.push(difference),
            }
        }
        // What the new version has itself is no loss; what differs from it is.
        rest.retain(|difference| difference.change != Change::Extra || !is_equal(&old, new.as_ref(), difference));
        if !rest.is_empty() {
            let (backup, path) = locked.backup(&name)?;
            rest.iter().try_for_each(|difference| carry(&old, &backup, &difference.os_path))?;
            let named: Vec<&str> = rest.iter().map(|difference| difference.path.as_str()).collect();
            installed.warnings.push(format!("changed meanwhile, and kept in {}: {}", path.display(), named.join(", ")));
        }
        Ok(())
    };
    if let Err(e) = keep() {
        installed.warnings.push(format!("what was written to {name} meanwhile may be lost: {e:#}"));
    }
}

fn is_equal(old: &Dir, new: Option<&Dir>, difference: &Difference) -> bool {
    let read = |dir: &Dir| dir.read(&difference.os_path).ok();
    new.is_some_and(|new| read(old).is_some_and(|old| Some(old) == read(new)))
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
    let (there, _) = look(source, skills, options)?;
    let image = Image {
        reference: source.reference.to_string(),
        digest: source.manifest.digest().to_string(),
        skill_version: version(source),
        content_digest: content_digest.to_owned(),
        origin: source.origin.cloned(),
        // The copy that it leads to says so.
        signed_by: Vec::new(),
        signed_by_identities: Vec::new(),
        signed_as: None,
    };
    let mut receipt = Receipt::of_link(name, image, target);
    if there.receipt().is_some_and(|there| there.link == receipt.link && there.image == receipt.image) {
        return Ok((false, None));
    }
    let own = match (&there, skills.open(name)?) {
        (Present::Foreign(kind), None) => vec![Difference::of(name, *kind)],
        (_, None) => Vec::new(),
        (_, Some(dir)) => differences(&there.listing()?.unwrap_or_default(), &dir, &options.unpack)?
            .into_iter()
            .filter(|difference| there.is_of_user(difference))
            .collect(),
    };
    if !own.is_empty() && !options.force {
        return Err(conflict(name, &there, &own).into());
    }
    let backup = if own.is_empty() { None } else { Some(keep(skills, &locked, name, &own)?) };
    receipt.previous = there.receipt().map(|there| there.previous.clone()).unwrap_or_default();
    locked.work().symlink_contents(target, name).with_context(|| format!("Linking {name}"))?;
    locked.publish(name, &receipt)?;
    locked.discard(name);
    Ok((true, backup))
}

/// Copies what is the user's into a new backup, and returns its path.
///
/// # Errors
/// If it cannot be read or written.
pub fn keep(skills: &SkillsDir, locked: &Locked<'_>, name: &str, own: &[Difference]) -> Result<PathBuf> {
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
    // Who has signed it is recorded, also where that was not asked before.
    let known = |key: &PublicKey| receipt.image.signed_by.contains(&key.to_pem());
    let identities = wanted.verified.as_ref().map(|verified| SignedBy::among(&verified.signers)).unwrap_or_default();
    let is_known = wanted.verified.iter().flat_map(|verified| &verified.keys).all(known)
        && identities.iter().all(|one| receipt.image.signed_by_identities.contains(one));
    let Image { digest, reference, .. } = &receipt.image;
    if receipt.link.is_some() || *digest != wanted.digest || *reference != wanted.reference || !is_known {
        return Ok(false);
    }
    let Some(dir) = skills.open(&wanted.name)? else { return Ok(false) };
    let found = differences(&receipt.installed(&wanted.name)?, &dir, options)?;
    Ok(found.iter().all(|difference| difference.change == Change::Extra))
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
            format!("{name} exists already, and skillctl did not install it"),
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
