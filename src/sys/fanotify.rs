//! fanotify with file handles and names: what happens in marked directories or file systems (man 7 fanotify).
//!
//! `nix` and `rustix` wrap fanotify as it was before it reported names, so that the calls and the records are here.

#![expect(unsafe_code, reason = "no library in use wraps fanotify_init, fanotify_mark and the calls for file handles")]

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::records::{Malformed, one_after_another};

pub use libc::{
    FAN_ATTRIB, FAN_CLOSE_WRITE, FAN_CREATE, FAN_DELETE, FAN_EVENT_ON_CHILD, FAN_MODIFY, FAN_ONDIR, FAN_Q_OVERFLOW,
    FAN_RENAME,
};
pub use libc::{
    FAN_CLOEXEC, FAN_MARK_ADD, FAN_MARK_FILESYSTEM, FAN_MARK_ONLYDIR, FAN_MARK_REMOVE, FAN_NONBLOCK,
    FAN_REPORT_DFID_NAME_TARGET, FAN_UNLIMITED_QUEUE,
};

/// Bytes of a record before what it tells: lengths, version, mask, two numbers that we do not ask for.
const HEADER_BYTES: usize = 24;
/// Bytes before the handle in a piece of information: type, padding, length, file system.
const PIECE_HEADER_BYTES: usize = 12;
/// Bytes of a handle before what the file system put into it: how many these are, and their type.
const HANDLE_HEADER_BYTES: usize = 8;
/// The most that a file system may put into a handle (`MAX_HANDLE_SZ`).
const MOST_HANDLE_BYTES: usize = 128;

/// A queue. `flags` are `FAN_CLASS_…`, `FAN_REPORT_…` and their like.
pub fn init(flags: libc::c_uint) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes numbers only.
    let fd =
        unsafe { libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC) as libc::c_uint) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Changes what `queue` is told of `path`, taken as relative to `directory`.
pub fn mark(
    queue: BorrowedFd<'_>,
    flags: libc::c_uint,
    mask: u64,
    directory: BorrowedFd<'_>,
    path: &[u8],
) -> Result<(), Errno> {
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    // SAFETY: `path` is NUL-terminated and outlives the call; both descriptors are borrowed for it.
    let done = unsafe { libc::fanotify_mark(queue.as_raw_fd(), flags, mask, directory.as_raw_fd(), path.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(last_error()) }
}

/// What a file system calls a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// As [`Record`]s name it: to be compared, and to be opened where the file system can do that.
    pub handle: Vec<u8>,
    /// The number of the mount on which the file was found.
    pub mount: i32,
}

/// Room for any handle, aligned as the kernel wants it.
type HandleWords = [u32; (HANDLE_HEADER_BYTES + MOST_HANDLE_BYTES) / size_of::<u32>()];

/// Asks what the file at `path`, taken as relative to `directory`, is called. Symlinks at the end are not followed.
pub fn handle(directory: BorrowedFd<'_>, path: &[u8]) -> Result<Called, Errno> {
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    let mut handle: HandleWords = [0; _];
    handle[0] = MOST_HANDLE_BYTES as u32;
    let mut mount: libc::c_int = 0;
    // SAFETY: `path` is NUL-terminated; the kernel writes a header and at most as many bytes as the first word says, all
    // of it inside of `handle`, which is aligned for it, and one number into `mount`.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            directory.as_raw_fd(),
            path.as_ptr(),
            handle.as_mut_ptr(),
            &mut mount as *mut libc::c_int,
            libc::AT_HANDLE_FID,
        )
    };
    if done != 0 {
        return Err(last_error());
    }
    let length = HANDLE_HEADER_BYTES + (handle[0] as usize).min(MOST_HANDLE_BYTES);
    let mut bytes: Vec<u8> = handle.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.truncate(length);
    Ok(Called { handle: bytes, mount })
}

/// Opens the file that is called `handle` on the file system of `place`, only to refer to it (`O_PATH`). STALE: it is gone.
pub fn open_handle(place: BorrowedFd<'_>, handle: &[u8]) -> Result<OwnedFd, Errno> {
    let told = word(handle, 0).and_then(|length| usize::try_from(length).ok()?.checked_add(HANDLE_HEADER_BYTES));
    if told != Some(handle.len()) || handle.len() > size_of::<HandleWords>() {
        return Err(Errno::INVAL);
    }
    let mut words: HandleWords = [0; _];
    for (to, from) in words.iter_mut().zip(handle.chunks(size_of::<u32>())) {
        let mut bytes = [0; size_of::<u32>()];
        bytes[..from.len()].copy_from_slice(from);
        *to = u32::from_ne_bytes(bytes);
    }
    // SAFETY: the kernel reads a header and as many bytes as the first word says, all of it inside of `words`, which is
    // aligned for it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            place.as_raw_fd(),
            words.as_mut_ptr(),
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(last_error());
    }
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The directory's handle.
    pub directory: &'a [u8],
    /// The entry's name; `.` for the directory itself.
    pub name: &'a [u8],
}

/// One record of the queue; what is not told is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// What happened: `FAN_…`, several at once where the kernel merged them.
    pub mask: u64,
    /// Where. Nothing but the file is told of what has to do with no name, as the number of its names.
    pub entry: Option<Entry<'a>>,
    /// What a rename renamed, as it was.
    pub old: Option<Entry<'a>>,
    /// And as it is.
    pub new: Option<Entry<'a>>,
    /// The handle of the file itself.
    pub target: Option<&'a [u8]>,
}

/// The records in `bytes`, one after another. Ends with the first that is malformed. Pure and total.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Malformed>> {
    one_after_another(bytes, first)
}

fn first(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let start = usize::from(half_word(bytes, 6)?);
    if start < HEADER_BYTES || *bytes.get(4)? != libc::FANOTIFY_METADATA_VERSION {
        return None;
    }
    let (record, rest) = bytes.split_at_checked(length)?;
    let mask = record.get(8..16)?.try_into().map(u64::from_ne_bytes).ok()?;
    let mut found = Record { mask, ..Record::default() };
    let mut pieces = record.get(start..)?;
    while !pieces.is_empty() {
        let length = usize::from(half_word(pieces, 2)?);
        let (piece, after) = pieces.split_at_checked(length)?;
        found.note(piece)?;
        pieces = after;
    }
    Some((found, rest))
}

impl<'a> Record<'a> {
    fn note(&mut self, piece: &'a [u8]) -> Option<()> {
        match *piece.first()? {
            libc::FAN_EVENT_INFO_TYPE_FID => self.target = Some(split(piece)?.0),
            libc::FAN_EVENT_INFO_TYPE_DFID_NAME => self.entry = Some(entry(piece)?),
            libc::FAN_EVENT_INFO_TYPE_DFID => self.entry = Some(Entry { directory: split(piece)?.0, name: b"." }),
            libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => self.old = Some(entry(piece)?),
            libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => self.new = Some(entry(piece)?),
            _ if piece.len() >= 4 => {}
            _ => return None,
        }
        Some(())
    }
}

fn entry(piece: &[u8]) -> Option<Entry<'_>> {
    let (directory, name) = split(piece)?;
    let name = name.split(|&byte| byte == 0).next().filter(|name| !name.is_empty())?;
    Some(Entry { directory, name })
}

/// The handle in a piece, and what follows it.
fn split(piece: &[u8]) -> Option<(&[u8], &[u8])> {
    let handle = piece.get(PIECE_HEADER_BYTES..)?;
    let length = usize::try_from(word(handle, 0)?).ok()?;
    handle.split_at_checked(length.checked_add(HANDLE_HEADER_BYTES)?)
}

fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().map(u16::from_ne_bytes).ok()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().map(u32::from_ne_bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::read;
    use proptest::prelude::*;
    use std::os::fd::AsFd;

    fn piece(kind: u8, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let mut body = [0; 8].to_vec();
        body.extend_from_slice(&(handle.len() as u32).to_ne_bytes());
        body.extend_from_slice(&1_i32.to_ne_bytes());
        body.extend_from_slice(handle);
        body.extend_from_slice(name);
        if !name.is_empty() {
            body.push(0);
        }
        body.resize(body.len().next_multiple_of(4), 0);
        let mut piece = vec![kind, 0];
        piece.extend_from_slice(&(body.len() as u16 + 4).to_ne_bytes());
        piece.extend_from_slice(&body);
        piece
    }

    fn record(mask: u64, pieces: &[Vec<u8>]) -> Vec<u8> {
        let pieces = pieces.concat();
        let mut bytes = ((HEADER_BYTES + pieces.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&[libc::FANOTIFY_METADATA_VERSION, 0]);
        bytes.extend_from_slice(&(HEADER_BYTES as u16).to_ne_bytes());
        bytes.extend_from_slice(&mask.to_ne_bytes());
        bytes.extend_from_slice(&[0xff; 8]);
        bytes.extend_from_slice(&pieces);
        bytes
    }

    fn key(handle: &[u8]) -> Vec<u8> {
        [&(handle.len() as u32).to_ne_bytes()[..], &1_i32.to_ne_bytes(), handle].concat()
    }

    #[test]
    fn records_one_after_another() {
        let rename = [piece(10, b"olddir", b"from"), piece(12, b"newdir", b"to"), piece(1, b"file", b"")];
        let create = [piece(2, b"dir", b"name"), piece(1, b"file", b""), piece(4, b"", b"")];
        let parts = [record(FAN_RENAME, &rename), record(FAN_CREATE, &create), record(FAN_Q_OVERFLOW, &[])];
        let bytes = parts.concat();
        let found: Vec<Record<'_>> = records(&bytes).map(|record| record.expect("well formed")).collect();
        let [old, new, dir, file] = [b"olddir".as_slice(), b"newdir", b"dir", b"file"].map(key);
        let entry = |directory, name| Some(Entry { directory, name });
        let wanted = [
            Record {
                mask: FAN_RENAME,
                old: entry(&old[..], b"from"),
                new: entry(&new[..], b"to"),
                target: Some(&file),
                entry: None,
            },
            Record { mask: FAN_CREATE, entry: entry(&dir[..], b"name"), target: Some(&file), ..Record::default() },
            Record { mask: FAN_Q_OVERFLOW, ..Record::default() },
        ];
        assert_eq!(found, wanted);
        let boundaries = [parts[0].len(), parts[0].len() + parts[1].len()];
        for cut in 1..bytes.len() {
            let is_boundary = boundaries.contains(&cut);
            assert_eq!(records(&bytes[..cut]).any(|record| record.is_err()), !is_boundary, "{cut}");
        }
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a skip prints its reason")]
    fn the_kernel_speaks_so() {
        let place = tempfile::tempdir().expect("a directory");
        let directory = std::fs::File::open(place.path()).expect("opened");
        let queue = match init(FAN_REPORT_DFID_NAME_TARGET | FAN_CLOEXEC | FAN_NONBLOCK) {
            Ok(queue) => queue,
            Err(errno) => return eprintln!("skipped: fanotify is refused: {errno}"),
        };
        let mask = FAN_CREATE | FAN_RENAME | FAN_ONDIR | FAN_EVENT_ON_CHILD;
        mark(queue.as_fd(), FAN_MARK_ADD | FAN_MARK_ONLYDIR, mask, directory.as_fd(), b".").expect("marked");
        let own = handle(directory.as_fd(), b".").expect("a handle").handle;
        std::fs::write(place.path().join("f"), "").expect("written");
        let file = handle(directory.as_fd(), b"f").expect("a handle").handle;
        std::fs::rename(place.path().join("f"), place.path().join("g")).expect("renamed");
        let mut buffer = [0; 4096];
        let filled = read(&queue, &mut buffer).expect("events are there");
        let entry = |name| Some(Entry { directory: &own[..], name });
        let target = Some(&file[..]);
        let wanted = [
            Record { mask: FAN_CREATE, entry: entry(b"f"), target, ..Record::default() },
            Record { mask: FAN_RENAME, old: entry(b"f"), new: entry(b"g"), target, entry: None },
        ];
        assert_eq!(records(&buffer[..filled]).collect::<Vec<_>>(), wanted.map(Ok));
        assert_eq!(handle(directory.as_fd(), b"missing"), Err(Errno::NOENT));
        assert_eq!(handle(directory.as_fd(), b"nul\0"), Err(Errno::INVAL));
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a skip prints its reason")]
    fn handles_lead_back() {
        let place = tempfile::tempdir().expect("a directory");
        let directory = std::fs::File::open(place.path()).expect("opened");
        let path = place.path().join("f");
        std::fs::write(&path, "").expect("written");
        let Called { handle: file, .. } = handle(directory.as_fd(), b"f").expect("a handle");
        match open_handle(directory.as_fd(), &file) {
            Err(errno @ (Errno::PERM | Errno::OPNOTSUPP)) => {
                return eprintln!("skipped: handles are not opened: {errno}");
            }
            opened => {
                let inode = rustix::fs::fstat(opened.expect("opened")).expect("looked").st_ino;
                assert_eq!(inode, std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).expect("looked")));
            }
        }
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(open_handle(directory.as_fd(), &file).err(), Some(Errno::STALE));
        for wrong in [&file[..3], &file[..file.len() - 1], &[&file[..], &[0]].concat(), &[0xff; 200]] {
            assert_eq!(open_handle(directory.as_fd(), wrong).err(), Some(Errno::INVAL), "{wrong:?}");
        }
    }

    proptest! {
        /// Any bytes are records or malformed: nothing panics, nothing is read twice, and it ends.
        #[test]
        fn any_bytes(noise in prop::collection::vec(any::<u8>(), 0..120), at in 0..200_usize, byte in any::<u8>()) {
            let mut bytes = record(FAN_RENAME, &[piece(10, b"olddir", b"from"), piece(12, b"newdir", b"to")]);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.extend_from_slice(&noise);
            for bytes in [&bytes, &noise] {
                let found: Vec<_> = records(bytes).collect();
                prop_assert!(found.len() <= bytes.len() / HEADER_BYTES + 1);
                prop_assert!(found.iter().rev().skip(1).all(Result::is_ok));
            }
        }
    }
}
