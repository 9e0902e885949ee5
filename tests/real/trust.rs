//! Signatures that the tools of others verify, and theirs that we do, on a real registry.

use std::fs;

use serde_json::json;

use crate::cell::{World, cannot, matrix};
use crate::registry::conf::{self, Place};
use crate::registry::{Kind, Registry, digest_of};

matrix! { @roots a_registry_keeps_what_was_signed, only_what_is_signed_is_pulled }

/// Debian 12's skopeo neither signs nor verifies.
mod with_sigstore {
    use super::{skopeo_and_podman_verify_it, what_skopeo_signed_is_verified};
    use crate::cell::matrix;

    matrix! { @cell trixie_root("trixie", "root", None), skopeo_and_podman_verify_it, what_skopeo_signed_is_verified }
    matrix! { @cell sid_root("sid", "root", None), skopeo_and_podman_verify_it, what_skopeo_signed_is_verified }
}

/// A registry with a published skill, and the keys `acme` and `other`. Returns its name there.
pub fn registry(world: &World, kind: Kind) -> (Registry, String) {
    let hub = Registry::start(world, kind);
    if kind == Kind::Tls {
        conf::trust(world, &hub, Place::Etc);
    }
    world.build("hr", "1.0.0", &["--load=never"]);
    for (from, to) in [("acme/hr:1.0.0-draft", "testing"), ("acme/hr:1.0.0-testing", "published")] {
        world.skillctl(["promote", from, "--to", to, "--local", "--load=never"]).ok();
    }
    let name = hub.name("acme/hr:1.0.0");
    world.skillctl(["push", "acme/hr:1.0.0", &name]).ok();
    for name in ["acme", "other"] {
        skillctl(world, &["key", "generate", &key(world, name)]).ok();
    }
    (hub, name)
}

/// Returns the path of a key, without its end.
pub fn key(world: &World, name: &str) -> String {
    world.path(name).display().to_string()
}

/// Runs skillctl with the passphrase of the keys.
pub fn skillctl(world: &World, args: &[&str]) -> crate::cell::Done {
    let mut command = world.command(env!("CARGO_BIN_EXE_skillctl"), args);
    command.env("COSIGN_PASSWORD", "secret");
    crate::cell::Done::of(command)
}

pub fn sign(world: &World, name: &str, by: &str) -> serde_json::Value {
    skillctl(world, &["sign", name, "--key", &(key(world, by) + ".key"), "--format", "json"]).json()
}

pub fn verify(world: &World, name: &str, by: &str) -> crate::cell::Done {
    skillctl(world, &["verify", name, "--key", &(key(world, by) + ".pub"), "--format", "json"])
}

fn a_registry_keeps_what_was_signed(world: &World) {
    let (hub, name) = registry(world, Kind::Plain);
    assert!(verify(world, &name, "acme").fails(1).contains("it has no signature"));
    let signed = sign(world, &name, "acme");
    assert_eq!(signed["added"], json!(["simple", "bundle"]));
    let digest = signed["digest"].as_str().expect("a digest");
    // What podman looks for, and what refers to it, by the index that this registry has instead of its own word.
    assert_eq!(signed["identity"].as_str(), Some(&*name));
    let tag = digest.replace(':', "-");
    let layers = hub.manifest("acme/hr", &format!("{tag}.sig"))["layers"].clone();
    assert_eq!(layers[0]["mediaType"], "application/vnd.dev.cosign.simplesigning.v1+json");
    let index = hub.manifest("acme/hr", &tag);
    assert_eq!(index["manifests"][0]["artifactType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    assert_eq!(verify(world, &name, "acme").json()["signers"].as_array().map(Vec::len), Some(2));
    verify(world, &name, "other").fails(1);
    // What others have put there stays as it is: a certificate, and layers of kinds that we know nothing of.
    let mut image = hub.manifest("acme/hr", &format!("{tag}.sig"));
    let (known, strange) = (br#"{"critical":{}}"#, b"strange");
    for blob in [&known[..], strange] {
        hub.upload("acme/hr", blob);
    }
    let foreign = [
        json!({"mediaType": layers[0]["mediaType"], "digest": digest_of(known), "size": known.len(), "annotations": {
            "dev.cosignproject.cosign/signature": "AAAA", "dev.sigstore.cosign/certificate": "a certificate",
        }}),
        json!({"mediaType": "application/octet-stream", "digest": digest_of(strange), "size": strange.len()}),
    ];
    image["layers"].as_array_mut().expect("layers").extend(foreign.clone());
    hub.put("acme/hr", &format!("{tag}.sig"), image.to_string().as_bytes());
    // Another signer adds to it, also from a store that knows of nothing.
    let store = world.path("elsewhere").display().to_string();
    skillctl(world, &["--store", &store, "sign", &name, "--key", &(key(world, "other") + ".key")]).ok();
    for by in ["acme", "other"] {
        assert_eq!(verify(world, &name, by).json()["signers"].as_array().map(Vec::len), Some(2), "{by}");
    }
    assert_eq!(sign(world, &name, "acme")["added"], json!([]));
    let all = hub.manifest("acme/hr", &format!("{tag}.sig"))["layers"].as_array().expect("layers").clone();
    assert_eq!((all.len(), &all[1..3]), (4, &foreign[..]));
    // Another image under the same tag has other signatures, which is none.
    world.build("legal", "1.0.0", &["--load=never"]);
    world.skillctl(["push", "acme/legal:1.0.0-draft", &name, "--force"]).ok();
    assert!(verify(world, &name, "acme").fails(1).contains("it has no signature"));
}

fn only_what_is_signed_is_pulled(world: &World) {
    let (hub, name) = registry(world, Kind::Plain);
    let (store, out) = (world.path("there").display().to_string(), world.path("out").display().to_string());
    let there = |args: &[&str]| skillctl(world, &[&["--store", &store], args].concat());
    let key = key(world, "acme") + ".pub";
    let pull = ["pull", "--verify", "--key", &key, "--load=never", "-o", &out, &name];
    let install = ["install", "--key", &key, "-o", &out, &name];
    let nothing = |refused: crate::cell::Done, why: &str| {
        let error = refused.fails(1);
        assert!(error.contains("is not verified") && error.contains(why), "{error}");
        assert_eq!(there(&["list", "--format", "json"]).json(), json!([]));
        assert!(!world.path("out").join("hr").exists());
    };
    for verb in [&pull[..], &install] {
        nothing(there(verb), "it has no signature");
    }
    sign(world, &name, "other");
    nothing(there(&pull), "not by the key");
    let digest = sign(world, &name, "acme")["digest"].clone();
    // What refers to it may say anything: nothing of that gets into the store.
    let tag = digest.as_str().expect("a digest").replace(':', "-");
    let mut index = hub.manifest("acme/hr", &tag);
    let own = index["manifests"][1]["digest"].as_str().expect("a digest").to_owned();
    let bytes = hub.manifest_bytes("acme/hr", &own).expect("a manifest");
    let mut hostile: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    hostile["annotations"]["io.skillimage.was"] = "acme/other".into();
    hub.put("acme/hr", "hostile", hostile.to_string().as_bytes());
    hostile["subject"]["digest"] = digest_of(b"something else").into();
    hub.put("acme/hr", "elsewhere", hostile.to_string().as_bytes());
    for tag in ["hostile", "elsewhere"] {
        let entry = json!({"mediaType": hostile["mediaType"], "digest": hub.tag("acme/hr", tag), "size": bytes.len()});
        index["manifests"].as_array_mut().expect("a list").push(entry);
    }
    hub.put("acme/hr", &tag, index.to_string().as_bytes());
    there(&pull).ok();
    let kept = fs::read_to_string(world.path("there/index.json")).expect("an index");
    assert!(
        !kept.contains("acme/other") && !kept.contains(&hub.tag("acme/hr", "elsewhere").expect("a digest")),
        "{kept}"
    );
    assert!(world.path("out").join("hr/SKILL.md").exists());
    // What came with it verifies it where there is no registry.
    let verified = there(&["verify", "--local", "--key", &key, "--format", "json", &name]).json();
    assert_eq!(verified["digest"], digest);
    assert_eq!(verified["signers"].as_array().map(Vec::len), Some(3));
    let (_, asked) = hub.asked(|| there(&[&install[..], &["--pull=never", "--force"]].concat()).ok());
    assert!(asked.is_empty(), "{asked:?}");
    there(&["prune", "--grace", "0"]).ok();
    there(&["verify", "--local", "--key", &key, &name]).ok();
    // A tag that has moved to something else: what is here stays under its name.
    world.skill("hr", "1.0.0");
    fs::write(world.path("hr/SKILL.md"), "---\nname: hr\ndescription: Other.\n---\n\nOther.\n").expect("a file");
    let dir = world.path("hr").display().to_string();
    world.skillctl(["build", "--load=never", "-t", "acme/other:1.0.0", &dir]).ok();
    world.skillctl(["push", "acme/other:1.0.0", &name, "--force"]).ok();
    let refused = there(&pull).fails(1);
    assert!(refused.contains("it has no signature"), "{refused}");
    assert_eq!(there(&["inspect", "--format", "json", &name]).json()["digest"], digest);
}

/// Writes the policy of the machine: images of this registry have to be signed by `acme`.
fn policy(world: &World, hub: &Registry) {
    let address = &hub.address;
    let required = json!([{
        "type": "sigstoreSigned", "keyPath": key(world, "acme") + ".pub", "signedIdentity": {"type": "matchRepoDigestOrExact"},
    }]);
    conf::policy(
        world,
        &json!({"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {address.as_str(): required}}}),
    );
    fs::create_dir_all("/etc/containers/registries.d").expect("a directory");
    let text = format!("docker:\n  {address}:\n    use-sigstore-attachments: true\n");
    fs::write("/etc/containers/registries.d/50-test.yaml", text).expect("a file");
}

fn skopeo_and_podman_verify_it(world: &World) {
    let (hub, name) = registry(world, Kind::Tls);
    policy(world, &hub);
    let copy = |to: &str| world.skopeo(["copy", &format!("docker://{name}"), &format!("dir:{}", key(world, to))]);
    assert!(copy("unsigned").fails(1).contains("no signature exists"));
    sign(world, &name, "other");
    assert_ne!(copy("other").code, 0);
    sign(world, &name, "acme");
    copy("signed").ok();
    world.podman(["pull", "-q", &name]).ok();
    assert_eq!(world.podman(["image", "exists", &name]).code, 0);
}

fn what_skopeo_signed_is_verified(world: &World) {
    let (hub, name) = registry(world, Kind::Tls);
    fs::create_dir_all("/etc/containers/registries.d").expect("a directory");
    let text = format!("docker:\n  {}:\n    use-sigstore-attachments: true\n", hub.address);
    fs::write("/etc/containers/registries.d/50-test.yaml", text).expect("a file");
    let passphrase = world.path("passphrase");
    fs::write(&passphrase, "secret").expect("a file");
    let mut flags = vec!["copy".to_owned(), "--sign-by-sigstore-private-key".into(), key(world, "acme") + ".key"];
    flags.extend(["--sign-passphrase-file".into(), passphrase.display().to_string()]);
    flags.extend([format!("docker://{name}"), format!("docker://{name}")]);
    let done = world.skopeo(&flags);
    if done.stderr.contains("sigstore disabled") {
        cannot("this skopeo does not sign");
    }
    done.ok();
    let verified = verify(world, &name, "acme").json();
    assert_eq!(verified["signers"][0]["form"], "simple");
    assert_eq!(verified["signers"][0]["reference"].as_str(), Some(&*name));
    // A key that skopeo made signs, too.
    let made = world.path("theirs").display().to_string();
    let generate = ["generate-sigstore-key", "--output-prefix", &made, "--passphrase-file"];
    world.skopeo(generate.iter().map(|word| (*word).to_owned()).chain([passphrase.display().to_string()])).ok();
    fs::rename(world.path("theirs.private"), world.path("theirs.key")).expect("a key");
    sign(world, &name, "theirs");
    verify(world, &name, "theirs").ok();
    verify(world, &name, "acme").ok();
}
