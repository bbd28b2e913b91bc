//! What happens to the tar of a layer while it is written: cut into blocks, hashed, compressed, stored.
//!
//! Each on threads of its own, behind bounded queues. Order never depends on timing: whoever works in parallel leaves the
//! result in a slot that was queued in order.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::gzip::{Member, Members};
use super::{Compression, Error, Method, header, zstandard};
use crate::blobs::BlobWriter;
use crate::oci::{DiffId, Sha256Stream};

/// Bytes of tar that are handed on at a time; as many are in one gzip member, and in one job of zstd's. A member starts
/// with an empty window of 32 KiB, so small members cost size; large ones cost memory, one block and its compressed form
/// for each thread.
pub(super) const BLOCK_BYTES: usize = 1024 * 1024;
/// Blocks that wait for one thread, whose work is quick.
const WAITING_BLOCKS: usize = 2;
/// Each costs a block and its compressed form, 2 MiB, in work and as much in the queue: 32 MiB in all.
const MOST_COMPRESSORS: usize = 8;
/// Two blocks of zeros end a tar.
const END_BYTES: u64 = 2 * header::BLOCK_BYTES as u64;

/// A block of tar. When nobody needs it any longer, its memory holds another one: memory that comes anew from the system
/// is cleared by it, page by page.
struct Block {
    bytes: Vec<u8>,
    to_spare: Sender<Vec<u8>>,
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.bytes);
        memory.clear();
        // the tar has ended
        let _ = self.to_spare.send(memory);
    }
}

/// A block of tar and the slot for its gzip member.
type Work = (Arc<Block>, Sender<Member>);

/// The tar stream, cut into blocks of fixed size.
pub(super) struct Blocks {
    current: Vec<u8>,
    /// A block of zeros, once one was needed.
    zeros: Option<Arc<Block>>,
    /// The memory of blocks that are done with. It need not be bounded: they were, when they were on their way.
    to_spare: Sender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
    to_hash: Sender<Arc<Block>>,
    to_store: ToStore,
}

/// How a block gets into the blob.
enum ToStore {
    /// As a gzip member, which any of several threads makes.
    Members { to_compress: Sender<Work>, slots: Sender<Receiver<Member>> },
    /// As a part of one stream.
    Stream(Sender<Arc<Block>>),
}

/// The threads behind the tar.
pub(super) struct Behind<'scope> {
    hasher: ScopedJoinHandle<'scope, DiffId>,
    storer: ScopedJoinHandle<'scope, Result<(), Error>>,
}

/// The threads behind the tar have stopped, and have the reason.
pub(super) struct HungUp;

impl From<HungUp> for Error {
    fn from(_: HungUp) -> Error {
        Error::Stopped
    }
}

/// Starts the threads that hash the tar and store it in `blob`, compressed by `threads` at most.
pub(super) fn start<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    compression: Compression,
    threads: NonZeroUsize,
    blob: &'env mut BlobWriter,
) -> (Blocks, Behind<'scope>) {
    let (to_hash, hash) = bounded(WAITING_BLOCKS);
    let hasher = scope.spawn(move || hash_blocks(&hash));
    let (to_store, storer) = match compression.method() {
        Method::Gzip => {
            let compressors = threads.get().min(MOST_COMPRESSORS);
            let (to_compress, compress) = bounded::<Work>(compressors);
            let (slots, members) = bounded(compressors);
            let (to_spare, spare) = unbounded();
            for _ in 0..compressors {
                let (compress, spare) = (compress.clone(), spare.clone());
                scope.spawn(move || compress_blocks(&compress, &spare, compression.level()));
            }
            (ToStore::Members { to_compress, slots }, scope.spawn(move || store_members(&members, &to_spare, blob)))
        }
        Method::Zstd | Method::None => {
            let (to_store, blocks) = bounded(WAITING_BLOCKS);
            let stored = move || store_stream(&blocks, compression, threads.get(), blob);
            (ToStore::Stream(to_store), scope.spawn(stored))
        }
    };
    let (to_spare, spare) = unbounded();
    let current = Vec::with_capacity(BLOCK_BYTES);
    let blocks = Blocks { current, zeros: None, to_spare, spare, to_hash, to_store };
    (blocks, Behind { hasher, storer })
}

impl Blocks {
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), HungUp> {
        while !bytes.is_empty() {
            let fits = bytes.len().min(BLOCK_BYTES - self.current.len());
            self.current.extend_from_slice(&bytes[..fits]);
            bytes = &bytes[fits..];
            self.send_if_full()?;
        }
        Ok(())
    }

    /// Reads up to `most` bytes from `file` straight into the current block.
    pub(super) fn read_from(&mut self, file: &mut impl Read, most: u64) -> Result<io::Result<u64>, HungUp> {
        let room = (BLOCK_BYTES - self.current.len()) as u64;
        let read = file.take(most.min(room)).read_to_end(&mut self.current);
        self.send_if_full()?;
        Ok(read.map(|read| read as u64))
    }

    /// Writes so many zeros. Whole blocks of them are one block in memory.
    pub(super) fn zeros(&mut self, mut bytes: u64) -> Result<(), HungUp> {
        while bytes > 0 {
            let fits = bytes.min((BLOCK_BYTES - self.current.len()) as u64);
            bytes -= fits;
            if fits == BLOCK_BYTES as u64 {
                let block = self.zeros.take().unwrap_or_else(|| self.block(vec![0; BLOCK_BYTES]));
                self.zeros = Some(Arc::clone(&block));
                self.send(block)?;
            } else {
                self.current.resize(self.current.len() + fits as usize, 0);
                self.send_if_full()?;
            }
        }
        Ok(())
    }

    pub(super) fn pad(&mut self, content_bytes: u64) -> Result<(), HungUp> {
        self.zeros(content_bytes.wrapping_neg() % header::BLOCK_BYTES as u64)
    }

    fn send_if_full(&mut self) -> Result<(), HungUp> {
        if self.current.len() < BLOCK_BYTES { Ok(()) } else { self.send_current() }
    }

    fn send_current(&mut self) -> Result<(), HungUp> {
        let next = self.spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(BLOCK_BYTES));
        let full = std::mem::replace(&mut self.current, next);
        self.send(self.block(full))
    }

    fn block(&self, bytes: Vec<u8>) -> Arc<Block> {
        Arc::new(Block { bytes, to_spare: self.to_spare.clone() })
    }

    fn send(&self, block: Arc<Block>) -> Result<(), HungUp> {
        self.to_hash.send(Arc::clone(&block)).map_err(|_| HungUp)?;
        match &self.to_store {
            ToStore::Members { to_compress, slots } => {
                let (slot, member) = bounded(1);
                slots.send(member).map_err(|_| HungUp)?;
                to_compress.send((block, slot)).map_err(|_| HungUp)
            }
            ToStore::Stream(blocks) => blocks.send(block).map_err(|_| HungUp),
        }
    }

    /// Ends the tar.
    pub(super) fn finish(mut self) -> Result<(), HungUp> {
        self.zeros(END_BYTES)?;
        if self.current.is_empty() { Ok(()) } else { self.send_current() }
    }
}

impl Behind<'_> {
    /// Waits until all is stored; `written` is how the tar ended. The hash of it.
    pub(super) fn finish(self, written: Result<(), Error>) -> Result<DiffId, Error> {
        // the store's own trouble first: it is why the queue behind the tar was closed
        self.storer.join().expect("no panic while storing")?;
        written?;
        Ok(self.hasher.join().expect("no panic while hashing"))
    }
}

fn hash_blocks(blocks: &Receiver<Arc<Block>>) -> DiffId {
    let mut passed = Sha256Stream::new();
    for block in blocks {
        passed.update(&block);
    }
    passed.finish().into()
}

/// Compresses in the memory of members that are stored, like tar in that of blocks.
fn compress_blocks(work: &Receiver<Work>, spare: &Receiver<Member>, level: Option<i8>) {
    let mut members = Members::new(level);
    for (block, slot) in work {
        let spare = spare.try_recv().unwrap_or_default();
        // the store hung up: it has an error of its own
        let _ = slot.send(members.compress(&block, spare));
    }
}

fn store_members(
    members: &Receiver<Receiver<Member>>,
    to_spare: &Sender<Member>,
    blob: &mut BlobWriter,
) -> Result<(), Error> {
    for member in members {
        // a slot without a sender: the tar ended early, and has the reason
        let Ok(member) = member.recv() else { return Ok(()) };
        blob.write_all(&member).map_err(|source| blob.error("write", source))?;
        // all is compressed
        let _ = to_spare.send(member);
    }
    Ok(())
}

fn store_stream(
    blocks: &Receiver<Arc<Block>>,
    compression: Compression,
    threads: usize,
    blob: &mut BlobWriter,
) -> Result<(), Error> {
    let stored = match compression.method() {
        Method::Zstd => zstandard::encoder(&mut *blob, compression.level(), threads).and_then(|mut encoder| {
            blocks.iter().try_for_each(|block| encoder.write_all(&block))?;
            encoder.finish().map(drop)
        }),
        Method::None | Method::Gzip => blocks.iter().try_for_each(|block| blob.write_all(&block)),
    };
    Ok(stored.map_err(|source| blob.error("write", source))?)
}
