//! What is built and listed: generated, the same bytes everywhere, and kept from one run to the next.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skillctl::store::blob::sha256;
use skillctl::store::layout::REF_NAME;

/// Changes with the generators, so that older inputs are made again.
const GENERATION: &str = "1";

const WORDS: usize = 20_000;
const MANY_FILES: usize = 5_000;
const MANY_BYTES: usize = 20_000_000;
const BIG_TEXT: usize = 400_000_000;
const BIG_RANDOM: usize = 100_000_000;

/// The generated skills, each made when it is first asked for.
#[derive(Debug)]
pub struct Inputs {
    dir: PathBuf,
}

/// `xorshift64*`: small, and the same on every host.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        // The upper bits are the good ones; 32 of them are enough for these bounds.
        ((self.next() >> 32) as usize * bound) >> 32
    }
}

impl Inputs {
    /// Keeps inputs below `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Returns a skill of 5,000 files in 50 directories, 20 MB of text.
    pub fn many(&self) -> Result<PathBuf> {
        self.once("many", |dir| {
            card(dir, "many", "1.0.0", "")?;
            let mut random = Random(0x6d61_6e79);
            let words = words(&mut random);
            for n in 0..MANY_FILES - 2 {
                let parent = dir.join(format!("references/{:02}", n % 50));
                fs::create_dir_all(&parent)?;
                let mut file = File::create(parent.join(format!("page-{n:04}.md")))?;
                text(&mut random, &words, MANY_BYTES / MANY_FILES, &mut file)?;
            }
            Ok(())
        })
    }

    /// Returns a skill of one text of 400 MB and 100 MB that do not compress.
    pub fn big(&self) -> Result<PathBuf> {
        self.once("big", |dir| {
            card(dir, "big", "1.0.0", "")?;
            fs::create_dir(dir.join("data"))?;
            let mut random = Random(0x0062_6967);
            let words = words(&mut random);
            text(&mut random, &words, BIG_TEXT, &mut File::create(dir.join("data/text.txt"))?)?;
            let mut file = BufWriter::new(File::create(dir.join("data/random.bin"))?);
            for _ in 0..BIG_RANDOM / 8 {
                file.write_all(&random.next().to_le_bytes())?;
            }
            Ok(file.flush()?)
        })
    }

    /// Returns the tar archive of *big*, and its size after `gzip -6`.
    pub fn big_tar(&self) -> Result<(PathBuf, u64)> {
        let big = self.big()?;
        let dir = self.once("big-tar", |dir| {
            let script = r#"tar -C "$1" -cf "$2/big.tar" . && gzip -6 -c "$2/big.tar" | wc -c >"$2/gzip-6.size""#;
            let status = Command::new("sh").args(["-c", script, "sh"]).args([&big, dir]).status()?;
            ensure!(status.success(), "tar or gzip: {status}");
            Ok(())
        })?;
        let size = fs::read_to_string(dir.join("gzip-6.size"))?.trim().parse()?;
        Ok((dir.join("big.tar"), size))
    }

    /// Makes a directory whole or not at all.
    fn once(&self, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let done = self.dir.join(format!("{name}.{GENERATION}"));
        if !done.exists() {
            let unfinished = self.dir.join(format!("{name}.unfinished"));
            let context = || format!("Generating {}", done.display());
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished).with_context(context)?;
            }
            fs::create_dir_all(&unfinished).with_context(context)?;
            fill(&unfinished).with_context(context)?;
            fs::rename(&unfinished, &done).with_context(context)?;
        }
        Ok(done)
    }
}

/// Writes the skill *small*, three files, which differ with `version` and `note`.
pub fn small(dir: &Path, version: &str, note: &str) -> Result<()> {
    named(dir, "small", version, note)
}

/// Writes the same skill under another name.
pub fn named(dir: &Path, name: &str, version: &str, note: &str) -> Result<()> {
    fs::create_dir_all(dir.join("scripts"))?;
    card(dir, name, version, note)?;
    let script = dir.join("scripts/run.sh");
    fs::write(&script, "#!/bin/sh\nexec echo \"$@\"\n")?;
    Ok(fs::set_permissions(script, fs::Permissions::from_mode(0o755))?)
}

fn card(dir: &Path, name: &str, version: &str, note: &str) -> Result<()> {
    let skill = format!(
        "---\nname: {name}\ndescription: Measures how long {name} takes.\n---\n\n# {name}\n\nRead on. {note}\n"
    );
    let yaml = format!(
        "apiVersion: skillimage.io/v1alpha1\nkind: SkillCard\nmetadata:\n  name: {name}\n  namespace: bench\n  version: {version}\n  description: Measures how long {name} takes.\n  license: Apache-2.0\n"
    );
    fs::write(dir.join("SKILL.md"), skill)?;
    Ok(fs::write(dir.join("skill.yaml"), yaml)?)
}

fn words(random: &mut Random) -> Vec<String> {
    let (mut words, mut seen) = (Vec::with_capacity(WORDS), HashSet::new());
    while words.len() < WORDS {
        let length = 2 + random.below(11);
        let word: String = (0..length).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
        if seen.insert(word.clone()) {
            words.push(word);
        }
    }
    words
}

fn text(random: &mut Random, words: &[String], size: usize, out: &mut File) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, out);
    let (mut left, mut column) = (size, 0);
    while left > 0 {
        let word = &words[random.below(words.len())];
        let part = &word.as_bytes()[..word.len().min(left)];
        out.write_all(part)?;
        left -= part.len();
        if left > 0 {
            column = (column + 1) % 12;
            out.write_all(if column == 0 { b"\n" } else { b" " })?;
            left -= 1;
        }
    }
    Ok(out.flush()?)
}

/// Turns a store of one image into one of `count`, each with a manifest of its own.
pub fn multiply(store: &Path, count: usize) -> Result<()> {
    let index: Value = serde_json::from_slice(&fs::read(store.join("index.json"))?)?;
    let entry = &index["manifests"][0];
    let blobs = store.join("blobs");
    let digest = entry["digest"].as_str().context("no digest")?;
    let manifest: Value = serde_json::from_slice(&fs::read(blobs.join(digest.replace(':', "/")))?)?;
    let entries: Vec<Value> = (0..count)
        .map(|n| {
            let (mut entry, mut manifest) = (entry.clone(), manifest.clone());
            for value in [&mut entry, &mut manifest] {
                value["annotations"]["org.opencontainers.image.version"] = format!("1.0.{n}").into();
            }
            let bytes = manifest.to_string().into_bytes();
            let digest = sha256(&bytes);
            fs::write(blobs.join(digest.replace(':', "/")), &bytes)?;
            entry["annotations"][REF_NAME] = numbered(n).into();
            entry["digest"] = digest.into();
            entry["size"] = bytes.len().into();
            Ok(entry)
        })
        .collect::<Result<_>>()?;
    Ok(fs::write(store.join("index.json"), json!({"schemaVersion": 2, "manifests": entries}).to_string())?)
}

/// Returns the name of one of the images that [`multiply`] made.
pub fn numbered(n: usize) -> String {
    format!("bench/small-{n}:1.0.{n}-draft")
}

/// Makes the containers-storage at `root`, which has one image, say that it has all images of `store`.
///
/// Only for readers of its lists: the records share the layer and the big data of the first one.
pub fn multiply_records(root: &Path, driver: &str, store: &Path) -> Result<()> {
    let path = root.join(format!("{driver}-images/images.json"));
    let records: Vec<Value> = serde_json::from_slice(&fs::read(&path)?)?;
    let record = records.first().context("no image was loaded")?;
    let index: Value = serde_json::from_slice(&fs::read(store.join("index.json"))?)?;
    let many = index["manifests"].as_array().context("no manifests")?.iter().map(|entry| {
        let mut record = record.clone();
        record["digest"] = entry["digest"].clone();
        record["id"] = sha256(entry["digest"].to_string().as_bytes())["sha256:".len()..].into();
        record["names"] = json!([format!("localhost/{}", entry["annotations"][REF_NAME].as_str().unwrap_or_default())]);
        record["big-data-digests"]["manifest"] = entry["digest"].clone();
        record
    });
    let all: Vec<Value> = records.iter().cloned().chain(many).collect();
    Ok(fs::write(&path, serde_json::to_vec(&all)?)?)
}
