//! `load` and `unload`, and the loading that `build` and `tag` end with.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::json;

use super::load_input;
use super::shell::{Format, Shell, hint_of};
use super::verify::VerifyArgs;
use crate::audit::{Action, Event};
use crate::error::Error;
use crate::image::Platform;
use crate::limits::Limits;
use crate::output::harmless_line;
use crate::reference::Reference;
use crate::store::layout::{Entry, Layout};
use crate::store::storage::Storage;
use crate::store::storage_images::LoadState;
use crate::store::storage_load::{LOAD_TIMEOUT, Load};
use crate::store::{self, trusted};
use crate::trust::check::Verified;
use crate::trust::policy::Rule;

/// Whether an image is loaded into containers-storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Load it where possible; where not, say why in one line and succeed
    Auto,
    /// Load it, or fail
    Always,
    /// Leave it in the store
    Never,
}

/// Flags of verbs that load what they made.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Loading")]
pub struct LoadArgs {
    /// Whether to load the image into containers-storage
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    load: When,
    /// How long to wait for locked storage
    #[arg(long, value_name = "SECONDS", default_value_t = LOAD_TIMEOUT.as_secs())]
    load_timeout: u64,
}

impl LoadArgs {
    /// Returns whether anything is to be done to containers-storage.
    pub fn is_wanted(&self) -> bool {
        self.load != When::Never
    }

    /// Loads an entry that was just made, as the flags say. Returns whether it is loaded.
    ///
    /// # Errors
    /// Only with `--load=always`: otherwise one line says why not.
    pub fn after(&self, shell: &Shell, layout: &Layout, entry: &Entry) -> Result<bool> {
        if self.load == When::Never {
            return Ok(false);
        }
        match load(shell, layout, entry, (None, Duration::from_secs(self.load_timeout)), None) {
            Ok(driver) => {
                if shell.is_interactive() {
                    shell.note(hint(entry, &driver));
                }
                Ok(true)
            }
            Err(e) if self.load == When::Always => Err(e).with_context(|| loading(entry)),
            Err(e) => {
                let hint = hint_of(&e);
                let fix = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                shell.note(harmless_line(&format!("Not loaded: {e:#}{fix}")));
                Ok(false)
            }
        }
    }
}

/// Loads an entry of the store and returns the name of the storage driver.
pub fn load(
    shell: &Shell,
    layout: &Layout,
    entry: &Entry,
    (platform, timeout): (Option<&Platform>, Duration),
    trust: Option<&Rule>,
) -> Result<String> {
    let Some(name) = &entry.name else {
        let hint = Some(format!("skillctl tag {} NAME", entry.digest()));
        return Err(Error::Unavailable { reason: "the image has no name to be loaded under".into(), hint }.into());
    };
    let name = name.parse::<Reference>()?;
    let mut verified = None;
    if trust.is_some() || !layout.policy().is_empty() {
        let found = store::read(layout, entry.clone())?;
        let held = trusted::found(layout, &found, &name.to_string(), trust).map_err(Into::into);
        verified = shell.recorded((Action::Load, &name.to_string()), held, |_| Vec::new())?;
    }
    let signers: Vec<String> = verified.iter().flat_map(Verified::by).collect();
    let (asked, name) = (&name, name.in_storage());
    let storage = shell.storage()?;
    // Keeps prune from the private layout that skopeo reads.
    let _writing = layout.writing()?;
    let progress = shell.progress(&format!("Loading {name}"));
    let manifest = &entry.descriptor;
    let holder = layout.holder(manifest);
    let (store, store_path, work) = (holder.dir(), holder.path(), (layout.dir(), layout.path()));
    let load = Load { store, store_path, work, manifest, name: &name, platform, timeout };
    shell.can_record()?;
    // Before it is there: where another process was faster with another signer, nothing is loaded.
    trusted::pin(layout, asked, verified.as_ref())?;
    let loaded = storage.load(&load, &shell.tools()).map_err(Into::into);
    shell.recorded((Action::Load, &name), loaded, |_| {
        vec![Event::of(Action::Load, &name).digest(entry.digest()).signers(signers)]
    })?;
    drop(progress);
    Ok(storage.driver()?.to_string())
}

/// Returns what is said before an error of a load.
pub fn loading(entry: &Entry) -> String {
    let name = entry.name.as_deref().unwrap_or(entry.digest());
    let name = name.parse().map_or_else(|_| name.to_owned(), |reference: Reference| reference.in_storage());
    format!("Loading {name} into containers-storage")
}

fn hint(entry: &Entry, driver: &str) -> String {
    let name = entry.name.as_deref().unwrap_or_default();
    let Ok(reference) = name.parse::<Reference>() else {
        return String::new();
    };
    format!(
        "Loaded into containers-storage ({driver}). Try:\n  podman run --rm --mount \
         type=image,source={},destination=/skills/{} IMAGE",
        reference.in_storage(),
        reference.basename()
    )
}

/// Takes the name of a removed entry from containers-storage; where it was not there, nothing is said.
pub fn unload_after(shell: &Shell, entry: &Entry) {
    if let Some(Ok(reference)) = entry.name.as_deref().map(str::parse::<Reference>) {
        unload_name(shell, &reference, entry.digest());
    }
}

/// Takes a name from containers-storage where it stands for the manifest `digest`.
pub fn unload_name(shell: &Shell, reference: &Reference, digest: &str) {
    let name = reference.in_storage();
    let result = shell.storage_to_read().and_then(|storage| match storage.images()?.load_state(&name, digest) {
        LoadState::Yes => unload(shell, &storage, &name),
        LoadState::Other => Err(anyhow::anyhow!("it has other content there")),
        LoadState::No => Ok(()),
    });
    if let Err(e) = result {
        let why = harmless_line(&format!("{e:#}"));
        shell.warn(format!("warning: {name} stays in containers-storage: {why}; skillctl unload takes it from there"));
    }
}

fn unload(shell: &Shell, storage: &Storage, name: &str) -> Result<()> {
    shell.can_record()?;
    let unloaded = storage.unload(name, &shell.tools()).map(drop).map_err(Into::into);
    shell.recorded((Action::Unload, name), unloaded, |()| vec![Event::of(Action::Unload, name)])
}

const EXAMPLES: &str = "\
Examples:
  One image, by name or by the digest that list shows:
    skillctl load acme/hr:1.0.0
  All that is in the store and not loaded:
    skillctl list --format json | jq -r '.[] | select(.loaded == \"no\").reference' |
      xargs -r skillctl load
  Without waiting for another podman:
    skillctl load --load-timeout 1 acme/hr:1.0.0
  From a stick, on a host without a network, all that is on it and only what is
  signed:
    skillctl load --verify --key acme.pub -i /run/media/stick/skills.bundle";

/// Load images of the store, or of a file, into containers-storage
///
/// podman and CRI-O mount images from there. Names without a registry are below localhost/ there.
///
/// With --input the images come from a layout that save, skopeo or oras has written, with their signatures and attestations: a
/// directory, a tar archive, packed with gzip or not, or stdin. They are in the store then, too. All of them are verified first where
/// that is asked for, and all get their names, or none.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Images of the store; with --input of that, all unless some are named
    #[arg(required_unless_present = "input", value_name = "REFERENCE")]
    pub references: Vec<String>,
    /// Take them from a layout, a file or a directory; - is stdin
    #[arg(long, short, value_name = "PATH")]
    pub input: Option<PathBuf>,
    /// With --input: whether to load them into containers-storage, too
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", requires = "input")]
    pub load: When,
    /// With --input: also where a tag is published with other content
    #[arg(long, short, requires = "input")]
    pub force: bool,
    /// With --input: most bytes
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().size, requires = "input")]
    pub max_size: u64,
    /// Which image of an index [default: that of this host]
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<Platform>,
    /// How long to wait for locked storage
    #[arg(long, value_name = "SECONDS", default_value_t = LOAD_TIMEOUT.as_secs())]
    pub load_timeout: u64,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    #[command(flatten)]
    pub verify: VerifyArgs,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        if let Some(input) = &self.input {
            return load_input::run(shell, &self, input);
        }
        let layout = shell.store_with(&self.references[0])?;
        let trust = self.verify.rule(shell)?;
        each(shell, &self.references, self.format, "Loaded", |reference| {
            let entry = store::lookup(&layout, reference).map_err(|e| meant_input(e, reference));
            let entry = entry.with_context(|| format!("Loading {reference}"))?;
            let timeout = Duration::from_secs(self.load_timeout);
            let how = (self.platform.as_ref(), timeout);
            load(shell, &layout, &entry, how, trust.as_ref()).with_context(|| loading(&entry))?;
            Ok(entry.name.unwrap_or_default())
        })
    }
}

/// Says how what was named is loaded, where that is a file.
fn meant_input(error: Error, text: &str) -> Error {
    let path = Path::new(text);
    match matches!(error, Error::ImageNotFound(_)) && (path.is_file() || path.join("oci-layout").is_file()) {
        true => Error::Unavailable {
            reason: format!("{error}, and {text} is a path"),
            hint: Some(format!("skillctl load -i {text}")),
        },
        false => error,
    }
}

/// Take names away from containers-storage
///
/// Other names of the same image stay; the image goes with its last name. The store is left alone.
#[derive(Debug, clap::Args)]
pub struct UnloadArgs {
    /// Images of containers-storage
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl UnloadArgs {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let storage = shell.storage()?;
        each(shell, &self.references, self.format, "Unloaded", |text| {
            let context = || format!("Unloading {text}");
            let reference = text.parse::<Reference>().with_context(context)?.or_latest();
            unload(shell, &storage, &reference.in_storage()).with_context(context)?;
            Ok(reference.to_string())
        })
    }
}

/// Does something to each image, reports each failure, and goes on.
fn each(
    shell: &Shell,
    references: &[String],
    format: Format,
    done: &str,
    act: impl Fn(&str) -> Result<String>,
) -> Result<ExitCode> {
    let mut names = Vec::new();
    let mut status = ExitCode::SUCCESS;
    for reference in references {
        match act(reference) {
            Ok(name) => {
                if format == Format::Text {
                    shell.print(format!("{done} {}\n", harmless_line(reference)))?;
                }
                names.push(name);
            }
            Err(e) => {
                status = shell.fail(&e);
            }
        }
    }
    if format == Format::Json {
        shell.print_json(&json!({ done.to_lowercase(): names }))?;
    }
    Ok(status)
}
