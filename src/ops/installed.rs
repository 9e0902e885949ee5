//! `list --installed`: the skills of a directory, by receipts and cards, and what became of them since.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::drift::{Change, Difference, differences};
use super::present::{self, Present, present};
use super::upgrade::is_elsewhere;
use crate::card::{self, Card, Provenance};
use crate::error::Error;
use crate::layer::UnpackOptions;
use crate::receipt::Image;
use crate::reference::is_digest;
use crate::skills::{OWN, SkillsDir, read_bounded};
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
    let row = |name: &str| Row {
        name: name.to_owned(),
        target: target.to_owned(),
        path: skills.path().join(name).display().to_string(),
        ..Row::default()
    };
    let mut receipts: BTreeMap<String, Result<Vec<u8>, Error>> = skills.all_receipts()?.into_iter().collect();
    for name in skills.names()? {
        if let Some(bytes) = receipts.remove(&name) {
            match bytes.and_then(|bytes| image(skills, &name, &bytes)) {
                Ok(image) => rows.push(Row { receipt: true, ..described(row(&name), image) }),
                Err(e) => warnings.push(e.to_string()),
            }
            continue;
        }
        match present::card(skills, &name) {
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

fn described(row: Row, image: Image) -> Row {
    // What came from a directory or an archive has its image in the store.
    let elsewhere = image.origin.map(|origin| origin.source).filter(|source| is_elsewhere(source));
    let source = elsewhere.unwrap_or(image.reference);
    Row { version: image.skill_version, source, digest: image.digest, ..row }
}

/// Returns the image that a skill is, without looking at its files: that of the receipt, unless the Go tool has installed
/// another one over it, or the skill is a link to a copy that is another by now.
fn image(skills: &SkillsDir, name: &str, bytes: &[u8]) -> Result<Image, Error> {
    let found = summary(skills, name, bytes)?;
    if found.link.is_some() {
        // One step only: links that lead to each other have no end.
        let shared = || -> Option<Summary> {
            let shared = skills.shared(name).ok()?;
            let bytes = shared.receipt_bytes(name).ok()??;
            summary(&shared, name, &bytes).ok().filter(|shared| shared.link.is_none())
        };
        return Ok(shared().unwrap_or(found).image());
    }
    Ok(over(skills, name, &found).unwrap_or_else(|| found.image()))
}

/// Returns the image that the Go tool has installed over ours, by what it wrote into the card. Parsing is left to cards
/// that do not have our digest.
fn over(skills: &SkillsDir, name: &str, ours: &Summary) -> Option<Image> {
    let path = format!("{name}/{}", card::FILE);
    let bytes = read_bounded(skills.dir(), &path, card::MAX_CARD as u64).ok()??;
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    if has(&ours.digest) || !has("commit:") {
        return None;
    }
    let card = Card::parse(&bytes).ok()?;
    let provenance = card.provenance.filter(|provenance| is_digest(&provenance.commit))?;
    Some(Image {
        reference: provenance.source,
        digest: provenance.commit,
        skill_version: card.metadata.version,
        ..Image::unknown()
    })
}

fn summary(skills: &SkillsDir, name: &str, bytes: &[u8]) -> Result<Summary, Error> {
    let object = || skills.path().join(format!("{OWN}/receipts/{name}.json")).display().to_string();
    serde_json::from_slice(bytes).map_err(|e| Error::damaged(object(), e))
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
    #[serde(default)]
    origin: Option<Provenance>,
}

impl Summary {
    fn image(self) -> Image {
        Image {
            reference: self.reference,
            digest: self.digest,
            skill_version: self.skill_version,
            content_digest: self.content_digest,
            origin: self.origin,
            ..Image::unknown()
        }
    }
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
        let (differences, unknown) = match verify_one(skills, &row.name, layout, options, true) {
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
        let found = skills.receipt_bytes(&name).map(Option::unwrap_or_default);
        let (image, unknown) = match found.and_then(|bytes| image(skills, &name, &bytes)) {
            Ok(image) => (image, None),
            Err(e) => (Image::unknown(), Some(e.to_string())),
        };
        let row = Row {
            name: name.clone(),
            target: target.to_owned(),
            path: skills.path().join(&name).display().to_string(),
            receipt: true,
            ..Row::default()
        };
        let row = described(row, image);
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
    may_lead: bool,
) -> Result<Vec<Difference>> {
    let there = present(skills, name, layout, options)?;
    if let Present::Ours(receipt) = &there
        && receipt.link.is_some()
    {
        // It leads where it should; what is there has a receipt of its own, and leads nowhere else.
        anyhow::ensure!(may_lead, "it is a link to a link");
        return verify_one(&skills.shared(name).map_err(skills.io(name))?, name, layout, options, false);
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
