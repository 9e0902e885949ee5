//! Where scenarios run: the cells of the matrix, and what a scenario finds in one.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// One cell: a release, a user, a storage driver.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// Its name, as in the names of tests.
    pub name: &'static str,
    /// `host`, or a release's root.
    pub root: &'static str,
    /// `root` or `rootless`.
    pub user: &'static str,
    /// The driver asked for; without one, what podman takes by itself (Debian 12 rootless: vfs).
    pub driver: Option<&'static str>,
}

/// Makes each scenario a test in each cell, with `@roots` in each release as root, or with `@cell` in one that it names.
macro_rules! matrix {
    (@roots $($scenario:ident),* $(,)?) => {
        $crate::cell::matrix! { @cell host_root("host", "root", None), $($scenario),* }
        $crate::cell::matrix! { @cell trixie_root("trixie", "root", None), $($scenario),* }
        $crate::cell::matrix! { @cell sid_root("sid", "root", None), $($scenario),* }
    };
    ($($scenario:ident),* $(,)?) => {
        $crate::cell::matrix! { @cell host_root("host", "root", None), $($scenario),* }
        $crate::cell::matrix! { @cell host_rootless("host", "rootless", None), $($scenario),* }
        $crate::cell::matrix! { @cell host_rootless_overlay("host", "rootless", Some("overlay")), $($scenario),* }
        $crate::cell::matrix! { @cell trixie_root("trixie", "root", None), $($scenario),* }
        $crate::cell::matrix! { @cell trixie_rootless("trixie", "rootless", None), $($scenario),* }
        $crate::cell::matrix! { @cell sid_root("sid", "root", None), $($scenario),* }
        $crate::cell::matrix! { @cell sid_rootless("sid", "rootless", None), $($scenario),* }
    };
    (@cell $cell:ident($root:literal, $user:literal, $driver:expr), $($scenario:ident),* $(,)?) => {
        mod $cell {
            use $crate::cell::{Cell, run};
            const CELL: Cell = Cell { name: stringify!($cell), root: $root, user: $user, driver: $driver };
            $(
                #[test]
                #[ignore = "needs podman and skopeo: make test"]
                fn $scenario() {
                    run(CELL, concat!(module_path!(), "::", stringify!($scenario)), super::$scenario);
                }
            )*
        }
    };
}
pub(crate) use matrix;

/// Says which cell this process is in.
const INSIDE: &str = "SKILLCTL_TEST_CELL";
/// What a cell that cannot be had here exits with.
const SKIPPED: i32 = 77;

/// Runs a scenario in its cell, or enters the cell and runs it there.
pub fn run(cell: Cell, test: &str, scenario: fn(&World)) {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == cell.name) {
        let world = World::new(cell);
        scenario(&world);
        world.system_check();
    } else {
        enter(cell, test.split_once("::").expect("a module path").1);
    }
}

fn enter(cell: Cell, test: &str) {
    let exe = std::env::current_exe().expect("this binary");
    let skillctl = Path::new(env!("CARGO_BIN_EXE_skillctl"));
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/enter"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SKILLCTL_")) {
        if name != "SKILLCTL_TEST_ROOTS" && name != "SKILLCTL_TEST_LONG" {
            command.env_remove(name);
        }
    }
    command.env(INSIDE, cell.name).args(["--root", cell.root, "--user", cell.user]);
    command
        .arg("--bind")
        .arg(exe.parent().expect("a directory"))
        .arg("--bind")
        .arg(skillctl.parent().expect("a directory"));
    command.arg("--").arg(&exe).args([test, "--exact", "--ignored", "--nocapture"]);
    let done = Done::of(command);
    if done.code == SKIPPED {
        skip(test, done.stderr.lines().last().unwrap_or("no reason given"));
    } else {
        assert!(done.code == 0 && done.stdout.contains("test result: ok. 1 passed"), "{done}");
    }
}

/// Ends a test, inside its cell, that cannot be had here; it counts as skipped.
pub fn cannot(reason: &str) -> ! {
    // The last line of stderr is the reason that `enter` reports.
    writeln!(std::io::stderr(), "{reason}").expect("stderr");
    std::process::exit(SKIPPED)
}

/// Ends the test where `tests/setup` could not build a program.
pub fn needs(program: &str) {
    let path = Path::new("/usr/local/bin").join(program);
    if !path.exists() {
        let why = fs::read_to_string(path.with_extension("missing")).unwrap_or_else(|_| "tests/setup test".to_owned());
        cannot(&format!("no {program}: {}", why.trim()));
    }
}

/// Counts a test as skipped, where `tests/run` and a reader see it.
fn skip(test: &str, reason: &str) {
    let line = format!("{test}: {reason}\n");
    let log = std::env::var_os("SKILLCTL_SKIP_LOG").unwrap_or_else(|| "/dev/stderr".into());
    let mut log = OpenOptions::new().append(true).open(log).expect("the skip log");
    log.write_all(line.as_bytes()).expect("the skip log");
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    /// The command, as typed.
    pub command: String,
    /// Exit status; -1 for a signal.
    pub code: i32,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "$ {}", self.command)?;
        // Indented, so that the words of a test run inside are not taken for those of the run that prints this.
        for line in self.stdout.lines().chain(self.stderr.lines()) {
            writeln!(f, "  {line}")?;
        }
        write!(f, "(exit status {})", self.code)
    }
}

impl Done {
    /// Runs a command to its end.
    pub fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::while_running(command, |_| ())
    }

    /// Starts a command, does something meanwhile, and waits for the command's end. Stdin is what the command says.
    pub fn while_running(mut command: Command, work: impl FnOnce(&mut Child)) -> Self {
        let shown = [command.get_program()].into_iter().chain(command.get_args()).map(OsStr::to_string_lossy);
        let shown = shown.collect::<Vec<_>>().join(" ");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("{shown}: {e}"));
        work(&mut child);
        let output = child.wait_with_output().unwrap_or_else(|e| panic!("{shown}: {e}"));
        Self {
            command: shown,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Returns stdout without the last newline; the command must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "{self}");
        self.stdout.trim_end().to_owned()
    }

    /// Returns stdout as JSON; the command must have succeeded.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Returns stderr; the command must have failed with this status.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert!(self.code == code, "expected exit status {code}\n{self}");
        self.stderr
    }

    /// Returns the error; it must be one line that names all of `named` and one of `causes`, with one hint at most, and exit 2.
    #[track_caller]
    pub fn refused(self, named: &[&str], causes: &[&str]) -> String {
        assert!(self.code == 2, "expected exit status 2\n{self}");
        let (errors, others): (Vec<_>, Vec<_>) = self.stderr.lines().partition(|line| line.starts_with("error: "));
        assert!(errors.len() == 1 && others.len() <= 1, "one error and one hint at most\n{self}");
        assert!(others.iter().all(|line| line.starts_with("hint: ")), "one error and one hint at most\n{self}");
        assert!(named.iter().all(|name| errors[0].contains(name)), "{named:?} are not all in it\n{self}");
        let lower = self.stderr.to_lowercase();
        assert!(causes.is_empty() || causes.iter().any(|cause| lower.contains(cause)), "none of {causes:?}\n{self}");
        self.stderr
    }
}

/// A skill that was built: what the store says it is.
#[derive(Debug)]
pub struct Built {
    /// Its name in containers-storage.
    pub name: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Digest of the config, without the algorithm: the image ID.
    pub id: String,
    /// The manifest.
    pub manifest: Value,
    /// The config.
    pub config: Value,
}

/// The inside of a cell: empty storage, an empty store, a scratch directory.
#[derive(Debug)]
pub struct World {
    cell: Cell,
    scratch: tempfile::TempDir,
}

impl World {
    fn new(cell: Cell) -> Self {
        Self { cell, scratch: tempfile::tempdir().expect("a scratch directory") }
    }

    /// Runs a program.
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Done {
        Done::of(self.command(program, args))
    }

    /// Returns a command as [`Self::run`] would run it, for scenarios that change its environment or kill it.
    pub fn command<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.scratch.path());
        if let Some(driver) = self.cell.driver {
            command.env("STORAGE_DRIVER", driver);
        }
        command
    }

    /// Runs podman.
    pub fn podman<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Done {
        self.run("podman", args)
    }

    /// Runs skopeo.
    pub fn skopeo<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Done {
        self.run("skopeo", args)
    }

    /// Runs skillctl.
    pub fn skillctl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Done {
        self.run(env!("CARGO_BIN_EXE_skillctl"), args)
    }

    /// Returns a path in the scratch directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Returns the version of podman, such as (4, 3).
    pub fn podman_version(&self) -> (u32, u32) {
        let text = self.podman(["version", "--format", "{{.Client.Version}}"]).ok();
        let mut parts = text.split('.').map(|part| part.parse().expect("a number"));
        (parts.next().expect("a major version"), parts.next().expect("a minor version"))
    }

    /// Asks podman (5.2 and newer) whether its storage is sound.
    pub fn system_check(&self) {
        if self.podman_version() >= (5, 2) {
            let done = self.podman(["system", "check"]);
            assert!(done.code == 0 && !done.stdout.contains("damage"), "{done}");
        }
    }

    /// Writes a skill `acme/<name>` with a script, and returns its directory.
    pub fn skill(&self, name: &str, version: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(dir.join("scripts")).expect("a directory");
        let card = format!(
            "apiVersion: skillimage.io/v1alpha1\nkind: SkillCard\nmetadata:\n  name: {name}\n  namespace: acme\n  version: {version}\n  \
             description: A skill for the tests.\n  license: Apache-2.0\nspec:\n  prompt: SKILL.md\n"
        );
        let prompt = format!(
            "---\nname: {name}\ndescription: A skill for the tests.\nlicense: Apache-2.0\n---\n# The {name} skill, {version}\n"
        );
        fs::write(dir.join("skill.yaml"), card).expect("a card");
        fs::write(dir.join("SKILL.md"), prompt).expect("a prompt");
        let script = dir.join("scripts/greet.sh");
        fs::write(&script, format!("#!/bin/sh\necho \"{name} {version} was here\"\n")).expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("an executable");
        dir
    }

    /// Adds files to a skill that do not compress, so that its layer is about `count` × `size` bytes.
    pub fn noise(&self, name: &str, count: usize, size: usize, seed: u32) {
        let dir = self.path(name).join("assets");
        fs::create_dir_all(&dir).expect("a directory");
        let mut state = seed.wrapping_add(1);
        for file in 0..count {
            let noise = std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            });
            fs::write(dir.join(format!("{file}.bin")), noise.take(size).collect::<Vec<_>>()).expect("a file");
        }
    }

    /// Builds the skill `acme/<name>` with extra flags, and returns what the store says of it.
    #[track_caller]
    pub fn build(&self, name: &str, version: &str, flags: &[&str]) -> Built {
        let dir = self.skill(name, version);
        let args = ["build".as_ref(), dir.as_os_str()].into_iter().chain(flags.iter().map(OsStr::new));
        let text = self.skillctl(args).ok();
        let field = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)).and_then(|rest| rest.split_whitespace().next())
        };
        let digest = field("Digest: ").unwrap_or_else(|| panic!("no Digest: in {text}"));
        let name = field("Reference: ").unwrap_or_else(|| panic!("no Reference: in {text}"));
        self.stored(name, digest)
    }

    /// Reads an image from the store, as any reader of OCI layouts would.
    pub fn stored(&self, name: &str, digest: &str) -> Built {
        let manifest: Value = serde_json::from_slice(&self.blob(digest)).expect("a manifest");
        let config = manifest["config"]["digest"].as_str().expect("a config").to_owned();
        Built {
            name: name.to_owned(),
            digest: digest.to_owned(),
            id: config.trim_start_matches("sha256:").to_owned(),
            config: serde_json::from_slice(&self.blob(&config)).expect("a config"),
            manifest,
        }
    }

    /// Reads a blob of the store.
    pub fn blob(&self, digest: &str) -> Vec<u8> {
        let path = self.store().join("blobs").join(digest.replace(':', "/"));
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Returns where the store is by default.
    pub fn store(&self) -> PathBuf {
        match self.cell.user {
            "root" => PathBuf::from("/var/lib/skillctl/store"),
            _ => self.home().join(".local/share/skillctl/store"),
        }
    }

    /// Returns the root of the user's containers-storage.
    pub fn graph_root(&self) -> PathBuf {
        match self.cell.user {
            "root" => PathBuf::from("/var/lib/containers/storage"),
            _ => self.home().join(".local/share/containers/storage"),
        }
    }

    /// Returns the name of the cell.
    pub fn cell(&self) -> &'static str {
        self.cell.name
    }

    /// Returns whether the user is root.
    pub fn is_root(&self) -> bool {
        self.cell.user == "root"
    }

    /// Returns the home directory, scratch like everything else.
    pub fn home(&self) -> PathBuf {
        std::env::var_os("HOME").expect("HOME is set").into()
    }

    /// Makes the image that stands for an agent, with a shell, and returns its name.
    pub fn agent(&self) -> &'static str {
        const NAME: &str = "localhost/agent";
        let root = self.path("agent");
        if root.exists() {
            return NAME;
        }
        fs::create_dir_all(root.join("bin")).expect("a directory");
        fs::copy("/usr/bin/busybox", root.join("bin/busybox")).expect("busybox-static");
        for applet in ["sh", "cat", "find", "ls", "id", "sort", "stat", "touch", "mkdir", "test"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("a symlink");
        }
        let tar = self.path("agent.tar");
        self.run("tar", ["-C".as_ref(), root.as_os_str(), "-cf".as_ref(), tar.as_os_str(), ".".as_ref()]).ok();
        self.podman(["import".as_ref(), "-q".as_ref(), tar.as_os_str(), NAME.as_ref()]).ok();
        NAME
    }

    /// Runs a shell command in a container of the agent image.
    pub fn in_agent(&self, flags: &[&str], script: &str) -> Done {
        let shell = [self.agent(), "sh", "-c", script];
        self.podman(["run", "--rm", "--network", "none"].iter().chain(flags).chain(&shell))
    }
}
