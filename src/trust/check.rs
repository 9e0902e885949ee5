//! Whether an image is what the keys and the policy of a machine want it to be.

use oci_spec::image::Descriptor;
use serde::Serialize;

use super::attestation::{Attestations, attested};
use super::key::PublicKey;
use super::keyless::CANNOT;
use super::policy::{Policy, Rule};
use super::verify::{Holds, Signatures, Signer, Subject, is_signed_for_podman, verify};
use crate::attest::kind::short_name;
use crate::error::{Error, Refusal, Result};
use crate::image::Info;
use crate::lifecycle::State;
use crate::receipt;
use crate::reference::Reference;

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
    /// The keys that have made them.
    #[serde(skip)]
    pub keys: Vec<PublicKey>,
    /// For each rule, who has signed as it wants ([`Signer::pinned_id`], then [`Signer::id`]).
    #[serde(skip)]
    pub by_rule: Vec<Vec<String>>,
    /// Whether it may be used as another repository than those have signed it for.
    #[serde(skip)]
    pub identity: Option<Reference>,
}

impl Verified {
    /// Returns who has signed it, each once.
    pub fn by(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for id in self.signers.iter().map(Signer::id) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }
}

/// What an image is held against: the rule of the flags, where some were given, and the policy of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Against<'a> {
    /// What the flags ask for.
    pub given: Option<&'a Rule>,
    /// What the machine asks for.
    pub policy: &'a Policy,
}

impl<'a> Against<'a> {
    /// Returns whether it lets everything pass.
    pub fn asks_nothing(self) -> bool {
        self.given.is_none() && self.policy.is_empty()
    }

    /// Returns what has to hold of an image, all of it.
    ///
    /// # Errors
    /// As [`Policy::check`].
    pub fn rules(self, reference: &Reference) -> Result<Vec<Rule>> {
        Ok(self.given.cloned().into_iter().chain(self.policy.rules(reference)?).collect())
    }
}

/// What came of holding an image against rules.
#[derive(Debug)]
pub struct Checked {
    /// The image.
    pub verified: Verified,
    /// The signatures that hold.
    pub holding: Signatures,
    /// The attestations, where a rule wanted some.
    pub attestations: Option<Attestations>,
}

/// Holds a manifest against rules, all of which have to hold, by signatures that are at hand. Attestations, which are large, are asked
/// for once a rule that wants some has found its signature.
///
/// # Errors
/// [`Error::NotVerified`]; those of `attestations`.
pub fn check(
    (signatures, attestations): (&Signatures, &dyn Fn() -> Result<Attestations>),
    reference: &Reference,
    (digest, info): (&str, &Info),
    rules: &[Rule],
) -> Result<Checked> {
    let mut verified = Verified {
        reference: reference.to_string(),
        digest: digest.to_owned(),
        signers: Vec::new(),
        warnings: Vec::new(),
        keys: Vec::new(),
        by_rule: Vec::new(),
        identity: None,
    };
    if rules.iter().any(|rule| rule.must) && rules.iter().all(|rule| rule.by().is_empty()) {
        return Err(nobody(&reference.to_string()));
    }
    let mut holding = Signatures::default();
    let mut found: Option<Attestations> = None;
    for rule in rules {
        let refused = |required: String, found: String| Refusal {
            image: reference.to_string(),
            digest: digest.to_owned(),
            required: by(&required, rule),
            hint: hint(rule, reference, &found),
            found,
        };
        if !rule.states.is_empty() && !info.state().is_some_and(|state| rule.states.contains(&state)) {
            let state = info.state().map_or("in no state", State::as_str);
            let wanted: Vec<&str> = rule.states.iter().map(|state| state.as_str()).collect();
            let hint = Some(format!("skillctl promote {reference} --to STATE, or name one that is in such a state"));
            return Err(Refusal { hint, ..refused(wanted.join(" or "), format!("it is {state}")) }.into());
        }
        let any = rule.by();
        if any.is_empty() {
            verified.by_rule.push(Vec::new());
            continue;
        }
        let subject = Subject { reference, names: &rule.names(reference), digest, info };
        let Holds { signers, signatures: own } =
            verify(signatures, subject, any).map_err(|why| refused(format!("signed by {any}"), why.to_string()))?;
        for wanted in &rule.attestations {
            let required = || format!("attested by {any} ({})", short_name(wanted).unwrap_or(wanted));
            let there = match &found {
                Some(there) => there,
                None => found.insert(attestations()?),
            };
            attested(&there.bundles, digest, wanted, any).map_err(|found| refused(required(), found))?;
        }
        verified.keys.extend(rule.keys.iter().filter(|key| signers.iter().any(|one| one.key == key.id())).cloned());
        verified.by_rule.push(signers.iter().map(Signer::pinned_id).chain(signers.iter().map(Signer::id)).collect());
        verified.identity = verified.identity.or_else(|| rule.identity.clone());
        let new = |signer: &Signer| !verified.signers.contains(signer);
        let new: Vec<Signer> = signers.into_iter().filter(new).collect();
        verified.signers.extend(new);
        holding.add_all(own);
    }
    verified.keys.dedup();
    Ok(Checked { verified, holding, attestations: found })
}

/// Warns of the first instance of an index that podman finds no signature of: it looks at the one that it takes, and cosign signs the
/// index alone.
///
/// # Errors
/// Those of `signatures`, which returns the ones of an instance.
pub fn unsigned_instance<'a>(
    (reference, info): (&Reference, &Info),
    instances: impl Iterator<Item = &'a Descriptor>,
    rules: &[Rule],
    mut signatures: impl FnMut(&str) -> Result<Signatures>,
) -> Result<Option<String>> {
    for instance in instances {
        let digest = instance.digest().as_ref();
        let there = signatures(digest)?;
        let is_signed = |rule: &Rule| {
            let subject = Subject { reference, names: &rule.names(reference), digest, info };
            rule.keys.is_empty() || is_signed_for_podman(&there, subject, &rule.keys)
        };
        if !rules.iter().all(is_signed) {
            return Ok(Some(format!(
                "{reference}: the index is signed, and not its instance {digest}, which podman's policy refuses for that"
            )));
        }
    }
    Ok(None)
}

/// The error where nothing says who has to have signed an image.
pub fn nobody(text: &str) -> Error {
    Error::Unavailable {
        reason: format!("nothing says who has to have signed {text}"),
        hint: Some("give --key FILE, or name the keys of the repository with skillctl trust add".into()),
    }
}

/// Says what to do about an image that is not as a rule wants it.
fn hint(rule: &Rule, reference: &Reference, found: &str) -> Option<String> {
    match (rule.source.as_str(), &rule.identity) {
        (receipt::SIGNED, _) => Some(match rule.identities.is_empty() || CANNOT.is_some() {
            true => "--key FILE takes the signature of another key".to_owned(),
            false => "--certificate-identity, or --key FILE, takes the signature of somebody else".to_owned(),
        }),
        ("", None) if found.contains("for the repository ") => {
            Some("where it is a copy, --identity REPOSITORY says what it was signed as".to_owned())
        }
        ("", _) => None,
        _ => Some(format!("skillctl trust check {reference} says what is asked; skillctl sign signs it")),
    }
}

/// Adds who asks for something, where that is no flag.
pub fn by(required: &str, rule: &Rule) -> String {
    match rule.source.as_str() {
        "" => required.to_owned(),
        source => format!("{required} ({source})"),
    }
}
