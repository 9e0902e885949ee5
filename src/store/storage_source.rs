//! What skopeo is given to load: one image of the store, checked, in a layout of its own.
//!
//! ```text
//! <store>/blobs/sha256/…                 shared with skopeo, which only reads
//! <store>/.tmp/load-<pid>-<n>/           private layout: oci-layout, index.json with one unnamed entry
//! ```
//!
//! skopeo never sees the store itself: `oci:<store>:<name>` refuses legal names, and the store's index may be rewritten
//! meanwhile. The private layout is under the store, so that one scope of policy.json covers all loads.
//!
//! No lock is needed: the layout has a name of its own, and blobs never change. A crash leaves the layout, for `prune`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _};
use oci_spec::image::Descriptor;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::store::storage::{MAX_METADATA, read_bounded};
use crate::store::storage_load::Load;

/// Media types that containers/image can unpack into containers-storage.
const LOADABLE: [&str; 4] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.oci.image.layer.",
    "application/vnd.docker.image.rootfs.",
];

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
        let platforms = self.manifests.iter().filter_map(|m| m.platform.as_ref());
        let names: Vec<_> = platforms.map(|p| format!("{}/{}", p.os, p.architecture)).collect();
        names.join(", ")
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
            hint: Some("build it with --media-type standard".into()),
        });
    }
    Ok(parts)
}

/// A layout of one image, removed when dropped.
#[derive(Debug)]
pub(super) struct PrivateLayout {
    tmp: Dir,
    name: String,
    pub(super) path: PathBuf,
}

impl PrivateLayout {
    pub(super) fn create(load: &Load<'_>) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        if load.store_path.to_string_lossy().contains(':') {
            return Err(Error::Unavailable {
                reason: format!("{}: skopeo reads no layout whose path has a colon", load.store_path.display()),
                hint: Some("keep the store elsewhere, with --store".into()),
            });
        }
        let tmp_path = load.store_path.join(".tmp");
        let io = |e| Error::io(tmp_path.display().to_string())(e);
        ensure_private(load.store, ".tmp").map_err(io)?;
        let tmp = load.store.open_dir(".tmp").map_err(io)?;
        loop {
            let name = format!("load-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            match tmp.create_dir_with(&name, DirBuilder::new().mode(0o700)) {
                // Left by a process that crashed and had our identifier.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                result => result.map_err(io)?,
            }
            let layout = Self { path: tmp_path.join(&name), tmp, name };
            layout.fill(load.manifest).map_err(|e| Error::io(layout.path.display().to_string())(e))?;
            return Ok(layout);
        }
    }

    fn fill(&self, manifest: &Descriptor) -> std::io::Result<()> {
        let dir = self.tmp.open_dir(&self.name)?;
        let entry = serde_json::json!({
            "mediaType": manifest.media_type().to_string(),
            "digest": manifest.digest().to_string(),
            "size": manifest.size(),
        });
        dir.write("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        dir.write("index.json", serde_json::json!({ "schemaVersion": 2, "manifests": [entry] }).to_string())
    }
}

impl Drop for PrivateLayout {
    fn drop(&mut self) {
        // What cannot be removed now is garbage that `prune` knows.
        let _ = self.tmp.remove_dir_all(&self.name);
    }
}

fn ensure_private(dir: &Dir, name: &str) -> std::io::Result<()> {
    match dir.create_dir_with(name, DirBuilder::new().mode(0o700)) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}
