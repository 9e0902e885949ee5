use super::*;

const ETC: &str = "/etc/containers/registries.conf";

fn paths() -> ConfPaths {
    ConfPaths { uid: 1000, home: Some("/home/u".into()), ..ConfPaths::default() }
}

fn conf(text: &str) -> RegistriesConf {
    RegistriesConf::read(&paths(), &Files::of(&[(ETC, text)])).unwrap()
}

fn names(conf: &RegistriesConf, reference: &str) -> Vec<String> {
    let endpoints = conf.endpoints(&reference.parse().unwrap()).unwrap();
    let mark = |on: bool, mark: &'static str| if on { mark } else { "" };
    endpoints
        .iter()
        .map(|e| format!("{}{}{}", mark(e.mirror, "mirror "), e.reference, mark(e.insecure, " insecure")))
        .collect()
}

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn places_of_an_image() {
    let conf = conf(
        r#"
        unqualified-search-registries = ["docker.io"]
        [[registry]]
        location = "plain.example"
        insecure = true
        [[registry]]
        prefix = "quay.io/acme"
        location = "internal.example/bar/"
        [[registry.mirror]]
        location = "m1.example:5000/q"
        insecure = true
        [[registry.mirror]]
        location = "m2.example"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "m3.example"
        pull-from-mirror = "tag-only"
        [[registry]]
        prefix = "quay.io/acme/pinned"
        location = "quay.io/acme/pinned"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "m4.example/p"
        [[registry]]
        prefix = "quay.io/acme/one:1"
        location = "other.example/one:2"
        [[registry]]
        prefix = "*.wild.example"
        insecure = true
        [[registry]]
        prefix = "*.to.example"
        location = "to.example/below"
        [[registry]]
        prefix = "docker.io/library"
        location = "hub.example/l"
        "#,
    );
    let pinned = format!("quay.io/acme/pinned@{DIGEST}");
    let hr = format!("quay.io/acme/hr@{DIGEST}");
    let cases: &[(&str, &[&str])] = &[
        ("ghcr.io/a/b:1", &["ghcr.io/a/b:1"]),
        ("plain.example/a:1", &["plain.example/a:1 insecure"]),
        ("plain.example.org/a:1", &["plain.example.org/a:1"]),
        // What podman calls unintended, and does.
        ("plain.example:5000/a", &["plain.example:5000/a insecure"]),
        (
            "quay.io/acme/hr:1",
            &["mirror m1.example:5000/q/hr:1 insecure", "mirror m3.example/hr:1", "internal.example/bar/hr:1"],
        ),
        (
            &hr,
            &[
                &format!("mirror m1.example:5000/q/hr@{DIGEST} insecure"),
                &format!("mirror m2.example/hr@{DIGEST}"),
                &format!("internal.example/bar/hr@{DIGEST}"),
            ],
        ),
        ("quay.io/acmes/hr:1", &["quay.io/acmes/hr:1"]),
        ("quay.io/acme/pinned:1", &["quay.io/acme/pinned:1"]),
        (&pinned, &[&format!("mirror m4.example/p@{DIGEST}"), &pinned]),
        ("quay.io/acme/one:1", &["other.example/one:2"]),
        ("a.b.wild.example/x:1", &["a.b.wild.example/x:1 insecure"]),
        ("wild.example/x:1", &["wild.example/x:1"]),
        ("ghcr.io/a.wild.example/x:1", &["ghcr.io/a.wild.example/x:1"]),
        ("a.to.example/x:1", &["to.example/below/x:1"]),
        ("docker.io/alpine:1", &["hub.example/l/alpine:1"]),
        ("docker.io/library/alpine", &["hub.example/l/alpine"]),
        ("docker.io/acme/hr", &["docker.io/acme/hr"]),
    ];
    for (reference, want) in cases {
        assert_eq!(names(&conf, reference), *want, "{reference}");
    }
    // Writing goes to the name itself.
    let origin = conf.origin(&"quay.io/acme/hr:1".parse().unwrap()).unwrap();
    assert_eq!((origin.reference.to_string().as_str(), origin.named), ("quay.io/acme/hr:1", true));
    assert!(conf.origin(&"plain.example/a:1".parse().unwrap()).unwrap().insecure);
}

#[test]
fn hosts_and_repositories() {
    let cases = [
        ("docker.io/alpine:1", "docker.io", "registry-1.docker.io", "library/alpine"),
        ("index.docker.io/a/b", "docker.io", "registry-1.docker.io", "a/b"),
        ("localhost:5000/a/b", "localhost:5000", "localhost:5000", "a/b"),
        ("[::1]:5000/a", "[::1]:5000", "[::1]:5000", "a"),
    ];
    for (reference, registry, host, repository) in cases {
        let endpoints = RegistriesConf::default().endpoints(&reference.parse().unwrap()).unwrap();
        let [endpoint] = &endpoints[..] else { panic!("{endpoints:?}") };
        assert_eq!((endpoint.registry(), endpoint.host(), endpoint.repository()), (registry, host, repository));
    }
    let error = RegistriesConf::default().endpoints(&"acme/hr:1".parse().unwrap()).unwrap_err();
    assert!(error.to_string().ends_with("it names no registry, such as quay.io/"), "{error}");
}

#[test]
fn a_blocked_registry_is_named_with_its_file() {
    let conf = conf("[[registry]]\nlocation = \"bad.example/x\"\nblocked = true\n");
    let reference: Reference = "bad.example/x/y:1".parse().unwrap();
    for error in [conf.endpoints(&reference).unwrap_err(), conf.origin(&reference).unwrap_err()] {
        assert_eq!(error.to_string(), format!("bad.example: {ETC} blocks bad.example/x"));
        assert_eq!(error.fault(), Some(Fault::Forbidden));
    }
}

/// What is set, the files, and where `r.io/x` is read.
type Case<'a> = (&'a ConfPaths, &'a [(&'a str, &'a str)], &'a str);

#[test]
fn files_count_in_order() {
    const USER: &str = "/home/u/.config/containers/registries.conf";
    const USER_DROP: &str = "/home/u/.config/containers/registries.conf.d/1.conf";
    const DROP: &str = "/etc/containers/registries.conf.d/1.conf";
    let to = |location: &str| format!("[[registry]]\nprefix = \"r.io\"\nlocation = \"{location}\"\n");
    let named = ConfPaths { registries_conf: Some("/named".into()), ..paths() };
    let [a, b, c] = ["a.io", "b.io", "c.io"].map(to);
    let cases: &[Case] = &[
        (&paths(), &[], "r.io/x"),
        (&paths(), &[(ETC, &a), ("/usr/share/containers/registries.conf", &b)], "a.io/x"),
        (&paths(), &[("/usr/share/containers/registries.conf", &b)], "b.io/x"),
        (&paths(), &[(ETC, &a), (USER, &b)], "b.io/x"),
        (&paths(), &[(ETC, &a), (DROP, &b)], "b.io/x"),
        (&paths(), &[(ETC, &a), (DROP, &b), ("/etc/containers/registries.conf.d/0.conf", &c)], "b.io/x"),
        (&paths(), &[(ETC, &a), ("/etc/containers/registries.conf.d/1.txt", &b)], "a.io/x"),
        (&paths(), &[(ETC, &a), (DROP, &b), (USER_DROP, &c)], "c.io/x"),
        // The file of the user ends what the system's directory says.
        (&paths(), &[(USER, &a), (DROP, &b)], "a.io/x"),
        (&paths(), &[(USER, &a), (USER_DROP, &b)], "b.io/x"),
        (&named, &[("/named", &a), (USER, &b), (ETC, &c)], "a.io/x"),
        (&named, &[("/named", &a), (DROP, &b)], "b.io/x"),
        (&named, &[(ETC, &c)], "r.io/x"),
    ];
    for (paths, files, want) in cases {
        let conf = RegistriesConf::read(paths, &Files::of(files)).unwrap();
        assert_eq!(names(&conf, "r.io/x"), [*want], "{files:?}");
    }
}

#[test]
fn aliases_are_merged() {
    let files = Files::of(&[
        (ETC, "[aliases]\n\"hr\" = \"quay.io/acme/hr\"\n\"gone\" = \"quay.io/acme/gone\"\n"),
        ("/etc/containers/registries.conf.d/1.conf", "[aliases]\n\"gone\" = \"\"\n\"a/b\" = \"quay.io/a/b\"\n"),
        ("/home/u/.cache/containers/short-name-aliases.conf", "[aliases]\n\"a/b\" = \"quay.io/c/d\"\n"),
        ("/var/cache/containers/short-name-aliases.conf", "[aliases]\n\"root\" = \"quay.io/root\"\n"),
    ]);
    let user = RegistriesConf::read(&paths(), &files).unwrap();
    let root = RegistriesConf::read(&ConfPaths { uid: 0, ..paths() }, &files).unwrap();
    let cases = [
        (&user, "hr", Some("quay.io/acme/hr")),
        (&user, "gone", None),
        (&user, "a/b", Some("quay.io/c/d")),
        (&user, "root", None),
        (&root, "root", Some("quay.io/root")),
        (&root, "a/b", Some("quay.io/a/b")),
    ];
    for (conf, name, want) in cases {
        assert_eq!(conf.alias(name), want, "{name}");
    }
}

#[test]
fn what_podman_refuses_is_refused_by_file() {
    let cases = [
        ("[[registry]]\n", "a [[registry]] has neither prefix nor location"),
        ("[[registry]]\nprefix = \"a.io\"\n", "the [[registry]] with prefix \"a.io\" has no location"),
        ("[[registry]]\nlocation = \"https://a.io\"\n", "\"https://a.io\" must not begin with a scheme"),
        (
            "[[registry]]\nlocation = \"a.io\"\n[[registry.mirror]]\ninsecure = true\n",
            "a mirror of \"a.io\" has no location",
        ),
        (
            "[[registry]]\nlocation = \"a.io\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"b.io\"\npull-from-mirror = \"tag-only\"\n",
            "\"a.io\" has both mirror-by-digest-only and pull-from-mirror",
        ),
    ];
    for (text, want) in cases {
        let error = RegistriesConf::read(&paths(), &Files::of(&[(ETC, text)])).unwrap_err();
        assert_eq!(error.to_string(), format!("{ETC}: {want}"));
    }
    let error = RegistriesConf::read(&paths(), &Files::of(&[(ETC, "[[registry\n")])).unwrap_err();
    assert!(error.to_string().starts_with(ETC), "{error}");
}

#[test]
fn the_first_format_is_understood() {
    let conf = conf(
        "[registries.search]\nregistries = [\"a.io\"]\n[registries.insecure]\nregistries = [\"b.io\"]\n[registries.block]\nregistries = [\"c.io\"]\n",
    );
    assert_eq!(names(&conf, "b.io/x"), ["b.io/x insecure"]);
    assert!(conf.endpoints(&"c.io/x".parse().unwrap()).is_err());
}
