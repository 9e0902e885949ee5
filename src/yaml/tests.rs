#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 256 << 10;

fn root(text: &str) -> Node {
    parse(text.as_bytes(), LIMIT).unwrap().root.unwrap()
}

#[test]
fn scalars_stay_text_and_know_their_place() {
    let node = root("version: 1.0\nnested:\n  - a\n  - 'b: c'\nnothing:\nfolded: >\n  x\n  y\n");
    let version = node.get("version").unwrap();
    assert_eq!(version.text(), Some("1.0"));
    assert_eq!(version.at, Place { line: 1, column: 10 });
    let Value::Sequence(items) = &node.get("nested").unwrap().value else { panic!("not a sequence") };
    assert_eq!(items[1].value, Value::Scalar { text: "b: c".into(), quoted: true });
    assert_eq!(items[1].at, Place { line: 4, column: 5 });
    assert_eq!(node.get("nothing").unwrap().value, Value::Null);
    assert_eq!(node.get("folded").unwrap().text(), Some("x y\n"));
}

#[test]
fn refusals_say_where() {
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    let cases: &[(&[u8], usize, usize, &str)] = &[
        (b"a: &x 1\nb: *x\n", 2, 4, "aliases are not allowed"),
        (b"? *x\n: 1\n", 1, 3, "while parsing node, found unknown anchor"),
        (b"a: 1\nb: 2\na: 3\n", 3, 1, "mapping key \"a\" already defined at line 1"),
        (b"a: !!binary aGk=\n", 1, 4, "the tag !!binary is not allowed here"),
        (b"a: !ruby/object 1\n", 1, 4, "the tag !ruby/object is not allowed"),
        (b"[a, b]: 1\n", 1, 1, "a key must be a text"),
        (b"a: 1\nb: \x1b[31m\n", 2, 4, "control characters are not allowed"),
        (b"a: 1\nb: 2\0\nc: 3\n", 2, 5, "control characters are not allowed"),
        (b"a: 1\nb: \xff\xfe\n", 2, 4, "not valid UTF-8"),
        (deep.as_bytes(), 1, 33, "nested deeper than 32 levels"),
    ];
    for (text, line, column, message) in cases {
        let error = parse(text, LIMIT).unwrap_err();
        let expected = YamlError { at: Place { line: *line, column: *column }, message: (*message).into() };
        assert_eq!(error, expected, "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn only_the_first_document_is_read() {
    let document = parse(b"a: 1\n---\nb: [\n", LIMIT).unwrap();
    assert_eq!(document.root.unwrap().get("a").unwrap().text(), Some("1"));
    assert_eq!(document.ignored, Some(Place { line: 2, column: 1 }));
    assert_eq!(parse(b"# nothing\n", LIMIT).unwrap(), Document { root: None, ignored: None });
    assert_eq!(parse(b"", LIMIT).unwrap(), Document { root: None, ignored: None });
    assert_eq!(parse(b"\xef\xbb\xbfa: 1\r\n", LIMIT).unwrap().root.unwrap().get("a").unwrap().text(), Some("1"));
}

#[test]
fn a_bomb_is_refused_at_its_first_alias() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        let alias = format!("*a{},", level - 1).repeat(9);
        bomb += &format!("a{level}: &a{level} [{alias}]\n");
    }
    let error = parse(bomb.as_bytes(), LIMIT).unwrap_err();
    assert_eq!((error.at.line, error.message.as_str()), (2, "aliases are not allowed"));
}

#[test]
fn large_input_costs_nothing() {
    let large = vec![b'a'; 50 << 20];
    let start = Instant::now();
    let error = parse(&large, LIMIT).unwrap_err();
    assert_eq!(error.message, "52428800 bytes exceed the limit of 262144");
    assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
}

#[test]
fn hostile_shapes_stay_fast() {
    let shapes = [
        "[",
        "{",
        "- ",
        "? ",
        "a: ",
        "!",
        "&a ",
        "*a ",
        "\"",
        "'",
        "|",
        ">",
        "#",
        "%",
        "\n",
        " ",
        "\t",
        ",",
        "[]",
        "{}",
        "a\n",
        "- a\n",
        "? a\n",
        "[a, ",
        "{a: ",
        "\"a\": ",
        "--- ",
        "---\n",
        "...\n",
        "a:\n ",
        "\u{85}",
        "é",
        "\r",
        "!<a> ",
        "%TAG ! a\n",
        "a b ",
        "\\",
        "- - ",
        "[?",
        "{?",
        ":",
        "::",
        ": ",
    ];
    for shape in shapes {
        for prefix in ["", "a: ", "\"", "[", "- |\n "] {
            let mut text = String::from(prefix);
            text.push_str(&shape.repeat(LIMIT / shape.len() - 8));
            let start = Instant::now();
            let _ = parse(text.as_bytes(), LIMIT);
            assert!(start.elapsed() < Duration::from_secs(5), "{prefix:?}{shape:?}: {:?}", start.elapsed());
        }
    }
}

#[test]
fn places_count_characters() {
    assert_eq!(place_at("aé\nüx", 6), Place { line: 2, column: 2 });
    assert_eq!(place_at("", 0), Place::START);
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes, LIMIT);
    }

    #[test]
    fn never_panics_on_yaml_like_text(text in "([-?:,\\[\\]{}#&*!|>'\"%@ \t\r\n]|[a-b0]|é|\u{feff}|\u{2028}){0,80}") {
        let _ = parse(text.as_bytes(), LIMIT);
    }
}
