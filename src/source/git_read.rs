//! Reads the contents of skills out of a commit: one `git cat-file`, whatever their number.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};

use super::git::Repository;
use super::git_list::{Blob, SkillPath};
use crate::error::{Error, Result};
use crate::frontmatter::{FILE as SKILL_FILE, MAX_FRONT_MATTER, parse};
use crate::git_url::is_git;
use crate::layer::Tree;
use crate::limits::{Limits, MAX_PATH};

/// Bytes that are read from git at once.
const BUFFER: usize = 256 << 10;
/// Files up to this size are read whole before they are spooled.
const SMALL: u64 = 64 << 10;
/// How a file begins that stands for one in Git LFS, and how long it may be (the specification of its pointers).
const LFS: &[u8] = b"version https://git-lfs";
const LFS_MAX: u64 = 1024;
/// Longest header of an object: a hash, its type and its size.
const HEADER: u64 = 256;

/// The files of skills; their paths are those in the repository.
#[derive(Debug)]
pub struct Contents {
    /// All of them; [`Tree::below`] with [`SkillPath::path`] is one skill.
    pub tree: Tree,
    /// Submodules, which are not fetched.
    pub left_out: Vec<String>,
    /// Files of which there is only what points to them in Git LFS. They are in the tree, as these pointers.
    pub lfs: Vec<String>,
}

impl Repository {
    /// Reads skills into `contents`: an empty file that nobody else has. The limits are for all of them together.
    ///
    /// # Errors
    /// [`Error::RefusedEntry`] for what no skill can have, [`Error::LimitExceeded`], and [`Error::Unavailable`] where git
    /// fails.
    pub fn tree(&self, skills: &[SkillPath], contents: File, limits: Limits) -> Result<Contents> {
        let mut all = Contents { tree: Tree::new(contents, limits), left_out: Vec::new(), lfs: Vec::new() };
        let mut files = Vec::new();
        for file in skills.iter().flat_map(|skill| &skill.files) {
            match check(file)? {
                Kind::Submodule => all.left_out.push(file.path.clone()),
                kind => files.push((file, kind)),
            }
        }
        check_size(&files, limits)?;
        let ids = files.iter().map(|(file, _)| *file);
        let mut kinds = files.iter().map(|(_, kind)| *kind);
        self.read(ids, &mut |file, content| {
            let kind = kinds.next().unwrap_or(Kind::File { executable: false });
            all.add(file, kind, content)
        })?;
        Ok(all)
    }

    /// Reads the file that the source names, of which no more than `limit` bytes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is no such file, or git fails.
    pub fn file(&self, limit: u64) -> Result<Vec<u8>> {
        let path = &self.source.path;
        let files = self.list("")?;
        let is_file = |file: &&Blob| file.path == *path && file.mode & 0o170_000 == 0o100_000;
        let Some(file) = files.iter().find(is_file) else {
            let reason = format!("{} at {} has no file {path:?}", self.source.shown, self.commit);
            return Err(Error::Unavailable { reason, hint: Some("name it: URL#REF:FILE".into()) });
        };
        let mut bytes = Vec::new();
        self.read(std::iter::once(file), &mut |file, content| {
            content.take(limit).read_to_end(&mut bytes).map_err(Error::io(&file.path))?;
            std::io::copy(content, &mut std::io::sink()).map_err(Error::io(&file.path)).map(drop)
        })?;
        Ok(bytes)
    }

    /// Reads the names that skills give themselves.
    pub(super) fn read_names(&self, skills: &mut [SkillPath]) -> Result<()> {
        let files: Vec<Blob> = skills.iter().filter_map(|skill| skill.file(SKILL_FILE)).cloned().collect();
        let mut names = Vec::with_capacity(files.len());
        self.read(files.iter(), &mut |file, content| {
            let mut start = Vec::new();
            content.take(MAX_FRONT_MATTER as u64).read_to_end(&mut start).map_err(Error::io(&file.path))?;
            names.push(parse(&start).front.and_then(|front| front.name).map(|name| name.value));
            std::io::copy(content, &mut std::io::sink()).map_err(Error::io(&file.path)).map(drop)
        })?;
        for (skill, name) in skills.iter_mut().zip(names) {
            skill.name = name;
        }
        Ok(())
    }

    /// Reads files in their order; `each` has to read a content to its end.
    fn read<'a>(
        &self,
        files: impl Iterator<Item = &'a Blob> + Clone,
        each: &mut dyn FnMut(&Blob, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let mut asked = Vec::new();
        for file in files.clone() {
            asked.extend_from_slice(file.id.as_bytes());
            asked.push(b'\n');
        }
        if asked.is_empty() {
            return Ok(());
        }
        let process = self.git.local(&self.scratch).args(["cat-file", "--batch", "--buffer"]).stdin(asked);
        process.stream(|pipe| {
            let mut pipe = BufReader::with_capacity(BUFFER, pipe);
            for file in files {
                header(&mut pipe, file)?;
                let mut content = (&mut pipe).take(file.size);
                each(file, &mut content)?;
                if content.limit() > 0 {
                    return Err(Error::damaged(&file.path, "git gives less of it than it said"));
                }
                let mut end = [0];
                pipe.read_exact(&mut end).map_err(Error::io(&file.path))?;
            }
            Ok(())
        })
    }
}

/// Reads `ID blob SIZE`.
fn header(pipe: &mut BufReader<&mut dyn Read>, file: &Blob) -> Result<()> {
    let mut line = Vec::new();
    pipe.take(HEADER).read_until(b'\n', &mut line).map_err(Error::io(&file.path))?;
    let want = format!("{} blob {}\n", file.id, file.size);
    match line == want.as_bytes() {
        true => Ok(()),
        false => {
            let got = String::from_utf8_lossy(&line);
            Err(Error::damaged(&file.path, format!("git gives {:?}, and {:?} was listed", got.trim(), want.trim())))
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File { executable: bool },
    Symlink,
    Submodule,
}

/// Returns what a file is, or why no skill can have it.
fn check(file: &Blob) -> Result<Kind> {
    let refuse =
        |reason: &str| Err(Error::RefusedEntry { entry: file.path.clone(), reason: reason.into(), hint: None });
    if !file.is_utf8 {
        return refuse("has a name that is not UTF-8");
    }
    if file.path.split('/').any(is_git) {
        return refuse("has the name of a directory that only git may write");
    }
    match file.mode {
        0o100_755 => Ok(Kind::File { executable: true }),
        // The second one is what git wrote before 2005.
        0o100_644 | 0o100_664 => Ok(Kind::File { executable: false }),
        0o120_000 if file.size > MAX_PATH as u64 => refuse("is a link to a path that is too long"),
        0o120_000 => Ok(Kind::Symlink),
        0o160_000 => Ok(Kind::Submodule),
        mode => refuse(&format!("has the mode {mode:o}, which git does not know")),
    }
}

/// Holds what was listed to the limits, before any of it is read.
fn check_size(files: &[(&Blob, Kind)], limits: Limits) -> Result<()> {
    let exceeded = |what: &str, limit: String, flag| Err(Error::LimitExceeded { what: what.into(), limit, flag });
    if files.len() as u64 > limits.entries {
        return exceeded("the number of entries", limits.entries.to_string(), "--max-files");
    }
    let size = files.iter().fold(0, |sum: u64, (file, _)| sum.saturating_add(file.size));
    match size > limits.size {
        true => exceeded("the size of all files", format!("{} bytes", limits.size), "--max-size"),
        false => Ok(()),
    }
}

impl Contents {
    fn add(&mut self, file: &Blob, kind: Kind, content: &mut dyn Read) -> Result<()> {
        let path = file.path.as_str();
        let executable = kind == Kind::File { executable: true };
        if file.size > SMALL {
            return self.tree.add_file(path, executable, (content, file.size));
        }
        let mut bytes = Vec::with_capacity(file.size as usize);
        content.read_to_end(&mut bytes).map_err(Error::io(path))?;
        if kind == Kind::Symlink {
            return match std::str::from_utf8(&bytes) {
                Ok(target) if !target.is_empty() && !target.contains('\0') => self.tree.add_symlink(path, target),
                _ => Err(Error::RefusedEntry {
                    entry: path.into(),
                    reason: "is a link to what is no name".into(),
                    hint: None,
                }),
            };
        }
        if file.size <= LFS_MAX && bytes.starts_with(LFS) {
            self.lfs.push(path.to_owned());
        }
        let size = bytes.len() as u64;
        self.tree.add_file(path, executable, (&mut bytes.as_slice(), size))
    }
}
