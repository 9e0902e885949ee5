//! Stores that are only read, behind the one that is written.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Ran, World};

const HR: &str = "acme/hr:1.0.0-draft";
const REMOTE: &str = "registry.example/acme/hr:1.0.0";

/// Every file of a directory with its bytes, and every directory with nothing.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(snapshot(&path)),
            false => all.push((path.clone(), Some(fs::read(&path).unwrap()))),
        }
        all.push((path, None));
    }
    all.sort();
    all
}

/// Lets nobody write, or everybody who could before; root is stopped by the comparison of what is there.
fn set_writable(dir: &Path, mode: u32) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            set_writable(&path, mode);
        }
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
}

/// A world whose skill is in another store only, which was made and moved as that of an image of an operating system.
struct Image {
    world: World,
    before: Vec<(PathBuf, Option<Vec<u8>>)>,
}

impl Image {
    fn new() -> Self {
        let world = World::new();
        world.skill("hr", "1.0.0");
        world.build("hr");
        world.run(["tag", HR, REMOTE, "--load=never"]).ok();
        let path = world.path("image");
        fs::rename(world.store(), &path).unwrap();
        for name in [".lock", ".gc.lock"] {
            fs::remove_file(path.join(name)).unwrap();
        }
        fs::remove_dir_all(path.join(".tmp")).unwrap();
        set_writable(&path, 0o555);
        Self { before: snapshot(&path), world }
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.world.run([&["--add-store", "image"], args].concat())
    }

    fn list(&self) -> Vec<(String, bool)> {
        let rows = self.run(&["list", "--format", "json"]).ok().json();
        let row = |row: &Value| (row["reference"].as_str().unwrap().to_owned(), row["read_only"].as_bool().unwrap());
        rows.as_array().unwrap().iter().map(row).collect()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(snapshot(&self.world.path("image")) == self.before, "the store was written to");
        }
        // For its removal.
        set_writable(&self.world.path("image"), 0o755);
    }
}

#[test]
fn verbs_that_read_find_what_only_they_have() {
    let image = Image::new();
    let digest = image.run(&["inspect", HR, "--format", "json"]).ok().json()["digest"].as_str().unwrap().to_owned();
    let cases: [(&[&str], &str); 10] = [
        (&["list"], "LOADED  R/O\nacme/hr "),
        (&["inspect", HR], "  Found in:   read-only store\n"),
        (&["inspect", &digest], "  Found in:   read-only store\n"),
        (&["history", "acme/hr", "--no-trunc"], &digest),
        (&["history", "--local", REMOTE, "--no-trunc"], &digest),
        (&["generate", "podman", HR, "--podman-version", "5.4"], &digest),
        (&["generate", "volume", HR], &digest),
        (&["generate", "quadlet", HR], &digest),
        (&["generate", "kube", HR], &digest),
        (&["fsck"], "2 entries, 3 blobs"),
    ];
    for (args, said) in cases {
        let ran = image.run(args).ok();
        assert!(ran.stdout.contains(said), "{args:?}: {ran}");
    }
    assert!(!image.world.store().exists(), "nothing had to be written");
    assert_eq!(image.list(), [(HR.to_owned(), true), (REMOTE.to_owned(), true)]);
    // Without the flag nothing of it is known, and no column says what would be the same for all.
    image.world.run(["inspect", HR]).fails(2);
    image.world.build("hr");
    assert!(!image.world.run(["list"]).ok().stdout.contains("R/O"));
}

#[test]
fn verbs_that_write_elsewhere_take_it_from_there() {
    let image = Image::new();
    image.world.write(
        "office.yaml",
        format!(
            "apiVersion: skillimage.io/v1alpha1\nkind: SkillCollection\nmetadata:\n  name: office\n  version: 1.0.0\nskills:\n  - \
             {{name: hr, image: '{HR}'}}\n"
        ),
    );
    let cases: [(&[&str], &str); 5] = [
        (&["install", HR, "-o", "installed"], "installed/hr/SKILL.md"),
        (&["install", REMOTE, "--pull=never", "-o", "remote"], "remote/hr/SKILL.md"),
        (&["pull", REMOTE, "--pull=never", "--load=never", "-o", "pulled"], "pulled/hr/SKILL.md"),
        (&["collection", "install", "-f", "office.yaml", "-o", "office"], "office/hr/SKILL.md"),
        (&["generate", "cdi", HR], "unpacked"),
    ];
    for (args, made) in cases {
        image.run(args).ok();
        assert!(image.world.path(made).exists(), "{args:?}");
    }
    // It was read, and not copied.
    assert_eq!(image.world.run(["list"]).ok().stdout, "No images found in local store.\n");
    let verified = image.run(&["list", "--installed", "--verify", "-o", "installed"]).ok();
    assert!(verified.stdout.contains("is as it was installed"), "{verified}");
    // The first write makes the store.
    assert!(image.world.store().join("index.json").exists());
}

#[test]
fn a_project_is_installed_from_there() {
    let image = Image::new();
    fs::create_dir_all(image.world.path(".git")).unwrap();
    image.run(&["add", HR]).ok();
    let skills = image.world.path(".agents/skills/hr");
    assert!(skills.join("SKILL.md").exists());
    fs::remove_dir_all(&skills).unwrap();
    image.run(&["sync", "--locked"]).ok();
    assert!(skills.join("SKILL.md").exists());
}

#[test]
fn a_new_name_or_state_is_whole_in_the_store_that_is_written() {
    let image = Image::new();
    image.run(&["tag", HR, "acme/hr:mine", "--load=never"]).ok();
    let promote = |from: &str, to: &str| {
        image.run(&["promote", from, "--to", to, "--local", "--load=never", "--format", "json"]).ok().json()
    };
    let would = image.run(&["promote", HR, "--to", "testing", "--local", "--dry-run"]).ok();
    assert!(would.stdout.contains("  write acme/hr:1.0.0-testing\n"), "{would}");
    promote(HR, "testing");
    promote("acme/hr:1.0.0-testing", "published");
    let (read, written) = (|name: &str| (name.to_owned(), true), |name: &str| (name.to_owned(), false));
    let own = ["acme/hr:1.0.0", "acme/hr:1.0.0-testing", "acme/hr:latest", "acme/hr:mine"].map(written);
    let mut all = [&own[..], &[read(HR), read(REMOTE)]].concat();
    all.sort();
    assert_eq!(image.list(), all);
    // Alone, and with nothing to free but what the promotion superseded.
    image.world.run(["fsck"]).ok();
    image.world.run(["prune", "--grace", "0"]).ok();
    image.world.run(["fsck"]).ok();
    image.world.run(["install", "acme/hr:1.0.0", "-o", "out"]).ok();
    // A tag of the other store is not taken away: in the store it is what it became, and that is said.
    let legal = World::new();
    legal.skill("legal", "1.0.0");
    legal.build("legal");
    let step = |store: &str, to: &str, from: &str| {
        let args = ["--store", store, "promote", from, "--to", to, "--local", "--load=never", "--format", "json"];
        legal.command(args).env("SKILLCTL_ADD_STORES", legal.path("image")).output().map(Ran::from).unwrap().ok()
    };
    fs::rename(legal.store(), legal.path("image")).unwrap();
    for (to, from) in [("testing", "-draft"), ("published", "-testing"), ("deprecated", "")] {
        step("image", to, &format!("acme/legal:1.0.0{from}"));
    }
    let archived = step("store", "archived", "acme/legal:1.0.0");
    let warned = &archived.json()["warnings"][0];
    assert!(warned.as_str().unwrap().contains("remains (a read-only store has it)"), "{archived}");
    let inspected = legal.run(["--add-store", "image", "inspect", "acme/legal:1.0.0", "--format", "json"]).ok().json();
    assert_eq!((&inspected["status"], &inspected["read_only"]), (&json!("archived"), &json!(false)));
}

#[test]
fn what_is_written_comes_first_and_goes_alone() {
    let image = Image::new();
    let theirs = image.run(&["inspect", HR, "--format", "json"]).ok().json()["digest"].clone();
    let refused = image.run(&["rm", "-f", HR]).fails(2);
    let path = image.world.path("image");
    assert_eq!(
        refused.stderr,
        format!("Error: {HR} is in the read-only store {}\nerror: no valid images to remove\n", path.display())
    );
    image.world.write("hr/SKILL.md", "---\nname: hr\ndescription: Does hr.\n---\n\nAnother.\n");
    image.world.build("hr");
    let digest = || image.run(&["inspect", HR, "--format", "json"]).ok().json()["digest"].clone();
    assert_ne!(digest(), theirs);
    assert_eq!(image.list(), [(HR.to_owned(), false), (REMOTE.to_owned(), true)]);
    image.run(&["rm", "-f", HR]).ok();
    image.run(&["prune", "--grace", "0"]).ok();
    assert_eq!(digest(), theirs);
}

#[test]
fn damage_is_told_with_its_store() {
    let image = Image::new();
    // The store that is written has the same blobs, whole.
    image.world.build("hr");
    let path = image.world.path("image");
    let blobs = path.join("blobs/sha256");
    let name =
        image.run(&["inspect", HR, "--format", "json"]).ok().json()["image_id"].as_str().unwrap()[7..].to_owned();
    let (config, whole) = (blobs.join(&name), fs::read(blobs.join(&name)).unwrap());
    set_writable(&path, 0o755);
    fs::remove_file(&config).unwrap();
    let ran = image.run(&["fsck"]).fails(1);
    assert!(ran.stdout.starts_with(&format!("{HR} in {}: blob sha256:{name}", path.display())), "{ran}");
    assert!(ran.stderr.ends_with("hint: a read-only store is mended where it is made\n"), "{ran}");
    let problems = image.run(&["fsck", "--format", "json"]).fails(1).json()["problems"].clone();
    assert_eq!(problems[0]["store"], json!(path));
    fs::write(&config, whole).unwrap();
    image.run(&["fsck"]).ok();
}

#[test]
fn they_are_named_by_flag_or_environment() {
    let image = Image::new();
    let path = image.world.path("image");
    let run = |stores: &str, args: &[&str]| {
        Ran::from(image.world.command(args).env("SKILLCTL_ADD_STORES", stores).output().unwrap())
    };
    let twice = format!("{0}:{0}/:", path.display());
    assert_eq!(run(&twice, &["fsck"]).ok().stdout, run("image", &["fsck"]).ok().stdout);
    let doctor = run("image:none", &["doctor", "--format", "json"]).fails(1).json();
    let checks = doctor.as_array().unwrap().iter().filter(|check| check["name"] == "read-only store");
    let levels: Vec<&str> = checks.clone().map(|check| check["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["ok", "fail"], "{doctor}");
    let message = checks.clone().next().unwrap()["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("{}, 2 image(s), ", path.display())), "{message}");
    let missing = run("none", &["list"]).fails(2);
    assert_eq!(
        missing.stderr,
        format!(
            "error: there is no store {}\nhint: --add-store and SKILLCTL_ADD_STORES name stores that are there\n",
            image.world.path("none").display()
        )
    );
    // A flag counts instead of the environment, and the store that is written is not one that is only read.
    let flag =
        image.world.command(["--add-store", "image", "list"]).env("SKILLCTL_ADD_STORES", "none").output().unwrap();
    Ran::from(flag).ok();
    let own = image.world.run(["--store", "image", "--add-store", "image", "list"]).ok();
    assert!(own.stdout.contains("acme/hr") && !own.stdout.contains("R/O"), "{own}");
}
