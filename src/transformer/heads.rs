//! From projected Q, K and V to what attention reads: head norms, rotation, and keys and values in the cache.

use super::{
    AttentionWeights, Config, codes,
    kv_cache::{GROUP, KvWriter},
    math,
    rope::RopeTable,
};
use crate::{executor::Executor, kernel::SharedMut, simd::Level};

/// Elements below which a pass is not worth waking other threads.
const SERIAL_ELEMENTS: usize = 1 << 14;

/// A batch's projections, `[m, heads · d]` and `[m, kv_heads · d]`, which are rotated in place.
pub(crate) struct Projected<'a> {
    pub q: &'a mut [f32],
    pub k: &'a mut [f32],
    pub v: &'a mut [f32],
}

/// Queries as codes, `[m, heads · d]`, or none where the cache takes none, and their scales, `[m, heads]`.
pub(crate) struct QueryCodes<'a> {
    pub codes: &'a mut [i16],
    pub scales: &'a mut [f32],
}

/// What is done to a batch's heads.
pub(crate) struct Heads<'a> {
    pub level: Level,
    pub config: &'a Config,
    pub weights: &'a AttentionWeights,
    pub rope: &'a RopeTable,
    /// Position of the first row.
    pub start: usize,
    /// Rows.
    pub m: usize,
}

/// The pieces that tasks share.
struct Shared<'a> {
    q: SharedMut<'a, f32>,
    k: SharedMut<'a, f32>,
    v: SharedMut<'a, f32>,
    codes: SharedMut<'a, i16>,
    scales: SharedMut<'a, f32>,
    cache: KvWriter<'a>,
}

impl Heads<'_> {
    /// Rotates and stores all rows. A task takes rows whose positions are of one [`GROUP`]. Queries become codes where the
    /// cache holds codes.
    pub(crate) fn finish(
        &self,
        projected: Projected<'_>,
        codes: QueryCodes<'_>,
        cache: KvWriter<'_>,
        ex: &dyn Executor,
    ) {
        let elements = self.m * (self.config.query_length() + 2 * self.config.kv_length());
        let shared = Shared {
            q: SharedMut::new(projected.q),
            k: SharedMut::new(projected.k),
            v: SharedMut::new(projected.v),
            codes: SharedMut::new(codes.codes),
            scales: SharedMut::new(codes.scales),
            cache,
        };
        let first = self.start / GROUP;
        let groups = (self.start + self.m).div_ceil(GROUP) - first;
        let task = |group: usize| {
            let position = (first + group) * GROUP;
            let rows = position.max(self.start) - self.start..(position + GROUP - self.start).min(self.m);
            math::vectorize(
                self.level,
                #[inline(always)]
                || {
                    for row in rows {
                        self.row(row, &shared);
                    }
                },
            );
        };
        if elements < SERIAL_ELEMENTS { (0..groups).for_each(task) } else { ex.run(groups, &task) }
    }

    /// Everything for one row.
    #[inline(always)]
    fn row(&self, row: usize, shared: &Shared<'_>) {
        let (config, w, d) = (self.config, self.weights, self.config.head_length);
        let (queries, keys) = (config.query_length(), config.kv_length());
        // SAFETY: a row belongs to one task.
        let (q, k, v) = unsafe {
            (shared.q.slice(row * queries, queries), shared.k.slice(row * keys, keys), shared.v.slice(row * keys, keys))
        };
        for (x, norm) in [(&mut *q, &w.q_norm), (&mut *k, &w.k_norm)] {
            if let Some(norm) = norm {
                for head in x.chunks_exact_mut(d) {
                    math::rms_norm_in_place(head, norm, config.rms_epsilon);
                }
            }
            self.rope.rotate(x, d, self.start + row, config.rope_pairs);
        }
        for (kv_head, (key, value)) in k.chunks_exact(d).zip(v.chunks_exact(d)).enumerate() {
            // SAFETY: a task has all rows of its group of positions.
            unsafe { shared.cache.store(kv_head, self.start + row, key, value) };
        }
        // SAFETY: as above.
        let (codes, scales) = unsafe {
            (
                shared.codes.slice(row * queries, queries),
                shared.scales.slice(row * config.head_count, config.head_count),
            )
        };
        let to_base_2 = config.attention_scale * core::f32::consts::LOG2_E;
        if codes.is_empty() {
            scales.fill(to_base_2);
            return;
        }
        let limit = codes::query_limit(d);
        for ((q, codes), slot) in q.chunks_exact(d).zip(codes.chunks_exact_mut(d)).zip(scales) {
            let (scale, inverse) = codes::scale(q, limit);
            *slot = scale * to_base_2;
            for (&q, code) in q.iter().zip(codes) {
                *code = codes::code(q, inverse);
            }
        }
    }
}
