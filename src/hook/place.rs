//! Where a container is on this host, and with it the storage, the store and the cache.
//!
//! ```text
//! G/overlay/<layer>/merged, G/vfs/dir/<layer>     its root file system, in the graph root G
//! G/overlay-containers/<id>/userdata              its bundle: podman 4.7 and newer start hooks in it
//! X/skillctl/store, X/skillctl/unpacked           where G is X/containers/storage
//! ```
//!
//! With a user namespace podman 5 names a place at which it mounts the root file system later, below /var/tmp; then its bundle says
//! where it is now.

use std::path::{Path, PathBuf};

use super::spec::Spec;
use crate::error::Result;
use crate::store::storage::{OpenDir, Storage};
use crate::store::storage_conf::{Driver, StorageConf};
use crate::store::storage_containers::Container;

/// The storage that a container is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    graph_root: PathBuf,
    driver: Driver,
    /// The container's ID, where it can be told.
    id: Option<String>,
    /// Whether the root file system is not yet where the configuration has it.
    moved: bool,
    /// Whether podman started the hook in the container's bundle, as from 4.7 on.
    in_bundle: bool,
}

impl Place {
    /// Finds it from the configuration and the working directory.
    pub fn of(spec: &Spec<'_>, cwd: Option<&Path>) -> Option<Self> {
        // podman gives several files of the bundle to every container; an image can hide some of them by volumes of its own.
        let mounts = spec.mounts().unwrap_or_default();
        let sources = mounts.iter().filter_map(|mount| mount.source.as_deref());
        let ids: Vec<String> =
            sources.filter_map(|source| bundle(Path::new(source).parent()?)).map(|found| found.2).collect();
        // Elsewhere the working directory is that of whoever called podman, which may be anywhere.
        let cwd = cwd.and_then(bundle).filter(|(_, _, own)| ids.contains(own));
        let in_bundle = cwd.is_some();
        let id = cwd.as_ref().map(|(_, _, id)| id.clone()).or_else(|| ids.into_iter().next());
        if let Some((graph_root, driver)) = root(Path::new(spec.root())) {
            return Some(Self { graph_root, driver, id, moved: false, in_bundle });
        }
        let (graph_root, driver, _) = cwd?;
        Some(Self { graph_root, driver, id, moved: true, in_bundle })
    }

    /// Returns our directory beside the storage, where that has the usual name.
    pub fn data(&self) -> Option<PathBuf> {
        let containers = self.graph_root.parent()?;
        let usual = self.graph_root.ends_with("containers/storage");
        usual.then(|| containers.parent().map(|data| data.join("skillctl"))).flatten()
    }

    /// Returns whether the podman is one that keeps the annotations of an image from its containers: 4.5.1 and newer do,
    /// and those from 4.7 on can be told.
    pub fn keeps_annotations_apart(&self) -> bool {
        self.in_bundle
    }

    /// Finds it for a runtime, which says where the bundle is.
    pub fn of_bundle(spec: &Spec<'_>, path: &Path) -> Option<Self> {
        let own = Self::at(path);
        let Some((graph_root, driver)) = root(Path::new(spec.root())) else { return own };
        let id = own.and_then(|own| own.id);
        Some(Self { graph_root, driver, id, moved: false, in_bundle: false })
    }

    /// Finds it by the bundle alone.
    pub fn at(path: &Path) -> Option<Self> {
        let (graph_root, driver, id) = bundle(path)?;
        Some(Self { graph_root, driver, id: Some(id), moved: false, in_bundle: false })
    }

    /// Returns the container's ID, where it can be told.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns whether it is known which container it is.
    pub fn has_container(&self) -> bool {
        self.id.is_some()
    }

    /// Returns the storage that the container is in.
    pub fn storage(&self, open: fn(&Path) -> std::io::Result<cap_std::fs::Dir>) -> Storage {
        let open: OpenDir = Box::new(open);
        Storage::new(StorageConf::at(self.graph_root.clone(), self.driver.clone()), open)
    }

    /// Returns the storage and the container in it, where it is known.
    ///
    /// # Errors
    /// If the storage cannot be read.
    pub fn container(
        &self,
        open: fn(&Path) -> std::io::Result<cap_std::fs::Dir>,
    ) -> Result<Option<(Storage, Container)>> {
        let Some(id) = &self.id else { return Ok(None) };
        let storage = self.storage(open);
        Ok(storage.container(id)?.map(|container| (storage, container)))
    }

    /// Returns where the root file system is now, as `spec` has it unless it is moved later.
    ///
    /// # Errors
    /// As [`Self::container`].
    pub fn root(&self, spec: &Spec<'_>, open: fn(&Path) -> std::io::Result<cap_std::fs::Dir>) -> Result<PathBuf> {
        let now = match self.container(open)?.filter(|_| self.moved) {
            Some((storage, container)) => storage.mounted_at(&container)?,
            None => None,
        };
        Ok(now.unwrap_or_else(|| spec.root().into()))
    }
}

/// Reads `G/overlay/<layer>/merged` and `G/vfs/dir/<layer>`.
fn root(path: &Path) -> Option<(PathBuf, Driver)> {
    let (parent, driver) = (path.parent()?, path.parent()?.parent()?);
    match (path.ends_with("merged"), driver.file_name()?.to_str()?, parent.file_name()?.to_str()?) {
        (true, "overlay", _) => Some((driver.parent()?.to_owned(), Driver::Overlay)),
        (_, "vfs", "dir") => Some((driver.parent()?.to_owned(), Driver::Vfs)),
        _ => None,
    }
}

/// Reads `G/<driver>-containers/<id>/userdata`.
fn bundle(path: &Path) -> Option<(PathBuf, Driver, String)> {
    let id = path.parent().filter(|_| path.ends_with("userdata"))?;
    let all = id.parent()?;
    let driver = Driver::from_name(all.file_name()?.to_str()?.strip_suffix("-containers")?);
    Some((all.parent()?.to_owned(), driver, id.file_name()?.to_str()?.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn place(root: &str, env: &str, cwd: &str) -> Option<(String, Option<String>, bool)> {
        let mount = serde_json::json!({"destination": "/run/.containerenv", "source": env});
        let text = serde_json::json!({"root": {"path": root}, "mounts": [mount]}).to_string();
        let place = Place::of(&Spec::parse(&text).unwrap(), Some(Path::new(cwd)))?;
        let data = place.data().map(|data| data.display().to_string());
        Some((place.graph_root.display().to_string(), data, place.moved))
    }

    #[test]
    fn storage_is_found_from_the_root_file_system_or_the_bundle() {
        let env = "/run/containers/storage/overlay-containers/abc/userdata/.containerenv";
        let bundle = "/home/u/.local/share/containers/storage/overlay-containers/abc/userdata";
        let foreign = "/tmp/evil/containers/storage/overlay-containers/evil/userdata";
        let later = "/var/tmp/intermediate-mountpoint-1000.0";
        let found = |graph: &str, data: Option<&str>, moved| Some((graph.to_owned(), data.map(str::to_owned), moved));
        let system = found("/var/lib/containers/storage", Some("/var/lib/skillctl"), false);
        let user = found("/home/u/.local/share/containers/storage", Some("/home/u/.local/share/skillctl"), true);
        let cases = [
            ("/var/lib/containers/storage/overlay/x/merged", env, "/", system.clone()),
            ("/var/lib/containers/storage/vfs/dir/x", env, "/", system.clone()),
            ("/var/lib/containers/storage/overlay/x/merged", env, foreign, system),
            ("/data/graph/overlay/x/merged", env, "/", found("/data/graph", None, false)),
            (later, env, bundle, user),
            (later, env, foreign, None),
            (later, env, "/home/u", None),
            (later, "", bundle, None),
            ("/some/rootfs", "", "/", None),
            ("", "", "", None),
        ];
        for (root, env, cwd, want) in cases {
            assert_eq!(place(root, env, cwd), want, "{root} {env} {cwd}");
        }
    }
}
