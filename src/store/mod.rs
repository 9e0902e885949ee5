//! Where images are: the store (an OCI layout) and containers-storage.
//!
//! Tag, digest and state are resolved in the store and never from containers-storage, which keeps one record per image
//! ID and so shows one state for all tags of one content.

pub mod attached;
pub mod blob;
pub mod canary;
pub mod certs;
mod copying;
pub mod credentials;
pub mod files;
mod http;
pub mod index;
pub mod layout;
pub mod locks;
mod place;
pub mod policy;
pub mod private;
pub mod proxies;
pub mod proxy;
pub mod read_only;
pub mod registries_conf;
pub mod registry;
mod registry_auth;
mod registry_error;
mod registry_lists;
mod registry_wire;
pub mod remote;
pub mod remote_attached;
pub mod repository;
pub mod scratch;
pub mod set;
mod set_read;
mod set_write;
pub mod signers;
pub mod skill;
pub mod skopeo;
pub mod storage;
pub mod storage_conf;
pub mod storage_containers;
pub mod storage_images;
pub mod storage_info;
pub mod storage_layer;
pub mod storage_load;
mod storage_source;
pub mod storage_unload;
pub mod stream;
mod tls;
pub mod transfer;
pub mod trusted;
pub mod unpacked;
pub mod web;

use crate::error::{Error, Result};
use crate::image::Info;
use crate::reference::{Reference, is_digest};
use layout::{Entry, Layout};

/// Fewest hexadecimal digits of a digest that name an image: what `list` shows.
const SHORT_DIGEST: usize = 12;

/// A skill image of the store.
#[derive(Debug, Clone)]
pub struct Found {
    /// The index entry.
    pub entry: Entry,
    /// Its manifest, as stored.
    pub manifest: Vec<u8>,
    /// The manifest, read.
    pub info: Info,
}

/// Returns the entry that `text` names: the exact name, the same without `localhost/` or with `:latest`, a digest, or
/// the first 12 or more digits of one.
///
/// # Errors
/// [`Error::ImageNotFound`]; [`Error::InvalidReference`] where the text could name nothing.
pub fn find(entries: &[Entry], text: &str) -> Result<Entry> {
    if let Some(entry) = entries.iter().find(|e| e.name.as_deref() == Some(text) && keeps_its_digest(e)) {
        return Ok(entry.clone());
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if hex.len() >= SHORT_DIGEST
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
        && let Some(entry) = find_digest(entries, hex)?
    {
        return Ok(entry);
    }
    if is_digest(text) {
        return Err(Error::ImageNotFound(text.to_owned()));
    }
    let reference = text.parse::<Reference>()?.or_latest();
    let named =
        entries.iter().find(|entry| entry.name.as_deref().is_some_and(|n| names(n, entry.digest(), &reference)));
    // What lost its tag to a later state has no name any more, and is what its digest says.
    let unnamed = || {
        let same = |entry: &&Entry| entry.name.is_none() && Some(entry.digest()) == reference.digest();
        entries.iter().find(same).filter(|_| reference.tag().is_none())
    };
    named.or_else(unnamed).cloned().ok_or_else(|| Error::ImageNotFound(not_found(entries, text, &reference)))
}

/// Names what was asked for, and the tags that there are where only the tag is wrong: `latest` is easily forgotten. So is what is
/// before the name: of a name alone, those that end in it are named.
fn not_found(entries: &[Entry], text: &str, reference: &Reference) -> String {
    let names = entries.iter().filter_map(|entry| entry.name.as_deref());
    let parsed: Vec<(&str, Reference)> = names.filter_map(|name| Some((name, name.parse().ok()?))).collect();
    let those = |alike: &dyn Fn(&Reference) -> bool| -> Vec<&str> {
        parsed.iter().filter(|(_, own)| alike(own)).map(|(name, _)| *name).collect()
    };
    let mut others = those(&|own| own.name() == reference.name());
    if others.is_empty() {
        others = those(&|own| own.basename() == reference.name());
    }
    match &others[..] {
        [] => text.to_owned(),
        others => format!("{text} (there is {})", others.join(", ")),
    }
}

fn find_digest(entries: &[Entry], hex: &str) -> Result<Option<Entry>> {
    let begins = |entry: &&Entry| entry.digest().strip_prefix("sha256:").is_some_and(|digest| digest.starts_with(hex));
    let mut matches = entries.iter().filter(begins);
    let Some(first) = matches.next() else {
        return Ok(None);
    };
    if matches.any(|other| other.digest() != first.digest()) {
        return Err(Error::InvalidReference { input: hex.to_owned(), reason: "several digests begin so".into() });
    }
    Ok(Some(first.clone()))
}

/// Returns whether an entry whose name has a digest is what that says: a name is anybody's word.
fn keeps_its_digest(entry: &Entry) -> bool {
    let name = entry.name.as_deref().and_then(|name| name.parse::<Reference>().ok());
    name.is_none_or(|name| name.digest().is_none_or(|digest| digest == entry.digest()))
}

/// Returns whether the entry `name` with `digest` is what `reference` asks for.
fn names(name: &str, digest: &str, reference: &Reference) -> bool {
    let Ok(own) = name.parse::<Reference>() else {
        return false;
    };
    let own = own.or_latest();
    match (reference.digest(), reference.tag()) {
        // What was pulled by tag and digest has its digest for a name.
        (Some(wanted), Some(_)) => {
            let named = own.tag() == reference.tag() || own.digest() == Some(wanted);
            own.name() == reference.name() && named && digest == wanted
        }
        (Some(wanted), None) => own.name() == reference.name() && digest == wanted,
        (None, _) => own == *reference,
    }
}

/// Finds an image in the store and reads its manifest.
///
/// # Errors
/// As [`find`]; [`Error::Damaged`] if the manifest is not what the entry says.
pub fn open(layout: &Layout, text: &str) -> Result<Found> {
    read(layout, lookup(layout, text)?)
}

/// Finds an entry of the store, else of those behind it; see [`find`].
///
/// # Errors
/// As [`find`].
pub fn lookup(layout: &Layout, text: &str) -> Result<Entry> {
    locate(layout, text).map(|(_, entry)| entry)
}

/// Finds an entry, and the store that has it.
///
/// # Errors
/// As [`find`].
pub fn locate<'a>(layout: &'a Layout, text: &str) -> Result<(&'a Layout, Entry)> {
    let mut missing = text.to_owned();
    for store in layout.all() {
        match lookup_in(store, text) {
            // The first that knows other tags tells of them.
            Err(Error::ImageNotFound(what)) if missing == text => missing = what,
            Err(Error::ImageNotFound(_)) => {}
            found => return found.map(|entry| (store, entry)),
        }
    }
    Err(Error::ImageNotFound(missing))
}

fn lookup_in(layout: &Layout, text: &str) -> Result<Entry> {
    // The part of a name or digest that its entry must have, unless another tool escaped it.
    let word = text.rsplit(['/', ':', '@']).next().unwrap_or(text);
    match find(&layout.entries_with(word)?, text) {
        Err(Error::ImageNotFound(_)) => find(&layout.entries()?, text),
        found => found,
    }
}

/// Reads the manifest of an entry.
///
/// # Errors
/// [`Error::Damaged`] if it is not what the entry says.
pub fn read(layout: &Layout, entry: Entry) -> Result<Found> {
    let manifest = layout.read_json(&entry.descriptor)?;
    let object = entry.name.clone().unwrap_or_else(|| entry.digest().to_owned());
    let info = Info::parse(&manifest, &object)?;
    Ok(Found { entry, manifest, info })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(name: &str, fill: char) -> Entry {
        let digest = format!("sha256:{}", fill.to_string().repeat(64));
        let json =
            serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1});
        Entry { name: Some(name.to_owned()), descriptor: serde_json::from_value(json).unwrap() }
    }

    #[test]
    fn names_digests_and_short_digests_are_found() {
        let entries = [
            entry("acme/hr:1.0.0", 'a'),
            entry("localhost/acme/legal:2", 'b'),
            entry("quay.io/o/n:latest", 'c'),
            entry("Odd Name", 'd'),
        ];
        let full = format!("acme/hr:1.0.0@sha256:{}", "a".repeat(64));
        let cases = [
            ("acme/hr:1.0.0", 'a'),
            ("localhost/acme/hr:1.0.0", 'a'),
            ("acme/legal:2", 'b'),
            ("quay.io/o/n", 'c'),
            ("Odd Name", 'd'),
            ("cccccccccccc", 'c'),
            (&full, 'a'),
        ];
        for (text, fill) in cases {
            assert_eq!(
                find(&entries, text).unwrap().digest(),
                format!("sha256:{}", fill.to_string().repeat(64)),
                "{text}"
            );
        }
        let wrong = format!("acme/hr:1.0.0@sha256:{}", "b".repeat(64));
        for text in ["acme/hr", &wrong, "ddddddddddde"] {
            assert!(matches!(find(&entries, text), Err(Error::ImageNotFound(_))), "{text}");
        }
        let cases =
            [("acme/hr", Some("acme/hr:1.0.0")), ("hr", Some("acme/hr:1.0.0")), ("other/hr", None), ("acme/h", None)];
        for (text, there) in cases {
            let want = there.map_or_else(|| text.to_owned(), |there| format!("{text} (there is {there})"));
            let Err(Error::ImageNotFound(found)) = find(&entries, text) else { panic!("{text}") };
            assert_eq!(found, want);
        }
    }
}
