//! `convert`

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::gather::only_image;
use super::install::{chosen, fetch, unpack_options};
use super::make::{ImageArgs, exit};
use super::pull::When;
use super::registry::RegistryArgs;
use super::shell::{Format, NO, Shell};
use super::verify::VerifyArgs;
use crate::error::Error;
use crate::layer::UnpackOptions;
use crate::ops::contents::Contents;
use crate::ops::convert::{From, convert};
use crate::ops::pull::Rule;

const EXAMPLES: &str = "\
Examples:
  An artifact of another tool, so that podman can mount it:
    skillctl convert registry.example/vitale/hr:1.0.0 acme/hr:1.0.0
  All skills of an artifact that holds several, by their own names:
    skillctl convert registry.example/acme/skills:1.0.0
  One of them:
    skillctl convert --skill hr registry.example/acme/skills:1.0.0 acme/hr:1.0.0";

/// Make an image that can be mounted of a skill in any form
///
/// Reads the artifacts and images of other tools, finds the skills in them and rebuilds each as an image of the store, as
/// build would from a directory of the same files. Names, modes and contents stay; the image is a draft.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// An image or artifact of the store or of a registry
    #[arg(value_name = "REFERENCE")]
    from: String,
    /// What the image is called [default: <namespace>/<name>:<version>-draft]
    #[arg(value_name = "NEW-REFERENCE")]
    to: Option<String>,
    /// Of several skills those of this name; repeatable
    #[arg(long, value_name = "NAME")]
    skill: Vec<String>,
    /// When the registry is asked, as in podman
    #[arg(long, value_enum, value_name = "WHEN", default_value = "newer")]
    pull: When,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let context = || format!("Converting {}", self.from);
        only_image(&self.from).with_context(context)?;
        let layout = shell.store()?;
        let limits = self.image.limits();
        let trust = self.verify.rule(shell).with_context(context)?;
        let rule = Rule { trust: trust.as_ref(), ..Rule::new(self.pull.rule(), limits.size) };
        let fetched = fetch(shell, &layout, &self.from, rule, &self.registry);
        let (found, reference) = fetched.with_context(context)?;
        let cancel = shell.cancel();
        let unpack = UnpackOptions { limits, ..unpack_options(limits.size, &cancel) };
        let skills = Contents::skills(&layout, &found.entry.descriptor, &unpack).with_context(context)?;
        let names = skills.names(found.info.skill_name().unwrap_or(reference.basename()));
        let names = chosen(&names, &self.skill).with_context(context)?;
        if let (Some(to), [_, _, ..]) = (&self.to, &names[..]) {
            let reason = format!("{} has {} skills, and {to} can be one of them", self.from, names.len());
            let hint =
                Some(format!("name one with --skill, or none of them with no new reference: {}", names.join(", ")));
            return Err(Error::Unavailable { reason, hint }.into());
        }
        let from = From { reference: &reference, digest: found.entry.digest(), info: &found.info, skills: &skills };
        let mut made = Vec::new();
        for name in &names {
            let progress = shell.progress(&format!("Converting {name}"));
            let report = |bytes| progress.set(bytes);
            let options = self.image.options(shell, self.to.as_deref(), &report, cancel.flag())?;
            let built = convert(&layout, from, name, &options).with_context(context)?;
            drop(progress);
            let place = if names.len() == 1 { self.from.clone() } else { format!("{} ({name})", self.from) };
            let place = Path::new(&place);
            made.push(match (&names[..], self.format) {
                // All of them are one value.
                ([_, _, ..], Format::Json) => self.image.finish_one(shell, &layout, (place, self.format), built)?,
                _ => self.image.finish(shell, &layout, ("Converted", place, self.format), built)?,
            });
        }
        match &made[..] {
            [only] => exit(shell, self.format, only.as_ref()),
            several => {
                if self.format == Format::Json {
                    shell.print_json(&json!(several.iter().flatten().collect::<Vec<_>>()))?;
                }
                Ok(if several.iter().all(Option::is_some) { ExitCode::SUCCESS } else { ExitCode::from(NO) })
            }
        }
    }
}
