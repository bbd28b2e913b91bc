//! [`Changeset`]: what a layer records.

use std::collections::BTreeMap;

use super::{ImagePath, Node};

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

/// The difference between two states of the root, in path order: parents before their children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changeset {
    changes: BTreeMap<ImagePath, Change>,
}

impl Changeset {
    /// A changeset that says nothing.
    pub fn new() -> Changeset {
        Changeset::default()
    }

    /// Says `change` of `path`; what was said of it before is forgotten.
    pub fn insert(&mut self, path: ImagePath, change: Change) {
        self.changes.insert(path, change);
    }

    /// Forgets `path`.
    pub fn remove(&mut self, path: &ImagePath) -> Option<Change> {
        self.changes.remove(path)
    }

    /// What is said of `path`.
    pub fn get(&self, path: &ImagePath) -> Option<&Change> {
        self.changes.get(path)
    }

    /// All changes in path order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&ImagePath, &Change)> {
        self.changes.iter()
    }

    /// Number of entries, parents included.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Is there nothing to record? Parents alone do not make a layer.
    pub fn is_empty(&self) -> bool {
        self.changes.values().all(|change| matches!(change, Change::Parent(_)))
    }
}

impl FromIterator<(ImagePath, Change)> for Changeset {
    fn from_iter<I: IntoIterator<Item = (ImagePath, Change)>>(changes: I) -> Changeset {
        Changeset { changes: changes.into_iter().collect() }
    }
}
