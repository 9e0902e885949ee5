//! A published tag keeps its content: whoever pinned a version gets what was published.
//!
//! The tag of a version is published when its image says so (published or deprecated) and the tag is its version.
//! `latest` and the tags of drafts move. The same content may go on to a later state: that is promotion.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::format::{Format, Shape};
use crate::image::{Info, STATUS, TOMBSTONE, oci};
use crate::lifecycle::State;
use crate::reference::Reference;
use crate::store::layout::Layout;

/// An image as a tag has it, or would have it.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// Digest of its manifest.
    pub digest: &'a str,
    /// What the manifest says.
    pub info: &'a Info,
}

/// Checks that `new` may take the tag of `reference` from `held`.
///
/// # Errors
/// [`Error::Unavailable`] where the tag is published with other content, or in a later state.
pub fn check(reference: &Reference, held: Version<'_>, new: Version<'_>) -> Result<()> {
    let state = held.info.state();
    let published =
        state.is_some_and(|state| state >= State::Published) && reference.tag() == Some(held.info.get(oci::VERSION));
    let same_content = held.info.config.is_some() && content(held.info) == content(new.info);
    if !published || held.digest == new.digest || (same_content && new.info.state() >= state) {
        return Ok(());
    }
    let state = state.map(State::as_str).unwrap_or_default();
    let reason = match same_content {
        true => format!("{reference} is {state}, and would go back to an earlier state"),
        false => format!("{reference} is {state} with {}, and would become {}", held.digest, new.digest),
    };
    Err(Error::Unavailable { reason, hint: Some("make a new version, or replace this one with --force".into()) })
}

/// Returns everything that promotion leaves alone: config, layers, and all annotations but the state.
fn content(info: &Info) -> (String, Vec<&str>, Vec<(&str, &str)>) {
    let layers = info.layers.iter().map(|layer| layer.digest().as_ref()).collect();
    let annotations = info.annotations.iter().filter(|(key, _)| !matches!(key.as_str(), STATUS | TOMBSTONE));
    (info.image_id(), layers, annotations.map(|(key, value)| (key.as_str(), value.as_str())).collect())
}

/// Points `reference` at an index entry, unless it is published with other content and `force` is not given.
///
/// # Errors
/// As [`check`], and if the index cannot be changed.
pub fn set(layout: &Layout, reference: &Reference, entry: &Value, force: bool) -> Result<()> {
    layout.set_if(&reference.to_string(), entry, |held| match held {
        Some(held) if !force => check_entry(layout, reference, held, entry),
        _ => Ok(()),
    })
}

/// Checks that an index entry may take a name from another.
///
/// # Errors
/// As [`check`].
pub fn check_entry(layout: &Layout, reference: &Reference, held: &Value, new: &Value) -> Result<()> {
    // A manifest that cannot be read protects nothing any more.
    let Ok((held_digest, held)) = read(layout, held) else { return Ok(()) };
    let (digest, new) = read(layout, new)?;
    check(reference, Version { digest: &held_digest, info: &held }, Version { digest: &digest, info: &new })
}

/// Points `reference` at what was built, as [`set`] does, and neither from an image to an artifact nor back: where nobody
/// names them, both of one skill have one name.
///
/// # Errors
/// As [`set`].
pub fn set_built(layout: &Layout, reference: &Reference, entry: &Value, force: bool) -> Result<()> {
    layout.set_if(&reference.to_string(), entry, |held| match held {
        Some(held) if !force => {
            check_entry(layout, reference, held, entry)?;
            check_kind(layout, reference, held, entry)
        }
        _ => Ok(()),
    })
}

fn check_kind(layout: &Layout, reference: &Reference, held: &Value, new: &Value) -> Result<()> {
    let Ok((_, held)) = read(layout, held) else { return Ok(()) };
    let (held, new) = (kind(&held), kind(&read(layout, new)?.1));
    if held == new {
        return Ok(());
    }
    let reason = format!("{reference} is an {held}, and would become an {new}");
    let hint = format!("name another (build -t NAME:TAG, convert FROM NAME:TAG), or skillctl rm {reference} first");
    Err(Error::Unavailable { reason, hint: Some(hint) })
}

/// Returns what runtimes mount, or what they do not.
fn kind(info: &Info) -> &'static str {
    let is_image = Format::of(info, "").is_ok_and(|format| format.shape != Shape::Parts);
    if is_image || !info.instances.is_empty() { "image" } else { "artifact" }
}

fn read(layout: &Layout, entry: &Value) -> Result<(String, Info)> {
    let digest = entry["digest"].as_str().unwrap_or_default().to_owned();
    let descriptor = serde_json::from_value(entry.clone()).map_err(|e| Error::damaged(&digest, e))?;
    let info = Info::parse(&layout.read_json(&descriptor)?, &digest)?;
    Ok((digest, info))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::image::{self, Blob, Profile};

    fn info(state: &str, content: char) -> Info {
        let blob = |c: char| Blob { digest: format!("sha256:{}", c.to_string().repeat(64)), size: 1 };
        let annotations = BTreeMap::from([
            (image::STATUS.to_owned(), state.to_owned()),
            (oci::VERSION.to_owned(), "1.0.0".to_owned()),
        ]);
        let bytes = image::manifest(Profile::Standard, &blob(content), &blob('f'), &annotations);
        Info::parse(&bytes, "test").unwrap()
    }

    #[test]
    fn published_content_stays() {
        let cases = [
            ("acme/hr:1.0.0", ("published", 'a'), ("draft", 'b'), false),
            ("acme/hr:1.0.0", ("published", 'a'), ("published", 'b'), false),
            ("acme/hr:1.0.0", ("deprecated", 'a'), ("published", 'b'), false),
            ("acme/hr:1.0.0", ("published", 'a'), ("testing", 'a'), false),
            ("acme/hr:1.0.0", ("published", 'a'), ("deprecated", 'a'), true),
            ("acme/hr:1.0.0", ("draft", 'a'), ("draft", 'b'), true),
            ("acme/hr:latest", ("published", 'a'), ("published", 'b'), true),
            ("acme/hr:1.0.0-draft", ("draft", 'a'), ("draft", 'b'), true),
        ];
        for (reference, held, new, allowed) in cases {
            let (one, other) = (info(held.0, held.1), info(new.0, new.1));
            let result = check(
                &reference.parse().unwrap(),
                Version { digest: "sha256:1", info: &one },
                Version { digest: "sha256:2", info: &other },
            );
            assert_eq!(result.is_ok(), allowed, "{reference} {held:?} {new:?}: {result:?}");
        }
        let held = info("published", 'a');
        let same = Version { digest: "sha256:1", info: &held };
        assert!(check(&"acme/hr:1.0.0".parse().unwrap(), same, same).is_ok());
    }
}
