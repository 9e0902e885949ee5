//! Walks a skill's directory in the order of its layer, relative to descriptors.
//!
//! Entries are opened by their name in their open directory, never by a path, and never through a link, so that nothing
//! that happens to the tree meanwhile leads out of it. Links are resolved by the kernel, beneath the skill.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::sync::atomic::{AtomicBool, Ordering};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use super::bounds::{Tally, check_path};
use super::exclude::{Rules, Verdict, in_version_control, is_private_key};
use crate::error::{Error, Result};

/// Bytes at the beginning of a file in which a private key would show.
pub(super) const KEY_START: usize = 4096;

/// Flags with which anything can be opened without waiting for it and without following it.
const OPEN: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Receives what a walk finds, in order.
pub(super) trait Visit {
    /// Takes the directory at `path`.
    fn directory(&mut self, path: &str) -> Result<()>;
    /// Takes the regular file at `path`.
    fn file(&mut self, path: &str, file: &File, metadata: &Metadata) -> Result<()>;
    /// Takes a file of `size` bytes that was read from an archive before.
    fn stored(&mut self, path: &str, content: (&mut dyn Read, u64), executable: bool) -> Result<()>;
    /// Takes a file that exists only in memory.
    fn generated(&mut self, path: &str, content: &[u8]) -> Result<()>;
}

/// One walk over a skill.
pub(super) struct Walk<'a> {
    /// The skill.
    pub(super) root: &'a Dir,
    /// What is left out.
    pub(super) rules: Rules,
    /// Generated files of the root directory.
    pub(super) extra: &'a [(String, Vec<u8>)],
    /// What was found so far.
    pub(super) tally: Tally,
    /// Ends the walk when it becomes true.
    pub(super) cancelled: Option<&'a AtomicBool>,
    /// Where the entries go.
    pub(super) visitor: &'a mut dyn Visit,
    /// Entries left out so far.
    pub(super) left_out: u64,
    /// Device and inode of the directories that are open, the root first.
    pub(super) open: Vec<(u64, u64)>,
}

/// Where the walk is: a directory by its name in the layer, and by its true place where a link led there.
struct Place<'a> {
    path: &'a str,
    real: &'a str,
}

/// What a directory lists.
enum Listed {
    Entry(Option<nix::dir::Type>),
    Generated(usize),
}

impl Walk<'_> {
    /// Walks everything below the root.
    pub(super) fn run(&mut self) -> Result<()> {
        let root = openat(self.root.as_fd(), ".", OPEN | OFlag::O_DIRECTORY, Mode::empty()).map_err(io_at("."))?;
        self.directory(root, &Place { path: "", real: "" })
    }

    fn directory(&mut self, fd: OwnedFd, place: &Place<'_>) -> Result<()> {
        let directory = File::from(fd);
        let metadata = directory.metadata().map_err(Error::io(shown(place.path)))?;
        let identity = (metadata.dev(), metadata.ino());
        if self.open.contains(&identity) {
            return Err(refused(place.path, "is a link to a directory that it is in", None));
        }
        self.open.push(identity);
        let mut directory = nix::dir::Dir::from_fd(directory.into()).map_err(io_at(place.path))?;
        for (name, listed) in self.list(&mut directory, place.path)? {
            let path = join(place.path, &name);
            let real = join(place.real, &name);
            match listed {
                Listed::Generated(index) => {
                    check_name(&path)?;
                    self.tally.entry()?;
                    self.tally.content(self.extra[index].1.len() as u64)?;
                    self.visitor.generated(&path, &self.extra[index].1)?;
                }
                Listed::Entry(kind) => self.entry(&directory, &name, kind, &Place { path: &path, real: &real })?,
            }
        }
        self.open.pop();
        Ok(())
    }

    /// Returns the names in a directory in byte order.
    fn list(&self, directory: &mut nix::dir::Dir, path: &str) -> Result<Vec<(String, Listed)>> {
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry.map_err(io_at(path))?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => match std::str::from_utf8(name) {
                    Ok(name) => names.push((name.to_owned(), Listed::Entry(entry.file_type()))),
                    Err(_) => {
                        let name = join(path, &name.escape_ascii().to_string());
                        let hint = "rename it, or remove it from the skill";
                        return Err(refused(&name, "has a name that is not UTF-8", Some(hint)));
                    }
                },
            }
        }
        if path.is_empty() {
            names.extend(self.extra.iter().enumerate().map(|(at, (name, _))| (name.clone(), Listed::Generated(at))));
        }
        names.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        match names.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(refused(&pair[0].0, "is in the skill, and would be generated as well", None)),
            None => Ok(names),
        }
    }

    fn entry(
        &mut self,
        parent: &nix::dir::Dir,
        name: &str,
        kind: Option<nix::dir::Type>,
        at: &Place<'_>,
    ) -> Result<()> {
        use nix::dir::Type;
        if self.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
            return Err(Error::io(at.path)(io::ErrorKind::Interrupted.into()));
        }
        // The kind that the directory lists is a hint that saves a system call; what is opened decides.
        let kind = match kind {
            Some(kind) => kind,
            None => lstat_kind(parent, name).map_err(io_at(at.path))?,
        };
        if kind == Type::Symlink {
            return self.link(parent, name, at);
        }
        let is_dir = kind == Type::Directory;
        let mut verdict = self.rules.judge(at.path, at.real, is_dir)?;
        if at.path != at.real && self.rules.leaves_out_target(at.path, at.real, is_dir) {
            verdict = Verdict::LeaveOut;
        }
        if !self.packs(verdict, at)? {
            return Ok(());
        }
        Self::check_kind(kind, at.path)?;
        let fd = openat(parent, name, OPEN, Mode::empty()).map_err(io_at(at.path))?;
        self.opened(fd, verdict, at)
    }

    /// Follows a link whose target is in the skill.
    fn link(&mut self, parent: &nix::dir::Dir, name: &str, at: &Place<'_>) -> Result<()> {
        // Before looking where it leads: nobody cares where a link leads that is left out.
        if self.rules.judge(at.path, at.path, false)? == Verdict::LeaveOut {
            self.left_out += 1;
            return Ok(());
        }
        let target = readlinkat(parent, name).map_err(io_at(at.path))?;
        let both = format!("{} -> {}", at.path, target.display());
        let metadata = self.root.metadata(at.path).map_err(|error| bad_link(&both, error))?;
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(refused(&both, "leads to neither a file nor a directory", None));
        }
        let real = self.root.canonicalize(at.path).map_err(|error| bad_link(&both, error))?;
        let Some(real) = real.to_str() else {
            return Err(refused(&both, "leads to a name that is not UTF-8", None));
        };
        let real = if real == "." { "" } else { real };
        if in_version_control(real) {
            return Err(refused(&both, "leads into version control, which is not packed", Some(COPY_HINT)));
        }
        let mut verdict = Verdict::Pack;
        for content in [at.path, real] {
            match self.rules.judge(at.path, content, metadata.is_dir())? {
                Verdict::Pack => {}
                Verdict::PackUnlessKey => verdict = Verdict::PackUnlessKey,
                Verdict::Credential(what) => return Err(credential(&both, at.path, what)),
                Verdict::LeaveOut => {
                    self.left_out += 1;
                    return Ok(());
                }
            }
        }
        if self.rules.leaves_out_target(at.path, real, metadata.is_dir()) {
            let hint = format!("remove the link, or pass --include {}", at.path);
            return Err(refused(&both, "leads to what .skillignore leaves out", Some(&hint)));
        }
        let mut options = OpenOptions::new();
        options.read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
        let file = self.root.open_with(at.path, &options).map_err(|error| bad_link(&both, error))?;
        self.opened(file.into_std().into(), verdict, &Place { path: at.path, real })
    }

    /// Passes on what was opened, once it is certain what it is.
    fn opened(&mut self, fd: OwnedFd, verdict: Verdict, at: &Place<'_>) -> Result<()> {
        check_name(at.path)?;
        let file = File::from(fd);
        let metadata = file.metadata().map_err(Error::io(at.path))?;
        if metadata.is_dir() {
            self.tally.entry()?;
            // One more than its parent; the root itself counts as nothing.
            self.tally.depth(at.path, self.open.len())?;
            self.visitor.directory(at.path)?;
            return self.directory(file.into(), at);
        }
        if !metadata.is_file() {
            return Err(special(at.path, &metadata));
        }
        if verdict == Verdict::PackUnlessKey {
            let mut start = [0; KEY_START];
            let len = file.read_at(&mut start, 0).map_err(Error::io(at.path))?;
            if is_private_key(&start[..len]) {
                return Err(credential(at.path, at.path, "a private key"));
            }
        }
        self.tally.entry()?;
        self.tally.content(metadata.len())?;
        self.visitor.file(at.path, &file, &metadata)
    }

    fn packs(&mut self, verdict: Verdict, at: &Place<'_>) -> Result<bool> {
        match verdict {
            Verdict::Pack | Verdict::PackUnlessKey => Ok(true),
            Verdict::LeaveOut => {
                self.left_out += 1;
                Ok(false)
            }
            Verdict::Credential(what) => Err(credential(at.path, at.path, what)),
        }
    }

    /// Refuses what must not even be opened: opening a tape rewinds it.
    fn check_kind(kind: nix::dir::Type, path: &str) -> Result<()> {
        use nix::dir::Type;
        let what = match kind {
            Type::Directory | Type::File | Type::Symlink => return Ok(()),
            Type::Fifo => "is a FIFO",
            Type::Socket => "is a socket",
            Type::BlockDevice | Type::CharacterDevice => "is a device",
        };
        Err(refused(path, what, Some(SPECIAL_HINT)))
    }
}

/// Refuses names that others could not open, or would understand as something else.
pub(super) fn check_name(path: &str) -> Result<()> {
    let name = path.rsplit('/').next().unwrap_or(path);
    if name.starts_with(".wh.") {
        let reason = "has a name that deletes another file when the image is mounted";
        return Err(refused(path, reason, Some(SPECIAL_HINT)));
    }
    check_path(path)
}

pub(super) const SPECIAL_HINT: &str = "remove it, or list it in .skillignore";
pub(super) const COPY_HINT: &str = "copy the file into the skill, or list it in .skillignore";

/// Returns an error about `entry`.
pub(super) fn refused(entry: &str, reason: &str, hint: Option<&str>) -> Error {
    Error::RefusedEntry { entry: shown(entry).into(), reason: reason.into(), hint: hint.map(Into::into) }
}

pub(super) fn credential(entry: &str, path: &str, what: &str) -> Error {
    let hint = format!("list it in .skillignore, or pass --include {path}");
    refused(entry, &format!("is {what}"), Some(&hint))
}

fn special(path: &str, metadata: &Metadata) -> Error {
    let kind = metadata.file_type();
    let what = if kind.is_fifo() {
        "is a FIFO"
    } else if kind.is_socket() {
        "is a socket"
    } else {
        "is a device"
    };
    refused(path, what, Some(SPECIAL_HINT))
}

fn bad_link(both: &str, error: io::Error) -> Error {
    // Escapes are found by cap-std or by the kernel, which then says EXDEV.
    let escapes = error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none();
    match error.raw_os_error() {
        _ if escapes => refused(both, "leaves the skill", Some(COPY_HINT)),
        Some(nix::libc::EXDEV) => refused(both, "leaves the skill", Some(COPY_HINT)),
        Some(nix::libc::ENOENT | nix::libc::ENOTDIR) => refused(both, "leads nowhere", Some(SPECIAL_HINT)),
        Some(nix::libc::ELOOP) => refused(both, "leads in a circle", Some(SPECIAL_HINT)),
        _ => Error::io(both)(error),
    }
}

fn lstat_kind(parent: &nix::dir::Dir, name: &str) -> nix::Result<nix::dir::Type> {
    use nix::dir::Type;
    use nix::sys::stat::SFlag;
    let stat = nix::sys::stat::fstatat(parent, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let format = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    Ok(match format {
        SFlag::S_IFDIR => Type::Directory,
        SFlag::S_IFREG => Type::File,
        SFlag::S_IFLNK => Type::Symlink,
        SFlag::S_IFIFO => Type::Fifo,
        SFlag::S_IFSOCK => Type::Socket,
        SFlag::S_IFBLK => Type::BlockDevice,
        _ => Type::CharacterDevice,
    })
}

pub(super) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

/// Returns a function for `map_err` that names `path`.
pub(super) fn io_at(path: &str) -> impl FnOnce(nix::Error) -> Error + '_ {
    move |error| Error::io(shown(path))(error.into())
}
