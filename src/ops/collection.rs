//! `collection`: a set of skills to a registry and from there, and each of its skills as an image of the store.
//!
//! Where a member of an index says that it comes from is believed only as far as its own registry confirms it: else whoever
//! makes a collection could give any content the name of somebody else's skill, and replace that.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Read as _;

use anyhow::{Context as _, Result};

use super::pull::{self, Pulled, Rule, When};
use super::verify;
use crate::card::Provenance;
use crate::collection::{self, Collection, Form, Index, Listed, MAX_YAML, Member, Origin};
use crate::error::{Error, Fault, fault_of};
use crate::image::Info;
use crate::reference::Reference;
use crate::store::layout::Layout;
use crate::store::registry::RemoteManifest;
use crate::store::remote::Remote;
use crate::store::repository::Manifest;
use crate::store::transfer::{Copying, MAX_INSTANCES};
use crate::store::{self, Found, trusted};
use crate::trust::check::{Against, Verified};
use crate::trust::policy::Rule as Trust;

mod push;

pub use push::{Options, Pushed, push};

/// What every member is fetched with.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The store.
    pub layout: &'a Layout,
    /// The registries.
    pub remote: &'a Remote,
    /// When they are asked for what has no digest.
    pub when: When,
    /// Most bytes of one image.
    pub limit: u64,
    /// How content is copied.
    pub copying: Copying<'a>,
    /// What has to hold of each beside what the policy of the machine asks for.
    pub trust: Option<&'a Trust>,
    /// As in a [`Rule`].
    pub pins: bool,
}

impl<'a> Means<'a> {
    fn rule(&self, when: When) -> Rule<'a> {
        Rule { trust: self.trust, pins: self.pins, ..Rule::new(when, self.limit) }
    }
}

impl std::fmt::Debug for Means<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").field("when", &self.when).field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// A collection that was read.
#[derive(Debug)]
pub struct Opened {
    /// What it says.
    pub collection: Collection,
    /// Where it was: a file, or its reference.
    pub origin: String,
    /// The image that it was; nothing for a file.
    pub image: Option<Image>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Registries that did not answer when they were asked about a member, and are not asked again what would only be good to know.
    silent: RefCell<BTreeSet<String>>,
    /// Whether registries other than the collection's own are left alone.
    alone: bool,
}

/// The image of a collection.
#[derive(Debug)]
pub struct Image {
    /// Its reference.
    pub reference: Reference,
    /// The digest of its manifest.
    pub digest: String,
    /// How it is kept.
    pub form: Form,
    /// Whether it came from the registry just now.
    pub fetched: bool,
    /// Who has signed it, where anybody asks.
    pub verified: Option<Verified>,
    /// The members of an index, and whether the store has all of them.
    listed: (Vec<Listed>, bool),
}

/// A member that is in the store.
#[derive(Debug)]
pub struct Fetched {
    /// The image.
    pub found: Found,
    /// What it is installed as.
    pub reference: Reference,
    /// What its name stood for before, where that was another image.
    pub moved_from: Option<String>,
    /// Whether it came from a registry just now.
    pub fetched: bool,
    /// Who has signed it, where anybody asks.
    pub verified: Option<Verified>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// The commit that it was built from just now, where it is from Git.
    pub git: Option<Provenance>,
}

impl Fetched {
    /// Returns an image of the store that nobody has looked at yet.
    pub fn here(found: Found, reference: Reference) -> Self {
        let (moved_from, fetched, verified, warnings, git) = (None, false, None, Vec::new(), None);
        Self { found, reference, moved_from, fetched, verified, warnings, git }
    }
}

impl Opened {
    /// Returns a collection that is a file.
    ///
    /// # Errors
    /// As [`Collection::parse`].
    pub fn file(bytes: &[u8], origin: &str) -> Result<Self, Error> {
        let collection = Collection::parse(bytes, origin)?;
        Ok(Self::new(collection, origin.to_owned(), None))
    }

    fn new(collection: Collection, origin: String, image: Option<Image>) -> Self {
        Self { collection, origin, image, warnings: Vec::new(), silent: RefCell::default(), alone: false }
    }

    fn image(
        collection: Collection,
        (reference, digest): (&Reference, &str),
        form: Form,
        listed: (Vec<Listed>, bool),
    ) -> Self {
        let (reference, digest) = (reference.clone(), digest.to_owned());
        let image = Image { reference, digest, form, fetched: false, verified: None, listed };
        Self::new(collection, image.reference.to_string(), Some(image))
    }

    /// Says who has signed it.
    fn verified(mut self, verified: Option<Verified>) -> Self {
        self.warnings.extend(verified.iter().flat_map(|verified| verified.warnings.clone()));
        if let Some(image) = &mut self.image {
            image.verified = verified;
        }
        self
    }
}

/// Opens a collection of the store; `pins` as in a [`Rule`].
///
/// # Errors
/// If it is not there, damaged, or no collection; [`Error::NotVerified`].
pub fn stored(layout: &Layout, text: &str, pins: bool) -> Result<Opened> {
    let found = store::open(layout, text)?;
    let verified = trusted::found(layout, &found, text, None)?;
    let reference = trusted::called(&found, text)?;
    if pins {
        trusted::pin(layout, &reference, verified.as_ref())?;
    }
    Ok(read(layout, &found, &reference)?.verified(verified))
}

fn read(layout: &Layout, found: &Found, reference: &Reference) -> Result<Opened> {
    let object = reference.to_string();
    let named = (reference, found.entry.digest());
    match collection::form(&found.manifest, &object)? {
        Form::Index => {
            let Index { collection, listed } = collection::read_index(&found.manifest, reference)?;
            let here = listed.iter().all(|one| layout.all().any(|store| store.has_whole(&one.descriptor)));
            Ok(Opened::image(collection, named, Form::Index, (listed, here)))
        }
        Form::Artifact => artifact(layout, &found.info, reference, found.entry.digest()),
    }
}

/// Reads a collection of the store that is a file.
///
/// # Errors
/// If it is damaged, or no collection.
pub fn artifact(layout: &Layout, info: &Info, reference: &Reference, digest: &str) -> Result<Opened> {
    let object = reference.to_string();
    let layer = collection::layer(info, &object)?;
    let mut bytes = Vec::new();
    // Verified while it is read; that it is not larger was looked at.
    layout.open_blob(layer)?.take(MAX_YAML as u64 + 1).read_to_end(&mut bytes).context("Reading its layer")?;
    let collection = Collection::parse(&bytes, &object)?;
    Ok(Opened::image(collection, (reference, digest), Form::Artifact, (Vec::new(), false)))
}

/// Fetches a collection into the store; an index with all that it lists, where that can be.
///
/// # Errors
/// If it cannot be had by the rule of `means.when`, or is no collection; [`Error::NotVerified`].
pub fn open(means: &Means<'_>, reference: &Reference) -> Result<Opened> {
    let Means { layout, remote, when, copying, .. } = *means;
    // What is no collection does not come at all, and may be large. Where nobody answers, the pull says what to do.
    let seen = match when {
        When::Always | When::Newer => remote.registry.manifest(reference).ok().flatten(),
        When::Missing | When::Never => None,
    };
    // The flags are for its members.
    let rule = Rule { trust: None, ..means.rule(when) };
    let mut apart = None;
    if let Some(seen) = seen
        && collection::form(&seen.bytes, &reference.to_string())? == Form::Index
    {
        let index = collection::read_index(&seen.bytes, reference)?;
        let whole = collection::whole(&index, MAX_INSTANCES);
        let mut opened = Opened::image(index.collection, (reference, &seen.digest), Form::Index, (index.listed, false));
        if !whole {
            opened
                .warnings
                .push(format!("{reference} is not kept in the store: it has no true sizes, or is too large"));
            return Ok(opened.verified(held_to_policy(means, reference, seen)?));
        }
        apart = Some((opened, seen));
    }
    match (pull::pull((layout, remote), reference, rule, copying), apart) {
        (Ok(pulled), _) => {
            let found = store::read(layout, pulled.entry)?;
            let mut opened = read(layout, &found, reference)?;
            opened.warnings.extend(pulled.warnings);
            if let Some(image) = &mut opened.image {
                (image.verified, image.fetched) = (pulled.verified, pulled.fetched);
            }
            Ok(opened)
        }
        // A registry that lost a member, or never had it, may have the others.
        (Err(e), Some((mut apart, seen))) if fault_of(&e) == Some(Fault::NotFound) => {
            apart.warnings.push(format!("{reference} is not kept in the store: {e:#}"));
            Ok(apart.verified(held_to_policy(means, reference, seen)?))
        }
        (Err(e), _) => Err(e),
    }
}

/// Holds an index that does not come into the store to what the policy asks of it, as the pull does that brings others.
fn held_to_policy(means: &Means<'_>, reference: &Reference, seen: RemoteManifest) -> Result<Option<Verified>> {
    let (layout, against) = (means.layout, Against { given: None, policy: means.layout.policy() });
    let verified = verify::seen((&means.remote.registry, Some(layout)), reference, || Ok(seen), against)?;
    if means.pins {
        trusted::pin(layout, reference, verified.as_ref())?;
    }
    Ok(verified)
}

impl Opened {
    /// Leaves all registries alone but the collection's own, where that is enough: where the store has all members. Returns
    /// whether it is.
    pub fn ask_nobody_else(&mut self) -> bool {
        self.alone = self.image.as_ref().is_some_and(|image| image.listed.1);
        self.alone
    }

    /// Returns whether the registry of a member may not be asked for anything.
    fn is_left_alone(&self, member: &Reference) -> bool {
        let own = self.image.as_ref().and_then(|image| image.reference.registry());
        self.alone && member.registry() != own
    }

    /// Returns whether the registry of a member is not asked for what would only be good to know.
    fn is_silent(&self, member: &Reference) -> bool {
        self.is_left_alone(member) || self.silent.borrow().contains(member.registry().unwrap_or_default())
    }

    fn did_not_answer(&self, member: &Reference) {
        self.silent.borrow_mut().insert(member.registry().unwrap_or_default().to_owned());
    }

    /// Fetches the image of a member into the store.
    ///
    /// # Errors
    /// If it has none, or it cannot be had; [`Error::NotVerified`].
    pub fn fetch(&self, means: &Means<'_>, at: usize) -> Result<Fetched> {
        let member = self.collection.members.get(at).context("There is no such member")?;
        let Origin::Image(reference) = &member.from else {
            let reason = format!("{}: it is no image", member.label());
            return Err(Error::Unavailable { reason, hint: None }.into());
        };
        let mut fetched = match self.image.as_ref().and_then(|image| Some((image, image.listed.0.get(at)?))) {
            Some((image, listed)) => self.listed(means, image, member, listed),
            None => self.pulled(means, reference),
        }?;
        // What was here, and what came with its index, nobody has held to anything yet.
        if fetched.verified.is_none() {
            let image = (fetched.found.entry.digest(), &fetched.found.info);
            fetched.verified = trusted::check(means.layout, &fetched.reference, image, means.trust)?;
        }
        if means.pins {
            trusted::pin(means.layout, &fetched.reference, fetched.verified.as_ref())?;
        }
        Ok(fetched)
    }

    /// Fetches an image by its own reference: by its digest where it has one.
    fn pulled(&self, means: &Means<'_>, reference: &Reference) -> Result<Fetched> {
        if reference.registry().is_none() {
            let text = reference.to_string();
            let found = store::open(means.layout, &text)?;
            // A digest is no name, and has that of what it is of.
            let reference = trusted::asked(&found, &text, None).unwrap_or_else(|_| reference.clone().or_latest());
            return Ok(Fetched::here(found, reference));
        }
        let is_left_alone = self.is_left_alone(reference);
        let when = match (reference.digest(), means.when) {
            _ if is_left_alone => When::Never,
            // A digest never stands for anything else.
            (Some(_), When::Always | When::Newer) => When::Missing,
            (_, when) => when,
        };
        let pulled = pull::pull((means.layout, means.remote), reference, means.rule(when), means.copying);
        let pulled = pulled.map_err(|e| match is_left_alone {
            true => e.context(format!("{} is not asked", reference.registry().unwrap_or_default())),
            false => e,
        })?;
        let mut fetched = fetched(means.layout, pulled, installed_as(reference)?)?;
        if means.when != When::Never {
            fetched.warnings.extend(self.moved(means, reference).err());
        }
        Ok(fetched)
    }

    /// Fetches a member of an index: what its repository has, else by its own reference.
    fn listed(&self, means: &Means<'_>, image: &Image, member: &Member, listed: &Listed) -> Result<Fetched> {
        if let Some(own) = &listed.own
            && (means.trust.is_some() || !means.layout.policy().rules(own)?.is_empty())
        {
            // Its signatures are where it is from, and for that name: by another one it would be held to less.
            return self.pulled(means, own);
        }
        let digest = listed.descriptor.digest().to_string();
        let here = image.reference.with_digest(&digest)?;
        let confirmed = || listed.own.as_ref().map(|own| (own, self.confirmed(means, own)));
        let (mut found, confirmed) = if image.listed.1 {
            let confirmed = confirmed();
            // By the name that is confirmed, nothing is asked of it.
            let is_confirmed = matches!(confirmed, Some((_, Ok(_))));
            (self.kept(means, (listed, &here), is_confirmed)?, confirmed)
        } else {
            let pulled = match listed.descriptor.size() {
                0 => Err(Error::ImageNotFound(here.to_string()).into()),
                _ => pull::pull((means.layout, means.remote), &here, means.rule(When::Missing), means.copying),
            };
            match (pulled, &listed.own) {
                (Err(_), Some(own)) => return self.pulled(means, own),
                (pulled, _) => (fetched(means.layout, pulled?, here.clone())?, confirmed()),
            }
        };
        match confirmed {
            Some((own, Ok(warning))) => {
                (found.reference, found.verified) = (installed_as(own)?, None);
                found.warnings.extend(warning);
            }
            Some((_, Err(why))) => found.warnings.push(format!(
                "{}: {why}, so that it counts as {here}, and is not upgraded from there",
                member.label()
            )),
            None => {}
        }
        Ok(found)
    }

    /// Returns a member that came with its index, and gives it a name of its own by which it stays when the index goes. It is held to
    /// what is asked of that name, unless it is confirmed to have another.
    fn kept(&self, means: &Means<'_>, (listed, name): (&Listed, &Reference), is_confirmed: bool) -> Result<Fetched> {
        let layout = means.layout;
        let _writing = layout.writing()?;
        layout.bring(&listed.descriptor)?;
        let manifest = Manifest::new(listed.descriptor.digest().as_ref(), layout.read_json(&listed.descriptor)?)?;
        let verified = match is_confirmed {
            false => trusted::check(layout, name, (&manifest.digest, &manifest.info), means.trust)?,
            true => None,
        };
        let entry = pull::store_as(layout, name, &manifest, true)?;
        let found = store::read(layout, entry)?;
        Ok(Fetched { verified, ..Fetched::here(found, name.clone()) })
    }

    /// Asks the registry that a member of an index comes from whether it does. Returns a warning where its tag has moved,
    /// and as an error why it is not known to.
    fn confirmed(&self, means: &Means<'_>, own: &Reference) -> Result<Option<String>, String> {
        let unknown = || format!("{own} cannot be looked at");
        if means.when == When::Never || self.is_silent(own) {
            return Err(unknown());
        }
        let warning = match self.moved(means, own) {
            Ok(true) => return Ok(None),
            Ok(false) => None,
            Err(warning) => Some(warning),
        };
        if self.is_silent(own) {
            return Err(unknown());
        }
        let digest = own.digest().and_then(|digest| own.with_digest(digest).ok());
        match digest.map(|by_digest| means.remote.registry.digest(&by_digest)) {
            Some(Ok(Some(_))) => Ok(warning),
            Some(Ok(None)) => Err(format!("{} does not have it", own.name())),
            _ => {
                self.did_not_answer(own);
                Err(unknown())
            }
        }
    }

    /// Returns whether the tag of a pinned reference is known to name what it is pinned to; as an error, a warning where it
    /// names something else.
    fn moved(&self, means: &Means<'_>, reference: &Reference) -> Result<bool, String> {
        let (Some(tag), Some(digest)) = (reference.tag(), reference.digest()) else { return Ok(false) };
        let Ok(tagged) = reference.with_tag(tag) else { return Ok(false) };
        if self.is_silent(reference) {
            return Ok(false);
        }
        match means.remote.registry.digest(&tagged) {
            Ok(Some(now)) if now == digest => Ok(true),
            Ok(Some(now)) => Err(format!("{tagged} is {now} by now; {} says {digest}, which is taken", self.origin)),
            Ok(None) => Ok(false),
            // The image is here, and this would only be good to know.
            Err(_) => {
                self.did_not_answer(reference);
                Ok(false)
            }
        }
    }
}

fn fetched(layout: &Layout, pulled: Pulled, reference: Reference) -> Result<Fetched> {
    let Pulled { entry, moved_from, warnings, fetched, verified, .. } = pulled;
    let found = store::read(layout, entry)?;
    Ok(Fetched { moved_from, warnings, fetched, verified, ..Fetched::here(found, reference) })
}

/// Returns what a receipt says: the tag, whose repository the upgrades come from, and not the digest, which the receipt has
/// anyway and the Go tool would take for a part of the name.
fn installed_as(reference: &Reference) -> Result<Reference, Error> {
    match reference.tag() {
        Some(tag) => reference.with_tag(tag),
        None => Ok(reference.clone().or_latest()),
    }
}
