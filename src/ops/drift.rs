//! What became of a directory since a layer was unpacked into it.
//!
//! What it unpacks to is known before, from the verified layer or from a receipt: that is a [`Listing`]. The directory is
//! then walked beside it, by names in directories that are open. No link is followed, and nothing is opened but what the layer has too: directories, and
//! regular files that have the right size. So the work is bounded by the layer, whatever is in the directory.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use cap_std::fs::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::layer::{Children, FileNode, Listing, Node, UnpackOptions};

/// Flags with which anything can be opened without waiting for it and without following it.
const OPEN: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Bytes of a file that are hashed at once.
const CHUNK: usize = 256 << 10;

/// One thing in a directory that is not as the layer has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Path relative to the directory, escaped where it is not UTF-8.
    pub path: String,
    /// What became of it.
    #[serde(flatten)]
    pub change: Change,
    /// The path as it is.
    #[serde(skip)]
    pub os_path: PathBuf,
}

/// What became of an entry: one per path, the gravest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "change")]
pub enum Change {
    /// It has other content, or is a symbolic link that leads elsewhere.
    Modified,
    /// It is not there. What was in a directory that is not there is not listed.
    Missing,
    /// The layer does not have it. What is in such a directory is not listed.
    Extra,
    /// It became executable, or is so no longer.
    Mode {
        /// Whether anybody may execute it now.
        executable: bool,
    },
    /// It is of another kind.
    Kind {
        /// What it is now.
        found: Kind,
    },
}

/// The kinds of things in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A device, FIFO or socket.
    Special,
}

impl Difference {
    /// Returns that something else has a name.
    pub fn of(name: &str, found: Kind) -> Self {
        Self { path: name.to_owned(), change: Change::Kind { found }, os_path: name.into() }
    }
}

impl Change {
    /// Returns whether replacing the directory would lose something that the layer does not have.
    pub fn is_work(self) -> bool {
        matches!(self, Self::Modified | Self::Extra | Self::Kind { .. })
    }
}

impl Kind {
    /// Returns the kind of what was looked at without following it.
    pub fn of(found: cap_std::fs::FileType) -> Self {
        match () {
            () if found.is_dir() => Self::Directory,
            () if found.is_file() => Self::File,
            () if found.is_symlink() => Self::Symlink,
            () => Self::Special,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "a directory",
            Self::File => "a file",
            Self::Symlink => "a symbolic link",
            Self::Special => "a special file",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match self.change {
            Change::Modified => write!(f, "{path} was changed"),
            Change::Missing => write!(f, "{path} is missing"),
            Change::Extra => write!(f, "{path} is not of the image"),
            Change::Mode { executable: true } => write!(f, "{path} was made executable"),
            Change::Mode { executable: false } => write!(f, "{path} is no longer executable"),
            Change::Kind { found } => write!(f, "{path} is {found} now"),
        }
    }
}

/// Returns how a directory differs from what a layer unpacks to, by path; nothing where it is exactly that: paths, kinds,
/// exec bits and contents.
///
/// # Errors
/// If something cannot be looked at, [`Error::LimitExceeded`] for more entries than a skill may have, and
/// [`Error::Io`] of the kind `Interrupted` when it is cancelled.
pub fn differences(listing: &Listing, dir: &Dir, options: &UnpackOptions<'_>) -> Result<Vec<Difference>> {
    let root = openat(dir.as_fd(), ".", OPEN | OFlag::O_DIRECTORY, Mode::empty()).map_err(io_at("."))?;
    let mut walk = Walk { options, entries: 0, found: Vec::new(), buffer: vec![0; CHUNK] };
    walk.directory(root, "", listing.root())?;
    walk.found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(walk.found)
}

/// One walk over a directory.
struct Walk<'a> {
    options: &'a UnpackOptions<'a>,
    entries: u64,
    found: Vec<Difference>,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    fn directory(&mut self, fd: OwnedFd, path: &str, expected: &Children) -> Result<()> {
        let mut dir = nix::dir::Dir::from_fd(fd).map_err(io_at(path))?;
        let names = self.names(&mut dir, path)?;
        for name in &names {
            let known = std::str::from_utf8(name).ok().and_then(|name| expected.get_key_value(name));
            match known {
                Some((name, node)) => self.entry(dir.as_fd(), (name, &join(path, name)), node)?,
                None => self.extra(path, name),
            }
        }
        for name in expected.keys().filter(|name| !names.contains(name.as_bytes())) {
            self.differs(join(path, name), Change::Missing);
        }
        Ok(())
    }

    /// Returns the names in a directory, as bytes: they may be anything.
    fn names(&mut self, dir: &mut nix::dir::Dir, path: &str) -> Result<BTreeSet<Vec<u8>>> {
        let mut names = BTreeSet::new();
        for entry in dir.iter() {
            check_cancelled(self.options, path)?;
            let entry = entry.map_err(io_at(path))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            self.entries += 1;
            let limit = self.options.limits.entries;
            if self.entries > limit {
                let what = "the number of entries".to_owned();
                return Err(Error::LimitExceeded { what, limit: limit.to_string(), flag: "--max-files" });
            }
            names.insert(name.to_owned());
        }
        Ok(names)
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, (name, path): (&str, &str), node: &Node) -> Result<()> {
        let stat = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // It went while we looked.
            Err(Errno::ENOENT) => {
                self.differs(path.to_owned(), Change::Missing);
                return Ok(());
            }
            stat => stat.map_err(io_at(path))?,
        };
        let found = kind(stat.st_mode);
        match (node, found) {
            (Node::Directory(children), Kind::Directory) => {
                let fd = openat(parent, name, OPEN | OFlag::O_DIRECTORY, Mode::empty()).map_err(io_at(path))?;
                return self.directory(fd, path, children);
            }
            (Node::Symlink(target), Kind::Symlink) => {
                let leads_to = readlinkat(parent, name).map_err(io_at(path))?;
                if leads_to.as_bytes() != target.as_bytes() {
                    self.differs(path.to_owned(), Change::Modified);
                }
            }
            (Node::File(content), Kind::File) => {
                let fd = openat(parent, name, OPEN, Mode::empty()).map_err(io_at(path))?;
                if let Some(change) = self.file(File::from(fd), path, content)? {
                    self.differs(path.to_owned(), change);
                }
            }
            _ => self.differs(path.to_owned(), Change::Kind { found }),
        }
        Ok(())
    }

    fn file(&mut self, mut file: File, path: &str, expected: &FileNode) -> Result<Option<Change>> {
        let metadata = file.metadata().map_err(Error::io(path))?;
        // Asked of what is open: the name may have got something else meanwhile.
        let found = kind(metadata.mode());
        if found != Kind::File {
            return Ok(Some(Change::Kind { found }));
        }
        if metadata.len() != expected.size || self.hash(&mut file, path, expected.size)? != Some(expected.sha256) {
            return Ok(Some(Change::Modified));
        }
        let executable = metadata.mode() & 0o111 != 0;
        Ok((executable != expected.executable).then_some(Change::Mode { executable }))
    }

    /// Hashes a file; `None` where it has more than `size` bytes by now.
    fn hash(&mut self, file: &mut File, path: &str, size: u64) -> Result<Option<[u8; 32]>> {
        let mut hash = Sha256::new();
        let mut left = size;
        loop {
            check_cancelled(self.options, path)?;
            let read = match file.read(&mut self.buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(Error::io(path))?,
            };
            if read == 0 {
                return Ok(Some(hash.finalize().into()));
            }
            let Some(rest) = left.checked_sub(read as u64) else { return Ok(None) };
            left = rest;
            hash.update(&self.buffer[..read]);
        }
    }

    /// Notes a change of something that the layer has, whose path is UTF-8 therefore.
    fn differs(&mut self, path: String, change: Change) {
        self.found.push(Difference { os_path: path.clone().into(), path, change });
    }

    fn extra(&mut self, above: &str, name: &[u8]) {
        let os_path = Path::new(above).join(OsStr::from_bytes(name));
        self.found.push(Difference { path: join(above, &show(name)), change: Change::Extra, os_path });
    }
}

fn kind(mode: u32) -> Kind {
    match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFLNK => Kind::Symlink,
        _ => Kind::Special,
    }
}

fn check_cancelled(options: &UnpackOptions<'_>, path: &str) -> Result<()> {
    match options.cancelled {
        Some(cancelled) if cancelled.load(Ordering::Relaxed) => Err(Error::io(path)(io::ErrorKind::Interrupted.into())),
        _ => Ok(()),
    }
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") }
}

fn show(name: &[u8]) -> String {
    std::str::from_utf8(name).map_or_else(|_| name.escape_ascii().to_string(), ToOwned::to_owned)
}

fn io_at(path: &str) -> impl FnOnce(Errno) -> Error + '_ {
    let path = if path.is_empty() { "." } else { path };
    move |error| Error::io(path)(error.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::atomic::AtomicBool;

    use tar::EntryType;
    use tempfile::TempDir;

    use super::*;
    use crate::layer::{Encoding, Expected, unpack};
    use crate::limits::Limits;
    use crate::store::blob::sha256;

    /// An archive with every kind of entry that a layer may have: a hard link with a mode of its own, links that lead
    /// to a file and to a directory, an empty directory and one that only what is in it implies.
    fn archive() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let entries: [(&str, EntryType, u32, &str, &str); 8] = [
            ("SKILL.md", EntryType::Regular, 0o644, "skill", ""),
            ("scripts/hello.sh", EntryType::Regular, 0o755, "#!/bin/sh\n", ""),
            ("scripts/again.sh", EntryType::Link, 0o644, "", "scripts/hello.sh"),
            ("scripts/third.sh", EntryType::Link, 0o644, "", "scripts/again.sh"),
            ("assets/", EntryType::Directory, 0o700, "", ""),
            (".hidden", EntryType::Regular, 0o600, "", ""),
            ("late", EntryType::Symlink, 0o777, "", "scripts/hello.sh"),
            ("dir", EntryType::Symlink, 0o777, "", "scripts"),
        ];
        for (path, kind, mode, content, target) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(content.len() as u64);
            match target {
                "" => tar.append_data(&mut header, path, content.as_bytes()).unwrap(),
                target => tar.append_link(&mut header, path, target).unwrap(),
            }
        }
        tar.into_inner().unwrap()
    }

    fn expected(layer: &[u8]) -> Expected {
        Expected { digest: sha256(layer), size: layer.len() as u64, diff_id: None, encoding: Encoding::Tar }
    }

    /// Returns the layer unpacked as `skill`, and what it is.
    fn unpacked(layer: &[u8]) -> (TempDir, Listing) {
        let dest = tempfile::tempdir().unwrap();
        let options = UnpackOptions::default();
        unpack(layer, &expected(layer), &open(dest.path()), "skill", &options).unwrap();
        (dest, Listing::read(layer, &expected(layer), &options).unwrap().0)
    }

    fn open(path: &Path) -> Dir {
        Dir::open_ambient_dir(path, cap_std::ambient_authority()).unwrap()
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn every_difference_is_found_and_said() {
        type Do = fn(&Path);
        let cases: [(&str, Do, &[&str]); 21] = [
            ("equal", |_| (), &[]),
            ("other permissions", |dir| chmod(&dir.join("SKILL.md"), 0o600), &[]),
            ("content", |dir| fs::write(dir.join("SKILL.md"), "SKILL").unwrap(), &["SKILL.md was changed"]),
            ("size", |dir| fs::write(dir.join(".hidden"), "x").unwrap(), &[".hidden was changed"]),
            ("missing", |dir| fs::remove_file(dir.join("scripts/again.sh")).unwrap(), &["scripts/again.sh is missing"]),
            ("missing, empty", |dir| fs::remove_dir(dir.join("assets")).unwrap(), &["assets is missing"]),
            (
                "missing, with what is in it",
                |dir| fs::remove_dir_all(dir.join("scripts")).unwrap(),
                &["scripts is missing"],
            ),
            ("extra", |dir| fs::write(dir.join("TODO"), "").unwrap(), &["TODO is not of the image"]),
            ("dotfile", |dir| fs::write(dir.join("assets/.x"), "").unwrap(), &["assets/.x is not of the image"]),
            ("empty directory", |dir| fs::create_dir(dir.join("x")).unwrap(), &["x is not of the image"]),
            ("work tree", |dir| fs::create_dir_all(dir.join(".git/objects")).unwrap(), &[".git is not of the image"]),
            (
                "not UTF-8",
                |dir| fs::write(dir.join(OsStr::from_bytes(b"\xff")), "").unwrap(),
                &["\\xff is not of the image"],
            ),
            ("made executable", |dir| chmod(&dir.join("SKILL.md"), 0o744), &["SKILL.md was made executable"]),
            (
                "not executable, by all of its names",
                |dir| chmod(&dir.join("scripts/hello.sh"), 0o644),
                &[
                    "scripts/again.sh is no longer executable",
                    "scripts/hello.sh is no longer executable",
                    "scripts/third.sh is no longer executable",
                ],
            ),
            (
                "a link to the same content",
                |dir| {
                    fs::rename(dir.join("SKILL.md"), dir.join("../real")).unwrap();
                    symlink("../real", dir.join("SKILL.md")).unwrap();
                },
                &["SKILL.md is a symbolic link now"],
            ),
            (
                "a link to the same directory",
                |dir| {
                    fs::rename(dir.join("assets"), dir.join("../assets")).unwrap();
                    symlink("../assets", dir.join("assets")).unwrap();
                },
                &["assets is a symbolic link now"],
            ),
            (
                "a link that leads elsewhere",
                |dir| {
                    fs::remove_file(dir.join("late")).unwrap();
                    symlink("SKILL.md", dir.join("late")).unwrap();
                },
                &["late was changed"],
            ),
            (
                "what the link leads to",
                |dir| {
                    fs::remove_file(dir.join("dir")).unwrap();
                    fs::create_dir(dir.join("dir")).unwrap();
                },
                &["dir is a directory now"],
            ),
            (
                "a file for a directory",
                |dir| {
                    fs::remove_dir(dir.join("assets")).unwrap();
                    fs::write(dir.join("assets"), "").unwrap();
                },
                &["assets is a file now"],
            ),
            (
                "a FIFO, which nobody waits for",
                |dir| {
                    fs::remove_file(dir.join("SKILL.md")).unwrap();
                    nix::unistd::mkfifo(&dir.join("SKILL.md"), Mode::S_IRWXU).unwrap();
                },
                &["SKILL.md is a special file now"],
            ),
            (
                "several",
                |dir| {
                    fs::write(dir.join("SKILL.md"), "").unwrap();
                    fs::remove_file(dir.join(".hidden")).unwrap();
                    fs::write(dir.join("TODO"), "").unwrap();
                },
                &[".hidden is missing", "SKILL.md was changed", "TODO is not of the image"],
            ),
        ];
        let layer = archive();
        for (what, change, want) in cases {
            let (dest, listing) = unpacked(&layer);
            let skill = dest.path().join("skill");
            change(&skill);
            let found = differences(&listing, &open(&skill), &UnpackOptions::default()).unwrap();
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), want, "{what}");
        }
    }

    #[test]
    fn differences_are_data() {
        let cases = [
            (Change::Extra, r#"{"path":"x","change":"extra"}"#),
            (Change::Mode { executable: true }, r#"{"path":"x","change":"mode","executable":true}"#),
            (Change::Kind { found: Kind::Symlink }, r#"{"path":"x","change":"kind","found":"symlink"}"#),
        ];
        for (change, want) in cases {
            assert_eq!(
                serde_json::to_string(&Difference { path: "x".into(), change, os_path: "x".into() }).unwrap(),
                want
            );
        }
    }

    #[test]
    fn a_damaged_layer_lists_nothing() {
        let layer = archive();
        let other = Expected { digest: sha256(b""), ..expected(&layer) };
        let error = Listing::read(&layer[..], &other, &UnpackOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }

    #[test]
    fn the_walk_is_bounded_and_can_be_ended() {
        let (dest, listing) = unpacked(&archive());
        let skill = dest.path().join("skill");
        for number in 0..10 {
            fs::write(skill.join(number.to_string()), "").unwrap();
        }
        let limits = |entries| Limits { entries, ..Limits::default() };
        let differences = |options: UnpackOptions<'_>| differences(&listing, &open(&skill), &options);
        let found = differences(UnpackOptions { limits: limits(19), ..UnpackOptions::default() });
        assert_eq!(found.unwrap().len(), 10);
        let error = differences(UnpackOptions { limits: limits(18), ..UnpackOptions::default() }).unwrap_err();
        assert_eq!(error.to_string(), "the number of entries exceeds the limit of 18");
        let cancelled = AtomicBool::new(true);
        let error = differences(UnpackOptions { cancelled: Some(&cancelled), ..UnpackOptions::default() });
        let error = error.unwrap_err();
        assert!(matches!(&error, Error::Io { cause, .. } if cause.kind() == io::ErrorKind::Interrupted), "{error}");
    }
}
