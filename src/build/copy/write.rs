//! Writing one file with all its attributes: what runs in parallel.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::CopyError;
use super::settings::ACL;
use crate::rootfs::sparse::{self, HOLE_BYTES, Piece, Pieces, SparseWriter, zeros};
use crate::rootfs::{self, Directory, Stat};
use crate::sys::Errno;
use crate::sys::fs::FileType;
use crate::tree::{ContentHash, ImagePath, Kind, Node, Observed, Standing};

/// Bytes per read while copying and hashing.
const COPY_READ_BYTES: usize = 2 * HOLE_BYTES;

/// Where the bytes of a file come from.
pub(super) enum Bytes<'a> {
    /// A file of the origin. `known` spares reading it for its hash.
    File { directory: Arc<Directory>, name: Vec<u8>, known: Option<ContentHash> },
    /// A heredoc.
    Inline(&'a [u8]),
    /// A download.
    Downloaded(&'a Path),
}

/// One file that is no directory, ready to be written.
pub(super) struct FileTask<'a> {
    pub(super) bytes: Bytes<'a>,
    /// What it shall be; of a regular file from the origin, size and hash are filled in while it is copied.
    pub(super) node: Node,
    /// Whether xattrs and link target are still to be read from the origin.
    pub(super) complete_from: Option<Stat>,
    pub(super) keep_xattrs: bool,
    pub(super) directory: Arc<Directory>,
    pub(super) path: ImagePath,
    /// Is something there that must go first?
    pub(super) replaces: bool,
}

impl<'a> FileTask<'a> {
    /// For a file of which all is known but its bytes.
    pub(super) fn made(
        bytes: Bytes<'a>,
        node: Node,
        directory: Arc<Directory>,
        path: ImagePath,
        replaces: bool,
    ) -> FileTask<'a> {
        FileTask { bytes, node, complete_from: None, keep_xattrs: false, directory, path, replaces }
    }
}

/// What was observed of a file, and how it stands: a device that may not be made is in the image all the same.
pub(super) type OnDisk = (Option<Observed>, Standing);

/// What a written file is, and what was observed of it.
pub(super) type Written = (ImagePath, Node, OnDisk);

/// Writes one file with all its attributes, and looks at it last.
pub(super) fn write_file(task: FileTask<'_>) -> Result<Written, CopyError> {
    let FileTask { bytes, mut node, complete_from, keep_xattrs, directory, path, replaces } = task;
    let name = path.file_name();
    if let (Some(stat), Bytes::File { directory: from, name, .. }) = (&complete_from, &bytes) {
        complete(&mut node, from, name, stat, keep_xattrs)?;
    }
    if replaces {
        directory.remove(name)?;
    }
    match &node.kind {
        Kind::File { size, .. } => {
            let file = directory.create_file_as(name, &node)?;
            let (size, hash) = copy_bytes(bytes, *size, file.file(), &path)?;
            let observed = file.finish(&node)?;
            node.kind = Kind::File { size, content: Some(hash) };
            return Ok((path, node, (Some(observed), Standing::Image)));
        }
        Kind::Symlink { target } => directory.create_symlink(name, target)?,
        kind if !create_special(&directory, name, kind)? => return Ok((path, node, (None, Standing::Masked))),
        _ => {}
    }
    directory.set_attributes(name, &node)?;
    let observed = directory.stat(name)?.map(|stat| stat.observed);
    let observed = observed.ok_or_else(|| CopyError::Vanished { path: path.clone() })?;
    Ok((path, node, (Some(observed), Standing::Image)))
}

/// Makes a fifo or device; `false` where this machine lets nobody make that device.
pub(super) fn create_special(directory: &Directory, name: &[u8], kind: &Kind) -> Result<bool, rootfs::Error> {
    match directory.create_special(name, kind) {
        Err(error) if *kind != Kind::Fifo && error.errno() == Some(Errno::PERM) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Reads from the origin what a stat does not tell.
fn complete(node: &mut Node, from: &Directory, name: &[u8], stat: &Stat, xattrs: bool) -> Result<(), CopyError> {
    if stat.file_type == FileType::Symlink {
        node.kind = Kind::Symlink { target: from.read_link(name).map_err(CopyError::source)?.into() };
    }
    if xattrs {
        let drops_acl = node.mode != stat.mode;
        node.xattrs = from.xattrs(name).map_err(CopyError::source)?;
        node.xattrs.retain(|(key, _)| !(drops_acl && &**key == ACL));
    }
    Ok(())
}

/// Copies the bytes of a file, most likely `expected` of them; gives their number and hash.
fn copy_bytes(bytes: Bytes<'_>, expected: u64, to: &File, path: &ImagePath) -> Result<(u64, ContentHash), CopyError> {
    let write = |source| CopyError::Write { path: path.clone(), source };
    match bytes {
        Bytes::Inline(bytes) => {
            (&*to).write_all(bytes).map_err(write)?;
            Ok((bytes.len() as u64, ContentHash(xxh3_128(bytes))))
        }
        Bytes::Downloaded(place) => copy_file(&File::open(place).map_err(write)?, expected, to).map_err(write),
        Bytes::File { directory, name, known } => {
            let from = directory.open_file(&name).map_err(CopyError::source)?;
            match known {
                // the bytes stay out of this process
                Some(hash) => Ok((sparse::copy(&from, expected, to).map_err(write)?, hash)),
                None => copy_file(&from, expected, to).map_err(write),
            }
        }
    }
}

/// Copies all of a file that stands at its beginning, holes as holes; gives the number of bytes and their hash.
fn copy_file(from: &File, expected: u64, to: &File) -> io::Result<(u64, ContentHash)> {
    if expected < COPY_READ_BYTES as u64 {
        return copy_and_hash(from, expected, to);
    }
    let mut copied = Copied::new(to);
    for piece in Pieces::of(from, expected) {
        match piece? {
            Piece::Hole(bytes) => copied.skip(bytes),
            Piece::Data(bytes) => with_buffer(|buffer| copied.append(from.take(bytes), buffer, 0))?,
        }
    }
    copied.finish()
}

/// Copies all of `from`; gives the number of bytes and their hash. Where `expected` bytes come at once although there was
/// room for more, they are all: a small file costs one read and one write.
pub(super) fn copy_and_hash(mut from: impl Read, expected: u64, mut to: &File) -> io::Result<(u64, ContentHash)> {
    with_buffer(|buffer| {
        let first = read(&mut from, buffer)?;
        if first == 0 || (first as u64 == expected && first < buffer.len()) {
            to.write_all(&buffer[..first])?;
            return Ok((first as u64, ContentHash(xxh3_128(&buffer[..first]))));
        }
        let mut copied = Copied::new(to);
        copied.append(from, buffer, first)?;
        copied.finish()
    })
}

fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; COPY_READ_BYTES]);
    }
    BUFFER.with_borrow_mut(|buffer| work(buffer))
}

/// A new file, and the hash of what was written to it.
struct Copied<'a> {
    to: SparseWriter<'a>,
    hasher: Xxh3,
    length: u64,
}

impl<'a> Copied<'a> {
    fn new(to: &'a File) -> Copied<'a> {
        Copied { to: SparseWriter::new(to), hasher: Xxh3::new(), length: 0 }
    }

    fn skip(&mut self, bytes: u64) {
        zeros(bytes).for_each(|part| self.hasher.update(part));
        self.to.skip(bytes);
        self.length += bytes;
    }

    /// Writes what `buffer` begins with, `filled` bytes, and all that `from` gives then.
    fn append(&mut self, mut from: impl Read, buffer: &mut [u8], mut filled: usize) -> io::Result<()> {
        loop {
            filled += sparse::fill(&mut from, &mut buffer[filled..])?;
            let part = &buffer[..filled];
            self.hasher.update(part);
            self.to.write(part)?;
            self.length += filled as u64;
            if filled < buffer.len() {
                return Ok(());
            }
            filled = 0;
        }
    }

    fn finish(self) -> io::Result<(u64, ContentHash)> {
        self.to.finish()?;
        Ok((self.length, ContentHash(self.hasher.digest128())))
    }
}

fn read(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
