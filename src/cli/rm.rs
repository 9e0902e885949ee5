//! `rm`

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::json;

use super::prompt;
use super::shell::{FAILED, Format, Shell};
use crate::error::Error;
use crate::ops::remove;
use crate::output::harmless_line;
use crate::store::layout::{Entry, Layout};
use crate::store::{self};

/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 10;

/// Remove names from store and containers-storage
///
/// Only the names go; skillctl prune frees what no name needs any more.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Images: names, digests, or the first 12 digits of one
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    force: bool,
    /// Leave the names in containers-storage
    #[arg(long)]
    keep_loaded: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let existing = shell.own_store()?;
        let (entries, missing) = match &existing {
            Some(layout) => remove::select(layout, &self.references)?,
            None => (Vec::new(), self.references.clone()),
        };
        let stores = shell.read_only_stores()?;
        for reference in &missing {
            let shown = harmless_line(reference);
            shell.warn(match stores.iter().find(|store| store::lookup(store, reference).is_ok()) {
                Some(store) => format!("Error: {shown} is in the read-only store {}", store.path().display()),
                None => format!("Error: image not found: {shown}"),
            });
        }
        let Some(layout) = existing.filter(|_| !entries.is_empty()) else { bail!("no valid images to remove") };
        if !self.force && !confirmed(shell, &entries)? {
            return Ok(ExitCode::SUCCESS);
        }
        let mut removed = Vec::new();
        let mut failed = !missing.is_empty();
        for entry in entries {
            match self.remove(shell, &layout, &entry) {
                Ok(()) => removed.push(name(&entry)),
                Err(e) => {
                    shell.fail(&e);
                    failed = true;
                }
            }
        }
        if self.format == Format::Json {
            shell.print_json(&json!({"removed": removed, "missing": missing}))?;
        }
        if failed {
            shell.warn("error: some images could not be removed");
            return Ok(ExitCode::from(FAILED));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn remove(&self, shell: &Shell, layout: &Layout, entry: &Entry) -> Result<()> {
        remove::remove(layout, entry)?;
        if self.format == Format::Text {
            shell.print(format!("Removed {}\n", harmless_line(&name(entry))))?;
        }
        if !self.keep_loaded {
            super::load::unload_after(shell, entry);
        }
        Ok(())
    }
}

fn name(entry: &Entry) -> String {
    entry.name.clone().unwrap_or_else(|| entry.digest().to_owned())
}

/// Asks, in the words of the Go tool.
///
/// # Errors
/// If nobody answers: a script without a terminal would take it for done.
fn confirmed(shell: &Shell, entries: &[Entry]) -> Result<bool> {
    // Before the question: whoever reads it may press Ctrl-C at once.
    let cancel = shell.cancel();
    let names: Vec<String> = entries.iter().map(|entry| harmless_line(&name(entry))).collect();
    match &names[..] {
        [one] => shell.print(format!("Remove {one}? [y/N] "))?,
        many => {
            let list: String = many.iter().map(|name| format!("  {name}\n")).collect();
            shell.print(format!("{list}Remove {} image(s)? [y/N] ", many.len()))?;
        }
    }
    io::stdout().flush()?;
    let answer = prompt::line(MAX_ANSWER, &cancel)?;
    if answer.is_empty() {
        shell.print("\n")?;
        let reason = "nobody has answered: nothing is removed".into();
        return Err(Error::Unavailable { reason, hint: Some("--force does not ask".into()) }.into());
    }
    let yes = matches!(answer.trim(), "y" | "Y");
    if !yes {
        shell.print("Aborted.\n")?;
    }
    Ok(yes)
}
