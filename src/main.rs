//! The `skillctl` binary: everything is in the library.
fn main() {}
