//! Reads a tar archive that may have been made to do harm.
//!
//! Every entry is checked before anybody sees it; what different readers would understand differently is refused.

use std::collections::HashMap;

use tar::{EntryType, Header};

use super::bounds::Tally;
use super::header::padding;
use super::names::{clean, refused, show};
use super::pax::Extended;
use super::stream::{Stream, damage};
use crate::error::{Error, Result};
use crate::limits::Limits;

/// Most bytes of one extended header; Go's reader has the same bound.
const EXTENDED_MAX: u64 = 1 << 20;

/// An entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path relative to the layer's root, without `./` and without a trailing slash.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes of content.
    pub size: u64,
    /// Whether anybody may execute it.
    pub executable: bool,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link with this target, which may lead anywhere.
    Symlink(String),
    /// Another name of this path, which is a regular file that came earlier.
    Link(String),
}

/// Content of one file.
#[derive(Debug)]
pub struct Content<'s, 'a> {
    stream: &'s mut Stream<'a>,
    left: u64,
}

impl std::fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("object", &self.object()).finish_non_exhaustive()
    }
}

impl Content<'_, '_> {
    /// Passes all that is left to `take`, piece by piece.
    pub fn for_each(&mut self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while self.left > 0 {
            let bytes = self.stream.fill()?;
            let len = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            if len == 0 {
                return Err(truncated(self.stream));
            }
            take(&bytes[..len])?;
            self.stream.consume(len);
            self.left -= len as u64;
        }
        Ok(())
    }

    /// Reads all that is left into memory; the entry's size says how much that is.
    pub fn read_all(&mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        self.for_each(|bytes| {
            all.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(all)
    }
}

/// What is known about a path that was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// A directory that entries in it imply; its own entry may follow.
    Implied,
    Directory,
    File,
    Symlink,
}

/// A header with the extended ones applied.
struct Raw {
    path: Vec<u8>,
    target: Vec<u8>,
    size: u64,
    kind: EntryType,
    mode: u32,
}

/// Receives the entries of an archive.
pub(super) type Visitor<'v> = dyn FnMut(&Entry, &mut Content<'_, '_>) -> Result<()> + 'v;

/// One pass over an archive.
pub(super) struct Archive {
    seen: HashMap<String, Seen>,
    /// Paths in lower case, where those that differ by case only are refused.
    folded: Option<HashMap<String, String>>,
    /// Whether it is one of several layers, in which whiteouts delete files of those below.
    whiteouts: bool,
    tally: Tally,
}

impl Archive {
    pub(super) fn new(limits: &Limits, fold_case: bool) -> Self {
        let folded = fold_case.then(HashMap::new);
        Self { seen: HashMap::new(), folded, whiteouts: false, tally: Tally::new(*limits) }
    }

    /// The same for one of several layers: whiteouts are entries then, and are not refused.
    pub(super) fn with_whiteouts(self) -> Self {
        Self { whiteouts: true, ..self }
    }

    /// Passes every entry to `visit`, a directory before what is in it.
    pub(super) fn run(mut self, stream: &mut Stream<'_>, visit: &mut Visitor<'_>) -> Result<Tally> {
        while let Some(raw) = self.next(stream)? {
            let size = raw.size;
            if let Some(entry) = self.check(raw)? {
                for directory in self.parents(&entry)? {
                    visit(&directory, &mut Content { stream, left: 0 })?;
                }
                if self.register(&entry)? {
                    let mut content = Content { stream, left: size };
                    visit(&entry, &mut content)?;
                    content.for_each(|_| Ok(()))?;
                }
            }
            skip(stream, padding(size))?;
        }
        Ok(self.tally)
    }

    /// Returns the next entry; `None` at the end of the archive.
    fn next(&mut self, stream: &mut Stream<'_>) -> Result<Option<Raw>> {
        let mut extended = Extended::default();
        loop {
            let Some(header) = header(stream)? else {
                return if extended.is_empty() { Ok(None) } else { Err(truncated(stream)) };
            };
            let size = header.entry_size().map_err(|_| damage(stream.object(), "an entry has no size"))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let data = extension(stream, size)?;
                    extended.read(&data).map_err(|reason| refused(&header.path_bytes(), reason))?;
                }
                EntryType::XGlobalHeader => {
                    self.tally.entry()?;
                    let mut global = Extended::default();
                    let data = extension(stream, size)?;
                    global.read(&data).map_err(|reason| refused(&header.path_bytes(), reason))?;
                    if !global.is_empty() {
                        return Err(refused(&header.path_bytes(), "would rename or resize all entries after it"));
                    }
                }
                kind @ (EntryType::GNULongName | EntryType::GNULongLink) => {
                    let mut data = extension(stream, size)?;
                    data.truncate(data.iter().position(|byte| *byte == 0).unwrap_or(data.len()));
                    let is_name = kind == EntryType::GNULongName;
                    let slot = if is_name { &mut extended.path } else { &mut extended.target };
                    if slot.replace(data).is_some() {
                        return Err(refused(&header.path_bytes(), "gives a second name to one entry"));
                    }
                }
                kind => return apply(&header, kind, size, extended).map(Some),
            }
        }
    }

    /// Returns the entry if it is harmless; `None` for the root itself.
    fn check(&mut self, raw: Raw) -> Result<Option<Entry>> {
        let name = clean(&raw.path, self.whiteouts)?;
        let refuse = |reason: &str| Err(refused(&raw.path, reason));
        let kind = match raw.kind {
            EntryType::Directory => Kind::Directory,
            EntryType::Regular if name.directory => {
                return refuse("is a file with the name of a directory");
            }
            EntryType::Regular => Kind::File,
            EntryType::Symlink => Kind::Symlink(show(&raw.target)),
            EntryType::Link => Kind::Link(clean(&raw.target, false).map(|target| target.path).map_err(|_| {
                let both = format!("{} -> {}", show(&raw.path), show(&raw.target));
                refused(both.as_bytes(), "is a hard link to what cannot be in a skill")
            })?),
            EntryType::Char | EntryType::Block => return refuse("is a device"),
            EntryType::Fifo => return refuse("is a FIFO"),
            EntryType::GNUSparse => return refuse("is a sparse file"),
            other => {
                return refuse(&format!("is of the unknown type {:?}", char::from(other.as_byte())));
            }
        };
        if kind != Kind::File && raw.size > 0 {
            return refuse("has content, which only a file can have");
        }
        for (bit, what) in [(0o4000, "setuid"), (0o2000, "setgid"), (0o1000, "sticky")] {
            if !matches!(kind, Kind::Symlink(_)) && raw.mode & bit != 0 {
                return refuse(&format!("has the {what} bit"));
            }
        }
        if matches!(kind, Kind::Symlink(_)) && std::str::from_utf8(&raw.target).is_err() {
            return refuse("is a link to a name that is not UTF-8");
        }
        if name.path.is_empty() {
            if kind != Kind::Directory {
                return refuse("is the skill's root, and not a directory");
            }
            return match self.seen.insert(String::new(), Seen::Directory) {
                None => Ok(None),
                Some(_) => refuse("is in the archive twice"),
            };
        }
        Ok(Some(Entry { path: name.path, kind, size: raw.size, executable: raw.mode & 0o111 != 0 }))
    }

    /// Returns the directories above `entry` that nothing has named yet.
    fn parents(&mut self, entry: &Entry) -> Result<Vec<Entry>> {
        let mut implied = Vec::new();
        for (at, _) in entry.path.match_indices('/') {
            let path = &entry.path[..at];
            match self.seen.get(path) {
                Some(Seen::Directory | Seen::Implied) => {}
                Some(Seen::File | Seen::Symlink) => {
                    let reason = format!("is in {path}, which is not a directory");
                    return Err(refused(entry.path.as_bytes(), reason));
                }
                None => {
                    self.admit(path)?;
                    self.seen.insert(path.to_owned(), Seen::Implied);
                    let kind = Kind::Directory;
                    implied.push(Entry { path: path.to_owned(), kind, size: 0, executable: true });
                }
            }
        }
        let above = entry.path.matches('/').count();
        let depth = if entry.kind == Kind::Directory { above + 1 } else { above };
        self.tally.depth(&entry.path, depth)?;
        Ok(implied)
    }

    /// Remembers `entry`; false where its directory exists already because something in it came first.
    fn register(&mut self, entry: &Entry) -> Result<bool> {
        let seen = match &entry.kind {
            Kind::Directory => Seen::Directory,
            Kind::File => Seen::File,
            Kind::Symlink(_) => Seen::Symlink,
            Kind::Link(target) if self.seen.get(target) == Some(&Seen::File) => Seen::File,
            Kind::Link(target) => {
                let both = format!("{} -> {target}", entry.path);
                return Err(refused(both.as_bytes(), "is a hard link to what is not a file before it"));
            }
        };
        match self.seen.get_mut(&entry.path) {
            Some(before) if *before == Seen::Implied && seen == Seen::Directory => {
                *before = seen;
                return Ok(false);
            }
            Some(_) => return Err(refused(entry.path.as_bytes(), "is in the archive twice")),
            None => {}
        }
        self.admit(&entry.path)?;
        self.seen.insert(entry.path.clone(), seen);
        if entry.kind == Kind::File {
            self.tally.content(entry.size)?;
        }
        Ok(true)
    }

    /// Counts a path that is new.
    fn admit(&mut self, path: &str) -> Result<()> {
        if let Some(folded) = &mut self.folded
            && let Some(other) = folded.insert(path.to_lowercase(), path.to_owned())
        {
            return Err(refused(path.as_bytes(), format!("differs from {other} only by case")));
        }
        self.tally.entry()
    }
}

/// Reads one header; `None` at the end of the archive.
fn header(stream: &mut Stream<'_>) -> Result<Option<Header>> {
    let mut header = Header::new_old();
    match stream.read_full(header.as_mut_bytes())? {
        0 => return Ok(None),
        512 => {}
        _ => return Err(truncated(stream)),
    }
    let bytes = header.as_bytes();
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = bytes[148..156].iter().map(|byte| u32::from(*byte)).sum();
    // The checksum is made with its own field full of spaces.
    if header.cksum().ok() != Some(sum - own + 8 * 32) {
        return Err(damage(stream.object(), "a header of its archive has a wrong checksum"));
    }
    Ok(Some(header))
}

/// Reads the content of an extended header.
fn extension(stream: &mut Stream<'_>, size: u64) -> Result<Vec<u8>> {
    if size > EXTENDED_MAX {
        return Err(damage(stream.object(), format!("an extended header has {size} bytes, at most {EXTENDED_MAX}")));
    }
    let mut data = vec![0; size as usize];
    if stream.read_full(&mut data)? < data.len() {
        return Err(truncated(stream));
    }
    skip(stream, padding(size))?;
    Ok(data)
}

fn apply(header: &Header, kind: EntryType, size: u64, extended: Extended) -> Result<Raw> {
    let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
    if extended.size.is_some_and(|pax| pax != size) {
        return Err(refused(&path, "has two sizes"));
    }
    let kind = if kind.as_byte() == 0 { EntryType::Regular } else { kind };
    let target = extended.target.or_else(|| header.link_name_bytes().map(Into::into)).unwrap_or_default();
    let mode = header.mode().map_err(|_| refused(&path, "has no mode"))?;
    Ok(Raw { path, target, size, kind, mode })
}

fn skip(stream: &mut Stream<'_>, mut len: usize) -> Result<()> {
    while len > 0 {
        let at_hand = stream.fill()?.len().min(len);
        if at_hand == 0 {
            return Err(truncated(stream));
        }
        stream.consume(at_hand);
        len -= at_hand;
    }
    Ok(())
}

fn truncated(stream: &Stream<'_>) -> Error {
    damage(stream.object(), "its archive ends in the middle of an entry")
}
