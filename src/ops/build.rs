//! `build`: from a directory, or a tree from elsewhere, to an image in the store, in one pass over the input.
//!
//! Nothing is visible before the last step: blobs that no entry names are garbage.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::panic::resume_unwind;
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::{Context as _, Result};
use cap_std::fs::Dir;
use chrono::{DateTime, SecondsFormat, Utc};
use oci_spec::image::MediaType;
use serde::Serialize;

use super::immutable;
use super::validate::{validate, validate_tree};
use crate::card::{Card, FILE as CARD_FILE, Origin};
use crate::check::Checked;
use crate::error::Error;
use crate::finding::{Finding, Severity};
use crate::format::SKILL_ARTIFACT;
use crate::frontmatter::FILE as SKILL_FILE;
use crate::image::{self, Blob, Platform, Profile};
use crate::layer::{
    Encoding, Expected, Listing, PackOptions, Packed, Selection, Subtree, UnpackOptions, pack, pack_tree,
};
use crate::lifecycle::State;
use crate::limits::Limits;
use crate::reference::Reference;
use crate::store::layout::{Entry, Layout, REF_NAME};

/// What an image is built from.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A directory, and its name.
    Directory(&'a Dir, &'a str),
    /// A tree from elsewhere.
    Tree(&'a Elsewhere<'a>),
}

/// A skill from elsewhere than a directory.
#[derive(Debug)]
pub struct Elsewhere<'a> {
    /// Its files.
    pub tree: Subtree<'a>,
    /// What of them is packed.
    pub selection: Selection,
    /// What is known of it beside them.
    pub origin: Origin<'a>,
    /// Further annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

impl Input<'_> {
    fn validate(&self, strict: bool) -> Result<Checked> {
        match self {
            Self::Directory(dir, name) => validate(dir, name, strict),
            Self::Tree(elsewhere) => {
                // What is in the layer does not depend on where it came from: that is in the annotations.
                let origin = Origin { provenance: None, ..elsewhere.origin.clone() };
                let mut checked = validate_tree(&elsewhere.tree, &origin, strict)?;
                if let (Some(card), Some(provenance)) = (&mut checked.card, &elsewhere.origin.provenance) {
                    card.provenance = Some(provenance.clone());
                }
                Ok(checked)
            }
        }
    }

    fn pack(&self, out: impl Write + Send, options: &PackOptions<'_>) -> Result<Packed, Error> {
        match self {
            Self::Directory(dir, _) => pack(dir, out, options),
            Self::Tree(elsewhere) => pack_tree(&elsewhere.tree, out, elsewhere.selection, options),
        }
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        match self {
            Self::Directory(..) => BTreeMap::new(),
            Self::Tree(elsewhere) => elsewhere.annotations.clone(),
        }
    }
}

/// What is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// An image, which runtimes mount.
    #[default]
    Image,
    /// An artifact by the Agent Skills OCI Artifacts Specification, which nothing mounts.
    Artifact,
}

/// How an image is built.
#[derive(Default)]
pub struct Options<'a> {
    /// A tag, or a whole reference; by default `<namespace>/<name>:<version>-draft`.
    pub tag: Option<String>,
    /// Whether it is an image, or an artifact for tools that read only such.
    pub form: Form,
    /// Media types of an image.
    pub profile: Profile,
    /// Modification time of the layer's entries, in seconds since 1970.
    pub mtime: u64,
    /// Platforms: one image for none or one, an index for several.
    pub platforms: Vec<Platform>,
    /// Whether the image may take the tag of a published one.
    pub force: bool,
    /// The created annotation.
    pub created: DateTime<Utc>,
    /// Warnings are errors.
    pub strict: bool,
    /// What is packed although its name suggests otherwise, in gitignore syntax.
    pub include: Vec<String>,
    /// Bounds on the skill.
    pub limits: Limits,
    /// Called with the number of bytes read.
    pub progress: Option<&'a dyn Fn(u64)>,
    /// Ends the work.
    pub cancelled: Option<&'a AtomicBool>,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("tag", &self.tag).field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// An image that was built.
#[derive(Debug, Clone, Serialize)]
pub struct Built {
    /// Its entry in the store.
    #[serde(skip)]
    pub entry: Entry,
    /// Its name in the store.
    pub reference: String,
    /// Digest of the manifest.
    pub digest: String,
    /// The image ID: digest of the config; empty for an index.
    pub image_id: String,
    /// The platforms that were asked for.
    pub platforms: Vec<String>,
    /// Digest of the layer.
    pub layer: String,
    /// Digest of the layer before compression.
    pub diff_id: String,
    /// Size of the layer, in bytes.
    pub size: u64,
    /// Number of files.
    pub files: u64,
    /// Sum of the files' sizes, in bytes.
    pub bytes: u64,
    /// Number of files and directories left out.
    pub left_out: u64,
    /// What was found, none of it an error.
    pub findings: Vec<Finding>,
}

/// How many directories deep a skill is looked for that somebody may have meant: `.claude/skills/NAME`.
const DEPTH: usize = 3;
/// Most entries of each that are looked at: it is for a hint only.
const LOOKED_AT: usize = 100;

/// Returns the error for a directory without `SKILL.md`.
pub fn no_skill(dir: &Dir) -> anyhow::Error {
    let reason = format!("it has no {SKILL_FILE}, and a directory with {SKILL_FILE} is expected");
    let hint = match below(dir, "", DEPTH) {
        _ if dir.exists("skill.md") => "rename skill.md to SKILL.md".to_owned(),
        Some(path) => format!("there is a skill in {path}: name its directory"),
        None => "skillctl init DIR starts a skill".to_owned(),
    };
    Error::Unavailable { reason, hint: Some(hint) }.into()
}

/// Looks for a skill in the directories below, which somebody may have meant.
fn below(dir: &Dir, path: &str, depth: usize) -> Option<String> {
    let mut names: Vec<String> =
        dir.entries().ok()?.take(LOOKED_AT).filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names.iter().filter(|name| *name != ".git").find_map(|name| {
        let own = dir.open_dir(name).ok()?;
        let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        match own.is_file(SKILL_FILE) {
            true => Some(path),
            false if depth > 1 => below(&own, &path, depth - 1),
            false => None,
        }
    })
}

/// Builds a skill into the store.
///
/// The inner error is a skill that is not valid, with all that was found.
///
/// # Errors
/// If the directory has no `SKILL.md`, cannot be read or packed, or the store cannot be written.
pub fn build(layout: &Layout, input: Input<'_>, options: &Options<'_>) -> Result<Result<Built, Vec<Finding>>> {
    let checked = input.validate(options.strict)?;
    let invalid = checked.findings.iter().any(|f| f.severity == Severity::Error);
    let Some(card) = checked.card.filter(|_| !invalid) else {
        return Ok(Err(checked.findings));
    };
    let reference = reference(&card, options.tag.as_deref())?;
    let mut annotations = annotations(&card, checked.words, options.created);
    annotations.extend(input.annotations());
    if options.form == Form::Artifact {
        annotations = image::artifact_annotations(&card, annotations);
    }
    // An artifact has the card in its config.
    let generated =
        checked.generated.filter(|_| options.form == Form::Image).map(|yaml| (CARD_FILE.to_owned(), yaml.into_bytes()));

    // Held until the index names what was written.
    let _writing = layout.writing()?;
    let below = if options.form == Form::Artifact { card.metadata.name.clone() } else { String::new() };
    let packed = pack_layer(layout, input, (generated, below), options)?;
    let written = match options.form {
        Form::Image => write_manifests(layout, &packed, &annotations, options)?,
        Form::Artifact => write_artifact(layout, &packed, (&card, &annotations))?,
    };
    let artifact = match options.form {
        Form::Artifact => Some(SKILL_ARTIFACT),
        Form::Image => (options.profile == Profile::Redhat).then(|| options.profile.config()),
    };
    let mut entry = image::index_entry(&written.media_type, &written.top, &annotations, artifact);
    immutable::set_built(layout, &reference, &entry, options.force)?;
    entry["annotations"][REF_NAME] = reference.to_string().into();
    let reference = reference.to_string();
    let entry = Entry { name: Some(reference.clone()), descriptor: serde_json::from_value(entry)? };
    Ok(Ok(Built {
        entry,
        reference,
        digest: written.top.digest,
        image_id: written.image_id,
        platforms: options.platforms.iter().map(ToString::to_string).collect(),
        layer: packed.digest,
        diff_id: packed.diff_id,
        size: packed.size,
        files: packed.files,
        bytes: packed.bytes,
        left_out: packed.left_out,
        findings: checked.findings,
    }))
}

/// Returns [`Listing::digest`] of the image that [`build`] would make of a directory, without a store.
///
/// The inner error is a skill that is not valid, with all that was found.
///
/// # Errors
/// If the directory cannot be read or packed.
pub fn content(dir: &Dir, name: &str, unpack: &UnpackOptions<'_>) -> Result<Result<String, Vec<Finding>>> {
    let checked = validate(dir, name, false)?;
    if checked.findings.iter().any(|f| f.severity == Severity::Error) {
        return Ok(Err(checked.findings));
    }
    let extra: Vec<_> = checked.generated.map(|yaml| (CARD_FILE.to_owned(), yaml.into_bytes())).into_iter().collect();
    let (limits, cancelled, encoding) = (unpack.limits, unpack.cancelled, Encoding::Tar);
    let options = || PackOptions { extra: extra.clone(), limits, cancelled, encoding, ..PackOptions::default() };
    // Packed twice and kept nowhere: it may be large, and whoever only asks may have no store.
    let Packed { digest, size, .. } = pack(dir, io::sink(), &options())?;
    let expected = Expected { digest, size, diff_id: None, encoding };
    let (reader, writer) = io::pipe()?;
    thread::scope(|scope| {
        let packed = scope.spawn(|| pack(dir, writer, &options()));
        let listed = Listing::read(&reader, &expected, unpack);
        // To the end, so that what is wrong with the listing is not called a broken pipe.
        io::copy(&mut &reader, &mut io::sink()).map_err(Error::io(name))?;
        // Where it cannot be packed any more, that is why it cannot be listed.
        packed.join().unwrap_or_else(|panic| resume_unwind(panic)).map_or_else(Err, |_| listed)
    })
    .map(|(listing, _)| Ok(listing.digest()))
    .map_err(Into::into)
}

/// What names a packed layer: a manifest, or an index of several.
struct Written {
    top: Blob,
    media_type: MediaType,
    image_id: String,
}

/// Writes config and manifest of an artifact.
fn write_artifact(
    layout: &Layout,
    packed: &Packed,
    (card, annotations): (&Card, &BTreeMap<String, String>),
) -> Result<Written> {
    let config = write(layout, &image::artifact_config(card))?;
    let layer = Blob { digest: packed.digest.clone(), size: packed.size };
    let top = write(layout, &image::artifact(&card.metadata.name, &config, &layer, annotations))?;
    Ok(Written { top, media_type: MediaType::ImageManifest, image_id: String::new() })
}

fn write(layout: &Layout, bytes: &[u8]) -> Result<Blob> {
    Ok(Blob { digest: layout.write_blob(bytes)?, size: bytes.len() as u64 })
}

/// Writes config and manifest of each platform over the one layer, and an index where there are several.
fn write_manifests(
    layout: &Layout,
    packed: &Packed,
    annotations: &BTreeMap<String, String>,
    options: &Options<'_>,
) -> Result<Written> {
    let layer = Blob { digest: packed.digest.clone(), size: packed.size };
    let labels = image::labels(annotations);
    let image = |platform: &Platform| -> Result<(Blob, Blob)> {
        let config = write(layout, &image::config(&labels, &packed.diff_id, platform))?;
        let manifest = write(layout, &image::manifest(options.profile, &config, &layer, annotations))?;
        Ok((config, manifest))
    };
    match &options.platforms[..] {
        [] | [_] => {
            let (config, top) = image(options.platforms.first().unwrap_or(&Platform::default()))?;
            Ok(Written { top, media_type: MediaType::ImageManifest, image_id: config.digest })
        }
        several => {
            let instances: Result<Vec<_>> = several.iter().map(|p| Ok((p.clone(), image(p)?.1))).collect();
            let top = write(layout, &image::index(&instances?, annotations))?;
            Ok(Written { top, media_type: MediaType::ImageIndex, image_id: String::new() })
        }
    }
}

fn pack_layer(
    layout: &Layout,
    input: Input<'_>,
    (generated, below): (Option<(String, Vec<u8>)>, String),
    options: &Options<'_>,
) -> Result<Packed> {
    let mut blob = layout.blob()?;
    let packed = input.pack(
        &mut blob,
        &PackOptions {
            mtime: options.mtime,
            include: options.include.clone(),
            extra: generated.into_iter().collect(),
            below,
            limits: options.limits,
            progress: options.progress,
            cancelled: options.cancelled,
            ..PackOptions::default()
        },
    )?;
    blob.commit(&packed.digest)?;
    Ok(packed)
}

/// Returns the name of the image: the card's, with the draft tag or the one that was asked for.
fn reference(card: &Card, tag: Option<&str>) -> Result<Reference> {
    let own: Reference = format!("{}/{}", card.metadata.namespace, card.metadata.name).parse()?;
    let reference = match tag {
        Some(tag) if tag.contains(['/', ':']) => tag.parse::<Reference>()?.or_latest(),
        Some(tag) => own.with_tag(tag)?,
        None => own.with_tag(&State::Draft.tag(&card.metadata.version).unwrap_or_default())?,
    };
    if reference.digest().is_some() {
        let reason = "a digest cannot be assigned; give a tag".into();
        return Err(Error::InvalidReference { input: reference.to_string(), reason }).context("Naming the image");
    }
    Ok(reference)
}

fn annotations(card: &Card, words: u64, created: DateTime<Utc>) -> BTreeMap<String, String> {
    let mut annotations = image::annotations(card, words);
    annotations.insert(image::oci::CREATED.to_owned(), created.to_rfc3339_opts(SecondsFormat::Secs, true));
    annotations.insert(image::STATUS.to_owned(), State::Draft.to_string());
    annotations
}
