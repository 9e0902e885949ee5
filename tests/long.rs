//! Sizes that take minutes: run by `make test-long`, ignored otherwise.

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::Duration;

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use crate::support::{Ran, World};

/// Runs a command and returns what it did, and the most memory it had, in bytes.
fn measured(world: &World, args: &[&str]) -> (Ran, u64) {
    let child = world.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let done = std::thread::spawn(move || Child::wait_with_output(child).unwrap());
    let mut peak = 0;
    while !done.is_finished() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let now = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")?.trim().parse().ok());
        peak = peak.max(now.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    (done.join().unwrap().into(), peak << 10)
}

fn skill() -> World {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world
}

#[test]
#[ignore = "takes a while: make test-long"]
fn three_gigabytes_are_packed_in_100_megabytes_of_memory() {
    let world = skill();
    world.write("hr/assets/model", "");
    // A hole: it is read and compressed like any other file, and takes no space on the disk.
    File::options().write(true).open(world.path("hr/assets/model")).unwrap().set_len(3 << 30).unwrap();
    let (built, peak) = measured(&world, &["build", "hr", "--load=never"]);
    let built = built.ok();
    assert!(built.stdout.contains("4 files, 3.22 GB"), "{built}");
    assert!((1 << 20..100_000_000).contains(&peak), "{peak} bytes of memory");
    let (checked, peak) = measured(&world, &["fsck"]);
    checked.ok();
    assert!(peak < 100_000_000, "{peak} bytes of memory");
    // Beyond the limit it says which flag raises it.
    let refused = world.run(["build", "hr", "--load=never", "--max-size", "3000000000"]).fails(2);
    assert!(refused.stderr.contains("3000000000 bytes") && refused.stderr.contains("--max-size"), "{refused}");
}

#[test]
#[ignore = "takes a while: make test-long"]
fn two_hundred_thousand_files_in_one_directory_are_a_limit_that_can_be_raised() {
    let world = skill();
    world.write("hr/assets/0", "");
    let dir = Dir::open_ambient_dir(world.path("hr/assets"), ambient_authority()).unwrap();
    for file in 1..200_000 {
        dir.create(file.to_string()).unwrap();
    }
    let refused = world.run(["build", "hr", "--load=never"]).fails(2);
    assert!(refused.stderr.contains("200000") && refused.stderr.contains("--max-files"), "{refused}");
    assert!(world.run(["list"]).ok().stdout.starts_with("No images"), "something was published");
    let (built, peak) = measured(&world, &["build", "hr", "--load=never", "--max-files", "200100"]);
    let built = built.ok();
    assert!(built.stdout.contains("200003 files"), "{built}");
    // Memory grows with the names in one directory, and with nothing else.
    assert!(peak < 100_000_000, "{peak} bytes of memory");
    world.run(["fsck"]).ok();
}

/// Makes directories until a file in them has a path of so many bytes from the skill's root.
fn deep(world: &World, length: usize) -> String {
    let mut dir = Dir::open_ambient_dir(world.path("hr"), ambient_authority()).unwrap();
    let mut path = String::new();
    while path.len() + 251 < length {
        let name = "d".repeat(250.min(length - path.len() - 2));
        dir.create_dir(&name).unwrap();
        dir = dir.open_dir(&name).unwrap();
        path = path + &name + "/";
    }
    let name = "f".repeat(length - path.len());
    dir.write(&name, "deep").unwrap();
    path + &name
}

#[test]
#[ignore = "takes a while: make test-long"]
fn a_path_of_4000_bytes_is_packed_and_one_that_nothing_opens_is_refused() {
    let world = skill();
    let path = deep(&world, 4000);
    assert_eq!(path.len(), 4000);
    let built = world.run(["build", "hr", "--load=never", "--format", "json"]).ok().json();
    assert_eq!(built["files"], 4);
    world.run(["fsck"]).ok();
    // tar sees it as it was.
    let layer = built["layer"].as_str().unwrap().replace(':', "/");
    let layer = File::open(world.store().join("blobs").join(layer)).unwrap();
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(layer));
    let found = archive.entries().unwrap().any(|entry| entry.unwrap().path_bytes() == path.as_bytes());
    assert!(found, "no entry of that name");

    let world = skill();
    deep(&world, 4097);
    let refused = world.run(["build", "hr", "--load=never"]).fails(2);
    assert!(refused.stderr.contains("a path of 4097 bytes"), "{refused}");
}
