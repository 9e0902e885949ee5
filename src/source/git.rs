//! Git repositories: one revision is fetched, and skills are read from it without ever checking it out.
//!
//! ```text
//! <store>/.tmp/git-<pid>-<n>/      a bare repository that we made, with a configuration of three lines
//!   HEAD config objects/ refs/     removed when the [`Repository`] is dropped
//! ```
//!
//! One `git fetch` of one commit, one `git ls-tree`, and one `git cat-file` for all contents, however many skills there are
//! (`git_list`, `git_read`); how git is run is in `git_run`. Nothing that a repository holds is obeyed: no attributes, filters,
//! submodules, hooks or configuration.
//!
//! What a revision means: a full hash is that commit. Any other name is a tag, else a branch, else any reference of that name;
//! where tag and branch have one name the tag is taken, as by git itself, and an annotated tag stands for its commit. Seven
//! digits of a hash or more are a commit if no tag or branch is called so.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use cap_std::fs::Dir;

pub use super::git_list::SkillPath;
pub use super::git_read::Contents;
use super::git_run::{Git, failed, git_dir};
use crate::error::{Error, Result};
use crate::git_url::GitSource;
use crate::process::{Output, Tools};
use crate::store::scratch::Scratch;

/// How long nothing may come from a server. git tells how far it and the server are about every second.
pub const SILENCE: Duration = Duration::from_secs(30);
/// Most bytes of a list of references: a million of them.
const REFERENCES: usize = 64 << 20;
/// Most directories of an address that are tried as parts of a branch's name.
const MAX_PARTS: usize = 16;
/// How often a caller hears how far a fetch is.
const REPORT: Duration = Duration::from_millis(200);
/// What is fetched is called so here.
const WANTED: &str = "refs/skillctl/wanted";
/// Everything that a server shows, for commits that it does not give by themselves.
const EVERYTHING: [&str; 2] = ["+refs/heads/*:refs/skillctl/heads/*", "+refs/tags/*:refs/skillctl/tags/*"];

/// How a repository is fetched.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// How long nothing may come from the server.
    pub silence: Duration,
    /// Called with the number of bytes that came so far.
    pub progress: Option<&'a dyn Fn(u64)>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { silence: SILENCE, progress: None }
    }
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("silence", &self.silence).finish_non_exhaustive()
    }
}

/// A commit that was fetched.
#[derive(Debug)]
pub struct Repository {
    /// What was asked for; revision and directory are apart.
    pub source: GitSource,
    /// The commit's full hash.
    pub commit: String,
    pub(super) git: Git,
    pub(super) scratch: Scratch,
}

/// Fetches what a source names into a directory below the store, which is at `store_path`.
///
/// # Errors
/// [`Error::Unavailable`], without credentials: git is missing, the server does not answer for [`Options::silence`] or
/// refuses, or has no such revision.
pub fn fetch(
    tools: &Tools,
    (store, store_path): (&Dir, &Path),
    source: &GitSource,
    options: &Options<'_>,
) -> Result<Repository> {
    let git = Git::new(tools, options.silence);
    let source = match &source.tree {
        Some(tree) => source.split_tree(&find_reference(&git, source, tree)?)?,
        None => source.clone(),
    };
    let scratch = Scratch::new(store, store_path, "git")?;
    make(&scratch, "sha1")?;
    let fetching = Fetching { git: &git, scratch: &scratch, source: &source, options };
    let commit = fetching.revision()?;
    Ok(Repository { source, commit, git, scratch })
}

/// Returns the longest beginning of what follows `/tree/` that is the name of a tag or a branch, or else a hash.
fn find_reference(git: &Git, source: &GitSource, tree: &str) -> Result<String> {
    let ends = tree.match_indices('/').map(|(at, _)| at).chain([tree.len()]).take(MAX_PARTS);
    let names: Vec<&str> = ends.map(|end| &tree[..end]).collect();
    if is_full_hash(names[0]) {
        return Ok(names[0].to_owned());
    }
    let full = |name: &&str| [format!("refs/tags/{name}"), format!("refs/heads/{name}")];
    let patterns: Vec<String> = names.iter().flat_map(full).collect();
    let listed = list_references(git, source, &patterns)?;
    let exists = |name: &&&str| listed.iter().any(|(_, own)| full(name).contains(own));
    match names.iter().rev().find(exists) {
        Some(name) => Ok((*name).to_owned()),
        None if is_hash(names[0]) => Ok(names[0].to_owned()),
        None => Err(no_revision(source, names[0])),
    }
}

/// Asks a server for references: hashes and full names.
fn list_references(git: &Git, source: &GitSource, patterns: &[String]) -> Result<Vec<(String, String)>> {
    let process = git.remote(source).arg("ls-remote").stdout_limit(REFERENCES).arg("--").arg(&source.shown);
    let output = git.talk(&process.args(patterns), &mut || {})?;
    if !output.success() || output.truncated {
        return Err(failed(source, &output));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let pair = |line: &str| line.split_once('\t').map(|(id, name)| (id.to_owned(), name.to_owned()));
    Ok(text.lines().filter_map(pair).filter(|(id, _)| is_full_hash(id)).collect())
}

fn is_hash(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_full_hash(text: &str) -> bool {
    is_hash(text) && matches!(text.len(), 40 | 64)
}

fn no_revision(source: &GitSource, name: &str) -> Error {
    let reason = match name {
        "HEAD" => format!("{} has no default branch: it may be empty", source.shown),
        name => format!("{} has no branch, tag or commit {name}", source.shown),
    };
    let hint = format!("git ls-remote {} shows what there is", source.shown);
    Error::Unavailable { reason, hint: Some(hint) }
}

/// Makes an empty bare repository; `git init` would copy what the user's templates hold.
fn make(scratch: &Scratch, format: &str) -> Result<()> {
    let config = match format {
        "sha1" => "[core]\n\trepositoryformatversion = 0\n\tbare = true\n".to_owned(),
        other => {
            format!("[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = {other}\n")
        }
    };
    let write = || {
        scratch.clear()?;
        scratch.dir.create_dir_all("objects/pack")?;
        scratch.dir.create_dir_all("refs/heads")?;
        scratch.dir.write("config", config)?;
        scratch.dir.write("HEAD", "ref: refs/heads/none\n")
    };
    write().map_err(Error::io(scratch.path.display().to_string()))
}

/// One fetch.
struct Fetching<'a> {
    git: &'a Git,
    scratch: &'a Scratch,
    source: &'a GitSource,
    options: &'a Options<'a>,
}

impl Fetching<'_> {
    /// Fetches the revision and returns its commit.
    fn revision(&self) -> Result<String> {
        let name = self.source.reference.as_deref().unwrap_or("HEAD");
        if !is_hash(name) {
            return self.named(name);
        }
        if !is_full_hash(name) {
            let patterns = [format!("refs/tags/{name}"), format!("refs/heads/{name}")];
            let listed = list_references(self.git, self.source, &patterns)?;
            if listed.iter().any(|(_, own)| patterns.contains(own)) {
                return self.named(name);
            }
        } else {
            let output = self.run(true, &[&wanted(name)])?;
            if output.success() {
                return self.peel(WANTED, name);
            }
            if !is_refused(&output) {
                return Err(failed(self.source, &output));
            }
        }
        // A server gives what it shows; what is behind that has to be looked for in all of it.
        let output = self.run(false, &EVERYTHING)?;
        match output.success() {
            true => self.peel(&name.to_ascii_lowercase(), name),
            false => Err(failed(self.source, &output)),
        }
    }

    /// Fetches a tag or branch.
    fn named(&self, name: &str) -> Result<String> {
        let output = self.run(true, &[&wanted(name)])?;
        match output.success() {
            true => self.peel(WANTED, name),
            false if has_none(&output) => Err(no_revision(self.source, name)),
            false => Err(failed(self.source, &output)),
        }
    }

    /// Fetches, of the history only the end if the server can do that; a second time where hashes are of the other kind.
    fn run(&self, shallow: bool, wanted: &[&str]) -> Result<Output> {
        let output = self.once(shallow, wanted)?;
        let again = if output.stderr.contains("mismatched algorithms") {
            make(self.scratch, "sha256")?;
            shallow
        } else if shallow && output.stderr.contains("does not support shallow") {
            false
        } else {
            return Ok(output);
        };
        self.once(again, wanted)
    }

    fn once(&self, shallow: bool, wanted: &[&str]) -> Result<Output> {
        let process = self.git.remote(self.source).arg(git_dir(self.scratch)).arg("fetch");
        let options =
            ["--progress", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-maintenance"];
        let process = process.args(options).args(shallow.then_some("--depth=1"));
        let process = process.arg("--").arg(&self.source.shown).args(wanted);
        let last = Cell::new(Instant::now());
        self.git.talk(&process, &mut || {
            if let Some(progress) = self.options.progress.filter(|_| last.get().elapsed() >= REPORT) {
                progress(self.scratch.bytes("objects/pack"));
                last.set(Instant::now());
            }
        })
    }

    /// Returns the commit that a name stands for in what was fetched.
    fn peel(&self, name: &str, asked: &str) -> Result<String> {
        let process = self.git.local(self.scratch).args(["rev-parse", "--verify", "--quiet"]);
        let output = process.arg(format!("{name}^{{commit}}")).output()?;
        if output.end == crate::process::End::Cancelled {
            return Err(Error::interrupted());
        }
        let commit = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match output.success() && is_full_hash(&commit) {
            true => Ok(commit),
            false => Err(no_revision(self.source, asked)),
        }
    }
}

fn wanted(name: &str) -> String {
    format!("+{name}:{WANTED}")
}

fn has_none(output: &Output) -> bool {
    let text = output.stderr.to_ascii_lowercase();
    text.contains("couldn't find remote ref") || text.contains("could not find remote ref")
}

/// Returns whether a server does not give a commit by its hash, or has none.
fn is_refused(output: &Output) -> bool {
    let signs = ["not our ref", "unadvertised object", "no such remote ref"];
    has_none(output) || signs.iter().any(|sign| output.stderr.contains(sign))
}
