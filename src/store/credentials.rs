//! Credentials of registries, where podman and skopeo keep them: containers-auth.json(5).
//!
//! ```text
//! --authfile, $REGISTRY_AUTH_FILE                                 alone, when given
//! $XDG_RUNTIME_DIR/containers/auth.json                           else the first of these that has some
//! ${XDG_CONFIG_HOME:-~/.config}/containers/auth.json
//! ${DOCKER_CONFIG:-~/.docker}/config.json                         else $DOCKER_CONFIG/.dockerconfigjson
//! ~/.dockercfg
//! ```
//!
//! All but `.dockerconfigjson` is podman's: so a pull secret of Kubernetes is called where it is mounted.
//!
//! A file is asked for the repository, then for each namespace above it, then for the registry. What is not readable is
//! skipped, except a file that was named; what is no JSON is an error, if it would have counted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, iter};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::files::Files;
use crate::error::{Error, Result};
use crate::process::{Cancel, End, Process};
use crate::reference::Reference;

/// The entry of `credential-helpers` in registries.conf that stands for the files.
const AUTH_FILES: &str = "containers-auth.json";
/// Docker's configuration.
const DOCKER_FILE: &str = "config.json";
/// The same as a secret of type `kubernetes.io/dockerconfigjson`: its one key, hence the file where the secret is mounted.
const PULL_SECRET: &str = ".dockerconfigjson";
/// The user name with which a helper returns an identity token.
const TOKEN_USER: &str = "<token>";
/// How Docker calls Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// Bound on a helper: it may ask its user for a passphrase.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// What a helper says when it has none.
const HELPER_HAS_NONE: &str = "credentials not found";

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// Its password.
    pub password: String,
    /// What OAuth2 calls a refresh token, instead of a password.
    pub identity_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Returns the credentials of a user with a password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: password.into(), identity_token: None }
    }

    /// Returns the value of an `Authorization` header.
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password)))
    }

    /// Returns an auth.json with these credentials for the registry of `reference`, for a tool that reads such a file.
    ///
    /// # Errors
    /// [`Error::InvalidReference`] where the name has no registry.
    pub fn auth_json(&self, reference: &Reference) -> Result<Vec<u8>> {
        let registry = reference.registry().ok_or_else(|| Error::InvalidReference {
            input: reference.to_string(),
            reason: "it names no registry".to_owned(),
        })?;
        let mut entry = json!({ "auth": STANDARD.encode(format!("{}:{}", self.username, self.password)) });
        if let Some(token) = &self.identity_token {
            entry["identitytoken"] = token.as_str().into();
        }
        Ok(json!({ "auths": { registry: entry } }).to_string().into_bytes())
    }

    /// Returns nothing where there is nothing to show.
    fn some(self) -> Option<Self> {
        (self.identity_token.is_some() || !self.username.is_empty() || !self.password.is_empty()).then_some(self)
    }
}

/// What decides which files are read; the shell fills it.
#[derive(Debug, Clone, Default)]
pub struct AuthPaths {
    /// Effective user ID.
    pub uid: u32,
    /// `HOME`
    pub home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`
    pub xdg_runtime_dir: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`
    pub xdg_config_home: Option<PathBuf>,
    /// `DOCKER_CONFIG`, a directory
    pub docker_config: Option<PathBuf>,
    /// `--authfile`, else `REGISTRY_AUTH_FILE`
    pub authfile: Option<PathBuf>,
}

impl AuthPaths {
    /// Returns the file that `login` writes.
    pub fn primary(&self) -> PathBuf {
        let runtime = || match &self.xdg_runtime_dir {
            Some(dir) => dir.join("containers/auth.json"),
            None => format!("/run/containers/{}/auth.json", self.uid).into(),
        };
        self.authfile.clone().unwrap_or_else(runtime)
    }

    /// Returns the files in the order in which they count; the last is of Docker's first format.
    fn all(&self, files: &Files) -> Vec<(PathBuf, bool)> {
        if let Some(file) = &self.authfile {
            return vec![(file.clone(), false)];
        }
        let below = |dir: &str| self.home.as_ref().map(|home| home.join(dir));
        let config = self.xdg_config_home.clone().or_else(|| below(".config"));
        let docker = match &self.docker_config {
            Some(dir) if files.read(&dir.join(DOCKER_FILE)).is_none() => Some(dir.join(PULL_SECRET)),
            Some(dir) => Some(dir.join(DOCKER_FILE)),
            None => below(".docker").map(|dir| dir.join(DOCKER_FILE)),
        };
        iter::once((self.primary(), false))
            .chain(config.map(|dir| (dir.join("containers/auth.json"), false)))
            .chain(docker.map(|file| (file, false)))
            .chain(below(".dockercfg").map(|file| (file, true)))
            .collect()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AuthFile {
    auths: Option<BTreeMap<String, Entry>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    identitytoken: Option<String>,
}

impl Entry {
    fn credentials(&self) -> Option<Credentials> {
        // What is no base64 of `user:password` counts as none, as in podman.
        let decoded = STANDARD.decode(self.auth.as_deref().unwrap_or_default().trim()).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (username, password) = decoded.split_once(':')?;
        let identity_token = self.identitytoken.clone().filter(|token| !token.is_empty());
        Credentials { identity_token, ..Credentials::new(username, password.trim_matches('\0')) }.some()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Where credentials are looked for.
#[derive(Debug)]
pub struct Keyring {
    paths: AuthPaths,
    files: Files,
    /// `credential-helpers` of registries.conf.
    helpers: Vec<String>,
    cancel: Cancel,
    /// What helpers answered, by helper and registry: each is a process, and may ask its user.
    asked: Mutex<BTreeMap<(String, String), Option<Credentials>>>,
}

impl Keyring {
    /// Returns the credentials that these files and helpers keep.
    pub fn new(paths: AuthPaths, files: Files, helpers: &[String], cancel: Cancel) -> Self {
        let helpers = if helpers.is_empty() { vec![AUTH_FILES.to_owned()] } else { helpers.to_vec() };
        Self { paths, files, helpers, cancel, asked: Mutex::default() }
    }

    /// Returns the credentials for a repository.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for a file that is no such JSON, a helper that fails, or a named file that is not there.
    pub fn find(&self, reference: &Reference) -> Result<Option<Credentials>> {
        let registry = reference.registry().unwrap_or_default();
        for helper in &self.helpers {
            let found = match helper.as_str() {
                AUTH_FILES => self.find_in_files(reference, registry)?,
                helper => self.ask(helper, registry)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn find_in_files(&self, reference: &Reference, registry: &str) -> Result<Option<Credentials>> {
        for (path, legacy) in self.paths.all(&self.files) {
            let Some(bytes) = self.files.read(&path) else {
                if self.paths.authfile.is_some() {
                    return Err(unavailable(&path, "cannot be read"));
                }
                continue;
            };
            let file = parse(&path, &bytes, legacy)?;
            if let Some(found) = self.find_in(&file, reference, registry)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn find_in(&self, file: &AuthFile, reference: &Reference, registry: &str) -> Result<Option<Credentials>> {
        if let Some(helper) = file.cred_helpers.as_ref().and_then(|helpers| helpers.get(registry)) {
            return self.ask(helper, registry);
        }
        let auths = file.auths.iter().flatten();
        let exact = |key: &str| file.auths.as_ref()?.get(key);
        let entry = match keys(reference.name()).find_map(exact) {
            Some(entry) => Some(entry),
            None => auths.into_iter().find(|(key, _)| host_of(key) == canonical(registry)).map(|(_, entry)| entry),
        };
        if let Some(found) = entry.and_then(Entry::credentials) {
            return Ok(Some(found));
        }
        match file.creds_store.as_deref().filter(|store| !store.is_empty()) {
            // Docker's own; its helpers know Docker Hub by the address of its first interface.
            Some(store) if registry == "docker.io" => self.ask(store, DOCKER_HUB),
            Some(store) => self.ask(store, registry),
            None => Ok(None),
        }
    }

    /// Asks a helper, once for each registry; whoever asks at the same time waits for the answer.
    fn ask(&self, helper: &str, registry: &str) -> Result<Option<Credentials>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (helper.to_owned(), registry.to_owned());
        if let Some(known) = asked.get(&key) {
            return Ok(known.clone());
        }
        let answer = self.run(helper, registry)?;
        asked.insert(key, answer.clone());
        Ok(answer)
    }

    fn run(&self, helper: &str, registry: &str) -> Result<Option<Credentials>> {
        let program = format!("docker-credential-{helper}");
        if helper.contains('/') {
            return Err(bad_helper(&program, "a credential helper is a name, not a path"));
        }
        self.answer(&program, Process::new(&program), registry)
    }

    fn answer(&self, program: &str, process: Process, registry: &str) -> Result<Option<Credentials>> {
        let failed = |said: &str| bad_helper(program, said);
        let process = process.arg("get").stdin(registry).timeout(HELPER_TIMEOUT).cancel(&self.cancel);
        let output = process.output()?;
        if matches!(output.end, End::Exit(code) if code != 0) {
            // Helpers report errors on standard output.
            let said = String::from_utf8_lossy(&output.stdout);
            let said = said.trim();
            return match said {
                said if said.contains(HELPER_HAS_NONE) => Ok(None),
                "" => Err(output.error()),
                said => Err(failed(said.lines().next().unwrap_or_default())),
            };
        }
        if !output.success() {
            return Err(output.error());
        }
        // The error of serde would show part of the secret.
        let answer: HelperAnswer =
            serde_json::from_slice(&output.stdout).map_err(|_| failed("its answer is not the JSON of a helper"))?;
        Ok(match answer.username.as_str() {
            TOKEN_USER => Credentials { identity_token: Some(answer.secret), ..Credentials::new(TOKEN_USER, "") },
            _ => Credentials::new(answer.username, answer.secret),
        }
        .some())
    }
}

/// Returns the repository, each namespace above it, and the registry.
fn keys(name: &str) -> impl Iterator<Item = &str> {
    iter::successors(Some(name), |name| name.rsplit_once('/').map(|(parent, _)| parent))
}

/// Returns the host of a key that Docker wrote as an address; other keys are hosts or repositories themselves.
fn host_of(key: &str) -> &str {
    let stripped = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    canonical(stripped.map_or(key, |rest| rest.split('/').next().unwrap_or(rest)))
}

/// Returns one name for the names that Docker Hub has.
fn canonical(registry: &str) -> &str {
    match registry {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        registry => registry,
    }
}

fn parse(path: &Path, bytes: &[u8], legacy: bool) -> Result<AuthFile> {
    if bytes.trim_ascii().is_empty() {
        return Ok(AuthFile::default());
    }
    let parsed = if legacy {
        serde_json::from_slice(bytes).map(|auths| AuthFile { auths: Some(auths), ..AuthFile::default() })
    } else {
        serde_json::from_slice(bytes)
    };
    // The text of the error would show what stands there, which may be a secret.
    parsed.map_err(|e| {
        unavailable(
            path,
            &format!("is not what containers-auth.json(5) describes, at line {}, column {}", e.line(), e.column()),
        )
    })
}

fn bad_helper(program: &str, said: &str) -> Error {
    Error::Unavailable { reason: format!("{program}: {said}"), hint: None }
}

fn unavailable(path: &Path, reason: &str) -> Error {
    Error::Unavailable { reason: format!("{} {reason}", path.display()), hint: None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "credentials_tests.rs"]
mod tests;
