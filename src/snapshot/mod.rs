//! Which paths changed since the last snapshot?
//!
//! Two questions, kept apart: *where to look* (a [`Tracker`] answers with [`Candidates`]) and *what changed*
//! ([`SnapshotMode::verdict`]). A tracker can make a snapshot faster, never different: [`judge`], which looks at every
//! path and reads every file, finds the same changeset.
//!
//! Four trackers: [`FileSystemTracker`] has the kernel report what happens on the root's whole file system,
//! [`FanotifyTracker`] and [`InotifyTracker`] what happens in each directory of the index; [`WalkTracker`] knows nothing and
//! has every path looked at. [`ChosenTracker`] takes the first that this machine allows. What the kernel says of a name is
//! believed; what a name that is gone again was a link to, only the first of them can tell afterwards. With the others all
//! files are then *swept*: asked for their ctime, which the kernel moves with every change. Whatever
//! else goes wrong (a queue that overflows, a limit, a mount, an event that is not understood), and a list that would be
//! too long, ends in the walk. Both are values ([`Unaccounted`], [`LostTrack`]), not errors, and are told with each
//! [`Snapshot`].
//!
//! [`take`] looks at the candidates, compares them with the root index, returns the [`Changeset`] and brings the index
//! up to date:
//!
//! - What the index observed (device, inode, ctime) is refreshed for every path looked at, whatever the verdict.
//! - Image fields change only with an entry of the changeset. A mode that compares little (`redo`, `time`) thus leaves
//!   paths whose image fields are not what is on disk; the index marks them *drifted*, and the next comparison in mode
//!   `full` looks at them again although their ctime is as observed. So a stage reset that takes its candidates in mode
//!   `full` learns the truth, after any number of lossy snapshots.
//! - A file whose content nobody ever read (foreign files, files that a lossy mode recorded) counts as changed when its
//!   inode was touched, for nothing could show that it was not.
//!
//! Of `/` itself the mtime never counts, and it is never written as a parent: mounts and our own directory move it.
//!
//! Not here: which paths never belong in an image (`rootfs::Ignored`); tar bytes (`layer`).

mod account;
mod aside;
mod changes;
mod chosen;
mod compare;
mod ctime;
mod difference;
mod fanotify;
mod file_system;
mod hash;
mod inotify;
mod look;
mod marks;
mod mode;
mod reader;
mod sightings;
mod survey;
#[cfg(test)]
mod tests;
mod tracker;
mod verify;

use std::ops::AddAssign;
use std::time::Duration;
use std::{io, mem};

pub use chosen::{ChangeTracker, ChosenTracker, ChosenWatching, UnknownTracker};
pub use ctime::Distrust;
pub use difference::difference;
pub use fanotify::{FanotifyTracker, Fanotifying};
pub use file_system::{FileSystemTracker, FileSystemWatching};
pub use hash::{hash_file, hash_files};
pub use inotify::{InotifyTracker, Inotifying};
pub use mode::{SnapshotMode, UnknownMode, Verdict};
pub use survey::survey;
pub use tracker::{Candidates, Collected, LostTrack, Tracker, Unaccounted, Walk, WalkTracker, Watching};

pub use verify::{Differences, take_verified};

use crate::rootfs::{self, Ignored, Root};
use crate::sys::time::{ClockId, clock_gettime};
use crate::tree::{Changeset, ImagePath, RootIndex};
use look::{Evidence, Look};

/// What went wrong while taking a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path of the root could not be looked at.
    #[error("take a snapshot of the root")]
    Root(#[from] rootfs::Error),
    /// A file could not be read.
    #[error("read {path} to compare its content")]
    Read {
        /// The file.
        path: ImagePath,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A walk that read every file found something else.
    #[error("the snapshot differs from a walk over every file: {0}")]
    Differs(Differences),
    /// No threads could be started.
    #[error("start {count} threads for a snapshot")]
    Threads {
        /// How many were wanted.
        count: usize,
        /// What the thread pool said.
        #[source]
        source: rayon::ThreadPoolBuildError,
    },
}

/// What changed, and what it cost to know.
#[derive(Debug)]
pub struct Snapshot {
    /// The difference between the index of before and the root, of which the index of after has the nodes.
    pub changeset: Changeset,
    /// Sockets that came: they are on disk, in no layer and not in the index.
    pub sockets: Vec<ImagePath>,
    /// The cost.
    pub work: Work,
    /// Why more was looked at than the tracker listed.
    pub handed_over: Option<HandOver>,
}

impl Snapshot {
    /// One line for the log, where `index` is what the snapshot made of it.
    pub fn summary(&self, index: &RootIndex) -> String {
        let Work { events, entries_looked_at, entries_swept, files_hashed, .. } = self.work;
        let why = self.handed_over.map(|why| format!("; {why}")).unwrap_or_default();
        let (changed, known) = (self.changeset.len(), index.len());
        let looked = entries_looked_at + entries_swept;
        format!(
            "{changed} paths changed: {events} events, {looked} of {known} paths looked at, {files_hashed} read{why}"
        )
    }
}

/// Why a tracker's list was not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandOver {
    /// All files of the index were asked for their ctime.
    #[error("swept, because {0}")]
    Sweep(Unaccounted),
    /// All directories were read.
    #[error("walked, because {0}")]
    Walk(LostTrack),
}

/// What a snapshot cost, in numbers that do not depend on the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Events that the kernel reported, until it was clear that they do not matter.
    pub events: u64,
    /// File handles that were opened to learn which inodes the events are about.
    pub handles_opened: u64,
    /// Paths of which the kernel was asked for metadata.
    pub entries_looked_at: u64,
    /// Files of the index of which the kernel was asked for no more than the ctime.
    pub entries_swept: u64,
    /// Directories whose entries were listed.
    pub directories_walked: u64,
    /// Paths whose metadata were read whole, because their inode was not as observed.
    pub metadata_read: u64,
    /// Files whose content was read.
    pub files_hashed: u64,
    /// Length of those files.
    pub bytes_hashed: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.events += other.events;
        self.handles_opened += other.handles_opened;
        self.entries_looked_at += other.entries_looked_at;
        self.entries_swept += other.entries_swept;
        self.directories_walked += other.directories_walked;
        self.metadata_read += other.metadata_read;
        self.files_hashed += other.files_hashed;
        self.bytes_hashed += other.bytes_hashed;
    }
}

/// Compares the candidates with the index as `mode` says, on `threads` threads, and brings the index up to date.
/// Nothing may change the root meanwhile.
pub fn take(
    collected: Collected,
    mode: SnapshotMode,
    root: &Root,
    index: &mut RootIndex,
    ignored: &Ignored,
    threads: usize,
) -> Result<Snapshot, Error> {
    let began = cpu_time();
    let Collected { candidates, ctime, events, handles_opened } = collected.without_blind_sweep();
    let handed_over = match candidates {
        Candidates::Listed { .. } | Candidates::Everything(LostTrack::NotWatched) => None,
        Candidates::Swept { because, .. } => Some(HandOver::Sweep(because)),
        Candidates::Everything(lost) => Some(HandOver::Walk(lost)),
    };
    let evidence = if ctime.is_ok() { Evidence::Ctime } else { Evidence::Content };
    let look = Look::new(root, index, ignored, mode, evidence);
    let mut findings = on_threads(threads, || look.at(candidates))??;
    let sockets = mem::take(&mut findings.sockets);
    let work = Work { events, handles_opened, ..findings.work };
    let changeset = changes::apply(index, ignored, findings);
    let distrust = ctime.err().map(tracing::field::display);
    let cpu_ms = cpu_time().saturating_sub(began).as_millis();
    tracing::debug!(changes = changeset.len(), ?handed_over, distrust, ?work, cpu_ms, "snapshot taken");
    Ok(Snapshot { changeset, sockets, work, handed_over })
}

/// The slow and obvious snapshot: looks at every path, believes no ctime, reads every file. Leaves the index as it is,
/// so that it can judge what [`take`] finds from the same index; what that would become comes with the snapshot.
pub fn judge(
    mode: SnapshotMode,
    root: &Root,
    index: &RootIndex,
    ignored: &Ignored,
    threads: usize,
) -> Result<(Snapshot, RootIndex), Error> {
    let look = Look::new(root, index, ignored, mode, Evidence::Content);
    let mut findings = on_threads(threads, || look.at(Candidates::Everything(LostTrack::NotWatched)))??;
    let sockets = mem::take(&mut findings.sockets);
    let work = findings.work;
    let mut index = index.clone();
    let changeset = changes::apply(&mut index, ignored, findings);
    Ok((Snapshot { changeset, sockets, work, handed_over: None }, index))
}

/// What all threads of the process have used so far.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

fn on_threads<T: Send>(count: usize, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count.max(1)).build();
    Ok(pool.map_err(|source| Error::Threads { count, source })?.install(work))
}
