//! From what was found to a [`Changeset`]: hard link groups, whiteouts, parents. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::look::{Findings, Unchanged};
use super::sightings::Sighting;
use crate::rootfs::Ignored;
use crate::tree::{Changeset, ImagePath, Node, NodeId, Observed, RootIndex, Said, Standing};

/// What two names of one file have in common.
pub(super) type Inode = (u64, u64);

/// The inode that `observed` names.
pub(super) fn inode(observed: Observed) -> Inode {
    (observed.device, observed.inode)
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
    /// The entries that paths get by their own verdict.
    pub(super) changeset: Changeset,
    /// All names that exist now of the inodes that have or had several names, as far as one of these may have changed.
    pub(super) names: BTreeMap<ImagePath, Name>,
    /// Topmost removed paths.
    pub(super) removed: BTreeSet<ImagePath>,
}

/// A file with several names that all get an entry.
#[derive(Debug)]
pub(super) struct Group {
    /// In path order.
    names: Vec<NodeId>,
    /// The name of which it is known what the file is.
    like: NodeId,
}

impl Parts {
    /// Gives `id` an entry.
    pub(super) fn say(&mut self, id: NodeId, is_new: bool) {
        self.changeset.say(id, if is_new { Said::Added } else { Said::Modified });
    }

    /// Makes the changeset, where `index` is that of the later state, and tells which files with several names are in it.
    pub(super) fn changeset(self, index: &RootIndex) -> (Changeset, Vec<Group>) {
        let Parts { mut changeset, names, mut removed } = self;
        let groups = add_link_groups(&mut changeset, &names, index);
        removed.retain(|path| index.lookup(path).is_none_or(|id| changeset.said(id).is_none()));
        *changeset.removed_mut() = removed;
        for parent in changeset.unsaid_parents(index) {
            changeset.say(parent, Said::Parent);
        }
        (changeset, groups)
    }
}

/// Gives every name of a changed group an entry: all but the first are links to that one.
///
/// A group changed if one of its names has an entry, or if it is not what is left of one group of before. Where a
/// group was split, the part that holds the first name and has no entry by itself counts as what is left.
fn add_link_groups(changeset: &mut Changeset, names: &BTreeMap<ImagePath, Name>, index: &RootIndex) -> Vec<Group> {
    let mut by_inode: HashMap<Inode, Vec<(&ImagePath, NodeId)>> = HashMap::new();
    for (path, name) in names {
        if let Some(id) = index.lookup(path) {
            by_inode.entry(name.after).or_default().push((path, id));
        }
    }
    let mut groups: Vec<Vec<(&ImagePath, NodeId)>> = by_inode.into_values().collect();
    groups.sort_unstable();
    let mut heirs: HashMap<Inode, NodeId> = HashMap::new();
    let mut changed_groups = Vec::new();
    for group in groups {
        let Some((&(first_path, first), others)) = group.split_first() else { continue };
        let changed = group.iter().map(|&(_, id)| id).find(|&id| changeset.said(id).is_some());
        if changed.is_none() {
            let before = names[first_path].before;
            let is_part = group.iter().all(|(path, _)| names[*path].before == before);
            let is_left = match before {
                Some(before) if is_part => *heirs.entry(before).or_insert(first) == first,
                // Nobody had looked at this single name: nothing says that it had others.
                _ => others.is_empty(),
            };
            if is_left {
                continue;
            }
        }
        others.iter().for_each(|&(_, other)| changeset.say(other, Said::LinkTo(first)));
        let is_new = changeset.said(first) == Some(Said::Added);
        changeset.say(first, if is_new { Said::Added } else { Said::Modified });
        let names = group.iter().map(|&(_, id)| id).collect();
        changed_groups.push(Group { names, like: changed.unwrap_or(first) });
    }
    changed_groups
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
    let mut parts = Parts { names, removed, ..Parts::default() };
    for (path, Sighting { node, observed }) in findings.changed.into_iter() {
        let is_new = index.lookup(&path).is_none_or(|id| index.standing(id) == Standing::Foreign);
        let id = index.insert(&path, &node, Some(observed), Standing::Image);
        parts.say(id, is_new);
    }
    let (changeset, groups) = parts.changeset(index);
    for Group { names, like } in groups {
        let node = on_disk.remove(&like).unwrap_or_else(|| index.node(like));
        for id in names {
            index.insert(&index.path(id), &node, index.observed(id), Standing::Image);
        }
    }
    for parent in changeset.present() {
        if index.standing(parent) == Standing::Foreign {
            index.set_standing(parent, Standing::Image);
        }
    }
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
    let unchanged = || findings.unchanged.iter().filter(is_of_image);
    let mut found: Vec<Inode> = findings.changed.observed_files().map(inode).collect();
    found.extend(unchanged().map(|same| inode(same.observed)));
    found.sort_unstable();
    let is_alone = |id: Option<NodeId>, name: &Name| {
        let has_others = |inode: Inode| index.names_of_inode(inode.0, inode.1).iter().any(|&other| Some(other) != id);
        let first = found.partition_point(|inode| *inode < name.after);
        found.get(first + 1) != Some(&name.after) && !has_others(name.after) && !name.before.is_some_and(has_others)
    };
    let mut names: BTreeMap<ImagePath, Name> = BTreeMap::new();
    for (path, observed) in findings.changed.paths_of_files() {
        let id = index.lookup(&path);
        let name = Name { before: id.and_then(before), after: inode(observed) };
        if !is_alone(id, &name) {
            names.insert(path, name);
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
    looked_at.extend(findings.changed.paths().filter_map(|path| index.lookup(&path)));
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
