//! The OCI hooks: a container that names skills gets them, read-only and verified.
//!
//! ```text
//! podman, precreate:   the runtime configuration in, the same with mounts out     (oci-hooks(5); podman 1.0 and newer)
//! ```
//!
//! No program is started, nothing goes over the network, and nothing is asked of podman, which holds the container's lock
//! meanwhile. What the container and its image say is hostile: see [`request`], [`rootfs`] and [`policy`]. The environment is
//! empty, so where things are follows from where the container is: see [`place`]. Stores are searched in this order:
//!
//! ```text
//! SKILLCTL_STORE            where the hook's file sets it
//! X/skillctl/store          beside X/containers/storage, which the container is in
//! /var/lib/skillctl/store   where that has another name
//! SKILLCTL_ADD_STORES       where the hook's file sets it, colons between them
//! /usr/lib/skillctl/store   what an image of the operating system brings
//! ```

mod bind;
pub mod create;
pub mod dropin;
mod origin;
pub mod place;
mod plan;
pub mod policy;
pub mod request;
pub mod rootfs;
pub mod spec;
mod stores;

use std::io;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::process::Cancel;
use crate::store::unpacked::Label;
use crate::trust::policy::Policy as Trust;
use place::Place;
use plan::{Mounted, Planned, mounted, plan};
use policy::Policy;
use request::{Mode, Request};
use rootfs::Rootfs;
use spec::Spec;
use stores::Stores;

/// Our directory of root.
pub const SYSTEM_DATA: &str = "/var/lib/skillctl";
/// How long a hook may take, in seconds: unpacking the largest skill takes some ten.
const TIMEOUT: u64 = 120;

/// What the shell gives: it alone opens absolute paths.
pub struct Host {
    /// The store, where it was named.
    pub store: Option<PathBuf>,
    /// Those that are only read, where some were named.
    pub add_stores: Vec<PathBuf>,
    /// This program.
    pub program: PathBuf,
    /// The policy, where there is one.
    pub policy: Option<Policy>,
    /// Reads what has to hold of images, given our directory beside the storage.
    pub trust: fn(Option<&Path>) -> Trust,
    /// Opens a directory.
    pub open: fn(&Path) -> io::Result<Dir>,
    /// Opens a directory, which is made with its parents where it is not there.
    pub make: fn(&Path) -> io::Result<Dir>,
    /// The working directory: podman 4.7 and newer start hooks in the container's bundle.
    pub cwd: Option<PathBuf>,
    /// What trees are labelled with.
    pub label: Option<Label>,
    /// Ends waiting.
    pub cancel: Cancel,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("store", &self.store).field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// A skill that goes into a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bound {
    /// What was asked for.
    pub reference: String,
    /// Digest of the manifest.
    pub digest: String,
    /// The keys that have signed it, where that was asked for.
    pub signers: Vec<String>,
    /// The tree.
    pub source: PathBuf,
    /// Where it is mounted.
    pub destination: String,
    /// Whether a tree that was altered was made anew for it.
    pub repaired: bool,
}

impl Bound {
    /// Returns whether it is a tree that is mounted, and no copy, which is made later and elsewhere.
    pub fn is_mounted(&self) -> bool {
        !self.source.as_os_str().is_empty()
    }
}

/// Adds the skills that a container asks for to its configuration. Returns it and what was added.
///
/// # Errors
/// If it asks for something that it may not have, or that is not here, or that has no place in it. Nothing is mounted then.
pub fn precreate(spec: &Spec<'_>, host: &Host) -> Result<(String, Vec<Bound>)> {
    let Some(request) = Request::of(spec)? else { return Ok((spec.text().to_owned(), Vec::new())) };
    if let Some(policy) = &host.policy {
        policy.check_request(&request.skills)?;
    }
    let place = Place::of(spec, host.cwd.as_deref());
    if !place.as_ref().is_some_and(Place::keeps_annotations_apart) {
        origin::check(spec, place.as_ref(), host)?;
    }
    let path = place.as_ref().map_or(Ok(spec.root().into()), |place| place.root(spec, host.open))?;
    let root = (host.open)(&path).map(Rootfs::new).map_err(Error::io(path.display().to_string()))?;
    let stores = Stores::of(place.as_ref(), request.skills.len(), host)?;
    let existing = mounted(spec, &root)?;
    let planned = plan((spec, &existing), &request, &root, &stores)?;
    if request.mode == Mode::Extract {
        return with_copies(spec, &planned, host);
    }
    let mut bound = Vec::new();
    for Planned { reference, destination, skill } in planned {
        let tree = stores.tree(skill)?;
        make_place(spec, &existing, (&root, host), &destination)?;
        bound.push(Bound { reference, destination, ..tree });
    }
    let mounts: Vec<Value> = bound.iter().map(mount).collect();
    Ok((spec.with(&mounts, (is_ours, None))?, bound))
}

/// Has the skills written when the root file system is as the container will see it.
fn with_copies(spec: &Spec<'_>, planned: &[Planned<'_>], host: &Host) -> Result<(String, Vec<Bound>)> {
    if spec.has_user_namespace() {
        let reason = "io.skillimage.mode=extract does not work with a user namespace, from within which the store cannot be \
                      read";
        return Err(Error::Unavailable {
            reason: reason.into(),
            hint: Some("leave it out: skills are mounted".into()),
        });
    }
    let bound = planned.iter().map(|planned| Bound {
        reference: planned.reference.clone(),
        digest: planned.skill.digest.clone(),
        signers: planned.skill.signers.clone(),
        destination: planned.destination.clone(),
        ..Bound::default()
    });
    Ok((spec.with(&[], (is_ours, Some(own_hook(host))))?, bound.collect()))
}

fn mount(bound: &Bound) -> Value {
    spec::bind(&bound.source.display().to_string(), &bound.destination)
}

/// Returns our createContainer hook: podman has left it out, since precreate is its namesake.
fn own_hook(host: &Host) -> Value {
    let mut env: Vec<String> = host.store.iter().map(|store| format!("SKILLCTL_STORE={}", store.display())).collect();
    if !host.add_stores.is_empty() {
        let all: Vec<String> = host.add_stores.iter().map(|store| store.display().to_string()).collect();
        env.push(format!("SKILLCTL_ADD_STORES={}", all.join(":")));
    }
    json!({"path": host.program, "args": ["skillctl-hook", "createContainer"], "env": env, "timeout": TIMEOUT})
}

/// Returns whether a createContainer hook is ours: what precreate has done must not be done twice.
fn is_ours(hook: &Value) -> bool {
    hook["path"].as_str().is_some_and(|path| path.ends_with("/skillctl-hook"))
}

/// Makes the directories that a skill is mounted at, as the container's user: the runtime would make them as root. Where
/// something is mounted on the way, they are made in there if it is a directory of the host in which the user may do so.
fn make_place(spec: &Spec<'_>, mounts: &[Mounted], (root, host): (&Rootfs, &Host), destination: &str) -> Result<()> {
    let covering = mounts.iter().filter(|(_, mount)| mount.destination != "/").filter_map(|(at, mount)| {
        let rest = destination.strip_prefix(at.trim_end_matches('/')).filter(|rest| rest.starts_with('/'))?;
        Some((mount, rest))
    });
    let user = spec.host_user()?;
    let Some((mount, rest)) = covering.min_by_key(|(_, rest)| rest.len()) else {
        return root.make_directories(destination, user);
    };
    let Some(source) = mount.source.as_ref().filter(|_| mount.is_writable_bind()) else { return Ok(()) };
    // The runtime says what is wrong with it.
    let Ok(dir) = (host.open)(Path::new(source)) else { return Ok(()) };
    let inside = Rootfs::new(dir).without_links();
    match inside.resolve(rest).is_ok() && inside.lets_write(rest, user) {
        true => inside.make_directories(rest, user),
        false => Ok(()),
    }
}
