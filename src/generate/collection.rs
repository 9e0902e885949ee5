//! A collection for Kubernetes and for podman: the lines of the Go tool, in which no name can be more than a name.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::podman::check_path;
use super::quote::{dotted, label, scalar, word};
use super::{Skill, volume};
use crate::collection::{Collection, Member};
use crate::error::{Error, Result};
use crate::reference::Reference;

/// A skill that gets a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its image, in full.
    pub image: Reference,
    /// The directory that it is mounted at, below the root.
    pub directory: String,
    /// Its name as podman's volume: with version and digest where the collection has those, as podman keeps what has a name.
    pub name: String,
    /// Its name in a pod.
    pub label: String,
}

/// Returns the volumes of a collection.
///
/// # Errors
/// [`Error::Unavailable`] that names the members without an image, or a root that is no path.
pub fn volumes(collection: &Collection, mount_root: &str) -> Result<Vec<Volume>> {
    if mount_root != "/" {
        check_path(mount_root.trim_end_matches('/'))?;
    }
    let without: Vec<String> = collection.members.iter().filter(|m| m.image().is_none()).map(Member::label).collect();
    if !without.is_empty() {
        let reason = format!("collection {}: no image of {}", collection.name, without.join(", "));
        let hint = Some("build and push it, and name its image in the collection".into());
        return Err(Error::Unavailable { reason, hint });
    }
    let volume = |member: &Member| {
        let name = member.label();
        let own = member.image()?.clone().or_latest();
        Some(Volume { directory: dotted(&name), label: label(&name), name: volume_name(name, &own), image: own })
    };
    Ok(collection.members.iter().filter_map(volume).collect())
}

fn volume_name(name: String, image: &Reference) -> String {
    if image.digest().is_none() {
        return dotted(&name);
    }
    let (tag, version) = (image.tag().map(str::to_owned), image.tag().unwrap_or_default().to_owned());
    volume::name(&Skill { image: pinned(image), tag, name, version })
}

/// Returns the part of a pod that mounts the skills.
pub fn pod(volumes: &[Volume], mount_root: &str) -> String {
    let mut text = "volumes:\n".to_owned();
    for Volume { image, label, .. } in volumes {
        let (name, image) = (scalar(label), scalar(&image.in_storage()));
        // Writing to a string cannot fail.
        let _ =
            write!(text, "  - name: {name}\n    image:\n      reference: {image}\n      pullPolicy: IfNotPresent\n");
    }
    text += "containers:\n  - name: agent\n    volumeMounts:\n";
    for Volume { directory, label, .. } in volumes {
        let (label, path) = (scalar(label), scalar(&mount_path(mount_root, directory)));
        let _ = write!(text, "      - name: {label}\n        mountPath: {path}\n        readOnly: true\n");
    }
    text
}

/// Returns the same as a value.
pub fn pod_json(volumes: &[Volume], mount_root: &str) -> Value {
    let volume = |v: &Volume| json!({"name": v.label, "image": {"reference": v.image.in_storage(), "pullPolicy": "IfNotPresent"}});
    let mount =
        |v: &Volume| json!({"name": v.label, "mountPath": mount_path(mount_root, &v.directory), "readOnly": true});
    json!({
        "volumes": volumes.iter().map(volume).collect::<Vec<_>>(),
        "containers": [{"name": "agent", "volumeMounts": volumes.iter().map(mount).collect::<Vec<_>>()}],
    })
}

/// Returns the commands that make a volume of each skill: what is to be pulled first, and what makes it. podman takes no tag
/// beside a digest, and cannot pull what is only here.
pub fn commands(volume: &Volume) -> (Option<Vec<String>>, Vec<String>) {
    let image = podman_image(&volume.image);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let pull = volume.image.registry().is_some().then(|| words(&["podman", "pull", &image]));
    let option = format!("image={image}");
    (pull, words(&["podman", "volume", "create", "--driver", "image", "--opt", &option, &volume.name]))
}

/// Returns an image as podman is told it.
pub fn podman_image(image: &Reference) -> String {
    pinned(image).in_storage()
}

/// Returns an image by digest alone, where it has one: its tag may be another skill's by now.
pub fn pinned(image: &Reference) -> Reference {
    image.digest().and_then(|digest| image.with_digest(digest).ok()).unwrap_or_else(|| image.clone())
}

/// Returns the commands as lines for a shell. Each runs only after the one before: a volume is not made of an older image, nor
/// passed for new where podman has one of that name.
pub fn script(volumes: &[Volume], mount_root: &str) -> String {
    let commands = |volume: &Volume| {
        let image = podman_image(&volume.image);
        let first = match volume.image.registry() {
            Some(_) => format!("podman pull {}", word(&image)),
            None => format!("skillctl load {}", word(&pinned(&volume.image).to_string())),
        };
        let (image, name) = (word(&format!("image={image}")), word(&volume.name));
        format!("{first} &&\npodman volume create --driver image \\\n  --opt {image} \\\n  {name}")
    };
    let mut text = volumes.iter().map(commands).collect::<Vec<_>>().join(" &&\n\n");
    text += "\n\n# Run with:\n# podman run --rm \\\n";
    for Volume { name, directory, .. } in volumes {
        let mount = format!("{name}:{}:ro", mount_path(mount_root, directory));
        let _ = writeln!(text, "#   -v {} \\", word(&mount));
    }
    text + "#   my-agent:latest\n"
}

fn mount_path(root: &str, name: &str) -> String {
    format!("{}/{name}", root.trim_end_matches('/'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::generate::quote::MAX_LABEL;

    const HOSTILE: [&str; 10] =
        ["a\n  b: c", "a: b", "a #b", "\"a\"", "{a}", "$(id)", "a;b", "../../etc", "", "yes'\nhostPath: /"];

    fn collection(names: &[&str]) -> Collection {
        let members = names.iter().map(|name| {
            let from = crate::collection::Origin::Image("127.0.0.1:5000/acme/hr:1.0.0".parse().unwrap());
            Member { name: Some((*name).to_owned()), from }
        });
        Collection {
            name: "office".into(),
            version: "1".into(),
            description: String::new(),
            members: members.collect(),
        }
    }

    #[test]
    fn plain_names_give_the_lines_of_go() {
        let volumes = volumes(&collection(&["hr"]), "/skills").unwrap();
        assert_eq!(
            pod(&volumes, "/skills"),
            "volumes:\n  - name: hr\n    image:\n      reference: 127.0.0.1:5000/acme/hr:1.0.0\n      pullPolicy: \
             IfNotPresent\ncontainers:\n  - name: agent\n    volumeMounts:\n      - name: hr\n        mountPath: \
             /skills/hr\n        readOnly: true\n"
        );
        assert_eq!(
            script(&volumes, "/skills"),
            "podman pull 127.0.0.1:5000/acme/hr:1.0.0 &&\npodman volume create --driver image \\\n  --opt \
             image=127.0.0.1:5000/acme/hr:1.0.0 \\\n  hr\n\n# Run with:\n# podman run --rm \\\n#   -v hr:/skills/hr:ro \
             \\\n#   my-agent:latest\n"
        );
    }

    #[test]
    fn hostile_names_are_names_and_no_more() {
        let volumes = volumes(&collection(&HOSTILE), "/skills").unwrap();
        let text = pod(&volumes, "/skills");
        let document = crate::yaml::parse(text.as_bytes(), 1 << 20).unwrap();
        let root = document.root.unwrap();
        let crate::yaml::Value::Sequence(items) = &root.get("volumes").unwrap().value else { panic!("{text}") };
        assert_eq!(items.len(), HOSTILE.len());
        for (item, volume) in items.iter().zip(&volumes) {
            assert_eq!(item.get("name").and_then(crate::yaml::Node::text), Some(volume.label.as_str()), "{text}");
            assert!(item.get("hostPath").is_none(), "{text}");
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(volume.label.len() <= MAX_LABEL && volume.label.chars().all(plain), "{}", volume.label);
        }
        let shell = script(&volumes, "/skills");
        assert!(shell.lines().all(|line| !line.contains("$(") && !line.contains(';')), "{shell}");
        let labels: std::collections::BTreeSet<_> = volumes.iter().map(|volume| &volume.label).collect();
        assert_eq!(labels.len(), HOSTILE.len());
    }

    #[test]
    fn members_without_an_image_are_named() {
        let mut office = collection(&["hr"]);
        office.members[0].from = crate::collection::Origin::Source("https://git.example/hr".into());
        let error = volumes(&office, "/skills").unwrap_err().to_string();
        assert_eq!(error, "collection office: no image of hr");
        assert!(volumes(&collection(&["hr"]), "/a b").is_err());
    }

    #[test]
    fn what_has_a_digest_gets_a_volume_named_after_it() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let mut office = collection(&["hr", "legal"]);
        for (member, image) in office.members.iter_mut().zip(["quay.io/acme/hr:1.0.0", "acme/legal:2"]) {
            member.from = crate::collection::Origin::Image(format!("{image}@{digest}").parse().unwrap());
        }
        let volumes = volumes(&office, "/skills").unwrap();
        assert_eq!(
            script(&volumes, "/skills"),
            format!(
                "podman pull quay.io/acme/hr@{digest} &&\npodman volume create --driver image \\\n  --opt \
                 image=quay.io/acme/hr@{digest} \\\n  skill-hr-1.0.0-111111111111 &&\n\n\
                 skillctl load acme/legal@{digest} &&\npodman volume create --driver image \\\n  --opt \
                 image=localhost/acme/legal@{digest} \\\n  skill-legal-2-111111111111\n\n# Run with:\n# podman run --rm \
                 \\\n#   -v skill-hr-1.0.0-111111111111:/skills/hr:ro \\\n#   -v \
                 skill-legal-2-111111111111:/skills/legal:ro \\\n#   my-agent:latest\n"
            )
        );
        assert!(pod(&volumes, "/skills").contains("  - name: hr\n"));
        assert!(pod(&volumes, "/skills").contains("mountPath: /skills/hr\n"));
    }
}
