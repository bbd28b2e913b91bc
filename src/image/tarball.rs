//! `--tar-path`: the image as `docker save` writes it, with its layers as they are: `docker load` and `podman load` look at their
//! first bytes to tell how they are compressed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use serde::Serialize;

use super::{Built, Error};
use crate::blobs::{self, BlobStore, Partial};
use crate::oci::{Descriptor, Destination, media_type};

/// One entry of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes `image`, whose blobs are all in `store`, to the file `path` under the names of `destinations`. The file appears
/// whole or not at all.
pub fn write_tarball(image: &Built, destinations: &[Destination], store: &BlobStore, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io { action: "write tarball", path: path.to_path_buf(), source };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory).map_err(failed)?;
    // a device or a pipe is written to, not replaced
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let file = fs::File::options().write(true).open(path).map_err(failed)?;
        return write_entries(image, destinations, store, file, &failed);
    }
    blobs::sweep(directory);
    let mut file = Partial::begin(directory).map_err(failed)?;
    write_entries(image, destinations, store, &mut file, &failed)?;
    file.finish(path).map_err(failed)
}

fn write_entries(
    image: &Built,
    destinations: &[Destination],
    store: &BlobStore,
    file: impl Write,
    failed: &dyn Fn(io::Error) -> Error,
) -> Result<(), Error> {
    let config = &image.manifest.config;
    let config_name = format!("{}.json", config.digest.hex());
    let layer_name = |layer: &Descriptor| format!("{}{}", layer.digest.hex(), extension(&layer.media_type));
    let mut archive = tar::Builder::new(BufWriter::new(file));
    append(&mut archive, &config_name, config.size, store.read(&config.digest)?).map_err(failed)?;
    let mut written = BTreeSet::new();
    for layer in &image.manifest.layers {
        if written.insert(layer.digest) {
            append(&mut archive, &layer_name(layer), layer.size, store.read(&layer.digest)?).map_err(failed)?;
        }
    }
    let saved = [SavedImage {
        config: config_name,
        repo_tags: repo_tags(destinations),
        layers: image.manifest.layers.iter().map(layer_name).collect(),
    }];
    let bytes = serde_json::to_vec(&saved).map_err(|source| Error::Encode { what: "manifest.json", source })?;
    append(&mut archive, "manifest.json", bytes.len() as u64, &*bytes).map_err(failed)?;
    archive.into_inner().and_then(|mut file| file.flush()).map_err(failed)
}

/// No reader goes by it, but people do.
fn extension(media_type: &str) -> &'static str {
    match media_type {
        media_type::OCI_LAYER | media_type::DOCKER_LAYER => ".tar",
        media_type::OCI_LAYER_ZSTD | media_type::DOCKER_LAYER_ZSTD => ".tar.zst",
        _ => ".tar.gz",
    }
}

/// A name is needed even where nobody gave one (kaniko's).
fn repo_tags(destinations: &[Destination]) -> Vec<String> {
    match destinations {
        [] => vec!["docker.io/unset-repo/unset-image-name:latest".into()],
        _ => destinations.iter().map(Destination::tagged).collect(),
    }
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, size: u64, data: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    archive.append_data(&mut header, name, data.take(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_image_is_called() {
        for (typed, tags) in [
            (&[][..], &["docker.io/unset-repo/unset-image-name:latest"][..]),
            (&["app"], &["app:latest"]),
            (&["r.example:5000/app", "team/app:1"], &["r.example:5000/app:latest", "team/app:1"]),
        ] {
            let destinations: Vec<Destination> = typed.iter().map(|text| text.parse().expect("a name")).collect();
            assert_eq!(repo_tags(&destinations), tags, "{typed:?}");
        }
    }
}
