//! The registries and the gate of these tests, tried with skopeo: what a scenario says of skillctl is worth as much as they are.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cell::{Done, World, matrix};
use crate::registry::conf::{self, Place};
use crate::registry::gate::{ALWAYS, Fault, Gate};
use crate::registry::{Kind, OTHER, PASSWORD, Registry, USER, digest_of};
use crate::site::blobs;

matrix! { @roots
    registries_are_what_they_say,
    skopeo_takes_our_configuration,
    a_gate_passes_and_faults,
    a_gate_gives_tokens,
}

/// A layout with one image, of which skopeo makes what it is told.
fn image(world: &World) -> (String, String) {
    world.skill("hr", "1.0.0");
    world.noise("hr", 1, 1 << 20, 1);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    (format!("oci:{}:acme/hr:1.0.0-draft", world.store().display()), built.digest)
}

fn registries_are_what_they_say(world: &World) {
    let (image, digest) = image(world);
    let plain = Registry::named(world, "plain", Kind::Plain);
    assert_eq!(plain.requests(), []);
    let to = format!("docker://{}", plain.name("acme/hr:1"));
    let copy = ["copy", "--dest-tls-verify=false", &image, &to];
    let (_, asked) = plain.asked(|| world.skopeo(copy).ok());
    assert!(
        asked.iter().any(|request| request.sends_blob())
            && asked.iter().any(|request| request.is("PUT", "/manifests/1"))
    );
    let (_, asked) = plain.asked(|| world.skopeo(copy).ok());
    assert!(!asked.iter().any(|request| request.sends_blob()), "{asked:?}");
    assert_eq!((plain.tags("acme/hr"), plain.tag("acme/hr", "1")), (vec!["1".to_owned()], Some(digest.clone())));
    assert_eq!(plain.manifest_bytes("acme/hr", &digest).map(|bytes| digest_of(&bytes)).as_ref(), Some(&digest));
    blobs(&plain.manifest("acme/hr", "1")).iter().for_each(|digest| drop(plain.blob(digest)));
    plain.upload("acme/new", b"{}");
    assert_eq!(plain.blob(&digest_of(b"{}")), b"{}");
    plain.put("acme/hr", "2", &plain.manifest_bytes("acme/hr", &digest).expect("a manifest"));
    assert_eq!(plain.tags("acme/hr"), ["1", "2"]);
    // A digest goes with all its tags (why a tag is taken away in another way).
    world.skopeo(["delete", "--tls-verify=false", &format!("docker://{}@{digest}", plain.name("acme/hr"))]).ok();
    assert_eq!((plain.tags("acme/hr"), plain.manifest_bytes("acme/hr", &digest)), (Vec::new(), None));

    let copy = |registry: &Registry, creds: &str| {
        let to = format!("docker://{}", registry.name("acme/hr:1"));
        world.skopeo(["copy", "--dest-creds", creds, &image, &to])
    };
    let tls = Registry::named(world, "tls", Kind::TlsHtpasswd);
    let creds = format!("{USER}:{PASSWORD}");
    assert!(copy(&tls, &creds).fails(1).contains("x509"));
    conf::trust(world, &tls, if world.is_root() { Place::Etc } else { Place::Home });
    let error = copy(&tls, &format!("{USER}:wrong")).fails(1);
    assert!(error.contains("nauthorized") || error.contains("authentication required"), "{error}");
    copy(&tls, &creds).ok();
    copy(&tls, &format!("{}:{}", OTHER.0, OTHER.1)).ok();
    assert_eq!(tls.tag("acme/hr", "1").as_ref(), Some(&digest));
    let old = Registry::named(world, "old", Kind::Expired);
    conf::trust(world, &old, Place::Home);
    assert!(copy(&old, "a:b").fails(1).contains("expired"));
}

fn skopeo_takes_our_configuration(world: &World) {
    let (image, digest) = image(world);
    let plain = Registry::named(world, "plain", Kind::Plain);
    let tls = Registry::named(world, "tls", Kind::TlsHtpasswd);
    conf::trust(world, &tls, Place::Home);
    let copy = |name: &str| world.skopeo(["copy", &image, &format!("docker://{name}")]);
    copy(&tls.name("acme/hr:1")).fails(1);
    conf::auth_json(world, &[(&tls.address, "nobody", "wrong"), (&tls.name("acme"), USER, PASSWORD)]);
    copy(&tls.name("acme/hr:1")).ok();
    copy(&tls.name("other/hr:1")).fails(1);
    let path = conf::auth_json(world, &[]);
    fs::remove_file(path).expect("a file");
    let bin = conf::helper(world, &tls.address, USER, PASSWORD);
    conf::docker_config(world, &json!({ "credHelpers": { tls.address.as_str(): "test" } }).to_string());
    let inspect = |variable: &str, value: &std::ffi::OsStr| {
        let mut command = world.command("skopeo", ["inspect", "--raw", &format!("docker://{}", tls.name("acme/hr:1"))]);
        command.env(variable, value);
        Done::of(command)
    };
    let with_helper = format!("{}:/usr/bin:/bin", bin.display());
    assert_eq!(digest_of(inspect("PATH", with_helper.as_ref()).ok().as_bytes()), digest);
    conf::docker_config(world, "{}");
    inspect("PATH", with_helper.as_ref()).fails(1);
    conf::registries_conf(world, "credential-helpers = [\"containers-auth.json\", \"test\"]\n");
    inspect("PATH", with_helper.as_ref()).ok();
    conf::registries_conf(world, "");
    fs::create_dir_all(world.path("runtime/containers")).expect("a directory");
    let file = world.path("runtime/containers/auth.json");
    fs::write(&file, conf::auths(&[(&tls.address, USER, PASSWORD)])).expect("a file");
    inspect("REGISTRY_AUTH_FILE", file.as_os_str()).ok();
    inspect("XDG_RUNTIME_DIR", world.path("runtime").as_os_str()).ok();
    inspect("TERM", "dumb".as_ref()).fails(1);

    let text = [
        conf::mirrored("registry.example/acme", &plain.name("mirrored")),
        conf::registry(&plain.name("blocked"), "blocked = true"),
        conf::registry(&plain.address, "insecure = true"),
    ];
    conf::registries_conf(world, &text.concat());
    copy(&plain.name("mirrored/hr:1")).ok();
    assert!(copy(&plain.name("blocked/hr:1")).fails(1).contains("blocked"));
    let raw = world.skopeo(["inspect", "--raw", "docker://registry.example/acme/hr:1"]);
    assert_eq!(digest_of(raw.stdout.as_bytes()), digest, "{raw}");
}

fn a_gate_passes_and_faults(world: &World) {
    let (image, digest) = image(world);
    let hub = Registry::start(world, Kind::Plain);
    let gate = Gate::before(&hub);
    let name = format!("docker://{}", gate.name("acme/hr:1"));
    world.skopeo(["copy", "--dest-tls-verify=false", &image, &name]).ok();
    assert_eq!(hub.tag("acme/hr", "1").as_ref(), Some(&digest));
    let inspect = || world.skopeo(["inspect", "--raw", "--tls-verify=false", &name]);
    let pull = || {
        let to = world.path("pulled");
        let _ = fs::remove_dir_all(&to);
        world.skopeo(["copy", "--src-tls-verify=false", &name, &format!("oci:{}", to.display())])
    };
    assert_eq!(digest_of(inspect().ok().as_bytes()), digest);
    gate.reset();
    pull().ok();
    assert_eq!((gate.count("GET", "/manifests/"), gate.count("GET", "/blobs/")), (1, 2), "{:?}", gate.requests());

    gate.delay(Duration::from_millis(200));
    let started = Instant::now();
    inspect().ok();
    assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
    gate.reset();

    let layer = hub.manifest("acme/hr", "1")["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    // Newer releases ask again for the rest.
    gate.on("GET", &layer, 1, Fault::Cut);
    let done = pull();
    let again = gate.count("GET", &layer) >= 2;
    assert!(if again { done.code == 0 } else { done.stderr.contains("unexpected EOF") }, "{done}");
    gate.reset();
    gate.on("GET", "/manifests/", 2, Fault::Later(1));
    let started = Instant::now();
    inspect().ok();
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(gate.count("GET", "/manifests/"), 3);
    gate.reset();
    for (part, fault, said) in [
        ("/manifests/", Fault::Status(500), "500"),
        ("/manifests/", Fault::Cut, "EOF"),
        ("/manifests/", Fault::Instead(vec![b'a'; 5 << 20]), "exceeded"),
        ("/manifests/", Fault::Endless(Duration::ZERO), "exceeded"),
        (&layer, Fault::Wrong, "igest"),
        (&layer, Fault::Endless(Duration::ZERO), ""),
    ] {
        gate.on("GET", part, ALWAYS, fault.clone());
        let done = pull();
        assert!(done.code == 1 && done.stderr.contains(said), "{fault:?}: {done}");
        gate.reset();
    }
    let started = Instant::now();
    gate.on("GET", &layer, ALWAYS, Fault::Slow(1 << 20));
    pull().ok();
    assert!((700..5000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    gate.reset();
    let delete = || world.skopeo(["delete", "--tls-verify=false", &name]);
    for status in [405, 202] {
        gate.on("DELETE", "/manifests/", ALWAYS, Fault::Status(status));
        assert_eq!(delete().code == 0, status == 202);
        assert_eq!(hub.tags("acme/hr"), ["1"]);
        gate.reset();
    }
    delete().ok();
    assert_eq!(hub.tags("acme/hr"), [""; 0]);
}

fn a_gate_gives_tokens(world: &World) {
    let (image, digest) = image(world);
    let hub = Registry::start(world, Kind::Plain);
    let gate = Gate::before(&hub);
    gate.tokens(USER, PASSWORD);
    let name = format!("docker://{}", gate.name("acme/hr:1"));
    let copy = |creds: &str| world.skopeo(["copy", "--dest-tls-verify=false", "--dest-creds", creds, &image, &name]);
    copy(&format!("{USER}:wrong")).fails(1);
    assert_eq!(hub.requests(), []);
    let creds = format!("{USER}:{PASSWORD}");
    copy(&creds).ok();
    assert_eq!(hub.tag("acme/hr", "1").as_ref(), Some(&digest));
    world.skopeo(["inspect", "--raw", "--tls-verify=false", &name]).fails(1);
    world.skopeo(["inspect", "--raw", "--tls-verify=false", "--creds", &creds, &name]).ok();
    world.skopeo(["delete", "--tls-verify=false", "--creds", &creds, &name]).ok();
    assert_eq!(hub.tags("acme/hr"), [""; 0]);
}
