//! `fsck`: reads every blob that the store names and says what is not what it should be.

use std::collections::HashSet;
use std::io;

use anyhow::{Context as _, Result};
use oci_spec::image::Descriptor;
use serde::Serialize;
use serde_json::Value;

use crate::store::layout::{Layout, unwrap_damaged};

/// What a check of the store found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Number of index entries.
    pub entries: usize,
    /// Number of blobs that were read whole.
    pub blobs: usize,
    /// Their sizes, in bytes.
    pub bytes: u64,
    /// What is damaged.
    pub problems: Vec<Problem>,
}

/// One thing that is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The name or digest of the entry that needs it.
    pub image: String,
    /// What is wrong.
    pub message: String,
}

/// Checks size and digest of every blob that the index reaches, each once.
///
/// # Errors
/// If the index cannot be read; damaged blobs are problems in the report.
pub fn fsck(layout: &Layout) -> Result<Report> {
    let entries = layout.entries().context("Checking the store")?;
    let mut report = Report {
        entries: entries.len(),
        ..Report::default()
    };
    let mut seen = HashSet::new();
    for entry in &entries {
        let image = entry
            .name
            .clone()
            .unwrap_or_else(|| entry.digest().to_owned());
        let mut check = Check {
            layout,
            image,
            seen: &mut seen,
            report: &mut report,
        };
        check.manifest(&entry.descriptor);
    }
    Ok(report)
}

struct Check<'a> {
    layout: &'a Layout,
    image: String,
    seen: &'a mut HashSet<String>,
    report: &'a mut Report,
}

impl Check<'_> {
    fn problem(&mut self, message: impl ToString) {
        self.report.problems.push(Problem {
            image: self.image.clone(),
            message: message.to_string(),
        });
    }

    fn manifest(&mut self, descriptor: &Descriptor) {
        if !self.blob(descriptor) {
            return;
        }
        let parsed = self
            .layout
            .read_json(descriptor)
            .map(|bytes| serde_json::from_slice::<Value>(&bytes));
        let manifest = match parsed {
            Ok(Ok(manifest)) => manifest,
            Ok(Err(e)) => {
                return self.problem(format!("manifest {} is not JSON: {e}", descriptor.digest()));
            }
            Err(e) => return self.problem(e),
        };
        let children = |key: &str| manifest[key].as_array().cloned().unwrap_or_default();
        for child in children("manifests") {
            match serde_json::from_value(child) {
                Ok(child) => self.manifest(&child),
                Err(e) => self.problem(format!("index {}: {e}", descriptor.digest())),
            }
        }
        let config = manifest.get("config").cloned();
        for blob in children("layers").into_iter().chain(config) {
            match serde_json::from_value(blob) {
                Ok(blob) => {
                    self.blob(&blob);
                }
                Err(e) => self.problem(format!("manifest {}: {e}", descriptor.digest())),
            }
        }
    }

    /// Reads a blob whole, unless it was read before; returns whether it is worth looking into.
    fn blob(&mut self, descriptor: &Descriptor) -> bool {
        if !self.seen.insert(descriptor.digest().to_string()) {
            return false;
        }
        let read = self.layout.open_blob(descriptor).and_then(|mut blob| {
            io::copy(&mut blob, &mut io::sink())
                .map_err(|e| unwrap_damaged(e, descriptor.digest().as_ref()))
        });
        match read {
            Ok(bytes) => {
                self.report.blobs += 1;
                self.report.bytes += bytes;
                true
            }
            Err(e) => {
                self.problem(e);
                false
            }
        }
    }
}
