//! What can go wrong between a registry and us, and whether it may pass.

use std::io;
use std::path::PathBuf;

use crate::blobs;
use crate::credentials;
use crate::http;
use crate::oci::{BadDigest, Digest, Platform};

/// Why an image could not be fetched or pushed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be said who we are.
    #[error(transparent)]
    Credentials(#[from] credentials::Error),
    /// The blob store.
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// An entry of the map or of the mirrors is no address.
    #[error("{mirror:?} is not a mirror of the form [http[s]://]host[:port][/path]")]
    BadMirror {
        /// The entry.
        mirror: String,
    },
    /// The server answered what cannot be used.
    #[error("{what}")]
    Answer {
        /// What was asked of whom.
        what: String,
        /// What is wrong with the answer.
        #[source]
        fault: Fault,
    },
    /// An index has no image for the platform.
    #[error("{image} has no image for {wanted}; it has {}", listed(offered))]
    NoPlatform {
        /// The index.
        image: String,
        /// What was wanted.
        wanted: Box<Platform>,
        /// What is there.
        offered: Vec<Platform>,
    },
    /// A file of a layout cannot be read.
    #[error("read {path}", path = path.display())]
    Layout {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A layout has no image of that name, or several and none is named.
    #[error("{layout} is not one image of the layout; it has {}", if names.is_empty() { "none".to_owned() } else { names.join(", ").escape_debug().to_string() })]
    NoSuchName {
        /// What was asked for.
        layout: String,
        /// The names that are there.
        names: Vec<String>,
    },
    /// A reference's digest is not SHA-256.
    #[error("pull {image}")]
    Digest {
        /// The reference.
        image: String,
        /// Why not.
        #[source]
        source: BadDigest,
    },
    /// A layer is neither in the store, nor at the destination, nor in any base.
    #[error("push {digest} to {destination}: the blob is in no place known")]
    NoSource {
        /// The blob.
        digest: Digest,
        /// Where it should go.
        destination: String,
    },
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Not JSON, or not that of a manifest.
    #[error("not a valid image manifest")]
    BadManifest(#[source] serde_json::Error),
    /// JSON of another kind.
    #[error("{found} is neither an image manifest nor an index")]
    NotAnImage {
        /// Its media type, or what stands for it.
        found: String,
    },
    /// Something else in the form of an image: a chart, a signature, an attestation.
    #[error("an artifact with a config of the type {found:?}, and no image")]
    Artifact {
        /// The media type of its config.
        found: String,
    },
    /// Something else in the place of a layer.
    #[error("it has a layer of the type {found:?}, which is none of files that can be read")]
    NotALayer {
        /// The media type.
        found: String,
    },
    /// The manifest of before 2016.
    #[error(
        "a Docker schema 1 manifest, which registries no longer accept: pull and push the image once with a current docker"
    )]
    SchemaOne,
    /// An index in an index in an index …
    #[error("indexes nested deeper than {0}")]
    Nested(u32),
    /// Other content than was asked for.
    #[error("digest {found} instead of {expected}")]
    WrongDigest {
        /// What was asked for.
        expected: Digest,
        /// What came, or what the server says came or was taken.
        found: Digest,
    },
    /// A blob that is not what its descriptor says.
    #[error(transparent)]
    WrongBlob(blobs::Error),
    /// A token server without a token.
    #[error("the answer holds no token")]
    NoToken,
    /// A challenge whose realm is no address that a credential may go to.
    #[error("the registry wants credentials sent to {0:?}")]
    BadRealm(String),
}

fn listed(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none".to_owned();
    }
    platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ").escape_debug().to_string()
}

impl Error {
    /// May the same attempt succeed a little later?
    pub fn is_temporary(&self) -> bool {
        matches!(self, Error::Http(error) if error.is_temporary())
    }

    /// Why TLS failed, if it did.
    pub fn tls_fault(&self) -> Option<http::TlsFault> {
        match self {
            Error::Http(error) => error.tls_fault(),
            _ => None,
        }
    }

    /// The HTTP status, if the registry answered with a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Http(error) => error.status(),
            _ => None,
        }
    }
}
