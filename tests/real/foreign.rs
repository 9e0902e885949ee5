//! Layouts that umoci, buildah and skopeo wrote: each lists, inspects, checks, tags, loads and prunes here, and its writer
//! still reads it afterwards.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cell::{Done, World, matrix};

matrix! {
    a_layout_of_skopeo_works,
    an_unnamed_image_goes_by_digest,
}
// Debian has these tools in its stable releases, and the roots are small.
matrix! { @cell host_tools("host", "root", None), a_layout_of_umoci_works, a_layout_of_buildah_works, the_go_store_loads }
matrix! { @cell host_tools_rootless("host", "rootless", None), a_layout_of_buildah_works, the_go_store_loads }
matrix! { @cell sid_store("sid", "root", None), the_go_store_loads }

const NAME: &str = "acme/theirs:1";

/// A layout in the scratch directory.
struct Layout<'a> {
    world: &'a World,
    path: PathBuf,
}

impl<'a> Layout<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, path: world.path("layout") }
    }

    fn skillctl(&self, args: &[&str]) -> Done {
        let store = ["--store".as_ref(), self.path.as_os_str()];
        self.world.skillctl(store.into_iter().chain(args.iter().map(OsStr::new)))
    }

    /// Returns the layout's name for skopeo and its like.
    fn named(&self, name: &str) -> String {
        format!("{}:{name}", self.path.display())
    }

    fn json(&self, path: impl AsRef<Path>) -> Value {
        serde_json::from_slice(&fs::read(self.path.join(path)).expect("a file")).expect("JSON")
    }

    /// Everything that ours does with a layout, on the one image that is in this one.
    fn works(&self) {
        let digest = self.json("index.json")["manifests"][0]["digest"].clone();
        let digest = digest.as_str().expect("a digest");
        let manifest = self.json(format!("blobs/{}", digest.replace(':', "/")));
        let rows = self.skillctl(&["list", "--format", "json"]).json();
        let row = rows.as_array().expect("rows").iter().find(|row| row["reference"] == NAME);
        let row = row.unwrap_or_else(|| panic!("no {NAME} in {rows}"));
        assert_eq!((&row["digest"], &row["loaded"]), (&json!(digest), &json!("no")));
        let inspected = self.skillctl(&["inspect", NAME, "--format", "json"]).json();
        assert_eq!(inspected["digest"], json!(digest));
        assert_eq!(inspected["image_id"], manifest["config"]["digest"]);
        assert_eq!(inspected["layers"], json!(manifest["layers"].as_array().expect("layers").len()));
        self.whole(1);

        self.skillctl(&["tag", NAME, "acme/ours:2"]).ok();
        self.skillctl(&["load", NAME]).ok();
        for name in ["acme/ours:2", NAME] {
            let image = self.world.podman(["image", "inspect", &format!("localhost/{name}")]).json()[0].take();
            let config = manifest["config"]["digest"].as_str().expect("a digest");
            assert_eq!(image["Id"], json!(config.trim_start_matches("sha256:")), "{name}");
            let raw = self.world.skopeo(["inspect", "--raw", &format!("oci:{}", self.named(name))]);
            assert_eq!(serde_json::from_str::<Value>(&raw.ok()).expect("JSON"), manifest, "{name}");
        }
        self.whole(2);

        self.skillctl(&["rm", "-f", "acme/ours:2"]).ok();
        self.skillctl(&["prune", "--grace", "0"]).ok();
        self.whole(1);
        self.world.podman(["image", "exists", "localhost/acme/ours:2"]).fails(1);
        self.world.podman(["image", "exists", &format!("localhost/{NAME}")]).ok();
    }

    #[track_caller]
    fn whole(&self, entries: u64) {
        let report = self.skillctl(&["fsck", "--format", "json"]).json();
        assert_eq!((&report["entries"], &report["problems"]), (&json!(entries), &json!([])));
    }
}

fn a_layout_of_skopeo_works(world: &World) {
    let layout = Layout::new(world);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let from = format!("oci:{}:acme/hr:1.0.0-draft", world.store().display());
    world.skopeo(["copy", &from, &format!("oci:{}", layout.named(NAME))]).ok();
    layout.works();
    // skopeo copied the manifest as it was.
    let inspected = layout.skillctl(&["inspect", NAME, "--format", "json"]).json();
    assert_eq!((&inspected["digest"], &inspected["status"]), (&json!(built.digest), &json!("draft")));
}

fn a_layout_of_umoci_works(world: &World) {
    let layout = Layout::new(world);
    let skill = world.skill("hr", "1.0.0");
    let image = layout.named(NAME);
    let umoci = |args: &[&str]| world.run("umoci", args).ok();
    umoci(&["init", "--layout", layout.path.to_str().expect("UTF-8")]);
    umoci(&["new", "--image", &image]);
    umoci(&["config", "--image", &image, "--manifest.annotation", "org.opencontainers.image.version=3.0.0"]);
    umoci(&["insert", "--rootless", "--image", &image, skill.to_str().expect("UTF-8"), "/"]);
    // Each step left a manifest, of which only the last is named.
    umoci(&["gc", "--layout", layout.path.to_str().expect("UTF-8")]);
    layout.works();
    let inspected = layout.skillctl(&["inspect", NAME, "--format", "json"]).json();
    assert_eq!((&inspected["version"], &inspected["status"]), (&json!("3.0.0"), &json!("")));
    assert_eq!(umoci(&["ls", "--layout", layout.path.to_str().expect("UTF-8")]), NAME);
}

/// Builds with buildah, as people do who have no skillctl, and pushes to `target`.
pub fn buildah(world: &World, target: &str) {
    let skill = world.skill("hr", "1.0.0");
    // Not what the tests are about: rootless buildah needs its own namespace for its working container.
    let script = format!(
        "c=$(buildah from scratch) && buildah copy -q $c {} / && buildah config --label io.skillimage.name=hr $c && \
         buildah commit -q $c localhost/built && buildah rm $c && buildah push -q localhost/built {target} && buildah rmi localhost/built",
        skill.display()
    );
    world.run("sh", ["-ec", &script]).ok();
}

fn a_layout_of_buildah_works(world: &World) {
    let layout = Layout::new(world);
    buildah(world, &format!("oci:{}", layout.named(NAME)));
    layout.works();
}

/// An image without a name is inspected and tagged by its digest, and prune takes it.
fn an_unnamed_image_goes_by_digest(world: &World) {
    let layout = Layout::new(world);
    let built = world.build("hr", "1.0.0", &["--load=never"]);
    let from = format!("oci:{}:acme/hr:1.0.0-draft", world.store().display());
    world.skopeo(["copy", &from, &format!("oci:{}", layout.path.display())]).ok();
    assert!(layout.json("index.json")["manifests"][0]["annotations"].is_null());
    layout.whole(1);
    let inspected = layout.skillctl(&["inspect", &built.digest]).ok();
    assert_eq!(inspected.lines().next(), Some(&*format!("Skill:        {}", built.digest)));
    layout.skillctl(&["tag", &built.digest, "acme/hr:mine"]).ok();
    let image = world.podman(["image", "inspect", "localhost/acme/hr:mine"]).json()[0].take();
    assert_eq!(image["Digest"], json!(built.digest));
    layout.skillctl(&["rm", "-f", "acme/hr:mine"]).ok();
    layout.skillctl(&["prune", "--grace", "0"]).ok();
    assert_eq!(fs::read_dir(layout.path.join("blobs/sha256")).expect("blobs").count(), 0);
}

/// What the real Go tool built is what podman mounts.
fn the_go_store_loads(world: &World) {
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/go-skillctl.tar.gz");
    world.run("tar", ["-xzf", archive]).ok();
    let layout = Layout { world, path: world.path("store") };
    let rows = layout.skillctl(&["list", "--format", "json"]).json();
    let rows = rows.as_array().expect("rows");
    assert_eq!(rows.len(), 15);
    for row in rows {
        let reference = row["reference"].as_str().expect("a reference");
        let loaded = layout.skillctl(&["load", reference]);
        if reference == "acme/tools/beta:0.2.0-draft" {
            // Built for oc-mirror, which no version of podman takes.
            let error = loaded.fails(2);
            assert!(error.contains("media type application/vnd.redhat.agentskill.config.v1+json"), "{error}");
            continue;
        }
        loaded.ok();
        let inspected = layout.skillctl(&["inspect", reference, "--format", "json"]).json();
        // One of them was pulled, and keeps its registry.
        let registry = if reference.starts_with("registry.example/") { "" } else { "localhost/" };
        let image = world.podman(["image", "inspect", &format!("{registry}{reference}")]).json()[0].take();
        let id = inspected["image_id"].as_str().expect("an ID").trim_start_matches("sha256:");
        assert_eq!(image["Id"], json!(id), "{reference}");
        let (name, digest) = (row["name"].as_str().expect("a name"), row["digest"].as_str().expect("a digest"));
        world.podman(["image", "exists", &format!("{registry}{name}@{digest}")]).ok();
    }
    layout.whole(17);
    let seen = world.in_agent(
        &["--mount", "type=image,source=localhost/acme/alpha:1.0.0,destination=/skills/alpha"],
        "ls /skills/alpha && test -s /skills/alpha/SKILL.md",
    );
    assert!(seen.ok().contains("skill.yaml"));
}
