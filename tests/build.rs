//! `build`: what goes in, what comes out, and what is refused.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::Value;

use crate::support::World;

/// Digests of the skill that [`golden`] writes. They change only when the format does, which every user would notice:
/// the same skill would get new digests.
const GOLDEN_MANIFEST: &str = "sha256:67bdd04fdfa3ce0a4848ac9251c1b6648573cb40e402546d1336d4b1fca7809a";
const GOLDEN_CONFIG: &str = "sha256:f108018788a1b2983ee62787e9c400552d235fdf3ff14eb4ec8f8e8c37354bbf";

fn golden(world: &World, directory: &str) {
    let card = "apiVersion: skillimage.io/v1alpha1\nkind: SkillCard\nmetadata:\n  name: golden\n  namespace: acme\n  version: 1.2.3\n  description: Never changes.\n  license: Apache-2.0\n  tags: [a, b]\n  authors:\n    - name: Ada\n      email: ada@example.com\n";
    world.write(&format!("{directory}/skill.yaml"), card);
    world.write(
        &format!("{directory}/SKILL.md"),
        "---\nname: golden\ndescription: Never changes.\n---\nBody of four words.\n",
    );
    world.write(&format!("{directory}/references/deep/a.md"), "text\n".repeat(1000));
    world.write(&format!("{directory}/scripts/run"), "#!/bin/sh\n");
    fs::set_permissions(world.path(format!("{directory}/scripts/run")), fs::Permissions::from_mode(0o750)).unwrap();
}

fn build_json(world: &World, directory: &str, more: &[&str]) -> Value {
    let mut args = vec!["build", directory, "--load=never", "--format", "json"];
    args.extend(more);
    world.run(args).ok().json()
}

#[test]
fn the_golden_digests_hold() {
    let world = World::new();
    golden(&world, "one/golden");
    let built = build_json(&world, "one/golden", &[]);
    assert_eq!((built["digest"].as_str(), built["image_id"].as_str()), (Some(GOLDEN_MANIFEST), Some(GOLDEN_CONFIG)));
    assert_eq!(built["reference"], "acme/golden:1.2.3-draft");
}

#[test]
fn mtimes_modes_umask_and_order_of_creation_do_not_matter() {
    let world = World::new();
    golden(&world, "one/golden");
    // The same, made in another order, with other modes and much older.
    for name in ["scripts", "references/deep"] {
        fs::create_dir_all(world.path("two/golden").join(name)).unwrap();
    }
    for name in ["scripts/run", "references/deep/a.md", "SKILL.md", "skill.yaml"] {
        let to = world.path("two/golden").join(name);
        fs::write(&to, fs::read(world.path("one/golden").join(name)).unwrap()).unwrap();
        let mode = if name == "scripts/run" { 0o711 } else { 0o600 };
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
        fs::File::open(&to).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    fs::set_permissions(world.path("two/golden/scripts"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(build_json(&world, "two/golden", &[])["digest"], build_json(&world, "one/golden", &[])["digest"]);
}

#[test]
fn a_round_trip_through_a_tar_file_changes_nothing() {
    let world = World::new();
    golden(&world, "one/golden");
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all("golden", world.path("one/golden")).unwrap();
    let bytes = archive.into_inner().unwrap();
    tar::Archive::new(&bytes[..]).unpack(world.path("two")).unwrap();
    assert_eq!(build_json(&world, "two/golden", &[])["digest"], build_json(&world, "one/golden", &[])["digest"]);
}

#[test]
fn a_timestamp_changes_the_manifest_and_not_the_image_id() {
    let world = World::new();
    golden(&world, "golden");
    let plain = build_json(&world, "golden", &[]);
    let dated = build_json(&world, "golden", &["--timestamp", "2026-01-02T03:04:05Z"]);
    assert_eq!(plain["image_id"], dated["image_id"]);
    assert_ne!(plain["digest"], dated["digest"]);
    let inspected = world.run(["inspect", "acme/golden:1.2.3-draft", "--format", "json"]).ok().json();
    assert_eq!(inspected["created"], "2026-01-02T03:04:05Z");
    let epoch: Value = {
        let output =
            world.command(["build", "golden", "--load=never", "--format=json"]).env("SOURCE_DATE_EPOCH", "1").output();
        serde_json::from_slice(&output.unwrap().stdout).unwrap()
    };
    assert_ne!(epoch["layer"], plain["layer"]);
}

#[test]
fn annotations_and_labels_say_what_the_card_says() {
    let world = World::new();
    golden(&world, "golden");
    let built = build_json(&world, "golden", &[]);
    let inspected = world.run(["inspect", "acme/golden:1.2.3-draft", "--format", "json"]).ok().json();
    let expected = [
        ("io.skillimage.status", "draft"),
        ("io.skillimage.name", "golden"),
        ("io.skillimage.namespace", "acme"),
        ("io.skillimage.tags", "[\"a\",\"b\"]"),
        ("io.skillimage.wordcount", "4"),
        ("org.opencontainers.image.title", "golden"),
        ("org.opencontainers.image.description", "Never changes."),
        ("org.opencontainers.image.version", "1.2.3"),
        ("org.opencontainers.image.authors", "Ada <ada@example.com>"),
        ("org.opencontainers.image.licenses", "Apache-2.0"),
        ("org.opencontainers.image.vendor", "acme"),
        ("org.opencontainers.image.created", "1970-01-01T00:00:00Z"),
    ];
    let annotations = inspected["annotations"].as_object().unwrap();
    for (key, value) in expected {
        assert_eq!(annotations[key], value, "{key}");
    }
    assert_eq!(annotations.len(), expected.len());
    let config = blob(&world, built["image_id"].as_str().unwrap());
    let labels: BTreeSet<&String> = config["config"]["Labels"].as_object().unwrap().keys().collect();
    assert!(!labels.iter().any(|key| key.ends_with(".status") || key.ends_with(".created")), "{labels:?}");
    assert!(config.get("created").is_none() && config.get("history").is_none());
    assert_eq!((&config["architecture"], &config["os"]), (&"amd64".into(), &"linux".into()));
}

fn blob(world: &World, digest: &str) -> Value {
    let hex = digest.strip_prefix("sha256:").unwrap();
    serde_json::from_slice(&fs::read(world.store().join("blobs/sha256").join(hex)).unwrap()).unwrap()
}

#[test]
fn a_skill_md_alone_is_enough() {
    let world = World::new();
    world.write("greet/SKILL.md", "---\nname: greet\ndescription: Greets.\nmetadata:\n  version: \"2.1\"\n---\nHi.\n");
    let built = build_json(&world, "greet", &[]);
    assert_eq!(built["reference"], "local/greet:2.1.0-draft");
    assert_eq!(built["files"], 2, "SKILL.md and the card that was derived");
}

#[test]
fn tags_and_references_name_the_image() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    for (tag, reference) in
        [("mine", "acme/hr:mine"), ("quay.io/o/hr:1", "quay.io/o/hr:1"), ("localhost/x/y", "x/y:latest")]
    {
        assert_eq!(build_json(&world, "hr", &["-t", tag])["reference"], reference);
    }
    world.run(["build", "hr", "--load=never", "-t", "-bad-"]).fails(2);
    let error = world.run(["build", "hr", "--load=never", "--tag=a b"]).fails(2);
    assert!(error.stderr.starts_with("error: Packing hr: invalid reference \"a b\": a tag is"), "{error}");
}

/// The success lines that scripts of the Go tool parse.
#[test]
fn the_first_lines_are_those_of_the_go_tool() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    let out = world.build("./hr").stdout;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "Built ./hr");
    assert!(lines[1].starts_with("Digest: sha256:") && lines[1].len() == "Digest: sha256:".len() + 64, "{out}");
    assert!(lines[2].starts_with("Reference: localhost/acme/hr:1.0.0-draft   3 files, "), "{out}");
}

#[test]
fn what_is_no_skill_is_refused_and_the_store_untouched() {
    let world = World::new();
    world.write("file", "");
    fs::create_dir(world.path("empty")).unwrap();
    let cases = [
        ("missing", "error: Packing missing: No such file or directory"),
        ("file", "error: Packing file: it is a file, and a directory with SKILL.md is expected"),
        ("empty", "error: Packing empty: it has no SKILL.md, and a directory with SKILL.md is expected"),
    ];
    for (path, message) in cases {
        let ran = world.run(["build", path, "--load=never"]).fails(2);
        assert!(ran.stderr.starts_with(message), "{ran}");
        assert_eq!(ran.stdout, "");
    }
    assert_eq!(world.run(["list"]).ok().stdout, "No images found in local store.\n");
}

#[test]
fn five_mistakes_are_five_findings_and_nothing_is_built() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.write(
        "hr/skill.yaml",
        "apiVersion: skillimage.io/v1\nkind: Card\nmetadata:\n  name: H_R\n  namespace: acme\n  version: 1\n  description: ''\n",
    );
    let ran = world.run(["build", "hr", "--load=never", "--format", "json"]).fails(1);
    let errors: Vec<Value> =
        ran.json()["findings"].as_array().unwrap().iter().filter(|f| f["severity"] == "error").cloned().collect();
    assert!(errors.len() >= 5, "{ran}");
    assert!(errors.iter().all(|f| f["line"].is_u64() && f["column"].is_u64() && f["remedy"] != ""), "{ran}");
    assert_eq!(fs::read_dir(world.store().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn credentials_stop_the_build_until_decided() {
    for file in [".env", ".npmrc", ".netrc", "id_rsa", ".ssh/config"] {
        let world = World::new();
        world.skill("hr", "1.0.0");
        world.write(&format!("hr/{file}"), "secret\n");
        let ran = world.run(["build", "hr", "--load=never"]).fails(2);
        let named = file.split('/').next().unwrap();
        assert!(ran.stderr.starts_with("error: Packing hr: ") && ran.stderr.contains(named), "{ran}");
        assert!(ran.stderr.contains("\nhint: ") && ran.stderr.contains(".skillignore"), "{ran}");
        world.write("hr/.skillignore", format!("{named}\n"));
        world.build("hr");
    }
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.write("hr/.env", "EXAMPLE=1\n");
    world.run(["build", "hr", "--load=never", "--include", ".env"]).ok();
}

/// A hostile repository must not run anything: the builder never starts git.
#[test]
fn a_git_directory_is_left_out_and_its_configuration_is_not_run() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    let proof = world.path("proof");
    let command = format!("touch {}", proof.display());
    world.write(
        "hr/.git/config",
        format!("[core]\n\tfsmonitor = {command}\n\tsshCommand = {command}\n[alias]\n\tx = !{command}\n"),
    );
    world.write("hr/.git/HEAD", "ref: refs/heads/main\n");
    let output =
        world.command(["build", "hr", "--load=never"]).env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("(1 left out)"));
    assert!(!proof.exists());
}

#[test]
fn a_link_that_leaves_names_both_ends() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    symlink("/etc/passwd", world.path("hr/scripts/latest")).unwrap();
    let ran = world.run(["build", "hr", "--load=never"]).fails(2);
    assert!(ran.stderr.starts_with("error: Packing hr: scripts/latest -> /etc/passwd leaves the skill\n"), "{ran}");
    assert!(ran.stderr.contains("hint: copy the file into the skill"), "{ran}");
}

#[test]
fn limits_name_the_flag_that_raises_them() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    let cases = [("--max-files=2", "--max-files"), ("--max-size=10", "--max-size"), ("--max-depth=0", "--max-depth")];
    for (flag, named) in cases {
        let ran = world.run(["build", "hr", "--load=never", flag]).fails(2);
        assert!(
            ran.stderr.contains("exceeds the limit of") && ran.stderr.contains(&format!("hint: raise it with {named}")),
            "{ran}"
        );
    }
}

#[test]
fn redhat_media_types_are_built_and_not_loaded() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.run(["build", "hr", "--load=never", "--media-type", "RedHat"]).ok();
    let index = fs::read_to_string(world.store().join("index.json")).unwrap();
    let digest = index.split("\"digest\":\"").nth(1).unwrap().split('"').next().unwrap();
    let manifest = blob(&world, digest);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.redhat.agentskill.config.v1+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.redhat.agentskill.layer.v1.tar+gzip");
    let wrong = world.run(["build", "hr", "--media-type", "x"]).fails(2);
    assert_eq!(wrong.stderr, "error: unknown media type profile: \"x\" (valid: standard, redhat)\n");
}

#[test]
fn without_skopeo_the_store_is_filled_and_one_line_says_why() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    let ran = world.run(["build", "hr"]).ok();
    assert_eq!(ran.stderr.lines().count(), 1, "{ran}");
    assert!(ran.stderr.starts_with("Not loaded: ") && ran.stderr.contains("is not installed"), "{ran}");
    assert!(world.run(["list"]).ok().stdout.contains("1.0.0-draft"));
    let always = world.run(["build", "hr", "--load=always"]).fails(2);
    assert!(
        always.stderr.starts_with("error: Loading localhost/acme/hr:1.0.0-draft into containers-storage: "),
        "{always}"
    );
}

/// A reader who types what the documents show must see what they show.
#[test]
fn the_documents_show_true_digests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let world = World::new();
    world.run(["init", "code-reviewer"]).ok();
    let started = build_json(&world, "code-reviewer", &[])["digest"].as_str().unwrap().to_owned();
    let hello = build_json(&world, root.join("examples/hello-world").to_str().unwrap(), &[]);
    let hello = hello["digest"].as_str().unwrap();
    for (document, digest) in
        [("README.md", &*started), ("README.md", hello), ("docs/format.md", hello), ("docs/json.md", hello)]
    {
        let text = fs::read_to_string(root.join(document)).unwrap();
        assert!(text.contains(digest), "{document} does not show {digest}");
    }
}

#[test]
fn the_examples_are_valid_skills() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let world = World::new();
    let mut built = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            world.run(["validate", "--strict", path.to_str().unwrap()]).ok();
            world.run(["build", "--load=never", path.to_str().unwrap()]).ok();
            built += 1;
        }
    }
    assert_eq!(built, 5);
}
