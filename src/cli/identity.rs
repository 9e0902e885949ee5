//! Who has to have signed without a key: flags that are cosign's, but for patterns, which are of the whole.

use std::path::PathBuf;

use super::policy::needed;
use crate::error::{Error, Result};
use crate::trust::identity::{Identities, MAX_ROOT, Written};
use crate::trust::keyless::CANNOT;

/// Whether the flags are shown: where they can be used.
const HIDDEN: bool = CANNOT.is_some();

/// An identity, who says so, and who is believed.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Without a key")]
pub struct IdentityArgs {
    /// Who has to have signed, in place of a key: an address, or the workflow of a CI system
    #[arg(long, value_name = "IDENTITY", hide = HIDDEN, group = "who", requires_all = ["issuer", "trusted_root"], conflicts_with = "key")]
    certificate_identity: Option<String>,
    /// The same as a pattern, from ^ to $
    #[arg(long, value_name = "REGEXP", hide = HIDDEN, group = "who", requires_all = ["issuer", "trusted_root"], conflicts_with = "key")]
    certificate_identity_regexp: Option<String>,
    /// Who says so: https://accounts.google.com, https://token.actions.githubusercontent.com
    #[arg(long, value_name = "URL", hide = HIDDEN, group = "issuer", requires = "who")]
    certificate_oidc_issuer: Option<String>,
    /// The same as a pattern, from ^ to $
    #[arg(long, value_name = "REGEXP", hide = HIDDEN, group = "issuer", requires = "who")]
    certificate_oidc_issuer_regexp: Option<String>,
    /// File with the authorities and logs that are believed, as cosign trusted-root create makes it
    ///
    /// Nothing is fetched. One without logs of certificates (ctlogs) has an authority that uses none.
    #[arg(long, value_name = "FILE", hide = HIDDEN, requires = "issuer")]
    trusted_root: Option<PathBuf>,
}

/// An identity as it was given, and what its trusted root is.
#[derive(Debug)]
pub struct Given {
    /// Who, and who says so.
    pub written: Written,
    /// Who is believed, in JSON.
    pub root: String,
    /// The same, as they are compared.
    pub identities: Identities,
}

impl IdentityArgs {
    /// Returns the identity; `None` where none was given.
    ///
    /// # Errors
    /// If this build verifies none; if the trusted root or a pattern is none.
    pub fn given(&self) -> Result<Option<Given>> {
        let written = Written {
            identity: self.certificate_identity.clone(),
            identity_regexp: self.certificate_identity_regexp.clone(),
            issuer: self.certificate_oidc_issuer.clone(),
            issuer_regexp: self.certificate_oidc_issuer_regexp.clone(),
        };
        let Some(path) = self.trusted_root.as_deref() else { return Ok(None) };
        if let Some(reason) = CANNOT {
            let hint =
                Some("cosign verify does; or build skillctl with cargo build --release --features keyless".into());
            return Err(Error::Unavailable { reason: reason.into(), hint });
        }
        let root = needed(path, MAX_ROOT)?;
        let named = path.display().to_string();
        let identities = Identities::new((root.as_bytes(), &named), vec![written.clone()])
            .map_err(|reason| Error::Unavailable { reason, hint: None })?;
        Ok(Some(Given { written, root, identities }))
    }

    /// Returns who may have signed; none where none was given.
    ///
    /// # Errors
    /// As [`Self::given`].
    pub fn identities(&self) -> Result<Vec<Identities>> {
        Ok(self.given()?.map(|given| given.identities).into_iter().collect())
    }
}
