//! Storage that cannot take an image now: locked by another process, or without the programs that write it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::cell::{Done, World, matrix};

matrix! {
    locked_storage_is_waited_for_and_named,
    storage_that_is_unlocked_in_time_is_loaded_into,
    without_podman_it_is_loaded,
    an_old_skopeo_is_named,
}

/// Whether the kernel tells the owner of a lock: not of one that belongs to an open file, as newer containers/storage takes.
#[derive(Clone, Copy, PartialEq)]
enum Owner {
    Process,
    OpenFile,
}

/// Locks a file as containers/storage does, until the file is closed. No other descriptor of this process may have it open.
fn lock(path: PathBuf, owner: Owner) -> File {
    let file = File::options().read(true).write(true).open(&path).expect("a lock file of containers-storage");
    let flock = libc::flock {
        l_type: libc::F_WRLCK.try_into().expect("small"),
        l_whence: libc::SEEK_SET.try_into().expect("small"),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let how = match owner {
        Owner::Process => FcntlArg::F_SETLK(&flock),
        Owner::OpenFile => FcntlArg::F_OFD_SETLK(&flock),
    };
    fcntl(&file, how).expect("nobody else has it");
    file
}

/// Returns the lock files: that of the storage, and that of its layers.
fn lock_files(world: &World) -> [PathBuf; 2] {
    let root = world.graph_root();
    let layers = ["overlay-layers", "vfs-layers"].map(|dir| root.join(dir).join("layers.lock"));
    [layers.into_iter().find(|file| file.exists()).expect("layers"), root.join("storage.lock")]
}

fn build(world: &World, name: &str, flags: &[&str]) -> Done {
    let skill = world.skill(name, "1.0.0");
    world.skillctl(["build".into(), skill.into_os_string()].into_iter().chain(flags.iter().map(OsString::from)))
}

fn locked_storage_is_waited_for_and_named(world: &World) {
    build(world, "first", &[]).ok();
    let mine = format!("process {}", std::process::id());
    for (file, owner, by) in [(0, Owner::OpenFile, "another process"), (1, Owner::Process, &*mine)] {
        let path = lock_files(world)[file].clone();
        let held = lock(path.clone(), owner);
        let said = |seconds| format!("containers-storage is locked by {by} (waited {seconds} s)");
        let started = Instant::now();
        let built = build(world, "second", &["--load-timeout", "2"]);
        assert_eq!(built.code, 0, "{}: {built}", path.display());
        assert_eq!(built.stderr.lines().count(), 1, "{built}");
        assert!(built.stderr.starts_with("Not loaded: ") && built.stderr.contains(&said(2)), "{built}");
        assert!(built.stderr.contains("--load-timeout"), "it does not say what to do: {built}");
        let waited = started.elapsed();
        assert!((2..10).contains(&waited.as_secs()), "{waited:?}");
        // The store has it, and reading needs no lock.
        world.skillctl(["inspect", "acme/second:1.0.0-draft"]).ok();
        assert!(world.skillctl(["list"]).ok().contains("acme/second"));

        let error = world.skillctl(["load", "acme/second:1.0.0-draft", "--load-timeout", "1"]).fails(2);
        let expected = format!("error: Loading localhost/acme/second:1.0.0-draft into containers-storage: {}", said(1));
        assert_eq!(
            error.lines().collect::<Vec<_>>(),
            [&*expected, "hint: wait for it to end, or wait longer with --load-timeout"]
        );
        drop(held);
        world.skillctl(["load", "acme/second:1.0.0-draft"]).ok();
        world.podman(["image", "exists", "localhost/acme/second:1.0.0-draft"]).ok();
        world.skillctl(["unload", "acme/second:1.0.0-draft"]).ok();
        world.skillctl(["prune", "--grace", "0"]).ok();
        assert_eq!(fs::read_dir(world.store().join(".tmp")).expect("a directory").count(), 0);
    }
}

fn storage_that_is_unlocked_in_time_is_loaded_into(world: &World) {
    build(world, "first", &[]).ok();
    let held = lock(lock_files(world)[0].clone(), Owner::OpenFile);
    let second = std::thread::scope(|scope| {
        let second = scope.spawn(|| build(world, "second", &[]));
        std::thread::sleep(Duration::from_secs(1));
        drop(held);
        second.join().expect("a build")
    });
    assert_eq!((second.code, &*second.stderr), (0, ""), "{second}");
    world.podman(["image", "exists", "localhost/acme/second:1.0.0-draft"]).ok();
}

/// Runs skillctl with these programs alone, and with what skopeo needs to enter a user namespace.
fn with_programs(world: &World, programs: &[(&str, &str)], args: &[OsString]) -> Done {
    let bin = world.path("bin");
    fs::create_dir_all(&bin).expect("a directory");
    let namespaces = ["newuidmap", "newgidmap"].map(|name| (name, format!("/usr/bin/{name}")));
    for (name, target) in programs.iter().copied().chain(namespaces.iter().map(|(n, t)| (*n, t.as_str()))) {
        let link = bin.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(target, link).expect("a link");
        }
    }
    let mut command = world.command(env!("CARGO_BIN_EXE_skillctl"), args);
    command.env("PATH", bin);
    Done::of(command)
}

/// skopeo alone loads; what only podman can do says so.
fn without_podman_it_is_loaded(world: &World) {
    let skill = world.skill("hr", "1.0.0");
    let skopeo = [("skopeo", "/usr/bin/skopeo")];
    let built = with_programs(world, &skopeo, &["build".into(), skill.into()]);
    assert_eq!((built.code, &*built.stderr), (0, ""), "{built}");
    world.podman(["image", "exists", "localhost/acme/hr:1.0.0-draft"]).ok();
    let checks = with_programs(world, &skopeo, &["doctor".into(), "--format".into(), "json".into()]);
    let checks: serde_json::Value = serde_json::from_str(&checks.stdout).expect("JSON");
    let podman = checks.as_array().expect("checks").iter().find(|check| check["name"] == "podman").expect("podman");
    assert_ne!(podman["level"], "ok", "{checks}");
    assert!(podman["message"].as_str().is_some_and(|m| m.contains("not installed")), "{checks}");
    // The image has another name, which skopeo would take as well.
    world.skillctl(["tag", "acme/hr:1.0.0-draft", "acme/hr:2"]).ok();
    let error = with_programs(world, &skopeo, &["unload".into(), "acme/hr:2".into()]).fails(2);
    assert!(error.contains("podman is not installed") && error.contains("localhost/acme/hr:1.0.0-draft"), "{error}");
    world.podman(["image", "exists", "localhost/acme/hr:2"]).ok();
}

/// A stand-in, the only one among these tests: no release that we can enter has a skopeo that is too old. It says its version
/// and refuses a flag as skopeo 1.4 does; that is all.
const OLD_SKOPEO: &str = r#"#!/bin/sh
if [ "$1" = --version ]; then echo "skopeo version 1.4.1"; exit; fi
echo 'time="2021-09-01T00:00:00Z" level=fatal msg="unknown flag: --src-shared-blob-dir"' >&2
exit 1
"#;

fn an_old_skopeo_is_named(world: &World) {
    let old = world.path("old-skopeo");
    fs::write(&old, OLD_SKOPEO).expect("a script");
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).expect("an executable");
    let old = [("skopeo", old.to_str().expect("UTF-8"))];
    let (said, fix) = ("skopeo is 1.4, and 1.6 or newer is needed", "install skopeo 1.6 or newer");
    let skill = world.skill("hr", "1.0.0");
    let built = with_programs(world, &old, &["build".into(), skill.into()]);
    assert_eq!((built.code, built.stderr.lines().count()), (0, 1), "{built}");
    assert!(built.stderr.starts_with("Not loaded: ") && built.stderr.contains(said), "{built}");
    assert!(built.stderr.trim_end().ends_with(fix), "{built}");
    let error = with_programs(world, &old, &["load".into(), "acme/hr:1.0.0-draft".into()]).fails(2);
    assert!(error.contains(said) && error.ends_with(&format!("\nhint: {fix}\n")), "{error}");
    let doctor = with_programs(world, &old, &["doctor".into()]);
    assert_eq!(doctor.code, 1, "{doctor}");
    assert!(doctor.stdout.contains("fail  skopeo") && doctor.stdout.contains(&format!("fix: {fix}\n")), "{doctor}");
    world.skillctl(["load", "acme/hr:1.0.0-draft"]).ok();
}
