//! What skopeo says when it fails, as errors that name the registry and the remedy.
//!
//! skopeo reports in text only, and each version in other words; what is matched here was seen from 1.9.3, 1.18 and 1.22.

use crate::error::{Error, Fault};

/// What each kind of failure sounds like, the most telling first: a refused certificate also ends a connection.
const SOUNDS: [(Fault, &[&str]); 9] = [
    (
        Fault::Forbidden,
        &[
            "rejected by policy",
            "A signature was required",
            "Source image rejected",
            "is blocked in",
            "Invalid GPG signature",
            "None of the signatures were accepted",
        ],
    ),
    (Fault::RateLimited, &["toomanyrequests", "429 (Too Many Requests)", "StatusCode: 429", "pull rate limit"]),
    (Fault::Tls, &["x509:", "tls:", "server gave HTTP response to HTTPS client", "certificate"]),
    (
        Fault::Denied,
        &[
            "unauthorized",
            "authentication required",
            "invalid username/password",
            "access to the resource is denied",
            "denied:",
            "403 (Forbidden)",
            "401 (Unauthorized)",
            "StatusCode: 401",
            "StatusCode: 403",
        ],
    ),
    (
        Fault::NotFound,
        &[
            "manifest unknown",
            "name unknown",
            "blob unknown",
            "repository name not known",
            "404 (Not Found)",
            "StatusCode: 404",
        ],
    ),
    (
        Fault::Server,
        &[
            "received unexpected HTTP status: 5",
            "500 Internal Server Error",
            "(Internal Server Error)",
            "502 (",
            "503 (",
            "504 (",
            "Bad Gateway",
            "Service Unavailable",
            "Gateway Timeout",
            "StatusCode: 5",
        ],
    ),
    (Fault::Unsupported, &["405 (Method Not Allowed)", "StatusCode: 405", "unsupported:", "tag is immutable"]),
    (
        Fault::Protocol,
        &[
            "Digest did not match",
            "does not match expected digest",
            "does not match digest",
            "exceeded maximum allowed size",
            "unexpected size",
            "invalid character",
        ],
    ),
    (
        Fault::Unreachable,
        &[
            "connection refused",
            "connection reset",
            "no route to host",
            "network is unreachable",
            "no such host",
            "server misbehaving",
            "i/o timeout",
            "broken pipe",
            "unexpected EOF",
            "context deadline exceeded",
            ": EOF",
            "dial tcp",
            "no answer for",
            "ended unexpectedly",
        ],
    ),
];

fn sounds(fault: Fault) -> &'static [&'static str] {
    SOUNDS.iter().find(|(known, _)| *known == fault).map(|(_, sounds)| *sounds).unwrap_or_default()
}

/// Returns what kind of failure a registry's or skopeo's text is.
pub fn fault(said: &str) -> Option<Fault> {
    SOUNDS.iter().find(|(_, sounds)| sounds.iter().any(|sound| said.contains(sound))).map(|(fault, _)| *fault)
}

/// Returns what skopeo said about a registry as an error; `said` is its last line, with or without `skopeo: `.
pub fn explain(said: &str, registry: &str) -> Error {
    let said = said.strip_prefix("skopeo: ").unwrap_or(said);
    if ["no space left on device", "read-only file system", "disk quota exceeded"].iter().any(|s| said.contains(s)) {
        return Error::Unavailable { reason: said.to_owned(), hint: None };
    }
    if ["but we cannot modify it", "preserve digests", "changing layer representation"].iter().any(|s| said.contains(s))
    {
        let hint = Some("skillctl copy --allow-new-digest converts it".to_owned());
        return Error::Unavailable { reason: format!("its digest cannot be kept: {said}"), hint };
    }
    match fault(said) {
        Some(fault) => Error::Registry {
            registry: registry.to_owned(),
            fault,
            reason: reason(said, fault).to_owned(),
            hint: hint(fault, said, registry),
        },
        None => Error::Unavailable { reason: format!("skopeo: {}", reason(said, Fault::Protocol)), hint: None },
    }
}

/// Takes off what only says what skopeo was doing: we say that ourselves.
fn reason(said: &str, fault: Fault) -> &str {
    if fault == Fault::Denied
        && let Some(at) = sounds(fault).iter().filter_map(|sound| said.find(sound)).min()
    {
        return &said[at..];
    }
    if let Some((_, what)) = said.split_once("Error parsing image name ").and_then(|(_, rest)| rest.split_once("\": "))
    {
        return what;
    }
    let noise =
        ["initializing source ", "pinging container registry ", "trying to reuse blob ", "Error initializing source "];
    let mut rest = said;
    while let Some(prefix) = noise.iter().find(|prefix| rest.starts_with(**prefix)) {
        // "initializing source docker://host/name:tag: what happened"
        match rest[prefix.len()..].split_once(": ") {
            Some((_, after)) => rest = after,
            None => break,
        }
    }
    rest
}

fn hint(fault: Fault, said: &str, registry: &str) -> Option<String> {
    match fault {
        Fault::Denied => Some(format!("skillctl login {registry}")),
        Fault::Tls if said.contains("server gave HTTP response") => {
            Some("--tls-verify=false allows plain HTTP".to_owned())
        }
        Fault::Tls if said.contains("unknown authority") => Some(ca_hint(registry)),
        Fault::Forbidden if said.contains("blocked") => Some("registries.conf says so".to_owned()),
        Fault::Forbidden => Some("policy.json decides; containers-policy.json(5)".to_owned()),
        _ => None,
    }
}

/// Returns what to do about an authority that is not known; root's place is in /etc.
pub fn ca_hint(registry: &str) -> String {
    let place = match nix::unistd::geteuid().is_root() {
        true => "/etc/containers/certs.d",
        false => "~/.config/containers/certs.d",
    };
    format!("put its CA into {place}/{registry}/ca.crt, or give --cert-dir DIR")
}

/// Returns whether trying again may help: the registry or the network failed, rather than said no.
pub fn may_pass(error: &Error) -> bool {
    match error {
        Error::Registry { fault: Fault::Server | Fault::RateLimited, .. } => true,
        Error::Registry { fault: Fault::Unreachable, reason, .. } => {
            !["connection refused", "no such host", "no route to host", "network is unreachable"]
                .iter()
                .any(|lasting| reason.contains(lasting))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_skopeo_says_is_understood() {
        let cases = [
            (
                "initializing source docker://r:5000/a/b:1: reading manifest 1 in r:5000/a/b: manifest unknown: manifest unknown",
                Fault::NotFound,
                "reading manifest 1 in r:5000/a/b: manifest unknown: manifest unknown",
                false,
            ),
            (
                "initializing source docker://r/a:1: pinging container registry r: Get \"https://r/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                Fault::Unreachable,
                "Get \"https://r/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                false,
            ),
            (
                "reading blob sha256:1: unexpected EOF",
                Fault::Unreachable,
                "reading blob sha256:1: unexpected EOF",
                true,
            ),
            (
                "Get \"https://r/v2/\": x509: certificate has expired",
                Fault::Tls,
                "Get \"https://r/v2/\": x509: certificate has expired",
                false,
            ),
            (
                "reading manifest 1 in r/a: unauthorized: authentication required",
                Fault::Denied,
                "unauthorized: authentication required",
                false,
            ),
            (
                "writing blob: received unexpected HTTP status: 503 Service Unavailable",
                Fault::Server,
                "writing blob: received unexpected HTTP status: 503 Service Unavailable",
                true,
            ),
            (
                "Source image rejected: Running image docker://r/a:1 is rejected by policy.",
                Fault::Forbidden,
                "Source image rejected: Running image docker://r/a:1 is rejected by policy.",
                false,
            ),
        ];
        for (said, wanted, text, again) in cases {
            let error = explain(&format!("skopeo: {said}"), "r");
            assert_eq!(error.fault(), Some(wanted), "{said}");
            assert_eq!(error.to_string(), format!("r: {text}"));
            assert_eq!(may_pass(&error), again, "{said}");
        }
        let full = explain("skopeo: writing blob: write /s/.tmp/x: no space left on device", "r");
        assert_eq!(full.to_string(), "writing blob: write /s/.tmp/x: no space left on device");
        assert_eq!(explain("skopeo: what", "r").to_string(), "skopeo: what");
    }
}
