//! A store that the real Go `skillctl` wrote (redhat-et/skillimage, commit 92dde21), with what that tool printed.

use std::fs;

use crate::support::World;

fn world() -> World {
    let world = World::new();
    world.extract("go-skillctl.tar.gz", "go");
    fs::rename(world.path("go/store"), world.store()).unwrap();
    world
}

/// Ours adds a column at the end of each line; before it the lines are the same.
#[test]
fn list_prints_the_lines_of_the_go_tool() {
    let world = world();
    let ours = world.run(["list", "--no-trunc"]).ok();
    let go = fs::read_to_string(world.path("go/list.txt")).unwrap();
    assert_eq!(ours.stdout.lines().count(), go.lines().count(), "{ours}");
    for (ours, go) in ours.stdout.lines().zip(go.lines()) {
        assert!(ours.starts_with(go), "ours: {ours}\ngo:   {go}");
    }
}

#[test]
fn inspect_prints_the_lines_of_the_go_tool() {
    let world = world();
    let mut ours = String::new();
    for reference in ["acme/alpha:1.0.0", "acme/tools/beta:0.2.0-draft", "other/gamma:2.0.0"] {
        let printed = world.run(["inspect", reference]).ok().stdout;
        let added = ["  Image ID:", "  Found in:", "  Format:", "  Source:", "  Revision:"];
        for line in printed.lines().filter(|line| !added.iter().any(|label| line.starts_with(label))) {
            ours += line;
            ours += "\n";
        }
    }
    assert_eq!(ours, fs::read_to_string(world.path("go/inspect.txt")).unwrap());
}

#[test]
fn its_store_is_whole_and_stays_readable_after_ours_wrote_into_it() {
    let world = world();
    let report = world.run(["fsck", "--format", "json"]).ok().json();
    assert_eq!((report["entries"].as_u64(), report["problems"].as_array().unwrap().len()), (Some(17), 0));

    world.run(["tag", "acme/alpha:1.0.0", "acme/alpha:mine", "--load=never"]).ok();
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(world.store().join("index.json")).unwrap()).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 18);
    let mine =
        entries.iter().find(|e| e["annotations"]["org.opencontainers.image.ref.name"] == "acme/alpha:mine").unwrap();
    assert_eq!(mine["digest"], "sha256:a8dbaa7391e29bf71b4d1dc0599873ab3e28642959e8442d91a5c4525ca9f977");
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
}

/// What the Go tool would print for the same store (its `prune` keeps the highest state of each name and version).
#[test]
fn prune_keeps_the_highest_state_and_frees_the_rest() {
    let world = world();
    let dry = world.run(["prune", "--dry-run", "--grace", "0", "--format", "json"]).ok().json();
    let pruned = world.run(["prune", "--grace", "0"]).ok();
    let removed: Vec<&str> = pruned.stdout.lines().filter(|l| l.starts_with("Removed ")).collect();
    assert_eq!(
        removed,
        [
            "Removed acme/alpha:1.0.0-draft (draft)",
            "Removed acme/alpha:1.0.0-testing (testing)",
            "Removed acme/alpha:1.1.0-draft (draft)",
            "Removed other/delta:3.0.0-testing (testing)",
            "Removed other/delta:latest (published)",
            "Removed other/gamma:2.0.0-draft (draft)",
            "Removed other/gamma:2.0.0-testing (testing)",
            "Removed other/gamma:latest (published)",
        ]
    );
    assert!(pruned.stdout.contains("\nPruned 8 image(s).\n"), "{pruned}");
    assert_eq!(dry["removed"].as_array().unwrap().len(), 8);
    assert!(dry["blobs"].as_u64().unwrap() > 0);
    let left = fs::read_dir(world.store().join("blobs/sha256")).unwrap().count() as u64;
    assert_eq!(left + dry["blobs"].as_u64().unwrap(), 25);
    world.run(["fsck"]).ok();
}
