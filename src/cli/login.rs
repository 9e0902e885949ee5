//! `login` and `logout`, which are skopeo's: one place for credentials, with podman and skopeo.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};

use super::registry::{RegistryArgs, go_bool};
use super::shell::Shell;
use crate::error::{Error, Fault};
use crate::output::harmless_line;
use crate::process::last_words;
use crate::reference::Reference;
use crate::store::registry::Scheme;
use crate::store::remote::is_loopback;
use crate::store::skopeo::{explain, fault};

/// Log in to a registry
///
/// Runs skopeo login, so that skillctl, podman, buildah and skopeo share what is stored. The password is asked for, or
/// read with --password-stdin. Without --authfile the login lasts until the machine restarts.
#[derive(Debug, clap::Args)]
pub struct LoginArgs {
    /// The registry, such as registry.example or registry.example/acme
    registry: String,
    /// The user's name
    #[arg(long, short, value_name = "NAME")]
    username: Option<String>,
    /// The password; others see it in the process list
    #[arg(long, short, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Only print who is logged in
    #[arg(long)]
    get_login: bool,
    /// Credentials file [env: REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Directory of *.crt, *.cert and *.key
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Whether to require a valid certificate
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    tls_verify: Option<bool>,
}

impl LoginArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let mut command = skopeo("login", self.authfile.as_ref());
        let mut flag = |name: &str, value: Option<String>| {
            command.args(value.map(|value| format!("--{name}={value}")));
        };
        flag("username", self.username.clone());
        flag("cert-dir", self.cert_dir.as_ref().map(|dir| dir.display().to_string()));
        flag("tls-verify", self.tls_verify(shell).map(|verify| verify.to_string()));
        let piped = self.password_stdin || self.password.is_some();
        command.args(piped.then_some("--password-stdin"));
        command.args(self.get_login.then_some("--get-login"));
        if !piped && !self.get_login && !io::stdin().is_terminal() {
            let reason = "there is no terminal to ask for the password on".to_owned();
            let hint = Some(format!("skillctl login --username NAME --password-stdin {}", self.registry));
            return Err(Error::Unavailable { reason, hint })
                .with_context(|| format!("Logging in to {}", self.registry));
        }
        hand_over(shell, command, &self.registry, self.password.as_deref())
            .with_context(|| format!("Logging in to {}", self.registry))
    }

    /// Returns what was asked for; on loopback, whether the registry speaks plain HTTP, which skopeo refuses by itself.
    fn tls_verify(&self, shell: &Shell) -> Option<bool> {
        let host = self.registry.split('/').next().unwrap_or_default();
        if self.tls_verify.is_some() || !is_loopback(host) {
            return self.tls_verify;
        }
        let args = RegistryArgs { cert_dir: self.cert_dir.clone(), retry: 0, ..RegistryArgs::default() };
        let reference: Reference = format!("{host}/any").parse().ok()?;
        // What cannot be found out is skopeo's to report.
        let scheme = args.remote(shell).ok()?.registry.scheme(&reference).ok()?;
        (scheme == Scheme::Http).then_some(false)
    }
}

/// Log out of a registry
///
/// Runs skopeo logout.
#[derive(Debug, clap::Args)]
pub struct LogoutArgs {
    /// The registry
    #[arg(required_unless_present = "all")]
    registry: Option<String>,
    /// Of all registries
    #[arg(long, short)]
    all: bool,
    /// Credentials file [env: REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

impl LogoutArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let mut command = skopeo("logout", self.authfile.as_ref());
        command.args(self.all.then_some("--all"));
        let registry = self.registry.unwrap_or_default();
        hand_over(shell, command, &registry, None).with_context(|| format!("Logging out of {registry}"))
    }
}

fn skopeo(verb: &str, authfile: Option<&PathBuf>) -> Command {
    let mut command = Command::new("skopeo");
    command.arg(verb);
    if let Some(file) = authfile {
        command.arg("--authfile").arg(file);
    }
    command
}

/// Runs skopeo with our terminal, where it asks for what is missing, and says its errors as ours. A password goes through
/// a pipe: the one process list that has it is enough.
fn hand_over(shell: &Shell, mut command: Command, registry: &str, password: Option<&str>) -> Result<ExitCode> {
    if !registry.is_empty() {
        command.arg("--").arg(registry);
    }
    if password.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = match command.stderr(Stdio::piped()).spawn() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(shell.tools().missing("skopeo").into()),
        child => child.context("Running skopeo")?,
    };
    if let (Some(mut pipe), Some(password)) = (child.stdin.take(), password) {
        // One that does not read it says why by itself.
        let _ = pipe.write_all(password.as_bytes());
    }
    let output = child.wait_with_output().context("Waiting for skopeo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        said.lines().for_each(|line| shell.note(harmless_line(line)));
        return Ok(ExitCode::SUCCESS);
    }
    let said = last_words(&said).unwrap_or_else(|| output.status.to_string());
    if fault(&said) == Some(Fault::Tls) {
        return Err(explain(&said, registry).into());
    }
    let reason = said.strip_prefix(&format!("logging into \"{registry}\": ")).unwrap_or(&said).to_owned();
    Err(Error::Unavailable { reason, hint: None }.into())
}
