//! Keys, signatures and what refuses them, in a store and without the network.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::{Ran, World};

const DRAFT: &str = "acme/hr:1.0.0-draft";

/// A world with a skill and the keys `acme` and `other`.
fn world() -> World {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    for name in ["acme", "other"] {
        run(&world, &["key", "generate", name]).ok();
    }
    world
}

fn run(world: &World, args: &[&str]) -> Ran {
    world.command(args).env("COSIGN_PASSWORD", "secret").output().unwrap().into()
}

fn sign(world: &World, reference: &str, flags: &[&str]) -> Value {
    run(world, &[&["sign", reference, "--key", "acme.key", "--format", "json"], flags].concat()).ok().json()
}

fn verify(world: &World, reference: &str, flags: &[&str]) -> Ran {
    run(world, &[&["verify", reference, "--key", "acme.pub", "--format", "json"], flags].concat())
}

#[test]
fn a_key_is_made_once_and_is_its_owners_alone() {
    let world = World::new();
    let made = run(&world, &["key", "generate", "acme", "--format", "json"]).ok().json();
    let mode = |name: &str| fs::metadata(world.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("acme.key"), mode("acme.pub")), (0o600, 0o644));
    let shown = run(&world, &["key", "show", "acme.pub", "--format", "json"]).ok().json();
    assert_eq!((&shown["id"], shown["algorithm"].as_str()), (&made["id"], Some("ECDSA P-256")));
    let opened = run(&world, &["key", "show", "acme.key", "--format", "json"]).ok().json();
    assert_eq!(opened, shown);
    let before = fs::read(world.path("acme.key")).unwrap();
    assert!(run(&world, &["key", "generate", "acme"]).fails(2).stderr.contains("acme.key is there already"));
    assert_eq!(fs::read(world.path("acme.key")).unwrap(), before);
    world.write("wrong", "Secret\n");
    let wrong = run(&world, &["key", "show", "acme.key", "--passphrase-file", "wrong"]).fails(2);
    assert!(wrong.stderr.contains("acme.key: the passphrase does not open it"), "{}", wrong.stderr);
    world.write("right", "secret\n");
    run(&world, &["key", "show", "acme.key", "--passphrase-file", "right"]).ok();
    // Nobody is there to be asked.
    let asked = world.run(["key", "show", "acme.key"]).fails(2);
    assert!(
        asked.stderr.contains("no terminal to ask on") && asked.stderr.contains("COSIGN_PASSWORD"),
        "{}",
        asked.stderr
    );
}

#[test]
fn what_was_signed_is_verified_and_nothing_else() {
    let world = world();
    let unsigned = verify(&world, DRAFT, &[]).fails(1);
    assert!(unsigned.stderr.contains("and it has no signature"), "{}", unsigned.stderr);
    let signed = sign(&world, DRAFT, &[]);
    assert_eq!(signed["added"], serde_json::json!(["simple", "bundle"]));
    assert_eq!(signed["identity"], "localhost/acme/hr:1.0.0-draft");
    let verified = verify(&world, DRAFT, &[]).ok().json();
    assert_eq!(verified["digest"], signed["digest"]);
    let forms: Vec<&str> =
        verified["signers"].as_array().unwrap().iter().map(|one| one["form"].as_str().unwrap()).collect();
    assert_eq!(forms, ["simple", "bundle"]);
    // Once is enough, and others may sign it, too.
    assert_eq!(sign(&world, DRAFT, &[])["added"], serde_json::json!([]));
    run(&world, &["verify", DRAFT, "--key", "other.pub"]).fails(1);
    run(&world, &["sign", DRAFT, "--key", "other.key"]).ok();
    run(&world, &["verify", DRAFT, "--key", "other.pub"]).ok();
    verify(&world, DRAFT, &[]).ok();
    // By digest as well, of which the name in the store says what it is.
    let digest = signed["digest"].as_str().unwrap();
    verify(&world, digest, &[]).ok();
    verify(&world, &format!("acme/hr@{digest}"), &[]).ok();
    // No name in a list, and no promotion takes it along: the manifest is another.
    assert_eq!(world.run(["list", "--format", "json"]).ok().json().as_array().unwrap().len(), 1);
    world.run(["promote", DRAFT, "--to", "testing", "--local", "--load=never"]).ok();
    let promoted = verify(&world, "acme/hr:1.0.0-testing", &[]).fails(1);
    assert!(promoted.stderr.contains("it has no signature"), "{}", promoted.stderr);
}

#[test]
fn a_signature_of_another_image_counts_for_nothing() {
    let world = world();
    world.skill("legal", "1.0.0");
    world.build("legal");
    sign(&world, "acme/legal:1.0.0-draft", &[]);
    // Signed, and served under the name of another one.
    world.run(["tag", "--load=never", "acme/legal:1.0.0-draft", "acme/hr:1.0.0-draft", "--force"]).ok();
    let refused = verify(&world, DRAFT, &[]).fails(1).stderr;
    assert!(refused.contains("for the repository acme/legal, not acme/hr"), "{refused}");
    assert!(refused.contains("for the skill acme/legal, not acme/hr"), "{refused}");
    // An older version under the tag of a newer one.
    let world = self::world();
    sign(&world, DRAFT, &[]);
    world.run(["tag", "--load=never", DRAFT, "acme/hr:1.1.0-draft"]).ok();
    let refused = verify(&world, "acme/hr:1.1.0-draft", &[]).fails(1).stderr;
    assert!(refused.contains("of the version \"1.0.0\", draft, and the tag is 1.1.0-draft"), "{refused}");
    // Under names that promise no version it is what it is.
    world.run(["tag", "--load=never", DRAFT, "acme/hr:newest"]).ok();
    verify(&world, "acme/hr:newest", &[]).ok();
    // Elsewhere only where that is said.
    world.run(["tag", "--load=never", DRAFT, "mirror.example/copies/acme/hr:1.0.0-draft"]).ok();
    let mirrored = "mirror.example/copies/acme/hr:1.0.0-draft";
    let by_bundle = verify(&world, mirrored, &["--local"]).ok().json();
    assert_eq!(by_bundle["signers"][0]["form"], "bundle");
    let both = verify(&world, mirrored, &["--local", "--identity", "acme/hr"]).ok().json();
    assert_eq!(both["signers"].as_array().unwrap().len(), 2);
}

#[test]
fn signatures_stay_as_long_as_what_they_are_of() {
    let world = world();
    sign(&world, DRAFT, &[]);
    let blobs = || fs::read_dir(world.store().join("blobs/sha256")).unwrap().count();
    let before = blobs();
    world.run(["prune", "--grace", "0"]).ok();
    assert_eq!(blobs(), before);
    verify(&world, DRAFT, &[]).ok();
    world.run(["fsck"]).ok();
    world.run(["rm", "-f", DRAFT]).ok();
    world.run(["prune", "--grace", "0"]).ok();
    assert_eq!(blobs(), 0);
}

#[test]
fn a_signature_that_was_altered_counts_for_nothing() {
    let world = world();
    sign(&world, DRAFT, &[]);
    let index: Value = serde_json::from_slice(&fs::read(world.store().join("index.json")).unwrap()).unwrap();
    let bundle = index["manifests"].as_array().unwrap().iter().find(|entry| entry["artifactType"].is_string()).unwrap();
    let blob = |digest: &Value| world.store().join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    let manifest: Value = serde_json::from_slice(&fs::read(blob(&bundle["digest"])).unwrap()).unwrap();
    let path = blob(&manifest["layers"][0]["digest"]);
    let text = fs::read_to_string(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, text.replacen("in-toto", "In-toto", 1)).unwrap();
    // The store is damaged, and nothing is concluded from it.
    assert!(verify(&world, DRAFT, &[]).fails(2).stderr.contains("is damaged"));
    world.run(["fsck"]).fails(1);
}
