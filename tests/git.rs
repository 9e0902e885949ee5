//! Git repositories as sources, with real ones that git serves from a directory or from loopback.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use skillctl::layer::{PackOptions, Selection, pack_tree};
use skillctl::limits::Limits;
use skillctl::process::{Cancel, Tools};
use skillctl::source::git::{Contents, Options, Repository, SkillPath, fetch};
use skillctl::source::{Filter, GitSource};
use tempfile::TempDir;

use crate::git_server::{Access, mute, serve};

/// A repository with a working directory, and a store beside it.
pub struct Repo {
    pub tmp: TempDir,
}

/// Returns the git to test with; says so where there is none.
pub fn has_git() -> bool {
    let found = Command::new("git").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: git is not installed");
    }
    found
}

impl Repo {
    pub fn new() -> Self {
        let repo = Self { tmp: tempfile::tempdir().unwrap() };
        fs::create_dir(repo.tmp.path().join("store")).unwrap();
        fs::create_dir(repo.work()).unwrap();
        repo.git(&["init", "-q", "-b", "main"]);
        repo.git(&["config", "uploadpack.allowAnySHA1InWant", "false"]);
        repo
    }

    fn work(&self) -> PathBuf {
        self.tmp.path().join("repo")
    }

    fn git(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgSign=false"])
            .args(["-c", "gc.auto=0", "-c", "core.hooksPath=/dev/null"])
            .args(args)
            .current_dir(self.work())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        command
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.work().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn skill(&self, path: &str, name: &str) {
        let path = if path.is_empty() { "SKILL.md".to_owned() } else { format!("{path}/SKILL.md") };
        self.write(&path, &format!("---\nname: {name}\ndescription: Does {name}.\n---\n\nText.\n"));
    }

    pub fn commit(&self) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "m"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn url(&self) -> String {
        format!("file://{}", self.work().display())
    }

    fn source(&self, rest: &str) -> GitSource {
        GitSource::parse(&format!("{}{rest}", self.url())).unwrap().unwrap()
    }

    pub fn store(&self) -> (Dir, PathBuf) {
        let path = self.tmp.path().join("store");
        (Dir::open_ambient_dir(&path, ambient_authority()).unwrap(), path)
    }

    fn fetch_source(&self, source: &GitSource) -> skillctl::error::Result<Repository> {
        let (dir, path) = self.store();
        fetch(&Tools::default(), (&dir, &path), source, &Options::default())
    }

    fn fetch(&self, rest: &str) -> skillctl::error::Result<Repository> {
        self.fetch_source(&self.source(rest))
    }

    fn tree(&self, repository: &Repository, skills: &[SkillPath]) -> skillctl::error::Result<Contents> {
        repository.tree(skills, tempfile::tempfile().unwrap(), Limits::default())
    }

    /// All of it in one step, for the tests of what is refused.
    fn read(&self) -> skillctl::error::Result<Contents> {
        let repository = self.fetch("")?;
        let skills = repository.skills("", &Filter::default())?;
        self.tree(&repository, &skills)
    }

    fn left_behind(&self) -> usize {
        fs::read_dir(self.tmp.path().join("store/.tmp")).map_or(0, Iterator::count)
    }
}

fn paths(skills: &[SkillPath]) -> Vec<&str> {
    skills.iter().map(|skill| skill.path.as_str()).collect()
}

fn text(contents: &Contents, skill: &str, path: &str) -> String {
    let mut text = String::new();
    contents.tree.below(skill).unwrap().open(path).unwrap().1.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn revisions_are_found() {
    if !has_git() {
        return;
    }
    let repo = Repo::new();
    repo.skill("a", "one");
    let first = repo.commit();
    repo.git(&["tag", "-a", "v1", "-m", "annotated"]);
    repo.git(&["branch", "feature/slashed/x"]);
    repo.git(&["tag", "both"]);
    repo.skill("a", "two");
    let second = repo.commit();
    repo.git(&["branch", "both"]);
    // Ends like the default branch.
    repo.git(&["branch", "old/main", &first]);
    repo.git(&["update-ref", "refs/pull/1/head", &first]);
    repo.skill("a", "three");
    let third = repo.commit();
    let cases = [
        ("", &third),
        ("#main", &third),
        ("#refs/heads/main", &third),
        ("#v1", &first),
        ("#refs/tags/v1", &first),
        ("#feature/slashed/x", &first),
        ("#both", &first),
        ("#refs/heads/both", &second),
        ("#pull/1/head", &first),
    ];
    for (rest, want) in cases {
        let repository = repo.fetch(rest).unwrap();
        assert_eq!(&repository.commit, want, "{rest}");
    }
    for hash in [&second[..], &second[..7], &second[..20], &first.to_ascii_uppercase(), &third] {
        let repository = repo.fetch(&format!("#{hash}")).unwrap();
        assert!(repository.commit.starts_with(&hash.to_ascii_lowercase()), "{hash}");
        let skills = repository.skills("a", &Filter::default()).unwrap();
        assert_eq!(skills[0].files(), 1);
    }
    for missing in ["nothing", "0000000", &"0".repeat(40), "v1x"] {
        let error = repo.fetch(&format!("#{missing}")).unwrap_err().to_string();
        assert_eq!(error, format!("{} has no branch, tag or commit {missing}", repo.url()));
    }
    let error = repo.fetch("#nothing").unwrap_err();
    assert_eq!(error.hint().unwrap(), format!("git ls-remote {} shows what there is", repo.url()));
    assert_eq!(repo.left_behind(), 0);
}

#[test]
fn what_a_browser_shows_is_split_where_a_branch_ends() {
    if !has_git() {
        return;
    }
    let repo = Repo::new();
    repo.skill("x/skill", "one");
    let first = repo.commit();
    repo.git(&["branch", "feature/one"]);
    repo.git(&["tag", "v1"]);
    let cases = [
        ("feature/one/x/skill", "feature/one", "x/skill"),
        ("main/x/skill", "main", "x/skill"),
        ("v1/x", "v1", "x"),
        (&*format!("{first}/x"), &*first, "x"),
        (&*format!("{}/x", &first[..8]), &first[..8], "x"),
    ];
    for (tree, reference, path) in cases {
        let mut source = repo.source("");
        source.tree = Some(tree.to_owned());
        let repository = repo.fetch_source(&source).unwrap();
        let got = (repository.source.reference.as_deref().unwrap(), repository.source.path.as_str());
        assert_eq!(got, (reference, path), "{tree}");
        assert_eq!(repository.commit, first);
    }
    let mut source = repo.source("");
    source.tree = Some("feature/two/x".into());
    let error = repo.fetch_source(&source).unwrap_err().to_string();
    assert_eq!(error, format!("{} has no branch, tag or commit feature", repo.url()));
}

#[test]
fn skills_are_found_in_hidden_directories_and_not_in_each_other() {
    if !has_git() {
        return;
    }
    let repo = Repo::new();
    for (path, name) in [
        ("skills/pdf", "pdf-tools"),
        ("skills/pdf/examples/inner", "inner"),
        (".claude/skills/hidden", "hidden"),
        ("node_modules/x", "foreign"),
        ("deep/a/b/c", "c"),
    ] {
        repo.skill(path, name);
    }
    repo.write("README.md", "no skill");
    repo.write("broken/SKILL.md", "---\n---");
    fs::create_dir(repo.work().join("linked")).unwrap();
    symlink("../skills/pdf/SKILL.md", repo.work().join("linked/SKILL.md")).unwrap();
    repo.commit();
    let repository = repo.fetch("").unwrap();
    let find = |path: &str, patterns: &[&str]| repository.skills(path, &Filter::parse(patterns).unwrap());
    let all = find("", &[]).unwrap();
    assert_eq!(paths(&all), [".claude/skills/hidden", "broken", "deep/a/b/c", "skills/pdf"]);
    assert_eq!(all[3].files(), 2);
    let cases: [(&str, &[&str], &[&str]); 7] = [
        ("skills", &[], &["skills/pdf"]),
        ("skills/pdf", &[], &["skills/pdf"]),
        ("skills/pdf/examples", &[], &["skills/pdf/examples/inner"]),
        (".claude", &[], &[".claude/skills/hidden"]),
        ("", &["pdf"], &["skills/pdf"]),
        ("", &["pdf-*", "c"], &["deep/a/b/c", "skills/pdf"]),
        ("", &["*"], &[".claude/skills/hidden", "broken", "deep/a/b/c", "skills/pdf"]),
    ];
    for (path, patterns, want) in cases {
        assert_eq!(paths(&find(path, patterns).unwrap()), want, "{path} {patterns:?}");
    }
    let at = format!("{} at {}", repo.url(), repository.commit);
    let error = find("", &["nothing"]).unwrap_err();
    assert_eq!(error.to_string(), format!("no skills matching \"nothing\" in {at}"));
    assert_eq!(error.hint().unwrap(), "there are broken, c, hidden, pdf-tools");
    for (path, want) in [
        ("linked", format!("no skills found in {at}/linked")),
        ("nowhere", format!("{at}/nowhere is no directory")),
        ("README.md", format!("{at}/README.md is no directory")),
        ("../x", format!("{} names the directory \"../x\", which leaves the repository", repo.url())),
    ] {
        assert_eq!(find(path, &[]).unwrap_err().to_string(), want);
    }
}

#[test]
fn contents_are_those_of_the_commit() {
    if !has_git() {
        return;
    }
    let repo = Repo::new();
    repo.skill("s", "s");
    repo.write("s/run.sh", "#!/bin/sh\n");
    fs::set_permissions(repo.work().join("s/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    repo.write("s/big", &"0123456789abcdef".repeat(10_000));
    repo.write("s/empty", "");
    repo.write("s/crlf", "a\r\nb\r\n");
    repo.write("s/model.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    symlink("run.sh", repo.work().join("s/link")).unwrap();
    repo.skill("other", "other");
    repo.commit();
    // The same layer as of the directory itself.
    let repository = repo.fetch("").unwrap();
    let skills = repository.skills("s", &Filter::default()).unwrap();
    let contents = repo.tree(&repository, &skills).unwrap();
    assert_eq!((&contents.left_out, &contents.lfs), (&Vec::new(), &vec!["s/model.bin".to_owned()]));
    let (mut from_git, mut from_dir) = (Vec::new(), Vec::new());
    let options = PackOptions::default();
    pack_tree(&contents.tree.below("s").unwrap(), &mut from_git, Selection::AsDirectory, &options).unwrap();
    let dir = Dir::open_ambient_dir(repo.work().join("s"), ambient_authority()).unwrap();
    skillctl::layer::pack(&dir, &mut from_dir, &options).unwrap();
    assert_eq!(from_git, from_dir);
    assert!(contents.tree.below("other").is_none(), "nobody asked for it");
    drop(repository);
    assert_eq!(repo.left_behind(), 0);
}

#[test]
fn a_repository_is_not_obeyed() {
    if !has_git() {
        return;
    }
    let repo = Repo::new();
    repo.skill("s", "s");
    repo.commit();
    let mark = repo.tmp.path().join("mark");
    let touch = format!("touch {}", mark.display());
    let ignored = "s/kept export-ignore\n* filter=evil diff=evil merge=evil\n*.txt eol=crlf ident\n";
    repo.write(".gitattributes", ignored);
    repo.write("s/.gitattributes", ignored);
    repo.write("s/kept", "kept");
    repo.write("s/a.txt", "$Id$\n");
    let url = format!("ext::sh -c {touch}");
    repo.write(".gitmodules", &format!("[submodule \"m\"]\n\tpath = s/module\n\turl = {url}\n\tupdate = !{touch}\n"));
    let commit = repo.git(&["rev-parse", "HEAD"]);
    repo.git(&["add", "-A"]);
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},s/module")]);
    repo.git(&["commit", "-q", "-m", "m"]);
    // The configuration and the hooks of the other side are its own.
    repo.git(&["config", "filter.evil.smudge", &touch]);
    let contents = repo.read().unwrap();
    assert_eq!(contents.left_out, ["s/module"]);
    assert_eq!((text(&contents, "s", "kept"), text(&contents, "s", "a.txt")), ("kept".into(), "$Id$\n".into()));
    assert!(!mark.exists());
}

#[test]
fn what_no_skill_can_have_is_refused() {
    if !has_git() {
        return;
    }
    let repo = Repo::new();
    repo.skill("s", "s");
    repo.commit();
    let hash = |content: &str| {
        repo.write("../blob", content);
        repo.git(&["hash-object", "-w", "../blob"])
    };
    let blob = hash("x");
    let skill = repo.git(&["rev-parse", "HEAD:s/SKILL.md"]);
    // Trees that `git add` would not make; a name stands for a tree in which there is a file.
    let tree = |name: &[u8], mode: &str, id: &str| {
        let raw = |entries: &[(&str, &[u8], &str)]| {
            let mut bytes = Vec::new();
            for (mode, name, id) in entries {
                bytes.extend_from_slice(mode.as_bytes());
                bytes.push(b' ');
                bytes.extend_from_slice(name);
                bytes.push(0);
                bytes.extend((0..20).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()));
            }
            fs::write(repo.tmp.path().join("tree"), &bytes).unwrap();
            repo.git(&["hash-object", "-w", "-t", "tree", "--literally", "../tree"])
        };
        let inner = raw(&[("100644", b"SKILL.md", &skill), (mode, name, id)]);
        let root = raw(&[("40000", b"s", &inner)]);
        let commit = repo.git(&["commit-tree", "-m", "m", &root]);
        repo.git(&["update-ref", "refs/heads/main", &commit]);
    };
    let inner = {
        repo.write("d/config", "[core]\n");
        repo.git(&["add", "d"]);
        repo.git(&["write-tree", "--prefix=d/"])
    };
    let git = "has the name of a directory that only git may write";
    let cases: [(&[u8], &str, &str, String); 12] = [
        (b".git", "40000", &inner, format!("s/.git/config {git}")),
        (b".GIT", "40000", &inner, format!("s/.GIT/config {git}")),
        (b"git~1", "100644", &blob, format!("s/git~1 {git}")),
        (b".git ", "100644", &blob, format!("s/.git  {git}")),
        (b".git::$INDEX_ALLOCATION", "100644", &blob, format!("s/.git::$INDEX_ALLOCATION {git}")),
        (".g\u{200c}it".as_bytes(), "100644", &blob, format!("s/.g\u{200c}it {git}")),
        (b"..", "100644", &blob, "s/.. leaves the skill".into()),
        (b"../../x", "100644", &blob, "s/../../x leaves the skill".into()),
        (b"a\xff", "100644", &blob, r"s/a\xff has a name that is not UTF-8".into()),
        (b".wh.x", "100644", &blob, "s/.wh.x is a whiteout, which deletes another file".into()),
        (b"SKILL.md", "100644", &blob, "s/SKILL.md is there twice".into()),
        (b"SKILL.md", "40000", &inner, "s/SKILL.md is in a file or a link".into()),
    ];
    for (name, mode, id, want) in cases {
        tree(name, mode, id);
        let got = repo.read().map(drop).unwrap_err().to_string();
        assert_eq!(got, want, "{}", name.escape_ascii());
    }
    for (target, want) in [
        ("../../../etc/passwd", "x -> ../../../etc/passwd leaves the skill"),
        ("/etc/passwd", "x -> /etc/passwd leaves the skill"),
        ("../SKILL.md", "x -> ../SKILL.md leaves the skill"),
        ("x", "x -> x leads in a circle"),
        ("missing", "x -> missing leads nowhere"),
    ] {
        tree(b"x", "120000", &hash(target));
        let contents = repo.read().unwrap();
        let skill = contents.tree.below("s").unwrap();
        let packed = pack_tree(&skill, Vec::new(), Selection::AsDirectory, &PackOptions::default());
        assert_eq!(packed.unwrap_err().to_string(), want);
        assert!(skill.open("x").is_none());
    }
    tree(b"x", "120000", &hash("a\0b"));
    assert_eq!(repo.read().map(drop).unwrap_err().to_string(), "s/x is a link to what is no name");
}

#[test]
fn limits_hold_before_anything_is_read() {
    if !has_git() {
        return;
    }
    let repo = Repo::new();
    repo.skill("s", "s");
    repo.write("s/big", &"x".repeat(100_000));
    repo.commit();
    let repository = repo.fetch("").unwrap();
    let skills = repository.skills("", &Filter::default()).unwrap();
    for (limits, want) in [
        (Limits { size: 99_999, ..Limits::default() }, "the size of all files exceeds the limit of 99999 bytes"),
        (Limits { entries: 1, ..Limits::default() }, "the number of entries exceeds the limit of 1"),
        (Limits { depth: 0, ..Limits::default() }, "the depth of s/SKILL.md exceeds the limit of 0"),
    ] {
        let error = repository.tree(&skills, tempfile::tempfile().unwrap(), limits).map(drop).unwrap_err();
        assert!(error.to_string().starts_with(want) || error.to_string().contains("exceeds"), "{error}");
        assert_eq!(error.to_string().split(" exceeds").next(), want.split(" exceeds").next());
    }
}

#[test]
fn hashes_may_be_sha256() {
    if !has_git() {
        return;
    }
    let repo = Repo { tmp: tempfile::tempdir().unwrap() };
    fs::create_dir(repo.tmp.path().join("store")).unwrap();
    fs::create_dir(repo.work()).unwrap();
    repo.git(&["init", "-q", "-b", "main", "--object-format=sha256"]);
    repo.skill("s", "s");
    let commit = repo.commit();
    for rest in ["", "#main", &format!("#{commit}"), &format!("#{}", &commit[..9])] {
        let repository = repo.fetch(rest).unwrap();
        assert_eq!((repository.commit.as_str(), commit.len()), (commit.as_str(), 64), "{rest}");
        let skills = repository.skills("", &Filter::default()).unwrap();
        assert!(text(&repo.tree(&repository, &skills).unwrap(), "s", "SKILL.md").contains("name: s"));
    }
}

#[test]
fn http_is_spoken_and_credentials_are_shown_to_nobody() {
    if !has_git() {
        return;
    }
    let repo = Repo::new();
    repo.skill("s", "s");
    let commit = repo.commit();
    // user:t0psecret
    let address = serve(repo.tmp.path(), Access::With("Basic dXNlcjp0MHBzZWNyZXQ="));
    let open = serve(repo.tmp.path(), Access::Anyone);
    let source = |text: String| GitSource::parse(&text).unwrap().unwrap();
    let secret = source(format!("http://user:t0psecret@{address}/repo/.git#main:s"));
    let repository = repo.fetch_source(&secret).unwrap();
    assert_eq!((repository.commit.as_str(), repository.source.path.as_str()), (commit.as_str(), "s"));
    assert_eq!(repository.source.to_string(), format!("http://{address}/repo/.git#main:s"));
    let skills = repository.skills("s", &Filter::default()).unwrap();
    assert!(text(&repo.tree(&repository, &skills).unwrap(), "s", "SKILL.md").contains("name: s"));
    let by_hash = source(format!("http://{open}/repo/.git#{commit}"));
    assert_eq!(repo.fetch_source(&by_hash).unwrap().commit, commit);
    // Nothing of it is written down, and no error shows it.
    let config = fs::read_dir(repo.tmp.path().join("store/.tmp"))
        .unwrap()
        .flatten()
        .map(|entry| fs::read_to_string(entry.path().join("config")).unwrap_or_default());
    assert!(!config.collect::<String>().contains("t0psecret"));
    let denied = serve(repo.tmp.path(), Access::Refused(401));
    let missing = serve(repo.tmp.path(), Access::Refused(404));
    for address in [&denied, &missing] {
        let source = source(format!("http://user:t0psecret@{address}/repo/.git"));
        let error = repo.fetch_source(&source).unwrap_err();
        let all = format!("{error} {:?} {error:?} {source:?}", error.hint());
        assert!(!all.contains("t0psecret") && !all.contains("user:"), "{all}");
        assert!(error.to_string().starts_with(&format!("http://{address}/repo/.git: git: ")), "{error}");
    }
    let error = repo.fetch_source(&source(format!("http://{denied}/repo/.git"))).unwrap_err();
    assert!(error.hint().unwrap().contains("asks for credentials"), "{error}");
}

#[test]
fn a_server_that_never_answers_is_left() {
    if !has_git() {
        return;
    }
    let repo = Repo::new();
    let (_listener, address) = mute();
    let (dir, path) = repo.store();
    let source = GitSource::parse(&format!("http://{address}/a/b")).unwrap().unwrap();
    let options = Options { silence: Duration::from_millis(500), ..Options::default() };
    let started = Instant::now();
    let error = fetch(&Tools::default(), (&dir, &path), &source, &options).unwrap_err().to_string();
    assert_eq!(error, format!("http://{address}/a/b: git: no headway for 0.5 s"));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(repo.left_behind(), 0);
}

#[test]
fn a_fetch_ends_when_asked_with_all_that_it_started() {
    if !has_git() {
        return;
    }
    let repo = Repo::new();
    let (_listener, address) = mute();
    let source = GitSource::parse(&format!("http://{address}/a/b")).unwrap().unwrap();
    let tools = Tools { cancel: Cancel::default(), ..Tools::default() };
    let (cancel, (dir, path)) = (tools.cancel.clone(), repo.store());
    let work = thread::spawn(move || fetch(&tools, (&dir, &path), &source, &Options::default()).map(drop));
    thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    cancel.cancel();
    assert_eq!(work.join().unwrap().unwrap_err().to_string(), "interrupted");
    assert!(asked.elapsed() < Duration::from_secs(3));
    let running = Command::new("ps").args(["-eo", "args"]).output();
    let running = running.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    assert!(!running.contains(&address), "{running}");
}

#[test]
fn git_that_is_not_there_is_named() {
    let repo = tempfile::tempdir().unwrap();
    let dir = Dir::open_ambient_dir(repo.path(), ambient_authority()).unwrap();
    let tools = Tools { git: "/nonexistent".into(), installer: Some("dnf install".into()), ..Tools::default() };
    let source = GitSource::parse("https://127.0.0.1/a/b").unwrap().unwrap();
    let error = fetch(&tools, (&dir, repo.path()), &source, &Options::default()).unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.hint().as_deref()),
        ("git is not installed", Some("dnf install git"))
    );
}

/// 100,000 files in 300 skills: also the measure of how much slower this is than a clone.
#[test]
#[ignore = "takes some ten seconds"]
fn a_hundred_thousand_files_are_read() {
    if !has_git() {
        return;
    }
    let repo = Repo::new();
    let mut import = String::from("commit refs/heads/main\ncommitter A <a@example.com> 0 +0000\ndata 1\nm\n");
    for at in 0..100_000 {
        let (skill, text) = (at % 300, format!("file {at}\n"));
        let name = if at < 300 { "SKILL.md".to_owned() } else { format!("d{}/f{at}", at % 7) };
        import += &format!("M 100644 inline s{skill}/{name}\ndata {}\n{text}\n", text.len());
    }
    let mut child = repo.command(&["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(import.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let started = Instant::now();
    let clone = repo.tmp.path().join("clone");
    repo.git(&["clone", "-q", "--depth=1", &repo.url(), &clone.to_string_lossy()]);
    let cloned = started.elapsed();
    let started = Instant::now();
    let repository = repo.fetch("").unwrap();
    let skills = repository.skills("", &Filter::default()).unwrap();
    let contents = repo.tree(&repository, &skills).unwrap();
    let read = started.elapsed();
    assert_eq!((skills.len(), skills.iter().map(SkillPath::files).sum::<usize>()), (300, 100_000));
    assert_eq!(text(&contents, "s99", "d4/f99999"), "file 99999\n");
    eprintln!("clone: {cloned:?}; fetch, list and read: {read:?}");
    assert!(read < cloned.mul_f64(1.2) + Duration::from_millis(5 * 300), "{read:?} against {cloned:?}");
}
