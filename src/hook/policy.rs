//! `hook.toml`: what containers may ask the hook for. Without the file they may ask for any image that is here; with it,
//! for nothing but what it allows.

use serde::Deserialize;

use super::request::{MAX_SKILLS, Wanted};
use crate::error::{Error, Result};
use crate::image::Info;
use crate::lifecycle::State;
use crate::reference::Reference;

/// What the file is called, below the directory of the system's configuration.
pub const FILE: &str = "skillctl/hook.toml";

/// The policy of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Repositories, and prefixes of repositories up to a slash.
    pub allowed_repositories: Vec<String>,
    /// Whether references have to have a digest.
    #[serde(default)]
    pub require_digest: bool,
    /// The states that an image may be in; any where this is not said.
    pub allowed_states: Option<Vec<String>>,
    /// Most skills of one container.
    #[serde(default = "max_skills")]
    pub max_skills: usize,
    /// Most bytes that a skill may unpack to.
    pub max_bytes: Option<u64>,
    /// Where it is told why a container did not start.
    #[serde(default = "everywhere")]
    pub log: Vec<LogTo>,
    /// Where it came from.
    #[serde(skip)]
    path: String,
}

/// Where the hook logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTo {
    /// The journal, as `skillctl`.
    Journald,
    /// `hook.log` beside the store, which `doctor` reads.
    File,
}

/// Where the hook logs unless the policy says otherwise.
pub fn everywhere() -> Vec<LogTo> {
    vec![LogTo::Journald, LogTo::File]
}

fn max_skills() -> usize {
    MAX_SKILLS
}

impl Policy {
    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the file and the place: a policy that cannot be read allows nothing.
    pub fn parse(text: &str, path: &str) -> Result<Self> {
        let bad = |reason: String| Error::Unavailable { reason: format!("{path}: {reason}"), hint: None };
        // What is missing is missing in the whole file.
        let line = |e: &toml::de::Error| {
            let at = e.span().filter(|_| !e.message().starts_with("missing field"))?.start;
            Some(text.get(..at)?.matches('\n').count() + 1)
        };
        let mut policy: Self = toml::from_str(text).map_err(|e| match line(&e) {
            Some(line) => bad(format!("line {line}: {}", e.message())),
            None => bad(e.message().to_owned()),
        })?;
        if let Some(mistake) = policy.allowed_repositories.iter().find_map(|entry| mistake(entry)) {
            return Err(bad(format!("allowed_repositories has {mistake}")));
        }
        if let Some(unknown) = policy.allowed_states.iter().flatten().find(|state| state.parse::<State>().is_err()) {
            return Err(bad(format!("allowed_states has {unknown:?}, which is no lifecycle state")));
        }
        policy.path = path.to_owned();
        Ok(policy)
    }

    /// Refuses what may not be asked for, before anything is looked up.
    ///
    /// # Errors
    /// [`Error::Denied`] that names the rule and the file.
    pub fn check_request(&self, skills: &[Wanted]) -> Result<()> {
        if skills.len() > self.max_skills {
            return Err(self.denied(&format!(
                "{} skills are more than max_skills = {}",
                skills.len(),
                self.max_skills
            )));
        }
        for Wanted { reference, .. } in skills {
            let name = reference.name();
            let allowed = |entry: &String| {
                let prefix = prefix(entry);
                name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            if !self.allowed_repositories.iter().any(allowed) {
                return Err(self.denied(&format!("{name} is not in allowed_repositories")));
            }
            if self.require_digest && reference.digest().is_none() {
                return Err(self.denied(&format!("{reference} has no digest, and require_digest = true")));
            }
        }
        Ok(())
    }

    /// Refuses an image in a state that is not allowed; one that says no state is in none.
    ///
    /// # Errors
    /// As [`Self::check_request`].
    pub fn check_state(&self, wanted: &Wanted, info: Option<&Info>) -> Result<()> {
        let Some(states) = &self.allowed_states else { return Ok(()) };
        let state = info.and_then(Info::state).map(State::as_str);
        match state.filter(|state| states.iter().any(|allowed| allowed == state)) {
            Some(_) => Ok(()),
            None => {
                let state = state.map_or("of no known state".into(), |state| format!("in the state {state}"));
                Err(self.denied(&format!("{} is {state}, which is not in allowed_states", wanted.reference)))
            }
        }
    }

    fn denied(&self, what: &str) -> Error {
        Error::Denied(format!("{what} ({})", self.path))
    }
}

/// Returns an entry of `allowed_repositories` as names have it.
fn prefix(entry: &str) -> &str {
    let entry = entry.trim_end_matches('/');
    entry.strip_prefix("localhost/").unwrap_or(entry)
}

/// Returns what is wrong with an entry of `allowed_repositories` that no repository could ever match.
fn mistake(entry: &str) -> Option<String> {
    let may_match = |entry: &str| {
        let below = format!("{}/x", prefix(entry));
        below.parse::<Reference>().is_ok_and(|reference| reference.name() == below)
    };
    let meant = entry.trim_end_matches(['*', '/']);
    match may_match(entry) {
        true => None,
        false if meant != entry && may_match(meant) => {
            Some(format!("{entry:?}: write {meant:?}, which includes everything below it"))
        }
        false => Some(format!("{entry:?}, which is no name of a repository")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn wanted(reference: &str) -> Vec<Wanted> {
        vec![Wanted { reference: reference.parse().unwrap(), destination: None }]
    }

    #[test]
    fn only_what_is_allowed_may_be_asked_for() {
        let policy = r#"allowed_repositories = ["acme", "quay.io/o/hr", "localhost/team/"]"#;
        let policy = Policy::parse(policy, "hook.toml").unwrap();
        let cases = [
            ("acme/hr:1", true),
            ("localhost/acme/hr:1", true),
            ("acme/a/b:1", true),
            ("quay.io/o/hr:1", true),
            ("team/x:1", true),
            ("quay.io/o/hr2:1", false),
            ("acmes/hr:1", false),
            ("quay.io/acme/hr:1", false),
        ];
        for (reference, allowed) in cases {
            assert_eq!(policy.check_request(&wanted(reference)).is_ok(), allowed, "{reference}");
        }
        let denied = policy.check_request(&wanted("other/hr:1")).unwrap_err().to_string();
        assert_eq!(denied, "other/hr is not in allowed_repositories (hook.toml)");
    }

    #[test]
    fn digests_states_and_numbers_are_held() {
        let text = "allowed_repositories = [\"acme\"]\nrequire_digest = true\nallowed_states = [\"published\"]\nmax_skills = 1";
        let policy = Policy::parse(text, "hook.toml").unwrap();
        let pinned = format!("acme/hr@sha256:{}", "a".repeat(64));
        assert!(policy.check_request(&wanted(&pinned)).is_ok());
        let two = [wanted(&pinned), wanted(&pinned)].concat();
        for (skills, want) in [(wanted("acme/hr:1"), "require_digest"), (two, "max_skills")] {
            assert!(policy.check_request(&skills).unwrap_err().to_string().contains(want));
        }
        let wanted = &wanted(&pinned)[0];
        assert!(policy.check_state(wanted, None).unwrap_err().to_string().contains("of no known state"));
        for (text, any) in [("", true), ("allowed_states = []", false)] {
            let policy = Policy::parse(&format!("allowed_repositories = []\n{text}"), "hook.toml").unwrap();
            assert_eq!(policy.check_state(wanted, None).is_ok(), any, "{text}");
        }
    }

    #[test]
    fn what_could_never_match_is_a_mistake() {
        let cases = [
            ("acme", None),
            ("acme/", None),
            ("localhost/acme", None),
            ("quay.io", None),
            ("registry.example:5000", None),
            ("registry.example:5000/team", None),
            ("local/*", Some("\"local/*\": write \"local\", which includes everything below it")),
            ("localhost/local/**", Some("\"localhost/local/**\": write \"localhost/local\", which")),
            ("*", Some("\"*\", which is no name of a repository")),
            ("acme*", Some("\"acme*\": write \"acme\"")),
            ("", Some("\"\", which is no name")),
            ("localhost", Some("\"localhost\", which is no name")),
            ("/acme", Some("\"/acme\", which is no name")),
            ("ACME", Some("\"ACME\", which is no name")),
            ("acme/hr:1.0.0", Some("\"acme/hr:1.0.0\", which is no name")),
            ("docker://quay.io/o", Some("\"docker://quay.io/o\", which is no name")),
        ];
        for (entry, want) in cases {
            let parsed = Policy::parse(&format!("allowed_repositories = [\"team\", \"{entry}\"]"), "hook.toml");
            match (parsed, want) {
                (Ok(_), None) => {}
                (Err(e), Some(want)) => {
                    let text = e.to_string();
                    assert!(text.starts_with(&format!("hook.toml: allowed_repositories has {want}")), "{text}");
                }
                (parsed, _) => panic!("{entry}: {parsed:?}"),
            }
        }
    }

    #[test]
    fn the_line_of_a_mistake_is_told() {
        let cases = [
            ("allowed_repositories = []\nallow = []", "hook.toml: line 2: unknown field `allow`"),
            ("allowed_repositories = []\n\nmax_skills = \"x\"\n", "hook.toml: line 3: invalid type"),
            ("require_digest = true\nmax_skills = 1\n", "hook.toml: missing field `allowed_repositories`"),
        ];
        for (text, want) in cases {
            let error = Policy::parse(text, "hook.toml").unwrap_err().to_string();
            assert!(error.starts_with(want), "{error}");
        }
    }

    #[test]
    fn what_is_not_understood_allows_nothing() {
        for text in [
            "",
            "allowed_repositories = \"acme\"",
            "allowed_repositories = []\nallow = []",
            "allowed_repositories = []\nallowed_states = [\"done\"]",
            "=",
        ] {
            assert!(Policy::parse(text, "hook.toml").unwrap_err().to_string().starts_with("hook.toml: "), "{text}");
        }
    }
}
