//! One file per verb: data in, data out. Nothing here prints, exits or reads the environment.

pub mod build;
pub mod copy;
pub mod doctor;
pub mod drift;
pub mod extract;
pub mod fsck;
pub mod gates;
pub mod generate;
pub mod history;
pub mod imageset;
pub mod immutable;
pub mod init;
pub mod inspect;
pub mod list;
pub mod promote;
pub mod prune;
pub mod pull;
pub mod push;
pub mod remote_list;
pub mod remove;
pub mod tag;
pub mod validate;
