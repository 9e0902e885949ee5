//! The main road, from a directory to a container by way of a registry, and how a registry is reached and trusted.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::cell::{World, matrix};
use crate::registry::conf::{self, Place};
use crate::registry::gate::Gate;
use crate::registry::{Kind, PASSWORD, Registry, USER, nobody};
use crate::site::{Site, blobs, said};

matrix! { @roots
    the_main_road,
    plain_http_is_spoken_on_loopback_alone,
    certificates_are_checked,
    names_as_long_as_they_get,
    a_mirror_serves_what_its_place_does_not,
    registries_conf_blocks_and_aliases,
    a_reject_policy_refuses_a_pull,
    a_token_is_fetched_for_each_scope,
    imagesets_name_tag_and_digest,
}
matrix! { @cell host_rootless("host", "rootless", None), the_main_road }
matrix! { @cell sid_rootless("sid", "rootless", None), the_main_road }

fn the_main_road(world: &World) {
    let hub = Registry::start(world, Kind::TlsHtpasswd);
    conf::trust(world, &hub, if world.is_root() { Place::Etc } else { Place::Home });
    conf::auth_json(world, &[(&hub.address, USER, PASSWORD)]);
    let here = Site::here(world);

    world.build("hr", "1.0.0", &["--load=never"]);
    let promoted = world.skillctl(["promote", "acme/hr:1.0.0-draft", "--to", "testing", "--local"]).ok();
    assert_eq!(promoted.lines().next(), Some("Promoted acme/hr:1.0.0-draft to testing"));
    assert_eq!(said(&promoted, "Reference: "), "acme/hr:1.0.0-testing");
    let testing = world.stored("acme/hr:1.0.0-testing", said(&promoted, "Digest: "));

    let (from, to) = (hub.name("acme/hr:1.0.0-testing"), hub.name("acme/hr:1.0.0"));
    let pushed = world.skillctl(["push", "acme/hr:1.0.0-testing", &from]).ok();
    assert_eq!(
        pushed.lines().collect::<Vec<_>>(),
        [&*format!("Pushed {from}"), &*format!("Digest: {}", testing.digest)]
    );
    assert_eq!(hub.tag("acme/hr", "1.0.0-testing").as_ref(), Some(&testing.digest));
    assert_eq!(hub.manifest("acme/hr", "1.0.0-testing"), testing.manifest);
    assert_eq!(here.digest(&from).as_ref(), Some(&testing.digest), "DESTINATION is a name in the store too");

    let (promoted, asked) = hub.asked(|| world.skillctl(["promote", &from, "--to", "published"]).ok());
    assert_eq!(promoted.lines().next(), Some(&*format!("Promoted {from} to published")));
    assert_eq!(said(&promoted, "Reference: "), to);
    let digest = said(&promoted, "Digest: ");
    assert!(!asked.iter().any(|request| request.sends_blob()), "{asked:?}");
    assert_eq!(hub.tag("acme/hr", "1.0.0").as_deref(), Some(digest));
    assert_eq!(hub.tag("acme/hr", "latest").as_deref(), Some(digest));
    let published = hub.manifest("acme/hr", "1.0.0");
    assert_eq!(blobs(&published), blobs(&testing.manifest));
    assert_eq!(published["annotations"]["io.skillimage.status"], "published");

    let (inspected, asked) = hub.asked(|| here.inspect(&to));
    assert_eq!((&inspected["digest"], &inspected["status"]), (&json!(digest), &json!("published")));
    let manifests: Vec<_> = asked.iter().filter(|r| r.path.contains("/manifests/") && r.status == 200).collect();
    assert!(manifests.len() == 1 && manifests[0].method == "GET", "{asked:?}");
    assert!(!asked.iter().any(|request| request.path.contains("/blobs/")), "{asked:?}");

    let there = Site::other(world, "there");
    let out = world.path("skills");
    let pulled = there.load(&["pull", &to, "-o", out.to_str().expect("UTF-8")]);
    assert_eq!(said(&pulled, "Pulled "), to);
    assert_eq!(said(&pulled, "Digest: "), digest);
    assert_eq!(said(&pulled, "Unpacked to "), out.to_str().expect("UTF-8"));
    assert_eq!(there.digest(&to).as_deref(), Some(digest));
    there.whole();
    for (file, mode) in [("SKILL.md", 0o644), ("skill.yaml", 0o644), ("scripts/greet.sh", 0o755)] {
        let (unpacked, source) = (out.join("hr").join(file), world.path("hr").join(file));
        assert_eq!(fs::read(&unpacked).expect(file), fs::read(source).expect(file), "{file}");
        assert_eq!(fs::metadata(unpacked).expect(file).permissions().mode() & 0o777, mode, "{file}");
    }
    let image = there.podman(["image", "inspect", &to]).json()[0].take();
    assert_eq!((&image["Id"], &image["Digest"]), (&json!(testing.id), &json!(digest)));

    // In the user's own storage, beside the agent.
    here.load(&["pull", &to]);
    let mount = format!("type=image,source={to},destination=/skills/hr");
    let seen = world.in_agent(&["--mount", &mount], "/skills/hr/scripts/greet.sh");
    assert_eq!(seen.ok(), "hr 1.0.0 was here");
}

/// A registry without TLS is reached without a flag where nobody can listen in, by each of its names.
fn plain_http_is_spoken_on_loopback_alone(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let port = hub.address.rsplit(':').next().expect("a port");
    for host in [hub.address.clone(), format!("localhost:{port}")] {
        let name = format!("{host}/ns/hr:1.0.0-draft");
        // Neither the port nor the tag is taken for the other.
        assert_eq!(said(&world.skillctl(["push", "acme/hr:1.0.0-draft", &name]).ok(), "Pushed "), name);
        assert_eq!(hub.tag("ns/hr", "1.0.0-draft").as_ref(), Some(&built.digest));
        let there = Site::other(world, &format!("there-{}", host.len()));
        let pulled = there.skillctl(["pull", &name, "--load=never"]).ok();
        assert_eq!((said(&pulled, "Pulled "), said(&pulled, "Digest: ")), (&*name, &*built.digest));
        assert_eq!(there.digest(&name).as_ref(), Some(&built.digest));
        assert_eq!(there.inspect(&format!("docker://{name}"))["digest"], json!(built.digest));
        assert_eq!(there.inspect(&name)["digest"], json!(built.digest));
    }
    // Asked to verify, it does: there is nothing to verify.
    let there = Site::other(world, "strict");
    let name = hub.name("ns/hr:1.0.0-draft");
    there.refuses(
        &["pull", &name, "--tls-verify=true"],
        &[&hub.address],
        &["http response to https", "no tls", "plain http"],
    );
}

fn certificates_are_checked(world: &World) {
    let hub = Registry::start(world, Kind::Tls);
    world.build("hr", "1.0.0", &["--load=never"]);
    let name = hub.name("acme/hr:1.0.0-draft");
    let here = Site::here(world);
    let unknown = ["certificate", "unknown authority", "x509", "issuer"];
    // Never once without, although it is on loopback.
    let (_, asked) = hub.asked(|| here.refuses(&["push", "acme/hr:1.0.0-draft", &name], &[&hub.address], &unknown));
    assert_eq!(asked, []);
    world.skillctl(["push", "acme/hr:1.0.0-draft", &name, "--tls-verify=false"]).ok();

    let there = Site::other(world, "there");
    for verb in [
        ["pull", &name].as_slice(),
        &["inspect", &format!("docker://{name}")],
        &["list", "--remote", &hub.name("acme/hr")],
    ] {
        let (_, asked) = hub.asked(|| there.refuses(verb, &[&hub.address], &unknown));
        assert_eq!(asked, [], "{verb:?}");
        let certificates = world.path("certificates");
        fs::create_dir_all(&certificates).expect("a directory");
        fs::copy(hub.authority(), certificates.join("ca.crt")).expect("a certificate");
        there.skillctl(verb.iter().copied().chain(["--cert-dir", certificates.to_str().expect("UTF-8")])).ok();
    }
    conf::trust(world, &hub, Place::Home);
    there.skillctl(["pull", &name]).ok();

    let old = Registry::named(world, "expired", Kind::Expired);
    conf::trust(world, &old, Place::Home);
    let error = there.refuses(&["pull", &old.name("acme/hr:1")], &[&old.address], &["expired"]);
    assert!(!error.to_lowercase().contains("unknown authority"), "{error}");
    there.refuses(&["inspect", &old.name("acme/hr:1")], &[&old.address], &["expired"]);
}

/// 255 characters of name, 128 of tag; and both a tag and a digest, of which the digest counts.
fn names_as_long_as_they_get(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let there = Site::other(world, "there");
    let room = 250 - hub.address.len() - "/acme/".len();
    let repository = format!("acme/{}", "long-name.".repeat(room / 10) + &"x".repeat(room % 10));
    let name = hub.name(&format!("{repository}:{}", "1.0.0-".repeat(21) + "_x"));
    assert_eq!(name.rsplit_once(':').map(|(name, tag)| (name.len(), tag.len())), Some((250, 128)));
    world.skillctl(["push", "acme/hr:1.0.0-draft", &name]).ok();
    there.load(&["pull", &name]);
    assert_eq!(there.digest(&name).as_ref(), Some(&built.digest));
    there.podman(["image", "exists", &name]).ok();

    let pinned = hub.name(&format!("acme/hr:1.0.0-draft@{}", built.digest));
    world.skillctl(["push", "acme/hr:1.0.0-draft", &hub.name("acme/hr:1.0.0-draft")]).ok();
    let newer = newer(world);
    world.skillctl(["push", "acme/hr:1.0.0-draft", &hub.name("acme/hr:1.0.0-draft")]).ok();
    assert_eq!(hub.tag("acme/hr", "1.0.0-draft").as_ref(), Some(&newer));
    let pulled = there.skillctl(["pull", &pinned, "--load=never"]).ok();
    assert_eq!(said(&pulled, "Digest: "), built.digest);
    assert_eq!(there.inspect(&pinned)["digest"], json!(built.digest));
    assert_eq!(there.inspect(&format!("docker://{pinned}"))["digest"], json!(built.digest));
    let absent = hub.name(&format!("acme/hr:1.0.0-draft@sha256:{}", "0".repeat(64)));
    there.refuses(&["pull", &absent], &[&hub.address], &["not found", "unknown"]);
    there.whole();
}

/// Builds the skill again with other content, and returns its digest.
fn newer(world: &World) -> String {
    fs::write(world.path("hr/notes.md"), "more").expect("a file");
    world.build("hr", "1.0.0", &["--load=never"]).digest
}

fn a_mirror_serves_what_its_place_does_not(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    world.skillctl(["push", "acme/hr:1.0.0-draft", &hub.name("mirrored/hr:1.0.0-draft")]).ok();
    conf::registries_conf(world, &conf::mirrored("registry.example/acme", &hub.name("mirrored")));
    let there = Site::other(world, "there");
    let name = "registry.example/acme/hr:1.0.0-draft";
    assert_eq!(there.inspect(name)["digest"], json!(built.digest));
    let listed = there.skillctl(["list", "--remote", "registry.example/acme/hr", "--format", "json"]).json();
    assert_eq!((&listed[0]["reference"], &listed[0]["digest"]), (&json!(name), &json!(built.digest)));
    let pulled = there.load(&["pull", name]);
    assert_eq!((said(&pulled, "Pulled "), said(&pulled, "Digest: ")), (name, &*built.digest));
    // It goes by the name that was asked for, in both places.
    assert_eq!(there.digest(name).as_ref(), Some(&built.digest));
    there.podman(["image", "exists", name]).ok();
    // Nothing is written to a mirror.
    world
        .skillctl(["push", "acme/hr:1.0.0-draft", "registry.example/acme/new:1", "--retry", "0"])
        .refused(&["registry.example"], &["looked up", "no such host"]);
    assert_eq!(hub.tags("mirrored/new"), [""; 0]);
}

fn registries_conf_blocks_and_aliases(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let name = hub.name("acme/hr:1.0.0-draft");
    world.skillctl(["push", "acme/hr:1.0.0-draft", &name]).ok();
    let tls = Registry::named(world, "tls", Kind::Tls);
    world.skillctl(["push", "acme/hr:1.0.0-draft", &tls.name("acme/hr:1"), "--tls-verify=false"]).ok();
    let text = [
        format!("[aliases]\n\"short/hr\" = \"{}\"\n", hub.name("acme/hr")),
        conf::registry(&hub.name("blocked"), "blocked = true"),
        conf::registry(&tls.address, "insecure = true"),
    ];
    conf::registries_conf(world, &text.concat());
    let there = Site::other(world, "there");

    let blocked = hub.name("blocked/hr:1");
    let (_, asked) = hub.asked(|| {
        for verb in
            [["pull", &blocked].as_slice(), &["inspect", &blocked], &["list", "--remote", &hub.name("blocked/hr")]]
        {
            there.refuses(verb, &[&hub.address], &["blocked"]);
        }
        world.skillctl(["push", "acme/hr:1.0.0-draft", &blocked]).refused(&[&hub.address], &["blocked"]);
    });
    assert_eq!(asked, []);

    let pulled = there.skillctl(["pull", "short/hr:1.0.0-draft", "--load=never"]).ok();
    assert_eq!(said(&pulled, "Digest: "), built.digest);
    assert_eq!(there.digest(&name).as_ref(), Some(&built.digest), "an alias is another word for a name");
    // A name that is no registry's and no alias is not searched for anywhere.
    let (_, asked) = hub.asked(|| there.refuses(&["pull", "acme/none:1"], &["acme/none:1"], &[]));
    assert_eq!(asked, []);

    let insecure = Site::other(world, "insecure");
    let pulled = insecure.skillctl(["pull", &tls.name("acme/hr:1"), "--load=never"]).ok();
    assert_eq!(said(&pulled, "Digest: "), built.digest);
    assert_eq!(insecure.inspect(&format!("docker://{}", tls.name("acme/hr:1")))["digest"], json!(built.digest));
}

fn a_reject_policy_refuses_a_pull(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let name = hub.name("acme/hr:1.0.0-draft");
    world.skillctl(["push", "acme/hr:1.0.0-draft", &name]).ok();
    let there = Site::other(world, "there");
    let accept = json!([{ "type": "insecureAcceptAnything" }]);
    let reject = json!([{ "type": "reject" }]);
    conf::policy(world, &json!({ "default": reject }));
    let error = there.refuses(&["pull", &name, "--load=never"], &[&name], &["policy"]);
    assert!(error.contains("policy.json") || error.contains("rejected by policy"), "{error}");
    let archive = format!("oci-archive:{}:acme/hr:1", world.path("out.tar").display());
    there.refuses(&["copy", &format!("docker://{name}"), &archive], &[&name], &["policy"]);
    assert!(!world.path("out.tar").exists(), "half an archive");
    // What reaches the store by another name is what the policy has for it.
    let scopes = json!({ hub.name("acme"): accept, hub.name("other"): reject });
    conf::policy(world, &json!({ "default": reject, "transports": { "docker": scopes } }));
    there.refuses(
        &["pull", &hub.name("other/hr:1.0.0-draft"), "--load=never"],
        &[&hub.address],
        &["policy", "not found", "unknown"],
    );
    let pulled = there.skillctl(["pull", &name, "--load=never"]).ok();
    assert_eq!(said(&pulled, "Digest: "), built.digest);
    // For the user's own end, where system_check asks podman.
    conf::policy(world, &json!({ "default": accept }));
}

fn a_token_is_fetched_for_each_scope(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let gate = Gate::before(&hub);
    gate.tokens(USER, PASSWORD);
    let here = Site::here(world);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let name = gate.name("acme/hr:1.0.0-draft");
    let denied = ["unauthorized", "denied", "authentication required", "credentials"];
    here.refuses(&["push", "acme/hr:1.0.0-draft", &name], &[&gate.address], &denied);
    conf::auth_json(world, &[(&gate.address, USER, "wrong")]);
    here.refuses(&["push", "acme/hr:1.0.0-draft", &name], &[&gate.address], &denied);
    assert_eq!(hub.requests(), []);
    assert!(gate.count("GET", "/token") > 0, "{:?}", gate.requests());

    conf::auth_json(world, &[(&gate.address, USER, PASSWORD)]);
    world.skillctl(["push", "acme/hr:1.0.0-draft", &name]).ok();
    world.skillctl(["promote", &name, "--to", "testing"]).ok();
    assert_eq!(hub.tags("acme/hr"), ["1.0.0-draft", "1.0.0-testing"]);
    gate.reset();
    let there = Site::other(world, "there");
    assert_eq!(there.inspect(&name)["digest"], json!(built.digest));
    // The first question, the token, and one manifest.
    let answered: Vec<_> = gate.requests().into_iter().filter(|request| request.is("GET", "/manifests/")).collect();
    assert_eq!(answered.iter().filter(|request| request.status == 200).count(), 1, "{answered:?}");
    gate.reset();
    let rows = there.skillctl(["list", "--remote", &gate.name("acme/hr"), "--format", "json"]).json();
    assert_eq!(rows.as_array().expect("rows").len(), 2);
    assert_eq!(gate.count("GET", "/token"), 1, "a token serves all requests of one scope: {:?}", gate.requests());
    assert_eq!(said(&there.skillctl(["pull", &name, "--load=never"]).ok(), "Digest: "), built.digest);
}

fn imagesets_name_tag_and_digest(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let name = hub.name("acme/hr:1.0.0-draft");
    world.skillctl(["push", "acme/hr:1.0.0-draft", &name]).ok();
    let text = Site::other(world, "there").skillctl(["generate", "imageset", &name]).ok();
    assert!(
        text.contains("kind: ImageSetConfiguration") && text.contains("apiVersion: mirror.openshift.io/v2"),
        "{text}"
    );
    assert!(text.contains(&format!("- name: \"{name}@{}\"", built.digest)), "{text}");
    let gone = nobody();
    Site::here(world).refuses(&["generate", "imageset", &format!("{gone}/acme/hr:1")], &[&gone], &["refused"]);
}
