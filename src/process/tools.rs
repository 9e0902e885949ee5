//! The programs that we run, and what is known of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Cancel, Process};
use crate::error::Error;

/// Bound on `--version`, which takes 30 ms.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the container tools are, and how this system installs them.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Name or path of skopeo.
    pub skopeo: PathBuf,
    /// Name or path of podman.
    pub podman: PathBuf,
    /// Name or path of git.
    pub git: PathBuf,
    /// The command that installs a package here, such as `dnf install`.
    pub installer: Option<String>,
    /// Ends every child.
    pub cancel: Cancel,
}

impl Default for Tools {
    fn default() -> Self {
        Self {
            skopeo: "skopeo".into(),
            podman: "podman".into(),
            git: "git".into(),
            installer: None,
            cancel: Cancel::default(),
        }
    }
}

impl Tools {
    /// Returns a process that runs skopeo.
    pub fn skopeo(&self) -> Process {
        self.process(&self.skopeo, "skopeo")
    }

    /// Returns a process that runs podman.
    pub fn podman(&self) -> Process {
        self.process(&self.podman, "podman")
    }

    /// Returns a process that runs git.
    pub fn git(&self) -> Process {
        self.process(&self.git, "git")
    }

    /// Returns the error for a tool that is not there.
    pub fn missing(&self, name: &str) -> Error {
        missing(name, self.installer.as_deref().map(|i| format!("{i} {name}")))
    }

    fn process(&self, program: &Path, package: &str) -> Process {
        let mut process = Process::new(program);
        process.name = package.to_owned();
        process.cancel = Some(self.cancel.clone());
        process.hint = self.installer.as_deref().map(|i| format!("{i} {package}"));
        process
    }
}

pub(super) fn missing(name: &str, hint: Option<String>) -> Error {
    Error::Unavailable { reason: format!("{name} is not installed"), hint }
}

/// A version of a tool: major, minor, patch.
pub type Version = (u64, u64, u64);

/// Returns the version of a tool of containers/: the third word of `NAME version 4.3.1`.
pub fn version(process: &Process) -> Option<Version> {
    let output = process.clone().arg("--version").timeout(VERSION_TIMEOUT).run().ok()?;
    parse_version(&String::from_utf8_lossy(&output))
}

fn parse_version(text: &str) -> Option<Version> {
    let mut numbers = text.split_whitespace().nth(2)?.split(['.', '-', '+', '~']).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_the_third_word() {
        let cases = [
            ("skopeo version 1.9.3\n", Some((1, 9, 3))),
            ("skopeo version 1.22.0 commit: abc", Some((1, 22, 0))),
            ("skopeo version 1.6-dev", Some((1, 6, 0))),
            ("podman version 5.8.6\n", Some((5, 8, 6))),
            ("skopeo", None),
        ];
        for (text, version) in cases {
            assert_eq!(parse_version(text), version);
        }
    }
}
