//! Sets of skills on their way to a host without a network, and mirrors: read and written by the tools of others.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::cell::{Done, World, cannot, matrix};
use crate::hook;
use crate::registry::{Kind, Registry};

matrix! { @roots skopeo_carries_a_set_both_ways, mirrors_carry_everything, podman_reads_a_storage_of_its_own }
matrix! { @cell host_alone("host", "root", None), a_host_without_a_network_runs_what_was_saved }
matrix! { @cell host_alone_rootless("host", "rootless", None), a_host_without_a_network_runs_what_was_saved }
matrix! { @cell sid_alone("sid", "root", None), a_host_without_a_network_runs_what_was_saved }
matrix! { @cell host_stick("host", "root", None), a_full_stick_is_left_as_it_was }
// Debian has oras in some releases only.
matrix! { @cell sid_tools("sid", "root", None), oras_carries_a_set_both_ways, a_collection_brings_its_members }

const NAMES: [&str; 2] = ["acme/hr:1.0.0", "acme/legal:1.0.0"];

fn skillctl(world: &World, args: &[&str]) -> Done {
    let mut command = world.command(env!("CARGO_BIN_EXE_skillctl"), args);
    command.env("COSIGN_PASSWORD", "secret");
    Done::of(command)
}

fn path(world: &World, name: &str) -> String {
    world.path(name).display().to_string()
}

/// Publishes two skills in the store, signed by `acme`.
fn publish(world: &World) {
    skillctl(world, &["key", "generate", &path(world, "acme")]).ok();
    let key = path(world, "acme.key");
    for (name, published) in ["hr", "legal"].iter().zip(NAMES) {
        world.build(name, "1.0.0", &["--load=never"]);
        for (from, to) in [("draft", "testing"), ("testing", "published")] {
            skillctl(world, &["promote", &format!("acme/{name}:1.0.0-{from}"), "--to", to, "--local", "--load=never"])
                .ok();
        }
        skillctl(world, &["sign", published, "--key", &key]).ok();
    }
}

/// Runs a command where there is no network at all. Of a user, skopeo and podman make namespaces of their own, which they cannot in
/// one that has no subordinate users: there they run as they are.
fn alone(world: &World, program: &str, args: &[&str]) -> Done {
    match world.is_root() {
        true => world.run("unshare", [&["-n", "--", program], args].concat()),
        false => world.run(program, args),
    }
}

fn a_host_without_a_network_runs_what_was_saved(world: &World) {
    publish(world);
    let (set, key) = (path(world, "skills.bundle"), path(world, "acme.pub"));
    skillctl(world, &[&["save", "-o", &set], &NAMES[..]].concat()).ok();
    // The other host: it has the file and the key.
    fs::rename(world.store(), world.store().with_file_name("elsewhere")).expect("a store");
    let ours = env!("CARGO_BIN_EXE_skillctl");
    let load = ["load", "--verify", "--key", &key, "-i", &set];
    assert_eq!(
        alone(world, ours, &load).ok(),
        "acme/hr:1.0.0     verified, loaded\nacme/legal:1.0.0  verified, loaded"
    );
    for name in NAMES {
        alone(world, ours, &["verify", name, "--key", &key]).ok();
        world.podman(["image", "exists", &format!("localhost/{name}")]).ok();
    }
    world.skillctl(["hook", "enable"]).ok();
    let agent = world.agent();
    let annotation = hook::with(&NAMES.join(";"));
    let script = "/skills/hr/scripts/greet.sh; /skills/legal/scripts/greet.sh";
    let run = ["run", "--rm", "--network", "none", "--annotation", &annotation, agent, "sh", "-c", script];
    assert_eq!(alone(world, "podman", &run).ok(), "hr 1.0.0 was here\nlegal 1.0.0 was here");
    let mounted = "type=image,source=localhost/acme/hr:1.0.0,destination=/hr";
    let run = ["run", "--rm", "--network", "none", "--mount", mounted, agent, "sh", "-c", "/hr/scripts/greet.sh"];
    let image = alone(world, "podman", &run);
    assert!(image.code == 0 && image.stdout.contains("hr 1.0.0 was here"), "{image}");
}

/// What of a set skopeo copies under which tags.
fn parts(world: &World, name: &str) -> Vec<(String, String)> {
    let digest =
        world.skillctl(["inspect", name, "--format", "json"]).json()["digest"].as_str().expect("a digest").to_owned();
    let tag = digest.replace(':', "-");
    vec![(name.to_owned(), "1.0.0".to_owned()), (format!("{tag}.sig"), format!("{tag}.sig")), (tag.clone(), tag)]
}

fn skopeo_carries_a_set_both_ways(world: &World) {
    publish(world);
    let hub = Registry::start(world, Kind::Plain);
    let (set, key) = (path(world, "skills.bundle"), path(world, "acme.pub"));
    skillctl(world, &[&["save", "-o", &set], &NAMES[..]].concat()).ok();
    let there = hub.name("acme/hr:1.0.0");
    let back = path(world, "back");
    for (name, tag) in parts(world, NAMES[0]) {
        let to = format!("docker://{}", hub.name(&format!("acme/hr:{tag}")));
        world.skopeo(["copy", "--all", "--dest-tls-verify=false", &format!("oci-archive:{set}:{name}"), &to]).ok();
        // And from there into a layout, under the names that it had.
        let copy = ["copy", "--all", "--src-tls-verify=false", &to, &format!("oci:{back}:{name}")];
        world.skopeo(copy).ok();
    }
    let verified =
        skillctl(world, &["verify", &there, "--key", &key, "--identity", "acme/hr", "--format", "json"]).json();
    assert_eq!(verified["signers"].as_array().map(Vec::len), Some(2), "{verified}");
    let store = path(world, "there");
    let load = ["--store", &store, "load", "--verify", "--key", &key, "--load=never", "-i", &back];
    assert_eq!(skillctl(world, &load).ok(), "acme/hr:1.0.0  verified, in the store");
    // What skopeo itself makes of several images.
    let own = path(world, "own");
    for (name, tag) in [("acme/hr:1.0.0", "acme/hr:1.0.0"), ("acme/legal:1.0.0", "acme/legal:1.0.0")] {
        world.skopeo(["copy", "--all", &format!("oci-archive:{set}:{name}"), &format!("oci:{own}:{tag}")]).ok();
    }
    let store = path(world, "third");
    let loaded = skillctl(world, &["--store", &store, "load", "--load=never", "-i", &own]).ok();
    assert_eq!(loaded, "acme/hr:1.0.0     in the store\nacme/legal:1.0.0  in the store");
    // And an archive that it has made.
    let archive = path(world, "own.tar");
    world.skopeo(["copy", &format!("oci:{own}:{}", NAMES[0]), &format!("oci-archive:{archive}:{}", NAMES[0])]).ok();
    let loaded = skillctl(world, &["--store", &path(world, "fourth"), "load", "--load=never", "-i", &archive]).ok();
    assert_eq!(loaded, "acme/hr:1.0.0  in the store");
}

fn oras_carries_a_set_both_ways(world: &World) {
    publish(world);
    let hub = Registry::start(world, Kind::Plain);
    let (layout, key) = (path(world, "layout"), path(world, "acme.pub"));
    skillctl(world, &["save", "-o", &format!("{layout}/"), NAMES[0]]).ok();
    let discovered = world.run("oras", ["discover", "--format", "json", "--oci-layout-path", &layout, NAMES[0]]);
    assert!(discovered.stdout.contains("application/vnd.dev.sigstore.bundle.v0.3+json"), "{discovered}");
    let there = hub.name("acme/hr:1.0.0");
    world.run("oras", ["cp", "-r", "--from-oci-layout-path", &layout, NAMES[0], "--to-plain-http", &there]).ok();
    let verify = ["verify", &there, "--key", &key, "--identity", "acme/hr", "--format", "json"];
    assert_eq!(skillctl(world, &verify).json()["signers"][0]["form"], "bundle");
    let back = path(world, "back");
    world.run("oras", ["cp", "-r", "--from-plain-http", &there, "--to-oci-layout", &format!("{back}:1.0.0")]).ok();
    let store = path(world, "there");
    let load = ["--store", &store, "load", "--verify", "--key", &key, "--load=never", "-i", &back];
    assert_eq!(skillctl(world, &load).ok(), "acme/hr:1.0.0  verified, in the store");
}

fn mirrors_carry_everything(world: &World) {
    publish(world);
    let (one, two) = (Registry::named(world, "one", Kind::Plain), Registry::named(world, "two", Kind::Plain));
    let key = path(world, "acme.pub");
    // The signatures of the store go along with a push, unless they are not wanted.
    let (there, bare) = (one.name("acme/hr:1.0.0"), one.name("acme/bare:1.0.0"));
    skillctl(world, &["push", NAMES[0], &there]).ok();
    let verify = |name: &str| {
        let args = ["verify", name, "--key", &key, "--identity", "acme/hr", "--format", "json"];
        skillctl(world, &args)
    };
    let signers = |name: &str| verify(name).json()["signers"].as_array().map(Vec::len);
    assert_eq!(signers(&there), Some(2));
    skillctl(world, &["push", "--no-signatures", NAMES[0], &bare]).ok();
    verify(&bare).fails(1);
    // From a registry to another, by a store that knows of nothing.
    let store = path(world, "empty");
    let mirror = |args: &[&str]| skillctl(world, &[&["--store", &store, "mirror"], args].concat());
    let to = two.name("mirror");
    let copy = two.name("mirror/acme/hr:1.0.0");
    assert_eq!(mirror(&[&there, &to]).ok(), format!("Mirrored {there} to {copy}"));
    assert_eq!(signers(&copy), Some(2));
    let digest = two.tag("mirror/acme/hr", "1.0.0").expect("a tag");
    assert_eq!(Some(&digest), one.tag("acme/hr", "1.0.0").as_ref());
    assert_eq!(skillctl(world, &["--store", &store, "list", "--format", "json"]).json(), json!([]));
    let ends = |repository: &str| two.tags(repository).len();
    assert_eq!(ends("mirror/acme/hr"), 3, "the tag, the image of signatures, and the index of referrers");
    // Once more sends no blob, and what somebody has added there stays.
    skillctl(world, &["key", "generate", &path(world, "other")]).ok();
    skillctl(world, &["sign", &copy, "--key", &path(world, "other.key")]).ok();
    let (_, asked) = two.asked(|| mirror(&[&there, &to]).ok());
    assert!(!asked.iter().any(crate::registry::Request::sends_blob), "{asked:?}");
    assert_eq!(signers(&copy), Some(2));
    skillctl(world, &["verify", &copy, "--key", &path(world, "other.pub")]).ok();
    // Through an archive, with what both have signed.
    let archive = path(world, "set.tar");
    mirror(&[&copy, &format!("oci-archive:{archive}")]).ok();
    mirror(&[&format!("oci-archive:{archive}"), &one.name("again")]).ok();
    let again = one.name("again/mirror/acme/hr:1.0.0");
    assert_eq!(signers(&again), Some(2));
    skillctl(world, &["verify", &again, "--key", &path(world, "other.pub"), "--identity", &copy[..copy.len() - 6]])
        .ok();
    // A published tag with other content: nothing is written, not even by digest.
    world.build("other", "1.0.0", &["--load=never"]);
    skillctl(world, &["tag", "--load=never", "acme/other:1.0.0-draft", "acme/hr:1.0.0", "--force"]).ok();
    let error = mirror_from_store(world, &["acme/hr:1.0.0", &to]).fails(2);
    assert!(error.contains("is published with"), "{error}");
    assert_eq!(two.tag("mirror/acme/hr", "1.0.0"), Some(digest));
    // A password is for one registry.
    let both = ["--store", &store, "save", "-o", &archive, "--creds", "user:secret", &there, &copy];
    let error = skillctl(world, &both).fails(2);
    assert!(error.contains("--creds would be sent to"), "{error}");
    // Straight from a registry to a file.
    let direct = path(world, "direct.tar");
    skillctl(world, &["--store", &store, "save", "-o", &direct, &there]).ok();
    let load = [
        "--store",
        &path(world, "fresh"),
        "load",
        "--key",
        &key,
        "--identity",
        "acme/hr",
        "--load=never",
        "-i",
        &direct,
    ];
    assert_eq!(skillctl(world, &load).ok(), format!("{there}  verified, in the store"));
}

fn mirror_from_store(world: &World, args: &[&str]) -> Done {
    skillctl(world, &[&["mirror"], args].concat())
}

fn a_full_stick_is_left_as_it_was(world: &World) {
    publish(world);
    world.noise("hr", 100, 4096, 1);
    world.skillctl(["build".as_ref(), world.path("hr").as_os_str(), "--load=never".as_ref()]).ok();
    let stick = path(world, "stick");
    fs::create_dir(&stick).expect("a directory");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs", &stick]).status();
    if !mount.is_ok_and(|status| status.success()) {
        cannot("no file system can be mounted");
    }
    let set = format!("{stick}/skills.bundle");
    skillctl(world, &["save", "-o", &set, NAMES[1]]).ok();
    let before = fs::read(&set).expect("a file");
    let error = skillctl(world, &["save", "-o", &set, "acme/hr:1.0.0-draft"]).fails(2);
    assert!(error.contains("skills.bundle: No space left on device"), "{error}");
    assert_eq!(fs::read(&set).expect("a file"), before);
    assert_eq!(fs::read_dir(&stick).expect("a directory").count(), 1);
    // A store without room for it: nothing gets a name.
    let store = format!("{stick}/store");
    let set = path(world, "set");
    skillctl(world, &["save", "-o", &set, "acme/hr:1.0.0-draft", NAMES[1]]).ok();
    let error = skillctl(world, &["--store", &store, "load", "--load=never", "-i", &set]).fails(2);
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!(skillctl(world, &["--store", &store, "list", "--format", "json"]).json(), json!([]));
    Command::new("umount").arg(&stick).status().expect("umount");
}

fn podman_reads_a_storage_of_its_own(world: &World) {
    publish(world);
    let agent = world.agent();
    let storage = path(world, "readonly");
    let save = ["save", "--storage", &storage, NAMES[0], NAMES[1]];
    // None of them where one is not signed as the policy asks.
    skillctl(world, &["key", "generate", &path(world, "other")]).ok();
    skillctl(world, &["trust", "add", "acme/legal", "--key", &path(world, "other.pub")]).ok();
    let refused = skillctl(world, &save);
    assert!(refused.code == 1 && refused.stderr.contains("acme/legal:1.0.0"), "{refused}");
    let option = format!("additionalimagestore={storage}");
    assert_eq!(world.podman(["--storage-opt", &option, "image", "exists", "localhost/acme/hr:1.0.0"]).code, 1);
    skillctl(world, &["trust", "remove", "acme/legal"]).ok();
    let said = skillctl(world, &save).ok();
    assert!(said.contains(&format!("additionalimagestores = [\"{storage}\"]")), "{said}");
    // It can be moved as it is: nothing is mounted on it.
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&storage), "{mounts}");
    let flag = said.lines().find_map(|line| line.split_once("podman --storage-opt ")).expect("a flag").1;
    let flag = flag.trim_end_matches(" …");
    let podman = |args: &[&str]| world.podman([&["--storage-opt", flag], args].concat());
    let image = "localhost/acme/hr:1.0.0";
    podman(&["image", "exists", image]).ok();
    let labels = podman(&["image", "inspect", image]).json();
    assert_eq!(labels[0]["Labels"]["io.skillimage.name"], "hr");
    assert!(podman(&["rmi", image]).stderr.contains("cannot remove read-only image"));
    // A volume of it, which is what works.
    podman(&["volume", "create", "--driver", "image", "--opt", &format!("image={image}"), "hr"]).ok();
    let run = ["run", "--rm", "--network", "none", "-v", "hr:/hr:ro", agent, "/hr/scripts/greet.sh"];
    let ran = podman(&run);
    assert_eq!(ran.ok(), "hr 1.0.0 was here");
    podman(&["volume", "rm", "hr"]).ok();
    podman(&["create", "-q", "--name", "c", image, "none"]).ok();
    let out = world.path("out");
    fs::create_dir(&out).expect("a directory");
    podman(&["cp", "c:/.", &out.display().to_string()]).ok();
    assert!(out.join("scripts/greet.sh").is_file());
    podman(&["rm", "c"]).ok();
    // And what the documentation says does not.
    let mount = format!("type=image,source={image},destination=/hr");
    let mounted = podman(&["run", "--rm", "--network", "none", "--mount", &mount, agent, "/hr/scripts/greet.sh"]);
    assert!(mounted.code != 0 && mounted.stderr.contains("layer not known"), "it works now: say so\n{mounted}");
    // Nothing of it is in the user's own; and by storage.conf it is there without a flag.
    assert_ne!(world.podman(["image", "exists", image]).code, 0);
    let own = "[storage]\ndriver = \"overlay\"\ngraphroot = \"/var/lib/containers/storage\"\nrunroot = \"/run/containers/storage\"\n";
    let lines: String = said
        .lines()
        .skip_while(|line| !line.contains("[storage.options]"))
        .take(2)
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write("/etc/containers/storage.conf", format!("{own}{lines}")).expect("a file");
    world.podman(["image", "exists", image]).ok();
}

fn a_collection_brings_its_members(world: &World) {
    publish(world);
    let hub = Registry::start(world, Kind::Plain);
    let key = path(world, "acme.pub");
    let there: Vec<String> = NAMES.iter().map(|name| hub.name(name)).collect();
    for (name, there) in NAMES.iter().zip(&there) {
        skillctl(world, &["push", name, there]).ok();
        skillctl(world, &["sign", there, "--key", &path(world, "acme.key")]).ok();
    }
    let skills: Vec<_> =
        there.iter().map(|image| json!({"name": image.rsplit(['/', ':']).nth(1), "image": image})).collect();
    let file = json!({
        "apiVersion": "skillimage.io/v1alpha1", "kind": "SkillCollection", "skills": skills,
        "metadata": {"name": "office", "version": "1.0.0", "description": "For the office"},
    });
    let (yaml, set) = (path(world, "office.yaml"), path(world, "office.tar"));
    fs::write(&yaml, file.to_string()).expect("a file");
    for form in ["artifact", "index"] {
        let name = hub.name(&format!("acme/office:{form}"));
        skillctl(world, &["collection", "push", "-f", &yaml, "--form", form, &name]).ok();
        skillctl(world, &["sign", &name, "--key", &path(world, "acme.key")]).ok();
        let store = path(world, "empty");
        let saved = skillctl(world, &["--store", &store, "save", "-o", &set, "--format", "json", &name]).json();
        let images: Vec<&str> = saved["images"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|image| image["reference"].as_str().expect("a name"))
            .collect();
        match form {
            "artifact" => assert_eq!(images, [&there[0], &there[1], &name]),
            _ => assert_eq!(images, [&name]),
        }
        let store = path(world, form);
        let load = ["--store", &store, "load", "--key", &key, "--load=auto", "--format", "json", "-i", &set];
        let loaded = skillctl(world, &load);
        if form == "artifact" {
            let loaded: Vec<bool> =
                loaded.json().as_array().expect("rows").iter().map(|row| row["loaded"] == true).collect();
            assert_eq!(loaded, [true, true, false], "a collection is for the store");
            skillctl(world, &["--store", &store, "fsck"]).ok();
        }
    }
}
