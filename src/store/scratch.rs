//! Directories of our own for what is not in the store yet: private layouts, and Git repositories that are read.
//!
//! ```text
//! <store>/.tmp/<kind>-<pid>-<n>/    removed when dropped; after a crash it is garbage that `prune` knows
//! ```
//!
//! Each is locked while it is in use, so that `prune` need not wait for whatever comes over a network, and takes only what
//! nobody has locked.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _};
use nix::fcntl::Flock;

use super::layout::TMP;
use crate::error::{Error, Result};
use crate::lock::{How, lock_dir};
use crate::process::Cancel;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// A directory that only we know, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    tmp: Dir,
    name: String,
    /// It.
    pub dir: Dir,
    /// Where it is, for programs that are told.
    pub path: PathBuf,
    _lock: Flock<File>,
}

impl Scratch {
    /// Makes an empty one, whose name begins with `kind`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(store: &Dir, store_path: &Path, kind: &str) -> Result<Self> {
        let tmp_path = store_path.join(TMP);
        let io = |e| Error::io(tmp_path.display().to_string())(e);
        let tmp = open_tmp(store).map_err(io)?;
        loop {
            let name = fresh(kind);
            match tmp.create_dir_with(&name, DirBuilder::new().mode(0o700)) {
                // Left by a process that crashed and had our identifier.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                result => result.map_err(io)?,
            }
            let dir = match tmp.open_dir(&name) {
                // `prune` was faster than the lock.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                result => result.map_err(io)?,
            };
            let lock = lock_dir(&dir, How::Shared, &Cancel::default()).map_err(io)?;
            if tmp.exists(&name) {
                return Ok(Self { path: tmp_path.join(&name), tmp, name, dir, _lock: lock });
            }
        }
    }

    /// Empties it.
    ///
    /// # Errors
    /// If something in it cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        for entry in self.dir.entries()? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => self.dir.remove_dir_all(entry.file_name())?,
                false => self.dir.remove_file(entry.file_name())?,
            }
        }
        Ok(())
    }

    /// Returns the number of bytes of the files in one of its directories.
    pub fn bytes(&self, name: &str) -> u64 {
        let Ok(entries) = self.dir.open_dir(name).and_then(|dir| dir.entries()) else { return 0 };
        // Renamed meanwhile, or of a kind that does not count.
        let files = entries.flatten().filter_map(|entry| entry.metadata().ok()).filter(|metadata| metadata.is_file());
        files.map(|metadata| metadata.len()).sum()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is garbage that `prune` knows.
        let _ = self.tmp.remove_dir_all(&self.name);
    }
}

fn open_tmp(store: &Dir) -> io::Result<Dir> {
    match store.create_dir_with(TMP, DirBuilder::new().mode(0o700)) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    store.open_dir(TMP)
}

fn fresh(kind: &str) -> String {
    format!("{kind}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
