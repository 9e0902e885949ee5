//! The flags of verbs that reach a registry, and the client that they make.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::Args;

use super::policy::files;
use super::prompt;
use super::shell::{Shell, absolute};
use crate::error::Error;
use crate::output::harmless_line;
use crate::process::{Cancel, Tools};
use crate::reference::{Reference, Transport};
use crate::source::archive::SUFFIXES;
use crate::store::certs::CertDirs;
use crate::store::credentials::{AuthPaths, Credentials, Keyring};
use crate::store::files::Files;
use crate::store::policy::accepts_every_registry;
use crate::store::proxies::Proxies;
use crate::store::registries_conf::RegistriesConf;
use crate::store::registry::{Access, Registry, Timeouts};
use crate::store::remote::Remote;
use crate::store::stream::Waiting;
use crate::store::transfer::Copying;

/// Longest password that is read, in bytes: tokens of cloud registries have some 2 KiB.
const MAX_PASSWORD: u64 = 64 << 10;

/// Flags of verbs that reach a registry.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Registry")]
pub struct RegistryArgs {
    /// Credentials file [env: REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "PATH")]
    pub authfile: Option<PathBuf>,
    /// User; a missing password is asked for
    ///
    /// Where standard input is no terminal, the password is read as a line of it. A password on the command line can be
    /// seen by every user of this machine, and is for one registry. Without this, the files that podman login writes are
    /// read.
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub creds: Option<Creds>,
    /// Directory of *.crt, *.cert and *.key
    ///
    /// Authorities (*.crt), beside those of the system, and a client certificate (*.cert, *.key), instead of those in
    /// certs.d.
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Whether to require a valid certificate
    ///
    /// By default it is required; on this machine (localhost, 127.0.0.0/8, ::1) a registry may speak plain HTTP. false
    /// allows any certificate, and plain HTTP everywhere.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = go_bool
    )]
    pub tls_verify: Option<bool>,
    /// How often to try again
    ///
    /// After 1, 2, 4, … seconds or as the registry asks; only where that may help: broken connections, 429 and 5xx.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub retry: u32,
}

/// A user, and the password where it was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Creds {
    username: String,
    password: Option<String>,
}

impl fmt::Debug for Creds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Creds").field("username", &self.username).finish_non_exhaustive()
    }
}

impl FromStr for Creds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (username, password) = match text.split_once(':') {
            Some((username, password)) => (username, Some(password.to_owned())),
            None => (text, None),
        };
        match username {
            "" => Err("there is no user name"),
            username => Ok(Self { username: username.to_owned(), password }),
        }
    }
}

/// Reads a truth value as Go's flags do.
pub fn go_bool(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false"),
    }
}

impl RegistryArgs {
    /// Returns the client for these flags and this user's configuration. A password that is missing is asked for.
    pub fn registry(&self, shell: &Shell) -> Result<Registry> {
        let env = &shell.env;
        let files = files();
        let conf = self.conf(shell, &files)?;
        if let Some(dir) = self.cert_dir.as_ref().filter(|dir| !dir.is_dir()) {
            return Err(anyhow::anyhow!("--cert-dir: {} is no directory", dir.display()));
        }
        let cancel = shell.cancel();
        let keyring = Keyring::new(self.auth_paths(shell), files.clone(), conf.credential_helpers(), cancel.clone());
        let creds = self.creds.as_ref().map(|creds| creds.complete(shell, &cancel)).transpose()?;
        Ok(Registry::new(Access {
            conf,
            keyring,
            certs: CertDirs { home: env.home.clone(), cert_dir: absolute(self.cert_dir.as_deref()) },
            files,
            tls_verify: self.tls_verify,
            creds,
            proxies: Proxies::new(env.https_proxy.as_deref(), env.http_proxy.as_deref(), env.no_proxy.as_deref())?,
            cancel,
            retry: self.retry,
            user_agent: concat!("skillctl/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeouts: Timeouts::default(),
        }))
    }

    /// Returns the way to registries that these flags and this user's configuration make.
    pub fn remote(&self, shell: &Shell) -> Result<Remote> {
        let registry = self.registry(shell)?;
        Ok(Remote {
            origin: registry.at_origin(),
            registry,
            // skopeo finds by itself what we find, but for these.
            hand_over: self.creds.is_some() || shell.env.docker_config.is_some(),
            authfile: absolute(self.authfile.as_deref()),
            cert_dir: absolute(self.cert_dir.as_deref()),
            tls_verify: self.tls_verify,
            canary: shell.canary(),
            accepts_anything: accepts_every_registry(shell.env.home.as_deref(), &files()),
            proxies: Waiting::default(),
        })
    }

    /// Returns how content is copied.
    pub fn copying<'a>(&self, tools: &'a Tools, progress: &'a dyn Fn(u64, Option<u64>)) -> Copying<'a> {
        Copying { tools, retry: self.retry, progress }
    }

    /// Returns the reference of a registry that a text means.
    ///
    /// A bare name is one where its first part is a registry, or an alias of registries.conf stands for it: nothing is
    /// searched for.
    pub fn resolve(&self, shell: &Shell, text: &str) -> Result<Reference> {
        let (transport, bare) = Transport::split(text);
        let reference: Reference = match transport {
            Some(Transport::Docker) => return Ok(bare.parse::<Reference>()?.on_registry()?),
            Some(_) => anyhow::bail!("{text} is no registry's; skillctl copy reads and writes every transport"),
            None => bare.parse()?,
        };
        if reference.registry().is_some() {
            return Ok(reference);
        }
        if let Some(name) = self.conf(shell, &files())?.alias(reference.name()) {
            let tag = reference.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
            let digest = reference.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
            let resolved: Reference = format!("{name}{tag}{digest}").parse()?;
            shell.note(format!("Resolved {text} as an alias of {resolved} (registries.conf)"));
            return Ok(resolved.on_registry()?);
        }
        if SUFFIXES.iter().any(|end| text.ends_with(end)) && !Path::new(text).exists() {
            let reason = format!("there is no file {text}, and no registry is in the name");
            return Err(Error::Unavailable { reason, hint: None }.into());
        }
        let reason = format!("{text} looks like a local reference, not a remote registry");
        let hint = match reference.is_host() {
            _ if Path::new(text).exists() => format!("skillctl install ./{text} takes what is there"),
            true => format!("give the repository too: {reference}/NAMESPACE/NAME"),
            false => {
                format!("give the registry too, registry.example/{reference}, or docker://{reference} for Docker Hub")
            }
        };
        Err(Error::Unavailable { reason, hint: Some(hint) }.into())
    }

    /// Refuses one password for several registries: each of them would be told it.
    pub fn check_single(&self, references: &[Reference]) -> Result<()> {
        let hosts: BTreeSet<&str> = references.iter().filter_map(Reference::registry).collect();
        match self.creds.is_some() && hosts.len() > 1 {
            true => {
                let hosts: Vec<&str> = hosts.into_iter().collect();
                let reason = format!("--creds would be sent to {}", hosts.join(" and "));
                let hint = Some("log in to each, or give one registry at a time".to_owned());
                Err(Error::Unavailable { reason, hint }.into())
            }
            false => Ok(()),
        }
    }

    fn conf(&self, shell: &Shell, files: &Files) -> Result<RegistriesConf> {
        Ok(RegistriesConf::read(&shell.registries_conf(), files)?)
    }

    /// Returns what decides which files have credentials.
    pub fn auth_paths(&self, shell: &Shell) -> AuthPaths {
        let env = &shell.env;
        AuthPaths {
            uid: env.uid,
            home: env.home.clone(),
            xdg_runtime_dir: env.xdg_runtime_dir.clone(),
            xdg_config_home: env.xdg_config_home.clone(),
            docker_config: absolute(env.docker_config.as_deref()),
            authfile: absolute(self.authfile.as_deref().or(env.registry_auth_file.as_deref())),
        }
    }
}

impl Creds {
    fn complete(&self, shell: &Shell, cancel: &Cancel) -> Result<Credentials> {
        let password = match &self.password {
            Some(password) => password.clone(),
            None => read_password(shell, &self.username, cancel)?,
        };
        Ok(Credentials::new(&self.username, password))
    }
}

/// Reads a password from the terminal without showing it, or a line from standard input where that is none.
pub fn read_password(shell: &Shell, username: &str, cancel: &Cancel) -> Result<String> {
    let ask = || shell.warn(format!("Password of {}: ", harmless_line(username)));
    let line = prompt::hidden(ask, MAX_PASSWORD, cancel)?;
    if line.is_empty() {
        let hint = Some("give --creds USER:PASSWORD, or the password on standard input".to_owned());
        return Err(Error::Unavailable { reason: "there is no password on standard input".into(), hint }.into());
    }
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Verb {
        #[command(flatten)]
        registry: RegistryArgs,
        reference: Option<String>,
    }

    #[test]
    fn tls_verify_is_a_flag_of_go() {
        let cases: &[(&[&str], Option<bool>, Option<&str>)] = &[
            (&[], None, None),
            (&["--tls-verify", "ref"], Some(true), Some("ref")),
            (&["--tls-verify=false", "ref"], Some(false), Some("ref")),
            (&["--tls-verify=0"], Some(false), None),
            (&["--tls-verify=True"], Some(true), None),
        ];
        for (args, verify, reference) in cases {
            let verb = Verb::try_parse_from(["verb"].iter().chain(*args)).unwrap();
            assert_eq!((verb.registry.tls_verify, verb.reference.as_deref()), (*verify, *reference), "{args:?}");
        }
        for args in [["verb", "--tls-verify=maybe"], ["verb", "--tls-verify="], ["verb", "--creds=:p"]] {
            assert!(Verb::try_parse_from(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn credentials_are_split_at_the_first_colon() {
        let cases = [("u", "u", None), ("u:p:w", "u", Some("p:w")), ("u:", "u", Some(""))];
        for (text, username, password) in cases {
            let creds: Creds = text.parse().unwrap();
            assert_eq!((creds.username.as_str(), creds.password.as_deref()), (username, password));
            assert_eq!(format!("{creds:?}"), r#"Creds { username: "u", .. }"#);
        }
    }

    #[test]
    fn defaults_are_those_of_podman() {
        let verb = Verb::try_parse_from(["verb"]).unwrap();
        assert_eq!(verb.registry.retry, 3);
        assert!(verb.registry.authfile.is_none() && verb.registry.creds.is_none() && verb.registry.cert_dir.is_none());
    }
}
