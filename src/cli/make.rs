//! What verbs have in common that make images: flags, and what they print.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde_json::json;

use super::load::LoadArgs;
use super::shell::{Format, NO, Shell};
use crate::error::Error;
use crate::finding::Finding;
use crate::image::{Platform, Profile};
use crate::limits::Limits;
use crate::ops::build::{Built, Options};
use crate::output::{harmless_line, size};
use crate::reference::Reference;
use crate::store::layout::Layout;

/// Flags that say what the image is like.
#[derive(Debug, clap::Args)]
pub struct ImageArgs {
    /// Media types; redhat is for oc-mirror and cannot be loaded
    #[arg(long, default_value = "", hide_default_value = true, value_name = "standard|redhat")]
    media_type: String,
    /// Platforms, or all [default: linux/amd64]
    ///
    /// podman mounts an image of one platform on every host, so this is for consumers that select by platform. Several make
    /// an index of images over one layer. all is amd64, arm64, ppc64le, s390x and riscv64.
    #[arg(long, value_name = "OS/ARCH[,...]", value_parser = platforms)]
    platform: Option<Platforms>,
    /// Also where the tag is published with other content, or has an artifact instead of an image, or the reverse
    #[arg(long, short)]
    force: bool,
    /// Date of the image, RFC 3339 or seconds [default: $SOURCE_DATE_EPOCH or 1970]
    #[arg(long, value_name = "TIME")]
    timestamp: Option<String>,
    /// Take warnings as errors
    #[arg(long)]
    strict: bool,
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
struct LimitArgs {
    /// Most bytes in all files together
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().size)]
    max_size: u64,
    /// Most files and directories
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().entries)]
    max_files: u64,
    /// Deepest directory
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().depth)]
    max_depth: usize,
    /// Highest ratio of unpacked to packed bytes
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().ratio)]
    max_ratio: u64,
}

impl ImageArgs {
    /// Returns the bounds on a skill.
    pub fn limits(&self) -> Limits {
        let LimitArgs { max_size, max_files, max_depth, max_ratio } = self.limits;
        Limits { size: max_size, entries: max_files, depth: max_depth, ratio: max_ratio }
    }

    /// Returns the flag for what an artifact cannot have, where one is given.
    pub fn only_for_images(&self) -> Option<&'static str> {
        match () {
            () if self.platform.is_some() => Some("--platform"),
            () if !self.media_type.is_empty() => Some("--media-type"),
            () => None,
        }
    }

    /// Returns when the image is made, where somebody says that.
    ///
    /// # Errors
    /// If it is no date.
    pub fn time(&self, shell: &Shell) -> Result<Option<DateTime<Utc>>> {
        Ok(self.timestamp.as_deref().map(timestamp).transpose()?.or(epoch(shell)?))
    }

    /// Returns how an image is made by the flags.
    pub fn options<'a>(
        &self,
        shell: &Shell,
        tag: Option<&str>,
        progress: &'a dyn Fn(u64),
        cancelled: &'a AtomicBool,
    ) -> Result<Options<'a>> {
        let epoch = epoch(shell)?;
        Ok(Options {
            tag: tag.map(str::to_owned),
            profile: Profile::parse(&self.media_type).map_err(anyhow::Error::msg)?,
            platforms: self.platform.clone().map(|list| list.0).unwrap_or_default(),
            force: self.force,
            mtime: epoch.map_or(0, |e| u64::try_from(e.timestamp()).unwrap_or(0)),
            created: self.time(shell)?.unwrap_or_default(),
            strict: self.strict,
            limits: self.limits(),
            progress: Some(progress),
            cancelled: Some(cancelled),
            ..Options::default()
        })
    }

    /// As [`Self::finish`] for one of several, of which a line tells already what it is.
    pub fn finish_one(
        &self,
        shell: &Shell,
        layout: &Layout,
        (place, format): (&Path, Format),
        made: Result<Built, Vec<Finding>>,
    ) -> Result<Option<serde_json::Value>> {
        let built = match made {
            Ok(built) => built,
            Err(findings) => {
                super::validate::report(shell, place, &findings, Format::Text)?;
                return Ok(None);
            }
        };
        if format == Format::Text {
            super::validate::warn(shell, place, &built.findings);
            shell.print(format!("  Digest: {}\n  {}\n", built.digest, reference(&built)))?;
        }
        let loaded = self.load.after(shell, layout, &built.entry)?;
        let mut value = serde_json::to_value(&built)?;
        value["loaded"] = json!(loaded);
        Ok(Some(value))
    }

    /// Says what was made of what, `Built hr`, and loads it. Returns it as JSON; `None` where it was not valid.
    pub fn finish(
        &self,
        shell: &Shell,
        layout: &Layout,
        (done, place, format): (&str, &Path, Format),
        made: Result<Built, Vec<Finding>>,
    ) -> Result<Option<serde_json::Value>> {
        let built = match made {
            Ok(built) => built,
            Err(findings) => {
                super::validate::report(shell, place, &findings, format)?;
                shell.warn("error: nothing was built");
                return Ok(None);
            }
        };
        if format == Format::Text {
            super::validate::warn(shell, place, &built.findings);
            shell.print(text(done, place, &built))?;
        }
        let loaded = self.load.after(shell, layout, &built.entry);
        let mut value = serde_json::to_value(&built)?;
        value["loaded"] = json!(loaded.as_ref().is_ok_and(|loaded| *loaded));
        match (loaded, format) {
            (Err(e), Format::Json) => {
                shell.print_json(&value)?;
                Err(e)
            }
            (loaded, _) => loaded.map(|_| Some(value)),
        }
    }
}

/// Prints the only image that was made, and returns the exit status.
pub fn exit(shell: &Shell, format: Format, made: Option<&serde_json::Value>) -> Result<ExitCode> {
    let Some(value) = made else { return Ok(ExitCode::from(NO)) };
    if format == Format::Json {
        shell.print_json(value)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(done: &str, place: &Path, built: &Built) -> String {
    let place = harmless_line(&place.display().to_string());
    format!("{done} {place}\nDigest: {}\n{}\n", built.digest, reference(built))
}

/// Says what an image is called, and what is in it.
fn reference(built: &Built) -> String {
    let left_out = match built.left_out {
        0 => String::new(),
        n => format!(" ({n} left out)"),
    };
    let files = if built.files == 1 { "file" } else { "files" };
    let local = built.reference.parse().map_or_else(|_| built.reference.clone(), |r: Reference| r.in_storage());
    format!("Reference: {local}   {} {files}, {}{left_out}", built.files, size(built.bytes))
}

/// Returns the time that SOURCE_DATE_EPOCH says, where it is set.
///
/// # Errors
/// If it is no date.
pub fn epoch(shell: &Shell) -> Result<Option<DateTime<Utc>>> {
    let epoch = shell.env.source_date_epoch.as_deref();
    epoch.map(|e| seconds(e).context("Reading SOURCE_DATE_EPOCH")).transpose()
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
