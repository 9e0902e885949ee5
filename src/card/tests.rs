#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::{frontmatter, yaml::Place};

const CARD: &str = "apiVersion: skillimage.io/v1alpha1\nkind: SkillCard\nmetadata:\n  name: hello-world\n  display-name: \
                    \"Hello: World\"\n  namespace: acme/tools\n  version: 1.0.0\n  description: Says hello.\n  \
                    license: Apache-2.0\n  compatibility: podman\n  tags:\n    - example\n    - \"no\"\n  authors:\n    \
                    - name: A B\n      email: a@b.example\n    - name: C\n  allowed-tools: Read Write\nprovenance:\n  \
                    source: https://git.example/a.git\n  commit: abc\n  path: skills/hello\nspec:\n  prompt: \
                    SKILL.md\n  examples:\n    - input: hi\n      output: |-\n        Hello\n        # there\n  dependencies:\n    \
                    - name: other\n      version: 1.0.0\n";

#[test]
fn a_card_survives_reading_and_writing() {
    let card = Card::parse(CARD.as_bytes()).unwrap();
    assert_eq!(card.metadata.namespace, "acme/tools");
    assert_eq!(card.metadata.authors[0], Author { name: "A B".into(), email: "a@b.example".into() });
    assert_eq!(card.spec.as_ref().unwrap().examples[0].output, "Hello\n# there");
    assert_eq!(card.violations(), []);
    assert_eq!(card.to_yaml(), CARD);
}

/// Written by the Go tool; an install that rewrites it changes no byte.
#[test]
fn the_go_tools_card_is_written_alike() {
    let text = r"apiVersion: skillimage.io/v1alpha1
kind: SkillCard
metadata:
  name: alpha
  display-name: Alpha Skill
  namespace: acme
  version: 1.0.0
  description: |
    Alpha Skill, made as a fixture. It has a script, a dotfile and a description that folds.
  license: Apache-2.0
  compatibility: any agent
  tags:
    - fixture
    - alpha
  authors:
    - name: Fixture Author
      email: author@example.com
    - name: Second
provenance:
  source: acme/alpha:1.0.0
  commit: sha256:a8dbaa7391e29bf71b4d1dc0599873ab3e28642959e8442d91a5c4525ca9f977
spec:
  prompt: SKILL.md
";
    assert_eq!(Card::parse(text.as_bytes()).unwrap().to_yaml(), text);
}

#[test]
fn v1alpha2_is_read_and_completed() {
    let text = "apiVersion: skillimage.io/v1alpha2\nkind: SkillCard\nmetadata:\n  version: 1.0.0\n  title: Hello\n  \
                vendor: Acme Inc.\n  tags:\n    - a\n  authors:\n    - name: B\n  url: https://acme.example/\n  \
                annotations:\n    com.example.key: \"1\"\n";
    let mut card = Card::parse(text.as_bytes()).unwrap();
    assert_eq!(card.metadata.display_name, "Hello");
    assert_eq!(card.catalog.annotations, [("com.example.key".to_owned(), "1".to_owned())]);
    assert_eq!(card.violations(), []);
    assert_eq!(card.to_yaml(), text);
    let front = frontmatter::parse(b"---\nname: hello\ndescription: Text\nallowed-tools: Read\n---\n").front.unwrap();
    card.complete(&front, &Origin::default());
    let metadata = &card.metadata;
    assert_eq!((metadata.name.as_str(), metadata.namespace.as_str()), ("hello", "local"));
    assert_eq!((metadata.description.as_str(), metadata.allowed_tools.as_str()), ("Text", "Read"));

    let foreign = Card::parse(text.replace("title:", "name:").as_bytes()).unwrap_err();
    assert_eq!(foreign[0].message, "field name not found in type skillcard.Metadata");
    let broken = text.replace("1.0.0", "1.0.0-rc.1").replace("https://acme", "acme");
    let violations = Card::parse(broken.as_bytes()).unwrap().violations();
    let messages: Vec<&str> = violations.iter().map(|violation| violation.message.as_str()).collect();
    assert_eq!(
        messages,
        ["'acme.example/' is not valid uri", r"'1.0.0-rc.1' does not match pattern '^[0-9]+\\.[0-9]+\\.[0-9]+$'"]
    );
}

#[test]
fn forms_that_are_wrong() {
    let cases = [
        ("", 1, 1, "card/yaml", "(root)", "the file is empty"),
        ("- a\n", 1, 1, "card/type", "(root)", "cannot unmarshal !!seq into skillcard.SkillCard"),
        (
            "metadata:\n  naem: x\n",
            2,
            3,
            "card/unknown-field",
            "metadata.naem",
            "field naem not found in type skillcard.Metadata",
        ),
        (
            "spec:\n  tools: []\n",
            2,
            3,
            "card/unknown-field",
            "spec.tools",
            "field tools not found in type skillcard.Spec",
        ),
        ("metadata:\n  name: [a]\n", 2, 9, "card/type", "metadata.name", "cannot unmarshal !!seq into string"),
        ("metadata:\n  tags: a\n", 2, 9, "card/type", "metadata.tags", "cannot unmarshal !!str into a list"),
        (
            "metadata:\n  authors:\n    - name: A\n      mail: b\n",
            4,
            7,
            "card/unknown-field",
            "metadata.authors.0.mail",
            "field mail not found in type skillcard.Author",
        ),
        ("kind: &k a\napiVersion: *k\n", 2, 13, "card/yaml", "(root)", "aliases are not allowed"),
        ("kind: a\nkind: b\n", 2, 1, "card/yaml", "(root)", "mapping key \"kind\" already defined at line 1"),
    ];
    for (text, line, column, rule, field, message) in cases {
        let findings = Card::parse(text.as_bytes()).unwrap_err();
        let [finding] = findings.as_slice() else { panic!("{text}: {findings:?}") };
        assert_eq!(
            (finding.line, finding.column, finding.rule, finding.field.as_str(), finding.message.as_str()),
            (Some(line), Some(column), rule, field, message)
        );
    }
}

#[test]
fn violations_speak_as_the_go_tool_does() {
    // What replaces what, and the fields and messages that follow.
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
    let cases: &[Case<'_>] = &[
        (
            "name: hello-world",
            "name: Code_Reviewer",
            &[("metadata.name", "'Code_Reviewer' does not match pattern '^[a-z0-9]+(-[a-z0-9]+)*$'")],
        ),
        (
            "  name: hello-world\n",
            "",
            &[
                ("metadata.name", "'' does not match pattern '^[a-z0-9]+(-[a-z0-9]+)*$'"),
                ("metadata.name", "minLength: got 0, want 1"),
            ],
        ),
        ("v1alpha1", "v1", &[("apiVersion", "value must be 'skillimage.io/v1alpha1'")]),
        ("SkillCard", "Skill", &[("kind", "value must be 'SkillCard'")]),
        ("description: Says hello.", "description: ''", &[("metadata.description", "minLength: got 0, want 1")]),
        ("display-name: \"Hello: World\"", "display-name: ''", &[]),
        ("- name: C\n", "- email: c\n", &[("metadata.authors.1.name", "minLength: got 0, want 1")]),
        (
            "version: 1.0.0",
            "version: 1.0",
            &[("metadata.version", "invalid semantic version: invalid semantic version")],
        ),
        (
            "version: 1.0.0",
            "version: v1.0.0",
            &[("metadata.version", "invalid semantic version: invalid characters in version")],
        ),
        (
            "version: 1.0.0",
            "version: 1.01.0",
            &[("metadata.version", "invalid semantic version: version segment starts with 0")],
        ),
        ("version: 1.0.0", "version: 1.0.0-rc.1+b.2", &[]),
    ];
    for (from, to, expected) in cases {
        let text = CARD.replacen(from, to, 1);
        assert_ne!(text, CARD);
        let violations = Card::parse(text.as_bytes()).unwrap().violations();
        let found: Vec<(&str, &str)> =
            violations.iter().map(|violation| (violation.field.as_str(), violation.message.as_str())).collect();
        assert_eq!(found, *expected, "{to}");
    }
    let long = CARD.replacen("hello-world", &"a".repeat(70), 1);
    assert_eq!(Card::parse(long.as_bytes()).unwrap().violations()[0].message, "maxLength: got 70, want 64");
}

#[test]
fn a_card_is_derived_from_front_matter() {
    let derive = |text: &str, origin: &Origin<'_>| {
        let front = frontmatter::parse(format!("---\n{text}\n---\n").as_bytes()).front.unwrap();
        let metadata = Card::derive(&front, origin).metadata;
        let author = metadata.authors.first().map(|author| author.name.clone()).unwrap_or_default();
        [metadata.namespace, metadata.name, metadata.version, author].join(" ")
    };
    let local = Origin { dir_name: "dir", ..Origin::default() };
    let git = Origin { dir_name: "dir", namespace: Some("org"), author: Some("org"), ..Origin::default() };
    let cases = [
        ("name: a", &local, "local a 0.1.0 "),
        ("name: a", &git, "org a 0.1.0 org"),
        ("name: b:a", &git, "org a 0.1.0 org".replace("org a", "b a").leak() as &str),
        ("name: ':a'", &local, "local :a 0.1.0 "),
        ("description: x", &local, "local dir 0.1.0 "),
        ("name: 技能", &local, "local dir 0.1.0 "),
        ("name: A_b", &local, "local A_b 0.1.0 "),
        ("name: n:a\nmetadata:\n  namespace: acme/x\n  version: 2.0\n  author: Me", &git, "acme/x a 2.0.0 Me"),
        ("name: a\nmetadata:\n  version: '3'", &local, "local a 3.0.0 "),
        ("name: a\nmetadata:\n  version: v1.2", &local, "local a v1.2 "),
        ("name: a\nmetadata:\n  version: 1.2.3-rc.1", &local, "local a 1.2.3-rc.1 "),
    ];
    for (text, origin, expected) in cases {
        assert_eq!(derive(text, origin), expected, "{text}");
    }
    let text =
        b"---\nname: a\ndescription: >\n  Two\n  words\nlicense: MIT\ncompatibility: any\nallowed-tools: Read\n---\n";
    let card = Card::derive(&frontmatter::parse(text).front.unwrap(), &local);
    assert_eq!(
        card.to_yaml(),
        "apiVersion: skillimage.io/v1alpha1\nkind: SkillCard\nmetadata:\n  name: a\n  namespace: local\n  version: \
         0.1.0\n  description: Two words\n  license: MIT\n  compatibility: any\n  allowed-tools: Read\nspec:\n  prompt: \
         SKILL.md\n"
    );
}

#[test]
fn a_text_cannot_become_yaml() {
    let evil = "x\nkind: Other\n  - \"'#: {[ \u{202e}\u{7}\u{2028}\u{feff}";
    let mut card = Card::parse(CARD.as_bytes()).unwrap();
    card.metadata.description = evil.into();
    card.metadata.tags =
        ["no", "1.0", "~", "", "- a", "a: b", "a #b", " a", "0x1f", "1:30", "1.0.0"].map(String::from).into();
    let text = card.to_yaml();
    assert!(text.contains(r#"description: "x\nkind: Other\n  - \"'#: {[ \u202E\x07\u2028\uFEFF""#), "{text}");
    assert_eq!(Card::parse(text.as_bytes()).unwrap(), card);
    let read = read(text.as_bytes());
    let tags = read.root.unwrap();
    assert_eq!(tags.get("metadata").unwrap().get("version").unwrap().at, Place { line: 7, column: 12 });
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,12}", ".{0,12}", "[-:#'\"\\\\ \n\t{}a0.~!&*|>%@`]{0,8}"]
}

proptest! {
    #[test]
    fn any_text_survives(texts in proptest::collection::vec(any_text(), 8)) {
        let [name, description, tag, author, source, input, output, version] = texts.try_into().unwrap();
        let card = Card {
            metadata: Metadata {
                name,
                description,
                version,
                tags: vec![tag],
                authors: vec![Author { name: author, email: String::new() }],
                ..Metadata::default()
            },
            provenance: Some(Provenance { source, ..Provenance::default() }),
            spec: Some(Spec { examples: vec![Example { input, output }], ..Spec::default() }),
            ..Card::default()
        };
        prop_assert_eq!(Card::parse(card.to_yaml().as_bytes()), Ok(card));
    }

    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let read = read(&bytes);
        if let Some(card) = read.card {
            card.violations();
        }
    }
}
