//! Loading: where it goes, what it replaces, what stops it.

use std::fs;

use serde_json::json;

use crate::cell::{World, matrix};

matrix! {
    a_rebuild_leaves_no_nameless_image,
    a_rebuild_keeps_what_a_container_uses,
    what_is_mounted_is_not_unloaded,
    loads_into_the_storage_that_is_named,
    loads_with_vfs,
    a_reject_policy_stops_the_load_and_not_the_build,
    without_skopeo_the_store_has_the_image,
}

fn nameless(world: &World) -> String {
    world.podman(["images", "-a", "-q", "--filter", "dangling=true"]).ok()
}

fn a_rebuild_leaves_no_nameless_image(world: &World) {
    let first = world.build("hr", "1.0.0", &[]);
    fs::write(world.path("hr/notes.md"), "more").expect("a file");
    let second = world.build("hr", "1.0.0", &[]);
    assert_ne!(first.id, second.id);
    assert_eq!(nameless(world), "");
}

fn a_rebuild_keeps_what_a_container_uses(world: &World) {
    let first = world.build("hr", "1.0.0", &[]);
    world.podman(["create", "--name", "user", &first.name, "none"]).ok();
    fs::write(world.path("hr/notes.md"), "more").expect("a file");
    world.build("hr", "1.0.0", &[]);
    let used = world.podman(["inspect", "--format", "{{.Image}}", "user"]).ok();
    assert_eq!(used, first.id);
    world.podman(["image", "inspect", &first.id]).ok();
    world.podman(["rm", "user"]).ok();
}

/// podman removes an image under a container that has it mounted; what the container sees is then empty.
fn what_is_mounted_is_not_unloaded(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    let root = world.run("id", ["-u"]).ok() == "0";
    let image = |verb: &str| match root {
        true => world.run("podman", ["image", verb, &built.name]).ok(),
        false => world.run("podman", ["unshare", "podman", "image", verb, &built.name]).ok(),
    };
    image("mount");
    let refused = world.skillctl(["unload", &built.name]);
    assert!(refused.stderr.contains("is in use by a container or an image-backed volume"), "{refused}");
    let removed = world.skillctl(["rm", "-f", &built.name]);
    assert!(removed.stderr.contains("stays in containers-storage"), "{removed}");
    let again = world.skillctl(["rm", "-f", &built.name]);
    let hint = format!("hint: only containers-storage has {0}: skillctl unload {0}\n", built.name);
    assert!(again.stderr.ends_with(&hint), "{again}");
    world.podman(["image", "exists", &built.name]).ok();
    image("unmount");
    world.skillctl(["unload", &built.name]).ok();
    world.podman(["image", "exists", &built.name]).fails(1);
}

fn loads_into_the_storage_that_is_named(world: &World) {
    let (root, runroot) = (world.path("graph"), world.path("run"));
    let place = ["--root", root.to_str().expect("UTF-8"), "--runroot", runroot.to_str().expect("UTF-8")];
    let built = world.build("hr", "1.0.0", &place);
    world.podman(place.into_iter().chain(["image", "exists", &built.name])).ok();
    world.podman(["image", "exists", &built.name]).fails(1);
    unmount(world, &place);
}

fn loads_with_vfs(world: &World) {
    let (root, runroot) = (world.path("graph"), world.path("run"));
    let place = [
        "--root",
        root.to_str().expect("UTF-8"),
        "--runroot",
        runroot.to_str().expect("UTF-8"),
        "--storage-driver",
        "vfs",
    ];
    let built = world.build("hr", "1.0.0", &place);
    let seen = world.podman(place.into_iter().chain(["image", "inspect", &built.name])).json();
    assert_eq!(seen[0]["Id"], json!(built.id));
    assert_eq!(seen[0]["GraphDriver"]["Name"], "vfs");
    unmount(world, &place);
}

/// Empties a storage of its own, whose files may belong to subordinate users.
fn unmount(world: &World, place: &[&str]) {
    world.podman(place.iter().copied().chain(["rmi", "-a", "-f"])).ok();
}

fn a_reject_policy_stops_the_load_and_not_the_build(world: &World) {
    let dir = world.home().join(".config/containers");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("policy.json"), r#"{"default": [{"type": "reject"}]}"#).expect("a policy");
    let skill = world.skill("hr", "1.0.0");
    let auto = world.skillctl(["build".as_ref(), skill.as_os_str()]);
    assert_eq!(auto.code, 0, "{auto}");
    assert!(auto.stderr.contains("policy.json"), "it does not name the file to change: {auto}");
    world.skillctl(["list"]).ok();
    let always = world.skillctl(["build".as_ref(), skill.as_os_str(), "--load=always".as_ref()]).fails(2);
    assert!(always.contains("insecureAcceptAnything"), "it does not print the entry to add: {always}");
    fs::remove_dir_all(&dir).expect("the policy goes");
}

fn without_skopeo_the_store_has_the_image(world: &World) {
    let skill = world.skill("hr", "1.0.0");
    let env = ["-u", "STORAGE_DRIVER", "PATH=/nonexistent", env!("CARGO_BIN_EXE_skillctl"), "build"];
    let done = world.run("env", env.map(std::ffi::OsStr::new).into_iter().chain([skill.as_os_str()]));
    assert_eq!(done.code, 0, "{done}");
    assert!(done.stderr.contains("skopeo"), "it does not say why it was not loaded: {done}");
    assert_eq!(done.stderr.lines().count(), 1, "more than one line: {done}");
    world.skillctl(["load", "acme/hr:1.0.0-draft"]).ok();
}
