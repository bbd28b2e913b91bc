//! Does ctime tell that an inode was touched? Tried by experiment, once per root, before the walk relies on it.
//!
//! Three things must hold. The file system moves ctime with every write and with every first store into a shared
//! mapping (tmpfs does not; FUSE and network file systems may not). A change that comes now gets another ctime than
//! the index saw: the kernel's coarse clock must have passed the newest of those. And the clock never steps back.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use crate::rootfs::{self, Directory};
use crate::sys::fs::{Mode, OFlags, openat};
use crate::sys::time::{ClockId, clock_gettime};
use crate::sys::{Errno, mapping::MappedByte};
use crate::tree::Timestamp;

/// How long the coarse clock may need to pass a ctime that was just given: its steps are 10 ms at HZ=100, and a busy
/// machine may be late. Beyond it, the file system's clock is not ours.
const LONGEST_STEP: Duration = Duration::from_millis(200);

/// How often the clock is asked while waiting for a step.
const CLOCK_POLL: Duration = Duration::from_micros(500);

/// By how much the wall clock may fall behind the clock since boot: one step, and one part in 500 for slewing.
const CLOCK_SLACK: Duration = Duration::from_millis(10);
const SLEW_ONE_IN: u32 = 500;

/// Why ctime is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Nobody tried.
    #[error("ctime was not tried here")]
    Untried,
    /// No file for the experiment could be made, written or mapped in the root.
    #[error("the root refuses a file to try ctime on ({0})")]
    NoFile(Errno),
    /// A write left ctime as it was.
    #[error("a write does not move ctime here")]
    WriteUnseen,
    /// A store through a shared mapping left ctime as it was.
    #[error("a store through a shared mapping does not move ctime here")]
    StoreUnseen,
    /// The clock does not pass a ctime that the file system gave.
    #[error("the file system's clock is ahead of this machine's")]
    ClockAhead,
    /// The wall clock was set back while the instruction ran.
    #[error("the wall clock stepped back")]
    ClockSteppedBack,
}

/// What the experiment said about a root, once it was made.
#[derive(Debug, Default)]
pub(super) struct Trust {
    tried: Option<Result<(), Distrust>>,
}

impl Trust {
    /// Makes the experiment in `directory`, the first time.
    pub(super) fn try_on(&mut self, directory: &Directory) {
        self.tried.get_or_insert_with(|| experiment(directory));
    }

    /// As [`Proof::begin`], where the experiment allows it.
    pub(super) fn begin(&self, newest: Option<Timestamp>) -> Result<Proof, Distrust> {
        self.tried.unwrap_or(Err(Distrust::Untried)).and_then(|()| Proof::begin(newest))
    }
}

/// Tries ctime on a file of its own in `directory`, which is left as it was.
fn experiment(directory: &Directory) -> Result<(), Distrust> {
    let file = nameless_file(directory)?;
    let write = |byte: u8| file.write_all_at(&[byte], 0).map_err(|error| no_file(&error));
    write(1)?;
    let created = ctime(&file)?;
    wait_until_past(created)?;
    write(2)?;
    let written = ctime(&file)?;
    if written <= created {
        return Err(Distrust::WriteUnseen);
    }
    let byte = MappedByte::new(file.as_fd()).map_err(Distrust::NoFile)?;
    // Read first: on tmpfs, a page that reading has mapped is then written without the file system hearing of it.
    let seen = byte.load();
    wait_until_past(written)?;
    byte.store(seen.wrapping_add(1));
    if ctime(&file)? <= written { Err(Distrust::StoreUnseen) } else { Ok(()) }
}

/// A file that has no name, or none any more; the mtime of `directory` stays.
fn nameless_file(directory: &Directory) -> Result<File, Distrust> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = openat(directory, ".", flags, Mode::RUSR | Mode::WUSR) {
        return Ok(File::from(file));
    }
    let name = format!(".kanna-ctime-{}", std::process::id());
    let refused = |error: rootfs::Error| no_file(&error.source);
    let before = directory.stat(b".").map_err(refused)?.ok_or(Distrust::NoFile(Errno::NOENT))?;
    let file = directory.create_file(name.as_bytes()).map_err(refused)?;
    directory.remove(name.as_bytes()).map_err(refused)?;
    directory.set_mtime(b".", before.mtime).map_err(refused)?;
    Ok(file)
}

fn no_file(error: &io::Error) -> Distrust {
    Distrust::NoFile(Errno::from_io_error(error).unwrap_or(Errno::IO))
}

fn ctime(file: &File) -> Result<Timestamp, Distrust> {
    let metadata = file.metadata().map_err(|error| no_file(&error))?;
    Ok(Timestamp { seconds: metadata.ctime(), nanoseconds: u32::try_from(metadata.ctime_nsec()).unwrap_or(0) })
}

/// Waits until a change would get a later ctime than `moment`, which was given just now or earlier.
fn wait_until_past(moment: Timestamp) -> Result<(), Distrust> {
    let deadline = Instant::now() + LONGEST_STEP;
    while now(ClockId::RealtimeCoarse) <= moment {
        if Instant::now() > deadline {
            return Err(Distrust::ClockAhead);
        }
        std::thread::sleep(CLOCK_POLL);
    }
    Ok(())
}

fn now(clock: ClockId) -> Timestamp {
    let time = clock_gettime(clock);
    Timestamp { seconds: time.tv_sec, nanoseconds: u32::try_from(time.tv_nsec).unwrap_or(0) }
}

/// Vouches for ctime from the moment it is made until [`Proof::end`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    wall: Timestamp,
    since_boot: Timestamp,
}

impl Proof {
    /// Begins once every change will get a later ctime than `newest`.
    pub(super) fn begin(newest: Option<Timestamp>) -> Result<Proof, Distrust> {
        newest.map_or(Ok(()), wait_until_past)?;
        Ok(Proof { wall: now(ClockId::RealtimeCoarse), since_boot: now(ClockId::Boottime) })
    }

    /// Was the clock fit to tell all that happened since?
    pub(super) fn end(self) -> Result<(), Distrust> {
        self.end_at(now(ClockId::RealtimeCoarse), now(ClockId::Boottime))
    }

    fn end_at(self, wall: Timestamp, since_boot: Timestamp) -> Result<(), Distrust> {
        let passed = elapsed(self.since_boot, since_boot).unwrap_or_default();
        match elapsed(self.wall, wall) {
            Some(wall) if wall + CLOCK_SLACK + passed / SLEW_ONE_IN >= passed => Ok(()),
            _ => Err(Distrust::ClockSteppedBack),
        }
    }
}

/// From `start` to `end`; `None` if `end` is earlier.
fn elapsed(start: Timestamp, end: Timestamp) -> Option<Duration> {
    let since_epoch = |time: Timestamp| Some(Duration::new(u64::try_from(time.seconds).ok()?, time.nanoseconds));
    since_epoch(end)?.checked_sub(since_epoch(start)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::Root;

    #[test]
    fn clocks() {
        let at = |milliseconds: i64| Timestamp {
            seconds: milliseconds.div_euclid(1000),
            nanoseconds: u32::try_from(milliseconds.rem_euclid(1000)).expect("below 1000") * 1_000_000,
        };
        let proof = Proof { wall: at(1_000_000), since_boot: at(5_000) };
        for (what, wall, boot, trusted) in [
            ("nothing happened", 1_000_000, 5_000, true),
            ("a second passed", 1_001_000, 6_000, true),
            ("the coarse clock is one step behind", 1_000_996, 6_000, true),
            ("the clock is slewed", 1_999_000, 1_005_000, true),
            ("set forward", 5_000_000, 6_000, true),
            ("set back a little", 1_000_900, 6_000, false),
            ("set back to before the start", 999_999, 6_000, false),
        ] {
            assert_eq!(proof.end_at(at(wall), at(boot)).is_ok(), trusted, "{what}");
        }
    }

    /// Whatever the file system answers, the directory looks as before.
    #[test]
    #[expect(clippy::print_stderr, reason = "whether ctime is trusted decides what other tests exercise")]
    fn the_experiment_leaves_no_trace() {
        let place = tempfile::tempdir().expect("a directory");
        let root = Root::open(place.path()).expect("opened");
        root.top().set_mtime(b".", Timestamp::from_seconds(1)).expect("set");
        let outcome = experiment(root.top());
        eprintln!("ctime in {}: {outcome:?}", place.path().display());
        assert_eq!(root.top().stat(b".").expect("looked").expect("there").mtime, Timestamp::from_seconds(1));
        assert!(root.top().entries().expect("listed").is_empty());
    }

    /// DESIGN's example of a file system on which ctime cannot be trusted.
    #[test]
    #[expect(clippy::print_stderr, reason = "a skip prints its reason")]
    fn tmpfs_fails_the_experiment() {
        let Ok(place) = tempfile::tempdir_in("/dev/shm") else {
            eprintln!("skipped: no /dev/shm to write to");
            return;
        };
        let root = Root::open(place.path()).expect("opened");
        assert_eq!(experiment(root.top()), Err(Distrust::StoreUnseen));
    }

    #[test]
    fn a_ctime_from_the_future_is_not_waited_for() {
        let future = Timestamp { seconds: now(ClockId::RealtimeCoarse).seconds + 3600, nanoseconds: 0 };
        assert_eq!(Proof::begin(Some(future)).err(), Some(Distrust::ClockAhead));
        let just_now = now(ClockId::RealtimeCoarse);
        let proof = Proof::begin(Some(just_now)).expect("the clock runs");
        assert!(proof.wall > just_now);
    }
}
