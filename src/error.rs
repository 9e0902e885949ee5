//! What can go wrong, as values that a caller can match on.
//!
//! Variants state facts, with both values where two disagree. What was being done is said by the
//! context that the operations add (`Packing my-skill: …`).

use std::{fmt, io};

/// Result of a library function that a caller may want to tell apart.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that the library distinguishes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Text that is not an image reference.
    #[error("invalid reference {input:?}: {reason}")]
    InvalidReference {
        /// What was given.
        input: String,
        /// Which rule it breaks.
        reason: String,
    },
    /// A word that is not a lifecycle state.
    #[error("invalid lifecycle state: {0:?}")]
    InvalidState(String),
    /// No image of that name or digest, in the places that were looked in.
    #[error("image not found: {0}")]
    ImageNotFound(String),
    /// Stored bytes that are not what their digest, size or format says.
    #[error("{object} is damaged: {reason}")]
    Damaged {
        /// The file or blob.
        object: String,
        /// How it shows.
        reason: String,
    },
    /// An entry of a skill or of an archive that is refused.
    #[error("{entry} {reason}")]
    RefusedEntry {
        /// Its path, relative to the skill.
        entry: String,
        /// Why it is refused.
        reason: String,
        /// The remedy, as a sentence or a command.
        hint: Option<String>,
    },
    /// A bound that protects the host.
    #[error("{what} exceeds the limit of {limit}")]
    LimitExceeded {
        /// What was counted, with its unit.
        what: String,
        /// The limit, with its unit.
        limit: String,
        /// The flag that raises it.
        flag: &'static str,
    },
    /// Something that cannot be done here, with a remedy.
    #[error("{reason}")]
    Unavailable {
        /// What is missing or in the way.
        reason: String,
        /// The remedy, as a sentence or a command.
        hint: Option<String>,
    },
    /// A registry that refused, could not be reached, or sent what it should not.
    #[error("{registry}: {reason}")]
    Registry {
        /// Its host, with the port where one was given.
        registry: String,
        /// What kind of failure it is.
        fault: Fault,
        /// What happened, in the registry's or the network's words.
        reason: String,
        /// The remedy, as a sentence or a command.
        hint: Option<String>,
    },
    /// An image that is not as the keys or the policy want it.
    #[error("{0}")]
    NotVerified(Box<Refusal>),
    /// What a container may not have, by the policy of the machine or by what it asks for.
    #[error("{0}")]
    Denied(String),
    /// An input or output error on a named object.
    #[error("{object}: {cause}")]
    Io {
        /// The path or stream.
        object: String,
        /// The cause. Part of the text, so that no chain prints it a second time.
        cause: io::Error,
    },
}

/// Why an image may not be used.
#[derive(Debug)]
pub struct Refusal {
    /// The image, as it was asked for.
    pub image: String,
    /// Digest of its manifest.
    pub digest: String,
    /// What has to hold, and who asks for it: `signed by` keys, any of which would do.
    pub required: String,
    /// What there is instead.
    pub found: String,
    /// The remedy, where there is one.
    pub hint: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, digest, required, found, .. } = self;
        write!(f, "{image} is not verified: {digest} must be {required}, and {found}")
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::NotVerified(Box::new(refusal))
    }
}

/// The kinds of failure of a registry that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// No credentials, wrong ones, or ones that do not suffice (401, 403).
    Denied,
    /// It has no such repository, tag, manifest or blob (404).
    NotFound,
    /// Too many requests (429).
    RateLimited,
    /// It answers, and cannot do it now (5xx).
    Server,
    /// No route, no name, no listener, or a connection that broke.
    Unreachable,
    /// A certificate that is not accepted, or no TLS at all.
    Tls,
    /// It does not offer this (400, 405).
    Unsupported,
    /// registries.conf or policy.json forbids it.
    Forbidden,
    /// What it sent is not what was asked for: another digest, too many bytes, no JSON.
    Protocol,
}

/// Returns what kind of failure of a registry an error is of.
pub fn fault_of(error: &anyhow::Error) -> Option<Fault> {
    error.chain().find_map(|e| e.downcast_ref::<Error>()).and_then(Error::fault)
}

impl Error {
    /// Returns what the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::RefusedEntry { hint, .. } | Self::Unavailable { hint, .. } | Self::Registry { hint, .. } => {
                hint.clone()
            }
            Self::NotVerified(refusal) => refusal.hint.clone(),
            Self::LimitExceeded { flag, .. } => Some(format!("raise it with {flag}")),
            Self::InvalidState(_) => Some("the states are testing, published, deprecated and archived".into()),
            Self::ImageNotFound(_) => Some("skillctl list shows what is there".into()),
            Self::Damaged { .. } => Some("skillctl fsck lists everything that is damaged".into()),
            _ => None,
        }
    }

    /// Returns whether it could have been done and was not allowed.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::NotVerified(_) | Self::Denied(_))
    }

    /// Returns what kind of failure of a registry this is, where it is one.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Registry { fault, .. } => Some(*fault),
            _ => None,
        }
    }

    /// Returns the same of an image of the store whose name has a registry, where its hint would lead.
    #[must_use]
    pub fn local(mut self) -> Self {
        if let Self::NotVerified(refusal) = &mut self {
            let local = |hint: String| hint.replace("skillctl trust check", "skillctl trust check --local");
            refusal.hint = refusal.hint.take().map(local);
        }
        self
    }

    /// Returns the error for work that was ended because the user said so.
    pub fn interrupted() -> Self {
        Self::Unavailable { reason: "interrupted".into(), hint: None }
    }

    /// Returns the error for stored bytes that are not what they should be.
    pub fn damaged(object: impl ToString, reason: impl ToString) -> Self {
        Self::Damaged { object: object.to_string(), reason: reason.to_string() }
    }

    /// Returns a function for `map_err` that names the object of an I/O error.
    pub fn io(object: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let object = object.into();
        move |cause| Self::Io { object, cause }
    }
}
