//! `validate`: reads a skill's `SKILL.md` and `skill.yaml` and checks them.

use std::io::{self, Read as _};

use anyhow::{Context as _, Result};
use cap_std::fs::Dir;

use crate::card::{FILE as CARD_FILE, Origin};
use crate::check::{Checked, SkillInput, check};
use crate::error::Error;
use crate::frontmatter::{FILE as SKILL_FILE, WordCount};

/// Checks the skill in `dir`, whose directory is called `dir_name`.
///
/// # Errors
/// If a file cannot be read. What is wrong with the skill is in the findings.
pub fn validate(dir: &Dir, dir_name: &str, strict: bool) -> Result<Checked> {
    let mut words = WordCount::default();
    let skill_md = read(dir, SKILL_FILE, |chunk| words.add(chunk))?;
    let skill_yaml = read(dir, CARD_FILE, |_| ())?;
    if skill_md.is_none() && skill_yaml.is_none() && dir.entries().is_err() {
        // Readable by name only; say so rather than calling the files missing.
        return Err(Error::Unavailable { reason: "the directory cannot be listed".into(), hint: None }.into());
    }
    let has_file = |path: &str| dir.is_file(path);
    let origin = Origin { dir_name, namespace: None, author: None, provenance: None };
    let input = SkillInput {
        skill_md: skill_md.as_deref(),
        skill_yaml: skill_yaml.as_deref(),
        has_file: &has_file,
        origin: &origin,
        strict,
    };
    Ok(Checked { words: words.finish(), ..check(&input) })
}

/// How much of `SKILL.md` and `skill.yaml` is looked at, in bytes: more than the limits of front matter and card, so that
/// a longer one is found to be too long. The words of the rest are counted without keeping it.
const KEPT: usize = 1 << 20;

/// Reads the beginning of a file of the skill, and shows all of it to `see`; `None` where there is none.
fn read(dir: &Dir, name: &str, mut see: impl FnMut(&[u8])) -> Result<Option<Vec<u8>>> {
    let context = || format!("Reading {name}");
    let metadata = match dir.metadata(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.with_context(context)?,
    };
    if !metadata.is_file() {
        let reason = "is not a regular file".to_owned();
        return Err(Error::RefusedEntry { entry: name.to_owned(), reason, hint: None }.into());
    }
    let mut file = dir.open(name).with_context(context)?;
    let mut kept = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = file.read(&mut buffer).with_context(context)?;
        if n == 0 {
            return Ok(Some(kept));
        }
        see(&buffer[..n]);
        kept.extend_from_slice(&buffer[..n.min(KEPT - kept.len())]);
    }
}
