//! [`Sparse`]: a file with holes, of which the tar holds the pieces one after the other.

use std::io::{self, Read};

use tar::Header;

use super::{BLOCK, Broken, Members, malformed};

/// Most pieces of a sparse file: 16 bytes each in memory.
const MOST_PIECES: usize = 100_000;

/// The current member is a sparse file: its pieces lie in the tar one after the other.
pub(super) struct Sparse {
    /// Offset and length, the next one last.
    pieces: Vec<(u64, u64)>,
    position: u64,
    pub(super) size: u64,
}

impl Sparse {
    /// The pieces must be in order and hold exactly what the tar stores.
    fn new(mut pieces: Vec<(u64, u64)>, size: u64) -> Result<Sparse, Broken> {
        let mut end = 0;
        for &(offset, length) in &pieces {
            let next = offset.checked_add(length).filter(|_| offset >= end);
            end = next.ok_or_else(|| malformed("a sparse file in the tar has overlapping pieces"))?;
        }
        if end > size || i64::try_from(size).is_err() {
            return Err(malformed("a sparse file in the tar is larger than it says"));
        }
        pieces.retain(|&(_, length)| length > 0);
        pieces.reverse();
        Ok(Sparse { pieces, position: 0, size })
    }

    /// The old GNU form: four pieces in the header, more in the blocks behind it.
    pub(super) fn of_gnu<R: Read>(members: &mut Members<R>, header: &Header) -> Result<Sparse, Broken> {
        let gnu = header.as_gnu().ok_or_else(|| malformed("a sparse file in the tar has no GNU header"))?;
        let mut pieces = Vec::new();
        let mut add = |piece: &tar::GnuSparseHeader| {
            if piece.is_empty() {
                return Ok(());
            }
            pieces.push((piece.offset()?, piece.length()?));
            if pieces.len() > MOST_PIECES {
                Err(malformed("a sparse file in the tar has too many pieces"))
            } else {
                Ok(())
            }
        };
        gnu.sparse.iter().try_for_each(&mut add)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            members.tar.read_exact(block.as_mut_bytes())?;
            block.sparse().iter().try_for_each(&mut add)?;
            more = block.is_extended();
        }
        Sparse::new(pieces, gnu.real_size()?)
    }

    /// The PAX form, version 1.0: the pieces as decimal lines at the beginning of the content, padded to a block.
    pub(super) fn of_pax<R: Read>(members: &mut Members<R>, size: u64) -> Result<Sparse, Broken> {
        let mut read = 0_u64;
        let mut line = |members: &mut Members<R>| -> Result<u64, Broken> {
            let mut value = 0_u64;
            for digits in 0.. {
                let mut byte = [0];
                members.read_exact(&mut byte)?;
                read += 1;
                let digit = match byte[0] {
                    b'\n' if digits > 0 => break,
                    digit @ b'0'..=b'9' => u64::from(digit - b'0'),
                    _ => return Err(malformed("a sparse file in the tar has no list of pieces")),
                };
                let next = value.checked_mul(10).and_then(|value| value.checked_add(digit));
                value = next.ok_or_else(|| malformed("a sparse file in the tar has impossible pieces"))?;
            }
            Ok(value)
        };
        let count = usize::try_from(line(members)?).unwrap_or(usize::MAX);
        if count > MOST_PIECES {
            return Err(malformed("a sparse file in the tar has too many pieces"));
        }
        let mut pieces = Vec::new();
        for _ in 0..count {
            pieces.push((line(members)?, line(members)?));
        }
        let padding = (read.wrapping_neg() % BLOCK) as usize;
        members.read_exact(&mut [0; BLOCK as usize][..padding])?;
        Sparse::new(pieces, size)
    }

    pub(super) fn read<R: Read>(&mut self, members: &mut Members<R>, buffer: &mut [u8]) -> io::Result<usize> {
        let (offset, length) = self.pieces.last().copied().unwrap_or((self.size, 0));
        let until = if self.position < offset { offset } else { offset + length };
        let wanted = buffer.len().min(usize::try_from(until - self.position).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = if self.position < offset {
            buffer[..wanted].fill(0);
            wanted
        } else {
            match members.read_stored(&mut buffer[..wanted])? {
                0 => return Err(io::Error::new(io::ErrorKind::InvalidData, "a sparse file in the tar lacks a piece")),
                read => read,
            }
        };
        self.position += read as u64;
        if length > 0 && self.position == offset + length {
            self.pieces.pop();
        }
        Ok(read)
    }
}
