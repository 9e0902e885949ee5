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
use super::shell::{Format, Shell, open_dir};
use crate::audit::{Action, Event};
use crate::error::Error;
use crate::generate::cdi::{Cdi, Device, FILE, KIND};
use crate::layer::UnpackOptions;
use crate::lock::{How, lock_dir};
use crate::ops::trees::{images_of, skill, tree};
use crate::output::harmless_line;
use crate::process::{Cancel, Version, version};
use crate::reference::Reference;
use crate::store::layout::Entry;

/// The directory of root, which every podman reads.
const SYSTEM: &str = "/etc/cdi";
/// All directories that every podman reads.
const SYSTEM_DIRS: [&str; 2] = [SYSTEM, "/var/run/cdi"];
/// The first podman that reads another directory (`--cdi-spec-dir`).
const SPEC_DIR: Version = (5, 5, 0);

/// What is said of a device whose image was removed.
const GONE: &str = "not in the store any more";

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

const ENABLE: &str = "\
Examples:
  skillctl cdi enable acme/hr:1.0.0
  podman run --rm --device skillimage.io/skill=acme.hr IMAGE";

/// Offer skills of the store as devices
///
/// The name of a device is the namespace and the name of its skill: acme.hr. Enabled again, from another version, it stands for that,
/// at the place that it has unless another is given; from another repository it is refused until it is disabled.
#[derive(Debug, clap::Args)]
#[command(after_long_help = ENABLE)]
struct EnableArgs {
    /// Skills of the store
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<String>,
    #[command(flatten)]
    place: Where,
}

const DISABLE: &str = "\
Examples:
  skillctl cdi disable acme.hr
  skillctl cdi disable acme/hr:1.0.0";

/// Offer skills as devices no more
///
/// A skill that the store has no more is named by the name that it had.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DISABLE)]
struct DisableArgs {
    /// Names of devices, or their skills
    #[arg(required = true, value_name = "NAME|REFERENCE")]
    names: Vec<String>,
}

const LIST: &str = "\
Examples:
  skillctl cdi list
  skillctl cdi list --format json";

/// List the skills that are devices
#[derive(Debug, clap::Args)]
#[command(after_long_help = LIST)]
struct ListArgs {
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Returns the file: for all users as root, else for oneself.
fn file(shell: &Shell) -> Result<PathBuf> {
    Ok(match shell.env.uid {
        0 => Path::new(SYSTEM).join(FILE),
        _ => shell.config_home()?.join("cdi").join(FILE),
    })
}

/// Returns all specifications that podman may read: those of root, and our own.
pub fn specifications(shell: &Shell) -> Result<Vec<PathBuf>> {
    let own = file(shell)?;
    let dirs = SYSTEM_DIRS.into_iter().map(Path::new).chain(own.parent());
    let listed = dirs.filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten().map(|entry| entry.path());
    let mut all: Vec<PathBuf> = listed.filter(|path| path.is_file()).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

fn read(path: &Path) -> Result<Cdi> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Cdi::parse(&text, &path.display().to_string())?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Cdi::default()),
        Err(e) => Err(e).with_context(|| format!("Reading {}", path.display())),
    }
}

/// Keeps others from changing the file meanwhile.
fn lock(path: &Path) -> Result<nix::fcntl::Flock<fs::File>> {
    let dir = path.parent().unwrap_or(path);
    let context = || format!("Locking {}", dir.display());
    fs::create_dir_all(dir).with_context(context)?;
    lock_dir(&open_dir(dir)?, How::Exclusive, &Cancel::default()).with_context(context)
}

/// Returns namespace and name of a skill. They have to be those of its repository: else whoever builds an image could take the
/// device of another.
fn checked(reference: &str, (namespace, name): &(String, String)) -> Result<()> {
    let repository = reference.parse::<Reference>()?.name().to_owned();
    let own = if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") };
    if repository == own || repository.ends_with(&format!("/{own}")) {
        return Ok(());
    }
    let reason = format!("{reference} says that it is {own}, and its device would be called so");
    Err(Error::Unavailable { reason, hint: Some(format!("skillctl tag {reference} {own}:TAG gives it that name")) }
        .into())
}

/// Makes the devices of skills, and with them their trees.
pub fn devices(shell: &Shell, references: &[String], place: &Where) -> Result<Vec<(String, Device)>> {
    let Some(layout) = shell.existing_store()? else {
        return Err(Error::ImageNotFound(references.join(", ")).into());
    };
    let (cache, below) = (shell.cache()?, place.below(shell)?);
    let mut devices: Vec<(String, Device)> = Vec::new();
    for text in references {
        let tree = tree(&layout, &cache, text, &UnpackOptions::default())?;
        checked(&tree.reference, &tree.skill)?;
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
        shell.can_record()?;
        let _lock = lock(&path)?;
        let mut cdi = read(&path)?;
        let (mut lines, mut events) = (String::new(), Vec::new());
        for (reference, device) in shell.recorded_refusal(devices(shell, &self.references, &self.place))? {
            elsewhere(shell, &path, &device.name)?;
            let there = cdi.devices.iter().find(|there| there.name == device.name);
            let device = match there.filter(|_| !self.place.is_given()) {
                Some(there) => device.at(there.destination())?,
                None => device,
            };
            let instead =
                there.map(|there| instead(shell, there, &device, &reference)).transpose()?.unwrap_or_default();
            let said = format!("{} at {}{instead}", reference, device.destination());
            lines += &format!("{KIND}={}  {}\n", device.name, harmless_line(&said));
            events.push(Event::of(Action::EnableDevice, &reference).at(format!("{KIND}={}", device.name)));
            cdi.set(device);
        }
        write(&path, &cdi.text())?;
        shell.record(events)?;
        shell.print(lines)?;
        if rootless {
            let dir = path.parent().unwrap_or(&path).display();
            shell.note(format!("podman --cdi-spec-dir {dir} run --device {KIND}=NAME IMAGE"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns what a device was so far, where that is something else, as the end of a line. Refuses one that is of another repository:
/// whoever names it would get somebody else's skill. The file has no place for that (annotations came with CDI 0.6.0), so the store
/// is asked what the tree is of; of what it has no more, nobody can tell.
fn instead(shell: &Shell, old: &Device, new: &Device, reference: &str) -> Result<String> {
    let moved = match old.destination() {
        same if same == new.destination() => String::new(),
        before => format!(" at {before}"),
    };
    if old.tree() == new.tree() {
        return Ok(if moved.is_empty() { moved } else { format!(", instead of{moved}") });
    }
    let images = shell.existing_store()?.map(|layout| images_of(&layout, old.tree())).transpose()?.unwrap_or_default();
    let Some(other) = images.first() else {
        return Ok(format!(", instead of what is {GONE}{moved}"));
    };
    let own = reference.parse::<Reference>()?;
    if let Some(before) = images.iter().find(|entry| entry.is_of(&own)) {
        return Ok(format!(", instead of {}{moved}", before.shown()));
    }
    let reason = format!("the device {KIND}={} is of {}, and {reference} is another skill", old.name, other.shown());
    Err(Error::Unavailable { reason, hint: Some(format!("skillctl cdi disable {} frees the name", old.name)) }.into())
}

/// Refuses a device that another file may have: podman could then use neither. What others write is only searched for the name.
fn elsewhere(shell: &Shell, own: &Path, name: &str) -> Result<()> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    for file in specifications(shell)?.into_iter().filter(|file| file != own) {
        let text = fs::read_to_string(&file).with_context(|| format!("Reading {}", file.display()))?;
        if text.contains(KIND) && text.split(|c| !is_name(c)).any(|word| word == name) {
            let reason = format!("{} has a device {KIND}={name} already", file.display());
            return Err(Error::Unavailable { reason, hint: Some(format!("remove {}", file.display())) }.into());
        }
    }
    Ok(())
}

impl DisableArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let path = file(shell)?;
        shell.can_record()?;
        let _lock = lock(&path)?;
        let mut cdi = read(&path)?;
        let mut events = Vec::new();
        for text in &self.names {
            let name = match cdi.devices.iter().any(|device| device.name == *text) {
                true => text.clone(),
                false => name_of(shell, &cdi, text)?,
            };
            if cdi.remove(&name).is_none() {
                let reason = format!("there is no device {KIND}={name}");
                return Err(Error::Unavailable { reason, hint: Some("skillctl cdi list shows all".into()) }.into());
            }
            shell.print(format!("Removed {KIND}={name}\n"))?;
            events.push(Event::of(Action::DisableDevice, text).at(format!("{KIND}={name}")));
        }
        match cdi.devices.is_empty() {
            true => fs::remove_file(&path).with_context(|| format!("Removing {}", path.display()))?,
            false => write(&path, &cdi.text())?,
        }
        shell.record(events)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the device of a skill: by what the store says of it, else by its name, which that of a device is the end of.
fn name_of(shell: &Shell, cdi: &Cdi, text: &str) -> Result<String> {
    if !text.contains(['/', ':']) {
        return Ok(text.to_owned());
    }
    let layout = shell.existing_store()?;
    match layout.as_ref().map(|layout| skill(layout, text)) {
        Some(Ok((namespace, name))) => return Ok(Device::new(&namespace, &name, "/", &format!("/{name}"))?.name),
        Some(Err(e)) if !matches!(e.downcast_ref(), Some(Error::ImageNotFound(_))) => return Err(e),
        _ => {}
    }
    let own = text.parse::<Reference>()?;
    for device in cdi.devices.iter().filter(|device| is_name_of(&device.name, &own)) {
        let images = layout.as_ref().map(|layout| images_of(layout, device.tree())).transpose()?.unwrap_or_default();
        if images.is_empty() || images.iter().any(|entry| entry.is_of(&own)) {
            return Ok(device.name.clone());
        }
    }
    Ok(text.to_owned())
}

/// Returns whether a device can be of a repository; see [`checked`].
fn is_name_of(device: &str, repository: &Reference) -> bool {
    let parts: Vec<&str> = repository.name().split('/').collect();
    (0..parts.len()).any(|first| parts.iter().skip(first).copied().collect::<Vec<_>>().join(".") == device)
}

impl ListArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let cdi = read(&file(shell)?)?;
        let layout = shell.existing_store()?;
        let mut rows = Vec::new();
        for device in &cdi.devices {
            let images =
                layout.as_ref().map(|layout| images_of(layout, device.tree())).transpose()?.unwrap_or_default();
            let references: Vec<String> = images.iter().map(Entry::shown).collect();
            match self.format {
                Format::Json => rows.push(json!({
                    "name": format!("{KIND}={}", device.name),
                    "tree": device.tree(),
                    "destination": device.destination(),
                    "references": references,
                })),
                Format::Text => {
                    let of = if references.is_empty() { GONE.to_owned() } else { references.join(", ") };
                    let line = format!("{}  {of}", device.destination());
                    shell.print(format!("{KIND}={}  {}\n", device.name, harmless_line(&line)))?;
                }
            }
        }
        if self.format == Format::Json {
            shell.print_json(&rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_the_end_of_a_name() {
        let cases = [
            ("acme.hr", "acme/hr:1.0.0", true),
            ("acme.hr", "registry.example/acme/hr:1", true),
            ("hr", "acme/hr", true),
            ("acme.team.hr", "acme/team/hr:1", true),
            ("acme.hr", "acme/other", false),
            ("cme.hr", "acme/hr", false),
        ];
        for (device, text, want) in cases {
            let is = text.parse().is_ok_and(|own| is_name_of(device, &own));
            assert_eq!(is, want, "{device} {text}");
        }
    }
}
