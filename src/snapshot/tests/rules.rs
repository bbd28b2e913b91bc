//! Ignored paths, foreign and masked ones, lossy modes, costs.

#![expect(clippy::print_stderr, reason = "what is skipped is said, and a failing row is named")]

use std::collections::BTreeSet;
use std::fs;

use super::reference::list;
use super::world::{Op, World, believing, directory, write};
use crate::rootfs::Ignored;
use crate::snapshot::{
    Candidates, Collected, Distrust, LostTrack, SnapshotMode, Tracker, Unaccounted, WalkTracker, Watching, Work,
    difference, survey,
};
use crate::tree::{Change, ImagePath, Kind, Node, RootIndex, Standing, Timestamp};

const EVERYTHING: Candidates = Candidates::Everything(LostTrack::NotWatched);

/// Arms the walk, does `ops`, takes a snapshot.
fn step(world: &mut World, ops: &[Op], mode: SnapshotMode) -> Vec<String> {
    let mut tracker = WalkTracker::new();
    let watching = tracker.arm(&world.root, &world.index, &world.ignored);
    ops.iter().for_each(|op| world.run(op).expect("done"));
    let collected = watching.collect(&world.index, &world.ignored);
    let snapshot = world.take(collected, mode);
    world.lines(&snapshot.changeset)
}

#[test]
fn ignored_paths_do_not_exist() {
    let mut world = World::new(&[directory("var/run"), directory("kaniko"), directory("tmp"), write("var/run/x", "1")]);
    world.ignored.add_overlooked(ImagePath::clean("/var/run"));
    world.ignored.add_untouchable(ImagePath::clean("/kaniko"));
    let ops = [
        write("var/run/x", "2"),
        write("var/run/y", "2"),
        write("kaniko/z", "2"),
        directory("tmp/apt-key-gpghome.Ab"),
        Op::Touch("tmp".into(), 5),
        Op::Link("var/run/x".into(), "linked".into()),
    ];
    assert_eq!(step(&mut world, &ops, SnapshotMode::Full), ["A /linked", "M /tmp"]);
    assert_eq!(step(&mut world, &[Op::Remove("var/run".into())], SnapshotMode::Full), ["M /var"]);
    assert_eq!(step(&mut world, &[Op::Remove("var".into())], SnapshotMode::Full), ["- /var"]);
}

#[test]
fn foreign_paths_are_no_news() {
    let mut world =
        World::new(&[directory("etc/rc"), write("etc/rc/a", "1"), write("etc/rc/b", "2"), write("bin", "")]);
    world.index = RootIndex::new();
    survey(&world.root, &mut world.index, &Ignored::new()).expect("surveyed");
    let start = world.index.clone();
    assert!(world.index.get(&ImagePath::clean("etc/rc/a")).is_some_and(|it| it.standing == Standing::Foreign));
    assert_eq!(step(&mut world, &[], SnapshotMode::Full), [""; 0]);
    assert_eq!(step(&mut world, &[Op::Remove("etc/rc/a".into())], SnapshotMode::Full), ["P /etc", "A /etc/rc"]);
    // Another name touches the inode, and nobody had read the file before.
    let link = Op::Link("bin".into(), "tool".into());
    assert_eq!(step(&mut world, &[link], SnapshotMode::Full), ["A /bin", "L /tool -> /bin"]);
    assert_eq!(step(&mut world, &[write("etc/rc/b", "3")], SnapshotMode::Full), ["P /etc", "P /etc/rc", "A /etc/rc/b"]);
    assert_eq!(step(&mut world, &[Op::Remove("bin".into())], SnapshotMode::Full), ["- /bin"]);
    assert_eq!(step(&mut world, &[Op::Remove("etc".into())], SnapshotMode::Full), ["- /etc"]);
    assert_eq!(world.lines(&difference(&start, &world.index)), ["A /tool"], "what was foreign and is gone never was");
}

#[test]
fn survey_leaves_out_what_must_not_be_touched() {
    let world = World::new(&[directory("kaniko/x"), directory("var/run")]);
    let mut ignored = Ignored::new();
    ignored.add_untouchable(ImagePath::clean("/kaniko"));
    ignored.add_overlooked(ImagePath::clean("/var/run"));
    let mut index = RootIndex::new();
    survey(&world.root, &mut index, &ignored).expect("surveyed");
    let paths: Vec<String> = index.subtree(index.root()).map(|id| index.path(id).to_string()).collect();
    assert_eq!(paths, ["/", "/var", "/var/run"]);
}

#[test]
fn masked_paths_are_not_missed() {
    let mut world = World::new(&[directory("dev"), directory("etc")]);
    let device = Node {
        kind: Kind::CharDevice { major: 1, minor: 3 },
        mode: 0o666,
        uid: 0,
        gid: 0,
        mtime: Timestamp::EPOCH,
        xattrs: Vec::new(),
    };
    for path in ["dev/null", "etc/hosts"] {
        world.index.insert(&ImagePath::clean(path), &device, None, Standing::Masked);
    }
    assert_eq!(step(&mut world, &[Op::Touch("dev".into(), 9)], SnapshotMode::Full), ["M /dev"]);
    assert!(world.index.get(&ImagePath::clean("dev/null")).is_some());
    // What takes its place on disk takes its place in the image; a directory that goes takes it along.
    assert_eq!(step(&mut world, &[write("dev/null", "")], SnapshotMode::Full), ["M /dev", "M /dev/null"]);
    assert_eq!(step(&mut world, &[Op::Remove("etc".into())], SnapshotMode::Full), ["- /etc"]);
}

#[test]
fn the_root_itself() {
    let mut world = World::new(&[write("a", "")]);
    assert_eq!(step(&mut world, &[Op::Touch("/".into(), 5)], SnapshotMode::Full), [""; 0]);
    assert_eq!(step(&mut world, &[Op::Chmod("/".into(), 0o711)], SnapshotMode::Full), ["M /"]);
    assert_eq!(step(&mut world, &[], SnapshotMode::Full), [""; 0]);
}

#[test]
fn lossy_modes_compare_less_and_lose_nothing_for_later() {
    let patch = Op::Patch("f".into(), b'x');
    let chmod = Op::Chmod("f".into(), 0o600);
    for (mode, op, told) in [
        (SnapshotMode::Redo, &patch, false),
        (SnapshotMode::Redo, &chmod, true),
        (SnapshotMode::Time, &patch, false),
        (SnapshotMode::Time, &chmod, false),
    ] {
        let mut world = World::new(&[write("f", "text")]);
        let before = world.index.get(&ImagePath::clean("f")).expect("known").node;
        let changes = step(&mut world, std::slice::from_ref(op), mode);
        assert_eq!(changes.len(), usize::from(told), "{mode:?} {op:?}");
        if told {
            continue;
        }
        let after = world.index.get(&ImagePath::clean("f")).expect("known");
        let observed = list(&world.root)[&ImagePath::clean("f")].1;
        assert_eq!((after.node, after.observed), (before, Some(observed)), "{mode:?} {op:?}");
        assert_eq!(step(&mut world, &[], mode), [""; 0]);
        let full = world.take(believing(EVERYTHING), SnapshotMode::Full);
        assert_eq!(world.lines(&full.changeset), ["M /f"], "{mode:?} {op:?}");
    }
}

#[test]
fn an_entry_says_what_is_on_disk_even_where_the_mode_did_not_ask() {
    let mut world = World::new(&[write("f", "text"), Op::Link("f".into(), "g".into())]);
    let ops = [Op::Truncate("f".into(), 1), Op::Touch("f".into(), 7)];
    step(&mut world, &[Op::Touch("f".into(), 7)], SnapshotMode::Time);
    assert_eq!(step(&mut world, &ops, SnapshotMode::Time), [""; 0]);
    let mut tracker = WalkTracker::new();
    let watching = tracker.arm(&world.root, &world.index, &world.ignored);
    world.run(&Op::Link("f".into(), "h".into())).expect("linked");
    let collected = watching.collect(&world.index, &world.ignored);
    let snapshot = world.take(collected, SnapshotMode::Time);
    assert_eq!(world.lines(&snapshot.changeset), ["M /f", "L /g -> /f", "L /h -> /f"]);
    let size = |change: &Change| change.node().map(|node| node.kind.clone());
    assert!(
        snapshot
            .changeset
            .changes(&world.index)
            .all(|(_, it)| size(&it) == Some(Kind::File { size: 1, content: None }))
    );
}

/// Found by a generated program: what the mode did not ask about is in the entry that a name gets because it is alone now.
#[test]
fn a_file_that_left_its_group_is_as_it_is_on_disk() {
    let mut world = World::new(&[write("a", ""), Op::Link("a".into(), "c".into())]);
    assert_eq!(step(&mut world, &[Op::Patch("c".into(), b'x')], SnapshotMode::Time), [""; 0]);
    assert_eq!(step(&mut world, &[Op::ReplaceByLike("c".into())], SnapshotMode::Time), ["M /c"]);
    let told = world.index.get(&ImagePath::clean("c")).expect("known").node.kind;
    assert_eq!(told, Kind::File { size: 1, content: None });
}

#[test]
fn only_what_moved_is_read() {
    let base: Vec<Op> = (0..40).map(|number| write(&format!("f{number}"), "text")).chain([directory("d")]).collect();
    let mut world = World::new(&base);
    let mut tracker = WalkTracker::new();
    let watching = tracker.arm(&world.root, &world.index, &world.ignored);
    if watching.collect(&world.index, &world.ignored).ctime.is_err() {
        eprintln!("skipped: ctime is not to be trusted where temporary files are");
        return;
    }
    world.run(&Op::Patch("f1".into(), b'x')).expect("patched");
    world.run(&write("f2", "longer")).expect("written");
    world.run(&Op::Chmod("f3".into(), 0o600)).expect("changed");
    let work = world.take(believing(EVERYTHING), SnapshotMode::Full).work;
    let mut wanted = Work { entries_looked_at: 42, directories_walked: 2, ..Work::default() };
    wanted += Work { metadata_read: 4, files_hashed: 3, bytes_hashed: 14, ..Work::default() };
    // The fourth is `/`, whose ctime the base's index saw before or after the experiment's file.
    assert_eq!(Work { metadata_read: 4, ..work }, wanted);
    assert!((3..=4).contains(&work.metadata_read));
    let listed = Candidates::Listed { paths: [ImagePath::clean("f1")].into(), subtrees: Default::default() };
    let work = world.take(believing(listed), SnapshotMode::Full).work;
    assert_eq!(work, Work { entries_looked_at: 1, ..Work::default() });
}

/// Where ctime is proven to be useless, the walk hashes, and finds what the store through a mapping did.
#[test]
fn tmpfs_is_hashed() {
    let Ok(place) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: no /dev/shm to write to");
        return;
    };
    let mut world = World::new(&[]);
    world.root = crate::rootfs::Root::open(place.path()).expect("opened");
    world.place = place;
    fs::write(world.path("f"), "text").expect("written");
    fs::write(world.path("g"), "text").expect("written");
    world.learn();
    let mut tracker = WalkTracker::new();
    let watching = tracker.arm(&world.root, &world.index, &world.ignored);
    let file = fs::File::options().read(true).write(true).open(world.path("f")).expect("opened");
    let byte = crate::sys::mapping::MappedByte::new(std::os::fd::AsFd::as_fd(&file)).expect("mapped");
    byte.store(byte.load().wrapping_add(1));
    let collected = watching.collect(&world.index, &world.ignored);
    assert_eq!(collected, Collected { ctime: Err(Distrust::StoreUnseen), ..believing(EVERYTHING) });
    let snapshot = world.take(collected, SnapshotMode::Full);
    assert_eq!(world.lines(&snapshot.changeset), ["M /f"]);
    assert_eq!(snapshot.work.files_hashed, 2);
}

/// A file that a lossy mode recorded was never read: touched, it counts as changed.
#[test]
fn unread_content_counts_as_changed_once_touched() {
    let mut world = World::new(&[]);
    assert_eq!(step(&mut world, &[write("f", "text")], SnapshotMode::Redo), ["A /f"]);
    assert_eq!(step(&mut world, &[], SnapshotMode::Full), [""; 0]);
    let there_and_back = [Op::Chmod("f".into(), 0o600), Op::Chmod("f".into(), 0o644)];
    assert_eq!(step(&mut world, &there_and_back, SnapshotMode::Full), ["M /f"]);
    assert_eq!(step(&mut world, &there_and_back, SnapshotMode::Full), [""; 0]);
}

#[test]
fn what_is_walked_is_read_once() {
    let [above, file] = ["/d", "/d/f"].map(ImagePath::clean);
    let (paths, subtrees) = (BTreeSet::from([file]), BTreeSet::from([above]));
    let listed = Candidates::Listed { paths: paths.clone(), subtrees: subtrees.clone() };
    let swept = Candidates::Swept { paths, subtrees, because: Unaccounted::NewDirectory };
    for candidates in [listed, swept] {
        let mut world = World::new(&[directory("d"), write("d/f", "text")]);
        world.run(&write("d/f", "other")).expect("written");
        let snapshot = world.take(believing(candidates), SnapshotMode::Full);
        let told = (world.lines(&snapshot.changeset), snapshot.work.files_hashed);
        assert_eq!(told, (vec!["P /d".into(), "M /d/f".into()], 1));
    }
}
