//! The other programs: where they are, which versions, and how they do the same work.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// The Go tool as its authors release it.
const GO_SKILLCTL: &str = "github.com/redhat-et/skillimage/cmd/skillctl@v0.7.1";
/// How long `go install` may take, with a download of all its modules.
const GO_SECONDS: &str = "300";

/// Everything that exists for one run only, and the environment of all that are measured.
#[derive(Debug)]
pub struct World {
    tmp: TempDir,
    /// Elsewhere, because podman takes no run root whose path is longer than 50 characters.
    run: TempDir,
    /// The target directory of this build.
    pub target: PathBuf,
}

impl World {
    /// Makes a scratch directory on the filesystem of `target`: elsewhere making something durable may cost nothing.
    pub fn new(target: &Path) -> Result<Self> {
        let tmp = tempfile::Builder::new().prefix("bench-").tempdir_in(target)?;
        for name in ["home", "tmp"] {
            fs::create_dir(tmp.path().join(name))?;
        }
        Ok(Self { tmp, run: tempfile::tempdir()?, target: target.to_owned() })
    }

    /// Returns a path in the scratch directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.tmp.path().join(name)
    }

    /// Names a containers-storage, for which the first program that writes there makes the directories.
    pub fn storage(&self, name: &str, driver: &'static str) -> Storage {
        Storage { root: self.path(format!("{name}-{driver}")), run_root: self.run.path().join(name), driver }
    }

    /// Returns a command with nothing of the user's settings in its environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.path("home")).env("TMPDIR", self.path("tmp")).env("LC_ALL", "C");
        command.env("XDG_STATE_HOME", self.path("state"));
        for key in ["PATH", "XDG_RUNTIME_DIR"] {
            if let Some(value) = std::env::var_os(key) {
                command.env(key, value);
            }
        }
        command
    }

    /// Returns a shell that runs `script` with `args`.
    pub fn shell<S: AsRef<OsStr>>(&self, script: &str, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command("sh");
        command.args(["-ec", script, "sh"]).args(args);
        command
    }

    /// Returns our binary with a store.
    pub fn ours(&self, store: &Path) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_skillctl"));
        command.arg("--store").arg(store);
        command
    }

    /// Returns the Go tool; its store is `<data>/skillctl/store`. `None` where it cannot be had.
    pub fn go_skillctl(&self, data: &Path) -> Option<Command> {
        let dir = self.target.join("bench-go");
        let binary = dir.join("bin/skillctl");
        if !binary.exists() && installed("go") && !self.path("no-go-skillctl").exists() {
            let install = Command::new("timeout")
                .args([GO_SECONDS, "go", "install", "-modcacherw", GO_SKILLCTL])
                .env("GOBIN", dir.join("bin"))
                .env("GOPATH", dir.join("path"))
                .env("GOCACHE", dir.join("cache"))
                .output();
            if !install.is_ok_and(|output| output.status.success()) {
                // It is not tried again in this run.
                let _ = fs::write(self.path("no-go-skillctl"), "");
            }
        }
        let mut command = self.command(&binary);
        command.env("XDG_DATA_HOME", data);
        binary.exists().then_some(command)
    }

    /// Returns `buildah` building the skill in `context`, in the storage below `at`.
    pub fn buildah(&self, context: &Path, at: &Storage) -> Option<Command> {
        let file = self.path("Containerfile");
        fs::write(&file, "FROM scratch\nCOPY . /\n").ok()?;
        let mut command = self.command("buildah");
        command.args(at.flags());
        command.args(["build", "--isolation", "chroot", "--no-cache", "--layers=false", "-t", "localhost/bench/peer"]);
        command.arg("-f").arg(file).arg(context);
        installed("buildah").then_some(command)
    }

    /// Returns cosign 3: the one that is installed, or that of the tests.
    pub fn cosign(&self) -> Option<Command> {
        let roots = std::env::var_os("SKILLCTL_TEST_ROOTS").unwrap_or_else(|| "/var/cache/skillctl-tests".into());
        let candidates = ["cosign".into(), Path::new(&roots).join("go/bin/cosign3")];
        let is_3 = |program: &PathBuf| {
            let said = must(self.command(program).arg("version")).unwrap_or_default();
            said.lines().any(|line| line.starts_with("GitVersion:") && line.contains("v3."))
        };
        candidates.into_iter().find(is_3).map(|program| self.command(program))
    }

    /// Returns `umoci` making an image of the skill in `dir`, in a layout of its own.
    pub fn umoci(&self, dir: &Path, layout: &Path) -> Option<Command> {
        if !installed("umoci") {
            return None;
        }
        if !layout.exists() {
            self.command("umoci").arg("init").arg("--layout").arg(layout).status().ok()?;
        }
        let rootless = if nix::unistd::geteuid().is_root() { "" } else { "--rootless" };
        let script = format!("umoci new --image \"$1:i\"; umoci insert {rootless} --image \"$1:i\" \"$2\" /");
        Some(self.shell(&script, [layout, dir]))
    }
}

/// A containers-storage of this run.
#[derive(Debug)]
pub struct Storage {
    root: PathBuf,
    run_root: PathBuf,
    driver: &'static str,
}

impl Storage {
    /// Returns where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the name of the driver.
    pub fn driver(&self) -> &'static str {
        self.driver
    }

    /// Returns the flags of podman, buildah and ours.
    pub fn flags(&self) -> Vec<String> {
        let (root, run_root) = (self.root.display(), self.run_root.display());
        vec![format!("--root={root}"), format!("--runroot={run_root}"), format!("--storage-driver={}", self.driver)]
    }

    /// Returns the name of an image for skopeo.
    pub fn reference(&self, name: &str) -> String {
        format!("containers-storage:[{}@{}+{}]{name}", self.driver, self.root.display(), self.run_root.display())
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // overlay mounts its directory on itself, and rootless its files belong to other users; what stays is in target/.
        let quiet = |command: &mut Command| {
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        };
        quiet(Command::new("umount").arg("-l").arg(self.root.join("overlay")));
        if fs::remove_dir_all(&self.root).is_err() && !nix::unistd::geteuid().is_root() {
            quiet(Command::new("podman").args(["unshare", "rm", "-rf"]).arg(&self.root));
        }
    }
}

/// Returns whether a program is in `PATH`.
pub fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Runs a command that is not measured, and returns what it printed.
pub fn must(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| name.clone())?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}", words.lines().last().unwrap_or_default());
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns the lines that say on what and with what was measured.
pub fn header(world: &World) -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let filesystem = must(world.command("stat").args(["-f", "-c", "%T"]).arg(world.path(""))).unwrap_or_default();
    let load = read("/proc/loadavg");
    let mut lines = vec![
        format!("kernel {}, {} × {}", read("/proc/sys/kernel/osrelease").trim(), cores, cpu.map_or("?", |c| c.1)),
        format!("filesystem {}, load average before {}", filesystem.trim(), load.split(' ').next().unwrap_or("?")),
    ];
    let tools = [
        (env!("CARGO_BIN_EXE_skillctl"), "--version"),
        ("podman", "--version"),
        ("skopeo", "--version"),
        ("buildah", "--version"),
        ("umoci", "--version"),
        ("tar", "--version"),
        ("gzip", "--version"),
        ("libdeflate-gzip", "-V"),
        ("sha256sum", "--version"),
        ("go", "version"),
    ];
    let versions = tools.map(|(program, flag)| {
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let printed = must(world.command(program).arg(flag)).unwrap_or_default();
        // libdeflate-gzip calls itself "gzip compression program".
        let line = printed.lines().next().map_or_else(|| "not installed".to_owned(), str::to_owned);
        if line.contains(&name) { line } else { format!("{name}: {line}") }
    });
    lines.extend(versions);
    let cosign = world.cosign().and_then(|mut cosign| must(cosign.arg("version")).ok()).unwrap_or_default();
    let cosign = cosign.lines().find_map(|line| line.strip_prefix("GitVersion:")).unwrap_or("not installed").trim();
    lines.push(format!("cosign: {cosign}"));
    let go = world.go_skillctl(&world.path("")).map_or("not installed", |_| GO_SKILLCTL);
    lines.push(format!("Go skillctl: {go}"));
    lines
}
