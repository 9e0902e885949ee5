//! What every verb needs: the environment, the store, and the two streams.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use clap::{Args, ValueEnum};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::policy;
use super::progress::{Board, Progress};
use super::record::Known;
use super::targets;
use crate::agent::Home;
use crate::env::{Env, path_var};
use crate::error::{Error, Refusal};
use crate::ops::prune;
use crate::output::{harmless, json, public_line};
use crate::process::{Cancel, Tools};
use crate::store::layout::Layout;
use crate::store::read_only::SYSTEM_STORE;
use crate::store::registries_conf::ConfPaths;
use crate::store::remote::Canary;
use crate::store::storage::Storage;
use crate::store::storage_conf::{StorageEnv, StoreFlags, discover};
use crate::store::storage_info::InfoKey;
use crate::store::unpacked::{self, Cache, Label, SELINUX};
use crate::trust::policy::Policy;

/// Exit status: the answer is no.
pub const NO: u8 = 1;
/// Exit status: could not do it.
pub const FAILED: u8 = 2;
/// Exit status: ended by Ctrl-C, SIGTERM or a hangup, as shells and podman have it.
const INTERRUPTED: u8 = 130;

/// Heading of the options of every verb, which keeps them apart from the verb's own.
const GLOBAL: &str = "Global options";

/// Options of every verb.
#[derive(Debug, Default, Args)]
pub struct Global {
    /// The store, an OCI layout [env: SKILLCTL_STORE]
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL)]
    pub store: Option<PathBuf>,
    /// Another store, searched next and only read (can be repeated) [env: SKILLCTL_ADD_STORES]
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL)]
    pub add_store: Vec<PathBuf>,
    /// Graph root of containers-storage, as in podman
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL)]
    pub root: Option<PathBuf>,
    /// Run root of containers-storage, as in podman
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL)]
    pub runroot: Option<PathBuf>,
    /// Driver of containers-storage, as in podman
    #[arg(long, global = true, value_name = "NAME", help_heading = GLOBAL)]
    pub storage_driver: Option<String>,
    /// Print results and errors only
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    pub quiet: bool,
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For programs, exact and stable
    Json,
}

/// Environment, options and streams.
#[derive(Debug)]
pub struct Shell {
    /// The environment.
    pub env: Env,
    /// Options of every verb.
    pub global: Global,
    cancel: OnceCell<Cancel>,
    policy: OnceCell<Policy>,
    /// Set when nobody reads stdout any more: the work goes on, and only its result is not printed.
    deaf: Cell<bool>,
    /// What the audit log was told.
    pub known: Known,
}

impl Shell {
    /// Reads the environment.
    pub fn new(global: Global) -> Self {
        let (cancel, policy, known) = (OnceCell::new(), OnceCell::new(), Known::default());
        Self { env: Env::read(), global, cancel, policy, deaf: Cell::new(false), known }
    }

    /// Prints a result; text by strangers in it must have been made harmless.
    pub fn print(&self, text: impl AsRef<str>) -> Result<()> {
        if self.deaf.get() {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_ref().as_bytes()).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.deaf.set(true);
                Ok(())
            }
            printed => printed.context("Writing to stdout"),
        }
    }

    /// Prints a result as JSON.
    pub fn print_json(&self, value: &impl Serialize) -> Result<()> {
        self.print(json(value)? + "\n")
    }

    /// Prints a line on stderr that is neither result nor error.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.global.quiet {
            self.warn(text);
        }
    }

    /// Prints a line on stderr that `--quiet` does not end.
    pub fn warn(&self, text: impl AsRef<str>) {
        // Nothing can be done about a closed stderr.
        let _ = writeln!(io::stderr(), "{}", harmless(text.as_ref()));
    }

    /// Prints warnings that may have text by strangers in them.
    pub fn warnings(&self, warnings: &[String]) {
        for warning in warnings {
            self.warn(format!("warning: {}", public_line(warning)));
        }
    }

    /// Returns whether a person is reading stderr.
    pub fn is_interactive(&self) -> bool {
        !self.global.quiet && io::stderr().is_terminal()
    }

    /// Starts to show how far long work has come, where a person is reading stderr.
    pub fn progress(&self, what: &str) -> Progress {
        self.board().add(what)
    }

    /// Returns what shows several things at once.
    pub fn board(&self) -> Board {
        Board::new(self.is_interactive())
    }

    /// Prints an error and its hint, and returns the exit status.
    pub fn fail(&self, error: &anyhow::Error) -> ExitCode {
        fail(error);
        match self.cancel.get().is_some_and(Cancel::is_cancelled) {
            true => ExitCode::from(INTERRUPTED),
            false if not_verified(error).is_some() => ExitCode::from(NO),
            false => ExitCode::from(FAILED),
        }
    }

    /// Returns where the store is.
    pub fn store_path(&self) -> Result<PathBuf> {
        let path = self.env.store_path(self.global.store.as_deref());
        let path = path.ok_or_else(|| Error::Unavailable {
            reason: "no place for the store: HOME is not set".into(),
            hint: Some("give --store DIR or set SKILLCTL_STORE".into()),
        })?;
        std::path::absolute(&path).with_context(|| format!("Resolving {}", path.display()))
    }

    /// Opens the store, making it where there is none, before those that are only read.
    pub fn store(&self) -> Result<Layout> {
        let path = self.store_path()?;
        let context = || format!("Opening the store {}", path.display());
        fs::create_dir_all(&path).with_context(context)?;
        let layout = Layout::ensure(open_dir(&path).with_context(context)?, &path).with_context(context)?;
        Ok(layout.cancelled_by(self.cancel()).trusting(self.policy()).before(self.read_only_stores()?))
    }

    /// Opens a store that must be there, or stores that are only read; then it is made.
    pub fn store_with(&self, reference: &str) -> Result<Layout> {
        match self.existing_store()? {
            Some(layout) if layout.is_read_only() => self.store(),
            Some(layout) => Ok(layout),
            None => Err(Error::ImageNotFound(reference.to_owned()).into()),
        }
    }

    /// Opens the store for reading, before those that are only read; `None` where there is none of them.
    pub fn existing_store(&self) -> Result<Option<Layout>> {
        let mut stores = self.stores()?.into_iter();
        Ok(stores.next().map(|first| first.before(stores.collect())))
    }

    /// Opens the same, each by itself.
    pub fn stores(&self) -> Result<Vec<Layout>> {
        Ok(self.own_store()?.into_iter().chain(self.read_only_stores()?).collect())
    }

    /// Opens the store alone; `None` where there is none.
    pub fn own_store(&self) -> Result<Option<Layout>> {
        self.open_store(&self.store_path()?)
    }

    /// Returns the read-only stores that were named.
    pub fn added_stores(&self) -> Vec<PathBuf> {
        let flags = &self.global.add_store;
        let named = if flags.is_empty() { &self.env.add_stores } else { flags };
        named.iter().filter_map(|path| absolute(Some(path))).collect()
    }

    /// Opens the stores that are only read: those that were named, then that of an image of the operating system. The one that
    /// is written is none of them: for such an image it is built.
    pub fn read_only_stores(&self) -> Result<Vec<Layout>> {
        let own = self.store_path()?;
        let mut stores: Vec<Layout> = Vec::new();
        let added = self.added_stores().into_iter().map(|path| (path, true));
        for (path, is_named) in added.chain([(SYSTEM_STORE.into(), false)]) {
            if is_same(&own, &path) || stores.iter().any(|store| is_same(store.path(), &path)) {
                continue;
            }
            match self.open_store(&path) {
                Ok(Some(store)) => stores.push(store.read_only()),
                Ok(None) if is_named => {
                    let reason = format!("there is no store {}", path.display());
                    let hint = Some("--add-store and SKILLCTL_ADD_STORES name stores that are there".into());
                    return Err(Error::Unavailable { reason, hint }.into());
                }
                Err(e) if is_named => return Err(e),
                // Nobody has named it, and few could mend it: doctor tells.
                Ok(None) | Err(_) => {}
            }
        }
        Ok(stores)
    }

    /// Opens a store; `None` where there is none.
    pub fn open_store(&self, path: &Path) -> Result<Option<Layout>> {
        let context = || format!("Opening the store {}", path.display());
        match open_dir(path) {
            Ok(dir) => {
                let layout = Layout::open_existing(dir, path).with_context(context)?;
                Ok(layout.map(|layout| layout.cancelled_by(self.cancel()).trusting(self.policy())))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(context),
        }
    }
}

impl Shell {
    /// Returns what has to hold of images that are used here.
    pub fn policy(&self) -> Policy {
        let read = || {
            let user = self.config_home().ok();
            policy::read([Path::new(policy::ETC)].into_iter().chain(user.as_deref()), || self.registries_conf())
        };
        self.policy.get_or_init(read).clone()
    }

    /// Returns what decides which registries.conf is read.
    pub fn registries_conf(&self) -> ConfPaths {
        ConfPaths {
            uid: self.env.uid,
            home: self.env.home.clone(),
            xdg_cache_home: self.env.xdg_cache_home.clone(),
            registries_conf: absolute(self.env.registries_conf.as_deref()),
        }
    }

    /// Opens the cache of what is unpacked for containers, making it where there is none.
    pub fn cache(&self) -> Result<Cache> {
        let path = unpacked::path(&self.store_path()?);
        let context = || format!("Opening {}", path.display());
        fs::create_dir_all(&path).with_context(context)?;
        Ok(Cache::new(open_dir(&path).with_context(context)?, &path, self.cancel()).labelled(label()))
    }

    /// The same; `None` where there is none.
    pub fn existing_cache(&self) -> Result<Option<Cache>> {
        match unpacked::path(&self.store_path()?).is_dir() {
            true => self.cache().map(Some),
            false => Ok(None),
        }
    }

    /// Returns the container tools and how they are installed here.
    pub fn tools(&self) -> Tools {
        let [skopeo, podman, git] = ["skopeo", "podman", "git"].map(|name| self.env.find_program(name));
        let installers = [("dnf", "dnf install"), ("apt-get", "apt-get install"), ("zypper", "zypper install")];
        let installer = match skopeo.is_none() || podman.is_none() || git.is_none() {
            true => installers.iter().find(|(program, _)| self.env.find_program(program).is_some()),
            false => None,
        };
        Tools {
            skopeo: skopeo.unwrap_or_else(|| "skopeo".into()),
            podman: podman.unwrap_or_else(|| "podman".into()),
            git: git.unwrap_or_else(|| "git".into()),
            installer: installer.map(|(_, command)| (*command).to_owned()),
            cancel: self.cancel(),
        }
    }

    /// Returns what Ctrl-C, SIGTERM and a closed terminal set, from the first call on; a second signal ends the process at once.
    ///
    /// Children are in a process group of their own, so that they are ended in order and not by the terminal.
    pub fn cancel(&self) -> Cancel {
        self.cancel.get_or_init(cancel_on_signals).clone()
    }

    /// Returns what decides where containers-storage is.
    pub fn storage_env(&self) -> StorageEnv {
        let env = self.env.clone();
        StorageEnv {
            uid: env.uid,
            user: env.user,
            home: env.home,
            xdg_data_home: env.xdg_data_home,
            xdg_runtime_dir: env.xdg_runtime_dir,
            xdg_config_home: env.xdg_config_home,
            containers_storage_conf: env.storage_conf,
            storage_driver: env.storage_driver,
            storage_opts: env.storage_opts,
            flags: StoreFlags {
                root: absolute(self.global.root.as_deref()),
                runroot: absolute(self.global.runroot.as_deref()),
                driver: self.global.storage_driver.clone(),
            },
        }
    }

    /// Returns the containers-storage of this user as it can be read without asking podman.
    pub fn storage_to_read(&self) -> Result<Storage> {
        let conf = discover(&self.storage_env(), |path| fs::read_to_string(path).ok())?;
        Ok(Storage::new(conf, Box::new(open_dir)))
    }

    /// Returns the containers-storage of this user; podman is asked for its driver where nothing else tells.
    pub fn storage(&self) -> Result<Storage> {
        let mut storage = self.storage_to_read()?;
        let tools = self.tools();
        let env = self.storage_env();
        let files = || {
            let podman = self.env.find_program("podman");
            let modified = |path: PathBuf| Some((path.clone(), path.metadata().ok()?.modified().ok()?));
            env.config_files().into_iter().chain(podman).filter_map(modified).collect()
        };
        let key = || InfoKey { files: files(), graph_root: None, env: Some(&env) };
        match storage.ask_podman(&tools, self.cache_dir().as_ref(), key) {
            // Without podman skopeo decides by itself, by the same rules.
            Err(_) if self.env.find_program("podman").is_none() => {}
            result => result?,
        }
        Ok(storage)
    }

    /// Returns what is known of the image proxy of the skopeo that is found here.
    pub fn canary(&self) -> Canary {
        let key = self.env.find_program("skopeo").map(|program| {
            let metadata = program.metadata().ok();
            let modified = metadata.as_ref().and_then(|m| m.modified().ok());
            format!("{} {modified:?} {:?}", program.display(), metadata.map(|m| m.len()))
        });
        Canary::new(self.cache_dir(), key.unwrap_or_default())
    }

    /// Returns our directory for what can be found out again, where there is or can be one.
    fn cache_dir(&self) -> Option<Dir> {
        let home = || self.env.home.as_ref().map(|home| home.join(".cache"));
        let path = self.env.xdg_cache_home.clone().or_else(home)?.join("skillctl");
        fs::create_dir_all(&path).ok()?;
        open_dir(&path).ok()
    }

    /// Returns the directory of this user's configuration.
    pub fn config_home(&self) -> Result<PathBuf> {
        let home = || self.env.home.as_ref().map(|home| home.join(".config"));
        let config = self.env.xdg_config_home.clone().or_else(home).ok_or_else(|| Error::Unavailable {
            reason: "no place for a user's configuration: HOME is not set".into(),
            hint: None,
        })?;
        Ok(config)
    }

    /// Returns the home directory of this user, as agents find it.
    pub fn home(&self) -> Result<Home<'_>> {
        let home = self.env.home.as_deref().ok_or_else(|| Error::Unavailable {
            reason: "no place for skills: HOME is not set".into(),
            hint: Some("name a directory with -o DIR".into()),
        })?;
        Ok(Home { path: home, var: path_var })
    }

    /// Returns the manifest digests that skills installed for this user, for all users and in this project pin.
    pub fn pinned(&self) -> Result<BTreeSet<String>> {
        let mut pins = BTreeSet::new();
        for place in targets::everywhere(self) {
            if let Some(skills) = place.open()? {
                pins.extend(prune::pins(&skills)?);
            }
        }
        Ok(pins)
    }
}

/// Returns what the signals that end programs set, from now on; the second of them ends the process.
pub fn cancel_on_signals() -> Cancel {
    let cancel = Cancel::default();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The order matters: the second signal finds the flag set. Without handlers a signal kills, as ever.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, cancel.flag().clone());
        let _ = signal_hook::flag::register(signal, cancel.flag().clone());
    }
    cancel
}

/// Returns what the user can do about an error, where there is something.
pub fn hint_of(error: &anyhow::Error) -> Option<String> {
    error.chain().filter_map(|e| e.downcast_ref::<Error>()).find_map(Error::hint)
}

/// Returns what is not as it has to be, where that is why something failed.
pub fn not_verified(error: &anyhow::Error) -> Option<&Refusal> {
    error.chain().find_map(|e| match e.downcast_ref() {
        Some(Error::NotVerified(refusal)) => Some(&**refusal),
        _ => None,
    })
}

/// Prints an error and its hint on stderr.
pub fn fail(error: &anyhow::Error) {
    let tell = |line: String| {
        // Nothing can be done about a closed stderr.
        let _ = writeln!(io::stderr(), "{}", harmless(&line));
    };
    tell(format!("error: {}", public_line(&format!("{error:#}"))));
    if let Some(hint) = hint_of(error) {
        tell(format!("hint: {}", public_line(&hint)));
    }
}

/// Returns the label of what containers read, where SELinux is on.
pub fn label() -> Option<Label> {
    Path::new("/sys/fs/selinux/enforce").exists().then_some(SELINUX)
}

/// Returns a path that a program with another working directory understands as well.
pub fn absolute(path: Option<&Path>) -> Option<PathBuf> {
    path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}

/// Returns whether two paths lead to one directory.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
    one == other || identity(one).is_some_and(|one| Some(one) == identity(other))
}

/// Opens a directory that the user named.
pub fn open_dir(path: &Path) -> io::Result<Dir> {
    Dir::open_ambient_dir(path, ambient_authority())
}
