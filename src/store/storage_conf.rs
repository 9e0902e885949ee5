//! Where containers-storage is: storage.conf, its environment and podman's flags, into one value.
//!
//! ```text
//! $CONTAINERS_STORAGE_CONF                    alone, when set
//! /etc/containers/storage.conf                else this
//! /usr/share/containers/storage.conf          else this
//! $XDG_CONFIG_HOME/containers/storage.conf    rootless: replaces the one above as a whole
//! STORAGE_DRIVER, STORAGE_OPTS                replace its driver and its options
//! --root, --runroot, --storage-driver         replace those; with --root or --storage-driver the options do not count
//! ```
//!
//! [`discover`] is a pure function of [`StorageEnv`] and a reader of files. It cannot know the driver where nothing
//! configures it, because containers/storage then looks at the host, differently in each version (rootless 1.43 takes
//! vfs, later ones overlay), and podman's database has a say. [`super::storage::Storage::driver`] then looks at what is
//! on disk, and where that does not decide, [`super::storage_info`] asks podman.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::process::Process;
use crate::store::policy;

/// System configuration, the first that exists.
const SYSTEM_CONF: [&str; 2] = ["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"];

/// How containers-storage keeps layers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Driver {
    /// `overlay/<id>/diff`, one directory per layer.
    Overlay,
    /// `vfs/dir/<id>`, one full tree per layer.
    Vfs,
    /// Another one, whose records we read and whose layers we do not.
    Other(String),
    /// Not configured.
    Unknown,
}

impl Driver {
    /// Returns the driver of that name; `overlay2` is an old name of overlay.
    pub fn from_name(name: &str) -> Self {
        match name {
            "" => Self::Unknown,
            "overlay" | "overlay2" => Self::Overlay,
            "vfs" => Self::Vfs,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Returns its name, which prefixes its directories; `None` when it is not known.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Overlay => Some("overlay"),
            Self::Vfs => Some("vfs"),
            Self::Other(name) => Some(name),
            Self::Unknown => None,
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("unknown"))
    }
}

/// What the user gave as podman's global options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreFlags {
    /// `--root`
    pub root: Option<PathBuf>,
    /// `--runroot`
    pub runroot: Option<PathBuf>,
    /// `--storage-driver`
    pub driver: Option<String>,
}

impl StoreFlags {
    /// Returns whether none was given, so that every tool finds the storage by itself.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds them to a podman command, before its verb.
    pub fn podman(&self, mut process: Process) -> Process {
        if let Some(root) = &self.root {
            process = process.arg("--root").arg(root);
        }
        if let Some(runroot) = &self.runroot {
            process = process.arg("--runroot").arg(runroot);
        }
        if let Some(driver) = &self.driver {
            process = process.arg("--storage-driver").arg(driver);
        }
        process
    }
}

/// Everything outside configuration files that decides where containers-storage is; the shell fills it.
#[derive(Debug, Clone, Default)]
pub struct StorageEnv {
    /// The effective user.
    pub uid: u32,
    /// `USER`
    pub user: Option<String>,
    /// `HOME`
    pub home: Option<PathBuf>,
    /// `XDG_DATA_HOME`
    pub xdg_data_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`
    pub xdg_runtime_dir: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`
    pub xdg_config_home: Option<PathBuf>,
    /// `CONTAINERS_STORAGE_CONF`
    pub containers_storage_conf: Option<PathBuf>,
    /// `STORAGE_DRIVER`
    pub storage_driver: Option<String>,
    /// `STORAGE_OPTS`
    pub storage_opts: Option<String>,
    /// What was given on our command line.
    pub flags: StoreFlags,
}

impl StorageEnv {
    /// Returns whether the storage is that of a user.
    pub fn rootless(&self) -> bool {
        self.uid != 0
    }

    /// Returns the configuration files that may count, for a cache that depends on them.
    pub fn config_files(&self) -> Vec<PathBuf> {
        match &self.containers_storage_conf {
            Some(file) => vec![file.clone()],
            None => SYSTEM_CONF.iter().map(PathBuf::from).chain(self.user_conf()).collect(),
        }
    }

    /// Returns the user's directory of configuration, where rootless tools look.
    fn config_home(&self) -> Option<PathBuf> {
        self.xdg_config_home.clone().or_else(|| self.home.as_ref().map(|h| h.join(".config")))
    }

    fn user_conf(&self) -> Option<PathBuf> {
        self.rootless().then(|| self.config_home()).flatten().map(|d| d.join("containers/storage.conf"))
    }

    fn rootless_graph_root(&self) -> Result<PathBuf> {
        let data = self.xdg_data_home.clone().or_else(|| self.home.as_ref().map(|h| h.join(".local/share")));
        let data = data.ok_or_else(|| Error::Unavailable {
            reason: "neither HOME nor XDG_DATA_HOME is set, so the user's containers-storage cannot be found".into(),
            hint: Some("set HOME, or give --root".into()),
        })?;
        Ok(data.join("containers/storage"))
    }

    /// Without `XDG_RUNTIME_DIR` podman and skopeo fall back to what logind would set, where that exists.
    fn rootless_run_root(&self) -> PathBuf {
        let runtime = self.xdg_runtime_dir.clone();
        runtime.unwrap_or_else(|| format!("/run/user/{}", self.uid).into()).join("containers")
    }

    /// Expands `$HOME`, `$UID` and `$USER`, with or without braces; other names stay as they are.
    fn expand(&self, path: &str) -> PathBuf {
        let mut out = String::with_capacity(path.len());
        let mut rest = path;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let braced = after.strip_prefix('{').and_then(|a| a.split_once('}'));
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            let (name, next) = braced.unwrap_or((&after[..end], &after[end..]));
            match self.variable(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&rest[at..rest.len() - next.len()]),
            }
            rest = next;
        }
        out.push_str(rest);
        PathBuf::from(out)
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "HOME" => self.home.as_ref().map(|h| h.to_string_lossy().into_owned()),
            "UID" => Some(self.uid.to_string()),
            "USER" => self.user.clone(),
            _ => None,
        }
    }
}

/// Where containers-storage is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConf {
    /// Directory of images and layers.
    pub graph_root: PathBuf,
    /// Directory of what ends with the boot, such as mount counts.
    pub run_root: PathBuf,
    /// The configured driver.
    pub driver: Driver,
    /// Where images are written, when apart from the graph root.
    pub image_store: Option<PathBuf>,
    /// Read-only stores that are searched last.
    pub additional: Vec<PathBuf>,
    /// Whether this is a user's storage.
    pub rootless: bool,
    /// What was given on our command line, to be handed on.
    pub flags: StoreFlags,
    /// Directories of policy.json, the one that counts first.
    pub policy_dirs: Vec<PathBuf>,
}

impl StorageConf {
    /// Returns the storage at a graph root, to read what it has itself.
    pub fn at(graph_root: PathBuf, driver: Driver) -> Self {
        Self {
            graph_root,
            run_root: PathBuf::new(),
            driver,
            image_store: None,
            additional: Vec::new(),
            rootless: false,
            flags: StoreFlags::default(),
            policy_dirs: Vec::new(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct ConfFile {
    #[serde(default)]
    storage: ConfStorage,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfStorage {
    driver: String,
    graphroot: String,
    runroot: String,
    rootless_storage_path: String,
    imagestore: String,
    options: ConfOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfOptions {
    additionalimagestores: Vec<String>,
}

/// Returns where containers-storage is; `read` yields the text of a file that exists and can be read.
///
/// # Errors
///
/// [`Error::Unavailable`] for a storage.conf that cannot be parsed, and for a user without a home.
pub fn discover(env: &StorageEnv, read: impl Fn(&Path) -> Option<String>) -> Result<StorageConf> {
    let first = |paths: Vec<PathBuf>| -> Result<Option<ConfStorage>> {
        let found = paths.iter().find_map(|path| Some((path, read(path)?)));
        found.map(|(path, text)| parse(path, &text)).transpose()
    };
    let exclusive = env.containers_storage_conf.clone();
    let system = match &exclusive {
        Some(file) => first(vec![file.clone()])?,
        None => first(SYSTEM_CONF.iter().map(PathBuf::from).collect())?,
    };
    let mut conf = if env.rootless() {
        let own = match exclusive {
            Some(_) => None,
            None => first(env.user_conf().into_iter().collect())?,
        };
        rootless(env, system.unwrap_or_default(), own)?
    } else {
        rootful(env, system.unwrap_or_default())
    };
    apply_environment(env, &mut conf);
    apply_flags(env, &mut conf);
    Ok(conf)
}

fn parse(path: &Path, text: &str) -> Result<ConfStorage> {
    let file: ConfFile = toml::from_str(text)
        .map_err(|e| Error::Unavailable { reason: format!("{}: {}", path.display(), e.message()), hint: None })?;
    Ok(file.storage)
}

fn rootful(env: &StorageEnv, file: ConfStorage) -> StorageConf {
    let or = |value: &str, default: &str| env.expand(if value.is_empty() { default } else { value });
    let graph_root = or(&file.graphroot, "/var/lib/containers/storage");
    let run_root = or(&file.runroot, "/run/containers/storage");
    assemble(env, &file, graph_root, run_root)
}

/// A user's own file replaces the system's as a whole; of the system's only the driver and `rootless_storage_path` count.
/// `CONTAINERS_STORAGE_CONF` counts as both.
fn rootless(env: &StorageEnv, system: ConfStorage, own: Option<ConfStorage>) -> Result<StorageConf> {
    let own_root = |file: &ConfStorage| {
        let set = [&file.graphroot, &file.rootless_storage_path].into_iter().find(|p| !p.is_empty());
        set.map(|path| env.expand(path))
    };
    let exclusive = env.containers_storage_conf.is_some();
    let mut graph_root = (!system.rootless_storage_path.is_empty()).then(|| env.expand(&system.rootless_storage_path));
    let mut file = ConfStorage { driver: system.driver.clone(), ..ConfStorage::default() };
    if let Some(own) = if exclusive { Some(system) } else { own } {
        graph_root = own_root(&own).or(graph_root);
        file = own;
    }
    let graph_root = match (graph_root, &env.flags.root) {
        (Some(root), _) => root,
        // The flag will replace it, so that a user without home can still work.
        (None, Some(flag)) => flag.clone(),
        (None, None) => env.rootless_graph_root()?,
    };
    let run_root = if file.runroot.is_empty() { env.rootless_run_root() } else { env.expand(&file.runroot) };
    Ok(assemble(env, &file, graph_root, run_root))
}

fn assemble(env: &StorageEnv, file: &ConfStorage, graph_root: PathBuf, run_root: PathBuf) -> StorageConf {
    StorageConf {
        graph_root,
        run_root,
        driver: Driver::from_name(&file.driver),
        image_store: (!file.imagestore.is_empty()).then(|| env.expand(&file.imagestore)),
        additional: file.options.additionalimagestores.iter().map(|p| env.expand(p)).collect(),
        rootless: env.rootless(),
        flags: env.flags.clone(),
        policy_dirs: policy::dirs(env.home.as_deref()),
    }
}

fn apply_environment(env: &StorageEnv, conf: &mut StorageConf) {
    if let Some(driver) = env.storage_driver.as_deref().filter(|d| !d.is_empty()) {
        conf.driver = Driver::from_name(driver);
    }
    if let Some(options) = env.storage_opts.as_deref().filter(|o| !o.is_empty()) {
        conf.additional = options.split(',').filter_map(additional_store).collect();
    }
}

/// `imagestore` as an option is an additional store, in every version; only as a key of storage.conf it is the writable one.
fn additional_store(option: &str) -> Option<PathBuf> {
    let (key, value) = option.split_once('=')?;
    let key = key.rsplit('.').next().unwrap_or(key);
    (matches!(key, "additionalimagestore" | "imagestore") && !value.is_empty()).then(|| value.into())
}

fn apply_flags(env: &StorageEnv, conf: &mut StorageConf) {
    let flags = &env.flags;
    if flags.root.is_some() || flags.driver.is_some() {
        conf.additional.clear();
        conf.image_store = None;
    }
    if let Some(root) = &flags.root {
        conf.graph_root.clone_from(root);
    }
    if let Some(runroot) = &flags.runroot {
        conf.run_root.clone_from(runroot);
    }
    if let Some(driver) = &flags.driver {
        conf.driver = Driver::from_name(driver);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "storage_conf_tests.rs"]
mod tests;
