//! `generate imageset`: which images, by tag and by the digest that their registry has now.

use anyhow::{Context as _, Result};

use crate::reference::Reference;
use crate::store::registry::Registry;
use crate::store::remote::not_found;

/// Returns `NAME[:TAG]@DIGEST` of each reference.
///
/// # Errors
/// If a registry does not have one, or cannot be asked.
pub fn pinned(registry: &Registry, references: &[Reference]) -> Result<Vec<String>> {
    let pin = |reference: &Reference| -> Result<String> {
        if reference.digest().is_some() {
            return Ok(reference.to_string());
        }
        let reference = reference.clone().or_latest();
        let context = || format!("Looking for {reference}");
        let digest = registry.digest(&reference).with_context(context)?;
        let digest = digest.ok_or_else(|| not_found(&reference)).with_context(context)?;
        Ok(format!("{reference}@{digest}"))
    };
    references.iter().map(pin).collect()
}
