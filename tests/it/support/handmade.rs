//! Images whose every byte a test chose, also such as no builder would make: in a real registry, or behind a server that
//! answers for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kanna::blobs::BlobStore;
use kanna::credentials::Keychain;
use kanna::http;
use kanna::oci::{Descriptor, Digest, Manifest, Platform, Reference, media_type};
use kanna::registry::{Client, Error, PushImage, RemoteImage, Settings, Silent};
use serde_json::json;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::http::{Reply, Request};
use super::registry::Registry;
use super::scratch;

/// An entry of a tar: kind, name, link target, content. Name and target stand in the header as they are here.
pub type Row<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

/// A tar with entries that need not make sense.
pub fn tar_of(rows: &[Row<'_>]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (kind, name, link, content) in rows {
        tar.extend(header(*kind, name, link, content.len() as u64).as_bytes());
        tar.extend(*content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// A header with the right checksum, whatever the rest of it says.
pub fn header(kind: EntryType, name: &str, link: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_mtime(1_600_000_000);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_cksum();
    header
}

/// An image, as the bytes that a registry would have.
#[derive(Clone)]
pub struct Image {
    /// The layers, lowest first.
    pub layers: Vec<Vec<u8>>,
    /// The config, JSON.
    pub config: Vec<u8>,
    /// The manifest, JSON.
    pub manifest: Vec<u8>,
}

impl Image {
    /// An honest image of one layer, which is not compressed.
    pub fn of(layer_tar: Vec<u8>) -> Image {
        let diff_id = Digest::of(&layer_tar);
        Image::with_diff_ids(vec![layer_tar], &[diff_id])
    }

    /// An image whose config makes its own claims about the tars in the layers.
    pub fn with_diff_ids(layers: Vec<Vec<u8>>, diff_ids: &[Digest]) -> Image {
        let diff_ids: Vec<String> = diff_ids.iter().map(Digest::to_string).collect();
        let config = json!({
            "architecture": Platform::host().architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        Image { layers, config: config.to_string().into_bytes(), manifest: Vec::new() }.sealed()
    }

    /// An image for amd64 that is carried about and not unpacked: its layers may be anything.
    pub fn of_freight(layers: Vec<Vec<u8>>) -> Image {
        let config = br#"{"architecture":"amd64","os":"linux"}"#.to_vec();
        Image { layers, config, manifest: Vec::new() }.sealed()
    }

    /// With a manifest that lists what is there.
    pub fn sealed(self) -> Image {
        let Image { layers, config, .. } = self;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.into()),
            config: describe(media_type::OCI_CONFIG, &config),
            layers: layers.iter().map(|layer| describe(media_type::OCI_LAYER, layer)).collect(),
            annotations: BTreeMap::new(),
        };
        Image { layers, config, manifest: serde_json::to_vec(&manifest).expect("JSON") }
    }

    /// What a proper registry answers that holds this image under every name.
    pub fn answer(&self, request: &Request) -> Reply {
        let path = request.path.as_str();
        let blobs = self.layers.iter().chain([&self.config]);
        if path == "/v2/" {
            Reply::new(200, "{}")
        } else if path.contains("/manifests/") {
            Reply::new(200, self.manifest.clone()).header("Content-Type", media_type::OCI_MANIFEST)
        } else if let Some(blob) = blobs.into_iter().find(|blob| is_for(request, blob)) {
            Reply::new(200, blob.clone())
        } else {
            Reply::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}"#)
        }
    }

    /// Puts the image into a blob store, from where it can be pushed.
    pub fn stored(self) -> Stored {
        let directory = scratch();
        let store = BlobStore::open(directory.path()).expect("a store");
        for blob in self.layers.iter().chain([&self.config]) {
            store.write(blob).expect("stored");
        }
        let manifest = serde_json::from_slice(&self.manifest).expect("a manifest");
        Stored { image: self, manifest, store, _directory: directory }
    }

    /// Puts the image into a real registry, which believes what manifest and config say of the layers.
    pub fn push(&self, registry: &Registry, name: &str) {
        let destination = format!("{}/{name}", registry.host()).parse().expect("a reference");
        self.clone().stored().push(&client(), &destination).expect("pushed");
    }
}

/// An image in a blob store of its own.
pub struct Stored {
    pub image: Image,
    /// The image's manifest, read.
    pub manifest: Manifest,
    pub store: BlobStore,
    _directory: TempDir,
}

impl Stored {
    /// That of the manifest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.image.manifest)
    }

    pub fn push(&self, client: &Client, to: &Reference) -> Result<Digest, Error> {
        self.push_with(client, to, &[])
    }

    /// Pushes an image that may have layers of `sources`.
    pub fn push_with(&self, client: &Client, to: &Reference, sources: &[RemoteImage]) -> Result<Digest, Error> {
        let image = PushImage {
            manifest: &self.image.manifest,
            media_type: media_type::OCI_MANIFEST,
            manifest_struct: &self.manifest,
            sources,
        };
        client.push_image(to, &image, &self.store, &Silent)
    }
}

/// Is this a request for the blob?
pub fn is_for(request: &Request, blob: &[u8]) -> bool {
    request.path.ends_with(&format!("/blobs/{}", Digest::of(blob)))
}

fn describe(kind: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(kind, Digest::of(bytes), bytes.len() as u64)
}

/// A client for the registry of a test, without credentials.
pub fn client() -> Client {
    let settings = Settings { insecure_push: true, insecure_pull: true, ..Settings::default() };
    let http = http::Client::new(http::Settings::default()).expect("a client");
    Client::new(settings, Keychain::new(Vec::new()), Arc::new(http)).expect("a client")
}
