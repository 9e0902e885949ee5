//! What `rm` and `prune` must never take.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::git::has_git;
use crate::git_server::mute;
use crate::support::World;

fn digest(world: &World, name: &str) -> String {
    world.run(["inspect", name, "--format", "json"]).ok().json()["digest"].as_str().unwrap().to_owned()
}

fn blobs(world: &World) -> usize {
    fs::read_dir(world.store().join("blobs/sha256")).unwrap().count()
}

/// A store with one skill whose first build a receipt pins, and which was built anew since.
fn pinned(world: &World, pin: impl Fn(&World, &str)) -> String {
    world.skill("hr", "1.0.0");
    world.build("hr");
    let old = digest(world, "acme/hr:1.0.0-draft");
    pin(world, &old);
    world.write("hr/more.md", "more");
    world.build("hr");
    old
}

#[test]
fn an_installed_skill_keeps_its_image_through_rebuild_rm_and_prune() {
    let receipt = |world: &World, digest: &str| {
        world.write("home/.claude/skills/.skillimage/receipts/hr.json", json!({"digest": digest}).to_string());
    };
    let card = |world: &World, digest: &str| {
        world.write("home/.cursor/skills/hr/skill.yaml", format!("provenance:\n  source: x\n  commit: {digest}\n"));
    };
    let linked = |world: &World, digest: &str| {
        world.write("elsewhere/hr/skill.yaml", format!("provenance:\n  commit: \"{digest}\"\n"));
        fs::create_dir_all(world.path("home/.claude/skills")).unwrap();
        symlink(world.path("elsewhere/hr"), world.path("home/.claude/skills/hr")).unwrap();
    };
    type Pin<'a> = &'a dyn Fn(&World, &str);
    let pins: [Pin<'_>; 3] = [&receipt, &card, &linked];
    for pin in pins {
        let world = World::new();
        let old = pinned(&world, pin);
        world.run(["rm", "-f", "acme/hr:1.0.0-draft"]).ok();
        world.run(["prune", "--grace", "0"]).ok();
        world.run(["inspect", &old]).ok();
        assert_eq!(blobs(&world), 3);
    }
}

#[test]
fn a_receipt_that_cannot_be_read_stops_prune() {
    let world = World::new();
    pinned(&world, |world, _| world.write("home/.claude/skills/.skillimage/receipts/hr.json", "{\"digest\": \"sha"));
    let before = blobs(&world);
    let ran = world.run(["prune", "--grace", "0"]).fails(2);
    assert!(ran.stderr.contains("Reading the receipt hr.json"), "{ran}");
    assert_eq!(blobs(&world), before);
}

#[test]
fn a_fifo_instead_of_a_card_hangs_nothing() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    fs::create_dir_all(world.path("home/.claude/skills/hr")).unwrap();
    nix::unistd::mkfifo(&world.path("home/.claude/skills/hr/skill.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    world.run(["prune", "--dry-run"]).ok();
}

#[test]
fn a_damaged_image_stops_prune_before_anything_changes() {
    let world = World::new();
    for (name, tag) in [("hr", "1.0.0-draft"), ("legal", "1.0.0-draft")] {
        world.skill(name, "1.0.0");
        world.run(["build", name, "--load=never", "-t", tag]).ok();
    }
    let hex = digest(&world, "acme/legal:1.0.0-draft")["sha256:".len()..].to_owned();
    fs::remove_file(world.store().join("blobs/sha256").join(hex)).unwrap();
    let index = fs::read(world.store().join("index.json")).unwrap();
    let ran = world.run(["prune", "--grace", "0"]).fails(2);
    assert!(ran.stderr.contains("it is missing"), "{ran}");
    assert_eq!(fs::read(world.store().join("index.json")).unwrap(), index);
    assert_eq!(blobs(&world), 5);
    // The remedy: the damaged name goes, and then its blobs.
    world.run(["rm", "-f", "acme/legal:1.0.0-draft"]).ok();
    world.run(["prune", "--grace", "0"]).ok();
    assert_eq!(blobs(&world), 3);
}

#[test]
fn a_lost_index_is_named_and_its_blobs_are_kept() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    fs::remove_file(world.store().join("index.json")).unwrap();
    for args in [&["fsck"][..], &["prune", "--grace", "0"], &["list"], &["build", "hr", "--load=never"]] {
        let ran = world.run(args).fails(2);
        assert!(ran.stderr.contains("index.json is damaged: it is missing"), "{ran}");
    }
    assert_eq!(blobs(&world), 3);
}

#[test]
fn referrers_of_an_instance_stay_with_its_index() {
    use sha2::Digest as _;
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    let put = |value: &Value| {
        let bytes = value.to_string();
        let hex = hex::encode(sha2::Sha256::digest(&bytes));
        fs::write(world.store().join("blobs/sha256").join(&hex), &bytes).unwrap();
        json!({"mediaType": value["mediaType"], "digest": format!("sha256:{hex}"), "size": bytes.len()})
    };
    let path = world.store().join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let instance = index["manifests"][0].clone();
    let mut named =
        put(&json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        {"mediaType": instance["mediaType"], "digest": instance["digest"], "size": instance["size"]}]}));
    named["annotations"] = json!({"org.opencontainers.image.ref.name": "acme/hr:index"});
    let empty = put(&json!({"mediaType": "application/vnd.oci.empty.v1+json"}));
    let referrer = put(&json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": empty, "layers": [], "subject": {"mediaType": "x", "digest": instance["digest"], "size": 1}}));
    index["manifests"] = json!([named, referrer]);
    fs::write(&path, index.to_string()).unwrap();
    world.run(["prune", "--grace", "0"]).ok();
    let left: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(left["manifests"].as_array().unwrap().len(), 2, "{left}");
    world.run(["fsck"]).ok();
}

#[test]
fn a_digest_of_several_names_is_not_guessed() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    world.run(["tag", "acme/hr:1.0.0-draft", "acme/hr:2", "--load=never"]).ok();
    let ran = world.run(["rm", "-f", &digest(&world, "acme/hr:2")]).fails(2);
    assert!(ran.stderr.contains("has several names: acme/hr:1.0.0-draft, acme/hr:2"), "{ran}");
}

#[test]
fn names_with_and_without_localhost_replace_each_other() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    let path = world.store().join("index.json");
    let text =
        fs::read_to_string(&path).unwrap().replace("\"acme/hr:1.0.0-draft\"", "\"localhost/acme/hr:1.0.0-draft\"");
    fs::write(&path, text).unwrap();
    world.write("hr/more.md", "more");
    world.build("hr");
    assert_eq!(world.run(["list", "--format", "json"]).ok().json().as_array().unwrap().len(), 1);
}

/// One entry of another tool that is no descriptor must not take all the others away.
#[test]
fn a_malformed_entry_is_a_problem_of_its_own() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    let path = world.store().join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["manifests"].as_array_mut().unwrap().push(json!({"digest": "sha256:zz"}));
    fs::write(&path, index.to_string()).unwrap();
    world.run(["inspect", "acme/hr:1.0.0-draft"]).ok();
    world.run(["list"]).ok();
    assert!(world.run(["fsck"]).fails(1).stdout.starts_with("index.json: an entry without a name: "));
    world.run(["prune", "--grace", "0"]).fails(2);
}

#[test]
fn nested_indexes_end_the_check_and_not_the_process() {
    use sha2::Digest as _;
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    let path = world.store().join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut child = index["manifests"][0].clone();
    child.as_object_mut().unwrap().remove("annotations");
    for _ in 0..30_000 {
        let text = json!({"schemaVersion": 2, "manifests": [child]}).to_string();
        let hex = hex::encode(sha2::Sha256::digest(&text));
        fs::write(world.store().join("blobs/sha256").join(&hex), &text).unwrap();
        child = json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": format!("sha256:{hex}"), "size": text.len()});
    }
    index["manifests"].as_array_mut().unwrap().push(child);
    fs::write(&path, index.to_string()).unwrap();
    world.run(["fsck"]).ok();
}

#[test]
fn nothing_is_made_where_nothing_is() {
    let world = World::new();
    fs::create_dir(world.path("empty")).unwrap();
    for args in
        [&["load", "acme/hr:1"][..], &["tag", "acme/hr:1", "acme/hr:2"], &["build", "empty"], &["list"], &["prune"]]
    {
        world.run(args);
        assert!(!world.store().exists(), "{args:?}");
    }
}

#[test]
fn tags_and_prunes_at_once_do_not_disturb_each_other() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    thread::scope(|scope| {
        let world = &world;
        scope.spawn(move || {
            for i in 0..60 {
                world.run(["tag", "acme/hr:1.0.0-draft", &format!("acme/hr:t{i}"), "--load=never"]).ok();
            }
        });
        scope.spawn(move || {
            for _ in 0..60 {
                world.run(["prune", "--grace", "0"]).ok();
            }
        });
    });
}

/// A server may take its time; what it is awaited for has to be there then.
#[test]
fn prune_does_not_wait_for_a_fetch_from_git_and_leaves_it_alone() {
    if !has_git() {
        return;
    }
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    let (listener, address) = mute();
    let mut command = world.command(["build", &format!("http://{address}/acme/skills")]);
    command.env("PATH", std::env::var_os("PATH").unwrap());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    listener.set_nonblocking(true).unwrap();
    let connection = loop {
        match listener.accept() {
            Ok((connection, _)) => break connection,
            Err(e) => assert!(child.try_wait().unwrap().is_none(), "nobody asks: {e}"),
        }
        thread::sleep(Duration::from_millis(5));
    };
    let repositories = || {
        let entries = fs::read_dir(world.store().join(".tmp")).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("git-")).count()
    };
    let started = Instant::now();
    world.run(["prune", "--grace", "0"]).ok();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!((repositories(), child.try_wait().unwrap()), (1, None));
    // What a process leaves that was killed is nobody's, while its git is still at it.
    child.kill().unwrap();
    child.wait().unwrap();
    world.run(["prune", "--grace", "0"]).ok();
    assert_eq!(repositories(), 0);
    drop((connection, listener));
}
