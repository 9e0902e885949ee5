//! The files by which podman and skopeo know registries, in the scratch home directory: for the user alone, and read by all releases.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::http::base64;
use crate::cell::World;

/// Where `certs.d` may be.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// For all users; root alone can write it.
    Etc,
    /// For this user.
    Home,
}

fn written(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    fs::write(path, text).expect("a file");
}

/// Trusts the authority of a registry.
pub fn trust(world: &World, registry: &super::Registry, place: Place) {
    let dir = match place {
        Place::Etc => PathBuf::from("/etc"),
        Place::Home => world.home().join(".config"),
    };
    let dir = dir.join("containers/certs.d").join(&registry.address);
    fs::create_dir_all(&dir).expect("a directory");
    fs::copy(registry.authority(), dir.join("ca.crt")).expect("a certificate");
}

/// Returns the text of an auth.json: for each registry, or namespace in one, name and password.
pub fn auths(entries: &[(&str, &str, &str)]) -> String {
    let auths = entries
        .iter()
        .map(|(place, user, password)| (place.to_string(), json!({ "auth": base64(&format!("{user}:{password}")) })));
    json!({ "auths": Value::Object(auths.collect::<Map<_, _>>()) }).to_string()
}

/// Writes the auth.json that podman and skopeo look for last, and returns its path.
pub fn auth_json(world: &World, entries: &[(&str, &str, &str)]) -> PathBuf {
    let path = world.home().join(".config/containers/auth.json");
    written(&path, &auths(entries));
    path
}

/// Writes Docker's own file.
pub fn docker_config(world: &World, text: &str) {
    written(&world.home().join(".docker/config.json"), text);
}

/// Writes registries.conf.
pub fn registries_conf(world: &World, text: &str) {
    written(&world.home().join(".config/containers/registries.conf"), text);
}

/// Returns an entry of registries.conf for what begins with `prefix` and comes from `location`, with another line in it.
fn entry(prefix: &str, location: &str, line: &str) -> String {
    format!("[[registry]]\nprefix = \"{prefix}\"\nlocation = \"{location}\"\n{line}\n")
}

/// Returns an entry of registries.conf for what begins with `prefix`, with a line such as `insecure = true`.
pub fn registry(prefix: &str, line: &str) -> String {
    entry(prefix, prefix, line)
}

/// Returns an entry by which what begins with `prefix` comes from `mirror`, while nobody listens where it comes from otherwise.
pub fn mirrored(prefix: &str, mirror: &str) -> String {
    let mirror = format!("insecure = true\n[[registry.mirror]]\nlocation = \"{mirror}\"\ninsecure = true");
    entry(prefix, &format!("{}/gone", super::nobody()), &mirror)
}

/// Writes policy.json.
pub fn policy(world: &World, policy: &Value) {
    written(&world.home().join(".config/containers/policy.json"), &policy.to_string());
}

/// Writes a credential helper `docker-credential-test` that knows one registry, and returns the directory to put into PATH.
pub fn helper(world: &World, registry: &str, user: &str, password: &str) -> PathBuf {
    let bin = world.path("bin");
    let path = bin.join("docker-credential-test");
    let known = json!({ "ServerURL": registry, "Username": user, "Secret": password });
    let script = format!(
        "#!/bin/sh\nread -r asked\necho \"$1 $asked\" >>'{}'\n\
         if [ \"$1\" = get ] && [ \"$asked\" = '{registry}' ]; then cat <<'END'\n{known}\nEND\nexit; fi\n\
         echo 'credentials not found in native keychain'; exit 1\n",
        world.path("helped").display()
    );
    written(&path, &script);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable");
    bin
}
