use super::*;

fn root() -> StorageEnv {
    StorageEnv { home: Some("/root".into()), user: Some("root".into()), ..StorageEnv::default() }
}

fn user() -> StorageEnv {
    StorageEnv {
        uid: 1000,
        user: Some("u".into()),
        home: Some("/home/u".into()),
        xdg_runtime_dir: Some("/run/user/1000".into()),
        ..StorageEnv::default()
    }
}

fn found(env: &StorageEnv, files: &[(&str, &str)]) -> StorageConf {
    let read = |path: &Path| files.iter().find(|(p, _)| Path::new(p) == path).map(|(_, text)| (*text).to_owned());
    discover(env, read).unwrap()
}

/// What it is about, the environment, the files, and what is found.
type Case<'a> = (&'a str, StorageEnv, Vec<(&'a str, &'a str)>, Expected<'a>);

/// Graph root, run root, driver, additional stores.
type Expected<'a> = (&'a str, &'a str, &'a str, &'a [&'a str]);

#[test]
fn finds_the_storage() {
    let etc = "/etc/containers/storage.conf";
    let share = "/usr/share/containers/storage.conf";
    let own = "/home/u/.config/containers/storage.conf";
    let full = "[storage]\ndriver=\"overlay2\"\ngraphroot=\"/g\"\nrunroot=\"/r\"\n[storage.options]\nadditionalimagestores=[\"/a\",\"/b\"]\n[storage.options.overlay]\nmountopt=\"x\"";
    let with = |mut env: StorageEnv, change: fn(&mut StorageEnv)| {
        change(&mut env);
        env
    };
    let cases: Vec<Case> = vec![
        ("root, nothing", root(), vec![], ("/var/lib/containers/storage", "/run/containers/storage", "unknown", &[])),
        (
            "root, /etc wins",
            root(),
            vec![(share, "[storage]\ndriver=\"vfs\""), (etc, full)],
            ("/g", "/r", "overlay", &["/a", "/b"]),
        ),
        (
            "root, /usr/share",
            root(),
            vec![(share, "[storage]\ndriver=\"btrfs\"")],
            ("/var/lib/containers/storage", "/run/containers/storage", "btrfs", &[]),
        ),
        (
            "root, no user file",
            root(),
            vec![("/root/.config/containers/storage.conf", full)],
            ("/var/lib/containers/storage", "/run/containers/storage", "unknown", &[]),
        ),
        (
            "user, nothing",
            user(),
            vec![],
            ("/home/u/.local/share/containers/storage", "/run/user/1000/containers", "unknown", &[]),
        ),
        (
            "user, system file gives the driver only",
            user(),
            vec![(etc, full)],
            ("/home/u/.local/share/containers/storage", "/run/user/1000/containers", "overlay", &[]),
        ),
        (
            "user, rootless_storage_path",
            user(),
            vec![(etc, "[storage]\ngraphroot=\"/g\"\nrootless_storage_path=\"/data/$USER/${UID}/$HOME$X\"")],
            ("/data/u/1000//home/u$X", "/run/user/1000/containers", "unknown", &[]),
        ),
        (
            "user, own file",
            user(),
            vec![(etc, "[storage]\ndriver=\"vfs\""), (own, full)],
            ("/g", "/r", "overlay", &["/a", "/b"]),
        ),
        (
            "user, own file is whole",
            user(),
            vec![(etc, "[storage]\ndriver=\"vfs\""), (own, "[storage]\nrunroot=\"/r\"")],
            ("/home/u/.local/share/containers/storage", "/r", "unknown", &[]),
        ),
        (
            "user, own file without graphroot keeps the system's path",
            user(),
            vec![(etc, "[storage]\nrootless_storage_path=\"/d\""), (own, "[storage]\ndriver=\"vfs\"")],
            ("/d", "/run/user/1000/containers", "vfs", &[]),
        ),
        (
            "user, XDG",
            with(user(), |e| {
                e.xdg_data_home = Some("/d".into());
                e.xdg_config_home = Some("/c".into());
            }),
            vec![(own, full), ("/c/containers/storage.conf", "[storage]\ndriver=\"vfs\"")],
            ("/d/containers/storage", "/run/user/1000/containers", "vfs", &[]),
        ),
        (
            "CONTAINERS_STORAGE_CONF is alone",
            with(root(), |e| e.containers_storage_conf = Some("/x".into())),
            vec![(etc, full), ("/x", "[storage]\ndriver=\"vfs\"")],
            ("/var/lib/containers/storage", "/run/containers/storage", "vfs", &[]),
        ),
        (
            "CONTAINERS_STORAGE_CONF, user",
            with(user(), |e| e.containers_storage_conf = Some("/x".into())),
            vec![(own, "[storage]\ndriver=\"vfs\""), ("/x", full)],
            ("/g", "/r", "overlay", &["/a", "/b"]),
        ),
        (
            "CONTAINERS_STORAGE_CONF, missing",
            with(user(), |e| e.containers_storage_conf = Some("/x".into())),
            vec![(own, full), (etc, full)],
            ("/home/u/.local/share/containers/storage", "/run/user/1000/containers", "unknown", &[]),
        ),
        (
            "environment",
            with(root(), |e| {
                e.storage_driver = Some("vfs".into());
                e.storage_opts = Some("overlay.mountopt=nodev,additionalimagestore=/o,overlay.imagestore=/p".into());
            }),
            vec![(etc, full)],
            ("/g", "/r", "vfs", &["/o", "/p"]),
        ),
        (
            "empty environment",
            with(root(), |e| {
                e.storage_driver = Some(String::new());
                e.storage_opts = Some(String::new());
            }),
            vec![(etc, full)],
            ("/g", "/r", "overlay", &["/a", "/b"]),
        ),
        ("--root", with(root(), |e| e.flags.root = Some("/f".into())), vec![(etc, full)], ("/f", "/r", "overlay", &[])),
        (
            "--runroot",
            with(root(), |e| e.flags.runroot = Some("/f".into())),
            vec![(etc, full)],
            ("/g", "/f", "overlay", &["/a", "/b"]),
        ),
        (
            "--storage-driver",
            with(root(), |e| {
                e.flags.driver = Some("vfs".into());
                e.storage_driver = Some("overlay".into());
            }),
            vec![(etc, full)],
            ("/g", "/r", "vfs", &[]),
        ),
        (
            "no XDG_RUNTIME_DIR",
            with(user(), |e| e.xdg_runtime_dir = None),
            vec![],
            ("/home/u/.local/share/containers/storage", "/run/user/1000/containers", "unknown", &[]),
        ),
        (
            "no home, --root",
            with(user(), |e| {
                e.home = None;
                e.flags.root = Some("/f".into());
            }),
            vec![],
            ("/f", "/run/user/1000/containers", "unknown", &[]),
        ),
    ];
    for (what, env, files, (graph, run, driver, additional)) in cases {
        let conf = found(&env, &files);
        assert_eq!(conf.graph_root, Path::new(graph), "{what}");
        assert_eq!(conf.run_root, Path::new(run), "{what}");
        assert_eq!(conf.driver.to_string(), driver, "{what}");
        assert_eq!(conf.additional, additional.iter().map(PathBuf::from).collect::<Vec<_>>(), "{what}");
    }
}

#[test]
fn finds_the_image_store() {
    let conf = found(&root(), &[("/etc/containers/storage.conf", "[storage]\nimagestore=\"/i\"")]);
    assert_eq!(conf.image_store.as_deref(), Some(Path::new("/i")));
}

#[test]
fn says_which_file_is_malformed_and_what_is_unset() {
    let error = discover(&root(), |_| Some("[storage".into())).unwrap_err().to_string();
    assert!(error.starts_with("/etc/containers/storage.conf: "), "{error}");
    let homeless = StorageEnv { home: None, ..user() };
    let error = discover(&homeless, |_| None).unwrap_err();
    assert!(error.to_string().contains("neither HOME nor XDG_DATA_HOME is set"));
    assert_eq!(error.hint().as_deref(), Some("set HOME, or give --root"));
}

#[test]
fn hands_the_flags_to_podman() {
    let flags = StoreFlags { root: Some("/f".into()), runroot: Some("/r".into()), driver: Some("vfs".into()) };
    let process = flags.podman(Process::new("echo")).arg("info");
    assert_eq!(process.run().unwrap(), b"--root /f --runroot /r --storage-driver vfs info\n");
    assert_eq!(StoreFlags::default().podman(Process::new("echo")).run().unwrap(), b"\n");
}
