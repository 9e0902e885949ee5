//! What a layer unpacks to: paths, kinds, exec bits and the digests of contents.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::Ordering;

use sha2::{Digest as _, Sha256};

use super::archive::{Entry, Kind};
use super::stream::Expected;
use super::unpack::{UnpackOptions, Unpacked, read};
use crate::error::{Error, Result};

/// A directory tree, without the contents of its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    root: Children,
}

/// What is in a directory, by name.
pub type Children = BTreeMap<String, Node>;

/// One thing in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory(Children),
    /// A regular file.
    File(FileNode),
    /// A symbolic link, and where it leads.
    Symlink(String),
}

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileNode {
    /// In bytes.
    pub size: u64,
    /// Whether anybody may execute it.
    pub executable: bool,
    /// Of its content.
    pub sha256: [u8; 32],
}

impl Listing {
    /// Reads a layer to its end; it is the expected one where this returns.
    ///
    /// # Errors
    /// As [`read`].
    pub fn read<R: Read + Send>(
        layer: R,
        expected: &Expected,
        options: &UnpackOptions<'_>,
    ) -> Result<(Self, Unpacked)> {
        let mut listing = Self::default();
        let unpacked = read(layer, expected, options, &mut |entry, content| {
            let mut hash = Sha256::new();
            content.for_each(|bytes| {
                if options.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
                    return Err(Error::io(&*entry.path)(io::ErrorKind::Interrupted.into()));
                }
                hash.update(bytes);
                Ok(())
            })?;
            listing.add(entry, hash.finalize().into())
        })?;
        Ok((listing, unpacked))
    }

    /// Adds an entry of an archive; the directories above it came before. `sha256` counts for files only.
    ///
    /// # Errors
    /// [`Error::Damaged`] where it is in no directory, or is a link to no file.
    pub(super) fn add(&mut self, entry: &Entry, sha256: [u8; 32]) -> Result<()> {
        let node = match &entry.kind {
            Kind::Directory => Node::Directory(Children::new()),
            Kind::Symlink(target) => Node::Symlink(target.clone()),
            // Another name of the file itself: its mode is the first name's, whatever the entry says.
            Kind::Link(target) => match self.get(target) {
                Some(Node::File(file)) => Node::File(*file),
                _ => return Err(Error::damaged(&entry.path, "it is a link to no file")),
            },
            Kind::File => Node::File(FileNode { size: entry.size, executable: entry.executable, sha256 }),
        };
        self.insert(&entry.path, node)
    }

    /// Puts something where it belongs; the directories above it are there already.
    ///
    /// # Errors
    /// [`Error::Damaged`] where they are not.
    pub fn insert(&mut self, path: &str, node: Node) -> Result<()> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut children = &mut self.root;
        for part in above.split('/').filter(|part| !part.is_empty()) {
            children = match children.get_mut(part) {
                Some(Node::Directory(children)) => children,
                _ => return Err(Error::damaged(path, "it is in no directory")),
            };
        }
        children.insert(name.to_owned(), node);
        Ok(())
    }

    /// Takes away what has a name in the root.
    pub fn remove(&mut self, name: &str) {
        self.root.remove(name);
    }

    /// Returns what is in the root.
    pub fn root(&self) -> &Children {
        &self.root
    }

    /// Returns what has a path.
    pub fn get(&self, path: &str) -> Option<&Node> {
        let mut parts = path.split('/');
        let first = self.root.get(parts.next()?)?;
        parts.try_fold(first, |node, part| match node {
            Node::Directory(children) => children.get(part),
            _ => None,
        })
    }

    /// Returns everything with its path, a directory before what is in it.
    pub fn entries(&self) -> Vec<(String, &Node)> {
        fn walk<'a>(above: &str, children: &'a Children, entries: &mut Vec<(String, &'a Node)>) {
            for (name, node) in children {
                let path = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
                entries.push((path.clone(), node));
                if let Node::Directory(children) = node {
                    walk(&path, children, entries);
                }
            }
        }
        let mut entries = Vec::new();
        walk("", &self.root, &mut entries);
        entries
    }

    /// Returns the digest of the whole tree, with modes: that of one line for each path, in the order of
    /// [`Self::entries`], each `MODE SP CONTENT NUL PATH LF`. Modes are those of git: 100644, 100755, 120000, 40000;
    /// CONTENT is the SHA-256 of a file in hexadecimal digits, the target of a link, and nothing for a directory.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (path, node) in self.entries() {
            let (mode, content) = match node {
                Node::Directory(_) => ("40000", String::new()),
                Node::Symlink(target) => ("120000", target.clone()),
                Node::File(file) => (if file.executable { "100755" } else { "100644" }, hex::encode(file.sha256)),
            };
            hash.update(format!("{mode} {content}\0{path}\n"));
        }
        format!("sha256:{}", hex::encode(hash.finalize()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(executable: bool, fill: u8) -> Node {
        Node::File(FileNode { size: 1, executable, sha256: [fill; 32] })
    }

    #[test]
    fn the_digest_covers_paths_kinds_modes_and_contents() {
        let listing = |entries: &[(&str, Node)]| {
            let mut listing = Listing::default();
            entries.iter().for_each(|(path, node)| listing.insert(path, node.clone()).unwrap());
            listing
        };
        let directory = || Node::Directory(Children::new());
        let base =
            [("a", directory()), ("a/b", file(false, 1)), ("c", file(true, 2)), ("d", Node::Symlink("c".into()))];
        let digest = listing(&base).digest();
        // printf '40000 \0a\n100644 <01 x 32>\0a/b\n100755 <02 x 32>\0c\n120000 c\0d\n' | sha256sum
        assert_eq!(digest, "sha256:796fc68d3011d46c0f03e2239eaf2d19a998f2922214a90ebf4cf1e656a6d999");
        let changes: [(usize, (&str, Node)); 6] = [
            (1, ("a/b", file(true, 1))),
            (1, ("a/b", file(false, 3))),
            (1, ("a/e", file(false, 1))),
            (2, ("c", directory())),
            (3, ("d", Node::Symlink("a".into()))),
            (3, ("d", file(false, 2))),
        ];
        for (at, change) in changes {
            let mut entries = base.clone();
            entries[at] = change.clone();
            assert_ne!(listing(&entries).digest(), digest, "{change:?}");
        }
        assert!(Listing::default().insert("x/y", file(false, 1)).is_err());
        assert_eq!(listing(&base).get("a/b"), Some(&file(false, 1)));
    }
}
