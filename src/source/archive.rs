//! Archives as sources: tar with or without gzip, and zip, known by their content and not by their names.
//!
//! Where in it the skill is says [`Tree::with_file`]: many archives have one directory around everything.

use std::fs::File;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::zip;
use crate::error::{Error, Result};
use crate::layer::{Encoding, Expected, Tree, UnpackOptions};
use crate::limits::Limits;
use crate::process::Cancel;

/// How the names of archives end, the longer before the shorter.
pub const SUFFIXES: [&str; 4] = [".tar.gz", ".tgz", ".tar", ".zip"];

/// Bytes that are hashed at once.
const CHUNK: usize = 256 << 10;
/// Bytes that tell what a file is; the mark of tar is at 257.
const START: usize = 512;
/// Most characters of a file that an error shows.
const SHOWN: usize = 24;

/// Marks of what is no archive that we read, and what it is called.
const OTHERS: [(&[u8], &str); 9] = [
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"BZh", "a bzip2 file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"PK\x07\x08", "a zip archive in several parts"),
    (b"<!DOCTYPE", "a page of HTML"),
    (b"<!doctype", "a page of HTML"),
    (b"<html", "a page of HTML"),
];

/// Kinds of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A tar archive.
    Tar,
    /// A tar archive in gzip.
    TarGz,
    /// A zip archive.
    Zip,
}

/// How an archive is read.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The digest that its bytes must have, `sha256:…`, where that is known.
    pub digest: Option<String>,
    /// Bounds on what comes out.
    pub limits: Limits,
    /// Ends the work.
    pub cancel: Cancel,
}

/// An archive that was read.
#[derive(Debug)]
pub struct Archive {
    /// What is in it.
    pub tree: Tree,
    /// What it is.
    pub format: Format,
    /// Digest of its bytes, `sha256:…`.
    pub digest: String,
}

/// Bytes that can be read anywhere.
pub(super) trait Bytes: Sync {
    /// Reads at a place; nothing at the end.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
}

impl Bytes for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, at)
    }
}

impl Bytes for [u8] {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

/// Reads a range of bytes.
pub(super) struct Range<'a, B: ?Sized> {
    pub bytes: &'a B,
    pub at: u64,
    pub end: u64,
}

impl<B: Bytes + ?Sized> Read for Range<'_, B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.bytes.read_at(&mut buffer[..left], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// Returns what a file is that begins with these bytes.
///
/// # Errors
/// What it is instead.
pub fn format(start: &[u8]) -> Result<Format, String> {
    if start.starts_with(b"\x1f\x8b") {
        return Ok(Format::TarGz);
    }
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        return Ok(Format::Zip);
    }
    if start.get(257..262) == Some(b"ustar") {
        return Ok(Format::Tar);
    }
    let known = OTHERS.iter().find(|(mark, _)| start.starts_with(mark)).map(|(_, what)| *what);
    Err(match (known, start) {
        (Some(what), _) => format!("is {what}, which is not supported"),
        (None, []) => "is empty".to_owned(),
        (None, start) => {
            let shown: String = start.escape_ascii().to_string().chars().take(SHOWN).collect();
            format!("is no archive that is known: it begins with \"{shown}\"")
        }
    })
}

/// Reads an archive, whose contents go into `contents`: an empty file that nobody else has. `name` is for messages.
///
/// # Errors
/// [`Error::Unavailable`] for what is no archive, or another one than expected; [`Error::RefusedEntry`] and
/// [`Error::LimitExceeded`], which name the archive and the entry.
pub fn read(name: &str, file: &File, contents: File, options: &Options) -> Result<Archive> {
    let metadata = file.metadata().map_err(Error::io(name))?;
    if !metadata.is_file() {
        return Err(unavailable(name, "is no regular file"));
    }
    read_bytes(name, (file, metadata.len()), contents, options)
}

/// Reads an archive that is so many bytes long.
pub(super) fn read_bytes<B: Bytes + ?Sized>(
    name: &str,
    (bytes, size): (&B, u64),
    contents: File,
    options: &Options,
) -> Result<Archive> {
    let mut start = Vec::new();
    Range { bytes, at: 0, end: size.min(START as u64) }.read_to_end(&mut start).map_err(Error::io(name))?;
    let format = format(&start).map_err(|reason| Error::Unavailable {
        reason: format!("{name} {reason}"),
        hint: Some("tar -czf SKILL.tar.gz DIRECTORY makes an archive that can be read".into()),
    })?;
    let digest = digest(name, Range { bytes, at: 0, end: size }, &options.cancel)?;
    if let Some(want) = options.digest.as_ref().filter(|want| **want != digest) {
        return Err(unavailable(name, &format!("has the digest {digest}, expected {want}")));
    }
    let mut tree = Tree::new(contents, options.limits);
    let all = Range { bytes, at: 0, end: size };
    let added = match format {
        Format::Zip => zip::add(&mut tree, (bytes, size), options),
        Format::Tar => add_tar(&mut tree, all, (&digest, size, Encoding::Tar), options),
        Format::TarGz => add_tar(&mut tree, all, (&digest, size, Encoding::Gzip), options),
    };
    added.map_err(|error| named(name, &digest, error))?;
    Ok(Archive { tree, format, digest })
}

fn add_tar(
    tree: &mut Tree,
    archive: impl Read + Send,
    (digest, size, encoding): (&str, u64, Encoding),
    options: &Options,
) -> Result<()> {
    let expected = Expected { digest: digest.to_owned(), size, diff_id: None, encoding };
    let cancelled = Some(&**options.cancel.flag());
    let unpack = UnpackOptions { limits: options.limits, fold_case: true, cancelled, ..UnpackOptions::default() };
    tree.add_archive(archive, &expected, "", &unpack)
}

fn digest(name: &str, mut bytes: impl Read, cancel: &Cancel) -> Result<String> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        cancel.check()?;
        match bytes.read(&mut buffer).map_err(Error::io(name))? {
            0 => return Ok(format!("sha256:{}", hex::encode(hash.finalize()))),
            got => hash.update(&buffer[..got]),
        }
    }
}

/// Names the archive in an error about something in it.
fn named(name: &str, digest: &str, error: Error) -> Error {
    match error {
        Error::RefusedEntry { entry, reason, hint } => {
            Error::RefusedEntry { entry: format!("{name}: {entry}"), reason, hint }
        }
        Error::LimitExceeded { what, limit, flag } => {
            let what = format!("{name}: {}", what.replace(digest, "the archive"));
            Error::LimitExceeded { what, limit, flag }
        }
        // The store has nothing to do with it, so there is nothing for fsck.
        Error::Damaged { object, reason } if object == digest => unavailable(name, &format!("is damaged: {reason}")),
        Error::Damaged { object, reason } => unavailable(name, &format!("is damaged: {object}: {reason}")),
        Error::Io { cause, .. } if cause.kind() == io::ErrorKind::Interrupted => Error::interrupted(),
        Error::Io { object, cause } => Error::Io { object: format!("{name}: {object}"), cause },
        other => other,
    }
}

fn unavailable(name: &str, reason: &str) -> Error {
    Error::Unavailable { reason: format!("{name} {reason}"), hint: None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "archive_tests.rs"]
mod tests;
