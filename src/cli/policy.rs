//! The trust policy of a machine and of its user, as it is read for verbs and hooks: `/etc/skillctl/trust.toml`, and the same below the
//! directory of the user's configuration.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::shell::Shell;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::store::files::Files;
use crate::store::registries_conf::{ConfPaths, RegistriesConf};
use crate::trust::policy::{FILE, MAX_FILE, Policy};

/// The directory of the machine's configuration.
pub const ETC: &str = "/etc";

/// Reads the policy from below directories of configuration. One that cannot be read is one by which nothing may be used.
pub fn read<'a>(below: impl IntoIterator<Item = &'a Path>, conf: impl FnOnce() -> ConfPaths) -> Policy {
    let texts: Result<Vec<_>> = below
        .into_iter()
        .map(|dir| dir.join(FILE))
        .filter_map(|path| text(&path, MAX_FILE).transpose().map(|text| Ok((path, text?))))
        .collect();
    match texts {
        // The usual case, in which nothing else is looked at.
        Ok(texts) if texts.is_empty() => Policy::default(),
        texts => texts.and_then(|texts| parse(texts, &conf())).unwrap_or_else(|e| Policy::unreadable(&e)),
    }
}

fn parse(texts: Vec<(PathBuf, String)>, conf: &ConfPaths) -> Result<Policy> {
    let mut policy = Policy::default();
    for (path, text) in texts {
        let dir = path.parent().unwrap_or(Path::new("/"));
        let read = |name: &str, limit| Ok(needed(&dir.join(name), limit)?.into_bytes());
        let shown = path.display().to_string();
        policy.add(&text, &shown, &read)?;
        let conf = RegistriesConf::read(&deciding(&path, conf), &files())?;
        policy = policy.mirrored(&shown, &conf.mirrors());
    }
    Ok(policy)
}

/// Returns the files that say of which names the scopes of a policy have mirrors. What a user writes would make the signature of one
/// repository count for another: for the machine's scopes only the machine's files do.
fn deciding(policy: &Path, conf: &ConfPaths) -> ConfPaths {
    match conf.uid != 0 && policy.starts_with(ETC) {
        true => ConfPaths { uid: conf.uid, ..ConfPaths::default() },
        false => conf.clone(),
    }
}

/// Warns where an image gets a name under which less is asked of it.
pub fn warn_of_less(shell: &Shell, from: &Reference, to: &Reference) {
    let policy = shell.policy();
    let left: Vec<&str> = policy.left(from, to).into_iter().map(|scope| scope.rule.source.as_str()).collect();
    if !left.is_empty() {
        let why = format!("what is asked of {} ({}) is not asked of {}", from.name(), left.join("; "), to.name());
        shell.warnings(&[why]);
    }
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// If there is none.
pub fn needed(path: &Path, limit: u64) -> Result<String> {
    text(path, limit)?.ok_or_else(|| Error::io(path.display().to_string())(Errno::ENOENT.into()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_files_widen_no_scope_of_the_machine() {
        let of = |uid| ConfPaths {
            uid,
            home: Some("/home/u".into()),
            xdg_cache_home: None,
            registries_conf: Some("/own.conf".into()),
        };
        let (machine, user) = (Path::new("/etc/skillctl/trust.toml"), Path::new("/home/u/.config/skillctl/trust.toml"));
        for (policy, uid, own) in [(machine, 1000, false), (user, 1000, true), (machine, 0, true), (user, 0, true)] {
            let decides = deciding(policy, &of(uid));
            assert_eq!((decides.home.is_some(), decides.registries_conf.is_some()), (own, own), "{policy:?} {uid}");
        }
    }
}
