//! What a skill can be made from beside a directory and an image of ours: images and artifacts of other tools, Git
//! repositories, archives, and what a web site offers below `.well-known`.
//!
//! Each becomes a [`Tree`](crate::layer::Tree), which is packed as a directory of the same content would be. Nothing of a
//! source is ever written to a directory or executed.
//!
//! * [`foreign`]: finds the skills in an image or artifact of another tool
//! * [`GitSource`] (`git_url`): which repository, revision and directory an address means
//! * [`archive`]: tar and `zip`, known by their content
//! * [`well_known`]: the index of a web site, and what it names
//! * [`git`]: fetches it with the program git, into a repository of our own that is removed afterwards

pub mod archive;
pub mod foreign;
pub mod git;
mod git_credentials;
mod git_list;
mod git_read;
mod git_run;
mod glob;
pub mod well_known;
mod zip;

pub use crate::git_url::GitSource;
pub use glob::Filter;
