//! Writes a layout: into a tar archive, or into a directory.

use std::io::{self, Read, Write};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use nix::unistd::syncfs;
use tar::{EntryType, Header};

use super::blob::{BLOBS, unwrap_damaged};
use super::layout::Layout;
use super::set::Plan;
use crate::error::{Error, Result};
use crate::process::Cancel;

const MARKER: &str = "oci-layout";
const MARKED: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "index.json";
/// The index before everything that it names is there.
const UNFINISHED: &str = "index.json.part";
/// Bytes that are copied at once.
const CHUNK: usize = 256 << 10;
/// What archives are padded to (POSIX, ustar).
const BLOCK: u64 = 512;

/// Where a layout goes.
pub trait Sink {
    /// Adds a directory.
    ///
    /// # Errors
    /// If it cannot be written.
    fn directory(&mut self, path: &str) -> io::Result<()>;

    /// Adds a file of `size` bytes.
    ///
    /// # Errors
    /// If it cannot be read or written.
    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> io::Result<()>;

    /// Ends it: from now on it is a layout.
    ///
    /// # Errors
    /// If it cannot be written.
    fn finish(&mut self) -> io::Result<()>;
}

/// A tar archive.
#[derive(Debug)]
pub struct Archive<W>(pub W);

impl<W: Write> Archive<W> {
    fn header(&mut self, path: &str, kind: EntryType, (size, mode): (u64, u32)) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_path(path)?;
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.0.write_all(header.as_bytes())
    }
}

impl<W: Write> Sink for Archive<W> {
    fn directory(&mut self, path: &str) -> io::Result<()> {
        self.header(&format!("{path}/"), EntryType::Directory, (0, 0o755))
    }

    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        self.header(path, EntryType::Regular, (size, 0o644))?;
        let copied = io::copy(content, &mut self.0)?;
        if copied != size {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{path} has {copied} bytes, not {size}")));
        }
        let padding = usize::try_from((BLOCK - size % BLOCK) % BLOCK).unwrap_or_default();
        self.0.write_all(&[0; BLOCK as usize][..padding])
    }

    fn finish(&mut self) -> io::Result<()> {
        self.0.write_all(&[0; 2 * BLOCK as usize])?;
        self.0.flush()
    }
}

/// A directory, which becomes a layout by its index.
#[derive(Debug)]
pub struct Directory<'a>(pub &'a Dir);

impl Sink for Directory<'_> {
    fn directory(&mut self, path: &str) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let path = if path == INDEX { UNFINISHED } else { path };
        // What was left by a save that was interrupted.
        match self.0.remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let options = OpenOptions::new().write(true).create_new(true).mode(0o644).clone();
        let copied = io::copy(content, &mut self.0.open_with(path, &options)?)?;
        match copied == size {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{path} has {copied} bytes, not {size}"))),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        syncfs(self.0.open(".")?)?;
        self.0.rename(UNFINISHED, self.0, INDEX)?;
        self.0.open(".")?.sync_all()
    }
}

/// Writes a layout; `progress` is told how many bytes of blobs there are so far. `name` is for messages.
///
/// # Errors
/// [`Error::Damaged`] where a blob is not what its digest says; [`Error::Io`] with `name`.
pub fn write(
    layout: &Layout,
    plan: &Plan,
    (name, sink): (&str, &mut dyn Sink),
    cancel: &Cancel,
    progress: &dyn Fn(u64),
) -> Result<()> {
    let at = |e: io::Error| unwrap_damaged(e, name);
    sink.file(MARKER, MARKED.len() as u64, &mut &*MARKED).map_err(at)?;
    // Before all that it names, so that who reads an archive once knows what comes.
    sink.file(INDEX, plan.index.len() as u64, &mut &*plan.index).map_err(at)?;
    sink.directory("blobs").map_err(at)?;
    sink.directory(BLOBS).map_err(at)?;
    let mut done = 0;
    let digests: std::collections::BTreeSet<&String> = plan.made.keys().chain(plan.blobs.keys()).collect();
    for digest in digests {
        cancel.check()?;
        let path = format!("{BLOBS}/{}", digest.trim_start_matches("sha256:"));
        match (plan.made.get(digest), plan.blobs.get(digest)) {
            (Some(bytes), _) => {
                sink.file(&path, bytes.len() as u64, &mut &**bytes).map_err(at)?;
                done += bytes.len() as u64;
            }
            (None, Some(blob)) => {
                let inner = io::BufReader::with_capacity(CHUNK, layout.open_blob(blob)?);
                let mut content = Watched { inner, cancel, progress, done };
                sink.file(&path, blob.size(), &mut content).map_err(at)?;
                done = content.done;
            }
            (None, None) => {}
        }
    }
    sink.finish().map_err(at)
}

/// A reader that tells how far it is, and ends when it is asked to.
struct Watched<'a, R> {
    inner: R,
    cancel: &'a Cancel,
    progress: &'a dyn Fn(u64),
    done: u64,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        let got = self.inner.read(buffer)?;
        self.done += got as u64;
        (self.progress)(self.done);
        Ok(got)
    }
}

/// Makes a directory ready for a set: it has to be empty but for what a save that was interrupted has left, which is removed.
///
/// # Errors
/// [`Error::Unavailable`] where something else is in it.
pub fn make_empty(dir: &Dir, name: &str) -> Result<()> {
    let unfinished = dir.exists(UNFINISHED);
    for entry in dir.entries().map_err(Error::io(name))? {
        let found = entry.map_err(Error::io(name))?.file_name().to_string_lossy().into_owned();
        let ours = unfinished && [MARKER, UNFINISHED, "blobs"].contains(&&*found);
        if !ours && found != "lost+found" {
            let reason = format!("{name} has {found} in it, and a set is written into an empty directory");
            return Err(Error::Unavailable { reason, hint: Some("name another directory, or a file".into()) });
        }
    }
    match dir.remove_dir_all("blobs") {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(name)(e)),
        _ => Ok(()),
    }
}
