//! What the image has where the disk has no place for it: beside the root, if this root has room there, else in the index alone.

use std::io;

use super::super::Error;
use super::{Content, Disk, copy, create, is_device, observe};
use crate::sys::fs::FileType;
use crate::tree::{ImagePath, Kind, Node, NodeId, RootIndex, Standing};

impl Disk<'_> {
    /// Can nothing be put at `path`, whatever it is?
    pub(super) fn is_out_of_reach(&self, index: &RootIndex, path: &ImagePath) -> bool {
        let parent = || path.parent().and_then(|parent| index.lookup(&parent));
        self.ignored.is_untouchable(path) || parent().is_some_and(|id| index.standing(id) == Standing::Masked)
    }

    /// Puts what cannot be at its place beside the root, if this root has room there; else the index alone knows it.
    pub(super) fn mask(
        &mut self,
        index: &mut RootIndex,
        path: &ImagePath,
        mut node: Node,
        content: &mut Content<'_>,
    ) -> Result<NodeId, Error> {
        let Some(directory) = self.root.masked_parent(path)? else {
            if let Kind::File { size, content: hash @ None } = &mut node.kind {
                *hash = Some(copy(&mut self.buffer, content, None, path, *size)?);
            }
            return Ok(index.insert(path, &node, None, Standing::Masked));
        };
        let name = path.file_name();
        let there = directory.stat(name)?;
        if there.is_some_and(|stat| !(node.is_directory() && stat.file_type == FileType::Directory)) {
            directory.remove_tree(name)?;
        }
        let file = match &node.kind {
            Kind::Directory if directory.stat(name)?.is_some() => None,
            Kind::Directory => directory.create_directory(name).map(|_| None)?,
            // a device that was refused
            _ if is_device(&node) => return Ok(index.insert(path, &node, None, Standing::Masked)),
            _ => create(&directory, name, &node)?,
        };
        let observed = match file {
            Some(file) => Some(self.fill(file, path, &mut node, content)?),
            None => {
                self.set_attributes(index, &directory, name, path, &node)?;
                // what is observed of a directory moves while it is filled: `settle` looks at it
                if node.is_directory() { None } else { observe(&directory, path)? }
            }
        };
        Ok(index.insert(path, &node, observed, Standing::Masked))
    }

    /// As [`Disk::link`] where one of the names is masked: two masked names share a file, else the second gets its own.
    pub(super) fn link_masked(
        &mut self,
        index: &mut RootIndex,
        path: &ImagePath,
        target: &ImagePath,
        node: Node,
    ) -> Result<NodeId, Error> {
        let is_beside = self.root.masks(target)?;
        if is_beside
            && self.is_out_of_reach(index, path)
            && let Some(directory) = self.root.masked_parent(path)?
        {
            directory.remove_tree(path.file_name())?;
            let from = self.root.parent_directory(target)?;
            directory.create_hard_link(path.file_name(), &from, target.file_name())?;
            let observed = self.observe_loose(&directory, path)?;
            return Ok(index.insert(path, &node, observed, Standing::Masked));
        }
        match node.kind {
            Kind::File { .. } if !is_beside && index.get(target).is_some_and(|it| it.standing == Standing::Masked) => {
                Ok(index.insert(path, &node, None, Standing::Masked))
            }
            Kind::File { .. } => {
                let mut file = self.root.open_file(target)?;
                self.put(index, path, node, &mut Content { bytes: &mut file, source: "" })
            }
            _ => self.put(index, path, node, &mut Content { bytes: &mut io::empty(), source: "" }),
        }
    }

    /// Takes away what is beside the root for `path`, whose place is free now.
    pub(super) fn unmask(&mut self, index: &RootIndex, path: &ImagePath) -> Result<(), Error> {
        let is_masked = index.lookup(path).is_some_and(|id| index.standing(id) == Standing::Masked);
        if is_masked { self.remove_masked(path) } else { Ok(()) }
    }

    pub(super) fn remove_masked(&mut self, path: &ImagePath) -> Result<(), Error> {
        if self.root.masks(path)?
            && let Some(directory) = self.root.masked_parent(path)?
        {
            directory.remove_tree(path.file_name())?;
        }
        Ok(())
    }
}
