//! [`Recorder`]: keeps root, index and changeset in step while a copy writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::CopyError;
use crate::rootfs::{Directory, Ignored, Root};
use crate::tree::{Change, Changeset, ImagePath, IndexEntry, Node, Observed, RootIndex, Standing};

/// A directory that the copy made or wrote into. Its attributes are set at the end: writing into it moves its times.
struct Touched {
    /// What it shall be.
    node: Node,
    /// What it was on disk; `None` if the copy made it.
    before: Option<Node>,
}

/// Writes directories, remembers what was written, and says in the end what changed.
pub(super) struct Recorder<'a> {
    pub(super) root: &'a Root,
    pub(super) ignored: &'a Ignored,
    index: &'a mut RootIndex,
    directories: BTreeMap<ImagePath, Touched>,
    /// Inodes that the copy gave several names, by device and number.
    linked: Vec<(u64, u64)>,
    changes: Changeset,
    /// Was it said that something is put where commands do not see it?
    masks_something: bool,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(root: &'a Root, index: &'a mut RootIndex, ignored: &'a Ignored) -> Recorder<'a> {
        Recorder {
            root,
            ignored,
            index,
            directories: BTreeMap::new(),
            linked: Vec::new(),
            changes: Changeset::new(),
            masks_something: false,
        }
    }

    /// Opens an existing directory to write into it.
    pub(super) fn open(&mut self, path: &ImagePath) -> Result<Arc<Directory>, CopyError> {
        let directory = self.root.directory(path)?;
        if !self.directories.contains_key(path) {
            // of `/`, and of what a lossy snapshot mode may have overlooked, the disk knows more than the index
            let known = self.index.lookup(path).filter(|id| !path.is_root() && !self.index.is_drifted(*id));
            let node = match known {
                Some(id) => self.index.node(id),
                None => directory
                    .node(b".")?
                    .map(|(node, _)| node)
                    .ok_or_else(|| CopyError::NotADirectory { path: path.clone() })?,
            };
            self.directories.insert(path.clone(), Touched { node: node.clone(), before: Some(node) });
        }
        Ok(Arc::new(directory))
    }

    /// Opens the directory in which `path` is to be written, which exists: its parent, or, where a mount is in the way, what
    /// stands for that beside the root.
    pub(super) fn open_for(&mut self, path: &ImagePath) -> Result<Arc<Directory>, CopyError> {
        let parent = self.open(&path.parent().unwrap_or_else(ImagePath::root))?;
        if !self.ignored.is_untouchable(path) {
            return Ok(parent);
        }
        let beside = self.root.masked_parent(path)?.ok_or_else(|| CopyError::Untouchable { path: path.clone() })?;
        if !self.masks_something {
            tracing::warn!(
                "{path} is in the image; the build's own file system has something else there, which commands see"
            );
            self.masks_something = true;
        }
        Ok(Arc::new(beside))
    }

    /// Makes a directory in `parent`, which [`Recorder::open_for`] gave.
    pub(super) fn create(&mut self, parent: &Directory, path: &ImagePath, node: Node) -> Result<(), CopyError> {
        parent.create_directory(path.file_name())?;
        self.record(path.clone(), node.clone(), None, Standing::Image);
        self.directories.insert(path.clone(), Touched { node, before: None });
        Ok(())
    }

    /// Changes what an open directory shall be in the end.
    pub(super) fn amend(&mut self, path: &ImagePath, change: impl FnOnce(&mut Node)) {
        if let Some(touched) = self.directories.get_mut(path) {
            change(&mut touched.node);
        }
    }

    /// What an open directory shall be in the end.
    pub(super) fn directory_node(&self, path: &ImagePath) -> Option<&Node> {
        self.directories.get(path).map(|touched| &touched.node)
    }

    /// Removes what is at `path` from the disk, to make room for something of another kind.
    pub(super) fn clear(&mut self, parent: &Directory, path: &ImagePath) -> Result<(), CopyError> {
        if self.ignored.leads_to_untouchable(path) && !self.ignored.is_untouchable(path) {
            return Err(CopyError::Untouchable { path: path.clone() });
        }
        parent.remove_tree(path.file_name())?;
        self.directories.retain(|directory, _| !directory.is_within(path));
        let below: Vec<ImagePath> =
            self.changes.iter().map(|(at, _)| at).filter(|at| at.is_within(path) && *at != path).cloned().collect();
        for at in below {
            self.changes.remove(&at);
        }
        Ok(())
    }

    /// Remembers what now is at `path`. Equal to what the index had, it is no change.
    pub(super) fn record(&mut self, path: ImagePath, node: Node, observed: Option<Observed>, standing: Standing) {
        let old = self.index.get(&path);
        let standing = if self.ignored.is_untouchable(&path) { Standing::Masked } else { standing };
        self.index.insert(&path, &node, observed, standing);
        if let Some(seen) = old.as_ref().and_then(|old| old.observed).filter(|seen| seen.links > 1) {
            self.observe_names(seen.device, seen.inode);
        }
        let is_new = matches!(self.changes.get(&path), Some(Change::Added(_)))
            || old.as_ref().is_none_or(|old| old.standing == Standing::Foreign);
        if is_new {
            self.changes.insert(path, Change::Added(node));
        } else if self.changes.get(&path).is_some() || old.is_some_and(|old| differs(&old, &node)) {
            self.changes.insert(path, Change::Modified(node));
        }
    }

    /// Remembers that `path` is now another name of the file `first`, which was recorded.
    pub(super) fn record_link(&mut self, first: &ImagePath, path: ImagePath) -> Result<(), CopyError> {
        let vanished = || CopyError::Vanished { path: path.clone() };
        let node = self.index.get(first).map(|entry| entry.node).ok_or_else(vanished)?;
        let observed = self.root.stat(&path)?.map(|stat| stat.observed).ok_or_else(vanished)?;
        let is_new = self.index.get(&path).is_none_or(|old| old.standing == Standing::Foreign);
        self.record(path.clone(), node.clone(), Some(observed), Standing::Image);
        if self.changes.get(&path).is_none() {
            self.changes.insert(path, if is_new { Change::Added(node) } else { Change::Modified(node) });
        }
        let inode = (observed.device, observed.inode);
        if self.linked.last() != Some(&inode) {
            self.linked.push(inode);
        }
        Ok(())
    }

    /// Removes `path` with all below it, as a whiteout does.
    pub(super) fn remove(&mut self, parent: &Directory, path: &ImagePath) -> Result<(), CopyError> {
        self.clear(parent, path)?;
        let was_in_image = self.index.lookup(path).is_some_and(|id| self.index.standing(id) != Standing::Foreign);
        self.index.remove(path);
        self.changes.remove(path);
        if was_in_image {
            self.changes.insert(path.clone(), Change::Removed);
        }
        Ok(())
    }

    /// Looks again at all names of an inode: a name that came or went moved its ctime.
    fn observe_names(&mut self, device: u64, inode: u64) {
        for id in self.index.names_of_inode(device, inode) {
            let path = self.index.path(id);
            if let Ok(Some(stat)) = self.root.stat(&path)
                && (stat.observed.device, stat.observed.inode) == (device, inode)
            {
                self.index.observe(id, Some(stat.observed));
            }
        }
    }

    /// Sets the attributes of the directories, and says what changed.
    pub(super) fn finish(mut self) -> Result<Changeset, CopyError> {
        for (path, touched) in std::mem::take(&mut self.directories) {
            self.finish_directory(path, touched)?;
        }
        for (device, inode) in std::mem::take(&mut self.linked) {
            self.finish_links(device, inode);
        }
        self.add_parents();
        Ok(self.changes)
    }

    fn finish_directory(&mut self, path: ImagePath, touched: Touched) -> Result<(), CopyError> {
        let Touched { node, before } = touched;
        let directory = self.root.directory(&path)?;
        match &before {
            Some(before) if *before == node || path.is_root() => directory.set_mtime(b".", before.mtime)?,
            Some(before) => {
                for (name, _) in before.xattrs.iter().filter(|old| !node.xattrs.iter().any(|new| new.0 == old.0)) {
                    directory.remove_xattr(b".", name)?;
                }
                directory.set_attributes(b".", &node)?;
            }
            None => directory.set_attributes(b".", &node)?,
        }
        let observed = directory.stat(b".")?.map(|stat| stat.observed);
        match before {
            None => self.record(path, node, observed, Standing::Image),
            Some(before) if before != node && !path.is_root() => self.record(path, node, observed, Standing::Image),
            // an untouched directory stays what it was for the index; only its ctime moved
            Some(_) => match self.index.lookup(&path) {
                Some(id) => self.index.observe(id, observed),
                None => drop(self.index.insert(&path, &node, observed, Standing::Foreign)),
            },
        }
        Ok(())
    }

    /// Turns all names but the first of an inode into links, if there still are several.
    fn finish_links(&mut self, device: u64, inode: u64) {
        self.observe_names(device, inode);
        let mut names: Vec<ImagePath> =
            self.index.names_of_inode(device, inode).into_iter().map(|id| self.index.path(id)).collect();
        names.sort();
        let mut names = names.into_iter();
        let Some(first) = names.next() else { return };
        let Some(node) = self.index.get(&first).map(|entry| entry.node) else { return };
        if self.changes.get(&first).is_none() {
            self.changes.insert(first.clone(), Change::Modified(node.clone()));
        }
        for name in names {
            self.changes.insert(name, Change::Link { first: first.clone(), node: node.clone() });
        }
    }

    /// Every entry's parents are in the changeset: unchanged ones as such, and those that only the machine had as new.
    fn add_parents(&mut self) {
        let mut missing: Vec<ImagePath> = Vec::new();
        for (path, _) in self.changes.iter() {
            let mut next = path.parent();
            while let Some(parent) = next.filter(|parent| !parent.is_root()) {
                if self.changes.get(&parent).is_some() || missing.last() == Some(&parent) {
                    break;
                }
                next = parent.parent();
                missing.push(parent);
            }
        }
        for parent in missing {
            let Some(id) = self.index.lookup(&parent) else { continue };
            let node = self.index.node(id);
            if self.index.standing(id) == Standing::Foreign {
                self.index.set_standing(id, Standing::Image);
                self.changes.insert(parent, Change::Added(node));
            } else {
                self.changes.insert(parent, Change::Parent(node));
            }
        }
    }
}

/// Must a layer say something of a path that was `old` and is `new`? A name that a hard link shared is on its own now.
fn differs(old: &IndexEntry, new: &Node) -> bool {
    let was_linked = !new.is_directory() && old.observed.is_some_and(|seen| seen.links > 1);
    was_linked || old.node != *new
}
