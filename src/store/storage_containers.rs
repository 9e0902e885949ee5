//! The containers of containers-storage, as far as it is theirs which image each was made of.
//!
//! ```text
//! <graph root>/<driver>-containers/containers.json            records: id, image
//!              <driver>-containers/volatile-containers.json   those that do not outlive a boot (podman run --rm)
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use super::storage::{Storage, read_list};
use crate::error::Result;
use crate::image::Info;

#[derive(Debug, Deserialize)]
struct Record {
    id: String,
    #[serde(default)]
    image: Option<String>,
}

impl Storage {
    /// Returns the annotations in the manifest of a container's image; none where the container has no image, or is not here.
    ///
    /// # Errors
    /// If the lists or the manifest cannot be read.
    pub fn annotations_of_container(&self, id: &str) -> Result<BTreeMap<String, String>> {
        let (root, driver) = (&self.conf().graph_root, self.driver()?);
        let Some(dir) = self.open_optional(root)? else { return Ok(BTreeMap::new()) };
        let mut image = None;
        for list in ["containers.json", "volatile-containers.json"] {
            let records: Vec<Record> = read_list(&dir, root, &format!("{driver}-containers/{list}"))?;
            image = image.or(records.into_iter().find(|record| record.id == id).and_then(|record| record.image));
        }
        let images = self.images()?;
        let record = image.and_then(|image| images.iter().find(|own| own.id == image));
        let Some((record, digest)) = record.and_then(|record| Some((record, record.digest.clone()?))) else {
            return Ok(BTreeMap::new());
        };
        Ok(Info::parse(&self.manifest(record, &digest)?, &digest)?.annotations)
    }
}
