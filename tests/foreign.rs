//! Images as other tools would write them into the store.

use std::fs;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub use crate::forms::{LAYER, Part, tar_gz};
use crate::support::World;

/// Writes a blob, and returns its descriptor.
fn blob(world: &World, bytes: &[u8], media_type: &str) -> Value {
    let digest = hex::encode(Sha256::digest(bytes));
    fs::write(world.store().join("blobs/sha256").join(&digest), bytes).unwrap();
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
}

fn annotations() -> Value {
    json!({"io.skillimage.status": "draft", "org.opencontainers.image.version": "1.0.0"})
}

/// Writes an image of some files, and returns its descriptor.
pub fn image(world: &World, files: &[(&str, &str)]) -> Value {
    image_of(world, files, LAYER)
}

/// The same with another media type of the layer.
pub fn image_of(world: &World, files: &[(&str, &str)], media_type: &str) -> Value {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let layer = blob(world, &tar_gz(tar), media_type);
    let config = blob(world, br#"{"architecture":"amd64","os":"linux"}"#, "application/vnd.oci.image.config.v1+json");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer], "annotations": annotations()});
    blob(world, manifest.to_string().as_bytes(), media_type)
}

/// Writes an artifact, and returns its descriptor.
pub fn artifact(world: &World, artifact_type: &str, config: &str, parts: &[Part], annotations: &Value) -> Value {
    let layer = |part: &Part| {
        let mut layer = blob(world, &part.bytes, &part.media_type);
        layer["annotations"] = part.annotations.clone();
        layer
    };
    let layers: Vec<Value> = parts.iter().map(layer).collect();
    let config = blob(world, b"{}", config);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let mut manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers, "annotations": annotations});
    if !artifact_type.is_empty() {
        manifest["artifactType"] = artifact_type.into();
    }
    blob(world, manifest.to_string().as_bytes(), media_type)
}

/// Writes an index of images for platforms, and returns its descriptor.
pub fn index(world: &World, images: &[(&str, Value)]) -> Value {
    let instance = |(platform, image): &(&str, Value)| {
        let (os, architecture) = platform.split_once('/').unwrap();
        let mut image = image.clone();
        image["platform"] = json!({"os": os, "architecture": architecture});
        image
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let manifests: Vec<Value> = images.iter().map(instance).collect();
    let index =
        json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests, "annotations": annotations()});
    blob(world, index.to_string().as_bytes(), media_type)
}

/// Gives an image a name.
pub fn tag(world: &World, image: &Value, name: &str) {
    let mut entry = image.clone();
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let path = world.store().join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["manifests"].as_array_mut().unwrap().push(entry);
    fs::write(path, index.to_string()).unwrap();
}

/// Gives an image the name of a draft, and returns that.
pub fn draft(world: &World, image: &Value) -> &'static str {
    let name = "acme/theirs:1.0.0-draft";
    tag(world, image, name);
    name
}
