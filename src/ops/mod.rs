//! One file per verb: data in, data out. Nothing here prints, exits or reads the environment.

pub mod build;
pub mod doctor;
pub mod fsck;
pub mod generate;
pub mod init;
pub mod inspect;
pub mod list;
pub mod prune;
pub mod remove;
pub mod tag;
pub mod validate;
