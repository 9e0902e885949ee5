//! The store: an OCI image layout that keeps the exact bytes that were built, signed, pulled and pushed.
//!
//! ```text
//! STORE/
//!   oci-layout            {"imageLayoutVersion":"1.0.0"}
//!   index.json            one entry per name; the name is in org.opencontainers.image.ref.name, whole
//!   blobs/sha256/<hex>    0444, immutable
//!   .lock                 flock, exclusive: held while index.json is read, changed and replaced
//!   .gc.lock              flock: shared by whoever adds blobs until an entry names them, exclusive for the sweep
//!   .tmp/<pid>-<n>-<ns>   unfinished blobs; also private layouts and repositories (scratch)
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
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use oci_spec::image::{Descriptor, MediaType};
use ocidir::{OciDir, OciRead as _};
use serde_json::{Value, json};

use super::blob::{BLOBS, BlobWriter, Verified, hash, sha256, total_size, unwrap_damaged};
pub use super::index::{Entry, REF_NAME, entry_name, is_nameless, same_name, take_name};
use super::index::{Index, empty_index, raw_entries};
use crate::error::{Error, Result};
use crate::process::Cancel;
use crate::trust::policy::Policy;

/// Where unfinished files and private layouts are.
pub const TMP: &str = ".tmp";

const INDEX: &str = "index.json";

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
    pub(super) cancel: Cancel,
    pub(super) read_only: bool,
    pub(super) behind: Vec<Self>,
    pub(super) policy: Policy,
}

impl Layout {
    /// Opens the layout in `dir`; `path` is where it is, for messages and for programs that it is handed to.
    ///
    /// # Errors
    /// [`Error::Damaged`] if `dir` is not an OCI image layout.
    pub fn open(dir: Dir, path: &Path) -> Result<Self> {
        let marker = dir.read_to_string("oci-layout").map_err(|e| not_a_layout(path, &e))?;
        let version: Option<Value> = serde_json::from_str(&marker).ok();
        if version.as_ref().and_then(|v| v["imageLayoutVersion"].as_str()) != Some("1.0.0") {
            return Err(Error::damaged(path.join("oci-layout").display(), "imageLayoutVersion is not 1.0.0"));
        }
        let oci = OciDir::open(dir).map_err(|e| Error::damaged(path.display(), e))?;
        Ok(Self {
            oci,
            path: path.to_owned(),
            cancel: Cancel::default(),
            read_only: false,
            behind: Vec::new(),
            policy: Policy::default(),
        })
    }

    /// Opens the layout in `dir`; `None` where `dir` is empty, or holds no more than a store that is just being made.
    ///
    /// # Errors
    /// [`Error::Damaged`] if `dir` holds something else.
    pub fn open_existing(dir: Dir, path: &Path) -> Result<Option<Self>> {
        let mut attempt = 0;
        loop {
            if dir.exists("oci-layout") {
                return Self::open(dir, path).map(Some);
            }
            let Some(name) = foreign(&dir).map_err(Error::io(path.display().to_string()))? else { return Ok(None) };
            if attempt == INDEX_RETRIES {
                return Err(no_store(path, &format!("it has {name} but no oci-layout")));
            }
            // It may be the file that another process is just making oci-layout of.
            std::thread::sleep(INDEX_RETRY_AFTER);
            attempt += 1;
        }
    }

    /// Opens the layout in `dir` and makes one where there is none.
    ///
    /// # Errors
    /// [`Error::Damaged`] if `dir` holds something else.
    pub fn ensure(dir: Dir, path: &Path) -> Result<Self> {
        let copy = || dir.try_clone().map_err(Error::io(path.display().to_string()));
        let layout = match Self::open_existing(copy()?, path)? {
            Some(layout) => layout,
            None => {
                OciDir::ensure(copy()?).map_err(|e| create_failed(path, e))?;
                Self::open(dir, path)?
            }
        };
        if !layout.dir().exists(INDEX) {
            // Before any blob: from then on an index that is missing has been lost.
            layout.update(|_| Ok::<_, Error>(()))?;
        }
        Ok(layout)
    }

    /// Ends waiting for a lock when `cancel` says so.
    #[must_use]
    pub fn cancelled_by(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    /// Returns where the store is, for messages and for programs that it is handed to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the store's directory.
    pub fn dir(&self) -> &Dir {
        self.oci.dir()
    }

    /// Returns all entries, in the order of the file. Those that are no descriptors are left out: one of them must not
    /// keep all others from being used. [`Self::malformed`] has them.
    ///
    /// # Errors
    /// [`Error::Damaged`] if `index.json` is not an image index, also when read again.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let quick = |bytes: &[u8]| serde_json::from_slice(bytes).map(|index: Index| index.manifests);
        let parse = |bytes: &[u8]| quick(bytes).or_else(|_| raw_entries(bytes, |_| true).map(|(entries, _)| entries));
        Ok(self.read_index(parse)?.unwrap_or_default().into_iter().map(Entry::new).collect())
    }

    /// Returns what is wrong with each entry that is no descriptor.
    ///
    /// # Errors
    /// As [`Self::entries`].
    pub fn malformed(&self) -> Result<Vec<String>> {
        Ok(self.read_index(|bytes| raw_entries(bytes, |_| true))?.map(|(_, malformed)| malformed).unwrap_or_default())
    }

    /// Returns the entries in whose JSON `word` stands, which is much quicker than reading all of a large index.
    ///
    /// # Errors
    /// As [`Self::entries`].
    pub fn entries_with(&self, word: &str) -> Result<Vec<Entry>> {
        let parse = |bytes: &[u8]| raw_entries(bytes, |entry| entry.contains(word)).map(|(entries, _)| entries);
        Ok(self.read_index(parse)?.unwrap_or_default().into_iter().map(Entry::new).collect())
    }

    /// Reads and parses the index; `None` where there is none yet.
    fn read_index<T>(&self, parse: impl Fn(&[u8]) -> serde_json::Result<T>) -> Result<Option<T>> {
        let mut attempt = 0;
        loop {
            let bytes = match self.dir().open(INDEX) {
                Ok(file) => read_bounded(file, MAX_INDEX).map_err(Error::io(self.name_of(INDEX)))?,
                Err(e) if e.kind() == io::ErrorKind::NotFound && self.size()? == 0 => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return Err(self.index_damaged("it is missing, and there are blobs"));
                }
                Err(e) => return Err(Error::io(self.name_of(INDEX))(e)),
            };
            match parse(&bytes) {
                Ok(index) => return Ok(Some(index)),
                Err(_) if attempt < INDEX_RETRIES => std::thread::sleep(INDEX_RETRY_AFTER),
                Err(e) => return Err(self.index_damaged(e)),
            }
            attempt += 1;
        }
    }

    fn index_damaged(&self, why: impl std::fmt::Display) -> Error {
        let reason = format!("{} is damaged: {why}", self.name_of(INDEX));
        let hint = "restore it from a backup, or move the store away and build or pull anew; the blobs are untouched";
        Error::Unavailable { reason, hint: Some(hint.into()) }
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
        let _changing = self.changing()?;
        let before = self.read_index(|bytes| Ok((bytes.to_vec(), serde_json::from_slice(bytes)?)))?;
        let (before, mut index) = before.unwrap_or_else(|| (Vec::new(), empty_index()));
        let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(self.index_damaged("it has no list of manifests").into());
        };
        let result = change(manifests)?;
        let after = index.to_string().into_bytes();
        if after != before {
            self.replace_index(&after)?;
        }
        Ok(result)
    }

    fn replace_index(&self, index: &[u8]) -> Result<()> {
        // What could not be read again.
        if index.len() as u64 > MAX_INDEX {
            let reason = format!("{} would be larger than {MAX_INDEX} bytes", self.name_of(INDEX));
            return Err(Error::Unavailable { reason, hint: Some("skillctl prune, or use several stores".into()) });
        }
        self.sync_dir(BLOBS)?;
        let mut file = self.scratch_file()?;
        file.write_all(index).map_err(Error::io(self.name_of(INDEX)))?;
        file.publish(INDEX, 0o644)?;
        self.sync_dir(".")
    }

    /// Points `name` at `descriptor`, whose annotations become those of the entry. What had that name stays without one,
    /// as the Go tool leaves it, until `prune`.
    ///
    /// # Errors
    /// If the index cannot be changed.
    pub fn set(&self, name: &str, descriptor: &Value) -> Result<()> {
        self.set_if(name, descriptor, |_| Ok(()))
    }

    /// The same if `allow` agrees, which gets the entry that has the name now and is asked under the lock.
    ///
    /// # Errors
    /// Whatever `allow` returns; then nothing is changed.
    pub fn set_if(
        &self,
        name: &str,
        descriptor: &Value,
        allow: impl FnOnce(Option<&Value>) -> Result<()>,
    ) -> Result<()> {
        self.update(|entries| {
            allow(entries.iter().find(|entry| entry_name(entry).is_some_and(|other| same_name(other, name))))?;
            let mut entry = descriptor.clone();
            entry["annotations"][REF_NAME] = name.into();
            take_name(entries, |other| same_name(other, name));
            entries.retain(|other| !is_nameless(other) || other["digest"] != entry["digest"]);
            entries.push(entry);
            Ok(())
        })
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
        blob.write_all(bytes).map_err(Error::io(self.name_of(BLOBS)))?;
        blob.commit(&digest)?;
        Ok(digest)
    }

    /// Makes the file `hex` of `dir`, which is on the same file system and whose digest was checked, a blob.
    ///
    /// # Errors
    /// If it cannot be made durable or moved.
    pub fn adopt(&self, dir: &Dir, hex: &str) -> Result<()> {
        let target = format!("{BLOBS}/{hex}");
        let adopt = || -> io::Result<()> {
            let file = dir.open(hex)?;
            nix::sys::stat::fchmod(file.as_fd(), nix::sys::stat::Mode::from_bits_truncate(0o444))?;
            file.sync_data()?;
            dir.rename(hex, self.dir(), &target)
        };
        adopt().map_err(Error::io(self.name_of(&target)))
    }

    /// Opens a blob whose size is that of `descriptor`. The caller checks the digest while it reads: see [`Verified`].
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is missing or has another size.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<Verified<std::fs::File>> {
        let digest = descriptor.digest().as_ref();
        match self.open_own(descriptor) {
            // The cost of a second look is that of a failure only.
            Err(error) if !self.has(digest) => match self.behind.iter().find(|store| store.has(digest)) {
                Some(store) => store.open_own(descriptor),
                None => Err(error),
            },
            opened => opened,
        }
    }

    fn open_own(&self, descriptor: &Descriptor) -> Result<Verified<std::fs::File>> {
        let object = format!("blob {} in {}", descriptor.digest(), self.path.display());
        match self.oci.read_blob(descriptor) {
            Ok(file) => Ok(Verified::new(file, descriptor.digest().as_ref(), object)),
            Err(ocidir::Error::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
                Err(Error::damaged(object, "it is missing"))
            }
            Err(ocidir::Error::SizeMismatch { expected, found }) => {
                Err(Error::damaged(object, format!("it has {found} bytes, not {expected}")))
            }
            Err(e) => Err(Error::damaged(object, e)),
        }
    }

    /// Returns whether a blob is in this store and is what its descriptor says; reads all of it, unless asked to stop.
    pub fn has_whole(&self, descriptor: &Descriptor) -> bool {
        let whole = |blob: Verified<std::fs::File>| {
            let mut bytes = io::BufReader::with_capacity(1 << 18, blob.into_inner());
            hash(&mut bytes, &self.cancel).is_ok_and(|found| found == descriptor.digest().as_ref())
        };
        self.open_own(descriptor).is_ok_and(whole)
    }

    /// Reads a manifest or config, with size and digest verified.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the bytes are not those that the descriptor names.
    pub fn read_json(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.read_small(descriptor, MAX_JSON)
    }

    /// The same of a blob that may have up to `most` bytes.
    ///
    /// # Errors
    /// As [`Self::read_json`].
    pub fn read_small(&self, descriptor: &Descriptor, most: u64) -> Result<Vec<u8>> {
        if descriptor.size() > most {
            return Err(Error::damaged(
                format!("blob {}", descriptor.digest()),
                format!("{} bytes are too many for JSON", descriptor.size()),
            ));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(descriptor.size() + 1).unwrap_or(0));
        let mut blob = self.open_blob(descriptor)?;
        let object = blob.object.clone();
        blob.read_to_end(&mut bytes).map_err(|e| unwrap_damaged(e, &object))?;
        Ok(bytes)
    }

    /// Returns a descriptor of a manifest by its digest alone; `None` where there is no such blob.
    pub fn describe(&self, digest: &str) -> Option<Descriptor> {
        let hex = digest.strip_prefix("sha256:")?;
        let size = self.all().find_map(|store| store.dir().metadata(format!("{BLOBS}/{hex}")).ok())?.len();
        let media_type = MediaType::ImageManifest.to_string();
        serde_json::from_value(json!({"mediaType": media_type, "digest": digest, "size": size})).ok()
    }

    /// Returns the sum of the sizes of all blobs, in bytes.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn size(&self) -> Result<u64> {
        total_size(self.dir()).map_err(Error::io(self.name_of(BLOBS)))
    }

    /// Returns whether the blob is in this store, in whatever state.
    pub fn has(&self, digest: &str) -> bool {
        self.written_at(digest).is_some()
    }

    /// Returns when the store got the blob; `None` where it is not there.
    pub fn written_at(&self, digest: &str) -> Option<DateTime<Utc>> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        // One system call, where the checked way takes three: `list` asks for every image.
        let path = format!("{BLOBS}/{hex}");
        let stat = fstatat(self.dir(), path.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        DateTime::from_timestamp(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).ok()?)
    }

    /// Returns an empty file without a name, on the store's file system, that goes when it is closed.
    ///
    /// # Errors
    /// If none can be made.
    pub fn scratch(&self) -> Result<std::fs::File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let (name, file) = self.create_scratch(|name| self.dir().open_with(name, &options))?;
        match self.dir().remove_file(&name) {
            // `prune` was faster.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(Error::io(self.name_of(&name)))?,
        }
        Ok(file.into_std())
    }

    fn scratch_file(&self) -> Result<BlobWriter<'_>> {
        let (name, file) = self.create_scratch(|name| {
            self.dir().open_with(name, OpenOptions::new().write(true).create_new(true).mode(0o600))
        })?;
        Ok(BlobWriter::new(self.dir(), &self.path, name, file))
    }

    /// Makes something under a fresh name in `.tmp`.
    fn create_scratch<T>(&self, create: impl Fn(&str) -> io::Result<T>) -> Result<(String, T)> {
        self.check_writable()?;
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

    pub(super) fn name_of(&self, name: impl AsRef<Path>) -> String {
        self.path.join(name).display().to_string()
    }
}

/// Returns a file name that no other process or thread of this host uses.
fn fresh_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    format!("{}-{}-{nanos}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

fn read_bounded(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len().min(limit);
    // One more, so that the end of the file is seen without growing.
    let mut bytes = Vec::with_capacity(usize::try_from(size + 1).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Returns the name of a file that no store has, where there is one.
fn foreign(dir: &Dir) -> io::Result<Option<String>> {
    for entry in dir.entries()? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !matches!(&*name, "blobs" | "ingest" | "oci-layout" | "lost+found") {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn no_store(path: &Path, why: &str) -> Error {
    let reason = format!("{} is no store: {why}", path.display());
    Error::Unavailable { reason, hint: Some("give the right one with --store or SKILLCTL_STORE".into()) }
}

fn not_a_layout(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => no_store(path, "it has no oci-layout file"),
        kind => Error::io(path.join("oci-layout").display().to_string())(io::Error::new(kind, error.to_string())),
    }
}

fn create_failed(path: &Path, error: ocidir::Error) -> Error {
    match error {
        ocidir::Error::Io(e) => Error::io(path.display().to_string())(e),
        e => Error::damaged(path.display(), e),
    }
}
