//! Decode from native blocks: rows are read one after the other, or four at once where that is faster (`stream`).
//!
//! A row's blocks become codes, their products with x the *terms* of the row's sum; the terms of 16 rows are then added
//! with lanes as rows, in increasing k, as the packed kernels add them. The 16 rows are one run of blocks, which registers take
//! without regard to where a row ends: a CPU that has to come back for what rows end in loses the stream. Where registers take
//! codes in another order than the row's, x's are put in that order once a task.

use super::{
    Inputs,
    driver::Job,
    stream::prefetch_near,
    tile::{IntTile, Tile},
};
use crate::{
    QuantBlock,
    format::{BlockCodes, signed_codes_at},
    simd::{Isa, PANEL_ROWS, VECTOR_BYTES},
};
use core::{mem::MaybeUninit, ops::Range};

/// Terms of a row that are kept at a time: longer rows are no longer one run.
pub(super) const TERMS: usize = 512;
/// Rows that [`Isa::interleave_rows`] gives at once.
const STEPS: usize = 8;

/// Codes of x that are put in another order at a time.
const WINDOW_CODES: usize = 1 << 15;

/// What of x is put in the order in which registers of native codes meet it.
#[repr(C, align(64))]
pub struct Window {
    /// Codes, and 32 more for each lane but one.
    pub codes: [MaybeUninit<u8>; WINDOW_CODES + 32 * PANEL_ROWS],
    /// Scales, their products with sums of codes, and negated sums of blocks of 32, and one more for each lane but one.
    pub numbers: [[MaybeUninit<u32>; WINDOW_CODES / 32 + PANEL_ROWS]; 3],
}

impl Window {
    /// x's codes from code `first` on, as many as are put in order at a time.
    #[inline(always)]
    pub fn codes_of<'a>(x: &Inputs<'a>, first: usize) -> &'a [u8] {
        bytemuck::cast_slice(&x.arrays.codes[first / 4..x.k.min(first + WINDOW_CODES) / 4])
    }

    /// Takes these codes as [`interleave_runs`] gives them; returns where the first one is.
    #[inline(always)]
    pub fn interleave<const RUN: usize>(
        &mut self,
        x: &Inputs<'_>,
        first: usize,
        groups: usize,
        parts: usize,
    ) -> *const u8 {
        let to = self.codes.as_mut_ptr().cast();
        // SAFETY: there is room for them.
        unsafe { interleave_runs::<RUN>(Self::codes_of(x, first), to, groups, parts) };
        to
    }

    /// Puts `from`'s numbers, as many as blocks are put in order at a time, and those of the first lanes again behind them, to
    /// the `i`th place: registers that take blocks of two rows go around. Returns where the first one is.
    #[inline(always)]
    pub fn around<T: bytemuck::NoUninit>(&mut self, i: usize, from: &[T], places: usize) -> *const T {
        const { assert!(size_of::<T>() == 4) };
        let to = &mut self.numbers[i];
        fill_around(bytemuck::cast_slice(from), &mut to[..places]);
        to.as_ptr().cast()
    }
}

/// Puts `from`, and again from its start on, to the places.
#[inline(always)]
pub(super) fn fill_around<T: Copy>(from: &[T], to: &mut [MaybeUninit<T>]) {
    for to in to.chunks_mut(from.len().max(1)) {
        for (to, from) in to.iter_mut().zip(from) {
            to.write(*from);
        }
    }
}

/// Of each `groups · parts` runs of `RUN` codes, the first of each group of `parts`, then the second of each, …; runs that
/// are left over are left out.
///
/// # Safety
/// There is room for as many codes at `to`, which do not overlap.
#[inline(always)]
unsafe fn interleave_runs<const RUN: usize>(codes: &[u8], to: *mut u8, groups: usize, parts: usize) {
    let span = groups * parts;
    let to = to.cast::<[u8; RUN]>();
    for (s, runs) in codes.as_chunks::<RUN>().0.chunks_exact(span).enumerate() {
        for (i, run) in runs.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { to.add(s * span + i % parts * groups + i / parts).write(*run) };
        }
    }
}

/// Terms of 16 rows, and a register behind them.
#[repr(C, align(64))]
struct Terms([MaybeUninit<f32>; TERMS * PANEL_ROWS + PANEL_ROWS]);

#[repr(C, align(64))]
struct Columns([[f32; PANEL_ROWS]; STEPS]);

/// A block of a row while it is decoded.
///
/// It is made where it is multiplied, so that its codes go from register to register.
pub(super) struct NativeBlock<'a, F: QuantBlock> {
    block: &'a F::Block,
    /// The integer view; of one whose codes are read in the block, `d` and `dmin` alone.
    pub view: BlockCodes,
}

impl<'a, F: QuantBlock> NativeBlock<'a, F> {
    /// Where in the block the codes are read, if not in [`Self::view`]: as signed bytes.
    pub const IN_PLACE: Option<usize> = {
        let at = signed_codes_at::<F>();
        if F::Tile::GROUP < F::BLOCK { None } else { at }
    };

    /// Reads `block`.
    #[inline(always)]
    pub fn read<I: Isa>(isa: I, block: &'a F::Block) -> Self {
        let mut view = BlockCodes::default();
        if const { Self::IN_PLACE.is_some() } {
            prefetch_near(isa, (&raw const *block).cast(), size_of::<F::Block>());
            [view.d, view.dmin] = F::scales(block);
        } else {
            F::codes(block, &mut view);
        }
        NativeBlock { block, view }
    }

    /// Where the block starts.
    #[inline(always)]
    pub fn bytes(&self) -> *const u8 {
        (&raw const *self.block).cast()
    }

    /// Where the codes lie.
    #[inline(always)]
    pub fn codes(&self) -> *const u8 {
        match Self::IN_PLACE {
            Some(at) => self.bytes().wrapping_add(at),
            None => self.view.codes.as_ptr(),
        }
    }

    /// Codes that were loaded from [`Self::codes`], as unsigned ones.
    #[inline(always)]
    pub fn unsigned<I: Isa>(isa: I, codes: I::V) -> I::V {
        if Self::IN_PLACE.is_some() { isa.xor(codes, isa.splat(0x8080_8080u32 as i32)) } else { codes }
    }
}

/// Multiplies the rows of `panels` by the only row of x.
#[inline(always)]
pub(super) fn decode<F: QuantBlock<Tile = T>, T: IntTile, I: Isa>(
    isa: I,
    job: &Job<'_>,
    native: &[u8],
    x: &Inputs<'_>,
    panels: Range<usize>,
) {
    const { assert!(VECTOR_BYTES == PANEL_ROWS * 4) };
    let (blocks, window_blocks) = (x.k / T::BLOCK, WINDOW_CODES / T::BLOCK);
    let chunk = blocks.min(TERMS).min(window_blocks);
    let mut window = Window { codes: [MaybeUninit::uninit(); _], numbers: [[MaybeUninit::uninit(); _]; _] };
    let mut operand = T::operand::<F, I>(x, 0, &mut window);
    let mut terms = Terms([MaybeUninit::uninit(); _]);
    // Of rows that a panel lacks, nobody reads the sums.
    terms.0[..(chunk + 1) * PANEL_ROWS].fill(MaybeUninit::new(0.0));
    let terms: *mut f32 = terms.0.as_mut_ptr().cast();
    for panel in panels {
        let rows = job.rows_in(panel, 1);
        let native = job.native_rows::<F>(native, panel, rows);
        let mut sums = [0.0f32; PANEL_ROWS];
        for start in (0..blocks).step_by(chunk.max(1)) {
            let len = chunk.min(blocks - start);
            if blocks > window_blocks && start.is_multiple_of(window_blocks) {
                operand = T::operand::<F, I>(x, start, &mut window);
            }
            let (runs, run) = if len == blocks { (1, rows * len) } else { (rows, len) };
            for row in 0..runs {
                let run = &native[row * blocks + start..][..run];
                // SAFETY: the window has the chunk; there is room for the terms of as many rows and a register.
                unsafe {
                    T::run_terms::<F, I>(
                        isa,
                        run,
                        operand,
                        start % window_blocks..start % window_blocks + len,
                        terms.add(row * len),
                    )
                };
            }
            // SAFETY: all rows' terms are there, or zeros, and a register.
            unsafe { add_terms(isa, terms, len, &mut sums) };
        }
        // SAFETY: these rows of y are this task's, and inside y.
        unsafe { job.y.at(0, panel * PANEL_ROWS).store_rows(&[sums], rows) };
    }
}

/// Adds `count` terms of each row, which follow those of the row before, to its sum, in their order.
///
/// # Safety
/// Those of 16 rows and a register are readable.
#[inline(always)]
unsafe fn add_terms<I: Isa>(isa: I, terms: *const f32, count: usize, sums: &mut [f32; PANEL_ROWS]) {
    let narrow = isa.narrow();
    for start in (0..count).step_by(STEPS) {
        let mut columns = Columns([[0.0; PANEL_ROWS]; STEPS]);
        // SAFETY: a register follows the last row's terms; 8 vectors are at the columns, a register's rows end at 16.
        unsafe {
            let from = terms.add(start).cast();
            isa.interleave_rows::<PANEL_ROWS>(from, count * size_of::<f32>(), (&raw mut columns.0).cast());
            // Half of the rows at a time, as they were stored: loads of both halves would wait for the stores to end.
            for rows in (0..PANEL_ROWS).step_by(I::Narrow::LANES) {
                let mut sum = narrow.load_f32(sums.as_ptr().add(rows));
                for column in 0..STEPS.min(count - start) {
                    sum = narrow.add_f32(sum, narrow.load_f32(columns.0[column].as_ptr().add(rows)));
                }
                narrow.store_f32(sums.as_mut_ptr().add(rows), sum);
            }
        }
    }
}
