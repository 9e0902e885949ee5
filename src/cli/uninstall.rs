//! `uninstall`

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::install::unpack_options;
use super::shell::{Format, Shell};
use super::targets::{Place, TargetArgs};
use crate::limits::Limits;
use crate::ops::uninstall::{Uninstalled, uninstall};
use crate::output::{backup, harmless_line, shown};
use crate::store::layout::Layout;

/// Uninstall skills
///
/// Removes what was installed, by skillctl or by the Go tool. Where you have changed or added files, nothing is removed
/// without --force, which keeps them in a backup. The image stays in the store: skillctl rm removes that.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names of skills, as list --installed shows them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    targets: TargetArgs,
    /// Remove files of yours, too, and keep them in a backup
    #[arg(long, short)]
    force: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let places = self.targets.places(shell)?;
        let layout = shell.existing_store()?;
        let mut status = ExitCode::SUCCESS;
        let mut rows = Vec::new();
        for name in &self.names {
            for place in &places {
                match self.uninstall(shell, layout.as_ref(), name, place) {
                    Ok(done) => {
                        let mut row = serde_json::to_value(&done)?;
                        row["target"] = json!(place.label);
                        rows.push(row);
                    }
                    Err(e) => status = shell.fail(&e.context(format!("Uninstalling {name}"))),
                }
            }
        }
        if self.format == Format::Json {
            shell.print_json(&rows)?;
        }
        Ok(status)
    }

    fn uninstall(&self, shell: &Shell, layout: Option<&Layout>, name: &str, place: &Place) -> Result<Uninstalled> {
        let skills = place.open()?.with_context(|| format!("there is no {}", place.path.display()))?;
        let cancel = shell.cancel();
        let options = unpack_options(Limits::default().size, &cancel);
        let done = uninstall(&skills, name, layout, self.force, &options, &cancel)?;
        if self.format == Format::Text {
            let (name, path) = (harmless_line(name), shown(&done.path));
            let backup = backup(done.backup.as_deref());
            shell.print(format!("Uninstalled {name} from {path}\n{backup}"))?;
        }
        shell.warnings(&done.warnings);
        Ok(done)
    }
}
