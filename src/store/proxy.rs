//! Images in any transport that skopeo reads, through its image proxy: the only async code, behind sync functions.
//!
//! One child process serves many images. Manifests travel as messages, blobs through pipes; the proxy ends when its
//! socket closes, so it cannot outlive us. Nothing is kept on disk and no lock is taken here: containers/storage takes
//! its own, and while another process holds it an open waits, hence the timeout.
//!
//! What comes out is verified here, whatever the proxy did: skopeo 1.9 converts Docker manifests, whose bytes then do
//! not hash to the digest it names, and its `GetFullConfig` is re-serialised, so a config is read as the blob it is.
//!
//! containers-storage has no compressed blobs. A layer is read there as the tar that containers/storage puts together
//! again: by its diff ID, with its exact size, both as in layers.json ([`Images::layers`]). skopeo before 1.11
//! offers no other way to learn them. The proxy does not enter a user namespace by itself, as `skopeo copy` does; so
//! rootless it runs under `podman unshare` ([`ProxyOptions::unshare`]).
//!
//! [`Images::layers`]: super::storage_images::Images::layers

use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use containers_image_proxy::{ImageProxy, ImageProxyConfig, OpenedImage};
use oci_spec::image::Digest;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};
use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, Result};
use crate::process::{Cancel, Tools, last_words};
use crate::store::storage::MAX_METADATA;
use crate::store::transfer::Secret;

/// How often a wait looks for a cancellation.
const TICK: Duration = Duration::from_millis(50);
/// How long an open may take: one of an image takes 50 ms, of a registry as long as its timeouts allow.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(120);
/// What a pipe of Linux holds. Each read of the crate's file is a round trip to another thread, so it takes all there is.
const PIPE: usize = 64 << 10;
/// How long a blob may not come on, as for a copy.
const STALL: Duration = Duration::from_secs(180);
/// How long is waited for a proxy that was given up: less than a person notices after Ctrl-C.
const DROP_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the proxy may take to end; it has nothing left to do.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// What skopeo and the libraries below it say about an image that is not there.
const NOT_FOUND: [&str; 6] = [
    "no descriptor found for reference",
    "does not resolve to an image ID",
    "identifier is not an image",
    "manifest unknown",
    "name unknown",
    "no image found with reference",
];

/// Returns whether skopeo says that an image is not there. Of a registry a missing file is something else: a key of the
/// policy, or a certificate.
fn is_not_found(reference: &str, reason: &str) -> bool {
    let no_file = !reference.starts_with("docker://") && reason.contains("no such file or directory");
    no_file || NOT_FOUND.iter().any(|n| reason.contains(n))
}

/// What skopeo says about a blob that it read to the end and that is not the one asked for.
const DAMAGED: [&str; 2] = ["bytes in blob, got", "corrupted blob, expecting"];

/// How the proxy is started.
#[derive(Debug, Clone, Default)]
pub struct ProxyOptions {
    /// Run it in podman's user namespace, which containers-storage of users other than root needs.
    pub unshare: bool,
    /// The driver of containers-storage, where no configuration says it.
    pub storage_driver: Option<String>,
    /// Credentials: `skopeo --authfile`.
    pub authfile: Option<PathBuf>,
    /// Content of a credentials file, instead of one.
    pub credentials: Option<Secret>,
    /// Certificates: `skopeo --cert-dir`.
    pub cert_dir: Option<PathBuf>,
    /// Accept plain HTTP and any certificate: `skopeo --tls-verify=false`.
    pub insecure: bool,
    /// Signature policy, instead of the system's: `skopeo --policy`.
    pub policy: Option<PathBuf>,
    /// How long starting, opening and reading of metadata may each take; [`OPEN_TIMEOUT`] by default.
    pub timeout: Option<Duration>,
}

/// A running proxy.
pub struct Proxy {
    runtime: Option<Runtime>,
    proxy: Option<ImageProxy>,
    cancel: Cancel,
    timeout: Duration,
    /// Set when a request was given up: its answer may still come, so no other can follow.
    broken: AtomicBool,
    /// Bytes of blobs that have come, so that one that stops coming is noticed.
    moved: AtomicU64,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// An image that the proxy has open, until the proxy ends.
#[derive(Debug)]
pub struct ProxyImage {
    image: OpenedImage,
    reference: String,
}

/// A manifest as the proxy gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyManifest {
    /// The digest that the source has it under.
    pub digest: String,
    /// Its bytes, of which `digest` is the digest only if they are exact.
    pub bytes: Vec<u8>,
    /// Whether the bytes are those of the source. A Docker manifest was converted, so they are not.
    pub exact: bool,
}

/// A layer as the source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyLayer {
    /// Its digest: the diff ID in containers-storage.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}

impl Proxy {
    /// Starts a proxy.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when skopeo, or podman for its user namespace, is missing or too old.
    pub fn start(tools: &Tools, options: &ProxyOptions) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build().map_err(Error::io("the async runtime"))?;
        let mut started = Self {
            runtime: Some(runtime),
            proxy: None,
            cancel: tools.cancel.clone(),
            timeout: options.timeout.unwrap_or(OPEN_TIMEOUT),
            broken: AtomicBool::new(false),
            moved: AtomicU64::new(0),
        };
        let mut config = ImageProxyConfig::default();
        match &options.credentials {
            Some(secret) => config.auth_data = Some(secret.file()?),
            None => config.authfile.clone_from(&options.authfile),
        }
        config.certificate_directory.clone_from(&options.cert_dir);
        config.insecure_skip_tls_verification = options.insecure.then_some(true);
        config.skopeo_cmd = Some(command(tools, options));
        let missing = if options.unshare { "podman" } else { "skopeo" };
        let proxy = started.wait(Some(started.timeout), async {
            ImageProxy::new_with_config(config).await.map_err(|e| match e {
                containers_image_proxy::Error::SkopeoSpawnError(e) if e.kind() == io::ErrorKind::NotFound => {
                    tools.missing(missing)
                }
                e => failure(&e),
            })
        })?;
        started.proxy = Some(proxy);
        Ok(started)
    }

    /// Opens an image by its reference with transport, such as `containers-storage:localhost/acme/hr:1.0.0`.
    ///
    /// # Errors
    ///
    /// [`Error::ImageNotFound`], or [`Error::Unavailable`] with what skopeo said.
    pub fn open(&self, reference: &str) -> Result<ProxyImage> {
        let proxy = self.proxy()?;
        let image = self.wait(Some(self.timeout), async {
            proxy.open_image(reference).await.map_err(|e| match failure(&e) {
                Error::Unavailable { reason, .. } if is_not_found(reference, &reason) => {
                    Error::ImageNotFound(reference.to_owned())
                }
                error => error,
            })
        })?;
        Ok(ProxyImage { image, reference: reference.to_owned() })
    }

    /// Reads the manifest; that of the host's platform where the reference is an index.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] for one that is larger than skopeo itself would read.
    pub fn manifest_raw(&self, image: &ProxyImage) -> Result<ProxyManifest> {
        let proxy = self.proxy()?;
        let fetch = async { proxy.fetch_manifest_raw_oci(&image.image).await.map_err(|e| failure(&e)) };
        let (digest, bytes) = self.wait(Some(self.timeout), fetch)?;
        // The crate reads to the end of the pipe; skopeo has the same limit, so this only says so.
        check_metadata_size("manifest", image, bytes.len() as u64)?;
        let exact = digest == format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        Ok(ProxyManifest { digest, bytes, exact })
    }

    /// Reads the config that the manifest describes, byte for byte.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] when it is too large, or not what its digest and size say.
    pub fn config(&self, image: &ProxyImage, digest: &str, size: u64) -> Result<Vec<u8>> {
        check_metadata_size("config", image, size)?;
        let mut bytes = Vec::new();
        self.blob(image, digest, size, &mut bytes)?;
        Ok(bytes)
    }

    /// Returns the layers as the source has them; `None` from skopeo before 1.11.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] with what skopeo said.
    pub fn layers(&self, image: &ProxyImage) -> Result<Option<Vec<ProxyLayer>>> {
        let proxy = self.proxy()?;
        let layers =
            self.wait(Some(self.timeout), async { proxy.get_layer_info(&image.image).await.map_err(|e| failure(&e)) })?;
        let convert = |l: containers_image_proxy::ConvertedLayerInfo| ProxyLayer {
            digest: l.digest.to_string(),
            size: l.size,
            media_type: l.media_type.to_string(),
        };
        Ok(layers.map(|layers| layers.into_iter().map(convert).collect()))
    }

    /// Copies a blob to `out`, and fails unless its size and digest are as given.
    ///
    /// What was written when it fails is to be thrown away. From containers-storage a layer is named by its diff ID
    /// and the size of its tar.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] from `out`; [`Error::Damaged`] when size or digest differ; [`Error::Unavailable`] with what skopeo
    /// said.
    pub fn blob(&self, image: &ProxyImage, digest: &str, size: u64, out: &mut dyn Write) -> Result<()> {
        let proxy = self.proxy()?;
        let damaged =
            |reason: String| Error::Damaged { object: format!("blob {digest} of {}", image.reference), reason };
        let wanted: Digest = digest.parse().map_err(|_| damaged("that is not a digest".into()))?;
        if !digest.starts_with("sha256:") {
            return Err(damaged("only sha256 is verified".into()));
        }
        let (copied, driven) = self.wait(Some(STALL), async {
            let opened = proxy.get_blob(&image.image, &wanted, size).await;
            let (reader, driver) = opened.map_err(|e| failure(&e))?;
            // The pipe is closed by the proxy's driver alone, so both run until the end; a reader that stops early
            // closes its end, and the driver then fails.
            Ok(tokio::join!(copy(reader, size, out, &self.moved), driver))
        })?;
        let (found, hex) = copied.map_err(Error::io(format!("blob {digest}")))?;
        if found == size && digest == format!("sha256:{hex}") {
            return Ok(());
        }
        if found > size {
            return Err(damaged(format!("it is larger than {size} bytes")));
        }
        if let Err(error) = driven {
            let error = failure(&error);
            let verdict = DAMAGED.iter().any(|d| error.to_string().contains(d));
            return Err(if verdict { damaged(error.to_string()) } else { error });
        }
        Err(damaged(format!("it has {found} of {size} bytes and the digest sha256:{hex}")))
    }

    /// Ends the proxy; dropping it does the same without waiting.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when it ends with an error.
    pub fn finish(mut self) -> Result<()> {
        self.proxy()?;
        match self.proxy.take() {
            Some(proxy) => self.wait(Some(SHUTDOWN_TIMEOUT), async { proxy.finalize().await.map_err(|e| failure(&e)) }),
            None => Ok(()),
        }
    }

    fn proxy(&self) -> Result<&ImageProxy> {
        let usable = self.proxy.as_ref().filter(|_| !self.broken.load(Ordering::SeqCst));
        usable.ok_or_else(|| unavailable("the image proxy was interrupted"))
    }

    /// Runs a request until it is done, cancelled, or out of time.
    fn wait<T>(&self, timeout: Option<Duration>, request: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = self.runtime.as_ref().expect("the runtime is taken only by drop");
        runtime.block_on(async {
            tokio::select! {
                biased;
                done = request => done,
                stopped = self.stop(timeout) => {
                    self.broken.store(true, Ordering::SeqCst);
                    Err(stopped)
                }
            }
        })
    }

    /// Ends when a stop is asked for, or when nothing has come for `timeout`.
    async fn stop(&self, timeout: Option<Duration>) -> Error {
        let mut started = Instant::now();
        let mut moved = self.moved.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(TICK).await;
            let now = self.moved.load(Ordering::Relaxed);
            if now != moved {
                (moved, started) = (now, Instant::now());
            }
            if self.cancel.is_cancelled() {
                return unavailable("skopeo: interrupted");
            }
            if let Some(timeout) = timeout.filter(|t| started.elapsed() >= *t) {
                return unavailable(format!("skopeo: no answer for {} s", timeout.as_secs()));
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.proxy = None;
        if let Some(runtime) = self.runtime.take() {
            // The proxy ends when its socket has closed, and a thread waits for that. So do we, that no skopeo is left
            // behind; but not for an answer which never comes.
            runtime.shutdown_timeout(DROP_TIMEOUT);
        }
    }
}

fn command(tools: &Tools, options: &ProxyOptions) -> Command {
    let mut command = if options.unshare {
        let mut podman = Command::new(&tools.podman);
        podman.arg("unshare").arg(&tools.skopeo);
        podman
    } else {
        Command::new(&tools.skopeo)
    };
    command.env("LC_ALL", "C").process_group(0);
    if let Some(driver) = &options.storage_driver {
        command.env("STORAGE_DRIVER", driver);
    }
    if let Some(policy) = &options.policy {
        command.arg("--policy").arg(policy);
    }
    command
}

/// Copies at most `size` bytes and notices more; returns how many there were, and their hash.
async fn copy(
    from: impl AsyncBufRead + Unpin,
    size: u64,
    out: &mut dyn Write,
    moved: &AtomicU64,
) -> io::Result<(u64, String)> {
    let mut from = BufReader::with_capacity(PIPE, from);
    let mut hasher = Sha256::new();
    let mut total = 0u64;
    loop {
        let chunk = from.fill_buf().await?;
        let read = chunk.len();
        total += read as u64;
        moved.fetch_add(read as u64, Ordering::Relaxed);
        if read == 0 || total > size {
            return Ok((total, hex::encode(hasher.finalize())));
        }
        hasher.update(chunk);
        out.write_all(chunk)?;
        from.consume(read);
    }
}

fn check_metadata_size(what: &str, image: &ProxyImage, size: u64) -> Result<()> {
    if size <= MAX_METADATA {
        return Ok(());
    }
    let reason = format!("its {size} bytes exceed the limit of {MAX_METADATA}");
    Err(Error::Damaged { object: format!("{what} of {}", image.reference), reason })
}

fn unavailable(reason: impl Into<String>) -> Error {
    Error::Unavailable { reason: reason.into(), hint: None }
}

/// Takes what skopeo said out of the crate's wording.
fn failure(error: &containers_image_proxy::Error) -> Error {
    use containers_image_proxy::Error as Proxy;
    match error {
        Proxy::RequestInitiationFailure { error, .. } | Proxy::RetryableRequestFailure { error, .. } => {
            unavailable(format!("skopeo: {}", error.trim()))
        }
        Proxy::ProxyTooOld { .. } => unavailable("skopeo is too old: 1.6 or newer is needed"),
        // The socket's end is seen before the child's.
        Proxy::SerDe(_) | Proxy::Io(_) => unavailable("skopeo: the image proxy ended unexpectedly"),
        other => {
            let text = other.to_string();
            // "skopeo proxy unexpectedly exited …: <status>\n<stderr>"
            let said = text.split_once('\n').and_then(|(_, stderr)| last_words(stderr));
            unavailable(format!("skopeo: {}", said.unwrap_or_else(|| text.trim().to_owned())))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn copies_no_more_than_announced() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let moved = AtomicU64::new(0);
        for (size, total, written) in [(3, 3, 3), (5, 3, 3), (2, 3, 0), (0, 3, 0)] {
            let mut out = Vec::new();
            let (found, hex) = runtime.block_on(copy(b"abc".as_slice(), size, &mut out, &moved)).unwrap();
            assert_eq!((found, out.len()), (total, written), "{size}");
            assert_eq!(hex == hex::encode(Sha256::digest(b"abc")), written == 3, "{size}");
        }
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = runtime.block_on(copy(b"abc".as_slice(), 3, &mut Full, &moved)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn says_what_skopeo_said() {
        use containers_image_proxy::Error as Proxy;
        let cases = [
            (Proxy::RequestInitiationFailure { method: "OpenImage".into(), error: "no\n".into() }, "skopeo: no"),
            (
                Proxy::Other("skopeo proxy unexpectedly exited during request method Initialize: exit status: 1\ntime=\"x\" level=fatal msg=\"unknown command\"\n".into()),
                "skopeo: unknown command",
            ),
            (Proxy::Other("plain".into()), "skopeo: other error: plain"),
        ];
        for (error, expected) in cases {
            assert_eq!(failure(&error).to_string(), expected);
        }
    }

    #[test]
    fn names_the_missing_program() {
        let missing = PathBuf::from("/nonexistent/program");
        let tools = Tools {
            skopeo: missing.clone(),
            podman: missing,
            installer: Some("dnf install".into()),
            ..Tools::default()
        };
        for (unshare, hint) in [(false, "dnf install skopeo"), (true, "dnf install podman")] {
            let error = Proxy::start(&tools, &ProxyOptions { unshare, ..ProxyOptions::default() }).unwrap_err();
            assert_eq!(error.hint().as_deref(), Some(hint));
        }
        // A program that is no proxy: it ends at once.
        let tools = Tools { skopeo: "false".into(), ..Tools::default() };
        let error = Proxy::start(&tools, &ProxyOptions::default()).unwrap_err();
        assert!(error.to_string().starts_with("skopeo: "), "{error}");
    }
}
