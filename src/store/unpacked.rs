//! The unpacked cache: read-only trees of verified layers, which hooks and CDI bind into containers.
//!
//! ```text
//! <data>/skillctl/
//!   store/                 the store
//!   unpacked/              0755, beside it
//!     .lock                flock, exclusive: held by whoever adds or removes a tree
//!     <hex of diff ID>/    what the layer unpacks to: directories 0755, files 0644 or 0755, of whoever unpacked it
//!     <hex>.seal           what the tree was like then, and its bytes; its modification time is that of the last use
//!     .<hex>.<random>/     a tree that is being made, or that somebody was killed over
//!     <hex>.old-<n>/       a tree that was found altered, until no container has it any more
//! ```
//!
//! A tree is unpacked beside, renamed to its place, and sealed: a hash over the type, mode, owner, links, size, inode and times of everything
//! in it. Reading that takes microseconds a file, where the content would take as long as unpacking; no write to a file can
//! leave its change time as it was. At each use the tree is held against its seal, so that what was altered never gets into a
//! second container: it is unpacked anew, from the layer in the store. Whoever may write here may also write seals: `fsck` compares content.
//!
//! All of it belongs to whoever made it, and is theirs alone to write: a cache that others can write to is not used.
//!
//! Crash story: a tree without a seal counts as none, and goes, as does what is beside it and unfinished. A power failure may leave files that never reached the disk; their
//! sizes or times then differ from the seal.
//!
//! Where SELinux is on, a tree has the type with which containers may read and execute, and not write; it is set before the
//! seal, and again where somebody has relabelled the tree (`restorecon`, unless `semanage fcontext` knows the directory).
//!
//! A tree that a running container has bound is never written to or emptied: it survives `podman rmi`, and `prune` asks who
//! has it first.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use nix::dir::Dir as Listed;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstat, fstatat, utimensat};
use nix::sys::time::TimeSpec;
use sha2::{Digest as _, Sha256};
use xattr::FileExt as _;

use crate::error::{Error, Result};
use crate::layer::{Expected, UnpackOptions, unpack};
use crate::limits::Limits;
use crate::lock::lock_within;
use crate::process::Cancel;

/// The directory of the cache, beside that of the store.
const NAME: &str = "unpacked";
const LOCK: &str = ".lock";
const SEAL: &str = ".seal";
const OLD: &str = ".old-";
/// What a seal begins with: another version of it counts as none.
const VERSION: &str = "skillctl tree 2";
/// How long somebody who makes a tree is waited for: unpacking the largest takes some ten seconds.
const WAIT: Duration = Duration::from_secs(60);
/// How often a use is noted at most: the time says to the day who needs a tree.
const NOTED: Duration = Duration::from_secs(3600);

/// Returns where the cache of a store is: beside it.
pub fn path(store: &Path) -> PathBuf {
    match store.file_name() {
        Some(name) if name == "store" => store.with_file_name(NAME),
        // Not among other things that somebody keeps beside a layout.
        Some(name) => {
            let mut own = name.to_owned();
            own.push(".");
            own.push(NAME);
            store.with_file_name(own)
        }
        None => store.join(NAME),
    }
}

/// An extended attribute of everything in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    name: &'static str,
    value: &'static str,
}

/// What SELinux lets containers read and execute (container-selinux, `container_ro_file_t`).
pub const SELINUX: Label = Label { name: "security.selinux", value: "system_u:object_r:container_ro_file_t:s0" };

/// The cache of one store.
#[derive(Debug)]
pub struct Cache {
    dir: Dir,
    path: PathBuf,
    cancel: Cancel,
    label: Option<Label>,
}

/// A tree that was found as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Where it is.
    pub path: PathBuf,
    /// What became of one that was there before, and was not as it was made.
    pub replaced: bool,
}

/// A tree of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The name of its directory.
    pub name: String,
    /// Digest of the archive, `sha256:…`.
    pub diff_id: String,
    /// When it was last used; `None` where it has no seal.
    pub used: Option<SystemTime>,
    /// Whether it was replaced, and only waits for its containers to end.
    pub old: bool,
}

impl Cache {
    /// Returns the cache in `dir`, which is at `path`.
    pub fn new(dir: Dir, path: &Path, cancel: Cancel) -> Self {
        Self { dir, path: path.to_owned(), cancel, label: None }
    }

    /// Gives trees a label, where there is one to give.
    #[must_use]
    pub fn labelled(self, label: Option<Label>) -> Self {
        Self { label, ..self }
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the tree of a layer, which `open` opens, and makes it where there is none, or one that was altered.
    ///
    /// # Errors
    /// As [`unpack`]; also where the layer's image says nothing of its archive's digest.
    pub fn tree(
        &self,
        expected: &Expected,
        open: &dyn Fn() -> Result<Box<dyn Read + Send>>,
        options: &UnpackOptions<'_>,
    ) -> Result<Tree> {
        let hex = expected.diff_id.as_deref().and_then(hex_of).ok_or_else(|| {
            Error::damaged(format!("image with the layer {}", expected.digest), "its config names no diff ID")
        })?;
        let tree = |replaced| Tree { path: self.path.join(hex), replaced };
        self.check_owner()?;
        // Before it is looked at: from then on prune leaves it alone, unless it has begun to remove it.
        self.note_use(hex);
        if let Some(bytes) = self.sealed(hex)?.filter(|_| self.is_labelled(hex))
            && self.dir.symlink_metadata(format!("{hex}{SEAL}")).is_ok()
        {
            bounded(bytes, &options.limits)?;
            return Ok(tree(false));
        }
        let _lock = self.lock()?;
        // Somebody may have made it meanwhile.
        if let Some(bytes) = self.sealed(hex)? {
            bounded(bytes, &options.limits)?;
            if !self.is_labelled(hex) {
                self.seal(hex, bytes)?;
            }
            return Ok(tree(false));
        }
        self.remove_unfinished(&format!(".{hex}."))?;
        let replaced = self.put_aside(hex)?;
        let options = UnpackOptions { replace: false, ..*options };
        let unpacked = unpack(open()?, expected, &self.dir, hex, &options)?;
        if let Err(error) = self.seal(hex, unpacked.bytes) {
            // Nobody has it: it would only take room.
            let _ = self.dir.remove_dir_all(hex);
            return Err(error);
        }
        Ok(tree(replaced))
    }

    /// Labels a tree and seals it as it is then.
    fn seal(&self, hex: &str, bytes: u64) -> Result<()> {
        if let Some(label) = self.label {
            let set = open_dir(&self.dir, hex).and_then(|root| set_label(root, label));
            set.map_err(Error::io(format!("the label of {}", self.shown(hex))))?;
        }
        let seal = self.fingerprint(hex)? + &format!("{bytes}\n");
        self.write_seal(hex, &seal).map_err(Error::io(self.shown(hex)))
    }

    /// Refuses a cache that others than we may have written to.
    fn check_owner(&self) -> Result<()> {
        let shown = self.path.display();
        let stat = fstat(&self.dir).map_err(|errno| Error::io(shown.to_string())(errno.into()))?;
        let writable = Mode::S_IWGRP.union(Mode::S_IWOTH).bits();
        if !is_ours(&stat) {
            // Removing it is no remedy: the runtime's hook sees the cache of all other containers so, in a user namespace.
            let hint = Some("run as its owner: rootless podman and root have separate storage".into());
            return Err(Error::Unavailable { reason: format!("{shown} belongs to another user"), hint });
        }
        if stat.st_mode & writable == 0 {
            return Ok(());
        }
        let reason = format!("{shown} can be written to by others than its user");
        Err(Error::Unavailable { reason, hint: Some(format!("rm -r {shown}, which is made anew")) })
    }

    /// Removes what somebody was killed over whose name begins so; the lock is held.
    fn remove_unfinished(&self, begins: &str) -> Result<()> {
        let remove = || -> io::Result<()> {
            for entry in self.dir.entries()? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name.starts_with(begins) && is_hex(name.get(1..65).unwrap_or_default()) {
                    gone(match self.dir.symlink_metadata(&name)?.is_dir() {
                        true => self.dir.remove_dir_all(&name),
                        false => self.dir.remove_file(&name),
                    })?;
                }
            }
            Ok(())
        };
        remove().map_err(Error::io(self.path.display().to_string()))
    }

    /// Returns whether the root of a tree has the label; the rest has what it has.
    fn is_labelled(&self, hex: &str) -> bool {
        let Some(Label { name, value }) = self.label else { return true };
        let found = open_dir(&self.dir, hex).map(File::from).and_then(|root| root.get_xattr(name));
        // The kernel ends it with a zero byte.
        found.is_ok_and(|found| {
            found.is_some_and(|found| found.strip_suffix(b"\0").unwrap_or(&found) == value.as_bytes())
        })
    }

    /// Opens a tree of [`Self::list`].
    ///
    /// # Errors
    /// If it is not there.
    pub fn open(&self, name: &str) -> Result<Dir> {
        let opened = open_dir(&self.dir, name).map_err(Error::io(self.shown(name)))?;
        Ok(Dir::from_std_file(opened.into()))
    }

    /// Returns all trees, sorted by name.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for entry in self.dir.entries().map_err(Error::io(self.path.display().to_string()))? {
            let entry = entry.map_err(Error::io(self.path.display().to_string()))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let (hex, old) = name.split_once(OLD).map_or((name.as_str(), false), |(hex, _)| (hex, true));
            if !is_hex(hex) {
                continue;
            }
            let sealed = self.dir.symlink_metadata(format!("{hex}{SEAL}")).ok().filter(|_| !old);
            let used = sealed.and_then(|metadata| Some(metadata.modified().ok()?.into_std()));
            kept.push(Kept { diff_id: format!("sha256:{hex}"), name, used, old });
        }
        kept.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(kept)
    }

    /// Removes the trees that `goes` says, which is asked under the lock. Returns their names.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn remove(&self, goes: impl Fn(&Kept) -> bool) -> Result<Vec<String>> {
        let _lock = self.lock()?;
        self.remove_unfinished(".")?;
        let mut removed = Vec::new();
        for kept in self.list()?.into_iter().filter(|kept| goes(kept)) {
            let seal = format!("{}{SEAL}", kept.name);
            if !kept.old && kept.used.is_some() && !self.unseal(&kept, &goes).map_err(Error::io(self.shown(&seal)))? {
                continue;
            }
            gone(self.dir.remove_dir_all(&kept.name)).map_err(Error::io(self.shown(&kept.name)))?;
            removed.push(kept.name);
        }
        Ok(removed)
    }

    /// Takes the seal of a tree away, and puts it back if somebody has used the tree meanwhile: a use is noted before the seal is
    /// looked at, and the seal looked for once more after that.
    fn unseal(&self, kept: &Kept, goes: &dyn Fn(&Kept) -> bool) -> io::Result<bool> {
        let (seal, beside) = (format!("{}{SEAL}", kept.name), format!(".{}{SEAL}", kept.name));
        self.dir.rename(&seal, &self.dir, &beside)?;
        let used = self.dir.symlink_metadata(&beside)?.modified()?.into_std();
        if goes(&Kept { used: Some(used), ..kept.clone() }) {
            return gone(self.dir.remove_file(&beside)).map(|()| true);
        }
        self.dir.rename(&beside, &self.dir, &seal).map(|()| false)
    }

    /// Nobody but the cache's user can open the lock, and so hold it.
    fn lock(&self) -> Result<nix::fcntl::Flock<File>> {
        lock_within(&self.dir, LOCK, (0o600, WAIT), &self.cancel).map_err(Error::io(self.shown(LOCK)))
    }

    /// Returns whether a tree is as it was made.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn is_sealed(&self, name: &str) -> Result<bool> {
        Ok(self.sealed(name)?.is_some())
    }

    /// Returns the bytes of a tree that is as it was made.
    fn sealed(&self, hex: &str) -> Result<Option<u64>> {
        let mut seal = Vec::new();
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
        match self.dir.open_with(format!("{hex}{SEAL}"), &options) {
            Ok(file) => file.take(256).read_to_end(&mut seal).map_err(Error::io(self.shown(hex)))?,
            Err(_) => return Ok(None),
        };
        // What cannot be looked at as it was made is not so any more.
        let Ok(found) = self.fingerprint(hex) else { return Ok(None) };
        let rest = seal.strip_prefix(found.as_bytes()).and_then(|rest| std::str::from_utf8(rest).ok());
        Ok(rest.and_then(|rest| rest.strip_suffix('\n')?.parse().ok()))
    }

    /// Returns what the seal of a tree is as it is now.
    fn fingerprint(&self, hex: &str) -> Result<String> {
        let root = open_dir(&self.dir, hex).map_err(Error::io(self.shown(hex)))?;
        let mut hash = Sha256::new();
        let stat = fstat(&root).map_err(io::Error::from);
        stat.map(|stat| add(&mut hash, b"", &stat))
            .and_then(|()| walk(root, &mut hash))
            .map_err(Error::io(self.shown(hex)))?;
        Ok(format!("{VERSION}\n{}\n", hex::encode(hash.finalize())))
    }

    fn write_seal(&self, hex: &str, seal: &str) -> io::Result<()> {
        let beside = format!(".{hex}{SEAL}");
        gone(self.dir.remove_file(&beside))?;
        let mut file = self.dir.open_with(&beside, OpenOptions::new().write(true).create_new(true).mode(0o644))?;
        file.write_all(seal.as_bytes())?;
        self.dir.rename(&beside, &self.dir, format!("{hex}{SEAL}"))
    }

    /// Notes that a tree is in use; where that cannot be written, nobody can remove it either.
    fn note_use(&self, hex: &str) {
        let seal = format!("{hex}{SEAL}");
        let noted = self.dir.symlink_metadata(&seal).and_then(|metadata| metadata.modified());
        let age = noted.ok().and_then(|at| SystemTime::now().duration_since(at.into_std()).ok());
        if age.is_none_or(|age| age > NOTED) {
            let now = TimeSpec::UTIME_NOW;
            let _ = utimensat(self.dir.as_fd(), seal.as_str(), &now, &now, UtimensatFlags::NoFollowSymlink);
        }
    }

    /// Moves what has the name of a tree away, for containers that have it bound. Returns whether there was anything. What
    /// has no seal no container has.
    fn put_aside(&self, hex: &str) -> Result<bool> {
        if self.dir.symlink_metadata(format!("{hex}{SEAL}")).is_err() {
            return match self.dir.symlink_metadata(hex) {
                Ok(found) if found.is_dir() => gone(self.dir.remove_dir_all(hex)),
                _ => gone(self.dir.remove_file(hex)),
            }
            .map(|()| false)
            .map_err(Error::io(self.shown(hex)));
        }
        for n in 0_u32.. {
            let old = format!("{hex}{OLD}{n}");
            if self.dir.symlink_metadata(&old).is_ok() {
                continue;
            }
            return match self.dir.rename(hex, &self.dir, &old) {
                Ok(()) => Ok(true),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(e) => Err(Error::io(self.shown(hex))(e)),
            };
        }
        Ok(false)
    }

    fn shown(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

/// Sets the label of a directory and of all that is in it; links have none that matters.
fn set_label(dir: OwnedFd, label: Label) -> io::Result<()> {
    let dir = File::from(dir);
    dir.set_xattr(label.name, label.value.as_bytes())?;
    let dir = Dir::from_std_file(dir);
    for entry in dir.entries()? {
        let (entry, flags) = (entry?, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC);
        let kind = entry.file_type()?;
        if kind.is_dir() {
            set_label(open_dir(&dir, entry.file_name().as_os_str())?, label)?;
        } else if kind.is_file() {
            let file = File::from(openat(&dir, entry.file_name().as_os_str(), flags, Mode::empty())?);
            file.set_xattr(label.name, label.value.as_bytes())?;
        }
    }
    Ok(())
}

/// Adds everything below a directory to a hash, in byte order of the names.
fn walk(dir: OwnedFd, hash: &mut Sha256) -> io::Result<()> {
    let mut listed = Listed::from_fd(dir)?;
    let mut names = Vec::new();
    for entry in listed.iter() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let stat = fstatat(&listed, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        add(hash, name.to_bytes(), &stat);
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR {
            walk(open_dir(&listed, name.as_c_str())?, hash)?;
            hash.update(b"/");
        }
    }
    Ok(())
}

fn open_dir<P: nix::NixPath + ?Sized>(dir: impl AsFd, name: &P) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

/// Refuses a tree that was made under a wider limit.
fn bounded(bytes: u64, limits: &Limits) -> Result<()> {
    match bytes > limits.size {
        true => Err(Error::LimitExceeded {
            what: "the size of all files".into(),
            limit: format!("{} bytes", limits.size),
            flag: "--max-size",
        }),
        false => Ok(()),
    }
}

/// Returns whether something belongs to us, in whichever numbers: in podman's user namespace we are root, and outside not.
fn is_ours(stat: &FileStat) -> bool {
    stat.st_uid == nix::unistd::geteuid().as_raw()
}

/// Adds what a name is. The size of a directory is the file system's affair.
fn add(hash: &mut Sha256, name: &[u8], stat: &FileStat) {
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    let is_dir = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    let size = if is_dir { 0 } else { stat.st_size };
    let own_group = stat.st_gid == nix::unistd::getegid().as_raw();
    for number in [i64::from(stat.st_mode), i64::from(is_ours(stat)), i64::from(own_group), size] {
        hash.update(number.to_le_bytes());
    }
    hash.update(stat.st_ino.to_le_bytes());
    hash.update(stat.st_nlink.to_le_bytes());
    for number in [stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec] {
        hash.update(number.to_le_bytes());
    }
}

fn hex_of(diff_id: &str) -> Option<&str> {
    diff_id.strip_prefix("sha256:").filter(|hex| is_hex(hex))
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use cap_std::ambient_authority;

    use super::*;
    use crate::layer::{Encoding, PackOptions, pack};

    const LABEL: Label = Label { name: "user.skillctl.test", value: "container" };

    /// A cache, and the archive of a skill with what it has to be.
    fn world() -> (tempfile::TempDir, Cache, Vec<u8>, Expected) {
        let world = tempfile::tempdir().unwrap();
        let skill = world.path().join("skill");
        std::fs::create_dir_all(skill.join("scripts")).unwrap();
        std::fs::write(skill.join("SKILL.md"), "# Skill").unwrap();
        std::fs::write(skill.join("scripts/run.sh"), "echo").unwrap();
        let open = |path: &Path| Dir::open_ambient_dir(path, ambient_authority()).unwrap();
        let mut archive = Vec::new();
        let options = PackOptions { encoding: Encoding::Tar, ..PackOptions::default() };
        let packed = pack(&open(&skill), &mut archive, &options).unwrap();
        let diff_id = Some(packed.digest.clone());
        let expected = Expected { digest: packed.digest, size: packed.size, diff_id, encoding: Encoding::Tar };
        let path = world.path().join("unpacked");
        std::fs::create_dir(&path).unwrap();
        (world, Cache::new(open(&path), &path, Cancel::default()), archive, expected)
    }

    fn tree(cache: &Cache, archive: &[u8], expected: &Expected) -> Result<Tree> {
        cache.tree(expected, &|| Ok(Box::new(io::Cursor::new(archive.to_vec()))), &UnpackOptions::default())
    }

    #[test]
    fn the_cache_is_beside_its_store() {
        let cases = [
            ("/var/lib/skillctl/store", "/var/lib/skillctl/unpacked"),
            ("/srv/layout", "/srv/layout.unpacked"),
            ("/", "/unpacked"),
        ];
        for (store, want) in cases {
            assert_eq!(path(Path::new(store)), Path::new(want));
        }
    }

    #[test]
    fn trees_are_made_once_and_again_when_altered() {
        let (_world, cache, archive, expected) = world();
        let first = tree(&cache, &archive, &expected).unwrap();
        assert!(!first.replaced && first.path.join("SKILL.md").is_file());
        let never = || -> Result<Box<dyn Read + Send>> { panic!("it is there") };
        assert_eq!(cache.tree(&expected, &never, &UnpackOptions::default()).unwrap(), first);
        std::fs::remove_file(first.path.join("scripts/run.sh")).unwrap();
        assert!(tree(&cache, &archive, &expected).unwrap().replaced);
        let names: Vec<_> = cache.list().unwrap().into_iter().map(|kept| (kept.old, kept.used.is_some())).collect();
        assert_eq!(names, [(false, true), (true, false)]);
        // What is not what its digest says gets no tree.
        cache.remove(|_| true).unwrap();
        let other = Expected { digest: format!("sha256:{}", "0".repeat(64)), ..expected };
        assert!(tree(&cache, &archive, &other).is_err());
        assert_eq!(cache.list().unwrap(), []);
    }

    #[test]
    fn a_cache_of_others_is_not_used() {
        let (_world, cache, archive, expected) = world();
        tree(&cache, &archive, &expected).unwrap();
        let refused = || {
            let error = tree(&cache, &archive, &expected).unwrap_err();
            (error.to_string(), error.hint().unwrap())
        };
        let shown = cache.path.display();
        for mode in [0o775, 0o757] {
            std::fs::set_permissions(&cache.path, std::fs::Permissions::from_mode(mode)).unwrap();
            let (said, hint) = refused();
            assert_eq!(said, format!("{shown} can be written to by others than its user"));
            assert_eq!(hint, format!("rm -r {shown}, which is made anew"));
        }
        // Only root can give it away; then nothing that is removed helps.
        if std::os::unix::fs::chown(&cache.path, Some(4242), None).is_ok() {
            let (said, hint) = refused();
            assert_eq!(said, format!("{shown} belongs to another user"));
            assert!(hint.starts_with("run as its owner"), "{hint}");
        }
    }

    #[test]
    fn labels_are_set_and_set_again() {
        let (_world, cache, archive, expected) = world();
        if File::from(open_dir(&cache.dir, ".").unwrap()).set_xattr(LABEL.name, b"x").is_err() {
            return; // This file system has none.
        }
        let cache = cache.labelled(Some(LABEL));
        let path = tree(&cache, &archive, &expected).unwrap().path;
        let label = |name: &str| xattr::get(path.join(name), LABEL.name).unwrap();
        let own = Some(LABEL.value.as_bytes().to_vec());
        assert_eq!([label("."), label("scripts"), label("scripts/run.sh")], [own.clone(), own.clone(), own.clone()]);
        // Another label on the root alters the tree as any other change does.
        xattr::set(&path, LABEL.name, b"other").unwrap();
        assert!(tree(&cache, &archive, &expected).unwrap().replaced);
        // A tree from before there was a label is labelled in its place.
        let plain = Cache {
            label: None,
            dir: cache.dir.try_clone().unwrap(),
            path: cache.path.clone(),
            cancel: Cancel::default(),
        };
        plain.remove(|_| true).unwrap();
        tree(&plain, &archive, &expected).unwrap();
        assert!(!tree(&cache, &archive, &expected).unwrap().replaced);
        assert_eq!(label("SKILL.md"), own);
    }
}
