//! What a snapshot costs after a RUN that changed a few files: exact counts, and CPU time.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::Error;
use super::flags::Snapshot as Wanted;
use super::report::median;
use super::written::{path, text, write_tree};
use crate::rootfs::{Ignored, Root};
use crate::snapshot::{
    self, FanotifyTracker, FileSystemTracker, HandOver, InotifyTracker, Snapshot, SnapshotMode, Tracker, WalkTracker,
    Watching, Work,
};
use crate::tree::{Change, ImagePath, RootIndex};

/// Bytes of each file: what is measured reads only those that changed.
const FILE_BYTES: usize = 64;

/// What the trackers are called, as in the log of a build.
pub(super) const FILE_SYSTEM: &str = "fanotify for the file system";
pub(super) const DIRECTORIES: &str = "fanotify for each directory";
pub(super) const INOTIFY: &str = "inotify";
pub(super) const WALK: &str = "walk";

/// What is made besides the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum New {
    Nothing,
    /// A directory with a file in it, in which a link to any file can have been.
    Directory,
}

/// A root of many files, and the index that knows it.
struct World {
    root: Root,
    index: RootIndex,
    ignored: Ignored,
    files: u32,
    /// Snapshots so far: each writes other bytes.
    rounds: u64,
    threads: usize,
}

/// What one round cost, in milliseconds of CPU.
struct Round {
    arming: f64,
    snapshot: f64,
    work: Work,
    handed_over: Option<HandOver>,
}

/// Makes a root of each size, changes files in it, takes snapshots with each tracker, checks them and prints what they
/// cost.
pub(super) fn run(wanted: &Wanted, out: &mut impl Write) -> Result<(), Error> {
    let mut print = |text: String| out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Print);
    print(format!(
        "{} changed files; CPU in milliseconds, medians of {} after the first\n\n\
         | files | tracker | first arming | arming | snapshot | events | looked at | swept | directories walked | hashed \
         | handed over |\n{}|\n",
        wanted.changes,
        wanted.repeat,
        "|---".repeat(11)
    ))?;
    for &files in &wanted.files {
        let fault = |source| Error::file("make a folder in", &wanted.work, source);
        fs::create_dir_all(&wanted.work).map_err(fault)?;
        let place = tempfile::Builder::new().prefix("harness-").tempdir_in(&wanted.work).map_err(fault)?;
        let mut world = World::new(place.path(), files)?;
        for new in [New::Nothing, New::Directory] {
            let mut print = |tracker, rounds: Vec<Round>| print(row(files, tracker, new, &rounds));
            print(FILE_SYSTEM, world.rounds(FileSystemTracker::new(), new, wanted)?)?;
            print(DIRECTORIES, world.rounds(FanotifyTracker::new(), new, wanted)?)?;
            print(INOTIFY, world.rounds(InotifyTracker::new(), new, wanted)?)?;
            print(WALK, world.rounds(WalkTracker::new(), new, wanted)?)?;
        }
    }
    Ok(())
}

impl World {
    fn new(place: &Path, files: u32) -> Result<World, Error> {
        write_tree(place, files, |number| text(number.into(), FILE_BYTES))?;
        let root = Root::open(place).map_err(|source| Error::Snapshot(source.into()))?;
        let (mut index, ignored) = (RootIndex::new(), Ignored::new());
        snapshot::survey(&root, &mut index, &ignored).map_err(Error::Snapshot)?;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Ok(World { root, index, ignored, files, rounds: 0, threads })
    }

    /// One round more than is asked for: the first one arms everything.
    fn rounds(&mut self, mut tracker: impl Tracker, new: New, wanted: &Wanted) -> Result<Vec<Round>, Error> {
        (0..=wanted.repeat).map(|_| self.round(&mut tracker, new, wanted.changes)).collect()
    }

    fn round(&mut self, tracker: &mut impl Tracker, new: New, changes: u32) -> Result<Round, Error> {
        self.rounds += 1;
        let started = cpu_milliseconds();
        let watching = tracker.arm(&self.root, &self.index, &self.ignored);
        let armed = cpu_milliseconds();
        let mut changed: Vec<ImagePath> =
            (0..changes).map(|change| ImagePath::clean(path(self.choose(change, changes)))).collect();
        let directory = (new == New::Directory).then(|| ImagePath::clean(format!("new-{}", self.rounds)));
        if let Some(directory) = &directory {
            let place = directory.below(self.root.place());
            fs::create_dir(&place).map_err(|source| Error::file("make", &place, source))?;
            changed.push(directory.join("file"));
        }
        for path in &changed {
            let file = path.below(self.root.place());
            fs::write(&file, text(self.rounds, FILE_BYTES)).map_err(|source| Error::file("write", &file, source))?;
        }
        let written = cpu_milliseconds();
        let collected = watching.collect(&self.index, &self.ignored);
        let taken =
            snapshot::take(collected, SnapshotMode::Full, &self.root, &mut self.index, &self.ignored, self.threads);
        let Snapshot { changeset, work, handed_over, .. } = taken.map_err(Error::Snapshot)?;
        let snapshot = cpu_milliseconds() - written;
        let told = changeset.changes(&self.index).filter(|(_, change)| !matches!(change, Change::Parent(_)));
        let told: Vec<ImagePath> = told.map(|(path, _)| path).collect();
        let mut wanted: Vec<ImagePath> = changed.iter().chain(&directory).cloned().collect();
        wanted.sort();
        if told != wanted {
            return Err(Error::WrongSnapshot { changed: changed.len(), told: told.len() });
        }
        Ok(Round { arming: armed - started, snapshot, work, handed_over })
    }

    /// Files far apart, so that they are in directories of their own.
    fn choose(&self, change: u32, changes: u32) -> u32 {
        (u64::from(change) * u64::from(self.files) / u64::from(changes)) as u32
    }
}

fn row(files: u32, tracker: &str, new: New, rounds: &[Round]) -> String {
    let (first, rest) = rounds.split_first().expect("there is one more than was asked for");
    let of = |value: fn(&Round) -> f64| median(rest.iter().map(value).collect());
    let last = rest.last().expect("at least one was asked for");
    let Work { events, entries_looked_at, entries_swept, directories_walked, files_hashed, .. } = last.work;
    format!(
        "| {files} | {tracker}{} | {:.1} | {:.1} | {:.1} | {events} | {entries_looked_at} | {entries_swept} \
         | {directories_walked} | {files_hashed} | {} |\n",
        if new == New::Directory { ", a directory made" } else { "" },
        first.arming,
        of(|round| round.arming),
        of(|round| round.snapshot),
        last.handed_over.map_or_else(|| "no".to_owned(), |why| why.to_string()),
    )
}

/// CPU time of all threads of this process.
fn cpu_milliseconds() -> f64 {
    cpu_milliseconds_of(UsageWho::RUSAGE_SELF)
}

pub(super) fn cpu_milliseconds_of(who: UsageWho) -> f64 {
    let usage = getrusage(who).expect("a process may ask what it has used");
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1000.0
}
