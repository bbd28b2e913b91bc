//! [`Directory`]: one open directory of the root; its entries are read and changed by name, never through a link.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Error, xattr};
use crate::sys::fs::{self, AtFlags, FileType, Mode, OFlags, StatxFlags};
use crate::sys::{Errno, beneath};
use crate::tree::{ImagePath, Kind, Node, Observed, Timestamp, Xattrs};

/// What `statx` says of an entry: all of a [`Node`] but link target and xattrs, which cost calls of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Kind of file.
    pub file_type: FileType,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Major and minor number of a device.
    pub device_number: (u32, u32),
    /// Last modification of the content.
    pub mtime: Timestamp,
    /// Inode and ctime.
    pub observed: Observed,
    /// Is a file system mounted exactly here?
    pub is_mount_point: bool,
}

/// What an [`Error`] says was tried when an owner could not be changed.
pub(super) const CHANGE_OWNER: &str = "change owner of";

/// An open directory of the root.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: ImagePath,
}

impl Directory {
    pub(super) fn new(fd: OwnedFd, path: ImagePath) -> Directory {
        Directory { fd, path }
    }

    /// Where this directory is.
    pub fn path(&self) -> &ImagePath {
        &self.path
    }

    pub(super) fn error(&self, action: &'static str, name: &[u8], errno: Errno) -> Error {
        let path = if name.is_empty() || name == b"." { self.path.clone() } else { self.path.join(name) };
        Error { action, path, source: errno.into() }
    }

    /// What is at `name`, or `None`. `.` is the directory itself.
    pub fn stat(&self, name: &[u8]) -> Result<Option<Stat>, Error> {
        match stat_at(self.fd.as_fd(), name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.error("look at", name, errno)),
        }
    }

    /// All image fields of `name` but a file's content hash, with what was observed; `None` if nothing is there.
    pub fn node(&self, name: &[u8]) -> Result<Option<(Node, Observed)>, Error> {
        match self.stat(name)? {
            None => Ok(None),
            Some(stat) => Ok(Some((self.complete(name, &stat)?, stat.observed))),
        }
    }

    /// Adds to `stat` what it lacks for a node: link target and xattrs.
    pub fn complete(&self, name: &[u8], stat: &Stat) -> Result<Node, Error> {
        let (major, minor) = stat.device_number;
        let kind = match stat.file_type {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink { target: self.read_link(name)?.into() },
            FileType::CharacterDevice => Kind::CharDevice { major, minor },
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            _ => Kind::File { size: stat.size, content: None },
        };
        let xattrs = self.xattrs(name)?;
        Ok(Node { kind, mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: stat.mtime, xattrs })
    }

    /// The xattrs of `name` that an image can carry, sorted.
    pub fn xattrs(&self, name: &[u8]) -> Result<Xattrs, Error> {
        xattr::read(self.fd.as_fd(), name).map_err(|errno| self.error("read xattrs of", name, errno))
    }

    /// The target of the symlink `name`, as written.
    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, Error> {
        fs::readlinkat(&self.fd, name, Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(|errno| self.error("read link", name, errno))
    }

    /// The names of all entries with their kinds, in no order; `.` and `..` left out.
    pub fn entries(&self) -> Result<Vec<(Vec<u8>, FileType)>, Error> {
        let failed = |errno| self.error("list", b"", errno);
        let own = fs::openat(&self.fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed)?;
        let mut buffer = Vec::with_capacity(32 * 1024);
        let mut reader = fs::RawDir::new(own, buffer.spare_capacity_mut());
        let mut found = Vec::new();
        while let Some(entry) = reader.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let file_type = match entry.file_type() {
                FileType::Unknown => match self.stat(name)? {
                    Some(stat) => stat.file_type,
                    None => continue,
                },
                known => known,
            };
            found.push((name.to_vec(), file_type));
        }
        Ok(found)
    }

    /// Opens the directory `name`; a symlink there is an error.
    pub fn directory(&self, name: &[u8]) -> Result<Directory, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, name, flags, Mode::empty())
            .map_err(|errno| self.error("open directory", name, errno))?;
        Ok(Directory { fd, path: self.path.join(name) })
    }

    /// Opens the regular file `name` for reading; a symlink there is an error, a fifo does not block.
    pub fn open_file(&self, name: &[u8]) -> Result<File, Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        fs::openat(&self.fd, name, flags, Mode::empty())
            .map(File::from)
            .map_err(|errno| self.error("open", name, errno))
    }

    /// Makes a new regular file, readable and writable by its owner alone until its attributes are set.
    pub fn create_file(&self, name: &[u8]) -> Result<File, Error> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))
            .map(File::from)
            .map_err(|errno| self.error("create", name, errno))
    }

    /// Makes a directory of mode 0700 (until its attributes are set) and opens it.
    pub fn create_directory(&self, name: &[u8]) -> Result<Directory, Error> {
        fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o700))
            .map_err(|errno| self.error("create directory", name, errno))?;
        self.directory(name)
    }

    /// Makes an empty file or directory, which everybody may read, for something to be mounted on it.
    pub fn create_mount_point(&self, name: &[u8], is_file: bool) -> Result<(), Error> {
        if is_file {
            self.create_file(name)?;
            return self.set_mode(name, 0o644);
        }
        self.create_directory(name)?.set_mode(b".", 0o755)
    }

    /// Makes a symlink that holds `target`.
    pub fn create_symlink(&self, name: &[u8], target: &[u8]) -> Result<(), Error> {
        fs::symlinkat(target, &self.fd, name).map_err(|errno| self.error("create symlink", name, errno))
    }

    /// Gives `existing` of the directory `from` another name here. A symlink is not followed.
    pub fn create_hard_link(&self, name: &[u8], from: &Directory, existing: &[u8]) -> Result<(), Error> {
        fs::linkat(&from.fd, existing, &self.fd, name, AtFlags::empty())
            .map_err(|errno| self.error("create hard link", name, errno))
    }

    /// Makes a fifo or a device node.
    pub fn create_special(&self, name: &[u8], kind: &Kind) -> Result<(), Error> {
        let (file_type, device) = match *kind {
            Kind::CharDevice { major, minor } => (FileType::CharacterDevice, fs::makedev(major, minor)),
            Kind::BlockDevice { major, minor } => (FileType::BlockDevice, fs::makedev(major, minor)),
            Kind::Fifo => (FileType::Fifo, 0),
            Kind::File { .. } | Kind::Directory | Kind::Symlink { .. } | Kind::Socket => {
                return Err(self.error("create special file", name, Errno::INVAL));
            }
        };
        fs::mknodat(&self.fd, name, file_type, Mode::from_raw_mode(0o600), device)
            .map_err(|errno| self.error("create special file", name, errno))
    }

    /// Gives `name` the owner, mode, xattrs and mtime of `node`, in the order that keeps them (chown clears setuid
    /// and capabilities; everything moves ctime). `.` is the directory itself. A symlink is not followed.
    pub fn set_attributes(&self, name: &[u8], node: &Node) -> Result<(), Error> {
        self.set_owner(name, node.uid, node.gid)?;
        self.set_rest(name, node)
    }

    /// As [`Directory::set_attributes`], for an entry that has the right owner already.
    pub fn set_rest(&self, name: &[u8], node: &Node) -> Result<(), Error> {
        if !matches!(node.kind, Kind::Symlink { .. }) {
            self.set_mode(name, node.mode)?;
        }
        self.set_xattrs(name, &node.xattrs)?;
        self.set_mtime(name, node.mtime)
    }

    /// Changes owner and group of `name` itself.
    pub fn set_owner(&self, name: &[u8], uid: u32, gid: u32) -> Result<(), Error> {
        let (uid, gid) = (fs::Uid::from_raw(uid), fs::Gid::from_raw(gid));
        fs::chownat(&self.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.error(CHANGE_OWNER, name, errno))
    }

    /// Changes the permission bits of `name`, which must not be a symlink.
    pub fn set_mode(&self, name: &[u8], mode: u32) -> Result<(), Error> {
        fs::chmodat(&self.fd, name, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(|errno| self.error("change mode of", name, errno))
    }

    /// Adds xattrs to `name`.
    pub fn set_xattrs(&self, name: &[u8], xattrs: &Xattrs) -> Result<(), Error> {
        if xattrs.is_empty() {
            return Ok(());
        }
        xattr::write(self.fd.as_fd(), name, xattrs).map_err(|(action, errno)| self.error(action, name, errno))
    }

    /// Takes one xattr away from `name`.
    pub fn remove_xattr(&self, name: &[u8], key: &[u8]) -> Result<(), Error> {
        xattr::remove(self.fd.as_fd(), name, key).map_err(|errno| self.error("remove xattr of", name, errno))
    }

    /// Sets the mtime of `name`; its atime becomes the same.
    pub fn set_mtime(&self, name: &[u8], mtime: Timestamp) -> Result<(), Error> {
        fs::utimensat(&self.fd, name, &both_times(mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.error("set times of", name, errno))
    }

    /// Renames `name` to `new_name` in the directory `to`; what is there is replaced where the kernel allows it.
    pub fn rename(&self, name: &[u8], to: &Directory, new_name: &[u8]) -> Result<(), Error> {
        fs::renameat(&self.fd, name, &to.fd, new_name).map_err(|errno| self.error("rename", name, errno))
    }

    /// Removes a file or an empty directory. Nothing there is not an error.
    pub fn remove(&self, name: &[u8]) -> Result<(), Error> {
        let removed = match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR),
            other => other,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error("remove", name, errno)),
        }
    }

    /// Removes `name` with everything below it, without following links or crossing into another mount: a mount
    /// point and what is needed to reach it stay (the kernel says EBUSY), which the return value tells.
    pub fn remove_tree(&self, name: &[u8]) -> Result<Removal, Error> {
        let Some(stat) = self.stat(name)? else { return Ok(Removal::Gone) };
        if stat.is_mount_point {
            return Ok(Removal::MountKept);
        }
        if stat.file_type == FileType::Directory {
            let directory = self.directory(name)?;
            let mut outcome = Removal::Gone;
            for (child, _) in directory.entries()? {
                if directory.remove_tree(&child)? == Removal::MountKept {
                    outcome = Removal::MountKept;
                }
            }
            if outcome == Removal::MountKept {
                return Ok(outcome);
            }
        }
        match self.remove(name) {
            Err(error) if error.errno() == Some(Errno::BUSY) => Ok(Removal::MountKept),
            Err(error) => Err(error),
            Ok(()) => Ok(Removal::Gone),
        }
    }
}

/// How [`Directory::remove_tree`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Nothing is left.
    Gone,
    /// A mount is in the way; the directories that lead to it were kept.
    MountKept,
}

/// The mtime of a file that gets one, and its atime, which nobody records.
pub(super) fn both_times(mtime: Timestamp) -> fs::Timestamps {
    let time = fs::Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    fs::Timestamps { last_access: time, last_modification: time }
}

fn stat_at(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    fs::statx(directory, name, flags, StatxFlags::BASIC_STATS).map(|stat| Stat::of(&stat))
}

/// What an open file is.
pub(super) fn stat_of(file: BorrowedFd<'_>) -> Result<Stat, Errno> {
    fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(|stat| Stat::of(&stat))
}

impl Stat {
    fn of(stat: &fs::Statx) -> Stat {
        let time = |time: &fs::StatxTimestamp| Timestamp { seconds: time.tv_sec, nanoseconds: time.tv_nsec };
        Stat {
            file_type: FileType::from_raw_mode(stat.stx_mode.into()),
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            device_number: (stat.stx_rdev_major, stat.stx_rdev_minor),
            mtime: time(&stat.stx_mtime),
            observed: Observed {
                device: fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
                inode: stat.stx_ino,
                ctime: time(&stat.stx_ctime),
                links: stat.stx_nlink,
            },
            is_mount_point: stat.stx_attributes.contains(fs::StatxAttributes::MOUNT_ROOT),
        }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub(super) fn open_directory(
    root: BorrowedFd<'_>,
    path: &ImagePath,
    symlinks: beneath::Symlinks,
) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    beneath::open(root, path.as_bytes(), flags, Mode::empty(), symlinks).map_err(|errno| Error {
        action: "open directory",
        path: path.clone(),
        source: errno.into(),
    })
}
