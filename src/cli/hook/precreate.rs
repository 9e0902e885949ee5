//! `hook precreate`: what podman starts.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use chrono::Utc;
use serde_json::json;

use super::super::shell::{NO, Shell, open_dir};
use crate::error::Error;
use crate::hook::place::Place;
use crate::hook::policy::{self, Policy};
use crate::hook::request::SKILLS;
use crate::hook::spec::{MAX_SPEC, Spec};
use crate::hook::{Bound, Host, SYSTEM_DATA, precreate};
use crate::output::harmless_line;

/// Where journald takes messages (systemd's native protocol).
const JOURNAL: &str = "/run/systemd/journal/socket";
/// The log beside the store.
pub const LOG: &str = "hook.log";
/// How the log says when, in UTC.
pub const TIME: &str = "%Y-%m-%dT%H:%M:%SZ";
/// Size from which a new log is begun, in bytes.
const MAX_LOG: u64 = 256 << 10;

pub fn run(shell: &Shell) -> Result<ExitCode> {
    let text = read_stdin()?;
    // Only containers that ask for skills depend on anything of ours: no policy file can stop others.
    let (data, asks) = match Spec::parse(&text) {
        Ok(spec) => (
            Place::of(&spec, shell.env.cwd.as_deref()).and_then(|place| place.data()),
            spec.annotation(SKILLS).map(str::to_owned),
        ),
        Err(e) => return Err(e.into()),
    };
    let Some(asks) = asks else { return pass_on(&text) };
    let result = host(shell).and_then(|host| precreate(&text, &host));
    let log = Log { data: data.unwrap_or_else(|| SYSTEM_DATA.into()), asks };
    match result {
        Ok((text, bound)) => {
            log.bound(&bound);
            pass_on(&text)
        }
        Err(error) => {
            log.failed(&error);
            shell.fail(&error.into());
            Ok(ExitCode::from(NO))
        }
    }
}

fn read_stdin() -> Result<String, Error> {
    let damaged = |reason: &str| Error::damaged("the runtime configuration on stdin", reason);
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

fn host(shell: &Shell) -> Result<Host, Error> {
    let path = Path::new(super::ETC).join(policy::FILE);
    let shown = path.display().to_string();
    let policy = match fs::read_to_string(&path) {
        Ok(text) => Some(Policy::parse(&text, &shown)?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(Error::io(shown)(e)),
    };
    let store = shell.global.store.clone().or_else(|| shell.env.store.clone());
    let make = |path: &Path| {
        fs::create_dir_all(path)?;
        open_dir(path)
    };
    Ok(Host { store, policy, open: open_dir, make, cwd: shell.env.cwd.clone(), cancel: shell.cancel() })
}

/// What the hook says: nobody sees its stderr but the journal and a file beside the store, since podman drops it.
struct Log {
    data: PathBuf,
    asks: String,
}

impl Log {
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
        fs::create_dir_all(&self.data)?;
        let dir = open_dir(&self.data)?;
        if dir.metadata(LOG).is_ok_and(|metadata| metadata.len() > MAX_LOG) {
            dir.rename(LOG, &dir, format!("{LOG}.1"))?;
        }
        let mut options = cap_std::fs::OpenOptions::new();
        let mut file = dir.open_with(LOG, options.append(true).create(true))?;
        let time = Utc::now().format(TIME).to_string();
        let line = json!({"time": time, "level": level, "skills": self.asks, "message": message});
        writeln!(file, "{line}")
    }
}
