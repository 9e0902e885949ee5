//! `validate`: reads a skill's `SKILL.md` and `skill.yaml` and checks them.

use std::io;

use anyhow::{Context as _, Result};
use cap_std::fs::{Dir, File};

use crate::card::{FILE as CARD_FILE, Origin};
use crate::check::{Checked, SkillInput, check};
use crate::error::Error;
use crate::frontmatter::{FILE as SKILL_FILE, WordCount};
use crate::layer::Subtree;

/// Checks the skill in `dir`, whose directory is called `dir_name`.
///
/// # Errors
/// If a file cannot be read. What is wrong with the skill is in the findings.
pub fn validate(dir: &Dir, dir_name: &str, strict: bool) -> Result<Checked> {
    let mut words = WordCount::default();
    let skill_md = open(dir, SKILL_FILE)?.map(|file| read(file, SKILL_FILE, |chunk| words.add(chunk))).transpose()?;
    let skill_yaml = open(dir, CARD_FILE)?.map(|file| read(file, CARD_FILE, |_| ())).transpose()?;
    if skill_md.is_none() && skill_yaml.is_none() && dir.entries().is_err() {
        // Readable by name only; say so rather than calling the files missing.
        return Err(Error::Unavailable { reason: "the directory cannot be listed".into(), hint: None }.into());
    }
    let has_file = |path: &str| dir.is_file(path);
    let origin = Origin { dir_name, ..Origin::default() };
    let input = SkillInput {
        skill_md: skill_md.as_deref(),
        skill_yaml: skill_yaml.as_deref(),
        has_file: &has_file,
        origin: &origin,
        strict,
    };
    Ok(Checked { words: words.finish(), ..check(&input) })
}

/// Checks a skill that was read from elsewhere than a directory.
///
/// # Errors
/// As [`validate`].
pub fn validate_tree(tree: &Subtree<'_>, origin: &Origin<'_>, strict: bool) -> Result<Checked> {
    let mut words = WordCount::default();
    let open = |name: &str| tree.open(name).map(|(_, content)| content);
    let skill_md = open(SKILL_FILE).map(|file| read(file, SKILL_FILE, |chunk| words.add(chunk))).transpose()?;
    let skill_yaml = open(CARD_FILE).map(|file| read(file, CARD_FILE, |_| ())).transpose()?;
    let has_file = |path: &str| tree.open(path).is_some();
    let (skill_md, skill_yaml) = (skill_md.as_deref(), skill_yaml.as_deref());
    let input = SkillInput { skill_md, skill_yaml, has_file: &has_file, origin, strict };
    Ok(Checked { words: words.finish(), ..check(&input) })
}

/// How much of `SKILL.md` and `skill.yaml` is looked at, in bytes: more than the limits of front matter and card, so that
/// a longer one is found to be too long. The words of the rest are counted without keeping it.
const KEPT: usize = 1 << 20;

/// Opens a file of the skill; `None` where there is none.
fn open(dir: &Dir, name: &str) -> Result<Option<File>> {
    let context = || format!("Reading {name}");
    let metadata = match dir.metadata(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.with_context(context)?,
    };
    if !metadata.is_file() {
        let reason = "is not a regular file".to_owned();
        return Err(Error::RefusedEntry { entry: name.to_owned(), reason, hint: None }.into());
    }
    dir.open(name).with_context(context).map(Some)
}

/// Reads the beginning of a file, and shows all of it to `see`.
fn read(mut file: impl io::Read, name: &str, mut see: impl FnMut(&[u8])) -> Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = file.read(&mut buffer).with_context(|| format!("Reading {name}"))?;
        if n == 0 {
            return Ok(kept);
        }
        see(&buffer[..n]);
        kept.extend_from_slice(&buffer[..n.min(KEPT - kept.len())]);
    }
}
