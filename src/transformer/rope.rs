//! Rotary position embedding: tables of cosines and sines, and the rotation.

use crate::{Error, Result};
use alloc::{string::ToString, vec::Vec};

/// Which elements of a head form the pairs that are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairs {
    /// Elements 2i and 2i + 1 (llama).
    Adjacent,
    /// Elements i and i + rot/2 (qwen2, qwen3, gemma3; "NEOX").
    Halves,
}

/// cos and sin of every position's angles θᵢ = position · base^(−2i/rot) / factor.
#[derive(Debug, Clone)]
pub(crate) struct RopeTable {
    /// Rotated elements of a head; the rest stay as they are.
    rotated: usize,
    /// Per position: rotated/2 cosines, then as many sines.
    table: Vec<f32>,
}

impl RopeTable {
    /// `scale` multiplies positions (linear scaling: 1/factor); `factors`, one per pair, divide the angles.
    ///
    /// Angles, cosines and sines are computed in f64 with `libm`, so every machine has the same table.
    pub(crate) fn new(
        positions: usize,
        rotated: usize,
        base: f64,
        scale: f64,
        factors: Option<&[f32]>,
    ) -> Result<Self> {
        let len = positions.checked_mul(rotated).ok_or_else(|| Error::Overflow { what: "RoPE table".to_string() })?;
        let mut table = Vec::with_capacity(len);
        let frequencies: Vec<f64> = (0..rotated / 2)
            .map(|pair| {
                let factor = factors.and_then(|f| f.get(pair)).map_or(1.0, |&f| f64::from(f));
                scale * libm::pow(base, -2.0 * pair as f64 / rotated as f64) / factor
            })
            .collect();
        for position in 0..positions {
            table.extend(frequencies.iter().map(|f| libm::cos(position as f64 * f) as f32));
            table.extend(frequencies.iter().map(|f| libm::sin(position as f64 * f) as f32));
        }
        Ok(RopeTable { rotated, table })
    }

    /// Rotates each head (of `head_length` elements) of a row that stands at `position`.
    #[inline(always)]
    pub(crate) fn rotate(&self, row: &mut [f32], head_length: usize, position: usize, pairs: RopePairs) {
        let half = self.rotated / 2;
        let angles = &self.table[position * self.rotated..][..self.rotated];
        let (cos, sin) = angles.split_at(half);
        for head in row.chunks_exact_mut(head_length) {
            let head = &mut head[..self.rotated];
            match pairs {
                RopePairs::Halves => {
                    let (first, second) = head.split_at_mut(half);
                    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                    }
                }
                RopePairs::Adjacent => {
                    for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                        let (a, b) = (pair[0], pair[1]);
                        pair[0] = a * cos - b * sin;
                        pair[1] = a * sin + b * cos;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotates_by_the_angle_of_its_pair_and_position() {
        let table = RopeTable::new(8, 4, 100.0, 0.5, Some(&[1.0, 2.0])).unwrap();
        let angles = [7.0 * 0.5, 7.0 * 0.5 * 0.1 / 2.0];
        let mut adjacent = [1.0, 0.0, 0.0, 1.0, 9.0];
        table.rotate(&mut adjacent, 5, 7, RopePairs::Adjacent);
        let mut halves = [1.0, 0.0, 0.0, 1.0, 9.0];
        table.rotate(&mut halves, 5, 7, RopePairs::Halves);
        let (c, s) = (angles.map(f64::cos).map(|v| v as f32), angles.map(f64::sin).map(|v| v as f32));
        for (found, want) in [(adjacent, [c[0], s[0], -s[1], c[1], 9.0]), (halves, [c[0], -s[1], s[0], c[1], 9.0])] {
            for (found, want) in found.iter().zip(want) {
                assert!((found - want).abs() < 1e-6, "{found} {want}");
            }
        }
    }
}
