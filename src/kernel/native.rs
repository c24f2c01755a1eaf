//! Decode from native blocks: rows are read one after the other, each a single stream.
//!
//! A row's blocks become codes, their products with x the *terms* of the row's sum; the terms of 16 rows are then added
//! with lanes as rows, in increasing k, as the packed kernels add them.

use super::{
    Inputs,
    driver::Job,
    flat::prefetch,
    tile::{IntTile, RowBlocks},
};
use crate::{
    QuantBlock,
    format::BlockCodes,
    simd::{Isa, PANEL_ROWS, VECTOR_BYTES},
};
use core::ops::Range;

/// Terms of a row that are kept at a time.
const TERMS: usize = 256;
/// Rows that [`Isa::interleave_rows`] gives at once.
const STEPS: usize = 8;

#[repr(C, align(64))]
struct Terms([[f32; TERMS + PANEL_ROWS]; PANEL_ROWS]);

#[repr(C, align(64))]
struct Columns([[f32; PANEL_ROWS]; STEPS]);

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
    let mut codes = [BlockCodes::default(); PANEL_ROWS];
    let mut terms = Terms([[0.0; TERMS + PANEL_ROWS]; PANEL_ROWS]);
    for panel in panels {
        let rows = job.rows_in(panel, 1);
        let mut sums = [0.0f32; PANEL_ROWS];
        for start in (0..blocks).step_by(TERMS) {
            let chunk = start..blocks.min(start + TERMS);
            for row in 0..rows {
                let blocks = &job.native_row::<F>(native, panel, row)[chunk.clone()];
                let whole = blocks.len() / I::LANES * I::LANES;
                let mut first = 0;
                while first < blocks.len() {
                    let out = &mut terms.0[row][first..];
                    // Two calls, so that the length of the first is a constant.
                    // SAFETY: x has one row of all blocks, and LANES terms follow each one below TERMS.
                    unsafe {
                        if first < whole {
                            let some = &blocks[first..first + I::LANES];
                            multiply::<F, T, I>(isa, some, I::LANES, x, chunk.start + first, &mut codes, out);
                        } else {
                            let some = &blocks[first..];
                            multiply::<F, T, I>(isa, some, some.len(), x, chunk.start + first, &mut codes, out);
                        }
                    }
                    first += I::LANES;
                }
            }
            add_terms(isa, &terms, chunk.len(), &mut sums);
        }
        // SAFETY: these rows of y are this task's, and inside y.
        unsafe { core::ptr::copy_nonoverlapping(sums.as_ptr(), job.y.at(0, panel * PANEL_ROWS).y, rows) };
    }
}

/// The terms of `len` ≤ LANES blocks of a row, block `first_block` of k and following.
///
/// # Safety
/// The blocks are inside the only row of x, and `terms` has room for LANES.
#[inline(always)]
unsafe fn multiply<F: QuantBlock<Tile = T>, T: IntTile, I: Isa>(
    isa: I,
    blocks: &[F::Block],
    len: usize,
    x: &Inputs<'_>,
    first_block: usize,
    codes: &mut [BlockCodes; PANEL_ROWS],
    terms: &mut [f32],
) {
    const {
        if let Some(at) = F::SIGNED_CODES_AT {
            assert!(at + F::BLOCK <= size_of::<F::Block>());
        }
    }
    // Where they lie, LANES blocks have their codes; a shorter rest of the row is copied.
    let in_place = F::SIGNED_CODES_AT.filter(
        #[inline(always)]
        |_| !T::GROUP_SCALES && len == I::LANES,
    );
    // Large blocks that nothing is done with here are asked for where they are multiplied.
    let prefetch_bytes = if in_place.is_some() && F::BLOCK > 32 { size_of::<F::Block>() } else { 0 };
    let (mut d, mut dmin) = ([0; PANEL_ROWS], [0; PANEL_ROWS]);
    for b in 0..len {
        // One by one: a burst would fill the buffers of the misses.
        if prefetch_bytes == 0 {
            prefetch(isa, (&raw const blocks[b]).cast(), size_of::<F::Block>());
        }
        if in_place.is_some() {
            [d[b], dmin[b]] = F::scales(&blocks[b]);
        } else {
            F::codes(&blocks[b], &mut codes[b]);
        }
    }
    if in_place.is_none() {
        // Behind the loop above, which compiles to worse code with this in it.
        for b in 0..len {
            (d[b], dmin[b]) = (codes[b].d, codes[b].dmin);
        }
    }
    let (first, stride_bytes) = match in_place {
        Some(at) => (blocks.as_ptr().cast::<u8>().wrapping_add(at), size_of::<F::Block>()),
        None => ((&raw const codes[0].codes).cast(), size_of::<BlockCodes>()),
    };
    let row =
        RowBlocks { codes: first, stride_bytes, signed: in_place.is_some(), prefetch_bytes, groups: codes, d, dmin };
    // SAFETY: LANES blocks of codes are in `codes` or in `blocks`; the rest is the caller's promise.
    unsafe { T::row_terms(isa, &row, x, first_block, len, terms.as_mut_ptr()) };
}

/// Adds the first `count` terms of each row to its sum, in their order.
#[inline(always)]
fn add_terms<I: Isa>(isa: I, terms: &Terms, count: usize, sums: &mut [f32; PANEL_ROWS]) {
    for start in (0..count).step_by(STEPS) {
        let mut columns = Columns([[0.0; PANEL_ROWS]; STEPS]);
        // SAFETY: TERMS is a multiple of STEPS: 32 bytes in each row, 8 vectors at the columns; a register's rows end at 16.
        unsafe {
            let from = (&raw const terms.0[0][start]).cast();
            isa.interleave_rows(from, size_of_val(&terms.0[0]), (&raw mut columns.0).cast());
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
