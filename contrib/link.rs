//! How the programs are linked: so that they start at once. The hook is part of each start of a container, which waits for it.
//!
//! * The table of addresses that the dynamic linker adjusts is packed (DT_RELR, glibc 2.36): a twentieth of its size. Linkers that
//!   do not know this say so and go on.
//! * The unwinder is linked in, where the compiler's static one is installed: finding and mapping libgcc_s for the backtrace of a
//!   panic takes longer than all that the hook reads.

// cargo reads what it prints, and says in the environment what is built.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::env;
use std::path::Path;
use std::process::Command;

/// What the standard library needs of the unwinder first; linkers that read libraries once have to know it before they come to ours.
const NEEDED: &str = "-Wl,-u,_Unwind_Backtrace";

fn main() {
    println!("cargo::rerun-if-changed=contrib/link.rs");
    println!("cargo::rerun-if-env-changed=CC");
    if env::var("CARGO_CFG_TARGET_ENV").as_deref() != Ok("gnu") {
        return;
    }
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    if let Some(dir) = unwinder() {
        println!("cargo::rustc-link-search=native={dir}");
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
        println!("cargo::rustc-link-arg-bins={NEEDED}");
    }
}

/// Returns the directory of the C compiler's libgcc_eh.a, where that is for what is built.
fn unwinder() -> Option<String> {
    if env::var("HOST") != env::var("TARGET") {
        return None;
    }
    let cc = env::var("CC").unwrap_or_else(|_| "cc".into());
    let output = Command::new(cc).arg("-print-file-name=libgcc_eh.a").output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    // Without it, the name comes back as it is.
    let dir = Path::new(path.trim()).parent().filter(|dir| dir.is_absolute())?;
    dir.to_str().map(str::to_owned)
}
