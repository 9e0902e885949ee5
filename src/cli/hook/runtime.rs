//! What container runtimes start: `hook precreate` and `hook createContainer`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use cap_std::fs::OpenOptionsExt as _;
use chrono::Utc;
use nix::sys::stat::{Mode, umask};
use serde_json::json;

use super::super::shell::{NO, Shell, label, open_dir};
use crate::error::Error;
use crate::hook::create::{self, State};
use crate::hook::place::Place;
use crate::hook::policy::{self, Policy};
use crate::hook::request::SKILLS;
use crate::hook::spec::{MAX_SPEC, Spec};
use crate::hook::{self, Bound, Host, SYSTEM_DATA};
use crate::output::harmless_line;

/// Where journald takes messages (systemd's native protocol).
const JOURNAL: &str = "/run/systemd/journal/socket";
/// The log beside the store.
pub const LOG: &str = "hook.log";
/// How the log says when, in UTC.
pub const TIME: &str = "%Y-%m-%dT%H:%M:%SZ";
/// Characters of an annotation that a line of the log has.
const MAX_ASKS: usize = 512;
/// Size from which a new log is begun, in bytes.
const MAX_LOG: u64 = 256 << 10;

/// `hook precreate`: a configuration comes, and goes on with more mounts.
pub fn precreate(shell: &Shell) -> Result<ExitCode> {
    own_modes();
    let text = read_stdin("the runtime configuration")?;
    let spec = Spec::parse(&text)?;
    // Only containers that ask for skills depend on anything of ours: no policy can stop others.
    let Some(asks) = spec.annotation(SKILLS) else { return pass_on(&text) };
    let log = Log::of(shell, &spec, asks);
    let done = host(shell).and_then(|host| hook::precreate(&spec, &host));
    match log.told(shell, done)? {
        Some((text, bound)) => {
            log.bound(&bound);
            pass_on(&text)
        }
        None => Ok(ExitCode::from(NO)),
    }
}

/// `hook createContainer`: a state comes, and the skills are in the container when we end.
pub fn create_container(shell: &Shell) -> Result<ExitCode> {
    own_modes();
    let text = read_stdin("the container's state")?;
    let state = State::parse(&text)?;
    let Some(asks) = state.skills() else { return Ok(ExitCode::SUCCESS) };
    let log = Log::of_bundle(shell, &state, asks);
    let done = host(shell).and_then(|host| create::create_container(&state, &host));
    Ok(match log.told(shell, done)? {
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
    let mut bytes = Vec::new();
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
    let (store, add_stores) = (named_store(shell), shell.added_stores());
    let make = |path: &Path| {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        open_dir(path)
    };
    let cwd = shell.env.cwd.clone();
    Ok(Host { store, add_stores, program, policy, open: open_dir, make, cwd, label: label(), cancel: shell.cancel() })
}

fn named_store(shell: &Shell) -> Option<PathBuf> {
    shell.global.store.clone().or_else(|| shell.env.store.clone())
}

/// What the hook says: nobody sees its stderr but the journal and a file beside the store, since podman drops it.
struct Log {
    data: PathBuf,
    asks: String,
}

impl Log {
    fn of(shell: &Shell, spec: &Spec<'_>, asks: &str) -> Self {
        Self::at(shell, Place::of(spec, shell.env.cwd.as_deref()), asks)
    }

    /// The same where the configuration may be out of reach.
    fn of_bundle(shell: &Shell, state: &State, asks: &str) -> Self {
        Self::at(shell, Place::at(state.bundle()), asks)
    }

    fn at(shell: &Shell, place: Option<Place>, asks: &str) -> Self {
        let named = named_store(shell).and_then(|store| store.parent().map(Path::to_owned));
        let data = named.or_else(|| place?.data());
        let asks = asks.chars().take(MAX_ASKS).collect();
        Self { data: data.unwrap_or_else(|| SYSTEM_DATA.into()), asks }
    }

    /// Tells of an error on stderr as well, which runtimes show where podman does not.
    fn told<T>(&self, shell: &Shell, done: Result<T, Error>) -> Result<Option<T>> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(error) => {
                self.failed(&error);
                shell.fail(&error.into());
                Ok(None)
            }
        }
    }

    fn bound(&self, bound: &[Bound]) {
        for bound in bound.iter().filter(|bound| bound.repaired) {
            let what = format!("{} was not as it was unpacked, and was unpacked anew", bound.source.display());
            self.write("warning", 4, &what);
        }
    }

    fn failed(&self, error: &Error) {
        self.write("error", 3, &error.to_string());
    }

    /// Writes where it can; a log that cannot be written changes nothing about the container.
    fn write(&self, level: &str, priority: u8, message: &str) {
        let _ = self.to_journal(priority, message);
        let _ = self.to_file(level, message);
    }

    fn to_journal(&self, priority: u8, message: &str) -> io::Result<()> {
        let (message, asks) = (harmless_line(message), harmless_line(&self.asks));
        let text = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=skillctl\nSKILLS={asks}\nMESSAGE={message}\n");
        UnixDatagram::unbound()?.send_to(text.as_bytes(), JOURNAL).map(|_| ())
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
        let line = json!({"time": time, "level": level, "skills": self.asks, "message": message});
        writeln!(file, "{line}")
    }
}
