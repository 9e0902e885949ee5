//! `hook enable`, `disable` and `status`: for all users as root, else for oneself.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use nix::sys::stat::{Mode, umask};
use serde::Serialize;
use serde_json::Value;

use super::super::shell::{Format, NO, Shell, hint_of};
use super::{ETC, policy_at};
use crate::error::Error;
use crate::hook::dropin;
use crate::hook::policy;
use crate::ops::doctor::{Level, Problem};
use crate::process::version;

/// The hook's file, in whatever directory.
const HOOK: &str = "50-skillctl.json";
/// The program, which is beside this one.
const PROGRAM: &str = "skillctl-hook";
/// What mends what hook enable has written.
const ENABLE: &str = "skillctl hook enable";
/// The file as we write it where no package has; the program's path is filled in.
const TEMPLATE: &str = include_str!("../../../hooks/podman/50-skillctl.json");

const ENABLE_EXAMPLES: &str = "\
Examples:
  skillctl hook enable
  podman run --annotation io.skillimage.skills=acme/hr:1.0.0 IMAGE";

/// Have podman start the hook: for all users as root, else for yourself
///
/// Writes a drop-in of containers.conf that lists our directory of hooks after all others, which go on working. Doing it
/// twice changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = ENABLE_EXAMPLES)]
pub struct EnableArgs {}

/// Have podman not start the hook any more
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  skillctl hook disable")]
pub struct DisableArgs {}

const STATUS: &str = "\
Examples:
  skillctl hook status
  skillctl hook status --format json";

/// Say whether podman starts the hook, and whether it can
///
/// Exit status 1 where it does not, or where something is wrong: without its program podman starts containers without their skills, and
/// with a mistake in hook.toml no container gets any.
#[derive(Debug, clap::Args)]
#[command(after_long_help = STATUS)]
pub struct StatusArgs {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Where podman's configuration is.
struct Place<'a> {
    shell: &'a Shell,
    /// `/etc`, or the directory of the user's own configuration.
    conf: PathBuf,
}

#[derive(Debug, Serialize)]
struct Status {
    /// Whether podman starts the hook; it may then still deny everything.
    enabled: bool,
    /// The hook that podman starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<PathBuf>,
    /// The hook of the runtime specification, which CRI-O starts, and podman where it has no other of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime_hook: Option<PathBuf>,
    /// The program that the hook names.
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<PathBuf>,
    /// The directories that podman reads, in order.
    directories: Vec<String>,
    /// The policy, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<PathBuf>,
    /// What is wrong.
    problems: Vec<Problem>,
}

/// Returns whether podman starts the hook, and what is wrong where somebody has enabled it.
pub fn state(shell: &Shell) -> Result<(bool, Vec<Problem>)> {
    let status = Place::of(shell)?.status()?;
    let problems = if status.hook.is_some() { status.problems } else { Vec::new() };
    Ok((status.enabled, problems))
}

/// Returns what is wrong where podman's configuration cannot be read: podman does not start with it either.
pub fn broken(error: &anyhow::Error) -> Problem {
    Problem { what: format!("{error:#}"), level: Level::Fail, fix: hint_of(error) }
}

impl<'a> Place<'a> {
    fn of(shell: &'a Shell) -> Result<Self> {
        let conf = if shell.env.uid == 0 { ETC.into() } else { shell.config_home()? };
        Ok(Self { shell, conf })
    }

    fn drop_in(&self) -> PathBuf {
        self.conf.join("containers/containers.conf.d").join(dropin::FILE)
    }

    /// Returns podman's files but for our own, or also that, in the order in which they are read.
    ///
    /// # Errors
    /// For one that cannot be read: podman does not start with it either.
    fn files(&self, with_ours: bool) -> Result<Vec<(PathBuf, String)>> {
        let mut paths = vec![PathBuf::from("/usr/share/containers/containers.conf")];
        let mut roots = vec![PathBuf::from(ETC)];
        if self.conf != Path::new(ETC) {
            roots.push(self.conf.clone());
        }
        for root in roots {
            paths.push(root.join("containers/containers.conf"));
            let dir = fs::read_dir(root.join("containers/containers.conf.d"));
            let mut drop_ins: Vec<PathBuf> = dir.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            drop_ins.retain(|path| path.extension().is_some_and(|end| end == "conf"));
            drop_ins.sort();
            paths.extend(drop_ins);
        }
        let own = self.drop_in();
        paths.retain(|path| with_ours || *path != own);
        let read = |path: PathBuf| match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            read => Some(read.with_context(|| format!("Reading {}", path.display())).map(|text| (path, text))),
        };
        paths.into_iter().filter_map(read).collect()
    }

    /// Returns the directory with our hook: that of the package, else one that we fill.
    fn hooks(&self) -> (PathBuf, bool) {
        let program = std::env::current_exe().ok();
        let package = program.and_then(|program| Some(program.parent()?.parent()?.join("share/skillctl/hooks.d")));
        match package.filter(|dir| dir.join(HOOK).is_file()) {
            Some(dir) => (dir, true),
            None => (self.conf.join("skillctl/hooks.d"), false),
        }
    }

    fn status(&self) -> Result<Status> {
        let directories = dropin::effective(&self.files(true)?)?;
        let found = directories.iter().rev().map(|dir| Path::new(dir).join(HOOK)).find(|hook| hook.is_file());
        let runtime_hook = Some(Path::new(dropin::DEFAULT).join(HOOK)).filter(|hook| hook.is_file());
        let mut problems = Vec::new();
        if found.is_none() {
            problems.push(Problem::fail("podman starts no hook of skillctl", ENABLE));
        }
        let program = found.as_deref().and_then(|hook| self.program(hook, &mut problems));
        let enabled = problems.is_empty();
        if let Some(hook) = runtime_hook.as_deref().filter(|hook| found.as_deref() != Some(hook)) {
            self.program(hook, &mut problems);
        }
        if let Some(path) = &self.shell.env.containers_conf {
            let what = format!("the environment has podman read {}, which is not looked at here", path.display());
            problems.push(Problem::warn(what, None));
        }
        let policy = Path::new(ETC).join(policy::FILE);
        let read = policy_at(&policy);
        problems.extend(read.as_ref().err().map(|e| mistake(&policy, e)));
        problems.extend(self.stale()?);
        Ok(Status {
            enabled,
            hook: found,
            runtime_hook,
            program,
            directories,
            policy: (!matches!(read, Ok(None))).then_some(policy),
            problems,
        })
    }

    /// Returns the program that a hook's file names, and adds why it would not be started.
    fn program(&self, hook: &Path, problems: &mut Vec<Problem>) -> Option<PathBuf> {
        let named = || {
            let text = fs::read_to_string(hook).map_err(|e| format!("{}: {e}", hook.display()))?;
            let value: Value =
                serde_json::from_str(&text).map_err(|e| format!("{} is no JSON: {e}", hook.display()))?;
            let program = value["hook"]["path"].as_str().map(PathBuf::from);
            program.ok_or_else(|| format!("{} names no program", hook.display()))
        };
        let own = self.hooks().0.join(HOOK) == hook;
        let bad = |what| Problem::fail(what, if own { ENABLE.to_owned() } else { reinstall(hook) });
        let program = named().map_err(|what| problems.push(bad(what))).ok()?;
        let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(PROGRAM));
        let is_elsewhere = beside.is_some_and(|beside| beside != program && beside.is_file());
        let fix = match program.exists() {
            false if own && is_elsewhere => ENABLE.to_owned(),
            false => "install it there: the package skillctl has it, and make install brings it".into(),
            true => "install it where all users can start it, for example in /usr/local/bin".into(),
        };
        let missing = self.reachable(&program).map(|what| Problem::fail(what, fix));
        let unread = || self.reachable(hook).map(|what| Problem::fail(what, format!("chmod a+r {}", hook.display())));
        problems.extend(missing.or_else(unread));
        Some(program)
    }

    /// Returns what keeps those for whom the hook is from starting a program, or reading a file: for root's hook all users.
    fn reachable(&self, path: &Path) -> Option<String> {
        let Ok(metadata) = path.metadata() else {
            let what = "containers are started without their skills, and nothing says so";
            return Some(format!("{} is not there: {what}", path.display()));
        };
        // By the bits of the owner for oneself, and else by those of all others.
        let shift = if self.conf == Path::new(ETC) { 0 } else { 6 };
        let wanted = if path.extension().is_some_and(|end| end == "json") { 0o4 } else { 0o5 };
        if metadata.permissions().mode() >> shift & wanted != wanted {
            return Some(format!("{} cannot be used by all whose containers it is for", path.display()));
        }
        let closed = |dir: &&Path| dir.metadata().is_ok_and(|found| found.permissions().mode() & 0o1 == 0);
        let closed = path.ancestors().skip(1).find(closed).filter(|_| shift == 0);
        closed.map(|dir| format!("{} is below {}, which other users cannot enter", path.display(), dir.display()))
    }

    /// Returns what is wrong where our file has a whole list that other files have changed since.
    fn stale(&self) -> Result<Option<Problem>> {
        let Ok(text) = fs::read_to_string(self.drop_in()) else { return Ok(None) };
        if !dropin::is_ours(&text) {
            return Ok(None);
        }
        let others = dropin::effective(&self.files(false)?)?;
        let ours = dropin::effective(&[(self.drop_in(), text)])?;
        let lost = others.iter().find(|dir| !ours.contains(dir) && !dropin::appends(self.podman()));
        let what = |dir: &String| format!("hooks in {dir} are not started any more: {ENABLE} adds it again");
        Ok(lost.map(|dir| Problem::warn(what(dir), Some(ENABLE))))
    }

    fn podman(&self) -> Option<crate::process::Version> {
        version(&self.shell.tools().podman())
    }
}

/// Returns what is wrong with a policy that cannot be read or understood.
fn mistake(policy: &Path, error: &Error) -> Problem {
    let path = policy.display();
    let fix = match error {
        Error::Io { .. } => format!("make {path} a file that all users can read, or remove it"),
        _ => format!("edit {path}: skillctl-hook.toml(5) has what may be in it"),
    };
    Problem::fail(format!("{error}: no container gets any skill"), fix)
}

fn reinstall(hook: &Path) -> String {
    format!("reinstall the package that has {}", hook.display())
}

impl EnableArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let place = Place::of(shell)?;
        // Before anything is written: the hook would deny every container its skills.
        let policy = Path::new(ETC).join(policy::FILE);
        if let Err(e) = policy_at(&policy) {
            let Problem { what, fix, .. } = mistake(&policy, &e);
            return Err(Error::Unavailable { reason: what, hint: fix }.into());
        }
        let (hooks, packaged) = place.hooks();
        let drop_in = place.drop_in();
        if fs::read_to_string(&drop_in).is_ok_and(|text| !dropin::is_ours(&text)) {
            let reason = format!("{} is not as hook enable writes it", drop_in.display());
            return Err(Error::Unavailable { reason, hint: Some("move it away".into()) }.into());
        }
        if !packaged {
            let program = std::env::current_exe().context("Finding this program")?.with_file_name(PROGRAM);
            if let Some(problem) = place.reachable(&program) {
                let hint = Some("install it where all users can start it, for example in /usr/local/bin".into());
                return Err(Error::Unavailable { reason: problem, hint }.into());
            }
            let bin = program.parent().unwrap_or(Path::new("/")).display().to_string();
            let text = TEMPLATE.replace("@BINDIR@", bin.trim_end_matches('/'));
            // The path is filled in as it is: what JSON would have to escape is refused.
            let mut hook: Value =
                serde_json::from_str(&text).with_context(|| format!("Naming {}", program.display()))?;
            if hook["hook"]["path"].as_str().map(Path::new) != Some(&program) {
                let reason = format!("{} has a path that no hook can have", program.display());
                return Err(Error::Unavailable {
                    reason,
                    hint: Some("install it elsewhere, for example in /usr/local/bin".into()),
                }
                .into());
            }
            // What an admin has set stays, such as SKILLCTL_STORE.
            let old =
                fs::read_to_string(hooks.join(HOOK)).ok().and_then(|old| serde_json::from_str::<Value>(&old).ok());
            for key in ["env", "timeout"] {
                if let Some(value) = old.as_ref().and_then(|old| old["hook"].get(key)) {
                    hook["hook"][key] = value.clone();
                }
            }
            write(&hooks.join(HOOK), &(serde_json::to_string_pretty(&hook)? + "\n"))?;
        }
        let others = dropin::effective(&place.files(false)?)?;
        let ours = hooks.display().to_string();
        let listed = others.iter().rev().find(|dir| Path::new(dir).join(HOOK).is_file()) == Some(&ours);
        if !listed {
            write(&drop_in, &dropin::render(&ours, &others, dropin::appends(place.podman())))?;
        }
        let status = place.status()?;
        if let Some(problem) = status.problems.first() {
            return Err(Error::Unavailable { reason: problem.what.clone(), hint: problem.fix.clone() }.into());
        }
        let who = if shell.env.uid == 0 { "all users" } else { "you" };
        shell.print(format!("podman starts the hook for {who}: {}\n", hooks.join(HOOK).display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl DisableArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let place = Place::of(shell)?;
        let drop_in = place.drop_in();
        match fs::read_to_string(&drop_in) {
            Ok(text) if !dropin::is_ours(&text) => {
                let reason = format!("{} is not as hook enable writes it", drop_in.display());
                return Err(Error::Unavailable { reason, hint: Some("remove it by hand".into()) }.into());
            }
            Ok(_) => fs::remove_file(&drop_in).with_context(|| format!("Removing {}", drop_in.display()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("Reading {}", drop_in.display())),
        }
        let (hooks, packaged) = place.hooks();
        if !packaged {
            match fs::remove_file(hooks.join(HOOK)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(e).with_context(|| format!("Removing {}", hooks.join(HOOK).display()));
                }
                _ => {}
            }
        }
        match place.status()?.hook {
            Some(hook) => shell.print(format!("podman still starts {}\n", hook.display()))?,
            None => shell.print("podman starts no hook of skillctl\n")?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl StatusArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let status = Place::of(shell)?.status()?;
        match self.format {
            Format::Json => shell.print_json(&status)?,
            Format::Text => shell.print(text(&status))?,
        }
        Ok(if status.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
    }
}

fn text(status: &Status) -> String {
    let path = |path: &Option<PathBuf>, none: &str| path.as_ref().map_or(none.to_owned(), |p| p.display().to_string());
    let mut text = format!("Enabled:      {}\n", if status.enabled { "yes" } else { "no" });
    text += &format!("Hook:         {}\n", path(&status.hook, "none"));
    // It is CRI-O's: who has podman alone needs none.
    if status.runtime_hook.is_some() {
        text += &format!("Runtime hook: {}\n", path(&status.runtime_hook, "none"));
    }
    text += &format!("Program:      {}\n", path(&status.program, "none"));
    text += &format!("Directories:  {}\n", status.directories.join(", "));
    text += &format!("Policy:       {}\n", path(&status.policy, "none: any skill of the store in any state"));
    for problem in &status.problems {
        text += &format!("Problem:      {}\n", problem.what);
        text += &problem.fix.as_ref().map(|fix| format!("Fix:          {fix}\n")).unwrap_or_default();
    }
    text
}

/// Writes a file whole, beside and renamed, unless it is so already, and brings it to disk; all users can read it, whatever the umask.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let context = || format!("Writing {}", path.display());
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let before = umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let dir = path.parent().unwrap_or(Path::new("/"));
    let beside = dir.join(format!(".{}.{}", path.file_name().unwrap_or_default().display(), std::process::id()));
    let written = fs::create_dir_all(dir).and_then(|()| {
        fs::write(&beside, text)?;
        fs::File::open(&beside)?.sync_all()?;
        fs::rename(&beside, path)?;
        match fs::File::open(dir)?.sync_all() {
            // Some file systems have no such thing for a directory.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced,
        }
    });
    umask(before);
    written.with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_and_not_needed_is_not_told() {
        let mut status = Status {
            enabled: true,
            hook: Some("/h/50-skillctl.json".into()),
            runtime_hook: None,
            program: Some("/b/skillctl-hook".into()),
            directories: vec!["/h".into()],
            policy: None,
            problems: vec![Problem::fail("p", "f"), Problem::warn("q", None)],
        };
        let lines = |status: &Status| {
            text(status).lines().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let all = ["Enabled", "Hook", "Program", "Directories", "Policy", "Problem", "Fix", "Problem"];
        assert_eq!(lines(&status), all);
        status.runtime_hook = Some("/r/50-skillctl.json".into());
        assert_eq!(lines(&status)[2], "Runtime hook");
        assert_eq!(serde_json::json!(status)["problems"], serde_json::json!(["p", "q"]));
    }
}
