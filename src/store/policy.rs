//! The signature policy, as far as it decides which way an image of a registry is read: containers-policy.json(5).
//!
//! skopeo keeps the policy, and what is here never lets in what it would not. Only one question is answered: whether
//! there is anything to keep.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::files::Files;

/// Name of the file in its directories.
pub const FILE: &str = "policy.json";
/// The transport of registries.
const DOCKER: &str = "docker";
/// The requirement that every image meets.
const ANYTHING: &str = "insecureAcceptAnything";

/// Like skopeo, this reads keys exactly as they are spelled, and none that it does not know.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: BTreeMap<String, IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    r#type: String,
}

/// Returns the directories of policy.json, the one that counts first, for a user with this home.
pub fn dirs(home: Option<&Path>) -> Vec<PathBuf> {
    let own = home.map(|home| home.join(".config/containers"));
    own.into_iter().chain([PathBuf::from("/etc/containers")]).collect()
}

/// Returns whether the policy accepts every image of every registry. Where there is none, or one that skopeo may read
/// differently, it does not.
pub fn accepts_every_registry(home: Option<&Path>, files: &Files) -> bool {
    // Without a home skopeo looks it up elsewhere; and a file that is there and cannot be read is an error for it.
    let paths = dirs(home).into_iter().map(|dir| (dir.join(FILE), dir));
    let first = paths.into_iter().find(|(file, dir)| files.list(dir).contains(file));
    let Some(text) = first.filter(|_| home.is_some()).and_then(|(file, _)| files.read(&file)) else { return false };
    serde_json::from_slice(&text).is_ok_and(|policy: Policy| {
        let anything = policy.default.iter().all(|requirement| requirement.r#type == ANYTHING);
        anything && !policy.default.is_empty() && !policy.transports.contains_key(DOCKER)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "/home/u/.config/containers/policy.json";
    const SYSTEM: &str = "/etc/containers/policy.json";

    #[test]
    fn only_a_policy_without_any_rule_for_registries_accepts_them_all() {
        let open = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        let cases: &[(&[(&str, &str)], bool)] = &[
            (&[(SYSTEM, open)], true),
            (&[(SYSTEM, r#"{"default":[{"type":"insecureAcceptAnything"}],"transports":{"oci":{}}}"#)], true),
            (&[(SYSTEM, r#"{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{}}}"#)], false),
            (&[(SYSTEM, r#"{"default":[{"type":"insecureAcceptAnything"},{"type":"reject"}]}"#)], false),
            (&[(SYSTEM, r#"{"default":[{"type":"reject"}]}"#)], false),
            (&[(SYSTEM, r#"{"default":[]}"#)], false),
            (&[(SYSTEM, r#"{"default":[{"type":"insecureAcceptAnything","Type":"reject"}]}"#)], false),
            (&[(SYSTEM, r#"{"default":[{"type":"insecureAcceptAnything"}],"more":1}"#)], false),
            (&[(SYSTEM, r#"{"Default":[{"type":"insecureAcceptAnything"}]}"#)], false),
            (&[(SYSTEM, r#"{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}"#)], false),
            (&[(SYSTEM, "")], false),
            (&[], false),
            (&[(USER, r#"{"default":[{"type":"reject"}]}"#), (SYSTEM, open)], false),
            (&[(USER, open), (SYSTEM, r#"{"default":[{"type":"reject"}]}"#)], true),
        ];
        for (files, accepts) in cases {
            let found = accepts_every_registry(Some(Path::new("/home/u")), &Files::of(files));
            assert_eq!(found, *accepts, "{files:?}");
        }
        assert!(!accepts_every_registry(None, &Files::of(&[(SYSTEM, open)])), "skopeo may find a home");
    }
}
