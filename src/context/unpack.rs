//! Unpacking a context that travels as a tar, and looking through compression.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

/// Bytes of the longest magic number that [`decompress`] looks for.
const MAGIC_BYTES: usize = 6;
/// Largest zstd window that is accepted, as a power of two, and most memory that an xz may ask for: as for layers.
const ZSTD_WINDOW_LOG: u32 = 27;
const XZ_MEMORY_BYTES: u64 = 130 * 1024 * 1024;

/// Unpacks a tar into the directory `place`, which is made. Owners are not kept: COPY ignores them.
pub(super) fn unpack(tar: impl Read, place: &Path) -> io::Result<()> {
    let mut stream = BufReader::new(tar);
    if stream.fill_buf()?.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "there is nothing in it"));
    }
    std::fs::create_dir_all(place)?;
    let mut archive = tar::Archive::new(decompress(stream)?);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    archive.unpack(place)
}

/// The plain bytes of `stream`, which may be compressed with gzip, bzip2, xz or zstd; its first bytes tell how.
pub fn decompress<'a>(mut stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::with_capacity(MAGIC_BYTES);
    stream.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut magic)?;
    let start = io::Cursor::new(magic.clone());
    let stream = BufReader::new(start.chain(stream));
    Ok(match &*magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(stream)),
        [0xfd, b'7', b'z', b'X', b'Z', 0x00] => {
            let decoder = Stream::new_stream_decoder(XZ_MEMORY_BYTES, CONCATENATED)?;
            Box::new(XzDecoder::new_stream(stream, decoder))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(stream)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        _ => Box::new(stream),
    })
}
