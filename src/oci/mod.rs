//! Words for images, as the OCI image spec has them: [`Digest`], [`DiffId`], [`Descriptor`], [`Manifest`],
//! [`Index`], [`Platform`], and [`Reference`] as people type it ([`parse_reference`]).
//!
//! The manifest types are our own: those of `oci-spec` keep annotations in a hash map, so that the same image
//! would get another digest in every run. Not here: the image config (`image`), any I/O.

mod digest;
mod json;
mod manifest;
mod platform;
mod reference;

pub use digest::{BadDigest, DiffId, Digest, Sha256Stream};
pub use json::parse_object;
pub use manifest::{Annotations, Descriptor, Index, Manifest, media_type};
pub use oci_spec::distribution::{ParseError as BadReference, Reference};
pub use platform::{BadPlatform, Platform};
pub use reference::{BadDestination, Destination, parse_reference};
