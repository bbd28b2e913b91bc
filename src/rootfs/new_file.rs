//! [`NewFile`]: a regular file on its way into the root, kept open until it is what it shall be.

use std::fs::File;
use std::os::fd::AsFd;

use super::directory::{CHANGE_OWNER, Stat, both_times, stat_of};
use super::{Directory, Error, xattr};
use crate::sys::Errno;
use crate::sys::fs::{self, Gid, Mode, OFlags, Uid};
use crate::tree::{Node, Observed};

/// Bits that a file may have before its owner is right: neither setuid nor setgid nor sticky.
const PERMISSIONS: u32 = 0o777;

/// A regular file that was made a moment ago and is still empty. Through its descriptor only those attributes are set
/// that the kernel did not make right by itself: of many files, that is the mtime alone.
#[derive(Debug)]
#[must_use = "its attributes are set by `finish`"]
pub struct NewFile<'d> {
    file: File,
    directory: &'d Directory,
    name: &'d [u8],
}

impl Directory {
    /// Makes a regular file that will be what `node` says, size and content aside.
    pub fn create_file_as<'d>(&'d self, name: &'d [u8], node: &Node) -> Result<NewFile<'d>, Error> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(self, name, flags, Mode::from_raw_mode(node.mode & PERMISSIONS))
            .map_err(|errno| self.error("create", name, errno))?;
        Ok(NewFile { file: file.into(), directory: self, name })
    }
}

impl NewFile<'_> {
    /// The file, to be filled.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file the attributes of `node`; what is observed of it then.
    pub fn finish(self, node: &Node) -> Result<Observed, Error> {
        self.set_mtime(node)?;
        let stat = self.stat()?;
        let is_right = (stat.mode, stat.uid, stat.gid) == (node.mode, node.uid, node.gid);
        if is_right && node.xattrs.is_empty() {
            return Ok(stat.observed);
        }
        // this order keeps them: chown clears setuid and capabilities
        if (stat.uid, stat.gid) != (node.uid, node.gid) {
            fs::fchown(&self.file, Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)))
                .map_err(|errno| self.error(CHANGE_OWNER, errno))?;
        }
        if stat.mode != node.mode {
            fs::fchmod(&self.file, Mode::from_raw_mode(node.mode))
                .map_err(|errno| self.error("change mode of", errno))?;
        }
        xattr::write_to(self.file.as_fd(), &node.xattrs).map_err(|(action, errno)| self.error(action, errno))?;
        Ok(self.stat()?.observed)
    }

    fn set_mtime(&self, node: &Node) -> Result<(), Error> {
        fs::futimens(&self.file, &both_times(node.mtime)).map_err(|errno| self.error("set times of", errno))
    }

    fn stat(&self) -> Result<Stat, Error> {
        stat_of(self.file.as_fd()).map_err(|errno| self.error("look at", errno))
    }

    fn error(&self, action: &'static str, errno: Errno) -> Error {
        self.directory.error(action, self.name, errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::Root;
    use crate::tree::{ImagePath, Kind, Timestamp};

    /// Whatever the kernel made of it at first, the file is what the node says, and was looked at last.
    #[test]
    fn a_file_becomes_what_its_node_says() {
        let place = tempfile::tempdir().expect("a directory");
        let root = Root::open(place.path()).expect("opened");
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let other = if uid == 0 { 7 } else { uid };
        let note: (Box<[u8]>, Box<[u8]>) = (Box::from(*b"user.k"), Box::from(*b"v"));
        for (number, (mode, uid, gid, xattrs)) in [
            (0o644, uid, gid, vec![]),
            (0o600, uid, gid, vec![]),
            (0o000, uid, gid, vec![]),
            // no usual umask lets this pass
            (0o666, uid, gid, vec![]),
            (0o644, other, gid, vec![]),
            (0o6755, other, gid, vec![]),
            (0o4711, uid, gid, vec![]),
            (0o1644, uid, gid, vec![note.clone()]),
            (0o444, other, gid, vec![note]),
        ]
        .into_iter()
        .enumerate()
        {
            let mtime = Timestamp { seconds: -5, nanoseconds: 123_456_789 };
            let node = Node { kind: Kind::File { size: 0, content: None }, mode, uid, gid, mtime, xattrs };
            let name = number.to_string();
            let file = root.top().create_file_as(name.as_bytes(), &node).expect("created");
            let observed = file.finish(&node).expect("finished");
            let found = root.node(&ImagePath::clean(&name)).expect("looked").expect("there");
            assert_eq!(found, (node, observed), "{mode:o}");
        }
        let node = root.node(&ImagePath::clean("0")).expect("looked").expect("there").0;
        let error = root.top().create_file_as(b"0", &node).expect_err("it is there");
        assert_eq!(error.errno(), Some(Errno::EXIST));
    }
}
