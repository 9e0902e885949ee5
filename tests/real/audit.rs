//! The audit log of containers, and of what is loaded for them.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::cell::{Done, World, matrix};
use crate::hook::{HR, with};

matrix! { what_a_container_is_given_is_recorded }

/// What only root can set up.
mod rootful {
    use super::{
        a_full_disk_is_noticed_before, the_journal_gets_every_record, what_the_machine_requires_holds_for_containers,
    };
    use crate::cell::matrix;

    matrix! {
        @roots
        what_the_machine_requires_holds_for_containers,
        a_full_disk_is_noticed_before,
        the_journal_gets_every_record,
    }
}

fn dir(world: &World) -> PathBuf {
    match world.is_root() {
        true => "/var/log/skillctl".into(),
        false => world.home().join(".local/state/skillctl"),
    }
}

fn records(world: &World) -> Vec<Value> {
    world.skillctl(["audit", "verify"]).ok();
    world.skillctl(["audit", "show", "--format", "json"]).json().as_array().expect("records").clone()
}

/// Runs a command in a container that names the skill.
fn run(world: &World, skills: &str) -> Done {
    world.in_agent(&["--annotation", &with(skills)], "cat /skills/hr/SKILL.md")
}

fn what_a_container_is_given_is_recorded(world: &World) {
    let built = world.build("hr", "1.0.0", &["--load=always"]);
    world.skillctl(["hook", "enable"]).ok();
    run(world, HR).ok();
    assert_ne!(run(world, "acme/none:1").code, 0);
    assert_ne!(run(world, &format!("{HR}=/proc/skill")).code, 0);
    world.skillctl(["unload", HR]).ok();
    let found = records(world);
    let said = |at: usize| ["action", "result"].map(|key| found[at][key].as_str().unwrap_or_default());
    let all: Vec<_> = (0..found.len()).map(said).collect();
    let mounts = [["mount", "ok"], ["mount", "failed"], ["mount", "refused"]];
    assert_eq!(all, [&[["load", "ok"]], &mounts[..], &[["unload", "ok"]]].concat(), "{found:?}");
    assert_eq!(found[0]["reference"], "localhost/acme/hr:1.0.0-draft");
    let mount = &found[1];
    assert_eq!((&mount["reference"], &mount["where"]), (&HR.into(), &"/skills/hr".into()), "{mount}");
    assert_eq!((&mount["digest"], &found[0]["digest"]), (&built.digest.clone().into(), &built.digest.into()));
    assert_eq!(mount["container"].as_str().map(str::len), Some(64), "{mount}");
    // The user of the host, also in the user namespace of podman.
    assert_eq!((&mount["user"]["uid"], found[0]["user"]["uid"].is_u64()), (&found[0]["user"]["uid"], true));
    assert_eq!(found[2]["reference"], "acme/none:1");
    assert_eq!(found[2]["reason"], "image not found: acme/none:1");
    // A log that cannot be written keeps no container from its skills, unless it has to be.
    let kept = dir(world).with_file_name("kept");
    let config = dir(world).parent().expect("a directory").to_owned();
    if !world.is_root() {
        fs::rename(dir(world), &kept).expect("it moves");
        fs::write(config.join("skillctl"), "").expect("no directory");
        run(world, HR).ok();
        let log = crate::hook::log(world);
        assert!(log.lines().last().unwrap_or_default().contains("audit.log cannot be written"), "{log}");
        let settings = world.home().join(".config/skillctl");
        fs::create_dir_all(&settings).expect("a directory");
        fs::write(settings.join("audit.toml"), "audit = \"required\"\n").expect("settings");
        let done = run(world, HR);
        assert_eq!(done.code, 126, "{done}");
        fs::remove_file(config.join("skillctl")).expect("it goes");
        fs::rename(&kept, dir(world)).expect("it moves back");
        run(world, HR).ok();
        assert_eq!(records(world).len(), 6);
    }
}

fn what_the_machine_requires_holds_for_containers(world: &World) {
    world.build("hr", "1.0.0", &["--load=never"]);
    world.skillctl(["hook", "enable"]).ok();
    fs::create_dir_all("/etc/skillctl").expect("a directory");
    fs::write("/etc/skillctl/audit.toml", "audit = \"required\"\n").expect("settings");
    run(world, HR).ok();
    let log = Path::new("/var/log/skillctl/audit.log");
    fs::rename(log, "/var/log/skillctl/kept").expect("it moves");
    fs::create_dir(log).expect("no file");
    let done = run(world, HR);
    assert_eq!(done.code, 126, "{done}");
    assert!(crate::hook::log(world).lines().last().unwrap_or_default().contains("audit.log cannot be written"));
    // Others do not depend on it.
    world.in_agent(&[], "true").ok();
    fs::remove_dir(log).expect("it goes");
    fs::rename("/var/log/skillctl/kept", log).expect("it moves back");
    run(world, HR).ok();
    assert_eq!(records(world).len(), 2);
    fs::write("/etc/skillctl/audit.toml", "audit = \"off\"\n").expect("settings");
    run(world, HR).ok();
    assert_eq!(records(world).len(), 2);
}

fn a_full_disk_is_noticed_before(world: &World) {
    world.build("hr", "1.0.0", &["--load=never"]);
    fs::create_dir_all("/etc/skillctl").expect("a directory");
    fs::write("/etc/skillctl/audit.toml", "audit = \"required\"\n").expect("settings");
    // What the log is on, and nothing else may be.
    let state = world.path("state");
    fs::create_dir_all(&state).expect("a directory");
    let shown = state.display().to_string();
    world.run("mount", ["-t", "tmpfs", "-o", "size=1M", "tmpfs", &shown]).ok();
    let generate = |name: &str| {
        let name = world.path(name).display().to_string();
        let mut command = world.command(env!("CARGO_BIN_EXE_skillctl"), ["key", "generate", &name]);
        command.env("COSIGN_PASSWORD", "secret").env("XDG_STATE_HOME", &state);
        Done::of(command)
    };
    generate("one").ok();
    fs::write(state.join("full"), vec![0; 2 << 20]).expect_err("no room for that");
    let done = generate("two");
    assert!(done.code == 2 && done.stderr.contains("audit.log cannot be written: No space left"), "{done}");
    assert!(!done.stderr.contains("It was done") && !world.path("two.key").exists(), "{done}");
    fs::remove_file(state.join("full")).expect("it goes");
    generate("two").ok();
    world.run("umount", [&shown]).ok();
}

fn the_journal_gets_every_record(world: &World) {
    fs::create_dir_all("/run/systemd/journal").expect("a directory");
    let journal = UnixDatagram::bind("/run/systemd/journal/socket").expect("a socket");
    journal.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    let told = || {
        let mut text = vec![0; 1 << 20];
        let length = journal.recv(&mut text).expect("a message");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let generate = |name: &str| {
        let name = world.path(name).display().to_string();
        let mut command = world.command(env!("CARGO_BIN_EXE_skillctl"), ["key", "generate", &name]);
        command.env("COSIGN_PASSWORD", "secret");
        Done::of(command)
    };
    generate("one").ok();
    let line = fs::read_to_string(dir(world).join("audit.log")).expect("a log");
    let head = world.skillctl(["audit", "head"]).ok();
    let hash = head.split_once(' ').expect("number and hash").1;
    let want =
        format!("PRIORITY=6\nSYSLOG_IDENTIFIER=skillctl-audit\nMESSAGE={}\nAUDIT_HEAD={hash}\n", line.trim_end());
    assert_eq!(told(), want);
    // Also where the file cannot be written, and is not required.
    fs::rename(dir(world).join("audit.log"), dir(world).join("kept")).expect("it moves");
    fs::create_dir(dir(world).join("audit.log")).expect("no file");
    generate("two").ok();
    let message = told();
    assert!(message.contains("MESSAGE={\"seq\":0,") && message.contains("\"action\":\"generate-key\""), "{message}");
    assert!(!message.contains("AUDIT_HEAD"), "{message}");
    fs::create_dir_all("/etc/skillctl").expect("a directory");
    fs::write("/etc/skillctl/audit.toml", "journald = false\n").expect("settings");
    fs::remove_dir(dir(world).join("audit.log")).expect("it goes");
    generate("three").ok();
    journal.set_nonblocking(true).expect("a socket");
    journal.recv(&mut [0; 16]).expect_err("nothing");
}
