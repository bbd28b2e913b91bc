//! [`Root`]: the directory that will be the image.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::directory::{Directory, Stat, open_directory};
use super::masked::Masked;
use super::{Error, Ignored};
use crate::sys::beneath::Symlinks;
use crate::sys::fs::{self, FileType};
use crate::sys::{Errno, Stop};
use crate::tree::{ImagePath, Node, Observed};

/// Symlinks followed while resolving one path, as in the kernel.
const MOST_SYMLINKS: usize = 40;

/// What the file system that holds a root has room for, whatever is in it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub files: u64,
}

/// A directory that holds the root file system of an image under construction.
#[derive(Debug)]
pub struct Root {
    place: PathBuf,
    top: Directory,
    stop: Stop,
    masked: Option<Masked>,
}

impl Root {
    /// Opens an existing directory as root; `/` for a build in place.
    pub fn open(place: &Path) -> Result<Root, Error> {
        let top = File::open(place).map_err(|source| Error { action: "open", path: ImagePath::root(), source })?;
        let top = Directory::new(top.into(), ImagePath::root());
        Ok(Root { place: place.to_path_buf(), top, stop: Stop::new(), masked: None })
    }

    /// The same root, whose directories are refused once `stop` is asked: whoever walks, copies or removes trees ends then.
    pub fn until(self, stop: Stop) -> Root {
        Root { stop, ..self }
    }

    /// The same root, seen as the image: paths that are untouchable by `ignored` are looked for in the directory `beside`
    /// (on the same file system, laid out as the root), where the image's files at these places are kept.
    pub fn with_masked(self, ignored: Ignored, beside: &Path) -> Result<Root, Error> {
        Ok(Root { masked: Some(Masked::open(ignored, beside)?), ..self })
    }

    /// Is the image's `path` beside the root, because a mount or something else that must not be touched is in its place?
    pub fn masks(&self, path: &ImagePath) -> Result<bool, Error> {
        Ok(self.masked_at(path)?.is_some())
    }

    /// Opens the directory beside the root in which the image's `path` can be put although its place is taken; what leads to it
    /// is made. `None` if this root has no such directory.
    pub fn masked_parent(&self, path: &ImagePath) -> Result<Option<Directory>, Error> {
        self.masked.as_ref().map(|masked| masked.make_parent(path)).transpose()
    }

    fn masked_at(&self, path: &ImagePath) -> Result<Option<&Masked>, Error> {
        match &self.masked {
            Some(masked) if masked.is_place_of(path)? => Ok(Some(masked)),
            _ => Ok(None),
        }
    }

    /// Where the root is on this machine.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Is this the root directory of the running process, so that building in place?
    pub fn is_in_place(&self) -> bool {
        self.place == Path::new("/")
    }

    /// What can be in the root at most. A file system that does not say so has no limit.
    pub fn capacity(&self) -> Result<Capacity, Error> {
        let failed =
            |errno: Errno| Error { action: "ask for the room in", path: ImagePath::root(), source: errno.into() };
        let said = fs::fstatvfs(&self.top).map_err(failed)?;
        let or_none = |number: u64| if number == 0 { u64::MAX } else { number };
        Ok(Capacity { bytes: or_none(said.f_blocks.saturating_mul(said.f_frsize)), files: or_none(said.f_files) })
    }

    /// The root directory itself.
    pub fn top(&self) -> &Directory {
        &self.top
    }

    /// Opens a directory whose path holds no symlink (as all paths of the index); a symlink on it is an error.
    pub fn directory(&self, path: &ImagePath) -> Result<Directory, Error> {
        let refused = |stopped| Error { action: "open directory", path: path.clone(), source: From::from(stopped) };
        self.stop.check().map_err(refused)?;
        if let Some(masked) = self.masked_at(path)? {
            return masked.directory(path);
        }
        open_directory(self.top.as_fd(), path, Symlinks::Refuse).map(|fd| Directory::new(fd, path.clone()))
    }

    /// Opens the directory that holds `path`, whose path holds no symlink. `path` must not be `/`.
    pub fn parent_directory(&self, path: &ImagePath) -> Result<Directory, Error> {
        if let Some(masked) = self.masked_at(path)? {
            return masked.directory(&path.parent().unwrap_or_else(ImagePath::root));
        }
        self.directory(&path.parent().unwrap_or_else(ImagePath::root))
    }

    /// What is at `path` itself (a symlink is not followed, its parents hold none); `None` if nothing is there.
    pub fn stat(&self, path: &ImagePath) -> Result<Option<Stat>, Error> {
        match self.parent_directory(path) {
            Ok(parent) => parent.stat(last_name(path)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`Root::stat`], with link target and xattrs.
    pub fn node(&self, path: &ImagePath) -> Result<Option<(Node, Observed)>, Error> {
        match self.parent_directory(path) {
            Ok(parent) => parent.node(last_name(path)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a regular file for reading; no symlink on the path or at its end.
    pub fn open_file(&self, path: &ImagePath) -> Result<File, Error> {
        self.parent_directory(path)?.open_file(last_name(path))
    }

    /// Resolves symlinks as a process would for which this root is `/`. What does not exist is kept as written, so
    /// that the result can be created. `follow_last` says whether a symlink at the end is followed too.
    pub fn resolve(&self, path: &ImagePath, follow_last: bool) -> Result<ImagePath, Error> {
        let mut done = ImagePath::root();
        let mut rest: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut followed = 0;
        while let Some(name) = rest.pop() {
            if name == b".." {
                done = done.parent().unwrap_or_else(ImagePath::root);
                continue;
            }
            let next = done.join(&name);
            let is_symlink = (follow_last || !rest.is_empty())
                && self.stat(&next)?.is_some_and(|stat| stat.file_type == FileType::Symlink);
            if !is_symlink {
                done = next;
                continue;
            }
            followed += 1;
            if followed > MOST_SYMLINKS {
                return Err(Error { action: "resolve", path: path.clone(), source: Errno::LOOP.into() });
            }
            let target = self.parent_directory(&next)?.read_link(&name)?;
            if target.starts_with(b"/") {
                done = ImagePath::root();
            }
            let parts = target.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
            rest.extend(parts.rev().map(<[u8]>::to_vec));
        }
        Ok(done)
    }
}

/// The name under which the parent directory knows `path`: `.` for the root itself.
fn last_name(path: &ImagePath) -> &[u8] {
    if path.is_root() { b"." } else { path.file_name() }
}

fn is_absent(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::NOENT | Errno::NOTDIR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Kind, Timestamp};
    use std::os::unix::fs::symlink;

    #[test]
    fn resolve_stays_inside() {
        let place = tempfile::tempdir().expect("a directory");
        let root = Root::open(place.path()).expect("opened");
        std::fs::create_dir_all(place.path().join("a/b")).expect("made");
        symlink("/a/b", place.path().join("absolute")).expect("linked");
        symlink("../../../..", place.path().join("a/up")).expect("linked");
        symlink("loop", place.path().join("loop")).expect("linked");
        symlink("missing/x", place.path().join("dangling")).expect("linked");
        for (given, follow, resolved) in [
            ("absolute/new", true, "/a/b/new"),
            ("absolute", true, "/a/b"),
            ("absolute", false, "/absolute"),
            ("a/up/etc", true, "/etc"),
            ("dangling", true, "/missing/x"),
            ("no/such/path", true, "/no/such/path"),
        ] {
            let found = root.resolve(&ImagePath::clean(given), follow).expect("resolved");
            assert_eq!(found.to_string(), resolved, "{given}");
        }
        assert_eq!(root.resolve(&ImagePath::clean("loop"), true).expect_err("a loop").errno(), Some(Errno::LOOP));
    }

    #[test]
    fn no_directory_is_opened_once_we_are_asked_to_end() {
        let place = tempfile::tempdir().expect("a directory");
        let stop = Stop::new();
        let root = Root::open(place.path()).expect("opened").until(stop.clone());
        let path = ImagePath::clean("f");
        assert!(root.stat(&path).expect("looked").is_none());
        stop.ask();
        let error = root.stat(&path).expect_err("whether it is there is not said");
        assert!(error.source.to_string().contains("asked to end"), "{error:?}");
    }

    #[test]
    fn attributes_come_back() {
        let place = tempfile::tempdir().expect("a directory");
        let root = Root::open(place.path()).expect("opened");
        drop(root.top().create_file(b"f").expect("created"));
        let node = Node {
            kind: Kind::File { size: 0, content: None },
            mode: 0o4750,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            mtime: Timestamp { seconds: -5, nanoseconds: 123_456_789 },
            xattrs: vec![(Box::from(*b"user.k"), Box::from(*b"v"))],
        };
        root.top().set_attributes(b"f", &node).expect("set");
        let (found, _) = root.node(&ImagePath::clean("f")).expect("looked").expect("there");
        assert_eq!(found, node);
        assert_eq!(root.node(&ImagePath::clean("missing/f")).expect("looked"), None);
        assert_eq!(root.node(&ImagePath::clean("f/below")).expect("looked"), None);
    }
}
