//! `generate podman`: which images are mounted where.

pub mod pins;
pub mod units;

use anyhow::{Context as _, Result};
use cap_std::fs::Dir;
use serde::Deserialize;

use crate::error::Error;
use crate::format::Format;
use crate::generate::podman::{Mount, home};
use crate::image::Info;
use crate::reference::Reference;
use crate::store;
use crate::store::layout::Layout;
use crate::store::storage::Storage;
use crate::store::storage_images::{Images, StorageImage};
use crate::store::trusted;
use crate::trust::policy::Policy;

/// Largest passwd that is read, in bytes; that of a host with 10,000 users has one megabyte.
const MAX_PASSWD: u64 = 1 << 20;

/// A skill that is to be mounted.
#[derive(Debug)]
pub struct Skill {
    /// Its name in containers-storage, by digest: its tag may stand for another skill in there, or will by the time that podman looks.
    pub source: String,
    /// The directory that it gets.
    pub name: String,
    /// What has to be done before podman can mount it.
    pub missing: Option<String>,
}

/// Finds an image by name in the store, then in containers-storage.
///
/// # Errors
/// If it is in neither, or cannot be mounted from where it is.
pub fn skill((layout, policy): (Option<&Layout>, &Policy), storage: &Storage, text: &str) -> Result<Skill> {
    let context = || format!("Generating flags for {text}");
    let images = storage.images().with_context(context)?;
    let in_store = layout.map(|layout| store::open(layout, text));
    let mut missing = text.to_owned();
    let (source, info, digest) = match in_store {
        Some(Ok(found)) => {
            layout.map(|layout| trusted::found(layout, &found, text, None)).transpose().with_context(context)?;
            let name = found.entry.name.clone().unwrap_or_else(|| text.to_owned());
            (
                name.parse::<Reference>().with_context(context)?,
                Some(found.info),
                Some(found.entry.descriptor.digest().to_string()),
            )
        }
        found @ (Some(Err(Error::ImageNotFound(_))) | None) => {
            // The store says what it has instead.
            if let Some(Err(Error::ImageNotFound(what))) = found {
                missing = what;
            }
            (text.parse::<Reference>().with_context(context)?.or_latest(), None, None)
        }
        Some(Err(e)) => return Err(e).with_context(context),
    };
    let tagged = source.in_storage();
    let pinned = digest.as_deref().map(|digest| source.with_digest(digest)).transpose().with_context(context)?;
    let mut qualified = pinned.map_or_else(|| tagged.clone(), |pinned| pinned.in_storage());
    let record = images.lookup(&qualified).with_context(context)?;
    if record.is_none() && info.is_none() {
        return Err(Error::ImageNotFound(missing)).with_context(context);
    }
    if record.is_some_and(|record| record.read_only) {
        let reason = format!("{qualified} is in an additional image store, which podman cannot mount images from");
        let hint = format!("podman volume create --driver image --opt image={qualified} NAME, then -v NAME:PATH:ro");
        return Err(Error::Unavailable { reason, hint: Some(hint) }).with_context(context);
    }
    if let Some(info) = info.as_ref().filter(|info| !info.is_loadable()) {
        let what = Format::of(info, text).map_or("no image", |format| format.name);
        let reason = format!("{source} is in a form that podman cannot mount ({what})");
        let hint = format!("skillctl convert {source} NAME:TAG makes an image of it, to be named instead");
        return Err(Error::Unavailable { reason, hint: Some(hint) }).with_context(context);
    }
    let missing = match record {
        Some(_) => None,
        None if images.by_name(&tagged).is_some() => Some("loaded with other content"),
        None => Some("not loaded yet"),
    };
    let missing = missing.map(|what| format!("{source} is {what}: skillctl load {source}"));
    // What only containers-storage has is known by the digest that its record has now.
    if let (None, Some(digest)) = (digest, record.and_then(|record| record.digest.as_deref())) {
        trusted::only_loaded(policy, &source, digest).with_context(context)?;
        qualified = source.with_digest(source.digest().unwrap_or(digest)).with_context(context)?.in_storage();
    }
    let info = match (info, record) {
        (None, Some(record)) => info_of(storage, record),
        (info, _) => info,
    };
    let name = info.as_ref().and_then(Info::skill_name);
    Ok(Skill { name: name.unwrap_or(source.basename()).to_owned(), source: qualified, missing })
}

fn info_of(storage: &Storage, record: &StorageImage) -> Option<Info> {
    let digest = record.digest.as_deref()?;
    Info::parse(&storage.manifest(record, digest).ok()?, digest).ok()
}

/// Returns the mounts of skills below a directory of the container.
pub fn mounts(skills: &[Skill], below: &str) -> Vec<Mount> {
    let below = below.trim_end_matches('/');
    skills
        .iter()
        .map(|skill| Mount { source: skill.source.clone(), destination: format!("{below}/{}", skill.name) })
        .collect()
}

/// A container image, as far as it decides where its user's skills are.
#[derive(Debug)]
pub struct Container {
    /// The user's home.
    pub home: String,
    /// Whether the user is root.
    pub root: bool,
    layers: Vec<Dir>,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    config: Option<Process>,
}

#[derive(Debug, Default, Deserialize)]
struct Process {
    #[serde(default, rename = "User")]
    user: Option<String>,
    #[serde(default, rename = "Env")]
    env: Option<Vec<String>>,
}

/// Finds a container image by the names that podman tries, and returns the one that it has.
fn lookup<'a>(images: &'a Images, text: &str) -> Result<Option<(String, &'a StorageImage)>> {
    let name = text.parse::<Reference>()?.or_latest();
    let candidates =
        [text.to_owned(), name.in_storage(), format!("docker.io/library/{name}"), format!("docker.io/{name}")];
    let found = |name: String| images.lookup(&name).ok().flatten().map(|image| (name, image));
    Ok(candidates.into_iter().find_map(found))
}

/// Returns the whole name of a container image of containers-storage, where it is there: one without a registry means something
/// else to whoever else reads it.
///
/// # Errors
/// If containers-storage cannot be read.
pub fn qualified(storage: &Storage, text: &str) -> Result<Option<String>> {
    Ok(lookup(&storage.images()?, text)?.map(|(name, _)| name))
}

/// Reads user and home of a container image from containers-storage: `HOME` in its environment, else its passwd.
///
/// # Errors
/// If the image is not there, or its layers cannot be read.
pub fn container(storage: &Storage, text: &str) -> Result<Container> {
    let context = || format!("Reading the user of {text}");
    let images = storage.images().with_context(context)?;
    let (_, image) =
        lookup(&images, text)?.ok_or_else(|| Error::ImageNotFound(text.to_owned())).with_context(context)?;
    let config: Config = serde_json::from_slice(&storage.config(image)?).with_context(context)?;
    let process = config.config.unwrap_or_default();
    let layers = storage.diffs(&images, image).with_context(context)?;
    let passwd = layers.iter().find_map(|layer| read_bounded(layer, "etc/passwd")).unwrap_or_default();
    let (home, root) = home(process.user.as_deref().unwrap_or_default(), &passwd);
    let env = process.env.unwrap_or_default();
    let from_env = env.iter().find_map(|entry| entry.strip_prefix("HOME=")).filter(|home| home.starts_with('/'));
    Ok(Container { home: from_env.map_or(home, str::to_owned), root, layers })
}

impl Container {
    /// Returns whether the image has a directory, in any layer.
    pub fn has_dir(&self, path: &str) -> bool {
        self.layers.iter().any(|layer| layer.is_dir(path.trim_start_matches('/')))
    }
}

fn read_bounded(layer: &Dir, path: &str) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    layer.open(path).ok()?.take(MAX_PASSWD).read_to_string(&mut text).ok()?;
    Some(text)
}
