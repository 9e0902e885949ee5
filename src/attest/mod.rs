//! What is stated of an image: what is in it, and how it was built. Pure: from what was read to predicates in JSON.
//!
//! ```text
//! inventory.rs                files and what they declare (declared.rs)    -> spdx.rs, cyclonedx.rs
//! provenance.rs               source and parameters of a build             -> SLSA provenance v1
//! kind.rs                     short names of predicate types, in one table
//! ```
//!
//! The same image gives the same bytes: nothing here asks a clock, a random number or a network.

pub mod cyclonedx;
pub mod declared;
pub mod inventory;
pub mod kind;
pub mod provenance;
pub mod purl;
pub mod spdx;

/// What every address of ours in a predicate begins with. They are names, and nobody fetches them.
const OURS: &str = "https://skillimage.io/";
/// What makes the predicates.
const TOOL: &str = "skillctl";
/// Its version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod declared_tests;
#[cfg(test)]
mod golden_tests;
