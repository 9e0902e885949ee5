//! `hook`: what makes container runtimes start `skillctl-hook`, and that program.

mod audited;
mod enable;
mod runtime;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::policy::ETC;
use super::shell::Shell;

pub use enable::{broken, state, write};
pub use runtime::{LOG, TIME, main, policy_at};

const EXAMPLES: &str = "\
Examples:
  skillctl hook enable
  podman run --annotation io.skillimage.skills='acme/hr:1.0.0;acme/legal:2.1.0=/opt/legal' IMAGE
  podman run --annotation io.skillimage.skills=acme/hr:1.0.0 --annotation io.skillimage.target=claude IMAGE

Program:
  skillctl-hook precreate  Reads the configuration of a container from standard input, and
                           prints it with the skills mounted; for podman
  skillctl-hook createContainer
                           Reads the state of a container, and mounts the skills in it; for
                           other runtimes

Exit status:
  0                        The container has its skills, or names none
  1                        One is missing or refused, and the container does not start
  2                        What came in is no such JSON, or could not be passed on

Files:
  /etc/skillctl/hook.toml  What containers may ask for; without it, any skill of the store
  ~/.local/share/skillctl/hook.log, /var/lib/skillctl/hook.log
                           Why a container did not start";

/// Give containers the skills that they name
///
/// podman starts the program skillctl-hook before it makes a container that is annotated with io.skillimage.skills: REFERENCE[=/PATH], with
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
    Enable(enable::EnableArgs),
    Disable(enable::DisableArgs),
    Status(enable::StatusArgs),
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        match self.kind {
            Kind::Enable(args) => args.run(shell),
            Kind::Disable(args) => args.run(shell),
            Kind::Status(args) => args.run(shell),
        }
    }
}
