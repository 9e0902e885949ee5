//! Skills for AI agents as OCI images: build, keep, load and mount them.
//!
//! The binary `skillctl` is a thin shell around this library. Dependencies go one way:
//! `cli -> ops -> store -> core`.
//!
//! * Core, pure: [`error`], [`finding`], [`limits`], [`reference`], [`lifecycle`]

pub mod error;
pub mod finding;
pub mod image;
pub mod lifecycle;
pub mod limits;
pub mod ops;
pub mod output;
pub mod reference;
pub mod store;
