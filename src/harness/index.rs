//! How much memory the root index takes, and how fast it answers.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use super::Error;
use super::flags::Index;
use super::written::path;
use crate::tree::{ContentHash, ImagePath, Kind, Node, Observed, RootIndex, Standing, Timestamp};

/// Fills an index with the files of a large tree, checks that it has them, and prints what that took.
pub(super) fn run(wanted: &Index, out: &mut impl Write) -> Result<(), Error> {
    let before = resident_bytes();
    let started = Instant::now();
    let index = filled(wanted.files);
    let filling = started.elapsed();
    let resident = resident_bytes().zip(before).map(|(after, before)| after.saturating_sub(before));
    check(&index, wanted.files)?;
    let (by_path, by_inode) = (time_paths(&index, wanted.files), time_inodes(&index, wanted.files));
    let each = |bytes: usize| bytes as f64 / index.len() as f64;
    let nanoseconds = |time: Duration| time.as_nanos() as f64 / f64::from(wanted.files);
    let resident = resident.map_or_else(|| "not known".to_owned(), |bytes| format!("{:.1}", each(bytes)));
    let lines = format!(
        "{} paths, {} of them files\n\
         bytes a path, asked for: {:.1}\n\
         bytes a path, resident: {resident}\n\
         ns a path to insert: {:.0}\n\
         ns a path to find: {:.0}\n\
         ns an inode to find its names: {:.0}\n",
        index.len(),
        wanted.files,
        each(index.heap_bytes()),
        nanoseconds(filling),
        nanoseconds(by_path),
        nanoseconds(by_inode),
    );
    out.write_all(lines.as_bytes()).map_err(Error::Print)
}

/// An index of so many files.
pub(super) fn filled(files: u32) -> RootIndex {
    let mut index = RootIndex::new();
    for number in 0..files {
        index.insert(&place(number), &node(number), Some(observed(number)), Standing::Image);
    }
    index
}

pub(super) fn place(number: u32) -> ImagePath {
    ImagePath::clean(format!("/app/node_modules/{}", path(number)))
}

pub(super) fn node(number: u32) -> Node {
    // a symlink among fifty
    let kind = match number % 50 {
        7 => Kind::Symlink { target: Box::from(*b"../lib/index-0.js") },
        _ => Kind::File { size: number.into(), content: Some(ContentHash(number.into())) },
    };
    Node { kind, mode: 0o644, uid: 1000, gid: 1000, mtime: Timestamp::from_seconds(number.into()), xattrs: Vec::new() }
}

/// One file in a hundred has a second name.
pub(super) fn observed(number: u32) -> Observed {
    let inode = if number % 100 == 9 { number - 1 } else { number };
    Observed { device: 1, inode: inode.into(), ctime: Timestamp::from_seconds(number.into()), links: 1 }
}

fn check(index: &RootIndex, files: u32) -> Result<(), Error> {
    let has = |number: u32| {
        let id = index.lookup(&place(number))?;
        let knows = index.node(id) == node(number) && index.observed(id) == Some(observed(number));
        let seen = observed(number);
        (knows && index.names_of_inode(seen.device, seen.inode).contains(&id)).then_some(id)
    };
    match (0..files).find(|&number| has(number).is_none()) {
        Some(number) => Err(Error::Forgotten { path: place(number).to_string() }),
        None => Ok(()),
    }
}

fn time_paths(index: &RootIndex, files: u32) -> Duration {
    let paths: Vec<ImagePath> = (0..files).map(place).collect();
    let started = Instant::now();
    let found = paths.iter().filter(|path| index.lookup(path).is_some()).count();
    std::hint::black_box(found);
    started.elapsed()
}

fn time_inodes(index: &RootIndex, files: u32) -> Duration {
    let started = Instant::now();
    let found = (0..files).filter(|&number| !index.names_of_inode(1, number.into()).is_empty()).count();
    std::hint::black_box(found);
    started.elapsed()
}

/// Memory of this process that is not backed by files; `None` where /proc does not tell.
fn resident_bytes() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? * 1024)
}
