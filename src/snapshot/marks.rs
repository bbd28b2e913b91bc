//! [`MarkTracker`]: the directories of the index, and what the kernel reports of them. What is the same whether inotify or
//! fanotify reports, and whether for each directory or for the whole file system.
//!
//! A mark belongs to an inode, so that it stays right when a directory is renamed: an event's directory is looked up in
//! the index by device and inode, where the snapshot has noted them anew. What appears while we watch is marked before
//! the next RUN; until then the snapshot walks it. Marking what is marked changes nothing, so that what the index
//! noted lately is simply marked again.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::account::{Account, Place, Watched};
use super::aside::{self, Aside};
use super::changes::{Inode, inode};
use super::ctime::{Distrust, Proof, Trust};
use super::reader::{Digest, PAUSE, READ_BYTES, Reader, drain};
use super::tracker::{Collected, LostTrack, Tracker, Watching};
use crate::rootfs::{self, Ignored, Root};
use crate::sys::Errno;
use crate::tree::{ImagePath, Moment, NodeId, RootIndex, Standing};

/// The kernel's own least limit of marks, for where it cannot be read.
const LEAST_LIMIT: usize = 8192;
/// Our share of them is one in so many: other containers of the node want some.
const SHARE: usize = 4;

/// So many names that were used are always listed.
const LEAST_NAMES: usize = 32_768;
/// Beyond that, one for so many paths of the index.
const NAMES_SHARE: usize = 8;

/// A way in which the kernel reports what happens in directories that we name.
pub trait Marks: Sized {
    /// The file that says how many marks one user may have on this machine, over all containers; `None` where a directory
    /// costs none.
    const LIMIT: Option<&'static str>;

    /// Does the account note the handles of all files that came to a name or lost one?
    const NOTES_FILES: bool = false;

    /// How many directories may be marked: our share of what the whole node may.
    fn allowed() -> usize {
        let Some(file) = Self::LIMIT else { return usize::MAX };
        let limit = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
        limit.unwrap_or(LEAST_LIMIT) / SHARE
    }

    /// A queue for the reports on `root`.
    fn open(root: &Root) -> Result<Self, LostTrack>;

    /// The queue; reading it does not block.
    fn queue(&self) -> &Arc<OwnedFd>;

    /// Marks a directory. One that is marked already keeps its number.
    fn mark(&mut self, root: &Root, path: &ImagePath) -> Result<Place, LostTrack>;

    /// Has the kernel report, where marks alone do not: others, who use the same file system, may then fill the queue as
    /// fast as we empty it.
    fn wake(&self) -> Result<(), LostTrack> {
        Ok(())
    }

    /// Has it report nothing until the next [`Marks::wake`], where that is one call.
    fn rest(&self) {}

    /// Reads records as far as they are about what is marked now.
    fn digest(&self) -> impl Digest;

    /// The inode of a file by the handle that the account noted, or `None` if the file is gone. Asked once nothing changes
    /// the root any more; whoever notes no handles is not asked.
    fn inode(&self, _handle: &[u8]) -> Result<Option<Inode>, Errno> {
        Err(Errno::OPNOTSUPP)
    }
}

/// Watches the directories of the index.
#[derive(Debug)]
pub struct MarkTracker<M> {
    trust: Trust,
    allowed: usize,
    pause: Duration,
    least_names: usize,
    marked: Option<Marked<M>>,
}

impl<M: Marks> Default for MarkTracker<M> {
    fn default() -> MarkTracker<M> {
        MarkTracker::new()
    }
}

impl<M: Marks> MarkTracker<M> {
    /// A tracker that has not tried anything yet.
    pub fn new() -> MarkTracker<M> {
        MarkTracker {
            trust: Trust::default(),
            allowed: M::allowed(),
            pause: PAUSE,
            least_names: LEAST_NAMES,
            marked: None,
        }
    }

    /// The same with its share of the marks, of which `roots` trackers have as many.
    pub(super) fn shared_by(self, roots: usize) -> MarkTracker<M> {
        MarkTracker { allowed: self.allowed / roots.max(1), ..self }
    }

    /// The same with at most so many marks.
    #[cfg(test)]
    pub(super) fn with_allowed(self, allowed: usize) -> MarkTracker<M> {
        MarkTracker { allowed, ..self }
    }

    /// The same, with the queue read only so often.
    #[cfg(test)]
    pub(super) fn with_pause(self, pause: Duration) -> MarkTracker<M> {
        MarkTracker { pause, ..self }
    }

    /// The same, with lists of few names.
    #[cfg(test)]
    pub(super) fn with_least_names(self, least_names: usize) -> MarkTracker<M> {
        MarkTracker { least_names, ..self }
    }

    /// Marks what is not marked yet, so that [`MarkTracker::begin`] can follow, or says why not.
    pub(super) fn prepare(&mut self, root: &Root, index: &RootIndex, ignored: &Ignored) -> Result<(), LostTrack> {
        self.trust.try_on(root.top());
        if let Some(mut marked) = self.marked.take()
            && marked.discard()
            && marked.mark_all(root, index, ignored, self.allowed).is_ok()
        {
            self.marked = Some(marked);
            return Ok(());
        }
        // Also where marks of what is gone have used up what is allowed.
        let mut marked = Marked::<M>::open(root)?;
        marked.mark_all(root, index, ignored, self.allowed)?;
        marked.prove(root)?;
        self.marked = Some(marked);
        Ok(())
    }

    /// Begins to watch what was prepared. Nothing may have changed the root since.
    pub(super) fn begin(&mut self, index: &RootIndex) -> Marking<'_, M> {
        let account = Account::of_at_most(self.least_names.max(index.len() / NAMES_SHARE));
        let at_work = match self.marked.take() {
            Some(marked) => marked.begin(self.pause, account),
            None => Err(LostTrack::NotWatched),
        };
        Marking { at_work, ctime: self.trust.begin(index.newest_ctime()), home: &mut self.marked }
    }
}

impl<M: Marks> Tracker for MarkTracker<M> {
    type Watching<'a>
        = Marking<'a, M>
    where
        M: 'a;

    fn arm(&mut self, root: &Root, index: &RootIndex, ignored: &Ignored) -> Marking<'_, M> {
        let prepared = self.prepare(root, index, ignored);
        let mut marking = self.begin(index);
        if let Err(lost) = prepared {
            marking.at_work = Err(lost);
        }
        marking
    }
}

/// The tracker between arming and collecting.
#[derive(Debug)]
pub struct Marking<'a, M> {
    at_work: Result<(Marked<M>, Reader), LostTrack>,
    ctime: Result<Proof, Distrust>,
    home: &'a mut Option<Marked<M>>,
}

impl<M: Marks> Watching for Marking<'_, M> {
    fn collect(self, index: &RootIndex, ignored: &Ignored) -> Collected {
        let ctime = self.ctime.and_then(Proof::end);
        let (mut marked, reader) = match self.at_work {
            Ok(at_work) => at_work,
            Err(lost) => return Collected { ctime, ..Collected::of_nothing(lost) },
        };
        // first, so that what the reader has left to read has an end
        marked.marks.rest();
        let mut account = reader.finish();
        let handles_opened = marked.trace(&mut account);
        let (events, is_lost, ended) = (account.events(), account.is_lost(), account.ended().to_vec());
        let candidates =
            account.candidates(index, ignored, |place| marked.watched(place, index), marked.aside.is_whole);
        marked.forget(&ended);
        *self.home = Some(marked).filter(|_| !is_lost);
        Collected { candidates, ctime, events, handles_opened }
    }
}

/// A queue with the directories that report to it.
#[derive(Debug)]
struct Marked<M> {
    marks: M,
    places: HashMap<Place, Inode>,
    /// Until when the index was looked at.
    known: Option<Moment>,
    aside: Aside,
}

impl<M: Marks> Marked<M> {
    fn open(root: &Root) -> Result<Marked<M>, LostTrack> {
        Ok(Marked { marks: M::open(root)?, places: HashMap::new(), known: None, aside: Aside::default() })
    }

    fn begin(mut self, pause: Duration, account: Account) -> Result<(Marked<M>, Reader), LostTrack> {
        if !self.discard() {
            return Err(LostTrack::QueueOverflow);
        }
        self.marks.wake()?;
        let reader = Reader::start(Arc::clone(self.marks.queue()), pause, account, self.marks.digest());
        let reader = reader.map_err(|error| LostTrack::Refused(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        Ok((self, reader))
    }

    /// Empties the queue of what we did ourselves. `false` if something is wrong with it.
    fn discard(&mut self) -> bool {
        let account = self.drain();
        self.forget(account.ended());
        !account.is_lost()
    }

    fn forget(&mut self, ended: &[Place]) {
        for place in ended {
            self.places.remove(place);
        }
    }

    fn drain(&self) -> Account {
        let mut account = Account::of_at_most(usize::MAX);
        drain(self.marks.queue(), &mut vec![0; READ_BYTES], &mut self.marks.digest(), &mut account);
        account
    }

    /// Marks the directories of the index, or those that it noted lately, and those that snapshots overlook.
    fn mark_all(&mut self, root: &Root, index: &RootIndex, ignored: &Ignored, allowed: usize) -> Result<(), LostTrack> {
        let lately: Option<Vec<NodeId>> =
            self.known.and_then(|moment| index.directories_since(moment)).map(Iterator::collect);
        let directories = lately.unwrap_or_else(|| directories(index));
        self.aside = aside::find(root, ignored).map_err(|error| refused(&error))?;
        let wanted = self.places.len() + directories.len() + self.aside.directories.len();
        if self.places.is_empty() && wanted > allowed {
            return Err(LostTrack::TooManyDirectories { directories: wanted, allowed });
        }
        for id in directories.into_iter().filter(|&id| index.standing(id) != Standing::Masked) {
            let known = index.observed(id).map(inode).ok_or(LostTrack::DirectoryMissing)?;
            self.places.insert(self.marks.mark(root, &index.path(id))?, known);
        }
        for (&inode, path) in &self.aside.directories {
            self.places.insert(self.marks.mark(root, path)?, inode);
        }
        self.known = Some(index.moment());
        match self.places.len() {
            directories if directories > allowed => Err(LostTrack::TooManyDirectories { directories, allowed }),
            _ => Ok(()),
        }
    }

    /// Sees one event happen: setting the mode that the root has changes nothing and must be reported.
    fn prove(&mut self, root: &Root) -> Result<(), LostTrack> {
        if !self.discard() {
            return Err(LostTrack::QueueOverflow);
        }
        let stat = root.top().stat(b".").map_err(|error| refused(&error))?.ok_or(LostTrack::DirectoryMissing)?;
        self.marks.wake()?;
        let set = root.top().set_mode(b".", stat.mode);
        self.marks.rest();
        set.map_err(|error| refused(&error))?;
        let account = self.drain();
        let is_root = |place: &Place| self.places.get(place) == Some(&inode(stat.observed));
        let is_proven = !account.is_lost() && account.directories().any(is_root);
        if is_proven { Ok(()) } else { Err(LostTrack::Unproven) }
    }

    /// Finds the inodes of the files that the account noted. Where one cannot be told, the account cannot vouch for its names.
    fn trace(&self, account: &mut Account) -> u64 {
        if !M::NOTES_FILES || account.is_lost() {
            return 0;
        }
        let opened = account.files().len() as u64;
        let inodes = account.files().filter_map(|file| self.marks.inode(file).transpose()).collect();
        account.trace(inodes);
        opened
    }

    fn watched(&self, place: Place, index: &RootIndex) -> Option<Watched> {
        let inode = self.places.get(&place)?;
        let known = index.names_of_inode(inode.0, inode.1).into_iter().find(|&id| index.is_directory(id));
        known.map(Watched::Known).or_else(|| self.aside.directories.get(inode).cloned().map(Watched::Aside))
    }
}

/// All directories of the index.
fn directories(index: &RootIndex) -> Vec<NodeId> {
    let mut found = vec![index.root()];
    let mut at = 0;
    while at < found.len() {
        found.extend(index.children(found[at]).filter(|&child| index.is_directory(child)));
        at += 1;
    }
    found
}

/// Why the kernel does not let us watch, where looking at the root shows it.
pub(super) fn refused(error: &rootfs::Error) -> LostTrack {
    LostTrack::Refused(error.errno().unwrap_or(Errno::IO))
}
