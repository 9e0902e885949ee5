//! `build`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::make::{ImageArgs, exit};
use super::shell::{Format, Shell, open_dir};
use crate::error::Error;
use crate::frontmatter::FILE as SKILL_FILE;
use crate::ops::build::{self, Form, Input};

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
  With a file that would stop the build:
    skillctl build --include /.env.ci .";

/// Build a skill directory into an image
///
/// The image goes into the store as a draft and is loaded into containers-storage where that is possible, so that
/// podman can mount it at once. The same content gives the same digests on any host.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The skill's directory, with SKILL.md in it
    #[arg(default_value = ".")]
    directory: PathBuf,
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
        let shown = self.directory.display().to_string();
        let (form, format) = self.formats()?;
        let (dir, name) = open_skill(&self.directory).with_context(|| format!("Packing {shown}"))?;
        let progress = shell.progress(&format!("Packing {shown}"));
        let (report, cancel) = (|bytes| progress.set(bytes), shell.cancel());
        let mut options = self.image.options(shell, self.tag.as_deref(), &report, cancel.flag())?;
        options.form = form;
        options.include.clone_from(&self.include);
        if !dir.exists(SKILL_FILE) {
            // Before the store is made, which would be a trace of nothing.
            return Err(build::no_skill(&dir)).with_context(|| format!("Packing {shown}"));
        }
        let layout = shell.store()?;
        let built = build::build(&layout, Input::Directory(&dir, &name), &options);
        let built = built.with_context(|| format!("Packing {shown}"))?;
        drop(progress);
        let made = self.image.finish(shell, &layout, ("Built", &self.directory, format), built)?;
        exit(shell, format, made.as_ref())
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
