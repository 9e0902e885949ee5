//! `generate quadlet`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::skills::{PodmanVersion, SkillArgs, image_name, warn_not_loaded, whole_name};
use crate::cli::pull::check_output;
use crate::cli::shell::{Format, Shell, open_dir};
use crate::generate::Skill;
use crate::generate::quadlet::{Container, Content, Options, Unit, listing, units};
use crate::ops::generate::pins::Reader;
use crate::ops::generate::units::{Done, left_over, write};
use crate::output::shown;

const EXAMPLES: &str = "\
Examples:
  Look at them:
    skillctl generate quadlet registry.example/acme/hr:1.0.0
  A service with the skill, for this user:
    skillctl generate quadlet -o ~/.config/containers/systemd \\
        --container agent --image registry.example/acme/agent:2 registry.example/acme/hr:1.0.0
    systemctl --user daemon-reload && systemctl --user start agent
  In an image that bootc boots; COPY rootfs/ / in its Containerfile:
    skillctl generate quadlet --bootc -o rootfs registry.example/acme/hr:1.0.0";

/// Print or write Quadlet units of skills
///
/// A .volume for each skill, and an .image for those of registries, named after version and digest; with --container a unit that
/// mounts them, read-only. They are files to keep in Git: nothing in them depends on this machine. A new version is new files;
/// which are left over is said.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct QuadletArgs {
    #[command(flatten)]
    skills: SkillArgs,
    /// Write a unit of this container, too
    #[arg(long, value_name = "NAME", requires = "image")]
    container: Option<String>,
    /// The image of that container
    #[arg(long, value_name = "IMAGE", requires = "container", value_parser = image_name)]
    image: Option<String>,
    /// Bind the images to an image that bootc boots: paths are relative to its root
    #[arg(long)]
    bootc: bool,
    /// Write the files below this directory
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace files that are different
    #[arg(long, short, requires = "output")]
    force: bool,
    #[command(flatten)]
    podman: PodmanVersion,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl QuadletArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        self.output.as_deref().map(check_output).transpose()?;
        let skills = self.skills.skills(shell, Reader::Runtime)?;
        let image = self.image.as_deref().map(|image| whole_name(shell, image));
        let container = self.container.as_deref().zip(image.as_deref()).map(|(name, image)| Container { name, image });
        let below = self.skills.below(shell, image.as_deref())?;
        let options = Options { below: &below, container, podman: self.podman.or_oldest(shell), bootc: self.bootc };
        let units = units(&skills, options)?;
        warn_not_loaded(shell, &skills);
        let (done, left) = match &self.output {
            Some(output) => self.write(output, &units, &skills)?,
            None if self.format == Format::Text => {
                shell.print(listing(&units))?;
                return Ok(ExitCode::SUCCESS);
            }
            None => (units.iter().map(|_| Done::No).collect(), Vec::new()),
        };
        if self.format == Format::Json {
            let rows = units.iter().zip(done).map(|(unit, done)| {
                let (text, link) = match &unit.content {
                    Content::Text(text) => (Some(text), None),
                    Content::Link(target) => (None, Some(target)),
                };
                json!({"path": unit.path, "text": text, "link": link, "written": done == Done::Yes})
            });
            shell.print_json(&rows.collect::<Vec<_>>())?;
        } else if let Some(output) = &self.output {
            for (unit, done) in units.iter().zip(done) {
                let what = if done == Done::Yes { "Wrote" } else { "Unchanged:" };
                shell.print(format!("{what} {}\n", shown(&output.join(&unit.path))))?;
            }
        }
        for left in left {
            shell.note(format!("note: {} is of another version: remove it when nothing names it", shown(&left)));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Writes the units, and returns what was done with each, and what is left over of other versions.
    fn write(&self, output: &Path, units: &[Unit], skills: &[Skill]) -> Result<(Vec<Done>, Vec<PathBuf>)> {
        let context = || format!("Writing to {}", output.display());
        std::fs::create_dir_all(output).with_context(context)?;
        let dir = open_dir(output).with_context(context)?;
        let done = write(&dir, units, self.force).with_context(context)?;
        let left = left_over(&dir, units, skills).with_context(context)?;
        Ok((done, left.iter().map(|left| output.join(left)).collect()))
    }
}
