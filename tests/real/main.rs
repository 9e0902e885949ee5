//! Scenarios on real podman and skopeo, each in every cell: the host and two newer releases, root and rootless.
//!
//! A scenario is a function on a [`cell::World`]; [`matrix!`] makes it one test per cell. Run outside its cell, a test enters it
//! through `tests/enter` and runs itself again in there, so `cargo test --test real -- --ignored` is all it takes.

#![allow(clippy::disallowed_methods)]

mod airgap;
mod attest;
mod audit;
mod cell;
mod collections;
mod container;
mod cosign;
mod crash;
mod credentials;
mod cri;
mod doctor;
mod exact;
mod faults;
mod fixtures;
mod foreign;
mod formats;
#[path = "../forms.rs"]
mod forms;
mod generate;
#[path = "../git_server.rs"]
mod git_server;
mod go_tool;
mod hook;
mod install;
mod interop;
#[cfg(feature = "keyless")]
mod keyless;
mod lifecycle;
mod locked;
mod matrix;
mod mount;
mod names;
mod policy;
mod pulls;
mod read_only;
mod refusals;
mod registries;
mod registry;
#[cfg(feature = "keyless")]
#[path = "../sigstore.rs"]
mod sigstore;
mod site;
mod storage;
mod trust;
