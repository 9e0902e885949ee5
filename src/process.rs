//! Runs a child program (skopeo, podman, git) and keeps its last words.
//!
//! No shell, standard input empty unless given, `LC_ALL=C`, output captured up to a bound. Each child leads its own process group, so
//! that what it forked ends with it on a timeout or a cancellation: SIGTERM first, SIGKILL after [`GRACE`]. A terminal's
//! Ctrl-C therefore reaches only us, and the shell turns it into [`Cancel`]. Should we die without that, the pipes close
//! and the child ends at its next line of output; safe Rust has nothing stronger (`PR_SET_PDEATHSIG` needs `pre_exec`).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::error::{Error, Result};

mod pipes;
mod stream;
mod tools;
mod words;

use pipes::{Headway, Keep, Said, capture, feed};
use tools::missing;

pub use tools::{Tools, Version, version};
pub use words::last_words;

/// How long a child may tidy up after SIGTERM. skopeo and podman release their locks at once; this only bounds a stuck one.
pub const GRACE: Duration = Duration::from_secs(2);
/// Standard output kept when the caller names no bound: `podman info` of a large host is below 100 KiB.
pub const STDOUT_LIMIT: usize = 4 << 20;
/// Standard error kept, from its end: some hundred lines, of which one is shown.
const STDERR_TAIL: usize = 16 << 10;
/// How often a running child, or a request to stop, is looked at; an exit is noticed at once, because its pipes close.
const TICK: Duration = Duration::from_millis(20);
/// How long output is awaited after the exit, for a descendant that inherited the pipes (podman's pause process).
const DRAIN: Duration = Duration::from_millis(200);

/// A request to stop, shared by whoever may make it and all who wait.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks everything that holds a clone to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Returns whether a stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Ends with an error once a stop was asked for.
    ///
    /// # Errors
    /// [`Error::Unavailable`], which says that it was interrupted.
    pub fn check(&self) -> Result<()> {
        match self.is_cancelled() {
            true => Err(Error::interrupted()),
            false => Ok(()),
        }
    }

    /// Waits for `pause`, or until a stop is asked for.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn pause(&self, pause: Duration) -> Result<()> {
        let until = Instant::now() + pause;
        loop {
            self.check()?;
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => thread::sleep(left.min(TICK)),
            }
        }
    }

    /// Returns the flag itself, which is all that a signal handler may touch.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.0
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exit(i32),
    /// A signal that we did not send ended it.
    Signal(i32),
    /// We ended it after this time.
    TimedOut(Duration),
    /// We ended it because it had said nothing for this time.
    Silent(Duration),
    /// We ended it because [`Cancel`] asked.
    Cancelled,
    /// We ended it because whoever watched it asked.
    Stopped,
}

/// What a child left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub end: End,
    /// Its standard output, up to the bound.
    pub stdout: Vec<u8>,
    /// Whether there was more.
    pub truncated: bool,
    /// The end of its standard error.
    pub stderr: String,
    program: String,
}

impl Output {
    /// Returns whether it exited with 0.
    pub fn success(&self) -> bool {
        self.end == End::Exit(0)
    }

    /// Returns `program: last words`, or how it ended where it said nothing.
    pub fn reason(&self) -> String {
        let said = match self.end {
            End::TimedOut(after) => format!("not finished after {} s", after.as_secs()),
            End::Silent(after) => format!("no headway for {} s", after.as_secs_f32()),
            End::Cancelled | End::Stopped => "interrupted".to_owned(),
            End::Exit(code) => last_words(&self.stderr).unwrap_or_else(|| format!("exit status {code}")),
            End::Signal(signal) => format!("ended by signal {signal}"),
        };
        format!("{}: {said}", self.program)
    }

    /// Returns the failure as an error without a hint.
    pub fn error(&self) -> Error {
        Error::Unavailable { reason: self.reason(), hint: None }
    }
}

/// A program that is to be run, with its arguments and bounds.
#[derive(Debug, Clone)]
pub struct Process {
    program: PathBuf,
    /// What messages call it, wherever it is.
    name: String,
    args: Vec<OsString>,
    /// Variables, and their values unless they are taken away.
    env: Vec<(String, Option<OsString>)>,
    stdin: Option<Vec<u8>>,
    stdin_file: Option<Arc<File>>,
    timeout: Option<Duration>,
    silence: Option<Duration>,
    stdout_limit: usize,
    cancel: Option<Cancel>,
    hint: Option<String>,
}

impl Process {
    /// Returns a process that runs `program`, found in `PATH` unless it has a slash.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let program = program.into();
        let name = program.file_name().unwrap_or(program.as_os_str());
        let name = name.to_string_lossy().into_owned();
        Self {
            program,
            name,
            args: Vec::new(),
            env: Vec::new(),
            stdin: None,
            stdin_file: None,
            timeout: None,
            silence: None,
            stdout_limit: STDOUT_LIMIT,
            cancel: None,
            hint: None,
        }
    }

    /// Has messages call it something else than its file.
    #[must_use]
    pub fn called(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable in the child's environment, which is otherwise ours.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Takes a variable of ours away from the child.
    #[must_use]
    pub fn env_remove(mut self, key: &str) -> Self {
        self.env.push((key.to_owned(), None));
        self
    }

    /// Gives the child this on its standard input, which then ends.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Gives the child an open file for its standard input, which it can also open again, as `/proc/self/fd/0`.
    #[must_use]
    pub fn stdin_file(mut self, file: Arc<File>) -> Self {
        self.stdin_file = Some(file);
        self
    }

    /// Ends the child after this time.
    #[must_use]
    pub fn timeout(mut self, after: Duration) -> Self {
        self.timeout = Some(after);
        self
    }

    /// Ends the child after it has written nothing to either output for this time.
    #[must_use]
    pub fn silence(mut self, after: Duration) -> Self {
        self.silence = Some(after);
        self
    }

    /// Bounds the standard output that is kept; the rest is read and dropped.
    #[must_use]
    pub fn stdout_limit(mut self, bytes: usize) -> Self {
        self.stdout_limit = bytes;
        self
    }

    /// Ends the child when asked.
    #[must_use]
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }

    /// Sets the hint for a program that is not there.
    #[must_use]
    pub fn install_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Runs it and returns its standard output.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] with its last words when it fails, prints more than the bound, or is not installed.
    pub fn run(&self) -> Result<Vec<u8>> {
        let output = self.output()?;
        if !output.success() {
            return Err(output.error());
        }
        if output.truncated {
            let reason = format!("{}: more than {} bytes of output", self.name.as_str(), self.stdout_limit);
            return Err(Error::Unavailable { reason, hint: None });
        }
        Ok(output.stdout)
    }

    /// Runs it and returns how it ended, whatever that is.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when it is not installed.
    pub fn output(&self) -> Result<Output> {
        self.try_output()?.ok_or_else(|| missing(self.name.as_str(), self.hint.clone()))
    }

    /// Runs it like [`Self::output`], and shows its process ID to `watch` every [`TICK`] until that returns false, which
    /// ends it.
    ///
    /// # Errors
    ///
    /// As [`Self::output`].
    pub fn watched(&self, watch: &mut dyn FnMut(u32) -> bool) -> Result<Output> {
        self.spawn(watch)?.ok_or_else(|| missing(self.name.as_str(), self.hint.clone()))
    }

    /// Runs it like [`Self::output`]; `None` when it is not installed.
    pub fn try_output(&self) -> Result<Option<Output>> {
        self.spawn(&mut |_| true)
    }

    fn spawn(&self, watch: &mut dyn FnMut(u32) -> bool) -> Result<Option<Output>> {
        let Some(mut child) = self.start()? else { return Ok(None) };
        let (done, readers) = mpsc::channel();
        let said = Said::default();
        let stdout = capture(child.stdout.take(), Keep::Head(self.stdout_limit), (done.clone(), said.clone()));
        let stderr = capture(child.stderr.take(), Keep::Tail(STDERR_TAIL), (done, said.clone()));
        let mut headway = Headway::new(self.silence, said);
        let end = self.wait(&mut child, &readers, (watch, &mut headway)).map_err(Error::io(self.name.as_str()))?;
        let (stdout, truncated) = stdout.take();
        let stderr = String::from_utf8_lossy(&stderr.take().0).into_owned();
        Ok(Some(Output { end, stdout, truncated, stderr, program: self.name.clone() }))
    }

    /// Starts it, and feeds it; `None` when it is not installed.
    fn start(&self) -> Result<Option<Child>> {
        let mut command = self.command();
        if let Some(file) = &self.stdin_file {
            command.stdin(file.try_clone().map_err(Error::io(self.name.as_str()))?);
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(self.program.display().to_string())(e)),
        };
        feed(child.stdin.take(), self.stdin.clone());
        Ok(Some(child))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // No program of others needs the passphrase of a key.
        command.args(&self.args).env("LC_ALL", "C").env_remove("COSIGN_PASSWORD");
        for (key, value) in &self.env {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }

    fn wait(
        &self,
        child: &mut Child,
        readers: &Receiver<()>,
        (watch, headway): (&mut dyn FnMut(u32) -> bool, &mut Headway),
    ) -> io::Result<End> {
        let deadline = self.timeout.and_then(|t| Some((Instant::now().checked_add(t)?, t)));
        let mut open = true;
        // Most children close their pipes by ending, so the end is near.
        let mut pause = Duration::from_micros(20);
        loop {
            if open {
                open = readers.recv_timeout(TICK) != Err(RecvTimeoutError::Disconnected);
            } else {
                thread::sleep(pause);
                pause = TICK.min(pause * 2);
            }
            if let Some(status) = child.try_wait()? {
                if open {
                    // Nothing to do about what a descendant keeps open: what was written so far is there.
                    let _ = readers.recv_timeout(DRAIN);
                }
                return Ok(ended(status));
            }
            if self.cancel.as_ref().is_some_and(Cancel::is_cancelled) {
                return terminate(child).map(|()| End::Cancelled);
            }
            if !watch(child.id()) {
                return terminate(child).map(|()| End::Stopped);
            }
            if let Some(after) = headway.none() {
                return terminate(child).map(|()| End::Silent(after));
            }
            if let Some((at, after)) = deadline
                && Instant::now() >= at
            {
                return terminate(child).map(|()| End::TimedOut(after));
            }
        }
    }
}

fn ended(status: ExitStatus) -> End {
    match status.code() {
        Some(code) => End::Exit(code),
        None => End::Signal(status.signal().unwrap_or_default()),
    }
}

/// Ends a child that is not reaped yet, with its group: the identifier cannot have been given to another.
///
/// What it started gets SIGTERM with it, and SIGKILL once it is gone: git's helpers and ssh must not outlive it.
fn terminate(child: &mut Child) -> io::Result<()> {
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    // A group without members is one that ended by itself.
    let _ = killpg(group, Signal::SIGTERM);
    let until = Instant::now() + GRACE;
    while Instant::now() < until && !has_ended(group)? {
        thread::sleep(TICK);
    }
    let _ = killpg(group, Signal::SIGKILL);
    child.wait().map(drop)
}

/// Returns whether a child has ended; it is left to be reaped, and so keeps its identifier.
fn has_ended(child: Pid) -> io::Result<bool> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    Ok(waitid(Id::Pid(child), flags)? != WaitStatus::StillAlive)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_is_given_and_ends() {
        assert_eq!(Process::new("cat").stdin("words").run().ok(), Some(b"words".to_vec()));
        assert_eq!(Process::new("cat").run().ok(), Some(Vec::new()));
        // More than a pipe holds, for a child that reads nothing.
        assert!(Process::new("true").stdin(vec![0; 1 << 20]).run().is_ok());
    }

    #[test]
    fn runs_and_reports() {
        let out = Process::new("printf").arg("%s").arg("a b").run().unwrap();
        assert_eq!(out, b"a b");
        let output = Process::new("sh").args(["-c", "echo one >&2; echo two >&2; exit 3"]).output().unwrap();
        assert_eq!((output.end, output.reason().as_str()), (End::Exit(3), "sh: two"));
        let output = Process::new("false").output().unwrap();
        assert_eq!(output.reason(), "false: exit status 1");
        let output = Process::new("sh").args(["-c", "kill -9 $$"]).output().unwrap();
        assert_eq!(output.end, End::Signal(9));
        let out = Process::new("sh").args(["-c", "echo $LC_ALL $X; cat"]).env("X", "y").run().unwrap();
        assert_eq!(out, b"C y\n");
    }

    #[test]
    fn bounds_what_is_kept() {
        let process = Process::new("seq").arg("100000").stdout_limit(10);
        let output = process.output().unwrap();
        assert_eq!((output.stdout.as_slice(), output.truncated), (b"1\n2\n3\n4\n5\n".as_slice(), true));
        assert_eq!(process.run().unwrap_err().to_string(), "seq: more than 10 bytes of output");
        let output = Process::new("sh").args(["-c", "seq 100000 >&2; exit 1"]).output().unwrap();
        assert_eq!(output.reason(), "sh: 100000");
        assert!(output.stderr.len() <= STDERR_TAIL);
    }

    #[test]
    fn says_what_is_missing_and_how_to_install_it() {
        let tools =
            Tools { skopeo: "/nonexistent/skopeo".into(), installer: Some("dnf install".into()), ..Tools::default() };
        let error = tools.skopeo().run().unwrap_err();
        assert_eq!(error.to_string(), "skopeo is not installed");
        assert_eq!(error.hint().as_deref(), Some("dnf install skopeo"));
        assert!(tools.skopeo().try_output().unwrap().is_none());
    }

    #[test]
    fn ends_a_whole_group_in_time() {
        let started = Instant::now();
        // The shell's child holds the pipes; only the group's end closes them.
        let output =
            Process::new("sh").args(["-c", "sleep 60; true"]).timeout(Duration::from_millis(100)).output().unwrap();
        assert_eq!(output.end, End::TimedOut(Duration::from_millis(100)));
        let cancel = Cancel::default();
        let other = cancel.clone();
        let thread = thread::spawn(move || Process::new("sleep").arg("60").cancel(&other).output().unwrap().end);
        thread::sleep(Duration::from_millis(50));
        cancel.cancel();
        assert_eq!(thread.join().unwrap(), End::Cancelled);
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn ends_what_says_nothing() {
        let bound = Duration::from_millis(300);
        let output = Process::new("sh").args(["-c", "echo a; exec sleep 60"]).silence(bound).output().unwrap();
        assert_eq!((output.end, output.stdout.as_slice()), (End::Silent(bound), b"a\n".as_slice()));
        assert_eq!(output.reason(), "sh: no headway for 0.3 s");
        let talks = "for i in 1 2 3 4 5 6; do echo $i >&2; sleep 0.1; done";
        assert!(Process::new("sh").args(["-c", talks]).silence(bound).output().unwrap().success());
    }

    #[test]
    fn leaves_none_of_a_group_behind() {
        // A helper that does not mind SIGTERM, as the child that started it is gone.
        let script = "(trap '' TERM; echo ready; exec sleep 60) & exec sleep 60";
        let mut group = 0;
        let started = Instant::now();
        let mut watch = |pid| {
            group = pid;
            started.elapsed() < Duration::from_millis(200)
        };
        let output = Process::new("sh").args(["-c", script]).watched(&mut watch).unwrap();
        assert_eq!((output.end, output.stdout.as_slice()), (End::Stopped, b"ready\n".as_slice()));
        let group = Pid::from_raw(i32::try_from(group).unwrap());
        let gone = || {
            (0..100).any(|_| {
                thread::sleep(TICK);
                killpg(group, None).is_err()
            })
        };
        assert!(gone());
    }

    #[test]
    fn takes_variables_away() {
        let print = Process::new("sh").args(["-c", "echo ${HOME-none} ${X-none}"]);
        let out = print.env("X", "y").env_remove("X").env_remove("HOME").run().unwrap();
        assert_eq!(out, b"none none\n");
    }

    #[test]
    fn ends_when_the_watcher_says_so() {
        let mut seen = Vec::new();
        let mut watch = |pid| {
            seen.push(pid);
            seen.len() < 3
        };
        let output = Process::new("sleep").arg("60").watched(&mut watch).unwrap();
        assert_eq!((output.end, seen.len()), (End::Stopped, 3));
        assert!(seen.iter().all(|pid| *pid == seen[0] && *pid > 1));
    }

    #[test]
    fn does_not_wait_for_a_descendant_that_keeps_the_pipes() {
        let started = Instant::now();
        let out = Process::new("sh").args(["-c", "echo done; sleep 5 & exit 0"]).run().unwrap();
        assert_eq!(out, b"done\n");
        assert!(started.elapsed() < Duration::from_secs(4));
    }
}
