//! `init`: the files that a new skill starts with.

use std::io;

use anyhow::{Context as _, Result, bail};
use cap_std::fs::{Dir, OpenOptions};
use std::io::Write as _;

use crate::error::Error;

/// What a new skill is called.
#[derive(Debug)]
pub struct Options<'a> {
    /// Its name: lower-case letters, digits and single hyphens.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
}

/// Writes `SKILL.md` and `skill.yaml` into an existing directory; neither is overwritten.
///
/// # Errors
/// If the name is not a skill name, or one of the files is there.
pub fn init(dir: &Dir, options: &Options<'_>) -> Result<[&'static str; 2]> {
    let namespaces = options.namespace.split('/').map(|part| ("namespace", part));
    for (what, name) in std::iter::once(("skill name", options.name)).chain(namespaces) {
        if !is_name(name) {
            // The name is the directory's unless one is given.
            let hint =
                Some("use lower-case letters, digits and single hyphens, for example: --name code-reviewer".into());
            return Err(Error::Unavailable { reason: format!("{name:?} is not a {what}"), hint }.into());
        }
    }
    let files = [("SKILL.md", skill_md(options)), ("skill.yaml", skill_yaml(options))];
    if let Some((file, _)) = files.iter().find(|(file, _)| dir.exists(file)) {
        bail!("{file} is already there");
    }
    for (file, text) in &files {
        write_new(dir, file, text).with_context(|| format!("Writing {file}"))?;
    }
    Ok(files.map(|(file, _)| file))
}

fn write_new(dir: &Dir, file: &str, text: &str) -> io::Result<()> {
    dir.open_with(file, OpenOptions::new().write(true).create_new(true))?.write_all(text.as_bytes())
}

/// Returns whether `name` is 1 to 64 lower-case letters, digits and single hyphens, as the card's schema wants.
fn is_name(name: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 64 && name.split('-').all(word)
}

fn skill_md(options: &Options<'_>) -> String {
    let name = options.name;
    format!(
        "---\nname: {name}\ndescription: {}\n---\n\n# {name}\n\nTell the agent what to do, step by step. Keep this file \
         below 500 lines; put details into\nreferences/ and programs into scripts/, and name them here by relative \
         path.\n",
        description(name)
    )
}

fn skill_yaml(options: &Options<'_>) -> String {
    let Options { name, namespace } = options;
    format!(
        "apiVersion: skillimage.io/v1alpha1\nkind: SkillCard\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
         version: 0.1.0\n  description: {}\nspec:\n  prompt: SKILL.md\n",
        description(name)
    )
}

fn description(name: &str) -> String {
    format!("Say what {name} does and when an agent should use it.")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use cap_std::ambient_authority;

    use super::*;

    #[test]
    fn nothing_is_overwritten_and_names_are_checked() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(tmp.path(), ambient_authority()).unwrap();
        for name in ["", "Bad", "a--b", "-a", "a/b", "a\nb: c"] {
            assert!(init(&dir, &Options { name, namespace: "local" }).is_err(), "{name:?}");
        }
        assert_eq!(dir.entries().unwrap().count(), 0);
        let options = Options { name: "code-reviewer", namespace: "local" };
        assert_eq!(init(&dir, &options).unwrap(), ["SKILL.md", "skill.yaml"]);
        assert_eq!(init(&dir, &options).unwrap_err().to_string(), "SKILL.md is already there");
        assert!(dir.read_to_string("skill.yaml").unwrap().contains("  name: code-reviewer\n"));
    }
}
