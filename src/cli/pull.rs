//! `pull`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::json;

use super::gather::only_image;
use super::install::chosen;
use super::load::LoadArgs;
use super::progress::Board;
use super::record;
use super::registry::RegistryArgs;
use super::shell::{Format, Shell, open_dir};
use super::verify::{VerifyArgs, signed};
use crate::audit::{Action, Event};
use crate::error::Error;
use crate::layer::UnpackOptions;
use crate::limits::Limits;
use crate::ops::contents::Contents;
use crate::ops::extract::{self, Source, extract};
use crate::ops::pull::{self, Pulled, Rule};
use crate::output::{harmless_line, shown};
use crate::process::Tools;
use crate::reference::Reference;
use crate::store::layout::Layout;
use crate::store::remote::Remote;
use crate::trust::policy::Rule as Trust;

/// How many images are pulled at once: skopeo fetches several layers of each by itself.
const AT_ONCE: usize = 3;

const EXAMPLES: &str = "\
Examples:
  Into the store and into containers-storage:
    skillctl pull registry.example/acme/hr:1.0.0
  And as files, in ./skills/hr:
    skillctl pull -o ./skills registry.example/acme/hr:1.0.0
  Only what the holder of a key has signed:
    skillctl pull --verify --key acme.pub registry.example/acme/hr:1.0.0
  Without asking the registry where the image is here:
    skillctl pull --pull=missing registry.example/acme/hr:1.0.0";

/// When the registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Always; it must answer
    Always,
    /// Where the image is not in the store
    Missing,
    /// Always; where it gives no image, that of the store will do
    Newer,
    /// Never
    Never,
}

impl When {
    /// Returns the rule of the operation.
    pub fn rule(self) -> pull::When {
        match self {
            Self::Always => pull::When::Always,
            Self::Missing => pull::When::Missing,
            Self::Newer => pull::When::Newer,
            Self::Never => pull::When::Never,
        }
    }
}

/// Pull images from registries into the store
///
/// Digest and size of all that comes are verified, policy.json is kept, and what is here already does not come again.
/// The image is loaded into containers-storage where that is possible, and written to a directory with --output, where it
/// replaces what an earlier pull from the same repository wrote, whole, as long as nobody has changed it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Images of registries
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<String>,
    /// Write each skill to DIR/NAME, too
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// When the registry is asked, as in podman
    #[arg(long, alias = "policy", value_enum, value_name = "WHEN", default_value = "always")]
    pull: When,
    /// Of an artifact with several skills write those of this name; repeatable
    #[arg(long, value_name = "NAME", requires = "output")]
    skill: Vec<String>,
    /// Replace whatever has the skill's name in the output directory
    #[arg(long, short)]
    force: bool,
    /// Most bytes, packed and in files
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().size)]
    max_size: u64,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    load: LoadArgs,
}

/// What became of one image.
struct Done {
    pulled: Pulled,
    loaded: bool,
    paths: Vec<PathBuf>,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        if let Some(output) = &self.output {
            check_output(output)?;
        }
        let mut wanted = Vec::new();
        for text in &self.references {
            only_image(text).with_context(|| format!("Pulling {text}"))?;
            wanted.push((
                text,
                self.registry.resolve(shell, text).with_context(|| format!("Pulling {text}"))?.or_latest(),
            ));
        }
        let references: Vec<Reference> = wanted.iter().map(|(_, reference)| reference.clone()).collect();
        self.registry.check_single(&references)?;
        let trust = self.verify.rule(shell)?;
        shell.can_record()?;
        let layout = shell.store()?;
        let remote = self.registry.remote(shell)?;
        let board = shell.board();
        let pulled = self.pull_all(&wanted, (&layout, &remote), trust.as_ref(), &board, &shell.tools());
        drop(board);
        let mut status = ExitCode::SUCCESS;
        let mut done = Vec::new();
        for ((text, _), pulled) in wanted.iter().zip(pulled) {
            let pulled = shell.recorded((Action::Pull, text), pulled, record::pulled);
            let finished = pulled.and_then(|pulled| self.finish(shell, &layout, text, pulled));
            match finished.with_context(|| format!("Pulling {text}")) {
                Ok(finished) => done.push(finished),
                Err(e) => status = shell.fail(&e),
            }
        }
        if self.format == Format::Json {
            let rows = done.iter().map(value).collect::<Result<Vec<_>>>()?;
            shell.print_json(&rows)?;
        }
        Ok(status)
    }

    /// Pulls everything, some at once, and returns the results in order.
    fn pull_all(
        &self,
        wanted: &[(&String, Reference)],
        (layout, remote): (&Layout, &Remote),
        trust: Option<&Trust>,
        board: &Board,
        tools: &Tools,
    ) -> Vec<Result<Pulled>> {
        let queue = Mutex::new(wanted.iter().enumerate());
        let results: Mutex<Vec<_>> = Mutex::new(wanted.iter().map(|_| None).collect());
        let rule = Rule { trust, ..Rule::new(self.pull.rule(), self.max_size) };
        let next = || queue.lock().ok().and_then(|mut queue| queue.next());
        let work = || {
            while let Some((at, (_, reference))) = next() {
                let progress = board.add(&reference.to_string());
                let report = |bytes, total| progress.towards(bytes, total);
                let copying = self.registry.copying(tools, &report);
                let result = pull::pull((layout, remote), reference, rule, copying);
                if let Ok(mut results) = results.lock() {
                    results[at] = Some(result);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..AT_ONCE.min(wanted.len()) {
                scope.spawn(work);
            }
            work();
        });
        let interrupted = || Err(Error::interrupted().into());
        results.into_inner().unwrap_or_default().into_iter().map(|result| result.unwrap_or_else(interrupted)).collect()
    }

    /// Writes the image out, says so, and loads it.
    fn finish(&self, shell: &Shell, layout: &Layout, text: &str, mut pulled: Pulled) -> Result<Done> {
        let known = pulled.warnings.len();
        shell.warnings(&pulled.warnings);
        let paths = match &self.output {
            Some(output) => {
                let how = Writing { output, skills: &self.skill, force: self.force, max_size: self.max_size };
                write(shell, layout, (text, &mut pulled), how)?
            }
            None => Vec::new(),
        };
        shell.warnings(&pulled.warnings[known..]);
        if self.format == Format::Text {
            shell.print(self.text(text, &pulled, &paths))?;
        }
        let loaded = self.load.after(shell, layout, &pulled.entry)?;
        Ok(Done { pulled, loaded, paths })
    }

    fn text(&self, text: &str, pulled: &Pulled, paths: &[PathBuf]) -> String {
        let unpacked = match &self.output {
            Some(output) => {
                let directories = paths.iter().map(|path| format!("Directory: {}\n", shown(path)));
                format!("Unpacked to {}\n", shown(output)) + &directories.collect::<String>()
            }
            None => String::new(),
        };
        let signed = signed(pulled.verified.as_ref());
        format!("Pulled {}\nDigest: {}\n{unpacked}{signed}", harmless_line(text), pulled.digest)
    }
}

/// How an image is written below a directory.
#[derive(Debug, Clone, Copy)]
pub struct Writing<'a> {
    /// The directory.
    pub output: &'a Path,
    /// Of several skills those that are written; all unless some are named.
    pub skills: &'a [String],
    /// Whether whatever has a skill's name is replaced.
    pub force: bool,
    /// Most bytes.
    pub max_size: u64,
}

/// Writes the skills of an image of the store below a directory, and returns where they are.
pub fn write(
    shell: &Shell,
    layout: &Layout,
    (text, pulled): (&str, &mut Pulled),
    how: Writing<'_>,
) -> Result<Vec<PathBuf>> {
    let output = how.output;
    let context = || format!("Writing to {}", output.display());
    std::fs::create_dir_all(output).with_context(context)?;
    let dest = open_dir(output).with_context(context)?;
    let cancel = shell.cancel();
    let options = UnpackOptions {
        limits: Limits { size: how.max_size, ..Limits::default() },
        replace: how.force,
        durable: true,
        cancelled: Some(cancel.flag()),
        ..UnpackOptions::default()
    };
    let reference: Reference = pulled.reference.parse()?;
    let before = extract::before(layout, &reference, pulled.moved_from.as_deref())?;
    let contents = Contents::of(layout, &pulled.entry.descriptor, &options).with_context(context)?;
    let info = crate::store::read(layout, pulled.entry.clone())?.info;
    let source = Source { layout, contents: &contents, before: &before };
    shell.can_record()?;
    let mut paths = Vec::new();
    for name in chosen(&contents.names(&info, &reference), how.skills)? {
        let extracted = extract(&source, &dest, name, &options).with_context(context)?;
        if !extracted.is_skill {
            pulled.warnings.push(format!("{text} has no SKILL.md: it is no skill"));
        }
        if let Some(leftover) = extracted.unpacked.leftover {
            pulled.warnings.push(format!("{} could not be removed", output.join(leftover).display()));
        }
        paths.push(output.join(name));
        let event = Event::of(Action::Install, &pulled.reference).digest(&pulled.digest);
        let place = std::path::absolute(output.join(name))?;
        shell.record(vec![event.at(place.display())])?;
    }
    Ok(paths)
}

/// Refuses a file, and a link to nothing, before anything is pulled.
pub fn check_output(output: &Path) -> Result<()> {
    if output.symlink_metadata().is_ok() && !output.is_dir() {
        let reason = format!("{} is not a directory", output.display());
        return Err(Error::Unavailable { reason, hint: None }.into());
    }
    Ok(())
}

fn value(done: &Done) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(&done.pulled)?;
    value["loaded"] = json!(done.loaded);
    value["path"] = json!(done.paths.first());
    value["paths"] = json!(done.paths);
    Ok(value)
}
