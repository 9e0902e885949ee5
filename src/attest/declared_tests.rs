#![allow(clippy::unwrap_used)]

use super::declared::{Declared, Ecosystem, Found, Kind, Scope};

/// Returns names, versions and scopes, and the number of warnings.
fn read(kind: Kind, text: &str) -> (Vec<String>, usize) {
    let found = kind.read(text.as_bytes());
    (found.declared.iter().map(shown).collect(), found.warnings.len())
}

fn shown(one: &Declared) -> String {
    let version = one.version.as_deref().map(|version| format!("@{version}")).unwrap_or_default();
    let scope = match one.scope {
        Scope::Required => "",
        Scope::Optional => " optional",
        Scope::Development => " dev",
    };
    format!("{}{version}{scope}", one.name)
}

#[test]
fn files_are_known_by_name_or_first_line() {
    let cases = [
        ("scripts/a.py", "", Some(Kind::Script)),
        ("scripts/run", "#!/usr/bin/env -S uv run --script\n", Some(Kind::Script)),
        ("scripts/run", "#!/usr/bin/python3\n", Some(Kind::Script)),
        ("scripts/run", "#!/bin/sh\npython3 x.py\n", None),
        ("scripts/run", "python", None),
        ("requirements.txt", "", Some(Kind::Requirements)),
        ("a/requirements-dev.txt", "", Some(Kind::Requirements)),
        ("a/requirements", "", None),
        ("package.json", "", Some(Kind::Package)),
        ("web/package.json", "", Some(Kind::Package)),
        ("node_modules/x/package.json", "", None),
        ("package.json/x", "", None),
        ("SKILL.md", "", None),
    ];
    for (path, head, want) in cases {
        assert_eq!(Kind::of(path, head.as_bytes()), want, "{path}");
    }
}

#[test]
fn inline_script_metadata_is_read_as_pep_723_says() {
    let block = |content: &str| format!("#!/usr/bin/env python3\n# /// script\n{content}\n# ///\nimport x\n");
    let cases: [(String, &[&str], usize); 16] = [
        (block("# dependencies = [\"requests<3\", \"Rich==13.7.0\"]"), &["requests", "rich@13.7.0"], 0),
        (block("# requires-python = \">=3.11\"\n#\n# dependencies = [\n#   \"a.b_c\",\n# ]"), &["a-b-c"], 0),
        (block("# dependencies = [\"a\"]").replace('\n', "\r\n"), &["a"], 0),
        (format!("\u{feff}{}", block("# dependencies = [\"a\"]")), &["a"], 0),
        (block("# requires-python = \">=3\""), &[], 0),
        // Not even a block: no end, no content, a line in between, another type.
        ("# /// script\n# dependencies = [\"a\"]\n".into(), &[], 0),
        ("# /// script\n# ///\n".into(), &[], 0),
        ("# /// script\n# dependencies = [\"a\"]\n\n# ///\n".into(), &[], 0),
        ("# /// pyproject\n# dependencies = [\"a\"]\n# ///\n".into(), &[], 0),
        ("# /// \n# dependencies = [\"a\"]\n# ///\n".into(), &[], 0),
        // The last end counts.
        (block("# dependencies = [\"a\"]\n# ///\n# [tool.x]"), &[], 1),
        (block("# dependencies = [\"a\"]").repeat(2), &[], 1),
        (block("# dependencies = ["), &[], 1),
        (block("# dependencies = \"a\""), &[], 1),
        (block("# dependencies = [1, \"a\", \"?\"]"), &["a"], 2),
        (block(&format!("# dependencies = {}", "[".repeat(100_000))), &[], 1),
    ];
    for (text, want, warnings) in cases {
        let (declared, warned) = read(Kind::Script, &text);
        assert_eq!(
            (declared.iter().map(String::as_str).collect::<Vec<_>>(), warned),
            (want.to_vec(), warnings),
            "{text:.200}"
        );
    }
}

#[test]
fn requirements_are_read_as_pip_does() {
    let text = "\
# what it needs
requests==2.32.3  # pinned
Flask[async] >=2,<4 ; python_version >= '3.9'
numpy == 1.26.*
torch===2.2.0+cpu
zope.interface (==6.0)
pip @ https://user:secret@files.example/pip.whl?token=x
urllib3==2.0.7 \\
    --hash=sha256:00 \\
    --hash=sha256:01
-r other.txt
--index-url https://user:secret@index.example/simple
-e .
git+https://git.example/x.git
./local.whl
a b
ümlaut
two==1.0,!=1.1
end==1 \\";
    let found = Kind::Requirements.read(text.as_bytes());
    let names: Vec<String> = found.declared.iter().map(shown).collect();
    let want = [
        "requests@2.32.3",
        "flask",
        "numpy",
        "torch@2.2.0+cpu",
        "zope-interface@6.0",
        "pip",
        "urllib3@2.0.7",
        "two",
        "end@1",
    ];
    assert_eq!(names, want);
    let lines: Vec<&str> = found.warnings.iter().map(|warning| warning.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["line 13", "line 14", "line 15", "line 16", "line 17"]);
    let all = format!("{found:?}");
    assert!(!all.contains("secret") && !all.contains("token"), "{all}");
}

#[test]
fn manifests_of_npm_say_what_is_for_what() {
    let text = r#"{
        "name": "x", "version": "1.0.0",
        "dependencies": {"left-pad": "1.3.0", "@acme/ui": "^2.0.0", "own": "file:../own", "other": "npm:@real/name@=4.5.6",
                         "fork": "github:acme/fork", "v": "v1.2.3", "bad name": "1.0.0", "list": ["1.0.0"]},
        "optionalDependencies": {"fsevents": "~2.3.0"},
        "devDependencies": {"typescript": "5.4.5", "JSONStream": "1"},
        "peerDependencies": {"react": "18.0.0"}
    }"#;
    let (declared, warnings) = read(Kind::Package, text);
    let want = [
        "left-pad@1.3.0",
        "@acme/ui",
        "@real/name@4.5.6",
        "fork",
        "v@1.2.3",
        "fsevents optional",
        "typescript@5.4.5 dev",
        "JSONStream dev",
    ];
    assert_eq!((declared, warnings), (want.map(str::to_owned).to_vec(), 2));
    let cases = [
        ("", 1),
        ("[]", 1),
        ("{\"dependencies\": []}", 1),
        ("{\"dependencies\": null}", 0),
        ("{\"dependencies\": {\"@a\": \"1\", \"@/a\": \"1\", \"a/b\": \"1\", \"../a\": \"1\"}}", 4),
    ];
    for (text, warnings) in cases {
        assert_eq!(read(Kind::Package, text), (Vec::new(), warnings), "{text}");
    }
    assert_eq!(read(Kind::Package, &"[".repeat(1 << 20)), (Vec::new(), 1));
}

#[test]
fn hostile_files_are_read_quickly_and_say_little() {
    let begun = std::time::Instant::now();
    let million = 1 << 20;
    let cases = [
        (Kind::Script, "# /// script\n".repeat(million / 13)),
        (Kind::Script, "# ///\n".repeat(million / 6)),
        (Kind::Requirements, "://".repeat(million / 3)),
        (Kind::Requirements, "\\\n".repeat(million / 2)),
        (Kind::Requirements, "# ".repeat(million / 2)),
        (Kind::Requirements, format!("x; {}", "#--".repeat(million / 3))),
        (Kind::Requirements, "-e x\n".repeat(million / 5)),
        (Kind::Package, format!("{{\"dependencies\":{{\"{}\":\"1\"}}}}", "x".repeat(million))),
    ];
    for (kind, text) in cases {
        let Found { declared, warnings } = kind.read(text.as_bytes());
        assert!(declared.len() < 2 && warnings.len() < 10, "{text:.20}: {declared:.200?} {warnings:?}");
        assert!(warnings.iter().chain(declared.iter().map(|one| &one.text)).all(|text| text.chars().count() <= 300));
    }
    // Unoptimised, and on a machine that does other things, too.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

#[test]
fn ecosystems_are_those_of_package_urls() {
    assert_eq!((Ecosystem::Pypi.purl_type(), Ecosystem::Npm.purl_type()), ("pypi", "npm"));
}
