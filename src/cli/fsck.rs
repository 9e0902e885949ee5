//! `fsck`

use std::process::ExitCode;

use anyhow::Result;

use super::shell::{Format, NO, Shell};
use crate::ops::fsck::{Report, fsck};
use crate::output::{harmless_line, size};

/// Check every blob of the store
///
/// Reads all of them, compares size and digest, and names the images that a damaged one belongs to. Exit status 1 if
/// there is one.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print the report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let report = match shell.existing_store()? {
            Some(layout) => fsck(&layout)?,
            None => Report::default(),
        };
        match self.format {
            Format::Json => shell.print_json(&report)?,
            Format::Text => {
                for problem in &report.problems {
                    shell.print(format!("{}: {}\n", harmless_line(&problem.image), harmless_line(&problem.message)))?;
                }
                let (entries, blobs) = (report.entries, report.blobs);
                shell.print(format!("{entries} entries, {blobs} blobs, {}: ", size(report.bytes)))?;
                match report.problems.len() {
                    0 => shell.print("all is well\n")?,
                    n => shell.print(format!("{n} problem(s)\n"))?,
                }
            }
        }
        if report.problems.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        if self.format == Format::Text {
            shell.warn("hint: build or pull the images again, or skillctl rm them");
        }
        Ok(ExitCode::from(NO))
    }
}
