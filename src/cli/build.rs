//! `build`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Utc};
use serde_json::json;

use super::load::LoadArgs;
use super::shell::{Format, NO, Shell, open_dir};
use crate::error::Error;
use crate::frontmatter::FILE as SKILL_FILE;
use crate::image::{Platform, Profile};
use crate::limits::Limits;
use crate::ops::build::{self, Built, Options};
use crate::output::{harmless_line, size};

const EXAMPLES: &str = "\
Examples:
  As <namespace>/<name>:<version>-draft, ready for podman run:
    skillctl build .
  Under another tag, and under another name:
    skillctl build --tag rc1 .
    skillctl build --tag acme/hr:1.0.0-rc1 .
  Into the store only; print the digest:
    skillctl build --load=never --format json . | jq -r .digest
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
    /// Media types; redhat is for oc-mirror and cannot be loaded
    #[arg(long, default_value = "", hide_default_value = true, value_name = "standard|redhat")]
    media_type: String,
    /// Platforms, or all [default: linux/amd64]
    ///
    /// podman mounts an image of one platform on every host, so this is for consumers that select by platform. Several make
    /// an index of images over one layer. all is amd64, arm64, ppc64le, s390x and riscv64.
    #[arg(long, value_name = "OS/ARCH[,...]", value_parser = platforms)]
    platform: Option<Platforms>,
    /// Also where the tag is published with other content
    #[arg(long, short)]
    force: bool,
    /// Date of the image, RFC 3339 or seconds [default: $SOURCE_DATE_EPOCH or 1970]
    #[arg(long, value_name = "TIME")]
    timestamp: Option<String>,
    /// Take warnings as errors
    #[arg(long)]
    strict: bool,
    /// Pack what would be refused or left out; gitignore syntax, repeatable
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    load: LoadArgs,
}

/// A list of platforms, as one value of a flag.
#[derive(Debug, Clone)]
struct Platforms(Vec<Platform>);

fn platforms(text: &str) -> Result<Platforms, String> {
    Platform::list(text).map(Platforms)
}

/// Flags that raise the limits.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Most bytes in all files together
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().size)]
    max_size: u64,
    /// Most files and directories
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().entries)]
    max_files: u64,
    /// Deepest directory
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().depth)]
    max_depth: usize,
}

impl LimitArgs {
    fn limits(&self) -> Limits {
        Limits { size: self.max_size, entries: self.max_files, depth: self.max_depth, ..Limits::default() }
    }
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let shown = self.directory.display().to_string();
        let profile = Profile::parse(&self.media_type).map_err(anyhow::Error::msg)?;
        let (dir, name) = open_skill(&self.directory).with_context(|| format!("Packing {shown}"))?;
        let epoch = shell
            .env
            .source_date_epoch
            .as_deref()
            .map(|e| seconds(e).context("Reading SOURCE_DATE_EPOCH"))
            .transpose()?;
        let created = self.timestamp.as_deref().map(timestamp).transpose()?.or(epoch).unwrap_or_default();
        let progress = shell.progress(&format!("Packing {shown}"));
        let report = |bytes| progress.set(bytes);
        let cancel = shell.cancel();
        let options = Options {
            tag: self.tag.clone(),
            profile,
            platforms: self.platform.clone().map(|list| list.0).unwrap_or_default(),
            force: self.force,
            mtime: epoch.map_or(0, |e| u64::try_from(e.timestamp()).unwrap_or(0)),
            created,
            strict: self.strict,
            include: self.include.clone(),
            limits: self.limits.limits(),
            progress: Some(&report),
            cancelled: Some(cancel.flag()),
        };
        if !dir.exists(SKILL_FILE) {
            // Before the store is made, which would be a trace of nothing.
            return Err(build::no_skill(&dir)).with_context(|| format!("Packing {shown}"));
        }
        let layout = shell.store()?;
        let result = build::build(&layout, &dir, &name, &options).with_context(|| format!("Packing {shown}"))?;
        drop(progress);
        let built = match result {
            Ok(built) => built,
            Err(findings) => {
                super::validate::report(shell, &self.directory, &findings, self.format)?;
                shell.warn("error: nothing was built");
                return Ok(ExitCode::from(NO));
            }
        };
        self.finish(shell, &layout, &built)
    }

    fn finish(&self, shell: &Shell, layout: &crate::store::layout::Layout, built: &Built) -> Result<ExitCode> {
        if self.format == Format::Text {
            super::validate::warn(shell, &self.directory, &built.findings);
            shell.print(self.text(built))?;
        }
        let loaded = self.load.after(shell, layout, &built.entry);
        if self.format == Format::Json {
            let mut value = serde_json::to_value(built)?;
            value["loaded"] = json!(loaded.as_ref().is_ok_and(|loaded| *loaded));
            shell.print_json(&value)?;
        }
        loaded.map(|_| ExitCode::SUCCESS)
    }

    fn text(&self, built: &Built) -> String {
        let left_out = match built.left_out {
            0 => String::new(),
            n => format!(" ({n} left out)"),
        };
        let files = if built.files == 1 { "file" } else { "files" };
        let local: String = built
            .reference
            .parse()
            .map_or_else(|_| built.reference.clone(), |r: crate::reference::Reference| r.in_storage());
        format!(
            "Built {}\nDigest: {}\nReference: {local}   {} {files}, {}{left_out}\n",
            harmless_line(&self.directory.display().to_string()),
            built.digest,
            built.files,
            size(built.bytes),
        )
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

fn seconds(text: &str) -> Result<DateTime<Utc>> {
    let date = text.trim().parse().ok().and_then(|seconds: i64| DateTime::from_timestamp(seconds, 0));
    let reason = || format!("{text:?} is neither a number of seconds since 1970 nor a date like 2026-01-02T03:04:05Z");
    Ok(date.ok_or_else(|| Error::Unavailable { reason: reason(), hint: None })?)
}

fn timestamp(text: &str) -> Result<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text)
        .map(|date| date.to_utc())
        .or_else(|_| seconds(text))
        .context("Reading --timestamp")
}
