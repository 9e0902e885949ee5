//! Who has written the annotations: the user, or the container's image.
//!
//! podman before 4.5.1 gives the annotations of an image to its containers, and an image must not choose what of this host it
//! sees. So where the podman may be as old, what is asked for must not stand in any manifest of the container's image.

use super::Host;
use super::place::Place;
use super::request::{MODE, SKILLS, TARGET};
use super::spec::Spec;
use crate::error::{Error, Result};

/// Refuses what the container's image asks for, and what may be that.
///
/// # Errors
/// [`Error::Denied`] that names the annotation; [`Error::Unavailable`] where the container cannot be told.
pub fn check(spec: &Spec<'_>, place: Option<&Place>, host: &Host) -> Result<()> {
    let Some(place) = place.filter(|place| place.has_container()) else {
        let reason = "it cannot be told whether the container's image asks for these skills, which it may not".into();
        let hint = Some("podman 4.7 and newer say which container a hook is for".into());
        return Err(Error::Unavailable { reason, hint });
    };
    // One that is made of a directory has no image.
    let Some((storage, container)) = place.container(host.open)? else { return Ok(()) };
    for annotations in storage.annotations_of(&container)? {
        for key in [SKILLS, TARGET, MODE] {
            let Some(value) = spec.annotation(key) else { continue };
            if annotations.get(key).is_some_and(|own| own.trim() == value) {
                let reason =
                    format!("the annotation {key} is that of the container's image, which may not choose skills");
                return Err(Error::Denied(reason));
            }
        }
    }
    Ok(())
}
