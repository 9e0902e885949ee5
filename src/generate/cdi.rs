//! The Container Device Interface: `--device skillimage.io/skill=NAME` binds a tree of the cache, without any hook.
//!
//! One file, since a device that is in two files cannot be used at all; of version 0.5.0, which podman 4.3 reads and newer
//! ones do, too (CDI specification).

use serde::{Deserialize, Serialize};

use super::podman::check_path;
use crate::error::{Error, Result};

/// The kind of our devices.
pub const KIND: &str = "skillimage.io/skill";
/// What the file is called, in a directory that runtimes read.
pub const FILE: &str = "skillimage.io-skill.json";
const VERSION: &str = "0.5.0";

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cdi {
    cdi_version: String,
    kind: String,
    /// Sorted by name.
    pub devices: Vec<Device>,
}

/// A skill that can be named as a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Its name: namespace and name of the skill, with dots.
    pub name: String,
    container_edits: Edits,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Edits {
    mounts: Vec<Mount>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mount {
    host_path: String,
    container_path: String,
    options: Vec<String>,
}

impl Device {
    /// Returns the device of a skill, which binds `tree` at `destination`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for a namespace that no device can have, or a path that is none of a container.
    pub fn new(namespace: &str, skill: &str, tree: &str, destination: &str) -> Result<Self> {
        let name = format!("{}.{skill}", namespace.replace('/', "."));
        let name = name.trim_start_matches('.').to_owned();
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"_-.:".contains(&b);
        let ends = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.ends_with(|c: char| c.is_ascii_alphanumeric());
        if !ends || !name.bytes().all(inner) {
            return Err(Error::Unavailable { reason: format!("{name:?} cannot be the name of a device"), hint: None });
        }
        check_path(destination)?;
        let options = ["ro", "rbind", "nosuid", "nodev"].map(str::to_owned).to_vec();
        let mount = Mount { host_path: tree.to_owned(), container_path: destination.to_owned(), options };
        Ok(Self { name, container_edits: Edits { mounts: vec![mount] } })
    }

    /// Returns it at another place.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for a path that is none of a container.
    pub fn at(mut self, destination: &str) -> Result<Self> {
        check_path(destination)?;
        for mount in &mut self.container_edits.mounts {
            destination.clone_into(&mut mount.container_path);
        }
        Ok(self)
    }

    /// Returns the tree that it binds.
    pub fn tree(&self) -> &str {
        self.container_edits.mounts.first().map_or("", |mount| &mount.host_path)
    }

    /// Returns where it is in a container.
    pub fn destination(&self) -> &str {
        self.container_edits.mounts.first().map_or("", |mount| &mount.container_path)
    }
}

impl Default for Cdi {
    fn default() -> Self {
        Self { cdi_version: VERSION.into(), kind: KIND.into(), devices: Vec::new() }
    }
}

impl Cdi {
    /// Reads a file of ours.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is something else: it may be somebody's own work.
    pub fn parse(text: &str, path: &str) -> Result<Self> {
        let cdi: Self = serde_json::from_str(text).map_err(|e| Error::damaged(path, e))?;
        match cdi.kind == KIND {
            true => Ok(cdi),
            false => Err(Error::damaged(path, format!("its devices are of the kind {}", cdi.kind))),
        }
    }

    /// Adds a device, in the place of one of that name. Returns what was there.
    pub fn set(&mut self, device: Device) -> Option<Device> {
        let old = self.remove(&device.name);
        self.devices.push(device);
        self.devices.sort_by(|one, other| one.name.cmp(&other.name));
        old
    }

    /// Removes a device.
    pub fn remove(&mut self, name: &str) -> Option<Device> {
        let at = self.devices.iter().position(|device| device.name == name)?;
        Some(self.devices.remove(at))
    }

    /// Returns the text of the file.
    pub fn text(&self) -> String {
        // Strings and lists of them cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_skill() {
        let cases = [
            ("acme", "hr", Some("acme.hr")),
            ("acme/team", "hr", Some("acme.team.hr")),
            ("", "hr", Some("hr")),
            ("acme", "hr!", None),
            ("a b", "hr", None),
            ("acme", "hr-", None),
        ];
        for (namespace, skill, want) in cases {
            let name = Device::new(namespace, skill, "/t", "/skills/hr").map(|device| device.name).ok();
            assert_eq!(name.as_deref(), want, "{namespace} {skill}");
        }
        for path in ["relative", "/", "/a/../b", "/proc/hr"] {
            assert!(Device::new("acme", "hr", "/t", path).is_err(), "{path}");
            assert!(Device::new("acme", "hr", "/t", "/skills/hr").unwrap().at(path).is_err(), "{path}");
        }
        let moved = Device::new("acme", "hr", "/t", "/skills/hr").unwrap().at("/opt/hr").unwrap();
        assert_eq!((moved.tree(), moved.destination()), ("/t", "/opt/hr"));
    }

    #[test]
    fn the_file_is_what_runtimes_read_and_we_read_back() {
        let mut cdi = Cdi::default();
        assert_eq!(cdi.set(Device::new("b", "x", "/t1", "/skills/x").unwrap()), None);
        cdi.set(Device::new("a", "hr", "/t2", "/skills/hr").unwrap());
        assert_eq!(cdi.set(Device::new("b", "x", "/t3", "/skills/x").unwrap()).unwrap().tree(), "/t1");
        let text = cdi.text();
        assert_eq!(Cdi::parse(&text, "f").unwrap(), cdi);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["cdiVersion"], &value["kind"]), (&"0.5.0".into(), &KIND.into()));
        let mount = serde_json::json!({"hostPath": "/t2", "containerPath": "/skills/hr", "options": ["ro", "rbind", "nosuid", "nodev"]});
        assert_eq!(value["devices"][0], serde_json::json!({"name": "a.hr", "containerEdits": {"mounts": [mount]}}));
        assert!(cdi.remove("a.hr").is_some() && cdi.remove("a.hr").is_none());
        for text in ["", "{}", &text.replace(KIND, "vendor.example/gpu"), &text.replace("devices", "other")] {
            assert!(Cdi::parse(text, "f").is_err(), "{text}");
        }
    }
}
