//! Files of web sites: `https` with the certificates and proxies of registries, and no credentials.
//!
//! Plain HTTP is for this machine, and for what `--tls-verify=false` allows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ureq::Agent;
use ureq::http::Method;

use super::certs::CertDirs;
use super::files::Files;
use super::http::{self, Failure, Request, Response, Scheme, Timeouts, Url};
use super::proxies::{Proxies, is_loopback};
use super::registry::Registry;
use super::registry_error::{error, no_answer, too_large};
use super::tls;
use crate::error::{Error, Fault, Result};
use crate::process::Cancel;

/// Redirects that are followed; sites need one or two, to where they keep their files.
const MAX_REDIRECTS: usize = 5;
/// For a whole file, which is larger than what registries are asked for: 64 MiB over a line of 110 kB/s.
const EXCHANGE: Duration = Duration::from_secs(600);

/// Reads files of web sites.
#[derive(Debug)]
pub struct Web {
    certs: CertDirs,
    files: Files,
    verify: bool,
    proxies: Proxies,
    cancel: Cancel,
    user_agent: String,
    timeouts: Timeouts,
    /// By host and port, and whether with TLS.
    agents: Mutex<BTreeMap<(String, bool), Agent>>,
}

impl Registry {
    /// Returns a reader of web sites that are reached as registries are.
    pub fn web(&self) -> Web {
        let access = &self.wire.access;
        Web {
            certs: access.certs.clone(),
            files: access.files.clone(),
            verify: access.tls_verify != Some(false),
            proxies: access.proxies.clone(),
            cancel: access.cancel.clone(),
            user_agent: access.user_agent.clone(),
            timeouts: Timeouts { exchange: access.timeouts.exchange.max(EXCHANGE), ..access.timeouts },
            agents: Mutex::default(),
        }
    }
}

impl Web {
    /// Returns what ends its requests.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Returns a file of at most `limit` bytes; `None` where there is none (404).
    ///
    /// # Errors
    /// [`Error::Registry`], with the site's host as its registry.
    pub fn get(&self, address: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        let bad = || Error::Unavailable { reason: "an address of the web is none that can be used".into(), hint: None };
        let mut url = Url::parse(address).ok_or_else(bad)?;
        for _ in 0..=MAX_REDIRECTS {
            self.check_scheme(&url)?;
            let response = self.exchange(&url, limit)?;
            let Some(next) = redirection(&url, &response)? else { return answer(&url, response) };
            if next.scheme == Scheme::Http && url.scheme == Scheme::Https && self.verify {
                return Err(protocol(&url, format!("redirects to plain HTTP at {}", next.authority)));
            }
            url = next;
        }
        Err(protocol(&url, format!("is behind more than {MAX_REDIRECTS} redirects")))
    }

    fn check_scheme(&self, url: &Url) -> Result<()> {
        match url.scheme == Scheme::Https || is_loopback(url.host()) || !self.verify {
            true => Ok(()),
            false => Err(Error::Registry {
                registry: url.authority.clone(),
                fault: Fault::Tls,
                reason: format!("{} has an address of plain HTTP, of which anybody may change the answer", path(url)),
                hint: Some(format!("use https://{}{}", url.authority, path(url))),
            }),
        }
    }

    fn exchange(&self, url: &Url, limit: usize) -> Result<Response> {
        self.cancel.check()?;
        let agent = self.agent(url)?;
        let request = Request { method: Method::GET, url: url.clone(), headers: Vec::new(), body: None, limit };
        http::run(&agent, request, &self.timeouts, &self.cancel).map_err(|failure| match failure {
            Failure::TooLarge(limit) => protocol(url, too_large(limit)),
            failure => no_answer(&url.authority, failure).error,
        })
    }

    fn agent(&self, url: &Url) -> Result<Agent> {
        let secure = url.scheme == Scheme::Https;
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (url.authority.clone(), secure);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let certs = self.certs.read(&url.authority, &self.files)?;
        let tls: Arc<_> =
            tls::config(certs, self.verify).map_err(|reason| error(&url.authority, Fault::Tls, reason))?;
        let proxy = self.proxies.proxy(secure, url.host(), url.port()).cloned();
        let agent = http::agent(tls, proxy, &self.user_agent, &self.timeouts);
        agents.insert(key, agent.clone());
        Ok(agent)
    }
}

/// Returns where an answer sends us.
fn redirection(url: &Url, response: &Response) -> Result<Option<Url>> {
    if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let next = response.header("location").and_then(|location| url.join(location));
    next.map(Some).ok_or_else(|| protocol(url, "redirects to what is no address".into()))
}

fn answer(url: &Url, response: Response) -> Result<Option<Vec<u8>>> {
    let fail = |fault| Err(error(&url.authority, fault, format!("{}: status {}", path(url), response.status)));
    match response.status {
        200 => Ok(Some(response.body)),
        404 | 410 => Ok(None),
        401 | 403 => fail(Fault::Denied),
        429 => fail(Fault::RateLimited),
        500..=599 => fail(Fault::Server),
        _ => fail(Fault::Protocol),
    }
}

fn protocol(url: &Url, reason: String) -> Error {
    error(&url.authority, Fault::Protocol, format!("{}: {reason}", path(url)))
}

/// Returns the path for a message: sites redirect to addresses whose query is a signature.
fn path(url: &Url) -> &str {
    url.path.split('?').next().unwrap_or_default()
}

/// Returns the address that `location` means on a page, without `.` and `..`; `None` where it is none, or where it is of
/// plain HTTP and the page is not.
pub fn resolve(page: &str, location: &str) -> Option<String> {
    let page = Url::parse(page)?;
    let mut url = page.join(location)?;
    if url.scheme == Scheme::Http && page.scheme == Scheme::Https {
        return None;
    }
    let (path, query) = url.path.split_at(url.path.find('?').unwrap_or(url.path.len()));
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    url.path = format!("/{}{query}", parts.join("/"));
    (!url.path.chars().any(|c| c.is_control() || c.is_whitespace())).then(|| url.to_string())
}

/// Returns the host of an address, with its port where it has one.
pub fn host(address: &str) -> Option<String> {
    Url::parse(address).map(|url| url.authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_and_never_to_less() {
        let page = "https://h.example/.well-known/agent-skills/index.json";
        let cases = [
            ("hr/SKILL.md", Some("https://h.example/.well-known/agent-skills/hr/SKILL.md")),
            ("./hr.zip?v=1", Some("https://h.example/.well-known/agent-skills/hr.zip?v=1")),
            ("../../../../x.zip", Some("https://h.example/x.zip")),
            ("/a/x.zip", Some("https://h.example/a/x.zip")),
            ("https://cdn.example/x.zip", Some("https://cdn.example/x.zip")),
            ("//cdn.example/x.zip", Some("https://cdn.example/x.zip")),
            ("http://h.example/x.zip", None),
            ("file:///etc/passwd", None),
            ("https://u:p@h.example/x", None),
            ("a b", None),
        ];
        for (location, want) in cases {
            assert_eq!(resolve(page, location).as_deref(), want, "{location}");
        }
        assert_eq!(resolve("http://127.0.0.1/i", "https://h/x").as_deref(), Some("https://h/x"));
    }
}
