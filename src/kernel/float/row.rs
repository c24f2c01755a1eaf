//! Native rows of floats times a few columns of x: a line of each of 16 rows becomes tiles of a packed panel, which stay in the
//! first-level cache.
//!
//! Instructions for 64 products with AVX-512, from the assembly: 49 (F32), 36 (F16), 33 (BF16), with the prefetches; all but 12
//! turn weights around, 6 to 12 of them shuffles, for which Intel's servers have one port. Of one column the sums limit as much:
//! each waits for the one before.

use super::{
    super::{
        driver::Job,
        group_columns,
        output::columns_of,
        stream::{LINE_BYTES, ask_for_bursts},
        tile::FloatTile,
    },
    panel::PanelKernel,
};
use crate::simd::{Isa, IsaTask, PANEL_ROWS, RegisterTile, array_of};
use core::{mem::MaybeUninit, ops::Range, slice};

/// Native rows times `values`, `[m, k]`, of no more than a group of columns: as many panels as are whole.
pub(super) struct RowTask<'a, const BITS: u32, const EXPONENT_BITS: u32> {
    pub job: &'a Job<'a>,
    /// The rows of all panels.
    pub rows: &'a [u8],
    pub values: &'a [f32],
    pub m: usize,
    pub panels: Range<usize>,
}

impl<const BITS: u32, const EXPONENT_BITS: u32> IsaTask for RowTask<'_, BITS, EXPONENT_BITS> {
    /// The panels that are left.
    type Output = Range<usize>;

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) -> Range<usize> {
        // Columns of several runs would have the rows turned around as often.
        if self.m > I::RUN_COLUMNS {
            return self.panels;
        }
        let whole = self.panels.start + self.job.rows_in(self.panels.start, self.panels.len()) / PANEL_ROWS;
        let left = whole..self.panels.end;
        self.panels.end = whole;
        // SAFETY: the panels are whole, x has the columns, and these rows of y are this task's.
        unsafe { isa.column_tile(group_columns(0, self.m), &mut self) };
        left
    }
}

/// A line of 16 rows as tiles, of floats that may be twice as wide.
#[repr(C, align(64))]
struct Tiles([MaybeUninit<u8>; PANEL_ROWS * LINE_BYTES * 2]);

/// What is left of 16 rows behind their last whole lines.
#[repr(C, align(64))]
struct Tails([[u8; LINE_BYTES]; PANEL_ROWS]);

impl<const BITS: u32, const EXPONENT_BITS: u32> RegisterTile for RowTask<'_, BITS, EXPONENT_BITS> {
    #[inline(always)]
    unsafe fn run<I: Isa, const MR: usize, const NR: usize, const W: usize>(&mut self, isa: I, first: usize) {
        if first >= self.m {
            return;
        }
        isa.outlined(
            #[inline(always)]
            || {
                let row_bytes = self.job.k * Self::WEIGHT_BYTES;
                for (i, panel) in self.panels.clone().enumerate() {
                    // SAFETY: x has the column, the panel is whole, and the caller vouches for y.
                    unsafe {
                        let rows = self.rows.as_ptr().add(i * PANEL_ROWS * row_bytes);
                        let out = columns_of(isa, &self.sums::<I, NR>(isa, rows, row_bytes, first));
                        let y = self.job.y.at(first, panel * PANEL_ROWS);
                        y.store_rows(&out[..NR.min(self.m - first)], PANEL_ROWS);
                    }
                }
            },
        );
    }
}

impl<const BITS: u32, const EXPONENT_BITS: u32> RowTask<'_, BITS, EXPONENT_BITS> {
    const WEIGHT_BYTES: usize = FloatTile::<BITS, EXPONENT_BITS>::BYTES;

    /// The sums of 16 rows for `NR` columns from column `first` on; a column past the last stands for it.
    ///
    /// # Safety
    /// The rows are readable, and x has the first column.
    #[inline(always)]
    unsafe fn sums<I: Isa, const NR: usize>(
        &self,
        isa: I,
        rows: *const u8,
        row_bytes: usize,
        first: usize,
    ) -> [[I::F; NR]; PANEL_ROWS] {
        let mut sums = [[isa.splat_f32(0.0); NR]; PANEL_ROWS];
        // SAFETY: columns are inside x.
        let x: [*const f32; NR] = array_of(
            #[inline(always)]
            |j| unsafe { self.values.as_ptr().add((first + j).min(self.m - 1) * self.job.k) },
        );
        let line_steps = LINE_BYTES / Self::WEIGHT_BYTES;
        let whole = row_bytes - row_bytes % LINE_BYTES;
        for line in (0..whole).step_by(LINE_BYTES) {
            ask_for_bursts(
                isa,
                #[inline(always)]
                |row| rows.wrapping_add(row * row_bytes),
                row_bytes,
                line,
            );
            let step = line / Self::WEIGHT_BYTES;
            // SAFETY: rows have the line, and columns of x its steps.
            unsafe { Self::add_line(isa, rows.add(line), row_bytes, x, step..step + line_steps, &mut sums) };
        }
        if whole < row_bytes {
            let mut tails = Tails([[0; LINE_BYTES]; PANEL_ROWS]);
            for (row, tail) in tails.0.iter_mut().enumerate() {
                // SAFETY: the row ends there.
                let left = unsafe { slice::from_raw_parts(rows.add(row * row_bytes + whole), row_bytes - whole) };
                tail[..left.len()].copy_from_slice(left);
            }
            let (rows, steps) = (tails.0.as_ptr().cast(), whole / Self::WEIGHT_BYTES..self.job.k);
            // SAFETY: as above, of steps that x has.
            unsafe { Self::add_line(isa, rows, LINE_BYTES, x, steps, &mut sums) };
        }
        sums
    }

    /// Adds the products of these steps of k, which a line of each of 16 rows, `row_bytes` apart, starts with, to the sums.
    ///
    /// # Safety
    /// The lines are readable, and the columns `x` have the steps.
    #[inline(always)]
    unsafe fn add_line<I: Isa, const NR: usize>(
        isa: I,
        rows: *const u8,
        row_bytes: usize,
        x: [*const f32; NR],
        steps: Range<usize>,
        sums: &mut [[I::F; NR]; PANEL_ROWS],
    ) {
        let mut tiles = Tiles([MaybeUninit::uninit(); _]);
        let tiles = tiles.0.as_mut_ptr().cast();
        // SAFETY: there is room for tiles of 32-bit floats; the rest is the caller's promise.
        unsafe {
            // bf16 is widened before it is stored: a shift instead of a shuffle.
            if const { BITS == 16 && EXPONENT_BITS == 8 } {
                FloatTile::<BITS, EXPONENT_BITS>::turn::<I, true>(
                    isa,
                    #[inline(always)]
                    |row| rows.add(row * row_bytes),
                    tiles,
                );
                PanelKernel::<32, EXPONENT_BITS>::add_steps(isa, tiles, x, steps, sums);
            } else {
                FloatTile::<BITS, EXPONENT_BITS>::turn::<I, false>(
                    isa,
                    #[inline(always)]
                    |row| rows.add(row * row_bytes),
                    tiles,
                );
                PanelKernel::<BITS, EXPONENT_BITS>::add_steps(isa, tiles, x, steps, sums);
            }
        }
    }
}
