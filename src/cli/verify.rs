//! `verify`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::ArgGroup;

use super::identity::IdentityArgs;
use super::key;
use super::registry::RegistryArgs;
use super::shell::{Format, Shell};
use super::sign::place;
use crate::error::Error;
use crate::ops::verify::{self, Required, Verified};
use crate::output::harmless_line;
use crate::reference::Reference;
use crate::store;
use crate::trust::key::PublicKey;
use crate::trust::verify::Form;

const EXAMPLES: &str = "\
Examples:
  skillctl verify acme/hr:1.0.0 --key acme.pub
  skillctl verify registry.example/acme/hr:1.0.0 --key acme.pub
  skillctl verify acme/hr:1.0.0 --key acme.pub --identity registry.example/acme/hr
  skillctl verify registry.example/acme/hr:1.0.0 --certificate-identity ana@example.org \\
      --certificate-oidc-issuer https://accounts.google.com --trusted-root trusted_root.json";

/// Verify that an image is what a key has signed
///
/// Exit status 1, and why, where it is not. An image with a registry in its name is verified there; any other in the store, without the
/// network. Its signature has to be for the repository that was asked for, and what the image says that it is for the tag: an older
/// version under a newer tag is refused.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
#[command(group = ArgGroup::new("by").required(true).multiple(true).args(["key", "certificate_identity", "certificate_identity_regexp"]))]
pub struct Args {
    /// The image
    reference: String,
    /// Public key; with several, one suffices
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// The repository that it is signed for, where that is another
    #[arg(long, value_name = "REPOSITORY", value_parser = repository)]
    identity: Option<Reference>,
    /// In the store, also with a registry in the name
    #[arg(long)]
    local: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    keyless: IdentityArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Who has to have signed what is pulled.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Verification")]
pub struct VerifyArgs {
    /// Take only what is signed: see skillctl verify
    #[arg(long, requires = "key")]
    verify: bool,
    /// Public key that has to have signed it; with several, one suffices
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// The repository that it is signed for, where that is another
    #[arg(long, value_name = "REPOSITORY", requires = "key", value_parser = repository)]
    identity: Option<Reference>,
}

impl VerifyArgs {
    /// Reads the keys.
    ///
    /// # Errors
    /// If one cannot be read, or is none.
    pub fn keys(&self) -> Result<Vec<PublicKey>> {
        read_keys(&self.key)
    }

    /// Returns what is required; `None` where nothing is.
    pub fn required<'a>(&'a self, keys: &'a [PublicKey]) -> Option<Required<'a>> {
        (!keys.is_empty()).then_some(Required { keys, identity: self.identity.as_ref() })
    }
}

/// Parses a reference that names no image of a repository: a tag or a digest would not be compared.
fn repository(text: &str) -> Result<Reference, String> {
    let reference: Reference = text.parse().map_err(|e: Error| e.to_string())?;
    match reference.tag().is_none() && reference.digest().is_none() {
        true => Ok(reference),
        false => Err(format!("a repository is expected, such as {}", reference.name())),
    }
}

fn read_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>> {
    let read = |path: &PathBuf| Ok(PublicKey::from_pem(&key::read(path)?, &path.display().to_string())?);
    paths.iter().map(read).collect()
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let place = place(&self.reference, self.local)?;
        if self.key.is_empty() {
            let place = (place.as_ref(), self.reference.as_str());
            let verified = self.keyless.verify(shell, place, self.identity.as_ref(), &self.registry)?;
            return self.report(shell, &verified);
        }
        let keys = read_keys(&self.key)?;
        let required = Required { keys: &keys, identity: self.identity.as_ref() };
        let verified = match place {
            Some(reference) => verify::on_registry(&self.registry.remote(shell)?.registry, &reference, required),
            None => {
                let layout = shell.store_with(&self.reference)?;
                verify::in_store(&layout, &store::open(&layout, &self.reference)?, &self.reference, required)
            }
        };
        self.report(shell, &verified?)
    }

    fn report(&self, shell: &Shell, verified: &Verified) -> Result<ExitCode> {
        shell.warnings(&verified.warnings);
        match self.format {
            Format::Json => shell.print_json(verified)?,
            Format::Text => {
                let mut text =
                    format!("Verified {}\nDigest:  {}\n", harmless_line(&verified.reference), verified.digest);
                for signer in &verified.signers {
                    let form = match signer.form {
                        Form::Simple => {
                            format!("simple, for {}", harmless_line(signer.reference.as_deref().unwrap_or_default()))
                        }
                        Form::Bundle => "bundle".to_owned(),
                    };
                    let by = match (&signer.identity, &signer.issuer) {
                        (Some(identity), Some(issuer)) => harmless_line(&format!("{identity} of {issuer}")),
                        _ => signer.key.clone(),
                    };
                    text += &format!("Signed:  by {by} ({form})\n");
                }
                shell.print(text)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
