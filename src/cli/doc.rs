//! `completion` and `version`, and the command tree that man pages are made from.

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, ValueEnum as _};
use clap_complete::Shell as Dialect;
use serde_json::json;

use super::Cli;
use super::shell::{Format, Shell};

/// Returns the command tree, for man pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Print the completion script of a shell
///
/// For bash: skillctl completion bash > /etc/bash_completion.d/skillctl
#[derive(Debug, clap::Args)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(["bash", "zsh", "fish", "elvish", "powershell"]))]
    shell: String,
}

impl CompletionArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let dialect = Dialect::from_str(&self.shell, true).map_err(anyhow::Error::msg)?;
        let mut script = Vec::new();
        clap_complete::generate(dialect, &mut command(), "skillctl", &mut script);
        shell.print(String::from_utf8(script)?)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Print the version
#[derive(Debug, clap::Args)]
pub struct VersionArgs {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl VersionArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let version = env!("CARGO_PKG_VERSION");
        match self.format {
            Format::Text => shell.print(format!("skillctl version {version}\n"))?,
            Format::Json => shell.print_json(&json!({"version": version}))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
