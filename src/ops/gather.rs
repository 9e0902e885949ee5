//! What is built where no directory of one skill is: the skills of a Git repository, of an archive, or of a site's index.

use std::collections::BTreeMap;
use std::fs::File;

use anyhow::{Context as _, Result};
use cap_std::fs::Dir;

use super::build::{self, Built, Elsewhere, Input, Options};
use crate::attest::provenance::Source;
use crate::card::{Origin, Provenance};
use crate::error::Error;
use crate::finding::Finding;
use crate::frontmatter::FILE as SKILL_FILE;
use crate::image;
use crate::layer::{Selection, Subtree, Tree};
use crate::limits::Limits;
use crate::process::Cancel;
use crate::source::foreign::front_name;
use crate::source::git::{Contents, Repository, SkillPath};
use crate::source::{Filter, archive, well_known};
use crate::store::layout::Layout;
use crate::store::web::Web;

/// Most files that a warning names.
const NAMED: usize = 5;

/// Skills that can be built.
#[derive(Debug)]
pub struct Gathered {
    /// What they come from, without credentials.
    pub from: String,
    /// The revision that was asked for, where it is a repository and one was.
    pub reference: Option<String>,
    /// The skills, by their place.
    pub skills: Vec<One>,
    /// What the user should know.
    pub warnings: Vec<String>,
    namespace: Option<String>,
    trees: Vec<Tree>,
    /// Whether it is a path, which is nobody's business but this machine's.
    is_local: bool,
}

/// One of them.
#[derive(Debug)]
pub struct One {
    /// Its name, as far as the source says it: that of its directory.
    pub name: String,
    /// Where it is in the source.
    pub path: String,
    files: Files,
    /// Where it comes from: the commit or the digest, and the path.
    pub provenance: Provenance,
}

/// Where its files are.
#[derive(Debug)]
enum Files {
    /// In one of the trees, below this directory.
    Tree(usize, String),
    Directory(Dir),
}

/// Reads the skills of a directory of a repository that was fetched.
///
/// # Errors
/// As [`git::Repository::skills`] and [`git::Repository::tree`].
pub fn from_repository(
    layout: &Layout,
    repository: &Repository,
    path: &str,
    filter: &Filter,
    limits: Limits,
) -> Result<Gathered> {
    let skills = repository.skills(path, filter).map_err(|error| with_places(error, repository, path))?;
    let Contents { tree, left_out, lfs } = repository.tree(&skills, layout.scratch()?, limits)?;
    let url = repository.source.shown.clone();
    let one = |skill: SkillPath| {
        let (source, commit, path) = (url.clone(), repository.commit.clone(), skill.path.clone());
        let (files, provenance) = (Files::Tree(0, path.clone()), Provenance { source, commit, path });
        One { name: skill.directory, files, provenance, path: skill.path }
    };
    let mut warnings = Vec::new();
    if !left_out.is_empty() {
        warnings.push(format!("submodules are not fetched, and are left out: {}", named(&left_out)));
    }
    if !lfs.is_empty() {
        let files = named(&lfs);
        warnings.push(format!("files in Git LFS are not fetched, and only point to their contents: {files}"));
    }
    let skills = skills.into_iter().map(one).collect();
    let (namespace, reference) = (repository.source.owner.clone(), repository.source.reference.clone());
    let gathered = Gathered { reference, skills, warnings, namespace, trees: vec![tree], ..Gathered::of(&url) };
    gathered.check_names()?;
    Ok(gathered)
}

/// Adds to the error for a directory without a skill where the repository has some.
fn with_places(error: Error, repository: &Repository, path: &str) -> Error {
    match error {
        Error::Unavailable { reason, hint: None } if !path.is_empty() => {
            // A repository that cannot be listed has nothing to add.
            let all = repository.skills("", &Filter::default()).unwrap_or_default();
            let places: Vec<String> = all.into_iter().map(|skill| skill.path).filter(|own| !own.is_empty()).collect();
            let hint = (!places.is_empty()).then(|| format!("its skills are in {}", named(&places)));
            Error::Unavailable { reason, hint }
        }
        error => error,
    }
}

/// Reads the skills of an archive that is called `name`.
///
/// # Errors
/// As [`archive::read`], and if it has none.
pub fn from_archive(
    layout: &Layout,
    (name, file): (&str, &File),
    filter: &Filter,
    limits: Limits,
    cancel: &Cancel,
) -> Result<Gathered> {
    let options = archive::Options { digest: None, limits, cancel: cancel.clone() };
    let read = archive::read(name, file, layout.scratch()?, &options)?;
    let stem = name.rsplit('/').next().unwrap_or(name);
    let stem = archive::SUFFIXES.iter().find_map(|end| stem.strip_suffix(end)).unwrap_or(stem);
    let one = |root: String| One {
        name: root.rsplit('/').next().filter(|last| !last.is_empty()).unwrap_or(stem).to_owned(),
        provenance: Provenance { source: name.to_owned(), commit: read.digest.clone(), path: root.clone() },
        files: Files::Tree(0, root.clone()),
        path: root,
    };
    let skills: Vec<One> = read.tree.with_file(SKILL_FILE).into_iter().map(one).collect();
    if skills.is_empty() {
        let reason = format!("{name} has no {SKILL_FILE}: there is no skill in it");
        return Err(Error::Unavailable { reason, hint: None }.into());
    }
    let gathered = Gathered { skills, trees: vec![read.tree], is_local: true, ..Gathered::of(name) };
    let gathered = gathered.only(filter)?;
    gathered.check_names()?;
    Ok(gathered)
}

/// Fetches the skills that a web site offers.
///
/// # Errors
/// As [`well_known::index`] and [`well_known::fetch`].
pub fn from_site(layout: &Layout, web: &Web, url: &str, filter: &Filter, limits: Limits) -> Result<Gathered> {
    let index = well_known::index(web, url)?;
    let mut gathered = Gathered::of(&index.url);
    for entry in index.entries.iter().filter(|entry| filter.matches(&[&entry.name])) {
        let fetched = well_known::fetch(web, &index, entry, layout.scratch()?, limits)
            .with_context(|| format!("Fetching {}", entry.name))?;
        // An index that was looked at must not bring a skill of another name, which may be installed already.
        if let Some(own) = fetched.tree.below("").and_then(|tree| front_name(&tree)).filter(|own| *own != entry.name) {
            let reason = format!("{} lists {}, and what it has there is called {own}", index.url, entry.name);
            return Err(Error::Unavailable { reason, hint: None }.into());
        }
        gathered.skills.push(One {
            name: entry.name.clone(),
            path: entry.name.clone(),
            files: Files::Tree(gathered.trees.len(), String::new()),
            provenance: Provenance {
                source: index.url.clone(),
                commit: fetched.digest.unwrap_or_default(),
                path: String::new(),
            },
        });
        gathered.trees.push(fetched.tree);
    }
    gathered.only(filter)
}

/// Takes the skill of a directory that is called `name`, and was named by `path`.
pub fn from_directory(dir: Dir, name: &str, path: &str) -> Gathered {
    let provenance = Provenance { source: path.to_owned(), ..Provenance::default() };
    let one = One { name: name.to_owned(), path: path.to_owned(), files: Files::Directory(dir), provenance };
    Gathered { skills: vec![one], is_local: true, ..Gathered::of(path) }
}

impl Gathered {
    fn of(from: &str) -> Self {
        let (skills, warnings, trees) = (Vec::new(), Vec::new(), Vec::new());
        Self { from: from.to_owned(), reference: None, skills, warnings, namespace: None, trees, is_local: false }
    }

    /// Refuses two skills of one name with different files: the second would replace the first, in the store and where agents
    /// look, and whoever can add a directory could so replace any skill beside it. Copies for several agents are common.
    fn check_names(&self) -> Result<()> {
        let mut seen: BTreeMap<String, (&One, Subtree<'_>)> = BTreeMap::new();
        for one in &self.skills {
            let Some((name, tree)) = self.tree(one).and_then(|tree| Some((front_name(&tree)?, tree))) else { continue };
            let Some((other, its)) = seen.get(&name) else {
                seen.insert(name, (one, tree));
                continue;
            };
            if !tree.is_same(its).with_context(|| format!("Reading {}", one.path))? {
                let reason = format!("{} has two skills called {name}: {} and {}", self.from, other.path, one.path);
                let hint = "name the directory, as in URL#REF:DIRECTORY, or choose with a pattern".to_owned();
                return Err(Error::Unavailable { reason, hint: Some(hint) }.into());
            }
        }
        Ok(())
    }

    /// Returns where one of the skills comes from; `None` where that is a path of this machine.
    pub fn source(&self, one: &One) -> Option<Source> {
        let Provenance { source, commit, path } = one.provenance.clone();
        let reference = self.reference.clone();
        (!self.is_local).then_some(Source { uri: source, reference, path, revision: commit })
    }

    /// Returns the files of one of the skills, unless it is a directory of this machine.
    fn tree(&self, one: &One) -> Option<Subtree<'_>> {
        match &one.files {
            Files::Directory(_) => None,
            Files::Tree(tree, root) => self.trees[*tree].below(root),
        }
    }

    /// Leaves out what no pattern names.
    fn only(mut self, filter: &Filter) -> Result<Self> {
        let names: Vec<String> = self.skills.iter().map(|one| one.name.clone()).collect();
        self.skills.retain(|one| filter.matches(&[&one.name]));
        match self.skills.is_empty() {
            true => {
                let hint = (!names.is_empty()).then(|| format!("there is {}", named(&names)));
                Err(Error::Unavailable { reason: format!("no skill in {} is called so", self.from), hint }.into())
            }
            false => Ok(self),
        }
    }
}

/// Builds one of the skills.
///
/// The inner error is a skill that is not valid, with all that was found.
///
/// # Errors
/// As [`build::build`].
pub fn build_one(
    layout: &Layout,
    gathered: &Gathered,
    one: &One,
    options: &Options<'_>,
) -> Result<Result<Built, Vec<Finding>>> {
    match &one.files {
        Files::Directory(dir) if !dir.exists(SKILL_FILE) => return Err(build::no_skill(dir)),
        Files::Directory(dir) => return build::build(layout, Input::Directory(dir, &one.name), options),
        Files::Tree(..) => {}
    }
    let missing = || Error::damaged(&gathered.from, format!("{} is gone", one.path));
    let provenance = Some(one.provenance.clone()).filter(|_| !gathered.is_local);
    let path = provenance.iter().filter(|from| !from.path.is_empty());
    let namespace = gathered.namespace.as_deref();
    let elsewhere = Elsewhere {
        tree: gathered.tree(one).ok_or_else(missing)?,
        selection: Selection::AsDirectory,
        annotations: path.map(|from| (image::SOURCE_PATH.to_owned(), from.path.clone())).collect::<BTreeMap<_, _>>(),
        origin: Origin { dir_name: &one.name, namespace, author: namespace, provenance, ..Origin::default() },
    };
    build::build(layout, Input::Tree(&elsewhere), options)
}

fn named(files: &[String]) -> String {
    let more = match files.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    files.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ") + &more
}
