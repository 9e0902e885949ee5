//! `inspect --attestations`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::identity::IdentityArgs;
use super::images::short;
use super::registry::RegistryArgs;
use super::shell::{Format, NO, Shell};
use super::sign::place;
use super::verify::read_keys;
use crate::attest::kind;
use crate::ops::attestations::{self, Asked, Attestation, Listed};
use crate::output::{cell, harmless_line, size, table};
use crate::trust::by::By;

/// What is attested of an image.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Attestations")]
pub struct AttestationArgs {
    /// List what is attested of the image: on its registry where its name has one, else in the store
    #[arg(long)]
    pub attestations: bool,
    /// Public key that verifies attestations; with several, one suffices. Exit status 1 where it verifies none
    #[arg(long, value_name = "FILE", requires = "attestations")]
    key: Vec<PathBuf>,
    /// Only those of a type: a URI, spdx, cyclonedx, provenance, or a name that cosign has
    #[arg(long = "type", value_name = "TYPE", requires = "attestations", value_parser = kind::predicate_type)]
    kind: Option<String>,
    /// Print only what the attestation states; with --key, exit status 1 unless that verifies it
    #[arg(long, requires = "attestations")]
    predicate: bool,
    /// In the store, also with a registry in the name
    #[arg(long, requires = "attestations")]
    local: bool,
    #[command(flatten)]
    keyless: IdentityArgs,
}

impl AttestationArgs {
    pub fn run(&self, shell: &Shell, text: &str, (format, registry): (Format, &RegistryArgs)) -> Result<ExitCode> {
        let keys = read_keys(&self.key)?;
        let identities = self.keyless.identities()?;
        let by = By { keys: &keys, identities: &identities };
        let asked = Asked { by, predicate_type: self.kind.as_deref() };
        let listed = match place(text, self.local)? {
            Some(reference) => attestations::on_registry(&registry.remote(shell)?.registry, &reference, asked)?,
            None => attestations::in_store(&shell.store_with(text)?, text, asked)?,
        };
        match (self.predicate, format) {
            (true, _) => shell.print_json(listed.only_predicate(asked)?)?,
            (false, Format::Json) => shell.print_json(&listed)?,
            (false, Format::Text) => shell.print(self.text(&listed))?,
        }
        // By whom was said, and it is by nobody of those.
        if !by.is_empty() && !listed.attestations.iter().any(|one| one.verified) {
            let image = harmless_line(&listed.reference);
            shell.warn(format!("error: no attestation of {image} is verified as signed by {by}"));
            return Ok(ExitCode::from(NO));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn text(&self, listed: &Listed) -> String {
        let mut text = match listed.attestations.is_empty() {
            true => format!("No attestations of {} ({}).\n", harmless_line(&listed.reference), listed.digest),
            false => {
                let rows: Vec<Vec<String>> = listed.attestations.iter().map(row).collect();
                table(&["TYPE", "PREDICATE TYPE", "DIGEST", "SIZE", "VERIFIED"], &rows)
            }
        };
        for reason in &listed.unread {
            text += &format!("Not read: one {}\n", harmless_line(reason));
        }
        text
    }
}

fn row(one: &Attestation) -> Vec<String> {
    let verified = match (one.key.as_ref().or(one.identity.as_ref()), &one.reason) {
        (Some(who), _) => format!("by {}", cell(who)),
        (None, Some(reason)) => format!("no: {}", cell(reason)),
        (None, None) => "not verified".to_owned(),
    };
    let name = one.name.unwrap_or("-").to_owned();
    vec![name, cell(&one.predicate_type), short(&one.digest, false), size(one.size), verified]
}
