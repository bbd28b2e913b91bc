//! [`Account`]: what a queue of events adds up to. No I/O: events in, candidates out.
//!
//! An event says which name was used, and a file can have others. So the account follows each inode that came to a
//! name while it was watched: one that lost its last known name again may have been any file of the image, written
//! through a link that is no more. Then the list of names cannot vouch for itself, and the snapshot sweeps, unless the
//! tracker knows which inodes those names were of.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::changes::Inode;
use super::tracker::{Candidates, LostTrack, Unaccounted};
use crate::rootfs::Ignored;
use crate::sys::Errno;
use crate::tree::{ImagePath, NodeId, RootIndex};

/// The number of a watched directory, as its tracker counts them.
pub type Place = u32;

/// What happened to an entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Its content or its metadata changed.
    Changed,
    /// It is a new name.
    Created,
    /// The name is no more.
    Deleted,
    /// The name is no more; [`What::MovedTo`] with the same number says where it went.
    MovedFrom(u32),
    /// The name, which may have been another file's, is that of what was moved.
    MovedTo(u32),
}

/// What became of a name.
#[derive(Debug, Default)]
struct Name {
    /// What is here now came while we watched.
    has_come: bool,
    /// What was here when watching began lost the name.
    first_left: bool,
    /// A directory came.
    is_new_directory: bool,
    /// It came or went: the directory's mtime moved with it.
    moved_parent: bool,
}

/// A file's handle takes less memory than a name, and costs less time in the end.
const FILES_FOR_NAME: usize = 4;

/// The sum of the events so far.
#[derive(Debug, Default)]
pub struct Account {
    /// Number of names that are noted, those of renames under way once more, and the most that are.
    noted: usize,
    most: usize,
    names: HashMap<Place, HashMap<Box<[u8]>, Name>>,
    /// Directories that changed themselves.
    directories: HashSet<Place>,
    /// Renames of which only the first half was seen: had the name come?
    under_way: HashMap<u32, bool>,
    ended: Vec<Place>,
    /// Handles of files that came to a name, lost one, or were used without any.
    files: HashSet<Box<[u8]>>,
    /// The inodes of these files that are left, or why one could not be found, once somebody has looked for them.
    inodes: Option<Result<Vec<Inode>, Errno>>,
    unaccounted: Option<Unaccounted>,
    lost: Option<LostTrack>,
    events: u64,
}

/// A watched directory as the index, or else the disk, knows it.
#[derive(Debug, Clone)]
pub(super) enum Watched {
    /// A directory of the index.
    Known(NodeId),
    /// A directory that the snapshot overlooks; only links in it matter.
    Aside(ImagePath),
}

impl Account {
    /// An account that notes at most so many names, and [`FILES_FOR_NAME`] times as many files.
    pub(super) fn of_at_most(most: usize) -> Account {
        Account { most, ..Account::default() }
    }

    /// The account of whoever saw nothing at all.
    pub(super) fn of_nothing(lost: LostTrack) -> Account {
        Account { lost: Some(lost), ..Account::default() }
    }

    /// The directory itself changed.
    pub(super) fn directory(&mut self, place: Place) {
        self.events += 1;
        self.directories.insert(place);
    }

    /// Something happened to the entry `name` of a directory.
    pub(super) fn entry(&mut self, place: Place, name: &[u8], is_directory: bool, what: What) {
        self.events += 1;
        // Most events are not the first of their name.
        if self.names.get(&place).is_none_or(|names| !names.contains_key(name)) {
            if !self.has_room() {
                return;
            }
            self.names.entry(place).or_default().insert(name.into(), Name::default());
        }
        let entry = self.names.get_mut(&place).and_then(|names| names.get_mut(name)).expect("it was put there");
        if what == What::Changed {
            return;
        }
        entry.moved_parent = true;
        let had_come = entry.has_come;
        match what {
            What::Changed => {}
            What::Created => {
                entry.has_come = true;
                entry.is_new_directory |= is_directory;
            }
            What::Deleted => {
                entry.has_come = false;
                entry.first_left |= !is_directory;
                self.is_gone(had_come);
            }
            // What came stays noted here: when two names are exchanged, the other half of it follows.
            What::MovedFrom(rename) => {
                entry.first_left |= !is_directory && !had_come;
                if self.has_room() {
                    self.under_way.insert(rename, had_come && !is_directory);
                }
            }
            What::MovedTo(rename) => {
                let first_half = self.under_way.remove(&rename);
                entry.has_come = first_half.unwrap_or(true);
                entry.first_left = true;
                entry.is_new_directory |= is_directory;
                self.noted -= usize::from(first_half.is_some());
                self.is_gone(had_come);
            }
        }
        if is_directory && matches!(what, What::Created | What::MovedTo(_)) {
            self.unaccounted = self.unaccounted.or(Some(Unaccounted::NewDirectory));
        }
    }

    /// A name was lost; was it that of something that had come?
    fn is_gone(&mut self, had_come: bool) {
        if had_come {
            self.unaccounted = self.unaccounted.or(Some(Unaccounted::LinkGone));
        }
    }

    /// An event that tells no name of the index.
    pub(super) fn nameless(&mut self) {
        self.events += 1;
    }

    /// A file, by its handle, came to a name, lost one, or was used without any.
    pub(super) fn file(&mut self, handle: &[u8]) {
        // Most events are not the first of their file.
        if self.lost.is_some() || self.files.contains(handle) {
            return;
        }
        if self.files.len() == self.most.saturating_mul(FILES_FOR_NAME) {
            return self.lose_names();
        }
        self.files.insert(handle.into());
    }

    /// Makes room for another name.
    fn has_room(&mut self) -> bool {
        if self.lost.is_none() && self.noted == self.most {
            self.lose_names();
        }
        self.noted += usize::from(self.lost.is_none());
        self.lost.is_none()
    }

    /// There are too many names; those that were noted are of no use any more.
    fn lose_names(&mut self) {
        self.lost(LostTrack::TooManyNames { most: self.most });
        (self.names, self.files, self.under_way) = Default::default();
    }

    /// The handles of those files.
    pub(super) fn files(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.files.iter().map(|handle| &**handle)
    }

    /// These are the inodes of those of [`Account::files`] that are left, or why one of them could not be found. Whatever
    /// names they had, the index knows the others, so that no name that is lost matters.
    pub(super) fn trace(&mut self, inodes: Result<Vec<Inode>, Errno>) {
        self.inodes = Some(inodes);
    }

    /// The directory is no longer watched, since it is no more.
    pub(super) fn end(&mut self, place: Place) {
        self.ended.push(place);
    }

    /// Something was missed.
    pub(super) fn lost(&mut self, lost: LostTrack) {
        self.lost = self.lost.or(Some(lost));
    }

    /// Directories that changed themselves.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Place> {
        self.directories.iter()
    }

    /// Did something get lost?
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// The number of events.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// The directories that are no more.
    pub(super) fn ended(&self) -> &[Place] {
        &self.ended
    }

    /// Where to look. `watched` tells what a number stands for; `aside_is_whole` whether all directories that the
    /// snapshot overlooks are watched.
    pub(super) fn candidates(
        self,
        index: &RootIndex,
        ignored: &Ignored,
        watched: impl Fn(Place) -> Option<Watched>,
        aside_is_whole: bool,
    ) -> Candidates {
        if let Some(lost) = self.lost {
            return Candidates::Everything(lost);
        }
        let is_by_name = !matches!(self.inodes, Some(Ok(_)));
        let mut because = match self.inodes {
            // A file that was used without a name is known by its handle alone.
            Some(Err(errno)) => Some(Unaccounted::Untraced(errno)),
            Some(Ok(_)) => None,
            None => self.unaccounted,
        };
        if is_by_name && self.under_way.values().any(|&had_come| had_come) {
            because = because.or(Some(Unaccounted::LinkGone));
        }
        if !aside_is_whole {
            because = because.or(Some(Unaccounted::AsideUnwatched));
        }
        let (mut paths, mut subtrees) = (BTreeSet::new(), BTreeSet::new());
        for (device, inode) in self.inodes.into_iter().flatten().flatten() {
            paths.extend(index.names_of_inode(device, inode).into_iter().map(|id| index.path(id)));
        }
        for place in &self.directories {
            match watched(*place) {
                Some(Watched::Known(id)) => drop(paths.insert(index.path(id))),
                Some(Watched::Aside(_)) => {}
                None => return Candidates::Everything(LostTrack::UnknownDirectory),
            }
        }
        for (place, names) in self.names {
            let (id, directory) = match watched(place) {
                Some(Watched::Known(id)) => (Some(id), index.path(id)),
                Some(Watched::Aside(path)) => (None, path),
                None => return Candidates::Everything(LostTrack::UnknownDirectory),
            };
            for (name, what) in names {
                let path = directory.join(&name);
                if what.is_new_directory {
                    subtrees.insert(path.clone());
                }
                // A name that the index could know and does not was nobody's, or a socket's.
                let is_traced = || match id.and_then(|id| index.child(id, &name)) {
                    Some(known) => index.observed(known).is_some(),
                    None => id.is_some() && !ignored.is_overlooked(&path),
                };
                if is_by_name && what.first_left && !is_traced() {
                    because = because.or(Some(Unaccounted::LinkGone));
                }
                if what.moved_parent {
                    paths.insert(directory.clone());
                }
                paths.insert(path);
            }
        }
        match because {
            None => Candidates::Listed { paths, subtrees },
            Some(because) => Candidates::Swept { paths, subtrees, because },
        }
    }
}
