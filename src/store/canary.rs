//! Whether skopeo's image proxy keeps the signature policy, found out by trying.
//!
//! ```text
//! <cache>/image-proxy.json    {"key": <which skopeo>, "policed": true}
//! ```
//!
//! The proxy ignores policy.json in skopeo 1.6 to 1.12, and `--policy` in 1.13; the version of its protocol does not
//! tell. So it is asked to open an image of a private layout under a policy that rejects everything.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::blob::sha256;
use super::layout::Layout;
use super::private::PrivateLayout;
use super::proxy::{Proxy, ProxyOptions};
use super::repository::Manifest;
use crate::error::{Error, Result};
use crate::image::{Blob, Profile, manifest};
use crate::process::Tools;
use crate::trust::simple;

const CACHE: &str = "image-proxy.json";
const REJECT: &str = r#"{"default":[{"type":"reject"}]}"#;
/// What every version that keeps the policy says.
const REJECTED: &str = "rejected by policy";
/// What every version says of a signature that the key has not made.
const NOT_SIGNED: &str = "cryptographic signature verification failed";
/// How a directory says that it is an image (containers-transports(5), `dir:`), and a file in it that it is a signature of sigstore.
const DIRECTORY: &str = "Directory Transport Version: 1.1\n";
const SIGSTORE: &str = "\0sigstore-json\n";
/// Where a private layout has its image as a directory with a signature, which a layout does not have.
const SIGNED: &str = "signed";
/// The one blob of an image of nothing.
const NOTHING: &[u8] = b"{}";

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

/// Has skopeo hold an image with a false signature to a requirement of policy.json, which has to refuse it for that and for nothing else:
/// some are built without sigstore, which they say of what is signed alone, and older ones do not know several keys.
///
/// # Errors
/// [`Error::Unavailable`] with what skopeo says.
pub fn holds_to(layout: &Layout, tools: &Tools, requirements: &[Value]) -> Result<()> {
    let policy = json!({"default": requirements}).to_string();
    let (private, policy) = canary(layout, &policy)?;
    signed(&private).map_err(Error::io(private.path().display().to_string()))?;
    let dir = |name: &str| format!("dir:{}", private.path().join(name).display());
    let output = tools.skopeo().arg("--policy").arg(policy).args(["copy", &dir(SIGNED), &dir("out")]).output()?;
    match output.stderr.contains(NOT_SIGNED) {
        true => Ok(()),
        false => {
            let reason = format!("skopeo here does not hold to sigstore signatures: {}", output.stderr.trim());
            let hint =
                "with Debian 12's skopeo and podman nothing can: use skopeo 1.14 or newer, and 1.18 for several keys";
            Err(Error::Unavailable { reason, hint: Some(hint.to_owned()) })
        }
    }
}

/// Writes the image of nothing as a directory, with a signature by nobody.
fn signed(private: &PrivateLayout) -> std::io::Result<()> {
    let dir = private.dir();
    dir.create_dir(SIGNED)?;
    let dir = dir.open_dir(SIGNED)?;
    let signature = json!({
        "mimeType": simple::PAYLOAD,
        "payload": STANDARD.encode(NOTHING),
        "annotations": {simple::SIGNATURE: STANDARD.encode("nothing")},
    });
    let (empty, manifest) = nothing();
    dir.write("version", DIRECTORY)?;
    dir.write("manifest.json", manifest)?;
    dir.write(empty.digest.trim_start_matches("sha256:"), NOTHING)?;
    dir.write("signature-1", format!("{SIGSTORE}{signature}"))
}

/// Returns that blob, and the manifest.
fn nothing() -> (Blob, Vec<u8>) {
    let empty = Blob { digest: sha256(NOTHING), size: NOTHING.len() as u64 };
    let bytes = manifest(Profile::Standard, &empty, &empty, &Default::default());
    (empty, bytes)
}

/// Returns a private layout with an image of nothing, and a policy in it.
fn canary(layout: &Layout, policy: &str) -> Result<(PrivateLayout, PathBuf)> {
    let (empty, bytes) = nothing();
    let canary = Manifest::new(&sha256(&bytes), bytes)?;
    let private = PrivateLayout::of(layout.dir(), layout.path(), &canary.descriptor()?)?;
    private.write_blob(&canary.digest, &canary.bytes)?;
    private.write_blob(&empty.digest, NOTHING)?;
    let path = private.path().join("policy.json");
    private.dir().write("policy.json", policy).map_err(Error::io(path.display().to_string()))?;
    Ok((private, path))
}

fn ask(layout: &Layout, tools: &Tools) -> Result<bool> {
    let (private, policy) = canary(layout, REJECT)?;
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
