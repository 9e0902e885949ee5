//! What belongs to an image of the store: signatures and attestations.
//!
//! They are entries of the index without a name, which `list` does not show, with an annotation that says what they belong to. They stay
//! as long as that does: see `prune`. One image of signatures has all those of a digest, whatever repository they are for.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::blob::sha256;
use super::layout::{Entry, Layout, REF_NAME, entry_name};
use crate::error::{Error, Result};
use crate::trust::bundle::{self, BUNDLE};
use crate::trust::simple::{self, Signature};
use crate::trust::verify::{Bundle, Signatures};

/// The annotation of an entry that says which digest it belongs to.
pub const SUBJECT: &str = "io.skillimage.subject";

/// Returns the entries that belong to a manifest.
///
/// # Errors
/// If the index cannot be read.
pub fn entries(layout: &Layout, digest: &str) -> Result<Vec<Entry>> {
    let mut entries = layout.entries_with(digest)?;
    entries.retain(|entry| entry.name.is_none() && subject(entry) == Some(digest));
    Ok(entries)
}

/// Returns what an entry belongs to.
pub fn subject(entry: &Entry) -> Option<&str> {
    entry.descriptor.annotations().as_ref()?.get(SUBJECT).map(String::as_str)
}

/// Returns whether an entry is that of a bundle, and not of an image of signatures.
pub fn is_bundle(entry: &Entry) -> bool {
    entry.descriptor.artifact_type().is_some()
}

/// Returns what an index of referrers repeats of an entry: the annotations of its manifest.
pub fn referrer_annotations(entry: &Entry) -> BTreeMap<&str, &str> {
    let own = entry.descriptor.annotations().iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()));
    own.filter(|(key, _)| *key != SUBJECT).collect()
}

/// Returns the signatures of a manifest.
///
/// # Errors
/// [`Error::Damaged`] where one is not what its digest says.
pub fn signatures(layout: &Layout, digest: &str) -> Result<Signatures> {
    let mut signatures = Signatures::default();
    for entry in entries(layout, digest)? {
        signatures.add(&layout.read_json(&entry.descriptor)?, |digest, _| blob(layout, digest))?;
    }
    Ok(signatures)
}

/// Returns a blob that is as small as a manifest.
fn blob(layout: &Layout, digest: &str) -> Result<Vec<u8>> {
    let missing = || Error::damaged(format!("blob {digest}"), "it is missing");
    layout.read_json(&layout.describe(digest).ok_or_else(missing)?)
}

/// Adds simple signatures of a manifest to those that it has. The caller holds [`Layout::writing`].
///
/// # Errors
/// If it cannot be written.
pub fn add_simple(layout: &Layout, subject: &str, added: &[Signature]) -> Result<Entry> {
    let entry = layout.update(|entries| {
        let old = entries.iter().position(|entry| is_image_of_signatures(entry, subject));
        let mut layers = match old.and_then(|at| entries[at]["digest"].as_str()) {
            Some(digest) => layers_of(&blob(layout, digest)?)?,
            None => Vec::new(),
        };
        for signature in added {
            let digest = layout.write_blob(&signature.payload)?;
            let layer = signature.layer(&digest);
            if !layers.contains(&layer) {
                layers.push(layer);
            }
        }
        let config = simple::config(&layers).to_string().into_bytes();
        let config_digest = layout.write_blob(&config)?;
        let manifest = simple::manifest((&config_digest, config.len()), &layers).to_string().into_bytes();
        layout.write_blob(&manifest)?;
        if let Some(old) = old {
            entries.remove(old);
        }
        let entry = entry(&manifest, subject);
        entries.push(entry.clone());
        Ok::<_, Error>(entry)
    })?;
    as_entry(entry)
}

/// Keeps signatures that were found elsewhere, as their signers have written them. The caller holds [`Layout::writing`].
///
/// # Errors
/// If they cannot be written.
pub fn keep(layout: &Layout, subject: &str, signatures: &Signatures) -> Result<()> {
    if !signatures.simple.is_empty() {
        add_simple(layout, subject, &signatures.simple)?;
    }
    for Bundle { bytes, manifest } in &signatures.bundles {
        layout.write_blob(bundle::EMPTY)?;
        layout.write_blob(bytes)?;
        let value: Value = serde_json::from_slice(manifest).map_err(|e| Error::damaged("a signature", e))?;
        // Only what has nothing else that would have to come along.
        let whole =
            value["config"]["digest"] == sha256(bundle::EMPTY) && value["layers"].as_array().map(Vec::len) == Some(1);
        if whole {
            attach(layout, manifest, subject, &value["annotations"])?;
        }
    }
    Ok(())
}

/// Adds a bundle that states something of the type `predicate_type` about `subject`, a descriptor. The caller holds
/// [`Layout::writing`].
///
/// # Errors
/// If it cannot be written.
pub fn add_bundle(layout: &Layout, subject: &Value, bundle: &[u8], predicate_type: &str) -> Result<Entry> {
    let digest = layout.write_blob(bundle)?;
    let empty = layout.write_blob(bundle::EMPTY)?;
    let manifest = bundle::manifest(subject, predicate_type, (&digest, bundle.len()), &empty);
    let subject = subject["digest"].as_str().unwrap_or_default();
    attach(layout, manifest.to_string().as_bytes(), subject, &manifest["annotations"])
}

/// Adds the manifest of a bundle.
fn attach(layout: &Layout, manifest: &[u8], subject: &str, annotations: &Value) -> Result<Entry> {
    layout.write_blob(manifest)?;
    let mut entry = entry(manifest, subject);
    entry["artifactType"] = BUNDLE.into();
    for (key, value) in annotations.as_object().into_iter().flatten() {
        // Those that the index gives a meaning are not a stranger's to set.
        if ![SUBJECT, REF_NAME].contains(&key.as_str()) {
            entry["annotations"][key] = value.clone();
        }
    }
    layout.update(|entries| {
        entries.retain(|other| entry_name(other).is_some() || other["digest"] != entry["digest"]);
        entries.push(entry.clone());
        Ok::<_, Error>(())
    })?;
    as_entry(entry)
}

fn entry(manifest: &[u8], subject: &str) -> Value {
    json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": sha256(manifest),
        "size": manifest.len(),
        "annotations": {SUBJECT: subject},
    })
}

fn as_entry(entry: Value) -> Result<Entry> {
    serde_json::from_value(entry).map(Entry::new).map_err(|e| Error::damaged("an entry", e))
}

fn is_image_of_signatures(entry: &Value, subject: &str) -> bool {
    entry_name(entry).is_none() && entry["annotations"][SUBJECT] == subject && entry["artifactType"].is_null()
}

fn layers_of(manifest: &[u8]) -> Result<Vec<Value>> {
    let manifest: Value = serde_json::from_slice(manifest).map_err(|e| Error::damaged("the image of signatures", e))?;
    Ok(manifest["layers"].as_array().cloned().unwrap_or_default())
}
