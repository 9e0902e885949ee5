//! `collection push`: every member is looked for first, and nothing is written where one is missing.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::Means;
use crate::collection::{self, Collection, Form, Item, Member, Origin};
use crate::error::{Error, Fault};
use crate::ops::pull::{self, Rule, When, store_as};
use crate::ops::push as image;
use crate::redact::without_credentials;
use crate::reference::Reference;
use crate::store::blob::sha256;
use crate::store::remote::not_found;
use crate::store::repository::Manifest;
use crate::store::transfer::MAX_INSTANCES;
use crate::store::{self, Found};

/// Length of a commit of Git, in hexadecimal digits.
const COMMIT: usize = 40;

/// How a collection is pushed.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The file that it was, for messages.
    pub origin: &'a str,
    /// How it is kept there.
    pub form: Form,
    /// RFC 3339 date of the image.
    pub created: &'a str,
    /// Whether a tag that is published with other content is replaced.
    pub force: bool,
}

/// A collection that a registry has.
#[derive(Debug, Clone, Serialize)]
pub struct Pushed {
    /// Its name there.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: String,
    /// How it is kept.
    pub form: Form,
    /// Its members as it names them.
    #[serde(skip)]
    pub collection: Collection,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Pushes a collection under the name `to`, which names a registry, and keeps it in the store so.
///
/// # Errors
/// One that names the file and all members that are missing or cannot be in this form; as [`image::push`].
pub fn push(means: &Means<'_>, collection: &Collection, to: &Reference, options: &Options<'_>) -> Result<Pushed> {
    let (mut digests, mut seen) = (Vec::new(), BTreeMap::new());
    let (mut problems, mut hint) = (Vec::new(), None);
    for member in &collection.members {
        match look(means, member, options.form) {
            Ok(digest) => {
                let other = digest.clone().and_then(|digest| seen.insert(digest, member.label()));
                if let (Some(other), Form::Index) = (other, options.form) {
                    problems.push(format!("{other} and {} are the same image", member.label()));
                }
                digests.push(digest);
            }
            // What cannot be asked now will not be there for the next member either.
            Err(e) if !matches!(e.fault(), None | Some(Fault::NotFound)) => {
                return Err(e).with_context(|| format!("{}: member {}", options.origin, member.label()));
            }
            Err(e) => {
                hint = hint.or(e.hint());
                problems.push(format!("member {}: {e}", member.label()));
            }
        }
    }
    if options.form == Form::Index && collection.members.len() > MAX_INSTANCES {
        problems.push(format!("an index has at most {MAX_INSTANCES} members, not {}", collection.members.len()));
        hint = hint.or(Some("--form artifact has no such limit".into()));
    }
    if !problems.is_empty() {
        let reason = format!("{}: {}", options.origin, problems.join("; "));
        return Err(Error::Unavailable { reason, hint }.into());
    }
    let pinned = collection.pinned(&digests)?;
    let _writing = means.layout.writing()?;
    let manifest = match options.form {
        Form::Artifact => artifact(means, &pinned, options)?,
        Form::Index => index(means, &pinned, to, options)?,
    };
    let manifest = Manifest::new(&sha256(&manifest), manifest)?;
    means.layout.write_blob(&manifest.bytes)?;
    let to = to.clone().or_latest();
    store_as(means.layout, &to, &manifest, options.force)?;
    let how = image::How { force: options.force, signatures: true };
    image::push((means.layout, means.remote), &to.to_string(), None, how, means.copying)?;
    let warnings = match options.form {
        Form::Artifact => pinned.members.iter().filter_map(unpinned).collect(),
        Form::Index => Vec::new(),
    };
    Ok(Pushed { reference: to.to_string(), digest: manifest.digest, form: options.form, collection: pinned, warnings })
}

/// Returns the digest of a member's image, where that is what it is.
fn look(means: &Means<'_>, member: &Member, form: Form) -> Result<Option<String>, Error> {
    let reference = match (&member.from, form) {
        (Origin::Image(reference), _) => reference.clone().or_latest(),
        (Origin::Source(url), _) if without_credentials(url) != *url => {
            let reason = "its URL has credentials, which everybody could read in the collection".into();
            let hint = Some("leave them out: git asks a credential helper for them".into());
            return Err(Error::Unavailable { reason, hint });
        }
        (Origin::Source(_), Form::Artifact) => return Ok(None),
        (Origin::Source(url), Form::Index) => {
            let reason = format!("{url} is no image, and an index lists images");
            return Err(Error::Unavailable { reason, hint: Some("push it with --form artifact".into()) });
        }
    };
    let found = match (reference.registry(), form) {
        (None, Form::Artifact) => {
            store::lookup(means.layout, &reference.to_string())?;
            return Err(only_here(&reference));
        }
        (None, Form::Index) => {
            let found = store::open(means.layout, &reference.to_string())?;
            Some((found.entry.digest().to_owned(), found.info.config.is_some()))
        }
        (Some(_), Form::Artifact) => means.remote.registry.digest(&reference)?.map(|digest| (digest, true)),
        (Some(_), Form::Index) => {
            let manifest = means.remote.registry.manifest(&reference)?;
            let manifest = manifest.map(|manifest| manifest.read(&reference)).transpose()?;
            manifest.map(|manifest| (manifest.digest, manifest.info.config.is_some()))
        }
    };
    match found {
        Some((digest, true)) => Ok(Some(digest)),
        Some((_, false)) => Err(Error::Unavailable {
            reason: format!("{reference} has images for several platforms, and an index lists single ones"),
            hint: Some("push it with --form artifact".into()),
        }),
        None => Err(not_found(&reference)),
    }
}

fn only_here(reference: &Reference) -> Error {
    Error::Unavailable {
        reason: format!("{reference} is in this store only, where nobody else finds it"),
        hint: Some(format!(
            "skillctl push {reference} registry.example/{reference}, and give that name in the collection"
        )),
    }
}

/// Returns a warning for a member from Git whose URL names no commit.
fn unpinned(member: &Member) -> Option<String> {
    let Origin::Source(url) = &member.from else { return None };
    let commit = |part: &str| part.len() == COMMIT && part.bytes().all(|b| b.is_ascii_hexdigit());
    let fragment = url.split_once('#').is_some_and(|(_, at)| commit(at.split([':', '/']).next().unwrap_or_default()));
    let tree = url.split_once("/tree/").is_some_and(|(_, at)| commit(at.split(['/', '#']).next().unwrap_or_default()));
    let label = member.label();
    (!fragment && !tree).then(|| format!("{label}: {url} names no commit, so that others may get something else"))
}

/// Writes what an artifact refers to, and returns its manifest.
fn artifact(means: &Means<'_>, pinned: &Collection, options: &Options<'_>) -> Result<Vec<u8>> {
    let artifact = collection::artifact(pinned, options.created, sha256);
    means.layout.write_blob(collection::CONFIG)?;
    means.layout.write_blob(&artifact.layer)?;
    Ok(artifact.manifest)
}

/// Fetches what an index lists, and returns its manifest: it is pushed with all members from the store, so that they come to
/// be in the collection's own repository.
fn index(means: &Means<'_>, pinned: &Collection, to: &Reference, options: &Options<'_>) -> Result<Vec<u8>> {
    let mut members = Vec::new();
    for member in &pinned.members {
        let fetched = fetch(means, member);
        members.push(fetched.with_context(|| format!("{}: member {}", options.origin, member.label()))?);
    }
    let mut items = Vec::new();
    for (member, found) in pinned.members.iter().zip(&members) {
        means.layout.bring(&found.entry.descriptor)?;
        let own = member.image().filter(|own| own.registry().is_some());
        items.push(Item {
            name: member.label(),
            // What only this store has is nowhere else than in the collection.
            reference: own.cloned().map_or_else(|| to.with_digest(found.entry.digest()), Ok)?,
            size: found.manifest.len() as u64,
            info: found.info.clone(),
        });
    }
    Ok(collection::index(pinned, &items, options.created))
}

fn fetch(means: &Means<'_>, member: &Member) -> Result<Found> {
    let reference = member.image().context("It is no image")?;
    match reference.registry() {
        Some(_) => {
            let pulled = pull::pull(
                (means.layout, means.remote),
                reference,
                Rule::new(When::Missing, means.limit),
                means.copying,
            )?;
            Ok(store::read(means.layout, pulled.entry)?)
        }
        None => Ok(store::open(means.layout, &reference.to_string())?),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sources_without_a_commit_are_warned_of() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let cases = [
            ("https://git.example/a/b".to_owned(), false),
            ("https://git.example/a/b/tree/main/hr".to_owned(), false),
            (format!("https://git.example/a/b/tree/{commit}/hr"), true),
            (format!("https://git.example/a/b/tree/{commit}"), true),
            (format!("https://git.example/a/b.git#{commit}:hr"), true),
            (format!("https://git.example/a/b.git#{commit}0"), false),
            (format!("https://git.example/{commit}/b"), false),
        ];
        for (url, pinned) in cases {
            let member = Member { name: None, from: Origin::Source(url.clone()) };
            assert_eq!(unpinned(&member).is_none(), pinned, "{url}");
        }
    }
}
