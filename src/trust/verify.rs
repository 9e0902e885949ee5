//! Whether an image is what somebody has signed.
//!
//! Of all signatures one that satisfies suffices, and others do no harm: several people may sign an image. How many are looked at is
//! bounded by who fetches them.

use std::fmt;
use std::sync::Arc;

use super::bundle::{self, Statement};
use super::by::{Author, By, Who};
use super::identity::Identity;
use super::key::PublicKey;
use super::names::{is_same, is_same_for_podman};
use super::simple;
use crate::image::{Info, NAME, NAMESPACE, oci::VERSION};
use crate::lifecycle::{State, TAG_SUFFIXES};
use crate::reference::{LOCALHOST, Reference};

/// What there is about a manifest, in both forms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signatures {
    /// Of the image of signatures.
    pub simple: Vec<simple::Signature>,
    /// Of what refers to the manifest.
    pub bundles: Vec<Bundle>,
    /// Why others could not be looked at.
    pub unread: Vec<String>,
}

impl Signatures {
    /// Adds others, without those that are there already.
    pub fn add_all(&mut self, others: Self) {
        let Self { simple, bundles, unread } = others;
        for one in simple {
            if !self.simple.contains(&one) {
                self.simple.push(one);
            }
        }
        for one in bundles {
            if !self.bundles.contains(&one) {
                self.bundles.push(one);
            }
        }
        self.unread.extend(unread);
    }
}

/// What holds of an image.
#[derive(Debug, Clone)]
pub struct Holds {
    /// Who has signed it.
    pub signers: Vec<Signer>,
    /// The signatures that say so, and no others.
    pub signatures: Signatures,
}

/// A bundle, and the manifest that it is a layer of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The bundle.
    pub bytes: Vec<u8>,
    /// The manifest, as its signer has written it.
    pub manifest: Vec<u8>,
}

/// A form of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// What podman reads.
    Simple,
    /// What cosign 3 reads first.
    Bundle,
}

/// A signature that holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Signer {
    /// The key, as [`PublicKey::id`] names it; empty where an identity has signed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Who has signed without a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Who says who that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// In which form.
    pub form: Form,
    /// What it says that the image is called; a bundle does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The trusted root by which it is proved who has signed without a key.
    #[serde(skip)]
    pub root: Option<Arc<str>>,
}

impl Signer {
    /// Returns who has made a signature of a form.
    pub fn new(author: Author, form: Form) -> Self {
        let (key, proved) = match author {
            Author::Key(key) => (key, None),
            Author::Identity(proved) => (String::new(), Some(proved)),
        };
        let (identity, root) = proved.map(|proved| (proved.identity, proved.root)).unzip();
        let (identity, issuer) = identity.map(|identity| (identity.name, identity.issuer)).unzip();
        Self { key, identity, issuer, form, reference: None, root }
    }

    /// Returns whoever it is, as records have it: the ID of a key, or the identity and who says so.
    pub fn id(&self) -> String {
        match (&self.identity, &self.issuer) {
            (Some(identity), Some(issuer)) => format!("{identity} of {issuer}"),
            _ => self.key.clone(),
        }
    }

    /// Returns whoever it is, as pins have it: [`Identity::kept`].
    pub fn pinned_id(&self) -> String {
        self.identity().map_or_else(|| self.id(), |identity| identity.kept().to_string())
    }

    /// Returns who has signed without a key.
    pub fn identity(&self) -> Option<Identity> {
        Some(Identity { name: self.identity.clone()?, issuer: self.issuer.clone()? })
    }
}

/// What is to be verified.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What was asked for.
    pub reference: &'a Reference,
    /// The repositories that signatures may be for, as [`Reference::name`] has them: the one that was asked for, or others.
    pub names: &'a [String],
    /// Digest of the manifest that it is.
    pub digest: &'a str,
    /// What that says.
    pub info: &'a Info,
}

/// Why an image is not verified: what every signature lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(Vec<String>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0 => return f.write_str("it has no signature"),
            1 => f.write_str("its signature is ")?,
            count => write!(f, "its {count} signatures are ")?,
        }
        // Several by one stranger are told once.
        let mut told: Vec<&str> = self.0.iter().map(String::as_str).collect();
        told.dedup();
        f.write_str(&told.join("; "))
    }
}

/// Returns the signatures of `subject` that hold, by any of those who may have signed.
///
/// # Errors
/// [`Refused`] where there is none, or where the image says that it is another one than was asked for.
pub fn verify(signatures: &Signatures, subject: Subject<'_>, any: By<'_>) -> Result<Holds, Refused> {
    let mut signers = Vec::new();
    let mut holding = Signatures::default();
    let mut refused = Vec::new();
    let mut weigh = |by: &dyn Fn(Who<'_>) -> Result<Signer, String>| {
        let mut reasons = Vec::new();
        for who in any.each() {
            match by(who) {
                Ok(signer) => {
                    signers.push(signer);
                    return true;
                }
                Err(reason) => reasons.push(reason),
            }
        }
        // That of the one who has signed it says more than that the others have not.
        let telling = reasons.iter().position(|reason| !reason.starts_with(NOT_BY)).unwrap_or_default();
        refused.extend((!reasons.is_empty()).then(|| reasons.swap_remove(telling)));
        false
    };
    let simple = signatures.simple.iter().filter(|one| weigh(&|who| simple_signer(one, subject, who)));
    holding.simple = simple.cloned().collect();
    let bundles = signatures.bundles.iter().filter(|one| weigh(&|who| bundle_signer(&one.bytes, subject, who)));
    holding.bundles = bundles.cloned().collect();
    refused.extend(signatures.unread.iter().cloned());
    if signers.is_empty() {
        return Err(Refused(refused));
    }
    says_so(subject).map_err(|reason| Refused(vec![reason]))?;
    Ok(Holds { signers, signatures: holding })
}

/// Returns whether podman finds a signature by any of `keys`: it reads simple ones alone.
pub fn is_signed_for_podman(signatures: &Signatures, subject: Subject<'_>, keys: &[PublicKey]) -> bool {
    let is_read = |signer: Signer| {
        let named = signer.reference.and_then(|name| name.parse::<Reference>().ok());
        named.is_some_and(|named| subject.names.iter().any(|name| is_same_for_podman(name, named.name())))
    };
    signatures
        .simple
        .iter()
        .any(|one| keys.iter().any(|key| simple_signer(one, subject, Who::Key(key)).is_ok_and(is_read)))
}

/// How a reason begins that says nothing of the signature but that somebody did not make it.
const NOT_BY: &str = "not by ";

fn simple_signer(signature: &simple::Signature, subject: Subject<'_>, who: Who<'_>) -> Result<Signer, String> {
    let (claim, author) = who.claim(signature)?;
    is_of(&claim.digest, subject)?;
    let named: Reference = claim.reference.parse().map_err(|_| format!("for {:?}", claim.reference))?;
    // A registry on this machine, which a reference of ours cannot name, and not the one that follows.
    let elsewhere = claim.reference.starts_with(LOCALHOST) && named.registry().is_some();
    match subject.names.iter().any(|name| is_same(name, named.name())) && !elsewhere {
        true => Ok(Signer { reference: Some(claim.reference), ..Signer::new(author, Form::Simple) }),
        false => Err(format!("for the repository {}, not {}", named.name(), subject.names.join(" or "))),
    }
}

fn bundle_signer(bytes: &[u8], subject: Subject<'_>, who: Who<'_>) -> Result<Signer, String> {
    let (statement, author) = who.statement(bytes, subject.digest)?;
    is_signature_of(&statement, subject)?;
    Ok(Signer::new(author, Form::Bundle))
}

/// Returns whether what was stated is a signature of the image that was asked for; errors are why not.
fn is_signature_of(statement: &Statement, subject: Subject<'_>) -> Result<(), String> {
    if statement.predicate_type != bundle::SIGNED {
        return Err(format!("a statement of the type {}, which is no signature", statement.predicate_type));
    }
    match &statement.subjects[..] {
        [digest] => is_of(digest, subject)?,
        subjects => return Err(format!("of {} digests, and not of one", subjects.len())),
    }
    // It binds no name: what the image says that it is has to be the repository that was asked for.
    let (namespace, name) = (subject.info.get(NAMESPACE), subject.info.get(NAME));
    if namespace.is_empty() || name.is_empty() {
        return Err("for no skill by name".to_owned());
    }
    let path = format!("{namespace}/{name}");
    let within = |name: &String| name.strip_suffix(&path).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
    match subject.names.iter().any(within) {
        true => Ok(()),
        false => Err(format!("for the skill {path}, not {}", subject.names.join(" or "))),
    }
}

fn is_of(digest: &str, subject: Subject<'_>) -> Result<(), String> {
    match digest == subject.digest {
        true => Ok(()),
        false => Err(format!("of {digest}")),
    }
}

/// Compares what a tag says with what the image says: an older version that was signed once is not what a newer tag asks for. Tags
/// such as latest promise no version.
fn says_so(subject: Subject<'_>) -> Result<(), String> {
    let Some(tag) = subject.reference.tag() else { return Ok(()) };
    let version = TAG_SUFFIXES.iter().find_map(|suffix| tag.strip_suffix(suffix)).unwrap_or(tag);
    if semver::Version::parse(version).is_err() {
        return Ok(());
    }
    let (own, state) = (subject.info.get(VERSION), subject.info.state());
    // A collection, or what others have made, is in no state, and no skill by name.
    if state.is_none() && subject.info.get(NAME).is_empty() && own == tag {
        return Ok(());
    }
    match state.and_then(|state| state.tag(own)).as_deref() == Some(tag) {
        true => Ok(()),
        false => {
            let state = state.map_or("of no state", State::as_str);
            Err(format!("of the version {own:?}, {state}, and the tag is {tag}"))
        }
    }
}
