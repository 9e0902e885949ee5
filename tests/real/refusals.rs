//! What must not happen quietly: writes decided by a mirror, documents that two readers read differently, passwords for the
//! wrong registry, and names that are taken for something else.

use std::fs;

use serde_json::{Value, json};

use crate::cell::{World, matrix};
use crate::registry::gate::{ALWAYS, Fault, Gate};
use crate::registry::{Kind, Registry, conf, digest_of};
use crate::site::{Site, said};

matrix! { @roots
    a_mirror_decides_about_no_write,
    what_cannot_be_looked_at_is_not_replaced,
    a_manifest_of_two_meanings_is_no_image,
    the_store_will_do_where_newer_cannot_be_had,
    names_are_not_taken_for_others,
}

const DRAFT: &str = "acme/hr:1.0.0-draft";

/// A registry whose mirror has something else, as a stale one does.
fn a_mirror_decides_about_no_write(world: &World) {
    let (origin, mirror) =
        (Registry::named(world, "origin", Kind::Plain), Registry::named(world, "mirror", Kind::Plain));
    let here = Site::here(world);
    let built = world.build("hr", "1.0.0", &["--load=never"]).digest;
    let publish = |name: &str| {
        for (from, to, state) in [("1.0.0-draft", "1.0.0-testing", "testing"), ("1.0.0-testing", "1.0.0", "published")]
        {
            here.skillctl(["promote", &format!("{name}:{from}"), "--to", state]).ok();
            assert!(here.inspect(&format!("docker://{name}:{to}"))["digest"].is_string());
        }
    };
    let name = origin.name("acme/hr");
    here.skillctl(["push", DRAFT, &origin.name(DRAFT)]).ok();
    publish(&name);
    let published = origin.tag("acme/hr", "1.0.0").expect("a published version");
    // The mirror has the draft for that version, and something that the origin never had.
    for tag in ["1.0.0", "only-there"] {
        here.skillctl(["push", DRAFT, &mirror.name(&format!("acme/hr:{tag}"))]).ok();
    }
    let entry = format!(
        "[[registry]]\nprefix = \"{0}\"\nlocation = \"{0}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{1}\"\ninsecure = true\n",
        origin.address, mirror.address
    );
    conf::registries_conf(world, &entry);
    assert_eq!(here.inspect(&format!("docker://{name}:1.0.0"))["digest"], json!(built), "the mirror is read first");
    // What the mirror has is not what is there: it is sent.
    here.skillctl(["push", DRAFT, &format!("{name}:only-there")]).ok();
    assert_eq!(origin.tag("acme/hr", "only-there").as_ref(), Some(&built));
    fs::write(world.path("hr/notes.md"), "more").expect("a file");
    world.build("hr", "1.0.0", &["--load=never"]);
    here.refuses(&["push", DRAFT, &format!("{name}:1.0.0")], &["1.0.0"], &["is published with"]);
    assert_eq!(origin.tag("acme/hr", "1.0.0").as_ref(), Some(&published));
    // A tag that the mirror still has is gone where it counts.
    for state in ["deprecated", "archived"] {
        let done = here.skillctl(["promote", &format!("{name}:1.0.0"), "--to", state]);
        assert_eq!((done.code, done.stderr.contains("remains")), (0, false), "{done}");
    }
    assert_eq!(origin.tag("acme/hr", "1.0.0"), None);
    conf::registries_conf(world, "");
}

/// A robot that may write and not read would replace a published version without knowing it.
fn what_cannot_be_looked_at_is_not_replaced(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let gate = Gate::before(&hub);
    let here = Site::here(world);
    world.build("hr", "1.0.0", &["--load=never"]);
    let name = gate.name("acme/hr:1.0.0");
    gate.on("GET", "/manifests/", ALWAYS, Fault::Status(403));
    let error = here.refuses(&["push", DRAFT, &name], &[&gate.address], &["denied"]);
    assert!(!error.contains("--creds"), "{error}");
    let error = here.refuses(&["push", DRAFT, &name, "--creds", "ana:secret"], &[&gate.address], &["denied"]);
    assert!(error.contains("--creds") && !error.contains("secret"), "{error}");
    assert_eq!(hub.tags("acme/hr"), [""; 0]);
    // Nor afterwards: skopeo has compared what it sent.
    gate.on("HEAD", "/manifests/", ALWAYS, Fault::Status(403));
    here.skillctl(["push", DRAFT, &name, "--force"]).ok();
    assert_eq!(hub.tags("acme/hr"), ["1.0.0"]);
}

/// Go takes keys in any case and the last of equal ones: such a manifest is one image for us, and another for podman.
fn a_manifest_of_two_meanings_is_no_image(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let there = Site::other(world, "there");
    world.skillctl(["push", DRAFT, &hub.name(DRAFT)]).ok();
    let text = serde_json::to_string(&built.manifest).expect("JSON");
    let layers = serde_json::to_string(&built.manifest["layers"]).expect("JSON");
    for (number, extra) in [
        format!(r#""Layers":{layers}"#),
        format!(r#""layers":{layers}"#),
        format!(r#""layer\u017f":{layers}"#),
        r#""Annotations":{"io.skillimage.status":"published"}"#.to_owned(),
    ]
    .iter()
    .enumerate()
    {
        let twofold = format!("{},{extra}}}", text.trim_end_matches('}').trim_end_matches('"').to_owned() + "\"}");
        let twofold = twofold.replacen("\"}},", "\"},", 1);
        serde_json::from_str::<Value>(&twofold).unwrap_or_else(|e| panic!("{e}: {twofold}"));
        let tag = format!("odd-{number}");
        hub.put("acme/hr", &tag, twofold.as_bytes());
        let name = hub.name(&format!("acme/hr:{tag}"));
        for verb in ["pull", "inspect"] {
            there.refuses(&[verb, &name], &[&digest_of(twofold.as_bytes())], &["misspelt", "twice", "ascii"]);
        }
        there.refuses(&["promote", &name, "--to", "testing"], &[], &["misspelt", "twice", "ascii"]);
    }
    there.tidy();
}

fn the_store_will_do_where_newer_cannot_be_had(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let gate = Gate::before(&hub);
    let built = world.build("hr", "1.0.0", &["--load=never"]).digest;
    world.skillctl(["push", DRAFT, &hub.name(DRAFT)]).ok();
    let there = Site::other(world, "there");
    let name = gate.name(DRAFT);
    there.skillctl(["pull", &name, "--load=never"]).ok();
    for fault in [Fault::Status(503), Fault::Status(401), Fault::Status(404)] {
        gate.on("*", "/v2/acme/", ALWAYS, fault.clone());
        let done = there.skillctl(["pull", &name, "--load=never", "--pull=newer", "--retry", "0"]);
        assert_eq!((done.code, said(&done.stdout, "Digest: ")), (0, &*built), "{fault:?}: {done}");
        assert!(done.stderr.starts_with("warning: ") && done.stderr.contains("from the store"), "{fault:?}: {done}");
        there.refuses(&["pull", &name, "--load=never", "--retry", "0"], &[&gate.address], &[]);
        gate.reset();
    }
}

fn names_are_not_taken_for_others(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let here = Site::here(world);
    let built = world.build("hr", "1.0.0", &["--load=never"]).digest;
    let other = format!("sha256:{}", "0".repeat(64));
    // A digest beside a tag is compared, and the tag is written.
    let pinned = hub.name(&format!("acme/hr:pinned@{other}"));
    here.refuses(&["push", DRAFT, &pinned], &[&other], &[]);
    here.skillctl(["push", DRAFT, &hub.name(&format!("acme/hr:pinned@{built}"))]).ok();
    assert_eq!(hub.tag("acme/hr", "pinned").as_ref(), Some(&built));
    // Without a tag it is the image's, spelled or not: never latest.
    here.skillctl(["push", DRAFT, &format!("docker://{}", hub.name("acme/spelled"))]).ok();
    assert_eq!(hub.tags("acme/spelled"), ["1.0.0-draft"]);
    // One password, two registries.
    let elsewhere = Registry::named(world, "elsewhere", Kind::Plain);
    let (one, two) = (hub.name("acme/hr:pinned"), elsewhere.name("acme/hr:pinned"));
    here.refuses(&["generate", "imageset", "--creds", "ana:secret", &one, &two], &["--creds"], &[]);
    let (from, to) = (format!("docker://{one}"), format!("docker://{two}"));
    here.refuses(&["copy", "--creds", "ana:secret", &from, &to], &["--creds"], &[]);
    assert_eq!(elsewhere.requests(), []);
    // Files and the store itself.
    here.refuses(&["copy", DRAFT, "hello.tar"], &["hello.tar"], &["oci-archive"]);
    let itself = format!("oci:{}:acme/hr:1", here.store.display());
    here.refuses(&["copy", DRAFT, &itself], &["store itself"], &[]);
    here.refuses(&["pull", "--cert-dir", "nowhere", &one], &["nowhere"], &[]);
    for (args, hint) in [
        (["push", DRAFT, "hello"].as_slice(), "registry.example/hello"),
        (&["push", DRAFT, "registry.example"], "NAMESPACE/NAME"),
        (&["pull", "acme/hr:1.0.0"], "docker://acme/hr:1.0.0"),
    ] {
        let error = here.refuses(args, &[], &[]);
        assert!(error.contains(hint), "{error}");
    }
    here.whole();
}
