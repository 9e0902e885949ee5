//! Files outside the store, read by what the shell gives: the store opens no absolute path.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads a file; `None` where it is not there or not readable.
pub type Read = dyn Fn(&Path) -> Option<Vec<u8>> + Send + Sync;
/// Lists a directory; empty where it is not there.
pub type List = dyn Fn(&Path) -> Vec<PathBuf> + Send + Sync;

/// How configuration, credentials and certificates are read.
#[derive(Clone)]
pub struct Files {
    read: Arc<Read>,
    list: Arc<List>,
}

impl Files {
    /// Returns files that are read by these functions.
    pub fn new(
        read: impl Fn(&Path) -> Option<Vec<u8>> + Send + Sync + 'static,
        list: impl Fn(&Path) -> Vec<PathBuf> + Send + Sync + 'static,
    ) -> Self {
        Self { read: Arc::new(read), list: Arc::new(list) }
    }

    /// Returns a file's bytes.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        (self.read)(path)
    }

    /// Returns a file's text; what is no UTF-8 in it fails where it is parsed.
    pub fn text(&self, path: &Path) -> Option<String> {
        self.read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the paths of a directory's entries, in no order.
    pub fn list(&self, dir: &Path) -> Vec<PathBuf> {
        (self.list)(dir)
    }

    /// Returns files that are in memory.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files: std::collections::BTreeMap<PathBuf, Vec<u8>> =
            files.iter().map(|(path, text)| ((*path).into(), text.as_bytes().to_vec())).collect();
        let listed = files.clone();
        Self::new(
            move |path| files.get(path).cloned(),
            move |dir| listed.keys().rev().filter(|path| path.parent() == Some(dir)).cloned().collect(),
        )
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Files")
    }
}
