//! Whether a log is whole: every line follows the one before it.

use std::collections::BTreeSet;
use std::io::{self, BufRead};

use serde::Serialize;

use super::{Head, MAX_LINE, Record, hash};

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct At {
    /// Its file.
    pub file: String,
    /// Its number there, from 1.
    pub line: u64,
}

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A line is not what it was when the next one was written.
    Changed,
    /// Lines are missing.
    Removed,
    /// Lines are in another order.
    Reordered,
    /// A line is there twice.
    Repeated,
    /// The log has no record that it had once: its end was cut or changed, or all of it was made anew.
    Truncated,
}

/// The first line that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub kind: Kind,
    /// Where it shows; absent where that is nowhere in particular.
    #[serde(flatten)]
    pub at: Option<At>,
    /// In words.
    pub reason: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many records there are up to the first problem.
    pub records: u64,
    /// The number of the first of them.
    pub first: Option<u64>,
    /// The last of them.
    pub head: Option<Head>,
    /// Lines that were not finished: a process was ended while it wrote. The records go on after them.
    pub unfinished: Vec<At>,
    /// The first line that does not fit.
    pub problem: Option<Problem>,
}

/// Reads lines, of which none is kept that is longer than a record can be.
pub struct Lines<R> {
    reader: R,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Returns the lines of a file.
    pub fn new(reader: R) -> Self {
        Self { reader, line: Vec::new() }
    }

    /// Returns the next line, as a record where it is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<(&[u8], Option<Record>)>> {
        self.line.clear();
        let mut any = false;
        loop {
            let found = self.reader.fill_buf()?;
            if found.is_empty() {
                break;
            }
            any = true;
            let end = found.iter().position(|byte| *byte == b'\n');
            let part = &found[..end.unwrap_or(found.len())];
            // One byte more than fits says that it is too long.
            let room = MAX_LINE + 1 - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        let record = if self.line.len() > MAX_LINE { None } else { Record::parse(&self.line) };
        Ok(Some((&self.line, record)))
    }
}

impl<R> std::fmt::Debug for Lines<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

/// A record that was read, and where.
struct Read {
    head: Head,
    prev: Option<String>,
    at: At,
}

/// Reads the files of a log one after the other.
struct Walk<R> {
    files: std::vec::IntoIter<(String, R)>,
    current: Option<(String, Lines<R>, u64)>,
    /// A line that is no record since the last one that is.
    odd: Option<At>,
}

impl<R: BufRead> Walk<R> {
    /// Returns the next record.
    fn next(&mut self) -> io::Result<Option<Read>> {
        loop {
            if self.current.is_none() {
                self.current = self.files.next().map(|(name, reader)| (name, Lines::new(reader), 0));
            }
            let Some((name, lines, number)) = &mut self.current else { return Ok(None) };
            *number += 1;
            let at = || At { file: name.clone(), line: *number };
            match lines.next_line()? {
                Some((line, Some(Record { seq, prev, .. }))) => {
                    return Ok(Some(Read { head: Head { seq, hash: hash(line) }, prev, at: at() }));
                }
                Some(_) => {
                    let at = at();
                    self.odd.get_or_insert(at);
                }
                None => self.current = None,
            }
        }
    }
}

/// Compares every line of the files, old to new, with the one before. Each of `heads` has to be the hash of one of the records. A log
/// that is whole begins with the first record.
///
/// # Errors
/// If a file cannot be read.
pub fn check<R: BufRead>(files: Vec<(String, R)>, heads: &[String], whole: bool) -> io::Result<Report> {
    let mut walk = Walk { files: files.into_iter(), current: None, odd: None };
    let mut report = Report::default();
    let mut missing: BTreeSet<&str> = heads.iter().map(String::as_str).collect();
    let mut last: Option<Read> = None;
    while let Some(read) = walk.next()? {
        let odd = walk.odd.take();
        let wrong = match &last {
            None => first(&read, whole),
            Some(last) => follows(last, &read, odd.as_ref(), &mut walk)?,
        };
        if let Some(problem) = wrong {
            report.problem = Some(problem);
            break;
        }
        report.unfinished.extend(odd);
        report.first.get_or_insert(read.head.seq);
        report.records += 1;
        missing.remove(read.head.hash.as_str());
        last = Some(read);
    }
    report.unfinished.extend(walk.odd.filter(|_| report.problem.is_none()));
    if let (None, Some(head)) = (&report.problem, missing.first()) {
        let reason =
            format!("it has no record {head} any more: its end was cut or changed, or all of it was made anew");
        report.problem = Some(Problem { kind: Kind::Truncated, at: last.as_ref().map(|last| last.at.clone()), reason });
    }
    report.head = last.map(|last| last.head);
    Ok(report)
}

/// Returns what is wrong with the first record.
fn first(read: &Read, whole: bool) -> Option<Problem> {
    let seq = read.head.seq;
    let at = Some(read.at.clone());
    if (seq == 1) != read.prev.is_none() {
        let reason = format!("record {seq} was changed: only the first one follows none");
        return Some(Problem { kind: Kind::Changed, at, reason });
    }
    (whole && seq > 1).then(|| {
        let reason = format!("{} missing before record {seq}", range(1, seq - 1));
        Problem { kind: Kind::Removed, at, reason }
    })
}

/// Returns what is wrong with a record and the one before it.
fn follows<R: BufRead>(last: &Read, read: &Read, odd: Option<&At>, walk: &mut Walk<R>) -> io::Result<Option<Problem>> {
    let (before, seq) = (last.head.seq, read.head.seq);
    let fits = read.prev.as_ref() == Some(&last.head.hash);
    let problem = |kind, at: &At, reason: String| Ok(Some(Problem { kind, at: Some(at.clone()), reason }));
    if seq == before.wrapping_add(1) {
        if fits {
            return Ok(None);
        }
        // Of two that do not fit together it is the first that was changed, unless the second does not fit to what follows either.
        let second = walk.next()?.is_some_and(|next| next.prev.as_ref() != Some(&read.head.hash));
        return match second {
            true => problem(Kind::Changed, &read.at, format!("record {seq} was changed")),
            false => problem(Kind::Changed, &last.at, format!("record {before} was changed")),
        };
    }
    if fits {
        return problem(Kind::Changed, &read.at, format!("record {seq} was changed: it follows {before}"));
    }
    if seq <= before {
        return match read.head == last.head {
            true => problem(Kind::Repeated, &read.at, format!("record {seq} is there twice")),
            false => problem(Kind::Reordered, &read.at, format!("record {seq} comes after {before}")),
        };
    }
    if let Some(odd) = odd.filter(|_| seq - before == 2) {
        return problem(Kind::Changed, odd, format!("record {} was changed: it is no record any more", before + 1));
    }
    while let Some(later) = walk.next()? {
        if later.head.seq == before + 1 {
            return problem(Kind::Reordered, &read.at, format!("record {seq} comes before {}", before + 1));
        }
    }
    problem(Kind::Removed, &read.at, format!("{} missing before record {seq}", range(before + 1, seq - 1)))
}

fn range(first: u64, last: u64) -> String {
    match first == last {
        true => format!("record {first} is"),
        false => format!("records {first} to {last} are"),
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
