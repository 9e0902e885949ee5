//! What comes out of a layer.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::testing::*;
use super::{Encoding, Expected, Kind, PackOptions, UnpackOptions, Unpacked, read, unpack};
use crate::error::Error;

#[test]
fn what_other_tools_write_is_accepted() {
    let long = format!("deep/{}", "n".repeat(200));
    let entries = [
        Raw { kind: b'g', ..pax(&[("comment", "a commit")]) },
        directory("./"),
        file("./SKILL.md", b"skill"),
        file("late/file", b"1"),
        directory("late"),
        Raw { mode: 0o100, ..file("run", b"2") },
        Raw { kind: 0, ..file("old", b"3") },
        Raw { content: [long.as_bytes(), b"\0"].concat(), ..entry(b'L', "././@LongLink") },
        file("cut", b"4"),
        link(b'1', "late/hard", "./SKILL.md"),
        link(b'2', "late/soft", "../SKILL.md"),
        link(b'2', "here", "late"),
        pax(&[("path", "grün"), ("mtime", "1.5"), ("SCHILY.xattr.user.x", "a\nb"), ("size", "5")]),
        file("pax", b"56789"),
    ];
    let (dest, result) = unpack_tar(&archive(&entries), &UnpackOptions { durable: true, ..Default::default() });
    let root = dest.path().join("skill");
    let counts = |unpacked: &Unpacked| (unpacked.entries, unpacked.files, unpacked.bytes);
    assert_eq!(counts(&result.unwrap()), (12, 6, 14));
    for (path, content) in [
        ("SKILL.md", "skill"),
        ("late/hard", "skill"),
        ("late/soft", "skill"),
        ("here/file", "1"),
        (&long, "4"),
        ("grün", "56789"),
    ] {
        assert_eq!(fs::read_to_string(root.join(path)).unwrap(), content, "{path}");
    }
    for (path, mode) in [("", 0o755), ("late", 0o755), ("deep", 0o755), ("run", 0o755), ("old", 0o644)] {
        assert_eq!(fs::metadata(root.join(path)).unwrap().mode() & 0o7777, mode, "{path}");
    }
}

#[test]
fn a_layer_that_is_another_one_is_not_published() {
    for size in [1000, 3 << 20] {
        let root = tree(&[("SKILL.md", &sample(size, false), 0o644)]);
        let (layer, packed) = pack_with(root.path(), &PackOptions::default()).unwrap();
        let mut flipped = layer.clone();
        flipped[layer.len() / 2] ^= 1;
        let mut longer = layer.clone();
        longer.extend_from_slice(&gzip(b"more"));
        let right = Expected { diff_id: Some(packed.diff_id.clone()), ..expected(&layer, Encoding::Gzip) };
        let other = Expected { digest: digest(b""), ..right.clone() };
        let other_diff = Expected { diff_id: Some(digest(b"")), ..right.clone() };
        let plain = Expected { encoding: Encoding::Tar, ..right.clone() };
        let half = layer.len() / 2;
        let cases: [(&[u8], &Expected, Option<String>); 7] = [
            (&flipped, &right, None),
            (&layer[..half], &right, Some("it ends too early".into())),
            (&longer, &right, Some(format!("it has more than the expected {} bytes", layer.len()))),
            (&layer, &other, Some(format!("its digest is {}", right.digest))),
            (&layer, &other_diff, Some(format!("its diff ID is {}, expected {}", packed.diff_id, digest(b"")))),
            (&layer, &plain, Some("a header of its archive has a wrong checksum".into())),
            (b"", &right, Some("it ends too early".into())),
        ];
        for (bytes, expected, reason) in cases {
            let dest = tempfile::tempdir().unwrap();
            fs::create_dir(dest.path().join("skill")).unwrap();
            fs::write(dest.path().join("skill/old"), "").unwrap();
            let options = UnpackOptions { replace: true, ..Default::default() };
            let error = unpack(bytes, expected, &dir(dest.path()), "skill", &options).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
            if let Some(reason) = reason {
                assert_eq!(error.to_string(), format!("{} is damaged: {reason}", expected.digest));
            }
            assert_eq!(
                (listing(dest.path()), listing(&dest.path().join("skill"))),
                (vec!["skill".into()], vec!["old".into()])
            );
        }
    }
}

#[test]
fn an_old_directory_is_replaced_as_a_whole_or_not_at_all() {
    let bytes = archive(&[file("new", b"")]);
    let want = expected(&bytes, Encoding::Tar);
    let dest = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "").unwrap();
    let run = |name: &str, replace| {
        let options = UnpackOptions { replace, ..Default::default() };
        unpack(bytes.as_slice(), &want, &dir(dest.path()), name, &options)
    };
    fs::create_dir_all(dest.path().join("skill/old")).unwrap();
    assert_eq!(run("skill", false).unwrap_err().to_string(), "skill exists already");
    assert_eq!(listing(&dest.path().join("skill")), ["old"]);
    assert_eq!(run("skill", true).unwrap().leftover, None);
    assert_eq!(listing(&dest.path().join("skill")), ["new"]);
    // A link in its place is replaced, and what it leads to is not touched.
    symlink(outside.path(), dest.path().join("link")).unwrap();
    run("link", true).unwrap();
    assert!(dest.path().join("link").symlink_metadata().unwrap().is_dir());
    assert_eq!(listing(outside.path()), ["precious"]);
    run(&"n".repeat(255), false).unwrap();
    assert_eq!(listing(dest.path()), ["link", &"n".repeat(255), "skill"]);
    for name in ["", ".", "..", "a/b", "/x"] {
        assert_eq!(run(name, true).unwrap_err().to_string(), format!("{name} is not the name of a directory"));
    }
}

#[test]
fn a_failing_reader_and_a_cancellation_leave_nothing() {
    let root = tree(&[("noise", &sample(4 << 20, true), 0o644)]);
    let (layer, _) = pack_with(root.path(), &PackOptions::default()).unwrap();
    let want = expected(&layer, Encoding::Gzip);
    let dest = tempfile::tempdir().unwrap();
    let broken = layer[..2 << 20].chain(Failing);
    let error = unpack(broken, &want, &dir(dest.path()), "x", &UnpackOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::Io { cause, .. } if cause.kind() == io::ErrorKind::ConnectionReset), "{error}");
    let cancelled = AtomicBool::new(false);
    let cancel = |written| cancelled.store(written > 1 << 20, std::sync::atomic::Ordering::Relaxed);
    let options = UnpackOptions { cancelled: Some(&cancelled), progress: Some(&cancel), ..Default::default() };
    let error = unpack(layer.as_slice(), &want, &dir(dest.path()), "x", &options).unwrap_err();
    assert!(matches!(&error, Error::Io { cause, .. } if cause.kind() == io::ErrorKind::Interrupted), "{error}");
    assert_eq!(listing(dest.path()), [""; 0]);
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

#[test]
fn reading_shows_entries_and_contents() {
    let bytes = archive(&[directory("d"), file("d/a", b"one"), file("b", b"skipped"), link(b'2', "l", "/anywhere")]);
    let mut got = Vec::new();
    let options = UnpackOptions::default();
    let unpacked = read(bytes.as_slice(), &expected(&bytes, Encoding::Tar), &options, &mut |entry, content| {
        let text = if entry.path == "d/a" { content.read_all()? } else { Vec::new() };
        got.push((entry.path.clone(), entry.kind.clone(), text));
        Ok(())
    });
    assert_eq!((unpacked.unwrap().bytes, got.len()), (10, 4));
    assert_eq!(got[1], ("d/a".into(), Kind::File, b"one".to_vec()));
    assert_eq!(got[3].1, Kind::Symlink("/anywhere".into()));
}

/// Paths, and modes and contents of files; what a directory's mode was before depends on the umask.
type Contents = BTreeMap<String, Option<(u32, Vec<u8>)>>;

fn contents(root: &Path, at: &Path, all: &mut Contents) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let mode = metadata.permissions().mode() & 0o777;
        let content = metadata.is_file().then(|| (mode, fs::read(&path).unwrap()));
        all.insert(name, content);
        if metadata.is_dir() {
            contents(root, &path, all);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_packed_comes_out(
        files in prop::collection::btree_map(
            ("([a-zé ]{1,30}/){0,6}", "[A-Z][A-Z0-9._é\\n-]{1,120}1"),
            (prop::collection::vec(any::<u8>(), 0..3000), 0..60usize, any::<bool>()),
            0..25,
        ),
        threads in 1..4usize,
    ) {
        let root = tempfile::tempdir().unwrap();
        for ((above, name), (unit, times, executable)) in &files {
            let path = root.path().join(above).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, unit.repeat(*times)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(if *executable { 0o755 } else { 0o644 })).unwrap();
        }
        let options = PackOptions { threads: std::num::NonZero::new(threads), ..Default::default() };
        let (layer, packed) = pack_with(root.path(), &options).unwrap();
        let dest = tempfile::tempdir().unwrap();
        let (digest, size) = (packed.digest.clone(), packed.size);
        let expected = Expected { digest, size, diff_id: Some(packed.diff_id.clone()), encoding: Encoding::Gzip };
        let options = UnpackOptions { fold_case: false, ..Default::default() };
        let unpacked = unpack(layer.as_slice(), &expected, &dir(dest.path()), "out", &options).unwrap();
        prop_assert_eq!((unpacked.files, unpacked.bytes), (packed.files, packed.bytes));
        let (mut before, mut after) = (Contents::new(), Contents::new());
        contents(root.path(), root.path(), &mut before);
        let out = dest.path().join("out");
        contents(&out, &out, &mut after);
        prop_assert!(before == after);
        prop_assert_eq!(pack_with(&out, &PackOptions::default()).unwrap().1, packed);
    }
}
