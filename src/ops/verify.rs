//! `verify`: whether an image is what the holder of a key has signed.

use anyhow::Result;
use serde::Serialize;

use crate::error::Error;
use crate::reference::{Reference, is_digest};
use crate::store::attached;
use crate::store::layout::Layout;
use crate::store::registry::Registry;
use crate::store::remote::Remote;
use crate::store::remote_attached;
use crate::store::repository::Manifest;
use crate::store::{self, Found};
use crate::trust::attestation;
use crate::trust::key::PublicKey;
use crate::trust::verify::{self, Holds, Signatures, Signer, Subject};

/// An image that is verified.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// The image, as it was asked for.
    pub reference: String,
    /// Digest of its manifest: what is used has to be this.
    pub digest: String,
    /// The signatures that hold.
    pub signers: Vec<Signer>,
}

/// What verifies: keys, and for which repository they have signed.
#[derive(Debug, Clone, Copy)]
pub struct Required<'a> {
    /// The keys, of which one suffices.
    pub keys: &'a [PublicKey],
    /// The repository that it is signed for, where it is another than the one asked for.
    pub identity: Option<&'a Reference>,
}

/// Verifies an image of the store that `text` named, without the network.
///
/// # Errors
/// [`Error::NotVerified`].
pub fn in_store(layout: &Layout, found: &Found, text: &str, required: Required<'_>) -> Result<Verified> {
    let digest = found.entry.digest();
    // What was asked for counts; where that is a digest, the name that it has.
    let own = found.entry.name.as_deref().map(str::parse::<Reference>).transpose()?;
    let reference = match (text.parse::<Reference>(), own, required.identity) {
        (Ok(asked), Some(own), _) if asked.name() == own.name() => asked.or_latest(),
        (_, Some(own), _) => own.or_latest(),
        (Ok(asked), None, _) if !is_digest(text) => asked,
        (_, None, Some(identity)) => identity.repository(),
        (_, None, None) => {
            let hint = Some("give --identity REPOSITORY".into());
            let reason = format!("{text} has no name to be verified for");
            return Err(Error::Unavailable { reason, hint }.into());
        }
    };
    let manifest = Manifest::new(digest, found.manifest.clone())?;
    Ok(check(&attached::signatures(layout, digest)?, &reference, &manifest, required)?)
}

/// Verifies an image of a registry: its tag is resolved once, and the digest that it names is verified.
///
/// # Errors
/// [`Error::NotVerified`]; [`Error::Registry`].
pub fn on_registry(registry: &Registry, reference: &Reference, required: Required<'_>) -> Result<Verified> {
    let found = registry.manifest(reference)?.ok_or_else(|| store::remote::not_found(reference))?;
    let manifest = found.read(reference)?;
    let signatures = remote_attached::signatures(registry, reference, &manifest.digest)?;
    Ok(check(&signatures, reference, &manifest, required)?)
}

/// Verifies what has come from a registry, and keeps the signatures that hold in the store, where it can be verified then.
///
/// # Errors
/// As [`on_registry`].
pub fn fetched(
    (layout, remote): (&Layout, &Remote),
    reference: &Reference,
    manifest: &Manifest,
    required: Required<'_>,
) -> Result<Verified> {
    let signatures = remote_attached::signatures(&remote.registry, reference, &manifest.digest)?;
    let mut holds = holding(&signatures, reference, manifest, required)?;
    // What the same keys attest comes along.
    let attestations = remote_attached::attestations(&remote.registry, reference, &manifest.digest)?;
    let attested = attestation::holding(attestations.bundles, &manifest.digest, required.keys);
    holds.signatures.bundles.extend(attested);
    let _writing = layout.writing()?;
    attached::keep(layout, &manifest.digest, &holds.signatures)?;
    Ok(verified(reference, manifest, holds))
}

/// Verifies a manifest by signatures that are at hand.
///
/// # Errors
/// [`Error::NotVerified`].
pub fn check(
    signatures: &Signatures,
    reference: &Reference,
    manifest: &Manifest,
    required: Required<'_>,
) -> Result<Verified, Error> {
    Ok(verified(reference, manifest, holding(signatures, reference, manifest, required)?))
}

fn verified(reference: &Reference, manifest: &Manifest, holds: Holds) -> Verified {
    Verified { reference: reference.to_string(), digest: manifest.digest.clone(), signers: holds.signers }
}

fn holding(
    signatures: &Signatures,
    reference: &Reference,
    manifest: &Manifest,
    required: Required<'_>,
) -> Result<Holds, Error> {
    let Manifest { digest, info, .. } = manifest;
    let subject = Subject { reference, identity: required.identity, digest, info };
    verify::verify(signatures, subject, required.keys).map_err(|refused| Error::NotVerified {
        image: reference.to_string(),
        digest: digest.clone(),
        required: required.keys.iter().map(PublicKey::id).collect::<Vec<_>>().join(" or "),
        found: refused.to_string(),
    })
}
