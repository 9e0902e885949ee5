//! `verify`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::key;
use super::registry::RegistryArgs;
use super::shell::{Format, Shell};
use super::sign::place;
use crate::ops::verify::{self, Required, Verified};
use crate::output::harmless_line;
use crate::reference::Reference;
use crate::trust::key::PublicKey;
use crate::trust::verify::Form;

const EXAMPLES: &str = "\
Examples:
  skillctl verify acme/hr:1.0.0 --key acme.pub
  skillctl verify registry.example/acme/hr:1.0.0 --key acme.pub
  skillctl verify acme/hr:1.0.0 --key acme.pub --identity registry.example/acme/hr";

/// Verify that an image is what a key has signed
///
/// Exit status 1, and why, where it is not. An image with a registry in its name is verified there; any other in the store, without the
/// network. Its signature has to be for the repository that was asked for, and what the image says that it is for the tag: an older
/// version under a newer tag is refused.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The image
    reference: String,
    /// Public key; with several, one suffices
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    /// The repository that it is signed for, where that is another
    #[arg(long, value_name = "REPOSITORY")]
    identity: Option<Reference>,
    /// In the store, also with a registry in the name
    #[arg(long)]
    local: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let read = |path: &PathBuf| Ok(PublicKey::from_pem(&key::read(path)?, &path.display().to_string())?);
        let keys = self.key.iter().map(read).collect::<Result<Vec<_>>>()?;
        let required = Required { keys: &keys, identity: self.identity.as_ref() };
        let verified = match place(&self.reference, self.local)? {
            Some(reference) => verify::on_registry(&self.registry.remote(shell)?.registry, &reference, required),
            None => verify::in_store(&shell.store_with(&self.reference)?, &self.reference, required),
        };
        self.report(shell, &verified?)
    }

    fn report(&self, shell: &Shell, verified: &Verified) -> Result<ExitCode> {
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
                    text += &format!("Signed:  by {} ({form})\n", signer.key);
                }
                shell.print(text)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
