//! `verify`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::identity::IdentityArgs;
use super::key;
use super::policy::files;
use super::registry::RegistryArgs;
use super::shell::{Format, Shell, not_verified};
use super::sign::place;
use crate::error::{Error, Refusal};
use crate::ops::verify;
use crate::output::harmless_line;
use crate::reference::Reference;
use crate::store::registries_conf::RegistriesConf;
use crate::store::{self, trusted};
use crate::trust::check::{Against, Verified, nobody};
use crate::trust::key::PublicKey;
use crate::trust::policy::Rule;
use crate::trust::verify::{Form, Signer};

const EXAMPLES: &str = "\
Examples:
  skillctl verify acme/hr:1.0.0 --key acme.pub
  skillctl verify registry.example/acme/hr:1.0.0
  skillctl verify registry.example/acme/hr:1.0.0 --key acme.pub
  skillctl verify acme/hr:1.0.0 --key acme.pub --identity registry.example/acme/hr";

/// Verify that an image is what a key or an identity has signed
///
/// Without a key it is held against the policy (skillctl trust); with one, against both. Exit status 1, and why, where it is not. An image with a registry in its name is verified there; any other in the store, without the
/// network. Its signature has to be for the repository that was asked for, and what the image says that it is for the tag: an older
/// version under a newer tag is refused.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The image
    reference: String,
    /// In the store, also with a registry in the name
    #[arg(long)]
    local: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Whose signatures count.
#[derive(Debug, Default, clap::Args)]
pub struct KeyArgs {
    /// Public key that has to have signed it; with several, one suffices
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// The repository that it is signed for, where that is another
    #[arg(long, value_name = "REPOSITORY", value_parser = repository)]
    identity: Option<Reference>,
    #[command(flatten)]
    keyless: IdentityArgs,
}

impl KeyArgs {
    /// Returns what has to hold; `None` where neither a key nor an identity of a certificate is given.
    ///
    /// # Errors
    /// If a key cannot be read, or is none; those of [`IdentityArgs::given`].
    pub fn rule(&self, shell: &Shell) -> Result<Option<Rule>> {
        let keys = read_keys(&self.key)?;
        let identities = self.keyless.identities()?;
        if keys.is_empty() && identities.is_empty() {
            return match self.identity {
                Some(_) => Err(Error::Unavailable { reason: "--identity goes with --key".into(), hint: None }.into()),
                None => Ok(None),
            };
        }
        let mirrors = RegistriesConf::read(&shell.registries_conf(), &files())?.mirrors();
        Ok(Some(Rule { keys, identities, identity: self.identity.clone(), mirrors, ..Rule::default() }))
    }
}

/// Who has to have signed what is used.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Verification")]
pub struct VerifyArgs {
    /// Take only what is signed, by the policy where no key is given: see skillctl verify and skillctl trust
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

impl VerifyArgs {
    /// Returns what has to hold beside the policy; `None` where nothing was asked for.
    ///
    /// # Errors
    /// As [`KeyArgs::rule`]; if it is to be verified and neither a key nor a policy says by whom.
    pub fn rule(&self, shell: &Shell) -> Result<Option<Rule>> {
        let rule = self.keys.rule(shell)?;
        // By what it is called in the end, the policy says by whom.
        Ok(rule.or_else(|| self.verify.then(|| Rule { must: true, ..Rule::default() })))
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

/// Reads public keys.
///
/// # Errors
/// If one cannot be read, or is none.
pub fn read_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>> {
    paths.iter().map(|path| key::public(path)).collect()
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        shell.can_record()?;
        let rule = self.keys.rule(shell)?;
        let verified = verified(shell, &self.reference, (self.local, &self.registry), rule.as_ref());
        let verified = shell.recorded_verification(&self.reference, verified);
        if let (Format::Json, Some(refusal)) = (self.format, verified.as_ref().err().and_then(not_verified)) {
            let none: [Signer; 0] = [];
            shell.print_json(&json!({
                "reference": refusal.image, "digest": refusal.digest, "signers": none, "warnings": none, "refused": refused(refusal),
            }))?;
        }
        let verified = verified?.filter(|verified| !verified.signers.is_empty());
        self.report(shell, &verified.ok_or_else(|| nobody(&self.reference))?)
    }

    fn report(&self, shell: &Shell, verified: &Verified) -> Result<ExitCode> {
        shell.warnings(&verified.warnings);
        match self.format {
            Format::Json => shell.print_json(verified)?,
            Format::Text => shell.print(text(verified))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Verifies an image where it is; `None` where nothing is asked of it.
///
/// # Errors
/// [`Error::NotVerified`].
pub fn verified(
    shell: &Shell,
    text: &str,
    (local, registry): (bool, &RegistryArgs),
    rule: Option<&Rule>,
) -> Result<Option<Verified>> {
    match place(text, local)? {
        Some(reference) => {
            let against = Against { given: rule, policy: &shell.policy() };
            // Which key a repository is pinned to, the store has.
            let pins = shell.existing_store()?;
            verify::on_registry((&registry.remote(shell)?.registry, pins.as_ref()), &reference, against)
        }
        None => {
            let layout = shell.store_with(text)?;
            let verified = trusted::found(&layout, &store::open(&layout, text)?, text, rule);
            Ok(verified.map_err(|e| if local { e.local() } else { e })?)
        }
    }
}

/// Refuses what is no image, where somebody has to have signed it.
///
/// # Errors
/// That.
pub fn check_unsigned(trust: Option<&Rule>) -> Result<(), Error> {
    let reason = "what is no image has no signature that could be verified".to_owned();
    let refused = || Error::Unavailable { reason, hint: Some("leave --verify and --key out".into()) };
    trust.map_or(Ok(()), |_| Err(refused()))
}

/// Returns what was asked of an image that is not so, and what there is.
pub fn refused(refusal: &Refusal) -> Value {
    json!({"required": refusal.required, "found": refusal.found, "hint": refusal.hint})
}

/// Returns the line that says who has signed what is used; none where nobody has asked.
pub fn signed(verified: Option<&Verified>) -> String {
    let by = verified.map(Verified::by).filter(|by| !by.is_empty());
    by.map(|by| format!("Verified: signed by {}\n", harmless_line(&by.join(" and ")))).unwrap_or_default()
}

/// Returns what is told of an image that is verified.
pub fn text(verified: &Verified) -> String {
    let mut text = format!("Verified {}\nDigest:  {}\n", harmless_line(&verified.reference), verified.digest);
    for signer in &verified.signers {
        let form = match signer.form {
            Form::Simple => {
                format!("simple, for {}", harmless_line(signer.reference.as_deref().unwrap_or_default()))
            }
            Form::Bundle => "bundle".to_owned(),
        };
        text += &format!("Signed:  by {} ({form})\n", harmless_line(&signer.id()));
    }
    text
}
