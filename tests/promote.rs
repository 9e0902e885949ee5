//! The life cycle in the store, as `promote --local`, `build`, `tag`, `history` and `prune` have it.

use std::fs;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::foreign;
use crate::support::{Ran, World};

const STATUS: &str = "io.skillimage.status";

fn promote(world: &World, reference: &str, to: &str, flags: &[&str]) -> Ran {
    let args = ["promote", reference, "--to", to, "--local", "--load=never", "--format", "json"];
    world.run(args.iter().chain(flags))
}

/// Brings a version of `acme/hr` to published, and returns its digest.
fn publish(world: &World, version: &str) -> String {
    world.skill("hr", version);
    world.build("hr");
    promote(world, &format!("acme/hr:{version}-draft"), "testing", &[]).ok();
    let published = promote(world, &format!("acme/hr:{version}-testing"), "published", &[]).ok();
    published.json()["digest"].as_str().unwrap().to_owned()
}

fn inspect(world: &World, reference: &str) -> Value {
    world.run(["inspect", reference, "--format", "json"]).ok().json()
}

fn digest(world: &World, reference: &str) -> Option<String> {
    let rows = world.run(["list", "--format", "json"]).ok().json();
    let row = rows.as_array().unwrap().iter().find(|row| row["reference"] == reference)?;
    Some(row["digest"].as_str().unwrap().to_owned())
}

fn manifest(world: &World, digest: &str) -> Value {
    let path = world.store().join("blobs").join(digest.replace(':', "/"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn index(world: &World) -> Vec<u8> {
    fs::read(world.store().join("index.json")).unwrap()
}

#[test]
fn only_the_state_changes() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    let draft = manifest(&world, &digest(&world, "acme/hr:1.0.0-draft").unwrap());
    let steps = [
        ("acme/hr:1.0.0-draft", "testing", json!("acme/hr:1.0.0-testing")),
        ("acme/hr:1.0.0-testing", "published", json!("acme/hr:1.0.0")),
        ("acme/hr:latest", "deprecated", json!("acme/hr:1.0.0")),
        ("acme/hr:1.0.0", "archived", Value::Null),
    ];
    for (reference, to, new) in steps {
        for other in ["draft", "testing", "published", "deprecated", "archived"].iter().filter(|state| **state != to) {
            let refused = promote(&world, reference, other, &[]).fails(2);
            assert!(refused.stderr.contains("invalid transition: ") && refused.stderr.contains(other), "{refused}");
        }
        let promoted = promote(&world, reference, to, &[]).ok().json();
        assert_eq!(promoted["reference"], new);
        let mut changed = manifest(&world, promoted["digest"].as_str().unwrap());
        assert_eq!(changed["annotations"][STATUS], to);
        changed["annotations"][STATUS] = json!("draft");
        assert_eq!(changed, draft, "{to}");
    }
    assert_eq!((digest(&world, "acme/hr:1.0.0"), digest(&world, "acme/hr:latest")), (None, None));
    // All states are there, and the last two by digest only.
    let history = world.run(["history", "acme/hr", "--format", "json"]).ok().json();
    let states: Vec<&str> = history.as_array().unwrap().iter().map(|row| row["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["draft", "testing", "published", "deprecated", "archived"]);
    let archived = history[4]["digest"].as_str().unwrap();
    assert_eq!(inspect(&world, &format!("acme/hr@{archived}"))["status"], "archived");
    world.run(["fsck"]).ok();
}

#[test]
fn latest_is_the_highest_published_version() {
    let world = World::new();
    let at = |name: &str| digest(&world, &format!("acme/hr:{name}"));
    let (second, first) = (publish(&world, "2.0.0"), publish(&world, "1.5.0"));
    assert_eq!(at("latest"), Some(second.clone()), "latest went backwards");
    let prerelease = publish(&world, "3.0.0-rc.1");
    assert_eq!((at("3.0.0-rc.1"), at("latest")), (Some(prerelease), Some(second)));
    promote(&world, "acme/hr:2.0.0", "deprecated", &[]).ok();
    assert_eq!(at("latest"), Some(first), "1.5.0 is the highest that is still published");
    promote(&world, "acme/hr:1.5.0", "deprecated", &[]).ok();
    assert_eq!(at("latest"), None);
    let third = publish(&world, "3.0.0");
    assert_eq!(at("latest"), Some(third));
}

#[test]
fn latest_of_another_skill_in_one_repository_stays() {
    let world = World::new();
    let first = publish(&world, "1.0.0");
    world.skill("legal", "2.0.0");
    world.build("legal");
    world.run(["tag", "acme/legal:2.0.0-draft", "acme/hr:2.0.0-draft", "--load=never"]).ok();
    promote(&world, "acme/hr:2.0.0-draft", "testing", &[]).ok();
    promote(&world, "acme/hr:2.0.0-testing", "published", &[]).ok();
    assert_eq!(digest(&world, "acme/hr:latest"), Some(first));
}

#[test]
fn every_image_of_an_index_is_promoted() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.run(["build", "hr", "--load=never", "--platform", "linux/amd64,linux/arm64"]).ok();
    let draft = inspect(&world, "acme/hr:1.0.0-draft");
    assert_eq!(draft["platforms"], json!(["linux/amd64", "linux/arm64"]));
    let promoted = promote(&world, "acme/hr:1.0.0-draft", "testing", &[]).ok().json();
    let top = manifest(&world, promoted["digest"].as_str().unwrap());
    let before = manifest(&world, draft["digest"].as_str().unwrap());
    assert_eq!(top["annotations"][STATUS], "testing");
    for (new, old) in top["manifests"].as_array().unwrap().iter().zip(before["manifests"].as_array().unwrap()) {
        assert_eq!(new["platform"], old["platform"]);
        let (new, old) =
            (manifest(&world, new["digest"].as_str().unwrap()), manifest(&world, old["digest"].as_str().unwrap()));
        assert_eq!(new["annotations"][STATUS], "testing");
        assert_eq!((&new["config"], &new["layers"]), (&old["config"], &old["layers"]));
    }
    world.run(["fsck"]).ok();
    world.run(["prune", "--grace", "0"]).ok();
    assert_eq!(digest(&world, "acme/hr:1.0.0-draft"), None, "superseded");
    world.run(["fsck"]).ok();
    assert_eq!(inspect(&world, "acme/hr:1.0.0-testing")["status"], "testing");
}

#[test]
fn a_published_tag_keeps_its_content() {
    let world = World::new();
    let published = publish(&world, "1.0.0");
    world.write("hr/notes.md", "more");
    let built = |flags: &[&str]| world.run(["build", "hr", "--load=never"].iter().chain(flags));
    for tag in ["1.0.0", "acme/hr:1.0.0"] {
        let refused = built(&["--tag", tag]).fails(2);
        assert!(refused.stderr.contains("acme/hr:1.0.0 is published with "), "{refused}");
        assert!(refused.stderr.contains("--force"), "{refused}");
    }
    built(&[]).ok();
    world.run(["tag", "acme/hr:1.0.0-draft", "acme/hr:1.0.0", "--load=never"]).fails(2);
    // Nor does it go back to an earlier state of its own content.
    world.run(["tag", "acme/hr:1.0.0-testing", "acme/hr:1.0.0", "--load=never"]).fails(2);
    promote(&world, "acme/hr:1.0.0-draft", "testing", &[]).ok();
    promote(&world, "acme/hr:1.0.0-testing", "published", &[]).fails(2);
    assert_eq!(digest(&world, "acme/hr:1.0.0"), Some(published.clone()));
    let forced = promote(&world, "acme/hr:1.0.0-testing", "published", &["--force"]).ok().json();
    assert_eq!(digest(&world, "acme/hr:1.0.0").as_deref(), forced["digest"].as_str());
    world.run(["tag", &published, "acme/hr:1.0.0", "--load=never", "--force"]).ok();
    assert_eq!(digest(&world, "acme/hr:1.0.0"), Some(published));
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_would() {
    let world = World::new();
    publish(&world, "1.0.0");
    let before = index(&world);
    let planned = promote(&world, "acme/hr:1.0.0", "deprecated", &["--dry-run"]).ok().json();
    assert_eq!(index(&world), before);
    let digest = &planned["digest"];
    let steps = json!([
        {"action": "write", "tag": null, "digest": digest},
        {"action": "untag", "tag": "latest"},
        {"action": "tag", "tag": "1.0.0", "digest": digest},
    ]);
    assert_eq!(planned["steps"], steps);
    assert_eq!(promote(&world, "acme/hr:1.0.0", "deprecated", &[]).ok().json()["digest"], *digest);
}

#[test]
fn an_archived_image_is_held_by_its_tag_or_goes() {
    let world = World::new();
    for (version, keep) in [("1.0.0", None), ("2.0.0", Some("archive-2"))] {
        publish(&world, version);
        promote(&world, &format!("acme/hr:{version}"), "deprecated", &[]).ok();
        let flags: Vec<&str> = keep.iter().flat_map(|tag| ["--keep-tag", tag]).collect();
        let archived = promote(&world, &format!("acme/hr:{version}"), "archived", &flags).ok();
        assert_eq!(archived.json()["reference"], json!(keep.map(|tag| format!("acme/hr:{tag}"))));
        assert_eq!(archived.stderr.contains("--keep-tag"), keep.is_none(), "{archived}");
    }
    assert!(
        promote(&world, "acme/hr:1.0.0-draft", "testing", &["--keep-tag", "x"]).fails(2).stderr.contains("--keep-tag")
    );
    world.run(["prune", "--grace", "0"]).ok();
    let history = world.run(["history", "acme/hr", "--format", "json"]).ok().json();
    let left: Vec<_> = history.as_array().unwrap().iter().map(|row| (&row["version"], &row["status"])).collect();
    // Of the first version its highest state with a name stays.
    assert_eq!(left, [(&json!("1.0.0"), &json!("testing")), (&json!("2.0.0"), &json!("archived"))]);
}

#[test]
fn what_is_in_the_image_must_be_a_skill() {
    let skill = "---\nname: theirs\ndescription: Does it.\n---\nWords.\n";
    for (file, text, status) in
        [("README.md", "no skill", 1), ("SKILL.md", "no front matter", 1), ("SKILL.md", skill, 0)]
    {
        let world = World::new();
        world.skill("hr", "1.0.0");
        world.build("hr");
        let name = foreign::draft(&world, &foreign::image(&world, &[(file, text)]));
        let before = index(&world);
        let ran = promote(&world, name, "testing", &[]);
        assert_eq!(ran.status, Some(status), "{ran}");
        assert_eq!(index(&world) == before, status == 1, "{ran}");
        let left = fs::read_dir(world.store().join(".tmp")).unwrap().count();
        assert_eq!(left, 0, "what was unpacked is still there");
    }
}

#[test]
fn what_is_in_every_image_of_an_index_must_be_a_skill() {
    let skill = "---\nname: theirs\ndescription: Does it.\n---\nWords.\n";
    let other = "---\nname: theirs\ndescription: Does it otherwise.\n---\nWords.\n";
    let statement = ("application/vnd.in-toto+json", "unknown/unknown");
    let arm = (foreign::LAYER, "linux/arm64");
    for (second, (media_type, platform), status) in [
        (("SKILL.md", skill), arm, 0),
        (("SKILL.md", other), arm, 0),
        (("SKILL.md", "no front matter"), arm, 1),
        (("README.md", "no skill"), arm, 1),
        // Nobody runs what buildkit adds; what somebody may run is no such thing, whatever it is called.
        (("README.md", "no skill"), statement, 0),
        (("README.md", "no skill"), (statement.0, "linux/arm64"), 2),
    ] {
        let world = World::new();
        world.skill("hr", "1.0.0");
        world.build("hr");
        let images = [
            ("linux/amd64", foreign::image(&world, &[("SKILL.md", skill)])),
            (platform, foreign::image_of(&world, &[second], media_type)),
        ];
        let name = foreign::draft(&world, &foreign::index(&world, &images));
        let before = index(&world);
        let ran = promote(&world, name, "testing", &[]);
        assert_eq!(ran.status, Some(status), "{second:?} {platform}: {ran}");
        assert_eq!(index(&world) == before, status != 0, "{ran}");
        assert_eq!(ran.stdout.contains("(in linux/arm64)"), status == 1, "{ran}");
        assert_eq!(fs::read_dir(world.store().join(".tmp")).unwrap().count(), 0);
    }
}

#[test]
fn what_has_no_state_or_version_is_not_promoted() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    let retouch = |key: &str, value: Option<&str>| {
        let digest = digest(&world, "acme/hr:1.0.0-draft").unwrap();
        let mut document = manifest(&world, &digest);
        match value {
            Some(value) => document["annotations"][key] = json!(value),
            None => drop(document.as_object_mut().unwrap().remove(key)),
        }
        let bytes = document.to_string();
        let hex = hex::encode(Sha256::digest(&bytes));
        fs::write(world.store().join("blobs/sha256").join(&hex), &bytes).unwrap();
        let name = json!({"org.opencontainers.image.ref.name": "acme/odd:1"});
        let entry = json!({"mediaType": document["mediaType"], "digest": format!("sha256:{hex}"), "size": bytes.len(), "annotations": name});
        let mut index: Value = serde_json::from_slice(&index(&world)).unwrap();
        let entries = index["manifests"].as_array_mut().unwrap();
        entries.retain(|other| other["annotations"] != name);
        entries.push(entry);
        fs::write(world.store().join("index.json"), index.to_string()).unwrap();
    };
    let cases = [
        ("annotations", None, "manifest has no annotations"),
        (STATUS, Some("retired"), "parsing current state \"retired\""),
        ("org.opencontainers.image.version", Some("../x"), "is no semantic version"),
        ("org.opencontainers.image.version", Some("latest"), "is no semantic version"),
    ];
    for (key, value, message) in cases {
        retouch(key, value);
        let refused = promote(&world, "acme/odd:1", "testing", &[]).fails(2);
        assert!(refused.stderr.contains(message), "{refused}");
    }
}
