//! A root in a directory of its own, what happens to it, and the double of a tracker.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt, OpenOptionsExt as _, PermissionsExt, chown, lchown, symlink};
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags};

use super::calls::Call;
use super::reference::{Listing, expected, list};
use crate::rootfs::{Ignored, Root};
use crate::snapshot::{
    Candidates, Collected, Snapshot, SnapshotMode, Tracker, Walk, WalkTracker, Watching, difference, judge, take,
};
use crate::sys::mapping::MappedByte;
use crate::tree::{Change, Changeset, ImagePath, RootIndex, Standing};

/// Threads of the snapshots under test: more than one, so that the order of their findings varies.
pub const THREADS: usize = 3;

/// A root, the index that knows it, and the state that the index knows.
pub struct World {
    pub place: tempfile::TempDir,
    pub root: Root,
    pub index: RootIndex,
    pub ignored: Ignored,
    pub known: Listing,
    /// Open files, the last one last; closed before a snapshot, as by the end of a command.
    pub held: RefCell<Vec<File>>,
    /// What a perfect tracker would have reported since it was armed.
    pub events: Rc<RefCell<Events>>,
}

/// Names that were touched, and directories that may have appeared as a whole.
#[derive(Debug, Default)]
pub struct Events {
    paths: BTreeSet<ImagePath>,
    subtrees: BTreeSet<ImagePath>,
}

impl World {
    /// A root in which `base` happened; all of it is the image's.
    pub fn new(base: &[Op]) -> World {
        let place = tempfile::tempdir().expect("a directory");
        let root = Root::open(place.path()).expect("opened");
        let known = Listing::new();
        let (index, ignored, events) = (RootIndex::new(), Ignored::new(), Rc::default());
        let held = RefCell::default();
        let mut world = World { place, root, index, ignored, known, held, events };
        base.iter().for_each(|op| drop(world.run(op)));
        world.held.take();
        world.learn();
        world
    }

    /// Makes the index know what is there, without the code under test.
    pub fn learn(&mut self) {
        self.known = list(&self.root);
        self.index = RootIndex::new();
        for (path, (node, observed)) in &self.known {
            self.index.insert(path, node, Some(*observed), Standing::Image);
        }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        ImagePath::clean(path).below(self.place.path())
    }

    /// Takes the snapshot that `watching` leads to, and checks it against everything that can judge it in mode `full`:
    /// the reference, the judge, the difference of the indexes. The index must know the root afterwards.
    pub fn snapshot(&mut self, watching: impl Watching) -> Snapshot {
        self.held.take();
        let before = self.index.clone();
        let now = list(&self.root);
        let collected = watching.collect(&self.index, &self.ignored);
        let snapshot = self.take(collected, SnapshotMode::Full);
        let wanted = expected(&self.known, &now);
        let judged = judged(SnapshotMode::Full, &self.root, &before, &self.ignored);
        let found: Changes = snapshot.changeset.changes(&self.index).collect();
        assert_eq!(lines(&judged), lines(&wanted), "the judge against the reference");
        assert_eq!(lines(&found), lines(&wanted), "the snapshot against the reference");
        assert!(found == wanted && judged == wanted, "image fields differ");
        let difference = self.lines(&difference(&before, &self.index));
        assert_eq!(difference, lines(&wanted), "the indexes against the reference");
        self.assert_known(&now);
        self.known = now;
        snapshot
    }

    /// [`lines`] of what the last snapshot said.
    pub fn lines(&self, changeset: &Changeset) -> Vec<String> {
        lines(&changeset.changes(&self.index).collect())
    }

    pub fn take(&mut self, collected: Collected, mode: SnapshotMode) -> Snapshot {
        take(collected, mode, &self.root, &mut self.index, &self.ignored, THREADS).expect("taken")
    }

    /// The index knows exactly what `now` lists. Observed fields may be older for what was not looked at.
    pub fn assert_known(&self, now: &Listing) {
        let known: BTreeSet<ImagePath> = self.index.subtree(self.index.root()).map(|id| self.index.path(id)).collect();
        assert_eq!(known, now.keys().cloned().collect(), "paths of the index");
        for (path, (node, observed)) in now {
            let entry = self.index.get(path).expect("it is known");
            if !path.is_root() {
                assert_eq!(&entry.node, node, "image fields of {path}");
            }
            let inode = entry.observed.map(|seen| (seen.device, seen.inode));
            assert_eq!(inode, Some((observed.device, observed.inode)), "inode of {path}");
        }
    }

    /// Does `op`; an error of the kernel means that it did nothing (no such file, not permitted).
    pub fn run(&self, op: &Op) -> std::io::Result<()> {
        let at = |path: &str| self.path(path);
        self.report(op);
        match op {
            // A fifo would make the writer wait for a reader.
            Op::Write(path, _) | Op::Patch(path, _) | Op::Truncate(path, _) | Op::Store(path, _)
                if fs::metadata(at(path)).is_ok_and(|metadata| !metadata.is_file()) =>
            {
                Err(std::io::ErrorKind::InvalidInput.into())
            }
            Op::Write(path, bytes) => fs::write(at(path), bytes),
            Op::Patch(path, byte) => {
                let file = File::options().read(true).write(true).open(at(path))?;
                let times = times_of(&file)?;
                file.write_all_at(&[*byte], 0)?;
                Ok(rustix::fs::futimens(&file, &times)?)
            }
            Op::Truncate(path, length) => File::options().write(true).open(at(path))?.set_len(*length),
            Op::Store(path, byte) => {
                let file = File::options().read(true).write(true).open(at(path))?;
                if file.metadata()?.len() > 0 {
                    MappedByte::new(file.as_fd())?.store(*byte);
                }
                Ok(())
            }
            Op::Chmod(path, mode) => fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)),
            Op::Chown(path, id) => lchown(at(path), Some(*id), Some(*id)),
            Op::ChownThrough(path, id) => chown(at(path), Some(*id), None),
            Op::SetXattr(path, value) => {
                Ok(rustix::fs::lsetxattr(at(path), "user.note", value.as_bytes(), XattrFlags::empty())?)
            }
            Op::RemoveXattr(path) => Ok(rustix::fs::lremovexattr(at(path), "user.note")?),
            Op::Touch(path, seconds) => {
                let time = Timespec { tv_sec: *seconds, tv_nsec: 5 };
                let times = Timestamps { last_access: time, last_modification: time };
                Ok(rustix::fs::utimensat(CWD, at(path), &times, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            Op::MakeDirectory(path) => fs::create_dir_all(at(path)),
            Op::Symlink(path, target) => symlink(target, at(path)),
            Op::Special(path, kind) => {
                let device = rustix::fs::makedev(1, 3);
                Ok(rustix::fs::mknodat(CWD, at(path), *kind, Mode::from_raw_mode(0o600), device)?)
            }
            Op::Link(existing, path) => Ok(rustix::fs::linkat(CWD, at(existing), CWD, at(path), AtFlags::empty())?),
            Op::Rename(from, to) => fs::rename(at(from), at(to)),
            Op::Exchange(one, other) => {
                Ok(rustix::fs::renameat_with(CWD, at(one), CWD, at(other), RenameFlags::EXCHANGE)?)
            }
            Op::Remove(path) => match fs::symlink_metadata(at(path))?.is_dir() {
                true => fs::remove_dir_all(at(path)),
                false => fs::remove_file(at(path)),
            },
            Op::ReplaceByLike(path) => self.replace_by_like(path),
            Op::Hold(path) => {
                let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(at(path))?;
                self.held.borrow_mut().push(file);
                Ok(())
            }
            Op::Call(path, call) => call(&at(path)),
            Op::WriteHeld(byte) => self.with_held(|file| file.write_all_at(&[*byte], 0)),
            Op::ChmodHeld(mode) => self.with_held(|file| file.set_permissions(fs::Permissions::from_mode(*mode))),
            Op::LinkHeld(path) => self.with_held(|file| {
                let own = format!("/proc/self/fd/{}", file.as_raw_fd());
                Ok(rustix::fs::linkat(CWD, own, CWD, at(path), AtFlags::SYMLINK_FOLLOW)?)
            }),
            Op::Nameless(path, bytes) => {
                let parent = at(path).parent().map(PathBuf::from).unwrap_or_default();
                let mut file = File::options().write(true).custom_flags(libc::O_TMPFILE).mode(0o644).open(parent)?;
                file.write_all(bytes)?;
                let own = format!("/proc/self/fd/{}", file.as_raw_fd());
                Ok(rustix::fs::linkat(CWD, own, CWD, at(path), AtFlags::SYMLINK_FOLLOW)?)
            }
        }
    }

    /// Does something with the file that was opened last.
    fn with_held(&self, what: impl FnOnce(&File) -> std::io::Result<()>) -> std::io::Result<()> {
        let held = self.held.borrow();
        what(held.last().ok_or(std::io::ErrorKind::NotFound)?)
    }

    /// Where the file that was opened last is now; `None` if its name is gone.
    fn place_of_held(&self) -> Option<ImagePath> {
        let held = self.held.borrow();
        let now = fs::read_link(format!("/proc/self/fd/{}", held.last()?.as_raw_fd())).ok()?;
        let below = now.strip_prefix(fs::canonicalize(self.place.path()).ok()?).ok()?.as_os_str().as_bytes();
        (!below.ends_with(b" (deleted)")).then(|| ImagePath::clean(below))
    }

    /// Notes what the kernel would report of `op`: real names, with symlinks resolved as they are now.
    fn report(&self, op: &Op) {
        let mut events = self.events.borrow_mut();
        let (touched, appeared) = op.reported();
        if matches!(op, Op::WriteHeld(_) | Op::ChmodHeld(_) | Op::LinkHeld(_)) {
            events.paths.extend(self.place_of_held());
        }
        if let Op::MakeDirectory(path) = op {
            // what is missing above it appears as well
            let above = ImagePath::clean(path).ancestors().into_iter();
            let missing = above
                .filter_map(|above| self.root.resolve(&above, true).ok())
                .filter(|real| self.root.stat(real).is_ok_and(|stat| stat.is_none()));
            for real in missing {
                events.paths.insert(real.clone());
                events.subtrees.insert(real);
            }
        }
        for follow_last in [false, true] {
            let real = |path: &&str| self.root.resolve(&ImagePath::clean(path), follow_last).ok();
            events.paths.extend(touched.iter().filter_map(real));
            events.subtrees.extend(appeared.iter().filter_map(real));
        }
    }

    /// `path` becomes a new inode with the same image fields.
    fn replace_by_like(&self, path: &str) -> std::io::Result<()> {
        let path = self.path(path);
        let metadata = fs::symlink_metadata(&path)?;
        if !metadata.is_file() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let times = times_of(&File::open(&path)?)?;
        let copy = self.place.path().join(".copy");
        fs::copy(&path, &copy)?;
        use std::os::unix::fs::MetadataExt;
        chown(&copy, Some(metadata.uid()), Some(metadata.gid()))?;
        fs::set_permissions(&copy, metadata.permissions())?;
        let mut value = Vec::with_capacity(256);
        if rustix::fs::lgetxattr(&path, "user.note", rustix::buffer::spare_capacity(&mut value)).is_ok() {
            rustix::fs::lsetxattr(&copy, "user.note", &value, XattrFlags::empty())?;
        }
        rustix::fs::futimens(&File::options().write(true).open(&copy)?, &times)?;
        fs::rename(copy, path)
    }
}

fn times_of(file: &File) -> std::io::Result<Timestamps> {
    let stat = rustix::fs::fstat(file)?;
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    Ok(Timestamps { last_access: time, last_modification: time })
}

/// Something that changes a root.
#[derive(Debug, Clone)]
pub enum Op {
    Write(String, Vec<u8>),
    /// Writes the first byte and sets the times back.
    Patch(String, u8),
    Truncate(String, u64),
    /// Stores the first byte through a shared mapping.
    Store(String, u8),
    Chmod(String, u32),
    Chown(String, u32),
    ChownThrough(String, u32),
    SetXattr(String, String),
    RemoveXattr(String),
    Touch(String, i64),
    MakeDirectory(String),
    Symlink(String, String),
    Special(String, FileType),
    Link(String, String),
    Rename(String, String),
    Exchange(String, String),
    Remove(String),
    ReplaceByLike(String),
    /// Opens a file and keeps it open.
    Hold(String),
    /// Writes the first byte of what was opened last, whatever became of its name.
    WriteHeld(u8),
    ChmodHeld(u32),
    /// Gives what was opened last another name.
    LinkHeld(String),
    /// Changes a file in a less usual way.
    Call(String, Call),
    /// Writes a file that has no name until it is done.
    Nameless(String, Vec<u8>),
}

pub fn write(path: &str, text: &str) -> Op {
    Op::Write(path.into(), text.into())
}

pub fn directory(path: &str) -> Op {
    Op::MakeDirectory(path.into())
}

pub fn link(existing: &str, path: &str) -> Op {
    Op::Link(existing.into(), path.into())
}

pub fn rename(from: &str, to: &str) -> Op {
    Op::Rename(from.into(), to.into())
}

pub fn remove(path: &str) -> Op {
    Op::Remove(path.into())
}

impl Op {
    /// The names that a perfect tracker would report, and those of them that may have appeared as a whole.
    pub fn reported(&self) -> (Vec<&str>, Vec<&str>) {
        match self {
            Op::Write(path, _)
            | Op::Patch(path, _)
            | Op::Truncate(path, _)
            | Op::Store(path, _)
            | Op::Chmod(path, _)
            | Op::Chown(path, _)
            | Op::ChownThrough(path, _)
            | Op::SetXattr(path, _)
            | Op::RemoveXattr(path)
            | Op::Touch(path, _)
            | Op::Symlink(path, _)
            | Op::Special(path, _)
            | Op::Remove(path)
            | Op::ReplaceByLike(path)
            | Op::LinkHeld(path)
            | Op::Call(path, ..)
            | Op::Nameless(path, _) => (vec![path], Vec::new()),
            Op::Hold(_) | Op::WriteHeld(_) | Op::ChmodHeld(_) => (Vec::new(), Vec::new()),
            Op::MakeDirectory(path) => (vec![path], vec![path]),
            Op::Link(one, other) => (vec![one, other], Vec::new()),
            Op::Rename(from, to) => (vec![from, to], vec![to]),
            Op::Exchange(one, other) => (vec![one, other], vec![one, other]),
        }
    }
}

/// The double: a tracker that reports what it is told, and may forget the first name.
pub struct Scripted {
    pub events: Rc<RefCell<Events>>,
    pub forgets: bool,
}

impl Scripted {
    /// Reports all that a perfect tracker would report of what is done to `world`.
    pub fn of(world: &World) -> Scripted {
        Scripted { events: Rc::clone(&world.events), forgets: false }
    }
}

impl Tracker for Scripted {
    type Watching<'a> = Script;

    fn arm(&mut self, root: &Root, index: &RootIndex, ignored: &Ignored) -> Script {
        // The clock has to move on as it does for the walk, or a change in the tick of the base would keep ctime and
        // mtime as they were.
        let walk = WalkTracker::new().arm(root, index, ignored);
        self.events.take();
        Script { walk, events: Rc::clone(&self.events), forgets: self.forgets }
    }
}

/// The double at work.
pub struct Script {
    walk: Walk,
    events: Rc<RefCell<Events>>,
    forgets: bool,
}

impl Watching for Script {
    fn collect(self, index: &RootIndex, ignored: &Ignored) -> Collected {
        let Events { mut paths, mut subtrees } = self.events.take();
        if self.forgets
            && let Some(first) = paths.pop_first()
        {
            subtrees.remove(&first);
        }
        let candidates = Candidates::Listed { paths, subtrees };
        Collected { candidates, ..self.walk.collect(index, ignored) }
    }
}

/// What a tracker collects where ctime can be trusted.
pub fn believing(candidates: Candidates) -> Collected {
    Collected { candidates, ctime: Ok(()), events: 0, handles_opened: 0 }
}

/// All changes of a changeset.
pub type Changes = BTreeMap<ImagePath, Change>;

/// What the judge says.
pub fn judged(mode: SnapshotMode, root: &Root, index: &RootIndex, ignored: &Ignored) -> Changes {
    let (judged, index) = judge(mode, root, index, ignored, THREADS).expect("judged");
    judged.changeset.changes(&index).collect()
}

/// One line per change: `A` added, `M` modified, `P` parent, `L` link, `-` removed.
pub fn lines(changes: &Changes) -> Vec<String> {
    let line = |(path, change): (&ImagePath, &Change)| match change {
        Change::Added(_) => format!("A {path}"),
        Change::Modified(_) => format!("M {path}"),
        Change::Parent(_) => format!("P {path}"),
        Change::Link { first, .. } => format!("L {path} -> {first}"),
        Change::Removed => format!("- {path}"),
    };
    changes.iter().map(line).collect()
}
