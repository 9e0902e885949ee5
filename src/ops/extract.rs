//! From an image of the store to a directory: what `pull -o` writes, and what a gate looks into.
//!
//! A directory that is in the way is somebody's work unless it is, to the byte, what an image of the same repository
//! unpacks to. Another repository does not count, whatever its image says its name is: else whoever has a registry could
//! replace the skills of others.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use cap_std::fs::Dir;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use oci_spec::image::{Descriptor, ImageConfiguration};

use super::drift::{Difference, Kind, differences};
use crate::error::Error;
use crate::frontmatter::FILE as SKILL_FILE;
use crate::image::Info;
use crate::layer::{Encoding, Expected, Listing, UnpackOptions, Unpacked, unpack};
use crate::reference::Reference;
use crate::store::layout::Layout;

/// Most layers that a directory is compared with. Each is read to its end, which takes seconds for the largest skills;
/// the right one is among the first unless the directory is old.
const CANDIDATES: usize = 50;

/// What in-toto statements are stored as, and the platform that buildkit gives to a manifest of them when it adds one to
/// an index: no runtime selects or unpacks it, and neither do we.
const ATTESTATION: (&str, &str) = ("application/vnd.in-toto+json", "unknown/unknown");

/// An image that is written out.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The store that it is in.
    pub layout: &'a Layout,
    /// Its manifest, or an index with an image for this host.
    pub manifest: &'a Descriptor,
    /// Images that may have been written to the same place before: see [`before`].
    pub before: &'a [Descriptor],
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// What the layer is.
    pub unpacked: Unpacked,
    /// Whether anything was: the directory may have been the same already.
    pub written: bool,
    /// Whether there is a `SKILL.md` at its root.
    pub is_skill: bool,
}

/// The one layer of an image.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Where it is.
    pub descriptor: Descriptor,
    /// What it has to be.
    pub expected: Expected,
    /// The platforms whose images have it, `linux/amd64`; none where there is no index.
    pub platforms: Vec<String>,
}

impl Layer {
    /// Opens its blob. Whoever reads it checks it against [`Self::expected`].
    ///
    /// # Errors
    /// If it is not there, or has another size.
    pub fn open(&self, layout: &Layout) -> Result<File, Error> {
        Ok(layout.open_blob(&self.descriptor)?.into_inner())
    }

    /// Returns what it unpacks to.
    ///
    /// # Errors
    /// If it is damaged or refused.
    pub fn list(&self, layout: &Layout, options: &UnpackOptions<'_>) -> Result<(Listing, Unpacked), Error> {
        Listing::read(self.open(layout)?, &self.expected, options)
    }

    fn is_for(&self, platform: &str) -> bool {
        let variant = |own: &str| own.strip_prefix(platform).is_some_and(|rest| rest.starts_with('/'));
        self.platforms.iter().any(|own| own == platform || variant(own))
    }
}

/// Unpacks the skill of an image as the directory `name` of `dest`; it appears whole, or not at all.
///
/// A directory of that name is replaced where it is empty or exactly what this image or one of `source.before` unpacks
/// to, and else only with `options.replace`.
///
/// # Errors
/// If the image is damaged or has not exactly one layer, an entry is refused or a limit exceeded, or something else has
/// that name.
pub fn extract(source: &Source<'_>, dest: &Dir, name: &str, options: &UnpackOptions<'_>) -> Result<Extracted> {
    let layer = layer(source.layout, source.manifest)?;
    let mut options = *options;
    let mut same = None;
    if !options.replace {
        match in_the_way(source, &layer, (dest, name), &options)? {
            Way::Free => {}
            Way::Replaceable => options.replace = true,
            Way::Same(unpacked) => same = Some(unpacked),
        }
    }
    let written = same.is_none();
    let unpacked = match same {
        Some(unpacked) => unpacked,
        None => unpack(layer.open(source.layout)?, &layer.expected, dest, name, &options).map_err(with_hint)?,
    };
    Ok(Extracted { unpacked, written, is_skill: dest.is_file(format!("{name}/{SKILL_FILE}")) })
}

/// Returns the images that may have been written where an image of `reference` goes: what the name stood for before, and
/// what the store has of the same repository, newest first.
///
/// # Errors
/// If the store cannot be read.
pub fn before(layout: &Layout, reference: &Reference, moved_from: Option<&str>) -> Result<Vec<Descriptor>> {
    let entries = layout.entries()?.into_iter().rev();
    let own = entries.filter(|entry| entry.is_of(reference)).map(|entry| entry.descriptor);
    Ok(moved_from.and_then(|digest| layout.describe(digest)).into_iter().chain(own).collect())
}

/// Returns the different layers of an image, or of all images of an index.
///
/// # Errors
/// If a manifest or config is damaged, an image has not exactly one layer, or an index lists something else than images.
pub fn layers(layout: &Layout, manifest: &Descriptor) -> Result<Vec<Layer>> {
    let info = Info::parse(&layout.read_json(manifest)?, manifest.digest().as_ref())?;
    if info.instances.is_empty() {
        return Ok(vec![only_layer(layout, &info)?]);
    }
    let mut layers: Vec<Layer> = Vec::new();
    for instance in &info.instances {
        let digest = instance.digest();
        let image = Info::parse(&layout.read_json(instance)?, digest.as_ref())?;
        if image.config.is_none() {
            return Err(refused(format!("the index lists {digest}, which is no image")).into());
        }
        let platform = platform(instance);
        if is_attestation(&image, platform.as_deref()) {
            continue;
        }
        let layer = only_layer(layout, &image).with_context(|| format!("Reading {digest}"))?;
        let at = layers.iter().position(|other| other.expected == layer.expected).unwrap_or(layers.len());
        if at == layers.len() {
            layers.push(layer);
        }
        layers[at].platforms.extend(platform);
    }
    if layers.is_empty() {
        return Err(refused("the index lists no image".into()).into());
    }
    Ok(layers)
}

fn is_attestation(image: &Info, platform: Option<&str>) -> bool {
    let (media_type, nowhere) = ATTESTATION;
    platform == Some(nowhere) && image.layers.iter().all(|layer| layer.media_type().as_ref() == media_type)
}

/// Returns the layer that is unpacked on this host: an image's, or that of an index whose images have no other, or that
/// of the image for this host.
///
/// # Errors
/// As [`layers`], and if there is none for this host.
pub fn layer(layout: &Layout, manifest: &Descriptor) -> Result<Layer> {
    for_host(layers(layout, manifest)?, &host()).map_err(Into::into)
}

fn for_host(mut layers: Vec<Layer>, host: &str) -> Result<Layer, Error> {
    let at = if layers.len() == 1 { Some(0) } else { layers.iter().position(|layer| layer.is_for(host)) };
    at.map(|at| layers.swap_remove(at)).ok_or_else(|| {
        let all: Vec<&str> = layers.iter().flat_map(|layer| &layer.platforms).map(String::as_str).collect();
        let what = if all.is_empty() { "it names no platform".into() } else { format!("there is {}", all.join(", ")) };
        refused(format!("the index has no image for {host}: {what}"))
    })
}

/// Returns the platform of the containers of this host, in Go's terms.
fn host() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        same => same,
    };
    format!("linux/{architecture}")
}

fn platform(instance: &Descriptor) -> Option<String> {
    let platform = instance.platform().as_ref()?;
    let variant = platform.variant().as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
    Some(format!("{}/{}{variant}", platform.os(), platform.architecture()))
}

fn only_layer(layout: &Layout, info: &Info) -> Result<Layer> {
    let [layer] = &info.layers[..] else {
        return Err(refused(format!("the image has {} layers, and a skill has one", info.layers.len())).into());
    };
    let expected = Expected {
        digest: layer.digest().to_string(),
        size: layer.size(),
        diff_id: diff_id(layout, info)?,
        encoding: if layer.media_type().as_ref().ends_with("tar") { Encoding::Tar } else { Encoding::Gzip },
    };
    Ok(Layer { descriptor: layer.clone(), expected, platforms: Vec::new() })
}

/// Returns what the config says of the archive's digest, where it is an image's.
fn diff_id(layout: &Layout, info: &Info) -> Result<Option<String>> {
    let Some(config) = &info.config else { return Ok(None) };
    let bytes = layout.read_json(config).context("Reading the config")?;
    let config: Option<ImageConfiguration> = serde_json::from_slice(&bytes).ok();
    Ok(config.and_then(|config| config.rootfs().diff_ids().first().cloned()))
}

/// What is where a skill is to be.
enum Way {
    /// Nothing.
    Free,
    /// A directory that may go.
    Replaceable,
    /// The skill itself.
    Same(Unpacked),
}

fn in_the_way(
    source: &Source<'_>,
    own: &Layer,
    (dest, name): (&Dir, &str),
    options: &UnpackOptions<'_>,
) -> Result<Way> {
    let context = || format!("Looking at {name}");
    let found = match dest.symlink_metadata(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Way::Free),
        metadata => Kind::of(metadata.with_context(context)?.file_type()),
    };
    if found != Kind::Directory {
        return Err(occupied(name, format!("it is {found}")).into());
    }
    // Not through a link that has come in its place.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(dest.as_fd(), name, flags, Mode::empty()).map_err(io::Error::from).with_context(context)?;
    let dir = Dir::from_std_file(File::from(fd));
    if dir.entries().with_context(context)?.next().is_none() {
        return Ok(Way::Replaceable);
    }
    compare(source, own, &dir, options).with_context(context)?.map_err(|why| occupied(name, why).into())
}

/// Compares a directory with the image and with those before it; else says how it differs from the one most like it.
fn compare(
    source: &Source<'_>,
    own: &Layer,
    dir: &Dir,
    options: &UnpackOptions<'_>,
) -> Result<Result<Way, String>, Error> {
    let mut seen = HashSet::new();
    let mut closest: Option<Vec<Difference>> = None;
    // What cannot be read of an earlier image vouches for nothing, and does not keep the others from doing so.
    let earlier = source.before.iter().filter_map(|manifest| layer(source.layout, manifest).ok());
    for layer in std::iter::once(own.clone()).chain(earlier) {
        if seen.len() == CANDIDATES || !seen.insert(layer.expected.digest.clone()) {
            continue;
        }
        let is_own = seen.len() == 1;
        let (listing, unpacked) = match layer.list(source.layout, options) {
            Err(e) if is_own || is_interrupted(&e) => return Err(e),
            Err(_) => continue,
            Ok(listed) => listed,
        };
        let differences = match differences(&listing, dir, options) {
            Err(e @ Error::LimitExceeded { .. }) => return Ok(Err(e.to_string())),
            differences => differences?,
        };
        match closest.as_ref().map(Vec::len) {
            _ if differences.is_empty() && is_own => return Ok(Ok(Way::Same(unpacked))),
            _ if differences.is_empty() => return Ok(Ok(Way::Replaceable)),
            Some(fewest) if differences.len() >= fewest => {}
            _ => closest = Some(differences),
        }
    }
    let closest = closest.unwrap_or_default();
    // What would be lost says more than what is gone already.
    let first = closest.iter().find(|difference| difference.change.is_work()).or(closest.first());
    Ok(Err(first.map(ToString::to_string).unwrap_or_default()))
}

fn is_interrupted(error: &Error) -> bool {
    matches!(error, Error::Io { cause, .. } if cause.kind() == io::ErrorKind::Interrupted)
}

fn occupied(name: &str, why: String) -> Error {
    with_hint(refused(format!("{name} exists already, and is not as it was pulled: {why}")))
}

/// Adds the remedy where something is in the way.
fn with_hint(error: Error) -> Error {
    match error {
        Error::Unavailable { reason, hint: None } => Error::Unavailable {
            reason,
            hint: Some("move it away, or replace it with --force (the image is in the store)".into()),
        },
        error => error,
    }
}

fn refused(reason: String) -> Error {
    Error::Unavailable { reason, hint: None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layer(fill: &str, platforms: &[&str]) -> Layer {
        let digest = format!("sha256:{}", fill.repeat(64));
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": 1});
        Layer {
            descriptor: serde_json::from_value(descriptor).unwrap(),
            expected: Expected { digest, size: 1, diff_id: None, encoding: Encoding::Gzip },
            platforms: platforms.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_layer_for_this_host_is_taken_where_they_differ() {
        let amd = || layer("a", &["linux/amd64"]);
        let arm = || layer("b", &["linux/s390x", "linux/arm64/v8"]);
        let cases = [
            (vec![layer("a", &[])], "linux/amd64", Ok("a")),
            (vec![arm()], "linux/amd64", Ok("b")),
            (vec![amd(), arm()], "linux/arm64", Ok("b")),
            (vec![arm(), amd()], "linux/amd64", Ok("a")),
            (
                vec![amd(), arm()],
                "linux/arm",
                Err("the index has no image for linux/arm: there is linux/amd64, linux/s390x, linux/arm64/v8"),
            ),
            (
                vec![layer("a", &[]), layer("b", &[])],
                "linux/arm",
                Err("the index has no image for linux/arm: it names no platform"),
            ),
        ];
        for (layers, host, want) in cases {
            let got = for_host(layers, host).map(|layer| layer.expected.digest).map_err(|e| e.to_string());
            let want = want.map(|fill| format!("sha256:{}", fill.repeat(64))).map_err(ToOwned::to_owned);
            assert_eq!(got, want);
        }
    }
}
