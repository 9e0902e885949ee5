//! What `trust.toml` asks for is asked wherever an image is used.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Ran, World};
use crate::trust::{run, world};

const DRAFT: &str = "acme/hr:1.0.0-draft";

fn trust(world: &World, args: &[&str]) {
    run(world, &[&["trust", "add", "--user"], args].concat()).ok();
}

fn sign(world: &World, reference: &str, key: &str) {
    run(world, &["sign", "--local", reference, "--key", &format!("{key}.key")]).ok();
}

/// Returns a collection of one skill.
fn collection(image: &str) -> String {
    let head = "apiVersion: skillimage.io/v1alpha1\nkind: SkillCollection\nmetadata: {name: set, version: 1.0.0}\n";
    format!("{head}skills: [{{name: hr, image: '{image}'}}]\n")
}

/// All verbs that use an image of a store and need no other program.
pub fn uses(reference: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["verify", reference],
        vec!["trust", "check", reference],
        vec!["install", reference, "-t", "claude", "--force"],
        vec!["install", reference, "-t", "claude", "--dry-run"],
        vec!["convert", reference, "other/copy:1.0.0", "--load=never"],
        vec!["generate", "cdi", reference],
        vec!["generate", "kube", reference],
        vec!["generate", "volume", reference],
        vec!["load", reference],
    ]
}

#[test]
fn what_a_policy_covers_is_verified_wherever_it_is_used() {
    let world = world();
    for args in uses(DRAFT) {
        let ran = run(&world, &args);
        assert!(!ran.stderr.contains("is not verified"), "{args:?}: {ran}");
    }
    trust(&world, &["acme", "--key", "acme.pub"]);
    fs::remove_file(world.path("acme.pub")).unwrap();
    for args in uses(DRAFT) {
        let ran = run(&world, &args).fails(1);
        let scope = format!("({}, acme)", world.path("home/.config/skillctl/trust.toml").display());
        assert!(ran.stderr.contains("is not verified") && ran.stderr.contains(&scope), "{args:?}: {ran}");
        assert!(ran.stderr.contains("it has no signature"), "{args:?}: {ran}");
    }
    sign(&world, DRAFT, "acme");
    for args in uses(DRAFT).into_iter().filter(|args| args[0] != "load") {
        run(&world, &args).ok();
    }
    // There is no podman to load into, and that is all that is wrong.
    assert!(!run(&world, &["load", DRAFT]).fails(2).stderr.contains("verified"));
}

#[test]
fn what_is_named_by_its_digest_is_in_the_scope_of_its_name() {
    let world = world();
    trust(&world, &["acme", "--key", "acme.pub"]);
    let listed = run(&world, &["list", "--format", "json"]).ok().json();
    let digest = listed[0]["digest"].as_str().unwrap().to_owned();
    let refused = |args: &[&str]| {
        let ran = run(&world, args).fails(1);
        assert!(
            ran.stderr.contains("is not verified") && ran.stderr.contains("it has no signature"),
            "{args:?}: {ran}"
        );
    };
    for name in [digest.as_str(), &digest["sha256:".len()..]] {
        world.write("set.yaml", collection(name));
        refused(&["collection", "install", "-f", "set.yaml", "-o", "out"]);
        refused(&["install", name, "-o", "out"]);
    }
    refused(&["save", "--storage", "stick", DRAFT]);
    // Also where it has lost the name to another.
    run(&world, &["promote", DRAFT, "--to", "testing", "--load=never", "--local"]).fails(1);
    sign(&world, DRAFT, "acme");
    run(&world, &["promote", DRAFT, "--to", "testing", "--load=never", "--sign", "--key", "acme.key"]).ok();
    run(&world, &["trust", "remove", "--user", "acme"]).ok();
    trust(&world, &["acme", "--key", "other.pub"]);
    world.write("hr/new.md", "new\n");
    world.build("hr");
    for name in [digest.clone(), format!("acme/hr@{digest}")] {
        let ran = run(&world, &["install", &name, "-o", "out"]).fails(1);
        assert!(ran.stderr.contains("not by the key"), "{ran}");
    }
    // By a digest in a repository it is held to what that is asked, whatever it was.
    run(&world, &["trust", "remove", "--user", "acme"]).ok();
    trust(&world, &["vault", "--key", "other.pub"]);
    let vault = &format!("vault/hr@{digest}");
    world.write("set.yaml", collection(vault));
    for args in [
        &["collection", "install", "-f", "set.yaml", "-o", "out"][..],
        &["install", vault, "-o", "out"],
        &["convert", vault, "other/copy:1.0.0", "--load=never"],
        &["generate", "cdi", vault],
    ] {
        let ran = run(&world, args).fails(1);
        assert!(ran.stderr.contains(&format!("{vault} is not verified")), "{args:?}: {ran}");
    }
    // What is installed by a digest alone says who has signed it, and comes from where it was.
    let signed = run(&world, &["install", &digest, "-o", "out", "--key", "acme.pub"]).ok();
    assert!(signed.stdout.contains("Verified: signed by "), "{signed}");
    let receipt = fs::read(world.path("out/.skillimage/receipts/hr.json")).unwrap();
    let receipt: Value = serde_json::from_slice(&receipt).unwrap();
    assert_eq!(receipt["reference"], json!(format!("acme/hr@{digest}")));
    world.write("set.yaml", collection(&digest));
    let again = run(&world, &["collection", "install", "-f", "set.yaml", "-o", "out"]).ok();
    assert!(again.stdout.ends_with("1 up to date\n"), "{again}");
}

#[test]
fn what_is_not_verified_here_is_refused_where_its_registry_is_gone() {
    let world = world();
    let gone = "127.0.0.1:1/acme/hr:1.0.0-draft";
    run(&world, &["tag", DRAFT, gone, "--load=never"]).ok();
    trust(&world, &["127.0.0.1:1/acme", "--key", "acme.pub"]);
    world.write("set.yaml", collection(gone));
    let refused = run(&world, &["collection", "generate", "-f", "set.yaml"]).fails(1);
    assert!(refused.stderr.contains(&format!("{gone} is not verified")), "{refused}");
}

#[test]
fn programs_are_told_what_is_asked_and_what_there_is() {
    let world = world();
    let file = world.path("home/.config/skillctl/trust.toml");
    let add = ["trust", "add", "--user", "acme", "--key", "acme.pub", "--format", "json"];
    assert_eq!(run(&world, &add).ok().json(), json!({"scope": "acme", "file": file}));
    let id = run(&world, &["key", "show", "acme.pub", "--format", "json"]).ok().json()["id"].clone();
    for verb in [&["verify"][..], &["trust", "check"]] {
        let said = run(&world, &[verb, &[DRAFT, "--format", "json"]].concat()).fails(1).json();
        assert_eq!((&said["reference"], &said["refused"]["found"]), (&json!(DRAFT), &json!("it has no signature")));
        let required = said["refused"]["required"].as_str().unwrap();
        assert!(required.starts_with(&format!("signed by {}", id.as_str().unwrap())), "{said}");
        assert!(said["signers"] == json!([]) || said["verified"].is_null(), "{said}");
    }
    let remove = ["trust", "remove", "--user", "acme", "--format", "json"];
    assert_eq!(run(&world, &remove).ok().json(), json!({"scope": "acme", "removed": "scope", "file": file}));
    let unasked = run(&world, &["verify", DRAFT, "--format", "json"]).fails(2);
    assert!(unasked.stdout.is_empty() && unasked.stderr.contains("nothing says who"), "{unasked}");
}

#[test]
fn what_is_installed_says_who_has_signed_it() {
    let world = world();
    sign(&world, DRAFT, "acme");
    let first = run(&world, &["install", DRAFT, "-t", "claude"]).ok();
    assert!(!first.stdout.contains("Verified"), "{first}");
    let id = run(&world, &["key", "show", "acme.pub", "--format", "json"]).ok().json()["id"].clone();
    let said = run(&world, &["install", DRAFT, "-t", "claude", "--key", "acme.pub"]).ok();
    assert!(said.stdout.ends_with(&format!("Verified: signed by {}\n", id.as_str().unwrap())), "{said}");
    let row = run(&world, &["install", DRAFT, "-t", "claude", "--key", "acme.pub", "--format", "json"]).ok().json();
    assert_eq!((&row[0]["written"], &row[0]["verified"]["signers"][0]["key"]), (&json!(false), &id));
}

#[test]
fn a_narrower_scope_adds_to_a_broader_one() {
    let world = world();
    trust(&world, &["acme", "--key", "acme.pub"]);
    trust(&world, &["acme/hr", "--key", "other.pub"]);
    let keys = |name: &str| sign(&world, DRAFT, name);
    keys("other");
    run(&world, &["verify", DRAFT]).fails(1);
    keys("acme");
    let verified = run(&world, &["verify", DRAFT, "--format", "json"]).ok().json();
    assert_eq!(verified["signers"].as_array().unwrap().len(), 4);
    let checked = run(&world, &["trust", "check", DRAFT, "--format", "json"]).ok().json();
    let scopes: Vec<&str> =
        checked["asked"].as_array().unwrap().iter().map(|one| one["scope"].as_str().unwrap()).collect();
    assert_eq!(scopes, ["acme", "acme/hr"]);
    run(&world, &["trust", "remove", "--user", "acme/hr", "--key", "acme.pub"]).fails(2);
    assert!(
        run(&world, &["trust", "remove", "--user", "acme/hr", "--key", "other.pub"])
            .fails(2)
            .stderr
            .contains("no key any more")
    );
    run(&world, &["trust", "remove", "--user", "acme/hr"]).ok();
    let list = run(&world, &["trust", "list", "--format", "json"]).ok().json();
    assert_eq!(list.as_array().unwrap().len(), 1);
}

#[test]
fn a_set_that_is_refused_pins_nothing() {
    let world = world();
    world.skill("legal", "1.0.0");
    world.build("legal");
    let legal = "acme/legal:1.0.0-draft";
    sign(&world, DRAFT, "acme");
    run(&world, &["save", "-o", "set", DRAFT, legal]).ok();
    trust(&world, &["acme", "--key", "acme.pub", "--key", "other.pub", "--pin"]);
    let load = ["--store", "there", "load", "--load=never", "-i", "set"];
    let pins = world.path("there/.signers.json");
    assert!(run(&world, &load).fails(1).stderr.contains("acme/legal:1.0.0-draft is not verified"));
    assert!(!pins.exists());
    sign(&world, legal, "other");
    fs::remove_file(world.path("set")).unwrap();
    run(&world, &["save", "-o", "set", DRAFT, legal]).ok();
    run(&world, &load).ok();
    let pins: Value = serde_json::from_slice(&fs::read(pins).unwrap()).unwrap();
    let id = |name: &str| {
        run(&world, &["key", "show", &format!("{name}.pub"), "--format", "json"]).ok().json()["id"].clone()
    };
    assert_eq!(pins, json!({"acme/hr": id("acme"), "acme/legal": id("other")}));
}

#[test]
fn a_set_by_two_signers_of_a_pinned_repository_is_refused() {
    let world = world();
    sign(&world, DRAFT, "acme");
    world.skill_version("hr", "1.1.0");
    world.build("hr");
    let newer = "acme/hr:1.1.0-draft";
    sign(&world, newer, "other");
    run(&world, &["save", "-o", "set", DRAFT, newer]).ok();
    trust(&world, &["acme", "--key", "acme.pub", "--key", "other.pub", "--pin"]);
    let there = |args: &[&str]| run(&world, &[&["--store", "there"], args].concat());
    let refused = there(&["load", "--load=never", "-i", "set"]).fails(1).stderr;
    assert!(refused.contains("which acme/hr is pinned to"), "{refused}");
    assert_eq!(there(&["list", "--format", "json"]).ok().json(), json!([]));
    assert!(!world.path("there/.signers.json").exists());
    there(&["load", "--load=never", "-i", "set", DRAFT]).ok();
}

#[test]
fn a_set_is_held_to_whom_its_repository_is_pinned_to_and_not_to_its_first_signer() {
    let world = world();
    world.skill_version("hr", "1.1.0");
    world.build("hr");
    let newer = "acme/hr:1.1.0-draft";
    for (reference, key) in [(DRAFT, "other"), (DRAFT, "acme"), (newer, "acme")] {
        sign(&world, reference, key);
    }
    run(&world, &["save", "-o", "set", DRAFT, newer]).ok();
    trust(&world, &["acme", "--key", "acme.pub", "--key", "other.pub", "--pin"]);
    let load =
        |wanted: &[&str]| run(&world, &[&["--store", "there", "load", "--load=never", "-i", "set"], wanted].concat());
    load(&[newer]).ok();
    load(&[]).ok();
}

#[test]
fn podman_forgets_what_it_was_told_and_nothing_else() {
    let world = world();
    let reject = json!([{"type": "reject"}]);
    let before = json!({
        "default": [{"type": "insecureAcceptAnything"}],
        "transports": {"docker": {"r.example/own": reject, "r.example/b": reject}},
    });
    world.write("etc/policy.json", before.to_string());
    world.write("etc/d/10-own.yaml", "docker:\n  r.example/own:\n    use-sigstore-attachments: true\n");
    let install = |flags: &[&str]| {
        let own = ["trust", "install", "--policy", "etc/policy.json", "--registries.d", "etc/d"];
        run(&world, &[&own[..], flags].concat())
    };
    let read = |name: &str| fs::read_to_string(world.path("etc").join(name)).unwrap();
    let docker = || -> Value {
        let file: Value = serde_json::from_str(&read("policy.json")).unwrap();
        file["transports"]["docker"].clone()
    };
    assert!(install(&[]).fails(2).stderr.contains("there is nothing that podman could hold to"));
    for scope in ["r.example/a", "r.example/b"] {
        trust(&world, &[scope, "--key", "acme.pub"]);
    }
    assert!(install(&[]).fails(2).stderr.contains("has r.example/b already"));
    assert_eq!(docker(), before["transports"]["docker"]);
    install(&["--replace"]).ok();
    let (policy, names) = (read("policy.json"), read("d/50-skillctl.yaml"));
    assert_eq!(docker().as_object().unwrap().len(), 3);
    install(&[]).ok();
    assert_eq!((read("policy.json"), read("d/50-skillctl.yaml")), (policy, names));
    // A key more: what is ours is changed without a flag.
    trust(&world, &["r.example/b", "--key", "other.pub"]);
    install(&[]).ok();
    assert_eq!(docker()["r.example/b"][0]["keyDatas"].as_array().unwrap().len(), 2);
    run(&world, &["trust", "remove", "--user", "r.example/a"]).ok();
    let would = install(&["--dry-run"]).ok().stdout;
    assert!(would.starts_with("Would take r.example/a out of ") && docker()["r.example/a"].is_array(), "{would}");
    assert!(install(&[]).ok().stdout.starts_with("Took r.example/a out of "));
    assert!(docker()["r.example/a"].is_null() && !read("d/50-skillctl.yaml").contains("r.example/a"));
    assert!(read("d/50-skillctl.yaml").contains("  r.example/b:\n"));
    assert!(would.contains(&read("policy.json")) && would.ends_with(&read("d/50-skillctl.yaml")), "{would}");
    // What was replaced is there again, and of ours nothing is left.
    run(&world, &["trust", "remove", "--user", "r.example/b"]).ok();
    assert!(install(&["--dry-run"]).ok().stdout.ends_with("Would remove etc/d/50-skillctl.yaml\n"));
    let last = install(&[]).ok();
    assert!(last.stderr.contains("gets back what it asked of r.example/b before that was replaced"), "{last}");
    let sorted = |value: Value| serde_json::from_value::<std::collections::BTreeMap<String, Value>>(value).unwrap();
    assert_eq!(sorted(docker()), sorted(before["transports"]["docker"].clone()));
    assert!(!world.path("etc/d/50-skillctl.yaml").exists() && world.path("etc/d/10-own.yaml").exists());
    install(&[]).fails(2);
}

#[test]
fn what_is_shown_is_a_policy_by_itself() {
    let world = world();
    trust(&world, &["r.example/a", "--key", "acme.pub"]);
    let reject = json!([{"type": "reject"}]);
    let policy = "home/.config/containers/policy.json";
    let docker = json!({"r.example/b": reject});
    let other = json!({"default": reject, "transports": {"docker": docker, "docker-daemon": {"": reject}}});
    world.write(policy, other.to_string());
    // One name in two files stops every pull.
    let read = "docker:\n  r.example/c:\n    use-sigstore-attachments: true\n";
    world.write("home/.config/containers/registries.d/10-own.yaml", read);
    trust(&world, &["r.example/c", "--key", "acme.pub"]);
    let shown = run(&world, &["trust", "show", "--format", "json"]).ok().json();
    let mut whole = shown["policy"].clone();
    assert_eq!(shown["registries_d"], json!(["r.example/a"]));
    let mut ours = |name: &str| whole["transports"]["docker"].as_object_mut().unwrap().remove(name).unwrap();
    let (ours, _) = (ours("r.example/a"), ours("r.example/c"));
    assert_eq!((ours.as_array().unwrap().len(), &ours[0]["type"], whole), (1, &json!("sigstoreSigned"), other.clone()));
    let text = run(&world, &["trust", "show"]).ok().stdout;
    let config = world.path("home/.config/containers").display().to_string();
    assert!(text.starts_with(&format!("In {config}/policy.json:\n\n{{\n")), "{text}");
    let names = format!("\nIn {config}/registries.d/50-skillctl.yaml:\n\n");
    assert!(text.contains(&names) && text.contains("\ndocker:\n  r.example/a:\n"), "{text}");
    // What hides the machine's from podman is changed where that is said only.
    world.write("etc/policy.json", other.to_string());
    let install = ["trust", "install", "--dry-run", "--policy", "etc/policy.json"];
    let refused = run(&world, &install).fails(2).stderr;
    assert!(refused.contains(&format!("podman reads {config}/registries.d in place of /etc/")), "{refused}");
    run(&world, &[&install[..], &["--inherit", "--registries.d", &format!("{config}/registries.d")]].concat()).ok();
    world.write(policy, "{\"default\": [{\"type\": \"reject\"}],}");
    assert!(run(&world, &["trust", "show"]).fails(2).stderr.contains("policy.json is damaged"));
}

/// What podman refuses of it would be everything, if its signatures were read no more.
#[test]
fn a_scope_that_stays_has_its_signatures_read() {
    let world = world();
    let anything = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}";
    let install = |policy: &str| run(&world, &["trust", "install", "--policy", policy, "--registries.d", "etc/d"]);
    let names = || fs::read_to_string(world.path("etc/d/50-skillctl.yaml")).unwrap();
    for file in ["one.json", "other.json"] {
        world.write(&format!("etc/{file}"), anything);
    }
    trust(&world, &["r.example/a", "--key", "acme.pub"]);
    // By another spelling of its path the file is the same, also where it is new.
    install("./etc/one.json").ok();
    install("etc/other.json").ok();
    assert_eq!(names().matches("# wrote ").count(), 2);
    run(&world, &["trust", "remove", "--user", "r.example/a"]).ok();
    assert!(install("etc/../etc/one.json").ok().stdout.starts_with("Took r.example/a out of "));
    assert!(names().contains("  r.example/a:\n    use-sigstore-attachments: true\n"), "{}", names());
    let changed = fs::read_to_string(world.path("etc/other.json")).unwrap().replace("keyData", "keyPath");
    world.write("etc/other.json", &changed);
    for _ in 0..2 {
        let stays = install("etc/other.json").ok().stderr;
        assert!(stays.contains("has r.example/a as somebody has changed it: it stays"), "{stays}");
        assert!(names().contains("  r.example/a:\n    use-sigstore-attachments: true\n"), "{}", names());
    }
    // Whoever takes that back has it taken out.
    world.write("etc/other.json", changed.replace("keyPath", "keyData"));
    install("etc/other.json").ok();
    assert!(!world.path("etc/d/50-skillctl.yaml").exists());
    // A new file is the same one afterwards, whatever its path goes by; and a link leads to it.
    trust(&world, &["r.example/a", "--key", "acme.pub"]);
    std::os::unix::fs::symlink("later/new.json", world.path("link.json")).unwrap();
    let made = install("link.json").ok().stdout;
    assert!(made.contains(&world.path("later/new.json").display().to_string()), "{made}");
    assert!(world.path("link.json").is_symlink());
    run(&world, &["trust", "remove", "--user", "r.example/a"]).ok();
    assert!(install("./later/../later/new.json").ok().stdout.starts_with("Took r.example/a out of "));
    // An address is a list to YAML where it is not quoted.
    trust(&world, &["[::1]:5000/a", "--key", "acme.pub"]);
    install("etc/one.json").ok();
    assert!(names().contains("\n  \"[::1]:5000/a\":\n"), "{}", names());
}

#[test]
fn what_leads_to_the_policy_stays_a_link() {
    let world = world();
    let file = world.path("home/.config/skillctl/trust.toml");
    world.write("dotfiles/trust.toml", "");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(world.path("dotfiles/trust.toml"), &file).unwrap();
    trust(&world, &["acme", "--key", "acme.pub"]);
    assert!(file.is_symlink());
    assert!(fs::read_to_string(world.path("dotfiles/trust.toml")).unwrap().contains("prefix = \"acme\""));
}

#[test]
fn installations_at_once_lose_nothing() {
    let world = world();
    world.write("etc/policy.json", "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}");
    let names = ["a", "b", "c", "d", "e", "f"];
    for name in names {
        let config = world.path(name);
        let add = ["trust", "add", "--user", &format!("r.example/{name}"), "--key", "acme.pub"];
        let added: Ran = world.command(add).env("XDG_CONFIG_HOME", config).output().unwrap().into();
        added.ok();
    }
    // Each with a policy of its own, and names of its own to be read.
    let start = |name: &&str| {
        let names = format!("etc/{name}");
        let install = ["trust", "install", "--policy", "etc/policy.json", "--registries.d", &names];
        world
            .command(install)
            .env("XDG_CONFIG_HOME", world.path(name))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let all: Vec<_> = names.iter().map(start).collect();
    for mut one in all {
        assert!(one.wait().unwrap().success());
    }
    let file: Value = serde_json::from_slice(&fs::read(world.path("etc/policy.json")).unwrap()).unwrap();
    assert_eq!(file["transports"]["docker"].as_object().unwrap().len(), names.len(), "{file}");
}

#[test]
fn a_name_that_leaves_a_scope_is_warned_of() {
    let world = world();
    trust(&world, &["acme", "--key", "acme.pub"]);
    let digest = world.run(["inspect", DRAFT, "--format", "json"]).ok().json()["digest"].as_str().unwrap().to_owned();
    let file = world.path("home/.config/skillctl/trust.toml").display().to_string();
    let warning = format!("warning: what is asked of acme/hr ({file}, acme) is not asked of other/hr\n");
    let give = [
        (&["tag", "--load=never", DRAFT, "other/hr:1.0.0-draft"][..], warning.as_str()),
        (&["tag", "--load=never", &digest[7..19], "other/hr:2"], &warning),
        (&["tag", "--load=never", DRAFT, "acme/copy:1.0.0-draft"], ""),
        (&["tag", "--load=never", "other/hr:2", "third/hr:2"], ""),
    ];
    for (args, said) in give {
        assert_eq!(world.run(args).ok().stderr, said, "{args:?}");
    }
}

#[test]
fn states_and_pins_are_held() {
    let world = world();
    trust(&world, &["acme", "--state", "testing"]);
    let refused = run(&world, &["install", DRAFT, "-t", "claude"]).fails(1);
    assert!(refused.stderr.contains("must be testing (") && refused.stderr.contains("and it is draft"), "{refused}");
    run(&world, &["promote", DRAFT, "--to", "testing", "--load=never"]).ok();
    run(&world, &["install", "acme/hr:1.0.0-testing", "-t", "claude"]).ok();

    let world = crate::trust::world();
    trust(&world, &["acme", "--key", "acme.pub", "--key", "other.pub", "--pin"]);
    // Whoever only looks pins nothing.
    sign(&world, DRAFT, "other");
    for look in [&["verify", DRAFT][..], &["trust", "check", DRAFT], &["install", DRAFT, "-t", "claude", "--dry-run"]] {
        run(&world, look).ok();
        assert!(!world.store().join(".signers.json").exists(), "{look:?}");
    }
    // Neither does another spelling of a host lead around a pin, also where an older file has that.
    world.write("store/.signers.json", "{\"R.io:443/acme/hr\": \"sha256:x\"}");
    assert!(run(&world, &["trust", "remove", "--pinned", "r.io/acme/hr"]).ok().stdout.contains("from sha256:x"));
    // The pin takes whom the policy names first of those that have signed.
    let world = crate::trust::world();
    trust(&world, &["acme", "--key", "acme.pub", "--key", "other.pub", "--pin"]);
    sign(&world, DRAFT, "acme");
    run(&world, &["install", DRAFT, "-t", "claude"]).ok();
    world.skill_version("hr", "1.1.0");
    world.build("hr");
    sign(&world, "acme/hr:1.1.0-draft", "other");
    let key = |name: &str| {
        let shown = run(&world, &["key", "show", &format!("{name}.pub"), "--format", "json"]).ok().json();
        shown["id"].as_str().unwrap().to_owned()
    };
    run(&world, &["verify", DRAFT]).ok();
    for look in [&["verify"][..], &["trust", "check"]] {
        let refused = run(&world, &[look, &["acme/hr:1.1.0-draft"]].concat()).fails(1).stderr;
        assert!(refused.contains("which acme/hr is pinned to"), "{refused}");
    }
    let refused = run(&world, &["install", "acme/hr:1.1.0-draft", "-t", "claude"]).fails(1).stderr;
    for word in [&key("acme"), &key("other"), "which acme/hr is pinned to", "trust remove --pinned acme/hr"] {
        assert!(refused.contains(word), "{word}: {refused}");
    }
    // Whom it is pinned to publishes nothing that only somebody else has signed.
    world.skill_version("hr", "1.2.0");
    world.build("hr");
    run(&world, &["trust", "remove", "--user", "acme"]).ok();
    world.run(["promote", "acme/hr:1.2.0-draft", "--to", "testing", "--load=never"]).ok();
    trust(&world, &["acme", "--key", "acme.pub", "--key", "other.pub", "--pin"]);
    let publish = || {
        let own =
            ["promote", "acme/hr:1.2.0-testing", "--to", "published", "--load=never", "--sign", "--key", "acme.key"];
        run(&world, &own)
    };
    sign(&world, "acme/hr:1.2.0-testing", "other");
    let refused = publish().fails(1).stderr;
    assert!(refused.contains("which acme/hr is pinned to"), "{refused}");
    sign(&world, "acme/hr:1.2.0-testing", "acme");
    publish().ok();
    run(&world, &["trust", "remove", "--pinned", "acme/hr"]).ok();
    run(&world, &["install", "acme/hr:1.1.0-draft", "-t", "claude"]).ok();
    assert!(run(&world, &["install", DRAFT, "-t", "claude"]).fails(1).stderr.contains(&key("other")));
}

#[test]
fn what_was_signed_is_not_upgraded_to_what_is_not() {
    let world = world();
    let publish = |from: &str| {
        let version = from.to_owned();
        for (state, to) in [("-draft", "testing"), ("-testing", "published")] {
            run(&world, &["promote", &format!("acme/hr:{version}{state}"), "--to", to, "--load=never"]).ok();
        }
    };
    publish("1.0.0");
    sign(&world, "acme/hr:1.0.0", "acme");
    run(&world, &["install", "acme/hr:1.0.0", "-t", "claude", "--key", "acme.pub"]).ok();
    world.skill_version("hr", "1.1.0");
    world.build("hr");
    publish("1.1.0");
    let there = || fs::read_to_string(world.path("home/.claude/skills/hr/skill.yaml")).unwrap();
    let before = there();
    let refused = run(&world, &["upgrade", "hr", "-t", "claude"]).fails(1).stderr;
    assert!(
        refused.contains("(what is installed was signed by it)") && refused.contains("it has no signature"),
        "{refused}"
    );
    sign(&world, "acme/hr:1.1.0", "other");
    run(&world, &["upgrade", "hr", "-t", "claude"]).fails(1);
    assert_eq!(there(), before);
    // Who says so may change the key.
    run(&world, &["upgrade", "hr", "-t", "claude", "--key", "other.pub"]).ok();
    assert!(there().contains("1.1.0"));
}

#[test]
fn nothing_is_used_by_a_policy_that_nobody_can_read() {
    let world = world();
    world.write("home/.config/skillctl/trust.toml", "[[scope]]\nprefix = \"other\"\nkeys = [\"gone.pub\"]\n");
    run(&world, &["list"]).ok();
    for args in uses(DRAFT) {
        let ran = run(&world, &args).fails(2);
        assert!(ran.stderr.contains("gone.pub"), "{args:?}: {ran}");
    }
    world.write("home/.config/skillctl/trust.toml", "scope = 1\n");
    assert!(run(&world, &["install", DRAFT, "-t", "claude"]).fails(2).stderr.contains("trust.toml: line 1: "));
}

#[test]
fn a_promotion_signs_before_a_tag_names_it() {
    let world = world();
    trust(&world, &["acme", "--key", "acme.pub"]);
    let promote = |from: &str, to: &str, flags: &[&str]| {
        run(&world, &[&["promote", from, "--to", to, "--load=never"], flags].concat())
    };
    let testing = "acme/hr:1.0.0-testing";
    let refused = promote(DRAFT, "testing", &[]).fails(1).stderr;
    assert!(refused.contains("without --sign it would have no signature"), "{refused}");
    assert!(
        refused.contains("hint: skillctl promote acme/hr:1.0.0-draft --to testing --sign --key FILE, with a key"),
        "{refused}"
    );
    promote(DRAFT, "testing", &["--dry-run"]).fails(1);
    // What is refused is the image that is there.
    let inspected = world.run(["inspect", DRAFT, "--format", "json"]).ok().json();
    let records = run(&world, &["audit", "show", "--action", "promote", "--format", "json"]).ok().json();
    let record = &records[0];
    assert_eq!(
        (records.as_array().unwrap().len(), &record["reference"], &record["digest"], &record["result"]),
        (1, &json!(DRAFT), &inspected["digest"], &json!("refused"))
    );
    assert!(record["reason"].as_str().unwrap().contains("must be promoted to testing with a signature by sha256:"));
    let other = promote(DRAFT, "testing", &["--sign", "--key", "other.key"]).fails(1).stderr;
    assert!(other.contains("it would be signed by"), "{other}");
    world.run(["inspect", testing]).fails(2);
    let id = run(&world, &["key", "show", "acme.pub", "--format", "json"]).ok().json()["id"].clone();
    let said = promote(DRAFT, "testing", &["--sign", "--key", "acme.key"]).ok().stdout;
    assert!(said.contains(&format!("\nSigned: by {}\n", id.as_str().unwrap())), "{said}");
    let records = run(&world, &["audit", "show", "--action", "promote", "--format", "json"]).ok().json();
    assert_eq!(records.as_array().unwrap().last().unwrap()["signers"], json!([id]));
    run(&world, &["verify", testing]).ok();
    // A repository that is pinned is promoted by nobody else: what is taken in then would be refused.
    trust(&world, &["acme", "--key", "other.pub", "--pin"]);
    run(&world, &["install", testing, "-t", "claude"]).ok();
    let refused = promote(testing, "published", &["--sign", "--key", "other.key"]).fails(1).stderr;
    assert!(refused.contains("which acme/hr is pinned to") && refused.contains("trust remove --pinned"), "{refused}");
    promote(testing, "published", &["--sign", "--key", "acme.key"]).ok();
    // The list says so.
    trust(&world, &["mirror/acme", "--key", "acme.pub", "--signed-as", "acme"]);
    let list = run(&world, &["trust", "list"]).ok().stdout;
    let more: Vec<&str> =
        list.lines().filter(|line| line.contains("  pin  ") || line.contains("signed as acme  ")).collect();
    assert_eq!(more.len(), 2, "{list}");
    // What becomes published has to have been signed before.
    let world = crate::trust::world();
    let promote = |from: &str, to: &str, flags: &[&str]| {
        run(&world, &[&["promote", from, "--to", to, "--load=never"], flags].concat())
    };
    promote(DRAFT, "testing", &[]).ok();
    trust(&world, &["acme", "--key", "acme.pub"]);
    let refused = promote(testing, "published", &["--sign", "--key", "acme.key"]).fails(1).stderr;
    assert!(refused.contains("it has no signature"), "{refused}");
    // In the store, where the name would be looked for on its registry.
    let remote = "registry.example/acme/hr:1.0.0-testing";
    world.run(["tag", testing, remote, "--load=never"]).ok();
    trust(&world, &["registry.example/acme", "--key", "acme.pub"]);
    let refused = promote(remote, "published", &["--local", "--sign", "--key", "acme.key"]).fails(1).stderr;
    assert!(refused.contains(&format!("\nhint: skillctl trust check --local {remote} says what")), "{refused}");
    let refused = run(&world, &["verify", "--local", remote]).fails(1).stderr;
    assert!(refused.contains(&format!("\nhint: skillctl trust check --local {remote} says what")), "{refused}");
    let refused = run(&world, &["trust", "check", "--local", remote]).fails(1).stderr;
    assert!(refused.contains(&format!("\nhint: skillctl sign --local {remote} --key FILE, with a key")), "{refused}");
    sign(&world, testing, "acme");
    promote(testing, "published", &["--sign", "--key", "acme.key"]).ok();
    let verified: Value = run(&world, &["verify", "acme/hr:1.0.0", "--format", "json"]).ok().json();
    assert_eq!(verified["signers"][0]["reference"], "localhost/acme/hr:1.0.0");
    promote("acme/hr:1.0.0", "deprecated", &[]).fails(1);
    promote("acme/hr:1.0.0", "deprecated", &["--sign", "--key", "acme.key"]).ok();
    run(&world, &["verify", "acme/hr:1.0.0"]).ok();
}

#[test]
fn what_was_signed_for_the_origin_counts_at_its_mirror() {
    let world = world();
    let (origin, mirror) = ("registry.example/acme/hr:1.0.0-draft", "mirror.example/all/acme/hr:1.0.0-draft");
    for name in [origin, mirror] {
        world.run(["tag", "--load=never", DRAFT, name]).ok();
    }
    run(&world, &["sign", "--local", origin, "--key", "acme.key"]).ok();
    // Bundles bind no repository: without them it is the simple signature that counts.
    let index: Value = serde_json::from_slice(&fs::read(world.store().join("index.json")).unwrap()).unwrap();
    let kept = index["manifests"].as_array().unwrap().iter().filter(|entry| entry["artifactType"].is_null());
    let index = json!({"schemaVersion": 2, "manifests": kept.collect::<Vec<_>>()});
    fs::write(world.store().join("index.json"), index.to_string()).unwrap();
    trust(&world, &["mirror.example", "--key", "acme.pub"]);
    let install = ["install", "--pull=never", mirror, "-o", "out"];
    let refused = run(&world, &install).fails(1).stderr;
    assert!(
        refused.contains("for the repository registry.example/acme/hr, not mirror.example/all/acme/hr"),
        "{refused}"
    );
    let conf = "[[registry]]\nprefix = \"registry.example\"\nlocation = \"registry.example\"\n[[registry.mirror]]\nlocation = \"mirror.example/all\"\n";
    world.write("registries.conf", conf);
    let mut mirrored = world.command(install);
    let ran: Ran = mirrored.env("CONTAINERS_REGISTRIES_CONF", world.path("registries.conf")).output().unwrap().into();
    ran.ok();
    // Or where the policy says so.
    run(&world, &["trust", "remove", "--user", "mirror.example"]).ok();
    trust(&world, &["mirror.example/all", "--key", "acme.pub", "--signed-as", "registry.example"]);
    run(&world, &[&install[..], &["--force"]].concat()).ok();
}

#[test]
fn what_was_attested_is_attested_of_what_it_is_promoted_to() {
    let testing = "acme/hr:1.0.0-testing";
    let promote = |world: &World| {
        run(world, &["promote", DRAFT, "--to", "testing", "--load=never", "--sign", "--key", "acme.key"])
    };
    let world = world();
    sign(&world, DRAFT, "acme");
    trust(&world, &["acme", "--key", "acme.pub", "--attestation", "provenance"]);
    let refused = run(&world, &["install", DRAFT, "-t", "claude"]).fails(1).stderr;
    assert!(refused.contains("must be attested by") && refused.contains("it has no attestation"), "{refused}");
    // What nobody has attested is promoted to nothing, and no tag names it.
    let refused = promote(&world).fails(1).stderr;
    assert!(refused.contains("(provenance)") && refused.contains("it has no attestation"), "{refused}");
    world.run(["inspect", testing]).fails(2);
    run(&world, &["attest", DRAFT, "--provenance", "--key", "acme.key"]).ok();
    run(&world, &["install", DRAFT, "-t", "claude"]).ok();
    let promoted = promote(&world);
    let promoted = promoted.ok();
    run(&world, &["verify", testing]).ok();
    let listed = ["inspect", "--attestations", testing, "--key", "acme.pub", "--format", "json"];
    let attestations = run(&world, &listed).ok().json();
    let subjects = attestations.to_string();
    let digest = world.run(["inspect", testing, "--format", "json"]).ok().json()["digest"].clone();
    assert!(subjects.contains(digest.as_str().unwrap().trim_start_matches("sha256:")), "{promoted} {attestations}");
    // By a stranger it counts for nothing.
    let world = crate::trust::world();
    sign(&world, DRAFT, "acme");
    run(&world, &["attest", DRAFT, "--provenance", "--key", "other.key"]).ok();
    trust(&world, &["acme", "--key", "acme.pub", "--attestation", "provenance"]);
    run(&world, &["verify", DRAFT]).fails(1);
    promote(&world).fails(1);
}

#[test]
fn to_verify_is_to_want_a_signature() {
    let world = world();
    // A scope that asks for a state alone has nobody's word for anything.
    trust(&world, &["acme", "--state", "draft"]);
    for verb in [&["verify", DRAFT][..], &["install", "--verify", DRAFT, "-t", "claude"]] {
        let refused = run(&world, verb).fails(2).stderr;
        assert!(refused.contains("nothing says who has to have signed acme/hr:1.0.0-draft"), "{refused}");
    }
    run(&world, &["install", DRAFT, "-t", "claude"]).ok();
    trust(&world, &["acme", "--key", "acme.pub"]);
    run(&world, &["install", "--verify", DRAFT, "-t", "claude", "--force"]).fails(1);
    sign(&world, DRAFT, "acme");
    run(&world, &["install", "--verify", DRAFT, "-t", "claude", "--force"]).ok();
}

#[test]
fn what_was_signed_is_not_replaced_by_what_is_not() {
    let world = world();
    sign(&world, DRAFT, "acme");
    run(&world, &["install", DRAFT, "-t", "claude", "--key", "acme.pub"]).ok();
    // The same again needs no key to be given: its signature is here.
    run(&world, &["install", DRAFT, "-t", "claude"]).ok();
    world.skill_version("hr", "1.1.0");
    world.build("hr");
    let install = ["install", "acme/hr:1.1.0-draft", "-t", "claude"];
    let refused = run(&world, &install).fails(1).stderr;
    assert!(refused.contains("what is installed was signed by it"), "{refused}");
    run(&world, &[&install[..], &["--force"]].concat()).ok();
}

#[test]
fn a_host_is_one_however_it_is_written() {
    let world = world();
    trust(&world, &["registry.example/acme", "--key", "acme.pub"]);
    trust(&world, &["index.docker.io/acme", "--key", "acme.pub"]);
    let list = run(&world, &["trust", "list", "--format", "json"]).ok().json();
    assert_eq!(list[1]["scope"], "docker.io/acme");
    for name in
        ["registry.example/acme/hr", "registry.example:443/acme/hr", "docker.io/acme/hr", "index.docker.io/acme/hr"]
    {
        let name = format!("{name}:1.0.0-draft");
        world.run(["tag", "--load=never", DRAFT, &name]).ok();
        let refused = run(&world, &["install", "--pull=never", &name, "-o", "out"]).fails(1).stderr;
        assert!(refused.contains("it has no signature"), "{name}: {refused}");
    }
}

#[test]
fn no_name_lies_about_a_digest() {
    let world = world();
    let index = fs::read_to_string(world.store().join("index.json")).unwrap();
    let lie = format!("acme/hr@sha256:{}", "0".repeat(64));
    fs::write(world.store().join("index.json"), index.replace(DRAFT, &lie)).unwrap();
    for verb in [&["inspect", &lie][..], &["install", &lie, "-t", "claude"], &["load", &lie]] {
        world.run(verb).fails(2);
    }
    assert!(!world.path("home/.claude/skills/hr").exists());
}

#[test]
fn the_log_has_what_became_of_the_policy() {
    let world = world();
    let ids = ["acme.pub", "other.pub"].map(|key| {
        run(&world, &["key", "show", key, "--format", "json"]).ok().json()["id"].as_str().unwrap().to_owned()
    });
    let [acme, other] = &ids;
    let both =
        ["acme", "--key", "acme.pub", "--key", "other.pub", "--state", "draft", "--attestation", "spdx", "--pin"];
    trust(&world, &both);
    // Twice is once, and is said so.
    let file = world.path("home/.config/skillctl/trust.toml").display().to_string();
    let again = run(&world, &[&["trust", "add", "--user"], &both[..]].concat()).ok().stdout;
    assert_eq!(again, format!("All of that is asked of acme already, in {file}\n"));
    // As trust list shows it, and no less than tells it apart.
    let digits = other.trim_start_matches("sha256:");
    let remove = |key: &str| run(&world, &["trust", "remove", "--user", "acme", "--key", key]);
    assert!(remove(&digits[..7]).fails(2).stderr.contains("No such file"));
    assert!(remove("00000000").fails(2).stderr.contains("has no scope acme with the key 00000000"));
    remove(&digits[..12]).ok();
    run(&world, &["trust", "remove", "--user", "acme"]).ok();
    let records = run(&world, &["audit", "show", "--action", "trust", "--format", "json"]).ok().json();
    let found: Vec<Value> =
        records.as_array().unwrap().iter().map(|one| json!([one["reference"], one["signers"], one["where"]])).collect();
    let more = "; states draft; attestations ";
    let want = [
        json!(["acme", ids, format!("added to {file}{more}spdx; pinned")]),
        json!(["acme", [other], format!("removed a key of acme from {file}")]),
        json!(["acme", [acme], format!("removed acme from {file}{more}https://spdx.dev/Document; pinned")]),
    ];
    assert_eq!(found, want);
    let refused = |args: &[&str]| run(&world, &[&["trust", "add", "--user"], args].concat()).fails(2).stderr;
    let nothing = refused(&["acme"]);
    assert!(nothing.contains("Adding acme: nothing is asked of its images\nhint: give --key FILE, "), "{nothing}");
    assert!(nothing.ends_with("--state STATE or --attestation TYPE\n"), "{nothing}");
    let upper = refused(&["registry.example/Acme", "--key", "acme.pub"]);
    let want = "\"registry.example/Acme\" is no name of a repository: those are in lower-case letters\n\
                hint: write registry.example/acme\n";
    assert!(upper.ends_with(want), "{upper}");
}

#[test]
fn what_is_generated_and_refused_is_recorded() {
    let world = world();
    trust(&world, &["acme", "--key", "acme.pub"]);
    let before = run(&world, &["audit", "show", "--format", "json"]).ok().json().as_array().unwrap().len();
    for kind in ["cdi", "kube", "volume"] {
        run(&world, &["generate", kind, DRAFT]).fails(1);
    }
    run(&world, &["sign", DRAFT, "--key", "acme.pub"]).fails(2);
    sign(&world, DRAFT, "acme");
    run(&world, &["generate", "kube", DRAFT]).ok();
    let records = run(&world, &["audit", "show", "--format", "json"]).ok().json();
    let digest = &world.run(["inspect", DRAFT, "--format", "json"]).ok().json()["digest"];
    let found: Vec<Value> = records.as_array().unwrap()[before..]
        .iter()
        .map(|one| json!([one["action"], one["result"], one["reference"], one["digest"]]))
        .collect();
    let refused = json!(["verify", "refused", DRAFT, digest]);
    let want =
        [&refused, &refused, &refused, &json!(["sign", "failed", DRAFT, null]), &json!(["sign", "ok", DRAFT, digest])];
    assert_eq!(found.iter().collect::<Vec<_>>(), want);
    // And why, all of it.
    let table = run(&world, &["audit", "show", "--result", "refused"]).ok().stdout;
    assert!(table.lines().nth(1).is_some_and(|line| line.ends_with("and it has no signature")), "{table}");
}
