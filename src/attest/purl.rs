//! Package URLs (ECMA-427): what a package is called everywhere.

use super::declared::Ecosystem;

/// Returns the package URL of an image by its digest. Where it is does not make it another one, and is left out.
pub fn image(name: &str, digest: &str) -> String {
    format!("pkg:oci/{}@{}", encode(&name.to_ascii_lowercase()), encode(digest))
}

/// Returns the package URL of what is declared, with the version where one is pinned.
pub fn package(ecosystem: Ecosystem, name: &str, version: Option<&str>) -> String {
    // The specification has the names of both in lower case; the slash of a scope divides.
    let name: Vec<String> = name.split('/').map(|part| encode(&part.to_ascii_lowercase())).collect();
    let version = version.map(|version| format!("@{}", encode(version))).unwrap_or_default();
    format!("pkg:{}/{}{version}", ecosystem.purl_type(), name.join("/"))
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() || b".-_~".contains(&b) => encoded.push(char::from(b)),
            b => encoded += &format!("%{b:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_are_those_of_the_specification() {
        assert_eq!(image("HR", "sha256:0a"), "pkg:oci/hr@sha256%3A0a");
        let cases = [
            (Ecosystem::Pypi, "django", Some("1.11.1"), "pkg:pypi/django@1.11.1"),
            (Ecosystem::Pypi, "torch", Some("1!2.0+cpu"), "pkg:pypi/torch@1%212.0%2Bcpu"),
            (Ecosystem::Npm, "@angular/animation", Some("12.3.1"), "pkg:npm/%40angular/animation@12.3.1"),
            (Ecosystem::Npm, "JSONStream", None, "pkg:npm/jsonstream"),
        ];
        for (ecosystem, name, version, want) in cases {
            assert_eq!(package(ecosystem, name, version), want);
        }
    }
}
