//! The records of containers-storage as values: images, their names and layers at one moment.
//!
//! Where they come from, and in which order, is in [`super::storage`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};

/// Shortest abbreviation of an image ID: what `podman images` prints.
const SHORT_ID: usize = 12;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageImage {
    /// Hexadecimal digest of the config.
    pub id: String,
    /// Names with their tags, all fully qualified.
    pub names: Vec<String>,
    /// Digest of the manifest that podman shows; not to be taken for that of a tag.
    pub digest: Option<String>,
    /// Digests of all manifests whose bytes are there.
    pub manifest_digests: Vec<String>,
    /// When the record was made, RFC 3339.
    pub created: Option<String>,
    /// Topmost layer.
    pub top_layer: Option<String>,
    /// Bytes of all layers, unpacked, and of the big data; `None` where a layer's size is not known.
    pub size: Option<u64>,
    /// Whether it is in an additional store, which nothing can change.
    pub read_only: bool,
    pub(super) store: usize,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StorageLayer {
    /// Its name in the storage.
    pub id: String,
    /// The layer below.
    #[serde(default)]
    pub parent: Option<String>,
    /// Digest of the tar: the diff ID.
    #[serde(default, rename = "diff-digest")]
    pub diff_digest: Option<String>,
    /// Size of the tar.
    #[serde(default, rename = "diff-size")]
    pub diff_size: Option<u64>,
    /// Digest of the blob that it was unpacked from, which no longer exists.
    #[serde(default, rename = "compressed-diff-digest")]
    pub compressed_digest: Option<String>,
    #[serde(skip)]
    pub(super) store: usize,
}

/// Whether what the store has under a name is what containers-storage has there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadState {
    /// The name is there, and its record has that manifest.
    Yes,
    /// The name is there, and is something else.
    Other,
    /// The name is not there.
    No,
}

/// What is in containers-storage at one moment.
#[derive(Debug, Default)]
pub struct Images {
    images: Vec<StorageImage>,
    by_name: HashMap<String, usize>,
    layers: HashMap<String, StorageLayer>,
}

impl Images {
    /// Returns all records, those of the first store first.
    pub fn iter(&self) -> std::slice::Iter<'_, StorageImage> {
        self.images.iter()
    }

    /// Returns the record that has `name`, exactly as stored: `localhost/acme/hr:1.0.0`.
    pub fn by_name(&self, name: &str) -> Option<&StorageImage> {
        self.by_name.get(name).map(|at| &self.images[*at])
    }

    /// Returns the record for a name, a `repository@digest`, an ID (also abbreviated) or a manifest digest.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidReference`] for an abbreviated ID of several images.
    pub fn lookup(&self, key: &str) -> Result<Option<&StorageImage>> {
        if let Some(image) = self.by_name(key) {
            return Ok(Some(image));
        }
        if let Some((name, digest)) = key.split_once('@') {
            let has =
                |i: &&StorageImage| i.has_manifest(digest) && i.names.iter().any(|n| repository(n) == repository(name));
            return Ok(self.images.iter().find(has));
        }
        let hex = key.strip_prefix("sha256:").unwrap_or(key);
        if hex.len() < SHORT_ID || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Ok(None);
        }
        let mut found: Vec<_> = self.images.iter().filter(|i| i.id.starts_with(hex)).collect();
        found.dedup_by(|a, b| a.id == b.id);
        if found.iter().any(|i| i.id != found[0].id) {
            let reason = "several images have an ID that begins so".to_owned();
            return Err(Error::InvalidReference { input: key.to_owned(), reason });
        }
        let by_manifest = || self.images.iter().find(|i| i.has_manifest(key));
        Ok(found.first().copied().or_else(by_manifest))
    }

    /// Returns whether `name` stands for the manifest `digest`.
    pub fn load_state(&self, name: &str, digest: &str) -> LoadState {
        match self.by_name(name) {
            Some(image) if image.has_manifest(digest) => LoadState::Yes,
            Some(_) => LoadState::Other,
            None => LoadState::No,
        }
    }

    /// Returns the layers of an image, the base first.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when one is not recorded.
    pub fn layers(&self, image: &StorageImage) -> Result<Vec<&StorageLayer>> {
        let mut chain = Vec::new();
        let mut next = image.top_layer.as_deref().filter(|id| !id.is_empty());
        while let Some(id) = next {
            let layer = self.layers.get(id).filter(|_| chain.len() < self.layers.len());
            let layer = layer.ok_or_else(|| Error::Damaged {
                object: format!("image {} in containers-storage", image.short_id()),
                reason: format!("its layer {id} is not there"),
            })?;
            chain.push(layer);
            next = layer.parent.as_deref().filter(|id| !id.is_empty());
        }
        chain.reverse();
        Ok(chain)
    }

    pub(super) fn add(&mut self, store: usize, read_only: bool, records: Vec<ImageRecord>, layers: Vec<StorageLayer>) {
        for layer in layers {
            self.layers.entry(layer.id.clone()).or_insert(StorageLayer { store, ..layer });
        }
        for record in records {
            for name in record.names.iter().flatten() {
                // The first store that has a name hides it in the others.
                self.by_name.entry(name.clone()).or_insert(self.images.len());
            }
            self.images.push(record.into_image(store, read_only));
        }
    }

    /// Sizes need the layers of all stores: a tag on an image of an additional store is a record in the first.
    pub(super) fn measure(&mut self) {
        let sum = |image: &StorageImage| -> Option<u64> {
            let layers = self.layers(image).ok()?;
            layers.iter().try_fold(image.size?, |sum, layer| sum.checked_add(layer.diff_size?))
        };
        let sizes: Vec<_> = self.images.iter().map(sum).collect();
        self.images.iter_mut().zip(sizes).for_each(|(image, size)| image.size = size);
    }
}

/// Drops the tag and the digest of a reference.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

impl StorageImage {
    /// Returns whether `key` is the image's ID, or begins it.
    pub fn by_id(&self, key: &str) -> bool {
        let hex = key.strip_prefix("sha256:").unwrap_or(key);
        hex.len() >= SHORT_ID && self.id.starts_with(hex)
    }

    /// Returns whether the bytes of that manifest are there.
    pub fn has_manifest(&self, digest: &str) -> bool {
        self.manifest_digests.iter().any(|d| d == digest)
    }

    /// Returns the ID as `podman images` prints it.
    pub fn short_id(&self) -> &str {
        self.id.get(..SHORT_ID).unwrap_or(&self.id)
    }
}

/// The fields of images.json that are needed; the others are skipped without being built.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ImageRecord {
    id: String,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    layer: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    big_data_names: Option<Vec<String>>,
    #[serde(default)]
    big_data_sizes: Sum,
    #[serde(default)]
    big_data_digests: ManifestDigest,
}

impl ImageRecord {
    fn into_image(self, store: usize, read_only: bool) -> StorageImage {
        let big_data = self.big_data_names.unwrap_or_default();
        let mut manifests: Vec<_> =
            big_data.iter().filter_map(|n| n.strip_prefix("manifest-")).map(str::to_owned).collect();
        // Records of old versions have no name with a digest.
        if let Some(digest) = self.big_data_digests.0.filter(|d| !manifests.contains(d)) {
            manifests.push(digest);
        }
        StorageImage {
            id: self.id,
            names: self.names.unwrap_or_default(),
            digest: self.digest,
            manifest_digests: manifests,
            created: self.created,
            top_layer: self.layer,
            size: Some(self.big_data_sizes.0),
            read_only,
            store,
        }
    }
}

/// The sum of a map's values. Half of a list are such maps, so they are not built.
#[derive(Debug, Default)]
struct Sum(u64);

/// The value of a map's key `manifest`.
#[derive(Debug, Default)]
struct ManifestDigest(Option<String>);

impl<'de> Deserialize<'de> for Sum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Sum;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("sizes")
            }
            fn visit_unit<E>(self) -> Result<Sum, E> {
                Ok(Sum(0))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sum, A::Error> {
                let mut sum = 0u64;
                while let Some((IgnoredAny, size)) = map.next_entry::<IgnoredAny, u64>()? {
                    sum = sum.saturating_add(size);
                }
                Ok(Sum(sum))
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

impl<'de> Deserialize<'de> for ManifestDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = ManifestDigest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("digests")
            }
            fn visit_unit<E>(self) -> Result<ManifestDigest, E> {
                Ok(ManifestDigest(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ManifestDigest, A::Error> {
                let mut found = None;
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    if key == "manifest" {
                        found = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(ManifestDigest(found))
            }
        }
        deserializer.deserialize_any(Visit)
    }
}
