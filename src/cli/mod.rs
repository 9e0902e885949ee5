//! The command line: one line per verb here, one file per verb beside.
//!
//! Exit status: 0 fine, 1 the answer is no (invalid, damaged), 2 could not do it.

mod build;
mod doc;
mod doctor;
mod fsck;
mod generate;
mod images;
mod init;
mod load;
mod prune;
mod rm;
mod shell;
mod tag;
mod validate;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use shell::{Global, Shell};

pub use doc::command;

/// What the long help and the man page end with. Lines that end in a colon become headings there.
const AFTER: &str = "\
Environment:
  SKILLCTL_STORE           The store, unless --store names it
  XDG_DATA_HOME            Else the store is skillctl/store in there
  SOURCE_DATE_EPOCH        Date of a built image and its files, else 1970
  CONTAINERS_STORAGE_CONF, STORAGE_DRIVER, STORAGE_OPTS
                           Where containers-storage is, as for podman

Files:
  /var/lib/skillctl/store               The store of root
  ~/.local/share/skillctl/store         The store of other users
  /etc/containers/storage.conf          Where containers-storage is
  /etc/containers/policy.json           What may be loaded into it

Exit status:
  0  Fine
  1  The answer is no: invalid, damaged, or something will not work
  2  Could not do it";

/// Build, store and mount AI agent skills as OCI images
///
/// A skill is a directory with SKILL.md. skillctl packages it as an ordinary OCI image, keeps it in a local store (an
/// OCI image layout) and loads it into containers-storage, where podman and CRI-O mount it from.
#[derive(Debug, Parser)]
#[command(name = "skillctl", version = concat!("version ", env!("CARGO_PKG_VERSION")), disable_help_subcommand = false, arg_required_else_help = true)]
#[command(after_help = "Exit status: 0 fine, 1 the answer is no (invalid, damaged), 2 could not do it.")]
#[command(after_long_help = AFTER)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Validate(validate::Args),
    #[command(visible_alias = "pack")]
    Build(build::Args),
    #[command(visible_aliases = ["ls", "images"])]
    List(images::ListArgs),
    Inspect(images::InspectArgs),
    Tag(tag::Args),
    #[command(visible_alias = "delete")]
    Rm(rm::Args),
    Prune(prune::Args),
    Load(load::Args),
    Unload(load::UnloadArgs),
    Fsck(fsck::Args),
    Generate(generate::Args),
    Doctor(doctor::Args),
    Completion(doc::CompletionArgs),
    Version(doc::VersionArgs),
}

/// Runs the command line and returns the exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // A closed pipe must not turn --help into a panic or a failure.
            if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                // Without a verb the Go tool prints its help, and that is no error.
                let _ = writeln!(std::io::stdout(), "{}", e.render());
                return ExitCode::SUCCESS;
            }
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    let shell = Shell::new(cli.global);
    let result = match cli.command {
        Command::Init(args) => args.run(&shell),
        Command::Validate(args) => args.run(&shell),
        Command::Build(args) => args.run(&shell),
        Command::List(args) => args.run(&shell),
        Command::Inspect(args) => args.run(&shell),
        Command::Tag(args) => args.run(&shell),
        Command::Rm(args) => args.run(&shell),
        Command::Prune(args) => args.run(&shell),
        Command::Load(args) => args.run(&shell),
        Command::Unload(args) => args.run(&shell),
        Command::Fsck(args) => args.run(&shell),
        Command::Generate(args) => args.run(&shell),
        Command::Doctor(args) => args.run(&shell),
        Command::Completion(args) => args.run(&shell),
        Command::Version(args) => args.run(&shell),
    };
    result.unwrap_or_else(|e| shell.fail(&e))
}
