//! The `skillctl` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    skillctl::cli::main(std::env::args_os())
}
