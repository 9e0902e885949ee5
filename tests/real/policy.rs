//! `trust.toml`, held to by containers, registries, promotions, and by podman when it was told.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::cell::{World, matrix};
use crate::hook::{HR, log, with};
use crate::registry::gate::{Fault, Gate};
use crate::registry::{Kind, conf, digest_of};
use crate::trust::{key as file, registry, skillctl};

matrix! { a_container_gets_only_what_is_signed }

/// Registries do not care who asks.
mod registries {
    use super::{
        a_policy_holds_on_registries, a_promotion_signs_on_a_registry, a_tag_that_moves_is_what_was_verified,
        what_is_taken_in_pins_its_repository,
    };
    use crate::cell::matrix;

    matrix! {
        @roots
        a_policy_holds_on_registries,
        a_promotion_signs_on_a_registry,
        a_tag_that_moves_is_what_was_verified,
        what_is_taken_in_pins_its_repository
    }
}

/// Debian 12's podman verifies nothing.
mod with_sigstore {
    use super::{podman_holds_to_what_it_was_told, what_podman_cannot_hold_to_is_not_written};
    use crate::cell::matrix;

    matrix! { @cell host_root("host", "root", None), what_podman_cannot_hold_to_is_not_written }
    matrix! { @cell trixie_root("trixie", "root", None), podman_holds_to_what_it_was_told }
    matrix! { @cell sid_root("sid", "root", None), podman_holds_to_what_it_was_told }
}

/// Has the machine want images of `scope` signed by the first of two keys, which are made where they are not there yet.
fn trust(world: &World, scope: &str) {
    for name in ["acme", "other"].into_iter().filter(|name| !world.path(&format!("{name}.key")).exists()) {
        skillctl(world, &["key", "generate", &file(world, name)]).ok();
    }
    skillctl(world, &["trust", "add", scope, "--key", &file(world, "acme.pub")]).ok();
    assert!(fs::read_to_string(policy_file(world)).expect("a policy").contains(scope));
}

/// The machine's for root, and for others their own.
fn policy_file(world: &World) -> PathBuf {
    match world.is_root() {
        true => PathBuf::from("/etc/skillctl/trust.toml"),
        false => world.home().join(".config/skillctl/trust.toml"),
    }
}

fn a_container_gets_only_what_is_signed(world: &World) {
    let digest = world.build("hr", "1.0.0", &["--load=never"]).digest;
    world.build("legal", "1.0.0", &["--load=never"]);
    world.skillctl(["hook", "enable"]).ok();
    trust(world, "acme/hr");
    let run = || world.in_agent(&["--annotation", &with(HR)], "/skills/hr/scripts/greet.sh");
    let refused = run();
    assert_eq!(refused.code, 126, "{refused}");
    let last = || log(world).lines().last().unwrap_or_default().to_owned();
    assert!(last().contains("is not verified") && last().contains("skillctl/trust.toml, acme/hr"), "{}", last());
    // By its digest it is the same.
    assert_eq!(world.in_agent(&["--annotation", &with(&digest)], "true").code, 126);
    assert!(last().contains("is not verified") && last().contains("skillctl/trust.toml, acme/hr"), "{}", last());
    // What no scope covers, and who asks for nothing, goes on as ever.
    world.in_agent(&["--annotation", &with("acme/legal:1.0.0-draft")], "/skills/legal/scripts/greet.sh").ok();
    world.in_agent(&[], "true").ok();
    skillctl(world, &["sign", HR, "--key", &file(world, "other.key")]).ok();
    assert_eq!(run().code, 126);
    assert!(last().contains("not by the key"), "{}", last());
    skillctl(world, &["sign", HR, "--key", &file(world, "acme.key")]).ok();
    run().ok();
    // What only containers-storage has was verified by nobody.
    skillctl(world, &["load", HR]).ok();
    let mounted = world.skillctl(["generate", "podman", HR]).ok();
    assert!(mounted.contains("type=image"), "{mounted}");
    world.skillctl(["rm", "-f", "--keep-loaded", HR]).ok();
    assert_eq!(run().code, 126);
    assert!(last().contains("only containers-storage has it"), "{}", last());
    assert!(world.skillctl(["generate", "podman", HR]).fails(1).contains("only containers-storage has it"));
}

fn a_policy_holds_on_registries(world: &World) {
    let (hub, name) = registry(world, Kind::Plain);
    trust(world, &hub.name("acme"));
    let (out, store) = (file(world, "out"), file(world, "there"));
    let there = |args: &[&str]| skillctl(world, &[&["--store", &store], args].concat());
    let verbs: [&[&str]; 7] = [
        &["verify", &name],
        &["trust", "check", &name],
        &["pull", "--load=never", &name],
        &["install", "-o", &out, &name],
        &["generate", "kube", &name],
        &["generate", "imageset", &name],
        &["convert", "--load=never", &name, "other/hr:1.0.0"],
    ];
    for verb in verbs {
        let refused = there(verb).fails(1);
        assert!(refused.contains("is not verified") && refused.contains("/etc/skillctl/trust.toml"), "{refused}");
        assert_eq!(there(&["list", "--format", "json"]).json(), json!([]), "{verb:?}");
    }
    assert!(!world.path("out").join("hr").exists());
    skillctl(world, &["sign", &name, "--key", &file(world, "acme.key")]).ok();
    for verb in verbs {
        there(verb).ok();
    }
    // Its signatures came with it: without the registry it is verified as well.
    let (_, asked) = hub.asked(|| there(&["install", "--pull=never", "--force", "-o", &out, &name]).ok());
    assert!(asked.is_empty(), "{asked:?}");
    // What was there before the policy, and came without, gets them.
    let store = file(world, "before");
    let before = |args: &[&str]| skillctl(world, &[&["--store", &store], args].concat());
    let policy = fs::read("/etc/skillctl/trust.toml").expect("a policy");
    fs::remove_file("/etc/skillctl/trust.toml").expect("removed");
    before(&["pull", "--load=never", &name]).ok();
    fs::write("/etc/skillctl/trust.toml", policy).expect("a policy");
    before(&["install", "--pull=never", "-o", &file(world, "second"), &name]).fails(1);
    before(&["install", "--pull=missing", "-o", &file(world, "second"), &name]).ok();
    // One key of a scope has signed, and another one attested: what is asked for here is asked of the store, too.
    let more = ["--key", &file(world, "other.pub"), "--attestation", "spdx"];
    skillctl(world, &[&["trust", "add", &hub.name("acme")][..], &more].concat()).ok();
    skillctl(world, &["attest", &name, "--sbom", "spdx", "--key", &file(world, "other.key")]).ok();
    let store = file(world, "third");
    for verb in [&["pull", "--load=never", &name][..], &["trust", "check", "--local", &name]] {
        skillctl(world, &[&["--store", &store], verb].concat()).ok();
    }
}

/// What is only looked at binds nobody.
fn what_is_taken_in_pins_its_repository(world: &World) {
    let (hub, name) = registry(world, Kind::Plain);
    trust(world, &hub.name("acme"));
    skillctl(world, &["trust", "add", &hub.name("acme"), "--key", &file(world, "other.pub"), "--pin"]).ok();
    skillctl(world, &["sign", &name, "--key", &file(world, "other.key")]).ok();
    let (out, store) = (file(world, "out"), world.path("there"));
    let there = |args: &[&str]| skillctl(world, &[&["--store", &file(world, "there")], args].concat());
    let pins = || fs::read(store.join(".signers.json")).map(|text| serde_json::from_slice(&text).expect("JSON"));
    there(&["install", "--dry-run", "-o", &out, &name]).ok();
    there(&["verify", &name]).ok();
    assert!(pins().is_err());
    there(&["install", "-o", &out, &name]).ok();
    let pinned: serde_json::Value = pins().expect("a pin");
    assert_eq!(pinned.as_object().map(|all| all.keys().cloned().collect()), Some(vec![hub.name("acme/hr")]));
    world.build("hr", "1.1.0", &["--load=never"]);
    let next = hub.name("acme/hr:1.1.0-draft");
    world.skillctl(["push", "acme/hr:1.1.0-draft", &next]).ok();
    skillctl(world, &["sign", &next, "--key", &file(world, "acme.key")]).ok();
    for verb in [&["pull", "--load=never", &next][..], &["install", "-o", &out, &next], &["verify", &next]] {
        let refused = there(verb).fails(1);
        assert!(refused.contains("which") && refused.contains("is pinned to"), "{refused}");
    }
    assert_eq!(pins().expect("a pin"), pinned);
}

/// A registry that answers once or twice with the one manifest, and then with the other.
fn a_tag_that_moves_is_what_was_verified(world: &World) {
    let (hub, name) = registry(world, Kind::Plain);
    trust(world, &hub.name("acme"));
    skillctl(world, &["sign", &name, "--key", &file(world, "acme.key")]).ok();
    let digest = hub.tag("acme/hr", "1.0.0").expect("a tag");
    let signed = hub.manifest_bytes("acme/hr", &digest).expect("a manifest");
    let mut other: serde_json::Value = serde_json::from_slice(&signed).expect("JSON");
    other["annotations"]["moved"] = json!("yes");
    let other = serde_json::to_vec(&other).expect("JSON");
    let gate = Gate::before(&hub);
    trust(world, &gate.name("acme"));
    skillctl(world, &["trust", "add", &gate.name("acme"), "--signed-as", &hub.name("acme")]).ok();
    let (there, out, store) = (gate.name("acme/hr:1.0.0"), file(world, "out"), world.path("there"));
    let verbs: [&[&str]; 3] = [
        &["pull", "--load=never", &there],
        &["install", "-o", &out, &there],
        &["convert", "--load=never", &there, "other/hr:1.0.0"],
    ];
    for verb in verbs {
        let mut codes = Vec::new();
        for (now, then, times) in
            [(&signed, &other, 1), (&other, &signed, 1), (&signed, &other, 2), (&other, &signed, 2)]
        {
            let _ = (fs::remove_dir_all(&store), fs::remove_dir_all(&out));
            hub.put("acme/hr", "1.0.0", then);
            gate.reset();
            gate.on("GET", "/manifests/1.0.0", times, Fault::Instead(now.clone()));
            let done = skillctl(world, &[&["--store", &file(world, "there")], verb].concat());
            let index = fs::read_to_string(store.join("index.json")).unwrap_or_default();
            assert!(!index.contains(&digest_of(&other)), "{done}{index}");
            codes.push(done.code);
            match done.code {
                0 => assert!(index.contains(&digest), "{done}{index}"),
                _ => assert!(!world.path("out/hr").exists() && done.fails(1).contains("is not verified")),
            }
        }
        assert!(codes.contains(&0) && codes.contains(&1), "{verb:?}: {codes:?}");
    }
}

fn a_promotion_signs_on_a_registry(world: &World) {
    let (hub, name) = registry(world, Kind::Plain);
    trust(world, &hub.name("acme"));
    let promote = |flags: &[&str]| skillctl(world, &[&["promote", &name, "--to", "deprecated"], flags].concat());
    let before = hub.tag("acme/hr", "1.0.0");
    let refused = promote(&[]).fails(1);
    assert!(refused.contains("without --sign it would have no signature"), "{refused}");
    let key = file(world, "acme.key");
    // What is published and was not signed is none of this key's.
    assert!(promote(&["--sign", "--key", &key]).fails(1).contains("it has no signature"));
    assert_eq!(hub.tag("acme/hr", "1.0.0"), before);
    skillctl(world, &["sign", &name, "--key", &key]).ok();
    promote(&["--sign", "--key", &key]).ok();
    assert_ne!(hub.tag("acme/hr", "1.0.0"), before);
    let verified = skillctl(world, &["verify", &name, "--format", "json"]).json();
    assert_eq!(verified["signers"].as_array().map(Vec::len), Some(2));
    assert_eq!(verified["signers"][0]["reference"].as_str(), Some(&*name));
}

/// It would refuse everything that is signed, and only say so then.
fn what_podman_cannot_hold_to_is_not_written(world: &World) {
    trust(world, "registry.example/acme");
    let before = json!({"default": [{"type": "insecureAcceptAnything"}]});
    conf::policy(world, &before);
    let policy = world.home().join(".config/containers/policy.json");
    let refused = world.skillctl(["trust", "install", "--policy", &policy.display().to_string()]).fails(2);
    assert!(refused.contains("skopeo here does not hold to sigstore signatures"), "{refused}");
    assert!(!fs::exists("/etc/containers/registries.d/50-skillctl.yaml").expect("a directory"));
    let there: serde_json::Value = serde_json::from_slice(&fs::read(&policy).expect("a policy")).expect("JSON");
    assert_eq!(there, before);
}

fn podman_holds_to_what_it_was_told(world: &World) {
    let (hub, name) = registry(world, Kind::Tls);
    trust(world, &hub.name("acme"));
    let shown = world.skillctl(["trust", "show", "--format", "json"]).json();
    assert_eq!(shown["policy"]["transports"]["docker"].as_object().map(|all| all.len()), Some(1), "{shown}");
    conf::policy(world, &json!({"default": [{"type": "insecureAcceptAnything"}]}));
    // One of the user's would hide the machine's, and is not chosen for anybody.
    assert!(world.skillctl(["trust", "install"]).fails(2).contains("in place of /etc/containers/policy.json"));
    let policy = world.home().join(".config/containers/policy.json");
    let install = || world.skillctl(["trust", "install", "--policy", &policy.display().to_string()]);
    install().ok();
    let written = fs::read_to_string(&policy).expect("a policy");
    install().ok();
    assert_eq!(fs::read_to_string(&policy).expect("a policy"), written);
    let refused = world.podman(["pull", "-q", &name]).fails(125);
    assert!(refused.contains("no signature exists"), "{refused}");
    skillctl(world, &["sign", &name, "--key", &file(world, "other.key")]).ok();
    world.podman(["pull", "-q", &name]).fails(125);
    skillctl(world, &["sign", &name, "--key", &file(world, "acme.key")]).ok();
    world.podman(["pull", "-q", &name]).ok();
    // What was shown is a whole policy, which says the same.
    fs::write(&policy, shown["policy"].to_string()).expect("a policy");
    let unsigned = hub.name("acme/unsigned:1");
    world.skillctl(["push", "acme/hr:1.0.0", &unsigned]).ok();
    world.podman(["rmi", &name]).ok();
    world.podman(["pull", "-q", &unsigned]).fails(125);
    world.podman(["pull", "-q", &name]).ok();
    fs::write(&policy, written).expect("a policy");
    // What the policy asks for no more, podman forgets.
    let there = || fs::read_to_string(&policy).expect("a policy").contains(&hub.name("acme"));
    let removed = world.skillctl(["trust", "remove", &hub.name("acme")]);
    assert!(removed.to_string().contains("podman holds to what") && there(), "{removed}");
    install().ok();
    assert!(!there() && !fs::exists("/etc/containers/registries.d/50-skillctl.yaml").expect("a directory"));
    world.podman(["rmi", &name]).ok();
    world.podman(["pull", "-q", &unsigned]).ok();
    trust(world, &hub.name("acme"));
    install().ok();
    // A name in two files would stop every pull.
    fs::write(
        "/etc/containers/registries.d/60-own.yaml",
        format!("docker:\n  {}:\n    lookaside: file:///nonexistent\n", hub.name("acme")),
    )
    .expect("a file");
    fs::remove_file("/etc/containers/registries.d/50-skillctl.yaml").expect("removed");
    let refused = install().fails(2);
    assert!(refused.contains("60-own.yaml") && refused.contains("use-sigstore-attachments: true"), "{refused}");
    // What is stricter than ours stays so.
    fs::remove_file("/etc/containers/registries.d/60-own.yaml").expect("removed");
    conf::policy(world, &json!({"default": [{"type": "reject"}]}));
    assert!(install().fails(2).contains("--inherit"));
}
