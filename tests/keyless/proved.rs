//! What identities have signed: by flags and by a policy, and what is refused.

use std::fs;

use serde_json::{Value, json};

use super::{ANA, DRAFT, SIGNED, descriptor, digest, put, put_simple, run, world};
use crate::policy::uses;
use crate::sigstore::{Signing, Sigstore};
use crate::support::{Ran, World};

const WORKFLOW: &str = "https://github.com/acme/hr/.github/workflows/release.yaml";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// The flags that ask for an identity.
fn asked<'a>(identity: &'a str, issuer: &'a str) -> Vec<&'a str> {
    vec!["--certificate-identity", identity, "--certificate-oidc-issuer", issuer, "--trusted-root", "root.json"]
}

fn by(signing: Signing<'_>) -> Vec<&str> {
    asked(signing.identity, signing.issuer)
}

fn trust(world: &World, flags: &[&str]) {
    run(world, &["trust", "add", "--user", "acme"], flags).ok();
}

#[test]
fn what_an_identity_has_signed_is_verified_in_both_forms() {
    let sigstore = Sigstore::new();
    for signing in [ANA, Signing::RELEASE] {
        let (world, descriptor) = world(&sigstore);
        let verify = || run(&world, &["verify", DRAFT, "--format", "json"], &by(signing));
        verify().fails(1);
        put(&world, &descriptor, &sigstore.signed(signing, digest(&descriptor)), SIGNED);
        let bundle = verify().ok().json();
        let signer = json!({"identity": signing.identity, "issuer": signing.issuer, "form": "bundle"});
        assert_eq!((&bundle["digest"], &bundle["signers"]), (&descriptor["digest"], &json!([signer])));
        put_simple(
            &world,
            &descriptor,
            sigstore.simple(signing, ("localhost/acme/hr:1.0.0-draft", digest(&descriptor))),
        );
        let both = verify().ok().json();
        let simple = json!({
            "identity": signing.identity,
            "issuer": signing.issuer,
            "form": "simple",
            "reference": "localhost/acme/hr:1.0.0-draft",
        });
        assert_eq!(both["signers"], json!([simple, signer]));
        let text = run(&world, &["verify", DRAFT], &by(signing)).ok().stdout;
        let line = format!("Signed:  by {} of {} (bundle)\n", signing.identity, signing.issuer);
        assert!(text.ends_with(&line), "{text}");
    }
    // By patterns, too.
    let (world, descriptor) = world(&sigstore);
    put(&world, &descriptor, &sigstore.signed(ANA, digest(&descriptor)), SIGNED);
    let like = |pattern: &str| {
        let issuer = ["--certificate-oidc-issuer-regexp", "^https://accounts\\..*$", "--trusted-root", "root.json"];
        run(&world, &["verify", DRAFT, "--certificate-identity-regexp", pattern], &issuer)
    };
    like("^.*@example\\.org$").ok();
    let refused = like("^.*@example\\.com$").fails(1).stderr;
    assert!(refused.contains("must be signed by ^.*@example\\.com$ of ^https://accounts\\..*$, and"), "{refused}");
}

#[test]
fn what_is_not_proved_is_refused_in_both_forms() {
    let (own, other) = (Sigstore::new(), Sigstore::new());
    let required = format!("must be signed by {} of {}, and its signature is ", ANA.identity, ANA.issuer);
    let at = |logged| Signing { logged: Some(logged), ..ANA };
    let elsewhere = format!("sha256:{}", "b".repeat(64));
    let cases: [(&str, &Sigstore, Signing<'_>, &str); 7] = [
        ("before it was valid", &own, at(-60), "CertNotValidYet"),
        ("after it was valid", &own, at(660), "CertExpired"),
        ("in no log", &own, Signing { logged: None, ..ANA }, "by an identity that is not proved: "),
        ("by another root", &other, ANA, "by an identity that is not proved: "),
        (
            "by another identity",
            &own,
            Signing { identity: "eve@example.org", ..ANA },
            "by eve@example.org of https://acc",
        ),
        ("by another issuer", &own, Signing { issuer: "https://eve.example", ..ANA }, "ana@example.org of https://eve"),
        ("of another digest", &own, ANA, "of "),
    ];
    for (what, sigstore, signing, why) in cases {
        for form in ["bundle", "simple"] {
            let (world, descriptor) = world(&own);
            let of = if what == "of another digest" { &elsewhere } else { digest(&descriptor) };
            match form {
                "bundle" => put(&world, &descriptor, &sigstore.signed(signing, of), SIGNED),
                _ => put_simple(&world, &descriptor, sigstore.simple(signing, ("localhost/acme/hr", of))),
            }
            let refused = run(&world, &["verify", DRAFT], &by(ANA)).fails(1).stderr;
            for word in [digest(&descriptor), &required, why] {
                assert!(refused.contains(word), "{what}, {form}: {word}: {refused}");
            }
        }
    }
}

#[test]
fn what_was_altered_is_refused() {
    let sigstore = Sigstore::new();
    // What was signed for another image, made to look like a signature of this one.
    let elsewhere = format!("sha256:{}", "b".repeat(64));
    let (world, descriptor) = world(&sigstore);
    let mut bundle: Value = serde_json::from_slice(&sigstore.signed(ANA, digest(&descriptor))).unwrap();
    let stolen: Value = serde_json::from_slice(&sigstore.signed(ANA, &elsewhere)).unwrap();
    bundle["dsseEnvelope"]["signatures"] = stolen["dsseEnvelope"]["signatures"].clone();
    bundle["verificationMaterial"] = stolen["verificationMaterial"].clone();
    put(&world, &descriptor, bundle.to_string().as_bytes(), SIGNED);
    let mut simple = sigstore.simple(ANA, ("localhost/acme/hr", &elsewhere));
    let good = sigstore.simple(ANA, ("localhost/acme/hr", digest(&descriptor)));
    (simple.payload, simple.layer["digest"]) = (good.payload, good.layer["digest"].clone());
    put_simple(&world, &descriptor, simple);
    // And one that was signed for another repository.
    let foreign = sigstore.simple(ANA, ("localhost/acme/legal", digest(&descriptor)));
    put_simple(&world, &descriptor, foreign);
    let refused = run(&world, &["verify", DRAFT], &by(ANA)).fails(1).stderr;
    assert!(refused.contains("its 3 signatures are by an identity that is not proved: "), "{refused}");
    assert!(refused.contains("for the repository acme/legal, not acme/hr"), "{refused}");
    // With a log of certificates in the root, a certificate has to be in that.
    put(&world, &descriptor, &sigstore.signed(ANA, digest(&descriptor)), SIGNED);
    run(&world, &["verify", DRAFT], &by(ANA)).ok();
    let mut root = sigstore.trusted_root();
    root["ctlogs"] = root["tlogs"].clone();
    world.write("root.json", root.to_string());
    let refused = run(&world, &["verify", DRAFT], &by(ANA)).fails(1).stderr;
    assert!(refused.contains("SCT"), "{refused}");
}

#[test]
fn a_policy_with_identities_holds_wherever_an_image_is_used() {
    let sigstore = Sigstore::new();
    let (world, descriptor) = world(&sigstore);
    trust(&world, &by(ANA));
    // What was given may go.
    fs::remove_file(world.path("root.json")).unwrap();
    for args in uses(DRAFT) {
        let refused = run(&world, &args, &[]).fails(1).stderr;
        let why = format!(
            "{} must be signed by ana@example.org of https://accounts.example ({}, acme), and it has no signature",
            digest(&descriptor),
            world.path("home/.config/skillctl/trust.toml").display()
        );
        assert!(refused.contains(&why), "{args:?}: {refused}");
    }
    put(&world, &descriptor, &sigstore.signed(Signing::RELEASE, digest(&descriptor)), SIGNED);
    for args in uses(DRAFT) {
        let refused = run(&world, &args, &[]).fails(1).stderr;
        assert!(refused.contains("its signature is by https://github.com/acme/hr/"), "{args:?}: {refused}");
    }
    put(&world, &descriptor, &sigstore.signed(ANA, digest(&descriptor)), SIGNED);
    for args in uses(DRAFT).into_iter().filter(|args| args[0] != "load") {
        run(&world, &args, &[]).ok();
    }
    // There is no podman to load into, and that is all that is wrong.
    assert!(!run(&world, &["load", DRAFT], &[]).fails(2).stderr.contains("verified"));
}

#[test]
fn a_key_or_an_identity_suffices_and_all_scopes_count() {
    let sigstore = Sigstore::new();
    let (world, descriptor) = world(&sigstore);
    let keyed = |args: &[&str]| -> Ran { world.command(args).env("COSIGN_PASSWORD", "").output().unwrap().into() };
    keyed(&["key", "generate", "acme"]).ok();
    trust(&world, &["--key", "acme.pub"]);
    trust(&world, &by(ANA));
    put(&world, &descriptor, &sigstore.signed(ANA, digest(&descriptor)), SIGNED);
    run(&world, &["verify", DRAFT], &[]).ok();
    run(&world, &["trust", "add", "--user", "acme/hr"], &by(Signing::RELEASE)).ok();
    run(&world, &["verify", DRAFT], &[]).fails(1);
    put(&world, &descriptor, &sigstore.signed(Signing::RELEASE, digest(&descriptor)), SIGNED);
    let checked = run(&world, &["trust", "check", DRAFT, "--format", "json"], &[]).ok().json();
    assert_eq!(checked["verified"]["signers"].as_array().unwrap().len(), 2);
    assert_eq!(
        checked["asked"][1]["identities"],
        json!([{"identity": Signing::RELEASE.identity, "issuer": Signing::RELEASE.issuer}])
    );
    let listed = run(&world, &["trust", "list"], &[]).ok().stdout;
    assert!(listed.contains(",ana@example.org of https://accounts.example  "), "{listed}");
    // Another one, and the same again; and less.
    let file = || fs::read_to_string(world.path("home/.config/skillctl/trust.toml")).unwrap();
    let before = file();
    trust(&world, &by(ANA));
    assert_eq!(file(), before);
    let remove = |scope: &str, name: &str| {
        run(&world, &["trust", "remove", "--user", scope, "--certificate-identity", name], &[])
    };
    let left = remove("acme/hr", Signing::RELEASE.identity).fails(2).stderr;
    assert!(left.contains("acme/hr would have no key any more"), "{left}");
    assert!(remove("acme", "eve@example.org").fails(2).stderr.contains("with the identity eve@example.org"));
    let said = remove("acme", ANA.identity).ok().stdout;
    assert!(said.starts_with("Removed an identity of acme from "), "{said}");
    let records = run(&world, &["audit", "show", "--action", "trust", "--format", "json"], &[]).ok().json();
    // Those of workflows, too, are whole.
    let signers: Vec<&Value> = records.as_array().unwrap().iter().map(|one| &one["signers"]).collect();
    let [ana, release] = [ANA, Signing::RELEASE].map(|one| json!([format!("{} of {}", one.identity, one.issuer)]));
    assert_eq!(signers[1..], [&ana, &release, &ana]);
    assert!(!file().contains("ana@example.org") && file().contains("acme/hr"), "{}", file());
    let refused = run(&world, &["verify", DRAFT], &[]).fails(1).stderr;
    assert!(refused.contains("must be signed by sha256:"), "{refused}");
    // A promotion signs by a key, which is nobody whom this scope names.
    run(&world, &["trust", "remove", "--user", "acme"], &[]).ok();
    let promote = ["promote", DRAFT, "--to", "testing", "--local", "--load=never"];
    let without = run(&world, &promote, &[]).fails(1).stderr;
    assert!(without.contains("with a signature by https://github.com/acme") && without.contains("hint: promote where"));
    let with = keyed(&[&promote[..], &["--sign", "--key", "acme.key"]].concat()).fails(1).stderr;
    assert!(with.contains("it would be signed by sha256:"), "{with}");
}

#[test]
fn pins_and_attestations_have_identities() {
    let sigstore = Sigstore::new();
    let (world, descriptor) = world(&sigstore);
    let eve = Signing { identity: "eve@example.org", ..ANA };
    let like = ["--certificate-identity-regexp", "^.*@example\\.org$", "--certificate-oidc-issuer", ANA.issuer];
    let root = ["--trusted-root", "root.json"];
    trust(&world, &[&like[..], &root, &["--pin", "--attestation", "provenance"]].concat());
    put(&world, &descriptor, &sigstore.signed(ANA, digest(&descriptor)), SIGNED);
    let install = |reference: &str| run(&world, &["install", "-t", "claude", reference], &[]);
    let refused = install(DRAFT).fails(1).stderr;
    let why = "must be attested by ^.*@example\\.org$ of https://accounts.example (provenance) (";
    assert!(refused.contains(why) && refused.contains("and it has no attestation"), "{refused}");
    put(&world, &descriptor, &sigstore.bundle(Signing::RELEASE, (PROVENANCE, digest(&descriptor))), PROVENANCE);
    let refused = install(DRAFT).fails(1).stderr;
    assert!(refused.contains("and its attestation is by https://github.com/acme/hr/"), "{refused}");
    put(&world, &descriptor, &sigstore.bundle(ANA, (PROVENANCE, digest(&descriptor))), PROVENANCE);
    let installed = install(DRAFT).ok().stdout;
    assert!(installed.ends_with("Verified: signed by ana@example.org of https://accounts.example\n"), "{installed}");
    let inspect = ["inspect", "--attestations", DRAFT, "--format", "json"];
    let listed = run(&world, &[&inspect[..], &like, &root].concat(), &[]).ok().json();
    let by = |one: &serde_json::Value| (one["verified"] == true, one["identity"].clone(), one["issuer"].clone());
    let mut all: Vec<_> = listed["attestations"].as_array().unwrap().iter().map(by).collect();
    all.sort_by_key(|(verified, ..)| *verified);
    assert_eq!((all[0].0, all.len()), (false, 2), "{listed}");
    assert_eq!(all[1], (true, ANA.identity.into(), ANA.issuer.into()), "{listed}");
    // The next is by another one that the scope names, and the first stays.
    world.skill_version("hr", "1.1.0");
    world.build("hr");
    let next = "acme/hr:1.1.0-draft";
    let newer = super::descriptor(&world, next);
    put(&world, &newer, &sigstore.signed(eve, digest(&newer)), SIGNED);
    put(&world, &newer, &sigstore.bundle(eve, (PROVENANCE, digest(&newer))), PROVENANCE);
    let refused = install(next).fails(1).stderr;
    for word in
        ["signed by ana@example.org of https://accounts.example, which acme/hr is pinned to", "it is signed by eve@"]
    {
        assert!(refused.contains(word), "{word}: {refused}");
    }
    let unpinned = run(&world, &["trust", "remove", "--pinned", "acme/hr"], &[]).ok().stdout;
    assert!(unpinned.contains("from ana@example.org of https://accounts.example"), "{unpinned}");
}

#[test]
fn what_an_identity_has_signed_stays_signed_by_it() {
    let sigstore = Sigstore::new();
    let (world, _) = world(&sigstore);
    let eve = Signing { identity: "eve@example.org", ..ANA };
    let publish = |version: &str| {
        for (state, to) in [("-draft", "testing"), ("-testing", "published")] {
            let from = format!("acme/hr:{version}{state}");
            run(&world, &["promote", &from, "--to", to, "--load=never"], &[]).ok();
        }
        descriptor(&world, &format!("acme/hr:{version}"))
    };
    let first = publish("1.0.0");
    put(&world, &first, &sigstore.signed(ANA, digest(&first)), SIGNED);
    put_simple(&world, &first, sigstore.simple(ANA, ("localhost/acme/hr:1.0.0", digest(&first))));
    run(&world, &["install", "acme/hr:1.0.0", "-t", "claude"], &by(ANA)).ok();
    let receipt = || -> Value {
        let path = world.path("home/.claude/skills/.skillimage/receipts/hr.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let signed = receipt()["signedByIdentities"].clone();
    let root = sigstore.trusted_root().to_string();
    assert_eq!(signed, json!([{"identity": ANA.identity, "issuer": ANA.issuer, "trustedRoot": root}]));
    let again = run(&world, &["install", "acme/hr:1.0.0", "-t", "claude", "--format", "json"], &by(ANA)).ok().json();
    assert_eq!(again[0]["written"], false);
    world.skill_version("hr", "1.1.0");
    world.build("hr");
    let second = publish("1.1.0");
    let upgrade = |flags: &[&str]| run(&world, &["upgrade", "hr", "-t", "claude"], flags);
    let refused = upgrade(&[]).fails(1).stderr;
    let why = "must be signed by ana@example.org of https://accounts.example (what is installed was signed by it), and it has no";
    assert!(refused.contains(why), "{refused}");
    put(&world, &second, &sigstore.signed(eve, digest(&second)), SIGNED);
    upgrade(&[]).fails(1);
    // Neither is the name enough, where somebody else says so.
    put(&world, &second, &Sigstore::new().signed(ANA, digest(&second)), SIGNED);
    upgrade(&[]).fails(1);
    assert_eq!(receipt()["skillVersion"], "1.0.0");
    // Who says so may take another one.
    upgrade(&by(eve)).ok();
    assert_eq!(receipt()["signedByIdentities"][0]["identity"], eve.identity);
}

/// A workflow has the tag that it ran for in its name: who was asked for is recorded, and the workflow is pinned without it.
#[test]
fn the_next_release_is_signed_by_the_same_identity() {
    let (before, after) = (Sigstore::new(), Sigstore::new());
    let (world, _) = world(&before);
    let release = |version: &str| format!("{WORKFLOW}@refs/tags/v{version}");
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0"] {
        world.skill_version("hr", version);
        world.build("hr");
        run(&world, &["promote", &format!("acme/hr:{version}-draft"), "--to", "testing", "--load=never"], &[]).ok();
    }
    let publish = |sigstore: &Sigstore, version: &str| {
        let from = format!("acme/hr:{version}-testing");
        let mut promote = world.command(["promote", &from, "--to", "published", "--load=never"]);
        // Whoever publishes it is somebody else.
        let done: Ran = promote.env("XDG_CONFIG_HOME", world.path("elsewhere")).output().unwrap().into();
        done.ok();
        let descriptor = descriptor(&world, &format!("acme/hr:{version}"));
        let (identity, of) = (release(version), digest(&descriptor));
        let signing = Signing { identity: &identity, ..Signing::RELEASE };
        put(&world, &descriptor, &sigstore.signed(signing, of), SIGNED);
    };
    publish(&before, "1.0.0");
    let pattern = r"^https://github\.com/acme/.*$";
    let like = ["--certificate-identity-regexp", pattern, "--certificate-oidc-issuer", Signing::RELEASE.issuer];
    let trust = |root: &str| {
        run(&world, &["trust", "add", "--user", "acme", "--pin", "--trusted-root", root], &like).ok();
    };
    trust("root.json");
    run(&world, &["install", "acme/hr:1.0.0", "-t", "claude"], &[]).ok();
    let pins: Value = serde_json::from_slice(&fs::read(world.store().join(".signers.json")).unwrap()).unwrap();
    assert_eq!(pins, json!({"acme/hr": format!("{WORKFLOW}@refs/tags/ of {}", Signing::RELEASE.issuer)}));
    let receipt = world.path("home/.claude/skills/.skillimage/receipts/hr.json");
    let receipt: Value = serde_json::from_slice(&fs::read(receipt).unwrap()).unwrap();
    let signed = &receipt["signedByIdentities"][0];
    let workflow = format!("^{}@refs/tags/.+$", WORKFLOW.replace('.', "\\."));
    assert_eq!((&signed["identityRegexp"], &signed["issuer"]), (&json!(workflow), &json!(Signing::RELEASE.issuer)));
    publish(&before, "1.1.0");
    run(&world, &["upgrade", "hr", "-t", "claude"], &[]).ok();
    // Authorities get new keys: what the policy believes now counts, and not what was believed when it was installed.
    publish(&after, "1.2.0");
    run(&world, &["upgrade", "hr", "-t", "claude"], &[]).fails(1);
    // Another workflow that the policy lets pass, and the same one for a branch, are somebody else.
    let next = descriptor(&world, "acme/hr:1.2.0");
    for identity in [release("1").replace("release.yaml", "any.yaml"), format!("{WORKFLOW}@refs/heads/any")] {
        let signing = Signing { identity: &identity, ..Signing::RELEASE };
        put(&world, &next, &before.signed(signing, digest(&next)), SIGNED);
        run(&world, &["verify", "acme/hr:1.2.0"], &by(signing)).fails(1);
        run(&world, &["upgrade", "hr", "-t", "claude"], &[]).fails(1);
    }
    world.write("new.json", after.trusted_root().to_string());
    trust("new.json");
    run(&world, &["upgrade", "hr", "-t", "claude"], &[]).ok();
    // Without the policy it is still asked for.
    run(&world, &["trust", "remove", "--user", "acme"], &[]).ok();
    publish(&before, "1.3.0");
    let refused = run(&world, &["upgrade", "hr", "-t", "claude"], &[]).fails(1).stderr;
    assert!(refused.contains(&workflow) && refused.contains("--certificate-identity, or --key FILE,"), "{refused}");
}

#[test]
fn a_set_is_taken_in_by_identities() {
    let sigstore = Sigstore::new();
    let (world, descriptor) = world(&sigstore);
    put(&world, &descriptor, &sigstore.signed(ANA, digest(&descriptor)), SIGNED);
    put_simple(&world, &descriptor, sigstore.simple(ANA, ("localhost/acme/hr", digest(&descriptor))));
    run(&world, &["save", "-o", "set", DRAFT], &[]).ok();
    let load = |flags: &[&str]| {
        let store = world.path("there").display().to_string();
        run(&world, &["--store", &store, "load", "-i", "set", "--load=never", "--format", "json"], flags)
    };
    let refused = load(&by(Signing::RELEASE)).fails(1).stderr;
    assert!(refused.contains("its 2 signatures are by ana@example.org of https://accounts.example"), "{refused}");
    let loaded = load(&by(ANA)).ok().json();
    assert_eq!(loaded[0]["signers"].as_array().map(Vec::len), Some(2), "{loaded}");
}
