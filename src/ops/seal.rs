//! What a promotion signs. Each one makes a manifest with another digest, for which nothing counts that was signed for the old one: it is
//! signed, what is attested of the old one is attested again, and both are verified before a tag names it.

use anyhow::Result;

use super::sign;
use crate::error::{Error, Refusal};
use crate::lifecycle::State;
use crate::reference::Reference;
use crate::store::attached;
use crate::store::layout::Layout;
use crate::store::remote::Remote;
use crate::store::remote_attached;
use crate::store::repository::Manifest;
use crate::store::transfer::Copying;
use crate::store::trusted::{held_to_pin, not_as_pinned};
use crate::trust::attestation::{self, Attestations};
use crate::trust::bundle::{self, Statement};
use crate::trust::by::By;
use crate::trust::check::{Verified, by, check};
use crate::trust::policy::{Policy, Rule};
use crate::trust::signer::Signer;
use crate::trust::verify::Signatures;

/// Where something is promoted.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// In the store.
    Store(&'a Layout),
    /// On a registry; what is sent there passes through the store.
    Registry(&'a Layout, &'a Remote, Copying<'a>),
}

/// What holds of a promotion.
#[derive(Debug)]
pub struct Seal<'a> {
    place: Place<'a>,
    /// What the policy asks of the repository, but for states: a promotion changes those.
    rules: Vec<Rule>,
    key: Option<&'a dyn Signer>,
}

impl<'a> Seal<'a> {
    /// Returns what has to hold of a promotion of `source`, an image of the repository of `reference`, into a state.
    ///
    /// # Errors
    /// [`Error::NotVerified`] where the policy covers the repository and there is no key to sign with, or none that it takes; where
    /// what becomes published, or is so, is not signed as the policy wants it.
    pub fn of(
        place: Place<'a>,
        policy: &Policy,
        (reference, source, to): (&Reference, &Manifest, State),
        key: Option<&'a dyn Signer>,
    ) -> Result<Self> {
        let rules: Vec<Rule> = policy.rules(reference)?.into_iter().filter(|rule| !rule.by().is_empty()).collect();
        let rules: Vec<Rule> = rules.into_iter().map(|rule| Rule { states: Vec::new(), ..rule }).collect();
        let seal = Self { place, rules, key };
        let local = if seal.is_local(reference) { " --local" } else { "" };
        for rule in &seal.rules {
            let refused = |found: String| {
                Error::from(Refusal {
                    image: reference.to_string(),
                    digest: source.digest.clone(),
                    required: by(&format!("promoted to {to} with a signature by {}", rule.by()), rule),
                    found,
                    hint: Some(match rule.keys.is_empty() {
                        false => format!(
                            "skillctl promote {reference} --to {to}{local} --sign --key FILE, with a key that the policy names"
                        ),
                        true => {
                            "promote where no policy covers it, and have it signed there: sign --keyless".to_owned()
                        }
                    }),
                })
            };
            match key.map(|key| key.public()) {
                None => {
                    let more = rule.attestations.iter().map(|one| format!(", nor an attestation ({one})"));
                    let more: String = more.collect();
                    return Err(refused(format!("without --sign it would have no signature{more}")).into());
                }
                Some(own) if !rule.keys.contains(own) => {
                    return Err(refused(format!("it would be signed by {}", own.id())).into());
                }
                Some(_) => {}
            }
        }
        let pinned = match seal.rules.iter().find(|rule| rule.pin) {
            Some(rule) => seal.layout().signer(reference.name())?.map(|pinned| (rule, pinned)),
            None => None,
        };
        if let (Some((rule, pinned)), Some(key)) = (pinned, seal.signer())
            && pinned != key
        {
            let (image, found) = (reference.to_string(), format!("it would be signed by {key}"));
            return Err(not_as_pinned((&image, &source.digest), (reference, &pinned), rule, found).into());
        }
        if to >= State::Published && !seal.rules.is_empty() {
            let verified = seal.check(reference, source, &seal.rules)?;
            held_to_pin(seal.layout(), reference, &verified, &seal.rules)?;
        }
        Ok(seal)
    }

    fn layout(&self) -> &Layout {
        match self.place {
            Place::Store(layout) | Place::Registry(layout, ..) => layout,
        }
    }

    /// Returns the ID of the key that it is signed by.
    pub fn signer(&self) -> Option<String> {
        self.key.map(|key| key.public().id())
    }

    /// Returns whether anything is signed.
    pub fn signs(&self) -> bool {
        self.key.is_some()
    }

    /// Holds a manifest against rules by what there is where it is promoted.
    fn check(&self, reference: &Reference, manifest: &Manifest, rules: &[Rule]) -> Result<Verified> {
        let Manifest { digest, info, .. } = manifest;
        let signatures = self.signatures(reference, digest)?;
        let checked = check((&signatures, &|| self.attestations(reference, digest)), reference, (digest, info), rules);
        let checked = checked.map_err(|e| if self.is_local(reference) { e.local() } else { e })?;
        Ok(checked.verified)
    }

    /// Returns whether it is in the store, and only --local says so.
    fn is_local(&self, reference: &Reference) -> bool {
        matches!(self.place, Place::Store(_)) && reference.registry().is_some()
    }

    fn signatures(&self, reference: &Reference, digest: &str) -> Result<Signatures, Error> {
        Ok(match self.place {
            Place::Store(layout) => attached::signatures(layout, digest)?,
            Place::Registry(_, remote, _) => remote_attached::signatures(&remote.origin, reference, digest)?,
        })
    }

    fn attestations(&self, reference: &Reference, digest: &str) -> Result<Attestations, Error> {
        Ok(match self.place {
            Place::Store(layout) => attached::attestations(layout, digest)?,
            Place::Registry(_, remote, _) => remote_attached::attestations(&remote.origin, reference, digest)?,
        })
    }

    /// Signs what has come of `source`, which is there by its digest, under the name that it gets. The caller holds
    /// [`Layout::writing`].
    ///
    /// # Errors
    /// If it cannot be signed; [`Error::NotVerified`] where that does not suffice.
    pub fn put_on(&self, source: &Manifest, new: &Manifest, name: &Reference) -> Result<()> {
        let Some(key) = self.key else { return Ok(()) };
        match self.place {
            Place::Store(layout) => drop(sign::in_store(layout, &new.digest, Some(name), key)?),
            Place::Registry(layout, remote, copying) => {
                let exact = name.repository().with_digest(&new.digest)?;
                sign::on_registry((layout, remote), &exact, Some(name), key, copying)?;
            }
        }
        self.attest_again(source, new, name, key)?;
        let own = Rule { keys: vec![key.public().clone()], ..Rule::default() };
        let rules: Vec<Rule> = [own].into_iter().chain(self.rules.iter().cloned()).collect();
        self.check(name, new, &rules).map(drop)
    }

    /// States of the new manifest what was stated of the old one by the key that signs or by one that the policy trusts; of both, so
    /// that it is seen where it comes from.
    fn attest_again(&self, source: &Manifest, new: &Manifest, name: &Reference, key: &dyn Signer) -> Result<()> {
        let attested = |bundle: &[u8], by: By<'_>| attestation::verify(bundle, &source.digest, by);
        // By whom every rule trusts: another one's statement would count for more than its signer does.
        let trusted = |bundle: &[u8]| {
            let all = !self.rules.is_empty() && self.rules.iter().all(|rule| attested(bundle, rule.by()).is_ok());
            attested(bundle, self.rules.first().filter(|_| all).map(Rule::by).unwrap_or_default())
        };
        let there = self.attestations(name, &new.digest)?;
        let is_there = |wanted: &Statement| {
            there.bundles.iter().any(|own| bundle::verify(&own.bytes, key.public()).is_ok_and(|own| own == *wanted))
        };
        let descriptor = serde_json::to_value(new.descriptor()?)?;
        for old in self.attestations(name, &source.digest)?.bundles {
            let own = attested(&old.bytes, By::keys(std::slice::from_ref(key.public())));
            let Ok(old) = own.or_else(|_| trusted(&old.bytes)) else { continue };
            let subjects = vec![new.digest.clone(), source.digest.clone()];
            let statement = Statement { subjects, ..old.statement };
            if is_there(&statement) {
                continue;
            }
            let bundle = bundle::make(key, &statement)?;
            let (Place::Store(layout) | Place::Registry(layout, ..)) = self.place;
            let entry = attached::add_bundle(layout, &descriptor, &bundle, &statement.predicate_type)?;
            if let Place::Registry(_, remote, copying) = self.place {
                remote_attached::send_bundle((layout, remote), (name, &new.digest), &entry, copying)?;
            }
        }
        Ok(())
    }
}
