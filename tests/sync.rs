//! `add`, `remove`, `update` and `sync`, from a store.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::install::{publish, tree};
use crate::support::{Ran, World};

/// A project in version control, and a store with two skills.
fn project() -> World {
    let world = World::new();
    for (name, versions) in [("hr", &["1.0.0", "1.1.0"][..]), ("legal", &["2.0.0"])] {
        world.skill(name, "0.0.0");
        for version in versions {
            world.write(&format!("{name}/notes.md"), format!("of {version}"));
            publish(&world, name, version);
        }
    }
    fs::create_dir_all(world.path("project/.git")).unwrap();
    fs::create_dir_all(world.path("project/deep")).unwrap();
    world
}

fn run(world: &World, args: &[&str]) -> Ran {
    world.command(args).current_dir(world.path("project/deep")).output().unwrap().into()
}

fn file(world: &World, name: &str) -> String {
    fs::read_to_string(world.path("project").join(name)).unwrap()
}

fn json(world: &World, name: &str) -> Value {
    serde_json::from_str(&file(world, name)).unwrap()
}

#[test]
fn a_project_takes_what_is_signed_where_that_is_asked_for() {
    let world = project();
    let run = |args: &[&str]| -> Ran {
        let mut command = world.command(args);
        command.env("COSIGN_PASSWORD", "secret").current_dir(world.path("project")).output().unwrap().into()
    };
    for name in ["acme", "other"] {
        run(&["key", "generate", name]).ok();
    }
    let add = ["add", "acme/hr", "--key", "acme.pub"];
    let refused = run(&add).fails(1);
    assert!(refused.stderr.contains("is not verified") && !world.path("project/skills.json").exists(), "{refused}");
    run(&["sign", "acme/hr:1.1.0", "--key", "acme.key"]).ok();
    run(&add).ok();
    // Also of what is there already, and locked.
    run(&["sync", "--key", "acme.pub"]).ok();
    for verb in ["sync", "update"] {
        assert!(run(&[verb, "--key", "other.pub"]).fails(1).stderr.contains("not by the key"), "{verb}");
        assert!(run(&[verb, "--verify"]).fails(2).stderr.contains("nothing says who has to have signed"), "{verb}");
    }
    // Only looked at, by what the store has.
    let check = |args: &[&str]| run(&[&["sync", "--check"], args].concat());
    for args in [&[][..], &["--key", "acme.pub"]] {
        assert!(check(args).ok().stdout.ends_with("skills.json: 1 skill(s).\n"));
    }
    assert!(check(&["--verify"]).fails(2).stderr.contains("nothing says who has to have signed acme/hr"));
    let refused = check(&["--key", "other.pub"]).fails(1);
    assert!(
        refused.stdout.starts_with("✗ hr: acme/hr@sha256:") && refused.stdout.contains("not by the key"),
        "{refused}"
    );
    // What is no image has no signature.
    run(&["add", "../legal"]).fails(2);
    world.skill("own", "1.0.0");
    fs::rename(world.path("own"), world.path("project/own")).unwrap();
    assert!(run(&["add", "./own", "--key", "acme.pub"]).fails(2).stderr.contains("what is no image"));
    run(&["add", "./own"]).ok();
    let own = "✗ own: what is no image has no signature that could be verified\n";
    assert_eq!(check(&["--key", "acme.pub"]).fails(1).stdout, own);
    run(&["remove", "own"]).ok();
    // By the policy, too; and what the store does not have nobody has looked at.
    run(&["trust", "add", "--user", "acme", "--key", "acme.pub"]).ok();
    check(&["--verify"]).ok();
    run(&["trust", "add", "--user", "acme/hr", "--key", "other.pub"]).ok();
    let refused = check(&[]).fails(1).stdout;
    assert!(refused.contains("trust.toml, acme/hr), and ") && refused.contains("not by the key"), "{refused}");
    run(&["trust", "remove", "--user", "acme/hr"]).ok();
    fs::rename(world.path("store"), world.path("gone")).unwrap();
    let gone = check(&["--format", "json"]).fails(1).json();
    assert_eq!((gone.as_array().unwrap().len(), &gone[0]["name"]), (1, &json!("hr")));
    assert!(gone[0]["reason"].as_str().unwrap().ends_with("the store does not have it, and sync would fetch it"));
}

#[test]
fn a_project_has_what_its_files_say() {
    let world = project();
    let none = run(&world, &["sync"]).fails(2);
    assert!(none.stderr.contains("there is no skills.json in") && none.stderr.contains("skillctl add"), "{none}");
    run(&world, &["add", "acme/hr:1.0.0", "acme/legal", "-t", "claude,codex"]).ok();
    let intent = json(&world, "skills.json");
    let want = json!({"skills": [
        {"name": "hr", "source": "acme/hr", "version": "1.0.0", "additionalBasePaths": [".claude/skills"]},
        {"name": "legal", "source": "acme/legal", "additionalBasePaths": [".claude/skills"]},
    ]});
    assert_eq!(intent, want);
    let lock = json(&world, "skills.lock.json");
    assert_eq!((&lock["skills"][1]["source"]["tag"], lock.get("generatedAt")), (&json!("2.0.0"), None));
    for path in [".agents/skills/hr/SKILL.md", ".claude/skills/legal/scripts/run.sh"] {
        assert!(world.path("project").join(path).is_file(), "{path}");
    }
    assert!(run(&world, &["sync", "--check"]).ok().stdout.ends_with("skills.json: 2 skill(s).\n"));

    // Elsewhere, from the files alone: the same, to the byte.
    let there = world.path("there");
    fs::create_dir_all(&there).unwrap();
    for name in ["skills.json", "skills.lock.json"] {
        fs::copy(world.path("project").join(name), there.join(name)).unwrap();
    }
    for args in [&["sync", "--locked"][..], &["sync"], &["update"]] {
        Ran::from(world.command(args).current_dir(&there).output().unwrap()).ok();
        for name in ["skills.json", "skills.lock.json"] {
            assert_eq!(fs::read_to_string(there.join(name)).unwrap(), file(&world, name), "{args:?}");
        }
    }
    assert_eq!(tree(&there.join(".agents")), tree(&world.path("project/.agents")));
    let dated = world.command(["sync"]).env("SOURCE_DATE_EPOCH", "86400").current_dir(&there).output().unwrap();
    Ran::from(dated).ok();
    assert!(
        fs::read_to_string(there.join("skills.lock.json"))
            .unwrap()
            .contains("\"generatedAt\": \"1970-01-02T00:00:00Z\"")
    );
}

#[test]
fn what_is_not_as_the_files_say_is_told_and_mended() {
    let world = project();
    run(&world, &["add", "acme/hr:1.0.0", "acme/legal", "-t", "claude"]).ok();
    let root = world.path("project");
    type Do<'a> = &'a dyn Fn();
    let cases: [(&str, Do<'_>, &str); 5] = [
        (
            "changed",
            &|| fs::write(root.join(".claude/skills/hr/SKILL.md"), "mine").unwrap(),
            "✗ hr (.claude/skills/hr): it is not as it was installed\n  SKILL.md was changed\n",
        ),
        (
            "gone",
            &|| fs::remove_dir_all(root.join(".agents/skills/legal")).unwrap(),
            "✗ legal (.agents/skills/legal): it is not installed\n",
        ),
        (
            "another version",
            &|| {
                world.run(["install", "acme/hr:1.1.0", "-o", root.join(".agents/skills").to_str().unwrap()]).ok();
            },
            "✗ hr (.agents/skills/hr): it is sha256:",
        ),
        (
            "another wanted",
            &|| {
                let text = file(&world, "skills.json").replace("1.0.0", "1.1.0");
                fs::write(root.join("skills.json"), text).unwrap();
            },
            "✗ hr: skills.json wants another than skills.lock.json has, acme/hr:1.0.0@sha256:",
        ),
        (
            "one place less",
            &|| {
                let mut intent = json(&world, "skills.json");
                intent["skills"][1].as_object_mut().unwrap().remove("additionalBasePaths");
                fs::write(root.join("skills.json"), intent.to_string()).unwrap();
            },
            "✗ legal (.claude/skills/legal): skills.json does not want it there\n",
        ),
    ];
    for (what, change, want) in cases {
        change();
        let ran = run(&world, &["sync", "--check"]).fails(1);
        assert!(ran.stdout.contains(want), "{what}: {ran}");
        assert_eq!(
            run(&world, &["sync", "--check", "--format", "json"]).fails(1).json().as_array().unwrap().len(),
            1,
            "{what}"
        );
        if what == "another wanted" {
            let ran = run(&world, &["sync", "--locked"]).fails(2);
            assert!(ran.stderr.contains("skills.lock.json is not up to date: hr"), "{ran}");
        }
        run(&world, &["sync", "--force"]).ok();
        run(&world, &["sync", "--check"]).ok();
    }
    assert!(!root.join(".claude/skills/legal").exists());
    // Without force what somebody has changed stays.
    fs::write(root.join(".agents/skills/hr/SKILL.md"), "mine").unwrap();
    let ran = run(&world, &["sync"]).fails(2);
    assert!(ran.stderr.contains("hr is not as it was installed: SKILL.md was changed"), "{ran}");
}

#[test]
fn update_and_remove_change_what_they_are_asked_to() {
    let world = project();
    run(&world, &["add", "acme/hr", "acme/legal"]).ok();
    publish(&world, "hr", "1.2.0");
    publish(&world, "legal", "2.1.0");
    run(&world, &["sync"]).ok();
    assert_eq!(json(&world, "skills.lock.json")["skills"][0]["source"]["tag"], "1.1.0");
    run(&world, &["update", "hr"]).ok();
    let tags = |lock: Value| -> Vec<String> {
        lock["skills"].as_array().unwrap().iter().map(|s| s["source"]["tag"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(tags(json(&world, "skills.lock.json")), ["1.2.0", "2.0.0"]);
    run(&world, &["update"]).ok();
    assert_eq!(tags(json(&world, "skills.lock.json")), ["1.2.0", "2.1.0"]);
    run(&world, &["remove", "legal"]).ok();
    assert!(!world.path("project/.agents/skills/legal").exists());
    assert_eq!(tags(json(&world, "skills.lock.json")), ["1.2.0"]);
    for verb in ["remove", "update"] {
        let ran = run(&world, &[verb, "none"]).fails(2);
        assert!(ran.stderr.contains("none is not in "), "{ran}");
    }
    // A skill that is taken out by hand goes with the next sync.
    fs::write(world.path("project/skills.json"), "{\"skills\": []}").unwrap();
    let ran = run(&world, &["sync"]).ok();
    assert!(ran.stdout.starts_with("Uninstalled hr from "), "{ran}");
    assert!(!world.path("project/.agents/skills/hr").exists());
}

#[test]
fn a_lock_that_names_what_is_nowhere_is_an_error_with_the_remedy() {
    let world = project();
    run(&world, &["add", "acme/hr:1.0.0"]).ok();
    let lock = file(&world, "skills.lock.json");
    let digest = json(&world, "skills.lock.json")["skills"][0]["source"]["digest"].as_str().unwrap().to_owned();
    let other = format!("sha256:{}", "0".repeat(64));
    fs::write(world.path("project/skills.lock.json"), lock.replace(&digest, &other)).unwrap();
    let ran = run(&world, &["sync"]).fails(2);
    assert!(ran.stderr.contains("Installing hr: skills.lock.json has acme/hr:1.0.0@sha256:0000"), "{ran}");
    assert!(ran.stderr.contains("skillctl update hr"), "{ran}");
    run(&world, &["update", "hr"]).ok();
    assert_eq!(file(&world, "skills.lock.json"), lock);
    // The content is what the lock says, or it is an error.
    let content = json(&world, "skills.lock.json")["skills"][0]["contentDigest"].as_str().unwrap().to_owned();
    fs::write(world.path("project/skills.lock.json"), lock.replace(&content, &other)).unwrap();
    fs::remove_dir_all(world.path("project/.agents")).unwrap();
    let ran = run(&world, &["sync"]).fails(2);
    assert!(ran.stderr.contains("its content is sha256:") && ran.stderr.contains("was expected"), "{ran}");
    assert!(!world.path("project/.agents/skills/hr").exists(), "it is installed all the same");
    run(&world, &["sync", "--check"]).fails(1);
}

#[test]
fn hostile_files_lead_nowhere() {
    let world = project();
    let root = world.path("project");
    fs::create_dir_all(world.path("elsewhere")).unwrap();
    symlink(world.path("elsewhere"), root.join("out")).unwrap();
    let skill = |name: &str, path: &str| {
        json!({"skills": [{"name": name, "source": "acme/hr", "version": "1.0.0", "additionalBasePaths": [path]}]})
            .to_string()
    };
    let cases = [
        (skill("../hr", "a"), "\"../hr\" cannot be the name"),
        (skill("hr", "../elsewhere"), "is no directory of a project's skills"),
        (skill("hr", "/tmp"), "is no directory of a project's skills"),
        (skill("hr", ".git/hooks"), "is no directory of a project's skills"),
        (skill("hr", "out"), "out"),
        ("[]".to_owned(), "skills.json: "),
    ];
    for (text, why) in cases {
        fs::write(root.join("skills.json"), &text).unwrap();
        let ran = run(&world, &["sync"]).fails(2);
        assert!(ran.stderr.contains(why), "{text}: {ran}");
        assert_eq!(fs::read_dir(world.path("elsewhere")).unwrap().count(), 0, "{text}");
    }
    fs::write(root.join("skills.json"), "{\"skills\": []}").unwrap();
    let locked = json!({"lockfileVersion": 1, "skills": [{"name": "hr", "path": "../elsewhere/hr", "source": {
        "registry": "", "repository": "acme/hr", "tag": "1.0.0", "digest": format!("sha256:{}", "0".repeat(64)), "ref": ""}}]});
    fs::write(root.join("skills.lock.json"), locked.to_string()).unwrap();
    let ran = run(&world, &["sync"]).fails(2);
    assert!(ran.stderr.contains("is no directory of a project's skills"), "{ran}");
}

#[test]
fn lock_files_of_other_tools_are_imported() {
    let world = project();
    // The store stands for the registry: it has the image under that name.
    world.run(["tag", "acme/hr:1.0.0", "registry.example/acme/hr:1.0.0", "--load=never"]).ok();
    let digest =
        world.run(["inspect", "acme/hr:1.0.0", "--format", "json"]).ok().json()["digest"].as_str().unwrap().to_owned();
    world.write(
        "project/toolhive.lock.yaml",
        format!(
            "version: 1\nskills:\n  - name: hr\n    source: registry.example/acme/hr:1.0.0\n    resolvedReference: registry.example/acme/hr:1.0.0\n    digest: {digest}\n"
        ),
    );
    run(&world, &["add", "--import", "../toolhive.lock.yaml"]).ok();
    let lock = json(&world, "skills.lock.json");
    assert_eq!(lock["skills"][0]["source"]["ref"], format!("registry.example/acme/hr:1.0.0@{digest}"));
    assert_eq!(json(&world, "skills.json")["skills"][0]["version"], "1.0.0");
    run(&world, &["sync", "--check"]).ok();
    // What comes from Git is fetched, which this world has no git for; what comes from elsewhere is named.
    world.write(
        "project/skills-lock.json",
        json!({"version": 1, "skills": {
            "x": {"source": "acme/skills", "sourceType": "github", "computedHash": "0a"},
            "y": {"source": "acme/y", "sourceType": "clawhub", "computedHash": "0b"},
        }})
        .to_string(),
    );
    let ran = run(&world, &["add", "--import", "../skills-lock.json"]).fails(2);
    for why in [
        "Adding x from https://github.com/acme/skills.git: git is not installed",
        "Adding y: it comes from clawhub acme/y, which is no image",
    ] {
        assert!(ran.stderr.contains(why), "{ran}");
    }
    run(&world, &["add", "--import", "../none"]).fails(2);
}

#[test]
fn a_directory_with_two_paths_keeps_its_skill() {
    let world = project();
    fs::create_dir_all(world.path("project/.agents/skills")).unwrap();
    fs::create_dir_all(world.path("project/.claude")).unwrap();
    symlink("../.agents/skills", world.path("project/.claude/skills")).unwrap();
    run(&world, &["add", "acme/hr:1.0.0", "-t", "claude"]).ok();
    let mut intent = json(&world, "skills.json");
    intent["skills"][0].as_object_mut().unwrap().remove("additionalBasePaths");
    fs::write(world.path("project/skills.json"), intent.to_string()).unwrap();
    let ran = run(&world, &["sync"]).ok();
    assert!(!ran.stdout.contains("Uninstalled"), "{ran}");
    assert!(world.path("project/.agents/skills/hr/SKILL.md").is_file());
    run(&world, &["sync", "--check"]).ok();
}

#[test]
fn additions_at_once_are_all_there() {
    let world = project();
    let children: Vec<_> = ["acme/hr:1.0.0", "acme/legal"]
        .map(|reference| {
            world
                .command(["add", reference])
                .current_dir(world.path("project"))
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .into();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(json(&world, "skills.json")["skills"].as_array().unwrap().len(), 2);
    run(&world, &["sync", "--check"]).ok();
    // What is taken out by hand is uninstalled by the next sync, also where something was added meanwhile.
    let mut intent = json(&world, "skills.json");
    intent["skills"].as_array_mut().unwrap().retain(|skill| skill["name"] != "legal");
    fs::write(world.path("project/skills.json"), intent.to_string()).unwrap();
    run(&world, &["add", "acme/hr:1.1.0"]).ok();
    run(&world, &["sync"]).ok();
    assert!(!world.path("project/.agents/skills/legal").exists());
}

#[test]
fn locked_changes_no_lock_and_what_is_the_users_is_told() {
    let world = project();
    run(&world, &["add", "acme/hr:1.0.0"]).ok();
    let lock = file(&world, "skills.lock.json");
    let mut intent = json(&world, "skills.json");
    intent["skills"][0]["additionalBasePaths"] = json!([".claude/skills"]);
    fs::write(world.path("project/skills.json"), intent.to_string()).unwrap();
    run(&world, &["sync", "--locked"]).fails(2);
    assert_eq!(file(&world, "skills.lock.json"), lock);
    run(&world, &["sync"]).ok();
    let lock = file(&world, "skills.lock.json");
    let dated = world
        .command(["sync", "--locked"])
        .env("SOURCE_DATE_EPOCH", "1")
        .current_dir(world.path("project"))
        .output()
        .unwrap();
    Ran::from(dated).ok();
    assert_eq!(file(&world, "skills.lock.json"), lock);
    fs::write(world.path("project/.agents/skills/hr/cache"), "").unwrap();
    let ran = run(&world, &["sync"]).ok();
    assert!(ran.stderr.contains("note: hr (.agents/skills/hr): cache is not of the image"), "{ran}");
    run(&world, &["sync", "--check"]).fails(1);
}

#[test]
fn a_project_of_somebody_else_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED a_project_of_somebody_else_is_refused: giving files away needs root");
        return;
    }
    let world = project();
    run(&world, &["add", "acme/hr:1.0.0"]).ok();
    std::os::unix::fs::chown(world.path("project/skills.json"), Some(65534), None).unwrap();
    let ran = run(&world, &["sync"]).fails(2);
    assert!(ran.stderr.contains("skills.json belongs to another user (65534)"), "{ran}");
    let sudo = world.command(["sync"]).env("SUDO_UID", "65534").current_dir(world.path("project")).output().unwrap();
    Ran::from(sudo).ok();
}

#[test]
fn an_addition_that_the_store_does_not_have_is_told_what_there_is() {
    let world = project();
    world.skill("fin", "1.0.0");
    world.build("fin");
    let cases = [
        (
            "acme/fin",
            "acme/fin has no published version in the store\nhint: name a tag: skillctl add acme/fin:1.0.0-draft\n",
        ),
        ("acme/hrr", "the store has no acme/hrr, and no registry is in the name\nhint: skillctl list shows"),
        ("acme/hr:9", "the store has no acme/hr:9 (there is acme/hr:1.0.0-draft, "),
    ];
    for (reference, want) in cases {
        let told = run(&world, &["add", reference]).fails(2).stderr;
        assert!(told.contains(want), "{told}");
    }
    run(&world, &["add", "acme/fin:1.0.0-draft"]).ok();
}

#[test]
fn an_addition_keeps_the_directories_and_the_repository() {
    let world = project();
    world.run(["tag", "acme/hr:1.1.0", "evil/hr:9.9.9", "--load=never"]).ok();
    run(&world, &["add", "acme/hr:1.0.0", "-t", "claude"]).ok();
    run(&world, &["add", "acme/hr:1.1.0", "-t", "goose"]).ok();
    let paths = &json(&world, "skills.json")["skills"][0]["additionalBasePaths"];
    assert_eq!(*paths, json!([".claude/skills", ".goose/skills"]));
    for base in [".agents", ".claude", ".goose"] {
        let notes = fs::read_to_string(world.path("project").join(base).join("skills/hr/notes.md")).unwrap();
        assert_eq!(notes, "of 1.1.0", "{base}");
    }
    let ran = run(&world, &["add", "evil/hr:9.9.9"]).fails(2);
    assert!(ran.stderr.contains("hr is in skills.json already, from acme/hr"), "{ran}");
    run(&world, &["add", "evil/hr:9.9.9", "--force"]).ok();
    run(&world, &["sync", "--check"]).ok();
}

#[test]
fn an_addition_that_is_in_the_way_of_something_installs_nothing() {
    let world = project();
    fs::create_dir_all(world.path("project/.claude/skills/hr")).unwrap();
    fs::write(world.path("project/.claude/skills/hr/SKILL.md"), "mine").unwrap();
    let ran = run(&world, &["add", "acme/hr:1.0.0", "-t", "claude"]).fails(2);
    assert!(ran.stderr.contains("hr exists already, and skillctl did not install it"), "{ran}");
    assert!(!world.path("project/.agents/skills/hr").exists() && !world.path("project/skills.json").exists());
}
