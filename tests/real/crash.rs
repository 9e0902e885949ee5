//! `kill -9` of a load at random moments: the store is whole, podman works, and the next load succeeds.
//!
//! Every other round also kills skopeo and all that it started, as a loss of power would; in the others skopeo outlives us and
//! ends by itself. What is then asserted of containers-storage is what holds after a bare `skopeo copy` that was killed, and was
//! measured beside it: containers/storage deletes an incomplete layer when it is next opened for writing, so that podman never fails
//! for it, and after the next load `podman system check` finds nothing and repairs nothing.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cell::{Done, World, matrix};
use crate::registry::{Kind, Registry};
use crate::site::{Site, said};

// The oldest and the newest release, and both kinds of user; each takes about a minute.
matrix! { @cell host_root("host", "root", None), loads_killed_at_any_moment }
matrix! { @cell host_rootless("host", "rootless", None), builds_killed_while_they_load }
matrix! { @cell trixie_root("trixie", "root", None), builds_killed_while_they_load }
matrix! { @cell sid_rootless("sid", "rootless", None), loads_killed_at_any_moment }
matrix! { @cell host_registry("host", "root", None), pulls_and_pushes_killed_at_any_moment }
matrix! { @cell sid_registry("sid", "root", None), pulls_and_pushes_killed_at_any_moment }

/// How many are killed; in `make test-long` hundreds.
fn rounds() -> u32 {
    if std::env::var_os("SKILLCTL_TEST_LONG").is_some() { 300 } else { 50 }
}

/// Every how many rounds the slower checks are made.
const CHECKED: u32 = 5;
const NAME: &str = "localhost/acme/hr:1.0.0-draft";

fn loads_killed_at_any_moment(world: &World) {
    skill(world, 0);
    build(world, "never").ok();
    let load = ["load", "acme/hr:1.0.0-draft"];
    let longest = duration(|| world.skillctl(load).ok());
    for round in 0..rounds() {
        // All rounds are about one record, which has no name while it is written: it always gets its name back.
        assert_eq!(world.podman(["images", "-a", "-q"]).ok().lines().count(), 1, "round {round}");
        world.skillctl(["unload", "acme/hr:1.0.0-draft"]).ok();
        killed(world.command(env!("CARGO_BIN_EXE_skillctl"), load), round, longest);
        sound(world, round, || world.skillctl(load));
    }
    nothing_left(world);
}

fn builds_killed_while_they_load(world: &World) {
    skill(world, 0);
    let longest = duration(|| build(world, "always").ok());
    for round in 0..rounds() {
        // New content each time: the layer, the record and the orphan of the one before are all at stake.
        skill(world, round + 1);
        let args = ["build".into(), world.path("hr").into_os_string(), "--load=always".into()];
        killed(world.command(env!("CARGO_BIN_EXE_skillctl"), args), round, longest);
        sound(world, round, || build(world, "always"));
    }
    // Killed after skopeo has given the name to the new record and before the old one is removed, we leave that one without a
    // name, as any rebuild with podman does. Nothing else is left, and podman's own remedy takes it.
    let all = world.podman(["images", "-a", "-q", "--no-trunc"]).ok();
    let nameless = world.podman(["images", "-q", "--no-trunc", "--filter", "dangling=true"]).ok();
    let ours = ["images", "-q", "--no-trunc", "--filter", "dangling=true", "--filter", "label=io.skillimage.name=hr"];
    assert_eq!(world.podman(ours).ok(), nameless);
    assert_eq!(all.lines().count(), nameless.lines().count() + 1);
    world.podman(["image", "prune", "-f"]).ok();
    nothing_left(world);
}

/// Store and registry name only what is whole, the output directory is whole or not there, and the next run works.
fn pulls_and_pushes_killed_at_any_moment(world: &World) {
    let hub = Registry::start(world, Kind::Plain);
    let there = Site::other(world, "there");
    let out = world.path("skills");
    let push = |tag: &str| {
        let name = hub.name(&format!("acme/hr:{tag}"));
        world.command(env!("CARGO_BIN_EXE_skillctl"), ["push", "acme/hr:1.0.0-draft", &name, "--retry", "0"])
    };
    let name = |tag: &str| hub.name(&format!("acme/hr:{tag}"));
    let pull = |tag: &str| ["pull", &name(tag), "--load=never", "-o", out.to_str().expect("UTF-8")].map(str::to_owned);
    skill(world, 0);
    build(world, "never").ok();
    let push_time = duration(|| Done::of(push("t0")).ok());
    let pull_time = duration(|| there.skillctl(pull("t0")).ok());
    for round in 1..=rounds() {
        let tag = format!("t{round}");
        // New content, so that blobs are sent and fetched.
        skill(world, round);
        let built = build(world, "never").ok();
        let digest = said(&built, "Digest: ");
        killed(push(&tag), round, push_time);
        let there_now = hub.tag("acme/hr", &tag);
        assert!(there_now.as_deref().is_none_or(|found| found == digest), "{tag} is {there_now:?}");
        Done::of(push(&tag)).ok();
        assert_eq!(hub.tag("acme/hr", &tag).as_deref(), Some(digest));

        killed(there.command(pull(&tag)), round, pull_time);
        there.whole();
        // The version before, or this one.
        assert_eq!(fs::read_dir(out.join("hr/assets")).expect("the skill").count(), 200, "round {round}");
        there.skillctl(pull(&tag)).ok();
        assert_eq!(there.digest(&name(&tag)).as_deref(), Some(digest));
    }
    there.skillctl(["prune", "--grace", "0"]).ok();
    there.tidy();
    let left: Vec<_> = fs::read_dir(&out).expect("the output").flatten().map(|entry| entry.file_name()).collect();
    let hidden = left.iter().filter(|name| name.to_string_lossy().starts_with('.')).count();
    assert!(left.iter().any(|name| name == "hr") && left.len() == hidden + 1, "{left:?}");
}

/// Writes a skill whose load takes a while: many files, and some that do not compress.
fn skill(world: &World, round: u32) {
    world.skill("hr", "1.0.0");
    world.noise("hr", 200, 4096, round);
}

fn build(world: &World, load: &str) -> Done {
    world.skillctl(["build".as_ref(), world.path("hr").as_os_str(), "--load".as_ref(), load.as_ref()])
}

fn duration<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed() * 11 / 10
}

/// Runs a command and kills it after a while that is spread over its usual duration, in odd rounds with all that it started.
fn killed(mut command: Command, round: u32, longest: Duration) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("skillctl");
    // Multiplying by an odd constant spreads the moments evenly without a random source.
    thread::sleep(longest * (round.wrapping_mul(2_654_435_761) % 1000) / 1000);
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let all = round % 2 == 1;
    let started = descendants(pid, all);
    let _ = kill(pid, Signal::SIGKILL);
    for pid in started.iter().filter(|_| all) {
        let _ = kill(*pid, Signal::SIGKILL);
    }
    child.wait().expect("its end");
    let until = Instant::now() + Duration::from_secs(30);
    while started.iter().any(|pid| is_running(*pid)) {
        assert!(Instant::now() < until, "{started:?} still run");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Returns the processes below `pid`. What is to be killed is stopped before, so that it starts nothing meanwhile.
fn descendants(pid: Pid, stop: bool) -> Vec<Pid> {
    if stop {
        let _ = kill(pid, Signal::SIGSTOP);
    }
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<_> = children.collect::<Vec<_>>().join(" ").split_whitespace().map(str::parse).collect();
    let children = children.into_iter().flatten().map(Pid::from_raw);
    children.flat_map(|child| descendants(child, stop).into_iter().chain([child])).collect()
}

fn is_running(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state comes after the name, which may have anything in it.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Checks everything that a crash must not have touched, then that the next run works.
fn sound(world: &World, round: u32, again: impl FnOnce() -> Done) {
    let context = |done: &Done| format!("after kill {round}: {done}");
    let fsck = world.skillctl(["fsck", "--format", "json"]);
    assert_eq!(fsck.code, 0, "{}", context(&fsck));
    let images = world.podman(["images", "-q"]);
    assert_eq!(images.code, 0, "{}", context(&images));
    let again = again();
    assert_eq!(again.code, 0, "{}", context(&again));
    if round.is_multiple_of(CHECKED) {
        world.system_check();
        let exists = world.podman(["image", "exists", NAME]);
        assert_eq!(exists.code, 0, "{}", context(&exists));
    }
    if round.is_multiple_of(CHECKED * 5) {
        // The layer is whole: a container sees every file.
        let seen = world.in_agent(
            &["--mount", &format!("type=image,source={NAME},destination=/skill")],
            "ls /skill/assets | busybox wc -l && /skill/scripts/greet.sh",
        );
        assert_eq!(seen.ok(), "200\nhr 1.0.0 was here", "round {round}");
        world.podman(["rmi", "localhost/agent"]).ok();
        fs::remove_dir_all(world.path("agent")).expect("the agent goes");
    }
}

/// What the crashes left in the store goes with the next `prune`, and in containers-storage is one image.
fn nothing_left(world: &World) {
    world.skillctl(["prune", "--grace", "0"]).ok();
    assert_eq!(fs::read_dir(world.store().join(".tmp")).expect("the directory").count(), 0);
    assert_eq!(fs::read_dir(world.store().join("blobs/sha256")).expect("the blobs").count(), 3);
    world.skillctl(["fsck"]).ok();
    assert_eq!(world.podman(["images", "-a", "-q"]).ok().lines().count(), 1);
    world.system_check();
}
