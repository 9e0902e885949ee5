//! Finds the skills of a commit: one `git ls-tree`.

use std::collections::{HashMap, HashSet};

use super::git::Repository;
use super::glob::Filter;
use crate::error::{Error, Result};
use crate::frontmatter::FILE as SKILL_FILE;
use crate::git_url::check_path;
use crate::process::End;

/// Most bytes of a list of files: some 500,000 of them, more than any repository of skills has.
const LIST: usize = 64 << 20;
/// Where packages of others lie, whose skills nobody means.
const PACKAGES: &str = "node_modules";
/// Most names that an error shows.
const SHOWN: usize = 10;

/// A file of a commit, or what stands in its place.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    /// From the root of the repository; escaped where it is no UTF-8.
    pub path: String,
    pub is_utf8: bool,
    pub mode: u32,
    pub id: String,
    pub size: u64,
}

/// A directory with a skill, and what is in it.
#[derive(Debug, Clone)]
pub struct SkillPath {
    /// From the root of the repository; empty for the root itself.
    pub path: String,
    /// Name of the directory; of the repository for its root.
    pub directory: String,
    /// `name` of its front matter, where that was read: see [`Repository::skills`].
    pub name: Option<String>,
    pub(super) files: Vec<Blob>,
}

impl SkillPath {
    /// Returns the file with this path in the skill.
    pub(super) fn file(&self, name: &str) -> Option<&Blob> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) };
        self.files.iter().find(|file| file.path == path)
    }

    /// Returns the number of its files.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Returns the sum of their sizes, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

impl Repository {
    /// Returns the skills in a directory of the repository, by path: itself where it has a `SKILL.md`, else every directory
    /// that has one and is in no other skill. Hidden directories count; `node_modules` does not, nor does a `SKILL.md` that is
    /// a link.
    ///
    /// A pattern has to match the name of a skill's directory, or that of its front matter, which is read only where there
    /// is a pattern.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is no such directory, no skill, or none for a pattern.
    pub fn skills(&self, path: &str, filter: &Filter) -> Result<Vec<SkillPath>> {
        let files = self.list(path)?;
        let mut skills = find(files, path, self.source.repository());
        if skills.is_empty() {
            return Err(Error::Unavailable { reason: format!("no skills found in {}", self.place(path)), hint: None });
        }
        if filter.is_empty() {
            return Ok(skills);
        }
        self.read_names(&mut skills)?;
        let names = skills.iter().flat_map(|skill| [Some(skill.directory.as_str()), skill.name.as_deref()]).flatten();
        if let Some(pattern) = filter.unmatched(names) {
            let reason = format!("no skills matching {pattern:?} in {}", self.place(path));
            return Err(Error::Unavailable { reason, hint: Some(there_are(&skills)) });
        }
        skills.retain(|skill| filter.matches(&[&skill.directory, skill.name.as_deref().unwrap_or(&skill.directory)]));
        Ok(skills)
    }

    /// Says where something is looked for.
    fn place(&self, path: &str) -> String {
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        format!("{} at {}{path}", self.source.shown, self.commit)
    }

    /// Lists the files below a directory.
    pub(super) fn list(&self, path: &str) -> Result<Vec<Blob>> {
        let unavailable = |reason| Error::Unavailable { reason, hint: None };
        check_path(path).map_err(|reason| unavailable(format!("{} {reason}", self.source.shown)))?;
        let tree = if path.is_empty() { self.commit.clone() } else { format!("{}:{path}", self.commit) };
        let process = self.git.local(&self.scratch).args(["ls-tree", "-r", "-z", "--full-tree", "-l"]);
        let output = process.arg(tree).stdout_limit(LIST).output()?;
        match output.end {
            End::Exit(0) if output.truncated => {
                Err(unavailable(format!("{}: its list of files is longer than {} MiB", self.place(path), LIST >> 20)))
            }
            End::Exit(0) => parse(&output.stdout, path)
                .ok_or_else(|| Error::damaged(self.place(path), "git does not list its files as expected")),
            End::Exit(_) => Err(unavailable(format!("{} is no directory", self.place(path)))),
            End::Cancelled => Err(Error::interrupted()),
            _ => Err(output.error()),
        }
    }
}

fn there_are(skills: &[SkillPath]) -> String {
    let mut names: Vec<&str> = skills.iter().map(|skill| skill.name.as_deref().unwrap_or(&skill.directory)).collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("there are {}{more}", names.join(", "))
}

/// Reads `MODE TYPE ID SIZE<tab>PATH<zero>`; `None` where it is something else.
fn parse(list: &[u8], below: &str) -> Option<Vec<Blob>> {
    let one = |record: &[u8]| {
        let tab = record.iter().position(|byte| *byte == b'\t')?;
        let mut words = std::str::from_utf8(&record[..tab]).ok()?.split_ascii_whitespace();
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        let (kind, id, size) = (words.next()?, words.next()?, words.next()?);
        // Submodules have none.
        let size = if kind == "blob" { size.parse().ok()? } else { 0 };
        let name = &record[tab + 1..];
        let own = std::str::from_utf8(name).map_or_else(|_| name.escape_ascii().to_string(), str::to_owned);
        let path = if below.is_empty() { own } else { format!("{below}/{own}") };
        Some(Blob { path, is_utf8: std::str::from_utf8(name).is_ok(), mode, id: id.to_owned(), size })
    };
    list.split(|byte| *byte == 0).filter(|record| !record.is_empty()).map(one).collect()
}

/// Gives the files to the skills that they are in.
fn find(files: Vec<Blob>, below: &str, repository: &str) -> Vec<SkillPath> {
    let is_skill =
        |file: &&Blob| file.mode & 0o170_000 == 0o100_000 && file.path.rsplit('/').next() == Some(SKILL_FILE);
    let candidates: HashSet<String> = files
        .iter()
        .filter(is_skill)
        .map(|file| above(&file.path).to_owned())
        .filter(|path| !path[below.len()..].split('/').any(|part| part == PACKAGES))
        .collect();
    let mut skills: HashMap<String, SkillPath> = HashMap::new();
    for file in files {
        // The directory nearest to the root that has one.
        let start = below.len();
        let ends = [start].into_iter().chain(file.path.match_indices('/').map(|(at, _)| at).filter(|at| *at > start));
        let Some(path) = ends.map(|end| &file.path[..end]).find(|path| candidates.contains(*path)) else { continue };
        let path = path.to_owned();
        let skill = skills.entry(path).or_insert_with_key(|path| SkillPath {
            directory: if path.is_empty() { repository } else { path.rsplit('/').next().unwrap_or(path) }.to_owned(),
            path: path.clone(),
            name: None,
            files: Vec::new(),
        });
        skill.files.push(file);
    }
    let mut skills: Vec<SkillPath> = skills.into_values().collect();
    skills.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    skills
}

fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}
