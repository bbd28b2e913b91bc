//! From what was found to a [`Changeset`]: hard link groups, whiteouts, parents. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::look::{Findings, Sighting, Unchanged};
use crate::rootfs::Ignored;
use crate::tree::{Change, Changeset, ImagePath, Node, NodeId, Observed, RootIndex, Standing};

/// What two names of one file have in common.
pub(super) type Inode = (u64, u64);

/// The inode that `observed` names.
pub(super) fn inode(observed: Observed) -> Inode {
    (observed.device, observed.inode)
}

/// An entry that a path gets by its own verdict.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) node: Node,
    /// Is it new to the image?
    pub(super) is_new: bool,
}

/// A name of an inode, before and after. The numbers only say which names belong together: those of one side are never
/// compared with those of the other, for the kernel uses them again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    /// `None` where the name was not there, or nobody had looked.
    pub(super) before: Option<Inode>,
    pub(super) after: Inode,
}

/// The difference between two states, path by path.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// In any order, each path once.
    pub(super) entries: Vec<(ImagePath, Entry)>,
    /// All names that exist now of the inodes that have or had several names, as far as one of these may have changed.
    pub(super) names: BTreeMap<ImagePath, Name>,
    /// Topmost removed paths.
    pub(super) removed: BTreeSet<ImagePath>,
}

impl Parts {
    /// Makes the changeset. `node_of` says what is at a path that has no entry.
    pub(super) fn changeset(self, node_of: impl Fn(&ImagePath) -> Node) -> Changeset {
        let Parts { entries, names, removed } = self;
        let own = |Entry { node, is_new }| if is_new { Change::Added(node) } else { Change::Modified(node) };
        let mut changeset: Changeset = entries.into_iter().map(|(path, entry)| (path, own(entry))).collect();
        add_link_groups(&mut changeset, &names, &node_of);
        for path in removed {
            if changeset.get(&path).is_none() {
                changeset.insert(path, Change::Removed);
            }
        }
        let mut parents: BTreeSet<ImagePath> = BTreeSet::new();
        for (path, _) in changeset.iter() {
            for parent in std::iter::successors(path.parent(), ImagePath::parent) {
                if parent.is_root() || changeset.get(&parent).is_some() || !parents.insert(parent) {
                    break;
                }
            }
        }
        for parent in parents {
            let node = node_of(&parent);
            changeset.insert(parent, Change::Parent(node));
        }
        changeset
    }
}

/// Gives every name of a changed group an entry: all but the first are links to that one.
///
/// A group changed if one of its names has an entry, or if it is not what is left of one group of before. Where a
/// group was split, the part that holds the first name and has no entry by itself counts as what is left.
fn add_link_groups(
    changeset: &mut Changeset,
    names: &BTreeMap<ImagePath, Name>,
    node_of: &impl Fn(&ImagePath) -> Node,
) {
    let mut by_inode: HashMap<Inode, Vec<&ImagePath>> = HashMap::new();
    for (path, name) in names {
        by_inode.entry(name.after).or_default().push(path);
    }
    let mut groups: Vec<Vec<&ImagePath>> = by_inode.into_values().collect();
    groups.sort_unstable();
    let mut heirs: HashMap<Inode, &ImagePath> = HashMap::new();
    for group in groups {
        let Some((&first, others)) = group.split_first() else { continue };
        let changed = group.iter().find_map(|path| changeset.get(path)).and_then(Change::node).cloned();
        if changed.is_none() {
            let before = names[first].before;
            let is_part = group.iter().all(|path| names[*path].before == before);
            let is_left = match before {
                Some(before) if is_part => *heirs.entry(before).or_insert(first) == first,
                // Nobody had looked at this single name: nothing says that it had others.
                _ => others.is_empty(),
            };
            if is_left {
                continue;
            }
        }
        let node = changed.unwrap_or_else(|| node_of(first));
        for &other in others {
            changeset.insert(other.clone(), Change::Link { first: first.clone(), node: node.clone() });
        }
        let is_new = matches!(changeset.get(first), Some(Change::Added(_)));
        changeset.insert(first.clone(), if is_new { Change::Added(node) } else { Change::Modified(node) });
    }
}

/// The changeset that `findings` make of what `index` knew before; the index is then what was found and what the layer
/// will say.
pub(super) fn apply(index: &mut RootIndex, ignored: &Ignored, findings: Findings) -> Changeset {
    let (names, removed) = (names(index, ignored, &findings), removed(index, &findings));
    let mut on_disk: HashMap<NodeId, Node> = HashMap::new();
    for same in findings.unchanged {
        index.observe(same.id, Some(same.observed));
        index.set_drifted(same.id, same.is_drifted);
        on_disk.extend(same.node.map(|node| (same.id, *node)));
    }
    for path in &findings.gone {
        index.remove(path);
    }
    let entries = findings.changed.into_iter().map(|(path, Sighting { node, observed })| {
        let is_new = index.lookup(&path).is_none_or(|id| index.standing(id) == Standing::Foreign);
        index.insert(&path, &node, Some(observed), Standing::Image);
        (path, Entry { node, is_new })
    });
    let parts = Parts { entries: entries.collect(), names, removed };
    let changeset = parts.changeset(|path| {
        let id = index.lookup(path).expect("what is on disk was known or found");
        on_disk.get(&id).map_or_else(|| index.node(id), Node::clone)
    });
    remember(index, &changeset);
    changeset
}

/// Topmost paths of the image that are gone.
fn removed(index: &RootIndex, findings: &Findings) -> BTreeSet<ImagePath> {
    let in_image = |id| index.subtree(id).any(|id| index.standing(id) != Standing::Foreign);
    let is_removed = |path: &&ImagePath| {
        let is_below = path.parent().is_some_and(|parent| findings.is_gone(&parent) || findings.is_replaced(&parent));
        !is_below && index.lookup(path).is_some_and(in_image)
    };
    findings.gone.iter().filter(is_removed).cloned().collect()
}

/// The names that share an inode, now or before, with one that was found to be not as observed, and that one.
fn names(index: &RootIndex, ignored: &Ignored, findings: &Findings) -> BTreeMap<ImagePath, Name> {
    let before = |id: NodeId| index.observed(id).filter(|_| !index.is_directory(id)).map(inode);
    // A foreign file stays out of the image although an instruction gave it another name.
    let is_of_image = |same: &&Unchanged| !index.is_directory(same.id) && index.standing(same.id) == Standing::Image;
    let changed = || findings.changed.iter().filter(|(_, now)| !now.node.is_directory());
    let unchanged = || findings.unchanged.iter().filter(is_of_image);
    let mut found: Vec<Inode> = changed().map(|(_, now)| inode(now.observed)).collect();
    found.extend(unchanged().map(|same| inode(same.observed)));
    found.sort_unstable();
    let is_alone = |id: Option<NodeId>, name: &Name| {
        let has_others = |inode: Inode| index.names_of_inode(inode.0, inode.1).iter().any(|&other| Some(other) != id);
        let first = found.partition_point(|inode| *inode < name.after);
        found.get(first + 1) != Some(&name.after) && !has_others(name.after) && !name.before.is_some_and(has_others)
    };
    let mut names: BTreeMap<ImagePath, Name> = BTreeMap::new();
    for (path, now) in changed() {
        let id = index.lookup(path);
        let name = Name { before: id.and_then(before), after: inode(now.observed) };
        if !is_alone(id, &name) {
            names.insert(path.clone(), name);
        }
    }
    for same in unchanged() {
        let name = Name { before: before(same.id), after: inode(same.observed) };
        if !is_alone(Some(same.id), &name) {
            names.insert(index.path(same.id), name);
        }
    }
    if names.is_empty() {
        return names;
    }
    let mut looked_at: HashSet<NodeId> = findings.unchanged.iter().map(|same| same.id).collect();
    looked_at.extend(findings.changed.iter().filter_map(|(path, _)| index.lookup(path)));
    let mut untouched: BTreeMap<ImagePath, Name> = BTreeMap::new();
    for name in names.values() {
        for inode in name.before.into_iter().chain([name.after]) {
            for id in index.names_of_inode(inode.0, inode.1) {
                let path = index.path(id);
                let counts = !looked_at.contains(&id)
                    && !index.is_directory(id)
                    && index.standing(id) == Standing::Image
                    && !ignored.is_overlooked(&path)
                    && !findings.is_gone(&path);
                if counts {
                    untouched.insert(path, Name { before: Some(inode), after: inode });
                }
            }
        }
    }
    untouched.append(&mut names);
    untouched
}

/// Brings the index up to what the layer will say.
fn remember(index: &mut RootIndex, changeset: &Changeset) {
    for (path, change) in changeset.iter() {
        let Some((id, node)) = index.lookup(path).zip(change.node()) else { continue };
        match change {
            Change::Parent(_) => {
                if index.standing(id) == Standing::Foreign {
                    index.set_standing(id, Standing::Image);
                }
            }
            _ => {
                let observed = index.observed(id);
                index.insert(path, node, observed, Standing::Image);
            }
        }
    }
}
