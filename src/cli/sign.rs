//! `sign`

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ArgGroup;

use super::keyless::KeylessArgs;
use super::registry::RegistryArgs;
use super::shell::{Format, Shell};
use super::signer::SignerArgs;
use crate::audit::{Action, Event};
use crate::ops::sign::{self, Signed};
use crate::output::harmless_line;
use crate::reference::Reference;
use crate::trust::signer::Signer;
use crate::trust::verify::Form;

const EXAMPLES: &str = "\
Examples:
  skillctl sign registry.example/acme/hr:1.0.0 --key acme.key
  skillctl sign acme/hr:1.0.0 --key acme.key
  skillctl sign acme/hr:1.0.0 --key acme.pub --signer-cmd 'openssl dgst -sha256 -sign acme.pem'
  skillctl sign registry.example/acme/hr:1.0.0 --keyless";

/// Sign an image
///
/// podman, CRI-O, cosign and skillctl can verify it then. An image with a registry in its name is signed where it is; any other in the store. Both forms of signatures are written: the image
/// NAME:sha256-DIGEST.sig, which podman, CRI-O, OpenShift and oc-mirror read, and a sigstore bundle, which cosign 3 reads first.
/// Nothing is sent to a transparency log. What the key has signed before is not signed again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
#[command(group = ArgGroup::new("by").required(true).args(["key", "keyless"]))]
pub struct Args {
    /// The image
    reference: String,
    #[command(flatten)]
    signer: SignerArgs,
    /// What the signature says that the image is called, where that is not its name
    #[arg(long, value_name = "REPOSITORY[:TAG]", conflicts_with = "keyless")]
    identity: Option<Reference>,
    /// In the store, also with a registry in the name
    #[arg(long)]
    local: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    keyless: KeylessArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let context = || format!("Signing {}", self.reference);
        shell.can_record()?;
        let place = place(&self.reference, self.local).with_context(context)?;
        // Without a key it is keyless: clap has seen to that.
        let Some(path) = &self.signer.key else {
            return self.keyless.sign(shell, place.as_ref(), &self.registry, self.format).with_context(context);
        };
        let sign = || match (self.signer.signer(shell, path)?, place) {
            (key, Some(reference)) => self.on_registry(shell, &reference, &*key),
            (key, None) => {
                let layout = shell.store_with(&self.reference)?;
                let _writing = layout.writing()?;
                sign::in_store(&layout, &self.reference, self.identity.as_ref(), &*key)
            }
        };
        let signed = sign();
        let event =
            |one: &Signed| Event::of(Action::Sign, &one.reference).digest(&one.digest).signers([one.key.clone()]);
        let signed =
            shell.recorded((Action::Sign, &self.reference), signed.with_context(context), |one| vec![event(one)])?;
        self.report(shell, &signed)
    }

    fn on_registry(&self, shell: &Shell, reference: &Reference, key: &dyn Signer) -> Result<Signed> {
        let layout = shell.store()?;
        let remote = self.registry.remote(shell)?;
        let progress = shell.progress(&reference.to_string());
        let report = |bytes, total| progress.towards(bytes, total);
        let tools = shell.tools();
        let copying = self.registry.copying(&tools, &report);
        let _writing = layout.writing()?;
        sign::on_registry((&layout, &remote), reference, self.identity.as_ref(), key, copying)
    }

    fn report(&self, shell: &Shell, signed: &Signed) -> Result<ExitCode> {
        shell.warnings(&signed.warnings);
        match self.format {
            Format::Json => shell.print_json(signed)?,
            Format::Text => {
                let form = |form: &Form| match form {
                    Form::Simple => "simple",
                    Form::Bundle => "bundle",
                };
                let added: Vec<&str> = signed.added.iter().map(form).collect();
                let added =
                    if added.is_empty() { "nothing, it was signed so before".to_owned() } else { added.join(", ") };
                shell.print(format!(
                    "Signed {}\nDigest:    {}\nIdentity:  {}\nKey:       {}\nAdded:     {added}\n",
                    harmless_line(&signed.reference),
                    signed.digest,
                    harmless_line(&signed.identity),
                    signed.key,
                ))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns what a name is on a registry; `None` for an image of the store.
///
/// # Errors
/// Where it says that it is on a registry, and names none.
pub fn place(text: &str, local: bool) -> Result<Option<Reference>> {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    let spelled = name.len() != text.len();
    match name.parse::<Reference>() {
        Ok(reference) if !local && (spelled || reference.registry().is_some()) => {
            Ok(Some(reference.on_registry()?.or_latest()))
        }
        Err(e) if spelled => Err(e.into()),
        // A digest, or the first digits of one, is looked up in the store.
        _ => Ok(None),
    }
}
