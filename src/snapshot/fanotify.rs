//! Tracker B: fanotify, a mark per directory. For containers without a seccomp profile, and user namespaces.
//!
//! As for inotify, a file is known by the name that was used, but the kernel merges more (half the events where many
//! files are rewritten) and reports a rename as one. Merged events have lost their order, though only those of one name
//! and one file, which is why the file's own handle is asked for: a name that was removed is never merged with what
//! happened to another file of that name before. Linux 5.17 is needed for that, and 6.6 on an overlay.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::account::{Account, Place, What};
use super::marks::{MarkTracker, Marking, Marks};
use super::reader::Digest;
use super::tracker::LostTrack;
use crate::rootfs::Root;
use crate::sys::Errno;
use crate::sys::fanotify::{
    self, Entry, FAN_ATTRIB, FAN_CLOEXEC, FAN_CLOSE_WRITE, FAN_CREATE, FAN_DELETE, FAN_EVENT_ON_CHILD, FAN_MARK_ADD,
    FAN_MARK_ONLYDIR, FAN_MODIFY, FAN_NONBLOCK, FAN_ONDIR, FAN_Q_OVERFLOW, FAN_RENAME, FAN_REPORT_DFID_NAME_TARGET,
    FAN_UNLIMITED_QUEUE, Record,
};
use crate::tree::ImagePath;

/// What is reported of a directory and its entries.
const MASK: u64 =
    FAN_MODIFY | FAN_CLOSE_WRITE | FAN_ATTRIB | FAN_CREATE | FAN_DELETE | FAN_RENAME | FAN_ONDIR | FAN_EVENT_ON_CHILD;

/// fanotify with a mark per directory as a tracker.
pub type FanotifyTracker = MarkTracker<Fanotify>;
/// fanotify with a mark per directory at work.
pub type Fanotifying<'a> = Marking<'a, Fanotify>;

/// A fanotify group, and the directories that are marked by the handles that the records name them by.
#[derive(Debug)]
pub struct Fanotify {
    queue: Arc<OwnedFd>,
    places: Arc<HashMap<Box<[u8]>, Place>>,
}

impl Fanotify {
    /// A queue without limit, or what is allowed.
    pub(super) fn new() -> Result<Fanotify, LostTrack> {
        match Fanotify::with_queue(FAN_UNLIMITED_QUEUE) {
            Err(LostTrack::Refused(Errno::PERM)) => Fanotify::with_queue(0),
            other => other,
        }
    }

    pub(super) fn with_queue(flags: u32) -> Result<Fanotify, LostTrack> {
        let queue = fanotify::init(FAN_REPORT_DFID_NAME_TARGET | FAN_CLOEXEC | FAN_NONBLOCK | flags);
        Ok(Fanotify { queue: Arc::new(queue.map_err(LostTrack::Refused)?), places: Arc::default() })
    }

    /// The directories whose handles are known.
    pub(super) fn places(&self) -> &Arc<HashMap<Box<[u8]>, Place>> {
        &self.places
    }

    /// Gives a number to the directory with this handle. One that has a number keeps it.
    pub(super) fn know(&mut self, handle: Vec<u8>) -> Result<Place, LostTrack> {
        let places = Arc::make_mut(&mut self.places);
        let next = Place::try_from(places.len()).map_err(|_| LostTrack::Malformed)?;
        Ok(*places.entry(handle.into_boxed_slice()).or_insert(next))
    }
}

/// The directory `path` as one call takes it, relative to the top of the root.
pub(super) fn relative(path: &ImagePath) -> &[u8] {
    if path.is_root() { b"." } else { path.relative() }
}

/// Why a directory of the index cannot be watched.
pub(super) fn refused(errno: Errno) -> LostTrack {
    match errno {
        Errno::NOENT | Errno::NOTDIR => LostTrack::DirectoryMissing,
        errno => LostTrack::Refused(errno),
    }
}

impl Marks for Fanotify {
    const LIMIT: Option<&'static str> = Some("/proc/sys/fs/fanotify/max_user_marks");

    fn open(_: &Root) -> Result<Fanotify, LostTrack> {
        Fanotify::new()
    }

    fn queue(&self) -> &Arc<OwnedFd> {
        &self.queue
    }

    fn mark(&mut self, root: &Root, path: &ImagePath) -> Result<Place, LostTrack> {
        let (top, path) = (root.top().as_fd(), relative(path));
        fanotify::mark(self.queue.as_fd(), FAN_MARK_ADD | FAN_MARK_ONLYDIR, MASK, top, path).map_err(refused)?;
        let called = fanotify::handle(top, path).map_err(refused)?;
        self.know(called.handle)
    }

    fn digest(&self) -> impl Digest {
        let places = Arc::clone(&self.places);
        let mut renames = 0;
        move |bytes: &[u8], account: &mut Account| {
            for record in fanotify::records(bytes) {
                let record = record.map_err(|_| LostTrack::Malformed)?;
                note(&record, &places, &mut renames, account)?;
            }
            Ok(())
        }
    }
}

/// Notes one record.
fn note(
    record: &Record<'_>,
    places: &HashMap<Box<[u8]>, Place>,
    renames: &mut u32,
    account: &mut Account,
) -> Result<(), LostTrack> {
    if record.mask & FAN_Q_OVERFLOW != 0 {
        return Err(LostTrack::QueueOverflow);
    }
    let place = |entry: &Entry<'_>| places.get(entry.directory).copied().ok_or(LostTrack::UnknownDirectory);
    let is_directory = record.mask & FAN_ONDIR != 0;
    if record.mask & FAN_RENAME != 0 {
        *renames = renames.wrapping_add(1);
        // A half of which the directory is not marked is not told.
        for (entry, what) in [(record.old, What::MovedFrom(*renames)), (record.new, What::MovedTo(*renames))] {
            if let Some(entry) = entry {
                account.entry(place(&entry)?, entry.name, is_directory, what);
            }
        }
        return match (record.old, record.new) {
            (None, None) => Err(LostTrack::Malformed),
            _ => Ok(()),
        };
    }
    let entry = record.entry.ok_or(LostTrack::Malformed)?;
    note_entry(record.mask, place(&entry)?, entry.name, account);
    Ok(())
}

/// Notes what a record that tells of no rename says of one entry.
pub(super) fn note_entry(mask: u64, place: Place, name: &[u8], account: &mut Account) {
    if name == b"." {
        return account.directory(place);
    }
    let is_directory = mask & FAN_ONDIR != 0;
    // Of merged events the order is lost: what came and went is what has to be traced.
    for (bit, what) in [(FAN_CREATE, What::Created), (FAN_DELETE, What::Deleted)] {
        if mask & bit != 0 {
            account.entry(place, name, is_directory, what);
        }
    }
    if mask & (FAN_CREATE | FAN_DELETE) == 0 {
        account.entry(place, name, is_directory, What::Changed);
    }
}
