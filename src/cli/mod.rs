//! The command line: one line per verb here, one file per verb beside.
//!
//! Exit status: 0 fine, 1 the answer is no (invalid, damaged), 2 could not do it, 130 ended by a signal.

mod agents;
mod attest;
mod attestations;
mod audit;
mod build;
mod cdi;
mod collection;
mod convert;
mod copy;
mod doc;
mod doctor;
mod fsck;
mod gather;
mod generate;
mod history;
mod hook;
mod identity;
mod images;
mod init;
mod install;
mod installed;
mod journal;
mod key;
mod keyless;
mod late;
mod load;
mod load_input;
mod login;
mod make;
mod mirror;
mod passphrase;
mod policy;
mod progress;
mod promote;
mod prompt;
mod prune;
mod pull;
mod push;
mod record;
mod registry;
mod rm;
mod save;
mod save_storage;
mod shell;
mod sign;
mod signer;
mod sync;
mod tag;
mod targets;
mod trust;
mod uninstall;
mod upgrade;
mod validate;
mod verify;
mod wanted;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use late::Late;
use shell::{Global, Shell};

pub use doc::command;
pub use hook::main as hook_main;

/// What the long help and the man page end with. Lines that end in a colon become headings there.
const AFTER: &str = "\
Environment:
  SKILLCTL_STORE           The store, unless --store names it
  SKILLCTL_ADD_STORES      Stores that are only read, colons between them,
                           unless --add-store names some
  XDG_DATA_HOME            Else the store is skillctl/store in there
  XDG_STATE_HOME           The audit log is skillctl/audit.log in there
  COSIGN_PASSWORD          Passphrase of a key
  SOURCE_DATE_EPOCH        Date of a built image and its files, else 1970
  CONTAINERS_STORAGE_CONF, STORAGE_DRIVER, STORAGE_OPTS
                           Where containers-storage is, as for podman
  REGISTRY_AUTH_FILE       Credentials, unless --authfile names the file
  DOCKER_CONFIG            Directory of Docker's config.json, else ~/.docker,
                           or of a pull secret, .dockerconfigjson
  CONTAINERS_REGISTRIES_CONF
                           Instead of registries.conf
  CLAUDE_CONFIG_DIR, CODEX_HOME, XDG_CONFIG_HOME, ...
                           Where agents have their files: skillctl agents
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY
                           Proxies; never for this machine

Files:
  /var/lib/skillctl/store               The store of root
  ~/.local/share/skillctl/store         The store of other users
  /usr/lib/skillctl/store               What an image of the operating system
                                        brings; only read
  /etc/containers/storage.conf          Where containers-storage is
  /etc/containers/policy.json           What may be loaded, pulled and pushed
  /etc/containers/registries.conf       Mirrors, aliases, blocked registries
  /etc/containers/certs.d/REGISTRY      Authorities and client certificates
  $XDG_RUNTIME_DIR/containers/auth.json Credentials; of root in
                                        /run/containers/0/auth.json

  /var/log/skillctl/audit.log           What root has done with skills
  ~/.local/state/skillctl/audit.log     What other users have done
  /etc/skillctl/audit.toml              Whether that is logged, and has to be

  SKILLS/.skillimage                    What is installed in a directory of
                                        skills, and backups of your files
  skills.json, skills.lock.json         What a project wants, and has

Exit status:
  0  Fine
  1  The answer is no: invalid, damaged, changed, or something will not work
  2  Could not do it
  130  Ended by Ctrl-C, SIGTERM or a hangup";

/// Build, store, share and mount AI agent skills as OCI images
///
/// A skill is a directory with SKILL.md. skillctl packages it as an ordinary OCI image, keeps it in a local store (an
/// OCI image layout), loads it into containers-storage, where podman and CRI-O mount it from, and moves it through
/// registries with the same digest.
#[derive(Debug, Parser)]
#[command(name = "skillctl", version = concat!("version ", env!("CARGO_PKG_VERSION")), disable_help_subcommand = false, arg_required_else_help = true)]
#[command(
    after_help = "Exit status: 0 fine, 1 the answer is no (invalid, damaged), 2 could not do it, 130 interrupted."
)]
#[command(after_long_help = AFTER)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

// The lines are those that the verbs' own descriptions begin with, for the list of all verbs.
#[derive(Debug, Subcommand)]
enum Command {
    /// Start a skill
    Init(Late<init::Args>),
    /// Check SKILL.md and skill.yaml against their specifications
    Validate(Late<validate::Args>),
    /// Build a skill directory into an image
    #[command(visible_alias = "pack")]
    Build(Late<build::Args>),
    /// List images, and which of them are loaded
    #[command(visible_aliases = ["ls", "images"])]
    List(Late<images::ListArgs>),
    /// Describe an image
    Inspect(Late<images::InspectArgs>),
    /// Give an image of the store another name
    Tag(Late<tag::Args>),
    /// Remove names from store and containers-storage
    #[command(visible_alias = "delete")]
    Rm(Late<rm::Args>),
    /// Remove superseded states and free the blobs that nothing names
    Prune(Late<prune::Args>),
    /// Load images of the store, or of a file, into containers-storage
    Load(Late<load::Args>),
    /// Take names away from containers-storage
    Unload(Late<load::UnloadArgs>),
    /// Pull images from registries into the store
    Pull(Late<pull::Args>),
    /// Push an image of the store to a registry
    Push(Late<push::Args>),
    /// Move a skill to its next lifecycle state
    Promote(Late<promote::Args>),
    /// Show the states of a skill that store and registry still hold
    History(Late<history::Args>),
    /// Copy an image from any transport to any transport
    Copy(Late<copy::Args>),
    /// Save images with their signatures, for a host without a network
    Save(Late<save::Args>),
    /// Copy images with their signatures to another registry
    Mirror(Late<mirror::Args>),
    /// Make an image that can be mounted of a skill in any form
    Convert(Late<convert::Args>),
    /// Log in to a registry
    Login(Late<login::LoginArgs>),
    /// Log out of a registry
    Logout(Late<login::LogoutArgs>),
    /// Sign an image
    Sign(Late<sign::Args>),
    /// Attest what is in an image, how it was built, or anything else
    Attest(Late<attest::Args>),
    /// Verify that an image is what a key or an identity has signed
    Verify(Late<verify::Args>),
    /// Make and show the keys that sign skills
    Key(Late<key::Args>),
    /// Say who has to have signed what is used on this machine
    Trust(Late<trust::Args>),
    /// Show what was done with skills, and verify that nobody has changed that
    Audit(Late<audit::Args>),
    /// Install skills where agents look
    Install(Late<install::Args>),
    /// Upgrade installed skills to the newest published version
    Upgrade(Late<upgrade::Args>),
    /// Go back to what was installed before
    Rollback(Late<upgrade::RollbackArgs>),
    /// Uninstall skills
    Uninstall(Late<uninstall::Args>),
    /// Add skills to this project
    Add(Late<sync::AddArgs>),
    /// Remove skills from this project
    Remove(Late<sync::RemoveArgs>),
    /// Update the skills of this project
    Update(Late<sync::UpdateArgs>),
    /// Install what this project wants, and nothing else
    Sync(Late<sync::SyncArgs>),
    /// Push, pull and install sets of skills
    Collection(Late<collection::Args>),
    /// List the agents, and where each looks for skills
    Agents(Late<agents::Args>),
    /// Check every blob of the store
    Fsck(Late<fsck::Args>),
    /// Generate what runs a container with skills
    Generate(Late<generate::Args>),
    /// Offer skills as devices
    Cdi(Late<cdi::Args>),
    /// Give containers the skills that they name
    Hook(Late<hook::Args>),
    /// Say what is here, what is missing, and how to mend it
    Doctor(Late<doctor::Args>),
    /// Print the completion script of a shell
    Completion(Late<doc::CompletionArgs>),
    /// Print the version
    Version(Late<doc::VersionArgs>),
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
        Command::Init(args) => args.0.run(&shell),
        Command::Validate(args) => args.0.run(&shell),
        Command::Build(args) => args.0.run(&shell),
        Command::List(args) => args.0.run(&shell),
        Command::Inspect(args) => args.0.run(&shell),
        Command::Tag(args) => args.0.run(&shell),
        Command::Rm(args) => args.0.run(&shell),
        Command::Prune(args) => args.0.run(&shell),
        Command::Load(args) => args.0.run(&shell),
        Command::Unload(args) => args.0.run(&shell),
        Command::Pull(args) => args.0.run(&shell),
        Command::Push(args) => args.0.run(&shell),
        Command::Promote(args) => args.0.run(&shell),
        Command::History(args) => args.0.run(&shell),
        Command::Copy(args) => args.0.run(&shell),
        Command::Save(args) => args.0.run(&shell),
        Command::Mirror(args) => args.0.run(&shell),
        Command::Convert(args) => args.0.run(&shell),
        Command::Login(args) => args.0.run(&shell),
        Command::Logout(args) => args.0.run(&shell),
        Command::Sign(args) => args.0.run(&shell),
        Command::Attest(args) => args.0.run(&shell),
        Command::Verify(args) => args.0.run(&shell),
        Command::Key(args) => args.0.run(&shell),
        Command::Trust(args) => args.0.run(&shell),
        Command::Audit(args) => args.0.run(&shell),
        Command::Install(args) => args.0.run(&shell),
        Command::Upgrade(args) => args.0.run(&shell),
        Command::Rollback(args) => args.0.run(&shell),
        Command::Uninstall(args) => args.0.run(&shell),
        Command::Add(args) => args.0.run(&shell),
        Command::Remove(args) => args.0.run(&shell),
        Command::Update(args) => args.0.run(&shell),
        Command::Sync(args) => args.0.run(&shell),
        Command::Collection(args) => args.0.run(&shell),
        Command::Agents(args) => args.0.run(&shell),
        Command::Fsck(args) => args.0.run(&shell),
        Command::Generate(args) => args.0.run(&shell),
        Command::Cdi(args) => args.0.run(&shell),
        Command::Hook(args) => args.0.run(&shell),
        Command::Doctor(args) => args.0.run(&shell),
        Command::Completion(args) => args.0.run(&shell),
        Command::Version(args) => args.0.run(&shell),
    };
    result.unwrap_or_else(|e| shell.fail(&e))
}
