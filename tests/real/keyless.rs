//! What an identity has signed, with an authority and a log of our own: on a registry, by a policy, in a container, and for cosign.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use skillctl::store::attached::{add_bundle, add_simple};
use skillctl::store::layout::Layout;

use crate::cell::{Done, World, matrix, needs};
use crate::hook::{HR, log, with};
use crate::registry::{Kind, Registry};
use crate::sigstore::{Signing, Sigstore};
use crate::trust::{key as file, registry};

matrix! { @roots what_a_policy_wants_of_identities_holds_on_registries }

/// Where hooks are.
mod in_containers {
    use super::a_container_gets_only_what_an_identity_has_signed;
    use crate::cell::matrix;

    matrix! { a_container_gets_only_what_an_identity_has_signed }
}

/// Where cosign is.
mod with_cosign {
    use super::cosign_verifies_the_same;
    use crate::cell::matrix;

    matrix! { @cell sid_root("sid", "root", None), cosign_verifies_the_same }
}

const ANA: Signing<'static> = Signing::ANA;
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// What is put to an image of the store.
enum Form {
    Bundle(&'static str),
    Simple(String),
}

/// Signs an image of the store.
fn put(world: &World, reference: &str, (sigstore, signing): (&Sigstore, Signing<'_>), form: Form) {
    let shown = world.skillctl(["inspect", "--format", "json", reference]).json();
    let digest = shown["digest"].as_str().expect("a digest");
    let bytes = world.blob(digest);
    let manifest: Value = serde_json::from_slice(&bytes).expect("a manifest");
    let dir = Dir::open_ambient_dir(world.store(), ambient_authority()).expect("a store");
    let layout = Layout::open(dir, &world.store()).expect("a store");
    let _writing = layout.writing().expect("a lock");
    match form {
        Form::Bundle(kind) => {
            let subject = json!({"mediaType": manifest["mediaType"], "digest": digest, "size": bytes.len()});
            add_bundle(&layout, &subject, &sigstore.bundle(signing, (kind, digest)), kind).expect("a bundle");
        }
        Form::Simple(name) => {
            add_simple(&layout, digest, &[sigstore.simple(signing, (&name, digest))]).expect("a signature");
        }
    }
}

/// Has the machine want images of `scope` signed by an identity.
fn trust(world: &World, scope: &str, (sigstore, signing): (&Sigstore, Signing<'_>), flags: &[&str]) {
    let root = file(world, "root.json");
    fs::write(&root, sigstore.trusted_root().to_string()).expect("a file");
    let who = ["--certificate-identity", signing.identity, "--certificate-oidc-issuer", signing.issuer];
    world.skillctl([&["trust", "add", scope, "--trusted-root", &root][..], &who, flags].concat()).ok();
}

fn what_a_policy_wants_of_identities_holds_on_registries(world: &World) {
    let sigstore = Sigstore::new();
    let (hub, name) = registry(world, Kind::Plain);
    trust(world, &hub.name("acme"), (&sigstore, ANA), &["--attestation", "provenance"]);
    let (out, store) = (file(world, "out"), file(world, "there"));
    let there = |args: &[&str]| world.skillctl([&["--store", &store], args].concat());
    let refused = |why: &str| {
        for verb in [&["pull", "--load=never", &name][..], &["install", "-o", &out, &name], &["trust", "check", &name]]
        {
            let refused = there(verb).fails(1);
            let by = "by ana@example.org of https://accounts.example";
            assert!(refused.contains(by) && refused.contains(why), "{verb:?}: {refused}");
        }
        assert_eq!(there(&["list", "--format", "json"]).json(), json!([]));
    };
    let push = || drop(world.skillctl(["push", "acme/hr:1.0.0", &name]).ok());
    refused("and it has no signature");
    let other = Sigstore::new();
    put(world, "acme/hr:1.0.0", (&other, ANA), Form::Bundle(SIGNED));
    push();
    refused("by an identity that is not proved: ");
    put(world, "acme/hr:1.0.0", (&sigstore, ANA), Form::Simple(hub.name("acme/legal:1.0.0")));
    push();
    refused("/acme/legal, not ");
    put(world, "acme/hr:1.0.0", (&sigstore, ANA), Form::Bundle(SIGNED));
    put(world, "acme/hr:1.0.0", (&sigstore, ANA), Form::Simple(name.clone()));
    push();
    refused("must be attested by ");
    put(world, "acme/hr:1.0.0", (&sigstore, ANA), Form::Bundle(PROVENANCE));
    push();
    // What flags ask for is asked beside it.
    let root = file(world, "root.json");
    let pull = |identity: &str| {
        let who = ["--certificate-identity", identity, "--certificate-oidc-issuer", ANA.issuer];
        there(&[&["pull", "--load=never", &name, "--trusted-root", &root][..], &who].concat())
    };
    assert!(
        pull("eve@example.org").fails(1).contains("must be signed by eve@example.org of https://accounts.example, and")
    );
    assert_eq!(there(&["list", "--format", "json"]).json(), json!([]));
    pull(ANA.identity).ok();
    // What came along says the same where there is no registry, and nothing else has come.
    let (checked, asked) = hub.asked(|| there(&["trust", "check", "--local", "--format", "json", &name]).json());
    assert!(asked.is_empty(), "{asked:?}");
    assert_eq!(checked["verified"]["signers"].as_array().map(Vec::len), Some(2), "{checked}");
    let installed = there(&["install", "-o", &out, &name]).ok();
    assert!(installed.ends_with("Verified: signed by ana@example.org of https://accounts.example"), "{installed}");
    let said = there(&["trust", "show"]);
    let note = format!(
        "podman does not hold to this: {}: the identity ana@example.org of https://accounts.example",
        hub.name("acme")
    );
    assert!(said.stderr.contains(&note), "{said}");
}

fn a_container_gets_only_what_an_identity_has_signed(world: &World) {
    let sigstore = Sigstore::new();
    world.build("hr", "1.0.0", &["--load=never"]);
    world.skillctl(["hook", "enable"]).ok();
    trust(world, "acme/hr", (&sigstore, ANA), &[]);
    let run = || world.in_agent(&["--annotation", &with(HR)], "/skills/hr/scripts/greet.sh");
    let last = || log(world).lines().last().unwrap_or_default().to_owned();
    assert_eq!(run().code, 126);
    assert!(last().contains("must be signed by ana@example.org"), "{}", last());
    put(world, HR, (&sigstore, Signing::RELEASE), Form::Bundle(SIGNED));
    assert_eq!(run().code, 126);
    assert!(last().contains("its signature is by https://github.com/acme/hr/"), "{}", last());
    put(world, HR, (&sigstore, ANA), Form::Bundle(SIGNED));
    run().ok();
}

/// Leaves this thread, and what it starts, with loopback alone.
fn offline(world: &World) {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    world.run("busybox", ["ifconfig", "lo", "127.0.0.1", "up"]).ok();
    let outside = SocketAddr::from(([192, 0, 2, 1], 443));
    assert!(TcpStream::connect_timeout(&outside, Duration::from_secs(1)).is_err());
}

fn cosign_verifies_the_same(world: &World) {
    needs("cosign3");
    offline(world);
    let sigstore = Sigstore::new();
    let (_hub, name): (Registry, String) = registry(world, Kind::Plain);
    let root = file(world, "root.json");
    fs::write(&root, sigstore.trusted_root().to_string()).expect("a file");
    let ours = |identity: &str| -> Done {
        let who = ["--certificate-identity", identity, "--certificate-oidc-issuer", ANA.issuer];
        world.skillctl([&["verify", &name, "--trusted-root", &root][..], &who].concat())
    };
    let theirs = |identity: &str, flags: &[&str]| -> Done {
        let who =
            ["--certificate-identity", identity, "--certificate-oidc-issuer", ANA.issuer, "--insecure-ignore-sct"];
        world.run("cosign3", [&["verify", "--trusted-root", &root, &name][..], &who, flags].concat())
    };
    let legacy = "--new-bundle-format=false";
    for (form, flags) in [(Form::Bundle(SIGNED), &[][..]), (Form::Simple(name.clone()), &[legacy])] {
        assert_ne!(theirs(ANA.identity, flags).code, 0);
        put(world, "acme/hr:1.0.0", (&sigstore, ANA), form);
        world.skillctl(["push", "acme/hr:1.0.0", &name]).ok();
        let said = theirs(ANA.identity, flags).ok();
        assert!(said.contains("\"docker-manifest-digest\":\"sha256:"), "{said}");
        ours(ANA.identity).ok();
        assert_ne!(theirs("eve@example.org", flags).code, 0);
        ours("eve@example.org").fails(1);
    }
    // What was signed after the certificate had ended is refused by both.
    let late = Signing { identity: "late@example.org", logged: Some(86_400), ..ANA };
    for form in [Form::Simple(name.clone()), Form::Bundle(SIGNED)] {
        put(world, "acme/hr:1.0.0", (&sigstore, late), form);
    }
    world.skillctl(["push", "acme/hr:1.0.0", &name]).ok();
    for flags in [&[legacy][..], &[]] {
        assert_ne!(theirs(late.identity, flags).code, 0);
    }
    ours(late.identity).fails(1);
}
