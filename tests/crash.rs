//! `kill -9` at random moments: what was published before is still there, and the next run works.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::install::{publish, tree};
use crate::support::World;

/// How often each verb is killed: hundreds of times in `make test-long`.
fn crashes() -> u64 {
    if std::env::var_os("SKILLCTL_TEST_LONG").is_some() { 400 } else { 50 }
}

/// Kills the command after a while that is spread over its usual duration, so that all of its steps are hit.
fn kill(world: &World, args: &[&str], round: u64, longest: Duration) -> bool {
    let mut child = world.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Multiplying by an odd constant spreads the moments evenly without a random source.
    let fraction = (round.wrapping_mul(2_654_435_761) % 1000) as u32;
    thread::sleep(longest * fraction / 1000);
    let _ = child.kill();
    child.wait().unwrap().success()
}

fn duration_of(world: &World, args: &[&str]) -> Duration {
    let start = std::time::Instant::now();
    world.run(args).ok();
    start.elapsed() * 11 / 10
}

#[track_caller]
fn intact(world: &World, names: &[&str]) {
    world.run(["fsck"]).ok();
    for name in names {
        world.run(["inspect", name]).ok();
    }
}

#[test]
fn builds_killed_at_any_moment_leave_the_store_whole() {
    let world = World::new();
    world.skill("kept", "1.0.0");
    world.skill("hr", "1.0.0");
    world.write("hr/data", "some text to pack\n".repeat(20_000));
    world.build("kept");
    let args = ["build", "hr", "--load=never"];
    let longest = duration_of(&world, &args);
    for round in 0..crashes() {
        world.write("hr/changing", round.to_string());
        kill(&world, &args, round, longest);
        intact(&world, &["acme/kept:1.0.0-draft", "acme/hr:1.0.0-draft"]);
    }
    world.run(["prune", "--grace", "0"]).ok();
    world.run(args).ok();
    intact(&world, &["acme/kept:1.0.0-draft", "acme/hr:1.0.0-draft"]);
    assert_eq!(fs::read_dir(world.store().join(".tmp")).unwrap().count(), 0);
}

/// The skill is entirely one version or the other at any moment, with the user's file in it, and by the next command the
/// receipt is that version's.
#[test]
fn installations_killed_at_any_moment_leave_one_whole_version() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    for number in 0..60 {
        world.write(&format!("hr/data/{number}"), format!("first {number}\n").repeat(50));
    }
    publish(&world, "hr", "1.0.0");
    for number in 30..90 {
        world.write(&format!("hr/data/{number}"), format!("second {number}\n").repeat(50));
    }
    publish(&world, "hr", "1.1.0");
    let to = |version: &str| vec!["install".into(), format!("acme/hr:{version}"), "-t".into(), "claude".into()];
    let skill = world.path("home/.claude/skills/hr");
    let mut versions = Vec::new();
    let mut longest = Duration::ZERO;
    for version in ["1.0.0", "1.1.0"] {
        let start = std::time::Instant::now();
        world.run(to(version)).ok();
        longest = longest.max(start.elapsed() * 11 / 10);
        world.write("home/.claude/skills/hr/notes.md", "mine");
        versions.push((version, tree(&skill)));
    }
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<String>>();
    for round in 0..crashes() {
        let now = versions.iter().find(|(_, files)| *files == tree(&skill)).unwrap().0;
        let other = if now == "1.0.0" { "1.1.0" } else { "1.0.0" };
        let args = match round % 3 {
            0 => words("rollback hr -t claude"),
            1 if now == "1.0.0" => words("upgrade hr -t claude"),
            _ => to(other),
        };
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        kill(&world, &args, round, longest);
        let (version, _) = versions.iter().find(|(_, files)| *files == tree(&skill)).expect("one whole version");
        let row = &world.run(["list", "-i", "--format", "json"]).ok().json()[0];
        assert_eq!(row["version"], *version, "{args:?}");
        let verified = world.run(["list", "-i", "--verify"]).fails(1).stdout;
        assert_eq!(verified, "✗ hr (claude) has 1 difference(s):\n  notes.md is not of the image\n");
    }
    for round in 0..crashes() / 5 {
        kill(&world, &["uninstall", "hr", "-t", "claude", "--force"], round, longest);
        let rows = world.run(["list", "-i", "--format", "json"]).ok().json();
        assert_eq!(rows.as_array().unwrap().len(), usize::from(skill.exists()));
        if !skill.exists() {
            world.run(to("1.0.0")).ok();
            world.write("home/.claude/skills/hr/notes.md", "mine");
        }
    }
    world.run(to("1.0.0")).ok();
    for name in ["work", "pending"] {
        assert_eq!(
            fs::read_dir(world.path("home/.claude/skills/.skillimage").join(name)).unwrap().count(),
            0,
            "{name}"
        );
    }
}

/// Every skill is one whole version, the files can be read, and the next run makes everything as they say.
#[test]
fn syncs_killed_at_any_moment_are_finished_by_the_next() {
    let world = World::new();
    for name in ["hr", "legal"] {
        world.skill(name, "1.0.0");
        for version in ["1.0.0", "1.1.0"] {
            world.write(&format!("{name}/notes.md"), version);
            publish(&world, name, version);
        }
    }
    let root = world.path("project");
    let intent = |version: &str| {
        let skill = |name: &str| {
            serde_json::json!({"name": name, "source": format!("acme/{name}"), "version": version,
                "additionalBasePaths": [".claude/skills"]})
        };
        world.write("project/skills.json", serde_json::json!({"skills": [skill("hr"), skill("legal")]}).to_string());
    };
    intent("1.0.0");
    let sync = || {
        let mut command = world.command(["sync"]);
        command.current_dir(&root).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let start = std::time::Instant::now();
    assert!(sync().status().unwrap().success());
    let longest = start.elapsed() * 11 / 10;
    for round in 0..crashes() {
        let version = if round % 2 == 0 { "1.1.0" } else { "1.0.0" };
        intent(version);
        let mut child = sync().spawn().unwrap();
        thread::sleep(longest * (round.wrapping_mul(2_654_435_761) % 1000) as u32 / 1000);
        let _ = child.kill();
        child.wait().unwrap();
        for path in [".agents/skills/hr", ".claude/skills/hr", ".agents/skills/legal", ".claude/skills/legal"] {
            let notes = fs::read_to_string(root.join(path).join("notes.md")).unwrap();
            assert!(
                ["1.0.0", "1.1.0"].contains(&notes.as_str()) && root.join(path).join("scripts/run.sh").is_file(),
                "{path}"
            );
        }
        assert!(sync().status().unwrap().success(), "round {round}");
        let check = world.command(["sync", "--check"]).current_dir(&root).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    }
    let left: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let temporary = left.iter().filter(|name| name.to_string_lossy().starts_with(".skills.")).count();
    assert!(temporary <= crashes() as usize / 10, "{left:?}");
}

#[test]
fn tags_killed_at_any_moment_keep_every_name() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    let longest = duration_of(&world, &["tag", "acme/hr:1.0.0-draft", "acme/hr:first", "--load=never"]);
    let mut done = vec!["acme/hr:first".to_owned()];
    for round in 0..crashes() {
        let name = format!("acme/hr:t{round}");
        if kill(&world, &["tag", "acme/hr:1.0.0-draft", &name, "--load=never"], round, longest) {
            done.push(name);
        }
        world.run(["fsck"]).ok();
    }
    let list = world.run(["list", "--format", "json"]).ok().stdout;
    for name in done {
        assert!(list.contains(&format!("\"{name}\"")), "{name} was said to be there");
    }
}

#[test]
fn prunes_killed_at_any_moment_free_only_what_nothing_names() {
    let world = World::new();
    world.skill("kept", "1.0.0");
    world.build("kept");
    world.skill("hr", "1.0.0");
    for round in 0..crashes() {
        for i in 0..5 {
            world.write("hr/changing", format!("{round} {i}"));
            world.build("hr");
        }
        kill(&world, &["prune", "--grace", "0"], round, Duration::from_millis(20));
        intact(&world, &["acme/kept:1.0.0-draft", "acme/hr:1.0.0-draft"]);
    }
    world.run(["prune", "--grace", "0"]).ok();
    intact(&world, &["acme/kept:1.0.0-draft", "acme/hr:1.0.0-draft"]);
    // Two images of three blobs; kept and hr share nothing.
    assert_eq!(fs::read_dir(world.store().join("blobs/sha256")).unwrap().count(), 6);
}

/// Whatever a promotion was cut at, the tags say what is true, and the same command makes the rest true.
#[test]
fn promotions_killed_at_any_moment_leave_tags_that_are_right() {
    let world = World::new();
    let promote = |version: &str, to: &str| -> Vec<String> {
        let tag = match to {
            "testing" => format!("{version}-draft"),
            "published" => format!("{version}-testing"),
            _ => version.to_owned(),
        };
        ["promote", &format!("acme/hr:{tag}"), "--to", to, "--local", "--load=never"].map(str::to_owned).into()
    };
    let say = |name: &str, key: &str| -> Option<String> {
        let ran = world.run(["inspect", name, "--format", "json"]);
        (ran.status == Some(0)).then(|| ran.json()[key].as_str().unwrap().to_owned())
    };
    let args = |args: &[String]| args.iter().map(String::as_str).map(str::to_owned).collect::<Vec<_>>();
    world.skill("hr", "0.1.0");
    world.build("hr");
    for to in ["testing", "published"] {
        world.run(promote("0.1.0", to)).ok();
    }
    let longest = duration_of(&world, &["promote", "acme/hr:0.1.0", "--to", "deprecated", "--local", "--load=never"]);
    for round in 1..=crashes() {
        let version = format!("1.{round}.0");
        world.skill("hr", &version);
        world.build("hr");
        for to in ["testing", "published", "deprecated", "archived"] {
            let command = args(&promote(&version, to));
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let killed = !kill(&world, &command, round, longest);
            world.run(["fsck"]).ok();
            let latest = say("acme/hr:latest", "version");
            let state = say(&format!("acme/hr:{version}"), "status");
            // A version that is not published is never the latest.
            assert!(latest.as_ref() != Some(&version) || state.as_deref() == Some("published"), "{to} {state:?}");
            if killed {
                let again = world.run(&command);
                let done = again.stderr.contains(&format!("invalid transition: {to} -> {to}"))
                    || (to == "archived" && again.stderr.contains("image not found"));
                assert!(again.status == Some(0) || done, "{again}");
            }
        }
        assert_eq!(say(&format!("acme/hr:{version}"), "status"), None, "{version} is archived");
        if round % 10 == 0 {
            world.run(["prune", "--grace", "0"]).ok();
        }
    }
    assert_eq!(say("acme/hr:latest", "version"), None);
}
