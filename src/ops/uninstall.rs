//! `uninstall`: what was installed goes, and what is the user's does not go unasked.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::drift::{Change, Difference, Kind, differences};
use super::install::keep;
use super::present::{Present, present};
use crate::error::Error;
use crate::layer::UnpackOptions;
use crate::process::Cancel;
use crate::skills::{OWN, SkillsDir};
use crate::store::layout::Layout;

/// A skill that was uninstalled.
#[derive(Debug, Clone, Serialize)]
pub struct Uninstalled {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// Where the user's files are.
    pub backup: Option<PathBuf>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Uninstalls a skill. `layout` may have the image that the Go tool installed.
///
/// # Errors
/// If there is no such skill, nobody installed it, or the user has files in it and `force` is not given.
pub fn uninstall(
    skills: &SkillsDir,
    name: &str,
    layout: Option<&Layout>,
    force: bool,
    options: &UnpackOptions<'_>,
    cancel: &Cancel,
) -> Result<Uninstalled> {
    let path = skills.path().join(name);
    // Before anything is made in a directory that has nothing of ours.
    if name.contains('/') || (skills.metadata(name)?.is_none() && skills.receipt_bytes(name)?.is_none()) {
        return Err(not_installed(skills, name).into());
    }
    let locked = skills.lock(cancel)?;
    let there = match present(skills, name, layout, options) {
        Err(_) if force => Present::unknown(skills, name)?,
        there => there?,
    };
    let mut uninstalled = Uninstalled { name: name.to_owned(), path, backup: None, warnings: Vec::new() };
    let own = match (&there, skills.open(name)?) {
        (Present::Foreign(kind), _) if skills.receipt_bytes(name)?.is_none() => {
            let what =
                if *kind == Kind::Directory { "skillctl did not install it".into() } else { format!("it is {kind}") };
            let reason = format!("{} is not ours: {what}", uninstalled.path.display());
            return Err(
                Error::Unavailable { reason, hint: Some("remove it yourself, where nobody needs it".into()) }.into()
            );
        }
        (Present::Foreign(kind), None) => {
            let path = uninstalled.path.display().to_string();
            let difference = Difference::of(name, *kind);
            vec![(format!("{path} is {kind}, which skillctl did not make"), difference)]
        }
        (_, None) => Vec::new(),
        (_, Some(dir)) => match there.listing()? {
            Some(listing) => {
                let found = differences(&listing, &dir, options)?;
                found
                    .into_iter()
                    .filter(|difference| there.is_of_user(difference))
                    .map(|d| (d.to_string(), d))
                    .collect()
            }
            None => everything(&dir, name)?,
        },
    };
    if let (Some((first, _)), false) = (own.first(), force) {
        let more = if own.len() > 1 { format!(", and {} more", own.len() - 1) } else { String::new() };
        let reason = format!("{name} has files of yours: {first}{more}");
        let hint = "move them away, or give --force, which keeps them in a backup".to_owned();
        return Err(Error::Unavailable { reason, hint: Some(hint) }.into());
    }
    if !own.is_empty() {
        let own: Vec<Difference> = own.into_iter().map(|(_, difference)| difference).collect();
        uninstalled.backup = Some(keep(skills, &locked, name, &own)?);
    }
    if !locked.remove(name)? {
        let left = skills.path().join(OWN).join("work").join(name);
        uninstalled.warnings.push(format!("{} could not be removed", left.display()));
    }
    Ok(uninstalled)
}

/// Returns everything in a directory of which nobody knows what it was.
fn everything(dir: &cap_std::fs::Dir, name: &str) -> Result<Vec<(String, Difference)>> {
    let mut all = Vec::new();
    for entry in dir.entries().with_context(|| format!("Reading {name}"))? {
        let os_path = PathBuf::from(entry.with_context(|| format!("Reading {name}"))?.file_name());
        let path = os_path.display().to_string();
        let said = format!("what was installed is not known, so {path} may be yours");
        all.push((said, Difference { path, change: Change::Extra, os_path }));
    }
    all.sort_by(|(_, one), (_, other)| one.path.cmp(&other.path));
    Ok(all)
}

/// Returns the error for a skill that is not there.
pub fn not_installed(skills: &SkillsDir, name: &str) -> Error {
    Error::Unavailable {
        reason: format!("skill not found: {name} in {}", skills.path().display()),
        hint: Some("skillctl list --installed shows what is installed".into()),
    }
}
