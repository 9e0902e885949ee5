//! Scenarios on real podman and skopeo, each in every cell: the host and two newer releases, root and rootless.
//!
//! A scenario is a function on a [`cell::World`]; [`matrix!`] makes it one test per cell. Run outside its cell, a test enters it
//! through `tests/enter` and runs itself again in there, so `cargo test --test real -- --ignored` is all it takes.

#![allow(clippy::disallowed_methods)]

mod cell;
mod crash;
mod doctor;
mod foreign;
mod go_tool;
mod interop;
mod locked;
mod mount;
mod names;
mod storage;
