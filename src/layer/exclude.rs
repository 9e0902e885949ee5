//! What of a directory does not become part of the skill, and what must not without being asked for.
//!
//! In this order, for every entry:
//!
//! 1. [`VERSION_CONTROL`] is left out, always.
//! 2. What `--include` names is packed.
//! 3. `.skillignore` at the skill's root (gitignore syntax) leaves out, or with `!` packs what 4 would leave out.
//! 4. [`JUNK`] is left out.
//! 5. [`CREDENTIALS`] stop the build.

use std::io::Read as _;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use nix::libc;

use crate::error::{Error, Result};

/// Name of the file with the skill's own rules.
pub const IGNORE_FILE: &str = ".skillignore";

/// Most bytes of a `.skillignore`; larger ones are not written by hand.
pub(super) const IGNORE_FILE_MAX: u64 = 1 << 20;

/// Files without which the result is no skill.
const REQUIRED: [&str; 2] = ["SKILL.md", "skill.yaml"];

/// Directories, or files in their place, of version control. They hold history and credentials of remotes.
pub const VERSION_CONTROL: &[&str] = &[".git", ".hg", ".svn", ".jj", ".bzr", "CVS"];

/// What editors, desktops and interpreters leave behind; `*` stands for anything.
pub const JUNK: &[&str] = &[
    ".skillignore", // only at the root; its rules mean nothing to a user of the skill
    ".DS_Store",
    "._*", // resource forks that macOS writes to foreign file systems
    ".Spotlight-V100",
    ".Trashes",
    "__MACOSX",
    "Thumbs.db",
    "desktop.ini",
    "*~",
    "*.swp",
    "*.swo",
    ".#*", // locks of Emacs
    "#*#", // and its unsaved text
    ".nfs*",
    ".fuse_hidden*",
    ".idea",
    ".vscode",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".ipynb_checkpoints",
];

/// Files that hold secrets by their name: patterns for the end of a path, and what they are. `*` stands for anything.
pub const CREDENTIALS: &[(&str, &str)] = &[
    (".env", "an environment file, which often holds secrets"),
    (".env.*", "an environment file, which often holds secrets"),
    (".envrc", "an environment file, which often holds secrets"),
    (".netrc", "a file of passwords"),
    ("_netrc", "a file of passwords"),
    (".npmrc", "a registry configuration, which often holds a token"),
    (".pypirc", "a registry configuration, which often holds a token"),
    (".git-credentials", "a file of passwords"),
    (".dockercfg", "a file of registry credentials"),
    (".docker/config.json", "a file of registry credentials"),
    ("containers/auth.json", "a file of registry credentials"),
    (".kube/config", "a file of cluster credentials"),
    (".aws/credentials", "a file of cloud credentials"),
    (".azure/accessTokens.json", "a file of cloud credentials"),
    ("application_default_credentials.json", "a file of cloud credentials"),
    (".cargo/credentials.toml", "a file of registry credentials"),
    (".gem/credentials", "a file of registry credentials"),
    (".pgpass", "a file of passwords"),
    (".my.cnf", "a file of passwords"),
    (".htpasswd", "a file of passwords"),
    (".vault-token", "a token"),
    (".ssh", "a directory of private keys"),
    (".gnupg", "a directory of private keys"),
    ("id_rsa", "a private key"),
    ("id_dsa", "a private key"),
    ("id_ecdsa", "a private key"),
    ("id_ecdsa_sk", "a private key"),
    ("id_ed25519", "a private key"),
    ("id_ed25519_sk", "a private key"),
    ("*.p12", "a key store"),
    ("*.pfx", "a key store"),
];

/// Names that [`CREDENTIALS`] would match, and that are made to be shared.
const TEMPLATES: [&str; 6] =
    [".env.example", ".env.sample", ".env.template", ".env.dist", ".env.defaults", ".env.test.example"];

/// Names of files that hold a private key if their beginning says so.
const MAYBE_KEYS: [&str; 2] = ["*.pem", "*.key"];

/// What is to be done with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Pack it.
    Pack,
    /// Pack it unless its first bytes are those of a private key.
    PackUnlessKey,
    /// Leave it out and count it.
    LeaveOut,
    /// Stop: it is this.
    Credential(&'static str),
}

/// The rules for one skill.
#[derive(Debug)]
pub(super) struct Rules {
    ignore: Gitignore,
    include: Gitignore,
}

impl Rules {
    /// Reads `.skillignore` of `dir`, if there is one, and parses the patterns of `include`.
    pub(super) fn load(dir: &Dir, include: &[String]) -> Result<Self> {
        Self::parse(&read_ignore_file(dir)?, include)
    }

    /// Parses the text of a `.skillignore` and the patterns of `include`.
    pub(super) fn parse(text: &str, include: &[String]) -> Result<Self> {
        let mut ignore = GitignoreBuilder::new("");
        for (number, line) in text.lines().enumerate() {
            ignore.add_line(None, line).map_err(|error| bad_pattern(&format!("line {}: ", number + 1), &error))?;
        }
        let mut wanted = GitignoreBuilder::new("");
        for pattern in include {
            wanted
                .add_line(None, pattern)
                .map_err(|error| Error::Unavailable { reason: format!("--include {pattern}: {error}"), hint: None })?;
        }
        Ok(Self {
            ignore: ignore.build().map_err(|error| bad_pattern("", &error))?,
            include: wanted.build().map_err(|error| bad_pattern("", &error))?,
        })
    }

    /// Decides about `path`, whose content is at `real` (another path where links are followed).
    pub(super) fn judge(&self, path: &str, real: &str, is_dir: bool) -> Result<Verdict> {
        let name = file_name(path);
        if VERSION_CONTROL.contains(&name) {
            return Ok(Verdict::LeaveOut);
        }
        if self.is_included(path, is_dir) || (real != path && self.is_included(real, is_dir)) {
            return Ok(Verdict::Pack);
        }
        let kept = match self.ignore.matched(path, is_dir) {
            Match::Ignore(_) if REQUIRED.contains(&path) => return Err(required(path)),
            Match::Ignore(_) => return Ok(Verdict::LeaveOut),
            Match::Whitelist(_) => true,
            Match::None => false,
        };
        if !kept && JUNK.iter().any(|pattern| matches(pattern, name)) && (name != IGNORE_FILE || path == name) {
            return Ok(Verdict::LeaveOut);
        }
        Ok(credential(real, is_dir))
    }

    /// Tells whether the link at `path` would bring back what `.skillignore` keeps out at `real`, itself or with a
    /// directory that it is in.
    pub(super) fn leaves_out_target(&self, path: &str, real: &str, is_dir: bool) -> bool {
        let wanted = self.is_included(path, is_dir) || self.is_included(real, is_dir);
        !wanted && !real.is_empty() && self.ignore.matched_path_or_any_parents(real, is_dir).is_ignore()
    }

    fn is_included(&self, path: &str, is_dir: bool) -> bool {
        self.include.matched_path_or_any_parents(path, is_dir).is_ignore()
    }
}

/// Tells whether `real`, the target of a link, is inside something that is never packed.
pub(super) fn in_version_control(real: &str) -> bool {
    real.split('/').any(|part| VERSION_CONTROL.contains(&part))
}

/// Tells whether `start` is the beginning of a private key.
pub(super) fn is_private_key(start: &[u8]) -> bool {
    start.windows(11).any(|window| window == b"PRIVATE KEY")
}

fn credential(path: &str, is_dir: bool) -> Verdict {
    let name = file_name(path);
    if TEMPLATES.contains(&name) {
        return Verdict::Pack;
    }
    for (pattern, what) in CREDENTIALS {
        // A directory of the name `.env` is a Python environment.
        if (!is_dir || matches!(*pattern, ".ssh" | ".gnupg")) && matches_end(pattern, path) {
            return Verdict::Credential(what);
        }
    }
    if path.split('/').any(|part| part == ".ssh" || part == ".gnupg") {
        return Verdict::Credential("in a directory of private keys");
    }
    if !is_dir && MAYBE_KEYS.iter().any(|pattern| matches(pattern, name)) {
        return Verdict::PackUnlessKey;
    }
    Verdict::Pack
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Matches as many components at the end of `path` as `pattern` has.
fn matches_end(pattern: &str, path: &str) -> bool {
    let count = pattern.split('/').count();
    let start = path.rmatch_indices('/').nth(count - 1).map_or(0, |(at, _)| at + 1);
    matches(pattern, &path[start..])
}

/// Matches a pattern with at most one `*`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => name.len() > start.len() + end.len() && name.starts_with(start) && name.ends_with(end),
    }
}

fn read_ignore_file(dir: &Dir) -> Result<String> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = match dir.open_with(IGNORE_FILE, &options) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(Error::io(IGNORE_FILE)(error)),
    };
    if !file.metadata().map_err(Error::io(IGNORE_FILE))?.is_file() {
        return Err(refused("is not a regular file"));
    }
    let mut text = String::new();
    file.take(IGNORE_FILE_MAX + 1).read_to_string(&mut text).map_err(Error::io(IGNORE_FILE))?;
    if text.len() as u64 > IGNORE_FILE_MAX {
        return Err(refused("is larger than 1 MiB"));
    }
    Ok(text)
}

fn refused(reason: &str) -> Error {
    Error::RefusedEntry { entry: IGNORE_FILE.into(), reason: reason.into(), hint: None }
}

fn bad_pattern(place: &str, error: &ignore::Error) -> Error {
    refused(&format!("{place}{error}"))
}

fn required(path: &str) -> Error {
    Error::RefusedEntry {
        entry: path.into(),
        reason: "is excluded by .skillignore, but belongs to every skill".into(),
        hint: Some(format!("remove the pattern, or add the line !/{path} at the end of .skillignore")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_known_by_the_end_of_their_path() {
        let cases = [
            (".env", true),
            ("deep/down/.env", true),
            (".env.local", true),
            (".env.example", false),
            ("x/.env.template", false),
            ("env", false),
            ("my.env", false),
            (".aws/credentials", true),
            ("home/.aws/credentials", true),
            ("aws/credentials", false),
            ("credentials", false),
            (".docker/config.json", true),
            ("config.json", false),
            ("id_rsa", true),
            ("id_rsa.pub", false),
            ("keys/id_ed25519", true),
            ("a.p12", true),
            (".p12", false),
        ];
        for (path, want) in cases {
            let got = matches!(credential(path, false), Verdict::Credential(_));
            assert_eq!(got, want, "{path}");
        }
        assert_eq!(credential(".env", true), Verdict::Pack);
        assert_eq!(credential("tls.key", false), Verdict::PackUnlessKey);
        assert!(matches!(credential("x/.ssh", true), Verdict::Credential(_)));
        assert!(matches!(credential(".ssh/known_hosts", false), Verdict::Credential(_)));
    }

    #[test]
    fn junk_patterns() {
        let is_junk = |name: &str| JUNK.iter().any(|pattern| matches(pattern, name));
        for name in [".DS_Store", "._x", "a.md~", ".SKILL.md.swp", ".#lock", "#auto#", "__pycache__", ".vscode"] {
            assert!(is_junk(name), "{name}");
        }
        for name in ["SKILL.md", "~", "#", "##", ".claude", "swp", "a~b", "._"] {
            assert!(!is_junk(name), "{name}");
        }
    }
}
