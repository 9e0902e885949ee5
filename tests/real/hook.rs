//! Skills in containers that only name them: the precreate hook of podman.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cell::{Done, World, matrix};

matrix! {
    a_container_gets_the_skills_that_it_names,
    a_skill_stays_while_a_container_runs,
    a_container_starts_after_a_reboot,
    other_hooks_go_on_working,
    a_missing_program_is_told,
    what_may_not_be_asked_for_starts_no_container,
    a_tree_that_was_altered_gets_into_no_container,
    an_image_does_not_choose_what_it_sees,
    every_user_namespace_sees_it,
    many_containers_start_at_once,
    a_runtime_alone_mounts_it,
    a_container_gets_a_copy_of_its_own,
    what_only_containers_storage_has_is_taken_from_there,
    a_skill_is_a_device,
    what_is_mounted_already_is_not_hidden,
    the_cache_is_of_its_user_alone,
    prune_takes_nothing_from_a_container,
}

/// What only root can set up.
mod rootful {
    use super::{a_hostile_image_gets_nothing_outside, the_policy_of_the_machine_is_kept};
    use crate::cell::matrix;

    matrix! { @roots the_policy_of_the_machine_is_kept, a_hostile_image_gets_nothing_outside }
}

const SKILLS: &str = "io.skillimage.skills";
pub const HR: &str = "acme/hr:1.0.0-draft";

/// Builds the skill, without loading it: the hook takes it from the store. Enables the hook.
fn world_with_hook(world: &World) {
    world.build("hr", "1.0.0", &["--load=never"]);
    world.skillctl(["hook", "enable"]).ok();
    world.skillctl(["hook", "status"]).ok();
}

pub fn with(skills: &str) -> String {
    format!("{SKILLS}={skills}")
}

/// Runs a shell command in a container that names skills.
fn run(world: &World, skills: &str, flags: &[&str], script: &str) -> Done {
    world.in_agent(&[&["--annotation", &with(skills)], flags].concat(), script)
}

fn cache(world: &World) -> PathBuf {
    world.store().with_file_name("unpacked")
}

pub fn log(world: &World) -> String {
    fs::read_to_string(world.store().with_file_name("hook.log")).unwrap_or_default()
}

fn a_container_gets_the_skills_that_it_names(world: &World) {
    let before = world.skillctl(["hook", "status", "--format", "json"]);
    assert_eq!((before.code, before.stdout.contains("\"enabled\": false")), (1, true), "{before}");
    world_with_hook(world);
    world.build("legal", "2.1.0", &["--load=never"]);
    let script =
        "cat /skills/hr/SKILL.md && /skills/hr/scripts/greet.sh && cat /opt/legal/SKILL.md && touch /skills/hr/new";
    let both = format!("{HR};acme/legal:2.1.0-draft=/opt/legal");
    let done = run(world, &both, &[], script);
    let said = ["# The hr skill, 1.0.0", "hr 1.0.0 was here", "# The legal skill, 2.1.0"];
    assert!(said.iter().all(|text| done.stdout.contains(text)), "{done}");
    assert!(done.code == 1 && done.stderr.contains("Read-only file system"), "{done}");
    // Of whom the container does not know: no mount, and nothing made.
    assert_eq!(world.in_agent(&[], "ls / | cat; test ! -e /skills").ok(), "bin\ndev\netc\nproc\nrun\nsys");
    // Where its agent looks, in directories that it can write to.
    let flags = ["--annotation", "io.skillimage.target=claude", "--user", "1000", "--env", "HOME=/home/u"];
    let script = "id -u && /home/u/.claude/skills/hr/scripts/greet.sh && touch /home/u/.claude/settings && \
                  stat -c %u:%g:%a /home/u/.claude /home/u/.claude/skills";
    assert_eq!(run(world, HR, &flags, script).ok(), "1000\nhr 1.0.0 was here\n1000:0:755\n1000:0:755");
    // Twice is no other than once, and without the hook a name is only a name.
    let hook = world.skillctl(["hook", "enable"]).ok();
    assert_eq!(world.skillctl(["hook", "enable"]).ok(), hook);
    world.skillctl(["hook", "disable"]).ok();
    world.skillctl(["hook", "status"]).fails(1);
    run(world, HR, &[], "test ! -e /skills").ok();
}

fn a_skill_stays_while_a_container_runs(world: &World) {
    world_with_hook(world);
    world.skillctl(["load", HR]).ok();
    let annotation = with(HR);
    let agent = world.agent();
    let flags = ["run", "-d", "--name", "long", "--network", "none", "--annotation", &annotation, agent];
    world
        .podman(flags.iter().chain(&["sh", "-c", "while test ! -e /stop; do cat /skills/hr/SKILL.md >/dev/null; done"]))
        .ok();
    let greet = || world.podman(["exec", "long", "/skills/hr/scripts/greet.sh"]);
    assert_eq!(greet().ok(), "hr 1.0.0 was here");
    world.podman(["rmi", &format!("localhost/{HR}")]).ok();
    world.skillctl(["rm", "-f", HR]).ok();
    assert_eq!(greet().ok(), "hr 1.0.0 was here");
    let out = world.path("out");
    world.podman(["cp".as_ref(), "long:/skills/hr".as_ref(), out.as_os_str()]).ok();
    assert_eq!(fs::metadata(out.join("scripts/greet.sh")).expect("a copy").permissions().mode() & 0o777, 0o755);
    // What is gone from the store does not come back with a restart, and says so.
    world.podman(["kill", "long"]).ok();
    world.podman(["wait", "long"]);
    assert_ne!(world.podman(["start", "long"]).code, 0);
    assert!(log(world).contains(&format!("image not found: {HR}")), "{}", log(world));
    world.build("hr", "1.0.0", &["--load=never"]);
    world.podman(["start", "long"]).ok();
    assert_eq!(greet().ok(), "hr 1.0.0 was here");
    world.podman(["rm", "-f", "-t", "0", "long"]).ok();
}

fn a_container_starts_after_a_reboot(world: &World) {
    world_with_hook(world);
    let annotation = with(HR);
    let flags = ["run", "-d", "--name", "again", "--network", "none", "--annotation", &annotation, world.agent()];
    let serve = "while test ! -e /stop; do cat /skills/hr/SKILL.md >/dev/null; done";
    world.podman(flags.iter().chain(&["sh", "-c", serve])).ok();
    world.podman(["kill", "again"]).ok();
    world.podman(["wait", "again"]);
    // podman takes the machine for started anew where this file of its is gone from /run.
    let alive = match world.is_root() {
        true => PathBuf::from("/run/libpod/alive"),
        false => PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").expect("it is set")).join("libpod/tmp/alive"),
    };
    fs::remove_file(&alive).unwrap_or_else(|e| panic!("{}: {e}", alive.display()));
    world.podman(["start", "again"]).ok();
    assert!(alive.exists());
    let greet = world.podman(["exec", "again", "/skills/hr/scripts/greet.sh"]);
    assert_eq!(greet.ok(), "hr 1.0.0 was here");
    world.podman(["rm", "-f", "-t", "0", "again"]).ok();
}

fn other_hooks_go_on_working(world: &World) {
    let (dir, marker) = (world.path("hooks"), world.path("marker"));
    fs::create_dir(&dir).expect("a directory");
    let hook = json!({
        "version": "1.0.0", "hook": {"path": "/bin/sh", "args": ["sh", "-c", format!("cat >/dev/null; echo ran >>{}", marker.display())]},
        "when": {"always": true}, "stages": ["createRuntime"],
    });
    fs::write(dir.join("10-other.json"), hook.to_string()).expect("a hook");
    let conf = match world.is_root() {
        true => PathBuf::from("/etc/containers/containers.conf.d"),
        false => world.home().join(".config/containers/containers.conf.d"),
    };
    fs::create_dir_all(&conf).expect("a directory");
    fs::write(conf.join("10-other.conf"), format!("[engine]\nhooks_dir = [{:?}]\n", dir.display().to_string()))
        .expect("a file");
    let ran = || fs::read_to_string(&marker).unwrap_or_default().lines().count();
    world.in_agent(&[], "true").ok();
    assert_eq!(ran(), 1);
    world_with_hook(world);
    run(world, HR, &[], "/skills/hr/scripts/greet.sh").ok();
    world.in_agent(&[], "true").ok();
    assert_eq!(ran(), 3);
    world.skillctl(["hook", "disable"]).ok();
    world.in_agent(&[], "true").ok();
    assert_eq!(ran(), 4);
}

fn a_missing_program_is_told(world: &World) {
    world_with_hook(world);
    let status = world.skillctl(["hook", "status", "--format", "json"]).json();
    let hook = status["hook"].as_str().expect("a file");
    let text = fs::read_to_string(hook).expect("it");
    let program = status["program"].as_str().expect("a program");
    assert!(program.ends_with("/skillctl-hook"), "{program}");
    fs::write(hook, text.replace(program, "/nowhere/skillctl-hook")).expect("a hook");
    // podman leaves such a hook out.
    run(world, HR, &[], "test ! -e /skills").ok();
    let done = world.skillctl(["hook", "status"]);
    assert!(
        done.code == 1
            && done
                .stdout
                .contains("Problem:      /nowhere/skillctl-hook is not there: containers are started without"),
        "{done}"
    );
    fs::write(hook, "{").expect("a hook");
    let done = world.skillctl(["doctor"]);
    let fix = "fix: skillctl hook enable\n";
    assert!(done.code == 1 && done.stdout.contains("is no JSON") && done.stdout.contains(fix), "{done}");
    let done = world.skillctl(["hook", "status"]);
    assert!(done.code == 1 && done.stdout.contains("is no JSON"), "{done}");
    world.skillctl(["hook", "enable"]).ok();
    run(world, HR, &[], "/skills/hr/scripts/greet.sh").ok();
}

fn what_may_not_be_asked_for_starts_no_container(world: &World) {
    world_with_hook(world);
    let cases = [
        ("acme/none:1".to_owned(), "image not found: acme/none:1"),
        ("acme/hr".to_owned(), "image not found: acme/hr:latest (there is acme/hr:1.0.0-draft)"),
        ("/etc".to_owned(), "annotation io.skillimage.skills: "),
        (format!("{HR}=relative"), "must be an absolute path"),
        (format!("{HR}=/a/../b"), "must be an absolute path"),
        (format!("{HR}=/"), "must be an absolute path"),
        (format!("{HR}=/proc/1"), "which is the runtime's"),
        (format!("{HR}=/bin/sh"), "/bin/busybox is no directory"),
        (format!("{HR}=/bin/busybox"), "/bin/busybox is no directory"),
        (format!("{HR}=/data"), "something is mounted at /data"),
        (format!("{HR};{HR}"), "it would meet acme/hr:1.0.0-draft, which is mounted at /skills/hr"),
        (format!("{HR}=/a;{HR}=/a/b"), "it would meet"),
        (format!("{HR}=/a/b;{HR}=/a"), "it would meet"),
        (format!("{HR}=/etc"), "it would hide what is mounted at /etc/"),
        (format!("{HR}=/r/proc"), "the destination /proc is in /proc"),
        (format!("{HR}=/r/sys/x"), "the destination /sys/x is in /sys"),
        (format!("{HR}=/x;{HR}=/r/x"), "it would meet"),
    ];
    // A link in the image that leads to its root.
    let tar = world.path("links.tar");
    world.agent();
    std::os::unix::fs::symlink("/", world.path("agent/r")).expect("a link");
    world
        .run("tar", ["-C".as_ref(), world.path("agent").as_os_str(), "-cf".as_ref(), tar.as_os_str(), ".".as_ref()])
        .ok();
    world.podman(["import".as_ref(), "-q".as_ref(), tar.as_os_str(), world.agent().as_ref()]).ok();
    for (skills, why) in cases {
        let done = run(world, &skills, &["--tmpfs", "/data"], "echo started");
        assert!(done.code == 126 && !done.stdout.contains("started"), "{done}");
        assert!(done.stderr.contains("skillctl doctor says why"), "{done}");
        let log = log(world);
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains(why), "{why}\n{last}");
        let doctor = world.skillctl(["doctor"]).stdout;
        assert!(doctor.lines().any(|line| line.contains("hook") && line.contains(why)), "{doctor}");
    }
}

fn the_policy_of_the_machine_is_kept(world: &World) {
    world_with_hook(world);
    fs::create_dir_all("/etc/skillctl").expect("a directory");
    let cases = [
        ("allowed_repositories = [\"acme\"]", ""),
        ("allowed_repositories = [\"other\"]", "acme/hr is not in allowed_repositories (/etc/skillctl/hook.toml)"),
        (
            "allowed_repositories = [\"acme\"]\nallowed_states = [\"published\"]",
            "in the state draft, which is not in allowed_states",
        ),
        ("allowed_repositories = [\"acme\"]\nrequire_digest = true", "has no digest"),
        ("allowed_repositories = [\"acme\"]\nmax_bytes = 10", "exceeds the limit of 10 bytes"),
        ("allowed_repositories = []\nlog = [\"syslog\"]", "unknown variant `syslog`, expected `journald` or `file`"),
        ("allowed_repositories = [\"acme/*\"]", "write \\\"acme\\\", which includes everything below it"),
        ("allow = [\"acme\"]", "/etc/skillctl/hook.toml: line 1: unknown field"),
    ];
    for (policy, why) in cases {
        fs::write("/etc/skillctl/hook.toml", policy).expect("a policy");
        let done = run(world, HR, &[], "/skills/hr/scripts/greet.sh");
        assert_eq!(done.code, if why.is_empty() { 0 } else { 126 }, "{policy}\n{done}");
        assert!(log(world).lines().last().unwrap_or_default().contains(why), "{why}\n{}", log(world));
        // Containers that ask for nothing do not depend on it.
        world.in_agent(&[], "true").ok();
    }
    // podman starts the hook all the same; it is not enabled with a mistake in the policy.
    let status = |problem: bool| -> Value {
        let done = world.skillctl(["hook", "status", "--format", "json"]);
        assert_eq!(done.code == 1, problem, "{done}");
        serde_json::from_str(&done.stdout).expect("JSON")
    };
    let told = || {
        world
            .skillctl(["doctor"])
            .stdout
            .lines()
            .skip_while(|line| !line.contains(" hook "))
            .take(2)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let doctor = told();
    assert!(doctor.starts_with("fail") && doctor.matches("unknown field").count() == 1, "{doctor}");
    assert!(doctor.contains("hook.toml: line 1: ") && doctor.contains("fix: edit /etc/skillctl/hook.toml"), "{doctor}");
    let before = status(true);
    assert_eq!(before["enabled"], true, "{before}");
    let hook = fs::read_to_string(before["hook"].as_str().expect("a file")).expect("it");
    world.skillctl(["hook", "disable"]).ok();
    world.skillctl(["hook", "enable"]).refused(&["/etc/skillctl/hook.toml"], &["unknown field `allow`"]);
    let nothing = status(true);
    assert_eq!((&nothing["enabled"], nothing.get("hook")), (&json!(false), None), "{nothing}");
    fs::remove_file("/etc/skillctl/hook.toml").expect("it goes");
    world.skillctl(["hook", "enable"]).ok();
    assert_eq!(fs::read_to_string(status(false)["hook"].as_str().expect("a file")).expect("it"), hook);
    // It says where that is told.
    let before = log(world);
    fs::write("/etc/skillctl/hook.toml", "allowed_repositories = []\nlog = [\"journald\"]").expect("a policy");
    assert_eq!(run(world, HR, &[], "true").code, 126);
    assert_eq!(log(world), before);
    // A digest under a name that is allowed is no other repository's image, also when that has lost its own name.
    world.skill("secret", "1.0.0");
    let dir = world.path("secret").display().to_string();
    world.skillctl(["build", "--load=never", "-t", "other/secret:1", &dir]).ok();
    let digest = world.skillctl(["inspect", "--format", "json", "other/secret:1"]).json()["digest"]
        .as_str()
        .expect("it")
        .to_owned();
    world.skillctl(["rm", "-f", "other/secret:1"]).ok();
    fs::write("/etc/skillctl/hook.toml", "allowed_repositories = [\"acme\"]").expect("a policy");
    assert_eq!(run(world, &format!("acme/any@{digest}"), &[], "true").code, 126);
    // A policy that is out of reach is not none.
    fs::remove_file("/etc/skillctl/hook.toml").expect("the policy");
    std::os::unix::fs::symlink("/nowhere/hook.toml", "/etc/skillctl/hook.toml").expect("a link");
    assert_eq!(run(world, HR, &[], "true").code, 126);
    world.skillctl(["hook", "status"]).fails(1);
    fs::remove_file("/etc/skillctl/hook.toml").expect("the link");
    run(world, HR, &[], "true").ok();
}

fn what_only_containers_storage_has_is_taken_from_there(world: &World) {
    let built = world.build("hr", "1.0.0", &["--load=always"]);
    world.skillctl(["hook", "enable"]).ok();
    world.skillctl(["rm", "-f", "--keep-loaded", HR]).ok();
    assert_eq!(run(world, HR, &[], "/skills/hr/scripts/greet.sh").ok(), "hr 1.0.0 was here");
    let pinned = format!("acme/hr@{}", built.digest);
    assert_eq!(run(world, &pinned, &[], "/skills/hr/scripts/greet.sh").ok(), "hr 1.0.0 was here");
    if world.is_root() {
        // A tag there says nothing of the state, and a digest does.
        fs::create_dir_all("/etc/skillctl").expect("a directory");
        fs::write("/etc/skillctl/hook.toml", "allowed_repositories = [\"acme\"]\nallowed_states = [\"draft\"]")
            .expect("a policy");
        assert_eq!(run(world, HR, &[], "true").code, 126);
        assert!(log(world).lines().last().unwrap_or_default().contains("of no known state"), "{}", log(world));
        run(world, &pinned, &[], "true").ok();
        fs::remove_file("/etc/skillctl/hook.toml").expect("the policy");
    }
    // What somebody has changed there is not what the digest says.
    fs::remove_dir_all(cache(world)).expect("the cache");
    let found = world.run("find", [world.graph_root().as_os_str(), "-name".as_ref(), "greet.sh".as_ref()]).ok();
    let script = found.lines().next().expect("the script");
    let size = fs::metadata(script).expect("the script").len();
    fs::write(script, vec![b'#'; size as usize]).expect("the script");
    let done = run(world, HR, &[], "echo started");
    assert!(done.code == 126 && !done.stdout.contains("started"), "{done}");
    assert!(log(world).lines().last().unwrap_or_default().contains("is damaged"), "{}", log(world));
    world.podman(["rmi", "-f", &built.name]).ok();
}

fn a_skill_is_a_device(world: &World) {
    world.build("hr", "1.0.0", &["--load=always"]);
    let (major, minor) = world.podman_version();
    if !world.is_root() && (major, minor) < (5, 5) {
        let error = world.skillctl(["cdi", "enable", HR]).refused(&["before 5.5"], &["hook enable"]);
        assert!(error.contains("hint: "), "{error}");
        return;
    }
    let own = world.home().join(".config/cdi").display().to_string();
    let global: &[&str] = if world.is_root() { &[] } else { &["--cdi-spec-dir", &own] };
    let run = |device: &str, script: &str| {
        let args = ["run", "--rm", "--network", "none", "--device", device, world.agent(), "sh", "-c", script];
        world.podman(global.iter().chain(&args))
    };
    let said = world.skillctl(["cdi", "enable", HR]).ok();
    assert_eq!(said, format!("skillimage.io/skill=acme.hr  {HR} at /skills/hr"));
    let script = "/skills/hr/scripts/greet.sh && touch /skills/hr/new";
    let done = run("skillimage.io/skill=acme.hr", script);
    assert!(done.stdout.contains("hr 1.0.0 was here") && done.stderr.contains("Read-only file system"), "{done}");
    // Another version in its place, and no image needed any more.
    world.build("hr", "1.1.0", &["--load=never"]);
    let said = world.skillctl(["cdi", "enable", "acme/hr:1.1.0-draft"]).ok();
    assert_eq!(said, format!("skillimage.io/skill=acme.hr  acme/hr:1.1.0-draft at /skills/hr, instead of {HR}"));
    world.podman(["rmi", &format!("localhost/{HR}")]).ok();
    assert_eq!(run("skillimage.io/skill=acme.hr", "/skills/hr/scripts/greet.sh").ok(), "hr 1.1.0 was here");
    assert_eq!(world.skillctl(["cdi", "list"]).ok(), "skillimage.io/skill=acme.hr  /skills/hr  acme/hr:1.1.0-draft");
    // It stays where it is, unless another place is given.
    let elsewhere = ["cdi", "enable", "acme/hr:1.1.0-draft", "--mount-root", "/opt"];
    assert!(world.skillctl(elsewhere).ok().ends_with(" at /opt/hr, instead of at /skills/hr"));
    let said = world.skillctl(["cdi", "enable", HR]).ok();
    assert_eq!(said, format!("skillimage.io/skill=acme.hr  {HR} at /opt/hr, instead of acme/hr:1.1.0-draft"));
    let said = world.skillctl(["cdi", "enable", "acme/hr:1.1.0-draft", "--mount-root", "/skills"]).ok();
    assert_eq!(
        said,
        format!("skillimage.io/skill=acme.hr  acme/hr:1.1.0-draft at /skills/hr, instead of {HR} at /opt/hr")
    );
    // Of another repository it would be somebody else's skill.
    let other = "registry.example/acme/hr:2.0.0";
    world.build("hr", "2.0.0", &["--load=never"]);
    world.skillctl(["tag", "acme/hr:2.0.0-draft", other, "--load=never"]).ok();
    world.skillctl(["rm", "-f", "acme/hr:2.0.0-draft"]).ok();
    let refused = world.skillctl(["cdi", "enable", other]);
    refused.refused(&["skillimage.io/skill=acme.hr is of acme/hr:1.1.0-draft", other], &["cdi disable acme.hr"]);
    assert_eq!(run("skillimage.io/skill=acme.hr", "/skills/hr/scripts/greet.sh").ok(), "hr 1.1.0 was here");
    world.skillctl(["rm", "-f", "acme/hr:1.1.0-draft"]).ok();
    world.skillctl(["cdi", "enable", other]).refused(&["skillimage.io/skill=acme.hr is of acme/hr@sha256:"], &[]);
    // Of what the store has no more nobody can tell, and it is said.
    world.skillctl(["prune", "--grace", "0"]).ok();
    let said = world.skillctl(["cdi", "enable", other]).ok();
    assert!(said.ends_with(&format!("{other} at /skills/hr, instead of what is not in the store any more")), "{said}");
    // Nor is the image needed to take it away.
    world.skillctl(["rm", "-f", other]).ok();
    world.skillctl(["prune", "--grace", "0"]).ok();
    let gone = "skillimage.io/skill=acme.hr  /skills/hr  not in the store any more";
    assert_eq!(world.skillctl(["cdi", "list"]).ok(), gone);
    world.skillctl(["cdi", "disable", other]).ok();
    assert_ne!(run("skillimage.io/skill=acme.hr", "true").code, 0);
    assert_eq!(world.skillctl(["cdi", "list"]).ok(), "");
    world.skillctl(["cdi", "disable", "acme.hr"]).refused(&["no device"], &[]);
}

fn a_tree_that_was_altered_gets_into_no_container(world: &World) {
    world_with_hook(world);
    let read = || run(world, HR, &[], "cat /skills/hr/scripts/greet.sh /skills/hr/more 2>/dev/null").stdout;
    let as_built = read();
    let tree =
        fs::read_dir(cache(world)).expect("a cache").flatten().map(|entry| entry.path()).find(|path| path.is_dir());
    let tree = tree.expect("a tree");
    let script = tree.join("scripts/greet.sh");
    let altered: [&dyn Fn(); 4] = [
        &|| fs::write(&script, "#!/bin/sh\necho owned\n").expect("a script"),
        &|| {
            // With the same size and modification time.
            let (old, time) =
                (fs::read(&script).expect("it"), fs::metadata(&script).and_then(|m| m.modified()).expect("it"));
            fs::write(&script, vec![b'#'; old.len()]).expect("a script");
            fs::File::options().write(true).open(&script).and_then(|f| f.set_modified(time)).expect("a time");
        },
        &|| fs::write(tree.join("more"), "more").expect("a file"),
        &|| fs::remove_file(&script).expect("a file"),
    ];
    for alter in altered {
        alter();
        assert_eq!(read(), as_built);
        assert!(log(world).lines().last().unwrap_or_default().contains("was not as it was unpacked"), "{}", log(world));
    }
    // Nor what cannot be made anew.
    fs::write(&script, "#!/bin/sh\necho owned\n").expect("a script");
    let blobs = world.store().join("blobs/sha256");
    let digest = world
        .stored(HR, world.skillctl(["inspect", "--format", "json", HR]).json()["digest"].as_str().expect("a digest"));
    let layer =
        digest.manifest["layers"][0]["digest"].as_str().expect("a layer").trim_start_matches("sha256:").to_owned();
    fs::remove_file(blobs.join(layer)).expect("a blob");
    assert_eq!(run(world, HR, &[], "echo started").code, 126);
}

fn an_image_does_not_choose_what_it_sees(world: &World) {
    world_with_hook(world);
    let file = world.path("Containerfile");
    // With a volume in the place of what tells the hook which container it is for.
    fs::write(&file, format!("FROM {}\nVOLUME /run/.containerenv\n", world.agent())).expect("a Containerfile");
    let (annotation, file, dir) = (with(HR), file.display().to_string(), world.path("").display().to_string());
    let build = ["build", "-q", "--format", "oci", "--annotation", &annotation, "-t", "hostile", "-f", &file, &dir];
    world.podman(build).ok();
    let hooks = spec_hooks(world);
    let run = ["run", "--rm", "--network", "none", "localhost/hostile", "sh", "-c", "test ! -e /skills"];
    for global in [&[][..], &["--hooks-dir", &hooks]] {
        let done = world.podman(global.iter().chain(&run));
        match world.podman_version() {
            (4, 3) => {
                assert!(done.code != 0 && done.stdout.is_empty(), "{done}");
                let why = "is that of the container's image, which may not choose skills";
                assert!(log(world).lines().last().unwrap_or_default().contains(why), "{}", log(world));
                let _ = fs::remove_file(world.store().with_file_name("hook.log"));
            }
            _ => drop(done.ok()),
        }
    }
}

fn what_is_mounted_already_is_not_hidden(world: &World) {
    world_with_hook(world);
    let dir = world.path("data");
    fs::create_dir(&dir).expect("a directory");
    let (inside, same) = (format!("{}:/skills/hr/data", dir.display()), format!("{}:/skills/hr", dir.display()));
    for volume in [&inside, &same] {
        assert_eq!(run(world, HR, &["-v", volume], "true").code, 126, "{volume}");
        let done = created(world, HR, &["-v", volume], "echo started");
        assert!(done.code != 0 && !done.stdout.contains("started"), "{done}");
    }
    // An image with something of its own in the place of a copy.
    let root = world.path("agent");
    world.agent();
    fs::create_dir_all(root.join("skills/hr")).expect("a directory");
    fs::write(root.join("skills/hr/SKILL.md"), "of the image").expect("a file");
    let tar = world.path("own.tar");
    world.run("tar", ["-C".as_ref(), root.as_os_str(), "-cf".as_ref(), tar.as_os_str(), ".".as_ref()]).ok();
    world.podman(["import".as_ref(), "-q".as_ref(), tar.as_os_str(), world.agent().as_ref()]).ok();
    let done = run(world, HR, &["--annotation", "io.skillimage.mode=extract"], "cat /skills/hr/SKILL.md");
    assert!(done.code != 0 && !done.stdout.contains("of the image"), "{done}");
}

fn the_cache_is_of_its_user_alone(world: &World) {
    world_with_hook(world);
    created(world, HR, &[], "true").ok();
    let modes = |name: &str| {
        let path = world.store().with_file_name(name);
        fs::metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o7777
    };
    let _ = created(world, "acme/none", &[], "true");
    assert_eq!([modes("unpacked"), modes("unpacked/.lock"), modes("hook.log")], [0o755, 0o600, 0o600]);
    // The hook and the verbs see one tree, also where they have other numbers for its user.
    world.skillctl(["generate", "cdi", HR]).ok();
    run(world, HR, &[], "true").ok();
    world.skillctl(["generate", "cdi", HR]).ok();
    let names: Vec<_> = fs::read_dir(cache(world)).expect("a cache").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    // One that others can write to is not used.
    fs::set_permissions(cache(world), fs::Permissions::from_mode(0o777)).expect("a mode");
    assert_eq!(run(world, HR, &[], "true").code, 126);
    assert!(log(world).lines().last().unwrap_or_default().contains("can be written to by others"), "{}", log(world));
}

fn prune_takes_nothing_from_a_container(world: &World) {
    world_with_hook(world);
    let (annotation, agent) = (with(HR), world.agent());
    let odd = world.path("odd\u{e9}");
    fs::create_dir(&odd).expect("a directory");
    let volume = format!("{}:/odd\u{e9}", odd.display());
    let args = ["run", "-d", "--name", "long", "--network", "none", "-v", &volume, "--annotation", &annotation, agent];
    world
        .podman(args.iter().chain(&["sh", "-c", "while test ! -e /stop; do cat /skills/hr/SKILL.md >/dev/null; done"]))
        .ok();
    let seal = fs::read_dir(cache(world)).expect("a cache").flatten().map(|entry| entry.path());
    let seal = seal.into_iter().find(|path| path.extension().is_some_and(|end| end == "seal")).expect("a seal");
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 86_400);
    let age = || fs::File::options().write(true).open(&seal).and_then(|file| file.set_modified(then)).expect("a time");
    age();
    assert_eq!(world.skillctl(["prune", "--format", "json"]).json()["trees"], json!([]));
    world.podman(["exec", "long", "/skills/hr/scripts/greet.sh"]).ok();
    world.podman(["rm", "-f", "-t", "0", "long"]).ok();
    age();
    assert_eq!(world.skillctl(["prune", "--format", "json"]).json()["trees"].as_array().map(Vec::len), Some(1));
}

fn every_user_namespace_sees_it(world: &World) {
    world_with_hook(world);
    let spaces: &[&[&str]] = match world.is_root() {
        true => &[&["--uidmap", "0:200000:65536"], &["--uidmap", "0:200000:65536", "--user", "1000"]],
        false => &[&["--userns", "keep-id"], &["--uidmap", "0:1:1000", "--user", "7"]],
    };
    for space in spaces {
        let flags = [space, &["--annotation", "io.skillimage.target=claude", "--env", "HOME=/home/u"][..]].concat();
        let script =
            "/home/u/.claude/skills/hr/scripts/greet.sh && touch /home/u/.claude/mine && test -O /home/u/.claude";
        assert_eq!(run(world, HR, &flags, script).ok(), "hr 1.0.0 was here", "{space:?}");
    }
    // podman's check of its storage takes the copies that it made for other users for damaged, without any hook.
    world.podman(["rmi", "-f", world.agent()]).ok();
}

fn many_containers_start_at_once(world: &World) {
    world_with_hook(world);
    let (agent, annotation, said) = (world.agent(), with(HR), world.path("said"));
    fs::create_dir(&said).expect("a directory");
    let volume = format!("{}:/said", said.display());
    let flags = ["run", "--rm", "--network", "none", "--annotation", &annotation, "-v", &volume, agent, "sh", "-c"];
    let many = if std::env::var_os("SKILLCTL_TEST_LONG").is_some() { 50 } else { 10 };
    let started: Vec<_> = (0..many)
        .map(|number| {
            // Into a file: podman 4.3 may lose what a short container prints while others start.
            let script = format!("/skills/hr/scripts/greet.sh >/said/{number}");
            let mut command = world.command("podman", [&flags[..], &[&script]].concat());
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().expect("podman")
        })
        .collect();
    for (number, child) in started.into_iter().enumerate() {
        let output = child.wait_with_output().expect("podman");
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        let said = fs::read_to_string(said.join(number.to_string())).expect("what it said");
        assert_eq!(said.trim_end(), "hr 1.0.0 was here");
    }
    let trees = fs::read_dir(cache(world)).expect("a cache").flatten().filter(|entry| entry.path().is_dir()).count();
    assert_eq!((trees, log(world)), (1, String::new()));
}

fn a_hostile_image_gets_nothing_outside(world: &World) {
    world_with_hook(world);
    world.agent();
    let outside = world.path("outside");
    fs::create_dir(&outside).expect("a directory");
    let levels = ["home", "home/u", "home/u/.claude", "home/u/.claude/skills", "home/u/.claude/skills/hr"];
    for (number, level) in levels.iter().enumerate() {
        let root = world.path(&format!("hostile{number}"));
        fs::create_dir_all(root.join(level).parent().expect("a parent")).expect("a directory");
        world.run("cp", ["-a".as_ref(), world.path("agent/bin").as_os_str(), root.as_os_str()]).ok();
        std::os::unix::fs::symlink(&outside, root.join(level)).expect("a link");
        let tar = world.path("hostile.tar");
        world.run("tar", ["-C".as_ref(), root.as_os_str(), "-cf".as_ref(), tar.as_os_str(), ".".as_ref()]).ok();
        world.podman(["import".as_ref(), "-q".as_ref(), tar.as_os_str(), "localhost/hostile".as_ref()]).ok();
        let annotation = with(HR);
        let flags =
            ["--annotation", &annotation, "--annotation", "io.skillimage.target=claude", "--env", "HOME=/home/u"];
        let done = world
            .podman(["run", "--rm", "--network", "none"].iter().chain(&flags).chain(&["localhost/hostile", "true"]));
        assert_eq!(done.code, 126, "{level}: {done}");
        assert_eq!(fs::read_dir(&outside).expect("it").count(), 0, "{level}");
    }
}

/// Runs a shell command in a container that names skills, with the hook that runtimes start and not that of podman.
fn created(world: &World, skills: &str, flags: &[&str], script: &str) -> Done {
    let (dir, annotation) = (spec_hooks(world), with(skills));
    let run = ["--hooks-dir", &dir, "run", "--rm", "--network", "none", "--annotation", &annotation];
    world.podman(run.iter().chain(flags).chain(&[world.agent(), "sh", "-c", script]))
}

/// Makes a directory with that hook alone.
pub fn spec_hooks(world: &World) -> String {
    let dir = world.path("spec-hooks");
    if !dir.exists() {
        fs::create_dir(&dir).expect("a directory");
        let program = Path::new(env!("CARGO_BIN_EXE_skillctl")).parent().expect("a directory").display().to_string();
        let hook = include_str!("../../hooks/50-skillctl.json").replace("@BINDIR@", &program);
        fs::write(dir.join("50-skillctl.json"), hook).expect("a hook");
    }
    dir.display().to_string()
}

/// The flags that choose each runtime.
pub const CRUN: &[&str] = &["--runtime", "crun"];
/// runc always wants cgroups. Where there is no controller for processes, 0 keeps podman from naming a limit; -1 names one.
pub const RUNC: &[&str] = &["--runtime", "runc", "--cgroups", "enabled", "--pids-limit", "0"];

/// Returns the flags of each runtime that works here.
fn runtimes(world: &World) -> Vec<&'static [&'static str]> {
    let runc = world.in_agent(RUNC, "true").code == 0;
    [CRUN, RUNC].into_iter().filter(|all| all[1] == "crun" || runc).collect()
}

fn a_runtime_alone_mounts_it(world: &World) {
    world.build("hr", "1.0.0", &["--load=never"]);
    let agent = ["--annotation", "io.skillimage.target=claude", "--user", "1000", "--env", "HOME=/home/u"];
    for runtime in runtimes(world) {
        let script = "/skills/hr/scripts/greet.sh && { touch /skills/hr/new || true; } && cat /proc/mounts";
        let done = created(world, HR, runtime, script);
        assert!(done.stdout.contains("hr 1.0.0 was here") && done.stderr.contains("Read-only file system"), "{done}");
        let mount = done.stdout.lines().find(|line| line.contains(" /skills/hr ")).unwrap_or_default();
        assert!(
            ["ro", "nosuid", "nodev"].iter().all(|flag| mount.split([' ', ',']).any(|own| own == *flag)),
            "{mount}"
        );
        let script = "/home/u/.claude/skills/hr/scripts/greet.sh && touch /home/u/.claude/settings";
        assert_eq!(created(world, HR, &[runtime, &agent].concat(), script).ok(), "hr 1.0.0 was here");
        let done = created(world, "acme/none:1", runtime, "echo started");
        assert!(done.code != 0 && !done.stdout.contains("started"), "{done}");
        assert!(
            log(world).lines().last().unwrap_or_default().contains("image not found: acme/none:1"),
            "{}",
            log(world)
        );
    }
    assert_eq!(created(world, HR, &[], "ls /skills").ok(), "hr");
}

fn a_container_gets_a_copy_of_its_own(world: &World) {
    world_with_hook(world);
    let flags = ["--annotation", "io.skillimage.mode=extract", "--user", "1000:1000"];
    let script = "/skills/hr/scripts/greet.sh && echo more >/skills/hr/more && cat /skills/hr/more && \
                  stat -c %u:%g:%a /skills/hr /skills/hr/SKILL.md /skills/hr/scripts/greet.sh";
    let said = "hr 1.0.0 was here\nmore\n1000:1000:755\n1000:1000:644\n1000:1000:755";
    for runtime in runtimes(world) {
        let flags = [&flags[..], runtime].concat();
        assert_eq!(run(world, HR, &flags, script).ok(), said, "{runtime:?}");
        assert_eq!(created(world, HR, &flags, script).ok(), said, "{runtime:?}");
    }
    // What the container has made of it stays when it is started again.
    let annotation = with(HR);
    let args = ["run", "--name", "own", "--network", "none", "--annotation", &annotation];
    let script = "cat /skills/hr/more 2>/dev/null; echo again >/skills/hr/more";
    world.podman(args.iter().chain(&flags).chain(&[world.agent(), "sh", "-c", script])).ok();
    assert_eq!(world.podman(["start", "-a", "own"]).ok(), "again");
    world.podman(["rm", "own"]).ok();
}
