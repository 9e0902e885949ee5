//! `install` and `upgrade` from registries: what is pulled, which versions count, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cell::{Done, World, matrix};
use crate::registry::gate::{Fault, Gate};
use crate::registry::{Kind, PASSWORD, Registry, USER, conf, digest_of};
use crate::site::{Site, said};

matrix! { @roots
    a_skill_is_pulled_and_installed,
    only_what_is_published_is_an_upgrade,
    an_image_of_another_tool_is_installed_under_its_name,
    a_hostile_layer_of_a_registry_is_not_installed,
    a_project_is_made_from_its_files,
}

/// The directory of a skill for claude.
fn skill(world: &World) -> PathBuf {
    world.home().join(".claude/skills/hr")
}

/// Publishes a version in the store of this site, and pushes it.
fn publish(world: &World, hub: &Registry, version: &str, notes: &str) -> String {
    world.skill("hr", version);
    fs::write(world.path("hr/notes.md"), notes).expect("a file");
    let skill = world.path("hr");
    world.skillctl(["build", skill.to_str().expect("UTF-8"), "--load=never"]).ok();
    for (from, to) in [("-draft", "testing"), ("-testing", "published")] {
        let name = format!("acme/hr:{version}{from}");
        world.skillctl(["promote", &name, "--to", to, "--local", "--load=never"]).ok();
    }
    let name = format!("acme/hr:{version}");
    said(&world.skillctl(["push", &name, &hub.name(&name)]).ok(), "Digest: ").to_owned()
}

fn claude(site: &Site<'_>, args: &[&str]) -> Done {
    site.skillctl([args, &["-t", "claude"]].concat())
}

fn a_skill_is_pulled_and_installed(world: &World) {
    let hub = Registry::start(world, Kind::TlsHtpasswd);
    conf::trust(world, &hub, conf::Place::Home);
    conf::auth_json(world, &[(&hub.address, USER, PASSWORD)]);
    let first = publish(world, &hub, "1.0.0", "first");
    let there = Site::other(world, "there");
    let name = hub.name("acme/hr:1.0.0");
    let installed = claude(&there, &["install", &name]).ok();
    assert_eq!(installed, format!("Installed {name} to {}", skill(world).display()));
    let mode = fs::metadata(skill(world).join("scripts/run.sh")).map(|metadata| metadata.permissions().mode() & 0o777);
    assert!(mode.is_err() || mode.is_ok_and(|mode| mode == 0o755), "exec bits");
    // A tag that moved is noticed, as pull notices it.
    world.skill("hr", "1.0.0");
    fs::write(world.path("hr/notes.md"), "second").expect("a file");
    let built =
        world.skillctl(["build", world.path("hr").to_str().expect("UTF-8"), "--load=never", "-t", "moved"]).ok();
    let second = said(&built, "Digest: ").to_owned();
    assert_ne!(first, second);
    world.skillctl(["push", "acme/hr:moved", &name, "--force"]).ok();
    claude(&there, &["install", &name]).ok();
    assert_eq!(fs::read_to_string(skill(world).join("notes.md")).expect("a file"), "second");
    let rows = there.skillctl(["list", "-i", "--format", "json"]).json();
    assert_eq!(rows[0]["digest"], json!(second));
    // Without the registry there is the store, with a warning, and what was there before comes from it.
    drop(hub);
    fs::remove_dir_all(skill(world)).expect("a directory");
    let again = claude(&there, &["install", &name, "--retry", "0"]);
    assert!(again.code == 0 && again.stderr.contains("taking") && again.stderr.contains("from the store"), "{again}");
    let back = claude(&there, &["rollback", "hr"]).ok();
    assert_eq!(back, "Rolled back hr 1.0.0 → 1.0.0 (claude)");
    assert_eq!(fs::read_to_string(skill(world).join("notes.md")).expect("a file"), "first");
    there.skillctl(["prune", "--grace", "0"]).ok();
    there.skillctl(["list", "-i", "--verify"]).ok();
}

fn only_what_is_published_is_an_upgrade(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    publish(world, &hub, "1.0.0", "1.0.0");
    let there = Site::other(world, "there");
    claude(&there, &["install", &hub.name("acme/hr:1.0.0")]).ok();
    // Newer, and none of them published: deprecated, a prerelease, a draft under a version's tag, no version at all.
    publish(world, &hub, "1.4.0", "1.4.0");
    world.skillctl(["promote", &hub.name("acme/hr:1.4.0"), "--to", "deprecated"]).ok();
    publish(world, &hub, "2.0.0-rc.1", "rc");
    let draft = world.build("hr", "1.5.0", &["--load=never"]);
    for tag in ["1.5.0", "v3.0.0", "1.6"] {
        world.skillctl(["push", "acme/hr:1.5.0-draft", &hub.name(&format!("acme/hr:{tag}"))]).ok();
    }
    assert_eq!(hub.tag("acme/hr", "1.5.0"), Some(draft.digest));
    let up_to_date = there.skillctl(["list", "-i", "-u"]).ok();
    assert_eq!(up_to_date, "All installed skills are up to date.");
    publish(world, &hub, "1.2.0", "1.2.0");
    // What has no state, under a version's tag, is another tool's and published.
    let mut manifest = hub.manifest("acme/hr", "1.2.0");
    manifest["annotations"].as_object_mut().expect("annotations").remove("io.skillimage.status");
    hub.put("acme/hr", "1.3.0", manifest.to_string().as_bytes());

    let listed = there.skillctl(["list", "-i", "-u", "-t", "claude"]).ok();
    let want = format!(
        "NAME  VERSION  LATEST  SOURCE{:width$}TARGET\nhr    1.0.0    1.3.0   {}  claude",
        "",
        hub.name("acme/hr:1.3.0"),
        width = hub.name("acme/hr:1.3.0").len() - 4
    );
    assert_eq!(listed, want);
    let checked = there.skillctl(["upgrade", "--all", "--check"]);
    assert_eq!((checked.code, checked.stdout.as_str()), (1, "hr 1.0.0 → 1.3.0 (claude)\n"));
    let upgraded = there.skillctl(["upgrade", "--all"]).ok();
    assert_eq!(upgraded, "Upgraded hr 1.0.0 → 1.3.0 (claude)\n\nUpgraded 1 skill(s).");
    assert_eq!(fs::read_to_string(skill(world).join("notes.md")).expect("a file"), "1.2.0");
    claude(&there, &["upgrade", "hr", "--to", "1.4.0"]).ok();
    assert_eq!(fs::read_to_string(skill(world).join("notes.md")).expect("a file"), "1.4.0");
    let none =
        claude(&there, &["upgrade", "hr", "--to", "9.9.9"]).refused(&[&hub.address, "acme/hr:9.9.9"], &["not found"]);
    assert!(none.contains("Upgrading hr"), "{none}");

    // One list of tags for each repository, and of manifests as few as decide.
    let gate = Gate::before(&hub);
    let other = Site::other(world, "other");
    let out = world.path("skills");
    for place in ["one", "two"] {
        let dir = out.join(place);
        other.skillctl(["install", &gate.name("acme/hr:1.0.0"), "-o", dir.to_str().expect("UTF-8")]).ok();
    }
    gate.reset();
    let dir = out.join("one");
    other.skillctl(["list", "-i", "-u", "-o", dir.to_str().expect("UTF-8")]).ok();
    assert_eq!((gate.count("GET", "/tags/list"), gate.count("GET", "/manifests/")), (1, 3), "1.5.0, 1.4.0, 1.3.0");
    // One that fails is said, and is no failure of the others.
    gate.on("GET", "/tags/list", 100, Fault::Status(500));
    let failed = other.skillctl(["list", "-i", "-u", "-o", dir.to_str().expect("UTF-8"), "--retry", "0"]);
    assert!(failed.code == 0 && failed.stderr.contains("Warning: cannot check hr: "), "{failed}");
    let all = other.skillctl(["upgrade", "--all", "-o", dir.to_str().expect("UTF-8"), "--retry", "0"]);
    assert_eq!((all.code, all.stdout.as_str()), (2, "No newer version was found.\n"), "{all}");
    let failed = other.skillctl(["upgrade", "hr", "-o", dir.to_str().expect("UTF-8"), "--retry", "0"]);
    assert_eq!(failed.code, 2, "{failed}");
}

fn an_image_of_another_tool_is_installed_under_its_name(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let tar = archive(&[("SKILL.md", "---\nname: other\ndescription: Of another tool.\n---\nText\n", "")]);
    hub.put("tools/their-skill", "1.0.0", &image(&hub, "tools/their-skill", &tar));
    let there = Site::other(world, "there");
    let name = hub.name("tools/their-skill:1.0.0");
    claude(&there, &["install", &name]).ok();
    let dir = world.home().join(".claude/skills/other");
    let card = fs::read_to_string(dir.join("skill.yaml")).expect("a card");
    assert!(card.contains("name: other\n") && card.contains(&name) && card.contains("  version: 1.0.0\n"), "{card}");
    let rows = there.skillctl(["list", "-i", "--format", "json"]).json();
    assert_eq!((&rows[0]["name"], &rows[0]["version"]), (&json!("other"), &json!("1.0.0")));
    hub.put("tools/their-skill", "1.1.0", &image(&hub, "tools/their-skill", &tar));
    claude(&there, &["upgrade", "other"]).ok();
    there.skillctl(["list", "-i", "--verify"]).ok();
    // What has no SKILL.md is no skill, whatever it is called.
    hub.put("tools/none", "1.0.0", &image(&hub, "tools/none", &archive(&[("README.md", "text", "")])));
    claude(&there, &["install", &hub.name("tools/none:1.0.0")]).refused(&["tools/none:1.0.0"], &["it is no skill"]);
    assert!(!world.home().join(".claude/skills/none").exists());
}

fn a_hostile_layer_of_a_registry_is_not_installed(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    publish(world, &hub, "1.0.0", "fine");
    let there = Site::other(world, "there");
    claude(&there, &["install", &hub.name("acme/hr:1.0.0")]).ok();
    let skill_md = ("SKILL.md", "---\nname: hr\ndescription: x\n---\n", "");
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("climbs", raw_archive("../../escaped", b'0', ""), "../../escaped"),
        ("absolute", raw_archive("/tmp/escaped", b'0', ""), "/tmp/escaped"),
        ("links-out", archive(&[skill_md, ("out", "", "/etc/passwd")]), "out"),
        ("device", raw_archive("null", b'3', ""), "null"),
        ("whiteout", raw_archive(".wh.SKILL.md", b'0', ""), ".wh.SKILL.md"),
    ];
    let before = fs::read_to_string(skill(world).join("notes.md")).expect("a file");
    for (tag, tar, named) in cases {
        let mut manifest: Value = serde_json::from_slice(&image(&hub, "acme/hr", &tar)).expect("JSON");
        manifest["annotations"] = json!({"io.skillimage.name": "hr", "io.skillimage.status": "published"});
        hub.put("acme/hr", tag, manifest.to_string().as_bytes());
        let error = claude(&there, &["install", &hub.name(&format!("acme/hr:{tag}"))]).fails(2);
        assert!(error.contains(named), "{tag}: {error}");
        assert_eq!(fs::read_to_string(skill(world).join("notes.md")).expect("a file"), before, "{tag}");
    }
    assert!(!Path::new("/tmp/escaped").exists() && !world.home().join("escaped").exists());
    there.skillctl(["list", "-i", "--verify"]).ok();
    let left = fs::read_dir(world.home().join(".claude/skills/.skillimage/work")).expect("a directory").count();
    assert_eq!(left, 0, "something is left");
    // A size that nobody has asked for.
    let huge = claude(&there, &["install", &hub.name("acme/hr:1.0.0"), "--force", "--max-size", "10"]);
    assert!(huge.code == 0 || huge.stderr.contains("--max-size"), "{huge}");
}

fn a_project_is_made_from_its_files(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    publish(world, &hub, "1.0.0", "1.0.0");
    let run = |site: &Site<'_>, dir: &str, args: &[&str]| {
        fs::create_dir_all(world.path(dir)).expect("a directory");
        let mut command = site.command(args);
        command.current_dir(world.path(dir));
        Done::of(command)
    };
    let (here, there) = (Site::other(world, "here"), Site::other(world, "there"));
    run(&here, "p1", &["add", &hub.name("acme/hr"), "-t", "claude"]).ok();
    publish(world, &hub, "1.1.0", "1.1.0");
    fs::create_dir_all(world.path("p2")).expect("a directory");
    for name in ["skills.json", "skills.lock.json"] {
        fs::copy(world.path("p1").join(name), world.path("p2").join(name)).expect("a copy");
    }
    // On another machine: what is locked, though there is a newer one.
    run(&there, "p2", &["sync", "--locked"]).ok();
    let notes = |dir: &str| fs::read_to_string(world.path(dir).join(".claude/skills/hr/notes.md")).expect("a file");
    assert_eq!(notes("p2"), "1.0.0");
    let (_, asked) = hub.asked(|| run(&there, "p2", &["sync", "--check"]).ok());
    assert_eq!(asked, [], "a check needs no network");
    run(&there, "p2", &["update"]).ok();
    assert_eq!(notes("p2"), "1.1.0");
    let lock: Value =
        serde_json::from_slice(&fs::read(world.path("p2/skills.lock.json")).expect("a file")).expect("JSON");
    assert_eq!(lock["skills"][0]["source"]["tag"], json!("1.1.0"));

    // A registry that lost what is locked.
    let gone = format!("sha256:{}", "1".repeat(64));
    let text = fs::read_to_string(world.path("p1/skills.lock.json")).expect("a file");
    let digest = hub.tag("acme/hr", "1.0.0").expect("a tag");
    fs::write(world.path("p1/skills.lock.json"), text.replace(&digest, &gone)).expect("a file");
    let error = run(&here, "p1", &["sync"]).refused(&["hr", &gone, &hub.address], &["not found"]);
    assert!(error.contains("skillctl update hr"), "{error}");
    run(&here, "p1", &["update", "hr"]).ok();
    run(&here, "p1", &["sync", "--check"]).ok();
}

/// Returns an archive of files, and of symbolic links where there is a target.
fn archive(entries: &[(&str, &str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content, target) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        if target.is_empty() {
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_bytes()).expect("an entry");
        } else {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path, target).expect("an entry");
        }
    }
    tar.into_inner().expect("an archive")
}

/// Returns an archive of one entry, whose name no builder would write.
fn raw_archive(path: &str, kind: u8, target: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(0);
    header.set_entry_type(tar::EntryType::new(kind));
    let old = header.as_old_mut();
    old.name[..path.len()].copy_from_slice(path.as_bytes());
    old.linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, std::io::empty()).expect("an entry");
    tar.into_inner().expect("an archive")
}

/// Uploads an image of one layer that no tool of ours has made, and returns its manifest.
fn image(hub: &Registry, repository: &str, tar: &[u8]) -> Vec<u8> {
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar)]}})
    .to_string();
    for blob in [tar, config.as_bytes()] {
        hub.upload(repository, blob);
    }
    let descriptor = |kind: &str, blob: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest_of(blob), "size": blob.len()});
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", config.as_bytes()), "layers": [descriptor("layer.v1.tar", tar)]})
    .to_string()
    .into_bytes()
}
