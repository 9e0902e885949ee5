//! What has a skill's name in a directory of skills: what we installed, what the Go tool did, or something else.

use anyhow::{Context as _, Result};

use super::contents::Contents;
use super::drift::{Difference, Kind};
use crate::card::{self, Card};
use crate::error::Error;
use crate::layer::{FileNode, Listing, Node, UnpackOptions};
use crate::receipt::Receipt;
use crate::reference::is_digest;
use crate::skills::{SkillsDir, read_bounded};
use crate::store::layout::Layout;

/// What is there.
#[derive(Debug, Clone)]
pub enum Present {
    /// Nothing, or an empty directory.
    Nothing,
    /// A skill that we installed.
    Ours(Box<Receipt>),
    /// A skill that the Go tool installed, and what it wrote there, where the store has the image to tell.
    GoTool(Box<GoSkill>),
    /// Something else, of this kind.
    Foreign(Kind),
}

/// A skill that the Go tool installed.
#[derive(Debug, Clone)]
pub struct GoSkill {
    /// The reference that it was installed by.
    pub source: String,
    /// The manifest's digest.
    pub digest: String,
    /// Its version.
    pub version: String,
    /// What the Go tool makes of the image: nothing is executable, and the card is another.
    pub listing: Option<Listing>,
}

/// Finds out what is there. `layout` may have the image that the Go tool installed.
///
/// # Errors
/// If it cannot be looked at, or its receipt is damaged.
pub fn present(
    skills: &SkillsDir,
    name: &str,
    layout: Option<&Layout>,
    options: &UnpackOptions<'_>,
) -> Result<Present> {
    let Some(found) = look(skills, name)? else { return Ok(Present::Nothing) };
    let receipt = skills.receipt(name).map_err(with_hint)?;
    match (receipt, found) {
        (Some(receipt), Kind::Directory) if receipt.link.is_none() => {
            // Where the card names another image, the Go tool has installed that over ours.
            let over = card(skills, name)?.and_then(go_skill).filter(|skill| skill.digest != receipt.image.digest);
            Ok(match over {
                Some(skill) => go_present(skill, layout, options),
                None => Present::Ours(Box::new(receipt)),
            })
        }
        (Some(receipt), Kind::Symlink) if leads_to(skills, name, receipt.link.as_deref()) => {
            Ok(Present::Ours(Box::new(receipt)))
        }
        (None, Kind::Directory) => match card(skills, name)?.and_then(go_skill) {
            Some(skill) => Ok(go_present(skill, layout, options)),
            None => Ok(Present::Foreign(found)),
        },
        _ => Ok(Present::Foreign(found)),
    }
}

/// Returns whether a skill is a link that we made, to the skill of that name in `shared`.
///
/// # Errors
/// If the receipt cannot be read.
pub fn is_link_to(skills: &SkillsDir, name: &str, shared: &SkillsDir) -> Result<bool> {
    let link = skills.receipt(name)?.and_then(|receipt| receipt.link);
    let leads = link.is_some() && leads_to(skills, name, link.as_deref());
    Ok(leads && skills.shared(name).is_ok_and(|found| found.is(shared).unwrap_or(false)))
}

/// Reads the card of a skill; `None` where it has none that can be read.
///
/// # Errors
/// If the file is there and cannot be read.
pub fn card(skills: &SkillsDir, name: &str) -> Result<Option<Card>> {
    let Some(dir) = skills.open(name)? else { return Ok(None) };
    let bytes = read_bounded(&dir, card::FILE, card::MAX_CARD as u64)
        .with_context(|| format!("Reading {}", skills.path().join(name).join(card::FILE).display()))?;
    Ok(bytes.and_then(|bytes| Card::parse(&bytes).ok()))
}

/// Returns what the Go tool wrote into a card: source and digest; `None` where it did not, or something else did.
fn go_skill(card: Card) -> Option<GoSkill> {
    let provenance = card.provenance.filter(|p| !p.source.is_empty() && is_digest(&p.commit))?;
    let (source, digest, version) = (provenance.source, provenance.commit, card.metadata.version);
    Some(GoSkill { source, digest, version, listing: None })
}

fn go_present(mut skill: GoSkill, layout: Option<&Layout>, options: &UnpackOptions<'_>) -> Present {
    skill.listing = layout.and_then(|layout| go_listing(layout, &skill.digest, options).ok());
    Present::GoTool(Box::new(skill))
}

fn go_listing(layout: &Layout, digest: &str, options: &UnpackOptions<'_>) -> Result<Listing> {
    let manifest = layout.describe(digest).ok_or_else(|| Error::ImageNotFound(digest.to_owned()))?;
    let (listing, _) = Contents::of(layout, &manifest, options)?.layer(layout, "", options)?.list(layout, options)?;
    let mut stripped = Listing::default();
    for (path, node) in listing.entries() {
        match node {
            Node::File(file) => {
                stripped.insert(&path, Node::File(FileNode { executable: false, ..*file }))?;
            }
            Node::Directory(_) => stripped.insert(&path, Node::Directory(Default::default()))?,
            // The Go tool leaves them out.
            Node::Symlink(_) => {}
        }
    }
    Ok(stripped)
}

fn look(skills: &SkillsDir, name: &str) -> Result<Option<Kind>> {
    let Some(metadata) = skills.metadata(name)? else { return Ok(None) };
    if let Some(dir) = skills.open(name)?
        && dir.entries().map_err(skills.io(name))?.next().is_none()
    {
        return Ok(None);
    }
    Ok(Some(Kind::of(metadata.file_type())))
}

fn leads_to(skills: &SkillsDir, name: &str, target: Option<&str>) -> bool {
    let found = skills.dir().read_link_contents(name).ok();
    found.is_some_and(|found| found.to_str() == target)
}

fn with_hint(error: Error) -> Error {
    match error {
        Error::Damaged { object, reason } => Error::Unavailable {
            reason: format!("{object} is damaged: {reason}"),
            hint: Some("install the skill again with --force".into()),
        },
        error => error,
    }
}

impl Present {
    /// Returns what is there where that cannot be told any more.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn unknown(skills: &SkillsDir, name: &str) -> Result<Self> {
        Ok(look(skills, name)?.map_or(Self::Nothing, Self::Foreign))
    }

    /// Returns its receipt.
    pub fn receipt(&self) -> Option<&Receipt> {
        match self {
            Self::Ours(receipt) => Some(receipt),
            _ => None,
        }
    }

    /// Returns its version.
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Ours(receipt) => Some(&receipt.image.skill_version),
            Self::GoTool(skill) => Some(&skill.version),
            Self::Nothing | Self::Foreign(_) => None,
        }
    }

    /// Returns the reference that it was installed by.
    pub fn source(&self) -> Option<&str> {
        match self {
            Self::Ours(receipt) => Some(&receipt.image.reference),
            Self::GoTool(skill) => Some(&skill.source),
            Self::Nothing | Self::Foreign(_) => None,
        }
    }

    /// Returns what was put there, where that is known.
    ///
    /// # Errors
    /// If the receipt names what no skill has.
    pub fn listing(&self) -> Result<Option<Listing>> {
        Ok(match self {
            Self::Nothing => Some(Listing::default()),
            Self::Ours(receipt) => Some(receipt.installed(&receipt.name)?),
            Self::GoTool(skill) => skill.listing.clone(),
            Self::Foreign(_) => None,
        })
    }

    /// Returns whether a difference from [`Self::listing`] is the user's doing, and would be lost.
    pub fn is_of_user(&self, difference: &Difference) -> bool {
        difference.change.is_work() && !self.is_of_go_tool(difference)
    }

    /// Returns whether a difference from [`Self::listing`] is the Go tool's doing: it writes the card anew.
    pub fn is_of_go_tool(&self, difference: &Difference) -> bool {
        matches!(self, Self::GoTool(_)) && difference.path == card::FILE
    }
}
