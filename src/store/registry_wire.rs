//! How a registry is reached: with or without TLS, through which proxy, with which credentials, by which redirects.
//!
//! The first request to a host decides the scheme and learns what the host wants to be shown; others wait for it. A token is
//! fetched once for each repository. Locks are taken in this order: hosts, scheme, token, all others alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustls::ClientConfig;
use ureq::Agent;
use ureq::http::Method;

use super::credentials::Credentials;
use super::http::{self, Failure, Request, Response, Scheme, Url};
use super::proxies::is_loopback;
use super::registries_conf::Endpoint;
use super::registry::Access;
use super::registry_auth::{Challenge, Token, token_request};
use super::registry_error::{Trouble, error, no_answer, refused};
use super::tls::{self, TlsFailure};
use crate::error::{Error, Fault, Result};

/// Redirects that are followed: registries need one, to the place that keeps their blobs.
const MAX_REDIRECTS: usize = 5;

/// A request to a registry.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub accept: Option<&'a str>,
    /// Most bytes of an answer.
    pub limit: usize,
    /// Media type and text that are sent.
    pub body: Option<(&'a str, &'a str)>,
    /// What a token must allow, such as `pull`.
    pub actions: &'static str,
    /// What messages call what is asked for.
    pub what: String,
}

/// A registry as it was met.
#[derive(Debug)]
pub(super) struct Host {
    /// Its name in messages, and for credentials and certificates.
    registry: String,
    /// Where to connect.
    authority: String,
    /// Whether neither verification nor TLS is asked of it.
    insecure: bool,
    /// Whether it may do without TLS, because it is this machine.
    local: bool,
    tls: Arc<ClientConfig>,
    scheme: Mutex<Option<Scheme>>,
    /// By whether a proxy is between, and if so the one for TLS.
    agents: Mutex<BTreeMap<Option<bool>, Agent>>,
    challenge: Mutex<Option<Challenge>>,
    tokens: Mutex<BTreeMap<String, Arc<Mutex<Option<Token>>>>>,
    /// A mirror that could not be reached once is not tried again.
    down: AtomicBool,
}

impl Host {
    /// Returns whether it could not be reached.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Notes that it could not be reached.
    pub fn set_down(&self) {
        self.down.store(true, Ordering::Relaxed);
    }
}

/// All registries that were met, and how to meet more.
#[derive(Debug)]
pub(super) struct Wire {
    pub access: Access,
    hosts: Mutex<BTreeMap<(String, bool), Arc<Host>>>,
    /// By repository: who has none there should not be looked up for each request.
    credentials: Mutex<BTreeMap<String, Option<Credentials>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    pub fn new(access: Access) -> Self {
        Self { access, hosts: Mutex::default(), credentials: Mutex::default() }
    }

    /// Returns the registry of an endpoint.
    ///
    /// # Errors
    /// What is wrong with its certificates in certs.d.
    pub fn host(&self, endpoint: &Endpoint) -> Result<Arc<Host>> {
        let access = &self.access;
        // As in podman, the flag has the last word.
        let insecure = access.tls_verify.map_or(endpoint.insecure, |verify| !verify);
        let mut hosts = lock(&self.hosts);
        let key = (endpoint.registry().to_owned(), insecure);
        if let Some(host) = hosts.get(&key) {
            return Ok(host.clone());
        }
        let certs = access.certs.read(endpoint.registry(), &access.files)?;
        let tls = tls::config(certs, !insecure).map_err(|reason| error(endpoint.registry(), Fault::Tls, reason))?;
        let url = Url { scheme: Scheme::Https, authority: endpoint.host().to_owned(), path: "/".to_owned() };
        let host = Arc::new(Host {
            registry: endpoint.registry().to_owned(),
            local: access.tls_verify.is_none() && is_loopback(url.host()),
            authority: url.authority,
            insecure,
            tls,
            scheme: Mutex::default(),
            agents: Mutex::default(),
            challenge: Mutex::default(),
            tokens: Mutex::default(),
            down: AtomicBool::default(),
        });
        hosts.insert(key, host.clone());
        Ok(host)
    }

    /// Makes a call, with credentials where the registry asks for them. Every status is an answer.
    pub fn send(&self, endpoint: &Endpoint, call: &Call) -> Result<Response, Trouble> {
        let host = self.host(endpoint)?;
        let mut scopes = vec![format!("repository:{}:{}", endpoint.repository(), call.actions)];
        let (first, response) = match self.decide(&host, call)? {
            Some(response) => (None, response),
            None => {
                let first = self.authorization(&host, endpoint, &scopes, None)?;
                let response = self.exchange(&host, call, first.as_deref())?;
                (first, response)
            }
        };
        let challenge = Challenge::of(&response.headers);
        let wants_more = match &challenge {
            Some(Challenge::Bearer { scope, .. }) => {
                response.status == 401 || response.status == 403 && scope.is_some()
            }
            Some(Challenge::Basic) => response.status == 401,
            None => false,
        };
        if !wants_more {
            return Ok(response);
        }
        if let Some(Challenge::Bearer { scope: Some(scope), .. }) = &challenge
            && !scopes.contains(scope)
        {
            scopes.push(scope.clone());
        }
        *lock(&host.challenge) = challenge;
        let second = self.authorization(&host, endpoint, &scopes, first.as_deref())?;
        if second.is_none() || second == first {
            return Ok(response);
        }
        self.exchange(&host, call, second.as_deref())
    }

    /// Returns the scheme of a registry, which its first request decides.
    pub fn scheme(&self, endpoint: &Endpoint, call: &Call) -> Result<Scheme, Trouble> {
        let host = self.host(endpoint)?;
        self.decide(&host, call)?;
        Ok((*lock(&host.scheme)).unwrap_or(Scheme::Https))
    }

    /// Returns the value of `Authorization`, where the registry is known to ask for one and we have it.
    ///
    /// `refused` was refused before. The first scope names the token, the others are what the registry asks for as well.
    fn authorization(
        &self,
        host: &Host,
        endpoint: &Endpoint,
        scopes: &[String],
        refused: Option<&str>,
    ) -> Result<Option<String>, Trouble> {
        let challenge = lock(&host.challenge).clone();
        let (realm, service) = match challenge {
            None => return Ok(None),
            Some(Challenge::Basic) => return Ok(self.credentials(endpoint)?.map(|c| c.basic())),
            Some(Challenge::Bearer { realm, service, .. }) => (realm, service),
        };
        let slot = lock(&host.tokens).entry(scopes.first().cloned().unwrap_or_default()).or_default().clone();
        // Whoever wants the same token waits here for the one who fetches it.
        let mut slot = lock(&slot);
        let header = |token: &Token| format!("Bearer {}", token.text);
        if let Some(token) = slot.as_ref().filter(|token| token.holds()).map(header)
            && Some(token.as_str()) != refused
        {
            return Ok(Some(token));
        }
        let credentials = self.credentials(endpoint)?;
        let realm = realm_of(host, &realm)?;
        let request = token_request(&realm, service.as_deref(), scopes, credentials.as_ref());
        let token = self.token(host, request)?;
        Ok(Some(header(slot.insert(token))))
    }

    fn token(&self, host: &Host, request: Request) -> Result<Token, Trouble> {
        let (asked, server) = (Instant::now(), request.url.authority.clone());
        let response = self.run(host, request).map_err(|failure| no_answer(&server, failure))?;
        let bad = |reason| {
            Trouble::from(error(&host.registry, Fault::Protocol, format!("its token server {server} {reason}")))
        };
        match response.status {
            200..=299 => Token::read(&response.body, asked).ok_or_else(|| bad("sends no token")),
            // Not to be taken for an image that is not there.
            404 => Err(bad("is not there (404)")),
            _ => Err(refused(&host.registry, &format!("token server {server}"), &response)),
        }
    }

    /// Returns the credentials for an endpoint; those of the command line are for the registry that was named only.
    pub fn credentials(&self, endpoint: &Endpoint) -> Result<Option<Credentials>> {
        if self.access.creds.is_some() && endpoint.named {
            return Ok(self.access.creds.clone());
        }
        let mut known = lock(&self.credentials);
        if let Some(found) = known.get(endpoint.reference.name()) {
            return Ok(found.clone());
        }
        let found = self.access.keyring.find(&endpoint.reference)?;
        known.insert(endpoint.reference.name().to_owned(), found.clone());
        Ok(found)
    }

    fn exchange(&self, host: &Host, call: &Call, authorization: Option<&str>) -> Result<Response, Trouble> {
        let scheme = (*lock(&host.scheme)).unwrap_or(Scheme::Https);
        self.follow(host, scheme, call, authorization).map_err(|failure| no_answer(&host.registry, failure))
    }

    /// Makes the first call to a host: with TLS, and where that fails and may be left out, without.
    ///
    /// `None` where the first call has been made; whoever comes in the meantime waits, and then knows what it taught.
    fn decide(&self, host: &Host, call: &Call) -> Result<Option<Response>, Trouble> {
        let mut decided = lock(&host.scheme);
        if decided.is_some() {
            return Ok(None);
        }
        let mut scheme = Scheme::Https;
        let mut result = self.follow(host, scheme, call, None);
        let plain = matches!(result, Err(Failure::Tls(TlsFailure::Plain)));
        let cancelled = matches!(result, Err(Failure::Cancelled));
        if plain && host.local || result.is_err() && host.insecure && !cancelled {
            scheme = Scheme::Http;
            let without = self.follow(host, scheme, call, None);
            if without.is_ok() || plain {
                result = without;
            }
        }
        let response = result.map_err(|failure| no_answer(&host.registry, failure))?;
        *lock(&host.challenge) = (response.status == 401).then(|| Challenge::of(&response.headers)).flatten();
        *decided = Some(scheme);
        Ok(Some(response))
    }

    /// Sends a request and follows where it is sent; what we show the registry is for its own host only.
    fn follow(
        &self,
        host: &Host,
        scheme: Scheme,
        call: &Call,
        authorization: Option<&str>,
    ) -> Result<Response, Failure> {
        let origin = Url { scheme, authority: host.authority.clone(), path: call.path.clone() };
        let mut url = origin.clone();
        for _ in 0..=MAX_REDIRECTS {
            let own = url.same_host(&origin) && url.scheme == origin.scheme;
            let authorization = authorization.filter(|_| own).map(|value| ("authorization", value.to_owned()));
            let headers = call.accept.map(|accept| ("accept", accept.to_owned())).into_iter().chain(authorization);
            let headers = headers.chain(call.body.map(|(media_type, _)| ("content-type", media_type.to_owned())));
            let request = Request {
                method: call.method.clone(),
                url: url.clone(),
                headers: headers.collect(),
                body: call.body.map(|(_, text)| text.to_owned()),
                limit: call.limit,
            };
            let response = self.run(host, request)?;
            let location = match response.status {
                301 | 302 | 303 | 307 | 308 if call.method == Method::GET || call.method == Method::HEAD => {
                    response.header("location")
                }
                _ => None,
            };
            let Some(location) = location else { return Ok(response) };
            let next =
                url.join(location).ok_or_else(|| Failure::Garbage("it redirects to what is no address".into()))?;
            if next.scheme == Scheme::Http && url.scheme == Scheme::Https && !host.insecure {
                return Err(Failure::Garbage(format!("it redirects to plain HTTP at {}", next.authority)));
            }
            url = next;
        }
        Err(Failure::Garbage(format!("it redirects more than {MAX_REDIRECTS} times")))
    }

    fn run(&self, host: &Host, request: Request) -> Result<Response, Failure> {
        let access = &self.access;
        if access.cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let tls = request.url.scheme == Scheme::Https;
        let proxy = access.proxies.proxy(tls, request.url.host(), request.url.port());
        let agent = lock(&host.agents)
            .entry(proxy.map(|_| tls))
            .or_insert_with(|| http::agent(host.tls.clone(), proxy.cloned(), &access.user_agent, &access.timeouts))
            .clone();
        http::run(&agent, request, &access.timeouts, &access.cancel)
    }
}

/// Returns where the token server is, which gets the password: never without TLS, unless that was allowed.
fn realm_of(host: &Host, realm: &str) -> Result<Url> {
    let bad = |reason: &str| Error::Registry {
        registry: host.registry.clone(),
        fault: Fault::Protocol,
        reason: format!("its token server {reason}"),
        hint: None,
    };
    let url = Url::parse(realm).ok_or_else(|| bad("has no address that can be used"))?;
    let plain = *lock(&host.scheme) == Some(Scheme::Http);
    if url.scheme == Scheme::Http && !(plain && (host.insecure || is_loopback(url.host()))) {
        return Err(bad(&format!("{} speaks plain HTTP, so it gets no credentials", url.authority)));
    }
    Ok(url)
}
