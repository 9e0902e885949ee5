//! The bytes of the store: written beside and renamed to their digest, and checked against it when they are read.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd as _;
use std::path::Path;

use cap_std::fs::{Dir, File};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::process::Cancel;

/// Where the blobs are, below the store.
pub const BLOBS: &str = "blobs/sha256";

/// A file in `.tmp` that becomes a blob, or goes when it is dropped.
#[derive(Debug)]
pub struct BlobWriter<'a> {
    dir: &'a Dir,
    path: &'a Path,
    name: Option<String>,
    file: io::BufWriter<File>,
}

impl<'a> BlobWriter<'a> {
    /// Writes into `file`, which is called `name` below `dir`; `path` is where `dir` is, for messages.
    pub(super) fn new(dir: &'a Dir, path: &'a Path, name: String, file: File) -> Self {
        Self { dir, path, name: Some(name), file: io::BufWriter::with_capacity(1 << 16, file) }
    }

    /// Makes what was written the blob `digest` (`sha256:…`), which the caller has computed over these bytes.
    ///
    /// A blob of that digest that is already there is replaced: it may have been torn by a crash of a tool that does
    /// not sync.
    ///
    /// # Errors
    /// If the bytes cannot be made durable.
    pub fn commit(self, digest: &str) -> Result<()> {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.publish(&format!("{BLOBS}/{hex}"), 0o444)
    }

    pub(super) fn publish(mut self, target: &str, mode: u32) -> Result<()> {
        let object = self.path.join(target).display().to_string();
        let publish = || -> io::Result<()> {
            self.file.flush()?;
            let file = self.file.get_ref();
            nix::sys::stat::fchmod(file.as_fd(), nix::sys::stat::Mode::from_bits_truncate(mode))?;
            file.sync_data()?;
            let name = self.name.as_deref().unwrap_or_default();
            self.dir.rename(name, self.dir, target)
        };
        let mut publish = publish;
        publish().map_err(Error::io(object))?;
        self.name = None;
        Ok(())
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            // What stays after a failure here is garbage that prune removes.
            let _ = self.dir.remove_file(name);
        }
    }
}

/// A reader that fails at the end if what it gave was not the blob of its digest.
#[derive(Debug)]
pub struct Verified<R> {
    inner: R,
    hash: Sha256,
    digest: String,
    pub(super) object: String,
}

impl<R: Read> Verified<R> {
    pub(super) fn new(inner: R, digest: &str, object: String) -> Self {
        Self { inner, hash: Sha256::new(), digest: digest.to_owned(), object }
    }

    /// Returns the reader without the check, for a caller that hashes by itself.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        if n == 0 && !buffer.is_empty() {
            let found = format!("sha256:{}", hex::encode(self.hash.clone().finalize()));
            if found != self.digest {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    Error::damaged(&self.object, format!("its digest is {found}")),
                ));
            }
        }
        Ok(n)
    }
}

/// Returns the [`Error`] that a [`Verified`] reader put into an I/O error, or one that names `object`.
pub fn unwrap_damaged(error: io::Error, object: &str) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io(object)(error),
    }
}

/// Reads to the end and returns `sha256:` and the digest of what was read.
///
/// # Errors
/// If it cannot be read, or was asked to stop after the first piece.
pub fn hash(from: &mut impl BufRead, cancel: &Cancel) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut pieces = 0;
    loop {
        let piece = from.fill_buf()?;
        let read = piece.len();
        if read == 0 {
            return Ok(format!("sha256:{}", hex::encode(hash.finalize())));
        }
        hash.update(piece);
        from.consume(read);
        pieces += 1;
        if pieces > PIECES_AT_ONCE && cancel.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

/// Pieces that are hashed without looking whether to stop: a blob that is about to be kept is not given up for some
/// milliseconds.
const PIECES_AT_ONCE: u32 = 16;

/// Returns `sha256:` and the digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Returns the sum of the sizes of all blobs of the store `dir`, in bytes; one that is freed meanwhile counts as nothing.
///
/// # Errors
/// If they cannot be listed.
pub fn total_size(dir: &Dir) -> io::Result<u64> {
    dir.read_dir(BLOBS)?.try_fold(0_u64, |sum, blob| match blob?.metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(sum),
        metadata => Ok(sum.saturating_add(metadata?.len())),
    })
}
