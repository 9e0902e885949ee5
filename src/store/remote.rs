//! A registry as we use it: questions by our own client, content by skopeo, with the same credentials.
//!
//! skopeo refuses plain HTTP also on loopback. Which of the two a registry on loopback speaks is known once our client
//! has talked to it; skopeo is then told. `--tls-verify=false` does not check certificates either, so it is never said
//! to skopeo for another host unless the user did.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread;

use cap_std::fs::Dir;
use oci_spec::image::Descriptor;

use super::canary::keeps_policy;
use super::layout::Layout;
use super::private::PrivateLayout;
use super::proxies;
use super::proxy::Proxy;
use super::registry::{Registry, RemoteManifest, Scheme};
use super::repository::{Manifest, Repository, Tag, Untagged, refer};
use super::stream::{self, Waiting, is_single};
use super::transfer::{self, Bytes, Copying, Expected, MAX_INSTANCES, Place, Secret};
use crate::error::{Error, Fault, Result};
use crate::image;
use crate::process::Tools;
use crate::reference::Reference;

/// A way to registries.
#[derive(Debug)]
pub struct Remote {
    /// Our client, for reading.
    pub registry: Registry,
    /// The same for what is written, and for what decides about that: past all mirrors.
    pub origin: Registry,
    /// Whether skopeo is handed the credentials that our client has, because it would not find them.
    pub hand_over: bool,
    /// `--authfile`
    pub authfile: Option<PathBuf>,
    /// `--cert-dir`
    pub cert_dir: Option<PathBuf>,
    /// `--tls-verify`, where it was given.
    pub tls_verify: Option<bool>,
    /// Which skopeo it is, and where is kept what was found out about it.
    pub canary: Canary,
    /// Whether policy.json accepts every image of registries, so that the proxy has nothing to keep.
    pub accepts_anything: bool,
    /// The proxies that wait for another image.
    pub proxies: Waiting,
}

/// What is known of skopeo's image proxy, once it has been asked.
#[derive(Debug, Default)]
pub struct Canary {
    /// Where the answer is kept.
    pub cache: Option<Dir>,
    /// What it is kept for: path and date of the program.
    pub key: String,
    policed: OnceLock<Option<bool>>,
}

impl Canary {
    /// Returns what is not known yet of a skopeo.
    pub fn new(cache: Option<Dir>, key: String) -> Self {
        Self { cache, key, policed: OnceLock::new() }
    }

    /// Returns whether the proxy keeps the policy, where that can be told.
    pub fn ask(&self, layout: &Layout, tools: &Tools) -> Option<bool> {
        *self.policed.get_or_init(|| keeps_policy(layout, tools, self.cache.as_ref(), &self.key).ok())
    }
}

impl Remote {
    /// Returns a reference of a registry as skopeo is told it. Asks the registry which scheme it speaks where that may be
    /// plain HTTP.
    ///
    /// # Errors
    /// If the registry cannot be reached.
    pub fn place(&self, reference: &Reference) -> Result<Place> {
        self.place_by(&self.registry, reference)
    }

    /// The same for a reference that is written.
    ///
    /// # Errors
    /// As [`Self::place`].
    pub fn destination(&self, reference: &Reference) -> Result<Place> {
        self.place_by(&self.origin, reference)
    }

    fn place_by(&self, registry: &Registry, reference: &Reference) -> Result<Place> {
        let host = reference.registry().unwrap_or("docker.io").to_owned();
        let plain = self.tls_verify.is_none() && is_loopback(&host) && registry.scheme(reference)? == Scheme::Http;
        // skopeo takes no tag beside a digest; the digest says more.
        let named = match reference.digest() {
            Some(digest) => reference.with_digest(digest)?,
            None => reference.clone().or_latest(),
        };
        let credentials = match self.hand_over {
            true => registry.auth_json(reference)?.map(Secret),
            false => None,
        };
        Ok(Place {
            reference: format!("docker://{named}"),
            host,
            authfile: self.authfile.clone(),
            credentials,
            cert_dir: self.cert_dir.clone(),
            tls_verify: self.tls_verify.or(plain.then_some(false)),
        })
    }

    /// Fetches an image into the store, as [`transfer::fetch`] does, after a look at its manifest: what is here already
    /// does not come again, and what is too large does not come at all.
    ///
    /// # Errors
    /// [`Error::Registry`]; [`Error::ImageNotFound`].
    pub fn fetch(
        &self,
        layout: &Layout,
        reference: &Reference,
        limit: u64,
        copying: Copying<'_>,
    ) -> Result<Descriptor> {
        let place = self.place(reference);
        let (looked, proxy) = self.look(layout, reference, place.as_ref().ok(), copying.tools);
        let seen = match looked {
            Ok(None) => return Err(not_found(reference)),
            Ok(Some(manifest)) => Ok(manifest),
            // skopeo may know other credentials or certificates than we found.
            Err(e) if matches!(e.fault(), Some(Fault::Denied | Fault::Tls)) => Err(e),
            Err(e) => return Err(e),
        };
        let manifest = seen.as_ref().ok().map(|seen| seen.clone().read(reference)).transpose()?;
        let blobs = manifest.as_ref().map(|manifest| self.blobs(reference, manifest)).transpose()?;
        let place = match (place, &seen) {
            (Err(_), Err(_)) => return Err(seen.err().unwrap_or_else(|| not_found(reference))),
            (place, _) => place?,
        };
        let expected = Expected { blobs, limit, bytes: Bytes::Exact };
        expected.check()?;
        if let (Some(manifest), Some(proxy)) = (manifest.filter(is_single), proxy)
            && let Some(streamed) = stream::fetch(layout, (&place, proxy), &manifest, &self.proxies, copying)?
        {
            return Ok(streamed);
        }
        match (transfer::fetch(layout, &place, &expected, copying), seen) {
            // Where both failed by the same, our client's words are the clearer ones.
            (Err(error), Err(first)) if matches!(error.fault(), Some(Fault::Denied | Fault::Tls)) => Err(first),
            (fetched, _) => fetched,
        }
    }

    /// Looks at a manifest and, where images may be streamed, starts skopeo meanwhile, which takes longer.
    fn look(
        &self,
        layout: &Layout,
        reference: &Reference,
        place: Option<&Place>,
        tools: &Tools,
    ) -> (Result<Option<RemoteManifest>>, Option<Result<Proxy>>) {
        // The proxy can be trusted with an image where it keeps the policy, and where there is none to keep.
        let streams = || self.accepts_anything || self.canary.ask(layout, tools) == Some(true);
        thread::scope(|scope| {
            // The crate would write credentials that are handed over to a file in /tmp.
            let place = place.filter(|place| place.credentials.is_none() && streams());
            let proxy = place.map(|place| scope.spawn(|| self.proxies.get(place, tools)));
            let looked = self.registry.manifest(reference);
            (looked, proxy.and_then(|proxy| proxy.join().ok()))
        })
    }

    /// Returns the blobs of an image, or of all images of an index.
    ///
    /// What is wrong with the list itself is found here, for skopeo would say that it cannot keep the digest.
    fn blobs(&self, reference: &Reference, manifest: &Manifest) -> Result<Vec<Descriptor>> {
        let damaged = |reason: String| Error::damaged(format!("index {} of {reference}", manifest.digest), reason);
        if manifest.info.instances.len() > MAX_INSTANCES {
            return Err(damaged(format!("it lists {} images", manifest.info.instances.len())));
        }
        let mut blobs: Vec<Descriptor> = manifest.info.layers.iter().chain(&manifest.info.config).cloned().collect();
        for instance in &manifest.info.instances {
            let digest = instance.digest().to_string();
            let named = reference.with_digest(&digest)?;
            let Some(image) = self.registry.manifest(&named)? else { continue };
            let Manifest { bytes, info, .. } = image.read(&named)?;
            if bytes.len() as u64 != instance.size() {
                let (says, has) = (instance.size(), bytes.len());
                return Err(damaged(format!("it says that {digest} has {says} bytes, and it has {has}")));
            }
            if !info.instances.is_empty() {
                return Err(damaged(format!("it lists {digest}, which is no image but another index")));
            }
            blobs.extend(info.layers.into_iter().chain(info.config));
        }
        blobs.sort_by(|a, b| a.digest().as_ref().cmp(b.digest().as_ref()));
        blobs.dedup_by(|a, b| a.digest() == b.digest());
        Ok(blobs)
    }

    /// Sends an image of the store when `may` agrees, and does what `made` does when it is there. Returns whether it was sent.
    ///
    /// skopeo takes longer to start than a registry to answer, so it starts meanwhile, and waits for the answer at the
    /// private layout.
    ///
    /// # Errors
    /// Those of `may` and `made`; as [`transfer::send`]; [`Error::Damaged`] where the store does not have all of it.
    pub fn send<E: From<Error> + Send>(
        &self,
        layout: &Layout,
        manifest: &Descriptor,
        to: &Reference,
        may: impl FnOnce() -> Result<bool, E> + Send,
        made: impl FnOnce() -> Result<(), E> + Send,
        copying: Copying<'_>,
    ) -> Result<bool, E> {
        let blobs = layout.holder(manifest).path().join("blobs");
        let prepare = || -> Result<_> {
            let size = transfer::check_whole(layout, manifest)?;
            Ok((size, PrivateLayout::gated(layout.dir(), layout.path(), manifest)?))
        };
        let (place, ready) = thread::scope(|scope| {
            let preparing = scope.spawn(prepare);
            (self.destination(to), preparing.join().unwrap_or_else(|_| Err(Error::interrupted())))
        });
        let (size, (private, gate)) = match ready {
            Ok(ready) => ready,
            // What is wrong here does not matter where nothing is to be sent.
            Err(e) => return if may()? { Err(e.into()) } else { Ok(false) },
        };
        let image = (manifest.digest().as_ref(), size);
        // Where there is no way to the registry, the question tells it best.
        let send = || place.and_then(|place| transfer::send(&private, Some(blobs), image, &place, copying, made));
        let Some(gate) = gate else {
            let agreed = may()?;
            if agreed {
                send()??;
            }
            return Ok(agreed);
        };
        let cancel = &copying.tools.cancel;
        let ask = move || match may() {
            Ok(true) => Ok(cancel.check().and_then(|()| gate.open()).map(|()| true)?),
            other => other,
        };
        let (agreed, sent) = thread::scope(|scope| {
            let asking = scope.spawn(ask);
            let sent = send();
            (asking.join(), sent)
        });
        let agreed = agreed.unwrap_or_else(|_| Err(Error::interrupted().into()))?;
        if agreed {
            sent??;
        }
        Ok(agreed)
    }

    /// Checks that a reference names what was written there, by the registry's own word.
    ///
    /// # Errors
    /// [`Error::Registry`] with [`Fault::Protocol`] where it names something else, or nothing.
    pub fn arrived(&self, to: &Reference, digest: &str) -> Result<()> {
        let found = self.origin.digest(to)?;
        if found.as_deref() == Some(digest) {
            return Ok(());
        }
        Err(Error::Registry {
            registry: to.registry().unwrap_or_default().to_owned(),
            fault: Fault::Protocol,
            reason: format!("{to} is {} after {digest} was written", found.as_deref().unwrap_or("not there")),
            hint: None,
        })
    }
}

/// Returns the error for an image that a registry does not have.
pub fn not_found(reference: &Reference) -> Error {
    Error::Registry {
        registry: reference.registry().unwrap_or("docker.io").to_owned(),
        fault: Fault::NotFound,
        reason: format!("image not found: {reference}"),
        hint: Some(format!("skillctl list --remote {} shows what is there", reference.name())),
    }
}

/// Returns whether a registry host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    proxies::is_loopback(name.trim_start_matches('[').trim_end_matches(']'))
}

/// One name on a registry.
#[derive(Debug)]
pub struct Remotely<'a> {
    remote: &'a Remote,
    name: Reference,
    layout: &'a Layout,
    copying: Copying<'a>,
}

impl<'a> Remotely<'a> {
    /// Returns the repository of `reference`'s name; what is written passes through a private layout of `layout`.
    pub fn new(remote: &'a Remote, reference: &Reference, layout: &'a Layout, copying: Copying<'a>) -> Self {
        Self { remote, name: reference.clone(), layout, copying }
    }

    /// Puts a manifest that nothing else names in the place of what `held` was, and returns its reference.
    fn bury(&self, held: &Manifest, tag: &str) -> Result<Reference> {
        let mut document: serde_json::Value =
            serde_json::from_slice(&held.bytes).map_err(|e| Error::damaged(&held.digest, e))?;
        document["annotations"][image::TOMBSTONE] = nonce().into();
        let bytes = document.to_string().into_bytes();
        let grave = Manifest::new(&super::blob::sha256(&bytes), bytes)?;
        self.tag(&grave, Tag { name: tag, held: None })?;
        self.reference(&grave.digest)
    }
}

/// Returns text that no other tombstone has: its deletion must take nothing else.
fn nonce() -> String {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

impl Repository for Remotely<'_> {
    fn reference(&self, which: &str) -> Result<Reference> {
        refer(&self.name, which)
    }

    fn get(&self, which: &str) -> Result<Option<Manifest>> {
        let reference = self.reference(which)?;
        self.remote.origin.manifest(&reference)?.map(|found| found.read(&reference)).transpose()
    }

    fn missing(&self, reference: &Reference) -> Error {
        not_found(reference)
    }

    fn tags(&self) -> Result<Vec<String>> {
        self.remote.origin.tags(&self.name)
    }

    /// Sends manifests by skopeo; layers are asked for and not sent, since they are there.
    fn put(&self, manifests: &[Manifest], tag: Option<Tag<'_>>) -> Result<()> {
        let Some(last) = manifests.last() else { return Ok(()) };
        let private = PrivateLayout::of(self.layout.dir(), self.layout.path(), &last.descriptor()?)?;
        for manifest in manifests {
            private.write_blob(&manifest.digest, &manifest.bytes)?;
            if let Some(config) = &manifest.info.config {
                // skopeo reads it, to compare; it is small.
                let digest = config.digest().to_string();
                private.write_blob(&digest, &self.remote.origin.blob(&self.name, &digest, config.size())?)?;
            }
        }
        let to = self.reference(tag.map_or(&last.digest, |tag| tag.name))?;
        let place = self.remote.destination(&to)?;
        let arrived = || self.remote.arrived(&to, &last.digest);
        transfer::send(&private, None, (&last.digest, 0), &place, self.copying, arrived)?
    }

    fn tag(&self, manifest: &Manifest, tag: Tag<'_>) -> Result<()> {
        self.remote.origin.put(&self.reference(tag.name)?, &manifest.media_type, &manifest.bytes)
    }

    /// Puts a manifest of its own in the tag's place and deletes that one by digest: deleting a tag by name is refused by
    /// some registries, and takes the manifest with all its other tags on others.
    fn untag(&self, tag: &str) -> Result<Untagged> {
        let Some(held) = self.get(tag)? else { return Ok(Untagged::Gone) };
        let grave = self.bury(&held, tag)?;
        let undo = |error: Error| {
            // So that the same command can be given again; the error tells what went wrong first.
            let _ = self.tag(&held, Tag { name: tag, held: None });
            error
        };
        self.unbury(&held, (tag, &grave)).map_err(undo)
    }
}

impl Remotely<'_> {
    /// Deletes the manifest `grave` that `tag` names now, and looks what came of it.
    fn unbury(&self, held: &Manifest, (tag, grave): (&str, &Reference)) -> Result<Untagged> {
        let registry = &self.remote.origin;
        let by_tag = self.reference(tag)?;
        let deleted = registry.delete(grave).or_else(|first| {
            // Some take tags only; there is nothing left that this could harm.
            registry.delete(&by_tag).map_err(|_| first)
        });
        if registry.digest(&by_tag)?.is_none() {
            let by_digest = self.reference(&held.digest)?;
            return match registry.digest(&by_digest)? {
                Some(_) => Ok(Untagged::Gone),
                None => Err(Error::Registry {
                    registry: by_tag.registry().unwrap_or_default().to_owned(),
                    fault: Fault::Protocol,
                    reason: format!("it removed {by_digest} with the tag {tag}"),
                    hint: None,
                }),
            };
        }
        Ok(Untagged::Remains(match deleted {
            Err(e) => e.to_string(),
            Ok(()) => "the registry says that it is gone, and it is not".to_owned(),
        }))
    }
}
