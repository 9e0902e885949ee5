use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use super::*;
use crate::redact::without_credentials;

fn parse(text: &str) -> GitSource {
    GitSource::parse(text).unwrap_or_else(|| panic!("{text} is an address")).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Address; what git is told; revision, directory, what is open; owner.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

#[test]
fn addresses_are_understood() {
    let cases: [Case; 40] = [
        ("https://github.com/Acme/skills", "https://github.com/Acme/skills.git", "", "", "", "acme"),
        ("https://github.com/acme/skills/", "https://github.com/acme/skills.git", "", "", "", "acme"),
        ("https://github.com/acme/skills.git", "https://github.com/acme/skills.git", "", "", "", "acme"),
        ("http://www.GitHub.com/acme/skills", "https://github.com/acme/skills.git", "", "", "", "acme"),
        ("HTTPS://github.com/acme/skills", "https://github.com/acme/skills.git", "", "", "", "acme"),
        ("https://github.com/acme/skills?tab=readme-ov-file", "https://github.com/acme/skills.git", "", "", "", "acme"),
        ("https://github.com/acme/s/tree/main", "https://github.com/acme/s.git", "main", "", "", "acme"),
        ("https://github.com/acme/s/tree/a/b/c", "https://github.com/acme/s.git", "", "", "a/b/c", "acme"),
        (
            "https://github.com/acme/s/tree/main/my%20skill/",
            "https://github.com/acme/s.git",
            "",
            "",
            "main/my skill",
            "acme",
        ),
        ("https://github.com/acme/s/blob/main/x/SKILL.md", "https://github.com/acme/s.git", "", "", "main/x", "acme"),
        ("https://github.com/acme/s/blob/main/SKILL.md#L3", "https://github.com/acme/s.git", "main", "", "", "acme"),
        (
            "https://github.com/acme/s/blob/main/x/run.sh#L1-L2",
            "https://github.com/acme/s.git",
            "",
            "",
            "main/x",
            "acme",
        ),
        ("https://github.com/acme/s/commit/0123abc", "https://github.com/acme/s.git", "0123abc", "", "", "acme"),
        ("https://github.com/my_org/s", "https://github.com/my_org/s.git", "", "", "", ""),
        ("https://github.com/acme/s#v1", "https://github.com/acme/s.git", "v1", "", "", "acme"),
        ("https://github.com/acme/s#v1:a/b", "https://github.com/acme/s.git", "v1", "a/b", "", "acme"),
        ("https://github.com/acme/s#v1:a/b/SKILL.md", "https://github.com/acme/s.git", "v1", "a/b", "", "acme"),
        ("https://github.com/acme/s#feature/x:a", "https://github.com/acme/s.git", "feature/x", "a", "", "acme"),
        ("https://github.com/acme/s#:a/", "https://github.com/acme/s.git", "", "a", "", "acme"),
        (
            "https://github.com/acme/s#:.claude/skills",
            "https://github.com/acme/s.git",
            "",
            ".claude/skills",
            "",
            "acme",
        ),
        ("https://github.com/acme/s#", "https://github.com/acme/s.git", "", "", "", "acme"),
        ("https://gitlab.com/g/sub/s", "https://gitlab.com/g/sub/s.git", "", "", "", "g"),
        ("https://gitlab.com/g/sub/s/-/tree/main/a/b", "https://gitlab.com/g/sub/s.git", "", "", "main/a/b", "g"),
        (
            "https://gitlab.com/g/sub/s/-/tree/main?ref_type=heads",
            "https://gitlab.com/g/sub/s.git",
            "main",
            "",
            "",
            "g",
        ),
        ("https://git.example:8443/g/s/-/blob/v1/a/SKILL.md", "https://git.example:8443/g/s.git", "", "", "v1/a", "g"),
        ("http://git.example/g/s/-/tree/v1", "http://git.example/g/s.git", "v1", "", "", "g"),
        ("https://git.example/g/s", "https://git.example/g/s", "", "", "", "g"),
        ("https://git.example/g/s.git#v1", "https://git.example/g/s.git", "v1", "", "", "g"),
        ("https://git.example/s.git", "https://git.example/s.git", "", "", "", ""),
        ("https://[::1]:8443/g/s.git", "https://[::1]:8443/g/s.git", "", "", "", "g"),
        ("git+https://git.example/g/s", "https://git.example/g/s", "", "", "", "g"),
        ("git+ssh://git@git.example/g/s", "ssh://git@git.example/g/s", "", "", "", "g"),
        ("ssh://git@git.example:22/g/s#main", "ssh://git@git.example:22/g/s", "main", "", "", "g"),
        ("git://git.example/g/s", "git://git.example/g/s", "", "", "", "g"),
        ("file:///srv/git/s.git#main:a", "file:///srv/git/s.git", "main", "a", "", ""),
        ("file:///srv/my repositories/s", "file:///srv/my repositories/s", "", "", "", ""),
        ("git@github.com:acme/s.git", "git@github.com:acme/s.git", "", "", "", "acme"),
        ("git@github.com:acme/s.git#v1:a", "git@github.com:acme/s.git", "v1", "a", "", "acme"),
        ("https://u:t@github.com/acme/s", "https://u:t@github.com/acme/s.git", "", "", "", "acme"),
        ("https://u:t@git.example/g/s", "https://u:t@git.example/g/s", "", "", "", "g"),
    ];
    for (text, url, reference, path, tree, owner) in cases {
        let source = parse(text);
        let got = (
            source.url.as_str(),
            source.reference.as_deref().unwrap_or_default(),
            source.path.as_str(),
            source.tree.as_deref().unwrap_or_default(),
            source.owner.as_deref().unwrap_or_default(),
        );
        assert_eq!(got, (url, reference, path, tree, owner), "{text}");
        // The canonical text means the same, without credentials.
        let again = parse(&source.to_string());
        assert_eq!(again, GitSource { url: source.shown.clone(), ..source.clone() }, "{text}");
        assert_eq!(again.to_string(), source.to_string());
    }
}

#[test]
fn other_words_are_no_addresses() {
    let words = [
        "",
        ".",
        "./dir",
        "/srv/dir",
        "acme/hr:1.0.0",
        "quay.io/acme/hr",
        "localhost:5000/acme/hr:1",
        "hr@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "quay.io/acme/hr@sha256:00",
        "docker://quay.io/acme/hr",
        "oci:/srv/layout:name",
        "containers-storage:localhost/acme/hr",
        "host:path",
        "a@b/c:d",
    ];
    for word in words {
        assert!(GitSource::parse(word).is_none(), "{word}");
    }
}

#[test]
fn hostile_addresses_are_refused() {
    let dash = "has a part that begins with a dash, as an option does";
    let cases = [
        ("ext::sh -c touch% /tmp/x", "ext:: is no way to a repository that is allowed"),
        ("fd::17/foo", "fd:: is no way to a repository that is allowed"),
        ("ftp://u:secret@h/x", "ftp:// is no way to a repository that is allowed"),
        ("https://-oProxyCommand=x/a/b", dash),
        ("ssh://-oProxyCommand=x/a", dash),
        ("ssh://%2DoProxyCommand=x/a", dash),
        ("ssh://-oProxyCommand=x@h/a", dash),
        ("u@-oProxyCommand:a", dash),
        ("u@h:-a", dash),
        ("-u@h:a", dash),
        ("https:///a/b", "has no host, or one that is no name"),
        ("https://h%0a/a/b", "has no host, or one that is no name"),
        ("https://u:sec/ret@h/a", "the address of a repository has no host, or one that is no name"),
        ("https://h", "names no repository"),
        ("https://h/", "names no repository"),
        ("https://h/a\nb", "has a character that cannot be seen"),
        ("https://h/a\u{202e}b", "has a character that cannot be seen"),
        ("https://u:secret%0Ahost=h@h/a", "https://h/a has credentials with a character that cannot be seen"),
        ("https://u%0d:secret@h/a", "https://h/a has credentials with a character that cannot be seen"),
        ("https://github.com%00:secret@h/a", "https://h/a has credentials with a character that cannot be seen"),
        ("https://:secret@h/a", "no user; most servers take any: https://git:PASSWORD@HOST/PATH"),
        ("https://h/a?token=secret", "https://h/a has a query, which no repository has"),
        ("file://host/a", "is no absolute path: file:///DIRECTORY"),
        ("https://github.com/acme", "is no address of a repository"),
        ("https://github.com/acme/s/issues/3", "is no address of a repository, or of a directory in one"),
        ("https://github.com/acme/s/tree/main/x#v1", "names a revision twice"),
        ("https://github.com/a/s/tree/main/../x", "names the directory \"../x\", which leaves the repository"),
        ("https://github.com/a/s/tree/main/%2e%2e/x", "names the directory \"../x\", which leaves the repository"),
        ("https://github.com/a/s/tree/--upload-pack=x/a", "which begins with a dash, as an option does"),
        ("https://h/a#-x", "names the revision \"-x\", which begins with a dash, as an option does"),
        ("https://h/a#a..b", "names the revision \"a..b\", which no branch or tag can be called"),
        ("https://h/a#a b", "which no branch or tag can be called"),
        ("https://h/a#a~1", "which no branch or tag can be called"),
        ("https://h/a#x.lock", "which no branch or tag can be called"),
        ("https://h/a#@{u}", "which no branch or tag can be called"),
        ("https://h/a#a//b", "which no branch or tag can be called"),
        ("https://h/a#.a", "which no branch or tag can be called"),
        ("https://h/a#v1:../x", "names the directory \"../x\", which leaves the repository"),
        ("https://h/a#v1:a/../../x", "which leaves the repository"),
        ("https://h/a#v1:/etc", "names the directory \"/etc\", which is absolute, and has to be one of the repository"),
        ("https://h/a#v1:a//b", "which has an empty part"),
        ("https://h/a#v1:./a", "which has an empty part"),
        ("https://h/a#v1:.git/hooks", "which no repository can have"),
        ("https://h/a#v1:a/.GIT", "which no repository can have"),
        ("https://h/a#v1:git~1", "which no repository can have"),
        ("https://h/a#v1:.git .", "which no repository can have"),
    ];
    for (text, want) in cases {
        let error = GitSource::parse(text).unwrap_or_else(|| panic!("{text}")).unwrap_err().to_string();
        assert!(error.ends_with(want), "{text}: {error}");
        assert!(!error.contains("secret") && !error.contains("ret@"), "{error}");
    }
}

#[test]
fn another_revision_keeps_the_directory() {
    let cases = [
        ("https://h/a/b", "v2", "https://h/a/b#v2"),
        ("https://h/a/b#v1:x", "v2", "https://h/a/b#v2:x"),
        ("https://github.com/a/b/tree/main/x/y", "v2", "https://github.com/a/b.git#v2:x/y"),
        ("https://github.com/a/b/tree/f/one/x/y", "f/one", "https://github.com/a/b.git#f/one:x/y"),
        ("https://github.com/a/b/tree/f/one", "f/one", "https://github.com/a/b.git#f/one"),
    ];
    for (text, reference, want) in cases {
        assert_eq!(parse(text).with_reference(reference).unwrap().to_string(), want);
    }
    assert!(parse("https://h/a/b").with_reference("-x").is_err());
}

#[test]
fn credentials_are_shown_to_nobody() {
    let cases = [
        ("https://user:t0ken@h/a/b", "https://h/a/b", "user t0ken"),
        ("https://t0ken@h/a/b", "https://h/a/b", "t0ken"),
        ("https://u:t%30ken@h/a/b", "https://h/a/b", "t0ken t%30ken"),
        ("https://u:p@ss@h/a/b", "https://h/a/b", "p@ss"),
        ("https://user:t0ken@github.com/a/b/tree/main/x", "https://github.com/a/b.git", "user t0ken"),
        ("ssh://git:t0ken@h/a/b", "ssh://git@h/a/b", "t0ken"),
    ];
    for (text, shown, secrets) in cases {
        let source = parse(text);
        assert_eq!(source.shown, shown);
        let said = format!("fatal: unable to access '{}/': {secrets} at https://x:y@other/z and {text}", source.url);
        for text in [source.to_string(), format!("{source:?}"), source.scrub(&said)] {
            for secret in secrets.split(' ') {
                assert!(!text.contains(secret), "{text}");
            }
            assert!(!text.contains("x:y@"), "{text}");
        }
    }
    let plain = parse("ssh://git@h/a/b");
    let said = "ssh://git@h/a, ssh://git:pw@h/a, git+ssh://git@h/a, https://git@h/a";
    assert_eq!(without_credentials(said), "ssh://git@h/a, ssh://h/a, git+ssh://git@h/a, https://h/a");
    assert_eq!(plain.scrub("git fetch: no digits"), "git fetch: no digits");
}

#[test]
fn credentials_are_decoded_and_for_one_host() {
    let cases = [
        ("https://user:t0ken@h/a", Some(("https://h", "user", Some("t0ken")))),
        ("https://t0ken@h:8443/a/b", Some(("https://h:8443", "t0ken", None))),
        ("http://t0ken:@[::1]:80/a", Some(("http://[::1]:80", "t0ken", Some("")))),
        ("https://u:p@ss:%3A%2f%25+%zz@h/a", Some(("https://h", "u", Some("p@ss::/%+%zz")))),
        ("https://u%40v:x@github.com/a/b/tree/main", Some(("https://github.com", "u@v", Some("x")))),
        ("https://@h/a", None),
        ("https://h/a@b", None),
        ("ssh://git:t0ken@h/a", None),
        ("git@h:a", None),
        ("git://u:p@h/a", None),
        ("file:///a@b", None),
    ];
    for (text, want) in cases {
        let got = parse(text).credentials();
        let texts = |got: &Credentials| {
            let text = |part: &OsString| part.to_str().unwrap().to_owned();
            (got.place.clone(), text(&got.user), got.password.as_ref().map(text))
        };
        let want = want.map(|(place, user, password)| (place.into(), user.into(), password.map(str::to_owned)));
        assert_eq!(got.as_ref().map(texts), want, "{text}");
    }
    let latin = parse("https://u:%E4@h/a").credentials().unwrap().password.unwrap();
    assert_eq!(latin.into_vec(), [0xe4]);
}

#[test]
fn repositories_have_names() {
    let cases = [
        ("https://github.com/acme/skills/tree/main/x", "skills"),
        ("https://h/a/s.git", "s"),
        ("file:///srv/s/", "s"),
        ("git@h:s.git", "s"),
    ];
    for (text, name) in cases {
        assert_eq!(parse(text).repository(), name);
    }
}
