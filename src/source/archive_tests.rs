use std::io::{Seek as _, Write as _};

use super::*;

/// A file of a zip archive, right or wrong.
#[derive(Clone)]
struct Member {
    name: Vec<u8>,
    local_name: Vec<u8>,
    content: Vec<u8>,
    mode: u32,
    host: u8,
    flags: u16,
    method: u16,
    crc: Option<u32>,
    size: Option<u32>,
    extra: Vec<u8>,
}

fn member(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Member {
    let name = name.as_ref().to_vec();
    let mode = if name.ends_with(b"/") { 0o040_755 } else { 0o100_644 };
    let content = content.as_ref().to_vec();
    Member {
        local_name: name.clone(),
        name,
        content,
        mode,
        host: 3,
        flags: 0,
        method: 0,
        crc: None,
        size: None,
        extra: Vec::new(),
    }
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes an archive; `between` goes before each of its parts, the first file, the others and the directory.
fn zip_with(members: &[Member], between: &[&[u8]]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (at, member) in members.iter().enumerate() {
        out.extend_from_slice(between.get(at).unwrap_or(&b"".as_slice()));
        let mut crc = Crc::new();
        crc.update(&member.content);
        let crc = member.crc.unwrap_or(crc.sum());
        let data = if member.method == 8 { deflate(&member.content) } else { member.content.clone() };
        let size = member.size.unwrap_or(member.content.len() as u32);
        let sizes = [crc, data.len() as u32, size].map(u32::to_le_bytes).concat();
        let place = out.len() as u32;
        let start = |name: &[u8]| {
            let mut bytes = [20, member.flags, member.method, 0, 0].map(u16::to_le_bytes).concat();
            bytes.extend_from_slice(&sizes);
            bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
            bytes
        };
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&start(&member.local_name));
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&member.local_name);
        out.extend_from_slice(&data);
        directory.extend_from_slice(b"PK\x01\x02");
        directory.extend_from_slice(&[20, member.host]);
        directory.extend_from_slice(&start(&member.name));
        directory.extend_from_slice(&(member.extra.len() as u16).to_le_bytes());
        directory.extend_from_slice(&[0; 6]);
        directory.extend_from_slice(&(member.mode << 16).to_le_bytes());
        directory.extend_from_slice(&place.to_le_bytes());
        directory.extend_from_slice(&member.name);
        directory.extend_from_slice(&member.extra);
    }
    out.extend_from_slice(between.get(members.len()).unwrap_or(&b"".as_slice()));
    let at = out.len() as u32;
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06");
    let count = members.len() as u16;
    out.extend_from_slice(&[0, 0, count, count].map(u16::to_le_bytes).concat());
    out.extend_from_slice(&[directory.len() as u32, at].map(u32::to_le_bytes).concat());
    out.extend_from_slice(&[0, 0]);
    out
}

use flate2::Crc;

fn zip(members: &[Member]) -> Vec<u8> {
    zip_with(members, &[])
}

fn read_with(bytes: &[u8], options: &Options) -> Result<Archive> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    super::read("a.zip", &file, tempfile::tempfile().unwrap(), options)
}

fn error(bytes: &[u8]) -> String {
    read_with(bytes, &Options::default()).map(drop).unwrap_err().to_string()
}

fn text(archive: &Archive, path: &str) -> (bool, String) {
    let mut text = String::new();
    let (stored, mut content) = archive.tree.below("").unwrap().open(path).unwrap();
    content.read_to_string(&mut text).unwrap();
    (stored.executable, text)
}

#[test]
fn archives_are_known_by_their_content() {
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let cases: [(&[u8], Result<Format, &str>); 12] = [
        (b"\x1f\x8b\x08", Ok(Format::TarGz)),
        (b"PK\x03\x04..", Ok(Format::Zip)),
        (b"PK\x05\x06..", Ok(Format::Zip)),
        (&tar, Ok(Format::Tar)),
        (b"\x28\xb5\x2f\xfd", Err("is a zstd file, which is not supported")),
        (b"\xfd7zXZ\0", Err("is an xz file, which is not supported")),
        (b"BZh9", Err("is a bzip2 file, which is not supported")),
        (b"7z\xbc\xaf\x27\x1c", Err("is a 7z archive, which is not supported")),
        (b"<!DOCTYPE html>", Err("is a page of HTML, which is not supported")),
        (b"", Err("is empty")),
        (b"---\nname: x\n", Err("is no archive that is known: it begins with \"---\\nname: x\\n\"")),
        (b"\0\x01", Err("is no archive that is known: it begins with \"\\x00\\x01\"")),
    ];
    for (start, want) in cases {
        assert_eq!(format(start), want.map_err(str::to_owned), "{}", start.escape_ascii());
    }
    let error = read_with(b"BZh", &Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "a.zip is a bzip2 file, which is not supported");
    assert!(error.hint().unwrap().starts_with("tar -czf"));
}

#[test]
fn tar_and_zip_are_read_alike() {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, content) in [("s/SKILL.md", 0o644, "skill"), ("s/run.sh", 0o755, "run")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let tar = builder.into_inner().unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).unwrap();
    let run = Member { mode: 0o100_755, method: 8, ..member("s/run.sh", "run") };
    let zipped = zip(&[member("s/", ""), member("s/SKILL.md", "skill"), run]);
    let all = [(tar, Format::Tar), (encoder.finish().unwrap(), Format::TarGz), (zipped, Format::Zip)];
    for (bytes, format) in all {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let options = Options { digest: Some(digest.clone()), ..Options::default() };
        let archive = read_with(&bytes, &options).unwrap();
        assert_eq!((archive.format, &archive.digest), (format, &digest));
        assert_eq!(archive.tree.with_file("SKILL.md"), ["s"]);
        assert_eq!(text(&archive, "s/SKILL.md"), (false, "skill".into()));
        assert_eq!(text(&archive, "s/run.sh"), (true, "run".into()));
        let options = Options { digest: Some("sha256:00".into()), ..Options::default() };
        let error = read_with(&bytes, &options).unwrap_err().to_string();
        assert_eq!(error, format!("a.zip has the digest {digest}, expected sha256:00"));
        let options = Options::default();
        options.cancel.cancel();
        assert_eq!(read_with(&bytes, &options).unwrap_err().to_string(), "interrupted");
    }
}

#[test]
fn links_are_kept_and_followed_inside() {
    let link = |target: &str| Member { mode: 0o120_777, ..member("link", target) };
    let archive = read_with(&zip(&[member("a", "text"), link("a")]), &Options::default()).unwrap();
    assert_eq!(text(&archive, "link"), (false, "text".into()));
    let archive = read_with(&zip(&[link("../etc/passwd")]), &Options::default()).unwrap();
    let packed = crate::layer::pack_tree(
        &archive.tree.below("").unwrap(),
        Vec::new(),
        crate::layer::Selection::AsDirectory,
        &crate::layer::PackOptions::default(),
    );
    assert_eq!(packed.unwrap_err().to_string(), "link -> ../etc/passwd leaves the skill");
    assert!(archive.tree.below("").unwrap().open("link").is_none());
}

#[test]
fn hostile_entries_are_refused() {
    let mode = |mode: u32| Member { mode, ..member("x", "") };
    let utf8 = |name: &[u8]| {
        let mut field = UNICODE.to_vec();
        field.extend_from_slice(&[(5 + name.len()) as u8, 0, 1, 0, 0, 0, 0]);
        field.extend_from_slice(name);
        field
    };
    const UNICODE: [u8; 2] = [0x75, 0x70];
    let cases = [
        (member("../x", ""), "../x leaves the skill"),
        (member("a/../../x", ""), "a/../../x leaves the skill"),
        (member("/etc/passwd", ""), "/etc/passwd has an absolute name"),
        (member(r"..\x", ""), r"..\x has a backslash in its name, which some take for a slash"),
        (member("a//b", ""), "a//b has an empty part in its name"),
        (member("", ""), "(unnamed) has no name"),
        (member("a\0b", ""), "a\0b has a zero byte in its name"),
        (member(b"a\xff", ""), r"a\xff has a name that is not UTF-8"),
        (member(".wh.x", ""), ".wh.x is a whiteout, which deletes another file"),
        (Member { flags: 1, ..member("x", "") }, "x is encrypted"),
        (Member { flags: 1 << 13, ..member("x", "") }, "x is encrypted"),
        (Member { method: 12, ..member("x", "") }, "x is compressed by the method 12, which is not supported"),
        (Member { extra: utf8(b"y"), ..member("x", "") }, "x has two names"),
        (Member { extra: vec![1, 0, 0, 0], ..member("x", "") }, "x is one of ZIP64, for larger files than are read"),
        (Member { local_name: b"y".to_vec(), ..member("x", "") }, "x is described in two ways"),
        (Member { size: Some(7), ..member("x", "1") }, "x has two sizes"),
        (mode(0o020_644), "x is a device"),
        (mode(0o060_644), "x is a device"),
        (mode(0o010_644), "x is a FIFO"),
        (mode(0o140_644), "x is a socket"),
        (mode(0o104_755), "x has the setuid bit"),
        (mode(0o040_755), "x is a directory with the name of a file"),
        (Member { mode: 0o100_644, ..member("x/", "") }, "x/ is a file with the name of a directory"),
        (member("x/", "1"), "x/ is a directory with content"),
        (mode(0o120_777), "x is a link to what is no name"),
        (Member { mode: 0o120_777, ..member("x", b"\xff") }, "x is a link to a name that is not UTF-8"),
        (Member { mode: 0o120_777, ..member("x", "y".repeat(5000)) }, "x is a link to a path that is too long"),
    ];
    for (member, want) in cases {
        assert_eq!(error(&zip(&[member])), format!("a.zip: {want}"));
    }
    let twice = "is in the archive twice, or differs from another only by case";
    for (pair, want) in [
        (["x", "x"], format!("x {twice}")),
        (["x", "./x"], format!("./x {twice}")),
        (["x", "X"], format!("X {twice}")),
        (["x", "x/"], format!("x/ {twice}")),
        (["x", "x/y"], "x is in a file or a link".into()),
    ] {
        assert_eq!(error(&zip(&pair.map(|name| member(name, "")))), format!("a.zip: {want}"), "{pair:?}");
    }
    let good = Member { extra: utf8(b"x"), ..member("x", "") };
    assert!(read_with(&zip(&[good]), &Options::default()).is_ok());
    // Elsewhere than on Unix there are no modes.
    let dos = Member { host: 0, mode: 0o104_755, ..member("x", "") };
    assert!(!text(&read_with(&zip(&[dos]), &Options::default()).unwrap(), "x").0);
}

#[test]
fn bytes_belong_to_one_entry() {
    let (a, b) = (member("a", "1"), member("b", "2"));
    let two = [a.clone(), b.clone()];
    let belong = "bytes that belong to no entry";
    assert_eq!(error(&zip_with(&two, &[b"PK\x03\x04"])).split(": ").last().unwrap(), format!("a follows {belong}"));
    assert_eq!(error(&zip_with(&two, &[b"", b"xx"])), format!("a.zip: a is followed by 2 {belong}"));
    assert_eq!(error(&zip_with(&two, &[b"", b"", b"xx"])), format!("a.zip: b is followed by 2 {belong}"));
    // What a writer says that did not know the size before.
    let streamed = Member { flags: 8, ..a.clone() };
    assert!(read_with(&zip_with(&[streamed], &[b"", &[0; 16]]), &Options::default()).is_ok());
    // Two entries of one file: a bomb, where there are many.
    let mut overlapping = zip(&[a.clone(), a.clone()]);
    let second = overlapping.windows(4).rposition(|four| four == b"PK\x01\x02").unwrap();
    overlapping[second + 42] = 0;
    overlapping[second + 46] = b'c';
    assert!(error(&overlapping).contains("a"), "{}", error(&overlapping));
    for len in 0..zip(&two).len() {
        assert!(read_with(&zip(&two)[..len], &Options::default()).is_err(), "{len}");
    }
    let mut more = zip(&two);
    more.push(0);
    assert_eq!(error(&more), "a.zip is damaged: its format: it does not end where its directory says");
    let mut counted = zip(&two);
    let end = counted.len() - 22;
    (counted[end + 8], counted[end + 10]) = (1, 1);
    assert_eq!(
        error(&counted),
        "a.zip is damaged: its format: its directory has another number of entries than it says"
    );
}

#[test]
fn contents_are_what_the_directory_says() {
    let packed = Member { method: 8, ..member("x", "some text, some text") };
    let cases = [
        (Member { crc: Some(1), ..member("x", "text") }, "x: its checksum is another one"),
        (Member { crc: Some(1), ..packed.clone() }, "x: its checksum is another one"),
        (Member { size: Some(5), ..packed.clone() }, "x: it has more than 5 bytes"),
        (Member { size: Some(50), ..packed.clone() }, "x: it has 20 bytes, expected 50"),
    ];
    for (member, want) in cases {
        assert_eq!(error(&zip(&[member])), format!("a.zip is damaged: {want}"));
    }
    let mut broken = zip(&[packed]);
    broken[31] = 0xff;
    assert!(error(&broken).starts_with("a.zip is damaged: x: "), "{}", error(&broken));
    // Bytes after the end of the compressed data that are counted as a part of it.
    assert!(error(&zip(&[Member { method: 8, content: Vec::new(), size: Some(1), ..member("y", "") }])).contains("y"));
}

#[test]
fn limits_hold_before_anything_is_inflated() {
    let zeros = Member { method: 8, ..member("x", vec![0; 1 << 20]) };
    let claims = Member { size: Some(u32::MAX - 1), ..zeros.clone() };
    let cases = [
        (
            zip(&[claims.clone(), Member { name: b"y".to_vec(), local_name: b"y".to_vec(), ..claims.clone() }]),
            Limits::default(),
            "the size of all files exceeds the limit of 4294967296 bytes",
        ),
        (zip(&[claims]), Limits::default(), "the ratio of unpacked to packed bytes exceeds the limit of 200"),
        (
            zip(&[zeros]),
            Limits { size: 1000, ..Limits::default() },
            "the size of all files exceeds the limit of 1000 bytes",
        ),
        (
            zip(&[member("a", ""), member("b", "")]),
            Limits { entries: 1, ..Limits::default() },
            "the number of entries exceeds the limit of 1",
        ),
        (
            zip(&[member("a/b/c", "")]),
            Limits { depth: 1, ..Limits::default() },
            "the depth of a/b/c exceeds the limit of 1",
        ),
    ];
    for (bytes, limits, want) in cases {
        let error = read_with(&bytes, &Options { limits, ..Options::default() }).unwrap_err().to_string();
        assert_eq!(error, format!("a.zip: {want}"));
    }
}

#[test]
fn damaged_archives_are_named() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"no archive at all, but long enough to be read as one: ").unwrap();
    encoder.write_all(&[1; 1024]).unwrap();
    let got = error(&encoder.finish().unwrap());
    assert_eq!(got, "a.zip is damaged: a header of its archive has a wrong checksum");
    assert_eq!(error(b"\x1f\x8b\x08\0\0"), "a.zip is damaged: it ends too early");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(at in 0..400_usize, byte: u8, cut in 0..400_usize) {
        let mut bytes = zip(&[member("a/", ""), Member { method: 8, ..member("a/b", "text text text") }, member("c", "x")]);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let _ = read_with(&bytes, &Options::default());
        bytes.truncate(cut);
        let _ = read_with(&bytes, &Options::default());
    }
}
