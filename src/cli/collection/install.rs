//! `collection install`

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Input, Reach, is_url, read};
use crate::audit::Action;
use crate::cli::install::unpack_options;
use crate::cli::pull::When;
use crate::cli::record;
use crate::cli::registry::RegistryArgs;
use crate::cli::shell::{Format, NO, Shell, not_verified};
use crate::cli::targets::{Place, TargetArgs};
use crate::cli::verify::VerifyArgs;
use crate::error::Error;
use crate::limits::Limits;
use crate::ops::collection::{Fetched, Opened};
use crate::ops::contents::Contents;
use crate::ops::install::{self, Installed, Options, Source};
use crate::output::{backup, harmless_line};
use crate::redact::without_credentials;

const EXAMPLES: &str = "\
Examples:
  A file's skills for one agent:
    skillctl collection install -f office.yaml --target claude
  A collection of a registry, for whoever works on this project:
    skillctl collection install registry.example/sets/office:1.0.0 -t claude --scope project
  Nothing of it but what a key has signed:
    skillctl collection install registry.example/sets/office:1.0.0 -t claude --key acme.pub
  What that would do:
    skillctl collection install --dry-run -f office.yaml -o ~/skills";

/// Install the skills of a collection
///
/// Each skill appears whole or not at all, as with install; those that are as they should be stay as they are. One that
/// cannot be installed keeps no other from being so, and the exit status is 2, or 1 where one is not signed as it has to be.
/// With --key or --verify each member is verified under its own name, and fetched from where that says.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct InstallArgs {
    #[command(flatten)]
    input: Input,
    /// The branch, tag or commit of a collection in Git
    #[arg(long = "ref", value_name = "REF")]
    git_ref: Option<String>,
    #[command(flatten)]
    targets: TargetArgs,
    /// Replace what is in the way, and keep it in a backup
    #[arg(long)]
    force: bool,
    /// Say what would be installed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// When the registry is asked, as in podman
    #[arg(long, value_enum, value_name = "WHEN", default_value = "newer")]
    pull: When,
    /// Most bytes of one skill, packed and in files
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().size)]
    max_size: u64,
    #[command(flatten)]
    verify: VerifyArgs,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// The skills that were installed so far, by name: the digest of the image, and the member.
type Seen = BTreeMap<String, (String, String)>;

/// What became of the members.
#[derive(Default)]
struct Counts {
    installed: usize,
    same: usize,
    failed: Vec<Value>,
    /// Whether one of those is not signed as it has to be.
    refused: bool,
}

impl InstallArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let refused = |reason: &str| Error::Unavailable { reason: reason.to_owned(), hint: None };
        let mut reach = Reach::new(shell, &self.registry)?;
        reach.trust = self.verify.rule(shell)?;
        let url = self.input.reference.as_deref().filter(|text| is_url(text));
        if self.git_ref.is_some() && url.is_none() {
            return Err(refused("--ref is for a collection in Git").into());
        }
        let places = self.targets.places(shell)?;
        if !self.dry_run {
            shell.can_record()?;
        }
        reach.pins = !self.dry_run;
        let mut opened = match (&self.input.file, url, &self.input.reference) {
            (Some(_), _, Some(_)) => return Err(refused("specify -f <file> or a reference, not both").into()),
            (Some(file), ..) => read(file)?,
            (None, Some(url), _) => reach.open_in_git(url, self.git_ref.as_deref())?,
            (None, None, Some(text)) => {
                reach.open(text, self.pull, self.max_size).with_context(|| format!("Installing collection {text}"))?
            }
            (None, None, None) => return Err(refused("specify -f <file> or a reference").into()),
        };
        if reach.trust.as_ref().is_some_and(|rule| rule.identity.is_some()) && opened.collection.members.len() > 1 {
            let reason = "--identity is for one image, and the collection has several".to_owned();
            let hint = Some("skillctl trust add REGISTRY/NAME --signed-as OTHER is for all of them".into());
            return Err(Error::Unavailable { reason, hint }.into());
        }
        reach.check(&mut opened)?;
        // Of a member what installs it pins its repository.
        reach.pins = false;
        self.install(&reach, &opened, &places)
    }

    fn install(&self, reach: &Reach<'_>, opened: &Opened, places: &[Place]) -> Result<ExitCode> {
        let (shell, collection) = (reach.shell, &opened.collection);
        let name = harmless_line(&collection.name);
        if self.format == Format::Text {
            shell.print(format!("Installing collection \"{name}\" ({} skills)\n", collection.members.len()))?;
        }
        let (mut counts, mut rows, mut seen) = (Counts::default(), Vec::new(), Seen::new());
        for (at, member) in collection.members.iter().enumerate() {
            shell.cancel().check()?;
            let label = member.label();
            match self.member(reach, (opened, at), places, (&mut rows, &mut seen)) {
                Ok(true) => counts.installed += 1,
                Ok(false) => counts.same += 1,
                Err(e) => {
                    let e = e.context(format!("Installing {label} of collection {}", collection.name));
                    counts.refused |= not_verified(&e).is_some();
                    counts.failed.push(json!({"member": label, "error": without_credentials(&format!("{e:#}"))}));
                    shell.fail(&e);
                }
            }
        }
        match self.format {
            Format::Text => {
                let done = if self.dry_run { "Would install" } else { "Installed" };
                let same = if counts.same > 0 { format!(", {} up to date", counts.same) } else { String::new() };
                shell.print(format!("{done} {} skills{same}\n", counts.installed))?;
            }
            Format::Json => shell.print_json(&json!({
                "name": collection.name,
                "version": collection.version,
                "installed": rows,
                "failed": counts.failed,
            }))?,
        }
        match counts.failed.len() {
            0 => Ok(ExitCode::SUCCESS),
            failed => {
                let reason = format!("{failed} skill(s) failed to install");
                let error = Error::Unavailable { reason, hint: None }.into();
                if counts.refused {
                    shell.fail(&error);
                    return Ok(ExitCode::from(NO));
                }
                Err(error)
            }
        }
    }

    /// Installs a member everywhere, and returns whether anything was written.
    fn member(
        &self,
        reach: &Reach<'_>,
        (opened, at): (&Opened, usize),
        places: &[Place],
        (rows, seen): (&mut Vec<Value>, &mut Seen),
    ) -> Result<bool> {
        let (shell, member) = (reach.shell, &opened.collection.members[at]);
        let (mut written, mut notes, mut local) = (false, String::new(), true);
        for fetched in reach.fetch(opened, at, (self.pull, self.max_size))? {
            shell.warnings(&fetched.warnings);
            local &= fetched.reference.registry().is_none();
            let label = member.label();
            self.install_one(reach, (&fetched, &label), places, seen, |installed, place| {
                written |= installed.written;
                notes += &backup(installed.backup.as_deref());
                shell.warnings(&installed.warnings);
                let mut row = serde_json::to_value(installed)?;
                row["member"] = json!(label);
                row["target"] = json!(place.label);
                row["path"] = json!(place.path.join(&installed.name));
                rows.push(row);
                Ok(())
            })?;
        }
        if self.format == Format::Text {
            let label = harmless_line(&member.label());
            let (kind, step) = match (member.image(), local) {
                (None, _) => ("source", "cloning...  building..."),
                (Some(_), true) => ("image", "installing..."),
                (Some(_), false) => ("image", "pulling..."),
            };
            let done = match (written, self.dry_run) {
                (false, _) => "up to date",
                (true, true) => "would be installed",
                (true, false) => "installed",
            };
            shell.print(format!("  {label} ({kind})  {step}  {done}\n{notes}"))?;
        }
        Ok(written)
    }

    /// Installs the skills of one image everywhere, and tells `each` what came of it.
    fn install_one(
        &self,
        reach: &Reach<'_>,
        (fetched, label): (&Fetched, &str),
        places: &[Place],
        seen: &mut Seen,
        mut each: impl FnMut(&Installed, &Place) -> Result<()>,
    ) -> Result<()> {
        let (layout, manifest) = (&reach.layout, &fetched.found.entry.descriptor);
        let cancel = reach.shell.cancel();
        let unpack = unpack_options(self.max_size, &cancel);
        let options =
            Options { force: self.force, back: None, content: None, any_source: false, unpack, cancel: &cancel };
        let contents = Contents::of(layout, manifest, &unpack)?;
        let (info, reference, origin) = (&fetched.found.info, &fetched.reference, fetched.git.as_ref());
        for name in contents.names(info, reference) {
            let digest = manifest.digest().to_string();
            // The one after the other would replace it, and nobody would know which of them is there.
            if let Some((other, member)) = seen.get(name).filter(|(other, _)| *other != digest) {
                let reason = format!("its skill {name} is another one than that of the member {member} ({other})");
                return Err(Error::Unavailable { reason, hint: None }.into());
            }
            seen.insert(name.to_owned(), (digest, label.to_owned()));
            let source = Source {
                layout,
                contents: &contents,
                manifest,
                info,
                reference,
                name,
                origin,
                trust: reach.trust.as_ref(),
            };
            for place in places {
                let installed = match self.dry_run {
                    true => install::preview(&source, place.open()?.as_ref(), &options),
                    false => {
                        let installed = install::install(&source, &place.ensure()?, &options);
                        let path = place.path.join(name);
                        let events = |one: &Installed| record::installed(Action::Install, one, &path);
                        reach.shell.recorded((Action::Install, label), installed, events)
                    }
                }?;
                each(&installed, place)?;
            }
        }
        Ok(())
    }
}
