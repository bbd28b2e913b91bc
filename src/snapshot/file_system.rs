//! Tracker A: fanotify, one mark for the file system that the root is on. For root on a machine of its own.
//!
//! The kernel then reports whatever happens to a file, by whatever name, also in directories that nobody knew when
//! watching began, and each record has the file's own handle. So no name that is lost matters: once the command has ended,
//! the files that came to a name or lost one are found again by their handles, and the index knows their other names.
//! A file that did neither has the names that it had, and is found by these.
//!
//! What is reported is more than ours, for the file system is everybody's: what happens in directories that are neither
//! in the index nor made below it meanwhile is dropped. A directory that comes from there is a reason to walk.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::account::{Account, Place, What};
use super::changes::{Inode, inode};
use super::fanotify::{Fanotify, note_entry, refused, relative};
use super::marks::{self, MarkTracker, Marking, Marks};
use super::reader::Digest;
use super::tracker::LostTrack;
use crate::rootfs::Root;
use crate::sys::Errno;
use crate::sys::fanotify::{
    self, Called, Entry, FAN_ATTRIB, FAN_CLOSE_WRITE, FAN_CREATE, FAN_DELETE, FAN_MARK_ADD, FAN_MARK_FILESYSTEM,
    FAN_MARK_REMOVE, FAN_MODIFY, FAN_ONDIR, FAN_Q_OVERFLOW, FAN_RENAME, Record,
};
use crate::sys::fs::fstat;
use crate::tree::ImagePath;

/// What is reported of a file system.
const MASK: u64 = FAN_MODIFY | FAN_CLOSE_WRITE | FAN_ATTRIB | FAN_CREATE | FAN_DELETE | FAN_RENAME | FAN_ONDIR;

/// ext4 answers ENOMEM, not ESTALE, while it makes a new file with the inode number of one that is gone, which happens where
/// others make and remove files all the time. As soon as that file is there, the answer is right.
const NUMBER_TAKEN_PATIENCE: Duration = Duration::from_secs(1);
const NUMBER_TAKEN_PAUSE: Duration = Duration::from_micros(100);

/// fanotify with a mark for the whole file system as a tracker.
pub type FileSystemTracker = MarkTracker<FileSystem>;
/// fanotify with a mark for the whole file system at work.
pub type FileSystemWatching<'a> = Marking<'a, FileSystem>;

/// A fanotify group for one file system. It is marked by the root directory, never by a file: one of those that container
/// engines mount (`/etc/hosts`) would stand for the host's file system.
#[derive(Debug)]
pub struct FileSystem {
    group: Fanotify,
    top: OwnedFd,
    mount: i32,
}

impl FileSystem {
    /// Tries whether a handle leads back to its file.
    pub(super) fn with_group(group: Fanotify, root: &Root) -> Result<FileSystem, LostTrack> {
        let top = root.top().as_fd().try_clone_to_owned();
        let top = top.map_err(|error| LostTrack::Refused(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let Called { handle, mount } = fanotify::handle(top.as_fd(), b".").map_err(refused)?;
        let file_system = FileSystem { group, top, mount };
        let stat = root.top().stat(b".").map_err(|error| marks::refused(&error))?;
        let known = stat.map(|stat| inode(stat.observed));
        match file_system.inode(&handle).map_err(LostTrack::Refused)? {
            found if found.is_some() && found == known => Ok(file_system),
            _ => Err(LostTrack::Unproven),
        }
    }

    fn change_mark(&self, how: u32) -> Result<(), Errno> {
        fanotify::mark(self.queue().as_fd(), how | FAN_MARK_FILESYSTEM, MASK, self.top.as_fd(), b".")
    }
}

impl Marks for FileSystem {
    const LIMIT: Option<&'static str> = None;
    const NOTES_FILES: bool = true;

    fn open(root: &Root) -> Result<FileSystem, LostTrack> {
        FileSystem::with_group(Fanotify::new()?, root)
    }

    fn queue(&self) -> &Arc<OwnedFd> {
        self.group.queue()
    }

    fn mark(&mut self, root: &Root, path: &ImagePath) -> Result<Place, LostTrack> {
        let Called { handle, mount } = fanotify::handle(root.top().as_fd(), relative(path)).map_err(refused)?;
        if mount == self.mount { self.group.know(handle) } else { Err(LostTrack::OtherFileSystem) }
    }

    fn wake(&self) -> Result<(), LostTrack> {
        self.change_mark(FAN_MARK_ADD).map_err(LostTrack::Refused)
    }

    fn rest(&self) {
        if let Err(errno) = self.change_mark(FAN_MARK_REMOVE) {
            tracing::debug!("take the mark off the file system: {errno}");
        }
    }

    fn digest(&self) -> impl Digest {
        let mut ground = Ground { places: Arc::clone(self.group.places()), new: HashSet::new(), renames: 0 };
        move |bytes: &[u8], account: &mut Account| {
            for record in fanotify::records(bytes) {
                ground.note(&record.map_err(|_| LostTrack::Malformed)?, account)?;
            }
            Ok(())
        }
    }

    fn inode(&self, handle: &[u8]) -> Result<Option<Inode>, Errno> {
        let mut patience = NUMBER_TAKEN_PATIENCE;
        loop {
            match fanotify::open_handle(self.top.as_fd(), handle) {
                Ok(file) => return fstat(file).map(|stat| Some((stat.st_dev, stat.st_ino))),
                Err(Errno::STALE) => return Ok(None),
                Err(Errno::NOMEM) if !patience.is_zero() => {
                    thread::sleep(NUMBER_TAKEN_PAUSE);
                    patience = patience.saturating_sub(NUMBER_TAKEN_PAUSE);
                }
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// The directories that are ours, by their handles.
struct Ground {
    /// Those that were there when watching began.
    places: Arc<HashMap<Box<[u8]>, Place>>,
    /// Those that came since, below these. All of them are walked in the end.
    new: HashSet<Box<[u8]>>,
    renames: u32,
}

impl Ground {
    fn holds(&self, directory: &[u8]) -> bool {
        self.places.contains_key(directory) || self.new.contains(directory)
    }

    /// Notes one record.
    fn note(&mut self, record: &Record<'_>, account: &mut Account) -> Result<(), LostTrack> {
        if record.mask & FAN_Q_OVERFLOW != 0 {
            return Err(LostTrack::QueueOverflow);
        }
        let is_directory = record.mask & FAN_ONDIR != 0;
        if record.mask & FAN_RENAME != 0 {
            return self.note_rename(record, is_directory, account);
        }
        let Some(entry) = record.entry else {
            // Whose it is, its inode tells.
            if !is_directory {
                account.file(record.target.ok_or(LostTrack::Malformed)?);
            }
            return Ok(());
        };
        if !self.holds(entry.directory) {
            return Ok(());
        }
        match self.places.get(entry.directory) {
            Some(&place) => note_entry(record.mask, place, entry.name, account),
            None => account.nameless(),
        }
        if record.mask & (FAN_CREATE | FAN_DELETE) != 0 {
            let target = record.target.ok_or(LostTrack::Malformed)?;
            if !is_directory {
                account.file(target);
            } else if record.mask & FAN_CREATE != 0 {
                self.new.insert(target.into());
            }
        }
        Ok(())
    }

    fn note_rename(&mut self, record: &Record<'_>, is_directory: bool, account: &mut Account) -> Result<(), LostTrack> {
        let (Some(old), Some(new)) = (record.old, record.new) else { return Err(LostTrack::Malformed) };
        if !self.holds(old.directory) && !self.holds(new.directory) {
            return Ok(());
        }
        let target = record.target.ok_or(LostTrack::Malformed)?;
        if !is_directory {
            account.file(target);
        } else if self.holds(new.directory) && !self.holds(target) {
            return Err(LostTrack::UnknownDirectory);
        }
        self.renames = self.renames.wrapping_add(1);
        let place = |entry: &Entry<'_>| self.places.get(entry.directory).copied();
        for (entry, what) in [(old, What::MovedFrom(self.renames)), (new, What::MovedTo(self.renames))] {
            match place(&entry) {
                Some(place) => account.entry(place, entry.name, is_directory, what),
                None => account.nameless(),
            }
        }
        Ok(())
    }
}
