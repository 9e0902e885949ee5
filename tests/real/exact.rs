//! The same bytes at every hop: between all transports that can keep them, by way of registries, and with other projects' tools at
//! the other end.

use std::fs;

use serde_json::{Value, json};

use crate::cell::{Built, World, matrix};
use crate::foreign::buildah;
use crate::registry::{Kind, Registry, conf, digest_of};
use crate::site::{Site, blobs, said};

matrix! { @roots
    bytes_walk_from_hop_to_hop,
    every_transport_keeps_the_digest,
    storage_gives_no_other_bytes,
    an_index_is_carried_whole,
    skopeo_and_podman_read_what_we_pushed,
    we_read_what_skopeo_and_podman_pushed,
}
// Debian has these tools in some releases only, and the roots are small.
matrix! { @cell host_tools("host", "root", None), we_read_what_buildah_pushed }
matrix! { @cell sid_tools("sid", "root", None), crane_and_oras_read_what_we_pushed, we_read_what_crane_and_oras_pushed }
matrix! { @cell host_rootless("host", "rootless", None), bytes_walk_from_hop_to_hop }

const DRAFT: &str = "acme/hr:1.0.0-draft";

/// A skill in the store, with its manifest's bytes.
fn skill(world: &World) -> (Built, Vec<u8>) {
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let bytes = world.blob(&built.digest);
    (built, bytes)
}

/// Returns the bytes of a manifest, as skopeo reads it.
fn raw(world: &World, reference: &str) -> Vec<u8> {
    let raw = world.skopeo(["inspect", "--raw", "--tls-verify=false", reference]);
    assert_eq!(raw.code, 0, "{raw}");
    raw.stdout.into_bytes()
}

/// The manifest is byte for byte the same, and so is all that it names.
#[track_caller]
fn same(world: &World, reference: &str, manifest: &[u8], id: u32) {
    assert_eq!(String::from_utf8(raw(world, reference)), String::from_utf8(manifest.to_vec()), "{reference}");
    let dir = world.path(&format!("same-{id}"));
    world.skopeo(["copy", "-q", "--src-tls-verify=false", reference, &format!("dir:{}", dir.display())]).ok();
    for digest in blobs(&serde_json::from_slice(manifest).expect("JSON")) {
        let blob = fs::read(dir.join(digest.trim_start_matches("sha256:"))).expect("a blob");
        assert_eq!(digest_of(&blob), digest, "{reference}");
    }
    fs::remove_dir_all(dir).expect("the copy goes");
}

fn bytes_walk_from_hop_to_hop(world: &World) {
    let (first, second) = (Registry::named(world, "first", Kind::Plain), Registry::named(world, "second", Kind::Plain));
    let (built, manifest) = skill(world);
    let wanted = blobs(&built.manifest);
    let copied = |done: &str, from: &str, to: &str| {
        assert_eq!(
            done.lines().collect::<Vec<_>>(),
            [format!("Copied {from} to {to}"), format!("Digest: {}", built.digest)]
        );
    };

    world.skillctl(["push", DRAFT, &first.name(DRAFT)]).ok();
    assert_eq!(first.manifest_bytes("acme/hr", &built.digest).as_ref(), Some(&manifest));
    wanted.iter().for_each(|digest| drop(first.blob(digest)));

    let there = Site::other(world, "there");
    let name = first.name(DRAFT);
    there.skillctl(["pull", &name, "--load=never"]).ok();
    assert_eq!(there.digest(&name).as_ref(), Some(&built.digest));
    assert_eq!(there.blob(&built.digest).as_ref(), Some(&manifest));
    for digest in &wanted {
        assert_eq!(there.blob(digest).map(|blob| digest_of(&blob)).as_ref(), Some(digest));
    }

    let archive = format!("oci-archive:{}:acme/hr:1", world.path("hr.tar").display());
    copied(&there.skillctl(["copy", &name, &archive]).ok(), &name, &archive);
    same(world, &archive, &manifest, 1);

    let to = format!("docker://{}", second.name("acme/moved:1"));
    copied(&there.skillctl(["copy", &archive, &to]).ok(), &archive, &to);
    assert_eq!(second.manifest_bytes("acme/moved", &built.digest).as_ref(), Some(&manifest));
    wanted.iter().for_each(|digest| drop(second.blob(digest)));

    let name = second.name("acme/moved:1");
    let storage = format!("containers-storage:{name}");
    let here = Site::here(world);
    copied(&here.skillctl(["copy", &to, &storage]).ok(), &to, &storage);
    // Storage keeps the manifest and the config as they are, and of the layer what was compressed.
    let image = world.podman(["image", "inspect", &name]).json()[0].take();
    assert_eq!((&image["Digest"], &image["Id"]), (&json!(built.digest), &json!(built.id)));
    assert_eq!(image["RootFS"]["Layers"], built.config["rootfs"]["diff_ids"]);
    let seen = world
        .in_agent(&["--mount", &format!("type=image,source={name},destination=/skill")], "/skill/scripts/greet.sh");
    assert_eq!(seen.ok(), "hr 1.0.0 was here");
}

fn every_transport_keeps_the_digest(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let (built, manifest) = skill(world);
    let here = Site::here(world);
    let place = |transport: &str, number: usize| match transport {
        "store" => format!("acme/copy:{number}"),
        "docker" => format!("docker://{}", hub.name(&format!("acme/copy:{number}"))),
        "dir" => format!("dir:{}", world.path(&format!("dir-{number}")).display()),
        _ => format!("{transport}:{}:acme/copy:{number}", world.path(&format!("{transport}-{number}")).display()),
    };
    let transports = ["store", "docker", "oci", "oci-archive", "dir"];
    let mut number = 0;
    for from in transports {
        let source = place(from, number);
        here.skillctl(["copy", DRAFT, &source]).ok();
        for to in transports {
            number += 1;
            let target = place(to, number);
            let done = here.skillctl(["copy", &source, &target]).ok();
            assert_eq!(said(&done, "Digest: "), built.digest, "{source} to {target}");
            match to {
                "store" => assert_eq!(here.digest(&target).as_ref(), Some(&built.digest), "{source} to {target}"),
                "docker" => assert_eq!(hub.tag("acme/copy", &number.to_string()).as_ref(), Some(&built.digest)),
                _ => assert_eq!(raw(world, &target), manifest, "{source} to {target}"),
            }
        }
        let storage = format!("containers-storage:localhost/acme/{from}:1");
        here.skillctl(["copy", &source, &storage]).ok();
        let image = world.podman(["image", "inspect", &format!("localhost/acme/{from}:1")]).json()[0].take();
        assert_eq!((&image["Digest"], &image["Id"]), (&json!(built.digest), &json!(built.id)), "{source}");
        number += 1;
    }
    // Docker's archive has a format of its own.
    let archive = format!("docker-archive:{}:localhost/acme/docker:2", world.path("docker.tar").display());
    here.refuses(&["copy", DRAFT, &archive], &[], &["digest"]);
    assert!(!world.path("docker.tar").exists());
    let done = here.skillctl(["copy", DRAFT, &archive, "--allow-new-digest"]).ok();
    assert_ne!(said(&done, "Digest: "), built.digest);
    world.podman(["load".as_ref(), "-q".as_ref(), "-i".as_ref(), world.path("docker.tar").as_os_str()]).ok();
    world.podman(["image", "exists", "localhost/acme/docker:2"]).ok();
    here.refuses(&["copy", "oci:nowhere:acme/hr:1", "acme/copy:none"], &["oci:nowhere:acme/hr:1"], &[]);
    here.whole();
}

/// Its compressed bytes are gone: they come from the store, or under another digest, or not at all.
fn storage_gives_no_other_bytes(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let built = world.build("hr", "1.0.0", &[]);
    let here = Site::here(world);
    let source = format!("containers-storage:localhost/{DRAFT}");
    let to = |tag: &str| format!("docker://{}", hub.name(&format!("acme/hr:{tag}")));
    let done = here.skillctl(["copy", &source, &to("stored")]).ok();
    assert_eq!(said(&done, "Digest: "), built.digest);
    assert_eq!(hub.tag("acme/hr", "stored").as_ref(), Some(&built.digest));

    here.skillctl(["rm", "-f", "--keep-loaded", DRAFT]).ok();
    here.skillctl(["prune", "--grace", "0"]).ok();
    let error = here.refuses(&["copy", &source, &to("refused")], &["acme/hr"], &["compressed"]);
    assert!(error.contains("--allow-new-digest"), "{error}");
    assert_eq!(hub.tag("acme/hr", "refused"), None);
    let done = here.skillctl(["copy", &source, &to("new"), "--allow-new-digest"]).ok();
    assert_eq!(hub.tag("acme/hr", "new").as_deref(), Some(said(&done, "Digest: ")));
    // Another layer, and the same image.
    assert_eq!(hub.manifest("acme/hr", "new")["config"]["digest"], built.manifest["config"]["digest"]);
}

fn an_index_is_carried_whole(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let dir = world.skill("hr", "1.0.0");
    let build = |platforms: &str| {
        let args = ["build", dir.to_str().expect("UTF-8"), "--platform", platforms, "--load=never"];
        said(&world.skillctl(args).ok(), "Digest: ").to_owned()
    };
    build("all");
    let all = build("linux/amd64,linux/arm64");
    let (here, there) = (Site::here(world), Site::other(world, "there"));
    let index: Value = serde_json::from_slice(&here.blob(&all).expect("an index")).expect("JSON");
    let images = |index: &Value, hub: &Registry| -> Vec<Value> {
        let images = index["manifests"].as_array().expect("images").iter();
        images
            .map(|image| serde_json::from_slice(&hub.blob(image["digest"].as_str().expect("a digest"))).expect("JSON"))
            .collect()
    };
    let platforms: Vec<_> =
        index["manifests"].as_array().expect("images").iter().map(|image| &image["platform"]["architecture"]).collect();
    assert_eq!(platforms, [&json!("amd64"), &json!("arm64")]);

    let name = hub.name(DRAFT);
    assert_eq!(said(&world.skillctl(["push", DRAFT, &name]).ok(), "Digest: "), all);
    assert_eq!(hub.manifest("acme/hr", "1.0.0-draft"), index);
    let drafts = images(&index, &hub);
    assert_eq!(drafts[0]["layers"], drafts[1]["layers"], "one layer for all");
    assert_ne!(drafts[0]["config"], drafts[1]["config"]);
    assert_eq!(there.inspect(&format!("docker://{name}"))["digest"], json!(all));

    let pulled = there.load(&["pull", &name]);
    assert_eq!(said(&pulled, "Digest: "), all);
    there.whole();
    assert_eq!(there.blob(&all), here.blob(&all));
    // Loaded is the image for this machine.
    let ours = if cfg!(target_arch = "aarch64") { 1 } else { 0 };
    let id = drafts[ours]["config"]["digest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
    assert_eq!(there.podman(["image", "inspect", "--format", "{{.Id}}", &name]).ok(), id);

    let archive = format!("oci-archive:{}:acme/hr:1", world.path("hr.tar").display());
    assert_eq!(said(&there.skillctl(["copy", &name, &archive]).ok(), "Digest: "), all);
    assert_eq!(digest_of(&raw(world, &archive)), all);

    let (promoted, asked) = hub.asked(|| there.skillctl(["promote", &name, "--to", "testing"]).ok());
    assert!(!asked.iter().any(|request| request.sends_blob()), "{asked:?}");
    assert_ne!(said(&promoted, "Digest: "), all);
    assert_eq!(hub.tag("acme/hr", "1.0.0-testing").as_deref(), Some(said(&promoted, "Digest: ")));
    let index = hub.manifest("acme/hr", "1.0.0-testing");
    for (testing, draft) in images(&index, &hub).iter().zip(&drafts) {
        assert_eq!(testing["annotations"]["io.skillimage.status"], "testing");
        assert_eq!(blobs(testing), blobs(draft));
    }
    assert_eq!(there.inspect(&hub.name("acme/hr:1.0.0-testing"))["status"], "testing");
}

fn skopeo_and_podman_read_what_we_pushed(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let (built, manifest) = skill(world);
    let name = hub.name(DRAFT);
    world.skillctl(["push", DRAFT, &name]).ok();
    same(world, &format!("docker://{name}"), &manifest, 1);
    assert_eq!(world.podman(["pull", "-q", "--tls-verify=false", &name]).ok(), built.id);
    let image = world.podman(["image", "inspect", &name]).json()[0].take();
    assert_eq!((&image["Digest"], &image["RepoTags"]), (&json!(built.digest), &json!([name])));
    // What podman pulled is what we have, under that name.
    let here = Site::here(world);
    let row = here.skillctl(["list", "--format", "json"]).json();
    let row =
        row.as_array().expect("rows").iter().find(|row| row["reference"] == *name).expect("the pushed name").clone();
    assert_eq!((&row["digest"], &row["loaded"]), (&json!(built.digest), &json!("yes")));
}

/// Pulls what is there under this tag, and finds it as the registry has it.
#[track_caller]
fn pulls(world: &World, hub: &Registry, tag: &str) -> Value {
    let digest = hub.tag("acme/theirs", tag).expect("it was pushed");
    let there = Site::other(world, &format!("there-{tag}"));
    let name = hub.name(&format!("acme/theirs:{tag}"));
    assert_eq!(there.inspect(&format!("docker://{name}"))["digest"], json!(digest), "{tag}");
    let pulled = there.load(&["pull", &name, "-o", world.path(&format!("out-{tag}")).to_str().expect("UTF-8")]);
    assert_eq!(said(&pulled, "Digest: "), digest, "{tag}");
    assert_eq!(there.blob(&digest), hub.manifest_bytes("acme/theirs", &digest), "{tag}");
    there.whole();
    assert_eq!(there.podman(["image", "inspect", "--format", "{{.Digest}}", &name]).ok(), digest, "{tag}");
    hub.manifest("acme/theirs", tag)
}

fn we_read_what_skopeo_and_podman_pushed(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let built = world.build("hr", "1.0.0", &[]);
    let layout = format!("oci:{}:{DRAFT}", world.store().display());
    let to = |tag: &str| format!("docker://{}", hub.name(&format!("acme/theirs:{tag}")));
    world.skopeo(["copy", "--dest-tls-verify=false", &layout, &to("skopeo")]).ok();
    assert_eq!(pulls(world, &hub, "skopeo"), built.manifest);
    // podman compresses anew.
    world.podman(["push", "-q", "--tls-verify=false", &built.name, &to("podman")]).ok();
    assert_eq!(pulls(world, &hub, "podman")["config"], built.manifest["config"]);
    assert_eq!(
        fs::read(world.path("out-podman/hr/SKILL.md")).expect("a file"),
        fs::read(world.path("hr/SKILL.md")).expect("a file")
    );
}

fn we_read_what_buildah_pushed(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    conf::registries_conf(world, &conf::registry(&hub.address, "insecure = true"));
    buildah(world, &format!("docker://{}", hub.name("acme/theirs:buildah")));
    let manifest = pulls(world, &hub, "buildah");
    assert_eq!(manifest["schemaVersion"], 2);
}

fn crane_and_oras_read_what_we_pushed(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let (built, manifest) = skill(world);
    let name = hub.name(DRAFT);
    world.skillctl(["push", DRAFT, &name]).ok();
    assert_eq!(world.run("crane", ["digest", &name]).ok(), built.digest);
    assert_eq!(world.run("crane", ["manifest", &name]).stdout.as_bytes(), manifest);
    let valid = world.run("crane", ["validate", "--remote", &name]);
    assert!(valid.code == 0 && valid.stdout.contains("PASS"), "{valid}");
    assert_eq!(world.run("oras", ["manifest", "fetch", "--plain-http", &name]).stdout.as_bytes(), manifest);
    assert_eq!(world.run("oras", ["repo", "tags", "--plain-http", &hub.name("acme/hr")]).ok(), "1.0.0-draft");
    for digest in blobs(&built.manifest) {
        let file = world.path("blob");
        let args = ["blob", "fetch", "--plain-http", "--output", file.to_str().expect("UTF-8")];
        world.run("oras", args.into_iter().chain([&*hub.name(&format!("acme/hr@{digest}"))])).ok();
        assert_eq!(digest_of(&fs::read(&file).expect("a blob")), digest);
    }
}

fn we_read_what_crane_and_oras_pushed(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let (built, _) = skill(world);
    let store = world.store();
    let store = store.to_str().expect("UTF-8");
    let to = |tag: &str| hub.name(&format!("acme/theirs:{tag}"));
    world.run("crane", ["push", store, &to("crane")]).ok();
    assert_eq!(pulls(world, &hub, "crane"), built.manifest);
    world.run("oras", ["copy", "--from-oci-layout-path", store, DRAFT, "--to-plain-http", &to("oras")]).ok();
    assert_eq!(pulls(world, &hub, "oras"), built.manifest);
    // crane's own registry is another one than all tests are made with; it has no blobs on disk to look at.
    let theirs = crate::interop::Registry::serve(world);
    let name = format!("{}/acme/hr:1", theirs.1);
    let pushed = world.skillctl(["push", DRAFT, &name]).ok();
    assert_eq!(said(&pushed, "Digest: "), built.digest);
    assert_eq!(world.run("crane", ["digest", &name]).ok(), built.digest);
    let there = Site::other(world, "there");
    assert_eq!(said(&there.skillctl(["pull", &name, "--load=never"]).ok(), "Digest: "), built.digest);
}
