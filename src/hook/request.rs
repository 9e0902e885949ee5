//! What a container asks for, by its annotations: references and paths of its own, never paths of the host.

use super::spec::Spec;
use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::generate::podman::check_reserved;
use crate::reference::Reference;

/// The skills: `REFERENCE[=/PATH]`, separated by semicolons, since podman 4.3 splits annotations at commas.
pub const SKILLS: &str = "io.skillimage.skills";
/// The agent that looks for them.
pub const TARGET: &str = "io.skillimage.target";
/// `bind`, or `extract` for copies that the container may change.
pub const MODE: &str = "io.skillimage.mode";

/// Most skills of one container: each is a mount, and runtimes take milliseconds for some hundred.
pub const MAX_SKILLS: usize = 256;
/// Longest path in a container (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// What a container asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its skills, in the order given.
    pub skills: Vec<Wanted>,
    /// The agent whose directory they go to.
    pub agent: Option<&'static Agent>,
    /// How they get there.
    pub mode: Mode,
}

/// A skill that a container asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The image.
    pub reference: Reference,
    /// Where it goes, where that was said.
    pub destination: Option<String>,
}

/// How skills get into a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Bound from the cache, read-only.
    #[default]
    Bind,
    /// Written into the container's file system.
    Extract,
}

impl Request {
    /// Reads the annotations of a container; `None` where it asks for nothing.
    ///
    /// # Errors
    /// That names the annotation and what is wrong with it.
    pub fn of(spec: &Spec<'_>) -> Result<Option<Self>> {
        let Some(text) = spec.annotation(SKILLS) else { return Ok(None) };
        let skills = parse(text).map_err(|error| wrong(SKILLS, &error))?;
        let find = |name: &str| Agent::find(name).map_err(|error| wrong(TARGET, &unknown(name, &error)));
        let agent = spec.annotation(TARGET).map(find).transpose()?;
        let mode = match spec.annotation(MODE) {
            None | Some("bind") => Mode::Bind,
            Some("extract") => Mode::Extract,
            Some(other) => return Err(wrong(MODE, &format!("{other:?} is neither bind nor extract"))),
        };
        Ok(Some(Self { skills, agent, mode }))
    }
}

fn parse(text: &str) -> Result<Vec<Wanted>> {
    let mut skills: Vec<Wanted> = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (reference, destination) = match part.split_once('=') {
            Some((reference, path)) => (reference, Some(path)),
            None => (part, None),
        };
        if let Some(path) = destination {
            check(path)?;
        }
        if skills.len() == MAX_SKILLS {
            return Err(refused(format!("names more than {MAX_SKILLS} skills")));
        }
        let parsed = reference.parse::<Reference>();
        if part.split_once(',').is_some_and(|(_, rest)| parsed.is_err() || rest.contains("=/")) {
            return Err(refused(format!("{part:?}: semicolons separate skills, not commas")));
        }
        let reference = parsed?.or_latest();
        skills.push(Wanted { reference, destination: destination.map(str::to_owned) });
    }
    Ok(skills)
}

/// Refuses a destination that no skill may have in a container.
///
/// # Errors
/// That names the path.
pub fn check(path: &str) -> Result<()> {
    let parts = path.strip_prefix('/').map(|rest| rest.split('/').collect::<Vec<_>>()).unwrap_or_default();
    if parts.is_empty() || parts.iter().any(|part| matches!(*part, "" | "." | "..")) || path.len() > MAX_PATH {
        return Err(refused(format!(
            "the destination {path:?} must be an absolute path without '..', and not the root"
        )));
    }
    if path.chars().any(|c| crate::text::hidden(c).is_some()) {
        return Err(refused(format!("the destination {path:?} has a character that cannot be seen")));
    }
    check_reserved(path)
}

/// Names the agent that may be meant: a line of the log has no place for all of them.
fn unknown(name: &str, error: &Error) -> String {
    format!("unknown target {name:?}: {}", error.hint().unwrap_or_default())
}

fn wrong(annotation: &str, error: &impl std::fmt::Display) -> Error {
    refused(format!("annotation {annotation}: {error}"))
}

fn refused(reason: String) -> Error {
    Error::Denied(reason)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn request(skills: &str, more: &str) -> Result<Option<Request>, String> {
        let text = format!("{{\"annotations\":{{\"{SKILLS}\":{}{more}}}}}", serde_json::to_string(skills).unwrap());
        Request::of(&Spec::parse(&text).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn references_and_destinations_are_read() {
        let wanted = |reference: &str, destination: Option<&str>| Wanted {
            reference: reference.parse().unwrap(),
            destination: destination.map(str::to_owned),
        };
        let cases = [
            ("acme/hr:1.0.0", vec![wanted("acme/hr:1.0.0", None)]),
            ("acme/hr", vec![wanted("acme/hr:latest", None)]),
            (
                "acme/hr:1=/opt/hr;\nquay.io/o/legal:2;",
                vec![wanted("acme/hr:1", Some("/opt/hr")), wanted("quay.io/o/legal:2", None)],
            ),
        ];
        for (text, want) in cases {
            assert_eq!(request(text, "").unwrap().unwrap().skills, want, "{text}");
        }
        assert_eq!(request(" ", "").unwrap(), None);
        let more = format!(",\"{TARGET}\":\"claude-code\",\"{MODE}\":\"extract\"");
        let both = request("acme/hr", &more).unwrap().unwrap();
        assert_eq!((both.agent.map(|agent| agent.name), both.mode), (Some("claude"), Mode::Extract));
    }

    #[test]
    fn what_no_container_may_ask_for_is_refused() {
        let cases = [
            "acme/hr=relative",
            "acme/hr=/",
            "acme/hr=/a/../b",
            "acme/hr=/a//b",
            "acme/hr=/a/./b",
            "acme/hr=",
            "acme/hr=/proc",
            "acme/hr=/proc/1/root",
            "acme/hr=/sys/fs",
            "acme/hr=/dev/shm",
            "acme/hr=/run/secrets/x",
            "acme/hr=/a\u{202e}b",
            "acme/hr=/a\u{7}",
            "ACME",
            "/host/path",
            "../x",
            "=/a",
            "a b",
        ];
        for text in cases {
            let error = request(text, "").unwrap_err();
            assert!(error.starts_with("annotation io.skillimage.skills: "), "{text}: {error}");
        }
        assert!(request("acme/hr=/process;acme/b=/developer/x", "").is_ok());
        let many = "acme/hr;".repeat(MAX_SKILLS + 1);
        assert!(request(&many, "").unwrap_err().ends_with("names more than 256 skills"));
        let cases = [
            (TARGET, "nobody", "unknown target \"nobody\": skillctl agents shows them all"),
            (TARGET, "cluade", "unknown target \"cluade\": is claude meant? skillctl agents shows them all"),
            (MODE, "copy", "\"copy\" is neither bind nor extract"),
        ];
        for (key, value, want) in cases {
            let error = request("acme/hr", &format!(",\"{key}\":\"{value}\"")).unwrap_err();
            assert!(error.starts_with(&format!("annotation {key}: {want}")) && error.len() < 200, "{error}");
        }
        for text in ["acme/hr:1,acme/legal:2", "acme/hr:1, acme/legal:2=/opt", "acme/hr:1=/a,acme/legal:2=/b"] {
            let error = request(text, "").unwrap_err();
            assert!(error.ends_with("semicolons separate skills, not commas"), "{error}");
        }
        assert!(request("acme/hr=/a,b", "").is_ok());
    }
}
