//! Tracker C: inotify. All that an unprivileged container with a default profile has.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use super::account::{Account, Place, What};
use super::marks::{MarkTracker, Marking, Marks, refused};
use super::reader::Digest;
use super::tracker::LostTrack;
use crate::rootfs::Root;
use crate::sys::Errno;
use crate::sys::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use crate::tree::ImagePath;

/// What is reported of a directory and its entries. `MODIFY`, since `truncate` by path and `touch -m` give nothing else.
const MASK: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ONLYDIR);

/// inotify as a tracker.
pub type InotifyTracker = MarkTracker<Inotify>;
/// inotify at work.
pub type Inotifying<'a> = Marking<'a, Inotify>;

/// An inotify instance; the watches' numbers are the kernel's.
#[derive(Debug)]
pub struct Inotify {
    queue: Arc<OwnedFd>,
}

impl Marks for Inotify {
    const LIMIT: Option<&'static str> = Some("/proc/sys/fs/inotify/max_user_watches");

    fn open(_: &Root) -> Result<Inotify, LostTrack> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(LostTrack::Refused)?;
        Ok(Inotify { queue: Arc::new(queue) })
    }

    fn queue(&self) -> &Arc<OwnedFd> {
        &self.queue
    }

    fn mark(&mut self, root: &Root, path: &ImagePath) -> Result<Place, LostTrack> {
        let flags = MASK | WatchFlags::DONT_FOLLOW;
        let watch = match inotify::add_watch(&*self.queue, path.below(root.place()), flags) {
            // Longer than one call can take: in two.
            Err(Errno::NAMETOOLONG) => {
                let directory = root.directory(path).map_err(|error| refused(&error))?;
                inotify::add_watch(&*self.queue, format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()), MASK)
            }
            other => other,
        };
        match watch {
            Ok(watch) => Place::try_from(watch).map_err(|_| LostTrack::Malformed),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(LostTrack::DirectoryMissing),
            Err(errno) => Err(LostTrack::Refused(errno)),
        }
    }

    fn digest(&self) -> impl Digest {
        digest
    }
}

/// Notes what the kernel wrote.
fn digest(bytes: &[u8], account: &mut Account) -> Result<(), LostTrack> {
    for record in inotify::records(bytes) {
        let record = record.map_err(|_| LostTrack::Malformed)?;
        if record.mask.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Err(LostTrack::QueueOverflow);
        }
        let place = Place::try_from(record.watch).map_err(|_| LostTrack::Malformed)?;
        if record.mask.contains(ReadFlags::IGNORED) {
            account.end(place);
            continue;
        }
        let is_directory = record.mask.contains(ReadFlags::ISDIR);
        let what = match record.mask.difference(ReadFlags::ISDIR) {
            ReadFlags::CREATE => What::Created,
            ReadFlags::DELETE => What::Deleted,
            ReadFlags::MOVED_FROM => What::MovedFrom(record.cookie),
            ReadFlags::MOVED_TO => What::MovedTo(record.cookie),
            ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE | ReadFlags::ATTRIB => What::Changed,
            // A file system that was unmounted, or something that later kernels invent.
            _ => return Err(LostTrack::Malformed),
        };
        match record.name {
            Some(name) => account.entry(place, name, is_directory, what),
            None if what == What::Changed => account.directory(place),
            None => return Err(LostTrack::Malformed),
        }
    }
    Ok(())
}
