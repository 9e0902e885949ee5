//! `mirror`: images with all that belongs to them, from anywhere to a registry, a layout or an archive.

use anyhow::Result;
use serde::Serialize;

use super::collection::Means;
use super::push::send_all;
use super::save::{To, write_set};
use super::set::{Gathered, gather};
use crate::error::Error;
use crate::process::Cancel;
use crate::reference::Reference;
use crate::store::remote::Remote;
use crate::store::set::{self, Member, Source};

/// An image that was copied.
#[derive(Debug, Clone, Serialize)]
pub struct Mirrored {
    /// What it was called.
    pub source: String,
    /// What it is called there.
    pub destination: String,
    /// Digest of its manifest, here and there.
    pub digest: String,
    /// Number of images of signatures and of other things that came along.
    pub attached: usize,
}

/// Gathers images by name, with `single` from one registry alone, and all those of layouts that were opened. The caller holds [`crate::store::layout::Layout::writing`].
///
/// # Errors
/// As [`gather`]; what is wrong with a layout.
pub fn collect(
    means: &Means<'_>,
    (texts, single): (&[String], bool),
    sources: &[Source],
    cancel: &Cancel,
) -> Result<Gathered> {
    let mut gathered = gather(means, texts, single)?;
    for source in sources {
        let members = set::read(source)?;
        if members.is_empty() {
            return Err(source.refused("it has no image with a name").into());
        }
        source.take(means.layout, &members, cancel)?;
        gathered.members.extend(members);
    }
    gathered.members.sort_by(|a, b| a.name.cmp(&b.name));
    let same = |pair: &[Member]| pair[0].name == pair[1].name && pair[0].manifest.digest != pair[1].manifest.digest;
    if let Some([one, other]) = gathered.members.windows(2).find(|pair| same(pair)) {
        let (name, one, other) = (&one.name, &one.manifest.digest, &other.manifest.digest);
        let reason = format!("{name} is there twice, as {one} and {other}");
        return Err(Error::Unavailable { reason, hint: None }.into());
    }
    gathered.members.dedup_by(|one, other| one.name == other.name);
    Ok(gathered)
}

/// Returns what an image is called below a prefix: `registry.b/mirror` makes `registry.b/mirror/acme/hr:1.0.0` of
/// `registry.a/acme/hr:1.0.0` and of `acme/hr:1.0.0`.
///
/// # Errors
/// If that is no name.
pub fn below(prefix: &str, name: &Reference) -> Result<Reference, Error> {
    let path = match name.registry() {
        Some(registry) => name.name().trim_start_matches(registry).trim_start_matches('/'),
        None => name.name(),
    };
    let whole: Reference = format!("{prefix}/{path}").parse()?;
    match (name.digest(), name.tag()) {
        (Some(digest), _) => whole.with_digest(digest),
        (None, Some(tag)) => whole.with_tag(tag),
        (None, None) => Ok(whole.or_latest()),
    }
}

/// Copies images to a registry, each below a prefix. Where one fails, those before it are there, and the same command goes on.
///
/// # Errors
/// If two would have one name; as [`send_all`], for the first that fails.
pub fn to_registry(
    means: &Means<'_>,
    to: &Remote,
    members: &[Member],
    (prefix, force): (&str, bool),
    mut done: impl FnMut(&Mirrored) -> Result<()>,
) -> Result<Vec<Mirrored>> {
    let mut names = Vec::<Reference>::new();
    for member in members {
        let name = below(prefix, &member.name)?;
        if names.contains(&name) {
            let reason = format!("two of the images would be {name}");
            return Err(Error::Unavailable { reason, hint: Some("give them to two mirror commands".into()) }.into());
        }
        names.push(name);
    }
    let mut all = Vec::new();
    for (member, name) in members.iter().zip(names) {
        send_all((means.layout, to), member, &name, force, means.copying)?;
        let mirrored = mirrored(member, name.to_string());
        done(&mirrored)?;
        all.push(mirrored);
    }
    Ok(all)
}

/// Copies images to a layout or an archive, under the names that they have.
///
/// # Errors
/// As [`write_set`].
pub fn to_layout(means: &Means<'_>, members: &[Member], (name, to): (&str, To<'_>)) -> Result<Vec<Mirrored>> {
    write_set(means, members, (name, to))?;
    Ok(members.iter().map(|member| mirrored(member, format!("{name}:{}", member.name))).collect())
}

fn mirrored(member: &Member, destination: String) -> Mirrored {
    let (source, digest) = (member.name.to_string(), member.manifest.digest.clone());
    Mirrored { source, destination, digest, attached: member.attached.len() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_stays_below_the_prefix() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let cases = [
            ("localhost:5000", "registry.a/acme/hr:1.0.0", "localhost:5000/acme/hr:1.0.0".to_owned()),
            ("registry.b/mirror", "registry.a/acme/hr:1.0.0", "registry.b/mirror/acme/hr:1.0.0".to_owned()),
            ("localhost:5000/m/n", "acme/hr", "localhost:5000/m/n/acme/hr:latest".to_owned()),
            ("registry.b", &format!("acme/hr@{digest}"), format!("registry.b/acme/hr@{digest}")),
        ];
        for (prefix, name, wanted) in cases {
            assert_eq!(below(prefix, &name.parse().unwrap()).unwrap().to_string(), wanted);
        }
    }
}
