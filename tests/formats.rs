//! Skills in the forms of other tools: found, installed, converted; and what is refused of them.

use std::fs;

use serde_json::{Value, json};

use crate::foreign::{LAYER, Part, artifact, index, tag, tar_gz};
use crate::forms::{EMPTY, Form, OCI, SKILL, expected, files, forms, skill};
use crate::support::World;

const NAME: &str = "registry.example/theirs/some-skill:1.2.0";

/// A store with something in it, so that blobs have a place.
fn world() -> World {
    let world = World::new();
    world.skill("other", "1.0.0");
    world.build("other");
    world
}

#[test]
fn every_form_is_inspected_installed_and_converted() {
    for Form { name, artifact_type, config, parts, executable } in forms() {
        let world = world();
        tag(&world, &artifact(&world, artifact_type, config, &parts, &json!({})), NAME);
        let inspected = world.run(["inspect", NAME, "--format", "json"]).ok().json();
        assert_eq!(inspected["format"], name);

        world.run(["install", NAME, "--pull=never", "-o", "skills"]).ok();
        let mut installed = files(&world.path("skills/hr"));
        installed.retain(|(path, ..)| path != "skill.yaml");
        assert_eq!(installed, expected(executable), "{name}");
        assert!(world.run(["list", "--installed", "-o", "skills", "--verify"]).ok().stdout.contains("hr"));

        let converted = world.run([
            "convert",
            NAME,
            "registry.example/acme/hr:1.0.0",
            "--pull=never",
            "--load=never",
            "--format",
            "json",
        ]);
        let converted = converted.ok().json();
        assert_eq!(converted["reference"], "registry.example/acme/hr:1.0.0");
        world.run(["pull", "registry.example/acme/hr:1.0.0", "--pull=never", "--load=never", "-o", "out"]).ok();
        let mut out = files(&world.path("out/hr"));
        let card = out.iter().position(|(path, ..)| path == "skill.yaml").expect("a card was made");
        let card = String::from_utf8(out.remove(card).2).unwrap();
        assert_eq!(out, expected(executable), "{name}");
        // Where nothing else says it, the new name says the version and the namespace.
        assert!(card.contains("namespace: acme\n") && card.contains("version: 1.0.0\n"), "{card}");
        let annotations =
            world.run(["inspect", "registry.example/acme/hr:1.0.0", "--format", "json"]).ok().json()["annotations"]
                .clone();
        assert_eq!(annotations["org.opencontainers.image.base.name"], NAME);
        assert_eq!(annotations["org.opencontainers.image.base.digest"], inspected["digest"]);
    }
}

/// One JSON value, whatever became of each.
#[test]
fn one_that_is_not_valid_leaves_the_others_exact() {
    let world = world();
    let flux = "application/vnd.cncf.flux.content.v1.tar+gzip";
    let bad = ("bad/SKILL.md".to_owned(), "---\nname: BAD\n---\n", 0o644);
    let parts = [Part::archive(flux, &[vec![bad], skill("hr/")].concat())];
    tag(&world, &artifact(&world, "", "application/vnd.cncf.flux.config.v1+json", &parts, &json!({})), NAME);
    let ran = world.run(["convert", NAME, "--pull=never", "--load=never", "--format", "json"]).fails(1);
    assert_eq!(ran.json().as_array().map(Vec::len), Some(1), "{ran}");
    assert_eq!(ran.json()[0]["reference"], "local/hr:1.2.0-draft");
    assert!(ran.stderr.contains("BAD"), "{ran}");
}

/// What was packed once is not judged again: names that would stop a build stay, and links become what they lead to.
#[test]
fn what_is_converted_is_what_a_directory_of_it_is_built_to() {
    let world = world();
    world.skill("hr", "1.0.0");
    world.write("hr/a-b/c", "1");
    world.write("hr/a/b", "2");
    std::os::unix::fs::symlink("scripts/run.sh", world.path("hr/run")).unwrap();
    let built = world.run(["build", "hr", "--load=never", "--format", "json", "-t", "acme/hr:a"]).ok().json();
    let artifact =
        world.run(["build", "hr", "--load=never", "--format", "artifact,json", "-t", "acme/hr:b"]).ok().json();
    assert_ne!(built["layer"], artifact["layer"]);
    let converted = world.run(["convert", "acme/hr:b", "acme/hr:c", "--load=never", "--format", "json"]).ok().json();
    for field in ["layer", "diff_id", "image_id", "files", "bytes"] {
        assert_eq!(built[field], converted[field], "{field}");
    }
}

#[test]
fn an_artifact_is_what_the_specification_says() {
    let world = world();
    world.write("hr/SKILL.md", "---\nname: hr\ndescription: Helps.\nlicense: MIT\ncompatibility: any\nallowed-tools: Bash(git:*) Read\nmetadata:\n  version: 1.2.0\n---\nText.\n");
    world.run(["build", "hr", "--load=never", "--format", "artifact", "-t", "acme/hr:1.2.0"]).ok();
    let read = |digest: &str| -> Value {
        let path = world.store().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let digest = world.run(["inspect", "acme/hr:1.2.0", "--format", "json"]).ok().json()["digest"].clone();
    let manifest = read(digest.as_str().unwrap());
    assert_eq!(manifest["artifactType"], "application/vnd.agentskills.skill.v1");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.agentskills.skill.config.v1+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.agentskills.skill.content.v1.tar+gzip");
    // By which oras makes a directory of it.
    let unpacks = json!({"org.opencontainers.image.title": "hr", "io.deis.oras.content.unpack": "true"});
    assert_eq!(manifest["layers"][0]["annotations"], unpacks);
    let config = json!({"schemaVersion": "1", "name": "hr", "version": "1.2.0", "description": "Helps.", "license": "MIT",
        "compatibility": "any", "allowedTools": ["Bash(git:*)", "Read"]});
    assert_eq!(read(manifest["config"]["digest"].as_str().unwrap()), config);
    let annotations = &manifest["annotations"];
    assert_eq!(annotations["io.agentskills.skill.name"], "hr");
    assert_eq!(annotations["io.agentskills.skill.compatibility"], "any");
    assert_eq!(annotations["org.opencontainers.image.version"], "1.2.0");
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let layer = fs::File::open(world.store().join("blobs/sha256").join(layer)).unwrap();
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(layer));
    let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
    assert_eq!(names.collect::<Vec<_>>(), ["hr/", "hr/SKILL.md"]);
    // What could only fail later is not asked for.
    let rows = world.run(["list"]).ok().stdout;
    assert!(rows.lines().any(|row| row.contains("acme/hr") && row.ends_with(" -")), "{rows}");
    let row = world.run(["list", "--format", "json"]).ok().json()[0].clone();
    assert_eq!((&row["reference"], &row["loaded"]), (&json!("acme/hr:1.2.0"), &json!("no")));
    let flags = world.run(["generate", "podman", "acme/hr:1.2.0"]).fails(2);
    let said = "acme/hr:1.2.0 is in a form that podman cannot mount (Agent Skills artifact)\nhint: skillctl convert \
                acme/hr:1.2.0 NAME:TAG makes an image of it, to be named instead\n";
    assert!(flags.stderr.ends_with(said) && flags.stdout.is_empty(), "{flags}");
    // Without a name it has that of the image, and neither takes it from the other.
    world.run(["build", "hr", "--load=never"]).ok();
    let held = |name: &str| world.run(["inspect", name, "--format", "json"]).ok().json()["digest"].clone();
    let image = held("local/hr:1.2.0-draft");
    let taken = world.run(["build", "hr", "--format", "artifact"]).fails(2);
    assert!(taken.stderr.contains("local/hr:1.2.0-draft is an image, and would become an artifact"), "{taken}");
    assert!(
        taken.stderr.contains(
            "\nhint: name another (build -t NAME:TAG, convert FROM NAME:TAG), or skillctl rm local/hr:1.2.0-draft first"
        ),
        "{taken}"
    );
    assert_eq!(held("local/hr:1.2.0-draft"), image);
    let taken = world.run(["build", "hr", "--load=never", "-t", "acme/hr:1.2.0"]).fails(2);
    assert!(taken.stderr.contains("acme/hr:1.2.0 is an artifact, and would become an image"), "{taken}");
    for again in [&["build", "hr", "--load=never", "--platform", "all"][..], &["build", "hr", "--load=never"]] {
        world.run(again).ok();
    }
    world.run(["build", "hr", "--format", "artifact", "-t", "acme/hr:1.2.0"]).ok();
    world.run(["build", "hr", "--format", "artifact", "--force"]).ok();
    assert_ne!(held("local/hr:1.2.0-draft"), image);
    let refused = world.run(["build", "hr", "--format", "artifact", "--platform", "all"]).fails(2);
    assert!(refused.stderr.contains("--platform is for images"), "{refused}");
}

#[test]
fn of_several_skills_all_or_the_named_are_taken() {
    let world = world();
    let legal = SKILL.replace("name: hr", "name: legal");
    let legal: &'static str = Box::leak(legal.into_boxed_str());
    let flux = "application/vnd.cncf.flux.content.v1.tar+gzip";
    let parts = [Part::archive(flux, &[vec![("legal/SKILL.md".into(), legal, 0o644)], skill("hr/")].concat())];
    tag(&world, &artifact(&world, "", "application/vnd.cncf.flux.config.v1+json", &parts, &json!({})), NAME);
    let listed = |dir: &str| {
        let mut names: Vec<String> =
            fs::read_dir(world.path(dir)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".skillimage");
        names.sort();
        names
    };
    world.run(["install", NAME, "--pull=never", "-o", "all"]).ok();
    assert_eq!(listed("all"), ["hr", "legal"]);
    world.run(["install", NAME, "--pull=never", "-o", "one", "--skill", "legal"]).ok();
    assert_eq!(listed("one"), ["legal"]);
    let wrong = world.run(["install", NAME, "--pull=never", "-o", "none", "--skill", "x"]).fails(2);
    assert!(wrong.stderr.contains("it has no skill x: there is hr, legal"), "{wrong}");
    assert!(!world.path("none").exists(), "nothing is made for nothing");
    let two = world.run(["convert", NAME, "acme/x:1", "--pull=never", "--load=never"]).fails(2);
    assert!(two.stderr.contains("has 2 skills") && two.stderr.contains("--skill"), "{two}");
    world.run(["convert", NAME, "acme/x:1", "--pull=never", "--load=never", "--skill", "hr"]).ok();
    let all = world.run(["convert", NAME, "--pull=never", "--load=never", "--format", "json"]).ok().json();
    assert_eq!(
        (&all[0]["reference"], &all[1]["reference"]),
        (&json!("local/hr:1.2.0-draft"), &json!("local/legal:1.2.0-draft"))
    );
}

#[test]
fn what_is_wrong_with_an_artifact_is_said_and_nothing_is_left() {
    let vitale = "application/vnd.agentskills.skill.v1";
    let config = "application/vnd.agentskills.skill.config.v1+json";
    let content = "application/vnd.agentskills.skill.content.v1.tar+gzip";
    let of = |entries: &[(&str, &'static str)]| {
        let entries: Vec<_> = entries.iter().map(|(path, text)| ((*path).to_owned(), *text, 0o644)).collect();
        vec![Part::archive(content, &entries)]
    };
    let truncated = || {
        let mut part = Part::archive(content, &skill("hr/"));
        part.bytes.truncate(part.bytes.len() - 20);
        vec![part]
    };
    let cases: Vec<(&str, Vec<Part>, &str)> = vec![
        ("no skill", of(&[("hr/README.md", "x")]), "has no SKILL.md: it is no skill"),
        ("nothing", vec![], "has no SKILL.md: it is no skill"),
        (
            "two roots",
            of(&[("a/SKILL.md", SKILL), ("b/SKILL.md", SKILL)]),
            "has 2 (hr, hr) skills, and its form (Agent Skills artifact) has one",
        ),
        (
            "unknown layer",
            vec![Part::plain("application/x-odd", "x")],
            "has a layer of the unknown type application/x-odd",
        ),
        ("leaves", of(&[("../x", "x"), ("hr/SKILL.md", SKILL)]), "../x leaves the skill"),
        ("absolute", of(&[("/etc/x", "x"), ("hr/SKILL.md", SKILL)]), "/etc/x has an absolute name"),
        ("whiteout", of(&[("hr/.wh.x", "x"), ("hr/SKILL.md", SKILL)]), "is a whiteout"),
        ("case", of(&[("hr/SKILL.md", SKILL), ("hr/a", "x"), ("hr/A", "x")]), "a differs from A only by case"),
        ("twice", of(&[("hr/SKILL.md", SKILL), ("hr/SKILL.md", SKILL)]), "is in the archive twice"),
        ("truncated", truncated(), "is damaged"),
        ("zstd", vec![Part::plain(content, "\u{28}\u{b5}")], "is damaged"),
        ("no archive", vec![Part::plain(content, "plain text, and no archive at all")], "is damaged"),
        (
            "file that leaves",
            vec![Part::file("text/plain", "../../x", "x"), Part::file("text/plain", "SKILL.md", SKILL)],
            "leaves the skill",
        ),
        (
            "file twice",
            vec![Part::file("text/plain", "SKILL.md", SKILL), Part::file("text/plain", "SKILL.md", SKILL)],
            "is there twice",
        ),
    ];
    for (what, parts, why) in cases {
        let world = world();
        tag(&world, &artifact(&world, vitale, config, &parts, &json!({})), NAME);
        for verb in [
            &["install", NAME, "--pull=never", "-o", "skills"][..],
            &["convert", NAME, "acme/hr:1", "--pull=never", "--load=never"],
        ] {
            let ran = world.run(verb).fails(2);
            assert!(ran.stderr.contains(why), "{what}: {ran}");
            assert_eq!(ran.stderr.matches("error:").count(), 1, "{what}: {ran}");
            assert!(ran.stderr.contains(NAME), "{what}: {ran}");
        }
        assert!(!world.path("skills/hr").exists(), "{what}");
        assert!(world.run(["inspect", "acme/hr:1"]).status != Some(0), "{what}");
        assert_eq!(fs::read_dir(world.store().join(".tmp")).unwrap().count(), 0, "{what}");
    }
}

#[test]
fn links_of_an_artifact_are_followed_inside_and_refused_outside() {
    let content = "application/vnd.agentskills.skill.content.v1.tar+gzip";
    let archive = |target: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, text) in [("hr/SKILL.md", SKILL), ("hr/data/x", "x")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, "hr/data/link", target).unwrap();
        let mut part = Part::plain(content, "");
        part.bytes = tar_gz(tar);
        part
    };
    let cases = [
        ("../SKILL.md", Ok(SKILL)),
        ("x", Ok("x")),
        ("../../../etc/passwd", Err("data/link -> ../../../etc/passwd leaves the skill")),
        ("/etc/passwd", Err("data/link -> /etc/passwd leaves the skill")),
        ("nothing", Err("data/link -> nothing leads nowhere")),
        ("link", Err("data/link -> link leads in a circle")),
        ("../data", Err("is a link to a directory that it is in")),
    ];
    for (target, want) in cases {
        let world = world();
        let manifest = artifact(&world, "application/vnd.agentskills.skill.v1", EMPTY, &[archive(target)], &json!({}));
        tag(&world, &manifest, NAME);
        let ran = world.run(["install", NAME, "--pull=never", "-o", "skills"]);
        match want {
            Ok(text) => {
                ran.ok();
                let link = world.path("skills/hr/data/link");
                assert!(fs::symlink_metadata(&link).unwrap().is_file());
                assert_eq!(fs::read_to_string(link).unwrap(), text);
            }
            Err(why) => assert!(ran.stderr.contains(why), "{target}: {ran}"),
        }
    }
}

#[test]
fn an_index_of_one_skill_for_two_platforms_is_one_skill() {
    let world = world();
    let parts = [Part::archive(LAYER, &skill(""))];
    let annotations = json!({"dev.toolhive.skills.name": "hr", "dev.toolhive.skills.version": "2.1.0"});
    let image = artifact(&world, "dev.toolhive.skills.v1", OCI, &parts, &annotations);
    tag(&world, &index(&world, &[("linux/amd64", image.clone()), ("linux/arm64", image)]), NAME);
    assert_eq!(world.run(["inspect", NAME, "--format", "json"]).ok().json()["format"], "ToolHive skill");
    world.run(["install", NAME, "--pull=never", "-o", "skills"]).ok();
    let converted = world.run(["convert", NAME, "--pull=never", "--load=never", "--format", "json"]).ok().json();
    // The version is what the annotations of the index say.
    assert_eq!(converted["reference"], "local/hr:1.0.0-draft");
}

#[test]
fn a_collection_is_no_skill() {
    let world = world();
    let collection = "application/vnd.skillimage.collection.v1+yaml";
    tag(
        &world,
        &artifact(&world, collection, EMPTY, &[Part::plain(collection, "kind: SkillCollection")], &json!({})),
        NAME,
    );
    let ran = world.run(["install", NAME, "--pull=never", "-o", "skills"]).fails(2);
    assert!(
        ran.stderr.contains("is a collection of skills") && ran.stderr.contains("skillctl collection install"),
        "{ran}"
    );
}
