//! A Git server on loopback that speaks HTTP, by the CGI program that git brings.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

/// Who is let in.
#[derive(Debug, Clone, Copy)]
pub enum Access {
    /// Everyone.
    Anyone,
    /// Who says this after `Authorization: `.
    With(&'static str),
    /// Nobody, with this status.
    Refused(u16),
}

/// Serves the repositories below a directory, and returns host and port.
pub fn serve(root: &Path, access: Access) -> String {
    let (listener, address) = mute();
    let root = root.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let root = root.clone();
            // What goes wrong on a connection is what git sees of it.
            thread::spawn(move || answer(stream, &root, access));
        }
    });
    address
}

/// Listens, and never says anything.
pub fn mute() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

/// Answers one request.
fn answer(mut stream: TcpStream, root: &Path, access: Access) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let header = |name: &str| {
        let value = |line: &String| {
            let (own, value) = line.split_once(": ")?;
            own.eq_ignore_ascii_case(name).then(|| value.to_owned())
        };
        lines.iter().find_map(value).unwrap_or_default()
    };
    let mut words = lines.first()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let refused = match access {
        Access::Anyone => None,
        Access::With(said) => (header("authorization") != said).then_some(401),
        Access::Refused(status) => Some(status),
    };
    if let Some(status) = refused {
        let head = format!(
            "HTTP/1.1 {status} X\r\nwww-authenticate: Basic realm=\"x\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        return stream.write_all(head.as_bytes()).ok();
    }
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    thread::spawn(move || stdin.write_all(&body));
    let output = child.wait_with_output().ok()?.stdout;
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n").ok()?;
    stream.write_all(&output).ok()
}
