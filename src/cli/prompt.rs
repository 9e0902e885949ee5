//! Lines that a person types in, or that somebody pipes to us.

use std::io::{self, BufRead as _, Read as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::process::Cancel;

/// How often a prompt looks whether the user asks to stop, in milliseconds.
const TICK: u16 = 100;

/// Reads a line of at most `limit` bytes from standard input, with its end; nothing at the end of input. A terminal gives
/// whole lines, and whoever pipes one writes it at once.
///
/// # Errors
/// If it cannot be read, or the user asks to stop.
pub fn line(limit: u64, cancel: &Cancel) -> Result<String> {
    let context = "Reading standard input";
    let stdin = io::stdin();
    loop {
        cancel.check()?;
        match poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], PollTimeout::from(TICK)) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(e) => return Err(e).context(context),
        }
    }
    // The end of input may have come with the request to stop, which says more.
    cancel.check()?;
    let mut line = String::new();
    stdin.lock().take(limit).read_line(&mut line).context(context)?;
    Ok(line)
}
