//! An ImageSetConfiguration for oc-mirror v2: which skill images a disconnected registry gets.

use serde_json::{Value, json};

/// Returns the document for images that are named `REGISTRY/NAME[:TAG]@DIGEST`.
///
/// JSON strings are YAML's double-quoted ones, so that nothing in a name can be read as anything but a name.
pub fn imageset(images: &[String]) -> String {
    let mut text =
        "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  additionalImages:\n"
            .to_owned();
    for image in images {
        text += &format!("    - name: {}\n", Value::from(image.as_str()));
    }
    text
}

/// Returns the same as a value.
pub fn imageset_json(images: &[String]) -> Value {
    let images: Vec<Value> = images.iter().map(|name| json!({"name": name})).collect();
    json!({
        "apiVersion": "mirror.openshift.io/v2alpha1",
        "kind": "ImageSetConfiguration",
        "mirror": {"additionalImages": images},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let images = ["registry.example/acme/hr:1.0.0@sha256:0".to_owned(), "a\"\n  b: c".to_owned()];
        assert_eq!(
            imageset(&images),
            "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  additionalImages:\n    \
             - name: \"registry.example/acme/hr:1.0.0@sha256:0\"\n    - name: \"a\\\"\\n  b: c\"\n"
        );
    }
}
