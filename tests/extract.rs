//! `pull -o`: what is in the way of a skill, and what becomes of it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde_json::Value;
use skillctl::layer::UnpackOptions;
use skillctl::ops::contents::Contents;
use skillctl::ops::extract::{Extracted, Source, before, extract};
use skillctl::reference::Reference;
use skillctl::store;
use skillctl::store::layout::Layout;

use crate::foreign;
use crate::support::{Ran, World};

const OURS: &str = "registry.example/acme/hr:1";

fn open(path: &Path) -> Dir {
    Dir::open_ambient_dir(path, ambient_authority()).unwrap()
}

/// A world with an image of the skill hr under a registry's name, and no directory yet.
fn world() -> World {
    let world = World::new();
    version(&world, "1.0.0", OURS);
    fs::create_dir(world.path("skills")).unwrap();
    world
}

/// Builds a version with a file of its own, and names it.
fn version(world: &World, version: &str, name: &str) {
    // Two versions have nothing in common but SKILL.md, so that what is stale shows.
    fs::remove_dir_all(world.path("hr")).ok();
    world.skill("hr", version);
    world.write(&format!("hr/notes-{version}.md"), version);
    world.build("hr");
    world.run(["tag", &format!("acme/hr:{version}-draft"), name, "--load=never"]).ok();
}

/// Writes an image out as `pull -o` does; `moved_from` is what its name stood for.
fn write(world: &World, name: &str, moved_from: Option<&str>) -> anyhow::Result<Extracted> {
    let layout = Layout::open(open(&world.store()), &world.store())?;
    let entry = store::lookup(&layout, name)?;
    let reference: Reference = name.parse()?;
    let before = before(&layout, &reference, moved_from)?;
    let options = UnpackOptions::default();
    let contents = Contents::of(&layout, &entry.descriptor, &options)?;
    let source = Source { layout: &layout, contents: &contents, before: &before };
    extract(&source, &open(&world.path("skills")), "hr", &options)
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn digest(world: &World, name: &str) -> String {
    world.run(["inspect", name, "--format", "json"]).ok().json()["digest"].as_str().unwrap().to_owned()
}

/// Pulls from the store: the registry, which does not exist, is not asked.
fn pull(world: &World, name: &str, flags: &[&str]) -> Ran {
    world.run(["pull", name, "--pull=never", "--load=never", "-o", "skills"].iter().chain(flags))
}

#[test]
fn what_an_earlier_pull_wrote_is_refreshed() {
    let world = world();
    let (skills, hr) = (world.path("skills"), world.path("skills/hr"));
    assert!(write(&world, OURS, None).unwrap().written);
    let first = fs::metadata(&hr).unwrap().ino();
    // The same again is left as it is.
    let again = write(&world, OURS, None).unwrap();
    assert_eq!((again.written, again.is_skill, again.unpacked.files), (false, true, 4));
    assert_eq!(fs::metadata(&hr).unwrap().ino(), first);
    // Another tag of the repository.
    version(&world, "2.0.0", "registry.example/acme/hr:2");
    assert!(write(&world, "registry.example/acme/hr:2", None).unwrap().written);
    assert_eq!(names(&hr), ["SKILL.md", "notes-2.0.0.md", "scripts", "skill.yaml"]);
    // And back, and by digest.
    let by_digest = format!("registry.example/acme/hr@{}", digest(&world, OURS));
    assert!(write(&world, &by_digest, None).unwrap().written);
    assert_eq!(names(&hr), ["SKILL.md", "notes-1.0.0.md", "scripts", "skill.yaml"]);
    assert_eq!(names(&skills), ["hr"], "something is left beside it");
}

#[test]
fn a_tag_that_moved_replaces_what_it_was() {
    let world = world();
    write(&world, OURS, None).unwrap();
    let old = digest(&world, OURS);
    version(&world, "2.0.0", OURS);
    assert_ne!(digest(&world, OURS), old);
    // It has a name in another repository, too, and is remembered as this one's all the same.
    assert!(write(&world, OURS, None).unwrap().written);
    assert_eq!(names(&world.path("skills/hr")), ["SKILL.md", "notes-2.0.0.md", "scripts", "skill.yaml"]);
}

#[test]
fn what_lost_its_name_remembers_the_repository() {
    let world = world();
    world.run(["rm", "-f", "acme/hr:1.0.0-draft", "--keep-loaded"]).ok();
    write(&world, OURS, None).unwrap();
    version(&world, "2.0.0", OURS);
    assert!(write(&world, OURS, None).unwrap().written);
}

#[test]
fn what_somebody_made_or_changed_stays() {
    type Do = fn(&Path);
    let cases: [(Do, &str); 9] = [
        (|hr| fs::write(hr.join("TODO"), "mine").unwrap(), "TODO is not of the image"),
        (|hr| fs::create_dir_all(hr.join(".git/objects")).unwrap(), ".git is not of the image"),
        (|hr| fs::write(hr.join("SKILL.md"), "mine").unwrap(), "SKILL.md was changed"),
        (|hr| fs::remove_file(hr.join("scripts/run.sh")).unwrap(), "scripts/run.sh is missing"),
        (
            |hr| fs::set_permissions(hr.join("scripts/run.sh"), fs::Permissions::from_mode(0o644)).unwrap(),
            "scripts/run.sh is no longer executable",
        ),
        // What would be lost comes before what is gone.
        (
            |hr| {
                fs::remove_file(hr.join("SKILL.md")).unwrap();
                fs::write(hr.join("mine.md"), "mine").unwrap();
            },
            "mine.md is not of the image",
        ),
        (
            |hr| {
                fs::rename(hr, hr.with_file_name("real")).unwrap();
                symlink("real", hr).unwrap();
            },
            "it is a symbolic link",
        ),
        (
            |hr| {
                fs::remove_dir_all(hr).unwrap();
                fs::write(hr, "mine").unwrap();
            },
            "it is a file",
        ),
        (
            |hr| {
                fs::remove_dir_all(hr).unwrap();
                fs::create_dir(hr).unwrap();
                fs::write(hr.join("SKILL.md"), "---\nname: hr\ndescription: Mine.\n---\nMine.\n").unwrap();
            },
            "SKILL.md was changed",
        ),
    ];
    for (change, why) in cases {
        let world = world();
        pull(&world, OURS, &[]).ok();
        version(&world, "2.0.0", "registry.example/acme/hr:2");
        let hr = world.path("skills/hr");
        change(&hr);
        let before = fs::symlink_metadata(&hr).unwrap().ino();
        let refused = pull(&world, "registry.example/acme/hr:2", &[]).fails(2);
        let said = format!("Writing to skills: hr exists already, and is not as it was pulled: {why}\n");
        let hint = "hint: move it away, or replace it with --force (the image is in the store)\n";
        assert!(refused.stderr.ends_with(&format!("{said}{hint}")), "{why}: {refused}");
        assert_eq!(refused.stdout, "", "{refused}");
        assert_eq!(fs::symlink_metadata(&hr).unwrap().ino(), before, "{why}");
        assert!(!names(&world.path("skills")).iter().any(|name| name.starts_with('.')), "{why}");
        pull(&world, "registry.example/acme/hr:2", &["--force"]).ok();
        assert_eq!(names(&hr), ["SKILL.md", "notes-2.0.0.md", "scripts", "skill.yaml"], "{why}");
    }
}

#[test]
fn another_repository_replaces_nothing() {
    let world = world();
    pull(&world, OURS, &[]).ok();
    for name in ["evil.example/acme/hr:1", "registry.example/acme/hr2:1", "registry.example/hr:1"] {
        version(&world, "6.6.6", name);
        let refused = pull(&world, name, &[]).fails(2);
        assert!(refused.stderr.contains("hr exists already, and is not as it was pulled: "), "{name}: {refused}");
        assert!(world.path("skills/hr/notes-1.0.0.md").exists(), "{name}");
    }
    // The other tag has what is there already, so there is nothing to do.
    world.run(["tag", OURS, "evil.example/acme/hr:2", "--load=never"]).ok();
    pull(&world, "evil.example/acme/hr:2", &[]).ok();
}

#[test]
fn an_empty_directory_gives_way() {
    let world = world();
    fs::create_dir(world.path("skills/hr")).unwrap();
    let pulled = pull(&world, OURS, &[]).ok();
    let digest = digest(&world, OURS);
    let lines = ["Unpacked to skills", "Directory: skills/hr"];
    assert_eq!(pulled.stdout, format!("Pulled {OURS}\nDigest: {digest}\n{}\n{}\n", lines[0], lines[1]));
    assert_eq!(pulled.stderr, "");
    assert!(world.path("skills/hr/SKILL.md").exists());
    // Again it is the same, and says so in the same words.
    assert_eq!(pull(&world, OURS, &[]).ok().stdout, pulled.stdout);
}

#[test]
fn the_output_is_a_directory() {
    let world = world();
    world.write("file", "mine");
    symlink("nowhere", world.path("link")).unwrap();
    for output in ["file", "link"] {
        let refused = world.run(["pull", OURS, "--pull=never", "--load=never", "-o", output]).fails(2);
        assert_eq!(refused.stderr, format!("error: {output} is not a directory\n"));
    }
    symlink("skills", world.path("there")).unwrap();
    world.run(["pull", OURS, "--pull=never", "--load=never", "-o", "there"]).ok();
    assert!(world.path("skills/hr/SKILL.md").exists());
}

#[test]
fn what_is_no_skill_is_said_to_be_none() {
    let world = world();
    let name = "registry.example/acme/docs:1";
    foreign::tag(&world, &foreign::image(&world, &[("docs/SKILL.md", "no skill")]), name);
    let pulled = pull(&world, name, &[]).ok();
    assert_eq!(pulled.stderr, format!("warning: {name} has no SKILL.md: it is no skill\n"));
    assert!(pulled.stdout.ends_with("Unpacked to skills\nDirectory: skills/docs\n"), "{pulled}");
    let rows = pull(&world, name, &["--format", "json"]).ok().json();
    assert_eq!(rows[0]["warnings"][0], format!("{name} has no SKILL.md: it is no skill"));
}

#[test]
fn of_an_index_the_image_for_this_host_is_taken() {
    let host = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        _ => return,
    };
    let world = world();
    let image = |text| foreign::image(&world, &[("SKILL.md", text)]);
    let (first, second) = (image("first"), image("second"));
    let index = |images: &[(&str, Value)]| foreign::index(&world, images);
    let cases = [
        ("different", index(&[("linux/s390x", first.clone()), (host, second.clone())]), Ok("second")),
        ("common", index(&[("linux/s390x", first.clone()), ("linux/riscv64", first.clone())]), Ok("first")),
        (
            "foreign",
            index(&[("linux/s390x", first.clone()), ("linux/riscv64", second)]),
            Err(format!("the index has no image for {host}: there is linux/s390x, linux/riscv64")),
        ),
        (
            "nested",
            index(&[(host, first.clone()), ("linux/s390x", index(&[(host, first)]))]),
            Err("which is no image".into()),
        ),
    ];
    for (tag, index, want) in cases {
        let name = format!("registry.example/acme/{tag}:1");
        foreign::tag(&world, &index, &name);
        match want {
            Ok(text) => {
                pull(&world, &name, &[]).ok();
                assert_eq!(fs::read_to_string(world.path(format!("skills/{tag}/SKILL.md"))).unwrap(), text, "{tag}");
            }
            Err(why) => {
                let refused = pull(&world, &name, &[]).fails(2);
                assert!(refused.stderr.contains(&why), "{tag}: {refused}");
                assert!(!world.path(format!("skills/{tag}")).exists(), "{tag}");
            }
        }
    }
}
