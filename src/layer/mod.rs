//! Changeset <-> layer blob: tar, whiteouts, compression, digests, extraction.
//!
//! Promises: the same changeset and files give the same bytes with any number of threads; a layer that is applied leaves
//! the root and its index saying the same; nothing an entry says leads out of the root; a blob whose tar is not what the
//! image config promises is an error.
//!
//! Not here: what changed (`snapshot`); where blobs come from (`registry`, `blobs`).

mod apply;
mod blocks;
mod compression;
mod decompress;
mod disk;
mod extract;
mod gzip;
mod header;
mod members;
mod reset;
#[cfg(test)]
mod tests;
mod write;
mod zstandard;

pub use apply::{Description, LayerBlob, apply, describe};
pub use compression::{BadLevel, BadMethod, Compression, Method};
pub use header::tar_header;
pub use members::{Broken, Member, Members};
pub use write::{Format, Layer, Times, WriteOptions, write};

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;

use crate::blobs;
use crate::oci::{DiffId, Digest};
use crate::rootfs;
use crate::tree::{BadPath, ImagePath};

/// What went wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The blob of a layer could not be had.
    #[error("open layer {digest}")]
    Open {
        /// Its digest.
        digest: Digest,
        /// Why not.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The blob does not decompress, or its tar is cut off or malformed.
    #[error("read layer {name}")]
    Read {
        /// The layer's digest.
        name: String,
        /// Where it broke.
        #[source]
        source: io::Error,
    },
    /// The content of an entry breaks off, or does not decompress.
    #[error("read {path} from layer {name}")]
    Content {
        /// Where the entry goes.
        path: ImagePath,
        /// The layer's digest.
        name: String,
        /// Where it broke.
        #[source]
        source: io::Error,
    },
    /// An entry that no layer may have.
    #[error("layer {name}: entry {entry:?} {reason}")]
    Entry {
        /// The layer's digest.
        name: String,
        /// The entry's name as it stands in the tar.
        entry: String,
        /// What is wrong with it, as the rest of the sentence.
        reason: Cow<'static, str>,
    },
    /// An entry whose name leads out of the root.
    #[error("layer {name}: entry of a hostile or broken tar")]
    Path {
        /// The layer's digest.
        name: String,
        /// The name.
        #[source]
        source: BadPath,
    },
    /// The tar is not the one that the image config lists.
    #[error("layer {digest} holds a tar with diff ID {found}, but the image config says {expected}")]
    WrongDiffId {
        /// The layer.
        digest: Digest,
        /// In the config.
        expected: DiffId,
        /// Of the bytes that came.
        found: DiffId,
    },
    /// A file of the root.
    #[error(transparent)]
    Root(#[from] rootfs::Error),
    /// The contents of a file of the root.
    #[error("{action} {path}")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// Which file.
        path: ImagePath,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file changed while its layer was written.
    #[error("{path} was changed by another process while the layer was written ({expected} bytes became {found})")]
    FileChanged {
        /// Which file.
        path: ImagePath,
        /// Bytes when the snapshot was taken.
        expected: u64,
        /// Bytes that were read.
        found: u64,
    },
    /// A file became something else between snapshot and layer.
    #[error("{path} was changed by another process while the layer was written: it is no regular file any more")]
    NoFile {
        /// Which path.
        path: ImagePath,
    },
    /// The threads behind the tar stopped. Their own error is the one that callers see.
    #[error("the layer was given up")]
    Stopped,
    /// The blob store.
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
}
