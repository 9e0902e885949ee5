//! How git is run: what of the user's is kept, and what cannot happen.
//!
//! * Whatever goes over the network is configured by the user and the system as for any other git: credential helpers,
//!   proxies, certificates, `url.….insteadOf`, ssh and its agent. Whatever only reads what was fetched sees none of that.
//! * Of the protocols only those of the address are allowed, and those that are no worse: never `ext`, and a plain or a local
//!   one only where it was typed. A server therefore cannot send git elsewhere.
//! * Nobody is asked anything: no terminal, no window. ssh is left as the user configured it; it too is told that nobody can
//!   answer (from OpenSSH 8.4 on), and ends with an error where it would ask.
//! * No hook, no monitor, no maintenance, no submodule, no bundle elsewhere; there is no checkout, and so no filter either.
//! * What is fetched is hashed by git, and not held to `fsck`, unless the user's configuration says so: repositories that
//!   many use do not pass it, and we take names and links for what they may be ourselves.

use std::time::Duration;

use super::git_credentials;
use crate::error::{Error, Result};
use crate::git_url::GitSource;
use crate::process::{Output, Process, Tools};
use crate::store::scratch::Scratch;

/// The variables with which one git tells another where it works, and how it takes its arguments (git(1)).
const TAKEN_AWAY: [&str; 24] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ATTR_SOURCE",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GLOB_PATHSPECS",
    "GIT_GRAFT_FILE",
    "GIT_ICASE_PATHSPECS",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_LITERAL_PATHSPECS",
    "GIT_NAMESPACE",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_PROTOCOL_FROM_USER",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_TEMPLATE_DIR",
    "GIT_WORK_TREE",
];

/// Variables of every git of ours.
const ENVIRONMENT: [(&str, &str); 8] = [
    ("GIT_TERMINAL_PROMPT", "0"),
    // Set and empty: neither `core.askPass` nor the window of SSH_ASKPASS is tried.
    ("GIT_ASKPASS", ""),
    ("SSH_ASKPASS", "false"),
    ("SSH_ASKPASS_REQUIRE", "force"),
    ("GCM_INTERACTIVE", "never"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_LFS_SKIP_SMUDGE", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
];

/// Configuration that no other can override.
const CONFIGURATION: [&str; 11] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.fsync=none",
    "credential.interactive=false",
    "fetch.unpackLimit=1",
    "fetch.writeCommitGraph=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "transfer.bundleURI=false",
    "http.lowSpeedLimit=1",
];

/// Runs git on one repository of our own.
#[derive(Debug)]
pub(super) struct Git {
    tools: Tools,
    silence: Duration,
}

impl Git {
    pub fn new(tools: &Tools, silence: Duration) -> Self {
        Self { tools: tools.clone(), silence }
    }

    fn process(&self) -> Process {
        let process = TAKEN_AWAY.iter().fold(self.tools.git(), |process, key| process.env_remove(key));
        ENVIRONMENT.iter().fold(process, |process, (key, value)| process.env(key, value)).silence(self.silence)
    }

    /// Returns a git that reads what was fetched, and no configuration but that of the repository, which is ours.
    pub fn local(&self, scratch: &Scratch) -> Process {
        let process = self.process().env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        process.env("GIT_ALLOW_PROTOCOL", "none").arg(git_dir(scratch))
    }

    /// Returns a git that talks to the repository of a source.
    pub fn remote(&self, source: &GitSource) -> Process {
        let typed = source.protocol();
        let allowed = match typed {
            "http" | "git" | "file" => format!("https:ssh:{typed}"),
            _ => "https:ssh".to_owned(),
        };
        let seconds = self.silence.as_secs().max(1);
        let configuration = CONFIGURATION.iter().map(|value| (*value).to_owned());
        let configuration = configuration.chain([format!("http.lowSpeedTime={seconds}")]);
        let process = self.process().env("GIT_ALLOW_PROTOCOL", allowed);
        let process = configuration.fold(process, |process, value| process.arg("-c").arg(value));
        git_credentials::tell(process, source)
    }

    /// Runs a git that talks to a repository, and shows to `watch` every moment that it is still at it.
    pub fn talk(&self, process: &Process, watch: &mut dyn FnMut()) -> Result<Output> {
        let output = process.watched(&mut |_| {
            watch();
            true
        })?;
        match output.end {
            crate::process::End::Cancelled => Err(Error::interrupted()),
            _ => Ok(output),
        }
    }
}

/// Returns the option that names the repository; where it is told, git looks for none.
pub(super) fn git_dir(scratch: &Scratch) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from("--git-dir=");
    option.push(&scratch.path);
    option
}

/// Returns the error for a git that could not talk to a repository.
pub(super) fn failed(source: &GitSource, output: &Output) -> Error {
    let said = source.scrub(&words(output));
    let host = source.host();
    let credentials = || format!("git ls-remote {} asks for credentials that a helper can keep", source.shown);
    let hint = [
        ("terminal prompts disabled", credentials()),
        // What newer ones say, where nobody may be asked.
        ("unable to get password from user", credentials()),
        ("Authentication failed", credentials()),
        ("Permission denied (", format!("ssh {host} says whether your key is accepted")),
        ("Host key verification failed", format!("ssh {host} shows its key, and remembers it if you accept it")),
        ("dubious ownership", "git config --global --add safe.directory DIRECTORY trusts it".to_owned()),
    ];
    let hint = hint.into_iter().find(|(sign, _)| output.stderr.contains(sign)).map(|(_, hint)| hint);
    Error::Unavailable { reason: format!("{}: {said}", source.shown), hint }
}

/// Returns the line of git's that tells most.
fn words(output: &Output) -> String {
    // Progress is overwritten on a terminal.
    let lines: Vec<&str> = output.stderr.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    let told = |line: &&str| ["fatal: ", "error: ", "remote: ERROR"].iter().any(|sign| line.starts_with(sign));
    let mut found = lines.iter().position(|line| line.starts_with("fatal: ")).or_else(|| lines.iter().position(told));
    // The reason stands before it: what ssh said, or the helper that ended.
    if let Some(at) = found.filter(|at| *at > 0)
        && ["Could not read from remote", "the remote end hung up", "early EOF"]
            .iter()
            .any(|sign| lines[at].contains(sign))
    {
        found = Some(at - 1);
    }
    match (output.end, found) {
        (crate::process::End::Exit(_), Some(at)) => {
            let line = lines[at];
            let line = line.strip_prefix("fatal: ").or_else(|| line.strip_prefix("error: ")).unwrap_or(line);
            let clean: String = line.chars().filter(|c| crate::text::hidden(*c).is_none()).collect();
            format!("git: {clean}")
        }
        _ => output.reason(),
    }
}
