//! From what an earlier stage left to what the next base wants, by the difference of two indexes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::thread;

use super::Error;
use super::apply::{Description, LayerBlob, Opener};
use super::decompress::ReadAhead;
use super::disk::{Content, Disk, implied_directory};
use super::extract::{broken_layer, origin};
use super::members::Members;
use crate::rootfs::{Ignored, Root};
use crate::tree::{ImagePath, Kind, Node, NodeId, RootIndex, Standing};

/// Files whose content must be read again: by layer and member, all names that share it.
type Missing = BTreeMap<u32, BTreeMap<u32, Vec<ImagePath>>>;

impl Description {
    /// All that is described.
    pub fn index(&self) -> &RootIndex {
        &self.index
    }

    /// Leaves out what is neither one of `paths`, nor below one, nor on the way to one.
    pub fn retain(&mut self, paths: &[ImagePath]) {
        let tops: HashSet<&ImagePath> = paths.iter().collect();
        let above: HashSet<ImagePath> = paths.iter().flat_map(ImagePath::ancestors).collect();
        let mut directories = vec![ImagePath::root()];
        while let Some(directory) = directories.pop() {
            if tops.contains(&directory) {
                continue;
            }
            let id = self.index.lookup(&directory).expect("it was found above");
            let children: Vec<ImagePath> = self.index.children(id).map(|child| self.index.path(child)).collect();
            for child in children {
                if above.contains(&child) {
                    directories.push(child);
                } else if !tops.contains(&child) {
                    self.index.remove(&child);
                }
            }
        }
    }

    /// Makes a root in which an earlier stage left files, of which `index` knows all, hold exactly what is described, beside
    /// what is foreign and what is ignored. What differs is removed, changed in place or made; only layers that hold the
    /// content of such files are read again. Gives the number of paths removed.
    ///
    /// What the earlier stage did to foreign files stays as it is: no layer says what they were.
    pub fn realize(
        &self,
        open: &mut Opener<'_>,
        root: &Root,
        index: &mut RootIndex,
        ignored: &Ignored,
    ) -> Result<usize, Error> {
        let mut disk = Disk::new(root, ignored);
        let changed = reset(&self.index, &self.layers, open, &mut disk, index);
        let settled = disk.settle(index);
        let removed = changed?;
        settled.map(|()| removed)
    }
}

/// Makes root and index what `wanted` says, which was filled in memory from `layers`. Gives the number of paths removed.
fn reset(
    wanted: &RootIndex,
    layers: &[LayerBlob],
    open: &mut Opener<'_>,
    disk: &mut Disk<'_>,
    index: &mut RootIndex,
) -> Result<usize, Error> {
    let before = index.len();
    prune(wanted, disk, index, &ImagePath::root())?;
    let removed = before - index.len();
    let missing = make(wanted, disk, index)?;
    for (layer, members) in missing {
        fill(&layers[layer as usize], &members, wanted, open, disk, index)?;
    }
    Ok(removed)
}

/// Removes from `directory` downwards what is not wanted or cannot become it.
fn prune(wanted: &RootIndex, disk: &mut Disk<'_>, index: &mut RootIndex, directory: &ImagePath) -> Result<(), Error> {
    let Some(id) = index.lookup(directory) else { return Ok(()) };
    let children: Vec<NodeId> = index.children(id).collect();
    let children: Vec<ImagePath> = children.into_iter().map(|child| index.path(child)).collect();
    for path in children {
        let Some(id) = index.lookup(&path) else { continue };
        let other = wanted.lookup(&path);
        let both_directories = index.is_directory(id) && other.is_some_and(|other| wanted.is_directory(other));
        let keeps_foreign = || index.subtree(id).any(|below| index.standing(below) == Standing::Foreign);
        let leads_away = disk.ignored().leads_to_untouchable(&path);
        if both_directories {
            prune(wanted, disk, index, &path)?;
        } else if other.is_some_and(|other| can_become(index, id, wanted, other)) {
            continue;
        } else if other.is_none() && index.is_directory(id) && (keeps_foreign() || leads_away) {
            prune(wanted, disk, index, &path)?;
            if index.standing(id) == Standing::Image {
                index.set_standing(id, Standing::Foreign);
            }
        } else if other.is_some() || index.standing(id) != Standing::Foreign {
            disk.remove(index, &path)?;
        }
    }
    Ok(())
}

/// Can the file at `id` stay, with other attributes at most?
fn can_become(index: &RootIndex, id: NodeId, wanted: &RootIndex, other: NodeId) -> bool {
    let (node, other_node) = (index.node(id), wanted.node(other));
    let same = match (&node.kind, &other_node.kind) {
        (Kind::File { size, content: Some(content) }, Kind::File { size: wanted, content: Some(other) }) => {
            size == wanted && content == other
        }
        (Kind::File { .. } | Kind::Directory, _) | (_, Kind::Directory) => false,
        (kind, other) => kind == other,
    };
    same && index.standing(id) != Standing::Foreign && names(index, id) == names(wanted, other)
}

/// All names of a file, itself among them.
fn names(index: &RootIndex, id: NodeId) -> BTreeSet<ImagePath> {
    let inode = index.observed(id).map(|seen| index.names_of_inode(seen.device, seen.inode));
    inode.unwrap_or_else(|| vec![id]).into_iter().map(|name| index.path(name)).collect()
}

/// Makes all that is missing and needs no content, and sets attributes that differ. Gives the files that lack their content.
fn make(wanted: &RootIndex, disk: &mut Disk<'_>, index: &mut RootIndex) -> Result<Missing, Error> {
    let mut missing = Missing::new();
    for other in wanted.subtree(wanted.root()) {
        let path = wanted.path(other);
        if wanted.standing(other) == Standing::Foreign {
            reset_top(disk, index)?;
            continue;
        }
        let node = wanted.node(other);
        match index.lookup(&path).map(|id| (index.node(id), index.standing(id))) {
            Some((known, Standing::Image | Standing::Masked)) if known == node => {}
            Some((known, Standing::Image)) if known.same_kind(&node) && !node.is_directory() => {
                disk.dress(index, &path, &node)?;
            }
            _ => match wanted.observed(other) {
                Some(seen) => {
                    let (layer, member) = origin(seen);
                    missing.entry(layer).or_default().entry(member).or_default().push(path);
                }
                None => drop(put_empty(disk, index, &path, node)?),
            },
        }
    }
    Ok(missing)
}

/// The root directory itself, of which no layer speaks: what an earlier stage made of it goes.
fn reset_top(disk: &mut Disk<'_>, index: &mut RootIndex) -> Result<(), Error> {
    let top = index.root();
    if index.standing(top) == Standing::Image {
        let node = Node { mtime: index.node(top).mtime, ..implied_directory() };
        put_empty(disk, index, &ImagePath::root(), node)?;
        index.set_standing(top, Standing::Foreign);
    }
    Ok(())
}

fn put_empty(disk: &mut Disk<'_>, index: &mut RootIndex, path: &ImagePath, node: Node) -> Result<NodeId, Error> {
    disk.put(index, path, node, &mut Content { bytes: &mut std::io::empty(), source: "" })
}

/// Makes the files whose content is in `layer`.
fn fill(
    layer: &LayerBlob,
    members: &BTreeMap<u32, Vec<ImagePath>>,
    wanted: &RootIndex,
    open: &mut Opener<'_>,
    disk: &mut Disk<'_>,
    index: &mut RootIndex,
) -> Result<(), Error> {
    let node_at = |path: &ImagePath| wanted.node(wanted.lookup(path).expect("the paths are from this index"));
    let needs_bytes = |paths: &Vec<ImagePath>| matches!(node_at(&paths[0]).kind, Kind::File { size: 1.., .. });
    let mut place = |paths: &[ImagePath], content: &mut Content<'_>| {
        let (first, links) = paths.split_first().expect("a file has a name");
        disk.put(index, first, node_at(first), content)?;
        links.iter().try_for_each(|link| disk.link(index, link, first).map(drop))
    };
    for paths in members.values().filter(|paths| !needs_bytes(paths)) {
        place(paths, &mut Content { bytes: &mut std::io::empty(), source: "" })?;
    }
    let Some(last) = members.iter().rev().find(|(_, paths)| needs_bytes(paths)).map(|(&member, _)| member) else {
        return Ok(());
    };
    let digest = layer.descriptor.digest;
    let blob = open(layer).map_err(|source| Error::Open { digest, source })?;
    let name = digest.to_string();
    thread::scope(|scope| {
        // it was read to its end before
        let mut tar = Members::new(ReadAhead::start(scope, blob, u64::MAX));
        for number in 0..=last {
            if tar.next().map_err(|broken| broken_layer(&name, broken))?.is_none() {
                break;
            }
            if let Some(paths) = members.get(&number).filter(|paths| needs_bytes(paths)) {
                place(paths, &mut Content { bytes: &mut tar, source: &name })?;
            }
        }
        Ok(())
    })
}
