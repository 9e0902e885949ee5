//! The environment of the process, read once into one value.
//!
//! Everything else takes what it needs from [`Env`], so that tests need no environment of their own.

#![allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What the process was started with.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// Effective user ID.
    pub uid: u32,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub xdg_data_home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config_home: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`.
    pub xdg_cache_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// `SKILLCTL_STORE`.
    pub store: Option<PathBuf>,
    /// `SKILLCTL_ADD_STORES`, with colons between them: stores that are only read.
    pub add_stores: Vec<PathBuf>,
    /// `CONTAINERS_STORAGE_CONF`.
    pub storage_conf: Option<PathBuf>,
    /// `STORAGE_DRIVER`.
    pub storage_driver: Option<String>,
    /// `STORAGE_OPTS`.
    pub storage_opts: Option<String>,
    /// `CONTAINERS_CONF`, which podman reads instead of all other such files; else `CONTAINERS_CONF_OVERRIDE`.
    pub containers_conf: Option<PathBuf>,
    /// `REGISTRY_AUTH_FILE`, the credentials instead of those in the usual places.
    pub registry_auth_file: Option<PathBuf>,
    /// `DOCKER_CONFIG`, the directory of Docker's config.json.
    pub docker_config: Option<PathBuf>,
    /// `CONTAINERS_REGISTRIES_CONF`
    pub registries_conf: Option<PathBuf>,
    /// `HTTPS_PROXY`, else `https_proxy`.
    pub https_proxy: Option<String>,
    /// `HTTP_PROXY`, else `http_proxy`.
    pub http_proxy: Option<String>,
    /// `NO_PROXY`, else `no_proxy`.
    pub no_proxy: Option<String>,
    /// `COSIGN_PASSWORD`, the passphrase of a key; it may be empty.
    pub cosign_password: Option<Secret>,
    /// `SOURCE_DATE_EPOCH`, as it was given.
    pub source_date_epoch: Option<String>,
    /// `USER`.
    pub user: Option<String>,
    /// `PATH`.
    pub path: Option<OsString>,
    /// The working directory.
    pub cwd: Option<PathBuf>,
    /// `SUDO_UID`: whose files root may take for its own.
    pub sudo_uid: Option<u32>,
}

/// Text that is not printed by accident.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Returns the value of a variable that is an absolute path, for those that only agents know.
pub fn path_var(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

impl Env {
    /// Reads the environment of this process.
    pub fn read() -> Self {
        let text = |key: &str| std::env::var(key).ok().filter(|value| !value.is_empty());
        // Relative paths are invalid by the XDG base directory specification, and ignored.
        let path = path_var;
        // These may be relative: they are not of the XDG specification.
        let file = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let files = |key: &str| {
            let all = std::env::var_os(key).unwrap_or_default();
            std::env::split_paths(&all).filter(|path| !path.as_os_str().is_empty()).collect()
        };
        // As Go's programs do, in capitals first.
        let proxy = |key: &str| text(key).or_else(|| text(&key.to_ascii_lowercase()));
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            home: path("HOME"),
            xdg_data_home: path("XDG_DATA_HOME"),
            xdg_config_home: path("XDG_CONFIG_HOME"),
            xdg_state_home: path("XDG_STATE_HOME"),
            xdg_cache_home: path("XDG_CACHE_HOME"),
            xdg_runtime_dir: path("XDG_RUNTIME_DIR"),
            store: file("SKILLCTL_STORE"),
            add_stores: files("SKILLCTL_ADD_STORES"),
            storage_conf: path("CONTAINERS_STORAGE_CONF"),
            storage_driver: text("STORAGE_DRIVER"),
            storage_opts: text("STORAGE_OPTS"),
            containers_conf: file("CONTAINERS_CONF").or_else(|| file("CONTAINERS_CONF_OVERRIDE")),
            registry_auth_file: file("REGISTRY_AUTH_FILE"),
            docker_config: file("DOCKER_CONFIG"),
            registries_conf: file("CONTAINERS_REGISTRIES_CONF"),
            https_proxy: proxy("HTTPS_PROXY"),
            http_proxy: proxy("HTTP_PROXY"),
            no_proxy: proxy("NO_PROXY"),
            cosign_password: std::env::var("COSIGN_PASSWORD").ok().map(Secret),
            source_date_epoch: text("SOURCE_DATE_EPOCH"),
            user: text("USER"),
            path: std::env::var_os("PATH"),
            cwd: std::env::current_dir().ok(),
            sudo_uid: text("SUDO_UID").and_then(|uid| uid.parse().ok()),
        }
    }

    /// Returns where the store is: the flag, `SKILLCTL_STORE`, `$XDG_DATA_HOME/skillctl/store`, `/var/lib` for root,
    /// else below `~/.local/share`.
    pub fn store_path(&self, flag: Option<&Path>) -> Option<PathBuf> {
        if let Some(path) = flag.or(self.store.as_deref()) {
            return Some(path.to_owned());
        }
        if let Some(data) = &self.xdg_data_home {
            return Some(data.join("skillctl/store"));
        }
        if self.uid == 0 {
            return Some("/var/lib/skillctl/store".into());
        }
        self.home.as_ref().map(|home| home.join(".local/share/skillctl/store"))
    }

    /// Returns the directory of the audit log: in `$XDG_STATE_HOME`, `/var/log` for root, else below `~/.local/state`.
    pub fn audit_dir(&self) -> Option<PathBuf> {
        let home = || self.home.as_ref().map(|home| home.join(".local/state"));
        let state = match (&self.xdg_state_home, self.uid) {
            (Some(state), _) => Some(state.clone()),
            (None, 0) => Some("/var/log".into()),
            (None, _) => home(),
        };
        state.map(|state| state.join("skillctl"))
    }

    /// Returns where the Go tool keeps its store, for root another place than ours.
    pub fn go_store_path(&self) -> Option<PathBuf> {
        let data = self.xdg_data_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".local/share")))?;
        Some(data.join("skillctl/store"))
    }

    /// Returns where a program is, by `PATH`.
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(self.path.as_ref()?).map(|dir| dir.join(name)).find(|file| is_executable(file))
    }
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_found_in_order() {
        let home = Some(PathBuf::from("/home/u"));
        let user = Env { uid: 1000, home: home.clone(), ..Env::default() };
        let cases = [
            (user.clone(), None, "/home/u/.local/share/skillctl/store"),
            (Env { uid: 0, home, ..Env::default() }, None, "/var/lib/skillctl/store"),
            (Env { xdg_data_home: Some("/data".into()), ..user.clone() }, None, "/data/skillctl/store"),
            (Env { store: Some("rel".into()), ..user.clone() }, None, "rel"),
            (Env { store: Some("rel".into()), ..user }, Some("/flag"), "/flag"),
        ];
        for (env, flag, path) in cases {
            assert_eq!(env.store_path(flag.map(Path::new)), Some(path.into()));
        }
    }

    #[test]
    fn the_log_is_found_in_order() {
        let user = Env { uid: 1000, home: Some("/home/u".into()), ..Env::default() };
        let cases = [
            (user.clone(), Some("/home/u/.local/state/skillctl")),
            (Env { uid: 0, ..user.clone() }, Some("/var/log/skillctl")),
            (Env { xdg_state_home: Some("/state".into()), uid: 0, ..user.clone() }, Some("/state/skillctl")),
            (Env { home: None, ..user }, None),
        ];
        for (env, want) in cases {
            assert_eq!(env.audit_dir().as_deref(), want.map(Path::new));
        }
    }
}
