//! Vectors as 16-bit codes with one scale, the operands of attention's integer dots.

use crate::simd::ROUND;

/// Bits of a key's or value's code, beside its sign.
pub(crate) const CODE_BITS: u32 = 12;
/// Largest code of a softmax weight: 64 products with codes of keys or values stay below 2³¹.
pub(crate) const WEIGHT_LIMIT: f32 = 8191.0;

/// A vector whose largest magnitude is below this counts as zero: its reciprocal times a limit is still finite.
const SMALLEST: f32 = 1e-30;

/// Largest code of a query of length `d`: its dot with a key stays below 2³¹.
pub(crate) fn query_limit(d: usize) -> f32 {
    let room = ((1usize << (31 - CODE_BITS)) / d).clamp(2, 8192);
    ((1 << room.ilog2()) - 1) as f32
}

/// The scale of codes of at most `limit`, and what elements are multiplied by to become codes. An element that is not finite
/// makes the scale NaN.
#[inline(always)]
pub(crate) fn scale(x: &[f32], limit: f32) -> (f32, f32) {
    scale_of_peak(peak(x), limit)
}

/// The largest magnitude; ∞ or NaN if an element is.
#[inline(always)]
pub(crate) fn peak(x: &[f32]) -> f32 {
    // Magnitudes of floats order as integers, NaN above all.
    f32::from_bits(x.iter().fold(0, |max, value| max.max(value.to_bits() & 0x7FFF_FFFF)))
}

/// [`scale`] of a vector whose largest magnitude is `peak`; without branches, for many at once.
#[inline(always)]
pub(crate) fn scale_of_peak(peak: f32, limit: f32) -> (f32, f32) {
    let scale = if peak < SMALLEST { 0.0 } else { peak * (1.0 / limit) };
    let inverse = if peak < SMALLEST { 0.0 } else { limit / peak };
    if peak < f32::INFINITY { (scale, inverse) } else { (f32::NAN, 0.0) }
}

/// The code of an element, rounded half to even. Of what is not finite any: its vector's scale is NaN.
#[inline(always)]
pub(crate) fn code(x: f32, inverse: f32) -> i16 {
    (x * inverse + ROUND).to_bits() as i16
}

/// The codes of some elements.
#[inline(always)]
pub(crate) fn chunk<const N: usize>(x: &[f32; N], inverse: f32) -> [i16; N] {
    let mut codes = [0; N];
    for i in 0..N {
        codes[i] = code(x[i], inverse);
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_and_sums_fit() {
        let x = [1.0, -2.0, 0.5, 0.0];
        let (scale, inverse) = scale(&x, 4095.0);
        assert_eq!(x.map(|x| code(x, inverse)), [2048, -4095, 1024, 0]);
        assert_eq!(scale, 2.0 * (1.0 / 4095.0));
        for d in (16..=1024).step_by(16) {
            let worst = i64::from(query_limit(d) as i32) * ((1 << CODE_BITS) - 1) * d as i64;
            assert!(worst < 1 << 31, "{d}");
        }
        assert!(query_limit(64) >= 8191.0 && query_limit(128) >= 4095.0 && query_limit(256) >= 2047.0);
        assert!(WEIGHT_LIMIT as i64 * ((1 << CODE_BITS) - 1) * 64 < 1 << 31);
    }

    #[test]
    fn what_is_not_finite_has_a_nan_scale_and_zeros_have_zero() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0xFFC1_2345)] {
            assert!(scale(&[1.0, bad], 4095.0).0.is_nan());
        }
        assert_eq!(scale(&[1e-38, 0.0], 4095.0), (0.0, 0.0));
    }
}
