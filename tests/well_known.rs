//! Skills of a web site, served from loopback.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use skillctl::error::Result;
use skillctl::limits::Limits;
use skillctl::process::Cancel;
use skillctl::source::well_known::{Fetched, fetch, index};
use skillctl::store::blob::sha256;
use skillctl::store::certs::CertDirs;
use skillctl::store::credentials::{AuthPaths, Keyring};
use skillctl::store::files::Files;
use skillctl::store::proxies::Proxies;
use skillctl::store::registries_conf::{ConfPaths, RegistriesConf};
use skillctl::store::registry::{Access, Registry, Timeouts};
use skillctl::store::web::Web;

const SCHEMA: &str = "https://schemas.agentskills.io/discovery/0.2.0/schema.json";
const INDEX: &str = "/.well-known/agent-skills/index.json";

/// Serves files by path; a text that begins with `->` is where a path redirects to, and an empty one is never answered.
fn site(files: impl FnOnce(&str) -> BTreeMap<String, Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let files = files(&address);
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let asked: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            assert!(!asked.iter().any(|line| line.to_ascii_lowercase().starts_with("authorization")));
            let path = asked[0].split(' ').nth(1).unwrap();
            let (head, body) = match files.get(path).map(Vec::as_slice) {
                Some(b"") => {
                    open.push(stream);
                    continue;
                }
                Some(text) if text.starts_with(b"->") => {
                    (format!("302 X\r\nlocation: {}", String::from_utf8_lossy(&text[2..])), &b""[..])
                }
                Some(text) => ("200 OK".to_owned(), text),
                None => ("404 Not Found".to_owned(), &b""[..]),
            };
            let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    address
}

fn web(timeouts: Timeouts, cancel: &Cancel) -> Web {
    let files = Files::new(|_| None, |_| Vec::new());
    let access = Access {
        conf: RegistriesConf::read(&ConfPaths::default(), &files).unwrap(),
        keyring: Keyring::new(AuthPaths::default(), files.clone(), &[], cancel.clone()),
        certs: CertDirs::default(),
        files,
        tls_verify: None,
        creds: None,
        proxies: Proxies::default(),
        cancel: cancel.clone(),
        retry: 0,
        user_agent: "skillctl/test".into(),
        timeouts,
    };
    Registry::new(access).web()
}

fn tar(files: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn get(site: &str, name: &str) -> Result<Fetched> {
    let web = web(Timeouts::default(), &Cancel::default());
    let index = index(&web, site)?;
    let entry = index.entries.iter().find(|entry| entry.name == name).unwrap();
    fetch(&web, &index, entry, tempfile::tempfile().unwrap(), Limits::default())
}

fn text(fetched: &Fetched, path: &str) -> String {
    let mut text = String::new();
    fetched.tree.below("").unwrap().open(path).unwrap().1.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn skills_of_a_site_are_verified() {
    let archive = tar(&[("SKILL.md", 0o644, "archive"), ("run.sh", 0o755, "run")]);
    let digest = sha256(&archive);
    let entry = |name: &str, kind: &str, url: &str, digest: &str| json!({"name": name, "type": kind, "description": "d", "url": url, "digest": digest});
    let address = site(|_| {
        let skills = json!([
            entry("one", "skill-md", "one/SKILL.md", &sha256(b"one")),
            entry("all", "archive", "/files/all.tar", &digest),
            entry("moved", "archive", "/moved", &digest),
            entry("other", "archive", "/files/all.tar", &sha256(b"other")),
            entry("gone", "archive", "/gone", &digest),
            entry("plain", "archive", "/plain", &digest),
            entry("loop", "archive", "/loop", &digest),
            entry("odd", "plugin", "/files/all.tar", &digest),
            entry("page", "archive", "/page", &sha256(b"<html>")),
        ]);
        let index = json!({"$schema": SCHEMA, "skills": skills}).to_string();
        let files: [(&str, &[u8]); 7] = [
            (INDEX, index.as_bytes()),
            ("/.well-known/agent-skills/one/SKILL.md", b"one"),
            ("/files/all.tar", &archive),
            ("/moved", b"->/files/all.tar"),
            ("/plain", b"->http://example.invalid/x"),
            ("/loop", b"->/loop"),
            ("/page", b"<html>"),
        ];
        files.map(|(path, bytes)| (path.to_owned(), bytes.to_vec())).into()
    });
    let one = get(&address, "one").unwrap();
    assert_eq!((text(&one, "SKILL.md"), one.digest), ("one".into(), Some(sha256(b"one"))));
    for name in ["all", "moved"] {
        let all = get(&format!("{address}{INDEX}"), name).unwrap();
        assert_eq!((text(&all, "SKILL.md"), text(&all, "run.sh")), ("archive".into(), "run".into()));
        assert!(all.tree.below("").unwrap().open("run.sh").unwrap().0.executable);
        assert_eq!(all.digest.as_deref(), Some(digest.as_str()));
    }
    let host = address.strip_prefix("http://").unwrap();
    let cases = [
        (
            "other",
            format!("{host}: {address}/files/all.tar has the digest {digest}, and the index says {}", sha256(b"other")),
        ),
        ("gone", format!("{host}: {address}/gone: not found")),
        (
            "plain",
            "example.invalid: /x has an address of plain HTTP, of which anybody may change the answer".to_owned(),
        ),
        ("loop", format!("{host}: /loop: is behind more than 5 redirects")),
        ("odd", format!("{host}: odd is of the type \"plugin\", which is not known")),
        ("page", format!("{address}/page is a page of HTML, which is not supported")),
    ];
    for (name, want) in cases {
        assert_eq!(get(&address, name).map(drop).unwrap_err().to_string(), want);
    }
}

#[test]
fn the_older_index_and_none_are_told_apart() {
    let old = site(|_| {
        let index = json!({"skills": [{"name": "hr", "description": "d", "files": ["SKILL.md", "a/b c.md"]}]});
        let files = [
            ("/.well-known/skills/index.json", index.to_string()),
            ("/.well-known/skills/hr/SKILL.md", "skill".into()),
            ("/.well-known/skills/hr/a/b%20c.md", "more".into()),
        ];
        files.map(|(path, text)| (path.to_owned(), text.into_bytes())).into()
    });
    let fetched = get(&old, "hr").unwrap();
    assert_eq!((text(&fetched, "SKILL.md"), text(&fetched, "a/b c.md")), ("skill".into(), "more".into()));
    assert_eq!(fetched.digest, None);
    let none = site(|_| BTreeMap::new());
    let error = get(&none, "hr").map(drop).unwrap_err();
    assert_eq!(error.to_string(), format!("{} has no index of skills", &none["http://".len()..]));
}

#[test]
fn a_site_that_never_answers_is_left() {
    let address = site(|_| BTreeMap::from([(INDEX.to_owned(), Vec::new())]));
    let host = &address["http://".len()..];
    let timeouts = Timeouts { silence: Duration::from_secs(1), ..Timeouts::default() };
    let error = index(&web(timeouts, &Cancel::default()), &address).unwrap_err().to_string();
    assert_eq!(error, format!("{host}: no answer for 1 s"));
    let cancel = Cancel::default();
    let (other, site) = (cancel.clone(), address.clone());
    let waits = thread::spawn(move || index(&web(Timeouts::default(), &other), &site).map(drop));
    thread::sleep(Duration::from_millis(200));
    let asked = Instant::now();
    cancel.cancel();
    assert_eq!(waits.join().unwrap().unwrap_err().to_string(), "interrupted");
    assert!(asked.elapsed() < Duration::from_secs(2));
}
