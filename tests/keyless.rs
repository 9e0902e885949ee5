//! Identities of certificates, with an authority and a log of our own: what is asked for, and builds that verify none.

#[cfg(feature = "keyless")]
mod proved;

use std::fs;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde_json::Value;
use skillctl::store::attached::{add_bundle, add_simple};
use skillctl::store::layout::Layout;
use skillctl::trust::simple::Signature;

use crate::sigstore::{Signing, Sigstore};
use crate::support::{Ran, World};

const DRAFT: &str = "acme/hr:1.0.0-draft";
const ANA: Signing<'static> = Signing::ANA;
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

/// A world with a skill and the trusted root of `sigstore`, and the skill's descriptor.
fn world(sigstore: &Sigstore) -> (World, Value) {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    world.write("root.json", sigstore.trusted_root().to_string());
    let descriptor = descriptor(&world, DRAFT);
    (world, descriptor)
}

fn descriptor(world: &World, reference: &str) -> Value {
    let index: Value = serde_json::from_slice(&fs::read(world.store().join("index.json")).unwrap()).unwrap();
    let name = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == reference;
    index["manifests"].as_array().unwrap().iter().find(name).unwrap().clone()
}

fn digest(descriptor: &Value) -> &str {
    descriptor["digest"].as_str().unwrap()
}

fn layout(world: &World) -> Layout {
    Layout::open(Dir::open_ambient_dir(world.store(), ambient_authority()).unwrap(), &world.store()).unwrap()
}

fn put(world: &World, descriptor: &Value, bundle: &[u8], kind: &str) {
    let layout = layout(world);
    let _writing = layout.writing().unwrap();
    add_bundle(&layout, descriptor, bundle, kind).unwrap();
}

fn put_simple(world: &World, descriptor: &Value, signature: Signature) {
    let layout = layout(world);
    let _writing = layout.writing().unwrap();
    add_simple(&layout, digest(descriptor), &[signature]).unwrap();
}

fn run(world: &World, args: &[&str], flags: &[&str]) -> Ran {
    world.run([args, flags].concat())
}

#[test]
fn an_identity_is_whole_or_a_mistake() {
    let sigstore = Sigstore::new();
    let (world, _) = world(&sigstore);
    let who = ["--certificate-identity", "ana@example.org"];
    let says = ["--certificate-oidc-issuer", "https://accounts.example"];
    let root = ["--trusted-root", "root.json"];
    let verbs: [&[&str]; 5] = [
        &["verify", DRAFT],
        &["install", DRAFT, "-t", "claude"],
        &["pull", "registry.example/acme/hr:1"],
        &["load", "-i", "set"],
        &["trust", "add", "--user", "acme"],
    ];
    for verb in verbs {
        // Who, who says so, and who is believed: all of it, and no key.
        let key = ["--key", "acme.pub"];
        for flags in
            [&[&who[..], &says][..], &[&who, &root], &[&says, &root], &[&who, &says, &root, &key], &[&root, &key]]
        {
            assert!(run(&world, verb, &flags.concat()).fails(2).stderr.contains("Usage: "), "{verb:?} {flags:?}");
        }
        if cfg!(feature = "keyless") {
            for pattern in [".*", "^.*$", "ana@example.org"] {
                let flags = [&["--certificate-identity-regexp", pattern][..], &says, &root].concat();
                let refused = run(&world, verb, &flags).fails(2).stderr;
                assert!(refused.contains(pattern) && refused.lines().count() == 1, "{verb:?}: {refused}");
            }
            let none = [&who[..], &says, &["--trusted-root", "hr/SKILL.md"]].concat();
            assert!(run(&world, verb, &none).fails(2).stderr.contains("SKILL.md is no trusted root"), "{verb:?}");
        } else {
            let refused = run(&world, verb, &[&who[..], &says, &root].concat()).fails(2).stderr;
            assert!(refused.contains("this build of skillctl verifies keys, and no identities"), "{verb:?}: {refused}");
        }
    }
}

/// A policy may be older than the build, or that of another.
#[test]
#[cfg(not(feature = "keyless"))]
fn without_the_feature_nothing_counts_that_an_identity_has_signed() {
    use crate::policy::uses;

    let sigstore = Sigstore::new();
    let (world, descriptor) = world(&sigstore);
    let keyed = |args: &[&str]| -> Ran { world.command(args).env("COSIGN_PASSWORD", "").output().unwrap().into() };
    keyed(&["key", "generate", "acme"]).ok();
    let scope = format!(
        "[[scope]]\nprefix = \"acme\"\ntrusted-root = \"{}\"\nidentities = [{{ identity = \"ana@example.org\", issuer = \"https://accounts.example\" }}]\n",
        world.path("root.json").display()
    );
    world.write("home/.config/skillctl/trust.toml", &scope);
    put(&world, &descriptor, &sigstore.signed(ANA, digest(&descriptor)), SIGNED);
    put_simple(&world, &descriptor, sigstore.simple(ANA, ("localhost/acme/hr", digest(&descriptor))));
    for args in uses(DRAFT) {
        let refused = run(&world, &args, &[]).fails(1).stderr;
        for word in ["by ana@example.org of https://accounts.example (this build of skillctl", "the feature keyless"] {
            assert!(refused.contains(word), "{args:?}: {refused}");
        }
    }
    // A key of the scope suffices.
    world.write(
        "home/.config/skillctl/trust.toml",
        format!("{scope}keys = [\"{}\"]\n", world.path("acme.pub").display()),
    );
    run(&world, &["verify", DRAFT], &[]).fails(1);
    keyed(&["sign", DRAFT, "--key", "acme.key"]).ok();
    let verified = run(&world, &["verify", DRAFT, "--format", "json"], &[]).ok().json();
    assert_eq!(verified["signers"].as_array().unwrap().len(), 2);
    // It can be seen, and taken out.
    let listed = run(&world, &["trust", "list"], &[]).ok().stdout;
    assert!(listed.contains(",ana@example.org of https://accounts.example "), "{listed}");
    run(&world, &["trust", "remove", "--user", "acme", "--certificate-identity", "ana@example.org"], &[]).ok();
}
