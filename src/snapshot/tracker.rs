//! [`Tracker`]: where to look after a RUN.

use std::collections::BTreeSet;

use super::ctime::{Distrust, Proof, Trust};
use crate::rootfs::{Ignored, Root};
use crate::sys::Errno;
use crate::tree::{ImagePath, RootIndex};

/// Where to look for changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidates {
    /// All that was touched since the tracker was armed; some of it may turn out unchanged. What follows from a path
    /// (its parent, other names of the same inode, what is below a directory that appeared) is found by `take`.
    Listed {
        /// Names that were created, changed or removed.
        paths: BTreeSet<ImagePath>,
        /// Directories that appeared as a whole (created or moved in) and are walked.
        subtrees: BTreeSet<ImagePath>,
    },
    /// All names that were used are listed, but a file may have been changed through one that nobody can trace: besides
    /// the list, every inode of the index that is no directory is asked for its ctime. No directory is read.
    Swept {
        /// As in `Listed`.
        paths: BTreeSet<ImagePath>,
        /// As in `Listed`.
        subtrees: BTreeSet<ImagePath>,
        /// What could not be traced.
        because: Unaccounted,
    },
    /// Nobody can vouch for a list: look at every path.
    Everything(LostTrack),
}

/// Why the names that were used do not say which files were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unaccounted {
    /// A directory that was not watched can have held a link to any file for a while.
    #[error("a directory appeared")]
    NewDirectory,
    /// A name that appeared went again: it can have been a link to any file.
    #[error("a name came and went")]
    LinkGone,
    /// The kernel does not open the handle of a file that was used.
    #[error("the handle of a file that was used does not open: {0}")]
    Untraced(Errno),
    /// There are too many directories that snapshots overlook to watch them all.
    #[error("not all overlooked directories are watched")]
    AsideUnwatched,
}

/// Why every path has to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LostTrack {
    /// Nobody watched; what the walk tracker says after every RUN.
    #[error("nobody watched")]
    NotWatched,
    /// The kernel refuses to watch, or to go on watching.
    #[error("the kernel refuses to watch: {0}")]
    Refused(Errno),
    /// Watching every directory would take more than our share of what the whole node may watch.
    #[error("{directories} directories to watch, of which {allowed} may be")]
    TooManyDirectories {
        /// In the index.
        directories: usize,
        /// Our share.
        allowed: usize,
    },
    /// What is watched is one file system, and a directory of the index is on another one.
    #[error("the root is on more than one file system")]
    OtherFileSystem,
    /// A directory of the index is not where the index has it.
    #[error("a directory of the index is missing")]
    DirectoryMissing,
    /// A change that the tracker made itself was not reported.
    #[error("a change made to try it was not reported")]
    Unproven,
    /// The kernel dropped events.
    #[error("the kernel's queue overflowed")]
    QueueOverflow,
    /// So many names were used that looking at every path takes less memory than the list, and hardly more time.
    #[error("more than {most} names were used, or four times as many files")]
    TooManyNames {
        /// As many names as are listed.
        most: usize,
    },
    /// The kernel said what we do not understand.
    #[error("an event could not be understood")]
    Malformed,
    /// Mounts came or went; what is written through some of them is not reported.
    #[error("mounts came or went")]
    MountsChanged,
    /// The thread that reads the events ended early.
    #[error("the reader of the events died")]
    ReaderDied,
    /// Something happened in a directory that the index does not know.
    #[error("something happened in an unknown directory")]
    UnknownDirectory,
    /// What the names point at cannot be told by ctime, so that what was used under a lost name cannot be found.
    #[error("ctime does not tell what was used under a name that is lost")]
    SweepUnproven,
}

/// What a tracker says after a RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// Where to look.
    pub candidates: Candidates,
    /// May a path be believed to be unchanged if its device, inode and ctime are as observed? If not, its content and
    /// all its metadata are compared.
    pub ctime: Result<(), Distrust>,
    /// Events that the kernel reported.
    pub events: u64,
    /// File handles that were opened to learn which inodes the events are about.
    pub handles_opened: u64,
}

impl Collected {
    /// From somebody who has no list, and does not know whether ctime can be trusted.
    pub(super) fn of_nothing(lost: LostTrack) -> Collected {
        Collected {
            candidates: Candidates::Everything(lost),
            ctime: Err(Distrust::Untried),
            events: 0,
            handles_opened: 0,
        }
    }

    /// The same from somebody who knows that the tracker cannot vouch for its list.
    pub fn walk_because(self, lost: LostTrack) -> Collected {
        Collected { candidates: Candidates::Everything(lost), ..self }
    }

    /// A sweep asks for ctimes; where they tell nothing, all that is left is to look at everything.
    pub(super) fn without_blind_sweep(self) -> Collected {
        match self.candidates {
            Candidates::Swept { .. } if self.ctime.is_err() => {
                Collected { candidates: Candidates::Everything(LostTrack::SweepUnproven), ..self }
            }
            _ => self,
        }
    }
}

/// Watches a root while a RUN changes it.
pub trait Tracker {
    /// What is watching; ends with [`Watching::collect`].
    type Watching<'a>: Watching
    where
        Self: 'a;

    /// Begins to watch what `index` knows of `root`. Nothing may change the root during the call; what does after it
    /// is among the candidates. A tracker that cannot watch says so in what it collects.
    fn arm(&mut self, root: &Root, index: &RootIndex, ignored: &Ignored) -> Self::Watching<'_>;
}

/// A tracker at work.
pub trait Watching {
    /// Ends watching. `index` and `ignored` are what they were when it was armed. Nothing may change the root from
    /// here until the snapshot is taken.
    fn collect(self, index: &RootIndex, ignored: &Ignored) -> Collected;
}

/// Tracker D: watches nothing and has every path looked at. All it does while armed is to make sure that ctime can be
/// trusted: a path whose device, inode and ctime are as the index observed them is then unchanged.
#[derive(Debug, Default)]
pub struct WalkTracker {
    trust: Trust,
}

impl WalkTracker {
    /// A tracker that has not tried the file system yet.
    pub fn new() -> WalkTracker {
        WalkTracker::default()
    }
}

impl Tracker for WalkTracker {
    type Watching<'a> = Walk;

    fn arm(&mut self, root: &Root, index: &RootIndex, _: &Ignored) -> Walk {
        self.trust.try_on(root.top());
        Walk { ctime: self.trust.begin(index.newest_ctime()) }
    }
}

/// The walk tracker between arming and collecting.
#[derive(Debug)]
pub struct Walk {
    ctime: Result<Proof, Distrust>,
}

impl Watching for Walk {
    fn collect(self, _: &RootIndex, _: &Ignored) -> Collected {
        let ctime = self.ctime.and_then(Proof::end);
        Collected { ctime, ..Collected::of_nothing(LostTrack::NotWatched) }
    }
}
