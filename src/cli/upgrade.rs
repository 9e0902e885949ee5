//! `upgrade` and `rollback`

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use semver::Version;
use serde_json::json;

use super::install::{fetch, listed, unpack_options};
use super::installed::{candidates, scan_all, step};
use super::record;
use super::registry::RegistryArgs;
use super::shell::{FAILED, Format, NO, Shell};
use super::targets::{Place, TargetArgs, resolved};
use super::verify::VerifyArgs;
use crate::audit::Action;
use crate::error::Error;
use crate::limits::Limits;
use crate::ops::contents::Contents;
use crate::ops::install::{self, Installed, Options, Source};
use crate::ops::installed::Row;
use crate::ops::present::is_link_to;
use crate::ops::pull::{Rule, When};
use crate::ops::rollback::{How, rollback};
use crate::ops::uninstall::not_installed;
use crate::ops::upgrade::{Candidate, exactly};
use crate::output::{backup, harmless_line};
use crate::reference::Reference;
use crate::skills::SkillsDir;

const EXAMPLES: &str = "\
Examples:
  What would change:
    skillctl upgrade hr --target claude --dry-run
  Everything that is installed:
    skillctl upgrade --all
  To one version, also an older one:
    skillctl upgrade hr --target claude --to 1.2.0";

/// Upgrade installed skills to the newest published version
///
/// Prereleases do not count, nor do versions that are deprecated. Files that the new version lacks go, files that you added
/// stay. Files that you changed stop it; --force replaces them, and keeps them in a backup. skillctl rollback goes back.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The skill, as list --installed shows it
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Upgrade all that are installed
    #[arg(long, short)]
    all: bool,
    #[command(flatten)]
    targets: TargetArgs,
    /// Install this version instead of the newest
    #[arg(long, value_name = "VERSION", conflicts_with = "all")]
    to: Option<String>,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Only say which have a newer version; exit status 1 if any has
    #[arg(long, conflicts_with = "dry_run")]
    check: bool,
    /// Replace files that you changed, and keep them in a backup
    #[arg(long, short)]
    force: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// What an upgrade goes to.
struct Step {
    row: Row,
    reference: Reference,
    version: String,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let (steps, current, unknown) = self.steps(shell)?;
        if self.check && unknown == 0 {
            return self.tell(shell, &steps, &current);
        }
        let mut status = if unknown == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) };
        if self.check {
            self.tell(shell, &steps, &current)?;
            return Ok(status);
        }
        let mut done = Vec::new();
        for step in &steps {
            match self.upgrade(shell, step) {
                Ok(installed) => {
                    let mut row = serde_json::to_value(&installed)?;
                    row["target"] = json!(step.row.target);
                    row["path"] = json!(step.row.path);
                    done.push(row);
                }
                Err(e) => {
                    status = shell.fail(&e.context(format!("Upgrading {}", step.row.name)));
                }
            }
        }
        match self.format {
            Format::Json => shell.print_json(&done)?,
            Format::Text if steps.is_empty() && unknown > 0 => shell.print("No newer version was found.\n")?,
            Format::Text if steps.is_empty() => shell.print(self.nothing(&current))?,
            Format::Text if self.all && !self.dry_run && !done.is_empty() => {
                shell.print(format!("\nUpgraded {} skill(s).\n", done.len()))?;
            }
            Format::Text => {}
        }
        Ok(status)
    }

    /// Returns what there is to do, the names of what was looked at, and the number of those of which it could not be told.
    fn steps(&self, shell: &Shell) -> Result<(Vec<Step>, Vec<String>, usize)> {
        let refused = |reason: &str| Error::Unavailable { reason: reason.to_owned(), hint: None };
        match (&self.name, self.all) {
            (Some(_), true) => return Err(refused("cannot specify skill name with --all").into()),
            (None, false) => return Err(refused("specify a skill name or use --all").into()),
            _ => {}
        }
        let places = self.targets.places_or_all(shell)?;
        let mut rows = scan_all(shell, &places)?;
        // Links to one copy are upgraded with it.
        let mut seen = BTreeSet::new();
        rows.retain(|row| seen.insert(resolved(Path::new(&row.path))));
        if let Some(name) = &self.name {
            rows.retain(|row| row.name == *name);
            // What came from nowhere is in nobody's way, where another of that name came from somewhere.
            if rows.iter().any(|row| !row.source.is_empty()) {
                rows.retain(|row| !row.source.is_empty());
            }
            if rows.is_empty() {
                let targets: Vec<&str> = places.iter().map(|place| place.label.as_str()).collect();
                let target = if targets.len() == 1 { format!("target {}", targets[0]) } else { "any target".into() };
                let hint = Some("skillctl list --installed shows what is installed".to_owned());
                return Err(Error::Unavailable { reason: format!("skill not found: {name} in {target}"), hint }.into());
            }
        }
        let names = rows.iter().map(|row| row.name.clone()).collect();
        if let Some(version) = &self.to {
            let step = |row: Row| Ok(Step { reference: exactly(&row, version)?, version: version.clone(), row });
            return Ok((rows.into_iter().map(step).collect::<Result<_, Error>>()?, names, 0));
        }
        let (found, unknown) = match self.all {
            true => candidates(shell, &self.registry, &rows)?,
            false => (self.newest(shell, &rows)?, 0),
        };
        let step = |(row, candidate): (Row, Option<Candidate>)| {
            let Candidate { version, reference } = candidate?;
            Some(Step { row, reference, version: version.to_string() })
        };
        Ok((rows.into_iter().zip(found).filter_map(step).collect(), names, unknown))
    }

    /// Asks for one skill by name: what cannot be told about it is an error.
    fn newest(&self, shell: &Shell, rows: &[Row]) -> Result<Vec<Option<Candidate>>> {
        let client = self.registry.registry(shell)?;
        let layout = shell.existing_store()?;
        let sources = crate::ops::upgrade::Sources { registry: &client, layout: layout.as_ref() };
        let found = crate::ops::upgrade::newest(sources, rows);
        found.into_iter().map(|found| found.context("Looking for a newer version")).collect()
    }

    fn tell(&self, shell: &Shell, steps: &[Step], current: &[String]) -> Result<ExitCode> {
        let value = |step: &Step| {
            json!({"name": step.row.name, "version": step.row.version, "latest": step.version,
                   "latest_source": step.reference.to_string(), "target": step.row.target, "path": step.row.path})
        };
        match self.format {
            Format::Json => shell.print_json(&steps.iter().map(value).collect::<Vec<_>>())?,
            Format::Text if steps.is_empty() => shell.print(self.nothing(current))?,
            Format::Text => shell.print(steps.iter().map(|step| heading(step) + "\n").collect::<String>())?,
        }
        Ok(if steps.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
    }

    fn nothing(&self, current: &[String]) -> String {
        match &self.name {
            Some(name) if !current.is_empty() => format!("{} is already at the latest version.\n", harmless_line(name)),
            _ => "All skills are up to date.\n".to_owned(),
        }
    }

    fn upgrade(&self, shell: &Shell, step: &Step) -> Result<Installed> {
        let layout = shell.store()?;
        let text = step.reference.to_string();
        let skills = holder(shell, &self.targets, &step.row)?;
        let trust = match self.verify.rule(shell)? {
            Some(rule) if !rule.by().is_empty() => Some(rule),
            // What was signed stays signed.
            given => {
                let receipt = skills.receipt(&step.row.name)?;
                receipt.map(|receipt| receipt.image.rule(layout.policy())).transpose()?.flatten().or(given)
            }
        };
        let rule = Rule { trust: trust.as_ref(), ..Rule::looking(When::Always, Limits::default().size) };
        let (found, reference) = fetch(shell, &layout, &text, rule, &self.registry)?;
        let name = &step.row.name;
        let cancel = shell.cancel();
        let unpack = unpack_options(Limits::default().size, &cancel);
        let manifest = &found.entry.descriptor;
        let contents = Contents::of(&layout, manifest, &unpack)?;
        let source = Source {
            layout: &layout,
            contents: &contents,
            manifest,
            info: &found.info,
            reference: &reference,
            name,
            origin: None,
            trust: trust.as_ref(),
        };
        let options =
            Options { force: self.force, back: None, content: None, any_source: true, unpack, cancel: &cancel };
        let installed = match self.dry_run {
            true => install::preview(&source, Some(&skills), &options)?,
            false => {
                shell.can_record()?;
                let installed = install::install(&source, &skills, &options);
                let events = |one: &Installed| record::installed(Action::Upgrade, one, Path::new(&step.row.path));
                shell.recorded((Action::Upgrade, &text), installed, events)?
            }
        };
        if self.format == Format::Text {
            shell.print(match (self.dry_run, installed.written) {
                (true, _) => heading(step) + "\n" + &listed(&installed.changes),
                (false, true) => said("Upgraded", &step.row, &installed),
                (false, false) => format!("{} is at {} already\n", harmless_line(name), harmless_line(&step.version)),
            })?;
        }
        shell.warnings(&installed.warnings);
        Ok(installed)
    }
}

/// Go back to what was installed before
///
/// Takes the image from the store, so that no network is needed. Files of yours are treated as by upgrade.
#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
    /// The skill, as list --installed shows it
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    targets: TargetArgs,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace files that you changed, and keep them in a backup
    #[arg(long, short)]
    force: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl RollbackArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let places: Vec<Place> = self.targets.places(shell)?;
        if !self.dry_run {
            shell.can_record()?;
        }
        let layout = shell.store()?;
        let cancel = shell.cancel();
        let unpack = unpack_options(Limits::default().size, &cancel);
        let how = How { force: self.force, dry_run: self.dry_run, unpack, cancel: &cancel };
        let mut status = ExitCode::SUCCESS;
        let mut done = Vec::new();
        // Links to one copy go back with it.
        let mut seen = BTreeSet::new();
        let own = places.iter().filter(|place| seen.insert(resolved(&place.path.join(&self.name))));
        for place in own {
            let rolled = (|| {
                let skills = place.open()?.with_context(|| format!("there is no {}", place.path.display()))?;
                let rows = scan_all(shell, std::slice::from_ref(place))?;
                let row = rows.into_iter().find(|row| row.name == self.name);
                let row = row.ok_or_else(|| not_installed(&skills, &self.name))?;
                Ok((rollback(&layout, &holder(shell, &self.targets, &row)?, &self.name, &how)?, row))
            })();
            let events = |(installed, row): &(Installed, Row)| match self.dry_run {
                true => Vec::new(),
                false => record::installed(Action::Rollback, installed, Path::new(&row.path)),
            };
            match shell.recorded((Action::Rollback, &self.name), rolled, events) {
                Ok((installed, row)) => {
                    if self.format == Format::Text {
                        shell.print(match self.dry_run {
                            true => changed(&row, &installed) + "\n" + &listed(&installed.changes),
                            false => said("Rolled back", &row, &installed),
                        })?;
                    }
                    shell.warnings(&installed.warnings);
                    let mut value = serde_json::to_value(&installed)?;
                    value["target"] = json!(row.target);
                    value["path"] = json!(row.path);
                    done.push(value);
                }
                Err(e) => status = shell.fail(&anyhow::Error::context(e, format!("Rolling back {}", self.name))),
            }
        }
        if self.format == Format::Json {
            shell.print_json(&done)?;
        }
        Ok(status)
    }
}

/// Returns the directory of skills that has the skill itself: where the row is a link that we made, the shared one.
fn holder(shell: &Shell, targets: &TargetArgs, row: &Row) -> Result<SkillsDir> {
    let places = targets.places_or_all(shell)?;
    let own = |place: &&Place| place.path.join(&row.name) == Path::new(&row.path);
    let place = places.iter().find(own).with_context(|| format!("{} is in no directory that was named", row.path))?;
    let skills = place.open()?.with_context(|| format!("there is no {}", place.path.display()))?;
    if !skills.metadata(&row.name)?.is_some_and(|metadata| metadata.is_symlink()) {
        return Ok(skills);
    }
    let shared = targets.shared(shell)?.open()?;
    match shared {
        Some(shared) if is_link_to(&skills, &row.name, &shared)? => Ok(shared),
        _ => {
            let reason = format!("{} is a symbolic link that skillctl did not make", row.path);
            Err(Error::Unavailable { reason, hint: Some("see to what it leads to, there".into()) }.into())
        }
    }
}

fn heading(step: &Step) -> String {
    let way = match Version::parse(&step.version) {
        Ok(version) => self::step(&step.row.version, &version),
        Err(_) => format!("{} → {}", harmless_line(&step.row.version), harmless_line(&step.version)),
    };
    format!("{} {way} ({})", harmless_line(&step.row.name), harmless_line(&step.row.target))
}

fn changed(row: &Row, installed: &Installed) -> String {
    let (name, target) = (harmless_line(&row.name), harmless_line(&row.target));
    format!("{name} {} → {} ({target})", harmless_line(&row.version), harmless_line(&installed.version))
}

fn said(what: &str, row: &Row, installed: &Installed) -> String {
    format!("{what} {}\n{}", changed(row, installed), backup(installed.backup.as_deref()))
}
