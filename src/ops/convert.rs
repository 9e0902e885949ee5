//! `convert`: a skill of any form, rebuilt as an image that can be mounted.
//!
//! All files stay as they are; the image gets a card where the skill has none. Where it came from is said in the
//! annotations that the image specification has for that, `org.opencontainers.image.base.*`.

use std::collections::BTreeMap;

use anyhow::Result;

use super::build::{self, Built, Elsewhere, Input, Options};
use crate::card::{Origin, is_name};
use crate::finding::Finding;
use crate::format::{self, PREDEFINED};
use crate::image::{Info, oci};
use crate::layer::Selection;
use crate::reference::Reference;
use crate::source::foreign::Foreign;
use crate::store::layout::Layout;

/// An image of the store whose skills are converted.
#[derive(Debug, Clone, Copy)]
pub struct From<'a> {
    /// What it is called.
    pub reference: &'a Reference,
    /// The digest of its manifest, or of its index.
    pub digest: &'a str,
    /// What the manifest says.
    pub info: &'a Info,
    /// The skills in it.
    pub skills: &'a Foreign,
}

/// Builds one of the skills as an image; by `options.tag` it gets a name, and a namespace where the skill says none.
///
/// The inner error is a skill that is not valid, with all that was found.
///
/// # Errors
/// As [`build::build`], and if there is no skill of that name.
pub fn convert(
    layout: &Layout,
    from: From<'_>,
    name: &str,
    options: &Options<'_>,
) -> Result<Result<Built, Vec<Finding>>> {
    let to: Option<Reference> = options.tag.as_deref().and_then(|tag| tag.parse().ok());
    let namespace = to.as_ref().and_then(namespace);
    let tagged = |reference: &Reference| reference.tag().map(str::to_owned);
    let versions =
        [Some(from.info.first(format::VERSION).to_owned()), to.as_ref().and_then(tagged), tagged(from.reference)];
    let version = versions.into_iter().flatten().find(|version| semver::Version::parse(version).is_ok());
    let mut annotations: BTreeMap<String, String> = from
        .info
        .annotations
        .iter()
        .filter(|(key, _)| PREDEFINED.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    annotations.insert(oci::BASE_NAME.to_owned(), from.reference.in_storage());
    annotations.insert(oci::BASE_DIGEST.to_owned(), from.digest.to_owned());
    let elsewhere = Elsewhere {
        tree: from.skills.skill(name)?,
        selection: Selection::All,
        origin: Origin { dir_name: name, namespace, version: version.as_deref(), ..Origin::default() },
        annotations,
    };
    build::build(layout, Input::Tree(&elsewhere), options)
}

/// Returns what is before the last part of a name and after its registry, where it can be a namespace.
fn namespace(reference: &Reference) -> Option<&str> {
    let path = match reference.registry() {
        Some(registry) => reference.name().strip_prefix(registry)?.trim_start_matches('/'),
        None => reference.name(),
    };
    let (namespace, _) = path.rsplit_once('/')?;
    namespace.split('/').all(is_name).then_some(namespace)
}
