//! Runs of `skopeo copy`: watched, tried again where that may help, and ended when nothing moves or the user says so.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::place::Secret;
use super::skopeo::{explain, may_pass};
use crate::error::{Error, Fault, Result};
use crate::process::{End, Output, Tools};

/// How long a copy may make no headway. A registry that verifies a large layer may be silent for a minute.
pub(super) const STALL: Duration = Duration::from_secs(180);
/// First pause before a copy is tried again; each further one is twice as long, as in podman.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How copies are made.
#[derive(Clone, Copy)]
pub struct Copying<'a> {
    /// skopeo, and what ends it.
    pub tools: &'a Tools,
    /// How often a copy that may pass is tried again.
    pub retry: u32,
    /// Called with the number of bytes copied, and of all bytes where that is known.
    pub progress: &'a dyn Fn(u64, Option<u64>),
}

impl std::fmt::Debug for Copying<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copying").field("retry", &self.retry).finish_non_exhaustive()
    }
}

/// What is looked at while skopeo runs: bytes done, and all of them; `None` ends it.
pub(super) type Watch<'a> = dyn FnMut(u32) -> Option<(u64, Option<u64>)> + 'a;

/// One run of skopeo.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub args: &'a [OsString],
    /// The registries that it talks to; an error names one of them.
    pub hosts: &'a [&'a str],
    /// What it is given on its standard input.
    pub secret: Option<&'a Secret>,
}

impl Copying<'_> {
    /// Runs skopeo until it succeeds or trying again is of no use.
    pub(super) fn run(&self, run: Run<'_>, watch: &mut Watch<'_>) -> Result<()> {
        self.again(|| {
            let output = self.once(run, watch)?;
            if output.success() { Ok(()) } else { Err(failure(&output, run.hosts)) }
        })
    }

    /// Does something until it succeeds or trying again is of no use.
    ///
    /// # Errors
    /// The last error, or that it was interrupted.
    pub fn again<T>(&self, mut act: impl FnMut() -> Result<T>) -> Result<T> {
        let mut pause = FIRST_PAUSE;
        let mut left = self.retry;
        loop {
            match act() {
                Err(error) if left > 0 && !self.tools.cancel.is_cancelled() && may_pass(&error) => {
                    self.tools.cancel.pause(pause)?;
                    (left, pause) = (left - 1, pause * 2);
                }
                done => return done,
            }
        }
    }

    fn once(&self, run: Run<'_>, watch: &mut Watch<'_>) -> Result<Output> {
        let (mut last, mut since) = (None, Instant::now());
        let mut stalled = false;
        let mut skopeo = self.tools.skopeo().args(run.args);
        if let Some(secret) = run.secret {
            skopeo = skopeo.stdin_file(Arc::new(secret.file()?));
        }
        let mut output = skopeo.watched(&mut |pid| {
            let Some((bytes, total)) = watch(pid) else { return false };
            (self.progress)(bytes, total);
            if last != Some(bytes) {
                (last, since) = (Some(bytes), Instant::now());
            }
            stalled = since.elapsed() > STALL;
            !stalled
        })?;
        if stalled {
            output.end = End::TimedOut(STALL);
        }
        Ok(output)
    }
}

pub(super) fn failure(output: &Output, hosts: &[&str]) -> Error {
    let said = output.reason();
    // What is written is named first, so that of two which are both named it is the one.
    let named = hosts.iter().find(|host| said.contains(**host)).or(hosts.first());
    let host = named.copied().unwrap_or_default();
    match output.end {
        End::Exit(_) => explain(&said, host),
        End::TimedOut(after) => Error::Registry {
            registry: host.to_owned(),
            fault: Fault::Unreachable,
            reason: format!("nothing moved for {} s", after.as_secs()),
            hint: None,
        },
        _ => output.error(),
    }
}
