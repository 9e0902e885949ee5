//! Whole processes, measured one beside the other.
//!
//! Each is started by a small process of its own (this program, called again), because the kernel tells the peak memory
//! of children only as the maximum over all that were waited for. The time is taken there, from before the start to
//! after the wait, so that of the small process itself does not count.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// First argument of the small process.
pub const CHILD: &str = "--child-measure";

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// From before the start to after the wait.
    pub wall: Duration,
    /// Processor time of the process and its children: what a busy machine does not change much.
    pub cpu: Duration,
    /// Peak resident memory of the largest process, in KiB; at least that of the small process, some 3 MiB. 0 for what
    /// is no process.
    pub memory: u64,
}

/// A way to do the work of a figure, given the number of the round.
type Work<'a> = Box<dyn FnMut(u32) -> Result<Sample> + 'a>;

/// One of those that are compared.
pub struct Contestant<'a> {
    /// What the table calls it.
    pub name: &'static str,
    /// `None` where it is not installed.
    work: Option<Work<'a>>,
}

impl<'a> Contestant<'a> {
    /// One whose work is done by `work`, which prepares, measures and checks.
    pub fn new(name: &'static str, work: impl FnMut(u32) -> Result<Sample> + 'a) -> Self {
        Self { name, work: Some(Box::new(work)) }
    }

    /// One that runs the same command each time, or is not installed.
    pub fn command(name: &'static str, command: Option<Command>) -> Self {
        let work = |command: Command| -> Work<'a> { Box::new(move |_| run(&command)) };
        Self { name, work: command.map(work) }
    }

    /// The same after `prepare`, which does not count.
    pub fn before(self, prepare: fn()) -> Self {
        let work = |mut work: Work<'a>| -> Work<'a> {
            Box::new(move |round| {
                prepare();
                work(round)
            })
        };
        Self { name: self.name, work: self.work.map(work) }
    }

    /// The same, where `installed`.
    pub fn only_if(self, installed: bool) -> Self {
        Self { work: self.work.filter(|_| installed), ..self }
    }
}

/// What came of a contestant.
#[derive(Debug)]
pub enum Outcome {
    /// One sample of each round.
    Samples(Vec<Sample>),
    /// Why it ended early.
    Failed(String),
    /// It is not there.
    Missing,
}

/// A contestant's name and what came of it.
#[derive(Debug)]
pub struct Measured {
    /// What the table calls it.
    pub name: &'static str,
    /// What came of it.
    pub outcome: Outcome,
}

impl Measured {
    /// Returns the samples, none where it failed or is missing.
    pub fn samples(&self) -> &[Sample] {
        match &self.outcome {
            Outcome::Samples(samples) => samples,
            Outcome::Failed(_) | Outcome::Missing => &[],
        }
    }

    /// Returns the median time.
    pub fn wall(&self) -> Option<Duration> {
        median(self.samples().iter().map(|s| s.wall.as_secs_f64())).map(Duration::from_secs_f64)
    }

    /// Returns the median processor time.
    pub fn cpu(&self) -> Option<Duration> {
        median(self.samples().iter().map(|s| s.cpu.as_secs_f64())).map(Duration::from_secs_f64)
    }

    /// Returns the largest peak memory, in KiB.
    pub fn memory(&self) -> Option<u64> {
        self.samples().iter().map(|s| s.memory).max()
    }

    /// Returns the median, over the rounds, of this time by the other's: what drifts in the machine hits both of a pair.
    pub fn ratio(&self, other: &Self) -> Option<f64> {
        let pairs = self.samples().iter().zip(other.samples());
        median(pairs.map(|(ours, theirs)| ours.wall.as_secs_f64() / theirs.wall.as_secs_f64()))
    }
}

/// Lets all contestants run in turn, `rounds` times after one round that does not count where there are many.
pub fn interleaved(rounds: u32, contestants: Vec<Contestant<'_>>) -> Vec<Measured> {
    let warm_up = u32::from(rounds > 3);
    let mut contestants = contestants;
    let mut outcomes: Vec<Outcome> = contestants
        .iter()
        .map(|c| if c.work.is_some() { Outcome::Samples(Vec::new()) } else { Outcome::Missing })
        .collect();
    for round in 0..rounds + warm_up {
        for (contestant, outcome) in contestants.iter_mut().zip(&mut outcomes) {
            let (Some(work), Outcome::Samples(samples)) = (&mut contestant.work, &mut *outcome) else {
                continue;
            };
            match work(round) {
                Ok(sample) if round >= warm_up => samples.push(sample),
                Ok(_) => {}
                Err(error) => *outcome = Outcome::Failed(format!("{error:#}")),
            }
        }
    }
    let named = |(contestant, outcome): (Contestant<'_>, Outcome)| Measured { name: contestant.name, outcome };
    contestants.into_iter().zip(outcomes).map(named).collect()
}

/// Runs a command and measures it.
///
/// # Errors
/// If it cannot be started or fails, with its last words.
pub fn run(command: &Command) -> Result<Sample> {
    let mut child = Command::new(std::env::current_exe()?);
    child.arg(CHILD).arg(command.get_program()).args(command.get_args()).env_clear().stdin(Stdio::null());
    child.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    child.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
    let output = child.output()?;
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let last_words = || String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
    ensure!(output.status.success(), "{name}: {}", last_words());
    let text = String::from_utf8(output.stdout)?;
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let (Some(wall), Some(cpu), Some(memory)) = (numbers.next(), numbers.next(), numbers.next()) else {
        bail!("{name}: no measurement in {text:?}");
    };
    Ok(Sample { wall: Duration::from_nanos(wall?), cpu: Duration::from_micros(cpu?), memory: memory? })
}

/// The variable with the file that a command reads; without it that has no stdin.
pub const STDIN: &str = "BENCH_STDIN";

/// Does the work of the small process: runs `args`, prints nanoseconds, microseconds of the processor, and KiB.
///
/// # Errors
/// If the command cannot be started or fails.
pub fn child(args: &[OsString]) -> Result<()> {
    let (program, args) = args.split_first().context("no command")?;
    let mut command = Command::new(program);
    let stdin = std::env::var_os(STDIN).map(std::fs::File::open).transpose()?;
    command.args(args).stdin(stdin.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::null()).env_remove(STDIN);
    let start = Instant::now();
    let status = command.spawn().with_context(|| program.to_string_lossy().into_owned())?.wait()?;
    let wall = start.elapsed();
    ensure!(status.success(), "{status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = usage.user_time() + usage.system_time();
    writeln!(std::io::stdout(), "{} {} {}", wall.as_nanos(), cpu.num_microseconds(), usage.max_rss())?;
    Ok(())
}

/// Runs a command and returns its own peak memory, without that of its children, in KiB.
///
/// The kernel tells it as long as the process lives, so what the last moments add is not seen.
///
/// # Errors
/// If it cannot be started or fails.
pub fn own_memory(command: &mut Command) -> Result<u64> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let mut peak = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak = peak.max(now.unwrap_or(0));
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{}: {status}", command.get_program().to_string_lossy());
            return Ok(peak);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The probe of starting a process and waiting for it.
pub fn spawn_probe(env: &dyn Fn(&OsStr) -> Command) -> Contestant<'static> {
    let name = if Path::new("/bin/true").exists() { "/bin/true" } else { "/usr/bin/true" };
    Contestant::command("/bin/true", Some(env(OsStr::new(name))))
}

/// The probe of making 4 kB in a new file of `dir` durable.
pub fn sync_probe(dir: &Path) -> Contestant<'_> {
    Contestant::new("fdatasync", move |round| {
        let path = dir.join(format!("probe-{round}"));
        let mut file = File::create_new(&path)?;
        file.write_all(&[0x5a; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        let wall = start.elapsed();
        std::fs::remove_file(&path)?;
        Ok(Sample { wall, cpu: Duration::ZERO, memory: 0 })
    })
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(upper, values[values.len() / 2 - 1]) })
}
