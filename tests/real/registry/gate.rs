//! A proxy before a plain registry that misbehaves as it is told to: it refuses, breaks off, lies, stalls, or only takes its time.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{Body, Head, Peer};
use super::tokens::{Tokens, denied};
use super::{INDEX, MANIFEST, Registry, Request};

/// What happens to a request instead of a plain answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The registry is not asked; this status is the answer. A DELETE with 202 is one that is promised and not done.
    Status(u16),
    /// 429, with how many seconds to wait.
    Later(u32),
    /// The connection is closed after half of the body.
    Cut,
    /// One byte of the body is another one.
    Wrong,
    /// The body is this.
    Instead(Vec<u8>),
    /// The body is a JSON object, or blob, that does not end; after each 64 KiB a pause.
    Endless(Duration),
    /// The body comes at so many bytes per second.
    Slow(u64),
    /// There is no answer.
    Silence,
}

/// For a fault that stays.
pub const ALWAYS: usize = usize::MAX;

/// Endless is this much, so that a program that would take everything does no harm.
const ENDLESS: u64 = 512 << 20;

struct Rule {
    method: &'static str,
    part: String,
    left: usize,
    fault: Fault,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    requests: Vec<Request>,
    delay: Duration,
    tokens: Option<Tokens>,
    connections: usize,
    /// Those of them by which our own client has asked anything.
    ours: usize,
}

/// What refers to a manifest of a repository.
type Referrers = Box<dyn Fn(&str, &str) -> Vec<Value> + Send + Sync>;

struct Shared {
    upstream: String,
    referrers: Option<Referrers>,
    address: String,
    state: Mutex<State>,
    over: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic in a gate")
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// A gate that is open until this value is dropped.
pub struct Gate {
    shared: Arc<Shared>,
    /// Host and port.
    pub address: String,
}

impl Gate {
    /// Opens a gate before a registry.
    pub fn before(registry: &Registry) -> Self {
        Self::open(registry, None)
    }

    /// Opens a gate that adds the referrers API to a registry.
    pub fn with_referrers(registry: &Registry) -> Self {
        Self::open(registry, Some(Box::new(registry.referrers())))
    }

    fn open(registry: &Registry, referrers: Option<Referrers>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (over, state) = (AtomicBool::new(false), Mutex::new(State::default()));
        let shared =
            Arc::new(Shared { upstream: registry.address.clone(), referrers, address: address.clone(), state, over });
        let gate = Self { shared: Arc::clone(&shared), address };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.over() {
                    break;
                }
                shared.state().connections += 1;
                let shared = Arc::clone(&shared);
                // What goes wrong on a connection is what the other side sees of it.
                thread::spawn(move || drop(serve(&shared, client)));
            }
        });
        gate
    }

    /// Returns the name of a repository behind it, with a tag or digest if given.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Does this to the next so many requests of that method (or any: `*`) with that in their path.
    pub fn on(&self, method: &'static str, part: &str, times: usize, fault: Fault) {
        self.shared.state().rules.push(Rule { method, part: part.to_owned(), left: times, fault });
    }

    /// Ends all faults, and forgets what was asked.
    pub fn reset(&self) {
        let mut state = self.shared.state();
        state.rules.clear();
        state.requests.clear();
        state.delay = Duration::ZERO;
    }

    /// Takes so long for each request.
    pub fn delay(&self, delay: Duration) {
        self.shared.state().delay = delay;
    }

    /// Lets in only who has a token, which this user gets for a password.
    pub fn tokens(&self, user: &str, password: &str) {
        self.shared.state().tokens = Some(Tokens::new(user, password));
    }

    /// Returns what was asked so far, in the order of the answers.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// Returns how many requests there were of that method, with that in their path.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.shared.state().requests.iter().filter(|request| request.is(method, part)).count()
    }

    /// Returns how many connections there were.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// Returns how many connections our own client has asked something by; skopeo makes others.
    pub fn ours(&self) -> usize {
        self.shared.state().ours
    }

    /// Waits until there was a request of that method, with that in its path.
    #[track_caller]
    pub fn wait_for(&self, method: &str, part: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while self.count(method, part) == 0 {
            assert!(Instant::now() < end, "no {method} …{part}… among {:?}", self.requests());
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.address); // so that it looks
        if thread::panicking() {
            for Request { method, path, status } in self.requests() {
                let _ = writeln!(io::stderr(), "gate: {status} {method} {path}");
            }
        }
    }
}

/// First byte of a connection that wants TLS.
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves one connection, and keeps one to the registry as long.
fn serve(shared: &Shared, client: TcpStream) -> io::Result<()> {
    let mut client = Peer::new(client)?;
    if client.input.fill_buf()?.first() == Some(&TLS_HANDSHAKE) {
        // What every server without TLS says, in Go and elsewhere; by it skopeo and we know what it speaks.
        return client
            .output
            .write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n");
    }
    let mut upstream = Peer::connect(&shared.upstream)?;
    let mut first = true;
    while let Some(mut request) = Head::read(&mut client.input)? {
        if std::mem::take(&mut first) && request.get("user-agent").is_some_and(|agent| agent.starts_with("skillctl/")) {
            shared.state().ours += 1;
        }
        let delay = shared.state().delay;
        thread::sleep(delay);
        if request.get("expect").is_some() {
            client.output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            request.set("Expect", None);
        }
        exchange(shared, &request, &mut client, &mut upstream)?;
    }
    Ok(())
}

/// Answers one request; an error closes the connection.
fn exchange(shared: &Shared, request: &Head, client: &mut Peer, upstream: &mut Peer) -> io::Result<()> {
    let (method, path) = (request.word(0), request.word(1));
    let asked = Request { method: method.to_owned(), path: path.to_owned(), status: 0 };
    let noted = |status: u16| {
        shared.state().requests.push(Request { status, ..asked.clone() });
    };
    let answer = |client: &mut Peer, status: u16, fields: &[(&str, &str)], body: &[u8]| {
        request.body(None).relay(&mut client.input, &mut io::sink())?;
        noted(status);
        let mut head = Head::new(format!("HTTP/1.1 {status} -"), fields);
        head.set("Content-Length", Some(&body.len().to_string()));
        head.write(&mut client.output)?;
        client.output.write_all(if method == "HEAD" { &[] } else { body })
    };
    const JSON: (&str, &str) = ("Content-Type", "application/json");

    let checked = {
        let mut state = shared.state();
        match state.tokens.as_mut() {
            Some(tokens) if path.starts_with("/token") => Err((tokens.give(request), None)),
            Some(tokens) => match tokens.check(request, &shared.address) {
                Ok(()) => Ok(()),
                Err(challenge) => Err(((401, denied("UNAUTHORIZED", "authentication required")), Some(challenge))),
            },
            None => Ok(()),
        }
    };
    if let Err(((status, body), challenge)) = checked {
        let challenge = challenge.as_deref().map(|challenge| ("WWW-Authenticate", challenge));
        return answer(client, status, &[JSON].into_iter().chain(challenge).collect::<Vec<_>>(), &body);
    }
    if let (Some(referrers), Some((repository, subject))) = (&shared.referrers, path.split_once("/referrers/")) {
        let repository = repository.trim_start_matches("/v2/");
        let subject = subject.split('?').next().unwrap_or_default();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": referrers(repository, subject)});
        return answer(client, 200, &[("Content-Type", INDEX)], index.to_string().as_bytes());
    }
    let fault = shared.state().rules.iter_mut().find_map(|rule| {
        let hit = rule.left > 0 && asked.is(rule.method, &rule.part);
        hit.then(|| {
            rule.left = if rule.left == ALWAYS { ALWAYS } else { rule.left - 1 };
            rule.fault.clone()
        })
    });
    // A subject is answered with, by which clients know that they need not list it themselves.
    let is_put = method == "PUT" && path.contains("/manifests/") && shared.referrers.is_some();
    match fault {
        None if is_put => {
            let body = request.body(None).read(&mut client.input)?;
            request.write(&mut upstream.output)?;
            upstream.output.write_all(&body)?;
            let mut head = Head::read(&mut upstream.input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let manifest: Value = serde_json::from_slice(&body).unwrap_or_default();
            head.set("OCI-Subject", manifest["subject"]["digest"].as_str());
            noted(head.status());
            head.write(&mut client.output)?;
            head.body(Some(method)).relay(&mut upstream.input, &mut client.output)
        }
        None => forward(request, client, upstream, None, noted),
        Some(Fault::Status(status)) => {
            let code = match status {
                401 => "UNAUTHORIZED",
                403 => "DENIED",
                405 => "UNSUPPORTED",
                _ => "UNKNOWN",
            };
            answer(client, status, &[JSON], &denied(code, "as the test wants it"))
        }
        Some(Fault::Later(seconds)) => {
            let after = ("Retry-After", &*seconds.to_string());
            answer(client, 429, &[JSON, after], &denied("TOOMANYREQUESTS", "rate limit exceeded"))
        }
        Some(Fault::Instead(body)) => answer(client, 200, &[("Content-Type", MANIFEST)], &body),
        Some(Fault::Endless(pause)) => {
            noted(200);
            endless(shared, method, path, client, pause)
        }
        Some(Fault::Silence) => {
            noted(0);
            while !shared.over() {
                thread::sleep(Duration::from_millis(20));
            }
            Err(io::ErrorKind::TimedOut.into())
        }
        Some(fault) => forward(request, client, upstream, Some(fault), noted),
    }
}

/// Asks the registry and passes on what it says, with a fault in it.
fn forward(
    request: &Head,
    client: &mut Peer,
    upstream: &mut Peer,
    fault: Option<Fault>,
    noted: impl Fn(u16),
) -> io::Result<()> {
    request.write(&mut upstream.output)?;
    request.body(None).relay(&mut client.input, &mut upstream.output)?;
    let answer = Head::read(&mut upstream.input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let framing = answer.body(Some(request.word(0)));
    noted(answer.status());
    answer.write(&mut client.output)?;
    let Some(fault) = fault else { return framing.relay(&mut upstream.input, &mut client.output) };
    let Body::Length(length) = framing else { panic!("{answer:?} has no length") };
    match fault {
        Fault::Cut => {
            io::copy(&mut (&mut upstream.input).take(length / 2), &mut client.output)?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        Fault::Wrong => {
            let mut body = framing.read(&mut upstream.input)?;
            let middle = body.len() / 2;
            body.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1);
            client.output.write_all(&body)
        }
        Fault::Slow(rate) => {
            for start in (0..length).step_by(usize::try_from(rate / 20).expect("a rate")) {
                let part = (rate / 20).min(length - start);
                io::copy(&mut (&mut upstream.input).take(part), &mut client.output)?;
                thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        }
        fault => panic!("{fault:?} needs no registry"),
    }
}

/// Sends a manifest whose JSON never closes, or a blob that is longer than anyone said.
fn endless(shared: &Shared, method: &str, path: &str, client: &mut Peer, pause: Duration) -> io::Result<()> {
    let manifest = path.contains("/manifests/");
    let media_type = if manifest { MANIFEST } else { "application/octet-stream" };
    let head = [("Content-Type", media_type), ("Transfer-Encoding", "chunked")];
    Head::new("HTTP/1.1 200 OK", &head).write(&mut client.output)?;
    if method == "HEAD" {
        return Ok(());
    }
    let start: &[u8] = if manifest { br#"{"schemaVersion":2,"annotations":{"padding":""# } else { b"" };
    let chunk = [start, &vec![b'a'; 65536 - start.len()]].concat();
    for sent in 0..ENDLESS / 65536 {
        if shared.over() {
            break;
        }
        let chunk = if sent == 0 { &chunk[..] } else { &[b'a'; 65536][..] };
        client.output.write_all(b"10000\r\n")?;
        client.output.write_all(chunk)?;
        client.output.write_all(b"\r\n")?;
        thread::sleep(pause);
    }
    Err(io::ErrorKind::ConnectionAborted.into())
}
