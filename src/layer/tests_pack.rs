//! What a layer is made of.

#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::num::NonZero;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::testing::*;
use super::{PackOptions, pack};
use crate::error::Error;
use crate::limits::Limits;

/// Digests of [`golden`]. A change here is a new digest for every image that users rebuild: say so in CHANGELOG.md.
const GOLDEN: &str = "sha256:2880bb6690fb9820d193ab18e6dae5b79001371873f64d00ccad467dac7f3174";

const GOLDEN_DIFF: &str = "sha256:0e2d98c3ba347eb1e9858c5fba43c631ded09727c5a855d97594903aefad2054";

fn golden(shuffled: bool) -> TempDir {
    let (text, noise) = (sample(2_500_000, false), sample(1_500_000, true));
    let long = format!("deep/{}/{}.md", "d".repeat(90), "f".repeat(90));
    let longer = format!("deep/{}/x.md", "d".repeat(200));
    let mut entries: Vec<(&str, &[u8], u32)> = vec![
        ("SKILL.md", b"---\nname: golden\n---\n", 0o644),
        ("empty/", b"", 0o755),
        ("grün.txt", b"", 0o644),
        (&long, b"long", 0o644),
        (&longer, b"longer", 0o644),
        ("noise.bin", &noise, 0o644),
        ("scripts/run.sh", b"#!/bin/sh\n", 0o755),
        ("skill.yaml", b"apiVersion: x\n", 0o644),
        ("text.txt", &text, 0o644),
    ];
    if shuffled {
        entries.reverse();
        for (_, _, mode) in &mut entries {
            *mode &= 0o700;
        }
    }
    tree(&entries)
}

#[test]
fn a_layer_depends_on_the_content_only() {
    let plain = golden(false);
    let (layer, packed) = pack_with(plain.path(), &PackOptions::default()).unwrap();
    let shuffled = golden(true);
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    File::open(shuffled.path().join("text.txt")).unwrap().set_modified(old).unwrap();
    for threads in 1..=8 {
        let options = PackOptions { threads: NonZero::new(threads), ..Default::default() };
        let (again, also) = pack_with(shuffled.path(), &options).unwrap();
        assert!(again == layer, "{threads} threads");
        assert_eq!(also, packed);
    }
    assert_eq!((packed.files, packed.bytes, packed.left_out), (8, 4_000_055, 0));
    assert_eq!((packed.digest.as_str(), packed.diff_id.as_str()), (GOLDEN, GOLDEN_DIFF));
    assert_eq!(packed.size, layer.len() as u64);
}

#[test]
fn sums_are_those_of_the_bytes() {
    use sha2::{Digest as _, Sha256};
    let root = golden(false);
    let (layer, packed) = pack_with(root.path(), &PackOptions::default()).unwrap();
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(layer.as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(packed.digest, format!("sha256:{}", hex::encode(Sha256::digest(&layer))));
    assert_eq!(packed.diff_id, format!("sha256:{}", hex::encode(Sha256::digest(&plain))));
    assert_eq!(packed.diff_size, plain.len() as u64);
    assert_eq!(&layer[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
}

#[test]
fn noise_is_stored_and_text_is_not() {
    let root = tree(&[("noise", &sample(3 << 20, true), 0o644)]);
    let (_, packed) = pack_with(root.path(), &PackOptions::default()).unwrap();
    assert!(packed.size > 3 << 20 && packed.size < (3 << 20) + 4096, "{}", packed.size);
    let root = tree(&[("text", &sample(3 << 20, false), 0o644)]);
    let (_, packed) = pack_with(root.path(), &PackOptions::default()).unwrap();
    assert!(packed.size < 2 << 20, "{}", packed.size);
}

#[test]
fn headers_say_nothing_about_the_host() {
    let root = tree(&[
        ("a.sh", b"1", 0o710),
        ("SKILL.md", b"22", 0o600),
        ("scripts/b", b"", 0o444),
        ("scripts.md", b"", 0o4755),
        ("empty/", b"", 0o700),
    ]);
    let options = PackOptions { mtime: 1_700_000_000, ..Default::default() };
    let (layer, _) = pack_with(root.path(), &options).unwrap();
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(layer.as_slice()));
    let mut got = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert!(header.as_ustar().is_some());
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 1_700_000_000));
        assert_eq!((header.username_bytes().unwrap(), header.groupname_bytes().unwrap()), (&b""[..], &b""[..]));
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        got.push((name, header.mode().unwrap(), entry.size()));
    }
    let want = [
        ("./", 0o755, 0),
        ("SKILL.md", 0o644, 2),
        ("a.sh", 0o755, 1),
        ("empty/", 0o755, 0),
        ("scripts/", 0o755, 0),
        ("scripts/b", 0o644, 0),
        ("scripts.md", 0o755, 0),
    ];
    assert_eq!(got, want.map(|(name, mode, size)| (name.to_owned(), mode, size)));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    for grow in [true, false] {
        let root = tree(&[("SKILL.md", b"", 0o644), ("log", &sample(2 << 20, false), 0o644)]);
        let log = File::options().append(true).open(root.path().join("log")).unwrap();
        let done = Cell::new(false);
        let change = |_| {
            if !done.replace(true) {
                log.set_len(if grow { 3 << 20 } else { 1000 }).unwrap();
            }
        };
        let options = PackOptions { progress: Some(&change), ..Default::default() };
        assert_eq!(pack_error(root.path(), &options), "log changed while it was read");
    }
}

#[test]
fn a_file_that_vanishes_is_named() {
    let root = tree(&[("a", b"x", 0o644), ("b", b"x", 0o644)]);
    let vanish = |_| fs::remove_file(root.path().join("b")).unwrap();
    let options = PackOptions { progress: Some(&vanish), ..Default::default() };
    let error = pack_with(root.path(), &options).unwrap_err();
    assert!(matches!(&error, Error::Io { object, cause } if object == "b" && cause.kind() == io::ErrorKind::NotFound));
}

#[test]
fn limits_name_their_flag() {
    let root = files(&["a/b/c/d", "e", "f"]);
    let cases = [
        (Limits { size: 2, ..Limits::default() }, "the size of all files exceeds the limit of 2 bytes", "--max-size"),
        (Limits { entries: 5, ..Limits::default() }, "the number of entries exceeds the limit of 5", "--max-files"),
        (Limits { depth: 2, ..Limits::default() }, "the depth of a/b/c exceeds the limit of 2", "--max-depth"),
    ];
    for (limits, want, flag) in cases {
        let error = pack_with(root.path(), &PackOptions { limits, ..Default::default() }).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.hint().unwrap()), (want, format!("raise it with {flag}")));
    }
    let exact = Limits { size: 3, entries: 6, depth: 3, ..Limits::default() };
    pack_with(root.path(), &PackOptions { limits: exact, ..Default::default() }).unwrap();
}

/// Fails after some bytes, as a full disk does.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_and_a_cancellation_end_the_work() {
    let root = tree(&[("noise", &sample(12 << 20, true), 0o644)]);
    for threads in [1, 2, 4] {
        for room in [0, 2 << 20, 12 << 20] {
            let options = PackOptions { threads: NonZero::new(threads), ..Default::default() };
            let error = pack(&dir(root.path()), Full(room), &options).unwrap_err();
            assert!(matches!(&error, Error::Io { cause, .. } if cause.kind() == io::ErrorKind::StorageFull), "{error}");
        }
        let cancelled = AtomicBool::new(false);
        let cancel = |read| cancelled.store(read > 5 << 20, std::sync::atomic::Ordering::Relaxed);
        let (threads, cancelled) = (NonZero::new(threads), Some(&cancelled));
        let options = PackOptions { threads, cancelled, progress: Some(&cancel), ..Default::default() };
        let error = pack(&dir(root.path()), io::sink(), &options).unwrap_err();
        assert!(matches!(&error, Error::Io { cause, .. } if cause.kind() == io::ErrorKind::Interrupted), "{error}");
    }
}
