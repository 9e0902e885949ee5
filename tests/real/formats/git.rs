//! Skills from Git in every release: by HTTP with and without a password, by ssh, and from a server that never answers.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{installed, receipt, text};
use crate::cell::{Done, World, cannot, matrix};
use crate::forms::{expected, skill};
use crate::git_server::{Access, mute, serve};
use crate::site::{Site, processes};

matrix! { @roots a_repository_comes_by_http, ctrl_c_ends_a_fetch_at_once }
// The roots are small.
matrix! { @cell sid_tools("sid", "root", None), a_repository_comes_by_ssh }

/// Who may ask, with a password that no other text here has in it.
const USER: &str = "user:t0psecret";
/// The same, as it is said.
const AUTHORIZATION: &str = "Basic dXNlcjp0MHBzZWNyZXQ=";

/// A repository with one skill, and another project that wants it.
struct Repo<'a> {
    world: &'a World,
    /// Where the repositories are.
    root: PathBuf,
    project: PathBuf,
}

impl<'a> Repo<'a> {
    fn new(world: &'a World) -> Self {
        if !fs::exists("/usr/bin/git").is_ok_and(|there| there) {
            cannot("no git: tests/setup test");
        }
        let (root, project) = (world.path("repos"), world.path("project"));
        let repo = Self { world, root, project };
        fs::create_dir_all(&repo.project).expect("a directory");
        for (path, content, mode) in skill("skills/hr/") {
            let path = repo.work().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(&path, content).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        }
        repo.git(&["init", "-q", "-b", "main"]);
        repo.commit("v1");
        repo
    }

    fn work(&self) -> PathBuf {
        self.root.join("acme/skills")
    }

    fn git(&self, args: &[&str]) -> String {
        let who = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-C"];
        let work = self.work();
        self.world.run("git", who.iter().chain(&[text(&work)]).chain(args)).ok()
    }

    fn commit(&self, tag: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", tag]);
        self.git(&["tag", tag]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs the program in the project.
    fn run(&self, args: &[&str]) -> Done {
        let mut command = self.world.command(env!("CARGO_BIN_EXE_skillctl"), args);
        command.current_dir(&self.project);
        let done = Done::of(command);
        assert!(!done.stdout.contains("t0psecret") && !done.stderr.contains("t0psecret"), "{done}");
        done
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.project.join(name)).expect("a file")).expect("JSON")
    }

    /// Builds, installs, adds and locks the skill at an address that is `shown` without credentials.
    fn works(&self, address: &str, shown: &str, name: &str) {
        let commit = self.git(&["rev-parse", "v1"]);
        let url = format!("{address}#v1:skills/hr");
        let reference = format!("acme/{name}:1.0.0");
        let built = self.run(&["build", &url, "--load=always", "-t", &reference, "--format", "json"]).json();
        let inspected = self.world.skillctl(["inspect", &reference, "--format", "json"]).json();
        let annotations = &inspected["annotations"];
        assert_eq!(built[0]["digest"], inspected["digest"]);
        assert_eq!(annotations["org.opencontainers.image.source"], json!(shown));
        assert_eq!(annotations["org.opencontainers.image.revision"], json!(commit));
        let mount = format!("type=image,source=localhost/{reference},destination=/skills/hr");
        self.world.in_agent(&["--mount", &mount], "/skills/hr/scripts/run.sh && test -s /skills/hr/SKILL.md").ok();

        let skills = self.world.path(&format!("skills-{name}"));
        self.run(&["install", &url, "-o", text(&skills)]).ok();
        assert_eq!(installed(&skills.join("hr")), expected(true));
        let image = receipt(&skills, "hr");
        assert_eq!(image["origin"], json!({"source": shown, "commit": commit, "path": "skills/hr"}));

        fs::write(self.project.join("skills.json"), r#"{"skills": []}"#).expect("a file");
        self.run(&["add", &url]).ok();
        assert_eq!(self.json("skills.json")["skills"][0]["source"], json!(shown));
        assert_eq!(
            self.json("skills.lock.json")["skills"][0]["origin"],
            json!({"source": shown, "ref": "v1", "commit": commit, "path": "skills/hr"})
        );
        self.absent();
        self.run(&["sync", "--locked"]).ok();
        self.present();
        self.run(&["sync", "--check"]).ok();
    }

    /// Removes what the project has, so that it has to be installed anew.
    fn absent(&self) {
        fs::remove_dir_all(self.project.join(".agents")).expect("a directory");
    }

    #[track_caller]
    fn present(&self) {
        assert_eq!(installed(&self.project.join(".agents/skills/hr")), expected(true));
    }

    /// Nothing that was written has the password in it, and nothing unfinished is left.
    fn tidy(&self) {
        let places = [self.world.path("."), self.world.store(), self.world.home()];
        let found =
            self.world.run("grep", ["-rlF", "t0psecret"].into_iter().chain(places.iter().map(|place| text(place))));
        assert_eq!((&*found.stdout, found.code), ("", 1), "{found}");
        let here = Site::here(self.world);
        here.tidy();
        here.whole();
    }
}

fn a_repository_comes_by_http(world: &World) {
    let repo = Repo::new(world);
    let open = serve(&repo.root, Access::Anyone);
    let closed = serve(&repo.root, Access::With(AUTHORIZATION));
    let [everyone, secret] = [&open, &closed].map(|address| format!("http://{address}/acme/skills/.git"));
    repo.works(&everyone, &everyone, "open");
    repo.works(&format!("http://{USER}@{closed}/acme/skills/.git"), &secret, "closed");
    repo.tidy();

    // Who has neither the skill nor a password is told so; a helper of git's has it.
    fs::remove_dir_all(world.store()).expect("a store");
    repo.absent();
    let refused = repo.run(&["sync", "--locked"]).refused(&[&secret], &["credentials"]);
    assert!(refused.contains("a helper can keep"), "{refused}");
    Site::here(world).tidy();
    for args in [&["build", &secret][..], &["install", &secret, "-o", "x"], &["add", &secret]] {
        repo.run(args).refused(&[&secret], &["credentials"]);
    }
    let wrong = format!("http://user:wr0ng@{closed}/acme/skills/.git");
    let error = repo.run(&["install", &wrong, "-o", "x"]).refused(&[&secret], &["credentials", "authentication"]);
    assert!(!error.contains("wr0ng"), "{error}");
    for (status, causes) in [(403, ["403", "denied"]), (404, ["404", "not found"]), (500, ["500", "internal"])] {
        let url = format!("http://{}/acme/skills/.git", serve(&repo.root, Access::Refused(status)));
        repo.run(&["install", &url, "-o", "x"]).refused(&[&url], &causes);
    }
    let kept = world.home().join("kept");
    fs::write(&kept, format!("http://{USER}@{closed}\n")).expect("a file");
    let helper = format!("[credential]\n\thelper = store --file {}\n", kept.display());
    fs::write(world.home().join(".gitconfig"), helper).expect("a file");
    repo.run(&["sync", "--locked"]).ok();
    repo.present();
    fs::remove_file(kept).expect("a file");
    repo.tidy();
}

/// An ssh server on loopback that lets in who has a key.
struct Sshd(Child);

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Sshd {
    /// Starts it, tells ssh of the key, and returns the port.
    fn start(world: &World) -> (Self, u16) {
        let dir = world.path("ssh");
        fs::create_dir_all(&dir).expect("a directory");
        let at = |name: &str| dir.join(name).display().to_string();
        for key in ["host", "user"] {
            world.run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]).ok();
        }
        fs::copy(at("user.pub"), at("authorized")).expect("a file");
        // sshd takes no port by itself, so this one is free a moment before.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("a port").port();
        let config = [
            format!("Port {port}\nListenAddress 127.0.0.1\nHostKey {}", at("host")),
            format!("AuthorizedKeysFile {}", at("authorized")),
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n".to_owned(),
        ];
        fs::write(at("config"), config.join("\n")).expect("a file");
        fs::create_dir_all("/run/sshd").expect("a directory");
        let mut command = world.command("/usr/sbin/sshd", ["-D", "-e", "-f", &at("config")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(at("log")).expect("a log"));
        let sshd = Self(command.spawn().expect("sshd"));
        let end = Instant::now() + Duration::from_secs(10);
        while !fs::read_to_string(at("log")).expect("a log").contains("Server listening") {
            assert!(Instant::now() < end, "{}", fs::read_to_string(at("log")).expect("a log"));
            thread::sleep(Duration::from_millis(10));
        }
        // For all users, since ssh looks for its own files where the account says, and not in $HOME.
        let client = format!("Host 127.0.0.1\n  IdentityFile {}\n  UserKnownHostsFile {}\n", at("user"), at("known"));
        fs::create_dir_all("/etc/ssh/ssh_config.d").expect("a directory");
        fs::write("/etc/ssh/ssh_config.d/test.conf", client).expect("a file");
        (sshd, port)
    }

    /// Tells ssh the key of the server.
    fn know(world: &World, port: u16) {
        let key = fs::read_to_string(world.path("ssh/host.pub")).expect("a key");
        fs::write(world.path("ssh/known"), format!("[127.0.0.1]:{port} {key}")).expect("a file");
    }
}

fn a_repository_comes_by_ssh(world: &World) {
    let repo = Repo::new(world);
    if !fs::exists("/usr/sbin/sshd").is_ok_and(|there| there) {
        cannot("no sshd: tests/setup test");
    }
    let (_sshd, port) = Sshd::start(world);
    let url = format!("ssh://root@127.0.0.1:{port}{}", repo.work().display());
    // Nobody can be asked whether the key is right.
    let error = repo.run(&["install", &url, "-o", "x"]).refused(&[&url], &["host key verification failed"]);
    assert!(error.contains("ssh root@127.0.0.1"), "{error}");
    Sshd::know(world, port);
    repo.works(&url, &url, "ssh");
    fs::remove_file(world.path("ssh/user")).expect("a file");
    let error = repo.run(&["build", &url]).refused(&[&url], &["permission denied"]);
    assert!(error.contains("your key"), "{error}");
    repo.tidy();
}

/// Within two seconds, on a machine that may be busy; no process and no file is left.
fn ctrl_c_ends_a_fetch_at_once(world: &World) {
    let repo = Repo::new(world);
    world.build("other", "1.0.0", &["--load=never"]);
    let (listener, address) = mute();
    let mut urls = vec![format!("http://{address}/acme/skills"), format!("git://{address}/acme/skills")];
    if fs::exists("/usr/bin/ssh").is_ok_and(|there| there) {
        urls.push(format!("ssh://root@{address}/acme/skills"));
    }
    for url in &urls {
        for args in [&["build", url][..], &["install", url, "-o", "out"], &["add", url]] {
            let mut command = world.command(env!("CARGO_BIN_EXE_skillctl"), args);
            command.current_dir(&repo.project);
            let done = Done::while_running(command, |child| {
                let (mut asked, _) = listener.accept().expect("a connection");
                // The first of its question is here, so it waits for an answer.
                asked.read_exact(&mut [0; 3]).expect("a question");
                assert!(child.try_wait().expect("a child").is_none(), "{args:?} has ended by itself");
                let started = Instant::now();
                kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGINT).expect("a signal");
                while child.try_wait().expect("a child").is_none() {
                    assert!(started.elapsed() < Duration::from_secs(2), "{args:?} still runs");
                    thread::sleep(Duration::from_millis(5));
                }
            });
            assert!(matches!(done.code, -1 | 130), "{done}");
            // What was told to end may be a moment at it.
            let started = Instant::now();
            loop {
                let asks = |words: &[String]| {
                    ["git", "ssh"].iter().any(|name| words[0].rsplit('/').next() == Some(name))
                        || words[0].contains("git-remote")
                };
                let left: Vec<_> = processes().into_iter().filter(|(_, words)| asks(words)).collect();
                if left.is_empty() {
                    break;
                }
                assert!(started.elapsed() < Duration::from_secs(1), "{args:?} left {left:?}");
                thread::sleep(Duration::from_millis(5));
            }
            Site::here(world).tidy();
            let made: Vec<_> =
                fs::read_dir(&repo.project).expect("a directory").flatten().map(|e| e.file_name()).collect();
            assert!(made.is_empty(), "{args:?} left {made:?}");
        }
    }
    Site::here(world).whole();
}
