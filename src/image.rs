//! A skill card as an OCI image, and back: annotations, labels, config and manifest.
//!
//! Keys and values are those of the Go `skillctl`; the labels are ours, so that `podman images --filter label=…` and CRI
//! tools see what a skill is. Everything here is a pure function: the same card and layer give the same bytes.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde_json::{Value, json};

use crate::card::{Author, Card};
use crate::error::{Error, Result};
use crate::format;
use crate::lifecycle::State;
use crate::strict;

/// The lifecycle state; that it is there is what makes an image a skill for the Go tool and for catalogs.
pub const STATUS: &str = "io.skillimage.status";
/// The canonical name, which the title hides when there is a display name. Ours, and of the config labels.
pub const NAME: &str = "io.skillimage.name";
/// The namespace, also as a label.
pub const NAMESPACE: &str = "io.skillimage.namespace";
/// A JSON array of strings.
pub const TAGS: &str = "io.skillimage.tags";
/// Which agents or models the skill works with.
pub const COMPATIBILITY: &str = "io.skillimage.compatibility";
/// Number of words of `SKILL.md` without its front matter.
pub const WORDCOUNT: &str = "io.skillimage.wordcount";
/// The tools that the skill may use without asking.
pub const ALLOWED_TOOLS: &str = "io.skillimage.allowed-tools";

/// The directory of the skill in the repository that it was built from; ours.
pub const SOURCE_PATH: &str = "io.skillimage.source.path";

/// Added to a manifest that takes the place of a tag on a registry, for the moment before it is deleted.
pub const TOMBSTONE: &str = "io.skillimage.tombstone";

/// Length of the description annotation, in bytes, as the Go tool cuts it.
const DESCRIPTION_BYTES: usize = 256;

/// `org.opencontainers.image.*`, the predefined annotation keys of the image specification.
pub mod oci {
    /// Display name, or name.
    pub const TITLE: &str = "org.opencontainers.image.title";
    /// First 256 bytes of the description.
    pub const DESCRIPTION: &str = "org.opencontainers.image.description";
    /// Version.
    pub const VERSION: &str = "org.opencontainers.image.version";
    /// `Name <email>, Name2`.
    pub const AUTHORS: &str = "org.opencontainers.image.authors";
    /// License.
    pub const LICENSES: &str = "org.opencontainers.image.licenses";
    /// Namespace.
    pub const VENDOR: &str = "org.opencontainers.image.vendor";
    /// RFC 3339 date.
    pub const CREATED: &str = "org.opencontainers.image.created";
    /// Where the source is.
    pub const SOURCE: &str = "org.opencontainers.image.source";
    /// Commit of the source.
    pub const REVISION: &str = "org.opencontainers.image.revision";
    /// Home page.
    pub const URL: &str = "org.opencontainers.image.url";
    /// What the names of annotations begin with that say what an image was made from.
    pub const BASE: &str = "org.opencontainers.image.base.";
    /// The reference of the image that it was made from.
    pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
    /// The digest of the image that it was made from.
    pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
    /// Documentation.
    pub const DOCUMENTATION: &str = "org.opencontainers.image.documentation";
}

/// Which media types an image gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// `application/vnd.oci.image.*`: what runtimes mount.
    #[default]
    Standard,
    /// `application/vnd.redhat.agentskill.*`: what oc-mirror recognises; such an image cannot be loaded into containers-storage.
    Redhat,
}

impl Profile {
    /// Returns the profile of a name, in any case and with spaces around it, as the Go tool reads it.
    ///
    /// # Errors
    /// In the Go tool's words.
    pub fn parse(name: &str) -> std::result::Result<Self, String> {
        match name.trim().to_ascii_lowercase().as_str() {
            "standard" | "" => Ok(Self::Standard),
            "redhat" => Ok(Self::Redhat),
            _ => Err(format!("unknown media type profile: {name:?} (valid: standard, redhat)")),
        }
    }

    /// Returns the type of a config.
    pub fn config(self) -> &'static str {
        match self {
            Self::Standard => "application/vnd.oci.image.config.v1+json",
            Self::Redhat => "application/vnd.redhat.agentskill.config.v1+json",
        }
    }

    fn layer(self) -> &'static str {
        match self {
            Self::Standard => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Redhat => "application/vnd.redhat.agentskill.layer.v1.tar+gzip",
        }
    }
}

/// What a config is for: runtimes that select from an index go by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Default for Platform {
    /// linux/amd64 on every host, as the Go tool writes it; podman mounts a foreign single manifest everywhere.
    fn default() -> Self {
        Self { os: "linux".into(), architecture: "amd64".into(), variant: None }
    }
}

/// What `all` stands for: the architectures of RHEL and Fedora.
const ALL_PLATFORMS: &str = "linux/amd64,linux/arm64,linux/ppc64le,linux/s390x,linux/riscv64";

impl Platform {
    /// Reads a list such as `linux/amd64,linux/arm64`, or `all`.
    ///
    /// # Errors
    /// In one line, for what is no platform or is listed twice.
    pub fn list(text: &str) -> std::result::Result<Vec<Self>, String> {
        let text = if text.trim() == "all" { ALL_PLATFORMS } else { text };
        let mut platforms: Vec<Self> = Vec::new();
        for part in text.split(',') {
            let platform = part.trim().parse()?;
            if platforms.contains(&platform) {
                return Err(format!("{platform} is listed twice"));
            }
            platforms.push(platform);
        }
        Ok(platforms)
    }

    /// Returns the operating system, in Go's terms: `linux`.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// Returns the architecture, in Go's terms: `amd64`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Returns the variant, such as `v7`.
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    fn json(&self) -> Value {
        let mut value = json!({"architecture": self.architecture, "os": self.os});
        if let Some(variant) = &self.variant {
            value["variant"] = variant.as_str().into();
        }
        value
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let variant = self.variant.as_ref().map(|v| format!("/{v}")).unwrap_or_default();
        write!(f, "{}/{}{variant}", self.os, self.architecture)
    }
}

impl std::str::FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [os, architecture] | [os, architecture, _] if parts.iter().all(|part| word(part)) => Ok(Self {
                os: os.into(),
                architecture: architecture.into(),
                variant: parts.get(2).map(|variant| (*variant).into()),
            }),
            _ => Err(format!("{text:?} is no platform such as linux/arm64 or linux/arm/v7")),
        }
    }
}

/// Digest and size of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// `sha256:…`
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// Returns the bytes of the image config.
///
/// It has no `created` and no history, so that the image ID depends on content, card and platform alone.
pub fn config(labels: &BTreeMap<String, String>, diff_id: &str, platform: &Platform) -> Vec<u8> {
    let mut config = platform.json();
    config["config"] = json!({"Labels": labels});
    config["rootfs"] = json!({"type": "layers", "diff_ids": [diff_id]});
    config.to_string().into_bytes()
}

/// Returns the bytes of the config of an artifact by the Agent Skills OCI Artifacts Specification (0.1).
pub fn artifact_config(card: &Card) -> Vec<u8> {
    let metadata = &card.metadata;
    let mut config = json!({"schemaVersion": "1", "name": metadata.name, "version": metadata.version});
    let mut put = |key: &str, value: Value| config[key] = value;
    let texts = [
        ("description", &metadata.description),
        ("license", &metadata.license),
        ("compatibility", &metadata.compatibility),
    ];
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        put(key, text.as_str().into());
    }
    if !metadata.allowed_tools.is_empty() {
        put("allowedTools", metadata.allowed_tools.split_whitespace().collect::<Vec<_>>().into());
    }
    config.to_string().into_bytes()
}

/// Returns the bytes of the manifest of such an artifact of a skill.
///
/// The specification has nothing about its layer but the type; oras, which writes no layer without a title, makes of this one
/// the directory that is in it.
pub fn artifact(name: &str, config: &Blob, layer: &Blob, annotations: &BTreeMap<String, String>) -> Vec<u8> {
    let unpacks = json!({(oci::TITLE): name, (format::UNPACK): "true"});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.to_string(),
        "artifactType": format::SKILL_ARTIFACT,
        "config": {"mediaType": format::SKILL_CONFIG, "digest": config.digest, "size": config.size},
        "layers": [{
            "mediaType": format::SKILL_CONTENT,
            "digest": layer.digest,
            "size": layer.size,
            "annotations": unpacks,
        }],
        "annotations": annotations,
    });
    manifest.to_string().into_bytes()
}

/// Returns the annotations of such an artifact: ours, and those of the specification.
pub fn artifact_annotations(card: &Card, mut annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let metadata = &card.metadata;
    annotations.insert(oci::TITLE.to_owned(), metadata.name.clone());
    annotations.insert(format::SKILL_NAME.to_owned(), metadata.name.clone());
    if !metadata.compatibility.is_empty() {
        annotations.insert(format::SKILL_COMPATIBILITY.to_owned(), metadata.compatibility.clone());
    }
    annotations
}

/// Returns the bytes of the manifest of one layer.
pub fn manifest(profile: Profile, config: &Blob, layer: &Blob, annotations: &BTreeMap<String, String>) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.to_string(),
        "config": {"mediaType": profile.config(), "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": profile.layer(), "digest": layer.digest, "size": layer.size}],
        "annotations": annotations,
    });
    manifest.to_string().into_bytes()
}

/// Returns the bytes of an index of one image per platform. It has the annotations of its images, so that whoever reads
/// one manifest knows the skill and its state.
pub fn index(instances: &[(Platform, Blob)], annotations: &BTreeMap<String, String>) -> Vec<u8> {
    let instance = |(platform, manifest): &(Platform, Blob)| {
        json!({
            "mediaType": MediaType::ImageManifest.to_string(),
            "digest": manifest.digest,
            "size": manifest.size,
            "platform": platform.json(),
        })
    };
    let index = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageIndex.to_string(),
        "manifests": instances.iter().map(instance).collect::<Vec<_>>(),
        "annotations": annotations,
    });
    index.to_string().into_bytes()
}

/// Returns the index entry of a manifest or an index, with a copy of its annotations, and of what kind of artifact it is if
/// it is no image, so that listing reads one file.
pub fn index_entry(
    media_type: &MediaType,
    manifest: &Blob,
    annotations: &BTreeMap<String, String>,
    artifact: Option<&str>,
) -> Value {
    let mut entry = json!({
        "mediaType": media_type.to_string(),
        "digest": manifest.digest,
        "size": manifest.size,
        "annotations": annotations,
    });
    if let Some(artifact) = artifact {
        entry["artifactType"] = artifact.into();
    }
    entry
}

/// Returns the annotations of a card that neither a clock nor a promotion decides.
pub fn annotations(card: &Card, words: u64) -> BTreeMap<String, String> {
    let metadata = &card.metadata;
    let mut all = BTreeMap::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            all.insert(key.to_owned(), value.to_owned());
        }
    };
    put(NAME, &metadata.name);
    put(NAMESPACE, &metadata.namespace);
    put(oci::TITLE, if metadata.display_name.is_empty() { &metadata.name } else { &metadata.display_name });
    put(oci::DESCRIPTION, first_bytes(&metadata.description, DESCRIPTION_BYTES));
    put(oci::VERSION, &metadata.version);
    put(oci::AUTHORS, &authors(&metadata.authors));
    put(oci::LICENSES, &metadata.license);
    put(oci::VENDOR, if card.catalog.vendor.is_empty() { &metadata.namespace } else { &card.catalog.vendor });
    put(oci::URL, &card.catalog.url);
    put(oci::DOCUMENTATION, &card.catalog.documentation);
    if let Some(provenance) = &card.provenance {
        put(oci::SOURCE, &provenance.source);
        put(oci::REVISION, &provenance.commit);
    }
    if !metadata.tags.is_empty() {
        put(TAGS, &json!(metadata.tags).to_string());
    }
    put(COMPATIBILITY, &metadata.compatibility);
    put(ALLOWED_TOOLS, &metadata.allowed_tools);
    put("io.skillimage.support", &card.catalog.support);
    put("io.skillimage.changelog", &card.catalog.changelog);
    if words > 0 {
        put(WORDCOUNT, &words.to_string());
    }
    for (key, value) in &card.catalog.annotations {
        // What we say of the image is not the card's to change.
        all.entry(key.clone()).or_insert_with(|| value.clone());
    }
    all
}

/// Returns `Name <email>, Name2`.
fn authors(authors: &[Author]) -> String {
    let author = |author: &Author| match author.email.as_str() {
        "" => author.name.clone(),
        email => format!("{} <{email}>", author.name),
    };
    authors.iter().map(author).collect::<Vec<_>>().join(", ")
}

/// Cuts text to at most `bytes`, back to a whole character.
fn first_bytes(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// Returns the labels of the config: the annotations that no promotion and no clock changes.
pub fn labels(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let constant = |key: &str| {
        let predefined = key.starts_with("org.opencontainers.image.");
        // Where the same content came from does not make it another image.
        let varies = key == oci::CREATED || key.starts_with(oci::BASE);
        matches!(key, NAME | NAMESPACE) || (predefined && !varies)
    };
    annotations.iter().filter(|(key, _)| constant(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// How the media types of what containers-storage takes begin.
pub const LOADABLE: [&str; 4] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.oci.image.layer.",
    "application/vnd.docker.image.rootfs.",
];

/// What a manifest, or an index of manifests, says of the skill in it.
#[derive(Debug, Clone)]
pub struct Info {
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
    /// The layers, in order; an index has none.
    pub layers: Vec<Descriptor>,
    /// The config; an index has none.
    pub config: Option<Descriptor>,
    /// The images of an index, one per platform; empty for an image.
    pub instances: Vec<Descriptor>,
    /// What kind of artifact it is, where it says so.
    pub artifact_type: Option<String>,
}

impl Info {
    /// Reads a manifest or an index.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the bytes are neither, or are both: readers would disagree on what such a document is.
    pub fn parse(bytes: &[u8], object: &str) -> Result<Self> {
        let damaged = |reason: String| Error::Damaged { object: object.to_owned(), reason };
        strict::check(bytes).map_err(damaged)?;
        let value: Value = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        let keyed = |annotations: &Option<_>| annotations.clone().map(BTreeMap::from_iter).unwrap_or_default();
        match (value.get("manifests").is_some(), value.get("layers").is_some() || value.get("config").is_some()) {
            (true, true) => Err(damaged("it is both an image manifest and an image index".into())),
            (true, false) => {
                let index: ImageIndex =
                    serde_json::from_value(value).map_err(|e| damaged(format!("it is no image index: {e}")))?;
                let annotations = keyed(index.annotations());
                let artifact_type = index.artifact_type().as_ref().map(ToString::to_string);
                let instances = index.manifests().clone();
                Ok(Self { annotations, layers: Vec::new(), config: None, instances, artifact_type })
            }
            (false, _) => {
                let manifest: ImageManifest =
                    serde_json::from_value(value).map_err(|e| damaged(format!("it is no image manifest: {e}")))?;
                let (annotations, layers) = (keyed(manifest.annotations()), manifest.layers().clone());
                let artifact_type = manifest.artifact_type().as_ref().map(ToString::to_string);
                let config = Some(manifest.config().clone());
                Ok(Self { annotations, layers, config, instances: Vec::new(), artifact_type })
            }
        }
    }

    /// Returns the image ID, the digest of the config: equal for equal content in whatever state. Empty for an index.
    pub fn image_id(&self) -> String {
        self.config.as_ref().map(|config| config.digest().to_string()).unwrap_or_default()
    }

    /// Returns the platforms of an index: `linux/amd64`.
    pub fn platforms(&self) -> Vec<String> {
        let name = |platform: &oci_spec::image::Platform| {
            let variant = platform.variant().as_ref().map(|v| format!("/{v}")).unwrap_or_default();
            format!("{}/{}{variant}", platform.os(), platform.architecture())
        };
        self.instances.iter().filter_map(|instance| instance.platform().as_ref().map(name)).collect()
    }

    /// Returns an annotation, empty where there is none.
    pub fn get(&self, key: &str) -> &str {
        self.annotations.get(key).map_or("", String::as_str)
    }

    /// Returns the first of several annotations that is there and not empty.
    pub fn first(&self, keys: &[&str]) -> &str {
        keys.iter().map(|key| self.get(key)).find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// Returns the name of the skill where it can be a directory's: what a valid card has, and nothing that is a path.
    pub fn skill_name(&self) -> Option<&str> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        Some(self.get(NAME)).filter(|name| !name.is_empty() && name.bytes().all(plain))
    }

    /// Returns the lifecycle state, where there is a valid one.
    pub fn state(&self) -> Option<State> {
        self.get(STATUS).parse().ok()
    }

    /// Returns what kind of artifact it is: as it says, else the type of its config (image specification, manifest.md); `None` for what
    /// containers-storage takes.
    pub fn artifact(&self) -> Option<&str> {
        let config = || self.config.as_ref().map(|config| config.media_type().as_ref());
        (!self.is_loadable()).then(|| self.artifact_type.as_deref().or_else(config)).flatten()
    }

    /// Returns whether containers-storage takes it: it refuses artifacts, and oc-mirror's media types.
    pub fn is_loadable(&self) -> bool {
        let takes = |part: &Descriptor| LOADABLE.iter().any(|own| part.media_type().as_ref().starts_with(own));
        self.config.iter().chain(&self.layers).all(takes)
    }

    /// Returns the sum of the sizes of the layers, in bytes.
    pub fn size(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn annotations() -> BTreeMap<String, String> {
        [
            (NAME, "hr"),
            (NAMESPACE, "acme"),
            (oci::VERSION, "1.0.0"),
            (oci::CREATED, "1970-01-01T00:00:00Z"),
            (STATUS, "draft"),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
    }

    #[test]
    fn labels_leave_out_what_changes() {
        let labels = labels(&annotations());
        assert_eq!(labels.keys().map(String::as_str).collect::<Vec<_>>(), [NAME, NAMESPACE, oci::VERSION]);
    }

    #[test]
    fn manifests_are_what_other_readers_parse() {
        let config = Blob { digest: format!("sha256:{}", "1".repeat(64)), size: 2 };
        let layer = Blob { digest: format!("sha256:{}", "2".repeat(64)), size: 7 };
        for (profile, loadable) in [(Profile::Standard, true), (Profile::Redhat, false)] {
            let bytes = manifest(profile, &config, &layer, &annotations());
            let info = Info::parse(&bytes, "test").unwrap();
            assert_eq!((info.state(), info.size(), info.is_loadable()), (Some(State::Draft), 7, loadable));
            assert_eq!(info.annotations, annotations());
        }
    }

    #[test]
    fn sizes_that_no_registry_has_do_not_overflow() {
        let blob = |digit: &str| Blob { digest: format!("sha256:{}", digit.repeat(64)), size: u64::MAX };
        let mut info = Info::parse(&manifest(Profile::Standard, &blob("1"), &blob("2"), &annotations()), "x").unwrap();
        info.layers.push(info.layers[0].clone());
        assert_eq!(info.size(), u64::MAX);
    }

    #[test]
    fn an_index_says_what_its_images_say() {
        let blob = |digit: &str| Blob { digest: format!("sha256:{}", digit.repeat(64)), size: 7 };
        let platforms: Vec<Platform> = ["linux/amd64", "linux/arm/v7"].map(|p| p.parse().unwrap()).into();
        let bytes = index(&[(platforms[0].clone(), blob("1")), (platforms[1].clone(), blob("2"))], &annotations());
        let info = Info::parse(&bytes, "x").unwrap();
        assert_eq!((info.state(), info.image_id(), info.size()), (Some(State::Draft), String::new(), 0));
        assert_eq!(info.platforms(), ["linux/amd64", "linux/arm/v7"]);
        assert_eq!(info.instances.len(), 2);
    }

    #[test]
    fn a_document_that_is_two_things_is_refused() {
        let text = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        let error = Info::parse(text, "blob x").unwrap_err();
        assert_eq!(error.to_string(), "blob x is damaged: it is both an image manifest and an image index");
    }

    #[test]
    fn platforms_are_spelled_as_podman_spells_them() {
        let all: Vec<String> = Platform::list("all").unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(all[..2], ["linux/amd64", "linux/arm64"]);
        let two: Vec<String> =
            Platform::list("linux/arm/v7, linux/s390x").unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(two, ["linux/arm/v7", "linux/s390x"]);
        for text in ["linux", "linux/amd64/", "linux/../x", "linux/amd64,linux/amd64", "", "Linux/AMD64"] {
            assert!(Platform::list(text).is_err(), "{text}");
        }
    }

    #[test]
    fn profiles_are_named_as_in_go() {
        assert_eq!(Profile::parse(" RedHat "), Ok(Profile::Redhat));
        assert_eq!(Profile::parse("x"), Err("unknown media type profile: \"x\" (valid: standard, redhat)".into()));
    }
}
