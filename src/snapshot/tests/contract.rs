//! One suite for all trackers: each kind of change alone, with the entries it must make.

#![expect(clippy::print_stderr, reason = "what is skipped is said, and a failing row is named")]

use rustix::fs::FileType;

use super::calls;
use super::watching::is_allowed;
use super::world::{Op, Scripted, World, directory, link, remove, rename, write};
use crate::snapshot::fanotify::Fanotify;
use crate::snapshot::file_system::FileSystem;
use crate::snapshot::{FanotifyTracker, FileSystemTracker, InotifyTracker, Tracker, WalkTracker};
use crate::tree::ImagePath;

fn touch(path: &str, seconds: i64) -> Op {
    Op::Touch(path.into(), seconds)
}

/// The root that every row begins with.
fn base() -> Vec<Op> {
    let mut base = vec![
        directory("d/sub"),
        directory("e/sub"),
        write("f", "text"),
        write("d/f", "text"),
        write("d/sub/x", "one"),
        write("e/sub/y", "two"),
        write("twin1", "twins"),
        link("twin1", "d/twin2"),
        Op::Symlink("link".into(), "f".into()),
        Op::Special("fifo".into(), FileType::Fifo),
    ];
    base.extend(["f", "d/f", "d/sub/x", "e/sub/y", "twin1", "link", "fifo"].map(|path| touch(path, 1000)));
    base.extend(["d/sub", "d", "e/sub", "e"].map(|path| touch(path, 2000)));
    base
}

/// What happens, and what the layer says.
type Row = (&'static str, Vec<Op>, &'static [&'static str]);

fn file_rows() -> Vec<Row> {
    vec![
        ("nothing", vec![], &[]),
        ("other bytes", vec![write("d/f", "other")], &["P /d", "M /d/f"]),
        ("the same bytes, new mtime", vec![write("f", "text")], &["M /f"]),
        ("the same bytes and mtime", vec![write("f", "text"), touch("f", 1000)], &[]),
        ("other bytes, same size and times", vec![Op::Patch("f".into(), b'T')], &["M /f"]),
        ("the same first byte, same times", vec![Op::Patch("f".into(), b't')], &[]),
        ("truncate", vec![Op::Truncate("f".into(), 1), touch("f", 1000)], &["M /f"]),
        ("store", vec![Op::Store("f".into(), b'x'), touch("f", 1000)], &["M /f"]),
        ("chmod", vec![Op::Chmod("f".into(), 0o4711)], &["M /f"]),
        ("chmod there and back", vec![Op::Chmod("f".into(), 0o600), Op::Chmod("f".into(), 0o644)], &[]),
        ("touch", vec![touch("d/f", 5)], &["P /d", "M /d/f"]),
        ("xattr", vec![Op::SetXattr("f".into(), "v".into())], &["M /f"]),
        ("xattr there and back", vec![Op::SetXattr("f".into(), "v".into()), Op::RemoveXattr("f".into())], &[]),
        ("new file", vec![write("d/new", "n")], &["M /d", "A /d/new"]),
        ("new file, mtime of the parent set back", vec![write("d/new", "n"), touch("d", 2000)], &["P /d", "A /d/new"]),
        ("made and removed", vec![write("t", "t"), remove("t")], &[]),
        ("made and removed in a directory", vec![write("d/t", "t"), remove("d/t")], &["M /d"]),
        ("remove", vec![remove("d/f")], &["M /d", "- /d/f"]),
        ("remove and make again", vec![remove("f"), write("f", "text")], &["M /f"]),
        ("replaced by its like", vec![Op::ReplaceByLike("f".into())], &[]),
        ("rename", vec![rename("f", "g")], &["- /f", "A /g"]),
        ("rename over", vec![rename("d/sub/x", "f")], &["P /d", "M /d/sub", "- /d/sub/x", "M /f"]),
        ("rename there and back", vec![rename("f", "g"), rename("g", "f")], &[]),
        ("exchange", vec![Op::Exchange("f".into(), "d/sub/x".into())], &["P /d", "M /d/sub", "M /d/sub/x", "M /f"]),
        ("symlink", vec![Op::Symlink("d/l".into(), "f".into())], &["M /d", "A /d/l"]),
        ("symlink, other target", vec![remove("link"), Op::Symlink("link".into(), "d".into())], &["M /link"]),
        (
            "symlink, other target and same mtime",
            vec![remove("link"), Op::Symlink("link".into(), "e".into()), touch("link", 1000)],
            &["M /link"],
        ),
        ("fifo", vec![Op::Special("p".into(), FileType::Fifo)], &["A /p"]),
        ("fifo becomes file", vec![remove("fifo"), write("fifo", "")], &["M /fifo"]),
        ("socket", vec![Op::Special("s".into(), FileType::Socket)], &[]),
        ("file becomes socket", vec![remove("f"), Op::Special("f".into(), FileType::Socket)], &["- /f"]),
    ]
}

/// Does an exchange write into the directories that are exchanged, as xfs does to say that they have another parent?
fn exchange_is_a_write() -> bool {
    let world = World::new(&base());
    world.run(&Op::Exchange("d/sub".into(), "e/sub".into())).expect("exchanged");
    let now = world.root.stat(&ImagePath::clean("d/sub")).expect("looked").expect("there");
    now.mtime.seconds != 2000
}

fn directory_rows() -> Vec<Row> {
    let exchange: (&[_], &[_]) = match exchange_is_a_write() {
        false => (
            &["M /d", "P /d/sub", "- /d/sub/x", "A /d/sub/y", "M /e", "P /e/sub", "A /e/sub/x", "- /e/sub/y"],
            &["P /d", "P /d/sub", "- /d/sub/x", "A /d/sub/y", "P /e", "P /e/sub", "A /e/sub/x", "- /e/sub/y"],
        ),
        true => (
            &["M /d", "M /d/sub", "- /d/sub/x", "A /d/sub/y", "M /e", "M /e/sub", "A /e/sub/x", "- /e/sub/y"],
            &["P /d", "M /d/sub", "- /d/sub/x", "A /d/sub/y", "P /e", "M /e/sub", "A /e/sub/x", "- /e/sub/y"],
        ),
    };
    vec![
        ("new directory", vec![directory("n/m"), write("n/m/x", "")], &["A /n", "A /n/m", "A /n/m/x"]),
        ("chmod of a directory", vec![Op::Chmod("d/sub".into(), 0o700)], &["P /d", "M /d/sub"]),
        ("touch of a directory", vec![touch("d/sub", 3)], &["P /d", "M /d/sub"]),
        ("remove a directory", vec![remove("d/sub")], &["M /d", "- /d/sub"]),
        ("remove with what is below", vec![remove("d/sub/x"), remove("d")], &["- /d"]),
        ("file becomes directory", vec![remove("f"), directory("f"), write("f/x", "")], &["M /f", "A /f/x"]),
        ("directory becomes file", vec![remove("e"), write("e", "")], &["M /e"]),
        (
            "directory becomes symlink",
            vec![rename("e", "real"), Op::Symlink("e".into(), "real".into())],
            &["M /e", "A /real", "A /real/sub", "A /real/sub/y"],
        ),
        (
            "directory made again like it was",
            vec![
                remove("e"),
                directory("e/sub"),
                write("e/sub/y", "two"),
                touch("e/sub/y", 1000),
                touch("e/sub", 2000),
                touch("e", 2000),
            ],
            &[],
        ),
        (
            "directory made again with less",
            vec![remove("d/sub"), directory("d/sub"), touch("d/sub", 2000), touch("d", 2000)],
            &["P /d", "P /d/sub", "- /d/sub/x"],
        ),
        // Found by a generated program: most file systems give the new directory the number of the one that is gone.
        (
            "directories made again, with less beside them",
            vec![remove("d"), directory("d/sub")],
            &["M /d", "- /d/f", "M /d/sub", "- /d/sub/x", "- /d/twin2"],
        ),
        ("rename of a directory", vec![rename("e", "n")], &["- /e", "A /n", "A /n/sub", "A /n/sub/y"]),
        // Found by a generated program: the inode that the index has at `f` is another path's now.
        (
            "a file and a directory exchanged",
            vec![Op::Exchange("f".into(), "e".into())],
            &["M /e", "M /f", "A /f/sub", "A /f/sub/y"],
        ),
        ("two directories exchanged", vec![Op::Exchange("d/sub".into(), "e/sub".into())], exchange.0),
        (
            "two directories exchanged, their parents' times set back",
            vec![Op::Exchange("d/sub".into(), "e/sub".into()), touch("d", 2000), touch("e", 2000)],
            exchange.1,
        ),
    ]
}

fn link_rows() -> Vec<Row> {
    vec![
        ("write to a group", vec![write("twin1", "other")], &["P /d", "M /d/twin2", "L /twin1 -> /d/twin2"]),
        ("write through the other name", vec![write("d/twin2", "x")], &["P /d", "M /d/twin2", "L /twin1 -> /d/twin2"]),
        ("another name", vec![link("twin1", "a")], &["A /a", "P /d", "L /d/twin2 -> /a", "L /twin1 -> /a"]),
        ("first link", vec![link("f", "z")], &["M /f", "L /z -> /f"]),
        ("a name less", vec![remove("twin1")], &["- /twin1"]),
        ("a name less, the first one", vec![remove("d/twin2")], &["M /d", "- /d/twin2"]),
        ("a name made and removed", vec![link("f", "t"), remove("t")], &[]),
        ("written through a name that is gone", vec![link("f", "t"), write("t", "hidden"), remove("t")], &["M /f"]),
        (
            "written through a name in a directory that is gone",
            vec![directory("t"), link("f", "t/g"), write("t/g", "hidden"), remove("t")],
            &["M /f"],
        ),
        (
            "written through a name deep in directories that are gone",
            vec![directory("t/u"), rename("t", "d/t"), directory("d/t/u/v"), link("f", "d/t/u/v/g")]
                .into_iter()
                .chain([write("d/t/u/v/g", "hidden"), remove("d/t"), touch("d", 2000)])
                .collect(),
            &["M /f"],
        ),
        (
            "written through a name that moved into a new directory, and was replaced there",
            vec![link("f", "g"), directory("d/t"), rename("g", "d/t/g"), write("d/t/g", "hidden")]
                .into_iter()
                .chain([write("d/t/h", ""), rename("d/t/h", "d/t/g"), remove("d/t"), touch("d", 2000)])
                .collect(),
            &["M /f"],
        ),
        (
            "written through a name in a directory of the image that is gone",
            vec![link("f", "e/sub/g"), write("e/sub/g", "hidden"), remove("e")],
            &["- /e", "M /f"],
        ),
        ("the group split", vec![Op::ReplaceByLike("twin1".into())], &["M /twin1"]),
        // The inode of the first name is new, but a layer knows no inodes: that name is what is left.
        ("the group split the other way", vec![Op::ReplaceByLike("d/twin2".into()), touch("d", 2000)], &["M /twin1"]),
        ("two files become one", vec![remove("f"), link("d/f", "f")], &["P /d", "M /d/f", "L /f -> /d/f"]),
        (
            "a group with a new name and a lost one",
            vec![rename("twin1", "twin3")],
            &["P /d", "M /d/twin2", "- /twin1", "L /twin3 -> /d/twin2"],
        ),
        ("linked symlinks", vec![link("link", "link2")], &["M /link", "L /link2 -> /link"]),
    ]
}

/// Changes by way of an open file, and by system calls that are less usual.
fn open_file_rows() -> Vec<Row> {
    let hold = |path: &str| Op::Hold(path.into());
    let call = |path: &str, call| Op::Call(path.into(), call);
    vec![
        ("opened and closed", vec![hold("f")], &[]),
        ("renamed while open", vec![hold("f"), rename("f", "g"), Op::WriteHeld(b'x')], &["- /f", "A /g"]),
        (
            "in a directory that is renamed",
            vec![hold("d/sub/x"), rename("d/sub", "e/sub2"), Op::WriteHeld(b'x')],
            &["M /d", "- /d/sub", "M /e", "A /e/sub2", "A /e/sub2/x"],
        ),
        (
            "another name removed while open",
            vec![hold("twin1"), remove("twin1"), Op::WriteHeld(b'x')],
            &["P /d", "M /d/twin2", "- /twin1"],
        ),
        (
            "written through a name that is gone, at last",
            vec![link("f", "t"), hold("t"), remove("t"), Op::WriteHeld(b'x')],
            &["M /f"],
        ),
        ("removed while open", vec![hold("f"), remove("f"), Op::WriteHeld(b'x'), Op::ChmodHeld(0o600)], &["- /f"]),
        ("chmod by descriptor", vec![hold("f"), Op::ChmodHeld(0o600)], &["M /f"]),
        ("linked by descriptor", vec![hold("f"), Op::LinkHeld("z".into())], &["M /f", "L /z -> /f"]),
        ("a file that had no name", vec![Op::Nameless("z".into(), b"z".into())], &["A /z"]),
        ("mtime alone", vec![call("f", calls::mtime_alone)], &["M /f"]),
        ("atime alone", vec![call("f", calls::atime_alone)], &[]),
        ("fallocate", vec![call("f", calls::grow)], &["M /f"]),
        ("a hole", vec![call("f", calls::punch)], &["M /f"]),
        ("copy_file_range", vec![call("f", calls::copy_range)], &["M /f"]),
        ("sendfile", vec![call("f", calls::send)], &["M /f"]),
        ("splice", vec![call("f", calls::splice)], &["M /f"]),
        ("append", vec![call("f", calls::append)], &["M /f"]),
        ("a store after the file was closed", vec![call("f", calls::late_store)], &["M /f"]),
        ("by another process", vec![call("d/f", calls::by_a_shell)], &["P /d", "M /d/f"]),
        ("from below", vec![call("d/sub/x", calls::from_below)], &["P /d", "P /d/sub", "M /d/sub/x"]),
        ("xattr of a directory", vec![Op::SetXattr("d/sub".into(), "v".into())], &["P /d", "M /d/sub"]),
    ]
}

/// Rows that need root.
fn owner_rows() -> Vec<Row> {
    vec![
        ("chown", vec![Op::Chown("f".into(), 7)], &["M /f"]),
        ("chown of a symlink", vec![Op::Chown("link".into(), 7)], &["M /link"]),
        ("chown through a symlink", vec![Op::ChownThrough("link".into(), 7)], &["M /f"]),
        ("chown of a group", vec![Op::Chown("twin1".into(), 7)], &["P /d", "M /d/twin2", "L /twin1 -> /d/twin2"]),
    ]
}

/// Runs every row against the tracker that `make` makes for its root.
fn contract<T: Tracker>(make: impl Fn(&World) -> T) {
    let mut rows = file_rows();
    rows.extend(directory_rows());
    rows.extend(link_rows());
    rows.extend(open_file_rows());
    if rustix::process::geteuid().is_root() {
        rows.extend(owner_rows());
        let device = |path: &str| Op::Special(path.into(), FileType::CharacterDevice);
        if World::new(&[]).run(&device("probe")).is_ok() {
            rows.push(("device", vec![device("null")], &["A /null"]));
        } else {
            eprintln!("skipped: the row of devices, mknod is refused");
        }
    } else {
        eprintln!("skipped: the rows of owners and devices, which need root");
    }
    for (what, ops, wanted) in rows {
        eprintln!("row: {what}");
        let mut world = World::new(&base());
        let mut tracker = make(&world);
        let watching = tracker.arm(&world.root, &world.index, &world.ignored);
        ops.iter().for_each(|op| world.run(op).unwrap_or_else(|error| panic!("{what}: {op:?}: {error}")));
        let snapshot = world.snapshot(watching);
        assert_eq!(world.lines(&snapshot.changeset), wanted, "{what}");
        let watching = tracker.arm(&world.root, &world.index, &world.ignored);
        let again = world.snapshot(watching);
        assert_eq!(world.lines(&again.changeset), [""; 0], "{what}: a second snapshot of the same root");
    }
}

#[test]
fn the_walk() {
    contract(|_| WalkTracker::new());
}

#[test]
fn inotify() {
    contract(|_| InotifyTracker::new());
}

#[test]
fn fanotify() {
    if is_allowed::<Fanotify>() {
        contract(|_| FanotifyTracker::new());
    }
}

#[test]
fn file_system() {
    if is_allowed::<FileSystem>() {
        contract(|_| FileSystemTracker::new());
    }
}

#[test]
fn a_tracker_that_lists() {
    contract(Scripted::of);
}
