//! Archives that ADD unpacks: their members are laid over the destination directory.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::Arc;

use super::CopyError;
use super::copier::{Copier, make_directories, resolve};
use super::settings::Settings;
use super::write::{OnDisk, copy_and_hash, create_special};
use crate::context::decompress;
use crate::layer::{Broken, Member, Members};
use crate::rootfs::Directory;
use crate::sys::fs::FileType;
use crate::tree::{ImagePath, Kind, Node, Standing};

/// Names of members that stand for a removal (image spec: layer, whiteouts).
const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Names that begin so are bookkeeping of an old union file system, and no removals.
const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";

impl Copier<'_, '_> {
    /// Unpacks `file` into the destination if it is an archive; tells whether it was. The content decides, not the name.
    pub(super) fn unpack(&mut self, mut file: File, named: &ImagePath) -> Result<bool, CopyError> {
        let failed = |source| CopyError::Archive { named: named.to_string(), source };
        if !is_archive(&file) {
            return Ok(false);
        }
        file.rewind().map_err(failed)?;
        let destination = self.resolve(&self.destination.path)?;
        // `--chmod` does not reach archives, nor the directory that is made for one
        let settings = Settings { mode: None, ..self.settings };
        make_directories(&mut self.recorder, &settings, &destination)?;
        let mut tar = Members::new(decompress(file).map_err(failed)?);
        let mut unpacking = Unpacking { copier: self, destination, open: None };
        while let Some(member) = tar.next().map_err(|broken| failed(broken.into()))? {
            unpacking.unpack(member, &mut tar, &failed)?;
        }
        Ok(true)
    }
}

/// Does a tar with at least one member begin here? Moves the file's position.
fn is_archive(file: &File) -> bool {
    let Ok(plain) = decompress(file) else { return false };
    // one that cannot be is a member all the same
    matches!(Members::new(plain).next(), Ok(Some(_)) | Err(Broken::Member(..)))
}

/// The members of one archive on their way to the destination.
struct Unpacking<'c, 'a, 's> {
    copier: &'c mut Copier<'a, 's>,
    destination: ImagePath,
    /// The directory of the last member.
    open: Option<(ImagePath, Arc<Directory>)>,
}

impl Unpacking<'_, '_, '_> {
    fn unpack(
        &mut self,
        member: Member,
        content: impl Read,
        failed: &impl Fn(io::Error) -> CopyError,
    ) -> Result<(), CopyError> {
        let outside = |error| failed(io::Error::new(io::ErrorKind::InvalidData, error));
        let Member { name, mut node, hard_link } = member;
        let inside = ImagePath::parse_untrusted(name).map_err(outside)?;
        if inside.is_root() {
            return Ok(());
        }
        let written = self.destination.resolve(inside.relative());
        let written_parent = written.parent().unwrap_or_else(ImagePath::root);
        let parent_path = self.copier.resolve(&written_parent)?;
        let mut parent = self.open(&parent_path)?;
        let path = parent_path.join(written.file_name());
        if self.copier.recorder.ignored.is_untouchable(&path) {
            parent = self.copier.recorder.open_for(&path)?;
        }
        if let Some(removed) = path.file_name().strip_prefix(WHITEOUT_PREFIX) {
            if !path.file_name().starts_with(WHITEOUT_META_PREFIX) && !removed.is_empty() {
                self.open = None;
                self.copier.recorder.remove(&parent, &parent_path.join(removed))?;
            }
            return Ok(());
        }
        if let Some(target) = hard_link {
            let target = ImagePath::parse_untrusted(target).map_err(outside)?;
            return self.link(&parent, path, &self.destination.resolve(target.relative()));
        }
        (node.uid, node.gid) = self.copier.settings.owner.unwrap_or((node.uid, node.gid));
        self.make_room(&parent, &path, &node)?;
        let recorder = &mut self.copier.recorder;
        if node.is_directory() {
            return if parent.stat(path.file_name())?.is_some() {
                recorder.open(&path)?;
                recorder.amend(&path, |there| *there = node);
                Ok(())
            } else {
                recorder.create(&parent, &path, node)
            };
        }
        let (node, (observed, standing)) =
            write_member(&parent, &path, node, content).map_err(|error| match error {
                Failure::Archive(source) => failed(source),
                Failure::Root(error) => error,
            })?;
        recorder.record(&path, &node, observed, standing);
        Ok(())
    }

    /// Opens the directory of a member; what the archive did not list is made.
    fn open(&mut self, path: &ImagePath) -> Result<Arc<Directory>, CopyError> {
        if let Some((open, directory)) = &self.open
            && open == path
        {
            return Ok(Arc::clone(directory));
        }
        let Copier { recorder, settings, .. } = &mut *self.copier;
        if recorder.directory_node(path).is_none() {
            let settings = Settings { owner: None, mode: None, link: false, ..*settings };
            make_directories(recorder, &settings, path)?;
        }
        let directory = recorder.open(path)?;
        self.open = Some((path.clone(), Arc::clone(&directory)));
        Ok(directory)
    }

    /// Removes what is at `path`, unless both that and `node` are directories.
    fn make_room(&mut self, parent: &Directory, path: &ImagePath, node: &Node) -> Result<(), CopyError> {
        match parent.stat(path.file_name())? {
            None => Ok(()),
            Some(stat) if stat.file_type == FileType::Directory && node.is_directory() => Ok(()),
            Some(_) => {
                self.open = None;
                self.copier.recorder.clear(parent, path)
            }
        }
    }

    fn link(&mut self, parent: &Directory, path: ImagePath, target: &ImagePath) -> Result<(), CopyError> {
        let recorder = &mut self.copier.recorder;
        let target_parent = resolve(recorder.root, &target.parent().unwrap_or_else(ImagePath::root))?;
        let target = target_parent.join(target.file_name());
        if target == path {
            return Ok(());
        }
        let from = recorder.root.parent_directory(&target)?;
        if parent.stat(path.file_name())?.is_some() {
            self.open = None;
            recorder.clear(parent, &path)?;
        }
        parent.create_hard_link(path.file_name(), &from, target.file_name())?;
        recorder.record_link(&target, &path)
    }
}

/// Whose fault it is.
enum Failure {
    Archive(io::Error),
    Root(CopyError),
}

impl From<crate::rootfs::Error> for Failure {
    fn from(error: crate::rootfs::Error) -> Failure {
        Failure::Root(error.into())
    }
}

/// Writes a member that is no directory; gives the node with what was learnt from its bytes.
fn write_member(
    parent: &Directory,
    path: &ImagePath,
    mut node: Node,
    bytes: impl Read,
) -> Result<(Node, OnDisk), Failure> {
    let name = path.file_name();
    match &node.kind {
        &Kind::File { size, .. } => {
            let file = parent.create_file_as(name, &node)?;
            let (length, hash) = copy_and_hash(bytes, size, file.file()).map_err(Failure::Archive)?;
            if length != size {
                return Err(Failure::Archive(io::ErrorKind::UnexpectedEof.into()));
            }
            let observed = file.finish(&node)?;
            node.kind = Kind::File { size, content: Some(hash) };
            return Ok((node, (Some(observed), Standing::Image)));
        }
        Kind::Symlink { target } => parent.create_symlink(name, target)?,
        kind if !create_special(parent, name, kind)? => return Ok((node, (None, Standing::Masked))),
        _ => {}
    }
    parent.set_attributes(name, &node)?;
    let observed = parent.stat(name)?.map(|stat| stat.observed);
    Ok((node, (observed, Standing::Image)))
}
