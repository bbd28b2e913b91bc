//! [`Changeset`]: what a layer records.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::iter;

use super::{ImagePath, Node, NodeId, RootIndex};

/// What a layer says of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The path is new.
    Added(Node),
    /// The path was there and differs.
    Modified(Node),
    /// The path is another name (hard link) of the file at `first`, which has an entry of its own earlier in
    /// path order. `node` is what both are.
    Link {
        /// The first name of the file by path order.
        first: ImagePath,
        /// What the file is.
        node: Node,
    },
    /// Unchanged, written because something below it changed. Does not make a layer by itself.
    Parent(Node),
    /// The path is gone, with all that was below it.
    Removed,
}

impl Change {
    /// What is at the path now; `None` where it was removed.
    pub fn node(&self) -> Option<&Node> {
        match self {
            Change::Added(node) | Change::Modified(node) | Change::Parent(node) | Change::Link { node, .. } => {
                Some(node)
            }
            Change::Removed => None,
        }
    }
}

/// A [`Change`] of a path that is there, but for the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// See [`Change::Added`].
    Added,
    /// See [`Change::Modified`].
    Modified,
    /// See [`Change::Link`].
    LinkTo(NodeId),
    /// See [`Change::Parent`].
    Parent,
}

/// What is next in path order.
#[derive(Clone, Copy)]
enum Turn {
    Itself(NodeId),
    Inside(NodeId),
}

impl Turn {
    /// Compares the turns of siblings. What is inside of `a` comes where `a/` would: after `a-b`, and before `a0`.
    fn compare(self, other: Turn, index: &RootIndex) -> Ordering {
        let ((one, slash), (other, other_slash)) = (self.name(index), other.name(index));
        let common = one.len().min(other.len());
        one[..common]
            .cmp(&other[..common])
            .then_with(|| one[common..].iter().chain(slash).cmp(other[common..].iter().chain(other_slash)))
    }

    fn name(self, index: &RootIndex) -> (&[u8], &'static [u8]) {
        match self {
            Turn::Itself(id) => (index.name(id), b""),
            Turn::Inside(id) => (index.name(id), b"/"),
        }
    }
}

/// The difference between two states of the root.
///
/// What is there now, the index of the later state has already: a changeset only names it, in about 20 bytes for each
/// path, and is true while that index stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changeset {
    said: HashMap<NodeId, Said>,
    removed: BTreeSet<ImagePath>,
}

impl Changeset {
    /// A changeset that says nothing.
    pub fn new() -> Changeset {
        Changeset::default()
    }

    /// Says `said` of `id`; what was said of it before is forgotten.
    pub fn say(&mut self, id: NodeId, said: Said) {
        self.said.insert(id, said);
    }

    /// Forgets what was said of `id`.
    pub fn forget(&mut self, id: NodeId) {
        self.said.remove(&id);
    }

    /// What is said of `id`.
    pub fn said(&self, id: NodeId) -> Option<Said> {
        self.said.get(&id).copied()
    }

    /// All paths that are there and of which something is said, in no order.
    pub fn present(&self) -> impl Iterator<Item = NodeId> {
        self.said.keys().copied()
    }

    /// The paths that are gone, to be changed. Nothing else may be said of any of them.
    pub fn removed_mut(&mut self) -> &mut BTreeSet<ImagePath> {
        &mut self.removed
    }

    /// The directories that lead to what is said something of, or that is removed, and of which nothing is said; but for `/`.
    pub fn unsaid_parents(&self, index: &RootIndex) -> HashSet<NodeId> {
        let mut unsaid = HashSet::new();
        let of_removed = self.removed.iter().filter_map(|path| index.lookup(&path.parent()?));
        let nearest = self.present().filter_map(|id| index.parent(id)).chain(of_removed);
        for parent in nearest {
            for id in iter::successors(Some(parent), |&id| index.parent(id)) {
                if id == index.root() || self.said.contains_key(&id) || !unsaid.insert(id) {
                    break;
                }
            }
        }
        unsaid
    }

    /// All changes in path order: parents before their children. `index` is that of the later state.
    pub fn changes(&self, index: &RootIndex) -> impl Iterator<Item = (ImagePath, Change)> {
        let mut present = self.in_path_order(index).into_iter();
        let mut removed = self.removed.iter();
        let mut next_present = None;
        let mut next_removed = None;
        iter::from_fn(move || {
            next_present = next_present.take().or_else(|| present.next().map(|id| (index.path(id), id)));
            next_removed = next_removed.take().or_else(|| removed.next());
            match next_removed.take_if(|gone| next_present.as_ref().is_none_or(|(path, _)| **gone < *path)) {
                Some(gone) => Some((gone.clone(), Change::Removed)),
                None => next_present.take().map(|(path, id)| (path, self.change(id, index))),
            }
        })
    }

    /// What is said something of, in path order. The paths themselves would take more memory than all else: names are
    /// compared, directory by directory.
    fn in_path_order(&self, index: &RootIndex) -> Vec<NodeId> {
        let mut inside: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
        for mut id in self.present() {
            while let Some(parent) = index.parent(id) {
                let siblings = inside.entry(parent).or_default();
                siblings.push(id);
                if siblings.len() > 1 || self.said.contains_key(&parent) {
                    break;
                }
                // only what is below it has been said anything of
                id = parent;
            }
        }
        let mut order = Vec::with_capacity(self.said.len());
        let mut left = vec![Turn::Inside(index.root()), Turn::Itself(index.root())];
        while let Some(turn) = left.pop() {
            match turn {
                Turn::Itself(id) => order.extend(self.said.contains_key(&id).then_some(id)),
                Turn::Inside(id) => {
                    let first = left.len();
                    for child in inside.remove(&id).unwrap_or_default() {
                        left.push(Turn::Itself(child));
                        left.extend(inside.contains_key(&child).then_some(Turn::Inside(child)));
                    }
                    left[first..].sort_unstable_by(|one, other| other.compare(*one, index));
                }
            }
        }
        order
    }

    fn change(&self, id: NodeId, index: &RootIndex) -> Change {
        let node = index.node(id);
        match self.said[&id] {
            Said::Added => Change::Added(node),
            Said::Modified => Change::Modified(node),
            Said::LinkTo(first) => Change::Link { first: index.path(first), node },
            Said::Parent => Change::Parent(node),
        }
    }

    /// Number of entries, parents included.
    pub fn len(&self) -> usize {
        self.said.len() + self.removed.len()
    }

    /// Is there nothing to record? Parents alone do not make a layer.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.said.values().all(|said| *said == Said::Parent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Kind, Standing, Timestamp};

    #[test]
    fn changes_come_in_path_order() {
        let mut index = RootIndex::new();
        let node = |kind| Node { kind, mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::EPOCH, xattrs: Vec::new() };
        let (directory, file) = (node(Kind::Directory), node(Kind::File { size: 0, content: None }));
        let mut add = |path, node| index.insert(&ImagePath::clean(path), node, None, Standing::Image);
        let [c, below, a, beside] =
            [("/c", &file), ("/a/b", &file), ("/a", &directory), ("/a-b", &file)].map(|(path, node)| add(path, node));
        let mut changeset = Changeset::new();
        changeset.say(a, Said::Parent);
        assert!(changeset.is_empty());
        assert!(changeset.changes(&index).eq([(ImagePath::clean("/a"), Change::Parent(directory.clone()))]));
        changeset.say(c, Said::LinkTo(below));
        changeset.say(below, Said::Added);
        changeset.say(beside, Said::Modified);
        let removed = ["/b", "/a/a"].map(ImagePath::clean);
        changeset.removed_mut().extend(removed);
        let wanted = [
            ("/a", Change::Parent(directory)),
            ("/a-b", Change::Modified(file.clone())),
            ("/a/a", Change::Removed),
            ("/a/b", Change::Added(file.clone())),
            ("/b", Change::Removed),
            ("/c", Change::Link { first: ImagePath::clean("/a/b"), node: file }),
        ];
        assert_eq!(changeset.len(), wanted.len());
        assert!(changeset.changes(&index).eq(wanted.map(|(path, change)| (ImagePath::clean(path), change))));
        [a, beside, c].into_iter().for_each(|id| changeset.forget(id));
        let left = changeset.changes(&index).map(|(path, _)| path.to_string());
        assert!(left.eq(["/a/a", "/a/b", "/b"]), "also without the parents");
        changeset.forget(below);
        assert!(!changeset.is_empty());
    }
}
