//! Archives that were made to do harm, and that leave nothing.

#![allow(clippy::unwrap_used)]

use std::fs;

use proptest::prelude::*;

use super::testing::*;
use super::{Encoding, PackOptions, UnpackOptions, unpack};
use crate::error::Error;
use crate::limits::Limits;

#[test]
fn hostile_archives_are_refused_by_name() {
    let mode = |mode, raw: Raw| Raw { mode, ..raw };
    let long = "x".repeat(5000);
    let cases: Vec<(Vec<Raw>, &str)> = vec![
        (vec![file("/etc/cron.d/x", b"")], "/etc/cron.d/x has an absolute name"),
        (vec![file("../x", b"")], "../x leaves the skill"),
        (vec![file("a/../../x", b"")], "a/../../x leaves the skill"),
        (vec![directory("..")], ".. leaves the skill"),
        (vec![file("", b"")], "(unnamed) has no name"),
        (vec![file("a//b", b"")], "a//b has an empty part in its name"),
        (vec![file(b"a\xff", b"")], "a\\xff has a name that is not UTF-8"),
        (vec![pax(&[("path", "a\0b")]), file("a", b"")], "a\0b has a zero byte in its name"),
        (vec![pax(&[("path", "../x")]), file("a", b"")], "../x leaves the skill"),
        (vec![Raw { content: b"/abs\0".to_vec(), ..entry(b'L', "l") }, file("a", b"")], "/abs has an absolute name"),
        (vec![file("a/", b"")], "a/ is a file with the name of a directory"),
        (vec![file(".", b"")], ". is the skill's root, and not a directory"),
        (vec![entry(b'3', "null")], "null is a device"),
        (vec![entry(b'4', "sda")], "sda is a device"),
        (vec![entry(b'6', "pipe")], "pipe is a FIFO"),
        (vec![entry(b'S', "sparse")], "sparse is a sparse file"),
        (vec![entry(b'7', "c")], "c is of the unknown type '7'"),
        (vec![entry(b'V', "v")], "v is of the unknown type 'V'"),
        (vec![file(".wh.SKILL.md", b"")], ".wh.SKILL.md is a whiteout, which deletes another file"),
        (vec![file("a/.wh..wh..opq", b"")], "a/.wh..wh..opq is a whiteout, which deletes another file"),
        (vec![mode(0o4755, file("su", b""))], "su has the setuid bit"),
        (vec![mode(0o2755, directory("d"))], "d has the setgid bit"),
        (vec![mode(0o1777, directory("tmp"))], "tmp has the sticky bit"),
        (vec![file("a", b""), file("a", b"")], "a is in the archive twice"),
        (vec![file("a", b""), file("./a", b"")], "a is in the archive twice"),
        (vec![directory("a"), directory("a/")], "a is in the archive twice"),
        (vec![directory("./"), directory(".")], ". is in the archive twice"),
        (vec![directory("a"), file("a", b"")], "a is in the archive twice"),
        (vec![file("a", b""), directory("a")], "a is in the archive twice"),
        (vec![file("a/b", b""), file("a", b"")], "a is in the archive twice"),
        (vec![file("a", b""), file("a/b", b"")], "a/b is in a, which is not a directory"),
        (vec![link(b'2', "l", "d"), directory("d"), file("l/x", b"")], "l/x is in l, which is not a directory"),
        (vec![link(b'2', "l", "/etc")], "l -> /etc leads to nothing in the skill"),
        (vec![link(b'2', "l", "../x")], "l -> ../x leads to nothing in the skill"),
        (vec![link(b'2', "l", "")], "l ->  leads to nothing in the skill"),
        (vec![link(b'2', "l", "l")], "l -> l leads to nothing in the skill"),
        (vec![link(b'2', "l", "missing")], "l -> missing leads to nothing in the skill"),
        (vec![link(b'2', "l", b"\xff")], "l is a link to a name that is not UTF-8"),
        (
            // Each looks harmless by its text; together they lead out.
            vec![
                directory("t"),
                directory("a/b/c"),
                link(b'2', "a/b/c/x", "../../../t"),
                link(b'2', "a/b/c/y", "x/../../.."),
            ],
            "a/b/c/y -> x/../../.. leads to nothing in the skill",
        ),
        (vec![link(b'1', "h", "/etc/shadow")], "h -> /etc/shadow is a hard link to what cannot be in a skill"),
        (vec![link(b'1', "h", "../x")], "h -> ../x is a hard link to what cannot be in a skill"),
        (
            vec![link(b'1', "h", "later"), file("later", b"")],
            "h -> later is a hard link to what is not a file before it",
        ),
        (vec![directory("d"), link(b'1', "h", "d")], "h -> d is a hard link to what is not a file before it"),
        (
            vec![file("f", b""), link(b'2', "l", "f"), link(b'1', "h", "l")],
            "h -> l is a hard link to what is not a file before it",
        ),
        (vec![Raw { content: vec![0; 5], ..directory("d") }], "d has content, which only a file can have"),
        (vec![pax(&[("size", "0")]), file("a", b"xyz")], "a has two sizes"),
        (vec![pax(&[("size", "+3")]), file("a", b"xyz")], "pax has malformed PAX records"),
        (vec![pax(&[("path", "a"), ("path", "b")]), file("a", b"")], "pax gives a second name or size to one entry"),
        (vec![pax(&[("GNU.sparse.major", "1")]), file("a", b"")], "pax describes a sparse file"),
        (vec![Raw { content: b"99 path=x\n".to_vec(), ..entry(b'x', "pax") }], "pax has malformed PAX records"),
        (
            vec![Raw { kind: b'g', ..pax(&[("path", "x")]) }, file("a", b"")],
            "pax would rename or resize all entries after it",
        ),
        (
            vec![pax(&[("path", &long)]), file("a", b"")],
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx… has a path of 5000 bytes, and Linux opens none over 4096",
        ),
    ];
    for (entries, want) in cases {
        // Whatever is refused last, what came before it must not stay either.
        let entries = [vec![file("SKILL.md", b"harmless")], entries].concat();
        let (_dest, result) = unpack_tar(&archive(&entries), &UnpackOptions::default());
        let error = result.expect_err(want);
        assert_eq!(error.to_string(), want);
        assert!(matches!(error, Error::RefusedEntry { .. }), "{want}");
    }
}

#[test]
fn names_that_differ_by_case_are_refused_on_request() {
    let entries = [file("docs/README", b""), file("Docs/x", b"")];
    let fold = UnpackOptions { fold_case: true, ..Default::default() };
    let (_dest, result) = unpack_tar(&archive(&entries), &fold);
    assert_eq!(result.unwrap_err().to_string(), "Docs differs from docs only by case");
    let (_dest, result) = unpack_tar(&archive(&entries), &UnpackOptions::default());
    assert_eq!(result.unwrap().entries, 4);
}

#[test]
fn damaged_archives_are_told_from_hostile_ones() {
    let good = archive(&[file("a", &[7; 600]), file("b", b"")]);
    let mut checksum = good.clone();
    checksum[0] ^= 1;
    let mut huge = Vec::new();
    append(&mut huge, &entry(b'x', "pax"), 2 << 20);
    let cases: [(&[u8], &str); 6] = [
        (&checksum, "a header of its archive has a wrong checksum"),
        (&good[..512], "its archive ends in the middle of an entry"),
        (&good[..700], "its archive ends in the middle of an entry"),
        (&good[..1600], "its archive ends in the middle of an entry"),
        (&archive(&[pax(&[("path", "x")])]), "its archive ends in the middle of an entry"),
        (&huge, "an extended header has 2097152 bytes, at most 1048576"),
    ];
    for (bytes, want) in cases {
        let (_dest, result) = unpack_tar(bytes, &UnpackOptions::default());
        assert_eq!(result.unwrap_err().to_string(), format!("{} is damaged: {want}", digest(bytes)));
    }
}

#[test]
fn limits_name_their_flag() {
    let entries = archive(&[directory("a"), file("a/b/c", b"12"), file("d", b"3")]);
    let cases = [
        (Limits { size: 2, ..Limits::default() }, "the size of all files exceeds the limit of 2 bytes", "--max-size"),
        (Limits { entries: 3, ..Limits::default() }, "the number of entries exceeds the limit of 3", "--max-files"),
        (Limits { depth: 1, ..Limits::default() }, "the depth of a/b/c exceeds the limit of 1", "--max-depth"),
    ];
    for (limits, want, flag) in cases {
        let (_dest, result) = unpack_tar(&entries, &UnpackOptions { limits, ..Default::default() });
        let error = result.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.hint().unwrap()), (want, format!("raise it with {flag}")));
    }
    let limits = Limits { size: 3, entries: 4, depth: 2, ..Limits::default() };
    unpack_tar(&entries, &UnpackOptions { limits, ..Default::default() }).1.unwrap();
}

#[test]
fn bombs_are_stopped() {
    // The size is believed before the content is there, so a lie about it costs nothing.
    let mut claim = Vec::new();
    append(&mut claim, &file("huge", b""), 5 << 30);
    let (_dest, result) = unpack_tar(&claim, &UnpackOptions::default());
    assert_eq!(result.unwrap_err().to_string(), "the size of all files exceeds the limit of 4294967296 bytes");

    // Attributes that nobody counts are bytes that somebody inflates.
    let attribute = "x".repeat(900_000);
    let attributes = vec![pax(&[("SCHILY.xattr.user.x", &attribute)]); 3];
    let limits = Limits { size: 100, entries: 10, ..Limits::default() };
    let bytes = archive(&attributes);
    let (_dest, result) = unpack_tar(&bytes, &UnpackOptions { limits, ..Default::default() });
    let want = format!("the size of the archive in {} exceeds the limit of 1130596 bytes", digest(&bytes));
    assert_eq!(result.unwrap_err().to_string(), want);

    let root = tempfile::tempdir().unwrap();
    fs::File::create(root.path().join("zeros")).unwrap().set_len(80 << 20).unwrap();
    let (layer, _) = pack_with(root.path(), &PackOptions::default()).unwrap();
    let dest = tempfile::tempdir().unwrap();
    let expected = expected(&layer, Encoding::Gzip);
    let error = unpack(layer.as_slice(), &expected, &dir(dest.path()), "x", &UnpackOptions::default()).unwrap_err();
    let want = format!("the ratio of unpacked to packed bytes of {} exceeds the limit of 200", expected.digest);
    assert_eq!((error.to_string(), error.hint()), (want, Some("raise it with --max-ratio".into())));
    assert_eq!(listing(dest.path()), [""; 0]);
}

#[test]
fn what_follows_the_archive_is_verified_and_bounded() {
    let mut padded = archive(&[file("a", b"")]);
    padded.resize(padded.len() + 100_000, b'x');
    unpack_tar(&padded, &UnpackOptions::default()).1.unwrap();
    padded.resize(padded.len() + (1 << 20), b'x');
    let (_dest, result) = unpack_tar(&padded, &UnpackOptions::default());
    let want = format!("{} is damaged: more than 1048576 bytes follow its archive", digest(&padded));
    assert_eq!(result.unwrap_err().to_string(), want);
    // Several members are one stream, wherever they are cut.
    let plain = archive(&[file("a", b"content")]);
    let layer = [gzip(&plain[..100]), gzip(b""), gzip(&plain[100..])].concat();
    let dest = tempfile::tempdir().unwrap();
    unpack(layer.as_slice(), &expected(&layer, Encoding::Gzip), &dir(dest.path()), "x", &UnpackOptions::default())
        .unwrap();
    assert_eq!(fs::read_to_string(dest.path().join("x/a")).unwrap(), "content");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes are: no panic, no other error than the three kinds, and nothing left (as `unpack_tar` asserts).
    #[test]
    fn no_header_does_more_than_be_refused(
        mutations in prop::collection::vec((0..512usize, any::<u8>()), 0..6),
        kind in prop::sample::select(b"0125xgLKS\0".as_slice()),
        content in prop::collection::vec(any::<u8>(), 0..700),
    ) {
        let mut bytes = archive(&[Raw { content, ..entry(kind, "name") }, file("SKILL.md", b"")]);
        for (at, value) in mutations {
            bytes[at] = value;
        }
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let (_dest, result) = unpack_tar(&bytes, &UnpackOptions::default());
        if let Err(error) = result {
            let known = matches!(error, Error::RefusedEntry { .. } | Error::Damaged { .. } | Error::LimitExceeded { .. });
            // A component over 255 bytes is the file system's to refuse.
            prop_assert!(known || error.to_string().ends_with("File name too long (os error 36)"), "{}", error);
        }
    }
}
