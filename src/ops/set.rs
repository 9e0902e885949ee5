//! Images with all that belongs to them, gathered for `save` and `mirror`: from the store, and from registries.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context as _, Result};

use super::collection::{self as sets, Means};
use crate::collection::{self, Form, Origin};
use crate::error::Error;
use crate::reference::{Reference, Transport};
use crate::store;
use crate::store::remote_attached;
use crate::store::repository::Manifest;
use crate::store::set::Member;

/// What was gathered.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The images, in the order of their names.
    pub members: Vec<Member>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Gathers images by name: those of the store; what is not there and has a registry in its name from that, without a name in the
/// store. A collection that is a file brings its members. With `single` one registry alone is asked: a password is for one. The caller
/// holds [`store::layout::Layout::writing`], and until all is done.
///
/// # Errors
/// If one is nowhere, has no name, or cannot be had.
pub fn gather(means: &Means<'_>, texts: &[String], single: bool) -> Result<Gathered> {
    let mut asked = None::<String>;
    let mut may_ask = |reference: &Reference| {
        let host = reference.registry().unwrap_or_default();
        let before = asked.get_or_insert_with(|| host.to_owned());
        match single && before != host {
            true => Err(Error::Unavailable {
                reason: format!("--creds would be sent to {before} and {host}"),
                hint: Some("log in to each, or give one registry at a time".into()),
            }),
            false => Ok(()),
        }
    };
    let mut gathered = Gathered::default();
    let mut members = BTreeMap::<Reference, Member>::new();
    let mut queue: VecDeque<String> = texts.iter().cloned().collect();
    while let Some(text) = queue.pop_front() {
        let (member, warnings) = find(means, &text, &mut may_ask)?;
        gathered.warnings.extend(warnings);
        match members.get(&member.name) {
            Some(other) if other.manifest.digest != member.manifest.digest => {
                let (one, two) = (&other.manifest.digest, &member.manifest.digest);
                let reason = format!("{} is asked for as {one} and as {two}", member.name);
                return Err(Error::Unavailable { reason, hint: None }.into());
            }
            Some(_) => continue,
            None => {}
        }
        if let Ok(Form::Artifact) = collection::form(&member.manifest.bytes, &text) {
            let opened = sets::artifact(means.layout, &member.manifest.info, &member.name, &member.manifest.digest)?;
            for one in &opened.collection.members {
                match &one.from {
                    Origin::Image(reference) => queue.push_back(reference.to_string()),
                    _ => {
                        let (name, own) = (&member.name, one.label());
                        gathered.warnings.push(format!("{name}: {own} is no image, and is not taken along"));
                    }
                }
            }
        }
        members.insert(member.name.clone(), member);
    }
    gathered.members = members.into_values().collect();
    Ok(gathered)
}

/// Finds an image in the store or, where that does not have it, on the registry in its name.
fn find(
    means: &Means<'_>,
    text: &str,
    may_ask: &mut dyn FnMut(&Reference) -> Result<(), Error>,
) -> Result<(Member, Vec<String>)> {
    let mut ask = |reference: &Reference| {
        may_ask(reference)?;
        fetch(means, reference)
    };
    let bare = match Transport::split(text) {
        (None, bare) => bare,
        (Some(Transport::Docker), name) => return ask(&name.parse::<Reference>()?.on_registry()?),
        (Some(_), _) => {
            let reason = format!("{text}: images of the store and of registries are expected here");
            return Err(
                Error::Unavailable { reason, hint: Some("skillctl copy brings it into the store".into()) }.into()
            );
        }
    };
    let layout = means.layout;
    match store::open(layout, bare) {
        Ok(found) => {
            let manifest = Manifest::new(found.entry.digest(), found.manifest)?;
            let name = named(bare, found.entry.name.as_deref())?;
            Ok((Member::of(layout, name, manifest)?, Vec::new()))
        }
        Err(e @ Error::ImageNotFound(_)) => match bare.parse::<Reference>() {
            Ok(reference) if reference.registry().is_some() => ask(&reference),
            _ => Err(e.into()),
        },
        Err(e) => Err(e.into()),
    }
}

/// Returns the name that an image is carried under: that of the store, else the one that it was asked for by.
fn named(text: &str, own: Option<&str>) -> Result<Reference> {
    match (own, text.parse::<Reference>()) {
        (Some(own), _) => Ok(own.parse::<Reference>()?.or_latest()),
        (None, Ok(asked)) if asked.digest().is_some() => Ok(asked),
        _ => {
            let reason = format!("{text} has no name to be found by");
            Err(Error::Unavailable { reason, hint: Some(format!("skillctl tag {text} NAME")) }.into())
        }
    }
}

fn fetch(means: &Means<'_>, reference: &Reference) -> Result<(Member, Vec<String>)> {
    let Means { layout, remote, limit, copying, .. } = *means;
    let reference = reference.clone().or_latest();
    let descriptor = remote.fetch(layout, &reference, limit, copying)?;
    let digest = descriptor.digest().to_string();
    let manifest = Manifest::new(&digest, layout.read_json(&descriptor)?).context("Reading the manifest")?;
    if let Some(wanted) = reference.digest().filter(|wanted| **wanted != digest) {
        return Err(Error::damaged(&reference, format!("its digest is {digest}, not {wanted}")).into());
    }
    let subjects = Member::subjects(&manifest);
    let (attached, warnings) = remote_attached::fetch((layout, remote), &reference, subjects, (limit, copying))?;
    // What has both is known by its tag; the digest was compared.
    let name = match (reference.tag(), reference.digest()) {
        (Some(tag), Some(_)) => reference.with_tag(tag)?,
        _ => reference,
    };
    Ok((Member { name, manifest, attached }, warnings))
}
