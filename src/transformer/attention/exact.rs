//! Attention over an f32 cache, to verify the other: plain loops, no speed.

use super::{Tile, seen_in};
use crate::transformer::{
    kv_cache::{BLOCK, ExactCache},
    math,
};

/// Computes a tile.
#[inline(always)]
pub(super) fn attend(tile: &Tile<'_>, cache: &ExactCache, q: &[f32]) {
    let d = tile.shape.head_length;
    let (keys, values) = cache.head(tile.queries.layer, tile.kv_head);
    for row in 0..tile.rows.len() {
        let q = &q[tile.head(row) * d..][..d];
        let out = tile.out_row(row);
        out.fill(0.0);
        // The largest score so far and the sum of exp(score − largest).
        let (mut peak, mut total) = (f32::NEG_INFINITY, 0.0);
        for block in tile.blocks() {
            let seen = seen_in(block, tile.visible(row));
            if seen.is_empty() {
                continue;
            }
            let mut weights = [f32::NEG_INFINITY; BLOCK];
            for position in seen.clone() {
                weights[position] = math::dot(q, &keys[(block * BLOCK + position) * d..][..d]);
            }
            let before = peak;
            peak = math::max(&[before, math::max(&weights)]);
            for weight in &mut weights {
                *weight = math::exp(*weight - peak);
            }
            let correction = math::exp(before - peak);
            total = total * correction + math::sum(&weights);
            for value in out.iter_mut() {
                *value *= correction;
            }
            for position in seen {
                math::add_scaled(out, weights[position], &values[(block * BLOCK + position) * d..][..d]);
            }
        }
        let inverse = 1.0 / total;
        for value in out {
            *value *= inverse;
        }
    }
}
