//! Where an installed skill comes from, in its `skill.yaml` and in the form of the Go tool, so that it can list and
//! upgrade what we installed.
//!
//! A v1alpha2 card has no place for that, and stays as it is. The receipt says it in any case.

use cap_std::fs::{Dir, Permissions, PermissionsExt as _};
use sha2::{Digest as _, Sha256};
use std::io::{self, Write as _};

use crate::card::{self, Card, Origin, Provenance};
use crate::error::{Error, Result};
use crate::frontmatter;
use crate::layer::{FileNode, Listing, Node};
use crate::receipt::{CardChange, Image, ItemKind};
use crate::reference::{Reference, is_digest};
use crate::skills::read_bounded;

/// Largest `SKILL.md` that a card is derived from, in bytes.
const MAX_SKILL: u64 = 1 << 20;

/// Writes into the skill in `dir` which image it is, installed by `reference`, or which commit, where it was built from one;
/// `listing`, which is what is in there, then has the new card.
///
/// # Errors
/// If it cannot be read or written.
pub fn write(
    dir: &Dir,
    listing: &mut Listing,
    name: &str,
    reference: &Reference,
    image: &Image,
) -> Result<Option<CardChange>> {
    let at = |e| Error::io(card::FILE)(e);
    let change = match listing.get(card::FILE) {
        None => CardChange::Added,
        Some(node @ Node::File(_)) => CardChange::Replaced(ItemKind::of(node)),
        Some(_) => return Ok(None),
    };
    let own = match &change {
        CardChange::Added => Some(derived(dir, name, reference)?),
        CardChange::Replaced(_) => {
            let bytes = read_bounded(dir, card::FILE, card::MAX_CARD as u64);
            // What is no card stays what it is; the receipt has all that counts.
            bytes.ok().flatten().and_then(|bytes| Card::parse(&bytes).ok()).filter(|card| !card.is_v1alpha2())
        }
    };
    let Some(mut own) = own else { return Ok(None) };
    let path = own.provenance.take().unwrap_or_default().path;
    let digest = image.digest.clone();
    own.provenance = Some(match &image.origin {
        // The Go tool takes a digest for that of an image.
        Some(origin) if is_digest(&origin.commit) => Provenance { commit: String::new(), ..origin.clone() },
        Some(origin) => origin.clone(),
        None => Provenance { source: reference.to_string(), commit: digest, path },
    });
    // The Go tool leaves the version of what comes from Git alone.
    if let (Some(version), None) = (version_of_tag(reference), &image.origin) {
        own.metadata.version = version;
    }
    let text = own.to_yaml();
    // Not written over: the file may have another name.
    match dir.remove_file(card::FILE) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(e)),
        _ => {}
    }
    let mut file = dir.create(card::FILE).map_err(at)?;
    file.write_all(text.as_bytes()).map_err(at)?;
    file.set_permissions(Permissions::from_mode(0o644)).map_err(at)?;
    let sha256 = Sha256::digest(text.as_bytes()).into();
    listing.insert(card::FILE, Node::File(FileNode { size: text.len() as u64, executable: false, sha256 }))?;
    Ok(Some(change))
}

/// Returns the version that a tag is, where it is one by SemVer.
pub fn version_of_tag(reference: &Reference) -> Option<String> {
    let tag = reference.tag().filter(|_| reference.digest().is_none())?;
    semver::Version::parse(tag).is_ok().then(|| tag.to_owned())
}

/// Returns the card of a skill that has none, as far as `SKILL.md` says what is in it.
fn derived(dir: &Dir, name: &str, reference: &Reference) -> Result<Card> {
    let text = read_bounded(dir, frontmatter::FILE, MAX_SKILL).map_err(Error::io(frontmatter::FILE))?;
    let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let namespace = reference.name().split_once('/').map_or("unknown", |(first, _)| first);
    let origin = Origin { dir_name: name, namespace: Some(namespace), ..Origin::default() };
    let mut own = Card::derive(&frontmatter::parse(text.as_bytes()).front.unwrap_or_default(), &origin);
    name.clone_into(&mut own.metadata.name);
    if own.metadata.description.is_empty() {
        own.metadata.description = format!("Installed from {reference}");
    }
    Ok(own)
}
