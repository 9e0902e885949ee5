//! Who asks, as an address says it: for git, and for nobody else.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use super::{GitSource, decode, decode_bytes};
use crate::redact::without_credentials;

/// Who asks by HTTP, decoded as git does.
pub(crate) struct Credentials {
    /// Where: protocol, host and port.
    pub place: String,
    pub user: OsString,
    pub password: Option<OsString>,
}

impl GitSource {
    /// Returns what the address says of who asks. A password in one of ssh, which takes none, is nobody's.
    pub(crate) fn credentials(&self) -> Option<Credentials> {
        let (scheme, user, host) = who(&self.url).filter(|(scheme, ..)| matches!(*scheme, "https" | "http"))?;
        let (name, password) = user.split_once(':').map_or((user, None), |(name, password)| (name, Some(password)));
        let decoded = |text: &str| OsString::from_vec(decode_bytes(text));
        let (place, password) = (format!("{scheme}://{host}"), password.map(decoded));
        (!name.is_empty()).then(|| Credentials { place, user: decoded(name), password })
    }

    /// Returns a text of git's without the credentials of this address, or of any other.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let mut clean = text.replace(&self.url, &self.shown);
        for secret in secrets(&self.url) {
            clean = clean.replace(&secret, "***");
        }
        without_credentials(&clean)
    }
}

/// Splits an address that has a user: its scheme, the user with the password, host and port.
fn who(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (user, host) = rest[..rest.find('/').unwrap_or(rest.len())].rsplit_once('@')?;
    Some((scheme, user, host))
}

/// Returns what of an address nobody else may see, the longest first, as given and as it is meant.
fn secrets(url: &str) -> Vec<String> {
    let Some((scheme, user, _)) = who(url) else { return Vec::new() };
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let name = if scheme == "ssh" { "" } else { name };
    let mut found: Vec<String> =
        [user, password, name].iter().flat_map(|text| [Some((*text).to_owned()), decode(text)]).flatten().collect();
    if scheme == "ssh" && password.is_empty() {
        found.clear();
    }
    found.retain(|text| !text.is_empty());
    found.sort_by_key(|text| std::cmp::Reverse(text.len()));
    found
}
