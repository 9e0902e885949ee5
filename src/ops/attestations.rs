//! `inspect --attestations`: what is attested of an image, and by whom.

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::attest::kind;
use crate::error::{Error, Refusal};
use crate::reference::Reference;
use crate::store::blob::sha256;
use crate::store::layout::Layout;
use crate::store::registry::Registry;
use crate::store::{self, attached, remote_attached};
use crate::trust::attestation::{self, Attestations, Attested};
use crate::trust::bundle::{self, SIGNED};
use crate::trust::by::By;
use crate::trust::verify::{Form, Signer};

/// What is attested of an image.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// The image, as it was asked for.
    pub reference: String,
    /// Digest of its manifest.
    pub digest: String,
    /// The attestations.
    pub attestations: Vec<Attestation>,
    /// Why others could not be read.
    pub unread: Vec<String>,
}

/// An attestation.
#[derive(Debug, Clone, Serialize)]
pub struct Attestation {
    /// Its predicate type.
    pub predicate_type: String,
    /// The short name of that, where it has one.
    pub name: Option<&'static str>,
    /// Digest of its manifest.
    pub digest: String,
    /// Size of the bundle, in bytes.
    pub size: u64,
    /// Whether one of those who may have signed it has, for this image.
    pub verified: bool,
    /// The key by which.
    pub key: Option<String>,
    /// Who has signed without a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Who says who that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Why it is not verified, where anybody may have signed it.
    pub reason: Option<String>,
    /// Digests of what it says that it is about.
    pub subjects: Vec<String>,
    /// What it states.
    pub predicate: Value,
}

/// Which attestations are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who may have signed them.
    pub by: By<'a>,
    /// Their predicate type, where it is not any.
    pub predicate_type: Option<&'a str>,
}

/// Lists the attestations of an image of the store, without the network.
///
/// # Errors
/// If there is no such image, or it is damaged.
pub fn in_store(layout: &Layout, text: &str, asked: Asked<'_>) -> Result<Listed> {
    let entry = store::lookup(layout, text)?;
    let reference = entry.name.clone().unwrap_or_else(|| text.to_owned());
    Ok(listed(reference, entry.digest(), &attached::attestations(layout, entry.digest())?, asked))
}

/// Lists the attestations that a registry has of an image.
///
/// # Errors
/// [`Error::Registry`].
pub fn on_registry(registry: &Registry, reference: &Reference, asked: Asked<'_>) -> Result<Listed> {
    let found = registry.manifest(reference)?.ok_or_else(|| store::remote::not_found(reference))?;
    let attestations = remote_attached::attestations(registry, reference, &found.digest)?;
    Ok(listed(reference.to_string(), &found.digest, &attestations, asked))
}

impl Listed {
    /// Returns the only predicate that was asked for: where keys verify, of those that are verified.
    ///
    /// # Errors
    /// [`Error::NotVerified`] where none is verified; [`Error::Unavailable`] where there is none, or several differ.
    pub fn only_predicate(&self, asked: Asked<'_>) -> Result<&Value, Error> {
        let image = &self.reference;
        let counts = |one: &&Attestation| asked.by.is_empty() || one.verified;
        let found: Vec<&Attestation> = self.attestations.iter().filter(counts).collect();
        let what = asked.predicate_type.map(|kind| format!(" of the type {kind}")).unwrap_or_default();
        match (&found[..], self.attestations.first()) {
            ([first, others @ ..], _) if others.iter().all(|one| one.predicate == first.predicate) => {
                Ok(&first.predicate)
            }
            ([_, _, ..], _) => {
                let choose = match (asked.predicate_type, asked.by.is_empty()) {
                    (None, true) => "choose with --type and --key, or ",
                    (None, false) => "choose with --type, or ",
                    (Some(_), true) => "choose with --key, or ",
                    (Some(_), false) => "",
                };
                let reason = format!("{image} has {} attestations{what}, which differ", found.len());
                let hint = Some(format!("{choose}take one of --format json: .attestations[0].predicate"));
                Err(Error::Unavailable { reason, hint })
            }
            (_, Some(first)) => {
                let found = format!("its attestation{what} is {}", first.reason.as_deref().unwrap_or_default());
                let (image, digest) = (image.clone(), self.digest.clone());
                let required = format!("signed by {}", asked.by);
                Err(Refusal { image, digest, required, found, hint: None }.into())
            }
            (_, None) => {
                let reason = format!("{image} ({}) has no attestation{what}", self.digest);
                Err(Error::Unavailable { reason, hint: None })
            }
        }
    }
}

fn listed(reference: String, digest: &str, found: &Attestations, asked: Asked<'_>) -> Listed {
    let mut unread = found.unread.clone();
    let mut attestations = Vec::new();
    for own in &found.bundles {
        let verified = attestation::verify(&own.bytes, digest, asked.by);
        let (by, reason, statement) = match verified {
            Ok(Attested { by, statement }) => (Some(by), None, statement),
            Err(reason) => match bundle::unverified(&own.bytes) {
                Ok(statement) => (None, (!asked.by.is_empty()).then_some(reason), statement),
                Err(reason) => {
                    unread.push(reason);
                    continue;
                }
            },
        };
        let is_asked = asked.predicate_type.is_none_or(|kind| kind == statement.predicate_type);
        if statement.predicate_type == SIGNED || !is_asked {
            continue;
        }
        let verified = by.is_some();
        let (key, identity, issuer) = match by.map(|by| Signer::new(by, Form::Bundle)) {
            Some(Signer { key, identity, issuer, .. }) => (Some(key).filter(|key| !key.is_empty()), identity, issuer),
            None => (None, None, None),
        };
        attestations.push(Attestation {
            name: kind::short_name(&statement.predicate_type),
            predicate_type: statement.predicate_type,
            digest: sha256(&own.manifest),
            size: own.bytes.len() as u64,
            verified,
            key,
            identity,
            issuer,
            reason,
            subjects: statement.subjects,
            predicate: statement.predicate,
        });
    }
    Listed { reference, digest: digest.to_owned(), attestations, unread }
}
