//! The bytes of a layer, decompressed and hashed on both sides.
//!
//! Large layers are read and hashed on one thread and inflated on another, so that writing the files goes on at the same
//! time. The end of the stream is reported only for a blob that is exactly the expected one.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Scope};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::bounds::exceeded;
use crate::error::{Error, Result};
use crate::limits::{Limits, RATIO_AFTER};

/// Bytes that are passed on at once: they stay in the second-level cache from inflating to writing.
const CHUNK: usize = 256 << 10;

/// Chunks under way between the two threads.
const CHUNKS: usize = 4;

/// Compressed size up to which a second thread costs more than it saves.
const ONE_THREAD: u64 = 128 << 10;

/// Most bytes after the end of an archive; tar pads to its record size, 10 KiB unless told otherwise.
const TRAILER: u64 = 1 << 20;

/// Most bytes that an archive spends on one entry beside its content: headers, a path of 4 KiB and their padding.
const OVERHEAD: u64 = 8 << 10;

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// A tar archive in one or more gzip members.
    #[default]
    Gzip,
    /// A plain tar archive.
    Tar,
}

/// What a layer has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Digest of the blob, `sha256:…`.
    pub digest: String,
    /// Number of bytes of the blob.
    pub size: u64,
    /// Digest of the archive, `sha256:…`, where it is known.
    pub diff_id: Option<String>,
    /// How it is stored.
    pub encoding: Encoding,
}

/// A reader that hashes and counts, and ends with an error after too many bytes.
struct Blob<R> {
    inner: R,
    hash: Sha256,
    read: u64,
    size: u64,
}

impl<R: Read> Read for Blob<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.hash.update(&buffer[..got]);
        self.read += got as u64;
        if self.read > self.size {
            return Err(damaged(format!("it has more than the expected {} bytes", self.size)));
        }
        Ok(got)
    }
}

/// A blob that is being read.
trait Input: BufRead {
    /// Returns the number of bytes so far.
    fn count(&self) -> u64;
    /// Returns the digest of all bytes, once the end was read.
    fn digest(&self) -> String;
}

impl<R: Read> Input for BufReader<Blob<R>> {
    fn count(&self) -> u64 {
        self.get_ref().read
    }

    fn digest(&self) -> String {
        digest_of(self.get_ref().hash.clone())
    }
}

/// A blob that another thread reads and hashes.
struct Ahead {
    chunks: Chunks,
    chunk: Chunk,
    at: usize,
    read: u64,
    digest: Arc<OnceLock<String>>,
}

impl Ahead {
    fn start<'scope, R: Read + Send + 'scope>(scope: &'scope Scope<'scope, '_>, mut blob: Blob<R>) -> Self {
        let digest = Arc::new(OnceLock::new());
        let known = Arc::clone(&digest);
        let chunks = Chunks::start(scope, move |chunk| {
            chunk.fill(|space| blob.read(space))?;
            if chunk.len == 0 {
                known.get_or_init(|| digest_of(blob.hash.clone()));
            }
            Ok(())
        });
        Self { chunks, chunk: Chunk::default(), at: 0, read: 0, digest }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.fill_buf()?.read(buffer)?;
        self.consume(got);
        Ok(got)
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len {
            self.at = 0;
            self.chunk.len = 0;
            self.chunks.next(&mut self.chunk)?;
            self.read += self.chunk.len as u64;
        }
        Ok(&self.chunk.bytes[self.at..self.chunk.len])
    }

    fn consume(&mut self, len: usize) {
        self.at += len;
    }
}

impl Input for Ahead {
    fn count(&self) -> u64 {
        self.read
    }

    fn digest(&self) -> String {
        self.digest.get().cloned().unwrap_or_default()
    }
}

enum Decoder<R> {
    Gzip(Box<MultiGzDecoder<R>>),
    Tar(R),
}

/// Inflates a blob chunk by chunk.
struct Source<'a, R> {
    decoder: Decoder<R>,
    expected: &'a Expected,
    limits: Limits,
    ceiling: u64,
    inflated: u64,
}

#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    len: usize,
}

impl Chunk {
    /// Reads until it is full; leaves it shorter, or empty, at the end.
    fn fill(&mut self, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        self.bytes.resize(CHUNK, 0);
        self.len = 0;
        while self.len < CHUNK {
            match read(&mut self.bytes[self.len..]) {
                Ok(0) => break,
                Ok(got) => self.len += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted && error.get_ref().is_none() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Chunks that another thread fills; an empty one is the last.
struct Chunks {
    empty: Sender<Chunk>,
    ready: Receiver<io::Result<Chunk>>,
    ended: bool,
}

impl Chunks {
    fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        fill: impl FnMut(&mut Chunk) -> io::Result<()> + Send + 'scope,
    ) -> Self {
        let (empty, free) = channel();
        let (full, ready) = sync_channel(CHUNKS);
        for _ in 0..CHUNKS {
            // The receiver is alive: it is still here.
            let _ = empty.send(Chunk::default());
        }
        scope.spawn(move || pump(fill, &free, &full));
        Self { empty, ready, ended: false }
    }

    /// Replaces a chunk, which was read, by the next one; by an empty one for ever after the last.
    fn next(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        if self.ended {
            chunk.len = 0;
            return Ok(());
        }
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let next = self.ready.recv().map_err(gone)??;
        self.ended = next.len == 0;
        let used = std::mem::replace(chunk, next);
        // Fails when all has been read and no more buffers are wanted.
        let _ = self.empty.send(used);
        Ok(())
    }
}

impl<'a, R: Input> Source<'a, R> {
    fn new(blob: R, expected: &'a Expected, limits: &Limits) -> Self {
        let decoder = match expected.encoding {
            Encoding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(blob))),
            Encoding::Tar => Decoder::Tar(blob),
        };
        Self { decoder, expected, limits: *limits, ceiling: ceiling(limits), inflated: 0 }
    }

    fn blob(&self) -> &R {
        match &self.decoder {
            Decoder::Gzip(decoder) => decoder.get_ref(),
            Decoder::Tar(blob) => blob,
        }
    }

    /// Fills the chunk; leaves it empty at the end of a blob that is what it should be.
    fn fill(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        chunk.fill(|space| match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.read(space),
            Decoder::Tar(blob) => blob.read(space),
        })?;
        self.inflated += chunk.len as u64;
        self.check_size().map_err(io::Error::other)?;
        if chunk.len == 0 { self.verify() } else { Ok(()) }
    }

    fn check_size(&self) -> Result<()> {
        check_size(&self.expected.digest, (self.inflated, self.blob().count()), self.ceiling, &self.limits)
    }

    fn verify(&self) -> io::Result<()> {
        let blob = self.blob();
        if blob.count() != self.expected.size {
            return Err(damaged(format!("it has {} bytes, expected {}", blob.count(), self.expected.size)));
        }
        let digest = blob.digest();
        if digest != self.expected.digest {
            return Err(damaged(format!("its digest is {digest}")));
        }
        Ok(())
    }
}

/// Returns how many bytes no archive within the limits reaches: attributes without number would keep us busy for hours.
fn ceiling(limits: &Limits) -> u64 {
    let overhead = limits.entries.saturating_mul(OVERHEAD).saturating_add(TRAILER);
    limits.size.saturating_add(overhead)
}

fn check_size(object: &str, (inflated, packed): (u64, u64), ceiling: u64, limits: &Limits) -> Result<()> {
    if inflated > RATIO_AFTER && inflated / limits.ratio.max(1) > packed {
        let what = format!("the ratio of unpacked to packed bytes of {object}");
        return Err(exceeded(what, limits.ratio.to_string(), "--max-ratio"));
    }
    if inflated > ceiling {
        let what = format!("the size of the archive in {object}");
        return Err(exceeded(what, format!("{ceiling} bytes"), "--max-size"));
    }
    Ok(())
}

/// Replaces a chunk by the next one.
type Supply<'a> = dyn FnMut(&mut Chunk) -> io::Result<()> + 'a;

/// A stream of archive bytes.
pub(super) struct Stream<'a> {
    supply: Box<Supply<'a>>,
    chunk: Chunk,
    at: usize,
    ended: bool,
    /// Where the digest is wanted.
    hash: Option<Sha256>,
    object: &'a str,
}

impl<'a> Stream<'a> {
    fn new(object: &'a str, hash: Option<Sha256>, supply: impl FnMut(&mut Chunk) -> io::Result<()> + 'a) -> Self {
        Self { supply: Box::new(supply), chunk: Chunk::default(), at: 0, ended: false, hash, object }
    }

    /// Name of the layer, for messages.
    pub(super) fn object(&self) -> &str {
        self.object
    }

    /// Returns what is at hand, at least one byte unless the stream has ended.
    pub(super) fn fill(&mut self) -> Result<&[u8]> {
        if self.at == self.chunk.len && !self.ended {
            self.at = 0;
            self.chunk.len = 0;
            (self.supply)(&mut self.chunk).map_err(|error| lift(self.object, error))?;
            if let Some(hash) = &mut self.hash {
                hash.update(&self.chunk.bytes[..self.chunk.len]);
            }
            self.ended = self.chunk.len == 0;
        }
        Ok(&self.chunk.bytes[self.at..self.chunk.len])
    }

    /// Goes past `len` bytes of what [`Stream::fill`] returned.
    pub(super) fn consume(&mut self, len: usize) {
        self.at += len;
        debug_assert!(self.at <= self.chunk.len);
    }

    /// Reads into all of `buffer`, or less at the end of the stream.
    pub(super) fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let bytes = self.fill()?;
            let len = bytes.len().min(buffer.len() - done);
            if len == 0 {
                break;
            }
            buffer[done..done + len].copy_from_slice(&bytes[..len]);
            self.consume(len);
            done += len;
        }
        Ok(done)
    }

    /// Reads to the end and returns the digest of all bytes, where it is wanted.
    fn finish(mut self, diff_id: Option<&str>) -> Result<Option<String>> {
        let mut trailer = 0;
        loop {
            let len = self.fill()?.len();
            if len == 0 {
                break;
            }
            self.consume(len);
            trailer += len as u64;
            if trailer > TRAILER {
                return Err(damage(self.object, format!("more than {TRAILER} bytes follow its archive")));
            }
        }
        let got = self.hash.map(digest_of);
        match (&got, diff_id) {
            (Some(got), Some(want)) if want != got => {
                Err(damage(self.object, format!("its diff ID is {got}, expected {want}")))
            }
            _ => Ok(got),
        }
    }
}

/// Runs `work` on the archive in `layer`; returns its result once all of the layer is verified, and the diff ID where that is
/// expected or `wanted`.
pub(super) fn with_stream<R: Read + Send, T>(
    layer: R,
    (expected, wanted): (&Expected, bool),
    limits: &Limits,
    work: impl FnOnce(&mut Stream<'_>) -> Result<T>,
) -> Result<(T, Option<String>)> {
    let hash = (wanted || expected.diff_id.is_some()).then(Sha256::new);
    let blob = Blob { inner: layer, hash: Sha256::new(), read: 0, size: expected.size };
    let consume = |mut stream: Stream<'_>| {
        let result = work(&mut stream)?;
        Ok((result, stream.finish(expected.diff_id.as_deref())?))
    };
    if expected.size <= ONE_THREAD {
        let mut source = Source::new(BufReader::with_capacity(CHUNK, blob), expected, limits);
        return consume(Stream::new(&expected.digest, hash, |chunk| source.fill(chunk)));
    }
    thread::scope(|scope| {
        let mut source = Source::new(Ahead::start(scope, blob), expected, limits);
        let mut chunks = Chunks::start(scope, move |chunk| source.fill(chunk));
        consume(Stream::new(&expected.digest, hash, move |chunk| chunks.next(chunk)))
    })
}

/// A reader that counts.
struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.read += got as u64;
        Ok(got)
    }
}

/// Runs `work` on an archive of which nothing is known but its name for messages, to its end.
pub(super) fn with_archive<R: Read, T>(
    archive: R,
    (name, encoding): (&str, Encoding),
    limits: &Limits,
    work: impl FnOnce(&mut Stream<'_>) -> Result<T>,
) -> Result<T> {
    let archive = BufReader::with_capacity(CHUNK, Counted { inner: archive, read: 0 });
    let mut decoder = match encoding {
        Encoding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(archive))),
        Encoding::Tar => Decoder::Tar(archive),
    };
    let (ceiling, mut inflated) = (ceiling(limits), 0);
    let mut stream = Stream::new(name, None, move |chunk| {
        chunk.fill(|space| match &mut decoder {
            Decoder::Gzip(decoder) => decoder.read(space),
            Decoder::Tar(archive) => archive.read(space),
        })?;
        inflated += chunk.len as u64;
        let packed = match &decoder {
            Decoder::Gzip(decoder) => decoder.get_ref().get_ref().read,
            // Not packed at all.
            Decoder::Tar(_) => inflated,
        };
        check_size(name, (inflated, packed), ceiling, limits).map_err(io::Error::other)
    });
    let result = work(&mut stream)?;
    stream.finish(None)?;
    Ok(result)
}

/// Fills chunks until the end, an error, or until nobody wants them.
fn pump(
    mut fill: impl FnMut(&mut Chunk) -> io::Result<()>,
    free: &Receiver<Chunk>,
    full: &SyncSender<io::Result<Chunk>>,
) {
    for mut chunk in free {
        let filled = fill(&mut chunk).map(|()| chunk);
        let last = filled.as_ref().map_or(true, |chunk| chunk.len == 0);
        if full.send(filled).is_err() || last {
            return;
        }
    }
}

fn digest_of(hash: Sha256) -> String {
    format!("sha256:{}", hex::encode(hash.finalize()))
}

fn damaged(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Returns an error about the bytes of `object`.
pub(super) fn damage(object: &str, reason: impl Into<String>) -> Error {
    Error::Damaged { object: object.into(), reason: reason.into() }
}

/// Tells errors of the content from errors of the reader.
fn lift(object: &str, error: io::Error) -> Error {
    let kind = error.kind();
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => match kind {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => damage(object, error.to_string()),
            io::ErrorKind::UnexpectedEof => damage(object, "it ends too early"),
            _ => Error::io(object)(error),
        },
    }
}
