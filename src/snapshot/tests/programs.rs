//! Generated programs: random operations on a random tree, judged by the slow ways of knowing what changed.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use rustix::fs::FileType;

use super::reference::list;
use super::watching::{Bounded, BoundedFileSystem, Untraced, is_allowed};
use super::world::{Op, Scripted, World, believing, judged, lines};
use crate::snapshot::chosen::Kind as TrackerKind;
use crate::snapshot::fanotify::Fanotify;
use crate::snapshot::file_system::FileSystem;
use crate::snapshot::marks::MarkTracker;
use crate::snapshot::{
    Candidates, ChangeTracker, ChosenTracker, FanotifyTracker, FileSystemTracker, InotifyTracker, LostTrack,
    SnapshotMode, Tracker, WalkTracker, Watching,
};
use crate::tree::Kind;

/// Programs in an ordinary run; `PROPTEST_CASES` asks for more.
const PROGRAMS: u32 = 300;

/// The same programs in every run, so that a failure can be had again.
fn runner() -> TestRunner {
    let mut config = Config { failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = PROGRAMS;
    }
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// Few names, so that operations meet: three at the top, two below each, two below these.
fn path() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(vec!["a", "b"]);
    let top = prop::sample::select(vec!["a", "b", "c"]);
    (top, prop::option::of((name(), prop::option::of(name())))).prop_map(|(top, below)| match below {
        None => top.to_owned(),
        Some((middle, None)) => format!("{top}/{middle}"),
        Some((middle, Some(last))) => format!("{top}/{middle}/{last}"),
    })
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = prop::collection::vec(0..3_u8, 0..4);
    let special = prop::sample::select(vec![FileType::Fifo, FileType::Socket]);
    prop_oneof![
        4 => (path(), bytes).prop_map(|(path, bytes)| Op::Write(path, bytes)),
        2 => (path(), 0..3_u8).prop_map(|(path, byte)| Op::Patch(path, byte)),
        1 => (path(), 0..3_u64).prop_map(|(path, length)| Op::Truncate(path, length)),
        2 => (path(), 0..3_u8).prop_map(|(path, byte)| Op::Store(path, byte)),
        2 => (path(), prop::sample::select(vec![0o644, 0o700])).prop_map(|(path, mode)| Op::Chmod(path, mode)),
        1 => (path(), 0..2_u32).prop_map(|(path, id)| Op::Chown(path, id)),
        1 => (path(), prop::sample::select(vec!["1", "2"])).prop_map(|(path, value)| Op::SetXattr(path, value.into())),
        1 => path().prop_map(Op::RemoveXattr),
        3 => (path(), 1..3_i64).prop_map(|(path, seconds)| Op::Touch(path, seconds)),
        4 => path().prop_map(Op::MakeDirectory),
        1 => (path(), path()).prop_map(|(path, target)| Op::Symlink(path, target)),
        1 => (path(), special).prop_map(|(path, kind)| Op::Special(path, kind)),
        4 => (path(), path()).prop_map(|(existing, path)| Op::Link(existing, path)),
        4 => (path(), path()).prop_map(|(from, to)| Op::Rename(from, to)),
        3 => (path(), path()).prop_map(|(one, other)| Op::Exchange(one, other)),
        3 => path().prop_map(Op::Remove),
        2 => path().prop_map(Op::ReplaceByLike),
        2 => path().prop_map(Op::Hold),
        3 => (0..3_u8).prop_map(Op::WriteHeld),
        1 => prop::sample::select(vec![0o644, 0o700]).prop_map(Op::ChmodHeld),
        1 => path().prop_map(Op::LinkHeld),
        1 => (path(), prop::collection::vec(0..3_u8, 0..4)).prop_map(|(path, bytes)| Op::Nameless(path, bytes)),
    ]
}

/// A base, and what three instructions do.
fn program() -> impl Strategy<Value = (Vec<Op>, Vec<Vec<Op>>)> {
    (prop::collection::vec(op(), 0..25), prop::collection::vec(prop::collection::vec(op(), 1..8), 1..4))
}

/// Runs each program's instructions under the tracker that `make` makes for its root; [`World::snapshot`] judges.
fn agree<T: Tracker>(make: impl Fn(&World) -> T) {
    let outcome = runner().run(&program(), |(base, instructions)| {
        let mut world = World::new(&base);
        let mut tracker = make(&world);
        for ops in instructions {
            let watching = tracker.arm(&world.root, &world.index, &world.ignored);
            ops.iter().for_each(|op| drop(world.run(op)));
            world.snapshot(watching);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn the_walk_agrees_with_the_judge() {
    agree(|_| WalkTracker::new());
}

#[test]
fn inotify_agrees_with_the_judge() {
    agree(|_| InotifyTracker::new());
}

/// As on a machine that has no time for us: all events are read at the end.
#[test]
fn a_late_inotify_agrees_with_the_judge() {
    agree(|_| InotifyTracker::new().with_pause(Duration::from_secs(3600)));
}

/// Some roots have fewer directories than may be watched, and some more.
#[test]
fn a_small_inotify_agrees_with_the_judge() {
    agree(|_| InotifyTracker::new().with_allowed(4).with_least_names(6));
}

#[test]
fn fanotify_agrees_with_the_judge() {
    if is_allowed::<Fanotify>() {
        agree(|_| FanotifyTracker::new());
    }
}

#[test]
fn a_late_fanotify_agrees_with_the_judge() {
    if is_allowed::<Bounded>() {
        agree(|_| MarkTracker::<Bounded>::new().with_pause(Duration::from_secs(3600)));
    }
}

#[test]
fn file_system_agrees_with_the_judge() {
    if is_allowed::<FileSystem>() {
        agree(|_| FileSystemTracker::new());
    }
}

#[test]
fn a_late_file_system_agrees_with_the_judge() {
    if is_allowed::<BoundedFileSystem>() {
        agree(|_| MarkTracker::<BoundedFileSystem>::new().with_pause(Duration::from_secs(3600)));
    }
}

/// What names alone tell is as much as a mark per directory tells.
#[test]
fn a_file_system_whose_handles_cannot_be_opened_agrees_with_the_judge() {
    if is_allowed::<FileSystem>() {
        agree(|_| MarkTracker::<Untraced>::new());
    }
}

/// What a build uses, as it is where the kernel refuses the better ways.
#[test]
fn what_is_left_agrees_with_the_judge() {
    for refused in [&[][..], &[TrackerKind::FileSystem], &[TrackerKind::FileSystem, TrackerKind::Fanotify]] {
        agree(|_| {
            refused.iter().fold(ChosenTracker::new(ChangeTracker::Auto, 1), |chosen, &kind| chosen.refusing(kind))
        });
    }
}

#[test]
fn a_perfect_list_agrees_with_the_judge() {
    agree(Scripted::of);
}

/// The judge has teeth: a tracker that forgets one name is found out.
#[test]
fn a_forgetful_list_is_found_out() {
    let outcome = runner().run(&program(), |(base, instructions)| {
        let mut world = World::new(&base);
        let ops = &instructions[0];
        let mut forgetful = Scripted { forgets: true, ..Scripted::of(&world) };
        let watching = forgetful.arm(&world.root, &world.index, &world.ignored);
        ops.iter().for_each(|op| drop(world.run(op)));
        let judged = judged(SnapshotMode::Full, &world.root, &world.index, &world.ignored);
        let collected = watching.collect(&world.index, &world.ignored);
        let snapshot = world.take(collected, SnapshotMode::Full);
        let agree = world.lines(&snapshot.changeset) == lines(&judged);
        if agree { Ok(()) } else { Err(TestCaseError::fail("the snapshot misses something")) }
    });
    assert!(outcome.is_err(), "no program needed the name that was forgotten");
}

/// Whatever lossy modes left behind, one comparison in mode `full` makes the index know the root again: by a walk, and
/// by what the index itself says has drifted.
#[test]
fn full_makes_up_for_lossy_modes() {
    let lossy = prop::sample::select(vec![SnapshotMode::Redo, SnapshotMode::Time]);
    let nothing = Candidates::Listed { paths: Default::default(), subtrees: Default::default() };
    let ends = prop::sample::select(vec![Candidates::Everything(LostTrack::NotWatched), nothing]);
    let outcome = runner().run(&(program(), lossy, ends), |((base, instructions), mode, end)| {
        let mut world = World::new(&base);
        for ops in instructions {
            let mut tracker = WalkTracker::new();
            let watching = tracker.arm(&world.root, &world.index, &world.ignored);
            ops.iter().for_each(|op| drop(world.run(op)));
            let judged = judged(mode, &world.root, &world.index, &world.ignored);
            let collected = watching.collect(&world.index, &world.ignored);
            let snapshot = world.take(collected, mode);
            assert_eq!(world.lines(&snapshot.changeset), lines(&judged), "{mode:?}");
            assert_eq!(snapshot.work.files_hashed, 0, "{mode:?} reads no content");
        }
        let now = list(&world.root);
        world.take(believing(end), SnapshotMode::Full);
        // What a lossy mode recorded was not read, and that may stay so as long as nobody touches it.
        for (path, (node, _)) in &now {
            let id = world.index.lookup(path).expect("known");
            if matches!(node.kind, Kind::File { .. }) && world.index.content(id).is_none() {
                let Kind::File { content, .. } = node.kind else { unreachable!("it is a file") };
                world.index.set_content(id, content);
            }
        }
        world.assert_known(&now);
        assert_eq!(world.index.drifted().count(), 0);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
