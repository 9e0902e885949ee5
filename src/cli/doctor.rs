//! `doctor`

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use chrono::{TimeDelta, Utc};
use serde_json::Value;

use super::hook;
use super::shell::{Format, NO, Shell};
use crate::ops::doctor::{self, Check, Kept, Level};
use crate::output::{harmless_line, relative};
use crate::reference::Reference;
use crate::store::layout::Layout;
use crate::store::read_only::SYSTEM_STORE;

/// How long a failure of the hook is told: it may have been mended since. The log has all of them.
const RECENT: TimeDelta = TimeDelta::days(1);

/// Say what is here, what is missing, and how to mend it
///
/// Looks at the store, containers-storage and the programs that are used. Exit status 1 if something will not work.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print the checks
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let checks = checks(shell)?;
        match self.format {
            Format::Json => shell.print_json(&checks)?,
            Format::Text => shell.print(checks.iter().map(line).collect::<String>())?,
        }
        let failed = checks.iter().any(|check| check.level == Level::Fail);
        Ok(if failed { ExitCode::from(NO) } else { ExitCode::SUCCESS })
    }
}

fn checks(shell: &Shell) -> Result<Vec<Check>> {
    let tools = shell.tools();
    let path = shell.store_path()?;
    let layout = shell.own_store();
    let entries = match &layout {
        Ok(Some(layout)) => layout.entries().unwrap_or_default(),
        _ => Vec::new(),
    };
    let images: Vec<(String, String)> = entries
        .iter()
        .filter_map(|e| Some((e.name.as_deref()?.parse::<Reference>().ok()?.in_storage(), e.digest().to_owned())))
        .collect();
    let policed = match &layout {
        Ok(Some(layout)) => shell.canary().ask(layout, &tools),
        _ => None,
    };
    let size = layout.and_then(|layout| layout.as_ref().map(size).transpose()).map_err(|e| format!("{e:#}"));
    let storage = shell.storage().map_err(|e| format!("{e:#}"));
    let mut checks = vec![doctor::store(&path, size)];
    checks.extend(read_only_stores(shell));
    let go = shell.env.go_store_path().filter(|go| *go != path && go.join("oci-layout").exists());
    checks.extend(go.as_deref().map(doctor::go_store));
    checks.push(doctor::storage(storage.as_ref().map_err(Clone::clone), &images));
    let dirs = storage.as_ref().map(|storage| storage.conf().policy_dirs.clone()).unwrap_or_default();
    let policies: Vec<_> = dirs
        .iter()
        .map(|dir| dir.join("policy.json"))
        .filter_map(|file| fs::read_to_string(&file).ok().map(|text| (file, text)))
        .collect();
    let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    checks.extend(doctor::policy(&real, &policies));
    checks.push(doctor::trust(&shell.policy()));
    checks.push(doctor::skopeo(&tools, policed));
    checks.push(doctor::podman(&tools));
    checks.push(hook(shell, &path)?);
    if shell.env.uid != 0 {
        let user = shell.env.user.clone().unwrap_or_else(|| shell.env.uid.to_string());
        let subuid = fs::read_to_string("/etc/subuid").unwrap_or_default();
        checks.push(doctor::rootless(&user, &subuid, shell.env.find_program("newuidmap").is_some()));
    }
    Ok(checks)
}

/// Looks at the stores that are only read, those that were named and that of an image of the operating system.
fn read_only_stores(shell: &Shell) -> Vec<Check> {
    let look = |path: PathBuf, is_named| {
        let size = shell.open_store(&path).and_then(|store| store.as_ref().map(size).transpose());
        doctor::read_only_store(&path, size.map_err(|e| format!("{e:#}")), is_named)
    };
    let added = shell.added_stores().into_iter().filter_map(|path| look(path, true));
    added.chain(look(SYSTEM_STORE.into(), false)).collect()
}

/// Looks at the hook, and at the last line of its log, which is beside the store, that is an error of the last day.
fn hook(shell: &Shell, store: &Path) -> Result<Check> {
    let log = store.with_file_name(hook::LOG);
    let text = fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let last = last.into_iter().find(|line| line["level"] == "error").and_then(|line| kept(&line));
    let last = last.as_ref();
    Ok(match hook::state(shell) {
        Ok((enabled, problems)) => doctor::hook(enabled, &problems, last),
        Err(e) => doctor::hook(false, &[hook::broken(&e)], last),
    })
}

/// Reads a line of the log, where it is recent.
fn kept(line: &Value) -> Option<Kept> {
    let (text, now) = (|key: &str| line[key].as_str().map(str::to_owned), Utc::now());
    let time = text("time").filter(|time| *time > (now - RECENT).format(hook::TIME).to_string())?;
    Some(Kept { ago: relative(&time, now), time, container: text("container"), message: text("message")? })
}

/// Returns the number of entries and of bytes of a store.
fn size(layout: &Layout) -> Result<(usize, u64)> {
    let entries = layout.entries()?.len();
    Ok((entries, layout.size()?))
}

fn line(check: &Check) -> String {
    let level = match check.level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Fail => "fail",
    };
    let fix = check.fix.as_ref().map(|fix| format!("      fix: {}\n", harmless_line(fix))).unwrap_or_default();
    format!("{level:<5} {:<19} {}\n{fix}", check.name, harmless_line(&check.message))
}
