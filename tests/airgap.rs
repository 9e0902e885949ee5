//! Sets that are saved and loaded without the network: what they have, what refuses them, and what an interruption leaves.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Ran, World};

const HR: &str = "acme/hr:1.0.0-draft";
const LEGAL: &str = "acme/legal:1.0.0-draft";
const NAMES: [&str; 2] = [HR, LEGAL];

fn run(world: &World, args: &[&str]) -> Ran {
    world.command(args).env("COSIGN_PASSWORD", "secret").output().unwrap().into()
}

/// A world with two skills that `acme` has signed, and the key `other`.
fn world() -> World {
    let world = World::new();
    for name in ["acme", "other"] {
        run(&world, &["key", "generate", name]).ok();
    }
    for name in ["hr", "legal"] {
        world.skill(name, "1.0.0");
        world.build(name);
        run(&world, &["sign", &format!("acme/{name}:1.0.0-draft"), "--key", "acme.key"]).ok();
    }
    world
}

/// Runs a command on a store of its own, as another host has it.
fn there(world: &World, store: &str, args: &[&str]) -> Ran {
    run(world, &[&["--store", store], args].concat())
}

/// Returns the names that a store has.
#[track_caller]
fn names(world: &World, store: &str) -> Vec<String> {
    let rows = there(world, store, &["list", "--format", "json"]).ok().json();
    rows.as_array().unwrap().iter().map(|row| row["reference"].as_str().unwrap().to_owned()).collect()
}

fn load<'a>(input: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    [&["load", "--verify", "--key", "acme.pub", "--load=never", "-i", input], flags].concat()
}

/// The files of an archive, in its order.
type Files = Vec<(String, Vec<u8>)>;

fn unpack(path: &Path) -> Files {
    let mut archive = tar::Archive::new(File::open(path).unwrap());
    let read = |entry: std::io::Result<tar::Entry<'_, File>>| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    };
    archive.entries().unwrap().map(read).filter(|(path, _)| !path.ends_with('/')).collect()
}

fn header(path: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    // As an attacker writes it: the crate refuses some of these.
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn pack(files: &Files) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, bytes) in files {
        tar.extend_from_slice(header(path, tar::EntryType::Regular, bytes.len() as u64).as_bytes());
        tar.extend_from_slice(bytes);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// Changes the index of an archive.
fn with_index(files: &Files, change: impl FnOnce(&mut Vec<Value>)) -> Files {
    let mut files = files.clone();
    let (_, bytes) = files.iter_mut().find(|(path, _)| path == "index.json").unwrap();
    let mut index: Value = serde_json::from_slice(bytes).unwrap();
    change(index["manifests"].as_array_mut().unwrap());
    *bytes = index.to_string().into_bytes();
    files
}

fn name_of(entry: &Value) -> &str {
    entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or_default()
}

#[test]
fn a_set_is_loaded_with_its_signatures_by_every_way() {
    let world = world();
    let save = |to: &str, names: &[&str]| run(&world, &[&["save", "-o", to], names].concat());
    let saved = save("skills.bundle", &NAMES).ok().stdout;
    assert!(
        saved
            .starts_with("Saved acme/hr:1.0.0-draft\nSaved acme/legal:1.0.0-draft\nLayout: skills.bundle   2 images, ")
    );
    let archive = fs::read(world.path("skills.bundle")).unwrap();
    // The same whatever the order, and to stdout.
    let piped = world.command(["save", "-o", "-", LEGAL, HR]).output().unwrap();
    assert!(piped.status.success() && piped.stdout == archive);
    save("layout/", &NAMES).ok();
    let packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let packed = {
        let mut packed = packed;
        packed.write_all(&archive).unwrap();
        packed.finish().unwrap()
    };
    world.write("skills.tar.gz", packed);
    let said = "acme/hr:1.0.0-draft     verified, in the store\nacme/legal:1.0.0-draft  verified, in the store\n";
    for (store, input) in [("a", "skills.bundle"), ("b", "layout"), ("c", "skills.tar.gz"), ("d", "-")] {
        let mut command = world.command([&["--store", store], &*load(input, &[])].concat());
        if input == "-" {
            command.stdin(File::open(world.path("skills.bundle")).unwrap());
        }
        let loaded: Ran = command.output().unwrap().into();
        assert_eq!(loaded.ok().stdout, said, "{input}");
        assert_eq!(names(&world, store), NAMES, "{input}");
        there(&world, store, &["fsck"]).ok();
        for name in NAMES {
            let verified = there(&world, store, &["verify", name, "--key", "acme.pub", "--format", "json"]).ok().json();
            assert_eq!(verified["signers"].as_array().unwrap().len(), 2, "{input}");
        }
        // All of it stays, and a rerun changes nothing.
        there(&world, store, &["prune", "--grace", "0"]).ok();
        let index = fs::read(world.path(store).join("index.json")).unwrap();
        there(&world, store, &load("skills.bundle", &[])).ok();
        there(&world, store, &["fsck"]).ok();
        let entries =
            |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap()["manifests"].as_array().unwrap().len();
        assert_eq!(entries(&fs::read(world.path(store).join("index.json")).unwrap()), entries(&index));
        // What is saved again there is the same.
        there(&world, store, &["save", "-o", "again", HR, LEGAL]).ok();
        assert!(fs::read(world.path("again")).unwrap() == archive, "{input}");
        assert_eq!(fs::read_dir(world.path(store).join(".tmp")).unwrap().count(), 0, "{input}");
    }
    // One of them; by the name that podman has for it, and with JSON.
    let rows =
        there(&world, "e", &load("skills.bundle", &["--format", "json", "localhost/acme/legal:1.0.0-draft"])).ok();
    let rows = rows.json();
    assert_eq!(
        (rows[0]["reference"].as_str(), &rows[0]["verified"], &rows[0]["loaded"]),
        (Some(LEGAL), &json!(true), &json!(false))
    );
    assert_eq!(rows[0]["signers"].as_array().unwrap().len(), 2);
    assert_eq!(names(&world, "e"), [LEGAL]);
    let missing = there(&world, "e", &load("skills.bundle", &["acme/none:1"])).fails(2).stderr;
    assert!(missing.contains("skills.bundle: it has no acme/none:1"), "{missing}");
}

#[test]
fn a_set_says_what_tools_of_others_look_for() {
    let world = world();
    run(&world, &["save", "-o", "d/", HR]).ok();
    let index: Value = serde_json::from_slice(&fs::read(world.path("d/index.json")).unwrap()).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    let digest = entries.iter().find(|entry| name_of(entry) == HR).unwrap()["digest"].as_str().unwrap();
    let tag = digest.replace(':', "-");
    let named: Vec<&str> = entries.iter().map(name_of).filter(|name| !name.is_empty()).collect();
    assert_eq!(named, [HR.to_owned(), format!("{tag}.sig"), tag.clone()]);
    let blob = |digest: &Value| -> Value {
        let path = format!("d/blobs/{}", digest.as_str().unwrap().replace(':', "/"));
        serde_json::from_slice(&fs::read(world.path(path)).unwrap()).unwrap()
    };
    let fallback = blob(&entries.iter().find(|entry| name_of(entry) == tag).unwrap()["digest"]);
    let bundle = &fallback["manifests"][0];
    assert_eq!(bundle["artifactType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    assert_eq!(blob(&bundle["digest"])["subject"]["digest"], digest);
    assert!(entries.iter().any(|entry| name_of(entry).is_empty() && entry["digest"] == bundle["digest"]));
    let set = entries.iter().find(|entry| entry["artifactType"] == "application/vnd.skillimage.set.v1").unwrap();
    assert_eq!((name_of(&blob(&set["digest"])["manifests"][0]), name_of(set)), (HR, ""));
}

#[test]
fn images_of_all_platforms_are_signed_there_too() {
    let world = world();
    world.run(["build", "hr", "--load=never", "--platform", "all"]).ok();
    run(&world, &["sign", HR, "--key", "acme.key"]).ok();
    run(&world, &["save", "-o", "set", HR]).ok();
    there(&world, "a", &load("set", &[])).ok();
    there(&world, "a", &["fsck"]).ok();
    let index: Value = serde_json::from_slice(&fs::read(world.path("a/index.json")).unwrap()).unwrap();
    let subjects = index["manifests"].as_array().unwrap().iter();
    let subjects = subjects.filter(|entry| entry["annotations"]["io.skillimage.subject"].is_string());
    assert_eq!(subjects.count(), 12, "two forms for the index and each of five images");
    there(&world, "a", &["save", "-o", "again", HR]).ok();
    assert_eq!(fs::read(world.path("again")).unwrap(), fs::read(world.path("set")).unwrap());
}

/// Refused with this status and words, and nothing of it is in the store.
#[track_caller]
fn refused(world: &World, args: &[&str], status: i32, words: &[&str]) {
    let error = there(world, "there", args).fails(status).stderr;
    assert!(error.lines().filter(|line| line.starts_with("error: ")).count() == 1, "{error}");
    assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    assert_eq!(names(world, "there"), [""; 0], "{error}");
    let blobs = fs::read_dir(world.path("there/blobs/sha256")).map_or(0, Iterator::count);
    let unfinished = fs::read_dir(world.path("there/.tmp")).map_or(0, Iterator::count);
    assert_eq!((blobs, unfinished), (0, 0), "{error}");
}

#[test]
fn what_was_cut_off_or_altered_is_refused() {
    let world = world();
    run(&world, &["save", "-o", "set", HR, LEGAL]).ok();
    let whole = fs::read(world.path("set")).unwrap();
    let files = unpack(&world.path("set"));
    let end = whole.len() - 1024;
    for length in (0..end).step_by(1536).chain([1, 600, end - 1]) {
        world.write("bad", &whole[..length]);
        refused(&world, &load("bad", &[]), 2, &["bad"]);
    }
    for (at, (path, bytes)) in files.iter().enumerate() {
        let Some(hex) = path.strip_prefix("blobs/sha256/") else { continue };
        let mut altered = files.clone();
        altered[at].1[bytes.len() / 2] ^= 1;
        world.write("bad", pack(&altered));
        refused(&world, &load("bad", &[]), 2, &["bad: blob sha256:", hex, "has the digest"]);
        let mut missing = files.clone();
        missing.remove(at);
        world.write("bad", pack(&missing));
        refused(&world, &load("bad", &[]), 2, &["bad: ", hex, "is missing"]);
        // In a directory, where only what is needed is looked at.
        fs::remove_dir_all(world.path("dir")).ok();
        for (path, bytes) in &altered {
            world.write(&format!("dir/{path}"), bytes);
        }
        refused(&world, &load("dir", &[]), 2, &["dir: blob sha256:", hex]);
    }
}

#[test]
fn what_could_mean_two_things_or_do_harm_is_refused() {
    let world = world();
    run(&world, &["save", "-o", "set", HR, LEGAL]).ok();
    let files = unpack(&world.path("set"));
    let hex = files.iter().find_map(|(path, _)| path.strip_prefix("blobs/sha256/")).unwrap().to_owned();
    let before = |entry: Vec<u8>| [entry, pack(&files)].concat();
    let special = |path: &str, kind| header(path, kind, 0).as_bytes().to_vec();
    let link = |path: &str, kind| {
        let mut header = header(path, kind, 0);
        header.set_link_name("/etc/passwd").unwrap();
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let file = |path: &str| {
        let mut tar = pack(&vec![(path.to_owned(), b"x".to_vec())]);
        tar.truncate(1024);
        tar
    };
    let blob = format!("blobs/sha256/{hex}");
    let names = |entries: &mut Vec<Value>, to: &str| {
        for entry in entries.iter_mut().filter(|entry| name_of(entry).starts_with("acme/")) {
            entry["annotations"]["org.opencontainers.image.ref.name"] = to.into();
        }
    };
    let is_of = |entry: &Value, name: &str| name_of(entry) == name;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (before(file("../evil")), "../evil"),
        (before(file("/evil")), "/evil has an absolute name"),
        (before(link(&blob, tar::EntryType::Symlink)), "is a link, and no layout has one"),
        (before(link(&blob, tar::EntryType::Link)), "hard link"),
        (before(special("fifo", tar::EntryType::Fifo)), "fifo is a FIFO"),
        (before(special("null", tar::EntryType::Char)), "null is a device"),
        (before(special("sparse", tar::EntryType::GNUSparse)), "is a sparse file"),
        (before(file("index.json")), "index.json is in the archive twice"),
        (before(file(&blob)), "has the digest"),
        (
            before(header("blobs/huge", tar::EntryType::Regular, 1 << 42).as_bytes().to_vec()),
            "limit of 4294967296 bytes",
        ),
        (pack(&with_index(&files, |entries| names(entries, HR))), "acme/hr:1.0.0-draft is there twice"),
        (pack(&with_index(&files, |entries| names(entries, "Not A Name"))), "\"Not A Name\" names an image"),
        (
            pack(&with_index(&files, |entries| entries.retain(|entry| !is_of(entry, LEGAL)))),
            "it lacks acme/legal:1.0.0-draft",
        ),
        (
            pack(&with_index(&files, |entries| entries.retain(|entry| name_of(entry).is_empty()))),
            "it lacks acme/hr:1.0.0-draft",
        ),
        (pack(&with_index(&files, Vec::clear)), "it has no image with a name"),
        (pack(&with_index(&files, |entries| entries[0]["size"] = 1.into())), "more than 1 bytes"),
        (pack(&with_index(&files, |entries| entries[0]["size"] = (1_u64 << 40).into())), "too many for a manifest"),
        (pack(&with_index(&files, |entries| entries[0]["digest"] = "sha512:00".into())), "bad"),
        (pack(&vec![("oci-layout".into(), br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec())]), "version 1.0.0"),
        (pack(&vec![("README".into(), b"hello".to_vec())]), "it has no oci-layout"),
        (b"PK\x03\x04 and so on".to_vec(), "is a zip archive, and no layout"),
        (b"just text".to_vec(), "is no archive that is known"),
        (Vec::new(), "is empty"),
    ];
    for (bytes, word) in cases {
        world.write("bad", bytes);
        refused(&world, &load("bad", &[]), 2, &["bad", word]);
    }
    // More than anybody has to say about one image.
    let hr = unpack(&world.path("set")).into_iter().find(|(path, _)| path == "index.json").unwrap().1;
    let hr: Value = serde_json::from_slice(&hr).unwrap();
    let hr = hr["manifests"].as_array().unwrap().iter().find(|entry| is_of(entry, HR)).unwrap()["digest"].clone();
    let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"});
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let referrers: Files = (0..300)
        .map(|n| {
            let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": empty, "layers": [],
            "subject": {"mediaType": media_type, "digest": hr, "size": 1}, "annotations": {"n": n.to_string()}});
            let bytes = manifest.to_string().into_bytes();
            (format!("blobs/sha256/{}", hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes))), bytes)
        })
        .collect();
    let mut many = with_index(&files, |entries| {
        entries.extend(referrers.iter().map(|(path, bytes)| {
            let digest = path.replace("blobs/sha256/", "sha256:");
            json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
        }));
    });
    many.extend(referrers);
    world.write("bad", pack(&many));
    refused(&world, &load("bad", &[]), 2, &["acme/hr:1.0.0-draft has 302 signatures and attestations, more than 256"]);
    // What is twice in JSON.
    let mut twice = files.clone();
    let (_, index) = twice.iter_mut().find(|(path, _)| path == "index.json").unwrap();
    *index = [b"{\"manifests\":[],", &index[1..]].concat();
    world.write("bad", pack(&twice));
    refused(&world, &load("bad", &[]), 2, &["bad: "]);
    // Zeros that become far more than they are.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(header("zeros", tar::EntryType::Regular, 200 << 20).as_bytes()).unwrap();
    (0..200).for_each(|_| bomb.write_all(&vec![0; 1 << 20]).unwrap());
    world.write("bad", bomb.finish().unwrap());
    refused(&world, &load("bad", &[]), 2, &["the ratio of unpacked to packed bytes"]);
    // A directory that leads elsewhere, or at which one would wait for ever.
    run(&world, &["save", "-o", "dir/", HR]).ok();
    let index = world.path("dir/index.json");
    fs::remove_file(&index).unwrap();
    nix::unistd::mkfifo(&index, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused(&world, &load("dir", &[]), 2, &["dir: it has no index.json"]);
    fs::remove_file(&index).unwrap();
    fs::copy(world.store().join("index.json"), world.path("outside")).unwrap();
    std::os::unix::fs::symlink("../outside", &index).unwrap();
    refused(&world, &load("dir", &[]), 2, &["dir: it has no index.json"]);
    assert!(there(&world, "there", &load("nowhere", &[])).fails(2).stderr.contains("nowhere: No such file"));
}

#[test]
fn all_are_verified_or_none_is_there() {
    let world = world();
    world.skill("new", "1.0.0");
    world.build("new");
    run(&world, &["save", "-o", "set", HR, "acme/new:1.0.0-draft"]).ok();
    refused(&world, &load("set", &[]), 1, &["acme/new:1.0.0-draft is not verified", "it has no signature"]);
    there(&world, "other", &load("set", &[HR])).ok();
    assert_eq!(names(&world, "other"), [HR]);
    run(&world, &["save", "-o", "set", HR, LEGAL]).ok();
    let by_other = ["load", "--key", "other.pub", "--load=never", "-i", "set"];
    refused(&world, &by_other, 1, &["acme/hr:1.0.0-draft is not verified", "not by the key"]);
    // Signed, and under the name of another one.
    let files = with_index(&unpack(&world.path("set")), |entries| {
        entries.retain(|entry| name_of(entry) != HR && entry["artifactType"] != "application/vnd.skillimage.set.v1");
        let legal = entries.iter_mut().find(|entry| name_of(entry) == LEGAL).unwrap();
        legal["annotations"]["org.opencontainers.image.ref.name"] = HR.into();
    });
    world.write("bad", pack(&files));
    refused(&world, &load("bad", &[]), 1, &["acme/hr:1.0.0-draft is not verified", "not acme/hr"]);
    // Without a key nothing is looked at, and it is said so.
    let loaded = there(&world, "there", &["load", "--load=never", "-i", "set"]).ok().stdout;
    assert_eq!(loaded, "acme/hr:1.0.0-draft     in the store\nacme/legal:1.0.0-draft  in the store\n");
}

#[test]
fn signatures_of_two_come_together() {
    let world = world();
    run(&world, &["save", "-o", "one", HR]).ok();
    there(&world, "there", &load("one", &[])).ok();
    there(&world, "there", &["sign", HR, "--key", "other.key"]).ok();
    run(&world, &["tag", HR, "acme/hr:newest", "--load=never"]).ok();
    run(&world, &["sign", "acme/hr:newest", "--key", "acme.key"]).ok();
    run(&world, &["save", "-o", "two", HR]).ok();
    there(&world, "there", &load("two", &[])).ok();
    let signers = |key: &str| {
        let args = ["verify", HR, "--key", key, "--format", "json"];
        there(&world, "there", &args).ok().json()["signers"].as_array().unwrap().len()
    };
    // Of `acme` one more, for another tag.
    assert_eq!((signers("acme.pub"), signers("other.pub")), (3, 2));
    there(&world, "there", &["fsck"]).ok();
}

#[test]
fn published_content_stays_and_with_it_all_of_the_store() {
    let world = world();
    let publish = |store: &str| {
        for (from, to) in [(HR, "testing"), ("acme/hr:1.0.0-testing", "published")] {
            there(&world, store, &["promote", from, "--to", to, "--local", "--load=never"]).ok();
        }
    };
    publish("store");
    run(&world, &["save", "-o", "set", "acme/hr:1.0.0", LEGAL]).ok();
    world.write("hr/SKILL.md", "---\nname: hr\ndescription: Other.\n---\n\nOther.\n");
    there(&world, "there", &["build", "hr", "--load=never"]).ok();
    publish("there");
    let before = names(&world, "there");
    let args = ["load", "--load=never", "-i", "set"];
    let error = there(&world, "there", &args).fails(2).stderr;
    assert!(error.contains("Nothing was loaded: acme/hr:1.0.0 is published with sha256:"), "{error}");
    assert_eq!(names(&world, "there"), before);
    there(&world, "there", &[&args[..], &["--force"]].concat()).ok();
    assert!(names(&world, "there").contains(&LEGAL.to_owned()));
}

#[test]
fn tags_alone_are_those_of_what_the_image_says_that_it_is() {
    let world = world();
    run(&world, &["save", "-o", "set", HR]).ok();
    let rename = |to: &str| {
        pack(&with_index(&unpack(&world.path("set")), |entries| {
            entries.retain(|entry| entry["artifactType"] != "application/vnd.skillimage.set.v1");
            let entry = entries.iter_mut().find(|entry| name_of(entry) == HR).unwrap();
            entry["annotations"]["org.opencontainers.image.ref.name"] = to.into();
        }))
    };
    // As oras and skopeo name it.
    world.write("theirs", rename("1.0.0-draft"));
    there(&world, "there", &load("theirs", &[])).ok();
    assert_eq!(names(&world, "there"), [HR]);
    // Another version than it is.
    world.write("theirs", rename("2.0.0-draft"));
    let error = there(&world, "there", &load("theirs", &[])).fails(1).stderr;
    assert!(error.contains("acme/hr:2.0.0-draft is not verified"), "{error}");
}

#[test]
fn without_skopeo_it_is_in_the_store_and_said_so() {
    let world = world();
    run(&world, &["save", "-o", "set", HR, LEGAL]).ok();
    let loaded = there(&world, "there", &["load", "--key", "acme.pub", "-i", "set"]).ok();
    assert!(loaded.stdout.contains("acme/hr:1.0.0-draft     verified, in the store\n"), "{loaded}");
    assert_eq!(loaded.stderr.matches("Not loaded: skopeo is not installed").count(), 1, "{loaded}");
    let always = there(&world, "there", &["load", "--load=always", "-i", "set", HR]).fails(2);
    assert!(always.stderr.contains("into containers-storage: skopeo is not installed"), "{always}");
    // What is in the store is verified by the same flags.
    let stored = there(&world, "there", &["load", "--key", "other.pub", HR]).fails(1).stderr;
    assert!(stored.contains("acme/hr:1.0.0-draft is not verified"), "{stored}");
    assert!(there(&world, "there", &["load", "--force", HR]).fails(2).stderr.contains("--input"));
}

#[test]
fn a_path_is_told_how_it_is_named() {
    let world = world();
    run(&world, &["save", "-o", "set", HR]).ok();
    run(&world, &["save", "-o", "dir/", HR]).ok();
    let cases: [(&[&str], &str); 6] = [
        (&["load", "set"], "hint: skillctl load -i set\n"),
        (&["load", "dir"], "hint: skillctl load -i dir\n"),
        (&["mirror", "set", "registry.example/m"], "oci-archive:FILE: oci-archive:set\n"),
        (&["mirror", "./dir", "registry.example/m"], "oci-archive:FILE: oci:./dir\n"),
        (&["mirror", HR, "/srv/new.tar"], "oci-archive:FILE: oci-archive:/srv/new.tar\n"),
        (&["load", "nowhere"], "hint: skillctl list shows what is there\n"),
    ];
    for (args, hint) in cases {
        let refused = run(&world, args).fails(2);
        assert!(refused.stderr.ends_with(hint), "{refused}");
    }
    for input in ["set", "oci-archive:set", "dir", "oci:dir"] {
        run(&world, &["load", "--load=never", "-i", input]).ok();
    }
}

#[test]
fn a_place_that_cannot_be_written_stays_as_it_was() {
    let world = world();
    let save = |flags: &[&str]| run(&world, &[&["save"], flags].concat());
    assert!(save(&["-o", "set", "acme/none:1"]).fails(2).stderr.contains("image not found: acme/none:1"));
    assert!(!world.path("set").exists());
    world.write("set", "old");
    save(&["-o", "set", HR, "acme/none:1"]).fails(2);
    assert_eq!(fs::read_to_string(world.path("set")).unwrap(), "old");
    save(&["-o", "set", HR]).ok();
    world.write("full/notes", "mine");
    let error = save(&["-o", "full/", HR]).fails(2).stderr;
    assert!(error.contains("full/ has notes in it"), "{error}");
    assert!(save(&["-o", "/dev/null", HR]).fails(2).stderr.contains("no regular file"));
    assert!(save(&["-o", "nowhere/set", HR]).fails(2).stderr.contains("nowhere"));
    assert!(save(&["-o", "-", "--format", "json", HR]).fails(2).stderr.contains("both be on stdout"));
    let digest = run(&world, &["inspect", HR, "--format", "json"]).ok().json()["digest"].as_str().unwrap().to_owned();
    save(&["-o", "set", &digest]).ok();
    // No more room than for a part of it, as on a stick that is full; then there is.
    let limited = |blocks: u32, to: &str| -> Ran {
        let script = format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec {} save -o {to} {HR} {LEGAL}",
            env!("CARGO_BIN_EXE_skillctl")
        );
        world.command_of("/bin/sh", ["-c", &script]).output().unwrap().into()
    };
    world.write("stick/skills.bundle", "old");
    let error = limited(8, "stick/skills.bundle").fails(2).stderr;
    assert!(error.contains("stick/skills.bundle: File too large"), "{error}");
    let left: Vec<_> = fs::read_dir(world.path("stick")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(
        (left, fs::read_to_string(world.path("stick/skills.bundle")).unwrap()),
        (vec!["skills.bundle".into()], "old".into())
    );
    world.write(
        "hr/noise",
        (0..40_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<u8>>(),
    );
    world.build("hr");
    limited(64, "layout/").fails(2);
    assert!(!world.path("layout/index.json").exists());
    limited(4096, "layout/").ok();
    assert!(!world.path("layout/index.json.part").exists());
    there(&world, "there", &["load", "--load=never", "-i", "layout"]).ok();
    // As room runs out in the store.
    let script = format!(
        "trap '' XFSZ; ulimit -f 64; exec {} --store elsewhere load --load=never -i layout",
        env!("CARGO_BIN_EXE_skillctl")
    );
    let error: Ran = world.command_of("/bin/sh", ["-c", &script]).output().unwrap().into();
    assert!(error.fails(2).stderr.contains("File too large"));
    assert_eq!(names(&world, "elsewhere"), [""; 0]);
}

#[test]
fn mirrors_to_layouts_and_archives_keep_everything() {
    let world = world();
    run(&world, &["save", "-o", "set", HR, LEGAL]).ok();
    let mirrored = run(&world, &["mirror", "oci-archive:set", "oci:copy"]).ok().stdout;
    assert!(mirrored.starts_with("Mirrored acme/hr:1.0.0-draft to copy:acme/hr:1.0.0-draft\n"), "{mirrored}");
    there(&world, "there", &["mirror", "oci:copy", "oci-archive:again", "--format", "json"]).ok();
    assert_eq!(fs::read(world.path("again")).unwrap(), fs::read(world.path("set")).unwrap());
    // Nothing got a name on the way.
    assert_eq!(names(&world, "there"), [""; 0]);
    let rows = run(&world, &["mirror", HR, "oci:one", "--format", "json"]).ok().json();
    assert_eq!((rows[0]["source"].as_str(), &rows[0]["attached"]), (Some(HR), &json!(2)));
    for (to, why) in [("acme/hr", "names no registry"), ("dir:x", "no place for what belongs to an image")] {
        let error = run(&world, &["mirror", HR, to]).fails(2).stderr;
        assert!(error.contains(why), "{error}");
    }
}

/// `kill -9` at moments that are spread over the whole: the old state, or the new one.
#[test]
fn saves_and_loads_killed_at_any_moment_leave_nothing_half() {
    let world = world();
    let rounds = if std::env::var_os("SKILLCTL_TEST_LONG").is_some() { 300 } else { 40 };
    let kill = |args: &[&str], round: u32| {
        let mut command: Command = world.command(args);
        let start = std::time::Instant::now();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(u64::from(round.wrapping_mul(2_654_435_761) % 60_000)));
        let _ = child.kill();
        child.wait().unwrap();
        start.elapsed()
    };
    run(&world, &["save", "-o", "set", HR, LEGAL]).ok();
    let whole = fs::read(world.path("set")).unwrap();
    let mut seen = BTreeMap::new();
    for round in 0..rounds {
        kill(&["save", "-o", "stick", HR, LEGAL], round);
        match fs::read(world.path("stick")) {
            Ok(bytes) => assert!(bytes == whole),
            Err(_) => *seen.entry("no file").or_insert(0) += 1,
        }
        fs::remove_file(world.path("stick")).ok();
        fs::remove_dir_all(world.path("there")).ok();
        kill(&[&["--store", "there"], &*load("set", &[])].concat(), round);
        let there_now = names(&world, "there");
        assert!(there_now.is_empty() || there_now == NAMES, "{there_now:?}");
        *seen.entry(if there_now.is_empty() { "nothing" } else { "all" }).or_insert(0) += 1;
        there(&world, "there", &load("set", &[])).ok();
        there(&world, "there", &["fsck"]).ok();
        there(&world, "there", &["prune", "--grace", "0"]).ok();
        assert_eq!(fs::read_dir(world.path("there/.tmp")).unwrap().count(), 0);
    }
    assert!(seen.contains_key("nothing"), "none was killed early enough: {seen:?}");
}
