//! Skills in pods of Kubernetes: as image volumes, or for clusters without them pulled by an init container.
//!
//! What is added to a pod is a value; [`pod`] writes it as a new manifest, [`inject::inject`] into one that is there.

mod document;
pub mod inject;
mod legible;
mod plain;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Map, Value, json};

use super::quote::label;
use super::{Skill, destination};
use crate::card::emit;
use crate::error::{Error, Result};
use crate::reference::Reference;

/// The image whose container pulls skills: what `podman build -f packaging/Containerfile -t skillctl .` makes. It has
/// skillctl and skopeo, and a user that is a number and not root. With `localhost` before it, no stranger's is pulled.
pub const PULLER: &str = "localhost/skillctl:latest";
/// How large what an init container pulls may become, packed and in files.
pub const SIZE_LIMIT: &str = "1Gi";
/// Prefix of the annotations that say by which tag an image was chosen. Its digest is what counts.
const TAG: &str = "tag.skillimage.io";
/// What all that init containers bring is named by, which nobody else takes.
const OWN: &str = "skillctl-";
/// The volume that init containers fill, where they see it, and where in it the skills are.
const PULLED: &str = "skillctl-skills";
const WORK: &str = "/skillctl";
const SKILLS: &str = "skills";
/// The init containers.
const PULL: &str = "skillctl-pull";
/// The credentials of a registry, and where the init containers see them.
const AUTH: &str = "skillctl-auth";
const AUTH_DIR: &str = "/skillctl-auth";
/// The user of init containers where that of the pod is root: the one of packaging/Containerfile. Any number does.
const USER: u32 = 1001;

/// How skills come into a pod.
#[derive(Debug, Clone, Copy)]
pub enum Style<'a> {
    /// As image volumes, which the kubelet pulls.
    ImageVolume,
    /// By init containers with skillctl.
    InitContainer {
        /// The image of those.
        puller: &'a Puller,
        /// What their volume may hold, and so each skill.
        size_limit: &'a Quantity,
    },
}

/// The image of init containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Puller {
    /// As a container names it.
    pub image: String,
    /// The name with a tag, by which its digest was found.
    pub tagged: Option<String>,
}

/// A whole number of bytes as Kubernetes writes it, such as `512Mi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantity {
    text: String,
    bytes: u64,
}

impl Quantity {
    /// Reads one. None is not taken: to a kubelet that means any.
    ///
    /// # Errors
    /// If it is none, or more than 63 bits.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        const UNITS: [(&str, u64); 9] = [
            ("", 1),
            ("k", 1000),
            ("M", 1000 * 1000),
            ("G", 1000 * 1000 * 1000),
            ("T", 1000 * 1000 * 1000 * 1000),
            ("Ki", 1 << 10),
            ("Mi", 1 << 20),
            ("Gi", 1 << 30),
            ("Ti", 1 << 40),
        ];
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number = digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
        let unit = UNITS.iter().find(|(unit, _)| *unit == &text[digits.len()..]);
        let bytes = number.zip(unit).and_then(|(number, (_, unit))| number.checked_mul(*unit));
        match bytes.filter(|bytes| (1..=i64::MAX as u64).contains(bytes)) {
            Some(bytes) => Ok(Self { text: text.to_owned(), bytes }),
            None => Err("a number of bytes is wanted, such as 512Mi".into()),
        }
    }
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

/// Returns when a kubelet pulls the image of a container. By default it always asks for `latest`, also where no registry is
/// to be asked. A name without any registry is one of Docker Hub to it.
fn pull_policy(image: &str) -> &'static str {
    if image.starts_with("localhost/") { "Never" } else { "IfNotPresent" }
}

/// Returns what the restricted Pod Security Standard wants of a container, but for its user.
fn restricted() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    })
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
/// For a directory that is none of a container, local images that an init container cannot pull, several secrets for one
/// registry, and one for a registry that an init container does not ask.
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
                "name": PULLED, "mountPath": path, "subPath": format!("{SKILLS}/{}", skill.name), "readOnly": true,
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
    (puller, size_limit): (&Puller, &Quantity),
    secrets: &[PullSecret],
) -> Result<()> {
    addition.volumes.push(json!({"name": PULLED, "emptyDir": {"sizeLimit": size_limit.text}}));
    if let Some(tagged) = &puller.tagged {
        addition.annotations.insert(format!("{TAG}/{PULL}"), tagged.as_str().into());
    }
    let mut groups: BTreeMap<Option<&str>, Vec<&Skill>> = BTreeMap::new();
    for skill in skills {
        if skill.is_local() {
            let reason = format!("{} has no registry to pull it from", skill.shown());
            let hint = Some("push it, and name it with its registry".into());
            return Err(Error::Unavailable { reason, hint });
        }
        groups.entry(secret_for(skill, secrets)?).or_default().push(skill);
    }
    all_asked(skills, puller, secrets)?;
    for ((secret, skills), number) in groups.into_iter().zip(1..) {
        let auth = numbered(AUTH, number);
        // A volume that is too full is noticed after a while, and then the pod is evicted without a word about the skill.
        let most = format!("--max-size={}", size_limit.bytes);
        let mut command: Vec<String> =
            ["skillctl", "pull", "--load=never", &most, "--output", &format!("{WORK}/{SKILLS}")]
                .map(str::to_owned)
                .to_vec();
        command.extend(skills.iter().map(|skill| skill.image.to_string()));
        let mut env = vec![
            json!({"name": "HOME", "value": WORK}),
            json!({"name": "TMPDIR", "value": WORK}),
            json!({"name": "SKILLCTL_STORE", "value": format!("{WORK}/store")}),
        ];
        let mut mounts = vec![json!({"name": PULLED, "mountPath": WORK})];
        if let Some(secret) = secret {
            env.push(json!({"name": "DOCKER_CONFIG", "value": AUTH_DIR}));
            mounts.push(json!({"name": auth, "mountPath": AUTH_DIR, "readOnly": true}));
            let items = json!([{"key": ".dockerconfigjson", "path": "config.json"}]);
            addition.volumes.push(json!({"name": auth, "secret": {"secretName": secret, "items": items}}));
        }
        let mut security = restricted();
        security["runAsNonRoot"] = true.into();
        security["readOnlyRootFilesystem"] = true.into();
        addition.init_containers.push(json!({
            "name": numbered(PULL, number),
            "image": puller.image,
            "imagePullPolicy": pull_policy(&puller.image),
            "command": command,
            "env": env,
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
            "securityContext": security,
            "volumeMounts": mounts,
        }));
    }
    Ok(())
}

/// Returns a name, or the one of that number.
fn numbered(name: &str, number: usize) -> String {
    if number == 1 { name.to_owned() } else { format!("{name}-{number}") }
}

/// Refuses a secret for a registry from which nothing comes: that is a slip, and what it was for would be pulled without it.
fn all_asked(skills: &[Skill], puller: &Puller, secrets: &[PullSecret]) -> Result<()> {
    let own = puller.image.parse::<Reference>()?;
    let asked: BTreeSet<&str> =
        skills.iter().map(|skill| &skill.image).chain([&own]).filter_map(Reference::registry).collect();
    for PullSecret { registry, name } in secrets {
        if let Some(registry) = registry.as_deref().filter(|registry| !asked.contains(registry)) {
            let reason = format!("the secret {name} is for {registry}, of which there is no skill");
            let asked = asked.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Error::Unavailable { reason, hint: Some(format!("registries are: {asked}")) });
        }
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
    /// Returns the same for a pod in which names are taken: what is ours is numbered on.
    fn beside(&self, taken: &HashSet<&str>) -> Self {
        let names = |addition: &Self| -> Vec<String> {
            let named = addition.volumes.iter().chain(&addition.init_containers);
            named.filter_map(|value| value["name"].as_str().filter(|n| n.starts_with(OWN)).map(str::to_owned)).collect()
        };
        let mut by = 0;
        while names(self).iter().any(|name| taken.contains(&*later(name, by))) {
            by += 1;
        }
        let mut addition = self.clone();
        let values = [&mut addition.volumes, &mut addition.init_containers, &mut addition.mounts];
        values.into_iter().flatten().for_each(|value| rename(value, by));
        let key = |key: &str| match key.split_once('/') {
            Some((TAG, name)) => format!("{TAG}/{}", later(name, by)),
            _ => key.to_owned(),
        };
        addition.annotations = self.annotations.iter().map(|(own, value)| (key(own), value.clone())).collect();
        addition
    }

    /// Returns the same for a pod whose user is root: an init container would be that, too, and so not be started.
    fn not_as_root(mut self) -> Self {
        for container in &mut self.init_containers {
            container["securityContext"]["runAsUser"] = USER.into();
        }
        self
    }

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

/// Returns a name of ours with a later number.
fn later(name: &str, by: usize) -> String {
    if by == 0 || !name.starts_with(OWN) {
        return name.to_owned();
    }
    let number = name.rsplit_once('-').and_then(|(base, number)| Some((base, number.parse::<usize>().ok()?)));
    let (base, number) = number.unwrap_or((name, 1));
    numbered(base, number.saturating_add(by))
}

/// Gives all in a value that has a name of ours a later number.
fn rename(value: &mut Value, by: usize) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, by)),
        Value::Object(entries) => entries.iter_mut().for_each(|(key, value)| match value {
            Value::String(name) if key == "name" => *name = later(name, by),
            other => rename(other, by),
        }),
        _ => {}
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
    let container = json!({
        "name": "agent",
        "image": image,
        "imagePullPolicy": pull_policy(image),
        "securityContext": restricted(),
        "volumeMounts": addition.mounts,
    });
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
