//! `list --installed`: the skills of a directory, by receipts and cards, and what became of them since.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::drift::{Change, Difference, differences};
use super::present::{Present, card, present};
use crate::error::Error;
use crate::layer::UnpackOptions;
use crate::receipt::Image;
use crate::reference::is_digest;
use crate::skills::SkillsDir;
use crate::store::layout::Layout;

/// One installed skill.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The name of its directory.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The reference that it was installed by; empty where it came from nowhere.
    pub source: String,
    /// The manifest's digest; empty where that is not known.
    pub digest: String,
    /// The agents, or the directory, as they were asked for.
    pub target: String,
    /// Its directory.
    pub path: String,
    /// Whether we installed it; else the Go tool or somebody else did.
    pub receipt: bool,
}

/// Returns the skills of a directory, sorted by name, and what could not be read.
///
/// # Errors
/// If the directory itself cannot be read.
pub fn scan(skills: &SkillsDir, target: &str) -> Result<(Vec<Row>, Vec<String>)> {
    let (mut rows, mut warnings) = (Vec::new(), Vec::new());
    let receipts = skills.receipts()?;
    let row = |name: &str| Row {
        name: name.to_owned(),
        version: String::new(),
        source: String::new(),
        digest: String::new(),
        target: target.to_owned(),
        path: skills.path().join(name).display().to_string(),
        receipt: false,
    };
    for name in skills.names()? {
        if receipts.binary_search(&name).is_ok() {
            match image(skills, &name) {
                Ok(Some(image)) => rows.push(Row {
                    version: image.skill_version,
                    source: image.reference,
                    digest: image.digest,
                    receipt: true,
                    ..row(&name)
                }),
                Ok(None) => {}
                Err(e) => warnings.push(e.to_string()),
            }
            continue;
        }
        match card(skills, &name) {
            Ok(Some(card)) => {
                let provenance = card.provenance.unwrap_or_default();
                let digest = if is_digest(&provenance.commit) { provenance.commit } else { String::new() };
                rows.push(Row { version: card.metadata.version, source: provenance.source, digest, ..row(&name) });
            }
            Ok(None) => {}
            Err(e) => warnings.push(format!("{e:#}")),
        }
    }
    Ok((rows, warnings))
}

/// Returns what a receipt says of its image, without looking at its files.
fn image(skills: &SkillsDir, name: &str) -> Result<Option<Image>, Error> {
    let Some(bytes) = skills.receipt_bytes(name)? else { return Ok(None) };
    let object = skills.path().join(format!("{}/receipts/{name}.json", crate::skills::OWN));
    let found: Summary = serde_json::from_slice(&bytes).map_err(|e| Error::damaged(object.display(), e))?;
    // What the copy that agents share is by now.
    let shared = found.link.and_then(|_| image(&skills.shared(name).ok()?, name).ok().flatten());
    Ok(Some(shared.unwrap_or(Image {
        reference: found.reference,
        digest: found.digest,
        skill_version: found.skill_version,
        content_digest: found.content_digest,
    })))
}

/// A receipt without its files, which serde passes over: an image that is flattened into this would keep all of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    reference: String,
    digest: String,
    #[serde(default)]
    skill_version: String,
    content_digest: String,
    #[serde(default)]
    link: Option<String>,
}

/// What became of an installed skill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The skill.
    #[serde(flatten)]
    pub row: Row,
    /// How it differs from what was installed; nothing where it is that.
    pub differences: Vec<Difference>,
    /// Why that cannot be told.
    pub unknown: Option<String>,
}

/// Compares every skill of a directory with its receipt, or with the image that the Go tool installed, where the store
/// has that. Skills that came from nowhere are left out.
///
/// # Errors
/// If the directory itself cannot be read.
pub fn verify(
    skills: &SkillsDir,
    target: &str,
    layout: Option<&Layout>,
    options: &UnpackOptions<'_>,
) -> Result<Vec<Verified>> {
    let (rows, _) = scan(skills, target)?;
    let mut verified: Vec<Verified> = Vec::new();
    for row in rows.into_iter().filter(|row| !row.digest.is_empty()) {
        let (differences, unknown) = match verify_one(skills, &row.name, layout, options) {
            Ok(differences) => (differences, None),
            Err(e) => (Vec::new(), Some(format!("{e:#}"))),
        };
        verified.push(Verified { row, differences, unknown });
    }
    for name in skills.receipts()? {
        if verified.binary_search_by(|one| one.row.name.cmp(&name)).is_ok() {
            continue;
        }
        // What cannot be read is no less wrong than what is not there.
        let (image, unknown) = match image(skills, &name) {
            Ok(image) => (image, None),
            Err(e) => (None, Some(e.to_string())),
        };
        let path = skills.path().join(&name).display().to_string();
        let image = image.unwrap_or_else(Image::unknown);
        let row = Row {
            name: name.clone(),
            version: image.skill_version,
            source: image.reference,
            digest: image.digest,
            target: target.to_owned(),
            path,
            receipt: true,
        };
        let gone = Difference { path: name.clone(), change: Change::Missing, os_path: name.into() };
        let differences = if unknown.is_none() { vec![gone] } else { Vec::new() };
        verified.push(Verified { row, differences, unknown });
    }
    verified.sort_by(|one, other| one.row.name.cmp(&other.row.name));
    Ok(verified)
}

fn verify_one(
    skills: &SkillsDir,
    name: &str,
    layout: Option<&Layout>,
    options: &UnpackOptions<'_>,
) -> Result<Vec<Difference>> {
    let there = present(skills, name, layout, options)?;
    if let Present::Ours(receipt) = &there
        && receipt.link.is_some()
    {
        // It leads where it should; what is there has a receipt of its own.
        return verify_one(&skills.shared(name).map_err(skills.io(name))?, name, layout, options);
    }
    let listing = there.listing()?.ok_or_else(|| {
        let reason = match &there {
            Present::GoTool(skill) => format!("the store does not have {}, which the Go tool installed", skill.source),
            _ => format!("{name} is not what was installed"),
        };
        Error::Unavailable { reason, hint: None }
    })?;
    let Some(dir) = skills.open(name)? else {
        let gone = Difference { path: name.to_owned(), change: Change::Missing, os_path: name.into() };
        return Ok(vec![gone]);
    };
    let found = differences(&listing, &dir, options)?;
    Ok(found.into_iter().filter(|difference| !there.is_of_go_tool(difference)).collect())
}
