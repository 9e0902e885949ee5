use super::*;
use crate::trust::private_key::PrivateKey;

fn key() -> String {
    PrivateKey::generate().unwrap().0.public().to_pem()
}

fn policy(text: &str) -> Result<Policy> {
    let mut policy = Policy::default();
    policy.add(text, "trust.toml", &|name, _| {
        Err(Error::Unavailable { reason: format!("no file {name}"), hint: None })
    })?;
    Ok(policy)
}

fn scope(prefix: &str, rest: &str) -> String {
    format!("[[scope]]\nprefix = {prefix:?}\nkeys = ['''{}''']\n{rest}\n", key())
}

#[test]
fn all_scopes_count_that_a_name_is_in() {
    let text = [scope("registry.example/acme", ""), scope("registry.example/acme/hr", ""), scope("local", "")].concat();
    let policy = policy(&text).unwrap();
    let cases = [
        ("registry.example/acme/hr:1.0.0", 2),
        ("registry.example/acme/hr/x:1.0.0", 2),
        ("registry.example/acme/hrx", 1),
        ("registry.example/acme", 1),
        ("registry.example/acmes/hr", 0),
        ("localhost/local/hr:1", 1),
        ("registry.example:5000/acme/hr", 0),
    ];
    for (text, count) in cases {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(policy.rules(&reference).unwrap().len(), count, "{text}");
        assert_eq!(policy.covering(&reference).count(), count, "{text}");
    }
}

#[test]
fn another_spelling_leads_around_no_scope() {
    let scopes = ["docker.io/library/hr", "docker.io/legal", "docker.io/o", "r.io/acme", "R.io:0443/x"];
    let text: String = scopes.iter().map(|prefix| scope(prefix, "")).collect();
    let policy = policy(&text).unwrap();
    let cases = [
        ("docker.io/hr:1", Some("docker.io/library/hr")),
        ("index.docker.io/library/hr:1", Some("docker.io/library/hr")),
        ("docker.io/library/legal:1", Some("docker.io/legal")),
        ("docker.io/legal/x:1", Some("docker.io/legal")),
        ("docker.io/library/legal/x:1", None),
        ("registry-1.docker.io:443/o/x:1", Some("docker.io/o")),
        ("r.io:0443/acme/hr:1", Some("r.io/acme")),
        ("r.io/x/hr:1", Some("r.io/x")),
        ("r.io:4430/acme/hr:1", None),
    ];
    for (text, want) in cases {
        let reference: Reference = text.parse().unwrap();
        let found: Vec<&str> = policy.covering(&reference).map(|scope| scope.prefix.as_str()).collect();
        assert_eq!(found, want.into_iter().collect::<Vec<_>>(), "{text}");
    }
}

#[test]
fn names_are_mapped_by_scopes_and_mirrors() {
    let text = [scope("mirror.example/a", "signed-as = \"upstream.example/b\""), scope("quay.io", "")].concat();
    let mirrors = vec![("quay.io/mirror".to_owned(), "docker.io".to_owned())];
    let policy = policy(&text).unwrap().mirrored("trust.toml", &mirrors);
    let cases: [(&str, &[&str]); 3] = [
        ("mirror.example/a/hr:1", &["upstream.example/b/hr"]),
        ("quay.io/mirror/o/hr:1", &["quay.io/mirror/o/hr", "docker.io/o/hr"]),
        ("quay.io/mirrors/hr:1", &["quay.io/mirrors/hr"]),
    ];
    for (text, want) in cases {
        let reference: Reference = text.parse().unwrap();
        let rules = policy.rules(&reference).unwrap();
        assert_eq!(rules.iter().map(|rule| rule.names(&reference)).collect::<Vec<_>>(), [want], "{text}");
    }
    // Those of one file widen no scope of another.
    let policy = policy.mirrored("other.toml", &[("quay.io/o".to_owned(), "evil.example".to_owned())]);
    let reference: Reference = "quay.io/o/hr:1".parse().unwrap();
    assert_eq!(policy.rules(&reference).unwrap()[0].names(&reference), ["quay.io/o/hr"]);
}

#[test]
fn what_cannot_be_meant_is_a_mistake() {
    let cases = [
        ("[[scope]]\nprefix = \"acme\"", "trust.toml: \"acme\" asks for nothing: it has neither keys nor states ("),
        ("[[scope]]\nprefix = \"acme\"\npin = true\nstates = [\"draft\"]", "trust.toml: \"acme\" has no keys, whose"),
        (
            "[[scope]]\nprefix = \"acme\"\nstates = [\"done\"]",
            "trust.toml: states of \"acme\" has \"done\", which is no",
        ),
        ("[[scope]]\nprefix = \"acme/*\"\nstates = [\"draft\"]", "trust.toml: \"acme/*\" is no name of a repository"),
        ("[[scope]]\nprefix = \"acme\"\nkeys = [\"no.pub\"]", "trust.toml: no file no.pub"),
        (
            "[[scope]]\nprefix = \"acme\"\nkeys = [\"-----BEGIN X-----\"]",
            "trust.toml: a key of \"acme\" is no public key",
        ),
        (
            "[[scope]]\nprefix = \"acme\"\ntrusted-root = \"r\"\nstates = [\"draft\"]",
            "trust.toml: \"acme\" has a trusted-root, and no identities",
        ),
        (
            "[[scope]]\nprefix = \"acme\"\nidentities = [{ identity = \"a\", issuer = \"b\" }]",
            "trust.toml: \"acme\" has identities, and no trusted-root that is believed",
        ),
        (
            "[[scope]]\nprefix = \"acme\"\ntrusted-root = \"r\"\nidentities = [{ identity = \"a\", issuer = \"b\" }]",
            "trust.toml: no file r",
        ),
        (
            "[[scope]]\nprefix = \"acme\"\nidentities = [{ identity = \"a\", issued = \"b\" }]",
            "trust.toml: line 3: unknown field `issued`",
        ),
        ("[[scope]]\nprefix = \"acme\"\nkey = \"x\"", "trust.toml: line 3: unknown field `key`"),
        ("scopes = 1", "trust.toml: line 1: unknown field `scopes`"),
        ("[[scope]]\nkeys = []", "trust.toml: line 1: missing field `prefix`"),
    ];
    for (text, want) in cases {
        let error = policy(text).unwrap_err().to_string();
        assert!(error.starts_with(want), "{text}: {error}");
    }
}

#[test]
fn nothing_may_be_used_by_a_policy_that_nobody_can_read() {
    let broken = Policy::unreadable(&policy("=").unwrap_err());
    let reference: Reference = "anything".parse().unwrap();
    assert!(!broken.is_empty());
    assert!(broken.rules(&reference).unwrap_err().to_string().starts_with("trust.toml: line 1: "));
    assert!(Policy::default().rules(&reference).unwrap().is_empty());
}

#[test]
fn a_name_leaves_scopes_that_ask_for_more() {
    let (one, other) = (key(), key());
    let scope = |prefix: &str, keys: &[&String], rest: &str| {
        let keys: Vec<String> = keys.iter().map(|key| format!("'''{key}'''")).collect();
        format!("[[scope]]\nprefix = {prefix:?}\nkeys = [{}]\n{rest}\n", keys.join(", "))
    };
    let draft = "[[scope]]\nprefix = \"draft\"\nstates = [\"draft\"]\n";
    let text = [
        scope("acme", &[&one], ""),
        scope("acme/hr", &[&one, &other], "states = [\"draft\", \"testing\"]"),
        scope("same", &[&one], "states = [\"draft\"]"),
        scope("wider", &[&one, &other], ""),
        scope("attested", &[&one], "attestations = [\"spdx\"]"),
        draft.to_owned(),
    ];
    let policy = policy(&text.concat()).unwrap();
    let cases: [(&str, &str, &[&str]); 10] = [
        ("acme/hr", "acme/hr", &[]),
        ("acme/hr", "acme/legal", &["acme/hr"]),
        ("acme/legal", "acme/hr", &[]),
        ("acme/hr", "same/hr", &[]),
        ("acme/hr", "wider/hr", &["acme", "acme/hr"]),
        ("acme/hr", "draft/hr", &["acme", "acme/hr"]),
        ("acme/hr", "other/hr", &["acme", "acme/hr"]),
        ("acme/legal", "attested/hr", &[]),
        ("attested/hr", "acme/legal", &["attested"]),
        ("other/hr", "acme/hr", &[]),
    ];
    for (from, to, want) in cases {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        let left: Vec<&str> = policy.left(&from, &to).into_iter().map(|scope| scope.prefix.as_str()).collect();
        assert_eq!(left, want, "{from} {to}");
    }
}
