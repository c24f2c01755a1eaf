//! Causal attention over the KV cache, without a score matrix.
//!
//! A query walks over its keys in blocks of 64 positions with a running maximum and sum (the online softmax of
//! FlashAttention). Blocks lie at fixed absolute positions and every sum has a fixed order, so a query's result does not
//! depend on how many queries are computed with it, on the threads or on the instruction set.
//!
//! The unit of work is a tile: some rows of one KV head, a row being one query of one of the heads that share it. Rows of
//! a tile that see the same keys of a block go through registers together, at most four at a time, so that keys and
//! values are loaded and widened once for them.

use super::{
    kv_cache::{BLOCK, KEY_LANES, KvCache, KvElement, KvElements},
    math,
};
use crate::{
    executor::Executor,
    kernel::SharedMut,
    simd::{Isa, IsaTask, Level},
};
use core::{array::from_fn, ops::Range};

/// Rows of a tile at most.
const TILE_ROWS: usize = 32;
/// Multiply-adds below which other threads are not woken.
const SERIAL_WORK: usize = 1 << 16;

/// What attention has to know of its queries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queries {
    /// Which layer of the cache they look at.
    pub layer: usize,
    /// Position of the first.
    pub start: usize,
    /// How many there are.
    pub m: usize,
    /// Query heads; a multiple of the KV heads.
    pub heads: usize,
    /// Positions that a query sees, itself included; `None`: all.
    pub window: Option<usize>,
}

impl Queries {
    /// Positions that query `i` sees.
    #[inline(always)]
    fn visible(&self, i: usize) -> Range<usize> {
        let end = self.start + i + 1;
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }
}

/// `out = softmax(q · Kᵀ) · V` per head; `q` and `out` are `[m, heads · d]`, `q` already scaled by 1/√d.
pub(crate) fn attend(level: Level, cache: &KvCache, queries: Queries, q: &[f32], out: &mut [f32], ex: &impl Executor) {
    match cache {
        KvCache::F16(cache) => attend_elements(level, cache, queries, q, out, ex),
        KvCache::F32(cache) => attend_elements(level, cache, queries, q, out, ex),
    }
}

fn attend_elements<E: KvElement>(
    level: Level,
    cache: &KvElements<E>,
    queries: Queries,
    q: &[f32],
    out: &mut [f32],
    ex: &impl Executor,
) {
    let kv_heads = cache.shape.kv_heads;
    let rows = queries.m * (queries.heads / kv_heads);
    let seen = queries.visible(queries.m.saturating_sub(1)).len();
    let tile_rows = (rows * kv_heads).div_ceil(2 * ex.threads()).clamp(1, TILE_ROWS);
    let tiles = rows.div_ceil(tile_rows);
    let out = SharedMut::new(out);
    let task = |task: usize| {
        let (kv_head, tile) = (task % kv_heads, task / kv_heads);
        let rows = tile * tile_rows..rows.min((tile + 1) * tile_rows);
        level.dispatch(Tile { cache, queries, kv_head, rows, q, out: &out });
    };
    let tasks = tiles * kv_heads;
    if rows * kv_heads * seen * cache.shape.head_length < SERIAL_WORK {
        (0..tasks).for_each(task);
    } else {
        ex.run(tasks, &task);
    }
}

/// Rows `rows` of KV head `kv_head`; row r is query `r / group` of head `kv_head · group + r % group`.
struct Tile<'a, E> {
    cache: &'a KvElements<E>,
    queries: Queries,
    kv_head: usize,
    rows: Range<usize>,
    q: &'a [f32],
    out: &'a SharedMut<'a, f32>,
}

/// Softmax state of a row: the largest score so far and the sum of exp(score − largest).
#[derive(Clone, Copy)]
struct Running {
    peak: f32,
    total: f32,
}

impl<E: KvElement> IsaTask for Tile<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let d = self.cache.shape.head_length;
        let count = self.rows.len();
        let mut running = [Running { peak: f32::NEG_INFINITY, total: 0.0 }; TILE_ROWS];
        for row in 0..count {
            self.out_row(row).fill(0.0);
        }
        let first = (0..count).map(|row| self.visible(row).start).min().unwrap_or(0) / BLOCK;
        let last = (0..count).map(|row| self.visible(row).end).max().unwrap_or(0).div_ceil(BLOCK);
        for block in first..last {
            let mut row = 0;
            while row < count {
                let seen = self.visible_in(row, block);
                let same = (1..4.min(count - row)).take_while(|&i| self.visible_in(row + i, block) == seen).count() + 1;
                if !seen.is_empty() {
                    let running = &mut running[row..row + same];
                    match same {
                        1 => self.step::<I, 1, 4>(isa, block, seen, row, running),
                        2 => self.step::<I, 2, 4>(isa, block, seen, row, running),
                        3 => self.step::<I, 3, 2>(isa, block, seen, row, running),
                        _ => self.step::<I, 4, 2>(isa, block, seen, row, running),
                    }
                }
                row += same;
            }
        }
        for (row, running) in running[..count].iter().enumerate() {
            let inverse = 1.0 / running.total;
            let out = self.out_row(row);
            debug_assert_eq!(out.len(), d);
            for value in out {
                *value *= inverse;
            }
        }
    }
}

impl<E: KvElement> Tile<'_, E> {
    /// Where a row of the tile starts in q and out.
    #[inline(always)]
    fn offset(&self, row: usize) -> usize {
        let group = self.queries.heads / self.cache.shape.kv_heads;
        let row = self.rows.start + row;
        (row / group * self.queries.heads + self.kv_head * group + row % group) * self.cache.shape.head_length
    }

    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    fn out_row(&self, row: usize) -> &mut [f32] {
        // SAFETY: a row of a head belongs to one tile, and a tile's task holds one of its rows at a time.
        unsafe { self.out.slice(self.offset(row), self.cache.shape.head_length) }
    }

    #[inline(always)]
    fn visible(&self, row: usize) -> Range<usize> {
        let group = self.queries.heads / self.cache.shape.kv_heads;
        self.queries.visible((self.rows.start + row) / group)
    }

    /// Which of the block's 64 positions a row sees.
    #[inline(always)]
    fn visible_in(&self, row: usize, block: usize) -> Range<usize> {
        let Range { start, end } = self.visible(row);
        let base = block * BLOCK;
        let end = end.saturating_sub(base).min(BLOCK);
        start.saturating_sub(base).min(end)..end
    }

    /// Takes one block into `MR` rows that see the same positions `seen` of it, `NR` registers at a time.
    #[inline(always)]
    fn step<I: Isa, const MR: usize, const NR: usize>(
        &self,
        isa: I,
        block: usize,
        seen: Range<usize>,
        row: usize,
        running: &mut [Running],
    ) {
        let d = self.cache.shape.head_length;
        let head = block * BLOCK * d..(block + 1) * BLOCK * d;
        let keys = &self.cache.keys(self.queries.layer, self.kv_head)[head.clone()];
        let values = &self.cache.values(self.queries.layer, self.kv_head)[head];
        let q: [&[f32]; MR] = from_fn(|i| &self.q[self.offset(row + i)..][..d]);

        let mut scores = [[f32::NEG_INFINITY; BLOCK]; MR];
        let mut lane = 0;
        while lane < BLOCK {
            if lane < seen.end && lane + NR * I::LANES > seen.start {
                self.score::<I, MR, NR>(isa, keys, &q, lane, &mut scores);
            }
            lane += NR * I::LANES;
        }
        let mut correction = [0.0; MR];
        for i in 0..MR {
            let scores = &mut scores[i];
            scores[..seen.start].fill(f32::NEG_INFINITY);
            scores[seen.end..].fill(f32::NEG_INFINITY);
            let Running { peak, total } = running[i];
            let new_peak = math::max(&[peak, math::max(scores)]);
            for score in scores.iter_mut() {
                *score = math::exp(*score - new_peak);
            }
            correction[i] = math::exp(peak - new_peak);
            running[i] = Running { peak: new_peak, total: total * correction[i] + math::sum(scores) };
        }
        let mut lane = 0;
        while lane + NR * I::LANES <= d {
            self.weigh::<I, MR, NR>(isa, values, row, lane, &seen, &correction, &scores);
            lane += NR * I::LANES;
        }
        while lane < d {
            self.weigh::<I, MR, 1>(isa, values, row, lane, &seen, &correction, &scores);
            lane += I::LANES;
        }
    }

    /// Scores of `NR` registers' positions from `lane` on: sums over d in increasing order.
    #[inline(always)]
    fn score<I: Isa, const MR: usize, const NR: usize>(
        &self,
        isa: I,
        keys: &[E],
        q: &[&[f32]; MR],
        lane: usize,
        scores: &mut [[f32; BLOCK]; MR],
    ) {
        let d = self.cache.shape.head_length;
        assert!(keys.len() == BLOCK * d && lane + NR * I::LANES <= BLOCK && q.iter().all(|q| q.len() == d));
        let starts: [usize; NR] = from_fn(|j| {
            let position = lane + j * I::LANES;
            position / KEY_LANES * KEY_LANES * d + position % KEY_LANES
        });
        let mut acc = [[isa.splat_f32(0.0); NR]; MR];
        for i in 0..d {
            // SAFETY: a register's positions lie in one group of 16 (LANES divides 16), whose d · 16 keys are in bounds.
            let key: [I::F; NR] = from_fn(|j| unsafe { E::load(isa, keys.as_ptr().add(starts[j] + i * KEY_LANES)) });
            for r in 0..MR {
                // SAFETY: each q has d elements.
                let q = isa.splat_f32(unsafe { *q[r].get_unchecked(i) });
                for j in 0..NR {
                    acc[r][j] = isa.add_f32(acc[r][j], isa.mul_f32(q, key[j]));
                }
            }
        }
        for r in 0..MR {
            for j in 0..NR {
                // SAFETY: `lane + NR · LANES` ≤ 64, the length of the row.
                unsafe { isa.store_f32(scores[r].as_mut_ptr().add(lane + j * I::LANES), acc[r][j]) };
            }
        }
    }

    /// `out = out · correction + Σ weight · value` over the positions `seen`, in increasing order, for `NR` registers of d
    /// from `lane` on.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn weigh<I: Isa, const MR: usize, const NR: usize>(
        &self,
        isa: I,
        values: &[E],
        row: usize,
        lane: usize,
        seen: &Range<usize>,
        correction: &[f32; MR],
        weights: &[[f32; BLOCK]; MR],
    ) {
        let d = self.cache.shape.head_length;
        assert!(values.len() == BLOCK * d && lane + NR * I::LANES <= d && seen.end <= BLOCK);
        let out: [*mut f32; MR] = from_fn(|r| {
            let out = self.out_row(row + r);
            assert!(out.len() == d);
            out[lane..].as_mut_ptr()
        });
        // SAFETY: `lane + NR · LANES` ≤ d, the length of out's rows.
        let mut acc: [[I::F; NR]; MR] = from_fn(|r| {
            from_fn(|j| unsafe { isa.mul_f32(isa.load_f32(out[r].add(j * I::LANES)), isa.splat_f32(correction[r])) })
        });
        for position in seen.clone() {
            // SAFETY: position < 64 and `lane + NR · LANES` ≤ d.
            let value: [I::F; NR] =
                from_fn(|j| unsafe { E::load(isa, values.as_ptr().add(position * d + lane + j * I::LANES)) });
            for r in 0..MR {
                // SAFETY: position < 64.
                let weight = isa.splat_f32(unsafe { *weights[r].get_unchecked(position) });
                for j in 0..NR {
                    acc[r][j] = isa.add_f32(acc[r][j], isa.mul_f32(weight, value[j]));
                }
            }
        }
        for r in 0..MR {
            for j in 0..NR {
                // SAFETY: as for the loads.
                unsafe { isa.store_f32(out[r].add(j * I::LANES), acc[r][j]) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{executor::Serial, transformer::kv_cache::KvShape};

    /// Attention as its definition says, in f64.
    #[allow(clippy::too_many_arguments)]
    fn naive(
        queries: Queries,
        kv_heads: usize,
        d: usize,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        i: usize,
        head: usize,
    ) -> Vec<f64> {
        let kv_head = head / (queries.heads / kv_heads);
        let at = |x: &[f32], position: usize| {
            x[(position * kv_heads + kv_head) * d..][..d].iter().map(|&v| f64::from(v)).collect::<Vec<_>>()
        };
        let q = &q[(i * queries.heads + head) * d..][..d];
        let seen = queries.visible(i);
        let weights: Vec<f64> =
            seen.clone().map(|p| at(k, p).iter().zip(q).map(|(k, &q)| k * f64::from(q)).sum::<f64>().exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut out = vec![0.0; d];
        for (p, w) in seen.zip(&weights) {
            for (out, v) in out.iter_mut().zip(at(v, p)) {
                *out += w / total * v;
            }
        }
        out
    }

    fn noise(seed: u32, len: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn matches_the_definition_and_batches_equal_single_queries_at_every_level() {
        for (heads, kv_heads, d, window) in
            [(3, 1, 64, None), (4, 2, 16, Some(40)), (6, 1, 48, Some(70)), (2, 2, 32, None)]
        {
            let m = 150;
            let (q, k, v) = (noise(1, m * heads * d), noise(2, m * kv_heads * d), noise(3, m * kv_heads * d));
            let shape = KvShape { layers: 2, kv_heads, head_length: d, capacity: m };
            let mut cache = KvCache::new(shape, true).unwrap();
            cache.store(1, 0, m, &k, &v, &Serial);
            let queries = Queries { layer: 1, start: 0, m, heads, window };
            let mut want = vec![0.0; m * heads * d];
            attend(Level::Scalar, &cache, queries, &q, &mut want, &Serial);
            for i in [0, 1, 63, 64, 100, 149] {
                for head in 0..heads {
                    let exact = naive(queries, kv_heads, d, &q, &k, &v, i, head);
                    for (found, exact) in want[(i * heads + head) * d..].iter().zip(exact) {
                        assert!((f64::from(*found) - exact).abs() < 1e-5, "query {i} head {head}: {found} {exact}");
                    }
                }
            }
            for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
                let mut out = vec![f32::NAN; m * heads * d];
                for (start, len) in [(0, 1), (1, 70), (71, 2), (73, 77)] {
                    let part = start * heads * d..(start + len) * heads * d;
                    let queries = Queries { start, m: len, ..queries };
                    attend(level, &cache, queries, &q[part.clone()], &mut out[part], &Serial);
                }
                assert!(out.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "{}", level.name());
            }
        }
    }

    #[test]
    fn f16_levels_agree() {
        let (heads, d, m) = (3, 64, 130);
        let (q, k, v) = (noise(4, m * heads * d), noise(5, m * d), noise(6, m * d));
        let mut cache = KvCache::new(KvShape { layers: 1, kv_heads: 1, head_length: d, capacity: m }, false).unwrap();
        cache.store(0, 0, m, &k, &v, &Serial);
        let queries = Queries { layer: 0, start: 0, m, heads, window: None };
        let run = |level| {
            let mut out = vec![0.0; m * heads * d];
            attend(level, &cache, queries, &q, &mut out, &Serial);
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            assert_eq!(run(level), run(Level::Scalar), "{}", level.name());
        }
    }
}
