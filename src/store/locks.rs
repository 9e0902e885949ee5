//! The locks of the store, in their order: `.gc.lock`, then `.lock`.

use nix::fcntl::Flock;

use super::layout::Layout;
use crate::error::{Error, Result};
use crate::lock::{How, lock};

const LOCK: &str = ".lock";
const GC_LOCK: &str = ".gc.lock";

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
        Ok(Changing { _lock: self.lock(LOCK, How::Exclusive)? })
    }

    /// Says that blobs will be added; hold the result until an entry names them.
    ///
    /// # Errors
    /// If the lock file cannot be made, for example in a read-only store.
    pub fn writing(&self) -> Result<Writing> {
        Ok(Writing { _lock: self.lock(GC_LOCK, How::Shared)? })
    }

    /// Waits until nobody adds blobs, and keeps it so.
    ///
    /// # Errors
    /// If the lock file cannot be made.
    pub fn sweeping(&self) -> Result<Sweeping> {
        Ok(Sweeping { _lock: self.lock(GC_LOCK, How::Exclusive)? })
    }

    fn lock(&self, name: &str, how: How) -> Result<Flock<std::fs::File>> {
        self.check_writable()?;
        lock(self.dir(), name, how, &self.cancel).map_err(Error::io(self.name_of(name)))
    }
}
