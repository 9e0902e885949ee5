//! Our layout, read and written by other projects' tools.
//!
//! They read it while our locks are held and an unfinished file is in `.tmp`: an image layout may have more in it than the
//! specification names, and each of these tools must agree.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

use crate::cell::{Built, World, matrix};

matrix! {
    skopeo_reads_our_layout,
    podman_pulls_our_layout,
    inspect_reads_every_transport,
}
// Debian has these tools in some releases only.
matrix! { @cell host_tools("host", "root", None), umoci_unpacks_our_layout, umoci_writes_into_our_layout }
matrix! { @cell host_tools_rootless("host", "rootless", None), umoci_unpacks_our_layout }
matrix! { @cell sid_tools("sid", "root", None), crane_pushes_our_layout, oras_reads_our_layout }

const NAME: &str = "acme/hr:1.0.0-draft";

/// A store that another process is writing to.
struct Busy {
    built: Built,
    _locks: Vec<Flock<File>>,
}

fn busy(world: &World) -> Busy {
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let store = world.store();
    fs::create_dir_all(store.join(".tmp/1-2-3")).expect("a directory");
    fs::write(store.join(".tmp/1-2-4"), "half a blob").expect("an unfinished file");
    let lock = |name: &str| {
        let file = File::options().read(true).write(true).open(store.join(name)).expect("a lock file");
        Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("nobody else has it")
    };
    Busy { built, _locks: vec![lock(".lock"), lock(".gc.lock")] }
}

fn layout(world: &World) -> String {
    format!("{}:{NAME}", world.store().display())
}

/// Through skopeo's image proxy, whose protocol differs from release to release.
fn inspect_reads_every_transport(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    let source = format!("oci:{}", layout(world));
    let archive = format!("oci-archive:{}:{NAME}", world.path("hr.tar").display());
    let directory = format!("dir:{}", world.path("hr.dir").display());
    for copy in [&archive, &directory] {
        world.skopeo(["copy", &source, copy]).ok();
    }
    for reference in [&source, &archive, &directory] {
        let inspected = world.skillctl(["inspect", reference, "--format", "json"]).json();
        assert_eq!(inspected["digest"], json!(built.digest), "{reference}");
        assert_eq!((&inspected["status"], &inspected["version"]), (&json!("draft"), &json!("1.0.0")));
        assert_eq!(inspected["skill"], json!(reference));
    }
    let missing = world.skillctl(["inspect", &format!("oci:{}:acme/none:1", world.store().display())]);
    assert_eq!(missing.code, 2, "{missing}");
    assert!(missing.stderr.contains("image not found: "), "{missing}");
}

fn skopeo_reads_our_layout(world: &World) {
    let Busy { built, _locks } = busy(world);
    let source = format!("oci:{}", layout(world));
    let raw = world.skopeo(["inspect", "--raw", &source]);
    assert_eq!(raw.code, 0, "{raw}");
    assert_eq!(raw.stdout.as_bytes(), world.blob(&built.digest));
    let out = world.path("dir");
    world.skopeo(["copy", &source, &format!("dir:{}", out.display())]).ok();
    assert_eq!(fs::read(out.join("manifest.json")).expect("a manifest"), world.blob(&built.digest));
    for blob in [&built.manifest["config"], &built.manifest["layers"][0]] {
        let digest = blob["digest"].as_str().expect("a digest");
        let copied = fs::read(out.join(digest.trim_start_matches("sha256:"))).expect("a blob");
        assert_eq!(copied, world.blob(digest), "{digest}");
    }
}

/// `podman pull` takes the image as it is, and names it by rules of its own: this is why we load by `skopeo copy`, with a name.
fn podman_pulls_our_layout(world: &World) {
    let Busy { built, _locks } = busy(world);
    // podman 4 makes a name of the path, and so fails below a directory such as .local, where a user's store is.
    let copy = world.home().join("layout");
    world.run("cp", ["-a".as_ref(), world.store().as_os_str(), copy.as_os_str()]).ok();
    let id = world.podman(["pull", "-q", &format!("oci:{}:{NAME}", copy.display())]).ok();
    assert_eq!(id, built.id);
    let image = world.podman(["image", "inspect", &id]).json()[0].take();
    assert_eq!(image["Digest"], json!(built.digest));
    let name = match world.podman_version() {
        (4, _) => format!("localhost{}:latest", copy.display()),
        _ => format!("docker.io/{NAME}"),
    };
    assert_eq!(image["RepoTags"], json!([name]));
    // It is not mistaken for the loaded one.
    let rows = world.skillctl(["list", "--format", "json"]).json();
    let ours = rows.as_array().expect("rows").iter().find(|row| row["reference"] == NAME).expect("our row");
    assert_eq!(ours["loaded"], "no");
}

fn umoci_unpacks_our_layout(world: &World) {
    let Busy { built: _, _locks } = busy(world);
    assert_eq!(world.run("umoci", ["ls".as_ref(), "--layout".as_ref(), world.store().as_os_str()]).ok(), NAME);
    let bundle = world.path("bundle");
    let args = ["unpack", "--rootless", "--image", &layout(world), bundle.to_str().expect("UTF-8")];
    world.run("umoci", args).ok();
    for (file, mode) in [("SKILL.md", 0o644), ("skill.yaml", 0o644), ("scripts/greet.sh", 0o755)] {
        let (theirs, ours) = (bundle.join("rootfs").join(file), world.path("hr").join(file));
        assert_eq!(fs::read(&theirs).expect(file), fs::read(ours).expect(file), "{file}");
        assert_eq!(fs::metadata(theirs).expect(file).permissions().mode() & 0o777, mode, "{file}");
    }
}

/// umoci takes no lock of ours: it tags, collects garbage, and everything of ours is still there.
fn umoci_writes_into_our_layout(world: &World) {
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    world.build("legal", "2.0.0", &["--load=never"]);
    world.run("umoci", ["tag", "--image", &layout(world), "acme/hr:theirs"]).ok();
    world.run("umoci", ["gc".as_ref(), "--layout".as_ref(), world.store().as_os_str()]).ok();
    let inspected = world.skillctl(["inspect", "acme/hr:theirs", "--format", "json"]).json();
    assert_eq!(inspected["digest"], json!(built.digest));
    assert_eq!(references(world), [NAME, "acme/hr:theirs", "acme/legal:2.0.0-draft"]);
    let report = world.skillctl(["fsck", "--format", "json"]).json();
    assert_eq!((&report["entries"], &report["problems"]), (&json!(3), &json!([])));
    world.skillctl(["load", "acme/hr:theirs"]).ok();
    world.podman(["image", "exists", "localhost/acme/hr:theirs"]).ok();
}

fn references(world: &World) -> Vec<String> {
    let rows = world.skillctl(["list", "--format", "json"]).json();
    let rows = rows.as_array().expect("rows").iter();
    rows.map(|row| row["reference"].as_str().expect("a reference").to_owned()).collect()
}

/// An in-memory registry on a port of its own, which ends with this value.
pub struct Registry(Child, pub String);

impl Registry {
    /// Starts it.
    pub fn serve(world: &World) -> Self {
        let mut command = world.command("crane", ["registry", "serve", "--address", "127.0.0.1:0"]);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("crane");
        let mut log = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let port = log.by_ref().find_map(|line| line.ok()?.split_once("serving on port ").map(|(_, p)| p.to_owned()));
        // Its log is read to the end, so that it never waits for a reader.
        std::thread::spawn(move || log.for_each(drop));
        Self(child, format!("127.0.0.1:{}", port.expect("a port")))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// crane pushes a layout whole, as an index; the bytes that arrive are ours.
fn crane_pushes_our_layout(world: &World) {
    let Busy { built, _locks } = busy(world);
    let registry = Registry::serve(world);
    let store = world.store();
    let target = format!("{}/acme/hr", registry.1);
    let push = |flags: &[&str], tag: &str| {
        let args = ["push"].into_iter().chain(flags.iter().copied());
        let args: Vec<_> = args.chain([store.to_str().expect("UTF-8"), tag]).collect();
        world.run("crane", args).ok();
    };
    push(&["--index"], &format!("{target}:all"));
    let index: Value = world.run("crane", ["manifest", &format!("{target}:all")]).json();
    assert_eq!(index["manifests"][0]["digest"], json!(built.digest));
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], NAME);
    // A layout of one image also goes without an index.
    push(&[], &format!("{target}:one"));
    for reference in [format!("{target}@{}", built.digest), format!("{target}:one")] {
        let fetched = world.run("crane", ["manifest", &reference]);
        assert_eq!(fetched.stdout.as_bytes(), world.blob(&built.digest), "{fetched}");
    }
    let valid = world.run("crane", ["validate", "--remote", &format!("{target}:one")]);
    assert!(valid.code == 0 && valid.stdout.contains("PASS"), "{valid}");
}

fn oras_reads_our_layout(world: &World) {
    let Busy { built, _locks } = busy(world);
    let store = world.store();
    let store = store.to_str().expect("UTF-8");
    let raw = world.run("oras", ["manifest", "fetch", "--oci-layout-path", store, NAME]);
    assert_eq!(raw.stdout.as_bytes(), world.blob(&built.digest), "{raw}");
    assert_eq!(world.run("oras", ["repo", "tags", "--oci-layout-path", store, "acme/hr"]).ok(), "1.0.0-draft");
    let copy = world.path("copy");
    let to = copy.to_str().expect("UTF-8");
    world.run("oras", ["copy", "--from-oci-layout-path", store, NAME, "--to-oci-layout-path", to, "acme/copy:1"]).ok();
    assert_copied(world, &copy, &built);
}

/// What oras wrote opens here, with every blob.
fn assert_copied(world: &World, copy: &Path, built: &Built) {
    let ours = |args: &[&str]| {
        let store = ["--store".as_ref(), copy.as_os_str()];
        world.skillctl(store.into_iter().chain(args.iter().map(std::ffi::OsStr::new)))
    };
    assert_eq!(ours(&["inspect", "acme/copy:1", "--format", "json"]).json()["digest"], json!(built.digest));
    let report = ours(&["fsck", "--format", "json"]).json();
    assert_eq!((&report["blobs"], &report["problems"]), (&json!(3), &json!([])));
}
