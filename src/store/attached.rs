//! What belongs to an image of the store: signatures and attestations.
//!
//! They are entries of the index without a name, which `list` does not show, with an annotation that says what they belong to. They stay
//! as long as that does: see `prune`. One image of signatures has all those of a digest, whatever repository they are for.

use std::collections::BTreeMap;

use oci_spec::image::Descriptor;
use serde_json::{Value, json};

use super::blob::sha256;
use super::index::SUBJECT;
use super::layout::{Entry, Layout, entry_name};
use crate::error::{Error, Result};
use crate::image::Info;
use crate::trust::attestation::{Attestations, MAX_ATTESTATION};
use crate::trust::bundle::{self, BUNDLE, PREDICATE_TYPE};
use crate::trust::read;
use crate::trust::simple::{self, Signature};
use crate::trust::verify::{Bundle, Signatures};

/// The annotations of a bundle's manifest that its entry repeats.
const ANNOTATIONS: [&str; 2] = ["dev.sigstore.bundle.content", PREDICATE_TYPE];
/// Longest of them, in bytes.
const MAX_ANNOTATION: usize = 256;

/// Returns the entries that belong to a manifest.
///
/// # Errors
/// If the index cannot be read.
pub fn entries(layout: &Layout, digest: &str) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    for store in layout.all() {
        all.extend(store.entries_with(digest)?.into_iter().filter(|entry| subject(entry) == Some(digest)));
    }
    Ok(all)
}

/// Returns what an entry belongs to.
pub fn subject(entry: &Entry) -> Option<&str> {
    if entry.name.is_some() {
        return None;
    }
    entry.descriptor.annotations().as_ref()?.get(SUBJECT).map(String::as_str)
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

/// Returns the attestations of a manifest.
///
/// # Errors
/// As [`signatures`].
pub fn attestations(layout: &Layout, digest: &str) -> Result<Attestations> {
    let mut attestations = Attestations::default();
    for entry in entries(layout, digest)? {
        let bundle = |digest: &str, _| layout.read_small(&described(layout, digest)?, MAX_ATTESTATION);
        attestations.add(&layout.read_json(&entry.descriptor)?, bundle)?;
    }
    Ok(attestations)
}

/// Returns the entry of a bundle of a manifest.
///
/// # Errors
/// As [`entries`].
pub fn entry_of(layout: &Layout, digest: &str, bundle: &Bundle) -> Result<Option<Entry>> {
    let own = sha256(&bundle.manifest);
    Ok(entries(layout, digest)?.into_iter().find(|entry| entry.digest() == own))
}

/// Returns a blob that is as small as a manifest.
fn blob(layout: &Layout, digest: &str) -> Result<Vec<u8>> {
    layout.read_json(&described(layout, digest)?)
}

fn described(layout: &Layout, digest: &str) -> Result<Descriptor> {
    layout.describe(digest).ok_or_else(|| Error::damaged(format!("blob {digest}"), "it is missing"))
}

/// Adds simple signatures of a manifest to those that it has. The caller holds [`Layout::writing`].
///
/// # Errors
/// If they cannot be written.
pub fn add_simple(layout: &Layout, subject: &str, added: &[Signature]) -> Result<Entry> {
    write_payloads(layout, added)?;
    layout.update(|entries| {
        let old = entries.iter().position(|entry| is_image_of_signatures(entry, subject));
        let mut layers = match old.and_then(|at| entries[at]["digest"].as_str()) {
            Some(digest) => read::layers(&blob(layout, digest)?)?,
            None => Vec::new(),
        };
        layers.extend(lacking(&layers, added));
        let (entry, value) = new_entry(&image_of_signatures(layout, &layers)?, subject, &[])?;
        if let Some(old) = old {
            entries.remove(old);
        }
        entries.push(value);
        Ok(entry)
    })
}

/// Writes the blobs of signatures.
///
/// # Errors
/// If they cannot be written.
pub fn write_payloads(layout: &Layout, signatures: &[Signature]) -> Result<()> {
    signatures.iter().try_for_each(|signature| layout.write_blob(&signature.payload).map(drop))
}

/// Writes an image of signatures, whose payloads are in the store, and returns its manifest.
///
/// # Errors
/// If it cannot be written.
pub fn image_of_signatures(layout: &Layout, layers: &[Value]) -> Result<Vec<u8>> {
    let config = simple::config(layers).to_string().into_bytes();
    let digest = layout.write_blob(&config)?;
    let manifest = simple::manifest((&digest, config.len()), layers).to_string().into_bytes();
    layout.write_blob(&manifest)?;
    Ok(manifest)
}

/// Returns the layers of signatures that are not among `layers`.
pub fn lacking(layers: &[Value], signatures: &[Signature]) -> Vec<Value> {
    let is_in = |own: &Value| {
        layers
            .iter()
            .any(|other| other["digest"] == own["digest"] && simple::signature_of(other) == simple::signature_of(own))
    };
    signatures.iter().map(|signature| &signature.layer).filter(|layer| !is_in(layer)).cloned().collect()
}

/// Keeps signatures that hold, as their signers have written them. The caller holds [`Layout::writing`].
///
/// # Errors
/// If they cannot be written.
pub fn keep(layout: &Layout, subject: &str, signatures: &Signatures) -> Result<()> {
    if !signatures.simple.is_empty() {
        add_simple(layout, subject, &signatures.simple)?;
    }
    layout.write_blob(bundle::EMPTY)?;
    for Bundle { bytes, manifest } in &signatures.bundles {
        if is_plain(manifest, subject) {
            layout.write_blob(bytes)?;
            attach(layout, manifest, subject)?;
        }
    }
    Ok(())
}

/// Returns whether the manifest of a bundle is what every signer writes, with nothing else that would have to come along.
fn is_plain(manifest: &[u8], subject: &str) -> bool {
    let value: Value = serde_json::from_slice(manifest).unwrap_or_default();
    Info::parse(manifest, subject).is_ok_and(|info| info.instances.is_empty() && info.layers.len() == 1)
        && value["manifests"].is_null()
        && value["config"]["digest"] == sha256(bundle::EMPTY)
        && value["subject"]["digest"] == subject
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
    attach(layout, manifest.to_string().as_bytes(), subject["digest"].as_str().unwrap_or_default())
}

/// Adds the manifest of a bundle.
fn attach(layout: &Layout, manifest: &[u8], subject: &str) -> Result<Entry> {
    layout.write_blob(manifest)?;
    let value: Value = serde_json::from_slice(manifest).map_err(|e| Error::damaged("a signature", e))?;
    // Those alone, and short: the index is read whole, and others of its annotations have a meaning.
    let annotations = value["annotations"].as_object().into_iter().flatten();
    let own: Vec<(&str, &str)> = annotations
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .filter(|(key, value)| ANNOTATIONS.contains(key) && value.len() <= MAX_ANNOTATION)
        .collect();
    let (entry, mut value) = new_entry(manifest, subject, &own)?;
    value["artifactType"] = BUNDLE.into();
    layout.update(|entries| {
        entries.retain(|other| !(is_attached(other, subject) && other["digest"] == value["digest"]));
        entries.push(value);
        Ok::<_, Error>(())
    })?;
    Ok(entry)
}

/// Returns an entry, and the same as JSON.
fn new_entry(manifest: &[u8], subject: &str, annotations: &[(&str, &str)]) -> Result<(Entry, Value)> {
    let mut value = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": sha256(manifest),
        "size": manifest.len(),
        "annotations": {SUBJECT: subject},
    });
    for (key, text) in annotations {
        value["annotations"][*key] = (*text).into();
    }
    let entry = serde_json::from_value(value.clone()).map(Entry::new).map_err(|e| Error::damaged("an entry", e))?;
    Ok((entry, value))
}

fn is_attached(entry: &Value, subject: &str) -> bool {
    entry_name(entry).is_none() && entry["annotations"][SUBJECT] == subject
}

fn is_image_of_signatures(entry: &Value, subject: &str) -> bool {
    is_attached(entry, subject) && entry["artifactType"].is_null()
}
