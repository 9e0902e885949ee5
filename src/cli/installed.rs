//! `list --installed`

use std::process::ExitCode;

use anyhow::Result;
use semver::Version;
use serde::Serialize;

use super::install::unpack_options;
use super::registry::RegistryArgs;
use super::shell::{Format, NO, Shell};
use super::targets::{Place, TargetArgs};
use crate::error::Error;
use crate::limits::Limits;
use crate::ops::installed::{Row, Verified, scan, verify};
use crate::ops::upgrade::{Candidate, Sources, is_elsewhere, newest};
use crate::output::{cell, harmless_line, table};

/// What is asked of the skills that are installed.
#[derive(Debug, Clone, Copy)]
pub struct Installed<'a> {
    /// Where they are.
    pub targets: &'a TargetArgs,
    /// How registries are reached.
    pub registry: &'a RegistryArgs,
    /// How the list is printed.
    pub format: Format,
}

/// A skill with a newer version.
#[derive(Serialize)]
struct Upgradable {
    #[serde(flatten)]
    row: Row,
    latest: String,
    latest_source: String,
}

impl Installed<'_> {
    /// Lists them.
    pub fn list(self, shell: &Shell) -> Result<ExitCode> {
        let rows: Vec<Row> = scan_all(shell, &self.targets.places_or_all(shell)?)?;
        if self.format == Format::Json {
            shell.print_json(&rows)?;
            return Ok(ExitCode::SUCCESS);
        }
        let cells = |row: &Row| [&row.name, &row.version, source(row), &row.target].map(cell).to_vec();
        print(shell, "No installed skills found.\n", &["NAME", "VERSION", "SOURCE", "TARGET"], rows.iter().map(cells))
    }

    /// Lists those of which there is a newer version.
    pub fn upgradable(self, shell: &Shell) -> Result<ExitCode> {
        let rows: Vec<Row> = scan_all(shell, &self.targets.places_or_all(shell)?)?;
        let (found, failed) = candidates(shell, self.registry, &rows)?;
        let upgradable = rows.into_iter().zip(found).filter_map(|(row, found)| found.map(|found| (row, found)));
        let rows: Vec<Upgradable> = upgradable
            .map(|(row, found)| Upgradable {
                row,
                latest: found.version.to_string(),
                latest_source: found.reference.to_string(),
            })
            .collect();
        if self.format == Format::Json {
            shell.print_json(&rows)?;
            return Ok(ExitCode::SUCCESS);
        }
        let cells = |row: &Upgradable| {
            [&row.row.name, &row.row.version, &row.latest, &row.latest_source, &row.row.target]
                .map(|text| cell(text))
                .to_vec()
        };
        let heading = ["NAME", "VERSION", "LATEST", "SOURCE", "TARGET"];
        let none = if failed == 0 { "All installed skills are up to date.\n" } else { "No newer version was found.\n" };
        print(shell, none, &heading, rows.iter().map(cells))
    }

    /// Says how they differ from what was installed; the exit status says whether any does.
    pub fn verify(self, shell: &Shell) -> Result<ExitCode> {
        let layout = shell.existing_store()?;
        let cancel = shell.cancel();
        let options = unpack_options(Limits::default().size, &cancel);
        let mut all: Vec<Verified> = Vec::new();
        for place in self.targets.places_or_all(shell)? {
            if let Some(skills) = place.open()? {
                let _reading = skills.reading(&cancel)?;
                all.extend(verify(&skills, &place.label, layout.as_ref(), &options)?);
            }
        }
        let fine = all.iter().all(|one| one.differences.is_empty() && one.unknown.is_none());
        match self.format {
            Format::Json => shell.print_json(&all)?,
            Format::Text if all.is_empty() => shell.print("No installed skills found.\n")?,
            Format::Text => shell.print(all.iter().map(verified).collect::<String>())?,
        }
        Ok(if fine { ExitCode::SUCCESS } else { ExitCode::from(NO) })
    }
}

/// Returns the skills of all places, sorted by target and name as the Go tool sorts them.
pub fn scan_all(shell: &Shell, places: &[Place]) -> Result<Vec<Row>> {
    let cancel = shell.cancel();
    let look = |place: &Place| -> Result<(Vec<Row>, Vec<String>)> {
        let Some(skills) = place.open()? else { return Ok(Default::default()) };
        let _reading = skills.reading(&cancel)?;
        scan(&skills, &place.label)
    };
    // Some hundred small files in each: two at a time.
    let middle = places.len() / 2;
    let (one, other) = places.split_at(middle);
    let several = |places: &[Place]| places.iter().map(look).collect::<Result<Vec<_>>>();
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| several(other));
        (several(one), other.join().unwrap_or_else(|_| Err(Error::interrupted().into())))
    });
    let mut rows = Vec::new();
    for (found, warnings) in one?.into_iter().chain(other?) {
        rows.extend(found);
        for warning in warnings {
            shell.warn(format!("Warning: {}", harmless_line(&warning)));
        }
    }
    rows.sort_by(|a: &Row, b: &Row| (&a.target, &a.name).cmp(&(&b.target, &b.name)));
    Ok(rows)
}

/// Returns the newer version of each skill, where there is one, and the number of those of which that could not be told,
/// which is said on stderr.
pub fn candidates(shell: &Shell, registry: &RegistryArgs, rows: &[Row]) -> Result<(Vec<Option<Candidate>>, usize)> {
    let client = registry.registry(shell)?;
    let layout = shell.existing_store()?;
    let sources = Sources { registry: &client, layout: layout.as_ref() };
    let found = newest(sources, rows);
    let mut failed = 0;
    let checked = found.into_iter().zip(rows).map(|(found, row)| match found {
        Ok(candidate) => candidate,
        // Nothing to be said of what comes from no registry.
        Err(_) if row.source.is_empty() || is_elsewhere(&row.source) => None,
        Err(e) => {
            shell.warn(format!(
                "Warning: cannot check {}: {}",
                harmless_line(&row.name),
                harmless_line(&e.to_string())
            ));
            failed += 1;
            None
        }
    });
    let checked = checked.collect();
    Ok((checked, failed))
}

/// Returns what an upgrade is called: versions are compared by SemVer, and shown as they were written.
pub fn step(before: &str, after: &Version) -> String {
    format!("{} → {after}", harmless_line(before))
}

fn source(row: &Row) -> &str {
    if row.source.is_empty() { "(local)" } else { &row.source }
}

fn print(shell: &Shell, empty: &str, heading: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<ExitCode> {
    let rows: Vec<Vec<String>> = rows.collect();
    shell.print(if rows.is_empty() { empty.to_owned() } else { table(heading, &rows) })?;
    Ok(ExitCode::SUCCESS)
}

fn verified(one: &Verified) -> String {
    let name = format!("{} ({})", harmless_line(&one.row.name), harmless_line(&one.row.target));
    if let Some(why) = &one.unknown {
        return format!("? {name}: {}\n", harmless_line(why));
    }
    if one.differences.is_empty() {
        return format!("✓ {name} is as it was installed\n");
    }
    let lines = one.differences.iter().map(|difference| format!("  {}\n", harmless_line(&difference.to_string())));
    format!("✗ {name} has {} difference(s):\n", one.differences.len()) + &lines.collect::<String>()
}
