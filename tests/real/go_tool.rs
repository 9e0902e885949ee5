//! The real Go `skillctl` (redhat-et/skillimage) and ours, on one store: what each writes, the other lists, inspects, tags and
//! installs or loads.
//!
//! `tests/setup test` installs it at a pinned version where `go` and its module are to be had; elsewhere these are skipped. The
//! store that it wrote once, in `tests/fixtures`, is tried everywhere: `tests/go_store.rs`, and `foreign::the_go_store_loads`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cell::{Done, World, cannot, matrix};

matrix! { @cell host_root("host", "root", None), the_go_tool_works_in_our_store, ours_works_in_a_store_of_the_go_tool, each_lists_what_the_other_installed }
matrix! { @cell host_rootless("host", "rootless", None), the_go_tool_works_in_our_store, ours_works_in_a_store_of_the_go_tool, each_lists_what_the_other_installed }

const DRAFT: &str = "acme/hr:1.0.0-draft";
const TESTING: &str = "acme/hr:1.0.0-testing";

/// Both tools, on one store.
struct Both<'a> {
    world: &'a World,
    go: PathBuf,
}

impl<'a> Both<'a> {
    fn new(world: &'a World) -> Self {
        let roots = std::env::var_os("SKILLCTL_TEST_ROOTS").unwrap_or_else(|| "/var/cache/skillctl-tests".into());
        let go = Path::new(&roots).join("go/bin/skillctl");
        if !go.exists() {
            cannot("no Go skillctl: tests/setup test says why");
        }
        Self { world, go }
    }

    fn run(&self, program: &Path, args: &[&str]) -> Done {
        let mut command = self.world.command(program.to_str().expect("UTF-8"), args);
        command.env("XDG_DATA_HOME", self.world.path("data"));
        Done::of(command)
    }

    fn go(&self, args: &[&str]) -> Done {
        self.run(&self.go, args)
    }

    fn ours(&self, args: &[&str]) -> Done {
        self.run(Path::new(env!("CARGO_BIN_EXE_skillctl")), args)
    }

    fn inspected(&self, name: &str) -> Value {
        self.ours(&["inspect", name, "--format", "json"]).json()
    }

    /// Both print the same of the store, line for line, before what ours adds; ours finds it whole.
    #[track_caller]
    fn agree(&self, names: &[&str]) {
        let (go, ours) = (self.go(&["list", "--no-trunc"]).ok(), self.ours(&["list", "--no-trunc"]).ok());
        // Ours also lists what is loaded and in no store.
        let ours: Vec<_> = ours.lines().filter(|line| !line.ends_with("only")).collect();
        assert_eq!(go.lines().count(), ours.len(), "go:\n{go}\nours:\n{ours:#?}");
        for (go, ours) in go.lines().zip(&ours) {
            let (go, ours): (Vec<_>, Vec<_>) = (go.split_whitespace().collect(), ours.split_whitespace().collect());
            assert!(ours.starts_with(&go), "go:   {go:?}\nours: {ours:?}");
        }
        for name in names {
            let (go, ours) = (self.go(&["inspect", name]).ok(), self.ours(&["inspect", name]).ok());
            let added = ["  Image ID:", "  Found in:", "  Media type:", "  Source:", "  Revision:"];
            let ours: Vec<_> = ours.lines().filter(|line| !added.iter().any(|label| line.starts_with(label))).collect();
            assert_eq!(ours, go.lines().collect::<Vec<_>>(), "{name}");
        }
        let report = self.ours(&["fsck", "--format", "json"]).json();
        assert_eq!(report["problems"], json!([]));
    }
}

fn each_lists_what_the_other_installed(world: &World) {
    let both = Both::new(world);
    for name in ["ours", "theirs"] {
        let skill = world.skill(name, "1.0.0");
        both.ours(&["build", skill.to_str().expect("UTF-8"), "--load=never"]).ok();
    }
    both.ours(&["install", "acme/ours:1.0.0-draft", "-t", "claude"]).ok();
    both.go(&["install", "acme/theirs:1.0.0-draft", "-t", "claude"]).ok();
    let (go, ours) = (both.go(&["list", "--installed"]).ok(), both.ours(&["list", "--installed"]).ok());
    assert_eq!(go, ours);
    assert_eq!(ours.lines().count(), 3);
    both.ours(&["list", "--installed", "--verify"]).ok();
    both.ours(&["uninstall", "theirs", "-t", "claude"]).ok();
}

fn the_go_tool_works_in_our_store(world: &World) {
    let both = Both::new(world);
    let skill = world.skill("hr", "1.0.0");
    // With a time of creation: without, ours shows when the store got it, and Go what the annotation says.
    let build = ["build", skill.to_str().expect("UTF-8"), "--load=never", "--timestamp", "2026-01-02T03:04:05Z"];
    both.ours(&build).ok();
    both.agree(&[DRAFT]);
    let draft = both.inspected(DRAFT);

    both.go(&["tag", DRAFT, "acme/hr:theirs"]).ok();
    assert_eq!(both.inspected("acme/hr:theirs")["digest"], draft["digest"]);
    let promoted = both.go(&["promote", DRAFT, "--to", "testing", "--local"]).ok();
    assert_eq!(promoted, format!("Promoted {DRAFT} to testing"));
    let testing = both.inspected(TESTING);
    assert_eq!(testing["status"], "testing");
    assert_ne!(testing["digest"], draft["digest"]);
    assert_eq!(testing["image_id"], draft["image_id"], "what was tested is what runs");
    both.agree(&[DRAFT, TESTING, "acme/hr:theirs"]);

    let home = world.home().join(".claude/skills/hr");
    both.go(&["install", TESTING, "--target", "claude"]).ok();
    for file in ["SKILL.md", "scripts/greet.sh"] {
        assert_eq!(fs::read(home.join(file)).expect(file), fs::read(skill.join(file)).expect(file), "{file}");
    }
    assert!(both.go(&["list", "-i", "-t", "claude"]).ok().contains("hr"));

    // The draft is superseded, by both rules; what stays opens in the Go tool.
    let pruned = both.ours(&["prune", "--grace", "0", "--format", "json"]).json();
    let removed: Vec<_> = pruned["removed"].as_array().expect("names").iter().map(|r| &r["reference"]).collect();
    assert_eq!(removed, [&json!(DRAFT), &json!("acme/hr:theirs")]);
    both.agree(&[TESTING]);
    assert_eq!(both.go(&["prune"]).ok(), "Nothing to prune.");
}

fn ours_works_in_a_store_of_the_go_tool(world: &World) {
    let both = Both::new(world);
    let skill = world.skill("hr", "1.0.0");
    let built = both.go(&["build", skill.to_str().expect("UTF-8")]).ok();
    both.agree(&[DRAFT]);
    let inspected = both.inspected(DRAFT);
    let digest = inspected["digest"].as_str().expect("a digest");
    assert!(built.contains(&format!("Digest: {digest}")), "{built}");

    both.ours(&["tag", DRAFT, "acme/hr:ours", "--load=never"]).ok();
    both.ours(&["load", "acme/hr:ours"]).ok();
    let image = world.podman(["image", "inspect", "localhost/acme/hr:ours"]).json()[0].take();
    assert_eq!(image["Digest"], json!(digest));
    assert_eq!(json!(format!("sha256:{}", image["Id"].as_str().expect("an ID"))), inspected["image_id"]);
    both.agree(&[DRAFT, "acme/hr:ours"]);
    both.go(&["install", "acme/hr:ours", "--target", "claude"]).ok();
    assert!(world.home().join(".claude/skills/hr/SKILL.md").exists());

    both.ours(&["rm", "-f", DRAFT]).ok();
    both.ours(&["prune", "--grace", "0"]).ok();
    both.agree(&["acme/hr:ours"]);
    // Go finds nothing of the name that went, and builds it anew.
    assert!(both.go(&["inspect", DRAFT]).fails(2).contains(DRAFT));
    both.go(&["build", skill.to_str().expect("UTF-8")]).ok();
    both.agree(&[DRAFT, "acme/hr:ours"]);
}
