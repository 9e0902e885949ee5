//! `history`

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::images::short;
use super::registry::RegistryArgs;
use super::shell::{Format, Shell};
use crate::ops::history::{Row, history};
use crate::output::{cell, table};
use crate::reference::Reference;

/// Show the states of a skill that store and registry still hold
///
/// One line for each manifest, by version and state, with its tags; a state whose tags a later one took has none. Of the
/// store also what had a name in the repository, and what has the same content under another. A reference with a tag shows
/// that version only. The registry is asked where the reference names one.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The skill, with or without a tag
    reference: String,
    /// Do not ask the registry
    #[arg(long)]
    local: bool,
    /// Show digests whole
    #[arg(long)]
    no_trunc: bool,
    /// How to print the history
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let context = || format!("Reading the history of {}", self.reference);
        let reference = match self.reference.strip_prefix("docker://") {
            Some(name) => name.parse().and_then(|name: Reference| name.on_registry()),
            None => self.reference.parse(),
        };
        let reference = reference.with_context(context)?;
        let layout = shell.existing_store().with_context(context)?;
        let remote = match !self.local && reference.registry().is_some() {
            true => Some(self.registry.remote(shell).with_context(context)?),
            false => None,
        };
        let registry = remote.as_ref().map(|remote| &remote.registry);
        let rows = history(layout.as_ref(), registry, &reference).with_context(context)?;
        match self.format {
            Format::Json => shell.print_json(&rows)?,
            Format::Text => {
                let rows: Vec<Vec<String>> = rows.iter().map(|row| self.cells(row)).collect();
                shell.print(table(&["VERSION", "STATUS", "TAGS", "DIGEST", "IMAGE ID", "IN"], &rows))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let tags = row.tags.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let places = row.places.iter().copied().collect::<Vec<_>>().join(",");
        let whole = self.no_trunc;
        let (digest, id) = (short(&row.digest, whole), short(&row.image_id, whole));
        [&row.version, &row.status, &tags, &digest, &id, &places].into_iter().map(|text| cell(text)).collect()
    }
}
