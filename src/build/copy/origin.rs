//! [`Files`]: what is in an origin, also where the machine could not put it on disk.

use super::CopyError;
use crate::rootfs::{Directory, Root, Stat};
use crate::sys::fs::FileType;
use crate::tree::{ImagePath, Kind, Node, NodeId, RootIndex, Standing};

/// The files of an origin.
#[derive(Clone, Copy)]
pub(super) struct Files<'a> {
    pub(super) root: &'a Root,
    pub(super) index: Option<&'a RootIndex>,
}

/// One file or directory of an origin.
pub(super) enum Source {
    /// It is on disk.
    OnDisk(Stat),
    /// A device that may not be made on this machine. It has no content: what a layer said of it is all there is.
    Device(Node),
}

impl Source {
    pub(super) fn is_directory(&self) -> bool {
        matches!(self, Source::OnDisk(stat) if stat.file_type == FileType::Directory)
    }
}

impl Files<'_> {
    /// What is at `path`, whose parents are no symlinks.
    pub(super) fn look(&self, path: &ImagePath) -> Result<Option<Source>, CopyError> {
        let there = self.root.stat(path).map_err(CopyError::source)?;
        let device = || self.index.and_then(|index| device(index, index.lookup(path)?));
        Ok(there.map(Source::OnDisk).or_else(|| device().map(Source::Device)))
    }

    /// What `name` is in `directory`.
    pub(super) fn look_in(&self, directory: &Directory, name: &[u8]) -> Result<Option<Source>, CopyError> {
        let there = directory.stat(name).map_err(CopyError::source)?;
        let device = || self.index.and_then(|index| device(index, index.child(index.lookup(directory.path())?, name)?));
        Ok(there.map(Source::OnDisk).or_else(|| device().map(Source::Device)))
    }

    /// The names in `directory` with their kinds, sorted.
    pub(super) fn entries(&self, directory: &Directory) -> Result<Vec<(Vec<u8>, FileType)>, CopyError> {
        let mut entries = directory.entries().map_err(CopyError::source)?;
        if let Some((index, id)) = self.index.and_then(|index| Some((index, index.lookup(directory.path())?))) {
            let devices = index.children(id).filter(|&child| device(index, child).is_some());
            entries.extend(devices.map(|child| (index.name(child).to_vec(), file_type(&index.node(child).kind))));
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        entries.dedup_by(|later, first| later.0 == first.0);
        Ok(entries)
    }
}

/// The device at `id`, if the disk could not hold it.
fn device(index: &RootIndex, id: NodeId) -> Option<Node> {
    let is_masked = index.standing(id) == Standing::Masked && index.observed(id).is_none();
    let node = || index.node(id);
    is_masked.then(node).filter(|node| matches!(node.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }))
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::BlockDevice { .. } => FileType::BlockDevice,
        _ => FileType::CharacterDevice,
    }
}
