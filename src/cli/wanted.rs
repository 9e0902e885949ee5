//! What the skills that a project wants are exactly: images of a registry or of the store, or commits that become images.

use anyhow::{Context as _, Result};

use super::build;
use super::install::{built, fetch, unpack_options};
use super::pull::When;
use super::registry::RegistryArgs;
use super::shell::Shell;
use crate::card::Provenance;
use crate::error::Error;
use crate::limits::Limits;
use crate::lockfile::{Git, LOCK, Locked, Wanted};
use crate::ops::contents::Contents;
use crate::ops::installed::Row;
use crate::ops::sync::Resolved;
use crate::ops::upgrade::{Sources, newest};
use crate::reference::{Reference, is_digest};
use crate::source::{Filter, GitSource};
use crate::store::Found;
use crate::store::layout::Layout;

/// Where they are looked up.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    pub shell: &'a Shell,
    pub registry: &'a RegistryArgs,
}

impl Lookup<'_> {
    /// Returns the skills that a reference asks for; those of a repository with what was built of them.
    ///
    /// An address may have credentials, which no wanted skill has: it cannot be fetched by that again.
    pub fn wanted(&self, layout: &Layout, text: &str, paths: &[String]) -> Result<Vec<(Wanted, Option<Resolved>)>> {
        if let Some(source) = GitSource::parse(text) {
            let ready = |(name, found, git): (String, Found, Git)| {
                let wanted = Wanted::of_git(&name, &git, paths.to_vec());
                let reference = found.entry.name.as_deref().unwrap_or_default().parse()?;
                Ok((wanted, Some(Resolved { found, reference, git: Some(git) })))
            };
            return self.commit(layout, &source?)?.into_iter().map(ready).collect();
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
        let found = found.ok_or_else(|| Error::Unavailable {
            reason: format!("{repository} has no published version"),
            hint: Some(format!("skillctl list --remote {repository} shows what is there; name a tag")),
        })?;
        Ok(found.reference)
    }

    fn fetch(&self, layout: &Layout, text: &str) -> Result<(Found, Reference)> {
        fetch(self.shell, layout, text, (When::Newer, Limits::default().size), self.registry)
    }

    /// Returns the image of a wanted skill, and its reference: what is locked, or else what it stands for now.
    pub fn image(&self, layout: &Layout, wanted: &Wanted, locked: Option<&Locked>) -> Result<Resolved> {
        if let Some(git) = wanted.git()? {
            return self.built(layout, git, wanted, locked);
        }
        if let Some(locked) = locked {
            let reference = locked.reference()?;
            let exact = reference.with_digest(&locked.source.digest)?;
            let limits = (When::Missing, Limits::default().size);
            let image = match crate::store::open(layout, &locked.source.digest) {
                Ok(found) => Ok((found, exact)),
                Err(_) => fetch(self.shell, layout, &exact.to_string(), limits, self.registry),
            };
            let (found, _) = image.with_context(|| {
                let name = &locked.name;
                format!("{LOCK} has {} (skillctl update {name} looks for another)", locked.source.reference)
            })?;
            return Ok(Resolved { found, reference, git: None });
        }
        let repository = wanted.repository()?;
        let reference = match &wanted.version {
            None => self.newest(&repository)?,
            Some(digest) if is_digest(digest) => repository.with_digest(digest)?,
            Some(tag) => repository.with_tag(tag)?,
        };
        let (found, reference) = self.fetch(layout, &reference.to_string())?;
        Ok(Resolved { found, reference, git: None })
    }

    /// Returns the image that was built from a commit: the one of the store where that is locked, else a new one.
    fn built(&self, layout: &Layout, source: GitSource, wanted: &Wanted, locked: Option<&Locked>) -> Result<Resolved> {
        let git = locked.and_then(|locked| locked.git.clone());
        if let (Some(locked), Some(git)) = (locked, &git)
            && let Ok(found) = crate::store::open(layout, &locked.source.digest)
        {
            return Ok(Resolved { found, reference: locked.reference()?, git: Some(git.clone()) });
        }
        let requested = source.reference.clone();
        let source = match &git {
            Some(git) => source.with_reference(&git.commit)?,
            None => source,
        };
        let all = self.commit(layout, &source)?;
        let one = all.into_iter().find(|(name, _, git)| {
            *name == wanted.name && Some(git.path.as_str()) == wanted.path.as_deref().or(Some(""))
        });
        let missing =
            || Error::Unavailable { reason: format!("{source:?} has no skill {} any more", wanted.name), hint: None };
        let (_, found, git) = one.ok_or_else(missing)?;
        let reference = found.entry.name.as_deref().unwrap_or_default().parse()?;
        Ok(Resolved { found, reference, git: Some(Git { reference: requested, ..git }) })
    }

    /// Builds the skills of a commit, and returns them with their names.
    fn commit(&self, layout: &Layout, source: &GitSource) -> Result<Vec<(String, Found, Git)>> {
        let cancel = self.shell.cancel();
        let unpack = unpack_options(Limits::default().size, &cancel);
        let gathered = build::fetch(self.shell, layout, source, (&Filter::default(), unpack.limits))?;
        self.shell.warnings(&gathered.warnings);
        let mut all = Vec::new();
        for (found, origin) in built(self.shell, layout, &gathered, &unpack)? {
            let Provenance { source: url, commit, path } = origin;
            let name = found.info.skill_name().unwrap_or_default().to_owned();
            all.push((name, found, Git { url, reference: gathered.reference.clone(), commit, path }));
        }
        Ok(all)
    }
}
