//! Images made from a tar and a configuration, for a registry.

use std::fs;
use std::path::Path;
use std::process::Command;

use kanna::oci::Digest;
use serde_json::{Value, json};

use super::command::run;
use super::registry::Registry;

/// Writes an OCI layout with one image of one layer: the tar as it is, and the configuration with the fields added that
/// only the layer knows.
pub fn write(layout: &Path, layer_tar: &[u8], mut config: Value) {
    let diff_id = Digest::of(layer_tar);
    config["rootfs"] = json!({"type": "layers", "diff_ids": [diff_id.to_string()]});
    config["history"] = json!([{"created_by": "base layer"}]);
    let config = config.to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer_tar)],
    })
    .to_string();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes())],
    });
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("created");
    for blob in [layer_tar, config.as_bytes(), manifest.as_bytes()] {
        fs::write(blobs.join(Digest::of(blob).hex()), blob).expect("written");
    }
    fs::write(layout.join("index.json"), index.to_string()).expect("written");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
}

/// Pushes a layout's image; `name` is `repository:tag`.
pub fn push(layout: &Path, registry: &Registry, name: &str) {
    run(Command::new("skopeo")
        .args(["copy", "--quiet", "--dest-tls-verify=false"])
        .arg(format!("oci:{}", layout.display()))
        .arg(format!("docker://{}/{name}", registry.host())));
}

/// Pushes the base of the conformance cases, busybox and a few users and files, as `library/busybox:base`; `layout` is made
/// for that.
pub fn push_busybox(registry: &Registry, layout: &Path) {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/base");
    let read = |name: &str| fs::read(base.join(name)).expect("the base is there");
    write(layout, &read("base.tar"), serde_json::from_slice(&read("base.json")).expect("JSON"));
    push(layout, registry, "library/busybox:base");
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}
