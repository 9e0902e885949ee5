//! createContainer: in the mount namespace of a container that is being made, before its root file system becomes the root.
//!
//! This is what CRI-O starts, and podman where it does not start precreate. The state comes on stdin, the configuration is in the
//! bundle (runtime specification 1.0, runtime.md, config.md). Whoever made a mount already has done our work.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use serde::Deserialize;
use std::collections::BTreeMap;

use super::bind::bind;
use super::place::Place;
use super::request::{self, Mode, Request, SKILLS};
use super::rootfs::Rootfs;
use super::spec::{MAX_SPEC, Spec};
use super::{Bound, Host, Stores, below};
use crate::error::{Error, Result};

/// What CRI-O gives to every container, and podman, too, with another value.
const MANAGER: &str = "io.container.manager";
/// What podman calls itself there.
const LIBPOD: &str = "libpod";

/// The state of a container, as far as it is needed.
#[derive(Debug, Deserialize)]
pub struct State {
    bundle: PathBuf,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl State {
    /// Reads what a runtime gives on stdin.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is no state.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| Error::damaged("the container's state on stdin", e))
    }

    /// Returns what skills the container names, where it names any.
    pub fn skills(&self) -> Option<&str> {
        let value = self.annotations.as_ref()?.get(SKILLS)?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// Returns whether whoever runs the container lets others than the host's users write annotations.
    fn is_of_a_cluster(&self) -> bool {
        let manager = self.annotations.as_ref().and_then(|all| all.get(MANAGER));
        manager.is_none_or(|manager| manager != LIBPOD)
    }

    /// Reads the configuration of the container.
    ///
    /// # Errors
    /// If there is none, or it is too large.
    pub fn config(&self, open: fn(&Path) -> io::Result<Dir>) -> Result<String> {
        let path = self.bundle.join("config.json");
        let read = || -> io::Result<String> {
            let mut text = String::new();
            open(&self.bundle)?.open("config.json")?.take(MAX_SPEC + 1).read_to_string(&mut text)?;
            match text.len() as u64 > MAX_SPEC {
                true => Err(io::Error::other(format!("it is larger than {MAX_SPEC} bytes"))),
                false => Ok(text),
            }
        };
        read().map_err(Error::io(path.display().to_string()))
    }
}

/// Gives a container the skills that it names. Returns what was done.
///
/// # Errors
/// As [`super::precreate`]; also where the runtime lets us not mount or write.
pub fn create_container(state: &State, host: &Host) -> Result<Vec<Bound>> {
    // Anybody who may create a pod chooses its annotations: without a list of repositories that is for nobody to allow.
    if state.skills().is_none() || host.policy.is_none() && state.is_of_a_cluster() {
        return Ok(Vec::new());
    }
    let text = state.config(host.open)?;
    let spec = Spec::parse(&text)?;
    let Some(request) = Request::of(&spec)? else { return Ok(Vec::new()) };
    if let Some(policy) = &host.policy {
        policy.check_request(&request.skills)?;
    }
    let place = Place::of(&spec, host.cwd.as_deref());
    let stores = Stores::of(place.as_ref(), host)?;
    let existing = spec.mounts()?;
    let path = Path::new(spec.root());
    // A relative path is one of the bundle.
    let path = if path.is_absolute() { path.to_owned() } else { state.bundle.join(path) };
    let root = (host.open)(&path).map(Rootfs::new).map_err(Error::io(path.display().to_string()))?;
    let below = below(&spec, &request, &root)?;
    let mut done: Vec<Bound> = Vec::new();
    for wanted in &request.skills {
        let skill = stores.find(wanted, host)?;
        let destination = wanted.destination.clone().unwrap_or_else(|| format!("{below}/{}", skill.name));
        request::check(&destination)?;
        if existing.iter().any(|mount| mount.destination.trim_end_matches('/') == destination) {
            continue;
        }
        let bound = match request.mode {
            // In here the container's users have their own numbers.
            Mode::Bind => {
                let tree = stores.tree(skill, host)?;
                root.make_directories(&destination, spec.user())?;
                bind(&host.open, &tree.source, &root, &destination)?;
                tree
            }
            Mode::Extract => match stores.extract(skill, (&root, spec.user()), &destination, host)? {
                Some(digest) => Bound { digest, ..Bound::default() },
                None => continue,
            },
        };
        done.push(Bound { reference: wanted.reference.to_string(), destination, ..bound });
    }
    Ok(done)
}
