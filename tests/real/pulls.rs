//! What is pulled when: policies, tags that moved, a network that is gone; and what a registry lists without a pull.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cell::{World, matrix};
use crate::registry::gate::Gate;
use crate::registry::{Kind, Registry, Request};
use crate::site::{Site, said};

matrix! { @roots
    a_moved_tag_is_refreshed_everywhere,
    a_policy_says_when_to_pull,
    without_a_network_there_is_the_store,
    a_directory_is_not_overwritten,
    a_repository_is_listed_by_its_manifests,
    a_skill_for_oc_mirror_goes_everywhere_but_into_storage,
}

const DRAFT: &str = "acme/hr:1.0.0-draft";

/// Two versions of what one tag names, of which the second has no script and one more file.
struct Moving {
    hub: Registry,
    name: String,
    first: String,
}

impl Moving {
    fn new(world: &World) -> Self {
        let hub = Registry::start(world, Kind::Plain);
        let first = world.build("hr", "1.0.0", &["--load=never"]).digest;
        let name = hub.name(DRAFT);
        world.skillctl(["push", DRAFT, &name]).ok();
        Self { hub, name, first }
    }

    /// Moves the tag, and returns what it then is.
    fn on(&self, world: &World) -> String {
        world.skill("hr", "1.0.0");
        fs::write(world.path("hr/notes.md"), "more").expect("a file");
        fs::remove_dir_all(world.path("hr/scripts")).expect("a directory");
        let built = world.skillctl(["build", world.path("hr").to_str().expect("UTF-8"), "--load=never"]).ok();
        world.skillctl(["push", DRAFT, &self.name]).ok();
        let second = said(&built, "Digest: ").to_owned();
        assert_eq!(self.hub.tag("acme/hr", "1.0.0-draft").as_ref(), Some(&second));
        assert_ne!(second, self.first);
        second
    }
}

fn a_moved_tag_is_refreshed_everywhere(world: &World) {
    let moving = Moving::new(world);
    let name = &moving.name;
    let there = Site::other(world, "there");
    let out = world.path("skills");
    let pull = || there.load(&["pull", name, "-o", out.to_str().expect("UTF-8")]);
    let storage = || there.podman(["image", "inspect", "--format", "{{.Digest}}", name]).ok();
    assert_eq!(said(&pull(), "Digest: "), moving.first);
    assert_eq!((there.digest(name).as_ref(), &storage()), (Some(&moving.first), &moving.first));
    // Again, and no layer is fetched that is here; skopeo copy always reads the config.
    let (_, asked) = moving.hub.asked(pull);
    let manifest: Value = serde_json::from_slice(&there.blob(&moving.first).expect("its blob")).expect("a manifest");
    let config = manifest["config"]["digest"].as_str().expect("a config");
    let fetched = |request: &&Request| request.path.contains("/blobs/") && !request.path.ends_with(config);
    assert_eq!(asked.iter().find(fetched), None, "{asked:?}");

    let second = moving.on(world);
    assert_eq!(said(&pull(), "Digest: "), second);
    assert_eq!((there.digest(name).as_ref(), &storage()), (Some(&second), &second));
    assert_eq!(fs::read_to_string(out.join("hr/notes.md")).expect("the new file"), "more");
    assert!(!out.join("hr/scripts").exists(), "a file of the old version");
    assert_eq!(there.podman(["images", "-a", "-q", "--filter", "dangling=true"]).ok(), "");
    // What nobody names any more goes.
    there.skillctl(["prune", "--grace", "0"]).ok();
    assert_eq!(there.blob(&moving.first), None);
    there.whole();
}

fn a_policy_says_when_to_pull(world: &World) {
    let moving = Moving::new(world);
    let Moving { hub, name, first } = &moving;
    let there = Site::other(world, "there");
    let pull = |policy: &str| there.skillctl(["pull", name, "--load=never", "--pull", policy]);
    let asks = |policy: &str| {
        let (done, asked) = hub.asked(|| pull(policy).ok());
        (said(&done, "Digest: ").to_owned(), asked.iter().any(|request| request.path.contains("/manifests/")))
    };
    let (_, asked) = hub.asked(|| there.refuses(&["pull", name, "--pull", "never"], &[name], &["not found"]));
    assert_eq!(asked, []);
    assert_eq!(asks("missing"), (first.clone(), true));
    let second = moving.on(world);
    for (policy, digest, asked) in
        [("never", first, false), ("missing", first, false), ("newer", &second, true), ("always", &second, true)]
    {
        assert_eq!(asks(policy), (digest.clone(), asked), "{policy}");
        assert_eq!(there.digest(name).as_ref(), Some(digest), "{policy}");
    }
}

fn without_a_network_there_is_the_store(world: &World) {
    let Moving { mut hub, name, first } = Moving::new(world);
    let there = Site::other(world, "there");
    there.skillctl(["pull", &name, "--load=never"]).ok();
    hub.stop();
    let pull = |policy: &str| there.skillctl(["pull", &name, "--load=never", "--retry", "0", "--pull", policy]);
    for policy in ["missing", "never"] {
        let done = pull(policy);
        assert_eq!((done.code, &*done.stderr), (0, ""), "{done}");
        assert_eq!(said(&done.stdout, "Digest: "), first);
    }
    let newer = pull("newer");
    assert_eq!((newer.code, newer.stderr.lines().count()), (0, 1), "{newer}");
    assert!(newer.stderr.starts_with("warning: ") && newer.stderr.contains(&hub.address), "{newer}");
    assert_eq!(said(&newer.stdout, "Digest: "), first);
    for verb in [
        ["pull", &name, "--load=never", "--retry", "0"].as_slice(),
        &["inspect", &format!("docker://{name}"), "--retry", "0"],
        &["list", "--remote", &hub.name("acme/hr"), "--retry", "0"],
        &["promote", &name, "--to", "testing", "--retry", "0"],
    ] {
        there.refuses(verb, &[&hub.address], &["connection refused", "no route"]);
    }
    // A name that the store has needs no registry.
    assert_eq!(there.inspect(&name)["digest"], json!(first));
    there.whole();
}

/// What is in the way of `-o` and was not put there by a pull stays.
fn a_directory_is_not_overwritten(world: &World) {
    let Moving { hub: _hub, name, .. } = Moving::new(world);
    let there = Site::other(world, "there");
    let out = world.path("skills");
    fs::create_dir_all(out.join("hr")).expect("a directory");
    fs::write(out.join("hr/mine.md"), "mine").expect("a file");
    let pull = ["pull", &name, "--load=never", "-o", out.to_str().expect("UTF-8")];
    let error = there.skillctl(pull).refused(&["hr"], &["exists", "not empty", "--force"]);
    assert!(error.contains("--force"), "{error}");
    assert_eq!(fs::read_dir(out.join("hr")).expect("a directory").count(), 1);
    assert_eq!(fs::read_dir(&out).expect("a directory").count(), 1, "something half-unpacked");
    there.skillctl(pull.into_iter().chain(["--force"])).ok();
    assert!(out.join("hr/SKILL.md").exists());
    let small = world.path("small");
    let pull = ["pull", &name, "--load=never", "--max-size", "10", "-o", small.to_str().expect("UTF-8")];
    Site::other(world, "elsewhere").refuses(&pull, &["acme/hr"], &["--max-size"]);
    assert!(!small.join("hr").exists());
}

fn a_repository_is_listed_by_its_manifests(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let gate = Gate::before(&hub);
    let built = world.build("hr", "1.0.0", &["--load=never", "--timestamp", "2026-01-02T03:04:05Z"]);
    let draft = gate.name(DRAFT);
    world.skillctl(["push", DRAFT, &draft]).ok();
    let testing = said(&world.skillctl(["promote", &draft, "--to", "testing"]).ok(), "Digest: ").to_owned();
    let published = world.skillctl(["promote", &gate.name("acme/hr:1.0.0-testing"), "--to", "published"]).ok();
    let published = said(&published, "Digest: ");
    gate.reset();
    let there = Site::other(world, "there");
    let rows = there.skillctl(["list", "--remote", &gate.name("acme/hr"), "--format", "json"]).json();
    let expected = [
        ("1.0.0", "published", published),
        ("1.0.0-draft", "draft", &built.digest),
        ("1.0.0-testing", "testing", &testing),
        ("latest", "published", published),
    ];
    let expected = expected.map(|(tag, status, digest)| {
        json!({
            "reference": gate.name(&format!("acme/hr:{tag}")), "name": gate.name("acme/hr"), "tag": tag, "version": "1.0.0",
            "status": status, "digest": digest, "image_id": format!("sha256:{}", built.id), "created": "2026-01-02T03:04:05Z",
        })
    });
    assert_eq!(rows, Value::from(expected.to_vec()));
    let table = there.skillctl(["list", "--remote", &gate.name("acme/hr")]).ok();
    assert_eq!(
        table.lines().next().map(|line| line.split_whitespace().collect()),
        Some(vec!["NAME", "TAG", "STATUS", "DIGEST", "CREATED"])
    );
    assert_eq!(table.lines().count(), 5, "{table}");
    assert_eq!(gate.requests().iter().filter(|request| request.is("GET", "/blobs/")).count(), 0);

    let history = there.skillctl(["history", &gate.name("acme/hr:1.0.0"), "--format", "json"]).json();
    for (status, digest) in [("draft", &*built.digest), ("testing", &testing), ("published", published)] {
        let row = history.as_array().expect("rows").iter().find(|row| row["digest"] == digest);
        assert_eq!(row.unwrap_or_else(|| panic!("no {digest} in {history}"))["status"], status);
    }
    let text = there.skillctl(["history", &gate.name("acme/hr:1.0.0")]).ok();
    assert!(["draft", "testing", "published"].iter().all(|state| text.contains(state)), "{text}");

    // Many tags, each request 20 ms away: they are asked for side by side, on connections that are kept.
    let manifest = hub.blob(&built.digest);
    world.skillctl(["push", DRAFT, &hub.name("acme/many:t0")]).ok();
    for number in 1..100 {
        hub.put("acme/many", &format!("t{number}"), &manifest);
    }
    gate.reset();
    gate.delay(Duration::from_millis(20));
    let before = gate.connections();
    let started = std::time::Instant::now();
    let rows = there.skillctl(["list", "--remote", &gate.name("acme/many"), "--format", "json"]).json();
    let took = started.elapsed();
    assert_eq!(rows.as_array().map(Vec::len), Some(100));
    assert!(rows.as_array().expect("rows").iter().all(|row| row["digest"] == built.digest && row["status"] == "draft"));
    assert!(took < Duration::from_millis(100 * 20), "one after another would take 2 s, and this took {took:?}");
    assert!(gate.connections() - before <= 40, "{} connections", gate.connections() - before);
    there.refuses(&["list", "--remote", &gate.name("acme/none")], &[&gate.address], &["not found", "unknown"]);
}

fn a_skill_for_oc_mirror_goes_everywhere_but_into_storage(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let built = world.build("hr", "1.0.0", &["--load=never", "--media-type", "redhat"]);
    let name = hub.name(DRAFT);
    assert_eq!(said(&world.skillctl(["push", DRAFT, &name]).ok(), "Digest: "), built.digest);
    assert_eq!(hub.manifest("acme/hr", "1.0.0-draft"), built.manifest);
    let there = Site::other(world, "there");
    assert_eq!(there.inspect(&format!("docker://{name}"))["digest"], json!(built.digest));
    let out = world.path("skills");
    let done = there.skillctl(["pull", &name, "-o", out.to_str().expect("UTF-8")]);
    assert_eq!((done.code, done.stderr.lines().count()), (0, 1), "{done}");
    assert!(done.stderr.starts_with("Not loaded: ") && done.stderr.contains("media type"), "{done}");
    assert_eq!(said(&done.stdout, "Digest: "), built.digest);
    assert_eq!(
        fs::read(out.join("hr/SKILL.md")).expect("a file"),
        fs::read(world.path("hr/SKILL.md")).expect("a file")
    );
    there.whole();
    there.skillctl(["pull", &name, "--load=always"]).refused(&[&name], &["media type"]);
}
