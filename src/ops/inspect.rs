//! `inspect`: what a manifest says of its skill, without reading the layer.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::image::{self, Info, oci};
use crate::reference::split_tag;

/// A skill image, described.
#[derive(Debug, Clone, Serialize)]
pub struct Inspected {
    /// The reference that was asked for, without its tag.
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
    /// The raw JSON array.
    pub tags: String,
    /// Compatibility.
    pub compatibility: String,
    /// Number of words, as text.
    pub word_count: String,
    /// Digest of the manifest.
    pub digest: String,
    /// The created annotation.
    pub created: String,
    /// Sum of the sizes of the layers, in bytes.
    pub size: u64,
    /// Number of layers.
    pub layers: usize,
    /// The image ID: the digest of the config.
    pub image_id: String,
    /// Where it was found: `store` or `containers-storage`.
    pub location: &'static str,
    /// All annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// Describes a manifest.
pub fn describe(reference: &str, digest: &str, info: &Info, location: &'static str) -> Inspected {
    let text = |key: &str| info.get(key).to_owned();
    Inspected {
        skill: reference
            .split_once('@')
            .map_or_else(|| split_tag(reference).0, |(name, _)| name)
            .to_owned(),
        display_name: text(oci::TITLE),
        version: text(oci::VERSION),
        status: text(image::STATUS),
        description: text(oci::DESCRIPTION),
        authors: text(oci::AUTHORS),
        license: text(oci::LICENSES),
        tags: text(image::TAGS),
        compatibility: text(image::COMPATIBILITY),
        word_count: text(image::WORDCOUNT),
        digest: digest.to_owned(),
        created: text(oci::CREATED),
        size: info.size(),
        layers: info.layers.len(),
        image_id: info.config.digest().to_string(),
        location,
        annotations: info.annotations.clone(),
    }
}
