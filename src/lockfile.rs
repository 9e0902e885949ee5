//! What a project wants installed, and what exactly that is: `skills.json` and `skills.lock.json`.

/// The file of what is wanted.
pub const INTENT: &str = "skills.json";
