//! Layouts that skopeo reads from and writes to, one image in each.
//!
//! ```text
//! <store>/blobs/sha256/…                 shared with skopeo where it reads
//! <store>/.tmp/skopeo-<pid>-<n>/         private layout: oci-layout, index.json with one unnamed entry, blobs/
//! ```
//!
//! skopeo never sees the store itself: `oci:<store>:<name>` refuses legal names, and the store's index may be rewritten
//! meanwhile. Private layouts are under the store, so that one scope of policy.json covers them all.
//!
//! No lock is needed: each has a name of its own. A crash leaves it, for `prune`.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _};
use oci_spec::image::Descriptor;
use serde_json::json;

use super::blob::BLOBS;
use super::layout::TMP;
use crate::error::{Error, Result};

/// A layout of one image, removed when dropped.
#[derive(Debug)]
pub struct PrivateLayout {
    tmp: Dir,
    name: String,
    dir: Dir,
    path: PathBuf,
}

impl PrivateLayout {
    /// Makes one without an image, for skopeo to write to.
    ///
    /// # Errors
    /// If it cannot be made, or skopeo could not be told its path.
    pub fn empty(store: &Dir, store_path: &Path) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        if store_path.to_string_lossy().contains(':') {
            return Err(Error::Unavailable {
                reason: format!("{}: skopeo reads no layout whose path has a colon", store_path.display()),
                hint: Some("keep the store elsewhere, with --store".into()),
            });
        }
        let tmp_path = store_path.join(TMP);
        let io = |e| Error::io(tmp_path.display().to_string())(e);
        ensure_private(store, TMP).map_err(io)?;
        let tmp = store.open_dir(TMP).map_err(io)?;
        loop {
            let name = format!("skopeo-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            match tmp.create_dir_with(&name, DirBuilder::new().mode(0o700)) {
                // Left by a process that crashed and had our identifier.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                result => result.map_err(io)?,
            }
            let dir = tmp.open_dir(&name).map_err(io)?;
            return Ok(Self { path: tmp_path.join(&name), tmp, name, dir });
        }
    }

    /// Makes one with an image, whose blobs are in the store or are put here with [`Self::write_blob`].
    ///
    /// # Errors
    /// As [`Self::empty`].
    pub fn of(store: &Dir, store_path: &Path, manifest: &Descriptor) -> Result<Self> {
        let layout = Self::empty(store, store_path)?;
        layout.fill(manifest).map_err(|e| Error::io(layout.path.display().to_string())(e))?;
        Ok(layout)
    }

    fn fill(&self, manifest: &Descriptor) -> io::Result<()> {
        let entry = json!({
            "mediaType": manifest.media_type().to_string(),
            "digest": manifest.digest().to_string(),
            "size": manifest.size(),
        });
        self.dir.write("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        self.dir.write("index.json", json!({ "schemaVersion": 2, "manifests": [entry] }).to_string())
    }

    /// Returns its directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns `oci:PATH`.
    pub fn reference(&self) -> String {
        format!("oci:{}", self.path.display())
    }

    /// Writes a blob of its own, so that nothing but what is handed over needs to be in the store.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_blob(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let write = || -> io::Result<()> {
            self.dir.create_dir_all(BLOBS)?;
            self.dir.create(format!("{BLOBS}/{hex}"))?.write_all(bytes)
        };
        write().map_err(Error::io(self.path.display().to_string()))
    }

    /// Lends it a blob that the store has, so that skopeo does not fetch it.
    ///
    /// # Errors
    /// If it cannot be linked.
    pub fn lend(&self, store: &Dir, digest: &str) -> io::Result<()> {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let path = format!("{BLOBS}/{hex}");
        self.dir.create_dir_all(BLOBS)?;
        match store.hard_link(&path, &self.dir, &path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    }

    /// Returns the number of bytes that are in it: how far a copy into it has come.
    pub fn bytes(&self) -> u64 {
        let size = |dir: io::Result<Dir>| -> io::Result<u64> {
            dir?.entries()?.try_fold(0, |sum: u64, entry| {
                let metadata = entry?.metadata();
                // Renamed meanwhile, or of a kind that does not count.
                Ok(sum + metadata.ok().filter(|m| m.is_file()).map_or(0, |m| m.len()))
            })
        };
        let own = size(self.dir.try_clone()).unwrap_or(0);
        own + size(self.dir.open_dir(BLOBS)).unwrap_or(0)
    }
}

impl Drop for PrivateLayout {
    fn drop(&mut self) {
        // What cannot be removed now is garbage that `prune` knows.
        let _ = self.tmp.remove_dir_all(&self.name);
    }
}

fn ensure_private(dir: &Dir, name: &str) -> io::Result<()> {
    match dir.create_dir_with(name, DirBuilder::new().mode(0o700)) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}
