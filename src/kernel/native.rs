//! Decode from native blocks: rows are read one after the other, each a single stream.
//!
//! A row's blocks become codes, their products with x the *terms* of the row's sum; the terms of 16 rows are then added
//! with lanes as rows, in increasing k, as the packed kernels add them. Where registers take codes in another order than the
//! row's, x's are put in that order once a task.

use super::{
    Inputs,
    driver::Job,
    prefetch::{prefetch_ahead, prefetch_near},
    tile::{IntTile, Tile},
};
use crate::{
    QuantBlock,
    format::BlockCodes,
    simd::{Isa, PANEL_ROWS, VECTOR_BYTES, array_of},
};
use core::{mem::MaybeUninit, ops::Range};

/// Terms of a row that are kept at a time.
pub(super) const TERMS: usize = 256;
/// Rows that [`Isa::interleave_rows`] gives at once.
const STEPS: usize = 8;

/// Codes of x that are put in another order at a time: chunks of terms do not straddle them.
const WINDOW_CODES: usize = 1 << 16;

/// Codes of x in the order in which registers of native codes meet them.
#[repr(C, align(64))]
pub struct Window([MaybeUninit<u8>; WINDOW_CODES]);

impl Window {
    /// Takes x's codes from code `first` on as [`interleave_runs`] gives them; returns where code 0 would be.
    #[inline(always)]
    pub fn fill<const RUN: usize>(&mut self, x: &Inputs<'_>, first: usize, groups: usize, parts: usize) -> *const u8 {
        let codes: &[u8] = bytemuck::cast_slice(&x.arrays.codes[first / 4..x.k.min(first + WINDOW_CODES) / 4]);
        // SAFETY: there is room for a window's codes.
        unsafe { interleave_runs::<RUN>(codes, self.0.as_mut_ptr().cast(), groups, parts) };
        self.0.as_ptr().cast::<u8>().wrapping_sub(first)
    }
}

/// Of each `groups · parts` runs of `RUN` codes, the first of each group of `parts`, then the second of each, …; runs that
/// are left over are left out.
///
/// # Safety
/// There is room for as many codes at `to`, which do not overlap.
#[inline(always)]
pub unsafe fn interleave_runs<const RUN: usize>(codes: &[u8], to: *mut u8, groups: usize, parts: usize) {
    let span = groups * parts;
    let to = to.cast::<[u8; RUN]>();
    for (s, runs) in codes.as_chunks::<RUN>().0.chunks_exact(span).enumerate() {
        for (i, run) in runs.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { to.add(s * span + i % parts * groups + i / parts).write(*run) };
        }
    }
}

#[repr(C, align(64))]
struct Terms([f32; TERMS * PANEL_ROWS + PANEL_ROWS]);

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
    const IN_PLACE: Option<usize> = if F::Tile::GROUP < F::BLOCK { None } else { F::SIGNED_CODES_AT };

    /// Reads `block`, and asks for what comes after it.
    #[inline(always)]
    pub fn read<I: Isa>(isa: I, block: &'a F::Block) -> Self {
        let (first, bytes) = ((&raw const *block).cast(), size_of::<F::Block>());
        prefetch_ahead(isa, first, bytes);
        let mut view = BlockCodes::default();
        if Self::IN_PLACE.is_some() {
            prefetch_near(isa, first, bytes);
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
        const {
            if let Some(at) = F::SIGNED_CODES_AT {
                assert!(at + F::BLOCK <= size_of::<F::Block>());
            }
        }
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
    let blocks = x.k / T::BLOCK;
    let tail = (!blocks.is_multiple_of(I::LANES)).then(
        #[inline(always)]
        || T::tail::<F, I>(x, blocks % I::LANES),
    );
    let mut window = Window([MaybeUninit::uninit(); _]);
    let mut codes = T::order::<F, I>(x, 0, &mut window);
    let mut terms = Terms([0.0; _]);
    for panel in panels {
        let rows = job.rows_in(panel, 1);
        let mut sums = [0.0f32; PANEL_ROWS];
        for start in (0..blocks).step_by(TERMS) {
            let chunk = start..blocks.min(start + TERMS);
            if x.k > WINDOW_CODES && (start * T::BLOCK).is_multiple_of(WINDOW_CODES) {
                codes = T::order::<F, I>(x, start, &mut window);
            }
            let blocks: [&[F::Block]; PANEL_ROWS] = array_of(
                #[inline(always)]
                |row| &job.native_row::<F>(native, panel, row)[chunk.clone()],
            );
            // SAFETY: x has one row of all blocks, and ends with the last chunk, the only one that may have a tail.
            let stride = unsafe {
                T::row_terms::<F, I>(isa, &blocks[..rows], (x, codes), start, tail.as_ref(), terms.0.as_mut_ptr())
            };
            add_terms(isa, &terms, stride, chunk.len(), &mut sums);
        }
        // SAFETY: these rows of y are this task's, and inside y.
        unsafe { core::ptr::copy_nonoverlapping(sums.as_ptr(), job.y.at(0, panel * PANEL_ROWS).y, rows) };
    }
}

/// Adds the first `count` terms of each row, `stride` floats apart, to its sum, in their order.
#[inline(always)]
fn add_terms<I: Isa>(isa: I, terms: &Terms, stride: usize, count: usize, sums: &mut [f32; PANEL_ROWS]) {
    for start in (0..count).step_by(STEPS) {
        let mut columns = Columns([[0.0; PANEL_ROWS]; STEPS]);
        // SAFETY: a register follows the last row's terms; 8 vectors are at the columns, a register's rows end at 16.
        unsafe {
            let from = terms.0.as_ptr().add(start).cast();
            isa.interleave_rows(from, stride * size_of::<f32>(), (&raw mut columns.0).cast());
            for rows in (0..PANEL_ROWS).step_by(I::LANES) {
                let mut sum = isa.load_f32(sums.as_ptr().add(rows));
                for column in 0..STEPS.min(count - start) {
                    sum = isa.add_f32(sum, isa.load_f32(columns.0[column].as_ptr().add(rows)));
                }
                isa.store_f32(sums.as_mut_ptr().add(rows), sum);
            }
        }
    }
}
