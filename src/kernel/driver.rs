//! The loops around the microkernels: panels, chunks of k, columns of x.

use super::{Inputs, Output, float, tile::IntTile};
use crate::{
    QuantBlock,
    format::BlockCodes,
    simd::{Isa, IsaTask, Level, PANEL_ROWS, RegisterTile},
};
use core::{mem::MaybeUninit, ops::Range};

/// A weight matrix's bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// `n` rows of blocks as they lie in the file.
    Native(&'a [u8]),
    /// Panels of 16 rows.
    Packed(&'a [u8]),
}

/// What the rows are multiplied by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operand<'a> {
    /// Quantized activations: integer kernels.
    Quantized(Inputs<'a>),
    /// `m` rows of f32.
    F32 { values: &'a [f32], m: usize },
}

/// One matmul, checked: every length fits the shapes.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    pub(crate) level: Level,
    pub(crate) weights: Weights<'a>,
    /// Rows of W to multiply; the first is a multiple of 16.
    pub(crate) rows: (usize, usize),
    pub(crate) k: usize,
    pub(crate) x: Operand<'a>,
    /// Element (0, 0) is row `rows.0` of W.
    pub(crate) y: Output,
}

impl Job<'_> {
    /// Rows of x.
    pub(crate) fn m(&self) -> usize {
        match self.x {
            Operand::Quantized(x) => x.m,
            Operand::F32 { m, .. } => m,
        }
    }

    /// Panels that the rows take.
    pub(crate) fn panels(&self) -> usize {
        super::panels_of(self.rows.1 - self.rows.0)
    }

    /// Rows of the panels from `panel` on, at most `panels` of them.
    pub(super) fn rows_in(&self, panel: usize, panels: usize) -> usize {
        (self.rows.1 - self.rows.0 - panel * PANEL_ROWS).min(panels * PANEL_ROWS)
    }

    /// The packed bytes of `panel`, given the bytes of a panel.
    pub(super) fn packed_panel<'a>(&self, packed: &'a [u8], panel: usize, panel_bytes: usize) -> &'a [u8] {
        &packed[(self.rows.0 / PANEL_ROWS + panel) * panel_bytes..][..panel_bytes]
    }

    /// Row `row` of `panel` in native blocks; rows past the last stand for the last.
    pub(super) fn native_row<'a, F: QuantBlock>(&self, native: &'a [u8], panel: usize, row: usize) -> &'a [F::Block] {
        let blocks = self.k / F::BLOCK;
        let row = (self.rows.0 + panel * PANEL_ROWS + row).min(self.rows.1 - 1);
        let row_bytes = blocks * size_of::<F::Block>();
        bytemuck::cast_slice(&native[row * row_bytes..][..row_bytes])
    }
}

/// The integer views of up to 16 blocks; rows that are missing stay zero.
pub(super) fn codes_of<F: QuantBlock>(rows: &[F::Block]) -> [BlockCodes; PANEL_ROWS] {
    let mut codes = [BlockCodes::default(); PANEL_ROWS];
    for (block, out) in rows.iter().zip(&mut codes) {
        F::codes(block, out);
    }
    codes
}

/// Bytes of scratch for each panel that is expanded at once: with the columns of x it stays in a 32 KiB L1.
const PANEL_SCRATCH_BYTES: usize = 24 << 10;
/// Panels at once, over all instruction sets.
const MAX_PANELS: usize = 2;

#[repr(C, align(64))]
struct Scratch([MaybeUninit<u8>; PANEL_SCRATCH_BYTES * MAX_PANELS]);

/// [`Tile::multiply`] for integer tiles.
pub(super) fn multiply_int<F: QuantBlock<Tile = T>, T: IntTile>(job: &Job<'_>, panels: Range<usize>) {
    match job.x {
        Operand::Quantized(x) => {
            job.level.dispatch(IntTask::<F, T> { job, x, panels, marker: core::marker::PhantomData })
        }
        Operand::F32 { values, .. } => float::multiply::<F>(job, values, panels),
    }
}

struct IntTask<'a, F, T> {
    job: &'a Job<'a>,
    x: Inputs<'a>,
    panels: Range<usize>,
    marker: core::marker::PhantomData<(F, T)>,
}

impl<F: QuantBlock<Tile = T>, T: IntTile> IsaTask for IntTask<'_, F, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.job.weights {
            Weights::Packed(packed) if self.x.m == 1 => self.decode_packed(isa, packed),
            _ => self.expand_and_multiply(isa),
        }
    }
}

impl<F: QuantBlock<Tile = T>, T: IntTile> IntTask<'_, F, T> {
    /// One column: codes are unpacked in registers, a panel is read once from its start to its end.
    #[inline(always)]
    fn decode_packed<I: Isa>(self, isa: I, packed: &[u8]) {
        let blocks = self.x.k / T::BLOCK;
        for panel in self.panels {
            let bytes = self.job.packed_panel(packed, panel, blocks * T::TILE_BYTES);
            let rows = self.job.rows_in(panel, 1);
            let mut sums = [0.0f32; PANEL_ROWS];
            // SAFETY: the panel holds `blocks` tiles, x one column of as many blocks.
            unsafe { T::multiply_packed(isa, bytes.as_ptr(), blocks, &self.x, 0, sums.as_mut_ptr()) };
            // SAFETY: these rows of y are this task's, and inside y.
            unsafe {
                let y = self.job.y.at(0, panel * PANEL_ROWS).y;
                core::ptr::copy_nonoverlapping(sums.as_ptr(), y, rows);
            }
        }
    }

    /// Any number of columns: chunks of k of a few panels are expanded once and multiplied by all columns.
    #[inline(always)]
    fn expand_and_multiply<I: Isa>(self, isa: I) {
        const { assert!(I::PANELS <= MAX_PANELS) };
        let mut scratch = Scratch([MaybeUninit::uninit(); _]);
        let expanded = scratch.0.as_mut_ptr().cast::<T::Expanded>();
        let stride = PANEL_SCRATCH_BYTES / size_of::<T::Expanded>();
        let blocks = self.x.k / T::BLOCK;
        let mut first_panel = self.panels.start;
        while first_panel < self.panels.end {
            let panels = I::PANELS.min(self.panels.end - first_panel);
            let rows = self.job.rows_in(first_panel, panels);
            let mut start = 0;
            loop {
                let chunk = start..blocks.min(start + stride);
                for p in 0..I::PANELS {
                    // A missing panel stands for the last one: its sums are not stored.
                    let panel = first_panel + p.min(panels - 1);
                    // SAFETY: a chunk has at most `stride` blocks, and there is scratch for PANELS · stride.
                    unsafe { self.expand(isa, panel, chunk.clone(), expanded.add(p * stride)) };
                }
                let mut kernel = ChunkKernel::<T> {
                    panels: expanded,
                    stride,
                    x: &self.x,
                    column: 0,
                    blocks: chunk.clone(),
                    rows,
                    y: self.job.y,
                    row: first_panel * PANEL_ROWS,
                };
                while kernel.column < self.x.m {
                    // SAFETY: the chunk is expanded, columns and rows are inside x and y, and these rows of y are this task's.
                    kernel.column += unsafe { isa.register_tile(self.x.m - kernel.column, &mut kernel) };
                }
                start = chunk.end;
                if start >= blocks {
                    break;
                }
            }
            first_panel += panels;
        }
    }

    /// Expands a chunk of one panel.
    ///
    /// # Safety
    /// `out` has room for the chunk's blocks.
    #[inline(always)]
    unsafe fn expand<I: Isa>(&self, isa: I, panel: usize, chunk: Range<usize>, out: *mut T::Expanded) {
        match self.job.weights {
            Weights::Packed(packed) => {
                let tiles = self.job.packed_panel(packed, panel, self.x.k / T::BLOCK * T::TILE_BYTES);
                for (i, block) in chunk.enumerate() {
                    let tile = &tiles[block * T::TILE_BYTES..][..T::TILE_BYTES];
                    // SAFETY: a whole tile, and the caller vouches for `out`.
                    unsafe { T::expand_packed(isa, tile.as_ptr(), out.add(i)) };
                }
            }
            Weights::Native(native) => {
                let rows: [&[F::Block]; PANEL_ROWS] =
                    core::array::from_fn(|row| &self.job.native_row::<F>(native, panel, row)[chunk.clone()]);
                let mut codes = [BlockCodes::default(); PANEL_ROWS];
                for i in 0..chunk.len() {
                    for (row, codes) in rows.iter().zip(&mut codes) {
                        F::codes(&row[i], codes);
                    }
                    // SAFETY: the caller vouches for `out`.
                    unsafe { T::expand_codes(isa, &codes, out.add(i)) };
                }
            }
        }
    }
}

/// A chunk of expanded panels times columns of x.
struct ChunkKernel<'a, T: IntTile> {
    panels: *const T::Expanded,
    stride: usize,
    x: &'a Inputs<'a>,
    column: usize,
    blocks: Range<usize>,
    rows: usize,
    y: Output,
    row: usize,
}

impl<T: IntTile> RegisterTile for ChunkKernel<'_, T> {
    #[inline(always)]
    unsafe fn run<I: Isa, const MR: usize, const NR: usize>(&mut self, isa: I) {
        // SAFETY: the driver vouches for panels, columns and rows.
        unsafe {
            let y = self.y.at(self.column, self.row);
            let acc = y.load::<I, MR, NR>(isa, self.rows, self.blocks.start == 0);
            let acc = T::multiply_expanded::<I, MR, NR>(
                isa,
                self.panels,
                self.stride,
                self.x,
                self.column,
                self.blocks.clone(),
                acc,
            );
            y.store::<I, MR, NR>(isa, self.rows, acc);
        }
    }
}
