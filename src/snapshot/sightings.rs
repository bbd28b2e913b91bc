//! [`Sightings`]: what was found at paths that changed, packed.
//!
//! A RUN may make half a million files, and what was found of each is held until all are looked at, since the names of
//! one file can be anywhere. Packed that takes some 85 bytes for each, less than half of what it takes as structs.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::tree::{ImagePath, Node, Observed};

/// What is at a path now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) node: Node,
    pub(super) observed: Observed,
}

/// Where a piece ends: it is large enough that the system gets its memory back. Few records are longer than the rest, so
/// that it seldom grows to twice that.
const PIECE_BYTES: usize = 128 * 1024;
const REST_BYTES: usize = 1024;

/// Paths and what is there; [`Sightings::sort`] brings them in order.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    pieces: Vec<Piece>,
    places: Vec<Place>,
}

/// Records one after another. Before the first of a directory is that directory's path, to which all of them lead back
/// by their distance, so that pieces can be joined.
#[derive(Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    /// Where the directory of the last record is.
    directory: Option<usize>,
}

/// Where a record is.
#[derive(Debug, Clone, Copy)]
struct Place {
    piece: u32,
    offset: u32,
}

/// How far before a record its directory is, the name in that, whether it is a directory and what was observed, with which
/// all that is wanted most often comes first; and the node.
type Record<'a, N> = (usize, &'a [u8], bool, Observed, N);

impl Sightings {
    /// Notes what is at `path`.
    pub(super) fn push(&mut self, path: &ImagePath, sighting: &Sighting) {
        if self.pieces.last().is_none_or(|piece| piece.bytes.len() + REST_BYTES > PIECE_BYTES) {
            self.pieces.push(Piece::default());
        }
        let piece = self.pieces.len() - 1;
        let offset = self.pieces[piece].push(path, sighting);
        self.places.push(Place { piece: number(piece), offset: number(offset) });
    }

    /// Takes all of `other`.
    pub(super) fn append(&mut self, other: Sightings) {
        let joins = match (self.pieces.last(), &*other.pieces) {
            (Some(last), [only]) => last.bytes.len() + only.bytes.len() <= PIECE_BYTES,
            _ => false,
        };
        let first = self.pieces.len() - usize::from(joins);
        let mut start = 0;
        for piece in other.pieces {
            match self.pieces.last_mut() {
                Some(last) if joins => start = last.append(&piece),
                _ => self.pieces.push(piece),
            }
        }
        let moved = |Place { piece, offset }| Place { piece: piece + number(first), offset: offset + number(start) };
        self.places.extend(other.places.into_iter().map(moved));
    }

    /// Brings the paths in order, each once.
    pub(super) fn sort(&mut self) {
        let mut places = std::mem::take(&mut self.places);
        // most of them come in long runs that are in order
        places.sort_by(|one, other| self.compare(*one, *other));
        places.dedup_by(|one, other| self.compare(*one, *other) == Ordering::Equal);
        self.places = places;
    }

    fn compare(&self, one: Place, other: Place) -> Ordering {
        let ((one, one_name), (other, other_name)) = (self.split_path(one), self.split_path(other));
        if one == other { one_name.cmp(other_name) } else { whole(one, one_name).cmp(whole(other, other_name)) }
    }

    /// What is at `path`, if these are sorted.
    pub(super) fn get(&self, path: &ImagePath) -> Option<Sighting> {
        let place = self.places.binary_search_by(|place| {
            let (directory, name) = self.split_path(*place);
            whole(directory, name).cmp(path.as_bytes())
        });
        Some(self.sighting(self.places[place.ok()?]))
    }

    /// All of them, in order if they are sorted.
    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = (ImagePath, Sighting)> {
        self.places.iter().map(|&place| self.found(place))
    }

    /// All of them, in order if they are sorted, while their memory is given back.
    pub(super) fn into_iter(mut self) -> impl Iterator<Item = (ImagePath, Sighting)> {
        let mut left = vec![0_u32; self.pieces.len()];
        self.places.iter().for_each(|place| left[place.piece as usize] += 1);
        std::mem::take(&mut self.places).into_iter().map(move |place| {
            let found = self.found(place);
            left[place.piece as usize] -= 1;
            if left[place.piece as usize] == 0 {
                self.pieces[place.piece as usize] = Piece::default();
            }
            found
        })
    }

    fn found(&self, place: Place) -> (ImagePath, Sighting) {
        (self.path(place), self.sighting(place))
    }

    /// What was observed of all that is no directory.
    pub(super) fn observed_files(&self) -> impl Iterator<Item = Observed> {
        self.files().map(|(_, observed)| observed)
    }

    /// The same with the paths.
    pub(super) fn paths_of_files(&self) -> impl Iterator<Item = (ImagePath, Observed)> {
        self.files().map(|(place, observed)| (self.path(place), observed))
    }

    /// All paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = ImagePath> {
        self.places.iter().map(|&place| self.path(place))
    }

    fn files(&self) -> impl Iterator<Item = (Place, Observed)> {
        self.places.iter().filter_map(|&place| {
            let (_, _, is_directory, observed, ()) = self.record(place);
            (!is_directory).then_some((place, observed))
        })
    }

    fn path(&self, place: Place) -> ImagePath {
        let (directory, name) = self.split_path(place);
        ImagePath::from_parent(directory, name)
    }

    fn sighting(&self, place: Place) -> Sighting {
        let (_, _, _, observed, node) = self.record(place);
        Sighting { node, observed }
    }

    /// Without the node, if `N` is nothing.
    fn record<'a, N: Deserialize<'a>>(&'a self, place: Place) -> Record<'a, N> {
        postcard::from_bytes(&self.pieces[place.piece as usize].bytes[place.offset as usize..]).expect("it was packed")
    }

    /// The directory of a path, which is empty for what is in `/`, and the name in it, which is empty for `/` itself.
    fn split_path(&self, place: Place) -> (&[u8], &[u8]) {
        let bytes = &self.pieces[place.piece as usize].bytes;
        let record = &bytes[place.offset as usize..];
        let (before, name): (usize, &[u8]) = postcard::from_bytes(record).expect("it was packed");
        let directory = postcard::from_bytes(&bytes[place.offset as usize - before..]).expect("it was packed");
        (directory, name)
    }
}

impl Piece {
    /// Adds a record; where it is.
    fn push(&mut self, path: &ImagePath, sighting: &Sighting) -> usize {
        let (parent, name) = path.split_name();
        let directory = self.directory.filter(|&at| postcard::from_bytes(&self.bytes[at..]) == Ok(parent));
        let directory = directory.unwrap_or_else(|| self.pack(parent));
        self.directory = Some(directory);
        let Sighting { node, observed } = sighting;
        self.pack((self.bytes.len() - directory, name, node.is_directory(), observed, node))
    }

    fn pack(&mut self, value: impl Serialize) -> usize {
        let start = self.bytes.len();
        postcard::to_io(&value, &mut self.bytes).expect("memory takes all that is written");
        start
    }

    /// Adds what another piece holds; where that begins.
    fn append(&mut self, other: &Piece) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.directory = other.directory.map(|at| start + at).or(self.directory);
        start
    }
}

fn whole<'a>(directory: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a u8> {
    directory.iter().chain(b"/").chain(name)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("there are fewer files than that")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{ContentHash, Kind, Timestamp};

    fn seen(inode: u64) -> Sighting {
        let kind = Kind::File { size: inode * 1000, content: Some(ContentHash(u128::MAX - u128::from(inode))) };
        let xattrs = vec![(Box::from(*b"user.x"), vec![7; inode as usize % 50].into())];
        let time = Timestamp { seconds: 1_800_000_000, nanoseconds: 999_999_999 };
        Sighting {
            node: Node { kind, mode: 0o644, uid: 0, gid: 100_000, mtime: time, xattrs },
            observed: Observed { device: 65_024, inode, ctime: time, links: 1 },
        }
    }

    #[test]
    fn what_was_packed_comes_back_in_order() {
        let paths: Vec<ImagePath> = ["/", "/a", "/a/b", "/a/b/c", "/a-b", "/a/b.", "/a0"]
            .iter()
            .map(ImagePath::clean)
            .chain((0..5000).map(|number| ImagePath::clean(format!("/d{}/s/file {number}", number % 7))))
            .collect();
        let mut all = Sightings::default();
        for (turn, paths) in paths.chunks(300).rev().enumerate() {
            let mut some = Sightings::default();
            let first = paths.len() * turn;
            paths.iter().enumerate().for_each(|(number, path)| some.push(path, &seen((first + number) as u64)));
            all.append(some);
        }
        all.push(&paths[5], &seen(1));
        assert_eq!(all.pieces.iter().map(|piece| piece.bytes.capacity()).max(), Some(PIECE_BYTES), "none grew to more");
        all.sort();
        let mut wanted = paths.clone();
        wanted.sort();
        assert!(all.iter().map(|(path, _)| path).eq(wanted), "each path once");
        for (path, sighting) in all.iter() {
            assert_eq!(sighting, seen(sighting.observed.inode));
            assert_eq!(all.get(&path), Some(sighting));
        }
        assert_eq!(all.get(&ImagePath::clean("/a/b/c/d")), None);
        let found: Vec<(ImagePath, Sighting)> = all.iter().collect();
        assert!(all.paths_of_files().eq(found.iter().map(|(path, sighting)| (path.clone(), sighting.observed))));
        assert!(all.observed_files().eq(found.iter().map(|(_, sighting)| sighting.observed)));
        assert!(all.into_iter().eq(found));
    }

    #[test]
    fn they_take_little() {
        let mut all = Sightings::default();
        for number in 0..10_000_u64 {
            let Sighting { node, observed } = seen(5_000_000 + number);
            let path = ImagePath::clean(format!("/usr/lib/node_modules/package-{}/file{number}.js", number / 25));
            all.push(&path, &Sighting { node: Node { xattrs: Vec::new(), ..node }, observed });
        }
        let bytes = all.pieces.iter().map(|piece| piece.bytes.capacity()).sum::<usize>() + all.places.len() * 8;
        assert!(bytes / 10_000 <= 90, "{} bytes for each", bytes / 10_000);
    }
}
