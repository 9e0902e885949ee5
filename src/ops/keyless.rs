//! `verify` without a key: whether an image is what an identity has signed.

use anyhow::Result;

use crate::error::{Error, Refusal};
use crate::reference::Reference;
use crate::store::layout::Layout;
use crate::store::registry::Registry;
use crate::store::repository::Manifest;
use crate::store::trusted::asked;
use crate::store::{self, Found, attached, remote_attached};
use crate::trust::check::Verified;
use crate::trust::keyless::Identities;
use crate::trust::verify::{Signatures, Subject, verify_keyless};

/// Who has to have signed, and for which repository.
#[derive(Debug, Clone, Copy)]
pub struct Required<'a> {
    /// Who, and who says so.
    pub identities: &'a Identities,
    /// The repository that it is signed for, where it is another than the one asked for.
    pub identity: Option<&'a Reference>,
}

/// Verifies an image of the store that `text` named, without the network.
///
/// # Errors
/// [`Error::NotVerified`].
pub fn in_store(layout: &Layout, found: &Found, text: &str, required: Required<'_>) -> Result<Verified> {
    let reference = asked(found, text, required.identity)?;
    let manifest = Manifest::new(found.entry.digest(), found.manifest.clone())?;
    check(&attached::signatures(layout, &manifest.digest)?, &reference, &manifest, required)
}

/// Verifies an image of a registry, whose tag is resolved once.
///
/// # Errors
/// [`Error::NotVerified`]; [`Error::Registry`].
pub fn on_registry(registry: &Registry, reference: &Reference, required: Required<'_>) -> Result<Verified> {
    let found = registry.manifest(reference)?.ok_or_else(|| store::remote::not_found(reference))?;
    let manifest = found.read(reference)?;
    check(&remote_attached::signatures(registry, reference, &manifest.digest)?, reference, &manifest, required)
}

fn check(
    signatures: &Signatures,
    reference: &Reference,
    manifest: &Manifest,
    required: Required<'_>,
) -> Result<Verified> {
    let Manifest { digest, info, .. } = manifest;
    let names = [required.identity.unwrap_or(reference).name().to_owned()];
    let subject = Subject { reference, names: &names, digest, info };
    let holds = verify_keyless(signatures, subject, required.identities).map_err(|refused| {
        Error::from(Refusal {
            image: reference.to_string(),
            digest: digest.clone(),
            required: format!("signed by {}", required.identities),
            found: refused.to_string(),
            hint: None,
        })
    })?;
    let warnings = vec![format!("{reference}: podman's policy does not see signatures without a key")];
    Ok(Verified {
        reference: reference.to_string(),
        digest: digest.clone(),
        signers: holds.signers,
        warnings,
        keys: Vec::new(),
        identity: None,
    })
}
