//! The trust policy of a machine and of its user, as it is read for verbs and hooks: `/etc/skillctl/trust.toml`, and the same below the
//! directory of the user's configuration.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::store::files::Files;
use crate::store::registries_conf::{ConfPaths, RegistriesConf};
use crate::trust::policy::{FILE, MAX_FILE, Policy};

/// The directory of the machine's configuration.
pub const ETC: &str = "/etc";

/// Reads the policy from below directories of configuration. One that cannot be read is one by which nothing may be used.
pub fn read<'a>(below: impl IntoIterator<Item = &'a Path>, conf: &ConfPaths) -> Policy {
    let texts: Result<Vec<_>> = below
        .into_iter()
        .map(|dir| dir.join(FILE))
        .filter_map(|path| text(&path, MAX_FILE).transpose().map(|text| Ok((path, text?))))
        .collect();
    match texts {
        // The usual case, in which nothing else is looked at.
        Ok(texts) if texts.is_empty() => Policy::default(),
        texts => texts.and_then(|texts| parse(texts, conf)).unwrap_or_else(|e| Policy::unreadable(&e)),
    }
}

fn parse(texts: Vec<(PathBuf, String)>, conf: &ConfPaths) -> Result<Policy> {
    let mut policy = Policy::default();
    for (path, text) in texts {
        let dir = path.parent().unwrap_or(Path::new("/"));
        let read = |name: &str, limit| Ok(needed(&dir.join(name), limit)?.into_bytes());
        policy.add(&text, &path.display().to_string(), &read)?;
    }
    Ok(policy.mirrored(RegistriesConf::read(conf, &files())?.mirrors()))
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// If there is none.
pub fn needed(path: &Path, limit: u64) -> Result<String> {
    text(path, limit)?.ok_or_else(|| Error::io(path.display().to_string())(io::ErrorKind::NotFound.into()))
}

/// Reads a file; `None` where there is none, which a link to nothing is not.
fn text(path: &Path, limit: u64) -> Result<Option<String>> {
    let shown = || path.display().to_string();
    match fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        _ => {
            let mut text = String::new();
            let file = fs::File::open(path).map_err(Error::io(shown()))?;
            if file.take(limit + 1).read_to_string(&mut text).map_err(Error::io(shown()))? as u64 > limit {
                return Err(Error::Unavailable { reason: format!("{} is too large", shown()), hint: None });
            }
            Ok(Some(text))
        }
    }
}

/// Returns the files of this machine.
pub fn files() -> Files {
    Files::new(
        |path| fs::read(path).ok(),
        |dir| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect(),
    )
}
