//! `collection`: sets of skills. Here is what its verbs share, and those that go to registries.

mod generate;
mod install;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::{DateTime, SecondsFormat};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::install::{Made, built, unpack_options};
use super::pull::{When, Writing, check_output, write};
use super::record;
use super::registry::RegistryArgs;
use super::shell::{Format, Shell};
use super::verify::check_unsigned;
use crate::address::Address;
use crate::collection::{self, Collection, MAX_YAML, Member, Origin};
use crate::error::Error;
use crate::limits::Limits;
use crate::ops::collection::{self as ops, Fetched, Means, Opened};
use crate::ops::pull::Pulled;
use crate::output::{harmless_line, shown};
use crate::reference::Reference;
use crate::source::{Filter, GitSource};
use crate::store::layout::Layout;
use crate::store::remote::Remote;
use crate::store::{self, trusted};
use crate::trust::policy::Rule;

/// Push, pull and install sets of skills
///
/// A collection is a YAML file that names skills that belong together: images, or repositories of Git. It is pushed as one
/// artifact, or as an index that has the skills with it, for mirrors without a network.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Push(PushArgs),
    Pull(PullArgs),
    Install(Box<install::InstallArgs>),
    Generate(generate::GenerateArgs),
    Volume(generate::VolumeArgs),
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        match self.kind {
            Kind::Push(args) => args.run(shell),
            Kind::Pull(args) => args.run(shell),
            Kind::Install(args) => args.run(shell),
            Kind::Generate(args) => args.run(shell),
            Kind::Volume(args) => args.run(shell),
        }
    }
}

/// Which collection.
#[derive(Debug, clap::Args)]
struct Input {
    /// A collection of a registry or of the store
    #[arg(value_name = "REFERENCE")]
    reference: Option<String>,
    /// A file, instead; - for stdin
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// The store and the registries, for everything that a collection names: one client and one proxy for all of it.
struct Reach<'a> {
    shell: &'a Shell,
    layout: Layout,
    remote: Remote,
    registry: &'a RegistryArgs,
    /// What the flags ask of each member.
    trust: Option<Rule>,
    /// Whether what is fetched is taken in by that.
    pins: bool,
}

impl<'a> Reach<'a> {
    fn new(shell: &'a Shell, registry: &'a RegistryArgs) -> Result<Self> {
        let mut remote = registry.remote(shell)?;
        remote.proxies.keep = true;
        Ok(Self { shell, layout: shell.store()?, remote, registry, trust: None, pins: true })
    }

    /// Does something with all that fetching needs.
    fn with<T>(&self, when: When, limit: u64, what: &str, act: impl FnOnce(&Means<'_>) -> Result<T>) -> Result<T> {
        let progress = self.shell.progress(what);
        let report = |bytes, total| progress.towards(bytes, total);
        let tools = self.shell.tools();
        let copying = self.registry.copying(&tools, &report);
        let (when, trust) = (when.rule(), self.trust.as_ref());
        act(&Means { layout: &self.layout, remote: &self.remote, when, limit, copying, trust, pins: self.pins })
    }

    /// Opens a collection by its reference, of the store where it has no registry.
    fn open(&self, text: &str, when: When, limit: u64) -> Result<Opened> {
        let local = |text: &str| text.parse::<Reference>().is_ok_and(|reference| reference.registry().is_none());
        let opened = if local(text) && store::lookup(&self.layout, text).is_ok() {
            self.shell.recorded_refusal(ops::stored(&self.layout, text, self.pins))?
        } else if Path::new(text).is_file() {
            let reason = format!("{text} is a file, and the name of a collection is expected");
            let hint = Some(format!("-f names a file: skillctl collection install -f {text}"));
            return Err(Error::Unavailable { reason, hint }.into());
        } else {
            let reference = self.registry.resolve(self.shell, text)?.or_latest();
            self.shell.can_record()?;
            self.shell.recorded_refusal(self.with(when, limit, text, |means| ops::open(means, &reference)))?
        };
        if let Some(image) = &opened.image {
            let named = (opened.origin.as_str(), image.digest.as_str());
            self.shell.record(record::taken(named, image.verified.as_ref(), image.fetched))?;
        }
        self.shell.warnings(&opened.warnings);
        Ok(opened)
    }

    /// Checks that one password goes to one registry. That of an index may be all that there is to talk to.
    fn check(&self, opened: &mut Opened) -> Result<()> {
        if self.registry.creds.is_some() && opened.ask_nobody_else() {
            return Ok(());
        }
        let own = opened.image.as_ref().map(|image| image.reference.clone());
        let members = opened.collection.members.iter().filter_map(Member::image).cloned();
        self.registry.check_single(&members.chain(own).collect::<Vec<_>>())
    }

    /// Fetches a member into the store: one image, or all skills of a repository.
    fn fetch(&self, opened: &Opened, at: usize, (when, limit): (When, u64)) -> Result<Vec<Fetched>> {
        let member = &opened.collection.members[at];
        if let Origin::Source(url) = &member.from {
            check_unsigned(self.trust.as_ref())?;
            return self.built(&source(url)?, member.name.as_deref(), limit);
        }
        self.shell.can_record()?;
        let fetched = self.with(when, limit, &member.label(), |means| opened.fetch(means, at));
        let fetched = self.shell.recorded_refusal(fetched)?;
        let (reference, digest) = (fetched.reference.to_string(), fetched.found.entry.digest());
        self.shell.record(record::taken((&reference, digest), fetched.verified.as_ref(), fetched.fetched))?;
        Ok(vec![fetched])
    }

    /// Builds the skills of a repository; only that of a name, where there are several and one has it.
    fn built(&self, source: &GitSource, name: Option<&str>, limit: u64) -> Result<Vec<Fetched>> {
        let (shell, layout, cancel) = (self.shell, &self.layout, self.shell.cancel());
        let unpack = unpack_options(limit, &cancel);
        let address = Address::Git(Box::new(source.clone()));
        let filter = (&Filter::default(), unpack.limits);
        let gathered = super::gather::gather(shell, (layout, None), &address, filter, self.registry)?;
        shell.warnings(&gathered.warnings);
        let mut all = Vec::new();
        for Made { found, reference, origin } in built(shell, layout, &gathered, &unpack)? {
            all.push(Fetched { git: Some(origin), ..Fetched::here(found, reference) });
        }
        let is_named = |fetched: &Fetched| name.is_some() && fetched.found.info.skill_name() == name;
        if all.iter().any(is_named) {
            all.retain(is_named);
        }
        for Fetched { found, reference, .. } in &all {
            let verified = trusted::check(layout, reference, (found.entry.digest(), &found.info), None);
            shell.recorded_refusal(verified.map_err(Into::into))?;
        }
        Ok(all)
    }

    /// Reads a collection that is a file of a repository.
    fn open_in_git(&self, url: &str, reference: Option<&str>) -> Result<Opened> {
        let source = super::build::given(source(url)?, reference)?;
        let file = super::gather::fetch(self.shell, &self.layout, &source)?.file(MAX_YAML as u64 + 1)?;
        Ok(Opened::file(&file, &source.to_string())?)
    }
}

/// Returns the repository of a URL.
fn source(url: &str) -> Result<GitSource> {
    let none = || Error::Unavailable { reason: format!("{url} is no URL of a Git repository"), hint: None };
    Ok(GitSource::parse(url).ok_or_else(none)??)
}

/// Returns whether an argument is the URL of a repository, and no reference.
fn is_url(text: &str) -> bool {
    GitSource::parse(text).is_some()
}

/// Reads a collection from a file, or from stdin where that is called `-`.
fn read(path: &Path) -> Result<Opened> {
    let context = || format!("Reading {}", path.display());
    let mut bytes = Vec::new();
    // One more, so that a file that is too large is told from one that is not.
    let mut whole = |from: &mut dyn std::io::Read| from.take(MAX_YAML as u64 + 1).read_to_end(&mut bytes);
    match path == Path::new("-") {
        true => whole(&mut std::io::stdin().lock()),
        false => File::open(path).and_then(|mut file| whole(&mut file)),
    }
    .with_context(context)?;
    Ok(Opened::file(&bytes, &path.display().to_string())?)
}

/// Returns each member as JSON.
fn members(collection: &Collection) -> Vec<Value> {
    let value = |member: &Member| match member.image() {
        Some(image) => json!({"name": member.name, "image": image.to_string()}),
        None => json!({"name": member.name, "source": member.shown()}),
    };
    collection.members.iter().map(value).collect()
}

/// How a collection is kept on a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// The file, with digests, as one artifact
    Artifact,
    /// An index, and with it the skills, in the repository of the collection
    Index,
}

const PUSH_EXAMPLES: &str = "\
Examples:
  The file, naming the skills where they are:
    skillctl collection push -f office.yaml registry.example/sets/office:1.0.0
  With the skills, for a mirror without a network:
    skillctl collection push --form index -f office.yaml registry.example/sets/office:1.0.0";

/// Push a collection to a registry
///
/// Every member is looked for first, and pinned to the digest that it has now; where one is missing, nothing is written.
#[derive(Debug, clap::Args)]
#[command(after_long_help = PUSH_EXAMPLES)]
struct PushArgs {
    /// Its name on the registry
    reference: String,
    /// The file; - for stdin
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// How it is kept there
    #[arg(long, value_enum, value_name = "FORM", default_value = "artifact")]
    form: Form,
    /// Also where the tag is published with other content, or cannot be looked at
    #[arg(long)]
    force: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl PushArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let context = || format!("Pushing collection {}", self.reference);
        let opened = read(&self.file)?;
        let to = self.registry.resolve(shell, &self.reference).with_context(context)?.or_latest();
        let reach = Reach::new(shell, &self.registry)?;
        let members = opened.collection.members.iter().filter_map(Member::image).cloned();
        self.registry.check_single(&members.chain([to.clone()]).collect::<Vec<_>>())?;
        let form = match self.form {
            Form::Artifact => collection::Form::Artifact,
            Form::Index => collection::Form::Index,
        };
        let created = created(shell)?;
        let options = ops::Options { origin: &opened.origin, form, created: &created, force: self.force };
        let pushed = reach.with(When::Always, Limits::default().size, &self.reference, |means| {
            ops::push(means, &opened.collection, &to, &options)
        });
        let pushed = shell.recorded_refusal(pushed).with_context(context)?;
        shell.warnings(&pushed.warnings);
        match self.format {
            Format::Text => {
                let name = harmless_line(&self.reference);
                shell.print(format!("Pushed collection {name}\nDigest: {}\n", pushed.digest))?;
            }
            Format::Json => {
                let mut value = serde_json::to_value(&pushed)?;
                value["name"] = json!(pushed.collection.name);
                value["version"] = json!(pushed.collection.version);
                value["skills"] = self::members(&pushed.collection).into();
                shell.print_json(&value)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the date of what is made: 1970, so that the same collection has the same digest, unless the environment says.
fn created(shell: &Shell) -> Result<String> {
    let seconds = match &shell.env.source_date_epoch {
        Some(text) => text.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH is no number: {text:?}"))?,
        None => 0,
    };
    let date = DateTime::from_timestamp(seconds, 0).context("SOURCE_DATE_EPOCH is no date")?;
    Ok(date.to_rfc3339_opts(SecondsFormat::Secs, true))
}

const PULL_EXAMPLES: &str = "\
Examples:
  skillctl collection pull registry.example/acme/tools:1.0.0
  skillctl collection pull registry.example/acme/tools:1.0.0 -o skills";

/// Pull a collection, and with --output its skills
#[derive(Debug, clap::Args)]
#[command(after_long_help = PULL_EXAMPLES)]
struct PullArgs {
    /// The collection
    reference: String,
    /// Write each of its skills to DIR/NAME, too
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace whatever has a skill's name in the output directory
    #[arg(long)]
    force: bool,
    /// Most bytes of one skill, packed and in files
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().size)]
    max_size: u64,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl PullArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let context = || format!("Pulling collection {}", self.reference);
        if let Some(output) = &self.output {
            check_output(output)?;
        }
        shell.can_record()?;
        let reach = Reach::new(shell, &self.registry)?;
        let mut opened = reach.open(&self.reference, When::Always, self.max_size).with_context(context)?;
        let written = match &self.output {
            Some(output) => self.write(&reach, &mut opened, output).with_context(context)?,
            None => Vec::new(),
        };
        match self.format {
            Format::Text => shell.print(self.text(&opened))?,
            Format::Json => {
                let mut members = members(&opened.collection);
                for (member, path) in members.iter_mut().zip(&written) {
                    member["path"] = json!(path);
                }
                let (collection, image) = (&opened.collection, opened.image.as_ref());
                shell.print_json(&json!({
                    "reference": opened.origin,
                    "digest": image.map(|image| &image.digest),
                    "form": image.map(|image| image.form),
                    "name": collection.name,
                    "version": collection.version,
                    "description": collection.description,
                    "skills": members,
                }))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Fetches every member before any is written.
    fn write(&self, reach: &Reach<'_>, opened: &mut Opened, output: &Path) -> Result<Vec<PathBuf>> {
        reach.check(opened)?;
        let label = |at: usize| opened.collection.members[at].label();
        let mut all = Vec::new();
        for at in 0..opened.collection.members.len() {
            let fetched = reach.fetch(opened, at, (When::Always, self.max_size));
            let fetched = fetched.with_context(|| format!("Pulling its member {}", label(at)))?;
            all.extend(fetched.into_iter().map(|fetched| (at, fetched)));
        }
        let mut written = Vec::new();
        for (at, fetched) in all {
            reach.shell.warnings(&fetched.warnings);
            let (entry, reference) = (fetched.found.entry, fetched.reference.to_string());
            let digest = entry.digest().to_owned();
            let Fetched { moved_from, verified, fetched, .. } = fetched;
            let warnings = Vec::new();
            let mut pulled = Pulled { entry, reference, digest, fetched, verified, moved_from, warnings };
            let how = Writing { output, skills: &[], force: self.force, max_size: self.max_size };
            let paths = write(reach.shell, &reach.layout, (&label(at), &mut pulled), how)
                .with_context(|| format!("Writing its member {}", label(at)))?;
            reach.shell.warnings(&pulled.warnings);
            written.extend(paths);
        }
        Ok(written)
    }

    fn text(&self, opened: &Opened) -> String {
        let collection = &opened.collection;
        let mut text =
            format!("Pulled collection {} ({} skills)\n", harmless_line(&collection.name), collection.members.len());
        for member in &collection.members {
            text += &format!("  - {} ({})\n", harmless_line(&member.label()), harmless_line(&member.shown()));
        }
        if let Some(image) = &opened.image {
            text += &format!("Digest: {}\n", image.digest);
        }
        if let Some(output) = &self.output {
            text += &format!("Unpacked to {}\n", shown(output));
        }
        text
    }
}
