//! What is built where no directory is: the skills of a Git repository, of an archive, or of a web site's index.

use std::collections::BTreeMap;

use anyhow::Result;

use super::build::{self, Built, Elsewhere, Input, Options};
use crate::card::{Origin, Provenance};
use crate::error::Error;
use crate::finding::Finding;
use crate::image;
use crate::layer::{Selection, Tree};
use crate::limits::Limits;
use crate::process::Tools;
use crate::source::git::{self, Contents, SkillPath};
use crate::source::{Filter, GitSource};
use crate::store::layout::Layout;

/// Most files that a warning names.
const NAMED: usize = 5;

/// Skills that can be built.
#[derive(Debug)]
pub struct Gathered {
    /// What they come from, without credentials.
    pub from: String,
    /// The revision that was asked for, where it is a repository and one was.
    pub reference: Option<String>,
    /// The commit, where it is a repository.
    pub commit: Option<String>,
    /// The skills, by their place.
    pub skills: Vec<One>,
    /// What the user should know.
    pub warnings: Vec<String>,
    namespace: Option<String>,
    tree: Tree,
}

/// One of them.
#[derive(Debug)]
pub struct One {
    /// Its name, as far as the source says it: that of its directory.
    pub name: String,
    /// Where it is in the source.
    pub path: String,
    root: String,
    /// The repository, the commit and the path, where it is from one.
    pub provenance: Option<Provenance>,
}

/// Fetches the skills of a Git repository: those that a pattern names, or all.
///
/// # Errors
/// As [`git::fetch`] and [`git::Repository::skills`].
pub fn from_git(
    (tools, layout): (&Tools, &Layout),
    source: &GitSource,
    filter: &Filter,
    limits: Limits,
    options: &git::Options<'_>,
) -> Result<Gathered> {
    // Keeps prune from what is fetched.
    let _writing = layout.writing()?;
    let repository = git::fetch(tools, (layout.dir(), layout.path()), source, options)?;
    let skills = repository.skills(&repository.source.path, filter)?;
    let Contents { tree, left_out, lfs } = repository.tree(&skills, layout.scratch()?, limits)?;
    let url = repository.source.shown.clone();
    let one = |skill: SkillPath| One {
        name: skill.directory.clone(),
        provenance: Some(Provenance {
            source: url.clone(),
            commit: repository.commit.clone(),
            path: skill.path.clone(),
        }),
        root: skill.path.clone(),
        path: skill.path,
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
    let namespace = repository.source.owner.clone();
    let reference = repository.source.reference.clone();
    Ok(Gathered {
        from: url.clone(),
        reference,
        commit: Some(repository.commit.clone()),
        skills,
        warnings,
        namespace,
        tree,
    })
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
    let missing = || Error::damaged(&gathered.from, format!("{} is gone", one.path));
    let path = one.provenance.iter().filter(|from| !from.path.is_empty());
    let namespace = gathered.namespace.as_deref();
    let elsewhere = Elsewhere {
        tree: gathered.tree.below(&one.root).ok_or_else(missing)?,
        selection: Selection::AsDirectory,
        origin: Origin {
            dir_name: &one.name,
            namespace,
            author: namespace,
            provenance: one.provenance.clone(),
            ..Origin::default()
        },
        annotations: path.map(|from| (image::SOURCE_PATH.to_owned(), from.path.clone())).collect::<BTreeMap<_, _>>(),
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
