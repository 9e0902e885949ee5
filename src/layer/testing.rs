//! What the tests of this module share.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cap_std::fs::Dir;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::{Encoding, Expected, PackOptions, Packed, UnpackOptions, Unpacked, pack, unpack};
use crate::error::Result;

pub(super) fn dir(path: &Path) -> Dir {
    Dir::open_ambient_dir(path, cap_std::ambient_authority()).unwrap()
}

/// Makes a directory from paths, contents and modes; a path that ends in a slash is a directory.
pub(super) fn tree(entries: &[(&str, &[u8], u32)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content, mode) in entries {
        let at = root.path().join(path);
        fs::create_dir_all(if path.ends_with('/') { &at } else { at.parent().unwrap() }).unwrap();
        if !path.ends_with('/') {
            fs::write(&at, content).unwrap();
        }
        fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
    }
    root
}

pub(super) fn files(paths: &[&str]) -> TempDir {
    tree(&paths.iter().map(|path| (*path, b"x".as_slice(), 0o644)).collect::<Vec<_>>())
}

pub(super) fn pack_with(root: &Path, options: &PackOptions<'_>) -> Result<(Vec<u8>, Packed)> {
    let mut out = Vec::new();
    let packed = pack(&dir(root), &mut out, options)?;
    Ok((out, packed))
}

pub(super) fn pack_error(root: &Path, options: &PackOptions<'_>) -> String {
    pack_with(root, options).map(|_| ()).unwrap_err().to_string()
}

pub(super) fn include(patterns: &[&str]) -> PackOptions<'static> {
    PackOptions { include: patterns.iter().map(ToString::to_string).collect(), ..Default::default() }
}

/// Names in a layer, as an independent reader sees them.
pub(super) fn names(layer: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(layer));
    let entries = archive.entries().unwrap();
    entries.map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap()).collect()
}

pub(super) fn names_in(root: &Path, options: &PackOptions<'_>) -> (Vec<String>, u64) {
    let (layer, packed) = pack_with(root, options).unwrap();
    (names(&layer).split_off(1), packed.left_out)
}

/// Bytes that look like text, or like noise, and are the same everywhere.
pub(super) fn sample(len: usize, noise: bool) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let byte = (state >> 24) as u8;
        if noise { byte } else { b"etaoin shrdlu\n\n"[usize::from(byte) % 15] }
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub(super) fn expected(layer: &[u8], encoding: Encoding) -> Expected {
    Expected { digest: digest(layer), size: layer.len() as u64, diff_id: None, encoding }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn listing(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Unpacks a plain archive; on an error nothing may be left.
pub(super) fn unpack_tar(archive: &[u8], options: &UnpackOptions<'_>) -> (TempDir, Result<Unpacked>) {
    let dest = tempfile::tempdir().unwrap();
    let result = unpack(archive, &expected(archive, Encoding::Tar), &dir(dest.path()), "skill", options);
    let left = if result.is_ok() { vec!["skill"] } else { vec![] };
    assert_eq!(listing(dest.path()), left, "{result:?}");
    (dest, result)
}

/// One raw entry: the header as given, right or wrong, and its content.
#[derive(Clone)]
pub(super) struct Raw {
    pub(super) name: Vec<u8>,
    pub(super) kind: u8,
    pub(super) target: Vec<u8>,
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
}

pub(super) fn entry(kind: u8, name: impl AsRef<[u8]>) -> Raw {
    let mode = if kind == b'5' { 0o755 } else { 0o644 };
    Raw { name: name.as_ref().to_vec(), kind, target: Vec::new(), mode, content: Vec::new() }
}

pub(super) fn file(name: impl AsRef<[u8]>, content: &[u8]) -> Raw {
    Raw { content: content.to_vec(), ..entry(b'0', name) }
}

pub(super) fn directory(name: &str) -> Raw {
    entry(b'5', name)
}

pub(super) fn link(kind: u8, name: &str, target: impl AsRef<[u8]>) -> Raw {
    Raw { target: target.as_ref().to_vec(), ..entry(kind, name) }
}

pub(super) fn pax(records: &[(&str, &str)]) -> Raw {
    let text: String = records.iter().map(|(key, value)| super::pax::record(key, value)).collect();
    Raw { content: text.into_bytes(), ..entry(b'x', "pax") }
}

pub(super) fn append(out: &mut Vec<u8>, raw: &Raw, size: u64) {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..raw.name.len()].copy_from_slice(&raw.name);
    header.as_old_mut().linkname[..raw.target.len()].copy_from_slice(&raw.target);
    header.set_mode(raw.mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_entry_type(EntryType::new(raw.kind));
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&raw.content);
    out.resize(out.len().next_multiple_of(512), 0);
}

pub(super) fn archive(entries: &[Raw]) -> Vec<u8> {
    let mut out = Vec::new();
    entries.iter().for_each(|raw| append(&mut out, raw, raw.content.len() as u64));
    out.resize(out.len() + 1024, 0);
    out
}
