//! What of a directory is packed, and what is left out or refused.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use super::PackOptions;
use super::testing::*;

#[test]
fn junk_is_left_out_and_dotfiles_are_not() {
    let root = files(&[
        "SKILL.md",
        ".claude/settings.json",
        ".gitignore",
        ".git/config",
        ".git/hooks/x",
        "sub/.git",
        ".DS_Store",
        "a~",
        "sub/.b.swp",
        "sub/__pycache__/c.pyc",
        ".idea/workspace.xml",
    ]);
    let (got, left_out) = names_in(root.path(), &PackOptions::default());
    assert_eq!(got, [".claude/", ".claude/settings.json", ".gitignore", "SKILL.md", "sub/"]);
    assert_eq!(left_out, 7);
}

#[test]
fn skillignore_excludes_and_readmits() {
    let root =
        files(&["SKILL.md", "a.log", "keep.log", "build/x", "sub/build/y", "sub/.skillignore", ".vscode/t", ".env"]);
    let rules = "# comment\n*.log\n!keep.log\n/build/\n!.vscode\n.env\n!.git\n";
    fs::write(root.path().join(".skillignore"), rules).unwrap();
    let (got, left_out) = names_in(root.path(), &PackOptions::default());
    let want =
        [".vscode/", ".vscode/t", "SKILL.md", "keep.log", "sub/", "sub/.skillignore", "sub/build/", "sub/build/y"];
    assert_eq!((got.as_slice(), left_out), (want.map(String::from).as_slice(), 4));
}

#[test]
fn skillignore_cannot_take_away_the_skill() {
    for (rules, want) in [
        ("*.md", "SKILL.md is excluded by .skillignore, but belongs to every skill"),
        ("/skill.yaml", "skill.yaml is excluded by .skillignore, but belongs to every skill"),
        (
            "a\n{x",
            ".skillignore line 2: error parsing glob '{x': unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)",
        ),
    ] {
        let root = files(&["SKILL.md", "skill.yaml"]);
        fs::write(root.path().join(".skillignore"), rules).unwrap();
        assert_eq!(pack_error(root.path(), &PackOptions::default()), want);
    }
    let root = files(&["SKILL.md", "docs/SKILL.md"]);
    fs::write(root.path().join(".skillignore"), "docs/*.md").unwrap();
    assert_eq!(names_in(root.path(), &PackOptions::default()).0, ["SKILL.md", "docs/"]);
}

#[test]
fn credentials_stop_the_build_until_somebody_decides() {
    let key = b"-----BEGIN OPENSSH PRIVATE KEY-----\n".as_slice();
    let cases: [(&str, &[u8], &str); 6] = [
        (".env", b"", "is an environment file, which often holds secrets"),
        ("sub/.netrc", b"", "is a file of passwords"),
        (".ssh/config", b"", "is a directory of private keys"),
        ("keys/id_rsa", b"", "is a private key"),
        ("tls.pem", key, "is a private key"),
        (".aws/credentials", b"", "is a file of cloud credentials"),
    ];
    for (path, content, what) in cases {
        let root = tree(&[("SKILL.md", b"", 0o644), (path, content, 0o600)]);
        let entry = path.strip_suffix("/config").unwrap_or(path);
        let error = pack_with(root.path(), &PackOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("{entry} {what}"));
        assert_eq!(error.hint().unwrap(), format!("list it in .skillignore, or pass --include {entry}"));
        let (got, _) = names_in(root.path(), &include(&[entry]));
        assert!(got.contains(&path.to_owned()), "{got:?}");
        fs::write(root.path().join(".skillignore"), entry).unwrap();
        let (got, left_out) = names_in(root.path(), &PackOptions::default());
        assert!(!got.contains(&path.to_owned()) && left_out == 2, "{got:?}");
    }
    let root = tree(&[("ca.pem", b"-----BEGIN CERTIFICATE-----", 0o644), (".env.example", b"", 0o644)]);
    assert_eq!(names_in(root.path(), &PackOptions::default()).0, [".env.example", "ca.pem"]);
}

#[test]
fn links_inside_are_followed() {
    let root = tree(&[("SKILL.md", b"one", 0o644), ("scripts/run", b"two", 0o755)]);
    symlink("../SKILL.md", root.path().join("scripts/doc.md")).unwrap();
    symlink("scripts", root.path().join("bin")).unwrap();
    symlink("bin/../scripts/run", root.path().join("run")).unwrap();
    symlink("/dev/null", root.path().join("junk~")).unwrap();
    let (layer, packed) = pack_with(root.path(), &PackOptions::default()).unwrap();
    let want = ["./", "SKILL.md", "bin/", "bin/doc.md", "bin/run", "run", "scripts/", "scripts/doc.md", "scripts/run"];
    assert_eq!(names(&layer), want);
    assert_eq!((packed.files, packed.bytes, packed.left_out), (6, 18, 1));
}

#[test]
fn links_that_lead_elsewhere_are_refused() {
    let cases = [
        ("/etc/passwd", "leaves the skill"),
        ("../../etc/passwd", "leaves the skill"),
        ("../sub/../../y", "leaves the skill"),
        ("missing", "leads nowhere"),
        ("../SKILL.md/x", "leads nowhere"),
        ("link", "leads in a circle"),
        ("..", "is a link to a directory that it is in"),
        (".", "is a link to a directory that it is in"),
        ("../.git/config", "leads into version control, which is not packed"),
        ("../pipe", "leads to neither a file nor a directory"),
        ("../.aws", ""),
    ];
    for (target, reason) in cases {
        let root = files(&["SKILL.md", ".git/config", "sub/x", ".aws/credentials"]);
        nix::unistd::mkfifo(&root.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink(target, root.path().join("sub/link")).unwrap();
        fs::write(root.path().join(".skillignore"), "/pipe\n/.aws\n").unwrap();
        let want = match reason {
            "" => "sub/link -> ../.aws leads to what .skillignore leaves out".to_owned(),
            _ if reason.starts_with("is a link") => format!("sub/link {reason}"),
            _ => format!("sub/link -> {target} {reason}"),
        };
        assert_eq!(pack_error(root.path(), &PackOptions::default()), want, "{target}");
    }
    let root = files(&["SKILL.md"]);
    symlink("/etc/passwd", root.path().join("latest")).unwrap();
    let error = pack_with(root.path(), &PackOptions::default()).unwrap_err();
    assert_eq!(error.hint().unwrap(), "copy the file into the skill, or list it in .skillignore");
    let root = files(&["SKILL.md", "config/dev"]);
    symlink("config/dev", root.path().join(".env")).unwrap();
    let want = ".env -> config/dev is an environment file, which often holds secrets";
    assert_eq!(pack_error(root.path(), &PackOptions::default()), want);
    // The name of a link does not hide what it leads to.
    let root = files(&["SKILL.md", ".env"]);
    symlink(".env", root.path().join("notes.txt")).unwrap();
    fs::write(root.path().join(".skillignore"), "/.env").unwrap();
    let want = "notes.txt -> .env is an environment file, which often holds secrets";
    assert_eq!(pack_error(root.path(), &PackOptions::default()), want);
    assert_eq!(names_in(root.path(), &include(&["notes.txt"])).0, ["SKILL.md", "notes.txt"]);
}

#[test]
fn links_do_not_bring_back_what_skillignore_leaves_out() {
    let root = files(&["SKILL.md", "data/n.txt", "data/private/n.txt", "private/n.txt"]);
    fs::write(root.path().join(".skillignore"), "private/\n").unwrap();
    symlink("private/n.txt", root.path().join("pub.txt")).unwrap();
    let error = pack_with(root.path(), &PackOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "pub.txt -> private/n.txt leads to what .skillignore leaves out");
    assert_eq!(error.hint().unwrap(), "remove the link, or pass --include pub.txt");
    let (got, left_out) = names_in(root.path(), &include(&["pub.txt"]));
    assert_eq!(got, ["SKILL.md", "data/", "data/n.txt", "pub.txt"]);
    assert_eq!(left_out, 3);
    fs::remove_file(root.path().join("pub.txt")).unwrap();
    // Nor does a link to a directory around it, whose other files are packed.
    fs::write(root.path().join(".skillignore"), "/private\n/data/private\n").unwrap();
    symlink("data", root.path().join("more")).unwrap();
    let (got, left_out) = names_in(root.path(), &PackOptions::default());
    assert_eq!(got, ["SKILL.md", "data/", "data/n.txt", "more/", "more/n.txt"]);
    assert_eq!(left_out, 4);
}

#[test]
fn what_is_no_file_is_refused() {
    let root = files(&["SKILL.md"]);
    nix::unistd::mkfifo(&root.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(pack_error(root.path(), &PackOptions::default()), "pipe is a FIFO");
    let root = files(&["SKILL.md"]);
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("s")).unwrap();
    assert_eq!(pack_error(root.path(), &PackOptions::default()), "s is a socket");
    let root = files(&["SKILL.md", "sub/.wh.SKILL.md"]);
    let want = "sub/.wh.SKILL.md has a name that deletes another file when the image is mounted";
    assert_eq!(pack_error(root.path(), &PackOptions::default()), want);
    fs::write(root.path().join(".skillignore"), ".wh.*").unwrap();
    assert_eq!(names_in(root.path(), &PackOptions::default()).0, ["SKILL.md", "sub/"]);
    let root = files(&["SKILL.md"]);
    fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"b\xffd")), "").unwrap();
    assert_eq!(pack_error(root.path(), &PackOptions::default()), "b\\xffd has a name that is not UTF-8");
}

#[test]
fn generated_files_are_in_their_place() {
    let root = files(&["SKILL.md", "scripts/x", "z"]);
    let extra = |name: &str| PackOptions { extra: vec![(name.into(), b"card".to_vec())], ..Default::default() };
    assert_eq!(names_in(root.path(), &extra("skill.yaml")).0, ["SKILL.md", "scripts/", "scripts/x", "skill.yaml", "z"]);
    assert_eq!(pack_error(root.path(), &extra("z")), "z is in the skill, and would be generated as well");
    assert_eq!(pack_error(root.path(), &extra("a/b")), "a/b is generated, and has to be at the skill's root");
    fs::write(root.path().join("skill.yaml"), "card").unwrap();
    let on_disk = pack_with(root.path(), &PackOptions::default()).unwrap();
    fs::remove_file(root.path().join("skill.yaml")).unwrap();
    assert_eq!(pack_with(root.path(), &extra("skill.yaml")).unwrap(), on_disk);
}
