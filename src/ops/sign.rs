//! `sign`: signatures of an image, in both forms, with one key.

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Error;
use crate::image::{Info, NAME, NAMESPACE};
use crate::reference::Reference;
use crate::store::attached;
use crate::store::layout::{Entry, Layout};
use crate::store::remote::Remote;
use crate::store::remote_attached;
use crate::store::repository::Manifest;
use crate::store::transfer::{Copying, MAX_INSTANCES};
use crate::store::{self};
use crate::trust::bundle::{self, SIGNED, Statement};
use crate::trust::signer::Signer;
use crate::trust::simple::Signature;
use crate::trust::verify::{Bundle, Form};

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
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Signs an image of the store. The caller holds [`Layout::writing`].
///
/// # Errors
/// If there is no such image, it has no name to be signed under, or nothing can be written.
pub fn in_store(layout: &Layout, text: &str, identity: Option<&Reference>, key: &dyn Signer) -> Result<Signed> {
    let found = store::open(layout, text)?;
    let digest = found.entry.digest().to_owned();
    if !layout.entries()?.iter().any(|entry| entry.digest() == digest) {
        let reason = format!("{text} is in a read-only store, which takes no signature");
        let name = found.entry.name.as_deref().unwrap_or("NAME");
        return Err(Error::Unavailable { reason, hint: Some(format!("skillctl tag {text} {name}")) }.into());
    }
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
        added.extend(Made::of(layout, &descriptor, &identity, key)?.new);
    }
    let warnings = unbound(&found.info, &identity);
    let reference = found.entry.name.unwrap_or_else(|| digest.clone());
    Ok(Signed { warnings, ..signed(reference, identity, digest, key, added) })
}

/// Signs an image where it is, on a registry. Our signatures stay in the store, too. The caller holds [`Layout::writing`].
///
/// # Errors
/// If there is no such image, or the registry does not take what is sent.
pub fn on_registry(
    (layout, remote): (&Layout, &Remote),
    reference: &Reference,
    identity: Option<&Reference>,
    key: &dyn Signer,
    copying: Copying<'_>,
) -> Result<Signed> {
    let found = remote.origin.manifest(reference)?.ok_or_else(|| store::remote::not_found(reference))?;
    let manifest: Manifest = found.read(reference)?;
    if manifest.info.instances.len() > MAX_INSTANCES {
        let count = manifest.info.instances.len();
        let reason = format!("{reference} is an index of {count} images, more than {MAX_INSTANCES}");
        return Err(Error::Unavailable { reason, hint: None }.into());
    }
    let identity = name_in_payload(identity.unwrap_or(reference));
    let mut added = Vec::new();
    let own = serde_json::to_value(manifest.descriptor()?)?;
    let instances = manifest.info.instances.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    for descriptor in [own].into_iter().chain(instances) {
        let digest = digest_of(&descriptor);
        let have = remote_attached::signatures(&remote.origin, reference, digest)?;
        // What was made before and did not arrive is sent now, and nothing that is for another repository.
        let made = Made::of(layout, &descriptor, &identity, key)?;
        if !have.simple.iter().any(|one| is_claim(one, digest, &identity, key)) {
            remote_attached::send_simple((layout, remote), (reference, digest), &made.simple, copying)?;
            added.push(Form::Simple);
        }
        if !have.bundles.iter().any(|one| is_signed(one, digest, key)) {
            remote_attached::send_bundle((layout, remote), (reference, digest), &made.bundle, copying)?;
            added.push(Form::Bundle);
        }
    }
    let warnings = unbound(&manifest.info, &identity);
    Ok(Signed { warnings, ..signed(reference.to_string(), identity, manifest.digest, key, added) })
}

fn signed(reference: String, identity: String, digest: String, key: &dyn Signer, mut added: Vec<Form>) -> Signed {
    added.sort_unstable();
    added.dedup();
    Signed { reference, identity, digest, key: key.public().id(), added, warnings: Vec::new() }
}

/// Warns where a bundle counts for nothing, which binds no name: what the image says that it is has to be the end of the repository.
fn unbound(info: &Info, identity: &str) -> Vec<String> {
    let skill = format!("{}/{}", info.get(NAMESPACE), info.get(NAME));
    let repository = identity.parse::<Reference>().map(|identity| identity.name().to_owned()).unwrap_or_default();
    if info.get(NAME).is_empty() {
        return vec!["it is no skill with a name: of its signatures only the simple one counts".to_owned()];
    }
    let ends = repository.strip_suffix(&skill).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
    match ends {
        true => Vec::new(),
        false => vec![format!(
            "it is the skill {skill}, and {repository} does not end so: of its signatures only the simple one counts"
        )],
    }
}

/// The signatures of a manifest by a key, which are in the store.
struct Made {
    simple: Signature,
    bundle: Entry,
    /// Those that were not there before.
    new: Vec<Form>,
}

impl Made {
    /// Returns those that are there, and makes what is not.
    fn of(layout: &Layout, descriptor: &Value, identity: &str, key: &dyn Signer) -> Result<Self> {
        let digest = digest_of(descriptor);
        let have = attached::signatures(layout, digest)?;
        let mut new = Vec::new();
        let simple = match have.simple.iter().find(|one| is_claim(one, digest, identity, key)) {
            Some(own) => own.clone(),
            None => {
                let made = Signature::make(key, identity, digest)?;
                attached::add_simple(layout, digest, std::slice::from_ref(&made))?;
                new.push(Form::Simple);
                made
            }
        };
        let own = have.bundles.iter().find(|one| is_signed(one, digest, key));
        let bundle = match own.map(|own| attached::entry_of(layout, digest, own)).transpose()?.flatten() {
            Some(own) => own,
            None => {
                let statement = Statement {
                    subjects: vec![digest.to_owned()],
                    predicate_type: SIGNED.to_owned(),
                    predicate: json!({}),
                };
                new.push(Form::Bundle);
                attached::add_bundle(layout, descriptor, &bundle::make(key, &statement)?, SIGNED)?
            }
        };
        Ok(Self { simple, bundle, new })
    }
}

fn is_claim(signature: &Signature, digest: &str, identity: &str, key: &dyn Signer) -> bool {
    signature.verify(key.public()).is_ok_and(|claim| claim.digest == digest && claim.reference == identity)
}

fn is_signed(bundle: &Bundle, digest: &str, key: &dyn Signer) -> bool {
    bundle::verify(&bundle.bytes, key.public())
        .is_ok_and(|one| one.subjects == [digest] && one.predicate_type == SIGNED)
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
