//! `fsck`: reads every blob that the store names and says what is not what it should be.

use std::collections::HashMap;
use std::io;

use anyhow::{Context as _, Result};
use oci_spec::image::Descriptor;
use serde::Serialize;

use crate::image::Info;
use crate::store::blob::unwrap_damaged;
use crate::store::layout::Layout;

/// What a check of the store found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Number of index entries.
    pub entries: usize,
    /// Number of blobs that were read whole.
    pub blobs: usize,
    /// Their sizes, in bytes.
    pub bytes: u64,
    /// Number of trees of the cache that were compared with their layers.
    pub trees: usize,
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
    /// The store that it is in, where that is only read.
    pub store: Option<String>,
}

/// Checks size and digest of every blob that the index of each store reaches, each once.
///
/// # Errors
/// If the index cannot be read; damaged blobs are problems in the report.
pub fn fsck(stores: &[Layout]) -> Result<Report> {
    let mut report = Report::default();
    for layout in stores {
        let store = layout.is_read_only().then(|| layout.path().display().to_string());
        check(layout, store, &mut report).context("Checking the store")?;
    }
    Ok(report)
}

fn check(layout: &Layout, store: Option<String>, report: &mut Report) -> Result<()> {
    let entries = layout.entries()?;
    report.entries += entries.len();
    for message in layout.malformed()? {
        report.problems.push(Problem { image: "index.json".to_owned(), message, store: store.clone() });
    }
    let mut seen = HashMap::new();
    for entry in entries {
        let image = entry.name.clone().unwrap_or_else(|| entry.digest().to_owned());
        let mut check = Check { layout, image, store: store.as_deref(), seen: &mut seen, report };
        let mut queue = vec![entry.descriptor];
        while let Some(descriptor) = queue.pop() {
            if check.blob(&descriptor) {
                queue.extend(check.manifest(&descriptor));
            }
        }
    }
    Ok(())
}

struct Check<'a> {
    layout: &'a Layout,
    image: String,
    store: Option<&'a str>,
    /// What was said of each blob and size: nothing, or why it is damaged, which concerns every image that needs it.
    seen: &'a mut HashMap<(String, u64), Option<String>>,
    report: &'a mut Report,
}

impl Check<'_> {
    fn problem(&mut self, message: impl ToString) {
        let (image, store) = (self.image.clone(), self.store.map(str::to_owned));
        self.report.problems.push(Problem { image, message: message.to_string(), store });
    }

    /// Checks what a manifest names, and returns the instances of an index.
    fn manifest(&mut self, descriptor: &Descriptor) -> Vec<Descriptor> {
        let object = format!("manifest {}", descriptor.digest());
        let read = self.layout.read_json(descriptor).and_then(|bytes| Info::parse(&bytes, &object));
        match read {
            Ok(info) => {
                for blob in info.layers.iter().chain(&info.config) {
                    self.blob(blob);
                }
                info.instances
            }
            Err(e) => {
                self.problem(e);
                Vec::new()
            }
        }
    }

    /// Reads a blob whole, unless it was read before; returns whether it is new and worth looking into.
    fn blob(&mut self, descriptor: &Descriptor) -> bool {
        let digest = descriptor.digest().to_string();
        let key = (digest.clone(), descriptor.size());
        if let Some(known) = self.seen.get(&key).cloned() {
            known.into_iter().for_each(|message| self.problem(message));
            return false;
        }
        let read = self
            .layout
            .open_blob(descriptor)
            .and_then(|mut blob| io::copy(&mut blob, &mut io::sink()).map_err(|e| unwrap_damaged(e, &digest)));
        let damage = read.as_ref().err().map(ToString::to_string);
        match (read, &damage) {
            (Ok(bytes), _) => {
                self.report.blobs += 1;
                self.report.bytes += bytes;
            }
            (Err(_), message) => message.iter().for_each(|message| self.problem(message)),
        }
        let whole = damage.is_none();
        self.seen.insert(key, damage);
        whole
    }
}
