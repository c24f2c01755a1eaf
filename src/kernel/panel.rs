//! Packed panels times columns of x: codes are unpacked in registers, panels are read from their start to their end.

use super::{
    Columns, Inputs, Output,
    output::columns_of,
    stream::{SIDE_BY_SIDE, Streams, asks_for_panels},
    tile::IntTile,
};
use crate::simd::{Isa, PANEL_ROWS, RegisterTile, is_amd_avx512, is_avx512};
use core::marker::PhantomData;

/// Packed panels times columns of x.
pub(super) struct PackedKernel<'a, T> {
    pub panels: &'a [u8],
    pub panel_bytes: usize,
    pub x: &'a Inputs<'a>,
    /// The first column of the group of columns.
    pub group: usize,
    /// Rows of all panels.
    pub rows: usize,
    pub y: Output,
    /// The first row.
    pub row: usize,
    pub tile: PhantomData<T>,
}

impl<T: IntTile> RegisterTile for PackedKernel<'_, T> {
    #[inline(always)]
    unsafe fn run<I: Isa, const MR: usize, const NR: usize, const W: usize>(&mut self, isa: I, first: usize) {
        let columns = Columns::<W> { group: self.group, first };
        // SAFETY: the caller's promise is the same.
        isa.outlined(
            #[inline(always)]
            || unsafe {
                if const { asks_for_panels(T::BITS, NR, is_avx512::<I>()) } {
                    self.multiply::<I, NR, W, true, 1>(isa, columns);
                } else if is_amd_avx512::<I>() {
                    self.multiply::<I, NR, W, false, 1>(isa, columns);
                } else if const { NR == 1 && T::GROUP == T::BLOCK } {
                    self.multiply::<I, NR, W, true, SIDE_BY_SIDE>(isa, columns);
                } else {
                    self.multiply::<I, NR, W, true, 1>(isa, columns);
                }
            },
        );
    }
}

impl<T: IntTile> PackedKernel<'_, T> {
    /// Multiplies all panels by `NR` columns, `STREAMS` panels side by side; with `AHEAD`, what lies behind is asked for meanwhile.
    ///
    /// Little else in memory is touched from one panel to the next: on Zen 4 a dozen lines, which a panel of 32 KiB had driven
    /// from the first-level cache, cost the stream of weights a fifth of its rate.
    ///
    /// # Safety
    /// The panels are whole, x has the columns, and the rows of y are this task's.
    #[inline(always)]
    unsafe fn multiply<I: Isa, const NR: usize, const W: usize, const AHEAD: bool, const STREAMS: usize>(
        &self,
        isa: I,
        columns: Columns<W>,
    ) {
        let (column, panels) = (columns.group + columns.first, self.rows.div_ceil(PANEL_ROWS));
        for first in (0..panels).step_by(STREAMS) {
            let count = STREAMS.min(panels - first);
            // SAFETY: the caller's promise; only columns of x are stored.
            unsafe {
                let first_tile = self.panels.as_ptr().add(first * self.panel_bytes);
                let streams = Streams { first: first_tile, part_bytes: self.panel_bytes, count };
                let sums = self.sums::<I, NR, W, AHEAD, STREAMS>(isa, streams, columns);
                for (i, sums) in sums[..count].iter().enumerate() {
                    let row = (first + i) * PANEL_ROWS;
                    let y = self.y.at(column, self.row + row);
                    y.store_rows(&sums[..NR.min(self.x.m - column)], self.rows - row);
                }
            }
        }
    }

    /// The sums of `STREAMS` panels, or fewer, over all of k.
    ///
    /// # Safety
    /// The panels are whole, and x has the columns.
    #[inline(always)]
    unsafe fn sums<I: Isa, const NR: usize, const W: usize, const AHEAD: bool, const STREAMS: usize>(
        &self,
        isa: I,
        panels: Streams,
        columns: Columns<W>,
    ) -> [[[f32; PANEL_ROWS]; NR]; STREAMS] {
        let (x, mut out) = (self.x, [[[0.0; PANEL_ROWS]; NR]; STREAMS]);
        // 16 registers are the most that a panel takes (one lane each).
        let mut sums = [[[[isa.splat_f32(0.0); NR]]; PANEL_ROWS]; STREAMS];
        // SAFETY: panels have the tiles of all blocks.
        unsafe {
            for block in 0..x.k / T::BLOCK {
                for panel in panels.indices::<STREAMS>() {
                    let tile = panels.at::<STREAMS>(panel, block * T::TILE_BYTES);
                    let acc = &mut sums[panel];
                    if const { I::REGISTERS == 2 } {
                        // Both halves of a cache line at once: a pass for each would wait for L2 in the first alone, and load all
                        // of x twice.
                        let mut both = [acc[0][0], acc[1][0]];
                        T::multiply_tile::<I, 2, NR, W, AHEAD>(isa, tile, 0, x, columns, block, &mut both);
                        [acc[0][0], acc[1][0]] = both;
                        continue;
                    }
                    for r in 0..I::REGISTERS {
                        T::multiply_tile::<I, 1, NR, W, AHEAD>(isa, tile, r * I::LANES, x, columns, block, &mut acc[r]);
                    }
                }
            }
        }
        for (acc, out) in sums.iter().zip(&mut out) {
            *out = columns_of(isa, acc.as_flattened());
        }
        out
    }
}
