//! The store: names, damage, other tools, many processes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::thread;

use serde_json::{Value, json};

use crate::support::World;

fn built() -> World {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    world
}

fn index(world: &World) -> Value {
    serde_json::from_slice(&fs::read(world.store().join("index.json")).unwrap()).unwrap()
}

fn blob_path(world: &World, digest: &str) -> std::path::PathBuf {
    world.store().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
}

#[test]
fn names_with_and_without_localhost_are_one() {
    let world = built();
    let digest = world.run(["inspect", "acme/hr:1.0.0-draft", "--format", "json"]).ok().json()["digest"].clone();
    let short = &digest.as_str().unwrap()["sha256:".len()..][..12];
    for name in ["localhost/acme/hr:1.0.0-draft", digest.as_str().unwrap(), short] {
        assert_eq!(world.run(["inspect", name, "--format", "json"]).ok().json()["digest"], digest, "{name}");
    }
    let missing = world.run(["inspect", "acme/hr:2"]).fails(2);
    assert_eq!(
        missing.stderr,
        "error: Inspecting acme/hr:2: image not found: acme/hr:2 (there is acme/hr:1.0.0-draft)\nhint: skillctl list shows what is there\n"
    );
}

#[test]
fn tags_are_added_moved_and_removed() {
    let world = built();
    let tagged = world.run(["tag", "acme/hr:1.0.0-draft", "localhost/acme/hr:mine", "--load=never"]).ok();
    assert_eq!(tagged.stdout, "Tagged acme/hr:1.0.0-draft as localhost/acme/hr:mine\n");
    world.run(["tag", "acme/hr:none", "acme/hr:x", "--load=never"]).fails(2);
    let names: Vec<String> = world
        .run(["list", "--format", "json"])
        .ok()
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["reference"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["acme/hr:1.0.0-draft", "acme/hr:mine"]);
    let removed = world.run(["rm", "-f", "acme/hr:mine", "acme/none:1"]).fails(2);
    assert_eq!(removed.stdout, "Removed acme/hr:mine\n");
    assert!(removed.stderr.starts_with("Error: image not found: acme/none:1\n"), "{removed}");
    assert_eq!(
        world.run(["rm", "-f", "acme/none:1"]).fails(2).stderr.lines().last(),
        Some("error: no valid images to remove")
    );
    // What is easily forgotten is said.
    let there = "(there is acme/hr:1.0.0-draft)";
    for name in ["hr", "acme/hr"] {
        let removed = world.run(["rm", "-f", name]).fails(2);
        let want = format!("Error: image not found: {name} {there}\nerror: no valid images to remove\n");
        assert_eq!(removed.stderr, want);
        let volume = world.run(["generate", "volume", name]).fails(2);
        assert!(volume.stderr.contains(&format!("image not found: {name} {there}\n")), "{volume}");
    }
    for name in ["hr", "acme/hr:9"] {
        let history = world.run(["history", name]).fails(2);
        assert!(history.stderr.contains(&format!("image not found: {name} {there}\n")), "{history}");
    }
}

#[test]
fn rm_asks_and_takes_only_yes() {
    use std::io::Write as _;
    use std::process::Stdio;
    let nobody = "error: nobody has answered: nothing is removed\nhint: --force does not ask\n";
    for (answer, printed, said, left) in [
        ("n\n", "Remove acme/hr:1.0.0-draft? [y/N] Aborted.\n", "", 1),
        ("", "Remove acme/hr:1.0.0-draft? [y/N] \n", nobody, 1),
        ("y", "Remove acme/hr:1.0.0-draft? [y/N] Removed acme/hr:1.0.0-draft\n", "", 0),
        ("y\n", "Remove acme/hr:1.0.0-draft? [y/N] Removed acme/hr:1.0.0-draft\n", "", 0),
    ] {
        let world = built();
        let mut command = world.command(["rm", "acme/hr:1.0.0-draft"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(if said.is_empty() { 0 } else { 2 }));
        let texts = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((&*texts.0, &*texts.1), (printed, said));
        assert_eq!(world.run(["list", "--format", "json"]).ok().json().as_array().unwrap().len(), left);
    }
}

#[test]
fn damage_is_found_and_named() {
    let world = built();
    let inspected = world.run(["inspect", "acme/hr:1.0.0-draft", "--format", "json"]).ok().json();
    let config = blob_path(&world, inspected["image_id"].as_str().unwrap());
    let manifest = blob_path(&world, inspected["digest"].as_str().unwrap());
    for (path, message) in [(&config, "bytes, not"), (&manifest, "bytes, not")] {
        let whole = fs::read(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(path, &whole[..whole.len() - 1]).unwrap();
        let ran = world.run(["fsck"]).fails(1);
        assert!(ran.stdout.starts_with("acme/hr:1.0.0-draft: blob sha256:") && ran.stdout.contains(message), "{ran}");
        fs::write(path, &whole).unwrap();
        world.run(["fsck"]).ok();
    }
    let mut flipped = fs::read(&manifest).unwrap();
    flipped[20] ^= 1;
    fs::write(&manifest, flipped).unwrap();
    let ran = world.run(["inspect", "acme/hr:1.0.0-draft"]).fails(2);
    assert!(
        ran.stderr.contains("is damaged: its digest is sha256:") && ran.stderr.contains("hint: skillctl fsck"),
        "{ran}"
    );
    // A blob that two images share concerns both.
    world.run(["tag", "acme/hr:1.0.0-draft", "acme/hr:2", "--load=never"]).ok();
    let report = world.run(["fsck", "--format", "json"]).fails(1).json();
    let images: Vec<&str> =
        report["problems"].as_array().unwrap().iter().map(|p| p["image"].as_str().unwrap()).collect();
    assert_eq!(images, ["acme/hr:1.0.0-draft", "acme/hr:2"]);
    world.run(["rm", "-f", "acme/hr:2"]).ok();
    fs::remove_file(&manifest).unwrap();
    assert!(world.run(["fsck"]).fails(1).stdout.contains("it is missing"));
    // Building again mends it: blobs that are there are written anew.
    world.build("hr");
    world.run(["fsck"]).ok();
}

#[test]
fn a_half_written_index_of_another_tool_is_named_and_not_overwritten() {
    let world = built();
    let path = world.store().join("index.json");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    for args in [&["list"][..], &["build", "hr", "--load=never"], &["fsck"]] {
        let ran = world.run(args).fails(2);
        assert!(ran.stderr.contains("index.json is damaged: "), "{ran}");
    }
    assert_eq!(fs::read(&path).unwrap(), &whole[..whole.len() / 2]);
    // It was only being written: the next run works.
    fs::write(&path, &whole).unwrap();
    world.run(["list"]).ok();
}

#[test]
fn a_directory_of_something_else_is_no_store() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.write("store/precious.txt", "x");
    let ran = world.run(["build", "hr", "--load=never"]).fails(2);
    assert!(ran.stderr.contains("is no store: it has precious.txt but no oci-layout"), "{ran}");
    assert_eq!(fs::read_dir(world.store()).unwrap().count(), 1);
}

#[test]
fn a_read_only_store_lists_and_refuses_to_build() {
    // Root writes where it likes; a read-only mount stands in for permissions in the real-runtime tier.
    if nix::unistd::geteuid().is_root() {
        return read_only_mount();
    }
    let world = built();
    fs::set_permissions(world.store(), fs::Permissions::from_mode(0o555)).unwrap();
    world.run(["list"]).ok();
    world.run(["build", "hr", "--load=never"]).fails(2);
    fs::set_permissions(world.store(), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs a script with the store in a mount namespace of its own.
fn in_namespace(world: &World, script: &str) -> crate::support::Ran {
    let store = world.store();
    let script = format!("set -e; store={}; skillctl={}; {script}", store.display(), env!("CARGO_BIN_EXE_skillctl"));
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).current_dir(world.tmp.path()).env("SKILLCTL_STORE", store);
    command.output().unwrap().into()
}

fn read_only_mount() {
    let world = built();
    let ran = in_namespace(
        &world,
        "mount --bind $store $store; mount -o remount,ro,bind $store; $skillctl list; $skillctl inspect acme/hr:1.0.0-draft; $skillctl build hr --load=never",
    );
    assert_eq!(ran.status, Some(2), "{ran}");
    assert!(ran.stdout.contains("1.0.0-draft") && ran.stderr.contains("Read-only file system"), "{ran}");
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED a_full_disk_leaves_what_was_there: mounting a small tmpfs needs root");
        return;
    }
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.skill("big", "1.0.0");
    // Random enough not to compress below the size of the file system.
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(4 << 20)
    .collect();
    world.write("big/assets/noise", noise);
    let script = "mkdir -p $store; mount -t tmpfs -o size=1m none $store; $skillctl build hr --load=never >/dev/null; \
                  $skillctl build big --load=never || echo status $?; $skillctl fsck; ls $store/.tmp; $skillctl list; $skillctl build hr --load=never -t again";
    let ran = in_namespace(&world, script).ok();
    assert!(ran.stderr.contains("No space left on device"), "{ran}");
    assert!(
        ran.stdout.contains("status 2")
            && ran.stdout.contains("all is well")
            && ran.stdout.contains("Reference: localhost/acme/hr:again"),
        "{ran}"
    );
    assert!(!ran.stdout.contains("acme/big"), "{ran}");
}

#[test]
fn twenty_builds_at_once_lose_nothing() {
    let world = World::new();
    for i in 0..20 {
        world.skill(&format!("s{i}"), "1.0.0");
    }
    thread::scope(|scope| {
        for i in 0..20 {
            let world = &world;
            scope.spawn(move || world.build(&format!("s{i}")));
        }
    });
    assert_eq!(index(&world)["manifests"].as_array().unwrap().len(), 20);
    world.run(["fsck"]).ok();
}

/// Builds, tags and prunes of many processes: every build that said so is there afterwards.
#[test]
fn pruning_at_once_with_building_takes_nothing_that_is_about_to_be_named() {
    let world = World::new();
    for i in 0..6 {
        world.skill(&format!("s{i}"), "1.0.0");
    }
    thread::scope(|scope| {
        let world = &world;
        for i in 0..6 {
            scope.spawn(move || {
                for round in 0..5 {
                    world.run(["build", &format!("s{i}"), "--load=never", "-t", &format!("r{round}")]).ok();
                    world.run(["tag", &format!("acme/s{i}:r{round}"), &format!("acme/s{i}:t"), "--load=never"]).ok();
                }
            });
        }
        scope.spawn(move || {
            for _ in 0..15 {
                world.run(["prune", "--grace", "0"]).ok();
            }
        });
    });
    assert_eq!(index(&world)["manifests"].as_array().unwrap().len(), 6 * 6);
    world.run(["fsck"]).ok();
}

#[test]
fn unnamed_manifests_go_unless_something_needs_them() {
    let world = built();
    let inspected = world.run(["inspect", "acme/hr:1.0.0-draft", "--format", "json"]).ok().json();
    let subject = inspected["digest"].as_str().unwrap().to_owned();
    // A referrer of the image (a signature, an SBOM), a referrer of nothing, and an image that a receipt pins.
    let referrer = |subject: &str| {
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "text/spdx",
               "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": put(&world, b"{}"), "size": 2},
               "layers": [], "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject, "size": 1}})
    };
    let living = put(&world, referrer(&subject).to_string().as_bytes());
    let dead = put(&world, referrer(&format!("sha256:{}", "0".repeat(64))).to_string().as_bytes());
    let pinned = put(&world, json!({"schemaVersion": 2, "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": put(&world, b"{}"), "size": 2}, "layers": []}).to_string().as_bytes());
    let mut value = index(&world);
    for digest in [&living, &dead, &pinned] {
        let size = fs::metadata(blob_path(&world, digest)).unwrap().len();
        value["manifests"]
            .as_array_mut()
            .unwrap()
            .push(json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size}));
    }
    fs::write(world.store().join("index.json"), value.to_string()).unwrap();
    world.write("home/.claude/skills/.skillimage/receipts/old.json", json!({"digest": pinned}).to_string());

    world.run(["prune", "--grace", "0"]).ok();
    let left: Vec<String> = index(&world)["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["digest"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(left, [subject, living, pinned]);
    assert!(!blob_path(&world, &dead).exists());
    world.run(["fsck"]).ok();
}

fn put(world: &World, bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)));
    fs::write(blob_path(world, &digest), bytes).unwrap();
    digest
}

#[test]
fn young_blobs_are_spared_and_that_is_said() {
    let world = built();
    world.run(["rm", "-f", "acme/hr:1.0.0-draft"]).ok();
    let ran = world.run(["prune"]).ok();
    assert_eq!(ran.stdout, "Nothing to prune.\n");
    assert!(ran.stderr.contains("3 unnamed blob(s) younger than 3600 s were spared"), "{ran}");
    let ran = world.run(["prune", "--grace", "0"]).ok();
    assert!(ran.stdout.contains("in 3 blob(s)."), "{ran}");
    assert_eq!(fs::read_dir(world.store().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn hostile_annotations_forge_no_line() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    let card = fs::read_to_string(world.path("hr/skill.yaml")).unwrap();
    world.write(
        "hr/skill.yaml",
        card.replace(
            "license: Apache-2.0",
            "license: \"x\\nDigest: sha256:forged\"\n  authors:\n    - name: \"sha256:forged Digest:\"",
        ),
    );
    world.run(["build", "hr", "--load=never"]);
    let text = fs::read_to_string(world.store().join("index.json")).unwrap();
    assert!(text.contains("forged"));
    let ran = world.run(["inspect", "acme/hr:1.0.0-draft"]).ok();
    assert_eq!(ran.stdout.lines().filter(|line| line.contains("Digest:")).count(), 1, "{ran}");
}

#[test]
fn completions_and_version_are_printed() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.run(["completion", shell]).ok().stdout.contains("skillctl"));
    }
    let version = format!("skillctl version {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(world.run(["version"]).ok().stdout, version);
    assert_eq!(world.run(["--version"]).ok().stdout, version);
    world.run(["no-such-verb"]).fails(2);
}

/// The reader of `fsck | head` decides nothing: the work is done, and the exit status is that of the work.
#[test]
fn a_closed_pipe_changes_neither_work_nor_exit_status() {
    let world = built();
    let run = |command: &str| {
        let script = format!("set -o pipefail; {} {command} | true", env!("CARGO_BIN_EXE_skillctl"));
        let mut bash = std::process::Command::new("bash");
        let output =
            bash.args(["-c", &script]).env("SKILLCTL_STORE", world.store()).current_dir(world.tmp.path()).output();
        crate::support::Ran::from(output.unwrap())
    };
    for command in ["list --no-trunc", "inspect acme/hr:1.0.0-draft"] {
        let ran = run(command);
        assert_eq!((ran.status, &*ran.stderr), (Some(0), ""), "{command}");
    }
    let digest = world.run(["inspect", "acme/hr:1.0.0-draft", "--format", "json"]).ok().json()["digest"].clone();
    fs::remove_file(blob_path(&world, digest.as_str().unwrap())).unwrap();
    assert_eq!(run("fsck").status, Some(1));
    assert_eq!(run("build hr --load=never -t again").status, Some(0));
    world.run(["inspect", "acme/hr:again"]).ok();
}

#[test]
fn a_signal_ends_the_question_of_rm_and_removes_nothing() {
    use nix::sys::signal::{Signal, kill};
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut command = world.command(["rm", "acme/hr:1.0.0-draft"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut question = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut question).unwrap();
        assert_eq!(&question, b"Remove");
        kill(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal}");
        world.run(["inspect", "acme/hr:1.0.0-draft"]).ok();
    }
}
