//! Loading an image of the store into containers-storage.
//!
//! skopeo copies it from a private layout that shares the store's blobs, then the records
//! are read again: only a name that is there with the manifest is loaded.
//!
//! Locks: containers/storage takes its own, in skopeo; none is taken here. While another process holds one, skopeo waits
//! without a word, so it is ended after a time, and the kernel is asked who was in the way.
//!
//! Crash: the private layout is left behind, for `prune`. containers/storage adds a name last, so an image is loaded
//! or it is not; a layer without image is garbage of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cap_std::fs::Dir;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use oci_spec::image::Descriptor;

use crate::error::{Error, Result};
use crate::image::Platform;
use crate::process::{End, Output, Process, Tools, Version, version};
use crate::store::blob::total_size;
use crate::store::private::PrivateLayout;
use crate::store::storage::Storage;
use crate::store::storage_conf::Driver;
use crate::store::storage_images::{Images, LoadState};
use crate::store::storage_source::{Parts, check_loadable, check_name};

/// How long storage that another process has locked is waited for, unless `--load-timeout` says otherwise.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What to do about a lock.
const LOCKED_HINT: &str = "wait for it to end, or wait longer with --load-timeout";
/// Added to the timeout per byte of packed layer, so that large images are not taken for a lock: slower than any disk.
const SLOWEST: u64 = 1 << 20;
/// What skopeo must be: the first version with all that we use, and the oldest tested with.
pub const OLDEST_SKOPEO: Version = (1, 6, 0);

/// An image of the store that is to be loaded.
#[derive(Debug)]
pub struct Load<'a> {
    /// The store, which may be one that is only read.
    pub store: &'a Dir,
    /// Its absolute path, for skopeo.
    pub store_path: &'a Path,
    /// The store in which the private layout is made, and its absolute path.
    pub work: (&'a Dir, &'a Path),
    /// The manifest, whose blobs are in the store; also of an index, of which skopeo takes the host's instance.
    pub manifest: &'a Descriptor,
    /// The fully qualified name: `localhost/acme/hr:1.0.0`.
    pub name: &'a str,
    /// Which image of an index is taken; by default the host's.
    pub platform: Option<&'a Platform>,
    /// How long locked storage is waited for; see [`LOAD_TIMEOUT`].
    pub timeout: Duration,
}

/// What a load did.
#[derive(Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image's ID.
    pub image_id: String,
    /// Whether it was there already, so that nothing was done.
    pub already: bool,
    /// ID of the image that the name stood for before, when that was left without name and removed.
    pub removed: Option<String>,
    /// What a debug log should say.
    pub notes: Vec<String>,
}

impl Storage {
    /// Loads an image of the store under a name, and confirms that it is there.
    ///
    /// Call [`Self::ask_podman`] before where [`Self::driver`] is unknown and there are images: skopeo might choose
    /// another driver than podman uses.
    ///
    /// A record of ours that loses its last name by this is removed, unless it is in use.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] with a hint when containers-storage cannot take it: skopeo is missing or too old,
    /// policy.json rejects it, the storage is locked for too long, or its media types are not those of an image.
    /// [`Error::Damaged`] when the store's bytes are not what their digests say.
    pub fn load(&self, load: &Load<'_>, tools: &Tools) -> Result<Loaded> {
        check_name(load.name)?;
        let digest = load.manifest.digest().to_string();
        let parts = check_loadable(load, &digest)?;
        let before = self.images()?;
        if before.load_state(load.name, &digest) == LoadState::Yes {
            let image_id = before.by_name(load.name).map(|i| i.id.clone()).unwrap_or_default();
            return Ok(Loaded { image_id, already: true, removed: None, notes: Vec::new() });
        }
        let layout = PrivateLayout::of(load.work.0, load.work.1, load.manifest)?;
        let mut copy = tools.skopeo();
        if let Some(platform) = load.platform {
            copy = copy.args(overrides(platform));
        }
        let copy = copy.arg("copy").arg("--src-shared-blob-dir").arg(load.store_path.join("blobs"));
        let copy = self.for_skopeo(copy.arg(layout.reference()), load.name)?;
        // A manifest can claim any size; no layer is larger than all blobs that are there.
        let bytes = parts.layer_bytes().min(total_size(load.store).unwrap_or(0));
        let timeout = load.timeout.saturating_add(Duration::from_secs(bytes / SLOWEST));
        let output = copy.timeout(timeout).output()?;
        drop(layout);
        if !output.success() {
            return Err(self.explain(&output, load, &parts, tools));
        }
        let after = self.images_after_load(load.name)?;
        if after.load_state(load.name, &digest) != LoadState::Yes {
            return Err(self.elsewhere(load.name, "loaded into"));
        }
        let image_id = after.by_name(load.name).map(|i| i.id.clone()).unwrap_or_default();
        let mut loaded = Loaded { image_id, already: false, removed: None, notes: Vec::new() };
        if let Some(old) = before.by_name(load.name).filter(|old| !old.read_only && old.id != loaded.image_id) {
            match self.remove_orphan(old, &after, tools) {
                Ok(()) => loaded.removed = Some(old.id.clone()),
                Err(why) => loaded.notes.push(format!("kept the image {} that had this name: {why}", old.short_id())),
            }
        }
        Ok(loaded)
    }

    /// Adds the destination to a skopeo command, and the driver where skopeo might guess another than podman uses.
    pub(super) fn for_skopeo(&self, process: Process, name: &str) -> Result<Process> {
        let driver = self.driver()?;
        let process = process.arg(self.skopeo_reference(name)?);
        Ok(match driver.name() {
            Some(driver) if self.conf().flags.is_empty() => process.env("STORAGE_DRIVER", driver),
            _ => process,
        })
    }

    /// Returns `containers-storage:NAME`, with the store spelled out when flags named it.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] for a path that cannot be spelled.
    pub fn skopeo_reference(&self, name: &str) -> Result<String> {
        let conf = self.conf();
        if conf.flags.is_empty() {
            return Ok(format!("containers-storage:{name}"));
        }
        let (root, run) = (conf.graph_root.display().to_string(), conf.run_root.display().to_string());
        if let Some(path) = [&root, &run].into_iter().find(|p| p.contains(['[', ']', '@', '+', ':', ','])) {
            let reason = format!("{path}: skopeo cannot be given a storage path with one of []@+:, in it");
            return Err(Error::Unavailable { reason, hint: None });
        }
        let driver = self.driver()?;
        let additional = conf.additional.iter().filter(|_| driver == Driver::Overlay);
        let options: Vec<_> = additional.map(|p| format!("overlay.imagestore={}", p.display())).collect();
        let options = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
        let driver = driver.name().map(|d| format!("{d}@")).unwrap_or_default();
        Ok(format!("containers-storage:[{driver}{root}+{run}{options}]{name}"))
    }

    /// Reads what is there after a load, which may have been the first and so have decided the driver.
    fn images_after_load(&self, name: &str) -> Result<Images> {
        if self.driver()? != Driver::Unknown {
            return self.images();
        }
        for driver in self.drivers_on_disk()? {
            let images = self.images_of(&driver)?;
            if images.by_name(name).is_some() {
                return Ok(images);
            }
        }
        Err(self.elsewhere(name, "loaded into"))
    }

    /// Returns the error for a change that another storage must have got; `change` names it, such as `loaded into`.
    pub(super) fn elsewhere(&self, name: &str, change: &str) -> Error {
        Error::Unavailable {
            reason: format!("{name} was not {change} {}", self.conf().graph_root.display()),
            hint: Some("podman info --format '{{json .Store}}' shows where containers-storage is".into()),
        }
    }

    fn explain(&self, output: &Output, load: &Load<'_>, parts: &Parts, tools: &Tools) -> Error {
        let said = output.reason();
        if let Some(error) = self.locked(output, LOCKED_HINT) {
            return error;
        }
        if !parts.manifests.is_empty() && said.contains("no image found in") {
            let reason = format!("it has no image for this host, only for {}", parts.platforms());
            let hint = parts.first_platform().map(|first| format!("skillctl load --platform {first} {}", load.name));
            return Error::Unavailable { reason, hint };
        }
        if said.contains("rejected by policy") || said.contains("Source image rejected") {
            return self.rejected(load);
        }
        if said.contains("Digest did not match") || said.contains("does not match expected digest") {
            let object = format!("a blob of {} in the store", load.manifest.digest());
            return Error::Damaged { object, reason: said };
        }
        if output.end != End::Cancelled
            && let Some(found) = version(&tools.skopeo())
            && found < OLDEST_SKOPEO
        {
            let ((major, minor, _), (least_major, least_minor, _)) = (found, OLDEST_SKOPEO);
            let reason =
                format!("skopeo is {major}.{minor}, and {least_major}.{least_minor} or newer is needed: {said}");
            let hint = format!("install skopeo {least_major}.{least_minor} or newer");
            return Error::Unavailable { reason, hint: Some(hint) };
        }
        Error::Unavailable { reason: said, hint: None }
    }

    /// Returns the error for a program that waited for a lock in vain.
    pub(super) fn locked(&self, output: &Output, hint: &str) -> Option<Error> {
        let End::TimedOut(after) = output.end else {
            return None;
        };
        let by = match self.lock_holder()? {
            pid if pid > 0 => format!("process {pid}"),
            _ => "another process".to_owned(),
        };
        let waited = after.as_secs();
        Some(Error::Unavailable {
            reason: format!("containers-storage is locked by {by} (waited {waited} s)"),
            hint: Some(hint.to_owned()),
        })
    }

    /// Returns the process that has one of the storage's locks, as far as the kernel says: -1 for one it does not name.
    pub fn lock_holder(&self) -> Option<i32> {
        let dir = self.open_optional(&self.conf().graph_root).ok()??;
        let drivers = self.drivers_on_disk().ok()?;
        let per_driver =
            drivers.iter().flat_map(|d| [format!("{d}-layers/layers.lock"), format!("{d}-images/images.lock")]);
        per_driver.chain(["storage.lock".to_owned()]).find_map(|path| holder(&dir, &path))
    }

    fn rejected(&self, load: &Load<'_>) -> Error {
        let exists = |d: &&PathBuf| self.open_optional(d).ok().flatten().is_some_and(|d| d.is_file("policy.json"));
        let dirs = &self.conf().policy_dirs;
        let file = dirs.iter().find(exists).or(dirs.last()).map(|d| d.join("policy.json")).unwrap_or_default();
        let scope = resolved(load.work.0).unwrap_or_else(|| load.work.1.to_owned());
        let entry = serde_json::json!({ scope.to_string_lossy(): [{ "type": "insecureAcceptAnything" }] });
        Error::Unavailable {
            reason: format!("{} rejects images of the store {}", file.display(), scope.display()),
            hint: Some(format!("add to \"transports\" in {}: \"oci\": {entry}", file.display())),
        }
    }
}

/// Returns the flags by which skopeo selects an image of an index.
fn overrides(platform: &Platform) -> Vec<String> {
    let flag = |name: &str, value: &str| format!("--override-{name}={value}");
    let mut flags = vec![flag("os", platform.os()), flag("arch", platform.architecture())];
    flags.extend(platform.variant().map(|variant| flag("variant", variant)));
    flags
}

/// Returns the path that containers/image will see: without symbolic links, as policy scopes must be.
fn resolved(dir: &Dir) -> Option<PathBuf> {
    use std::os::fd::AsRawFd as _;
    std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).ok()
}

/// Asks the kernel who has a lock on a file that would be in the way of a writer.
fn holder(dir: &Dir, path: &str) -> Option<i32> {
    let file = dir.open(path).ok()?;
    let (l_type, l_whence) = (i16::try_from(libc::F_WRLCK).ok()?, i16::try_from(libc::SEEK_SET).ok()?);
    let mut lock = libc::flock { l_type, l_whence, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).ok()?;
    (i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "storage_load_tests.rs"]
mod tests;
