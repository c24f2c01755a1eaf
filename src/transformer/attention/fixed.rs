//! Attention over a cache of codes: scores and weighted sums are dots of 16-bit integers.
//!
//! A block's scores are computed for all rows of a tile, then its weighted sums, so that 64 keys and then 64 values stay in
//! L1. Both are products of a register tile: up to six rows share each register of keys or values that is loaded; a
//! step of 32 multiply-adds is one `vpdpwssd` (512 bits), or one `vpmaddwd` and one addition for half as many (256). Softmax
//! weights become codes as well, with one scale for each row and block, after the values' scales are multiplied in.

use super::{QueryVectors, TILE_ROWS, Tile, seen_in};
use crate::{
    simd::{Isa, IsaTask, array_of},
    transformer::{
        codes::{self, WEIGHT_LIMIT},
        kv_cache::{BLOCK, FixedCache, FixedHead, GROUP, Pair},
        math::{self, LANES},
    },
};
use core::ops::Range;

/// Rows that go through softmax together at most, rounded up to a register.
const GROUP_ROWS: usize = 8;

/// A tile of attention over a cache of codes.
pub(super) struct Attend<'a> {
    pub tile: Tile<'a>,
    pub cache: &'a FixedCache,
    pub q: QueryVectors<'a>,
}

/// A row's values for the positions of a block, on whole cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Row<T>([T; BLOCK]);

/// What a block's scores leave for its weighted sums.
struct Weights {
    /// Codes of the rows' softmax weights.
    codes: [Row<i16>; TILE_ROWS],
    /// What a weighted sum of codes is multiplied by.
    scales: [f32; TILE_ROWS],
    /// What the sums of the blocks before are multiplied by.
    corrections: [f32; TILE_ROWS],
}

impl IsaTask for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let count = self.tile.rows.len();
        let head = self.cache.head(self.tile.queries.layer, self.tile.kv_head);
        let mut rows = Rows::new(&self.tile);
        let mut weights =
            Weights { codes: [Row([0; BLOCK]); TILE_ROWS], scales: [0.0; TILE_ROWS], corrections: [0.0; TILE_ROWS] };
        for row in 0..count {
            self.tile.out_row(row).fill(0.0);
        }
        let blocks = self.tile.blocks();
        // Where few rows share a block, its keys and values come from memory about as fast as they are used.
        let few = count <= GROUP_ROWS;
        for block in blocks.clone() {
            let part = head.block(block);
            if few {
                prefetch(isa, part.values);
            }
            let mut row = 0;
            while row < count {
                row += match count - row {
                    6.. if I::LANES == 16 => self.score::<I, 6, 4>(isa, &part, block, row, &mut rows, &mut weights),
                    4.. if I::LANES == 16 => self.score::<I, 4, 4>(isa, &part, block, row, &mut rows, &mut weights),
                    3.. if I::LANES == 16 => self.score::<I, 3, 4>(isa, &part, block, row, &mut rows, &mut weights),
                    3.. => self.score::<I, 3, 2>(isa, &part, block, row, &mut rows, &mut weights),
                    2 => self.score::<I, 2, 4>(isa, &part, block, row, &mut rows, &mut weights),
                    _ => self.score::<I, 1, 4>(isa, &part, block, row, &mut rows, &mut weights),
                };
            }
            if few && block + 1 < blocks.end {
                prefetch(isa, head.block(block + 1).keys);
            }
            let mut row = 0;
            while row < count {
                row += match count - row {
                    6.. if I::LANES == 16 => self.weigh::<I, 6, 4>(isa, &part, block, row, &rows, &weights),
                    4.. if I::LANES == 16 => self.weigh::<I, 4, 4>(isa, &part, block, row, &rows, &weights),
                    3.. if I::LANES == 16 => self.weigh::<I, 3, 4>(isa, &part, block, row, &rows, &weights),
                    3.. => self.weigh::<I, 3, 2>(isa, &part, block, row, &rows, &weights),
                    2 => self.weigh::<I, 2, 4>(isa, &part, block, row, &rows, &weights),
                    _ => self.weigh::<I, 1, 4>(isa, &part, block, row, &rows, &weights),
                };
            }
        }
        for (row, total) in rows.totals[..count].iter().enumerate() {
            let inverse = 1.0 / math::sum(total);
            for value in self.tile.out_row(row) {
                *value *= inverse;
            }
        }
    }
}

impl Attend<'_> {
    /// Takes the scores of a block into the softmax of `MR` rows; returns `MR`.
    #[inline(always)]
    fn score<I: Isa, const MR: usize, const NR: usize>(
        &self,
        isa: I,
        part: &FixedHead<'_>,
        block: usize,
        row: usize,
        rows: &mut Rows,
        weights: &mut Weights,
    ) -> usize {
        let any = rows.seen_by_any(row, MR, block);
        let heads: [usize; MR] = array_of(
            #[inline(always)]
            |r| rows.heads[row + r],
        );
        let mut scores = [Row([0.0; BLOCK]); MR];
        let mut lane = any.start / I::LANES * I::LANES;
        while lane + (NR - 1) * I::LANES < any.end {
            self.dot_keys::<I, MR, NR>(isa, part, lane, &heads, &mut scores);
            lane += NR * I::LANES;
        }
        while lane < any.end {
            self.dot_keys::<I, MR, 1>(isa, part, lane, &heads, &mut scores);
            lane += I::LANES;
        }
        let value_scales: &[f32; BLOCK] = part.value_scales.try_into().unwrap_or(&[0.0; BLOCK]);
        softmax(isa, &mut scores, value_scales, block, row, rows, weights);
        MR
    }

    /// Scores of `NR` registers' positions from `lane` on.
    #[inline(always)]
    fn dot_keys<I: Isa, const MR: usize, const NR: usize>(
        &self,
        isa: I,
        part: &FixedHead<'_>,
        lane: usize,
        heads: &[usize; MR],
        scores: &mut [Row<f32>; MR],
    ) {
        let d = self.tile.shape.head_length;
        let keys = part.keys;
        let key_scales = part.key_scales;
        let q: [&[i16]; MR] = array_of(
            #[inline(always)]
            |r| &self.q.codes[heads[r] * d..][..d],
        );
        assert!(keys.len() == BLOCK * d / 2 && key_scales.len() == BLOCK);
        assert!(lane + NR * I::LANES <= BLOCK && lane.is_multiple_of(I::LANES));
        let starts: [*const Pair; NR] = array_of(
            #[inline(always)]
            |j| {
                let position = lane + j * I::LANES;
                keys[position / GROUP * GROUP * d / 2 + position % GROUP..].as_ptr()
            },
        );
        let mut acc = [[isa.splat(0); NR]; MR];
        for i in 0..d / 2 {
            // SAFETY: a register's positions lie in one group of 16 (LANES divides 16), whose d / 2 · 16 pairs are in bounds,
            // and each q has d elements.
            unsafe {
                let key: [I::V; NR] = array_of(
                    #[inline(always)]
                    |j| isa.load(starts[j].add(i * GROUP).cast()),
                );
                for r in 0..MR {
                    let q = isa.broadcast(q[r].as_ptr().add(2 * i).cast());
                    for j in 0..NR {
                        acc[r][j] = isa.dot_i16(acc[r][j], key[j], q);
                    }
                }
            }
        }
        for r in 0..MR {
            let q_scale = isa.splat_f32(self.q.scales[heads[r]]);
            for j in 0..NR {
                let lane = lane + j * I::LANES;
                // SAFETY: `lane + LANES` ≤ 64, the length of both.
                unsafe {
                    let scale = isa.mul_f32(isa.load_f32(key_scales.as_ptr().add(lane)), q_scale);
                    isa.store_f32(scores[r].0.as_mut_ptr().add(lane), isa.mul_f32(isa.to_f32(acc[r][j]), scale));
                }
            }
        }
    }

    /// `out = out · correction + scale · Σ weight · value` over a block, for `MR` rows; returns `MR`.
    #[inline(always)]
    fn weigh<I: Isa, const MR: usize, const NR: usize>(
        &self,
        isa: I,
        part: &FixedHead<'_>,
        block: usize,
        row: usize,
        rows: &Rows,
        weights: &Weights,
    ) -> usize {
        let any = rows.seen_by_any(row, MR, block);
        if any.is_empty() {
            return MR;
        }
        let pairs = any.start / 2..any.end.div_ceil(2);
        let d = self.tile.shape.head_length;
        let mut lane = 0;
        while lane + NR * I::LANES <= d {
            self.dot_values::<I, MR, NR>(isa, part, row, lane, pairs.clone(), weights);
            lane += NR * I::LANES;
        }
        while lane < d {
            self.dot_values::<I, MR, 1>(isa, part, row, lane, pairs.clone(), weights);
            lane += I::LANES;
        }
        MR
    }

    /// [`Attend::weigh`] for `NR` registers of d from `lane` on and some pairs of positions.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn dot_values<I: Isa, const MR: usize, const NR: usize>(
        &self,
        isa: I,
        part: &FixedHead<'_>,
        row: usize,
        lane: usize,
        pairs: Range<usize>,
        weights: &Weights,
    ) {
        let d = self.tile.shape.head_length;
        let values = part.values;
        assert!(values.len() == BLOCK * d / 2 && pairs.end <= BLOCK / 2 && lane + NR * I::LANES <= d);
        let codes: [&[i16; BLOCK]; MR] = array_of(
            #[inline(always)]
            |r| &weights.codes[row + r].0,
        );
        let mut acc = [[isa.splat(0); NR]; MR];
        for pair in pairs {
            // SAFETY: `pair` < 32 and `lane + NR · LANES` ≤ d.
            unsafe {
                let value: [I::V; NR] = array_of(
                    #[inline(always)]
                    |j| isa.load(values.as_ptr().add(pair * d + lane + j * I::LANES).cast()),
                );
                for r in 0..MR {
                    let weight = isa.broadcast(codes[r].as_ptr().add(2 * pair).cast());
                    for j in 0..NR {
                        acc[r][j] = isa.dot_i16(acc[r][j], value[j], weight);
                    }
                }
            }
        }
        for r in 0..MR {
            let (scale, correction) =
                (isa.splat_f32(weights.scales[row + r]), isa.splat_f32(weights.corrections[row + r]));
            let out = &mut self.tile.out_row(row + r)[lane..][..NR * I::LANES];
            for j in 0..NR {
                // SAFETY: `out` has NR · LANES elements.
                unsafe {
                    let out = out.as_mut_ptr().add(j * I::LANES);
                    let sum = isa.mul_f32(isa.to_f32(acc[r][j]), scale);
                    isa.store_f32(out, isa.add_f32(isa.mul_f32(isa.load_f32(out), correction), sum));
                }
            }
        }
    }
}

/// Asks for all cache lines of some keys or values, which are read next.
#[inline(always)]
fn prefetch<I: Isa>(isa: I, pairs: &[Pair]) {
    for line in pairs.chunks(64 / size_of::<Pair>()) {
        isa.prefetch(line.as_ptr().cast());
    }
}

/// Takes a block's scores (in base 2) into the softmax of `MR` rows: leaves the codes of the weights, what sums of them are
/// multiplied by and what the sums before are multiplied by.
///
/// Each step is done for all rows before the next, so that the rows hide each other's latency. What is folded across lanes
/// is integers, whose order is free, and the total keeps its 16 lanes until the last block.
#[inline(always)]
fn softmax<I: Isa, const MR: usize>(
    isa: I,
    scores: &mut [Row<f32>; MR],
    value_scales: &[f32; BLOCK],
    block: usize,
    row: usize,
    rows: &mut Rows,
    weights: &mut Weights,
) {
    let seen: [(u32, u32); MR] = array_of(
        #[inline(always)]
        |r| {
            let seen = rows.seen(row + r, block);
            (seen.start as u32, seen.len() as u32)
        },
    );
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

    let mut value_peaks = [0.0; GROUP_ROWS];
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
        for lane in (0..BLOCK).step_by(I::LANES) {
            // SAFETY: `lane + LANES` ≤ 64, the length of both.
            unsafe {
                let weight = scores[r].0.as_mut_ptr().add(lane);
                let scale = isa.load_f32(value_scales.as_ptr().add(lane));
                isa.store_f32(weight, isa.mul_f32(isa.load_f32(weight), scale));
            }
        }
        if seen[r].1 < BLOCK as u32 {
            // The scales of positions that nobody sees may be anything.
            for (i, weight) in scores[r].0.iter_mut().enumerate() {
                *weight = if is_seen(r, i) { *weight } else { 0.0 };
            }
        }
        value_peaks[r] = codes::peak(&scores[r].0);
    }

    let mut inverses = [0.0; GROUP_ROWS];
    for r in 0..GROUP_ROWS {
        let scale;
        (scale, inverses[r]) = codes::scale_of_peak(value_peaks[r], WEIGHT_LIMIT);
        factors[r] *= scale;
    }
    weights.scales[row..row + MR].copy_from_slice(&factors[..MR]);
    weights.corrections[row..row + MR].copy_from_slice(&corrections[..MR]);
    for r in 0..MR {
        for (code, &weight) in weights.codes[row + r].0.iter_mut().zip(&scores[r].0) {
            *code = codes::code(weight, inverses[r]);
        }
    }
}

/// The rows of a tile.
struct Rows {
    /// The index of the row's head in `[m, heads]`.
    heads: [usize; TILE_ROWS],
    /// Positions that the row sees.
    visible: [(usize, usize); TILE_ROWS],
    /// The rows' largest scores so far.
    peaks: [f32; TILE_ROWS],
    /// The lanes of the sums of 2^(score − largest).
    totals: [[f32; LANES]; TILE_ROWS],
}

impl Rows {
    fn new(tile: &Tile<'_>) -> Rows {
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
    fn seen(&self, row: usize, block: usize) -> Range<usize> {
        seen_in(block, self.visible[row].0..self.visible[row].1)
    }

    /// Which of the block's positions any of `count` rows sees.
    #[inline(always)]
    fn seen_by_any(&self, row: usize, count: usize, block: usize) -> Range<usize> {
        // Windows move on with the rows.
        seen_in(block, self.visible[row].0..self.visible[row + count - 1].1)
    }
}
