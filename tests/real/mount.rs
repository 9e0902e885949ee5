//! The three ways into a container: image mounts, image-backed volumes, copies.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::cell::{World, matrix};

matrix! {
    mounted_as_an_image,
    mounted_as_a_volume,
    copied_out_of_a_container,
    mounted_by_the_flags_that_generate_prints,
}

/// Reads the prompt, runs the script, and tries to write, all below /skills/hr.
const USE: &str = "cat /skills/hr/SKILL.md && /skills/hr/scripts/greet.sh && { touch /skills/hr/new 2>&1 || true; }";

fn assert_usable(seen: &str) {
    assert!(seen.contains("# The hr skill, 1.0.0"), "SKILL.md is not readable:\n{seen}");
    assert!(seen.contains("hr 1.0.0 was here"), "the script did not run:\n{seen}");
}

fn assert_read_only(seen: &str) {
    assert!(seen.contains("Read-only file system"), "the mount is writable:\n{seen}");
}

fn mounted_as_an_image(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    let mount = format!("type=image,source={},destination=/skills/hr", built.name);
    let seen = world.in_agent(&["--mount", &mount], USE).ok();
    assert_usable(&seen);
    assert_read_only(&seen);
}

fn mounted_as_a_volume(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    world.podman(["volume", "create", "--driver", "image", "--opt", &format!("image={}", built.name), "hr"]).ok();
    let seen = world.in_agent(&["-v", "hr:/skills/hr:ro"], USE).ok();
    assert_usable(&seen);
    assert_read_only(&seen);
    world.podman(["volume", "rm", "hr"]).ok();
}

fn copied_out_of_a_container(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    let out = world.path("out");
    fs::create_dir(&out).expect("a directory");
    world.podman(["create", "--name", "hr", &built.name, "none"]).ok();
    world.podman(["cp".as_ref(), "hr:/.".as_ref(), out.as_os_str()]).ok();
    world.podman(["rm", "hr"]).ok();
    let mode = |name: &str| fs::metadata(out.join(name)).expect("a file that was copied").permissions().mode() & 0o777;
    assert_eq!(
        [mode("SKILL.md"), mode("skill.yaml"), mode("scripts"), mode("scripts/greet.sh")],
        [0o644, 0o644, 0o755, 0o755]
    );
    assert_usable(&world.in_agent(&["-v", &format!("{}:/skills/hr:ro", out.display())], USE).ok());
}

fn mounted_by_the_flags_that_generate_prints(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    let flags = world.skillctl(["generate", "podman", &built.name, "--mount-root", "/skills"]).ok();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    assert!(flags[1].starts_with(&format!("type=image,source=localhost/acme/hr@{},", built.digest)), "{flags:?}");
    let seen = world.in_agent(&flags, USE).ok();
    assert_usable(&seen);
    assert_read_only(&seen);

    // The tag is another skill's in the store, and podman has the one before: what was asked for is not there.
    let other = world.build("hr", "1.0.1", &["--load=never"]);
    world.skillctl(["tag", &other.name, &built.name, "--force", "--load=never"]).ok();
    let generated = world.skillctl(["generate", "podman", &built.name]);
    assert!(
        generated.stderr.contains("acme/hr:1.0.0-draft is loaded with other content: skillctl load"),
        "{generated}"
    );
    let moved = generated.ok();
    let moved: Vec<&str> = moved.split_whitespace().collect();
    let refused = world.in_agent(&moved, "cat /skills/hr/SKILL.md");
    assert!(refused.code != 0 && refused.stdout.is_empty(), "{refused}");
    // Once it is, it is mounted; also when its tag has gone to another state, whose digest podman shows instead.
    let greeted = || world.in_agent(&moved, "/skills/hr/scripts/greet.sh").ok();
    world.skillctl(["load", &built.name]).ok();
    assert_eq!(greeted(), "hr 1.0.1 was here");
    world.skillctl(["promote", &built.name, "--to", "testing", "--local"]).ok();
    assert_eq!(greeted(), "hr 1.0.1 was here");
}
