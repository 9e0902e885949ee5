//! A child whose output is read while it runs, because it may be larger than memory.

use std::io::{self, Read};
use std::process::{Child, ChildStdout};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Cancel, End, GRACE, Headway, Keep, Output, Process, STDERR_TAIL, Said, TICK};
use super::{capture, ended, missing, terminate};
use crate::error::{Error, Result};

/// Standard output of a child, counted.
struct Counted {
    pipe: ChildStdout,
    said: Said,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.pipe.read(buffer)?;
        self.said.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

impl Process {
    /// Runs it while `read` reads its standard output, and returns what that returns. A child that is still there when
    /// `read` returns is ended, at once where that was an error.
    ///
    /// The bound of [`Self::silence`] counts while `read` is at work, whoever of the two is slow.
    ///
    /// # Errors
    ///
    /// That of `read`; [`Error::Unavailable`] with its last words when it fails, was ended, or is not installed.
    pub fn stream<T>(&self, read: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
        let mut child = self.start()?.ok_or_else(|| missing(&self.name, self.hint.clone()))?;
        let said = Said::default();
        let (done, readers) = mpsc::channel();
        let stderr = capture(child.stderr.take(), Keep::Tail(STDERR_TAIL), (done, said.clone()));
        let pipe = child.stdout.take();
        let (finished, over) = mpsc::channel();
        let (result, end) = thread::scope(|scope| {
            let headway = Headway::new(self.silence, said.clone());
            let watch = scope.spawn(move || self.watch(child, &over, headway));
            let result = match pipe {
                Some(pipe) => read(&mut Counted { pipe, said }),
                None => Err(Error::io(self.name.as_str())(io::ErrorKind::BrokenPipe.into())),
            };
            // Nobody watches any more where the child has ended.
            let _ = finished.send(result.is_ok());
            let lost = || Err(io::Error::other("nobody watched it"));
            (result, watch.join().unwrap_or_else(|_| lost()))
        });
        let end = end.map_err(Error::io(self.name.as_str()))?;
        let _ = readers.recv_timeout(TICK);
        let stderr = String::from_utf8_lossy(&stderr.take().0).into_owned();
        let output = Output { end, stdout: Vec::new(), truncated: false, stderr, program: self.name.clone() };
        match (result, end) {
            (_, End::Cancelled) => Err(Error::interrupted()),
            (_, End::Silent(_) | End::TimedOut(_)) => Err(output.error()),
            (Ok(value), End::Exit(0)) => Ok(value),
            (Ok(_), _) => Err(output.error()),
            // What it said explains why there was less to read than expected.
            (Err(Error::Io { .. } | Error::Damaged { .. }), End::Exit(code)) if code != 0 => Err(output.error()),
            (Err(error), _) => Err(error),
        }
    }

    /// Waits until the child has ended, and ends it where it should not go on.
    fn watch(&self, mut child: Child, over: &Receiver<bool>, mut headway: Headway) -> io::Result<End> {
        let deadline = self.timeout.and_then(|after| Some((Instant::now().checked_add(after)?, after)));
        loop {
            match over.recv_timeout(TICK) {
                Ok(true) => return reap(&mut child),
                Ok(false) | Err(RecvTimeoutError::Disconnected) => {
                    let ended_before = child.try_wait()?.map(ended);
                    return ended_before.map_or_else(|| terminate(&mut child).map(|()| End::Stopped), Ok);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.cancel.as_ref().is_some_and(Cancel::is_cancelled) {
                return terminate(&mut child).map(|()| End::Cancelled);
            }
            if let Some(after) = headway.none() {
                return terminate(&mut child).map(|()| End::Silent(after));
            }
            if let Some((_, after)) = deadline.filter(|(at, _)| Instant::now() >= *at) {
                return terminate(&mut child).map(|()| End::TimedOut(after));
            }
        }
    }
}

/// Waits for a child that has nothing more to do.
fn reap(child: &mut Child) -> io::Result<End> {
    let until = Instant::now() + GRACE;
    let mut pause = Duration::from_micros(20);
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(ended(status));
        }
        thread::sleep(pause);
        pause = TICK.min(pause * 2);
    }
    terminate(child).map(|()| End::Stopped)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn all(pipe: &mut dyn Read) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).map_err(Error::io("pipe"))?;
        Ok(bytes)
    }

    #[test]
    fn output_is_read_while_more_is_asked_for() {
        // More than both pipes hold: whoever wrote all before reading would wait for ever.
        let lines = "0123456789\n".repeat(100_000);
        let bytes = Process::new("cat").stdin(lines.clone()).stream(all).unwrap();
        assert_eq!(bytes.len(), lines.len());
    }

    #[test]
    fn failures_are_told() {
        let shell = |script: &str| Process::new("sh").args(["-c", script]);
        let cases = [
            (shell("echo why >&2; exit 3"), "sh: why"),
            (shell("exec sleep 60").silence(Duration::from_millis(100)), "sh: no headway for 0.1 s"),
            (shell("exec sleep 60").timeout(Duration::from_millis(100)), "sh: not finished after 0 s"),
            (Process::new("/nonexistent/git"), "git is not installed"),
        ];
        for (process, text) in cases {
            assert_eq!(process.stream(all).unwrap_err().to_string(), text);
        }
        let refused = |_: &mut dyn Read| -> Result<()> { Err(Error::InvalidState("x".into())) };
        let error = shell("while :; do echo y; done").stream(refused).unwrap_err();
        assert_eq!(error.to_string(), "invalid lifecycle state: \"x\"");
    }

    #[test]
    fn it_ends_when_asked() {
        let cancel = Cancel::default();
        let other = cancel.clone();
        let waits = thread::spawn(move || Process::new("sleep").arg("60").cancel(&other).stream(all));
        thread::sleep(Duration::from_millis(50));
        let asked = Instant::now();
        cancel.cancel();
        assert_eq!(waits.join().unwrap().unwrap_err().to_string(), "interrupted");
        assert!(asked.elapsed() < Duration::from_secs(1));
    }
}
