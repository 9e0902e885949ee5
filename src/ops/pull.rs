//! `pull`: an image of a registry into the store, under the name that it has there.

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{immutable, verify};
use crate::error::{Error, Fault, fault_of};
use crate::reference::Reference;
use crate::store::layout::{Entry, Layout, REF_NAME};
use crate::store::remote::Remote;
use crate::store::repository::Manifest;
use crate::store::transfer::Copying;
use crate::store::{self, trusted};
use crate::trust::check::Verified;
use crate::trust::policy::Rule as Trust;

/// When a registry is asked, as in podman.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always, and it must answer.
    Always,
    /// Where the store does not have the image.
    Missing,
    /// Always, and the store's image will do where it does not answer or has the same.
    Newer,
    /// Never.
    Never,
}

/// The rule by which an image is pulled.
#[derive(Debug, Clone, Copy)]
pub struct Rule<'a> {
    /// When the registry is asked.
    pub when: When,
    /// Most bytes of blobs.
    pub limit: u64,
    /// What has to hold of it beside what the policy of the machine asks for.
    pub trust: Option<&'a Trust>,
    /// Whether its repository is pinned to who has signed it; else whoever takes it in does that.
    pub pins: bool,
}

impl Rule<'_> {
    /// Returns a rule that asks for nothing more than the policy does.
    pub fn new(when: When, limit: u64) -> Self {
        Self { when, limit, trust: None, pins: true }
    }

    /// Returns one for an image that is only looked at, or used by what pins it then.
    pub fn looking(when: When, limit: u64) -> Self {
        Self { pins: false, ..Self::new(when, limit) }
    }
}

/// An image that is in the store.
#[derive(Debug, Clone, Serialize)]
pub struct Pulled {
    /// Its entry in the store.
    #[serde(skip)]
    pub entry: Entry,
    /// Its name.
    pub reference: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Whether it came from the registry just now.
    pub fetched: bool,
    /// Who has signed it, where anybody asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// What the name stood for before, where that was another image.
    pub moved_from: Option<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Pulls an image. One that has to be signed gets its name, by which everything else finds it, when it is verified.
///
/// # Errors
/// If it cannot be had by the rule; [`Error::NotVerified`].
pub fn pull(
    (layout, remote): (&Layout, &Remote),
    reference: &Reference,
    rule: Rule<'_>,
    copying: Copying<'_>,
) -> Result<Pulled> {
    let name = name_in_store(reference)?;
    let here = match store::lookup(layout, &name.to_string()) {
        Err(Error::ImageNotFound(_)) => None,
        found => Some(found?),
    };
    match (rule.when, here) {
        (When::Never | When::Missing, Some(entry)) => as_it_is((layout, remote), (reference, &name), entry, rule),
        (When::Never, None) => Err(Error::ImageNotFound(reference.to_string()).into()),
        (When::Newer, Some(entry)) => match newer((layout, remote), reference, &name, &entry, (rule, copying)) {
            Err(e) if may_be_ignored(&e) => {
                let mut pulled =
                    as_it_is((layout, remote), (reference, &name), entry, Rule { when: When::Never, ..rule })?;
                pulled.warnings.push(format!("{e:#}; taking {reference} from the store"));
                Ok(pulled)
            }
            pulled => pulled,
        },
        (_, here) => fetch((layout, remote), reference, &name, here, (rule, copying)),
    }
}

/// Fetches an image unless the registry has the one that is here.
fn newer(
    (layout, remote): (&Layout, &Remote),
    reference: &Reference,
    name: &Reference,
    here: &Entry,
    how: (Rule<'_>, Copying<'_>),
) -> Result<Pulled> {
    match remote.registry.digest(reference)? {
        Some(digest) if digest == here.digest() => as_it_is((layout, remote), (reference, name), here.clone(), how.0),
        _ => fetch((layout, remote), reference, name, Some(here.clone()), how),
    }
}

/// Returns whether the store's image will do, as in podman: the registry did not give one, and nothing forbids that.
fn may_be_ignored(error: &anyhow::Error) -> bool {
    fault_of(error).is_some_and(|fault| !matches!(fault, Fault::Forbidden | Fault::Protocol))
}

/// Returns the name that a pulled image gets: the digest's where there is one, since a tag may name something else.
fn name_in_store(reference: &Reference) -> Result<Reference> {
    Ok(match reference.digest() {
        Some(digest) => reference.with_digest(digest)?,
        None => reference.clone().or_latest(),
    })
}

/// Takes the image that is here, which has to be signed all the same: by what is known of it here, or else by what its registry
/// says, where that may be asked.
fn as_it_is(
    (layout, remote): (&Layout, &Remote),
    (reference, name): (&Reference, &Reference),
    entry: Entry,
    rule: Rule<'_>,
) -> Result<Pulled> {
    if let Some(wanted) = reference.digest().filter(|wanted| *wanted != entry.digest()) {
        return Err(Error::damaged(reference, format!("its digest is {}, not {wanted}", entry.digest())).into());
    }
    let found = store::read(layout, entry)?;
    let verified = match trusted::check(layout, reference, (found.entry.digest(), &found.info), rule.trust) {
        Err(Error::NotVerified(_)) if rule.when != When::Never => {
            let manifest = Manifest::new(found.entry.digest(), found.manifest)?;
            verify::fetched((layout, remote), reference, &manifest, rule.trust)?
        }
        verified => verified?,
    };
    if rule.pins {
        trusted::pin(layout, reference, verified.as_ref())?;
    }
    let warnings = verified.iter().flat_map(|verified| verified.warnings.clone()).collect();
    Ok(Pulled { verified, warnings, ..named(name, found.entry) })
}

fn named(name: &Reference, entry: Entry) -> Pulled {
    let digest = entry.digest().to_owned();
    Pulled {
        entry,
        reference: name.to_string(),
        digest,
        fetched: false,
        verified: None,
        moved_from: None,
        warnings: Vec::new(),
    }
}

fn fetch(
    (layout, remote): (&Layout, &Remote),
    reference: &Reference,
    name: &Reference,
    here: Option<Entry>,
    (rule, copying): (Rule<'_>, Copying<'_>),
) -> Result<Pulled> {
    // Until the name is there nothing else keeps the blobs.
    let _writing = layout.writing()?;
    let descriptor = remote.fetch(layout, reference, rule.limit, copying)?;
    let digest = descriptor.digest().to_string();
    let manifest = Manifest::new(&digest, layout.read_json(&descriptor)?).context("Reading the manifest")?;
    if let Some(wanted) = reference.digest().filter(|wanted| **wanted != digest) {
        return Err(Error::damaged(reference, format!("its digest is {digest}, not {wanted}")).into());
    }
    let verified = verify::fetched((layout, remote), reference, &manifest, rule.trust)?;
    let warnings = verified.iter().flat_map(|verified| verified.warnings.clone()).collect();
    if rule.pins {
        // Before it has its name: where another process was faster with another signer, nothing is named.
        trusted::pin(layout, reference, verified.as_ref())?;
    }
    let entry = store_as(layout, name, &manifest, true)?;
    let mut pulled = Pulled { fetched: true, verified, warnings, ..named(name, entry) };
    if let Some(before) = here.filter(|before| before.digest() != digest) {
        if let Ok(held) = store::read(layout, before.clone())
            && let held = (immutable::Version { digest: before.digest(), info: &held.info })
            && immutable::check(name, held, immutable::Version { digest: &digest, info: &manifest.info }).is_err()
        {
            let (was, state) = (before.digest(), manifest.info.get(crate::image::STATUS));
            pulled.warnings.push(format!("{name} was published as {was}, and is now {digest} ({state})"));
        }
        pulled.moved_from = Some(before.digest().to_owned());
    }
    Ok(pulled)
}

/// Names a manifest whose blobs are in the store.
///
/// # Errors
/// If the index cannot be changed, or the name is published with other content and `force` is not given.
pub fn store_as(layout: &Layout, name: &Reference, manifest: &Manifest, force: bool) -> Result<Entry> {
    let mut entry = manifest.entry();
    immutable::set(layout, name, &entry, force)?;
    entry["annotations"][REF_NAME] = name.to_string().into();
    Ok(Entry { name: Some(name.to_string()), descriptor: serde_json::from_value(entry)? })
}
