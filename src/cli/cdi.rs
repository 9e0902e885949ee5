//! `cdi`: skills as devices.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::json;

use super::generate::Where;
use super::hook::write;
use super::shell::{Format, Shell};
use crate::error::Error;
use crate::generate::cdi::{Cdi, Device, FILE, KIND};
use crate::layer::UnpackOptions;
use crate::ops::trees::tree;
use crate::output::harmless_line;
use crate::process::{Version, version};

/// The directory of root, which every podman reads.
const SYSTEM: &str = "/etc/cdi";
/// The first podman that reads another directory (`--cdi-spec-dir`).
const SPEC_DIR: Version = (5, 5, 0);

const EXAMPLES: &str = "\
Examples:
  skillctl cdi enable acme/hr:1.0.0
  podman run --rm --device skillimage.io/skill=acme.hr IMAGE

Files:
  /etc/cdi/skillimage.io-skill.json
  ~/.config/cdi/skillimage.io-skill.json, for podman --cdi-spec-dir (5.5 or newer)";

/// Offer skills as devices
///
/// The Container Device Interface binds the unpacked skill into the container, read-only, without a hook.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Enable(EnableArgs),
    Disable(DisableArgs),
    List(ListArgs),
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        match self.kind {
            Kind::Enable(args) => args.run(shell),
            Kind::Disable(args) => args.run(shell),
            Kind::List(args) => args.run(shell),
        }
    }
}

/// Offer skills of the store as devices
///
/// The name of a device is the namespace and the name of its skill: acme.hr. Enabled again, from another version, it stands for that.
#[derive(Debug, clap::Args)]
struct EnableArgs {
    /// Skills of the store
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<String>,
    #[command(flatten)]
    place: Where,
}

/// Offer skills as devices no more
#[derive(Debug, clap::Args)]
struct DisableArgs {
    /// Names of devices, or skills of the store
    #[arg(required = true, value_name = "NAME|REFERENCE")]
    names: Vec<String>,
}

/// List the skills that are devices
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Returns the file: for all users as root, else for oneself.
fn file(shell: &Shell) -> Result<PathBuf> {
    if shell.env.uid == 0 {
        return Ok(Path::new(SYSTEM).join(FILE));
    }
    let home = || shell.env.home.as_ref().map(|home| home.join(".config"));
    let config = shell.env.xdg_config_home.clone().or_else(home).ok_or_else(|| Error::Unavailable {
        reason: "no place for a user's configuration: HOME is not set".into(),
        hint: None,
    })?;
    Ok(config.join("cdi").join(FILE))
}

fn read(path: &Path) -> Result<Cdi> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Cdi::parse(&text, &path.display().to_string())?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Cdi::default()),
        Err(e) => Err(e).with_context(|| format!("Reading {}", path.display())),
    }
}

/// Makes the devices of skills, and with them their trees.
pub fn devices(shell: &Shell, references: &[String], place: &Where) -> Result<Vec<(String, Device)>> {
    let Some(layout) = shell.existing_store()? else {
        return Err(Error::ImageNotFound(references.join(", ")).into());
    };
    let (cache, below) = (shell.cache()?, place.below()?);
    let mut devices: Vec<(String, Device)> = Vec::new();
    for text in references {
        let tree = tree(&layout, &cache, text, &UnpackOptions::default())?;
        let (namespace, name) = &tree.skill;
        let device = Device::new(namespace, name, &tree.path, &format!("{below}/{name}"))?;
        if let Some((other, _)) = devices.iter().find(|(_, other)| other.name == device.name) {
            let reason = format!("{other} and {} would both be the device {}", tree.reference, device.name);
            return Err(Error::Unavailable { reason, hint: None }.into());
        }
        devices.push((tree.reference, device));
    }
    Ok(devices)
}

impl EnableArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let path = file(shell)?;
        let rootless = shell.env.uid != 0;
        if rootless && version(&shell.tools().podman()).is_none_or(|found| found < SPEC_DIR) {
            let reason = "a podman before 5.5 reads devices from the directories of root only".into();
            let hint = "skillctl hook enable gives containers the skills that they name, without root".into();
            return Err(Error::Unavailable { reason, hint: Some(hint) }.into());
        }
        let mut cdi = read(&path)?;
        for (reference, device) in devices(shell, &self.references, &self.place)? {
            elsewhere(&path, &device.name)?;
            let (name, destination) = (device.name.clone(), device.destination().to_owned());
            cdi.set(device);
            shell.print(format!(
                "{KIND}={name}  {} at {}\n",
                harmless_line(&reference),
                harmless_line(&destination)
            ))?;
        }
        write(&path, &cdi.text())?;
        if rootless {
            let dir = path.parent().unwrap_or(&path).display();
            shell.note(format!("podman --cdi-spec-dir {dir} run --device {KIND}=NAME IMAGE"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Refuses a device that another file has: podman could then use neither.
fn elsewhere(own: &Path, name: &str) -> Result<()> {
    let files =
        [SYSTEM, "/var/run/cdi"].into_iter().flat_map(fs::read_dir).flatten().flatten().map(|entry| entry.path());
    for file in files.filter(|file| file != own) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if Cdi::parse(&text, "").is_ok_and(|cdi| cdi.devices.iter().any(|device| device.name == name)) {
            let reason = format!("{} has a device {KIND}={name} already", file.display());
            return Err(Error::Unavailable { reason, hint: Some(format!("remove {}", file.display())) }.into());
        }
    }
    Ok(())
}

impl DisableArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let path = file(shell)?;
        let mut cdi = read(&path)?;
        for text in &self.names {
            let name = match cdi.devices.iter().any(|device| device.name == *text) {
                true => text.clone(),
                false => self.name_of(shell, text)?,
            };
            if cdi.remove(&name).is_none() {
                let reason = format!("there is no device {KIND}={name}");
                return Err(Error::Unavailable { reason, hint: Some("skillctl cdi list shows all".into()) }.into());
            }
            shell.print(format!("Removed {KIND}={name}\n"))?;
        }
        match cdi.devices.is_empty() {
            true => fs::remove_file(&path).with_context(|| format!("Removing {}", path.display()))?,
            false => write(&path, &cdi.text())?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the device of a skill of the store.
    fn name_of(&self, shell: &Shell, text: &str) -> Result<String> {
        if !text.contains(['/', ':']) {
            return Ok(text.to_owned());
        }
        let place = Where::default();
        let (_, device) = devices(shell, &[text.to_owned()], &place)?.remove(0);
        Ok(device.name)
    }
}

impl ListArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let cdi = read(&file(shell)?)?;
        match self.format {
            Format::Json => {
                let row = |d: &Device| json!({"name": format!("{KIND}={}", d.name), "tree": d.tree(), "destination": d.destination()});
                shell.print_json(&cdi.devices.iter().map(row).collect::<Vec<_>>())?;
            }
            Format::Text => {
                for device in &cdi.devices {
                    shell.print(format!("{KIND}={}  {}\n", device.name, device.destination()))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
