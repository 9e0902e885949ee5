#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Line, column, severity, rule and message of each finding.
fn found(text: &[u8]) -> Vec<String> {
    let show = |finding: &Finding| {
        let (line, column) = (finding.line.unwrap_or(0), finding.column.unwrap_or(0));
        format!("{line}:{column} {:?} {} {}", finding.severity, finding.rule, finding.message)
    };
    parse(text).findings.iter().map(show).collect()
}

const START: &str = "skill/frontmatter SKILL.md must start with YAML frontmatter (---)";

#[test]
fn forms_that_are_wrong() {
    let start_error = format!("1:1 Error {START}");
    let start_warning = format!("1:1 Warning {START}");
    let cases: &[(&[u8], &str)] = &[
        (b"", &start_error),
        (b"# Title\n", &start_error),
        (b"----\nname: x\n----\n", &start_error),
        (b"\n---\nname: x\n---\n", &start_error),
        (b"\xef\xbb\xbf---\nname: x\n---\n", &start_warning),
        (b"---", "1:1 Error skill/frontmatter SKILL.md frontmatter not properly closed with ---"),
        (b"---\nname: x\n", "1:1 Error skill/frontmatter SKILL.md frontmatter not properly closed with ---"),
        (b"---\n---", "1:1 Error skill/yaml SKILL.md frontmatter must be a YAML mapping"),
        (b"---\n- a\n---\n", "2:1 Error skill/yaml SKILL.md frontmatter must be a YAML mapping"),
        (b"---\ntext\n---\n", "2:1 Error skill/yaml SKILL.md frontmatter must be a YAML mapping"),
        (b"---\nname: \xff\n---\n", "2:7 Error skill/yaml Invalid YAML in frontmatter: not valid UTF-8"),
        (
            b"---\nname: a\nname: b\n---\n",
            "3:1 Error skill/yaml Invalid YAML in frontmatter: mapping key \"name\" already defined at line 2",
        ),
        (
            b"---\nname: &a x\ndescription: *a\n---\n",
            "3:14 Error skill/yaml Invalid YAML in frontmatter: aliases are not allowed",
        ),
        (b"---\nname: a\n...\nb: c\n---\n", "4:1 Error skill/yaml Invalid YAML in frontmatter: more than one document"),
        (b"---\nname:\n---\n", "2:1 Error skill/name Field 'name' must be a non-empty string"),
        (
            b"---\ndescription: [a]\n---\n",
            "2:14 Error skill/description Field 'description' must be a non-empty string",
        ),
        (b"---\nlicense: {a: b}\n---\n", "2:10 Warning skill/license Field 'license' must be a string"),
        (b"---\ncompatibility: [a]\n---\n", "2:16 Warning skill/compatibility Field 'compatibility' must be a string"),
        (b"---\nmetadata: x\n---\n", "2:11 Warning skill/metadata Field 'metadata' must be a mapping of strings"),
        (b"---\nmetadata:\n  a: [b]\n---\n", "3:6 Warning skill/metadata Field 'metadata.a' must be a string"),
        (
            b"---\nname: a --- b\n---\n",
            "2:9 Warning skill/frontmatter '---' inside the frontmatter ends it for the reference validator",
        ),
        (
            b"---\ndescription: Use when: always\n---\n",
            "2:14 Warning skill/yaml Invalid YAML in frontmatter: the value of 'description' has an unquoted ': '",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(found(text), [*expected], "{}", String::from_utf8_lossy(text));
    }
    let invalid = found(b"---\nname: [invalid\n---\n");
    assert!(invalid[0].starts_with("3:1 Error skill/yaml Invalid YAML in frontmatter: "), "{invalid:?}");
}

#[test]
fn fields_are_read_with_their_places() {
    let text = "---\nname: my-skill\r\ndescription: |\n  Two\n  lines\nlicense: MIT\nallowed-tools: Read Bash(git:*)\n\
                metadata:\n  version: 1.0\n  author: \"A\"\nmodel: opus\n---\r\nBody\n";
    let parsed = parse(text.as_bytes());
    assert_eq!(parsed.findings, []);
    let front = parsed.front.unwrap();
    assert_eq!(front.name, Some(Text { value: "my-skill".into(), at: Place { line: 2, column: 7 } }));
    assert_eq!(front.description.as_ref().unwrap().value, "Two\nlines\n");
    assert_eq!(front.license.as_ref().unwrap().at, Place { line: 6, column: 10 });
    assert_eq!(front.allowed_tools.as_ref().unwrap().value, "Read Bash(git:*)");
    assert_eq!(front.metadata("version"), Some(&Text { value: "1.0".into(), at: Place { line: 9, column: 12 } }));
    assert_eq!(front.other, [Key { text: "model".into(), at: Place { line: 11, column: 1 } }]);
}

#[test]
fn an_unquoted_colon_is_quoted_and_nothing_else() {
    let text = "---\nname: x\ndescription: It's for: a,\n  b: c\ncompatibility: |\n  keep: this: text\nmetadata:\n  \
                note: d: e\n---\n";
    let parsed = parse(text.as_bytes());
    let front = parsed.front.unwrap();
    assert_eq!(front.description.as_ref().unwrap().value, "It's for: a, b: c");
    assert_eq!(front.compatibility.as_ref().unwrap().value, "keep: this: text\n");
    assert_eq!(front.metadata("note").unwrap().value, "d: e");
    assert_eq!(front.metadata("note").unwrap().at.line, 8);
    assert_eq!(parsed.findings.len(), 1);
}

#[test]
fn the_limit_is_looked_at_before_the_content() {
    let mut large = b"---\nname: x\ndescription: ".to_vec();
    large.resize(50 << 20, b'a');
    large.extend_from_slice(b"\n---\n");
    let start = Instant::now();
    assert_eq!(found(&large), ["1:1 Error skill/frontmatter SKILL.md frontmatter exceeds the limit of 65536 bytes"]);
    assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());

    let exactly = |size: usize| [b"---\na: ", vec![b'x'; size - 4].as_slice(), b"\n---\n"].concat();
    assert_eq!(found(&exactly(MAX_FRONT_MATTER)), [""; 0]);
    assert_eq!(found(&exactly(MAX_FRONT_MATTER + 1)).len(), 1);
}

#[test]
fn words_are_those_of_the_go_tool() {
    let cases: &[(&[u8], u64)] = &[
        (b"", 0),
        (b"one two\tthree\n\nfour", 4),
        (b"---\nname: x\n---\nBody text\n", 2),
        (b"---\nname: x\n----\nBody\n", 2),
        (b"---\nname: x\n", 3),
        (b"---\n---\na", 1),
        (b"\xef\xbb\xbf---\nname: x\n---\na", 5),
        ("a\u{a0}b\u{3000}c\u{85}d\u{200b}e".as_bytes(), 4),
        (b"\xff \xfe\xff x\xc3", 3),
    ];
    for (text, words) in cases {
        assert_eq!(WordCount::of(text), *words, "{}", String::from_utf8_lossy(text));
    }
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let _ = parse(&[b"---\n", bytes.as_slice(), b"\n---\n"].concat());
    }

    #[test]
    fn words_do_not_depend_on_the_pieces(text in "(---)?([a ]|\n---|\n|-|é|\u{3000}|\u{10ffff}){0,30}", cut in 1usize..5) {
        let mut count = WordCount::default();
        text.as_bytes().chunks(cut).for_each(|piece| count.add(piece));
        prop_assert_eq!(count.finish(), WordCount::of(text.as_bytes()));
    }

    #[test]
    fn words_of_bytes_do_not_depend_on_the_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..60), cut in 1usize..5) {
        let mut count = WordCount::default();
        bytes.chunks(cut).for_each(|piece| count.add(piece));
        let expected = String::from_utf8_lossy(&bytes).split_whitespace().count() as u64;
        prop_assume!(!bytes.starts_with(b"---"));
        prop_assert_eq!(count.finish(), expected);
    }
}
