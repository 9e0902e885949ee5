//! What an image of the store unpacks to, on this host or on any.

use anyhow::{Context as _, Result};
use oci_spec::image::{Descriptor, ImageConfiguration};

use crate::error::Error;
use crate::format::{Format, Shape};
use crate::image::Info;
use crate::layer::{Encoding, Expected, Listing, UnpackOptions, Unpacked};
use crate::reference::Reference;
use crate::source::foreign::{Foreign, Spooled};
use crate::store::layout::Layout;

/// What in-toto statements are stored as, and the platform that buildkit gives to a manifest of them when it adds one to
/// an index: no runtime selects or unpacks it, and neither do we.
const ATTESTATION: (&str, &str) = ("application/vnd.in-toto+json", "unknown/unknown");

/// What is in an image.
#[derive(Debug)]
pub struct Contents {
    what: What,
    /// Digests of its layers.
    layers: Vec<String>,
    /// The platforms whose images have it, `linux/amd64`; none where there is no index.
    pub platforms: Vec<String>,
}

#[derive(Debug)]
enum What {
    /// A skill, in a layer of ours.
    Own(Box<Layer>),
    /// Skills in another form.
    Foreign(Box<Foreign>),
}

/// An archive that is one skill.
#[derive(Debug, Clone)]
pub struct Layer {
    bytes: Bytes,
    /// What it has to be.
    pub expected: Expected,
}

#[derive(Debug, Clone)]
enum Bytes {
    Blob(Box<Descriptor>),
    Spooled(Spooled),
}

impl Layer {
    /// Opens it. Whoever reads it checks it against [`Self::expected`].
    ///
    /// # Errors
    /// If it is not there, or has another size.
    pub fn open(&self, layout: &Layout) -> Result<Box<dyn std::io::Read + Send>, Error> {
        Ok(match &self.bytes {
            Bytes::Blob(descriptor) => Box::new(layout.open_blob(descriptor)?.into_inner()),
            Bytes::Spooled(spooled) => Box::new(spooled.open()?),
        })
    }

    /// Returns what it unpacks to.
    ///
    /// # Errors
    /// If it is damaged or refused.
    pub fn list(&self, layout: &Layout, options: &UnpackOptions<'_>) -> Result<(Listing, Unpacked), Error> {
        Listing::read(self.open(layout)?, &self.expected, options)
    }
}

impl Contents {
    /// Returns what is unpacked on this host: what is in an image, or in that of an index whose images have nothing else,
    /// or in the image for this host.
    ///
    /// # Errors
    /// As [`Self::all`], and if there is none for this host.
    pub fn of(layout: &Layout, manifest: &Descriptor, options: &UnpackOptions<'_>) -> Result<Self> {
        for_host(Self::all(layout, manifest, options)?, &host()).map_err(Into::into)
    }

    /// Returns the skills of an image as trees, also of one that is in our form.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn skills(layout: &Layout, manifest: &Descriptor, options: &UnpackOptions<'_>) -> Result<Box<Foreign>> {
        let read = |image: &Info, digest: &str| What::tree(layout, image, digest, options);
        match for_host(Self::each(layout, manifest, read)?, &host())?.what {
            What::Foreign(foreign) => Ok(foreign),
            What::Own(_) => Err(Error::damaged(manifest.digest(), "it is in two forms").into()),
        }
    }

    /// Returns what is in an image, or the different contents of all images of an index.
    ///
    /// # Errors
    /// If a manifest or config is damaged, an image is no skill of any known form, or an index lists something else than
    /// images.
    pub fn all(layout: &Layout, manifest: &Descriptor, options: &UnpackOptions<'_>) -> Result<Vec<Self>> {
        Self::each(layout, manifest, |image, digest| What::read(layout, image, digest, options))
    }

    fn each(layout: &Layout, manifest: &Descriptor, what: impl Fn(&Info, &str) -> Result<What>) -> Result<Vec<Self>> {
        let digest = manifest.digest();
        let info = Info::parse(&layout.read_json(manifest)?, digest.as_ref())?;
        if info.instances.is_empty() {
            let what = what(&info, digest.as_ref())?;
            return Ok(vec![Self { what, layers: digests(&info), platforms: Vec::new() }]);
        }
        Format::check_index(&info, digest.as_ref())?;
        let mut all: Vec<Self> = Vec::new();
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
            let layers = digests(&image);
            let at = match all.iter().position(|other| other.layers == layers) {
                Some(at) => at,
                None => {
                    let what = what(&image, digest.as_ref()).with_context(|| format!("Reading {digest}"))?;
                    all.push(Self { what, layers, platforms: Vec::new() });
                    all.len() - 1
                }
            };
            all[at].platforms.extend(platform);
        }
        if all.is_empty() {
            return Err(refused("the index lists no image".into()).into());
        }
        Ok(all)
    }

    /// Returns the form that it is in.
    pub fn format(&self) -> Option<Format> {
        match &self.what {
            What::Own(_) => None,
            What::Foreign(foreign) => Some(foreign.format),
        }
    }

    /// Returns the skills of another form.
    pub fn foreign(&self) -> Option<&Foreign> {
        match &self.what {
            What::Own(_) => None,
            What::Foreign(foreign) => Some(foreign),
        }
    }

    /// Returns the names of the skills in it: those that they have, else the last part of the reference.
    pub fn names<'a>(&'a self, info: &'a Info, reference: &'a Reference) -> Vec<&'a str> {
        match &self.what {
            What::Own(_) => vec![info.skill_name().unwrap_or(reference.basename())],
            What::Foreign(foreign) => foreign.names(reference.basename()),
        }
    }

    /// Returns the archive of a skill: of the one with that name, where there are several.
    ///
    /// # Errors
    /// If there is none of that name, or it is refused.
    pub fn layer(&self, layout: &Layout, name: &str, options: &UnpackOptions<'_>) -> Result<Layer, Error> {
        match &self.what {
            What::Own(layer) => Ok(Layer::clone(layer)),
            What::Foreign(foreign) => {
                let spooled = foreign.spool(layout, name, options)?;
                Ok(Layer { expected: spooled.expected.clone(), bytes: Bytes::Spooled(spooled) })
            }
        }
    }

    fn is_for(&self, platform: &str) -> bool {
        let variant = |own: &str| own.strip_prefix(platform).is_some_and(|rest| rest.starts_with('/'));
        self.platforms.iter().any(|own| own == platform || variant(own))
    }
}

impl What {
    fn read(layout: &Layout, image: &Info, digest: &str, options: &UnpackOptions<'_>) -> Result<Self> {
        let format = Format::of(image, digest)?;
        Ok(match (format.shape, &image.layers[..]) {
            (Shape::Own, [layer]) => Self::Own(Box::new(own(layout, image, layer)?)),
            _ => Self::tree(layout, image, digest, options)?,
        })
    }

    fn tree(layout: &Layout, image: &Info, digest: &str, options: &UnpackOptions<'_>) -> Result<Self> {
        let format = Format::of(image, digest)?;
        Ok(Self::Foreign(Box::new(Foreign::read(layout, image, (format, digest), options)?)))
    }
}

fn own(layout: &Layout, image: &Info, layer: &Descriptor) -> Result<Layer> {
    let expected = Expected {
        digest: layer.digest().to_string(),
        size: layer.size(),
        diff_id: diff_id(layout, image)?,
        encoding: if layer.media_type().as_ref().ends_with("tar") { Encoding::Tar } else { Encoding::Gzip },
    };
    Ok(Layer { bytes: Bytes::Blob(Box::new(layer.clone())), expected })
}

/// Returns what the config says of the archive's digest, where it is an image's.
fn diff_id(layout: &Layout, info: &Info) -> Result<Option<String>> {
    let Some(config) = &info.config else { return Ok(None) };
    let bytes = layout.read_json(config).context("Reading the config")?;
    let config: Option<ImageConfiguration> = serde_json::from_slice(&bytes).ok();
    Ok(config.and_then(|config| config.rootfs().diff_ids().first().cloned()))
}

fn digests(info: &Info) -> Vec<String> {
    info.layers.iter().map(|layer| layer.digest().to_string()).collect()
}

fn is_attestation(image: &Info, platform: Option<&str>) -> bool {
    let (media_type, nowhere) = ATTESTATION;
    platform == Some(nowhere) && image.layers.iter().all(|layer| layer.media_type().as_ref() == media_type)
}

fn for_host(mut all: Vec<Contents>, host: &str) -> Result<Contents, Error> {
    let at = if all.len() == 1 { Some(0) } else { all.iter().position(|contents| contents.is_for(host)) };
    at.map(|at| all.swap_remove(at)).ok_or_else(|| {
        let all: Vec<&str> = all.iter().flat_map(|contents| &contents.platforms).map(String::as_str).collect();
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

fn refused(reason: String) -> Error {
    Error::Unavailable { reason, hint: None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn contents(fill: &str, platforms: &[&str]) -> Contents {
        let digest = format!("sha256:{}", fill.repeat(64));
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": 1});
        let bytes = Bytes::Blob(Box::new(serde_json::from_value(descriptor).unwrap()));
        let expected = Expected { digest: digest.clone(), size: 1, diff_id: None, encoding: Encoding::Gzip };
        Contents {
            what: What::Own(Box::new(Layer { bytes, expected })),
            layers: vec![digest],
            platforms: platforms.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_layer_for_this_host_is_taken_where_they_differ() {
        let amd = || contents("a", &["linux/amd64"]);
        let arm = || contents("b", &["linux/s390x", "linux/arm64/v8"]);
        let cases = [
            (vec![contents("a", &[])], "linux/amd64", Ok("a")),
            (vec![arm()], "linux/amd64", Ok("b")),
            (vec![amd(), arm()], "linux/arm64", Ok("b")),
            (vec![arm(), amd()], "linux/amd64", Ok("a")),
            (
                vec![amd(), arm()],
                "linux/arm",
                Err("the index has no image for linux/arm: there is linux/amd64, linux/s390x, linux/arm64/v8"),
            ),
            (
                vec![contents("a", &[]), contents("b", &[])],
                "linux/arm",
                Err("the index has no image for linux/arm: it names no platform"),
            ),
        ];
        for (all, host, want) in cases {
            let got = for_host(all, host).map(|contents| contents.layers[0].clone()).map_err(|e| e.to_string());
            let want = want.map(|fill| format!("sha256:{}", fill.repeat(64))).map_err(ToOwned::to_owned);
            assert_eq!(got, want);
        }
    }
}
