//! `upgrade`, and `list --upgradable`: the newest published versions of what is installed.
//!
//! A version is a tag that is one by SemVer. Prereleases do not count, and neither does what its annotation calls something
//! else than published; where there is no annotation, another tool has published it by tagging it. The tags of each
//! repository are asked for once, and of manifests as few as decide.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use semver::Version;

use super::installed::Row;
use crate::address::Address;
use crate::error::{Error, Result};
use crate::image::{Info, STATUS};
use crate::lifecycle::State;
use crate::reference::Reference;
use crate::store;
use crate::store::layout::Layout;
use crate::store::registry::Registry;

/// How many repositories are asked at once: enough that a slow network and not we decide.
const AT_ONCE: usize = 16;

/// A version that may be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The version.
    pub version: Version,
    /// The reference that it has there.
    pub reference: Reference,
}

/// Where the versions of skills are.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The registries.
    pub registry: &'a Registry,
    /// The store, for skills that came from no registry.
    pub layout: Option<&'a Layout>,
}

/// Returns the newest published version of each skill, where that is newer than the installed one.
///
/// Errors are those of each skill: no source, a version that is none, a registry that does not answer.
pub fn newest(sources: Sources<'_>, rows: &[Row]) -> Vec<Result<Option<Candidate>>> {
    let wanted: Vec<Result<(Reference, Version)>> = rows.iter().map(from).collect();
    let mut lowest: BTreeMap<String, (Reference, Version)> = BTreeMap::new();
    for (repository, version) in wanted.iter().flatten() {
        let known = lowest.entry(repository.to_string()).or_insert_with(|| (repository.clone(), version.clone()));
        if *version < known.1 {
            known.1 = version.clone();
        }
    }
    let found = ask(sources, lowest.into_values().collect());
    let newer = |(repository, version): (Reference, Version)| match found.get(&repository.to_string()) {
        Some(Ok(candidate)) => Ok(candidate.clone().filter(|candidate| candidate.version > version)),
        Some(Err(e)) => Err(Error::Unavailable { reason: e.0.clone(), hint: e.1.clone() }),
        None => Err(Error::interrupted()),
    };
    wanted.into_iter().map(|wanted| wanted.and_then(newer)).collect()
}

/// Returns whether a skill comes from a Git repository or a site; the Go tool, too, writes the URL of the first.
pub fn is_elsewhere(source: &str) -> bool {
    matches!(Address::of(source), Ok(Some(Address::Git(_) | Address::Site(_))))
}

/// Returns the reference of one version of what is installed.
///
/// # Errors
/// If it came from nowhere, or the version could be no tag.
pub fn exactly(row: &Row, version: &str) -> Result<Reference> {
    source(row)?.with_tag(version)
}

/// Returns the repository and the version of what is installed.
fn from(row: &Row) -> Result<(Reference, Version)> {
    let repository = source(row)?;
    let version = Version::parse(&row.version).map_err(|e| Error::Unavailable {
        reason: format!("{}: its version {:?} is none by SemVer: {e}", row.name, row.version),
        hint: Some("upgrade --to VERSION installs any version".into()),
    })?;
    Ok((repository, version))
}

fn source(row: &Row) -> Result<Reference> {
    let none = |reason, hint| Err(Error::Unavailable { reason, hint });
    match row.source.as_str() {
        "" => none(format!("no source for {} (installed locally)", row.name), None),
        url if is_elsewhere(url) => {
            let reason = format!("{} comes from {url}, which is no registry", row.name);
            none(reason, Some("install it again from there".into()))
        }
        source => Ok(source.parse::<Reference>()?.repository()),
    }
}

/// What went wrong in a repository, for each skill that came from there.
type Failed = (String, Option<String>);

/// Asks for the newest published version of each repository above a version, some at once.
fn ask(
    sources: Sources<'_>,
    repositories: Vec<(Reference, Version)>,
) -> BTreeMap<String, Result<Option<Candidate>, Failed>> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some((repository, above)) = repositories.get(next.fetch_add(1, Ordering::Relaxed)) {
            let newest = match repository.registry() {
                Some(_) => on_registry(sources.registry, repository, above),
                None => in_store(sources.layout, repository, above),
            };
            let newest = newest.map_err(|e| (e.to_string(), e.hint()));
            found.lock().unwrap_or_else(PoisonError::into_inner).insert(repository.to_string(), newest);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..AT_ONCE.min(repositories.len()) {
            scope.spawn(work);
        }
        work();
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn on_registry(registry: &Registry, repository: &Reference, above: &Version) -> Result<Option<Candidate>> {
    for (version, tag) in versions(registry.tags(repository)?, above) {
        let reference = repository.with_tag(&tag)?;
        let Some(found) = registry.manifest(&reference)? else { continue };
        if is_published(&found.read(&reference)?.info) {
            return Ok(Some(Candidate { version, reference }));
        }
    }
    Ok(None)
}

fn in_store(layout: Option<&Layout>, repository: &Reference, above: &Version) -> Result<Option<Candidate>> {
    let Some(layout) = layout else { return Ok(None) };
    let entries = layout.all_entries()?;
    let own = entries.iter().filter_map(|entry| entry.name.as_deref()?.parse::<Reference>().ok());
    let own = own.filter(|own| own.name() == repository.name());
    let tags = own.filter_map(|own| own.tag().map(str::to_owned)).collect();
    for (version, tag) in versions(tags, above) {
        let reference = repository.with_tag(&tag)?;
        if is_published(&store::open(layout, &reference.to_string())?.info) {
            return Ok(Some(Candidate { version, reference }));
        }
    }
    Ok(None)
}

/// Returns the tags that are versions above another, highest first.
fn versions(tags: Vec<String>, above: &Version) -> Vec<(Version, String)> {
    let version = |tag: String| Some((Version::parse(&tag).ok().filter(|version| version.pre.is_empty())?, tag));
    let mut versions: Vec<(Version, String)> =
        tags.into_iter().filter_map(version).filter(|(version, _)| version > above).collect();
    versions.sort_by(|(one, _), (other, _)| other.cmp(one));
    versions
}

/// Returns whether an image is one to upgrade to. A tag that is a version, of an image without a state, is another tool's
/// way to publish.
fn is_published(info: &Info) -> bool {
    info.get(STATUS).is_empty() || info.state() == Some(State::Published)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_count_and_the_highest_first() {
        let tags =
            ["1.0.0", "1.10.0", "1.9.0", "2.0.0-rc.1", "v3.0.0", "latest", "1.2", "0.9.0", "1.11.0-draft", "01.20.0"];
        let found = versions(tags.map(str::to_owned).into(), &Version::new(1, 0, 0));
        assert_eq!(found.iter().map(|(_, tag)| tag.as_str()).collect::<Vec<_>>(), ["1.10.0", "1.9.0"]);
        // The end of a prerelease is newer than it.
        let draft = Version::parse("1.9.0-draft").expect("a version");
        assert_eq!(versions(vec!["1.9.0".into()], &draft).len(), 1);
    }

    #[test]
    fn what_came_from_nowhere_has_no_upgrade() {
        let row = |source: &str, version: &str| Row {
            name: "hr".into(),
            version: version.into(),
            source: source.into(),
            digest: String::new(),
            target: "claude".into(),
            path: String::new(),
            receipt: false,
        };
        let cases = [
            ("registry.example/acme/hr:1.0.0", "1.0.0", Ok("registry.example/acme/hr")),
            ("acme/hr:1.0.0-draft", "1.0.0-draft", Ok("acme/hr")),
            ("", "1.0.0", Err("no source for hr (installed locally)")),
            (
                "https://git.example/acme/hr",
                "1.0.0",
                Err("hr comes from https://git.example/acme/hr, which is no registry"),
            ),
        ];
        for (source, version, want) in cases {
            let found = from(&row(source, version)).map(|(repository, _)| repository.to_string());
            assert_eq!(found.map_err(|e| e.to_string()), want.map(str::to_owned).map_err(str::to_owned));
        }
        let error = from(&row("acme/hr:latest", "latest")).expect_err("no version").to_string();
        assert!(error.starts_with("hr: its version \"latest\" is none by SemVer"), "{error}");
    }
}
