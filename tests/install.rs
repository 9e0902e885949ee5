//! `install`, `upgrade`, `rollback`, `uninstall` and `list --installed`, from a store.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Ran, World};

const SKILLS: &str = "home/.claude/skills";

/// Builds a version of a skill and publishes it in the store.
pub fn publish(world: &World, name: &str, version: &str) {
    world.skill_version(name, version);
    world.build(name);
    for (state, to) in [("-draft", "testing"), ("-testing", "published")] {
        let reference = format!("acme/{name}:{version}{state}");
        world.run(["promote", &reference, "--to", to, "--local", "--load=never"]).ok();
    }
}

/// A store with two versions of hr: the second has other, new and no more files.
fn two_versions() -> World {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.write("hr/old.md", "old");
    world.write("hr/same.md", "same");
    world.write("hr/data/.dotfile", "dot");
    publish(&world, "hr", "1.0.0");
    fs::remove_file(world.path("hr/old.md")).unwrap();
    world.write("hr/new.md", "new");
    world.write("hr/scripts/run.sh", "#!/bin/sh\necho more\n");
    publish(&world, "hr", "1.1.0");
    world
}

fn install(world: &World, version: &str) -> Ran {
    world.run(["install", &format!("acme/hr:{version}"), "-t", "claude"])
}

/// Returns the files of a directory with their modes and contents, without what is ours.
pub fn tree(dir: &Path) -> Vec<(String, u32, String)> {
    fn walk(root: &Path, dir: &Path, all: &mut Vec<(String, u32, String)>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let (path, metadata) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let mode = metadata.permissions().mode() & 0o777;
            if metadata.is_dir() {
                all.push((name, mode, String::new()));
                walk(root, &path, all);
            } else {
                all.push((name, mode, fs::read_to_string(&path).unwrap_or_default()));
            }
        }
    }
    let mut all = Vec::new();
    walk(dir, dir, &mut all);
    all.sort();
    all
}

fn names(dir: &Path) -> Vec<String> {
    tree(dir).into_iter().map(|(name, ..)| name).collect()
}

fn receipt(world: &World) -> Value {
    let file = world.path(SKILLS).join(".skillimage/receipts/hr.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn a_skill_is_installed_as_it_was_built() {
    let world = two_versions();
    fs::create_dir_all(world.path("hr/empty")).unwrap();
    publish(&world, "hr", "1.2.0");
    let ran = install(&world, "1.2.0").ok();
    let path = world.path(SKILLS).join("hr");
    assert_eq!(ran.stdout, format!("Installed acme/hr:1.2.0 to {}\n", path.display()));
    let modes: Vec<(String, u32)> = tree(&path).into_iter().map(|(name, mode, _)| (name, mode)).collect();
    let want = [
        ("SKILL.md", 0o644),
        ("data", 0o755),
        ("data/.dotfile", 0o644),
        ("empty", 0o755),
        ("new.md", 0o644),
        ("same.md", 0o644),
        ("scripts", 0o755),
        ("scripts/run.sh", 0o755),
        ("skill.yaml", 0o644),
    ];
    assert_eq!(modes, want.map(|(name, mode)| (name.to_owned(), mode)));

    let digest = world.run(["inspect", "acme/hr:1.2.0", "--format", "json"]).ok().json()["digest"].clone();
    let card = fs::read_to_string(path.join("skill.yaml")).unwrap();
    let provenance = format!("provenance:\n  source: acme/hr:1.2.0\n  commit: {}\n", digest.as_str().unwrap());
    assert!(card.contains(&provenance), "{card}");
    let receipt = receipt(&world);
    assert_eq!(
        (
            &receipt["reference"],
            &receipt["digest"],
            &receipt["skillVersion"],
            receipt["files"].as_array().unwrap().len()
        ),
        (&json!("acme/hr:1.2.0"), &digest, &json!("1.2.0"), 9)
    );
    let again = install(&world, "1.2.0").ok();
    assert_eq!(again.stdout, format!("Already installed: acme/hr:1.2.0 in {}\n", path.display()));
    let listed = world.run(["list", "--installed"]).ok();
    assert_eq!(listed.stdout, "NAME  VERSION  SOURCE         TARGET\nhr    1.2.0    acme/hr:1.2.0  claude\n");
    world.run(["list", "--installed", "--verify"]).ok();
}

#[test]
fn an_upgrade_leaves_nothing_stale_and_keeps_what_is_the_users() {
    let world = two_versions();
    install(&world, "1.0.0").ok();
    let path = world.path(SKILLS).join("hr");
    let first = tree(&path);
    world.write(&format!("{SKILLS}/hr/notes.md"), "mine");
    world.write(&format!("{SKILLS}/hr/data/mine/deep"), "mine");
    // What the next version brings as well is no conflict.
    world.write(&format!("{SKILLS}/hr/new.md"), "new");
    let upgrade = |more: &[&str]| world.run([&["upgrade", "hr", "-t", "claude"], more].concat());

    let dry = upgrade(&["--dry-run"]).ok();
    let want = "hr 1.0.0 → 1.1.0 (claude)\n  ! data/mine  yours, kept\n  A new.md\n  ! notes.md  yours, kept\n  D old.md\n  M scripts/run.sh\n  M skill.yaml\n";
    assert_eq!(dry.stdout, want);
    assert_eq!(upgrade(&["--check"]).fails(1).stdout, "hr 1.0.0 → 1.1.0 (claude)\n");
    assert_eq!(receipt(&world)["skillVersion"], "1.0.0");

    assert_eq!(upgrade(&[]).ok().stdout, "Upgraded hr 1.0.0 → 1.1.0 (claude)\n");
    let now = names(&path);
    assert!(!now.contains(&"old.md".to_owned()), "{now:?}");
    assert_eq!(fs::read_to_string(path.join("notes.md")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(path.join("data/mine/deep")).unwrap(), "mine");
    assert!(fs::read_to_string(path.join("scripts/run.sh")).unwrap().contains("more"));
    assert_eq!(upgrade(&[]).ok().stdout, "hr is already at the latest version.\n");
    upgrade(&["--check"]).ok();

    let back = world.run(["rollback", "hr", "-t", "claude"]).ok();
    assert_eq!(back.stdout, "Rolled back hr 1.1.0 → 1.0.0 (claude)\n");
    for name in ["notes.md", "data/mine/deep", "data/mine"] {
        assert!(path.join(name).exists(), "{name}");
    }
    fs::remove_file(path.join("notes.md")).unwrap();
    fs::remove_dir_all(path.join("data/mine")).unwrap();
    assert_eq!(tree(&path), first);
    let nothing = world.run(["rollback", "hr", "-t", "claude"]).fails(2);
    assert!(nothing.stderr.contains("hr: nothing was installed before 1.0.0"), "{nothing}");
}

#[test]
fn what_the_user_has_changed_stops_everything_that_would_lose_it() {
    let world = two_versions();
    install(&world, "1.0.0").ok();
    let path = world.path(SKILLS).join("hr");
    type Do = fn(&Path);
    let cases: [(&str, Do, &str); 4] = [
        ("changed", |dir| fs::write(dir.join("SKILL.md"), "mine").unwrap(), "SKILL.md was changed"),
        ("changed, and gone in the next", |dir| fs::write(dir.join("old.md"), "mine").unwrap(), "old.md was changed"),
        (
            "in the way of a new file",
            |dir| fs::write(dir.join("new.md"), "mine").unwrap(),
            "new.md is not of the image",
        ),
        (
            "a directory in the way of a new file",
            |dir| fs::create_dir(dir.join("new.md")).unwrap(),
            "new.md is not of the image",
        ),
    ];
    for (what, change, why) in cases {
        change(&path);
        let before = tree(&path);
        for verb in [&["upgrade", "hr", "-t", "claude"][..], &["install", "acme/hr:1.1.0", "-t", "claude"]] {
            let ran = world.run(verb).fails(2);
            assert!(ran.stderr.contains(&format!("hr is not as it was installed: {why}")), "{what}: {ran}");
            assert!(ran.stderr.contains("--force"), "{ran}");
            assert_eq!(tree(&path), before, "{what}");
        }
        let ran = world.run(["upgrade", "hr", "-t", "claude", "--force"]).ok();
        let backup = ran.stdout.lines().find_map(|line| line.strip_prefix("Backup: ")).unwrap().to_owned();
        let kept = why.split(' ').next().unwrap();
        let (kept, was) = (Path::new(&backup).join(kept), before.iter().find(|(name, ..)| name == kept).unwrap());
        assert!(kept.exists() && (kept.is_dir() || fs::read_to_string(&kept).unwrap() == was.2), "{what}: {backup}");
        world.run(["list", "-i", "--verify"]).ok();
        world.run(["rollback", "hr", "-t", "claude"]).ok();
        world.run(["list", "-i", "--verify"]).ok();
    }
}

#[test]
fn drift_is_told() {
    let world = two_versions();
    install(&world, "1.0.0").ok();
    let path = world.path(SKILLS).join("hr");
    fs::write(path.join("SKILL.md"), "mine").unwrap();
    fs::remove_file(path.join("old.md")).unwrap();
    fs::write(path.join("notes.md"), "").unwrap();
    fs::set_permissions(path.join("scripts/run.sh"), fs::Permissions::from_mode(0o644)).unwrap();
    let ran = world.run(["list", "-i", "--verify"]).fails(1);
    let want = "✗ hr (claude) has 4 difference(s):\n  SKILL.md was changed\n  notes.md is not of the image\n  old.md is missing\n  scripts/run.sh is no longer executable\n";
    assert_eq!(ran.stdout, want);
    let json = world.run(["list", "-i", "--verify", "--format", "json"]).fails(1).json();
    assert_eq!(json[0]["differences"][3], json!({"path": "scripts/run.sh", "change": "mode", "executable": false}));
    // Gone altogether.
    fs::remove_dir_all(&path).unwrap();
    let ran = world.run(["list", "-i", "--verify"]).fails(1);
    assert_eq!(ran.stdout, "✗ hr (claude) has 1 difference(s):\n  hr is missing\n");
    install(&world, "1.0.0").ok();
    world.run(["list", "-i", "--verify"]).ok();
}

#[test]
fn nothing_that_skillctl_did_not_make_is_overwritten() {
    let world = two_versions();
    let skills = world.path(SKILLS);
    fs::create_dir_all(&skills).unwrap();
    type Do = fn(&Path);
    let cases: [(&str, Do, &str); 4] = [
        (
            "directory",
            |at| {
                fs::create_dir(at).unwrap();
                fs::write(at.join("SKILL.md"), "mine").unwrap();
            },
            "skillctl did not install it",
        ),
        ("file", |at| fs::write(at, "mine").unwrap(), "it is a file"),
        ("link", |at| symlink("/etc", at).unwrap(), "it is a symbolic link"),
        ("dangling link", |at| symlink("nowhere", at).unwrap(), "it is a symbolic link"),
    ];
    for (what, make, why) in cases {
        make(&skills.join("hr"));
        let ran = install(&world, "1.0.0").fails(2);
        assert!(ran.stderr.contains("hr exists already") && ran.stderr.contains(why), "{what}: {ran}");
        assert!(
            world.run(["uninstall", "hr", "-t", "claude", "--force"]).fails(2).stderr.contains("is not ours"),
            "{what}"
        );
        let ran = world.run(["install", "acme/hr:1.0.0", "-t", "claude", "--force"]).ok();
        assert!(ran.stdout.contains("Backup: "), "{ran}");
        world.run(["list", "-i", "--verify"]).ok();
        world.run(["uninstall", "hr", "-t", "claude"]).ok();
        assert!(!skills.join("hr").exists());
    }
    // An empty directory is in nobody's way, nor is what the image itself was unpacked to.
    fs::create_dir(skills.join("hr")).unwrap();
    install(&world, "1.0.0").ok();
    world.run(["uninstall", "hr", "-t", "claude"]).ok();
    fs::remove_dir_all(skills.join(".skillimage")).unwrap();
    world.run(["copy", "acme/hr:1.0.0", "acme/hr:copied"]).ok();
    world.run(["install", "acme/hr:copied", "-o", skills.to_str().unwrap()]).ok();
    fs::remove_dir_all(skills.join(".skillimage")).unwrap();
    // The receipt is gone, and the card has what the Go tool would need.
    install(&world, "1.1.0").ok();
}

#[test]
fn uninstall_takes_what_was_installed_and_nothing_else() {
    let world = two_versions();
    install(&world, "1.0.0").ok();
    let path = world.path(SKILLS).join("hr");
    world.write(&format!("{SKILLS}/hr/notes.md"), "mine");
    let ran = world.run(["uninstall", "hr", "-t", "claude"]).fails(2);
    assert!(ran.stderr.contains("hr has files of yours: notes.md is not of the image"), "{ran}");
    let ran = world.run(["uninstall", "hr", "-t", "claude", "--force"]).ok();
    assert!(!path.exists());
    let backup = ran.stdout.lines().find_map(|line| line.strip_prefix("Backup: ")).unwrap().to_owned();
    assert_eq!(names(Path::new(&backup)), ["notes.md"]);
    for name in ["hr", "../x", "none"] {
        let ran = world.run(["uninstall", name, "-t", "claude"]).fails(2);
        assert!(ran.stderr.contains(&format!("skill not found: {name} in ")), "{ran}");
    }
    assert_eq!(world.run(["list", "-i"]).ok().stdout, "No installed skills found.\n");
}

#[test]
fn targets_that_are_one_directory_are_written_once() {
    let world = two_versions();
    fs::create_dir_all(world.path("home/.claude")).unwrap();
    let ran = world.run(["install", "acme/hr:1.0.0", "-t", "cline,warp", "-t", "claude,Claude-Code"]).ok();
    let home = world.path("home");
    let want = format!(
        "Installed acme/hr:1.0.0 to {0}/.agents/skills/hr\nInstalled acme/hr:1.0.0 to {0}/.claude/skills/hr\n",
        home.display()
    );
    assert_eq!(ran.stdout, want);
    // All that are found: by now the shared directory is there, which says nothing about who uses it.
    let all = world.run(["install", "acme/hr:1.1.0", "-t", "all", "--format", "json"]).ok().json();
    let targets: Vec<&str> = all.as_array().unwrap().iter().map(|row| row["target"].as_str().unwrap()).collect();
    assert_eq!(targets, ["claude", "universal"]);

    let refusals: [(&[&str], &str); 6] = [
        (&[], "specify --target <agent> or -o <directory>"),
        (&["-t", "claude", "-o", "x"], "use --target or -o, not both"),
        (&["-t", "cluade"], "unknown target \"cluade\" (near: claude"),
        (&["-t", "eve"], "eve has no skills of a user"),
        (&["-t", "goose", "--scope", "system"], "goose has no directory for all users that is known"),
        (&["-t", ""], "specify --target <agent> or -o <directory>"),
    ];
    for (args, why) in refusals {
        let ran = world.run([&["install", "acme/hr:1.0.0"], args].concat()).fails(2);
        assert!(ran.stderr.contains(why), "{ran}");
    }
    let empty = World::new();
    empty.skill("hr", "1.0.0");
    empty.build("hr");
    let ran = empty.run(["install", "acme/hr:1.0.0-draft", "-t", "all"]).fails(2);
    assert!(ran.stderr.contains("no agent was found in the home directory"), "{ran}");
}

#[test]
fn a_link_leads_to_one_shared_copy() {
    let world = two_versions();
    let ran = world.run(["install", "--link", "acme/hr:1.0.0", "-t", "claude,windsurf,cline"]).ok();
    assert_eq!(ran.stdout.lines().count(), 3, "{ran}");
    let home = world.path("home");
    for (dir, target) in
        [(".claude/skills", "../../.agents/skills/hr"), (".codeium/windsurf/skills", "../../../.agents/skills/hr")]
    {
        assert_eq!(fs::read_link(home.join(dir).join("hr")).unwrap(), Path::new(target));
        assert!(home.join(dir).join("hr/SKILL.md").is_file());
    }
    world.run(["list", "-i", "--verify"]).ok();
    assert_eq!(
        world.run(["upgrade", "--all"]).ok().stdout,
        "Upgraded hr 1.0.0 → 1.1.0 (claude)\n\nUpgraded 1 skill(s).\n"
    );
    let listed = world.run(["list", "-i", "--format", "json"]).ok().json();
    let versions: Vec<&Value> = listed.as_array().unwrap().iter().map(|row| &row["version"]).collect();
    assert_eq!(versions, ["1.1.0", "1.1.0", "1.1.0"]);
    world.run(["uninstall", "hr", "-t", "claude"]).ok();
    assert!(!home.join(".claude/skills/hr").exists() && home.join(".agents/skills/hr/SKILL.md").is_file());
    // What was a link may become a copy, and a copy a link, as long as it is nobody's.
    world.run(["install", "acme/hr:1.0.0", "-t", "windsurf"]).ok();
    assert!(fs::symlink_metadata(home.join(".codeium/windsurf/skills/hr")).unwrap().is_dir());
    world.run(["install", "--link", "acme/hr:1.1.0", "-t", "windsurf"]).ok();
    assert!(fs::symlink_metadata(home.join(".codeium/windsurf/skills/hr")).unwrap().is_symlink());
    world.run(["list", "-i", "--verify"]).ok();
}

#[test]
fn a_project_keeps_its_skills_to_itself() {
    let world = two_versions();
    fs::create_dir_all(world.path("project/.git")).unwrap();
    fs::create_dir_all(world.path("project/src/deep")).unwrap();
    let run = |args: &[&str]| -> Ran {
        let mut command = world.command(args);
        command.current_dir(world.path("project/src/deep")).output().unwrap().into()
    };
    run(&["install", "acme/hr:1.0.0", "--scope", "project", "-t", "claude,codex"]).ok();
    for dir in [".claude/skills/hr", ".agents/skills/hr"] {
        assert!(world.path("project").join(dir).join("SKILL.md").is_file(), "{dir}");
    }
    assert_eq!(run(&["list", "-i", "--scope", "project"]).ok().stdout.lines().count(), 3);
    assert_eq!(run(&["list", "-i"]).ok().stdout, "No installed skills found.\n");
    // A repository that somebody else made must not lead us out of it.
    fs::create_dir_all(world.path("elsewhere")).unwrap();
    symlink(world.path("elsewhere"), world.path("project/.goose")).unwrap();
    run(&["install", "acme/hr:1.0.0", "--scope", "project", "-t", "goose"]).fails(2);
    assert_eq!(fs::read_dir(world.path("elsewhere")).unwrap().count(), 0);
}

#[test]
fn every_agent_gets_its_skill() {
    let world = two_versions();
    for scope in ["user", "project"] {
        let agents = world.run(["agents", "--scope", scope, "--format", "json"]).ok().json();
        let agents = agents.as_array().unwrap();
        assert!(agents.len() > 70);
        let names: Vec<&str> = agents.iter().map(|row| row["name"].as_str().unwrap()).collect();
        let mut command = world.command(["install", "acme/hr:1.0.0", "--scope", scope, "-t", &names.join(",")]);
        Ran::from(command.current_dir(world.path("hr")).output().unwrap()).ok();
        for row in agents {
            let path = PathBuf::from(row["path"].as_str().unwrap());
            assert!(
                path.starts_with(world.path(if scope == "user" { "home" } else { "hr" })) || scope == "project",
                "{row}"
            );
        }
    }
    let listed = world.run(["list", "-i", "--verify", "--format", "json"]).ok().json();
    let paths: std::collections::BTreeSet<&str> =
        listed.as_array().unwrap().iter().map(|row| row["path"].as_str().unwrap()).collect();
    assert!(paths.len() > 50, "{}", paths.len());
    for path in paths {
        let mode = fs::metadata(Path::new(path).join("scripts/run.sh")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{path}");
    }
}

#[test]
fn the_environment_says_where_agents_are() {
    let world = two_versions();
    let cases = [
        ("CLAUDE_CONFIG_DIR", "claude", "moved/skills/hr/SKILL.md"),
        ("CODEX_HOME", "codex", "moved/skills/hr/SKILL.md"),
        ("XDG_CONFIG_HOME", "goose", "moved/goose/skills/hr/SKILL.md"),
    ];
    for (variable, agent, file) in cases {
        let mut command = world.command(["install", "acme/hr:1.0.0", "-t", agent, "--force"]);
        Ran::from(command.env(variable, world.path("moved")).output().unwrap()).ok();
        assert!(world.path(file).is_file(), "{variable}");
    }
}

#[test]
fn names_that_no_directory_should_have_are_refused() {
    let world = World::new();
    for (name, image) in [("con", "acme/con"), ("nul", "acme/nul")] {
        world.skill(name, "1.0.0");
        world.build(name);
        let ran = world.run(["install", &format!("{image}:1.0.0-draft"), "-t", "claude"]).fails(2);
        assert!(ran.stderr.contains(&format!("\"{name}\" cannot be the name of a skill's directory")), "{ran}");
    }
    world.skill("hr", "1.0.0");
    world.build("hr");
    fs::create_dir_all(world.path(SKILLS).join("HR")).unwrap();
    let ran = world.run(["install", "acme/hr:1.0.0-draft", "-t", "claude"]).fails(2);
    assert!(ran.stderr.contains("hr and HR, which is in") && ran.stderr.contains("differ only in case"), "{ran}");
}

#[test]
fn an_edited_receipt_is_said_and_replaced_by_force() {
    let world = two_versions();
    install(&world, "1.0.0").ok();
    let file = world.path(SKILLS).join(".skillimage/receipts/hr.json");
    let good = fs::read_to_string(&file).unwrap();
    for bad in ["", "{", &good.replace("100755", "100644"), &good.replace("\"SKILL.md\"", "\"../../SKILL.md\"")] {
        fs::write(&file, bad).unwrap();
        for verb in [&["upgrade", "hr", "-t", "claude"][..], &["install", "acme/hr:1.1.0", "-t", "claude"]] {
            let ran = world.run(verb).fails(2);
            assert!(ran.stderr.contains("hr"), "{ran}");
        }
        let ran = world.run(["list", "-i", "--verify"]).fails(1);
        assert!(ran.stdout.contains("? hr (claude): ") && ran.stdout.contains("damaged"), "{ran}");
        world.run(["install", "acme/hr:1.0.0", "-t", "claude", "--force"]).ok();
        world.run(["list", "-i", "--verify"]).ok();
    }
}

#[test]
fn what_is_no_skill_is_not_installed() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.build("hr");
    fs::create_dir_all(world.path("home/.claude")).unwrap();
    let ran = world.run(["install", "acme/none:1.0.0", "-t", "claude"]).fails(2);
    assert!(ran.stderr.starts_with("error: Installing acme/none:1.0.0: "), "{ran}");
    assert!(!world.path(SKILLS).join("none").exists());
}

#[test]
fn the_skills_of_the_go_tool_are_listed_and_upgraded() {
    let world = World::new();
    world.extract("go-skillctl.tar.gz", "go");
    fs::rename(world.path("go/store"), world.store()).unwrap();
    fs::remove_dir(world.path("home")).unwrap();
    fs::rename(world.path("go/installed"), world.path("home")).unwrap();
    let listed = world.run(["list", "--installed"]).ok();
    assert_eq!(listed.stdout, fs::read_to_string(world.path("go/installed.txt")).unwrap());
    world.run(["list", "--installed", "--verify"]).ok();

    world.run(["promote", "acme/alpha:1.1.0-testing", "--to", "published", "--local", "--load=never"]).ok();
    world.write("home/.claude/skills/alpha/notes.md", "mine");
    let script = world.path("home/.claude/skills/alpha/scripts/run.sh");
    assert_eq!(fs::metadata(&script).unwrap().permissions().mode() & 0o111, 0);
    let edited = world.path("home/.claude/skills/alpha/SKILL.md");
    let original = fs::read(&edited).unwrap();
    fs::write(&edited, "mine").unwrap();
    let ran = world.run(["upgrade", "alpha", "-t", "claude"]).fails(2);
    assert!(ran.stderr.contains("SKILL.md was changed"), "{ran}");
    fs::write(&edited, original).unwrap();
    let ran = world.run(["upgrade", "alpha", "-t", "claude"]).ok();
    assert_eq!(ran.stdout, "Upgraded alpha 1.0.0 → 1.1.0 (claude)\n");
    assert_eq!(fs::read_to_string(world.path("home/.claude/skills/alpha/notes.md")).unwrap(), "mine");
    // In its form, so that it can go on from here.
    let card = fs::read_to_string(world.path("home/.claude/skills/alpha/skill.yaml")).unwrap();
    assert!(
        card.contains("  version: 1.1.0\n")
            && card.contains("provenance:\n  source: acme/alpha:1.1.0\n  commit: sha256:"),
        "{card}"
    );
    world.run(["uninstall", "gamma", "-t", "cursor"]).ok();
}

#[test]
fn a_full_or_read_only_directory_keeps_what_was_there() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED a_full_or_read_only_directory_keeps_what_was_there: mounting needs root");
        return;
    }
    let world = two_versions();
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    world.write("hr/noise", noise.take(4 << 20).collect::<Vec<u8>>());
    publish(&world, "hr", "2.0.0");
    let skills = world.path(SKILLS);
    fs::create_dir_all(&skills).unwrap();
    let steps = [
        "mount -t tmpfs -o size=2m none $skills",
        "$skillctl install acme/hr:1.0.0 -t claude",
        "$skillctl install acme/hr:2.0.0 -t claude || echo full $?",
        "$skillctl list -i --verify",
        "$skillctl upgrade hr -t claude --to 1.1.0",
        "mount -o remount,ro $skills",
        "$skillctl rollback hr -t claude || echo read-only $?",
        "$skillctl list -i --verify",
        "$skillctl list -i",
    ];
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-ec", &steps.join("; ")]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("XDG_STATE_HOME", world.path("state"));
    command.env("HOME", world.path("home")).env("SKILLCTL_STORE", world.store());
    command.env("skills", &skills).env("skillctl", env!("CARGO_BIN_EXE_skillctl"));
    let ran = Ran::from(command.output().unwrap()).ok();
    assert!(ran.stdout.contains("full 2\n✓ hr (claude) is as it was installed\nUpgraded hr 1.0.0 → 1.1.0"), "{ran}");
    assert!(
        ran.stdout.contains("read-only 2\n✓ hr (claude)")
            && ran.stdout.ends_with("hr    1.1.0    acme/hr:1.1.0  claude\n"),
        "{ran}"
    );
    assert!(ran.stderr.contains("No space left on device") && ran.stderr.contains("Read-only file system"), "{ran}");
}

#[test]
fn a_home_that_is_a_link_is_a_home() {
    let world = two_versions();
    fs::rename(world.path("home"), world.path("real")).unwrap();
    symlink("real", world.path("home")).unwrap();
    install(&world, "1.0.0").ok();
    assert!(world.path("real/.claude/skills/hr/SKILL.md").is_file());
    world.run(["install", "--link", "acme/hr:1.0.0", "-t", "windsurf"]).ok();
    world.run(["list", "-i", "--verify"]).ok();
}

#[test]
fn installations_at_once_do_not_mix() {
    let world = two_versions();
    let mut trees = Vec::new();
    for version in ["1.0.0", "1.1.0"] {
        install(&world, version).ok();
        trees.push(tree(&world.path(SKILLS).join("hr")));
    }
    for _ in 0..5 {
        let children: Vec<_> = (0..6)
            .map(|n| {
                let reference = format!("acme/hr:1.{}.0", n % 2);
                world
                    .command(["install", &reference, "-t", "claude"])
                    .stdout(std::process::Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        assert!(trees.contains(&tree(&world.path(SKILLS).join("hr"))));
        world.run(["list", "-i", "--verify"]).ok();
    }
}

#[test]
fn a_link_that_we_did_not_make_is_not_written_through() {
    let world = two_versions();
    let skills = world.path("project/.agents/skills");
    fs::create_dir_all(world.path("project/.git")).unwrap();
    fs::create_dir_all(world.path("victim/existing")).unwrap();
    let run =
        |args: &[&str]| -> Ran { world.command(args).current_dir(world.path("project")).output().unwrap().into() };
    run(&["install", "acme/hr:1.0.0", "--scope", "project", "-t", "claude"]).ok();
    // As a repository may bring it along: a link that leads out of it, with a receipt.
    let receipts = world.path("project/.claude/skills/.skillimage/receipts");
    let mut receipt: Value = serde_json::from_slice(&fs::read(receipts.join("hr.json")).unwrap()).unwrap();
    receipt["link"] = json!(world.path("victim/existing"));
    receipt["files"] = json!([]);
    fs::create_dir_all(skills.join(".skillimage/receipts")).unwrap();
    fs::write(skills.join(".skillimage/receipts/hr.json"), receipt.to_string()).unwrap();
    symlink(world.path("victim/existing"), skills.join("hr")).unwrap();
    for verb in [&["upgrade", "hr"][..], &["rollback", "hr"]] {
        let ran = run(&[verb, &["--scope", "project", "-t", "universal"]].concat()).fails(2);
        assert!(ran.stderr.contains("is a symbolic link that skillctl did not make"), "{ran}");
    }
    assert_eq!(names(&world.path("victim")), ["existing"]);
    // Links that lead to each other have no end.
    for (name, target) in [("hr", "legal"), ("legal", "hr")] {
        receipt["link"] = json!(target);
        receipt["name"] = json!(name);
        fs::write(skills.join(format!(".skillimage/receipts/{name}.json")), receipt.to_string()).unwrap();
    }
    fs::remove_file(skills.join("hr")).unwrap();
    fs::create_dir_all(skills.join("real")).unwrap();
    symlink("real", skills.join("hr")).unwrap();
    symlink("real", skills.join("legal")).unwrap();
    run(&["list", "-i", "--scope", "project"]).ok();
    run(&["list", "-i", "--scope", "project", "--verify"]).fails(1);
    // The repository's own files, by a link.
    fs::remove_dir_all(world.path("project/.agents")).unwrap();
    symlink("../.git", world.path("project/.agents")).unwrap_or_default();
    symlink(".git", world.path("project/.roo")).unwrap();
    fs::create_dir_all(world.path("project/.git/skills")).unwrap();
    let ran = run(&["install", "acme/hr:1.0.0", "--scope", "project", "-t", "roo"]).fails(2);
    assert!(ran.stderr.contains("it is in the repository's own files"), "{ran}");
    assert_eq!(names(&world.path("project/.git/skills")), [""; 0]);
}

#[test]
fn what_took_the_place_of_a_skill_is_not_uninstalled() {
    let world = two_versions();
    let path = world.path(SKILLS).join("hr");
    type Do = fn(&Path);
    let file: Do = |path| fs::write(path, "precious").unwrap();
    let link: Do = |path| symlink("/etc", path).unwrap();
    for make in [file, link] {
        install(&world, "1.0.0").ok();
        fs::remove_dir_all(&path).unwrap();
        make(&path);
        let ran = world.run(["uninstall", "hr", "-t", "claude"]).fails(2);
        assert!(ran.stderr.contains("which skillctl did not make"), "{ran}");
        assert!(path.symlink_metadata().is_ok());
        let ran = world.run(["uninstall", "hr", "-t", "claude", "--force"]).ok();
        let backup = ran.stdout.lines().find_map(|line| line.strip_prefix("Backup: ")).unwrap().to_owned();
        assert!(Path::new(&backup).join("hr").symlink_metadata().is_ok());
    }
    // A FIFO is nothing to keep.
    install(&world, "1.0.0").ok();
    nix::unistd::mkfifo(&path.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    world.run(["upgrade", "hr", "-t", "claude", "--force"]).ok();
    nix::unistd::mkfifo(&path.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    world.run(["uninstall", "hr", "-t", "claude"]).fails(2);
    world.run(["uninstall", "hr", "-t", "claude", "--force"]).ok();
}

#[test]
fn what_is_written_during_an_upgrade_is_kept() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let world = two_versions();
    for number in 0..300 {
        world.write(&format!("hr/data/{number}"), "x".repeat(2000));
    }
    publish(&world, "hr", "1.2.0");
    install(&world, "1.2.0").ok();
    world.write("hr/data/0", "y");
    publish(&world, "hr", "1.3.0");
    let path = world.path(SKILLS).join("hr");
    let done = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                count += u32::from(fs::write(path.join(format!("user{count}")), "mine").is_ok());
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
            count
        });
        world.run(["upgrade", "hr", "-t", "claude"]).ok();
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    let kept = names(&path).into_iter().filter(|name| name.starts_with("user")).count();
    assert!(written > 20, "{written}");
    // A file that is made in the instant between the last look and the removal has nobody to see it.
    assert!(kept as u32 + 3 >= written, "{kept} of {written}");
}

#[test]
fn a_link_goes_back_once_and_its_copy_stays_while_there_are_links() {
    let world = two_versions();
    publish(&world, "hr", "1.2.0");
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        world.run(["install", "--link", &format!("acme/hr:{version}"), "-t", "claude,codex"]).ok();
    }
    let ran = world.run(["rollback", "hr", "-t", "claude,codex"]).ok();
    assert_eq!(ran.stdout, "Rolled back hr 1.2.0 → 1.1.0 (claude)\n");
    let ran = world.run(["uninstall", "hr", "-t", "universal"]).fails(2);
    assert!(ran.stderr.contains("hr is what claude,codex has a link to"), "{ran}");
    world.run(["uninstall", "hr", "-t", "universal,claude,codex"]).ok();
    assert_eq!(world.run(["list", "-i"]).ok().stdout, "No installed skills found.\n");
}

#[test]
fn what_the_go_tool_installs_over_ours_is_its_own() {
    let world = two_versions();
    install(&world, "1.0.0").ok();
    let path = world.path(SKILLS).join("hr");
    // As it upgrades: files are written over, exec bits go, what is stale stays, and the card says what it is.
    let digest =
        world.run(["inspect", "acme/hr:1.1.0", "--format", "json"]).ok().json()["digest"].as_str().unwrap().to_owned();
    for name in ["SKILL.md", "new.md", "scripts/run.sh"] {
        fs::write(path.join(name), fs::read(world.path("hr").join(name)).unwrap()).unwrap();
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let card = fs::read_to_string(path.join("skill.yaml")).unwrap();
    let old = card.lines().find_map(|line| line.trim().strip_prefix("commit: ")).unwrap().to_owned();
    let card = card.replace(&old, &digest).replace("1.0.0", "1.1.0");
    fs::write(path.join("skill.yaml"), card).unwrap();
    publish(&world, "hr", "1.2.0");
    let rows = world.run(["list", "-i", "--format", "json"]).ok().json();
    assert_eq!((&rows[0]["version"], &rows[0]["digest"]), (&json!("1.1.0"), &json!(digest)));
    let ran = world.run(["upgrade", "hr", "-t", "claude"]).ok();
    assert_eq!(ran.stdout, "Upgraded hr 1.1.0 → 1.2.0 (claude)\n");
    assert_eq!(fs::metadata(path.join("scripts/run.sh")).unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn a_dry_run_writes_nothing() {
    let world = two_versions();
    let ran = world.run(["install", "--dry-run", "acme/hr:1.0.0", "-t", "claude,goose"]).ok();
    assert!(
        ran.stdout.contains("Would install acme/hr:1.0.0 to ") && ran.stdout.contains("  A scripts/run.sh\n"),
        "{ran}"
    );
    assert_eq!(names(&world.path("home")), [""; 0]);
    install(&world, "1.0.0").ok();
    let before = tree(&world.path("home"));
    world.run(["upgrade", "hr", "-t", "claude", "--dry-run"]).ok();
    world.run(["install", "acme/hr:1.1.0", "-t", "claude", "--dry-run"]).ok();
    assert_eq!(tree(&world.path("home")), before);
    // Nor does what is refused leave anything behind.
    fs::write(world.path(SKILLS).join("hr/SKILL.md"), "mine").unwrap();
    world.run(["upgrade", "hr", "-t", "claude"]).fails(2);
    assert_eq!(fs::read_dir(world.path(SKILLS).join(".skillimage/work")).unwrap().count(), 0);
}

#[test]
fn another_repository_replaces_a_skill_by_force_only() {
    let world = two_versions();
    world.run(["tag", "acme/hr:1.1.0", "evil/hr:9.9.9", "--load=never"]).ok();
    install(&world, "1.0.0").ok();
    let ran = world.run(["install", "evil/hr:9.9.9", "-t", "claude"]).fails(2);
    assert!(ran.stderr.contains("hr is installed from acme/hr:1.0.0"), "{ran}");
    world.run(["install", "evil/hr:9.9.9", "-t", "claude", "--force"]).ok();
    // One of the same name that came from nowhere is in nobody's way.
    install(&world, "1.0.0").fails(2);
    world.run(["install", "acme/hr:1.0.0", "-t", "claude", "--force"]).ok();
    world.write("home/.cursor/skills/hr/skill.yaml", fs::read(world.path("hr/skill.yaml")).unwrap());
    assert_eq!(world.run(["upgrade", "hr"]).ok().stdout, "Upgraded hr 1.0.0 → 1.1.0 (claude)\n");
}

#[test]
fn a_skill_in_a_lower_layer_of_overlayfs_is_upgraded_and_uninstalled() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED a_skill_in_a_lower_layer_of_overlayfs_is_upgraded_and_uninstalled: mounting needs root");
        return;
    }
    let world = two_versions();
    install(&world, "1.0.0").ok();
    fs::rename(world.path("home"), world.path("lower")).unwrap();
    for dir in ["home", "layers"] {
        fs::create_dir(world.path(dir)).unwrap();
    }
    let steps = [
        "mount -t tmpfs none layers",
        "mkdir layers/upper layers/work",
        "mount -t overlay -o lowerdir=lower,upperdir=layers/upper,workdir=layers/work,redirect_dir=off none home",
        "echo mine >home/.claude/skills/hr/notes.md",
        "$skillctl upgrade hr -t claude",
        "cat home/.claude/skills/hr/notes.md home/.claude/skills/hr/new.md",
        "$skillctl list -i",
        "$skillctl uninstall hr -t claude --force",
        "$skillctl list -i",
    ];
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-ec", &steps.join("; ")]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("XDG_STATE_HOME", world.path("state"));
    command.env("HOME", world.path("home")).env("SKILLCTL_STORE", world.store());
    command.env("skillctl", env!("CARGO_BIN_EXE_skillctl")).current_dir(world.tmp.path());
    let ran = Ran::from(command.output().unwrap());
    if ran.stderr.contains("mount:") {
        eprintln!("SKIPPED a_skill_in_a_lower_layer_of_overlayfs_is_upgraded_and_uninstalled: no overlayfs here");
        return;
    }
    let ran = ran.ok();
    assert!(ran.stdout.starts_with("Upgraded hr 1.0.0 → 1.1.0 (claude)\nmine\nnew"), "{ran}");
    assert!(ran.stdout.ends_with("No installed skills found.\n"), "{ran}");
}
