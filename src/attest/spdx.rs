//! Software bills of materials in SPDX 2.3 (ISO/IEC 5962), as JSON.
//!
//! ```text
//! SPDXRef-DOCUMENT  DESCRIBES   SPDXRef-Skill         the image, by its digest
//! SPDXRef-Skill     CONTAINS    SPDXRef-File-N        every file of its layer
//! SPDXRef-Skill     DEPENDS_ON  SPDXRef-Package-N     what its files declare; or ... DEV_DEPENDENCY_OF SPDXRef-Skill
//! SPDXRef-File-N    DEPENDENCY_MANIFEST_OF  SPDXRef-Skill
//! ```

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::{Value, json};

use super::declared::Scope;
use super::inventory::{File, Inventory, Package};
use super::{OURS, TOOL, VERSION, purl};

const NOASSERTION: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const SKILL: &str = "SPDXRef-Skill";

/// Returns the document of an image, which is known by the digest of its manifest.
pub fn document(inventory: &Inventory, digest: &str) -> Value {
    let title = match &*inventory.about.namespace {
        "" => inventory.about.name.clone(),
        namespace => format!("{namespace}/{}", inventory.about.name),
    };
    let mut packages = vec![skill(inventory, digest)];
    packages.extend(inventory.packages().enumerate().map(|(at, one)| package(at, one)));
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": title,
        "documentNamespace": format!("{OURS}spdx/{TOOL}-{VERSION}/{}", digest.replace(':', "-")),
        "creationInfo": {"created": inventory.about.date(), "creators": [format!("Tool: {TOOL}-{VERSION}")]},
        "packages": packages,
        "files": inventory.files.iter().enumerate().map(file).collect::<Vec<_>>(),
        "relationships": relationships(inventory),
    })
}

fn skill(inventory: &Inventory, digest: &str) -> Value {
    let license = inventory.about.license.trim();
    let mut skill = json!({
        "SPDXID": SKILL,
        "name": inventory.about.name,
        "downloadLocation": NOASSERTION,
        "filesAnalyzed": true,
        "packageVerificationCode": {"packageVerificationCodeValue": verification_code(inventory)},
        "checksums": [{"algorithm": "SHA256", "checksumValue": hex_of(digest)}],
        "licenseConcluded": NOASSERTION,
        "licenseDeclared": inventory.about.expression().unwrap_or(NOASSERTION),
        "copyrightText": NOASSERTION,
        "primaryPackagePurpose": "CONTAINER",
        "externalRefs": [reference(&purl::image(&inventory.about.name, digest))],
    });
    if !inventory.about.version.is_empty() {
        skill["versionInfo"] = inventory.about.version.as_str().into();
    }
    if !inventory.about.namespace.is_empty() {
        skill["supplier"] = format!("Organization: {}", inventory.about.namespace).into();
    }
    if inventory.about.expression().is_none() && !license.is_empty() {
        skill["licenseComments"] = format!("Declared as: {license}").into();
    }
    skill
}

fn package(at: usize, package: Package<'_>) -> Value {
    let Package { ecosystem, name, version, declared, .. } = package;
    let declared: Vec<String> = declared.iter().map(|(path, text)| format!("{path}: {text}")).collect();
    let mut value = json!({
        "SPDXID": package_id(at),
        "name": name,
        "downloadLocation": NOASSERTION,
        "filesAnalyzed": false,
        "sourceInfo": format!("declared in {}", declared.join("; ")),
        "primaryPackagePurpose": "LIBRARY",
        "externalRefs": [reference(&purl::package(ecosystem, name, version))],
    });
    if let Some(version) = version {
        value["versionInfo"] = version.into();
    }
    value
}

fn file((at, (path, file)): (usize, (&String, &File))) -> Value {
    let mut value = json!({
        "SPDXID": file_id(at),
        "fileName": format!("./{path}"),
        "checksums": [
            {"algorithm": "SHA1", "checksumValue": hex::encode(file.sha1)},
            {"algorithm": "SHA256", "checksumValue": hex::encode(file.sha256)},
        ],
    });
    if !file.warnings.is_empty() {
        value["comment"] = format!("what it declares is not all known: {}", file.warnings.join("; ")).into();
    }
    value
}

fn relationships(inventory: &Inventory) -> Vec<Value> {
    let relation = |from: &str, kind: &str, to: &str| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
    let mut all = vec![relation(DOCUMENT, "DESCRIBES", SKILL)];
    for (at, file) in inventory.files.values().enumerate() {
        all.push(relation(SKILL, "CONTAINS", &file_id(at)));
        if file.declares {
            all.push(relation(&file_id(at), "DEPENDENCY_MANIFEST_OF", SKILL));
        }
    }
    all.extend(inventory.packages().enumerate().map(|(at, package)| match package.scope {
        Scope::Required => relation(SKILL, "DEPENDS_ON", &package_id(at)),
        Scope::Optional => relation(&package_id(at), "OPTIONAL_DEPENDENCY_OF", SKILL),
        Scope::Development => relation(&package_id(at), "DEV_DEPENDENCY_OF", SKILL),
    }));
    all
}

fn file_id(at: usize) -> String {
    format!("SPDXRef-File-{}", at + 1)
}

fn package_id(at: usize) -> String {
    format!("SPDXRef-Package-{}", at + 1)
}

fn reference(purl: &str) -> Value {
    json!({"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl})
}

fn hex_of(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}

/// Returns the verification code of all files: SHA-1 of their SHA-1 in hexadecimal digits, sorted and without anything between
/// (SPDX 2.3, 7.9).
fn verification_code(inventory: &Inventory) -> String {
    let mut all: Vec<String> = inventory.files.values().map(|file| hex::encode(file.sha1)).collect();
    all.sort();
    hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, all.concat().as_bytes()))
}
