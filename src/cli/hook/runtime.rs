//! The program `skillctl-hook`, which container runtimes start.
//!
//! It is one of its own because it is part of each start of a container: with what only `skillctl` needs (TLS, schemas, the command
//! line) linked into it, starting it would take longer than all that it does.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use cap_std::fs::OpenOptionsExt as _;
use chrono::Utc;
use nix::sys::stat::{Mode, umask};
use serde_json::json;

use super::super::journal;
use super::super::record::user;
use super::super::shell::{FAILED, NO, absolute, cancel_on_signals, fail, label, open_dir};
use super::audited::Mounts;
use crate::env::Env;
use crate::error::Error;
use crate::hook::create::{self, State};
use crate::hook::place::Place;
use crate::hook::policy::{self, LogTo, Policy};
use crate::hook::request::SKILLS;
use crate::hook::spec::{MAX_SPEC, Spec};
use crate::hook::{self, Bound, Host, SYSTEM_DATA};
use crate::output::harmless_line;
use crate::process::Cancel;
use crate::store::registries_conf::ConfPaths;
use crate::trust::policy::Policy as Trust;

/// The log beside the store.
pub const LOG: &str = "hook.log";
/// How the log says when, in UTC.
pub const TIME: &str = "%Y-%m-%dT%H:%M:%SZ";
/// Characters of an annotation that a line of the log has.
const MAX_ASKS: usize = 512;
/// Bytes of a usual configuration.
const SPEC: usize = 64 << 10;
/// Size from which a new log is begun, in bytes.
const MAX_LOG: u64 = 256 << 10;

/// What starts it wrongly is told.
const USAGE: &str = "\
usage: skillctl-hook precreate|createContainer

Container runtimes start it: see skillctl-hook(1), and skillctl hook enable.
";

/// Runs the hook of the stage that is named, and returns the exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().skip(1).collect();
    let stage = match args.as_slice() {
        [stage] => stage.to_str(),
        _ => None,
    };
    own_modes();
    let host = Shell { env: Env::read(), cancel: cancel_on_signals() };
    let done = match stage {
        Some("precreate") => precreate(&host),
        Some("createContainer") => create_container(&host),
        Some("--version") => pass_on(concat!("skillctl-hook version ", env!("CARGO_PKG_VERSION"), "\n")),
        Some("--help" | "-h") => pass_on(USAGE),
        _ => {
            let _ = io::stderr().write_all(USAGE.as_bytes());
            return ExitCode::from(FAILED);
        }
    };
    done.unwrap_or_else(|e| {
        fail(&e);
        ExitCode::from(FAILED)
    })
}

/// What the hook is started with.
struct Shell {
    env: Env,
    cancel: Cancel,
}

/// `precreate`: a configuration comes, and goes on with more mounts.
fn precreate(shell: &Shell) -> Result<ExitCode> {
    let text = read_stdin("the runtime configuration")?;
    let spec = Spec::parse(&text)?;
    // Only containers that ask for skills depend on anything of ours: no policy can stop others.
    let Some(asks) = spec.annotation(SKILLS) else { return pass_on(&text) };
    let host = host(shell);
    let place = Place::of(&spec, shell.env.cwd.as_deref());
    let mounts = Mounts::of(&shell.env, place.as_ref());
    let log = Log::at(shell, place, asks, &host);
    let done = host.and_then(|host| hook::precreate(&spec, &host));
    // Before podman has it: there is no container with skills that were to be recorded and are not. Copies are made later.
    let bound = |(_, bound): &(String, Vec<Bound>)| bound.iter().filter(|bound| bound.is_mounted()).cloned().collect();
    let done = mounts.recorded(done, asks, bound, |why| log.warn(why));
    match log.told(done) {
        Some((text, bound)) => {
            log.bound(&bound);
            pass_on(&text)
        }
        None => Ok(ExitCode::from(NO)),
    }
}

/// `createContainer`: a state comes, and the skills are in the container when we end.
fn create_container(shell: &Shell) -> Result<ExitCode> {
    let text = read_stdin("the container's state")?;
    let state = State::parse(&text)?;
    let Some(asks) = state.skills() else { return Ok(ExitCode::SUCCESS) };
    let host = host(shell);
    // By the bundle alone: the configuration in it may be out of reach.
    let place = Place::at(state.bundle());
    let mounts = Mounts::of(&shell.env, place.as_ref());
    let log = Log::at(shell, place, asks, &host);
    let done = host.and_then(|host| create::create_container(&state, &host));
    let done = mounts.recorded(done, asks, Clone::clone, |why| log.warn(why));
    Ok(match log.told(done) {
        Some(bound) => {
            log.bound(&bound);
            ExitCode::SUCCESS
        }
        None => ExitCode::from(NO),
    })
}

/// Some runtimes start hooks with a umask of 0, with which all users could write to what we make.
fn own_modes() {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
}

fn read_stdin(what: &str) -> Result<String, Error> {
    let damaged = |reason: &str| Error::damaged(format!("{what} on stdin"), reason);
    // As much as podman's have, so that nothing is moved while it is read.
    let mut bytes = Vec::with_capacity(SPEC);
    io::stdin().lock().take(MAX_SPEC + 1).read_to_end(&mut bytes).map_err(Error::io("stdin"))?;
    if bytes.len() as u64 > MAX_SPEC {
        return Err(damaged(&format!("it is larger than {MAX_SPEC} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| damaged("it is no UTF-8"))
}

/// Prints a configuration whole: podman must not get half of one with exit status 0.
fn pass_on(text: &str) -> Result<ExitCode> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Error::io("stdout"))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the policy; `None` where there is none, which a link to nothing is not.
pub fn policy_at(path: &Path) -> Result<Option<Policy>, Error> {
    let shown = path.display().to_string();
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => {
            let text = fs::read_to_string(path).map_err(Error::io(shown.clone()))?;
            Policy::parse(&text, &shown).map(Some)
        }
    }
}

fn host(shell: &Shell) -> Result<Host, Error> {
    let path = Path::new(super::ETC).join(policy::FILE);
    let policy = policy_at(&path)?;
    let program = std::env::current_exe().map_err(Error::io("/proc/self/exe"))?;
    let store = shell.env.store.clone();
    let add_stores = shell.env.add_stores.iter().filter_map(|path| absolute(Some(path))).collect();
    let make = |path: &Path| {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        open_dir(path)
    };
    let cwd = shell.env.cwd.clone();
    let cancel = shell.cancel.clone();
    Ok(Host { store, add_stores, program, policy, trust, open: open_dir, make, cwd, label: label(), cancel })
}

/// Reads what has to hold of images: what the machine asks for, and what the user does whose storage it is, where that has the usual
/// place in the home directory. The environment is empty.
fn trust(data: Option<&Path>) -> Trust {
    let home = data.filter(|data| data.ends_with(".local/share/skillctl")).and_then(|data| data.ancestors().nth(3));
    let own = home.map(|home| home.join(".config"));
    // Root of a user namespace is not the machine's.
    let conf = || ConfPaths { uid: user().uid, home: home.map(Path::to_owned), ..ConfPaths::default() };
    super::super::policy::read([Path::new(super::ETC)].into_iter().chain(own.as_deref()), conf)
}

/// What the hook says: nobody sees its stderr but the journal and a file beside the store, since podman drops it.
struct Log {
    data: PathBuf,
    container: Option<String>,
    asks: String,
    to: Vec<LogTo>,
}

impl Log {
    /// Returns the log of a container; what is wrong with the policy itself is told everywhere.
    fn at(shell: &Shell, place: Option<Place>, asks: &str, host: &Result<Host, Error>) -> Self {
        let policy = host.as_ref().ok().and_then(|host| host.policy.as_ref());
        let named = shell.env.store.as_deref().and_then(Path::parent).map(Path::to_owned);
        let container = place.as_ref().and_then(Place::id).map(str::to_owned);
        let data = named.or_else(|| place?.data());
        let asks = asks.chars().take(MAX_ASKS).collect();
        let to = policy.map_or_else(policy::everywhere, |policy| policy.log.clone());
        Self { data: data.unwrap_or_else(|| SYSTEM_DATA.into()), container, asks, to }
    }

    /// Tells of an error on stderr as well, which runtimes show where podman does not.
    fn told<T>(&self, done: Result<T, Error>) -> Option<T> {
        match done {
            Ok(done) => Some(done),
            Err(error) => {
                self.failed(&error);
                fail(&error.into());
                None
            }
        }
    }

    fn bound(&self, bound: &[Bound]) {
        for bound in bound.iter().filter(|bound| bound.repaired) {
            let what = format!("{} was not as it was unpacked, and was unpacked anew", bound.source.display());
            self.warn(&what);
        }
    }

    fn warn(&self, what: &str) {
        self.write("warning", 4, what);
    }

    fn failed(&self, error: &Error) {
        self.write("error", 3, &error.to_string());
    }

    /// Writes where it can; a log that cannot be written changes nothing about the container.
    fn write(&self, level: &str, priority: u8, message: &str) {
        for to in &self.to {
            let _ = match to {
                LogTo::Journald => self.to_journal(priority, message),
                LogTo::File => self.to_file(level, message),
            };
        }
    }

    fn to_journal(&self, priority: u8, message: &str) -> io::Result<()> {
        let (message, asks) = (harmless_line(message), harmless_line(&self.asks));
        let priority = priority.to_string();
        let fields =
            [("PRIORITY", &*priority), ("SYSLOG_IDENTIFIER", "skillctl"), ("SKILLS", &asks), ("MESSAGE", &message)];
        journal::send(&fields)
    }

    fn to_file(&self, level: &str, message: &str) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.data)?;
        let dir = open_dir(&self.data)?;
        if dir.metadata(LOG).is_ok_and(|metadata| metadata.len() > MAX_LOG) {
            dir.rename(LOG, &dir, format!("{LOG}.1"))?;
        }
        let mut options = cap_std::fs::OpenOptions::new();
        let mut file = dir.open_with(LOG, options.append(true).create(true).mode(0o600))?;
        let time = Utc::now().format(TIME).to_string();
        let (container, asks) = (&self.container, &self.asks);
        let line = json!({"time": time, "level": level, "container": container, "skills": asks, "message": message});
        writeln!(file, "{line}")
    }
}
