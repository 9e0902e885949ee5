//! `mirror`

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::copy::{SideArgs, may_be_remote};
use super::load_input;
use super::registry::RegistryArgs;
use super::save::Place;
use super::shell::{Format, Shell};
use crate::error::Error;
use crate::limits::Limits;
use crate::ops::collection::Means;
use crate::ops::mirror::{self, Mirrored};
use crate::ops::pull::When;
use crate::output::harmless_line;
use crate::reference::{Reference, Transport};

const EXAMPLES: &str = "\
Examples:
  To registry.b/mirror/acme/hr:1.0.0, with its signatures:
    skillctl mirror registry.a/acme/hr:1.0.0 registry.b/mirror
  All that is in an archive of save, to a registry:
    skillctl mirror oci-archive:skills.bundle registry.b/mirror
  From two registries to a layout, under their names:
    skillctl mirror registry.a/acme/hr:1.0.0 registry.b/acme/legal:2.1.0 oci:skills

Sources:
  NAME                 the store, else the registry in the name
  docker://NAME        a registry
  oci:DIR              all images of an OCI image layout
  oci-archive:FILE     the same in a tar file

Destinations:
  REGISTRY[/PREFIX]    a registry: each image keeps its repository below the
                       prefix, registry.a/acme/hr as registry.b/PREFIX/acme/hr
  oci:DIR              a layout, with the names that the images have
  oci-archive:FILE     the same in a tar file";

/// Copy images with their signatures to another registry
///
/// Images come with all platforms, signatures in both forms, attestations and whatever else refers to them. On a registry the image is
/// written by its digest first, then what belongs to it, and its tag last. What is there already is not sent again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Images, or layouts with several
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,
    /// Where they go
    #[arg(required = true)]
    destination: String,
    /// Also where a tag is published there with other content
    #[arg(long, short)]
    force: bool,
    /// Most bytes of an image, or of an archive
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().size)]
    max_size: u64,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    sides: SideArgs,
}

/// Where images go.
enum To<'a> {
    Registry(&'a str),
    Layout(&'a Path),
    Archive(&'a Path),
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let destination = &self.destination;
        let context = || format!("Mirroring to {destination}");
        let to = parse(destination).with_context(context)?;
        for source in &self.sources {
            check_transport(source).with_context(context)?;
        }
        let (names, layouts): (Vec<String>, Vec<String>) = self
            .sources
            .iter()
            .cloned()
            .partition(|text| !matches!(Transport::split(text).0, Some(Transport::Oci | Transport::OciArchive)));
        let remote = |text: &String| matches!(Transport::split(text).0, Some(Transport::Docker));
        let (from, maybe) = (names.iter().any(remote), names.iter().any(|name| may_be_remote(name)));
        let sides = self.sides.split(&self.registry, (from, from || maybe), matches!(to, To::Registry(_)));
        let (source, target) = sides.with_context(context)?;
        let single = source.creds.is_some();
        let layout = shell.store()?;
        let (source, target) = (source.remote(shell)?, target.remote(shell)?);
        let progress = shell.progress(destination);
        let report = |bytes, total| progress.towards(bytes, total);
        let tools = shell.tools();
        let copying = self.registry.copying(&tools, &report);
        let means = Means {
            layout: &layout,
            remote: &source,
            when: When::Missing,
            limit: self.max_size,
            copying,
            trust: None,
            pins: true,
        };
        let open = |text: &String| load_input::open(shell, &layout, Path::new(Transport::split(text).1), self.max_size);
        let opened = layouts.iter().map(open).collect::<Result<Vec<_>>>().with_context(context)?;
        // Nothing gets a name here: until it is sent nothing else keeps it.
        let _writing = layout.writing()?;
        let gathered = mirror::collect(&means, (&names, single), &opened, &shell.cancel()).with_context(context)?;
        shell.warnings(&gathered.warnings);
        let done = |one: &Mirrored| self.say(shell, one);
        let mirrored = match to {
            To::Registry(prefix) => mirror::to_registry(&means, &target, &gathered.members, (prefix, self.force), done),
            To::Layout(path) | To::Archive(path) => {
                let place = match to {
                    To::Layout(_) => Place::Directory,
                    _ => Place::of(path, self.format).with_context(context)?,
                };
                let write =
                    |name: &str, to: crate::ops::save::To<'_>| mirror::to_layout(&means, &gathered.members, (name, to));
                place.with(path, write).and_then(|all| {
                    all.iter().try_for_each(done)?;
                    Ok(all)
                })
            }
        };
        let mirrored = mirrored.with_context(context)?;
        if self.format == Format::Json {
            shell.print_json(&mirrored)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn say(&self, shell: &Shell, one: &Mirrored) -> Result<()> {
        match self.format {
            Format::Text => {
                shell.print(format!("Mirrored {} to {}\n", harmless_line(&one.source), harmless_line(&one.destination)))
            }
            Format::Json => Ok(()),
        }
    }
}

/// Refuses a path that does not say what is there.
fn check_transport(text: &str) -> Result<()> {
    let path = Path::new(text);
    let is_path = path.is_absolute() || text.starts_with("./") || text.starts_with("../") || path.is_file();
    if Transport::split(text).0.is_some() || !is_path {
        return Ok(());
    }
    let transport = if path.is_dir() || text.ends_with('/') { "oci" } else { "oci-archive" };
    let hint = Some(format!("a layout is oci:DIR, and one in a tar file oci-archive:FILE: {transport}:{text}"));
    Err(Error::Unavailable { reason: format!("{text} is a path without its transport"), hint }.into())
}

/// Reads a destination.
fn parse(text: &str) -> Result<To<'_>> {
    check_transport(text)?;
    let prefix = match Transport::split(text) {
        (Some(Transport::Oci), path) => return Ok(To::Layout(Path::new(path))),
        (Some(Transport::OciArchive), path) => return Ok(To::Archive(Path::new(path))),
        (None | Some(Transport::Docker), prefix) => prefix.trim_end_matches('/'),
        (Some(_), _) => {
            bail!("it has no place for what belongs to an image: a registry, oci: or oci-archive: is expected")
        }
    };
    // With something below it, as it is used.
    let below: Reference = format!("{prefix}/name").parse()?;
    match below.registry() {
        Some(_) => Ok(To::Registry(prefix)),
        None => bail!("{prefix} names no registry: registry.example/{prefix}, oci:DIR or oci-archive:FILE is expected"),
    }
}
