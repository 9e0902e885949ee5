//! One image through skopeo's image proxy, blob by blob straight into the store.
//!
//! Only for a single OCI manifest that is known already, since the proxy converts Docker's and picks one image of an
//! index; and only where it keeps the policy ([`super::canary`]) or that
//! accepts everything ([`super::policy`]). What is here already does not come; each blob is hashed
//! on its way, and published when it is whole.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use oci_spec::image::Descriptor;

use super::blob::BlobWriter;
use super::layout::Layout;
use super::proxy::{Proxy, ProxyImage, ProxyOptions};
use super::repository::Manifest;
use super::skopeo::explain;
use super::transfer::{Copying, Place};
use crate::error::{Error, Result};
use crate::process::Tools;

/// Waiting between two images. Starting one takes as long as fetching three small skills, so who fetches many keeps them.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Whether a proxy is kept for the next image; else it is ended with the first, and its last words are heard.
    pub keep: bool,
    /// Those that wait, and whether each accepts any certificate.
    idle: Mutex<Vec<(bool, Proxy)>>,
}

impl Waiting {
    /// Returns a proxy for images of a place.
    ///
    /// # Errors
    /// As [`Proxy::start`].
    pub fn get(&self, from: &Place, tools: &Tools) -> Result<Proxy> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        match idle.iter().position(|(insecure, _)| *insecure == is_insecure(from)) {
            Some(at) => Ok(idle.swap_remove(at).1),
            None => {
                drop(idle);
                start(from, tools)
            }
        }
    }

    fn put(&self, from: &Place, proxy: Proxy) -> Result<()> {
        if !self.keep {
            return proxy.finish();
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((is_insecure(from), proxy));
        Ok(())
    }
}

fn is_insecure(place: &Place) -> bool {
    place.tls_verify == Some(false)
}

/// Counts on their way to the store the bytes that a person is shown.
struct Counting<'a> {
    blob: BlobWriter<'a>,
    sum: &'a Cell<u64>,
    total: u64,
    progress: &'a dyn Fn(u64, Option<u64>),
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.blob.write(bytes)?;
        self.sum.set(self.sum.get() + written as u64);
        (self.progress)(self.sum.get(), Some(self.total));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.blob.flush()
    }
}

/// Returns whether an image can be streamed.
pub fn is_single(manifest: &Manifest) -> bool {
    manifest.info.config.is_some() && manifest.media_type == oci_spec::image::MediaType::ImageManifest.to_string()
}

/// Streams the blobs of `manifest` through `proxy`, or another one where that fails, and returns its descriptor; `None`
/// where the place names another image by now.
///
/// # Errors
/// As skopeo fails; [`Error::Damaged`] where a blob is not what its descriptor says.
pub fn fetch(
    layout: &Layout,
    (from, proxy): (&Place, Result<Proxy>),
    manifest: &Manifest,
    proxies: &Waiting,
    copying: Copying<'_>,
) -> Result<Option<Descriptor>> {
    let mut started = Some(proxy);
    copying.again(|| {
        let proxy = started.take().unwrap_or_else(|| start(from, copying.tools));
        let fetched = proxy.and_then(|proxy| {
            let fetched = once(layout, &proxy, from, manifest, copying)?;
            match fetched {
                Some(_) => proxies.put(from, proxy).map(|()| fetched),
                None => Ok(None),
            }
        });
        fetched.map_err(|e| in_words_of(&from.host, e))
    })
}

fn start(from: &Place, tools: &Tools) -> Result<Proxy> {
    let options = ProxyOptions {
        authfile: from.authfile.clone(),
        credentials: from.credentials.clone(),
        cert_dir: from.cert_dir.clone(),
        insecure: is_insecure(from),
        ..ProxyOptions::default()
    };
    Proxy::start(tools, &options)
}

/// Returns what skopeo said as the error that it is.
fn in_words_of(host: &str, error: Error) -> Error {
    match error {
        Error::Unavailable { reason, hint: None } if reason.starts_with("skopeo: ") => explain(&reason, host),
        error => error,
    }
}

fn once(
    layout: &Layout,
    proxy: &Proxy,
    from: &Place,
    manifest: &Manifest,
    copying: Copying<'_>,
) -> Result<Option<Descriptor>> {
    // The policy is kept here.
    let image = proxy.open(&from.reference)?;
    let seen = proxy.manifest_raw(&image)?;
    if !seen.exact || seen.digest != manifest.digest {
        return Ok(None);
    }
    let blobs: Vec<&Descriptor> = manifest.info.layers.iter().chain(&manifest.info.config).collect();
    let total = blobs.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size()));
    let sum = Cell::new(0);
    for blob in blobs {
        if layout.has_whole(blob) {
            sum.set(sum.get() + blob.size());
            continue;
        }
        let out = Counting { blob: layout.blob()?, sum: &sum, total, progress: copying.progress };
        stream(proxy, &image, blob, out)?;
    }
    layout.write_blob(&manifest.bytes)?;
    manifest.descriptor().map(Some)
}

fn stream(proxy: &Proxy, image: &ProxyImage, blob: &Descriptor, mut out: Counting<'_>) -> Result<()> {
    let digest = blob.digest().to_string();
    proxy.blob(image, &digest, blob.size(), &mut out)?;
    out.blob.commit(&digest)
}
