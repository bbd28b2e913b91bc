//! Hashes of contents: equal or different inside one build.

use std::fs::File;
use std::io::{self, Read};

use rayon::prelude::*;
use xxhash_rust::xxh3::Xxh3Default;

use super::Error;
use crate::rootfs::Root;
use crate::rootfs::sparse::{Piece, Pieces, zeros};
use crate::tree::{ContentHash, ImagePath};

/// Bytes per read while hashing: system calls are lost in the noise above it, and every thread holds one buffer.
const HASH_READ_BYTES: usize = 64 * 1024;

/// Hashes a file that stands at its beginning, with one buffer whatever the length; holes are not read. `expected_bytes`
/// sizes the buffer, so that a tree of small files does not zero large ones. Also tells the number of bytes.
pub fn hash_file(file: &File, expected_bytes: u64) -> io::Result<(ContentHash, u64)> {
    // One byte more than expected, so that the end shows without a second full buffer.
    let wanted = usize::try_from(expected_bytes).map_or(HASH_READ_BYTES, |bytes| bytes.saturating_add(1));
    let mut buffer = vec![0; wanted.clamp(512, HASH_READ_BYTES)];
    let mut hasher = Xxh3Default::new();
    let mut length = 0;
    for piece in Pieces::of(file, expected_bytes) {
        match piece? {
            Piece::Hole(bytes) => {
                zeros(bytes).for_each(|part| hasher.update(part));
                length += bytes;
            }
            Piece::Data(bytes) => length += hash_data(file.take(bytes), &mut buffer, &mut hasher)?,
        }
    }
    Ok((ContentHash(hasher.digest128()), length))
}

fn hash_data(mut data: impl Read, buffer: &mut [u8], hasher: &mut Xxh3Default) -> io::Result<u64> {
    let mut length = 0;
    loop {
        match data.read(buffer) {
            Ok(0) => return Ok(length),
            Ok(filled) => {
                hasher.update(&buffer[..filled]);
                length += filled as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Hashes regular files beneath `root`, in parallel on the current rayon pool; the hashes come in the order of `paths`.
pub fn hash_files(root: &Root, paths: &[ImagePath]) -> Result<Vec<ContentHash>, Error> {
    let hash = |path: &ImagePath| {
        let file = root.open_file(path)?;
        let read = |source| Error::Read { path: path.clone(), source };
        let size = file.metadata().map_err(read)?.len();
        hash_file(&file, size).map(|(hash, _)| hash).map_err(read)
    };
    paths.par_iter().map(hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;
    use std::os::unix::fs::FileExt;
    use xxhash_rust::xxh3::xxh3_128;

    /// Around every size at which the buffer or the number of reads changes, whatever size was expected, and with a hole in
    /// front, within and behind.
    #[test]
    fn every_boundary() {
        for size in [0, 1, 511, 512, 513, 4096, HASH_READ_BYTES - 1, HASH_READ_BYTES, HASH_READ_BYTES + 1, 400_000] {
            for hole in [0..0, 0..size, 0..size / 2, size / 4..size / 2, size / 2..size] {
                let mut bytes: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
                bytes[hole.clone()].fill(0);
                let mut file = tempfile::tempfile().expect("a file");
                file.set_len(size as u64).expect("grown");
                file.write_all_at(&bytes[..hole.start], 0).expect("written");
                file.write_all_at(&bytes[hole.end..], hole.end as u64).expect("written");
                for expected in [0, size as u64, u64::MAX] {
                    file.rewind().expect("rewound");
                    let hashed = hash_file(&file, expected).expect("read");
                    let wanted = (ContentHash(xxh3_128(&bytes)), size as u64);
                    assert_eq!(hashed, wanted, "{size}, expected {expected}, {hole:?}");
                }
            }
        }
    }

    #[test]
    fn lists_keep_their_order() {
        let place = tempfile::tempdir().expect("a directory");
        let root = Root::open(place.path()).expect("opened");
        let mut paths = Vec::new();
        for number in 0..50_u8 {
            let path = ImagePath::clean(format!("f{number}"));
            std::fs::write(path.below(place.path()), [number]).expect("written");
            paths.push(path);
        }
        let hashes = hash_files(&root, &paths).expect("hashed");
        let wanted: Vec<ContentHash> = (0..50_u8).map(|number| ContentHash(xxh3_128(&[number]))).collect();
        assert_eq!(hashes, wanted);
        std::os::unix::fs::symlink("f1", place.path().join("link")).expect("linked");
        assert!(hash_files(&root, &[ImagePath::clean("link")]).is_err(), "a symlink is not followed");
        assert!(hash_files(&root, &[ImagePath::clean("missing")]).is_err());
    }
}
