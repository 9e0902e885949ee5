//! From draft to archived, in the store and on registries: which tags move, what stays by digest, and what is refused.

use std::fs;

use serde_json::{Value, json};

use crate::cell::{Done, World, matrix};
use crate::registry::gate::{ALWAYS, Fault, Gate};
use crate::registry::{Kind, Registry, digest_of};
use crate::site::{Site, blobs, said};

matrix! { @roots
    states_go_one_way_in_both_places,
    what_is_published_stays,
    latest_goes_to_the_highest_that_is_published,
    archived_takes_the_tag_and_nothing_else,
    a_registry_that_deletes_nothing_is_named,
    an_archiving_that_was_cut_is_finished_by_the_same_command,
    a_gate_reads_what_is_in_the_image,
    a_dry_run_changes_nothing,
}

const STATUS: &str = "io.skillimage.status";

/// Where promotions are made.
struct Place<'a> {
    world: &'a World,
    hub: &'a Registry,
    site: Site<'a>,
    /// What its names begin with: a registry, or nothing for the store.
    prefix: String,
}

impl<'a> Place<'a> {
    fn remote(world: &'a World, hub: &'a Registry) -> Self {
        Self { world, hub, site: Site::here(world), prefix: format!("{}/", hub.address) }
    }

    fn local(world: &'a World, hub: &'a Registry) -> Self {
        Self { prefix: String::new(), ..Self::remote(world, hub) }
    }

    fn name(&self, tag: &str) -> String {
        format!("{}acme/hr:{tag}", self.prefix)
    }

    /// Promotes, and returns the digest.
    #[track_caller]
    fn promote(&self, tag: &str, to: &str, flags: &[&str]) -> String {
        let name = self.name(tag);
        let done = self.site.skillctl(self.promotion(&name, to, flags)).ok();
        assert_eq!(said(&done, "Promoted "), format!("{name} to {to}"));
        said(&done, "Digest: ").to_owned()
    }

    fn promotion<'b>(&self, name: &'b str, to: &'b str, flags: &[&'b str]) -> Vec<&'b str> {
        let local = if self.prefix.is_empty() { ["--local"].as_slice() } else { &[] };
        [&["promote", name, "--to", to], local, flags].concat()
    }

    /// Returns the digest of a tag.
    fn tag(&self, tag: &str) -> Option<String> {
        match self.prefix.is_empty() {
            true => self.site.digest(&self.name(tag)),
            false => self.hub.tag("acme/hr", tag),
        }
    }

    /// Returns a manifest by digest.
    #[track_caller]
    fn manifest(&self, digest: &str) -> Value {
        let bytes = match self.prefix.is_empty() {
            true => self.site.blob(digest),
            false => self.hub.manifest_bytes("acme/hr", digest),
        };
        serde_json::from_slice(&bytes.unwrap_or_else(|| panic!("{digest} is gone"))).expect("JSON")
    }

    /// Builds a draft of this version, which is there under its tag, and returns its digest.
    fn draft(&self, version: &str) -> String {
        let built = self.world.build("hr", version, &["--load=never"]);
        if !self.prefix.is_empty() {
            let tag = format!("{version}-draft");
            self.world.skillctl(["push", &format!("acme/hr:{tag}"), &self.name(&tag)]).ok();
        }
        built.digest
    }

    /// Brings a new version to published, and returns its digest.
    fn publish(&self, version: &str) -> String {
        self.draft(version);
        self.promote(&format!("{version}-draft"), "testing", &[]);
        self.promote(&format!("{version}-testing"), "published", &[])
    }
}

/// Does the same on a registry and in the store.
fn both(world: &World, check: impl Fn(&Place)) {
    let hub = Registry::start(world, Kind::Plain);
    check(&Place::remote(world, &hub));
    check(&Place::local(world, &hub));
}

fn states_go_one_way_in_both_places(world: &World) {
    both(world, |place| {
        let draft = place.draft("1.0.0");
        let source = place.manifest(&draft);
        let mut digests = vec![draft];
        for (tag, to, new) in [
            ("1.0.0-draft", "testing", Some("1.0.0-testing")),
            ("1.0.0-testing", "published", Some("1.0.0")),
            ("1.0.0", "deprecated", Some("1.0.0")),
            ("1.0.0", "archived", None),
        ] {
            let name = place.name(tag);
            // No skips, and no way back.
            for wrong in
                ["draft", "testing", "published", "deprecated", "archived"].iter().filter(|state| **state != to)
            {
                let error =
                    place.site.skillctl(place.promotion(&name, wrong, &[])).refused(&[&name], &["invalid transition"]);
                assert!(error.contains(wrong), "{error}");
            }
            let done = place.site.skillctl(place.promotion(&name, to, &["--format", "json"])).json();
            assert_eq!(done["digest"].as_str().map(|d| digests.contains(&d.to_owned())), Some(false), "{done}");
            let digest = done["digest"].as_str().expect("a digest").to_owned();
            assert_eq!(done["reference"].as_str(), new.map(|new| place.name(new)).as_deref());
            let manifest = place.manifest(&digest);
            assert_eq!((&manifest["annotations"][STATUS], blobs(&manifest)), (&json!(to), blobs(&source)));
            let mut same = manifest.clone();
            same["annotations"][STATUS] = json!("draft");
            assert_eq!(same, source, "more than the state changed");
            new.inspect(|new| assert_eq!(place.tag(new).as_ref(), Some(&digest)));
            digests.push(digest);
        }
        assert_eq!((place.tag("1.0.0"), place.tag("latest")), (None, None));
        // Whoever pinned one of them still gets it.
        for (digest, state) in digests.iter().zip(["draft", "testing", "published", "deprecated", "archived"]) {
            assert_eq!(place.manifest(digest)["annotations"][STATUS], state);
        }
        place.site.whole();
    });
    assert!(world.skillctl(["promote", "acme/hr:9", "--to", "testing", "--local"]).fails(2).contains("acme/hr:9"));
    assert!(world.skillctl(["promote", "acme/hr:9", "--to", "retired", "--local"]).fails(2).contains("retired"));
}

/// Nothing else goes over a published tag, in the store or on a registry, without `--force`.
fn what_is_published_stays(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let (here, remote) = (Place::local(world, &hub), Place::remote(world, &hub));
    let published = here.publish("1.0.0");
    let name = remote.name("1.0.0");
    // The same is no change.
    for _ in 0..2 {
        world.skillctl(["push", "acme/hr:1.0.0", &name]).ok();
    }
    let skill = world.skill("hr", "1.0.0");
    fs::write(skill.join("notes.md"), "more").expect("a file");
    let skill = skill.to_str().expect("UTF-8");
    let other = said(&world.skillctl(["build", skill, "--load=never"]).ok(), "Digest: ").to_owned();

    let immutable = ["published", "immutable"];
    let ours: [&[&str]; 2] = [
        &["build", skill, "--tag", "1.0.0", "--load=never"],
        &["tag", "acme/hr:1.0.0-draft", "acme/hr:1.0.0", "--load=never"],
    ];
    for verb in ours {
        let error = here.site.skillctl(verb).refused(&["acme/hr:1.0.0"], &immutable);
        assert!(error.contains("--force"), "{error}");
        assert_eq!(here.tag("1.0.0").as_ref(), Some(&published));
    }
    let archive = format!("oci-archive:{}:acme/hr:1.0.0", world.path("hr.tar").display());
    world.skillctl(["copy", "acme/hr:1.0.0-draft", &archive]).ok();
    let over = format!("docker://{name}");
    let theirs: [&[&str]; 4] = [
        &["push", "acme/hr:1.0.0-draft", &name],
        &["copy", "acme/hr:1.0.0-draft", &over],
        &["copy", &archive, &over],
        &["copy", &archive, "acme/hr:1.0.0"],
    ];
    for verb in theirs {
        let error = here.site.skillctl(verb).refused(&["acme/hr:1.0.0"], &immutable);
        assert!(error.contains("--force"), "{error}");
        assert_eq!(remote.tag("1.0.0").as_ref(), Some(&published), "{verb:?}");
        assert_eq!(
            (here.tag("1.0.0").as_ref(), here.site.digest(&name).as_ref()),
            (Some(&published), Some(&published)),
            "{verb:?}"
        );
    }
    // Another machine, whose store knows nothing of it, publishes other content as that version.
    let stranger = Site::other(world, "stranger");
    stranger.skillctl(["build", skill, "--load=never"]).ok();
    stranger.refuses(&["push", "acme/hr:1.0.0-draft", &name], &["acme/hr:1.0.0", &hub.address], &immutable);
    stranger.skillctl(["push", "acme/hr:1.0.0-draft", &remote.name("1.0.0-draft")]).ok();
    remote.promote("1.0.0-draft", "testing", &[]);
    let testing = remote.name("1.0.0-testing");
    stranger.refuses(&["promote", &testing, "--to", "published"], &["acme/hr:1.0.0"], &immutable);
    assert_eq!(remote.tag("1.0.0").as_ref(), Some(&published));
    for verb in ours.iter().chain(&theirs[..1]) {
        here.site.skillctl(verb.iter().copied().chain(["--force"])).ok();
    }
    assert_eq!((here.tag("1.0.0").as_ref(), remote.tag("1.0.0").as_ref()), (Some(&other), Some(&other)));
    // Only its own version makes a tag immutable: latest, and a stage, move.
    world.skillctl(["push", "acme/hr:1.0.0-draft", &remote.name("latest")]).ok();
    assert_eq!(remote.tag("latest"), Some(other));
}

fn latest_goes_to_the_highest_that_is_published(world: &World) {
    both(world, |place| {
        let latest = || place.tag("latest");
        let second = place.publish("1.2.0");
        assert_eq!(latest().as_ref(), Some(&second));
        // Neither older by number, nor by letters, nor a prerelease.
        let first = place.publish("1.0.0");
        assert_eq!(latest().as_ref(), Some(&second));
        let candidate = place.publish("2.0.0-rc.1");
        assert_eq!(latest().as_ref(), Some(&second));
        let third = place.publish("1.10.0");
        assert_eq!(latest().as_ref(), Some(&third));
        for (version, expected) in
            [("1.2.0", Some(&third)), ("1.10.0", Some(&first)), ("2.0.0-rc.1", Some(&first)), ("1.0.0", None)]
        {
            let deprecated = place.promote(version, "deprecated", &[]);
            assert_eq!(latest().as_ref(), expected, "after {version} was deprecated");
            assert_eq!(place.tag(version), Some(deprecated));
        }
        for digest in [first, second, candidate, third] {
            assert_eq!(place.manifest(&digest)["annotations"][STATUS], "published");
        }
    });
}

fn archived_takes_the_tag_and_nothing_else(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let place = Place::remote(world, &hub);
    let published = place.publish("1.0.0");
    let deprecated = place.promote("1.0.0", "deprecated", &[]);
    let bytes = hub.manifest_bytes("acme/hr", &deprecated).expect("a manifest");
    hub.put("acme/hr", "pinned", &bytes);
    let (archived, asked) = hub.asked(|| place.promote("1.0.0", "archived", &[]));
    assert!(!asked.iter().any(|request| request.sends_blob()), "{asked:?}");
    assert_eq!(hub.tags("acme/hr"), ["1.0.0-draft", "1.0.0-testing", "pinned"]);
    assert_eq!(hub.tag("acme/hr", "pinned").as_ref(), Some(&deprecated));
    for (digest, state) in [(&published, "published"), (&deprecated, "deprecated"), (&archived, "archived")] {
        assert_eq!(place.manifest(digest)["annotations"][STATUS], state);
        // As any reader finds it.
        let raw = world.skopeo([
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{}@{digest}", hub.name("acme/hr")),
        ]);
        assert_eq!(&digest_of(raw.stdout.as_bytes()), digest, "{raw}");
    }
    // What was put in the tag's place for a moment answers to nobody.
    let deleted: Vec<_> = asked.iter().filter(|request| request.method == "DELETE").collect();
    assert!(deleted.iter().all(|request| request.status == 202), "{asked:?}");
    for digest in deleted.iter().filter_map(|request| request.path.rsplit('/').next()) {
        assert!(![&published, &deprecated, &archived].contains(&&digest.to_owned()));
        assert_eq!(hub.manifest_bytes("acme/hr", digest), None);
    }

    // An archived manifest without a tag may be collected there; a name holds it.
    place.publish("2.0.0");
    place.promote("2.0.0", "deprecated", &[]);
    let name = place.name("2.0.0");
    let done = place.site.skillctl(place.promotion(&name, "archived", &["--keep-tag", "old-2"]));
    assert_eq!((done.code, &*done.stderr), (0, ""), "{done}");
    assert_eq!(hub.tag("acme/hr", "old-2").as_deref(), Some(said(&done.stdout, "Digest: ")));
    assert_eq!(hub.tag("acme/hr", "2.0.0"), None);
    assert_eq!(hub.manifest("acme/hr", "old-2")["annotations"][STATUS], "archived");
    place.publish("3.0.0");
    place.promote("3.0.0", "deprecated", &[]);
    let name = place.name("3.0.0");
    let done = place.site.skillctl(place.promotion(&name, "archived", &[]));
    assert!(done.code == 0 && done.stderr.contains("--keep-tag") && !done.stdout.contains("Reference: "), "{done}");
}

/// Some registries refuse to delete, and some say that they did: the promotion is made, and what remains is named.
fn a_registry_that_deletes_nothing_is_named(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let gate = Gate::before(&hub);
    let place = Place { prefix: format!("{}/", gate.address), ..Place::remote(world, &hub) };
    for (version, status) in [("1.0.0", 405), ("2.0.0", 202)] {
        let published = place.publish(version);
        let deprecated = place.promote(version, "deprecated", &[]);
        gate.on("DELETE", "/manifests/", ALWAYS, Fault::Status(status));
        let name = place.name(version);
        let done = place.site.skillctl(place.promotion(&name, "archived", &[]));
        assert_eq!(done.code, 0, "{done}");
        let warning = done.stderr.lines().find(|line| line.starts_with("warning: ") && line.contains(version));
        assert!(warning.is_some_and(|line| line.contains("remains") || line.contains("still")), "{status}: {done}");
        let archived = said(&done.stdout, "Digest: ").to_owned();
        for (digest, state) in [(&published, "published"), (&deprecated, "deprecated"), (&archived, "archived")] {
            assert_eq!(place.manifest(digest)["annotations"][STATUS], state, "{status}");
        }
        // Whoever still asks by the tag does not get something that is in use.
        let left = hub.tag("acme/hr", version).map(|digest| place.manifest(&digest)["annotations"][STATUS].clone());
        assert!(left.as_ref().is_none_or(|state| state != "published"), "{left:?}");
        gate.reset();
    }
}

/// Killed while the tag names a tombstone, which is not yet deleted.
fn an_archiving_that_was_cut_is_finished_by_the_same_command(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let gate = Gate::before(&hub);
    let place = Place { prefix: format!("{}/", gate.address), ..Place::remote(world, &hub) };
    place.publish("1.0.0");
    let deprecated = place.promote("1.0.0", "deprecated", &[]);
    let name = place.name("1.0.0");
    let planned = place.site.skillctl(place.promotion(&name, "archived", &["--dry-run"])).ok();
    // So that the deletion of latest is not taken for this one.
    gate.reset();
    gate.on("DELETE", "/manifests/", ALWAYS, Fault::Silence);
    Done::while_running(place.site.command(place.promotion(&name, "archived", &[])), |child| {
        gate.wait_for("DELETE", "/manifests/");
        child.kill().expect("a signal");
    });
    let buried = hub.tag("acme/hr", "1.0.0").expect("a tombstone");
    assert_ne!(buried, deprecated);
    gate.reset();
    assert_eq!(place.promote("1.0.0", "archived", &[]), said(&planned, "Digest: "));
    assert_eq!(hub.tag("acme/hr", "1.0.0"), None);
    for (digest, state) in [(&*deprecated, "deprecated"), (said(&planned, "Digest: "), "archived")] {
        assert_eq!(place.manifest(digest)["annotations"][STATUS], state);
    }
}

/// Draft to testing checks the image, not the directory it came from.
fn a_gate_reads_what_is_in_the_image(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    // Nothing of ours builds such an image: a card whose prompt is not there.
    let broken = world.path("broken");
    fs::create_dir_all(&broken).expect("a directory");
    let card = "apiVersion: skillimage.io/v1alpha1\nkind: SkillCard\nmetadata:\n  name: Bad_Name\n  namespace: acme\n  version: one\n";
    fs::write(broken.join("skill.yaml"), card).expect("a card");
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let layer = world.path("layer.tar");
    world.run("tar", ["-C".as_ref(), broken.as_os_str(), "-cf".as_ref(), layer.as_os_str(), ".".as_ref()]).ok();
    let tar = fs::read(&layer).expect("a tar");
    let mut config = built.config.clone();
    config["rootfs"]["diff_ids"] = json!([digest_of(&tar)]);
    let config = config.to_string().into_bytes();
    let mut manifest = built.manifest.clone();
    manifest["config"]["digest"] = json!(digest_of(&config));
    manifest["config"]["size"] = json!(config.len());
    manifest["layers"] = json!([{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest_of(&tar), "size": tar.len() }]);
    hub.upload("acme/hr", &config);
    hub.upload("acme/hr", &tar);
    hub.put("acme/hr", "1.0.0-draft", manifest.to_string().as_bytes());
    let name = hub.name("acme/hr:1.0.0-draft");
    let promote = ["promote", &name, "--to", "testing"];
    let remote = world.skillctl(promote);
    assert!(remote.code == 1 || remote.code == 2, "{remote}");
    assert!(format!("{}{}", remote.stdout, remote.stderr).contains("SKILL.md"), "{remote}");
    assert_eq!(hub.tags("acme/hr"), ["1.0.0-draft"]);
}

fn a_dry_run_changes_nothing(world: &World) {
    both(world, |place| {
        place.draft("1.0.0");
        let (index, tags) = (place.site.entries(), place.hub.tags("acme/hr"));
        let name = place.name("1.0.0-draft");
        let (done, asked) =
            place.hub.asked(|| place.site.skillctl(place.promotion(&name, "testing", &["--dry-run"])).ok());
        assert!(done.contains(&place.name("1.0.0-testing")), "{done}");
        assert!(asked.iter().all(|request| matches!(request.method.as_str(), "GET" | "HEAD")), "{asked:?}");
        assert_eq!((place.site.entries(), place.hub.tags("acme/hr")), (index, tags));
        // What it said is what is then done.
        let digest = said(&done, "Digest: ").to_owned();
        assert_eq!(place.promote("1.0.0-draft", "testing", &[]), digest);
    });
}
