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
use crate::store::transfer::MAX_INSTANCES;
use crate::store::{self, Found};
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
    /// What the user should know.
    pub warnings: Vec<String>,
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
    let reference = asked(found, text, required.identity)?;
    let manifest = Manifest::new(found.entry.digest(), found.manifest.clone())?;
    known(layout, &reference, &manifest, required)
}

/// Returns what an image of the store that `text` named is verified for.
///
/// # Errors
/// If it has no name.
pub(super) fn asked(found: &Found, text: &str, identity: Option<&Reference>) -> Result<Reference> {
    // What was asked for counts; where that is a digest, the name that it has.
    let own = found.entry.name.as_deref().map(str::parse::<Reference>).transpose()?;
    match (text.parse::<Reference>(), own, identity) {
        (Ok(asked), Some(own), _) if asked.name() == own.name() => Ok(asked.or_latest()),
        (_, Some(own), _) => Ok(own.or_latest()),
        (Ok(asked), None, _) if !is_digest(text) => Ok(asked),
        (_, None, Some(identity)) => Ok(identity.repository()),
        (_, None, None) => {
            let hint = Some("give --identity REPOSITORY".into());
            let reason = format!("{text} has no name to be verified for");
            Err(Error::Unavailable { reason, hint }.into())
        }
    }
}

/// Verifies a manifest of the store by the signatures that are there.
///
/// # Errors
/// [`Error::NotVerified`].
pub fn known(layout: &Layout, reference: &Reference, manifest: &Manifest, required: Required<'_>) -> Result<Verified> {
    let holds = holding(&attached::signatures(layout, &manifest.digest)?, reference, manifest, required)?;
    let instances = unsigned_instance(reference, manifest, required, |digest| attached::signatures(layout, digest))?;
    Ok(verified(reference, manifest, holds, instances))
}

/// Verifies an image of a registry: its tag is resolved once, and the digest that it names is verified.
///
/// # Errors
/// [`Error::NotVerified`]; [`Error::Registry`].
pub fn on_registry(registry: &Registry, reference: &Reference, required: Required<'_>) -> Result<Verified> {
    let found = registry.manifest(reference)?.ok_or_else(|| store::remote::not_found(reference))?;
    let manifest = found.read(reference)?;
    let signatures = remote_attached::signatures(registry, reference, &manifest.digest)?;
    let holds = holding(&signatures, reference, &manifest, required)?;
    let of = |digest: &str| remote_attached::simple_signatures(registry, reference, digest);
    let instances = unsigned_instance(reference, &manifest, required, of)?;
    Ok(verified(reference, &manifest, holds, instances))
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
    let holds = holding(&signatures, reference, manifest, required)?;
    let _writing = layout.writing()?;
    attached::keep(layout, &manifest.digest, &holds.signatures)?;
    // Those of the instances come along, too: without the registry nobody else could say that podman takes the image.
    let of = |digest: &str| {
        let mut signatures = remote_attached::simple_signatures(&remote.registry, reference, digest)?;
        signatures.simple.retain(|one| required.keys.iter().any(|key| one.verify(key).is_ok()));
        attached::keep(layout, digest, &signatures)?;
        Ok(signatures)
    };
    let instances = unsigned_instance(reference, manifest, required, of)?;
    Ok(verified(reference, manifest, holds, instances))
}

/// Returns the first instance of an index that podman finds no signature of: it looks at the one that it takes, and cosign signs the
/// index alone.
fn unsigned_instance(
    reference: &Reference,
    manifest: &Manifest,
    required: Required<'_>,
    mut signatures: impl FnMut(&str) -> Result<Signatures, Error>,
) -> Result<Option<String>> {
    for instance in manifest.info.instances.iter().take(MAX_INSTANCES) {
        let digest = instance.digest().to_string();
        let subject = Subject { reference, identity: required.identity, digest: &digest, info: &manifest.info };
        if !verify::is_signed_for_podman(&signatures(&digest)?, subject, required.keys) {
            return Ok(Some(digest));
        }
    }
    Ok(None)
}

fn verified(reference: &Reference, manifest: &Manifest, holds: Holds, unsigned: Option<String>) -> Verified {
    let warning = |instance| {
        format!(
            "{reference}: the index is signed, and not its instance {instance}, which podman's policy refuses for that"
        )
    };
    Verified {
        reference: reference.to_string(),
        digest: manifest.digest.clone(),
        signers: holds.signers,
        warnings: unsigned.map(warning).into_iter().collect(),
    }
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
