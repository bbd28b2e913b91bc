//! [`Settings`]: what becomes of owner, mode and time.

use super::ModeSpec;
use crate::rootfs::Stat;
use crate::sys::fs::FileType;
use crate::tree::{Kind, Node, Timestamp};

/// Mode of directories that nothing in the source stands for, and of WORKDIR.
const DIRECTORY_MODE: u32 = 0o755;
const SETGID: u32 = 0o2000;
/// The access list that repeats, and overrides, the permission bits.
pub(super) const ACL: &[u8] = b"system.posix_acl_access";

/// What holds for every file of a request.
pub(super) struct Settings<'a> {
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<&'a ModeSpec>,
    pub(super) link: bool,
    pub(super) now: Timestamp,
    /// Are owner and xattrs those of the source?
    pub(super) keep_attributes: bool,
}

impl Settings<'_> {
    /// What a copy of something becomes, as far as a stat tells.
    pub(super) fn node(&self, stat: &Stat) -> Node {
        let (major, minor) = stat.device_number;
        let is_symlink = stat.file_type == FileType::Symlink;
        let kind = match stat.file_type {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink { target: Box::default() },
            FileType::CharacterDevice => Kind::CharDevice { major, minor },
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            _ => Kind::File { size: stat.size, content: None },
        };
        let mode = match self.mode {
            Some(mode) if !is_symlink => mode.apply(stat.mode, stat.file_type == FileType::Directory),
            _ => stat.mode,
        };
        let (uid, gid) = self.owner.unwrap_or(if self.keep_attributes { (stat.uid, stat.gid) } else { (0, 0) });
        Node { kind, mode, uid, gid, mtime: stat.mtime, xattrs: Vec::new() }
    }

    /// What a copy of a device becomes of which only a layer tells.
    pub(super) fn device(&self, mut node: Node) -> Node {
        self.drop_overridden(&mut node);
        node.mode = self.mode.map_or(node.mode, |mode| mode.apply(node.mode, false));
        (node.uid, node.gid) = self.owner.unwrap_or((node.uid, node.gid));
        node
    }

    /// What a file becomes that is not from the origin.
    pub(super) fn made_file(&self, mode: u32, mtime: Timestamp) -> Node {
        let mode = self.mode.map_or(mode, |spec| spec.apply(mode, false));
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        Node { kind: Kind::File { size: 0, content: None }, mode, uid, gid, mtime, xattrs: Vec::new() }
    }

    /// What a directory becomes that has to be made below one that is `parent`. As the kernel does it, a setgid
    /// directory hands its group and that bit down.
    pub(super) fn implicit_directory(&self, parent: Option<&Node>) -> Node {
        let inherited = parent.filter(|parent| parent.mode & SETGID != 0);
        let mode = self.mode.and_then(ModeSpec::of_implicit_directory).unwrap_or(DIRECTORY_MODE);
        let (uid, gid) = self.owner.unwrap_or((0, inherited.map_or(0, |parent| parent.gid)));
        let mode = mode | inherited.map_or(0, |_| SETGID);
        Node { kind: Kind::Directory, mode, uid, gid, mtime: self.now, xattrs: Vec::new() }
    }

    /// `--chmod` wins over an access list.
    pub(super) fn drop_overridden(&self, node: &mut Node) {
        if self.mode.is_some() {
            node.xattrs.retain(|(key, _)| &**key != ACL);
        }
    }
}
