//! What a change of the policy is about: which key is meant, and what the audit log has of it.

use std::path::Path;

use anyhow::Result;

use crate::audit::{Action, Event};
use crate::cli::key;
use crate::cli::policy::needed;
use crate::error::Error;
use crate::trust::edit::Gone;
use crate::trust::identity::Identities;
use crate::trust::key::PublicKey;
use crate::trust::policy::{Policy, Scope, Written, prefix};

/// Fewest digits by which a key is named; `trust list` shows 12.
const DIGITS: usize = 8;

/// Refuses a name that is none for its letters alone, which the rules of references would not say.
///
/// # Errors
/// That.
pub fn check_case(scope: &str) -> Result<(), Error> {
    let lower = scope.to_ascii_lowercase();
    match prefix(scope).is_err() && prefix(&lower).is_ok() {
        true => {
            let reason = format!("{scope:?} is no name of a repository: those are in lower-case letters");
            Err(Error::Unavailable { reason, hint: Some(format!("write {lower}")) })
        }
        false => Ok(()),
    }
}

/// Returns how the ID of a key begins that is named by that, or by its file.
///
/// # Errors
/// If it is neither.
pub fn id(given: &str) -> Result<String> {
    const ALGORITHM: &str = "sha256:";
    let digits = given.strip_prefix(ALGORITHM).unwrap_or(given);
    let is_id = digits.len() >= DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_id && (digits.len() < given.len() || !Path::new(given).exists()) {
        true => Ok(format!("{ALGORITHM}{}", digits.to_ascii_lowercase())),
        false => Ok(key::public(given.as_ref())?.id()),
    }
}

/// Returns what the text of a policy asks for in a scope; nothing where it cannot be read.
pub fn before(text: &str, path: &str, scope: &str) -> Vec<Scope> {
    let dir = Path::new(path).parent().unwrap_or(Path::new("/"));
    let read = |name: &str, limit| Ok(needed(&dir.join(name), limit)?.into_bytes());
    let mut policy = Policy::default();
    let _ = policy.add(text, path, &read);
    let is_of = |own: &&Scope| prefix(scope).is_ok_and(|scope| scope == own.prefix);
    policy.scopes().iter().filter(is_of).cloned().collect()
}

/// Returns the record of what was added to the policy at `path`.
pub fn added(keys: &[PublicKey], new: &Written, path: &str) -> Event {
    let signers = keys.iter().map(PublicKey::id).chain(new.identities.iter().map(ToString::to_string));
    let more = more((&new.states, &new.attestations), new.signed_as.as_deref(), new.pin);
    Event::of(Action::Trust, &new.prefix).signers(signers).at(format!("added to {path}{more}"))
}

/// Returns the record of what was removed of a scope: the keys of these IDs, an identity, or all of it.
pub fn removed(scope: &str, done: String, was: &[Scope], (gone, ids): (Option<Gone<'_>>, Vec<String>)) -> Event {
    let event = Event::of(Action::Trust, scope);
    let rules = || was.iter().map(|scope| &scope.rule);
    let identities = rules().flat_map(|rule| &rule.identities).flat_map(Identities::written);
    match gone {
        Some(Gone::Keys(_)) => event.signers(ids).at(done),
        Some(Gone::Identity(name)) => {
            event.signers(identities.filter(|own| own.is_called(name)).map(ToString::to_string)).at(done)
        }
        None => {
            let keys = rules().flat_map(|rule| &rule.keys).map(PublicKey::id);
            let more = was.iter().map(|scope| {
                let states: Vec<String> = scope.rule.states.iter().map(|state| state.as_str().to_owned()).collect();
                more((&states, &scope.rule.attestations), scope.signed_as.as_deref(), scope.rule.pin)
            });
            event.signers(keys.chain(identities.map(ToString::to_string))).at(done + &more.collect::<String>())
        }
    }
}

/// Returns what is asked for beside signatures.
fn more((states, attestations): (&[String], &[String]), signed_as: Option<&str>, pin: bool) -> String {
    let list = |name: &str, all: &[String]| match all.is_empty() {
        true => String::new(),
        false => format!("; {name} {}", all.join(", ")),
    };
    let signed_as = signed_as.map(|name| format!("; signed as {name}")).unwrap_or_default();
    let pin = if pin { "; pinned" } else { "" };
    list("states", states) + &list("attestations", attestations) + &signed_as + pin
}
