//! The forms in which tools package a skill, each with the same files: for stores that tests write and for registries.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

/// The usual media type of a layer.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The type of a config that runtimes read.
pub const OCI: &str = "application/vnd.oci.image.config.v1+json";
/// The type of a config with nothing in it.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The prompt.
pub const SKILL: &str = "---\nname: hr\ndescription: Helps with people.\n---\nWords.\n";

/// Compresses an archive.
pub fn tar_gz(tar: tar::Builder<Vec<u8>>) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar.into_inner().expect("an archive")).expect("an archive");
    gzip.finish().expect("an archive")
}

/// A layer of an artifact.
pub struct Part {
    /// Its type.
    pub media_type: String,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Its annotations.
    pub annotations: Value,
}

impl Part {
    /// Bytes of a type.
    pub fn plain(media_type: &str, text: &str) -> Self {
        Self { media_type: media_type.to_owned(), bytes: text.into(), annotations: json!({}) }
    }

    /// A file with a path.
    pub fn file(media_type: &str, path: &str, text: &str) -> Self {
        Self { annotations: json!({"org.opencontainers.image.title": path}), ..Self::plain(media_type, text) }
    }

    /// An archive of paths, texts and modes.
    pub fn archive(media_type: &str, entries: &[(String, &str, u32)]) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, text, mode) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(*mode);
            // Not by the crate's own way, which refuses names that are to be refused by us.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            tar.append(&header, text.as_bytes()).expect("an archive");
        }
        Self { bytes: tar_gz(tar), ..Self::plain(media_type, "") }
    }

    /// Says what oras says of the archive of a directory.
    pub fn unpacks(self, title: &str) -> Self {
        let annotations = json!({"org.opencontainers.image.title": title, "io.deis.oras.content.unpack": "true"});
        Self { annotations, ..self }
    }
}

/// The files of a skill below a directory of the archive.
pub fn skill(below: &str) -> Vec<(String, &'static str, u32)> {
    let at = |path: &str| format!("{below}{path}");
    vec![
        (at("SKILL.md"), SKILL, 0o644),
        (at(".hidden/notes"), "notes", 0o600),
        (at("scripts/run.sh"), "#!/bin/sh\n", 0o755),
    ]
}

/// Everything in a directory, with modes.
pub fn files(dir: &Path) -> Vec<(String, u32, Vec<u8>)> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<(String, u32, Vec<u8>)>) {
        for entry in fs::read_dir(dir).expect("a file") {
            let path = entry.expect("a file").path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let mode = fs::symlink_metadata(&path).expect("a file").permissions().mode() & 0o777;
                let name = path.strip_prefix(root).expect("a file").display().to_string();
                found.push((name, mode, fs::read(&path).expect("a file")));
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

/// What [`skill`] unpacks to.
pub fn expected(executable: bool) -> Vec<(String, u32, Vec<u8>)> {
    let mode = if executable { 0o755 } else { 0o644 };
    vec![
        (".hidden/notes".into(), 0o644, b"notes".into()),
        ("SKILL.md".into(), 0o644, SKILL.into()),
        ("scripts/run.sh".into(), mode, b"#!/bin/sh\n".into()),
    ]
}

/// Everything that one form needs.
pub struct Form {
    /// What we call it.
    pub name: &'static str,
    /// Its artifact type; empty for none.
    pub artifact_type: &'static str,
    /// The type of its config.
    pub config: &'static str,
    /// Its layers.
    pub parts: Vec<Part>,
    /// Whether it keeps exec bits.
    pub executable: bool,
}

/// Every form, with the same skill in it.
pub fn forms() -> Vec<Form> {
    let tar = |media_type: &'static str, below: &str| vec![Part::archive(media_type, &skill(below))];
    let single = |path: &'static str, text: &'static str| Part::file("text/markdown", path, text);
    let vitale = "application/vnd.agentskills.skill.v1";
    let vitale_config = "application/vnd.agentskills.skill.config.v1+json";
    let package = "application/vnd.agentpackage.skill.payload.v1.tar+gzip";
    let rows: Vec<(_, _, _, _, _)> = vec![
        (
            "Agent Skills artifact",
            vitale,
            vitale_config,
            tar("application/vnd.agentskills.skill.content.v1.tar+gzip", "hr/"),
            true,
        ),
        ("ToolHive skill", "dev.toolhive.skills.v1", OCI, tar(LAYER, ""), true),
        (
            "oc-mirror skill",
            "",
            "application/vnd.redhat.agentskill.config.v1+json",
            tar("application/vnd.redhat.agentskill.layer.v1+tar", ""),
            true,
        ),
        (
            "kagents artifact",
            "application/vnd.kagents.skill.v1",
            EMPTY,
            vec![Part::archive("application/vnd.oci.image.layer.v1.tar+gzip", &skill("hr/")).unpacks("hr")],
            true,
        ),
        (
            "ACR skill",
            "application/vnd.agent.skill.v1+json",
            EMPTY,
            tar("application/vnd.agent.skill.content.v1.tar+gzip", "hr/"),
            true,
        ),
        (
            "Flux artifact",
            "",
            "application/vnd.cncf.flux.config.v1+json",
            tar("application/vnd.cncf.flux.content.v1.tar+gzip", "skills/hr/"),
            true,
        ),
        (
            "agent package",
            "application/vnd.agentpackage.skill.v1",
            "application/vnd.agentpackage.config.v1+json",
            tar(package, "payload/"),
            true,
        ),
        (
            "ramalama skill",
            "application/vnd.cncf.skill.manifest.v1+json",
            "application/vnd.cncf.skill.config.v1+json",
            tar("application/vnd.cncf.skill.bundle.v1.tar+gzip", "hr/"),
            true,
        ),
        ("skr artifact", "", vitale_config, tar("application/vnd.agentskills.skill.layer.v1+tar+gzip", "hr/"), true),
        (
            "Agent Skills artifact",
            vitale,
            EMPTY,
            vec![single("SKILL.md", SKILL), single(".hidden/notes", "notes"), single("scripts/run.sh", "#!/bin/sh\n")],
            false,
        ),
        (
            "Agent Skills artifact",
            vitale,
            vitale_config,
            vec![
                Part::archive("application/vnd.agentskills.skill.content.v1.tar+gzip", &skill("hr/")),
                Part::file("application/vnd.docsclaw.skill.card.v1+yaml", "card.yaml", "a: b"),
            ],
            true,
        ),
        (
            "Lola module",
            "",
            "application/vnd.lola.module.config.v1+json",
            tar("application/vnd.lola.module.layer.v1.tar+gzip", "module/skills/hr/"),
            true,
        ),
        ("container image", "", OCI, tar(LAYER, ""), true),
        (
            "container image",
            "",
            OCI,
            vec![
                Part::archive(
                    LAYER,
                    &[("SKILL.md".into(), "old", 0o644), ("gone".into(), "x", 0o644), ("old/a".into(), "x", 0o644)],
                ),
                Part::archive(
                    LAYER,
                    &[
                        vec![
                            (".wh.gone".into(), "", 0o644),
                            ("old/.wh..wh..opq".into(), "", 0o644),
                            (".wh.old".into(), "", 0o644),
                        ],
                        skill(""),
                    ]
                    .concat(),
                ),
            ],
            true,
        ),
        (
            "oras artifact",
            "application/vnd.example.unknown",
            EMPTY,
            vec![Part::archive("application/vnd.oci.image.layer.v1.tar+gzip", &skill("./")).unpacks(".")],
            true,
        ),
    ];
    let form =
        |(name, artifact_type, config, parts, executable)| Form { name, artifact_type, config, parts, executable };
    rows.into_iter().map(form).collect()
}
