//! How an image was built, by SLSA 1: <https://slsa.dev/spec/v1.0/provenance>.
//!
//! The type of our builds is described in `docs/attestations.md`.

use serde_json::{Map, Value, json};

use super::{OURS, TOOL, VERSION};
use crate::redact::without_credentials;

/// The type of our builds.
fn build_type() -> String {
    format!("{OURS}build/v1")
}

/// Returns who builds, unless somebody says who it was.
fn builder() -> String {
    format!("{OURS}{TOOL}")
}

/// What an image was built from, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Build {
    /// Where the source came from, where that is more than a path of the machine.
    pub source: Option<Source>,
    /// Flags that decide on what is in the image, under the names of provenance.
    pub flags: Map<String, Value>,
    /// The created annotation.
    pub created: String,
    /// Who built it: a URI; ours where nobody says it.
    pub builder: Option<String>,
    /// When, where that is known to be the same the next time.
    pub started: Option<String>,
}

/// A source that others can have, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// Its address.
    pub uri: String,
    /// The branch or tag that was asked for.
    pub reference: Option<String>,
    /// The directory in it.
    pub path: String,
    /// The commit, or the digest of an archive.
    pub revision: String,
}

/// Returns the predicate.
pub fn predicate(build: &Build) -> Value {
    let mut external = build.flags.clone();
    let mut resolved = Vec::new();
    if let Some(source) = &build.source {
        let uri = without_credentials(&source.uri);
        let mut own = json!({"uri": uri});
        if let Some(reference) = &source.reference {
            own["ref"] = reference.as_str().into();
        }
        if !source.path.is_empty() {
            own["path"] = source.path.as_str().into();
        }
        external.insert("source".to_owned(), own);
        resolved.extend(dependency(&uri, source));
    }
    let mut metadata = Map::new();
    if let Some(started) = &build.started {
        metadata.insert("startedOn".to_owned(), started.as_str().into());
    }
    json!({
        "buildDefinition": {
            "buildType": build_type(),
            "externalParameters": external,
            "internalParameters": {"created": build.created},
            "resolvedDependencies": resolved,
        },
        "runDetails": {
            "builder": {
                "id": build.builder.clone().unwrap_or_else(builder),
                "version": {TOOL: VERSION},
            },
            "metadata": metadata,
        },
    })
}

/// Returns the source as it was; nothing where it is not pinned.
fn dependency(uri: &str, source: &Source) -> Option<Value> {
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let revision = source.revision.as_str();
    match (revision.strip_prefix("sha256:"), revision.len()) {
        (Some(hex), _) if hex.len() == 64 && is_hex(hex) => Some(json!({"uri": uri, "digest": {"sha256": hex}})),
        (None, 40 | 64) if is_hex(revision) => {
            let uri =
                if uri.starts_with("git+") || !uri.contains("://") { uri.to_owned() } else { format!("git+{uri}") };
            let reference = source.reference.as_ref().map(|reference| format!("@{reference}")).unwrap_or_default();
            Some(json!({"uri": format!("{uri}{reference}"), "digest": {"gitCommit": revision}}))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_from_git_names_the_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let source = Source {
            uri: "https://user:secret@git.example/acme/skills".into(),
            reference: Some("v2".into()),
            path: "skills/hr".into(),
            revision: commit.into(),
        };
        let mut flags = Map::new();
        flags.insert("platforms".into(), json!(["linux/amd64"]));
        let build = Build {
            source: Some(source),
            flags,
            created: "1970-01-01T00:00:00Z".into(),
            builder: Some("https://ci.example/builder@v1".into()),
            started: Some("2026-01-02T03:04:05Z".into()),
        };
        let want = json!({
            "buildDefinition": {
                "buildType": "https://skillimage.io/build/v1",
                "externalParameters": {
                    "platforms": ["linux/amd64"],
                    "source": {"uri": "https://git.example/acme/skills", "ref": "v2", "path": "skills/hr"},
                },
                "internalParameters": {"created": "1970-01-01T00:00:00Z"},
                "resolvedDependencies": [
                    {"uri": "git+https://git.example/acme/skills@v2", "digest": {"gitCommit": commit}},
                ],
            },
            "runDetails": {
                "builder": {"id": "https://ci.example/builder@v1", "version": {"skillctl": VERSION}},
                "metadata": {"startedOn": "2026-01-02T03:04:05Z"},
            },
        });
        assert_eq!(predicate(&build), want);
    }

    #[test]
    fn what_is_not_pinned_or_only_here_is_no_dependency() {
        let of = |revision: &str| {
            let source = Source { uri: "https://a.example/x".into(), revision: revision.into(), ..Source::default() };
            let build = Build { source: Some(source), ..Build::default() };
            predicate(&build)["buildDefinition"]["resolvedDependencies"].clone()
        };
        let hex = "a".repeat(64);
        assert_eq!(of(&format!("sha256:{hex}"))[0], json!({"uri": "https://a.example/x", "digest": {"sha256": hex}}));
        for revision in ["", "main", "sha256:0", "0123456789ABCDEF0123456789ABCDEF01234567"] {
            assert_eq!(of(revision), json!([]), "{revision}");
        }
        let local = predicate(&Build::default());
        assert_eq!(local["buildDefinition"]["externalParameters"], json!({}));
        assert_eq!(local["runDetails"]["builder"]["id"], "https://skillimage.io/skillctl");
    }
}
