//! Attention without a score matrix, over a cache of any element type.
//!
//! A block's scores are computed for all rows of a tile, then its weighted sums, so that 64 keys and then 64 values stay in
//! L1. Both are products of a register tile: up to six rows share each register of keys or values that is loaded. With
//! codes, a step of 32 multiply-adds is one `vpdpwssd` (512 bits), or one `vpmaddwd` and one addition for half as many
//! (256), and softmax weights become codes as well, with one scale for each row and block, after the values' scales are
//! multiplied in. With floats, a fused multiply-add does as many as a register has lanes: two operations would take up to
//! twice as long, and rounding once is something that every level can do.

use super::{
    QueryVectors, TILE_ROWS, Tile,
    operand::{GROUP_ROWS, Operand, Row, Weights},
    softmax::{Rows, softmax},
};
use crate::{
    simd::{Isa, IsaTask, array_of},
    transformer::{
        kv_cache::{BLOCK, Elements, GROUP, HeadElements},
        math,
    },
};
use core::ops::Range;

/// A tile of attention over a cache.
pub(super) struct Attend<'a, E> {
    pub tile: Tile<'a>,
    pub cache: &'a Elements<E>,
    pub q: QueryVectors<'a>,
}

/// A block of keys and values, and what is read after each of them: a loop that walks over one asks for the other, line by
/// line, so that memory is never waited for at once.
struct Block<'a, E> {
    index: usize,
    part: HeadElements<'a, E>,
    /// As long as the keys.
    after_keys: *const E,
    /// As long as the values.
    after_values: *const E,
}

impl<E: Operand> IsaTask for Attend<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (count, d) = (self.tile.rows.len(), self.tile.shape.head_length);
        let head = self.cache.head(self.tile.queries.layer, self.tile.kv_head);
        let mut rows = Rows::new(&self.tile);
        let mut weights = Weights {
            factors: [Row([E::Factor::default(); BLOCK]); TILE_ROWS],
            scales: [0.0; TILE_ROWS],
            corrections: [0.0; TILE_ROWS],
        };
        for row in 0..count {
            self.tile.out_row(rows.heads[row]).fill(0.0);
        }
        let blocks = self.tile.blocks();
        // Where few rows share a block, its keys and values come from memory about as fast as they are used.
        let few = count <= GROUP_ROWS;
        for index in blocks.clone() {
            let part = head.block(index, d);
            let next = if few && index + 1 < blocks.end { head.block(index + 1, d).keys } else { part.values };
            let after_keys = if few { part.values } else { part.keys };
            let block = Block { index, part, after_keys: after_keys.as_ptr(), after_values: next.as_ptr() };
            let (rows, weights) = (&mut rows, &mut weights);
            for_rows(isa, count, &mut Score { attend: &self, block: &block, rows, weights });
            for_rows(isa, count, &mut Weigh { attend: &self, block: &block, rows, weights });
        }
        for (row, total) in rows.totals[..count].iter().enumerate() {
            let inverse = 1.0 / math::sum(total);
            for value in self.tile.out_row(rows.heads[row]) {
                *value *= inverse;
            }
        }
    }
}

/// What is done with a block, for some rows of a tile at a time.
trait RowTile {
    /// Does it for `MR` rows from `row` on, `NR` registers of keys or of values at a time; returns `MR`.
    fn run<I: Isa, const MR: usize, const NR: usize>(&mut self, isa: I, row: usize) -> usize;
}

/// Runs `tile` over `count` rows: as many at a time as there are registers for.
#[inline(always)]
fn for_rows<I: Isa>(isa: I, count: usize, tile: &mut impl RowTile) {
    let wide = I::LANES == 16;
    let mut row = 0;
    while row < count {
        row += match count - row {
            6.. if wide => tile.run::<I, 6, 4>(isa, row),
            4.. if wide => tile.run::<I, 4, 4>(isa, row),
            3.. if wide => tile.run::<I, 3, 4>(isa, row),
            6.. => tile.run::<I, 6, 2>(isa, row),
            4.. => tile.run::<I, 4, 2>(isa, row),
            3.. => tile.run::<I, 3, 2>(isa, row),
            2 => tile.run::<I, 2, 4>(isa, row),
            _ => tile.run::<I, 1, 4>(isa, row),
        };
    }
}

/// Takes a block's scores into the softmax of the rows.
struct Score<'a, 'b, E: Operand> {
    attend: &'a Attend<'b, E>,
    block: &'a Block<'b, E>,
    rows: &'a mut Rows,
    weights: &'a mut Weights<E>,
}

impl<E: Operand> RowTile for Score<'_, '_, E> {
    #[inline(always)]
    fn run<I: Isa, const MR: usize, const NR: usize>(&mut self, isa: I, row: usize) -> usize {
        let Score { attend, block, rows, weights } = self;
        let any = rows.seen_by_any(row, MR, block.index);
        let heads: [usize; MR] = array_of(
            #[inline(always)]
            |r| rows.heads[row + r],
        );
        let mut scores = [Row([0.0; BLOCK]); MR];
        let mut lane = any.start / I::LANES * I::LANES;
        while lane + (NR - 1) * I::LANES < any.end {
            attend.dot_keys::<I, MR, NR>(isa, block, lane, &heads, &mut scores);
            lane += NR * I::LANES;
        }
        while lane < any.end {
            attend.dot_keys::<I, MR, 1>(isa, block, lane, &heads, &mut scores);
            lane += I::LANES;
        }
        softmax(isa, &mut scores, block.part.value_scales, block.index, row, rows, weights);
        MR
    }
}

/// `out = out · correction + scale · Σ weight · value` over a block.
struct Weigh<'a, 'b, E: Operand> {
    attend: &'a Attend<'b, E>,
    block: &'a Block<'b, E>,
    rows: &'a Rows,
    weights: &'a Weights<E>,
}

impl<E: Operand> RowTile for Weigh<'_, '_, E> {
    #[inline(always)]
    fn run<I: Isa, const MR: usize, const NR: usize>(&mut self, isa: I, row: usize) -> usize {
        let Weigh { attend, block, rows, weights } = *self;
        let seen = rows.seen_by_any(row, MR, block.index);
        if seen.is_empty() {
            return MR;
        }
        // What a row does not see may be anything: where a factor of zero does not hide it, it is left out.
        let cells: [(usize, usize); MR] = array_of(
            #[inline(always)]
            |r| {
                let seen = if E::ZERO_HIDES { seen.clone() } else { rows.seen(row + r, block.index) };
                (seen.start / E::TOGETHER, seen.end.div_ceil(E::TOGETHER))
            },
        );
        let d = attend.tile.shape.head_length;
        let mut lane = 0;
        while lane + NR * I::LANES <= d {
            attend.dot_values::<I, MR, NR>(isa, block, row, lane, &cells, rows, weights);
            lane += NR * I::LANES;
        }
        while lane < d {
            attend.dot_values::<I, MR, 1>(isa, block, row, lane, &cells, rows, weights);
            lane += I::LANES;
        }
        MR
    }
}

impl<E: Operand> Attend<'_, E> {
    /// Scores of `NR` registers' positions from `lane` on.
    #[inline(always)]
    fn dot_keys<I: Isa, const MR: usize, const NR: usize>(
        &self,
        isa: I,
        block: &Block<'_, E>,
        lane: usize,
        heads: &[usize; MR],
        scores: &mut [Row<f32>; MR],
    ) {
        let d = self.tile.shape.head_length;
        let HeadElements { keys, key_scales, .. } = block.part;
        let q: [&[E::Factor]; MR] = array_of(
            #[inline(always)]
            |r| &E::queries(&self.q)[heads[r] * d..][..d],
        );
        assert!(keys.len() == BLOCK * d && (!E::SCALED || key_scales.len() == BLOCK));
        assert!(lane + NR * I::LANES <= BLOCK && lane.is_multiple_of(I::LANES));
        let starts: [usize; NR] = array_of(
            #[inline(always)]
            |j| {
                let position = lane + j * I::LANES;
                position / GROUP * GROUP * d + position % GROUP * E::TOGETHER
            },
        );
        let mut acc = [[E::zero(isa); NR]; MR];
        for i in 0..d / E::TOGETHER {
            // SAFETY: a register's positions lie in one group of 16 (LANES divides 16), whose d · 16 elements are in bounds,
            // and each q has d elements.
            unsafe {
                let key: [E::Lanes<I>; NR] = array_of(
                    #[inline(always)]
                    |j| E::load(isa, keys.as_ptr().add(starts[j] + i * GROUP * E::TOGETHER)),
                );
                for j in (0..NR).step_by(GROUP / I::LANES) {
                    isa.prefetch(block.after_keys.wrapping_add(starts[j] + i * GROUP * E::TOGETHER).cast());
                }
                for r in 0..MR {
                    let q = E::broadcast(isa, q[r].as_ptr().add(E::TOGETHER * i));
                    for j in 0..NR {
                        acc[r][j] = E::add_product(isa, acc[r][j], key[j], q);
                    }
                }
            }
        }
        for r in 0..MR {
            let q_scale = isa.splat_f32(self.q.scales[heads[r]]);
            for j in 0..NR {
                let lane = lane + j * I::LANES;
                // SAFETY: `lane + LANES` ≤ 64, the length of both (scales are there if the type has them).
                unsafe {
                    let scale = if E::SCALED {
                        isa.mul_f32(isa.load_f32(key_scales.as_ptr().add(lane)), q_scale)
                    } else {
                        q_scale
                    };
                    let score = isa.mul_f32(E::to_f32(isa, acc[r][j]), scale);
                    isa.store_f32(scores[r].0.as_mut_ptr().add(lane), score);
                }
            }
        }
    }

    /// [`Weigh`] for `NR` registers of d from `lane` on; a cell is `TOGETHER` positions.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn dot_values<I: Isa, const MR: usize, const NR: usize>(
        &self,
        isa: I,
        block: &Block<'_, E>,
        row: usize,
        lane: usize,
        cells: &[(usize, usize); MR],
        rows: &Rows,
        weights: &Weights<E>,
    ) {
        let d = self.tile.shape.head_length;
        let values = block.part.values;
        assert!(values.len() == BLOCK * d && lane + NR * I::LANES <= d);
        // Those of all rows are the same up to a few at the ends.
        let (mut first, mut end) = cells[0];
        for cells in cells {
            assert!(cells.1 <= BLOCK / E::TOGETHER);
            (first, end) = (first.max(cells.0), end.min(cells.1));
        }
        let end = end.max(first);
        let factors: [&[E::Factor; BLOCK]; MR] = array_of(
            #[inline(always)]
            |r| &weights.factors[row + r].0,
        );
        let (values, after) = (&values[lane * E::TOGETHER..], block.after_values.wrapping_add(lane * E::TOGETHER));
        let mut acc = [[E::zero(isa); NR]; MR];
        // SAFETY: cells are of the block, and `lane + NR · LANES` ≤ d.
        unsafe {
            for r in 0..MR {
                let cells = cells[r].0..cells[r].1.min(first);
                acc[r] = add_cells::<I, E, 1, NR>(isa, [acc[r]], (values, after), d, [factors[r]], cells)[0];
            }
            acc = add_cells::<I, E, MR, NR>(isa, acc, (values, after), d, factors, first..end);
            for r in 0..MR {
                let cells = cells[r].0.max(end)..cells[r].1;
                acc[r] = add_cells::<I, E, 1, NR>(isa, [acc[r]], (values, after), d, [factors[r]], cells)[0];
            }
        }
        for r in 0..MR {
            if cells[r].0 >= cells[r].1 {
                continue;
            }
            let (scale, correction) =
                (isa.splat_f32(weights.scales[row + r]), isa.splat_f32(weights.corrections[row + r]));
            let out = &mut self.tile.out_row(rows.heads[row + r])[lane..][..NR * I::LANES];
            for j in 0..NR {
                // SAFETY: `out` has NR · LANES elements.
                unsafe {
                    let out = out.as_mut_ptr().add(j * I::LANES);
                    let sum = isa.mul_f32(E::to_f32(isa, acc[r][j]), scale);
                    isa.store_f32(out, isa.add_f32(isa.mul_f32(isa.load_f32(out), correction), sum));
                }
            }
        }
    }
}

/// `acc` plus the products of some cells of values, `d` apart, and of `MR` rows' factors; asks for as many cells of what is
/// read `after` them.
///
/// # Safety
/// The cells are inside a block, and `NR` registers at each are inside `values`.
#[inline(always)]
unsafe fn add_cells<I: Isa, E: Operand, const MR: usize, const NR: usize>(
    isa: I,
    mut acc: [[E::Lanes<I>; NR]; MR],
    (values, after): (&[E], *const E),
    d: usize,
    factors: [&[E::Factor; BLOCK]; MR],
    cells: Range<usize>,
) -> [[E::Lanes<I>; NR]; MR] {
    for cell in cells {
        // SAFETY: the caller vouches for the cell.
        unsafe {
            let value: [E::Lanes<I>; NR] = array_of(
                #[inline(always)]
                |j| E::load(isa, values.as_ptr().add((cell * d + j * I::LANES) * E::TOGETHER)),
            );
            isa.prefetch(after.wrapping_add(cell * d * E::TOGETHER).cast());
            for r in 0..MR {
                let factor = E::broadcast(isa, factors[r].as_ptr().add(E::TOGETHER * cell));
                for j in 0..NR {
                    acc[r][j] = E::add_product(isa, acc[r][j], value[j], factor);
                }
            }
        }
    }
    acc
}
