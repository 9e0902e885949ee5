//! What of the store can be loaded: the checks before skopeo is given an image.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::image::LOADABLE;
use crate::store::storage::{MAX_METADATA, read_bounded};
use crate::store::storage_load::Load;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    size: u64,
}

/// What a manifest or an index lists.
#[derive(Debug, Deserialize)]
pub(super) struct Parts {
    #[serde(default)]
    config: Option<Part>,
    #[serde(default)]
    layers: Vec<Part>,
    #[serde(default)]
    pub(super) manifests: Vec<Instance>,
}

/// One image of an index.
#[derive(Debug, Deserialize)]
pub(super) struct Instance {
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

impl Parts {
    /// Returns the sum of the packed layers.
    pub(super) fn layer_bytes(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }

    /// Returns the platforms of an index.
    pub(super) fn platforms(&self) -> String {
        self.each_platform().collect::<Vec<_>>().join(", ")
    }

    /// Returns the first of them.
    pub(super) fn first_platform(&self) -> Option<String> {
        self.each_platform().next()
    }

    fn each_platform(&self) -> impl Iterator<Item = String> {
        let platforms = self.manifests.iter().filter_map(|m| m.platform.as_ref());
        platforms.map(|p| format!("{}/{}", p.os, p.architecture))
    }
}

/// Checks that a name is whole: skopeo would put it under docker.io otherwise, or take a part for options.
pub(super) fn check_name(name: &str) -> Result<()> {
    let registry = name.split_once('/').map(|(registry, _)| registry);
    let registry = registry.filter(|r| *r == "localhost" || r.contains(['.', ':']));
    let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if registry.is_some() && tagged && !name.starts_with('[') {
        return Ok(());
    }
    let reason = "containers-storage needs a registry, such as localhost/, and a tag".to_owned();
    Err(Error::InvalidReference { input: name.to_owned(), reason })
}

/// Checks the manifest's bytes and media types, and returns what it lists.
pub(super) fn check_loadable(load: &Load<'_>, digest: &str) -> Result<Parts> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let path = format!("blobs/sha256/{hex}");
    let damaged = |reason: String| Error::Damaged { object: format!("manifest {digest}"), reason };
    let bytes = read_bounded(load.store, load.store_path, &path, MAX_METADATA)?;
    let bytes = bytes.ok_or_else(|| damaged("it is not in the store".into()))?;
    if bytes.len() as u64 != load.manifest.size() {
        return Err(damaged(format!("it has {} bytes, not {}", bytes.len(), load.manifest.size())));
    }
    let found = hex::encode(Sha256::digest(&bytes));
    if found != hex {
        return Err(damaged(format!("its digest is sha256:{found}")));
    }
    let parts: Parts = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    let refused = |p: &&Part| !LOADABLE.iter().any(|l| p.media_type.starts_with(l));
    if let Some(part) = parts.config.iter().chain(&parts.layers).find(refused) {
        return Err(Error::Unavailable {
            reason: format!("containers-storage takes no images of media type {}", part.media_type),
            hint: Some(format!("skillctl convert {} NAME:TAG makes an image of it that can be loaded", load.name)),
        });
    }
    Ok(parts)
}
