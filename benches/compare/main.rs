//! Our figures beside those of peers on the same work, in the same run.
//!
//! ```text
//! cargo bench --bench compare                      all figures
//! cargo bench --bench compare -- small list        those whose names have one of these words
//! cargo bench --bench compare -- --quick           a tenth of the rounds
//! ```
//!
//! Each time is the median of whole processes, ours and the peers' in turn, with everything in the page cache; cpu is
//! their processor time on all cores, and memory the largest peak of a single process. A ratio is the median of the
//! ratios of the pairs. A peer that is not installed is said to be so. The exit status says whether ours did its work,
//! and nothing about targets.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::disallowed_methods)]

mod figures;
mod figures_hook;
mod figures_install;
mod figures_registry;
mod figures_sources;
mod figures_trust;
mod inputs;
mod measure;
mod peers;
mod registry;
mod table;

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use skillctl::layer::{Encoding, Expected, UnpackOptions};

use figures::{Bench, FIGURES, Figure};
use inputs::Inputs;
use peers::World;

/// First argument of the process that unpacks a layer.
const UNPACK: &str = "--child-unpack";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match args.first().and_then(|arg| arg.to_str()) {
        Some(measure::CHILD) => measure::child(&args[1..]).map(|()| true),
        Some(UNPACK) => unpack(&args[1..]).map(|()| true),
        _ => compare(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &[OsString]) -> Result<bool> {
    let (flags, words): (Vec<_>, Vec<_>) =
        args.iter().map(|arg| arg.to_string_lossy()).partition(|arg| arg.starts_with("--"));
    if !flags.iter().any(|flag| flag == "--bench") {
        // `cargo test --all-targets` starts it without.
        println!("nothing is measured but by `cargo bench --bench compare`");
        return Ok(true);
    }
    if let Some(flag) = flags.iter().find(|flag| !["--bench", "--quick"].contains(&&***flag)) {
        bail!("{flag}: the only flag is --quick");
    }
    let asked = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(&**word));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("no target directory")?;
    let bench = Bench {
        registry: OnceCell::new(),
        world: World::new(target)?,
        inputs: Inputs::new(target.join("bench-inputs")),
        quick: flags.iter().any(|flag| flag == "--quick"),
    };
    for line in peers::header(&bench.world) {
        println!("{line}");
    }
    let mut done = Vec::new();
    for (name, measure) in FIGURES.into_iter().filter(|(name, _)| asked(name)) {
        eprintln!("measuring: {name}");
        done.push(measure(&bench, name).unwrap_or_else(|error| Figure::failed(name, &error)));
    }
    println!("\n{}", table::table(&done));
    Ok(table::complete(&done))
}

/// Unpacks a layer, verified, as `pull` and `unpack` do.
fn unpack(args: &[OsString]) -> Result<()> {
    let [layer, digest, size, diff_id, dest] = args else {
        bail!("{UNPACK} LAYER DIGEST SIZE DIFF-ID DEST");
    };
    let text = |arg: &OsString| arg.to_string_lossy().into_owned();
    let expected = Expected {
        digest: text(digest),
        size: text(size).parse()?,
        diff_id: Some(text(diff_id)),
        encoding: Encoding::Gzip,
    };
    let dest = Dir::open_ambient_dir(PathBuf::from(dest), ambient_authority())?;
    skillctl::layer::unpack(File::open(layer)?, &expected, &dest, "big", &UnpackOptions::default())?;
    Ok(())
}
