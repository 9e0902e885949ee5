//! Signatures on registries: the tag `sha256-<hex>.sig`, and what refers to a manifest by the registry's word or, where that does not
//! say, by the index at the tag `sha256-<hex>` (distribution specification, referrers tag schema).

use serde_json::{Value, json};

use super::attached;
use super::layout::{Entry, Layout};
use super::registry::Registry;
use super::remote::Remote;
use super::transfer::Copying;
use crate::error::{Error, Fault, Result};
use crate::reference::Reference;
use crate::trust::bundle::BUNDLE;
use crate::trust::read::MAX_SIGNATURES;
use crate::trust::simple;
use crate::trust::verify::Signatures;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// How often an index that others write, too, is read again and merged with ours: registries ignore `If-Match`.
const MERGES: u32 = 5;

/// Returns the signatures of a manifest that a registry has. `reference` names the repository.
///
/// # Errors
/// [`Error::Registry`]; [`Error::Unavailable`] for more of them than anybody makes.
pub fn signatures(registry: &Registry, reference: &Reference, digest: &str) -> Result<Signatures> {
    let mut signatures = simple_signatures(registry, reference, digest)?;
    let referrers = match registry.referrers(&reference.with_digest(digest)?)? {
        Some(referrers) => referrers,
        None => listed(registry, reference, digest)?.iter().filter_map(digest_of).map(str::to_owned).collect(),
    };
    if referrers.len() > MAX_SIGNATURES {
        let reason = format!("{reference} has {} referrers, more than {MAX_SIGNATURES}", referrers.len());
        return Err(Error::Unavailable { reason, hint: None });
    }
    for referrer in referrers {
        // What is listed and gone is no signature.
        let Some(found) = registry.manifest(&reference.with_digest(&referrer)?)? else { continue };
        signatures.add(&found.bytes, |digest, size| registry.blob(reference, digest, size))?;
    }
    Ok(signatures)
}

fn simple_signatures(registry: &Registry, reference: &Reference, digest: &str) -> Result<Signatures> {
    let mut signatures = Signatures::default();
    if let Some(found) = registry.manifest(&reference.with_tag(&simple::tag(digest))?)? {
        signatures.add(&found.bytes, |digest, size| registry.blob(reference, digest, size))?;
    }
    Ok(signatures)
}

/// Returns the entries of the index of referrers that a tag names; none where there is no such tag.
fn listed(registry: &Registry, reference: &Reference, digest: &str) -> Result<Vec<Value>> {
    let tag = reference.with_tag(&digest.replacen(':', "-", 1))?;
    let Some(found) = registry.manifest(&tag)? else { return Ok(Vec::new()) };
    let index: Value = serde_json::from_slice(&found.bytes).map_err(|e| Error::damaged(&tag, e))?;
    Ok(index["manifests"].as_array().cloned().unwrap_or_default())
}

fn digest_of(entry: &Value) -> Option<&str> {
    entry["digest"].as_str()
}

/// Sends the signatures of a manifest that the store has. Those that the registry has stay. The caller holds [`Layout::writing`].
///
/// # Errors
/// If they cannot be sent, or are not there afterwards.
pub fn send(
    layout: &Layout,
    remote: &Remote,
    (reference, digest): (&Reference, &str),
    copying: Copying<'_>,
) -> Result<()> {
    let theirs = simple_signatures(&remote.origin, reference, digest)?;
    if !theirs.simple.is_empty() {
        attached::add_simple(layout, digest, &theirs.simple)?;
    }
    for entry in attached::entries(layout, digest)? {
        let is_bundle = attached::is_bundle(&entry);
        let to = match is_bundle {
            true => reference.with_digest(entry.digest())?,
            false => reference.with_tag(&simple::tag(digest))?,
        };
        let arrived = || remote.arrived(&to, entry.digest());
        remote.send(layout, &entry.descriptor, &to, || Ok::<_, Error>(true), arrived, copying)?;
        if is_bundle {
            list(&remote.origin, reference, digest, &entry)?;
        }
    }
    Ok(())
}

/// Has a registry that does not list referrers by itself name one in the index of them.
fn list(registry: &Registry, reference: &Reference, digest: &str, entry: &Entry) -> Result<()> {
    if registry.referrers(&reference.with_digest(digest)?)?.is_some() {
        return Ok(());
    }
    let tag = reference.with_tag(&digest.replacen(':', "-", 1))?;
    let own = json!({
        "mediaType": entry.descriptor.media_type().to_string(),
        "digest": entry.digest(),
        "size": entry.descriptor.size(),
        "artifactType": BUNDLE,
        "annotations": attached::referrer_annotations(entry),
    });
    for _ in 0..MERGES {
        let mut entries = listed(registry, reference, digest)?;
        if entries.iter().any(|other| digest_of(other) == Some(entry.digest())) {
            return Ok(());
        }
        entries.push(own.clone());
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        registry.put(&tag, INDEX, index.to_string().as_bytes())?;
    }
    Err(Error::Registry {
        registry: reference.registry().unwrap_or_default().to_owned(),
        fault: Fault::Server,
        reason: format!("{tag} does not keep what is written to it: somebody else writes it, too"),
        hint: None,
    })
}
