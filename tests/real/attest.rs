//! Attestations on real registries: by several at once, taken along by a pull, and both ways with cosign.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value, json};

use crate::cell::{Done, World, cannot, matrix};
use crate::registry::gate::{ALWAYS, Fault, Gate};
use crate::registry::{Kind, MANIFEST, Registry, digest_of};
use crate::trust::{key, registry, skillctl};

matrix! { @roots a_registry_keeps_what_is_attested, where_referrers_are_listed_no_index_is_written }

/// What cosign does is the same wherever it runs.
mod with_cosign {
    use super::{cosign_verifies_what_is_attested, what_cosign_attested_is_read};
    use crate::cell::matrix;

    matrix! { @cell host_root("host", "root", None), cosign_verifies_what_is_attested, what_cosign_attested_is_read }
}

fn attest(world: &World, name: &str, by: &str, flags: &[&str]) -> Value {
    let key = key(world, by) + ".key";
    skillctl(world, &[&["attest", name, "--key", &key, "--format", "json"], flags].concat()).json()
}

fn inspect(world: &World, name: &str, flags: &[&str]) -> Done {
    skillctl(world, &[&["inspect", "--attestations", name, "--format", "json"], flags].concat())
}

fn of(list: &Value, field: &str) -> Vec<Value> {
    list["attestations"].as_array().expect("a list").iter().map(|one| one[field].clone()).collect()
}

/// Writes a predicate, and returns its path.
fn predicate(world: &World, name: &str, value: &Value) -> String {
    let path = world.path(name);
    fs::write(&path, value.to_string()).expect("a file");
    path.display().to_string()
}

fn a_registry_keeps_what_is_attested(world: &World) {
    let (hub, name) = registry(world, Kind::Plain);
    let public = key(world, "acme") + ".pub";
    assert_eq!(inspect(world, &name, &[]).json()["attestations"], json!([]));
    // From a store that does not have the image.
    let store = world.path("elsewhere").display().to_string();
    let from = |flags: &[&str]| attest(world, &name, "acme", &[&["--store", &store], flags].concat());
    let attested = from(&["--sbom", "spdx,cyclonedx", "--provenance"]);
    assert_eq!(of(&attested, "added"), [true, true, true]);
    assert_eq!(of(&from(&["--sbom", "spdx", "--provenance"]), "added"), [false, false]);
    assert_eq!(of(&attest(world, &name, "acme", &["--sbom", "cyclonedx"]), "added"), [false]);
    // In the index of referrers, as other tools read it.
    let digest = attested["digest"].as_str().expect("a digest").to_owned();
    let tag = digest.replace(':', "-");
    let types = || -> Vec<String> {
        let index = hub.manifest("acme/hr", &tag);
        let entries = index["manifests"].as_array().expect("a list").iter();
        let own = |entry: &Value| entry["annotations"]["dev.sigstore.bundle.predicateType"].as_str().map(str::to_owned);
        let types = entries.filter(|entry| entry["artifactType"] == "application/vnd.dev.sigstore.bundle.v0.3+json");
        types.filter_map(own).collect()
    };
    assert_eq!(types(), ["https://spdx.dev/Document", "https://cyclonedx.org/bom", "https://slsa.dev/provenance/v1"]);
    // Two at once, from two stores: what both write is there.
    for round in 0..3 {
        let stores = ["one", "two"].map(|name| world.path(name).display().to_string());
        let kinds = ["one", "two"].map(|by| format!("urn:{by}:{round}"));
        let file = predicate(world, "p.json", &json!({"round": round}));
        thread::scope(|scope| {
            for (store, kind) in stores.iter().zip(&kinds) {
                let flags = ["--store", store, "--predicate", &file, "--type", kind];
                let (world, name) = (&world, &name);
                scope.spawn(move || assert_eq!(of(&attest(world, name, "other", &flags), "added"), [true]));
            }
        });
        let known = types();
        assert!(kinds.iter().all(|kind| known.contains(kind)), "{known:?}");
    }
    let listed = inspect(world, &name, &["--key", &public]).json();
    assert_eq!(of(&listed, "verified").iter().filter(|verified| **verified == true).count(), 3);
    assert_eq!(of(&listed, "verified").len(), 9);
    // They are no signatures, and do not hide one.
    assert!(skillctl(world, &["verify", &name, "--key", &public]).fails(1).contains("it has no signature"));
    skillctl(world, &["sign", &name, "--key", &(key(world, "acme") + ".key")]).ok();
    skillctl(world, &["verify", &name, "--key", &public]).ok();
    // What is pulled by a key brings what that key attests, and nobody else's.
    let there = world.path("there").display().to_string();
    let pull = ["--store", &there, "pull", "--verify", "--key", &public, "--load=never", &name];
    skillctl(world, &pull).ok();
    let kept = inspect(world, &name, &["--store", &there, "--local", "--key", &public]).json();
    assert_eq!(of(&kept, "name"), ["spdx", "cyclonedx", "provenance"]);
    assert_eq!(of(&kept, "verified"), [true, true, true]);
    skillctl(world, &["--store", &there, "fsck"]).ok();
    // What was attested of another image is none of this one, whoever serves it here.
    let mut index = hub.manifest("acme/hr", &tag);
    world.build("legal", "1.0.0", &["--load=never"]);
    let legal = hub.name("acme/legal:1.0.0-draft");
    skillctl(world, &["push", "acme/legal:1.0.0-draft", &legal]).ok();
    attest(world, &legal, "acme", &["--sbom", "spdx"]);
    let stolen = hub.tag("acme/legal", "1.0.0-draft").expect("a digest");
    let theirs = hub.manifest("acme/legal", &stolen.replace(':', "-"))["manifests"][0]["digest"].clone();
    let mut manifest: Value = serde_json::from_slice(
        &hub.manifest_bytes("acme/legal", theirs.as_str().expect("a digest")).expect("a manifest"),
    )
    .expect("JSON");
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    hub.upload("acme/hr", &hub.blob(&layer));
    manifest["subject"]["digest"] = json!(digest);
    let bytes = manifest.to_string().into_bytes();
    hub.put("acme/hr", "stolen", &bytes);
    let entry = json!({"mediaType": manifest["mediaType"], "digest": digest_of(&bytes), "size": bytes.len()});
    index["manifests"] = json!([entry]);
    hub.put("acme/hr", &tag, index.to_string().as_bytes());
    let flags = ["--key", &public, "--type", "spdx", "--predicate"];
    let refused = inspect(world, &name, &flags).fails(1);
    assert!(refused.contains(&format!("is of {stolen}")), "{refused}");
}

fn where_referrers_are_listed_no_index_is_written(world: &World) {
    let (hub, _) = registry(world, Kind::Plain);
    let gate = Gate::before(&hub);
    let (name, public) = (gate.name("acme/hr:1.0.0"), key(world, "acme") + ".pub");
    // What a registry with that API answers.
    let lists = |digests: &[String]| {
        let entry = |digest: &String| json!({"mediaType": MANIFEST, "digest": digest, "size": 1});
        let index = json!({"schemaVersion": 2, "manifests": digests.iter().map(entry).collect::<Vec<_>>()});
        gate.reset();
        gate.on("GET", "/referrers/", ALWAYS, Fault::Instead(index.to_string().into_bytes()));
    };
    lists(&[]);
    let attested = attest(world, &name, "acme", &["--sbom", "spdx"]);
    assert_eq!(of(&attested, "added"), [true]);
    assert_eq!(hub.tag("acme/hr", &attested["digest"].as_str().expect("a digest").replace(':', "-")), None);
    // Others are listed, too, who are gone, and far too many.
    let own = of(&attested, "digest")[0].as_str().expect("a digest").to_owned();
    let mut digests = vec![own];
    lists(&digests);
    let listed = inspect(world, &name, &["--key", &public]).json();
    assert_eq!((of(&listed, "verified"), &listed["unread"]), (vec![json!(true)], &json!([])));
    assert_eq!(of(&attest(world, &name, "acme", &["--sbom", "spdx"]), "added"), [false]);
    digests.extend((0..10_000).map(|n| digest_of(format!("{n}").as_bytes())));
    lists(&digests);
    let listed = inspect(world, &name, &["--key", &public]).json();
    assert_eq!(of(&listed, "verified"), [true]);
    assert_eq!(listed["unread"], json!(["beyond the first 256 referrers"]));
    assert!(gate.count("GET", "/manifests/sha256:") <= 256 + 1);
}

/// cosign 3, by key and without the network: nothing is asked of a log or a time stamp.
struct Cosign<'a> {
    world: &'a World,
    program: PathBuf,
}

impl<'a> Cosign<'a> {
    fn new(world: &'a World) -> Self {
        let roots = std::env::var_os("SKILLCTL_TEST_ROOTS").unwrap_or_else(|| "/var/cache/skillctl-tests".into());
        let program = Path::new(&roots).join("go/bin/cosign3");
        if !program.exists() {
            cannot("no cosign3: tests/setup test says why");
        }
        Self { world, program }
    }

    fn run(&self, args: &[&str]) -> Done {
        let mut command = self.world.command(self.program.to_str().expect("UTF-8"), args);
        command.env("COSIGN_PASSWORD", "secret");
        Done::of(command)
    }

    fn verify(&self, name: &str, by: &str, kind: &str) -> Done {
        let key = key(self.world, by) + ".pub";
        self.run(&["verify-attestation", "--key", &key, "--type", kind, "--insecure-ignore-tlog", name])
    }

    /// Attests by a configuration that names no service.
    fn attest(&self, name: &str, by: &str, (file, kind): (&str, &str)) {
        let config = predicate(
            self.world,
            "signing.json",
            &json!({
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "rekorTlogConfig": {},
                "tsaConfig": {},
            }),
        );
        let key = key(self.world, by) + ".key";
        let flags = ["--key", &key, "--signing-config", &config, "--predicate", file, "--type", kind, name];
        self.run(&[&["attest"], &flags[..]].concat()).ok();
    }
}

fn published(world: &World) -> (Registry, String, String) {
    let (hub, name) = registry(world, Kind::Plain);
    let digest = hub.tag("acme/hr", "1.0.0").expect("a digest");
    let pinned = format!("{}@{digest}", hub.name("acme/hr"));
    (hub, name, pinned)
}

fn cosign_verifies_what_is_attested(world: &World) {
    let cosign = Cosign::new(world);
    let (_hub, name, _) = published(world);
    attest(world, &name, "acme", &["--sbom", "spdx,cyclonedx", "--provenance"]);
    for kind in ["spdxjson", "cyclonedx", "slsaprovenance1"] {
        let verified = cosign.verify(&name, "acme", kind).ok();
        assert!(verified.contains("\"payloadType\":\"application/vnd.in-toto+json\""), "{kind}: {verified}");
        assert_ne!(cosign.verify(&name, "other", kind).code, 0, "{kind}");
    }
    assert_ne!(cosign.verify(&name, "acme", "vuln").code, 0);
}

fn what_cosign_attested_is_read(world: &World) {
    let cosign = Cosign::new(world);
    let (hub, name, pinned) = published(world);
    attest(world, &name, "acme", &["--sbom", "spdx"]);
    let review = json!({"reviewer": "bo", "Data": 1, "data": [2]});
    let file = predicate(world, "review.json", &review);
    cosign.attest(&pinned, "acme", (&file, "https://acme.example/review/v1"));
    cosign.attest(&pinned, "other", (&file, "https://acme.example/review/v1"));
    // Its index says nothing of what it has added, and takes nothing of ours away.
    let digest = pinned.split_once('@').expect("a digest").1.replace(':', "-");
    let index = hub.manifest("acme/hr", &digest);
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(3));
    let public = key(world, "acme") + ".pub";
    let listed = inspect(world, &name, &["--key", &public]).json();
    let mut verified = of(&listed, "verified");
    verified.sort_by_key(|verified| verified.as_bool());
    assert_eq!(verified, [false, true, true]);
    let flags = ["--key", &public, "--type", "https://acme.example/review/v1", "--predicate"];
    assert_eq!(inspect(world, &name, &flags).json(), review);
    // What cosign has stated need not be stated again, and ours beside it is still there.
    let again = ["--predicate", &file, "--type", "https://acme.example/review/v1"];
    assert_eq!(of(&attest(world, &name, "acme", &again), "added"), [false]);
    attest(world, &name, "acme", &["--provenance"]);
    for kind in ["spdxjson", "slsaprovenance1", "https://acme.example/review/v1"] {
        cosign.verify(&name, "acme", kind).ok();
    }
}
