//! The same policy for podman: `policy.json` (containers-policy.json(5)) and a file of `registries.d` (containers-registries.d(5)).
//!
//! podman takes the narrowest scope alone, so each one repeats what the broader ones ask for. It reads simple signatures only, and knows
//! neither states, attestations nor identities of certificates: [`Proposal::unsaid`] lists what it does not hold to.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::identity::Identities;
use super::names::{repository, spellings};
use super::noted::{self, Note};
use super::policy::{Mirror, Policy, Scope};
use crate::error::{Error, Result};
use crate::reference::{LOCALHOST, Reference};

/// What a policy accepts everything by, and what it refuses everything by.
const ANYTHING: &str = "insecureAcceptAnything";
const NOTHING: &str = "reject";

/// What podman is told.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Scopes of the transport `docker`, and their requirements.
    pub scopes: Vec<(String, Vec<Value>)>,
    /// Names whose signatures have to be read: the scopes, and the mirrors of them.
    pub attachments: BTreeSet<String>,
    /// What podman does not hold to, in sentences.
    pub unsaid: Vec<String>,
}

/// What becomes of a `policy.json`.
#[derive(Debug, Default)]
pub struct Merged {
    /// The file.
    pub text: String,
    /// What weakens our scopes in it, and what could not be as it was.
    pub warnings: Vec<String>,
    /// What it has from us, and other files have.
    pub notes: Vec<Note>,
    /// The scopes that were taken out.
    pub gone: Vec<String>,
}

impl Proposal {
    /// Returns what podman is told of a policy.
    ///
    /// # Errors
    /// As [`Policy::check`].
    pub fn of(policy: &Policy) -> Result<Self> {
        policy.check()?;
        let mut proposal = Self { scopes: Vec::new(), attachments: BTreeSet::new(), unsaid: Vec::new() };
        for scope in policy.scopes() {
            proposal.tell(scope, policy);
        }
        Ok(proposal)
    }

    fn tell(&mut self, scope: &Scope, policy: &Policy) {
        let (prefix, rule) = (&scope.prefix, &scope.rule);
        let mut unsaid = |what: String| {
            if !self.unsaid.contains(&what) {
                self.unsaid.push(what);
            }
        };
        if !is_on_registry(prefix) {
            unsaid(format!("{prefix}: it is on no registry, and podman verifies only what it pulls"));
            return;
        }
        if !rule.states.is_empty() {
            unsaid(format!("{prefix}: states"));
        }
        for attestation in &rule.attestations {
            unsaid(format!("{prefix}: the attestation {attestation}"));
        }
        if rule.pin {
            unsaid(format!("{prefix}: that the first key stays"));
        }
        for identity in rule.identities.iter().flat_map(Identities::written) {
            unsaid(match rule.keys.is_empty() {
                true => format!("{prefix}: the identity {identity}"),
                // Podman asks for more than the scope does, and never for less.
                false => format!("{prefix}: that the identity {identity} suffices in place of a key"),
            });
        }
        if rule.keys.is_empty() {
            return;
        }
        // A short name of Docker Hub may be an image or an organisation, and podman can be told one of them.
        if let Some(signed_as) = scope.signed_as.as_ref().filter(|name| is_on_registry(name)) {
            let long = repository(signed_as);
            if !is_in(&long, signed_as) {
                unsaid(format!(
                    "{prefix}: that an image is signed as {signed_as} itself, where signed-as is not {long}"
                ));
            }
        }
        let long = repository(prefix);
        let names = match long == *prefix || is_in(&long, prefix) {
            true => vec![prefix],
            // Of a short name of Docker Hub podman knows the long one, by which it finds the image, and has what is below it by the short one.
            false => vec![prefix, &long],
        };
        for name in names {
            self.name(name, policy);
            self.attachments.extend(rule.mirrors.iter().filter_map(|mirror| mirror_of(name, mirror)));
        }
    }

    /// Adds what is asked of `name` by all scopes that it is in; where it is a repository, by any of its spellings.
    fn name(&mut self, name: &str, policy: &Policy) {
        if self.scopes.iter().any(|(known, _)| known == name) {
            return;
        }
        let spellings = if repository(name) == name { spellings(name) } else { vec![name.to_owned()] };
        let covers = |other: &&Scope| {
            !other.rule.keys.is_empty() && spellings.iter().any(|spelling| is_in(spelling, &other.prefix))
        };
        let requirements = policy.scopes().iter().filter(covers).map(|other| requirement(other, name));
        self.scopes.push((name.to_owned(), requirements.collect()));
        self.attachments.insert(name.to_owned());
    }

    /// Returns whether it repeats in `scope` what a scope of a file asks for: that is ours, and `scope` is in it.
    fn repeats(&self, scope: &str, asked: &Value) -> bool {
        self.scopes.iter().any(|(other, list)| is_in(scope, other) && list.contains(asked))
    }

    /// Returns the same, and has signatures read of whatever they were read of in our file, where scopes stay that are not in it: without
    /// them podman would refuse all of those. Names of mirrors are not noted, and do no harm.
    #[must_use]
    pub fn reading(&self, notes: &[Note], own: &str) -> Self {
        let mut proposal = self.clone();
        if notes.iter().any(|note| self.scopes.iter().all(|(scope, _)| *scope != note.scope)) {
            proposal.attachments.extend(noted::names(own).map(str::to_owned));
        }
        proposal
    }

    /// Returns a file of `registries.d`.
    pub fn registries_d(&self) -> String {
        let entries = self.attachments.iter().map(|name| {
            let name = noted::quoted(name);
            format!("  {name}:\n    use-sigstore-attachments: true\n")
        });
        format!("docker:\n{}", entries.collect::<String>())
    }

    /// Puts the scopes into a `policy.json`, and takes those out that are noted and gone: what was there before is there again, and what
    /// somebody has changed since stays. `replace` allows to change a scope that is not ours; `inherit` repeats in ours what broader
    /// scopes of the file ask for, but for those that reject everything, of which ours are then exceptions.
    ///
    /// # Errors
    /// Where it is none; where ours would weaken it, or change what somebody has written.
    pub fn merge(&self, text: &str, path: &str, (replace, inherit): (bool, bool), notes: &[Note]) -> Result<Merged> {
        let damaged = |reason: &dyn std::fmt::Display| {
            let hint = Some("podman takes nothing by it either: containers-policy.json(5)".to_owned());
            Error::Unavailable { reason: format!("{path} is damaged: {reason}"), hint }
        };
        let mut file: Value = serde_json::from_str(text).map_err(|e| damaged(&e))?;
        crate::strict::check(text.as_bytes()).map_err(|reason| damaged(&reason))?;
        if !file.is_object() || !file["default"].is_array() {
            return Err(damaged(&"it has no default"));
        }
        let default = file["default"].clone();
        let docker = &mut file["transports"]["docker"];
        if docker.is_null() {
            *docker = json!({});
        }
        let Some(docker) = docker.as_object_mut() else {
            return Err(damaged(&"its scopes of docker are no object"));
        };
        let mut merged = Merged::default();
        merged.notes.extend(notes.iter().filter(|note| note.policy != path).cloned());
        self.take_out(docker, path, notes, &mut merged);
        let Merged { warnings, notes: kept, .. } = &mut merged;
        // Broader ones first: narrower ones repeat what those ask for now.
        let mut scopes: Vec<&(String, Vec<Value>)> = self.scopes.iter().collect();
        scopes.sort_by_key(|(scope, _)| scope.len());
        for (scope, own) in scopes {
            let ours = noted::of(notes, (path, scope), docker.get(scope));
            let is_asked = |one: &&Value| one["type"] != ANYTHING && !self.repeats(scope, one);
            let asked: Vec<Value> = broader(docker, scope, &default).into_iter().filter(is_asked).cloned().collect();
            let is_new = docker.get(scope).is_none_or(|there| ours.is_some() && *there != json!(own));
            if !asked.is_empty() && !inherit && is_new {
                let reason =
                    format!("{path} asks for more of {scope} by a broader scope, which a narrower one would end");
                let hint = match asked.iter().any(|one| one["type"] == NOTHING) {
                    true => "--inherit accepts what our keys have signed, and the rest is rejected as before",
                    false => "--inherit repeats it in the new scope",
                };
                return Err(Error::Unavailable { reason, hint: Some(hint.to_owned()) });
            }
            // With a rejection beside ours nothing could ever pass.
            let (rejects, repeated): (Vec<Value>, Vec<Value>) = match inherit {
                true => asked.into_iter().partition(|one| one["type"] == NOTHING),
                false => Default::default(),
            };
            if !rejects.is_empty() && is_new {
                warnings
                    .push(format!("{path} rejects what is not named: of {scope} it accepts what our keys have signed"));
            }
            let wanted: Vec<Value> = repeated.into_iter().chain(own.iter().cloned()).collect();
            match docker.get(scope) {
                Some(there) if *there == json!(wanted) => kept.extend(ours.cloned()),
                Some(_) if !replace && ours.is_none() => {
                    let reason = format!("{path} has {scope} already, and it is different");
                    return Err(Error::Unavailable { reason, hint: Some("--replace changes it".into()) });
                }
                there => {
                    let mut before = there.and_then(Value::as_array).into_iter().flatten();
                    if ours.is_none() && before.any(|one| one["type"] == NOTHING) {
                        warnings.push(format!(
                            "{path} has rejected everything of {scope}: what our keys have signed is accepted"
                        ));
                    }
                    kept.push(Note {
                        policy: path.to_owned(),
                        scope: scope.clone(),
                        wrote: json!(wanted),
                        before: ours.map_or_else(|| json!(there), |note| note.before.clone()),
                    });
                    docker.insert(scope.clone(), json!(wanted));
                }
            }
            let weaker = |name: &String, list: &Value| {
                let below = name.strip_prefix(scope.as_str()).is_some_and(|rest| rest.starts_with(['/', ':', '@']));
                below
                    && !self.scopes.iter().any(|(own, _)| own == name)
                    && list.as_array().is_some_and(|list| list.iter().any(|one| one["type"] == ANYTHING))
            };
            let weaker = docker.iter().filter(|(name, list)| weaker(name, list));
            warnings.extend(weaker.map(|(name, _)| format!("{path} accepts anything of {name}, which is in {scope}")));
        }
        merged.text = serde_json::to_string_pretty(&file).map_err(|e| Error::damaged(path, e))? + "\n";
        Ok(merged)
    }

    /// Takes out what was written for scopes that are gone.
    fn take_out(&self, docker: &mut Map<String, Value>, path: &str, notes: &[Note], merged: &mut Merged) {
        let gone = |note: &&Note| note.policy == path && self.scopes.iter().all(|(scope, _)| *scope != note.scope);
        let gone: BTreeSet<&str> = notes.iter().filter(gone).map(|note| note.scope.as_str()).collect();
        for scope in gone {
            match (docker.get(scope), noted::of(notes, (path, scope), docker.get(scope))) {
                (None, _) => {}
                (Some(_), None) => {
                    merged.warnings.push(format!("{path} has {scope} as somebody has changed it: it stays"));
                    // What it was before is still to be known, should that be taken back.
                    let own = notes.iter().filter(|note| note.policy == path && note.scope == scope);
                    merged.notes.extend(own.cloned());
                }
                (Some(_), Some(note)) => {
                    docker.retain(|name, _| name != scope);
                    if !note.before.is_null() {
                        docker.insert(scope.to_owned(), note.before.clone());
                        merged
                            .warnings
                            .push(format!("{path} gets back what it asked of {scope} before that was replaced"));
                    }
                    merged.gone.push(scope.to_owned());
                }
            }
        }
    }
}

/// Returns the requirements of the narrowest scope of a file that is broader than `scope`, which is what counts of it now: the longest
/// name that it is in, else the longest wildcard of its host, else the transport's (containers-policy.json(5)).
fn broader<'a>(docker: &'a Map<String, Value>, scope: &str, default: &'a Value) -> Vec<&'a Value> {
    let wild = |name: &str| {
        let host = scope.split(['/', ':']).next().unwrap_or(scope);
        name.strip_prefix("*.").is_some_and(|end| host.strip_suffix(end).is_some_and(|rest| rest.ends_with('.')))
    };
    let rank = |name: &str| match name {
        "" => Some((0, 0)),
        _ if name == scope => None,
        _ if is_in(scope, name) => Some((2, name.len())),
        _ => wild(name).then_some((1, name.len())),
    };
    let ranked = docker.iter().filter_map(|(name, list)| Some((rank(name)?, list)));
    let narrowest = ranked.max_by_key(|(rank, _)| *rank);
    let list = narrowest.map_or(default, |(_, list)| list);
    list.as_array().into_iter().flatten().collect()
}

/// Returns whether a name is a scope or in it.
fn is_in(name: &str, scope: &str) -> bool {
    name.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_on_registry(prefix: &str) -> bool {
    let below = format!("{prefix}/x");
    below.parse::<Reference>().is_ok_and(|reference| reference.registry().is_some())
}

/// Returns what is asked for by `scope` in the scope `prefix`, which is the same or narrower.
fn requirement(scope: &Scope, prefix: &str) -> Value {
    let keys: Vec<String> = scope.rule.keys.iter().map(|key| STANDARD.encode(key.to_pem())).collect();
    let identity = match &scope.signed_as {
        Some(signed_as) => {
            // As podman calls it: what has no registry, and what is on Docker Hub.
            let local = if is_on_registry(signed_as) { "" } else { LOCALHOST };
            let rest = prefix.strip_prefix(&scope.prefix).unwrap_or_default();
            let signed = format!("{local}{signed_as}{rest}");
            json!({"type": "remapIdentity", "prefix": prefix, "signedPrefix": signed})
        }
        None => json!({"type": "matchRepository"}),
    };
    match &keys[..] {
        [key] => json!({"type": "sigstoreSigned", "keyData": key, "signedIdentity": identity}),
        keys => json!({"type": "sigstoreSigned", "keyDatas": keys, "signedIdentity": identity}),
    }
}

/// Returns where a mirror has what is in a scope: signatures are looked for there.
fn mirror_of(prefix: &str, (mirror, origin): &Mirror) -> Option<String> {
    if is_in(origin, prefix) {
        return Some(mirror.clone());
    }
    Some(mirror.clone() + prefix.strip_prefix(origin.as_str()).filter(|rest| rest.starts_with('/'))?)
}

#[cfg(test)]
#[path = "podman_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
