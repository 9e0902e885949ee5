//! Lines that a person types in, or that somebody pipes to us.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

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

/// Reads a line as [`line`] does, after a question where standard input is a terminal, which does not show what is typed then.
///
/// # Errors
/// As [`line`].
pub fn hidden(ask: impl FnOnce(), limit: u64, cancel: &Cancel) -> Result<String> {
    let _hidden = match io::stdin().is_terminal() {
        true => {
            ask();
            Some(Hidden::start()?)
        }
        false => None,
    };
    line(limit, cancel)
}

/// A terminal that does not show what is typed, until it is dropped.
struct Hidden(Termios);

impl Hidden {
    fn start() -> Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).context("Reading the settings of the terminal")?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        // The end of the line is shown, so that what is printed next does not stand behind the prompt.
        hidden.local_flags.insert(LocalFlags::ECHONL);
        tcsetattr(&stdin, SetArg::TCSAFLUSH, &hidden).context("Hiding what is typed")?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
