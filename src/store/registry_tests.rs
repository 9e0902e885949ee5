use std::io::Write as _;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::testing::{Answer, Asked, Given, Server, answer, registry};
use super::*;
use crate::store::registry_lists::next_page;

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;

fn manifest_answer() -> Answer {
    let headers = format!(
        "content-type: application/vnd.oci.image.manifest.v1+json; charset=utf-8\r\ndocker-content-digest: {}\r\n",
        sha256(MANIFEST.as_bytes())
    );
    answer(200, &headers, MANIFEST)
}

#[test]
fn manifests_are_read_over_plain_http_on_loopback() {
    let server = Server::start(|_, _| manifest_answer());
    let registry = registry(Given::default());
    let found = registry.manifest(&server.reference("a/b:1")).unwrap().unwrap();
    assert_eq!(found.bytes, MANIFEST.as_bytes());
    assert_eq!(found.digest, sha256(MANIFEST.as_bytes()));
    assert_eq!(found.media_type, "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(registry.digest(&server.reference("a/b:1")).unwrap(), Some(found.digest));
    assert_eq!(server.lines(), ["GET /v2/a/b/manifests/1", "HEAD /v2/a/b/manifests/1"]);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    assert_eq!(registry.scheme(&server.reference("a/b")).unwrap(), Scheme::Http);
    let asked = server.asked.lock().unwrap()[0].clone();
    assert_eq!(asked.header("user-agent"), Some("skillctl/test"));
    assert_eq!(asked.header("accept"), Some(ACCEPT));
    assert_eq!(asked.header("accept-encoding"), None);
    assert_eq!(asked.header("authorization"), None);
}

#[test]
fn plain_http_must_be_allowed_elsewhere_or_by_flag() {
    let server = Server::start(|_, _| manifest_answer());
    let reference = server.reference("a/b:1");
    let error = registry(Given { tls_verify: Some(true), ..Given::default() }).manifest(&reference).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: it speaks plain HTTP", server.address));
    assert_eq!(error.fault(), Some(Fault::Tls));
    assert_eq!(error.hint().as_deref(), Some("--tls-verify=false allows it"));
    let given = Given { tls_verify: Some(false), ..Given::default() };
    assert!(registry(given).manifest(&reference).unwrap().is_some());
    let conf = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", server.address);
    assert!(registry(Given { conf: &conf, ..Given::default() }).manifest(&reference).unwrap().is_some());
}

#[test]
fn bytes_that_are_not_what_was_asked_for() {
    let other = format!("sha256:{}", "0".repeat(64));
    let wrong = format!("docker-content-digest: {other}\r\n");
    let server = Server::start(move |asked, _| match asked.line.rsplit('/').next().unwrap() {
        "wrong" => answer(200, &wrong, MANIFEST),
        "large" => answer(200, "", &" ".repeat(LIMIT + 1)),
        "chunked" => {
            let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
            let head = "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
            Answer { head, body: chunk.repeat(6).into(), then: Some(|_| {}) }
        }
        "untyped" => answer(200, "content-type: application/json\r\n", MANIFEST),
        "none" => answer(404, "", "<html>"),
        "garbage" => Answer { head: "not HTTP at all\r\n\r\n".into(), body: Vec::new(), then: Some(|_| {}) },
        _ => answer(200, "", MANIFEST),
    });
    let registry = registry(Given::default());
    let digest = sha256(MANIFEST.as_bytes());
    // The server speaks TLS no more than HTTP in the last case, so the scheme must be decided before.
    let cases = [
        ("a:untyped".to_owned(), Ok("application/vnd.oci.image.manifest.v1+json")),
        ("a:none".to_owned(), Ok("none")),
        (format!("a@{digest}"), Ok("application/vnd.oci.image.manifest.v1+json")),
        ("a:wrong".to_owned(), Err(format!("a:wrong: it sends a manifest with digest {digest}, not {other}"))),
        (format!("a@{other}"), Err(format!("a@{other}: it sends a manifest with digest {digest}, not {other}"))),
        ("a:large".to_owned(), Err("its answer is larger than the limit of 4 MiB".to_owned())),
        ("a:chunked".to_owned(), Err("its answer is larger than the limit of 4 MiB".to_owned())),
        ("a:garbage".to_owned(), Err("its answer is no HTTP".to_owned())),
    ];
    for (name, want) in cases {
        match (registry.manifest(&server.reference(&name)), want) {
            (Ok(found), Ok(want)) => assert_eq!(found.map_or("none".into(), |m| m.media_type), want, "{name}"),
            (Err(error), Err(want)) => {
                assert!(error.to_string().contains(&want), "{name}: {error}");
                assert_eq!(error.fault(), Some(Fault::Protocol), "{name}");
            }
            (found, want) => panic!("{name}: {found:?}, not {want:?}"),
        }
    }
    assert_eq!(registry.digest(&server.reference("a:none")).unwrap(), None);
    assert_eq!(registry.digest(&server.reference("a:untyped")).unwrap(), Some(digest));
}

#[test]
fn blobs_are_verified_and_redirects_get_no_credentials() {
    let cdn = Server::start(|_, _| answer(200, "", "config"));
    let elsewhere = format!("location: http://{}/blob?signed=1\r\n", cdn.address);
    let server = Server::start(move |asked, _| match asked.header("authorization") {
        None => answer(401, "www-authenticate: Basic realm=\"r\"\r\n", ""),
        Some(_) if asked.line.contains("/loop/") => answer(302, "location: ?x\r\n", ""),
        Some(_) => answer(307, &elsewhere, ""),
    });
    let registry = registry(Given { creds: Some(Credentials::new("u", "p")), ..Given::default() });
    let digest = sha256(b"config");
    assert_eq!(registry.blob(&server.reference("a:1"), &digest, 6).unwrap(), b"config");
    assert_eq!(cdn.asked.lock().unwrap()[0].header("authorization"), None);
    assert_eq!(cdn.lines(), ["GET /blob?signed=1"]);
    let cases = [
        ("a:1", digest.as_str(), 7, "it sends 6 bytes with digest"),
        ("a:1", &sha256(b"other"), 6, "it sends 6 bytes with digest"),
        ("a:1", &digest, 5 << 20, "its answer is larger than the limit of 4 MiB"),
        ("a:1", "md5:0", 6, "its digest is none of sha256"),
        ("loop/a:1", &digest, 6, "it redirects more than 5 times"),
    ];
    for (name, digest, size, want) in cases {
        let error = registry.blob(&server.reference(name), digest, size).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
}

/// A registry that wants tokens of itself, which carry their scope.
fn token_server() -> Server {
    let answers = |asked: &Asked, address: &str| {
        if let Some((_, query)) = asked.line.split_once("/token?") {
            let user = asked.header("authorization").unwrap_or("nobody");
            return match user {
                "Basic d3Jvbmc6cA==" => answer(401, "", r#"{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}"#),
                user => {
                    answer(200, "", &format!(r#"{{"token":"{}","expires_in":300}}"#, query.replace(' ', "+") + user))
                }
            };
        }
        match asked.header("authorization") {
            Some(_) => manifest_answer(),
            None => {
                let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"s\"");
                answer(401, &format!("www-authenticate: {challenge}\r\n"), "{}")
            }
        }
    };
    Server::start(move |asked, _| answers(asked, asked.header("host").unwrap()))
}

#[test]
fn one_token_for_many_threads() {
    let server = token_server();
    let registry = registry(Given { creds: Some(Credentials::new("u", "p")), ..Given::default() });
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert!(registry.manifest(&server.reference("a/b:1")).unwrap().is_some()));
        }
    });
    let lines = server.lines();
    let tokens: Vec<_> = lines.iter().filter(|line| line.contains("/token")).collect();
    assert_eq!(tokens, ["GET /token?service=s&scope=repository:a/b:pull&account=u"]);
    // One was refused, to learn where the tokens are.
    assert_eq!(lines.len(), 1 + 1 + 16);
    registry.manifest(&server.reference("a/b:2")).unwrap();
    assert_eq!(server.lines().len(), 19);
    registry.delete(&server.reference("a/b:2")).unwrap();
    assert_eq!(
        server.lines()[19..],
        [
            "GET /token?service=s&scope=repository:a/b:pull,push,delete&account=u".to_owned(),
            "DELETE /v2/a/b/manifests/2".to_owned()
        ]
    );
}

#[test]
fn credentials_that_are_not_accepted() {
    let server = token_server();
    let auth = format!(r#"{{"auths":{{"{}":{{"auth":"d3Jvbmc6cA=="}}}}}}"#, server.address);
    let error = registry(Given { auth: &auth, ..Given::default() }).manifest(&server.reference("a:1")).unwrap_err();
    let address = server.address;
    let text =
        format!("{address}: token server {address}: unauthorized: not logged in, or not allowed: UNAUTHORIZED: no");
    assert_eq!(error.to_string(), text);
    assert_eq!(error.fault(), Some(Fault::Denied));
    assert_eq!(error.hint(), Some(format!("skillctl login {address}")));
}

#[test]
fn a_token_server_elsewhere_must_speak_tls() {
    for realm in ["http://auth.example/token", "file:///etc/passwd", "http://user@127.0.0.1/"] {
        let header = format!("www-authenticate: Bearer realm=\"{realm}\"\r\n");
        let server = Server::start(move |_, _| answer(401, &header, ""));
        let registry = registry(Given { creds: Some(Credentials::new("u", "p")), ..Given::default() });
        let error = registry.manifest(&server.reference("a:1")).unwrap_err();
        assert_eq!(error.fault(), Some(Fault::Protocol), "{error}");
    }
}

#[test]
fn an_expired_token_is_renewed() {
    let server = Server::start(|asked, number| match asked.header("authorization") {
        _ if asked.line.contains("/token") => answer(200, "", &format!(r#"{{"token":"t{number}"}}"#)),
        Some("Bearer t3" | "Bearer t1") if number != 4 && number != 3 => manifest_answer(),
        _ => {
            let challenge = format!("Bearer realm=\"http://{}/token\"", asked.header("host").unwrap());
            answer(401, &format!("www-authenticate: {challenge}\r\n"), "")
        }
    });
    let registry = registry(Given::default());
    assert!(registry.manifest(&server.reference("a:1")).unwrap().is_some());
    let error = registry.manifest(&server.reference("a:1")).unwrap_err();
    assert_eq!(error.fault(), Some(Fault::Denied));
    let tokens = server.lines().iter().filter(|line| line.contains("/token")).count();
    assert_eq!(tokens, 2);
}

/// The first answer, how many more tries, and the failure that is left.
type RetryCase = (fn() -> Answer, u32, Option<Fault>);

#[test]
fn what_another_try_mends() {
    let cases: [RetryCase; 8] = [
        (|| answer(429, "retry-after: 0\r\n", ""), 1, None),
        (|| answer(503, "retry-after: 0\r\n", ""), 1, None),
        (|| answer(503, "", ""), 1, None),
        (|| answer(503, "", ""), 0, Some(Fault::Server)),
        (|| answer(429, "retry-after: 3600\r\n", ""), 3, Some(Fault::RateLimited)),
        (|| answer(400, "", ""), 3, Some(Fault::Unsupported)),
        (|| answer(403, "", ""), 3, Some(Fault::Denied)),
        // Closed in the middle of the body.
        (
            || Answer {
                head: "HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n".into(),
                body: b"{".into(),
                then: Some(|_| {}),
            },
            1,
            None,
        ),
    ];
    for (number, (first, retry, fault)) in cases.into_iter().enumerate() {
        let server = Server::start(move |_, number| if number == 0 { first() } else { manifest_answer() });
        let result = registry(Given { retry, ..Given::default() }).manifest(&server.reference("a:1"));
        match (result, fault) {
            (Ok(found), None) => assert!(found.is_some(), "{number}"),
            (Err(error), fault) => assert_eq!(error.fault(), fault, "{number}: {error}"),
            (found, fault) => panic!("{number}: {found:?}, not {fault:?}"),
        }
    }
}

#[test]
fn nothing_waits_for_ever() {
    let endless = |_: &Asked, _: usize| Answer {
        head: "HTTP/1.1 200 X\r\ncontent-length: 1000\r\n\r\n".into(),
        body: Vec::new(),
        then: Some(|stream| {
            while stream.write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        }),
    };
    let silent = |_: &Asked, _: usize| Answer {
        head: String::new(),
        body: Vec::new(),
        then: Some(|_| thread::sleep(Duration::from_secs(5))),
    };
    let timeouts = Timeouts { exchange: Duration::from_secs(1), ..Timeouts::default() };
    let silence = Timeouts { silence: Duration::from_millis(300), ..Timeouts::default() };
    for (server, timeouts, reason) in [
        (Server::start(endless), timeouts, "the answer is not complete after 1 s"),
        (Server::start(silent), silence, "no answer for 0 s"),
    ] {
        let started = Instant::now();
        let result = registry(Given { timeouts, retry: 3, ..Given::default() }).manifest(&server.reference("a:1"));
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), format!("{}: {reason}", server.address));
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    }
    // A cancellation ends a request, those that wait for it to decide the scheme, and a pause.
    for server in [Server::start(silent), Server::start(|_, _| answer(503, "retry-after: 20\r\n", ""))] {
        let cancel = Cancel::default();
        let registry = registry(Given { cancel: cancel.clone(), retry: 3, ..Given::default() });
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let error = registry.manifest(&server.reference("a:1")).unwrap_err();
                    assert_eq!(error.to_string(), "interrupted");
                });
            }
            thread::sleep(Duration::from_millis(200));
            cancel.cancel();
        });
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
}

#[test]
fn nobody_listens() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reference = format!("{free}/a:1").parse().unwrap();
    let started = Instant::now();
    let error = registry(Given { retry: 3, ..Given::default() }).manifest(&reference).unwrap_err();
    assert_eq!(error.to_string(), format!("{free}: connection refused"));
    assert_eq!(error.fault(), Some(Fault::Unreachable));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn mirrors_come_first_and_may_fail() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let empty = Server::start(|asked, _| match asked.header("authorization") {
        // What was given for the registry is not for its mirrors at other hosts.
        Some(_) => answer(500, "", ""),
        None => answer(404, "", ""),
    });
    let broken = Server::start(|_, _| answer(503, "retry-after: 9\r\n", ""));
    let full = Server::start(|_, _| manifest_answer());
    let mirror = |address| format!("[[registry.mirror]]\nlocation = \"{address}/m\"\n");
    let mirrors = [free, empty.address, broken.address, full.address].map(mirror).concat();
    let conf = format!("[[registry]]\nprefix = \"r.invalid/a\"\nlocation = \"{free}\"\n{mirrors}");
    let registry =
        registry(Given { conf: &conf, retry: 3, creds: Some(Credentials::new("u", "p")), ..Given::default() });
    let reference = "r.invalid/a/b:1".parse().unwrap();
    let started = Instant::now();
    assert!(registry.manifest(&reference).unwrap().is_some());
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(empty.lines(), ["GET /v2/m/b/manifests/1"]);
    assert_eq!(broken.lines(), ["GET /v2/m/b/manifests/1"]);
    assert_eq!(full.lines(), ["GET /v2/m/b/manifests/1"]);
    // Where a mirror is all that there is, it is tried again.
    let shaky = Server::start(|_, number| match number {
        0 => answer(503, "retry-after: 0\r\n", ""),
        _ => manifest_answer(),
    });
    let conf = format!("[[registry]]\nlocation = \"{free}\"\n{}", mirror(shaky.address));
    let reference = format!("{free}/b:1").parse().unwrap();
    assert!(super::testing::registry(Given { conf: &conf, retry: 1, ..Given::default() }).manifest(&reference).is_ok());
    let shaky = Server::start(|_, _| answer(503, "", ""));
    let conf = format!("[[registry]]\nlocation = \"{free}\"\n{}", mirror(shaky.address));
    let error = super::testing::registry(Given { conf: &conf, ..Given::default() }).manifest(&reference).unwrap_err();
    let text = format!("{free}: connection refused (mirror {}: m/b:1: status 503)", shaky.address);
    assert_eq!(error.to_string(), text);
    // What the registry itself says counts last.
    let conf = format!("[[registry]]\nlocation = \"{free}\"\n{}", mirror(empty.address));
    let registry = super::testing::registry(Given { conf: &conf, ..Given::default() });
    let error = registry.manifest(&format!("{free}/b:1").parse().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), format!("{free}: connection refused"));
}

#[test]
fn tags_are_listed_by_pages() {
    let server = Server::start(|asked, _| match asked.line.trim_start_matches("GET /v2/") {
        "a/tags/list?n=1000" => {
            answer(200, "link: </v2/a/tags/list?last=2&n=2>; rel=\"next\"\r\n", r#"{"tags":["1","2"]}"#)
        }
        "a/tags/list?last=2&n=2" => answer(
            200,
            &format!("link: <https://{}/v2/a/tags/list?last=3>; rel=next\r\n", asked.header("host").unwrap()),
            r#"{"tags":["3"]}"#,
        ),
        "a/tags/list?last=3" => answer(200, "", r#"{"name":"a","tags":["4"]}"#),
        "null/tags/list?n=1000" => answer(200, "", r#"{"tags":null}"#),
        "away/tags/list?n=1000" => answer(200, "link: <https://evil.invalid/>; rel=\"next\"\r\n", r#"{"tags":["1"]}"#),
        "same/tags/list?n=1000" => answer(200, "link: <?n=1000>; rel=\"next\"\r\n", r#"{"tags":["1"]}"#),
        "empty/tags/list?n=1000" => answer(200, "link: <?n=1>; rel=\"next\"\r\n", r#"{"tags":[]}"#),
        "junk/tags/list?n=1000" => answer(200, "", "<html>"),
        line if line.starts_with("many/") => {
            let tags: Vec<String> = (0..20_000).map(|n| format!("\"{n}\"")).collect();
            let next = format!("link: </v2/{line}0>; rel=\"next\"\r\n");
            answer(200, &next, &format!(r#"{{"tags":[{}]}}"#, tags.join(",")))
        }
        _ => answer(404, "", r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#),
    });
    let registry = registry(Given::default());
    let cases = [
        ("a", Ok(vec!["1", "2", "3", "4"])),
        ("null", Ok(vec![])),
        ("away", Err(("tags of away: its next page is on another host", Fault::Protocol))),
        ("same", Err(("tags of same: its pages do not end", Fault::Protocol))),
        ("empty", Err(("tags of empty: its pages do not end", Fault::Protocol))),
        ("junk", Err(("tags of junk: its answer is no list", Fault::Protocol))),
        ("many", Err(("tags of many: more than 100000", Fault::Protocol))),
        ("none", Err(("none: repository not found", Fault::NotFound))),
    ];
    for (name, want) in cases {
        match (registry.tags(&server.reference(name)), want) {
            (Ok(tags), Ok(want)) => assert_eq!(tags, want),
            (Err(error), Err((text, fault))) => {
                assert_eq!(error.to_string(), format!("{}: {text}", server.address));
                assert_eq!(error.fault(), Some(fault));
            }
            (found, want) => panic!("{name}: {found:?}, not {want:?}"),
        }
    }
}

#[test]
fn next_pages_are_read_from_links() {
    let cases = [
        ("</v2/a>; rel=\"next\"", Some("/v2/a")),
        ("<a>; rel=prev, <b>; title=\"x\"; REL=Next", Some("b")),
        ("<a>;rel=\"last next\"", Some("a")),
        ("<a>; rel=prev,<b>; rel=last", None),
        ("<a>", None),
        ("a; rel=next", None),
        ("<a; rel=next", None),
    ];
    for (header, want) in cases {
        assert_eq!(next_page(header).as_deref(), want, "{header}");
    }
}

#[test]
fn many_manifests_are_fast() {
    let server = Server::start(|_, _| {
        thread::sleep(Duration::from_millis(20));
        manifest_answer()
    });
    let registry = registry(Given::default());
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::SeqCst) < 500 {
                    assert!(registry.manifest(&server.reference("a:1")).unwrap().is_some());
                }
            });
        }
    });
    // 500 / 16 * 20 ms is 0.63 s; one after the other would be 10 s.
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(server.connections.load(Ordering::SeqCst) <= 20, "{:?}", server.connections);
}
