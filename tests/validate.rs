//! `validate`: findings, where they are, and the exit status.

use std::fs;

use crate::support::World;

#[test]
fn a_valid_skill_is_said_to_be_so_in_the_words_of_the_go_tool() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    for (path, shown) in [("hr", "hr/skill.yaml"), ("hr/skill.yaml", "hr/skill.yaml"), ("hr/SKILL.md", "hr/SKILL.md")] {
        assert_eq!(world.run(["validate", path]).ok().stdout, format!("✓ {shown} is valid\n"));
    }
}

#[test]
fn what_is_wrong_is_shown_with_place_rule_and_remedy() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    let card = fs::read_to_string(world.path("hr/skill.yaml")).unwrap();
    world.write("hr/skill.yaml", card.replace("name: hr", "name: Code_Reviewer"));
    let ran = world.run(["validate", "hr"]).fails(1);
    assert_eq!(ran.stdout, "");
    assert!(
        ran.stderr.contains("✗ hr/skill.yaml has 1 error(s):\n  metadata.name: 'Code_Reviewer' does not match pattern"),
        "{ran}"
    );
    assert!(ran.stderr.contains("\n    skill.yaml:4:9  [card/name]  "), "{ran}");
    assert!(ran.stderr.contains("validation failed with 1 error(s)\n"), "{ran}");
}

#[test]
fn statuses_tell_no_from_could_not() {
    let world = World::new();
    fs::create_dir(world.path("empty")).unwrap();
    world.write("other.txt", "");
    for (path, status) in [("empty", 1), ("missing", 2), ("other.txt", 2)] {
        world.run(["validate", path]).fails(status);
    }
}

#[test]
fn warnings_become_errors_with_strict() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.write("hr/SKILL.md", "---\nname: hr\ndescription: Does hr.\nmodel: x\n---\n");
    let ran = world.run(["validate", "hr"]).ok();
    assert!(ran.stderr.starts_with("warning: hr/SKILL.md:4:1: "), "{ran}");
    world.run(["validate", "hr", "--strict"]).fails(1);
}

#[test]
fn hostile_text_is_a_finding_and_harmless_where_it_is_shown() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    world.write("hr/SKILL.md", "---\nname: hr\ndescription: \"Does hr.\\e[31m\\u202e\"\n---\n");
    let ran = world.run(["validate", "hr"]);
    assert!(!ran.stderr.contains('\u{1b}') && !ran.stderr.contains('\u{202e}'), "{ran}");
    let json = world.run(["validate", "hr", "--format", "json"]).json();
    let rules: Vec<&str> = json["findings"].as_array().unwrap().iter().filter_map(|f| f["rule"].as_str()).collect();
    assert!(rules.contains(&"skill/hidden-text"), "{rules:?}");
}

#[test]
fn a_key_forges_no_line() {
    let world = World::new();
    world.skill("hr", "1.0.0");
    let text = "---\nname: hr\ndescription: Does hr.\n\"a\\nerror: forged\\nDigest: sha256:0\": x\nmetadata:\n  \"b\\nerror: forged\": [x]\n---\n";
    world.write("hr/SKILL.md", text);
    for args in [&["validate", "hr"][..], &["build", "hr", "--load=never"]] {
        let ran = world.run(args);
        let printed = format!("{}{}", ran.stdout, ran.stderr);
        assert!(printed.contains("forged"), "{ran}");
        assert!(
            !printed.lines().any(|line| line.starts_with("error: forged") || line.starts_with("Digest: sha256:0")),
            "{ran}"
        );
    }
}

/// Hostile YAML is a finding: no panic, no hang, no more than 100 MB.
#[test]
fn hostile_yaml_is_bounded() {
    let bomb = (0..30)
        .fold("a0: &a0 [x, x]\n".to_owned(), |text, i| text + &format!("a{}: &a{} [*a{i}, *a{i}]\n", i + 1, i + 1));
    let deep = "[".repeat(100_000);
    let cases: [(&str, Vec<u8>); 7] = [
        ("empty", Vec::new()),
        ("bomb", format!("---\n{bomb}---\n").into_bytes()),
        ("deep", format!("---\nname: {deep}\n---\n").into_bytes()),
        ("huge", [b"---\nname: ".to_vec(), vec![b'x'; 50 << 20]].concat()),
        ("binary", b"---\nname: \xff\xfe\n---\n".to_vec()),
        ("twice", b"---\nname: a\nname: b\ndescription: d\n---\n".to_vec()),
        ("unclosed", b"---\nname: a\n".to_vec()),
    ];
    for (name, text) in cases {
        let world = World::new();
        world.write("hr/SKILL.md", text);
        let mut command = std::process::Command::new("sh");
        let script = format!("ulimit -v 300000; exec {} validate hr --format json", env!("CARGO_BIN_EXE_skillctl"));
        let output = command
            .args(["-c", &script])
            .current_dir(world.tmp.path())
            .env("SKILLCTL_STORE", world.store())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["valid"], false, "{name}");
    }
}
