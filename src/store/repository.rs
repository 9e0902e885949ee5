//! The manifests and tags of one name, in the store or on a registry: what the life cycle works on.

use oci_spec::image::{Descriptor, MediaType};
use serde_json::Value;

use super::index::take_name;
use super::layout::{Entry, Layout};
use crate::error::{Error, Result};
use crate::image::{Blob, Info, index_entry};
use crate::reference::{Reference, is_digest};

/// A manifest or an index, with its bytes.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// `sha256:…`
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// Its bytes, of which `digest` is the digest.
    pub bytes: Vec<u8>,
    /// What it says.
    pub info: Info,
}

impl Manifest {
    /// Reads a manifest of the given digest.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is neither a manifest nor an index.
    pub fn new(digest: &str, bytes: Vec<u8>) -> Result<Self> {
        let info = Info::parse(&bytes, &format!("manifest {digest}"))?;
        let kind = if info.config.is_some() { MediaType::ImageManifest } else { MediaType::ImageIndex };
        let own = serde_json::from_slice::<Value>(&bytes).ok().and_then(|v| Some(v["mediaType"].as_str()?.to_owned()));
        let media_type = own.unwrap_or_else(|| kind.to_string());
        let says_index = media_type.contains("index") || media_type.contains("manifest.list");
        if says_index == info.config.is_some() {
            return Err(Error::damaged(format!("manifest {digest}"), format!("it calls itself {media_type}")));
        }
        Ok(Self { digest: digest.to_owned(), media_type, bytes, info })
    }

    /// Returns the index entry of it, without a name.
    pub fn entry(&self) -> Value {
        let blob = Blob { digest: self.digest.clone(), size: self.bytes.len() as u64 };
        index_entry(&MediaType::from(self.media_type.as_str()), &blob, &self.info.annotations, self.info.artifact())
    }

    /// Returns the same as a descriptor.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the entry is none.
    pub fn descriptor(&self) -> Result<Descriptor> {
        serde_json::from_value(self.entry()).map_err(|e| Error::damaged(&self.digest, e))
    }
}

/// What became of a tag that was to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Untagged {
    /// It is gone, and the manifests are there.
    Gone,
    /// It is still there, for this reason.
    Remains(String),
}

/// A tag that is to be written.
#[derive(Debug, Clone, Copy)]
pub struct Tag<'a> {
    /// The tag.
    pub name: &'a str,
    /// The digest that it had when that was decided; the store, which can tell, refuses where it has another by now.
    pub held: Option<&'a str>,
}

/// The manifests and tags of one name.
pub trait Repository {
    /// Returns the name with a tag or a digest, for messages.
    ///
    /// # Errors
    /// If `which` is neither.
    fn reference(&self, which: &str) -> Result<Reference>;

    /// Reads what a tag or a digest names, verified; `None` where there is no such.
    ///
    /// # Errors
    /// If that cannot be told.
    fn get(&self, which: &str) -> Result<Option<Manifest>>;

    /// Returns the error for an image that is not there.
    fn missing(&self, reference: &Reference) -> Error;

    /// Returns all tags.
    ///
    /// # Errors
    /// If they cannot be listed.
    fn tags(&self) -> Result<Vec<String>>;

    /// Writes manifests over blobs that are there, images before the index that lists them, and gives the last one a
    /// tag, or none.
    ///
    /// # Errors
    /// If it cannot be written; then no tag has changed.
    fn put(&self, manifests: &[Manifest], tag: Option<Tag<'_>>) -> Result<()>;

    /// Gives a manifest that is there a tag, taking it from another.
    ///
    /// # Errors
    /// If it cannot be written.
    fn tag(&self, manifest: &Manifest, tag: Tag<'_>) -> Result<()>;

    /// Takes a tag away. What it named stays, with its other tags and by digest.
    ///
    /// # Errors
    /// If it cannot be told what became of it.
    fn untag(&self, tag: &str) -> Result<Untagged>;
}

/// One name of the store.
#[derive(Debug)]
pub struct Local<'a> {
    layout: &'a Layout,
    name: Reference,
}

impl<'a> Local<'a> {
    /// Returns the repository of `reference`'s name. The caller holds [`Layout::writing`] while it is changed.
    pub fn new(layout: &'a Layout, reference: &Reference) -> Self {
        Self { layout, name: reference.clone() }
    }

    fn entries(&self) -> Result<Vec<(Reference, Entry)>> {
        let own = |entry: Entry| {
            let reference: Reference = entry.name.as_deref()?.parse().ok()?;
            (reference.name() == self.name.name()).then(|| (reference.or_latest(), entry))
        };
        Ok(self.layout.all_entries()?.into_iter().filter_map(own).collect())
    }

    /// Returns what a tag names in the stores that are only read, whose tags cannot be taken away.
    fn behind(&self, reference: &Reference) -> Result<Option<Entry>> {
        for store in self.layout.all().filter(|store| store.is_read_only()) {
            match super::lookup(store, &reference.to_string()) {
                Err(Error::ImageNotFound(_)) => {}
                found => return found.map(Some),
            }
        }
        Ok(None)
    }
}

/// Returns a reference to `which`, a tag or a digest, of a name.
pub fn refer(name: &Reference, which: &str) -> Result<Reference> {
    if is_digest(which) { name.with_digest(which) } else { name.with_tag(which) }
}

impl Repository for Local<'_> {
    fn reference(&self, which: &str) -> Result<Reference> {
        refer(&self.name, which)
    }

    fn get(&self, which: &str) -> Result<Option<Manifest>> {
        let named = |(reference, entry): (Reference, Entry)| {
            (reference.tag() == Some(which) && reference.digest().is_none()).then_some(entry.descriptor)
        };
        let descriptor = if is_digest(which) {
            // An image of an index has no entry of its own.
            self.layout.describe(which)
        } else {
            self.entries()?.into_iter().find_map(named)
        };
        let read = |descriptor| {
            Manifest::new(&String::from(descriptor_digest(&descriptor)), self.layout.read_json(&descriptor)?)
        };
        descriptor.map(read).transpose()
    }

    fn missing(&self, reference: &Reference) -> Error {
        Error::ImageNotFound(reference.to_string())
    }

    fn tags(&self) -> Result<Vec<String>> {
        let tag = |(reference, _): (Reference, Entry)| reference.tag().map(str::to_owned);
        Ok(self.entries()?.into_iter().filter_map(tag).collect())
    }

    fn put(&self, manifests: &[Manifest], tag: Option<Tag<'_>>) -> Result<()> {
        for manifest in manifests {
            self.layout.write_blob(&manifest.bytes)?;
        }
        let Some(last) = manifests.last() else { return Ok(()) };
        match tag {
            Some(tag) => self.tag(last, tag),
            None => {
                self.layout.bring(&last.descriptor()?)?;
                self.layout.update(|entries| {
                    if !entries.iter().any(|entry| entry["digest"] == last.digest.as_str()) {
                        entries.push(last.entry());
                    }
                    Ok(())
                })
            }
        }
    }

    fn tag(&self, manifest: &Manifest, tag: Tag<'_>) -> Result<()> {
        let reference = self.reference(tag.name)?;
        self.layout.bring(&manifest.descriptor()?)?;
        let behind = self.behind(&reference)?.map(|entry| entry.digest().to_owned());
        self.layout.set_if(&reference.to_string(), &manifest.entry(), |held| {
            let own = held.map(|held| held["digest"].as_str().unwrap_or_default());
            match own.or(behind.as_deref()) == tag.held {
                true => Ok(()),
                false => Err(Error::Unavailable {
                    reason: format!("{reference} was changed meanwhile"),
                    hint: Some("look at it again, and repeat".into()),
                }),
            }
        })
    }

    fn untag(&self, tag: &str) -> Result<Untagged> {
        let reference = self.reference(tag)?;
        if self.behind(&reference)?.is_some() {
            return Ok(Untagged::Remains("a read-only store has it".to_owned()));
        }
        let name = reference.to_string();
        self.layout.update(|entries| {
            take_name(entries, |other| super::layout::same_name(other, &name));
            Ok::<_, Error>(())
        })?;
        Ok(Untagged::Gone)
    }
}

fn descriptor_digest(descriptor: &oci_spec::image::Descriptor) -> &str {
    descriptor.digest().as_ref()
}
