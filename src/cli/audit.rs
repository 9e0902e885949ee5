//! `audit`: the log of what was done with skills.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use clap::Subcommand;
use serde_json::{Value, json};

use super::shell::{Format, NO, Shell, open_dir};
use crate::audit::chain::{self, Report};
use crate::audit::{Action, Record, files, log};
use crate::error::Error;
use crate::ops::audit::{Filter, show};
use crate::output::{cell, harmless_line, shown, table};
use crate::reference::is_digest;

/// Most bytes of a file of recorded heads: one a minute for a year, and more.
const MAX_HEADS: u64 = 64 << 20;
/// How many digits of a digest a table shows.
const DIGITS: usize = 12;

const EXAMPLES: &str = "\
Examples:
  What was done today, and what was refused ever:
    skillctl audit show --since 1d
    skillctl audit show --result refused
  Keep the head where whoever may write the log may not, and compare with all that were kept:
    skillctl audit head | ssh logs.example 'cat >> heads'
    skillctl audit verify --head heads
  Of what was moved elsewhere, too:
    skillctl audit verify /archive/audit.log.* /var/log/skillctl/audit.log

Files:
  /var/log/skillctl/audit.log        The log of root, and of containers of root
  ~/.local/state/skillctl/audit.log  That of another user; audit.log.NUMBER beside
                                     it are what came before
  /etc/skillctl/audit.toml           audit = \"on\", \"required\" or \"off\"; journald =
                                     true or false
  ~/.config/skillctl/audit.toml      What the machine's does not say";

/// Show what was done with skills, and verify that nobody has changed that
///
/// Each verification, installation, load, mount, promotion and signature is a line of JSON with the hash of the line before it, in a
/// file and in the journal. Only the end can be cut without a trace, which shows by a head that was recorded elsewhere.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Show(ShowArgs),
    Verify(VerifyArgs),
    Head(HeadArgs),
}

const SHOW: &str = "\
Examples:
  skillctl audit show -n 10
  skillctl audit show --since 2d --action install --reference acme/hr
  skillctl audit show --result refused --format json";

/// Show records, old to new
#[derive(Debug, clap::Args)]
#[command(after_long_help = SHOW)]
struct ShowArgs {
    /// Files of a log, instead of one's own
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// From a date on (2026-11-27, or with a time, RFC 3339), or of the last seconds, minutes, hours, days or weeks (30m, 2d)
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<DateTime<Utc>>,
    /// Of this action; repeatable
    #[arg(long, value_name = "ACTION", value_parser = actions())]
    action: Vec<String>,
    /// With this result; repeatable
    #[arg(long, value_name = "RESULT", value_parser = ["ok", "refused", "failed"])]
    result: Vec<String>,
    /// With this in the reference
    #[arg(long, value_name = "TEXT")]
    reference: Option<String>,
    /// The last records only
    #[arg(long, short = 'n', value_name = "NUMBER")]
    last: Option<usize>,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const VERIFY: &str = "\
Examples:
  skillctl audit verify
  skillctl audit verify --head heads
  skillctl audit verify /archive/audit.log.* /var/log/skillctl/audit.log";

/// Verify that every record follows the one before it
///
/// Exit status 1, and the first line that does not fit, where one was changed, removed or moved; 0 where there is no log. Of the files that are named the first may
/// begin with any record.
#[derive(Debug, clap::Args)]
#[command(after_long_help = VERIFY)]
struct VerifyArgs {
    /// Files of a log, instead of one's own, in any order
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A head that was recorded, or a file with such, each of which the log has to have still; repeatable
    #[arg(long, value_name = "HASH|FILE")]
    head: Vec<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const HEAD: &str = "\
Examples:
  skillctl audit head | ssh logs.example 'cat >> heads'";

/// Print number and hash of the last record
#[derive(Debug, clap::Args)]
#[command(after_long_help = HEAD)]
struct HeadArgs {
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

type Files = Vec<(String, BufReader<File>)>;

fn actions() -> clap::builder::PossibleValuesParser {
    Action::ALL.map(Action::as_str).into()
}

fn since(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(date) = DateTime::parse_from_rfc3339(text) {
        return Ok(date.to_utc());
    }
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400), ('w', 7 * 86_400)];
    let span = units.iter().find_map(|(unit, seconds)| {
        let count: i64 = text.strip_suffix(*unit)?.parse().ok().filter(|count| *count >= 0)?;
        Utc::now().checked_sub_signed(TimeDelta::try_seconds(count.checked_mul(*seconds)?)?)
    });
    span.ok_or_else(|| "a date such as 2026-11-27 or 2026-11-27T13:00:00Z is expected, or a time such as 2d".to_owned())
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        match self.kind {
            Kind::Show(args) => args.run(shell),
            Kind::Verify(args) => args.run(shell),
            Kind::Head(args) => args.run(shell),
        }
    }
}

/// Opens the files that were named, else those of the user's own log.
fn open(shell: &Shell, named: &[PathBuf]) -> Result<Files> {
    if named.is_empty() {
        let dir = shell.audit_dir()?;
        return match open_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Files::new()),
            dir_or => files::all(&dir_or.map_err(Error::io(shown(&dir)))?)
                .map(|all| all.into_iter().map(|(name, file)| (shown(&dir.join(name)), file)).collect())
                .with_context(|| format!("Reading {}", dir.display())),
        };
    }
    let mut all = Vec::new();
    for path in named {
        let file = (|| {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidFilename)?;
            files::open(&open_dir(parent)?, name)
        })();
        all.push((shown(path), files::reader(file.map_err(Error::io(shown(path)))?)));
    }
    files::in_order(all).context("Reading the files")
}

impl ShowArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let files = open(shell, &self.files)?;
        let Self { since, action: actions, result: results, reference, last, format, .. } = self;
        let filter = Filter { since, actions, results, reference, last };
        let mut records = Vec::new();
        let odd = show(files, &filter, |record| {
            records.push(record);
            Ok(())
        })?;
        if odd > 0 {
            shell.warn(format!("warning: {odd} line(s) are no record; skillctl audit verify says where"));
        }
        match format {
            Format::Json => shell.print_json(&records)?,
            Format::Text => {
                let rows: Vec<Vec<String>> = records.iter().map(row).collect();
                let heading = ["SEQ", "TIME", "USER", "ACTION", "RESULT", "REFERENCE", "DIGEST", "DETAILS"];
                shell.print(table(&heading, &rows))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns a row of the table, in which nobody can forge another.
fn row(record: &Record) -> Vec<String> {
    let short = |digest: &str| digest.trim_start_matches("sha256:").chars().take(DIGITS).collect::<String>();
    let mut details: Vec<String> = record.reason.iter().cloned().collect();
    details.extend(record.place.clone());
    details.extend(record.container.as_ref().map(|id| format!("container {}", short(id))));
    if !record.signers.is_empty() {
        // A change of the policy is about them.
        let by = if record.action == Action::Trust.as_str() { "signers" } else { "signed by" };
        details.push(format!("{by} {}", record.signers.iter().map(|one| short(one)).collect::<Vec<_>>().join(",")));
    }
    let user = record.user.name.clone().unwrap_or_else(|| record.user.uid.to_string());
    let cells = [
        record.seq.to_string(),
        record.time.clone(),
        user,
        record.action.clone(),
        record.result.as_str().to_owned(),
        record.reference.clone(),
        record.digest.as_deref().map(short).unwrap_or_default(),
    ];
    // The last column is whole: nothing is padded to it, and it has why.
    cells.iter().map(|text| cell(text)).chain([harmless_line(&details.join("; "))]).collect()
}

impl VerifyArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let mut heads = Vec::new();
        for head in &self.head {
            match is_digest(head) {
                true => heads.push(head.clone()),
                false => heads.extend(read_heads(Path::new(head))?),
            }
        }
        let files = open(shell, &self.files)?;
        let is_none = files.is_empty();
        let report = chain::check(files, &heads, self.files.is_empty()).context("Reading the audit log")?;
        let status = if report.problem.is_none() { ExitCode::SUCCESS } else { ExitCode::from(NO) };
        match self.format {
            Format::Json => {
                let mut value = serde_json::to_value(&report)?;
                value["valid"] = json!(report.problem.is_none());
                shell.print_json(&value)?;
            }
            // Nobody has looked at anything: nothing is well, and nothing is wrong.
            Format::Text if is_none && report.problem.is_none() => {
                shell.print(format!(
                    "There is no audit log in {}: nothing was recorded yet.\n",
                    shown(&shell.audit_dir()?)
                ))?;
            }
            Format::Text => self.report(shell, &report)?,
        }
        Ok(status)
    }

    fn report(&self, shell: &Shell, report: &Report) -> Result<()> {
        for at in &report.unfinished {
            shell
                .warn(format!("warning: {}:{}: not a record: a process was ended while it wrote it", at.file, at.line));
        }
        if let Some(problem) = &report.problem {
            let at = problem.at.as_ref().map(|at| format!("{}:{}: ", at.file, at.line)).unwrap_or_default();
            return shell.print(format!("✗ {}\n", harmless_line(&format!("{at}{}", problem.reason))));
        }
        if let Some(first) = report.first.filter(|first| *first > 1) {
            shell.note(format!("note: what comes before record {first} is in none of the files"));
        }
        let head = report.head.as_ref().map(|head| format!(", head {}", head.hash)).unwrap_or_default();
        shell.print(format!("✓ {} records{head}\n", report.records))
    }
}

/// Reads every hash that a file has, whatever else is in it: the output of `audit head`, in either format, or of the journal.
fn read_heads(path: &Path) -> Result<Vec<String>> {
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_HEADS).read_to_end(&mut text)).map_err(Error::io(shown(path)))?;
    let text = String::from_utf8_lossy(&text);
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':');
    let heads: Vec<String> = words.filter(|word| is_digest(word)).map(str::to_owned).collect();
    if heads.is_empty() {
        let reason = format!("{} has no head in it", shown(path));
        let hint = Some("skillctl audit head prints one: sha256: and 64 digits".into());
        return Err(Error::Unavailable { reason, hint }.into());
    }
    Ok(heads)
}

impl HeadArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let dir = shell.audit_dir()?;
        let file = dir.join(files::FILE);
        let head = match open_dir(&dir) {
            Ok(dir) => log::head(&dir).map_err(Error::io(shown(&file)))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::io(shown(&dir))(e).into()),
        };
        let Some(head) = head else {
            let reason = format!("{} has no record yet", shown(&file));
            return Err(Error::Unavailable { reason, hint: None }.into());
        };
        match self.format {
            Format::Json => {
                let value: Value = json!({"seq": head.seq, "hash": head.hash, "file": file});
                shell.print_json(&value)?;
            }
            Format::Text => shell.print(format!("{} {}\n", head.seq, head.hash))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
