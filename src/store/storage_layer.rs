//! A layer of containers-storage as the archive that it was unpacked from: its files, and what tar-split kept of the rest.
//!
//! ```text
//! <graph root>/<driver>-layers/<layer>.tar-split.gz   JSON lines, in the order of the archive:
//!   {"type":2,"payload":"…"}                          bytes as they were: headers and padding, in base64
//!   {"type":1,"name":"SKILL.md","size":73}            the content of a file comes here
//! ```
//!
//! What comes out hashes to the diff ID of the layer, unless somebody has changed a file: whoever reads it checks that. The
//! files are opened beneath the layer's directory, and never through a link.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Cursor, Read};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use super::storage::Storage;
use super::storage_images::{Images, StorageImage};
use crate::error::{Error, Result};
use crate::image::Info;
use crate::layer::{Encoding, Expected};

/// Longest line: a segment is a header with its extensions, some KiB.
const MAX_LINE: u64 = 16 << 20;

/// A skill image that is in containers-storage.
#[derive(Debug)]
pub struct Loaded {
    /// Its manifest.
    pub info: Info,
    /// Digest of that.
    pub digest: String,
    /// What its one layer has to be, as an archive.
    pub expected: Expected,
    files: Dir,
    split: Vec<u8>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    name_raw: Option<String>,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    payload: Option<String>,
}

/// The kinds of lines.
const FILE: u8 = 1;
const SEGMENT: u8 = 2;

impl Storage {
    /// Returns an image of one layer, with all that its layer has to be; `None` where there is no such name.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for an image of several layers, or one whose files cannot be read here.
    pub fn loaded(&self, images: &Images, key: &str) -> Result<Option<Loaded>> {
        let Some(image) = images.lookup(key)? else { return Ok(None) };
        let digest = key.split_once('@').map(|(_, digest)| digest.to_owned()).or_else(|| image.digest.clone());
        let digest = digest.ok_or_else(|| Error::damaged(format!("image {key}"), "it has no manifest"))?;
        let info = Info::parse(&self.manifest(image, &digest)?, &digest)?;
        let unreadable = |what: &str| Error::Unavailable {
            reason: format!("{key} is in containers-storage, {what}"),
            hint: Some("pull or build it into the store".into()),
        };
        let layers = images.layers(image)?;
        let [layer] = layers[..] else { return Err(unreadable("and has not exactly one layer")) };
        let (Some(diff_id), Some(size)) = (self.diff_id(image)?, layer.diff_size) else {
            return Err(unreadable("without the digest of its layer"));
        };
        let files = self.open_diff(images, image)?;
        let split = self.layer_data(layer, &format!("{}.tar-split.gz", layer.id))?;
        let (Some(files), Some(split)) = (files, split) else {
            return Err(unreadable("where its files cannot be read"));
        };
        let expected = Expected { digest: diff_id.clone(), size, diff_id: Some(diff_id), encoding: Encoding::Tar };
        Ok(Some(Loaded { info, digest, expected, files, split }))
    }

    /// Returns the diff ID of an image's one layer, as its config has it.
    fn diff_id(&self, image: &StorageImage) -> Result<Option<String>> {
        let config: Option<oci_spec::image::ImageConfiguration> = serde_json::from_slice(&self.config(image)?).ok();
        Ok(config.and_then(|config| config.rootfs().diff_ids().first().cloned()))
    }
}

impl Loaded {
    /// Opens the archive. Whoever reads it checks it against [`Self::expected`].
    ///
    /// # Errors
    /// If a descriptor cannot be had.
    pub fn open(&self) -> Result<Box<dyn Read + Send>> {
        let files = self.files.try_clone().map_err(Error::io("a layer in containers-storage"))?;
        let lines = BufReader::new(MultiGzDecoder::new(Cursor::new(self.split.clone())));
        Ok(Box::new(Archive { files, lines: Box::new(lines), now: Box::new(io::empty()) }))
    }
}

/// The bytes of an archive, one line of tar-split after the other.
struct Archive {
    files: Dir,
    lines: Box<dyn io::BufRead + Send>,
    now: Box<dyn Read + Send>,
}

impl Archive {
    /// Goes to the next line; returns whether there is one.
    fn next(&mut self) -> io::Result<bool> {
        let mut line = Vec::new();
        self.lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(false);
        }
        let entry: Entry = serde_json::from_slice(&line)?;
        self.now = match (entry.kind, entry.size) {
            (SEGMENT, _) => Box::new(Cursor::new(decode(entry.payload.as_deref())?)),
            (FILE, 0) => Box::new(io::empty()),
            (FILE, size) => Box::new(self.open(&entry)?.take(size)),
            (kind, _) => return Err(io::Error::other(format!("tar-split has an entry of the unknown type {kind}"))),
        };
        Ok(true)
    }

    fn open(&self, entry: &Entry) -> io::Result<File> {
        let name = match (&entry.name, &entry.name_raw) {
            (Some(name), _) => name.into(),
            (None, raw) => std::ffi::OsString::from_vec(decode(raw.as_deref())?),
        };
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
        let file = self.files.open_with(name, &options)?.into_std();
        match nix::sys::stat::fstat(file.as_fd())?.st_mode & nix::libc::S_IFMT {
            nix::libc::S_IFREG => Ok(file),
            _ => Err(io::Error::other("a file of the layer has become something else")),
        }
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.now.read(buffer)? {
                0 if !buffer.is_empty() => {
                    if !self.next()? {
                        return Ok(0);
                    }
                }
                count => return Ok(count),
            }
        }
    }
}

fn decode(text: Option<&str>) -> io::Result<Vec<u8>> {
    STANDARD.decode(text.unwrap_or_default()).map_err(io::Error::other)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn archive(lines: &str, files: &tempfile::TempDir) -> Archive {
        let files = Dir::open_ambient_dir(files.path(), cap_std::ambient_authority()).unwrap();
        let lines = Box::new(Cursor::new(lines.to_owned().into_bytes()));
        Archive { files, lines, now: Box::new(io::empty()) }
    }

    #[test]
    fn segments_and_files_come_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "content").unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("etc")).unwrap();
        let head = "{\"type\":2,\"payload\":\"aGVhZA==\",\"position\":0}\n";
        let file =
            |name: &str, size: u64| format!("{{\"type\":1,\"name\":{name:?},\"size\":{size},\"payload\":\"eA==\"}}\n");
        let read = |lines: &str| {
            let mut text = String::new();
            archive(lines, &dir).read_to_string(&mut text).map(|_| text)
        };
        assert_eq!(read(&[head, &file("./a", 7), &file("d", 0), head].concat()).unwrap(), "headcontenthead");
        assert_eq!(read("{\"type\":1,\"name_raw\":\"YQ==\",\"size\":3}\n").unwrap(), "con");
        for name in ["missing", "link", "etc/passwd", "../a", "/etc/passwd", "d"] {
            assert!(read(&file(name, 7)).is_err(), "{name}");
        }
        for lines in ["{\"type\":3}\n", "{\"type\":2,\"payload\":\"!\"}\n", "no json\n"] {
            assert!(read(lines).is_err(), "{lines}");
        }
    }
}
