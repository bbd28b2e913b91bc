//! Changes to blob: read ahead, tar, hash, compress, hash, store, each on threads of its own.
//!
//! ```text
//! readers ──> tar ──┬──> diff ID
//!  (small files)    └──> compressors ──> blob store (digest)      (`blocks`)
//! ```
//!
//! Order never depends on timing: whoever works in parallel leaves the result in a slot that was queued in order.
//! All queues are bounded, so memory does not grow with files or layers.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::blocks::{self, Blocks};
use super::header::{self, Member};
use super::{Compression, Error, Method};
use crate::blobs::BlobStore;
use crate::oci::{Descriptor, DiffId, media_type};
use crate::rootfs::sparse::{Piece, Pieces};
use crate::rootfs::{Directory, Root};
use crate::tree::{Change, ImagePath, Kind, Node, Timestamp};

/// Files up to this size are read ahead by other threads; larger ones stream through the tar thread.
const READ_AHEAD_BYTES: u64 = 64 * 1024;
/// Files in flight between readers and tar: with the size above, 4 MiB.
const READ_AHEAD_FILES: usize = 64;
/// More readers only wait for each other in the kernel.
const MOST_READERS: usize = 4;

/// A layer that was written: its blob is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The blob as a manifest lists it.
    pub descriptor: Descriptor,
    /// The tar as an image config lists it.
    pub diff_id: DiffId,
}

/// Whose media types an image uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Docker's image manifest, version 2, schema 2.
    Docker,
    /// The OCI image spec.
    Oci,
}

impl Format {
    /// What a layer of this format is called. Docker's schema 2 has no word for zstd: the one that BuildKit writes is used.
    fn media_type(self, method: Method) -> &'static str {
        match (self, method) {
            (Format::Docker, Method::None) => media_type::DOCKER_LAYER,
            (Format::Docker, Method::Gzip) => media_type::DOCKER_LAYER_GZIP,
            (Format::Docker, Method::Zstd) => media_type::DOCKER_LAYER_ZSTD,
            (Format::Oci, Method::None) => media_type::OCI_LAYER,
            (Format::Oci, Method::Gzip) => media_type::OCI_LAYER_GZIP,
            (Format::Oci, Method::Zstd) => media_type::OCI_LAYER_ZSTD,
        }
    }
}

/// How a layer is to be written.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// Whose media type the layer gets.
    pub format: Format,
    /// How the tar becomes a blob.
    pub compression: Compression,
    /// Which modification times the layer shows.
    pub times: Times,
    /// Threads that compress, as far as memory has a place for them; the bytes do not depend on it.
    pub threads: NonZeroUsize,
}

/// Which modification times a layer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Those of the files.
    AsTheyAre,
    /// Those of the files, but none later than this (SOURCE_DATE_EPOCH).
    ClampedTo(Timestamp),
    /// This one for everything (`--reproducible`).
    All(Timestamp),
}

impl Times {
    fn of(self, node: &Node) -> Timestamp {
        match self {
            Times::AsTheyAre => node.mtime,
            Times::ClampedTo(latest) => node.mtime.min(latest),
            Times::All(time) => time,
        }
    }

    /// A whiteout has no time of its own.
    fn of_whiteout(self) -> Timestamp {
        match self {
            Times::AsTheyAre | Times::ClampedTo(_) => Timestamp::EPOCH,
            Times::All(time) => time,
        }
    }
}

/// Writes what `changes` say of `root`, in path order, as one layer into `store`. Files must not change meanwhile: one
/// that vanished or has another size than a change says is an error.
pub fn write(
    changes: impl Iterator<Item = (ImagePath, Change)> + Send,
    root: &Root,
    store: &BlobStore,
    options: &WriteOptions,
) -> Result<Layer, Error> {
    let mut blob = store.writer()?;
    let blob_writer = &mut blob;
    let diff_id = thread::scope(|scope| {
        let (to_read, read) = bounded::<Reading>(READ_AHEAD_FILES);
        let (to_tar, ready) = bounded(READ_AHEAD_FILES);
        for _ in 0..options.threads.get().min(MOST_READERS) {
            let read = read.clone();
            scope.spawn(move || read_files(&read, root));
        }
        drop(read);
        let (blocks, behind) = blocks::start(scope, options.compression, options.threads, blob_writer);
        scope.spawn(move || queue_entries(changes, &to_read, &to_tar));
        let written = write_tar(&ready, root, options.times, blocks);
        drop(ready);
        behind.finish(written)
    })?;
    let (digest, size) = blob.finish()?;
    let media_type = options.format.media_type(options.compression.method());
    Ok(Layer { descriptor: Descriptor::new(media_type, digest, size), diff_id })
}

/// A file to read ahead and the slot for its bytes.
struct Reading {
    path: ImagePath,
    size: u64,
    slot: Sender<Result<Vec<u8>, Error>>,
}

/// A change, with the slot where its content will be if it is read ahead.
struct Entry {
    path: ImagePath,
    change: Change,
    content: Option<Receiver<Result<Vec<u8>, Error>>>,
}

fn queue_entries(
    changes: impl Iterator<Item = (ImagePath, Change)>,
    to_read: &Sender<Reading>,
    to_tar: &Sender<Entry>,
) {
    for (path, change) in changes {
        let content = match &change {
            Change::Added(Node { kind: Kind::File { size, .. }, .. })
            | Change::Modified(Node { kind: Kind::File { size, .. }, .. })
                if (1..=READ_AHEAD_BYTES).contains(size) =>
            {
                let (slot, content) = bounded(1);
                if to_read.send(Reading { path: path.clone(), size: *size, slot }).is_err() {
                    return;
                }
                Some(content)
            }
            _ => None,
        };
        if to_tar.send(Entry { path, change, content }).is_err() {
            return;
        }
    }
}

fn read_files(read: &Receiver<Reading>, root: &Root) {
    let mut opener = Opener { root, last: None };
    for Reading { path, size, slot } in read {
        // the tar thread hung up: it has an error of its own
        let _ = slot.send(opener.open(&path).and_then(|file| read_whole(&file, &path, size)));
    }
}

/// Reads a small file. One call tells, where nothing is amiss: it gives `size` bytes although there was room for more.
fn read_whole(file: &File, path: &ImagePath, size: u64) -> Result<Vec<u8>, Error> {
    let mut content = vec![0; size as usize + 1];
    let first = read_some(file, &mut content);
    if !matches!(first, Ok(read) if read as u64 == size) {
        check_regular(file, path)?;
    }
    let failed = |source| Error::File { action: "read", path: path.clone(), source };
    let mut filled = first.map_err(failed)?;
    while filled as u64 != size && filled < content.len() {
        match read_some(file, &mut content[filled..]).map_err(failed)? {
            0 => break,
            read => filled += read,
        }
    }
    content.truncate(filled);
    same_size(path, size, filled as u64).map(|()| content)
}

fn read_some(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Opens files that mostly follow each other in one directory.
struct Opener<'a> {
    root: &'a Root,
    last: Option<Directory>,
}

impl Opener<'_> {
    /// Opens the file at `path`.
    fn open(&mut self, path: &ImagePath) -> Result<File, Error> {
        let parent = path.parent().unwrap_or_else(ImagePath::root);
        if self.root.masks(path)? {
            return Ok(self.root.open_file(path)?);
        }
        let directory = match self.last.take() {
            Some(last) if *last.path() == parent => last,
            _ => self.root.directory(&parent)?,
        };
        Ok(self.last.insert(directory).open_file(path.file_name())?)
    }
}

fn check_regular(file: &File, path: &ImagePath) -> Result<(), Error> {
    let metadata = file.metadata().map_err(|source| Error::File { action: "read", path: path.clone(), source })?;
    if metadata.is_file() { Ok(()) } else { Err(Error::NoFile { path: path.clone() }) }
}

fn same_size(path: &ImagePath, expected: u64, found: u64) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    Err(Error::FileChanged { path: path.clone(), expected, found })
}

fn write_tar(ready: &Receiver<Entry>, root: &Root, times: Times, mut blocks: Blocks) -> Result<(), Error> {
    let mut opener = Opener { root, last: None };
    for Entry { path, change, content } in ready {
        // the image spec would allow `./`, but BuildKit writes no such entry and containerd passes over it: an engine makes `/`
        if path.is_root() {
            continue;
        }
        let (member, mtime) = match &change {
            Change::Added(node) | Change::Modified(node) | Change::Parent(node) => (Member::Node(node), times.of(node)),
            Change::Link { first, node } => (Member::Link { first, node }, times.of(node)),
            Change::Removed => (Member::Whiteout, times.of_whiteout()),
        };
        if !matches!(change, Change::Removed) && path.file_name().starts_with(header::WHITEOUT_PREFIX) {
            // BuildKit, too, writes it: there is no way to spell such a name
            tracing::warn!("{path} begins with .wh.: whoever reads the layer will take it for a removal");
        }
        let Some(header) = header::encode(&path, &member, mtime) else { continue };
        blocks.write(&header)?;
        let Member::Node(&Node { kind: Kind::File { size, .. }, .. }) = member else { continue };
        match content {
            Some(content) => blocks.write(&content.recv().map_err(|_| Error::Stopped)??)?,
            None if size > 0 => stream_file(&path, size, &opener.open(&path)?, &mut blocks)?,
            None => {}
        }
        blocks.pad(size)?;
    }
    Ok(blocks.finish()?)
}

fn stream_file(path: &ImagePath, size: u64, file: &File, blocks: &mut Blocks) -> Result<(), Error> {
    check_regular(file, path)?;
    let failed = |source| Error::File { action: "read", path: path.clone(), source };
    let mut passed = 0;
    for piece in Pieces::of(file, size) {
        match piece.map_err(failed)? {
            Piece::Hole(bytes) => {
                blocks.zeros(bytes.min(size - passed))?;
                passed += bytes;
            }
            Piece::Data(bytes) => {
                let mut data = file.take(bytes);
                while passed < size {
                    match blocks.read_from(&mut data, size - passed)?.map_err(failed)? {
                        0 => break,
                        read => passed += read,
                    }
                }
                if passed == size {
                    passed += data.read(&mut [0]).map_err(failed)? as u64;
                }
            }
        }
        if passed > size {
            break;
        }
    }
    same_size(path, size, passed)
}
