//! The bytes of a layer, decompressed and hashed on both sides.
//!
//! Large layers are read and inflated on a thread of their own, so that writing the files goes on at the same time. The
//! end of the stream is reported only for a blob that is exactly the expected one.

use std::io::{self, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;

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

enum Decoder<R> {
    Gzip(Box<MultiGzDecoder<BufReader<Blob<R>>>>),
    Tar(Blob<R>),
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

impl<'a, R: Read> Source<'a, R> {
    fn new(layer: R, expected: &'a Expected, limits: &Limits) -> Self {
        let blob = Blob { inner: layer, hash: Sha256::new(), read: 0, size: expected.size };
        let decoder = match expected.encoding {
            Encoding::Gzip => {
                let buffered = BufReader::with_capacity(CHUNK, blob);
                Decoder::Gzip(Box::new(MultiGzDecoder::new(buffered)))
            }
            Encoding::Tar => Decoder::Tar(blob),
        };
        // What no archive within the limits reaches: attributes without number would keep us busy for hours.
        let overhead = limits.entries.saturating_mul(OVERHEAD).saturating_add(TRAILER);
        let ceiling = limits.size.saturating_add(overhead);
        Self { decoder, expected, limits: *limits, ceiling, inflated: 0 }
    }

    fn blob(&self) -> &Blob<R> {
        match &self.decoder {
            Decoder::Gzip(decoder) => decoder.get_ref().get_ref(),
            Decoder::Tar(blob) => blob,
        }
    }

    /// Fills the chunk; leaves it empty at the end of a blob that is what it should be.
    fn fill(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        chunk.bytes.resize(CHUNK, 0);
        chunk.len = 0;
        while chunk.len < CHUNK {
            let space = &mut chunk.bytes[chunk.len..];
            let got = match &mut self.decoder {
                Decoder::Gzip(decoder) => decoder.read(space),
                Decoder::Tar(blob) => blob.read(space),
            };
            match got {
                Ok(0) => break,
                Ok(got) => chunk.len += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted && error.get_ref().is_none() => {}
                Err(error) => return Err(error),
            }
        }
        self.inflated += chunk.len as u64;
        self.check_size().map_err(io::Error::other)?;
        if chunk.len == 0 { self.verify() } else { Ok(()) }
    }

    fn check_size(&self) -> Result<()> {
        let ratio = self.limits.ratio;
        if self.inflated > RATIO_AFTER && self.inflated / ratio.max(1) > self.blob().read {
            let what = format!("the ratio of unpacked to packed bytes of {}", self.expected.digest);
            return Err(exceeded(what, ratio.to_string(), "--max-ratio"));
        }
        if self.inflated > self.ceiling {
            let what = format!("the size of the archive in {}", self.expected.digest);
            return Err(exceeded(what, format!("{} bytes", self.ceiling), "--max-size"));
        }
        Ok(())
    }

    fn verify(&self) -> io::Result<()> {
        let blob = self.blob();
        if blob.read != blob.size {
            return Err(damaged(format!("it has {} bytes, expected {}", blob.read, blob.size)));
        }
        let digest = digest_of(blob.hash.clone());
        if digest != self.expected.digest {
            return Err(damaged(format!("its digest is {digest}")));
        }
        Ok(())
    }
}

/// Replaces a chunk by the next one.
type Supply<'a> = dyn FnMut(&mut Chunk) -> io::Result<()> + 'a;

/// A stream of archive bytes.
pub(super) struct Stream<'a> {
    supply: Box<Supply<'a>>,
    chunk: Chunk,
    at: usize,
    ended: bool,
    hash: Sha256,
    object: &'a str,
}

impl<'a> Stream<'a> {
    fn new(object: &'a str, supply: impl FnMut(&mut Chunk) -> io::Result<()> + 'a) -> Self {
        let (chunk, hash) = (Chunk::default(), Sha256::new());
        Self { supply: Box::new(supply), chunk, at: 0, ended: false, hash, object }
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
            self.hash.update(&self.chunk.bytes[..self.chunk.len]);
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

    /// Reads to the end and returns the digest of all bytes.
    fn finish(mut self, diff_id: Option<&str>) -> Result<String> {
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
        let got = digest_of(self.hash);
        match diff_id {
            Some(want) if want != got => Err(damage(self.object, format!("its diff ID is {got}, expected {want}"))),
            _ => Ok(got),
        }
    }
}

/// Runs `work` on the archive in `layer`; returns its result and the diff ID once all of the layer is verified.
pub(super) fn with_stream<R: Read + Send, T>(
    layer: R,
    expected: &Expected,
    limits: &Limits,
    work: impl FnOnce(&mut Stream<'_>) -> Result<T>,
) -> Result<(T, String)> {
    let mut source = Source::new(layer, expected, limits);
    let consume = |mut stream: Stream<'_>| {
        let result = work(&mut stream)?;
        Ok((result, stream.finish(expected.diff_id.as_deref())?))
    };
    if expected.size <= ONE_THREAD {
        return consume(Stream::new(&expected.digest, |chunk| source.fill(chunk)));
    }
    thread::scope(|scope| {
        let (empty, free) = channel();
        let (full, ready) = sync_channel(CHUNKS);
        for _ in 0..CHUNKS {
            // The receiver is alive: it is still here.
            let _ = empty.send(Chunk::default());
        }
        scope.spawn(move || pump(source, &free, &full));
        consume(Stream::new(&expected.digest, move |chunk| {
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            let next = ready.recv().map_err(gone)??;
            let used = std::mem::replace(chunk, next);
            // Fails when all has been read and no more buffers are wanted.
            let _ = empty.send(used);
            Ok(())
        }))
    })
}

/// Fills chunks until the end, an error, or until nobody wants them.
fn pump<R: Read>(mut source: Source<'_, R>, free: &Receiver<Chunk>, full: &SyncSender<io::Result<Chunk>>) {
    for mut chunk in free {
        let filled = source.fill(&mut chunk).map(|()| chunk);
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
