//! createContainer: in the mount namespace of a container that is being made, before its root file system becomes the root.
//!
//! This is what CRI-O starts, and podman where it does not start precreate. The state comes on stdin, the configuration is in the
//! bundle (runtime specification 1.0, runtime.md, config.md). Whoever made a mount already has done our work.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::bind::bind;
use super::place::Place;
use super::plan::{Planned, mounted, plan};
use super::request::{Mode, Request, SKILLS};
use super::rootfs::Rootfs;
use super::spec::{MAX_SPEC, Spec};
use super::stores::{Mark, Stores};
use super::{Bound, Host, origin};
use crate::error::{Error, Result};
use cap_std::fs::Dir;
use serde::Deserialize;

/// Annotations that CRI-O gives to every container; podman has some others of that prefix.
const CRIO: [&str; 2] = ["io.kubernetes.cri-o.ContainerID", "io.kubernetes.cri-o.KubeName"];
/// The annotation of CRI-O with the kind of a container, and that of the one that only holds a pod's namespaces.
const CRIO_TYPE: &str = "io.kubernetes.cri-o.ContainerType";
const SANDBOX: &str = "sandbox";
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

    /// Returns where the bundle is.
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Returns whether it is a container of a pod, whose author writes its annotations and cannot take those of CRI-O away.
    fn is_of_a_pod(&self) -> bool {
        CRIO.iter().any(|key| self.annotation(key).is_some())
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
        read().map_err(|e| match e.kind() {
            // Of the host's users this one has none in a namespace of its own.
            io::ErrorKind::PermissionDenied => Error::Unavailable {
                reason: format!("{} cannot be read from within the container's user namespace", path.display()),
                hint: Some("skillctl hook enable: the hook that podman starts works with all of them".into()),
            },
            _ => Error::io(path.display().to_string())(e),
        })
    }
}

/// Gives a container the skills that it names. Returns what was done.
///
/// # Errors
/// As [`super::precreate`]; also where the runtime lets us not mount or write.
pub fn create_container(state: &State, host: &Host) -> Result<Vec<Bound>> {
    // Anybody who may create a pod chooses its annotations: without a list of repositories that is for nobody to allow.
    let asks = state.skills().is_some() && state.annotation(CRIO_TYPE) != Some(SANDBOX);
    if !asks || host.policy.is_none() && state.is_of_a_pod() {
        return Ok(Vec::new());
    }
    let text = state.config(host.open)?;
    let spec = Spec::parse(&text)?;
    let Some(request) = Request::of(&spec)? else { return Ok(Vec::new()) };
    if let Some(policy) = &host.policy {
        policy.check_request(&request.skills)?;
    }
    let place = Place::of_bundle(&spec, &state.bundle);
    // Which podman it is cannot be told here.
    if !state.is_of_a_pod() {
        origin::check(&spec, place.as_ref(), host)?;
    }
    let path = Path::new(spec.root());
    // A relative path is one of the bundle.
    let path = if path.is_absolute() { path.to_owned() } else { state.bundle.join(path) };
    let root = (host.open)(&path).map(Rootfs::new).map_err(Error::io(path.display().to_string()))?;
    let stores = Stores::of(place.as_ref(), request.skills.len(), host)?;
    let mark = (host.open)(&state.bundle).map(Mark::of).map_err(Error::io(state.bundle.display().to_string()))?;
    let existing = mounted(&spec, &root)?;
    let mut done: Vec<Bound> = Vec::new();
    for Planned { reference, destination, skill } in plan((&spec, &existing), &request, &root, &stores)? {
        // In here everything is mounted that the container has, and its users have their own numbers.
        root.check_kind(&destination)?;
        let bound = match request.mode {
            Mode::Bind => {
                let tree = stores.tree(skill)?;
                root.make_directories(&destination, spec.user())?;
                bind(&host.open, &tree.source, &root, &destination)?;
                tree
            }
            Mode::Extract => {
                stores.extract(&skill, &root, (&destination, spec.user()), &mark)?;
                Bound { digest: skill.digest, ..Bound::default() }
            }
        };
        done.push(Bound { reference, destination, ..bound });
    }
    Ok(done)
}
