//! Reads a blob as the tar it holds, whatever its compression, ahead of whoever takes the tar apart.

use std::io::{self, BufReader, Read};
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use crate::oci::{DiffId, Sha256Stream};

/// Bytes handed over at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that may wait: decompression runs this far ahead.
const CHUNKS_AHEAD: usize = 8;
/// Enough to recognise every compression and a tar's own mark.
const MAGIC_BYTES: usize = 512;
/// Largest zstd window that is accepted, as a power of two: 128 MiB, what `zstd --long` uses and containerd reads.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Most memory that an xz may ask for: twice what `xz -9` needs.
const XZ_MEMORY_BYTES: u64 = 130 * 1024 * 1024;

/// How bytes are compressed, by their first bytes: media types lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detected {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Detected {
    fn detect(start: &[u8]) -> Detected {
        match start {
            [0x1f, 0x8b, ..] => Detected::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Detected::Zstd,
            [b'B', b'Z', b'h', ..] => Detected::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Detected::Xz,
            _ => Detected::None,
        }
    }
}

/// The tar inside `blob`, and the first bytes of it for those who must recognise it.
pub(super) fn decoder<'a>(blob: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let (start, rest) = peek(blob)?;
    let compression = Detected::detect(&start);
    let plain: Box<dyn Read + Send + 'a> = match compression {
        Detected::None => return Ok(Box::new(rest)),
        Detected::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, rest))),
        Detected::Zstd => {
            let mut decoder = zstd::Decoder::new(rest)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Detected::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(rest)),
        Detected::Xz => {
            let decoder = Stream::new_stream_decoder(XZ_MEMORY_BYTES, CONCATENATED)?;
            Box::new(XzDecoder::new_stream(rest, decoder))
        }
    };
    Ok(Box::new(Decompressed { compression, plain }))
}

/// Names the compression in errors, which the libraries do not do.
struct Decompressed<'a> {
    compression: Detected,
    plain: Box<dyn Read + Send + 'a>,
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.plain.read(buffer).map_err(|source| match source.kind() {
            io::ErrorKind::Interrupted => source,
            kind => io::Error::new(kind, Undecompressed { compression: self.compression, source }),
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("decompress {compression:?}")]
struct Undecompressed {
    compression: Detected,
    source: io::Error,
}

/// The first bytes, and a reader that gives them again.
pub(super) fn peek<'a>(mut reader: impl Read + Send + 'a) -> io::Result<(Vec<u8>, impl Read + Send + 'a)> {
    let mut start = Vec::with_capacity(MAGIC_BYTES);
    reader.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut start)?;
    Ok((start.clone(), io::Cursor::new(start).chain(reader)))
}

/// Decompresses on a thread of its own and hashes what passes.
pub(super) struct ReadAhead<'scope> {
    chunks: Receiver<io::Result<Vec<u8>>>,
    current: io::Cursor<Vec<u8>>,
    /// Bytes that may still come.
    left: u64,
    most_bytes: u64,
    thread: Option<ScopedJoinHandle<'scope, DiffId>>,
}

impl<'scope> ReadAhead<'scope> {
    /// More than `most_bytes` of tar are an error: no honest blob has them.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        blob: Box<dyn Read + Send + 'env>,
        most_bytes: u64,
    ) -> Self
    where
        'env: 'scope,
    {
        let (sender, chunks) = bounded(CHUNKS_AHEAD);
        let thread = scope.spawn(move || pump(blob, &sender));
        ReadAhead { chunks, current: io::Cursor::new(Vec::new()), left: most_bytes, most_bytes, thread: Some(thread) }
    }

    fn within_bounds(&mut self, chunk: Vec<u8>) -> io::Result<Vec<u8>> {
        let left = self.left.checked_sub(chunk.len() as u64);
        self.left = left.ok_or_else(|| io::Error::new(io::ErrorKind::StorageFull, TooMuch(self.most_bytes)))?;
        Ok(chunk)
    }

    /// Reads what is left (a tar may be followed by padding, which the diff ID covers) and gives the hash of all of it.
    pub(super) fn finish(mut self) -> io::Result<DiffId> {
        io::copy(&mut self, &mut io::sink())?;
        let thread = self.thread.take().expect("finish is called once");
        Ok(thread.join().expect("the decompressor does not panic"))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it goes on after {0} bytes, for which the disk has room when it is empty")]
struct TooMuch(u64);

fn pump(blob: Box<dyn Read + Send + '_>, chunks: &Sender<io::Result<Vec<u8>>>) -> DiffId {
    let mut passed = Sha256Stream::new();
    let mut reader = match decoder(blob) {
        Ok(reader) => reader,
        Err(error) => {
            let _ = chunks.send(Err(error));
            return DiffId::from(passed.finish());
        }
    };
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        match reader.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk) {
            Ok(0) => break,
            Ok(_) => {
                passed.update(&chunk);
                // whoever read gave up: nothing more to do
                if chunks.send(Ok(chunk)).is_err() {
                    break;
                }
            }
            Err(error) => {
                // what came before it is taken apart first, so that the error finds the entry that it belongs to
                let _ = chunks.send(Ok(chunk)).and_then(|()| chunks.send(Err(error)));
                break;
            }
        }
    }
    DiffId::from(passed.finish())
}

impl Read for ReadAhead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.current.read(buffer)? {
                0 if !buffer.is_empty() => match self.chunks.recv() {
                    Ok(chunk) => self.current = io::Cursor::new(self.within_bounds(chunk?)?),
                    Err(_) => return Ok(0),
                },
                read => return Ok(read),
            }
        }
    }
}
