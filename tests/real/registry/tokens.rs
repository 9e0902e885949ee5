//! Token authentication, as Docker's registries have it: who asks gets told where to fetch a token for what, and fetches it there
//! with name and password.

use std::collections::HashMap;

use serde_json::json;

use super::http::{Head, base64};

/// Who may fetch tokens, and which were given out.
#[derive(Debug)]
pub struct Tokens {
    authorization: String,
    /// By token: scopes such as `repository:acme/hr:pull,push`.
    given: HashMap<String, String>,
}

impl Tokens {
    /// Gives tokens to one user.
    pub fn new(user: &str, password: &str) -> Self {
        Self { authorization: format!("Basic {}", base64(&format!("{user}:{password}"))), given: HashMap::new() }
    }

    /// Answers a request for a token.
    pub fn give(&mut self, request: &Head) -> (u16, Vec<u8>) {
        if request.get("authorization") != Some(&self.authorization) {
            return (401, denied("UNAUTHORIZED", "incorrect username or password"));
        }
        let query = request.word(1).split_once('?').map_or("", |(_, query)| query);
        let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
        let scopes =
            scopes.map(|scope| scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",").replace("%2A", "*"));
        let scopes = scopes.collect::<Vec<_>>().join(" ").replace('+', " ");
        let token = format!("opaque-{}", self.given.len());
        self.given.insert(token.clone(), scopes);
        // Both names of the field, as some registries have one and some the other.
        (200, json!({ "token": token, "access_token": token, "expires_in": 300 }).to_string().into_bytes())
    }

    /// Checks a request; one without a token that suffices gets what `WWW-Authenticate` is to say, at this address.
    pub fn check(&self, request: &Head, address: &str) -> Result<(), String> {
        let token = request.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let scopes = token.and_then(|token| self.given.get(token));
        let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"tests\"");
        let Some((repository, action)) = needed(request) else {
            return if scopes.is_some() { Ok(()) } else { Err(challenge) };
        };
        let granted = scopes.is_some_and(|scopes| {
            scopes.split(' ').any(|scope| {
                let actions = scope.strip_prefix(&format!("repository:{repository}:"));
                actions.is_some_and(|actions| actions.split(',').any(|given| given == action || given == "*"))
            })
        });
        let asked = if action == "pull" { "pull" } else { "pull,push,delete" };
        let error = if scopes.is_some() { ",error=\"insufficient_scope\"" } else { "" };
        if granted { Ok(()) } else { Err(format!("{challenge},scope=\"repository:{repository}:{asked}\"{error}")) }
    }
}

/// Returns the repository that a request is about, and the action that it is.
fn needed(request: &Head) -> Option<(&str, &'static str)> {
    let path = request.word(1).strip_prefix("/v2/")?;
    let repository =
        ["/manifests/", "/blobs/", "/tags/"].iter().find_map(|part| path.split_once(part)).map(|(name, _)| name)?;
    let action = match request.word(0) {
        "GET" | "HEAD" => "pull",
        "DELETE" => "delete",
        _ => "push",
    };
    Some((repository, action))
}

/// Returns the body of an error, as the distribution specification has it.
pub fn denied(code: &str, message: &str) -> Vec<u8> {
    json!({ "errors": [{ "code": code, "message": message, "detail": null }] }).to_string().into_bytes()
}
