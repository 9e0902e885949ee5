//! Who signs: the flags of verbs that make signatures.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::key;
use super::passphrase::PassphraseArgs;
use super::shell::Shell;
use crate::trust::private_key::PrivateKey;
use crate::trust::signer::{Command, Signer};

/// A key, or a command that has it.
#[derive(Debug, Default, clap::Args)]
pub struct SignerArgs {
    /// Private key, as skillctl key generate or cosign makes it; with --signer-cmd the public one
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Command that signs, for keys of a KMS or a token
    ///
    /// /bin/sh -c runs it. It gets the bytes to be signed on stdin, hashes them by SHA-256, and writes the signature to stdout, as it is
    /// or in base64: ECDSA P-256 in ASN.1 (DER), or RSA PKCS #1 v1.5. What --key does not verify is no signature.
    #[arg(long, value_name = "COMMAND", requires = "key", conflicts_with = "passphrase_file")]
    signer_cmd: Option<String>,
}

impl SignerArgs {
    /// Returns who signs with the key at `path`, which is that of `--key`.
    ///
    /// # Errors
    /// If the key cannot be read, is none, or is not opened by the passphrase.
    pub fn signer(&self, shell: &Shell, path: &Path) -> Result<Box<dyn Signer>> {
        if let Some(command) = &self.signer_cmd {
            return Ok(Box::new(Command::new(command, key::public(path)?, &shell.cancel())?));
        }
        let text = key::read(path)?;
        key::check_signs(&text, path)?;
        let passphrase = self.passphrase.existing(shell, path)?;
        Ok(Box::new(PrivateKey::open(&text, &passphrase, &path.display().to_string())?))
    }
}
