//! Keys, signatures and what refuses them, in a store and without the network.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::{Ran, World};

const DRAFT: &str = "acme/hr:1.0.0-draft";

/// A world with a skill and the keys `acme` and `other`.
pub fn world() -> World {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    for name in ["acme", "other"] {
        run(&world, &["key", "generate", name]).ok();
    }
    world
}

pub fn run(world: &World, args: &[&str]) -> Ran {
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
fn a_key_that_is_none_is_told_what_it_is() {
    let world = world();
    world.write("cut.pub", "-----BEGIN PUBLIC KEY-----\nMFkw\n");
    let sign = |key: &str| run(&world, &["sign", DRAFT, "--key", key]).fails(2).stderr;
    let verify = |key: &str| run(&world, &["verify", DRAFT, "--key", key]).fails(2).stderr;
    let cases = [
        (sign("acme.pub"), "acme.pub is the public half of a key, and signs nothing\nhint: give acme.key\n"),
        (verify("acme.key"), "acme.key is no public key: it is the private half of one\nhint: give acme.pub\n"),
        (verify("cut.pub"), "cut.pub is no key: it is no PEM\nhint: a key is text between "),
        (sign("cut.pub"), "cut.pub is no key: it is no PEM\nhint: a key is text between "),
    ];
    for (told, want) in cases {
        assert!(told.contains(want), "{told}");
    }
    for (name, want) in [("new.pub", "hint: skillctl key generate new\n"), ("d.x/new.key", "key generate d.x/new\n")] {
        let told = run(&world, &["key", "generate", name]).fails(2).stderr;
        assert!(told.ends_with(want), "{told}");
    }
    assert!(!world.path("new.pub.key").exists());
    run(&world, &["key", "generate", "new.v2"]).ok();
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

#[test]
fn an_index_that_is_signed_alone_is_warned_of() {
    let world = world();
    let all = "acme/hr:all";
    world.run(["build", "hr", "--load=never", "--tag", "all", "--platform", "linux/amd64,linux/arm64"]).ok();
    sign(&world, all, &[]);
    let whole = verify(&world, all, &[]).ok();
    assert_eq!((&whole.json()["warnings"], whole.stderr.as_str()), (&serde_json::json!([]), ""));
    // As cosign leaves it: what belongs to the instances is not there.
    let path = world.store().join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let digest = whole.json()["digest"].clone();
    let entries = index["manifests"].as_array_mut().unwrap();
    let before = entries.len();
    entries.retain(|entry| {
        let subject = &entry["annotations"]["io.skillimage.subject"];
        subject.is_null() || *subject == digest
    });
    assert_eq!(before - entries.len(), 4);
    fs::write(&path, index.to_string()).unwrap();
    let alone = verify(&world, all, &[]).ok();
    assert_eq!(alone.json()["signers"].as_array().unwrap().len(), 2);
    assert_eq!(alone.stderr.matches("warning: ").count(), 1, "{alone}");
    assert!(alone.stderr.contains("acme/hr:all: the index is signed, and not its instance sha256:"), "{alone}");
    assert_eq!(alone.json()["warnings"].as_array().unwrap().len(), 1);
    let key = fs::canonicalize(world.path("acme.pub")).unwrap().display().to_string();
    let installed = run(&world, &["install", "--key", &key, "-o", "out", all]).ok();
    assert_eq!(installed.stderr.matches("warning: ").count(), 1, "{installed}");
}

#[test]
fn a_command_signs_with_a_key_that_is_elsewhere() {
    let openssl = ["/usr/bin/openssl", "/usr/local/bin/openssl"].into_iter().find(|path| fs::exists(path).unwrap());
    let Some(openssl) = openssl else {
        eprintln!("SKIPPED a_command_signs_with_a_key_that_is_elsewhere: no openssl");
        return;
    };
    let world = world();
    let openssl = |args: &str| format!("{openssl} {args}");
    let make = |script: &str| {
        let made = std::process::Command::new("/bin/sh").args(["-c", script]).current_dir(world.path("")).output();
        Ran::from(made.unwrap()).ok();
    };
    let signed = |key: &str, command: &str| {
        run(&world, &["sign", DRAFT, "--key", key, "--signer-cmd", command, "--format", "json"])
    };
    let index = || fs::read(world.store().join("index.json")).unwrap();
    let before = index();
    let kinds = [
        ("ec", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
        ("rsa", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048"),
        ("p384", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384"),
    ];
    for (name, flags) in kinds {
        make(&openssl(&format!("genpkey {flags} -out {name}.pem 2>&1")));
        make(&openssl(&format!("pkey -in {name}.pem -pubout -out {name}.pub")));
    }
    let by = |name: &str| openssl(&format!("dgst -sha256 -sign {name}.pem"));
    // What the key does not verify is not written, and neither is what nobody else would verify.
    let refused = [
        ("ec.pub", by("rsa"), "are no signature by the key sha256:"),
        ("ec.pub", openssl("dgst -sha384 -sign ec.pem"), "are no signature by the key sha256:"),
        ("ec.pub", by("none"), "error: Signing acme/hr:1.0.0-draft: the signer command: "),
        ("p384.pub", by("p384"), "podman verifies no signatures by keys of ECDSA P-384"),
        ("acme.key", by("ec"), "acme.key is no public key"),
        ("none.pub", by("ec"), "none.pub"),
    ];
    for (key, command, why) in refused {
        let error = signed(key, &command).fails(2).stderr;
        assert!(error.contains(why) && error.lines().count() <= 2, "{key} {command}: {error}");
        assert_eq!(index(), before);
    }
    for (key, command) in [("ec.pub", by("ec")), ("rsa.pub", by("rsa") + " | " + &openssl("base64"))] {
        assert_eq!(signed(key, &command).ok().json()["added"], serde_json::json!(["simple", "bundle"]));
        let verified = run(&world, &["verify", DRAFT, "--key", key, "--format", "json"]).ok().json();
        assert_eq!(verified["signers"].as_array().unwrap().len(), 2, "{key}");
    }
    verify(&world, DRAFT, &[]).fails(1);
    // Without the public key nobody could tell whose signature it is.
    run(&world, &["sign", DRAFT, "--signer-cmd", &by("ec")]).fails(2);
}

#[test]
fn without_a_key_cosign_is_needed() {
    let world = world();
    let remote = "registry.example/acme/hr:1.0.0";
    let missing = run(&world, &["sign", "--keyless", remote]).fails(2).stderr;
    assert!(
        missing.contains("Signing registry.example/acme/hr:1.0.0: cosign, which signs without a key, is not installed")
    );
    assert!(missing.contains("\nhint: https://docs.sigstore.dev/"), "{missing}");
    let stored = run(&world, &["sign", "--keyless", DRAFT]).fails(2).stderr;
    assert!(stored.contains("an image of the store is signed by a key\nhint: push it, and sign it there"), "{stored}");
    for flags in [&["--keyless", "--key", "acme.key"][..], &[], &["--identity-token", "token", "--key", "acme.key"]] {
        run(&world, &[&["sign", remote], flags].concat()).fails(2);
    }
}
