//! Just enough of HTTP/1.1 to ask a registry and to stand before one: heads, bodies, one exchange at a time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The first line of a request or answer, and its fields.
#[derive(Debug, Clone)]
pub struct Head {
    /// `GET /v2/ HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// Makes a head.
    pub fn new(first: impl Into<String>, fields: &[(&str, &str)]) -> Self {
        let fields = fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Self { first: first.into(), fields }
    }

    /// Reads a head; nothing where the other side is done.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end() {
                "" if lines.is_empty() => {}
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let fields = lines[1..].iter().filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Ok(Some(Self { first: lines.swap_remove(0), fields }))
    }

    /// Writes the head with the empty line after it.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let fields: String = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        write!(to, "{}\r\n{fields}\r\n", self.first)
    }

    /// Returns the value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Sets a field, or removes it.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        self.fields.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.fields.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// Returns a word of the first line.
    pub fn word(&self, number: usize) -> &str {
        self.first.split(' ').nth(number).unwrap_or_default()
    }

    /// Returns the status of an answer.
    pub fn status(&self) -> u16 {
        self.word(1).parse().expect("a status")
    }

    /// Returns how the body after this head ends; `answers` is the method that this head answers, if it is no request.
    pub fn body(&self, answers: Option<&str>) -> Body {
        let bodiless = answers.is_some_and(|method| method == "HEAD" || matches!(self.status(), 100..=199 | 204 | 304));
        let length = self.get("content-length").and_then(|length| length.parse().ok());
        match (self.get("transfer-encoding"), length) {
            _ if bodiless => Body::Length(0),
            (Some(_), _) => Body::Chunked,
            (None, Some(length)) => Body::Length(length),
            (None, None) if answers.is_some() => Body::ToEnd,
            (None, None) => Body::Length(0),
        }
    }
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// After so many bytes.
    Length(u64),
    /// With an empty chunk.
    Chunked,
    /// With the connection.
    ToEnd,
}

impl Body {
    /// Copies the body with its framing.
    pub fn relay(self, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Length(length) => exactly(from, to, length),
            Self::ToEnd => io::copy(from, to).map(drop),
            Self::Chunked => loop {
                let mut line = String::new();
                from.read_line(&mut line)?;
                to.write_all(line.as_bytes())?;
                let size = u64::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
                exactly(from, to, size + 2)?;
                if size == 0 {
                    return Ok(());
                }
            },
        }
    }

    /// Reads the body without its framing.
    pub fn read(self, from: &mut impl BufRead) -> io::Result<Vec<u8>> {
        let mut framed = Vec::new();
        self.relay(from, &mut framed)?;
        if self != Self::Chunked {
            return Ok(framed);
        }
        let (mut body, mut rest) = (Vec::new(), &framed[..]);
        loop {
            let mut line = String::new();
            rest.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&rest[..size]);
            rest = &rest[size + 2..];
        }
    }
}

fn exactly(from: &mut impl Read, to: &mut impl Write, length: u64) -> io::Result<()> {
    match io::copy(&mut from.take(length), to)? {
        copied if copied == length => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A connection, read through a buffer.
#[derive(Debug)]
pub struct Peer {
    /// What it sends.
    pub input: BufReader<TcpStream>,
    /// What it gets.
    pub output: TcpStream,
}

impl Peer {
    /// Takes a connection.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { input: BufReader::new(stream.try_clone()?), output: stream })
    }

    /// Connects.
    pub fn connect(address: &str) -> io::Result<Self> {
        Self::new(TcpStream::connect(address)?)
    }
}

/// Asks once, on a connection of its own, and returns the answer's head and body.
#[track_caller]
pub fn ask(address: &str, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> (Head, Vec<u8>) {
    let exchange = || {
        let mut peer = Peer::connect(address)?;
        peer.output.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut head = Head::new(format!("{method} {path} HTTP/1.1"), fields);
        head.set("Host", Some(address));
        head.set("Content-Length", Some(&body.len().to_string()));
        head.set("Connection", Some("close"));
        head.write(&mut peer.output)?;
        peer.output.write_all(body)?;
        let answer = Head::read(&mut peer.input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let body = answer.body(Some(method)).read(&mut peer.input)?;
        Ok::<_, io::Error>((answer, body))
    };
    exchange().unwrap_or_else(|e| panic!("{method} http://{address}{path}: {e}"))
}

/// Encodes text as Basic authentication and auth.json have it.
pub fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = text.as_bytes().chunks(3).flat_map(|bytes| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(bytes.get(at).copied().unwrap_or(0)));
        (0..4).map(move |at| match at <= bytes.len() {
            true => char::from(DIGITS[bits >> (18 - 6 * at) & 63]),
            false => '=',
        })
    });
    groups.collect()
}
