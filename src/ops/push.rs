//! `push`: an image of the store to a registry, with its digest.

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{immutable, tag};
use crate::error::{Error, Fault};
use crate::image::Info;
use crate::reference::Reference;
use crate::store::layout::{Entry, Layout};
use crate::store::remote::Remote;
use crate::store::repository::Manifest;
use crate::store::set::Member;
use crate::store::transfer::Copying;
use crate::store::{self, Found, attached, remote_attached};

/// An image that a registry has.
#[derive(Debug, Clone, Serialize)]
pub struct Pushed {
    /// The image of the store.
    pub reference: String,
    /// Its name on the registry.
    pub destination: String,
    /// The digest of its manifest, here and there.
    pub digest: String,
    /// How many things went along that belong to it: images of signatures, bundles, and whatever else refers to it.
    pub attached: usize,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// How an image is pushed.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Whether a tag that is published with other content is replaced.
    pub force: bool,
    /// Whether what the store has of signatures and attestations goes along.
    pub signatures: bool,
}

/// Pushes what `source` names to `destination`, or to the registry that is in its name, and tags it so in the store.
///
/// # Errors
/// If there is no such image or no registry in the name, the tag is published there with other content and that
/// is not forced, or it cannot be sent.
pub fn push(
    (layout, remote): (&Layout, &Remote),
    source: &str,
    destination: Option<&Reference>,
    how: How,
    copying: Copying<'_>,
) -> Result<Pushed> {
    let found = store::open(layout, source)?;
    let to = match (destination, &found.entry.name) {
        (Some(to), _) => with_tag_of(to, &found.entry)?,
        (None, Some(name)) => name.parse::<Reference>()?.or_latest(),
        (None, None) => {
            let reason = format!("{source} has no name, and so no registry");
            let hint = format!("skillctl push {source} REGISTRY/NAME:TAG");
            return Err(Error::Unavailable { reason, hint: Some(hint) }.into());
        }
    };
    if to.registry().is_none() {
        return Err(no_registry(found.entry.name.as_deref().unwrap_or(source), &to).into());
    }
    let digest = found.entry.digest().to_owned();
    let to = match (to.digest(), to.tag()) {
        (Some(wanted), _) if wanted != digest => {
            let reason = format!("{source} is {digest}, not {wanted}");
            return Err(Error::Unavailable { reason, hint: Some("leave the digest out".into()) }.into());
        }
        // The tag is written; the digest has been compared.
        (Some(_), Some(tag)) => to.with_tag(tag)?,
        _ => to,
    };
    let name = || match to.digest().is_none() && found.entry.name.as_deref() != Some(&to.to_string()) {
        // The registry has agreed, and its word counts.
        true => tag::tag(layout, &digest, &to, true).map(drop),
        false => Ok(()),
    };
    let own = to.clone();
    let manifest = Manifest::new(&digest, found.manifest.clone())?;
    let attached = match how.signatures {
        true => attached::all(layout, Member::subjects(&manifest))?,
        false => Vec::new(),
    };
    let (count, is_signed) = (attached.len(), attached.iter().any(|one| one.is_signatures));
    match attached.is_empty() {
        true => send((layout, remote), &found, &to, how.force, name, copying)?,
        false => {
            let member = Member { name: own, manifest, attached };
            send_all((layout, remote), &member, &to, how.force, copying)?;
            name()?;
        }
    }
    let own = found.entry.name.as_deref().and_then(|name| name.parse::<Reference>().ok());
    let other = own.filter(|own| is_signed && own.name() != to.name());
    let warning = |own: Reference| {
        let (own, to) = (own.name(), to.name());
        format!(
            "its simple signatures are for {own}, and podman takes none of them for {to}: sign it there, or verify with \
             --identity {own}"
        )
    };
    let warnings = other.map(warning).into_iter().collect();
    let reference = found.entry.name.unwrap_or_else(|| digest.clone());
    Ok(Pushed { reference, destination: to.to_string(), digest, attached: count, warnings })
}

/// Sends an image of the store to a registry with what belongs to it: the image by its digest, then that, and its tag last, so that
/// whoever finds the tag finds all.
///
/// # Errors
/// As [`push`].
pub fn send_all(
    (layout, remote): (&Layout, &Remote),
    member: &Member,
    to: &Reference,
    force: bool,
    copying: Copying<'_>,
) -> Result<()> {
    let Manifest { digest, media_type, bytes, info } = &member.manifest;
    // Returns whether the tag has to be written.
    let may = || match held(remote, to) {
        Ok(Some(held)) if held.digest == *digest => Ok(false),
        _ if force => Ok(true),
        Ok(Some(held)) => check(to, &held, digest, info).map(|()| true),
        Ok(None) => Ok(true),
        Err(e) => Err(e),
    };
    // Before anything is sent; and once more then.
    may()?;
    let _writing = layout.writing()?;
    let entry = Entry { name: None, descriptor: member.manifest.descriptor()? };
    let found = Found { entry, manifest: bytes.clone(), info: info.clone() };
    let by_digest = to.with_digest(digest)?;
    send((layout, remote), &found, &by_digest, force, || Ok(()), copying)?;
    for attached in &member.attached {
        remote_attached::send((layout, remote), to, attached, copying)
            .context("Sending its signatures and attestations")?;
    }
    if to.digest().is_none() && may()? {
        remote.origin.put(to, media_type, bytes)?;
        arrived(remote, to, digest, force)?;
    }
    Ok(())
}

/// Sends an image of the store to a registry, and does then what `after` does.
///
/// # Errors
/// As [`push`].
pub fn send(
    (layout, remote): (&Layout, &Remote),
    found: &Found,
    to: &Reference,
    force: bool,
    after: impl Fn() -> Result<()> + Sync,
    copying: Copying<'_>,
) -> Result<()> {
    let _writing = layout.writing()?;
    let digest = found.entry.digest();
    let may = || match held(remote, to) {
        // What has the digest has the bytes.
        Ok(Some(held)) if held.digest == digest => Ok(false),
        // What cannot be looked at is replaced, as was asked for.
        _ if force => Ok(true),
        Ok(Some(held)) => check(to, &held, digest, &found.info).map(|()| true),
        Ok(None) => Ok(true),
        Err(e) => Err(e),
    };
    let made = || {
        arrived(remote, to, digest, force)?;
        after()
    };
    match remote.send(layout, &found.entry.descriptor, to, may, made, copying)? {
        true => Ok(()),
        false => after(),
    }
}

/// Checks that a registry has under a name what was sent there; not with `force` where it lets nobody look, since skopeo
/// has compared what it sent.
fn arrived(remote: &Remote, to: &Reference, digest: &str, force: bool) -> Result<(), Error> {
    match remote.arrived(to, digest) {
        Err(e) if force && e.fault() == Some(Fault::Denied) => Ok(()),
        arrived => arrived,
    }
}

fn no_registry(source: &str, to: &Reference) -> Error {
    let reason = format!("{to} names no registry");
    let hint = match to.is_host() {
        true => format!("give the repository too: skillctl push {source} {}/NAMESPACE/NAME", to.name()),
        false => format!("give the registry too: skillctl push {source} registry.example/{to}"),
    };
    Error::Unavailable { reason, hint: Some(hint) }
}

/// Returns a destination with the source's tag where it has none of its own.
fn with_tag_of(to: &Reference, source: &Entry) -> Result<Reference> {
    if to.tag().is_some() || to.digest().is_some() {
        return Ok(to.clone());
    }
    let name: Option<Reference> = source.name.as_deref().and_then(|name| name.parse().ok());
    match name.as_ref().and_then(Reference::tag) {
        Some(tag) => Ok(to.with_tag(tag)?),
        None => Ok(to.clone().or_latest()),
    }
}

/// Reads what a registry itself has under a name.
///
/// # Errors
/// If the registry cannot be asked. One that does not let us look may have a published tag there, so that is an error,
/// too.
pub fn held(remote: &Remote, to: &Reference) -> Result<Option<Manifest>> {
    match remote.origin.manifest(to) {
        Ok(found) => Ok(found.map(|found| found.read(to)).transpose()?),
        Err(Error::Registry { fault: Fault::NotFound, .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Checks that a tag of a registry may get other content.
///
/// # Errors
/// As [`immutable::check`].
pub fn check(to: &Reference, held: &Manifest, digest: &str, info: &Info) -> Result<()> {
    let held = immutable::Version { digest: &held.digest, info: &held.info };
    Ok(immutable::check(to, held, immutable::Version { digest, info })?)
}
