//! `push`

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::registry::RegistryArgs;
use super::shell::{Format, Shell};
use crate::ops::push::{self, How};
use crate::output::harmless_line;
use crate::reference::{Reference, Transport};

const EXAMPLES: &str = "\
Examples:
  Under another name than in the store:
    skillctl push acme/hr:1.0.0 registry.example/acme/hr:1.0.0
  What has the registry in its name already:
    skillctl push registry.example/acme/hr:1.0.0
  With a password that no process list shows:
    skillctl push --creds robot acme/hr:1.0.0 registry.example/acme/hr:1.0.0 < password.txt";

/// Push an image of the store to a registry
///
/// The registry gets the same bytes, with the same digest, of all platforms, then the signatures and attestations that the store has
/// of the image, and its tag last; the store gets the new name. Where the
/// tag is published on the registry with other content, or the registry does not let us look, nothing is pushed without
/// --force.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The image: a name, a digest, or the first 12 digits of one
    reference: String,
    /// Its name on the registry [default: the image's]
    ///
    /// Without a tag it gets that of the image.
    destination: Option<String>,
    /// Also where the tag is published with other content, or cannot be looked at
    #[arg(long, short)]
    force: bool,
    /// Leave the signatures and attestations behind that the store has of it
    #[arg(long)]
    no_signatures: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let shown = self.destination.as_ref().unwrap_or(&self.reference);
        let context = || format!("Pushing {shown}");
        let destination = self.destination.as_deref().map(destination).transpose().with_context(context)?;
        let layout = shell.store_with(&self.reference).with_context(context)?;
        let remote = self.registry.remote(shell).with_context(context)?;
        let progress = shell.progress(shown);
        let report = |bytes, total| progress.towards(bytes, total);
        let tools = shell.tools();
        let copying = self.registry.copying(&tools, &report);
        let pushed = push::push(
            (&layout, &remote),
            self.reference.trim_start_matches("docker://"),
            destination.as_ref(),
            How { force: self.force, signatures: !self.no_signatures },
            copying,
        )
        .with_context(context)?;
        drop(progress);
        shell.warnings(&pushed.warnings);
        match self.format {
            Format::Text => {
                let along = match pushed.attached {
                    0 => String::new(),
                    count => format!("With {count} of its signatures and attestations\n"),
                };
                shell.print(format!(
                    "Pushed {}\nDigest: {}\n{along}",
                    harmless_line(&pushed.destination),
                    pushed.digest
                ))?;
            }
            Format::Json => shell.print_json(&pushed)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads a destination, which may be spelled with its transport as for podman push.
fn destination(text: &str) -> Result<Reference> {
    match Transport::split(text) {
        (Some(Transport::Docker), name) => Ok(name.parse::<Reference>()?.on_registry()?),
        (Some(_), _) => anyhow::bail!("it is no registry: skillctl copy writes every transport"),
        (None, bare) => Ok(bare.parse()?),
    }
}
