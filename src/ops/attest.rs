//! `attest`: statements about an image, signed: what is in it, how it was built, or anything else.
//!
//! As for signatures, an index and each of its images get their own: whoever has one of them by digest finds it.

use anyhow::{Context as _, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use oci_spec::image::Descriptor;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::build;
use super::contents::Contents;
use crate::attest::declared::{Found, Kind, MAX_FILE};
use crate::attest::inventory::{About, File, Inventory};
use crate::attest::provenance::{self, Build, Source};
use crate::attest::{cyclonedx, kind, spdx};
use crate::error::Error;
use crate::format;
use crate::image::{self, Info, oci};
use crate::layer::{self, Content, Kind as EntryKind, UnpackOptions};
use crate::limits::Limits;
use crate::reference::Reference;
use crate::store::layout::{Entry, Layout};
use crate::store::remote::Remote;
use crate::store::repository::Manifest;
use crate::store::skill::instances;
use crate::store::transfer::{Copying, MAX_INSTANCES};
use crate::store::{self, attached, remote_attached};
use crate::trust::attestation::MAX_ATTESTATION;
use crate::trust::bundle::{self, Statement};
use crate::trust::signer::Signer;
use crate::trust::verify::Bundle;

/// What a skill is called that has no name.
const NAMELESS: &str = "skill";
/// Bytes of a file that decide what kind it is, where its name does not.
const HEAD: usize = 256;

/// Something to be stated.
#[derive(Debug, Clone)]
pub enum Predicate {
    /// What is in it, in SPDX.
    Spdx,
    /// What is in it, in CycloneDX.
    CycloneDx,
    /// How it was built: by what is known, or else by what it says itself.
    Provenance(Box<Provenance>),
    /// Anything, of a type.
    Other(String, Value),
}

/// What is known of a build.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// What it was built from, and how; `None` where that was not seen.
    pub seen: Option<Build>,
    /// Who built it: a URI.
    pub builder: Option<String>,
}

impl Predicate {
    /// Returns its type.
    pub fn kind(&self) -> &str {
        match self {
            Self::Spdx => kind::SPDX,
            Self::CycloneDx => kind::CYCLONEDX,
            Self::Provenance(_) => kind::PROVENANCE,
            Self::Other(kind, _) => kind,
        }
    }

    /// Returns whether the files of the image have to be read for it.
    fn lists_files(&self) -> bool {
        matches!(self, Self::Spdx | Self::CycloneDx)
    }
}

/// What is to be stated, and how.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The predicates.
    pub predicates: &'a [Predicate],
    /// The time that is written where one is, instead of the image's own.
    pub epoch: Option<DateTime<Utc>>,
    /// How layers are read.
    pub options: UnpackOptions<'a>,
}

/// An image of which something was attested.
#[derive(Debug, Clone, Serialize)]
pub struct Attested {
    /// The image, as it is called where that was done.
    pub reference: String,
    /// Digest of its manifest.
    pub digest: String,
    /// The key, as verifiers name it.
    pub key: String,
    /// What is attested of it, and of the images of an index.
    pub attestations: Vec<Made>,
    /// What could not be read.
    pub warnings: Vec<String>,
}

/// An attestation that was made, or was there.
#[derive(Debug, Clone, Serialize)]
pub struct Made {
    /// Its predicate type.
    pub predicate_type: String,
    /// The short name of that, where it has one.
    pub name: Option<&'static str>,
    /// Digest of the manifest that it is about.
    pub subject: String,
    /// Digest of its own manifest.
    pub digest: String,
    /// Whether it is new.
    pub added: bool,
}

/// What is said of an image, before anybody signs it.
#[derive(Debug)]
struct Said {
    inventory: Option<Inventory>,
    info: Info,
}

/// Attests of an image of the store. The caller holds [`Layout::writing`].
///
/// # Errors
/// If there is no such image, it is damaged, or nothing can be written.
pub fn in_store(layout: &Layout, text: &str, wanted: &Wanted<'_>, key: &dyn Signer) -> Result<Attested> {
    let found = store::open(layout, text)?;
    let digest = found.entry.digest().to_owned();
    if !layout.entries()?.iter().any(|entry| entry.digest() == digest) {
        let reason = format!("{text} is in a read-only store, which takes no attestation");
        let name = found.entry.name.as_deref().unwrap_or("NAME");
        return Err(Error::Unavailable { reason, hint: Some(format!("skillctl tag {text} {name}")) }.into());
    }
    let said = Said::of(layout, &found.entry.descriptor, found.info.clone(), wanted)?;
    let mut attestations = Vec::new();
    for descriptor in [&found.entry.descriptor].into_iter().chain(&found.info.instances) {
        for (kind, predicate) in said.predicates(descriptor.digest().as_ref(), wanted) {
            attestations.push(add(layout, descriptor, key, (kind, predicate))?.1);
        }
    }
    let reference = found.entry.name.unwrap_or_else(|| digest.clone());
    Ok(Attested { reference, digest, key: key.public().id(), attestations, warnings: said.warnings() })
}

/// Attests of an image where it is, on a registry. What we state stays in the store, too. The caller holds [`Layout::writing`].
///
/// # Errors
/// If there is no such image, or the registry does not take what is sent.
pub fn on_registry(
    (layout, remote): (&Layout, &Remote),
    reference: &Reference,
    wanted: &Wanted<'_>,
    key: &dyn Signer,
    copying: Copying<'_>,
) -> Result<Attested> {
    let (manifest, said) = say_of_registry((layout, remote), reference, wanted, copying)?;
    let mut attestations = Vec::new();
    for descriptor in [&manifest.descriptor()?].into_iter().chain(&manifest.info.instances) {
        let digest = descriptor.digest().as_ref();
        let have = remote_attached::attestations(&remote.origin, reference, digest)?;
        for (kind, predicate) in said.predicates(digest, wanted) {
            let statement = statement(digest, &kind, &predicate);
            let own = have.bundles.iter().find(|bundle| is(bundle, &statement, key));
            attestations.push(match own {
                Some(own) => made(&statement, store::blob::sha256(&own.manifest), false),
                None => {
                    // What was made before and did not arrive is sent now.
                    let (entry, own) = add(layout, descriptor, key, (kind, predicate))?;
                    remote_attached::send_bundle((layout, remote), (reference, digest), &entry, copying)?;
                    Made { added: true, ..own }
                }
            });
        }
    }
    let (digest, key) = (manifest.digest, key.public().id());
    Ok(Attested { reference: reference.to_string(), digest, key, attestations, warnings: said.warnings() })
}

/// Returns what would be stated of an image of the store, unsigned, and what could not be read.
///
/// # Errors
/// As [`in_store`].
pub fn print_in_store(layout: &Layout, text: &str, wanted: &Wanted<'_>) -> Result<(Vec<Value>, Vec<String>)> {
    let found = store::open(layout, text)?;
    let said = Said::of(layout, &found.entry.descriptor, found.info.clone(), wanted)?;
    Ok((said.values(found.entry.digest(), wanted), said.warnings()))
}

/// The same of an image on a registry, whose blobs come into the store for that. The caller holds [`Layout::writing`].
///
/// # Errors
/// As [`on_registry`].
pub fn print_on_registry(
    (layout, remote): (&Layout, &Remote),
    reference: &Reference,
    wanted: &Wanted<'_>,
    copying: Copying<'_>,
) -> Result<(Vec<Value>, Vec<String>)> {
    let (manifest, said) = say_of_registry((layout, remote), reference, wanted, copying)?;
    Ok((said.values(&manifest.digest, wanted), said.warnings()))
}

fn say_of_registry(
    (layout, remote): (&Layout, &Remote),
    reference: &Reference,
    wanted: &Wanted<'_>,
    copying: Copying<'_>,
) -> Result<(Manifest, Said)> {
    let found = remote.origin.manifest(reference)?.ok_or_else(|| store::remote::not_found(reference))?;
    let manifest: Manifest = found.read(reference)?;
    let count = manifest.info.instances.len();
    if count > MAX_INSTANCES {
        let reason = format!("{reference} is an index of {count} images, more than {MAX_INSTANCES}");
        return Err(Error::Unavailable { reason, hint: None }.into());
    }
    if wanted.predicates.iter().any(Predicate::lists_files) {
        // Unnamed, it goes with the next prune.
        let Limits { size, .. } = wanted.options.limits;
        remote.fetch(layout, &reference.with_digest(&manifest.digest)?, size, copying)?;
    }
    let said = Said::of(layout, &manifest.descriptor()?, manifest.info.clone(), wanted)?;
    Ok((manifest, said))
}

impl Said {
    fn of(layout: &Layout, manifest: &Descriptor, info: Info, wanted: &Wanted<'_>) -> Result<Self> {
        let lists = wanted.predicates.iter().any(Predicate::lists_files);
        let read = || inventory(layout, manifest, wanted.options).context("Reading what is in it");
        let mut inventory = lists.then(read).transpose()?;
        if let (Some(inventory), Some(epoch)) = (&mut inventory, wanted.epoch) {
            inventory.about.created = epoch;
        }
        Ok(Self { inventory, info })
    }

    /// Returns the predicates about a manifest, with their types.
    fn predicates(&self, digest: &str, wanted: &Wanted<'_>) -> Vec<(String, Value)> {
        let of = |document: fn(&Inventory, &str) -> Value| {
            // It was read where one is wanted.
            self.inventory.as_ref().map(|inventory| document(inventory, digest)).unwrap_or_default()
        };
        let value = |predicate: &Predicate| match predicate {
            Predicate::Spdx => of(spdx::document),
            Predicate::CycloneDx => of(cyclonedx::document),
            Predicate::Other(_, value) => value.clone(),
            Predicate::Provenance(known) => {
                let build = known.seen.clone().unwrap_or_else(|| told(&self.info));
                let started = wanted.epoch.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
                provenance::predicate(&Build { builder: known.builder.clone(), started, ..build })
            }
        };
        wanted.predicates.iter().map(|one| (one.kind().to_owned(), value(one))).collect()
    }

    fn values(&self, digest: &str, wanted: &Wanted<'_>) -> Vec<Value> {
        self.predicates(digest, wanted).into_iter().map(|(_, value)| value).collect()
    }

    fn warnings(&self) -> Vec<String> {
        self.inventory.as_ref().map(Inventory::warnings).unwrap_or_default()
    }
}

/// Returns how an image is built by these options: those that decide on what is in it.
pub fn seen(options: &build::Options<'_>, source: Option<Source>) -> Build {
    let mut flags = Map::new();
    let mut flag = |name: &str, value: Option<Value>| flags.extend(value.map(|value| (name.to_owned(), value)));
    flag("format", (options.form == build::Form::Artifact).then(|| "artifact".into()));
    flag("mediaType", (options.profile == image::Profile::Redhat).then(|| "redhat".into()));
    let platforms: Vec<String> = options.platforms.iter().map(ToString::to_string).collect();
    flag("platforms", (!platforms.is_empty()).then(|| platforms.into()));
    flag("include", (!options.include.is_empty()).then(|| options.include.clone().into()));
    Build { source, flags, created: options.created.to_rfc3339_opts(SecondsFormat::Secs, true), ..Build::default() }
}

/// Returns what an image says of its build itself.
fn told(info: &Info) -> Build {
    let source = Some(info.get(oci::SOURCE)).filter(|uri| !uri.is_empty()).map(|uri| Source {
        uri: uri.to_owned(),
        reference: None,
        path: info.get(image::SOURCE_PATH).to_owned(),
        revision: info.get(oci::REVISION).to_owned(),
    });
    let mut flags = Map::new();
    let platforms = info.platforms();
    if !platforms.is_empty() {
        flags.insert("platforms".to_owned(), json!(platforms));
    }
    Build { source, flags, created: info.get(oci::CREATED).to_owned(), ..Build::default() }
}

fn statement(digest: &str, kind: &str, predicate: &Value) -> Statement {
    Statement { subjects: vec![digest.to_owned()], predicate_type: kind.to_owned(), predicate: predicate.clone() }
}

fn is(bundle: &Bundle, statement: &Statement, key: &dyn Signer) -> bool {
    bundle::verify(&bundle.bytes, key.public()).is_ok_and(|own| own == *statement)
}

fn made(statement: &Statement, digest: String, added: bool) -> Made {
    let (predicate_type, subject) = (statement.predicate_type.clone(), statement.subjects.concat());
    Made { name: kind::short_name(&predicate_type), predicate_type, subject, digest, added }
}

/// Adds an attestation to those that the store has of a manifest, unless it is there.
fn add(
    layout: &Layout,
    descriptor: &Descriptor,
    key: &dyn Signer,
    (kind, predicate): (String, Value),
) -> Result<(Entry, Made)> {
    let digest = descriptor.digest().as_ref();
    let statement = statement(digest, &kind, &predicate);
    let have = attached::attestations(layout, digest)?;
    let own = have.bundles.iter().find(|bundle| is(bundle, &statement, key));
    if let Some(entry) = own.map(|own| attached::entry_of(layout, digest, own)).transpose()?.flatten() {
        let made = made(&statement, entry.digest().to_owned(), false);
        return Ok((entry, made));
    }
    let bundle = bundle::make(key, &statement)?;
    if bundle.len() as u64 > MAX_ATTESTATION {
        let reason = format!(
            "an attestation of the type {kind} takes {} bytes, and more than {MAX_ATTESTATION} are not read",
            bundle.len()
        );
        return Err(Error::Unavailable { reason, hint: None }.into());
    }
    let entry = attached::add_bundle(layout, &serde_json::to_value(descriptor)?, &bundle, &kind)?;
    let made = made(&statement, entry.digest().to_owned(), true);
    Ok((entry, made))
}

/// Reads what is in an image of the store.
///
/// # Errors
/// If it is damaged, is no skill, or is an index whose images differ.
fn inventory(layout: &Layout, manifest: &Descriptor, options: UnpackOptions<'_>) -> Result<Inventory> {
    let images = instances(layout, manifest)?;
    let all = Contents::all(layout, manifest, &options)?;
    let ([image, ..], [contents]) = (&images[..], &all[..]) else {
        let reason = format!("{} is an index whose images differ in what is in them", manifest.digest());
        let hint = Some("attest each of them, by its digest".to_owned());
        return Err(Error::Unavailable { reason, hint }.into());
    };
    let info = &image.image;
    let nameless: Reference = NAMELESS.parse()?;
    let names = contents.names(info, &nameless);
    let mut inventory = Inventory::of(About {
        name: names.first().copied().filter(|_| names.len() == 1).unwrap_or(NAMELESS).to_owned(),
        namespace: info.get(image::NAMESPACE).to_owned(),
        version: info.first(format::VERSION).to_owned(),
        license: info.first(format::LICENSE).to_owned(),
        created: DateTime::parse_from_rfc3339(info.get(oci::CREATED)).map(|date| date.to_utc()).unwrap_or_default(),
    });
    for name in &names {
        let below = if names.len() == 1 { String::new() } else { format!("{name}/") };
        let own = contents.layer(layout, name, &options)?;
        layer::read(own.open(layout)?, &own.expected, &options, &mut |entry, content| {
            match &entry.kind {
                EntryKind::File => {
                    let path = format!("{below}{}", entry.path);
                    let (file, found) = file(&path, entry.size, content)?;
                    inventory.add(path, file, found);
                }
                // Another name of the same: it came earlier.
                EntryKind::Link(target) => {
                    let same = inventory.files.get(&format!("{below}{target}")).cloned();
                    inventory.files.extend(same.map(|file| (format!("{below}{}", entry.path), file)));
                }
                EntryKind::Directory | EntryKind::Symlink(_) => {}
            }
            Ok(())
        })?;
    }
    Ok(inventory)
}

/// Reads a file once: for both digests, and for what it declares.
fn file(path: &str, size: u64, content: &mut Content<'_, '_>) -> Result<(File, Found), Error> {
    use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
    let (mut sha1, mut sha256) = (Context::new(&SHA1_FOR_LEGACY_USE_ONLY), Context::new(&SHA256));
    let small = size <= MAX_FILE;
    let mut kept = Vec::new();
    let mut declares = Kind::of(path, b"");
    content.for_each(|bytes| {
        sha1.update(bytes);
        sha256.update(bytes);
        // Of what is declared by its first line only that is needed before it is known.
        if small && (declares.is_some() || kept.len() < HEAD) {
            let first = kept.len() < HEAD;
            kept.extend_from_slice(bytes);
            if first {
                declares = declares.or_else(|| Kind::of(path, &kept[..kept.len().min(HEAD)]));
            }
        }
        Ok(())
    })?;
    let (mut one, mut two) = ([0; 20], [0; 32]);
    one.copy_from_slice(sha1.finish().as_ref());
    two.copy_from_slice(sha256.finish().as_ref());
    let found = match (declares, small) {
        (None, _) => Found::default(),
        (Some(declares), true) => declares.read(&kept),
        (Some(_), false) => Found {
            warnings: vec![format!("it has {size} bytes, and what is larger than {MAX_FILE} is not looked into")],
            ..Found::default()
        },
    };
    Ok((File { sha1: one, sha256: two, warnings: Vec::new(), declares: false }, found))
}
