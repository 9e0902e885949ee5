//! The forms in which tools package skills: ours, those of others, and plain container images.
//!
//! A form is known by the artifact type, by the type of the config or by that of a layer, in this order; where the skill
//! is in it is found by looking, since tools disagree with their own specifications.

use oci_spec::image::Descriptor;

use crate::error::Error;
use crate::image::{self, Info, STATUS, oci};

/// What oras gives to a config that nobody named, before and after version 1.3.
const NO_CONFIG: [&str; 2] = ["application/vnd.oci.empty.v1+json", "application/vnd.unknown.config.v1+json"];
/// Configs of what runtimes run.
const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// The annotation with the path of what a layer holds, for oras and what is like it.
const TITLE: &str = oci::TITLE;
/// What oras calls a file that nobody gave a type, although it is no archive.
const ANY_FILE: &str = "application/vnd.oci.image.layer.v1.tar";
/// How the names of archives end.
const ARCHIVES: [&str; 3] = [".tar", ".tar.gz", ".tgz"];
/// The annotation that oras sets where a layer is an archive of the directory that its title names.
pub const UNPACK: &str = "io.deis.oras.content.unpack";
/// Collections of skills: a list of references, in the Go tool's form and in that of an index.
const COLLECTIONS: [&str; 2] =
    ["application/vnd.skillimage.collection.v1+yaml", "application/vnd.agentskills.collection.v1"];

/// Annotations in which tools keep the name of a skill; ours comes first, here and below.
pub const NAME: &[&str] = &[image::NAME, SKILL_NAME, "dev.toolhive.skills.name", "org.agent.skill.name"];
/// Annotations with its version.
pub const VERSION: &[&str] = &[oci::VERSION, "dev.toolhive.skills.version", "org.agent.skill.version"];
/// Annotations with its description.
pub const DESCRIPTION: &[&str] = &[oci::DESCRIPTION, "dev.toolhive.skills.description", "org.agent.skill.description"];
/// Annotations with its license.
pub const LICENSE: &[&str] = &[oci::LICENSES, "org.agent.skill.license"];
/// Annotations with its authors.
pub const AUTHORS: &[&str] = &[oci::AUTHORS, "org.agent.skill.author"];
/// Annotations that say what it works with.
pub const COMPATIBILITY: &[&str] = &[image::COMPATIBILITY, SKILL_COMPATIBILITY, "org.agent.skill.compatibility"];
/// Annotations that a converted image keeps: where the source is.
pub const PREDEFINED: &[&str] = &[oci::SOURCE, oci::REVISION, oci::URL, oci::DOCUMENTATION];

/// The type of an artifact by the Agent Skills OCI Artifacts Specification.
pub const SKILL_ARTIFACT: &str = "application/vnd.agentskills.skill.v1";
/// The type of its config.
pub const SKILL_CONFIG: &str = "application/vnd.agentskills.skill.config.v1+json";
/// The type of its layer, in which the skill is a directory of its name.
pub const SKILL_CONTENT: &str = "application/vnd.agentskills.skill.content.v1.tar+gzip";
/// The annotation with the skill's name.
pub const SKILL_NAME: &str = "io.agentskills.skill.name";
/// The annotation with what it works with.
pub const SKILL_COMPATIBILITY: &str = "io.agentskills.skill.compatibility";

/// One form, and the media types by which it is known.
struct Known {
    name: &'static str,
    artifact: &'static [&'static str],
    config: &'static [&'static str],
    layer: &'static [&'static str],
    /// Whether one artifact may hold several skills.
    several: bool,
}

/// The forms of other tools.
const KNOWN: &[Known] = &[
    Known {
        name: "Agent Skills artifact",
        artifact: &[SKILL_ARTIFACT],
        config: &[SKILL_CONFIG],
        layer: &[SKILL_CONTENT],
        several: false,
    },
    Known {
        name: "skr artifact",
        artifact: &[],
        config: &[],
        layer: &["application/vnd.agentskills.skill.layer.v1+tar+gzip"],
        several: false,
    },
    Known { name: "ToolHive skill", artifact: &["dev.toolhive.skills.v1"], config: &[], layer: &[], several: false },
    Known {
        name: "oc-mirror skill",
        artifact: &[],
        config: &["application/vnd.redhat.agentskill.config.v1+json"],
        layer: &[
            "application/vnd.redhat.agentskill.layer.v1.tar+gzip",
            "application/vnd.redhat.agentskill.layer.v1+tar",
        ],
        several: false,
    },
    Known {
        name: "kagents artifact",
        artifact: &["application/vnd.kagents.skill.v1"],
        config: &[],
        layer: &[],
        several: false,
    },
    Known {
        name: "ACR skill",
        artifact: &["application/vnd.agent.skill.v1+json"],
        config: &[],
        layer: &["application/vnd.agent.skill.content.v1.tar+gzip"],
        several: false,
    },
    Known {
        name: "Flux artifact",
        artifact: &[],
        config: &["application/vnd.cncf.flux.config.v1+json"],
        layer: &["application/vnd.cncf.flux.content.v1.tar+gzip"],
        several: true,
    },
    Known {
        name: "agent package",
        artifact: &["application/vnd.agentpackage.skill.v1", "application/vnd.agentpackage.plugin.v1"],
        config: &["application/vnd.agentpackage.config.v1+json"],
        layer: &["application/vnd.agentpackage.skill.payload.v1.tar+gzip"],
        several: true,
    },
    Known {
        name: "ramalama skill",
        artifact: &["application/vnd.cncf.skill.manifest.v1+json"],
        config: &["application/vnd.cncf.skill.config.v1+json"],
        layer: &["application/vnd.cncf.skill.bundle.v1.tar+gzip"],
        several: false,
    },
    Known {
        name: "Lola module",
        artifact: &[],
        config: &["application/vnd.lola.module.config.v1+json"],
        layer: &["application/vnd.lola.module.layer.v1.tar+gzip"],
        several: true,
    },
];

/// What our own images, and those of the Go tool, are called.
pub const OWN: &str = "skill image";

/// Layers that say something of a skill and are not part of it.
const BESIDE: [&str; 1] = ["application/vnd.docsclaw.skill.card.v1+yaml"];

/// The form of an image or artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// What it is called.
    pub name: &'static str,
    /// How its layers make a tree.
    pub shape: Shape,
    /// Whether it may hold several skills.
    pub several: bool,
}

/// How layers make a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One layer that is the skill, as we write it and the Go tool does.
    Own,
    /// Layers of a container image, each over those before it.
    Image,
    /// Archives and files, side by side.
    Parts,
}

/// What a layer of an artifact is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// An archive.
    Archive,
    /// A file with this path.
    File(String),
    /// Nothing of the skill.
    Beside,
}

impl Format {
    /// Returns the form of a manifest.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the types that were found, where it is none that is known.
    pub fn of(info: &Info, object: &str) -> Result<Self, Error> {
        let config = info.config.as_ref().map(|config| config.media_type().as_ref()).unwrap_or_default();
        let artifact = info.artifact_type.as_deref().unwrap_or_default();
        let types: Vec<&str> = info.layers.iter().map(|layer| layer.media_type().as_ref()).collect();
        if COLLECTIONS.contains(&artifact) {
            return Err(collection(object));
        }
        let known = by(|known| known.artifact.contains(&artifact))
            .or_else(|| by(|known| types.iter().any(|layer| known.layer.contains(layer))))
            .or_else(|| by(|known| known.config.contains(&config)));
        let is_image = IMAGE_CONFIGS.contains(&config) && types.iter().all(|layer| is_archive(layer));
        let skill = types.len() == 1 && !info.get(STATUS).is_empty();
        let form = |name, shape, several| Ok(Self { name, shape, several });
        match known {
            _ if skill && is_image => form(OWN, Shape::Own, false),
            Some(known) if skill && known.name == "oc-mirror skill" => form(known.name, Shape::Own, false),
            Some(known) => form(known.name, if is_image { Shape::Image } else { Shape::Parts }, known.several),
            None if is_image => form("container image", Shape::Image, true),
            None if NO_CONFIG.contains(&config) && info.layers.iter().all(|layer| title(layer).is_some()) => {
                form("oras artifact", Shape::Parts, true)
            }
            None => Err(unknown(object, artifact, config, &types)),
        }
    }

    /// Checks that an index is one of images for platforms.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it is a collection.
    pub fn check_index(info: &Info, object: &str) -> Result<(), Error> {
        match info.artifact_type.as_deref() {
            Some(artifact) if COLLECTIONS.contains(&artifact) => Err(collection(object)),
            _ => Ok(()),
        }
    }

    /// Returns what a layer of an artifact is.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where nobody knows.
    pub fn part(self, layer: &Descriptor, object: &str) -> Result<Part, Error> {
        let media_type = layer.media_type().as_ref();
        let unpacks = layer.annotations().as_ref().is_some_and(|all| all.get(UNPACK).is_some_and(|on| on == "true"));
        match title(layer) {
            _ if BESIDE.contains(&media_type) => Ok(Part::Beside),
            _ if unpacks => Ok(Part::Archive),
            Some(path) if media_type == ANY_FILE && !ARCHIVES.iter().any(|end| path.ends_with(end)) => {
                Ok(Part::File(path.to_owned()))
            }
            _ if is_archive(media_type) => Ok(Part::Archive),
            Some(path) => Ok(Part::File(path.to_owned())),
            None => {
                let reason = format!("{object} has a layer of the unknown type {media_type}");
                Err(refused(reason, None))
            }
        }
    }
}

fn collection(object: &str) -> Error {
    // The object may be called by its digest, which is no name to install it by.
    let hint = "skillctl collection install REFERENCE installs its skills".to_owned();
    refused(format!("{object} is a collection of skills"), Some(hint))
}

fn by(is: impl Fn(&Known) -> bool) -> Option<&'static Known> {
    KNOWN.iter().find(|known| is(known))
}

fn title(layer: &Descriptor) -> Option<&str> {
    layer.annotations().as_ref()?.get(TITLE).map(String::as_str)
}

/// Returns whether a media type says that a layer is a tar archive, compressed or not; which of both is seen in its bytes.
fn is_archive(media_type: &str) -> bool {
    let suffixes = [".tar+gzip", "+tar+gzip", ".tar.gzip", ".tar", "+tar", ".tar+zstd"];
    suffixes.iter().any(|suffix| media_type.ends_with(suffix))
}

fn unknown(object: &str, artifact: &str, config: &str, layers: &[&str]) -> Error {
    let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    let layers = or_none(&layers.join(", "));
    let (artifact, config) = (or_none(artifact), or_none(config));
    let reason = format!(
        "{object} is no skill that is known: its artifact type is {artifact}, its config {config}, its layers {layers}"
    );
    refused(reason, None)
}

fn refused(reason: String, hint: Option<String>) -> Error {
    Error::Unavailable { reason, hint }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn manifest(artifact: &str, config: &str, layers: &[(&str, Value)], annotations: Value) -> Info {
        let digest = format!("sha256:{}", "0".repeat(64));
        let layer = |(media_type, annotations): &(&str, Value)| {
            let annotations = if annotations.is_null() { json!({}) } else { annotations.clone() };
            json!({"mediaType": media_type, "digest": digest, "size": 1, "annotations": annotations})
        };
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": config, "digest": digest, "size": 1},
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
            "annotations": annotations,
        });
        if !artifact.is_empty() {
            manifest["artifactType"] = artifact.into();
        }
        Info::parse(manifest.to_string().as_bytes(), "x").expect("a manifest")
    }

    const OCI: &str = "application/vnd.oci.image.config.v1+json";
    const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const EMPTY: &str = "application/vnd.oci.empty.v1+json";

    #[test]
    fn forms_are_known_by_their_types() {
        let none = || json!(null);
        let status = || json!({STATUS: "draft"});
        let titled = |path: &str| json!({TITLE: path});
        let vitale = "application/vnd.agentskills.skill.v1";
        let vitale_config = "application/vnd.agentskills.skill.config.v1+json";
        let own = ("skill image", Shape::Own);
        let cases = [
            (manifest("", OCI, &[(TAR, none())], status()), own),
            (manifest("", OCI, &[(TAR, none())], none()), ("container image", Shape::Image)),
            (manifest("", OCI, &[(TAR, none()), (TAR, none())], status()), ("container image", Shape::Image)),
            (
                manifest("dev.toolhive.skills.v1", OCI, &[(TAR, titled("skill.tar.gz"))], none()),
                ("ToolHive skill", Shape::Image),
            ),
            (
                manifest(
                    vitale,
                    vitale_config,
                    &[("application/vnd.agentskills.skill.content.v1.tar+gzip", none())],
                    none(),
                ),
                ("Agent Skills artifact", Shape::Parts),
            ),
            (
                manifest(vitale, EMPTY, &[("text/markdown", titled("SKILL.md"))], none()),
                ("Agent Skills artifact", Shape::Parts),
            ),
            (
                manifest("", vitale_config, &[("application/vnd.agentskills.skill.layer.v1+tar+gzip", none())], none()),
                ("skr artifact", Shape::Parts),
            ),
            (
                manifest(
                    "",
                    "application/vnd.redhat.agentskill.config.v1+json",
                    &[("application/vnd.redhat.agentskill.layer.v1.tar+gzip", none())],
                    status(),
                ),
                ("oc-mirror skill", Shape::Own),
            ),
            (
                manifest(
                    "",
                    "application/vnd.redhat.agentskill.config.v1+json",
                    &[("application/vnd.redhat.agentskill.layer.v1+tar", none())],
                    none(),
                ),
                ("oc-mirror skill", Shape::Parts),
            ),
            (
                manifest("application/vnd.kagents.skill.v1", EMPTY, &[(TAR, titled("."))], none()),
                ("kagents artifact", Shape::Parts),
            ),
            (
                manifest(
                    "application/vnd.agent.skill.v1+json",
                    EMPTY,
                    &[("application/vnd.agent.skill.content.v1.tar+gzip", none())],
                    none(),
                ),
                ("ACR skill", Shape::Parts),
            ),
            (
                manifest(
                    "",
                    "application/vnd.cncf.flux.config.v1+json",
                    &[("application/vnd.cncf.flux.content.v1.tar+gzip", none())],
                    none(),
                ),
                ("Flux artifact", Shape::Parts),
            ),
            (
                manifest(
                    "application/vnd.agentpackage.skill.v1",
                    "application/vnd.agentpackage.config.v1+json",
                    &[("application/vnd.agentpackage.skill.payload.v1.tar+gzip", none())],
                    none(),
                ),
                ("agent package", Shape::Parts),
            ),
            (
                manifest(
                    "application/vnd.cncf.skill.manifest.v1+json",
                    "application/vnd.cncf.skill.config.v1+json",
                    &[("application/vnd.cncf.skill.bundle.v1.tar+gzip", none())],
                    none(),
                ),
                ("ramalama skill", Shape::Parts),
            ),
            (
                manifest(
                    "",
                    "application/vnd.lola.module.config.v1+json",
                    &[("application/vnd.lola.module.layer.v1.tar+gzip", none())],
                    none(),
                ),
                ("Lola module", Shape::Parts),
            ),
            (manifest("", EMPTY, &[("text/markdown", titled("SKILL.md"))], none()), ("oras artifact", Shape::Parts)),
        ];
        for (info, want) in cases {
            let found = Format::of(&info, "x").map(|format| (format.name, format.shape)).map_err(|e| e.to_string());
            assert_eq!(found, Ok(want));
        }
    }

    #[test]
    fn what_is_unknown_is_said_with_what_was_found() {
        let helm = manifest(
            "",
            "application/vnd.cncf.helm.config.v1+json",
            &[("application/vnd.cncf.helm.chart.content.v1.tar+gzip", json!(null))],
            json!(null),
        );
        let error = Format::of(&helm, "acme/chart:1").expect_err("no skill").to_string();
        let want = "acme/chart:1 is no skill that is known: its artifact type is none, its config \
                    application/vnd.cncf.helm.config.v1+json, its layers \
                    application/vnd.cncf.helm.chart.content.v1.tar+gzip";
        assert_eq!(error, want);
        let collection = "application/vnd.skillimage.collection.v1+yaml";
        let info = manifest(collection, EMPTY, &[(collection, json!(null))], json!(null));
        let error = Format::of(&info, "acme/office:1").expect_err("no skill");
        assert_eq!(error.to_string(), "acme/office:1 is a collection of skills");
        assert!(error.hint().is_some_and(|hint| hint.starts_with("skillctl collection install")));
        let odd =
            manifest("application/vnd.agentskills.skill.v1", EMPTY, &[("application/x-odd", json!(null))], json!(null));
        let format = Format::of(&odd, "x").expect("a form");
        let error = format.part(&odd.layers[0], "x").expect_err("no part").to_string();
        assert_eq!(error, "x has a layer of the unknown type application/x-odd");
    }

    #[test]
    fn layers_are_archives_files_or_neither() {
        let format = Format { name: "x", shape: Shape::Parts, several: false };
        let cases = [
            (TAR, json!({TITLE: "hr", UNPACK: "true"}), Part::Archive),
            ("application/octet-stream", json!({TITLE: "hr", UNPACK: "true"}), Part::Archive),
            ("text/markdown", json!({TITLE: "a/SKILL.md"}), Part::File("a/SKILL.md".into())),
            (ANY_FILE, json!({TITLE: "scripts/run.sh"}), Part::File("scripts/run.sh".into())),
            (ANY_FILE, json!({TITLE: "hr.tar"}), Part::Archive),
            ("application/vnd.docsclaw.skill.card.v1+yaml", json!({TITLE: "card.yaml"}), Part::Beside),
            ("application/vnd.oci.image.layer.v1.tar", json!(null), Part::Archive),
        ];
        for (media_type, annotations, want) in cases {
            let info = manifest("", EMPTY, &[(media_type, annotations)], json!(null));
            assert_eq!(format.part(&info.layers[0], "x").ok(), Some(want));
        }
    }
}
