//! What an image of the store unpacks to, on this host or on any.

use anyhow::{Context as _, Result};
use oci_spec::image::Descriptor;

use crate::error::Error;
use crate::format::{Format, Shape};
use crate::image::Info;
use crate::layer::{Expected, Listing, UnpackOptions, Unpacked};
use crate::reference::Reference;
use crate::source::foreign::{Foreign, Spooled};
use crate::store::layout::Layout;
use crate::store::skill::{self, Instance, for_host, instances};

/// What is in an image.
#[derive(Debug)]
pub struct Contents {
    what: What,
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
    Blob(Box<skill::Layer>),
    Spooled(Spooled),
}

impl Layer {
    /// Opens it. Whoever reads it checks it against [`Self::expected`].
    ///
    /// # Errors
    /// If it is not there, or has another size.
    pub fn open(&self, layout: &Layout) -> Result<Box<dyn std::io::Read + Send>, Error> {
        Ok(match &self.bytes {
            Bytes::Blob(layer) => layer.open(layout)?,
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
    /// Returns what is unpacked on this host: see [`for_host`].
    ///
    /// # Errors
    /// If a manifest or config is damaged, the image is no skill of any known form, or there is none for this host.
    pub fn of(layout: &Layout, manifest: &Descriptor, options: &UnpackOptions<'_>) -> Result<Self> {
        Self::read(layout, for_host(instances(layout, manifest)?)?, options)
    }

    /// Returns the skills of an image as trees, also of one that is in our form.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn skills(layout: &Layout, manifest: &Descriptor, options: &UnpackOptions<'_>) -> Result<Box<Foreign>> {
        let Instance { image, digest, .. } = for_host(instances(layout, manifest)?)?;
        What::tree(layout, &image, &digest, options)
    }

    /// Returns what is in an image, or the different contents of all images of an index.
    ///
    /// # Errors
    /// If a manifest or config is damaged, an image is no skill of any known form, or an index lists something else than
    /// images.
    pub fn all(layout: &Layout, manifest: &Descriptor, options: &UnpackOptions<'_>) -> Result<Vec<Self>> {
        instances(layout, manifest)?.into_iter().map(|instance| Self::read(layout, instance, options)).collect()
    }

    fn read(layout: &Layout, instance: Instance, options: &UnpackOptions<'_>) -> Result<Self> {
        let Instance { image, digest, platforms } = instance;
        let read = || What::read(layout, &image, &digest, options);
        let what = if platforms.is_empty() { read()? } else { read().with_context(|| format!("Reading {digest}"))? };
        Ok(Self { what, platforms })
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
}

impl What {
    fn read(layout: &Layout, image: &Info, digest: &str, options: &UnpackOptions<'_>) -> Result<Self> {
        let format = Format::of(image, digest)?;
        let (Shape::Own, [blob]) = (format.shape, &image.layers[..]) else {
            return Ok(Self::Foreign(Self::tree(layout, image, digest, options)?));
        };
        let layer = skill::Layer::of(layout, image, blob)?;
        Ok(Self::Own(Box::new(Layer { expected: layer.expected.clone(), bytes: Bytes::Blob(Box::new(layer)) })))
    }

    fn tree(layout: &Layout, image: &Info, digest: &str, options: &UnpackOptions<'_>) -> Result<Box<Foreign>> {
        let format = Format::of(image, digest)?;
        Ok(Box::new(Foreign::read(layout, image, (format, digest), options)?))
    }
}
