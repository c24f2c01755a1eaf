//! Rows of floats as tiles of a packed panel: a line of memory of each of 16 rows is turned around in registers.

use super::super::{stream::LINE_BYTES, tile::FloatTile};
use crate::simd::{Isa, PANEL_ROWS};

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
