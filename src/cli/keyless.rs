//! Keyless signing, which cosign does: it asks who signs, and has certificate and signature recorded in a public log.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::registry::RegistryArgs;
use super::shell::{Format, Shell, absolute};
use crate::error::Error;
use crate::output::harmless_line;
use crate::process::Process;
use crate::reference::Reference;
use crate::store::remote::not_found;
use crate::trust::verify::Form;

/// The oldest cosign that writes bundles which refer to the image.
const OLDEST: u64 = 3;
/// Bound on `cosign version`, which takes 60 ms.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// How an image is signed without a key.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Without a key")]
pub struct KeylessArgs {
    /// By an identity instead of a key, with the cosign (3 or newer) that is installed
    ///
    /// For images of registries. cosign asks who signs in a browser, or takes what a CI system gives it, and publishes that identity in
    /// a log that everybody can read. podman's policy does not see such signatures.
    #[arg(long)]
    pub keyless: bool,
    /// File with the token of the identity, instead of a browser
    #[arg(long, value_name = "FILE", requires = "keyless")]
    identity_token: Option<PathBuf>,
}

impl KeylessArgs {
    /// Signs an image of a registry, with cosign's words on stderr.
    ///
    /// # Errors
    /// If cosign is not installed, too old, or fails.
    pub fn sign(
        &self,
        shell: &Shell,
        reference: Option<&Reference>,
        registry: &RegistryArgs,
        format: Format,
    ) -> Result<ExitCode> {
        let reference = reference.ok_or_else(|| Error::Unavailable {
            reason: "an image of the store is signed by a key".into(),
            hint: Some("push it, and sign it there; or give --key FILE".into()),
        })?;
        let (program, version) = cosign(shell)?;
        if registry.creds.is_some() {
            let hint = Some(format!("skillctl login {}", reference.registry().unwrap_or_default()));
            return Err(Error::Unavailable { reason: "cosign takes no --creds".into(), hint }.into());
        }
        // What the tag names now, where cosign will write.
        let digest = registry.registry(shell)?.at_origin().digest(reference)?.ok_or_else(|| not_found(reference))?;
        let mut command = Command::new(program);
        command.args(["sign", "--yes", "--recursive"]).env_remove("COSIGN_PASSWORD");
        if let Some(token) = &self.identity_token {
            command.arg("--identity-token").arg(token);
        }
        if registry.tls_verify == Some(false) {
            command.args(["--allow-insecure-registry", "--allow-http-registry"]);
        }
        if let Some(authfile) = absolute(registry.authfile.as_deref()) {
            command.env("REGISTRY_AUTH_FILE", authfile);
        }
        command.arg(reference.with_digest(&digest)?.to_string());
        // Its words are for whoever signs: what is published, and where to log in.
        let stderr = std::io::stderr();
        let status = command.stdout(stderr).status().context("cosign")?;
        if !status.success() {
            let reason = format!("cosign sign: {status}");
            return Err(Error::Unavailable { reason, hint: None }.into());
        }
        let warning = "podman's policy does not see this signature, and neither do skopeo, CRI-O and oc-mirror: sign with --key, too";
        shell.warnings(&[warning.to_owned()]);
        let shown = reference.to_string();
        match format {
            Format::Json => shell.print_json(&json!({
                "reference": shown, "identity": null, "digest": digest, "key": null, "added": [Form::Bundle],
            }))?,
            Format::Text => shell.print(format!(
                "Signed {}\nDigest:    {digest}\nBy:        cosign {version}, keyless\nAdded:     bundle\n",
                harmless_line(&shown)
            ))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns where cosign is, and its version.
fn cosign(shell: &Shell) -> Result<(PathBuf, String)> {
    let hint = || Some("https://docs.sigstore.dev/cosign/system_config/installation/".to_owned());
    let missing =
        || Error::Unavailable { reason: "cosign, which signs without a key, is not installed".into(), hint: hint() };
    let program = shell.env.find_program("cosign").ok_or_else(missing)?;
    let said = Process::new(&program).arg("version").timeout(VERSION_TIMEOUT).cancel(&shell.cancel()).run()?;
    let said = String::from_utf8_lossy(&said);
    let version = version(&said).unwrap_or_default();
    match major(version) {
        Some(major) if major >= OLDEST => Ok((program, version.to_owned())),
        _ => {
            let which = if version.is_empty() { "of an unknown version".to_owned() } else { harmless_line(version) };
            let reason = format!("{} is {which}: cosign {OLDEST} or newer signs without a key", program.display());
            Err(Error::Unavailable { reason, hint: hint() }.into())
        }
    }
}

/// Returns the version in what `cosign version` prints: a line `GitVersion:    v3.1.1` of a table.
fn version(said: &str) -> Option<&str> {
    said.lines().find_map(|line| line.trim().strip_prefix("GitVersion:")).map(str::trim)
}

fn major(version: &str) -> Option<u64> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {

    #[test]
    fn the_version_is_that_of_the_table() {
        let cases = [
            ("  ______\ncosign: A tool\n\nGitVersion:    v3.1.1\nGitCommit:     unknown\n", Some("v3.1.1"), Some(3)),
            ("GitVersion:    v2.5.0\n", Some("v2.5.0"), Some(2)),
            ("GitVersion:    devel\n", Some("devel"), None),
            ("cosign 3\n", None, None),
        ];
        for (said, version, major) in cases {
            assert_eq!((super::version(said), super::version(said).and_then(super::major)), (version, major), "{said}");
        }
    }
}
