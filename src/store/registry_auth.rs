//! What a registry wants to be shown: the challenges of `WWW-Authenticate`, and tokens of a token server.
//!
//! The protocol is that of docker/distribution's "Token Authentication Specification", which every registry speaks.

use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::{HeaderMap, Method};

use super::credentials::Credentials;
use super::http::{Request, Url};

/// Most bytes of an answer of a token server. Tokens with many rights in them reach some 10 KiB.
pub(super) const TOKEN_LIMIT: usize = 1 << 20;
/// How long a token holds that does not say it, by the specification.
const DEFAULT_LIFE: u64 = 60;
/// A token is not used in its last seconds, because requests take a while.
const MARGIN: Duration = Duration::from_secs(5);

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token of a token server.
    Bearer {
        /// Where the token server is.
        realm: String,
        /// What it calls the registry.
        service: Option<String>,
        /// What the token must allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Returns the first challenge that we can meet.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all("www-authenticate").iter().filter_map(|value| value.to_str().ok());
        values.flat_map(parse).find_map(|(scheme, parameters)| {
            let get = |name: &str| {
                let found = parameters.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
            };
            match scheme.as_str() {
                "basic" => Some(Self::Basic),
                "bearer" => Some(Self::Bearer { realm: get("realm")?, service: get("service"), scope: get("scope") }),
                _ => None,
            }
        })
    }
}

/// A scheme in lower case, and its parameters.
type Parsed = (String, Vec<(String, String)>);

/// Splits `Basic realm="a", Bearer realm="b",service="c"` into its challenges; what is malformed ends it.
fn parse(header: &str) -> Vec<Parsed> {
    let mut found: Vec<Parsed> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~".contains(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        let word = word.to_ascii_lowercase();
        match (after.trim_start().strip_prefix('='), found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let Some((value, after)) = take_value(value.trim_start()) else { return found };
                parameters.push((word, value));
                rest = after;
            }
            (Some(_), None) => return found,
            (None, _) => {
                found.push((word, Vec::new()));
                rest = after;
            }
        }
    }
}

/// Takes a token or a quoted string from the beginning of `text`.
fn take_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// A token and how long it holds.
#[derive(Clone)]
pub(super) struct Token {
    /// Its text.
    pub text: String,
    until: Instant,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Returns whether it still holds.
    pub fn holds(&self) -> bool {
        Instant::now() < self.until
    }

    /// Reads the answer of a token server; `None` where it has no token.
    pub fn read(answer: &[u8], asked: Instant) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let answer: Answer = serde_json::from_slice(answer).ok()?;
        let text = [answer.token, answer.access_token].into_iter().flatten().find(|text| !text.is_empty())?;
        // podman takes less than a minute as a minute too: some servers say 0.
        let life = Duration::from_secs(answer.expires_in.unwrap_or(0).max(DEFAULT_LIFE));
        Some(Self { text, until: asked.checked_add(life - MARGIN)? })
    }
}

/// Returns the request for a token: with the user's password, with an identity token, or with neither.
pub(super) fn token_request(
    realm: &Url,
    service: Option<&str>,
    scopes: &[String],
    credentials: Option<&Credentials>,
) -> Request {
    let mut parameters: Vec<(&str, &str)> = service.map(|service| ("service", service)).into_iter().collect();
    let mut request =
        Request { method: Method::GET, url: realm.clone(), headers: Vec::new(), body: None, limit: TOKEN_LIMIT };
    if let Some((credentials, token)) = credentials.and_then(|c| Some((c, c.identity_token.as_deref()?))) {
        let joined = scopes.join(" ");
        parameters.extend([("grant_type", "refresh_token"), ("refresh_token", token), ("scope", &joined)]);
        parameters.push(("client_id", "skillctl"));
        if !credentials.username.is_empty() && !credentials.username.starts_with('<') {
            parameters.push(("username", &credentials.username));
        }
        request.method = Method::POST;
        request.headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
        request.body = Some(form(&parameters));
        return request;
    }
    parameters.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
    if let Some(credentials) = credentials {
        parameters.push(("account", &credentials.username));
        request.headers.push(("authorization", credentials.basic()));
    }
    let separator = if realm.path.contains('?') { '&' } else { '?' };
    if !parameters.is_empty() {
        request.url.path = format!("{}{separator}{}", realm.path, form(&parameters));
    }
    request
}

fn form(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = parameters.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
    pairs.join("&")
}

/// Percent-encodes a value of a query or form.
fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/,".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn challenge(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("www-authenticate", value.parse().unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(str::to_owned),
                scope: scope.map(str::to_owned),
            })
        };
        let cases: &[(&[&str], Option<Challenge>)] = &[
            (&[r#"Basic realm="r""#], Some(Challenge::Basic)),
            (&["basic"], Some(Challenge::Basic)),
            (
                &[r#"Bearer realm="https://a/token",service="s",scope="repository:n:pull,push""#],
                bearer("https://a/token", Some("s"), Some("repository:n:pull,push")),
            ),
            (&[r#"bearer  service=s , REALM = "https://a/t""#], bearer("https://a/t", Some("s"), None)),
            (&[r#"Negotiate, Bearer realm="x\"y",error="e""#], bearer("x\"y", None, None)),
            (&["Negotiate abc==", r#"Bearer realm="x""#], bearer("x", None, None)),
            (&[r#"Bearer service="s", Basic realm="r""#], Some(Challenge::Basic)),
            (&[r#"Bearer realm="open"#], None),
            (&["=x"], None),
            (&[""], None),
            (&[], None),
        ];
        for (values, want) in cases {
            assert_eq!(challenge(values), *want, "{values:?}");
        }
    }

    #[test]
    fn token_requests() {
        let realm = Url::parse("https://a/token?x=1").unwrap();
        let scopes = ["repository:n/m:pull".to_owned(), "b".to_owned()];
        let anonymous = token_request(&realm, Some("my s"), &scopes, None);
        assert_eq!(anonymous.url.path, "/token?x=1&service=my%20s&scope=repository:n/m:pull&scope=b");
        assert!(anonymous.headers.is_empty());
        let user = token_request(&realm, None, &scopes[..1], Some(&Credentials::new("u", "p")));
        assert_eq!(user.url.path, "/token?x=1&scope=repository:n/m:pull&account=u");
        assert_eq!(user.headers, [("authorization", "Basic dTpw".to_owned())]);
        let credentials = Credentials { identity_token: Some("t&t".into()), ..Credentials::new("<token>", "") };
        let refresh = token_request(&realm, Some("s"), &scopes, Some(&credentials));
        assert_eq!((refresh.method, refresh.url.path.as_str()), (Method::POST, "/token?x=1"));
        assert_eq!(
            refresh.body.unwrap(),
            "service=s&grant_type=refresh_token&refresh_token=t%26t&scope=repository:n/m:pull%20b&client_id=skillctl"
        );
    }

    #[test]
    fn tokens_are_read() {
        let now = Instant::now();
        let past = now.checked_sub(Duration::from_secs(100)).unwrap();
        let cases = [
            (r#"{"token":"a","access_token":"b","expires_in":300}"#, past, Some(("a", true))),
            (r#"{"token":"","access_token":"b"}"#, now, Some(("b", true))),
            (r#"{"access_token":"b","expires_in":1}"#, past, Some(("b", false))),
            (r#"{"expires_in":1}"#, now, None),
            ("no", now, None),
        ];
        for (text, asked, want) in cases {
            let token = Token::read(text.as_bytes(), asked);
            assert_eq!(token.as_ref().map(|t| (t.text.as_str(), t.holds())), want, "{text}");
        }
    }
}
