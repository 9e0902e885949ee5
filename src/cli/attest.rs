//! `attest`, and what `build` attests of what it has built.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use clap::ValueEnum;
use serde_json::Value;

use super::make::epoch;
use super::registry::RegistryArgs;
use super::shell::{Format, Shell};
use super::sign::place;
use super::signer::SignerArgs;
use crate::attest::kind;
use crate::attest::provenance::Build;
use crate::audit::{Action, Event};
use crate::error::Error;
use crate::layer::UnpackOptions;
use crate::ops::attest::{self, Attested, Made, Predicate, Provenance, Wanted};
use crate::output::{cell, harmless_line};
use crate::reference::Reference;
use crate::store::layout::Layout;
use crate::strict;
use crate::trust::attestation::MAX_ATTESTATION;
use crate::trust::bundle::SIGNED;
use crate::trust::signer::Signer;

const EXAMPLES: &str = "\
Examples:
  What is in an image, and how it was built:
    skillctl attest registry.example/acme/hr:1.0.0 --key acme.key --sbom spdx --provenance
  What somebody else has found out about it:
    skillctl attest acme/hr:1.0.0 --key acme.key --predicate review.json --type https://acme.example/review/v1
  Only to look at, or for a scanner:
    skillctl attest acme/hr:1.0.0 --sbom cyclonedx --print > hr.cdx.json";

/// Attest what is in an image, how it was built, or anything else
///
/// What is stated is signed and attached to the image, as a sigstore bundle that refers to it: cosign 3 verifies it, and skillctl
/// inspect --attestations shows it. An image with a registry in its name is attested where it is; any other in the store. The same
/// image gives the same statements, and what the key has stated before is not stated again. Nothing is sent to a transparency log.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("by").required(true).args(["key", "print"]))]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["sbom", "provenance", "predicate"]))]
pub struct Args {
    /// The image
    reference: String,
    #[command(flatten)]
    signer: SignerArgs,
    /// What is in it: its files, and the packages that they declare; repeatable
    #[arg(long, value_enum, value_name = "FORM", value_delimiter = ',')]
    sbom: Vec<Sbom>,
    /// How it was built, as far as it says that itself
    #[arg(long)]
    provenance: bool,
    /// Who has built it, in the provenance
    #[arg(long, value_name = "URI", requires = "provenance", value_parser = uri)]
    builder_id: Option<String>,
    /// File with something else, in JSON
    #[arg(long, value_name = "FILE", requires = "kind")]
    predicate: Option<PathBuf>,
    /// Of which type that is: a URI, spdx, cyclonedx, provenance, or a name that cosign has
    #[arg(long = "type", id = "kind", value_name = "TYPE", requires = "predicate", value_parser = kind::predicate_type)]
    kind: Option<String>,
    /// Print what would be stated, and sign and attach nothing
    #[arg(long, conflicts_with = "key")]
    print: bool,
    /// In the store, also with a registry in the name
    #[arg(long)]
    local: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// A form of a software bill of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sbom {
    /// SPDX 2.3
    Spdx,
    /// CycloneDX 1.6
    Cyclonedx,
}

impl Sbom {
    fn predicate(self) -> Predicate {
        match self {
            Self::Spdx => Predicate::Spdx,
            Self::Cyclonedx => Predicate::CycloneDx,
        }
    }
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let context = || format!("Attesting {}", self.reference);
        let predicates = self.predicates().with_context(context)?;
        let cancel = shell.cancel();
        let options = UnpackOptions { cancelled: Some(cancel.flag()), ..UnpackOptions::default() };
        let wanted = Wanted { predicates: &predicates, epoch: epoch(shell)?, options };
        let place = place(&self.reference, self.local).with_context(context)?;
        // Without a key it is printed: clap has seen to that.
        let Some(path) = &self.signer.key else {
            return self.print(shell, place.as_ref(), &wanted).with_context(context);
        };
        shell.can_record()?;
        let attest = || match (self.signer.signer(shell, path)?, place) {
            (key, Some(reference)) => self.with_registry(shell, &reference, |place, copying| {
                attest::on_registry(place, &reference, &wanted, &*key, copying)
            }),
            (key, None) => {
                let layout = shell.store_with(&self.reference)?;
                let _writing = layout.writing()?;
                attest::in_store(&layout, &self.reference, &wanted, &*key)
            }
        };
        let attested = attest();
        let attested = shell.recorded((Action::Attest, &self.reference), attested.with_context(context), events)?;
        self.report(shell, &attested)
    }

    fn with_registry<T>(
        &self,
        shell: &Shell,
        reference: &Reference,
        work: impl FnOnce((&Layout, &crate::store::remote::Remote), crate::store::transfer::Copying<'_>) -> Result<T>,
    ) -> Result<T> {
        let layout = shell.store()?;
        let remote = self.registry.remote(shell)?;
        let progress = shell.progress(&reference.to_string());
        let report = |bytes, total| progress.towards(bytes, total);
        let tools = shell.tools();
        let copying = self.registry.copying(&tools, &report);
        let _writing = layout.writing()?;
        work((&layout, &remote), copying)
    }

    fn predicates(&self) -> Result<Vec<Predicate>> {
        let mut predicates = sboms(&self.sbom);
        if self.provenance {
            let provenance = Provenance { seen: None, builder: self.builder_id.clone() };
            predicates.push(Predicate::Provenance(Box::new(provenance)));
        }
        if let (Some(path), Some(kind)) = (&self.predicate, &self.kind) {
            if kind == SIGNED {
                let hint = Some(format!("skillctl sign {}", self.reference));
                return Err(Error::Unavailable { reason: format!("{kind} is the type of signatures"), hint }.into());
            }
            let value = read(path).with_context(|| format!("Reading {}", path.display()))?;
            predicates.push(Predicate::Other(kind.clone(), value));
        }
        if self.print && predicates.len() > 1 {
            let reason = "--print prints one statement, and several are asked for".to_owned();
            return Err(Error::Unavailable { reason, hint: None }.into());
        }
        Ok(predicates)
    }

    fn print(&self, shell: &Shell, place: Option<&Reference>, wanted: &Wanted<'_>) -> Result<ExitCode> {
        let (values, warnings) = match place {
            Some(reference) => self.with_registry(shell, reference, |place, copying| {
                attest::print_on_registry(place, reference, wanted, copying)
            }),
            None => attest::print_in_store(&shell.store_with(&self.reference)?, &self.reference, wanted),
        }?;
        shell.warnings(&warnings);
        values.iter().try_for_each(|value| shell.print_json(value))?;
        Ok(ExitCode::SUCCESS)
    }

    fn report(&self, shell: &Shell, attested: &Attested) -> Result<ExitCode> {
        shell.warnings(&attested.warnings);
        match self.format {
            Format::Json => shell.print_json(attested)?,
            Format::Text => {
                let added = |made: &&Made| made.added && made.subject == attested.digest;
                let added: Vec<String> = attested.attestations.iter().filter(added).map(name).collect();
                let added =
                    if added.is_empty() { "nothing, it was attested so before".to_owned() } else { added.join(", ") };
                shell.print(format!(
                    "Attested {}\nDigest:  {}\nKey:     {}\nAdded:   {added}\n",
                    harmless_line(&attested.reference),
                    attested.digest,
                    attested.key,
                ))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What is attested of an image that is built.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Attestations")]
pub struct BuildArgs {
    /// Attest what is in the image: spdx, cyclonedx, or both
    #[arg(
        long,
        value_enum,
        value_name = "FORM",
        value_delimiter = ',',
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "spdx",
        requires = "key"
    )]
    sbom: Vec<Sbom>,
    /// Attest how it is built
    #[arg(long, requires = "key")]
    provenance: bool,
    /// Who builds, in the provenance
    #[arg(long, value_name = "URI", requires = "provenance", value_parser = uri)]
    builder_id: Option<String>,
    #[command(flatten)]
    signer: SignerArgs,
}

/// Attests what is built.
#[derive(Debug)]
pub struct Attester<'a> {
    args: &'a BuildArgs,
    key: Box<dyn Signer>,
    time: Option<DateTime<Utc>>,
}

impl BuildArgs {
    /// Opens the key, before anything is built; `None` where nothing is to be attested. `time` is when it is built, where the
    /// user says it.
    ///
    /// # Errors
    /// If the key cannot be opened, or is given for nothing.
    pub fn attester(&self, shell: &Shell, time: Option<DateTime<Utc>>) -> Result<Option<Attester<'_>>> {
        let Some(path) = &self.signer.key else { return Ok(None) };
        if self.sbom.is_empty() && !self.provenance {
            let reason = "--key signs what is attested, and nothing is".to_owned();
            let hint = Some("give --sbom or --provenance; skillctl sign signs the image".to_owned());
            return Err(Error::Unavailable { reason, hint }.into());
        }
        shell.can_record()?;
        Ok(Some(Attester { args: self, key: self.signer.signer(shell, path)?, time }))
    }
}

impl Attester<'_> {
    /// Attests of an image that was built so, and adds that to what is printed of it.
    ///
    /// # Errors
    /// As [`attest::in_store`].
    pub fn attest(
        &self,
        shell: &Shell,
        (layout, format): (&Layout, Format),
        build: Build,
        mut built: Value,
    ) -> Result<Value> {
        let digest = built["digest"].as_str().unwrap_or_default().to_owned();
        let mut predicates = sboms(&self.args.sbom);
        if self.args.provenance {
            let provenance = Provenance { seen: Some(build), builder: self.args.builder_id.clone() };
            predicates.push(Predicate::Provenance(Box::new(provenance)));
        }
        let cancel = shell.cancel();
        let options = UnpackOptions { cancelled: Some(cancel.flag()), ..UnpackOptions::default() };
        let wanted = Wanted { predicates: &predicates, epoch: self.time, options };
        let _writing = layout.writing()?;
        let attested = attest::in_store(layout, &digest, &wanted, &*self.key);
        let attested = attested.with_context(|| format!("Attesting {digest}"));
        let attested = shell.recorded((Action::Attest, &digest), attested, events)?;
        shell.warnings(&attested.warnings);
        let own = attested.attestations.iter().filter(|made| made.subject == digest);
        if format == Format::Text {
            shell.print(format!("Attested: {}\n", own.map(name).collect::<Vec<_>>().join(", ")))?;
        }
        built["attestations"] = serde_json::to_value(&attested.attestations)?;
        Ok(built)
    }
}

/// Returns the record of what was attested.
fn events(attested: &Attested) -> Vec<Event> {
    let kinds: Vec<String> = attested.attestations.iter().filter(|made| made.added).map(name).collect();
    let event = Event::of(Action::Attest, &attested.reference).digest(&attested.digest).signers([attested.key.clone()]);
    vec![if kinds.is_empty() { event } else { event.at(kinds.join(", ")) }]
}

fn sboms(forms: &[Sbom]) -> Vec<Predicate> {
    let mut known: Vec<Sbom> = Vec::new();
    for form in forms {
        if !known.contains(form) {
            known.push(*form);
        }
    }
    known.into_iter().map(Sbom::predicate).collect()
}

fn name(made: &Made) -> String {
    made.name.map_or_else(|| cell(&made.predicate_type), str::to_owned)
}

/// Reads a predicate, which everybody has to read alike.
fn read(path: &Path) -> Result<Value> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_ATTESTATION + 1).read_to_end(&mut text)?;
    let refused = |reason: String| Error::Unavailable { reason, hint: None };
    if text.len() as u64 > MAX_ATTESTATION {
        return Err(refused(format!("it has more than {MAX_ATTESTATION} bytes")).into());
    }
    strict::unique(&text).map_err(|e| refused(format!("it is no JSON that everybody reads alike: {e}")))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Reads a URI that is a name: no short one is known.
fn uri(text: &str) -> Result<String, String> {
    match kind::predicate_type(text) {
        Ok(uri) if uri == text => Ok(uri),
        _ => Err(format!("{text:?} is no URI")),
    }
}
