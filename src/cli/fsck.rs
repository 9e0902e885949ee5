//! `fsck`

use std::process::ExitCode;

use anyhow::Result;

use super::shell::{Format, NO, Shell};
use crate::layer::UnpackOptions;
use crate::ops::fsck::fsck;
use crate::ops::trees;
use crate::output::{harmless_line, size};

/// Check every blob of the store
///
/// Reads all of them, compares size and digest, and names the images that a damaged one belongs to. So with stores that are
/// only read, by their names. What was unpacked for
/// containers is compared with its layer. Exit status 1 if something differs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print the report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        // Each by itself: what one lacks must not be taken from another.
        let mut report = fsck(&shell.stores()?)?;
        if let (Some(layout), Some(cache)) = (shell.existing_store()?, shell.existing_cache()?) {
            trees::fsck(&layout, &cache, &mut report, &UnpackOptions::default())?;
        }
        match self.format {
            Format::Json => shell.print_json(&report)?,
            Format::Text => {
                for problem in &report.problems {
                    let store = problem.store.as_ref().map(|store| format!(" in {store}")).unwrap_or_default();
                    let line = format!("{}{store}: {}", problem.image, problem.message);
                    shell.print(harmless_line(&line) + "\n")?;
                }
                let (entries, blobs) = (report.entries, report.blobs);
                let trees = if report.trees > 0 { format!(", {} unpacked", report.trees) } else { String::new() };
                shell.print(format!("{entries} entries, {blobs} blobs, {}{trees}: ", size(report.bytes)))?;
                match report.problems.len() {
                    0 => shell.print("all is well\n")?,
                    n => shell.print(format!("{n} problem(s)\n"))?,
                }
            }
        }
        if report.problems.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        if self.format == Format::Text && report.problems.iter().all(|problem| problem.store.is_some()) {
            shell.warn("hint: a read-only store is mended where it is made");
        } else if self.format == Format::Text {
            shell.warn("hint: build or pull the images again, or skillctl rm them");
        }
        Ok(ExitCode::from(NO))
    }
}
