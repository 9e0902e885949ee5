use std::collections::BTreeMap;

use super::*;
use crate::image::{Info, STATUS, oci};
use crate::store::blob::sha256;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OFFICE: &str = "\
apiVersion: skillimage.io/v1alpha1
kind: SkillCollection
metadata:
  name: office
  version: 1.0.0
  description: For the office
skills:
  - name: hr
    image: quay.io/acme/hr:1.0.0
  - name: legal
    image: acme/legal:2.0.0
  - source: https://git.example/acme/tools/tree/main/notes
";

fn parse(text: &str) -> Result<Collection> {
    Collection::parse(text.as_bytes(), "office.yaml")
}

fn member(name: &str, image: &str) -> Member {
    Member { name: Some(name.to_owned()), from: Origin::Image(image.parse().unwrap()) }
}

#[test]
fn a_collection_is_read_and_written() {
    let office = parse(OFFICE).unwrap();
    assert_eq!((office.name.as_str(), office.version.as_str()), ("office", "1.0.0"));
    assert_eq!(office.members[1], member("legal", "acme/legal:2.0.0"));
    assert_eq!(office.members[2].label(), "https://git.example/acme/tools/tree/main/notes");
    assert_eq!(office.to_yaml(), OFFICE);
    assert_eq!(parse(&office.to_yaml()).unwrap(), office);
}

#[test]
fn any_text_survives_the_way_to_yaml_and_back() {
    for text in [
        "a: b",
        "#x",
        "x #y",
        "{a}",
        "[a]",
        "\"",
        "'",
        "yes",
        "1.0",
        "~",
        "a\nb",
        " a ",
        "\u{202e}x",
        "- a",
        "&a",
        "*a",
    ] {
        let office = Collection {
            name: text.to_owned(),
            version: text.to_owned(),
            description: text.to_owned(),
            members: vec![member(text, "quay.io/acme/hr:1")],
        };
        assert_eq!(parse(&office.to_yaml()).unwrap(), office, "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_in_the_words_of_go() {
    let skills = "metadata: {name: a, version: 1}\nskills: [{name: hr, image: q.io/a/hr:1}]\n";
    let with = |skills: &str| format!("kind: SkillCollection\nmetadata: {{name: a, version: 1}}\nskills:\n{skills}");
    let cases = [
        (format!("kind: SkillCard\n{skills}"), "line 1: expected kind SkillCollection, got \"SkillCard\""),
        (skills.to_owned(), "line 1: expected kind SkillCollection, got \"\""),
        (
            "kind: SkillCollection\n".to_owned(),
            "line 1: metadata.name is required; line 1: metadata.version is required; line 1: at least one skill is required",
        ),
        (with("  []\n"), "line 4: at least one skill is required"),
        (with("  - name: hr\n"), "line 4: skills[0]: image or source is required"),
        (
            with("  - {name: hr, image: q.io/a/hr:1, source: https://x}\n"),
            "line 4: skills[0]: image and source are mutually exclusive",
        ),
        (with("  - image: q.io/a/hr:1\n"), "line 4: skills[0].name is required for image entries"),
        (
            with("  - {name: hr, image: q.io/a/hr:1}\n  - {name: hr, image: q.io/a/hr:2}\n"),
            "line 5: duplicate skill name \"hr\"",
        ),
        (
            with("  - {name: hr, image: q.io/a/HR:1}\n"),
            "line 4: skills[0].image: invalid reference \"q.io/a/HR:1\": \"HR\" must be lower case",
        ),
        (with("  - {name: hr, image: q.io/a/hr:1, tag: x}\n"), "line 4: \"tag\" is no field of a skill"),
        (with("  - [a]\n"), "a skill should be a mapping, and is a list"),
        (with("  - {name: [a], image: q.io/a/hr:1}\n"), "text is expected, and this is a list"),
        (with("  a: b\n"), "skills should be a list, and is a mapping"),
        (format!("kind: SkillCollection\nname: x\n{skills}"), "line 2: \"name\" is no field of a collection"),
        (format!("kind: SkillCollection\nkind: x\n{skills}"), "line 2: mapping key \"kind\" already defined at line 1"),
        (format!("kind: SkillCollection\n{skills}---\nkind: x\n"), "line 4: more than one document"),
        ("kind: &a SkillCollection\nmetadata: *a\n".to_owned(), "line 2: aliases are not allowed"),
        (String::new(), "line 1: the file is empty"),
        ("x".repeat(MAX_YAML + 1), "line 1: 1048577 bytes exceed the limit of 1048576"),
        (with(&"  - {source: https://x}\n".repeat(MAX_MEMBERS + 1)), "1001 skills exceed the limit of 1000"),
    ];
    for (text, want) in cases {
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.starts_with("office.yaml: line ") && error.contains(want), "{want}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let error = Collection::parse(b"kind: \xff", "office.yaml").unwrap_err().to_string();
    assert_eq!(error, "office.yaml: line 1: not valid UTF-8");
}

#[test]
fn pinned_members_have_tag_and_digest() {
    let office = parse(OFFICE).unwrap();
    let pinned = office.pinned(&[Some(DIGEST.to_owned()), None, None]).unwrap();
    assert_eq!(pinned.members[0].address(), format!("quay.io/acme/hr:1.0.0@{DIGEST}"));
    assert_eq!(pinned.members[1..], office.members[1..]);
    let cases = [("q.io/a/b", format!("q.io/a/b:latest@{DIGEST}")), ("q.io/a/b@", format!("q.io/a/b@{DIGEST}"))];
    for (text, want) in cases {
        let text = if text.ends_with('@') { format!("{text}{DIGEST}") } else { text.to_owned() };
        assert_eq!(pin(&text.parse().unwrap(), DIGEST).unwrap().to_string(), want);
    }
}

#[test]
fn an_artifact_is_what_the_go_tool_reads() {
    let office = parse(OFFICE).unwrap();
    let Artifact { manifest, layer: bytes } = artifact(&office, "1970-01-01T00:00:00Z", sha256);
    assert_eq!(form(&manifest, "q.io/a/office:1").unwrap(), Form::Artifact);
    let info = Info::parse(&manifest, "x").unwrap();
    let described = layer(&info, "x").unwrap();
    assert_eq!((described.digest().to_string(), described.size()), (sha256(&bytes), bytes.len() as u64));
    let value: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(value["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    assert_eq!(value["config"]["digest"], "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    assert_eq!(
        value["annotations"],
        json!({
            "io.skillimage.collection.name": "office",
            "org.opencontainers.image.created": "1970-01-01T00:00:00Z",
            "org.opencontainers.image.description": "For the office",
            "org.opencontainers.image.title": "office",
            "org.opencontainers.image.version": "1.0.0",
        })
    );
    assert_eq!(Collection::parse(&bytes, "x").unwrap(), office);
    for (layers, want) in [
        (json!([]), "x: it has 0 layers, and a collection has one"),
        (json!([value["layers"][0], value["layers"][0]]), "x: it has 2 layers, and a collection has one"),
    ] {
        let mut other = value.clone();
        other["layers"] = layers;
        let info = Info::parse(other.to_string().as_bytes(), "x").unwrap();
        assert_eq!(layer(&info, "x").unwrap_err().to_string(), want);
    }
    for (field, new, want) in [
        ("mediaType", json!("text/plain"), "its layer is \"text/plain\""),
        ("size", json!(MAX_YAML + 1), "1048577 bytes exceed the limit"),
    ] {
        let mut other = value.clone();
        other["layers"][0][field] = new;
        let info = Info::parse(other.to_string().as_bytes(), "x").unwrap();
        assert!(layer(&info, "x").unwrap_err().to_string().contains(want));
    }
}

#[test]
fn what_is_no_collection_is_called_what_it_is() {
    let cases = [
        (json!({"annotations": {STATUS: "draft"}, "layers": []}), "it is a skill"),
        (json!({"layers": []}), "it is an image"),
        (json!({"manifests": [{}, {}]}), "it is an index of 2 images"),
        (json!({"artifactType": "a/b", "layers": []}), "it is an artifact of type \"a/b\""),
        (json!({"artifactType": ARTIFACT, "manifests": []}), "it is an artifact of type"),
    ];
    for (manifest, want) in cases {
        let error = form(manifest.to_string().as_bytes(), "q.io/a:1").unwrap_err().to_string();
        assert!(error.starts_with("q.io/a:1 is no collection: ") && error.contains(want), "{error}");
    }
    assert!(form(b"no", "q.io/a:1").is_err());
}

fn info() -> Info {
    let annotations =
        BTreeMap::from([(oci::TITLE.to_owned(), "HR".to_owned()), (oci::VERSION.to_owned(), "1.0.0".to_owned())]);
    let value = json!({"schemaVersion": 2, "config": {"mediaType": "a/b", "digest": DIGEST, "size": 1}, "layers": [], "annotations": annotations});
    Info::parse(value.to_string().as_bytes(), "x").unwrap()
}

fn written() -> serde_json::Value {
    let reference: Reference = format!("quay.io/acme/hr:1.0.0@{DIGEST}").parse().unwrap();
    let office = Collection { members: vec![member("hr", &reference.to_string())], ..parse(OFFICE).unwrap() };
    let items = [Item { name: "hr".into(), reference: reference.clone(), size: 7, info: info() }];
    serde_json::from_slice(&index(&office, &items, "1970-01-01T00:00:00Z")).unwrap()
}

fn read(value: &serde_json::Value) -> Result<Index> {
    read_index(value.to_string().as_bytes(), &"q.io/sets/office:1".parse().unwrap())
}

#[test]
fn an_index_is_written_and_read() {
    let value = written();
    let bytes = value.to_string().into_bytes();
    assert_eq!(form(&bytes, "x").unwrap(), Form::Index);
    let own = format!("quay.io/acme/hr:1.0.0@{DIGEST}");
    let annotations = &value["manifests"][0]["annotations"];
    assert_eq!(annotations["io.agentskills.skill.ref"], own);
    assert_eq!((&annotations[oci::TITLE], &annotations[oci::VERSION]), (&json!("HR"), &json!("1.0.0")));
    assert_eq!(value["annotations"]["io.agentskills.collection.name"], "office");
    let index = read(&value).unwrap();
    assert_eq!(index.collection.members, [member("hr", &own)]);
    assert_eq!(index.listed[0].own.as_ref().map(ToString::to_string), Some(own));
    assert!(whole(&index, 1) && !whole(&index, 0));
}

#[test]
fn indexes_of_other_tools_are_read_and_hostile_ones_refused() {
    let changed = |field: &str, new: serde_json::Value| {
        let mut value = written();
        value["manifests"][0][field] = new;
        value
    };
    // Arconia's size, salaboy's annotation, and nothing at all.
    let arconia = read(&changed("size", json!(0))).unwrap();
    assert!(!whole(&arconia, 100));
    let salaboy = json!({"org.opencontainers.image.ref.name": "ghcr.io/x/hr:2"});
    let index = read(&changed("annotations", salaboy)).unwrap();
    assert_eq!(index.collection.members, [member("hr", &format!("ghcr.io/x/hr:2@{DIGEST}"))]);
    let bare = read(&changed("annotations", json!({}))).unwrap();
    assert_eq!(bare.collection.members, [member(DIGEST, &format!("q.io/sets/office@{DIGEST}"))]);
    assert_eq!(bare.listed[0].own, None);
    let nested = read(&changed("mediaType", json!("application/vnd.oci.image.index.v1+json"))).unwrap();
    assert!(!whole(&nested, 100));

    let mut twice = written();
    let first = twice["manifests"][0].clone();
    twice["manifests"] = json!([first, first]);
    let mut same = twice.clone();
    same["manifests"][1]["annotations"]["io.agentskills.skill.name"] = json!("legal");
    let mut none = written();
    none["manifests"] = json!([]);
    let mut many = written();
    many["manifests"] = vec![first; MAX_MEMBERS + 1].into();
    let mut sizeless = changed("size", json!(0));
    sizeless["manifests"][0]["annotations"] = json!({"io.agentskills.skill.name": "hr"});
    let other = json!({"io.agentskills.skill.ref": format!("q.io/a/hr@sha256:{}", "1".repeat(64))});
    let cases = [
        (twice, "duplicate skill name \"hr\""),
        (same, "hr and legal are both sha256:"),
        (none, "at least one skill is required"),
        (many, "1001 skills exceed the limit of 1000"),
        (changed("mediaType", json!("text/html")), "hr: it is of type \"text/html\", which is no image"),
        (sizeless, "hr: the index says that it has 0 bytes"),
        (changed("annotations", other), "hr: it is listed as sha256:0123"),
        (
            changed("annotations", json!({"io.agentskills.skill.ref": "Q/..", "io.agentskills.skill.name": "hr"})),
            "hr: invalid reference",
        ),
    ];
    for (value, want) in cases {
        let error = read(&value).unwrap_err().to_string();
        assert!(error.starts_with("q.io/sets/office:1: ") && error.contains(want), "{want}: {error}");
    }
}
