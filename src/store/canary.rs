//! Whether skopeo's image proxy keeps the signature policy, found out by trying.
//!
//! ```text
//! <cache>/image-proxy.json    {"key": <which skopeo>, "policed": true}
//! ```
//!
//! The proxy ignores policy.json in skopeo 1.6 to 1.12, and `--policy` in 1.13; the version of its protocol does not
//! tell. So it is asked to open an image of a private layout under a policy that rejects everything.

use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};

use super::blob::sha256;
use super::layout::Layout;
use super::private::PrivateLayout;
use super::proxy::{Proxy, ProxyOptions};
use super::repository::Manifest;
use crate::error::{Error, Result};
use crate::image::{Blob, Profile, manifest};
use crate::process::Tools;

const CACHE: &str = "image-proxy.json";
const REJECT: &str = r#"{"default":[{"type":"reject"}]}"#;
/// What every version that keeps the policy says.
const REJECTED: &str = "rejected by policy";

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    key: String,
    policed: bool,
}

/// Returns whether the image proxy keeps the policy; `key` says which skopeo it is, for the cache.
///
/// # Errors
/// If skopeo cannot be asked.
pub fn keeps_policy(layout: &Layout, tools: &Tools, cache: Option<&Dir>, key: &str) -> Result<bool> {
    let known = cache.and_then(|dir| dir.read(CACHE).ok()).and_then(|text| serde_json::from_slice::<Known>(&text).ok());
    if let Some(known) = known.filter(|known| known.key == key) {
        return Ok(known.policed);
    }
    let policed = ask(layout, tools)?;
    if let Some(dir) = cache {
        // Without the cache the next run asks again.
        let _ = write(dir, &Known { key: key.to_owned(), policed });
    }
    Ok(policed)
}

fn ask(layout: &Layout, tools: &Tools) -> Result<bool> {
    let empty = Blob { digest: sha256(b"{}"), size: 2 };
    let bytes = manifest(Profile::Standard, &empty, &empty, &Default::default());
    let canary = Manifest::new(&sha256(&bytes), bytes)?;
    let private = PrivateLayout::of(layout.dir(), layout.path(), &canary.descriptor()?)?;
    private.write_blob(&canary.digest, &canary.bytes)?;
    private.write_blob(&empty.digest, b"{}")?;
    let policy = private.path().join("policy.json");
    private.dir().write("policy.json", REJECT).map_err(Error::io(policy.display().to_string()))?;
    let proxy = Proxy::start(tools, &ProxyOptions { policy: Some(policy), ..ProxyOptions::default() })?;
    match proxy.open(&private.reference()) {
        Ok(_) => Ok(false),
        Err(e) if e.to_string().contains(REJECTED) => Ok(true),
        Err(e) => Err(e),
    }
}

fn write(dir: &Dir, known: &Known) -> std::io::Result<()> {
    let beside = format!("{CACHE}.{}", std::process::id());
    dir.write(&beside, serde_json::to_vec(known)?)?;
    dir.rename(&beside, dir, CACHE)
}
