use cap_std::ambient_authority;
use oci_spec::image::{DescriptorBuilder, MediaType};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::store::storage_conf::{StorageConf, StorageEnv, discover};
use crate::store::storage_unload::OUR_LABEL;

/// A store with blobs, and a storage beside it that does not exist yet.
struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("store/blobs/sha256")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let hex = hex::encode(Sha256::digest(bytes));
        std::fs::write(self.path("store/blobs/sha256").join(&hex), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    }

    fn manifest(&self, config: &Value, layer: &Value) -> Descriptor {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]});
        descriptor(&self.blob(media_type, manifest.to_string().as_bytes()))
    }

    fn store(&self) -> Dir {
        Dir::open_ambient_dir(self.path("store"), ambient_authority()).unwrap()
    }

    fn conf(&self) -> StorageConf {
        let mut conf = discover(&StorageEnv::default(), |_| None).unwrap();
        (conf.graph_root, conf.run_root) = (self.path("root"), self.path("run"));
        conf
    }
}

fn descriptor(blob: &Value) -> Descriptor {
    let digest: oci_spec::image::Digest = blob["digest"].as_str().unwrap().parse().unwrap();
    let builder = DescriptorBuilder::default().media_type(MediaType::ImageManifest).digest(digest);
    builder.size(blob["size"].as_u64().unwrap()).build().unwrap()
}

fn storage(conf: StorageConf) -> Storage {
    Storage::new(conf, Box::new(|p| Dir::open_ambient_dir(p, ambient_authority())))
}

#[test]
fn refuses_before_skopeo_what_cannot_be_loaded() {
    let fixture = Fixture::new();
    let layer = fixture.blob("application/vnd.redhat.agentskill.layer.v1.tar+gzip", b"layer");
    let config = fixture.blob("application/vnd.redhat.agentskill.config.v1+json", b"{}");
    let store = fixture.store();
    let manifest = fixture.manifest(&config, &layer);
    let path = fixture.path("store");
    let load = Load {
        store: &store,
        store_path: &path,
        work: (&store, &path),
        manifest: &manifest,
        name: "localhost/a:1",
        platform: None,
        timeout: LOAD_TIMEOUT,
    };
    let tools = Tools { skopeo: "/nonexistent".into(), ..Tools::default() };
    let error = storage(fixture.conf()).load(&load, &tools).unwrap_err();
    let expected = "containers-storage takes no images of media type application/vnd.redhat.agentskill.config.v1+json";
    assert_eq!(error.to_string(), expected);
    let blob = path.join("blobs/sha256").join(manifest.digest().digest());
    std::fs::write(&blob, "{}").unwrap();
    assert!(matches!(storage(fixture.conf()).load(&load, &tools), Err(Error::Damaged { .. })));
    std::fs::remove_file(&blob).unwrap();
    let error = storage(fixture.conf()).load(&load, &tools).unwrap_err().to_string();
    assert!(error.ends_with("is damaged: it is not in the store"), "{error}");
}

#[test]
fn leaves_no_private_layout_behind() {
    let fixture = Fixture::new();
    let layer = fixture.blob("application/vnd.oci.image.layer.v1.tar+gzip", b"layer");
    let manifest = fixture.manifest(&fixture.blob("application/vnd.oci.image.config.v1+json", b"{}"), &layer);
    let (store, path) = (fixture.store(), fixture.path("store"));
    let load = Load {
        store: &store,
        store_path: &path,
        work: (&store, &path),
        manifest: &manifest,
        name: "localhost/a:1",
        platform: None,
        timeout: LOAD_TIMEOUT,
    };
    let tools = Tools { skopeo: "/nonexistent".into(), installer: Some("dnf install".into()), ..Tools::default() };
    let error = storage(fixture.conf()).load(&load, &tools).unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("dnf install skopeo"));
    assert_eq!(std::fs::read_dir(path.join(".tmp")).unwrap().count(), 0);
    let layout = PrivateLayout::of(&store, &path, &manifest).unwrap();
    let index: Value = serde_json::from_slice(&std::fs::read(layout.path().join("index.json")).unwrap()).unwrap();
    let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest.digest().to_string(), "size": manifest.size()});
    assert_eq!(index, json!({"schemaVersion": 2, "manifests": [entry]}));
    // Another one beside it, and one whose name a crashed process left.
    let second = PrivateLayout::of(&store, &path, &manifest).unwrap();
    assert_ne!(second.path(), layout.path());
    let colon = PrivateLayout::empty(&store, Path::new("/a:b"));
    assert!(colon.unwrap_err().to_string().contains("colon"));
}

#[test]
fn spells_the_storage_only_when_flags_named_it() {
    let mut conf = Fixture::new().conf();
    (conf.graph_root, conf.run_root) = ("/g".into(), "/r".into());
    let spelled =
        |conf: &StorageConf| storage(conf.clone()).skopeo_reference("localhost/a:1").map_err(|e| e.to_string());
    assert_eq!(spelled(&conf).unwrap(), "containers-storage:localhost/a:1");
    conf.flags.root = Some("/g".into());
    assert_eq!(spelled(&conf).unwrap(), "containers-storage:[/g+/r]localhost/a:1");
    conf.driver = Driver::Vfs;
    assert_eq!(spelled(&conf).unwrap(), "containers-storage:[vfs@/g+/r]localhost/a:1");
    conf.driver = Driver::Overlay;
    conf.additional = vec!["/x".into(), "/y".into()];
    let expected = "containers-storage:[overlay@/g+/r:overlay.imagestore=/x,overlay.imagestore=/y]localhost/a:1";
    assert_eq!(spelled(&conf).unwrap(), expected);
    conf.graph_root = "/g:1".into();
    assert!(spelled(&conf).unwrap_err().starts_with("/g:1: skopeo cannot"));
}

#[test]
fn sees_who_holds_a_lock() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.path("root/overlay-images")).unwrap();
    std::fs::write(fixture.path("root/overlay-images/images.lock"), "").unwrap();
    let storage = storage(fixture.conf());
    assert_eq!(storage.lock_holder(), None);
    // Open file description locks conflict between two opens of one process, so no second process is needed.
    let file = std::fs::File::options().write(true).open(fixture.path("root/overlay-images/images.lock")).unwrap();
    let lock = libc::flock { l_type: libc::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    assert_eq!(storage.lock_holder(), Some(-1));
    drop(file);
    assert_eq!(storage.lock_holder(), None);
}

#[test]
fn takes_whole_names_only() {
    for name in ["localhost/hr:1", "localhost/acme/a__b:_x", "localhost:5000/q/hr:1.0.0-", "quay.io/a/b:1"] {
        assert!(check_name(name).is_ok(), "{name}");
    }
    for name in ["hr:1", "acme/hr:1", "localhost/hr", "localhost:5000/hr", "[overlay@/x+/y.z]localhost/hr:1", ""] {
        assert!(matches!(check_name(name), Err(Error::InvalidReference { .. })), "{name}");
    }
}

/// An image with one file, as a layer that is not compressed.
fn image(fixture: &Fixture, text: &str, title: &str) -> Descriptor {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "SKILL.md", text.as_bytes()).unwrap();
    let layer = fixture.blob("application/vnd.oci.image.layer.v1.tar", &tar.into_inner().unwrap());
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Labels": {OUR_LABEL: "hr"}},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = fixture.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer], "annotations": {"t": title},
    });
    descriptor(&fixture.blob(media_type, manifest.to_string().as_bytes()))
}

#[test]
#[ignore = "needs skopeo and podman: make test"]
fn loads_and_unloads_with_skopeo_and_podman() {
    for driver in ["overlay", "vfs"] {
        let fixture = Fixture::new();
        let [draft, published, next] =
            [("a", "draft"), ("a", "published"), ("b", "draft")].map(|(x, t)| image(&fixture, x, t));
        let mut conf = fixture.conf();
        conf.driver = Driver::from_name(driver);
        conf.flags.root = Some(conf.graph_root.clone());
        conf.flags.runroot = Some(conf.run_root.clone());
        conf.flags.driver = Some(driver.into());
        let (storage, store, store_path) = (storage(conf), fixture.store(), fixture.path("store"));
        let tools = Tools::default();
        let load = |manifest: &Descriptor, name: &str| {
            let load = Load {
                store: &store,
                store_path: &store_path,
                work: (&store, &store_path),
                manifest,
                name,
                platform: None,
                timeout: LOAD_TIMEOUT,
            };
            storage.load(&load, &tools).unwrap()
        };
        let first = load(&draft, "localhost/hr:1-draft");
        assert_eq!((first.already, first.removed.as_deref()), (false, None));
        assert!(load(&draft, "localhost/hr:1-draft").already);
        assert_eq!(load(&published, "localhost/hr:1").image_id, first.image_id);
        let images = storage.images().unwrap();
        for (name, manifest) in [("localhost/hr:1-draft", &draft), ("localhost/hr:1", &published)] {
            assert_eq!(images.load_state(name, manifest.digest().as_ref()), LoadState::Yes);
        }
        let dir = storage.open_diff(&images, images.by_name("localhost/hr:1").unwrap()).unwrap().unwrap();
        assert_eq!(dir.read_to_string("SKILL.md").unwrap(), "a");
        // Taking one name away leaves the other; a load over the last one removes what it stood for.
        assert!(!storage.unload("localhost/hr:1", &tools).unwrap().removed);
        assert_eq!(load(&next, "localhost/hr:1-draft").removed.as_ref(), Some(&first.image_id));
        assert!(storage.unload("localhost/hr:1-draft", &tools).unwrap().removed);
        assert_eq!(storage.images().unwrap().iter().count(), 0);
        // An index without this host's platform.
        let media_type = "application/vnd.oci.image.index.v1+json";
        let entry = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": next.digest().to_string(),
            "size": next.size(), "platform": {"os": "plan9", "architecture": "mips"},
        });
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [entry]});
        let mut index = descriptor(&fixture.blob(media_type, index.to_string().as_bytes()));
        index.set_media_type(MediaType::ImageIndex);
        let load = Load {
            store: &store,
            store_path: &store_path,
            work: (&store, &store_path),
            manifest: &index,
            name: "localhost/i:1",
            platform: None,
            timeout: LOAD_TIMEOUT,
        };
        let error = storage.load(&load, &tools).unwrap_err().to_string();
        assert_eq!(error, "it has no image for this host, only for plan9/mips");
    }
}
