use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cap_std::ambient_authority;
use serde_json::{Value, json};

use super::*;
use crate::store::storage_conf::{StorageEnv, discover};
use crate::store::storage_images::LoadState;

const LAYER: &str = "38bc4e07f06f3a3ab967d12bc21b3305cb19e5311e833845193f5200a0a804e0";

fn sha(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A storage in a directory of its own, written as containers/storage would.
struct Fixture {
    dir: tempfile::TempDir,
    driver: &'static str,
    images: Vec<Value>,
    layers: Vec<Value>,
}

impl Fixture {
    fn new(driver: &'static str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), driver, images: vec![], layers: vec![] }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Adds an image with a label, and returns its ID and the digests of its manifests.
    fn add(&mut self, label: &str, names: &[&str], manifests: &[&str]) -> (String, Vec<String>) {
        let config = json!({"config": {"Labels": {"io.skillimage.name": label}}}).to_string();
        let id = sha(config.as_bytes());
        let mut sizes = serde_json::Map::new();
        let mut put = |name: &str, bytes: &[u8]| {
            self.write(&format!("{}-images/{id}/{}", self.driver, big_data_file(name)), bytes);
            sizes.insert(name.to_owned(), bytes.len().into());
        };
        put(&format!("sha256:{id}"), config.as_bytes());
        let digests: Vec<_> = manifests.iter().map(|m| format!("sha256:{}", sha(m.as_bytes()))).collect();
        for (digest, manifest) in digests.iter().zip(manifests) {
            put(&format!("manifest-{digest}"), manifest.as_bytes());
            put("manifest", manifest.as_bytes());
        }
        let big_data: Vec<_> = sizes.keys().cloned().collect();
        let mut record = json!({
            "id": id, "digest": digests.last(), "layer": LAYER, "metadata": "{}", "created": "2026-01-01T00:00:00Z",
            "big-data-names": big_data, "big-data-sizes": sizes, "future": {"x": [1]},
        });
        if !names.is_empty() {
            record["names"] = json!(names);
        }
        self.images.push(record);
        (id, digests)
    }

    fn storage(&self) -> Storage {
        self.write(&format!("{}-images/images.json", self.driver), json!(self.images).to_string());
        self.write(&format!("{}-layers/layers.json", self.driver), json!(self.layers).to_string());
        open(&self.root(), &[])
    }
}

fn open(root: &Path, additional: &[PathBuf]) -> Storage {
    let mut env = StorageEnv::default();
    env.flags.runroot = Some(root.with_file_name("run"));
    let mut conf = discover(&env, |_| None).unwrap();
    conf.graph_root = root.into();
    conf.additional = additional.into();
    Storage::new(conf, Box::new(|p| Dir::open_ambient_dir(p, ambient_authority())))
}

fn layer(id: &str, parent: Option<&str>, size: u64) -> Value {
    json!({"id": id, "parent": parent, "diff-digest": format!("sha256:{id}"), "diff-size": size, "compression": 2})
}

#[test]
fn names_big_data_as_containers_storage_does() {
    let cases = [
        ("manifest", "manifest"),
        (
            "manifest-sha256:4a8fe1f15816c2394a075ffdd709d4e6449aa69157c1cb43574fe884856c70b5",
            "=bWFuaWZlc3Qtc2hhMjU2OjRhOGZlMWYxNTgxNmMyMzk0YTA3NWZmZGQ3MDlkNGU2NDQ5YWE2OTE1N2MxY2I0MzU3NGZlODg0ODU2YzcwYjU=",
        ),
        ("A", "=QQ=="),
        ("A:", "=QTo="),
        ("A:b", "=QTpi"),
        ("\u{ff}?>", "=w78/Pg=="),
    ];
    for (name, file) in cases {
        assert_eq!(big_data_file(name), file);
    }
}

#[test]
fn reads_records_of_both_drivers() {
    for driver in ["overlay", "vfs"] {
        let mut fixture = Fixture::new(driver);
        let names = ["localhost/acme/hr:1.0.0-draft", "localhost/acme/hr:1.0.0"];
        let (id, digests) = fixture.add("hr", &names, &["draft", "published"]);
        let (orphan, _) = fixture.add("orphan", &[], &["x"]);
        fixture.layers = vec![layer(LAYER, None, 10240)];
        let storage = fixture.storage();
        assert_eq!(storage.driver().unwrap().name(), Some(driver));
        let images = storage.images().unwrap();
        assert_eq!(images.iter().count(), 2);
        let image = images.by_name(names[1]).unwrap();
        assert_eq!((&image.id, &image.digest, image.read_only), (&id, &Some(digests[1].clone()), false));
        assert_eq!(image.size, Some(10240 + 49 + 5 + 9 + 9));
        assert_eq!(image.created.as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(storage.manifest(image, &digests[0]).unwrap(), b"draft");
        assert_eq!(storage.labels(image).unwrap()["io.skillimage.name"], "hr");
        let layers = images.layers(image).unwrap();
        assert_eq!((layers.len(), layers[0].diff_size), (1, Some(10240)));
        assert_eq!(images.lookup(&orphan).unwrap().unwrap().names, Vec::<String>::new());
        let missing = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(storage.manifest(image, &missing), Err(Error::ImageNotFound(_))));
    }
}

#[test]
fn reads_records_of_old_and_odd_versions() {
    let fixture = Fixture::new("overlay");
    let storage = fixture.storage();
    let records = json!([
        {"id": "a", "names": null, "layer": null, "big-data-names": null, "big-data-sizes": null, "big-data-digests": null},
        {"id": "b", "layer": "", "big-data-names": ["manifest", "sha256:b"],
            "big-data-sizes": {"manifest": 5, "sha256:b": 6},
            "big-data-digests": {"sha256:b": "sha256:b", "manifest": "sha256:m"}},
        {"id": "c", "big-data-names": ["manifest-sha256:m"], "big-data-digests": {"manifest": "sha256:m"}},
    ]);
    fixture.write("overlay-images/images.json", records.to_string());
    let images = storage.images().unwrap();
    let found: Vec<_> = images.iter().map(|i| (i.id.as_str(), i.size, i.manifest_digests.join(" "))).collect();
    let digest = || "sha256:m".to_owned();
    assert_eq!(found, [("a", Some(0), String::new()), ("b", Some(11), digest()), ("c", Some(0), digest())]);
    fixture.write("overlay-images/b/manifest", "x");
    assert!(matches!(storage.manifest(images.iter().nth(1).unwrap(), "sha256:m"), Err(Error::Damaged { .. })));
}

#[test]
fn looks_up_what_is_meant() {
    let mut fixture = Fixture::new("overlay");
    let (id, digests) = fixture.add("hr", &["localhost/acme/hr:1", "localhost:5000/hr:2"], &["one", "two"]);
    fixture.images.push(json!({"id": format!("{}{}", &id[..20], "0".repeat(44)), "names": null}));
    let images = fixture.storage().images().unwrap();
    let cases = [
        ("localhost/acme/hr:1".to_owned(), true),
        ("localhost:5000/hr:2".to_owned(), true),
        ("acme/hr:1".to_owned(), false),
        (id.clone(), true),
        (format!("sha256:{id}"), true),
        (id[..21].to_owned(), true),
        (id[..8].to_owned(), false),
        (digests[0].clone(), true),
        (format!("localhost/acme/hr@{}", digests[0]), true),
        (format!("localhost/acme/hr:9@{}", digests[1]), true),
        (format!("localhost:5000/hr@{}", digests[1]), true),
        (format!("localhost/acme/other@{}", digests[0]), false),
        (format!("localhost/acme/hr@sha256:{}", "0".repeat(64)), false),
        ("not hexadecimal".to_owned(), false),
    ];
    for (key, found) in cases {
        assert_eq!(images.lookup(&key).unwrap().map(|i| &i.id), found.then_some(&id), "{key}");
    }
    let error = images.lookup(&id[..12]).unwrap_err();
    assert!(matches!(error, Error::InvalidReference { .. }));
    let states = [
        ("localhost/acme/hr:1", &digests[0], LoadState::Yes),
        ("localhost/acme/hr:1", &id, LoadState::Other),
        ("localhost/acme/hr:3", &digests[0], LoadState::No),
    ];
    for (name, digest, state) in states {
        assert_eq!(images.load_state(name, digest), state);
    }
}

#[test]
fn finds_what_is_damaged() {
    let mut fixture = Fixture::new("overlay");
    let (id, digests) = fixture.add("hr", &["localhost/hr:1"], &["one"]);
    let storage = fixture.storage();
    let images = storage.images().unwrap();
    let image = images.by_name("localhost/hr:1").unwrap();
    assert_eq!(image.size, None);
    assert!(images.layers(image).unwrap_err().to_string().ends_with(&format!("its layer {LAYER} is not there")));
    let big_data = |name: String| format!("overlay-images/{id}/{}", big_data_file(&name));
    fixture.write(&big_data(format!("manifest-{}", digests[0])), "two");
    let error = storage.manifest(image, &digests[0]).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("manifest {0} in containers-storage is damaged: its digest is sha256:{1}", digests[0], sha(b"two"))
    );
    fixture.write(&big_data(format!("sha256:{id}")), "{}");
    assert!(matches!(storage.config(image), Err(Error::Damaged { .. })));
    fixture.write(&big_data(format!("sha256:{id}")), vec![b' '; MAX_METADATA as usize + 1]);
    assert!(storage.labels(image).unwrap_err().to_string().contains("larger than"));
    std::fs::remove_file(fixture.root().join(big_data(format!("sha256:{id}")))).unwrap();
    assert!(storage.config(image).unwrap_err().to_string().ends_with("it is not there"));
    // A cycle of parents ends.
    let mut fixture = Fixture::new("overlay");
    fixture.add("hr", &["localhost/hr:1"], &["one"]);
    fixture.layers = vec![layer(LAYER, Some("a"), 1), layer("a", Some(LAYER), 1)];
    let images = fixture.storage().images().unwrap();
    assert!(images.layers(images.iter().next().unwrap()).is_err());
}

#[test]
fn retries_a_list_that_is_being_written_once() {
    let fixture = Fixture::new("overlay");
    let storage = fixture.storage();
    fixture.write("overlay-images/images.json", "[{\"id\":");
    let error = storage.images().unwrap_err().to_string();
    assert!(error.contains("overlay-images/images.json is damaged: EOF"), "{error}");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| storage.images().map(|i| i.iter().count()));
        thread::sleep(RETRY / 3);
        fixture.write("overlay-images/images.json", r#"[{"id":"a"}]"#);
        assert_eq!(reader.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn an_absent_storage_is_empty_and_two_drivers_need_an_answer() {
    let fixture = Fixture::new("vfs");
    let storage = open(&fixture.root(), &[]);
    assert_eq!(storage.driver().unwrap(), Driver::Unknown);
    assert_eq!(storage.images().unwrap().iter().count(), 0);
    fixture.write("vfs-images/images.json", "");
    assert_eq!((storage.driver().unwrap(), storage.images().unwrap().iter().count()), (Driver::Vfs, 0));
    fixture.write("overlay-images/images.json", "[]");
    let error = storage.images().unwrap_err();
    assert!(error.to_string().ends_with("root holds images of several storage drivers"), "{error}");
    assert!(error.hint().unwrap().contains("--storage-driver"));
}

#[test]
fn searches_additional_stores_last() {
    let mut first = Fixture::new("overlay");
    let mut second = Fixture::new("overlay");
    first.add("a", &["localhost/a:1", "localhost/c:1"], &["a"]);
    second.layers = vec![layer(LAYER, None, 7)];
    second.storage();
    let (id, digests) = second.add("b", &["localhost/b:1", "localhost/a:1"], &["b"]);
    second.storage();
    first.storage();
    let storage = open(&first.root(), &[second.root(), "/nonexistent".into()]);
    let images = storage.images().unwrap();
    let found = |name: &str| images.by_name(name).unwrap();
    assert_eq!((found("localhost/b:1").id.as_str(), found("localhost/b:1").read_only), (id.as_str(), true));
    assert_ne!(found("localhost/a:1").id, id);
    // Its layer is in the other store.
    assert!(found("localhost/c:1").size.is_some());
    assert_eq!(storage.manifest(found("localhost/b:1"), &digests[0]).unwrap(), b"b");
    second.write(&format!("overlay/{LAYER}/diff/SKILL.md"), "x");
    let dir = storage.open_diff(&images, found("localhost/c:1")).unwrap().unwrap();
    assert_eq!(dir.read_to_string("SKILL.md").unwrap(), "x");
}

#[test]
fn opens_the_content_of_single_layers() {
    for (driver, path) in [("overlay", format!("overlay/{LAYER}/diff")), ("vfs", format!("vfs/dir/{LAYER}"))] {
        let mut fixture = Fixture::new(driver);
        fixture.add("hr", &["localhost/hr:1"], &["one"]);
        fixture.layers = vec![layer(LAYER, None, 1)];
        let storage = fixture.storage();
        let content = || {
            let images = storage.images().unwrap();
            storage.open_diff(&images, images.by_name("localhost/hr:1").unwrap()).unwrap()
        };
        assert!(content().is_none());
        fixture.write(&format!("{path}/SKILL.md"), "x");
        assert_eq!(content().unwrap().read_to_string("SKILL.md").unwrap(), "x");
        fixture.layers = vec![layer(LAYER, Some("base"), 1), layer("base", None, 2)];
        fixture.storage();
        assert!(content().is_none());
    }
}

#[test]
fn knows_what_is_mounted() {
    let mut fixture = Fixture::new("overlay");
    fixture.add("hr", &["localhost/hr:1"], &["one"]);
    let storage = fixture.storage();
    let images = storage.images().unwrap();
    let mounted = || storage.is_mounted(images.iter().next().unwrap()).unwrap();
    assert!(!mounted());
    for (count, expected) in [(0, false), (2, true)] {
        let list = json!([{"id": "other", "path": "/x", "count": 1}, {"id": LAYER, "path": "/y", "count": count}]);
        let dir = fixture.dir.path().join("run/overlay-layers");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("mountpoints.json"), list.to_string()).unwrap();
        assert_eq!(mounted(), expected);
    }
}

#[test]
fn names_the_owner_of_what_cannot_be_read() {
    let conf = discover(&StorageEnv::default(), |_| None).unwrap();
    let storage = Storage::new(conf, Box::new(|_| Err(io::ErrorKind::PermissionDenied.into())));
    let error = storage.images().unwrap_err();
    assert_eq!(error.to_string(), "/var/lib/containers/storage belongs to another user");
    assert!(error.hint().unwrap().contains("rootless"));
}

#[test]
fn reads_a_thousand_images_at_once() {
    let mut fixture = Fixture::new("overlay");
    let (_, digests) = fixture.add("hr", &["localhost/hr:0"], &["one"]);
    let record = fixture.images.remove(0);
    for n in 0..1000 {
        let mut record = record.clone();
        record["id"] = json!(format!("{n:064x}"));
        record["names"] = json!([format!("localhost/hr:{n}")]);
        fixture.images.push(record);
    }
    fixture.layers = (0..1000).map(|n| layer(&format!("{n:064x}"), None, n)).chain([layer(LAYER, None, 1)]).collect();
    fixture.storage();
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let conf = open(&fixture.root(), &[]).conf().clone();
    let counting = move |p: &Path| {
        count.fetch_add(1, Ordering::Relaxed);
        Dir::open_ambient_dir(p, ambient_authority())
    };
    let storage = Storage::new(conf, Box::new(counting));
    let images = storage.images().unwrap();
    assert_eq!(images.iter().count(), 1000);
    assert_eq!(images.load_state("localhost/hr:999", &digests[0]), LoadState::Yes);
    // Once for the driver and once for the lists, however many images there are.
    assert_eq!(opened.load(Ordering::Relaxed), 2);
}

#[test]
fn tells_a_directory_that_cannot_be_looked_into_from_an_empty_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new("overlay");
    fixture.storage();
    std::fs::set_permissions(fixture.root(), std::fs::Permissions::from_mode(0o000)).unwrap();
    let images = open(&fixture.root(), &[]).images();
    // Root may look everywhere.
    let expected = if nix::unistd::geteuid().is_root() { "0" } else { "belongs to another user" };
    let found = images.map_or_else(|e| e.to_string(), |i| i.iter().count().to_string());
    assert!(found.ends_with(expected), "{found}");
    std::fs::set_permissions(fixture.root(), std::fs::Permissions::from_mode(0o700)).unwrap();
}
