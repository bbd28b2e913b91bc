//! inotify: what happens in watched directories (man 7 inotify).

pub use rustix::fs::inotify::{CreateFlags, ReadFlags, WatchFlags, add_watch, init, remove_watch};

use super::records::{Malformed, one_after_another};

/// Bytes of a record before its name: watch, mask, cookie, length of the name.
const HEADER_BYTES: usize = 16;

/// One record of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The watch's number; -1 where the queue overflowed.
    pub watch: i32,
    /// What happened.
    pub mask: ReadFlags,
    /// The same for both halves of a rename; else 0.
    pub cookie: u32,
    /// The entry of the watched directory; `None` for the directory itself.
    pub name: Option<&'a [u8]>,
}

/// The records in `bytes`, one after another. Ends with the first that is malformed. Pure and total.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Malformed>> {
    one_after_another(bytes, first)
}

fn first(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let word = |number: usize| header[number * 4..][..4].try_into().map(u32::from_ne_bytes).ok();
    let (padded, rest) = rest.split_at_checked(usize::try_from(word(3)?).ok()?)?;
    let name = padded.split(|&byte| byte == 0).next().filter(|name| !name.is_empty());
    let mask = ReadFlags::from_bits_retain(word(1)?);
    let watch = i32::from_ne_bytes(word(0)?.to_ne_bytes());
    Some((Record { watch, mask, cookie: word(2)?, name }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Errno, read};
    use proptest::prelude::*;

    fn encode(watch: i32, mask: u32, cookie: u32, name: &[u8]) -> Vec<u8> {
        let padded = name.len().next_multiple_of(16);
        let length = u32::try_from(padded).expect("short");
        let words = [watch.to_ne_bytes(), mask.to_ne_bytes(), cookie.to_ne_bytes(), length.to_ne_bytes()];
        let mut bytes = words.concat();
        bytes.extend_from_slice(name);
        bytes.resize(HEADER_BYTES + padded, 0);
        bytes
    }

    #[test]
    fn records_one_after_another() {
        let bytes =
            [encode(1, 0x100, 0, b"name"), encode(-1, 0x4000, 0, b""), encode(7, 0x80, 9, &[b'x'; 255])].concat();
        let found: Vec<Record<'_>> = records(&bytes).map(|record| record.expect("well formed")).collect();
        let wanted = [
            Record { watch: 1, mask: ReadFlags::CREATE, cookie: 0, name: Some(b"name") },
            Record { watch: -1, mask: ReadFlags::QUEUE_OVERFLOW, cookie: 0, name: None },
            Record { watch: 7, mask: ReadFlags::MOVED_TO, cookie: 9, name: Some(&[b'x'; 255]) },
        ];
        assert_eq!(found, wanted);
        for cut in 1..bytes.len() {
            let is_boundary = [32, 48].contains(&cut);
            assert_eq!(records(&bytes[..cut]).any(|record| record.is_err()), !is_boundary, "{cut}");
        }
    }

    #[test]
    fn the_kernel_speaks_so() {
        let place = tempfile::tempdir().expect("a directory");
        let queue = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("a queue");
        let watch = add_watch(&queue, place.path(), WatchFlags::CREATE | WatchFlags::ONLYDIR).expect("watched");
        std::fs::create_dir(place.path().join("d")).expect("made");
        let mut buffer = [0; 1024];
        let filled = read(&queue, &mut buffer).expect("an event is there");
        let mask = ReadFlags::CREATE | ReadFlags::ISDIR;
        let wanted = Record { watch, mask, cookie: 0, name: Some(b"d") };
        assert_eq!(records(&buffer[..filled]).collect::<Vec<_>>(), [Ok(wanted)]);
        assert_eq!(read(&queue, &mut buffer), Err(Errno::AGAIN));
    }

    proptest! {
        /// Any bytes are records or malformed: nothing panics, nothing is read twice, and it ends.
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), near in any::<bool>(), length in 0..40_u32) {
            let mut bytes = bytes;
            if near && bytes.len() >= HEADER_BYTES {
                bytes[12..16].copy_from_slice(&length.to_ne_bytes());
            }
            let found: Vec<_> = records(&bytes).collect();
            prop_assert!(found.len() <= bytes.len() / HEADER_BYTES + 1);
            prop_assert!(found.iter().rev().skip(1).all(Result::is_ok));
            let named: usize = found.iter().flatten().filter_map(|record| record.name).map(<[u8]>::len).sum();
            prop_assert!(named <= bytes.len());
        }
    }
}
