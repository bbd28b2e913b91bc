//! The difference between two indexes: what `--single-snapshot` records.

use super::changes::{Name, Parts, inode};
use super::{SnapshotMode, Verdict};
use crate::tree::{Changeset, Kind, NodeId, RootIndex, Standing};

/// One changeset from `before` to `after`, two states of the same root that both were taken from disk. Pure: what the
/// snapshot mode left out on the way does not show, because the index kept what it was.
pub fn difference(before: &RootIndex, after: &RootIndex) -> Changeset {
    let mut parts = Parts::default();
    let mut pairs = vec![(Some(before.root()), after.root())];
    while let Some((old, new)) = pairs.pop() {
        compare(before, after, old, new, &mut parts);
        let was_directory = old.filter(|&old| before.is_directory(old));
        if !after.is_directory(new) {
            continue;
        }
        for child in after.children(new) {
            pairs.push((was_directory.and_then(|old| before.child(old, after.name(child))), child));
        }
        for child in was_directory.into_iter().flat_map(|old| before.children(old)) {
            let in_image = before.subtree(child).any(|id| before.standing(id) != Standing::Foreign);
            if in_image && after.child(new, before.name(child)).is_none_or(|id| is_socket(after, id)) {
                parts.removed.insert(before.path(child));
            }
        }
    }
    // both states were taken from disk, so that the names of a file are alike already
    parts.changeset(after).0
}

fn compare(before: &RootIndex, after: &RootIndex, old: Option<NodeId>, new: NodeId, parts: &mut Parts) {
    if after.standing(new) == Standing::Foreign || is_socket(after, new) {
        return;
    }
    let path = || after.path(new);
    let node = after.node(new);
    let differs = match old {
        None => true,
        Some(old) if before.standing(old) == Standing::Foreign => true,
        Some(old) => {
            let mut was = before.node(old);
            if new == after.root() {
                was.mtime = node.mtime;
            }
            match SnapshotMode::Full.verdict(&was, &node) {
                Verdict::Same => false,
                Verdict::Changed => true,
                // Nobody read the file in one of the states: the inode has to tell.
                Verdict::AskContent => after.observed(new).is_none_or(|seen| !before.is_as_observed(old, &seen)),
            }
        }
    };
    let is_new = old.is_none_or(|old| before.standing(old) == Standing::Foreign);
    // `/` becomes part of the image without an entry, as a parent.
    if differs && !(is_new && new == after.root()) {
        parts.say(new, is_new);
    }
    if after.is_directory(new) {
        return;
    }
    let was = old.filter(|&old| !before.is_directory(old)).and_then(|old| before.observed(old)).map(inode);
    let has_siblings = |index: &RootIndex, inode: (u64, u64)| index.names_of_inode(inode.0, inode.1).len() > 1;
    if let Some(is) = after.observed(new).map(inode)
        && (has_siblings(after, is) || was.is_some_and(|was| has_siblings(before, was)))
    {
        parts.names.insert(path(), Name { before: was, after: is });
    }
}

fn is_socket(index: &RootIndex, id: NodeId) -> bool {
    index.node(id).kind == Kind::Socket
}
