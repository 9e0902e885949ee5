//! `sync`: what a project has installed is what its `skills.json` and `skills.lock.json` say.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cap_std::fs::{Dir, OpenOptions};
use nix::fcntl::Flock;
use nix::unistd::fsync;
use serde::Serialize;

use super::build;
use super::contents::Contents;
use super::drift::{Difference, differences};
use super::install::{self, Installed, Options, Source};
use super::uninstall::{self, Uninstalled};
use crate::address::Address;
use crate::card::Provenance;
use crate::error::Error;
use crate::frontmatter::FILE as SKILL_FILE;
use crate::layer::UnpackOptions;
use crate::lock::{How, lock_dir};
use crate::lockfile::{INTENT, Intent, LOCK, Lock, Locked, MAX_FILE, Origin, Wanted};
use crate::process::Cancel;
use crate::reference::Reference;
use crate::skills::{SkillsDir, read_bounded};
use crate::store::layout::Layout;
use crate::store::{self, Found, trusted};
use crate::trust::check::Against;

/// A project: the directory that has `skills.json`.
#[derive(Debug)]
pub struct Project {
    root: Dir,
    path: PathBuf,
}

/// What a wanted skill is exactly.
#[derive(Debug)]
pub struct Resolved {
    /// The image.
    pub found: Found,
    /// The reference that it is known by.
    pub reference: Reference,
    /// What the image was built from, where that was done for the project.
    pub origin: Option<Origin>,
}

/// One way in which a project is not what its files say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The skill.
    pub name: String,
    /// Its directory, relative to the project; empty where the files themselves differ.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// How the directory differs from what was installed, where that is what is wrong.
    pub differences: Vec<Difference>,
}

impl Project {
    /// Returns the project in a directory.
    pub fn new(root: Dir, path: PathBuf) -> Self {
        Self { root, path }
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until nobody else changes the project's files, and keeps it so.
    ///
    /// # Errors
    /// Of the kind `Interrupted` when the user asks to stop.
    pub fn lock(&self, cancel: &Cancel) -> Result<Flock<File>> {
        lock_dir(&self.root, How::Exclusive, cancel).with_context(|| format!("Locking {}", self.path.display()))
    }

    /// Reads what is wanted; `None` where there is no such file.
    ///
    /// # Errors
    /// If it cannot be read, or is not valid.
    pub fn intent(&self) -> Result<Option<Intent>> {
        Ok(self.read(INTENT)?.map(|bytes| Intent::parse(&bytes, &self.shown(INTENT))).transpose()?)
    }

    /// Reads what is locked; nothing where there is no such file.
    ///
    /// # Errors
    /// If it cannot be read, or is not valid.
    pub fn locked(&self) -> Result<Lock> {
        let lock = self.read(LOCK)?.map(|bytes| Lock::parse(&bytes, &self.shown(LOCK))).transpose()?;
        Ok(lock.unwrap_or_default())
    }

    /// Writes what is wanted, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_intent(&self, intent: &Intent) -> Result<()> {
        self.write(INTENT, &intent.to_json())
    }

    /// Writes what is locked, whole or not at all, where it has changed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_locked(&self, lock: &Lock) -> Result<()> {
        self.write(LOCK, &lock.to_json())
    }

    /// Returns the directory of skills with a path in the project; `None` where there is none.
    ///
    /// # Errors
    /// If it leads out of the project, or cannot be opened.
    pub fn skills(&self, base: &str) -> Result<Option<SkillsDir>> {
        match self.root.open_dir(base) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            dir => {
                let dir = dir.with_context(|| self.shown(base))?;
                // By whatever links: what is in there is run by git.
                let real = self.root.canonicalize(base).with_context(|| self.shown(base))?;
                if real.components().any(|part| part.as_os_str() == ".git") {
                    let reason = format!("{} is in the repository's own files", self.shown(base));
                    return Err(Error::Unavailable { reason, hint: None }.into());
                }
                Ok(Some(SkillsDir::new(dir, self.path.join(base))))
            }
        }
    }

    /// Returns the content digest of a skill of the project's own files; `None` where there is no valid one.
    fn own_content(&self, path: &str, options: &UnpackOptions<'_>) -> Result<Option<String>> {
        let context = || format!("Reading {path}");
        let dir = match self.root.open_dir(path) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            dir => dir.with_context(context)?,
        };
        let real = self.root.canonicalize(path).with_context(context)?;
        let name = real.file_name().or(self.path.file_name()).unwrap_or_default().to_string_lossy();
        if !dir.exists(SKILL_FILE) {
            return Ok(None);
        }
        Ok(build::content(&dir, &name, options).with_context(context)?.ok())
    }

    fn ensure(&self, base: &str) -> Result<SkillsDir> {
        self.root.create_dir_all(base).with_context(|| self.shown(base))?;
        self.skills(base)?.with_context(|| format!("{} is no directory", self.shown(base)))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        read_bounded(&self.root, name, MAX_FILE).with_context(|| format!("Reading {}", self.shown(name)))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        if self.read(name)?.is_some_and(|bytes| bytes == text.as_bytes()) {
            return Ok(());
        }
        let write = || -> io::Result<()> {
            // Under the lock, so that what is there is left by a crash.
            let temporary = format!(".{name}.new");
            match self.root.remove_file(&temporary) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = self.root.open_with(&temporary, OpenOptions::new().write(true).create_new(true))?;
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
                let _ = self.root.remove_file(&temporary);
            })?;
            self.root.rename(&temporary, &self.root, name)?;
            Ok(fsync(self.root.open(".")?.into_std())?)
        };
        write().with_context(|| format!("Writing {}", self.shown(name)))
    }

    fn shown(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

/// Installs a skill in all its directories, and returns what is locked then.
///
/// # Errors
/// As [`install::install`]; nothing is locked then.
pub fn install(
    project: &Project,
    layout: &Layout,
    wanted: &Wanted,
    resolved: &Resolved,
    options: &Options<'_>,
) -> Result<(Locked, Vec<(Installed, PathBuf)>)> {
    let mut all = Vec::new();
    let Resolved { found, reference, origin: from } = resolved;
    let origin = from.as_ref().map(|from| Provenance {
        source: from.source.clone(),
        commit: from.commit.clone(),
        path: from.path.clone(),
    });
    let origin = origin.as_ref();
    let manifest = &found.entry.descriptor;
    let contents = Contents::of(layout, manifest, &options.unpack)?;
    let source = Source {
        layout,
        contents: &contents,
        manifest,
        info: &found.info,
        reference,
        name: &wanted.name,
        origin,
        trust: None,
    };
    // What is in the way in one directory keeps the others as they are.
    for base in wanted.bases() {
        if let Some(skills) = project.skills(base)? {
            install::check(&source, &skills, options)?;
        }
    }
    for base in wanted.bases() {
        let skills = project.ensure(base)?;
        all.push((install::install(&source, &skills, options)?, skills.path().join(&wanted.name)));
    }
    let content = all.first().map(|(installed, _)| installed.content_digest.clone()).unwrap_or_default();
    let locked = Locked::new(wanted, reference, found.entry.digest(), &content);
    Ok((Locked { origin: from.clone(), ..locked }, all))
}

/// Takes skills away from directories of the project where they are, unless one of those is a directory where `intent` wants them.
///
/// # Errors
/// As [`uninstall::uninstall`].
pub fn remove<'a>(
    project: &Project,
    layout: Option<&Layout>,
    (paths, intent): (impl Iterator<Item = &'a str>, &Intent),
    force: bool,
    (unpack, cancel): (&UnpackOptions<'_>, &Cancel),
) -> Result<Vec<Uninstalled>> {
    let mut all = Vec::new();
    for path in paths {
        let (base, name) = path.rsplit_once('/').unwrap_or((".", path));
        let Some(skills) = project.skills(base)? else { continue };
        // One directory may have several paths, of which another is wanted.
        if let Some(wanted) = intent.get(name)
            && is_one_of(project, &skills, wanted)?
        {
            continue;
        }
        if skills.metadata(name)?.is_none() && skills.receipt_bytes(name)?.is_none() {
            continue;
        }
        all.push(uninstall::uninstall(&skills, name, layout, force, unpack, cancel)?);
    }
    Ok(all)
}

/// Returns the paths of locked skills that a project has no use for any more.
pub fn superfluous<'a>(intent: &Intent, lock: &'a Lock) -> Vec<&'a str> {
    let kept: BTreeSet<String> = intent.skills.iter().flat_map(Wanted::paths).collect();
    lock.skills.iter().flat_map(Locked::paths).filter(|path| !kept.contains(*path)).collect()
}

/// Compares a project with its files, without a network; nothing is returned where all is as they say.
///
/// # Errors
/// If something cannot be looked at.
pub fn check(
    project: &Project,
    intent: &Intent,
    lock: &Lock,
    options: &UnpackOptions<'_>,
    cancel: &Cancel,
) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let problem = |name: &str, path: &str, reason: String| Problem {
        name: name.to_owned(),
        path: path.to_owned(),
        reason,
        differences: Vec::new(),
    };
    for wanted in &intent.skills {
        match lock.get(&wanted.name) {
            None => problems.push(problem(&wanted.name, "", format!("it is in {INTENT} and not in {LOCK}"))),
            Some(locked) if !wanted.is(locked) => {
                let reason = format!("{INTENT} wants another than {LOCK} has, {}", locked.source.reference);
                problems.push(problem(&wanted.name, "", reason));
            }
            Some(_) => {}
        }
    }
    for locked in &lock.skills {
        let Some(wanted) = intent.get(&locked.name) else {
            problems.push(problem(&locked.name, "", format!("it is in {LOCK} and not in {INTENT}")));
            continue;
        };
        for base in wanted.bases() {
            let path = format!("{base}/{}", locked.name);
            if let Some((reason, differences)) = check_one(project, locked, base, options, cancel)? {
                problems.push(Problem { differences, ..problem(&locked.name, &path, reason) });
            }
        }
    }
    for path in superfluous(intent, lock) {
        let (base, name) = path.rsplit_once('/').unwrap_or((".", path));
        if let Some(skills) = project.skills(base)?
            && skills.metadata(name)?.is_some()
            && let Some(wanted) = intent.get(name)
            && !is_one_of(project, &skills, wanted)?
        {
            problems.push(problem(name, path, format!("{INTENT} does not want it there")));
        }
    }
    Ok(problems)
}

/// Returns whether a locked skill is a directory that `skills.json` names: what the project itself holds, which has no versions.
pub fn is_own(wanted: &Wanted, locked: &Locked) -> bool {
    let is_directory = locked.origin.as_ref().is_some_and(|origin| origin.commit.is_empty());
    is_directory && matches!(wanted.address(), Ok(Some(Address::Local(_))))
}

/// Compares the project's own directories with what is locked of them; nothing is returned where none has changed.
///
/// # Errors
/// If one cannot be read.
pub fn changed(project: &Project, intent: &Intent, lock: &Lock, options: &UnpackOptions<'_>) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for wanted in &intent.skills {
        let Some(locked) = lock.get(&wanted.name).filter(|locked| wanted.is(locked) && is_own(wanted, locked)) else {
            continue;
        };
        let reason = match project.own_content(&wanted.source, options)? {
            None => format!("{} is no directory of a valid skill any more", wanted.source),
            Some(own) if locked.content_digest.as_ref().is_some_and(|digest| *digest != own) => {
                let expected = locked.content_digest.as_deref().unwrap_or_default();
                format!("{} has changed: its content is {own}, and {expected} was expected", wanted.source)
            }
            Some(_) => continue,
        };
        problems.push(Problem { name: wanted.name.clone(), path: String::new(), reason, differences: Vec::new() });
    }
    Ok(problems)
}

/// Holds what is locked against what is asked of it, by what the store has, without a network; nothing is returned where all of it passes.
///
/// # Errors
/// If something cannot be looked at, or nobody says who has to have signed it.
pub fn unverified(
    layout: Option<&Layout>,
    (intent, lock): (&Intent, &Lock),
    against: Against<'_>,
) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for wanted in &intent.skills {
        let Some(locked) = lock.get(&wanted.name).filter(|locked| wanted.is(locked)) else { continue };
        let reason = match wanted.address()?.and(against.given) {
            Some(_) => Some("what is no image has no signature that could be verified".to_owned()),
            None => refusal(layout, &locked.reference()?.with_digest(&locked.source.digest)?, against)?,
        };
        let (name, path) = (wanted.name.clone(), String::new());
        problems.extend(reason.map(|reason| Problem { name, path, reason, differences: Vec::new() }));
    }
    Ok(problems)
}

/// Returns why an image of the store may not be used; `None` where it may.
fn refusal(layout: Option<&Layout>, exact: &Reference, against: Against<'_>) -> Result<Option<String>> {
    if against.rules(exact)?.is_empty() {
        return Ok(None);
    }
    let digest = exact.digest().unwrap_or_default();
    let found = layout.map(|layout| Ok((layout, store::open(layout, digest)?)));
    match found.unwrap_or_else(|| Err(Error::ImageNotFound(digest.to_owned()))) {
        Ok((layout, found)) => match trusted::check(layout, exact, (digest, &found.info), against.given) {
            Err(e @ Error::NotVerified(_)) => Ok(Some(e.to_string())),
            verified => Ok(verified.map(|_| None)?),
        },
        Err(Error::ImageNotFound(_)) => {
            Ok(Some(format!("{exact} is not verified: the store does not have it, and sync would fetch it")))
        }
        Err(e) => Err(e.into()),
    }
}

/// Returns whether a directory of skills is one in which a skill is wanted, by another path.
fn is_one_of(project: &Project, skills: &SkillsDir, wanted: &Wanted) -> Result<bool> {
    for base in wanted.bases() {
        if project.skills(base)?.is_some_and(|own| own.is(skills).unwrap_or(false)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn check_one(
    project: &Project,
    locked: &Locked,
    base: &str,
    options: &UnpackOptions<'_>,
    cancel: &Cancel,
) -> Result<Option<(String, Vec<Difference>)>> {
    let said = |reason: &str| Ok(Some((reason.to_owned(), Vec::new())));
    let Some(skills) = project.skills(base)? else { return said("it is not installed") };
    let _reading = skills.reading(cancel)?;
    let Some(dir) = skills.open(&locked.name)? else { return said("it is not installed") };
    let receipt = match skills.receipt(&locked.name) {
        Ok(Some(receipt)) => receipt,
        Ok(None) => return said("skillctl did not install it"),
        Err(e @ Error::Damaged { .. }) => return said(&e.to_string()),
        Err(e) => return Err(e.into()),
    };
    if receipt.image.digest != locked.source.digest {
        return said(&format!("it is {}, and {LOCK} has {}", receipt.image.digest, locked.source.digest));
    }
    if locked.content_digest.as_ref().is_some_and(|digest| *digest != receipt.image.content_digest) {
        return said(&format!("its content is not that of {LOCK}"));
    }
    let found = differences(&receipt.installed(&locked.name)?, &dir, options)?;
    Ok((!found.is_empty()).then(|| ("it is not as it was installed".to_owned(), found)))
}
