//! What names a skill that is no image yet: a Git repository, the index of a web site, or a path.

use std::fmt;

use crate::error::{Error, Result};
use crate::git_url::GitSource;

/// What is in the address of an index of skills and in no repository's (agent-skills-discovery).
const WELL_KNOWN: &str = "/.well-known/";

/// Where skills are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Git repository, at a revision, and a directory in it.
    Git(Box<GitSource>),
    /// The index of a web site.
    Site(String),
    /// A directory or an archive.
    Local(String),
}

impl Address {
    /// Reads what a user gave; `None` for what is none of these, such as an image's reference.
    ///
    /// # Errors
    /// For the address of a repository that is refused; it shows no credentials.
    pub fn of(text: &str) -> Result<Option<Self>> {
        let is_web = ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme));
        Ok(match text {
            text if is_web && text.contains(WELL_KNOWN) => Some(site(text)?),
            "." | ".." => Some(Self::Local(text.to_owned())),
            text if ["./", "../", "/"].iter().any(|start| text.starts_with(start)) => {
                Some(Self::Local(text.to_owned()))
            }
            text => GitSource::parse(text).transpose()?.map(|source| Self::Git(Box::new(source))),
        })
    }
}

/// Takes the address of an index. No site is told a password, and what looks like one may not even be asked for as a host.
fn site(text: &str) -> Result<Address> {
    let (before, _) = text.split_once(WELL_KNOWN).unwrap_or((text, ""));
    match before.contains('@') {
        true => Err(Error::Unavailable {
            reason: "the address of an index of skills has a user, whom no site is told".into(),
            hint: Some("leave out what is before the host, and the @".into()),
        }),
        false => Ok(Address::Site(text.to_owned())),
    }
}

/// The text that names it, without credentials.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git(source) => source.fmt(f),
            Self::Site(text) | Self::Local(text) => f.write_str(&crate::redact::without_credentials(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_references() {
        let kind = |text: &str| match Address::of(text) {
            Ok(None) => "none",
            Ok(Some(Address::Git(_))) => "git",
            Ok(Some(Address::Site(_))) => "site",
            Ok(Some(Address::Local(_))) => "local",
            Err(_) => "refused",
        };
        let cases = [
            ("acme/hr:1.0.0", "none"),
            ("registry.example:5000/acme/hr@sha256:00", "none"),
            ("docker://docker.io/acme/hr", "none"),
            ("oci:/tmp/x", "none"),
            ("https://github.com/acme/skills#v2:skills/hr", "git"),
            ("git@git.example:acme/skills", "git"),
            ("https://site.example/.well-known/agent-skills/index.json", "site"),
            ("https://site.example/.well-known/skills/", "site"),
            (".", "local"),
            ("./hr.zip", "local"),
            ("../hr", "local"),
            ("/srv/hr", "local"),
            ("ext::sh -c x", "refused"),
            ("https://u:p@site.example/.well-known/skills/", "refused"),
            ("https://u:p/q@site.example/.well-known/skills/", "refused"),
        ];
        for (text, want) in cases {
            assert_eq!(kind(text), want, "{text}");
        }
        let shown = Address::of("https://site.example/.well-known/agent-skills/?secret").ok().flatten();
        assert_eq!(shown.map(|a| a.to_string()).as_deref(), Some("https://site.example/.well-known/agent-skills/"));
    }
}
