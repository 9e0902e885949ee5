//! Changes to a directory of skills, each of which happens whole or not at all.
//!
//! Under the lock, what is new is made in `work/`, with its receipt, and `pending/<name>.json` says what is about to
//! happen. All that is brought to disk by one syncfs. Then the directory is put in its place by one rename, which exchanges
//! it with the one before, and the receipt by another. Whoever takes the lock next after a crash finishes what has
//! begun, by the inode number that the directory keeps when it is renamed, and clears `work/`.
//!
//! Where a file system cannot exchange (NFS), the one before goes out of the way first, and the same record brings the new
//! one in. Where it cannot even be moved (a directory of a lower layer of overlayfs, as in a container's image), it is
//! removed in its place, after the record says so.
//!
//! What a repository brings along instead of our own directories leads nowhere: links are not followed, and a record
//! moves nothing but what could be a skill.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, MetadataExt as _};
use nix::errno::Errno;
use nix::fcntl::{Flock, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::{fsync, syncfs};
use serde::{Deserialize, Serialize};

use super::{OWN, RECEIPTS, SkillsDir, check_name, directory, read_bounded};
use crate::error::{Error, Result};
use crate::lock::{How, lock};
use crate::process::Cancel;
use crate::receipt::Receipt;

const LOCK: &str = "lock";
/// What is being made or removed: garbage, but under the lock.
const WORK: &str = "work";
/// What is about to happen, by the skill's name.
const PENDING: &str = "pending";
/// Files of the user's that were replaced by force.
const BACKUP: &str = "backup";

/// Largest record of what is about to happen, in bytes.
const MAX_PENDING: u64 = 1 << 16;

/// What is about to happen to one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pending {
    /// What has this inode number comes to the name, from `work/`.
    Publish(u64),
    /// The same where what was there could not be moved, and is removed first.
    Overwrite(u64),
    /// What has this inode number goes from the name.
    Remove(u64),
    /// The same where it could not be moved, and is removed there.
    Delete,
}

/// A directory of skills that nobody else changes.
#[derive(Debug)]
pub struct Locked<'a> {
    skills: &'a SkillsDir,
    own: Dir,
    work: Dir,
    _lock: Flock<File>,
}

impl SkillsDir {
    /// Waits until nobody changes the directory, keeps it so, and finishes what a crash has cut off.
    ///
    /// # Errors
    /// If our own directory in it cannot be made or read.
    pub fn lock(&self, cancel: &Cancel) -> Result<Locked<'_>> {
        let own = ensure(self.dir(), OWN).map_err(self.io(OWN))?;
        let path = |name: &str| format!("{OWN}/{name}");
        let lock = lock(&own, LOCK, How::Exclusive, cancel).map_err(self.io(&path(LOCK)))?;
        for name in [RECEIPTS, PENDING] {
            ensure(&own, name).map_err(self.io(&path(name)))?;
        }
        let work = ensure(&own, WORK).map_err(self.io(&path(WORK)))?;
        let locked = Locked { skills: self, own, work, _lock: lock };
        locked.recover().map_err(self.io(OWN))?;
        Ok(locked)
    }

    /// Finishes what a crash has cut off, where there is such a thing and it may be changed, and keeps others from changing
    /// the directory while it is looked at; `None` where nobody has ever, or may not.
    ///
    /// # Errors
    /// Of the kind `Interrupted` when the user asks to stop.
    pub fn reading(&self, cancel: &Cancel) -> Result<Option<Flock<File>>> {
        let Ok(own) = directory(self.dir(), OWN) else { return Ok(None) };
        let pending = directory(&own, PENDING).and_then(|pending| pending.entries());
        if pending.is_ok_and(|mut pending| pending.next().is_some()) {
            // In a directory that is read-only to us, what is there is what can be told.
            let _ = self.lock(cancel);
        }
        match lock(&own, LOCK, How::Shared, cancel) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(self.io(OWN)(e)),
            lock => Ok(lock.ok()),
        }
    }
}

impl Locked<'_> {
    /// Returns the directory in which the next skill is made, under its name.
    pub fn work(&self) -> &Dir {
        &self.work
    }

    /// Returns a new directory for files of the user's that are about to be replaced, and its path.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn backup(&self, name: &str) -> Result<(Dir, std::path::PathBuf)> {
        let backups = ensure(&self.own, BACKUP).map_err(self.skills.io(OWN))?;
        for number in 1_u32.. {
            let own = format!("{name}-{number}");
            match backups.create_dir_with(&own, DirBuilder::new().mode(0o700)) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    let path = self.skills.path().join(OWN).join(BACKUP).join(&own);
                    let dir = made.and_then(|()| backups.open_dir(&own));
                    return Ok((dir.map_err(Error::io(path.display().to_string()))?, path));
                }
            }
        }
        Err(self.skills.io(BACKUP)(io::ErrorKind::AlreadyExists.into()))
    }

    /// Puts what `work/` has under a name in its place, with a receipt. What was there before is then in `work/`, until
    /// [`Self::discard`].
    ///
    /// # Errors
    /// If it cannot be written; the directory is then as it was.
    pub fn publish(&self, name: &str, receipt: &Receipt) -> Result<()> {
        self.publish_as(name, receipt).map_err(self.skills.io(name))
    }

    fn publish_as(&self, name: &str, receipt: &Receipt) -> io::Result<()> {
        let inode = self.work.symlink_metadata(name)?.ino();
        self.work.create(receipt_file(name))?.write_all(receipt.to_json().as_bytes())?;
        self.announce(name, Pending::Publish(inode))?;
        syncfs(opened(&self.work, ".")?)?;
        self.put(name, inode)?;
        self.finish(name)
    }

    /// Removes what was replaced. Returns whether it could be; else some of it is left in `work/`.
    pub fn discard(&self, name: &str) -> bool {
        remove(&self.work, name).is_ok()
    }

    /// Takes a skill and its receipt away. Returns whether all of it could be removed; else some is left in `work/`.
    ///
    /// # Errors
    /// If it cannot be moved; the directory is then as it was.
    pub fn remove(&self, name: &str) -> Result<bool> {
        self.remove_as(name).map_err(self.skills.io(name))
    }

    fn remove_as(&self, name: &str) -> io::Result<bool> {
        let skills = self.skills.dir();
        let found = match skills.symlink_metadata(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            metadata => Some(metadata?.ino()),
        };
        if let Some(inode) = found {
            self.announce(name, Pending::Remove(inode))?;
            syncfs(opened(&self.work, ".")?)?;
            match renameat(skills.as_fd(), name, self.work.as_fd(), name) {
                Err(Errno::EXDEV) => {
                    self.announce(name, Pending::Delete)?;
                    self.sync()?;
                    remove(skills, name)?;
                }
                moved => moved?,
            }
        }
        self.forget(name)?;
        self.sync()?;
        Ok(found.is_none() || remove(&self.work, name).is_ok())
    }

    /// Writes down what is about to happen, whole or not at all.
    fn announce(&self, name: &str, what: Pending) -> io::Result<()> {
        let file = receipt_file(name);
        let temporary = format!("{name}.pending");
        self.work.create(&temporary)?.write_all(serde_json::to_string(&what)?.as_bytes())?;
        self.work.rename(&temporary, &self.own, format!("{PENDING}/{file}"))
    }

    /// Renames `work/<name>`, which has the inode number `new`, to its place. What was there is `work/<name>` then.
    fn put(&self, name: &str, new: u64) -> io::Result<()> {
        let (skills, work) = (self.skills.dir().as_fd(), self.work.as_fd());
        let there = match self.skills.dir().symlink_metadata(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            metadata => metadata.map(|_| true)?,
        };
        let flags = if there { RenameFlags::RENAME_EXCHANGE } else { RenameFlags::RENAME_NOREPLACE };
        match renameat2(work, name, skills, name, flags) {
            // Not every file system knows the flags.
            Err(Errno::EINVAL | Errno::ENOSYS) => match self.put_in_steps(name, there) {
                Err(e) if e.raw_os_error() == Some(Errno::EXDEV as i32) => self.put_over(name, new),
                put => put,
            },
            Err(Errno::EXDEV) => self.put_over(name, new),
            renamed => Ok(renamed?),
        }
    }

    /// The same where what is there cannot be moved: it is removed, and whoever comes after a crash goes on with that.
    fn put_over(&self, name: &str, new: u64) -> io::Result<()> {
        self.announce(name, Pending::Overwrite(new))?;
        self.sync()?;
        remove(self.skills.dir(), name)?;
        Ok(renameat(self.work.as_fd(), name, self.skills.dir().as_fd(), name)?)
    }

    /// The same in two renames, or three, where nothing can be exchanged.
    fn put_in_steps(&self, name: &str, there: bool) -> io::Result<()> {
        let (skills, work) = (self.skills.dir().as_fd(), self.work.as_fd());
        let old = old(name);
        if there {
            renameat(skills, name, work, old.as_str())?;
        }
        if let Err(e) = renameat(work, name, skills, name) {
            if there {
                renameat(work, old.as_str(), skills, name)?;
            }
            return Err(e.into());
        }
        if there {
            renameat(work, old.as_str(), work, name)?;
        }
        Ok(())
    }

    /// Brings the receipt to its place and strikes out what was to happen.
    fn finish(&self, name: &str) -> io::Result<()> {
        let file = receipt_file(name);
        self.work.rename(&file, &self.own, format!("{RECEIPTS}/{file}"))?;
        self.strike(&file)?;
        self.sync()
    }

    /// Removes the receipt and strikes out what was to happen.
    fn forget(&self, name: &str) -> io::Result<()> {
        let file = receipt_file(name);
        missing_is_fine(self.own.remove_file(format!("{RECEIPTS}/{file}")))?;
        self.strike(&file)
    }

    fn strike(&self, file: &str) -> io::Result<()> {
        missing_is_fine(self.own.remove_file(format!("{PENDING}/{file}")))
    }

    /// Brings the renames to disk.
    fn sync(&self) -> io::Result<()> {
        for (dir, path) in [(self.skills.dir(), "."), (&self.own, RECEIPTS), (&self.own, PENDING)] {
            fsync(opened(dir, path)?)?;
        }
        Ok(())
    }

    /// Finishes or undoes what was announced, and clears `work/`.
    fn recover(&self) -> io::Result<()> {
        for entry in self.own.read_dir(PENDING)? {
            let Ok(file) = entry?.file_name().into_string() else { continue };
            let bytes = read_bounded(&self.own, &format!("{PENDING}/{file}"), MAX_PENDING)?;
            // Written by rename, so that what cannot be read is not ours.
            let pending = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if let (Some(name), Some(pending)) = (file.strip_suffix(".json"), pending)
                && check_name(name).is_ok()
            {
                self.resume(name, pending)?;
            }
            self.strike(&file)?;
        }
        self.clear()
    }

    /// Removes everything from `work/`.
    fn clear(&self) -> io::Result<()> {
        for entry in self.work.entries()? {
            if let Ok(name) = entry?.file_name().into_string() {
                // In the way of nothing but itself: the next one tries again.
                let _ = remove(&self.work, &name);
            }
        }
        Ok(())
    }

    fn resume(&self, name: &str, pending: Pending) -> io::Result<()> {
        let skills = self.skills.dir();
        let inode = |dir: &Dir, name: &str| dir.symlink_metadata(name).ok().map(|metadata| metadata.ino());
        let here = inode(skills, name);
        match pending {
            Pending::Publish(new) if here == Some(new) => {
                if self.work.symlink_metadata(receipt_file(name)).is_ok() {
                    self.finish(name)?;
                }
            }
            // The one before went out of the way, which happens after all was on disk.
            Pending::Publish(new) if here.is_none() && inode(&self.work, &old(name)).is_some() => {
                if inode(&self.work, name) == Some(new) {
                    renameat(self.work.as_fd(), name, skills.as_fd(), name)?;
                    self.finish(name)?;
                } else {
                    renameat(self.work.as_fd(), old(name).as_str(), skills.as_fd(), name)?;
                }
            }
            Pending::Overwrite(new) => {
                if here != Some(new) && inode(&self.work, name) == Some(new) {
                    remove(skills, name)?;
                    renameat(self.work.as_fd(), name, skills.as_fd(), name)?;
                }
                if self.work.symlink_metadata(receipt_file(name)).is_ok() {
                    self.finish(name)?;
                }
            }
            Pending::Remove(gone) if here != Some(gone) => self.forget(name)?,
            Pending::Delete => {
                remove(skills, name)?;
                self.forget(name)?;
            }
            Pending::Publish(_) | Pending::Remove(_) => {}
        }
        Ok(())
    }
}

/// Opens a directory so that it can be synced: capabilities are not open for reading.
fn opened(dir: &Dir, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(openat(dir.as_fd(), path, flags, Mode::empty())?)
}

fn receipt_file(name: &str) -> String {
    format!("{name}.json")
}

/// Where the one before is between two renames.
fn old(name: &str) -> String {
    format!("{name}.old")
}

/// Makes a directory, or opens it where it is there and no link.
fn ensure(dir: &Dir, name: &str) -> io::Result<Dir> {
    match dir.create_dir(name) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => directory(dir, name),
    }
}

impl Drop for Locked<'_> {
    /// Leaves nothing behind where nothing is about to happen.
    fn drop(&mut self) {
        let pending = directory(&self.own, PENDING).and_then(|pending| pending.entries());
        if pending.is_ok_and(|mut pending| pending.next().is_none()) {
            // What stays is cleared by the next one.
            let _ = self.clear();
        }
    }
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes whatever is at `name`, following nothing.
fn remove(dir: &Dir, name: &str) -> io::Result<()> {
    match dir.symlink_metadata(name) {
        Ok(metadata) if metadata.is_dir() => dir.remove_dir_all(name),
        Ok(_) => dir.remove_file(name),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::layer::Listing;
    use crate::receipt::Image;

    fn skills(path: &Path) -> SkillsDir {
        SkillsDir::new(Dir::open_ambient_dir(path, cap_std::ambient_authority()).unwrap(), path)
    }

    fn receipt(version: &str) -> Receipt {
        let content_digest = Listing::default().digest();
        let image = Image { skill_version: version.into(), content_digest, ..Image::unknown() };
        Receipt::new("hr", image, &Listing::default())
    }

    /// Makes version `version` in the work directory.
    fn stage(locked: &Locked<'_>, version: &str) {
        locked.work().create_dir("hr").unwrap();
        locked.work().write("hr/SKILL.md", version).unwrap();
    }

    /// Returns the versions that the skill and its receipt have.
    fn state(path: &Path) -> (String, String) {
        let skill = fs::read_to_string(path.join("hr/SKILL.md")).unwrap_or_default();
        let receipt = skills(path).receipt("hr").unwrap().map(|receipt| receipt.image.skill_version);
        (skill, receipt.unwrap_or_default())
    }

    fn tidy(path: &Path) {
        for name in [WORK, PENDING] {
            assert_eq!(fs::read_dir(path.join(OWN).join(name)).unwrap().count(), 0, "{name}");
        }
    }

    #[test]
    fn what_is_published_replaces_what_was_there() {
        let temp = tempfile::tempdir().unwrap();
        let skills = skills(temp.path());
        let locked = skills.lock(&Cancel::default()).unwrap();
        for version in ["1", "2", "3"] {
            stage(&locked, version);
            locked.publish("hr", &receipt(version)).unwrap();
            assert!(locked.discard("hr"));
            assert_eq!(state(temp.path()), (version.into(), version.into()));
            tidy(temp.path());
        }
        assert!(locked.remove("hr").unwrap());
        assert_eq!(state(temp.path()), (String::new(), String::new()));
        assert!(locked.remove("hr").unwrap(), "what is gone is gone");
        tidy(temp.path());
    }

    #[test]
    fn where_nothing_can_be_exchanged_it_is_done_in_steps() {
        let temp = tempfile::tempdir().unwrap();
        let skills = skills(temp.path());
        let locked = skills.lock(&Cancel::default()).unwrap();
        for (version, there) in [("1", false), ("2", true)] {
            stage(&locked, version);
            locked.put_in_steps("hr", there).unwrap();
            assert_eq!(fs::read_to_string(temp.path().join("hr/SKILL.md")).unwrap(), version);
        }
        assert_eq!(locked.work().read_to_string("hr/SKILL.md").unwrap(), "1", "the one before is to be removed");
    }

    /// Each step at which a crash can happen, and what the next run makes of it.
    #[test]
    fn whoever_comes_after_a_crash_finishes_or_undoes() {
        type Do = fn(&Locked<'_>, u64);
        let announce: Do = |locked, new| locked.announce("hr", Pending::Publish(new)).unwrap();
        let exchange: Do = |locked, new| locked.put("hr", new).unwrap();
        let over: Do = |locked, new| locked.announce("hr", Pending::Overwrite(new)).unwrap();
        let partly: Do = |locked, _| locked.skills.dir().remove_file("hr/SKILL.md").unwrap();
        let delete: Do = |locked, _| locked.announce("hr", Pending::Delete).unwrap();
        let aside: Do = |locked, _| {
            renameat(locked.skills.dir().as_fd(), "hr", locked.work.as_fd(), "hr.old").unwrap();
        };
        let into: Do = |locked, _| {
            renameat(locked.work.as_fd(), "hr", locked.skills.dir().as_fd(), "hr").unwrap();
        };
        let record: Do = |locked, _| locked.work.rename("hr.json", &locked.own, format!("{RECEIPTS}/hr.json")).unwrap();
        let old: Do = |locked, _| {
            let inode = locked.skills.dir().symlink_metadata("hr").unwrap().ino();
            locked.announce("hr", Pending::Remove(inode)).unwrap();
        };
        let away: Do = |locked, _| {
            locked.work.remove_dir_all("hr").unwrap();
            renameat(locked.skills.dir().as_fd(), "hr", locked.work.as_fd(), "hr").unwrap();
        };
        let cases: [(&str, &[Do], &str); 13] = [
            ("made", &[], "1"),
            ("announced", &[announce], "1"),
            ("exchanged", &[announce, exchange], "2"),
            ("recorded", &[announce, exchange, record], "2"),
            ("in steps, the old one out", &[announce, aside], "2"),
            ("in steps, the new one in", &[announce, aside, into], "2"),
            ("to be written over", &[announce, over], "2"),
            ("partly written over", &[announce, over, partly], "2"),
            ("written over", &[announce, over, partly, aside, into], "2"),
            ("to be deleted", &[old, delete], ""),
            ("partly deleted", &[old, delete, partly], ""),
            ("to be removed", &[old], "1"),
            ("removed", &[old, away], ""),
        ];
        for (what, steps, want) in cases {
            let temp = tempfile::tempdir().unwrap();
            let skills = skills(temp.path());
            let locked = skills.lock(&Cancel::default()).unwrap();
            stage(&locked, "1");
            locked.publish("hr", &receipt("1")).unwrap();
            locked.discard("hr");
            stage(&locked, "2");
            locked.work().write("hr.json", receipt("2").to_json()).unwrap();
            let new = locked.work().symlink_metadata("hr").unwrap().ino();
            steps.iter().for_each(|step| step(&locked, new));
            drop(locked);
            drop(skills.lock(&Cancel::default()).unwrap());
            assert_eq!(state(temp.path()), (want.into(), want.into()), "{what}");
            tidy(temp.path());
        }
    }

    #[test]
    fn a_first_installation_that_was_cut_off_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let skills = skills(temp.path());
        let locked = skills.lock(&Cancel::default()).unwrap();
        stage(&locked, "1");
        locked.announce("hr", Pending::Publish(locked.work().symlink_metadata("hr").unwrap().ino())).unwrap();
        drop(locked);
        drop(skills.lock(&Cancel::default()).unwrap());
        assert_eq!(state(temp.path()), (String::new(), String::new()));
        tidy(temp.path());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod hostile {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn lock_in(path: &Path) -> Result<()> {
        let dir = Dir::open_ambient_dir(path, cap_std::ambient_authority()).unwrap();
        let skills = SkillsDir::new(dir, path);
        let _ = skills.reading(&Cancel::default());
        skills.lock(&Cancel::default()).map(drop)
    }

    /// What a repository may bring along in the place of our own files.
    #[test]
    fn what_a_repository_brings_along_moves_and_removes_nothing() {
        type Do = fn(&Path);
        let cases: [(&str, Do); 3] = [
            ("our directory is a link", |skills| {
                fs::create_dir(skills.join("pending")).unwrap();
                fs::write(skills.join("pending/x.json"), r#"{"publish":1}"#).unwrap();
                symlink("hr", skills.join("work")).unwrap();
                symlink(".", skills.join(OWN)).unwrap();
            }),
            ("work is a link", |skills| {
                fs::create_dir_all(skills.join(OWN).join("pending")).unwrap();
                fs::write(skills.join(OWN).join("pending/x.json"), r#"{"publish":1}"#).unwrap();
                symlink("../hr", skills.join(OWN).join("work")).unwrap();
            }),
            ("a name that is none", |skills| {
                for dir in ["pending", "work/.git.old"] {
                    fs::create_dir_all(skills.join(OWN).join(dir)).unwrap();
                }
                fs::write(skills.join(OWN).join("work/.git.old/config"), "evil").unwrap();
                fs::write(skills.join(OWN).join("pending/.git.json"), r#"{"publish":1}"#).unwrap();
            }),
        ];
        for (what, make) in cases {
            let temp = tempfile::tempdir().unwrap();
            fs::create_dir(temp.path().join("hr")).unwrap();
            fs::write(temp.path().join("hr/mine.txt"), "mine").unwrap();
            make(temp.path());
            let _ = lock_in(temp.path());
            assert_eq!(fs::read_to_string(temp.path().join("hr/mine.txt")).unwrap(), "mine", "{what}");
            assert!(!temp.path().join(".git").exists(), "{what}");
        }
    }
}
