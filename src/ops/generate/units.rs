//! `generate quadlet -o`: units as files, which replace nothing that is different.

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use cap_std::fs::{Dir, OpenOptions};

use crate::error::Error;
use crate::generate::quadlet::{Content, Unit};

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
}
