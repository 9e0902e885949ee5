//! Everything that runs the binary without podman or skopeo, in one test binary.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::disallowed_methods)]

mod airgap;
mod attest;
mod audit;
mod build;
mod collection;
mod crash;
mod direction;
mod extract;
mod foreign;
mod formats;
mod forms;
mod generate;
mod git;
mod git_credentials;
mod git_server;
mod go_store;
mod install;
mod keyless;
mod long;
mod policy;
mod promote;
mod prune;
mod read_only;
mod sigstore;
mod sources;
mod store;
mod support;
mod sync;
mod trust;
mod unpacked;
mod validate;
mod well_known;
