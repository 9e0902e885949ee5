//! The store: an OCI image layout that keeps the exact bytes that were built, signed, pulled and pushed.
//!
//! ```text
//! STORE/
//!   oci-layout            {"imageLayoutVersion":"1.0.0"}
//!   index.json            one entry per name; the name is in org.opencontainers.image.ref.name, whole
//!   blobs/sha256/<hex>    0444, immutable
//!   .lock                 flock, exclusive: held while index.json is read, changed and replaced
//!   .gc.lock              flock: shared by whoever adds blobs until an entry names them, exclusive for the sweep
//!   .tmp/<pid>-<n>-<ns>   unfinished blobs, and private layouts that are handed to skopeo
//!   ingest/               the same of the Go skillctl, which this layout is shared with
//! ```
//!
//! Order of locks: `.gc.lock`, then `.lock`. Reading takes none: `index.json` is only ever replaced by rename.
//!
//! Crash story: a blob is written in `.tmp`, synced and renamed to its digest; then its directory is synced; then the
//! index that names it is written, synced and renamed; then the store's directory is synced. A crash at any point leaves
//! the old index, which names only blobs that are whole, and garbage that `prune` removes.
//!
//! The Go `skillctl` takes no lock and rewrites `index.json` in place. An index that does not parse is therefore read
//! again a few times before it is called damaged.

use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt as _};
use chrono::{DateTime, Utc};
use nix::fcntl::{Flock, FlockArg};
use oci_spec::image::{Descriptor, ImageIndex, MediaType};
use ocidir::{OciDir, OciRead as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// The annotation that holds the name of an index entry.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Where unfinished files and private layouts are.
pub const TMP: &str = ".tmp";

const BLOBS: &str = "blobs/sha256";
const INDEX: &str = "index.json";
const LOCK: &str = ".lock";
const GC_LOCK: &str = ".gc.lock";

/// Largest manifest or config that is read, in bytes: what registries accept for a manifest (distribution
/// specification, 4 MiB).
pub const MAX_JSON: u64 = 4 << 20;

/// Largest `index.json`, in bytes: 100,000 entries with all annotations.
const MAX_INDEX: u64 = 128 << 20;

/// How often an index that does not parse is read again, and after how long each time: the Go tool writes it in place
/// within a millisecond.
const INDEX_RETRIES: u32 = 5;
const INDEX_RETRY_AFTER: Duration = Duration::from_millis(20);

/// An open store.
#[derive(Debug)]
pub struct Layout {
    oci: OciDir,
    path: PathBuf,
}

/// One entry of the index.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The whole reference, where the entry has one.
    pub name: Option<String>,
    /// What it names.
    pub descriptor: Descriptor,
}

impl Entry {
    fn new(descriptor: Descriptor) -> Self {
        let name = descriptor
            .annotations()
            .as_ref()
            .and_then(|a| a.get(REF_NAME))
            .cloned();
        Self { name, descriptor }
    }

    /// Returns the digest of the manifest, `sha256:…`.
    pub fn digest(&self) -> &str {
        self.descriptor.digest().as_ref()
    }
}

/// Keeps the sweep of `prune` away while blobs are added that no entry names yet.
#[derive(Debug)]
#[must_use = "blobs may be collected as soon as this is dropped"]
pub struct Writing {
    _lock: Flock<std::fs::File>,
}

/// The right to sweep: nobody adds blobs while it is held.
#[derive(Debug)]
#[must_use = "others may add blobs as soon as this is dropped"]
pub struct Sweeping {
    _lock: Flock<std::fs::File>,
}

impl Layout {
    /// Opens the layout in `dir`; `path` is where it is, for messages and for programs that it is handed to.
    ///
    /// # Errors
    /// [`Error::Damaged`] if `dir` is not an OCI image layout.
    pub fn open(dir: Dir, path: &Path) -> Result<Self> {
        let marker = dir
            .read_to_string("oci-layout")
            .map_err(|e| not_a_layout(path, &e))?;
        let version: Option<Value> = serde_json::from_str(&marker).ok();
        if version
            .as_ref()
            .and_then(|v| v["imageLayoutVersion"].as_str())
            != Some("1.0.0")
        {
            return Err(damaged(
                path.join("oci-layout").display(),
                "imageLayoutVersion is not 1.0.0",
            ));
        }
        let oci = OciDir::open(dir).map_err(|e| damaged(path.display(), e))?;
        Ok(Self {
            oci,
            path: path.to_owned(),
        })
    }

    /// Opens the layout in `dir` and makes one where `dir` is empty.
    ///
    /// # Errors
    /// [`Error::Damaged`] if `dir` holds something else.
    pub fn ensure(dir: Dir, path: &Path) -> Result<Self> {
        if !dir.exists("oci-layout") {
            let foreign = dir
                .entries()
                .map_err(Error::io(path.display().to_string()))?
                .find_map(|entry| {
                    let name = entry.ok()?.file_name().into_string().ok()?;
                    let ours = name.starts_with('.')
                        || name == "blobs"
                        || name == "ingest"
                        || name == "lost+found";
                    (!ours).then_some(name)
                });
            if let Some(name) = foreign {
                return Err(damaged(
                    path.display(),
                    format!("it has {name} but no oci-layout, so it is no store"),
                ));
            }
            OciDir::ensure(
                dir.try_clone()
                    .map_err(Error::io(path.display().to_string()))?,
            )
            .map_err(|e| create_failed(path, e))?;
        }
        Self::open(dir, path)
    }

    /// Returns where the store is, for messages and for programs that it is handed to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the store's directory.
    pub fn dir(&self) -> &Dir {
        self.oci.dir()
    }

    /// Returns all entries, in the order of the file.
    ///
    /// # Errors
    /// [`Error::Damaged`] if `index.json` is not an image index, also when read again.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let index: Option<ImageIndex> = self.read_index()?;
        Ok(index.map_or_else(Vec::new, |index| {
            index.manifests().iter().cloned().map(Entry::new).collect()
        }))
    }

    /// Reads and parses the index; `None` where there is none yet.
    fn read_index<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>> {
        let mut attempt = 0;
        loop {
            let bytes = match self.dir().open(INDEX) {
                Ok(file) => {
                    read_bounded(file, MAX_INDEX).map_err(Error::io(self.name_of(INDEX)))?
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(Error::io(self.name_of(INDEX))(e)),
            };
            match serde_json::from_slice(&bytes) {
                Ok(index) => return Ok(Some(index)),
                Err(_) if attempt < INDEX_RETRIES => std::thread::sleep(INDEX_RETRY_AFTER),
                Err(e) => return Err(damaged(self.name_of(INDEX), e)),
            }
            attempt += 1;
        }
    }

    /// Changes the index: `change` gets the entries as JSON, so that fields unknown to us survive.
    ///
    /// Durable when it returns: the blobs' directory is synced first, the store's last.
    ///
    /// # Errors
    /// Whatever `change` returns; then nothing is written.
    pub fn update<T, E: From<Error>>(
        &self,
        change: impl FnOnce(&mut Vec<Value>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let _lock = self.lock(LOCK, FlockArg::LockExclusive)?;
        let mut index: Value = self.read_index()?.unwrap_or_else(
            || serde_json::json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex.to_string(), "manifests": []}),
        );
        let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(damaged(self.name_of(INDEX), "it has no list of manifests").into());
        };
        let before = manifests.clone();
        let result = change(manifests)?;
        if *manifests != before || !self.dir().exists(INDEX) {
            self.replace_index(&index)?;
        }
        Ok(result)
    }

    fn replace_index(&self, index: &Value) -> Result<()> {
        self.sync_dir(BLOBS)?;
        let mut file = self.scratch_file()?;
        serde_json::to_writer(&mut file, index)
            .map_err(|e| Error::io(self.name_of(INDEX))(e.into()))?;
        file.publish(INDEX, 0o644)?;
        self.sync_dir(".")
    }

    /// Points `name` at `descriptor`, whose annotations become those of the entry; another entry of that name goes.
    ///
    /// # Errors
    /// If the index cannot be changed.
    pub fn set(&self, name: &str, descriptor: &Value) -> Result<()> {
        self.update(|entries| {
            entries.retain(|entry| entry_name(entry) != Some(name));
            let mut entry = descriptor.clone();
            entry["annotations"][REF_NAME] = name.into();
            entries.push(entry);
            Ok(())
        })
    }

    /// Says that blobs will be added; hold the result until an entry names them.
    ///
    /// # Errors
    /// If the lock file cannot be made, for example in a read-only store.
    pub fn writing(&self) -> Result<Writing> {
        Ok(Writing {
            _lock: self.lock(GC_LOCK, FlockArg::LockShared)?,
        })
    }

    /// Waits until nobody adds blobs, and keeps it so.
    ///
    /// # Errors
    /// If the lock file cannot be made.
    pub fn sweeping(&self) -> Result<Sweeping> {
        Ok(Sweeping {
            _lock: self.lock(GC_LOCK, FlockArg::LockExclusive)?,
        })
    }

    fn lock(&self, name: &str, how: FlockArg) -> Result<Flock<std::fs::File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o644);
        let mut file = self
            .dir()
            .open_with(name, &options)
            .map_err(Error::io(self.name_of(name)))?
            .into_std();
        loop {
            match Flock::lock(file, how) {
                Ok(lock) => return Ok(lock),
                Err((again, nix::errno::Errno::EINTR)) => file = again,
                Err((_, errno)) => return Err(Error::io(self.name_of(name))(errno.into())),
            }
        }
    }

    /// Starts a blob; nothing can name it before [`BlobWriter::commit`].
    ///
    /// # Errors
    /// If no file can be made in the store.
    pub fn blob(&self) -> Result<BlobWriter<'_>> {
        self.scratch_file()
    }

    /// Writes a whole blob and returns its digest.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_blob(&self, bytes: &[u8]) -> Result<String> {
        let digest = sha256(bytes);
        let mut blob = self.blob()?;
        blob.write_all(bytes)
            .map_err(Error::io(self.name_of(BLOBS)))?;
        blob.commit(&digest)?;
        Ok(digest)
    }

    /// Opens a blob whose size is that of `descriptor`. The caller checks the digest while it reads: see [`Verified`].
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is missing or has another size.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<Verified<std::fs::File>> {
        let object = format!("blob {} in {}", descriptor.digest(), self.path.display());
        match self.oci.read_blob(descriptor) {
            Ok(file) => Ok(Verified::new(file, descriptor.digest().as_ref(), object)),
            Err(ocidir::Error::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
                Err(damaged(object, "it is missing"))
            }
            Err(ocidir::Error::SizeMismatch { expected, found }) => Err(damaged(
                object,
                format!("it has {found} bytes, not {expected}"),
            )),
            Err(e) => Err(damaged(object, e)),
        }
    }

    /// Reads a manifest or config, with size and digest verified.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the bytes are not those that the descriptor names.
    pub fn read_json(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        if descriptor.size() > MAX_JSON {
            return Err(damaged(
                format!("blob {}", descriptor.digest()),
                format!("{} bytes are too many for JSON", descriptor.size()),
            ));
        }
        let mut bytes = Vec::new();
        let mut blob = self.open_blob(descriptor)?;
        let object = blob.object.clone();
        blob.read_to_end(&mut bytes)
            .map_err(|e| unwrap_damaged(e, &object))?;
        Ok(bytes)
    }

    /// Returns when the store got the blob; `None` where it is not there.
    pub fn written_at(&self, digest: &str) -> Option<DateTime<Utc>> {
        let hex = digest.strip_prefix("sha256:")?;
        let modified = self
            .dir()
            .metadata(format!("{BLOBS}/{hex}"))
            .ok()?
            .modified()
            .ok()?;
        Some(modified.into_std().into())
    }

    fn scratch_file(&self) -> Result<BlobWriter<'_>> {
        let (name, file) = self.create_scratch(|name| {
            self.dir().open_with(
                name,
                OpenOptions::new().write(true).create_new(true).mode(0o600),
            )
        })?;
        Ok(BlobWriter {
            layout: self,
            name: Some(name),
            file: io::BufWriter::with_capacity(1 << 16, file),
        })
    }

    /// Makes something under a fresh name in `.tmp`.
    fn create_scratch<T>(&self, create: impl Fn(&str) -> io::Result<T>) -> Result<(String, T)> {
        loop {
            let name = format!("{TMP}/{}", fresh_name());
            match create(&name) {
                Ok(made) => return Ok((name, made)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => match self.dir().create_dir(TMP) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(Error::io(self.name_of(TMP))(e));
                    }
                    _ => {}
                },
                Err(e) => return Err(Error::io(self.name_of(TMP))(e)),
            }
        }
    }

    fn sync_dir(&self, name: &str) -> Result<()> {
        let sync = || self.dir().open(name)?.sync_all();
        sync().map_err(Error::io(self.name_of(name)))
    }

    fn name_of(&self, name: impl AsRef<Path>) -> String {
        self.path.join(name).display().to_string()
    }
}

/// Returns the name of an index entry that is still JSON.
pub fn entry_name(entry: &Value) -> Option<&str> {
    entry["annotations"][REF_NAME].as_str()
}

/// Returns a file name that no other process or thread of this host uses.
fn fresh_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos());
    format!(
        "{}-{}-{nanos}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    )
}

/// A file in `.tmp` that becomes a blob, or goes when it is dropped.
#[derive(Debug)]
pub struct BlobWriter<'a> {
    layout: &'a Layout,
    name: Option<String>,
    file: io::BufWriter<File>,
}

impl BlobWriter<'_> {
    /// Makes what was written the blob `digest` (`sha256:…`), which the caller has computed over these bytes.
    ///
    /// A blob of that digest that is already there is replaced: it may have been torn by a crash of a tool that does
    /// not sync.
    ///
    /// # Errors
    /// If the bytes cannot be made durable.
    pub fn commit(self, digest: &str) -> Result<()> {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.publish(&format!("{BLOBS}/{hex}"), 0o444)
    }

    fn publish(mut self, target: &str, mode: u32) -> Result<()> {
        let object = self.layout.name_of(target);
        let publish = || -> io::Result<()> {
            self.file.flush()?;
            let file = self.file.get_ref();
            nix::sys::stat::fchmod(file.as_fd(), nix::sys::stat::Mode::from_bits_truncate(mode))?;
            file.sync_data()?;
            let name = self.name.as_deref().unwrap_or_default();
            self.layout.dir().rename(name, self.layout.dir(), target)
        };
        let mut publish = publish;
        publish().map_err(Error::io(object))?;
        self.name = None;
        Ok(())
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            // What stays after a failure here is garbage that prune removes.
            let _ = self.layout.dir().remove_file(name);
        }
    }
}

/// A reader that fails at the end if what it gave was not the blob of its digest.
#[derive(Debug)]
pub struct Verified<R> {
    inner: R,
    hash: Sha256,
    digest: String,
    object: String,
}

impl<R: Read> Verified<R> {
    fn new(inner: R, digest: &str, object: String) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            digest: digest.to_owned(),
            object,
        }
    }

    /// Returns the reader without the check, for a caller that hashes by itself.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        if n == 0 && !buffer.is_empty() {
            let found = format!("sha256:{}", hex::encode(self.hash.clone().finalize()));
            if found != self.digest {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    damaged(&self.object, format!("its digest is {found}")),
                ));
            }
        }
        Ok(n)
    }
}

/// Returns the [`Error`] that a [`Verified`] reader put into an I/O error, or one that names `object`.
pub fn unwrap_damaged(error: io::Error, object: &str) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io(object)(error),
    }
}

/// Returns `sha256:` and the digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn read_bounded(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

fn damaged(object: impl ToString, reason: impl ToString) -> Error {
    Error::Damaged {
        object: object.to_string(),
        reason: reason.to_string(),
    }
}

fn not_a_layout(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => damaged(
            path.display(),
            "it has no oci-layout file, so it is no store",
        ),
        _ => Error::Io {
            object: path.join("oci-layout").display().to_string(),
            source: io::Error::new(error.kind(), error.to_string()),
        },
    }
}

fn create_failed(path: &Path, error: ocidir::Error) -> Error {
    match error {
        ocidir::Error::Io(e) => Error::io(path.display().to_string())(e),
        e => damaged(path.display(), e),
    }
}
