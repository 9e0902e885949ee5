//! `rollback`: the image that was installed before, from the store.

use anyhow::Result;

use super::contents::Contents;
use super::install::{self, Back, Installed, Options, Source};
use super::present::{Present, present};
use super::uninstall::not_installed;
use crate::error::Error;
use crate::image::Info;
use crate::layer::UnpackOptions;
use crate::process::Cancel;
use crate::reference::Reference;
use crate::skills::SkillsDir;
use crate::store::layout::Layout;

/// How a skill is rolled back.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// Whether the user's changes are replaced.
    pub force: bool,
    /// Whether it is only said what would change.
    pub dry_run: bool,
    /// How layers are read.
    pub unpack: UnpackOptions<'a>,
    /// Ends the waiting for others.
    pub cancel: &'a Cancel,
}

/// Installs the image before the one that is installed.
///
/// # Errors
/// If there was none, the store does not have it any more, or as [`install::install`].
pub fn rollback(layout: &Layout, skills: &SkillsDir, name: &str, how: &How<'_>) -> Result<Installed> {
    let there = present(skills, name, Some(layout), &how.unpack)?;
    if matches!(there, Present::Nothing) {
        return Err(not_installed(skills, name).into());
    }
    let previous = there.receipt().map(|receipt| receipt.previous.as_slice()).unwrap_or_default();
    let Some((image, rest)) = previous.split_first() else {
        let reason = format!("{name}: nothing was installed before {}", there.version().unwrap_or("this"));
        return Err(
            Error::Unavailable { reason, hint: Some("upgrade --to VERSION installs any version".into()) }.into()
        );
    };
    let Some(manifest) = layout.describe(&image.digest) else {
        let reason = format!("the store does not have {} ({}) any more", image.reference, image.digest);
        let by_digest = image.reference.parse::<Reference>()?.with_digest(&image.digest)?;
        return Err(Error::Unavailable { reason, hint: Some(format!("skillctl pull {by_digest}")) }.into());
    };
    let info = Info::parse(&layout.read_json(&manifest)?, &image.digest)?;
    let contents = Contents::of(layout, &manifest, &how.unpack)?;
    let (reference, origin) = (image.reference.parse()?, image.origin.as_ref());
    let source = Source {
        layout,
        contents: &contents,
        manifest: &manifest,
        info: &info,
        reference: &reference,
        name,
        origin,
        trust: None,
    };
    let from = there.receipt().map(|receipt| receipt.image.digest.as_str()).unwrap_or_default();
    let options = Options {
        force: how.force,
        back: Some(Back { from, rest }),
        content: Some(&image.content_digest),
        any_source: true,
        unpack: how.unpack,
        cancel: how.cancel,
    };
    match how.dry_run {
        true => install::preview(&source, Some(skills), &options),
        false => install::install(&source, skills, &options),
    }
}
