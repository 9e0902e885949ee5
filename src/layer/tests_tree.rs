//! Trees from elsewhere than a directory: packed as a directory would be, and held to the same rules.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::error::Result;
use crate::limits::Limits;

fn empty(limits: Limits) -> Tree {
    Tree::new(tempfile::tempfile().unwrap(), limits)
}

/// Makes a tree of files with their paths as contents; what has an arrow is a link.
fn of(paths: &[&str]) -> Result<Tree> {
    let mut tree = empty(Limits::default());
    for path in paths {
        match path.split_once(" -> ") {
            Some((path, target)) => tree.add_symlink(path, target)?,
            None if path.ends_with('/') => tree.add_directory(path)?,
            None => tree.add_file(path, false, (&mut path.as_bytes(), path.len() as u64))?,
        }
    }
    Ok(tree)
}

/// Makes the same as a directory.
fn on_disk(paths: &[&str]) -> tempfile::TempDir {
    let plain: Vec<&str> = paths.iter().copied().filter(|path| !path.contains(" -> ")).collect();
    let root = tree(&plain.iter().map(|path| (*path, path.as_bytes(), mode(path))).collect::<Vec<_>>());
    for (path, target) in paths.iter().filter_map(|path| path.split_once(" -> ")) {
        std::fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
        symlink(target, root.path().join(path)).unwrap();
    }
    root
}

fn mode(path: &str) -> u32 {
    if path.ends_with('/') { 0o755 } else { 0o644 }
}

fn packed(tree: &Tree, below: &str, options: &PackOptions<'_>) -> Result<(Vec<u8>, Packed)> {
    let mut out = Vec::new();
    let packed = pack_tree(&tree.below(below).unwrap(), &mut out, Selection::AsDirectory, options)?;
    Ok((out, packed))
}

fn pack_error_of(paths: &[&str]) -> String {
    packed(&of(paths).unwrap(), "", &PackOptions::default()).map(drop).unwrap_err().to_string()
}

fn add(tree: &mut Tree, bytes: &[u8], layer: bool) -> Result<()> {
    let (expected, options) = (expected(bytes, Encoding::Tar), UnpackOptions::default());
    if layer { tree.add_layer(bytes, &expected, &options) } else { tree.add_archive(bytes, &expected, "", &options) }
}

fn paths(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    pack_tree(&tree.below("").unwrap(), &mut out, Selection::All, &PackOptions::default()).unwrap();
    names(&out).split_off(1)
}

#[test]
fn a_tree_is_packed_as_the_directory_is() {
    let cases: [&[&str]; 9] = [
        &["SKILL.md", "scripts/run.sh", "a.b/c", "a/b", "a-b/c", "empty/"],
        &["SKILL.md", "x/f", "link -> x/f", "y/up -> ../x/f", "dir -> x", "deep/dir -> ../x"],
        &["SKILL.md", "a -> b", "b -> c", "c"],
        &["SKILL.md", "x/f", "x/g -> f", "dir -> x", "again -> dir/g"],
        &["SKILL.md", ".git/config", "a~", ".DS_Store", "x/__pycache__/y", ".idea/z"],
        &["SKILL.md", ".git/config", "junk -> a~", "a~"],
        &["SKILL.md", ".claude/settings.json", "grün/ß", "z"],
        &["SKILL.md", "x/./y"],
        &["SKILL.md"],
    ];
    for paths in cases {
        let Ok(tree) = of(paths) else {
            assert!(paths.contains(&"x/./y"));
            continue;
        };
        let options = PackOptions { extra: vec![("skill.yaml".into(), b"x".to_vec())], ..PackOptions::default() };
        let root = on_disk(paths);
        match (packed(&tree, "", &options), pack_with(root.path(), &options)) {
            (Ok(tree), Ok(directory)) => assert_eq!(tree, directory, "{paths:?}"),
            (tree, directory) => {
                let [tree, directory] = [tree, directory].map(|result| result.map(drop).unwrap_err().to_string());
                assert_eq!(tree, directory, "{paths:?}");
            }
        }
    }
}

#[test]
fn links_are_followed_inside_only() {
    let cases: [(&[&str], &str); 11] = [
        (&["x -> /etc/passwd"], "x -> /etc/passwd leaves the skill"),
        (&["x -> ../y"], "x -> ../y leaves the skill"),
        (&["a/x -> ../../y"], "a/x -> ../../y leaves the skill"),
        (&["a/f", "b -> a", "x -> b/../../y"], "x -> b/../../y leaves the skill"),
        (&["x -> y"], "x -> y leads nowhere"),
        (&["f", "x -> f/y"], "x -> f/y leads nowhere"),
        (&["f", "x -> f/"], "x -> f/ leads nowhere"),
        (&["x -> x"], "x -> x leads in a circle"),
        (&["x -> y", "y -> x"], "x -> y leads in a circle"),
        (&["a/x -> ../a"], "a/x is a link to a directory that it is in"),
        (&["a/x -> ../b", "b/y -> ../a"], "a/x/y is a link to a directory that it is in"),
    ];
    for (paths, want) in cases {
        assert_eq!(pack_error_of(paths), want);
        assert_eq!(pack_error(on_disk(paths).path(), &PackOptions::default()), want, "on disk");
    }
    let tree = of(&["s/SKILL.md -> ../secret", "secret"]).unwrap();
    assert!(tree.below("s").unwrap().open("SKILL.md").is_none(), "what is beside the skill is not in it");
    // As many entries as there are ways through the links; few are allowed, so that the test is short.
    let mut bomb = vec!["l0/f".to_owned()];
    for level in 1..24 {
        bomb.extend(["a", "b"].map(|name| format!("l{level}/{name} -> ../l{}", level - 1)));
    }
    let tree = of(&bomb.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let limits = Limits { entries: 10_000, ..Limits::default() };
    let error = packed(&tree, "", &PackOptions { limits, ..PackOptions::default() }).unwrap_err().to_string();
    assert_eq!(error, "the number of entries exceeds the limit of 10000");
}

#[test]
fn what_differs_by_case_or_is_there_twice_is_refused() {
    assert_eq!(pack_error_of(&["a/B", "a/b"]), "a/b differs from a/B only by case");
    assert_eq!(pack_error_of(&["Ä", "ä"]), "ä differs from Ä only by case");
    let cases: [(&[&str], &str); 9] = [
        (&["a", "a"], "a is there twice"),
        (&["a", "./a"], "a is there twice"),
        (&["a", "a -> b"], "a is there twice"),
        (&["a", "a/b"], "a is in a file or a link"),
        (&["a -> b", "a/b"], "a is in a file or a link"),
        (&["a/b", "a"], "a is there twice"),
        (&["../a"], "../a leaves the skill"),
        (&["/a"], "/a has an absolute name"),
        (&[".wh.a"], ".wh.a is a whiteout, which deletes another file"),
    ];
    for (paths, want) in cases {
        assert_eq!(of(paths).map(drop).unwrap_err().to_string(), want, "{paths:?}");
    }
    let options = PackOptions { extra: vec![("a/b".into(), Vec::new())], ..PackOptions::default() };
    let error = packed(&of(&["a/c"]).unwrap(), "", &options).unwrap_err().to_string();
    assert_eq!(error, "a/b is generated, and has to be at the skill's root");
}

#[test]
fn whiteouts_delete_what_is_below() {
    let lower = [file("a/x", b"1"), file("a/y", b"2"), file("b", b"3"), link(b'2', "l", "a")];
    let cases: [(&[Raw], &[&str]); 9] = [
        (&[], &["a/", "a/x", "a/y", "b", "l/", "l/x", "l/y"]),
        (&[file("b/c", b"")], &["a/", "a/x", "a/y", "b/", "b/c", "l/", "l/x", "l/y"]),
        (&[file("a", b""), file(".wh.l", b"")], &["a", "b"]),
        (&[file("a/.wh.x", b""), file(".wh.l", b"")], &["a/", "a/y", "b"]),
        (&[file("a/.wh..wh..opq", b""), file("a/z", b""), file(".wh.l", b"")], &["a/", "a/z", "b"]),
        // A layer deletes nothing of its own, in whatever order it says so.
        (&[file("a/z", b""), file("a/.wh..wh..opq", b""), file(".wh.l", b"")], &["a/", "a/z", "b"]),
        (&[file(".wh.b", b""), file("b", b"new"), file(".wh.l", b"")], &["a/", "a/x", "a/y", "b"]),
        // Not through a link: what is deleted is in the place that the name says.
        (&[file("l/.wh.x", b"")], &["a/", "a/x", "a/y", "b", "l/"]),
        (&[file(".wh..wh..opq", b"")], &[]),
    ];
    for (upper, want) in cases {
        let mut tree = empty(Limits::default());
        add(&mut tree, &archive(&lower), true).unwrap();
        add(&mut tree, &archive(upper), true).unwrap();
        let names: Vec<String> = upper.iter().map(|raw| String::from_utf8_lossy(&raw.name).into_owned()).collect();
        assert_eq!(paths(&tree), want, "{names:?}");
    }
}

#[test]
fn limits_are_for_all_of_a_tree() {
    let limits = |entries, size, depth| Limits { entries, size, depth, ..Limits::default() };
    let entries = |count| format!("the number of entries exceeds the limit of {count}");
    // One path makes many directories.
    let deep = |tree: &mut Tree, at: u32| tree.add_file(&format!("{at}/b/c/d"), false, (&mut b"".as_slice(), 0));
    let mut tree = empty(limits(9, 100, 128));
    deep(&mut tree, 0).unwrap();
    deep(&mut tree, 1).unwrap();
    assert_eq!(deep(&mut tree, 2).unwrap_err().to_string(), entries(9));
    let mut tree = empty(limits(3, 100, 128));
    tree.add_directory("a/b/c").unwrap();
    tree.add_directory("a/b").unwrap();
    assert_eq!(tree.add_directory("d").unwrap_err().to_string(), entries(3));
    let mut tree = empty(limits(9, 100, 2));
    tree.add_directory("a/b").unwrap();
    assert_eq!(tree.add_directory("a/b/c").unwrap_err().to_string(), "the depth of a/b/c exceeds the limit of 2");
    // Layers one by one are within the limits, and not together.
    for layer in [true, false] {
        let mut tree = empty(limits(3, 5, 128));
        add(&mut tree, &archive(&[file("a", b"1"), file("b", b"2")]), layer).unwrap();
        let error = add(&mut tree, &archive(&[file("c", b"1"), file("d", b"2")]), layer).unwrap_err();
        assert_eq!(error.to_string(), entries(3));
        let mut tree = empty(limits(9, 5, 128));
        add(&mut tree, &archive(&[file("a", b"123")]), layer).unwrap();
        let error = add(&mut tree, &archive(&[file("b", b"123")]), layer).unwrap_err();
        assert_eq!(error.to_string(), "the size of all files exceeds the limit of 5 bytes");
    }
    let mut tree = empty(limits(9, 5, 128));
    tree.add_file("a", false, (&mut b"123".as_slice(), 3)).unwrap();
    assert!(tree.add_file("b", false, (&mut b"123".as_slice(), 3)).is_err());
    let short = empty(Limits::default()).add_file("a", false, (&mut b"12".as_slice(), 3));
    assert_eq!(short.unwrap_err().to_string(), "a is damaged: it has 2 bytes, expected 3");
}

#[test]
fn a_tree_is_filled_from_several_sources() {
    let mut tree = of(&["a/SKILL.md", "b/c/SKILL.md", "b/c/d/SKILL.md", "e/f"]).unwrap();
    let more = archive(&[file("SKILL.md", b"archive"), file("x", b"y")]);
    tree.add_archive(&more[..], &expected(&more, Encoding::Tar), "e", &UnpackOptions::default()).unwrap();
    tree.add_file("z", true, (&mut b"last".as_slice(), 4)).unwrap();
    assert_eq!(tree.with_file("SKILL.md"), ["a", "b/c", "e"]);
    let read = |below: &str, path: &str| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut tree.below(below).unwrap().open(path).unwrap().1, &mut text).unwrap();
        text
    };
    assert_eq!((read("e", "SKILL.md"), read("e", "f")), ("archive".into(), "e/f".into()));
    assert_eq!((read("", "z"), read("b", "c/SKILL.md")), ("last".into(), "b/c/SKILL.md".into()));
    assert!(tree.below("z").is_none() && tree.below("nowhere").is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_tree_is_packed_as_its_directory_is(
        files in prop::collection::btree_map("[ab](/[a-c.]{1,2}){0,3}", (prop::collection::vec(any::<u8>(), 0..300), any::<bool>()), 1..12),
        links in prop::collection::btree_map("[l-n]", "[ab.l](/[a-c.l]{1,2}){0,3}", 0..3),
    ) {
        let legal = |path: &String| path.split('/').all(|part| part != "." && part != "..");
        let mut tree = empty(Limits::default());
        let mut kept = BTreeMap::new();
        for (path, (content, executable)) in files.iter().filter(|(path, _)| legal(path)) {
            if tree.add_file(path, *executable, (&mut content.as_slice(), content.len() as u64)).is_ok() {
                kept.insert(path.as_str(), (content.as_slice(), if *executable { 0o755 } else { 0o644 }));
            }
        }
        let root = super::testing::tree(&kept.iter().map(|(path, (content, mode))| (*path, *content, *mode)).collect::<Vec<_>>());
        for (path, target) in &links {
            tree.add_symlink(path, target).unwrap();
            symlink(target, root.path().join(path)).unwrap();
        }
        let options = PackOptions::default();
        match (packed(&tree, "", &options), pack_with(root.path(), &options)) {
            (Ok(tree), Ok(directory)) => prop_assert_eq!(tree, directory),
            (Err(_), Err(_)) => {}
            (tree, directory) => prop_assert!(false, "{:?} {:?}", tree.map(|all| all.1), directory.map(|all| all.1)),
        }
    }
}
