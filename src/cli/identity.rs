//! Who has to have signed without a key: flags that are cosign's, but for patterns, which are of the whole.

use std::path::PathBuf;

use anyhow::Result;

use super::registry::RegistryArgs;
use super::shell::Shell;
use crate::error::Error;
use crate::reference::Reference;
use crate::trust::check::Verified;

/// An identity, who says so, and who is believed.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Without a key (in builds with the feature keyless)")]
pub struct IdentityArgs {
    /// Who has to have signed: an address, or the workflow of a CI system
    #[arg(long, value_name = "IDENTITY", requires_all = ["issuer", "trusted_root"], conflicts_with = "key")]
    certificate_identity: Option<String>,
    /// The same as a pattern, from ^ to $
    #[arg(long, value_name = "REGEXP", requires_all = ["issuer", "trusted_root"], conflicts_with = "key")]
    certificate_identity_regexp: Option<String>,
    /// Who says so: https://accounts.google.com, https://token.actions.githubusercontent.com
    #[arg(long, value_name = "URL", requires = "by", conflicts_with = "key", group = "issuer")]
    certificate_oidc_issuer: Option<String>,
    /// The same as a pattern, from ^ to $
    #[arg(long, value_name = "REGEXP", requires = "by", conflicts_with = "key", group = "issuer")]
    certificate_oidc_issuer_regexp: Option<String>,
    /// File with the authorities and logs that are believed, as cosign trusted-root create makes it
    ///
    /// Nothing is fetched.
    #[arg(long, value_name = "FILE", requires = "issuer")]
    trusted_root: Option<PathBuf>,
}

/// What is verified: an image of a registry, or of the store by what it was called.
pub type Place<'a> = (Option<&'a Reference>, &'a str);

impl IdentityArgs {
    /// Returns whether an identity was named.
    pub fn is_given(&self) -> bool {
        self.certificate_identity.is_some() || self.certificate_identity_regexp.is_some()
    }

    /// Verifies an image where no key was given.
    ///
    /// # Errors
    /// [`Error::NotVerified`]; if there is no such image, or the trusted root is none.
    #[cfg(feature = "keyless")]
    pub fn verify(
        &self,
        shell: &Shell,
        (place, text): Place<'_>,
        identity: Option<&Reference>,
        registry: &RegistryArgs,
    ) -> Result<Verified> {
        use crate::ops::keyless;
        use crate::store;
        use crate::trust::keyless::{Identities, Wanted};

        let bad = |reason: String| Error::Unavailable { reason, hint: None };
        let wanted = |exact: &Option<String>, pattern: &Option<String>| match (exact, pattern) {
            (Some(exact), _) => Ok(Wanted::Exact(exact.clone())),
            (None, pattern) => Wanted::pattern(pattern.as_deref().unwrap_or_default()),
        };
        let name = wanted(&self.certificate_identity, &self.certificate_identity_regexp).map_err(bad)?;
        let issuer = wanted(&self.certificate_oidc_issuer, &self.certificate_oidc_issuer_regexp).map_err(bad)?;
        let path = self.trusted_root.as_deref().ok_or_else(|| bad("give --trusted-root FILE".into()))?;
        let root = super::key::read(path)?;
        let identities = Identities::new(&root, name, issuer)
            .map_err(|e| bad(format!("{} is no trusted root: {e}", path.display())))?;
        let required = keyless::Required { identities: &identities, identity };
        match place {
            Some(reference) => keyless::on_registry(&registry.remote(shell)?.registry, reference, required),
            None => {
                let layout = shell.store_with(text)?;
                keyless::in_store(&layout, &store::open(&layout, text)?, text, required)
            }
        }
    }

    /// Says that this build cannot.
    ///
    /// # Errors
    /// [`Error::Unavailable`], always.
    #[cfg(not(feature = "keyless"))]
    pub fn verify(&self, _: &Shell, _: Place<'_>, _: Option<&Reference>, _: &RegistryArgs) -> Result<Verified> {
        Err(Error::Unavailable {
            reason: "this build of skillctl verifies keys, and no identities".into(),
            hint: Some("cosign verify does; or build skillctl with cargo build --release --features keyless".into()),
        }
        .into())
    }
}
