//! `hook`: what container runtimes start, and what makes them do so.

mod enable;
mod runtime;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::shell::{Global, Shell};

pub use enable::{state, write};
pub use runtime::{LOG, TIME, policy_at};

/// The directory of the system's configuration.
const ETC: &str = "/etc";

const EXAMPLES: &str = "\
Examples:
  skillctl hook enable
  podman run --annotation io.skillimage.skills='acme/hr:1.0.0;acme/legal:2.1.0=/opt/legal' IMAGE
  podman run --annotation io.skillimage.skills=acme/hr:1.0.0 --annotation io.skillimage.target=claude IMAGE

Files:
  /etc/skillctl/hook.toml  What containers may ask for; without it, any skill of the store
  ~/.local/share/skillctl/hook.log, /var/lib/skillctl/hook.log
                           Why a container did not start";

/// Give containers the skills that they name
///
/// podman starts the hook before it makes a container that is annotated with io.skillimage.skills: REFERENCE[=/PATH], with
/// semicolons between several. Each of these skills is taken from the store and mounted read-only: at PATH, or where the agent of the
/// annotation io.skillimage.target looks, in the home of the container's user, or else below /skills. All other containers are left as they are.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Add mounts to the runtime configuration on stdin; podman starts this
    #[command(hide = true)]
    Precreate,
    /// Mount skills into the container whose state is on stdin; runtimes start this
    #[command(name = "createContainer", hide = true)]
    CreateContainer,
    Enable(enable::EnableArgs),
    Disable(enable::DisableArgs),
    Status(enable::StatusArgs),
}

/// Does what runtimes start at every start of a container, if that is what is asked for: describing the command line would take a
/// tenth of its time.
pub fn quick(args: &[OsString]) -> Option<ExitCode> {
    let [_, verb, kind] = args else { return None };
    let run = match kind.to_str()? {
        "precreate" => runtime::precreate,
        "createContainer" => runtime::create_container,
        _ => return None,
    };
    let shell = (verb == "hook").then(|| Shell::new(Global::default()))?;
    Some(run(&shell).unwrap_or_else(|e| shell.fail(&e)))
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        match self.kind {
            Kind::Precreate => runtime::precreate(shell),
            Kind::CreateContainer => runtime::create_container(shell),
            Kind::Enable(args) => args.run(shell),
            Kind::Disable(args) => args.run(shell),
            Kind::Status(args) => args.run(shell),
        }
    }
}
