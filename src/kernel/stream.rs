//! Weights as streams from memory: how many at once, in which order, and what is asked for ahead.

use crate::simd::{Isa, PANEL_ROWS, is_amd_avx512, is_avx512};
use core::{
    ops::Range,
    sync::atomic::{Ordering, compiler_fence},
};

/// Bytes that one prefetch brings.
pub const LINE_BYTES: usize = 64;
/// How far ahead of a stream of weights memory is asked for.
pub const AHEAD_BYTES: usize = 8 << 10;

/// Streams that Intel's CPUs with AVX-512 read side by side for one column of blocks with one scale: up to a sixth more bytes a
/// second than of one after the other. Superblocks with scales, whose tiles are bursts of 2 to 3 KiB, lost as much as they gained.
pub const SIDE_BY_SIDE: usize = 4;
/// How far ahead of each of several streams.
const STREAMS_AHEAD_BYTES: usize = 4 << 10;

/// Bytes of each of 16 rows that are asked for at once: a burst, for which memory turns to one row.
const BURST_BYTES: usize = 512;
/// Rows whose bursts are as many lines as a line of each row.
const ROWS_A_LINE: usize = LINE_BYTES * PANEL_ROWS / BURST_BYTES;

/// How far ahead of codes that are multiplied where they lie the first-level cache is asked for as well.
const NEAR_BYTES: usize = 256;

/// Calls `ask` with each line of `bytes` from `first` on.
#[inline(always)]
fn for_lines(first: *const u8, bytes: usize, ask: impl Fn(*const u8)) {
    for line in (0..bytes).step_by(LINE_BYTES) {
        ask(first.wrapping_add(line));
    }
}

/// Keeps loads before and behind it apart. Unrolled for some CPUs, loops read parts of a stream before others that lie before
/// them: where nothing is asked for ahead, Zen 4 then brought packed Q8_0 a seventh slower.
#[inline(always)]
pub fn keep_order() {
    compiler_fence(Ordering::SeqCst);
}

/// Asks for the lines from `first` on.
#[inline(always)]
pub fn prefetch<I: Isa>(isa: I, first: *const u8, bytes: usize) {
    for_lines(
        first,
        bytes,
        #[inline(always)]
        |line| isa.prefetch_far(line),
    );
}

/// Whether the tiles of a packed panel of codes of `bits`, multiplied by `columns` columns of x, are asked for ahead. AMD's CPUs
/// with AVX-512 follow a stream by themselves while it is consumed as fast as it comes, and are only slowed down: on Zen 4 a
/// third more bytes a second came without. Where there is more to do with each byte, it took up to half as long again.
#[inline(always)]
pub const fn asks_for_panels(bits: u32, columns: usize, is_amd_avx512: bool) -> bool {
    !is_amd_avx512 || 2 * columns > bits as usize
}

/// Whether native rows of superblocks, `in_place` if they are multiplied where they lie, are asked for ahead. AMD's CPUs with
/// AVX-512 follow them by themselves too while little else is read: in place, of few terms, they came a fifth slower on Zen 4.
#[inline(always)]
pub fn asks_for_superblocks<I: Isa>(in_place: bool) -> bool {
    // Asked last: it is a load, and this is once a block.
    !(in_place && is_amd_avx512::<I>())
}

/// Whether [`SIDE_BY_SIDE`] streams are faster than one.
#[inline(always)]
pub fn reads_side_by_side<I: Isa>() -> bool {
    is_avx512::<I>() && !is_amd_avx512::<I>()
}

/// Equal parts of weights, one behind the other, that are read side by side: packed panels, or some native rows.
#[derive(Debug, Clone, Copy)]
pub struct Streams {
    /// Where the first part starts.
    pub first: *const u8,
    pub part_bytes: usize,
    pub count: usize,
}

impl Streams {
    /// Their numbers, of `STREAMS` or fewer: a loop over one is none.
    #[inline(always)]
    pub fn indices<const STREAMS: usize>(self) -> Range<usize> {
        0..if STREAMS == 1 { 1 } else { self.count }
    }

    /// Byte `at` of part `i`, and what is asked for while it is used: of the part that is read next, behind the last of
    /// `STREAMS`, where this one ends.
    ///
    /// # Safety
    /// The part has the byte.
    #[inline(always)]
    pub unsafe fn at<const STREAMS: usize>(self, i: usize, at: usize) -> (*const u8, *const u8) {
        // SAFETY: the caller's promise.
        let byte = unsafe { self.first.add(i * self.part_bytes + at) };
        if const { STREAMS == 1 } {
            return (byte, byte.wrapping_add(AHEAD_BYTES));
        }
        let over = if at + STREAMS_AHEAD_BYTES < self.part_bytes { 0 } else { (STREAMS - 1) * self.part_bytes };
        (byte, byte.wrapping_add(STREAMS_AHEAD_BYTES + over))
    }
}

/// Asks, with the line at byte `line` of 16 rows that start at `row(r)`, for as many: of some rows the next burst, or the first
/// one of the 16 rows that follow.
#[inline(always)]
pub fn ask_for_bursts<I: Isa>(isa: I, row: impl Fn(usize) -> *const u8, row_bytes: usize, line: usize) {
    let (burst, i) = (line - line % BURST_BYTES, line % BURST_BYTES / LINE_BYTES);
    let next = if burst + BURST_BYTES < row_bytes { burst + BURST_BYTES } else { PANEL_ROWS * row_bytes };
    for r in i * ROWS_A_LINE..(i + 1) * ROWS_A_LINE {
        prefetch(isa, row(r).wrapping_add(next), BURST_BYTES);
    }
}

/// Asks for what lies [`NEAR_BYTES`] behind a block to come to the first-level cache: there is little to do with such codes
/// while they come from the second.
#[inline(always)]
pub fn prefetch_near<I: Isa>(isa: I, block: *const u8, block_bytes: usize) {
    for_lines(
        block.wrapping_add(NEAR_BYTES),
        block_bytes,
        #[inline(always)]
        |line| isa.prefetch(line),
    );
}
