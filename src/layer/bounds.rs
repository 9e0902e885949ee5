//! Counts of what goes into a layer or comes out of it, held to the limits.

use crate::error::{Error, Result};
use crate::limits::{Limits, MAX_PATH};

/// Characters of a path that is too long to be shown.
const SHOWN: usize = 60;

/// Counts so far.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    limits: Limits,
    /// Entries without the root.
    pub(super) entries: u64,
    /// Regular files.
    pub(super) files: u64,
    /// Sum of their sizes.
    pub(super) bytes: u64,
}

impl Tally {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, entries: 0, files: 0, bytes: 0 }
    }

    /// Counts an entry of any kind.
    pub(super) fn entry(&mut self) -> Result<()> {
        self.entries += 1;
        self.check_entries()
    }

    fn check_entries(&self) -> Result<()> {
        if self.entries > self.limits.entries {
            return Err(exceeded("the number of entries", self.limits.entries.to_string(), "--max-files"));
        }
        Ok(())
    }

    /// Counts the entries of another count, whose bytes are held to the limits elsewhere.
    pub(super) fn add(&mut self, other: &Self) -> Result<()> {
        self.entries = self.entries.saturating_add(other.entries);
        self.check_entries()
    }

    /// Counts the content of a file, before it is read.
    pub(super) fn content(&mut self, size: u64) -> Result<()> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.size {
            let limit = format!("{} bytes", self.limits.size);
            return Err(exceeded("the size of all files", limit, "--max-size"));
        }
        Ok(())
    }

    /// Checks the number of directories from the root to `path`.
    pub(super) fn depth(&self, path: &str, depth: usize) -> Result<()> {
        if depth > self.limits.depth {
            let what = format!("the depth of {path}");
            return Err(exceeded(what, self.limits.depth.to_string(), "--max-depth"));
        }
        Ok(())
    }
}

/// Returns an error about a limit.
pub(super) fn exceeded(what: impl Into<String>, limit: String, flag: &'static str) -> Error {
    Error::LimitExceeded { what: what.into(), limit, flag }
}

/// Refuses a path that could be packed but never opened.
pub(super) fn check_path(path: &str) -> Result<()> {
    if path.len() <= MAX_PATH {
        return Ok(());
    }
    let start: String = path.chars().take(SHOWN).collect();
    Err(Error::RefusedEntry {
        entry: format!("{start}…"),
        reason: format!("has a path of {} bytes, and Linux opens none over {MAX_PATH}", path.len()),
        hint: None,
    })
}
