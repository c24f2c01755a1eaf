//! Native blocks of 16 rows, expanded for the microkernels.
//!
//! Codes of small blocks that lie in planes of bits, and signed bytes, come from the rows' bytes as they lie: these are
//! transposed, and the bits become codes with lanes as rows. Those of other formats become the integer view first.

use super::{
    stream::{LINE_BYTES, prefetch},
    tile::IntTile,
    transpose::{CodesAt, PIECE, PIECE_STEPS, RowBlocks, place},
};
use crate::{
    QuantBlock,
    format::BlockCodes,
    simd::{Isa, PANEL_ROWS},
};
use core::hint::black_box;

/// Expands the blocks of 16 rows, and asks for those that lie `ahead` blocks behind.
///
/// # Safety
/// Each row has as many blocks as the first, for which there is room at `out`.
#[inline(always)]
pub(super) unsafe fn expand_rows<F: QuantBlock<Tile = T>, T: IntTile, I: Isa, const FOLDED: bool>(
    isa: I,
    rows: &[&[F::Block]; PANEL_ROWS],
    ahead: isize,
    out: *mut T::Expanded,
) {
    let mut views = [BlockCodes::default(); PANEL_ROWS];
    for block in 0..rows[0].len() {
        // Left to itself the compiler counts 16 addresses up, most of which it spills.
        let block = black_box(block);
        // SAFETY: the caller vouches for `out`; rows have this block, and expanded blocks start with their steps.
        unsafe {
            let out = out.add(block);
            let blocks = RowBlocks::<F, I>::new(isa, rows, block);
            let asked = if block.is_multiple_of(const { asked_at_once::<F>() }) { Some(ahead) } else { None };
            read::<F, I>(isa, &blocks, asked, &mut views);
            if const { in_place::<F>() } {
                blocks.codes(
                    out.cast(),
                    #[inline(always)]
                    |codes| T::expanded_codes(isa, codes),
                );
            } else {
                viewed::<F, I>(
                    isa,
                    &views,
                    out.cast(),
                    #[inline(always)]
                    |codes| T::expanded_codes(isa, codes),
                );
            }
            T::expand_scales::<I, FOLDED>(isa, &views, out);
        }
    }
}

/// Whether codes come from where they lie: rows of superblocks come faster one after the other, so that they wait for memory
/// in turn.
const fn in_place<F: QuantBlock>() -> bool {
    matches!(CodesAt::of::<F>(), CodesAt::Bytes(_) | CodesAt::Nibbles(_))
}

/// Small blocks, as many as a line holds, are asked for at once.
const fn asked_at_once<F: QuantBlock>() -> usize {
    let blocks = LINE_BYTES / size_of::<F::Block>();
    if blocks > 1 { blocks } else { 1 }
}

/// Reads the views of the blocks, without codes that are taken from where they lie, and asks for those that lie `ahead` blocks
/// behind, if any are to be asked for.
///
/// # Safety
/// The rows have the block.
#[inline(always)]
unsafe fn read<F: QuantBlock, I: Isa>(
    isa: I,
    blocks: &RowBlocks<'_, F, I>,
    ahead: Option<isize>,
    views: &mut [BlockCodes; PANEL_ROWS],
) {
    for (row, view) in views.iter_mut().enumerate() {
        // SAFETY: there are 16 rows.
        let block = unsafe { blocks.block(row) };
        if let Some(ahead) = ahead {
            let next = block.wrapping_offset(ahead);
            prefetch(isa, next.cast(), const { asked_at_once::<F>() } * size_of::<F::Block>());
        }
        // SAFETY: as above, and the rows have the block.
        unsafe {
            if const { in_place::<F>() } {
                blocks.read_scales(row, view);
            } else {
                F::codes(&*block, view);
            }
        }
    }
}

/// Writes the steps of the codes of integer views, of which `finish` makes something else.
///
/// # Safety
/// The steps of a block are writable at `steps`.
#[inline(always)]
unsafe fn viewed<F: QuantBlock, I: Isa>(
    isa: I,
    views: &[BlockCodes; PANEL_ROWS],
    steps: *mut u8,
    finish: impl Fn(I::V) -> I::V,
) {
    for piece in 0..F::BLOCK / PIECE {
        for first in (0..PANEL_ROWS).step_by(I::LANES) {
            // SAFETY: a view has 256 codes, a register's rows end at 16, and the steps are the caller's.
            unsafe {
                let codes = isa.transpose_rows(
                    #[inline(always)]
                    |row| views.get_unchecked(first + row).codes.as_ptr().add(piece * PIECE),
                );
                for (i, codes) in codes.into_iter().enumerate() {
                    isa.store(place(steps, piece * PIECE_STEPS + i, first), finish(codes));
                }
            }
        }
    }
}
