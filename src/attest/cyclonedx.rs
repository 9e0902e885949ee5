//! Software bills of materials in CycloneDX 1.6 (ECMA-424), as JSON.

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::declared::{Ecosystem, Scope};
use super::inventory::{File, Inventory, Package};
use super::{TOOL, VERSION, purl};

/// What the names of our properties begin with.
const PROPERTY: &str = "skillimage:";

/// Returns the bill of materials of an image, which is known by the digest of its manifest.
pub fn document(inventory: &Inventory, digest: &str) -> Value {
    let root = purl::image(&inventory.about.name, digest);
    let mut components: Vec<Value> = inventory.files.iter().map(file).collect();
    components.extend(inventory.packages().map(package));
    let depends: Vec<String> = inventory.packages().map(|one| reference(&one)).collect();
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial_number(digest),
        "version": 1,
        "metadata": {
            "timestamp": inventory.about.date(),
            "tools": {"components": [{"type": "application", "name": TOOL, "version": VERSION}]},
            "component": skill(inventory, digest, &root),
        },
        "components": components,
        "dependencies": [{"ref": root, "dependsOn": depends}],
    })
}

fn skill(inventory: &Inventory, digest: &str, root: &str) -> Value {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    let mut skill = json!({
        "type": "container",
        "bom-ref": root,
        "name": inventory.about.name,
        "hashes": [{"alg": "SHA-256", "content": hex}],
        "purl": root,
    });
    if !inventory.about.version.is_empty() {
        skill["version"] = inventory.about.version.as_str().into();
    }
    if !inventory.about.namespace.is_empty() {
        skill["group"] = inventory.about.namespace.as_str().into();
    }
    match (inventory.about.expression(), inventory.about.license.trim()) {
        (Some(expression), _) => skill["licenses"] = json!([{"expression": expression}]),
        (None, "") => {}
        (None, license) => skill["licenses"] = json!([{"license": {"name": license}}]),
    }
    skill
}

fn file((path, file): (&String, &File)) -> Value {
    let mut value = json!({
        "type": "file",
        "name": path,
        "hashes": [
            {"alg": "SHA-1", "content": hex::encode(file.sha1)},
            {"alg": "SHA-256", "content": hex::encode(file.sha256)},
        ],
    });
    if !file.warnings.is_empty() {
        let property = |warning: &String| json!({"name": format!("{PROPERTY}warning"), "value": warning});
        value["properties"] = file.warnings.iter().map(property).collect();
    }
    value
}

fn package(package: Package<'_>) -> Value {
    let Package { ecosystem, name, version, scope, declared } = package;
    let (own, group) = match name.split_once('/') {
        Some((scope, name)) if ecosystem == Ecosystem::Npm => (name, Some(scope)),
        _ => (name, None),
    };
    let mut value = json!({
        "type": "library",
        "bom-ref": reference(&package),
        "name": own,
        "scope": match scope {
            Scope::Required => "required",
            Scope::Optional => "optional",
            Scope::Development => "excluded",
        },
        "purl": purl::package(ecosystem, name, version),
    });
    if let Some(group) = group {
        value["group"] = group.into();
    }
    if let Some(version) = version {
        value["version"] = version.into();
    }
    let occurrences: Vec<Value> =
        declared.iter().map(|(path, text)| json!({"location": path, "additionalContext": text})).collect();
    value["evidence"] = json!({"occurrences": occurrences});
    if scope == Scope::Development && ecosystem == Ecosystem::Npm {
        // In the words of CycloneDX's own taxonomy.
        value["properties"] = json!([{"name": "cdx:npm:package:development", "value": "true"}]);
    }
    value
}

/// Returns what a package is referred to by: two may differ in nothing that a package URL keeps, which has no upper case.
fn reference(package: &Package<'_>) -> String {
    let version = package.version.map(|version| format!("@{version}")).unwrap_or_default();
    format!("{}:{}{version}", package.ecosystem.purl_type(), package.name)
}

/// Returns a UUID (RFC 9562, version 8) that is the same for the same image and version of ours.
fn serial_number(image: &str) -> String {
    let name = format!("{TOOL} {VERSION} cyclonedx {image}");
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest(&SHA256, name.as_bytes()).as_ref()[..16]);
    bytes[6] = 0x80 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let hex = hex::encode(bytes);
    format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
