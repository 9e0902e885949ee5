//! Every way into a container, in every user namespace, by every runtime, in every cell.
//!
//! `make test` takes a quarter of it, chosen by number so that each run is the same and every pair of way and user namespace is in it;
//! `make test-long` takes all. What podman or a runtime cannot do is in one table, and its refusal is asserted.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use crate::cell::{Done, World, cannot, matrix};
use crate::hook::{CRUN, HR, RUNC, log, spec_hooks, with};

matrix! { by_crun, by_runc }

/// The cells, numbered.
const CELLS: [&str; 7] = [
    "host_root",
    "host_rootless",
    "host_rootless_overlay",
    "trixie_root",
    "trixie_rootless",
    "sid_root",
    "sid_rootless",
];
/// The user of each container, who is not root.
const USER: &str = "1000:1000";
const NAME: &str = "localhost/acme/hr:1.0.0-draft";
const POLICY: &str = "/etc/skillctl/hook.toml";

/// Whose numbers a container has for its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    Podmans,
    KeepId,
    Auto,
    Mapped,
}

const SPACES: [Space; 4] = [Space::Podmans, Space::KeepId, Space::Auto, Space::Mapped];

/// How a skill gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The hook of podman.
    Precreate,
    /// The hook of the runtime.
    Bind,
    /// The same hook, which copies.
    Extract,
    /// CDI.
    Device,
    /// `--mount type=image`.
    Image,
    /// A volume of the driver `image`.
    Volume,
}

const WAYS: [Way; 6] = [Way::Precreate, Way::Bind, Way::Extract, Way::Device, Way::Image, Way::Volume];

/// One container that is tried.
#[derive(Debug, Clone, Copy)]
struct Case {
    root: bool,
    podman: (u32, u32),
    runtime: &'static [&'static str],
    space: Space,
    way: Way,
}

/// What cannot be had.
struct Refusal {
    why: &'static str,
    of: fn(&Case) -> bool,
    /// Exit status of podman.
    code: i32,
    /// What podman says of it by crun, and by runc: one of these.
    says: [&'static [&'static str]; 2],
}

/// crun does not pass on what a hook says.
const HOOK: &[&str] = &["error executing hook"];

const REFUSED: [Refusal; 5] = [
    Refusal {
        why: "podman 4 keeps the numbers only of users who are not root; podman 5 leaves root's as they are",
        of: |case| case.space == Space::KeepId && case.root && case.podman < (5, 0),
        code: 125,
        says: [&["keep-id is only supported in rootless mode"]; 2],
    },
    Refusal {
        why: "podman before 5.5 reads devices from the directories of root only",
        of: |case| case.way == Way::Device && !case.root && case.podman < (5, 5),
        code: 125,
        says: [&["unknown flag: --cdi-spec-dir"]; 2],
    },
    Refusal {
        why: "podman mounts the image in a directory that only the user of the storage can pass",
        of: |case| case.way == Way::Image && case.is_apart(),
        code: 126,
        says: [&["ermission denied"]; 2],
    },
    Refusal {
        why: "the hook runs as a user to whom the storage belongs to somebody unknown",
        of: |case| matches!(case.way, Way::Bind | Way::Extract) && case.is_apart(),
        code: 126,
        says: [HOOK, &["belongs to another user", "cannot be read from within the container's user namespace"]],
    },
    Refusal {
        why: "the hook runs as a user to whom the cache belongs to the other one; a copy needs no cache",
        of: |case| case.way == Way::Bind && case.keeps_user(),
        code: 126,
        says: [HOOK, &["unpacked belongs to another user"]],
    },
];

impl Case {
    /// Returns whether the user of the storage is nobody in the container.
    fn is_apart(&self) -> bool {
        matches!(self.space, Space::Auto | Space::Mapped)
    }

    /// Returns whether the user of the storage has the own number in the container, and is not its root.
    fn keeps_user(&self) -> bool {
        self.space == Space::KeepId && !self.root
    }

    fn is_hook(&self) -> bool {
        matches!(self.way, Way::Precreate | Way::Bind | Way::Extract)
    }

    /// The owner of the skill's files, as the container sees it.
    fn owner(&self) -> String {
        match (self.way, self.space) {
            (Way::Extract, _) => USER.to_owned(),
            (_, Space::Auto | Space::Mapped) => "65534:65534".to_owned(),
            (_, Space::KeepId) if !self.root => format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid()),
            _ => "0:0".to_owned(),
        }
    }

    /// Flags of podman itself, which it needs whenever it starts the container.
    fn global(&self, world: &World) -> Vec<String> {
        match self.way {
            Way::Bind | Way::Extract => vec!["--hooks-dir".into(), spec_hooks(world)],
            Way::Device if !self.root => {
                vec!["--cdi-spec-dir".into(), world.home().join(".config/cdi").display().to_string()]
            }
            _ => Vec::new(),
        }
    }

    /// Flags of `podman run`.
    fn flags(&self) -> Vec<String> {
        let space: &[&str] = match self.space {
            Space::Podmans => &[],
            Space::KeepId => &["--userns", "keep-id"],
            Space::Auto => &["--userns", "auto"],
            Space::Mapped if self.root => &["--uidmap", "0:200000:65536"],
            Space::Mapped => &["--uidmap", "0:1:5000"],
        };
        let mut flags = ["--network", "none", "--user", USER].to_vec();
        flags.extend(self.runtime.iter().chain(space));
        let annotation = with(HR);
        let mount = format!("type=image,source={NAME},destination=/skills/hr");
        flags.extend(match self.way {
            Way::Precreate | Way::Bind => vec!["--annotation", &annotation],
            Way::Extract => vec!["--annotation", &annotation, "--annotation", "io.skillimage.mode=extract"],
            Way::Device => vec!["--device", "skillimage.io/skill=acme.hr"],
            Way::Image => vec!["--mount", &mount],
            Way::Volume => vec!["-v", "hr:/skills/hr:ro"],
        });
        flags.into_iter().map(str::to_owned).collect()
    }

    /// Runs podman with what it needs to start the container.
    fn podman(&self, world: &World, args: &[&str], flags: &[String], command: &[&str]) -> Done {
        let own = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
        world.podman([self.global(world), own(args), flags.to_vec(), own(command)].concat())
    }
}

/// Says which cases of a cell `make test` takes: one of each pair of user namespace and way, by the one runtime or the other, in
/// every second cell.
fn sampled(cell: usize, runtime: usize, space: usize, way: usize) -> bool {
    (cell + space + way).is_multiple_of(2) && (cell / 2 + space / 2 + way / 2) % 2 == runtime
}

fn by_crun(world: &World) {
    every_way(world, 0);
}

fn by_runc(world: &World) {
    every_way(world, 1);
}

fn every_way(world: &World, runtime: usize) {
    let flags = [CRUN, RUNC][runtime];
    let plain = world.in_agent(flags, "true");
    if plain.code != 0 {
        cannot(&format!("{} starts no container here: {}", flags[1], plain.stderr.lines().last().unwrap_or_default()));
    }
    if world.is_root() {
        users_for_auto();
    }
    world.skillctl(["hook", "enable"]).ok();
    let all = std::env::var_os("SKILLCTL_TEST_LONG").is_some();
    let cell = CELLS.iter().position(|name| *name == world.cell()).expect("a cell with a number");
    let (root, podman) = (world.is_root(), world.podman_version());
    for (s, space) in SPACES.into_iter().enumerate() {
        let chosen = WAYS.into_iter().enumerate().filter(|(w, _)| all || sampled(cell, runtime, s, *w));
        for (_, way) in chosen {
            let case = Case { root, podman, runtime: flags, space, way };
            // Shown where something fails without a word of the case.
            writeln!(std::io::stderr(), "{case:?}").expect("stderr");
            prepare(world, &case);
            match REFUSED.iter().find(|refusal| (refusal.of)(&case)) {
                Some(refusal) => is_refused(world, &case, refusal),
                None => {
                    works(world, &case);
                    keeps_the_policy(world, &case);
                }
            }
            if way == Way::Volume {
                world.podman(["volume", "rm", "hr"]).ok();
            }
        }
    }
    // podman's check of its storage takes the copies that it made for other users for damaged, without any skill.
    world.podman(["rmi", "-f", world.agent()]).ok();
}

/// Adds the user whose subordinate users podman takes for `auto`. They have to exist in newer releases, and not in older ones.
fn users_for_auto() {
    for (file, line) in [
        ("passwd", "containers:x:4243:4243::/:/bin/false"),
        ("group", "containers:x:4243:"),
        ("subuid", "containers:1000000:1000000"),
        ("subgid", "containers:1000000:1000000"),
    ] {
        let path = format!("/etc/{file}");
        let before = fs::read_to_string(&path).unwrap_or_default();
        if !before.lines().any(|line| line.starts_with("containers:")) {
            fs::write(&path, format!("{before}{line}\n")).expect("an account");
        }
    }
}

/// Builds and loads the skill, and makes what the way needs beside it.
fn prepare(world: &World, case: &Case) {
    world.build("hr", "1.0.0", &["--load=always"]);
    match case.way {
        Way::Device if !case.root && case.podman < (5, 5) => {
            world.skillctl(["cdi", "enable", HR]).refused(&["before 5.5"], &["hook enable"]);
        }
        Way::Device => drop(world.skillctl(["cdi", "enable", HR]).ok()),
        Way::Volume => {
            let image = format!("image={NAME}");
            world.podman(["volume", "create", "--driver", "image", "--opt", &image, "hr"]).ok();
        }
        _ => {}
    }
}

fn is_refused(world: &World, case: &Case, refusal: &Refusal) {
    let done = case.podman(world, &["run", "--rm"], &case.flags(), &[world.agent(), "sh", "-c", "echo started"]);
    let says = refusal.says[usize::from(case.runtime == RUNC)];
    let told = says.iter().any(|says| done.stderr.contains(says));
    let as_told = done.code == refusal.code && told && !done.stdout.contains("started");
    assert!(as_told, "{case:?}: expected exit status {} and {says:?}, since {}\n{done}", refusal.code, refusal.why);
}

/// The skill is there, cannot be written to and runs; after a restart, too, and when its image is gone, as far as podman lets it go.
fn works(world: &World, case: &Case) {
    let long = [world.agent(), "busybox", "sleep", "1000"];
    case.podman(world, &["run", "-d", "--name", "long"], &case.flags(), &long).ok();
    is_usable(world, case, "started");
    is_copied(world, case);
    case.podman(world, &["restart", "-t", "0", "long"], &[], &[]).ok();
    is_usable(world, case, "restarted");
    let rmi = world.podman(["rmi", NAME]);
    if case.way == Way::Volume {
        assert!(rmi.fails(2).contains("image is in use by a container"), "{case:?}");
    } else {
        rmi.ok();
    }
    if case.is_hook() || case.way == Way::Device {
        world.skillctl(["rm", "-f", HR]).ok();
    }
    is_usable(world, case, "without its image");
    forget(world);
    let again = case.podman(world, &["restart", "-t", "0", "long"], &[], &[]);
    if matches!(case.way, Way::Device | Way::Volume) {
        again.ok();
        is_usable(world, case, "restarted without its image");
    } else {
        let (why, told) = match case.way {
            Way::Image => ("image not known", again.stderr.clone()),
            // In there the log belongs to another user, too.
            Way::Extract if case.keeps_user() => ("", log(world)),
            _ => ("image not found: acme/hr:1.0.0-draft", log(world)),
        };
        let last = told.lines().last().unwrap_or_default();
        assert!(again.code != 0 && last.contains(why), "{case:?}: {told}\n{again}");
    }
    // podman complains when it removes a container with a mount of an image that is gone.
    world.build("hr", "1.0.0", &["--load=always"]);
    world.podman(["rm", "-f", "-t", "0", "long"]).ok();
}

/// Removes what the log of the hook says so far.
fn forget(world: &World) {
    let _ = fs::remove_file(world.store().with_file_name("hook.log"));
}

#[track_caller]
fn is_usable(world: &World, case: &Case, when: &str) {
    let script = "/skills/hr/scripts/greet.sh && { echo more >>/skills/hr/new || true; } && \
                  stat -c %u:%g:%a /skills/hr/SKILL.md /skills/hr/scripts/greet.sh && cat /skills/hr/SKILL.md";
    let done = world.podman(["exec", "long", "sh", "-c", script]);
    let owner = case.owner();
    let said = format!("hr 1.0.0 was here\n{owner}:644\n{owner}:755\n---\n");
    assert!(done.code == 0 && done.stdout.starts_with(&said), "{case:?}, {when}: expected {said}\n{done}");
    assert!(done.stdout.contains("# The hr skill, 1.0.0"), "{case:?}, {when}\n{done}");
    let written = !done.stderr.contains("Read-only file system");
    assert_eq!(written, case.way == Way::Extract, "{case:?}, {when}\n{done}");
    if written {
        // A copy stays as the container has made it.
        let lines = if when == "started" { 1 } else { 2 };
        let more = world.podman(["exec", "long", "cat", "/skills/hr/new"]).ok();
        assert!(more.lines().count() >= lines, "{case:?}, {when}: {more}");
    }
}

fn is_copied(world: &World, case: &Case) {
    let out = tempfile::tempdir_in(world.path("")).expect("a directory");
    let args = ["cp".as_ref(), "long:/skills/hr/.".as_ref(), out.path().as_os_str()];
    let done = world.podman(args);
    if case.is_apart() {
        assert!(done.code == 125 && done.stderr.contains("cannot be mapped to a container ID"), "{case:?}\n{done}");
        return;
    }
    assert!(done.code == 0, "{case:?}\n{done}");
    let mode = |name: &str| {
        fs::metadata(out.path().join(name)).unwrap_or_else(|e| panic!("{case:?}, {name}: {e}")).permissions().mode()
    };
    assert_eq!([mode("SKILL.md") & 0o777, mode("scripts/greet.sh") & 0o777], [0o644, 0o755], "{case:?}");
}

/// What the machine does not allow starts no container, by whichever hook.
fn keeps_the_policy(world: &World, case: &Case) {
    if !case.root || !case.is_hook() {
        return;
    }
    fs::create_dir_all("/etc/skillctl").expect("a directory");
    forget(world);
    fs::write(POLICY, "allowed_repositories = [\"other\"]").expect("a policy");
    let done = case.podman(world, &["run", "--rm"], &case.flags(), &[world.agent(), "sh", "-c", "echo started"]);
    fs::remove_file(POLICY).expect("the policy");
    assert!(done.code == 126 && !done.stdout.contains("started"), "{case:?}\n{done}");
    let log = log(world);
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("acme/hr is not in allowed_repositories"), "{case:?}\n{log}");
}

#[test]
fn the_sample_has_every_pair_in_every_kind_of_cell() {
    let of = |user: &str, root: bool| root != user.contains("rootless");
    let all = CELLS.iter().enumerate();
    let any = |cells: &dyn Fn(&str) -> bool, case: &dyn Fn(usize) -> bool| {
        all.clone().any(|(number, name)| cells(name) && case(number))
    };
    for root in [true, false] {
        for (space, way) in (0..SPACES.len()).flat_map(|space| (0..WAYS.len()).map(move |way| (space, way))) {
            let pair = |cell| (0..2).any(|runtime| sampled(cell, runtime, space, way));
            assert!(any(&|name| of(name, root), &pair), "root {root}, {:?} {:?}", SPACES[space], WAYS[way]);
            for runtime in 0..2 {
                let case = |cell| sampled(cell, runtime, space, way);
                assert!(any(&|_| true, &case), "runtime {runtime}, {:?} {:?}", SPACES[space], WAYS[way]);
            }
        }
    }
    for (cell, name) in CELLS.iter().enumerate() {
        for runtime in 0..2 {
            let space = |space| (0..WAYS.len()).any(|way| sampled(cell, runtime, space, way));
            let way = |way| (0..SPACES.len()).any(|space| sampled(cell, runtime, space, way));
            assert!((0..SPACES.len()).all(space), "a user namespace is not in {name}, runtime {runtime}");
            assert!((0..WAYS.len()).all(way), "a way is not in {name}, runtime {runtime}");
        }
    }
}
