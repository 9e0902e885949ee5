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
    let merged = |text: &str, how| told.merge(text, "policy.json", how);
    let requirements = |text: &str, how| {
        let (text, _) = merged(text, how).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
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
    assert_eq!(requirements(&file(reject, ""), (false, true)), ["reject", "sigstoreSigned"]);
    assert_eq!(requirements(&file(anything, &format!(r#""r.io/acme":{reject}"#)), (true, false)), ["sigstoreSigned"]);
    // Once more changes nothing.
    let (once, _) = merged(&file(reject, ""), (false, true)).unwrap();
    assert_eq!(merged(&once, (false, true)).unwrap().0, once);
    let (_, warnings) = merged(&file(anything, &format!(r#""r.io/acme/x":{anything}"#)), none).unwrap();
    assert_eq!(warnings, ["policy.json accepts anything of r.io/acme/x, which is in r.io/acme"]);
}
