//! Image references: `[transport:]name[:tag][@digest]`.
//!
//! The grammar is that of the OCI distribution specification and of docker/distribution's `reference` package. Names
//! that carry no registry are local: `acme/hr`. podman and containers-storage spell them `localhost/acme/hr`; the two
//! are one image, so a leading `localhost/` is dropped when a reference is read and added by
//! [`Reference::in_storage`].

use std::{fmt, str::FromStr};

use crate::error::{Error, Result};

/// Longest name (registry and repository together), as in docker/distribution.
const MAX_NAME: usize = 255;
/// Longest tag, by the distribution specification.
const MAX_TAG: usize = 128;
/// What podman puts before a name without a registry.
/// What names without a registry have in containers-storage.
pub const LOCALHOST: &str = "localhost/";

/// A reference without a transport: a name, and a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    name: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Returns registry and repository, without a leading `localhost/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the tag, where one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest (`sha256:…`), where one was given.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Returns the registry: a first component with `.` or `:`, or `localhost` with a port.
    pub fn registry(&self) -> Option<&str> {
        self.name.split_once('/').map(|(first, _)| first).filter(|first| is_registry(first))
    }

    /// Returns the same reference as a registry's: a name without one is Docker Hub's, as after `docker://`.
    ///
    /// # Errors
    /// If the name becomes too long.
    pub fn on_registry(&self) -> Result<Self> {
        if self.registry().is_some() {
            return Ok(self.clone());
        }
        let library = if self.name.contains('/') { "" } else { "library/" };
        let name = format!("docker.io/{library}{}", self.name);
        check_name(&name, &name)?;
        Ok(Self { name, ..self.clone() })
    }

    /// Returns whether the whole name looks like a registry, without a repository: `registry.example`, `localhost:5000`.
    pub fn is_host(&self) -> bool {
        let port = |tag: &str| tag.bytes().all(|b| b.is_ascii_digit());
        !self.name.contains('/') && (self.name.contains('.') || self.name == "localhost" && self.tag().is_none_or(port))
    }

    /// Returns the last component of the name.
    pub fn basename(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    /// Returns the same name with another tag and no digest.
    ///
    /// # Errors
    /// If `tag` is not a legal tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        check_tag(tag, tag)?;
        Ok(Self { name: self.name.clone(), tag: Some(tag.to_owned()), digest: None })
    }

    /// Returns the same name with a digest and no tag.
    ///
    /// # Errors
    /// If `digest` is not `sha256:` and 64 hexadecimal digits.
    pub fn with_digest(&self, digest: &str) -> Result<Self> {
        check_digest(digest, digest)?;
        Ok(Self { name: self.name.clone(), tag: None, digest: Some(digest.to_owned()) })
    }

    /// Returns the name alone.
    #[must_use]
    pub fn repository(&self) -> Self {
        Self { name: self.name.clone(), tag: None, digest: None }
    }

    /// Returns the same reference with the tag `latest` where it has neither tag nor digest, as podman reads it.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// Returns the fully qualified form that containers-storage keeps: unqualified names below `localhost/`.
    pub fn in_storage(&self) -> String {
        match self.registry() {
            Some(_) => self.to_string(),
            None => format!("{LOCALHOST}{self}"),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(input: &str) -> Result<Self> {
        if let (Some(_), rest) = Transport::split(input) {
            return Err(invalid(input, format!("a name without a transport is expected here, such as {rest}")));
        }
        let (rest, digest) = match input.split_once('@') {
            Some((rest, digest)) => (rest, Some(check_digest(digest, input)?.to_owned())),
            None => (input, None),
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag {
            check_tag(tag, input)?;
        }
        let name = name.strip_prefix(LOCALHOST).unwrap_or(name);
        check_name(name, input)?;
        Ok(Self { name: name.to_owned(), tag: tag.map(str::to_owned), digest })
    }
}

/// Splits the text of a reference without digest at the colon of its tag, which is the last one after the last slash.
pub fn split_tag(text: &str) -> (&str, Option<&str>) {
    let start = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[start..].rfind(':') {
        // A lone `host:5000` has no repository after it, so its colon starts a tag as well.
        Some(colon) => (&text[..start + colon], Some(&text[start + colon + 1..])),
        None => (text, None),
    }
}

/// Returns whether the first component of a name is a registry host.
fn is_registry(component: &str) -> bool {
    component.contains(['.', ':']) || component == "localhost"
}

/// Returns whether `text` is `sha256:` and 64 hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn invalid(input: &str, reason: impl Into<String>) -> Error {
    Error::InvalidReference { input: input.to_owned(), reason: reason.into() }
}

fn check_digest<'a>(digest: &'a str, input: &str) -> Result<&'a str> {
    if is_digest(digest) { Ok(digest) } else { Err(invalid(input, "a digest is sha256: and 64 hexadecimal digits")) }
}

/// Returns whether `text` is a tag by the grammar of the distribution specification.
pub fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= MAX_TAG && text.starts_with(word) && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn check_tag(tag: &str, input: &str) -> Result<()> {
    if is_tag(tag) {
        Ok(())
    } else {
        Err(invalid(
            input,
            format!(
                "a tag is at most {MAX_TAG} of letters, digits, '_', '.' and '-', and starts with none of the last two"
            ),
        ))
    }
}

fn check_name(name: &str, input: &str) -> Result<()> {
    if name.is_empty() {
        return Err(invalid(input, "it has no name"));
    }
    if name.len() > MAX_NAME {
        return Err(invalid(input, format!("the name is longer than {MAX_NAME} characters")));
    }
    let path = match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => {
            check_registry(first, input)?;
            rest
        }
        _ => name,
    };
    for component in path.split('/') {
        if !is_path_component(component) {
            let reason = if component.chars().any(char::is_uppercase) {
                format!("{component:?} must be lower case")
            } else {
                format!(
                    "{component:?} is not lower-case letters and digits, separated by single '.' or '_', '__' or '-'s"
                )
            };
            return Err(invalid(input, reason));
        }
    }
    Ok(())
}

/// Checks `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_path_component(component: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = component.split(alnum).filter(|s| !s.is_empty());
    component.starts_with(alnum)
        && component.ends_with(alnum)
        && separators.into_iter().all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn check_registry(registry: &str, input: &str) -> Result<()> {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let ipv6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_ok = match ipv6 {
        Some(address) => !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        }),
    };
    let port_ok = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    if host_ok && port_ok { Ok(()) } else { Err(invalid(input, format!("{registry:?} is not a registry host"))) }
}

/// A transport of containers-transports(5) that can be spelled before a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `containers-storage:` what podman and CRI-O mount from
    ContainersStorage,
    /// `oci:` an OCI image layout directory
    Oci,
    /// `oci-archive:` the same in a tar file
    OciArchive,
    /// `dir:` a directory of blobs
    Dir,
    /// `docker-archive:` the output of `docker save`
    DockerArchive,
    /// `docker://` a registry
    Docker,
}

const TRANSPORTS: [(&str, Transport); 6] = [
    ("containers-storage:", Transport::ContainersStorage),
    ("oci-archive:", Transport::OciArchive),
    ("oci:", Transport::Oci),
    ("dir:", Transport::Dir),
    ("docker-archive:", Transport::DockerArchive),
    ("docker://", Transport::Docker),
];

impl Transport {
    /// Splits a spelled transport off `text`; text without one is a bare reference.
    pub fn split(text: &str) -> (Option<Self>, &str) {
        TRANSPORTS
            .into_iter()
            .find_map(|(prefix, transport)| text.strip_prefix(prefix).map(|rest| (Some(transport), rest)))
            .unwrap_or((None, text))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn parts_of_legal_references() {
        let long = format!("quay.io/{}", "a".repeat(MAX_NAME - 8));
        let cases = [
            ("acme/hr:1.0.0-draft", None, "acme/hr", Some("1.0.0-draft"), "localhost/acme/hr:1.0.0-draft"),
            ("localhost/acme/hr:1", None, "acme/hr", Some("1"), "localhost/acme/hr:1"),
            (
                "localhost:5000/ns/name",
                Some("localhost:5000"),
                "localhost:5000/ns/name",
                None,
                "localhost:5000/ns/name",
            ),
            ("quay.io/o/n:1.0", Some("quay.io"), "quay.io/o/n", Some("1.0"), "quay.io/o/n:1.0"),
            ("[::1]:5000/n:t", Some("[::1]:5000"), "[::1]:5000/n", Some("t"), "[::1]:5000/n:t"),
            ("hr", None, "hr", None, "localhost/hr"),
            ("a__b/c.d/e--f:_x", None, "a__b/c.d/e--f", Some("_x"), "localhost/a__b/c.d/e--f:_x"),
            (&long, Some("quay.io"), &long, None, &long),
        ];
        for (text, registry, name, tag, in_storage) in cases {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.registry(), registry, "{text}");
            assert_eq!(reference.name(), name, "{text}");
            assert_eq!(reference.tag(), tag, "{text}");
            assert_eq!(reference.in_storage(), in_storage, "{text}");
        }
    }

    #[test]
    fn a_tag_and_a_digest_may_stand_together() {
        let reference: Reference = format!("q.io/o/n:1.0@{DIGEST}").parse().unwrap();
        assert_eq!((reference.tag(), reference.digest(), reference.basename()), (Some("1.0"), Some(DIGEST), "n"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("", "it has no name"),
            ("acme/HR:1", "\"HR\" must be lower case"),
            ("acme//hr", "\"\" is not lower-case"),
            ("acme/hr:", "a tag is at most"),
            ("acme/hr:-x", "a tag is at most"),
            ("acme/hr@sha256:12", "a digest is sha256:"),
            ("acme/-hr", "\"-hr\" is not lower-case"),
            ("a.-b/hr", "is not a registry host"),
            ("acme/a___b", "is not lower-case"),
            ("acme/h\u{202e}r", "is not lower-case"),
        ];
        for (text, reason) in cases {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn transports_are_split_off() {
        let cases = [
            ("oci:/tmp/x:tag", Some(Transport::Oci), "/tmp/x:tag"),
            ("oci-archive:a.tar", Some(Transport::OciArchive), "a.tar"),
            ("docker://q.io/a", Some(Transport::Docker), "q.io/a"),
            ("oci/hr:1", None, "oci/hr:1"),
        ];
        for (text, transport, rest) in cases {
            assert_eq!(Transport::split(text), (transport, rest));
        }
    }

    proptest! {
        #[test]
        fn printing_a_reference_gives_it_back(text in "([a-z]{1,5}\\.io/)?[a-z0-9]{1,8}(/[a-z0-9]{1,3}(-|__|\\.)[a-z]{1,3})?(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,9})?") {
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(reference.to_string(), text);
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
