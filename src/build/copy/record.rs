//! [`Recorder`]: keeps root, index and changeset in step while a copy writes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::CopyError;
use crate::rootfs::{Directory, Ignored, Root};
use crate::tree::{Changeset, ImagePath, IndexEntry, Node, NodeId, Observed, RootIndex, Said, Standing};

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
    /// What the image had below what was removed.
    gone_with_others: BTreeSet<ImagePath>,
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
            gone_with_others: BTreeSet::new(),
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
        self.record(path, &node, None, Standing::Image);
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
        for id in self.index.lookup(path).into_iter().flat_map(|id| self.index.subtree(id).skip(1)) {
            self.changes.forget(id);
        }
        self.changes.removed_mut().retain(|at| at == path || !at.is_within(path));
        Ok(())
    }

    /// Remembers what now is at `path`. Equal to what the index had, it is no change.
    pub(super) fn record(
        &mut self,
        path: &ImagePath,
        node: &Node,
        observed: Option<Observed>,
        standing: Standing,
    ) -> NodeId {
        let old_id = self.index.lookup(path);
        let old = old_id.map(|id| self.index.entry(id));
        let said = old_id.and_then(|id| self.changes.said(id));
        let standing = if self.ignored.is_untouchable(path) { Standing::Masked } else { standing };
        let id = self.index.insert(path, node, observed, standing);
        if let Some(seen) = old.as_ref().and_then(|old| old.observed).filter(|seen| seen.links > 1) {
            self.observe_names(seen.device, seen.inode);
        }
        let is_new = said == Some(Said::Added) || old.as_ref().is_none_or(|old| old.standing == Standing::Foreign);
        if self.changes.removed_mut().remove(path) {
            self.changes.say(id, Said::Modified);
            if node.is_directory() {
                self.remove_what_was_in(path);
            }
        } else if is_new {
            self.changes.say(id, Said::Added);
        } else if said.is_some() || old.is_some_and(|old| differs(&old, node)) {
            self.changes.say(id, Said::Modified);
        }
        id
    }

    /// A directory that was removed is there again, and nothing that was in it.
    fn remove_what_was_in(&mut self, directory: &ImagePath) {
        let inside = [directory.as_bytes(), b"/"].concat();
        let below = self.gone_with_others.range::<[u8], _>((Bound::Included(&*inside), Bound::Unbounded));
        let below = below.take_while(|path| path.as_bytes().starts_with(&inside));
        let children = below.filter(|path| path.parent().as_ref() == Some(directory));
        self.changes.removed_mut().extend(children.cloned());
    }

    /// Remembers that `path` is now another name of the file `first`, which was recorded.
    pub(super) fn record_link(&mut self, first: &ImagePath, path: &ImagePath) -> Result<(), CopyError> {
        let vanished = || CopyError::Vanished { path: path.clone() };
        let node = self.index.get(first).map(|entry| entry.node).ok_or_else(vanished)?;
        let observed = self.root.stat(path)?.map(|stat| stat.observed).ok_or_else(vanished)?;
        let is_new = self.index.get(path).is_none_or(|old| old.standing == Standing::Foreign);
        let id = self.record(path, &node, Some(observed), Standing::Image);
        if self.changes.said(id).is_none() {
            self.changes.say(id, if is_new { Said::Added } else { Said::Modified });
        }
        let inode = (observed.device, observed.inode);
        if self.linked.last() != Some(&inode) {
            self.linked.push(inode);
        }
        Ok(())
    }

    /// Removes `path` with all below it, as a whiteout does.
    pub(super) fn remove(&mut self, parent: &Directory, path: &ImagePath) -> Result<(), CopyError> {
        let Some(id) = self.index.lookup(path) else { return self.clear(parent, path) };
        let was_in_image =
            |id: &NodeId| self.index.standing(*id) != Standing::Foreign && self.changes.said(*id) != Some(Said::Added);
        let is_change = was_in_image(&id);
        let below = self.index.subtree(id).skip(1).filter(was_in_image);
        self.gone_with_others.extend(below.map(|id| self.index.path(id)));
        self.clear(parent, path)?;
        self.changes.forget(id);
        self.index.remove(path);
        if is_change {
            self.changes.removed_mut().insert(path.clone());
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
            None => drop(self.record(&path, &node, observed, Standing::Image)),
            Some(before) if before != node && !path.is_root() => {
                self.record(&path, &node, observed, Standing::Image);
            }
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
        let mut names = self.index.names_of_inode(device, inode);
        names.sort_by_cached_key(|&name| self.index.path(name));
        let Some((&first, others)) = names.split_first() else { return };
        if self.changes.said(first).is_none() {
            self.changes.say(first, Said::Modified);
        }
        others.iter().for_each(|&other| self.changes.say(other, Said::LinkTo(first)));
    }

    /// Every entry's parents are in the changeset: unchanged ones as such, and those that only the machine had as new.
    fn add_parents(&mut self) {
        for parent in self.changes.unsaid_parents(self.index) {
            if self.index.standing(parent) == Standing::Foreign {
                self.index.set_standing(parent, Standing::Image);
                self.changes.say(parent, Said::Added);
            } else {
                self.changes.say(parent, Said::Parent);
            }
        }
    }
}

/// Must a layer say something of a path that was `old` and is `new`? A name that a hard link shared is on its own now.
fn differs(old: &IndexEntry, new: &Node) -> bool {
    let was_linked = !new.is_directory() && old.observed.is_some_and(|seen| seen.links > 1);
    was_linked || old.node != *new
}
