//! Collections without a registry: files, the store, and what is generated of them.

use std::fs;

use serde_json::json;

use crate::support::World;

const HEAD: &str =
    "apiVersion: skillimage.io/v1alpha1\nkind: SkillCollection\nmetadata:\n  name: office\n  version: 1.0.0\n";

/// Writes a collection of lines below `skills:`.
fn office(world: &World, skills: &str) {
    world.write("office.yaml", format!("{HEAD}skills:\n{skills}"));
}

#[test]
fn a_file_that_is_given_as_a_reference_is_told_from_one() {
    let world = World::new();
    office(&world, "  - {name: hr, image: q.io/a/hr:1}\n");
    for args in [&["install", "-o", "out"][..], &["pull"], &["generate"]] {
        let ran = world.run([&["collection"], args, &["office.yaml"]].concat()).fails(2);
        assert!(ran.stderr.contains("office.yaml is a file, and the name of a collection is expected"), "{ran}");
        assert!(ran.stderr.contains("\nhint: -f names a file: skillctl collection install -f office.yaml\n"), "{ran}");
    }
}

#[test]
fn a_collection_is_read_from_stdin() {
    let world = World::new();
    office(&world, "  - {name: hr, image: q.io/a/hr:1}\n");
    let mut generate = world.command(["collection", "generate", "-f", "-"]);
    let done = generate.stdin(fs::File::open(world.path("office.yaml")).unwrap()).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && text.contains("reference: q.io/a/hr:1"), "{text}");
}

#[test]
fn skills_of_the_store_are_installed() {
    let world = World::new();
    for name in ["hr", "legal"] {
        world.skill(name, "1.0.0");
        world.build(name);
    }
    office(
        &world,
        "  - {name: hr, image: 'acme/hr:1.0.0-draft'}\n  - {name: legal, image: 'localhost/acme/legal:1.0.0-draft'}\n",
    );
    let install =
        |args: &[&str]| world.run([&["collection", "install", "-f", "office.yaml", "-o", "skills"], args].concat());
    let planned = install(&["--dry-run"]).ok().stdout;
    assert!(planned.ends_with("Would install 2 skills\n") && !world.path("skills").exists(), "{planned}");
    assert_eq!(
        install(&[]).ok().stdout,
        "Installing collection \"office\" (2 skills)\n  hr (image)  installing...  installed\n  legal (image)  \
         installing...  installed\nInstalled 2 skills\n"
    );
    assert!(install(&[]).ok().stdout.ends_with("up to date\nInstalled 0 skills, 2 up to date\n"));
    // One that the user changed keeps no other from being installed, and is kept itself.
    fs::remove_dir_all(world.path("skills/legal")).unwrap();
    world.write("skills/hr/SKILL.md", "mine");
    let ran = install(&["--format", "json"]).fails(2);
    assert_eq!(
        (&ran.json()["installed"][0]["member"], &ran.json()["failed"][0]["member"]),
        (&json!("legal"), &json!("hr"))
    );
    assert!(ran.stderr.contains("error: Installing hr of collection office: hr is not as it was installed"), "{ran}");
    assert!(ran.stderr.contains("error: 1 skill(s) failed to install"), "{ran}");
    assert_eq!(fs::read_to_string(world.path("skills/hr/SKILL.md")).unwrap(), "mine");
    let forced = install(&["--force"]).ok().stdout;
    assert!(forced.contains("\nBackup: ") && forced.ends_with("Installed 1 skills, 1 up to date\n"), "{forced}");
}

#[test]
fn only_members_that_a_key_has_signed_are_installed() {
    let world = crate::trust::world();
    world.skill("legal", "1.0.0");
    world.build("legal");
    office(
        &world,
        "  - {name: hr, image: 'acme/hr:1.0.0-draft'}\n  - {name: legal, image: 'acme/legal:1.0.0-draft'}\n",
    );
    crate::trust::run(&world, &["sign", "acme/hr:1.0.0-draft", "--key", "acme.key"]).ok();
    let install = |flags: &[&str]| {
        let own = ["collection", "install", "-f", "office.yaml", "-o", "out", "--format", "json"];
        world.run([&own, flags].concat())
    };
    let refused = install(&["--key", "acme.pub"]).fails(1);
    assert_eq!(refused.json()["installed"][0]["member"], "hr");
    assert!(refused.stderr.contains("acme/legal:1.0.0-draft is not verified"), "{refused}");
    assert!(world.path("out/hr/SKILL.md").exists() && !world.path("out/legal").exists());
    assert!(install(&["--key", "other.pub"]).fails(1).stderr.contains("2 skill(s) failed to install"));
    crate::trust::run(&world, &["sign", "acme/legal:1.0.0-draft", "--key", "acme.key"]).ok();
    install(&["--key", "acme.pub"]).ok();
    // What is built just now nobody has signed.
    office(&world, "  - {source: 'https://127.0.0.1:1/a/b'}\n");
    assert!(install(&["--key", "acme.pub"]).fails(2).stderr.contains("what is no image has no signature"));
}

#[test]
fn a_password_of_a_member_is_neither_shown_nor_published() {
    let world = World::new();
    office(&world, "  - {source: 'https://u:secret@127.0.0.1:1/a/b'}\n");
    for args in [
        &["install", "-f", "office.yaml", "-o", "out"][..],
        &["install", "-f", "office.yaml", "-o", "out", "--format", "json"],
        &["generate", "-f", "office.yaml"],
        &["push", "-f", "office.yaml", "127.0.0.1:1/a/b:1"],
    ] {
        let ran = world.run([&["collection"], args].concat()).fails(2);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("https://127.0.0.1:1/a/b") && !said.contains("secret"), "{ran}");
        let refused = "its URL has credentials, which everybody could read in the collection";
        assert_eq!(said.contains(refused), args[0] == "push", "{ran}");
    }
}

#[test]
fn what_cannot_be_is_one_error() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    office(&world, "  - {name: hr, image: 'acme/hr:1.0.0-draft'}\n");
    world.write("bad.yaml", HEAD);
    let twice = "  - {name: hr, image: 'a/hr:1'}\n  - {name: hr, image: 'a/hr:2'}\n";
    world.write("twice.yaml", format!("{HEAD}skills:\n{twice}"));
    let same = "  - {name: hr, image: 'acme/hr:1.0.0-draft'}\n  - {name: two, image: 'acme/hr:1.0.0-draft'}\n";
    world.write("same.yaml", format!("{HEAD}skills:\n{same}"));
    world.write("git.yaml", format!("{HEAD}skills:\n  - source: https://git.example/hr\n"));
    world.run(["build", "hr", "--load=never", "--tag", "all", "--platform", "linux/amd64,linux/arm64"]).ok();
    world.write("all.yaml", format!("{HEAD}skills:\n  - {{name: hr, image: 'acme/hr:all'}}\n"));
    let set = "registry.invalid/sets/office:1";
    let cases: &[(&[&str], &str)] = &[
        (&["install", "-o", "s"], "specify -f <file> or a reference"),
        (&["install", "-f", "office.yaml", "x/y:1", "-o", "s"], "specify -f <file> or a reference, not both"),
        (&["install", "-f", "office.yaml"], "specify --target <agent> or -o <directory>"),
        (&["install", "-f", "office.yaml", "-o", "s", "--ref", "main"], "--ref is for a collection in Git"),
        (&["install", "-f", "bad.yaml", "-o", "s"], "bad.yaml: line 1: at least one skill is required"),
        (&["install", "-f", "none.yaml", "-o", "s"], "Reading none.yaml: "),
        (&["install", "acme/hr:1.0.0-draft", "-o", "s"], "acme/hr:1.0.0-draft is no collection: it is a skill"),
        (&["install", "acme/none:1", "-o", "s"], "acme/none:1 looks like a local reference"),
        (&["generate"], "specify -f <file> or a registry reference"),
        (&["volume", "-f", "office.yaml", "--mount-root", "/a b"], "cannot be a mount point"),
        (&["push", set, "-f", "twice.yaml"], "twice.yaml: line 8: duplicate skill name \"hr\""),
        (&["push", set, "-f", "office.yaml"], "office.yaml: member hr: acme/hr:1.0.0-draft is in this store only"),
        (&["push", set, "-f", "same.yaml", "--form", "index"], "same.yaml: hr and two are the same image"),
        (&["push", set, "-f", "git.yaml", "--form", "index"], "https://git.example/hr is no image, and an index lists"),
        (&["push", set, "-f", "all.yaml", "--form", "index"], "acme/hr:all has images for several platforms"),
        (&["push", "acme/office:1", "-f", "office.yaml"], "acme/office:1 looks like a local reference"),
    ];
    for (args, want) in cases {
        let before = fs::read(world.path("store/index.json")).unwrap();
        let ran = world.run([&["collection"], *args].concat()).fails(2);
        let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(want), "{args:?}: {want}: {ran}");
        assert_eq!(fs::read(world.path("store/index.json")).unwrap(), before);
        assert!(!world.path("s").exists(), "{args:?}");
    }
}

#[test]
fn what_is_generated_has_the_lines_of_the_go_tool() {
    let world = World::new();
    office(&world, "  - {name: hr, image: 'quay.io/acme/hr:1.0.0'}\n  - {name: 'a: {b', image: 'quay.io/acme/b:2'}\n");
    let pod = world.run(["collection", "generate", "-f", "office.yaml"]).ok().stdout;
    assert_eq!(
        pod,
        "volumes:\n  - name: hr\n    image:\n      reference: quay.io/acme/hr:1.0.0\n      pullPolicy: IfNotPresent\n  - \
         name: a---b-50341864\n    image:\n      reference: quay.io/acme/b:2\n      pullPolicy: IfNotPresent\n\
         containers:\n  - name: agent\n    volumeMounts:\n      - name: hr\n        mountPath: /skills/hr\n        \
         readOnly: true\n      - name: a---b-50341864\n        mountPath: /skills/a---b-50341864\n        readOnly: true\n"
    );
    let json = world.run(["collection", "generate", "-f", "office.yaml", "--format", "json"]).ok().json();
    assert_eq!(json["volumes"][0]["image"]["reference"], "quay.io/acme/hr:1.0.0");
    let shell = world.run(["collection", "volume", "-f", "office.yaml", "--mount-root", "/opt/skills/"]).ok().stdout;
    assert!(
        shell.starts_with(
            "podman pull quay.io/acme/hr:1.0.0 &&\npodman volume create --driver image \\\n  --opt \
             image=quay.io/acme/hr:1.0.0 \\\n  hr &&\n\n"
        ) && shell.contains("#   -v hr:/opt/skills/hr:ro \\\n")
            && shell.ends_with("#   my-agent:latest\n"),
        "{shell}"
    );
    office(&world, "  - {name: hr, image: 'quay.io/acme/hr:1.0.0'}\n  - {source: 'https://git.example/acme/tools'}\n");
    let ran = world.run(["collection", "generate", "-f", "office.yaml"]).fails(2);
    assert!(ran.stderr.contains("no image of https://git.example/acme/tools"), "{ran}");
}
