//! `key`: key pairs, as cosign has them.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::json;

use super::passphrase::PassphraseArgs;
use super::shell::{Format, Shell};
use crate::audit::{Action, Event};
use crate::error::Error;
use crate::output::harmless_line;
use crate::trust::key::{MAX_KEY, PublicKey};
use crate::trust::private_key::{self, PrivateKey};

/// How the names of both files end.
const PRIVATE: &str = ".key";
const PUBLIC: &str = ".pub";

const EXAMPLES: &str = "\
Examples:
  skillctl key generate acme
  skillctl key generate acme --passphrase-file secret
  skillctl key show acme.pub";

/// Make and show the keys that sign skills
///
/// A key is ECDSA P-256, in the files that cosign generate-key-pair makes: cosign, skopeo and podman take it, and skillctl takes theirs.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Generate(GenerateArgs),
    Show(ShowArgs),
}

const GENERATE: &str = "\
Examples:
  skillctl key generate acme
  skillctl key generate acme --passphrase-file secret";

/// Make a key pair: NAME.key, which a passphrase opens, and NAME.pub
///
/// Files that are there are left as they are.
#[derive(Debug, clap::Args)]
#[command(after_long_help = GENERATE)]
struct GenerateArgs {
    /// Path of both files, without their ends
    name: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const SHOW: &str = "\
Examples:
  skillctl key show acme.pub
  skillctl key show acme.key --passphrase-file secret";

/// Show the public key of a file, and what it is called
#[derive(Debug, clap::Args)]
#[command(after_long_help = SHOW)]
struct ShowArgs {
    /// A public key, or a private one
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        match self.kind {
            Kind::Generate(args) => args.run(shell),
            Kind::Show(args) => args.run(shell),
        }
    }
}

impl GenerateArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        if let Some(end) = self.name.extension().filter(|end| [PRIVATE, PUBLIC].iter().any(|own| **end == own[1..])) {
            let reason = format!("{} would get two ends, of which .{} is one", self.name.display(), end.display());
            let hint = Some(format!("skillctl key generate {}", self.name.with_extension("").display()));
            return Err(Error::Unavailable { reason, hint }.into());
        }
        let end = |end: &str| {
            let mut path = self.name.clone().into_os_string();
            path.push(end);
            PathBuf::from(path)
        };
        let (private, public) = (end(PRIVATE), end(PUBLIC));
        for path in [&private, &public] {
            // Asked before the passphrase is; what comes in between is not overwritten either.
            if path.symlink_metadata().is_ok() {
                let hint = Some("choose another name: what it has signed cannot be verified without it".into());
                return Err(Error::Unavailable { reason: format!("{} is there already", path.display()), hint }.into());
            }
        }
        shell.can_record()?;
        let passphrase = self.passphrase.chosen(shell, &private)?;
        let (key, pkcs8) = PrivateKey::generate()?;
        create(&private, 0o600, &private_key::seal(&pkcs8, &passphrase)?)?;
        if let Err(e) = create(&public, 0o644, &key.public().to_pem()) {
            // Neither is there without the other.
            let _ = fs::remove_file(&private);
            return Err(e);
        }
        let id = key.public().id();
        shell.record(vec![Event::of(Action::GenerateKey, public.display().to_string()).digest(&id)])?;
        match self.format {
            Format::Json => shell.print_json(&json!({"private_key": private, "public_key": public, "id": id}))?,
            Format::Text => shell.print(format!(
                "Private key: {}\nPublic key:  {}\nID:          {id}\n",
                harmless_line(&private.display().to_string()),
                harmless_line(&public.display().to_string()),
            ))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl ShowArgs {
    fn run(self, shell: &Shell) -> Result<ExitCode> {
        let text = read(&self.file)?;
        let shown = self.file.display().to_string();
        let key = match private_key::is_private(&text) {
            true => PrivateKey::open(&text, &self.passphrase.existing(shell, &self.file)?, &shown)?.public().clone(),
            false => PublicKey::from_pem(&text, &shown)?,
        };
        match self.format {
            Format::Json => {
                shell.print_json(&json!({"id": key.id(), "algorithm": key.algorithm(), "pem": key.to_pem()}))?;
            }
            Format::Text => {
                shell.print(format!("ID:         {}\nAlgorithm:  {}\n{}", key.id(), key.algorithm(), key.to_pem()))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads a public key.
///
/// # Errors
/// If the file cannot be read, or has none.
pub fn public(path: &Path) -> Result<PublicKey> {
    let (text, shown) = (read(path)?, path.display().to_string());
    if private_key::is_private(&text) {
        let reason = format!("{shown} is no public key: it is the private half of one");
        return Err(Error::Unavailable { reason, hint: other_half(path, PUBLIC) }.into());
    }
    Ok(PublicKey::from_pem(&text, &shown)?)
}

/// Refuses a public key where a private one is wanted.
///
/// # Errors
/// That.
pub fn check_signs(text: &[u8], path: &Path) -> Result<(), Error> {
    if !text.trim_ascii_start().starts_with(b"-----BEGIN PUBLIC KEY") {
        return Ok(());
    }
    let reason = format!("{} is the public half of a key, and signs nothing", path.display());
    Err(Error::Unavailable { reason, hint: other_half(path, PRIVATE) })
}

/// Names the other file of a pair, where it is beside.
fn other_half(path: &Path, end: &str) -> Option<String> {
    let other = path.with_extension(&end[1..]);
    other.exists().then(|| format!("give {}", other.display()))
}

/// Reads the file of a key.
///
/// # Errors
/// If it cannot be read, or is far too large for one.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let shown = || path.display().to_string();
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_KEY + 1).read_to_end(&mut text));
    if read.map_err(Error::io(shown()))? as u64 > MAX_KEY {
        return Err(Error::Unavailable { reason: format!("{} is no key: it is too large", shown()), hint: None }.into());
    }
    if pem::parse(&text).is_err() {
        let hint = Some("a key is text between -----BEGIN … and -----END …, all of it".into());
        return Err(Error::Unavailable { reason: format!("{} is no key: it is no PEM", shown()), hint }.into());
    }
    Ok(text)
}

/// Writes a file that is not there, whole or not at all.
fn create(path: &Path, mode: u32, text: &str) -> Result<()> {
    let context = || format!("Writing {}", path.display());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).with_context(context)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written.with_context(context)
}
