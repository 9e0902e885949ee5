//! What a failed request means: its kind, its words, its remedy, and whether it is worth another try.

use std::time::Duration;

use serde::Deserialize;

use super::http::{Failure, Response};
use super::skopeo::ca_hint;
use super::tls::TlsFailure;
use crate::error::{Error, Fault};
use crate::text::hidden;

/// Longest text that is quoted of a registry, in characters: what fits on a few lines.
const MAX_WORDS: usize = 300;

/// An error, and whether another try may end it.
#[derive(Debug)]
pub(super) struct Trouble {
    pub error: Error,
    /// Whether to try again.
    pub again: bool,
    /// After how long, if the registry says so.
    pub after: Option<Duration>,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self { error, again: false, after: None }
    }
}

impl Trouble {
    /// Adds what a mirror said before, and may say otherwise when tried again.
    pub fn and_mirror(mut self, mirror: Self) -> Self {
        if let Error::Registry { reason, .. } = &mut self.error {
            *reason = format!("{reason} (mirror {})", mirror.error);
            self.again |= mirror.again;
            self.after = self.after.or(mirror.after);
        }
        self
    }
}

/// Returns the error of a registry.
pub(super) fn error(registry: &str, fault: Fault, reason: impl Into<String>) -> Error {
    Error::Registry { registry: registry.to_owned(), fault, reason: reason.into(), hint: None }
}

fn with_hint(error: Error, text: String) -> Error {
    match error {
        Error::Registry { registry, fault, reason, .. } => {
            Error::Registry { registry, fault, reason, hint: Some(text) }
        }
        other => other,
    }
}

/// Returns what it means that there is no answer.
pub(super) fn no_answer(registry: &str, failure: Failure) -> Trouble {
    let unreachable = |reason| error(registry, Fault::Unreachable, reason);
    match failure {
        Failure::Cancelled => Error::interrupted().into(),
        Failure::Tls(failure) => {
            let plain = error(registry, Fault::Tls, failure.to_string());
            match failure {
                TlsFailure::Plain => with_hint(plain, "--tls-verify=false allows it".into()),
                TlsFailure::UnknownAuthority => with_hint(plain, ca_hint(registry)),
                TlsFailure::Other(_) => plain,
            }
            .into()
        }
        Failure::NoConnection(reason) | Failure::Slow(reason) => unreachable(reason).into(),
        Failure::Broken(reason) => Trouble { again: true, ..unreachable(reason).into() },
        Failure::Garbage(reason) => error(registry, Fault::Protocol, reason).into(),
        Failure::TooLarge(limit) => error(registry, Fault::Protocol, too_large(limit)).into(),
    }
}

/// Says that an answer is larger than we read.
pub(super) fn too_large(limit: usize) -> String {
    format!("its answer is larger than the limit of {} MiB", limit >> 20)
}

/// Returns what a status means that is no success. `what` was asked for.
pub(super) fn refused(registry: &str, what: &str, response: &Response) -> Trouble {
    let said = words(&response.body).map(|words| format!(": {words}")).unwrap_or_default();
    let status = response.status;
    let fail = |fault, text: &str| error(registry, fault, format!("{what}: {text}{said}"));
    let after = response.header("retry-after").and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
    match status {
        401 | 403 => {
            let text = if status == 401 { "unauthorized: not logged in, or not allowed" } else { "access denied" };
            with_hint(fail(Fault::Denied, text), format!("skillctl login {registry}")).into()
        }
        404 => fail(Fault::NotFound, "not found").into(),
        429 => {
            let wait = after.map(|after| format!("; it asks to wait {} s", after.as_secs())).unwrap_or_default();
            let error = error(registry, Fault::RateLimited, format!("{what}: too many requests{said}{wait}"));
            Trouble { error, again: true, after }
        }
        400 | 405 | 501 => fail(Fault::Unsupported, &format!("not possible there (status {status})")).into(),
        500..=599 => Trouble { error: fail(Fault::Server, &format!("status {status}")), again: true, after },
        _ => fail(Fault::Protocol, &format!("unexpected status {status}")).into(),
    }
}

/// Returns what a registry says about an error, on one line and not too long.
fn words(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    // Anything else is a page of a proxy, of which no part helps.
    let errors: Errors = serde_json::from_slice(body).ok()?;
    let one = |e: One| match (e.code.as_str(), e.message.as_str()) {
        ("", "") => None,
        (code, "") => Some(code.to_owned()),
        ("", message) => Some(message.to_owned()),
        (code, message) => Some(format!("{code}: {message}")),
    };
    let all: Vec<String> = errors.errors.into_iter().take(3).filter_map(one).collect();
    let line: String = all.join("; ").split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| hidden(*c).is_none()).collect();
    let cut: String = line.chars().take(MAX_WORDS).collect();
    let cut = if cut.len() < line.len() { format!("{cut}…") } else { cut };
    (!cut.is_empty()).then_some(cut)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ureq::http::HeaderMap;

    use super::*;

    #[test]
    fn statuses_and_their_words() {
        let denied = r#"{"errors":[{"code":"DENIED","message":"no\n\tway \u001b[1m","detail":{}}]}"#;
        let cases = [
            (
                401,
                "",
                "r: n:1: unauthorized: not logged in, or not allowed",
                Fault::Denied,
                Some("skillctl login r"),
                false,
            ),
            (403, denied, "r: n:1: access denied: DENIED: no way [1m", Fault::Denied, Some("skillctl login r"), false),
            (404, "<html>", "r: n:1: not found", Fault::NotFound, None, false),
            (429, "", "r: n:1: too many requests; it asks to wait 7 s", Fault::RateLimited, None, true),
            (
                405,
                r#"{"errors":[{"code":"UNSUPPORTED"},{"message":"m"}]}"#,
                "r: n:1: not possible there (status 405): UNSUPPORTED; m",
                Fault::Unsupported,
                None,
                false,
            ),
            (503, "{}", "r: n:1: status 503", Fault::Server, None, true),
            (302, "", "r: n:1: unexpected status 302", Fault::Protocol, None, false),
        ];
        for (status, body, text, fault, hint, again) in cases {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", "7".parse().unwrap());
            let trouble = refused("r", "n:1", &Response { status, headers, body: body.into() });
            assert_eq!(trouble.error.to_string(), text);
            assert_eq!(trouble.error.fault(), Some(fault), "{status}");
            assert_eq!(trouble.error.hint().as_deref(), hint, "{status}");
            assert_eq!(trouble.again, again, "{status}");
        }
    }

    #[test]
    fn long_words_are_cut() {
        let body = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "ä".repeat(1000));
        assert_eq!(words(body.as_bytes()).unwrap().chars().count(), MAX_WORDS + 1);
    }

    #[test]
    fn no_answers_and_their_words() {
        let cases = [
            (Failure::Cancelled, "interrupted", None, None),
            (
                Failure::Tls(TlsFailure::Plain),
                "r: it speaks plain HTTP",
                Some(Fault::Tls),
                Some("--tls-verify=false allows it"),
            ),
            (
                Failure::Tls(TlsFailure::UnknownAuthority),
                "r: its certificate is signed by an unknown authority",
                Some(Fault::Tls),
                Some(&*ca_hint("r")),
            ),
            (
                Failure::TooLarge(4 << 20),
                "r: its answer is larger than the limit of 4 MiB",
                Some(Fault::Protocol),
                None,
            ),
            (Failure::Broken("x".into()), "r: x", Some(Fault::Unreachable), None),
        ];
        for (failure, text, fault, hint) in cases {
            let again = matches!(failure, Failure::Broken(_));
            let trouble = no_answer("r", failure);
            assert_eq!(trouble.error.to_string(), text);
            assert_eq!(trouble.error.fault(), fault);
            assert_eq!(trouble.error.hint().as_deref(), hint);
            assert_eq!(trouble.again, again);
        }
    }
}
