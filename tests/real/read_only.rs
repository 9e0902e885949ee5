//! Stores that are only read: what an image of an operating system brings is loaded, mounted, pushed, and hooked into
//! containers, from a file system that nobody can write to.

use std::fs;

use serde_json::{Value, json};

use crate::cell::{Done, World, matrix};
use crate::registry::{Kind, Registry};

matrix! {
    what_a_read_only_store_has_gets_into_containers,
}

/// By way of a registry, and from a mount that is read-only.
mod rootful {
    use super::what_a_read_only_store_has_is_pushed_and_copied;
    use crate::cell::matrix;

    matrix! { @roots what_a_read_only_store_has_is_pushed_and_copied }
}

const HR: &str = "acme/hr:1.0.0-draft";

/// A store with the skill, of another user where that can be had, which nobody can write to until it is dropped.
struct Image<'a> {
    world: &'a World,
    path: String,
}

impl<'a> Image<'a> {
    fn new(world: &'a World) -> Self {
        let path = world.path("image").to_str().expect("UTF-8").to_owned();
        let skill = world.skill("hr", "1.0.0");
        let build = ["--store", &path, "build", "--load=never", skill.to_str().expect("UTF-8")];
        world.skillctl(build).ok();
        match world.is_root() {
            true => {
                world.run("chown", ["-R", "4242:4242", &path]).ok();
                world.run("mount", ["--bind", &path, &path]).ok();
                world.run("mount", ["-o", "remount,bind,ro", &path]).ok();
            }
            false => drop(world.run("chmod", ["-R", "a-w", &path]).ok()),
        }
        assert_ne!(world.run("touch", [format!("{path}/new")]).code, 0, "it can be written to");
        Self { world, path }
    }

    fn skillctl(&self, args: &[&str]) -> Done {
        self.world.skillctl([&["--add-store", &self.path], args].concat())
    }
}

impl Drop for Image<'_> {
    fn drop(&mut self) {
        let undo: &[&str] = if self.world.is_root() { &["umount"] } else { &["chmod", "-R", "u+w"] };
        self.world.run(undo[0], undo[1..].iter().chain([&&*self.path]));
    }
}

fn what_a_read_only_store_has_gets_into_containers(world: &World) {
    let image = Image::new(world);
    assert!(image.skillctl(&["generate", "podman", HR]).stderr.contains("is not loaded yet"));
    image.skillctl(&["load", HR]).ok();
    let rows = image.skillctl(&["list", "--format", "json"]).json();
    assert_eq!((&rows[0]["loaded"], &rows[0]["read_only"]), (&json!("yes"), &json!(true)), "{rows}");
    let flags = image.skillctl(&["generate", "podman", HR]).ok();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let said = "hr 1.0.0 was here";
    assert_eq!(world.in_agent(&flags, "/skills/hr/scripts/greet.sh").ok(), said);
    world.podman(["rmi", &format!("localhost/{HR}")]).ok();

    // The hook needs nothing that is loaded, and is told by its own file.
    let enabled = world.skillctl(["hook", "enable"]).ok();
    let file = enabled.rsplit(": ").next().expect("the hook's file");
    let mut hook: Value = serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON");
    hook["hook"]["env"] = json!([format!("SKILLCTL_ADD_STORES={}", image.path)]);
    fs::write(file, hook.to_string()).expect("the hook is changed");
    let annotation = format!("io.skillimage.skills={HR}");
    let hooked = ["--annotation", &annotation];
    assert_eq!(world.in_agent(&hooked, "/skills/hr/scripts/greet.sh").ok(), said);
    let copied = [&hooked[..], &["--annotation", "io.skillimage.mode=extract"]].concat();
    assert_eq!(world.in_agent(&copied, "/skills/hr/scripts/greet.sh && touch /skills/hr/new").ok(), said);
    // It stays so when the hook is enabled once more, and the store that is written has nothing of it.
    world.skillctl(["hook", "enable"]).ok();
    assert_eq!(world.in_agent(&hooked, "/skills/hr/scripts/greet.sh").ok(), said);
    assert_eq!(world.skillctl(["list", "--format", "json"]).json(), json!([]));
    world.skillctl(["hook", "disable"]).ok();
}

fn what_a_read_only_store_has_is_pushed_and_copied(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let image = Image::new(world);
    let digest = image.skillctl(&["inspect", HR, "--format", "json"]).json()["digest"].clone();
    let (name, archive) = (hub.name(HR), format!("oci-archive:{}", world.path("hr.tar").display()));
    for to in [&archive, &format!("docker://{}", hub.name("acme/hr:copied"))] {
        let copied = image.skillctl(&["copy", HR, to, "--format", "json"]).json();
        assert_eq!(copied["digest"], digest, "{to}");
    }
    assert_eq!(world.skillctl(["list", "--format", "json"]).json(), json!([]));
    assert_eq!(image.skillctl(&["push", HR, &name, "--format", "json"]).json()["digest"], digest);
    // Under the name that it was pushed as, the store has all of it.
    let rows = world.skillctl(["list", "--format", "json"]).json();
    assert_eq!((&rows[0]["reference"], &rows[0]["digest"]), (&json!(name), &digest), "{rows}");
    world.skillctl(["fsck"]).ok();
    // The members of a collection are in one place when it is sent.
    let card = "apiVersion: skillimage.io/v1alpha1\nkind: SkillCollection\nmetadata:\n  name: office\n  version: 1.0.0\nskills:\n";
    fs::write(world.path("office.yaml"), format!("{card}  - {{name: hr, image: '{HR}'}}\n")).expect("a file");
    let office = hub.name("acme/office:1.0.0");
    image.skillctl(&["collection", "push", "--form", "index", "-f", "office.yaml", &office]).ok();
    world.skillctl(["collection", "pull", &office, "-o", "out"]).ok();
    assert!(world.path("out/hr/SKILL.md").exists());
}
