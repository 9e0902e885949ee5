//! Writing the log: one line at its end, under a lock, with the hash of the line before.
//!
//! Whoever is killed within the write leaves a line without an end. The next one begins a line of its own and follows the last whole
//! record; [`super::chain`] tells such a line from one that was altered by that.
//!
//! A record outlives the process that wrote it, and a power cut where it is durable: with `audit = "required"`, and otherwise when the
//! kernel gets to it. Syncing takes longer than all else that the hook does.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::Duration;

use cap_std::fs::{Dir, MetadataExt as _};
use chrono::Utc;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, fallocate};

use super::files::{self, BEFORE, FILE};
use super::{Event, Head, MAX_LINE, Record, User, hash};
use crate::lock::append_within;
use crate::process::Cancel;

/// Size from which a new file is begun: some forty thousand records, which can still be read at once.
const MAX_FILE: u64 = 16 << 20;
/// How long another process may have the lock, which takes less than a millisecond each.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of the end is read first: a record has some 500 bytes.
const SHORT: u64 = 4 << 10;
/// And at most: what crashes leave behind is one line, or as many zeros as the file system had set aside for it.
const LONG: u64 = 8 * MAX_LINE as u64;
/// Bytes that have to be free for what an action will record.
const ROOM: i64 = MAX_LINE as i64;

/// A log that nobody else writes to now.
#[derive(Debug)]
pub struct Log<'a> {
    dir: &'a Dir,
    file: Flock<File>,
    /// How long it is, while nobody else writes.
    len: u64,
    limit: u64,
}

impl<'a> Log<'a> {
    /// Opens the log in `dir`, which is made where there is none, and locks it.
    ///
    /// # Errors
    /// If it cannot be opened for writing, or locked.
    pub fn open(dir: &'a Dir) -> io::Result<Self> {
        // Waiting ends by itself: Ctrl-C takes back nothing of what has been done and is recorded now.
        let cancel = Cancel::default();
        loop {
            let file = append_within(dir, FILE, (0o600, PATIENCE), &cancel)?;
            let own = file.metadata()?;
            if !own.is_file() {
                return Err(io::Error::other("it is no file"));
            }
            // Another one may have renamed it while we waited.
            match dir.symlink_metadata(FILE) {
                Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => {
                    return Ok(Self { dir, file, len: own.len(), limit: MAX_FILE });
                }
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
    }

    /// Makes sure that there is room for a record.
    ///
    /// # Errors
    /// If the disk is full, or the end of the log cannot be read.
    pub fn reserve(&self) -> io::Result<()> {
        self.last()?;
        let end = i64::try_from(self.len).unwrap_or(i64::MAX - ROOM);
        match fallocate(&*self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, end, ROOM) {
            Err(errno @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG | Errno::EIO)) => Err(errno.into()),
            // Not every file system can tell.
            _ => Ok(()),
        }
    }

    /// Returns the last record, and whether an unfinished line follows it.
    fn last(&self) -> io::Result<(Option<Head>, bool)> {
        match last(&self.file, self.len)? {
            (None, unfinished) => Ok((last_before(self.dir)?, unfinished)),
            found => Ok(found),
        }
    }

    /// Appends records of what has happened, in one write. Returns their lines, without newlines.
    ///
    /// # Errors
    /// If they could not be written, or, where that is asked for, synced.
    pub fn append(mut self, events: &[Event], user: &User, durable: bool) -> io::Result<Vec<String>> {
        let (mut head, mut unfinished) = self.last()?;
        if let Some(last) = head.as_ref().filter(|_| self.len >= self.limit)
            && self.set_aside(last)
        {
            (self, head, unfinished) = self.again()?;
        }
        let mut text = if unfinished { "\n".to_owned() } else { String::new() };
        let (now, mut lines) = (Utc::now(), Vec::new());
        for event in events {
            let line = Record::following(head.as_ref(), event, user, now).line()?;
            text += &line;
            text.push('\n');
            head = Some(Head { seq: head.map_or(0, |last| last.seq).saturating_add(1), hash: hash(line.as_bytes()) });
            lines.push(line);
        }
        (&*self.file).write_all(text.as_bytes())?;
        if durable {
            self.file.sync_data()?;
            if self.len == 0 {
                // The name of a new file, too.
                self.dir.open(".")?.sync_all()?;
            }
        }
        Ok(lines)
    }

    /// Renames a full file. One that cannot be renamed grows on, which is better than no record.
    fn set_aside(&self, last: &Head) -> bool {
        let name = format!("{BEFORE}{}", last.seq);
        let is_free = self.dir.symlink_metadata(&name).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
        is_free && self.dir.rename(FILE, self.dir, &name).is_ok()
    }

    /// Opens what comes after a file that was renamed, where another process may already have written.
    fn again(self) -> io::Result<(Self, Option<Head>, bool)> {
        let next = Self { limit: self.limit, ..Self::open(self.dir)? };
        let (head, unfinished) = next.last()?;
        Ok((next, head, unfinished))
    }
}

/// Returns the last record of a log without locking it: it may be of a moment ago.
///
/// # Errors
/// If the log cannot be read.
pub fn head(dir: &Dir) -> io::Result<Option<Head>> {
    let own = match files::open(dir, FILE) {
        Ok(file) => last(&file, file.metadata()?.len())?.0,
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    own.map_or_else(|| last_before(dir), |own| Ok(Some(own)))
}

/// Returns the last record of the files before.
fn last_before(dir: &Dir) -> io::Result<Option<Head>> {
    let mut newest: Option<Head> = None;
    for name in files::before(dir)? {
        let file = files::open(dir, &name)?;
        let head = last(&file, file.metadata()?.len())?.0;
        newest = newest.into_iter().chain(head).max_by_key(|head| head.seq);
    }
    Ok(newest)
}

/// Returns the last record of a file of a length, and whether an unfinished line follows it.
fn last(file: &File, len: u64) -> io::Result<(Option<Head>, bool)> {
    for most in [SHORT, LONG] {
        let begin = len.saturating_sub(most);
        let mut end = vec![0; usize::try_from(len - begin).unwrap_or_default()];
        file.read_exact_at(&mut end, begin)?;
        let unfinished = end.last().is_some_and(|last| *last != b'\n');
        // The first of them may have begun before.
        let first =
            if begin > 0 { end.iter().position(|byte| *byte == b'\n').map_or(end.len(), |at| at + 1) } else { 0 };
        let mut lines = end[first..].rsplit(|byte| *byte == b'\n');
        let found = lines.find_map(|line| Some(Head { seq: Record::parse(line)?.seq, hash: hash(line) }));
        // A last line that is whole but for its newline is a record, and the next one begins after it all the same.
        if found.is_some() || begin == 0 {
            return Ok((found, unfinished));
        }
    }
    Err(io::Error::other("its end is no record: skillctl audit verify says what is wrong with it"))
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
