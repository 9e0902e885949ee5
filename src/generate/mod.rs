//! From images to what runs them, as text: pure functions.

pub mod cdi;
pub mod collection;
pub mod imageset;
pub mod kube;
pub mod podman;
pub mod quadlet;
pub mod quote;
pub mod volume;

use crate::error::{Error, Result};
use crate::image::{Info, oci};
use crate::reference::Reference;
use podman::check_path;

/// A skill image, by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skill {
    /// Its image: a name and a digest.
    pub image: Reference,
    /// The tag that it was found by.
    pub tag: Option<String>,
    /// The directory that it gets.
    pub name: String,
    /// Its version, else its tag, else nothing.
    pub version: String,
}

impl Skill {
    /// Returns the digest, `sha256:…`.
    pub fn digest(&self) -> &str {
        self.image.digest().unwrap_or_default()
    }

    /// Returns its name with the tag, where it has one.
    pub fn tagged(&self) -> Reference {
        let tagged = self.tag.as_ref().and_then(|tag| self.image.with_tag(tag).ok());
        tagged.unwrap_or_else(|| self.image.clone())
    }

    /// Returns the name for people.
    pub fn shown(&self) -> String {
        self.tagged().to_string()
    }

    /// Returns whether no registry can have it, because none is in its name.
    pub fn is_local(&self) -> bool {
        self.image.registry().is_none()
    }
}

/// Returns where a skill is mounted below a directory of the container.
///
/// # Errors
/// [`Error::Unavailable`] for a directory that is none of a container.
pub fn destination(below: &str, skill: &Skill) -> Result<String> {
    let path = format!("{}/{}", below.trim_end_matches('/'), skill.name);
    check_path(&path).map(|()| path)
}

/// Returns the version that an image says.
pub fn oci_version(info: &Info) -> Option<&str> {
    Some(info.get(oci::VERSION)).filter(|version| !version.is_empty())
}

/// Refuses a podman that is too old for something.
pub(crate) fn since(what: &str, podman: (u64, u64), first: (u64, u64), hint: &str) -> Result<()> {
    if podman >= first {
        return Ok(());
    }
    let reason = format!("podman {}.{} has no {what} ({}.{} and newer have)", podman.0, podman.1, first.0, first.1);
    Err(Error::Unavailable { reason, hint: Some(hint.to_owned()) })
}
