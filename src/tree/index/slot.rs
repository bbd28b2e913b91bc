//! [`Slot`]: the fixed part of a path's record, packed.

use super::{ContentHash, Kind, Node, Observed, Standing, Timestamp};

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// The hash of the content is known.
const CONTENT: u8 = 1;
/// The observed fields say something.
const OBSERVED: u8 = 2;
/// The rest of the node (link target, extended attributes) is kept beside the slots.
const EXTRA: u8 = 4;
const FOREIGN: u8 = 8;
const MASKED: u8 = 16;

/// The bits of `mode` that say what it is, as in `st_mode`. None of them: the slot is free.
const KIND: u16 = 0o170_000;
const FILE: u16 = 0o100_000;
const DIRECTORY: u16 = 0o040_000;
const SYMLINK: u16 = 0o120_000;
const CHAR_DEVICE: u16 = 0o020_000;
const BLOCK_DEVICE: u16 = 0o060_000;
const FIFO: u16 = 0o010_000;
const SOCKET: u16 = 0o140_000;

/// A path's place in the tree, its image fields but for the rare ones, and its observed fields.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    content: u128,
    /// Size of a file, numbers of a device, first child of a directory.
    detail: u64,
    pub(super) inode: u64,
    mtime_seconds: i64,
    ctime_seconds: i64,
    mtime_nanoseconds: u32,
    ctime_nanoseconds: u32,
    links: u32,
    uid: u32,
    gid: u32,
    pub(super) parent: u32,
    /// The next child of the same parent; of a free slot, the next free one.
    pub(super) next_sibling: u32,
    pub(super) previous_sibling: u32,
    /// Next slot with the same device and inode.
    pub(super) next_name: u32,
    pub(super) name_offset: u32,
    /// Place in the list of devices: a root has few.
    pub(super) device: u32,
    mode: u16,
    pub(super) name_length: u8,
    flags: u8,
}

impl Slot {
    /// An empty directory of which nothing was observed.
    pub(super) fn new(parent: u32, name_offset: u32, name_length: u8) -> Slot {
        Slot {
            content: 0,
            detail: u64::from(NONE),
            inode: 0,
            mtime_seconds: 0,
            ctime_seconds: 0,
            mtime_nanoseconds: 0,
            ctime_nanoseconds: 0,
            links: 0,
            uid: 0,
            gid: 0,
            parent,
            next_sibling: NONE,
            previous_sibling: NONE,
            next_name: NONE,
            name_offset,
            device: 0,
            mode: DIRECTORY | 0o755,
            name_length,
            flags: 0,
        }
    }

    pub(super) fn free(&mut self, next_free: u32) {
        (self.mode, self.flags, self.next_sibling) = (0, 0, next_free);
    }

    pub(super) fn is_live(&self) -> bool {
        self.mode & KIND != 0
    }

    pub(super) fn is_directory(&self) -> bool {
        self.mode & KIND == DIRECTORY
    }

    pub(super) fn first_child(&self) -> u32 {
        if self.is_directory() { low(self.detail) } else { NONE }
    }

    pub(super) fn set_first_child(&mut self, child: u32) {
        self.detail = u64::from(child);
    }

    pub(super) fn has_extra(&self) -> bool {
        self.flags & EXTRA != 0
    }

    pub(super) fn standing(&self) -> Standing {
        match self.flags & (FOREIGN | MASKED) {
            0 => Standing::Image,
            FOREIGN => Standing::Foreign,
            _ => Standing::Masked,
        }
    }

    pub(super) fn set_standing(&mut self, standing: Standing) {
        let bits = match standing {
            Standing::Image => 0,
            Standing::Foreign => FOREIGN,
            Standing::Masked => MASKED,
        };
        self.flags = self.flags & !(FOREIGN | MASKED) | bits;
    }

    pub(super) fn content(&self) -> Option<u128> {
        (self.flags & CONTENT != 0).then_some(self.content)
    }

    pub(super) fn set_content(&mut self, content: Option<u128>) {
        self.content = content.unwrap_or_default();
        self.set_flag(CONTENT, content.is_some());
    }

    /// The node, but for a link's target and extended attributes.
    pub(super) fn node(&self) -> Node {
        let (major, minor) = (low(self.detail >> 32), low(self.detail));
        let kind = match self.mode & KIND {
            FILE => Kind::File { size: self.detail, content: self.content().map(ContentHash) },
            DIRECTORY => Kind::Directory,
            SYMLINK => Kind::Symlink { target: Box::default() },
            CHAR_DEVICE => Kind::CharDevice { major, minor },
            BLOCK_DEVICE => Kind::BlockDevice { major, minor },
            FIFO => Kind::Fifo,
            _ => Kind::Socket,
        };
        Node {
            kind,
            mode: u32::from(self.mode & !KIND),
            uid: self.uid,
            gid: self.gid,
            mtime: Timestamp { seconds: self.mtime_seconds, nanoseconds: self.mtime_nanoseconds },
            xattrs: Vec::new(),
        }
    }

    /// Takes what `node` says, but for a link's target and extended attributes. A directory that stays one keeps its
    /// children.
    pub(super) fn set_node(&mut self, node: &Node, has_extra: bool) {
        let pair = |major: u32, minor: u32| u64::from(major) << 32 | u64::from(minor);
        let (kind, detail, content) = match node.kind {
            Kind::File { size, content } => (FILE, size, content),
            Kind::Directory => (DIRECTORY, u64::from(self.first_child()), None),
            Kind::Symlink { .. } => (SYMLINK, 0, None),
            Kind::CharDevice { major, minor } => (CHAR_DEVICE, pair(major, minor), None),
            Kind::BlockDevice { major, minor } => (BLOCK_DEVICE, pair(major, minor), None),
            Kind::Fifo => (FIFO, 0, None),
            Kind::Socket => (SOCKET, 0, None),
        };
        self.detail = detail;
        self.mode = kind | (node.mode & 0o7777) as u16;
        self.uid = node.uid;
        self.gid = node.gid;
        self.mtime_seconds = node.mtime.seconds;
        self.mtime_nanoseconds = node.mtime.nanoseconds;
        self.set_content(content.map(|hash| hash.0));
        self.set_flag(EXTRA, has_extra);
    }

    pub(super) fn is_observed(&self) -> bool {
        self.flags & OBSERVED != 0
    }

    pub(super) fn ctime(&self) -> Timestamp {
        Timestamp { seconds: self.ctime_seconds, nanoseconds: self.ctime_nanoseconds }
    }

    pub(super) fn links(&self) -> u32 {
        self.links
    }

    /// Notes what was observed; `device` is its place in the list of devices.
    pub(super) fn observe(&mut self, observed: &Observed, device: u32) {
        self.set_flag(OBSERVED, true);
        self.device = device;
        self.inode = observed.inode;
        self.ctime_seconds = observed.ctime.seconds;
        self.ctime_nanoseconds = observed.ctime.nanoseconds;
        self.links = observed.links;
    }

    pub(super) fn forget_observed(&mut self) {
        self.set_flag(OBSERVED, false);
    }

    fn set_flag(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }
}

/// The lower half.
fn low(pair: u64) -> u32 {
    pair as u32
}
