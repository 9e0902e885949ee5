//! From a directory to a layer: tar entries that say nothing about the host, compressed.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cap_std::fs::Dir;

use super::bounds::Tally;
use super::compress::{BLOCK, LayerWriter, Sums};
use super::exclude::Rules;
use super::header::{END, Meta, encode, padding};
use super::stream::Encoding;
use super::walk::{Visit, Walk, refused};
use crate::error::{Error, Result};
use crate::limits::Limits;

/// How a layer is made.
#[derive(Clone, Default)]
pub struct PackOptions<'a> {
    /// Modification time of every entry, in seconds since 1970.
    pub mtime: u64,
    /// Number of compressing threads; by default one for each CPU that the process may use.
    pub threads: Option<NonZero<usize>>,
    /// Patterns, in gitignore syntax, of what is packed although its name suggests otherwise.
    pub include: Vec<String>,
    /// Files that are not in the directory, by their name at the skill's root.
    pub extra: Vec<(String, Vec<u8>)>,
    /// The directory of the layer that everything is in; empty for its root.
    pub below: String,
    /// Whether the layer is compressed.
    pub encoding: Encoding,
    /// Bounds on what is read.
    pub limits: Limits,
    /// Called with the number of content bytes read so far, on the caller's thread.
    pub progress: Option<&'a dyn Fn(u64)>,
    /// Ends the work with an error of the kind `Interrupted` when it becomes true.
    pub cancelled: Option<&'a AtomicBool>,
}

impl std::fmt::Debug for PackOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackOptions")
            .field("mtime", &self.mtime)
            .field("threads", &self.threads)
            .field("include", &self.include)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A layer that was written, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the compressed bytes, `sha256:…`.
    pub digest: String,
    /// Number of compressed bytes.
    pub size: u64,
    /// Digest of the tar archive, `sha256:…`.
    pub diff_id: String,
    /// Number of bytes of the tar archive.
    pub diff_size: u64,
    /// Number of files.
    pub files: u64,
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Number of files and directories that were left out; one for a directory with all that is in it.
    pub left_out: u64,
}

/// Writes the layer of the skill in `dir` to `out`.
///
/// The layer depends on the names, contents and executable bits of the files and on the options' `mtime`, `include` and
/// `extra`, and on nothing else.
///
/// # Errors
///
/// [`Error::RefusedEntry`] for what cannot or should not be in a skill, [`Error::LimitExceeded`], and [`Error::Io`]. What
/// was written to `out` is then worthless.
pub fn pack<W: Write + Send>(dir: &Dir, out: W, options: &PackOptions<'_>) -> Result<Packed> {
    let rules = Rules::load(dir, &options.include)?;
    packed(out, options, |visitor| {
        let mut walk = Walk {
            root: dir,
            rules,
            extra: &options.extra,
            tally: Tally::new(options.limits),
            cancelled: options.cancelled,
            visitor,
            left_out: 0,
            open: Vec::new(),
        };
        walk.run()?;
        Ok((walk.tally, walk.left_out))
    })
}

/// Writes a layer of what `walk` shows, which returns what it counted and the number of things that it left out.
pub(super) fn packed<W: Write + Send>(
    out: W,
    options: &PackOptions<'_>,
    walk: impl FnOnce(&mut dyn Visit) -> Result<(Tally, u64)>,
) -> Result<Packed> {
    if let Some((name, _)) = options.extra.iter().find(|(name, _)| !is_plain_name(name)) {
        return Err(refused(name, "is generated, and has to be at the skill's root", None));
    }
    let threads = options.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get);
    thread::scope(|scope| {
        let out = LayerWriter::new(scope, out, (threads, options.encoding));
        let mut packer = Packer { out, options, header: Vec::new(), read: 0 };
        packer.directory(".")?;
        let (tally, left_out) = walk(&mut packer)?;
        packer.finish(&tally, left_out)
    })
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

/// Turns what the walk finds into a tar archive.
struct Packer<'a, 'scope, 'env, W> {
    out: LayerWriter<'scope, 'env, W>,
    options: &'a PackOptions<'a>,
    header: Vec<u8>,
    read: u64,
}

impl<'scope, W: Write + Send + 'scope> Packer<'_, 'scope, '_, W> {
    fn header(&mut self, path: &str, directory: bool, executable: bool, size: u64) -> Result<()> {
        self.header.clear();
        let path: Cow<'_, str> = match (self.options.below.as_str(), path) {
            ("", path) => path.into(),
            (below, ".") => below.into(),
            (below, path) => format!("{below}/{path}").into(),
        };
        encode(&path, Meta { directory, executable, size, mtime: self.options.mtime }, &mut self.header);
        self.out.write(&self.header).map_err(writing)
    }

    /// Copies exactly as many bytes as the header says.
    fn content(&mut self, path: &str, from: &mut dyn Read, size: u64) -> Result<()> {
        let mut left = size;
        while left > 0 {
            if self.options.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
                return Err(Error::io(path)(io::ErrorKind::Interrupted.into()));
            }
            let space = self.out.space().map_err(writing)?;
            let want = usize::try_from(left).map_or(space.len(), |left| left.min(space.len()));
            let got = match from.read(&mut space[..want]) {
                Ok(0) => return Err(changed(path)),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io(path)(error)),
            };
            self.out.advance(got);
            left -= got as u64;
            self.read += got as u64;
            if let Some(progress) = self.options.progress {
                progress(self.read);
            }
        }
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        self.out.write(&END[..padding(size)]).map_err(writing)
    }

    fn finish(mut self, tally: &Tally, left_out: u64) -> Result<Packed> {
        self.out.write(&END).map_err(writing)?;
        let Sums { packed, packed_size, plain, plain_size } = self.out.finish().map_err(writing)?;
        Ok(Packed {
            digest: format!("sha256:{packed}"),
            size: packed_size,
            diff_id: format!("sha256:{plain}"),
            diff_size: plain_size,
            files: tally.files,
            bytes: tally.bytes,
            left_out,
        })
    }
}

impl<'scope, W: Write + Send + 'scope> Visit for Packer<'_, 'scope, '_, W> {
    fn directory(&mut self, path: &str) -> Result<()> {
        self.header(path, true, true, 0)
    }

    fn file(&mut self, path: &str, file: &File, metadata: &Metadata) -> Result<()> {
        let size = metadata.len();
        if size > BLOCK as u64 {
            read_ahead(file);
        }
        self.header(path, false, metadata.mode() & 0o111 != 0, size)?;
        self.content(path, &mut { file }, size)?;
        let after = file.metadata().map_err(Error::io(path))?;
        let stamp = |of: &Metadata| (of.len(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec());
        if stamp(&after) != stamp(metadata) {
            return Err(changed(path));
        }
        self.pad(size)
    }

    fn stored(&mut self, path: &str, (content, size): (&mut dyn Read, u64), executable: bool) -> Result<()> {
        self.header(path, false, executable, size)?;
        self.content(path, content, size)?;
        self.pad(size)
    }

    fn generated(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let size = content.len() as u64;
        self.header(path, false, false, size)?;
        self.out.write(content).map_err(writing)?;
        self.pad(size)
    }
}

/// Asks the kernel to read large files from disk before they are needed; a hint, so failing is no matter.
fn read_ahead(file: &File) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
}

fn changed(path: &str) -> Error {
    refused(path, "changed while it was read", Some("run the build again"))
}

fn writing(error: io::Error) -> Error {
    Error::io("layer")(error)
}
