//! The containers of containers-storage: which image each was made of, and where its root file system is.
//!
//! ```text
//! <graph root>/<driver>-containers/containers.json            records: id, image
//!              <driver>-containers/volatile-containers.json   those that do not outlive a boot (podman run --rm)
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::storage::{Storage, read_list};
use super::storage_conf::Driver;
use crate::error::Result;
use crate::image::Info;

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Container {
    /// Its ID.
    pub id: String,
    /// The image that it was made of, where it was made of one.
    #[serde(default)]
    pub image: Option<String>,
    /// Its own layer.
    #[serde(default)]
    pub layer: Option<String>,
}

impl Storage {
    /// Returns the container with an ID; `None` where it is not here.
    ///
    /// # Errors
    /// If the lists cannot be read.
    pub fn container(&self, id: &str) -> Result<Option<Container>> {
        let (root, driver) = (&self.conf().graph_root, self.driver()?);
        let Some(dir) = self.open_optional(root)? else { return Ok(None) };
        for list in ["volatile-containers.json", "containers.json"] {
            let all: Vec<Container> = read_list(&dir, root, &format!("{driver}-containers/{list}"))?;
            if let Some(found) = all.into_iter().find(|container| container.id == id) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Returns where a container's root file system is, while it is mounted.
    ///
    /// # Errors
    /// As [`Self::container`].
    pub fn mounted_at(&self, container: &Container) -> Result<Option<PathBuf>> {
        let root = &self.conf().graph_root;
        let Some(layer) = &container.layer else { return Ok(None) };
        Ok(match self.driver()? {
            Driver::Overlay => Some(root.join("overlay").join(layer).join("merged")),
            Driver::Vfs => Some(root.join("vfs/dir").join(layer)),
            Driver::Other(_) | Driver::Unknown => None,
        })
    }

    /// Returns the annotations of each manifest of a container's image, which may have several; none where it has no image, or
    /// that is gone.
    ///
    /// # Errors
    /// If the lists or a manifest cannot be read.
    pub fn annotations_of(&self, container: &Container) -> Result<Vec<BTreeMap<String, String>>> {
        let images = self.images()?;
        let record = container.image.as_ref().and_then(|image| images.iter().find(|own| own.id == *image));
        let Some(record) = record else { return Ok(Vec::new()) };
        let digests = record.manifest_digests.iter().chain(&record.digest);
        digests.map(|digest| Ok(Info::parse(&self.manifest(record, digest)?, digest)?.annotations)).collect()
    }
}
