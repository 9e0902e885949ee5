//! Sets of skills on real registries, in both forms: pushed, pulled, installed, and what is refused.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cell::{Done, World, matrix};
use crate::registry::gate::{ALWAYS, Fault, Gate};
use crate::registry::{Kind, PASSWORD, Registry, USER, conf, digest_of};
use crate::site::{Site, said};
use crate::trust::{key, skillctl};

matrix! { @roots
    an_artifact_goes_to_a_registry_and_is_installed,
    an_index_has_its_skills_with_it,
    where_a_member_comes_from_is_confirmed,
    what_is_signed_is_verified_where_it_is_from,
    a_policy_holds_for_a_collection_and_its_members,
    a_password_is_for_one_registry,
    what_is_missing_is_named_and_nothing_written,
    a_registry_that_does_not_answer_for_one_member_has_the_others,
    fifty_skills_come_by_one_connection,
    volumes_are_made,
}
matrix! { @cell sid_tools("sid", "root", None), oras_reads_a_collection }

/// Publishes skills of these names, and returns the digests that they have.
fn publish(world: &World, hub: &Registry, names: &[&str]) -> Vec<String> {
    let publish = |name: &&str| {
        let built = world.build(name, "1.0.0", &["--load=never"]);
        world.skillctl(["push", &built.name, &hub.name(&format!("acme/{name}:1.0.0"))]).ok();
        built.digest
    };
    names.iter().map(publish).collect()
}

/// Writes a collection of these images, and returns its file.
fn office(world: &World, images: &[(&str, String)]) -> String {
    let skills: Vec<Value> = images.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
    // JSON is YAML.
    let collection = json!({
        "apiVersion": "skillimage.io/v1alpha1",
        "kind": "SkillCollection",
        "metadata": {"name": "office", "version": "1.0.0", "description": "For the office"},
        "skills": skills,
    });
    let path = world.path("office.yaml");
    fs::write(&path, collection.to_string()).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

fn receipt(skills: &Path, name: &str) -> Value {
    let bytes = fs::read(skills.join(".skillimage/receipts").join(format!("{name}.json"))).expect("a receipt");
    serde_json::from_slice(&bytes).expect("JSON")
}

struct Published {
    hub: Registry,
    digests: Vec<String>,
    file: String,
    set: String,
}

impl Published {
    fn new(world: &World) -> Self {
        let hub = Registry::start(world, Kind::Plain);
        let digests = publish(world, &hub, &["hr", "legal"]);
        let images = ["hr", "legal"].map(|name| (name, hub.name(&format!("acme/{name}:1.0.0"))));
        let (file, set) = (office(world, &images), hub.name("sets/office:1.0.0"));
        Self { hub, digests, file, set }
    }

    /// The reference of a member, pinned.
    fn pinned(&self, at: usize) -> String {
        self.hub.name(&format!("acme/{}:1.0.0@{}", ["hr", "legal"][at], self.digests[at]))
    }
}

fn an_artifact_goes_to_a_registry_and_is_installed(world: &World) {
    let published = Published::new(world);
    let Published { hub, digests, file, set } = &published;
    let here = Site::here(world);
    let pushed = here.skillctl(["collection", "push", set, "-f", file]).ok();
    let digest = said(&pushed, "Digest: ").to_owned();
    assert_eq!(pushed, format!("Pushed collection {set}\nDigest: {digest}"));
    let again = here.skillctl(["collection", "push", set, "-f", file, "--format", "json"]).json();
    assert_eq!((&again["digest"], &again["form"]), (&json!(digest), &json!("artifact")));
    let manifest = hub.manifest("sets/office", "1.0.0");
    assert_eq!(manifest["artifactType"], "application/vnd.skillimage.collection.v1+yaml");
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest");
    let yaml = String::from_utf8(hub.blob(layer)).expect("UTF-8");
    assert!(yaml.contains(&published.pinned(0)) && yaml.contains(&published.pinned(1)), "{yaml}");
    here.whole();

    let there = Site::other(world, "there");
    let out = world.path("skills");
    let out_dir = out.to_str().expect("UTF-8");
    let pulled = there.skillctl(["collection", "pull", set]).ok();
    let lines = [0, 1].map(|at| format!("  - {} ({})\n", ["hr", "legal"][at], published.pinned(at))).concat();
    assert_eq!(pulled, format!("Pulled collection office (2 skills)\n{lines}Digest: {digest}"));
    assert!(!out.exists() && there.digest(&published.pinned(0)).is_none());
    let rows = there.skillctl(["list", "--format", "json"]).json();
    assert_eq!((&rows[0]["reference"], &rows[0]["status"]), (&json!(set), &json!("")));
    there.skillctl(["collection", "pull", set, "-o", out_dir]).ok();
    assert!(out.join("hr/SKILL.md").is_file() && out.join("legal/scripts/greet.sh").is_file());
    assert_eq!(fs::read_dir(&out).expect("a directory").count(), 2, "the file itself is not written");
    there.whole();

    // A tag that moves, moves nobody who has the collection.
    world.skill("hr", "1.0.0");
    fs::write(world.path("hr/notes.md"), "newer").expect("a file");
    world.skillctl(["build", world.path("hr").to_str().expect("UTF-8"), "--load=never"]).ok();
    world.skillctl(["push", "acme/hr:1.0.0-draft", &hub.name("acme/hr:1.0.0"), "--force"]).ok();
    let skills = world.home().join(".claude/skills");
    let fresh = Site::other(world, "fresh");
    let install = |args: &[&str]| fresh.skillctl([&["collection", "install", set, "-t", "claude"], args].concat());
    let planned = install(&["--dry-run"]).ok();
    assert!(planned.ends_with("Would install 2 skills") && !skills.join("hr").exists(), "{planned}");
    let installed = install(&[]);
    assert_eq!(
        installed.stdout,
        "Installing collection \"office\" (2 skills)\n  hr (image)  pulling...  installed\n  legal (image)  pulling...  \
         installed\nInstalled 2 skills\n",
        "{installed}"
    );
    assert!(
        installed.code == 0 && installed.stderr.contains("warning: ") && installed.stderr.contains("by now"),
        "{installed}"
    );
    assert!(!skills.join("hr/notes.md").exists());
    let image = receipt(&skills, "hr");
    assert_eq!((&image["reference"], &image["digest"]), (&json!(hub.name("acme/hr:1.0.0")), &json!(digests[0])));
    assert!(install(&[]).ok().ends_with("  up to date\nInstalled 0 skills, 2 up to date"));
    fs::write(skills.join("legal/SKILL.md"), "mine").expect("a file");
    let refused = install(&[]);
    assert!(refused.stdout.ends_with("Installed 0 skills, 1 up to date\n"), "{refused}");
    let error = refused.fails(2);
    assert!(
        error.contains("Installing legal of collection office: ")
            && error.contains("error: 1 skill(s) failed to install"),
        "{error}"
    );
    assert!(install(&["--force"]).ok().contains("Backup: "));
}

fn an_index_has_its_skills_with_it(world: &World) {
    let mut published = Published::new(world);
    let (digests, file, set) = (&published.digests.clone(), &published.file.clone(), &published.set.clone());
    let hub = &published.hub;
    let here = Site::here(world);
    let local = world.build("notes", "1.0.0", &["--load=never"]);
    let name = "acme/notes:1.0.0-draft";
    let mut collection: Value = serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON");
    let skills = collection["skills"].as_array_mut().expect("skills");
    skills.push(json!({"name": "notes", "image": name}));
    fs::write(file, collection.to_string()).expect("a file");
    // What only the store has, others find in an index only.
    here.refuses(&["collection", "push", set, "-f", file], &["office.yaml", "notes", name], &["skillctl push"]);
    let pushed = here.skillctl(["collection", "push", "--form", "index", set, "-f", file]).ok();
    let index = hub.manifest("sets/office", "1.0.0");
    assert_eq!(index["artifactType"], "application/vnd.agentskills.collection.v1");
    assert_eq!(index["manifests"][0]["annotations"]["io.agentskills.skill.ref"], published.pinned(0));
    for digest in digests.iter().chain([&local.digest]) {
        assert!(hub.manifest_bytes("sets/office", digest).is_some(), "{digest}");
    }
    here.whole();

    let there = Site::other(world, "there");
    let out = world.path("skills");
    let args = ["collection", "pull", set, "-o", out.to_str().expect("UTF-8")];
    let pulled = there.skillctl(args).ok();
    assert_eq!(said(&pulled, "Digest: "), said(&pushed, "Digest: "));
    assert!(["hr", "legal", "notes"].iter().all(|name| out.join(name).join("SKILL.md").is_file()));
    there.whole();

    // A mirror without a network has nothing else.
    let mirror = Registry::named(world, "mirror", Kind::Plain);
    let copy = mirror.name("sets/office:1.0.0");
    there.skillctl(["push", set, &copy]).ok();
    published.hub.stop();
    let apart = Site::other(world, "apart");
    let installed = apart.skillctl(["collection", "install", &copy, "-t", "claude", "--retry", "0"]);
    assert!(installed.code == 0 && installed.stdout.ends_with("Installed 3 skills\n"), "{installed}");
    let skills = world.home().join(".claude/skills");
    let image = receipt(&skills, "hr");
    assert_eq!(image["digest"], json!(digests[0]));
    assert_eq!(image["reference"], json!(mirror.name(&format!("sets/office@{}", digests[0]))), "{installed}");
    apart.skillctl(["list", "-i", "--verify"]).ok();
}

/// Where an index says that a skill is from is its registry's to say.
fn where_a_member_comes_from_is_confirmed(world: &World) {
    let published = Published::new(world);
    let Published { hub, digests, file, set } = &published;
    let here = Site::here(world);
    here.skillctl(["collection", "push", "--form", "index", set, "-f", file]).ok();
    let there = Site::other(world, "there");
    let skills = world.home().join(".claude/skills");
    let install = |set: &str| there.skillctl(["collection", "install", set, "-t", "claude"]);
    assert!(install(set).ok().ends_with("Installed 2 skills"));
    assert_eq!(receipt(&skills, "hr")["reference"], json!(hub.name("acme/hr:1.0.0")));

    // Somebody else's content by that name; sizes that are none, as Arconia writes them.
    let evil = world.build("evil", "1.0.0", &["--load=never"]).digest;
    here.skillctl(["push", "acme/evil:1.0.0-draft", &hub.name("sets/forged:evil")]).ok();
    let forge = |repository: &str, name: &str, descriptor: &dyn Fn(&mut Value)| {
        let mut index = hub.manifest("sets/office", "1.0.0");
        descriptor(&mut index["manifests"][0]);
        index["manifests"] = json!([index["manifests"][0]]);
        put(hub, repository, name, &index)
    };
    let forged = forge("sets/forged", "forged", &|one| {
        one["digest"] = json!(evil);
        one["size"] = json!(hub.manifest_bytes("sets/forged", &evil).expect("a manifest").len());
        one["annotations"]["io.agentskills.skill.ref"] = json!(hub.name(&format!("acme/hr:1.0.0@{evil}")));
    });
    let done = install(&forged);
    assert!(done.stderr.contains("does not have it, so that it counts as"), "{done}");
    assert_eq!(receipt(&skills, "evil")["reference"], json!(hub.name(&format!("sets/forged@{evil}"))));
    let empty = forge("sets/office", "empty", &|one| one["size"] = json!(0));
    fs::remove_dir_all(&skills).expect("a directory");
    let done = install(&empty);
    assert!(done.code == 0 && done.stderr.contains("is not kept in the store"), "{done}");
    assert_eq!(receipt(&skills, "hr")["digest"], json!(digests[0]));
    let odd = forge("sets/office", "odd", &|one| one["mediaType"] = json!("text/html"));
    there.refuses(&["collection", "pull", &odd], &[&odd, "hr"], &["no image"]);
    there.refuses(&["collection", "pull", &hub.name("acme/hr:1.0.0")], &["acme/hr:1.0.0", "no collection"], &["skill"]);
}

/// Publishes an index of skills, by the tags that their states want, and makes two keys.
fn signable(world: &World) -> (Registry, String) {
    let hub = Registry::start(world, Kind::Plain);
    let member = |name: &str| hub.name(&format!("acme/{name}:1.0.0-draft"));
    for name in ["hr", "legal"] {
        let built = world.build(name, "1.0.0", &["--load=never"]);
        world.skillctl(["push", &built.name, &member(name)]).ok();
    }
    let file = office(world, &["hr", "legal"].map(|name| (name, member(name))));
    let set = hub.name("sets/office:1.0.0");
    world.skillctl(["collection", "push", "--form", "index", &set, "-f", &file]).ok();
    for name in ["acme", "other"] {
        skillctl(world, &["key", "generate", &key(world, name)]).ok();
    }
    (hub, set)
}

/// The copies beside an index have no signatures, and those of the members are for their own names.
fn what_is_signed_is_verified_where_it_is_from(world: &World) {
    let (hub, set) = &signable(world);
    let sign = |name: &str| {
        let member = hub.name(&format!("acme/{name}:1.0.0-draft"));
        skillctl(world, &["sign", &member, "--key", &key(world, "acme.key")]).ok();
    };
    sign("hr");
    let out = world.path("out");
    let there = Site::other(world, "there");
    let install = |name: &str, flags: &[&str]| {
        let (out, key) = (out.display().to_string(), key(world, name));
        there.skillctl([&["collection", "install", set, "-o", &out, "--key", &key], flags].concat())
    };
    let dry = install("acme.pub", &["--dry-run"]);
    assert!(dry.code == 1 && dry.stdout.contains("Would install 1 skills"), "{dry}");
    let refused = install("acme.pub", &[]).fails(1);
    assert!(refused.contains("acme/legal") && refused.contains("is not verified"), "{refused}");
    assert!(out.join("hr/SKILL.md").is_file() && !out.join("legal").exists());
    sign("legal");
    assert_eq!(install("other.pub", &[]).code, 1);
    install("acme.pub", &[]).ok();
    let pem = fs::read_to_string(key(world, "acme.pub")).expect("a key");
    assert_eq!(receipt(&out, "legal")["signedBy"], json!([pem]));
    // The collection is in no state, which its tag does not say either.
    let verify = || skillctl(world, &["verify", set, "--key", &key(world, "acme.pub")]);
    assert!(verify().fails(1).contains("it has no signature"));
    skillctl(world, &["sign", set, "--key", &key(world, "acme.key")]).ok();
    verify().ok();
    let draft = hub.name("sets/office:1.0.0-draft");
    world.skillctl(["copy", &format!("docker://{set}"), &format!("docker://{draft}")]).ok();
    let refused = skillctl(world, &["verify", &draft, "--key", &key(world, "acme.pub")]).fails(1);
    assert!(refused.contains("of no state, and the tag is 1.0.0-draft"), "{refused}");
}

/// What is malformed, beside its index, or only in the store is held to the policy like anything else.
fn a_policy_holds_for_a_collection_and_its_members(world: &World) {
    let (hub, set) = &signable(world);
    let trust = |scope: &str, flags: &[&str]| drop(skillctl(world, &[&["trust", "add", scope], flags].concat()).ok());
    let sign = |name: &str, by: &str| drop(skillctl(world, &["sign", name, "--key", &key(world, by)]).ok());
    let there = Site::other(world, "there");
    let out = world.path("out");
    let pull = || there.skillctl(["collection", "pull", set, "-o", out.to_str().expect("UTF-8")]);
    let install = |set: &str| there.skillctl(["collection", "install", set, "-t", "claude"]);
    let generate = |set: &str| there.skillctl(["collection", "generate", set]);
    let unsigned = |done: Done| {
        let refused = done.fails(1);
        assert!(refused.contains("is not verified") && refused.contains("it has no signature"), "{refused}");
    };

    trust(&hub.name("acme"), &["--key", &key(world, "acme.pub")]);
    unsigned(pull());
    unsigned(install(set));
    unsigned(generate(set));
    assert!(fs::read_dir(&out).map_or(0, Iterator::count) == 0 && !world.home().join(".claude/skills/hr").exists());
    for name in ["hr", "legal"] {
        sign(&hub.name(&format!("acme/{name}:1.0.0-draft")), "acme.key");
    }
    pull().ok();
    install(set).ok();
    generate(set).ok();
    there.skillctl(["collection", "install", set, "-t", "claude", "--pull", "never"]).ok();
    let skills = world.home().join(".claude/skills");
    let pem = fs::read_to_string(key(world, "acme.pub")).expect("a key");
    assert_eq!(receipt(&skills, "hr")["signedBy"], json!([pem]));
    assert!(out.join("legal/SKILL.md").is_file());
    // What podman has pulled of it keeps nobody from asking its registry.
    world.podman(["pull", "--tls-verify=false", &hub.name("acme/hr:1.0.0-draft")]).ok();
    let elsewhere = Site::other(world, "elsewhere");
    elsewhere.skillctl(["collection", "generate", set]).ok();
    // Content that the repository does not have is no skill of it, and by no other name either.
    let evil = world.build("evil", "1.0.0", &["--load=never"]);
    world.skillctl(["push", &evil.name, &hub.name("sets/forged:evil")]).ok();
    let mut index = hub.manifest("sets/office", "1.0.0");
    let one = &mut index["manifests"][0];
    one["digest"] = json!(evil.digest);
    one["size"] = json!(hub.manifest_bytes("sets/forged", &evil.digest).expect("a manifest").len());
    one["annotations"]["io.agentskills.skill.ref"] = json!(hub.name(&format!("acme/hr:1.0.0-draft@{}", evil.digest)));
    index["manifests"] = json!([index["manifests"][0]]);
    let forged = put(hub, "sets/forged", "forged", &index);
    let refused = install(&forged).fails(2);
    assert!(refused.contains("acme/hr") && !skills.join("evil").exists(), "{refused}");
    assert_eq!(generate(&forged).code, 2);

    // The collection itself, also where it does not come into the store.
    let mut index = hub.manifest("sets/office", "1.0.0");
    index["manifests"][0]["size"] = json!(0);
    let empty = &put(hub, "sets/office", "empty", &index);
    let both = [key(world, "acme.pub"), key(world, "other.pub")];
    trust(&hub.name("sets"), &["--key", &both[0], "--key", &both[1], "--pin"]);
    for set in [set, empty] {
        unsigned(there.skillctl(["collection", "pull", set]));
        unsigned(install(set));
        unsigned(generate(set));
    }
    sign(empty, "acme.key");
    let pins = || fs::read_to_string(there.store.join(".signers.json")).unwrap_or_default();
    there.skillctl(["collection", "install", empty, "-t", "claude", "--dry-run"]).ok();
    assert!(!pins().contains("sets/office"), "{}", pins());
    install(empty).ok();
    assert!(pins().contains("sets/office"), "{}", pins());
    sign(set, "other.key");
    assert!(install(set).fails(1).contains("is pinned to"));
    sign(set, "acme.key");
    install(set).ok();

    // What only an index has is of its repository, also where the index has lost its name.
    let mut index = hub.manifest("sets/office", "1.0.0");
    for one in index["manifests"].as_array_mut().expect("members") {
        let annotations = one["annotations"].as_object_mut().expect("annotations");
        annotations.retain(|key, _| key == "io.agentskills.skill.name");
    }
    let bare = &put(hub, "sets/office", "bare", &index);
    let old = hub.tag("sets/office", "bare").expect("a digest");
    sign(bare, "acme.key");
    index["annotations"]["org.example.revision"] = json!("2");
    there.skillctl(["collection", "pull", bare]).ok();
    put(hub, "sets/office", "bare", &index);
    sign(bare, "acme.key");
    there.skillctl(["collection", "pull", bare]).ok();
    let by_digest = world.path("by-digest");
    let to = by_digest.display().to_string();
    there.skillctl(["collection", "install", &old, "-o", &to, "--key", &both[0]]).ok();
    let member = index["manifests"][0]["digest"].as_str().expect("a digest");
    assert_eq!(receipt(&by_digest, "hr")["reference"], json!(hub.name(&format!("sets/office@{member}"))));

    // One without a registry.
    there.skillctl(["tag", set, "office:1.0.0", "--load=never"]).ok();
    install("office:1.0.0").ok();
    trust("office", &["--key", &both[1]]);
    let refused = install("office:1.0.0").fails(1);
    assert!(refused.contains("office:1.0.0 is not verified"), "{refused}");
    let log = skillctl(world, &["audit", "show", "--action", "verify", "--format", "json"]).json();
    let refused = log.as_array().expect("records").iter().filter(|one| one["result"] == "refused");
    assert!(refused.clone().any(|one| one["reference"] == json!(set)), "{log}");
    assert!(
        refused.clone().any(|one| one["reference"].as_str().is_some_and(|name| name.contains("/acme/hr"))),
        "{log}"
    );
}

/// A password on the command line is told to the registry of the collection, and to none that a member names.
fn a_password_is_for_one_registry(world: &World) {
    let published = Published::new(world);
    let Published { hub, file, .. } = &published;
    let vault = Registry::named(world, "vault", Kind::TlsHtpasswd);
    conf::trust(world, &vault, conf::Place::Home);
    conf::auth_json(world, &[(&vault.address, USER, PASSWORD)]);
    let (index, artifact) = (vault.name("sets/office:index"), vault.name("sets/office:artifact"));
    world.skillctl(["collection", "push", "--form", "index", &index, "-f", file]).ok();
    world.skillctl(["collection", "push", &artifact, "-f", file]).ok();
    conf::auth_json(world, &[]);
    let there = Site::other(world, "there");
    let creds = format!("{USER}:{PASSWORD}");
    let install = |set: &str| there.skillctl(["collection", "install", set, "-t", "claude", "--creds", &creds]);
    let (done, asked) = hub.asked(|| install(&index));
    assert!(done.code == 0 && done.stderr.contains("cannot be looked at") && asked.is_empty(), "{done}{asked:?}");
    // Nor where the signatures of its members would be there.
    skillctl(world, &["key", "generate", &key(world, "acme")]).ok();
    let own = ["collection", "install", &index, "-t", "claude", "--creds", &creds, "--key", &key(world, "acme.pub")];
    let (done, asked) = hub.asked(|| there.skillctl(own));
    assert!(done.code == 2 && done.stderr.contains(&format!("{} is not asked", hub.address)), "{done}");
    assert_eq!(asked, []);
    let (done, asked) = hub.asked(|| install(&artifact));
    assert_eq!(asked, []);
    done.refused(&["--creds would be sent to", &hub.address, &vault.address], &["log in to each"]);
}

/// Puts a manifest into a registry, past all that would refuse to make it, and returns its name.
fn put(hub: &Registry, repository: &str, tag: &str, manifest: &Value) -> String {
    hub.put(repository, tag, manifest.to_string().as_bytes());
    hub.name(&format!("{repository}:{tag}"))
}

fn what_is_missing_is_named_and_nothing_written(world: &World) {
    let published = Published::new(world);
    let Published { hub, file, set, .. } = &published;
    let here = Site::here(world);
    let good = fs::read(file).expect("a file");
    office(
        world,
        &[("hr", hub.name("acme/hr:1.0.0")), ("gone", hub.name("acme/gone:1")), ("lost", "acme/lost:1".into())],
    );
    let error =
        here.refuses(&["collection", "push", set, "-f", file], &["office.yaml", "gone", "lost"], &["not found"]);
    assert!(!error.contains("member hr"), "{error}");
    assert_eq!(hub.tag("sets/office", "1.0.0"), None);
    fs::write(file, good).expect("a file");
    here.skillctl(["collection", "push", set, "-f", file]).ok();

    // One that is lost later is one error of a pull, and one of an installation that goes on.
    let gate = Gate::before(hub);
    let images = ["hr", "legal"].map(|name| (name, gate.name(&format!("acme/{name}:1.0.0"))));
    office(world, &images);
    here.skillctl(["collection", "push", &gate.name("sets/gated:1"), "-f", file]).ok();
    gate.on("*", "acme/legal/", ALWAYS, Fault::Status(404));
    let there = Site::other(world, "there");
    let out = world.path("skills");
    let set = gate.name("sets/gated:1");
    let args = ["collection", "pull", &set, "-o", out.to_str().expect("UTF-8")];
    let done = there.skillctl(args);
    done.refused(&["sets/gated:1", "member legal"], &["not found"]);
    assert!(!out.exists(), "all come before any is written");
    let done = there.skillctl(["collection", "install", &set, "-o", out.to_str().expect("UTF-8")]);
    assert!(done.stdout.ends_with("Installed 1 skills\n") && out.join("hr/SKILL.md").is_file(), "{done}");
    let error = done.fails(2);
    assert!(
        error.contains("Installing legal of collection office: ") && error.contains("1 skill(s) failed"),
        "{error}"
    );
}

/// What would only be good to know of one is not what another needs.
fn a_registry_that_does_not_answer_for_one_member_has_the_others(world: &World) {
    let published = Published::new(world);
    let gate = Gate::before(&published.hub);
    let hr = gate.name(&format!("acme/hr:1.0.0@{}", published.digests[0]));
    let file = office(world, &[("hr", hr.clone()), ("legal", gate.name("acme/legal:1.0.0"))]);
    let there = Site::other(world, "there");
    there.skillctl(["pull", &hr]).ok();
    gate.on("*", "acme/hr/", ALWAYS, Fault::Status(403));
    let done = there.skillctl(["collection", "install", "-f", &file, "-t", "claude"]).ok();
    assert!(done.ends_with("Installed 2 skills"), "{done}");
}

/// One connection of ours for all, one skopeo, and not long.
fn fifty_skills_come_by_one_connection(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let gate = Gate::before(&hub);
    let names: Vec<String> = (0..50).map(|n| format!("skill-{n}")).collect();
    publish(world, &hub, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let images: Vec<_> = names.iter().map(|name| (&**name, gate.name(&format!("acme/{name}:1.0.0")))).collect();
    let file = office(world, &images);
    let there = Site::other(world, "there");
    let before = gate.ours();
    let start = Instant::now();
    let done = there.skillctl(["collection", "install", "-f", &file, "-t", "claude"]).ok();
    let took = start.elapsed();
    assert!(done.ends_with("Installed 50 skills"), "{done}");
    assert_eq!(gate.ours() - before, 1, "connections of ours");
    // Four seconds is what a release build has to take; this is none, and shares the machine with other tests.
    assert!(took < Duration::from_secs(20), "{took:?}");
    let start = Instant::now();
    let done = there.skillctl(["collection", "install", "-f", &file, "-t", "claude"]).ok();
    assert!(done.ends_with("Installed 0 skills, 50 up to date"), "{done}");
    let _ = writeln!(std::io::stderr(), "50 skills: {took:?}, again: {:?}", start.elapsed());
}

fn volumes_are_made(world: &World) {
    let built = world.build("hr", "1.0.0", &["--load=always"]);
    let file = office(world, &[("hr", built.name.clone())]);
    let volume = ["collection", "volume", "-f", &file];
    let script = world.skillctl(volume).ok();
    assert!(
        script.starts_with("skillctl load acme/hr:1.0.0-draft &&\npodman volume create --driver image"),
        "{script}"
    );
    let execute = || world.skillctl(volume.iter().copied().chain(["--execute"]));
    assert_eq!(execute().ok(), "Created volume hr");
    assert_eq!(execute().ok(), "Volume is there: hr");
    let seen = world.in_agent(&["-v", "hr:/skills/hr:ro"], "/skills/hr/scripts/greet.sh");
    assert_eq!(seen.ok(), "hr 1.0.0 was here");
    world.build("hr", "2.0.0", &["--load=always"]);
    office(world, &[("hr", "acme/hr:2.0.0-draft".into())]);
    execute().refused(&["hr"], &["podman volume rm hr"]);
    world.podman(["volume", "rm", "hr"]).ok();
    // By digest a new version is a new volume, beside the old one.
    for version in ["1.0.0", "2.0.0"] {
        let built = world.build("hr", version, &["--load=always"]);
        office(world, &[("hr", format!("acme/hr:{version}-draft@{}", built.digest))]);
        let name = format!("skill-hr-{version}-draft-{}", &built.digest["sha256:".len()..][..12]);
        assert_eq!(execute().ok(), format!("Created volume {name}"));
        let seen = world.in_agent(&["-v", &format!("{name}:/skills/hr:ro")], "/skills/hr/scripts/greet.sh");
        assert_eq!(seen.ok(), format!("hr {version} was here"));
    }
    world.podman(["volume", "rm", "--all"]).ok();
}

fn oras_reads_a_collection(world: &World) {
    let published = Published::new(world);
    let Published { file, set, .. } = &published;
    let pushed = world.skillctl(["collection", "push", set, "-f", file]).ok();
    let manifest = world.run("oras", ["manifest", "fetch", "--plain-http", set]);
    assert_eq!(digest_of(manifest.stdout.as_bytes()), said(&pushed, "Digest: "));
    let manifest: Value = serde_json::from_str(&manifest.stdout).expect("JSON");
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest");
    let blob = format!("{}@{layer}", set.trim_end_matches(":1.0.0"));
    let yaml = world.run("oras", ["blob", "fetch", "--plain-http", "--output", "-", &blob]).ok();
    assert!(yaml.starts_with("apiVersion: skillimage.io/v1alpha1\nkind: SkillCollection\n"), "{yaml}");
    let index = world.skillctl(["collection", "push", "--form", "index", set, "-f", file]).ok();
    let manifest = world.run("oras", ["manifest", "fetch", "--plain-http", set]);
    assert_eq!(digest_of(manifest.stdout.as_bytes()), said(&index, "Digest: "));
}
