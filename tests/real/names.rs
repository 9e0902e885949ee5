//! What podman and skopeo say about a loaded image, against what the store says.

use serde_json::{Value, json};

use crate::cell::{Built, World, matrix};

matrix! {
    podman_images_shows_it,
    podman_images_finds_it_by_label,
    labels_annotations_and_id_are_ours,
    manifest_by_digest_is_ours,
    rmi_leaves_the_store,
    unload_takes_one_name,
    tagging_loads_the_new_name,
    list_says_what_is_loaded,
}

/// Returns every name that podman shows for an image ID.
fn names(world: &World, id: &str) -> Vec<String> {
    let images = world.podman(["images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"]).ok();
    let mut names: Vec<_> = images
        .lines()
        .filter_map(|line| line.strip_prefix("sha256:")?.strip_prefix(id))
        .map(|name| name.trim().to_owned())
        .collect();
    names.sort();
    names
}

fn image(world: &World, name: &str) -> Value {
    world.podman(["image", "inspect", name]).json()[0].take()
}

fn podman_images_shows_it(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    assert_eq!(built.name, "localhost/acme/hr:1.0.0-draft");
    assert_eq!(names(world, &built.id), [built.name]);
}

fn podman_images_finds_it_by_label(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    world.build("legal", "2.0.0", &[]);
    let found = world.podman(["images", "-q", "--no-trunc", "--filter", "label=io.skillimage.name=hr"]).ok();
    assert_eq!(found, format!("sha256:{}", built.id));
}

fn labels_annotations_and_id_are_ours(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    let seen = image(world, &built.name);
    assert_eq!(seen["Id"], json!(built.id));
    assert_eq!(seen["Labels"], built.config["config"]["Labels"]);
    assert_eq!(seen["Labels"]["io.skillimage.namespace"], "acme");
    assert_eq!(seen["RootFS"]["Layers"], built.config["rootfs"]["diff_ids"]);
    // One state is loaded, so podman's one record has this manifest's annotations.
    assert_eq!(seen["Annotations"], built.manifest["annotations"]);
    assert_eq!(seen["Annotations"]["io.skillimage.status"], "draft");
    assert_eq!(seen["Digest"], json!(built.digest));
}

fn manifest_by_digest_is_ours(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    let by_digest = format!("localhost/acme/hr@{}", built.digest);
    assert_eq!(image(world, &by_digest)["Id"], json!(built.id));
    let raw = world.skopeo(["inspect", "--raw", &format!("containers-storage:{by_digest}")]);
    assert_eq!(raw.code, 0, "{raw}");
    assert_eq!(
        raw.stdout.as_bytes(),
        world.blob(&built.digest),
        "the manifest changed on its way into containers-storage"
    );
}

fn rmi_leaves_the_store(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    world.podman(["rmi", &built.name]).ok();
    assert_eq!(names(world, &built.id), [""; 0]);
    world.skillctl(["fsck"]).ok();
    world.skillctl(["load", "acme/hr:1.0.0-draft"]).ok();
    assert_eq!(names(world, &built.id), [built.name]);
}

/// Builds a skill and gives it a second name.
fn two_names(world: &World) -> (Built, &'static str) {
    let built = world.build("hr", "1.0.0", &[]);
    world.skillctl(["tag", "acme/hr:1.0.0-draft", "acme/people:best"]).ok();
    (built, "localhost/acme/people:best")
}

fn tagging_loads_the_new_name(world: &World) {
    let (built, second) = two_names(world);
    assert_eq!(names(world, &built.id), [built.name.as_str(), second]);
}

fn unload_takes_one_name(world: &World) {
    let (built, second) = two_names(world);
    world.skillctl(["unload", "acme/hr:1.0.0-draft"]).ok();
    assert_eq!(names(world, &built.id), [second]);
    world.skillctl(["unload", "acme/people:best"]).ok();
    assert_eq!(names(world, &built.id), [""; 0]);
    let listed = world.skillctl(["list"]).ok();
    assert!(listed.contains("acme/hr") && listed.contains("acme/people"), "unload took it from the store:\n{listed}");
}

fn list_says_what_is_loaded(world: &World) {
    let built = world.build("hr", "1.0.0", &[]);
    world.build("legal", "2.0.0", &["--load", "never"]);
    let row = |name: &str| {
        let listed = world.skillctl(["list"]).ok();
        let row =
            listed.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{listed}"));
        row.split_whitespace().last().expect("a column").to_owned()
    };
    assert_eq!(row("acme/hr"), "yes");
    assert_ne!(row("acme/legal"), "yes");
    world.podman(["rmi", &built.name]).ok();
    assert_ne!(row("acme/hr"), "yes");
}
