//! What the skills that a project wants are exactly: images of a registry or of the store, or commits that become images.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, Result};

use super::gather::{address, fetch as fetch_repository, gather};
use super::install::{Made, built, fetch, unpack_options};
use super::registry::RegistryArgs;
use super::shell::Shell;
use super::verify::check_unsigned;
use crate::address::Address;
use crate::card::Provenance;
use crate::error::Error;
use crate::limits::Limits;
use crate::lockfile::{LOCK, Locked, Origin, Wanted};
use crate::ops::contents::Contents;
use crate::ops::gather::from_repository;
use crate::ops::installed::Row;
use crate::ops::pull::{Rule, When};
use crate::ops::sync::Resolved;
use crate::ops::upgrade::{Sources, newest};
use crate::reference::{Reference, is_digest};
use crate::source::git::Repository;
use crate::source::{Filter, GitSource};
use crate::store::Found;
use crate::store::layout::Layout;
use crate::trust::policy::Rule as Trust;

/// Where they are looked up.
pub struct Lookup<'a> {
    pub shell: &'a Shell,
    pub registry: &'a RegistryArgs,
    /// What has to hold of the images, beside the policy.
    trust: Option<&'a Trust>,
    /// The root of the project.
    pub project: &'a Path,
    /// Those that were fetched.
    repositories: RefCell<Vec<(Revision, Rc<Repository>)>>,
}

/// A repository at a revision: its address, the open part of that, and the revision.
type Revision = (String, Option<String>, Option<String>);

impl<'a> Lookup<'a> {
    /// Returns what looks up the skills of a project.
    pub fn new(shell: &'a Shell, (registry, trust): (&'a RegistryArgs, Option<&'a Trust>), project: &'a Path) -> Self {
        Self { shell, registry, trust, project, repositories: RefCell::default() }
    }

    /// Returns the skills that a reference asks for; those that are no images yet with what was built of them.
    ///
    /// An address may have credentials, which no wanted skill has: it cannot be fetched by that again.
    pub fn wanted(&self, layout: &Layout, text: &str, paths: &[String]) -> Result<Vec<(Wanted, Option<Resolved>)>> {
        if let Some(address) = address(text)? {
            check_unsigned(self.trust)?;
            let ready = |(name, resolved, origin): (String, Resolved, Origin)| {
                (Wanted::of(&name, &origin, paths.to_vec()), Some(resolved))
            };
            return Ok(self.built(layout, &self.in_project(address)?)?.into_iter().map(ready).collect());
        }
        let given = text.strip_prefix("docker://").unwrap_or(text);
        let typed = given.parse::<Reference>().ok();
        let free = typed.as_ref().is_some_and(|typed| typed.tag().is_none() && typed.digest().is_none());
        let (found, reference) = match typed.filter(|_| free) {
            // No tag: the newest published version, whatever `latest` is.
            Some(repository) => {
                let repository = if text == given { repository } else { repository.on_registry()? };
                let newest = self.newest(&repository)?;
                self.fetch(layout, &newest.to_string())?
            }
            None => self.fetch(layout, text)?,
        };
        let version = if free { None } else { reference.digest().or(reference.tag()) };
        let cancel = self.shell.cancel();
        let unpack = unpack_options(Limits::default().size, &cancel);
        let contents = Contents::of(layout, &found.entry.descriptor, &unpack)?;
        let names = contents.names(&found.info, &reference);
        Ok(names.into_iter().map(|name| (Wanted::new(name, &reference, version, paths.to_vec()), None)).collect())
    }

    /// Returns the newest published version of a repository.
    fn newest(&self, repository: &Reference) -> Result<Reference> {
        let client = self.registry.registry(self.shell)?;
        let layout = self.shell.existing_store()?;
        let sources = Sources { registry: &client, layout: layout.as_ref() };
        let row = Row {
            name: repository.basename().to_owned(),
            // Below every version.
            version: "0.0.0-0".to_owned(),
            source: repository.to_string(),
            ..Row::default()
        };
        let found = newest(sources, &[row]).pop().transpose()?.flatten();
        match (found, repository.registry()) {
            (Some(found), _) => Ok(found.reference),
            (None, Some(_)) => {
                let reason = format!("{repository} has no published version");
                let hint = Some(format!("skillctl list --remote {repository} shows what is there; name a tag"));
                Err(Error::Unavailable { reason, hint }.into())
            }
            (None, None) => Err(unpublished(layout.as_ref(), repository)?.into()),
        }
    }

    fn rule(&self, when: When) -> Rule<'a> {
        Rule { trust: self.trust, ..Rule::looking(when, Limits::default().size) }
    }

    fn fetch(&self, layout: &Layout, text: &str) -> Result<(Found, Reference)> {
        fetch(self.shell, layout, text, self.rule(When::Newer), self.registry)
    }

    /// Returns the image of a wanted skill, and its reference: what is locked, or else what it stands for now.
    pub fn image(&self, layout: &Layout, wanted: &Wanted, locked: Option<&Locked>) -> Result<Resolved> {
        if let Some(address) = wanted.address()? {
            return self.made(layout, address, wanted, locked);
        }
        if let Some(locked) = locked {
            let reference = locked.reference()?;
            let exact = reference.with_digest(&locked.source.digest)?;
            let image = match crate::store::open(layout, &locked.source.digest) {
                Ok(found) if layout.policy().is_empty() && self.trust.is_none() => Ok((found, exact)),
                _ => fetch(self.shell, layout, &exact.to_string(), self.rule(When::Missing), self.registry),
            };
            let (found, _) = image.with_context(|| {
                let name = &locked.name;
                format!("{LOCK} has {} (skillctl update {name} looks for another)", locked.source.reference)
            })?;
            return Ok(Resolved { found, reference, origin: None });
        }
        let repository = wanted.repository()?;
        let reference = match &wanted.version {
            None => self.newest(&repository)?,
            Some(digest) if is_digest(digest) => repository.with_digest(digest)?,
            Some(tag) => repository.with_tag(tag)?,
        };
        let (found, reference) = self.fetch(layout, &reference.to_string())?;
        Ok(Resolved { found, reference, origin: None })
    }

    /// Returns the image that was built from a source: the one of the store where that is locked, else a new one.
    fn made(&self, layout: &Layout, address: Address, wanted: &Wanted, locked: Option<&Locked>) -> Result<Resolved> {
        check_unsigned(self.trust)?;
        let origin = locked.and_then(|locked| locked.origin.clone());
        if let (Some(locked), Some(origin)) = (locked, &origin)
            && !matches!(address, Address::Local(_))
            && let Ok(found) = crate::store::open(layout, &locked.source.digest)
        {
            return Ok(Resolved { found, reference: locked.reference()?, origin: Some(origin.clone()) });
        }
        let address = match (address, &origin) {
            (Address::Git(source), Some(origin)) => Address::Git(Box::new(source.with_reference(&origin.commit)?)),
            (address, _) => address,
        };
        let is_wanted = |(name, _, origin): &(String, Resolved, Origin)| {
            *name == wanted.name && wanted.path.as_deref().unwrap_or_default() == origin.path
        };
        let missing = || Error::Unavailable { reason: format!("{address} has no skill {}", wanted.name), hint: None };
        let (_, resolved, made) = self.built(layout, &address)?.into_iter().find(is_wanted).ok_or_else(missing)?;
        if let Some(before) = origin.filter(|before| before.commit != made.commit) {
            let reason = format!("{address} is {} now, and {LOCK} has {}", made.commit, before.commit);
            let hint = Some(format!("skillctl update {} takes what is there", wanted.name));
            return Err(Error::Unavailable { reason, hint }.into());
        }
        let origin = Origin { source: wanted.source.clone(), reference: wanted.version.clone(), ..made };
        Ok(Resolved { origin: Some(origin), ..resolved })
    }

    /// Builds the skills of a source, and returns them with their names.
    fn built(&self, layout: &Layout, address: &Address) -> Result<Vec<(String, Resolved, Origin)>> {
        let cancel = self.shell.cancel();
        let unpack = unpack_options(Limits::default().size, &cancel);
        let gathered = match address {
            Address::Git(source) => {
                let repository = self.repository(layout, source)?;
                // Where the address left open which part of it is the directory, that is known by now.
                let path = if source.tree.is_some() { &repository.source.path } else { &source.path };
                from_repository(layout, &repository, path, &Filter::default(), unpack.limits)?
            }
            address => {
                let at = (layout, Some(self.project));
                gather(self.shell, at, address, (&Filter::default(), unpack.limits), self.registry)?
            }
        };
        self.shell.warnings(&gathered.warnings);
        let mut all = Vec::new();
        for Made { found, reference, origin } in built(self.shell, layout, &gathered, &unpack)? {
            let Provenance { source, commit, path } = origin;
            let name = found.info.skill_name().unwrap_or_default().to_owned();
            let origin = Origin { source, reference: gathered.reference.clone(), commit, path };
            all.push((name, Resolved { found, reference, origin: Some(origin.clone()) }, origin));
        }
        Ok(all)
    }

    /// Returns a repository at a revision, fetched once however many of its skills are wanted.
    fn repository(&self, layout: &Layout, source: &GitSource) -> Result<Rc<Repository>> {
        let key = (source.shown.clone(), source.tree.clone(), source.reference.clone());
        if let Some((_, known)) = self.repositories.borrow().iter().find(|(own, ..)| *own == key) {
            return Ok(Rc::clone(known));
        }
        let repository = Rc::new(fetch_repository(self.shell, layout, source)?);
        self.repositories.borrow_mut().push((key, Rc::clone(&repository)));
        Ok(repository)
    }

    /// Names a path from the root of the project, as its files do.
    fn in_project(&self, address: Address) -> Result<Address> {
        let Address::Local(text) = address else { return Ok(address) };
        let shown = || format!("{text} is not in the project, {}", self.project.display());
        let path = std::fs::canonicalize(&text).with_context(|| text.clone())?;
        let root = std::fs::canonicalize(self.project).with_context(|| self.project.display().to_string())?;
        let hint = Some("a file of a project can name only what is in there".to_owned());
        let below = path.strip_prefix(root).map_err(|_| Error::Unavailable { reason: shown(), hint })?;
        Ok(Address::Local(format!("./{}", below.display())))
    }
}

/// Says what the store has in place of a published version.
fn unpublished(layout: Option<&Layout>, repository: &Reference) -> Result<Error> {
    let entries = layout.map(Layout::all_entries).transpose()?.unwrap_or_default();
    let names = entries.into_iter().filter_map(|entry| entry.name);
    let own = names.filter(|name| name.parse::<Reference>().is_ok_and(|own| own.name() == repository.name())).max();
    Ok(match own {
        Some(name) => Error::Unavailable {
            reason: format!("{repository} has no published version in the store"),
            hint: Some(format!("name a tag: skillctl add {name}")),
        },
        None => Error::Unavailable {
            reason: format!("the store has no {repository}, and no registry is in the name"),
            hint: Some("skillctl list shows what is there; an image of a registry has that in its name".into()),
        },
    })
}
