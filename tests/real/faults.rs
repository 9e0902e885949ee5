//! Registries that fail in every way they know, disks that are full, and Ctrl-C: one error, nothing half-done, and the next run
//! goes on from there.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::cell::{Built, Done, World, matrix};
use crate::registry::gate::{ALWAYS, Fault, Gate};
use crate::registry::{Kind, Registry, nobody};
use crate::site::{Site, blobs, processes, said};

matrix! { @roots
    an_error_names_registry_and_cause,
    a_failed_push_leaves_nothing,
    what_passes_is_tried_again,
    a_registry_that_lies_is_found_out,
    what_is_here_is_not_fetched_again,
    a_full_disk_is_named,
    a_store_that_cannot_be_written_is_named,
    ctrl_c_ends_it_at_once,
}

const DRAFT: &str = "acme/hr:1.0.0-draft";

/// A skill in a registry behind a gate, and a machine without it.
struct Scene<'a> {
    hub: Registry,
    gate: Gate,
    built: Built,
    name: String,
    there: Site<'a>,
}

impl<'a> Scene<'a> {
    fn new(world: &'a World) -> Self {
        world.skill("hr", "1.0.0");
        world.noise("hr", 4, 1 << 20, 1);
        let hub = Registry::start(world, Kind::Plain);
        let gate = Gate::before(&hub);
        let built = world.build("hr", "1.0.0", &["--load=never"]);
        world.skillctl(["push", DRAFT, &hub.name(DRAFT)]).ok();
        let name = gate.name(DRAFT);
        Self { hub, gate, built, name, there: Site::other(world, "there") }
    }

    fn layer(&self) -> String {
        self.built.manifest["layers"][0]["digest"].as_str().expect("a digest").to_owned()
    }

    /// The verbs that only read, without another try.
    fn reads(&self) -> [Vec<String>; 3] {
        let verb = |args: &[&str]| args.iter().chain(&["--retry", "0"]).map(|arg| (*arg).to_owned()).collect();
        [
            verb(&["pull", &self.name, "--load=never"]),
            // Spelled, because the store may have it.
            verb(&["inspect", &format!("docker://{}", self.name)]),
            verb(&["list", "--remote", &self.gate.name("acme/hr")]),
        ]
    }

    #[track_caller]
    fn pull_is_refused(&self, causes: &[&str]) -> String {
        let pull = ["pull", &self.name, "--load=never", "--retry", "0"];
        self.there.refuses(&pull, &[&self.gate.address, "acme/hr"], causes)
    }

    /// Everything is well again, and the pull that failed works.
    #[track_caller]
    fn recovers(&self) {
        self.gate.reset();
        let pulled = self.there.skillctl(["pull", &self.name, "--load=never"]).ok();
        assert_eq!(said(&pulled, "Digest: "), self.built.digest);
        self.there.tidy();
        self.there.whole();
    }
}

fn borrowed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn an_error_names_registry_and_cause(world: &World) {
    let scene = Scene::new(world);
    let Scene { gate, there, .. } = &scene;
    let faults: [(Fault, &[&str]); 5] = [
        (Fault::Status(401), &["unauthorized", "denied", "authentication required", "credentials"]),
        (Fault::Status(403), &["denied", "forbidden", "403"]),
        (Fault::Later(1), &["rate limit", "too many requests", "429"]),
        (Fault::Status(500), &["500", "internal server error"]),
        (Fault::Status(503), &["503", "service unavailable"]),
    ];
    for (fault, causes) in faults {
        gate.on("*", "/v2/acme/", ALWAYS, fault.clone());
        for verb in scene.reads() {
            let started = Instant::now();
            let error = there.refuses(&borrowed(&verb), &[&gate.address, "acme/hr"], causes);
            assert!(started.elapsed() < Duration::from_secs(30), "{:?}: {error}", started.elapsed());
        }
        gate.reset();
    }
    for (missing, repository) in [("acme/none:1", "acme/none"), ("acme/hr:none", "acme/none")] {
        let list = ["list", "--remote", &gate.name(repository)];
        for verb in [["pull", &gate.name(missing)].as_slice(), &["inspect", &gate.name(missing)], &list] {
            there.refuses(verb, &[&gate.address, "acme/"], &["not found", "unknown"]);
        }
    }
    let gone = nobody();
    for verb in ["pull", "inspect"] {
        there.refuses(&[verb, &format!("{gone}/acme/hr:1"), "--retry", "0"], &[&gone], &["refused"]);
    }
    scene.recovers();
}

/// Neither the registry nor the store has the new name.
fn a_failed_push_leaves_nothing(world: &World) {
    let Scene { hub, gate, built, .. } = Scene::new(world);
    let here = Site::here(world);
    let name = gate.name("acme/new:1");
    for (method, part, fault, causes) in [
        ("POST", "/blobs/uploads", Fault::Status(403), ["denied", "403", "forbidden"]),
        ("PATCH", "/blobs/uploads", Fault::Status(500), ["500", "internal", "server error"]),
        ("PUT", "/blobs/uploads", Fault::Status(503), ["503", "unavailable", "server error"]),
        ("PUT", "/manifests/", Fault::Status(500), ["500", "internal", "server error"]),
    ] {
        gate.on(method, part, ALWAYS, fault);
        here.refuses(&["push", DRAFT, &name, "--retry", "0"], &[&gate.address, "acme/new"], &causes);
        assert_eq!(hub.tags("acme/new"), [""; 0], "{method}");
        assert_eq!(here.digest(&name), None, "{method}");
        gate.reset();
    }
    // The last attempt left all blobs there; they are not sent again.
    here.skillctl(["push", DRAFT, &name]).ok();
    assert_eq!(gate.requests().iter().filter(|request| request.method == "PATCH").count(), 0, "{:?}", gate.requests());
    assert_eq!(hub.tag("acme/new", "1").as_ref(), Some(&built.digest));

    // A promotion that fails half way names no state that was not reached.
    let (tags, draft) = (hub.tags("acme/hr"), gate.name(DRAFT));
    gate.on("PUT", "/manifests/", ALWAYS, Fault::Status(500));
    here.refuses(
        &["promote", &draft, "--to", "testing", "--retry", "0"],
        &[&gate.address, "acme/hr"],
        &["500", "server error"],
    );
    assert_eq!(hub.tags("acme/hr"), tags);
    gate.reset();
    here.skillctl(["promote", &draft, "--to", "testing"]).ok();
    assert_eq!(hub.tags("acme/hr"), ["1.0.0-draft", "1.0.0-testing"]);
}

fn what_passes_is_tried_again(world: &World) {
    let scene = Scene::new(world);
    let Scene { gate, there, built, name, .. } = &scene;
    let reads = scene.reads().map(|verb| verb[..verb.len() - 2].to_vec());
    for (fault, least) in [(Fault::Later(1), 1), (Fault::Status(503), 0), (Fault::Status(500), 0)] {
        for verb in &reads {
            gate.on("*", "/v2/acme/", 1, fault.clone());
            let started = Instant::now();
            let done = there.skillctl(borrowed(verb));
            assert_eq!((done.code, &*done.stderr), (0, ""), "{fault:?}: {done}");
            let took = started.elapsed();
            assert!((least..20).contains(&took.as_secs()), "{fault:?} {verb:?}: {took:?}");
            gate.reset();
        }
        there.skillctl(["rm", "-f", name]).ok();
        there.skillctl(["prune", "--grace", "0"]).ok();
    }
    for part in ["/blobs/", "/manifests/"] {
        gate.on("GET", part, 1, Fault::Cut);
        let pulled = there.skillctl(["pull", name, "--load=never"]).ok();
        assert_eq!(said(&pulled, "Digest: "), built.digest, "{part}");
        there.whole();
        there.skillctl(["rm", "-f", name]).ok();
        there.skillctl(["prune", "--grace", "0"]).ok();
        gate.reset();
    }
    gate.on("PUT", "/manifests/", 1, Fault::Status(503));
    world.skillctl(["push", DRAFT, &gate.name("acme/new:1")]).ok();
    // As often as was asked for, and no more.
    gate.reset();
    gate.on("GET", "/manifests/", ALWAYS, Fault::Status(503));
    there.refuses(&["inspect", name, "--retry", "1"], &[&gate.address], &["503", "unavailable"]);
    assert_eq!(gate.count("GET", "/manifests/"), 2, "{:?}", gate.requests());
}

/// Nothing that a registry sends is taken for what it is called, nor in any amount.
fn a_registry_that_lies_is_found_out(world: &World) {
    let scene = Scene::new(world);
    let Scene { hub, gate, there, built, name, .. } = &scene;
    let digest = &["digest", "does not match", "corrupt", "mismatch"];
    let layer = scene.layer();
    let started = Instant::now();

    gate.on("GET", &layer, ALWAYS, Fault::Wrong);
    scene.pull_is_refused(digest);
    assert_eq!(there.blob(&layer), None);
    gate.reset();
    gate.on("GET", &layer, ALWAYS, Fault::Cut);
    scene.pull_is_refused(&["eof", "closed", "broke", "incomplete"]);
    assert_eq!(there.blob(&layer), None);
    gate.reset();
    gate.on("GET", &layer, ALWAYS, Fault::Endless(Duration::ZERO));
    scene.pull_is_refused(&["size", "larger", "more than", "exceeds", "digest"]);
    gate.reset();

    // By digest, a manifest is what the digest says.
    let mut other = built.manifest.clone();
    other["annotations"]["io.skillimage.status"] = json!("published");
    gate.on("GET", "/manifests/", ALWAYS, Fault::Instead(other.to_string().into_bytes()));
    let pinned = gate.name(&format!("acme/hr@{}", built.digest));
    for verb in ["pull", "inspect"] {
        there.refuses(&[verb, &pinned, "--retry", "0"], &[&gate.address], digest);
    }
    gate.reset();

    let oversized = json!({ "schemaVersion": 2, "annotations": { "padding": "a".repeat(5 << 20) } }).to_string();
    let large = ["too big", "too large", "exceeds", "limit", "larger", "4 mib"];
    for fault in [
        Fault::Instead(oversized.into_bytes()),
        Fault::Endless(Duration::ZERO),
        Fault::Endless(Duration::from_millis(20)),
    ] {
        gate.on("*", "/manifests/", ALWAYS, fault);
        for verb in scene.reads() {
            there.refuses(&borrowed(&verb), &[&gate.address, "acme/hr"], &large);
        }
        gate.reset();
    }
    for nonsense in [b"<html>Sign in to continue</html>".as_slice(), b"{}", b"[]", b""] {
        gate.on("GET", "/manifests/", ALWAYS, Fault::Instead(nonsense.to_vec()));
        for verb in &scene.reads()[..2] {
            there.refuses(&borrowed(verb), &[&gate.address, "acme/hr"], &["manifest"]);
        }
        gate.reset();
    }

    // A layer that is declared to be larger than what we take is not even asked for.
    let mut huge = built.manifest.clone();
    huge["layers"][0]["size"] = json!(5_u64 << 30);
    hub.put("acme/hr", "huge", huge.to_string().as_bytes());
    let error = there.refuses(&["pull", &gate.name("acme/hr:huge")], &["acme/hr:huge"], &["limit", "exceeds"]);
    assert!(error.contains("--max-size"), "{error}");
    there.refuses(&["pull", name, "--max-size", "1000"], &["acme/hr"], &["--max-size"]);
    assert_eq!(gate.count("GET", "/blobs/"), 0);
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
    scene.recovers();
}

/// An index whose second image fails: the next run fetches that alone.
fn what_is_here_is_not_fetched_again(world: &World) {
    let scene = Scene::new(world);
    let Scene { gate, there, name, .. } = &scene;
    let (config, layer) = (scene.built.manifest["config"]["digest"].as_str().expect("a digest"), scene.layer());
    gate.on("GET", config, ALWAYS, Fault::Status(500));
    scene.pull_is_refused(&["500", "server error"]);
    assert!(there.blob(&layer).is_some(), "a whole layer is thrown away");
    gate.reset();
    there.skillctl(["pull", name, "--load=never"]).ok();
    assert_eq!((gate.count("GET", &layer), gate.count("GET", config)), (0, 1), "{:?}", gate.requests());

    let dir = world.skill("duo", "1.0.0");
    world.noise("duo", 1, 1 << 20, 7);
    let platforms = ["build", dir.to_str().expect("UTF-8"), "--platform", "linux/amd64,linux/arm64", "--load=never"];
    let digest = said(&world.skillctl(platforms).ok(), "Digest: ").to_owned();
    let duo = gate.name("acme/duo:1.0.0-draft");
    world.skillctl(["push", "acme/duo:1.0.0-draft", &duo]).ok();
    let index: Value = serde_json::from_slice(&scene.hub.blob(&digest)).expect("JSON");
    let images = index["manifests"].as_array().expect("images").iter();
    let images: Vec<_> = images
        .map(|image| {
            blobs(&serde_json::from_slice(&scene.hub.blob(image["digest"].as_str().expect("a digest"))).expect("JSON"))
        })
        .collect();
    assert_eq!(images[0][1], images[1][1], "one layer for all");
    gate.on("GET", &images[1][0], ALWAYS, Fault::Status(500));
    there.refuses(&["pull", &duo, "--retry", "0"], &[&gate.address, "acme/duo"], &["500", "server error"]);
    gate.reset();
    there.skillctl(["pull", &duo, "--load=never"]).ok();
    assert_eq!(gate.count("GET", &images[0][1]), 0, "{:?}", gate.requests());
    assert_eq!(gate.count("GET", &images[1][0]), 1, "{:?}", gate.requests());
    there.whole();
}

/// Mounts a small disk; root alone can, in a cell.
fn disk(world: &World, path: &std::path::Path, options: &str) {
    fs::create_dir_all(path).expect("a directory");
    let path = path.as_os_str();
    world.run("mount", ["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), options.as_ref(), "tmpfs".as_ref(), path]).ok();
}

fn a_full_disk_is_named(world: &World) {
    let scene = Scene::new(world);
    let Scene { gate, there, name, .. } = &scene;
    disk(world, &there.store, "size=1m");
    // The disk is ours, so the registry need not be in it, but the name is.
    let error = there.refuses(&["pull", name, "--load=never"], &["acme/hr"], &["no space left"]);
    assert!(!error.contains("--retry"), "{error}");
    assert!(gate.count("GET", "/blobs/") < 4, "a full disk is tried again: {:?}", gate.requests());
    let store = there.store.to_str().expect("UTF-8");
    world.run("mount", ["-o", "remount,size=32m", store]).ok();
    scene.recovers();

    // The store has it, and the directory cannot take it: nothing half-unpacked is left there.
    let out = world.path("out");
    disk(world, &out, "size=1m");
    let pull = ["pull", name, "--load=never", "-o", out.to_str().expect("UTF-8")];
    there.refuses(&pull, &[], &["no space left"]);
    assert_eq!(fs::read_dir(&out).expect("a directory").count(), 0);
    assert_eq!(there.digest(name).as_ref(), Some(&scene.built.digest));
    for path in [store, out.to_str().expect("UTF-8")] {
        world.run("umount", [path]).ok();
    }
}

fn a_store_that_cannot_be_written_is_named(world: &World) {
    let scene = Scene::new(world);
    let Scene { hub, there, name, built, .. } = &scene;
    scene.recovers();
    fs::write(world.path("hr/notes.md"), "more").expect("a file");
    world.build("hr", "1.0.0", &["--load=never"]);
    world.skillctl(["push", DRAFT, &hub.name(DRAFT)]).ok();
    let store = there.store.to_str().expect("UTF-8");
    world.run("mount", ["--bind", store, store]).ok();
    world.run("mount", ["-o", "remount,bind,ro", store]).ok();
    there.refuses(&["pull", name, "--load=never"], &[], &["read-only"]);
    // What needs no writing works.
    assert_eq!(there.inspect(name)["digest"], json!(built.digest));
    assert_ne!(there.inspect(&format!("docker://{name}"))["digest"], json!(built.digest));
    there.skillctl(["list", "--remote", &hub.name("acme/hr")]).ok();
    world.run("umount", [store]).ok();
}

/// Within two seconds, on a machine that may be busy: no process and no file is left, and the next run works.
fn ctrl_c_ends_it_at_once(world: &World) {
    let scene = Scene::new(world);
    let Scene { hub, gate, there, built, name, .. } = &scene;
    let here = Site::here(world);
    let new = gate.name("acme/new:1");
    let layer = scene.layer();
    let runs: [(&Site, &[&str], &str, Fault); 5] = [
        (there, &["pull", name, "--load=never"], &layer, Fault::Slow(256 << 10)),
        (there, &["pull", name, "--load=never"], "/manifests/", Fault::Silence),
        (there, &["inspect", name], "/manifests/", Fault::Silence),
        (there, &["list", "--remote", &gate.name("acme/hr")], "/manifests/", Fault::Silence),
        (&here, &["push", DRAFT, &new], "/blobs/uploads", Fault::Silence),
    ];
    for (site, args, part, fault) in runs {
        gate.on("*", part, ALWAYS, fault);
        let before = site.entries();
        let done = Done::while_running(site.command(args), |child| {
            gate.wait_for("*", part);
            thread::sleep(Duration::from_millis(300));
            assert!(child.try_wait().expect("a child").is_none(), "{args:?} has ended by itself");
            let started = Instant::now();
            // To this process alone: that of a terminal also goes to its children.
            kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGINT).expect("a signal");
            while child.try_wait().expect("a child").is_none() {
                assert!(started.elapsed() < Duration::from_secs(2), "{args:?} still runs");
                thread::sleep(Duration::from_millis(5));
            }
        });
        assert!(matches!(done.code, -1 | 130), "{done}");
        let left: Vec<_> = processes().into_iter().filter(|(_, command)| command[0].ends_with("skopeo")).collect();
        assert!(left.is_empty(), "{args:?} left {left:?}");
        assert_eq!(site.entries(), before, "{done}");
        site.tidy();
        gate.reset();
    }
    assert_eq!(hub.tags("acme/new"), [""; 0]);
    assert_eq!(here.digest(&new), None);
    scene.recovers();
    assert_eq!(there.digest(name).as_ref(), Some(&built.digest));
}
