//! Causal attention over the KV cache, without a score matrix.
//!
//! A query walks over its keys in blocks of 64 positions with a running maximum and sum (the online softmax of
//! FlashAttention). Blocks lie at fixed absolute positions, sums are of integers or have a fixed order, so a query's result
//! does not depend on how many queries are computed with it, on the threads or on the instruction set.
//!
//! The unit of work is a tile: some rows of one KV head, a row being one query of one of the heads that share it.

mod flash;
mod operand;
mod softmax;

use super::kv_cache::{BLOCK, KvCache, KvShape};
use crate::{executor::Executor, kernel::SharedMut, simd::Level};
use core::ops::Range;

/// Rows of a tile at most.
const TILE_ROWS: usize = 48;
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

/// The queries' vectors, `[m, heads · d]`, as they are or as codes, and for each head, `[m, heads]`, what takes its products
/// with keys to scores in base 2: the attention's scale, and that of the codes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueryVectors<'a> {
    pub exact: &'a [f32],
    pub codes: &'a [i16],
    pub scales: &'a [f32],
}

impl Queries {
    /// Positions that query `i` sees.
    #[inline(always)]
    fn visible(&self, i: usize) -> Range<usize> {
        let end = self.start + i + 1;
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }
}

/// `out = softmax(q · Kᵀ) · V` per head; `out` is `[m, heads · d]`.
pub(crate) fn attend(
    level: Level,
    cache: &KvCache,
    queries: Queries,
    q: QueryVectors<'_>,
    out: &mut [f32],
    ex: &dyn Executor,
) {
    let shape = cache.shape();
    let kv_heads = shape.kv_heads;
    let rows = queries.m * (queries.heads / kv_heads);
    let seen = queries.visible(queries.m.saturating_sub(1)).len();
    // A head's rows are split among threads only where there are not enough heads: each tile reads all keys and values.
    let tile_rows = (rows * kv_heads).div_ceil(ex.threads()).clamp(1, TILE_ROWS);
    let tiles = rows.div_ceil(tile_rows);
    let out = SharedMut::new(out);
    let task = |task: usize| {
        let (kv_head, tile) = (task % kv_heads, task / kv_heads);
        let rows = tile * tile_rows..rows.min((tile + 1) * tile_rows);
        let tile = Tile { shape, queries, kv_head, rows, out: &out };
        match cache {
            KvCache::I16(cache) => level.dispatch(flash::Attend { tile, cache, q }),
            KvCache::F16(cache) => level.dispatch(flash::Attend { tile, cache, q }),
            KvCache::F32(cache) => level.dispatch(flash::Attend { tile, cache, q }),
        }
    };
    let tasks = tiles * kv_heads;
    if rows * kv_heads * seen * shape.head_length < SERIAL_WORK {
        (0..tasks).for_each(task);
    } else {
        ex.run(tasks, &task);
    }
}

/// Rows `rows` of KV head `kv_head`; row r is query `r / group` of head `kv_head · group + r % group`.
struct Tile<'a> {
    shape: KvShape,
    queries: Queries,
    kv_head: usize,
    rows: Range<usize>,
    out: &'a SharedMut<'a, f32>,
}

impl Tile<'_> {
    /// Which head of which query a row is: its index in `[m, heads]`.
    #[inline(always)]
    fn head(&self, row: usize) -> usize {
        let group = self.queries.heads / self.shape.kv_heads;
        let row = self.rows.start + row;
        row / group * self.queries.heads + self.kv_head * group + row % group
    }

    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    fn out_row(&self, head: usize) -> &mut [f32] {
        // SAFETY: a row of a head belongs to one tile, and a tile's task holds one of its rows at a time.
        unsafe { self.out.slice(head * self.shape.head_length, self.shape.head_length) }
    }

    #[inline(always)]
    fn visible(&self, row: usize) -> Range<usize> {
        let group = self.queries.heads / self.shape.kv_heads;
        self.queries.visible((self.rows.start + row) / group)
    }

    /// The blocks that a row of the tile sees something of.
    #[inline(always)]
    fn blocks(&self) -> Range<usize> {
        // Later rows are later queries or other heads of the same one.
        let (first, last) = (self.visible(0), self.visible(self.rows.len().saturating_sub(1)));
        first.start / BLOCK..last.end.div_ceil(BLOCK)
    }
}

/// Which of the block's 64 positions are among the `visible` ones.
#[inline(always)]
fn seen_in(block: usize, visible: Range<usize>) -> Range<usize> {
    let base = block * BLOCK;
    let end = visible.end.saturating_sub(base).min(BLOCK);
    visible.start.saturating_sub(base).min(end)..end
}

#[cfg(test)]
mod tests;
