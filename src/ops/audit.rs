//! `audit`: reading the log.

use std::collections::VecDeque;
use std::io::BufRead;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};

use crate::audit::Record;
use crate::audit::chain::Lines;

/// Which records are shown.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// From this moment on.
    pub since: Option<DateTime<Utc>>,
    /// Of these actions; of all where none is named.
    pub actions: Vec<String>,
    /// With these results; with all where none is named.
    pub results: Vec<String>,
    /// With this in the reference.
    pub reference: Option<String>,
    /// The last of them only.
    pub last: Option<usize>,
}

impl Filter {
    fn takes(&self, record: &Record) -> bool {
        let among = |all: &[String], own: &str| all.is_empty() || all.iter().any(|one| one == own);
        // What has no date that can be read is shown rather than hidden.
        let date = DateTime::parse_from_rfc3339(&record.time).ok();
        let early = self.since.zip(date).is_some_and(|(since, date)| date < since);
        !early
            && among(&self.actions, &record.action)
            && among(&self.results, record.result.as_str())
            && self.reference.as_ref().is_none_or(|part| record.reference.contains(part.as_str()))
    }
}

/// Hands the records that are asked for to `each`, old to new. Returns how many lines are none.
///
/// # Errors
/// If a file cannot be read; those of `each`.
pub fn show<R: BufRead>(
    files: Vec<(String, R)>,
    filter: &Filter,
    mut each: impl FnMut(Record) -> Result<()>,
) -> Result<u64> {
    let mut odd = 0;
    let mut kept = VecDeque::new();
    for (name, reader) in files {
        let mut lines = Lines::new(reader);
        while let Some((_, record)) = lines.next_line().with_context(|| format!("Reading {name}"))? {
            match record {
                None => odd += 1,
                Some(record) if !filter.takes(&record) => {}
                Some(record) => match filter.last {
                    None => each(record)?,
                    Some(most) => {
                        kept.push_back(record);
                        if kept.len() > most {
                            kept.pop_front();
                        }
                    }
                },
            }
        }
    }
    kept.into_iter().try_for_each(each)?;
    Ok(odd)
}
