//! Images between the store and any transport, by `skopeo copy`.
//!
//! Everything passes through a private layout below the store ([`super::private`]). What comes in is hashed here before
//! it is renamed into the store, and the index is left alone: the caller names what came, and holds [`Layout::writing`]
//! until then. A copy that fails leaves the blobs that came whole, for the next one, and `prune` to take them later.
//!
//! skopeo brings what podman has: credentials, certificates, mirrors, proxies, and the signature policy, which
//! `skopeo copy` enforces in every version.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::io::{self, BufReader, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use nix::fcntl::OFlag;
use nix::unistd::{pipe2, write};
use oci_spec::image::{Descriptor, ImageIndex};

use super::blob::{BLOBS, hash, sha256};
pub use super::copying::Copying;
use super::copying::{Run, STALL, failure};
use super::layout::{Layout, MAX_JSON};
use super::place::inherit;
pub use super::place::{Place, Secret};
use super::private::PrivateLayout;
use super::repository::Manifest;
use crate::error::{Error, Fault, Result};
use crate::image::Info;
use crate::process::Cancel;

/// Added to what a manifest declares before a copy is called larger: manifests, configs and skopeo's own files.
const SLACK: u64 = 16 << 20;
/// Size up to which a blob is hashed also when the user has asked to stop: it takes some milliseconds.
const AT_ONCE: u64 = 4 << 20;
/// Length of `sha256:…`.
const DIGEST: usize = 71;
/// Most images in one index: a dozen platforms exist.
pub const MAX_INSTANCES: usize = 100;

/// What is known of an image before it is fetched.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Its blobs, where its manifest has been read.
    pub blobs: Option<Vec<Descriptor>>,
    /// Most bytes that may come.
    pub limit: u64,
    /// What may happen to them.
    pub bytes: Bytes,
}

impl Expected {
    /// Checks the sizes that the manifest declares.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`]; [`Error::Damaged`] for a size that no registry takes.
    pub fn check(&self) -> Result<()> {
        match self.total() {
            Some(total) if total > self.limit => Err(too_large(total, self.limit)),
            _ => Ok(()),
        }
    }

    fn total(&self) -> Option<u64> {
        self.blobs.as_ref().map(|blobs| blobs.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size())))
    }
}

/// How the bytes of an image are treated on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    /// Every digest stays, and all images of an index come.
    Exact,
    /// skopeo may compress or convert, and takes the host's image of an index.
    Converted,
}

impl Bytes {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Exact => &["--all", "--preserve-digests"],
            Self::Converted => &[],
        }
    }
}

/// Fetches an image, with all instances of an index, and returns the descriptor of what the reference names.
///
/// # Errors
/// [`Error::Registry`] and others as skopeo fails; [`Error::LimitExceeded`]; [`Error::Damaged`] where what came is not
/// what its digest says.
pub fn fetch(layout: &Layout, from: &Place, expected: &Expected, copying: Copying<'_>) -> Result<Descriptor> {
    let total = expected.total();
    expected.check()?;
    let private = PrivateLayout::empty(layout.dir(), layout.path())?;
    let lent = lend(layout, &private, expected.blobs.as_deref().unwrap_or_default());
    let most = total.map_or(expected.limit, |total| total.min(expected.limit)).saturating_add(SLACK);
    let mut args: Vec<OsString> = vec!["copy".into(), "--remove-signatures".into()];
    args.extend(expected.bytes.flags().iter().map(Into::into));
    args.extend(from.flags("src"));
    args.extend([from.reference.clone().into(), private.reference().into()]);
    let mut too_many = false;
    let run = Run { args: &args, hosts: &[&from.host], secret: from.credentials.as_ref() };
    let copied = copying.run(run, &mut |_| {
        let bytes = private.bytes();
        too_many = bytes > most;
        (!too_many).then_some((bytes, total))
    });
    if too_many {
        return Err(match total {
            Some(total) if total < expected.limit => Error::Registry {
                registry: from.host.clone(),
                fault: Fault::Protocol,
                reason: format!("it sends more than the {total} bytes that the manifest declares"),
                hint: None,
            },
            _ => too_large(most, expected.limit),
        });
    }
    let adopted = adopt(layout, &private, &lent, &copying.tools.cancel);
    copied?;
    adopted?;
    let top = top_descriptor(&private)?;
    check_whole(layout, &top)?;
    Ok(top)
}

fn too_large(size: u64, limit: u64) -> Error {
    let what = format!("an image of {size} bytes");
    Error::LimitExceeded { what, limit: format!("{limit} bytes"), flag: "--max-size" }
}

/// Lends the blobs that the store has whole, and returns their names.
fn lend(layout: &Layout, private: &PrivateLayout, blobs: &[Descriptor]) -> HashSet<String> {
    let digests = blobs.iter().filter(|blob| layout.has_whole(blob)).map(|blob| blob.digest().to_string());
    // One that cannot be linked is fetched.
    digests.filter(|digest| private.lend(layout.dir(), digest).is_ok()).collect()
}

/// Moves every blob that is what its name says into the store.
fn adopt(layout: &Layout, private: &PrivateLayout, lent: &HashSet<String>, cancel: &Cancel) -> Result<()> {
    let at = |e| Error::io(private.path().display().to_string())(e);
    let blobs = match private.dir().open_dir(BLOBS) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        dir => dir.map_err(at)?,
    };
    let mut damaged = None;
    for entry in blobs.entries().map_err(at)? {
        let name = entry.map_err(at)?.file_name().to_string_lossy().into_owned();
        let digest = format!("sha256:{name}");
        let file = blobs.open(&name).map_err(at)?;
        let large = file.metadata().map_err(at)?.len() > AT_ONCE;
        if lent.contains(&digest) || (large && cancel.is_cancelled()) {
            continue;
        }
        let found = hash(&mut BufReader::with_capacity(1 << 18, file), cancel).map_err(at)?;
        if found == digest {
            layout.adopt(&blobs, &name)?;
        } else {
            damaged = Some(Error::damaged(format!("blob {digest}, as it came,"), format!("its digest is {found}")));
        }
    }
    damaged.map_or(Ok(()), Err)
}

fn top_descriptor(private: &PrivateLayout) -> Result<Descriptor> {
    let damaged = |reason: String| Error::damaged(private.path().join("index.json").display(), reason);
    let bytes = private.dir().read("index.json").map_err(|e| damaged(e.to_string()))?;
    let index: ImageIndex = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    match &index.manifests()[..] {
        [top] => Ok(top.clone()),
        entries => Err(damaged(format!("skopeo wrote {} entries", entries.len()))),
    }
}

/// Checks that everything a manifest or an index names is in the store, and returns the sum of its blobs' sizes.
///
/// # Errors
/// [`Error::Damaged`] for what is missing or has another size.
pub fn check_whole(layout: &Layout, top: &Descriptor) -> Result<u64> {
    let object = format!("manifest {}", top.digest());
    let info = Info::parse(&layout.read_json(top)?, &object)?;
    if info.instances.len() > MAX_INSTANCES {
        return Err(Error::damaged(object, format!("it lists {} images", info.instances.len())));
    }
    let mut sum: u64 = 0;
    for blob in info.layers.iter().chain(&info.config) {
        layout.open_blob(blob)?;
        sum = sum.saturating_add(blob.size());
    }
    for instance in &info.instances {
        if !Info::parse(&layout.read_json(instance)?, &object)?.instances.is_empty() {
            return Err(Error::damaged(object, "it is an index of indexes"));
        }
        sum = sum.saturating_add(check_whole(layout, instance)?);
    }
    Ok(sum)
}

/// Sends an image from a private layout, checks that it arrived with its digest, and returns what `made` does then.
///
/// `blobs` is a directory of blobs that the layout shares, for what is not in it. `size` is that of all blobs.
///
/// # Errors
/// As skopeo fails; [`Error::Registry`] with [`Fault::Protocol`] where the digest has changed.
pub fn send<T: Send>(
    private: &PrivateLayout,
    blobs: Option<PathBuf>,
    (digest, size): (&str, u64),
    to: &Place,
    copying: Copying<'_>,
    made: impl FnOnce() -> T + Send,
) -> Result<T> {
    let copy = |file| send_as(private, blobs, to, (Bytes::Exact, Some(size)), file, copying);
    with_digest(copy, |arrived| if arrived == digest { Ok(made()) } else { Err(changed(to, digest, arrived)) })
}

fn send_as(
    private: &PrivateLayout,
    blobs: Option<PathBuf>,
    to: &Place,
    (bytes, size): (Bytes, Option<u64>),
    digest_file: OsString,
    copying: Copying<'_>,
) -> Result<()> {
    let mut args: Vec<OsString> = vec!["copy".into()];
    args.extend(bytes.flags().iter().map(Into::into));
    args.extend(["--digestfile".into(), digest_file]);
    if let Some(blobs) = blobs {
        args.extend(["--src-shared-blob-dir".into(), blobs.into_os_string()]);
    }
    args.extend(to.flags("dest"));
    args.extend([private.reference().into(), to.reference.clone().into()]);
    let mut sent = Sent::default();
    let run = Run { args: &args, hosts: &[&to.host], secret: to.credentials.as_ref() };
    // Where it is not to be sent after all, skopeo may still wait for something else, such as a credential helper.
    let copied = copying.run(run, &mut |pid| (!private.is_refused()).then(|| (sent.look(pid), size)));
    copied.map_err(|error| rejected(error, private))
}

/// Sends an image to a transport that keeps it in a form of its own, and returns the digest that it has there.
///
/// # Errors
/// As skopeo fails.
pub fn send_converted(
    private: &PrivateLayout,
    blobs: Option<PathBuf>,
    to: &Place,
    copying: Copying<'_>,
) -> Result<String> {
    let copy = |file| send_as(private, blobs, to, (Bytes::Converted, None), file, copying);
    with_digest(copy, |arrived| Ok(arrived.to_owned()))
}

/// Runs a copy that writes the digest of what arrived to the file that it is given, and `made` with that digest.
///
/// The file is a pipe: skopeo takes a moment to end after it has made a copy, in which `made` does not have to wait.
fn with_digest<T: Send>(
    copy: impl FnOnce(OsString) -> Result<()>,
    made: impl FnOnce(&str) -> Result<T> + Send,
) -> Result<T> {
    let failed = || Error::io("skopeo's digest file");
    let (said, file) = pipe2(OFlag::O_CLOEXEC).map_err(|e| failed()(e.into()))?;
    let path = inherit(&file).map_err(failed())?;
    let mut said = std::fs::File::from(said);
    thread::scope(|scope| {
        let making = scope.spawn(move || {
            let mut digest = [0; DIGEST];
            said.read_exact(&mut digest).map_err(failed())?;
            made(&String::from_utf8_lossy(&digest))
        });
        let copied = copy(path.into());
        // Ends the wait for a digest that skopeo did not write, also where a child of skopeo keeps the pipe: an error is
        // told anyway. One that skopeo wrote is before it in the pipe.
        if copied.is_err() {
            let _ = write(&file, &[b' '; DIGEST]);
        }
        drop(file);
        let made = making.join();
        copied?;
        made.unwrap_or_else(|_| Err(Error::interrupted()))
    })
}

/// Returns the error for a policy that forbids to read the store itself, with the scope that allows it.
fn rejected(error: Error, private: &PrivateLayout) -> Error {
    match &error {
        Error::Registry { fault: Fault::Forbidden, reason, .. } if reason.contains(&private.reference()) => {
            let store = private.path().ancestors().nth(2).unwrap_or(private.path());
            let entry = serde_json::json!({ store.to_string_lossy(): [{ "type": "insecureAcceptAnything" }] });
            Error::Unavailable {
                reason: format!("policy.json rejects images of the store {}", store.display()),
                hint: Some(format!("add to \"transports\" in policy.json: \"oci\": {entry}")),
            }
        }
        _ => error,
    }
}

fn changed(to: &Place, digest: &str, arrived: &str) -> Error {
    Error::Registry {
        registry: to.host.clone(),
        fault: Fault::Protocol,
        reason: format!("the image arrived as {arrived}, and was sent as {digest}"),
        hint: None,
    }
}

/// Copies between two places that are not the store, and returns the digest that the destination has.
///
/// # Errors
/// As skopeo fails.
pub fn between(from: &Place, to: &Place, bytes: Bytes, copying: Copying<'_>) -> Result<String> {
    let secret = match (&from.credentials, &to.credentials) {
        (Some(one), Some(other)) => Some(one.with(other)?),
        (one, other) => one.as_ref().or(other.as_ref()).cloned(),
    };
    let copy = |digest_file| {
        let mut args: Vec<OsString> = vec!["copy".into(), "--remove-signatures".into()];
        args.extend(bytes.flags().iter().map(Into::into));
        args.extend(["--digestfile".into(), digest_file]);
        args.extend(from.flags("src"));
        args.extend(to.flags("dest"));
        args.extend([from.reference.clone().into(), to.reference.clone().into()]);
        let run = Run { args: &args, hosts: &[&to.host, &from.host], secret: secret.as_ref() };
        copying.run(run, &mut |pid| Some((moved(pid), None)))
    };
    with_digest(copy, |arrived| Ok(arrived.to_owned()))
}

/// Returns the manifest that a place has, as it is there; of containers-storage the one that the record shows.
///
/// # Errors
/// As skopeo fails; [`Error::Damaged`] where it is no image.
pub fn look(at: &Place, copying: Copying<'_>) -> Result<Manifest> {
    // The flags of a verb with one side have no prefix.
    let flags = at.flags("src").into_iter().map(|flag| match flag.to_str().and_then(|f| f.strip_prefix("--src-")) {
        Some(rest) => format!("--{rest}").into(),
        None => flag,
    });
    let mut process = copying.tools.skopeo().args(["inspect", "--raw"]).args(flags).arg(&at.reference);
    if let Some(secret) = &at.credentials {
        process = process.stdin_file(Arc::new(secret.file()?));
    }
    let output = process.stdout_limit(usize::try_from(MAX_JSON).unwrap_or(usize::MAX)).timeout(STALL).output()?;
    match output.success() && !output.truncated {
        true => Manifest::new(&sha256(&output.stdout), output.stdout),
        false if output.truncated => Err(Error::damaged(&at.reference, "its manifest is larger than 4 MiB")),
        false => Err(failure(&output, &[&at.host])),
    }
}

/// Returns how many bytes a process has read and written so far, of files and connections alike.
fn moved(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let count = |key| io.lines().find_map(|line| line.strip_prefix(key)).and_then(|n| n.trim().parse::<u64>().ok());
    count("rchar:").unwrap_or(0).saturating_add(count("wchar:").unwrap_or(0))
}

/// How much of each blob a sending skopeo has read, by its descriptors.
#[derive(Debug, Default)]
struct Sent(BTreeMap<PathBuf, u64>);

impl Sent {
    /// Looks again, and returns the sum. What cannot be read counts as it was: this is only shown.
    fn look(&mut self, pid: u32) -> u64 {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for descriptor in descriptors {
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            if !target.parent().is_some_and(|dir| dir.ends_with(BLOBS)) {
                continue;
            }
            let info = format!("/proc/{pid}/fdinfo/{}", descriptor.file_name().to_string_lossy());
            let position = std::fs::read_to_string(info).ok().and_then(|text| {
                text.lines().find_map(|line| line.strip_prefix("pos:")).and_then(|pos| pos.trim().parse().ok())
            });
            let most = self.0.entry(target).or_default();
            *most = (*most).max(position.unwrap_or(0));
        }
        self.0.values().sum()
    }
}
