//! Layers: a directory packed the same way everywhere, and archives unpacked without trusting them.
//!
//! * [`pack`]: walk (`walk`, what is left out: `exclude`), tar (`header`), compress and hash (`compress`), in one pass.
//! * [`Tree`]: what comes from elsewhere than a directory, packed by [`pack_tree`] as if it were one.
//! * [`unpack`], [`unpack_listed`], and [`read`] for those who want the content only: inflate and hash (`stream`), check every entry
//!   (`archive`, `names`), write beneath a descriptor and publish by rename (`unpack`).

mod archive;
mod bounds;
mod compress;
mod exclude;
mod header;
mod listing;
mod names;
mod pack;
mod pax;
mod spool;
mod stream;
mod tree;
mod tree_walk;
mod unpack;
mod walk;

pub use archive::{Content, Entry, Kind};
pub use exclude::{CREDENTIALS, IGNORE_FILE, JUNK, VERSION_CONTROL};
pub use listing::{Children, FileNode, Listing, Node};
pub use pack::{PackOptions, Packed, pack};
pub use stream::{Encoding, Expected};
pub use tree::{Contents, Entries, Item, Stored, Subtree, Tree};
pub use tree_walk::{Selection, pack_tree};
pub use unpack::{UnpackOptions, Unpacked, read, read_archive, unpack, unpack_listed};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests_hostile;
#[cfg(test)]
mod tests_pack;
#[cfg(test)]
mod tests_tree;
#[cfg(test)]
mod tests_unpack;
#[cfg(test)]
mod tests_walk;
