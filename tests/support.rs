//! A scratch world for one test: a store, a home directory and nothing from the host's environment.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{fmt, fs};

use tempfile::TempDir;

/// What a command printed, for assertions that show all of it when they fail.
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
    pub status: Option<i32>,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}--- stderr ---\n{}[exit status: {:?}]", self.stdout, self.stderr, self.status)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            status: output.status.code(),
        }
    }
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, Some(0), "{self}");
        self
    }

    #[track_caller]
    pub fn fails(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{self}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self}"))
    }
}

/// A directory with everything that a test needs in it.
pub struct World {
    pub tmp: TempDir,
}

impl World {
    pub fn new() -> Self {
        let world = Self { tmp: tempfile::tempdir().unwrap() };
        fs::create_dir(world.path("home")).unwrap();
        world
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.tmp.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// The binary with an environment of its own: no podman or skopeo is found, and no user's files are read.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_skillctl"), args)
    }

    /// The same of another program of ours.
    pub fn command_of<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", self.path("no-programs"))
            .env("SKILLCTL_STORE", self.store())
            .env("XDG_STATE_HOME", self.path("state"))
            .current_dir(self.tmp.path())
            .stdin(Stdio::null())
            .args(args);
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// Writes a file, making its directories.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes a valid skill of one script into the directory `name`, which is also its name.
    pub fn skill(&self, name: &str, version: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        self.write(
            &format!("{name}/SKILL.md"),
            format!("---\nname: {name}\ndescription: Does {name}.\n---\n\nOne two three.\n"),
        );
        self.write(
            &format!("{name}/skill.yaml"),
            format!(
                "apiVersion: skillimage.io/v1alpha1\nkind: SkillCard\nmetadata:\n  name: {name}\n  namespace: acme\n  version: {version}\n  description: Does {name}.\n  license: Apache-2.0\n"
            ),
        );
        let script = format!("{name}/scripts/run.sh");
        self.write(&script, "#!/bin/sh\necho run\n");
        fs::set_permissions(self.path(script), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Gives a skill another version, and leaves the rest as it is.
    pub fn skill_version(&self, name: &str, version: &str) {
        let card = self.path(name).join("skill.yaml");
        let text = fs::read_to_string(&card).unwrap();
        let line = text.lines().find(|line| line.starts_with("  version: ")).unwrap();
        fs::write(&card, text.replace(line, &format!("  version: {version}"))).unwrap();
    }

    /// Builds into the store only.
    #[track_caller]
    pub fn build(&self, name: &str) -> Ran {
        self.run(["build", name, "--load=never"]).ok()
    }

    /// Extracts a fixture.
    pub fn extract(&self, fixture: &str, to: &str) {
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture);
        let target = self.path(to);
        fs::create_dir_all(&target).unwrap();
        let reader = flate2::read::GzDecoder::new(fs::File::open(archive).unwrap());
        tar::Archive::new(reader).unpack(target).unwrap();
    }
}
