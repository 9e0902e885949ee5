//! Reads a zip archive that may have been made to do harm.
//!
//! A zip archive says everything twice, in its central directory and before each file, and readers differ in which they
//! believe and what they do about names that are there twice, or files that share bytes. So both have to agree, every byte
//! before the central directory has to belong to exactly one file, and no name may be there twice. The crate `zip` keeps
//! files by their name and so knows of no second one, which is why this is written here.

use std::collections::HashSet;
use std::io::{BufReader, Read};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use super::archive::{Bytes, Options, Range};
use crate::error::{Error, Result};
use crate::layer::Tree;
use crate::limits::{Limits, MAX_PATH, RATIO_AFTER};

/// The end of an archive: mark, disks, numbers of entries, size and place of the directory, and the length of a comment.
const END: usize = 22;
const END_MARK: &[u8] = b"PK\x05\x06";
/// An entry of the directory, before its name.
const ENTRY: usize = 46;
const ENTRY_MARK: &[u8] = b"PK\x01\x02";
/// What stands before a file, before its name.
const LOCAL: usize = 30;
const LOCAL_MARK: &[u8] = b"PK\x03\x04";
/// Largest directory that is read: an entry of 200 bytes for each of the 65,535 that there can be, and for attributes.
const DIRECTORY: u64 = 64 << 20;
/// Lengths of what may follow a file that was written before its size was known.
const DESCRIPTORS: [u64; 3] = [0, 12, 16];
/// Flags: encrypted in one of three ways, and sizes that follow the file.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const STREAMED: u16 = 1 << 3;
/// Fields of an entry in which sizes over 4 GiB and another name are (APPNOTE 4.5.3, 4.6.9).
const ZIP64: u16 = 0x0001;
const UNICODE_PATH: u16 = 0x7075;
/// Bytes that are inflated at once.
const BUFFER: usize = 64 << 10;

/// An entry of the central directory.
#[derive(Debug)]
struct Entry {
    name: String,
    mode: Option<u32>,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    at: u64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File { executable: bool },
    Symlink,
}

/// Adds what is in an archive to a tree.
pub(super) fn add<B: Bytes + ?Sized>(tree: &mut Tree, (bytes, size): (&B, u64), options: &Options) -> Result<()> {
    let (directory, at) = directory(bytes, size, options.limits)?;
    let mut entries = entries(&directory)?;
    check_sizes(&entries, options.limits)?;
    check_names(&entries)?;
    entries.sort_unstable_by_key(|entry| entry.at);
    let mut end = 0;
    for (index, entry) in entries.iter().enumerate() {
        options.cancel.check()?;
        let next = entries.get(index + 1).map_or(at, |next| next.at);
        let start = local(bytes, entry, end)?;
        end = start + entry.packed;
        let gap = next.checked_sub(end).ok_or_else(|| refused(&entry.name, "shares bytes with another entry"))?;
        let descriptor = entry.flags & STREAMED != 0;
        if !(if descriptor { DESCRIPTORS.contains(&gap) } else { gap == 0 }) {
            return Err(refused(&entry.name, &format!("is followed by {gap} bytes that belong to no entry")));
        }
        put(tree, entry, Range { bytes, at: start, end })?;
        end = next;
    }
    match end == at {
        true => Ok(()),
        false => Err(damaged("there are bytes before its directory that belong to no entry")),
    }
}

/// Reads the central directory; returns it, and where it is.
fn directory<B: Bytes + ?Sized>(bytes: &B, size: u64, limits: Limits) -> Result<(Vec<u8>, u64)> {
    let from = size.saturating_sub((END + usize::from(u16::MAX)) as u64);
    let tail = range(bytes, from, size)?;
    let is_end = |at: &usize| tail[*at..].starts_with(END_MARK);
    let mut places = (0..(tail.len() + 1).saturating_sub(END)).rev().filter(is_end);
    let at = places.next().ok_or_else(|| damaged("it has no directory, which is at its end"))?;
    let end = &tail[at..];
    if end.len() != END + usize::from(u16_at(end, 20)) || places.next().is_some_and(|other| at - other < END) {
        return Err(damaged("it does not end where its directory says"));
    }
    let (disk, disks, here, all) = (u16_at(end, 4), u16_at(end, 6), u16_at(end, 8), u16_at(end, 10));
    let (length, place) = (u32_at(end, 12), u32_at(end, 16));
    if all == u16::MAX || length == u32::MAX || place == u32::MAX {
        return Err(damaged("it is one of ZIP64, for more or larger files than are read"));
    }
    if (disk, disks) != (0, 0) || here != all {
        return Err(damaged("it is one of several parts"));
    }
    if u64::from(place) + u64::from(length) != from + at as u64 {
        return Err(damaged("its directory is not where it says"));
    }
    if u64::from(all) > limits.entries {
        return Err(exceeded("the number of entries", limits.entries.to_string(), "--max-files"));
    }
    if u64::from(length) > DIRECTORY {
        return Err(damaged("its directory is larger than 64 MiB"));
    }
    let directory = range(bytes, place.into(), u64::from(place) + u64::from(length))?;
    match count(&directory) == Some(usize::from(all)) {
        true => Ok((directory, place.into())),
        false => Err(damaged("its directory has another number of entries than it says")),
    }
}

/// Returns the number of entries of a directory; `None` where it does not end with one.
fn count(mut directory: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !directory.is_empty() {
        let lengths = [28, 30, 32].map(|at| directory.get(at..at + 2).map_or(0, |two| usize::from(u16_at(two, 0))));
        let is_entry = directory.len() >= ENTRY && directory.starts_with(ENTRY_MARK);
        directory = directory.get(ENTRY + lengths.iter().sum::<usize>()..).filter(|_| is_entry)?;
        count += 1;
    }
    Some(count)
}

/// Reads the entries of a directory of which [`count`] knows the number.
fn entries(mut directory: &[u8]) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    while directory.len() >= ENTRY {
        let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(u16_at(directory, at)));
        let (head, rest) = directory.split_at(ENTRY);
        found.push(entry(head, &rest[..name], &rest[name..name + extra])?);
        directory = &rest[name + extra + comment..];
    }
    Ok(found)
}

fn entry(head: &[u8], name: &[u8], extra: &[u8]) -> Result<Entry> {
    let shown = String::from_utf8(name.to_vec())
        .map_err(|_| refused(&name.escape_ascii().to_string(), "has a name that is not UTF-8"))?;
    let refuse = |reason: &str| Err(refused(&shown, reason));
    let unix = matches!(head[5], 3 | 19);
    let entry = Entry {
        mode: unix.then(|| u32_at(head, 38) >> 16),
        flags: u16_at(head, 8),
        method: u16_at(head, 10),
        crc: u32_at(head, 16),
        packed: u32_at(head, 20).into(),
        size: u32_at(head, 24).into(),
        at: u32_at(head, 42).into(),
        name: shown.clone(),
    };
    if entry.flags & ENCRYPTED != 0 {
        return refuse("is encrypted");
    }
    if [entry.packed, entry.size, entry.at].contains(&u32::MAX.into()) || extra_field(extra, ZIP64).is_some() {
        return refuse("is one of ZIP64, for larger files than are read");
    }
    if extra_field(extra, UNICODE_PATH).is_some_and(|field| field.get(5..) != Some(name)) {
        return refuse("has two names");
    }
    match entry.method {
        0 if entry.packed != entry.size => refuse("has two sizes"),
        0 | 8 => Ok(entry),
        other => refuse(&format!("is compressed by the method {other}, which is not supported")),
    }
}

/// Returns the content of an extra field.
fn extra_field(mut extra: &[u8], wanted: u16) -> Option<&[u8]> {
    while extra.len() >= 4 {
        let (id, len) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let content = extra.get(4..4 + len)?;
        if id == wanted {
            return Some(content);
        }
        extra = &extra[4 + len..];
    }
    None
}

/// Holds what the directory says to the limits, before anything is inflated; more than it says is never inflated.
fn check_sizes(entries: &[Entry], limits: Limits) -> Result<()> {
    let sum = |of: fn(&Entry) -> u64| entries.iter().map(of).fold(0, u64::saturating_add);
    let (packed, size) = (sum(|entry| entry.packed), sum(|entry| entry.size));
    if size > limits.size {
        return Err(exceeded("the size of all files", format!("{} bytes", limits.size), "--max-size"));
    }
    match size > RATIO_AFTER && size / limits.ratio.max(1) > packed {
        true => Err(exceeded("the ratio of unpacked to packed bytes", limits.ratio.to_string(), "--max-ratio")),
        false => Ok(()),
    }
}

fn check_names(entries: &[Entry]) -> Result<()> {
    let mut seen = HashSet::new();
    for entry in entries {
        if entry.name.contains('\\') {
            return Err(refused(&entry.name, "has a backslash in its name, which some take for a slash"));
        }
        let plain = entry.name.trim_start_matches("./").trim_end_matches('/').to_lowercase();
        if !seen.insert(plain) {
            return Err(refused(&entry.name, "is in the archive twice, or differs from another only by case"));
        }
    }
    Ok(())
}

/// Checks what stands before a file; returns where its bytes begin.
fn local<B: Bytes + ?Sized>(bytes: &B, entry: &Entry, end: u64) -> Result<u64> {
    if entry.at < end {
        return Err(refused(&entry.name, "shares bytes with another entry"));
    }
    if entry.at > end {
        return Err(refused(&entry.name, "follows bytes that belong to no entry"));
    }
    let differs = || refused(&entry.name, "is described in two ways");
    let head = range(bytes, entry.at, entry.at + LOCAL as u64)?;
    let (name, extra) = (u16_at(&head, 26), u16_at(&head, 28));
    let start = entry.at + LOCAL as u64 + u64::from(name) + u64::from(extra);
    let rest = range(bytes, entry.at + LOCAL as u64, start)?;
    if !head.starts_with(LOCAL_MARK)
        || !rest.starts_with(entry.name.as_bytes())
        || usize::from(name) != entry.name.len()
    {
        return Err(differs());
    }
    let own = (u16_at(&head, 6), u16_at(&head, 8));
    let sizes = (u32_at(&head, 14), u64::from(u32_at(&head, 18)), u64::from(u32_at(&head, 22)));
    let known = sizes == (entry.crc, entry.packed, entry.size);
    let later = entry.flags & STREAMED != 0 && sizes == (0, 0, 0);
    match own == (entry.flags, entry.method) && (known || later) {
        true => Ok(start),
        false => Err(differs()),
    }
}

fn put<B: Bytes + ?Sized>(tree: &mut Tree, entry: &Entry, packed: Range<'_, B>) -> Result<()> {
    let kind = kind(entry)?;
    let packed = BufReader::with_capacity(BUFFER, packed);
    match (kind, entry.method) {
        (Kind::Directory, _) => tree.add_directory(&entry.name),
        (_, 0) => content(tree, entry, kind, packed).map(drop),
        _ => {
            let inflated = content(tree, entry, kind, DeflateDecoder::new(packed))?;
            match inflated.total_in() == entry.packed {
                true => Ok(()),
                false => Err(wrong(entry, "its compressed data ends early")),
            }
        }
    }
}

/// Adds a file or a link, once its content is what the directory says.
fn content<R: Read>(tree: &mut Tree, entry: &Entry, kind: Kind, content: R) -> Result<R> {
    let mut content = Checked { inner: content, crc: Crc::new() };
    match kind {
        Kind::Symlink => {
            let mut target = String::new();
            let read = (&mut content).take(entry.size).read_to_string(&mut target);
            read.map_err(|_| refused(&entry.name, "is a link to a name that is not UTF-8"))?;
            if target.is_empty() || target.contains('\0') {
                return Err(refused(&entry.name, "is a link to what is no name"));
            }
            tree.add_symlink(&entry.name, &target)?;
        }
        Kind::File { executable } => {
            let added = tree.add_file(&entry.name, executable, (&mut content, entry.size));
            added.map_err(|error| inflating(entry, error))?;
        }
        Kind::Directory => {}
    }
    let mut more = [0];
    let more = content.inner.read(&mut more).map_err(|error| wrong(entry, &error.to_string()))?;
    if more > 0 {
        return Err(wrong(entry, &format!("it has more than {} bytes", entry.size)));
    }
    match content.crc.sum() == entry.crc {
        true => Ok(content.inner),
        false => Err(wrong(entry, "its checksum is another one")),
    }
}

/// Tells data that cannot be inflated from what happens to the spooled contents.
fn inflating(entry: &Entry, error: Error) -> Error {
    match error {
        Error::Io { cause, .. } if cause.get_ref().is_some() => wrong(entry, &cause.to_string()),
        other => other,
    }
}

/// A reader that makes the checksum of what is read.
struct Checked<R> {
    inner: R,
    crc: Crc,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.crc.update(&buffer[..got]);
        Ok(got)
    }
}

/// Returns what an entry is, or why no skill can have it.
fn kind(entry: &Entry) -> Result<Kind> {
    let refuse = |reason: &str| Err(refused(&entry.name, reason));
    let mode = entry.mode.unwrap_or_default();
    for (bit, what) in [(0o4000, "setuid"), (0o2000, "setgid"), (0o1000, "sticky")] {
        if mode & bit != 0 && mode & 0o170_000 != 0o120_000 {
            return refuse(&format!("has the {what} bit"));
        }
    }
    let directory = entry.name.ends_with('/');
    match mode & 0o170_000 {
        0 | 0o040_000 if directory && (entry.size, entry.packed) == (0, 0) => Ok(Kind::Directory),
        0 | 0o040_000 if directory => refuse("is a directory with content"),
        _ if directory => refuse("is a file with the name of a directory"),
        0o040_000 => refuse("is a directory with the name of a file"),
        0 | 0o100_000 => Ok(Kind::File { executable: mode & 0o111 != 0 }),
        0o120_000 if entry.size > MAX_PATH as u64 => refuse("is a link to a path that is too long"),
        0o120_000 => Ok(Kind::Symlink),
        0o010_000 => refuse("is a FIFO"),
        0o140_000 => refuse("is a socket"),
        0o060_000 | 0o020_000 => refuse("is a device"),
        other => refuse(&format!("is of the unknown type {other:o}")),
    }
}

fn range<B: Bytes + ?Sized>(bytes: &B, at: u64, end: u64) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    Range { bytes, at, end }.read_to_end(&mut all).map_err(Error::io("the archive"))?;
    match all.len() as u64 == end - at {
        true => Ok(all),
        false => Err(damaged("it ends too early")),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn refused(entry: &str, reason: &str) -> Error {
    Error::RefusedEntry { entry: entry.to_owned(), reason: reason.to_owned(), hint: None }
}

fn wrong(entry: &Entry, reason: &str) -> Error {
    Error::damaged(&entry.name, reason)
}

fn damaged(reason: &str) -> Error {
    Error::damaged("its format", reason)
}

fn exceeded(what: &str, limit: String, flag: &'static str) -> Error {
    Error::LimitExceeded { what: what.to_owned(), limit, flag }
}
