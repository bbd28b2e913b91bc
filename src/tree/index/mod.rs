//! [`RootIndex`]: what we remember of the whole root, in an arena of fixed-size slots.
//!
//! A tree and not a map of full paths: a slot knows its parent and its own name. Two hash tables of slot numbers
//! find a child by (parent, name) and all names of an inode by (device, inode).

mod links;
mod noted;
mod slot;

use std::hash::RandomState;
use std::iter;

use hashbrown::{HashMap, HashSet, HashTable};

use links::{name_of, number};
pub use noted::Moment;
use noted::Noted;
use slot::{NONE, Slot};

use super::{ContentHash, ImagePath, Kind, Node, Observed, Timestamp, Xattrs};

/// A path in a [`RootIndex`]; valid until that path is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

/// How a path came to be in the root, which decides whether a layer may speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A layer or an instruction made it.
    Image,
    /// It was there before the first base was unpacked (the container's own files, mount targets): never an
    /// entry of a layer unless an instruction changes it.
    Foreign,
    /// The image has it, the disk cannot (a base's file under a mount, a device where mknod is refused): never
    /// reported as removed.
    Masked,
}

/// All that the index knows of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// What a layer last said.
    pub node: Node,
    /// What `lstat` last said; `None` where nobody has looked since the path was written.
    pub observed: Option<Observed>,
    /// How the path came to be here.
    pub standing: Standing,
}

const ROOT: NodeId = NodeId(0);

/// What few nodes have: a link target, extended attributes.
#[derive(Clone, Default)]
struct Extra {
    target: Box<[u8]>,
    xattrs: Xattrs,
}

/// Our memory of the root: every path with its image fields and what we observed on disk.
#[derive(Clone)]
pub struct RootIndex {
    slots: Vec<Slot>,
    /// The names of all slots, and of `dead_name_bytes` that are gone.
    names: Vec<u8>,
    dead_name_bytes: usize,
    extras: HashMap<u32, Extra, RandomState>,
    drifted: HashSet<u32, RandomState>,
    devices: Vec<u64>,
    newest_ctime: Option<Timestamp>,
    noted: Noted,
    by_name: HashTable<u32>,
    by_inode: HashTable<u32>,
    first_free: u32,
    hasher: RandomState,
    live: usize,
}

impl Default for RootIndex {
    fn default() -> RootIndex {
        RootIndex::new()
    }
}

impl RootIndex {
    /// An index that holds only `/`, as a foreign directory of mode 0755.
    pub fn new() -> RootIndex {
        let hasher = RandomState::new();
        let mut root = Slot::new(NONE, 0, 0);
        root.set_standing(Standing::Foreign);
        RootIndex {
            slots: vec![root],
            names: Vec::new(),
            dead_name_bytes: 0,
            extras: HashMap::with_hasher(hasher.clone()),
            drifted: HashSet::with_hasher(hasher.clone()),
            devices: Vec::new(),
            newest_ctime: None,
            noted: Noted::default(),
            by_name: HashTable::new(),
            by_inode: HashTable::new(),
            first_free: NONE,
            hasher,
            live: 1,
        }
    }

    /// Number of paths, `/` included.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Is there nothing but `/`?
    pub fn is_empty(&self) -> bool {
        self.live == 1
    }

    /// Bytes of memory that the index has asked for: at most 170 for each path, also right after it has grown.
    pub fn heap_bytes(&self) -> usize {
        let xattr_bytes =
            |(name, value): &(Box<[u8]>, Box<[u8]>)| size_of_val(&(name, value)) * 2 + name.len() + value.len();
        let extra_bytes = |extra: &Extra| extra.target.len() + extra.xattrs.iter().map(xattr_bytes).sum::<usize>();
        self.slots.capacity() * size_of::<Slot>()
            + self.names.capacity()
            + self.by_name.allocation_size()
            + self.by_inode.allocation_size()
            + self.drifted.allocation_size()
            + self.devices.capacity() * size_of::<u64>()
            + self.noted.heap_bytes()
            + self.extras.allocation_size()
            + self.extras.values().map(extra_bytes).sum::<usize>()
    }

    /// The id of `/`.
    pub fn root(&self) -> NodeId {
        ROOT
    }

    /// Finds a path.
    pub fn lookup(&self, path: &ImagePath) -> Option<NodeId> {
        path.components().try_fold(ROOT, |id, name| self.child(id, name))
    }

    /// Finds the child of `parent` called `name`.
    pub fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let hash = self.name_hash(parent.0, name);
        self.by_name
            .find(hash, |&slot| self.slots[slot as usize].parent == parent.0 && self.name(NodeId(slot)) == name)
            .map(|&slot| NodeId(slot))
    }

    /// All that is known of `path`.
    pub fn get(&self, path: &ImagePath) -> Option<IndexEntry> {
        self.lookup(path).map(|id| self.entry(id))
    }

    /// All that is known of `id`.
    pub fn entry(&self, id: NodeId) -> IndexEntry {
        IndexEntry { node: self.node(id), observed: self.observed(id), standing: self.standing(id) }
    }

    /// The image fields of `id`.
    pub fn node(&self, id: NodeId) -> Node {
        let slot = self.slot(id);
        let mut node = slot.node();
        if slot.has_extra() {
            let extra = self.extras.get(&id.0).expect("a slot that says so has its extra");
            node.xattrs.clone_from(&extra.xattrs);
            if let Kind::Symlink { target } = &mut node.kind {
                target.clone_from(&extra.target);
            }
        }
        node
    }

    /// What `lstat` last said of `id`.
    pub fn observed(&self, id: NodeId) -> Option<Observed> {
        let slot = self.slot(id);
        slot.is_observed().then(|| Observed {
            device: self.devices[slot.device as usize],
            inode: slot.inode,
            ctime: slot.ctime(),
            links: slot.links(),
        })
    }

    /// How `id` came to be in the root.
    pub fn standing(&self, id: NodeId) -> Standing {
        self.slot(id).standing()
    }

    /// Is `id` a directory?
    pub fn is_directory(&self, id: NodeId) -> bool {
        self.slot(id).is_directory()
    }

    /// Is `observed` just what was last observed of `id`? (The number of links moves ctime, so it need not agree.)
    pub fn is_as_observed(&self, id: NodeId, observed: &Observed) -> bool {
        let slot = self.slot(id);
        slot.is_observed()
            && slot.inode == observed.inode
            && slot.ctime() == observed.ctime
            && self.devices[slot.device as usize] == observed.device
    }

    /// The newest ctime ever observed; `None` where nothing was observed.
    pub fn newest_ctime(&self) -> Option<Timestamp> {
        self.newest_ctime
    }

    /// Now, for a later [`RootIndex::directories_since`].
    pub fn moment(&self) -> Moment {
        self.noted.now()
    }

    /// Directories that came to the index, or of which another inode was observed, since a moment of this index or of
    /// the one that it was cloned from; some more than once, and with others. `None` if that is too long ago to tell.
    pub fn directories_since(&self, moment: Moment) -> Option<impl Iterator<Item = NodeId>> {
        let is_directory = |id: &NodeId| self.slots[id.0 as usize].is_live() && self.is_directory(*id);
        Some(self.noted.since(moment)?.iter().copied().filter(is_directory))
    }

    /// May the disk differ from the image fields of `id` although it is as observed? A snapshot mode that compares
    /// little leaves this behind; a full comparison looks again.
    pub fn is_drifted(&self, id: NodeId) -> bool {
        self.drifted.contains(&id.0)
    }

    /// All paths that are drifted, in no order.
    pub fn drifted(&self) -> impl Iterator<Item = NodeId> {
        self.drifted.iter().map(|&slot| NodeId(slot))
    }

    /// Notes whether `id` is drifted. New image fields make it not so.
    pub fn set_drifted(&mut self, id: NodeId, drifted: bool) {
        if drifted {
            self.drifted.insert(id.0);
        } else {
            self.drifted.remove(&id.0);
        }
    }

    /// Hash of a regular file's bytes, where known.
    pub fn content(&self, id: NodeId) -> Option<ContentHash> {
        self.slot(id).content().map(ContentHash)
    }

    /// The last component of `id`'s path; empty for `/`.
    pub fn name(&self, id: NodeId) -> &[u8] {
        name_of(&self.names, self.slot(id))
    }

    /// The directory that holds `id`; `None` for `/`.
    pub fn parent(&self, id: NodeId) -> Option<NodeId> {
        let parent = self.slot(id).parent;
        (parent != NONE).then_some(NodeId(parent))
    }

    /// The full path of `id`.
    pub fn path(&self, id: NodeId) -> ImagePath {
        let ancestry = || iter::successors(Some(id), |&id| self.parent(id)).filter(|&id| id != ROOT);
        ImagePath::from_names_upwards(|| ancestry().map(|id| self.name(id)))
    }

    /// The children of a directory, in no order.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        let some = |slot: u32| (slot != NONE).then_some(NodeId(slot));
        iter::successors(some(self.slot(id).first_child()), move |id| some(self.slot(*id).next_sibling))
    }

    /// `id` and everything below it: parents before children, siblings in byte order.
    pub fn subtree(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        let mut stack = vec![id];
        iter::from_fn(move || {
            let next = stack.pop()?;
            let mut children: Vec<NodeId> = self.children(next).collect();
            children.sort_unstable_by(|a, b| self.name(*b).cmp(self.name(*a)));
            stack.extend(children);
            Some(next)
        })
    }

    /// All names that are known for an inode.
    pub fn names_of_inode(&self, device: u64, inode: u64) -> Vec<NodeId> {
        let first = self.place_of_device(device).and_then(|device| self.first_name(device, inode));
        iter::successors(first, |&slot| Some(self.slots[slot as usize].next_name).filter(|&next| next != NONE))
            .map(NodeId)
            .collect()
    }

    /// Remembers `node` at `path`, replacing what was there (with its children, unless both are directories).
    /// Parents that are missing become directories of mode 0755 owned by root, as when a tar leaves them out.
    pub fn insert(&mut self, path: &ImagePath, node: &Node, observed: Option<Observed>, standing: Standing) -> NodeId {
        let mut id = ROOT;
        for name in path.components() {
            id = match self.child(id, name) {
                Some(child) => child,
                None => self.add_child(id, name),
            };
        }
        if self.is_directory(id) && !node.is_directory() {
            self.remove_children(id);
        }
        self.write(id, node, observed, standing);
        id
    }

    /// Notes what `lstat` says of `id` now.
    pub fn observe(&mut self, id: NodeId, observed: Option<Observed>) {
        let inode = |seen: Observed| (seen.device, seen.inode);
        if self.is_directory(id) && self.observed(id).map(inode) != observed.map(inode) {
            self.noted.push(id, self.live);
        }
        self.unlink_inode(id);
        if let Some(seen) = observed {
            self.newest_ctime = self.newest_ctime.max(Some(seen.ctime));
            let device = self.place_of_device(seen.device).unwrap_or_else(|| {
                self.devices.push(seen.device);
                number(self.devices.len() - 1)
            });
            self.slots[id.0 as usize].observe(&seen, device);
            self.link_inode(id);
        }
    }

    /// Notes the hash of a regular file's bytes, or that it is no longer known.
    pub fn set_content(&mut self, id: NodeId, content: Option<ContentHash>) {
        self.slots[id.0 as usize].set_content(content.map(|hash| hash.0));
    }

    /// Changes how `id` stands.
    pub fn set_standing(&mut self, id: NodeId, standing: Standing) {
        self.slots[id.0 as usize].set_standing(standing);
    }

    /// Forgets `path` and everything below it. `/` itself stays. Tells whether there was anything.
    pub fn remove(&mut self, path: &ImagePath) -> bool {
        let Some(id) = self.lookup(path) else { return false };
        self.remove_children(id);
        if id != ROOT {
            self.detach(id);
        }
        true
    }

    fn remove_children(&mut self, id: NodeId) {
        let below: Vec<NodeId> = self.subtree(id).skip(1).collect();
        for child in below.into_iter().rev() {
            self.detach(child);
        }
    }

    fn slot(&self, id: NodeId) -> &Slot {
        let slot = &self.slots[id.0 as usize];
        debug_assert!(slot.is_live(), "a removed path was asked for");
        slot
    }

    fn write(&mut self, id: NodeId, node: &Node, observed: Option<Observed>, standing: Standing) {
        let target: &[u8] = match &node.kind {
            Kind::Symlink { target } => target,
            _ => b"",
        };
        let has_extra = !target.is_empty() || !node.xattrs.is_empty();
        if has_extra {
            self.extras.insert(id.0, Extra { target: target.into(), xattrs: node.xattrs.clone() });
        } else if self.slots[id.0 as usize].has_extra() {
            self.extras.remove(&id.0);
        }
        let slot = &mut self.slots[id.0 as usize];
        slot.set_node(node, has_extra);
        slot.set_standing(standing);
        self.drifted.remove(&id.0);
        if node.is_directory() {
            // Also where the inode is the same: it can have been a file's.
            self.noted.push(id, self.live);
        }
        self.observe(id, observed);
    }
}

fn implicit_directory() -> Node {
    Node { kind: Kind::Directory, mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::EPOCH, xattrs: Vec::new() }
}

#[cfg(test)]
mod tests;
