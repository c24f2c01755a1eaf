//! Rows of floats as tiles of a packed panel: a line of memory of each of 16 rows is turned around in registers.

use super::super::{
    stream::{LINE_BYTES, prefetch},
    tile::FloatTile,
};
use crate::simd::{Isa, PANEL_ROWS};

/// Bytes of each row that are asked for at once: a burst, for which memory turns to one row.
const BURST_BYTES: usize = 512;
/// Rows whose bursts are as many lines as a line of each row.
const ROWS_A_LINE: usize = LINE_BYTES * PANEL_ROWS / BURST_BYTES;

/// Asks, with the line at byte `line` of 16 rows that start at `row(r)`, for as many: of some rows the next burst, or the first
/// one of the 16 rows that follow.
#[inline(always)]
pub(super) fn ask_for_bursts<I: Isa>(isa: I, row: impl Fn(usize) -> *const u8, row_bytes: usize, line: usize) {
    let (burst, i) = (line - line % BURST_BYTES, line % BURST_BYTES / LINE_BYTES);
    let next = if burst + BURST_BYTES < row_bytes { burst + BURST_BYTES } else { PANEL_ROWS * row_bytes };
    for r in i * ROWS_A_LINE..(i + 1) * ROWS_A_LINE {
        prefetch(isa, row(r).wrapping_add(next), BURST_BYTES);
    }
}

impl<const BITS: u32, const EXPONENT_BITS: u32> FloatTile<BITS, EXPONENT_BITS> {
    /// Turns a line of each of 16 rows, of which that of row r is at `row(r)`, to the tiles of a packed panel; with `WIDEN`,
    /// bf16 to tiles of 32-bit floats.
    ///
    /// # Safety
    /// The lines are readable, and there is room for their tiles at `tiles`.
    #[inline(always)]
    pub(super) unsafe fn turn<I: Isa, const WIDEN: bool>(isa: I, row: impl Fn(usize) -> *const u8, tiles: *mut u8) {
        let tile_weight_bytes = if WIDEN { 4 } else { Self::BYTES };
        for at in (0..LINE_BYTES).step_by(16) {
            for first in (0..PANEL_ROWS).step_by(I::LANES) {
                // SAFETY: the caller's promise; a register's rows end at 16.
                unsafe {
                    let turned = isa.transpose_rows(
                        #[inline(always)]
                        |r| row(first + r).add(at),
                    );
                    for (i, lanes) in turned.into_iter().enumerate() {
                        let step = (at + 4 * i) / Self::BYTES;
                        let tile = |step: usize| tiles.add((step * PANEL_ROWS + first) * tile_weight_bytes);
                        if const { BITS == 32 } {
                            isa.store(tile(step), lanes);
                        } else if WIDEN {
                            isa.store(tile(step), isa.shl(lanes, 16));
                            isa.store(tile(step + 1), isa.and(lanes, isa.splat(0xFFFF_0000u32 as i32)));
                        } else {
                            isa.store_halves(tile(step), tile(step + 1), lanes);
                        }
                    }
                }
            }
        }
    }
}
