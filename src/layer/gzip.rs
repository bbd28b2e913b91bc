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
//!
//! The slowest of all is what cannot get smaller (64 MiB a second), such as the inside of large files that are compressed
//! or encrypted. Where no level is asked for, a block that seems to be of that kind is stored as it is, which takes a tenth of
//! the time: see [`Probe`].

use std::ops::Deref;

use libdeflater::{CompressionError, CompressionLvl, Compressor};

use crate::rootfs::sparse::is_zero;

/// libdeflate's level where none is asked for: see the table above.
const DEFAULT: i8 = 6;

/// A gzip member, and the memory that it is in, which can hold the next one.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// Not shorter than the member. What no member has reached takes no room.
    memory: Vec<u8>,
    length: usize,
}

impl Deref for Member {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl Member {
    fn holding(mut self, member: &[u8]) -> Member {
        if self.memory.len() < member.len() {
            self.memory.resize(member.len(), 0);
        }
        self.memory[..member.len()].copy_from_slice(member);
        Member { length: member.len(), ..self }
    }
}

/// Makes gzip members; one per thread.
pub(super) struct Members {
    compressor: Compressor,
    /// Only where no level is asked for: who asks for one gets no other.
    probe: Option<Probe>,
    /// The last member of nothing but zeros, with their number: of a hole, one block is like the other.
    of_zeros: Option<(usize, Vec<u8>)>,
}

impl Members {
    /// For members of a level between 0 (not compressed) and 9 (smallest).
    pub(super) fn new(level: Option<i8>) -> Members {
        let probe = level.is_none().then(Probe::new);
        Members { compressor: compressor(level.unwrap_or(DEFAULT)), probe, of_zeros: None }
    }

    /// `block` as one gzip member, in the memory of one that nobody needs.
    pub(super) fn compress(&mut self, block: &[u8], spare: Member) -> Member {
        if !is_zero(block) {
            return self.member(block, spare);
        }
        match &self.of_zeros {
            Some((zeros, member)) if *zeros == block.len() => spare.holding(member),
            _ => {
                let member = self.member(block, spare);
                self.of_zeros = Some((block.len(), member.to_vec()));
                member
            }
        }
    }

    fn member(&mut self, block: &[u8], spare: Member) -> Member {
        let probe = self.probe.as_mut();
        let stores = probe.and_then(|probe| (!probe.gets_smaller(block)).then_some(&mut probe.store));
        member(stores.unwrap_or(&mut self.compressor), block, spare)
    }
}

fn compressor(level: i8) -> Compressor {
    Compressor::new(CompressionLvl::new(level.into()).expect("libdeflate knows 0 to 12"))
}

/// `block` in the memory of a member that nobody needs.
fn member(compressor: &mut Compressor, block: &[u8], Member { mut memory, .. }: Member) -> Member {
    let most = compressor.gzip_compress_bound(block.len());
    if memory.len() < most {
        memory = vec![0; most];
    }
    let length = match compressor.gzip_compress(block, &mut memory) {
        Ok(length) => length,
        Err(CompressionError::InsufficientSpace) => unreachable!("the bound is an upper bound"),
    };
    Member { memory, length }
}

/// Finds out what is not worth compressing: where all bytes are equally frequent everywhere, so that none can have a
/// shorter code, and samples show nothing that comes back within deflate's window.
///
/// On a tar of `.crate` files it stores 8 of 67 members, on those of the table above none, and all are at most 0.01% larger
/// for it.
struct Probe {
    store: Compressor,
    fastest: Compressor,
}

/// Of which bytes are counted together, so that a little text in much else is seen.
const COUNTED_BYTES: usize = 64 * 1024;
/// By how much, in a hundred, squares of the counts may be above those of equal counts. Random bytes have 0.4 in a piece of this
/// size, what deflate makes of text and programs mostly 0.5 to 2, and a tar header with its zeros is enough for 5.
const MOST_UNEVEN_PERCENT: u64 = 2;
/// How far deflate looks back.
const WINDOW_BYTES: usize = 32 * 1024;
/// One window of so many is compressed to see.
const SAMPLED_WINDOWS: usize = 8;

impl Probe {
    fn new() -> Probe {
        Probe { store: compressor(0), fastest: compressor(1) }
    }

    fn gets_smaller(&mut self, block: &[u8]) -> bool {
        let mut samples = block.chunks(WINDOW_BYTES).step_by(SAMPLED_WINDOWS);
        !block.chunks(COUNTED_BYTES).all(is_even)
            || samples.any(|sample| member(&mut self.fastest, sample, Member::default()).len() < sample.len())
    }
}

/// Are all bytes about equally frequent?
fn is_even(piece: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    piece.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    let all = piece.len() as u64;
    // as many of each would be all * all / 256
    squares * 256 * 100 <= all * all * (100 + MOST_UNEVEN_PERCENT)
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
            let pieces = text.chunks(65_536).map(|piece| members.compress(piece, Member::default()).to_vec());
            let packed: Vec<u8> = pieces.flatten().collect();
            let mut unpacked = Vec::new();
            flate2::read::MultiGzDecoder::new(&*packed).read_to_end(&mut unpacked).expect("gzip");
            assert!(unpacked == text, "level {level:?}");
        }
    }

    fn random(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = |_| {
            // Knuth's MMIX
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..length).map(next).collect()
    }

    #[test]
    fn what_cannot_get_smaller_is_stored() {
        let noise = random(1 << 20);
        let with_text = |text: usize| [&noise[..noise.len() - text], &b"text ".repeat(text / 5)].concat();
        let digits: Vec<u8> = random(2 << 20).iter().map(|byte| b'a' + byte % 16).collect();
        let compressed = member(&mut compressor(DEFAULT), &digits, Member::default());
        let rows: [(&str, Vec<u8>, bool); 8] = [
            ("noise", noise.clone(), true),
            ("a tenth of it", noise[..100_000].to_vec(), true),
            ("what deflate made", compressed[1000..700_000].to_vec(), true),
            ("all bytes in turn", (0..=255).cycle().take(1 << 20).collect(), false),
            ("noise that comes back soon", noise[..8000].repeat(100), false),
            ("a little text", with_text(5000), false),
            ("much text", with_text(500_000), false),
            ("few bytes", noise[..1000].to_vec(), false),
        ];
        for (what, block, is_stored) in rows {
            let packed = Members::new(None).compress(&block, Member::default());
            let stored = member(&mut compressor(0), &block, Member::default());
            assert_eq!(*packed == *stored, is_stored, "{what}");
            assert!(packed.len() <= stored.len(), "{what}");
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&*packed).read_to_end(&mut unpacked).expect("gzip");
            assert!(unpacked == block, "{what}");
            for level in 1..=9 {
                let asked = Members::new(Some(level)).compress(&block, Member::default());
                assert!(*asked == *member(&mut compressor(level), &block, Member::default()), "{what}, level {level}");
            }
        }
    }

    /// Whoever compressed zeros before makes the same of the next block.
    #[test]
    fn zeros_are_compressed_like_all_else() {
        let mut members = Members::new(None);
        let mut almost = vec![0; 100_000];
        almost[99_999] = 1;
        for block in [&[0; 100_000][..], &almost, &[0; 100_000], &[0; 5000], &[0; 5000], &[0; 100_000], &[]] {
            let spare = members.compress(b"something else", Member::default());
            let of_none_before = Members::new(None).compress(block, Member::default());
            assert!(*members.compress(block, spare) == *of_none_before, "{} bytes", block.len());
        }
    }
}
