//! `save`

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::registry::RegistryArgs;
use super::save_storage;
use super::shell::{Format, Shell, open_dir};
use crate::error::Error;
use crate::limits::Limits;
use crate::ops::collection::Means;
use crate::ops::pull::When;
use crate::ops::save::{self, Saved, To};
use crate::output::{harmless_line, size};

const EXAMPLES: &str = "\
Examples:
  Onto a stick:
    skillctl save -o /run/media/stick/skills.bundle acme/hr:1.0.0 acme/legal:2.1.0
  And on the host without a network:
    skillctl load --verify --key acme.pub -i /run/media/stick/skills.bundle
  From a registry, with the signatures that it has:
    skillctl save -o skills.bundle registry.example/acme/hr:1.0.0
  Through a pipe:
    skillctl save -o - acme/hr:1.0.0 | ssh host skillctl load -i -
  As read-only storage of podman, for an image of the operating system:
    skillctl save --storage /usr/lib/skillctl/storage acme/hr:1.0.0";

/// Save images with their signatures, for a host without a network
///
/// One OCI image layout has the images, of all platforms, their signatures, attestations and whatever else refers to them, in a form
/// that skopeo and oras read as well. What is not in the store and has a registry in its name comes from there, without a name in the
/// store. A collection brings its members. The same images give the same bytes.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Images, by name or by digest
    #[arg(required = true, value_name = "REFERENCE")]
    pub references: Vec<String>,
    /// Where to: a file; a directory where there is one, or with a slash at the end; - is stdout
    #[arg(long, short, value_name = "PATH", required_unless_present = "storage")]
    pub output: Option<PathBuf>,
    /// Make a read-only containers-storage instead, for podman and CRI-O, in a directory
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    pub storage: Option<PathBuf>,
    /// Most bytes of an image that comes from a registry
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().size)]
    pub max_size: u64,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        if let Some(storage) = &self.storage {
            return save_storage::run(shell, &self, storage);
        }
        let output = self.output.as_deref().unwrap_or(Path::new("-"));
        let context = || format!("Saving to {}", output.display());
        let place = Place::of(output, self.format).with_context(context)?;
        let layout = shell.store()?;
        let remote = self.registry.remote(shell)?;
        let progress = shell.progress(&output.display().to_string());
        let report = |bytes, total| progress.towards(bytes, total);
        let tools = shell.tools();
        let copying = self.registry.copying(&tools, &report);
        let means = Means {
            layout: &layout,
            remote: &remote,
            when: When::Missing,
            limit: self.max_size,
            copying,
            trust: None,
            pins: true,
        };
        let saved = place
            .with(output, |name, to| save::save(&means, (&self.references, self.registry.creds.is_some()), (name, to)));
        drop(progress);
        self.report(shell, &place, &saved.with_context(context)?)
    }

    fn report(&self, shell: &Shell, place: &Place, saved: &Saved) -> Result<ExitCode> {
        shell.warnings(&saved.warnings);
        if self.format == Format::Json {
            shell.print_json(saved)?;
            return Ok(ExitCode::SUCCESS);
        }
        let lines = saved.images.iter().map(|image| format!("Saved {}\n", harmless_line(&image.reference)));
        let (count, bytes) = (saved.images.len(), size(saved.size));
        let images = if count == 1 { "image" } else { "images" };
        let text = lines.collect::<String>()
            + &format!("Layout: {}   {count} {images}, {bytes}\n", harmless_line(&saved.destination));
        match place {
            Place::Stdout => shell.note(text.trim_end()),
            _ => shell.print(text)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where a set is written.
pub enum Place {
    /// In a directory.
    Directory,
    /// In a file.
    File,
    /// To stdout.
    Stdout,
}

impl Place {
    /// Returns what a path means.
    pub fn of(output: &Path, format: Format) -> Result<Self> {
        let unavailable =
            |reason: &str, hint: &str| Error::Unavailable { reason: reason.into(), hint: Some(hint.into()) };
        if output == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(
                    unavailable("stdout is a terminal, and an archive is no text", "name a file: -o FILE").into()
                );
            }
            if format == Format::Json {
                return Err(unavailable("archive and JSON would both be on stdout", "name a file: -o FILE").into());
            }
            return Ok(Self::Stdout);
        }
        if output.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Ok(Self::Directory);
        }
        match output.metadata() {
            // It would be replaced, and whoever waits at it would wait for ever.
            Ok(found) if !found.is_file() => {
                Err(unavailable("it is there and no regular file", "-o - writes to stdout").into())
            }
            _ => Ok(Self::File),
        }
    }

    /// Opens it, which makes a directory where there is none.
    pub fn with<T>(&self, output: &Path, write: impl FnOnce(&str, To<'_>) -> Result<T>) -> Result<T> {
        let name = output.display().to_string();
        match self {
            Self::Stdout => write("stdout", To::Stream(&mut io::stdout())),
            Self::Directory => {
                std::fs::create_dir_all(output).map_err(Error::io(&*name))?;
                write(&name, To::Directory(&open_dir(output).map_err(Error::io(&*name))?))
            }
            Self::File => {
                // The file itself, where it is reached by a link.
                let path = std::fs::canonicalize(output).unwrap_or_else(|_| output.to_owned());
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let file = path.file_name().and_then(|file| file.to_str());
                let file = file.with_context(|| format!("{name} is no name of a file"))?;
                write(&name, To::File(&open_dir(parent).map_err(Error::io(parent.display().to_string()))?, file))
            }
        }
    }
}
