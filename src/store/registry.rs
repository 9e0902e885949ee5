//! The registry client: what skopeo cannot do fast, over HTTP and synchronously, with podman's configuration.
//!
//! Manifests by tag or digest, their digests, small blobs and deletion; registry_lists.rs has lists. Mirrors are read in the order of
//! registries.conf, and never written. Whatever is read by digest is verified; by tag, against what the registry says.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::Method;

use super::blob::sha256;
use super::certs::CertDirs;
use super::credentials::{Credentials, Keyring};
use super::files::Files;
use super::http::Response;
use super::proxies::Proxies;
use super::registries_conf::{Endpoint, RegistriesConf};
use super::registry_error::{Trouble, error, refused, too_large};
use super::registry_wire::{Call, Wire};
use super::repository::Manifest;
use crate::error::{Error, Fault, Result};
use crate::process::Cancel;
use crate::reference::{Reference, is_digest};

pub use super::http::{Scheme, Timeouts};

/// Most bytes of a manifest, a config, or a page of tags: the bound of the distribution specification for manifests.
pub(super) const LIMIT: usize = 4 << 20;
/// Longest pause before another try. Who asks to wait longer than this is told to the user instead.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The manifests that we read: an OCI image or index, and what Docker calls them.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// What decides how registries are reached; the shell fills it.
#[derive(Debug)]
pub struct Access {
    /// registries.conf
    pub conf: RegistriesConf,
    /// Where credentials are looked for.
    pub keyring: Keyring,
    /// Where certificates are looked for.
    pub certs: CertDirs,
    /// How certificates are read.
    pub files: Files,
    /// `--tls-verify`, where given.
    pub tls_verify: Option<bool>,
    /// `--creds`, where given: for the registry that a reference names, and for no mirror elsewhere.
    pub creds: Option<Credentials>,
    /// `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`
    pub proxies: Proxies,
    /// Ends every request.
    pub cancel: Cancel,
    /// How many more times to try what another try may end well.
    pub retry: u32,
    /// How we call ourselves.
    pub user_agent: String,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// A manifest as a registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteManifest {
    /// Its digest.
    pub digest: String,
    /// Its media type, without parameters.
    pub media_type: String,
    /// Its bytes, of which the digest is.
    pub bytes: Vec<u8>,
}

impl RemoteManifest {
    /// Reads what it says; `reference` is for messages.
    ///
    /// # Errors
    /// [`Error::Registry`] with [`Fault::Protocol`] if it is neither a manifest nor an index.
    pub fn read(self, reference: &Reference) -> Result<Manifest> {
        Manifest::new(&self.digest, self.bytes).map_err(|e| {
            let (registry, image) = reference.name().split_once('/').unwrap_or(("", reference.name()));
            error(registry, Fault::Protocol, format!("{image}: {e}"))
        })
    }
}

/// A client of all registries, to be shared by reference among threads.
#[derive(Debug)]
pub struct Registry {
    pub(super) wire: Arc<Wire>,
    /// Whether mirrors are left out, because what is read decides about what is written.
    origin_only: bool,
}

impl Registry {
    /// Returns a client. Nothing is read or connected before the first request.
    pub fn new(access: Access) -> Self {
        Self { wire: Arc::new(Wire::new(access)), origin_only: false }
    }

    /// Returns a client that reads where it writes: at the registry itself, neither at mirrors nor at another location.
    /// What decides about a write must be read there.
    pub fn at_origin(&self) -> Self {
        Self { wire: self.wire.clone(), origin_only: true }
    }

    /// Returns what registries.conf says.
    pub fn conf(&self) -> &RegistriesConf {
        &self.wire.access.conf
    }

    /// Returns an auth.json with the credentials for `reference` and for all its mirrors; `None` where there are none.
    ///
    /// # Errors
    /// As [`Keyring::find`].
    pub fn auth_json(&self, reference: &Reference) -> Result<Option<Vec<u8>>> {
        let (own, mirrors) = self.endpoints(reference)?;
        let mut auths = serde_json::Map::new();
        for endpoint in mirrors.iter().chain([&own]) {
            if let Some(credentials) = self.wire.credentials(endpoint)? {
                let one: serde_json::Value = serde_json::from_slice(&credentials.auth_json(&endpoint.reference)?)
                    .map_err(|e| Error::damaged("the credentials", e))?;
                auths.extend(one["auths"].as_object().cloned().unwrap_or_default());
            }
        }
        Ok((!auths.is_empty()).then(|| serde_json::json!({ "auths": auths }).to_string().into_bytes()))
    }

    /// Returns a manifest, by digest where the reference has one; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Registry`]; with [`Fault::Protocol`] where its bytes have another digest than asked for or said.
    pub fn manifest(&self, reference: &Reference) -> Result<Option<RemoteManifest>> {
        self.read(reference, |endpoint| {
            let call = manifest_call(endpoint, Method::GET, self.reading());
            let Some(response) = self.call(endpoint, &call)? else { return Ok(None) };
            Ok(Some(verified(endpoint, response)?))
        })
    }

    /// Returns the digest of a manifest, by one HEAD where the registry answers that; `None` where there is none.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub fn digest(&self, reference: &Reference) -> Result<Option<String>> {
        let head = self.read(reference, |endpoint| {
            let call = manifest_call(endpoint, Method::HEAD, self.reading());
            let response = match self.call(endpoint, &call) {
                Ok(Some(response)) => response,
                Ok(None) => return Ok(None),
                // A registry without HEAD.
                Err(trouble) if trouble.error.fault() == Some(Fault::Unsupported) => return Ok(Some(None)),
                Err(trouble) => return Err(trouble),
            };
            let said = said_digest(&response).map(str::to_owned);
            match (&said, endpoint.reference.digest()) {
                (Some(said), Some(asked)) if said != asked => Err(other_digest(endpoint, said, asked).into()),
                _ => Ok(Some(said)),
            }
        })?;
        match head {
            Some(None) => Ok(self.manifest(reference)?.map(|manifest| manifest.digest)),
            known => Ok(known.flatten()),
        }
    }

    /// Returns a small blob, such as a config.
    ///
    /// # Errors
    /// [`Error::Registry`]; with [`Fault::NotFound`] where it is not there, and [`Fault::Protocol`] where it has another
    /// size or digest, or is larger than 4 MiB.
    pub fn blob(&self, reference: &Reference, digest: &str, size: u64) -> Result<Vec<u8>> {
        self.blob_up_to(LIMIT, reference, digest, size)
    }

    /// The same of a blob of at most `most` bytes, which are in memory at once.
    ///
    /// # Errors
    /// As [`Self::blob`].
    pub fn blob_up_to(&self, most: usize, reference: &Reference, digest: &str, size: u64) -> Result<Vec<u8>> {
        let (registry, repository) = reference.name().split_once('/').unwrap_or(("", reference.name()));
        let what = format!("{repository}@{digest}");
        let protocol = |reason: String| error(registry, Fault::Protocol, format!("{what}: {reason}"));
        if !is_digest(digest) {
            return Err(protocol("its digest is none of sha256".into()));
        }
        let Some(limit) = usize::try_from(size).ok().filter(|size| *size <= most) else {
            return Err(protocol(too_large(most)));
        };
        let blob = self.read(reference, |endpoint| {
            let call = Call {
                method: Method::GET,
                path: format!("/v2/{}/blobs/{digest}", endpoint.repository()),
                accept: None,
                // An error page may be longer than the blob.
                limit: limit.max(LIMIT),
                body: None,
                actions: self.reading(),
                what: format!("{}@{digest}", endpoint.repository()),
            };
            let Some(Response { body, .. }) = self.call(endpoint, &call)? else { return Ok(None) };
            let found = sha256(&body);
            if body.len() != limit || found != digest {
                let reason = format!("{}: it sends {} bytes with digest {found}, not {size}", call.what, body.len());
                return Err(error(endpoint.registry(), Fault::Protocol, reason).into());
            }
            Ok(Some(body))
        })?;
        blob.ok_or_else(|| error(registry, Fault::NotFound, format!("{what}: not found")))
    }

    /// Deletes a manifest by its digest where the reference has one, else a tag: at the registry itself, never at a mirror.
    ///
    /// # Errors
    /// [`Error::Registry`]; with [`Fault::NotFound`] where there is none, and [`Fault::Unsupported`] where the registry does
    /// not delete.
    pub fn delete(&self, reference: &Reference) -> Result<()> {
        let endpoint = self.conf().origin(reference)?;
        let call = manifest_call(&endpoint, Method::DELETE, "pull,push,delete");
        match self.again(|| self.call(&endpoint, &call))? {
            Some(_) => Ok(()),
            None => Err(error(endpoint.registry(), Fault::NotFound, format!("{}: not found", call.what))),
        }
    }

    /// Writes a manifest over blobs that the registry has, under the tag or the digest of `reference`: at the registry
    /// itself, never at a mirror. Only for what is there already, whose content skopeo has sent or has seen.
    ///
    /// # Errors
    /// [`Error::Registry`]; with [`Fault::NotFound`] where the repository is not there.
    pub fn put(&self, reference: &Reference, media_type: &str, manifest: &[u8]) -> Result<()> {
        let endpoint = self.conf().origin(reference)?;
        let text = std::str::from_utf8(manifest).map_err(|e| Error::damaged(reference, e))?;
        let call =
            Call { accept: None, body: Some((media_type, text)), ..manifest_call(&endpoint, Method::PUT, "pull,push") };
        match self.again(|| self.call(&endpoint, &call))? {
            Some(response) => match (said_digest(&response), sha256(manifest)) {
                (Some(said), sent) if said != sent => Err(other_digest(&endpoint, said, &sent)),
                _ => Ok(()),
            },
            None => Err(error(endpoint.registry(), Fault::NotFound, format!("{}: not found", call.what))),
        }
    }

    /// Returns whether the registry itself (no mirror) speaks TLS; the first request decides that.
    ///
    /// # Errors
    /// [`Error::Registry`] where it cannot be reached.
    pub fn scheme(&self, reference: &Reference) -> Result<Scheme> {
        let (endpoint, _) = self.endpoints(reference)?;
        let call = Call {
            method: Method::GET,
            path: "/v2/".to_owned(),
            accept: None,
            limit: LIMIT,
            body: None,
            actions: self.reading(),
            what: endpoint.registry().to_owned(),
        };
        self.again(|| self.wire.scheme(&endpoint, &call))
    }

    /// Reads from the first place that has it: a mirror that fails or has it not is passed over.
    pub(super) fn read<T>(
        &self,
        reference: &Reference,
        at: impl Fn(&Endpoint) -> Result<Option<T>, Trouble>,
    ) -> Result<Option<T>> {
        let (own, mirrors) = self.endpoints(reference)?;
        self.again(|| {
            let mut failed = Vec::new();
            for mirror in &mirrors {
                match self.read_mirror(mirror, &at) {
                    Ok(Some(found)) => return Ok(Some(found)),
                    Ok(None) => {}
                    Err(trouble) => failed.push(trouble),
                }
            }
            // Where only mirrors can be reached, what they say is what helps.
            at(&own).map_err(|trouble| failed.into_iter().fold(trouble, Trouble::and_mirror))
        })
    }

    /// Returns the place itself, and its mirrors in order.
    fn endpoints(&self, reference: &Reference) -> Result<(Endpoint, Vec<Endpoint>)> {
        match self.origin_only {
            true => Ok((self.conf().origin(reference)?, Vec::new())),
            false => own(self.conf().endpoints(reference)?),
        }
    }

    /// Returns what a token for reading must allow. Whoever is about to write asks for both, so that a registry does not
    /// hide from him what he may replace.
    pub(super) fn reading(&self) -> &'static str {
        if self.origin_only { "pull,push" } else { "pull" }
    }

    fn read_mirror<T>(
        &self,
        mirror: &Endpoint,
        at: impl Fn(&Endpoint) -> Result<Option<T>, Trouble>,
    ) -> Result<Option<T>, Trouble> {
        let host = self.wire.host(mirror)?;
        if host.is_down() {
            return Ok(None);
        }
        let result = at(mirror);
        if let Err(Trouble { error, again: false, .. }) = &result
            && matches!(error.fault(), Some(Fault::Unreachable | Fault::Tls))
        {
            host.set_down();
        }
        result
    }

    /// Makes a call; `None` for 404, and an error for every other status that is no success.
    pub(super) fn call(&self, endpoint: &Endpoint, call: &Call) -> Result<Option<Response>, Trouble> {
        let response = self.wire.send(endpoint, call)?;
        match response.status {
            200..=299 => Ok(Some(response)),
            404 => Ok(None),
            401 | 403 if self.wire.access.creds.is_some() && endpoint.named => {
                let mut trouble = refused(endpoint.registry(), &call.what, &response);
                if let Error::Registry { hint, .. } = &mut trouble.error {
                    *hint = Some("the user or the password of --creds is wrong, or may not do this".into());
                }
                Err(trouble)
            }
            _ => Err(refused(endpoint.registry(), &call.what, &response)),
        }
    }

    /// Tries again as often as the user allows, with pauses of 1 s, 2 s, 4 s or as the registry asks.
    fn again<T>(&self, attempt: impl Fn() -> Result<T, Trouble>) -> Result<T> {
        let mut pause = Duration::from_secs(1);
        for _ in 0..self.wire.access.retry {
            match attempt() {
                Err(trouble) if trouble.again && trouble.after.is_none_or(|after| after <= MAX_PAUSE) => {
                    self.wire.access.cancel.pause(trouble.after.unwrap_or(pause))?;
                    pause = MAX_PAUSE.min(pause * 2);
                }
                result => return result.map_err(|trouble| trouble.error),
            }
        }
        attempt().map_err(|trouble| trouble.error)
    }
}

/// Splits the place itself from its mirrors.
fn own(mut endpoints: Vec<Endpoint>) -> Result<(Endpoint, Vec<Endpoint>)> {
    let own = endpoints.pop().ok_or_else(|| Error::Unavailable { reason: "no registry".into(), hint: None })?;
    Ok((own, endpoints))
}

fn manifest_call<'a>(endpoint: &Endpoint, method: Method, actions: &'static str) -> Call<'a> {
    let reference = &endpoint.reference;
    let name = reference.digest().or(reference.tag()).unwrap_or("latest");
    let path = format!("/v2/{}/manifests/{name}", endpoint.repository());
    let accept = (method != Method::DELETE).then_some(ACCEPT);
    Call { method, path, accept, limit: LIMIT, body: None, actions, what: endpoint.image() }
}

/// Returns the digest that the registry says it sends; of another algorithm it says nothing to us.
fn said_digest(response: &Response) -> Option<&str> {
    response.header("docker-content-digest").filter(|digest| is_digest(digest))
}

fn other_digest(endpoint: &Endpoint, found: &str, asked: &str) -> Error {
    let reason = format!("{}: it sends a manifest with digest {found}, not {asked}", endpoint.image());
    error(endpoint.registry(), Fault::Protocol, reason)
}

fn verified(endpoint: &Endpoint, response: Response) -> Result<RemoteManifest> {
    let digest = sha256(&response.body);
    if let Some(asked) = endpoint.reference.digest().or_else(|| said_digest(&response))
        && asked != digest
    {
        return Err(other_digest(endpoint, &digest, asked));
    }
    let header = response.header("content-type").and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    let media_type = match header {
        "" | "application/json" | "text/plain" | "application/octet-stream" => media_type(&response.body),
        media_type => media_type.to_owned(),
    };
    Ok(RemoteManifest { digest, media_type, bytes: response.body })
}

/// Returns the media type that a manifest gives itself, for registries that only say that it is JSON.
fn media_type(manifest: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: String,
    }
    serde_json::from_slice(manifest).map(|typed: Typed| typed.media_type).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "registry_testing.rs"]
mod testing;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "registry_tests.rs"]
mod tests;
