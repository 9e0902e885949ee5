//! Credentials in addresses of Git repositories: who gets them, and that no list of processes has them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread;

use skillctl::error::Result;
use skillctl::process::Tools;
use skillctl::source::GitSource;
use skillctl::source::git::{Options, Repository, fetch};

use crate::git::{Repo, has_git};
use crate::git_server::{Access, mute, serve};

/// user:t0psecret
const AUTHORIZATION: &str = "Basic dXNlcjp0MHBzZWNyZXQ=";

/// A repository, and a git that writes down how it and all that it starts are called.
struct Recorded {
    repo: Repo,
    commit: String,
}

impl Recorded {
    fn new() -> Self {
        let repo = Repo::new();
        repo.skill("s", "s");
        let commit = repo.commit();
        let recorded = Self { repo, commit };
        let at = |name: &str| recorded.path(name).display().to_string();
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" >> '{}'\nexport GIT_TRACE='{}' GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL='{}'\nexec git \"$@\"\n",
            at("called"),
            at("trace"),
            at("config"),
        );
        fs::write(at("git"), script).unwrap();
        fs::set_permissions(at("git"), fs::Permissions::from_mode(0o755)).unwrap();
        recorded.configure("");
        recorded
    }

    fn path(&self, name: &str) -> PathBuf {
        self.repo.tmp.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Writes what the user has configured.
    fn configure(&self, text: &str) {
        fs::write(self.path("config"), text).unwrap();
    }

    fn fetch(&self, url: &str) -> Result<Repository> {
        let (dir, path) = self.repo.store();
        let tools = Tools { git: self.path("git"), ..Tools::default() };
        let source = GitSource::parse(url).unwrap().unwrap();
        fetch(&tools, (&dir, &path), &source, &Options::default())
    }

    /// Fetches, and returns the arguments of all processes meanwhile that have `word` in them.
    fn fetch_watched(&self, url: &str, word: &str) -> (Result<Repository>, Vec<String>) {
        thread::scope(|scope| {
            let work = scope.spawn(|| self.fetch(url));
            let mut seen = Vec::new();
            while !work.is_finished() {
                let processes = fs::read_dir("/proc").unwrap().flatten();
                let arguments = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
                let arguments = arguments.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
                seen.extend(arguments.filter(|arguments| arguments.contains(word)));
            }
            (work.join().unwrap(), seen)
        })
    }
}

#[test]
fn credentials_are_in_the_arguments_of_no_process() {
    if !has_git() {
        return;
    }
    let recorded = Recorded::new();
    let cases = [
        ("user:t0psecret", AUTHORIZATION, &["t0psecret", "user:"][..]),
        // What a shell, printf or git could take for more than it is.
        (
            "us%20er%40x:t0p%27s%22%24ec%60ret%5Cn%3A%25s",
            "Basic dXMgZXJAeDp0MHAncyIkZWNgcmV0XG46JXM=",
            &["t0p%27s", "t0p's", "us%20er", "us er"],
        ),
        ("t0psecret:x", "Basic dDBwc2VjcmV0Ong=", &["t0psecret"]),
    ];
    for (user, authorization, secrets) in cases {
        let address = serve(recorded.repo.tmp.path(), Access::With(authorization));
        // The first digits of a hash: the server is asked by ls-remote as well.
        let url = format!("http://{user}@{address}/repo/.git#{}", &recorded.commit[..9]);
        let (repository, seen) = recorded.fetch_watched(&url, &address);
        assert_eq!(repository.unwrap().commit, recorded.commit, "{user}");
        let traced = recorded.read("trace");
        for text in seen.iter().chain([&recorded.read("called"), &traced]) {
            assert!(!secrets.iter().any(|secret| text.contains(secret)), "{text}");
        }
        assert!(seen.iter().any(|line| line.contains("fetch")), "{seen:?}");
        assert!(
            traced.contains(&format!("remote-http http://{address}/repo/.git")) && traced.contains("f get"),
            "{traced}"
        );
    }
}

#[test]
fn credentials_of_an_address_win_over_the_configuration() {
    if !has_git() {
        return;
    }
    let recorded = Recorded::new();
    let address = serve(recorded.repo.tmp.path(), Access::With(AUTHORIZATION));
    let asked = recorded.path("asked").display().to_string();
    let helper = |password: &str| {
        format!(
            "helper = \"!f() {{ echo $1 >> '{asked}'; cat >> '{asked}'; echo username=other; echo password={password}; }}; f\"\n"
        )
    };
    let elsewhere = format!("[url \"http://127.0.0.1:1/\"]\n\tinsteadOf = http://{address}/\n");
    let other = format!("[credential]\n\tusername = other\n\t{}", helper("wr0ng"));
    recorded.configure(&format!(
        "{other}[credential \"http://{address}/repo\"]\n\tusername = other\n\t{}{elsewhere}",
        helper("x")
    ));
    let url = format!("http://user:t0psecret@{address}/repo/.git");
    assert_eq!(recorded.fetch(&url).unwrap().commit, recorded.commit);
    // Neither asked, nor told what to keep; nor to forget what it has, where the address is wrong.
    assert!(recorded.fetch(&url.replace("t0psecret", "t0p")).is_err());
    assert_eq!(recorded.read("asked"), "");

    // A user alone, who may be a token, is whom the helpers are asked for.
    let address = serve(recorded.repo.tmp.path(), Access::With("Basic dDBwc2VjcmV0Ong="));
    let answer = format!("helper = \"!f() {{ echo $1 >> '{asked}'; cat >> '{asked}'; echo password=x; }}; f\"\n");
    recorded.configure(&format!("[credential]\n\tusername = other\n\t{answer}"));
    let (repository, seen) = recorded.fetch_watched(&format!("http://t0psecret@{address}/repo/.git"), &address);
    assert_eq!(repository.unwrap().commit, recorded.commit);
    let said = recorded.read("asked");
    assert!(said.starts_with("get\n") && said.contains("username=t0psecret\n") && !said.contains("other"), "{said}");
    for text in seen.into_iter().chain([recorded.read("called"), recorded.read("trace")]) {
        assert!(!text.contains("t0psecret"), "{text}");
    }
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    if !has_git() {
        return;
    }
    let recorded = Recorded::new();
    // It would take them.
    let other = serve(recorded.repo.tmp.path(), Access::With(AUTHORIZATION));
    let (listener, address) = mute();
    let to = other.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(std::result::Result::ok) {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(std::result::Result::ok);
            let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)) else { continue };
            let head = format!(
                "HTTP/1.1 302 X\r\nlocation: http://{to}{path}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(head.as_bytes());
        }
    });
    let error = recorded.fetch(&format!("http://user:t0psecret@{address}/repo/.git")).unwrap_err();
    assert!(error.hint().unwrap().contains("asks for credentials"), "{error}");
    // That it is the redirect that keeps them.
    let url = format!("http://user:t0psecret@{other}/repo/.git");
    assert_eq!(recorded.fetch(&url).unwrap().commit, recorded.commit);
}
