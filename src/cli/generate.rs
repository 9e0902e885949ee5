//! `generate`

mod kube;
mod quadlet;
mod skills;
mod volume;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::json;

use super::registry::RegistryArgs;
use super::shell::{Format, Shell};
use crate::agent::{Agent, Home};
use crate::error::Error;
use crate::generate::cdi::Cdi;
use crate::generate::{imageset, podman};
use crate::ops::generate::{Container, container, mounts, skill};
use crate::ops::imageset::pinned;
use crate::output::harmless_line;

/// Where skills are mounted unless an agent is named.
const MOUNT_ROOT: &str = "/skills";
/// The home that is assumed for an agent in an unknown container.
const ROOT_HOME: &str = "/root";

/// Generate what runs a container with skills
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Podman(PodmanArgs),
    Volume(volume::VolumeArgs),
    Quadlet(quadlet::QuadletArgs),
    Kube(kube::KubeArgs),
    Cdi(CdiArgs),
    Imageset(ImagesetArgs),
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        match self.kind {
            Kind::Podman(args) => args.run(shell),
            Kind::Volume(args) => args.run(shell),
            Kind::Quadlet(args) => args.run(shell),
            Kind::Kube(args) => args.run(shell),
            Kind::Cdi(args) => args.run(shell),
            Kind::Imageset(args) => args.run(shell),
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  Below /skills:
    podman run --rm $(skillctl generate podman acme/hr:1.0.0 acme/legal:2.1.0) IMAGE
  Where an agent looks, in the home of the image's user:
    podman run --rm $(skillctl generate podman -t goose --image IMAGE acme/hr:1.0.0) IMAGE";

/// Print the flags of podman run that mount skills
///
/// For use as: podman run $(skillctl generate podman acme/hr:1.0.0) IMAGE
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
struct PodmanArgs {
    /// Skills, in the store or in containers-storage
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<String>,
    /// Mount where this agent looks, below the home of the container's user
    #[arg(long, short, value_name = "AGENT", conflicts_with = "mount_root")]
    target: Option<String>,
    /// Take the home of this container image's user
    #[arg(long, value_name = "IMAGE", requires = "target", conflicts_with = "home")]
    image: Option<String>,
    /// Take this as the home of the container's user
    #[arg(long, value_name = "DIR", requires = "target")]
    home: Option<String>,
    /// Mount below this directory of the container
    #[arg(long, value_name = "DIR", default_value = MOUNT_ROOT)]
    mount_root: String,
    #[command(flatten)]
    podman: skills::PodmanVersion,
    /// How to print the flags
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl PodmanArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let storage = shell.storage_to_read()?;
        let layout = shell.existing_store()?;
        let skills: Vec<_> =
            self.references.iter().map(|text| skill(layout.as_ref(), &storage, text)).collect::<Result<_>>()?;
        let container = self.image.as_deref().map(|image| container(&storage, image)).transpose()?;
        let (below, warning) = self.below(container.as_ref())?;
        let mounts = mounts(&skills, &below);
        let words = podman::flags(&mounts, self.podman.known(shell))?;
        warning.iter().for_each(|warning| shell.warn(warning));
        for missing in skills.iter().filter_map(|skill| skill.missing.as_ref()) {
            shell.warn(format!("warning: {}", harmless_line(missing)));
        }
        match self.format {
            Format::Text => shell.print(words.join(" ") + "\n")?,
            Format::Json => shell.print_json(&json!({"flags": words}))?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the directory to mount below, and a warning where podman would make a user's directories as root.
    fn below(&self, container: Option<&Container>) -> Result<(String, Option<String>)> {
        let Some(target) = &self.target else { return Ok((self.mount_root.clone(), None)) };
        let agent = Agent::find(target)?;
        let home = match (&self.home, container) {
            (Some(home), _) => home.as_str(),
            (None, Some(container)) => container.home.as_str(),
            (None, None) => ROOT_HOME,
        };
        let directory = user_dir(agent, home)?;
        let parent = directory.rsplit_once('/').map_or("/", |(parent, _)| parent);
        let root_writes = format!(
            "podman makes {parent} as root, and a container user that is not root cannot write beside the skill; make \
             that directory in the image, or mount at {MOUNT_ROOT}"
        );
        let warning = match (&self.home, container) {
            (None, None) => Some(
                "note: the container's user is taken to be root; --image IMAGE or --home DIR says otherwise".into(),
            ),
            (_, Some(container)) if container.root || container.has_dir(parent) => None,
            (_, Some(_)) => Some(format!("warning: {root_writes}")),
            (Some(home), None) if home == ROOT_HOME => None,
            (Some(_), None) => Some(format!("warning: unless the image has it, {root_writes}")),
        };
        Ok((directory, warning))
    }
}

/// Where skills are mounted in a container that is not known.
#[derive(Debug, Default, clap::Args)]
pub struct Where {
    /// Mount where this agent looks, below the home of the container's user
    #[arg(long, short, value_name = "AGENT", conflicts_with = "mount_root")]
    target: Option<String>,
    /// Take this as the home of the container's user [default: /root]
    #[arg(long, value_name = "DIR", requires = "target")]
    home: Option<String>,
    /// Mount below this directory of the container [default: /skills]
    #[arg(long, value_name = "DIR")]
    mount_root: Option<String>,
}

impl Where {
    /// Returns the directory to mount below.
    pub fn below(&self) -> Result<String> {
        let root = self.mount_root.as_deref().unwrap_or(MOUNT_ROOT).trim_end_matches('/').to_owned();
        let Some(target) = &self.target else { return Ok(root) };
        let home = self.home.as_deref().unwrap_or(ROOT_HOME);
        Ok(user_dir(Agent::find(target)?, home)?)
    }
}

/// Returns where an agent looks in a home directory.
fn user_dir(agent: &Agent, home: &str) -> Result<String, Error> {
    let directory = agent.user_dir(Home::plain(Path::new(home))).ok_or_else(|| {
        let reason = format!("{} looks for skills in projects only, in {}", agent.name, agent.project);
        Error::Unavailable { reason, hint: Some("--mount-root DIR mounts below any directory".into()) }
    })?;
    Ok(directory.display().to_string())
}

/// Print a CDI specification with skills as devices
///
/// The skills are unpacked, and the devices bind what was unpacked. skillctl cdi enable keeps such a file where podman reads it.
#[derive(Debug, clap::Args)]
struct CdiArgs {
    /// Skills of the store
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<String>,
    #[command(flatten)]
    place: Where,
}

impl CdiArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let mut cdi = Cdi::default();
        for (_, device) in super::cdi::devices(shell, &self.references, &self.place)? {
            cdi.set(device);
        }
        shell.print(cdi.text())?;
        Ok(ExitCode::SUCCESS)
    }
}

const IMAGESET_EXAMPLES: &str = "\
Examples:
  skillctl generate imageset registry.example/acme/hr:1.0.0 > imageset.yaml
  oc-mirror --v2 -c imageset.yaml --workspace file:///var/mirror docker://mirror.example";

/// Print an ImageSetConfiguration for oc-mirror v2
///
/// Each image is named by its tag and by the digest that the registry has for it now, so that what is mirrored is what
/// was looked at.
#[derive(Debug, clap::Args)]
#[command(after_long_help = IMAGESET_EXAMPLES)]
struct ImagesetArgs {
    /// Images of registries
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<String>,
    /// How to print the document
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl ImagesetArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let mut references = Vec::new();
        for text in &self.references {
            references.push(self.registry.resolve(shell, text).with_context(|| format!("Looking for {text}"))?);
        }
        self.registry.check_single(&references)?;
        let images = pinned(&self.registry.remote(shell)?.registry, &references)?;
        match self.format {
            Format::Text => shell.print(imageset::imageset(&images))?,
            Format::Json => shell.print_json(&imageset::imageset_json(&images))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
