use std::fs;
use std::io::BufRead as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::symlink;

use cap_std::ambient_authority;

use super::*;
use crate::audit::chain::{Kind, check};
use crate::audit::{Action, Outcome};

fn dir() -> (tempfile::TempDir, Dir) {
    let tmp = tempfile::tempdir().unwrap();
    let dir = Dir::open_ambient_dir(tmp.path(), ambient_authority()).unwrap();
    (tmp, dir)
}

fn append(dir: &Dir, reference: &str, limit: u64) -> io::Result<Vec<String>> {
    let log = Log::open(dir)?;
    let event = Event::of(Action::Load, reference).digest("sha256:0");
    Log { limit, ..log }.append(&[event], &User { uid: 7, ..User::default() }, true)
}

fn records(dir: &Dir) -> u64 {
    let report = check(files::all(dir).unwrap(), &[], true).unwrap();
    assert_eq!(report.problem, None);
    assert_eq!(report.head, head(dir).unwrap());
    report.records
}

#[test]
fn records_say_what_has_happened() {
    let (tmp, dir) = dir();
    let log = Log::open(&dir).unwrap();
    let event = Event::of(Action::Verify, "acme/hr\u{202e}:1").not(Outcome::Refused, "it has\nno signature");
    let event = Event { container: Some("c".into()), ..event.signers(["k".to_owned()]).at("/x") };
    let user = User { uid: 7, login_uid: Some(8), name: Some("u".into()) };
    let lines = log.append(&[event.clone(), event], &user, false).unwrap();
    let text = fs::read_to_string(tmp.path().join(FILE)).unwrap();
    assert_eq!(text, lines.join("\n") + "\n");
    let record = Record::parse(lines[1].as_bytes()).unwrap();
    let pid = std::process::id();
    let want = format!(
        r#"{{"seq":2,"time":"{}","user":{{"uid":7,"login_uid":8,"name":"u"}},"pid":{pid},"action":"verify","reference":"acme/hr\u202e:1","signers":["k"],"result":"refused","reason":"it has\nno signature","where":"/x","container":"c","prev":"{}"}}"#,
        record.time,
        hash(lines[0].as_bytes())
    );
    assert_eq!(lines[1], want);
    assert_eq!((record.reference.as_str(), record.seq), ("acme/hr\u{202e}:1", 2));
    assert_eq!(head(&dir).unwrap().unwrap(), Head { seq: 2, hash: hash(want.as_bytes()) });
    assert_eq!(fs::metadata(tmp.path().join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn hostile_text_makes_no_line_too_long() {
    let (_tmp, dir) = dir();
    let long = "\u{e0041}".repeat(1 << 20);
    let event = Event::of(Action::Install, &long).digest(&long).signers(vec![long.clone(); 100]).at(&long);
    let event = Event { container: Some(long.clone()), ..event.not(Outcome::Failed, &long) };
    let log = Log::open(&dir).unwrap();
    let lines = log.append(&[event], &User::default(), false).unwrap();
    assert!(lines[0].len() <= MAX_LINE, "{}", lines[0].len());
    append(&dir, "after", MAX_FILE).unwrap();
    assert_eq!(records(&dir), 2);
}

#[test]
fn a_full_file_is_set_aside_and_the_chain_goes_on() {
    let (tmp, dir) = dir();
    for number in 0..20 {
        append(&dir, &number.to_string(), 600).unwrap();
    }
    assert_eq!(records(&dir), 20);
    let mut names = files::before(&dir).unwrap();
    names.sort();
    assert!(names.len() > 4 && names.iter().all(|name| name.starts_with("audit.log.")), "{names:?}");
    for (name, file) in files::all(&dir).unwrap() {
        let first = Record::parse(file.lines().next().unwrap().unwrap().as_bytes()).unwrap();
        assert_eq!(first.prev.is_none(), first.seq == 1, "{name}");
    }
    // As logrotate does it, and whoever was killed right after: the next one finds the last record.
    fs::rename(tmp.path().join(FILE), tmp.path().join("audit.log.1-20261127")).unwrap();
    assert_eq!(head(&dir).unwrap().unwrap().seq, 20);
    append(&dir, "next", 600).unwrap();
    assert_eq!(records(&dir), 21);
    // What was compressed is none of it.
    fs::write(tmp.path().join("audit.log.9.gz"), "x".repeat(2 << 20)).unwrap();
    fs::rename(tmp.path().join(FILE), tmp.path().join("audit.log.1")).unwrap();
    append(&dir, "next", 600).unwrap();
    assert_eq!(records(&dir), 22);
    // A file that is in the way stays: the log grows on.
    for number in 22..=30 {
        fs::write(tmp.path().join(format!("audit.log.{number}")), "").unwrap();
    }
    for number in 0..5 {
        append(&dir, &number.to_string(), 600).unwrap();
    }
    assert_eq!(records(&dir), 27);
}

#[test]
fn whoever_was_killed_leaves_nothing_that_breaks_the_chain() {
    let (tmp, dir) = dir();
    let path = tmp.path().join(FILE);
    let mut count = 0;
    for round in 0..50 {
        append(&dir, "whole", MAX_FILE).unwrap();
        let before = fs::read(&path).unwrap();
        append(&dir, "killed", MAX_FILE).unwrap();
        let after = fs::read(&path).unwrap();
        // Any part of the last write.
        let cut = before.len() + (after.len() - before.len()) * round / 50;
        fs::write(&path, &after[..cut]).unwrap();
        count += 1 + u64::from(cut + 1 == after.len());
        Log::open(&dir).unwrap().reserve().unwrap();
        append(&dir, "next", MAX_FILE).unwrap();
        count += 1;
        assert_eq!(records(&dir), count, "{round}");
    }
    // All but the newline is a record.
    let mut whole = fs::read(&path).unwrap();
    whole.pop();
    fs::write(&path, whole).unwrap();
    append(&dir, "next", MAX_FILE).unwrap();
    assert_eq!(records(&dir), count + 1);
    // Zeros that a file system had set aside.
    let mut zeros = fs::read(&path).unwrap();
    zeros.extend([0; 20_000]);
    fs::write(&path, &zeros).unwrap();
    append(&dir, "next", MAX_FILE).unwrap();
    assert_eq!(records(&dir), count + 2);
    // The first write of all.
    fs::write(&path, "{\"seq\":1,\"ti").unwrap();
    append(&dir, "first", MAX_FILE).unwrap();
    assert_eq!(records(&dir), 1);
}

#[test]
fn what_cannot_be_written_is_told() {
    let (tmp, dir) = dir();
    let path = tmp.path().join(FILE);
    // An end that is none of ours is no place to go on from.
    fs::write(&path, "x".repeat(2 << 20)).unwrap();
    assert!(append(&dir, "x", MAX_FILE).unwrap_err().to_string().contains("its end is no record"));
    assert!(Log::open(&dir).unwrap().reserve().is_err());
    fs::remove_file(&path).unwrap();
    // A link would have us write somewhere else, and what is no file keeps nothing.
    symlink("elsewhere", &path).unwrap();
    assert!(append(&dir, "x", MAX_FILE).is_err() && !tmp.path().join("elsewhere").exists());
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(append(&dir, "x", MAX_FILE).unwrap_err().to_string().contains("it is no file"));
    assert!(head(&dir).is_err());
}

#[test]
fn many_write_at_once() {
    let (tmp, dir) = dir();
    let write = || {
        for number in 0..50 {
            append(&dir, &number.to_string(), 2000).unwrap();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(write);
        }
    });
    assert_eq!(records(&dir), 200);
    let last = head(&dir).unwrap().unwrap();
    assert!(fs::read(tmp.path().join(FILE)).unwrap().len() < 3000);
    // A line taken from an older file shows, too.
    let (name, _) = files::all(&dir).unwrap().swap_remove(3);
    let text = fs::read_to_string(tmp.path().join(&name)).unwrap();
    fs::write(tmp.path().join(&name), text.split_once('\n').unwrap().1).unwrap();
    let report = check(files::all(&dir).unwrap(), &[last.hash], true).unwrap();
    let problem = report.problem.unwrap();
    assert_eq!((problem.kind, problem.at.unwrap().file), (Kind::Removed, name));
}
