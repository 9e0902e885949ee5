//! A directory of skills: where an agent looks, or one that the user names.
//!
//! ```text
//! <skills>/hr/                           a skill
//! <skills>/.skillimage/receipts/hr.json  what we have put there
//! <skills>/.skillimage/backup/hr-1/      files of the user's that were replaced by force
//! <skills>/.skillimage/lock, work/, pending/   for the time of a change (journal)
//! ```
//!
//! Everything is opened beneath the directory, so that no link in it leads us elsewhere.

mod carry;
mod journal;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, MetadataExt as _, OpenOptions, OpenOptionsExt as _};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::error::{Error, Result};
use crate::receipt::Receipt;

pub use carry::carry;
pub use journal::Locked;

/// Our directory in a directory of skills.
pub const OWN: &str = ".skillimage";
/// Where the receipts are, in [`OWN`].
const RECEIPTS: &str = "receipts";

/// Largest receipt, in bytes: that of a skill with the most files has about 40 MiB.
const MAX_RECEIPT: u64 = 64 << 20;

/// Names that no file can have on Windows, which reads the same skills through WSL and shared homes.
const RESERVED: [&str; 4] = ["con", "prn", "aux", "nul"];

/// A directory of skills.
#[derive(Debug)]
pub struct SkillsDir {
    dir: Dir,
    path: PathBuf,
}

impl SkillsDir {
    /// Returns the directory `dir`, which messages call `path`.
    pub fn new(dir: Dir, path: impl Into<PathBuf>) -> Self {
        Self { dir, path: path.into() }
    }

    /// Returns the directory itself.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a skill, not through a link; `None` where there is no directory of that name.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(&self, name: &str) -> Result<Option<Dir>> {
        match directory(&self.dir, name) {
            Ok(dir) => Ok(Some(dir)),
            Err(e) if is_no_directory(&e) => Ok(None),
            Err(e) => Err(self.io(name)(e)),
        }
    }

    /// Opens a directory of ours, in the one for all of them; `None` where there is none, or a link in its place, which
    /// somebody else has made.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn own(&self, name: &str) -> Result<Option<Dir>> {
        match directory(&self.dir, OWN).and_then(|own| directory(&own, name)) {
            Ok(dir) => Ok(Some(dir)),
            Err(e) if is_no_directory(&e) => Ok(None),
            Err(e) => Err(self.io(OWN)(e)),
        }
    }

    /// Returns whether this is the same directory as another, by whatever paths.
    ///
    /// # Errors
    /// If one of them cannot be looked at.
    pub fn is(&self, other: &Self) -> io::Result<bool> {
        let identity = |skills: &Self| skills.dir.dir_metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        Ok(identity(self)? == identity(other)?)
    }

    /// Opens a skill, also through a link that leads anywhere: to look into it, never to change it.
    ///
    /// # Errors
    /// If there is no directory, or it cannot be opened.
    pub fn follow(&self, name: &str) -> io::Result<Dir> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Dir::from_std_file(File::from(openat(self.dir.as_fd(), name, flags, Mode::empty())?)))
    }

    /// Returns the directory of skills that a link leads to.
    ///
    /// # Errors
    /// If it leads to no directory.
    pub fn shared(&self, name: &str) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = Dir::from_std_file(File::from(openat(self.follow(name)?.as_fd(), "..", flags, Mode::empty())?));
        let target = self.path.join(self.dir.read_link_contents(name)?);
        let path = target.parent().unwrap_or(&target).to_owned();
        Ok(Self { dir, path })
    }

    /// Returns the names of all that is there but hidden things, sorted.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.dir.entries().map_err(self.io("."))? {
            // What is not UTF-8 is no skill's name.
            let Ok(name) = entry.map_err(self.io("."))?.file_name().into_string() else { continue };
            if !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the receipt of a skill; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Damaged`] where it is not as we have written it.
    pub fn receipt(&self, name: &str) -> Result<Option<Receipt>> {
        let object = self.path.join(format!("{OWN}/{RECEIPTS}/{name}.json"));
        self.receipt_bytes(name)?.map(|bytes| Receipt::parse(&bytes, &object.display().to_string())).transpose()
    }

    /// Returns the bytes of a receipt; `None` where there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn receipt_bytes(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(receipts) = self.own(RECEIPTS)? else { return Ok(None) };
        self.receipt_in(&receipts, name)
    }

    fn receipt_in(&self, receipts: &Dir, name: &str) -> Result<Option<Vec<u8>>> {
        let read = read_bounded(receipts, &format!("{name}.json"), MAX_RECEIPT);
        read.map_err(|e| self.io(&format!("{OWN}/{RECEIPTS}/{name}.json"))(e))
    }

    /// Reads all receipts, sorted by name, each with its bytes or why it cannot be read.
    ///
    /// # Errors
    /// If the directory of receipts is there and cannot be read.
    pub fn all_receipts(&self) -> Result<Vec<(String, Result<Vec<u8>>)>> {
        let Some(receipts) = self.own(RECEIPTS)? else { return Ok(Vec::new()) };
        let read = |name: String| match self.receipt_in(&receipts, &name) {
            Ok(bytes) => bytes.map(|bytes| (name, Ok(bytes))),
            Err(e) => Some((name, Err(e))),
        };
        Ok(self.receipts()?.into_iter().filter_map(read).collect())
    }

    /// Returns the names that have a receipt, sorted.
    ///
    /// # Errors
    /// If the directory of receipts is there and cannot be read.
    pub fn receipts(&self) -> Result<Vec<String>> {
        let path = format!("{OWN}/{RECEIPTS}");
        let Some(dir) = self.own(RECEIPTS)? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in dir.entries().map_err(self.io(&path))? {
            let name = entry.map_err(self.io(&path))?.file_name();
            names.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Returns what is at a name, following no link.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn metadata(&self, name: &str) -> Result<Option<cap_std::fs::Metadata>> {
        match self.dir.symlink_metadata(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            metadata => metadata.map(Some).map_err(self.io(name)),
        }
    }

    /// Returns an error of something in the directory.
    pub(crate) fn io(&self, what: &str) -> impl FnOnce(io::Error) -> Error {
        let path = if what == "." { self.path.clone() } else { self.path.join(what) };
        move |e| Error::io(path.display().to_string())(e)
    }
}

/// Opens a directory in another one, not through a link.
fn directory(dir: &Dir, name: &str) -> io::Result<Dir> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(Dir::from_std_file(File::from(openat(dir.as_fd(), name, flags, Mode::empty())?)))
}

fn is_no_directory(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP))
}

/// Checks that a skill can be installed under a name: one component, not hidden, as images and cards have them, and one
/// that no other tool or system reads as something else.
///
/// # Errors
/// [`Error::Unavailable`], which says why not.
pub fn check_name(name: &str) -> Result<()> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    let stem = name.split('.').next().unwrap_or(name);
    let port = |stem: &str| {
        ["com", "lpt"]
            .iter()
            .any(|device| stem.strip_prefix(device).is_some_and(|n| matches!(n.as_bytes(), [b'1'..=b'9'])))
    };
    let why = match () {
        () if name.is_empty() || name.len() > 128 => "a name has 1 to 128 characters",
        () if name.starts_with('.') || name.ends_with('.') => "it begins or ends with a dot",
        () if !name.bytes().all(legal) => "a name has lower-case letters, digits, and - _ . only",
        () if RESERVED.contains(&stem) || port(stem) => "Windows has a device of that name",
        () => return Ok(()),
    };
    Err(Error::Unavailable { reason: format!("{name:?} cannot be the name of a skill's directory: {why}"), hint: None })
}

/// Reads a regular file of bounded size; `None` where there is none. Nothing is waited for: it may be a FIFO.
///
/// # Errors
/// If it cannot be read, or is larger than `limit` bytes.
pub fn read_bounded(dir: &Dir, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    let file = match dir.open_with(path, &options) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    if metadata.len() > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_harmless_component() {
        for name in ["hr", "code-reviewer", "a.b_c", "x1", "com", "company", "lpt10", "console"] {
            check_name(name).unwrap();
        }
        let long = "x".repeat(129);
        let bad = [
            "", ".", "..", "../x", "a/b", ".hidden", "x.", "CON", "con", "con.md", "nul", "com1", "lpt9", "Hr", "h r",
            "h\u{0}r", "hé", &long,
        ];
        for name in bad {
            let error = check_name(name).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name:?} cannot be the name")), "{error}");
        }
    }
}
