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
//!
//! Before skopeo talks to anybody it reads the index. Where that is a pipe, skopeo can be started while it is not decided
//! yet whether there is anything for it to do ([`Gate`]).

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cap_std::fs::{Dir, File};
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, symlinkat};
use oci_spec::image::Descriptor;
use serde_json::json;

use super::blob::BLOBS;
use super::place::inherit;
use super::scratch::Scratch;
use crate::error::{Error, Result};

/// The file that says that a directory is a layout, and what is in it.
const MARKER: &str = "oci-layout";
const MARKED: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "index.json";
/// What is no index, for a gate that stays closed.
const CLOSED: &str = "closed";

/// A layout of one image, removed when dropped.
#[derive(Debug)]
pub struct PrivateLayout {
    scratch: Scratch,
    refused: Arc<AtomicBool>,
}

impl PrivateLayout {
    /// Makes one without an image, for skopeo to write to.
    ///
    /// # Errors
    /// If it cannot be made, or skopeo could not be told its path.
    pub fn empty(store: &Dir, store_path: &Path) -> Result<Self> {
        if store_path.to_string_lossy().contains(':') {
            return Err(Error::Unavailable {
                reason: format!("{}: skopeo reads no layout whose path has a colon", store_path.display()),
                hint: Some("keep the store elsewhere, with --store".into()),
            });
        }
        Ok(Self { scratch: Scratch::new(store, store_path, "skopeo")?, refused: Arc::default() })
    }

    /// Makes one with an image, whose blobs are in the store or are put here with [`Self::write_blob`].
    ///
    /// # Errors
    /// As [`Self::empty`].
    pub fn of(store: &Dir, store_path: &Path, manifest: &Descriptor) -> Result<Self> {
        let layout = Self::empty(store, store_path)?;
        layout.fill(manifest).map_err(|e| Error::io(layout.scratch.path.display().to_string())(e))?;
        Ok(layout)
    }

    /// Makes one like [`Self::of`], where skopeo waits until the gate opens. Some file systems, as that of a USB stick,
    /// have no symbolic links and so no gates.
    ///
    /// # Errors
    /// As [`Self::empty`].
    pub fn gated(store: &Dir, store_path: &Path, manifest: &Descriptor) -> Result<(Self, Option<Gate>)> {
        let layout = Self::empty(store, store_path)?;
        match layout.gate(manifest) {
            Ok(gate) => Ok((layout, Some(gate))),
            Err(_) => Ok((Self::of(store, store_path, manifest)?, None)),
        }
    }

    fn fill(&self, manifest: &Descriptor) -> io::Result<()> {
        self.scratch.dir.write(MARKER, MARKED)?;
        self.scratch.dir.write(INDEX, index(manifest))
    }

    fn gate(&self, manifest: &Descriptor) -> io::Result<Gate> {
        self.scratch.dir.write(MARKER, MARKED)?;
        let (inherited, pipe) = pipe2(OFlag::O_CLOEXEC)?;
        symlinkat(inherit(&inherited)?.as_str(), &self.scratch.dir, INDEX)?;
        let (dir, index) = (self.scratch.dir.try_clone()?, Some(index(manifest)));
        let refused = Arc::clone(&self.refused);
        Ok(Gate { dir, pipe: File::from_std(pipe.into()), _inherited: inherited, index, refused })
    }

    /// Returns whether it has a gate that stays closed.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Returns its directory.
    pub fn dir(&self) -> &Dir {
        &self.scratch.dir
    }

    /// Returns its absolute path.
    pub fn path(&self) -> &Path {
        &self.scratch.path
    }

    /// Returns `oci:PATH`.
    pub fn reference(&self) -> String {
        format!("oci:{}", self.scratch.path.display())
    }

    /// Writes a blob of its own, so that nothing but what is handed over needs to be in the store.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_blob(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let write = || -> io::Result<()> {
            self.scratch.dir.create_dir_all(BLOBS)?;
            self.scratch.dir.create(format!("{BLOBS}/{hex}"))?.write_all(bytes)
        };
        write().map_err(Error::io(self.scratch.path.display().to_string()))
    }

    /// Lends it a blob that the store has, so that skopeo does not fetch it.
    ///
    /// # Errors
    /// If it cannot be linked.
    pub fn lend(&self, store: &Dir, digest: &str) -> io::Result<()> {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let path = format!("{BLOBS}/{hex}");
        self.scratch.dir.create_dir_all(BLOBS)?;
        match store.hard_link(&path, &self.scratch.dir, &path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    }

    /// Returns the number of bytes that are in it: how far a copy into it has come.
    pub fn bytes(&self) -> u64 {
        self.scratch.bytes(".") + self.scratch.bytes(BLOBS)
    }
}

/// Keeps skopeo from reading a private layout until it is opened. When dropped closed, what skopeo reads is no index, and
/// it ends with an error.
#[derive(Debug)]
pub struct Gate {
    dir: Dir,
    pipe: File,
    /// What skopeo reads: not a named pipe, at which it would wait for ever where we are killed before it gets there.
    _inherited: OwnedFd,
    index: Option<String>,
    refused: Arc<AtomicBool>,
}

impl Gate {
    /// Lets skopeo read.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn open(mut self) -> Result<()> {
        let index = self.index.take().unwrap_or_default();
        self.release(&index).map_err(Error::io("the index of a private layout"))
    }

    /// Gives a text to whoever waits, and to whoever comes later, which may be the same in another attempt.
    fn release(&mut self, text: &str) -> io::Result<()> {
        self.dir.write("index", text)?;
        self.dir.rename("index", &self.dir, INDEX)?;
        self.pipe.write_all(text.as_bytes())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if self.index.take().is_some() {
            self.refused.store(true, Ordering::Relaxed);
            // skopeo that hears nothing is ended as one that makes no headway.
            let _ = self.release(CLOSED);
        }
    }
}

fn index(manifest: &Descriptor) -> String {
    let entry = json!({
        "mediaType": manifest.media_type().to_string(),
        "digest": manifest.digest().to_string(),
        "size": manifest.size(),
    });
    json!({ "schemaVersion": 2, "manifests": [entry] }).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Command, Output, Stdio};

    use cap_std::ambient_authority;

    use super::*;

    #[test]
    fn a_gate_keeps_who_reads_the_index_until_it_is_decided() {
        let temp = tempfile::tempdir().unwrap();
        let store = Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap();
        let text = format!(r#"{{"mediaType":"m","digest":"sha256:{}","size":1}}"#, "0".repeat(64));
        let manifest: Descriptor = serde_json::from_str(&text).unwrap();
        let read = |layout: &PrivateLayout| {
            let file = layout.path().join(INDEX);
            Command::new("cat").arg(file).stdout(Stdio::piped()).spawn().unwrap()
        };
        let text = |output: Output| String::from_utf8(output.stdout).unwrap();
        for (opens, wanted) in [(true, index(&manifest)), (false, CLOSED.to_owned())] {
            let (layout, gate) = PrivateLayout::gated(&store, temp.path(), &manifest).unwrap();
            let gate = gate.unwrap();
            let mut early = read(&layout);
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(early.try_wait().unwrap().is_none(), "nothing is decided yet");
            if opens {
                gate.open().unwrap();
            } else {
                drop(gate);
            }
            assert_eq!(layout.is_refused(), !opens);
            let late = text(read(&layout).wait_with_output().unwrap());
            assert_eq!((text(early.wait_with_output().unwrap()), late), (wanted.clone(), wanted));
        }
    }
}
