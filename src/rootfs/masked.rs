//! [`Masked`]: what an image has where the machine leaves no room for it.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use super::directory::{Directory, open_directory};
use super::{Error, Ignored};
use crate::sys::beneath::Symlinks;
use crate::sys::fs::FileType;
use crate::tree::ImagePath;

/// A directory beside the root that has the same layout and holds the image's files at paths that must not be touched.
#[derive(Debug)]
pub(super) struct Masked {
    ignored: Ignored,
    top: Directory,
}

impl Masked {
    pub(super) fn open(ignored: Ignored, place: &Path) -> Result<Masked, Error> {
        let top = File::open(place).map_err(|source| Error { action: "open", path: ImagePath::root(), source })?;
        Ok(Masked { ignored, top: Directory::new(top.into(), ImagePath::root()) })
    }

    /// Is the image's `path` here, or would it be? All below an untouchable path is, and what is no directory although
    /// the way to an untouchable path leads through its place.
    pub(super) fn is_place_of(&self, path: &ImagePath) -> Result<bool, Error> {
        if self.ignored.is_untouchable(path) {
            return Ok(true);
        }
        if path.is_root() || !self.ignored.leads_to_untouchable(path) {
            return Ok(false);
        }
        let parent = path.parent().unwrap_or_else(ImagePath::root);
        match open_directory(self.top.as_fd(), &parent, Symlinks::Refuse) {
            Ok(fd) => {
                let there = Directory::new(fd, parent).stat(path.file_name())?;
                Ok(there.is_some_and(|stat| stat.file_type != FileType::Directory))
            }
            Err(error) if error.is_way_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens the directory for `path`, made with its parents where they are missing.
    pub(super) fn make_parent(&self, path: &ImagePath) -> Result<Directory, Error> {
        let parent = path.parent().unwrap_or_else(ImagePath::root);
        let mut directory = self.directory(&ImagePath::root())?;
        for name in parent.components() {
            if directory.stat(name)?.is_none() {
                directory.create_directory(name)?.set_mode(b".", 0o755)?;
            }
            directory = directory.directory(name)?;
        }
        Ok(directory)
    }

    pub(super) fn directory(&self, path: &ImagePath) -> Result<Directory, Error> {
        open_directory(self.top.as_fd(), path, Symlinks::Refuse).map(|fd| Directory::new(fd, path.clone()))
    }
}
