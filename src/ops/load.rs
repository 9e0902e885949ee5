//! `load -i`: the images of a layout that somebody brings, into the store: verified before anything has a name, and all or none.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use super::immutable;
use crate::error::Error;
use crate::process::Cancel;
use crate::reference::Reference;
use crate::store::layout::{Entry, Layout, entry_name};
use crate::store::repository::Manifest;
use crate::store::set::{self, Member, Source};
use crate::store::trusted::{held_to_first, pin};
use crate::store::{self, attached, index};
use crate::trust::attestation::Attestations;
use crate::trust::check::{Against, Verified, check};
use crate::trust::policy::Rule as Trust;
use crate::trust::verify::{Signatures, Signer};

/// An image that is in the store.
#[derive(Debug, Clone, Serialize)]
pub struct Entered {
    /// Its entry.
    #[serde(skip)]
    pub entry: Entry,
    /// Its name.
    pub reference: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Whether it was verified.
    pub verified: bool,
    /// The signatures that hold, where they were looked at.
    pub signers: Vec<Signer>,
    /// The same, with all that was found.
    #[serde(skip)]
    pub check: Option<Verified>,
    /// Whether it is one that containers-storage takes.
    #[serde(skip)]
    pub is_loadable: bool,
}

/// How a set is taken in.
#[derive(Debug, Clone, Copy)]
pub struct Rule<'a> {
    /// What has to hold of every image beside what the policy of the machine asks for.
    pub trust: Option<&'a Trust>,
    /// Whether published tags may get other content.
    pub force: bool,
}

/// What returns the content of a blob by its digest, with the size that it is said to have.
pub type Blob<'a> = dyn Fn(&str, u64) -> Result<Vec<u8>, Error> + 'a;

/// Enters images of a layout in the store, all unless some are named, with what belongs to them. Either all get their names, in one
/// step, or none.
///
/// # Errors
/// If one is not there, is not whole, is not verified ([`Error::NotVerified`]), or its tag is published with other content.
pub fn enter(
    layout: &Layout,
    source: &Source,
    wanted: &[String],
    rule: Rule<'_>,
    cancel: &Cancel,
) -> Result<Vec<Entered>> {
    let members = select(source, set::read(source)?, wanted)?;
    let (mut entered, mut firsts) = (Vec::new(), BTreeMap::new());
    let blob = |digest: &str, size| source.blob(digest, size);
    for member in &members {
        let check = verified(layout, (member, &blob), rule.trust, &mut firsts)?;
        let mut entry = Entry { name: Some(member.name.to_string()), descriptor: member.manifest.descriptor()? };
        entry.descriptor.set_annotations(None);
        entered.push(Entered {
            entry,
            reference: member.name.to_string(),
            digest: member.manifest.digest.clone(),
            verified: check.as_ref().is_some_and(|check| !check.signers.is_empty()),
            signers: check.as_ref().map(|check| check.signers.clone()).unwrap_or_default(),
            check,
            is_loadable: member.manifest.info.is_loadable(),
        });
    }
    let _writing = layout.writing()?;
    source.take(layout, &members, cancel)?;
    layout.update(|entries| add(layout, entries, &members, rule.force))?;
    // Now that nothing refuses the set any more; another process may have been faster with another signer.
    for (member, entered) in members.iter().zip(&entered) {
        pin(layout, &member.name, entered.check.as_ref())?;
    }
    Ok(entered)
}

/// Returns the images that are wanted.
fn select(source: &Source, members: Vec<Member>, wanted: &[String]) -> Result<Vec<Member>> {
    if members.is_empty() {
        return Err(source.refused("it has no image with a name").into());
    }
    if wanted.is_empty() {
        return Ok(members);
    }
    let entry = |member: &Member| -> Result<Entry, Error> {
        Ok(Entry { name: Some(member.name.to_string()), descriptor: member.manifest.descriptor()? })
    };
    let entries = members.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let find = |text: &String| match store::find(&entries, text) {
        Ok(entry) => Ok(entry.name.unwrap_or_default()),
        Err(Error::ImageNotFound(what)) => Err(source.refused(format!("it has no {what}"))),
        Err(e) => Err(e),
    };
    let names = wanted.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    Ok(members.into_iter().filter(|member| names.contains(&member.name.to_string())).collect())
}

/// Verifies an image of a set by what came with it, of which `blob` returns the content, and by those of the set before it: `firsts` has
/// whom they would pin their repositories to.
///
/// # Errors
/// [`Error::NotVerified`]; those of `blob`.
pub fn verified(
    layout: &Layout,
    (member, blob): (&Member, &Blob<'_>),
    given: Option<&Trust>,
    firsts: &mut BTreeMap<String, String>,
) -> Result<Option<Verified>> {
    let Manifest { digest, info, .. } = &member.manifest;
    let rules = Against { given, policy: layout.policy() }.rules(&member.name)?;
    if rules.is_empty() {
        return Ok(None);
    }
    let own = || member.attached.iter().filter(|one| one.subject == *digest);
    let mut signatures = Signatures::default();
    for one in own() {
        signatures.add(&one.manifest.bytes, blob)?;
    }
    let attestations = || {
        let mut attestations = Attestations::default();
        for one in own() {
            attestations.add(&one.manifest.bytes, blob)?;
        }
        Ok(attestations)
    };
    let verified = check((&signatures, &attestations), &member.name, (digest, info), &rules)?.verified;
    held_to_first((layout, firsts), &member.name, &verified, &rules)?;
    Ok(Some(verified))
}

/// Adds images and what belongs to them to the entries of the store, unless a tag is published with other content.
fn add(layout: &Layout, entries: &mut Vec<Value>, members: &[Member], force: bool) -> Result<()> {
    let mut held = HashMap::new();
    if !force {
        for entry in &*entries {
            if let Some(Ok(name)) = entry_name(entry).map(str::parse::<Reference>) {
                held.insert(name.or_latest(), entry);
            }
        }
    }
    let mut named = Vec::new();
    for member in members {
        let entry = member.manifest.entry();
        if let Some(held) = held.get(&member.name) {
            immutable::check_entry(layout, &member.name, held, &entry).context("Nothing was loaded")?;
        }
        named.push((member.name.clone(), entry));
    }
    index::put_names(entries, named);
    for one in members.iter().flat_map(|member| &member.attached) {
        attached::enter(layout, entries, one)?;
    }
    Ok(())
}
