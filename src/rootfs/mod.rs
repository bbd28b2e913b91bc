//! The root under construction: a directory, `/` itself when building in place, and safe access to what is in it.
//!
//! Promise: a path that comes from an image, a context or a Dockerfile never leads out of the root, whatever
//! symlinks it meets. [`Root`] resolves, [`Directory`] reads and changes the entries of one directory by name.
//! All of it works on any directory as root.
//!
//! Not here: what changed (`snapshot`), tar (`layer`).

pub mod container;
mod directory;
mod ignored;
mod masked;
pub mod mounts;
mod new_file;
pub mod pristine;
mod root;
pub mod sparse;
pub mod users;
pub mod xattr;

pub use directory::{Directory, Removal, Stat};
pub use ignored::Ignored;
pub use new_file::NewFile;
pub use root::{Capacity, Root};
pub use users::User;

use crate::tree::ImagePath;

/// What went wrong with a file of the root.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path} in the root")]
pub struct Error {
    /// What was tried, as a verb: `open`, `create`, …
    pub action: &'static str,
    /// On which path.
    pub path: ImagePath,
    /// What the kernel said.
    #[source]
    pub source: std::io::Error,
}

impl Error {
    /// What the kernel said, as a number.
    pub fn errno(&self) -> Option<crate::sys::Errno> {
        crate::sys::Errno::from_io_error(&self.source)
    }

    /// Is there no number for an owner in this user namespace?
    pub fn is_unknown_owner(&self) -> bool {
        self.action == directory::CHANGE_OWNER && self.errno() == Some(crate::sys::Errno::INVAL)
    }

    /// Was a directory on the way removed or replaced? A symlink on it (LOOP) is a directory that was replaced.
    pub fn is_way_gone(&self) -> bool {
        use crate::sys::Errno;
        matches!(self.errno(), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
    }
}
