//! What names a skill that is no image yet: a Git repository, the index of a web site, or a path.

use std::fmt;

use crate::error::Result;
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
            text if is_web && text.contains(WELL_KNOWN) => Some(Self::Site(text.to_owned())),
            "." | ".." => Some(Self::Local(text.to_owned())),
            text if ["./", "../", "/"].iter().any(|start| text.starts_with(start)) => {
                Some(Self::Local(text.to_owned()))
            }
            text => GitSource::parse(text).transpose()?.map(|source| Self::Git(Box::new(source))),
        })
    }
}

/// The text that names it, without credentials.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git(source) => source.fmt(f),
            Self::Site(text) | Self::Local(text) => f.write_str(&crate::git_url::without_credentials(text)),
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
        ];
        for (text, want) in cases {
            assert_eq!(kind(text), want, "{text}");
        }
        let shown = Address::of("https://u:secret@site.example/.well-known/agent-skills/").ok().flatten();
        assert_eq!(shown.map(|a| a.to_string()).as_deref(), Some("https://site.example/.well-known/agent-skills/"));
    }
}
