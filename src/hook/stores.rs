//! Where hooks find skills: the stores, then containers-storage; and how they get from there into a container.

use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, OpenOptions};
use nix::fcntl::AtFlags;
use nix::unistd::{Gid, Uid, fchownat};

use super::place::Place;
use super::request::Wanted;
use super::rootfs::Rootfs;
use super::spec::User;
use super::{Bound, Host, SYSTEM_DATA};
use crate::error::{Error, Result};
use crate::format::{Format, Shape};
use crate::layer::{Expected, UnpackOptions, unpack};
use crate::reference::Reference;
use crate::store::layout::{Entry, Layout};
use crate::store::read_only::SYSTEM_STORE;
use crate::store::skill::{Layer, for_host, instances_of, mountable};
use crate::store::storage::Storage;
use crate::store::storage_layer::Loaded;
use crate::store::unpacked::{self, Cache};
use crate::store::{self, Found, trusted};
use crate::trust::check::Verified;
use crate::trust::policy::Policy;

/// From how many skills on the whole index is read once; looking for one entry takes a fifth of that.
const MANY: usize = 4;

/// Where skills are looked for and unpacked.
pub struct Stores<'h> {
    host: &'h Host,
    stores: Vec<Shelf>,
    /// Searched last: it has no tags of its own for the states of one content.
    storage: Option<Storage>,
    trust: Policy,
    cache: PathBuf,
}

/// A store, with its entries where several skills are looked for.
struct Shelf {
    layout: Layout,
    entries: Option<Vec<Entry>>,
}

impl Shelf {
    fn find(&self, text: &str) -> Result<Found> {
        match &self.entries {
            Some(entries) => store::read(&self.layout, store::find(entries, text)?),
            None => store::open(&self.layout, text),
        }
    }
}

/// A skill that was found.
pub struct Skill<'a> {
    /// The name that it has, or its repository.
    pub name: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Who has signed it, where that was asked for.
    pub signers: Vec<String>,
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

impl<'h> Stores<'h> {
    /// Opens those that are here, for a number of skills.
    ///
    /// # Errors
    /// If one is damaged or cannot be opened.
    pub fn of(place: Option<&Place>, skills: usize, host: &'h Host) -> Result<Self> {
        let own = host.store.clone().or_else(|| Some(place?.data()?.join("store")));
        let own = own.unwrap_or_else(|| Path::new(SYSTEM_DATA).join("store"));
        let trust = (host.trust)(place.and_then(Place::data).as_deref());
        let mut stores = Vec::new();
        let added = host.add_stores.iter().map(PathBuf::as_path);
        for path in [own.as_path()].into_iter().chain(added).chain([Path::new(SYSTEM_STORE)]) {
            match (host.open)(path) {
                Ok(dir) => {
                    let Some(layout) = Layout::open_existing(dir, path)? else { continue };
                    // A hook writes nothing to a store, not even who has signed first.
                    let layout = layout.read_only().trusting(trust.clone());
                    let entries = (skills >= MANY).then(|| layout.entries()).transpose()?;
                    stores.push(Shelf { layout, entries });
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io(path.display().to_string())(e)),
            }
        }
        let storage = place.map(|place| place.storage(host.open));
        Ok(Self { host, stores, storage, trust, cache: unpacked::path(&own) })
    }

    /// Returns whether a directory is the tree of a skill.
    pub fn is_tree(&self, path: &Path, skill: &Skill<'_>) -> bool {
        let hex = skill.expected.diff_id.as_deref().and_then(|diff_id| diff_id.strip_prefix("sha256:"));
        hex.is_some_and(|hex| path == self.cache.join(hex))
    }

    /// Finds a skill that the policy allows.
    ///
    /// # Errors
    /// [`Error::ImageNotFound`]; if it is not allowed, damaged, or no skill image.
    pub fn find(&self, wanted: &Wanted) -> Result<Skill<'_>> {
        let text = wanted.reference.to_string();
        // With the tags that there are, of the first store that has some.
        let mut missing = text.clone();
        for shelf in &self.stores {
            let layout = &shelf.layout;
            let found = match shelf.find(&text) {
                Err(Error::ImageNotFound(what)) => {
                    if missing == text {
                        missing = what;
                    }
                    continue;
                }
                found => found?,
            };
            // Without a name it is whatever its digest says; another repository's is not what was allowed.
            if found.entry.name.is_none() && !found.entry.is_of(&wanted.reference) {
                continue;
            }
            if let Some(policy) = &self.host.policy {
                policy.check_state(wanted, Some(&found.info))?;
            }
            let verified = trusted::found(layout, &found, &text, None)?;
            let signers = verified.iter().flat_map(Verified::by).collect();
            let Found { entry, info, .. } = found;
            let named = info.skill_name().map(str::to_owned);
            let instance = for_host(instances_of(layout, info, entry.digest())?)?;
            let own = || instance.image.skill_name().unwrap_or(wanted.reference.basename()).to_owned();
            let layer = mountable(layout, &instance, &text)?;
            return Ok(Skill {
                name: named.unwrap_or_else(own),
                digest: entry.digest().to_owned(),
                signers,
                expected: layer.expected.clone(),
                archive: Archive::Store(layout, Box::new(layer)),
            });
        }
        self.find_loaded(wanted)?.ok_or(Error::ImageNotFound(missing))
    }

    /// Finds what only containers-storage has. A tag says nothing there of the state, which may be that of another tag with
    /// the same content.
    fn find_loaded(&self, wanted: &Wanted) -> Result<Option<Skill<'static>>> {
        let Some(storage) = &self.storage else { return Ok(None) };
        let name = wanted.reference.in_storage();
        let pinned = wanted.reference.digest().map(|digest| wanted.reference.with_digest(digest)).transpose()?;
        let key = pinned.as_ref().map_or(name, Reference::in_storage);
        let Some(loaded) = storage.loaded(&storage.images()?, &key)? else { return Ok(None) };
        if let Some(policy) = &self.host.policy {
            policy.check_state(wanted, Some(&loaded.info).filter(|_| pinned.is_some()))?;
        }
        trusted::only_loaded(&self.trust, &wanted.reference, &loaded.digest)?;
        let is_skill = Format::of(&loaded.info, &key)?.shape == Shape::Own;
        if !is_skill {
            let hint = Some("skillctl convert makes one of it".into());
            return Err(Error::Unavailable { reason: format!("{key} is not a skill image"), hint });
        }
        Ok(Some(Skill {
            name: loaded.info.skill_name().unwrap_or(wanted.reference.basename()).to_owned(),
            digest: loaded.digest.clone(),
            signers: Vec::new(),
            expected: loaded.expected.clone(),
            archive: Archive::Storage(Box::new(loaded)),
        }))
    }

    /// Returns the tree of a skill, made where there is none.
    ///
    /// # Errors
    /// As [`Cache::tree`].
    pub fn tree(&self, skill: Skill<'_>) -> Result<Bound> {
        let dir = (self.host.make)(&self.cache).map_err(Error::io(self.cache.display().to_string()))?;
        let cache = Cache::new(dir, &self.cache, self.host.cancel.clone()).labelled(self.host.label);
        let tree = cache.tree(&skill.expected, &|| skill.archive.open(), &self.options())?;
        Ok(Bound {
            digest: skill.digest,
            signers: skill.signers,
            source: tree.path,
            repaired: tree.replaced,
            ..Bound::default()
        })
    }

    /// Writes a skill into a root file system, as its user's. Where something is there already it has to be what `mark` says
    /// that we wrote when the container was started before: that is the container's own by now.
    ///
    /// # Errors
    /// If something else is there, or it cannot be written.
    pub fn extract(
        &self,
        skill: &Skill<'_>,
        root: &Rootfs,
        (destination, user): (&str, User),
        mark: &Mark,
    ) -> Result<()> {
        let (parent, name) = destination.rsplit_once('/').unwrap_or(("", destination));
        if !parent.is_empty() {
            root.make_directories(parent, user)?;
        }
        let dir = root.dir(if parent.is_empty() { "/" } else { parent })?;
        if dir.symlink_metadata(name).is_ok() {
            return match mark.has(destination) {
                true => Ok(()),
                false => Err(Error::Unavailable {
                    reason: format!("the container has something at {destination} already"),
                    hint: Some("name another place as REFERENCE=/PATH".into()),
                }),
            };
        }
        mark.add(destination)?;
        unpack(skill.archive.open()?, &skill.expected, &dir, name, &self.options())?;
        own(&dir, name, user).map_err(Error::io(format!("{destination} in the container")))
    }

    fn options(&self) -> UnpackOptions<'static> {
        let mut options = UnpackOptions::default();
        if let Some(most) = self.host.policy.as_ref().and_then(|policy| policy.max_bytes) {
            options.limits.size = options.limits.size.min(most);
        }
        options
    }
}

/// A file in the bundle of a container, out of its reach, with the places that we wrote to.
pub struct Mark {
    bundle: Dir,
}

impl Mark {
    const FILE: &str = "skillctl-extracted";

    /// Returns that of a bundle.
    pub fn of(bundle: Dir) -> Self {
        Self { bundle }
    }

    fn has(&self, destination: &str) -> bool {
        let text = self.bundle.read_to_string(Self::FILE).unwrap_or_default();
        text.lines().any(|line| line == destination)
    }

    fn add(&self, destination: &str) -> Result<()> {
        let mut options = OpenOptions::new();
        let file = self.bundle.open_with(Self::FILE, options.append(true).create(true));
        let added = file.and_then(|mut file| writeln!(file, "{destination}"));
        added.map_err(Error::io(Self::FILE))
    }
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
