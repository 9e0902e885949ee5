//! A registry for tests: a server of plain HTTP on loopback, and clients for it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::super::credentials::AuthPaths;
use super::super::registries_conf::ConfPaths;
use super::*;

/// What a test server was asked.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub line: String,
    headers: Vec<(String, String)>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What it answers: status and headers, and a body.
pub struct Answer {
    pub head: String,
    pub body: Vec<u8>,
    /// What goes on after the body, on the same connection, which then closes.
    pub then: Option<fn(&mut TcpStream)>,
}

pub fn answer(status: u16, headers: &str, body: &str) -> Answer {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    Answer { head, body: body.into(), then: None }
}

/// A server of plain HTTP on loopback; what it was asked, and by how many connections.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    pub connections: Arc<AtomicUsize>,
}

impl Server {
    pub fn start(handler: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server =
            Self { address: listener.local_addr().unwrap(), asked: Arc::default(), connections: Arc::default() };
        let (own, handler) = (server.clone(), Arc::new(handler));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (own, handler) = (own.clone(), handler.clone());
                thread::spawn(move || own.serve(stream.unwrap(), &*handler));
            }
        });
        server
    }

    fn serve(&self, mut stream: TcpStream, handler: &dyn Fn(&Asked, usize) -> Answer) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut counted = false;
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = Vec::new();
                if reader.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
                    return;
                }
                if line.first() == Some(&0x16) {
                    // A TLS handshake: answered as Go's server does.
                    stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to...").unwrap();
                    return;
                }
                let line = String::from_utf8(line).unwrap().trim_end().to_owned();
                if line.is_empty() {
                    break;
                }
                lines.push(line);
            }
            if !counted {
                counted = true;
                self.connections.fetch_add(1, Ordering::SeqCst);
            }
            let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
            let headers = headers.map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned())).collect();
            let asked = Asked { line: lines[0].trim_end_matches(" HTTP/1.1").to_owned(), headers };
            let number = {
                let mut all = self.asked.lock().unwrap();
                all.push(asked.clone());
                all.len() - 1
            };
            let answer = handler(&asked, number);
            stream.write_all(answer.head.as_bytes()).unwrap();
            if !asked.line.starts_with("HEAD") {
                // Who has seen enough may have gone.
                let _ = stream.write_all(&answer.body);
            }
            if let Some(then) = answer.then {
                then(&mut stream);
                return;
            }
        }
    }

    pub fn lines(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.line.clone()).collect()
    }

    pub fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }
}

/// What a test changes of the defaults.
#[derive(Default)]
pub struct Given<'a> {
    pub conf: &'a str,
    pub auth: &'a str,
    pub creds: Option<Credentials>,
    pub tls_verify: Option<bool>,
    pub retry: u32,
    pub cancel: Cancel,
    pub timeouts: Timeouts,
}

pub fn registry(given: Given) -> Registry {
    let auth = if given.auth.is_empty() { "{}" } else { given.auth };
    let files = Files::of(&[("/conf", given.conf), ("/auth.json", auth)]);
    let paths = ConfPaths { registries_conf: Some("/conf".into()), ..ConfPaths::default() };
    let auth = AuthPaths { authfile: Some("/auth.json".into()), ..AuthPaths::default() };
    Registry::new(Access {
        conf: RegistriesConf::read(&paths, &files).unwrap(),
        keyring: Keyring::new(auth, files.clone(), &[], given.cancel.clone()),
        certs: CertDirs::default(),
        files,
        tls_verify: given.tls_verify,
        creds: given.creds,
        proxies: Proxies::default(),
        cancel: given.cancel,
        retry: given.retry,
        user_agent: "skillctl/test".into(),
        timeouts: given.timeouts,
    })
}
