//! Locks on files, waited for so that Ctrl-C ends the waiting.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;

use crate::process::Cancel;

/// How often a lock that another process has is tried: ours are held for some milliseconds.
const RETRY: Duration = Duration::from_millis(5);

/// Whether others may have the lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Those that share it, too.
    Shared,
    /// Nobody else.
    Exclusive,
}

/// Locks the file `name` of `dir`, which is made where it is not there, until the result is dropped.
///
/// # Errors
/// If it cannot be made or locked; of the kind `Interrupted` when the user asks to stop.
pub fn lock(dir: &Dir, name: &str, how: How, cancel: &Cancel) -> io::Result<Flock<File>> {
    held(open(dir, name, 0o644)?, how, None, cancel)
}

/// Locks the file `name` of `dir` for ourselves alone; it is made with `mode` where it is not there. Gives up after a time.
///
/// # Errors
/// As [`lock`]; of the kind `TimedOut`.
pub fn lock_within(dir: &Dir, name: &str, (mode, limit): (u32, Duration), cancel: &Cancel) -> io::Result<Flock<File>> {
    held(open(dir, name, mode)?, How::Exclusive, Some(limit), cancel)
}

/// Locks the file `name` of `dir` as [`lock_within`] does, to write at its end and nowhere else.
///
/// # Errors
/// As [`lock_within`].
pub fn append_within(
    dir: &Dir,
    name: &str,
    (mode, limit): (u32, Duration),
    cancel: &Cancel,
) -> io::Result<Flock<File>> {
    let mut options = OpenOptions::new();
    // Nonblocking, because a FIFO would not answer; of files that means nothing.
    options.read(true).append(true).create(true).mode(mode).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
    held(dir.open_with(name, &options)?.into_std(), How::Exclusive, Some(limit), cancel)
}

fn open(dir: &Dir, name: &str, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(mode).custom_flags(nix::libc::O_NOFOLLOW);
    Ok(dir.open_with(name, &options)?.into_std())
}

/// Locks a directory itself, where no file should be made for it.
///
/// # Errors
/// As [`lock`].
pub fn lock_dir(dir: &Dir, how: How, cancel: &Cancel) -> io::Result<Flock<File>> {
    held(itself(dir)?, how, None, cancel)
}

/// Locks a directory itself for nobody else, if nobody has the lock now.
///
/// # Errors
/// If it cannot be locked for another reason.
pub fn try_lock_dir(dir: &Dir) -> io::Result<Option<Flock<File>>> {
    match Flock::lock(itself(dir)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn itself(dir: &Dir) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(File::from(openat(dir.as_fd(), ".", flags, Mode::empty())?))
}

fn held(mut file: File, how: How, limit: Option<Duration>, cancel: &Cancel) -> io::Result<Flock<File>> {
    let begun = Instant::now();
    let flag = match how {
        How::Shared => FlockArg::LockSharedNonblock,
        How::Exclusive => FlockArg::LockExclusiveNonblock,
    };
    loop {
        match Flock::lock(file, flag) {
            Ok(lock) => return Ok(lock),
            Err(_) if cancel.is_cancelled() => return Err(io::ErrorKind::Interrupted.into()),
            Err((_, Errno::EINTR | Errno::EWOULDBLOCK)) if limit.is_some_and(|limit| begun.elapsed() > limit) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "another process has held it too long"));
            }
            Err((again, Errno::EINTR | Errno::EWOULDBLOCK)) => file = again,
            Err((_, errno)) => return Err(errno.into()),
        }
        std::thread::sleep(RETRY);
    }
}
