//! `pull`: an image of a registry into the store, under the name that it has there.

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::verify::Required;
use super::{immutable, verify};
use crate::error::{Error, Fault};
use crate::reference::Reference;
use crate::store::layout::{Entry, Layout, REF_NAME};
use crate::store::remote::Remote;
use crate::store::repository::Manifest;
use crate::store::transfer::Copying;
use crate::store::{self, attached};
use crate::trust::verify::Signer;

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
    /// Who has to have signed it; nobody where this is not said.
    pub required: Option<Required<'a>>,
}

impl Rule<'_> {
    /// Returns a rule that asks for no signature.
    pub fn unverified(when: When, limit: u64) -> Self {
        Self { when, limit, required: None }
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
    /// The signatures that hold, where some were required.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<Signer>,
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
    let fault = error.chain().find_map(|e| e.downcast_ref::<Error>()).and_then(Error::fault);
    fault.is_some_and(|fault| !matches!(fault, Fault::Forbidden | Fault::Protocol))
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
    let mut signers = Vec::new();
    if let Some(required) = rule.required {
        let manifest = Manifest::new(entry.digest(), layout.read_json(&entry.descriptor)?)?;
        let known = attached::signatures(layout, &manifest.digest)?;
        signers = match verify::check(&known, reference, &manifest, required) {
            Err(Error::NotVerified { .. }) if rule.when != When::Never => {
                verify::fetched((layout, remote), reference, &manifest, required)?.signers
            }
            verified => verified?.signers,
        };
    }
    Ok(Pulled { signers, ..named(name, entry) })
}

fn named(name: &Reference, entry: Entry) -> Pulled {
    let digest = entry.digest().to_owned();
    let (signers, warnings) = (Vec::new(), Vec::new());
    Pulled { entry, reference: name.to_string(), digest, fetched: false, signers, moved_from: None, warnings }
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
    let mut signers = Vec::new();
    if let Some(required) = rule.required {
        signers = verify::fetched((layout, remote), reference, &manifest, required)?.signers;
    }
    let mut pulled = Pulled { fetched: true, signers, ..named(name, store_as(layout, name, &manifest, true)?) };
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
