//! What belongs to an image of the store: signatures and attestations.
//!
//! They are entries of the index without a name, which `list` does not show, with an annotation that says what they belong to. They stay
//! as long as that does: see `prune`. One image of signatures has all those of a digest, whatever repository they are for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use oci_spec::image::Descriptor;
use serde_json::{Value, json};

use super::blob::sha256;
use super::index::SUBJECT;
use super::layout::{Entry, Layout, entry_name};
use super::repository::Manifest;
use crate::error::{Error, Result};
use crate::image::Info;
use crate::trust::attestation::{Attestations, MAX_ATTESTATION};
use crate::trust::bundle::{self, PREDICATE_TYPE};
use crate::trust::read;
use crate::trust::simple::{self, Signature};
use crate::trust::verify::{Bundle, Signatures};

/// Most things that belong to one image, on all levels, that come with it from elsewhere.
pub const MAX_ATTACHED: usize = 4 * read::MAX_SIGNATURES;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What says nothing of its kind.
const UNKNOWN: &str = "application/octet-stream";
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
        attestations.add(&layout.read_json(&entry.descriptor)?, |digest, _| bundle(layout, digest))?;
    }
    Ok(attestations)
}

/// Reads a bundle, or the payload of a signature.
///
/// # Errors
/// As [`signatures`], and where it is larger than any may be.
pub fn bundle(layout: &Layout, digest: &str) -> Result<Vec<u8>> {
    layout.read_small(&described(layout, digest)?, MAX_ATTESTATION)
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
        layers.extend(lacking(&layers, &layers_of(added)));
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

/// Returns those of `added`, layers of an image of signatures, that are not among `layers`.
pub fn lacking(layers: &[Value], added: &[Value]) -> Vec<Value> {
    let is_in = |own: &&Value| {
        layers
            .iter()
            .any(|other| other["digest"] == own["digest"] && simple::signature_of(other) == simple::signature_of(own))
    };
    added.iter().filter(|own| !is_in(own)).cloned().collect()
}

/// Returns the layers of signatures.
pub fn layers_of(signatures: &[Signature]) -> Vec<Value> {
    signatures.iter().map(|signature| signature.layer.clone()).collect()
}

/// Something that belongs to a manifest.
#[derive(Debug, Clone)]
pub struct Attached {
    /// Digest of what it belongs to.
    pub subject: String,
    /// Whether it is the image of its signatures, and not something that refers to it by itself.
    pub is_signatures: bool,
    /// Its own manifest, which several names may have in common.
    pub manifest: Arc<Manifest>,
}

/// Returns what belongs to manifests, and what belongs to that in turn.
///
/// # Errors
/// [`Error::Damaged`] where something is not what its digest says.
pub fn all(layout: &Layout, subjects: Vec<String>) -> Result<Vec<Attached>> {
    let (mut all, mut queue) = (Vec::<Attached>::new(), VecDeque::from(subjects));
    while let Some(subject) = queue.pop_front() {
        for entry in entries(layout, &subject)? {
            if all.iter().any(|other| other.subject == subject && other.manifest.digest == entry.digest()) {
                continue;
            }
            let is_signatures = entry.descriptor.artifact_type().is_none();
            let manifest = Manifest::new(entry.digest(), layout.read_json(&entry.descriptor)?)?;
            queue.push_back(manifest.digest.clone());
            all.push(Attached { subject: subject.clone(), is_signatures, manifest: Arc::new(manifest) });
        }
    }
    Ok(all)
}

/// Adds to the entries of an index what came from elsewhere and whose blobs are here, as [`all`] returns it. Of two images of
/// signatures one with all of them is made.
///
/// # Errors
/// If that one cannot be written.
pub fn enter(layout: &Layout, entries: &mut Vec<Value>, attached: &Attached) -> Result<()> {
    let Attached { subject, is_signatures, manifest } = attached;
    if !is_signatures {
        let value = referrer(&manifest.bytes, subject)?.1;
        entries.retain(|other| !(is_attached(other, subject) && other["digest"] == value["digest"]));
        entries.push(value);
        return Ok(());
    }
    let old = entries.iter().position(|entry| is_image_of_signatures(entry, subject));
    let bytes = match old.map(|at| entries.remove(at)) {
        Some(old) if old["digest"] != manifest.digest.as_str() => {
            merged(layout, &blob(layout, old["digest"].as_str().unwrap_or_default())?, &manifest.bytes)?
        }
        _ => manifest.bytes.clone(),
    };
    entries.push(new_entry(&bytes, subject, &[])?.1);
    Ok(())
}

/// Writes the image of the signatures of two, whose blobs are in the store, and returns its manifest: that of one where it has all.
///
/// # Errors
/// If it cannot be written.
pub fn merged(layout: &Layout, one: &[u8], other: &[u8]) -> Result<Vec<u8>> {
    let mut layers = read::layers(one)?;
    let added = lacking(&layers, &read::layers(other)?);
    if added.is_empty() {
        return Ok(one.to_vec());
    }
    layers.extend(added);
    image_of_signatures(layout, &layers)
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
    let (entry, value) = referrer(manifest, subject)?;
    layout.update(|entries| {
        entries.retain(|other| !(is_attached(other, subject) && other["digest"] == value["digest"]));
        entries.push(value);
        Ok::<_, Error>(())
    })?;
    Ok(entry)
}

/// Returns the entry of what refers to a manifest, and the same as JSON.
fn referrer(manifest: &[u8], subject: &str) -> Result<(Entry, Value)> {
    let value: Value = serde_json::from_slice(manifest).map_err(|e| Error::damaged("a signature", e))?;
    // Those alone, and short: the index is read whole, and others of its annotations have a meaning.
    let annotations = value["annotations"].as_object().into_iter().flatten();
    let own: Vec<(&str, &str)> = annotations
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .filter(|(key, value)| ANNOTATIONS.contains(key) && value.len() <= MAX_ANNOTATION)
        .collect();
    let (_, mut entry) = new_entry(manifest, subject, &own)?;
    entry["artifactType"] = artifact_type(&value).into();
    entry["mediaType"] = value["mediaType"].as_str().unwrap_or(MANIFEST).into();
    let descriptor = serde_json::from_value(entry.clone()).map_err(|e| Error::damaged("an entry", e))?;
    Ok((Entry::new(descriptor), entry))
}

/// Returns the entry of what refers to a manifest, as an index has it.
///
/// # Errors
/// [`Error::Damaged`] where it is none.
pub fn entry(manifest: &Manifest, subject: &str) -> Result<Value> {
    referrer(&manifest.bytes, subject).map(|(_, entry)| entry)
}

/// Returns how an index of referrers names one (distribution specification, listing referrers).
pub fn listing(manifest: &Manifest) -> Value {
    let value: Value = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    json!({
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.bytes.len(),
        "artifactType": artifact_type(&value),
        "annotations": manifest.info.annotations,
    })
}

/// Returns what kind of artifact a manifest is: as it says, else the type of its config (distribution specification).
fn artifact_type(manifest: &Value) -> &str {
    let own = manifest["artifactType"].as_str().filter(|own| !own.is_empty());
    own.or_else(|| manifest["config"]["mediaType"].as_str()).unwrap_or(UNKNOWN)
}

/// Returns an entry, and the same as JSON.
fn new_entry(manifest: &[u8], subject: &str, annotations: &[(&str, &str)]) -> Result<(Entry, Value)> {
    let mut value = json!({
        "mediaType": MANIFEST,
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
