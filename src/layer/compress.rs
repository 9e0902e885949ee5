//! Deterministic parallel gzip: fixed-size blocks of the input, one gzip member each.
//!
//! The caller's thread fills blocks and hashes them, workers compress them in any order, one writer puts them in order,
//! hashes the result and writes it. A block's bytes depend on nothing but its input, so the output is the same for any
//! number of threads. Nothing is spawned for input that fits one block.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{Scope, ScopedJoinHandle};

use libdeflater::{CompressionLvl, Compressor};
use sha2::{Digest as _, Sha256};

use super::stream::Encoding;

/// Input bytes of one gzip member. The 32 KiB window that each member starts without costs under 1 % at this size.
pub(super) const BLOCK: usize = 1 << 20;

/// Level of libdeflate for the first [`DENSE_BLOCKS`]: as small as `gzip -6` on source text, at three times its speed.
const LEVEL: i32 = 6;

/// Level after that: a skill this large holds data, and a quarter more speed is worth a few per cent.
const FAST_LEVEL: i32 = 1;

/// Number of blocks, so MiB, that are compressed well: more than nearly every skill has.
const DENSE_BLOCKS: u64 = 64;

/// Most workers: hashing is serial and keeps up with about this many, and each holds 2 MiB.
const MAX_THREADS: usize = 16;

/// Blocks beside those that workers hold: one being filled, one being written, one between.
const SPARE_BLOCKS: usize = 3;

/// Slices of a block that decide whether it can be compressed, and their length: an eighth of what compressing it costs.
const SAMPLES: usize = 8;
const SAMPLE: usize = 8 << 10;

/// What came out of a [`LayerWriter`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sums {
    /// SHA-256 of the compressed bytes, in hex.
    pub(super) packed: String,
    /// Number of compressed bytes.
    pub(super) packed_size: u64,
    /// SHA-256 of the input, in hex.
    pub(super) plain: String,
    /// Number of input bytes.
    pub(super) plain_size: u64,
}

/// A buffer that travels from the reader through a worker to the writer and back.
struct Block {
    index: u64,
    plain: Vec<u8>,
    len: usize,
    packed: Vec<u8>,
    packed_len: usize,
}

impl Block {
    fn new() -> Self {
        Self { index: 0, plain: vec![0; BLOCK], len: 0, packed: Vec::new(), packed_len: 0 }
    }
}

/// Compressors of one thread, made when first needed: each takes about a megabyte.
#[derive(Default)]
struct Squeezer {
    /// Whether the bytes stay as they are.
    plain: bool,
    dense: Option<Compressor>,
    fast: Option<Compressor>,
    store: Option<Compressor>,
    scratch: Vec<u8>,
}

fn at_level(slot: &mut Option<Compressor>, level: i32) -> &mut Compressor {
    slot.get_or_insert_with(|| Compressor::new(CompressionLvl::new(level).expect("level is between 0 and 12")))
}

impl Squeezer {
    fn new(encoding: Encoding) -> Self {
        Self { plain: encoding == Encoding::Tar, ..Self::default() }
    }

    fn squeeze(&mut self, block: &mut Block) {
        let plain = &block.plain[..block.len];
        if self.plain {
            block.packed.clear();
            block.packed.extend_from_slice(plain);
            block.packed_len = block.len;
            return;
        }
        let compressor = if self.is_incompressible(plain) {
            at_level(&mut self.store, 0)
        } else if block.index < DENSE_BLOCKS {
            at_level(&mut self.dense, LEVEL)
        } else {
            at_level(&mut self.fast, FAST_LEVEL)
        };
        let bound = compressor.gzip_compress_bound(plain.len());
        if block.packed.len() < bound {
            block.packed.resize(bound, 0);
        }
        block.packed_len =
            compressor.gzip_compress(plain, &mut block.packed).expect("the buffer has libdeflate's own bound");
    }

    /// Tells whether compressing is a waste of time: bytes evenly distributed in a sample, and the sample does not shrink.
    fn is_incompressible(&mut self, plain: &[u8]) -> bool {
        if plain.len() < SAMPLES * SAMPLE * 2 {
            return false;
        }
        let stride = plain.len() / SAMPLES;
        let mut counts = [0u64; 256];
        self.scratch.clear();
        for slice in plain.chunks_exact(stride).take(SAMPLES).map(|chunk| &chunk[..SAMPLE]) {
            slice.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
            self.scratch.extend_from_slice(slice);
        }
        let total = (SAMPLES * SAMPLE) as u64;
        // Integers only: a rounding difference would be a different digest. Even distribution gives total²/256.
        let unevenness: u64 = counts.iter().map(|count| count * count).sum();
        if unevenness > total * total / 256 / 100 * 110 {
            return false;
        }
        let quick = at_level(&mut self.fast, FAST_LEVEL);
        let bound = quick.deflate_compress_bound(self.scratch.len());
        let sample = self.scratch.len();
        self.scratch.resize(sample + bound, 0);
        let (input, output) = self.scratch.split_at_mut(sample);
        quick.deflate_compress(input, output).is_ok_and(|size| size > sample / 100 * 98)
    }
}

/// Where compressed bytes go, and what they were.
struct Sink<W> {
    out: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Sink<W> {
    fn take(&mut self, block: &Block) -> io::Result<()> {
        let packed = &block.packed[..block.packed_len];
        self.hash.update(packed);
        self.size += packed.len() as u64;
        self.out.write_all(packed)
    }
}

enum Lane<'scope, W> {
    Inline {
        sink: Sink<W>,
        squeezer: Box<Squeezer>,
    },
    Threads {
        jobs: SyncSender<Block>,
        free: Receiver<Block>,
        made: usize,
        writer: ScopedJoinHandle<'scope, Drained<W>>,
    },
    Closed,
}

type Drained<W> = io::Result<Sink<W>>;

/// Compresses what is written to it, unless its encoding is a plain archive; [`LayerWriter::finish`] returns the sums.
pub(super) struct LayerWriter<'scope, 'env, W> {
    scope: &'scope Scope<'scope, 'env>,
    threads: usize,
    encoding: Encoding,
    block: Block,
    plain: Sha256,
    plain_size: u64,
    lane: Lane<'scope, W>,
}

impl<'scope, W: Write + Send + 'scope> LayerWriter<'scope, '_, W> {
    /// Returns a writer that uses at most `threads` workers of `scope`.
    pub(super) fn new<'env>(
        scope: &'scope Scope<'scope, 'env>,
        out: W,
        (threads, encoding): (usize, Encoding),
    ) -> LayerWriter<'scope, 'env, W> {
        let sink = Sink { out, hash: Sha256::new(), size: 0 };
        LayerWriter {
            scope,
            threads: threads.min(MAX_THREADS),
            encoding,
            block: Block::new(),
            plain: Sha256::new(),
            plain_size: 0,
            lane: Lane::Inline { sink, squeezer: Box::new(Squeezer::new(encoding)) },
        }
    }

    /// Returns the free part of the current block, which is never empty.
    pub(super) fn space(&mut self) -> io::Result<&mut [u8]> {
        if self.block.len == BLOCK {
            if matches!(self.lane, Lane::Inline { .. }) && self.threads > 1 {
                self.start();
            }
            self.submit()?;
        }
        Ok(&mut self.block.plain[self.block.len..])
    }

    /// Counts `len` bytes that were put into [`LayerWriter::space`].
    pub(super) fn advance(&mut self, len: usize) {
        debug_assert!(self.block.len + len <= BLOCK);
        self.block.len += len;
    }

    /// Appends `bytes`.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let len = bytes.len().min(space.len());
            space[..len].copy_from_slice(&bytes[..len]);
            self.advance(len);
            bytes = &bytes[len..];
        }
        Ok(())
    }

    /// Compresses what is left, waits for the threads and flushes.
    pub(super) fn finish(mut self) -> io::Result<Sums> {
        if self.block.len > 0 || self.plain_size == 0 {
            self.submit()?;
        }
        let mut sink = match std::mem::replace(&mut self.lane, Lane::Closed) {
            Lane::Inline { sink, .. } => sink,
            Lane::Threads { jobs, writer, .. } => {
                drop(jobs);
                join(writer)?
            }
            Lane::Closed => return Err(closed()),
        };
        sink.out.flush()?;
        Ok(Sums {
            packed: hex::encode(sink.hash.finalize()),
            packed_size: sink.size,
            plain: hex::encode(self.plain.finalize()),
            plain_size: self.plain_size,
        })
    }

    /// Passes the current block on and puts an empty one in its place.
    fn submit(&mut self) -> io::Result<()> {
        self.plain.update(&self.block.plain[..self.block.len]);
        self.plain_size += self.block.len as u64;
        let index = self.block.index;
        match &mut self.lane {
            Lane::Inline { sink, squeezer } => {
                squeezer.squeeze(&mut self.block);
                sink.take(&self.block)?;
            }
            Lane::Threads { jobs, free, made, .. } => {
                let empty = match free.try_recv() {
                    Ok(block) => Some(block),
                    Err(_) if *made < self.threads + SPARE_BLOCKS => {
                        *made += 1;
                        Some(Block::new())
                    }
                    Err(_) => None,
                };
                // The channel has room for every block there is, so sending never waits; waiting is for an empty block.
                let full = match empty {
                    Some(empty) => std::mem::replace(&mut self.block, empty),
                    None => {
                        let Ok(empty) = free.recv() else {
                            return self.failure();
                        };
                        std::mem::replace(&mut self.block, empty)
                    }
                };
                if jobs.send(full).is_err() {
                    return self.failure();
                }
            }
            Lane::Closed => return Err(closed()),
        }
        self.block.index = index + 1;
        self.block.len = 0;
        Ok(())
    }

    /// Returns why the writer stopped taking blocks.
    fn failure(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.lane, Lane::Closed) {
            Lane::Threads { jobs, writer, .. } => {
                drop(jobs);
                join(writer).and(Err(closed()))
            }
            _ => Err(closed()),
        }
    }

    /// Moves from compressing on this thread to workers and a writer.
    fn start(&mut self) {
        let Lane::Inline { sink, .. } = std::mem::replace(&mut self.lane, Lane::Closed) else {
            return;
        };
        let (jobs, queue) = sync_channel(self.threads + SPARE_BLOCKS);
        let (done, results) = channel();
        let (back, free) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..self.threads {
            let (queue, done) = (Arc::clone(&queue), done.clone());
            let squeezer = Squeezer::new(self.encoding);
            self.scope.spawn(move || work(squeezer, &queue, &done));
        }
        let writer = self.scope.spawn(move || drain(sink, &results, &back));
        self.lane = Lane::Threads { jobs, free, made: 1, writer };
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the writer has stopped")
}

fn join<W>(writer: ScopedJoinHandle<'_, Drained<W>>) -> Drained<W> {
    writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Compresses blocks until there are no more, or nobody wants them.
fn work(mut squeezer: Squeezer, queue: &Mutex<Receiver<Block>>, done: &Sender<Block>) {
    loop {
        let Ok(Ok(mut block)) = queue.lock().map(|queue| queue.recv()) else {
            return;
        };
        squeezer.squeeze(&mut block);
        if done.send(block).is_err() {
            return;
        }
    }
}

/// Writes blocks in their order and gives the buffers back.
fn drain<W: Write>(mut sink: Sink<W>, results: &Receiver<Block>, back: &Sender<Block>) -> Drained<W> {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for block in results {
        waiting.insert(block.index, block);
        while let Some(block) = waiting.remove(&next) {
            sink.take(&block)?;
            next += 1;
            // Fails when the reader has ended and needs no more buffers.
            let _ = back.send(block);
        }
    }
    Ok(sink)
}
