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
//! /usr/lib/skillctl/store   what an image of the operating system brings
//! ```

mod bind;
pub mod create;
pub mod dropin;
pub mod place;
pub mod policy;
pub mod request;
pub mod rootfs;
pub mod spec;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use nix::fcntl::AtFlags;
use nix::unistd::{Gid, Uid, fchownat};
use serde_json::{Value, json};

use crate::agent::Home;
use crate::error::{Error, Result};
use crate::format::{Format, Shape};
use crate::generate::podman::home;
use crate::layer::{Expected, UnpackOptions, unpack};
use crate::process::Cancel;
use crate::reference::Reference;
use crate::store;
use crate::store::layout::Layout;
use crate::store::skill::{Layer, for_host, instances, mountable};
use crate::store::storage::Storage;
use crate::store::storage_layer::Loaded;
use crate::store::unpacked::{self, Cache, Label};
use place::Place;
use policy::Policy;
use request::{Mode, Request, Wanted};
use rootfs::Rootfs;
use spec::{Mount, Spec, User};

/// Our directory of root.
pub const SYSTEM_DATA: &str = "/var/lib/skillctl";
/// The store of an image of the operating system, searched after the writable one.
pub const SYSTEM_STORE: &str = "/usr/lib/skillctl/store";
/// How long a hook may take, in seconds: unpacking the largest skill takes some ten.
const TIMEOUT: u64 = 120;
/// Where skills are mounted unless an agent or a path is named.
const MOUNT_ROOT: &str = "/skills";

/// What the shell gives: it alone opens absolute paths.
pub struct Host {
    /// The store, where it was named.
    pub store: Option<PathBuf>,
    /// This program.
    pub program: PathBuf,
    /// The policy, where there is one.
    pub policy: Option<Policy>,
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
    /// The tree.
    pub source: PathBuf,
    /// Where it is mounted.
    pub destination: String,
    /// Whether a tree that was altered was made anew for it.
    pub repaired: bool,
}

/// Adds the skills that a container asks for to its configuration. Returns it and what was added.
///
/// # Errors
/// If it asks for something that it may not have, or that is not here, or that has no place in it. Nothing is mounted then.
pub fn precreate(text: &str, host: &Host) -> Result<(String, Vec<Bound>)> {
    let spec = Spec::parse(text)?;
    let Some(request) = Request::of(&spec)? else { return Ok((text.to_owned(), Vec::new())) };
    if let Some(policy) = &host.policy {
        policy.check_request(&request.skills)?;
    }
    let place = Place::of(&spec, host.cwd.as_deref());
    check_origin(&spec, place.as_ref(), host)?;
    let stores = Stores::of(place.as_ref(), host)?;
    let existing = spec.mounts()?;
    let path = place.map_or(Ok(spec.root().into()), |place| place.root(&spec, host.open))?;
    let root = (host.open)(&path).map(Rootfs::new).map_err(Error::io(path.display().to_string()))?;
    let below = below(&spec, &request, &root)?;
    let mut bound: Vec<Bound> = Vec::new();
    for wanted in &request.skills {
        let skill = stores.find(wanted, host)?;
        let destination = wanted.destination.clone().unwrap_or_else(|| format!("{below}/{}", skill.name));
        request::check(&destination)?;
        if existing.iter().chain(&taken(&bound)).any(|mount| mount.destination.trim_end_matches('/') == destination) {
            let reason =
                format!("{}: something is mounted at {destination} in the container already", wanted.reference);
            return Err(Error::Unavailable { reason, hint: None });
        }
        let tree = match request.mode {
            Mode::Bind => {
                make_place(&spec, &existing, (&root, host), &destination)?;
                stores.tree(skill, host)?
            }
            // Written when the root file system is as the container will see it.
            Mode::Extract => Bound { digest: skill.digest, ..Bound::default() },
        };
        bound.push(Bound { reference: wanted.reference.to_string(), destination, ..tree });
    }
    let (mounts, hook) = match request.mode {
        Mode::Bind => (bound.iter().map(mount).collect(), None),
        Mode::Extract => (Vec::new(), Some(own_hook(host))),
    };
    Ok((spec.with(&mounts, (is_ours, hook))?, bound))
}

fn mount(bound: &Bound) -> Value {
    spec::bind(&bound.source.display().to_string(), &bound.destination)
}

/// Returns our createContainer hook: podman has left it out, since precreate is its namesake.
fn own_hook(host: &Host) -> Value {
    let env: Vec<String> = host.store.iter().map(|store| format!("SKILLCTL_STORE={}", store.display())).collect();
    json!({"path": host.program, "args": ["skillctl", "hook", "createContainer"], "env": env, "timeout": TIMEOUT})
}

fn taken(bound: &[Bound]) -> Vec<Mount> {
    bound
        .iter()
        .map(|bound| Mount { destination: bound.destination.clone(), source: None, options: Vec::new() })
        .collect()
}

/// Returns whether a createContainer hook is ours: what precreate has done must not be done twice.
fn is_ours(hook: &Value) -> bool {
    let args: Vec<&str> = hook["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    hook["path"].as_str().is_some_and(|path| path.ends_with("/skillctl")) && args.get(1..2) == Some(&["hook"])
}

/// Refuses what the container's image asks for: podman before 4.5.1 gives an image's annotations to the container, and an
/// image must not choose what of this host it sees.
fn check_origin(spec: &Spec<'_>, place: Option<&Place>, host: &Host) -> Result<()> {
    let Some(place) = place.filter(|place| !place.keeps_annotations_apart()) else { return Ok(()) };
    let Some((storage, container)) = place.container(host.open)? else { return Ok(()) };
    let annotations = storage.annotations_of(&container)?;
    for key in [request::SKILLS, request::TARGET, request::MODE] {
        let Some(value) = spec.annotation(key) else { continue };
        if annotations.get(key).is_some_and(|own| own.trim() == value) {
            let reason = format!("the annotation {key} is that of the container's image, which may not choose skills");
            return Err(Error::Unavailable { reason, hint: None });
        }
    }
    Ok(())
}

/// Returns the directory that skills go to which have no place of their own.
fn below(spec: &Spec<'_>, request: &Request, root: &Rootfs) -> Result<String> {
    let Some(agent) = request.agent else { return Ok(MOUNT_ROOT.into()) };
    let from_passwd = || home(&spec.user().uid.to_string(), &root.passwd().unwrap_or_default()).0;
    let home = spec.variable("HOME").filter(|home| home.starts_with('/')).map_or_else(from_passwd, str::to_owned);
    let dir = agent.user_dir(Home::plain(Path::new(&home))).ok_or_else(|| {
        let reason = format!("{} looks for skills in projects only: name the place as REFERENCE=/PATH", agent.name);
        Error::Unavailable { reason, hint: None }
    })?;
    Ok(dir.display().to_string())
}

/// Makes the directories that a skill is mounted at, as the container's user: the runtime would make them as root. Where
/// something is mounted on the way, they are made in there if it is a directory of the host that the container may write to.
fn make_place(spec: &Spec<'_>, mounts: &[Mount], (root, host): (&Rootfs, &Host), destination: &str) -> Result<()> {
    let rest = |mount: &&Mount| {
        destination.strip_prefix(mount.destination.trim_end_matches('/')).filter(|rest| rest.starts_with('/'))
    };
    let covering = mounts.iter().filter(|mount| mount.destination != "/" && rest(mount).is_some());
    let user = spec.host_user()?;
    let Some(mount) = covering.max_by_key(|mount| mount.destination.len()) else {
        return root.make_directories(destination, user);
    };
    match (&mount.source, rest(&mount)) {
        (Some(source), Some(rest)) if mount.is_writable_bind() => match (host.open)(Path::new(source)) {
            Ok(dir) => Rootfs::new(dir).make_directories(rest, user),
            // The runtime says what is wrong with it.
            Err(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Where skills are looked for and unpacked.
struct Stores {
    stores: Vec<Layout>,
    /// Searched last: it has no tags of its own for the states of one content.
    storage: Option<Storage>,
    cache: PathBuf,
}

/// A skill that was found.
struct Skill<'a> {
    name: String,
    digest: String,
    expected: Expected,
    archive: Archive<'a>,
}

/// Where its layer is read from.
enum Archive<'a> {
    Store(&'a Layout, Box<Layer>),
    Storage(Box<Loaded>),
}

impl Archive<'_> {
    fn open(&self) -> Result<Box<dyn Read + Send>> {
        match self {
            Self::Store(layout, layer) => layer.open(layout),
            Self::Storage(loaded) => loaded.open(),
        }
    }
}

impl Stores {
    fn of(place: Option<&Place>, host: &Host) -> Result<Self> {
        let own = host.store.clone().or_else(|| Some(place?.data()?.join("store")));
        let own = own.unwrap_or_else(|| Path::new(SYSTEM_DATA).join("store"));
        let mut stores = Vec::new();
        for path in [own.as_path(), Path::new(SYSTEM_STORE)] {
            match (host.open)(path) {
                Ok(dir) => stores.push(Layout::open(dir, path)?),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io(path.display().to_string())(e)),
            }
        }
        let storage = place.map(|place| place.storage(host.open));
        Ok(Self { stores, storage, cache: unpacked::path(&own) })
    }

    fn find(&self, wanted: &Wanted, host: &Host) -> Result<Skill<'_>> {
        let text = wanted.reference.to_string();
        for layout in &self.stores {
            let found = match store::open(layout, &text) {
                Err(Error::ImageNotFound(_)) => continue,
                found => found?,
            };
            if let Some(policy) = &host.policy {
                policy.check_state(wanted, Some(&found.info))?;
            }
            let instance = for_host(instances(layout, &found.entry.descriptor)?)?;
            let name = found.info.skill_name().or(instance.image.skill_name()).unwrap_or(wanted.reference.basename());
            let layer = mountable(layout, &instance, &text)?;
            return Ok(Skill {
                name: name.to_owned(),
                digest: found.entry.digest().to_owned(),
                expected: layer.expected.clone(),
                archive: Archive::Store(layout, Box::new(layer)),
            });
        }
        self.find_loaded(wanted, host)?.ok_or(Error::ImageNotFound(text))
    }

    /// Finds what only containers-storage has. A tag says nothing there of the state, which may be that of another tag with
    /// the same content.
    fn find_loaded(&self, wanted: &Wanted, host: &Host) -> Result<Option<Skill<'static>>> {
        let Some(storage) = &self.storage else { return Ok(None) };
        let name = wanted.reference.in_storage();
        let pinned = wanted.reference.digest().map(|digest| wanted.reference.with_digest(digest)).transpose()?;
        let key = pinned.as_ref().map_or(name, Reference::in_storage);
        let Some(loaded) = storage.loaded(&storage.images()?, &key)? else { return Ok(None) };
        if let Some(policy) = &host.policy {
            policy.check_state(wanted, Some(&loaded.info).filter(|_| pinned.is_some()))?;
        }
        let is_skill = Format::of(&loaded.info, &key)?.shape == Shape::Own;
        if !is_skill {
            let hint = Some("skillctl convert makes one of it".into());
            return Err(Error::Unavailable { reason: format!("{key} is not a skill image"), hint });
        }
        Ok(Some(Skill {
            name: loaded.info.skill_name().unwrap_or(wanted.reference.basename()).to_owned(),
            digest: loaded.digest.clone(),
            expected: loaded.expected.clone(),
            archive: Archive::Storage(Box::new(loaded)),
        }))
    }

    fn tree(&self, skill: Skill<'_>, host: &Host) -> Result<Bound> {
        let dir = (host.make)(&self.cache).map_err(Error::io(self.cache.display().to_string()))?;
        let cache = Cache::new(dir, &self.cache, host.cancel.clone()).labelled(host.label);
        let tree = cache.tree(&skill.expected, &|| skill.archive.open(), &options(host))?;
        Ok(Bound { digest: skill.digest, source: tree.path, repaired: tree.replaced, ..Bound::default() })
    }

    /// Writes a skill into a root file system, as its user's; `None` where something is there already, which is the
    /// container's own since it was started before. Returns the digest of the manifest.
    fn extract(
        &self,
        skill: Skill<'_>,
        (root, user): (&Rootfs, User),
        destination: &str,
        host: &Host,
    ) -> Result<Option<String>> {
        let (parent, name) = destination.rsplit_once('/').unwrap_or(("", destination));
        if !parent.is_empty() {
            root.make_directories(parent, user)?;
        }
        let dir = root.dir(if parent.is_empty() { "/" } else { parent })?;
        if dir.symlink_metadata(name).is_ok() {
            return Ok(None);
        }
        let options = options(host);
        unpack(skill.archive.open()?, &skill.expected, &dir, name, &options)?;
        own(&dir, name, user).map_err(Error::io(format!("{destination} in the container")))?;
        Ok(Some(skill.digest))
    }
}

fn options(host: &Host) -> UnpackOptions<'static> {
    let mut options = UnpackOptions::default();
    if let Some(most) = host.policy.as_ref().and_then(|policy| policy.max_bytes) {
        options.limits.size = options.limits.size.min(most);
    }
    options
}

/// Gives a directory and all that is in it to a user; no link is followed.
fn own(dir: &Dir, name: &str, user: User) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)));
    fchownat(dir, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if dir.symlink_metadata(name)?.is_dir() {
        let dir = dir.open_dir(name)?;
        for entry in dir.entries()? {
            let name = entry?.file_name();
            own(&dir, name.to_str().ok_or(io::ErrorKind::InvalidData)?, user)?;
        }
    }
    Ok(())
}
