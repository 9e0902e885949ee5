//! From an image of the store to a directory: what `pull -o` writes, and what a gate looks into.
//!
//! A directory that is in the way is somebody's work unless it is, to the byte, what an image of the same repository
//! unpacks to. Another repository does not count, whatever its image says its name is: else whoever has a registry could
//! replace the skills of others.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use cap_std::fs::Dir;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use oci_spec::image::Descriptor;

use super::contents::{Contents, Layer};
use super::drift::{Difference, Kind, differences};
use crate::error::Error;
use crate::frontmatter::FILE as SKILL_FILE;
use crate::layer::{UnpackOptions, Unpacked, unpack};
use crate::reference::Reference;
use crate::store::layout::Layout;

/// Most layers that a directory is compared with. Each is read to its end, which takes seconds for the largest skills;
/// the right one is among the first unless the directory is old.
const CANDIDATES: usize = 50;

/// An image that is written out.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The store that it is in.
    pub layout: &'a Layout,
    /// What is in it.
    pub contents: &'a Contents,
    /// Images that may have been written to the same place before: see [`before`].
    pub before: &'a [Descriptor],
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// What the layer is.
    pub unpacked: Unpacked,
    /// Whether anything was: the directory may have been the same already.
    pub written: bool,
    /// Whether there is a `SKILL.md` at its root.
    pub is_skill: bool,
}

/// Unpacks the skill of an image as the directory `name` of `dest`; it appears whole, or not at all.
///
/// A directory of that name is replaced where it is empty or exactly what this image or one of `source.before` unpacks
/// to, and else only with `options.replace`.
///
/// # Errors
/// If the image is damaged or has not exactly one layer, an entry is refused or a limit exceeded, or something else has
/// that name.
pub fn extract(source: &Source<'_>, dest: &Dir, name: &str, options: &UnpackOptions<'_>) -> Result<Extracted> {
    let layer = source.contents.layer(source.layout, name, options)?;
    let mut options = *options;
    let mut same = None;
    if !options.replace {
        match in_the_way(source, &layer, (dest, name), &options)? {
            Way::Free => {}
            Way::Replaceable => options.replace = true,
            Way::Same(unpacked) => same = Some(unpacked),
        }
    }
    let written = same.is_none();
    let unpacked = match same {
        Some(unpacked) => unpacked,
        None => unpack(layer.open(source.layout)?, &layer.expected, dest, name, &options).map_err(with_hint)?,
    };
    Ok(Extracted { unpacked, written, is_skill: dest.is_file(format!("{name}/{SKILL_FILE}")) })
}

/// Returns the images that may have been written where an image of `reference` goes: what the name stood for before, and
/// what the store has of the same repository, newest first.
///
/// # Errors
/// If the store cannot be read.
pub fn before(layout: &Layout, reference: &Reference, moved_from: Option<&str>) -> Result<Vec<Descriptor>> {
    let entries = layout.all_entries()?.into_iter().rev();
    let own = entries.filter(|entry| entry.is_of(reference)).map(|entry| entry.descriptor);
    Ok(moved_from.and_then(|digest| layout.describe(digest)).into_iter().chain(own).collect())
}

/// What is where a skill is to be.
enum Way {
    /// Nothing.
    Free,
    /// A directory that may go.
    Replaceable,
    /// The skill itself.
    Same(Unpacked),
}

fn in_the_way(
    source: &Source<'_>,
    own: &Layer,
    (dest, name): (&Dir, &str),
    options: &UnpackOptions<'_>,
) -> Result<Way> {
    let context = || format!("Looking at {name}");
    let found = match dest.symlink_metadata(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Way::Free),
        metadata => Kind::of(metadata.with_context(context)?.file_type()),
    };
    if found != Kind::Directory {
        return Err(occupied(name, format!("it is {found}")).into());
    }
    // Not through a link that has come in its place.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(dest.as_fd(), name, flags, Mode::empty()).map_err(io::Error::from).with_context(context)?;
    let dir = Dir::from_std_file(File::from(fd));
    if dir.entries().with_context(context)?.next().is_none() {
        return Ok(Way::Replaceable);
    }
    compare(source, (own, name), &dir, options).with_context(context)?.map_err(|why| occupied(name, why).into())
}

/// Compares a directory with the image and with those before it; else says how it differs from the one most like it.
fn compare(
    source: &Source<'_>,
    (own, name): (&Layer, &str),
    dir: &Dir,
    options: &UnpackOptions<'_>,
) -> Result<Result<Way, String>, Error> {
    let mut seen = HashSet::new();
    let mut closest: Option<Vec<Difference>> = None;
    // What cannot be read of an earlier image vouches for nothing, and does not keep the others from doing so.
    let layout = source.layout;
    let layer = |manifest: &Descriptor| -> Option<Layer> {
        Contents::of(layout, manifest, options).ok()?.layer(layout, name, options).ok()
    };
    let earlier = source.before.iter().filter_map(layer);
    for layer in std::iter::once(own.clone()).chain(earlier) {
        if seen.len() == CANDIDATES || !seen.insert(layer.expected.digest.clone()) {
            continue;
        }
        let is_own = seen.len() == 1;
        let (listing, unpacked) = match layer.list(source.layout, options) {
            Err(e) if is_own || is_interrupted(&e) => return Err(e),
            Err(_) => continue,
            Ok(listed) => listed,
        };
        let differences = match differences(&listing, dir, options) {
            Err(e @ Error::LimitExceeded { .. }) => return Ok(Err(e.to_string())),
            differences => differences?,
        };
        match closest.as_ref().map(Vec::len) {
            _ if differences.is_empty() && is_own => return Ok(Ok(Way::Same(unpacked))),
            _ if differences.is_empty() => return Ok(Ok(Way::Replaceable)),
            Some(fewest) if differences.len() >= fewest => {}
            _ => closest = Some(differences),
        }
    }
    let closest = closest.unwrap_or_default();
    // What would be lost says more than what is gone already.
    let first = closest.iter().find(|difference| difference.change.is_work()).or(closest.first());
    Ok(Err(first.map(ToString::to_string).unwrap_or_default()))
}

fn is_interrupted(error: &Error) -> bool {
    matches!(error, Error::Io { cause, .. } if cause.kind() == io::ErrorKind::Interrupted)
}

fn occupied(name: &str, why: String) -> Error {
    with_hint(refused(format!("{name} exists already, and is not as it was pulled: {why}")))
}

/// Adds the remedy where something is in the way.
fn with_hint(error: Error) -> Error {
    match error {
        Error::Unavailable { reason, hint: None } => Error::Unavailable {
            reason,
            hint: Some("move it away, or replace it with --force (the image is in the store)".into()),
        },
        error => error,
    }
}

fn refused(reason: String) -> Error {
    Error::Unavailable { reason, hint: None }
}
