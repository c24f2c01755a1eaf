//! The online softmax: running maxima and sums of a tile's rows, block by block.

use super::{
    TILE_ROWS, Tile,
    operand::{GROUP_ROWS, Operand, Row, Weights},
    seen_in,
};
use crate::{
    simd::{Isa, array_of},
    transformer::{
        kv_cache::BLOCK,
        math::{self, LANES},
    },
};
use core::ops::Range;

/// Takes a block's scores (in base 2) into the softmax of `MR` rows: leaves the weights as factors, what sums of them are
/// multiplied by and what the sums before are multiplied by.
///
/// Each step is done for all rows before the next, so that the rows hide each other's latency. What is folded across lanes
/// is integers, whose order is free, and the total keeps its 16 lanes until the last block.
#[inline(always)]
pub(super) fn softmax<I: Isa, E: Operand, const MR: usize>(
    isa: I,
    scores: &mut [Row<f32>; MR],
    value_scales: &[f32],
    block: usize,
    row: usize,
    rows: &mut Rows,
    weights: &mut Weights<E>,
) {
    let seen: [(u32, u32); MR] = array_of(
        #[inline(always)]
        |r| {
            let seen = rows.seen(row + r, block);
            (seen.start as u32, seen.len() as u32)
        },
    );
    assert!(!E::SCALED || value_scales.len() == BLOCK);
    let is_seen = |r: usize, position: usize| (position as u32).wrapping_sub(seen[r].0) < seen[r].1;
    let mut peaks = [f32::NEG_INFINITY; GROUP_ROWS];
    for r in 0..MR {
        if seen[r].1 < BLOCK as u32 {
            for (i, score) in scores[r].0.iter_mut().enumerate() {
                *score = if is_seen(r, i) { *score } else { f32::NEG_INFINITY };
            }
        }
        peaks[r] = math::from_ordered(scores[r].0.iter().fold(i32::MIN, |max, &score| max.max(math::ordered(score))));
    }
    for r in 0..MR {
        for weight in &mut scores[r].0 {
            *weight = math::exp2_nonpositive(*weight - peaks[r]);
        }
    }

    // What each row's block, and what came before it, are multiplied by once the larger of the two peaks is the row's.
    let (mut factors, mut corrections) = ([0.0; GROUP_ROWS], [0.0; GROUP_ROWS]);
    let mut before = [f32::NEG_INFINITY; GROUP_ROWS];
    before[..MR].copy_from_slice(&rows.peaks[row..row + MR]);
    for r in 0..GROUP_ROWS {
        let peak = if before[r] < peaks[r] { peaks[r] } else { before[r] };
        factors[r] = math::exp2_nonpositive(peaks[r] - peak);
        corrections[r] = math::exp2_nonpositive(before[r] - peak);
        before[r] = peak;
    }
    rows.peaks[row..row + MR].copy_from_slice(&before[..MR]);

    for r in 0..MR {
        if seen[r].1 == 0 {
            (factors[r], corrections[r]) = (0.0, 1.0);
            scores[r].0 = [0.0; BLOCK];
            continue;
        }
        for lane in (0..LANES).step_by(I::LANES) {
            // SAFETY: `lane + LANES` of the set ≤ 16, and a row has four times 16 elements.
            unsafe {
                let part = |quarter: usize| isa.load_f32(scores[r].0.as_ptr().add(quarter * LANES + lane));
                let sum = isa.add_f32(isa.add_f32(part(0), part(1)), isa.add_f32(part(2), part(3)));
                let total = rows.totals[row + r].as_mut_ptr().add(lane);
                let before = isa.mul_f32(isa.load_f32(total), isa.splat_f32(corrections[r]));
                isa.store_f32(total, isa.add_f32(before, isa.mul_f32(sum, isa.splat_f32(factors[r]))));
            }
        }
        if E::SCALED {
            for lane in (0..BLOCK).step_by(I::LANES) {
                // SAFETY: `lane + LANES` ≤ 64, the length of both.
                unsafe {
                    let weight = scores[r].0.as_mut_ptr().add(lane);
                    let scale = isa.load_f32(value_scales.as_ptr().add(lane));
                    isa.store_f32(weight, isa.mul_f32(isa.load_f32(weight), scale));
                }
            }
        }
        if seen[r].1 < BLOCK as u32 {
            // The scales of positions that nobody sees may be anything.
            for (i, weight) in scores[r].0.iter_mut().enumerate() {
                *weight = if is_seen(r, i) { *weight } else { 0.0 };
            }
        }
    }

    let scales = E::factors(scores, &mut weights.factors[row..row + MR]);
    for r in 0..MR {
        weights.scales[row + r] = factors[r] * scales[r];
    }
    weights.corrections[row..row + MR].copy_from_slice(&corrections[..MR]);
}

/// The rows of a tile.
pub(super) struct Rows {
    /// The index of the row's head in `[m, heads]`.
    pub heads: [usize; TILE_ROWS],
    /// Positions that the row sees.
    visible: [(usize, usize); TILE_ROWS],
    /// The rows' largest scores so far.
    peaks: [f32; TILE_ROWS],
    /// The lanes of the sums of 2^(score − largest).
    pub totals: [[f32; LANES]; TILE_ROWS],
}

impl Rows {
    pub(super) fn new(tile: &Tile<'_>) -> Rows {
        let (mut heads, mut visible) = ([0; TILE_ROWS], [(0, 0); TILE_ROWS]);
        for row in 0..tile.rows.len() {
            heads[row] = tile.head(row);
            let Range { start, end } = tile.visible(row);
            visible[row] = (start, end);
        }
        Rows { heads, visible, peaks: [f32::NEG_INFINITY; TILE_ROWS], totals: [[0.0; LANES]; TILE_ROWS] }
    }

    /// Which of the block's positions a row sees.
    #[inline(always)]
    pub(super) fn seen(&self, row: usize, block: usize) -> Range<usize> {
        seen_in(block, self.visible[row].0..self.visible[row].1)
    }

    /// Which of the block's positions any of `count` rows sees.
    #[inline(always)]
    pub(super) fn seen_by_any(&self, row: usize, count: usize, block: usize) -> Range<usize> {
        // Windows move on with the rows.
        seen_in(block, self.visible[row].0..self.visible[row + count - 1].1)
    }
}
