//! Packs a tree that was read from elsewhere as a directory of the same content would be packed.

use std::io::{Read as _, Write};

use super::bounds::Tally;
use super::exclude::{IGNORE_FILE, IGNORE_FILE_MAX, Rules, Verdict, in_version_control, is_private_key};
use super::pack::{PackOptions, Packed, packed};
use super::tree::{Entries, Item, Stored, Subtree, check_cancelled, get};
use super::walk::{COPY_HINT, KEY_START, SPECIAL_HINT, Visit, check_name, credential, join, refused};
use crate::error::{Error, Result};

/// Most links that one path leads through, as on Linux (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// What is packed of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// What would be packed of a directory: `.skillignore` counts, and credentials stop it.
    AsDirectory,
    /// All of it: somebody has packed it before.
    All,
}

/// Writes the layer of a tree to `out`. Links are followed as far as they stay inside.
///
/// # Errors
/// As [`pack`](super::pack), and [`Error::RefusedEntry`] for names that differ only by case.
pub fn pack_tree<W: Write + Send>(
    tree: &Subtree<'_>,
    out: W,
    selection: Selection,
    options: &PackOptions<'_>,
) -> Result<Packed> {
    let rules = match selection {
        Selection::AsDirectory => Some(Rules::parse(&ignore_file(tree)?, &options.include)?),
        Selection::All => None,
    };
    packed(out, options, |visitor| {
        let tally = Tally::new(options.limits);
        let mut walk = TreeWalk { tree, rules, options, tally, visitor, left_out: 0, open: Vec::new() };
        walk.directory(tree.root, ("", ""))?;
        Ok((walk.tally, walk.left_out))
    })
}

fn ignore_file(tree: &Subtree<'_>) -> Result<String> {
    let Some((stored, mut content)) = tree.open(IGNORE_FILE) else { return Ok(String::new()) };
    if stored.size > IGNORE_FILE_MAX {
        return Err(refused(IGNORE_FILE, "is larger than 1 MiB", None));
    }
    let mut text = String::new();
    content.read_to_string(&mut text).map_err(Error::io(IGNORE_FILE))?;
    Ok(text)
}

struct TreeWalk<'a> {
    tree: &'a Subtree<'a>,
    rules: Option<Rules>,
    options: &'a PackOptions<'a>,
    tally: Tally,
    visitor: &'a mut dyn Visit,
    left_out: u64,
    /// The directories that are being walked, by their true paths.
    open: Vec<String>,
}

impl TreeWalk<'_> {
    /// Walks a directory with a path in the layer, whose true place may be another one where a link leads there.
    fn directory(&mut self, entries: &Entries, (path, real): (&str, &str)) -> Result<()> {
        if self.open.iter().any(|open| open == real) {
            return Err(refused(path, "is a link to a directory that it is in", None));
        }
        self.open.push(real.to_owned());
        check_case(entries, path)?;
        let extra: &[(String, Vec<u8>)] = if path.is_empty() { &self.options.extra } else { &[] };
        let generated = |name: &str| extra.iter().find(|(own, _)| own == name);
        let mut names: Vec<&str> =
            entries.keys().chain(extra.iter().map(|(name, _)| name)).map(String::as_str).collect();
        names.sort_unstable();
        for name in names {
            let (path, real) = (join(path, name), join(real, name));
            check_cancelled(self.options.cancelled, &path)?;
            match (entries.get(name), generated(name)) {
                (Some(_), Some(_)) => {
                    return Err(refused(name, "is in the skill, and would be generated as well", None));
                }
                (Some(Item::Symlink(target)), None) => self.link(&path, &real, target)?,
                (Some(item), None) => {
                    let verdict = self.judge(&path, &[&real], matches!(item, Item::Directory(_)), &path)?;
                    self.item(item, verdict, (&path, &real))?;
                }
                (None, Some((_, content))) => {
                    self.tally.entry()?;
                    self.tally.content(content.len() as u64)?;
                    self.visitor.generated(&path, content)?;
                }
                (None, None) => {}
            }
        }
        self.open.pop();
        Ok(())
    }

    /// Follows a link whose target is in the skill.
    fn link(&mut self, path: &str, at: &str, target: &str) -> Result<()> {
        let left_out = |rules: &Rules| rules.judge(path, path, false).map(|verdict| verdict == Verdict::LeaveOut);
        if self.rules.as_ref().map(left_out).transpose()? == Some(true) {
            self.left_out += 1;
            return Ok(());
        }
        let both = format!("{path} -> {target}");
        let (real, item) = resolve(self.tree.root, at).map_err(|(reason, hint)| refused(&both, reason, Some(hint)))?;
        let is_dir = matches!(item, Item::Directory(_));
        if self.rules.is_some() && in_version_control(&real) {
            return Err(refused(&both, "leads into version control, which is not packed", Some(COPY_HINT)));
        }
        let verdict = self.judge(path, &[path, &real], is_dir, &both)?;
        if let Some(rules) = self.rules.as_ref().filter(|_| verdict != Verdict::LeaveOut)
            && rules.leaves_out_target(path, &real, is_dir)
        {
            let hint = format!("remove the link, or pass --include {path}");
            return Err(refused(&both, "leads to what .skillignore leaves out", Some(&hint)));
        }
        self.item(item, verdict, (path, &real))
    }

    /// Decides about a path by all places where its content is.
    fn judge(&self, path: &str, contents: &[&str], is_dir: bool, shown: &str) -> Result<Verdict> {
        let Some(rules) = &self.rules else { return Ok(Verdict::Pack) };
        let mut decided = Verdict::Pack;
        for content in contents {
            match rules.judge(path, content, is_dir)? {
                Verdict::Pack => {}
                Verdict::PackUnlessKey => decided = Verdict::PackUnlessKey,
                Verdict::Credential(what) => return Err(credential(shown, path, what)),
                Verdict::LeaveOut => return Ok(Verdict::LeaveOut),
            }
        }
        let linked = contents.iter().any(|content| *content != path);
        if linked && contents.len() == 1 && rules.leaves_out_target(path, contents[0], is_dir) {
            return Ok(Verdict::LeaveOut);
        }
        Ok(decided)
    }

    fn item(&mut self, item: &Item, verdict: Verdict, (path, real): (&str, &str)) -> Result<()> {
        if verdict == Verdict::LeaveOut {
            self.left_out += 1;
            return Ok(());
        }
        check_name(path)?;
        self.tally.entry()?;
        match item {
            Item::Directory(below) => {
                self.tally.depth(path, self.open.len())?;
                self.visitor.directory(path)?;
                self.directory(below, (path, real))
            }
            Item::File(stored) => self.file(*stored, verdict, path),
            Item::Symlink(_) => Err(refused(path, "leads in a circle", Some(SPECIAL_HINT))),
        }
    }

    fn file(&mut self, stored: Stored, verdict: Verdict, path: &str) -> Result<()> {
        if verdict == Verdict::PackUnlessKey {
            let mut start = Vec::new();
            let read = self.tree.content(stored).take(KEY_START as u64).read_to_end(&mut start);
            read.map_err(Error::io(path))?;
            if is_private_key(&start) {
                return Err(credential(path, path, "a private key"));
            }
        }
        self.tally.content(stored.size)?;
        self.visitor.stored(path, (&mut self.tree.content(stored), stored.size), stored.executable)
    }
}

/// Refuses names that are one on file systems that ignore case.
fn check_case(entries: &Entries, path: &str) -> Result<()> {
    // Most names are what they fold to.
    let is_folded = |name: &String| name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    if entries.keys().all(is_folded) {
        return Ok(());
    }
    let mut folded: Vec<(String, &str)> = entries.keys().map(|name| (name.to_lowercase(), name.as_str())).collect();
    folded.sort_unstable();
    match folded.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => {
            let reason = format!("differs from {} only by case", join(path, pair[0].1));
            Err(refused(&join(path, pair[1].1), &reason, None))
        }
        None => Ok(()),
    }
}

/// Returns what the link at a path leads to, and its true path; else why it leads to nothing, and the remedy.
pub(super) fn resolve<'a>(root: &'a Entries, path: &str) -> Result<(String, &'a Item), (&'static str, &'static str)> {
    let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut done: Vec<String> = Vec::new();
    let mut links = 0;
    loop {
        let Some(part) = todo.pop() else {
            // Only `..` leads to the root itself, which would be in itself.
            return get(root, &done.join("/"))
                .map(|item| (done.join("/"), item))
                .ok_or(("leads in a circle", SPECIAL_HINT));
        };
        match part.as_str() {
            "" | "." => continue,
            ".." if done.pop().is_none() => return Err(("leaves the skill", COPY_HINT)),
            ".." => continue,
            _ => done.push(part),
        }
        match get(root, &done.join("/")) {
            Some(Item::Symlink(target)) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(("leads in a circle", SPECIAL_HINT));
                }
                if target.starts_with('/') {
                    return Err(("leaves the skill", COPY_HINT));
                }
                done.pop();
                todo.extend(target.split('/').rev().map(str::to_owned));
            }
            Some(Item::File(_)) if todo.is_empty() => {}
            Some(Item::Directory(_)) => {}
            _ => return Err(("leads nowhere", SPECIAL_HINT)),
        }
    }
}
