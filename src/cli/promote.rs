//! `promote`

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::load::LoadArgs;
use super::record;
use super::registry::RegistryArgs;
use super::shell::{Format, NO, Shell};
use super::signer::SignerArgs;
use crate::audit::{Action, Event, Outcome};
use crate::error::Error;
use crate::finding::{Finding, Severity};
use crate::layer::UnpackOptions;
use crate::lifecycle::State;
use crate::limits::Limits;
use crate::ops::gates;
use crate::ops::promote::{self, Options, Plan, Promoted, Step};
use crate::ops::seal::{self, Seal};
use crate::output::harmless_line;
use crate::reference::Reference;
use crate::store;
use crate::store::layout::Layout;
use crate::store::remote::{Remote, Remotely};
use crate::store::repository::{Local, Repository};
use crate::store::transfer::Copying;
use crate::trust::signer::Signer;

const EXAMPLES: &str = "\
Examples:
  In the store:
    skillctl promote acme/hr:1.0.0-draft --to testing --local
  On the registry; no layer is sent:
    skillctl promote registry.example/acme/hr:1.0.0-testing --to published
  Signed before a tag names it, as a policy may want it (skillctl trust):
    skillctl promote registry.example/acme/hr:1.0.0-testing --to published --sign --key acme.key
  What would change:
    skillctl promote registry.example/acme/hr:1.0.0 --to deprecated --dry-run
  Take the tag away, and keep the image from being collected as garbage:
    skillctl promote registry.example/acme/hr:1.0.0 --to archived --keep-tag archive-1.0.0

The states, their tags and what else changes:
  draft       VERSION-draft
  testing     VERSION-testing; what is in the image must be a valid skill
  published   VERSION, and latest unless it is a prerelease or latest is newer
  deprecated  VERSION; latest moves to the highest version still published, or goes
  archived    no tag; the image stays by digest until it is collected as garbage";

/// Move a skill to its next lifecycle state
///
/// From draft to testing, published, deprecated and archived, one at a time and never back. Only the manifest's status
/// and tags change: layer and image ID stay, so what was tested is what runs. A reference that names a registry is
/// promoted there, unless --local is given, and any other in the store.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The image
    reference: String,
    /// The state: testing, published, deprecated or archived
    #[arg(long, value_name = "STATE")]
    to: String,
    /// In the store, also where the reference names a registry
    #[arg(long)]
    local: bool,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Also where the tag is published with other content, or is another skill's
    #[arg(long, short)]
    force: bool,
    /// Sign the new manifest, and attest of it what was attested of the old one, before a tag names it
    #[arg(long, requires = "key")]
    sign: bool,
    #[command(flatten)]
    signer: SignerArgs,
    /// Most bytes of an image that is looked into
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().size)]
    max_size: u64,
    /// A free tag that holds an archived image
    #[arg(long, value_name = "TAG")]
    keep_tag: Option<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    load: LoadArgs,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let context = || format!("Promoting {}", self.reference);
        let to: State = self.to.parse().context("invalid target state").with_context(context)?;
        if self.keep_tag.is_some() && to != State::Archived {
            return Err(anyhow::anyhow!("--keep-tag holds an archived image: {to} has a tag of its own"))
                .with_context(context);
        }
        let options = Options { to, force: self.force, keep_tag: self.keep_tag.clone() };
        if !self.dry_run {
            shell.can_record()?;
        }
        let text = self.reference.strip_prefix("docker://").unwrap_or(&self.reference);
        let spelled = text.len() != self.reference.len();
        let reference: Reference = match text.parse() {
            Ok(reference) => reference,
            // A digest, or the first digits of one.
            Err(_) if !spelled => return self.in_store(shell, &options).with_context(context),
            Err(e) => return Err(e).with_context(context),
        };
        if self.local || (reference.registry().is_none() && !spelled) {
            return self.in_store(shell, &options).with_context(context);
        }
        self.on_registry(shell, &reference.on_registry()?.or_latest(), &options).with_context(context)
    }

    fn in_store(&self, shell: &Shell, options: &Options) -> Result<ExitCode> {
        let layout = shell.store_with(&self.reference)?;
        let entry = store::lookup(&layout, &self.reference)?;
        let name = entry.name.clone().ok_or_else(|| Error::Unavailable {
            reason: "the image has no name, and its new tag would have none to belong to".into(),
            hint: Some(format!("skillctl tag {} NAME", entry.digest())),
        })?;
        let reference = name.parse::<Reference>()?.or_latest();
        let _writing = layout.writing()?;
        let local = Local::new(&layout, &reference);
        let plan = promote::plan(&local, &reference, options)?;
        if let Some(status) = self.gate(shell, &layout, &plan, options.to)? {
            return Ok(status);
        }
        let key = self.refused(shell, self.key(shell))?;
        let asked = (&reference, &plan.source, options.to);
        let seal = Seal::of(seal::Place::Store(&layout), layout.policy(), asked, key.as_deref());
        let seal = self.refused(shell, seal)?;
        if self.dry_run {
            return self.show(shell, &local, &plan);
        }
        let promoted = self.recorded(shell, plan.carry_out(&local, &seal))?;
        // A person reads first what was done, and then what becomes of it in containers-storage.
        if self.format == Format::Text {
            self.report(shell, &promoted, false)?;
            self.follow(shell, &layout, &local, &promoted)?;
            return Ok(ExitCode::SUCCESS);
        }
        let loaded = self.follow(shell, &layout, &local, &promoted)?;
        self.report(shell, &promoted, loaded)
    }

    /// Opens the key that signs, where one was named.
    fn key(&self, shell: &Shell) -> Result<Option<Box<dyn Signer>>> {
        match (&self.signer.key, self.sign) {
            (Some(path), true) => self.signer.signer(shell, path).map(Some),
            (Some(_), false) => {
                let hint = Some("add --sign".to_owned());
                Err(Error::Unavailable { reason: "a key is given, and nothing to be signed".into(), hint }.into())
            }
            (None, _) => Ok(None),
        }
    }

    /// Records why nothing is promoted, unless it would only be said what would change.
    fn refused<T>(&self, shell: &Shell, done: Result<T>) -> Result<T> {
        match self.dry_run {
            true => done,
            false => shell.recorded((Action::Promote, &self.reference), done, |_| Vec::new()),
        }
    }

    fn recorded(&self, shell: &Shell, promoted: Result<Promoted>) -> Result<Promoted> {
        shell.recorded((Action::Promote, &self.reference), promoted, |one| record::promoted(&self.reference, one))
    }

    /// Lets containers-storage follow: it gets the tags that have moved, and loses those that went. Returns whether the
    /// image is loaded in its new state.
    fn follow(&self, shell: &Shell, layout: &Layout, local: &Local<'_>, promoted: &Promoted) -> Result<bool> {
        let mut loaded = false;
        for step in &promoted.steps {
            match step {
                Step::Write { tag: Some(tag), .. } | Step::Tag { tag, .. } => {
                    let entry = store::lookup(layout, &local.reference(tag)?.to_string())?;
                    loaded |= self.load.after(shell, layout, &entry)? && entry.digest() == promoted.digest;
                }
                Step::Untag { tag } if self.load.is_wanted() => {
                    super::load::unload_name(shell, &local.reference(tag)?, &promoted.source_digest);
                }
                Step::Write { tag: None, .. } | Step::Untag { .. } => {}
            }
        }
        Ok(loaded)
    }

    fn on_registry(&self, shell: &Shell, reference: &Reference, options: &Options) -> Result<ExitCode> {
        let layout = shell.store()?;
        let remote = self.registry.remote(shell)?;
        let progress = shell.progress(&reference.to_string());
        let report = |bytes, total| progress.towards(bytes, total);
        let tools = shell.tools();
        let copying = self.registry.copying(&tools, &report);
        let _writing = layout.writing()?;
        let remotely = Remotely::new(&remote, reference, &layout, copying);
        let plan = promote::plan(&remotely, reference, options)?;
        if gates::needs_content(options.to) {
            self.fetch(&layout, (&remote, reference), &plan, copying)?;
        }
        if let Some(status) = self.gate(shell, &layout, &plan, options.to)? {
            return Ok(status);
        }
        let key = self.refused(shell, self.key(shell))?;
        let asked = (reference, &plan.source, options.to);
        let place = seal::Place::Registry(&layout, &remote, copying);
        let seal = self.refused(shell, Seal::of(place, layout.policy(), asked, key.as_deref()))?;
        if self.dry_run {
            return self.show(shell, &remotely, &plan);
        }
        let promoted = self.recorded(shell, plan.carry_out(&remotely, &seal))?;
        drop(progress);
        self.report(shell, &promoted, false)
    }

    /// Fetches what is promoted, by digest: the tag may have moved since it was looked at.
    fn fetch(
        &self,
        layout: &Layout,
        (remote, reference): (&Remote, &Reference),
        plan: &Plan,
        copying: Copying<'_>,
    ) -> Result<()> {
        let exact = reference.with_digest(&plan.source.digest)?;
        remote.fetch(layout, &exact, self.max_size, copying).context("Fetching what is to be checked")?;
        Ok(())
    }

    /// Checks what must hold before; returns the exit status where it does not.
    fn gate(&self, shell: &Shell, layout: &Layout, plan: &Plan, to: State) -> Result<Option<ExitCode>> {
        let cancel = shell.cancel();
        let options = UnpackOptions { cancelled: Some(cancel.flag()), ..UnpackOptions::default() };
        let findings: Vec<Finding> = gates::check(layout, &plan.source, to, &options)?;
        if findings.iter().all(|finding| finding.severity != Severity::Error) {
            return Ok(None);
        }
        if !self.dry_run {
            let event = Event::of(Action::Promote, &self.reference).digest(&plan.source.digest);
            shell.record(vec![event.not(Outcome::Refused, "it is no valid skill")])?;
        }
        super::validate::report(shell, Path::new(&self.reference), &findings, self.format)?;
        shell.warn("error: nothing was promoted");
        Ok(Some(ExitCode::from(NO)))
    }

    fn show(&self, shell: &Shell, repository: &dyn Repository, plan: &Plan) -> Result<ExitCode> {
        let reference = plan.reference(repository)?;
        if self.format == Format::Json {
            let (digest, steps) = (plan.digest(), &plan.steps);
            let value =
                json!({"reference": reference, "digest": digest, "from": plan.from, "to": self.to, "steps": steps});
            shell.print_json(&value)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut text = format!("Would promote {} from {} to {}\n", harmless_line(&self.reference), plan.from, self.to);
        text += &lines(reference.as_deref(), plan.digest());
        for step in &plan.steps {
            text += &match step {
                Step::Write { tag: Some(tag), .. } => format!("  write {}\n", repository.reference(tag)?),
                Step::Write { tag: None, digest } => format!("  write {}\n", repository.reference(digest)?),
                Step::Tag { tag, digest } => format!("  point {} at {digest}\n", repository.reference(tag)?),
                Step::Untag { tag } => format!("  remove the tag {}\n", repository.reference(tag)?),
            };
        }
        shell.print(text)?;
        Ok(ExitCode::SUCCESS)
    }

    fn report(&self, shell: &Shell, promoted: &Promoted, loaded: bool) -> Result<ExitCode> {
        shell.warnings(&promoted.warnings);
        // A tag that remains was warned of, and keeps the image.
        if promoted.reference.is_none() && promoted.warnings.is_empty() {
            let digest = &promoted.digest;
            shell.note(format!(
                "note: {digest} has no tag now and may be collected as garbage; --keep-tag TAG holds it"
            ));
        }
        match self.format {
            Format::Text => {
                let promoted_to = format!("Promoted {} to {}\n", harmless_line(&self.reference), promoted.to);
                let lines = lines(promoted.reference.as_deref(), &promoted.digest);
                let signed = promoted.signer.iter().map(|key| format!("Signed: by {key}\n")).collect::<String>();
                shell.print(promoted_to + &lines + &signed + &others(&self.reference, promoted))?;
            }
            Format::Json => {
                let mut value = serde_json::to_value(promoted)?;
                value["loaded"] = json!(loaded);
                shell.print_json(&value)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Says what became of tags beside the one of the new state: `latest`, above all.
fn others(reference: &str, promoted: &Promoted) -> String {
    let repository = promoted.reference.as_deref().unwrap_or(reference);
    let Ok(repository) = repository.parse::<Reference>().map(|reference| reference.repository()) else {
        return String::new();
    };
    let others = promoted.steps.iter().filter_map(|step| match step {
        Step::Tag { tag, .. } => Some(format!("Tagged {repository}:{tag}\n")),
        Step::Untag { tag } => Some(format!("Untagged {repository}:{tag}\n")),
        Step::Write { .. } => None,
    });
    let own = promoted.reference.as_ref().map(|own| format!("Tagged {own}\n"));
    others.filter(|line| Some(line) != own.as_ref()).map(|line| harmless_line(line.trim_end()) + "\n").collect()
}

fn lines(reference: Option<&str>, digest: &str) -> String {
    let reference = reference.map(|reference| format!("Reference: {reference}\n")).unwrap_or_default();
    format!("{reference}Digest: {digest}\n")
}
