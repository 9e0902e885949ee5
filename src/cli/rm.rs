//! `rm`

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::prompt;
use super::shell::{FAILED, Format, Shell};
use crate::error::Error;
use crate::ops::remove;
use crate::output::harmless_line;
use crate::reference::Reference;
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
                None => format!("Error: {}", harmless_line(&absent(existing.as_ref(), reference).to_string())),
            });
        }
        let Some(layout) = existing.filter(|_| !entries.is_empty()) else {
            let reason = "no valid images to remove".into();
            return Err(Error::Unavailable { reason, hint: loaded_only(shell, &missing) }.into());
        };
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

/// Returns what removes the images that only containers-storage has. What cannot be told is not.
fn loaded_only(shell: &Shell, missing: &[String]) -> Option<String> {
    let images = shell.storage_to_read().ok()?.images().ok()?;
    let is_there = |text: &&String| {
        text.parse::<Reference>().is_ok_and(|own| images.by_name(&own.or_latest().in_storage()).is_some())
    };
    let there: Vec<&str> = missing.iter().filter(is_there).map(String::as_str).collect();
    let names = there.join(" ");
    (!there.is_empty()).then(|| format!("only containers-storage has {}: skillctl unload {names}", there.join(", ")))
}

/// Returns the error for an image that is not there, with what the store has instead.
fn absent(layout: Option<&Layout>, reference: &str) -> Error {
    match layout.map(|layout| store::lookup(layout, reference)) {
        Some(Err(error @ Error::ImageNotFound(_))) => error,
        _ => Error::ImageNotFound(reference.to_owned()),
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
