//! `prune`

use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::cdi;
use super::shell::{Format, Shell};
use crate::ops::prune::{self, Options, Pruned};
use crate::ops::trees::{self, Removed};
use crate::output::{harmless_line, size};

/// What went, as JSON.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    pruned: &'a Pruned,
    /// Trees that were unpacked for containers.
    trees: &'a [String],
}

/// Returns what may name a tree: the mounts of all processes that we can look at, and the CDI specifications, all of which
/// have to be readable.
fn mounted(shell: &Shell) -> Result<Vec<Vec<u8>>> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |name: &OsString| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let processes = processes.filter(|entry| is_process(&entry.file_name()));
    let mut named: Vec<_> = processes.filter_map(|entry| fs::read(entry.path().join("mountinfo")).ok()).collect();
    for path in cdi::specifications(shell)? {
        named.push(fs::read(&path).with_context(|| format!("Reading {}", path.display()))?);
    }
    Ok(named)
}

/// Remove superseded states and free the blobs that nothing names
///
/// Of each name and version the highest lifecycle state stays. Images that an installed skill pins stay, and so do the
/// signatures and SBOMs of images that stay. A blob younger than the grace period is spared: the Go skillctl, which
/// takes no lock, may be about to name it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Spare blobs younger than this; 0 if no Go skillctl uses this store
    #[arg(long, value_name = "SECONDS", default_value_t = prune::DEFAULT_GRACE.as_secs())]
    grace: u64,
    /// How to print what went
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let pruned = match shell.own_store()? {
            Some(layout) => prune::prune(
                &layout,
                &Options { dry_run: self.dry_run, grace: Duration::from_secs(self.grace), pinned: shell.pinned()? },
            )?,
            None => Pruned::default(),
        };
        let trees = match shell.existing_cache()? {
            Some(cache) => {
                let named = mounted(shell)?;
                let has = |text: &[u8], tree: &str| text.windows(tree.len()).any(|part| part == tree.as_bytes());
                trees::prune(&cache, &|tree| named.iter().any(|text| has(text, tree)), self.dry_run)?
            }
            None => Removed::default(),
        };
        match self.format {
            Format::Json => shell.print_json(&Whole { pruned: &pruned, trees: &trees.trees })?,
            Format::Text => shell.print(self.text(&pruned, trees.trees.len()))?,
        }
        if pruned.spared > 0 && self.format == Format::Text {
            shell.note(format!(
                "{} unnamed blob(s) younger than {} s were spared; --grace 0 frees them",
                pruned.spared, self.grace
            ));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn text(&self, pruned: &Pruned, trees: usize) -> String {
        let (removed, count, freed) = match self.dry_run {
            true => ("Would remove", "Would prune", "Would free"),
            false => ("Removed", "Pruned", "Freed"),
        };
        let mut text = String::new();
        for image in &pruned.removed {
            text += &format!("{removed} {} ({})\n", harmless_line(&image.reference), image.status);
        }
        match pruned.removed.len() {
            0 if pruned.blobs == 0 && pruned.bytes == 0 && trees == 0 => text += "Nothing to prune.\n",
            0 => {}
            n => text += &format!("\n{count} {n} image(s).\n"),
        }
        if trees > 0 {
            text += &format!("{removed} {trees} tree(s) that no container has and nobody used for a day.\n");
        }
        if pruned.bytes > 0 {
            text += &format!("{freed} {} in {} blob(s).\n", size(pruned.bytes), pruned.blobs);
        }
        text
    }
}
