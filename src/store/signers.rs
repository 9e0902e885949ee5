//! Who has signed the images of a repository first, where a policy pins that: `.signers.json` in the store, from repositories to
//! the IDs of keys.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use super::layout::Layout;
use crate::error::{Error, Result};
use crate::trust::names;

const FILE: &str = ".signers.json";

impl Layout {
    /// Returns the key that a repository is pinned to, in this store or one behind it.
    ///
    /// # Errors
    /// [`Error::Damaged`] where that cannot be told.
    pub fn signer(&self, repository: &str) -> Result<Option<String>> {
        for store in self.all() {
            if let Some(key) = store.signers()?.remove(&names::repository(repository)) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Pins a repository to a key, unless another process was faster, and returns the one that it is pinned to. A store that is only
    /// read pins nothing.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn pin_signer(&self, repository: &str, key: &str) -> Result<String> {
        if self.is_read_only() {
            return Ok(key.to_owned());
        }
        let _changing = self.changing()?;
        let mut signers = self.signers()?;
        let repository = names::repository(repository);
        if let Some(pinned) = signers.get(&repository) {
            return Ok(pinned.clone());
        }
        signers.insert(repository, key.to_owned());
        self.write_signers(&signers)?;
        Ok(key.to_owned())
    }

    /// Forgets whom a repository is pinned to, and returns who that was.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn unpin_signer(&self, repository: &str) -> Result<Option<String>> {
        let _changing = self.changing()?;
        let mut signers = self.signers()?;
        let was = signers.remove(&names::repository(repository));
        if was.is_some() {
            self.write_signers(&signers)?;
        }
        Ok(was)
    }

    /// Returns all pins, by the one spelling of each name.
    fn signers(&self) -> Result<BTreeMap<String, String>> {
        match self.dir().read(FILE) {
            Ok(bytes) => {
                let written: BTreeMap<String, String> =
                    serde_json::from_slice(&bytes).map_err(|e| Error::damaged(self.name_of(FILE), e))?;
                let (mut own, others): (BTreeMap<String, String>, BTreeMap<_, _>) =
                    written.into_iter().partition(|(name, _)| names::repository(name) == *name);
                // Another spelling takes nothing from who was first by this one.
                for (name, key) in others {
                    own.entry(names::repository(&name)).or_insert(key);
                }
                Ok(own)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(e) => Err(Error::io(self.name_of(FILE))(e)),
        }
    }

    fn write_signers(&self, signers: &BTreeMap<String, String>) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(signers).map_err(|e| Error::damaged(self.name_of(FILE), e))?;
        let mut file = self.blob()?;
        file.write_all(&bytes).map_err(Error::io(self.name_of(FILE)))?;
        file.publish(FILE, 0o644)
    }
}
