//! `build`, `install` and `add` from Git repositories, with real ones that git serves from a directory.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Ran, World};

/// A repository of two skills, at two commits, of which the first is tagged `v1`.
struct Repo {
    world: World,
}

const SKILL: &str = "---\nname: hr\ndescription: Helps.\nmetadata:\n  namespace: acme\n  version: 1.0.0\n---\nText.\n";

impl Repo {
    fn new() -> Self {
        let repo = Self { world: World::new() };
        repo.git(&["init", "-q", "-b", "main", "."]);
        repo.world.write("repo/skills/hr/SKILL.md", SKILL);
        repo.world.write("repo/skills/hr/run.sh", "#!/bin/sh\n");
        let script = repo.world.path("repo/skills/hr/run.sh");
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
        repo.world.write("repo/.claude/skills/legal/SKILL.md", SKILL.replace("name: hr", "name: legal"));
        repo.commit("v1");
        repo.world.write("repo/skills/hr/new.md", "new\n");
        repo.commit("v2");
        repo
    }

    fn git(&self, args: &[&str]) -> String {
        fs::create_dir_all(self.world.path("repo")).unwrap();
        let output = Command::new("git")
            .args(["-c", "user.name=A", "-c", "user.email=a@example.com"])
            .args(args)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .current_dir(self.world.path("repo"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, tag: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-qm", tag]);
        self.git(&["tag", tag]);
    }

    fn url(&self) -> String {
        format!("file://{}", self.world.path("repo").display())
    }

    /// The binary, with git in its `PATH` and nothing else that it would run.
    fn run(&self, args: &[&str]) -> Ran {
        let bin = self.world.path("bin");
        if !bin.exists() {
            fs::create_dir(&bin).unwrap();
            let git = Command::new("sh").args(["-c", "command -v git"]).output().unwrap();
            let git = String::from_utf8(git.stdout).unwrap();
            std::os::unix::fs::symlink(git.trim(), bin.join("git")).unwrap();
        }
        self.world.command(args).env("PATH", bin).output().unwrap().into()
    }
}

#[test]
fn the_skills_of_a_repository_are_built_from_a_commit() {
    let repo = Repo::new();
    let url = repo.url();
    let built = repo.run(&["build", &url, "--load=never"]).ok();
    let lines: Vec<&str> = built
        .stdout
        .lines()
        .filter(|line| !line.starts_with("  Digest: sha256:"))
        .filter(|line| !line.starts_with("  Reference: localhost/acme/"))
        .collect();
    let first = format!("Cloning {url}...");
    let last = format!("Built 2 skill(s) from {url}");
    assert_eq!(lines, [&first, "Building legal (1/2)...", "Building hr (2/2)...", "", &last], "{built}");
    let of = |name: &str| repo.run(&["inspect", name, "--format", "json"]).ok().json()["annotations"].clone();
    let annotations = of("acme/hr:1.0.0-draft");
    assert_eq!(annotations["org.opencontainers.image.source"], url);
    assert_eq!(annotations["org.opencontainers.image.revision"], repo.git(&["rev-parse", "HEAD"]));
    assert_eq!(annotations["io.skillimage.source.path"], "skills/hr");
    let text = repo.run(&["inspect", "acme/hr:1.0.0-draft"]).ok().stdout;
    let lines = format!("  Source:     {url}\n  Revision:   {}\n  Found in:", repo.git(&["rev-parse", "HEAD"]));
    assert!(text.contains(&lines), "{text}");

    // The same files are the same layer, whichever commit or directory they come from.
    let json = |args: &[&str]| repo.run(&[&["build", "--load=never", "--format", "json"], args].concat()).ok().json();
    let at_v1 = json(&[&format!("{url}#v1:skills/hr")]);
    let at_ref = json(&[&format!("{url}#:skills/hr"), "--ref", "v1"]);
    let filtered = json(&[&url, "--ref", "v1", "--filter", "h?"]);
    repo.git(&["checkout", "-q", "v1"]);
    let directory = json(&["repo/skills/hr"]);
    for other in [&at_v1[0], &at_ref[0], &filtered[0]] {
        assert_eq!(other["layer"], directory["layer"]);
    }
    let v1 = repo.git(&["rev-parse", "v1"]);
    let by_hash = json(&[&format!("{url}#{v1}:skills/hr")]);
    assert_eq!(by_hash[0]["digest"], at_v1[0]["digest"]);

    let wrong = repo.run(&["build", &format!("{url}#:wrong"), "--load=never"]).fails(2);
    assert!(
        wrong.stderr.ends_with("/wrong is no directory\nhint: its skills are in .claude/skills/legal, skills/hr\n"),
        "{wrong}"
    );
    let two = repo.run(&["build", &url, "--load=never", "--tag", "acme/x:1"]).fails(2);
    assert!(two.stderr.contains("has 2 skills, and --tag names one image"), "{two}");
    let none = repo.run(&["build", &url, "--filter", "x*"]).fails(2);
    assert!(none.stderr.contains("no skills matching \"x*\" in") && none.stderr.contains("hr, legal"), "{none}");
    let flag = repo.run(&["build", "repo/skills/hr", "--ref", "v1"]).fails(2);
    assert!(flag.stderr.contains("--ref is for Git repositories"), "{flag}");
    let flag = repo.run(&["build", "repo/skills/hr", "--filter", "h*"]).fails(2);
    assert!(flag.stderr.contains("--filter is for repositories, archives and sites"), "{flag}");
}

/// Whoever can add a directory to a repository could otherwise replace any skill beside it.
#[test]
fn two_skills_of_one_name_are_refused_unless_they_are_copies() {
    let repo = Repo::new();
    for (file, text) in [("SKILL.md", SKILL), ("run.sh", "#!/bin/sh\n"), ("new.md", "new\n")] {
        repo.world.write(&format!("repo/.claude/skills/hr/{file}"), text);
    }
    let script = repo.world.path("repo/.claude/skills/hr/run.sh");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    repo.commit("v3");
    repo.run(&["install", &repo.url(), "-o", "copies"]).ok();
    repo.world.write("repo/.claude/skills/hr/run.sh", "#!/bin/bash\n");
    repo.commit("v4");
    for verb in [&["build", "--load=never"][..], &["install", "-o", "out"]] {
        let ran = repo.run(&[verb, &[&repo.url()]].concat()).fails(2);
        assert!(ran.stderr.contains("has two skills called hr: .claude/skills/hr and skills/hr\nhint: "), "{ran}");
    }
    assert!(!repo.world.path("out").exists());
    repo.run(&["install", &format!("{}#:skills/hr", repo.url()), "-o", "out"]).ok();
}

/// A hint has names by strangers in it, too.
#[test]
fn a_name_in_a_repository_forges_no_line() {
    let repo = Repo::new();
    repo.world.write("repo/x\nDigest: sha256:00/SKILL.md", SKILL.replace("name: hr", "name: \"a\\nDigest: b\""));
    repo.commit("v3");
    let ran = repo.run(&["build", &repo.url(), "--load=never", "--filter", "none"]).fails(2);
    assert!(ran.stderr.contains("\nhint: there are "), "{ran}");
    assert!(!ran.stderr.lines().any(|line| line.starts_with("Digest:")), "{ran}");
}

#[test]
fn a_password_is_in_no_message_whatever_it_is_made_of() {
    let world = World::new();
    let urls = [
        "https://u:secret@127.0.0.1:1/a/b",
        "https://u:se/secret@127.0.0.1:1/a/b",
        "https://127.0.0.1:1/a/b?secret",
        "https://u:secret@127.0.0.1:1/.well-known/skills/",
        "https://u:se/secret@127.0.0.1:1/.well-known/skills/",
        "https://127.0.0.1:1/.well-known/skills/?secret",
    ];
    for url in urls {
        for verb in [&["build", "--load=never"][..], &["install", "-o", "out"], &["add"], &["inspect"]] {
            let ran = world.run([verb, &[url]].concat()).fails(2);
            assert!(ran.stderr.starts_with("error: ") && !format!("{ran}").contains("secret"), "{ran}");
        }
    }
}

#[test]
fn flags_that_would_be_ignored_are_refused_and_those_of_hints_exist() {
    let world = World::new();
    let zeros = "\0".repeat(65 << 20);
    world.write("hr.zip", zip(&[("SKILL.md", SKILL, 0o644), ("zeros", &zeros, 0o644)]));
    for source in ["./hr.zip", "https://127.0.0.1:1/.well-known/skills/"] {
        let with = world.run(["build", "--ref", "v1", source]).fails(2);
        assert!(with.stderr.contains("--ref is for Git repositories"), "{with}");
    }
    let bomb = world.run(["build", "./hr.zip", "--load=never"]).fails(2);
    assert!(bomb.stderr.ends_with("hint: raise it with --max-ratio\n"), "{bomb}");
    world.run(["build", "./hr.zip", "--load=never", "--max-ratio", "2000"]).ok();
}

#[test]
fn where_an_archive_is_on_this_machine_is_not_told() {
    let world = World::new();
    for name in ["a@b.zip", "plain.zip"] {
        world.write(name, zip(&[("hr/SKILL.md", SKILL, 0o644)]));
    }
    let build = |name: &str| world.run(["build", name, "--load=never", "--format", "json"]).ok().json();
    assert_eq!(build("./a@b.zip")[0]["digest"], build("./plain.zip")[0]["digest"]);
}

#[test]
fn a_fifo_is_no_archive_and_nobody_waits_for_it() {
    let world = World::new();
    let made = Command::new("mkfifo").arg(world.path("hr.zip")).status().unwrap();
    assert!(made.success());
    let ran = world.run(["install", "./hr.zip", "-o", "out"]).fails(2);
    assert!(ran.stderr.contains("./hr.zip is no regular file"), "{ran}");
}

#[test]
fn the_files_of_a_project_read_nothing_outside_of_it() {
    let world = World::new();
    world.write("other/hr/SKILL.md", SKILL);
    world.write("p/skills.json", r#"{"skills": [{"name": "hr", "source": "./../other/hr"}]}"#);
    let command = |at: &str| Ran::from(world.command(["sync"]).current_dir(world.path(at)).output().unwrap());
    let ran = command("p").fails(2);
    assert!(ran.stderr.contains("\"./../other/hr\" is no path in the project"), "{ran}");
    std::os::unix::fs::symlink("../other", world.path("p/link")).unwrap();
    world.write("p/skills.json", r#"{"skills": [{"name": "hr", "source": "./link/hr"}]}"#);
    let ran = command("p").fails(2);
    assert!(ran.stderr.contains("./link/hr: it leads out of the project"), "{ran}");
    assert!(!world.path("p/.agents").exists());
}

#[test]
fn a_directory_of_the_project_is_taken_as_it_is() {
    let world = World::new();
    for name in ["hr", "legal"] {
        world.write(&format!("p/skills/{name}/SKILL.md"), SKILL.replace("name: hr", &format!("name: {name}")));
    }
    let run = |args: &[&str]| Ran::from(world.command(args).current_dir(world.path("p")).output().unwrap());
    let lock = || fs::read_to_string(world.path("p/skills.lock.json")).unwrap();
    let installed = || fs::read_to_string(world.path("p/.agents/skills/hr/SKILL.md")).unwrap();
    run(&["add", "./skills/hr", "./skills/legal"]).ok();
    run(&["sync", "--check"]).ok();
    run(&["sync", "--locked"]).ok();
    let (before, changed) = (lock(), format!("{SKILL}More.\n"));
    world.write("p/skills/hr/SKILL.md", &changed);
    fs::remove_dir_all(world.path("p/.agents/skills/legal")).unwrap();

    let checked = run(&["sync", "--check"]).fails(1);
    assert!(checked.stdout.contains("✗ hr: ./skills/hr has changed: its content is sha256:"), "{checked}");
    let ran = run(&["sync", "--locked"]).fails(2);
    assert!(ran.stderr.contains("not up to date: hr: ./skills/hr has changed: its content is sha256:"), "{ran}");
    assert!(ran.stderr.contains("\nhint: skillctl sync takes what is there\n"), "{ran}");
    assert_eq!((lock(), installed()), (before.clone(), SKILL.to_owned()), "nothing was installed");

    run(&["sync"]).ok();
    assert_eq!(installed(), changed);
    assert!(world.path("p/.agents/skills/legal/SKILL.md").exists(), "what comes after is installed, too");
    assert_ne!(lock(), before);
    run(&["sync", "--check"]).ok();
    run(&["sync", "--locked"]).ok();
    // A store that knows nothing of it, as in CI.
    fs::remove_dir_all(world.store()).unwrap();
    run(&["sync", "--check"]).ok();
    assert!(!world.store().exists(), "whoever only asks gets no store");
    // What the user changed where it is installed is no more overwritten than before.
    world.write("p/.agents/skills/hr/SKILL.md", "mine");
    world.write("p/skills/hr/SKILL.md", SKILL);
    run(&["sync"]).fails(2);
    run(&["sync", "--force"]).ok();
    assert_eq!(installed(), SKILL);

    fs::remove_dir_all(world.path("p/skills/hr")).unwrap();
    let gone = run(&["sync", "--check"]).fails(1);
    assert!(gone.stdout.contains("✗ hr: ./skills/hr is no directory of a valid skill any more"), "{gone}");
}

#[test]
fn a_skill_that_is_not_valid_fails_alone() {
    let repo = Repo::new();
    repo.world.write("repo/skills/bad/SKILL.md", "---\n---");
    repo.commit("v3");
    let built = repo.run(&["build", &repo.url(), "--load=never"]).fails(1);
    assert!(built.stdout.contains("Built 2 skill(s)"), "{built}");
    assert!(
        built.stderr.contains("skills/bad/SKILL.md") && built.stderr.contains("1 skill(s) failed to build"),
        "{built}"
    );
    let installed = repo.run(&["install", &repo.url(), "-o", "out"]).fails(2);
    assert!(installed.stderr.contains("skills/bad"), "{installed}");
    assert!(!repo.world.path("out/hr").exists(), "nothing is half installed");
}

#[test]
fn what_is_installed_from_git_says_its_commit() {
    let repo = Repo::new();
    let (url, commit) = (repo.url(), repo.git(&["rev-parse", "v1"]));
    let text = format!("{url}#v1:skills/hr");
    let ran = repo.run(&["install", &text, "-o", "out"]).ok();
    assert!(ran.stdout.contains(&format!("Installed {text} to ")), "{ran}");
    let mode = fs::metadata(repo.world.path("out/hr/run.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    let card = fs::read_to_string(repo.world.path("out/hr/skill.yaml")).unwrap();
    for line in [format!("source: {url}"), format!("commit: {commit}"), "path: skills/hr".into()] {
        assert!(card.replace('"', "").contains(&line), "{card}");
    }
    let receipt: Value =
        serde_json::from_slice(&fs::read(repo.world.path("out/.skillimage/receipts/hr.json")).unwrap()).unwrap();
    assert_eq!(receipt["origin"], json!({"source": url, "commit": commit, "path": "skills/hr"}));
    let listed = repo.run(&["list", "--installed", "-o", "out", "--format", "json"]).ok().json();
    assert_eq!((&listed[0]["source"], &listed[0]["version"]), (&json!(url), &json!("1.0.0-draft")));
    assert!(repo.run(&["install", &text, "-o", "out"]).ok().stdout.starts_with("Already installed"));
    repo.run(&["list", "--installed", "-o", "out", "--verify"]).ok();

    // A later commit takes its place, and rollback goes back to the first.
    repo.run(&["install", &format!("{url}#v2:skills/hr"), "-o", "out"]).ok();
    assert!(repo.world.path("out/hr/new.md").exists());
    repo.run(&["rollback", "hr", "-o", "out"]).ok();
    assert!(!repo.world.path("out/hr/new.md").exists());
    assert_eq!(fs::read_to_string(repo.world.path("out/hr/skill.yaml")).unwrap(), card);
}

#[test]
fn a_project_locks_the_commit_of_a_skill() {
    let repo = Repo::new();
    let url = repo.url();
    let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(repo.world.path(name)).unwrap()).unwrap() };
    repo.world.write("skills.json", r#"{"skills": []}"#);
    repo.run(&["add", &format!("{url}#main:skills/hr")]).ok();
    let intent = json!({"skills": [{"name": "hr", "source": url, "path": "skills/hr", "version": "main"}]});
    assert_eq!(read("skills.json"), intent);
    let first = repo.git(&["rev-parse", "HEAD"]);
    let git = json!({"source": url, "ref": "main", "commit": first, "path": "skills/hr"});
    assert_eq!(read("skills.lock.json")["skills"][0]["origin"], git);
    repo.run(&["sync", "--check"]).ok();
    repo.run(&["sync", "--locked"]).ok();

    // The branch moves; what is locked stays, also for somebody whose store has nothing of it.
    repo.world.write("repo/skills/hr/later.md", "later\n");
    repo.commit("v3");
    fs::remove_dir_all(repo.world.path(".agents")).unwrap();
    fs::remove_dir_all(repo.world.store()).unwrap();
    let lock = fs::read(repo.world.path("skills.lock.json")).unwrap();
    repo.run(&["sync", "--locked"]).ok();
    assert!(repo.world.path(".agents/skills/hr/new.md").exists());
    assert!(!repo.world.path(".agents/skills/hr/later.md").exists());
    assert_eq!(fs::read(repo.world.path("skills.lock.json")).unwrap(), lock);
    repo.run(&["sync", "--check"]).ok();

    repo.run(&["update"]).ok();
    assert!(repo.world.path(".agents/skills/hr/later.md").exists());
    assert_eq!(read("skills.lock.json")["skills"][0]["origin"]["commit"], repo.git(&["rev-parse", "HEAD"]));
    repo.run(&["remove", "hr"]).ok();
    assert!(!repo.world.path(".agents/skills/hr").exists());
}

#[test]
fn sync_fetches_a_repository_once_for_all_of_its_skills() {
    let repo = Repo::new();
    let url = repo.url();
    let skill = |name: &str, path: &str| json!({"name": name, "source": url, "path": path});
    let wanted = json!({"skills": [skill("hr", "skills/hr"), skill("legal", ".claude/skills/legal")]});
    repo.world.write("skills.json", wanted.to_string());
    repo.run(&["version"]).ok();
    let git = fs::read_link(repo.world.path("bin/git")).unwrap();
    let log = repo.world.path("log");
    fs::remove_file(repo.world.path("bin/git")).unwrap();
    let script = format!("#!/bin/sh\necho \"$*\" >> {}\nexec {} \"$@\"\n", log.display(), git.display());
    repo.world.write("bin/git", script);
    fs::set_permissions(repo.world.path("bin/git"), fs::Permissions::from_mode(0o755)).unwrap();
    repo.run(&["sync"]).ok();
    let fetches = |log: &str| log.lines().filter(|line| line.contains(" fetch ")).count();
    assert_eq!(fetches(&fs::read_to_string(log).unwrap()), 1);
    assert!(repo.world.path(".agents/skills/legal/SKILL.md").exists());
}

#[test]
fn lock_files_of_other_tools_bring_their_git_repositories() {
    let repo = Repo::new();
    let url = repo.url();
    repo.world.write("skills.json", r#"{"skills": []}"#);
    let npx = json!({"version": 1, "skills": {"hr": {"source": url, "sourceType": "git", "sourceUrl": url, "ref": "v1",
        "skillPath": "skills/hr/SKILL.md", "computedHash": "0a"}}});
    repo.world.write("skills-lock.json", npx.to_string());
    repo.run(&["add", "--import", "skills-lock.json"]).ok();
    assert!(repo.world.path(".agents/skills/hr/run.sh").exists());
    assert!(!repo.world.path(".agents/skills/hr/new.md").exists(), "it is the commit of v1");
}

#[test]
fn a_collection_takes_skills_from_git_and_may_be_in_git() {
    let repo = Repo::new();
    let (url, commit) = (repo.url(), repo.git(&["rev-parse", "HEAD"]));
    let office = |members: &str| {
        format!("kind: SkillCollection\nmetadata:\n  name: office\n  version: 1.0.0\nskills:\n{members}")
    };
    let members = format!("  - {{source: '{url}#v1:skills/hr'}}\n  - {{name: legal, source: '{url}'}}\n");
    repo.world.write("office.yaml", office(&members));
    let ran = repo.run(&["collection", "install", "-f", "office.yaml", "-o", "out"]).ok();
    let lines = [
        "Installing collection \"office\" (2 skills)".to_owned(),
        format!("  {url}#v1:skills/hr (source)  cloning...  building...  installed"),
        "  legal (source)  cloning...  building...  installed".to_owned(),
        "Installed 2 skills".to_owned(),
    ];
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), lines, "{ran}");
    assert!(repo.world.path("out/legal/SKILL.md").exists() && !repo.world.path("out/hr/new.md").exists());
    let again = repo.run(&["collection", "install", "-f", "office.yaml", "-o", "out"]).ok();
    assert!(again.stdout.ends_with("Installed 0 skills, 2 up to date\n"), "{again}");
    // What nobody has signed is not taken where it has to be, and what is not asked for is not looked at.
    repo.world.write("empty", "");
    repo.run(&["key", "generate", "acme", "--passphrase-file", "empty"]).ok();
    repo.run(&["trust", "add", "--user", "acme/hr", "--key", "acme.pub"]).ok();
    repo.world.write("legal.yaml", office(&format!("  - {{name: legal, source: '{url}'}}\n")));
    repo.run(&["collection", "install", "-f", "legal.yaml", "-o", "legal"]).ok();
    let refused = repo.run(&["collection", "install", "-f", "office.yaml", "-o", "signed"]).fails(1);
    assert!(refused.stderr.contains("acme/hr:") && refused.stderr.contains("is not verified"), "{refused}");
    assert!(repo.world.path("signed/legal").exists() && !repo.world.path("signed/hr").exists());
    repo.run(&["trust", "remove", "--user", "acme/hr"]).ok();
    // One that fails keeps the other.
    repo.world
        .write("some.yaml", office(&format!("  - {{source: '{url}#v9'}}\n  - {{source: '{url}#v1:skills/hr'}}\n")));
    let some = repo.run(&["collection", "install", "-f", "some.yaml", "-o", "some"]).fails(2);
    assert!(repo.world.path("some/hr/SKILL.md").exists(), "{some}");
    assert!(some.stderr.contains("has no branch, tag or commit v9"), "{some}");

    // Two that are called alike do not replace each other.
    let twice = format!("  - {{source: '{url}#v1:skills/hr'}}\n  - {{source: '{url}#v2:skills/hr'}}\n");
    repo.world.write("twice.yaml", office(&twice));
    let ran = repo.run(&["collection", "install", "-f", "twice.yaml", "-o", "twice"]).fails(2);
    assert!(ran.stderr.contains("its skill hr is another one than that of the member"), "{ran}");
    assert!(!repo.world.path("twice/hr/new.md").exists(), "the first stays");

    repo.world.write("repo/sets/office.yaml", office(&members));
    repo.commit("v3");
    let text = format!("{url}#v3:sets/office.yaml");
    repo.run(&["collection", "install", &text, "-o", "from-git"]).ok();
    assert!(repo.world.path("from-git/hr/SKILL.md").exists());
    let none = repo.run(&["collection", "install", &format!("{url}#{commit}:sets/office.yaml"), "-o", "x"]).fails(2);
    assert!(none.stderr.contains("has no file \"sets/office.yaml\""), "{none}");
}

/// The mode of a link, whose text is where it leads.
const LINK: u32 = 0o120_777;

/// A zip archive of paths, texts and modes, as a library writes it that is not ours.
fn zip(entries: &[(&str, &str, u32)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (path, text, mode) in entries {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(*mode);
        if *mode == LINK {
            writer.add_symlink(*path, *text, options).unwrap();
            continue;
        }
        writer.start_file(*path, options).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn directories_and_archives_are_built_and_installed_alike() {
    let world = World::new();
    world.write("hr/SKILL.md", SKILL);
    world.write("hr/run.sh", "#!/bin/sh\n");
    fs::set_permissions(world.path("hr/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let files = [("SKILL.md", SKILL, 0o644), ("run.sh", "#!/bin/sh\n", 0o755)];
    world.write("flat.zip", zip(&files));
    world.write("around.zip", zip(&files.map(|(path, text, mode)| (&*format!("hr/{path}").leak(), text, mode))));
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all("hr-1.0.0", world.path("hr")).unwrap();
    world.write("hr.tar.gz", crate::foreign::tar_gz(tar));
    let build = |source: &str| world.run(["build", source, "--load=never", "--format", "json"]).ok().json();
    let layer = build("hr")["layer"].clone();
    for source in ["flat.zip", "around.zip", "./hr.tar.gz"] {
        assert_eq!(build(source)[0]["layer"], layer, "{source}");
    }
    for (at, source) in ["./hr", "./flat.zip", "around.zip", "hr.tar.gz"].into_iter().enumerate() {
        let out = format!("out-{at}");
        world.run(["install", source, "-o", &out]).ok();
        let mode = fs::metadata(world.path(&out).join("hr/run.sh")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{source}");
        assert!(world.run(["install", source, "-o", &out]).ok().stdout.starts_with("Already installed"), "{source}");
        world.run(["list", "--installed", "-o", &out, "--verify"]).ok();
    }
    for (name, entries, why) in [
        ("leaves.zip", &[("../x", "x", 0o644), ("SKILL.md", SKILL, 0o644)][..], "leaves"),
        ("link.zip", &[("SKILL.md", SKILL, 0o644), ("l", "../../etc/passwd", LINK)], "leaves the skill"),
        ("case.zip", &[("SKILL.md", SKILL, 0o644), ("a", "x", 0o644), ("A", "x", 0o644)], "only by case"),
        ("none.zip", &[("README.md", "x", 0o644)], "has no SKILL.md"),
    ] {
        world.write(name, zip(entries));
        let ran = world.run(["install", name, "-o", "bad"]).fails(2);
        assert!(ran.stderr.contains(why) && ran.stderr.contains(name), "{name}: {ran}");
        assert!(!world.path("bad/hr").exists());
    }
    world.write("page.zip", "<!DOCTYPE html>");
    let page = world.run(["build", "page.zip"]).fails(2);
    assert!(page.stderr.contains("page.zip is a page of HTML, which is not supported"), "{page}");
}

#[test]
fn what_was_probably_meant_is_said() {
    let world = World::new();
    world.write("skills/hr/SKILL.md", SKILL);
    for (args, hint) in [
        (&["install", "skills/hr", "-o", "out"][..], "hint: skillctl install ./skills/hr takes what is there"),
        (&["build", "skills"], "hint: there is a skill in hr: name its directory"),
        (&["build", "."], "hint: there is a skill in skills/hr: name its directory"),
    ] {
        let ran = world.run(args).fails(2);
        assert!(ran.stderr.contains(hint), "{ran}");
    }
}

#[test]
fn what_is_no_image_is_said_with_what_takes_it() {
    let world = World::new();
    world.write("hr/SKILL.md", SKILL);
    world.write("hr.zip", "x");
    let url = "https://git.example/acme/skills#v1:hr";
    for (text, what) in [("./hr", "a directory"), ("hr.zip", "a file"), (url, "a Git repository")] {
        for verb in ["convert", "pull", "inspect"] {
            let ran = world.run([verb, text]).fails(2);
            assert!(ran.stderr.contains(&format!(": an image is expected, and {text} is {what}\n")), "{ran}");
            assert!(ran.stderr.contains(&format!("hint: skillctl build {text} makes an image of it, and")), "{ran}");
        }
    }
    let secret = world.run(["inspect", "https://u:secret@git.example/acme/skills"]).fails(2);
    assert!(!secret.stderr.contains("secret"), "{secret}");
    let bare = world.run(["inspect", "hr"]).fails(2);
    assert!(bare.stderr.contains("hint: skillctl build ./hr makes an image of it"), "{bare}");
    let missing = world.run(["install", "missing.tar.gz", "-o", "out"]).fails(2);
    assert!(missing.stderr.contains(": there is no file missing.tar.gz, and no registry is in the name"), "{missing}");
    let missing = world.run(["install", "./missing.tar.gz", "-o", "out"]).fails(2);
    assert!(missing.stderr.contains("./missing.tar.gz: No such file or directory"), "{missing}");
}

#[test]
fn a_project_may_have_skills_of_its_own_files() {
    let world = World::new();
    world.write("skills.json", r#"{"skills": []}"#);
    world.write("mine/hr/SKILL.md", SKILL);
    world.run(["add", "./mine/hr"]).ok();
    let intent: Value = serde_json::from_slice(&fs::read(world.path("skills.json")).unwrap()).unwrap();
    assert_eq!(intent, json!({"skills": [{"name": "hr", "source": "./mine/hr"}]}));
    world.run(["sync", "--locked"]).ok();
    // What is there is what is installed.
    world.write("mine/hr/more.md", "more");
    world.run(["sync"]).ok();
    assert!(world.path(".agents/skills/hr/more.md").exists());
    // Somebody else may have written the file.
    for (source, why) in [("./../x", "is no path in the project"), ("./out", "leads out of the project")] {
        std::os::unix::fs::symlink("/etc", world.path("out")).ok();
        let text = json!({"skills": [{"name": "hr", "source": source}]}).to_string();
        world.write("skills.json", text);
        let ran = world.run(["sync"]).fails(2);
        assert!(ran.stderr.contains(why), "{ran}");
    }
    world.write("skills.json", r#"{"skills": []}"#);
    world.write("SKILL.md", SKILL);
    let around = world.run(["add", "."]).fails(2);
    assert!(around.stderr.contains("skills are installed in it, in .agents/skills"), "{around}");
    let outside = world.run(["add", "/etc"]).fails(2);
    assert!(outside.stderr.contains("is not in the project"), "{outside}");
}

/// Serves files of a directory on loopback, until the test ends.
fn serve(root: std::path::PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(&stream);
            let mut first = String::new();
            let _ = reader.read_line(&mut first);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|len| len > 2) {
                line.clear();
            }
            let path = first.split(' ').nth(1).unwrap_or("/").trim_start_matches('/');
            let (status, body) = match fs::read(root.join(path)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(&body));
        }
    });
    address
}

#[test]
fn the_index_of_a_site_is_a_source() {
    let world = World::new();
    let sum = |bytes: &[u8]| format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    let archive = zip(&[("SKILL.md", SKILL, 0o644), ("run.sh", "#!/bin/sh\n", 0o755)]);
    let legal = SKILL.replace("name: hr", "name: legal");
    let place = "site/.well-known/agent-skills";
    world.write(&format!("{place}/hr.zip"), &archive);
    world.write(&format!("{place}/legal/SKILL.md"), &legal);
    let index = |digest: &str| {
        json!({
            "$schema": "https://schemas.agentskills.io/discovery/0.2.0/schema.json",
            "skills": [
                {"name": "hr", "type": "archive", "description": "x", "url": "hr.zip", "digest": digest},
                {"name": "legal", "type": "skill-md", "description": "x", "url": "legal/SKILL.md", "digest": sum(legal.as_bytes())},
            ],
        })
    };
    world.write(&format!("{place}/index.json"), index(&sum(&archive)).to_string());
    let url = format!("{}/.well-known/agent-skills/index.json", serve(world.path("site")));
    world.run(["install", &url, "-o", "out"]).ok();
    assert!(world.path("out/legal/SKILL.md").exists());
    let mode = fs::metadata(world.path("out/hr/run.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    world.run(["install", &url, "-o", "one", "--skill", "legal"]).ok();
    assert!(!world.path("one/hr").exists());
    let built = world.run(["build", &url, "--load=never"]).ok();
    assert!(built.stdout.contains("Built 2 skill(s)"), "{built}");

    world.write("skills.json", r#"{"skills": []}"#);
    world.run(["add", &url]).ok();
    world.run(["sync", "--check"]).ok();
    // What the site serves now is not what it says, and then not what is locked.
    world.write(&format!("{place}/index.json"), index(&sum(b"other")).to_string());
    let wrong = world.run(["install", &url, "-o", "wrong"]).fails(2);
    assert!(wrong.stderr.contains("digest") && wrong.stderr.contains("hr.zip"), "{wrong}");
    assert!(!world.path("wrong/hr").exists() && !world.path("wrong/legal").exists(), "nothing is half installed");
    let other = zip(&[("SKILL.md", SKILL, 0o644)]);
    world.write(&format!("{place}/hr.zip"), &other);
    world.write(&format!("{place}/index.json"), index(&sum(&other)).to_string());
    fs::remove_dir_all(world.store()).unwrap();
    fs::remove_dir_all(world.path(".agents")).unwrap();
    let moved = world.run(["sync"]).fails(2);
    assert!(
        moved.stderr.contains("skills.lock.json has sha256:") && moved.stderr.contains("skillctl update hr"),
        "{moved}"
    );
}

#[test]
fn a_site_cannot_list_one_name_and_serve_another() {
    let world = World::new();
    let place = "site/.well-known/skills";
    world.write(&format!("{place}/legal/SKILL.md"), SKILL);
    let index = json!({"skills": [{"name": "legal", "description": "x", "files": ["SKILL.md"]}]});
    world.write(&format!("{place}/index.json"), index.to_string());
    let url = format!("{}/.well-known/skills/index.json", serve(world.path("site")));
    let ran = world.run(["install", &url, "-o", "out"]).fails(2);
    assert!(ran.stderr.contains("lists legal, and what it has there is called hr"), "{ran}");
    assert!(!world.path("out").exists());
}

#[test]
fn credentials_and_options_in_addresses_go_nowhere() {
    let repo = Repo::new();
    let secret = "s3cret-token";
    let url = format!("https://user:{secret}@127.0.0.1:1/acme/skills");
    for args in [&["build", &url][..], &["install", &url, "-o", "out"], &["add", &url]] {
        let ran = repo.run(args).fails(2);
        assert!(!format!("{ran}").contains(secret), "{ran}");
        assert_eq!(ran.stderr.matches("error:").count(), 1, "{ran}");
    }
    for (url, why) in [
        ("https://-oProxyCommand=x/acme/skills", "begins with"),
        ("ssh://-oProxyCommand=x/acme/skills", "begins with"),
        ("https://127.0.0.1:1/a/b#-x", "-x"),
        ("https://127.0.0.1:1/a/b#v1:../x", ".."),
        ("ext::sh -c x", "ext"),
    ] {
        let ran = repo.run(&["build", url]).fails(2);
        assert!(ran.stderr.contains(why), "{url}: {ran}");
        assert_eq!(ran.stderr.matches("error:").count(), 1, "{ran}");
    }
}
