//! `generate volume`

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::skills::{PodmanVersion, SkillArgs, warn_not_loaded};
use crate::cli::shell::{Format, Shell};
use crate::generate::volume::{script, volumes};
use crate::ops::generate::pins::Reader;

const EXAMPLES: &str = "\
Examples:
  A script to keep, which runs any agent with the skills:
    skillctl generate volume acme/hr:1.0.0 acme/legal:2.1.0 > with-skills
    sh with-skills my-agent
  The same for one agent:
    skillctl generate volume --image my-agent acme/hr:1.0.0 | sh";

/// Print a script that runs a container with skills as image-backed volumes
///
/// Such a volume keeps its image from being removed, and works where podman cannot mount images: with a user namespace, or
/// out of an additional image store. Its name has the digest of the image in it, so a new version is a new volume; podman
/// volume rm removes the old one.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct VolumeArgs {
    #[command(flatten)]
    skills: SkillArgs,
    /// The image of the container [default: what the script is given]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    #[command(flatten)]
    podman: PodmanVersion,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl VolumeArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let skills = self.skills.skills(shell, Reader::Runtime)?;
        let volumes =
            volumes(&skills, &self.skills.below(shell, self.image.as_deref())?, self.podman.or_oldest(shell))?;
        warn_not_loaded(shell, &skills);
        match self.format {
            Format::Text => shell.print(script(&volumes, self.image.as_deref()))?,
            Format::Json => {
                let rows = volumes.iter().map(|volume| {
                    json!({
                        "name": volume.name,
                        "image": volume.image,
                        "destination": volume.destination,
                        "fetch": volume.fetch,
                        "create": volume.create(),
                        "flags": volume.flags(),
                    })
                });
                shell.print_json(&rows.collect::<Vec<_>>())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
