//! containers-storage, read natively: which images it has, under which names, and their bytes.
//!
//! ```text
//! <graph root>/<driver>-images/images.json              records: id, names, digest, layer, big data
//!              <driver>-images/<id>/manifest            big data; names other than [a-z0-9.]* are "=" + base64
//!              <driver>-images/<id>/=<base64 of "manifest-sha256:…" or "sha256:<config>">
//!              <driver>-layers/layers.json              layers: id, parent, digests, sizes
//!              overlay/<layer>/diff, vfs/dir/<layer>    what the layer holds
//! <run root>/<driver>-layers/mountpoints.json           how often each layer is mounted
//! ```
//!
//! An image's ID is the digest of its config, so all tags that share a config share one record, which holds the manifest
//! of each. `digest` is that of the manifest which arrived last (podman 4.3: first). Hence [`LoadState`](super::storage_images::LoadState) asks for the
//! name *and* the manifest; a name alone does not say which state of a skill is meant.
//!
//! Locks: none are taken and nothing is written here. containers/storage replaces its JSON by rename, so a reader sees
//! the old list or the new one; images.json is read before layers.json, and a layer is recorded before its image, so the
//! layers of each image that was read are there unless it has been removed meanwhile. Big data is immutable per name, except
//! `manifest`, and every byte handed out was hashed. Should a list not parse, it is read once more, then it is damaged.
//!
//! Stores are searched in the order of containers/storage: the image store, the graph root, then the additional stores.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use cap_std::fs::Dir;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::process::Tools;
use crate::store::storage_conf::{Driver, StorageConf};
use crate::store::storage_images::{Images, StorageImage, StorageLayer};
use crate::store::storage_info::{InfoKey, podman_info};

/// Largest manifest and config: the limit of containers/image for both.
pub const MAX_METADATA: u64 = 4 << 20;
/// Largest list: an image takes about 2 KiB, so this holds some 100,000 of them.
const MAX_LIST: u64 = 256 << 20;
/// How long a list that does not parse is left alone: writers replace it at once.
const RETRY: Duration = Duration::from_millis(50);

/// Opens a directory by absolute path; only the shell may, so it hands this in.
pub type OpenDir = Box<dyn Fn(&Path) -> io::Result<Dir> + Send + Sync>;

/// The containers-storage of this user, which may not exist yet.
pub struct Storage {
    conf: StorageConf,
    open: OpenDir,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("conf", &self.conf).finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
struct MountPoint {
    id: String,
    #[serde(default)]
    count: i64,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    config: Option<ConfigBody>,
}

#[derive(Debug, Default, Deserialize)]
struct ConfigBody {
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

impl Storage {
    /// Returns the storage at `conf`; nothing is opened before it is read.
    pub fn new(conf: StorageConf, open: OpenDir) -> Self {
        Self { conf, open }
    }

    /// Returns where it is.
    pub fn conf(&self) -> &StorageConf {
        &self.conf
    }

    /// Returns the driver: as configured, else the only one that has images on disk, else [`Driver::Unknown`].
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] for another user's storage.
    pub fn driver(&self) -> Result<Driver> {
        if self.conf.driver != Driver::Unknown {
            return Ok(self.conf.driver.clone());
        }
        let mut found = self.drivers_on_disk()?;
        Ok(if found.len() == 1 { found.remove(0) } else { Driver::Unknown })
    }

    pub(super) fn drivers_on_disk(&self) -> Result<Vec<Driver>> {
        let root = self.conf.image_store.as_ref().unwrap_or(&self.conf.graph_root);
        let Some(dir) = self.open_optional(root)? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for driver in [Driver::Overlay, Driver::Vfs] {
            let images = format!("{driver}-images");
            match dir.metadata(&images) {
                Ok(_) => found.push(driver),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                // A directory can be opened as a place without the right to look into it.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(denied(root)),
                Err(e) => return Err(Error::io(root.join(images).display().to_string())(e)),
            }
        }
        Ok(found)
    }

    /// Asks podman for the driver where [`Self::driver`] does not know it.
    ///
    /// `key` is what a cached answer depends on; the graph root is added to it. Not needed to list a storage that does
    /// not exist: it has no images.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] as [`podman_info`].
    pub fn ask_podman<'a>(&mut self, tools: &Tools, cache: Option<&Dir>, key: impl Fn() -> InfoKey<'a>) -> Result<()> {
        if self.driver()? != Driver::Unknown {
            return Ok(());
        }
        let graph_root = || {
            let dir = self.open_optional(&self.conf.graph_root).ok().flatten()?;
            dir.dir_metadata().ok()?.modified().ok().map(cap_std::time::SystemTime::into_std)
        };
        let info = podman_info(tools, &self.conf.flags, cache, || InfoKey { graph_root: graph_root(), ..key() })?;
        self.conf.driver = Driver::from_name(&info.driver);
        if self.conf.flags.root.is_none() {
            self.conf.graph_root = info.graph_root;
        }
        if self.conf.flags.runroot.is_none() {
            self.conf.run_root = info.run_root;
        }
        Ok(())
    }

    /// Reads all records of all stores.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] for another user's storage and where the driver cannot be told; [`Error::Damaged`] for a
    /// list that does not parse.
    pub fn images(&self) -> Result<Images> {
        match self.driver()? {
            Driver::Unknown if self.drivers_on_disk()?.is_empty() => Ok(Images::default()),
            Driver::Unknown => Err(Error::Unavailable {
                reason: format!("{} holds images of several storage drivers", self.conf.graph_root.display()),
                hint: Some("name the one in use with --storage-driver, or as driver in storage.conf".into()),
            }),
            driver => self.images_of(&driver),
        }
    }

    pub(super) fn images_of(&self, driver: &Driver) -> Result<Images> {
        let mut images = Images::default();
        for (at, (path, read_only)) in self.stores().into_iter().enumerate() {
            let Some(dir) = self.open_optional(path)? else {
                continue;
            };
            let records = read_list(&dir, path, &format!("{driver}-images/images.json"))?;
            let layers = read_list(&dir, path, &format!("{driver}-layers/layers.json"))?;
            images.add(at, read_only, records, layers);
        }
        images.measure();
        Ok(images)
    }

    /// Returns the bytes of one of an image's manifests, which hash to `digest`.
    ///
    /// # Errors
    ///
    /// [`Error::ImageNotFound`] when the image has no such manifest, [`Error::Damaged`] when its bytes are not those.
    pub fn manifest(&self, image: &StorageImage, digest: &str) -> Result<Vec<u8>> {
        let named = format!("manifest-{digest}");
        let bytes = match self.big_data(image, &named)? {
            Some(bytes) => bytes,
            None if image.has_manifest(digest) => self.big_data(image, "manifest")?.unwrap_or_default(),
            None => {
                return Err(Error::ImageNotFound(format!("{}@{digest}", image.short_id())));
            }
        };
        verify(bytes, digest, || format!("manifest {digest} in containers-storage"))
    }

    /// Returns the bytes of an image's config, which hash to its ID.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when it is missing or its bytes are others.
    pub fn config(&self, image: &StorageImage) -> Result<Vec<u8>> {
        let digest = format!("sha256:{}", image.id);
        let object = || format!("config {digest} in containers-storage");
        let bytes = self.big_data(image, &digest)?;
        let bytes = bytes.ok_or_else(|| Error::Damaged { object: object(), reason: "it is not there".into() })?;
        verify(bytes, &digest, object)
    }

    /// Returns the labels in an image's config.
    ///
    /// # Errors
    ///
    /// As [`Self::config`].
    pub fn labels(&self, image: &StorageImage) -> Result<BTreeMap<String, String>> {
        let config: Config = serde_json::from_slice(&self.config(image)?).map_err(|e| Error::Damaged {
            object: format!("config of image {} in containers-storage", image.short_id()),
            reason: e.to_string(),
        })?;
        Ok(config.config.and_then(|c| c.labels).unwrap_or_default())
    }

    /// Opens the content of an image of one layer, where the driver keeps it as plain files that can be read.
    ///
    /// `None` calls for the proxy. The files are as containers/storage unpacked them: not verified, and the mode of the
    /// root itself means nothing (overlay makes it 0555; it counts as 0755).
    pub fn open_diff(&self, images: &Images, image: &StorageImage) -> Result<Option<Dir>> {
        match images.layers(image)?.as_slice() {
            [layer] => self.open_layer(layer),
            _ => Ok(None),
        }
    }

    /// Opens the directories that an image's files are in, the topmost layer first; a file is in the first that has it.
    /// Layers that cannot be read are left out.
    pub fn diffs(&self, images: &Images, image: &StorageImage) -> Result<Vec<Dir>> {
        let layers = images.layers(image)?;
        layers.into_iter().rev().filter_map(|layer| self.open_layer(layer).transpose()).collect()
    }

    fn open_layer(&self, layer: &StorageLayer) -> Result<Option<Dir>> {
        let path = match self.driver()? {
            Driver::Overlay => format!("overlay/{}/diff", layer.id),
            Driver::Vfs => format!("vfs/dir/{}", layer.id),
            Driver::Other(_) | Driver::Unknown => return Ok(None),
        };
        let Some(root) = self.open_optional(self.stores()[layer.store].0)? else { return Ok(None) };
        match root.open_dir(&path) {
            Ok(dir) => Ok(Some(dir)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
            Err(e) => Err(Error::io(path)(e)),
        }
    }

    /// Reads a file that is kept beside the list of layers.
    pub(super) fn layer_data(&self, layer: &StorageLayer, name: &str) -> Result<Option<Vec<u8>>> {
        let root = self.stores()[layer.store].0;
        let Some(dir) = self.open_optional(root)? else { return Ok(None) };
        read_bounded(&dir, root, &format!("{}-layers/{name}", self.driver()?), MAX_LIST)
    }

    /// Returns whether a layer of the image is mounted, as by `--mount type=image`, which does not keep podman from
    /// removing it under a running container.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Damaged`] when that cannot be told.
    pub fn is_mounted(&self, image: &StorageImage) -> Result<bool> {
        let Some(dir) = self.open_optional(&self.conf.run_root)? else {
            return Ok(false);
        };
        let list = format!("{}-layers/mountpoints.json", self.driver()?);
        let mounts: Vec<MountPoint> = read_list(&dir, &self.conf.run_root, &list)?;
        let layer = image.top_layer.as_deref();
        Ok(mounts.iter().any(|m| m.count > 0 && Some(m.id.as_str()) == layer))
    }

    fn stores(&self) -> Vec<(&Path, bool)> {
        let conf = &self.conf;
        let first = conf.image_store.iter().chain([&conf.graph_root]).map(|p| (p.as_path(), false));
        first.chain(conf.additional.iter().map(|p| (p.as_path(), true))).collect()
    }

    pub(super) fn open_optional(&self, path: &Path) -> Result<Option<Dir>> {
        match (self.open)(path) {
            Ok(dir) => Ok(Some(dir)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(denied(path)),
            Err(e) => Err(Error::io(path.display().to_string())(e)),
        }
    }

    fn big_data(&self, image: &StorageImage, name: &str) -> Result<Option<Vec<u8>>> {
        let store = self.stores()[image.store].0;
        let Some(dir) = self.open_optional(store)? else {
            return Ok(None);
        };
        let path = format!("{}-images/{}/{}", self.driver()?, image.id, big_data_file(name));
        read_bounded(&dir, store, &path, MAX_METADATA)
    }
}

fn denied(path: &Path) -> Error {
    Error::Unavailable {
        reason: format!("{} belongs to another user", path.display()),
        hint: Some("run as its owner: rootless podman and root have separate storage".into()),
    }
}

fn verify(bytes: Vec<u8>, digest: &str, object: impl Fn() -> String) -> Result<Vec<u8>> {
    let found = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
    if found == digest {
        return Ok(bytes);
    }
    Err(Error::Damaged { object: object(), reason: format!("its digest is {found}") })
}

/// Reads a file; `None` when there is none.
pub(super) fn read_bounded(dir: &Dir, root: &Path, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let full = || root.join(path).display().to_string();
    let file = match dir.open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            return Err(denied(&root.join(path)));
        }
        Err(e) => return Err(Error::io(full())(e)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| Error::io(full())(e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::Damaged { object: full(), reason: format!("it is larger than {limit} bytes") });
    }
    Ok(Some(bytes))
}

/// Reads a list; a missing or empty file is an empty list.
pub(super) fn read_list<T: DeserializeOwned>(dir: &Dir, root: &Path, path: &str) -> Result<Vec<T>> {
    let mut again = true;
    loop {
        let bytes = read_bounded(dir, root, path, MAX_LIST)?.unwrap_or_default();
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        match serde_json::from_slice(&bytes) {
            Ok(list) => return Ok(list),
            Err(_) if again => thread::sleep(RETRY),
            Err(e) => {
                let object = root.join(path).display().to_string();
                return Err(Error::Damaged { object, reason: e.to_string() });
            }
        }
        again = false;
    }
}

/// Returns the name of the file that holds a piece of big data.
fn big_data_file(name: &str) -> String {
    if name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.') {
        return name.to_owned();
    }
    format!("={}", base64(name.as_bytes()))
}

/// Standard base64 with padding. The twelve lines spare a dependency.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            out.push(if digit > chunk.len() { '=' } else { char::from(DIGITS[index as usize]) });
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "storage_tests.rs"]
mod tests;
