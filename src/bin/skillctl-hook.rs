//! The `skillctl-hook` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    skillctl::cli::hook_main(std::env::args_os())
}
