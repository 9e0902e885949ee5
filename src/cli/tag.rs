//! `tag`

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::load::LoadArgs;
use super::policy::warn_of_less;
use super::shell::{Format, Shell};
use crate::ops;
use crate::output::harmless_line;
use crate::reference::Reference;
use crate::store;

/// Give an image of the store another name
///
/// The new name is loaded into containers-storage as well, where that is possible. To push an image, tag it with the
/// name of the registry.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: a name, a digest, or the first 12 digits of one
    source: String,
    /// The new name; without a tag, latest
    target: String,
    /// Also where the new name is published with other content
    #[arg(long, short)]
    force: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    load: LoadArgs,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let target: Reference = self.target.parse().context("Tagging")?;
        let layout = shell.store_with(&self.source).with_context(|| format!("Tagging {}", self.source))?;
        let (_, before) = store::locate(&layout, &self.source).with_context(|| format!("Tagging {}", self.source))?;
        let entry = ops::tag::tag(&layout, &self.source, &target, self.force)?;
        // A digest is in no repository; the name that it has is.
        if let Ok(from) = before.name.as_deref().unwrap_or(&self.source).parse::<Reference>() {
            warn_of_less(shell, &from, &target);
        }
        let loaded = self.load.after(shell, &layout, &entry);
        match self.format {
            Format::Text => {
                shell.print(format!("Tagged {} as {}\n", harmless_line(&self.source), harmless_line(&self.target)))?;
            }
            Format::Json => {
                shell.print_json(&json!({
                    "source": self.source, "reference": entry.name, "digest": entry.digest(), "loaded": loaded.as_ref().is_ok_and(|loaded| *loaded),
                }))?;
            }
        }
        loaded.map(|_| ExitCode::SUCCESS)
    }
}
