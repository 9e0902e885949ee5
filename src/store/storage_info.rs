//! What podman itself says about its storage: asked once, then remembered.
//!
//! ```text
//! <cache>/podman-info.json    {"key": <digest of what the answer depends on>, "store": {…}}
//! ```
//!
//! Only for a driver that neither configuration nor disk tells: `podman info` takes half a second, and creates the
//! storage if there is none. The cache is replaced by rename, without a lock, since a lost race or a crash costs one
//! more question.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::process::Tools;
use crate::store::storage_conf::{StorageEnv, StoreFlags};

/// `podman info` takes 0.5 s; on storage that another process has locked it hangs.
const INFO_TIMEOUT: Duration = Duration::from_secs(30);
/// File of the cache, in the directory that the caller names.
const INFO_CACHE: &str = "podman-info.json";

/// What `podman info` says about its storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodmanInfo {
    /// Directory of images and layers.
    #[serde(rename = "graphRoot")]
    pub graph_root: PathBuf,
    /// Directory of what ends with the boot.
    #[serde(rename = "runRoot")]
    pub run_root: PathBuf,
    /// Name of the driver.
    #[serde(rename = "graphDriverName")]
    pub driver: String,
}

/// What the cached answer of `podman info` depends on.
#[derive(Debug, Default)]
pub struct InfoKey<'a> {
    /// Modification times of podman and of [`StorageEnv::config_files`], where they exist.
    pub files: BTreeMap<PathBuf, SystemTime>,
    /// Modification time of the graph root, which changes when a driver makes its directories there.
    pub graph_root: Option<SystemTime>,
    /// The environment and the flags.
    pub env: Option<&'a StorageEnv>,
}

impl InfoKey<'_> {
    fn digest(&self) -> String {
        let since = |t: &SystemTime| t.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut text = String::new();
        for (path, time) in &self.files {
            text.push_str(&format!("{path:?} {:?}\n", since(time)));
        }
        text.push_str(&format!("{:?} {:?}", self.graph_root.as_ref().map(since), self.env));
        hex::encode(Sha256::digest(text))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct CachedInfo {
    key: String,
    store: PodmanInfo,
}

/// Asks podman where its storage is, unless `cache` has the answer for `key`.
///
/// `key` is called again after podman ran, which may have created the storage. A cache that cannot be read or written
/// only costs time.
///
/// # Errors
///
/// [`Error::Unavailable`] when podman is missing, fails, or hangs.
pub fn podman_info<'a>(
    tools: &Tools,
    flags: &StoreFlags,
    cache: Option<&Dir>,
    key: impl Fn() -> InfoKey<'a>,
) -> Result<PodmanInfo> {
    cached(cache, key, || {
        let podman = flags.podman(tools.podman()).timeout(INFO_TIMEOUT);
        parse_info(&podman.args(["info", "--format", "{{json .Store}}"]).run()?)
    })
}

fn parse_info(json: &[u8]) -> Result<PodmanInfo> {
    serde_json::from_slice(json)
        .map_err(|e| Error::Unavailable { reason: format!("podman info: unexpected output: {e}"), hint: None })
}

fn cached<'a>(
    cache: Option<&Dir>,
    key: impl Fn() -> InfoKey<'a>,
    ask: impl FnOnce() -> Result<PodmanInfo>,
) -> Result<PodmanInfo> {
    if let Some(dir) = cache
        && let Ok(text) = dir.read(INFO_CACHE)
        && let Ok(cached) = serde_json::from_slice::<CachedInfo>(&text)
        && cached.key == key().digest()
    {
        return Ok(cached.store);
    }
    let store = ask()?;
    if let Some(dir) = cache {
        // Without the cache the next run asks again.
        let _ = write_cache(dir, &CachedInfo { key: key().digest(), store: store.clone() });
    }
    Ok(store)
}

fn write_cache(dir: &Dir, cached: &CachedInfo) -> std::io::Result<()> {
    let beside = format!("{INFO_CACHE}.{}", std::process::id());
    dir.write(&beside, serde_json::to_vec(cached)?)?;
    dir.rename(&beside, dir, INFO_CACHE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn asks_once_until_something_changes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Dir::open_ambient_dir(dir.path(), cap_std::ambient_authority()).unwrap();
        let (stamp, asked) = (Cell::new(UNIX_EPOCH), Cell::new(0));
        let json = br#"{"graphRoot":"/g","runRoot":"/r","graphDriverName":"vfs","graphStatus":{}}"#;
        let ask = || {
            let key = || InfoKey { graph_root: Some(stamp.get()), ..InfoKey::default() };
            cached(Some(&cache), key, || {
                asked.set(asked.get() + 1);
                parse_info(json)
            })
            .unwrap()
        };
        let expected = PodmanInfo { graph_root: "/g".into(), run_root: "/r".into(), driver: "vfs".into() };
        assert_eq!((ask(), ask(), asked.get()), (expected.clone(), expected.clone(), 1));
        stamp.set(UNIX_EPOCH + Duration::from_nanos(1));
        assert_eq!((ask(), asked.get()), (expected.clone(), 2));
        cache.write(INFO_CACHE, "{").unwrap();
        assert_eq!((ask(), ask(), asked.get()), (expected.clone(), expected, 3));
        assert_eq!(
            parse_info(b"x").unwrap_err().to_string(),
            "podman info: unexpected output: expected value at line 1 column 1"
        );
    }
}
