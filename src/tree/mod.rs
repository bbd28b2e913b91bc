//! Words for files: where a file is ([`ImagePath`]), what it is ([`Node`]), what we remember of the whole
//! root ([`RootIndex`]), and what a layer records ([`Changeset`]).
//!
//! Not here: any I/O. `rootfs` makes nodes from what is on disk, `layer` from what a tar says.

mod changeset;
mod index;
mod node;
mod path;

pub use changeset::{Change, Changeset, Said};
pub use index::{IndexEntry, Moment, NodeId, RootIndex, Standing};
pub use node::{ContentHash, Kind, Node, Observed, Timestamp, Xattrs};
pub use path::{BadPath, ImagePath};
