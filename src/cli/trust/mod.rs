//! `trust`: who has to have signed what is used on this machine.

mod changes;
mod podman;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::{Value, json};

use super::hook::write;
use super::identity::IdentityArgs;
use super::images::short;
use super::key;
use super::policy::{ETC, needed};
use super::registry::RegistryArgs;
use super::shell::{Format, Shell, not_verified, open_dir};
use super::verify::{self, read_keys, verified};
use crate::audit::{Action, Event};
use crate::error::Error;
use crate::lock::{How, lock_dir};
use crate::output::{cell, harmless_line, table};
use crate::reference::Reference;
use crate::store::blob::sha256;
use crate::trust::edit::{self, Gone};
use crate::trust::identity::Identities;
use crate::trust::key::PublicKey;
use crate::trust::keyless::CANNOT;
use crate::trust::policy::{FILE, Policy, Rule, Scope, Written};

const EXAMPLES: &str = "\
Examples:
  From now on whatever is pulled, installed, loaded, converted or mounted from there has to be signed by a key:
    skillctl trust add registry.example/acme --key acme.pub
  And published, with a provenance that the key attests:
    skillctl trust add registry.example/acme --key acme.pub --state published --attestation provenance
  What is asked of an image, and whether it is so:
    skillctl trust check registry.example/acme/hr:1.0.0
  The same for podman, skopeo and CRI-O:
    skillctl trust show
    skillctl trust install

Files:
  /etc/skillctl/trust.toml       of the machine
  ~/.config/skillctl/trust.toml  of the user, which adds to it and takes nothing away";

const ADD: &str = "\
Examples:
  skillctl trust add registry.example/acme --key acme.pub
  Published, attested, and of two keys the one that signed first:
    skillctl trust add registry.example/acme/hr --key a.pub --key b.pub --pin --state published --attestation spdx
  A copy, whose signatures name the original:
    skillctl trust add mirror.example/acme --key acme.pub --signed-as registry.example/acme";

const REMOVE: &str = "\
Examples:
  skillctl trust remove registry.example/acme
  skillctl trust remove registry.example/acme --key old.pub
  skillctl trust remove registry.example/acme --key 59876efc39ac
  After a repository has got a new signer, rightly:
    skillctl trust remove --pinned registry.example/acme/hr";

/// Say who has to have signed what is used on this machine
///
/// The policy names repositories, and what has to hold of their images before pull, install, upgrade, sync, load, convert, generate,
/// CDI devices and hooks use one. All scopes count that a name is in: a narrower one adds to a broader one.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// List what has to hold of which repositories
    List(ListArgs),
    Add(AddArgs),
    Remove(RemoveArgs),
    Check(CheckArgs),
    Show(podman::ShowArgs),
    Install(podman::InstallArgs),
}

const LIST: &str = "\
Examples:
  skillctl trust list
  skillctl trust list --format json";

#[derive(Debug, clap::Args)]
#[command(after_long_help = LIST)]
struct ListArgs {
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Say what has to hold of the images of a repository, or of all below a name
///
/// Of the keys and identities of a scope one suffices, and of its states: one more lets more pass. An attestation asks for one more, and
/// so does a scope of its own, whatever other scopes cover the name. A key is copied, and a trusted root to a file beside it: what was given
/// may go.
#[derive(Debug, clap::Args)]
#[command(after_long_help = ADD)]
struct AddArgs {
    /// A repository, or what is before a slash of its name: registry.example/acme
    scope: String,
    /// Public key that has to have signed (can be repeated: one suffices)
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// State that images may be in: draft, testing, published, deprecated (can be repeated)
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// What one of the signers has to have attested: spdx, cyclonedx, provenance, or the type of a predicate (can be repeated)
    #[arg(long, value_name = "TYPE")]
    attestation: Vec<String>,
    /// What signatures have in place of SCOPE, where it is a copy
    #[arg(long, value_name = "REPOSITORY")]
    signed_as: Option<String>,
    /// Of several signers hold a repository to the one that has signed what is used of it first
    #[arg(long)]
    pin: bool,
    #[command(flatten)]
    place: PlaceArgs,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    keyless: IdentityArgs,
}

/// Remove a scope, which asks for nothing then, or a key or an identity of it, which suffices no more
#[derive(Debug, clap::Args)]
#[command(after_long_help = REMOVE)]
struct RemoveArgs {
    /// The scope, as trust list shows it
    scope: String,
    /// Only this key of it: its file, or its ID, of which 8 digits suffice
    #[arg(long, value_name = "FILE|ID")]
    key: Option<String>,
    /// Only this identity of it, or pattern, as trust list shows it
    #[arg(long, value_name = "IDENTITY", hide = CANNOT.is_some(), conflicts_with = "key")]
    certificate_identity: Option<String>,
    /// Only whom SCOPE, a repository, is pinned to: the next that signs it will be it
    #[arg(long, conflicts_with_all = ["key", "certificate_identity"])]
    pinned: bool,
    #[command(flatten)]
    place: PlaceArgs,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const CHECK: &str = "\
Examples:
  skillctl trust check registry.example/acme/hr:1.0.0
  In the store, without the network:
    skillctl trust check --local registry.example/acme/hr:1.0.0";

/// Say what is asked of an image, and whether it is so
///
/// Exit status 1, and why, where it is not. Nothing is asked of images that no scope covers.
#[derive(Debug, clap::Args)]
#[command(after_long_help = CHECK)]
struct CheckArgs {
    /// The image
    reference: String,
    /// In the store, also with a registry in the name
    #[arg(long)]
    local: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Whose file is changed.
#[derive(Debug, Clone, Copy, clap::Args)]
struct PlaceArgs {
    /// The user's own file, also as root [default: root changes the machine's, others their own]
    #[arg(long)]
    user: bool,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        match self.kind {
            Kind::List(args) => args.run(shell),
            Kind::Add(args) => args.run(shell),
            Kind::Remove(args) => args.run(shell),
            Kind::Check(args) => args.run(shell),
            Kind::Show(args) => args.run(shell),
            Kind::Install(args) => args.run(shell),
        }
    }
}

impl PlaceArgs {
    fn path(self, shell: &Shell) -> Result<PathBuf> {
        let below = if shell.env.uid == 0 && !self.user { ETC.into() } else { shell.config_home()? };
        Ok(below.join(FILE))
    }

    /// Changes the file by what `change` makes of its text, while nobody else does. What it makes has to be a policy.
    fn change(
        self,
        shell: &Shell,
        change: impl FnOnce(&str, &str) -> Result<Option<String>>,
    ) -> Result<Option<PathBuf>> {
        let path = self.path(shell)?;
        let shown = path.display().to_string();
        let context = || format!("Changing {shown}");
        let dir = path.parent().unwrap_or(&path);
        fs::create_dir_all(dir).with_context(context)?;
        let _lock =
            lock_dir(&open_dir(dir).with_context(context)?, How::Exclusive, &shell.cancel()).with_context(context)?;
        let before = match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.with_context(context)?,
        };
        let Some(after) = change(&before, &shown)? else { return Ok(None) };
        let read = |name: &str, limit| Ok(needed(&dir.join(name), limit)?.into_bytes());
        Policy::default().add(&after, &shown, &read)?;
        write(&real(&path)?, &after)?;
        Ok(Some(path))
    }
}

/// Returns the one path by which a file is known that may not be there yet: what a link leads to is what is changed.
fn real(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    // As many as the kernel follows.
    for _ in 0..40 {
        let Ok(to) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(&path).join(to);
    }
    let beside = || Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    Ok(beside().unwrap_or_else(|| path.clone()))
}

impl ListArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let policy = shell.policy();
        policy.check()?;
        match self.format {
            Format::Json => shell.print_json(
                &policy
                    .scopes()
                    .iter()
                    .map(|scope| asked(scope, scope.signed_as.clone(), &scope.rule))
                    .collect::<Vec<_>>(),
            )?,
            Format::Text if policy.is_empty() => shell.print("Nothing is asked of any image.\n")?,
            Format::Text => {
                let rows = policy.scopes().iter().map(|scope| {
                    let rule = &scope.rule;
                    let states: Vec<&str> = rule.states.iter().map(|state| state.as_str()).collect();
                    let attestations = rule.attestations.join(",");
                    vec![
                        scope.prefix.clone(),
                        signers(rule),
                        or_dash(&states.join(",")),
                        or_dash(&attestations),
                        or_dash(&more(scope)),
                        scope.path.clone(),
                    ]
                });
                shell.print(table(
                    &["SCOPE", "SIGNED BY", "STATES", "ATTESTATIONS", "MORE", "FILE"],
                    &rows.collect::<Vec<_>>(),
                ))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// Returns what else is said of a scope.
fn more(scope: &Scope) -> String {
    let signed_as = scope.signed_as.as_ref().map(|name| format!("signed as {name}"));
    let pin = scope.rule.pin.then(|| "pin".to_owned());
    signed_as.into_iter().chain(pin).collect::<Vec<_>>().join(", ")
}

/// Returns the first digits of the IDs of keys, as `list` shows digests, and the identities.
fn signers(rule: &Rule) -> String {
    let short = |key: &PublicKey| short(&key.id(), false);
    let identities = rule.identities.iter().flat_map(Identities::written).map(|own| cell(&own.to_string()));
    or_dash(&rule.keys.iter().map(short).chain(identities).collect::<Vec<_>>().join(","))
}

fn asked(scope: &Scope, signed_as: Option<String>, rule: &Rule) -> Value {
    json!({
        "scope": scope.prefix,
        "source": rule.source,
        "keys": rule.keys.iter().map(PublicKey::id).collect::<Vec<_>>(),
        "identities": rule.identities.iter().flat_map(Identities::written).collect::<Vec<_>>(),
        "states": rule.states,
        "attestations": rule.attestations,
        "signed_as": signed_as,
        "pin": rule.pin,
    })
}

/// Returns what the copy of a trusted root is called: another one gets another name, and scopes that have the old one keep it.
fn root_name(text: &str) -> String {
    format!("trusted-root-{}.json", short(&sha256(text.as_bytes()), false))
}

impl AddArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        shell.can_record()?;
        let context = || format!("Adding {}", self.scope);
        changes::check_case(&self.scope).with_context(context)?;
        let keys = read_keys(&self.key)?;
        let given = self.keyless.given()?;
        let root = given.as_ref().map(|given| (root_name(&given.root), &given.root));
        let new = Written {
            prefix: self.scope.clone(),
            keys: keys.iter().map(PublicKey::to_pem).collect(),
            identities: given.iter().map(|given| given.written.clone()).collect(),
            trusted_root: root.as_ref().map(|(name, _)| name.clone()),
            signed_as: self.signed_as,
            states: self.state,
            attestations: self.attestation,
            pin: self.pin,
        };
        let lists = [&new.keys, &new.states, &new.attestations];
        if lists.iter().all(|list| list.is_empty()) && new.identities.is_empty() && new.signed_as.is_none() && !new.pin
        {
            let identity = if CANNOT.is_none() { ", --certificate-identity IDENTITY" } else { "" };
            let reason = "nothing is asked of its images".to_owned();
            let hint = Some(format!("give --key FILE{identity}, --state STATE or --attestation TYPE"));
            return Err(Error::Unavailable { reason, hint }).with_context(context);
        }
        let mut is_new = false;
        let change = |text: &str, path: &str| {
            let changed = edit::add(text, path, &new)?;
            is_new = changed != text;
            if let Some((name, root)) = root {
                write(&Path::new(path).with_file_name(name), root)?;
            }
            Ok(Some(changed))
        };
        let path = self.place.change(shell, change).with_context(context)?.unwrap_or_default();
        let home = shell.env.home.as_ref().map(|home| home.join(".config").join(FILE));
        if !path.starts_with(ETC) && Some(&path) != home.as_ref() {
            shell.warn("warning: hooks read the policy of a user in ~/.config alone, and not this one");
        }
        let shown = path.display().to_string();
        if is_new {
            shell.record(vec![changes::added(&keys, &new, &shown)])?;
        }
        match self.format {
            Format::Json => shell.print_json(&json!({"scope": self.scope, "file": shown}))?,
            Format::Text => {
                let (scope, shown) = (harmless_line(&self.scope), harmless_line(&shown));
                shell.print(match is_new {
                    true => format!("Added {scope} to {shown}\n"),
                    false => format!("All of that is asked of {scope} already, in {shown}\n"),
                })?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl RemoveArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        shell.can_record()?;
        let context = || format!("Removing {}", self.scope);
        let scope = harmless_line(&self.scope);
        if self.pinned {
            let repository: Reference = self.scope.parse().with_context(context)?;
            let was = shell.store_with(&self.scope)?.unpin_signer(repository.name())?;
            let Some(was) = was else {
                let reason = format!("{scope} is pinned to no key");
                return Err(Error::Unavailable { reason, hint: None }.into());
            };
            shell.record(vec![Event::of(Action::Trust, &self.scope).at(format!("unpinned from {was}"))])?;
            match self.format {
                Format::Json => shell.print_json(&json!({"scope": self.scope, "removed": "pin", "signer": was}))?,
                Format::Text => shell.print(format!("Unpinned {scope} from {}\n", harmless_line(&was)))?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        changes::check_case(&self.scope).with_context(context)?;
        let id = self.key.as_deref().map(changes::id).transpose().with_context(context)?;
        let path = self.place.path(shell)?;
        let dir = path.parent().unwrap_or(&path).to_owned();
        let found = RefCell::new(BTreeSet::new());
        let is_gone = |own: &str| {
            let pem =
                if own.starts_with(PublicKey::BEGIN) { Ok(own.as_bytes().to_vec()) } else { key::read(&dir.join(own)) };
            let own = pem.ok().and_then(|pem| PublicKey::from_pem(&pem, own).ok()).map(|key| key.id());
            let own = own.filter(|own| id.as_ref().is_some_and(|id| own.starts_with(id)));
            own.map(|own| found.borrow_mut().insert(own)).is_some()
        };
        let named = self.certificate_identity.as_deref().map(Gone::Identity);
        let gone = named.or(id.is_some().then_some(Gone::Keys(&is_gone)));
        let mut was = Vec::new();
        let removed = self.place.change(shell, |text, path| {
            let removed = edit::remove(text, path, &self.scope, gone);
            if found.borrow().len() > 1 {
                let reason = format!("the IDs of several keys of {scope} begin so");
                return Err(Error::Unavailable { reason, hint: Some("give more digits".into()) }.into());
            }
            was = changes::before(text, path, &self.scope);
            Ok(removed?)
        });
        if removed.with_context(context)?.is_none() {
            let key = self.key.as_ref().map(|key| format!(" with the key {key}"));
            let named = self.certificate_identity.as_ref().map(|identity| format!(" with the identity {identity}"));
            let what = key.or(named).unwrap_or_default();
            let reason = format!("{} has no scope {scope}{what}", path.display());
            return Err(Error::Unavailable { reason, hint: Some("skillctl trust list shows all".into()) }.into());
        }
        let (kind, what) = match gone {
            Some(Gone::Keys(_)) => ("key", format!("a key of {scope}")),
            Some(Gone::Identity(_)) => ("identity", format!("an identity of {scope}")),
            None => ("scope", scope),
        };
        podman::warn_of_podman(shell, &self.scope);
        let done = format!("removed {what} from {}", path.display());
        let ids = found.take().into_iter().collect();
        shell.record(vec![changes::removed(&self.scope, done, &was, (gone, ids))])?;
        let shown = path.display().to_string();
        match self.format {
            Format::Json => shell.print_json(&json!({"scope": self.scope, "removed": kind, "file": shown}))?,
            Format::Text => shell.print(format!("Removed {what} from {}\n", harmless_line(&shown)))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl CheckArgs {
    /// Says what would make it so: what is asked is what this verb says.
    fn hinted(&self, mut error: anyhow::Error) -> anyhow::Error {
        if let Some(Error::NotVerified(refusal)) = error.downcast_mut() {
            let (reference, local) = (&self.reference, if self.local { " --local" } else { "" });
            let verbs = [("signed by", "sign", ""), ("attested by", "attest", ", and what it states")];
            let verb = verbs.iter().find(|(required, ..)| refusal.required.starts_with(required));
            refusal.hint = verb.map(|(_, verb, more)| {
                format!("skillctl {verb}{local} {reference} --key FILE, with a key that the policy names{more}")
            });
        }
        error
    }

    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let policy = shell.policy();
        policy.check()?;
        let name = self.reference.strip_prefix("docker://").unwrap_or(&self.reference);
        let reference: Reference = name.parse()?;
        let rules = policy.rules(&reference)?;
        shell.can_record()?;
        let verified = verified(shell, &self.reference, (self.local, &self.registry), None).map_err(|e| self.hinted(e));
        let verified = shell.recorded_verification(&self.reference, verified);
        let scopes = policy.covering(&reference);
        match self.format {
            Format::Json => {
                let named = |rule: &Rule| rule.identity.as_ref().map(ToString::to_string);
                let asked: Vec<Value> =
                    scopes.zip(&rules).map(|(scope, rule)| asked(scope, named(rule), rule)).collect();
                let mut result =
                    json!({"reference": self.reference, "asked": asked, "verified": verified.as_ref().ok()});
                if let Some(refusal) = verified.as_ref().err().and_then(not_verified) {
                    result["refused"] = verify::refused(refusal);
                }
                shell.print_json(&result)?;
                verified?;
            }
            Format::Text => {
                let mut text = match &verified? {
                    Some(verified) => verify::text(verified),
                    None => format!("Nothing is asked of {}\n", harmless_line(&self.reference)),
                };
                for rule in &rules {
                    text += &format!("Asked:   {}\n", harmless_line(&rule.source));
                }
                shell.print(text)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
