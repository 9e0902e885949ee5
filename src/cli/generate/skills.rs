//! What `generate volume`, `quadlet` and `kube` are told about skills and podman.

use anyhow::Result;

use crate::cli::generate::Where;
use crate::cli::registry::RegistryArgs;
use crate::cli::shell::Shell;
use crate::error::Error;
use crate::generate::Skill;
use crate::ops::generate::pins::{Places, Reader, not_loaded, skills};
use crate::ops::generate::{Container, container, qualified};
use crate::output::harmless_line;
use crate::process::version;
use crate::reference::Reference;

/// The podman that things are made for where there is none: all that we make is for this one or an older one, and newer ones
/// read it, too.
const OLDEST: (u64, u64) = (4, 8);

/// Skills, and where they are mounted.
#[derive(Debug, clap::Args)]
pub struct SkillArgs {
    /// Skills, in the store, in containers-storage or on a registry
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<String>,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Does something with all places where images are looked for.
pub fn with_places<T>(shell: &Shell, registry: &RegistryArgs, act: impl FnOnce(&Places<'_>) -> Result<T>) -> Result<T> {
    let (layout, policy) = (shell.existing_store()?, shell.policy());
    act(&Places {
        policy: &policy,
        layout: layout.as_ref(),
        storage: &|| shell.storage_to_read(),
        registry: &|| registry.registry(shell),
        resolve: &|text| registry.resolve(shell, text),
    })
}

impl SkillArgs {
    /// Returns how registries are reached.
    pub fn registry(&self) -> &RegistryArgs {
        &self.registry
    }

    /// Finds the skills.
    pub fn skills(&self, shell: &Shell, reader: Reader) -> Result<Vec<Skill>> {
        let references: Vec<_> = self.references.iter().filter_map(|text| text.parse().ok()).collect();
        self.registry.check_single(&references)?;
        with_places(shell, &self.registry, |places| skills(places, &self.references, reader))
    }

    /// Returns the directory to mount below: in the home of the user of `image`, where that is here. Says what is taken for granted
    /// and what becomes of the directories of a home.
    pub fn below(&self, shell: &Shell, image: Option<&str>) -> Result<String> {
        let image = image.filter(|_| self.place.target.is_some());
        let container = image.map(|image| here(shell, image)).transpose()?.flatten();
        self.place.below_in(shell, container.as_ref())
    }
}

/// Reads a container image that may be here: it may as well be on its registry only, and containers-storage somewhere else.
pub fn here(shell: &Shell, image: &str) -> Result<Option<Container>> {
    let Ok(storage) = shell.storage_to_read() else { return Ok(None) };
    match container(&storage, image) {
        Ok(container) => Ok(Some(container)),
        Err(e) if matches!(e.downcast_ref(), Some(Error::ImageNotFound(_))) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Returns a container image as podman has it here: `my-agent` is another one in a unit, or to a kubelet. What has a registry, or is
/// not here, stays as it is.
pub fn whole_name(shell: &Shell, image: &str) -> String {
    let short =
        !image.starts_with("localhost/") && image.parse::<Reference>().is_ok_and(|own| own.registry().is_none());
    let found = || qualified(&shell.storage_to_read().ok()?, image).ok().flatten();
    short.then(found).flatten().unwrap_or_else(|| image.to_owned())
}

/// The version of podman.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct PodmanVersion {
    /// Write for this podman instead of the one that is found here
    #[arg(long = "podman-version", value_name = "VERSION", value_parser = parse)]
    given: Option<(u64, u64)>,
}

impl PodmanVersion {
    /// Returns it; `None` where there is none here and none was named.
    pub fn known(self, shell: &Shell) -> Option<(u64, u64)> {
        self.given.or_else(|| version(&shell.tools().podman()).map(|(major, minor, _)| (major, minor)))
    }

    /// Returns it, else the oldest that all is made for.
    pub fn or_oldest(self, shell: &Shell) -> (u64, u64) {
        self.known(shell).unwrap_or_else(|| {
            let (major, minor) = OLDEST;
            shell.note(format!(
                "note: there is no podman here; written for {major}.{minor} and newer (--podman-version names another)"
            ));
            OLDEST
        })
    }
}

/// Reads `MAJOR.MINOR`, and whatever follows.
fn parse(text: &str) -> Result<(u64, u64), String> {
    let mut parts = text.trim_start_matches('v').split(['.', '-', '+', '~']);
    let mut number = || parts.next().and_then(|part| part.parse().ok());
    number().zip(number()).ok_or_else(|| "a version is wanted, such as 5.4".to_owned())
}

/// Takes the name of an image as it is, since `localhost/agent` and `agent` are two images to podman and to a cluster.
pub fn image_name(text: &str) -> Result<String, String> {
    text.parse::<Reference>().map(|_| text.to_owned()).map_err(|e| e.to_string())
}

/// Says which skills podman does not have yet. What cannot be told is not.
pub fn warn_not_loaded(shell: &Shell, skills: &[Skill]) {
    let missing = shell.storage_to_read().and_then(|storage| not_loaded(&storage, skills)).unwrap_or_default();
    for line in missing {
        shell.warn(format!("warning: {}", harmless_line(&line)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_two_numbers_and_more() {
        let cases = [
            ("4.3", Some((4, 3))),
            ("5.8.6", Some((5, 8))),
            ("v5.0.0-rc1", Some((5, 0))),
            ("5", None),
            ("", None),
            ("five.one", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).ok(), want, "{text}");
        }
    }
}
