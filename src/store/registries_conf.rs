//! registries.conf: what a name stands for, and where its image may be read, as containers-registries.conf(5) says.
//!
//! ```text
//! $CONTAINERS_REGISTRIES_CONF                    the main file, when set
//! ~/.config/containers/registries.conf           else this; the drop-ins below /etc then do not count
//! /etc/containers/registries.conf                else this
//! /usr/share/containers/registries.conf          else this
//! /etc/containers/registries.conf.d/*.conf       drop-ins, in the order of their names: a [[registry]] replaces the one
//! ~/.config/containers/registries.conf.d/*.conf  of the same prefix, an alias the one of the same name
//! /var/cache/containers/short-name-aliases.conf  aliases that podman recorded; below ~/.cache for users
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::files::Files;
use crate::error::{Error, Fault, Result};
use crate::reference::Reference;

/// Below the home directory and /etc.
const MAIN: &str = "containers/registries.conf";
/// The registry that `docker.io` stands for.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// What decides which files are read; the shell fills it.
#[derive(Debug, Clone, Default)]
pub struct ConfPaths {
    /// Effective user ID.
    pub uid: u32,
    /// `HOME`
    pub home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`
    pub xdg_cache_home: Option<PathBuf>,
    /// `CONTAINERS_REGISTRIES_CONF`
    pub registries_conf: Option<PathBuf>,
}

impl ConfPaths {
    fn aliases(&self) -> Option<PathBuf> {
        let cache = match self.uid {
            0 => Some(PathBuf::from("/var/cache")),
            _ => self.xdg_cache_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".cache"))),
        };
        Some(cache?.join("containers/short-name-aliases.conf"))
    }
}

/// A place from which an image can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The image there, by the name that credentials and certificates are kept for.
    pub reference: Reference,
    /// Whether TLS without verification, and no TLS, are allowed.
    pub insecure: bool,
    /// Whether it is a mirror and not the place itself.
    pub mirror: bool,
    /// Whether it is at the registry that the reference names, for which credentials were given.
    pub named: bool,
}

impl Endpoint {
    /// Returns the registry, as credentials and certificates name it.
    pub fn registry(&self) -> &str {
        self.reference.registry().unwrap_or_default()
    }

    /// Returns the host to connect to, with its port where one was given.
    pub fn host(&self) -> &str {
        match self.registry() {
            "docker.io" => DOCKER_HUB,
            registry => registry,
        }
    }

    /// Returns what messages call the image beside the registry: the reference without it.
    pub fn image(&self) -> String {
        let text = self.reference.to_string();
        text.split_once('/').map_or(text.clone(), |(_, rest)| rest.to_owned())
    }

    /// Returns the repository: the name without the registry.
    pub fn repository(&self) -> &str {
        self.reference.name().split_once('/').map_or("", |(_, path)| path)
    }
}

/// Which references a mirror serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFromMirror {
    #[default]
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: PullFromMirror,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Entry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    #[serde(rename = "mirror")]
    mirrors: Vec<Mirror>,
    /// The file that says so.
    #[serde(skip)]
    file: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    registry: Vec<Entry>,
    aliases: BTreeMap<String, String>,
    credential_helpers: Option<Vec<String>>,
    /// Version 1 of the format, of RHEL 7 and 8.
    registries: Option<V1>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct V1 {
    insecure: V1List,
    block: V1List,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct V1List {
    registries: Vec<String>,
}

/// What registries.conf and its drop-ins say.
#[derive(Debug, Clone, Default)]
pub struct RegistriesConf {
    entries: BTreeMap<String, Entry>,
    aliases: BTreeMap<String, String>,
    credential_helpers: Vec<String>,
}

impl RegistriesConf {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::Unavailable`] that names the file which is not what the format asks for.
    pub fn read(paths: &ConfPaths, files: &Files) -> Result<Self> {
        let mut conf = Self::default();
        let user = paths.home.as_ref().map(|home| home.join(".config"));
        let user_main = user.as_ref().map(|dir| dir.join(MAIN));
        let system = [Path::new("/etc"), Path::new("/usr/share")].map(|dir| dir.join(MAIN));
        let candidates: Vec<PathBuf> = match &paths.registries_conf {
            Some(file) => vec![file.clone()],
            None => user_main.iter().cloned().chain(system.clone()).collect(),
        };
        let main = candidates.into_iter().find_map(|path| files.text(&path).map(|text| (path, text)));
        let own =
            main.as_ref().is_some_and(|(path, _)| paths.registries_conf.is_none() && Some(path) == user_main.as_ref());
        if let Some((path, text)) = main {
            conf.add(&path, &text)?;
        }
        let dirs = [(!own).then(|| system[0].clone()), user_main].into_iter().flatten();
        for dir in dirs.map(|main| main.with_extension("conf.d")) {
            let mut names = files.list(&dir);
            names.retain(|path| path.extension().is_some_and(|e| e == "conf"));
            names.sort();
            for path in names {
                if let Some(text) = files.text(&path) {
                    conf.add(&path, &text)?;
                }
            }
        }
        if let Some(path) = paths.aliases()
            && let Some(text) = files.text(&path)
        {
            let recorded: File = parse(&path, &text)?;
            conf.add_aliases(recorded.aliases);
        }
        Ok(conf)
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<()> {
        let mut file: File = parse(path, text)?;
        if let Some(v1) = file.registries {
            let entry = |location| Entry { location, ..Entry::default() };
            let insecure = v1.insecure.registries.into_iter().map(|l| Entry { insecure: true, ..entry(l) });
            file.registry.extend(insecure);
            file.registry.extend(v1.block.registries.into_iter().map(|l| Entry { blocked: true, ..entry(l) }));
        }
        for mut entry in file.registry {
            entry.check().map_err(|reason| bad(path, &reason))?;
            entry.file = path.to_owned();
            self.entries.insert(entry.prefix.clone(), entry);
        }
        self.add_aliases(file.aliases);
        if let Some(helpers) = file.credential_helpers {
            self.credential_helpers = helpers;
        }
        Ok(())
    }

    /// An alias of nothing takes away one that an earlier file has.
    fn add_aliases(&mut self, aliases: BTreeMap<String, String>) {
        self.aliases.extend(aliases);
        self.aliases.retain(|_, value| !value.is_empty());
    }

    /// Returns the full name that a short name (without tag and digest) stands for.
    pub fn alias(&self, name: &str) -> Option<&str> {
        self.aliases.get(name).map(String::as_str)
    }

    /// Returns the beginnings of names at which there are mirrors, and what of.
    pub fn mirrors(&self) -> Vec<(String, String)> {
        let named = self.entries.values().filter(|entry| !entry.prefix.starts_with("*."));
        named.flat_map(|entry| entry.mirrors.iter().map(|m| (m.location.clone(), entry.prefix.clone()))).collect()
    }

    /// Returns the programs that keep credentials, in the order in which they are asked.
    pub fn credential_helpers(&self) -> &[String] {
        &self.credential_helpers
    }

    /// Returns the places from which an image can be read: its mirrors in order, and last the place itself.
    ///
    /// # Errors
    /// [`Fault::Forbidden`] where it is blocked; [`Error::InvalidReference`] where the name has no registry or a
    /// location makes none.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let reference = full(reference)?;
        let text = reference.to_string();
        let Some((entry, end)) = self.find(&text) else {
            return Ok(vec![Endpoint { reference, insecure: false, mirror: false, named: true }]);
        };
        entry.refuse_blocked(&reference)?;
        let place = |location: &str, insecure, mirror| {
            let there = match location {
                "" => reference.clone(),
                _ => full(&format!("{location}{}", &text[end..]).parse()?)?,
            };
            Ok(Endpoint { named: there.registry() == reference.registry(), reference: there, insecure, mirror })
        };
        let by_digest = reference.digest().is_some();
        let serves = |mirror: &&Mirror| match mirror.pull_from_mirror {
            PullFromMirror::All => by_digest || !entry.mirror_by_digest_only,
            PullFromMirror::DigestOnly => by_digest,
            PullFromMirror::TagOnly => !by_digest,
        };
        let mirrors = entry.mirrors.iter().filter(serves).map(|m| place(&m.location, m.insecure, true));
        mirrors.chain([place(&entry.location, entry.insecure, false)]).collect()
    }

    /// Returns the place that an image is written to and deleted from: its own name, never a mirror or another location.
    ///
    /// # Errors
    /// As [`Self::endpoints`].
    pub fn origin(&self, reference: &Reference) -> Result<Endpoint> {
        let reference = full(reference)?;
        let entry = self.find(&reference.to_string()).map(|(entry, _)| entry);
        if let Some(entry) = entry {
            entry.refuse_blocked(&reference)?;
        }
        Ok(Endpoint { insecure: entry.is_some_and(|e| e.insecure), reference, mirror: false, named: true })
    }

    /// Returns the entry with the longest prefix, and where in `text` the prefix ends.
    fn find(&self, text: &str) -> Option<(&Entry, usize)> {
        // Of two of one length podman takes the first: `*.example.com` before `a.example.com`.
        let matching = self.entries.values().rev().filter_map(|e| Some((e, match_prefix(text, &e.prefix)?)));
        matching.max_by_key(|(entry, _)| entry.prefix.len())
    }
}

impl Entry {
    /// Fills in what is implied and refuses what podman refuses.
    fn check(&mut self) -> Result<(), String> {
        let mirrors = self.mirrors.iter_mut().map(|mirror| &mut mirror.location);
        for location in [&mut self.prefix, &mut self.location].into_iter().chain(mirrors) {
            if location.starts_with("http://") || location.starts_with("https://") {
                return Err(format!("{location:?} must not begin with a scheme"));
            }
            location.truncate(location.trim_end_matches('/').len());
        }
        if self.prefix.is_empty() {
            self.prefix.clone_from(&self.location);
        }
        if self.prefix.is_empty() {
            return Err("a [[registry]] has neither prefix nor location".into());
        }
        if self.location.is_empty() && !self.prefix.starts_with("*.") {
            return Err(format!("the [[registry]] with prefix {:?} has no location", self.prefix));
        }
        if self.mirrors.iter().any(|mirror| mirror.location.is_empty()) {
            return Err(format!("a mirror of {:?} has no location", self.prefix));
        }
        if self.mirror_by_digest_only && self.mirrors.iter().any(|m| m.pull_from_mirror != PullFromMirror::All) {
            return Err(format!("{:?} has both mirror-by-digest-only and pull-from-mirror", self.prefix));
        }
        Ok(())
    }

    fn refuse_blocked(&self, reference: &Reference) -> Result<()> {
        if !self.blocked {
            return Ok(());
        }
        Err(Error::Registry {
            registry: reference.registry().unwrap_or_default().to_owned(),
            fault: Fault::Forbidden,
            reason: format!("{} blocks {}", self.file.display(), self.prefix),
            hint: None,
        })
    }
}

/// Returns the reference as registries know it: `docker.io/alpine` is `docker.io/library/alpine` there.
fn full(reference: &Reference) -> Result<Reference> {
    let text = reference.to_string();
    match reference.registry() {
        None => {
            Err(Error::InvalidReference { input: text, reason: "it names no registry, such as quay.io/".to_owned() })
        }
        Some("docker.io" | "index.docker.io") => {
            let path = text.split_once('/').map_or("", |(_, path)| path);
            let official = reference.name().matches('/').count() == 1;
            format!("docker.io/{}{path}", if official { "library/" } else { "" }).parse()
        }
        Some(_) => Ok(reference.clone()),
    }
}

/// Returns where `prefix` ends in `text`, if `text` begins with it and a separator follows.
fn match_prefix(text: &str, prefix: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*') {
        // Of `*.example.com` the host must end in it.
        Some(suffix) => {
            let at = text.find(suffix).filter(|at| !text[..*at].contains('/'))?;
            at + suffix.len()
        }
        None => text.starts_with(prefix).then_some(prefix.len())?,
    };
    let rest = &text[end..];
    (rest.is_empty() || rest.starts_with([':', '/', '@'])).then_some(end)
}

fn parse(path: &Path, text: &str) -> Result<File> {
    toml::from_str(text).map_err(|e| bad(path, e.message()))
}

fn bad(path: &Path, reason: &str) -> Error {
    Error::Unavailable { reason: format!("{}: {reason}", path.display()), hint: None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "registries_conf_tests.rs"]
mod tests;
