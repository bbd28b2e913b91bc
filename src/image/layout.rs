//! `--oci-layout-path`: the image as an OCI image layout.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::{Built, Error};
use crate::blobs::{BlobStore, Partial};
use crate::oci::{Annotations, Descriptor, Digest, Index, Platform, media_type};

/// Image spec, "Pre-Defined Annotation Keys": by what umoci and skopeo find an image in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Writes `image`, whose blobs are all in `store`, as a layout at `place`, where it is called `tag`. An earlier
/// `index.json` there is replaced, so that the layout holds one image; other blobs stay.
pub fn write_layout(
    image: &Built,
    platform: &Platform,
    tag: &str,
    store: &BlobStore,
    place: &Path,
) -> Result<(), Error> {
    let target = BlobStore::open(place)?;
    for descriptor in image.manifest.layers.iter().chain([&image.manifest.config]) {
        copy_blob(store, &target, &descriptor.digest)?;
    }
    target.write(&image.manifest_bytes)?;
    let mut descriptor = Descriptor::new(image.media_type(), image.digest, image.manifest_bytes.len() as u64);
    descriptor.platform = Some(platform.clone());
    descriptor.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.into()),
        manifests: vec![descriptor],
        annotations: Annotations::new(),
    };
    let path = place.join("index.json");
    let bytes = serde_json::to_vec(&index).map_err(|source| Error::Encode { what: "index", source })?;
    let replaced = Partial::begin(place).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.finish(&path)
    });
    replaced.map_err(|source| Error::Io { action: "write", path, source })
}

/// Gives the blob a second name where both stores share a file system, else copies it.
fn copy_blob(from: &BlobStore, to: &BlobStore, digest: &Digest) -> Result<(), Error> {
    if to.contains(digest) || fs::hard_link(from.path(digest), to.path(digest)).is_ok() {
        return Ok(());
    }
    let mut source = from.read(digest)?;
    let mut writer = to.writer()?;
    io::copy(&mut source, &mut writer).map_err(|source| writer.error("write", source))?;
    Ok(writer.finish().map(drop)?)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{Format, ImageConfig, Layered, assemble};
    use super::*;

    fn built(store: &BlobStore, layer: &[u8]) -> Built {
        let digest = store.write(layer).expect("written");
        let descriptor = Descriptor::new(media_type::OCI_LAYER, digest, layer.len() as u64);
        let layers = vec![Layered { descriptor, diff_id: crate::oci::DiffId::of(layer) }];
        let config = ImageConfig::scratch(&"linux/amd64".parse().expect("a platform"));
        assemble(config, layers, Format::Oci, Annotations::new(), store).expect("assembled")
    }

    #[test]
    fn a_layout_holds_one_image() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = BlobStore::open(&directory.path().join("store")).expect("a store");
        let place = directory.path().join("parent/layout");
        let platform = "linux/arm64".parse().expect("a platform");
        write_layout(&built(&store, b"first"), &platform, "1", &store, &place).expect("written");
        let image = built(&store, b"second");
        write_layout(&image, &platform, "2", &store, &place).expect("written");
        let json = |name: &str| -> Value {
            serde_json::from_slice(&fs::read(place.join(name)).expect("a file")).expect("JSON")
        };
        assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
        let index = json("index.json");
        let manifests = index["manifests"].as_array().expect("a list");
        assert_eq!(manifests.len(), 1);
        assert_eq!(manifests[0]["digest"], image.digest.to_string());
        assert_eq!(manifests[0]["annotations"][REF_NAME], "2");
        assert_eq!(manifests[0]["platform"]["architecture"], "arm64");
        let blob = |digest: &Digest| fs::read(place.join("blobs/sha256").join(digest.hex())).expect("a blob");
        assert_eq!(blob(&image.digest), image.manifest_bytes);
        assert_eq!(Digest::of(&blob(&image.manifest.config.digest)), image.manifest.config.digest);
        assert_eq!(blob(&image.manifest.layers[0].digest), b"second");
    }
}
