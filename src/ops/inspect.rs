//! `inspect`: what a manifest says of its skill, without reading the layer.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use oci_spec::image::Descriptor;
use serde::Serialize;

use crate::error::Error;
use crate::format::{self, Format};
use crate::image::{self, Info, oci};
use crate::process::Tools;
use crate::reference::{Reference, is_digest, split_tag};
use crate::store::layout::Layout;
use crate::store::proxy::{Proxy, ProxyOptions};
use crate::store::registry::Registry;
use crate::store::remote::not_found;
use crate::store::repository::Manifest;
use crate::store::storage::Storage;
use crate::store::{self};

/// A skill image, described.
#[derive(Debug, Clone, Serialize)]
pub struct Inspected {
    /// The reference that was asked for, without its tag; an image without a name has its digest.
    pub skill: String,
    /// The title annotation.
    pub display_name: String,
    /// The version annotation.
    pub version: String,
    /// The lifecycle state; `unknown` where only containers-storage has the image and a tag named it.
    pub status: String,
    /// The description annotation, whole.
    pub description: String,
    /// `Name <email>, Name2`.
    pub authors: String,
    /// The licenses annotation.
    pub license: String,
    /// The tags annotation, read.
    pub tags: Vec<String>,
    /// Compatibility.
    pub compatibility: String,
    /// Number of words of `SKILL.md`, where the image says it.
    pub word_count: Option<u64>,
    /// Digest of the manifest.
    pub digest: String,
    /// The created annotation.
    pub created: String,
    /// Sum of the sizes of the layers, in bytes.
    pub size: u64,
    /// Number of layers.
    pub layers: usize,
    /// The image ID: the digest of the config; empty for an index.
    pub image_id: String,
    /// The platforms of an index; empty for an image.
    pub platforms: Vec<String>,
    /// What form it is in: `skill image`, `Agent Skills artifact`, …; empty where it is none that is known.
    pub format: String,
    /// Where it was found: `store`, `registry`, or the transport.
    pub location: String,
    /// Whether that is a store that is only read.
    pub read_only: bool,
    /// All annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// Describes a manifest.
pub fn describe(reference: &str, digest: &str, info: &Info, location: &str) -> Inspected {
    let text = |key: &str| info.get(key).to_owned();
    let name = match reference.split_once('@') {
        Some((name, _)) => name,
        None if is_digest(reference) => reference,
        None => split_tag(reference).0,
    };
    // Of an index the images say it.
    let format = if info.instances.is_empty() { Format::of(info, reference).ok() } else { None };
    Inspected {
        skill: name.to_owned(),
        display_name: info.first(&[oci::TITLE]).to_owned(),
        version: info.first(format::VERSION).to_owned(),
        status: text(image::STATUS),
        description: info.first(format::DESCRIPTION).to_owned(),
        authors: info.first(format::AUTHORS).to_owned(),
        license: info.first(format::LICENSE).to_owned(),
        tags: serde_json::from_str(info.get(image::TAGS)).unwrap_or_default(),
        compatibility: info.first(format::COMPATIBILITY).to_owned(),
        word_count: info.get(image::WORDCOUNT).parse().ok(),
        digest: digest.to_owned(),
        created: text(oci::CREATED),
        size: info.size(),
        layers: info.layers.len(),
        image_id: info.image_id(),
        platforms: info.platforms(),
        format: format.map(|format| format.name.to_owned()).unwrap_or_default(),
        location: location.to_owned(),
        read_only: false,
        annotations: info.annotations.clone(),
    }
}

/// Describes an image of the store.
///
/// # Errors
/// If it is not there or damaged.
pub fn inspect_store(layout: &Layout, text: &str) -> Result<Inspected> {
    let (from, entry) = store::locate(layout, text)?;
    let found = store::read(layout, entry)?;
    let name = found.entry.name.as_deref().unwrap_or(text);
    let read = |first: &Descriptor| -> Result<Info> { Ok(Info::parse(&layout.read_json(first)?, text)?) };
    let first = found.info.instances.first().map(read).transpose()?;
    let described = describe(name, found.entry.digest(), &found.info, "store");
    Ok(with_layers_of(first, Inspected { read_only: from.is_read_only(), ..described }))
}

/// Describes an image of a registry. Reads its manifest, and of an index the first image's too.
///
/// # Errors
/// If it is not there, or the registry cannot be asked.
pub fn inspect_registry(registry: &Registry, reference: &Reference) -> Result<Inspected> {
    let read = |reference: &Reference| -> Result<Manifest> {
        let found = registry.manifest(reference)?.ok_or_else(|| not_found(reference))?;
        Ok(found.read(reference)?)
    };
    let manifest = read(reference)?;
    let first = manifest.info.instances.first();
    let first = first.map(|first| read(&reference.with_digest(first.digest().as_ref())?)).transpose()?;
    let described = describe(&reference.to_string(), &manifest.digest, &manifest.info, "registry");
    Ok(with_layers_of(first.map(|first| first.info), described))
}

/// Adds what the first image of an index says of the layer that all have in common.
fn with_layers_of(first: Option<Info>, inspected: Inspected) -> Inspected {
    match first {
        Some(first) => {
            let format = Format::of(&first, &inspected.skill).map(|format| format.name.to_owned()).unwrap_or_default();
            Inspected { size: first.size(), layers: first.layers.len(), format, ..inspected }
        }
        None => inspected,
    }
}

/// Describes an image of containers-storage.
///
/// By tag its state is unknown: the record is shared by all states of one content, and shows the one loaded last. By
/// digest it is what the manifest says.
///
/// # Errors
/// If it is not there, or its manifest is not readable or damaged.
pub fn inspect_storage(storage: &Storage, text: &str) -> Result<Inspected> {
    let context = || format!("Inspecting containers-storage:{text}");
    let images = storage.images().with_context(context)?;
    let reference = text.parse::<Reference>().ok().map(|reference| reference.or_latest().in_storage());
    let image = match images.lookup(text).with_context(context)? {
        Some(image) => Some(image),
        None => reference.as_deref().map(|name| images.lookup(name)).transpose().with_context(context)?.flatten(),
    };
    let image = image.ok_or_else(|| Error::ImageNotFound(text.to_owned())).with_context(context)?;
    let by_digest = text.split_once('@').map(|(_, digest)| digest);
    let digest = by_digest.or(image.digest.as_deref()).unwrap_or_default().to_owned();
    let manifest = storage.manifest(image, &digest).with_context(context)?;
    let info = Info::parse(&manifest, text).with_context(context)?;
    // An ID or digest is no name: the image's own says more.
    let unnamed = by_digest.is_none() && image.by_id(text);
    let shown = image.names.first().filter(|_| unnamed).map_or(text, String::as_str);
    let mut inspected = describe(shown, &digest, &info, "containers-storage");
    if by_digest.is_none() && info.state().is_some() {
        inspected.status = "unknown".to_owned();
    }
    Ok(inspected)
}

/// Describes an image of any transport, through skopeo's image proxy.
///
/// `digest` is that of the manifest at the source, as skopeo computes it from what it read, and compares with a
/// reference's `@sha256:…` itself. Where the source is not OCI, the description is of skopeo's conversion. That an `oci:`
/// layout's index names this digest is not checked: the layout's store does that, and is not opened here.
///
/// # Errors
/// If skopeo cannot open it, or it is not an image manifest.
pub fn inspect_proxied(tools: &Tools, options: &ProxyOptions, text: &str) -> Result<Inspected> {
    let context = || format!("Inspecting {text}");
    let proxy = Proxy::start(tools, options).with_context(context)?;
    let image = proxy.open(text).map_err(|e| match e {
        // Not of the store, so the usual hint would lead astray.
        e @ Error::ImageNotFound(_) => Error::Unavailable { reason: e.to_string(), hint: None },
        e => e,
    });
    let image = image.with_context(context)?;
    let manifest = proxy.manifest_raw(&image).with_context(context)?;
    proxy.finish().with_context(context)?;
    let info = Info::parse(&manifest.bytes, text).with_context(context)?;
    let location = text.split_once(':').map_or(text, |(transport, _)| transport);
    // What a path calls a tag differs from transport to transport, so nothing is cut off.
    Ok(Inspected { skill: text.to_owned(), ..describe(text, &manifest.digest, &info, location) })
}
