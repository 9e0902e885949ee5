//! One HTTP exchange at a time: bounded, and ended within a moment when the user asks.
//!
//! Each exchange runs on a thread of its own, because neither the look-up of a name nor a handshake can be interrupted; who
//! waits for it watches [`Cancel`] and the clock. A thread that is left behind ends at its deadline or with the process.

use std::fmt;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use ureq::http::{HeaderMap, Method};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, SocksConnector, TcpConnector};
use ureq::{Agent, Proxy, Timeout};

use super::tls::{TlsConnector, TlsFailure};
use crate::process::Cancel;

/// How often a waiting request looks at [`Cancel`]: below what a user notices.
const TICK: Duration = Duration::from_millis(50);
/// Connections kept for one host: more than any verb has threads, so that each thread finds one.
const IDLE_CONNECTIONS: usize = 32;
/// Buffer of a connection, each way; manifests are about 2 KiB, and ureq's default of 128 KiB is for downloads.
const BUFFER: usize = 16 << 10;

/// How the standard library begins the error for a name that the resolver does not find.
const LOOK_UP: &str = "failed to lookup address information";

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Until there is a connection, name look-up and TLS included. Beyond 10 s a registry is not there.
    pub connect: Duration,
    /// Until the next byte. Registries that copy from another one first take up to 20 s for an answer.
    pub silence: Duration,
    /// For a whole exchange: 4 MiB, the most we read, over a line of 40 kB/s.
    pub exchange: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), silence: Duration::from_secs(30), exchange: Duration::from_secs(120) }
    }
}

/// The two ways of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// With TLS.
    Https,
    /// Without.
    Http,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

/// An address, as far as registries need one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub scheme: Scheme,
    /// Host, and port where one was given.
    pub authority: String,
    /// Path and query, beginning with a slash.
    pub path: String,
}

impl Url {
    /// Reads an absolute address; `None` for other schemes, and for user names in it.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let legal = !authority.is_empty() && !authority.contains('@');
        let slash = if path.starts_with('/') { "" } else { "/" };
        legal.then(|| Self { scheme, authority: authority.to_owned(), path: format!("{slash}{path}") })
    }

    /// Returns what `location` means on a page at this address.
    pub fn join(&self, location: &str) -> Option<Self> {
        let absolute =
            location.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphabetic()));
        if absolute {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme.name()));
        }
        let location = location.split('#').next().unwrap_or_default();
        let page = self.path.split('?').next().unwrap_or_default();
        let path = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') => format!("{page}{location}"),
            _ => format!("{}/{location}", page.rsplit_once('/').map_or("", |(dir, _)| dir)),
        };
        Some(Self { path, ..self.clone() })
    }

    /// Returns the host without port and brackets.
    pub fn host(&self) -> &str {
        let end = self.authority.rfind(':').filter(|colon| !self.authority[*colon..].contains(']'));
        self.authority[..end.unwrap_or(self.authority.len())].trim_matches(['[', ']'])
    }

    /// Returns the port, where one is given or implied.
    pub fn port(&self) -> u16 {
        let default = if self.scheme == Scheme::Https { 443 } else { 80 };
        let (_, port) = self.authority.rsplit_once(':').unwrap_or_default();
        port.parse().unwrap_or(default)
    }

    /// Returns whether both are at one host and port, whatever the scheme.
    pub fn same_host(&self, other: &Self) -> bool {
        let same_port = self.port() == other.port() || self.scheme != other.scheme && self.is_bare() && other.is_bare();
        self.host().eq_ignore_ascii_case(other.host()) && same_port
    }

    fn is_bare(&self) -> bool {
        self.port() == Self { authority: self.host().to_owned(), ..self.clone() }.port()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.name(), self.authority, self.path)
    }
}

/// A request.
#[derive(Clone)]
pub(super) struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<String>,
    /// Most bytes of an answer.
    pub limit: usize,
}

/// An answer, of whatever status.
#[derive(Debug)]
pub(super) struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the first value of a header, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The user asked to stop.
    Cancelled,
    /// No secure connection.
    Tls(TlsFailure),
    /// No connection; trying again soon would not help.
    NoConnection(String),
    /// The connection broke.
    Broken(String),
    /// No answer in time.
    Slow(String),
    /// What came is no HTTP.
    Garbage(String),
    /// More bytes than the request allows.
    TooLarge(usize),
}

/// Returns an agent; agents with the same way to a host should be one, because each keeps connections of its own.
pub(super) fn agent(tls: Arc<ClientConfig>, proxy: Option<Proxy>, user_agent: &str, timeouts: &Timeouts) -> Agent {
    let config = Agent::config_builder()
        .proxy(proxy)
        .user_agent(user_agent)
        .http_status_as_error(false)
        // They are followed by us, who know where credentials may go.
        .max_redirects(0)
        .timeout_global(Some(timeouts.exchange))
        .timeout_connect(Some(timeouts.connect))
        .timeout_resolve(Some(timeouts.connect))
        .timeout_per_read(Some(timeouts.silence))
        .timeout_per_write(Some(timeouts.silence))
        .max_idle_connections(IDLE_CONNECTIONS)
        .max_idle_connections_per_host(IDLE_CONNECTIONS)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .build();
    let connector =
        ().chain(SocksConnector::default())
            .chain(ConnectProxyConnector::default())
            .chain(TcpConnector::default())
            .chain(TlsConnector(tls));
    Agent::with_parts(config, connector, DefaultResolver::default())
}

/// Sends a request and reads the answer.
pub(super) fn run(agent: &Agent, request: Request, timeouts: &Timeouts, cancel: &Cancel) -> Result<Response, Failure> {
    let (answer, answers) = mpsc::sync_channel(1);
    let agent = agent.clone();
    let limits = *timeouts;
    let perform = move || {
        // Nobody waits any more after a cancellation.
        let _ = answer.send(perform(&agent, request, &limits));
    };
    thread::Builder::new().name("http".into()).spawn(perform).map_err(|e| Failure::NoConnection(e.to_string()))?;
    // The agent ends by itself; this is for what it cannot end.
    let deadline = Instant::now() + timeouts.exchange + TICK;
    loop {
        match answers.recv_timeout(TICK) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::Broken("the request came to no end".into())),
            Err(RecvTimeoutError::Timeout) if cancel.is_cancelled() => return Err(Failure::Cancelled),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => return Err(too_long(timeouts)),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn too_long(timeouts: &Timeouts) -> Failure {
    Failure::Slow(format!("the answer is not complete after {} s", timeouts.exchange.as_secs()))
}

fn perform(agent: &Agent, request: Request, timeouts: &Timeouts) -> Result<Response, Failure> {
    let mut builder = ureq::http::Request::builder().method(request.method).uri(request.url.to_string());
    for (name, value) in request.headers {
        builder = builder.header(name, value);
    }
    let illegal = |e: ureq::http::Error| Failure::Garbage(e.to_string());
    let sent = match request.body {
        Some(body) => agent.run(builder.body(body).map_err(illegal)?),
        None => agent.run(builder.body(()).map_err(illegal)?),
    };
    let (head, body) = sent.map_err(|e| failure(e, timeouts))?.into_parts();
    let limit = u64::try_from(request.limit).unwrap_or(u64::MAX);
    if body.content_length().is_some_and(|length| length > limit) {
        return Err(Failure::TooLarge(request.limit));
    }
    let mut bytes = Vec::new();
    let mut reader = body.into_with_config().limit(u64::MAX).reader().take(limit + 1);
    reader.read_to_end(&mut bytes).map_err(|e| failure(e.into(), timeouts))?;
    if bytes.len() > request.limit {
        return Err(Failure::TooLarge(request.limit));
    }
    Ok(Response { status: head.status.as_u16(), headers: head.headers, body: bytes })
}

fn failure(error: ureq::Error, timeouts: &Timeouts) -> Failure {
    use ureq::Error as E;
    match error {
        E::Io(e) => broken(&e),
        E::Timeout(Timeout::Connect | Timeout::Resolve) => {
            Failure::Slow(format!("no connection after {} s", timeouts.connect.as_secs()))
        }
        E::Timeout(Timeout::PerRead | Timeout::PerWrite | Timeout::RecvResponse) => {
            Failure::Slow(format!("no answer for {} s", timeouts.silence.as_secs()))
        }
        E::Timeout(_) => too_long(timeouts),
        E::HostNotFound => Failure::NoConnection("its name cannot be looked up".into()),
        E::ConnectionFailed => Failure::NoConnection("connection failed".into()),
        E::ConnectProxyFailed(reason) => Failure::NoConnection(format!("the proxy refuses: {reason}")),
        E::InvalidProxyUrl => Failure::NoConnection("the address of the proxy is none".into()),
        E::Tls(reason) => Failure::Tls(TlsFailure::Other(reason.into())),
        E::Other(other) => match other.downcast_ref::<TlsFailure>() {
            Some(tls) => Failure::Tls(tls.clone()),
            None => Failure::Broken(other.to_string()),
        },
        other => Failure::Garbage(format!("its answer is no HTTP: {other}")),
    }
}

fn broken(error: &io::Error) -> Failure {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Failure::Tls(tls.into());
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::NoConnection("connection refused".into()),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Failure::NoConnection(error.kind().to_string())
        }
        io::ErrorKind::ConnectionReset => Failure::Broken("the connection was reset".into()),
        io::ErrorKind::UnexpectedEof => Failure::Broken("the connection was closed".into()),
        io::ErrorKind::TimedOut => Failure::Slow("the connection timed out".into()),
        _ => {
            let text = error.to_string();
            // The standard library has no kind of error for it.
            match text.strip_prefix(LOOK_UP) {
                Some(reason) => Failure::NoConnection(format!("its name cannot be looked up{reason}")),
                None => Failure::Broken(text),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined() {
        let page = Url::parse("https://r.example:5000/v2/a/tags/list?n=2").unwrap();
        let cases = [
            ("/v2/a/tags/list?last=x", Some("https://r.example:5000/v2/a/tags/list?last=x")),
            ("?last=x", Some("https://r.example:5000/v2/a/tags/list?last=x")),
            ("list?u=http://x", Some("https://r.example:5000/v2/a/tags/list?u=http://x")),
            ("//cdn.example/b", Some("https://cdn.example/b")),
            ("http://cdn.example?b#f", Some("http://cdn.example/?b")),
            ("ftp://cdn.example/b", None),
            ("https://user@cdn.example/b", None),
            ("https:///b", None),
        ];
        for (location, joined) in cases {
            assert_eq!(page.join(location).map(|url| url.to_string()).as_deref(), joined, "{location}");
        }
    }

    #[test]
    fn hosts_are_compared() {
        let cases = [
            ("https://r/", "https://R:443/x", true),
            ("https://r/", "http://r/", true),
            ("https://r:5000/", "http://r:5000/", true),
            ("https://r:5000/", "https://r/", false),
            ("https://r/", "https://s/", false),
            ("https://[::1]:5000/", "https://[::1]:5000/", true),
        ];
        for (a, b, same) in cases {
            assert_eq!(Url::parse(a).unwrap().same_host(&Url::parse(b).unwrap()), same, "{a} {b}");
        }
        assert_eq!(Url::parse("http://[::1]:5000/").unwrap().host(), "::1");
        assert_eq!(Url::parse("http://[::1]/").unwrap().port(), 80);
    }
}
