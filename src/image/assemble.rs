//! From a config and layers to a manifest.

use super::{Error, Format, ImageConfig};
use crate::blobs::BlobStore;
use crate::oci::{Annotations, Descriptor, DiffId, Digest, Manifest, media_type};

/// A layer of the image to be: its blob (maybe not at hand) and its diff ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layered {
    /// The blob.
    pub descriptor: Descriptor,
    /// Hash of its tar.
    pub diff_id: DiffId,
}

/// A finished image: its config is in the blob store, its manifest is here.
#[derive(Debug, Clone)]
pub struct Built {
    /// The manifest.
    pub manifest: Manifest,
    /// The manifest's bytes, which the digest names.
    pub manifest_bytes: Vec<u8>,
    /// The image's digest.
    pub digest: Digest,
    /// The layers with their diff IDs.
    pub layers: Vec<Layered>,
}

impl Built {
    /// The media type of the manifest.
    pub fn media_type(&self) -> &str {
        self.manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST)
    }
}

/// Writes the config into the store, with `layers` as its root file system, and makes the manifest.
pub fn assemble(
    mut config: ImageConfig,
    layers: Vec<Layered>,
    format: Format,
    annotations: Annotations,
    store: &BlobStore,
) -> Result<Built, Error> {
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let config_bytes = encode("config", &config)?;
    let config_digest = store.write(&config_bytes)?;
    let (manifest_type, config_type) = match format {
        Format::Docker => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        Format::Oci => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(manifest_type.into()),
        config: Descriptor::new(config_type, config_digest, config_bytes.len() as u64),
        layers: layers.iter().map(|layer| layer.descriptor.clone()).collect(),
        annotations,
    };
    let manifest_bytes = encode("manifest", &manifest)?;
    let digest = Digest::of(&manifest_bytes);
    Ok(Built { manifest, manifest_bytes, digest, layers })
}

fn encode(what: &'static str, value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|source| Error::Encode { what, source })
}
