//! Which proxy a request goes through: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` as Go's programs read them.

use std::fmt;
use std::net::IpAddr;

use ureq::Proxy;

use crate::error::{Error, Result};

/// The proxies, and what does not go through them.
#[derive(Clone, Default)]
pub struct Proxies {
    https: Option<Proxy>,
    http: Option<Proxy>,
    except: Vec<Exception>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Their addresses may have passwords.
        f.debug_struct("Proxies").field("except", &self.except).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    /// An address and the number of its bits that count.
    Net(IpAddr, u32),
    /// A domain without leading dot, whether it counts itself, and the port it is limited to.
    Domain {
        name: String,
        itself: bool,
        port: Option<u16>,
    },
    Address(IpAddr, Option<u16>),
}

impl Proxies {
    /// Reads the values of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for an address that is none.
    pub fn new(https: Option<&str>, http: Option<&str>, no_proxy: Option<&str>) -> Result<Self> {
        let words = no_proxy.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
        Ok(Self {
            https: https.map(|value| proxy("HTTPS_PROXY", value)).transpose()?,
            http: http.map(|value| proxy("HTTP_PROXY", value)).transpose()?,
            except: words.map(|word| Exception::parse(&word.to_ascii_lowercase())).collect(),
        })
    }

    /// Returns the proxy for a host and port; this machine is always reached without.
    pub fn proxy(&self, tls: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if tls { self.https.as_ref() } else { self.http.as_ref() }?;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let direct = is_loopback(&host) || self.except.iter().any(|e| e.matches(&host, port));
        (!direct).then_some(proxy)
    }
}

/// Returns whether a host, without port and brackets, is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn proxy(variable: &str, value: &str) -> Result<Proxy> {
    let value = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    // Go lets the proxy look up names; for ureq that is another scheme.
    let value = value.strip_prefix("socks5://").map_or(value.clone(), |rest| format!("socks5h://{rest}"));
    // The value may have a password, so it is not shown.
    Proxy::new(&value).map_err(|_| Error::Unavailable {
        reason: format!("{variable} is not the address of a proxy"),
        hint: Some(format!("set {variable} to http://HOST:PORT, or unset it")),
    })
}

impl Exception {
    fn parse(word: &str) -> Self {
        if word == "*" {
            return Self::All;
        }
        if let Some((address, bits)) = word.split_once('/')
            && let (Ok(address), Ok(bits)) = (address.parse(), bits.parse())
        {
            return Self::Net(address, bits);
        }
        let (host, port) = match word.rsplit_once(':') {
            Some((host, port)) if word.parse::<IpAddr>().is_err() => match port.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) => (word, None),
            },
            _ => (word, None),
        };
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Self::Address(address, port);
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let (name, itself) = host.strip_prefix('.').map_or((host, true), |name| (name, false));
        Self::Domain { name: name.to_owned(), itself, port }
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        let address = host.parse::<IpAddr>().ok();
        match self {
            Self::All => true,
            Self::Net(net, bits) => address.is_some_and(|address| in_net(address, *net, *bits)),
            Self::Address(own, only) => address == Some(*own) && only.is_none_or(|p| p == port),
            Self::Domain { name, itself, port: only } => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (below || *itself && host == name) && only.is_none_or(|p| p == port)
            }
        }
    }
}

fn in_net(address: IpAddr, net: IpAddr, bits: u32) -> bool {
    match (address, net) {
        (IpAddr::V4(a), IpAddr::V4(n)) if bits <= 32 => (a.to_bits() ^ n.to_bits()).leading_zeros() >= bits,
        (IpAddr::V6(a), IpAddr::V6(n)) if bits <= 128 => (a.to_bits() ^ n.to_bits()).leading_zeros() >= bits,
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_read_as_go_does() {
        let cases = [
            ("", "quay.io", 443, true),
            ("", "localhost", 443, false),
            ("", "127.1.2.3", 443, false),
            ("", "::1", 443, false),
            ("*", "quay.io", 443, false),
            ("quay.io", "quay.io", 443, false),
            ("quay.io", "QUAY.io.", 443, false),
            ("quay.io", "cdn.quay.io", 443, false),
            ("quay.io", "notquay.io", 443, true),
            (".quay.io", "quay.io", 443, true),
            (".quay.io", "cdn.quay.io", 443, false),
            ("*.quay.io", "cdn.quay.io", 443, false),
            ("a, quay.io:5000", "quay.io", 5000, false),
            ("quay.io:5000", "quay.io", 443, true),
            ("10.0.0.0/8", "10.1.2.3", 443, false),
            ("10.0.0.0/8", "11.1.2.3", 443, true),
            ("10.0.0.1", "10.0.0.1", 443, false),
            ("10.0.0.1:80", "10.0.0.1", 443, true),
            ("fd00::/8", "fd12::1", 443, false),
            ("[fd00::1]:443", "fd00::1", 443, false),
            ("fd00::1", "fd00::1", 443, false),
        ];
        for (no_proxy, host, port, through) in cases {
            let proxies = Proxies::new(Some("proxy:3128"), None, Some(no_proxy)).unwrap();
            assert_eq!(proxies.proxy(true, host, port).is_some(), through, "{no_proxy:?} {host}:{port}");
            assert!(proxies.proxy(false, host, port).is_none());
        }
    }

    #[test]
    fn addresses_of_proxies() {
        let seen = |value| {
            Proxies::new(Some(value), None, None).map(|p| {
                let proxy = p.proxy(true, "quay.io", 443).unwrap().clone();
                format!("{:?} {}:{}", proxy.protocol(), proxy.host(), proxy.port())
            })
        };
        assert_eq!(seen("proxy:3128").unwrap(), "Http proxy:3128");
        assert_eq!(seen("http://u:p@proxy").unwrap(), "Http proxy:80");
        assert_eq!(seen("socks5://s:1").unwrap(), "Socks5h s:1");
        let error = seen("http://u:secret@").unwrap_err();
        assert_eq!(error.to_string(), "HTTPS_PROXY is not the address of a proxy");
    }
}
