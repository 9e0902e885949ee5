//! Skills for AI agents as OCI images: build, keep, load and mount them.
//!
//! The binary `skillctl` is a thin shell around this library. Dependencies go one way:
//! `cli -> ops -> source -> store -> core`.
//!
//! * Core, pure: [`address`] (what is no image yet), [`error`], [`finding`], [`limits`], [`text`], [`yaml`], [`frontmatter`], [`card`], [`check`],
//!   [`format`] (how others package skills), [`lifecycle`], [`reference`], [`strict`], [`image`] (card <-> manifest, config, annotations), [`agent`] (where agents look),
//!   [`receipt`] (what is installed), [`collection`] (skills that belong together)
//! * Bytes: [`layer`] (deterministic pack, contained and bounded unpack), [`process`] (run a child, keep its last words)
//! * [`trust`]: keys, signatures in both forms, and what holds of them; [`attest`]: bills of materials and provenance
//! * [`audit`]: the log of what was done, a chain of hashes, and what is wrong with it
//! * [`skills`]: a directory of skills, and changes to it that happen whole or not at all; [`lock`]
//! * [`store`]: the store (an OCI layout, native), containers-storage, and skopeo's image proxy
//! * [`source`]: skills in the forms of other tools, Git repositories, archives and `.well-known` indexes
//! * [`generate`]: from images to what runs them, as text
//! * [`hook`]: what runtimes start; it uses the store and what is below, and no program or network
//! * [`ops`]: one file per verb, data in, data out
//! * The shell: [`cli`], [`env`], [`output`]

pub mod address;
pub mod agent;
pub mod attest;
pub mod audit;
pub mod card;
pub mod check;
pub mod cli;
pub mod collection;
pub mod env;
pub mod error;
pub mod finding;
pub mod format;
pub mod frontmatter;
pub mod generate;
mod git_url;
pub mod hook;
pub mod image;
pub mod layer;
pub mod lifecycle;
pub mod limits;
pub mod lock;
pub mod lockfile;
pub mod ops;
pub mod output;
pub mod process;
pub mod receipt;
mod redact;
pub mod reference;
pub mod skills;
pub mod source;
pub mod store;
pub mod strict;
pub mod text;
pub mod trust;
pub mod yaml;
