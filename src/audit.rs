//! The audit log: what was verified, installed, loaded, mounted and promoted, by whom, and what came of it.
//!
//! A record is a line of JSON with the hash of the line before it, so that a line that was changed, removed or moved shows:
//!
//! ```text
//! {"seq":1,…,"action":"sign",…}
//! {"seq":2,…,"action":"verify",…,"prev":"sha256:<of the bytes of line 1, without its newline>"}
//! ```
//!
//! Only the end can be cut without a trace in the file: whoever has recorded a hash elsewhere (a head) can tell that, too. Nothing here
//! protects against whoever may write the file and makes all of it anew, again except by a head.

pub mod chain;
pub mod files;
pub mod log;
pub mod settings;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::text::escaped;

/// Most bytes of a line. What is in it is cut to less than that, so a longer one is none of ours.
pub const MAX_LINE: usize = 128 << 10;
/// Most characters of what was asked for, and of a reason.
const MAX_TEXT: usize = 1024;
/// Most characters of a place.
const MAX_PLACE: usize = 2048;
/// Most characters of a digest and a container.
const MAX_ID: usize = 80;
/// Most characters of a signer: identities are addresses of workflows and of who vouches for them.
const MAX_SIGNER: usize = 256;
/// Most signers of a record; some suffice to tell.
const MAX_SIGNERS: usize = 16;

/// What is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A signature was looked for.
    Verify,
    /// An image came from a registry into the store.
    Pull,
    /// An image was copied from one place to another.
    Copy,
    /// An image was loaded into containers-storage.
    Load,
    /// Something was attested of an image.
    Attest,
    /// The trust policy was changed.
    Trust,
    /// A name was taken from containers-storage.
    Unload,
    /// A skill was installed where agents look.
    Install,
    /// An installed skill was replaced by another version.
    Upgrade,
    /// It was replaced by the version before.
    Rollback,
    /// It was removed.
    Uninstall,
    /// A container was given a skill by the hook.
    Mount,
    /// A skill became a device that containers may have.
    EnableDevice,
    /// And no longer.
    DisableDevice,
    /// The state of an image was changed.
    Promote,
    /// An image was signed.
    Sign,
    /// A key was made.
    GenerateKey,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Verify,
        Self::Pull,
        Self::Copy,
        Self::Load,
        Self::Unload,
        Self::Install,
        Self::Upgrade,
        Self::Rollback,
        Self::Uninstall,
        Self::Mount,
        Self::EnableDevice,
        Self::DisableDevice,
        Self::Promote,
        Self::Sign,
        Self::Attest,
        Self::Trust,
        Self::GenerateKey,
    ];

    /// Returns the word that stands for it in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Pull => "pull",
            Self::Copy => "copy",
            Self::Load => "load",
            Self::Attest => "attest",
            Self::Trust => "trust",
            Self::Unload => "unload",
            Self::Install => "install",
            Self::Upgrade => "upgrade",
            Self::Rollback => "rollback",
            Self::Uninstall => "uninstall",
            Self::Mount => "mount",
            Self::EnableDevice => "enable-device",
            Self::DisableDevice => "disable-device",
            Self::Promote => "promote",
            Self::Sign => "sign",
            Self::GenerateKey => "generate-key",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was not allowed: no signature suffices, or a container may not have the skill.
    Refused,
    /// It could not be done.
    Failed,
}

impl Outcome {
    /// Returns the word that stands for it in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What has happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// What was done, or should have been.
    pub action: Action,
    /// The image, as it was asked for; a device or a key.
    pub reference: String,
    /// Digest of its manifest, as far as it is known.
    pub digest: Option<String>,
    /// Who has signed it, as far as that was looked at; of the policy whom the change names.
    pub signers: Vec<String>,
    /// What came of it.
    pub result: Outcome,
    /// Why it was not done.
    pub reason: Option<String>,
    /// Where it is now: a directory, a place in a container.
    pub place: Option<String>,
    /// The container.
    pub container: Option<String>,
}

impl Event {
    /// Returns one that went well.
    pub fn of(action: Action, reference: impl Into<String>) -> Self {
        let reference = reference.into();
        let (digest, signers, reason, place, container) = (None, Vec::new(), None, None, None);
        Self { action, reference, digest, signers, result: Outcome::Ok, reason, place, container }
    }

    /// Says which manifest it was.
    pub fn digest(self, digest: impl Into<String>) -> Self {
        Self { digest: Some(digest.into()), ..self }
    }

    /// Says who has signed it.
    pub fn signers(self, signers: impl IntoIterator<Item = String>) -> Self {
        Self { signers: signers.into_iter().collect(), ..self }
    }

    /// Says where it is.
    pub fn at(self, place: impl ToString) -> Self {
        Self { place: Some(place.to_string()), ..self }
    }

    /// Says why nothing came of it.
    pub fn not(self, result: Outcome, reason: impl Into<String>) -> Self {
        Self { result, reason: Some(reason.into()), ..self }
    }
}

/// Who has done it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user of the process, on the host where that is a user namespace.
    pub uid: u32,
    /// The user who logged in, whoever that is now; absent where nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// The name of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, from 1.
    pub seq: u64,
    /// When, in UTC (RFC 3339).
    pub time: String,
    /// Who.
    pub user: User,
    /// The process.
    pub pid: u32,
    /// What: one of [`Action`], or of a newer version.
    pub action: String,
    /// See [`Event::reference`].
    pub reference: String,
    /// See [`Event::digest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// See [`Event::signers`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
    /// See [`Event::result`].
    pub result: Outcome,
    /// See [`Event::reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// See [`Event::place`].
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// See [`Event::container`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// [`hash`] of the line before; absent in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<String>,
}

/// The last record: what the next one begins with, and what somebody can keep elsewhere to compare the log with later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// Its [`hash`].
    pub hash: String,
}

impl Record {
    /// Returns the record that follows `last`.
    pub fn following(last: Option<&Head>, event: &Event, user: &User, now: DateTime<Utc>) -> Self {
        let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        Self {
            seq: last.map_or(0, |last| last.seq).saturating_add(1),
            time: now.to_rfc3339_opts(SecondsFormat::Millis, true),
            user: user.clone(),
            pid: std::process::id(),
            action: event.action.as_str().to_owned(),
            reference: cut(&event.reference, MAX_TEXT),
            digest: event.digest.as_ref().map(|digest| cut(digest, MAX_ID)),
            signers: event.signers.iter().take(MAX_SIGNERS).map(|signer| cut(signer, MAX_SIGNER)).collect(),
            result: event.result,
            reason: event.reason.as_ref().map(|reason| cut(reason, MAX_TEXT)),
            place: event.place.as_ref().map(|place| cut(place, MAX_PLACE)),
            container: event.container.as_ref().map(|container| cut(container, MAX_ID)),
            prev: last.map(|last| last.hash.clone()),
        }
    }

    /// Returns its line, without a newline. Characters that would steer a terminal are escaped: people look at logs with cat.
    ///
    /// # Errors
    /// Never in practice: all of its fields are text and numbers.
    pub fn line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self).map(|text| escaped(&text))
    }

    /// Reads a line; `None` where it is no record.
    pub fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

/// Returns the hash of a line, without its newline, as `sha256:` and digits.
pub fn hash(line: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(line)))
}
