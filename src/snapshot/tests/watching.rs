//! What the trackers that watch have to look at, and when they hand over.

use std::fs;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::world::{Op, World, directory, link, remove, rename, write};
use crate::rootfs::Root;
use crate::snapshot::account::Place;
use crate::snapshot::changes::Inode;
use crate::snapshot::fanotify::Fanotify;
use crate::snapshot::file_system::FileSystem;
use crate::snapshot::inotify::Inotify;
use crate::snapshot::marks::{MarkTracker, Marks};
use crate::snapshot::reader::Digest;
use crate::snapshot::{
    ChangeTracker, ChosenTracker, Collected, FileSystemTracker, HandOver, LostTrack, Snapshot, SnapshotMode, Tracker,
    Unaccounted, Watching,
};
use crate::sys::Errno;
use crate::sys::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use crate::tree::ImagePath;

/// Does this machine allow it where temporary files are? If not, says so.
#[expect(clippy::print_stderr, reason = "a skip prints its reason")]
pub fn is_allowed<M: Marks>() -> bool {
    let place = tempfile::tempdir().expect("a directory");
    let root = Root::open(place.path()).expect("opened");
    M::open(&root).and_then(|marks| marks.wake()).inspect_err(|lost| eprintln!("skipped: {lost}")).is_ok()
}

macro_rules! for_each_that_watches {
    ($($test:ident),*; where_directories_are_marked: $($more:ident),*) => {
        mod with_inotify {
            $(#[test] fn $test() { super::$test::<super::Inotify>(); })*
            $(#[test] fn $more() { super::$more::<super::Inotify>(); })*
        }
        mod with_fanotify {
            $(#[test] fn $test() { if super::is_allowed::<super::Bounded>() { super::$test::<super::Bounded>(); } })*
            $(#[test] fn $more() { if super::is_allowed::<super::Bounded>() { super::$more::<super::Bounded>(); } })*
        }
        mod with_file_system {
            $(#[test] fn $test() {
                if super::is_allowed::<super::BoundedFileSystem>() { super::$test::<super::BoundedFileSystem>(); }
            })*
        }
    };
}

for_each_that_watches!(
    only_what_was_reported_is_looked_at,
    hand_overs,
    a_queue_that_overflowed_is_not_believed,
    links_in_overlooked_directories,
    dropped_while_watching,
    paths_longer_than_path_max,
    too_many_names_are_not_listed;
    where_directories_are_marked: too_many_directories_are_walked, an_overflow_while_nobody_watches_does_no_harm
);

/// Ten directories of ten files.
fn base() -> Vec<Op> {
    let file = |number: usize| write(&format!("d{}/f{}", number / 10, number % 10), "text");
    (0..10).map(|number| directory(&format!("d{number}"))).chain((0..100).map(file)).collect()
}

/// Judged in mode `full`.
fn step<T: Tracker>(world: &mut World, tracker: &mut T, ops: &[Op]) -> Snapshot {
    let watching = tracker.arm(&world.root, &world.index, &world.ignored);
    ops.iter().for_each(|op| world.run(op).unwrap_or_else(|error| panic!("{op:?}: {error}")));
    world.snapshot(watching)
}

/// Not judged, for roots that hold what is overlooked.
fn step_aside<T: Tracker>(world: &mut World, tracker: &mut T, ops: &[Op]) -> Snapshot {
    let watching = tracker.arm(&world.root, &world.index, &world.ignored);
    ops.iter().for_each(|op| world.run(op).unwrap_or_else(|error| panic!("{op:?}: {error}")));
    let collected = watching.collect(&world.index, &world.ignored);
    world.take(collected, SnapshotMode::Full)
}

fn only_what_was_reported_is_looked_at<M: Marks>() {
    let mut world = World::new(&base());
    let mut tracker = MarkTracker::<M>::new();
    let ops = [write("d1/f1", "other"), write("d2/f2", "other"), Op::Touch("d3/f3".into(), 5), remove("d4/f4")];
    for _ in 0..2 {
        let Snapshot { changeset, work, handed_over, .. } = step(&mut world, &mut tracker, &ops[..3]);
        assert!(!changeset.is_empty());
        assert_eq!((handed_over, work.directories_walked, work.entries_swept), (None, 0, 0));
        assert!((3..=10).contains(&work.entries_looked_at), "{work:?}");
        assert!(work.events >= 3, "{work:?}");
    }
    let Snapshot { changeset, work, handed_over, .. } = step(&mut world, &mut tracker, &ops[3..]);
    assert_eq!(world.lines(&changeset), ["M /d4", "- /d4/f4"]);
    assert_eq!((handed_over, work.directories_walked, work.entries_swept), (None, 0, 0));
    let Snapshot { changeset, work, handed_over, .. } = step(&mut world, &mut tracker, &[]);
    assert_eq!((world.lines(&changeset).len(), work.entries_looked_at, handed_over), (0, 0, None));
}

/// What each kind of change makes the tracker hand over to.
fn hand_overs<M: Marks>() {
    let sweep = |why| Some(HandOver::Sweep(why));
    // The number is that of the files that came to a name or lost one.
    for (what, ops, least, wanted) in [
        ("new file", vec![write("d0/new", "")], 1, None),
        ("new file, renamed over another", vec![write("d0/t", "new"), rename("d0/t", "d0/f0")], 2, None),
        ("a file moved", vec![rename("d0/f0", "d1/moved")], 1, None),
        ("a file moved and removed", vec![rename("d0/f0", "d1/moved"), remove("d1/moved")], 1, None),
        ("removed directory", vec![remove("d0")], 10, None),
        ("a link that stays", vec![link("d0/f0", "d1/link"), write("d1/link", "other")], 1, None),
        ("new directory", vec![directory("new")], 0, sweep(Unaccounted::NewDirectory)),
        ("moved directory", vec![rename("d0", "moved")], 0, sweep(Unaccounted::NewDirectory)),
        ("a name that came and went", vec![write("d0/t", ""), remove("d0/t")], 1, sweep(Unaccounted::LinkGone)),
        (
            "a link that came, was used, moved, and went",
            vec![link("d0/f0", "d1/t"), write("d1/t", "other"), rename("d1/t", "d2/t"), remove("d2/t")],
            1,
            sweep(Unaccounted::LinkGone),
        ),
        (
            "a link that came, was used, and was replaced",
            vec![link("d0/f0", "d1/t"), write("d1/t", "other"), rename("d1/f1", "d1/t")],
            2,
            sweep(Unaccounted::LinkGone),
        ),
        (
            "a link that came, was exchanged, used, and went",
            vec![
                link("d0/f0", "d1/t"),
                Op::Exchange("d1/t".into(), "d1/f1".into()),
                write("d1/f1", "other"),
                remove("d1/f1"),
            ],
            2,
            sweep(Unaccounted::LinkGone),
        ),
    ] {
        let mut world = World::new(&base());
        let mut tracker = MarkTracker::<M>::new();
        let Snapshot { work, handed_over, .. } = step(&mut world, &mut tracker, &ops);
        // Whoever knows the files themselves need not ask all of them.
        let wanted = wanted.filter(|_| !M::NOTES_FILES);
        assert_eq!(handed_over, wanted, "{what}");
        // Others change the same file system, and each file that they remove is one more.
        assert!(
            if M::NOTES_FILES { work.handles_opened >= least } else { work.handles_opened == 0 },
            "{what}: {work:?}"
        );
        let swept = if wanted.is_some() { 100 } else { 0 };
        assert!(work.entries_swept <= swept && work.entries_swept + 11 > swept, "{what}: {work:?}");
        let again = step(&mut world, &mut tracker, &[write("d9/f9", "other")]);
        assert_eq!((again.handed_over, again.work.entries_swept), (None, 0), "{what}: what appeared is watched");
    }
}

fn too_many_names_are_not_listed<M: Marks>() {
    let mut world = World::new(&base());
    let mut tracker = MarkTracker::<M>::new().with_least_names(5);
    let most = world.index.len() / 8;
    let writes = |text: &str| -> Vec<Op> {
        (0..=most).map(|number| write(&format!("d{}/f{}", number / 10, number % 10), text)).collect()
    };
    assert_eq!(step(&mut world, &mut tracker, &writes("other")[..most]).handed_over, None);
    let over = step(&mut world, &mut tracker, &writes("more"));
    assert_eq!(over.handed_over, Some(HandOver::Walk(LostTrack::TooManyNames { most })));
    assert_eq!(over.changeset.len(), 2 + most + 1, "with their directories");
    assert_eq!(step(&mut world, &mut tracker, &writes("few")[..1]).handed_over, None);
}

fn too_many_directories_are_walked<M: Marks>() {
    let mut world = World::new(&base());
    let mut tracker = MarkTracker::<M>::new().with_allowed(11);
    assert_eq!(step(&mut world, &mut tracker, &[write("d1/f1", "other")]).handed_over, None);
    step(&mut world, &mut tracker, &[directory("one/more")]);
    let over = step(&mut world, &mut tracker, &[write("d1/f1", "once more")]);
    let lost = LostTrack::TooManyDirectories { directories: 13, allowed: 11 };
    assert_eq!(
        (over.handed_over, world.lines(&over.changeset)),
        (Some(HandOver::Walk(lost)), vec!["P /d1".to_owned(), "M /d1/f1".to_owned()])
    );
    step(&mut world, &mut tracker, &[remove("one")]);
    assert_eq!(step(&mut world, &mut tracker, &[write("d1/f1", "small again")]).handed_over, None);
}

/// More events than the kernel keeps, each of another name, so that none are merged.
fn overflow(world: &World) {
    let limit = |of: &str| {
        let text = fs::read_to_string(format!("/proc/sys/fs/{of}/max_queued_events")).expect("a proc file system");
        text.trim().parse::<usize>().expect("a number")
    };
    for number in 0..=limit("inotify").max(limit("fanotify")) {
        let path = world.path(&format!("d0/t{number}"));
        fs::write(&path, "").expect("written");
        fs::remove_file(&path).expect("removed");
    }
}

/// fanotify as it is where the kernel allows less.
macro_rules! lesser {
    ($(#[$doc:meta])* $name:ident of $marks:ty, $open:expr, $inode:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name($marks);

        impl Marks for $name {
            const LIMIT: Option<&'static str> = <$marks>::LIMIT;
            const NOTES_FILES: bool = <$marks>::NOTES_FILES;

            fn open(root: &Root) -> Result<$name, LostTrack> {
                let open: fn(&Root) -> Result<$marks, LostTrack> = $open;
                open(root).map($name)
            }

            fn queue(&self) -> &Arc<OwnedFd> {
                self.0.queue()
            }

            fn mark(&mut self, root: &Root, path: &ImagePath) -> Result<Place, LostTrack> {
                self.0.mark(root, path)
            }

            fn wake(&self) -> Result<(), LostTrack> {
                self.0.wake()
            }

            fn rest(&self) {
                self.0.rest();
            }

            fn digest(&self) -> impl Digest {
                self.0.digest()
            }

            fn inode(&self, handle: &[u8]) -> Result<Option<Inode>, Errno> {
                let inode: fn(&$marks, &[u8]) -> Result<Option<Inode>, Errno> = $inode;
                inode(&self.0, handle)
            }
        }
    };
}

lesser!(
    /// With a limit to the queue, a mark per directory.
    Bounded of Fanotify, |_| Fanotify::with_queue(0), Fanotify::inode
);
lesser!(
    /// With a limit to the queue, a mark for the file system.
    BoundedFileSystem of FileSystem, |root| FileSystem::with_group(Fanotify::with_queue(0)?, root), FileSystem::inode
);
lesser!(
    /// Without the right to open files by their handles, once that was tried.
    Untraced of FileSystem, FileSystem::open, |_, _| Err(Errno::PERM)
);

fn a_queue_that_overflowed_is_not_believed<M: Marks>() {
    let mut world = World::new(&base());
    let mut tracker = MarkTracker::<M>::new().with_pause(Duration::from_secs(3600));
    let watching = tracker.arm(&world.root, &world.index, &world.ignored);
    overflow(&world);
    world.run(&write("d5/f5", "lost")).expect("written");
    let snapshot = world.snapshot(watching);
    assert_eq!(snapshot.handed_over, Some(HandOver::Walk(LostTrack::QueueOverflow)));
    assert!(world.lines(&snapshot.changeset).contains(&"M /d5/f5".to_owned()));
    assert_eq!(step(&mut world, &mut tracker, &[write("d1/f1", "other")]).handed_over, None);
}

/// What we do ourselves between two commands may overflow the queue, and with it goes the news of watches that ended:
/// an inode that is used again must not be taken for a watched one.
fn an_overflow_while_nobody_watches_does_no_harm<M: Marks>() {
    let mut world = World::new(&base());
    let mut tracker = MarkTracker::<M>::new();
    step(&mut world, &mut tracker, &[]);
    overflow(&world);
    for number in 0..10 {
        world.run(&remove(&format!("d{number}"))).expect("removed");
    }
    base().iter().for_each(|op| world.run(op).expect("done"));
    world.learn();
    let ops: Vec<Op> = (0..10).map(|number| write(&format!("d{number}/f0"), "other")).collect();
    let snapshot = step(&mut world, &mut tracker, &ops);
    assert_eq!((snapshot.handed_over, world.lines(&snapshot.changeset).len()), (None, 20));
}

fn links_in_overlooked_directories<M: Marks>() {
    let kept =
        [write("a/f", "text"), write("a/g", "text"), directory("var/run"), directory("kaniko"), directory("tmp")];
    let mut base = vec![directory("a")];
    base.extend(kept.into_iter().rev());
    let mut world = World::new(&base);
    for path in ["/var/run", "/kaniko"] {
        world.ignored.add_overlooked(ImagePath::clean(path));
        world.index.remove(&ImagePath::clean(path));
    }
    let mut tracker = MarkTracker::<M>::new();
    let mut told = |world: &mut World, ops: &[Op]| {
        let snapshot = step_aside(world, &mut tracker, ops);
        world.lines(&snapshot.changeset)
    };
    let changed = ["P /a", "M /a/f"];
    let none = [""; 0];
    // A link that is kept there; then it is written through; then it goes, with what it wrote just before.
    assert_eq!(told(&mut world, &[link("a/f", "var/run/l")]), none);
    assert_eq!(told(&mut world, &[write("var/run/l", "once")]), changed);
    assert_eq!(told(&mut world, &[write("var/run/l", "twice"), remove("var/run/l")]), changed);
    // A link that lives only while the command runs, in directories that earlier commands made.
    assert_eq!(told(&mut world, &[directory("kaniko/x/y"), directory("tmp/apt-key-gpghome.Ab")]), ["M /tmp"]);
    for place in ["kaniko/x/y/l", "tmp/apt-key-gpghome.Ab/l"] {
        let ops = [link("a/f", place), write(place, place), remove(place)];
        assert_eq!(told(&mut world, &ops), changed, "{place}");
    }
    assert_eq!(told(&mut world, &[write("kaniko/x/y/new", ""), directory("kaniko/z")]), none);
}

/// Nothing is watched any more once the tracker is gone, and a RUN that fails ends watching as well.
fn dropped_while_watching<M: Marks>() {
    let mut world = World::new(&base());
    let mut tracker = MarkTracker::<M>::new();
    drop(tracker.arm(&world.root, &world.index, &world.ignored));
    world.run(&remove("d1")).expect("removed");
    world.learn();
    let snapshot = step(&mut world, &mut tracker, &[write("d2/f2", "other")]);
    assert_eq!(
        (snapshot.handed_over, world.lines(&snapshot.changeset)),
        (None, vec!["P /d2".to_owned(), "M /d2/f2".into()])
    );
}

/// A directory that can be reached from the root in one call, but not from `/`.
fn paths_longer_than_path_max<M: Marks>() {
    let mut world = World::new(&[]);
    let mut directory = world.root.top().create_directory(&[b'n'; 200]).expect("made");
    for length in [[200; 19].as_slice(), &[69]].concat() {
        directory = directory.create_directory(&vec![b'n'; length]).expect("made");
    }
    assert!(
        directory.path().as_bytes().len() < 4096 && directory.path().below(world.root.place()).as_os_str().len() > 4096
    );
    drop(directory.create_file(b"f").expect("created"));
    world.index = crate::tree::RootIndex::new();
    crate::snapshot::survey(&world.root, &mut world.index, &world.ignored).expect("surveyed");
    let mut tracker = MarkTracker::<M>::new();
    let watching = tracker.arm(&world.root, &world.index, &world.ignored);
    directory.set_mode(b"f", 0o640).expect("set");
    let Collected { candidates, .. } = watching.collect(&world.index, &world.ignored);
    let path = directory.path().join("f");
    let wanted = crate::snapshot::Candidates::Listed { paths: [path].into(), subtrees: [].into() };
    assert_eq!(candidates, wanted);
}

/// The file system is everybody's: what happens beside the root is nobody's business, until a directory comes from there.
#[test]
fn what_happens_beside_the_root() {
    if !is_allowed::<FileSystem>() {
        return;
    }
    let mut world = World::new(&base());
    let beside = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(beside.path().join("d/sub")).expect("made");
    let mut tracker = FileSystemTracker::new();
    let watching = tracker.arm(&world.root, &world.index, &world.ignored);
    fs::write(beside.path().join("d/sub/f"), "text").expect("written");
    fs::create_dir(beside.path().join("d/new")).expect("made");
    fs::write(beside.path().join("d/new/f"), "text").expect("written");
    let snapshot = world.snapshot(watching);
    assert_eq!((snapshot.work.events, snapshot.work.entries_looked_at, snapshot.handed_over), (0, 0, None));
    let watching = tracker.arm(&world.root, &world.index, &world.ignored);
    fs::rename(beside.path().join("d"), world.path("d0/from")).expect("moved");
    world.run(&link("d1/f1", "d0/from/sub/l")).expect("linked");
    world.run(&write("d0/from/sub/l", "hidden")).expect("written");
    world.run(&remove("d0/from/sub/l")).expect("removed");
    let snapshot = world.snapshot(watching);
    assert_eq!(snapshot.handed_over, Some(HandOver::Walk(LostTrack::UnknownDirectory)));
    assert!(world.lines(&snapshot.changeset).contains(&"M /d1/f1".to_owned()));
}

/// A file that is used when it has lost the name by which it was opened is known by its handle alone, and a thread can give
/// up the right to open that.
#[test]
fn a_handle_that_cannot_be_opened() {
    if !is_allowed::<FileSystem>() {
        return;
    }
    let without_the_right = || {
        let mut world = World::new(&base());
        let mut tracker = FileSystemTracker::new();
        let watching = tracker.arm(&world.root, &world.index, &world.ignored);
        let ops = [link("d1/f1", "d2/t"), Op::Hold("d2/t".into()), remove("d2/t"), Op::WriteHeld(b'T')];
        ops.iter().for_each(|op| world.run(op).expect("done"));
        let held = capabilities(None).expect("asked");
        let effective = held.effective.difference(CapabilitySet::DAC_READ_SEARCH);
        set_capabilities(None, CapabilitySets { effective, ..held }).expect("given up");
        let snapshot = world.snapshot(watching);
        assert_eq!(snapshot.handed_over, Some(HandOver::Sweep(Unaccounted::Untraced(Errno::PERM))));
        assert_eq!(world.lines(&snapshot.changeset), ["P /d1", "M /d1/f1", "M /d2"]);
        set_capabilities(None, held).expect("taken back");
        assert_eq!(step(&mut world, &mut tracker, &[write("d1/f1", "other")]).handed_over, None);
    };
    thread::spawn(without_the_right).join().expect("as it should be");
}

/// Of what is on another file system, the mark would tell nothing.
#[test]
fn a_root_on_two_file_systems() {
    if !is_allowed::<FileSystem>() {
        return;
    }
    let root = Root::open(std::path::Path::new("/")).expect("opened");
    // Nothing is marked, only asked for its handle.
    let Ok(mut marks) = FileSystem::open(&root) else { return };
    assert_eq!(marks.mark(&root, &ImagePath::clean("/proc")), Err(LostTrack::OtherFileSystem));
    assert!(marks.mark(&root, &ImagePath::root()).is_ok());
}

/// Runs one of the tests below where the kernel allows less: in a user namespace, whose own limits can be set.
#[expect(clippy::print_stderr, reason = "a skip prints its reason")]
fn where_limited(limit: &str, to: &str, test: &str) {
    let may_limit = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "sh", "-c", script])
            .arg(std::env::current_exe().expect("ourselves"));
        command
    };
    let set = format!("echo {to} >/proc/sys/user/{limit}");
    if !may_limit(&set).status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no user namespace, or none with limits of its own");
    }
    let output =
        may_limit(&format!("{set} && exec \"$0\" --ignored --exact snapshot::tests::watching::{test}")).output();
    let output = output.expect("it ran a moment ago");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}{}", String::from_utf8_lossy(&output.stderr));
}

/// What the build uses finds out, walks, and does not try again.
fn refused_with(errno: Errno) {
    let mut world = World::new(&base());
    let mut tracker = ChosenTracker::new(ChangeTracker::Inotify, 1);
    for text in ["once", "twice"] {
        let snapshot = step(&mut world, &mut tracker, &[write("d1/f1", text)]);
        assert_eq!(snapshot.handed_over, Some(HandOver::Walk(LostTrack::Refused(errno))));
        assert_eq!(world.lines(&snapshot.changeset), ["P /d1", "M /d1/f1"]);
    }
}

#[test]
fn a_limit_met_half_way() {
    where_limited("max_inotify_watches", "5", "limited_watches");
}

#[test]
fn no_inotify_at_all() {
    where_limited("max_inotify_instances", "0", "limited_instances");
}

#[test]
#[ignore = "run by another test, where the limit is 5"]
fn limited_watches() {
    refused_with(Errno::NOSPC);
}

#[test]
#[ignore = "run by another test, where the limit is 0"]
fn limited_instances() {
    refused_with(Errno::MFILE);
}
