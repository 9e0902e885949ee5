//! `verify` on registries, and what comes from there; see [`crate::store::trusted`] for images of the store.

use anyhow::Result;

use super::install::Source;
use crate::error::Error;
use crate::receipt::Image;
use crate::reference::Reference;
use crate::store::attached;
use crate::store::layout::Layout;
use crate::store::registry::{Registry, RemoteManifest};
use crate::store::remote::{Remote, not_found};
use crate::store::remote_attached;
use crate::store::repository::Manifest;
use crate::store::transfer::MAX_INSTANCES;
use crate::store::trusted::{self, held_to_pin};
use crate::trust::attestation;
use crate::trust::check::{Against, Checked, Verified, check, unsigned_instance};
use crate::trust::policy::Rule;
use crate::trust::simple::Signature;
use crate::trust::verify::Bundle;

/// Verifies an image of a registry: its tag is resolved once, and the digest that it names is verified; where a store has pins, by
/// them, too. `None` where nothing is asked of it.
///
/// # Errors
/// [`Error::NotVerified`]; [`Error::Registry`].
pub fn on_registry(
    (registry, pins): (&Registry, Option<&Layout>),
    reference: &Reference,
    against: Against<'_>,
) -> Result<Option<Verified>> {
    let fetch = || registry.manifest(reference)?.ok_or_else(|| not_found(reference));
    seen((registry, pins), reference, fetch, against)
}

/// The same for a manifest that `fetch` returns, which is called where anything is asked of it.
///
/// # Errors
/// As [`on_registry`]; those of `fetch`.
pub fn seen(
    (registry, pins): (&Registry, Option<&Layout>),
    reference: &Reference,
    fetch: impl FnOnce() -> Result<RemoteManifest, Error>,
    against: Against<'_>,
) -> Result<Option<Verified>> {
    let rules = against.rules(reference)?;
    if rules.is_empty() {
        return Ok(None);
    }
    let manifest = fetch()?.read(reference)?;
    let signatures = remote_attached::signatures(registry, reference, &manifest.digest)?;
    let attestations = || remote_attached::attestations(registry, reference, &manifest.digest);
    let image = (manifest.digest.as_str(), &manifest.info);
    let mut verified = check((&signatures, &attestations), reference, image, &rules)?.verified;
    if let Some(pins) = pins {
        held_to_pin(pins, reference, &verified, &rules)?;
    }
    let of = |digest: &str| remote_attached::simple_signatures(registry, reference, digest);
    let instances = manifest.info.instances.iter().take(MAX_INSTANCES);
    verified.warnings.extend(unsigned_instance((reference, &manifest.info), instances, &rules, of)?);
    Ok(Some(verified))
}

/// Verifies what has come from a registry, and keeps the signatures that hold in the store, where it can be verified then.
///
/// # Errors
/// As [`on_registry`].
pub fn fetched(
    (layout, remote): (&Layout, &Remote),
    reference: &Reference,
    manifest: &Manifest,
    given: Option<&Rule>,
) -> Result<Option<Verified>> {
    let against = Against { given, policy: layout.policy() };
    let rules = against.rules(reference)?;
    if rules.is_empty() {
        return Ok(None);
    }
    let signatures = remote_attached::signatures(&remote.registry, reference, &manifest.digest)?;
    let attestations = || remote_attached::attestations(&remote.registry, reference, &manifest.digest);
    let image = (manifest.digest.as_str(), &manifest.info);
    let Checked { mut verified, mut holding, attestations: found } =
        check((&signatures, &attestations), reference, image, &rules)?;
    // What those who may have signed attest comes along; of what is not signed nothing was fetched.
    let attestations = found.map_or_else(attestations, Ok)?.bundles.into_iter();
    let counts = |one: &Bundle, rule: &Rule| attestation::verify(&one.bytes, &manifest.digest, rule.by()).is_ok();
    holding.bundles.extend(attestations.filter(|one| rules.iter().any(|rule| counts(one, rule))));
    let _writing = layout.writing()?;
    attached::keep(layout, &manifest.digest, &holding)?;
    held_to_pin(layout, reference, &verified, &rules)?;
    // Those of the instances come along, too: without the registry nobody else could say that podman takes the image.
    let of = |digest: &str| {
        let mut signatures = remote_attached::simple_signatures(&remote.registry, reference, digest)?;
        let own = |one: &Signature| rules.iter().flat_map(|rule| rule.by().each()).any(|who| who.claim(one).is_ok());
        signatures.simple.retain(own);
        attached::keep(layout, digest, &signatures)?;
        Ok(signatures)
    };
    let instances = manifest.info.instances.iter().take(MAX_INSTANCES);
    verified.warnings.extend(unsigned_instance((reference, &manifest.info), instances, &rules, of)?);
    Ok(Some(verified))
}

/// Holds an image of the store against what is asked before it is installed in the place of `before`: what was signed stays signed,
/// unless a key or the policy of the machine says otherwise. This is where all installing passes.
///
/// # Errors
/// [`Error::NotVerified`].
pub fn installed(source: &Source<'_>, before: Option<&Image>) -> Result<Option<Verified>, Error> {
    let check = |trust: Option<&Rule>| {
        trusted::check(source.layout, source.reference, (source.manifest.digest().as_ref(), source.info), trust)
    };
    let verified = check(source.trust)?;
    if verified.as_ref().is_some_and(|verified| !verified.signers.is_empty()) {
        return Ok(verified);
    }
    match before.map(|image| image.rule(source.layout.policy())).transpose()?.flatten() {
        Some(rule) => check(Some(&rule)),
        None => Ok(verified),
    }
}
