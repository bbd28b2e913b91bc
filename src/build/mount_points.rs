//! The empty files and directories on which the world of isolated commands is mounted, and what a command does to them.
//!
//! None belongs to the image, wherever a command moves it with a directory above it. Where the image has a file of its own
//! at such a path, that lies beside the root, and goes where its directory went.

use std::io;

use super::error::StepError;
use super::place::Place;
use super::site::Site;
use crate::rootfs::{self, Directory, Root};
use crate::run::MovedMount;
use crate::sys::fs::FileType;
use crate::tree::{ImagePath, Kind, Node, RootIndex, Standing};

impl Site {
    /// Makes those that an earlier command took away. No snapshot tells of it.
    pub(super) fn make_mount_points(&mut self) -> Result<(), StepError> {
        let Site { place, index, .. } = self;
        let Some(world) = &place.world else { return Ok(()) };
        let root = &place.mounted_root;
        for (point, is_file) in world.mount_points() {
            for directory in point.ancestors().into_iter().filter(|above| !above.is_root()) {
                if root.stat(&directory)?.is_none() {
                    make_in(root, index, &directory, false)?;
                    if let Some((node, observed)) = root.node(&directory)? {
                        index.insert(&directory, &node, Some(observed), Standing::Foreign);
                    }
                }
            }
            let real = root.resolve(&point, true)?;
            if root.stat(&real)?.is_some() {
                continue;
            }
            let above = point.parent().map_or(Ok(None), |above| root.stat(&above))?;
            if real != point || above.is_none_or(|above| above.file_type != FileType::Directory) {
                return Err(StepError::NoMountPoint { point });
            }
            make_in(root, index, &point, is_file)?;
        }
        Ok(())
    }
}

/// Makes `path` in a directory whose mtime stays.
fn make_in(root: &Root, index: &mut RootIndex, path: &ImagePath, is_file: bool) -> Result<(), rootfs::Error> {
    let directory = root.parent_directory(path)?;
    change_unnoticed(&directory, index, || directory.create_mount_point(path.file_name(), is_file))
}

/// Changes names of a directory, of which no snapshot tells.
pub(super) fn change_unnoticed(
    directory: &Directory,
    index: &mut RootIndex,
    change: impl FnOnce() -> Result<(), rootfs::Error>,
) -> Result<(), rootfs::Error> {
    keep_mtime(directory, change)?;
    if let Some(id) = index.lookup(directory.path()) {
        index.observe(id, directory.stat(b".")?.map(|now| now.observed));
    }
    Ok(())
}

fn keep_mtime(directory: &Directory, change: impl FnOnce() -> Result<(), rootfs::Error>) -> Result<(), rootfs::Error> {
    let before = directory.stat(b".")?;
    change()?;
    before.map_or(Ok(()), |before| directory.set_mtime(b".", before.mtime))
}

impl Place {
    /// Removes those that a command has moved; the image's own file, if there is one, takes the place.
    pub(super) fn take_back(&self, moved: &[MovedMount]) -> Result<(), rootfs::Error> {
        for MovedMount { from, to } in moved {
            let directory = self.mounted_root.parent_directory(to)?;
            keep_mtime(&directory, || {
                directory.remove(to.file_name())?;
                match self.root.node(from)? {
                    Some((node, _)) => copy(&self.root, from, &node, &directory, to.file_name()),
                    None => Ok(()),
                }
            })?;
        }
        Ok(())
    }
}

/// Copies the file `from` of the root.
fn copy(root: &Root, from: &ImagePath, node: &Node, directory: &Directory, name: &[u8]) -> Result<(), rootfs::Error> {
    let failed = |source| rootfs::Error { action: "move with its directory", path: from.clone(), source };
    match &node.kind {
        Kind::File { .. } => {
            let new = directory.create_file_as(name, node)?;
            io::copy(&mut root.open_file(from)?, &mut new.file()).map_err(failed)?;
            new.finish(node).map(drop)
        }
        Kind::Symlink { target } => {
            directory.create_symlink(name, target)?;
            directory.set_attributes(name, node)
        }
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => {
            directory.create_special(name, &node.kind)?;
            directory.set_attributes(name, node)
        }
        Kind::Directory | Kind::Socket => Err(failed(io::ErrorKind::Unsupported.into())),
    }
}
