//! A real registry on loopback, CNCF distribution in plain HTTP, and a proxy before it that takes its time.
//!
//! What it was asked is read from its access log, so that what the fixture asks itself is seen there too: mark, work,
//! then look.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::peers::World;

const PROGRAMS: [&str; 2] = ["/usr/bin/docker-registry", "/usr/bin/registry"];
/// How long it may take to start.
const START: Duration = Duration::from_secs(20);
/// After what time an answered request is in the log.
const LOGGED: Duration = Duration::from_millis(50);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry that runs until this value is dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    dir: PathBuf,
    address: String,
}

impl Registry {
    /// Starts an empty registry.
    pub fn start(world: &World) -> Result<Self> {
        let program = PROGRAMS.iter().find(|path| Path::new(path).exists());
        let program = program.context("docker-registry is not installed")?;
        let dir = world.path("registry");
        fs::create_dir(&dir)?;
        // JSON is YAML.
        let config = json!({
            "version": "0.1",
            "log": { "level": "info" },
            "storage": { "filesystem": { "rootdirectory": dir.join("data") } },
            "http": { "addr": "127.0.0.1:0" },
        });
        fs::write(dir.join("config.yml"), config.to_string())?;
        let mut command = world.command(program);
        command.arg("serve").arg(dir.join("config.yml")).stdin(Stdio::null());
        let child =
            command.stdout(File::create(dir.join("requests"))?).stderr(File::create(dir.join("log"))?).spawn()?;
        let mut registry = Self { child, dir, address: String::new() };
        registry.address = registry.listening()?;
        Ok(registry)
    }

    /// Waits until it serves, and returns where, as it says itself.
    fn listening(&mut self) -> Result<String> {
        let end = Instant::now() + START;
        loop {
            let log = fs::read_to_string(self.dir.join("log"))?;
            let address = log.split_once("listening on ").and_then(|(_, rest)| rest.split([',', '"']).next());
            if let Some(address) = address.filter(|address| TcpStream::connect(address).is_ok()) {
                return Ok(address.to_owned());
            }
            if self.child.try_wait()?.is_some() || Instant::now() >= end {
                bail!("the registry does not start: {}", log.lines().last().unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the name of a repository in it, with a tag if given.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Gives a manifest, whose blobs are there, a tag.
    pub fn put(&self, repository: &str, tag: &str, manifest: &str) -> Result<()> {
        let mut stream = TcpStream::connect(&self.address)?;
        write!(
            stream,
            "PUT /v2/{repository}/manifests/{tag} HTTP/1.1\r\nHost: {}\r\nContent-Type: {MANIFEST}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{manifest}",
            self.address,
            manifest.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let first = answer.lines().next().unwrap_or_default();
        ensure!(first.contains(" 201 "), "putting {repository}:{tag}: {first}");
        Ok(())
    }

    /// Returns the requests so far, as `METHOD PATH HTTP/1.1`.
    fn requests(&self) -> Result<Vec<String>> {
        thread::sleep(LOGGED);
        let log = fs::read_to_string(self.dir.join("requests"))?;
        Ok(log.lines().filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect())
    }

    /// Does `work`, and returns what the registry was asked meanwhile.
    pub fn asked<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<String>)> {
        let before = self.requests()?.len();
        let done = work()?;
        Ok((done, self.requests()?.split_off(before)))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns whether a request sends a part of a blob, asks to, or asks the registry to take one from elsewhere.
pub fn sends_blob(request: &str) -> bool {
    request.contains("/blobs/uploads/") && ["POST ", "PATCH ", "PUT "].iter().any(|method| request.starts_with(method))
}

/// Opens a proxy before `registry` that passes on what a client sends so much later, and returns its address.
///
/// A client sends a request at once and then waits for the answer, on as many connections as it likes; so each request
/// takes that much longer. It is open until the process ends.
pub fn slowed(registry: &Registry, delay: Duration) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let upstream = registry.address.clone();
    thread::spawn(move || {
        for client in listener.incoming().map_while(io::Result::ok) {
            let upstream = upstream.clone();
            // What goes wrong on a connection is what the other side sees of it.
            thread::spawn(move || drop(relay(client, &upstream, delay)));
        }
    });
    Ok(address)
}

fn relay(mut client: TcpStream, upstream: &str, delay: Duration) -> io::Result<()> {
    let mut upstream = TcpStream::connect(upstream)?;
    upstream.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let (mut answers, mut back) = (upstream.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut answers, &mut back);
        back.shutdown(std::net::Shutdown::Write)
    });
    let mut request = vec![0; 64 << 10];
    loop {
        match client.read(&mut request)? {
            0 => return upstream.shutdown(std::net::Shutdown::Write),
            read => {
                thread::sleep(delay);
                upstream.write_all(&request[..read])?;
            }
        }
    }
}
