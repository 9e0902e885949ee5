//! Reads a layout that somebody else has written: a directory, or an archive, of which each blob is checked as it comes.
//!
//! ```text
//! <store>/.tmp/load-<pid>-<n>/    what comes from an archive, until all of it is accepted; removed when dropped
//! ```
//!
//! Nothing of it is a blob of the store before [`Source::take`], and nothing has a name by that.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd as _;

use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt as _};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::syncfs;
use oci_spec::image::Descriptor;
use sha2::{Digest as _, Sha256};

use super::blob::{BLOBS, sha256};
use super::layout::{Layout, MAX_JSON};
use super::repository::Manifest;
use super::scratch::Scratch;
use super::set::Member;
use super::transfer::MAX_INSTANCES;
use crate::error::{Error, Result};
use crate::layer::{Content, Encoding, Entry, Kind, read_archive};
use crate::limits::Limits;
use crate::process::Cancel;
use crate::reference::is_digest;
use crate::trust::attestation::MAX_ATTESTATION;

const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
/// Largest index, in bytes: that of 20,000 skills with all that belongs to them.
const MAX_INDEX: u64 = 64 << 20;
/// Most bytes of manifests, which are all in memory at once: those of as many skills.
const MAX_MANIFESTS: u64 = 256 << 20;
/// Bytes that are copied at once.
const CHUNK: usize = 256 << 10;

/// A layout by somebody else.
#[derive(Debug)]
pub struct Source {
    name: String,
    dir: Dir,
    /// What it was unpacked to, where it was an archive: its blobs are what their names say, and are ours.
    unpacked: Option<Scratch>,
    /// Bytes of manifests that were read.
    manifests: Cell<u64>,
}

impl Source {
    /// Opens a layout that is a directory; `name` is for messages.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it is none.
    pub fn directory(dir: Dir, name: &str) -> Result<Self> {
        let source = Self { name: name.to_owned(), dir, unpacked: None, manifests: Cell::new(0) };
        source.check_marker()?;
        Ok(source)
    }

    /// Reads a layout that is an archive into a place of its own below the store.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where a blob is not what its name says, or the archive ends too early; what is refused of any archive.
    pub fn archive(
        layout: &Layout,
        archive: impl Read,
        (name, encoding): (&str, Encoding),
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<Self> {
        let scratch = Scratch::new(layout.dir(), layout.path(), "load")?;
        let dir = scratch.dir.try_clone().map_err(Error::io(name))?;
        let source = Self { name: name.to_owned(), dir, unpacked: Some(scratch), manifests: Cell::new(0) };
        source.dir.create_dir_all(BLOBS).map_err(Error::io(layout.path().display().to_string()))?;
        read_archive(archive, (name, encoding), limits, &mut |entry, content| {
            cancel.check()?;
            source.unpack(entry, content, cancel)
        })
        .map_err(|error| source.about(error))?;
        source.check_marker()?;
        Ok(source)
    }

    /// Writes one entry of an archive, where it is part of a layout.
    fn unpack(&self, entry: &Entry, content: &mut Content<'_, '_>, cancel: &Cancel) -> Result<()> {
        let path = &*entry.path;
        let digest = blob_of(path);
        match &entry.kind {
            Kind::Symlink(target) | Kind::Link(target) => {
                return Err(self.refused(format!("{path} -> {target} is a link, and no layout has one")));
            }
            Kind::File if digest.is_some() || path == MARKER || path == INDEX => {}
            // Of other formats that an archive may be at the same time.
            Kind::File | Kind::Directory => return Ok(()),
        }
        let at = |e| Error::io(format!("unpacking {path}"))(e);
        let mut file = create(&self.dir, path).map_err(at)?;
        let mut hash = Sha256::new();
        content.for_each(|bytes| {
            cancel.check()?;
            hash.update(bytes);
            file.write_all(bytes).map_err(at)
        })?;
        let found = format!("sha256:{}", hex::encode(hash.finalize()));
        match digest {
            Some(digest) if digest != found => Err(self.refused(format!("blob {digest} has the digest {found}"))),
            _ => Ok(()),
        }
    }

    fn check_marker(&self) -> Result<()> {
        let marker = match self.open(MARKER) {
            Ok(file) => self.bounded(file, MAX_JSON, MARKER)?,
            Err(_) => return Err(self.refused(format!("it is no OCI layout: it has no {MARKER}"))),
        };
        let marker: serde_json::Value = serde_json::from_slice(&marker).unwrap_or_default();
        match marker["imageLayoutVersion"].as_str() {
            Some("1.0.0") => Ok(()),
            _ => Err(self.refused(format!("it is no OCI layout of the version 1.0.0, by its {MARKER}"))),
        }
    }

    /// Returns the index.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it is missing or too large.
    pub fn index(&self) -> Result<Vec<u8>> {
        let file = self.open(INDEX).map_err(|_| self.refused(format!("it has no {INDEX}, and is not whole")))?;
        self.bounded(file, MAX_INDEX, INDEX)
    }

    /// Reads a manifest, or an index.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it is missing, is not what the descriptor says, or is none.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let digest = descriptor.digest().to_string();
        let blob = format!("blob {digest}");
        if descriptor.size() > MAX_JSON {
            return Err(self.refused(format!("{blob} has {} bytes, too many for a manifest", descriptor.size())));
        }
        let bytes = self.bounded(self.open_blob(&digest)?, descriptor.size(), &blob)?;
        let sum = self.manifests.get() + bytes.len() as u64;
        self.manifests.set(sum);
        if sum > MAX_MANIFESTS {
            return Err(self.refused(format!("its manifests have more than {MAX_MANIFESTS} bytes")));
        }
        self.check(&bytes, descriptor)?;
        Manifest::new(&digest, bytes).map_err(|error| self.about(error))
    }

    /// Reads a small blob, such as a signature.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it is missing, or is not what its digest says.
    pub fn blob(&self, digest: &str, size: u64) -> Result<Vec<u8>> {
        let bytes = self.bounded(self.open_blob(digest)?, size.min(MAX_ATTESTATION), &format!("blob {digest}"))?;
        match sha256(&bytes) {
            found if found == digest => Ok(bytes),
            found => Err(self.refused(format!("blob {digest} has the digest {found}"))),
        }
    }

    fn check(&self, bytes: &[u8], descriptor: &Descriptor) -> Result<()> {
        let (digest, size) = (descriptor.digest().as_ref(), bytes.len() as u64);
        let found = sha256(bytes);
        match found == digest && size == descriptor.size() {
            true => Ok(()),
            false => Err(self.refused(format!("blob {digest} has {size} bytes and the digest {found}"))),
        }
    }

    /// Makes what images need, and what belongs to them, blobs of the store, all at once; what the store has stays. The caller holds
    /// [`Layout::writing`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] where something is missing or is not what its digest says; then the store has nothing of it.
    pub fn take(&self, layout: &Layout, members: &[Member], cancel: &Cancel) -> Result<()> {
        let (mut blobs, mut seen) = (BTreeMap::new(), HashSet::new());
        for Member { name, manifest, attached } in members {
            for manifest in std::iter::once(manifest).chain(attached.iter().map(|one| &*one.manifest)) {
                if !seen.insert(&*manifest.digest) {
                    continue;
                }
                for blob in self.parts(manifest)? {
                    blobs.entry(blob.digest().to_string()).or_insert((blob, name));
                }
            }
        }
        let copies = match &self.unpacked {
            Some(_) => None,
            None => Some(Scratch::new(layout.dir(), layout.path(), "load")?),
        };
        if let Some(copies) = &copies {
            copies.dir.create_dir_all(BLOBS).map_err(Error::io(copies.path.display().to_string()))?;
        }
        let mut staged = Vec::new();
        for (digest, (blob, name)) in &blobs {
            cancel.check()?;
            if layout.has_whole(blob) {
                continue;
            }
            let path = path_of(digest);
            let file = self.open_blob(digest).map_err(|_| self.lacks(name, digest))?;
            let size = file.metadata().map_err(Error::io(&self.name))?.len();
            if size != blob.size() {
                return Err(self.refused(format!("{name}: blob {digest} has {size} bytes, not {}", blob.size())));
            }
            if let Some(copies) = &copies {
                self.copy(file, (&copies.dir, &path), digest, cancel)?;
            }
            staged.push(path);
        }
        let from = copies.as_ref().map_or(&self.dir, |copies| &copies.dir);
        let adopt = || -> io::Result<()> {
            // One for all, where hundreds of small blobs would wait for the disk one after the other.
            syncfs(from.open(".")?)?;
            staged.iter().try_for_each(|path| from.rename(path, layout.dir(), path))
        };
        adopt().map_err(Error::io(layout.path().join(BLOBS).display().to_string()))
    }

    /// Returns the blobs of a manifest, or of all that an index lists, and their manifests.
    fn parts(&self, manifest: &Manifest) -> Result<Vec<Descriptor>> {
        let mut parts = vec![manifest.descriptor()?];
        if manifest.info.instances.len() > MAX_INSTANCES {
            let reason = format!("{} lists {} images", manifest.digest, manifest.info.instances.len());
            return Err(self.refused(reason));
        }
        for instance in &manifest.info.instances {
            let image = self.manifest(instance)?;
            if !image.info.instances.is_empty() {
                return Err(
                    self.refused(format!("{} lists {}, which is an index itself", manifest.digest, image.digest))
                );
            }
            parts.extend(image.info.layers.into_iter().chain(image.info.config).chain([instance.clone()]));
        }
        parts.extend(manifest.info.layers.iter().chain(&manifest.info.config).cloned());
        Ok(parts)
    }

    fn copy(&self, file: File, (dir, path): (&Dir, &str), digest: &str, cancel: &Cancel) -> Result<()> {
        let at = |e| Error::io(format!("copying {digest}"))(e);
        let (mut from, mut to) = (io::BufReader::with_capacity(CHUNK, file), create(dir, path).map_err(at)?);
        let mut hash = Sha256::new();
        loop {
            cancel.check()?;
            let bytes = io::BufRead::fill_buf(&mut from).map_err(Error::io(&self.name))?;
            let read = bytes.len();
            if read == 0 {
                break;
            }
            hash.update(bytes);
            to.write_all(bytes).map_err(at)?;
            io::BufRead::consume(&mut from, read);
        }
        let found = format!("sha256:{}", hex::encode(hash.finalize()));
        match found == digest {
            true => Ok(()),
            false => Err(self.refused(format!("blob {digest} has the digest {found}"))),
        }
    }

    fn open_blob(&self, digest: &str) -> Result<File> {
        if !is_digest(digest) {
            return Err(self.refused(format!("{digest:?} is no digest that is supported")));
        }
        self.open(&path_of(digest)).map_err(|_| self.refused(format!("blob {digest} is missing")))
    }

    /// Opens a regular file: nothing else, at which we might wait for ever.
    fn open(&self, path: &str) -> io::Result<File> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let file = self.dir.open_with(path, OpenOptions::new().read(true).custom_flags(flags))?;
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file")),
        }
    }

    fn bounded(&self, file: File, limit: u64, what: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io(format!("{}: {what}", self.name)))?;
        match bytes.len() as u64 > limit {
            true => Err(self.refused(format!("{what} has more than {limit} bytes"))),
            false => Ok(bytes),
        }
    }

    fn lacks(&self, name: &crate::reference::Reference, digest: &str) -> Error {
        self.refused(format!("{name} is not whole: blob {digest} is missing"))
    }

    /// Returns the error for something that is wrong with it.
    pub fn refused(&self, reason: impl std::fmt::Display) -> Error {
        Error::Unavailable { reason: format!("{}: {reason}", self.name), hint: None }
    }

    /// Names it in an error about something in it. The store has nothing to do with it, so there is nothing for fsck.
    fn about(&self, error: Error) -> Error {
        match error {
            Error::Damaged { object, reason } if object == self.name => {
                self.refused(format!("it is damaged: {reason}"))
            }
            Error::Damaged { object, reason } => self.refused(format!("{object} is damaged: {reason}")),
            Error::RefusedEntry { entry, reason, hint } => {
                Error::RefusedEntry { entry: format!("{}: {entry}", self.name), reason, hint }
            }
            other => other,
        }
    }
}

/// Makes a file that only a blob of the store may be.
fn create(dir: &Dir, path: &str) -> io::Result<File> {
    let file = dir.open_with(path, OpenOptions::new().write(true).create_new(true).mode(0o444))?;
    fchmod(file.as_fd(), Mode::from_bits_truncate(0o444))?;
    Ok(file)
}

/// Returns the digest that the name of an entry says its content has, where it is a blob.
fn blob_of(path: &str) -> Option<String> {
    let hex = path.strip_prefix(BLOBS)?.strip_prefix('/')?;
    Some(format!("sha256:{hex}")).filter(|digest| is_digest(digest))
}

fn path_of(digest: &str) -> String {
    format!("{BLOBS}/{}", digest.trim_start_matches("sha256:"))
}
