//! Real registries on loopback: CNCF distribution, each on a port and in a directory of its own.
//!
//! What a registry holds is read from its disk, and what it was asked from its log, so that a question by a test never counts
//! as one by the program under test.

pub mod conf;
pub mod gate;
mod http;
mod tls;
mod tokens;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::cell::{World, cannot};

/// Who may come in to a registry with [`Kind::TlsHtpasswd`].
pub const USER: &str = "ana";
/// Her password, with what URLs and shells trip over.
pub const PASSWORD: &str = "p@ss:w%rd $1";
/// Somebody else, with another password.
pub const OTHER: (&str, &str) = ("bo", "bo's own");
/// Media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Media type of an index.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How a registry is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By HTTP, by anyone.
    Plain,
    /// By HTTPS, by anyone; the certificate is good, its authority nobody knows yet.
    Tls,
    /// By HTTPS, with name and password.
    TlsHtpasswd,
    /// By HTTPS, by anyone, with a certificate that has expired.
    Expired,
}

/// One request, as in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET` and so on.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Status of the answer.
    pub status: u16,
}

impl Request {
    /// Returns whether it is of that method (or any: `*`), and has that in its path.
    pub fn is(&self, method: &str, part: &str) -> bool {
        (method == "*" || self.method == method) && self.path.contains(part)
    }

    /// Returns whether it sends a part of a blob, or asks to.
    pub fn sends_blob(&self) -> bool {
        self.path.contains("/blobs/uploads") && self.method != "GET"
    }
}

/// A registry that runs until this value is dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    dir: PathBuf,
    kind: Kind,
    /// Host and port.
    pub address: String,
}

impl Registry {
    /// Starts an empty registry; its name makes it one of several in a scenario.
    pub fn named(world: &World, name: &str, kind: Kind) -> Self {
        let program = ["/usr/bin/docker-registry", "/usr/bin/registry"]
            .into_iter()
            .find(|path| fs::exists(path).is_ok_and(|e| e));
        let Some(program) = program else { cannot("no docker-registry: tests/setup test") };
        let dir = world.path(name);
        fs::create_dir_all(dir.join("data")).expect("a directory");
        // JSON is YAML.
        let mut config = serde_json::json!({
            "version": "0.1",
            "log": { "level": "info" },
            "storage": { "filesystem": { "rootdirectory": dir.join("data") }, "delete": { "enabled": true } },
            "http": { "addr": "127.0.0.1:0" },
        });
        if kind != Kind::Plain {
            let end = if kind == Kind::Expired { "20200201000000Z" } else { "20491231000000Z" };
            let pair = tls::issue(world, &dir, end);
            config["http"]["tls"] = serde_json::json!({ "certificate": pair.certificate, "key": pair.key });
        }
        if kind == Kind::TlsHtpasswd {
            let lines = [(USER, PASSWORD), OTHER]
                .map(|(user, password)| world.run("htpasswd", ["-Bbn", "-C", "4", user, password]).ok() + "\n");
            fs::write(dir.join("htpasswd"), lines.concat()).expect("a file");
            config["auth"]["htpasswd"] = serde_json::json!({ "realm": "tests", "path": dir.join("htpasswd") });
        }
        fs::write(dir.join("config.yml"), config.to_string()).expect("a file");
        let log = |name: &str| File::create(dir.join(name)).expect("a log");
        let mut command = world.command(program, ["serve".as_ref(), dir.join("config.yml").as_os_str()]);
        let command = command.stdin(Stdio::null()).stdout(log("requests")).stderr(log("log"));
        let child = command.spawn().expect("a registry");
        let mut registry = Self { child, dir, kind, address: String::new() };
        registry.address = registry.listening();
        registry
    }

    /// Starts an empty registry.
    pub fn start(world: &World, kind: Kind) -> Self {
        Self::named(world, "registry", kind)
    }

    /// Waits until the registry serves, and returns where, as it says itself.
    fn listening(&mut self) -> String {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let log = fs::read_to_string(self.dir.join("log")).expect("a log");
            let rest = log.split_once("msg=\"listening on ").map(|(_, rest)| rest);
            let address = rest.and_then(|rest| rest.split([',', '"']).next().map(str::to_owned));
            // Without TLS we can ask; otherwise the port is open as soon as it is in the log.
            match address {
                Some(address)
                    if self.kind != Kind::Plain || http::ask(&address, "GET", "/v2/", &[], b"").0.status() == 200 =>
                {
                    return address;
                }
                _ => thread::sleep(Duration::from_millis(5)),
            }
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none() && Instant::now() < end, "no registry ({ended:?}): {log}");
        }
    }

    /// Returns the name of a repository in it, with a tag or digest if given.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Returns the certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Returns what it was asked so far, without the [`Self::listening`] of this fixture.
    pub fn requests(&self) -> Vec<Request> {
        // A request is logged just after it is answered.
        thread::sleep(Duration::from_millis(100));
        let log = fs::read_to_string(self.dir.join("requests")).expect("a log");
        let requests = log.lines().filter_map(|line| {
            let mut parts = line.split('"');
            let (_, request, status) = (parts.next()?, parts.next()?, parts.next()?);
            let mut words = request.split(' ');
            let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
            Some(Request { method, path, status: status.split_whitespace().next()?.parse().ok()? })
        });
        requests.skip(usize::from(self.kind == Kind::Plain)).collect()
    }

    /// Returns what it was asked while `work` was done.
    pub fn asked<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<Request>) {
        let before = self.requests().len();
        let result = work();
        (result, self.requests().split_off(before))
    }

    fn repository(&self, name: &str) -> PathBuf {
        self.dir.join("data/docker/registry/v2/repositories").join(name)
    }

    /// Returns the digest that a tag has.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<String> {
        let link = self.repository(repository).join("_manifests/tags").join(tag).join("current/link");
        // The registry makes the file before it writes it.
        fs::read_to_string(link).ok().filter(|digest| !digest.is_empty())
    }

    /// Returns all tags of a repository, sorted.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.repository(repository).join("_manifests/tags")) else { return Vec::new() };
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        let mut tags: Vec<_> = names.filter(|tag| self.tag(repository, tag).is_some()).collect();
        tags.sort();
        tags
    }

    /// Returns the bytes of a manifest that a repository still answers for.
    pub fn manifest_bytes(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        let revision =
            self.repository(repository).join("_manifests/revisions").join(digest.replace(':', "/")).join("link");
        revision.exists().then(|| self.blob(digest))
    }

    /// Returns a manifest by its tag.
    #[track_caller]
    pub fn manifest(&self, repository: &str, tag: &str) -> Value {
        let digest = self.tag(repository, tag).unwrap_or_else(|| panic!("no {tag} among {:?}", self.tags(repository)));
        serde_json::from_slice(&self.manifest_bytes(repository, &digest).expect("a manifest")).expect("JSON")
    }

    /// Returns the bytes of a blob, and checks them.
    pub fn blob(&self, digest: &str) -> Vec<u8> {
        let hex = digest.trim_start_matches("sha256:");
        let path = self.dir.join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data");
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(digest_of(&bytes), digest);
        bytes
    }

    /// Returns the descriptors of what refers to a manifest, as the referrers API lists them, which this registry does not have.
    fn referrers(&self) -> impl Fn(&str, &str) -> Vec<Value> + Send + Sync + use<> {
        let data = self.dir.join("data/docker/registry/v2");
        move |repository, subject| {
            let revisions = data.join("repositories").join(repository).join("_manifests/revisions/sha256");
            let digests = fs::read_dir(revisions).into_iter().flatten().flatten();
            let manifests = digests.filter_map(|entry| {
                let hex = entry.file_name().into_string().ok()?;
                let bytes = fs::read(data.join("blobs/sha256").join(&hex[..2]).join(&hex).join("data")).ok()?;
                let manifest: Value = serde_json::from_slice(&bytes).ok()?;
                (manifest["subject"]["digest"] == subject).then(|| {
                    serde_json::json!({
                        "mediaType": manifest["mediaType"], "digest": format!("sha256:{hex}"), "size": bytes.len(),
                        "artifactType": manifest["artifactType"], "annotations": manifest["annotations"],
                    })
                })
            });
            manifests.collect()
        }
    }

    /// Puts a manifest as it is, of which the registry checks only that its blobs are there. Plain registries only.
    #[track_caller]
    pub fn put(&self, repository: &str, tag: &str, manifest: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let own = serde_json::from_slice::<Value>(manifest).ok().map(|mut manifest| manifest["mediaType"].take());
        let media_type = own.as_ref().and_then(Value::as_str).filter(|own| *own == INDEX).unwrap_or(MANIFEST);
        let (head, body) = http::ask(&self.address, "PUT", &path, &[("Content-Type", media_type)], manifest);
        assert_eq!(head.status(), 201, "{}", String::from_utf8_lossy(&body));
    }

    /// Uploads a blob. Plain registries only.
    #[track_caller]
    pub fn upload(&self, repository: &str, blob: &[u8]) {
        let (head, _) = http::ask(&self.address, "POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        let place = head.get("location").expect("a place for the upload");
        let place = &place[place.find("/v2/").expect("a path")..];
        let path = format!("{place}{}digest={}", if place.contains('?') { '&' } else { '?' }, digest_of(blob));
        let fields = [("Content-Type", "application/octet-stream")];
        let (head, body) = http::ask(&self.address, "PUT", &path, &fields, blob);
        assert_eq!(head.status(), 201, "{}", String::from_utf8_lossy(&body));
    }

    /// Ends it now, as a loss of the network would.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            let log = fs::read_to_string(self.dir.join("requests")).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "what {} was asked:\n{log}", self.address);
        }
    }
}

/// Returns the digest of bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Returns an address on which nobody listens.
pub fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}
