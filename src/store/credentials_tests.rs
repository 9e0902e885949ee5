use super::*;

const PRIMARY: &str = "/run/user/1000/containers/auth.json";
const CONFIG: &str = "/home/u/.config/containers/auth.json";
const DOCKER: &str = "/home/u/.docker/config.json";
const SECRET: &str = "/dc/.dockerconfigjson";

fn paths() -> AuthPaths {
    AuthPaths {
        uid: 1000,
        home: Some("/home/u".into()),
        xdg_runtime_dir: Some("/run/user/1000".into()),
        ..AuthPaths::default()
    }
}

fn find(paths: &AuthPaths, files: &[(&str, &str)], name: &str) -> Result<Option<Credentials>> {
    Keyring::new(paths.clone(), Files::of(files), &[], Cancel::default()).find(&name.parse().unwrap())
}

/// An auth.json in which each key has a user of the second name.
fn auths(entries: &[(&str, &str)]) -> String {
    let entry = |(key, user): &(&str, &str)| {
        format!(r#""{key}":{{"auth":"{}"}}"#, STANDARD.encode(format!("{user}:pass:word")))
    };
    format!(r#"{{"auths":{{{}}}}}"#, entries.iter().map(entry).collect::<Vec<_>>().join(","))
}

/// Where to look, the files, what for, and the user that is found.
type Case<'a> = (&'a AuthPaths, &'a [(&'a str, &'a str)], &'a str, Option<&'a str>);

#[test]
fn the_narrowest_key_of_the_first_file_counts() {
    let all = auths(&[("r.io", "host"), ("r.io/a", "ns"), ("r.io/a/b", "repo"), ("s.io:5000", "port")]);
    let other = auths(&[("r.io", "other"), ("t.io", "t")]);
    let urls = auths(&[("https://index.docker.io/v1/", "hub"), ("https://r.io/v2/", "url"), ("http://p.io", "plain")]);
    let legacy = r#"{"https://old.io/v1/":{"auth":"b2xkOnA=","email":"x"}}"#;
    let env = AuthPaths { authfile: Some("/given".into()), ..paths() };
    let docker = AuthPaths { docker_config: Some("/dc".into()), ..paths() };
    let named = AuthPaths { authfile: Some("/given".into()), ..docker.clone() };
    let xdg = AuthPaths { xdg_config_home: Some("/xc".into()), ..paths() };
    let bare = AuthPaths { uid: 7, home: None, ..AuthPaths::default() };
    let cases: &[Case] = &[
        (&paths(), &[], "r.io/a/b", None),
        (&paths(), &[(PRIMARY, &all)], "r.io/a/b:1", Some("repo")),
        (&paths(), &[(PRIMARY, &all)], "r.io/a/c", Some("ns")),
        (&paths(), &[(PRIMARY, &all)], "r.io/ab", Some("host")),
        (&paths(), &[(PRIMARY, &all)], "s.io:5000/x", Some("port")),
        (&paths(), &[(PRIMARY, &all)], "s.io/x", None),
        (&paths(), &[(PRIMARY, &all), (CONFIG, &other)], "t.io/x", Some("t")),
        (&paths(), &[(PRIMARY, &all), (CONFIG, &other)], "r.io/x", Some("host")),
        (&paths(), &[(PRIMARY, ""), (DOCKER, &urls)], "r.io/x", Some("url")),
        (&paths(), &[(DOCKER, &urls)], "docker.io/library/x", Some("hub")),
        (&paths(), &[(DOCKER, &urls)], "p.io/x", Some("plain")),
        (&paths(), &[("/home/u/.dockercfg", legacy)], "old.io/x", Some("old")),
        (&paths(), &[(PRIMARY, r#"{"auths":{"r.io":{}}}"#), (CONFIG, &other)], "r.io/x", Some("other")),
        (&paths(), &[(PRIMARY, r#"{"auths":{"r.io":{"auth":"!"}}}"#)], "r.io/x", None),
        (&paths(), &[(PRIMARY, r#"{"auths":null}"#)], "r.io/x", None),
        // A file after the one that has some is not read.
        (&paths(), &[(PRIMARY, &all), (CONFIG, "junk")], "r.io/x", Some("host")),
        (&env, &[(PRIMARY, &all), ("/given", &other)], "r.io/x", Some("other")),
        (&env, &[(PRIMARY, &all), ("/given", &other)], "s.io:5000/x", None),
        (&docker, &[("/dc/config.json", &other), (DOCKER, &all)], "r.io/x", Some("other")),
        // A pull secret as it is mounted counts as Docker's configuration where there is none beside it.
        (&docker, &[(SECRET, &other), (DOCKER, &all)], "r.io/x", Some("other")),
        (&docker, &[(SECRET, &other)], "t.io/x", Some("t")),
        (&docker, &[(SECRET, &other), (PRIMARY, &all)], "r.io/x", Some("host")),
        (&docker, &[(SECRET, &other), (CONFIG, &all)], "r.io/x", Some("host")),
        (&docker, &[(SECRET, &other), (CONFIG, &all)], "t.io/x", Some("t")),
        (&docker, &[(SECRET, &all), ("/home/u/.dockercfg", legacy)], "old.io/x", Some("old")),
        (&docker, &[(SECRET, &other), ("/dc/config.json", &all)], "r.io/x", Some("host")),
        (&docker, &[(SECRET, &other), ("/dc/config.json", "{}")], "t.io/x", None),
        (&named, &[(SECRET, &other), ("/given", "{}")], "r.io/x", None),
        // And only where DOCKER_CONFIG says.
        (&paths(), &[("/home/u/.docker/.dockerconfigjson", &other)], "r.io/x", None),
        (&xdg, &[("/xc/containers/auth.json", &other), (CONFIG, &all)], "r.io/x", Some("other")),
        (&bare, &[("/run/containers/7/auth.json", &other)], "r.io/x", Some("other")),
    ];
    for (paths, files, name, user) in cases {
        let found = find(paths, files, name).unwrap();
        assert_eq!(found.as_ref().map(|c| c.username.as_str()), *user, "{name} {files:?}");
        if user.is_some_and(|user| user != "old") {
            assert_eq!(found.unwrap().password, "pass:word");
        }
    }
}

#[test]
fn identity_tokens() {
    let file = r#"{"auths":{"r.io":{"auth":"dTo=","identitytoken":"t"}}}"#;
    let found = find(&paths(), &[(PRIMARY, file)], "r.io/x").unwrap().unwrap();
    assert_eq!((found.username.as_str(), found.identity_token.as_deref()), ("u", Some("t")));
}

#[test]
fn secrets_are_not_shown() {
    let credentials = Credentials { identity_token: Some("hidden".into()), ..Credentials::new("u", "secret") };
    assert_eq!(format!("{credentials:?}"), r#"Credentials { username: "u", .. }"#);
    let error = find(&paths(), &[(PRIMARY, r#"{"auths":"secret"}"#)], "r.io/x").unwrap_err();
    let text = format!("{PRIMARY} is not what containers-auth.json(5) describes, at line 1, column 17");
    assert_eq!(error.to_string(), text);
    let named = AuthPaths { authfile: Some("/given".into()), ..paths() };
    assert_eq!(find(&named, &[], "r.io/x").unwrap_err().to_string(), "/given cannot be read");
}

#[test]
fn an_auth_file_for_another_tool_reads_back() {
    let token = Credentials { identity_token: Some("t".into()), ..Credentials::new("<token>", "") };
    for (credentials, name) in [
        (Credentials::new("u", "p:w"), "r.io:5000/a/b:1"),
        (token, "r.io/a"),
        (Credentials::new("u", "p"), "docker.io/x"),
    ] {
        let file = credentials.auth_json(&name.parse().unwrap()).unwrap();
        let file = String::from_utf8(file).unwrap();
        assert_eq!(find(&paths(), &[(PRIMARY, &file)], name).unwrap(), Some(credentials), "{file}");
    }
    let file = Credentials::new("u", "p").auth_json(&"r.io/a:1".parse().unwrap()).unwrap();
    assert_eq!(String::from_utf8(file).unwrap(), r#"{"auths":{"r.io":{"auth":"dTpw"}}}"#);
    assert!(Credentials::new("u", "p").auth_json(&"a/b".parse().unwrap()).is_err());
}

#[test]
fn answers_of_helpers() {
    let registry = "r.io";
    let cases = [
        (
            r#"read host; echo "{\"ServerURL\":\"x\",\"Username\":\"$1-$host\",\"Secret\":\"s\"}""#,
            Ok(Some(("get-r.io", "s", None))),
        ),
        (r#"echo '{"Username":"<token>","Secret":"t"}'"#, Ok(Some(("<token>", "", Some("t"))))),
        ("echo 'credentials not found in native keychain'; exit 1", Ok(None)),
        ("echo locked; exit 1", Err("docker-credential-test: locked")),
        ("echo words >&2; exit 1", Err("sh: words")),
        ("echo secret", Err("docker-credential-test: its answer is not the JSON of a helper")),
    ];
    for (script, want) in cases {
        let keyring = Keyring::new(paths(), Files::of(&[]), &[], Cancel::default());
        let process = Process::new("sh").arg("-c").arg(script).arg("helper");
        let found = keyring.answer("docker-credential-test", process, registry);
        match (found, want) {
            (Ok(found), Ok(want)) => {
                let found = found.as_ref();
                let found = found.map(|c| (c.username.as_str(), c.password.as_str(), c.identity_token.as_deref()));
                assert_eq!(found, want, "{script}");
            }
            (Err(error), Err(want)) => assert_eq!(error.to_string(), want, "{script}"),
            (found, want) => panic!("{script}: {found:?}, not {want:?}"),
        }
    }
}

/// The file, the configured helpers, and what comes of it.
type HelperCase<'a> = (&'a str, &'a [&'a str], Result<Option<&'a str>, &'a str>);

#[test]
fn helpers_that_are_asked() {
    let none = auths(&[("r.io", "file")]);
    let configured = r#"{"auths":{"r.io":{"auth":"dTpw"}},"credHelpers":{"r.io":"missing-test"}}"#;
    let store = r#"{"auths":{"r.io":{}},"credsStore":"missing-test"}"#;
    let path = r#"{"credHelpers":{"r.io":"../x"}}"#;
    let missing = "docker-credential-missing-test is not installed";
    let cases: &[HelperCase] = &[
        (&none, &[], Ok(Some("file"))),
        (configured, &[], Err(missing)),
        (store, &[], Err(missing)),
        (path, &[], Err("docker-credential-../x: a credential helper is a name, not a path")),
        (&none, &["missing-test"], Err(missing)),
        (&none, &["containers-auth.json", "missing-test"], Ok(Some("file"))),
        ("{}", &["containers-auth.json", "missing-test"], Err(missing)),
    ];
    for (file, helpers, want) in cases {
        let helpers: Vec<String> = helpers.iter().map(|h| (*h).to_owned()).collect();
        let keyring = Keyring::new(paths(), Files::of(&[(PRIMARY, file)]), &helpers, Cancel::default());
        let found = keyring.find(&"r.io/x".parse().unwrap());
        match (found, want) {
            (Ok(found), Ok(want)) => assert_eq!(found.map(|c| c.username).as_deref(), *want),
            (Err(error), Err(want)) => assert_eq!(error.to_string(), *want),
            (found, want) => panic!("{file}: {found:?}, not {want:?}"),
        }
    }
}
