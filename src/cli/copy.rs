//! `copy`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::policy::warn_of_less;
use super::registry::{Creds, RegistryArgs, go_bool};
use super::shell::{Format, Shell};
use crate::audit::{Action, Event};
use crate::limits::Limits;
use crate::ops::copy::{self, Context, Copied, End};
use crate::output::harmless_line;
use crate::reference::{Reference, Transport, is_digest};
use crate::store::transfer::Bytes;

const EXAMPLES: &str = "\
Examples:
  From an archive to a registry:
    skillctl copy oci-archive:skills.tar:acme/hr:1.0.0 \\
      docker://registry.example/acme/hr:1.0.0
  From the store to an archive, for a host without a network:
    skillctl copy acme/hr:1.0.0 oci-archive:hr.tar:acme/hr:1.0.0
  From one registry to another, with credentials for both:
    skillctl copy --src-creds alice --dest-authfile auth.json \\
      docker://one.example/hr:1 docker://two.example/hr:1
  From a registry to the store, under another name:
    skillctl copy docker://registry.example/acme/hr:1.0.0 test/hr:1

Transports, as in containers-transports(5):
  NAME                     the store; as a source also containers-storage, and
                           the registry in the name
  docker://NAME            a registry
  oci:DIR[:NAME]           an OCI image layout
  oci-archive:FILE[:NAME]  the same in a tar file
  dir:DIR                  a directory of blobs
  containers-storage:NAME  what podman and CRI-O mount from
  docker-archive:FILE      the output of docker save, with --allow-new-digest";

/// Copy an image from any transport to any transport
///
/// All platforms are copied, and every digest stays: a copy that would change one fails. What containers-storage has is
/// taken from the store, because containers-storage does not keep the compressed bytes. A destination without a transport
/// is the store; what is copied elsewhere gets no name there.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The image, with its transport, or its name in the store
    source: String,
    /// Where it goes, with the transport, or a name for the store
    destination: String,
    /// Let layers be compressed anew and manifests converted
    #[arg(long)]
    allow_new_digest: bool,
    /// Also where the destination is published with other content
    #[arg(long, short)]
    force: bool,
    /// Most bytes of an image
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().size)]
    max_size: u64,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    sides: SideArgs,
}

/// What differs between the two registries.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "One of two registries")]
pub struct SideArgs {
    /// Credentials file for the source
    #[arg(long, value_name = "FILE")]
    src_authfile: Option<PathBuf>,
    /// Credentials for the source
    #[arg(long, value_name = "USER[:PASSWORD]")]
    src_creds: Option<Creds>,
    /// Certificates for the source
    #[arg(long, value_name = "DIR")]
    src_cert_dir: Option<PathBuf>,
    /// Whether to require a valid certificate
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    src_tls_verify: Option<bool>,
    /// Credentials file for the destination
    #[arg(long, value_name = "FILE")]
    dest_authfile: Option<PathBuf>,
    /// Credentials for the destination
    #[arg(long, value_name = "USER[:PASSWORD]")]
    dest_creds: Option<Creds>,
    /// Certificates for the destination
    #[arg(long, value_name = "DIR")]
    dest_cert_dir: Option<PathBuf>,
    /// Whether to require a valid certificate
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    dest_tls_verify: Option<bool>,
}

impl SideArgs {
    /// Returns the flags of each side: its own, else those of both. A password is for one registry. `from` says whether a source is on
    /// a registry, and whether it may be.
    pub fn split(&self, both: &RegistryArgs, from: (bool, bool), to: bool) -> Result<(RegistryArgs, RegistryArgs)> {
        let (from, named) = from;
        if both.creds.is_some() && from && to {
            bail!("--creds would be sent to both registries: say --src-creds or --dest-creds");
        }
        let source = RegistryArgs {
            authfile: self.src_authfile.clone().or_else(|| both.authfile.clone()),
            creds: self.src_creds.clone().or_else(|| both.creds.clone().filter(|_| !to)).filter(|_| named),
            cert_dir: self.src_cert_dir.clone().or_else(|| both.cert_dir.clone()),
            tls_verify: self.src_tls_verify.or(both.tls_verify),
            retry: both.retry,
        };
        let destination = RegistryArgs {
            authfile: self.dest_authfile.clone().or_else(|| both.authfile.clone()),
            creds: self.dest_creds.clone().or_else(|| both.creds.clone()).filter(|_| to),
            cert_dir: self.dest_cert_dir.clone().or_else(|| both.cert_dir.clone()),
            tls_verify: self.dest_tls_verify.or(both.tls_verify),
            retry: both.retry,
        };
        Ok((source, destination))
    }
}

/// Returns whether a bare name has a registry in it, where it is read if it is not here.
pub fn may_be_remote(text: &str) -> bool {
    match End::parse(text) {
        Ok(End::Store(name)) => name.parse::<Reference>().is_ok_and(|name| name.registry().is_some()),
        _ => false,
    }
}

impl Args {
    pub fn run(self, shell: &Shell) -> Result<ExitCode> {
        let context = || format!("Copying {} to {}", self.source, self.destination);
        self.check_ends(shell).with_context(context)?;
        let (from, to) = self.sides().with_context(context)?;
        let in_storage = |text: &str| matches!(End::parse(text), Ok(End::Storage(_) | End::Store(_)));
        let storage = match in_storage(&self.source) || in_storage(&self.destination) {
            true => Some(shell.storage().with_context(context)?),
            false => None,
        };
        shell.can_record()?;
        let layout = shell.store().with_context(context)?;
        let (from, to) = (from.remote(shell).with_context(context)?, to.remote(shell).with_context(context)?);
        let progress = shell.progress(&self.source);
        let report = |bytes, total| progress.towards(bytes, total);
        let tools = shell.tools();
        let copied = copy::copy(
            &Context {
                layout: &layout,
                from: &from,
                to: &to,
                storage: storage.as_ref(),
                copying: self.registry.copying(&tools, &report),
                limit: self.max_size,
                force: self.force,
                bytes: if self.allow_new_digest { Bytes::Converted } else { Bytes::Exact },
            },
            &self.source,
            &self.destination,
        )
        .with_context(context);
        drop(progress);
        let event = |one: &Copied| Event::of(Action::Copy, &one.source).digest(&one.digest).at(&one.destination);
        let copied = shell.recorded((Action::Copy, &self.source), copied, |one| vec![event(one)])?;
        if let (Some(from), Some(to)) = (named(&self.source), named(&self.destination)) {
            warn_of_less(shell, &from, &to);
        }
        match self.format {
            Format::Text => {
                let bare = Transport::split(&self.destination).0.is_none();
                let whose = if bare { "   in the store" } else { "" };
                let (source, destination) = (harmless_line(&self.source), harmless_line(&self.destination));
                shell.print(format!("Copied {source} to {destination}{whose}\nDigest: {}\n", copied.digest))?;
            }
            Format::Json => shell.print_json(&copied)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the flags of each side.
    fn sides(&self) -> Result<(RegistryArgs, RegistryArgs)> {
        let remote = |text: &str| matches!(End::parse(text), Ok(End::Registry(_)));
        let (from, to) = (remote(&self.source), remote(&self.destination));
        self.sides.split(&self.registry, (from, from || may_be_remote(&self.source)), to)
    }

    /// Refuses names that are taken for the store's by mistake.
    fn check_ends(&self, shell: &Shell) -> Result<()> {
        let store = std::fs::canonicalize(shell.store_path()?).ok();
        for text in [&self.source, &self.destination] {
            let path = text.strip_prefix("oci:").and_then(|rest| rest.split(':').next());
            if store.is_some() && path.and_then(|path| std::fs::canonicalize(path).ok()) == store {
                bail!("{text} is the store itself, which has names of its own: leave oci: and the path out");
            }
            if Transport::split(text).0.is_none() && looks_like_file(text) {
                bail!("{text} looks like a file, and a bare name is the store's: write oci-archive:{text}, or oci:DIR");
            }
        }
        Ok(())
    }
}

/// Returns the name of an image that policies know; files have none.
fn named(text: &str) -> Option<Reference> {
    match End::parse(text).ok()? {
        End::Store(name) | End::Storage(name) if !is_digest(&name) => name.parse().ok(),
        End::Registry(reference) => Some(reference),
        _ => None,
    }
}

fn looks_like_file(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    text.starts_with(['.', '/', '~']) || text.ends_with('/') || lower.ends_with(".tar") || lower.ends_with(".tar.gz")
}
