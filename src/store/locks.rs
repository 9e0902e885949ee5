//! The locks of the store, in their order: `.gc.lock`, then `.lock`.

use std::io;
use std::time::Duration;

use cap_std::fs::{OpenOptions, OpenOptionsExt as _};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::layout::Layout;
use crate::error::{Error, Result};

const LOCK: &str = ".lock";
const GC_LOCK: &str = ".gc.lock";

/// How often a lock that another process has is tried: locks of the index are held for some milliseconds.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// Keeps the sweep of `prune` away while blobs are added that no entry names yet.
#[derive(Debug)]
#[must_use = "blobs may be collected as soon as this is dropped"]
pub struct Writing {
    _lock: Flock<std::fs::File>,
}

/// Keeps others from changing the index.
#[derive(Debug)]
#[must_use = "others may change the index as soon as this is dropped"]
pub struct Changing {
    _lock: Flock<std::fs::File>,
}

/// The right to sweep: nobody adds blobs while it is held.
#[derive(Debug)]
#[must_use = "others may add blobs as soon as this is dropped"]
pub struct Sweeping {
    _lock: Flock<std::fs::File>,
}

impl Layout {
    /// Keeps everybody from changing the index.
    ///
    /// # Errors
    /// If the lock file cannot be made.
    pub fn changing(&self) -> Result<Changing> {
        Ok(Changing { _lock: self.lock(LOCK, FlockArg::LockExclusiveNonblock)? })
    }

    /// Says that blobs will be added; hold the result until an entry names them.
    ///
    /// # Errors
    /// If the lock file cannot be made, for example in a read-only store.
    pub fn writing(&self) -> Result<Writing> {
        Ok(Writing { _lock: self.lock(GC_LOCK, FlockArg::LockSharedNonblock)? })
    }

    /// Waits until nobody adds blobs, and keeps it so.
    ///
    /// # Errors
    /// If the lock file cannot be made.
    pub fn sweeping(&self) -> Result<Sweeping> {
        Ok(Sweeping { _lock: self.lock(GC_LOCK, FlockArg::LockExclusiveNonblock)? })
    }

    fn lock(&self, name: &str, how: FlockArg) -> Result<Flock<std::fs::File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o644);
        let mut file = self.dir().open_with(name, &options).map_err(Error::io(self.name_of(name)))?.into_std();
        loop {
            match Flock::lock(file, how) {
                Ok(lock) => return Ok(lock),
                Err((_, _)) if self.cancel.is_cancelled() => {
                    return Err(Error::io(self.name_of(name))(io::ErrorKind::Interrupted.into()));
                }
                Err((again, Errno::EINTR | Errno::EWOULDBLOCK)) => file = again,
                Err((_, errno)) => return Err(Error::io(self.name_of(name))(errno.into())),
            }
            // Looked at again and again, so that Ctrl-C ends the waiting.
            std::thread::sleep(LOCK_RETRY);
        }
    }
}
