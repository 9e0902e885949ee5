//! `doctor`: what is here, what is missing, what will therefore not work, and the command that fixes it.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use crate::process::{Tools, Version, version};
use crate::store::storage::Storage;
use crate::store::storage_images::LoadState;
use crate::store::storage_load::OLDEST_SKOPEO;
use crate::trust::policy::Policy;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, with a limit.
    Warn,
    /// Something will not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// How it is.
    pub level: Level,
    /// What was looked at.
    pub name: String,
    /// What was found, and what follows.
    pub message: String,
    /// The command that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn new(level: Level, name: &str, message: impl Into<String>) -> Self {
        Self { level, name: name.to_owned(), message: message.into(), fix: None }
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// Something that keeps the hook from doing what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problem {
    /// What is wrong, and what follows.
    pub what: String,
    /// How bad that is.
    #[serde(skip)]
    pub level: Level,
    /// What mends it.
    #[serde(skip)]
    pub fix: Option<String>,
}

impl Problem {
    /// Returns one with which containers are without their skills, or do not start.
    pub fn fail(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), level: Level::Fail, fix: Some(fix.into()) }
    }

    /// Returns one that may matter to somebody.
    pub fn warn(what: impl Into<String>, fix: Option<&str>) -> Self {
        Self { what: what.into(), level: Level::Warn, fix: fix.map(str::to_owned) }
    }
}

/// A container that did not start, as the hook's log has it.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// When that was, in UTC.
    pub time: String,
    /// How long ago, in words.
    pub ago: String,
    /// Its ID, where that is known.
    pub container: Option<String>,
    /// Why.
    pub message: String,
}

impl Kept {
    fn told(&self, why: bool) -> String {
        // The digits that podman ps shows.
        let id = self.container.as_ref().map(|id| id.chars().take(12).collect::<String>());
        let which = id.map_or_else(|| "a container".into(), |id| format!("the container {id}"));
        let why = if why { format!(": {}", self.message) } else { String::new() };
        format!("; kept {which} from starting {}, at {}{why}", self.ago, self.time)
    }
}

/// The version of podman from which containers do not get the annotations of their image.
const PODMAN_KEEPS_ANNOTATIONS_APART: Version = (4, 5, 1);

/// Checks the store at `path`; `size` is the number of its entries and its bytes, `None` where there is no store yet.
pub fn store(path: &Path, size: Result<Option<(usize, u64)>, String>) -> Check {
    let path = path.display();
    match size {
        Err(e) => Check::new(Level::Fail, "store", format!("{e}; nothing can be built or listed")).fix("skillctl fsck"),
        Ok(None) => Check::new(Level::Ok, "store", format!("{path}, not there yet: the first build makes it")),
        Ok(Some(size)) => Check::new(Level::Ok, "store", format!("{path}, {}", shown(size))),
    }
}

/// Checks a store that is only read; nothing is said of one that nobody has named and that is not there.
pub fn read_only_store(path: &Path, size: Result<Option<(usize, u64)>, String>, is_named: bool) -> Option<Check> {
    let name = "read-only store";
    let path = path.display();
    Some(match size {
        Err(e) if is_named => Check::new(Level::Fail, name, e),
        Err(e) => Check::new(Level::Warn, name, format!("{e}; its images are not found")),
        Ok(None) if is_named => {
            let mend = "leave it out of --add-store or SKILLCTL_ADD_STORES";
            Check::new(Level::Fail, name, format!("{path} is not there")).fix(mend)
        }
        Ok(None) => return None,
        Ok(Some(size)) => Check::new(Level::Ok, name, format!("{path}, {}", shown(size))),
    })
}

fn shown((entries, bytes): (usize, u64)) -> String {
    let size = match bytes as f64 {
        bytes if bytes < 1e6 => format!("{:.1} kB", bytes / 1e3),
        bytes => format!("{:.1} MB", bytes / 1e6),
    };
    format!("{entries} image(s), {size}")
}

/// Checks the signature policy: one that rejects the store stops every load. `policies` are the files that may count,
/// the first one first, each with its text.
pub fn policy(store: &Path, policies: &[(PathBuf, String)]) -> Option<Check> {
    let name = "policy.json";
    let (path, text) = policies.first()?;
    let policy: Value = match serde_json::from_str(text) {
        Ok(policy) => policy,
        Err(e) => {
            return Some(Check::new(Level::Fail, name, format!("{}: {e}; no image can be loaded", path.display())));
        }
    };
    let scopes = policy["transports"]["oci"].as_object();
    // The narrowest scope that is the store or above it decides; then the transport's own, then the default.
    let mut above = store.ancestors().filter_map(|dir| scopes?.get(dir.to_str()?));
    let requirements = above.next().or_else(|| scopes?.get("")).unwrap_or(&policy["default"]);
    let rejects = requirements.as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "reject"));
    if !rejects {
        return Some(Check::new(Level::Ok, name, format!("{} lets images of the store be loaded", path.display())));
    }
    let entry = json!({ store.to_string_lossy(): [{"type": "insecureAcceptAnything"}] });
    let message = format!("{} rejects images of the store: they cannot be loaded", path.display());
    Some(Check::new(Level::Fail, name, message).fix(format!("add to \"transports\": \"oci\": {entry}")))
}

/// Warns of a store of the Go tool, which is in another place than ours.
pub fn go_store(go: &Path) -> Check {
    let message = format!("{} is a store of the Go skillctl, and is not looked at", go.display());
    Check::new(Level::Warn, "Go store", message).fix(format!("skillctl --store {} list", go.display()))
}

/// Checks containers-storage, and how many of the store's images it has; each is a name there and a manifest digest.
pub fn storage(storage: Result<&Storage, String>, images: &[(String, String)]) -> Check {
    let name = "containers-storage";
    let looked = storage.and_then(|storage| {
        let records = storage.images().map_err(|e| e.to_string())?;
        let driver = storage.driver().map_err(|e| e.to_string())?;
        let loaded = images.iter().filter(|(name, digest)| records.load_state(name, digest) == LoadState::Yes).count();
        Ok((storage.conf().graph_root.display().to_string(), driver.to_string(), loaded))
    });
    match looked {
        Err(e) => Check::new(Level::Fail, name, format!("{e}; podman cannot be given images")),
        Ok((root, driver, loaded)) => {
            Check::new(Level::Ok, name, format!("{driver} at {root}, {loaded} of {} loaded", images.len()))
        }
    }
}

/// Checks skopeo, which loads images and reads what is not native.
///
/// `policed` says whether its image proxy keeps policy.json, where that could be found out.
pub fn skopeo(tools: &Tools, policed: Option<bool>) -> Check {
    match version(&tools.skopeo()) {
        None => install(tools, "skopeo", "images stay in the store, and podman cannot see them"),
        Some(found) if found < OLDEST_SKOPEO => {
            let (need, or, _) = OLDEST_SKOPEO;
            let message = format!("{} is older than {need}.{or}, and has no image proxy", dotted(found));
            Check::new(Level::Fail, "skopeo", message).fix(format!("install skopeo {need}.{or} or newer"))
        }
        Some(found) => {
            let proxy = match policed {
                Some(true) => ", image proxy keeps policy.json",
                Some(false) => ", image proxy ignores policy.json: where that has rules, skopeo copy pulls",
                None => "",
            };
            Check::new(Level::Ok, "skopeo", format!("{}{proxy}", dotted(found)))
        }
    }
}

/// Checks podman, which mounts images and takes names away.
pub fn podman(tools: &Tools) -> Check {
    match version(&tools.podman()) {
        None => install(tools, "podman", "images can be built and loaded, but not mounted or unloaded"),
        Some(found) if found < PODMAN_KEEPS_ANNOTATIONS_APART => {
            let message = "annotations of an image reach the hooks of its containers (fixed in 4.5.1)";
            Check::new(Level::Warn, "podman", format!("{}: {message}", dotted(found)))
        }
        Some(found) => Check::new(Level::Ok, "podman", dotted(found)),
    }
}

/// Checks the policy that says who has to have signed what is used.
pub fn trust(policy: &Policy) -> Check {
    let name = "trust";
    if let Err(e) = policy.check() {
        let check = Check::new(Level::Fail, name, format!("{e}; no image can be used"));
        return Check { fix: e.hint(), ..check };
    }
    match policy.scopes() {
        [] => Check::new(Level::Ok, name, "no policy: nothing has to be signed"),
        scopes => {
            let names: Vec<&str> = scopes.iter().map(|scope| scope.prefix.as_str()).collect();
            Check::new(Level::Ok, name, format!("verified before use: {}", names.join(", ")))
        }
    }
}

/// Checks the hook that gives containers the skills that they name: what keeps it from working, if anything, and the last
/// time that it kept a container from starting, as its log has it.
pub fn hook(enabled: bool, problems: &[Problem], last: Option<&Kept>) -> Check {
    let name = "hook";
    let worst = problems.iter().max_by_key(|problem| problem.level);
    let is_recent = last.is_some();
    let is_new = |last: &Kept| worst.is_none_or(|problem| !problem.what.contains(&last.message));
    let last = last.map(|last| last.told(is_new(last))).unwrap_or_default();
    match (worst, enabled) {
        (Some(problem), _) => {
            let check = Check::new(problem.level, name, format!("{}{last}", problem.what));
            Check { fix: problem.fix.clone(), ..check }
        }
        (None, true) => {
            let level = if is_recent { Level::Warn } else { Level::Ok };
            Check::new(level, name, format!("podman gives containers the skills that they name{last}"))
        }
        (None, false) => Check::new(Level::Ok, name, format!("not enabled: --mount type=image works without it{last}")),
    }
}

fn dotted((major, minor, patch): Version) -> String {
    format!("{major}.{minor}.{patch}")
}

fn install(tools: &Tools, name: &str, follows: &str) -> Check {
    let check = Check::new(Level::Fail, name, format!("not installed: {follows}"));
    match &tools.installer {
        Some(installer) => check.fix(format!("{installer} {name}")),
        None => check,
    }
}

/// Checks what a user without root needs to have a user namespace of several IDs.
pub fn rootless(user: &str, subuid: &str, has_newuidmap: bool) -> Check {
    let name = "rootless";
    if !has_newuidmap {
        return Check::new(Level::Fail, name, "newuidmap is missing: podman and skopeo cannot make a user namespace")
            .fix("install the package uidmap (Debian) or shadow-utils (RHEL)");
    }
    if subuid.lines().any(|line| line.split(':').next() == Some(user)) {
        return Check::new(Level::Ok, name, format!("{user} has subordinate IDs"));
    }
    Check::new(Level::Fail, name, format!("{user} has no subordinate IDs in /etc/subuid: loading an image fails"))
        .fix(format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rootless_needs_ids_and_newuidmap() {
        let cases = [
            (rootless("u", "u:100000:65536\n", true), Level::Ok, None),
            (rootless("u", "other:100000:65536\n", true), Level::Fail, Some("usermod")),
            (rootless("u", "u:100000:65536\n", false), Level::Fail, Some("install")),
        ];
        for (check, level, fix) in cases {
            assert_eq!(check.level, level);
            assert_eq!(check.fix.as_deref().and_then(|f| f.split(' ').next()), fix);
        }
    }

    #[test]
    fn what_is_wrong_with_the_hook_is_told_once_with_what_mends_it() {
        let policy = Problem::fail("hook.toml: line 2: unknown field: no container gets any skill", "edit hook.toml");
        let other = Problem::warn("not looked at", None);
        let last = |message: &str| {
            let container = Some("0123456789abcdef".to_owned());
            Some(Kept { time: "T".into(), ago: "2 hours ago".into(), container, message: message.into() })
        };
        let mistake = "hook.toml: line 2: unknown field";
        let told = format!(
            "{mistake}: no container gets any skill; kept the container 0123456789ab from starting 2 hours ago, at T"
        );
        let cases = [
            (vec![other.clone(), policy.clone()], last(mistake), Level::Fail, told.clone(), Some("edit hook.toml")),
            (
                vec![policy],
                last("image not found: a"),
                Level::Fail,
                format!("{told}: image not found: a"),
                Some("edit hook.toml"),
            ),
            (vec![other], None, Level::Warn, "not looked at".into(), None),
            (Vec::new(), None, Level::Ok, "podman gives containers the skills that they name".into(), None),
        ];
        for (problems, last, level, message, fix) in cases {
            let check = hook(true, &problems, last.as_ref());
            assert_eq!((check.level, check.message, check.fix.as_deref()), (level, message, fix));
        }
    }

    #[test]
    fn a_container_that_did_not_start_is_told_with_its_age() {
        let of = |container: Option<&str>| Kept {
            time: "T".into(),
            ago: "1 minute ago".into(),
            container: container.map(str::to_owned),
            message: "m".into(),
        };
        for (container, which) in [(None, "a container"), (Some("0123456789abcdef"), "the container 0123456789ab")] {
            let check = hook(true, &[], Some(&of(container)));
            let told = format!("kept {which} from starting 1 minute ago, at T: m");
            let message = format!("podman gives containers the skills that they name; {told}");
            assert_eq!((check.level, check.message), (Level::Warn, message));
        }
    }

    #[test]
    fn the_narrowest_scope_of_the_policy_decides() {
        let reject = r#""default": [{"type": "reject"}]"#;
        let accept = r#"[{"type": "insecureAcceptAnything"}]"#;
        let cases = [
            (format!(r#"{{"default": {accept}}}"#), Level::Ok),
            (format!("{{{reject}}}"), Level::Fail),
            (format!(r#"{{{reject}, "transports": {{"oci": {{"": {accept}}}}}}}"#), Level::Ok),
            (format!(r#"{{{reject}, "transports": {{"oci": {{"/data": {accept}}}}}}}"#), Level::Ok),
            (format!(r#"{{{reject}, "transports": {{"oci": {{"/other": {accept}}}}}}}"#), Level::Fail),
            ("{".to_owned(), Level::Fail),
        ];
        for (text, level) in cases {
            let check = policy(Path::new("/data/store"), &[("/etc/containers/policy.json".into(), text.clone())]);
            assert_eq!(check.map(|check| check.level), Some(level), "{text}");
        }
        assert_eq!(policy(Path::new("/data/store"), &[]), None);
    }
}
