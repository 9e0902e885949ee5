//! `agents`

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::shell::{Format, Shell};
use super::targets::{Scope, is_here, place};
use crate::agent::AGENTS;
use crate::output::{cell, table};

/// List the agents, and where each looks for skills
///
/// The names are those of --target. HERE says whether the agent was found in your home directory; --target all means
/// those.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose directories: this user's, the project's, or those of all users
    #[arg(long, value_enum, value_name = "SCOPE", default_value_t)]
    scope: Scope,
    /// How to print the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    aliases: &'static [&'static str],
    here: bool,
    path: String,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let mut rows = Vec::new();
        for agent in AGENTS {
            // One without a directory in this scope is not listed.
            if let Ok(place) = place(shell, agent, self.scope, agent.name) {
                let (here, path) = (is_here(shell, agent), place.path.display().to_string());
                rows.push(Row { name: agent.name, aliases: agent.aliases, here, path });
            }
        }
        if self.format == Format::Json {
            shell.print_json(&rows)?;
            return Ok(ExitCode::SUCCESS);
        }
        let cells = |row: &Row| {
            let here = if row.here { "yes" } else { "no" };
            let aliases = if row.aliases.is_empty() { "-".to_owned() } else { row.aliases.join(",") };
            vec![row.name.to_owned(), here.to_owned(), cell(&row.path), aliases]
        };
        shell.print(table(&["AGENT", "HERE", "SKILLS", "ALIASES"], &rows.iter().map(cells).collect::<Vec<_>>()))?;
        Ok(ExitCode::SUCCESS)
    }
}
