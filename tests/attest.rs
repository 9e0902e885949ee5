//! Attestations in a store, without the network: what is stated, who is believed, and what stays.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::git::has_git;
use crate::support::{Ran, World};

const DRAFT: &str = "acme/hr:1.0.0-draft";

/// A world with a skill that declares what it needs, and the keys `acme` and `other`.
fn world() -> World {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.write("hr/scripts/report.py", "# /// script\n# dependencies = [\"requests==2.32.3\", \"rich\"]\n# ///\n");
    // Known by its first line.
    world.write(
        "hr/scripts/tool",
        "#!/usr/bin/env -S uv run --script\n# /// script\n# dependencies = [\"httpx==0.27.0\"]\n# ///\n",
    );
    world.write("hr/web/package.json", r#"{"dependencies": {"a": "1.0.0"}, "devDependencies": {"b": "^2"}}"#);
    for name in ["acme", "other"] {
        run(&world, &["key", "generate", name]).ok();
    }
    world
}

fn run(world: &World, args: &[&str]) -> Ran {
    world.command(args).env("COSIGN_PASSWORD", "secret").output().unwrap().into()
}

fn build(world: &World, flags: &[&str]) -> Value {
    let args = [&["build", "hr", "--load=never", "--format", "json", "--key", "acme.key"], flags].concat();
    run(world, &args).ok().json()
}

fn list(world: &World, flags: &[&str]) -> Value {
    run(world, &[&["inspect", "--attestations", DRAFT, "--format", "json"], flags].concat()).ok().json()
}

fn predicate(world: &World, flags: &[&str]) -> Ran {
    run(world, &[&["inspect", "--attestations", DRAFT, "--predicate"], flags].concat())
}

fn field(list: &Value, name: &str) -> Vec<Value> {
    list["attestations"].as_array().unwrap().iter().map(|one| one[name].clone()).collect()
}

#[test]
fn what_is_built_is_attested_and_read_back() {
    let world = world();
    let built = build(&world, &["--sbom=spdx,cyclonedx", "--provenance", "--builder-id", "https://ci.example/1"]);
    assert_eq!(field(&built, "name"), ["spdx", "cyclonedx", "provenance"]);
    assert_eq!(field(&built, "added"), [true, true, true]);
    let unverified = list(&world, &[]);
    assert_eq!(field(&unverified, "verified"), [false, false, false]);
    assert_eq!(field(&unverified, "subjects"), vec![json!([built["digest"]]); 3]);
    let id = run(&world, &["key", "show", "acme.pub", "--format", "json"]).ok().json()["id"].clone();
    let verified = list(&world, &["--key", "other.pub", "--key", "acme.pub"]);
    assert_eq!(field(&verified, "key"), vec![id; 3]);
    assert_eq!(field(&verified, "predicate"), field(&unverified, "predicate"));
    // The layer, and nothing else: every file, with the digest that sha256sum prints.
    let spdx = predicate(&world, &["--type", "spdxjson", "--key", "acme.pub"]).ok().json();
    let files: Vec<&str> =
        spdx["files"].as_array().unwrap().iter().map(|file| file["fileName"].as_str().unwrap()).collect();
    let want = [
        "./SKILL.md",
        "./scripts/report.py",
        "./scripts/run.sh",
        "./scripts/tool",
        "./skill.yaml",
        "./web/package.json",
    ];
    assert_eq!(files, want);
    // printf '#!/bin/sh\necho run\n' | sha256sum
    let sum = "a4e0317eafab5cf1bc4a0041c7c8aeb6ece56fe72e7b2b3017a8a6574614cd35";
    assert_eq!(spdx["files"][2]["checksums"][1]["checksumValue"], sum);
    let purls = |document: &Value| {
        let text = document.to_string();
        ["pypi/requests@2.32.3\"", "pypi/rich\"", "pypi/httpx@0.27.0\"", "npm/a@1.0.0\"", "npm/b\""]
            .map(|purl| text.contains(&format!("pkg:{purl}")))
    };
    assert_eq!(purls(&spdx), [true; 5]);
    assert_eq!(purls(&predicate(&world, &["--type", "cyclonedx"]).ok().json()), [true; 5]);
    // A directory is nobody's business but this machine's.
    let provenance = predicate(&world, &["--type", "provenance"]).ok().json();
    assert_eq!(provenance["buildDefinition"]["externalParameters"], json!({}));
    assert_eq!(provenance["runDetails"]["builder"]["id"], "https://ci.example/1");
    assert!(provenance["runDetails"]["metadata"]["startedOn"].is_null());
    // Which one is meant has to be said, and by whom is only believed where a key says it.
    for (flags, hint) in
        [(&[][..], "choose with --type and --key, or take"), (&["--key", "acme.pub"], "choose with --type, or take")]
    {
        let differ = predicate(&world, flags).fails(2).stderr;
        assert!(differ.contains("has 3 attestations, which differ\n") && differ.contains(hint), "{differ}");
    }
    let refused = predicate(&world, &["--type", "spdx", "--key", "other.pub"]).fails(1);
    assert!(refused.stdout.is_empty() && refused.stderr.contains("not by the key"), "{refused}");
    assert!(predicate(&world, &["--type", "vuln"]).fails(2).stderr.contains("has no attestation of the type"));
    let listed = run(&world, &["inspect", "--attestations", DRAFT, "--key", "other.pub", "--format", "json"]).fails(1);
    assert_eq!(field(&listed.json(), "verified"), [false, false, false]);
    let none = "error: no attestation of acme/hr:1.0.0-draft is verified as signed by sha256:";
    assert!(listed.stderr.starts_with(none), "{listed}");
    run(&world, &["inspect", "--attestations", DRAFT, "--key", "other.pub", "--key", "acme.pub"]).ok();
    run(&world, &["inspect", "--attestations", DRAFT, "--key", "acme.pub", "--type", "vuln"]).fails(1);
    let text = run(&world, &["inspect", "--attestations", DRAFT]).ok().stdout;
    assert!(text.lines().nth(1).unwrap().starts_with("spdx  ") && text.contains("not verified"), "{text}");
    // They are no names, and no signatures.
    assert_eq!(world.run(["list", "--format", "json"]).ok().json().as_array().unwrap().len(), 1);
    let unsigned = run(&world, &["verify", DRAFT, "--key", "acme.pub"]).fails(1);
    assert!(unsigned.stderr.contains("and it has no signature"), "{unsigned}");
}

#[test]
fn the_same_image_gives_the_same_bytes_and_is_attested_once() {
    let worlds = [world(), world()];
    let print =
        |world: &World, flags: &[&str]| run(world, &[&["attest", DRAFT, "--print"], flags].concat()).ok().stdout;
    for form in ["spdx", "cyclonedx"] {
        for world in &worlds {
            run(world, &["build", "hr", "--load=never"]).ok();
        }
        let [one, other] = worlds.each_ref().map(|world| print(world, &["--sbom", form]));
        assert_eq!(one, other);
        build(&worlds[0], &[&*format!("--sbom={form}")]);
        assert_eq!(predicate(&worlds[0], &["--type", form]).ok().stdout, one);
    }
    let again =
        ["attest", DRAFT, "--key", "acme.key", "--sbom", "spdx,cyclonedx", "--sbom", "spdx", "--format", "json"];
    let attested = run(&worlds[0], &again).ok().json();
    assert_eq!(field(&attested, "added"), [false, false]);
    let records = run(&worlds[0], &["audit", "show", "--action", "attest", "--format", "json"]).ok().json();
    let last = records.as_array().unwrap().last().unwrap();
    assert!(last["result"] == "ok" && last["digest"].is_string() && last.get("where").is_none(), "{last}");
    // Others may state the same.
    run(&worlds[0], &["attest", DRAFT, "--key", "other.key", "--sbom", "spdx"]).ok();
    assert_eq!(list(&worlds[0], &[])["attestations"].as_array().unwrap().len(), 3);
    for key in ["acme.pub", "other.pub"] {
        predicate(&worlds[0], &["--type", "spdx", "--key", key]).ok();
    }
    let dated = worlds[0]
        .command(["attest", DRAFT, "--print", "--provenance"])
        .env("SOURCE_DATE_EPOCH", "1767225600")
        .output()
        .unwrap();
    assert_eq!(Ran::from(dated).ok().json()["runDetails"]["metadata"]["startedOn"], "2026-01-01T00:00:00Z");
}

#[test]
fn an_index_and_each_of_its_images_are_attested() {
    let world = world();
    let built = build(&world, &["--platform", "linux/amd64,linux/arm64", "--sbom", "--provenance"]);
    let subjects = field(&built, "subject");
    assert_eq!(subjects.len(), 6);
    assert_eq!(subjects[0], built["digest"]);
    let instance = subjects[2].as_str().unwrap();
    let index: Value = serde_json::from_slice(&fs::read(world.store().join("index.json")).unwrap()).unwrap();
    let of_instance =
        |entry: &&Value| entry.to_string().matches(instance).count() == 1 && entry["artifactType"].is_string();
    assert_eq!(index["manifests"].as_array().unwrap().iter().filter(of_instance).count(), 2);
    let spdx = predicate(&world, &["--type", "spdx"]).ok().json();
    let purl = format!("pkg:oci/hr@{}", built["digest"].as_str().unwrap().replace(':', "%3A"));
    assert_eq!(spdx["packages"][0]["externalRefs"][0]["referenceLocator"], purl);
    let provenance = predicate(&world, &["--type", "provenance"]).ok().json();
    let parameters = &provenance["buildDefinition"]["externalParameters"];
    assert_eq!(parameters["platforms"], json!(["linux/amd64", "linux/arm64"]));
}

#[test]
fn what_cannot_be_read_is_a_warning_and_everything_else_is_there() {
    let world = world();
    world.write("hr/package.json", "{");
    world.write("hr/requirements.txt", "requests==2.32.3\n???\n");
    world.write("hr/scripts/large.py", "#\n".repeat(1 << 20));
    let built = run(&world, &["build", "hr", "--load=never", "--sbom", "--key", "acme.key"]).ok();
    for warning in ["package.json: it is no JSON", "requirements.txt: line 2", "scripts/large.py: it has 2097152 bytes"]
    {
        assert!(built.stderr.contains(&format!("warning: {warning}")), "{built}");
    }
    let spdx = predicate(&world, &["--type", "spdx"]).ok().json();
    assert_eq!(spdx["files"].as_array().unwrap().len(), 9);
    assert_eq!(spdx.to_string().matches("what it declares is not all known").count(), 3);
}

#[test]
fn anything_may_be_stated_of_a_type_and_read_alike_by_all() {
    let world = world();
    run(&world, &["build", "hr", "--load=never"]).ok();
    let attest = |file: &str, kind: &str| {
        run(&world, &["attest", DRAFT, "--key", "acme.key", "--predicate", file, "--type", kind, "--format", "json"])
    };
    world.write("review.json", r#"{"Data": 1, "data": [2]}"#);
    let attested = attest("review.json", "https://acme.example/review/v1").ok().json();
    assert_eq!(field(&attested, "name"), [Value::Null]);
    assert_eq!(attest("review.json", "vuln").ok().json()["attestations"][0]["name"], "vuln");
    let stated = predicate(&world, &["--type", "https://acme.example/review/v1", "--key", "acme.pub"]).ok().json();
    assert_eq!(stated, json!({"Data": 1, "data": [2]}));
    world.write("twice.json", r#"{"a": {"b": 1, "b": 2}}"#);
    world.write("broken.json", "{");
    for (file, kind, why) in [
        ("review.json", "https://sigstore.dev/cosign/sign/v1", "is the type of signatures"),
        ("review.json", "review", "is neither a URI nor one of"),
        ("twice.json", "custom", "the key \"b\" is there twice"),
        ("broken.json", "custom", "it is no JSON"),
        ("missing.json", "custom", "Reading missing.json"),
    ] {
        let refused = attest(file, kind).fails(2);
        assert!(refused.stderr.contains(why), "{refused}");
    }
    for (args, why) in [
        (&["attest", DRAFT, "--key", "acme.key"][..], "were not provided"),
        (&["attest", DRAFT, "--sbom", "spdx"], "--key <FILE>"),
        (&["attest", DRAFT, "--print", "--sbom", "spdx,cyclonedx"], "--print prints one statement"),
        (&["build", "hr", "--sbom"], "--key <FILE>"),
        (&["build", "hr", "--key", "acme.key"], "--key signs what is attested, and nothing is"),
        (&["inspect", DRAFT, "--key", "acme.pub"], "--attestations"),
        (&["attest", "acme/none:1", "--key", "acme.key", "--sbom", "spdx"], "acme/none:1"),
    ] {
        let refused = run(&world, args).fails(2);
        assert!(refused.stderr.contains(why), "{refused}");
    }
}

#[test]
fn attestations_stay_as_long_as_what_they_are_of_and_count_for_that_only() {
    let world = world();
    build(&world, &["--sbom", "--provenance"]);
    let blobs = || fs::read_dir(world.store().join("blobs/sha256")).unwrap().count();
    let before = blobs();
    world.run(["prune", "--grace", "0"]).ok();
    assert_eq!(blobs(), before);
    world.run(["fsck"]).ok();
    // A promotion makes another manifest.
    world.run(["promote", DRAFT, "--to", "testing", "--local", "--load=never"]).ok();
    let promoted = run(&world, &["inspect", "--attestations", "acme/hr:1.0.0-testing", "--format", "json"]).ok().json();
    assert_eq!(promoted["attestations"], json!([]));
    // Altered, nothing is concluded from it.
    let own = field(&list(&world, &[]), "digest")[0].as_str().unwrap().replace(':', "/");
    let manifest: Value = serde_json::from_slice(&fs::read(world.store().join("blobs").join(own)).unwrap()).unwrap();
    let bundle = manifest["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
    let path = world.store().join("blobs").join(bundle);
    let text = fs::read_to_string(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, text.replacen("in-toto", "In-toto", 1)).unwrap();
    assert!(run(&world, &["inspect", "--attestations", DRAFT]).fails(2).stderr.contains("is damaged"));
    fs::write(&path, text).unwrap();
    world.run(["rm", "-f", DRAFT, "acme/hr:1.0.0-testing"]).ok();
    world.run(["prune", "--grace", "0"]).ok();
    assert_eq!(blobs(), 0);
}

#[test]
fn what_is_built_from_git_names_the_commit() {
    if !has_git() {
        return;
    }
    let world = world();
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "core.hooksPath=/dev/null"]);
        let done = command.args(args).current_dir(world.path("hr")).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "m"]);
    git(&["tag", "v1"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let url = format!("file://{}", world.path("hr").display());
    let args = ["build", &format!("{url}#v1"), "--load=never", "--provenance", "--key", "acme.key", "--format", "json"];
    let path = std::env::var_os("PATH").unwrap();
    let built = world.command(args).env("COSIGN_PASSWORD", "secret").env("PATH", path).output().unwrap();
    let built = Ran::from(built).ok().json();
    let name = built[0]["reference"].as_str().unwrap();
    let shown = run(&world, &["inspect", "--attestations", name, "--predicate", "--key", "acme.pub"]).ok().json();
    let build = &shown["buildDefinition"];
    assert_eq!(build["externalParameters"]["source"], json!({"uri": url, "ref": "v1"}));
    let want = json!([{"uri": format!("git+{url}@v1"), "digest": {"gitCommit": commit}}]);
    assert_eq!(build["resolvedDependencies"], want);
    // As far as the image says it itself.
    let told = run(&world, &["attest", name, "--print", "--provenance"]).ok().json();
    assert_eq!(told["buildDefinition"]["resolvedDependencies"][0]["digest"]["gitCommit"], json!(commit));
}
