//! Layers that are compressed as was asked for, in each form that an image takes, and what other tools make of them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kanna::oci::{Digest, media_type};
use serde_json::Value;

use crate::support::command::{run, run_within};
use crate::support::flat;
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::world::{BUILD_LIMIT, World};

/// Unpacking a small image takes a moment.
const READER_LIMIT: Duration = Duration::from_secs(60);

/// What blobs begin with.
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const GZIP: &[u8] = &[0x1f, 0x8b];

#[test]
fn layers_are_compressed_as_asked_for_and_read_by_others() {
    let Some(world) = World::with_busybox() else { return };
    let host = world.registry.host();
    // as the base is now, it is an OCI image
    let image = |name: &str| format!("docker://{host}/library/{name}");
    run(Command::new("skopeo")
        .args(["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", "--format=v2s2"])
        .args([image("busybox:base"), image("busybox:docker")]));

    let oci = (media_type::OCI_MANIFEST, media_type::OCI_LAYER_GZIP);
    let docker = (media_type::DOCKER_MANIFEST, media_type::DOCKER_LAYER_GZIP);
    for (name, base, flags, (manifest_type, base_layer), ours, begins) in [
        ("zstd-on-docker", "docker", &["--compression=zstd"][..], oci, media_type::OCI_LAYER_ZSTD, ZSTD),
        (
            "zstd-on-oci",
            "base",
            &["--compression=zstd", "--compression-level=12"],
            oci,
            media_type::OCI_LAYER_ZSTD,
            ZSTD,
        ),
        ("none-on-docker", "docker", &["--compression=none"], docker, media_type::DOCKER_LAYER, b"copied"),
        ("none-on-oci", "base", &["--compression=none"], oci, media_type::OCI_LAYER, b"copied"),
        ("gzip-on-docker", "docker", &["--compression=gzip"], docker, media_type::DOCKER_LAYER_GZIP, GZIP),
    ] {
        let context =
            world.context(name, &format!("FROM busybox:{base}\nCOPY Dockerfile /copied\nRUN echo said >/said\n"));
        let result = world.scratch.path().join(format!("{name}-result"));
        fs::create_dir(&result).expect("created");
        let volume = format!("--volume={}:/result", result.display());
        let destination = format!("--destination={host}/{name}:1");
        let outputs = [&*destination, "--tar-path=/result/image.tar", "--oci-layout-path=/result/layout"];
        world.build(&context, &[DOCKER_CAPABILITIES, &volume], &[&outputs[..], flags].concat()).success(name);

        let raw = run(Command::new("skopeo")
            .args(["inspect", "--raw", "--tls-verify=false"])
            .arg(format!("docker://{host}/{name}:1")));
        let manifest: Value = serde_json::from_str(&raw).expect("JSON");
        let layers = manifest["layers"].as_array().expect("a list");
        let types: Vec<_> = layers.iter().map(|layer| layer["mediaType"].as_str().expect("text")).collect();
        assert_eq!(manifest["mediaType"], manifest_type, "{name}");
        assert_eq!(types, [base_layer, ours, ours], "{name}: the base's layer stays as it is");
        let layout = result.join("layout");
        for layer in &layers[1..] {
            let digest: Digest = layer["digest"].as_str().expect("text").parse().expect("a digest");
            let blob = fs::read(layout.join("blobs/sha256").join(digest.hex())).expect("in the layout");
            assert!(blob.starts_with(begins) || begins == b"copied" && is_tar(&blob), "{name}");
        }

        // as our own reader in the tests sees it, which checks the diff IDs
        let flat = flat::read_tarball(&result.join("image.tar")).expect("a tarball");
        flat.assert_text("/said", "said\n");
        read_by_others(&world, name, &result);
        // skopeo and umoci look for the image spec's manifests in layouts, and see no other
        if manifest_type == media_type::OCI_MANIFEST {
            layout_is_read_by_others(name, &result, &layout, ours);
        }
    }
}

fn is_tar(blob: &[u8]) -> bool {
    blob.get(257..262) == Some(b"ustar")
}

/// An image that was pushed and saved is read by skopeo and podman.
#[track_caller]
fn read_by_others(world: &World, name: &str, result: &Path) {
    let image = format!("{}/{name}:1", world.registry.host());
    let cat = |reference: &str| {
        let mut podman = world.podman.run_container(BUILD_LIMIT);
        run(podman.args([reference, "cat", "/said"]))
    };
    world.podman.pull(&image);
    assert_eq!(cat(&image), "said", "{name}: pulled");
    world.podman.remove_image(&image);
    run(world.podman.command().args(["load", "--quiet", "--input"]).arg(result.join("image.tar")));
    assert_eq!(cat(&image), "said", "{name}: loaded");
    world.podman.remove_image(&image);

    skopeo_copies(&format!("docker://{image}"), &result.join("from-registry"));
    skopeo_copies(&format!("docker-archive:{}", result.join("image.tar").display()), &result.join("from-archive"));
}

#[track_caller]
fn skopeo_copies(from: &str, to: &Path) {
    let to = format!("oci:{}:1", to.display());
    run(Command::new("skopeo").args(["copy", "--quiet", "--src-tls-verify=false", from, &to]));
}

/// The same of an image that was laid out, with umoci.
#[track_caller]
fn layout_is_read_by_others(name: &str, result: &Path, layout: &Path, ours: &str) {
    skopeo_copies(&format!("oci:{}:1", layout.display()), &result.join("from-layout"));
    let bundle = result.join("bundle");
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image", &format!("{}:1", layout.display())]).arg(&bundle);
    let unpacked = run_within(&mut umoci, READER_LIMIT);
    if ours == media_type::OCI_LAYER_ZSTD && unpacked.stderr.contains("not correct mediatype") {
        // older than 0.5, umoci knows no zstd, and says so
        println!("skipped: umoci and zstd: {}", unpacked.stderr.trim());
    } else {
        assert_eq!(unpacked.code, Some(0), "{name}: {}", unpacked.stderr);
        assert_eq!(fs::read_to_string(bundle.join("rootfs/said")).expect("unpacked"), "said\n", "{name}");
    }
}
