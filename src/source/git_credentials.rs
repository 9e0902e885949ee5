//! How git is told who asks, where an address says it: so that no list of processes shows it.
//!
//! The arguments of a program are everybody's to read, its environment only its user's. git gets the address without
//! credentials, and the rest from variables: a user and a password by a helper of one line, a user alone by
//! `credential.….username`, so that the helpers of the configuration give the password of that user and no other's.
//!
//! * Both are for the protocol, host and port of the address. After a redirect elsewhere git looks for credentials anew, and
//!   finds none of these.
//! * The helpers of the configuration are neither asked where the password is known, nor told to keep or forget it.

use crate::git_url::{Credentials, GitSource};
use crate::process::Process;

const USER: &str = "SKILLCTL_GIT_USER";
const PASSWORD: &str = "SKILLCTL_GIT_PASSWORD";
/// Answers only `get`. `printf` is a part of the shell: a program would have both in its arguments.
const HELPER: &str = r#"!f() { test "$1" != get || printf 'username=%s\npassword=%s\n' "$SKILLCTL_GIT_USER" "$SKILLCTL_GIT_PASSWORD"; }; f"#;

/// Tells git who asks; where the address does not say it, that is left to the configuration.
pub(super) fn tell(process: Process, source: &GitSource) -> Process {
    let Some(Credentials { place, user, password }) = source.credentials() else { return process };
    let process = process.env(USER, user).arg("-c").arg(not_instead_of(&source.shown));
    match password {
        // An empty one first, which drops those of the configuration.
        Some(password) => ["", HELPER].iter().fold(process.env(PASSWORD, password), |process, helper| {
            process.arg("-c").arg(format!("credential.{place}.helper={helper}"))
        }),
        None => process.arg(format!("--config-env=credential.{place}.username={USER}")),
    }
}

/// Keeps `url.….insteadOf` from an address, as it keeps from any with a user: who asks there does not ask elsewhere.
fn not_instead_of(shown: &str) -> String {
    // With -c, a key ends at the first `=`.
    let start = shown.split('=').next().unwrap_or_default();
    format!("url.{start}.insteadOf={start}")
}
