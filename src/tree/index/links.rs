//! Keeps the tree, the names, the two hash tables and the free slots in step with each other.

use std::hash::BuildHasher;

use super::slot::{NONE, Slot};
use super::{NodeId, RootIndex, Standing, implicit_directory};

/// Names of removed paths are cleared away when they make up more than one byte in so many, and more than this.
const DEAD_SHARE: usize = 4;
const DEAD_BYTES_MIN: usize = 64 * 1024;

/// An array grows by one part in so many: doubling it would leave up to half of it unused.
const GROWTH_SHARE: usize = 8;
const GROWTH_MIN: usize = 256;

impl RootIndex {
    pub(super) fn name_hash(&self, parent: u32, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent, name))
    }

    pub(super) fn add_child(&mut self, parent: NodeId, name: &[u8]) -> NodeId {
        if !self.is_directory(parent) {
            let standing = self.standing(parent);
            self.write(parent, &implicit_directory(), None, standing);
        }
        let length = u8::try_from(name.len()).expect("Linux names have at most 255 bytes");
        make_room(&mut self.names, name.len());
        let mut slot = Slot::new(parent.0, number(self.names.len()), length);
        self.names.extend_from_slice(name);
        slot.next_sibling = self.slots[parent.0 as usize].first_child();
        let id = self.place(slot);
        if slot.next_sibling != NONE {
            self.slots[slot.next_sibling as usize].previous_sibling = id.0;
        }
        self.slots[parent.0 as usize].set_first_child(id.0);
        let hash = self.name_hash(parent.0, name);
        let RootIndex { by_name, slots, names, hasher, .. } = self;
        by_name.insert_unique(hash, id.0, |&other| {
            let other = &slots[other as usize];
            hasher.hash_one((other.parent, name_of(names, other)))
        });
        self.live += 1;
        self.write(id, &implicit_directory(), None, Standing::Image);
        id
    }

    /// Puts a slot where one is free.
    fn place(&mut self, slot: Slot) -> NodeId {
        if self.first_free == NONE {
            make_room(&mut self.slots, 1);
            self.slots.push(slot);
            return NodeId(number(self.slots.len() - 1));
        }
        let id = NodeId(self.first_free);
        self.first_free = self.slots[id.0 as usize].next_sibling;
        self.slots[id.0 as usize] = slot;
        id
    }

    /// Takes a path without children out of the tree.
    pub(super) fn detach(&mut self, id: NodeId) {
        self.unlink_inode(id);
        let hash = self.name_hash(self.slot(id).parent, self.name(id));
        if let Ok(found) = self.by_name.find_entry(hash, |&slot| slot == id.0) {
            found.remove();
        }
        let slot = *self.slot(id);
        match slot.previous_sibling {
            NONE => self.slots[slot.parent as usize].set_first_child(slot.next_sibling),
            previous => self.slots[previous as usize].next_sibling = slot.next_sibling,
        }
        if slot.next_sibling != NONE {
            self.slots[slot.next_sibling as usize].previous_sibling = slot.previous_sibling;
        }
        self.extras.remove(&id.0);
        self.drifted.remove(&id.0);
        self.slots[id.0 as usize].free(self.first_free);
        self.first_free = id.0;
        self.live -= 1;
        self.dead_name_bytes += usize::from(slot.name_length);
        if self.dead_name_bytes > DEAD_BYTES_MIN.max(self.names.len() / DEAD_SHARE) {
            self.clear_dead_names();
        }
    }

    fn clear_dead_names(&mut self) {
        let mut names = Vec::with_capacity(self.names.len() - self.dead_name_bytes);
        for slot in self.slots.iter_mut().filter(|slot| slot.is_live()) {
            let offset = number(names.len());
            names.extend_from_slice(name_of(&self.names, slot));
            slot.name_offset = offset;
        }
        self.names = names;
        self.dead_name_bytes = 0;
    }

    pub(super) fn place_of_device(&self, device: u64) -> Option<u32> {
        self.devices.iter().position(|&known| known == device).map(number)
    }

    fn inode_hash(&self, device: u32, inode: u64) -> u64 {
        self.hasher.hash_one((device, inode))
    }

    /// The name of an inode that the table knows; the others follow it.
    pub(super) fn first_name(&self, device: u32, inode: u64) -> Option<u32> {
        let same = |&slot: &u32| {
            let slot = &self.slots[slot as usize];
            slot.inode == inode && slot.device == device
        };
        self.by_inode.find(self.inode_hash(device, inode), same).copied()
    }

    pub(super) fn link_inode(&mut self, id: NodeId) {
        let Slot { device, inode, .. } = self.slots[id.0 as usize];
        match self.first_name(device, inode) {
            Some(first) => {
                self.slots[id.0 as usize].next_name = self.slots[first as usize].next_name;
                self.slots[first as usize].next_name = id.0;
            }
            None => {
                self.slots[id.0 as usize].next_name = NONE;
                let hash = self.inode_hash(device, inode);
                let RootIndex { by_inode, slots, hasher, .. } = self;
                by_inode.insert_unique(hash, id.0, |&other| {
                    let other = &slots[other as usize];
                    hasher.hash_one((other.device, other.inode))
                });
            }
        }
    }

    /// Forgets what was observed of `id`.
    pub(super) fn unlink_inode(&mut self, id: NodeId) {
        let slot = self.slots[id.0 as usize];
        if !slot.is_observed() {
            return;
        }
        let first = self.first_name(slot.device, slot.inode).expect("the table knows a name of each observed inode");
        if first == id.0 {
            let hash = self.inode_hash(slot.device, slot.inode);
            let entry = self.by_inode.find_entry(hash, |&number| number == id.0);
            let mut entry = entry.expect("it was found a moment ago");
            match slot.next_name {
                NONE => drop(entry.remove()),
                next => *entry.get_mut() = next,
            }
        } else {
            let mut before = first;
            while self.slots[before as usize].next_name != id.0 {
                before = self.slots[before as usize].next_name;
            }
            self.slots[before as usize].next_name = slot.next_name;
        }
        let slot = &mut self.slots[id.0 as usize];
        slot.next_name = NONE;
        slot.forget_observed();
    }
}

pub(super) fn name_of<'a>(names: &'a [u8], slot: &Slot) -> &'a [u8] {
    let start = slot.name_offset as usize;
    &names[start..start + usize::from(slot.name_length)]
}

/// A place in one of the index's arrays.
pub(super) fn number(place: usize) -> u32 {
    u32::try_from(place).expect("a root holds fewer than four billion files and bytes of names")
}

/// Makes room for `more` at the end.
fn make_room<T>(array: &mut Vec<T>, more: usize) {
    if array.capacity() - array.len() < more {
        array.reserve_exact(more.max(array.len() / GROWTH_SHARE).max(GROWTH_MIN));
    }
}
