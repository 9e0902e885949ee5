//! Skills in the forms of other tools, on real registries: written by these tools where they can be had, by hand elsewhere; read,
//! installed, upgraded, converted and mounted here; and what we write in a form of theirs, read by them.

mod git;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::cell::{World, matrix};
use crate::forms::{EMPTY, Form, OCI, Part, SKILL, expected, files, forms, skill};
use crate::registry::gate::{ALWAYS, Fault, Gate};
use crate::registry::{Kind, MANIFEST, Registry, digest_of};
use crate::site::{Site, said};

matrix! { @roots
    every_form_comes_from_a_registry,
    an_index_of_a_foreign_form_is_one_skill,
    what_is_wrong_is_named_and_nothing_is_left,
    an_artifact_of_ours_goes_to_a_registry_and_back,
}
// Debian has these tools in this release only.
matrix! { @cell sid_tools("sid", "root", None),
    what_oras_pushed_is_converted_and_mounted,
    what_crane_and_podman_pushed_is_converted_and_mounted,
    oras_reads_an_artifact_of_ours,
}

type Files = Vec<(String, u32, Vec<u8>)>;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Returns what is installed there, without the card that a skill may get.
fn installed(dir: &Path) -> Files {
    let mut files = files(dir);
    files.retain(|(path, ..)| path != "skill.yaml");
    files
}

fn receipt(skills: &Path, name: &str) -> Value {
    let bytes = fs::read(skills.join(".skillimage/receipts").join(format!("{name}.json"))).expect("a receipt");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// Uploads the blobs of an artifact, and returns its manifest.
fn artifact(hub: &Registry, repository: &str, form: &Form, annotations: &Value) -> Value {
    let blob = |bytes: &[u8], media_type: &str| {
        hub.upload(repository, bytes);
        json!({"mediaType": media_type, "digest": digest_of(bytes), "size": bytes.len()})
    };
    let layer = |part: &Part| {
        let mut layer = blob(&part.bytes, &part.media_type);
        layer["annotations"] = part.annotations.clone();
        layer
    };
    let layers: Vec<Value> = form.parts.iter().map(layer).collect();
    let config = match form.config {
        OCI => {
            let diff_ids: Vec<String> = form.parts.iter().map(|part| digest_of(&inflated(&part.bytes))).collect();
            json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        }
        _ => json!({}),
    };
    let config = blob(config.to_string().as_bytes(), form.config);
    let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, "annotations": annotations});
    if !form.artifact_type.is_empty() {
        manifest["artifactType"] = form.artifact_type.into();
    }
    manifest
}

fn inflated(bytes: &[u8]) -> Vec<u8> {
    use std::io::Read as _;
    let mut archive = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut archive).expect("gzip");
    archive
}

/// Puts a manifest, and returns its digest.
fn put(hub: &Registry, repository: &str, tag: &str, manifest: &Value) -> String {
    let bytes = manifest.to_string().into_bytes();
    hub.put(repository, tag, &bytes);
    digest_of(&bytes)
}

fn every_form_comes_from_a_registry(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let (there, apart) = (Site::other(world, "there"), Site::other(world, "apart"));
    for (at, form) in forms().into_iter().enumerate() {
        let repository = format!("theirs/some-skill-{at}");
        let name = hub.name(&format!("{repository}:1.2.0"));
        let digest = put(&hub, &repository, "1.2.0", &artifact(&hub, &repository, &form, &json!({})));
        let what = format!("{} ({at})", form.name);

        // Every release carries it, so that a mirror or an archive has it as it is.
        let carried = format!("oci:{}:x", world.path(&format!("carried-{at}")).display());
        let from = format!("docker://{name}");
        world.skopeo(["copy", "-q", "--all", "--preserve-digests", "--src-tls-verify=false", &from, &carried]).ok();
        let raw = world.skopeo(["inspect", "--raw", &carried]).ok();
        assert_eq!(digest_of(raw.as_bytes()), digest, "{what}");

        let inspected = there.inspect(&from);
        assert_eq!((&inspected["format"], &inspected["digest"]), (&json!(form.name), &json!(digest)), "{what}");
        let skills = world.path(&format!("skills-{at}"));
        let out = text(&skills);
        there.skillctl(["install", &name, "-o", out]).ok();
        assert_eq!(installed(&skills.join("hr")), expected(form.executable), "{what}");
        let image = receipt(&skills, "hr");
        assert_eq!((&image["digest"], &image["reference"]), (&json!(digest), &json!(name)), "{what}");
        there.skillctl(["list", "-i", "--verify", "-o", out]).ok();

        // What is newer is so by its tag.
        let newer = artifact(&hub, &repository, &form, &json!({"org.opencontainers.image.url": "https://x.example"}));
        let newer = put(&hub, &repository, "1.3.0", &newer);
        put(&hub, &repository, "1.4.0-rc.1", &artifact(&hub, &repository, &form, &json!({"a": "b"})));
        let rows = there.skillctl(["list", "-i", "--upgradable", "-o", out, "--format", "json"]).json();
        assert_eq!(rows[0]["latest"], "1.3.0", "{what}: {rows}");
        there.skillctl(["upgrade", "hr", "-o", out]).ok();
        let image = receipt(&skills, "hr");
        assert_eq!((&image["digest"], &image["skillVersion"]), (&json!(newer), &json!("1.3.0")), "{what}");
        assert_eq!(installed(&skills.join("hr")), expected(form.executable), "{what}");

        let converted = hub.name(&format!("acme/hr-{at}:1.0.0"));
        let made = there.skillctl(["convert", &name, &converted, "--load=never", "--format", "json"]).json();
        assert_eq!(made["reference"], json!(converted), "{what}");
        there.skillctl(["push", &converted, &converted]).ok();
        assert_eq!(json!(hub.tag(&format!("acme/hr-{at}"), "1.0.0")), made["digest"], "{what}");
        let out = world.path(&format!("out-{at}"));
        apart.skillctl(["pull", &converted, "--load=never", "-o", text(&out)]).ok();
        let dir = fs::read_dir(&out).expect("a directory").next().expect("a skill").expect("an entry").path();
        assert_eq!(installed(&dir), expected(form.executable), "{what}");
        let annotations = &apart.inspect(&converted)["annotations"];
        assert_eq!(annotations["org.opencontainers.image.base.name"], json!(name), "{what}");
        assert_eq!(annotations["org.opencontainers.image.base.digest"], json!(digest), "{what}");
    }
    there.whole();
    there.tidy();
    apart.whole();
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn instance(manifest: &Value, architecture: &str) -> Value {
    let bytes = manifest.to_string();
    json!({"mediaType": MANIFEST, "digest": digest_of(bytes.as_bytes()), "size": bytes.len(),
        "platform": {"os": "linux", "architecture": architecture}})
}

/// As ToolHive does it: the same layer for two platforms.
fn an_index_of_a_foreign_form_is_one_skill(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let form = forms().into_iter().find(|form| form.name == "ToolHive skill").expect("its form");
    let repository = "theirs/hr";
    let annotations = json!({"dev.toolhive.skills.name": "hr", "dev.toolhive.skills.version": "1.2.0"});
    let manifest = artifact(&hub, repository, &form, &annotations);
    put(&hub, repository, "one", &manifest);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "annotations": annotations,
        "manifests": [instance(&manifest, "amd64"), instance(&manifest, "arm64")]});
    let digest = put(&hub, repository, "1.2.0", &index);
    let name = hub.name("theirs/hr:1.2.0");
    let there = Site::other(world, "there");
    let skills = world.path("skills");
    there.skillctl(["install", &name, "-o", text(&skills)]).ok();
    assert_eq!(installed(&skills.join("hr")), expected(true));
    assert_eq!(receipt(&skills, "hr")["digest"], json!(digest));
    let newer = artifact(&hub, repository, &form, &json!({"dev.toolhive.skills.version": "1.3.0"}));
    put(&hub, repository, "two", &newer);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "annotations": {"dev.toolhive.skills.version": "1.3.0"},
        "manifests": [instance(&newer, "amd64"), instance(&newer, "arm64")]});
    let newer = put(&hub, repository, "1.3.0", &index);
    there.skillctl(["upgrade", "hr", "-o", text(&skills)]).ok();
    assert_eq!(receipt(&skills, "hr")["digest"], json!(newer));
    there.skillctl(["convert", &name, "acme/hr:1.0.0", "--load=never"]).ok();
    there.whole();
}

fn what_is_wrong_is_named_and_nothing_is_left(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let gate = Gate::before(&hub);
    let repository = "theirs/hr";
    let content = "application/vnd.agentskills.skill.content.v1.tar+gzip";
    let form = |parts| Form {
        name: "Agent Skills artifact",
        artifact_type: "application/vnd.agentskills.skill.v1",
        config: "application/vnd.agentskills.skill.config.v1+json",
        parts,
        executable: true,
    };
    let good = artifact(&hub, repository, &form(vec![Part::archive(content, &skill("hr/"))]), &json!({}));
    put(&hub, repository, "good", &good);
    let layer = good["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    let truncated = {
        let mut part = Part::archive(content, &skill("hr/"));
        part.bytes.truncate(part.bytes.len() - 20);
        artifact(&hub, repository, &form(vec![part]), &json!({}))
    };
    put(&hub, repository, "truncated", &truncated);
    let mut empty = good.clone();
    empty["layers"][0]["size"] = json!(0);
    put(&hub, repository, "empty", &empty);
    let index = |manifests: Value| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let inner = index(json!([instance(&good, "amd64")]));
    put(&hub, repository, "inner", &inner);
    let mut outer = instance(&inner, "amd64");
    outer["mediaType"] = INDEX.into();
    put(&hub, repository, "indexes", &index(json!([outer])));
    let mut sizeless = instance(&good, "amd64");
    sizeless["size"] = json!(0);
    put(&hub, repository, "sizeless", &index(json!([sizeless])));
    let mut moved = good.clone();
    moved["annotations"] = json!({"another": "one"});
    let unknown = Form { artifact_type: "", config: EMPTY, ..form(vec![Part::plain("application/x-odd", "x")]) };
    put(&hub, repository, "unknown", &artifact(&hub, repository, &unknown, &json!({})));
    let none = form(vec![Part::archive(content, &[("hr/README.md".to_owned(), "x", 0o644)])]);
    put(&hub, repository, "none", &artifact(&hub, repository, &none, &json!({})));
    let leaves = form(vec![Part::archive(
        content,
        &[("../x".to_owned(), "x", 0o644), ("hr/SKILL.md".to_owned(), SKILL, 0o644)],
    )]);
    put(&hub, repository, "leaves", &artifact(&hub, repository, &leaves, &json!({})));

    type Case<'a> = (&'a str, Option<(&'a str, Fault)>, &'a [&'a str]);
    let digest = digest_of(good.to_string().as_bytes());
    let by_digest = format!("@{digest}");
    let cases: [Case<'_>; 10] = [
        (":good", Some((&layer, Fault::Wrong)), &["digest", "damaged", "verif"]),
        (":good", Some((&layer, Fault::Cut)), &["eof", "damaged", "digest", "short", "ended"]),
        (&by_digest, Some(("/manifests/", Fault::Instead(moved.to_string().into_bytes()))), &["digest"]),
        (":truncated", None, &["damaged"]),
        (":empty", None, &["size", "damaged", "0 bytes"]),
        (":indexes", None, &["is no image but another index"]),
        (":sizeless", None, &["has 0 bytes, and it has"]),
        (":unknown", None, &["no skill that is known", "unknown type"]),
        (":none", None, &["skill.md"]),
        (":leaves", None, &["leaves the skill"]),
    ];
    for (at, (tag, fault, causes)) in cases.into_iter().enumerate() {
        let name = gate.name(&format!("{repository}{tag}"));
        let out = world.path(&format!("out-{at}"));
        let verbs: [&[&str]; 3] = [
            &["install", &name, "--retry", "0", "-o", text(&out)],
            &["pull", &name, "--load=never", "--retry", "0", "-o", text(&out)],
            &["convert", &name, "acme/hr:1.0.0", "--load=never", "--retry", "0"],
        ];
        for verb in verbs {
            // A store for each: what is whole may stay in it, and would be in the way of the next.
            let there = Site::other(world, &format!("there-{at}-{}", verb[0]));
            if let Some((part, fault)) = &fault {
                gate.on("GET", part, ALWAYS, fault.clone());
            }
            there.skillctl(verb).refused(&[&gate.address, &format!("{repository}{tag}")], causes);
            there.tidy();
            assert!(there.digest("acme/hr:1.0.0").is_none(), "{verb:?}");
            assert!(!out.join("hr").exists(), "{verb:?} left half a skill");
            assert!(!out.join(".skillimage/receipts/hr.json").exists(), "{verb:?} left a receipt");
            if out.exists() {
                let left: Vec<_> = files(&out).into_iter().map(|(path, ..)| path).collect();
                assert!(left.iter().all(|path| path.ends_with("lock")), "{verb:?} left {left:?}");
            }
            gate.reset();
        }
    }
}

/// Builds the skill as an artifact, pushes it, and returns its name.
fn artifact_of_ours(world: &World, hub: &Registry) -> String {
    let dir = world.skill("hr", "1.0.0");
    fs::create_dir(dir.join(".hidden")).expect("a directory");
    fs::write(dir.join(".hidden/notes"), "notes").expect("a file");
    let name = hub.name("acme/hr:1.0.0");
    let built = world.skillctl(["build", text(&dir), "--load=never", "--format", "artifact", "-t", &name]).ok();
    let pushed = world.skillctl(["push", &name, &name]).ok();
    assert_eq!(said(&built, "Digest: "), said(&pushed, "Digest: "));
    assert_eq!(hub.tag("acme/hr", "1.0.0").as_deref(), Some(said(&pushed, "Digest: ")));
    name
}

fn an_artifact_of_ours_goes_to_a_registry_and_back(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let name = artifact_of_ours(world, &hub);
    let manifest = hub.manifest("acme/hr", "1.0.0");
    assert_eq!(manifest["artifactType"], "application/vnd.agentskills.skill.v1");
    let config: Value =
        serde_json::from_slice(&hub.blob(manifest["config"]["digest"].as_str().expect("a digest"))).expect("JSON");
    assert_eq!(
        (&config["schemaVersion"], &config["name"], &config["version"]),
        (&json!("1"), &json!("hr"), &json!("1.0.0"))
    );

    let there = Site::other(world, "there");
    let skills = world.path("skills");
    there.skillctl(["install", &name, "-o", text(&skills)]).ok();
    assert_eq!(installed(&skills.join("hr")), installed(&world.path("hr")));
    assert_eq!(json!(hub.tag("acme/hr", "1.0.0")), receipt(&skills, "hr")["digest"]);
    let out = world.path("out");
    let pulled = there.skillctl(["pull", &name, "-o", text(&out)]);
    assert_eq!(files(&out.join("hr")), files(&world.path("hr")), "{pulled}");
    // No runtime takes it, which is said in one line, and is no error.
    assert_eq!((pulled.code, pulled.stderr.lines().count()), (0, 1), "{pulled}");
    assert!(pulled.stderr.starts_with("Not loaded: "), "{pulled}");
    there.whole();
    // Rebuilt as an image it is what a build of the directory would be.
    let image = there.skillctl(["convert", &name, "acme/hr:1.0.0", "--load=never", "--format", "json"]).json();
    let dir = world.path("hr");
    let build = ["build", text(&dir), "--load=never", "-t", "acme/hr:2.0.0", "--format", "json"];
    assert_eq!(image["layer"], world.skillctl(build).json()["layer"]);
}

fn oras_reads_an_artifact_of_ours(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let name = artifact_of_ours(world, &hub);
    let manifest = world.run("oras", ["manifest", "fetch", "--plain-http", &name]);
    assert_eq!(json!(digest_of(manifest.stdout.as_bytes())), json!(hub.tag("acme/hr", "1.0.0")));
    assert_eq!(manifest.json()["artifactType"], "application/vnd.agentskills.skill.v1");
    let found = world.run("oras", ["repo", "tags", "--plain-http", &hub.name("acme/hr")]).ok();
    assert_eq!(found, "1.0.0");
    // As the specification has it, the layer is the skill's directory; oras makes one of it, where others take the blob.
    let out = world.path("pulled");
    world.run("oras", ["pull", "--plain-http", "-o", text(&out), &name]).ok();
    assert_eq!(files(&out.join("hr")), files(&world.path("hr")));
    let layer = hub.manifest("acme/hr", "1.0.0")["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    let archive = world.path("hr.tar.gz");
    let blob = hub.name(&format!("acme/hr@{layer}"));
    world.run("oras", ["blob", "fetch", "--plain-http", "--output", text(&archive), &blob]).ok();
    let out = world.path("unpacked");
    fs::create_dir(&out).expect("a directory");
    world.run("tar", ["-xzf", text(&archive), "-C", text(&out)]).ok();
    assert_eq!(files(&out.join("hr")), files(&world.path("hr")));
}

/// Writes the skill of all forms into a directory.
fn written(world: &World) {
    for (path, content, mode) in skill("hr/") {
        let path = world.path(&path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    }
}

/// Inspects, pulls, installs, converts and mounts what a tool has pushed.
fn works(world: &World, hub: &Registry, tag: &str, format: &str, (want, loads): (&Files, bool)) {
    let name = hub.name(&format!("theirs/hr:{tag}"));
    let digest = json!(hub.tag("theirs/hr", tag).unwrap_or_else(|| panic!("no {tag}")));
    let there = Site::other(world, &format!("there-{tag}"));
    let inspected = there.inspect(&format!("docker://{name}"));
    assert_eq!((&inspected["format"], &inspected["digest"]), (&json!(format), &digest), "{tag}");
    let (out, skills) = (world.path(&format!("out-{tag}")), world.path(&format!("skills-{tag}")));
    let pulled = there.skillctl(["pull", &name, "--load=never", "-o", text(&out)]).ok();
    assert_eq!(json!(said(&pulled, "Digest: ")), digest);
    let dir = out.join("hr");
    assert_eq!(&installed(&dir), want, "{tag}");
    there.skillctl(["install", &name, "-o", text(&skills)]).ok();
    assert_eq!(&installed(&skills.join("hr")), want, "{tag}");
    assert_eq!(receipt(&skills, "hr")["digest"], digest, "{tag}");
    there.whole();
    there.tidy();

    // Under its own name it goes into storage only where it is an image.
    let load = world.skillctl(["pull", &name, "--load=auto"]);
    assert_eq!((load.code, load.stderr.starts_with("Not loaded: ")), (0, !loads), "{tag}: {load}");
    let converted = format!("acme/{tag}:1.0.0");
    world.skillctl(["convert", &name, &converted, "--load=always"]).ok();
    let mount = format!("type=image,source=localhost/{converted},destination=/skills/hr");
    let shown = |(path, mode, content): &(String, u32, Vec<u8>)| {
        format!("{mode:o} {path}\n{}\n", String::from_utf8_lossy(content))
    };
    let script: String = want.iter().map(|(path, ..)| format!("stat -c '%a %n' {path}; cat {path}; echo\n")).collect();
    let seen = world.in_agent(&["--mount", &mount], &format!("set -e; cd /skills/hr\n{script}find . -type f | sort"));
    let names = want.iter().map(|(path, ..)| path.as_str()).chain(["skill.yaml"]).map(|path| format!("./{path}\n"));
    let mounted = want.iter().map(shown).chain(names).collect::<String>();
    assert_eq!(seen.stdout, mounted, "{tag}: {seen}");
    for (path, ..) in want.iter().filter(|(_, mode, _)| mode & 0o111 != 0) {
        let script = format!("/skills/hr/{path}");
        world.in_agent(&["--mount", &mount], &script).ok();
    }
}

fn what_oras_pushed_is_converted_and_mounted(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    written(world);
    let oras = |dir: &str, tag: &str, args: &[&str]| {
        let name = hub.name(&format!("theirs/hr:{tag}"));
        let mut command = world.command("oras", ["push", "--plain-http", &name]);
        command.args(args).current_dir(world.path(dir));
        crate::cell::Done::of(command).ok()
    };
    let kagents = ["--artifact-type", "application/vnd.kagents.skill.v1"];
    oras("hr", "here", &[&kagents[..], &["."]].concat());
    oras("", "directory", &[&kagents[..], &["hr"]].concat());
    oras("hr", "single", &[&kagents[..], &["SKILL.md", ".hidden/notes:text/plain", "scripts/run.sh"]].concat());
    oras("hr", "untyped", &["SKILL.md", ".hidden/notes", "scripts/run.sh"]);
    oras("hr", "old", &["--image-spec", "v1.0", "."]);
    fs::write(
        world.path("config.json"),
        r#"{"schemaVersion":"1","name":"hr","version":"1.2.0","description":"Helps."}"#,
    )
    .expect("a file");
    world.run("tar", ["-czf", "hr.tgz", "hr"]).ok();
    let config = "config.json:application/vnd.agentskills.skill.config.v1+json";
    let content = "hr.tgz:application/vnd.agentskills.skill.content.v1.tar+gzip";
    let vitale = ["--artifact-type", "application/vnd.agentskills.skill.v1", "--config", config, content];
    oras("", "vitale", &vitale);
    let plain_content = "hr.tgz";
    oras("", "tgz", &[&kagents[..], &[plain_content]].concat());
    for (tag, format, executable) in [
        ("here", "kagents artifact", true),
        ("directory", "kagents artifact", true),
        ("single", "kagents artifact", false),
        ("untyped", "oras artifact", false),
        ("old", "oras artifact", true),
        ("vitale", "Agent Skills artifact", true),
        ("tgz", "kagents artifact", true),
    ] {
        works(world, &hub, tag, format, (&expected(executable), false));
    }
}

fn what_crane_and_podman_pushed_is_converted_and_mounted(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    written(world);
    let to = |tag: &str| hub.name(&format!("theirs/hr:{tag}"));
    // Two layers, the second over the first; and one alone.
    fs::create_dir_all(world.path("below/scripts")).expect("a directory");
    fs::write(world.path("below/SKILL.md"), "old").expect("a file");
    fs::write(world.path("below/scripts/run.sh"), "old").expect("a file");
    for (dir, archive) in [("below", "below.tar"), ("hr", "hr.tar")] {
        let dir = world.path(dir);
        world.run("tar", ["-C", text(&dir), "-cf", archive, "."]).ok();
    }
    world.run("crane", ["append", "--oci-empty-base", "-f", "hr.tar", "-t", &to("crane")]).ok();
    world.run("crane", ["append", "-f", "below.tar,hr.tar", "-t", &to("docker")]).ok();

    fs::write(
        world.path("Containerfile"),
        "FROM scratch\nCOPY below /\nCOPY hr/SKILL.md /\nCOPY hr/scripts /scripts\nCOPY hr/.hidden /.hidden\n",
    )
    .expect("a file");
    world.podman(["build", "-q", "--layers", "-t", "localhost/built", "."]).ok();
    world.podman(["push", "-q", "--tls-verify=false", "localhost/built", &to("podman")]).ok();
    world.podman(["save", "-q", "-o", "built.tar", "localhost/built"]).ok();
    world.podman(["rmi", "-f", "localhost/built"]).ok();
    let layers = |tag: &str| hub.manifest("theirs/hr", tag)["layers"].as_array().map(Vec::len);
    assert_eq!((layers("crane"), layers("docker"), layers("podman")), (Some(1), Some(2), Some(4)));
    let ramalama = "application/vnd.cncf.skill.manifest.v1+json";
    world.podman(["artifact", "add", "--type", ramalama, &to("artifact"), "hr/SKILL.md"]).ok();
    world.podman(["artifact", "push", "-q", "--tls-verify=false", &to("artifact")]).ok();
    world.run("tar", ["-czf", "hr.tar.gz", "hr"]).ok();
    let bundle = "application/vnd.cncf.skill.bundle.v1.tar+gzip";
    world.podman(["artifact", "add", "--type", ramalama, "--file-type", bundle, &to("bundle"), "hr.tar.gz"]).ok();
    world.podman(["artifact", "push", "-q", "--tls-verify=false", &to("bundle")]).ok();

    for (tag, format, loads) in [
        ("crane", "container image", true),
        ("docker", "container image", true),
        ("podman", "container image", true),
        ("bundle", "ramalama skill", false),
    ] {
        works(world, &hub, tag, format, (&expected(true), loads));
    }
    // What cannot be read yet is named, with the way to have it otherwise.
    world.podman(["load", "-q", "-i", "built.tar"]).ok();
    let zstd = ["push", "-q", "--tls-verify=false", "--compression-format", "zstd", "localhost/built", &to("zstd")];
    world.podman(zstd).ok();
    let error = Site::here(world).skillctl(["install", &to("zstd"), "-o", "zstd"]).refused(&[&to("zstd")], &["zstd"]);
    assert!(error.contains("--dest-compress-format gzip"), "{error}");
    // A skill of one file.
    let one = vec![("SKILL.md".to_owned(), 0o644, SKILL.into())];
    works(world, &hub, "artifact", "ramalama skill", (&one, false));
}
