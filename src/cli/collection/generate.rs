//! `collection generate` and `collection volume`

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Input, Reach, is_url, read};
use crate::cli::generate::with_places;
use crate::cli::pull::When;
use crate::cli::registry::RegistryArgs;
use crate::cli::shell::{Format, Shell};
use crate::collection::Origin;
use crate::error::Error;
use crate::generate::collection::{Volume, commands, pinned, pod, pod_json, podman_image, script, volumes};
use crate::limits::Limits;
use crate::ops::collection::Opened;
use crate::ops::generate::pins::held_to_policy;
use crate::output::harmless_line;
use crate::reference::Reference;

/// What both verbs are told.
#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    input: Input,
    /// Mount below this directory of the container
    #[arg(long, value_name = "DIR", default_value = "/skills")]
    mount_root: String,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Common {
    fn volumes(&self, shell: &Shell) -> Result<Vec<Volume>> {
        let refused = |reason: &str| Error::Unavailable { reason: reason.to_owned(), hint: None };
        let mut opened = match (&self.input.file, &self.input.reference) {
            (Some(_), Some(_)) => return Err(refused("specify -f <file> or a registry reference, not both").into()),
            (None, None) => return Err(refused("specify -f <file> or a registry reference").into()),
            (Some(file), None) => read(file)?,
            (None, Some(url)) if is_url(url) => Reach::new(shell, &self.registry)?.open_in_git(url, None)?,
            (None, Some(text)) => Reach::new(shell, &self.registry)?
                .open(text, When::Newer, Limits::default().size)
                .with_context(|| format!("Reading collection {text}"))?,
        };
        shell.recorded_refusal(self.hold_to_policy(shell, &mut opened))?;
        Ok(volumes(&opened.collection, &self.mount_root)?)
    }

    /// Names the images that a policy covers by the digests that were verified: nobody looks at them again before they are mounted.
    fn hold_to_policy(&self, shell: &Shell, opened: &mut Opened) -> Result<()> {
        with_places(shell, &self.registry, |places| {
            let own = opened.image.as_ref().map(|image| image.reference.clone());
            for member in &mut opened.collection.members {
                if let Origin::Image(image) = &mut member.from {
                    let hosts: Vec<Reference> = own.iter().chain([&*image]).cloned().collect();
                    *image = held_to_policy(places, image, || self.registry.check_single(&hosts))?;
                }
            }
            Ok(())
        })
    }
}

const GENERATE: &str = "\
Examples:
  skillctl collection generate -f collection.yaml
  skillctl collection generate registry.example/acme/tools:1.0.0";

/// Print the part of a pod that mounts the skills of a collection
///
/// Kubernetes mounts images since 1.31, where its feature gate ImageVolume is on. A name that is no label of Kubernetes is
/// made one, with a hash at its end.
#[derive(Debug, clap::Args)]
#[command(after_long_help = GENERATE)]
pub struct GenerateArgs {
    #[command(flatten)]
    common: Common,
}

impl GenerateArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let volumes = self.common.volumes(shell)?;
        match self.common.format {
            Format::Text => shell.print(pod(&volumes, &self.common.mount_root))?,
            Format::Json => shell.print_json(&pod_json(&volumes, &self.common.mount_root))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

const VOLUME: &str = "\
Examples:
  skillctl collection volume -f collection.yaml
  skillctl collection volume registry.example/acme/tools:1.0.0
  skillctl collection volume -f collection.yaml --execute";

/// Print the commands that make a volume of each skill of a collection
///
/// A volume keeps the image that it was made of. So one of a skill that the collection has by digest is named after that, and a new
/// version is a new volume; podman volume rm removes the old one. Others have the name of the skill: after an upgrade they are
/// removed and made anew.
#[derive(Debug, clap::Args)]
#[command(after_long_help = VOLUME)]
pub struct VolumeArgs {
    #[command(flatten)]
    common: Common,
    /// Run the commands, too
    #[arg(long)]
    execute: bool,
}

impl VolumeArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let volumes = self.common.volumes(shell)?;
        if self.execute {
            return self.execute(shell, &volumes);
        }
        match self.common.format {
            Format::Text => shell.print(script(&volumes, &self.common.mount_root))?,
            Format::Json => {
                let all = volumes.iter().map(|volume| {
                    let (pull, create) = commands(volume);
                    json!({"name": volume.name, "image": podman_image(&volume.image), "pull": pull, "create": create})
                });
                shell.print_json(&all.collect::<Vec<_>>())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn execute(&self, shell: &Shell, volumes: &[Volume]) -> Result<ExitCode> {
        let mut rows = Vec::new();
        for volume in volumes {
            let made = make(shell, volume).with_context(|| format!("Making the volume {}", volume.name))?;
            if self.common.format == Format::Text {
                let done = if made { "Created volume" } else { "Volume is there:" };
                shell.print(format!("{done} {}\n", harmless_line(&volume.name)))?;
            }
            rows.push(json!({"name": volume.name, "image": podman_image(&volume.image), "created": made}));
        }
        if self.common.format == Format::Json {
            shell.print_json(&rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Makes a volume unless it is there, and returns whether it did. One of another image stays, and is an error: `--ignore`
/// would let the old skill pass for the new one.
fn make(shell: &Shell, volume: &Volume) -> Result<bool> {
    let podman = || shell.tools().podman();
    let image = podman_image(&volume.image);
    let there = podman().args(["volume", "inspect", "--", &volume.name]).output()?;
    if there.success() {
        let value: Value = serde_json::from_slice(&there.stdout).context("Reading what podman says of it")?;
        let other = value[0]["Options"]["image"].as_str().unwrap_or_default();
        if value[0]["Driver"] == "image" && other == image {
            return Ok(false);
        }
        let reason = format!("there is a volume {} of {}", volume.name, if other.is_empty() { "files" } else { other });
        let hint = Some(format!("podman volume rm {}", volume.name));
        return Err(Error::Unavailable { reason, hint }.into());
    }
    let (pull, create) = commands(volume);
    match pull {
        Some(pull) => drop(podman().args(&pull[1..]).run()?),
        None if !podman().args(["image", "exists", "--", &image]).output()?.success() => {
            let reason = format!("{image} is not in containers-storage");
            return Err(
                Error::Unavailable { reason, hint: Some(format!("skillctl load {}", pinned(&volume.image))) }.into()
            );
        }
        None => {}
    }
    podman().args(&create[1..]).run()?;
    Ok(true)
}
