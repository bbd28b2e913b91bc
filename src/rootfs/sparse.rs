//! Files with holes: what was never written is not read, and long runs of zeros are not written.
//!
//! A hole reads as zeros, so that only the disk knows the difference: hashes, layers and images are the same with and
//! without. The kernel is believed where holes are, but not of ZFS, which for years reported as holes what it had not yet
//! written (OpenZFS 15526).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::sys::Errno;
use crate::sys::fs::{self, SeekFrom as Place};

/// Zeros that become a hole, where a new file has as many at a stretch: a block of the largest usual size. Shorter holes
/// save little, and each costs the file system an extent.
pub const HOLE_BYTES: usize = 64 * 1024;

/// Smaller files are read as they are, without a question to the kernel.
const LEAST_BYTES: u64 = 2 * HOLE_BYTES as u64;

/// What `statfs` says of ZFS.
const ZFS: fs::FsWord = 0x2fc1_2fc1;

static ZEROS: [u8; HOLE_BYTES] = [0; HOLE_BYTES];

/// Zeros, as many as wanted, in slices of one buffer.
pub fn zeros(mut bytes: u64) -> impl Iterator<Item = &'static [u8]> {
    std::iter::from_fn(move || {
        let next = bytes.min(HOLE_BYTES as u64);
        bytes -= next;
        (next > 0).then(|| &ZEROS[..next as usize])
    })
}

/// Are they all zero?
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(HOLE_BYTES).all(|part| *part == ZEROS[..part.len()])
}

/// Reads until `buffer` is full, so that runs of zeros are seen, or `from` ends. Gives the number of bytes.
pub fn fill(from: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes can be read from the file, which stands at the first of them; fewer, if the file ends before.
    Data(u64),
    /// So many zeros follow that need not be read.
    Hole(u64),
}

/// The pieces of a file, in order, until its end. Where nobody can tell them apart, all is one piece of data.
pub struct Pieces<'a> {
    file: &'a File,
    /// Where the next piece begins; `None` behind the last.
    position: Option<u64>,
    asks: bool,
}

impl Pieces<'_> {
    /// Of a file that stands at its beginning and most likely holds `expected_bytes`.
    pub fn of(file: &File, expected_bytes: u64) -> Pieces<'_> {
        let is_zfs = || fs::fstatfs(file).is_ok_and(|found| found.f_type == ZFS);
        Pieces { file, position: Some(0), asks: expected_bytes >= LEAST_BYTES && !is_zfs() }
    }

    fn piece_at(&mut self, position: u64) -> io::Result<Option<Piece>> {
        match fs::seek(self.file, Place::Data(position)) {
            Ok(data) if data > position => {
                self.position = Some(data);
                return Ok(Some(Piece::Hole(data - position)));
            }
            Ok(_) => {}
            // no data behind it: the end, or a last hole before that
            Err(Errno::NXIO) => {
                let left = self.file.metadata()?.len().saturating_sub(position);
                self.position = (left > 0).then_some(position + left);
                return Ok(self.position.map(|_| Piece::Hole(left)));
            }
            Err(_) => return self.rest(position),
        }
        match fs::seek(self.file, Place::Hole(position)) {
            Ok(hole) if hole > position => {
                (&*self.file).seek(SeekFrom::Start(position))?;
                self.position = Some(hole);
                Ok(Some(Piece::Data(hole - position)))
            }
            _ => self.rest(position),
        }
    }

    /// All from `position` on.
    fn rest(&self, position: u64) -> io::Result<Option<Piece>> {
        if position > 0 {
            (&*self.file).seek(SeekFrom::Start(position))?;
        }
        Ok(Some(Piece::Data(u64::MAX)))
    }
}

impl Iterator for Pieces<'_> {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<io::Result<Piece>> {
        let position = self.position.take()?;
        let piece = if self.asks { self.piece_at(position) } else { self.rest(position) };
        piece.transpose()
    }
}

/// Writes a new file from its beginning; long runs of zeros become holes.
pub struct SparseWriter<'a> {
    file: &'a File,
    /// Zeros between the last byte written and the next.
    left_out: u64,
}

impl<'a> SparseWriter<'a> {
    /// For a file that is empty.
    pub fn new(file: &'a File) -> SparseWriter<'a> {
        SparseWriter { file, left_out: 0 }
    }

    /// Writes bytes, best a multiple of [`HOLE_BYTES`] at a time: a run of zeros in two calls is two runs.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let is_hole = |block: &&[u8]| block.len() == HOLE_BYTES && is_zero(block);
        while !bytes.is_empty() {
            let zeros: usize = bytes.chunks(HOLE_BYTES).take_while(is_hole).map(<[u8]>::len).sum();
            self.skip(zeros as u64);
            bytes = &bytes[zeros..];
            let data: usize = bytes.chunks(HOLE_BYTES).take_while(|block| !is_hole(block)).map(<[u8]>::len).sum();
            if data > 0 {
                self.catch_up()?.write_all(&bytes[..data])?;
            }
            bytes = &bytes[data..];
        }
        Ok(())
    }

    /// As if that many zeros were written.
    pub fn skip(&mut self, zeros: u64) {
        self.left_out += zeros;
    }

    /// The file, standing where the next byte goes.
    fn catch_up(&mut self) -> io::Result<&'a File> {
        let mut file = self.file;
        if self.left_out > 0 {
            file.seek_relative(i64::try_from(self.left_out).map_err(io::Error::other)?)?;
            self.left_out = 0;
        }
        Ok(file)
    }

    /// Gives the file its length.
    pub fn finish(mut self) -> io::Result<()> {
        if self.left_out == 0 {
            return Ok(());
        }
        let end = self.catch_up()?.stream_position()?;
        self.file.set_len(end)
    }
}

/// Copies a file that stands at its beginning, and most likely holds `expected_bytes`, into an empty one. The kernel does
/// it, and may share blocks; holes stay holes. Gives the number of bytes.
pub fn copy(from: &File, expected_bytes: u64, to: &File) -> io::Result<u64> {
    let mut writer = SparseWriter::new(to);
    let mut length = 0;
    for piece in Pieces::of(from, expected_bytes) {
        length += match piece? {
            Piece::Hole(bytes) => {
                writer.skip(bytes);
                bytes
            }
            Piece::Data(bytes) => io::copy(&mut from.take(bytes), &mut writer.catch_up()?)?,
        };
    }
    writer.finish()?;
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    const KIB: u64 = 1024;

    /// A file of `size` bytes with data in these places; where it is, and what it holds.
    fn sparse_file(size: u64, data: &[(u64, u64)]) -> (File, Vec<u8>) {
        let file = tempfile::tempfile().expect("a file");
        let mut bytes = vec![0; size as usize];
        file.set_len(size).expect("grown");
        for &(start, length) in data {
            let part = &mut bytes[start as usize..(start + length) as usize];
            part.fill(7);
            file.write_all_at(part, start).expect("written");
        }
        (file, bytes)
    }

    const FILES: [(u64, &[(u64, u64)]); 9] = [
        (0, &[]),
        (100, &[(0, 100)]),
        (LEAST_BYTES - 1, &[(5, 1)]),
        (LEAST_BYTES, &[(0, LEAST_BYTES)]),
        (1000 * KIB + 1, &[]),
        (1000 * KIB, &[(0, 300 * KIB)]),
        (1000 * KIB + 5, &[(700 * KIB + 1, 300 * KIB + 4)]),
        (3000 * KIB, &[(256 * KIB, 64 * KIB), (1024 * KIB - 7, 14), (2900 * KIB, KIB)]),
        (3000 * KIB, &[(0, 1), (128 * KIB + 1, 1), (2999 * KIB, KIB)]),
    ];

    fn read_whole(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; file.metadata().expect("a file").len() as usize];
        file.read_exact_at(&mut bytes, 0).expect("read");
        bytes
    }

    /// Bytes that take room on the disk.
    fn on_disk(file: &File) -> u64 {
        file.metadata().expect("a file").blocks() * 512
    }

    #[test]
    fn pieces_are_the_file() {
        for (size, data) in FILES {
            let (file, bytes) = sparse_file(size, data);
            let (mut read, mut in_holes) = (Vec::new(), 0);
            for piece in Pieces::of(&file, size) {
                match piece.expect("told") {
                    Piece::Data(bytes) => drop((&file).take(bytes).read_to_end(&mut read).expect("read")),
                    Piece::Hole(bytes) => {
                        zeros(bytes).for_each(|part| read.extend(part));
                        in_holes += bytes;
                    }
                }
            }
            assert!(read == bytes, "{size} {data:?}");
            let in_data = data.iter().map(|(_, length)| length.next_multiple_of(4 * KIB) + 4 * KIB).sum::<u64>();
            assert!(size < LEAST_BYTES || in_holes + in_data >= size, "{size} {data:?}: {in_holes} bytes of holes");
        }
    }

    /// The file's end is where the file ends, whatever was expected: a file that was cut meanwhile has no hole there.
    #[test]
    fn what_was_cut_off_is_no_hole() {
        let (file, _) = sparse_file(1000 * KIB, &[(0, 500 * KIB)]);
        let mut pieces = Pieces::of(&file, 1000 * KIB);
        assert!(matches!(pieces.next(), Some(Ok(Piece::Data(_)))));
        file.set_len(400 * KIB).expect("cut");
        assert!(pieces.next().is_none());
        // and what grows is seen
        let mut pieces = Pieces::of(&file, 1000 * KIB);
        assert!(matches!(pieces.next(), Some(Ok(Piece::Data(_)))));
        file.set_len(500 * KIB).expect("grown");
        assert!(matches!(pieces.next(), Some(Ok(Piece::Hole(_)))));
    }

    #[test]
    fn what_does_not_seek_is_read() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(b"piped").expect("written");
        drop(writer);
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let pieces: Vec<_> = Pieces::of(&file, u64::MAX).map(|piece| piece.expect("told")).collect();
        assert_eq!(pieces, [Piece::Data(u64::MAX)]);
    }

    #[test]
    fn copies_have_the_same_holes() {
        for (size, data) in FILES {
            let (from, bytes) = sparse_file(size, data);
            let to = tempfile::tempfile().expect("a file");
            assert_eq!(copy(&from, size, &to).expect("copied"), size);
            assert!(read_whole(&to) == bytes, "{size} {data:?}");
            assert!(size < LEAST_BYTES || on_disk(&to) <= on_disk(&from), "{size} {data:?}");
        }
    }

    /// Written at a time in pieces that show all zeros, or hide some.
    #[test]
    fn zeros_that_are_written_become_holes() {
        for (size, data) in FILES {
            let (from, bytes) = sparse_file(size, data);
            for piece in [2 * HOLE_BYTES, 4 * HOLE_BYTES, 100_000, 1000] {
                let to = tempfile::tempfile().expect("a file");
                let mut writer = SparseWriter::new(&to);
                bytes.chunks(piece).try_for_each(|piece| writer.write(piece)).expect("written");
                writer.finish().expect("finished");
                assert!(read_whole(&to) == bytes, "{size} {data:?} by {piece}");
                let blocks = data.len() as u64 * 2 * HOLE_BYTES as u64 + HOLE_BYTES as u64;
                let most = on_disk(&from) + blocks;
                assert!(
                    piece % HOLE_BYTES != 0 || on_disk(&to) <= most,
                    "{size} {data:?} by {piece}: {}",
                    on_disk(&to)
                );
            }
        }
    }

    #[test]
    fn zero_or_not() {
        for size in [0, 1, HOLE_BYTES - 1, HOLE_BYTES, 3 * HOLE_BYTES + 5] {
            let mut bytes = vec![0; size];
            assert!(is_zero(&bytes), "{size}");
            assert_eq!(zeros(size as u64).map(<[u8]>::len).sum::<usize>(), size);
            for at in [0, size / 2, size.saturating_sub(1)].into_iter().filter(|at| *at < size) {
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "{size}, {at}");
                bytes[at] = 0;
            }
        }
    }
}
