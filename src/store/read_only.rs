//! Stores that are only read, behind the one that is written: those of an image of the operating system, or of a share.
//!
//! Reading goes through: a name or a blob that the first store does not have is looked for in the others, in order. Writing
//! never does, nor does it rely on them: what a store names is in it, and [`Layout::bring`] copies what is to be named. So
//! each of them may be changed, or go, without damage to the first. Nothing is written to them, not even a lock: they may be
//! somebody else's, or on a file system that cannot be written to.

use std::collections::HashSet;
use std::io;

use oci_spec::image::Descriptor;

use super::blob::unwrap_damaged;
use super::layout::{Entry, Layout};
use super::transfer::check_whole;
use crate::error::{Error, Result};
use crate::image::Info;
use crate::reference::Reference;

/// The store of an image of the operating system, which is searched last.
pub const SYSTEM_STORE: &str = "/usr/lib/skillctl/store";

impl Layout {
    /// Makes it one that is only read.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Returns whether it is only read.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Puts it before stores that are only read.
    #[must_use]
    pub fn before(mut self, behind: Vec<Self>) -> Self {
        self.behind = behind;
        self
    }

    /// Returns the store and those behind it.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.behind)
    }

    /// Returns the entries of all stores, each with its own; without those whose name an earlier store has.
    ///
    /// # Errors
    /// As [`Layout::entries`].
    pub fn everywhere(&self) -> Result<Vec<(&Self, Entry)>> {
        let mut all: Vec<(&Self, Entry)> = self.entries()?.into_iter().map(|entry| (self, entry)).collect();
        for store in &self.behind {
            let known: HashSet<String> = all.iter().filter_map(|(_, entry)| whole_name(entry)).collect();
            let shown = |entry: &Entry| whole_name(entry).is_none_or(|name| !known.contains(&name));
            all.extend(store.entries()?.into_iter().filter(shown).map(|entry| (store, entry)));
        }
        Ok(all)
    }

    /// Returns the same without the stores.
    ///
    /// # Errors
    /// As [`Layout::entries`].
    pub fn all_entries(&self) -> Result<Vec<Entry>> {
        Ok(self.everywhere()?.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Returns the first store that has an image whole: other programs are handed the blobs of one.
    pub fn holder(&self, manifest: &Descriptor) -> &Self {
        let has = |digest: &str| self.has(digest);
        match self.behind.is_empty()
            || names(self, manifest).is_ok_and(|all| all.iter().all(|one| has(one.digest().as_ref())))
        {
            true => self,
            false => self.behind.iter().find(|store| check_whole(store, manifest).is_ok()).unwrap_or(self),
        }
    }

    /// Copies what a manifest names, and then the manifest, from the stores behind where only they have it: for an entry of
    /// this one. The caller holds [`Layout::writing`].
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not whole there, or if it cannot be written here.
    pub fn bring(&self, manifest: &Descriptor) -> Result<()> {
        if self.behind.is_empty() {
            return Ok(());
        }
        for blob in names(self, manifest)?.iter().filter(|blob| !self.has(blob.digest().as_ref())) {
            let mut from = self.open_blob(blob)?;
            let object = from.object.clone();
            let mut to = self.blob()?;
            io::copy(&mut from, &mut to).map_err(|e| unwrap_damaged(e, &object))?;
            to.commit(blob.digest().as_ref())?;
        }
        Ok(())
    }

    /// Refuses to write to a store that is only read.
    pub(super) fn check_writable(&self) -> Result<()> {
        match self.read_only {
            true => Err(Error::Unavailable {
                reason: format!("{} is a read-only store", self.path().display()),
                hint: None,
            }),
            false => Ok(()),
        }
    }
}

/// Returns the name of an entry as every spelling of it is.
fn whole_name(entry: &Entry) -> Option<String> {
    let name = entry.name.as_deref()?;
    Some(name.parse::<Reference>().map_or_else(|_| name.to_owned(), |name| name.or_latest().to_string()))
}

/// Returns all blobs of an image, or of all images of an index, and last the manifest itself.
pub(super) fn names(layout: &Layout, manifest: &Descriptor) -> Result<Vec<Descriptor>> {
    check_whole(layout, manifest)?;
    let info = |one: &Descriptor| Info::parse(&layout.read_json(one)?, one.digest().as_ref());
    let mut all = Vec::new();
    let top = info(manifest)?;
    for (one, own) in top.instances.iter().map(|one| Ok((one, info(one)?))).collect::<Result<Vec<_>>>()? {
        all.extend(own.layers.into_iter().chain(own.config).chain([one.clone()]));
    }
    all.extend(top.layers.into_iter().chain(top.config).chain([manifest.clone()]));
    Ok(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use cap_std::ambient_authority;
    use cap_std::fs::Dir;
    use serde_json::json;

    use super::*;

    /// Makes a store in a directory of its own.
    fn store(temp: &tempfile::TempDir, name: &str) -> Layout {
        let path = temp.path().join(name);
        std::fs::create_dir(&path).unwrap();
        Layout::ensure(Dir::open_ambient_dir(&path, ambient_authority()).unwrap(), &path).unwrap()
    }

    /// Writes an image, in the order of [`names`], and returns its manifest.
    fn image(layout: &Layout) -> Descriptor {
        let blob = |media_type: &str, bytes: &[u8]| {
            let digest = layout.write_blob(bytes).unwrap();
            json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
        };
        let layer = blob("application/vnd.oci.image.layer.v1.tar+gzip", b"layer");
        let config = blob("application/vnd.oci.image.config.v1+json", b"{}");
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
        let manifest = blob("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
        layout.set("acme/hr:1.0.0", &manifest).unwrap();
        serde_json::from_value(manifest).unwrap()
    }

    #[test]
    fn an_image_is_read_from_the_store_that_has_it_whole_and_brought_from_there() {
        // Which of layer, config and manifest the first store has.
        let cases = [
            ([false, false, false], "behind"),
            ([false, false, true], "behind"),
            ([true, true, false], "behind"),
            ([true, true, true], "own"),
        ];
        for (has, holder) in cases {
            let temp = tempfile::tempdir().unwrap();
            let (own, behind) = (store(&temp, "own"), store(&temp, "behind"));
            let manifest = image(&behind);
            let all = names(&behind, &manifest).unwrap();
            for (blob, _) in all.iter().zip(has).filter(|(_, has)| *has) {
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut behind.open_blob(blob).unwrap(), &mut bytes).unwrap();
                own.write_blob(&bytes).unwrap();
            }
            let own = own.before(vec![behind.read_only()]);
            assert_eq!(own.holder(&manifest).path(), temp.path().join(holder), "{has:?}");
            let found = crate::store::open(&own, "acme/hr:1.0.0").unwrap();
            assert_eq!(found.entry.digest(), manifest.digest().as_ref());
            let _writing = own.writing().unwrap();
            own.bring(&manifest).unwrap();
            assert_eq!(own.holder(&manifest).path(), temp.path().join("own"), "{has:?}");
            assert!(all.iter().all(|blob| own.has_whole(blob)), "{has:?}");
            assert_eq!((own.entries().unwrap().len(), own.all_entries().unwrap().len()), (0, 1), "no name is brought");
        }
    }

    #[test]
    fn nothing_is_written_to_a_store_that_is_only_read() {
        let temp = tempfile::tempdir().unwrap();
        let layout = store(&temp, "behind");
        let manifest = json!({"digest": image(&layout).digest()});
        let layout = layout.read_only();
        let reason = format!("{} is a read-only store", layout.path().display());
        let attempts = [
            layout.writing().map(drop),
            layout.changing().map(drop),
            layout.sweeping().map(drop),
            layout.write_blob(b"blob").map(drop),
            layout.scratch().map(drop),
            layout.set("acme/hr:2", &manifest),
        ];
        assert_eq!(attempts.map(|done| done.unwrap_err().to_string()), [(); 6].map(|()| reason.clone()));
    }

    #[test]
    fn a_name_that_an_earlier_store_has_hides_later_ones() {
        let temp = tempfile::tempdir().unwrap();
        let (own, first, second) = (store(&temp, "own"), store(&temp, "first"), store(&temp, "second"));
        for (layout, names) in [(&own, ["a:1", "b"]), (&first, ["localhost/a:1", "c"]), (&second, ["b:latest", "c"])] {
            let manifest = serde_json::to_value(image(layout)).unwrap();
            layout
                .update(|entries| {
                    entries.clear();
                    Ok::<_, Error>(())
                })
                .unwrap();
            names.iter().for_each(|name| layout.set(name, &manifest).unwrap());
        }
        let own = own.before(vec![first.read_only(), second.read_only()]);
        let all = own.everywhere().unwrap();
        let shown = |(store, entry): &(&Layout, Entry)| {
            (store.path().file_name().unwrap().to_str().unwrap().to_owned(), entry.name.clone().unwrap())
        };
        let all: Vec<(String, String)> = all.iter().map(shown).collect();
        let wanted = [("own", "a:1"), ("own", "b"), ("first", "c")];
        assert_eq!(all, wanted.map(|(store, name)| (store.to_owned(), name.to_owned())));
    }
}
