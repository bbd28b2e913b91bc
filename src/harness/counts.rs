//! How many instructions the hot paths take. Counted by valgrind, so that the figures are the same whatever else the
//! machine does, and each has a ceiling: who makes a path slower hears of it.

use std::hint::black_box;
use std::io::Write;
use std::process::Command;

use super::Error;
use super::command::{command_line, run as run_command};
use super::flags::Counts as Wanted;
use super::index::{filled, node, observed, place};
use crate::layer;
use crate::snapshot::SnapshotMode;
use crate::sys::{fanotify, inotify};
use crate::tree::{ImagePath, RootIndex, Timestamp};

/// Paths in the index that is asked.
const INDEXED: u32 = 20_000;

/// How often a path is gone through; the difference between this and twice as often leaves out what comes before.
const TIMES: u32 = 20_000;

/// Something that a build does for every event, path or entry.
struct HotPath {
    /// As typed.
    name: &'static str,
    about: &'static str,
    /// Instructions each time that are not to be exceeded in release mode: what was measured, and a fifth.
    most: u64,
    go: fn(&Prepared, u32),
}

const HOT_PATHS: [HotPath; 6] = [
    HotPath {
        name: "inotify",
        about: "a record of inotify, parsed",
        most: 180,
        go: |prepared, _| inotify::records(&prepared.inotify).for_each(seen),
    },
    HotPath {
        name: "fanotify",
        about: "a record of fanotify, parsed",
        most: 375,
        go: |prepared, _| fanotify::records(&prepared.fanotify).for_each(seen),
    },
    HotPath {
        name: "path",
        about: "a path of five names, found in the index",
        most: 2900,
        go: |prepared, number| seen(prepared.index.lookup(prepared.path(number))),
    },
    HotPath {
        name: "inode",
        about: "all names of an inode, found in the index",
        most: 600,
        go: |prepared, number| {
            let inode = observed(number % INDEXED);
            seen(prepared.index.names_of_inode(inode.device, inode.inode));
        },
    },
    HotPath {
        name: "verdict",
        about: "the verdict in mode full on a file that is the same",
        most: 145,
        go: |prepared, _| {
            let (old, new) = black_box(&prepared.nodes);
            seen(SnapshotMode::Full.verdict(old, new));
        },
    },
    HotPath {
        name: "header",
        about: "a tar header",
        most: 8200,
        go: |prepared, number| {
            let path = prepared.path(number);
            seen(layer::tar_header(path, &prepared.nodes.0, Timestamp::EPOCH));
        },
    },
];

/// Makes the compiler believe that somebody wants to know.
fn seen<T>(what: T) {
    drop(black_box(what));
}

/// What the hot paths work on.
struct Prepared {
    index: RootIndex,
    paths: Vec<ImagePath>,
    inotify: Vec<u8>,
    fanotify: Vec<u8>,
    nodes: (crate::tree::Node, crate::tree::Node),
}

impl Prepared {
    fn new() -> Prepared {
        Prepared {
            index: filled(INDEXED),
            paths: (0..INDEXED).map(place).collect(),
            inotify: inotify_record(),
            fanotify: fanotify_record(),
            nodes: (node(1), node(1)),
        }
    }

    fn path(&self, number: u32) -> &ImagePath {
        &self.paths[number as usize % self.paths.len()]
    }
}

/// A file that was created, as the kernel writes it: watch, mask, cookie, length of the name, the name padded with zeros.
fn inotify_record() -> Vec<u8> {
    let words = [1, inotify::ReadFlags::CREATE.bits(), 0, 32].map(u32::to_ne_bytes);
    [words.as_flattened(), b"render-table-13.d.ts", &[0; 12]].concat()
}

/// The same of fanotify: length, version, length of what follows here, mask, two numbers; then directory and name, and the
/// file, each after its type, its length and the file system's number; a handle of eight bytes after length and type.
fn fanotify_record() -> Vec<u8> {
    let piece = |kind: u8, name: &[u8]| {
        let length = (28 + name.len()) as u16;
        let handle = [8_u32.to_ne_bytes(), 1_u32.to_ne_bytes(), [7; 4], [9; 4]];
        [&[kind, 0], &length.to_ne_bytes()[..], &[5; 8], handle.as_flattened(), name].concat()
    };
    let pieces = [piece(2, b"render-table-13.d.ts\0\0\0\0"), piece(1, b"")].concat();
    let length = (24 + pieces.len()) as u32;
    let mask = fanotify::FAN_CREATE.to_ne_bytes();
    [&length.to_ne_bytes()[..], &[3, 0], &24_u16.to_ne_bytes(), &mask, &[0xff; 8], &pieces].concat()
}

/// Counts the instructions of each hot path, or, where one is named, goes through it.
pub(super) fn run(wanted: &Wanted, out: &mut impl Write) -> Result<(), Error> {
    if let Some(name) = &wanted.only {
        let prepared = Prepared::new();
        let path = HOT_PATHS.iter().find(|path| path.name == name).expect("the flag allows no other");
        (0..wanted.times).for_each(|number| (path.go)(&prepared, number));
        return Ok(());
    }
    let mut text = "| what | instructions | at most |\n|---|---|---|\n".to_owned();
    let mut slower = None;
    for path in &HOT_PATHS {
        let once = instructions(path.name, TIMES)?;
        let each = instructions(path.name, 2 * TIMES)?.saturating_sub(once) / u64::from(TIMES);
        text += &format!("| {} | {each} | {} |\n", path.about, path.most);
        if each > path.most && !cfg!(debug_assertions) {
            slower = Some(Error::Slower { what: path.about, instructions: each, most: path.most });
        }
    }
    out.write_all(text.as_bytes()).map_err(Error::Print)?;
    slower.map_or(Ok(()), Err)
}

/// The names of the hot paths.
pub(super) fn names() -> [&'static str; HOT_PATHS.len()] {
    HOT_PATHS.map(|path| path.name)
}

/// All instructions of a run of ourselves.
fn instructions(name: &str, times: u32) -> Result<u64, Error> {
    let this = std::env::current_exe().map_err(|source| Error::file("find", "/proc/self/exe".as_ref(), source))?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--log-fd=1"]).arg(this);
    command.args(["counts", "--only", name, "--times", &times.to_string()]);
    let told = run_command(&mut command)?;
    let counted = told.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    let missing = || Error::Command {
        command: command_line(&command),
        ending: "no count of instructions".to_owned(),
        output: told.clone(),
    };
    counted.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parsed_are_records() {
        let Prepared { inotify, fanotify, .. } = Prepared::new();
        let found: Vec<_> = inotify::records(&inotify).collect();
        assert!(matches!(&found[..], [Ok(record)] if record.name == Some(b"render-table-13.d.ts")), "{found:?}");
        let found: Vec<_> = fanotify::records(&fanotify).collect();
        let is_right = |record: &fanotify::Record<'_>| {
            record.mask == fanotify::FAN_CREATE
                && record.entry.is_some_and(|entry| entry.name == b"render-table-13.d.ts")
                && record.target == record.entry.map(|entry| entry.directory)
        };
        assert!(matches!(&found[..], [Ok(record)] if is_right(record)), "{found:?}");
    }

    #[test]
    fn what_is_looked_for_is_there() {
        let prepared = Prepared::new();
        assert!((0..INDEXED).all(|number| prepared.index.lookup(prepared.path(number)).is_some()));
        assert!(layer::tar_header(prepared.path(3), &prepared.nodes.0, Timestamp::EPOCH).is_some());
    }
}
