//! `load -i`: from a layout that somebody brings.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::load::{Args, When, load, loading};
use super::record;
use super::shell::{Format, Shell, hint_of, open_dir};
use crate::audit::{Action, Event};
use crate::error::Error;
use crate::layer::Encoding;
use crate::limits::Limits;
use crate::ops::load::{Entered, Rule, enter};
use crate::output::harmless_line;
use crate::reference::Transport;
use crate::source::archive;
use crate::store::layout::Layout;
use crate::store::set::Source;

/// Bytes that tell what a file is: a block of a tar archive.
const START: u64 = 512;

/// Enters the images of a layout in the store, and loads them.
pub fn run(shell: &Shell, args: &Args, input: &Path) -> Result<ExitCode> {
    // As skopeo names it.
    let input = match input.to_str().filter(|_| !input.exists()).map(Transport::split) {
        Some((Some(Transport::Oci | Transport::OciArchive), path)) => Path::new(path),
        _ => input,
    };
    let context = || format!("Loading {}", input.display());
    shell.can_record()?;
    let trust = args.verify.rule(shell)?;
    let layout = shell.store()?;
    let from = input.display().to_string();
    let source = open(shell, &layout, input, args.max_size).with_context(context);
    let source = shell.recorded((Action::Load, &from), source, |_| Vec::new())?;
    let rule = Rule { trust: trust.as_ref(), force: args.force };
    let entered = enter(&layout, &source, &args.references, rule, &shell.cancel()).with_context(context);
    let event = |one: &Entered| Event::of(Action::Load, &one.reference).digest(&one.digest).at("the store");
    let events = |all: &Vec<Entered>| {
        let verified = all.iter().filter_map(|one| one.check.as_ref()).flat_map(record::verified);
        verified.chain(all.iter().map(event)).collect()
    };
    let entered = shell.recorded((Action::Load, &from), entered, events)?;
    // What was unpacked has become blobs of the store, or is not needed.
    drop(source);
    report(shell, args, &layout, &entered)
}

/// Loads what was entered, and says what became of each.
fn report(shell: &Shell, args: &Args, layout: &Layout, entered: &[Entered]) -> Result<ExitCode> {
    let width = entered.iter().map(|one| one.reference.chars().count()).max().unwrap_or_default();
    let timeout = Duration::from_secs(args.load_timeout);
    let (mut status, mut said, mut rows) = (ExitCode::SUCCESS, String::new(), Vec::<Value>::new());
    for one in entered {
        // Artifacts, such as collections, are for the store only.
        let wanted = args.load != When::Never && (one.is_loadable || args.load == When::Always);
        let loaded = wanted.then(|| load(shell, layout, &one.entry, (args.platform.as_ref(), timeout), None));
        let is_loaded = matches!(loaded, Some(Ok(_)));
        match loaded {
            Some(Err(e)) if args.load == When::Always => status = shell.fail(&e.context(loading(&one.entry))),
            Some(Err(e)) => {
                let fix = hint_of(&e).map(|hint| format!("; {hint}")).unwrap_or_default();
                let why = harmless_line(&format!("Not loaded: {e:#}{fix}"));
                if why != said {
                    shell.note(&why);
                }
                said = why;
            }
            _ => {}
        }
        if args.format == Format::Text {
            let verified = if one.verified { "verified, " } else { "" };
            let place = if is_loaded { "loaded" } else { "in the store" };
            shell.print(format!("{:width$}  {verified}{place}\n", harmless_line(&one.reference)))?;
        }
        let mut row = serde_json::to_value(one)?;
        row["loaded"] = json!(is_loaded);
        rows.push(row);
    }
    if args.format == Format::Json {
        shell.print_json(&rows)?;
    }
    Ok(status)
}

/// Opens a layout: a directory, an archive, or stdin.
pub fn open(shell: &Shell, layout: &Layout, input: &Path, max_size: u64) -> Result<Source> {
    let name = input.display().to_string();
    if input == Path::new("-") {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            let reason = "stdin is a terminal, and a layout is read from it".to_owned();
            return Err(Error::Unavailable { reason, hint: Some("skillctl load -i FILE".into()) }.into());
        }
        return read(shell, layout, stdin.lock(), ("stdin", max_size));
    }
    if input.is_dir() {
        return Ok(Source::directory(open_dir(input).map_err(Error::io(&*name))?, &name)?);
    }
    read(shell, layout, File::open(input).map_err(Error::io(&*name))?, (&name, max_size))
}

fn read(shell: &Shell, layout: &Layout, mut file: impl Read, (name, max_size): (&str, u64)) -> Result<Source> {
    let mut start = Vec::new();
    file.by_ref().take(START).read_to_end(&mut start).map_err(Error::io(name))?;
    let encoding = match archive::format(&start) {
        Ok(archive::Format::Tar) => Encoding::Tar,
        Ok(archive::Format::TarGz) => Encoding::Gzip,
        Ok(archive::Format::Zip) => return Err(unavailable(format!("{name} is a zip archive, and no layout"))),
        Err(reason) => return Err(unavailable(format!("{name} {reason}"))),
    };
    let limits = Limits { size: max_size, ..Limits::default() };
    let whole = io::Cursor::new(start).chain(file);
    Ok(Source::archive(layout, whole, (name, encoding), &limits, &shell.cancel())?)
}

fn unavailable(reason: String) -> anyhow::Error {
    Error::Unavailable { reason, hint: Some("skillctl save writes what load reads".into()) }.into()
}
