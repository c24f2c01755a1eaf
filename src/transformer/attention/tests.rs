use super::*;
use crate::{
    executor::Serial,
    transformer::{CacheType, codes},
};

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

/// A cache of one layer of noise and queries, scaled by 1/√d, in both forms.
struct Fixture {
    cache: KvCache,
    queries: Queries,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    codes: Vec<i16>,
    scales: Vec<f32>,
    d: usize,
}

impl Fixture {
    fn new(heads: usize, kv_heads: usize, d: usize, m: usize, window: Option<usize>, kind: CacheType) -> Fixture {
        let (q, k, v) = (noise(1, m * heads * d), noise(2, m * kv_heads * d), noise(3, m * kv_heads * d));
        let shape = KvShape { layers: 2, kv_heads, head_length: d, capacity: m };
        let mut cache = KvCache::new(shape, kind).unwrap();
        let writer = cache.writer(1);
        for at in 0..m * kv_heads {
            let part = at * d..(at + 1) * d;
            // SAFETY: there is one task.
            unsafe { writer.store(at % kv_heads, at / kv_heads, &k[part.clone()], &v[part]) };
        }
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for head in q.chunks_exact(d) {
            let (scale, inverse) = codes::scale(head, codes::query_limit(d));
            let scale = if kind == CacheType::I16 { scale } else { 1.0 };
            scales.push(scale * core::f32::consts::LOG2_E);
            codes.extend(head.iter().map(|&q| codes::code(q, inverse)));
        }
        let queries = Queries { layer: 1, start: 0, m, heads, window };
        Fixture { cache, queries, q, k, v, codes, scales, d }
    }

    /// The result for queries `start..start + m`.
    fn attend(&self, level: Level, start: usize, m: usize, ex: &impl Executor) -> Vec<f32> {
        let (heads, d) = (self.queries.heads, self.d);
        let q = QueryVectors {
            exact: &self.q[start * heads * d..],
            codes: &self.codes[start * heads * d..],
            scales: &self.scales[start * heads..],
        };
        let mut out = vec![f32::NAN; m * heads * d];
        attend(level, &self.cache, Queries { start, m, ..self.queries }, q, &mut out, ex);
        out
    }
}

const SHAPES: [(usize, usize, usize, Option<usize>); 5] =
    [(3, 1, 64, None), (4, 2, 16, Some(40)), (6, 1, 48, Some(70)), (2, 2, 32, None), (7, 1, 256, Some(100))];

#[test]
fn matches_the_definition() {
    for (heads, kv_heads, d, window) in SHAPES {
        for (kind, tolerance) in [(CacheType::F32, 1e-5), (CacheType::F16, 1e-3), (CacheType::I16, 2e-3)] {
            let m = 150;
            let fixture = Fixture::new(heads, kv_heads, d, m, window, kind);
            let found = fixture.attend(Level::best(), 0, m, &Serial);
            for i in [0, 1, 63, 64, 100, 149] {
                for head in 0..heads {
                    let want = naive(fixture.queries, kv_heads, d, &fixture.q, &fixture.k, &fixture.v, i, head);
                    for (found, want) in found[(i * heads + head) * d..].iter().zip(want) {
                        assert!((f64::from(*found) - want).abs() < tolerance, "query {i} head {head}: {found} {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn batches_equal_single_queries_at_every_level() {
    for (heads, kv_heads, d, window) in SHAPES {
        for kind in CacheType::ALL {
            let m = 150;
            let fixture = Fixture::new(heads, kv_heads, d, m, window, kind);
            let bits = |out: Vec<f32>| out.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let want = bits(fixture.attend(Level::Scalar, 0, m, &Serial));
            for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
                let parts = [(0, 1), (1, 70), (71, 2), (73, 77)];
                let found = parts.map(|(start, len)| fixture.attend(level, start, len, &Serial)).concat();
                assert!(bits(found) == want, "{} heads of {d}, {} cache", level.name(), kind.name());
            }
        }
    }
}

#[test]
fn what_a_query_does_not_see_may_be_anything_and_what_it_sees_spreads_nan() {
    for kind in CacheType::ALL {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut fixture = Fixture::new(2, 1, 32, 100, None, kind);
            let clean = fixture.attend(Level::best(), 0, 50, &Serial);
            // SAFETY: there is one task.
            unsafe { fixture.cache.writer(1).store(0, 50, &[bad; 32], &[bad; 32]) };
            assert_eq!(fixture.attend(Level::best(), 0, 50, &Serial), clean, "{}", kind.name());
            // Others of the batch see it.
            let batch = fixture.attend(Level::best(), 0, 52, &Serial);
            assert_eq!(batch[..clean.len()], clean, "{}", kind.name());
            assert!(batch[clean.len()..].iter().all(|value| value.is_nan()), "{}", kind.name());
        }
    }
}
