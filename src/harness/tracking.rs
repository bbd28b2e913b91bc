//! What being watched costs the command of a RUN: the same commands under each tracker and under none.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::sys::resource::UsageWho;

use super::Error;
use super::command::run as run_command;
use super::flags::Tracking as Wanted;
use super::report::median;
use super::snapshots::{DIRECTORIES, FILE_SYSTEM, INOTIFY, WALK, cpu_milliseconds_of};
use super::written::{append_tree, text};
use crate::rootfs::{Ignored, Root};
use crate::snapshot::{
    self, FanotifyTracker, FileSystemTracker, HandOver, InotifyTracker, Snapshot, SnapshotMode, Tracker, WalkTracker,
    Watching, Work,
};
use crate::tree::RootIndex;

/// Bytes of each file.
const FILE_BYTES: usize = 2048;

/// A command that works on many files: what it is called, and a shell's words. The tree is in `tree`, the archive of it
/// in `$0`.
struct Kind {
    name: &'static str,
    script: &'static str,
}

/// One after another, in one root.
const KINDS: [Kind; 6] = [
    Kind { name: "tar into a new directory", script: "mkdir new && tar -C new -xf \"$0\"" },
    Kind { name: "tar over what is there", script: "tar -C tree -xf \"$0\"" },
    Kind {
        name: "append to each file",
        script: "find tree -type f -exec sh -c 'for file; do echo more >>\"$file\"; done' sh {} +",
    },
    Kind { name: "touch -m", script: "find tree -type f -exec touch -m {} +" },
    Kind { name: "chown -R", script: "chown -R \"$(($(stat -c %u tree) + 1))\" tree" },
    Kind { name: "rm -rf", script: "rm -rf new" },
];

const TRACKERS: [&str; 4] = [WALK, FILE_SYSTEM, DIRECTORIES, INOTIFY];

/// What one command cost, in milliseconds of CPU.
struct Cost {
    command: f64,
    /// Of our thread that reads the events.
    reader: f64,
    snapshot: f64,
    work: Work,
    handed_over: Option<HandOver>,
}

/// A root, and the index that knows it.
struct World {
    root: Root,
    index: RootIndex,
    ignored: Ignored,
    archive: PathBuf,
    threads: usize,
}

/// Runs the commands under each tracker in turn, in one root, and prints what each cost.
pub(super) fn run(wanted: &Wanted, out: &mut impl Write) -> Result<(), Error> {
    let fault = |source| Error::file("make a folder in", &wanted.work, source);
    fs::create_dir_all(&wanted.work).map_err(fault)?;
    let place = tempfile::Builder::new().prefix("harness-").tempdir_in(&wanted.work).map_err(fault)?;
    let mut world = World::new(place.path(), wanted.files)?;
    // one round more than is asked for: the first warms up what all share
    let mut costs: Vec<Vec<Vec<Cost>>> = TRACKERS.map(|_| Vec::new()).into();
    for round in 0..=wanted.repeat as usize {
        for turn in 0..TRACKERS.len() {
            let which = (round + turn) % TRACKERS.len();
            let cost = match TRACKERS[which] {
                FILE_SYSTEM => world.commands(FileSystemTracker::new()),
                DIRECTORIES => world.commands(FanotifyTracker::new()),
                INOTIFY => world.commands(InotifyTracker::new()),
                _ => world.commands(WalkTracker::new()),
            };
            costs[which].push(cost?);
        }
    }
    let text = table(wanted, &costs);
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Print)
}

impl World {
    fn new(place: &Path, files: u32) -> Result<World, Error> {
        let archive = place.join("tree.tar");
        let fault = |source| Error::file("write", &archive, source);
        let mut tar = tar::Builder::new(File::create(&archive).map_err(fault)?);
        append_tree(&mut tar, "packages", files, |number| text(number.into(), FILE_BYTES)).map_err(fault)?;
        tar.into_inner().map_err(fault)?;
        let top = place.join("root");
        let tree = top.join("tree");
        fs::create_dir_all(&tree).map_err(|source| Error::file("make", &tree, source))?;
        run_command(Command::new("tar").arg("-C").arg(&tree).arg("-xf").arg(&archive))?;
        let root = Root::open(&top).map_err(|source| Error::Snapshot(source.into()))?;
        let (mut index, ignored) = (RootIndex::new(), Ignored::new());
        snapshot::survey(&root, &mut index, &ignored).map_err(Error::Snapshot)?;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Ok(World { root, index, ignored, archive, threads })
    }

    /// Each command once.
    fn commands(&mut self, mut tracker: impl Tracker) -> Result<Vec<Cost>, Error> {
        KINDS.iter().map(|kind| self.command(&mut tracker, kind)).collect()
    }

    fn command(&mut self, tracker: &mut impl Tracker, kind: &Kind) -> Result<Cost, Error> {
        let watching = tracker.arm(&self.root, &self.index, &self.ignored);
        let (ours, theirs) =
            (cpu_milliseconds_of(UsageWho::RUSAGE_SELF), cpu_milliseconds_of(UsageWho::RUSAGE_CHILDREN));
        let mut command = Command::new("sh");
        run_command(command.current_dir(self.root.place()).args(["-ec", kind.script]).arg(&self.archive))?;
        let ended = cpu_milliseconds_of(UsageWho::RUSAGE_SELF);
        let command = cpu_milliseconds_of(UsageWho::RUSAGE_CHILDREN) - theirs;
        let collected = watching.collect(&self.index, &self.ignored);
        // what is read of the files would be the same under all
        let (mode, threads) = (SnapshotMode::Redo, self.threads);
        let taken = snapshot::take(collected, mode, &self.root, &mut self.index, &self.ignored, threads);
        let Snapshot { changeset, work, handed_over, .. } = taken.map_err(Error::Snapshot)?;
        let snapshot = cpu_milliseconds_of(UsageWho::RUSAGE_SELF) - ended;
        if changeset.is_empty() {
            return Err(Error::WrongSnapshot { changed: 1, told: 0 });
        }
        Ok(Cost { command, reader: ended - ours, snapshot, work, handed_over })
    }
}

fn table(wanted: &Wanted, costs: &[Vec<Vec<Cost>>]) -> String {
    let mut text = format!(
        "{} files of {FILE_BYTES} bytes; CPU in milliseconds, medians of {} after the first round\n\n\
         | command | tracker | command | more than unwatched | reader | snapshot | events | handles opened | handed over |\n\
         {}|\n",
        wanted.files,
        wanted.repeat,
        "|---".repeat(9)
    );
    for (number, kind) in KINDS.iter().enumerate() {
        let of = |tracker: usize, value: fn(&Cost) -> f64| {
            median(costs[tracker].iter().skip(1).map(|commands| value(&commands[number])).collect())
        };
        let unwatched = of(0, |cost| cost.command);
        for (tracker, name) in TRACKERS.iter().enumerate() {
            let command = of(tracker, |cost| cost.command);
            let Some(last) = costs[tracker].last().map(|commands| &commands[number]) else { continue };
            text += &format!(
                "| {} | {name} | {command:.0} | {:+.0} % | {:.0} | {:.0} | {} | {} | {} |\n",
                kind.name,
                (command / unwatched - 1.0) * 100.0,
                of(tracker, |cost| cost.reader),
                of(tracker, |cost| cost.snapshot),
                last.work.events,
                last.work.handles_opened,
                last.handed_over.map_or_else(|| "no".to_owned(), |why| why.to_string()),
            );
        }
    }
    text
}
