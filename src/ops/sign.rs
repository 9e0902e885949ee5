//! `sign`: signatures of an image, in both forms, with one key.

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::error::Error;
use crate::reference::Reference;
use crate::store::attached;
use crate::store::layout::Layout;
use crate::store::remote::Remote;
use crate::store::remote_attached;
use crate::store::repository::Manifest;
use crate::store::transfer::Copying;
use crate::store::{self};
use crate::trust::bundle::{self, SIGNED, Statement};
use crate::trust::private_key::PrivateKey;
use crate::trust::simple::Signature;
use crate::trust::verify::{Form, Signatures};

/// An image that was signed.
#[derive(Debug, Clone, Serialize)]
pub struct Signed {
    /// The image, as it is called where it was signed.
    pub reference: String,
    /// What its signatures say that it is called.
    pub identity: String,
    /// Digest of its manifest.
    pub digest: String,
    /// The key, as verifiers name it.
    pub key: String,
    /// The forms of what was added; none where it was signed so before.
    pub added: Vec<Form>,
}

/// Signs an image of the store. The caller holds [`Layout::writing`].
///
/// # Errors
/// If there is no such image, it has no name to be signed under, or nothing can be written.
pub fn in_store(layout: &Layout, text: &str, identity: Option<&Reference>, key: &PrivateKey) -> Result<Signed> {
    let found = store::open(layout, text)?;
    let own = found.entry.name.as_deref().map(str::parse::<Reference>).transpose()?;
    let identity = identity.or(own.as_ref()).ok_or_else(|| Error::Unavailable {
        reason: format!("{text} has no name to be signed under"),
        hint: Some("give --identity REPOSITORY:TAG".into()),
    })?;
    let identity = name_in_payload(identity);
    let mut added = Vec::new();
    // A runtime that resolves an index looks at the signature of the instance that it takes.
    for descriptor in [&found.entry.descriptor].into_iter().chain(&found.info.instances) {
        let descriptor = serde_json::to_value(descriptor)?;
        let have = attached::signatures(layout, digest_of(&descriptor))?;
        added.extend(sign_one(layout, (&descriptor, &have), &identity, key)?);
    }
    added.sort_unstable();
    added.dedup();
    let (reference, digest) = (found.entry.name.clone(), found.entry.digest().to_owned());
    Ok(Signed {
        reference: reference.unwrap_or_else(|| digest.clone()),
        identity,
        digest,
        key: key.public().id(),
        added,
    })
}

/// Signs an image where it is, on a registry. Its signatures stay in the store, too. The caller holds [`Layout::writing`].
///
/// # Errors
/// If there is no such image, or the registry does not take what is sent.
pub fn on_registry(
    (layout, remote): (&Layout, &Remote),
    reference: &Reference,
    identity: Option<&Reference>,
    key: &PrivateKey,
    copying: Copying<'_>,
) -> Result<Signed> {
    let found = remote.origin.manifest(reference)?.ok_or_else(|| store::remote::not_found(reference))?;
    let manifest: Manifest = found.read(reference)?;
    let identity = name_in_payload(identity.unwrap_or(reference));
    let mut added = Vec::new();
    let own = serde_json::to_value(manifest.descriptor()?)?;
    let instances = manifest.info.instances.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    for descriptor in [own].into_iter().chain(instances) {
        let digest = digest_of(&descriptor);
        let have = remote_attached::signatures(&remote.origin, reference, digest)?;
        let new = sign_one(layout, (&descriptor, &have), &identity, key)?;
        if !new.is_empty() {
            remote_attached::send(layout, remote, (reference, digest), copying)?;
        }
        added.extend(new);
    }
    added.sort_unstable();
    added.dedup();
    let digest = manifest.digest;
    Ok(Signed { reference: reference.to_string(), identity, digest, key: key.public().id(), added })
}

/// Adds to the store what a manifest does not have of the key yet, and returns the forms of that.
fn sign_one(
    layout: &Layout,
    (descriptor, have): (&Value, &Signatures),
    identity: &str,
    key: &PrivateKey,
) -> Result<Vec<Form>> {
    let digest = digest_of(descriptor);
    let mut added = Vec::new();
    let claims = have.simple.iter().filter_map(|signature| signature.verify(key.public()).ok());
    if !claims.into_iter().any(|claim| claim.digest == digest && claim.reference == identity) {
        attached::add_simple(layout, digest, &[Signature::make(key, identity, digest)?])?;
        added.push(Form::Simple);
    }
    let statement = Statement {
        subjects: vec![digest.to_owned()],
        predicate_type: SIGNED.to_owned(),
        predicate: Value::Object(Default::default()),
    };
    let stated = have.bundles.iter().filter_map(|bundle| bundle::verify(&bundle.bytes, key.public()).ok());
    if !stated.into_iter().any(|one| one.subjects == statement.subjects && one.predicate_type == SIGNED) {
        attached::add_bundle(layout, descriptor, &bundle::make(key, &statement)?, SIGNED)?;
        added.push(Form::Bundle);
    }
    Ok(added)
}

fn digest_of(descriptor: &Value) -> &str {
    descriptor["digest"].as_str().unwrap_or_default()
}

/// Returns a name as podman looks for it in a payload: it calls what has no registry `localhost/`.
fn name_in_payload(reference: &Reference) -> String {
    match reference.digest() {
        Some(_) => reference.repository().in_storage(),
        None => reference.clone().or_latest().in_storage(),
    }
}
