//! gzip in parallel, with the same bytes whatever the number of threads.
//!
//! The tar is cut at fixed places and every piece becomes a gzip member of its own. RFC 1952 (2.2) says that members
//! one after the other are one file; Go's compress/gzip (containerd, docker, podman, skopeo, umoci), pigz and GNU gzip
//! all read them so.
//!
//! Measured on tars of a Debian 12 (2 cores x86-64, CPU time of one thread): size in MiB, and MiB of tar per second.
//!
//! | tar, MiB                 | members 1 | members 2 | members 4 | members 5 | **members 6** | zlib-rs 3 | zlib-rs 6 |
//! | ------------------------ | --------- | --------- | --------- | --------- | ------------- | --------- | --------- |
//! | `/usr/share/doc`, 110    | 62.8, 193 | 62.2, 147 | 61.7, 139 | 61.5, 132 | 61.4, 121     | 62.4, 76  | 61.6, 63  |
//! | shared libraries, 256    | 94.8, 209 | 90.1, 161 | 88.8, 145 | 86.8, 124 | 86.2, 100     | 92.8, 95  | 89.8, 67  |
//! | `/usr/lib/node_modules`, 14 | 3.54, 282 | 3.42, 217 | 3.29, 186 | 3.22, 160 | 3.19, 127  | 3.41, 141 | 3.20, 82  |
//! | `/usr/lib/python3`, 44   | 14.0, 234 | 13.6, 181 | 13.2, 155 | 12.9, 135 | 12.8, 110     | 13.7, 112 | 13.1, 73  |
//!
//! Members are libdeflate's, of 1 MiB each. zlib-rs wrote one stream; cut into blocks of 128 KiB that share a dictionary, as
//! pigz does it, it gave the same sizes and speeds within 2%. The default must not be larger than zlib's level 6 over
//! the whole stream, which is what kaniko writes: 6 is the lowest level that holds on every row (5 loses 0.6% on the
//! third), at 1.5 to 1.9 times the speed.

use libdeflater::{CompressionError, CompressionLvl, Compressor};

use crate::rootfs::sparse::is_zero;

/// libdeflate's level where none is asked for: see the table above.
const DEFAULT: i8 = 6;

/// Makes gzip members; one per thread.
pub(super) struct Members {
    compressor: Compressor,
    /// The last member of nothing but zeros, with their number: of a hole, one block is like the other.
    of_zeros: Option<(usize, Vec<u8>)>,
}

impl Members {
    /// For members of a level between 0 (not compressed) and 9 (smallest).
    pub(super) fn new(level: Option<i8>) -> Members {
        let level = CompressionLvl::new(level.unwrap_or(DEFAULT).into());
        Members { compressor: Compressor::new(level.expect("libdeflate knows 0 to 12")), of_zeros: None }
    }

    /// `block` as one gzip member.
    pub(super) fn compress(&mut self, block: &[u8]) -> Vec<u8> {
        if !is_zero(block) {
            return self.member(block);
        }
        match &self.of_zeros {
            Some((zeros, member)) if *zeros == block.len() => member.clone(),
            _ => {
                let member = self.member(block);
                self.of_zeros = Some((block.len(), member.clone()));
                member
            }
        }
    }

    fn member(&mut self, block: &[u8]) -> Vec<u8> {
        let mut member = vec![0; self.compressor.gzip_compress_bound(block.len())];
        let length = match self.compressor.gzip_compress(block, &mut member) {
            Ok(length) => length,
            Err(CompressionError::InsufficientSpace) => unreachable!("the bound is an upper bound"),
        };
        member.truncate(length);
        member
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn members_are_one_stream() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        for level in std::iter::once(None).chain((0..=9).map(Some)) {
            let mut members = Members::new(level);
            let packed: Vec<u8> = text.chunks(65_536).flat_map(|piece| members.compress(piece)).collect();
            let mut unpacked = Vec::new();
            flate2::read::MultiGzDecoder::new(&*packed).read_to_end(&mut unpacked).expect("gzip");
            assert!(unpacked == text, "level {level:?}");
        }
    }

    /// Whoever compressed zeros before makes the same of the next block.
    #[test]
    fn zeros_are_compressed_like_all_else() {
        let mut members = Members::new(None);
        let mut almost = vec![0; 100_000];
        almost[99_999] = 1;
        for block in [&[0; 100_000][..], &almost, &[0; 100_000], &[0; 5000], &[0; 5000], &[0; 100_000], &[]] {
            assert!(members.compress(block) == Members::new(None).member(block), "{} bytes", block.len());
        }
    }
}
