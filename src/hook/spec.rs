//! The OCI runtime configuration: read where we must, and changed by inserting text, so that every other byte of it stays.
//!
//! A field that we do not know may matter to the runtime, and a number may have more digits than we would print. So nothing
//! is written back that was parsed; what changes are spans of the text (runtime specification 1.0, config.md).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// Largest configuration that is read, in bytes: podman's have some 20 KiB.
pub const MAX_SPEC: u64 = 64 << 20;

/// A span of the text and what comes in its place.
type Change = (Range<usize>, String);

/// What of a configuration decides where skills go.
#[derive(Debug, Deserialize)]
pub struct Spec<'a> {
    #[serde(skip)]
    text: &'a str,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(borrow, default, deserialize_with = "raw")]
    mounts: Option<&'a RawValue>,
    #[serde(default)]
    process: Option<Process<'a>>,
    #[serde(default)]
    root: Option<Root<'a>>,
    #[serde(default)]
    linux: Option<Linux>,
    #[serde(borrow, default, deserialize_with = "raw")]
    hooks: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
struct Process<'a> {
    #[serde(default)]
    user: User,
    #[serde(borrow, default)]
    env: Option<Vec<Cow<'a, str>>>,
}

/// The container's user, in its own numbers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct User {
    /// User ID.
    #[serde(default)]
    pub uid: u32,
    /// Group ID.
    #[serde(default)]
    pub gid: u32,
}

#[derive(Debug, Default, Deserialize)]
struct Root<'a> {
    #[serde(borrow, default)]
    path: Cow<'a, str>,
    #[serde(default)]
    readonly: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    uid_mappings: Option<Vec<Mapping>>,
    #[serde(default)]
    gid_mappings: Option<Vec<Mapping>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    #[serde(rename = "containerID")]
    container: u32,
    #[serde(rename = "hostID")]
    host: u32,
    size: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hooks<'a> {
    #[serde(borrow, default, deserialize_with = "raw")]
    create_container: Option<&'a RawValue>,
}

/// Reads a field that is there, also one that is null: it has a place in the text.
fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A mount of the container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub destination: String,
    /// Where it comes from.
    #[serde(default)]
    pub source: Option<String>,
    /// How it is mounted.
    #[serde(default)]
    pub options: Option<Vec<String>>,
}

impl Mount {
    /// Returns whether it is a directory of the host that the container can write to.
    pub fn is_writable_bind(&self) -> bool {
        let has = |name: &str| self.options.iter().flatten().any(|option| option == name);
        (has("bind") || has("rbind")) && !has("ro")
    }
}

impl<'a> Spec<'a> {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is none.
    pub fn parse(text: &'a str) -> Result<Self> {
        // A list would be taken for the fields in their order.
        if !text.trim_start().starts_with('{') {
            return Err(damaged("it is no JSON object"));
        }
        let spec: Self = serde_json::from_str(text).map_err(damaged)?;
        Ok(Self { text, ..spec })
    }

    /// Returns the text that it was read from.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Returns an annotation; an empty one counts as none.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Returns the mounts.
    ///
    /// # Errors
    /// [`Error::Damaged`] if they are no list of mounts.
    pub fn mounts(&self) -> Result<Vec<Mount>> {
        let mounts: Option<Vec<Mount>> =
            self.mounts.map_or(Ok(None), |raw| serde_json::from_str(raw.get())).map_err(damaged)?;
        Ok(mounts.unwrap_or_default())
    }

    /// Returns where the root file system is on the host; empty where nothing is said.
    pub fn root(&self) -> &str {
        self.root.as_ref().map_or("", |root| &root.path)
    }

    /// Returns whether the container cannot write to its root file system.
    pub fn is_read_only(&self) -> bool {
        self.root.as_ref().is_some_and(|root| root.readonly)
    }

    /// Returns the container's user, in its own numbers.
    pub fn user(&self) -> User {
        self.process.as_ref().map(|process| process.user).unwrap_or_default()
    }

    /// Returns a variable of the container's environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let env = self.process.as_ref()?.env.as_ref()?;
        env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    }

    /// Returns whether the container gets a user namespace of its own.
    pub fn has_user_namespace(&self) -> bool {
        let mappings = self.linux.as_ref().and_then(|linux| linux.uid_mappings.as_ref());
        mappings.is_some_and(|mappings| !mappings.is_empty())
    }

    /// Returns the container's user in the numbers of whoever runs the hook.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for a user that the container's user namespace does not have.
    pub fn host_user(&self) -> Result<User> {
        let User { uid, gid } = self.user();
        let linux = self.linux.as_ref();
        let map = |id: u32, mappings: Option<&Vec<Mapping>>, what: &str| {
            let Some(mappings) = mappings.filter(|mappings| !mappings.is_empty()) else { return Ok(id) };
            let inside = |m: &Mapping| id.checked_sub(m.container).filter(|at| *at < m.size)?.checked_add(m.host);
            mappings.iter().find_map(inside).ok_or_else(|| {
                let reason = format!("the container's {what} {id} is not in its user namespace");
                Error::Unavailable { reason, hint: None }
            })
        };
        Ok(User {
            uid: map(uid, linux.and_then(|linux| linux.uid_mappings.as_ref()), "user")?,
            gid: map(gid, linux.and_then(|linux| linux.gid_mappings.as_ref()), "group")?,
        })
    }

    /// Returns the configuration with mounts added at the end of the list, and with `hook` in the place of the createContainer
    /// hooks that `ours` says.
    ///
    /// # Errors
    /// [`Error::Damaged`] if mounts or hooks are no lists.
    pub fn with(&self, mounts: &[Value], (ours, hook): (impl Fn(&Value) -> bool, Option<Value>)) -> Result<String> {
        let mut changes = Vec::new();
        if !mounts.is_empty() {
            changes.push(self.add_mounts(mounts)?);
        }
        changes.extend(self.replace_hooks(ours, hook.as_ref())?);
        changes.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
        let mut text = self.text.to_owned();
        for (span, new) in changes {
            text.replace_range(span, &new);
        }
        Ok(text)
    }

    fn add_mounts(&self, mounts: &[Value]) -> Result<Change> {
        let list = mounts.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
        let Some(raw) = self.mounts else { return Ok(self.first("mounts", &format!("[{list}]"))) };
        if raw.get() == "null" {
            return Ok((self.span(raw.get()), format!("[{list}]")));
        }
        let empty = self.mounts()?.is_empty();
        let end = self.span(raw.get()).end - 1;
        Ok((end..end, if empty { list } else { format!(",{list}") }))
    }

    fn replace_hooks(&self, ours: impl Fn(&Value) -> bool, new: Option<&Value>) -> Result<Option<Change>> {
        let new = new.map(Value::to_string);
        let Some(all) = self.hooks else {
            return Ok(new.map(|new| self.first("hooks", &format!("{{\"createContainer\":[{new}]}}"))));
        };
        let hooks: Option<Hooks<'_>> = serde_json::from_str(all.get()).map_err(damaged)?;
        let Some(hooks) = hooks else {
            return Ok(new.map(|new| (self.span(all.get()), format!("{{\"createContainer\":[{new}]}}"))));
        };
        let Some(raw) = hooks.create_container else {
            let at = self.span(all.get()).start + 1;
            let comma = if all.get()[1..].trim_start().starts_with('}') { "" } else { "," };
            return Ok(new.map(|new| (at..at, format!("\"createContainer\":[{new}]{comma}"))));
        };
        let list: Option<Vec<&RawValue>> = serde_json::from_str(raw.get()).map_err(damaged)?;
        let list = list.unwrap_or_default();
        let is_ours = |hook: &&&RawValue| serde_json::from_str(hook.get()).is_ok_and(|hook| ours(&hook));
        let rest = list.iter().filter(|hook| !is_ours(hook)).map(|hook| hook.get());
        let after: Vec<&str> = rest.chain(new.as_deref()).collect();
        let changed = new.is_some() || after.len() != list.len();
        Ok(changed.then(|| (self.span(raw.get()), format!("[{}]", after.join(",")))))
    }

    /// Adds a field before all others.
    fn first(&self, name: &str, value: &str) -> Change {
        let at = self.text.find('{').map_or(0, |at| at + 1);
        let comma = if self.text[at..].trim_start().starts_with('}') { "" } else { "," };
        (at..at, format!("\"{name}\":{value}{comma}"))
    }

    /// Returns where a part of the text is in it.
    fn span(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr().addr() - self.text.as_ptr().addr();
        start..start + part.len()
    }
}

/// Returns the mount that binds a tree, read-only.
pub fn bind(source: &str, destination: &str) -> Value {
    json!({
        "destination": destination, "type": "bind", "source": source,
        "options": ["bind", "ro", "nosuid", "nodev", "rprivate"],
    })
}

fn damaged(error: impl std::fmt::Display) -> Error {
    Error::damaged("the runtime configuration on stdin", error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn add(text: &str) -> String {
        Spec::parse(text).unwrap().with(&[json!({"destination": "/a"})], (|_: &Value| false, None)).unwrap()
    }

    #[test]
    fn mounts_are_added_and_every_other_byte_stays() {
        let cases = [
            (
                r#"{ "x" : 1.0000000000000000001 , "mounts" : [ {"destination":"/proc"} ] , "y":{}}"#,
                r#"{ "x" : 1.0000000000000000001 , "mounts" : [ {"destination":"/proc"} ,{"destination":"/a"}] , "y":{}}"#,
            ),
            (r#"{"mounts":[]}"#, r#"{"mounts":[{"destination":"/a"}]}"#),
            (r#"{"mounts":null,"x":1}"#, r#"{"mounts":[{"destination":"/a"}],"x":1}"#),
            (r#"{"x":1}"#, r#"{"mounts":[{"destination":"/a"}],"x":1}"#),
            (r#" {} "#, r#" {"mounts":[{"destination":"/a"}]} "#),
        ];
        for (text, want) in cases {
            assert_eq!(add(text), want);
        }
    }

    #[test]
    fn our_hook_goes_and_others_stay_as_they_are() {
        let text = r#"{"hooks":{"prestart":[1],"createContainer":[ {"path":"/other", "n":1.0}, {"path":"/ours"} ]},"mounts":[]}"#;
        let spec = Spec::parse(text).unwrap();
        let ours = |hook: &Value| hook["path"] == "/ours";
        let none = |_: &Value| false;
        let want = r#"{"hooks":{"prestart":[1],"createContainer":[{"path":"/other", "n":1.0}]},"mounts":[]}"#;
        assert_eq!(spec.with(&[], (ours, None)).unwrap(), want);
        assert_eq!(spec.with(&[], (none, None)).unwrap(), text);
    }

    #[test]
    fn our_hook_is_added_wherever_hooks_may_be() {
        let cases = [
            (r#"{"x":1}"#, r#"{"hooks":{"createContainer":[1]},"x":1}"#),
            (r#"{"hooks":null}"#, r#"{"hooks":{"createContainer":[1]}}"#),
            (r#"{"hooks":{ }}"#, r#"{"hooks":{"createContainer":[1] }}"#),
            (r#"{"hooks":{"poststop":[2]}}"#, r#"{"hooks":{"createContainer":[1],"poststop":[2]}}"#),
            (r#"{"hooks":{"createContainer":null}}"#, r#"{"hooks":{"createContainer":[1]}}"#),
            (r#"{"hooks":{"createContainer":[3 ,1]}}"#, r#"{"hooks":{"createContainer":[3,1]}}"#),
        ];
        for (text, want) in cases {
            let ours = |hook: &Value| *hook == 1;
            assert_eq!(Spec::parse(text).unwrap().with(&[], (ours, Some(json!(1)))).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn users_are_mapped_as_the_container_is() {
        let mapped = |uid: u32, maps: &str| {
            let text = format!(r#"{{"process":{{"user":{{"uid":{uid},"gid":0}}}},"linux":{{"uidMappings":{maps}}}}}"#);
            Spec::parse(&text).unwrap().host_user().map(|user| user.uid).map_err(|e| e.to_string())
        };
        let keep_id = r#"[{"containerID":0,"hostID":1,"size":1000},{"containerID":1000,"hostID":0,"size":1}]"#;
        let end = r#"[{"containerID":4294967295,"hostID":4294967295,"size":4294967295}]"#;
        let cases = [
            (1000, "null", Ok(1000)),
            (1000, "[]", Ok(1000)),
            (1000, r#"[{"containerID":0,"hostID":200000,"size":65536}]"#, Ok(201_000)),
            (1000, keep_id, Ok(0)),
            (999, keep_id, Ok(1000)),
            (1001, keep_id, Err("the container's user 1001 is not in its user namespace".to_owned())),
            (u32::MAX, end, Ok(u32::MAX)),
        ];
        for (uid, maps, want) in cases {
            assert_eq!(mapped(uid, maps), want, "{maps}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in ["", "[]", "{", r#"{"mounts":[],"mounts":[]}"#, r#"{"annotations":{"a":1}}"#] {
            assert!(Spec::parse(text).is_err(), "{text}");
        }
        assert!(Spec::parse(r#"{"mounts":{"destination":"/"}}"#).unwrap().mounts().is_err());
    }

    #[test]
    fn what_is_read_is_what_is_there() {
        let text = r#"{"process":{"user":{"uid":1,"gid":2,"umask":18},"env":["HOME=/h\u00e4","PATH"]},
            "root":{"path":"/r","readonly":true},"annotations":{"a":" x ","b":" "}}"#;
        let spec = Spec::parse(text).unwrap();
        assert_eq!((spec.user(), spec.root(), spec.is_read_only()), (User { uid: 1, gid: 2 }, "/r", true));
        assert_eq!((spec.variable("HOME"), spec.variable("PATH")), (Some("/hä"), None));
        assert_eq!((spec.annotation("a"), spec.annotation("b"), spec.annotation("c")), (Some("x"), None, None));
    }
}
