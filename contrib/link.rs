//! How the programs are linked: so that they start at once. The hook is part of each start of a container, which waits for it.
//!
//! * The table of addresses that the dynamic linker adjusts is packed (DT_RELR), a twentieth of its size, where the C library here
//!   reads it (glibc 2.36). Linkers that do not know this say so and go on.
//! * The unwinder is linked in, where the compiler's static one is installed: finding and mapping libgcc_s for the backtrace of a
//!   panic takes longer than all that the hook reads.

// cargo reads what it prints, and says in the environment what is built.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What a C library is known by that reads packed tables; without it programs with such a table do not start.
const RELR: &[u8] = b"GLIBC_ABI_DT_RELR";
/// What the standard library needs of the unwinder first; linkers that read libraries once have to know it before they come to ours.
const NEEDED: &str = "-Wl,-u,_Unwind_Backtrace";

fn main() {
    println!("cargo::rerun-if-changed=contrib/link.rs");
    println!("cargo::rerun-if-env-changed=CC");
    // What is here says nothing of another system.
    if env::var("CARGO_CFG_TARGET_ENV").as_deref() != Ok("gnu") || env::var("HOST") != env::var("TARGET") {
        return;
    }
    let libc = of_compiler("libc.so.6").and_then(|path| fs::read(path).ok());
    if libc.is_some_and(|libc| libc.windows(RELR.len()).any(|part| part == RELR)) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    let unwinder = of_compiler("libgcc_eh.a");
    if let Some(dir) = unwinder.as_deref().and_then(|path| path.parent()?.to_str()) {
        println!("cargo::rustc-link-search=native={dir}");
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
        println!("cargo::rustc-link-arg-bins={NEEDED}");
    }
}

/// Returns where the C compiler finds a library.
fn of_compiler(name: &str) -> Option<PathBuf> {
    let cc = env::var("CC").unwrap_or_else(|_| "cc".into());
    let output = Command::new(cc).arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    // What it does not find comes back as it is.
    path.is_absolute().then_some(path)
}
