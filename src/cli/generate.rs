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
use crate::ops::generate::{Container, mounts, skill};
use crate::ops::imageset::pinned;
use crate::output::harmless_line;

pub use skills::with_places;

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
        shell.recorded_refusal(match self.kind {
            Kind::Podman(args) => args.run(shell),
            Kind::Volume(args) => args.run(shell),
            Kind::Quadlet(args) => args.run(shell),
            Kind::Kube(args) => args.run(shell),
            Kind::Cdi(args) => args.run(shell),
            Kind::Imageset(args) => args.run(shell),
        })
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
    #[command(flatten)]
    place: Where,
    /// Take the home of this container image's user, where it is here
    #[arg(long, value_name = "IMAGE", requires = "target", conflicts_with = "home")]
    image: Option<String>,
    #[command(flatten)]
    podman: skills::PodmanVersion,
    /// How to print the flags
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl PodmanArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let policy = shell.policy();
        let storage = shell.storage_to_read()?;
        let layout = shell.existing_store()?;
        let skills: Vec<_> = self
            .references
            .iter()
            .map(|text| skill((layout.as_ref(), &policy), &storage, text))
            .collect::<Result<_>>()?;
        let container = self.image.as_deref().map(|image| skills::here(shell, image)).transpose()?.flatten();
        let below = self.place.below_in(shell, container.as_ref())?;
        let mounts = mounts(&skills, &below);
        let words = podman::flags(&mounts, self.podman.known(shell))?;
        for missing in skills.iter().filter_map(|skill| skill.missing.as_ref()) {
            shell.warn(format!("warning: {}", harmless_line(missing)));
        }
        match self.format {
            Format::Text => shell.print(words.join(" ") + "\n")?,
            Format::Json => shell.print_json(&json!({"flags": words}))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where skills are mounted in a container.
#[derive(Debug, Default, clap::Args)]
pub struct Where {
    /// Mount where this agent looks, below the home of the container's user
    #[arg(long, short, value_name = "AGENT", conflicts_with = "mount_root")]
    target: Option<String>,
    /// Take this as the home of the container's user [default: that of an image that is named and here, else /root]
    #[arg(long, value_name = "DIR", requires = "target")]
    home: Option<String>,
    /// Mount below this directory of the container [default: /skills]
    #[arg(long, value_name = "DIR")]
    mount_root: Option<String>,
}

impl Where {
    /// Returns whether a place was named.
    pub fn is_given(&self) -> bool {
        self.target.is_some() || self.mount_root.is_some()
    }

    /// Returns the directory to mount below in any container that may come. Says the same as [`Where::below_in`].
    pub fn below(&self, shell: &Shell) -> Result<String> {
        self.told_below(shell, None, "--home DIR says")
    }

    /// Returns the directory to mount below, in the home of a container's user. Says what is taken for granted where the container is
    /// not known, and where a user's directories would be made as root.
    pub fn below_in(&self, shell: &Shell, container: Option<&Container>) -> Result<String> {
        self.told_below(shell, container, "an --image that is here, or --home DIR, says")
    }

    fn told_below(&self, shell: &Shell, container: Option<&Container>, flags: &str) -> Result<String> {
        let home = self.home.as_deref().or(container.map(|container| container.home.as_str()));
        let below = self.below_home(home.unwrap_or(ROOT_HOME))?;
        if self.target.is_none() {
            return Ok(below);
        }
        let parent = below.rsplit_once('/').map_or("/", |(parent, _)| parent);
        let made = format!(
            "is made as root, and a container user that is not root cannot write beside the skill; make that directory in \
             the image, mount at {MOUNT_ROOT}, or let a hook mount the skill (skillctl hook enable), which makes it as the user"
        );
        match (home, container) {
            (None, _) => shell.note(format!("note: the container's user is taken to be root; {flags} otherwise")),
            (Some(_), Some(container)) if container.root || container.has_dir(parent) => {}
            (Some(_), Some(_)) => shell.warn(format!("warning: {parent} {made}")),
            (Some(home), None) if home == ROOT_HOME => {}
            (Some(_), None) => shell.warn(format!("warning: unless the image has {parent}, it {made}")),
        }
        Ok(below)
    }

    fn below_home(&self, home: &str) -> Result<String> {
        let root = self.mount_root.as_deref().unwrap_or(MOUNT_ROOT).trim_end_matches('/').to_owned();
        let Some(target) = &self.target else { return Ok(root) };
        if target.contains(',') {
            let reason = format!("{target:?} is more than one agent, and a skill is mounted for one");
            let hint = Some("--mount-root DIR mounts below any directory".into());
            return Err(Error::Unavailable { reason, hint }.into());
        }
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

const CDI_EXAMPLES: &str = "\
Examples:
  skillctl generate cdi acme/hr:1.0.0
  skillctl generate cdi acme/hr:1.0.0 acme/legal:2.1.0";

/// Print a CDI specification with skills as devices
///
/// The skills are unpacked, and the devices bind what was unpacked. skillctl cdi enable keeps such a file where podman reads it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = CDI_EXAMPLES)]
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
        let (registry, policy) = (self.registry.registry(shell)?, shell.policy());
        // Only those pins are looked for in the store.
        let pins = if policy.is_empty() { None } else { shell.existing_store()? };
        let images = pinned((&registry, pins.as_ref()), &policy, &references)?;
        match self.format {
            Format::Text => shell.print(imageset::imageset(&images))?,
            Format::Json => shell.print_json(&imageset::imageset_json(&images))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
