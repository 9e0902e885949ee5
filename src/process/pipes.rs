//! The pipes of a child: what is written into them, what is kept of what comes, and whether anything comes.

use std::io::{Read, Write as _};
use std::process::ChildStdin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Number of bytes that a child has written so far.
pub(super) type Said = Arc<AtomicU64>;

/// Watches whether a child writes anything.
pub(super) struct Headway {
    bound: Option<Duration>,
    said: Said,
    seen: u64,
    since: Instant,
}

impl Headway {
    pub(super) fn new(bound: Option<Duration>, said: Said) -> Self {
        Self { bound, said, seen: 0, since: Instant::now() }
    }

    /// Returns the bound where nothing was written for that long.
    pub(super) fn none(&mut self) -> Option<Duration> {
        let said = self.said.load(Ordering::Relaxed);
        if said != self.seen {
            (self.seen, self.since) = (said, Instant::now());
        }
        self.bound.filter(|bound| self.since.elapsed() >= *bound)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Keep {
    Head(usize),
    Tail(usize),
}

/// Shared with the reading thread, which is left behind when a descendant never closes the pipe.
#[derive(Debug, Default, Clone)]
pub(super) struct Captured(Arc<Mutex<(Vec<u8>, bool)>>);

impl Captured {
    pub(super) fn take(&self) -> (Vec<u8>, bool) {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn add(&self, bytes: &[u8], keep: Keep) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match keep {
            Keep::Head(limit) => {
                let room = limit.saturating_sub(held.0.len()).min(bytes.len());
                held.0.extend_from_slice(&bytes[..room]);
                held.1 |= room < bytes.len();
            }
            Keep::Tail(limit) => {
                held.0.extend_from_slice(bytes);
                let excess = held.0.len().saturating_sub(limit);
                held.0.drain(..excess);
                held.1 |= excess > 0;
            }
        }
    }
}

/// In a thread of its own, because a child that does not read would hold us.
pub(super) fn feed(pipe: Option<ChildStdin>, bytes: Option<Vec<u8>>) {
    if let (Some(mut pipe), Some(bytes)) = (pipe, bytes) {
        // A child that ends without reading breaks the pipe, and tells the rest by its exit status.
        thread::spawn(move || pipe.write_all(&bytes));
    }
}

pub(super) fn capture(
    pipe: Option<impl Read + Send + 'static>,
    keep: Keep,
    (done, said): (Sender<()>, Said),
) -> Captured {
    let captured = Captured::default();
    let held = captured.clone();
    if let Some(mut pipe) = pipe {
        thread::spawn(move || {
            let mut buffer = [0; 8 << 10];
            while let Ok(n) = pipe.read(&mut buffer)
                && n > 0
            {
                held.add(&buffer[..n], keep);
                said.fetch_add(n as u64, Ordering::Relaxed);
            }
            drop(done);
        });
    }
    captured
}
