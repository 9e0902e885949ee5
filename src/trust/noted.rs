//! What `trust install` has written to a `policy.json`, where it is strict about every key: in comments of our own file of
//! `registries.d`, so that it is taken away again, and nothing else is.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// What a line of them begins with.
const BEGIN: &str = "# wrote ";

/// A scope that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The file that it is in.
    pub policy: String,
    /// The scope.
    pub scope: String,
    /// Its requirements: where they are others, somebody else has changed them.
    pub wrote: Value,
    /// Those that were there before; null where there were none.
    pub before: Value,
}

/// Reads the notes of our file of `registries.d`.
///
/// # Errors
/// [`Error::Damaged`] where one cannot be read: what it was of would be nobody's then.
pub fn read(text: &str, path: &str) -> Result<Vec<Note>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(BEGIN));
    lines.map(|line| serde_json::from_str(line).map_err(|e| Error::damaged(path, e))).collect()
}

/// Returns them as lines of that file.
pub fn lines(notes: &[Note]) -> String {
    let line = |note: &Note| serde_json::to_string(note).map(|line| format!("{BEGIN}{line}\n")).unwrap_or_default();
    notes.iter().map(line).collect()
}

/// Returns the names that our file has signatures read of.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'));
    lines.filter(|name| !name.starts_with([' ', '#'])).map(|name| name.trim_matches('"'))
}

/// Returns a name as a key of YAML: an address in brackets would be a list. There is nothing in names that would have to be escaped.
pub fn quoted(name: &str) -> String {
    if name.starts_with('[') { format!("\"{name}\"") } else { name.to_owned() }
}

/// Returns the note of what a policy has of a scope, if we have written that.
pub fn of<'a>(notes: &'a [Note], (policy, scope): (&str, &str), there: Option<&Value>) -> Option<&'a Note> {
    notes.iter().find(|note| note.policy == policy && note.scope == scope && Some(&note.wrote) == there)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn notes_are_comments_of_the_file() {
        let note = |scope: &str, before| Note {
            policy: "/etc/containers/policy.json".into(),
            scope: scope.into(),
            wrote: json!([{"type": "sigstoreSigned"}]),
            before,
        };
        let notes = [note("r.io/a", Value::Null), note("r.io/b:\n  x", json!([{"type": "reject"}]))];
        let text = lines(&notes) + "docker:\n  r.io/a:\n    use-sigstore-attachments: true\n  r.io:5000/b:\n";
        assert_eq!(read(&text, "f").unwrap(), notes);
        assert_eq!(names(&text).collect::<Vec<_>>(), ["r.io/a", "r.io:5000/b"]);
        let address = format!("docker:\n  {}:\n    x: true\n", quoted("[::1]:5000/b"));
        assert_eq!(names(&address).collect::<Vec<_>>(), ["[::1]:5000/b"]);
        let found = |policy: &str, there: &Value| of(&notes, (policy, "r.io/a"), Some(there)).is_some();
        assert!(found("/etc/containers/policy.json", &notes[0].wrote));
        assert!(!found("/other.json", &notes[0].wrote) && !found("/etc/containers/policy.json", &json!([])));
        assert!(read("# wrote {}\n", "f").unwrap_err().to_string().starts_with("f is damaged: "));
        assert_eq!(read("# by hand\ndocker: {}\n", "f").unwrap(), []);
    }
}
