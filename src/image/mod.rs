//! The image as others will see it: config, history and manifest, and the forms it takes on disk.
//!
//! Promise: what a base said and we do not know is carried along; the same image has the same bytes.
//!
//! Not here: pushing (`registry`), what is in a layer (`layer`).

mod assemble;
mod config;
mod format;
mod layout;
mod tarball;

pub use assemble::{Built, Layered, assemble};
pub use config::{Empty, Healthcheck, History, ImageConfig, RootFs, RunConfig, SHORTEST_INTERVAL_NANOSECONDS};
pub use format::{BadFormat, Format, with_types_of};
pub use layout::write_layout;
pub use tarball::write_tarball;

use std::io;
use std::path::PathBuf;

use crate::blobs;

/// What went wrong with an image's config, manifest or file form.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A config that is not what the image spec says.
    #[error("parse the image config of {image}")]
    Config {
        /// Whose config.
        image: String,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A root file system that is not made of layers (image spec: config, `rootfs`, unknown values).
    #[error("the config of {image} has a root file system of the type {kind:?} instead of layers")]
    RootFs {
        /// Whose config.
        image: String,
        /// The type.
        kind: String,
    },
    /// The config names another number of layers than the manifest.
    #[error("the config of {image} lists {diff_ids} diff IDs for {layers} layers")]
    DiffIds {
        /// Whose config.
        image: String,
        /// In the config.
        diff_ids: usize,
        /// In the manifest.
        layers: usize,
    },
    /// Something that is always possible to write could not be written.
    #[error("write the image's {what} as JSON")]
    Encode {
        /// Config or manifest.
        what: &'static str,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A layer that Docker has no media type for.
    #[error("a layer of the type {media_type:?} cannot be in an image of docker's format: give --image-format=oci")]
    NotDocker {
        /// As the base names it.
        media_type: String,
    },
    /// A file of a tarball or a layout.
    #[error("{action} {path}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The blob store.
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
}
