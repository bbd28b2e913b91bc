//! The slow and obvious difference of two listings, by the rules of the crate docs and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_128;

use crate::rootfs::Root;
use crate::tree::{Change, ContentHash, ImagePath, Kind, Node, Observed};

/// Every path of a root but sockets, with the content of files.
pub type Listing = BTreeMap<ImagePath, (Node, Observed)>;

/// Lists a root.
pub fn list(root: &Root) -> Listing {
    let mut listing = Listing::new();
    let mut left = vec![ImagePath::root()];
    while let Some(path) = left.pop() {
        let (mut node, observed) = root.node(&path).expect("looked").expect("listed a moment ago");
        let place = path.below(root.place());
        if let Kind::File { size, .. } = node.kind {
            let bytes = std::fs::read(&place).expect("read");
            node.kind = Kind::File { size, content: Some(ContentHash(xxh3_128(&bytes))) };
        }
        if node.is_directory() {
            for entry in std::fs::read_dir(&place).expect("listed") {
                left.push(path.join(std::os::unix::ffi::OsStrExt::as_bytes(&*entry.expect("an entry").file_name())));
            }
        }
        if node.kind != Kind::Socket {
            listing.insert(path, (node, observed));
        }
    }
    listing
}

/// Sets of names that share an inode, each with at least one name.
fn groups(listing: &Listing) -> Vec<BTreeSet<&ImagePath>> {
    let mut groups: BTreeMap<(u64, u64), BTreeSet<&ImagePath>> = BTreeMap::new();
    for (path, (node, observed)) in listing {
        if !node.is_directory() {
            groups.entry((observed.device, observed.inode)).or_default().insert(path);
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort();
    groups
}

/// What a layer has to say so that `before` becomes `after`.
pub fn expected(before: &Listing, after: &Listing) -> BTreeMap<ImagePath, Change> {
    let mut changes = BTreeMap::new();
    for (path, (node, _)) in after {
        match before.get(path) {
            None => drop(changes.insert(path.clone(), Change::Added(node.clone()))),
            Some((old, _)) if path.is_root() => {
                let old = Node { mtime: node.mtime, ..old.clone() };
                assert_eq!(&old, node, "no program changes `/` itself");
            }
            Some((old, _)) if old != node => drop(changes.insert(path.clone(), Change::Modified(node.clone()))),
            Some(_) => {}
        }
    }
    link(&mut changes, before, after);
    for path in before.keys().filter(|path| !after.contains_key(*path)) {
        let parent = path.parent().expect("`/` stays");
        if after.get(&parent).is_some_and(|(node, _)| node.is_directory()) {
            changes.insert(path.clone(), Change::Removed);
        }
    }
    let speaking: Vec<ImagePath> = changes.keys().cloned().collect();
    for parent in speaking.iter().flat_map(ImagePath::ancestors).filter(|parent| !parent.is_root()) {
        changes.entry(parent.clone()).or_insert_with(|| Change::Parent(after[&parent].0.clone()));
    }
    changes
}

/// Every name of a changed group gets an entry.
fn link(changes: &mut BTreeMap<ImagePath, Change>, before: &Listing, after: &Listing) {
    let old_groups = groups(before);
    let new_groups = groups(after);
    let own: BTreeSet<ImagePath> = changes.keys().cloned().collect();
    let is_silent = |group: &BTreeSet<&ImagePath>| group.iter().all(|path| !own.contains(*path));
    for group in &new_groups {
        let is_left = old_groups.iter().any(|old| {
            // The first silent part of a group of before is what is left of it.
            let left = new_groups.iter().find(|part| is_silent(part) && part.is_subset(old));
            left == Some(group)
        });
        if is_left {
            continue;
        }
        let mut names = group.iter();
        let first = *names.next().expect("a group has a name");
        let node = &after[first].0;
        changes.entry(first.clone()).or_insert_with(|| Change::Modified(node.clone()));
        for name in names {
            changes.insert((*name).clone(), Change::Link { first: first.clone(), node: node.clone() });
        }
    }
}
