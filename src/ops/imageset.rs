//! `generate imageset`: which images, by tag and by the digest that their registry has now.

use anyhow::{Context as _, Result};

use crate::ops::verify;
use crate::reference::Reference;
use crate::store::layout::Layout;
use crate::store::registry::Registry;
use crate::store::remote::not_found;
use crate::trust::check::Against;
use crate::trust::policy::Policy;

/// Returns `NAME[:TAG]@DIGEST` of each reference.
///
/// # Errors
/// If a registry does not have one, or cannot be asked; [`Error::NotVerified`](crate::error::Error::NotVerified).
pub fn pinned(
    (registry, pins): (&Registry, Option<&Layout>),
    policy: &Policy,
    references: &[Reference],
) -> Result<Vec<String>> {
    let pin = |reference: &Reference| -> Result<String> {
        let reference = reference.clone().or_latest();
        let context = || format!("Looking for {reference}");
        let against = Against { given: None, policy };
        let verified = verify::on_registry((registry, pins), &reference, against).with_context(context)?;
        if reference.digest().is_some() {
            return Ok(reference.to_string());
        }
        let digest = match verified {
            Some(verified) => Some(verified.digest),
            None => registry.digest(&reference).with_context(context)?,
        };
        let digest = digest.ok_or_else(|| not_found(&reference)).with_context(context)?;
        Ok(format!("{reference}@{digest}"))
    };
    references.iter().map(pin).collect()
}
