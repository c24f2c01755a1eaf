//! Packed panels of floats times a few columns of x: weights are widened in registers.
//!
//! Instructions for 64 products with AVX-512: 12 of one column (for four steps of k a load that may widen, a multiplication
//! that broadcasts x, an addition; BF16 a shift more), 8 of each further one, and a prefetch a line. Memory limits one column,
//! the two ports of multiplications and additions eight.

use super::super::{
    Output,
    driver::{Job, panels_at_once},
    group_columns,
    output::columns_of,
    stream::{SIDE_BY_SIDE, Streams, asks_for_panels, prefetch, reads_side_by_side},
    tile::{FloatTile, Tile},
};
use crate::simd::{Isa, IsaTask, PANEL_ROWS, RegisterTile, array_of, is_amd_avx512};
use core::ops::Range;

/// Steps of k for which one stream is read before the next one.
const STEPS: usize = 16;

/// The packed `panels` of a job times `values`, `[m, k]`, of no more than a group of columns.
pub(super) struct PanelTask<'a, const BITS: u32, const EXPONENT_BITS: u32> {
    pub job: &'a Job<'a>,
    pub packed: &'a [u8],
    pub values: &'a [f32],
    pub m: usize,
    pub panels: Range<usize>,
}

impl<const BITS: u32, const EXPONENT_BITS: u32> IsaTask for PanelTask<'_, BITS, EXPONENT_BITS> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let PanelTask { job, packed, values, m, panels } = self;
        let panel_bytes = job.k * FloatTile::<BITS, EXPONENT_BITS>::TILE_BYTES;
        let panels_at_once = panels_at_once::<I>(m, &panels);
        for first in panels.clone().step_by(panels_at_once) {
            let mut kernel = PanelKernel::<BITS, EXPONENT_BITS> {
                panels: job.packed_panels(packed, first..first + panels_at_once, panel_bytes),
                panel_bytes,
                x: values,
                m,
                k: job.k,
                rows: job.rows_in(first, panels_at_once),
                y: job.y,
                row: first * PANEL_ROWS,
            };
            // SAFETY: the panels are whole, x has the columns, and these rows of y are this task's.
            unsafe { isa.column_tile(group_columns(0, m), &mut kernel) };
        }
    }
}

pub(super) struct PanelKernel<'a, const BITS: u32, const EXPONENT_BITS: u32> {
    panels: &'a [u8],
    panel_bytes: usize,
    x: &'a [f32],
    m: usize,
    k: usize,
    /// Rows of all panels.
    rows: usize,
    y: Output,
    /// The first row.
    row: usize,
}

impl<const BITS: u32, const EXPONENT_BITS: u32> RegisterTile for PanelKernel<'_, BITS, EXPONENT_BITS> {
    #[inline(always)]
    unsafe fn run<I: Isa, const MR: usize, const NR: usize, const W: usize>(&mut self, isa: I, first: usize) {
        if first >= self.m {
            return;
        }
        // SAFETY: the caller's promise is the same.
        isa.outlined(
            #[inline(always)]
            || unsafe {
                if const { NR == 1 } && reads_side_by_side::<I>() {
                    self.multiply::<I, NR, SIDE_BY_SIDE>(isa, first);
                } else {
                    self.multiply::<I, NR, 1>(isa, first);
                }
            },
        );
    }
}

impl<const BITS: u32, const EXPONENT_BITS: u32> PanelKernel<'_, BITS, EXPONENT_BITS> {
    const TILE_BYTES: usize = FloatTile::<BITS, EXPONENT_BITS>::TILE_BYTES;

    /// Multiplies all panels, `STREAMS` side by side, by `NR` columns from column `first` on; a column past the last stands for
    /// it and is not stored.
    ///
    /// # Safety
    /// The panels are whole, x has the first column, and the rows of y are this task's.
    #[inline(always)]
    unsafe fn multiply<I: Isa, const NR: usize, const STREAMS: usize>(&self, isa: I, first: usize) {
        let panels = self.rows.div_ceil(PANEL_ROWS);
        let asks_ahead = asks_for_panels(BITS, NR, is_amd_avx512::<I>());
        // SAFETY: columns are inside x, panels inside the packed ones; only columns of x are stored.
        unsafe {
            let x: [*const f32; NR] = array_of(
                #[inline(always)]
                |j| self.x.as_ptr().add((first + j).min(self.m - 1) * self.k),
            );
            for panel in (0..panels).step_by(STREAMS) {
                let count = STREAMS.min(panels - panel);
                let start = self.panels.as_ptr().add(panel * self.panel_bytes);
                let streams = Streams { first: start, part_bytes: self.panel_bytes, count };
                let mut sums = [[[isa.splat_f32(0.0); NR]; PANEL_ROWS]; STREAMS];
                let whole = self.k - self.k % STEPS;
                for step in (0..whole).step_by(STEPS) {
                    for i in streams.indices::<STREAMS>() {
                        let (tiles, ahead) = streams.at::<STREAMS>(i, step * Self::TILE_BYTES);
                        if asks_ahead {
                            prefetch(isa, ahead, STEPS * Self::TILE_BYTES);
                        }
                        Self::add_steps::<I, NR>(isa, tiles, x, step..step + STEPS, &mut sums[i]);
                    }
                }
                for i in streams.indices::<STREAMS>() {
                    let tiles = start.add(i * self.panel_bytes + whole * Self::TILE_BYTES);
                    Self::add_steps::<I, NR>(isa, tiles, x, whole..self.k, &mut sums[i]);
                }
                for (i, sums) in sums[..count].iter().enumerate() {
                    let (row, out) = ((panel + i) * PANEL_ROWS, columns_of(isa, sums));
                    self.y.at(first, self.row + row).store_rows(&out[..NR.min(self.m - first)], self.rows - row);
                }
            }
        }
    }

    /// Adds the products of these steps of k, whose tiles lie at `tiles`, to the sums, each rounded before it is added.
    ///
    /// # Safety
    /// The tiles are readable, and the columns `x` have the steps.
    #[inline(always)]
    pub(super) unsafe fn add_steps<I: Isa, const NR: usize>(
        isa: I,
        tiles: *const u8,
        x: [*const f32; NR],
        steps: Range<usize>,
        sums: &mut [[I::F; NR]; PANEL_ROWS],
    ) {
        for (i, step) in steps.enumerate() {
            // SAFETY: the caller's promise; a register's rows end at 16.
            unsafe {
                let tile = tiles.add(i * Self::TILE_BYTES);
                let xs: [I::F; NR] = array_of(
                    #[inline(always)]
                    |j| isa.splat_f32(*x[j].add(step)),
                );
                for r in 0..I::REGISTERS {
                    let w = FloatTile::<BITS, EXPONENT_BITS>::widen_lanes(
                        isa,
                        tile.add(r * I::LANES * (BITS as usize / 8)),
                    );
                    for j in 0..NR {
                        sums[r][j] = isa.add_f32(sums[r][j], isa.mul_f32(w, xs[j]));
                    }
                }
            }
        }
    }
}
