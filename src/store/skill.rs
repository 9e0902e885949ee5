//! The images of the store that are skills in our form, and the one layer that each of them is.

use std::io::Read;

use oci_spec::image::{Descriptor, ImageConfiguration};

use super::layout::Layout;
use crate::error::{Error, Result};
use crate::format::{Format, Shape};
use crate::image::Info;
use crate::layer::{Encoding, Expected};

/// What in-toto statements are stored as, and the platform that buildkit gives to a manifest of them when it adds one to
/// an index: no runtime selects or unpacks it, and neither do we.
const ATTESTATION: (&str, &str) = ("application/vnd.in-toto+json", "unknown/unknown");

/// The layer of a skill image.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The blob.
    pub blob: Descriptor,
    /// What it has to be.
    pub expected: Expected,
}

impl Layer {
    /// Returns what the layer of an image has to be, by its manifest and config.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the config is not what the manifest says.
    pub fn of(layout: &Layout, image: &Info, blob: &Descriptor) -> Result<Self> {
        let expected = Expected {
            digest: blob.digest().to_string(),
            size: blob.size(),
            diff_id: diff_id(layout, image)?,
            encoding: if blob.media_type().as_ref().ends_with("tar") { Encoding::Tar } else { Encoding::Gzip },
        };
        Ok(Self { blob: blob.clone(), expected })
    }

    /// Opens it. Whoever reads it checks it against [`Self::expected`].
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not there, or has another size.
    pub fn open(&self, layout: &Layout) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(layout.open_blob(&self.blob)?.into_inner()))
    }
}

/// Returns what the config says of the archive's digest, where it is an image's.
fn diff_id(layout: &Layout, image: &Info) -> Result<Option<String>> {
    let Some(config) = &image.config else { return Ok(None) };
    let config: Option<ImageConfiguration> = serde_json::from_slice(&layout.read_json(config)?).ok();
    Ok(config.and_then(|config| config.rootfs().diff_ids().first().cloned()))
}

/// An image, or those images of an index that have the same layers.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The first such manifest.
    pub image: Info,
    /// Its digest.
    pub digest: String,
    /// The platforms whose images have these layers, `linux/amd64`; none where there is no index.
    pub platforms: Vec<String>,
}

impl Instance {
    fn is_for(&self, platform: &str) -> bool {
        let variant = |own: &str| own.strip_prefix(platform).is_some_and(|rest| rest.starts_with('/'));
        self.platforms.iter().any(|own| own == platform || variant(own))
    }
}

/// Returns an image, or all images of an index that differ in their layers.
///
/// # Errors
/// [`Error::Damaged`] if a manifest is; [`Error::Unavailable`] if an index lists something else than images.
pub fn instances(layout: &Layout, manifest: &Descriptor) -> Result<Vec<Instance>> {
    let digest = manifest.digest().as_ref();
    instances_of(layout, Info::parse(&layout.read_json(manifest)?, digest)?, digest)
}

/// The same of a manifest that was read already.
///
/// # Errors
/// As [`instances`].
pub fn instances_of(layout: &Layout, info: Info, digest: &str) -> Result<Vec<Instance>> {
    if info.instances.is_empty() {
        return Ok(vec![Instance { image: info, digest: digest.to_owned(), platforms: Vec::new() }]);
    }
    Format::check_index(&info, digest)?;
    let mut all: Vec<Instance> = Vec::new();
    for listed in &info.instances {
        let digest = listed.digest();
        let image = Info::parse(&layout.read_json(listed)?, digest.as_ref())?;
        if image.config.is_none() {
            return Err(refused(format!("the index lists {digest}, which is no image")));
        }
        let platform = platform(listed);
        if is_attestation(&image, platform.as_deref()) {
            continue;
        }
        match all.iter_mut().find(|other| digests(&other.image) == digests(&image)) {
            Some(other) => other.platforms.extend(platform),
            None => all.push(Instance { image, digest: digest.to_string(), platforms: platform.into_iter().collect() }),
        }
    }
    match all.is_empty() {
        true => Err(refused("the index lists no image".into())),
        false => Ok(all),
    }
}

/// Returns what is unpacked on this host: the image, or that of an index whose images have nothing else, or the image
/// for this host.
///
/// # Errors
/// [`Error::Unavailable`] if there is none for this host.
pub fn for_host(all: Vec<Instance>) -> Result<Instance> {
    choose(all, &host())
}

/// Returns the layer of an image that runtimes mount as it is.
///
/// # Errors
/// [`Error::Unavailable`] for an image or artifact in another form, with the command that makes such an image of it.
pub fn mountable(layout: &Layout, instance: &Instance, text: &str) -> Result<Layer> {
    match (&instance.image.layers[..], Format::of(&instance.image, text)?.shape) {
        ([layer], Shape::Own) => Layer::of(layout, &instance.image, layer),
        _ => Err(Error::Unavailable {
            reason: format!("{text} is not a skill image that can be mounted"),
            hint: Some(format!("skillctl convert {text} NAME:TAG makes one of it")),
        }),
    }
}

fn choose(mut all: Vec<Instance>, host: &str) -> Result<Instance> {
    let at = if all.len() == 1 { Some(0) } else { all.iter().position(|instance| instance.is_for(host)) };
    at.map(|at| all.swap_remove(at)).ok_or_else(|| {
        let all: Vec<&str> = all.iter().flat_map(|instance| &instance.platforms).map(String::as_str).collect();
        let what = if all.is_empty() { "it names no platform".into() } else { format!("there is {}", all.join(", ")) };
        refused(format!("the index has no image for {host}: {what}"))
    })
}

fn digests(image: &Info) -> Vec<&str> {
    image.layers.iter().map(|layer| layer.digest().as_ref()).collect()
}

fn is_attestation(image: &Info, platform: Option<&str>) -> bool {
    let (media_type, nowhere) = ATTESTATION;
    platform == Some(nowhere) && image.layers.iter().all(|layer| layer.media_type().as_ref() == media_type)
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

fn refused(reason: String) -> Error {
    Error::Unavailable { reason, hint: None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instance(fill: &str, platforms: &[&str]) -> Instance {
        let digest = format!("sha256:{}", fill.repeat(64));
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": 1});
        let layer = json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 1});
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
        let image = Info::parse(manifest.as_bytes(), "it").unwrap();
        Instance { image, digest, platforms: platforms.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn the_image_for_this_host_is_taken_where_they_differ() {
        let amd = || instance("a", &["linux/amd64"]);
        let arm = || instance("b", &["linux/s390x", "linux/arm64/v8"]);
        let cases = [
            (vec![instance("a", &[])], "linux/amd64", Ok("a")),
            (vec![arm()], "linux/amd64", Ok("b")),
            (vec![amd(), arm()], "linux/arm64", Ok("b")),
            (vec![arm(), amd()], "linux/amd64", Ok("a")),
            (
                vec![amd(), arm()],
                "linux/arm",
                Err("the index has no image for linux/arm: there is linux/amd64, linux/s390x, linux/arm64/v8"),
            ),
            (
                vec![instance("a", &[]), instance("b", &[])],
                "linux/arm",
                Err("the index has no image for linux/arm: it names no platform"),
            ),
        ];
        for (all, host, want) in cases {
            let got = choose(all, host).map(|instance| instance.digest).map_err(|e| e.to_string());
            let want = want.map(|fill| format!("sha256:{}", fill.repeat(64))).map_err(ToOwned::to_owned);
            assert_eq!(got, want);
        }
    }
}
