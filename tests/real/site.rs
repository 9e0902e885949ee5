//! A machine in a cell: a store and a containers-storage, either the user's own or apart from them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::cell::{Done, World};

/// A store, and a containers-storage.
#[derive(Debug)]
pub struct Site<'a> {
    world: &'a World,
    /// The store.
    pub store: PathBuf,
    /// Flags that name the containers-storage.
    place: Vec<OsString>,
}

impl<'a> Site<'a> {
    /// The user's own, without flags.
    pub fn here(world: &'a World) -> Self {
        Self { world, store: world.store(), place: Vec::new() }
    }

    /// Another, which is empty.
    pub fn other(world: &'a World, name: &str) -> Self {
        let dir = world.path(name);
        let place = ["--root".into(), dir.join("graph").into(), "--runroot".into(), dir.join("run").into()];
        Self { world, store: dir.join("store"), place: place.into() }
    }

    /// Returns a command of skillctl, for scenarios that change its environment or kill it.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command =
            self.world.command(env!("CARGO_BIN_EXE_skillctl"), ["--store".as_ref(), self.store.as_os_str()]);
        command.args(args);
        command
    }

    /// Runs skillctl on this store; it does not load, unless told to with [`Self::load`].
    pub fn skillctl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Done {
        Done::of(self.command(args))
    }

    /// Runs a verb that loads, and loads into this containers-storage; it must succeed.
    #[track_caller]
    pub fn load(&self, args: &[&str]) -> String {
        let mut command = self.command(args);
        command.args(&self.place).arg("--load=always");
        Done::of(command).ok()
    }

    /// Runs podman on this containers-storage.
    pub fn podman<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Done {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        self.world.podman(self.place.iter().cloned().chain(args))
    }

    /// Runs a verb that fails, as [`Done::refused`] has it, and leaves the store as it was, with nothing unfinished.
    #[track_caller]
    pub fn refuses(&self, args: &[&str], named: &[&str], causes: &[&str]) -> String {
        let before = self.entries();
        let error = self.skillctl(args).refused(named, causes);
        assert_eq!(self.entries(), before, "{error}");
        self.tidy();
        error
    }

    /// Returns the entries of the index.
    pub fn entries(&self) -> Value {
        let Ok(text) = fs::read(self.store.join("index.json")) else { return json!([]) };
        serde_json::from_slice::<Value>(&text).expect("JSON")["manifests"].take()
    }

    /// Nothing unfinished is left in the store.
    #[track_caller]
    pub fn tidy(&self) {
        let left = fs::read_dir(self.store.join(".tmp")).into_iter().flatten();
        let left: Vec<_> = left.map(|entry| entry.expect("an entry").file_name()).collect();
        assert!(left.is_empty(), "left in .tmp: {left:?}");
    }

    /// Returns what `inspect` says of an image, or of one anywhere else.
    #[track_caller]
    pub fn inspect(&self, reference: &str) -> Value {
        self.skillctl(["inspect", reference, "--format", "json"]).json()
    }

    /// Returns the digest that a name has in the store; nothing where there is no such name.
    pub fn digest(&self, reference: &str) -> Option<String> {
        let rows = self.skillctl(["list", "--format", "json"]).json();
        let row =
            rows.as_array().expect("rows").iter().find(|row| row["reference"] == reference && row["loaded"] != "only");
        row.map(|row| row["digest"].as_str().expect("a digest").to_owned())
    }

    /// Reads a blob of the store; nothing where it is not there.
    pub fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        fs::read(self.store.join("blobs").join(digest.replace(':', "/"))).ok()
    }

    /// Every blob is what its digest says, and nothing refers to one that is missing.
    #[track_caller]
    pub fn whole(&self) {
        assert_eq!(self.skillctl(["fsck", "--format", "json"]).json()["problems"], json!([]));
    }
}

impl Drop for Site<'_> {
    /// Empties a containers-storage of its own, whose files may belong to subordinate users.
    fn drop(&mut self) {
        if self.place.get(1).is_some_and(|root| fs::exists(root).is_ok_and(|exists| exists)) {
            self.podman(["rmi", "-a", "-f"]);
        }
    }
}

/// Returns the value after a label such as `Digest: `, in the lines that a verb printed.
#[track_caller]
pub fn said<'t>(text: &'t str, label: &str) -> &'t str {
    let value = text.lines().find_map(|line| line.strip_prefix(label));
    value.unwrap_or_else(|| panic!("no {label:?} in:\n{text}"))
}

/// Returns the digests of the config and of all layers.
pub fn blobs(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().expect("layers");
    let digest = |blob: &Value| blob["digest"].as_str().expect("a digest").to_owned();
    [&manifest["config"]].into_iter().chain(layers).map(digest).collect()
}

/// Returns the number and the words of each process of this cell, which has its own process numbers.
pub fn processes() -> Vec<(u32, Vec<String>)> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let processes = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let words = fs::read(entry.path().join("cmdline")).ok().filter(|words| !words.is_empty())?;
        Some((pid, String::from_utf8_lossy(&words).split('\0').map(str::to_owned).collect()))
    });
    processes.collect()
}
