//! What is in an image: its files, and the packages that they declare.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SecondsFormat, Utc};

use super::declared::{Ecosystem, Found, Scope};

/// Most declarations of one image that are kept: a skill has some tens.
const MAX_DECLARATIONS: usize = 10_000;

/// What an image says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Name of the skill.
    pub name: String,
    /// Its namespace; may be empty.
    pub namespace: String,
    /// Its version; may be empty.
    pub version: String,
    /// Its license, as its author has written it; may be empty.
    pub license: String,
    /// When it was made.
    pub created: DateTime<Utc>,
}

/// What is in an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// What it says of itself.
    pub about: About,
    /// Its files, by path.
    pub files: BTreeMap<String, File>,
    packages: BTreeMap<Key, Uses>,
    declarations: usize,
}

/// Ecosystem, name and version: what a package is told from others by.
type Key = (Ecosystem, String, Option<String>);

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// SHA-1 of its content, which SPDX 2.3 wants beside a better one.
    pub sha1: [u8; 20],
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
    /// Why what it declares is not known.
    pub warnings: Vec<String>,
    /// Whether it declares packages.
    pub declares: bool,
}

/// Where a package is declared, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Uses {
    scope: Scope,
    declared: BTreeSet<(String, String)>,
}

/// A package that files declare.
#[derive(Debug, Clone, Copy)]
pub struct Package<'a> {
    /// Where it comes from.
    pub ecosystem: Ecosystem,
    /// Its name.
    pub name: &'a str,
    /// Its version, where that is pinned.
    pub version: Option<&'a str>,
    /// What it is for: what it is needed for most.
    pub scope: Scope,
    /// The files that declare it, and their words.
    pub declared: &'a BTreeSet<(String, String)>,
}

impl Inventory {
    /// Returns one of an image without files.
    pub fn of(about: About) -> Self {
        Self { about, ..Self::default() }
    }

    /// Adds a file, and what was found in it.
    pub fn add(&mut self, path: String, mut file: File, found: Found) {
        file.warnings.extend(found.warnings);
        file.declares = !found.declared.is_empty();
        let room = MAX_DECLARATIONS - self.declarations;
        if found.declared.len() > room {
            file.warnings.push(format!("more than {MAX_DECLARATIONS} packages are declared: the others are left out"));
        }
        for one in found.declared.into_iter().take(room) {
            self.declarations += 1;
            let uses = self.packages.entry((one.ecosystem, one.name, one.version));
            let uses = uses.or_insert_with(|| Uses { scope: one.scope, declared: BTreeSet::new() });
            uses.scope = uses.scope.min(one.scope);
            uses.declared.insert((path.clone(), one.text));
        }
        self.files.insert(path, file);
    }

    /// Returns the packages, in order.
    pub fn packages(&self) -> impl Iterator<Item = Package<'_>> {
        self.packages.iter().map(|((ecosystem, name, version), uses)| Package {
            ecosystem: *ecosystem,
            name,
            version: version.as_deref(),
            scope: uses.scope,
            declared: &uses.declared,
        })
    }

    /// Returns what could not be read, with its file.
    pub fn warnings(&self) -> Vec<String> {
        let all = self.files.iter().flat_map(|(path, file)| file.warnings.iter().map(move |warning| (path, warning)));
        all.map(|(path, warning)| format!("{path}: {warning}")).collect()
    }
}

impl About {
    /// Returns the license where it is an expression that needs nothing beside it: no license of the author's own.
    pub(super) fn expression(&self) -> Option<&str> {
        let mode = spdx::ParseMode { allow_deprecated: true, ..spdx::ParseMode::STRICT };
        let license = self.license.trim();
        let own = ["LicenseRef-", "AdditionRef-"].iter().any(|own| license.contains(own));
        (!own && spdx::Expression::parse_mode(license, mode).is_ok()).then_some(license)
    }

    /// Returns when it was made, in UTC.
    pub(super) fn date(&self) -> String {
        self.created.to_rfc3339_opts(SecondsFormat::Secs, true)
    }
}
