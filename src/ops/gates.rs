//! What has to hold before a skill gets into a state: the one place where a promotion is checked.
//!
//! | to | gate |
//! |---|---|
//! | testing | what is in the image, on every platform, is a valid skill: not what was in the directory of the build |
//!
//! Every promotion makes a new manifest digest, so whatever is bound to the old one (a signature, an attestation) has to
//! be made again for the new one; a gate that asks for such belongs here too.

use anyhow::{Context as _, Result};

use super::contents::Contents;
use super::validate::validate;
use crate::finding::Finding;
use crate::layer::{UnpackOptions, unpack};
use crate::lifecycle::State;
use crate::store::layout::Layout;
use crate::store::private::PrivateLayout;
use crate::store::repository::Manifest;

/// Returns whether a gate before `to` looks into the layer, which then has to be in the store.
pub fn needs_content(to: State) -> bool {
    to == State::Testing
}

/// Returns what speaks against an image getting into the state `to`.
///
/// # Errors
/// If that cannot be told, because the image is damaged or is no skill that could be unpacked.
pub fn check(layout: &Layout, manifest: &Manifest, to: State, options: &UnpackOptions<'_>) -> Result<Vec<Finding>> {
    if !needs_content(to) {
        return Ok(Vec::new());
    }
    let context = "Looking into the image";
    let descriptor = manifest.descriptor()?;
    // Removed with what is unpacked in it.
    let scratch = PrivateLayout::empty(layout.dir(), layout.path()).context(context)?;
    let name = manifest.info.skill_name().unwrap_or("skill");
    // Whoever runs the skill elsewhere gets the layer of another platform, which nobody here has seen.
    let all = Contents::all(layout, &descriptor, options).context(context)?;
    let options = UnpackOptions { replace: true, ..*options };
    let mut findings = Vec::new();
    for contents in &all {
        let layer = contents.layer(layout, name, &options).context(context)?;
        unpack(layer.open(layout)?, &layer.expected, scratch.dir(), name, &options).context(context)?;
        let checked = validate(&scratch.dir().open_dir(name)?, name, false).context(context)?;
        findings.extend(checked.findings.into_iter().map(|finding| match &contents.platforms[..] {
            platforms if all.len() > 1 && !platforms.is_empty() => {
                Finding { message: format!("{} (in {})", finding.message, platforms.join(", ")), ..finding }
            }
            _ => finding,
        }));
    }
    Ok(findings)
}
