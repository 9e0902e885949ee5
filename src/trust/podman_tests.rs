use super::*;
use crate::trust::private_key::PrivateKey;

fn policy(scopes: &[(&str, &str)]) -> Policy {
    let mut policy = Policy::default();
    let text: String = scopes
        .iter()
        .map(|(prefix, rest)| {
            let key = PrivateKey::generate().unwrap().0.public().to_pem();
            format!("[[scope]]\nprefix = {prefix:?}\nkeys = ['''{key}''']\n{rest}\n")
        })
        .collect();
    policy.add(&text, "trust.toml", &|_, _| unreachable!()).unwrap();
    policy
}

fn proposal(scopes: &[(&str, &str)]) -> Proposal {
    Proposal::of(&policy(scopes)).unwrap()
}

#[test]
fn a_narrower_scope_repeats_what_broader_ones_ask_for() {
    let told = proposal(&[
        ("r.io/acme", ""),
        ("r.io/acme/hr", "signed-as = \"up.io/x/hr\""),
        ("local", ""),
        ("r.io/b", "pin = true"),
    ]);
    let counts: Vec<(&str, usize)> = told.scopes.iter().map(|(scope, list)| (scope.as_str(), list.len())).collect();
    assert_eq!(counts, [("r.io/acme", 1), ("r.io/acme/hr", 2), ("r.io/b", 1)]);
    let identity = &told.scopes[1].1[1]["signedIdentity"];
    assert_eq!(*identity, json!({"type": "remapIdentity", "prefix": "r.io/acme/hr", "signedPrefix": "up.io/x/hr"}));
    assert_eq!(told.scopes[1].1[0]["signedIdentity"], json!({"type": "matchRepository"}));
    let unsaid =
        ["local: it is on no registry, and podman verifies only what it pulls", "r.io/b: that the first key stays"];
    assert_eq!(told.unsaid, unsaid);
}

/// Podman would take its narrowest scope alone, so one that it cannot be told may not hide another; and never asks for less.
#[test]
fn identities_make_nothing_weaker() {
    let root = r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#;
    let ana = "trusted-root = \"root.json\"\nidentities = [{ identity = \"ana@x\", issuer = \"https://y\" }]";
    let key = PrivateKey::generate().unwrap().0.public().to_pem();
    let scope = |prefix: &str, rest: &str| format!("[[scope]]\nprefix = {prefix:?}\n{rest}\n");
    let keys = format!("keys = ['''{key}''']\n");
    let text = [
        scope("r.io", &keys),
        scope("r.io/acme", ana),
        scope("r.io/acme/hr", &format!("{keys}{ana}")),
        scope("q.io", ana),
    ];
    let mut policy = Policy::default();
    policy.add(&text.concat(), "trust.toml", &|_, _| Ok(root.into())).unwrap();
    let told = Proposal::of(&policy).unwrap();
    let counts: Vec<(&str, usize)> = told.scopes.iter().map(|(scope, list)| (scope.as_str(), list.len())).collect();
    assert_eq!(counts, [("r.io", 1), ("r.io/acme/hr", 2)]);
    assert!(told.scopes.iter().flat_map(|(_, list)| list).all(|one| one["type"] == "sigstoreSigned"));
    let unsaid = [
        "r.io/acme: the identity ana@x of https://y",
        "r.io/acme/hr: that the identity ana@x of https://y suffices in place of a key",
        "q.io: the identity ana@x of https://y",
    ];
    assert_eq!(told.unsaid, unsaid);
    assert_eq!(told.attachments.iter().collect::<Vec<_>>(), ["r.io", "r.io/acme/hr"]);
}

#[test]
fn signatures_are_looked_for_at_mirrors_too() {
    let mirrors =
        [("m.io/all", "r.io"), ("m.io/acme", "r.io/acme"), ("m.io/deep", "r.io/acme/hr/x"), ("m.io/no", "r.io/ac")];
    let mirrors: Vec<_> = mirrors.iter().map(|(mirror, of)| ((*mirror).to_owned(), (*of).to_owned())).collect();
    let told = Proposal::of(&policy(&[("r.io/acme/hr", "")]).mirrored("trust.toml", &mirrors)).unwrap();
    let names: Vec<&String> = told.attachments.iter().collect();
    assert_eq!(names, ["m.io/acme/hr", "m.io/all/acme/hr", "m.io/deep", "r.io/acme/hr"]);
    assert!(told.registries_d().starts_with("docker:\n  m.io/acme/hr:\n    use-sigstore-attachments: true\n"));
}

#[test]
fn a_file_is_never_made_weaker_than_it_was() {
    let told = proposal(&[("r.io/acme", "")]);
    let anything = r#"[{"type":"insecureAcceptAnything"}]"#;
    let reject = r#"[{"type":"reject"}]"#;
    let file =
        |default: &str, docker: &str| format!(r#"{{"default":{default},"transports":{{"docker":{{{docker}}}}}}}"#);
    let merged = |text: &str, how| told.merge(text, "policy.json", how, &[]);
    let requirements = |text: &str, how| {
        let file: Value = serde_json::from_str(&merged(text, how).unwrap().text).unwrap();
        file["transports"]["docker"]["r.io/acme"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["type"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let none = (false, false);
    assert_eq!(requirements(&format!(r#"{{"default":{anything}}}"#), none), ["sigstoreSigned"]);
    assert_eq!(requirements(&file(anything, &format!(r#""r.io":{anything}"#)), none), ["sigstoreSigned"]);
    let cases = [
        (file(reject, ""), "asks for more of r.io/acme"),
        (file(anything, &format!(r#""r.io":{reject}"#)), "asks for more"),
        (file(anything, &format!(r#""":{reject}"#)), "asks for more"),
        (file(anything, &format!(r#""*.io":{reject}"#)), "asks for more"),
        (file(anything, &format!(r#""r.io/acme":{reject}"#)), "has r.io/acme already, and it is different"),
        ("{}".to_owned(), "it has no default"),
        ("[]".to_owned(), "it has no default"),
        (r#"{"default":[],"default":[]}"#.to_owned(), "twice"),
        ("{".to_owned(), "EOF"),
    ];
    for (text, why) in cases {
        match merged(&text, none) {
            Err(e) => assert!(!why.is_empty() && e.to_string().contains(why), "{text}: {e}"),
            Ok(_) => assert!(why.is_empty(), "{text}"),
        }
    }
    assert_eq!(requirements(&file(anything, &format!(r#""r.io/acme":{reject}"#)), (true, false)), ["sigstoreSigned"]);
    // Once more changes nothing.
    let signed = file(reject, r#""r.io":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}]"#);
    assert_eq!(requirements(&signed, (false, true)), ["signedBy", "sigstoreSigned"]);
    let once = merged(&signed, (false, true)).unwrap();
    assert_eq!(merged(&once.text, (false, true)).unwrap().text, once.text);
    let Merged { warnings, .. } = merged(&file(anything, &format!(r#""r.io/acme/x":{anything}"#)), none).unwrap();
    assert_eq!(warnings, ["policy.json accepts anything of r.io/acme/x, which is in r.io/acme"]);
}

/// With a rejection beside it nothing that is signed could pass.
#[test]
fn what_is_signed_is_an_exception_to_a_rejection() {
    let told = proposal(&[("r.io/acme", "")]);
    let file = r#"{"default":[{"type":"reject"}],"transports":{"docker":{"*.io":[{"type":"reject"}]}}}"#;
    let refused = told.merge(file, "policy.json", (false, false), &[]).unwrap_err();
    let hint = "--inherit accepts what our keys have signed, and the rest is rejected as before";
    assert_eq!(refused.hint().as_deref(), Some(hint));
    let merged = told.merge(file, "policy.json", (false, true), &[]).unwrap();
    let after: Value = serde_json::from_str(&merged.text).unwrap();
    assert_eq!(after["transports"]["docker"]["r.io/acme"], json!(told.scopes[0].1));
    let warning = "policy.json rejects what is not named: of r.io/acme it accepts what our keys have signed";
    assert_eq!(merged.warnings, [warning]);
    // From then on it is ours, and no flag is needed.
    let again = told.merge(&merged.text, "policy.json", (false, false), &merged.notes).unwrap();
    assert_eq!((again.text, again.warnings.len()), (merged.text, 0));
}

/// Which scope podman takes, by containers-policy.json(5): the longest name, then the longest wildcard, then the transport's, then all.
#[test]
fn the_narrowest_of_the_broader_scopes_counts() {
    let told = proposal(&[("r.eu.example:5000/acme", "")]);
    let strict = json!([{"type": "reject"}]);
    let loose = json!([{"type": "insecureAcceptAnything"}]);
    let narrowing = ["", "*.example", "*.eu.example", "r.eu.example:5000"];
    let strangers = ["r.eu.example", "*.u.example", "*.example:5000", "r.eu.example:5000/ac"];
    for (at, name) in narrowing.into_iter().enumerate() {
        // What is broader than the one that counts, and what does not cover it, says the opposite; in either order.
        for (own, other) in [(&strict, &loose), (&loose, &strict)] {
            let others = narrowing[..at].iter().chain(&strangers).map(|name| ((*name).to_owned(), other.clone()));
            let mut scopes: Vec<(String, Value)> = others.chain([(name.to_owned(), own.clone())]).collect();
            for _ in 0..2 {
                scopes.reverse();
                let docker: Map<String, Value> = scopes.iter().cloned().collect();
                let file = json!({"default": other, "transports": {"docker": docker}}).to_string();
                let merged = told.merge(&file, "policy.json", (false, false), &[]);
                assert_eq!(merged.is_err(), own == &strict, "{name}: {file}");
            }
        }
    }
}

#[test]
fn a_short_name_of_docker_hub_is_told_by_its_long_one_too() {
    // In whichever order.
    for scopes in [["docker.io/hr", "docker.io/library/hr"], ["docker.io/library/hr", "docker.io/hr"]] {
        let told = proposal(&scopes.map(|scope| (scope, "")));
        let counts: BTreeSet<(&str, usize)> =
            told.scopes.iter().map(|(scope, list)| (scope.as_str(), list.len())).collect();
        assert_eq!(counts, [("docker.io/hr", 1), ("docker.io/library/hr", 2)].into());
    }
    // What a copy is signed as can be one of them, and is what was written.
    for (written, unsaid) in [("docker.io/hr", 1), ("docker.io/library/hr", 0), ("docker.io/acme/hr", 0)] {
        let told = proposal(&[("r.io/hr", &format!("signed-as = {written:?}"))]);
        assert_eq!(told.scopes[0].1[0]["signedIdentity"]["signedPrefix"], written);
        assert_eq!(told.unsaid.len(), unsaid, "{:?}", told.unsaid);
    }
    // And what is in no registry as containers-storage has it, which is what a signature says.
    let local = proposal(&[("r.io/acme", "signed-as = \"acme\"")]);
    assert_eq!(local.scopes[0].1[0]["signedIdentity"]["signedPrefix"], "localhost/acme");
    let mirrors = [("m.io/hub".to_owned(), "docker.io/library".to_owned())];
    let told = Proposal::of(&policy(&[("docker.io/hr", "")]).mirrored("trust.toml", &mirrors)).unwrap();
    assert!(told.attachments.contains("m.io/hub/hr"));
    let told =
        proposal(&[("docker.io/hr", "signed-as = \"up.io/hr\""), ("docker.io/library", ""), ("docker.io/o/x", "")]);
    let counts: Vec<(&str, usize)> = told.scopes.iter().map(|(scope, list)| (scope.as_str(), list.len())).collect();
    let want = [("docker.io/hr", 1), ("docker.io/library/hr", 2), ("docker.io/library", 1), ("docker.io/o/x", 1)];
    assert_eq!(counts, want);
    let identity = &told.scopes[1].1[0]["signedIdentity"];
    assert_eq!(
        *identity,
        json!({"type": "remapIdentity", "prefix": "docker.io/library/hr", "signedPrefix": "up.io/hr"})
    );
    assert!(want.iter().all(|(name, _)| told.attachments.contains(*name)));
}

/// The narrower one repeats it for its own prefix, which is no other requirement of the file.
#[test]
fn a_scope_below_one_with_another_name_in_its_signatures_is_no_conflict() {
    let told = proposal(&[("r.io/acme", "signed-as = \"up.io/x\""), ("r.io/acme/hr", "")]);
    let file = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
    let merged = told.merge(file, "policy.json", (false, false), &[]).unwrap();
    let after: Value = serde_json::from_str(&merged.text).unwrap();
    assert_eq!(after["transports"]["docker"]["r.io/acme/hr"], json!(told.scopes[1].1));
}

#[test]
fn what_was_written_is_taken_out_and_nothing_else() {
    const PATH: &str = "policy.json";
    let scopes = |text: &str| {
        let file: Value = serde_json::from_str(text).unwrap();
        file["transports"]["docker"].clone()
    };
    let before = r#"{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"r.io/b":[{"type":"reject"}],"r.io/x":[{"type":"reject"}]}}}"#;
    let told = proposal(&[("r.io/a", ""), ("r.io/b", ""), ("r.io/a/c", "")]);
    let wrote = told.merge(before, PATH, (true, false), &[]).unwrap();
    assert_eq!(scopes(&wrote.text).as_object().unwrap().len(), 4);
    let named = |notes: &[Note]| notes.iter().map(|note| (note.scope.clone(), note.before.clone())).collect::<Vec<_>>();
    let reject = json!([{"type": "reject"}]);
    assert_eq!(
        named(&wrote.notes),
        [("r.io/a".into(), Value::Null), ("r.io/b".into(), reject.clone()), ("r.io/a/c".into(), Value::Null)]
    );
    // Once more, without a flag: nothing changes.
    let again = told.merge(&wrote.text, PATH, (false, false), &wrote.notes).unwrap();
    assert_eq!((again.text, again.notes, again.gone), (wrote.text.clone(), wrote.notes.clone(), Vec::new()));
    // Other keys replace what is ours, and what was there before is remembered.
    let other = proposal(&[("r.io/b", "")]);
    let changed = other.merge(&wrote.text, PATH, (false, false), &wrote.notes).unwrap();
    assert_eq!(changed.gone, ["r.io/a", "r.io/a/c"]);
    assert_eq!(named(&changed.notes), [("r.io/b".into(), reject.clone())]);
    assert_ne!(scopes(&changed.text)["r.io/b"], scopes(&wrote.text)["r.io/b"]);
    // All are gone: what was replaced is there again.
    let nothing = Proposal::of(&Policy::default()).unwrap();
    let left = nothing.merge(&changed.text, PATH, (false, false), &changed.notes).unwrap();
    assert_eq!(scopes(&left.text), json!({"r.io/b": reject, "r.io/x": reject}));
    assert_eq!(left.warnings, ["policy.json gets back what it asked of r.io/b before that was replaced"]);
    assert!(left.notes.is_empty());
    // What somebody else has changed stays, and so does what another file has from us.
    let text = wrote.text.replace("sigstoreSigned", "reject");
    let stays = nothing.merge(&text, PATH, (false, false), &wrote.notes).unwrap();
    assert_eq!(scopes(&stays.text), scopes(&text));
    assert_eq!((stays.warnings.len(), stays.gone.len()), (3, 0));
    // Its signatures are still read, and what it was is still known.
    assert_eq!(stays.notes.len(), 3);
    let names = nothing.reading(&stays.notes, &told.registries_d()).attachments;
    assert_eq!(names, told.attachments);
    assert_eq!(told.reading(&wrote.notes, "docker:\n  r.io/old:\n").attachments, told.attachments);
    let elsewhere = nothing.merge(&wrote.text, "other.json", (false, false), &wrote.notes).unwrap();
    assert_eq!((scopes(&elsewhere.text), elsewhere.notes), (scopes(&wrote.text), wrote.notes));
    // What was there already and is the same is not ours.
    let same = told.merge(&again_without_notes(&told, before), PATH, (false, false), &[]).unwrap();
    assert_eq!(same.notes, []);
}

fn again_without_notes(told: &Proposal, text: &str) -> String {
    told.merge(text, "policy.json", (true, false), &[]).unwrap().text
}
