//! `generate volume`, `quadlet` and `kube`: which images, by digest, from one reading of the store's index.

use anyhow::{Context as _, Result};

use crate::error::{Error, Fault, fault_of};
use crate::format::{Format, Shape};
use crate::generate::{Skill, oci_version};
use crate::image::Info;
use crate::ops::verify;
use crate::reference::{Reference, Transport};
use crate::store::layout::{Entry, Layout};
use crate::store::registry::Registry;
use crate::store::remote::not_found;
use crate::store::storage::Storage;
use crate::store::storage_images::LoadState;
use crate::store::{self, trusted};
use crate::trust::check::Against;
use crate::trust::policy::Policy;

/// Where images are looked for, in this order. What is not needed is not opened.
pub struct Places<'a> {
    /// The store.
    pub layout: Option<&'a Layout>,
    /// What has to hold of images.
    pub policy: &'a Policy,
    /// containers-storage.
    pub storage: &'a dyn Fn() -> Result<Storage>,
    /// Registries, and how a text names an image of one.
    pub registry: &'a dyn Fn() -> Result<Registry>,
    /// What a text means as the name of an image of a registry.
    pub resolve: &'a dyn Fn(&str) -> Result<Reference>,
}

impl std::fmt::Debug for Places<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Places").field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// What is going to read the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A runtime, which mounts images.
    Runtime,
    /// `skillctl pull -o`, which unpacks other forms, too; only of ours is it known by the manifest what is in it.
    Pull,
}

/// Finds the skills of several images.
///
/// # Errors
/// If one is nowhere, cannot be read by `reader`, or two have one name.
pub fn skills(places: &Places<'_>, texts: &[String], reader: Reader) -> Result<Vec<Skill>> {
    let mut skills: Vec<Skill> = Vec::new();
    for text in texts {
        let context = || format!("Looking for {text}");
        let (reference, digest, info) = find(places, text).with_context(context)?;
        check(&info, &reference, reader).with_context(context)?;
        let skill = skill(&reference, &digest, &info).with_context(context)?;
        if let Some(other) = skills.iter().find(|other| other.name == skill.name) {
            let reason = format!("{} and {} are both the skill {}", other.shown(), skill.shown(), skill.name);
            return Err(Error::Unavailable { reason, hint: None }.into());
        }
        skills.push(skill);
    }
    Ok(skills)
}

/// Holds an image to what the policy asks of its name, and returns it by the digest that was verified: by what the store has, else by what
/// its registry says, where `may_ask`. What nothing is asked of stays as it is, and is not looked for.
///
/// # Errors
/// If it is nowhere; [`Error::NotVerified`]; those of `may_ask`.
pub fn held_to_policy(
    places: &Places<'_>,
    reference: &Reference,
    may_ask: impl FnOnce() -> Result<()>,
) -> Result<Reference> {
    if places.policy.rules(reference)?.is_empty() {
        return Ok(reference.clone());
    }
    let reference = reference.clone().or_latest();
    let text = reference.to_string();
    let stored = |layout: &Layout| {
        let found = store::open(layout, &text)?;
        trusted::found(layout, &found, &text, None).map(|_| found.entry.digest().to_owned())
    };
    let on_registry = || -> Result<String> {
        may_ask()?;
        let against = Against { given: None, policy: places.policy };
        let verified = verify::on_registry((&(places.registry)()?, places.layout), &reference, against)?;
        Ok(verified.with_context(|| format!("Nothing is asked of {text}"))?.digest)
    };
    let here = places.layout.map_or_else(|| Err(Error::ImageNotFound(text.clone())), stored);
    let digest = match here {
        Err(Error::ImageNotFound(_)) if reference.registry().is_some() => on_registry(),
        // Its signatures may have come after it. Where nobody can say, it is what it is here.
        Err(refused @ Error::NotVerified(_)) if reference.registry().is_some() => {
            let is_silent = |e: &anyhow::Error| matches!(fault_of(e), Some(Fault::Unreachable | Fault::Server));
            on_registry().map_err(|e| if is_silent(&e) { refused.into() } else { e })
        }
        here => here.map_err(Into::into),
    };
    match (reference.digest(), digest.with_context(|| format!("Looking for {text}"))?) {
        (None, digest) => Ok(format!("{text}@{digest}").parse()?),
        (Some(_), _) => Ok(reference),
    }
}

fn skill(reference: &Reference, digest: &str, info: &Info) -> Result<Skill> {
    let version = oci_version(info).or(reference.tag()).unwrap_or_default().to_owned();
    let image = reference.with_digest(digest)?;
    let name = info.skill_name().unwrap_or(reference.basename()).to_owned();
    Ok(Skill { image, tag: reference.tag().map(str::to_owned), name, version })
}

fn find(places: &Places<'_>, text: &str) -> Result<(Reference, String, Info)> {
    let mut missing = text.to_owned();
    match places.layout.map(|layout| (layout, store::lookup(layout, text))) {
        Some((layout, Ok(entry))) => return in_store(layout, entry, text),
        // The store says what it has instead.
        Some((_, Err(Error::ImageNotFound(what)))) => missing = what,
        None | Some((_, Err(Error::InvalidReference { .. }))) => {}
        Some((_, Err(e))) => return Err(e.into()),
    }
    if Transport::split(text).0.is_none()
        && let Some(found) = in_storage(&(places.storage)()?, text)?
    {
        trusted::only_loaded(places.policy, &found.0, &found.1)?;
        return Ok(found);
    }
    let reference = match (places.resolve)(text) {
        Ok(reference) => reference.or_latest(),
        // Without a registry in its name it can be nowhere else.
        Err(_) if text.parse::<Reference>().is_ok() => return Err(Error::ImageNotFound(missing).into()),
        Err(e) => return Err(e),
    };
    let registry = (places.registry)()?;
    let against = Against { given: None, policy: places.policy };
    let which = match verify::on_registry((&registry, places.layout), &reference, against)? {
        Some(verified) => reference.with_digest(&verified.digest)?,
        None => reference.clone(),
    };
    let found = registry.manifest(&which)?.ok_or_else(|| not_found(&reference))?;
    let info = Info::parse(&found.bytes, &reference.to_string())?;
    Ok((reference, found.digest, info))
}

fn in_store(layout: &Layout, entry: Entry, text: &str) -> Result<(Reference, String, Info)> {
    let found = store::read(layout, entry)?;
    trusted::found(layout, &found, text, None)?;
    let Some(name) = &found.entry.name else {
        let reason = format!("{text} has no name in the store any more");
        let hint = Some("skillctl tag gives it one".into());
        return Err(Error::Unavailable { reason, hint }.into());
    };
    let reference = name.parse::<Reference>()?.or_latest();
    Ok((reference, found.entry.digest().to_owned(), found.info))
}

fn in_storage(storage: &Storage, text: &str) -> Result<Option<(Reference, String, Info)>> {
    let Ok(reference) = text.parse::<Reference>().map(Reference::or_latest) else { return Ok(None) };
    let images = storage.images()?;
    let Some(record) = images.lookup(&reference.in_storage())? else { return Ok(None) };
    let Some(digest) = reference.digest().or(record.digest.as_deref()) else { return Ok(None) };
    let info = Info::parse(&storage.manifest(record, digest)?, text)?;
    Ok(Some((reference.clone(), digest.to_owned(), info)))
}

fn check(info: &Info, reference: &Reference, reader: Reader) -> Result<()> {
    let taken = match reader {
        Reader::Runtime => info.is_loadable(),
        Reader::Pull => !info.instances.is_empty() || Format::of(info, reference.name())?.shape == Shape::Own,
    };
    if taken {
        return Ok(());
    }
    let what = Format::of(info, reference.name()).map_or("no image", |format| format.name);
    let reason = format!("{reference} is in a form that cannot be mounted ({what})");
    let hint = format!("skillctl convert {reference} NAME:TAG makes an image of it, to be named instead");
    Err(Error::Unavailable { reason, hint: Some(hint) }.into())
}

/// Returns what has to be done before podman finds the images that no registry has.
///
/// # Errors
/// If containers-storage cannot be read.
pub fn not_loaded(storage: &Storage, skills: &[Skill]) -> Result<Vec<String>> {
    let local: Vec<&Skill> = skills.iter().filter(|skill| skill.is_local()).collect();
    if local.is_empty() {
        return Ok(Vec::new());
    }
    let images = storage.images()?;
    let missing = |skill: &&&Skill| {
        let name = skill.tagged().in_storage();
        let known = images.iter().any(|image| Some(skill.digest()) == image.digest.as_deref());
        !known && images.load_state(&name, skill.digest()) != LoadState::Yes
    };
    let line = |skill: &&Skill| format!("{0} is not loaded yet: skillctl load {0}", skill.shown());
    Ok(local.iter().filter(missing).map(line).collect())
}
