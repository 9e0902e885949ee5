//! Taking names, and images with their last name, out of containers-storage.
//!
//! All tags of one content share a record there, and `skopeo delete` removes a record with all its names. So podman does
//! it: `untag` while there are other names, `rmi` for the last.
//!
//! Locks and crashes are those of podman and skopeo. What is read here can be outdated by other processes; each removal
//! is decided on what was read just before, and left to a program that checks for use again under its lock: `podman rmi`
//! without `-f`.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::process::Tools;
use crate::store::storage::Storage;
use crate::store::storage_images::{Images, StorageImage};

/// Bound on `podman untag`, `podman rmi` and `skopeo delete`, which take 0.2 s.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(60);
/// What to do about a lock.
const LOCKED_HINT: &str = "wait for it to end, then try again";
/// The label that marks an image as ours.
pub(super) const OUR_LABEL: &str = "io.skillimage.name";

/// What an unload did.
#[derive(Debug, PartialEq, Eq)]
pub struct Unloaded {
    /// The image's ID.
    pub image_id: String,
    /// Whether the image went with its last name.
    pub removed: bool,
}

impl Storage {
    /// Takes a name away from containers-storage, and the image with its last name.
    ///
    /// # Errors
    ///
    /// [`Error::ImageNotFound`] when the name is not there; [`Error::Unavailable`] when it is in use, in a read-only
    /// store, or when only podman could take it without its image's other names.
    pub fn unload(&self, name: &str, tools: &Tools) -> Result<Unloaded> {
        let images = self.images()?;
        let image = images.by_name(name).ok_or_else(|| Error::ImageNotFound(name.to_owned()))?;
        if image.read_only {
            let reason = format!("{name} is in a read-only additional store");
            return Err(Error::Unavailable { reason, hint: None });
        }
        let removed = image.names.len() == 1;
        if removed && self.is_mounted(image)? {
            // podman would remove it under the running container, whose skill would then be empty.
            return Err(in_use(name));
        }
        // By name: should the image get another one meanwhile, rmi takes this one only.
        let verb = if removed { vec!["rmi", name] } else { vec!["untag", name, name] };
        let podman = self.conf().flags.podman(tools.podman()).args(verb).timeout(REMOVE_TIMEOUT);
        match podman.try_output()? {
            Some(output) if output.success() => {}
            Some(output) if output.reason().contains("in use") => return Err(in_use(name)),
            Some(output) => {
                return Err(self.locked(&output, LOCKED_HINT).unwrap_or_else(|| output.error()));
            }
            None => self.unload_with_skopeo(name, tools)?,
        }
        match self.images()?.by_name(name) {
            Some(left) if left.id == image.id => Err(self.elsewhere(name, "removed from")),
            _ => Ok(Unloaded { image_id: image.id.clone(), removed }),
        }
    }

    /// `skopeo delete` removes an image with all its names, so it must have this one only.
    fn unload_with_skopeo(&self, name: &str, tools: &Tools) -> Result<()> {
        let images = self.images()?;
        let image = images.by_name(name).ok_or_else(|| Error::ImageNotFound(name.to_owned()))?;
        if let Some(other) = image.names.iter().find(|n| *n != name) {
            let Error::Unavailable { reason, hint } = tools.missing("podman") else {
                return Err(tools.missing("podman"));
            };
            let reason = format!("{reason}, and without it {name} goes only together with {other}, the same image");
            return Err(Error::Unavailable { reason, hint });
        }
        let output = self.for_skopeo(tools.skopeo().arg("delete"), name)?.timeout(REMOVE_TIMEOUT).output()?;
        if output.success() { Ok(()) } else { Err(self.locked(&output, LOCKED_HINT).unwrap_or_else(|| output.error())) }
    }

    /// Removes an image that a load left without name. The error says why it stays.
    pub(super) fn remove_orphan(&self, old: &StorageImage, after: &Images, tools: &Tools) -> Result<(), String> {
        let left: Vec<_> = after.iter().filter(|i| i.id == old.id).collect();
        if left.is_empty() || left.iter().any(|i| !i.names.is_empty() || i.read_only) {
            return Err("it has other names".into());
        }
        if !self.labels(old).map_err(|e| e.to_string())?.contains_key(OUR_LABEL) {
            return Err(format!("it has no label {OUR_LABEL}"));
        }
        if self.is_mounted(old).map_err(|e| e.to_string())? {
            return Err("it is mounted".into());
        }
        let podman = self.conf().flags.podman(tools.podman()).args(["rmi", &old.id]).timeout(REMOVE_TIMEOUT);
        podman.run().map(drop).map_err(|e| e.to_string())
    }
}

/// Returns the error for an image that containers or volumes hold. podman advises to remove it by force, which would
/// leave them with an empty skill.
fn in_use(name: &str) -> Error {
    let reason = format!("{name} is in use by a container or an image-backed volume");
    let hint =
        "remove that first: podman ps --all --external, podman rm, podman volume rm, podman image unmount".to_owned();
    Error::Unavailable { reason, hint: Some(hint) }
}
