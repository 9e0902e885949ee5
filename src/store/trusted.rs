//! Images of the store, held against what the flags and the policy of the machine ask for: the same for all verbs and for hooks.

use std::collections::BTreeMap;

use super::Found;
use super::attached;
use super::layout::Layout;
use super::transfer::MAX_INSTANCES;
use crate::error::{Error, Refusal, Result};
use crate::image::Info;
use crate::reference::{Reference, is_digest};
use crate::trust::check::{self, Against, Verified, by};
use crate::trust::names;
use crate::trust::policy::{Policy, Rule};

impl Layout {
    /// Holds what is used of it against a policy.
    #[must_use]
    pub fn trusting(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Returns what has to hold of images that are used.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// Verifies an image of the store that `text` named, without the network; `None` where nothing is asked of it.
///
/// # Errors
/// [`Error::NotVerified`].
pub fn found(layout: &Layout, found: &Found, text: &str, given: Option<&Rule>) -> Result<Option<Verified>> {
    if (Against { given, policy: layout.policy() }).asks_nothing() {
        return Ok(None);
    }
    let identity = given.and_then(|rule| rule.identity.as_ref());
    let reference = match asked(found, text, identity) {
        // In no repository, and in no scope.
        Err(_) if given.is_none() => return layout.policy().check().map(|()| None),
        reference => reference?,
    };
    check(layout, &reference, (found.entry.digest(), &found.info), given)
}

/// Returns what an image of the store that `text` named is called: its name, else what [`asked`] says, else that text.
///
/// # Errors
/// If neither is a reference.
pub fn called(found: &Found, text: &str) -> Result<Reference> {
    match &found.entry.name {
        Some(name) => Ok(name.parse::<Reference>()?.or_latest()),
        None => asked(found, text, None).or_else(|_| text.parse()),
    }
}

/// Returns what an image of the store that `text` named is verified for: what was asked for, and where that is a digest the name that it
/// has, or the repository that it had one in.
///
/// # Errors
/// If it has no name.
pub fn asked(found: &Found, text: &str, identity: Option<&Reference>) -> Result<Reference> {
    let named = found.entry.name.as_deref().map(|name| Ok(name.parse::<Reference>()?.or_latest()));
    let was = || found.entry.was().map(|was| was.parse::<Reference>()?.with_digest(found.entry.digest()));
    let own = named.or_else(was).transpose()?;
    match (text.parse::<Reference>(), own, identity) {
        (Ok(asked), Some(own), _) if asked.name() == own.name() => Ok(asked.or_latest()),
        // By its digest, in a repository that it need not have been in.
        (Ok(asked), _, _) if found.entry.name.is_none() && asked.digest().is_some() => Ok(asked),
        (_, Some(own), _) => Ok(own),
        (Ok(asked), None, _) if !is_digest(text) => Ok(asked),
        (_, None, Some(identity)) => Ok(identity.repository()),
        (_, None, None) => {
            let hint = Some("give --identity REPOSITORY".into());
            let reason = format!("{text} has no name to be verified for");
            Err(Error::Unavailable { reason, hint })
        }
    }
}

/// Verifies a manifest of the store as what `reference` asked for.
///
/// # Errors
/// [`Error::NotVerified`].
pub fn check(
    layout: &Layout,
    reference: &Reference,
    (digest, info): (&str, &Info),
    given: Option<&Rule>,
) -> Result<Option<Verified>> {
    let rules = Against { given, policy: layout.policy() }.rules(reference)?;
    if rules.is_empty() {
        return Ok(None);
    }
    let signatures = attached::signatures(layout, digest)?;
    let attestations = || attached::attestations(layout, digest);
    let mut verified = check::check((&signatures, &attestations), reference, (digest, info), &rules)?.verified;
    let of = |digest: &str| attached::signatures(layout, digest);
    let instances = info.instances.iter().take(MAX_INSTANCES);
    verified.warnings.extend(check::unsigned_instance((reference, info), instances, &rules, of)?);
    held_to_pin(layout, reference, &verified, &rules)?;
    Ok(Some(verified))
}

/// Refuses an image that only containers-storage has, where anything is asked of it: no signatures are kept there.
///
/// # Errors
/// [`Error::NotVerified`].
pub fn only_loaded(policy: &Policy, reference: &Reference, digest: &str) -> Result<()> {
    let Some(rule) = policy.rules(reference)?.into_iter().next() else { return Ok(()) };
    Err(Refusal {
        image: reference.to_string(),
        digest: digest.to_owned(),
        required: by("verified", &rule),
        found: "only containers-storage has it, where nothing can be verified".to_owned(),
        hint: Some(format!("skillctl pull {reference}")),
    }
    .into())
}

/// Pins the repository of an image that is taken in to whoever has signed it, where the policy asks for that and it is pinned to
/// nobody.
///
/// # Errors
/// If that cannot be written; as [`held_to_pin`] where another process was faster with another signer.
pub fn pin(layout: &Layout, reference: &Reference, verified: Option<&Verified>) -> Result<()> {
    let Some(verified) = verified else { return Ok(()) };
    let rules = layout.policy().rules(reference)?;
    for (_, signed) in pinning(&rules, verified) {
        if let (None, Some(first)) = (layout.signer(reference.name())?, signed.first()) {
            layout.pin_signer(reference.name(), first)?;
        }
    }
    held_to_pin(layout, reference, verified, &rules)
}

/// Holds an image to whoever its repository is pinned to, where a rule pins it. The image was verified by these rules. Nothing is pinned
/// by looking: see [`pin`].
///
/// # Errors
/// [`Error::NotVerified`] with both.
pub fn held_to_pin(layout: &Layout, reference: &Reference, verified: &Verified, rules: &[Rule]) -> Result<()> {
    for (rule, signed) in pinning(rules, verified) {
        if let Some(pinned) = layout.signer(reference.name())? {
            is_by(&pinned, (rule, signed), reference, verified)?;
        }
    }
    Ok(())
}

/// Refuses an image where `pinned` is not among those who have signed it as a rule wants.
fn is_by(
    pinned: &String,
    (rule, signed): (&Rule, &[String]),
    reference: &Reference,
    verified: &Verified,
) -> Result<()> {
    if signed.contains(pinned) {
        return Ok(());
    }
    let found = format!("it is signed by {}", verified.by().join(" and "));
    Err(not_as_pinned((&verified.reference, &verified.digest), (reference, pinned), rule, found))
}

/// Holds an image to the signer that the first of several would pin its repository to, where it is pinned to nobody: whoever takes them in
/// together pins once all are there. `firsts` has those by repository.
///
/// # Errors
/// As [`held_to_pin`].
pub fn held_to_first(
    (layout, firsts): (&Layout, &mut BTreeMap<String, String>),
    reference: &Reference,
    verified: &Verified,
    rules: &[Rule],
) -> Result<()> {
    if layout.signer(reference.name())?.is_some() {
        return held_to_pin(layout, reference, verified, rules);
    }
    for (rule, signed) in pinning(rules, verified) {
        let Some(own) = signed.first() else { continue };
        let first = firsts.entry(names::repository(reference.name())).or_insert_with(|| own.clone());
        is_by(first, (rule, signed), reference, verified)?;
    }
    Ok(())
}

/// The error for an image by somebody else than its repository is pinned to.
pub fn not_as_pinned(
    (image, digest): (&str, &str),
    (reference, pinned): (&Reference, &str),
    rule: &Rule,
    found: String,
) -> Error {
    let name = reference.name();
    Refusal {
        image: image.to_owned(),
        digest: digest.to_owned(),
        required: by(&format!("signed by {pinned}, which {name} is pinned to"), rule),
        found,
        hint: Some(format!("if that is right: skillctl trust remove --pinned {name}")),
    }
    .into()
}

/// Returns the rules that pin, and who has signed as each wants. What flags ask for comes before what the policy does, and pins nothing.
fn pinning<'a>(rules: &'a [Rule], verified: &'a Verified) -> impl Iterator<Item = (&'a Rule, &'a Vec<String>)> {
    rules.iter().rev().zip(verified.by_rule.iter().rev()).filter(|(rule, _)| rule.pin)
}
