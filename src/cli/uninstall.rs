//! `uninstall`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::install::unpack_options;
use super::record;
use super::shell::{Format, Shell};
use super::targets::{Place, TargetArgs};
use crate::audit::Action;
use crate::error::Error;
use crate::limits::Limits;
use crate::ops::present::is_link_to;
use crate::ops::uninstall::{Uninstalled, uninstall};
use crate::output::{backup, harmless_line, shown};
use crate::skills::SkillsDir;
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
        shell.can_record()?;
        let layout = shell.existing_store()?;
        let mut status = ExitCode::SUCCESS;
        let mut rows = Vec::new();
        for name in &self.names {
            for place in &places {
                let done = self.uninstall(shell, layout.as_ref(), name, place);
                match shell.recorded((Action::Uninstall, name), done, |gone| vec![record::uninstalled(gone)]) {
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
        if !self.force {
            self.check_links(shell, &skills, name)?;
        }
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

    /// Refuses to take away a copy to which agents have links that are not taken away with it.
    fn check_links(&self, shell: &Shell, skills: &SkillsDir, name: &str) -> Result<()> {
        let going: Vec<PathBuf> = self.targets.places(shell)?.into_iter().map(|place| place.path).collect();
        let others = TargetArgs { scope: self.targets.scope, ..TargetArgs::default() };
        let mut linked = Vec::new();
        for place in others.places_or_all(shell)?.into_iter().filter(|place| !going.contains(&place.path)) {
            if let Some(other) = place.open()?
                && is_link_to(&other, name, skills).unwrap_or(false)
            {
                linked.push(place.label);
            }
        }
        if linked.is_empty() {
            return Ok(());
        }
        let linked = linked.join(",");
        let reason = format!("{name} is what {linked} has a link to");
        let hint = Some(format!("uninstall it there, too, and first: --target {linked}"));
        Err(Error::Unavailable { reason, hint }.into())
    }
}
