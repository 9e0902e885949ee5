//! `copy`: an image from any transport to any transport, with its digests.
//!
//! A bare reference is the store's. What containers-storage has is served from the store, where the same image is there:
//! containers-storage keeps no compressed bytes, so anything copied out of it gets another digest.

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::pull::store_as;
use super::{push, tag};
use crate::error::Error;
use crate::reference::{Reference, Transport};
use crate::store;
use crate::store::layout::{Entry, Layout};
use crate::store::private::PrivateLayout;
use crate::store::remote::{Remote, not_found};
use crate::store::repository::Manifest;
use crate::store::storage::Storage;
use crate::store::storage_load::{LOAD_TIMEOUT, Load};
use crate::store::transfer::{self, Bytes, Copying, Expected, Place};

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// An image of the store, as typed.
    Store(String),
    /// An image of containers-storage, as typed after the transport.
    Storage(String),
    /// An image of a registry.
    Registry(Reference),
    /// Any other transport, as typed.
    Other(String),
}

impl End {
    /// Reads a reference with or without transport.
    ///
    /// # Errors
    /// If a registry's reference is none.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match Transport::split(text) {
            (None, bare) => Self::Store(bare.to_owned()),
            (Some(Transport::ContainersStorage), name) => Self::Storage(name.to_owned()),
            (Some(Transport::Docker), name) => Self::Registry(name.parse::<Reference>()?.on_registry()?.or_latest()),
            (Some(_), _) => Self::Other(text.to_owned()),
        })
    }
}

/// What a copy has to do with.
pub struct Context<'a> {
    /// The store.
    pub layout: &'a Layout,
    /// How the source's registry is reached.
    pub from: &'a Remote,
    /// How the destination's registry is reached.
    pub to: &'a Remote,
    /// containers-storage, where one of the sides is in it.
    pub storage: Option<&'a Storage>,
    /// How copies are made.
    pub copying: Copying<'a>,
    /// Most bytes that may come.
    pub limit: u64,
    /// Whether published tags may get other content.
    pub force: bool,
    /// Whether digests may change.
    pub bytes: Bytes,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("force", &self.force).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// An image that was copied.
#[derive(Debug, Clone, Serialize)]
pub struct Copied {
    /// From where, as typed.
    pub source: String,
    /// To where, as typed.
    pub destination: String,
    /// The digest of the manifest at the destination.
    pub digest: String,
    /// The digest at the source: another one only where that was allowed.
    pub source_digest: String,
}

/// The transport that keeps neither manifest nor compressed layers.
const DOCKER_ARCHIVE: &str = "docker-archive:";

/// Copies an image.
///
/// # Errors
/// If it is not there, would change its digest without leave, or cannot be written.
pub fn copy(context: &Context<'_>, source: &str, destination: &str) -> Result<Copied> {
    let (from, to) = (End::parse(source)?, End::parse(destination)?);
    if context.bytes == Bytes::Exact && [source, destination].iter().any(|text| text.starts_with(DOCKER_ARCHIVE)) {
        let reason = "a docker-archive keeps an image in a form of its own, without its digest".to_owned();
        return Err(Error::Unavailable { reason, hint: Some("allow that with --allow-new-digest".into()) }.into());
    }
    let (from, in_store) = context.find(from)?;
    let (source_digest, digest) = match in_store {
        Some(entry) => (entry.digest().to_owned(), context.send(&entry, &to)?),
        None => context.bring(&from, &to)?,
    };
    if digest != source_digest && context.bytes == Bytes::Exact {
        let reason = format!("the image arrived as {digest}, and was {source_digest}");
        return Err(Error::Unavailable { reason, hint: None }.into());
    }
    Ok(Copied { source: source.to_owned(), destination: destination.to_owned(), digest, source_digest })
}

impl Context<'_> {
    /// Looks for a bare name in the store, in containers-storage, and then at the registry that it names.
    fn find(&self, from: End) -> Result<(End, Option<Entry>)> {
        match (self.stored(&from), &from) {
            (Err(e), End::Store(text)) if matches!(e.downcast_ref(), Some(Error::ImageNotFound(_))) => {
                match text.parse::<Reference>() {
                    Ok(reference) if reference.registry().is_some() => Ok((End::Registry(reference.or_latest()), None)),
                    _ => Err(e),
                }
            }
            (found, _) => found.map(|found| (from, found)),
        }
    }

    /// Returns the store's entry for a source that is in the store, under that name or as containers-storage has it.
    fn stored(&self, from: &End) -> Result<Option<Entry>> {
        match from {
            End::Store(text) => match store::lookup(self.layout, text) {
                Err(Error::ImageNotFound(missing)) => match self.as_loaded(text)? {
                    Some(entry) => Ok(Some(entry)),
                    None => Err(Error::ImageNotFound(missing).into()),
                },
                found => Ok(Some(found?)),
            },
            End::Storage(name) => self.as_loaded(name),
            _ => Ok(None),
        }
    }

    /// Returns the store's entry of the image that containers-storage has under a name; `None` where digests may change
    /// and the image has to be taken from containers-storage itself.
    fn as_loaded(&self, name: &str) -> Result<Option<Entry>> {
        let Some(storage) = self.storage else { return Ok(None) };
        let images = storage.images()?;
        let reference = name.parse::<Reference>().ok().map(|reference| reference.or_latest().in_storage());
        let image = match images.lookup(name)? {
            Some(image) => Some(image),
            None => reference.map(|name| images.lookup(&name)).transpose()?.flatten(),
        };
        let Some(image) = image else { return Ok(None) };
        // A record has the manifests of all states that were loaded, and shows one of them. What the store has under that
        // name is the one that is meant, where it was loaded.
        let by_name = store::lookup(self.layout, name).ok().filter(|entry| image.has_manifest(entry.digest()));
        let shown = |entry: &Entry| Some(entry.digest()) == image.digest.as_deref();
        let found = match by_name {
            Some(entry) => Some(entry),
            None => self.layout.all_entries()?.into_iter().find(shown),
        };
        if found.is_none() && self.bytes == Bytes::Exact {
            let reason = format!("{name} is only in containers-storage, where its compressed bytes no longer exist");
            let hint = Some("pull or build it, or copy it with --allow-new-digest".to_owned());
            return Err(Error::Unavailable { reason, hint }.into());
        }
        Ok(found)
    }

    /// Copies an image of the store to a destination, and returns the digest that it has there.
    fn send(&self, entry: &Entry, to: &End) -> Result<String> {
        let digest = entry.digest().to_owned();
        match to {
            End::Store(name) => {
                tag::tag(self.layout, &digest, &name.parse()?, self.force)?;
            }
            End::Storage(name) => self.load(entry, name)?,
            End::Registry(reference) => {
                let found = store::read(self.layout, entry.clone())?;
                push::send((self.layout, self.to), &found, reference, self.force, || Ok(()), self.copying)?;
            }
            End::Other(text) => {
                let _writing = self.layout.writing()?;
                let size = transfer::check_whole(self.layout, &entry.descriptor)?;
                let private = PrivateLayout::of(self.layout.dir(), self.layout.path(), &entry.descriptor)?;
                let blobs = self.layout.holder(&entry.descriptor).path().join("blobs");
                let to = Place::local(text);
                return Ok(match self.bytes {
                    Bytes::Exact => {
                        transfer::send(&private, Some(blobs), (&digest, size), &to, self.copying, || ())?;
                        digest
                    }
                    Bytes::Converted => transfer::send_converted(&private, Some(blobs), &to, self.copying)?,
                });
            }
        }
        Ok(digest)
    }

    /// Copies from a place that is not the store, and returns the digests there and here.
    fn bring(&self, from: &End, to: &End) -> Result<(String, String)> {
        let mut place = self.place(self.from, from)?;
        let seen = match from {
            End::Registry(reference) => {
                let found = self.from.registry.manifest(reference)?;
                let found = found.ok_or_else(|| not_found(reference))?;
                found.read(reference)?
            }
            _ => transfer::look(&place, self.copying)?,
        };
        // Keeps prune from what has no name yet.
        let _writing = self.layout.writing()?;
        let digest = match to {
            End::Store(name) => {
                let entry = self.fetch(from, &place)?;
                let manifest = Manifest::new(entry.digest(), self.layout.read_json(&entry.descriptor)?)?;
                store_as(self.layout, &name.parse::<Reference>()?.or_latest(), &manifest, self.force)?;
                manifest.digest
            }
            End::Storage(name) => {
                let entry = self.fetch(from, &place)?;
                self.load(&entry, name)?;
                entry.digest().to_owned()
            }
            End::Registry(reference) => {
                if !self.force
                    && let Some(held) = push::held(self.to, reference)?
                {
                    push::check(reference, &held, &seen.digest, &seen.info)?;
                }
                if let (End::Registry(source), Bytes::Exact) = (from, self.bytes) {
                    // What was looked at, whatever the tag names by now.
                    place = self.from.place(&source.with_digest(&seen.digest)?)?;
                }
                let digest = self.between(&place, &self.to.destination(reference)?)?;
                self.to.arrived(reference, &digest)?;
                digest
            }
            End::Other(text) => self.between(&place, &Place::local(text))?,
        };
        Ok((seen.digest, digest))
    }

    fn between(&self, from: &Place, to: &Place) -> Result<String> {
        Ok(transfer::between(from, to, self.bytes, self.copying)?)
    }

    /// Fetches into the store, without a name.
    fn fetch(&self, from: &End, place: &Place) -> Result<Entry> {
        let descriptor = match (from, self.bytes) {
            (End::Registry(reference), Bytes::Exact) => {
                self.from.fetch(self.layout, reference, self.limit, self.copying)?
            }
            _ => {
                let expected = Expected { blobs: None, limit: self.limit, bytes: self.bytes };
                transfer::fetch(self.layout, place, &expected, self.copying)?
            }
        };
        Ok(Entry { name: None, descriptor })
    }

    fn place(&self, remote: &Remote, end: &End) -> Result<Place> {
        Ok(match end {
            End::Registry(reference) => remote.place(reference)?,
            End::Storage(name) => match self.storage {
                Some(storage) => Place::local(&storage.skopeo_reference(name)?),
                None => Place::local(&format!("containers-storage:{name}")),
            },
            End::Store(text) | End::Other(text) => Place::local(text),
        })
    }

    fn load(&self, entry: &Entry, name: &str) -> Result<()> {
        let name = name.parse::<Reference>()?.or_latest().in_storage();
        let storage = self.storage.context("containers-storage was not looked for")?;
        let _writing = self.layout.writing()?;
        let holder = self.layout.holder(&entry.descriptor);
        let load = Load {
            store: holder.dir(),
            store_path: holder.path(),
            work: (self.layout.dir(), self.layout.path()),
            manifest: &entry.descriptor,
            name: &name,
            platform: None,
            timeout: LOAD_TIMEOUT,
        };
        storage.load(&load, self.copying.tools)?;
        Ok(())
    }
}
