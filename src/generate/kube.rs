//! Skills in pods of Kubernetes: as image volumes, or for clusters without them pulled by an init container.
//!
//! What is added to a pod is a value; [`pod`] writes it as a new manifest, [`inject::inject`] into one that is there.

mod document;
pub mod inject;
mod legible;
mod plain;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::quote::label;
use super::{Skill, destination};
use crate::card::emit;
use crate::error::{Error, Result};

/// The image whose container pulls skills: what `podman build -f packaging/Containerfile -t skillctl .` makes. It has
/// skillctl and skopeo, and a user that is a number and not root. With `localhost` before it, no stranger's is pulled.
pub const PULLER: &str = "localhost/skillctl:latest";
/// How large what an init container pulls may become, packed and in files.
pub const SIZE_LIMIT: &str = "1Gi";
/// Prefix of the annotations that say by which tag an image was chosen. Its digest is what counts.
const TAG: &str = "tag.skillimage.io";
/// The volume that init containers fill, and where they see it.
const PULLED: &str = "skills";
const WORK: &str = "/skillctl";
/// Where the init containers see the credentials of a registry.
const AUTH: &str = "/skillctl-auth";

/// How skills come into a pod.
#[derive(Debug, Clone, Copy)]
pub enum Style<'a> {
    /// As image volumes, which the kubelet pulls.
    ImageVolume,
    /// By init containers with skillctl.
    InitContainer {
        /// The image of those.
        puller: &'a str,
        /// A quantity, such as `1Gi`.
        size_limit: &'a str,
    },
}

/// A secret of type `kubernetes.io/dockerconfigjson`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSecret {
    /// The registry that it is for; any other where none is named.
    pub registry: Option<String>,
    /// Its name.
    pub name: String,
}

impl PullSecret {
    /// Reads `[REGISTRY=]NAME`.
    ///
    /// # Errors
    /// If the name is none of an object of Kubernetes.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let (registry, name) = match text.split_once('=') {
            Some((registry, name)) => (Some(registry.to_owned()).filter(|r| !r.is_empty()), name),
            None => (None, text),
        };
        match is_subdomain(name) {
            true => Ok(Self { registry, name: name.to_owned() }),
            false => Err(format!("{name:?} cannot be the name of a secret")),
        }
    }
}

/// Returns whether a text is a subdomain of RFC 1123, as names of objects are.
pub fn is_subdomain(text: &str) -> bool {
    let part = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ends = part.bytes().next().is_some_and(inner) && part.bytes().last().is_some_and(inner);
        ends && part.bytes().all(|b| inner(b) || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

/// Returns whether a text is a whole quantity of bytes, such as `512Mi`.
pub fn is_quantity(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number = !digits.is_empty() && digits.len() <= 12 && digits.bytes().all(|b| b.is_ascii_digit());
    number && ["", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"].contains(&&text[digits.len()..])
}

/// What a pod gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Addition {
    /// Annotations of the pod.
    pub annotations: Map<String, Value>,
    /// Init containers, to run before all others.
    pub init_containers: Vec<Value>,
    /// Volumes.
    pub volumes: Vec<Value>,
    /// Mounts of the container that uses the skills.
    pub mounts: Vec<Value>,
    /// Names of secrets for the kubelet.
    pub secrets: Vec<String>,
}

/// Returns what a pod gets for skills below a directory.
///
/// # Errors
/// For a directory that is none of a container, local images that an init container cannot pull, and several secrets for
/// one registry.
pub fn addition(skills: &[Skill], below: &str, style: Style<'_>, secrets: &[PullSecret]) -> Result<Addition> {
    let mut addition = Addition {
        annotations: Map::new(),
        init_containers: Vec::new(),
        volumes: Vec::new(),
        mounts: Vec::new(),
        secrets: Vec::new(),
    };
    for secret in secrets.iter().filter(|secret| !secret.name.is_empty()) {
        if !addition.secrets.contains(&secret.name) {
            addition.secrets.push(secret.name.clone());
        }
    }
    for skill in skills {
        let volume = label(&format!("skill-{}", skill.name));
        let path = destination(below, skill)?;
        if skill.tag.is_some() {
            addition.annotations.insert(format!("{TAG}/{volume}"), skill.tagged().in_storage().into());
        }
        addition.mounts.push(match style {
            Style::ImageVolume => json!({"name": volume, "mountPath": path, "readOnly": true}),
            Style::InitContainer { .. } => json!({
                "name": PULLED, "mountPath": path, "subPath": format!("{PULLED}/{}", skill.name), "readOnly": true,
            }),
        });
        if let Style::ImageVolume = style {
            // No kubelet can pull what has no registry; it takes what a node has.
            let policy = if skill.is_local() { "Never" } else { "IfNotPresent" };
            let image = json!({"reference": skill.image.in_storage(), "pullPolicy": policy});
            addition.volumes.push(json!({"name": volume, "image": image}));
        }
    }
    if let Style::InitContainer { puller, size_limit } = style {
        pull(&mut addition, skills, (puller, size_limit), secrets)?;
    }
    Ok(addition)
}

/// Adds one init container for each secret that is needed, and one for what needs none.
fn pull(
    addition: &mut Addition,
    skills: &[Skill],
    (puller, size_limit): (&str, &str),
    secrets: &[PullSecret],
) -> Result<()> {
    addition.volumes.push(json!({"name": PULLED, "emptyDir": {"sizeLimit": size_limit}}));
    let mut groups: BTreeMap<Option<&str>, Vec<&Skill>> = BTreeMap::new();
    for skill in skills {
        if skill.is_local() {
            let reason = format!("{} has no registry to pull it from", skill.shown());
            let hint = Some("push it, and name it with its registry".into());
            return Err(Error::Unavailable { reason, hint });
        }
        groups.entry(secret_for(skill, secrets)?).or_default().push(skill);
    }
    for (number, (secret, skills)) in groups.into_iter().enumerate() {
        let numbered = |name: &str| if number == 0 { name.to_owned() } else { format!("{name}-{}", number + 1) };
        let auth = numbered("skills-auth");
        let mut command: Vec<String> =
            ["skillctl", "pull", "--load=never", "--output", &format!("{WORK}/{PULLED}")].map(str::to_owned).to_vec();
        command.extend(skills.iter().map(|skill| skill.image.to_string()));
        let mut env = vec![
            json!({"name": "HOME", "value": WORK}),
            json!({"name": "TMPDIR", "value": WORK}),
            json!({"name": "SKILLCTL_STORE", "value": format!("{WORK}/store")}),
        ];
        let mut mounts = vec![json!({"name": PULLED, "mountPath": WORK})];
        if let Some(secret) = secret {
            env.push(json!({"name": "DOCKER_CONFIG", "value": AUTH}));
            mounts.push(json!({"name": auth, "mountPath": AUTH, "readOnly": true}));
            let items = json!([{"key": ".dockerconfigjson", "path": "config.json"}]);
            addition.volumes.push(json!({"name": auth, "secret": {"secretName": secret, "items": items}}));
        }
        addition.init_containers.push(json!({
            "name": numbered("pull-skills"),
            "image": puller,
            "command": command,
            "env": env,
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
            "securityContext": {
                "runAsNonRoot": true,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": mounts,
        }));
    }
    Ok(())
}

/// Returns the secret for the registry of a skill: one that names it, else the one that names none.
fn secret_for<'a>(skill: &Skill, secrets: &'a [PullSecret]) -> Result<Option<&'a str>> {
    let registry = skill.image.registry();
    let of = |wanted: Option<&str>| -> Vec<&'a str> {
        secrets.iter().filter(|s| s.registry.as_deref() == wanted).map(|s| s.name.as_str()).collect()
    };
    let mut found = of(registry);
    if found.is_empty() {
        found = of(None);
    }
    match found[..] {
        [] => Ok(None),
        [name] => Ok(Some(name)),
        _ => {
            let registry = registry.unwrap_or_default();
            let reason = format!("several secrets for {registry}: {}", found.join(", "));
            let hint = Some(format!("--pull-secret {registry}=NAME names the one for it"));
            Err(Error::Unavailable { reason, hint })
        }
    }
}

impl Addition {
    /// Returns the annotations as part of a pod's metadata.
    fn metadata(&self) -> Map<String, Value> {
        let annotations = (!self.annotations.is_empty()).then(|| self.annotations.clone().into());
        annotations.into_iter().map(|value| ("annotations".to_owned(), value)).collect()
    }

    /// Returns the lists that a pod's spec gets, in the order in which people write them.
    fn lists(&self, secrets: &[String]) -> Map<String, Value> {
        let secrets = secrets.iter().map(|name| json!({"name": name})).collect();
        let lists = [
            ("initContainers", self.init_containers.clone()),
            ("volumes", self.volumes.clone()),
            ("imagePullSecrets", secrets),
        ];
        let given = lists.into_iter().filter(|(_, list)| !list.is_empty());
        given.map(|(key, list)| (key.to_owned(), Value::Array(list))).collect()
    }
}

/// Returns a pod with one container that has the skills.
pub fn pod(name: &str, image: &str, addition: &Addition) -> Value {
    let mut metadata: Map<String, Value> = [("name".to_owned(), name.into())].into_iter().collect();
    metadata.extend(addition.metadata());
    let mut lists = addition.lists(&addition.secrets);
    let mut spec = Map::new();
    if let Some(init) = lists.shift_remove("initContainers") {
        spec.insert("initContainers".into(), init);
    }
    let container = json!({"name": "agent", "image": image, "volumeMounts": addition.mounts});
    spec.insert("containers".into(), json!([container]));
    spec.extend(lists);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// Returns a manifest as YAML.
pub fn yaml(manifest: &Value) -> String {
    emit::block(manifest, 0)
}

#[cfg(test)]
mod tests;
