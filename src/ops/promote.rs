//! `promote`: a skill's next lifecycle state, in the store or on a registry, by new manifests and tags only.
//!
//! Config and layer stay, so the image ID proves that what was tested is what runs. The manifest digest changes, since
//! the state is one of its annotations.
//!
//! First everything is decided, from what is there; `--dry-run` ends here. Then it is done, in an order in which a crash
//! leaves tags that are right or can be made right by the same command: a new manifest is written before a tag names it,
//! `latest` is right before a version is called deprecated, and a tag that goes, goes last.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use semver::Version;
use serde::Serialize;
use serde_json::Value;

use super::immutable;
use super::seal::Seal;
use crate::error::Error;
use crate::image::{self, oci};
use crate::lifecycle::State;
use crate::reference::Reference;
use crate::store::blob::sha256;
use crate::store::repository::{Manifest, Repository, Tag, Untagged};
use crate::store::transfer::MAX_INSTANCES;

/// The tag of the highest published version.
const LATEST: &str = "latest";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state.
    pub to: State,
    /// Whether a published tag with other content may be replaced.
    pub force: bool,
    /// A tag that keeps an archived image from being collected as garbage.
    pub keep_tag: Option<String>,
}

/// One step of a promotion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "action")]
pub enum Step {
    /// Write the manifest in its new state.
    Write {
        /// The tag that it gets, where that is done in one with writing.
        tag: Option<String>,
        /// Its digest.
        digest: String,
    },
    /// Point a tag at a manifest that is there.
    Tag {
        /// The tag.
        tag: String,
        /// The manifest's digest.
        digest: String,
    },
    /// Take a tag away.
    Untag {
        /// The tag.
        tag: String,
    },
}

/// A promotion that is decided.
#[derive(Debug)]
pub struct Plan {
    /// What is promoted.
    pub source: Manifest,
    /// Its state.
    pub from: State,
    /// What it becomes: an image, or the images of an index and the index.
    manifests: Vec<Manifest>,
    /// Another manifest that `latest` moves to.
    latest: Option<Manifest>,
    /// What will be done, in order.
    pub steps: Vec<Step>,
    /// What will not be done, and why.
    pub warnings: Vec<String>,
    to: State,
    tag: Option<String>,
    /// The digests of the tags that were looked at.
    held: BTreeMap<String, Option<String>>,
}

/// A promotion that was made.
#[derive(Debug, Serialize)]
pub struct Promoted {
    /// The reference in its new state; absent where it has no tag.
    pub reference: Option<String>,
    /// Digest of the new manifest.
    pub digest: String,
    /// Digest of the manifest that was promoted.
    pub source_digest: String,
    /// The image ID, which did not change; empty for an index.
    pub image_id: String,
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// The key that has signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// What was done.
    pub steps: Vec<Step>,
    /// What could not be done.
    pub warnings: Vec<String>,
}

/// Decides how `reference` gets into the state that is asked for.
///
/// # Errors
/// If there is no such image, it has no state, the state cannot follow, or a published tag would change its content.
pub fn plan(repository: &dyn Repository, reference: &Reference, options: &Options) -> Result<Plan> {
    let which = reference.digest().or(reference.tag()).unwrap_or(LATEST);
    let source = repository.get(which)?.ok_or_else(|| repository.missing(reference))?;
    let from = state(&source)?;
    let to = options.to;
    if from.next() != Some(to) {
        return Err(refused(format!("invalid transition: {from} -> {to}"), next_hint(from, to)).into());
    }
    let version = version(&source)?;
    let manifests = rewrite(repository, &source, to)?;
    let tag = to.tag(source.info.get(oci::VERSION));
    let (steps, warnings, held) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut plan = Plan { source, from, manifests, latest: None, steps, warnings, to, tag, held };
    plan.check_tags(repository, options)?;
    plan.decide(repository, &version, options)?;
    Ok(plan)
}

/// Returns the state of a manifest, in the Go tool's words where there is none.
fn state(manifest: &Manifest) -> Result<State> {
    if manifest.info.annotations.is_empty() {
        return Err(refused("manifest has no annotations".into(), None).into());
    }
    let status = manifest.info.get(image::STATUS);
    status.parse().with_context(|| format!("parsing current state {status:?}"))
}

fn version(manifest: &Manifest) -> Result<Version> {
    let text = manifest.info.get(oci::VERSION);
    Version::parse(text).map_err(|e| {
        let hint = Some("build it again from a skill.yaml with a version such as 1.0.0".into());
        refused(format!("its version {text:?} is no semantic version: {e}"), hint).into()
    })
}

fn next_hint(from: State, to: State) -> Option<String> {
    Some(match from.next() {
        _ if from == to => format!("it is {to} already"),
        Some(next) => format!("from {from} it goes --to {next}"),
        None => "archived is the last state".to_owned(),
    })
}

fn refused(reason: String, hint: Option<String>) -> Error {
    Error::Unavailable { reason, hint }
}

/// Returns the manifests in the new state: the image, or the images of an index and then the index.
fn rewrite(repository: &dyn Repository, source: &Manifest, to: State) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    let mut document = parse(source)?;
    if source.info.instances.len() > MAX_INSTANCES {
        let reason = format!("it lists {} images", source.info.instances.len());
        return Err(Error::damaged(&source.digest, reason).into());
    }
    let instances = document.get_mut("manifests").and_then(Value::as_array_mut);
    for instance in instances.into_iter().flatten() {
        let digest = instance["digest"].as_str().unwrap_or_default().to_owned();
        let image = repository.get(&digest)?.ok_or_else(|| Error::ImageNotFound(digest.clone()))?;
        if image.info.config.is_none() {
            return Err(Error::damaged(&source.digest, "it is an index of indexes").into());
        }
        let image = with_state(parse(&image)?, to)?;
        instance["digest"] = image.digest.as_str().into();
        instance["size"] = image.bytes.len().into();
        manifests.push(image);
    }
    manifests.push(with_state(document, to)?);
    Ok(manifests)
}

/// Reads a manifest as JSON, so that fields unknown to us survive.
fn parse(manifest: &Manifest) -> Result<Value> {
    Ok(serde_json::from_slice(&manifest.bytes).map_err(|e| Error::damaged(&manifest.digest, e))?)
}

fn with_state(mut document: Value, to: State) -> Result<Manifest> {
    document["annotations"][image::STATUS] = to.as_str().into();
    if let Some(annotations) = document["annotations"].as_object_mut() {
        // Left by an archiving that was cut: without it this is the manifest that was buried, to the byte.
        annotations.shift_remove(image::TOMBSTONE);
    }
    let bytes = document.to_string().into_bytes();
    Ok(Manifest::new(&sha256(&bytes), bytes)?)
}

impl Plan {
    /// Returns the manifest in the new state.
    fn new_manifest(&self) -> &Manifest {
        self.manifests.last().unwrap_or(&self.source)
    }

    /// Looks at what a tag names, and keeps its digest for the moment of writing.
    fn look(&mut self, repository: &dyn Repository, tag: &str) -> Result<Option<Manifest>> {
        let held = repository.get(tag)?;
        self.held.insert(tag.to_owned(), held.as_ref().map(|held| held.digest.clone()));
        Ok(held)
    }

    /// Refuses to give a published tag other content, or to take any tag from another skill.
    fn check_tags(&mut self, repository: &dyn Repository, options: &Options) -> Result<()> {
        if let Some(tag) = self.tag.clone()
            && let Some(held) = self.look(repository, &tag)?.filter(|held| held.digest != self.source.digest)
            && !options.force
        {
            let reference = repository.reference(&tag)?;
            if !same_skill(&held, &self.source) {
                let (theirs, ours) = (title(&held), title(&self.source));
                return Err(
                    refused(format!("{reference} is another skill, {theirs:?} and not {ours:?}"), force()).into()
                );
            }
            let new = self.new_manifest();
            immutable::check(
                &reference,
                immutable::Version { digest: &held.digest, info: &held.info },
                immutable::Version { digest: &new.digest, info: &new.info },
            )?;
        }
        let Some(tag) = options.keep_tag.as_deref().filter(|_| self.to == State::Archived) else { return Ok(()) };
        let held = self.look(repository, tag)?;
        let own = |held: &Manifest| held.digest == self.source.digest || held.digest == self.new_manifest().digest;
        if tag == LATEST || !held.as_ref().is_none_or(own) {
            let reference = repository.reference(tag)?;
            let reason = format!("{reference} is for something else, and cannot hold an archived image");
            return Err(refused(reason, Some("give --keep-tag a name that is free".into())).into());
        }
        Ok(())
    }

    fn decide(&mut self, repository: &dyn Repository, version: &Version, options: &Options) -> Result<()> {
        let digest = self.new_manifest().digest.clone();
        let tag = self.tag.clone();
        let write = |tag| Step::Write { tag, digest: digest.clone() };
        match self.to {
            State::Draft | State::Testing => self.steps.push(write(tag)),
            State::Published => {
                self.steps.push(write(tag));
                if self.takes_latest(repository, version)? {
                    self.steps.push(Step::Tag { tag: LATEST.into(), digest: digest.clone() });
                }
            }
            State::Deprecated => {
                self.steps.push(write(None));
                self.leave_latest(repository, version)?;
                self.steps.extend(tag.map(|tag| Step::Tag { tag, digest: digest.clone() }));
            }
            State::Archived => {
                self.steps.push(write(options.keep_tag.clone()));
                self.leave_latest(repository, version)?;
                let own = State::Deprecated.tag(self.source.info.get(oci::VERSION));
                if let Some(own) = own.filter(|own| options.keep_tag.as_ref() != Some(own))
                    && is_of(self.look(repository, &own)?.as_ref(), &self.source, version)
                {
                    self.steps.push(Step::Untag { tag: own });
                }
            }
        }
        Ok(())
    }

    /// Returns whether `latest` goes to a version that is being published: never to a prerelease, never backwards, and
    /// never from another skill.
    fn takes_latest(&mut self, repository: &dyn Repository, version: &Version) -> Result<bool> {
        if !version.pre.is_empty() {
            return Ok(false);
        }
        let Some(held) = self.look(repository, LATEST)? else { return Ok(true) };
        if !same_skill(&held, &self.source) {
            self.warnings.push(format!("latest names another skill, {:?}, and stays", title(&held)));
            return Ok(false);
        }
        Ok(!Version::parse(held.info.get(oci::VERSION)).is_ok_and(|held| held > *version))
    }

    /// Moves `latest` from this version to the highest that is still published, or away.
    fn leave_latest(&mut self, repository: &dyn Repository, version: &Version) -> Result<()> {
        if !is_of(self.look(repository, LATEST)?.as_ref(), &self.source, version) {
            return Ok(());
        }
        self.latest = highest_published(repository, &self.source, version)?;
        self.steps.push(match &self.latest {
            Some(latest) => Step::Tag { tag: LATEST.into(), digest: latest.digest.clone() },
            None => Step::Untag { tag: LATEST.into() },
        });
        Ok(())
    }

    /// Returns the digest of the manifest in the new state.
    pub fn digest(&self) -> &str {
        &self.new_manifest().digest
    }

    /// Returns the reference in the new state, where it has a tag.
    ///
    /// # Errors
    /// If the tag is none.
    pub fn reference(&self, repository: &dyn Repository) -> Result<Option<String>> {
        let kept = self.steps.iter().find_map(|step| match step {
            Step::Write { tag: Some(tag), .. } => Some(tag),
            _ => None,
        });
        let tag = kept.or(self.tag.as_ref());
        Ok(tag.map(|tag| repository.reference(tag)).transpose()?.map(|reference| reference.to_string()))
    }

    /// Returns what the signatures of the new manifest call it: by its tag, or where it gets none by its repository.
    fn signed_as(&self, repository: &dyn Repository) -> Result<Reference> {
        match self.reference(repository)? {
            Some(reference) => Ok(reference.parse()?),
            None => Ok(repository.reference(self.digest())?),
        }
    }

    /// Does what was decided.
    ///
    /// # Errors
    /// If a manifest or a tag cannot be written, or the manifest not be signed. A tag that cannot be taken away is a warning: it then names the new
    /// manifest, which says its state.
    pub fn carry_out(mut self, repository: &dyn Repository, seal: &Seal<'_>) -> Result<Promoted> {
        let mut warnings = std::mem::take(&mut self.warnings);
        let new = self.new_manifest();
        let named = |name| Tag { name, held: self.held.get(name).and_then(Option::as_deref) };
        for step in &self.steps {
            match step {
                Step::Write { tag, .. } if seal.signs() => {
                    repository.put(&self.manifests, None)?;
                    seal.put_on(&self.source, new, &self.signed_as(repository)?)?;
                    tag.as_deref().map(|tag| repository.tag(new, named(tag))).transpose()?;
                }
                Step::Write { tag, .. } => repository.put(&self.manifests, tag.as_deref().map(named))?,
                Step::Tag { tag, digest } => {
                    let manifest = self.latest.as_ref().filter(|latest| latest.digest == *digest).unwrap_or(new);
                    repository.tag(manifest, named(tag))?;
                }
                Step::Untag { tag } => {
                    if let Untagged::Remains(why) = repository.untag(tag)? {
                        repository.tag(new, named(tag))?;
                        let state = self.to;
                        warnings.push(format!("the tag {tag} remains ({why}); what it names now says {state}"));
                    }
                }
            }
        }
        Ok(Promoted {
            reference: self.reference(repository)?,
            digest: new.digest.clone(),
            source_digest: self.source.digest.clone(),
            image_id: new.info.image_id(),
            from: self.from,
            to: self.to,
            signer: seal.signer(),
            warnings,
            steps: self.steps,
        })
    }
}

/// Returns whether a tag's image is the one that is promoted, or another state of it.
fn is_of(held: Option<&Manifest>, source: &Manifest, version: &Version) -> bool {
    let same = |held: &Manifest| {
        let same_version = || Version::parse(held.info.get(oci::VERSION)).is_ok_and(|held| held == *version);
        held.digest == source.digest || (same_skill(held, source) && same_version())
    };
    held.is_some_and(same)
}

/// Returns whether two images are versions of one skill: some keep several skills in one repository. The Go tool does not
/// say the name, and its title then has to do.
fn same_skill(one: &Manifest, other: &Manifest) -> bool {
    let name = |manifest: &Manifest| Some(manifest.info.get(image::NAME).to_owned()).filter(|name| !name.is_empty());
    match (name(one), name(other)) {
        (Some(one), Some(other)) => one == other,
        _ => title(one) == title(other),
    }
}

fn title(manifest: &Manifest) -> &str {
    manifest.info.get(oci::TITLE)
}

fn force() -> Option<String> {
    Some("choose another repository, or replace it with --force".to_owned())
}

/// Returns the highest published version of a skill that is neither a prerelease nor `except`.
fn highest_published(repository: &dyn Repository, source: &Manifest, except: &Version) -> Result<Option<Manifest>> {
    let tags = repository.tags()?;
    let mut versions: Vec<(Version, &String)> =
        tags.iter().filter_map(|tag| Some((Version::parse(tag).ok()?, tag))).collect();
    versions.retain(|(version, _)| version.pre.is_empty() && version != except);
    versions.sort();
    for (version, tag) in versions.into_iter().rev() {
        if let Some(manifest) = repository.get(tag)?
            && manifest.info.state() == Some(State::Published)
            && same_skill(&manifest, source)
            && manifest.info.get(oci::VERSION) == version.to_string()
        {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}
