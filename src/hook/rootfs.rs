//! The root file system of a container, or a directory that is mounted in it: whatever it holds, nothing outside is touched.
//!
//! Paths are resolved by the kernel as if the container were in there already (`openat2(2)`, `RESOLVE_IN_ROOT` and
//! `RESOLVE_NO_MAGICLINKS`), and what is made is made beside a descriptor that came from that. No path is ever joined to
//! the root's own.

use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};

use cap_std::fs::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat};

use super::spec::User;
use crate::error::{Error, Result};

/// Largest passwd that is read, in bytes; that of a host with 10,000 users has one megabyte.
const MAX_PASSWD: u64 = 4 << 20;
/// How often a resolution is tried that a rename elsewhere made the kernel give up.
const RETRIES: u32 = 16;

/// A directory tree that somebody else has filled.
#[derive(Debug)]
pub struct Rootfs {
    root: OwnedFd,
}

impl Rootfs {
    /// Returns the tree at `dir`.
    pub fn new(dir: Dir) -> Self {
        Self { root: dir.into_std_file().into() }
    }

    fn open(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        let mut left = RETRIES;
        loop {
            match openat2(self.root.as_fd(), path, how) {
                Err(Errno::EAGAIN) if left > 0 => left -= 1,
                result => return result,
            }
        }
    }

    /// Makes the directories of `path` that are missing, as the user, and the last one as well; looks at what is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if something on the way is no directory, or the last is one by way of a link only.
    pub fn make_directories(&self, path: &str, user: User) -> Result<()> {
        let refused = |part: &str, what: &str| {
            let reason = format!("a skill cannot be mounted at {path} in the container: {part} {what}");
            Error::Unavailable { reason, hint: None }
        };
        let failed = |part: &str, errno: Errno| match errno {
            Errno::ENOTDIR => refused(part, "is no directory"),
            Errno::ELOOP => refused(part, "is a loop of links"),
            Errno::EROFS => refused(part, "is not there, and the file system is read-only"),
            errno => Error::io(format!("{part} in the container"))(errno.into()),
        };
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let mut parent = self.open("/", directory).map_err(|errno| failed("/", errno))?;
        let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).chain([path.len()]);
        for end in ends {
            let part = &path[..end];
            parent = match self.open(part, directory) {
                Ok(found) => found,
                Err(Errno::ENOENT) => {
                    let name = part.rsplit('/').next().unwrap_or_default();
                    make(&parent, name, user).map_err(|errno| match errno {
                        Errno::EEXIST => refused(part, "is a link that leads to nothing"),
                        errno => failed(part, errno),
                    })?
                }
                Err(errno) => return Err(failed(part, errno)),
            };
        }
        let last = self.open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW).and_then(fstat);
        match last.map_err(|errno| failed(path, errno))?.st_mode & SFlag::S_IFMT.bits() {
            kind if kind == SFlag::S_IFDIR.bits() => Ok(()),
            _ => Err(refused(path, "is a link")),
        }
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

    /// Returns the text of a file that is not too large; `None` where there is no such file, or it is something else.
    pub fn passwd(&self) -> Option<String> {
        let file = self.open("/etc/passwd", OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).ok()?;
        let file = std::fs::File::from(file);
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        if metadata.len() > MAX_PASSWD {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(MAX_PASSWD).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Makes a directory in `parent`, which belongs to the user.
fn make(parent: &OwnedFd, name: &str, user: User) -> nix::Result<OwnedFd> {
    mkdirat(parent, name, Mode::from_bits_truncate(0o755))?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = nix::fcntl::openat(parent, name, flags, Mode::empty())?;
    // Explicitly, since the umask applied.
    nix::sys::stat::fchmod(&made, Mode::from_bits_truncate(0o755))?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    match fchownat(&made, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH) {
        // Whoever is not root has made it as the only user there is.
        Err(Errno::EPERM) if uid.as_raw() == nix::unistd::geteuid().as_raw() => Ok(made),
        result => result.map(|()| made),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

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
