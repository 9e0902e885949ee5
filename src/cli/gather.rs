//! Where skills come from that are no images yet, opened: repositories, sites, archives and directories.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::build::open_skill;
use super::registry::RegistryArgs;
use super::shell::Shell;
use crate::address::Address;
use crate::error::Error;
use crate::limits::Limits;
use crate::lockfile::BASE;
use crate::ops::gather::{self, Gathered};
use crate::redact::without_credentials;
use crate::source::archive::SUFFIXES;
use crate::source::git::{self, Repository};
use crate::source::{Filter, GitSource};
use crate::store::layout::Layout;

/// Reads what a user gave; `None` for an image's reference.
///
/// # Errors
/// As [`Address::of`].
pub fn address(text: &str) -> Result<Option<Address>> {
    let is_archive = || SUFFIXES.iter().any(|end| text.ends_with(end)) && Path::new(text).is_file();
    Ok(match Address::of(text)? {
        None if is_archive() => Some(Address::Local(text.to_owned())),
        address => address,
    })
}

/// Refuses what is no image yet, for the verbs that take images only.
///
/// # Errors
/// With what takes it; as [`address`].
pub fn only_image(text: &str) -> Result<()> {
    let what = match address(text)? {
        None => return Ok(()),
        Some(Address::Git(_)) => "a Git repository",
        Some(Address::Site(_)) => "an index of skills",
        Some(Address::Local(_)) if Path::new(text).is_dir() => "a directory",
        Some(Address::Local(_)) if Path::new(text).exists() => "a file",
        Some(Address::Local(_)) => "a path, and nothing is there",
    };
    Err(no_image(text, what).into())
}

/// Returns the error for a directory, an archive or an address where an image is expected.
pub fn no_image(text: &str, what: &str) -> Error {
    let text = without_credentials(text);
    let hint = Some(format!("skillctl build {text} makes an image of it, and skillctl install {text} installs it"));
    Error::Unavailable { reason: format!("an image is expected, and {text} is {what}"), hint }
}

/// Fetches a repository.
///
/// # Errors
/// As [`git::fetch`].
pub fn fetch(shell: &Shell, layout: &Layout, source: &GitSource) -> Result<Repository> {
    let progress = shell.progress(&format!("Fetching {}", source.shown));
    let report = |bytes| progress.set(bytes);
    let options = git::Options { progress: Some(&report), ..git::Options::default() };
    Ok(git::fetch(&shell.tools(), (layout.dir(), layout.path()), source, &options)?)
}

/// Returns a path of a project, which somebody else may have written: by whatever links, it stays in there.
fn beneath(root: &Path, text: &str) -> Result<PathBuf> {
    let root = root.canonicalize()?;
    let path = root.join(text).canonicalize()?;
    if root.join(BASE).starts_with(&path) {
        // It would have itself in it, once more with every sync.
        let reason = format!("skills are installed in it, in {BASE}");
        let hint = Some("put SKILL.md and what belongs to it into a directory of their own".into());
        return Err(Error::Unavailable { reason, hint }.into());
    }
    match path.starts_with(&root) {
        true => Ok(path),
        false => Err(Error::Unavailable { reason: "it leads out of the project".into(), hint: None }.into()),
    }
}

/// Opens a source: those of its skills that a pattern names. What is local is below `root`, or the working directory.
///
/// # Errors
/// If it cannot be fetched or read, or has no such skill.
pub fn gather(
    shell: &Shell,
    (layout, root): (&Layout, Option<&Path>),
    address: &Address,
    (filter, limits): (&Filter, Limits),
    registry: &RegistryArgs,
) -> Result<Gathered> {
    match address {
        Address::Git(source) => {
            let repository = fetch(shell, layout, source)?;
            gather::from_repository(layout, &repository, &repository.source.path, filter, limits)
        }
        Address::Site(url) => {
            let _progress = shell.progress(&format!("Fetching {address}"));
            gather::from_site(layout, &registry.registry(shell)?.web(), url, filter, limits)
        }
        Address::Local(text) => {
            let context = || format!("Reading {text}");
            let path = match root {
                Some(root) => beneath(root, text).with_context(context)?,
                None => Path::new(text).to_owned(),
            };
            if path.is_dir() {
                let (dir, name) = open_skill(&path).with_context(context)?;
                return Ok(gather::from_directory(dir, &name, text));
            }
            // A FIFO would never be open.
            if !std::fs::metadata(&path).with_context(context)?.is_file() {
                let reason = format!("{text} is no regular file");
                return Err(Error::Unavailable { reason, hint: None }.into());
            }
            let file = File::open(&path).with_context(context)?;
            gather::from_archive(layout, (text, &file), filter, limits, &shell.cancel())
        }
    }
}
