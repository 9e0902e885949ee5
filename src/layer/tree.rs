//! A directory tree that comes from somewhere else than a directory: archives, layers of an image, a Git repository.
//!
//! Its contents are spooled to one file without a name, so that nothing of it is ever opened by a path, and it is packed
//! in the order of a layer however it was read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use super::archive::{Archive, Entry, Kind};
use super::bounds::{Tally, exceeded};
use super::names::{WHITEOUT, clean, refused};
use super::stream::{Expected, with_stream};
use super::unpack::UnpackOptions;
use crate::error::{Error, Result};
use crate::limits::Limits;

/// Name of the whiteout that deletes all that the layers below have in its directory (image specification, layer.md).
const OPAQUE: &str = ".wh..wh..opq";

/// Bytes that are copied at once.
const CHUNK: usize = 256 << 10;

/// What is in a directory, in the order of its bytes.
pub type Entries = BTreeMap<String, Item>;

/// One thing in a directory.
#[derive(Debug, Clone)]
pub enum Item {
    /// A directory.
    Directory(Entries),
    /// A regular file.
    File(Stored),
    /// A symbolic link, and where it leads; that may be anywhere.
    Symlink(String),
}

/// Where the content of a file is.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    at: u64,
    /// In bytes.
    pub size: u64,
    /// Whether anybody may execute it.
    pub executable: bool,
}

/// A directory tree with its contents.
#[derive(Debug)]
pub struct Tree {
    root: Entries,
    contents: File,
    end: u64,
    limits: Limits,
    tally: Tally,
}

impl Tree {
    /// Returns an empty tree, whose contents go into `contents`: an empty file that nobody else has.
    pub fn new(contents: File, limits: Limits) -> Self {
        Self { root: Entries::new(), contents, end: 0, limits, tally: Tally::new(limits) }
    }

    /// Adds what is in an archive, over what is there; its paths begin below the directory `at`, or the root.
    ///
    /// # Errors
    /// As [`read`](super::read); the tree is then worthless.
    pub fn add_archive<R: Read + Send>(
        &mut self,
        archive: R,
        expected: &Expected,
        at: &str,
        options: &UnpackOptions<'_>,
    ) -> Result<()> {
        let (upper, _) = self.spool(archive, expected, Archive::new(&self.limits, options.fold_case), options)?;
        let dir = match at {
            "" => &mut self.root,
            at => directory(&mut self.root, &clean(at.as_bytes(), false)?.path, &mut || Ok(()))?,
        };
        merge(dir, upper);
        Ok(())
    }

    /// Adds a layer of a container image over those below it: whiteouts delete what these have.
    ///
    /// # Errors
    /// As [`Self::add_archive`].
    pub fn add_layer<R: Read + Send>(
        &mut self,
        layer: R,
        expected: &Expected,
        options: &UnpackOptions<'_>,
    ) -> Result<()> {
        let archive = Archive::new(&self.limits, options.fold_case).with_whiteouts();
        let (upper, whiteouts) = self.spool(layer, expected, archive, options)?;
        whiteouts.iter().for_each(|path| delete(&mut self.root, path));
        merge(&mut self.root, upper);
        Ok(())
    }

    /// Adds a file of `size` bytes.
    ///
    /// # Errors
    /// [`Error::RefusedEntry`] for a path that no skill has, or that is there already; [`Error::LimitExceeded`]; those of
    /// reading and writing.
    pub fn add_file(&mut self, path: &str, executable: bool, (content, size): (&mut dyn Read, u64)) -> Result<()> {
        self.tally.content(size)?;
        self.check_room(size)?;
        let stored = Stored { at: self.end, size, executable };
        let copied = std::io::copy(&mut content.take(size), &mut &self.contents).map_err(Error::io(path))?;
        self.end += copied;
        if copied < size {
            return Err(Error::damaged(path, format!("it has {copied} bytes, expected {size}")));
        }
        self.insert(path, Item::File(stored))
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`Self::add_file`].
    pub fn add_symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.insert(path, Item::Symlink(target.to_owned()))
    }

    /// Adds a directory, where there is none.
    ///
    /// # Errors
    /// As [`Self::add_file`].
    pub fn add_directory(&mut self, path: &str) -> Result<()> {
        let path = clean(path.as_bytes(), false)?.path;
        self.tally.depth(&path, path.split('/').count())?;
        directory(&mut self.root, &path, &mut || self.tally.entry()).map(|_| ())
    }

    fn insert(&mut self, path: &str, item: Item) -> Result<()> {
        self.tally.entry()?;
        let path = clean(path.as_bytes(), false)?.path;
        self.tally.depth(&path, path.matches('/').count())?;
        let (above, name) = path.rsplit_once('/').unwrap_or(("", &path));
        match directory(&mut self.root, above, &mut || self.tally.entry())?.insert(name.to_owned(), item) {
            None => Ok(()),
            Some(_) => Err(refused(path.as_bytes(), "is there twice")),
        }
    }

    fn check_room(&self, size: u64) -> Result<()> {
        match self.end.saturating_add(size) > self.limits.size {
            true => Err(exceeded("the size of all files", format!("{} bytes", self.limits.size), "--max-size")),
            false => Ok(()),
        }
    }

    /// Reads an archive to its end; returns what is in it, and the paths that it deletes.
    fn spool<R: Read + Send>(
        &mut self,
        archive: R,
        expected: &Expected,
        reader: Archive,
        options: &UnpackOptions<'_>,
    ) -> Result<(Entries, Vec<String>)> {
        let (mut entries, mut whiteouts) = (Entries::new(), Vec::new());
        let mut contents = BufWriter::with_capacity(CHUNK, self.contents.try_clone().map_err(spooling)?);
        let mut end = self.end;
        let mut visit = |entry: &Entry, content: &mut super::Content<'_, '_>| -> Result<()> {
            let name = entry.path.rsplit('/').next().unwrap_or(&entry.path);
            if name.starts_with(WHITEOUT) {
                whiteouts.push(entry.path.clone());
                return Ok(());
            }
            let item = match &entry.kind {
                Kind::Directory => Item::Directory(Entries::new()),
                Kind::Symlink(target) => Item::Symlink(target.clone()),
                Kind::Link(target) => match get(&entries, target) {
                    Some(Item::File(stored)) => Item::File(*stored),
                    _ => return Err(Error::damaged(&entry.path, "it is a link to no file")),
                },
                Kind::File => {
                    let stored = Stored { at: end, size: entry.size, executable: entry.executable };
                    content.for_each(|bytes| {
                        check_cancelled(options.cancelled, &entry.path)?;
                        contents.write_all(bytes).map_err(spooling)
                    })?;
                    end += entry.size;
                    Item::File(stored)
                }
            };
            let (above, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
            // The reader has counted it.
            directory(&mut entries, above, &mut || Ok(()))?.insert(name.to_owned(), item);
            Ok(())
        };
        let (read, _) = with_stream(archive, expected, &self.limits, |stream| reader.run(stream, &mut visit))?;
        // Each archive is held to the limits by itself, and there may be many.
        self.tally.add(&read)?;
        contents.flush().map_err(spooling)?;
        self.end = end;
        self.check_room(0)?;
        Ok((entries, whiteouts))
    }

    /// Returns the directories that have a file of this name, the root as an empty path; none is in another one.
    pub fn with_file(&self, name: &str) -> Vec<String> {
        fn walk(entries: &Entries, path: &str, name: &str, found: &mut Vec<String>) {
            if matches!(entries.get(name), Some(Item::File(_) | Item::Symlink(_))) {
                return found.push(path.to_owned());
            }
            for (own, item) in entries {
                if let Item::Directory(below) = item {
                    let path = if path.is_empty() { own.clone() } else { format!("{path}/{own}") };
                    walk(below, &path, name, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.root, "", name, &mut found);
        found
    }

    /// Returns the tree below a directory; an empty path is the root.
    pub fn below(&self, path: &str) -> Option<Subtree<'_>> {
        let root = match path {
            "" => &self.root,
            path => match get(&self.root, path)? {
                Item::Directory(entries) => entries,
                _ => return None,
            },
        };
        Some(Subtree { tree: self, root })
    }
}

/// A directory of a tree, as a root of its own.
#[derive(Debug, Clone, Copy)]
pub struct Subtree<'a> {
    tree: &'a Tree,
    pub(super) root: &'a Entries,
}

impl<'a> Subtree<'a> {
    /// Returns the file at a path, also where a link leads to it, with its size and content; `None` where there is none.
    pub fn open(&self, path: &str) -> Option<(Stored, Contents<'a>)> {
        match get(self.root, path)? {
            Item::File(stored) => Some((*stored, self.content(*stored))),
            Item::Symlink(_) => match super::tree_walk::resolve(self.root, path).ok()?.1 {
                Item::File(stored) => Some((*stored, self.content(*stored))),
                _ => None,
            },
            Item::Directory(_) => None,
        }
    }

    /// Returns whether another has the same files.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn is_same(&self, other: &Subtree<'_>) -> Result<bool> {
        let mut left = vec![(self.root, other.root)];
        while let Some((own, its)) = left.pop() {
            if own.len() != its.len() {
                return Ok(false);
            }
            for ((name, item), (other_name, other_item)) in own.iter().zip(its) {
                let same = match (item, other_item) {
                    (Item::Directory(own), Item::Directory(its)) => {
                        left.push((own, its));
                        true
                    }
                    (Item::Symlink(own), Item::Symlink(its)) => own == its,
                    (Item::File(own), Item::File(its)) => {
                        (own.size, own.executable) == (its.size, its.executable)
                            && same_bytes(self.content(*own), other.content(*its)).map_err(Error::io(name.as_str()))?
                    }
                    _ => false,
                };
                if !same || name != other_name {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Returns the content of a file.
    pub(super) fn content(&self, stored: Stored) -> Contents<'a> {
        Contents { file: &self.tree.contents, at: stored.at, left: stored.size }
    }
}

/// Reads the content of one file.
#[derive(Debug)]
pub struct Contents<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Contents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let want = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}

/// Compares contents of one size.
fn same_bytes(mut one: impl Read, mut other: impl Read) -> std::io::Result<bool> {
    let (mut own, mut its) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let got = one.read(&mut own)?;
        if got == 0 {
            return Ok(true);
        }
        other.read_exact(&mut its[..got])?;
        if own[..got] != its[..got] {
            return Ok(false);
        }
    }
}

/// Returns what has a path.
pub(super) fn get<'a>(entries: &'a Entries, path: &str) -> Option<&'a Item> {
    let mut parts = path.split('/');
    let first = entries.get(parts.next()?)?;
    parts.try_fold(first, |item, part| match item {
        Item::Directory(below) => below.get(part),
        _ => None,
    })
}

/// Returns a directory, making it where there is none; an empty path is the root. Every one that is made is told to
/// `count`, because one long path can make hundreds.
fn directory<'a>(
    mut entries: &'a mut Entries,
    path: &str,
    count: &mut dyn FnMut() -> Result<()>,
) -> Result<&'a mut Entries> {
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if !entries.contains_key(part) {
            count()?;
        }
        let item = entries.entry(part.to_owned()).or_insert_with(|| Item::Directory(Entries::new()));
        entries = match item {
            Item::Directory(below) => below,
            _ => return Err(refused(path.as_bytes(), "is in a file or a link")),
        };
    }
    Ok(entries)
}

/// Puts a tree over another: directories become one, anything else is replaced.
fn merge(lower: &mut Entries, upper: Entries) {
    for (name, item) in upper {
        match (lower.get_mut(&name), item) {
            (Some(Item::Directory(below)), Item::Directory(above)) => merge(below, above),
            (_, item) => {
                lower.insert(name, item);
            }
        }
    }
}

/// Deletes what a whiteout stands for.
fn delete(entries: &mut Entries, whiteout: &str) {
    let (above, name) = whiteout.rsplit_once('/').unwrap_or(("", whiteout));
    let dir = match above {
        "" => Some(entries),
        above => above.split('/').try_fold(entries, |entries, part| match entries.get_mut(part) {
            Some(Item::Directory(below)) => Some(below),
            _ => None,
        }),
    };
    let Some(dir) = dir else { return };
    match name {
        OPAQUE => dir.clear(),
        name => drop(dir.remove(name.strip_prefix(WHITEOUT).unwrap_or(name))),
    }
}

pub(super) fn check_cancelled(cancelled: Option<&AtomicBool>, path: &str) -> Result<()> {
    match cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
        true => Err(Error::io(path)(std::io::ErrorKind::Interrupted.into())),
        false => Ok(()),
    }
}

fn spooling(error: std::io::Error) -> Error {
    Error::io("spooled contents")(error)
}
