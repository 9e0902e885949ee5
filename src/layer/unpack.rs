//! From a layer to a directory: verified, contained, and published in one step.
//!
//! ```text
//! dest/.<name>.<random>/   mode 0700 while it is filled
//! dest/<name>/             appears, or is exchanged, by one rename after all digests were right
//! ```
//!
//! A crash leaves `dest/<name>` as it was, or complete, and at worst one hidden sibling. Nothing in the tree is opened
//! through a link: symbolic links are made last, and then have to lead to something inside.

use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use cap_std::fs::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{fsync, linkat, symlinkat, syncfs};
use sha2::{Digest as _, Sha256};

use super::archive::{Archive, Content, Entry, Kind};
use super::bounds::Tally;
use super::listing::Listing;
use super::names::refused;
use super::stream::{Encoding, Expected, with_archive, with_stream};
use crate::error::{Error, Result};
use crate::limits::Limits;

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const NEW_FILE: OFlag =
    OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_EXCL).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Longest part of the name in a sibling's name, so that the whole stays under the 255 bytes of `NAME_MAX`.
const SIBLING_NAME: usize = 200;

/// How a layer is read.
#[derive(Clone, Copy, Default)]
pub struct UnpackOptions<'a> {
    /// Bounds on what comes out.
    pub limits: Limits,
    /// Whether what exists by that name is replaced; else it is an error.
    pub replace: bool,
    /// Whether all is on disk before it is published.
    pub durable: bool,
    /// Whether paths that differ only by case are refused.
    pub fold_case: bool,
    /// Called with the number of content bytes written so far, on the caller's thread.
    pub progress: Option<&'a dyn Fn(u64)>,
    /// Ends the work with an error of the kind `Interrupted` when it becomes true.
    pub cancelled: Option<&'a AtomicBool>,
}

impl std::fmt::Debug for UnpackOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnpackOptions")
            .field("limits", &self.limits)
            .field("replace", &self.replace)
            .field("durable", &self.durable)
            .field("fold_case", &self.fold_case)
            .finish_non_exhaustive()
    }
}

/// A layer that was unpacked, or read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the archive, `sha256:…`.
    pub diff_id: String,
    /// Number of entries, without the root.
    pub entries: u64,
    /// Number of files.
    pub files: u64,
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Name of what was replaced, in the same directory, where it could not be removed.
    pub leftover: Option<String>,
}

/// Unpacks `layer` as the directory `name` of `dest`.
///
/// # Errors
///
/// [`Error::Damaged`] where the layer is not the expected one, [`Error::RefusedEntry`] and [`Error::LimitExceeded`] for
/// what is not unpacked, [`Error::Unavailable`] where `name` exists and is not to be replaced, and [`Error::Io`]. `dest` is
/// then as it was.
pub fn unpack<R: Read + Send>(
    layer: R,
    expected: &Expected,
    dest: &Dir,
    name: &str,
    options: &UnpackOptions<'_>,
) -> Result<Unpacked> {
    Ok(unpack_as(layer, expected, dest, name, options, None)?.0)
}

/// The same, and returns what is in the directory then.
///
/// # Errors
///
/// As [`unpack`].
pub fn unpack_listed<R: Read + Send>(
    layer: R,
    expected: &Expected,
    dest: &Dir,
    name: &str,
    options: &UnpackOptions<'_>,
) -> Result<(Unpacked, Listing)> {
    let (unpacked, listing) = unpack_as(layer, expected, dest, name, options, Some(Listing::default()))?;
    Ok((unpacked, listing.unwrap_or_default()))
}

fn unpack_as<R: Read + Send>(
    layer: R,
    expected: &Expected,
    dest: &Dir,
    name: &str,
    options: &UnpackOptions<'_>,
    listing: Option<Listing>,
) -> Result<(Unpacked, Option<Listing>)> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(refused(name.as_bytes(), "is not the name of a directory"));
    }
    let sibling = Sibling::create(dest, name)?;
    let mut tree = Tree::new(dest, &sibling.name, options, listing)?;
    let mut unpacked = read(layer, expected, options, &mut |entry, content| tree.add(entry, content))?;
    tree.finish()?;
    if options.durable {
        syncfs(&tree.root).map_err(io_at(name))?;
    }
    unpacked.leftover = publish(dest, sibling, name, options.replace)?;
    if options.durable {
        let parent = openat(dest.as_fd(), ".", DIRECTORY, Mode::empty()).map_err(io_at(name))?;
        fsync(parent).map_err(io_at(name))?;
    }
    Ok((unpacked, tree.listing))
}

/// Passes every entry of `layer` to `visit`, a directory before what is in it.
///
/// Entries were checked for harm, but **the layer is verified only when this returns**: what `visit` got must not be
/// believed before.
///
/// # Errors
///
/// As [`unpack`], and whatever `visit` returns.
pub fn read<R: Read + Send>(
    layer: R,
    expected: &Expected,
    options: &UnpackOptions<'_>,
    visit: &mut dyn FnMut(&Entry, &mut Content<'_, '_>) -> Result<()>,
) -> Result<Unpacked> {
    let archive = Archive::new(&options.limits, options.fold_case);
    let (tally, diff_id) = with_stream(layer, (expected, true), &options.limits, |stream| archive.run(stream, visit))?;
    let Tally { entries, files, bytes, .. } = tally;
    Ok(Unpacked { diff_id: diff_id.unwrap_or_default(), entries, files, bytes, leftover: None })
}

/// Passes every entry of an archive of unknown origin to `visit`, a directory before what is in it; `name` is for messages.
///
/// # Errors
///
/// As [`read`], where nothing is expected of the archive as a whole.
pub fn read_archive<R: Read>(
    archive: R,
    (name, encoding): (&str, Encoding),
    limits: &Limits,
    visit: &mut dyn FnMut(&Entry, &mut Content<'_, '_>) -> Result<()>,
) -> Result<()> {
    with_archive(archive, (name, encoding), limits, |stream| Archive::new(limits, true).run(stream, visit)).map(drop)
}

/// A hidden directory beside the one that is to be published; removed with all that is in it unless that happens.
struct Sibling<'a> {
    dest: &'a Dir,
    name: String,
    keep: bool,
}

impl<'a> Sibling<'a> {
    fn create(dest: &'a Dir, name: &str) -> Result<Self> {
        let mut end = name.len().min(SIBLING_NAME);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        loop {
            // The standard library's keys are the only randomness at hand that needs no further crate.
            let random = RandomState::new().build_hasher().finish();
            let sibling = format!(".{}.{random:016x}", &name[..end]);
            match mkdirat(dest.as_fd(), sibling.as_str(), Mode::S_IRWXU) {
                Ok(()) => {
                    return Ok(Self { dest, name: sibling, keep: false });
                }
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(io_at(name)(error)),
            }
        }
    }
}

impl Drop for Sibling<'_> {
    fn drop(&mut self) {
        if !self.keep {
            // There is an error to report already, and what stays is hidden and closed to others.
            let _ = remove(self.dest, &self.name);
        }
    }
}

/// A directory tree that is being written.
struct Tree<'a> {
    root: OwnedFd,
    dir: Dir,
    /// The directories above the last entry, below the root, by name.
    open: Vec<(String, OwnedFd)>,
    links: Vec<(String, String)>,
    written: u64,
    options: &'a UnpackOptions<'a>,
    /// What is in it, where somebody wants to know.
    listing: Option<Listing>,
}

impl<'a> Tree<'a> {
    fn new(dest: &Dir, name: &str, options: &'a UnpackOptions<'a>, listing: Option<Listing>) -> Result<Self> {
        let root = openat(dest.as_fd(), name, DIRECTORY, Mode::empty()).map_err(io_at(name))?;
        let dir = Dir::from_std_file(File::from(root.try_clone().map_err(Error::io(name))?));
        Ok(Self { root, dir, open: Vec::new(), links: Vec::new(), written: 0, options, listing })
    }

    fn add(&mut self, entry: &Entry, content: &mut Content<'_, '_>) -> Result<()> {
        let mut sha256 = self.listing.is_some().then(Sha256::new);
        self.write(entry, content, sha256.as_mut())?;
        match (&mut self.listing, sha256) {
            (Some(listing), Some(sha256)) => listing.add(entry, sha256.finalize().into()),
            _ => Ok(()),
        }
    }

    fn write(&mut self, entry: &Entry, content: &mut Content<'_, '_>, sha256: Option<&mut Sha256>) -> Result<()> {
        let path = entry.path.as_str();
        match &entry.kind {
            Kind::Directory => {
                let (parent, name) = self.parent(path)?;
                mkdirat(parent, name, Mode::S_IRWXU).map_err(io_at(path))?;
                let fd = openat(parent, name, DIRECTORY, Mode::empty()).map_err(io_at(path))?;
                // Explicitly, since the process's umask applies when something is made.
                fchmod(&fd, mode(true)).map_err(io_at(path))?;
                self.open.push((name.to_owned(), fd));
                Ok(())
            }
            Kind::File => self.file((path, entry.executable), content, sha256),
            Kind::Link(target) => {
                let (parent, old) = self.parent(target)?;
                let from = parent.try_clone_to_owned().map_err(Error::io(path))?;
                let (parent, new) = self.parent(path)?;
                linkat(from, old, parent, new, AtFlags::empty()).map_err(io_at(path))
            }
            Kind::Symlink(target) => {
                if target.is_empty() || target.starts_with('/') || target.contains('\0') {
                    return Err(leaves(path, target));
                }
                self.links.push((path.to_owned(), target.clone()));
                Ok(())
            }
        }
    }

    fn file(
        &mut self,
        (path, executable): (&str, bool),
        content: &mut Content<'_, '_>,
        mut sha256: Option<&mut Sha256>,
    ) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        let fd = openat(parent, name, NEW_FILE, Mode::S_IRUSR | Mode::S_IWUSR).map_err(io_at(path))?;
        let mut file = File::from(fd);
        content.for_each(|bytes| {
            if self.options.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
                return Err(Error::io(path)(io::ErrorKind::Interrupted.into()));
            }
            file.write_all(bytes).map_err(Error::io(path))?;
            if let Some(sha256) = sha256.as_deref_mut() {
                sha256.update(bytes);
            }
            self.written += bytes.len() as u64;
            if let Some(progress) = self.options.progress {
                progress(self.written);
            }
            Ok(())
        })?;
        fchmod(&file, mode(executable)).map_err(io_at(path))
    }

    /// Returns the directory that `path` is in, and its name there.
    fn parent<'p>(&mut self, path: &'p str) -> Result<(std::os::fd::BorrowedFd<'_>, &'p str)> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut parts = above.split('/').filter(|part| !part.is_empty()).peekable();
        let mut depth = 0;
        while let Some((open, _)) = self.open.get(depth)
            && parts.next_if_eq(&open.as_str()).is_some()
        {
            depth += 1;
        }
        self.open.truncate(depth);
        for part in parts {
            let parent = self.open.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
            let fd = openat(parent, part, DIRECTORY, Mode::empty()).map_err(io_at(path))?;
            self.open.push((part.to_owned(), fd));
        }
        Ok((self.open.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()), name))
    }

    /// Makes the symbolic links, sees where they lead, and opens the tree to others.
    fn finish(&mut self) -> Result<()> {
        let links = std::mem::take(&mut self.links);
        for (path, target) in &links {
            let (parent, name) = self.parent(path)?;
            symlinkat(target.as_str(), parent, name).map_err(io_at(path))?;
        }
        self.open.clear();
        for (path, target) in &links {
            // Resolved beneath the tree by the kernel, through all other links, as a reader would.
            if self.dir.metadata(path).is_err() {
                return Err(leaves(path, target));
            }
        }
        fchmod(&self.root, mode(true)).map_err(io_at("."))
    }
}

fn mode(executable: bool) -> Mode {
    Mode::from_bits_truncate(if executable { 0o755 } else { 0o644 })
}

fn leaves(path: &str, target: &str) -> Error {
    refused(format!("{path} -> {target}").as_bytes(), "leads to nothing in the skill")
}

/// Puts the sibling in its place; returns the name of what it replaced if that could not be removed.
fn publish(dest: &Dir, mut sibling: Sibling<'_>, name: &str, replace: bool) -> Result<Option<String>> {
    let fd = dest.as_fd();
    let rename = |flags| renameat2(fd, sibling.name.as_str(), fd, name, flags);
    match rename(RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => {
            sibling.keep = true;
            return Ok(None);
        }
        Err(Errno::EEXIST) => {}
        // Not every file system knows the flags.
        Err(Errno::EINVAL | Errno::ENOSYS) if dest.symlink_metadata(name).is_err() => {
            renameat(fd, sibling.name.as_str(), fd, name).map_err(io_at(name))?;
            sibling.keep = true;
            return Ok(None);
        }
        Err(Errno::EINVAL | Errno::ENOSYS) => {}
        Err(error) => return Err(io_at(name)(error)),
    }
    if !replace {
        return Err(Error::Unavailable { reason: format!("{name} exists already"), hint: None });
    }
    let old = match rename(RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => sibling.name.clone(),
        Err(Errno::EINVAL | Errno::ENOSYS) => replace_in_two_steps(dest, &sibling.name, name)?,
        Err(error) => return Err(io_at(name)(error)),
    };
    sibling.keep = true;
    // The new one is in place, so this is no failure; the caller says what is left.
    Ok(remove(dest, &old).is_err().then_some(old))
}

/// Replaces `name` where nothing can be exchanged; returns where the old one is.
fn replace_in_two_steps(dest: &Dir, new: &str, name: &str) -> Result<String> {
    let fd = dest.as_fd();
    let old = format!("{new}.old");
    renameat(fd, name, fd, old.as_str()).map_err(io_at(name))?;
    if let Err(error) = renameat(fd, new, fd, name) {
        renameat(fd, old.as_str(), fd, name).map_err(io_at(&old))?;
        return Err(io_at(name)(error));
    }
    Ok(old)
}

/// Removes whatever is at `name`, following nothing.
fn remove(dest: &Dir, name: &str) -> io::Result<()> {
    if dest.symlink_metadata(name)?.is_dir() { dest.remove_dir_all(name) } else { dest.remove_file(name) }
}

fn io_at(path: &str) -> impl FnOnce(nix::Error) -> Error + '_ {
    move |error| Error::io(path)(error.into())
}
