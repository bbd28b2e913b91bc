//! zstd in parallel, with the same bytes whatever the number of threads.
//!
//! The stream is one frame. zstd's own threads cut it into jobs of a fixed size, and each job looks back at the one before; how
//! many of them work at a time changes nothing but the time.
//!
//! Measured on the tars of `gzip` (size in MiB, and MiB of tar per second of CPU time, on a busy machine):
//!
//! | tar, MiB                    | level 1   | **level 3** | level 6  | level 9  |
//! | --------------------------- | --------- | ----------- | -------- | -------- |
//! | `/usr/share/doc`, 110       | 51.2, 478 | 45.3, 216   | 45.0, 51 | 42.1, 23 |
//! | shared libraries, 256       | 86.6, 244 | 76.7, 114   | 71.1, 33 | 68.6, 18 |
//! | `/usr/lib/node_modules`, 14 | 3.02, 478 | 2.65, 179   | 2.37, 45 | 2.24, 24 |
//! | `/usr/lib/python3`, 42      | 13.3, 278 | 11.4, 134   | 10.4, 39 | 9.88, 17 |
//!
//! The default is zstd's own, 3, which is smaller and faster than gzip's default on every row. One thread without jobs gave
//! the same sizes within 2%; frames of 1 MiB that do not look back were 2 to 17% larger.

use std::io::{self, Write};

use zstd::Encoder;
use zstd::zstd_safe::CParameter;

use super::blocks::BLOCK_BYTES;

/// zstd's level where none is asked for: see the table above.
const DEFAULT: i8 = 3;

/// A job looks back at half a window of what came before it (9 would be all of it, which costs a tenth of the speed).
const LOOK_BACK: u32 = 8;

/// From this level on, zstd's tables alone would take 24 to 700 MiB for each thread.
const FIRST_HUGE_LEVEL: i8 = 10;
/// What they get instead, as powers of two: a window of 4 MiB and 16 MiB of tables, as at level 9. Level 19 gives 4% away
/// for it, on shared libraries.
const HUGE_LEVELS: [CParameter; 3] = [CParameter::WindowLog(22), CParameter::ChainLog(21), CParameter::HashLog(21)];

/// Compresses what is written to it into `to`, in as many threads as `threads` and the memory allow.
pub(super) fn encoder<W: Write>(to: W, level: Option<i8>, threads: usize) -> io::Result<Encoder<'static, W>> {
    let level = level.unwrap_or(DEFAULT);
    let mut encoder = Encoder::new(to, level.into())?;
    encoder.multithread(threads.min(most_threads(level)) as u32)?;
    encoder.set_parameter(CParameter::JobSize(BLOCK_BYTES as u32))?;
    encoder.set_parameter(CParameter::OverlapSizeLog(LOOK_BACK))?;
    if level >= FIRST_HUGE_LEVEL {
        HUGE_LEVELS.into_iter().try_for_each(|parameter| encoder.set_parameter(parameter))?;
    }
    Ok(encoder)
}

/// With the jobs that they work on, these took 26 MiB at level 3, 40 at level 8 and 51 at level 22.
fn most_threads(level: i8) -> usize {
    match level {
        ..=4 => 8,
        5..=8 => 4,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With more bytes than two jobs have.
    #[test]
    fn the_frame_does_not_depend_on_threads() {
        let text: Vec<u8> =
            (0..600_000_u32).flat_map(|number| (number / 7).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        assert!(text.len() > 2 * BLOCK_BYTES);
        let packed = |level, threads, piece| {
            let mut encoder = encoder(Vec::new(), level, threads).expect("an encoder");
            text.chunks(piece).try_for_each(|piece| encoder.write_all(piece)).expect("written");
            encoder.finish().expect("finished")
        };
        for level in [None, Some(0), Some(1), Some(6), Some(9), Some(10), Some(22)] {
            let one = packed(level, 1, BLOCK_BYTES);
            assert!(zstd::decode_all(&*one).expect("zstd") == text, "level {level:?}");
            assert!(packed(level, 8, 100_000) == one, "level {level:?}");
        }
        assert!(packed(None, 1, BLOCK_BYTES) == packed(Some(0), 3, BLOCK_BYTES), "zstd calls its default 0");
    }
}
