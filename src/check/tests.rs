#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const CARD: &str = "apiVersion: skillimage.io/v1alpha1\nkind: SkillCard\nmetadata:\n  name: my-skill\n  namespace: acme\n  \
                    version: 1.0.0\n  description: Does things.\n";
const SKILL: &str = "---\nname: my-skill\ndescription: Does things.\n---\nTwo words\n";

struct Case<'a> {
    dir: &'a str,
    skill_md: Option<&'a [u8]>,
    skill_yaml: Option<&'a [u8]>,
    files: &'a [&'a str],
    strict: bool,
}

fn run(case: &Case<'_>) -> Checked {
    let origin = Origin { dir_name: case.dir, ..Origin::default() };
    check(&SkillInput {
        skill_md: case.skill_md,
        skill_yaml: case.skill_yaml,
        has_file: &|path| case.files.contains(&path),
        origin: &origin,
        strict: case.strict,
    })
}

fn show(finding: &Finding) -> String {
    let (line, column) = (finding.line.unwrap_or(0), finding.column.unwrap_or(0));
    let severity = if finding.severity == Severity::Error { 'E' } else { 'W' };
    format!("{severity} {}:{line}:{column} [{}] {}: {}", finding.file, finding.rule, finding.field, finding.message)
}

fn alone(skill_md: &str) -> Vec<String> {
    alone_in("my-skill", skill_md)
}

fn alone_in(dir: &str, skill_md: &str) -> Vec<String> {
    let case =
        Case { dir, skill_md: Some(skill_md.as_bytes()), skill_yaml: None, files: &["LICENSE.txt"], strict: false };
    run(&case).findings.iter().map(show).collect()
}

fn both(skill_md: &str, skill_yaml: &str) -> Vec<String> {
    let (skill_md, skill_yaml) = (Some(skill_md.as_bytes()), Some(skill_yaml.as_bytes()));
    let files = &["SKILL.md", "LICENSE.txt", "docs/prompt.md"];
    run(&Case { dir: "my-skill", skill_md, skill_yaml, files, strict: false }).findings.iter().map(show).collect()
}

#[test]
fn a_sound_skill_has_no_findings() {
    assert_eq!(both(SKILL, CARD), [""; 0]);
    let case = Case { dir: "my-skill", skill_md: Some(SKILL.as_bytes()), skill_yaml: None, files: &[], strict: true };
    let checked = run(&case);
    assert_eq!((checked.findings.len(), checked.errors(), checked.words), (0, 0, 2));
    let generated = checked.generated.unwrap();
    assert_eq!(Card::parse(generated.as_bytes()), Ok(checked.card.unwrap()));
    assert!(generated.contains("  namespace: local\n  version: 0.1.0\n"), "{generated}");
}

/// The reference validator's own test cases.
#[test]
fn the_reference_validator_is_agreed_with() {
    let with = |name: &str, rest: &str| format!("---\nname: {name}\ndescription: Text\n{rest}---\n");
    let long = "a".repeat(70);
    let cases: &[(&str, String, &[&str])] = &[
        ("my-skill", with("my-skill", ""), &[]),
        ("MySkill", with("MySkill", ""), &["E SKILL.md:2:7 [skill/name] name: Skill name 'MySkill' must be lowercase"]),
        (
            &long,
            with(&long, ""),
            &[&format!("E SKILL.md:2:7 [skill/name] name: Skill name '{long}' exceeds 64 character limit (70 chars)")],
        ),
        (
            "-my-skill",
            with("-my-skill", ""),
            &["E SKILL.md:2:7 [skill/name] name: Skill name cannot start or end with a hyphen"],
        ),
        (
            "my--skill",
            with("my--skill", ""),
            &["E SKILL.md:2:7 [skill/name] name: Skill name cannot contain consecutive hyphens"],
        ),
        (
            "my_skill",
            with("my_skill", ""),
            &["E SKILL.md:2:7 [skill/name] name: Skill name 'my_skill' contains invalid characters. Only letters, \
               digits, and hyphens are allowed."],
        ),
        (
            "wrong-name",
            with("my-skill", ""),
            &["W SKILL.md:2:7 [skill/directory] name: Directory name 'wrong-name' must match skill name 'my-skill'"],
        ),
        (
            "my-skill",
            with("my-skill", "zeta: 1\nalpha: 2\n"),
            &["W SKILL.md:4:1 [skill/unknown-field] zeta: Unexpected fields in frontmatter: alpha, zeta. Only \
               ['allowed-tools', 'compatibility', 'description', 'license', 'metadata', 'name'] are allowed."],
        ),
        (
            "my-skill",
            with(
                "my-skill",
                "license: MIT\ncompatibility: any\nallowed-tools: Bash(jq:*)\nmetadata:\n  author: x\n  version: 1.0\n",
            ),
            &[],
        ),
        ("my-skill", with("my-skill", "allowed-tools: Bash(git:*) Read\n"), &[]),
        (
            "技能",
            with("技能", ""),
            &["E SKILL.md:2:7 [skill/name] name: Skill name '技能' is not ASCII, which the names of images are"],
        ),
        (
            "skill",
            with("мой-навык", ""),
            &[
                "W SKILL.md:2:7 [skill/directory] name: Directory name 'skill' must match skill name 'мой-навык'",
                "W SKILL.md:2:7 [skill/name] name: Skill name 'мой-навык' is not ASCII, which the names of images are",
            ],
        ),
        (
            "НАВЫК",
            with("НАВЫК", ""),
            &[
                "E SKILL.md:2:7 [skill/name] name: Skill name 'НАВЫК' is not ASCII, which the names of images are",
                "E SKILL.md:2:7 [skill/name] name: Skill name 'НАВЫК' must be lowercase",
            ],
        ),
        (
            "my-skill",
            format!("---\nname: my-skill\ndescription: {}\n---\n", "x".repeat(1100)),
            &["E SKILL.md:3:14 [skill/description] description: Description exceeds 1024 character limit (1100 chars)"],
        ),
        (
            "my-skill",
            with("my-skill", &format!("compatibility: {}\n", "x".repeat(550))),
            &[
                "W SKILL.md:4:16 [skill/compatibility] compatibility: Compatibility exceeds 500 character limit (550 chars)",
            ],
        ),
        // The composed and the decomposed é are one name.
        (
            "cafe\u{301}",
            with("caf\u{e9}", ""),
            &["E SKILL.md:2:7 [skill/name] name: Skill name 'café' is not ASCII, which the names of images are"],
        ),
    ];
    for (dir, text, expected) in cases {
        assert_eq!(alone_in(dir, text), *expected, "{text}");
    }
}

#[test]
fn missing_files_and_fields() {
    let none = |files| Case { dir: "my-skill", skill_md: None, skill_yaml: None, files, strict: false };
    let checked = run(&none(&["skill.md"]));
    assert_eq!(checked.findings[0].message, "Missing required file: SKILL.md");
    assert_eq!(checked.findings[0].remedy, "rename skill.md to SKILL.md");
    assert_eq!((checked.findings.len(), checked.card, checked.generated), (1, None, None));
    assert!(run(&none(&[])).findings[0].remedy.starts_with("write SKILL.md"));

    let description = "[skill/description] description: Missing required field in frontmatter: description";
    let name = "W SKILL.md:1:1 [skill/name] name: Missing required field in frontmatter: name";
    assert_eq!(alone("---\nlicense: MIT\n---\n"), [format!("E SKILL.md:1:1 {description}").as_str(), name]);
    assert_eq!(both("---\nlicense: MIT\n---\n", CARD), [format!("W SKILL.md:1:1 {description}").as_str(), name]);
    assert_eq!(
        alone_in("My Dir", "---\ndescription: x\n---\n"),
        ["E SKILL.md:0:0 [card/name] metadata.name: 'My Dir' does not match pattern '^[a-z0-9]+(-[a-z0-9]+)*$'", name]
    );
    let start = "SKILL.md:1:1 [skill/frontmatter] (root): SKILL.md must start with YAML frontmatter (---)";
    assert_eq!(alone("Text\n"), [format!("E {start}")]);
    assert_eq!(both("Text\n", CARD), [format!("W {start}")]);
}

#[test]
fn cards_and_skills_agree() {
    let card = |from: &str, to: &str| {
        let text = CARD.replacen(from, to, 1);
        assert_ne!(text, CARD);
        text
    };
    let cases: &[(String, &[&str])] = &[
        (
            card("my-skill", "Code_Reviewer"),
            &[
                "E skill.yaml:4:9 [card/name] metadata.name: 'Code_Reviewer' does not match pattern \
                 '^[a-z0-9]+(-[a-z0-9]+)*$'",
                "W skill.yaml:4:9 [card/agreement] metadata.name: 'Code_Reviewer' differs from name 'my-skill' in \
                 SKILL.md",
            ],
        ),
        (
            card("Does", "Did"),
            &["W skill.yaml:7:16 [card/agreement] metadata.description: differs from the description in SKILL.md"],
        ),
        (card("description: Does things.", "description: >\n    Does\n    things."), &[]),
        (
            card("1.0.0", "1.0.0-draft"),
            &["E skill.yaml:6:12 [card/version] metadata.version: '1.0.0-draft' is the tag of version '1.0.0' in the \
               state draft"],
        ),
        (
            card("1.0.0", "1.0.0-rc.1-testing"),
            &["E skill.yaml:6:12 [card/version] metadata.version: '1.0.0-rc.1-testing' is the tag of version \
               '1.0.0-rc.1' in the state testing"],
        ),
        (card("1.0.0", "1.0.0-drafty"), &[]),
        (
            card("1.0.0", "1.0.0+b1"),
            &["E skill.yaml:6:12 [card/version] metadata.version: '1.0.0+b1' cannot be a tag, which has no '+'"],
        ),
        (
            card("1.0.0", "1.0"),
            &["E skill.yaml:6:12 [card/version] metadata.version: invalid semantic version: invalid semantic version"],
        ),
        (
            card("  version: 1.0.0\n", ""),
            &["E skill.yaml:4:3 [card/version] metadata.version: minLength: got 0, want 1"],
        ),
        (
            format!("{CARD}  license: Apache 2\n"),
            &["W skill.yaml:8:12 [card/license] metadata.license: 'Apache 2' is neither an SPDX expression nor a \
               bundled file: unknown term"],
        ),
        (format!("{CARD}  license: MIT OR Apache-2.0\n"), &[]),
        (format!("{CARD}  license: Complete terms in LICENSE.txt.\n"), &[]),
        (format!("{CARD}spec:\n  prompt: ./docs/prompt.md\n"), &[]),
        (
            format!("{CARD}spec:\n  prompt: ../x\n"),
            &["E skill.yaml:9:11 [card/prompt] spec.prompt: '../x' does not exist in the skill"],
        ),
        (
            format!("{CARD}  tags:\n    - \"a\\u202Eb\"\n"),
            &["E skill.yaml:9:7 [card/hidden-text] metadata.tags.0: contains a bidirectional control (U+202E)"],
        ),
        (
            format!("{CARD}  display-name: \"a\\e[1m\"\nextra: 1\n"),
            &[
                "E skill.yaml:8:17 [card/hidden-text] metadata.display-name: contains a control character (U+001B)",
                "E skill.yaml:9:1 [card/unknown-field] extra: field extra not found in type skillcard.SkillCard",
            ],
        ),
        (
            "a: [".into(),
            &["E skill.yaml:2:1 [card/yaml] (root): while parsing a node, did not find expected node content"],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(both(SKILL, text), *expected, "{text}");
    }
    let first = &run(&Case {
        dir: "x",
        skill_md: Some(SKILL.as_bytes()),
        skill_yaml: Some(CARD.replace("my-skill", "Code_Reviewer").as_bytes()),
        files: &[],
        strict: false,
    })
    .findings[1];
    assert_eq!(first.remedy, "use lower-case letters, digits and single hyphens, for example: code-reviewer");
}

#[test]
fn a_derived_card_is_judged_where_it_was_written() {
    let with = |rest: &str| format!("---\nname: my-skill\ndescription: Text\n{rest}---\n");
    let cases: &[(String, &[&str])] = &[
        (
            with("metadata:\n  version: v1.2\n"),
            &["E SKILL.md:5:12 [card/version] metadata.version: invalid semantic version: invalid semantic version"],
        ),
        (
            with("metadata:\n  namespace: NVIDIA\n"),
            &["E SKILL.md:5:14 [card/namespace] metadata.namespace: 'NVIDIA' does not match pattern \
               '^[a-z0-9]+(-[a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*)*$'"],
        ),
        (
            with("license: Proprietary\n"),
            &["W SKILL.md:4:10 [skill/license] license: 'Proprietary' is neither an SPDX \
                                            expression nor a bundled file: unknown term"],
        ),
        (with("license: LICENSE.txt\n"), &[]),
        (
            "---\nname: b:my-skill\ndescription: \"a\\U000E0041\"\n---\n".into(),
            &[
                "W SKILL.md:2:7 [skill/directory] name: Directory name 'my-skill' must match skill name 'b:my-skill'",
                "W SKILL.md:2:7 [skill/name] name: Skill name 'b:my-skill' contains invalid characters. Only letters, \
                 digits, and hyphens are allowed.",
                "E SKILL.md:3:14 [skill/hidden-text] description: contains an invisible tag character (U+E0041)",
            ],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(alone(text), *expected, "{text}");
    }
}

#[test]
fn v1alpha2_takes_names_from_skill_md() {
    let card = "apiVersion: skillimage.io/v1alpha2\nkind: SkillCard\nmetadata:\n  version: 1.0.0\n";
    assert_eq!(both(SKILL, card), [""; 0]);
    assert_eq!(
        both("---\nname: My_Skill\ndescription: x\n---\n", card)[..2],
        [
            "E SKILL.md:2:7 [skill/name] name: Skill name 'My_Skill' contains invalid characters. Only letters, digits, \
             and hyphens are allowed.",
            "E SKILL.md:2:7 [skill/name] name: Skill name 'My_Skill' must be lowercase",
        ]
    );
    assert_eq!(
        both(SKILL, &card.replace("1.0.0", "1.0.0-rc.1")),
        [
            r"E skill.yaml:4:12 [card/version] metadata.version: '1.0.0-rc.1' does not match pattern '^[0-9]+\\.[0-9]+\\.[0-9]+$'"
        ]
    );
}

#[test]
fn strict_makes_errors_of_warnings() {
    let text = b"---\nname: my-skill\ndescription: Text\nmodel: x\n---\n";
    let mut case = Case { dir: "my-skill", skill_md: Some(text), skill_yaml: None, files: &[], strict: false };
    assert_eq!((run(&case).errors(), run(&case).generated.is_some()), (0, true));
    case.strict = true;
    assert_eq!((run(&case).errors(), run(&case).generated.is_some()), (1, false));
}

proptest! {
    #[test]
    fn never_panics(
        skill_md in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
        yaml in proptest::option::of("(metadata|spec|name|tags|authors|[a-z]{0,2}|[:\\[\\]{}'\"\n -]|é|\u{202e}){0,40}"),
        front in "(name|description|metadata|license|[a-z]{0,2}|[:\\[\\]{}'\"\n -]|é|\u{202e}){0,40}",
        strict in any::<bool>(),
    ) {
        let skill_yaml = yaml.as_ref().map(String::as_bytes);
        run(&Case { dir: "dir", skill_md: skill_md.as_deref(), skill_yaml, files: &[], strict });
        let skill_md = format!("---\n{front}\n---\n");
        let checked =
            run(&Case { dir: "dir", skill_md: Some(skill_md.as_bytes()), skill_yaml: None, files: &[], strict });
        if let Some(generated) = checked.generated {
            prop_assert_eq!(Card::parse(generated.as_bytes()), Ok(checked.card.unwrap()));
        }
    }
}

#[test]
fn licenses_that_are_nearly_right_are_corrected() {
    let other = "write an SPDX identifier, for example: Apache-2.0, or LicenseRef- and a name of your own";
    let cases = [
        ("mit", "write: MIT"),
        ("apache 2.0", "write: Apache-2.0"),
        ("agpl", "write: AGPL-3.0-only"),
        ("MIT/Apache-2.0", "write: MIT OR Apache-2.0"),
        ("apache2 or (mit", other),
        ("Apache 2", other),
        ("Proprietary", other),
    ];
    for (license, remedy) in cases {
        let text = format!("---\nname: my-skill\ndescription: Text\nlicense: {license}\n---\n");
        let skill_md = Some(text.as_bytes());
        let checked = run(&Case { dir: "my-skill", skill_md, skill_yaml: None, files: &[], strict: false });
        assert_eq!(checked.findings.iter().map(|f| f.remedy.as_str()).collect::<Vec<_>>(), [remedy], "{license}");
    }
}
