//! Where the passphrase of a key comes from.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use zeroize::Zeroizing;

use super::prompt;
use super::shell::Shell;
use crate::error::Error;
use crate::output::harmless_line;

/// Longest passphrase, in bytes.
const MAX_PASSPHRASE: u64 = 4096;

/// Where the passphrase of a key is, unless COSIGN_PASSWORD or a terminal gives it.
#[derive(Debug, Default, clap::Args)]
pub struct PassphraseArgs {
    /// File with the passphrase of the key, or - for stdin [env: COSIGN_PASSWORD, the passphrase itself]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    /// Returns the passphrase of a key that is there.
    ///
    /// # Errors
    /// If it is nowhere, or cannot be read.
    pub fn existing(&self, shell: &Shell, key: &Path) -> Result<Zeroizing<Vec<u8>>> {
        match self.given(shell)? {
            Some(passphrase) => Ok(passphrase),
            None => ask(shell, key, "Passphrase of"),
        }
    }

    /// Returns the passphrase of a key that is made, which a person types twice.
    ///
    /// # Errors
    /// As [`Self::existing`], and if the two are not the same.
    pub fn chosen(&self, shell: &Shell, key: &Path) -> Result<Zeroizing<Vec<u8>>> {
        if let Some(passphrase) = self.given(shell)? {
            return Ok(passphrase);
        }
        let first = ask(shell, key, "New passphrase of")?;
        match first == ask(shell, key, "Once more, the passphrase of")? {
            true => Ok(first),
            false => {
                Err(Error::Unavailable { reason: "the two passphrases are not the same".into(), hint: None }.into())
            }
        }
    }

    /// Returns what the command line or the environment gives. A file may end in a line feed, which is not part of it.
    fn given(&self, shell: &Shell) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let Some(path) = &self.passphrase_file else {
            return Ok(shell.env.cosign_password.clone().map(|text| Zeroizing::new(text.0.into_bytes())));
        };
        let context = || format!("Reading the passphrase in {}", path.display());
        let mut bytes = Zeroizing::new(Vec::new());
        let read = match path.as_os_str() == "-" {
            true => io::stdin().lock().take(MAX_PASSPHRASE + 1).read_to_end(&mut bytes),
            false => File::open(path).and_then(|file| file.take(MAX_PASSPHRASE + 1).read_to_end(&mut bytes)),
        };
        if read.with_context(context)? as u64 > MAX_PASSPHRASE {
            let reason = format!("{} is no passphrase: it is longer than {MAX_PASSPHRASE} bytes", path.display());
            return Err(Error::Unavailable { reason, hint: None }.into());
        }
        if bytes.ends_with(b"\n") {
            bytes.pop();
        }
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
        Ok(Some(bytes))
    }
}

fn ask(shell: &Shell, key: &Path, question: &str) -> Result<Zeroizing<Vec<u8>>> {
    if !io::stdin().is_terminal() {
        let hint = Some("give --passphrase-file FILE, or set COSIGN_PASSWORD, which may be empty".into());
        let reason = format!("there is no passphrase of {}, and no terminal to ask on", key.display());
        return Err(Error::Unavailable { reason, hint }.into());
    }
    let ask = || shell.warn(format!("{question} {}: ", harmless_line(&key.display().to_string())));
    let line = Zeroizing::new(prompt::hidden(ask, MAX_PASSPHRASE, &shell.cancel())?);
    Ok(Zeroizing::new(line.trim_end_matches(['\n', '\r']).as_bytes().to_vec()))
}
