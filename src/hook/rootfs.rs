//! The root file system of a container, or a directory that is mounted in it: whatever it holds, nothing outside is touched.
//!
//! Paths are resolved by the kernel as if the container were in there already (`openat2(2)`, `RESOLVE_IN_ROOT` and
//! `RESOLVE_NO_MAGICLINKS`), and what is made is made beside a descriptor that came from that. No path is ever joined to
//! the root's own.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use cap_std::fs::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat, openat2, readlink, renameat2};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};

use super::spec::User;
use crate::error::{Error, Result};

/// Largest passwd that is read, in bytes; that of a host with 10,000 users has one megabyte.
const MAX_PASSWD: u64 = 4 << 20;
/// How often a resolution is tried that a rename elsewhere made the kernel give up.
const RETRIES: u32 = 16;

/// proc, sysfs, cgroup, cgroup2 and devpts (linux/magic.h).
const KERNELS: [FsType; 5] =
    [PROC_SUPER_MAGIC, FsType(0x6265_6572), CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType(0x1cd1)];

/// A directory tree that somebody else has filled.
#[derive(Debug)]
pub struct Rootfs {
    root: OwnedFd,
    resolve: ResolveFlag,
}

impl Rootfs {
    /// Returns the tree at `dir`.
    pub fn new(dir: Dir) -> Self {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        Self { root: dir.into_std_file().into(), resolve }
    }

    /// The same, in which no link is followed at all: what is in there belongs to whoever filled it, and not to the image.
    pub fn without_links(self) -> Self {
        Self { resolve: self.resolve | ResolveFlag::RESOLVE_NO_SYMLINKS, ..self }
    }

    fn open(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(self.resolve);
        let mut left = RETRIES;
        loop {
            match openat2(self.root.as_fd(), path, how) {
                Err(Errno::EAGAIN) if left > 0 => left -= 1,
                result => return result,
            }
        }
    }

    /// Returns what a path means when all links on its way are followed; what is not there yet stays as it is.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if something on the way is no directory.
    pub fn resolve(&self, path: &str) -> Result<String> {
        let mut found = None;
        let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).chain([path.len()]);
        for end in ends {
            match self.open(&path[..end], OFlag::O_PATH) {
                Ok(fd) => found = Some((fd, &path[end..])),
                Err(Errno::ENOENT) if self.open(&path[..end], OFlag::O_PATH | OFlag::O_NOFOLLOW).is_ok() => {
                    return Err(refused(path, &path[..end], "is a link that leads to nothing"));
                }
                Err(Errno::ENOENT) => break,
                Err(errno) => return Err(failed(path, &path[..end], errno)),
            }
        }
        let Some((fd, rest)) = found else { return Ok(path.to_owned()) };
        Ok(format!("{}{rest}", self.real(&fd)?.trim_end_matches('/')))
    }

    /// Returns the path of what was opened, below the root.
    fn real(&self, fd: &OwnedFd) -> Result<String> {
        let path = |fd: &OwnedFd| readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str());
        let both = path(&self.root).and_then(|root| Ok((root, path(fd)?)));
        let (root, path) = both.map_err(|errno| Error::io("/proc/self/fd")(errno.into()))?;
        let below = Path::new(&path).strip_prefix(&root).ok().and_then(Path::to_str).map(|below| format!("/{below}"));
        below.ok_or_else(|| Error::Unavailable {
            reason: format!("{} is not in the container", path.display()),
            hint: None,
        })
    }

    /// Makes the directories of `path` that are missing, as the user, and the last one as well; looks at what is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if something on the way is no directory, or the last is one by way of a link only.
    pub fn make_directories(&self, path: &str, user: User) -> Result<()> {
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let mut parent = self.open("/", directory).map_err(|errno| failed(path, "/", errno))?;
        let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).chain([path.len()]);
        for end in ends {
            let part = &path[..end];
            parent = match self.open(part, directory) {
                Ok(found) => found,
                Err(Errno::ENOENT) => {
                    let name = part.rsplit('/').next().unwrap_or_default();
                    make(&parent, name, user).map_err(|errno| match errno {
                        Errno::EEXIST => refused(path, part, "is a link that leads to nothing"),
                        errno => failed(path, part, errno),
                    })?
                }
                Err(errno) => return Err(failed(path, part, errno)),
            };
        }
        let last = self.open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW).and_then(fstat);
        match last.map_err(|errno| failed(path, path, errno))?.st_mode & SFlag::S_IFMT.bits() {
            kind if kind == SFlag::S_IFDIR.bits() => Ok(()),
            _ => Err(refused(path, path, "is a link")),
        }
    }

    /// Refuses a place in a file system of the kernel's own, in which directories mean something.
    ///
    /// # Errors
    /// [`Error::Unavailable`] that names the path.
    pub fn check_kind(&self, path: &str) -> Result<()> {
        let ends = path.match_indices('/').map(|(at, _)| at.max(1)).chain([path.len()]);
        let deepest = ends.map_while(|end| self.open(&path[..end], OFlag::O_PATH | OFlag::O_DIRECTORY).ok()).last();
        let kind = deepest.and_then(|fd| fstatfs(fd).ok()).map(|found| found.filesystem_type());
        match kind.is_some_and(|kind| KERNELS.contains(&kind)) {
            true => Err(refused(path, path, "is in a file system of the kernel")),
            false => Ok(()),
        }
    }

    /// Returns whether a user may make something where the first part of a path is missing.
    pub fn lets_write(&self, path: &str, user: User) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at.max(1)).chain([path.len()]);
        let deepest = ends.map_while(|end| self.open(&path[..end], OFlag::O_PATH | OFlag::O_DIRECTORY).ok()).last();
        let Some(Ok(stat)) = deepest.map(fstat) else { return false };
        let bits = match () {
            () if stat.st_uid == user.uid => stat.st_mode >> 6,
            () if stat.st_gid == user.gid => stat.st_mode >> 3,
            () => stat.st_mode,
        };
        bits & 0o3 == 0o3
    }

    /// Opens a directory that is there.
    ///
    /// # Errors
    /// If it is not.
    pub fn directory(&self, path: &str) -> Result<OwnedFd> {
        let opened = self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY);
        opened.map_err(|errno| Error::io(format!("{path} in the container"))(errno.into()))
    }

    /// Opens a directory, to make something in it.
    ///
    /// # Errors
    /// If it is not there.
    pub fn dir(&self, path: &str) -> Result<Dir> {
        let opened = self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY);
        let opened = opened.map_err(|errno| Error::io(format!("{path} in the container"))(errno.into()))?;
        Ok(Dir::from_std_file(opened.into()))
    }

    /// Returns the text of `/etc/passwd`; `None` where there is none, it is too large, or is something else than a file.
    pub fn passwd(&self) -> Option<String> {
        // Looked at before it is opened: opening a device can do something.
        let place = self.open("/etc/passwd", OFlag::O_PATH).ok()?;
        let stat = fstat(&place).ok()?;
        if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() || stat.st_size > MAX_PASSWD as i64 {
            return None;
        }
        let file = std::fs::File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_PASSWD).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn refused(path: &str, part: &str, what: &str) -> Error {
    let reason = format!("a skill cannot be mounted at {path} in the container: {part} {what}");
    Error::Unavailable { reason, hint: None }
}

fn failed(path: &str, part: &str, errno: Errno) -> Error {
    match errno {
        Errno::ENOTDIR => refused(path, part, "is no directory"),
        Errno::ELOOP => refused(path, part, "is a link, or a loop of links"),
        Errno::EROFS => refused(path, part, "is not there, and the file system is read-only"),
        errno => Error::io(format!("{part} in the container"))(errno.into()),
    }
}

/// Makes a directory in `parent`, which belongs to the user. Whoever else writes there sees it when it does.
fn make(parent: &OwnedFd, name: &str, user: User) -> nix::Result<OwnedFd> {
    let beside = format!(".skillctl-{:016x}", RandomState::new().build_hasher().finish());
    mkdirat(parent, beside.as_str(), Mode::S_IRWXU)?;
    let made = own(parent, &beside, user).and_then(|made| {
        renameat2(parent, beside.as_str(), parent, name, RenameFlags::RENAME_NOREPLACE)?;
        Ok(made)
    });
    if made.is_err() {
        // The error that there is says more.
        let _ = unlinkat(parent, beside.as_str(), UnlinkatFlags::RemoveDir);
    }
    made
}

/// Gives what was just made to the user, unless somebody has put something of theirs in its place.
fn own(parent: &OwnedFd, name: &str, user: User) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(parent, name, flags, Mode::empty())?;
    let euid = nix::unistd::geteuid();
    if fstat(&made)?.st_uid != euid.as_raw() {
        return Err(Errno::EPERM);
    }
    // Explicitly, since the umask applied.
    fchmod(&made, Mode::from_bits_truncate(0o755))?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    match fchownat(&made, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH) {
        // Whoever is not root has made it as the only user there is.
        Err(Errno::EPERM) if uid == euid => Ok(made),
        result => result.map(|()| made),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use cap_std::ambient_authority;

    use super::*;

    fn world() -> (tempfile::TempDir, Rootfs, User) {
        let world = tempfile::tempdir().unwrap();
        for dir in ["root/home/u", "root/etc", "outside"] {
            std::fs::create_dir_all(world.path().join(dir)).unwrap();
        }
        let dir = Dir::open_ambient_dir(world.path().join("root"), ambient_authority()).unwrap();
        let user = match nix::unistd::geteuid().as_raw() {
            0 => User { uid: 1000, gid: 1001 },
            uid => User { uid, gid: nix::unistd::getegid().as_raw() },
        };
        (world, Rootfs::new(dir), user)
    }

    fn files(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn missing_parents_are_made_as_the_user_and_others_stay() {
        let (world, rootfs, user) = world();
        rootfs.make_directories("/home/u/.claude/skills/hr", user).unwrap();
        rootfs.make_directories("/home/u/.claude/skills/hr", user).unwrap();
        let own = nix::unistd::geteuid().as_raw();
        for (path, uid) in [("home/u", own), ("home/u/.claude", user.uid), ("home/u/.claude/skills/hr", user.uid)] {
            let metadata = std::fs::metadata(world.path().join("root").join(path)).unwrap();
            assert_eq!((metadata.uid(), metadata.permissions().mode() & 0o7777), (uid, 0o755), "{path}");
        }
    }

    #[test]
    fn no_link_at_any_level_leads_outside() {
        let places = ["/home", "/home/u", "/home/u/.claude", "/home/u/.claude/skills", "/home/u/.claude/skills/hr"];
        for at in places {
            let (world, rootfs, user) = world();
            let (root, outside) = (world.path().join("root"), world.path().join("outside"));
            let absolute = outside.display().to_string();
            for target in
                [absolute.as_str(), "../../../../../../outside", "../outside", "/proc/self/root", "/proc/1/cwd", "loop"]
            {
                let place = root.join(at.trim_start_matches('/'));
                std::fs::create_dir_all(place.parent().unwrap()).unwrap();
                let _ = std::fs::remove_file(&place);
                let _ = std::fs::remove_dir_all(&place);
                symlink(target.replace("loop", at), &place).unwrap();
                let made = rootfs.make_directories("/home/u/.claude/skills/hr", user);
                assert!(made.is_err(), "{at} -> {target}");
                assert_eq!(files(&outside), 0, "{at} -> {target}");
            }
        }
    }

    #[test]
    fn links_inside_are_followed_as_the_container_would() {
        let (world, rootfs, user) = world();
        let root = world.path().join("root");
        std::fs::create_dir_all(root.join("var/home/u")).unwrap();
        std::fs::remove_dir_all(root.join("home")).unwrap();
        symlink("/var/home", root.join("home")).unwrap();
        rootfs.make_directories("/home/u/.claude/skills/hr", user).unwrap();
        assert!(root.join("var/home/u/.claude/skills/hr").is_dir());
        assert_eq!(files(&world.path().join("outside")), 0);
    }

    #[test]
    fn paths_are_resolved_as_the_container_would() {
        let (world, rootfs, _) = world();
        let root = world.path().join("root");
        for dir in ["var/home/u", "run", "proc"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        for (link, target) in [("var/run", "/run"), ("r", "/"), ("up", "../../.."), ("p", "proc"), ("dead", "/nothing")]
        {
            symlink(target, root.join(link)).unwrap();
        }
        std::fs::write(root.join("file"), "").unwrap();
        let cases = [
            ("/home/u/.claude/skills/hr", "/home/u/.claude/skills/hr"),
            ("/var/run/secrets/x", "/run/secrets/x"),
            ("/r/proc/sys", "/proc/sys"),
            ("/r/r/up/p", "/proc"),
            ("/new", "/new"),
            ("/r/new/a", "/new/a"),
        ];
        for (path, want) in cases {
            assert_eq!(rootfs.resolve(path).unwrap(), want, "{path}");
        }
        for path in ["/file/x", "/dead", "/dead/x"] {
            assert!(rootfs.resolve(path).is_err(), "{path}");
        }
        let plain = rootfs.without_links();
        assert!(plain.resolve("/r/new").is_err() && plain.resolve("/home/u/x").is_ok());
    }

    #[test]
    fn who_may_write_is_told() {
        let (world, rootfs, user) = world();
        let dir = world.path().join("root/home/u");
        let own = nix::unistd::geteuid().as_raw();
        let other = User { uid: own + 77, gid: 4711 };
        for (mode, mine, theirs) in [(0o755, true, false), (0o555, false, false), (0o777, true, true)] {
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(rootfs.lets_write("/home/u/new/x", User { uid: own, gid: 0 }), mine, "{mode:o}");
            assert_eq!(rootfs.lets_write("/home/u/new/x", other), theirs, "{mode:o}");
        }
        let _ = user;
    }

    #[test]
    fn files_and_links_are_no_place_for_a_skill() {
        let (world, rootfs, user) = world();
        let root = world.path().join("root");
        std::fs::write(root.join("home/u/file"), "").unwrap();
        std::fs::create_dir(root.join("home/u/dir")).unwrap();
        symlink("dir", root.join("home/u/link")).unwrap();
        let cases = [
            ("/home/u/file", "/home/u/file is no directory"),
            ("/home/u/file/hr", "/home/u/file is no directory"),
            ("/home/u/link", "/home/u/link is a link"),
        ];
        for (path, want) in cases {
            let error = rootfs.make_directories(path, user).unwrap_err().to_string();
            assert_eq!(error, format!("a skill cannot be mounted at {path} in the container: {want}"));
        }
        assert!(rootfs.make_directories("/home/u/link/hr", user).is_ok());
    }

    #[test]
    fn a_passwd_is_read_only_where_it_is_a_file_of_some_size() {
        let (world, rootfs, _) = world();
        let passwd = world.path().join("root/etc/passwd");
        assert_eq!(rootfs.passwd(), None);
        std::fs::write(&passwd, "root:x:0:0::/root:/bin/sh\n").unwrap();
        assert_eq!(rootfs.passwd().as_deref(), Some("root:x:0:0::/root:/bin/sh\n"));
        std::fs::File::create(&passwd).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(rootfs.passwd(), None);
        std::fs::remove_file(&passwd).unwrap();
        nix::unistd::mkfifo(&passwd, Mode::S_IRUSR).unwrap();
        assert_eq!(rootfs.passwd(), None);
        std::fs::remove_file(&passwd).unwrap();
        std::fs::write(world.path().join("outside/passwd"), "secret").unwrap();
        symlink(world.path().join("outside/passwd"), &passwd).unwrap();
        assert_eq!(rootfs.passwd(), None);
    }
}
