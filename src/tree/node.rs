//! [`Node`]: what a layer says of one path.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A moment as a file carries it: seconds since 1970 (may be negative) and nanoseconds below a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01 UTC, rounded towards the past.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// 1970-01-01 UTC.
    pub const EPOCH: Timestamp = Timestamp { seconds: 0, nanoseconds: 0 };

    /// A whole second.
    pub fn from_seconds(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanoseconds: 0 }
    }
}

/// xxh3-128 of a file's bytes: tells equal from different inside one build. Not proof against an attacker, so
/// never part of anything shared (DEPENDENCIES: cache keys take SHA-256).
///
/// Packed, since a `u128` is aligned to 16 bytes: a [`Node`] would be 112 bytes long instead of 88.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(Rust, packed(8))]
pub struct ContentHash(pub u128);

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", { self.0 })
    }
}

/// What is at a path, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file. `content` is `None` while nobody has read it.
    File {
        /// Length in bytes.
        size: u64,
        /// Hash of the bytes, where known.
        content: Option<ContentHash>,
    },
    /// A directory.
    Directory,
    /// A symbolic link and the target it holds, as written.
    Symlink {
        /// The target's bytes, unresolved.
        target: Box<[u8]>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket: exists on disk, never in a layer.
    Socket,
}

/// Extended attributes that an image can carry, sorted by name (see `rootfs::xattr` for which those are).
pub type Xattrs = Vec<(Box<[u8]>, Box<[u8]>)>;

/// The image fields of one path: what a layer says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky (at most 0o7777). 0o777 for symlinks.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification of the content.
    pub mtime: Timestamp,
    /// Extended attributes, sorted by name.
    pub xattrs: Xattrs,
}

impl Node {
    /// Is it a directory?
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }

    /// Is it a regular file?
    pub fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File { .. })
    }

    /// Are both of the same kind, whatever else differs?
    pub fn same_kind(&self, other: &Node) -> bool {
        std::mem::discriminant(&self.kind) == std::mem::discriminant(&other.kind)
    }
}

/// What `lstat` said of a path when we last looked or wrote: the name of its inode, and the ctime, which moves
/// with every change of content or metadata and which no ordinary program can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Observed {
    /// Device of the file system.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Number of names of the inode when it was looked at.
    pub links: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_small() {
        assert!(size_of::<Node>() <= 88, "{}", size_of::<Node>());
        assert_eq!(format!("{:?}", ContentHash(0xab)), format!("{:0>32}", "ab"));
    }
}
