//! The cache of what is unpacked for containers: through the hook, the verbs, and beside crashes.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::World;

const HR: &str = "acme/hr:1.0.0-draft";

/// A world with a skill and a root file system, in directories that are called as podman's are.
fn world() -> World {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    fs::create_dir_all(root(&world).join("etc")).unwrap();
    world
}

fn root(world: &World) -> PathBuf {
    world.path("graph/overlay/layer/merged")
}

/// The bundle of the container, in which podman starts the hook.
fn bundle(world: &World) -> PathBuf {
    world.path("graph/overlay-containers/abc/userdata")
}

/// The hook, as podman starts it, on what `spec.json` has.
fn hook(world: &World) -> Command {
    let mut command = world.command_of(env!("CARGO_BIN_EXE_skillctl-hook"), ["precreate"]);
    fs::create_dir_all(bundle(world)).unwrap();
    command.current_dir(bundle(world)).stdin(fs::File::open(world.path("spec.json")).unwrap());
    command
}

/// Runs precreate on a configuration.
fn precreate(world: &World, spec: &Value) -> (i32, String, String) {
    world.write("spec.json", spec.to_string());
    let mut command = hook(world);
    command.stdout(Stdio::piped());
    let done = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

fn spec(world: &World, skills: &str) -> Value {
    json!({
        "ociVersion": "1.0.0", "unknown": {"kept": 1.50},
        "process": {"user": {"uid": nix::unistd::geteuid().as_raw(), "gid": nix::unistd::getegid().as_raw()}, "env": ["HOME=/home/u"]},
        "root": {"path": root(world)}, "mounts": [{"destination": "/run/.containerenv", "source": bundle(world).join(".containerenv")}],
        "annotations": {"io.skillimage.skills": skills, "io.skillimage.target": "claude"},
    })
}

/// Runs the hook and returns the tree that it bound.
fn tree(world: &World) -> PathBuf {
    let (code, out, err) = precreate(world, &spec(world, HR));
    assert_eq!(code, 0, "{err}");
    let spec: Value = serde_json::from_str(&out).unwrap();
    spec["mounts"][1]["source"].as_str().unwrap().into()
}

#[test]
fn a_configuration_gets_mounts_and_keeps_the_rest() {
    let world = world();
    let before = spec(&world, HR);
    let (code, out, err) = precreate(&world, &before);
    assert_eq!(code, 0, "{err}");
    let mut after: Value = serde_json::from_str(&out).unwrap();
    let mount = after["mounts"].as_array_mut().unwrap().pop().unwrap();
    assert_eq!(after, before);
    // As text, which says more than values do.
    let text = before.to_string().replace("1.5", "1.50000000000000000001");
    world.write("spec.json", &text);
    let done = hook(&world).output().unwrap();
    let (added, again) = (format!(",{mount}"), String::from_utf8(done.stdout).unwrap());
    assert_eq!(again.replace(&added, ""), text);
    assert_eq!(mount["destination"], "/home/u/.claude/skills/hr");
    assert_eq!(mount["options"], json!(["bind", "ro", "nosuid", "nodev", "rprivate"]));
    let tree = PathBuf::from(mount["source"].as_str().unwrap());
    assert!(fs::read_to_string(tree.join("SKILL.md")).unwrap().contains("hr"));
    assert!(root(&world).join("home/u/.claude/skills/hr").is_dir());
    // What asks for nothing passes as it is, also where nothing of ours works.
    let mut plain = before.clone();
    plain["annotations"] = json!({"other": "x"});
    fs::remove_dir_all(world.store()).unwrap();
    assert_eq!(precreate(&world, &plain), (0, plain.to_string(), String::new()));
}

#[test]
fn a_skill_of_a_read_only_store_is_bound_from_the_cache_of_the_other() {
    let world = world();
    fs::rename(world.store(), world.path("image")).unwrap();
    let (code, _, err) = precreate(&world, &spec(&world, HR));
    assert!(code == 1 && err.contains("image not found: acme/hr:1.0.0-draft"), "{err}");
    let stores = format!("{}:{}", world.path("none").display(), world.path("image").display());
    let done = hook(&world).env("SKILLCTL_ADD_STORES", &stores).output().unwrap();
    let bound: Value = serde_json::from_slice(&done.stdout).unwrap();
    let tree = PathBuf::from(bound["mounts"][1]["source"].as_str().unwrap());
    assert!(tree.starts_with(world.path("unpacked")) && tree.join("SKILL.md").exists(), "{}", tree.display());
    // The hook that writes copies, which another program starts, is told of them, too.
    let mut copies = spec(&world, HR);
    copies["annotations"]["io.skillimage.mode"] = json!("extract");
    world.write("spec.json", copies.to_string());
    let done = hook(&world).env("SKILLCTL_ADD_STORES", &stores).output().unwrap();
    let handed: Value = serde_json::from_slice(&done.stdout).unwrap();
    let env = handed["hooks"]["createContainer"][0]["env"].as_array().unwrap();
    assert!(env.contains(&json!(format!("SKILLCTL_ADD_STORES={stores}"))), "{handed}");
}

#[test]
fn a_configuration_of_ten_megabytes_passes() {
    let world = world();
    let mut large = spec(&world, HR);
    large["process"]["env"]
        .as_array_mut()
        .unwrap()
        .extend((0..100).map(|n| json!(format!("X{n}={}", "x".repeat(100_000)))));
    let (code, out, err) = precreate(&world, &large);
    assert_eq!(code, 0, "{err}");
    let mut after: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(after["mounts"].as_array_mut().unwrap().pop().unwrap()["destination"], "/home/u/.claude/skills/hr");
    assert_eq!(after, large);
}

#[test]
fn what_is_no_configuration_is_an_error_and_nothing_comes_out() {
    let world = world();
    for text in
        ["", "[]", "null", "{\"annotations\":", "{\"mounts\":1,\"annotations\":{\"io.skillimage.skills\":\"acme/hr\"}}"]
    {
        world.write("spec.json", text);
        let done = hook(&world).output().unwrap();
        assert!(!done.status.success() && done.stdout.is_empty(), "{text}");
    }
}

#[test]
fn fsck_compares_what_was_unpacked() {
    let world = world();
    let tree = tree(&world);
    assert!(world.run(["fsck"]).ok().stdout.contains(", 1 unpacked: all is well"));
    fs::write(tree.join("SKILL.md"), "other").unwrap();
    let ran = world.run(["fsck", "--format", "json"]).fails(1);
    assert_eq!(
        (&ran.json()["trees"], &ran.json()["problems"][0]["image"]),
        (&json!(1), &json!(tree.display().to_string()))
    );
}

#[test]
fn prune_frees_what_nobody_needs() {
    let world = world();
    let path = tree(&world);
    // Just used.
    world.run(["prune", "--format", "json"]).ok();
    assert!(path.is_dir());
    let age = |days: u64| {
        let seal = path.with_extension("seal");
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 86_400);
        fs::File::options().write(true).open(seal).and_then(|file| file.set_modified(then)).unwrap();
    };
    age(2);
    let json = world.run(["prune", "--dry-run", "--format", "json"]).ok().json();
    assert_eq!((json["trees"].as_array().unwrap().len(), path.is_dir()), (1, true));
    // A use counts, and is noted.
    assert_eq!(tree(&world), path);
    assert_eq!(world.run(["prune", "--format", "json"]).ok().json()["trees"], json!([]));
    age(2);
    assert!(world.run(["prune"]).ok().stdout.contains("Removed 1 tree(s)"));
    assert!(!path.exists() && !path.with_extension("seal").exists());
    assert_eq!(tree(&world), path);
    // One that was altered is put aside for the containers that have it, and goes when none has.
    fs::write(path.join("SKILL.md"), "other").unwrap();
    assert_eq!(tree(&world), path);
    let old = path.with_file_name(format!("{}.old-0", path.file_name().unwrap().display()));
    assert_eq!(fs::read_to_string(old.join("SKILL.md")).unwrap(), "other");
    world.run(["prune"]).ok();
    assert!(!old.exists() && path.is_dir());
}

#[test]
fn hooks_that_are_killed_leave_no_half_tree() {
    let world = world();
    let whole = tree(&world);
    let cache = whole.parent().unwrap().to_owned();
    for after in 0..40 {
        let _ = fs::remove_dir_all(&whole);
        let mut child = hook(&world).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(after * 400));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(tree(&world), whole);
        let fsck = world.run(["fsck"]).ok().stdout;
        assert!(fsck.contains("1 unpacked: all is well"), "{fsck}");
        // Nothing is left of what was killed.
        let left: Vec<_> = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.') || name == ".lock"), "{left:?}");
    }
}

#[test]
fn a_device_is_the_tree_of_its_skill() {
    let world = world();
    let ran = world.run(["generate", "cdi", HR, "--target", "claude", "--home", "/home/u"]).ok();
    assert!(ran.stderr.starts_with("warning: unless the image has /home/u/.claude, it is made as root"), "{ran}");
    assert!(ran.stderr.contains("skillctl hook enable"), "{ran}");
    let note = "note: the container's user is taken to be root; --home DIR says otherwise\n";
    assert_eq!(world.run(["generate", "cdi", HR, "--target", "claude"]).ok().stderr, note);
    let json = ran.json();
    let mount = &json["devices"][0]["containerEdits"]["mounts"][0];
    assert_eq!(
        (&json["devices"][0]["name"], &mount["containerPath"]),
        (&json!("acme.hr"), &json!("/home/u/.claude/skills/hr"))
    );
    assert_eq!(mount["hostPath"], json!(tree(&world).display().to_string()));
    let twice = world.run(["generate", "cdi", HR, HR]).fails(2);
    assert!(twice.stderr.contains("would both be the device acme.hr"), "{twice}");
}
