//! `generate quadlet -o`: units as files, which replace nothing that is different.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use cap_std::fs::{Dir, OpenOptions};

use crate::error::Error;
use crate::generate::Skill;
use crate::generate::quadlet::{Content, Unit, skill_of};

/// Most of a unit that is read to see whether it is one of ours, in bytes: it is said in the first hundred.
const MAX_HEAD: u64 = 4096;

/// Whether a file was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It is new, or different now.
    Yes,
    /// It was like that.
    No,
}

/// Writes units below a directory: all of them, or with one that is different and no `force` none.
///
/// # Errors
/// If one is there and different, or a directory cannot be written to.
pub fn write(dir: &Dir, units: &[Unit], force: bool) -> Result<Vec<Done>> {
    let states: Vec<State> = units.iter().map(|unit| state(dir, unit)).collect::<Result<_>>()?;
    let different: Vec<&str> = units
        .iter()
        .zip(&states)
        .filter(|(_, state)| **state == State::Other)
        .map(|(unit, _)| unit.path.as_str())
        .collect();
    if !force && !different.is_empty() {
        let reason = format!("there is {} already, and it is different", different.join(", "));
        return Err(Error::Unavailable { reason, hint: Some("--force replaces it".into()) }.into());
    }
    let mut done = Vec::new();
    for (unit, state) in units.iter().zip(states) {
        if state == State::Same {
            done.push(Done::No);
            continue;
        }
        replace(dir, unit).with_context(|| format!("Writing {}", unit.path))?;
        done.push(Done::Yes);
    }
    Ok(done)
}

/// Returns the units of other versions of the skills that are beside the units, and the links to them. Nothing starts them any more,
/// but bootc goes on pulling what a link names.
///
/// # Errors
/// If a directory cannot be read.
pub fn left_over(dir: &Dir, units: &[Unit], skills: &[Skill]) -> Result<Vec<String>> {
    let parents = |links: bool| -> BTreeSet<&Path> {
        let which = units.iter().filter(|unit| matches!(unit.content, Content::Link(_)) == links);
        which.filter_map(|unit| Path::new(&unit.path).parent()).collect()
    };
    let mut left = Vec::new();
    for parent in parents(false) {
        let context = || format!("Reading {}", parent.display());
        let read = if parent.as_os_str().is_empty() { dir.entries() } else { dir.read_dir(parent) };
        for entry in read.with_context(context)? {
            let name = entry.with_context(context)?.file_name();
            let path = parent.join(&name);
            let is_unit = path.extension().is_some_and(|ending| ending == "volume" || ending == "image");
            if !is_unit || units.iter().any(|unit| Path::new(&unit.path) == path) || !is_of(dir, &path, skills) {
                continue;
            }
            let links = parents(true).into_iter().map(|links| links.join(&name));
            left.extend(links.filter(|link| dir.symlink_metadata(link).is_ok()));
            left.push(path);
        }
    }
    left.sort();
    Ok(left.iter().map(|path| path.display().to_string()).collect())
}

/// Returns whether a file is a unit of ours of one of the skills. What cannot be read is not.
fn is_of(dir: &Dir, path: &Path, skills: &[Skill]) -> bool {
    let mut head = String::new();
    let read = dir.open(path).and_then(|file| file.take(MAX_HEAD).read_to_string(&mut head));
    let of = skill_of(&head).filter(|_| read.is_ok());
    of.is_some_and(|of| skills.iter().any(|skill| skill.image.name() == of.name()))
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Absent,
    Same,
    Other,
}

fn state(dir: &Dir, unit: &Unit) -> Result<State> {
    let meta = match dir.symlink_metadata(&unit.path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(State::Absent),
        Err(e) => return Err(e).with_context(|| format!("Reading {}", unit.path)),
    };
    let same = match &unit.content {
        Content::Link(target) => meta.is_symlink() && dir.read_link_contents(&unit.path)? == Path::new(target),
        Content::Text(text) => {
            let mut have = Vec::new();
            // One byte more than it should have is enough to see that it is another.
            meta.is_file()
                && dir.open(&unit.path)?.take(text.len() as u64 + 1).read_to_end(&mut have).is_ok()
                && have == text.as_bytes()
        }
    };
    Ok(if same { State::Same } else { State::Other })
}

/// Writes beside and renames, so that the generator never reads half a unit. A name that begins with a dot is none of a unit.
fn replace(dir: &Dir, unit: &Unit) -> io::Result<()> {
    let path = Path::new(&unit.path);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        dir.create_dir_all(parent)?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = parent.unwrap_or(Path::new("")).join(format!(".{name}.skillctl-{}", std::process::id()));
    let written = match &unit.content {
        Content::Link(target) => dir.symlink_contents(target, &beside),
        Content::Text(text) => (|| {
            let mut file = dir.open_with(&beside, OpenOptions::new().write(true).create_new(true))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })(),
    };
    let done = written.and_then(|()| dir.rename(&beside, dir, path));
    if done.is_err() {
        // What was begun is of no use; the error says why it ended.
        let _ = dir.remove_file(&beside);
    }
    done
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn unit(path: &str, content: Content) -> Unit {
        Unit { path: path.into(), content }
    }

    #[test]
    fn what_is_different_stays_unless_forced() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(tmp.path(), cap_std::ambient_authority()).unwrap();
        let text = |text: &str| unit("usr/a.volume", Content::Text(text.into()));
        let link = |target: &str| unit("usr/lib/a.image", Content::Link(target.into()));
        let both = [text("one\n"), link("/usr/a.image")];
        assert_eq!(write(&dir, &both, false).unwrap(), [Done::Yes, Done::Yes]);
        assert_eq!(write(&dir, &both, false).unwrap(), [Done::No, Done::No]);
        assert_eq!(std::fs::read_link(tmp.path().join("usr/lib/a.image")).unwrap(), Path::new("/usr/a.image"));
        for other in [[text("other\n"), link("/usr/a.image")], [text("one\n"), link("/usr/b.image")]] {
            let error = write(&dir, &other, false).unwrap_err().to_string();
            assert!(error.contains("already, and it is different"), "{error}");
            assert_eq!(dir.read_to_string("usr/a.volume").unwrap(), "one\n");
        }
        assert_eq!(write(&dir, &[text("other\n"), link("/usr/a.image")], true).unwrap(), [Done::Yes, Done::No]);
        assert_eq!(dir.read_to_string("usr/a.volume").unwrap(), "other\n");
        assert_eq!(std::fs::read_dir(tmp.path().join("usr")).unwrap().count(), 2);
    }

    #[test]
    fn units_of_other_versions_are_named_and_nothing_else() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(tmp.path(), cap_std::ambient_authority()).unwrap();
        let of = |image: &str| Content::Text(format!("[Unit]\nDescription=Skill {image}\n\n[Volume]\n"));
        let there = [
            unit("units/skill-hr.volume", of("quay.io/acme/hr:0.9.0")),
            unit("units/skill-hr-1.image", of("quay.io/acme/hr:1")),
            unit("bound/skill-hr-1.image", Content::Link("/units/skill-hr-1.image".into())),
            unit("units/skill-hr-admin.volume", of("quay.io/acme/hr-admin:1")),
            unit("units/hr.volume", Content::Text("[Volume]\nDriver=image\n".into())),
            unit("units/hr.container", of("quay.io/acme/hr:1")),
        ];
        let new = [
            unit("units/skill-hr-2.image", of("quay.io/acme/hr:2")),
            unit("bound/skill-hr-2.image", Content::Link("/units/skill-hr-2.image".into())),
        ];
        write(&dir, &there, false).unwrap();
        write(&dir, &new, false).unwrap();
        let image = format!("quay.io/acme/hr@sha256:{}", "1".repeat(64)).parse().unwrap();
        let hr = [Skill { image, tag: Some("2".into()), name: "hr".into(), version: "2".into() }];
        let left = ["bound/skill-hr-1.image", "units/skill-hr-1.image", "units/skill-hr.volume"];
        assert_eq!(left_over(&dir, &new, &hr).unwrap(), left);
        // In the directory itself, too.
        write(&dir, &[unit("skill-hr.volume", of("quay.io/acme/hr:0.9.0"))], false).unwrap();
        let own = [unit("skill-hr-2.volume", of("quay.io/acme/hr:2"))];
        assert_eq!(left_over(&dir, &own, &hr).unwrap(), ["skill-hr.volume"]);
    }
}
