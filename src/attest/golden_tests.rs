//! Both forms of a small skill, whole: any change of them is seen here.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde_json::{Value, json};

use super::declared::{Found, Kind};
use super::inventory::{About, File, Inventory};
use super::{VERSION, cyclonedx, spdx};

const IMAGE: &str = "sha256:c8e585e5e6f249d096dba1e1696cc6203f3366db149b862d5b427070e3925ec6";

fn add(inventory: &mut Inventory, path: &str, content: &[u8]) {
    let (mut sha1, mut sha256) = ([0; 20], [0; 32]);
    sha1.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, content).as_ref());
    sha256.copy_from_slice(digest(&SHA256, content).as_ref());
    let found = Kind::of(path, content).map(|kind| kind.read(content)).unwrap_or_default();
    inventory.add(path.to_owned(), File { sha1, sha256, warnings: Vec::new(), declares: false }, found);
}

fn inventory() -> Inventory {
    let text = |text: &str| text.to_owned();
    let (name, namespace, version) = (text("hr"), text("acme"), text("1.0.0"));
    let mut inventory =
        Inventory::of(About { name, namespace, version, license: text("Apache-2.0"), ..About::default() });
    // In no order.
    add(&mut inventory, "scripts/a.py", b"# /// script\n# dependencies = [\"requests==2.32.3\", \"?\"]\n# ///\n");
    add(&mut inventory, "package.json", br#"{"devDependencies": {"@acme/lint": "^1"}}"#);
    add(&mut inventory, "SKILL.md", b"hello\n");
    add(&mut inventory, "requirements.txt", b"requests==2.32.3\n");
    inventory
}

/// What `sha1sum` and `sha256sum` say of `hello` and a line feed.
const HELLO: (&str, &str) =
    ("f572d396fae9206628714fb2ce00f72e94f2258f", "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");

#[test]
fn the_document_in_spdx() {
    let document = spdx::document(&inventory(), IMAGE);
    let files = document["files"].as_array().cloned().unwrap_or_default();
    let names: Vec<&Value> = files.iter().map(|file| &file["fileName"]).collect();
    assert_eq!(names, ["./SKILL.md", "./package.json", "./requirements.txt", "./scripts/a.py"]);
    assert_eq!(
        files[0],
        json!({
            "SPDXID": "SPDXRef-File-1",
            "fileName": "./SKILL.md",
            "checksums": [
                {"algorithm": "SHA1", "checksumValue": HELLO.0},
                {"algorithm": "SHA256", "checksumValue": HELLO.1},
            ],
        })
    );
    assert_eq!(
        files[3]["comment"],
        "what it declares is not all known: dependencies: \"?\" is no requirement of Python"
    );
    let mut rest = document;
    rest["files"] = Value::Null;
    let purl = |purl: &str| json!([{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}]);
    let relation = |from: &str, kind: &str, to: &str| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
    let want = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "acme/hr",
        "documentNamespace": format!("https://skillimage.io/spdx/skillctl-{VERSION}/{}", IMAGE.replace(':', "-")),
        "creationInfo": {"created": "1970-01-01T00:00:00Z", "creators": [format!("Tool: skillctl-{VERSION}")]},
        "packages": [
            {
                "SPDXID": "SPDXRef-Skill",
                "name": "hr",
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": true,
                "packageVerificationCode": {"packageVerificationCodeValue": "8b977689aaa6c96f4a6d5b20cedfe1e3dcea7f63"},
                "checksums": [{"algorithm": "SHA256", "checksumValue": &IMAGE["sha256:".len()..]}],
                "licenseConcluded": "NOASSERTION",
                "licenseDeclared": "Apache-2.0",
                "copyrightText": "NOASSERTION",
                "primaryPackagePurpose": "CONTAINER",
                "externalRefs": purl(&format!("pkg:oci/hr@{}", IMAGE.replace(':', "%3A"))),
                "versionInfo": "1.0.0",
                "supplier": "Organization: acme",
            },
            {
                "SPDXID": "SPDXRef-Package-1",
                "name": "@acme/lint",
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": false,
                "sourceInfo": "declared in package.json: @acme/lint@^1",
                "primaryPackagePurpose": "LIBRARY",
                "externalRefs": purl("pkg:npm/%40acme/lint"),
            },
            {
                "SPDXID": "SPDXRef-Package-2",
                "name": "requests",
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": false,
                "sourceInfo": "declared in requirements.txt: requests==2.32.3; scripts/a.py: requests==2.32.3",
                "primaryPackagePurpose": "LIBRARY",
                "externalRefs": purl("pkg:pypi/requests@2.32.3"),
                "versionInfo": "2.32.3",
            },
        ],
        "files": null,
        "relationships": [
            relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Skill"),
            relation("SPDXRef-Skill", "CONTAINS", "SPDXRef-File-1"),
            relation("SPDXRef-Skill", "CONTAINS", "SPDXRef-File-2"),
            relation("SPDXRef-File-2", "DEPENDENCY_MANIFEST_OF", "SPDXRef-Skill"),
            relation("SPDXRef-Skill", "CONTAINS", "SPDXRef-File-3"),
            relation("SPDXRef-File-3", "DEPENDENCY_MANIFEST_OF", "SPDXRef-Skill"),
            relation("SPDXRef-Skill", "CONTAINS", "SPDXRef-File-4"),
            relation("SPDXRef-File-4", "DEPENDENCY_MANIFEST_OF", "SPDXRef-Skill"),
            relation("SPDXRef-Package-1", "DEV_DEPENDENCY_OF", "SPDXRef-Skill"),
            relation("SPDXRef-Skill", "DEPENDS_ON", "SPDXRef-Package-2"),
        ],
    });
    assert_eq!(rest.to_string(), want.to_string());
}

#[test]
fn the_document_in_cyclonedx() {
    let document = cyclonedx::document(&inventory(), IMAGE);
    let root = format!("pkg:oci/hr@{}", IMAGE.replace(':', "%3A"));
    let serial = document["serialNumber"].as_str().unwrap_or_default();
    assert!(serial.starts_with("urn:uuid:") && serial.len() == 45 && &serial[23..24] == "8", "{serial}");
    let components = document["components"].as_array().cloned().unwrap_or_default();
    assert_eq!(
        components[0],
        json!({
            "type": "file",
            "name": "SKILL.md",
            "hashes": [{"alg": "SHA-1", "content": HELLO.0}, {"alg": "SHA-256", "content": HELLO.1}],
        })
    );
    assert_eq!(components[3]["properties"][0]["name"], "skillimage:warning");
    assert_eq!(
        components[4..],
        [
            json!({
                "type": "library",
                "bom-ref": "npm:@acme/lint",
                "name": "lint",
                "scope": "excluded",
                "purl": "pkg:npm/%40acme/lint",
                "group": "@acme",
                "evidence": {"occurrences": [{"location": "package.json", "additionalContext": "@acme/lint@^1"}]},
                "properties": [{"name": "cdx:npm:package:development", "value": "true"}],
            }),
            json!({
                "type": "library",
                "bom-ref": "pypi:requests@2.32.3",
                "name": "requests",
                "scope": "required",
                "purl": "pkg:pypi/requests@2.32.3",
                "version": "2.32.3",
                "evidence": {"occurrences": [
                    {"location": "requirements.txt", "additionalContext": "requests==2.32.3"},
                    {"location": "scripts/a.py", "additionalContext": "requests==2.32.3"},
                ]},
            }),
        ]
    );
    let mut rest = document.clone();
    rest["components"] = Value::Null;
    let want = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial,
        "version": 1,
        "metadata": {
            "timestamp": "1970-01-01T00:00:00Z",
            "tools": {"components": [{"type": "application", "name": "skillctl", "version": VERSION}]},
            "component": {
                "type": "container",
                "bom-ref": root,
                "name": "hr",
                "hashes": [{"alg": "SHA-256", "content": &IMAGE["sha256:".len()..]}],
                "purl": root,
                "version": "1.0.0",
                "group": "acme",
                "licenses": [{"expression": "Apache-2.0"}],
            },
        },
        "components": null,
        "dependencies": [{"ref": root, "dependsOn": ["npm:@acme/lint", "pypi:requests@2.32.3"]}],
    });
    assert_eq!(rest.to_string(), want.to_string());
    assert_eq!(cyclonedx::document(&inventory(), IMAGE).to_string(), document.to_string());
}

#[test]
fn licenses_that_are_no_expression_are_told_as_they_are() {
    let cases = [
        ("MIT OR Apache-2.0", "MIT OR Apache-2.0", json!([{"expression": "MIT OR Apache-2.0"}])),
        ("", "NOASSERTION", Value::Null),
        ("LICENSE.txt", "NOASSERTION", json!([{"license": {"name": "LICENSE.txt"}}])),
        ("LicenseRef-acme", "NOASSERTION", json!([{"license": {"name": "LicenseRef-acme"}}])),
    ];
    for (license, declared, licenses) in cases {
        let inventory = Inventory::of(About { license: license.to_owned(), ..About::default() });
        let document = spdx::document(&inventory, IMAGE);
        assert_eq!(document["packages"][0]["licenseDeclared"], declared, "{license}");
        assert_eq!(cyclonedx::document(&inventory, IMAGE)["metadata"]["component"]["licenses"], licenses, "{license}");
    }
}

#[test]
fn of_many_declarations_some_are_kept() {
    let mut inventory = Inventory::default();
    let text: String = (0..6_000).map(|n| format!("p{n}\n")).collect();
    for path in ["a/requirements.txt", "b/requirements.txt"] {
        add(&mut inventory, path, text.as_bytes());
    }
    assert_eq!(inventory.packages().count(), 6_000);
    assert_eq!(
        inventory.warnings(),
        ["b/requirements.txt: more than 10000 packages are declared: the others are left out"]
    );
    add(&mut inventory, "c/requirements.txt", b"q==1\n");
    let declares = |found: Found| (found.declared.len(), found.warnings.len());
    assert_eq!(declares(Kind::Requirements.read(b"q==1\n")), (1, 0));
    assert_eq!((inventory.packages().count(), inventory.warnings().len()), (6_000, 2));
}
