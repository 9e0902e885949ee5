//! What `doctor` says of a machine where everything is there, and what `generate` warns of where a container would fail.

use std::fs;

use serde_json::Value;

use crate::cell::{World, matrix};

matrix! {
    doctor_finds_everything,
    generate_warns_where_podman_makes_a_directory_as_root,
}

fn doctor_finds_everything(world: &World) {
    let levels = |checks: &Value| -> Vec<(String, String)> {
        let text = |check: &Value, key: &str| check[key].as_str().expect("a text").to_owned();
        checks.as_array().expect("checks").iter().map(|c| (text(c, "name"), text(c, "level"))).collect()
    };
    // Hooks of podman before 4.5.1 see annotations of images: it works, with that limit.
    let podman = if world.podman_version() < (4, 6) { "warn" } else { "ok" };
    let mut expected = vec![("store", "ok"), ("containers-storage", "ok"), ("policy.json", "ok")];
    expected.extend([("trust", "ok"), ("skopeo", "ok"), ("podman", podman), ("hook", "ok")]);
    if world.run("id", ["-u"]).ok() != "0" {
        expected.push(("rootless", "ok"));
    }
    let owned: Vec<_> = expected.into_iter().map(|(name, level)| (name.to_owned(), level.to_owned())).collect();
    let before = world.skillctl(["doctor", "--format", "json"]).json();
    assert_eq!(levels(&before), owned, "on an empty machine: {before}");
    world.build("hr", "1.0.0", &[]);
    world.build("legal", "1.0.0", &["--load=never"]);
    let after = world.skillctl(["doctor", "--format", "json"]).json();
    assert_eq!(levels(&after), owned, "{after}");
    let storage = after[1]["message"].as_str().expect("a message");
    assert!(storage.contains(world.graph_root().to_str().expect("UTF-8")), "{storage}");
    assert!(storage.ends_with("1 of 2 loaded"), "{storage}");
    let version = world.skopeo(["--version"]).ok();
    let version = version.split_whitespace().nth(2).expect("a version");
    let found = after[4]["message"].as_str().and_then(|message| message.split(',').next()).expect("a message");
    assert!(version.starts_with(found), "{version}: {after}");
}

/// Makes an image of a user who is not root, with that user's home, and returns its name.
fn agent(world: &World, name: &str, directories: &[&str]) -> String {
    let root = world.path(name);
    for dir in ["bin", "etc", "home/agent"].iter().chain(directories) {
        fs::create_dir_all(root.join(dir)).expect("a directory");
    }
    fs::copy("/usr/bin/busybox", root.join("bin/busybox")).expect("busybox-static");
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).expect("a symlink");
    fs::write(root.join("etc/passwd"), "agent:x:1000:1000::/home/agent:/bin/sh\n").expect("a passwd");
    let (tar, image) = (world.path(&format!("{name}.tar")), format!("localhost/{name}"));
    let owner = ["--owner=1000", "--group=1000", "-cf"].map(std::ffi::OsStr::new);
    let what = ["-C".as_ref(), root.as_os_str(), ".".as_ref()];
    world.run("tar", owner.into_iter().chain([tar.as_os_str()]).chain(what)).ok();
    world.podman(["import", "-q", "-c", "USER agent", tar.to_str().expect("UTF-8"), &image]).ok();
    image
}

/// Returns what is between key and value.
fn mark(verb: &str) -> &'static str {
    if verb == "kube" { ": " } else { "=" }
}

/// The warning is true: without the directory the user cannot write beside the skill, with it there is no warning and it can.
fn generate_warns_where_podman_makes_a_directory_as_root(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    // An image that is not here is taken to be root's, and it is said. So is what the store has instead of a tag.
    let elsewhere = ["generate", "podman", "--target", "claude", "--image", "registry.example/a:1"];
    let generated = world.skillctl(elsewhere.iter().chain(&["acme/hr:1.0.0-draft"]));
    assert!(generated.stdout.contains("destination=/root/.claude/skills/hr\n"), "{generated}");
    assert!(generated.stderr.starts_with("note: the container's user is taken to be root"), "{generated}");
    let missing = world.skillctl(["generate", "podman", "acme/hr"]);
    assert!(missing.stderr.contains("acme/hr (there is acme/hr:1.0.0-draft)"), "{missing}");
    for (name, directories, writable) in
        [("bare", &[][..], false), ("prepared", &["home/agent/.claude/skills"][..], true)]
    {
        let image = agent(world, name, directories);
        let generated =
            world.skillctl(["generate", "podman", "--target", "claude", "--image", &image, "acme/hr:1.0.0-draft"]);
        let source = format!("localhost/acme/hr@{}", built.digest);
        let flags = format!("--mount type=image,source={source},destination=/home/agent/.claude/skills/hr");
        assert_eq!((generated.code, generated.stdout.trim_end()), (0, &*flags), "{generated}");
        let warns = |stderr: &str| {
            let warned = stderr.starts_with("warning: /home/agent/.claude is made as root");
            assert_eq!((warned, stderr.is_empty()), (!writable, writable), "{stderr}");
        };
        warns(&generated.stderr);
        // So do the others, of the image that their container has.
        for (verb, more) in
            [("volume", &[][..]), ("kube", &[]), ("quadlet", &["--container", "a", "--podman-version=5.4"])]
        {
            let args = ["generate", verb, "--target", "claude", "--image", &image, "acme/hr:1.0.0-draft"];
            let generated = world.skillctl(args.iter().chain(more));
            assert!(generated.stdout.contains("/home/agent/.claude/skills/hr"), "{verb}: {generated}");
            let unloaded = |line: &&str| !line.starts_with("note: acme/hr:1.0.0-draft has no registry");
            warns(&generated.stderr.lines().filter(unloaded).collect::<Vec<_>>().join("\n"));
            // A unit and a pod have the name that podman has, not the one that was short for it.
            let short = args.map(|word| if word == image { name } else { word });
            let generated = world.skillctl(short.iter().chain(more)).ok();
            let whole = generated.to_lowercase().contains(&format!("image{}localhost/{name}:latest", mark(verb)));
            assert_eq!(whole, verb != "volume", "{generated}");
        }
        let shell =
            ["sh", "-c", "/home/agent/.claude/skills/hr/scripts/greet.sh && echo x >/home/agent/.claude/settings"];
        let run =
            ["run", "--rm", "--network", "none"].into_iter().chain(flags.split(' ')).chain([&*image]).chain(shell);
        let run = world.podman(run);
        assert_eq!(run.stdout, "hr 1.0.0 was here\n", "{run}");
        assert_eq!(run.code == 0, writable, "{run}");
    }
}
