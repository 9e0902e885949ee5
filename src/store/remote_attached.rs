//! Signatures on registries: the tag `sha256-<hex>.sig`, and what refers to a manifest by the registry's word or, where that does not
//! say, by the index at the tag `sha256-<hex>` (distribution specification, referrers tag schema).

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use oci_spec::image::Descriptor;
use serde_json::{Value, json};

use super::attached::{self, Attached, MAX_ATTACHED};
use super::blob::sha256;
use super::layout::{Entry, Layout, MAX_JSON};
use super::registry::Registry;
use super::remote::Remote;
use super::repository::Manifest;
use super::transfer::Copying;
use crate::error::{Error, Fault, Result};
use crate::reference::{Reference, is_digest};
use crate::trust::attestation::{Attestations, MAX_ATTESTATION};
use crate::trust::bundle::BUNDLE;
use crate::trust::read::{self, MAX_REFERRERS};
use crate::trust::simple::{self, Signature};
use crate::trust::verify::Signatures;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// How often an index that others write, too, is read again and merged with ours: registries ignore `If-Match`.
const MERGES: u32 = 5;
/// How long after our own write it is looked at once more: who has read before that writes within this.
const SETTLED: Duration = Duration::from_millis(200);

/// Returns the signatures of a manifest that a registry has. `reference` names the repository.
///
/// # Errors
/// [`Error::Registry`].
pub fn signatures(registry: &Registry, reference: &Reference, digest: &str) -> Result<Signatures> {
    let mut signatures = simple_signatures(registry, reference, digest)?;
    let blob = |digest: &str, size: u64| registry.blob(reference, digest, size);
    let more = each_referrer(registry, reference, digest, &mut |manifest| signatures.add(manifest, blob))?;
    signatures.unread.extend(more);
    Ok(signatures)
}

/// Returns the attestations of a manifest that a registry has. `reference` names the repository.
///
/// # Errors
/// [`Error::Registry`].
pub fn attestations(registry: &Registry, reference: &Reference, digest: &str) -> Result<Attestations> {
    let mut attestations = Attestations::default();
    let most = usize::try_from(MAX_ATTESTATION).unwrap_or(usize::MAX);
    let blob = |digest: &str, size: u64| registry.blob_up_to(most, reference, digest, size);
    let more = each_referrer(registry, reference, digest, &mut |manifest| attestations.add(manifest, blob))?;
    attestations.unread.extend(more);
    Ok(attestations)
}

/// Passes every manifest that refers to another one to `take`. Returns that there are more than are looked at, where there are.
fn each_referrer(
    registry: &Registry,
    reference: &Reference,
    digest: &str,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Option<String>> {
    let (referrers, more) = referrers(registry, reference, digest)?;
    for referrer in &referrers {
        // What is listed and gone is no signature, and what says that it refers to something else is none of this.
        let Some(found) = registry.manifest(&reference.with_digest(referrer)?)? else { continue };
        let value: Value = serde_json::from_slice(&found.bytes).unwrap_or_default();
        if value["subject"]["digest"] == digest {
            take(&found.bytes)?;
        }
    }
    Ok(more.then(|| format!("beyond the first {MAX_REFERRERS} referrers")))
}

/// Returns the same, but only those that podman reads.
///
/// # Errors
/// [`Error::Registry`].
pub fn simple_signatures(registry: &Registry, reference: &Reference, digest: &str) -> Result<Signatures> {
    let mut signatures = Signatures::default();
    if let Some(found) = registry.manifest(&reference.with_tag(&simple::tag(digest))?)? {
        signatures.add(&found.bytes, |digest, size| registry.blob(reference, digest, size))?;
    }
    Ok(signatures)
}

/// Returns the digests of what refers to a manifest, not more than [`MAX_REFERRERS`], and whether there are more.
fn referrers(registry: &Registry, reference: &Reference, digest: &str) -> Result<(Vec<String>, bool)> {
    let mut referrers = match registry.referrers(&reference.with_digest(digest)?, MAX_REFERRERS)? {
        Some(referrers) => referrers,
        None => listed(registry, reference, digest)?.iter().filter_map(digest_of).map(str::to_owned).collect(),
    };
    referrers.retain(|referrer| is_digest(referrer));
    let more = referrers.len() > MAX_REFERRERS;
    referrers.truncate(MAX_REFERRERS);
    Ok((referrers, more))
}

/// Fetches into the store what belongs to manifests, and what belongs to that in turn; nothing gets an entry. Returns it, and what
/// was left out. The caller holds [`Layout::writing`].
///
/// By our own client: policy.json wants a signature of whatever skopeo fetches, and a signature has none.
///
/// # Errors
/// [`Error::Registry`].
pub fn fetch(
    (layout, remote): (&Layout, &Remote),
    reference: &Reference,
    subjects: Vec<String>,
    (limit, copying): (u64, Copying<'_>),
) -> Result<(Vec<Attached>, Vec<String>)> {
    let registry = &remote.registry;
    let (mut all, mut warnings) = (Vec::<Attached>::new(), Vec::new());
    let mut queue = VecDeque::from(subjects);
    while let Some(subject) = queue.pop_front() {
        let tag = reference.with_tag(&simple::tag(&subject))?;
        let mut found: Vec<(Reference, bool)> = vec![(tag, true)];
        let (referrers, more) = referrers(registry, reference, &subject)?;
        warnings.extend(more.then(|| format!("{reference} has more than {MAX_REFERRERS} referrers")));
        for referrer in referrers {
            found.push((reference.with_digest(&referrer)?, false));
        }
        for (at, is_signatures) in found {
            let Some(image) = registry.manifest(&at)? else { continue };
            let value: Value = serde_json::from_slice(&image.bytes).unwrap_or_default();
            if !is_signatures && value["subject"]["digest"] != subject.as_str() {
                continue;
            }
            let manifest = match image.read(&at) {
                Ok(manifest) if manifest.info.instances.is_empty() => manifest,
                _ => {
                    warnings.push(format!("{at} is left out: it is no manifest of an image or an artifact"));
                    continue;
                }
            };
            if all.len() >= MAX_ATTACHED {
                return Err(too_many(reference));
            }
            bring((layout, remote), &at, &manifest, (limit, copying))?;
            if !is_signatures {
                queue.push_back(manifest.digest.clone());
            }
            all.push(Attached { subject: subject.clone(), is_signatures, manifest: Arc::new(manifest) });
        }
    }
    Ok((all, warnings))
}

/// Fetches the blobs of a manifest, and writes it.
fn bring(
    (layout, remote): (&Layout, &Remote),
    at: &Reference,
    manifest: &Manifest,
    (limit, copying): (u64, Copying<'_>),
) -> Result<()> {
    let blobs = || manifest.info.layers.iter().chain(&manifest.info.config);
    if blobs().any(|blob| blob.size() > MAX_JSON) {
        remote.fetch(layout, at, limit, copying)?;
        return Ok(());
    }
    for blob in blobs().filter(|blob| !layout.has_whole(blob)) {
        layout.write_blob(&remote.registry.blob(at, blob.digest().as_ref(), blob.size())?)?;
    }
    layout.write_blob(&manifest.bytes).map(drop)
}

fn too_many(reference: &Reference) -> Error {
    let reason = format!("{reference} has more than {MAX_ATTACHED} signatures and attestations");
    Error::Unavailable { reason, hint: None }
}

/// Sends something that belongs to a manifest and is in the store. The caller holds [`Layout::writing`].
///
/// # Errors
/// As [`send_simple`].
pub fn send(
    (layout, remote): (&Layout, &Remote),
    reference: &Reference,
    attached: &Attached,
    copying: Copying<'_>,
) -> Result<()> {
    let Attached { subject, is_signatures, manifest } = attached;
    let image = (reference, &**subject);
    if *is_signatures {
        return send_layers((layout, remote), image, (&read::layers(&manifest.bytes)?, Some(manifest)), copying);
    }
    let own = attached::listing(manifest);
    send_referrer((layout, remote), image, (&manifest.descriptor()?, own), copying)
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

/// Adds a signature to the image of signatures that a registry has of a manifest, whose layers stay as they are, of whatever kind.
/// The caller holds [`Layout::writing`].
///
/// Another signer who writes between our last look and our write is noticed, and the two are merged; one who does not look in his
/// turn can take ours away, since registries compare nothing.
///
/// # Errors
/// If it cannot be sent, or what the registry has cannot be kept.
pub fn send_simple(
    (layout, remote): (&Layout, &Remote),
    (reference, digest): (&Reference, &str),
    signature: &Signature,
    copying: Copying<'_>,
) -> Result<()> {
    let added = std::slice::from_ref(signature);
    attached::write_payloads(layout, added)?;
    send_layers((layout, remote), (reference, digest), (&attached::layers_of(added), None), copying)
}

/// Adds layers whose blobs are in the store; where the registry has no image of signatures, it gets `whole` where that is given.
fn send_layers(
    (layout, remote): (&Layout, &Remote),
    (reference, digest): (&Reference, &str),
    (added, whole): (&[Value], Option<&Manifest>),
    copying: Copying<'_>,
) -> Result<()> {
    let tag = reference.with_tag(&simple::tag(digest))?;
    for attempt in 0..=MERGES {
        let found = remote.origin.manifest(&tag)?;
        let mut layers = found.as_ref().map(|found| read::layers(&found.bytes)).transpose()?.unwrap_or_default();
        let ours = attached::lacking(&layers, added);
        if ours.is_empty() {
            return Ok(());
        }
        if attempt == MERGES {
            break;
        }
        if let (None, Some(whole)) = (&found, whole) {
            remote.send(layout, &whole.descriptor()?, &tag, || Ok::<_, Error>(true), || Ok(()), copying)?;
            continue;
        }
        // skopeo sends what is in the store.
        for layer in &layers {
            let (digest, size) = (digest_of(layer).unwrap_or_default(), layer["size"].as_u64().unwrap_or(u64::MAX));
            layout.write_blob(&remote.origin.blob(reference, digest, size)?)?;
        }
        layers.extend(ours);
        let bytes = attached::image_of_signatures(layout, &layers)?;
        let manifest = Manifest::new(&sha256(&bytes), bytes)?;
        remote.send(layout, &manifest.descriptor()?, &tag, || Ok::<_, Error>(true), || Ok(()), copying)?;
    }
    Err(not_kept(&tag))
}

/// Sends a bundle of the store, and has the registry name it among the referrers of its manifest. The caller holds
/// [`Layout::writing`].
///
/// # Errors
/// If it cannot be sent, or is not there afterwards.
pub fn send_bundle(
    (layout, remote): (&Layout, &Remote),
    (reference, digest): (&Reference, &str),
    bundle: &Entry,
    copying: Copying<'_>,
) -> Result<()> {
    let own = json!({
        "mediaType": bundle.descriptor.media_type().to_string(),
        "digest": bundle.digest(),
        "size": bundle.descriptor.size(),
        "artifactType": BUNDLE,
        "annotations": attached::referrer_annotations(bundle),
    });
    send_referrer((layout, remote), (reference, digest), (&bundle.descriptor, own), copying)
}

/// Sends what refers to a manifest; `own` is how an index of referrers names it.
fn send_referrer(
    (layout, remote): (&Layout, &Remote),
    (reference, digest): (&Reference, &str),
    (referrer, own): (&Descriptor, Value),
    copying: Copying<'_>,
) -> Result<()> {
    let to = reference.with_digest(referrer.digest().as_ref())?;
    let lacks = || Ok::<_, Error>(remote.origin.digest(&to)?.is_none());
    let arrived = || remote.arrived(&to, referrer.digest().as_ref());
    remote.send(layout, referrer, &to, lacks, arrived, copying)?;
    list(&remote.origin, reference, digest, &own)
}

fn not_kept(tag: &Reference) -> Error {
    Error::Registry {
        registry: tag.registry().unwrap_or_default().to_owned(),
        fault: Fault::Server,
        reason: format!("{tag} does not keep what is written to it: somebody else writes it, too"),
        hint: Some("try again".into()),
    }
}

/// Has a registry that does not list referrers by itself name one in the index of them.
fn list(registry: &Registry, reference: &Reference, digest: &str, own: &Value) -> Result<()> {
    if registry.referrers(&reference.with_digest(digest)?, 0)?.is_some() {
        return Ok(());
    }
    let tag = reference.with_tag(&digest.replacen(':', "-", 1))?;
    let is_in = |entries: &[Value]| entries.iter().any(|other| digest_of(other) == digest_of(own));
    for attempt in 0..=MERGES {
        let mut entries = listed(registry, reference, digest)?;
        if is_in(&entries) && attempt > 0 {
            thread::sleep(SETTLED);
            entries = listed(registry, reference, digest)?;
        }
        if is_in(&entries) {
            return Ok(());
        }
        if attempt < MERGES {
            entries.push(own.clone());
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
            registry.put(&tag, INDEX, index.to_string().as_bytes())?;
        }
    }
    Err(not_kept(&tag))
}
