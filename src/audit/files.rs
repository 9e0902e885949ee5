//! The files of a log, old to new: `audit.log`, and what it was renamed to when it was full.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use super::{MAX_LINE, Record};

/// The file that is written.
pub const FILE: &str = "audit.log";
/// How the names of those before begin. We add the number of their last record; logrotate numbers them the other way round, which
/// does no harm: their order is that of their records.
pub const BEFORE: &str = "audit.log.";
/// How the names of files end that somebody has compressed, which are none of the log any more.
const COMPRESSED: [&str; 4] = [".gz", ".xz", ".zst", ".bz2"];
/// Most files of a log.
const MAX_FILES: usize = 100_000;

/// Opens a file of the log for reading; nothing but a regular one is.
///
/// # Errors
/// If it cannot be opened.
pub fn open(dir: &Dir, name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // A FIFO would not answer.
    let file = dir.open_with(name, options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK))?;
    match file.metadata()?.is_file() {
        true => Ok(file.into_std()),
        false => Err(io::Error::other("it is no file")),
    }
}

/// Returns the names of the files that came before, in no order.
///
/// # Errors
/// If the directory cannot be read, or has too many.
pub fn before(dir: &Dir) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in dir.entries()? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && name.starts_with(BEFORE)
            && !COMPRESSED.iter().any(|end| name.ends_with(end))
            && entry.file_type()?.is_file()
        {
            names.push(name);
        }
        if names.len() > MAX_FILES {
            return Err(io::Error::other(format!("it has more than {MAX_FILES} files of the log")));
        }
    }
    Ok(names)
}

/// Sorts files by their first records, and leaves out those that are empty.
///
/// # Errors
/// If one cannot be read.
pub fn in_order<R: BufRead>(files: Vec<(String, R)>) -> io::Result<Vec<(String, R)>> {
    let mut keyed = Vec::new();
    for (name, mut file) in files {
        let begin = file.fill_buf()?;
        if !begin.is_empty() {
            // What is wrong with lines that are no records is told later.
            let first = begin.split(|byte| *byte == b'\n').find_map(Record::parse);
            let seq = first.map_or(u64::MAX, |record| record.seq);
            // Without a number it is where its name has it: the one that is written comes last.
            let last = name.rsplit('/').next() == Some(FILE);
            keyed.push(((seq, last, name.clone()), (name, file)));
        }
    }
    keyed.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(keyed.into_iter().map(|(_, file)| file).collect())
}

/// Returns a file with as much of it read ahead as [`in_order`] needs.
pub fn reader(file: File) -> BufReader<File> {
    BufReader::with_capacity(MAX_LINE + 1, file)
}

/// Opens all files of a log, old to new.
///
/// # Errors
/// If one cannot be read. A log that was never written has none.
pub fn all(dir: &Dir) -> io::Result<Vec<(String, BufReader<File>)>> {
    let mut files = Vec::new();
    for name in before(dir)?.into_iter().chain([FILE.to_owned()]) {
        match open(dir, &name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            file => files.push((name, reader(file?))),
        }
    }
    in_order(files)
}
