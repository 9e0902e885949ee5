//! cosign verifies what we sign, and we what it signs, where there is no network but loopback; oras and skopeo carry it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::cell::{Done, World, matrix, needs};
use crate::registry::gate::Gate;
use crate::registry::{Kind, Registry};
use crate::trust::{key, registry, sign, skillctl, verify};

matrix! { @cell sid_root("sid", "root", None),
    cosign_3_verifies_what_we_signed,
    what_cosign_3_signed_is_verified,
    keys_of_other_kinds_verify_what_cosign_signed,
    cosign_2_reads_and_writes_the_same_signatures,
    an_index_that_is_signed_alone_is_warned_of,
    oras_and_skopeo_carry_what_was_signed,
    without_a_key_cosign_signs,
}

/// No tool of signatures needs these, and offline they do not work.
const OFFLINE: [&str; 2] = ["--use-signing-config=false", "--tlog-upload=false"];
const LEGACY: &str = "--new-bundle-format=false";

/// Leaves this thread, and what it starts, with loopback alone.
fn offline(world: &World) {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    world.run("busybox", ["ifconfig", "lo", "127.0.0.1", "up"]).ok();
    let outside = SocketAddr::from(([192, 0, 2, 1], 443));
    assert!(TcpStream::connect_timeout(&outside, Duration::from_secs(1)).is_err());
}

/// A registry with a skill, and what it is called with the referrers API and without.
fn registries(world: &World) -> (Registry, Gate, [String; 2]) {
    offline(world);
    let (hub, plain) = registry(world, Kind::Plain);
    let gate = Gate::with_referrers(&hub);
    let listed = gate.name("listed/acme/hr:1.0.0");
    world.skillctl(["push", "acme/hr:1.0.0", &listed]).ok();
    (hub, gate, [plain, listed])
}

/// Runs a release of cosign, with the passphrase of all keys.
fn cosign(world: &World, release: &str, args: &[&str]) -> Done {
    let mut command = world.command(release, args);
    command.env("COSIGN_PASSWORD", "secret");
    Done::of(command)
}

fn cosign_verifies(world: &World, release: &str, (name, by): (&str, &str), flags: &[&str]) -> Done {
    let key = key(world, by) + ".pub";
    cosign(world, release, &[&["verify", "--key", &key, "--insecure-ignore-tlog"], flags, &[name]].concat())
}

fn cosign_signs(world: &World, release: &str, (name, by): (&str, &str), flags: &[&str]) {
    let key = key(world, by) + ".key";
    cosign(world, release, &[&["sign", "--yes", "--key", &key], flags, &[name]].concat()).ok();
}

/// Returns the name by the digest that it has: cosign warns of tags.
fn by_digest(world: &World, name: &str) -> String {
    let digest = world.skillctl(["inspect", name, "--format", "json"]).json()["digest"].clone();
    let repository = name.rsplit_once(':').expect("a tag").0;
    format!("{repository}@{}", digest.as_str().expect("a digest"))
}

fn forms(verified: &Value) -> Vec<&str> {
    let signers = verified["signers"].as_array().expect("signers");
    signers.iter().map(|signer| signer["form"].as_str().expect("a form")).collect()
}

fn cosign_3_verifies_what_we_signed(world: &World) {
    needs("cosign3");
    let (hub, gate, names) = registries(world);
    for name in &names {
        assert_ne!(cosign_verifies(world, "cosign3", (name, "acme"), &[]).code, 0);
        let digest = sign(world, name, "acme")["digest"].clone();
        for flags in [&[][..], &[LEGACY]] {
            let said = cosign_verifies(world, "cosign3", (name, "acme"), flags).ok();
            assert!(said.contains(digest.as_str().expect("a digest")), "{said}");
            assert_ne!(cosign_verifies(world, "cosign3", (name, "other"), flags).code, 0, "{flags:?}");
        }
        // Two who sign do not get into each other's way.
        sign(world, name, "other");
        for by in ["acme", "other"] {
            for flags in [&[][..], &[LEGACY]] {
                cosign_verifies(world, "cosign3", (name, by), flags).ok();
            }
        }
    }
    // The index of referrers is for the registry that lists none by itself.
    assert_eq!((hub.tags("acme/hr").len(), hub.tags("listed/acme/hr").len()), (3, 2));
    assert_ne!(gate.count("GET", "/referrers/"), 0);
    // A key that cosign made signs, too.
    cosign(world, "cosign3", &["generate-key-pair", "--output-key-prefix", &key(world, "theirs")]).ok();
    for name in &names {
        sign(world, name, "theirs");
        for flags in [&[][..], &[LEGACY]] {
            cosign_verifies(world, "cosign3", (name, "theirs"), flags).ok();
        }
    }
}

fn what_cosign_3_signed_is_verified(world: &World) {
    needs("cosign3");
    let (_hub, _gate, names) = registries(world);
    for name in &names {
        let pinned = by_digest(world, name);
        cosign_signs(world, "cosign3", (&pinned, "acme"), &OFFLINE);
        assert_eq!(forms(&verify(world, name, "acme").json()), ["bundle"]);
        cosign_signs(world, "cosign3", (&pinned, "other"), &[&OFFLINE[..], &[LEGACY]].concat());
        let verified = verify(world, name, "other").json();
        assert_eq!(forms(&verified), ["simple"]);
        let repository = pinned.split_once('@').expect("a digest").0;
        assert_eq!(verified["signers"][0]["reference"].as_str(), Some(repository));
        // What we add leaves both as they are.
        assert_eq!(sign(world, name, "acme")["added"], json!(["simple"]));
        assert_eq!(forms(&verify(world, name, "acme").json()), ["simple", "bundle"]);
        cosign_verifies(world, "cosign3", (name, "other"), &[LEGACY]).ok();
    }
}

fn keys_of_other_kinds_verify_what_cosign_signed(world: &World) {
    needs("cosign3");
    let (_hub, _gate, [name, _]) = registries(world);
    let pinned = by_digest(world, &name);
    let kinds = [
        ("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"][..]),
        ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("ed25519", &["-algorithm", "ED25519"]),
    ];
    for (kind, flags) in kinds {
        let (prefix, pem) = (key(world, kind), key(world, kind) + ".pem");
        world.run("openssl", [&["genpkey", "-out", &pem], flags].concat()).ok();
        cosign(world, "cosign3", &["import-key-pair", "--key", &pem, "--output-key-prefix", &prefix]).ok();
        cosign_signs(world, "cosign3", (&pinned, kind), &[&OFFLINE[..], &[LEGACY]].concat());
        cosign_signs(world, "cosign3", (&pinned, kind), &OFFLINE);
        assert_eq!(forms(&verify(world, &name, kind).json()), ["simple", "bundle"], "{kind}");
        verify(world, &name, "acme").fails(1);
    }
}

fn cosign_2_reads_and_writes_the_same_signatures(world: &World) {
    needs("cosign2");
    let (_hub, _gate, names) = registries(world);
    for name in &names {
        sign(world, name, "acme");
        cosign_verifies(world, "cosign2", (name, "acme"), &[]).ok();
        assert_ne!(cosign_verifies(world, "cosign2", (name, "other"), &[]).code, 0);
        cosign_signs(world, "cosign2", (&by_digest(world, name), "other"), &["--tlog-upload=false"]);
        assert_eq!(forms(&verify(world, name, "other").json()), ["simple"]);
        assert_eq!(forms(&verify(world, name, "acme").json()), ["simple", "bundle"]);
    }
    // It is too old to sign without a key.
    let refused = keyless(world, "cosign2", &[&names[0]]).refused(&[&names[0]], &["cosign 3 or newer"]);
    assert!(refused.contains("is v2.5.0") && refused.contains("hint: "), "{refused}");
}

fn an_index_that_is_signed_alone_is_warned_of(world: &World) {
    needs("cosign3");
    let (_hub, _gate, names) = registries(world);
    let dir = world.path("hr").display().to_string();
    world.skillctl(["build", &dir, "--load=never", "--platform", "linux/amd64,linux/arm64", "-t", "acme/hr:all"]).ok();
    let store = world.path("there").display().to_string();
    for name in &names {
        let name = &name.replace(":1.0.0", ":all");
        world.skillctl(["push", "acme/hr:all", name]).ok();
        let pinned = by_digest(world, name);
        let (out, key) = (key(world, "out"), key(world, "acme") + ".pub");
        let pull = ["--store", &store, "pull", "--verify", "--key", &key, "--load=never", "--force", "-o", &out, name];
        let install = ["--store", &store, "install", "--key", &key, "--force", "-o", &out, name];
        let local = ["--store", &store, "verify", "--local", "--key", &key, name];
        let told = |done: Done| {
            let warnings = done.stderr.lines().filter(|line| line.starts_with("warning: ")).count();
            let said = done.stderr.contains("the index is signed, and not its instance sha256:");
            assert!(done.code == 0 && said == (warnings == 1) && warnings < 2, "{done}");
            said
        };
        let all = || {
            let verified = verify(world, name, "acme");
            let warnings = verified.stderr.lines().count();
            assert_eq!(verified.json()["warnings"].as_array().map(Vec::len), Some(warnings));
            let verbs = [&pull[..], &install, &local].map(|verb| told(skillctl(world, verb)));
            [&verbs[..], &[warnings == 1]].concat()
        };
        cosign_signs(world, "cosign3", (&pinned, "acme"), &[&OFFLINE[..], &[LEGACY]].concat());
        cosign_signs(world, "cosign3", (&pinned, "acme"), &OFFLINE);
        assert_eq!(all(), [true; 4]);
        // We sign both, and what comes along says so without the registry.
        sign(world, name, "acme");
        assert_eq!(all(), [false; 4]);
        cosign_verifies(world, "cosign3", (name, "acme"), &[]).ok();
        fs::remove_dir_all(&store).expect("a store");
    }
}

fn oras_and_skopeo_carry_what_was_signed(world: &World) {
    offline(world);
    let (_hub, name) = registry(world, Kind::Plain);
    let other = Registry::named(world, "other-registry", Kind::Plain);
    let signed = sign(world, &name, "acme");
    let tag = signed["digest"].as_str().expect("a digest").replace(':', "-") + ".sig";
    let cosign3 = Path::new("/usr/local/bin/cosign3").exists();
    let there = other.name("acme/hr:1.0.0");
    let oras = |from: &str, to: &str| {
        world.run("oras", ["cp", "-r", "--from-plain-http", "--to-plain-http", from, to]).ok();
    };
    let skopeo = |from: &str, to: &str| {
        let image = |name: &str| format!("docker://{}:{tag}", name.rsplit_once(':').expect("a tag").0);
        let flags = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"];
        world.skopeo(flags.iter().map(|flag| (*flag).to_owned()).chain([image(from), image(to)])).ok();
    };
    let back = name.replace("/acme/hr", "/back/acme/hr");
    for (from, to) in [(&name, &there), (&there, &back)] {
        oras(from, to);
        // What refers to the image has come along; the tag has not.
        assert_eq!(forms(&verify(world, to, "acme").json()), ["bundle"], "{to}");
        skopeo(from, to);
        let identity = name.rsplit_once(':').expect("a tag").0;
        let key = key(world, "acme") + ".pub";
        let both = skillctl(world, &["verify", to, "--key", &key, "--identity", identity, "--format", "json"]).json();
        assert_eq!(forms(&both), ["simple", "bundle"], "{to}");
        verify(world, to, "other").fails(1);
        if cosign3 {
            for flags in [&[][..], &[LEGACY]] {
                cosign_verifies(world, "cosign3", (to, "acme"), flags).ok();
            }
        }
    }
    needs("cosign3");
}

/// Signs without a key, with a release of cosign where `cosign` is looked for.
fn keyless(world: &World, release: &str, args: &[&str]) -> Done {
    let bin = world.path(&format!("bin-{release}"));
    fs::create_dir_all(&bin).expect("a directory");
    if !bin.join("cosign").exists() {
        symlink(Path::new("/usr/local/bin").join(release), bin.join("cosign")).expect("a link");
    }
    let mut command = world.command(env!("CARGO_BIN_EXE_skillctl"), [&["sign", "--keyless"], args].concat());
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    Done::of(command)
}

/// As far as that can be seen without the network: what cosign is asked, and what it says.
fn without_a_key_cosign_signs(world: &World) {
    needs("cosign3");
    let (hub, _gate, [name, _]) = registries(world);
    let before = hub.tags("acme/hr");
    let token = world.path("token");
    fs::write(&token, "no token").expect("a file");
    let refused = keyless(world, "cosign3", &["--identity-token", &token.display().to_string(), &name]);
    let refused = refused.fails(2);
    // Its own words, then ours.
    let last = refused.lines().last().expect("an error").to_owned();
    assert_eq!(last, format!("error: Signing {name}: cosign sign: exit status: 1"), "{refused}");
    assert!(refused.lines().count() > 1, "{refused}");
    assert_eq!(hub.tags("acme/hr"), before);
    let none = hub.name("acme/none:1");
    keyless(world, "cosign3", &[&none]).refused(&[&none], &["not found"]);
    keyless(world, "cosign3", &["--creds", "ana:secret", &name]).refused(&[&name], &["cosign takes no --creds"]);
}
