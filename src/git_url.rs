//! Addresses of Git repositories, of revisions and of directories in them.
//!
//! | form | means |
//! |---|---|
//! | `https://HOST/PATH` (also `http`, `ssh`, `git`, `file`, and each with `git+` before it) | the default branch |
//! | `USER@HOST:PATH` | the same by ssh |
//! | `…#REF`, `…#REF:DIRECTORY`, `…#:DIRECTORY` | as podman and BuildKit understand it |
//! | `https://github.com/OWNER/REPO/tree/REF/DIRECTORY` | what the browser shows; `blob` with a file, `commit` with a hash |
//! | `https://HOST/GROUP/…/REPO/-/tree/REF/DIRECTORY` | the same at GitLab |
//!
//! A branch may have slashes in its name, so where `REF` ends in an address of a browser is known only when the repository
//! has been asked ([`GitSource::tree`]).
//!
//! An address may hold credentials. Git is told them, apart from the address; nothing else is.

use std::fmt;

use crate::card::is_name;
use crate::error::{Error, Result};
use crate::text::hidden;

mod credentials;

pub(crate) use credentials::Credentials;

/// What git can be asked to speak; everything else, such as `ext::`, runs commands or is unknown.
const SCHEMES: [&str; 5] = ["https", "http", "ssh", "git", "file"];
/// What images are named with, of which none is a repository.
const TRANSPORTS: [&str; 1] = ["docker"];
/// File that an address may name in place of its directory.
const SKILL: &str = crate::frontmatter::FILE;

/// A repository, and what is wanted of it.
#[derive(Clone, PartialEq, Eq)]
pub struct GitSource {
    /// With the credentials that were typed.
    pub(crate) url: String,
    /// The address without credentials: for git, messages, annotations and receipts.
    pub shown: String,
    /// Branch, tag or commit; the default branch where there is none.
    pub reference: Option<String>,
    /// Directory in the repository; empty for its root.
    pub path: String,
    /// What follows `/tree/` where it is open which part of it is the revision; then there is neither of the two above.
    pub tree: Option<String>,
    /// Who owns the repository, where that can be a namespace: the first part of its path, in lower case.
    pub owner: Option<String>,
}

impl fmt::Debug for GitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GitSource").field(&self.to_string()).finish()
    }
}

/// The text from which [`GitSource::parse`] makes the same source, save for credentials.
impl fmt::Display for GitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tree) = &self.tree {
            let dash = if self.shown.starts_with("https://github.com/") { "" } else { "/-" };
            return write!(f, "{}{dash}/tree/{}", self.shown.trim_end_matches(".git"), encode(tree));
        }
        f.write_str(&self.shown)?;
        match (self.reference.as_deref().unwrap_or_default(), self.path.as_str()) {
            ("", "") => Ok(()),
            (reference, "") => write!(f, "#{reference}"),
            (reference, path) => write!(f, "#{reference}:{path}"),
        }
    }
}

impl GitSource {
    /// Reads an address; `None` for what is none of a repository, such as a reference or a directory.
    ///
    /// The inner error is an address that is refused. It shows no credentials.
    pub fn parse(text: &str) -> Option<Result<Self>> {
        let (before, fragment) = match text.split_once('#') {
            Some((before, fragment)) => (before, Some(fragment)),
            None => (text, None),
        };
        let address = Address::split(before)?;
        Some(address.and_then(|address| address.source(fragment)))
    }

    /// Returns the same with another revision, as `--ref` names it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for what no revision is called.
    pub fn with_reference(mut self, reference: &str) -> Result<Self> {
        check_reference(reference).map_err(|reason| refuse(&self.shown, &reason))?;
        if let Some(tree) = self.tree.take() {
            let named = tree.strip_prefix(reference).and_then(|rest| rest.strip_prefix('/'));
            let rest =
                named.or_else(|| (tree != reference).then(|| tree.split_once('/')).flatten().map(|(_, rest)| rest));
            self.path = directory(rest.unwrap_or_default()).map_err(|reason| refuse(&self.shown, &reason))?;
        }
        self.reference = Some(reference.to_owned());
        Ok(self)
    }

    /// Returns the same with another directory.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for what no directory of a repository is called.
    pub fn with_path(self, path: &str) -> Result<Self> {
        if path.is_empty() {
            return Ok(self);
        }
        check_path(path).map_err(|reason| refuse(&self.shown, &reason))?;
        Ok(Self { path: path.to_owned(), ..self })
    }

    /// Returns the source for a revision with which the open part of a browser's address begins.
    pub(crate) fn split_tree(&self, reference: &str) -> Result<Self> {
        let rest = self.tree.as_deref().and_then(|tree| tree.strip_prefix(reference)).unwrap_or_default();
        let path = directory(rest.trim_start_matches('/')).map_err(|reason| refuse(&self.shown, &reason))?;
        Ok(Self { reference: Some(reference.to_owned()), path, tree: None, ..self.clone() })
    }

    /// Returns the name of the repository: the last part of its path.
    pub fn repository(&self) -> &str {
        let path = self.shown.trim_end_matches('/').trim_end_matches(".git").trim_end_matches('/');
        path.rsplit(['/', ':']).next().unwrap_or(path)
    }

    /// Returns the host, with a user where ssh has one; empty where there is none.
    pub(crate) fn host(&self) -> &str {
        let rest = self.shown.split_once("://").map_or(self.shown.as_str(), |(_, rest)| rest);
        rest.split(['/', ':']).next().unwrap_or_default()
    }

    /// Returns the protocol, as git calls it.
    pub(crate) fn protocol(&self) -> &str {
        self.url.split_once("://").map_or("ssh", |(scheme, _)| scheme)
    }
}

/// An address in parts, of which none is checked but the scheme.
struct Address<'a> {
    /// In lower case; `None` for `user@host:path`.
    scheme: Option<String>,
    user: Option<&'a str>,
    host: &'a str,
    /// With its leading slash where there is a scheme.
    path: &'a str,
}

impl<'a> Address<'a> {
    fn split(text: &'a str) -> Option<Result<Self>> {
        if let Some((helper, _)) = text.split_once("::")
            && is_word(helper)
        {
            return Some(Err(refuse(&format!("{helper}::"), "is no way to a repository that is allowed")));
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Self::scp(text).map(Ok) };
        let scheme = scheme.to_ascii_lowercase();
        if TRANSPORTS.contains(&scheme.as_str()) || !is_word(&scheme) {
            return None;
        }
        let plain = scheme.strip_prefix("git+").unwrap_or(&scheme).to_owned();
        if !SCHEMES.contains(&plain.as_str()) {
            return Some(Err(refuse(&format!("{scheme}://"), "is no way to a repository that is allowed")));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        Some(Ok(Self { scheme: Some(plain), user, host, path }))
    }

    /// Reads `user@host:path`, which no reference to an image is: `name@sha256:…` aside.
    fn scp(text: &'a str) -> Option<Self> {
        let (user, rest) = text.split_once('@')?;
        let (host, path) = rest.split_once(':')?;
        let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let is_address = !user.is_empty() && word(user) && !host.is_empty() && word(host);
        let digest = matches!(host, "sha256" | "sha384" | "sha512");
        (is_address && !digest).then_some(Self { scheme: None, user: Some(user), host, path })
    }

    fn shown(&self) -> String {
        // A user of ssh is a part of the address, as `git@` is everywhere; a user of HTTP may be a token.
        let user = match self.scheme.as_deref() {
            None | Some("ssh") => self.user.map(|user| user.split(':').next().unwrap_or_default()),
            _ => None,
        };
        let user = user.filter(|user| !user.is_empty()).map(|user| format!("{user}@")).unwrap_or_default();
        match &self.scheme {
            None => format!("{user}{}:{}", self.host, self.path),
            Some(scheme) => format!("{scheme}://{user}{}{}", self.host, self.path),
        }
    }

    fn url(&self) -> String {
        match &self.scheme {
            Some(scheme) => {
                let user = self.user.map(|user| format!("{user}@")).unwrap_or_default();
                format!("{scheme}://{user}{}{}", self.host, self.path)
            }
            None => self.shown(),
        }
    }

    fn source(&self, fragment: Option<&str>) -> Result<GitSource> {
        let shown = self.shown();
        // What follows a question mark may be a token.
        let named = match self.has_port() {
            true => shown.split('?').next().unwrap_or_default(),
            // A password with a slash in it would look like this.
            false => "the address of a repository",
        };
        self.check().map_err(|reason| refuse(named, reason))?;
        let mut source = match self.browser().map_err(|reason| refuse(named, &reason))? {
            Some(source) => source,
            None if self.path.contains('?') => {
                return Err(hinted(
                    named,
                    "has a query, which no repository has",
                    "name a branch or tag as in URL#REF",
                ));
            }
            None => {
                let owner = if self.scheme.as_deref() == Some("file") { None } else { owner(self.path) };
                let (reference, path, tree) = (None, String::new(), None);
                GitSource { url: self.url(), shown: shown.clone(), reference, path, tree, owner }
            }
        };
        if let Some(fragment) = fragment {
            let named = source.tree.is_some() || source.reference.is_some();
            // What a browser adds for a line or a heading of a file that it shows.
            if named && self.path.contains("/blob/") {
                return Ok(source);
            }
            if named {
                return Err(refuse(&shown, "names a revision twice"));
            }
            let (reference, path) = fragment.split_once(':').unwrap_or((fragment, ""));
            if !reference.is_empty() {
                check_reference(reference).map_err(|reason| refuse(&shown, &reason))?;
                source.reference = Some(reference.to_owned());
            }
            source.path = directory(path).map_err(|reason| refuse(&shown, &reason))?;
        }
        Ok(source)
    }

    /// Refuses what a program that git starts could take for an option, and what cannot be shown.
    fn check(&self) -> Result<(), &'static str> {
        let texts = [self.user.unwrap_or_default(), self.host, self.path];
        let unseen = |c: char| c.is_control() || c != ' ' && c.is_whitespace() || hidden(c).is_some();
        if texts.iter().any(|text| text.contains(unseen)) {
            return Err("has a character that cannot be seen");
        }
        let user = self.user.unwrap_or_default();
        // With a line of its own it could tell git of another host.
        if decode_bytes(user).iter().any(u8::is_ascii_control) {
            return Err("has credentials with a character that cannot be seen");
        }
        // git sends none without a user.
        if user.len() > 1 && user.starts_with(':') {
            return Err("has a password and no user; most servers take any: https://git:PASSWORD@HOST/PATH");
        }
        let option = |text: &str| text.starts_with('-') || text.to_ascii_lowercase().starts_with("%2d");
        if option(self.host) || self.user.is_some_and(option) || option(self.path) {
            return Err("has a part that begins with a dash, as an option does");
        }
        if self.scheme.as_deref() == Some("file") {
            return match self.host.is_empty() && self.user.is_none() && self.path.starts_with('/') {
                true => Ok(()),
                false => Err("is no absolute path: file:///DIRECTORY"),
            };
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-:[]".contains(&b);
        if self.host.is_empty() || !self.host.bytes().all(legal) || !self.has_port() {
            return Err("has no host, or one that is no name");
        }
        match self.path.trim_matches('/').is_empty() {
            true => Err("names no repository"),
            false => Ok(()),
        }
    }

    /// Returns whether what looks like a port is one.
    fn has_port(&self) -> bool {
        let (_, port) = self.host.rsplit_once(':').unwrap_or(("", ""));
        port.ends_with(']') || port.bytes().all(|b| b.is_ascii_digit())
    }

    /// Reads an address that a browser shows at GitHub and GitLab; `None` for all others.
    fn browser(&self) -> Result<Option<GitSource>, String> {
        if !matches!(self.scheme.as_deref(), Some("https" | "http")) {
            return Ok(None);
        }
        let page = self.path.split('?').next().unwrap_or_default();
        let parts: Vec<&str> = page.split('/').filter(|part| !part.is_empty()).collect();
        let host = self.host.to_ascii_lowercase();
        let (repository, rest) = if matches!(host.as_str(), "github.com" | "www.github.com") {
            if parts.len() < 2 {
                return Err("is no address of a repository".into());
            }
            parts.split_at(2)
        } else if let Some(dash) = parts.iter().position(|part| *part == "-").filter(|at| *at > 1) {
            (&parts[..dash], &parts[dash + 1..])
        } else if host == "gitlab.com" {
            (&parts[..], &parts[..0])
        } else {
            return Ok(None);
        };
        let host = host.strip_prefix("www.").unwrap_or(&host);
        let scheme = if host == "github.com" { "https" } else { self.scheme.as_deref().unwrap_or("https") };
        let name = repository.join("/");
        let at = format!("{host}/{}.git", name.trim_end_matches(".git"));
        let user = self.user.map(|user| format!("{user}@")).unwrap_or_default();
        let mut source = GitSource {
            url: format!("{scheme}://{user}{at}"),
            shown: format!("{scheme}://{at}"),
            reference: None,
            path: String::new(),
            tree: None,
            owner: owner(&name),
        };
        match rest {
            [] => {}
            ["tree", rest @ ..] if !rest.is_empty() => source.open(&rest.join("/"))?,
            ["blob" | "raw", rest @ .., _] if !rest.is_empty() => source.open(&rest.join("/"))?,
            ["commit" | "commits", hash] => source.open(hash)?,
            _ => return Err("is no address of a repository, or of a directory in one".into()),
        }
        Ok(Some(source))
    }
}

impl GitSource {
    /// Takes what follows `/tree/`.
    fn open(&mut self, rest: &str) -> Result<(), String> {
        let rest = decode(rest).ok_or("has a path that is not UTF-8")?;
        let (first, path) = rest.split_once('/').unwrap_or((&rest, ""));
        check_reference(first)?;
        check_path(path)?;
        match path {
            "" => self.reference = Some(rest),
            _ => self.tree = Some(rest),
        }
        Ok(())
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b))
}

/// Returns the first part of a path where it can be a namespace.
fn owner(path: &str) -> Option<String> {
    let (first, _) = path.trim_start_matches('/').split_once('/')?;
    let lower = first.to_ascii_lowercase();
    is_name(&lower).then_some(lower)
}

/// Checks what a branch, tag or commit can be called, as git-check-ref-format(1) says.
pub(crate) fn check_reference(reference: &str) -> Result<(), String> {
    let bad = |what: &str| Err(format!("names the revision {reference:?}, which {what}"));
    if reference.starts_with('-') {
        return bad("begins with a dash, as an option does");
    }
    let illegal = |c: char| c.is_control() || " ~^:?*[\\".contains(c) || hidden(c).is_some();
    if reference.contains(illegal) || reference.contains("..") || reference.contains("@{") || reference == "@" {
        return bad("no branch or tag can be called");
    }
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    match reference.split('/').all(part) && !reference.ends_with('.') {
        true => Ok(()),
        false => bad("no branch or tag can be called"),
    }
}

/// Returns the directory that a path means, which may be that of its `SKILL.md`.
fn directory(path: &str) -> Result<String, String> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let path = match path.rsplit_once('/') {
        Some((directory, SKILL)) => directory,
        None if path == SKILL => "",
        _ => path,
    };
    check_path(path)?;
    Ok(path.to_owned())
}

/// Checks a path in a repository; an empty one is the root.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    let bad = |what: &str| Err(format!("names the directory {path:?}, which {what}"));
    if path.is_empty() {
        return Ok(());
    }
    if path.starts_with('/') {
        return bad("is absolute, and has to be one of the repository");
    }
    if path.chars().any(|c| c.is_control()) {
        return bad("has a character that cannot be seen");
    }
    for part in path.split('/') {
        match part {
            ".." => return bad("leaves the repository"),
            "" | "." => return bad("has an empty part"),
            part if is_git(part) => return bad("no repository can have"),
            _ => {}
        }
    }
    Ok(())
}

/// Returns whether a name is, on some file system, that of the directory in which git keeps its own.
pub(crate) fn is_git(name: &str) -> bool {
    // NTFS goes by the short name as well, and drops dots and spaces at the end; HFS+ drops what cannot be seen.
    let seen: String = name.chars().filter(|c| hidden(*c).is_none()).collect();
    let seen = seen.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    [".git", "git~1"].iter().any(|own| seen.eq_ignore_ascii_case(own))
}

/// Undoes the percent encoding of a browser's address.
fn decode(text: &str) -> Option<String> {
    String::from_utf8(decode_bytes(text)).ok()
}

fn decode_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |b: u8| char::from(b).to_digit(16);
        let mut ahead = rest.clone();
        match (byte, ahead.next().and_then(hex), ahead.next().and_then(hex)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = ahead;
            }
            _ => bytes.push(byte),
        }
    }
    bytes
}

/// Encodes what would end the path of an address.
fn encode(text: &str) -> String {
    let special = |c: char| " %?#".contains(c);
    text.chars().map(|c| if special(c) { format!("%{:02X}", c as u32) } else { c.to_string() }).collect()
}

fn refuse(shown: &str, reason: &str) -> Error {
    Error::Unavailable { reason: format!("{shown} {reason}"), hint: None }
}

fn hinted(shown: &str, reason: &str, hint: &str) -> Error {
    Error::Unavailable { reason: format!("{shown} {reason}"), hint: Some(hint.into()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "git_url_tests.rs"]
mod tests;
