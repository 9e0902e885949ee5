//! `build`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::Value;

use super::attest::{Attester, BuildArgs};
use super::gather::{address, gather};
use super::make::{ImageArgs, exit};
use super::registry::RegistryArgs;
use super::shell::{Format, NO, Shell, open_dir};
use crate::address::Address;
use crate::attest::provenance::Build;
use crate::error::Error;
use crate::frontmatter::FILE as SKILL_FILE;
use crate::ops::attest::seen;
use crate::ops::build::{self, Form, Input};
use crate::ops::gather::build_one;
use crate::output::harmless_line;
use crate::source::{Filter, GitSource};
use crate::store::layout::Layout;

const EXAMPLES: &str = "\
Examples:
  As <namespace>/<name>:<version>-draft, ready for podman run:
    skillctl build .
  Under another tag, and under another name:
    skillctl build --tag rc1 .
    skillctl build --tag acme/hr:1.0.0-rc1 .
  Into the store only; print the digest:
    skillctl build --load=never --format json . | jq -r .digest
  For tools that read artifacts and no images:
    skillctl build --format artifact --tag acme/hr:1.0.0 .
  From Git, at a tag, the skills of one directory:
    skillctl build https://github.com/acme/skills#v2:skills/hr
  With a file that would stop the build:
    skillctl build --include /.env.ci .";

/// Build a skill directory into an image
///
/// Of a Git repository every directory with SKILL.md is built, from a commit that the image then names.
/// The image goes into the store as a draft and is loaded into containers-storage where that is possible, so that
/// podman can mount it at once. The same content gives the same digests on any host.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The skill's directory, with SKILL.md in it, a Git repository (URL[#REF[:DIRECTORY]]), an archive (.tar.gz, .zip), or
    /// the index of a web site
    #[arg(default_value = ".", value_name = "DIRECTORY|URL|ARCHIVE")]
    source: PathBuf,
    /// Branch, tag or commit of the repository, instead of what the URL says
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// Of the skills of a repository, archive or site those whose name matches; repeatable
    #[arg(long, value_name = "PATTERN")]
    filter: Vec<String>,
    /// Tag or whole reference [default: <namespace>/<name>:<version>-draft]
    #[arg(long, short, value_name = "TAG|REFERENCE")]
    tag: Option<String>,
    /// Pack what would be refused or left out; gitignore syntax, repeatable
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// What to build (image, artifact), and how to print the result (text, json)
    #[arg(long, value_enum, value_name = "FORMAT", value_delimiter = ',', default_value = "image,text")]
    format: Vec<Made>,
    #[command(flatten)]
    attest: BuildArgs,
    #[command(flatten)]
    image: ImageArgs,
}

/// What is built, and how that is printed: both have always been called the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Made {
    /// An image, which runtimes mount
    Image,
    /// An artifact by the Agent Skills OCI Artifacts Specification
    Artifact,
    /// For people
    Text,
    /// For programs, exact and stable
    Json,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let formats = self.formats()?;
        let address = self.source.to_str().map(address).transpose()?.flatten();
        let address = address.filter(|address| !matches!(address, Address::Local(_)) || self.source.is_file());
        self.check_flags(address.as_ref())?;
        match address {
            Some(Address::Git(source)) => {
                let source = given(*source, self.reference.as_deref())?;
                self.several(shell, &Address::Git(Box::new(source)), formats)
            }
            Some(address) => self.several(shell, &address, formats),
            None => self.directory(shell, formats),
        }
    }

    /// Refuses a flag that would be ignored; no address is a directory of one skill.
    fn check_flags(&self, address: Option<&Address>) -> Result<()> {
        let (flag, what) = match address {
            Some(Address::Git(_)) => return Ok(()),
            _ if self.reference.is_some() => ("--ref", "Git repositories"),
            None if !self.filter.is_empty() => ("--filter", "repositories, archives and sites"),
            _ => return Ok(()),
        };
        let reason = format!("{flag} is for {what}, and {} is none", self.source.display());
        Err(Error::Unavailable { reason, hint: None }.into())
    }

    fn directory(&self, shell: &Shell, (form, format): (Form, Format)) -> Result<ExitCode> {
        let shown = self.source.display().to_string();
        let (dir, name) = open_skill(&self.source).with_context(|| format!("Packing {shown}"))?;
        let attester = self.attest.attester(shell, self.image.time(shell)?)?;
        let progress = shell.progress(&format!("Packing {shown}"));
        let (report, cancel) = (|bytes| progress.set(bytes), shell.cancel());
        let options = self.options(shell, form, &report, cancel.flag())?;
        if !dir.exists(SKILL_FILE) {
            // Before the store is made, which would be a trace of nothing.
            return Err(build::no_skill(&dir)).with_context(|| format!("Packing {shown}"));
        }
        let layout = shell.store()?;
        let built = build::build(&layout, Input::Directory(&dir, &name), &options);
        let built = built.with_context(|| format!("Packing {shown}"))?;
        let how = seen(&options, None);
        drop(progress);
        let made = self.image.finish(shell, &layout, ("Built", &self.source, format), built)?;
        let made = attest(shell, (&layout, format), attester.as_ref(), how, made)?;
        exit(shell, format, made.as_ref())
    }

    fn options<'a>(
        &self,
        shell: &Shell,
        form: Form,
        progress: &'a dyn Fn(u64),
        cancelled: &'a AtomicBool,
    ) -> Result<build::Options<'a>> {
        let options = self.image.options(shell, self.tag.as_deref(), progress, cancelled)?;
        Ok(build::Options { form, include: self.include.clone(), ..options })
    }

    /// Builds the skills of a Git repository, a site or an archive.
    fn several(&self, shell: &Shell, address: &Address, (form, format): (Form, Format)) -> Result<ExitCode> {
        let text = |line: String| if format == Format::Text { shell.print(line) } else { Ok(()) };
        if let Address::Git(source) = address {
            text(format!("{}\n", cloning(source)))?;
        }
        let attester = self.attest.attester(shell, self.image.time(shell)?)?;
        let layout = shell.store()?;
        let filter = (&Filter::parse(&self.filter)?, self.image.limits());
        let gathered = gather(shell, (&layout, None), address, filter, &RegistryArgs::default())?;
        shell.warnings(&gathered.warnings);
        let count = gathered.skills.len();
        if count > 1 && self.tag.as_ref().is_some_and(|tag| tag.contains(['/', ':'])) {
            let reason = format!("{} has {count} skills, and --tag names one image", gathered.from);
            let hint = match address {
                Address::Git(_) => "choose one with --filter, or name the directory: URL#REF:DIRECTORY",
                _ => "choose one with --filter",
            };
            let hint = Some(hint.to_owned());
            return Err(Error::Unavailable { reason, hint }.into());
        }
        let (mut made, mut invalid, mut failed) = (Vec::new(), 0, 0);
        for (at, one) in gathered.skills.iter().enumerate() {
            text(format!("Building {} ({}/{count})...\n", harmless_line(&one.name), at + 1))?;
            let cancel = shell.cancel();
            let options = self.options(shell, form, &|_| (), cancel.flag())?;
            let place = Path::new(&one.path);
            let built = build_one(&layout, &gathered, one, &options);
            let built = built.with_context(|| format!("Packing {}", one.name));
            let built = built.and_then(|built| self.image.finish_one(shell, &layout, (place, format), built));
            let how = seen(&options, gathered.source(one));
            let built = built.and_then(|built| attest(shell, (&layout, format), attester.as_ref(), how, built));
            match built {
                Ok(Some(value)) => made.push(value),
                Ok(None) => invalid += 1,
                Err(e) if shell.cancel().is_cancelled() => return Err(e),
                Err(e) => {
                    shell.fail(&e);
                    failed += 1;
                }
            }
        }
        text(format!("\nBuilt {} skill(s) from {}\n", made.len(), harmless_line(&gathered.from)))?;
        if format == Format::Json {
            shell.print_json(&made)?;
        }
        match (failed, invalid) {
            (0, 0) => Ok(ExitCode::SUCCESS),
            (0, invalid) => {
                shell.warn(format!("error: {invalid} skill(s) failed to build"));
                Ok(ExitCode::from(NO))
            }
            (failed, invalid) => {
                let reason = format!("{} skill(s) failed to build", failed + invalid);
                Err(Error::Unavailable { reason, hint: None }.into())
            }
        }
    }

    fn formats(&self) -> Result<(Form, Format)> {
        let form = if self.format.contains(&Made::Artifact) { Form::Artifact } else { Form::Image };
        let format = if self.format.contains(&Made::Json) { Format::Json } else { Format::Text };
        match self.image.only_for_images().filter(|_| form == Form::Artifact) {
            Some(flag) => {
                let reason = format!("{flag} is for images, and --format artifact makes none");
                Err(Error::Unavailable { reason, hint: None }.into())
            }
            None => Ok((form, format)),
        }
    }
}

/// Attests of what was built, where that is asked for.
fn attest(
    shell: &Shell,
    place: (&Layout, Format),
    attester: Option<&Attester<'_>>,
    build: Build,
    built: Option<Value>,
) -> Result<Option<Value>> {
    match (attester, built) {
        (Some(attester), Some(built)) => attester.attest(shell, place, build, built).map(Some),
        (_, built) => Ok(built),
    }
}

/// Returns a repository at the revision of `--ref`, where that is given.
pub fn given(source: GitSource, reference: Option<&str>) -> Result<GitSource> {
    Ok(match reference {
        Some(reference) => source.with_reference(reference)?,
        None => source,
    })
}

/// Says that a repository is fetched, as the Go tool does.
pub fn cloning(source: &GitSource) -> String {
    let reference = source.reference.as_ref().map(|reference| format!(" (ref: {reference})")).unwrap_or_default();
    harmless_line(&format!("Cloning {}{reference}...", source.shown))
}

/// Opens a skill directory and returns its name.
pub fn open_skill(path: &Path) -> Result<(cap_std::fs::Dir, String)> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_dir() {
        bail!("it is a file, and a directory with SKILL.md is expected");
    }
    let dir = open_dir(path)?;
    let real = std::fs::canonicalize(path)?;
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((dir, name))
}
