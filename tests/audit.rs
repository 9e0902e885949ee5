//! The audit log: what verbs leave in it, what is refused without it, and how it survives.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Ran, World};

const DRAFT: &str = "acme/hr:1.0.0-draft";

fn world() -> World {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    world
}

fn run(world: &World, args: &[&str]) -> Ran {
    world.command(args).env("COSIGN_PASSWORD", "secret").output().unwrap().into()
}

fn log(world: &World) -> PathBuf {
    world.path("state/skillctl/audit.log")
}

fn records(world: &World) -> Vec<Value> {
    run(world, &["audit", "verify"]).ok();
    run(world, &["audit", "show", "--format", "json"]).ok().json().as_array().unwrap().clone()
}

/// Writes the user's settings; the journal of the machine is left out of tests.
fn settings(world: &World, audit: &str) {
    world.write("home/.config/skillctl/audit.toml", format!("audit = {audit:?}\njournald = false\n"));
}

#[test]
fn what_verbs_do_is_recorded() {
    let world = world();
    settings(&world, "on");
    // Whatever changes nothing leaves nothing.
    for args in [&["list"][..], &["inspect", DRAFT], &["--version"], &["audit", "show"], &["fsck"]] {
        run(&world, args).ok();
    }
    assert!(!world.path("state").exists());
    let key = run(&world, &["key", "generate", "acme", "--format", "json"]).ok().json()["id"].clone();
    let draft = run(&world, &["sign", DRAFT, "--key", "acme.key", "--format", "json"]).ok().json()["digest"].clone();
    run(&world, &["key", "generate", "other"]).ok();
    run(&world, &["verify", DRAFT, "--key", "acme.pub"]).ok();
    let refused = run(&world, &["verify", DRAFT, "--key", "other.pub"]).fails(1).stderr;
    run(&world, &["install", DRAFT, "--key", "acme.pub", "-t", "claude"]).ok();
    // Again, and only said: nothing is installed.
    run(&world, &["install", DRAFT, "-t", "claude"]).ok();
    run(&world, &["install", DRAFT, "-t", "codex", "--dry-run"]).ok();
    let promote = ["promote", DRAFT, "--to", "testing", "--local", "--load=never", "--format", "json"];
    let testing = run(&world, &promote).ok().json()["digest"].clone();
    run(&world, &["uninstall", "hr", "-t", "claude"]).ok();
    run(&world, &["uninstall", "hr", "-t", "claude"]).fails(2);
    let found = records(&world);
    let place = world.path("home/.claude/skills/hr").display().to_string();
    let signed = json!([key]);
    let want = [
        json!({"action": "generate-key", "reference": "acme.pub", "digest": key, "result": "ok"}),
        json!({"action": "sign", "reference": DRAFT, "digest": draft, "signers": signed, "result": "ok"}),
        json!({"action": "generate-key", "reference": "other.pub", "digest": found[2]["digest"], "result": "ok"}),
        json!({"action": "verify", "reference": DRAFT, "digest": draft, "signers": signed, "result": "ok"}),
        json!({"action": "verify", "reference": DRAFT, "digest": draft, "result": "refused",
               "reason": refused.trim_end().trim_start_matches("error: ")}),
        json!({"action": "verify", "reference": DRAFT, "digest": draft, "signers": signed, "result": "ok"}),
        json!({"action": "install", "reference": DRAFT, "digest": draft, "signers": signed, "result": "ok", "where": place}),
        json!({"action": "promote", "reference": DRAFT, "digest": testing, "result": "ok", "where": "acme/hr:1.0.0-testing"}),
        json!({"action": "uninstall", "reference": "hr", "result": "ok", "where": place}),
        json!({"action": "uninstall", "reference": "hr", "result": "failed", "reason": found[9]["reason"]}),
    ];
    let uid = nix::unistd::geteuid().as_raw();
    for (at, (found, want)) in found.iter().zip(&want).enumerate() {
        let mut found = found.as_object().unwrap().clone();
        let known: Vec<Value> =
            ["seq", "time", "user", "pid", "prev"].iter().map(|key| found.remove(*key).unwrap_or_default()).collect();
        assert_eq!(&Value::from(found), want);
        assert_eq!((&known[0], known[4].is_null()), (&json!(at + 1), at == 0));
        assert!(known[2]["uid"].is_number() || uid > 0, "{known:?}");
        assert!(chrono::DateTime::parse_from_rfc3339(known[1].as_str().unwrap()).is_ok());
    }
    assert_eq!(found.len(), want.len());
    assert_eq!(fs::metadata(log(&world)).unwrap().permissions().mode() & 0o777, 0o600);
    let shown = |args: &[&str]| run(&world, &[&["audit", "show", "--format", "json"], args].concat()).ok().json();
    let seqs = |args: &[&str]| {
        shown(args).as_array().unwrap().iter().map(|one| one["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(seqs(&["--action", "verify", "--action", "sign"]), [2, 4, 5, 6]);
    assert_eq!(seqs(&["--result", "refused"]), [5]);
    assert_eq!(seqs(&["--reference", "acme/hr", "-n", "2"]), [7, 8]);
    assert_eq!(seqs(&["--since", "1h", "-n", "1"]), [10]);
    assert!(seqs(&["--since", "0s"]).is_empty() && seqs(&["--since", "2099-01-01"]).is_empty());
    run(&world, &["audit", "show", "--since", "yesterday"]).fails(2);
    let table = run(&world, &["audit", "show", "--action", "install"]).ok().stdout;
    assert!(table.starts_with("SEQ  TIME"), "{table}");
    assert!(table.contains("install  ok      acme/hr:1.0.0-draft") && table.contains(&place), "{table}");
}

#[test]
fn what_was_changed_shows() {
    let world = World::new();
    settings(&world, "on");
    run(&world, &["audit", "head"]).fails(2);
    let none =
        format!("There is no audit log in {}: nothing was recorded yet.\n", world.path("state/skillctl").display());
    assert_eq!(run(&world, &["audit", "verify"]).ok().stdout, none);
    assert_eq!(run(&world, &["audit", "verify", "--format", "json"]).ok().json()["records"], 0);
    let head = format!("sha256:{}", "0".repeat(64));
    run(&world, &["audit", "verify", "--head", &head]).fails(1);
    for name in ["a", "b", "c"] {
        run(&world, &["key", "generate", name]).ok();
    }
    let head = run(&world, &["audit", "head"]).ok().stdout;
    let json = run(&world, &["audit", "head", "--format", "json"]).ok().json();
    let hash = json["hash"].as_str().unwrap();
    assert_eq!(head, format!("3 {hash}\n"));
    assert_eq!(run(&world, &["audit", "verify"]).ok().stdout, format!("✓ 3 records, head {hash}\n"));
    world.write("heads", &head);
    run(&world, &["audit", "verify", "--head", "heads", "--head", hash]).ok();
    let whole = fs::read_to_string(log(&world)).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let shown = log(&world).display().to_string();
    let cases = [
        (whole.replace("b.pub", "x.pub"), ":2: record 2 was changed"),
        (format!("{}\n{}\n", lines[0], lines[2]), ":2: record 2 is missing before record 3"),
        (format!("{}\n{}\n{}\n", lines[1], lines[0], lines[2]), ":1: record 1 is missing before record 2"),
        (format!("{}\n{}\n", lines[0], lines[1]), ":2: it has no record"),
        (String::new(), "it has no record"),
    ];
    for (text, want) in cases {
        fs::write(log(&world), &text).unwrap();
        let told = run(&world, &["audit", "verify", "--head", "heads"]).fails(1).stdout;
        let at = if text.is_empty() { String::new() } else { shown.clone() };
        assert!(told.starts_with(&format!("✗ {at}{want}")), "{told}");
        let json = run(&world, &["audit", "verify", "--head", "heads", "--format", "json"]).fails(1).json();
        assert_eq!(json["valid"], false);
    }
    // Without a head nobody can tell of the end, nor of what is not there.
    fs::write(log(&world), format!("{}\n{}\n", lines[0], lines[1])).unwrap();
    run(&world, &["audit", "verify"]).ok();
    world.write("heads", "nothing\n");
    assert!(run(&world, &["audit", "verify", "--head", "heads"]).fails(2).stderr.contains("has no head in it"));
    // Files that are named may begin anywhere.
    world.write("moved", lines[1..].join("\n") + "\n");
    let part = run(&world, &["audit", "verify", "moved"]).ok();
    assert_eq!(part.stdout, format!("✓ 2 records, head {hash}\n"));
    assert!(part.stderr.contains("what comes before record 2"), "{part}");
}

#[test]
fn what_has_to_be_recorded_and_cannot_is_not_done() {
    let world = world();
    settings(&world, "required");
    run(&world, &["key", "generate", "acme"]).ok();
    run(&world, &["sign", DRAFT, "--key", "acme.key"]).ok();
    run(&world, &["install", DRAFT, "-t", "claude"]).ok();
    run(&world, &["build", "hr", "--sbom=spdx", "--key", "acme.key", "--load=never"]).ok();
    let attested = records(&world).pop().unwrap();
    assert_eq!((&attested["action"], &attested["where"]), (&json!("attest"), &json!("spdx")));
    let done = records(&world).len();
    // What is no directory cannot have a log, for root neither.
    fs::rename(world.path("state"), world.path("kept")).unwrap();
    fs::write(world.path("state"), "").unwrap();
    let before = run(&world, &["list", "--format", "json"]).ok().stdout;
    let actions: [&[&str]; 9] = [
        &["key", "generate", "other"],
        &["build", "hr", "--sbom=spdx", "--key", "acme.key", "--tag", "attested", "--load=never"],
        &["sign", DRAFT, "--key", "acme.key"],
        &["verify", DRAFT, "--key", "acme.pub"],
        &["promote", DRAFT, "--to", "testing", "--local", "--load=never"],
        &["install", DRAFT, "-t", "codex"],
        &["uninstall", "hr", "-t", "claude"],
        &["upgrade", "hr", "-t", "claude", "--to", "1.0.0-draft"],
        &["rollback", "hr", "-t", "claude"],
    ];
    for args in actions {
        let told = run(&world, args).fails(2).stderr;
        assert!(told.contains("audit.log cannot be written: "), "{args:?}: {told}");
        assert!(told.contains("hint: audit = \"required\" in skillctl/audit.toml lets nothing be done"), "{told}");
        assert!(!told.contains("It was done"), "{args:?}: {told}");
    }
    assert_eq!(run(&world, &["list", "--format", "json"]).ok().stdout, before);
    assert!(!world.path("other.key").exists() && !world.path("home/.codex").exists());
    assert!(world.path("home/.claude/skills/hr/SKILL.md").exists());
    // Where it need not be, it is done, and one line says so.
    settings(&world, "on");
    let told = run(&world, &["install", DRAFT, "-t", "codex"]).ok().stderr;
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.starts_with("warning: the audit log ") && told.contains("cannot be written"), "{told}");
    // Settings that cannot be read may require it.
    world.write("home/.config/skillctl/audit.toml", "audit = \"always\"\n");
    let told = run(&world, &["uninstall", "hr", "-t", "claude"]).fails(2).stderr;
    assert!(told.contains("audit.toml: line 1: unknown variant `always`"), "{told}");
    fs::remove_file(world.path("state")).unwrap();
    fs::rename(world.path("kept"), world.path("state")).unwrap();
    assert_eq!(records(&world).len(), done);
}

#[test]
fn off_writes_nothing() {
    let world = world();
    settings(&world, "off");
    run(&world, &["key", "generate", "acme"]).ok();
    run(&world, &["install", DRAFT, "-t", "claude"]).ok();
    assert!(!world.path("state").exists());
}

#[test]
fn processes_that_write_at_once_make_one_chain() {
    let world = world();
    settings(&world, "on");
    run(&world, &["key", "generate", "acme"]).ok();
    run(&world, &["sign", DRAFT, "--key", "acme.key"]).ok();
    let verify = |_| {
        for _ in 0..100 {
            run(&world, &["verify", DRAFT, "--key", "acme.pub"]).ok();
        }
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..2).map(|at| scope.spawn(move || verify(at))).collect();
        all.into_iter().for_each(|one| one.join().unwrap());
    });
    assert_eq!(records(&world).len(), 202);
}

#[test]
fn whoever_is_killed_breaks_no_chain() {
    let world = world();
    settings(&world, "on");
    run(&world, &["key", "generate", "acme"]).ok();
    run(&world, &["sign", DRAFT, "--key", "acme.key"]).ok();
    let start = std::time::Instant::now();
    run(&world, &["verify", DRAFT, "--key", "acme.pub"]).ok();
    let longest = start.elapsed() * 11 / 10;
    let mut ended = 0;
    for round in 0..200u32 {
        let mut child = world
            .command(["verify", DRAFT, "--key", "acme.pub"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(longest * (round.wrapping_mul(2_654_435_761) % 1000) / 1000);
        let _ = child.kill();
        ended += usize::from(child.wait().unwrap().success());
    }
    std::thread::sleep(Duration::from_millis(10));
    let before = records(&world).len();
    // Each that came to its end is there, and some that did not.
    assert!(before >= ended + 3, "{before} {ended}");
    run(&world, &["verify", DRAFT, "--key", "acme.pub"]).ok();
    assert_eq!(records(&world).len(), before + 1);
}
