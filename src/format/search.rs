//! The searches for a group's scale, minimum and codes that the quantizers share.
//!
//! Facts from ggml's `ggml-quants.c` (MIT): which candidates are tried, in which order the sums run and what makes a
//! candidate win. Quantized bytes depend on the rounding of every operation, so nothing here may be fused or
//! reassociated. NaN and infinities end in some code or other, without a panic.

use num_traits::Float;

/// Groups whose largest magnitude is below this are stored as zeros.
pub(super) const NEGLIGIBLE: f32 = 1e-15;

/// The nearest integer, ties to even, of a number below 2²² in magnitude (any integer for another number).
#[inline(always)]
pub(super) fn nearest(x: f32) -> i32 {
    // 1.5·2²³: the sum has an ulp of 1, so that its rounding is the one wanted and its mantissa the integer.
    let bits = (x + 12_582_912.0).to_bits();
    (bits & 0x007F_FFFF) as i32 - 0x0040_0000
}

/// The integer part as x86 converts: numbers that do not fit (and NaN) give `i32::MIN`.
#[inline(always)]
pub(super) fn truncate(x: f32) -> i32 {
    if (-2_147_483_648.0..2_147_483_648.0).contains(&x) { x as i32 } else { i32::MIN }
}

/// The first of the numbers with the largest magnitude, sign included; 0 for none.
pub(super) fn largest_magnitude(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max: f32, &x| if x.abs() > max.abs() { x } else { max })
}

/// `Σ x²`, from the first to the last.
pub(super) fn sum_of_squares(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, x| sum + x * x)
}

/// How much an error in each weight counts: `importance·√(variance + x²)`.
pub(super) fn error_weights<const N: usize>(x: &[f32; N], importance: &[f32; N], variance: f32) -> [f32; N] {
    core::array::from_fn(|i| importance[i] * Float::sqrt(variance + x[i] * x[i]))
}

/// The sum, from the first to the last.
pub(super) fn sum(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, x| sum + x)
}

/// Finds `scale` such that `scale·(code − half)` is near `x`, codes in `0..2·half`: ggml's `make_qx_quants`.
///
/// Tries 19 scales around the one that takes the largest magnitude to `−half`, each improved by weighted least squares.
pub(super) fn fit_symmetric<const N: usize>(x: &[f32; N], weights: &[f32; N], half: i32, codes: &mut [u8; N]) -> f32 {
    let max = largest_magnitude(x);
    if max.abs() < NEGLIGIBLE {
        *codes = [0; N];
        return 0.0;
    }
    let level = |inverse: f32, x: f32| nearest(inverse * x).clamp(-half, half - 1);
    let sums = |inverse: f32| {
        let (mut sum_xl, mut sum_ll) = (0.0f32, 0.0f32);
        for (&x, &w) in x.iter().zip(weights) {
            let l = level(inverse, x) as f32;
            sum_xl += w * x * l;
            sum_ll += w * l * l;
        }
        (sum_xl, sum_ll)
    };

    let mut inverse = -half as f32 / max;
    let (sum_xl, sum_ll) = sums(inverse);
    let mut scale = if sum_ll != 0.0 { sum_xl / sum_ll } else { 0.0 };
    let mut best = scale * sum_xl;
    for step in (-9..=9).filter(|&step| step != 0) {
        let candidate = -(half as f32 + 0.1 * step as f32) / max;
        let (sum_xl, sum_ll) = sums(candidate);
        if sum_ll > 0.0 && sum_xl * sum_xl > best * sum_ll {
            inverse = candidate;
            scale = sum_xl / sum_ll;
            best = scale * sum_xl;
        }
    }
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = (level(inverse, x) + half) as u8;
    }
    scale
}

/// The same by coordinate descent, an error in `x` counting `x²`: ggml's `make_q3_quants`.
///
/// Up to 5 passes move one code at a time to where least squares of the others wants it.
pub(super) fn fit_symmetric_by_descent<const N: usize>(x: &[f32; N], half: i32, codes: &mut [u8; N]) -> f32 {
    let max = largest_magnitude(x);
    if max.abs() < NEGLIGIBLE {
        *codes = [0; N];
        return 0.0;
    }
    let inverse = -half as f32 / max;
    let mut levels = x.map(|x| nearest(inverse * x).clamp(-half, half - 1));
    let (mut sum_xl, mut sum_ll) = (0.0f32, 0.0f32);
    for (&x, &l) in x.iter().zip(&levels) {
        let (w, l) = (x * x, l as f32);
        sum_xl += w * x * l;
        sum_ll += w * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (&x, level) in x.iter().zip(&mut levels) {
            let (w, l) = (x * x, *level as f32);
            let others_xl = sum_xl - w * x * l;
            if others_xl > 0.0 {
                let others_ll = sum_ll - w * l * l;
                let new_level = nearest(x * others_ll / others_xl).clamp(-half, half - 1);
                if new_level != *level {
                    let l = new_level as f32;
                    let (new_xl, new_ll) = (others_xl + w * x * l, others_ll + w * l * l);
                    if new_ll > 0.0 && new_xl * new_xl * sum_ll > sum_xl * sum_xl * new_ll {
                        (*level, sum_xl, sum_ll) = (new_level, new_xl, new_ll);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    *codes = levels.map(|l| (l + half) as u8);
    if sum_ll > 0.0 { sum_xl / sum_ll } else { 0.0 }
}

/// Which scales [`fit_affine`] tries: those that spread the range over `max_code + first + i·step` codes, `i ≤ steps`.
#[derive(Clone, Copy)]
pub(super) struct AffineSearch {
    pub(super) first: f32,
    pub(super) step: f32,
    pub(super) steps: u32,
    /// Compare candidates by the sum of absolute errors rather than of squares.
    pub(super) absolute: bool,
}

/// What every format does with an importance matrix.
pub(super) const WITH_IMPORTANCE: AffineSearch = AffineSearch { first: -0.9, step: 0.05, steps: 36, absolute: false };

/// Finds `(scale, min)`, `min ≥ 0`, such that `scale·code − min` is near `x`, codes up to `max_code`: ggml's
/// `make_qkx2_quants` and `make_qkx3_quants`.
pub(super) fn fit_affine<const N: usize>(
    x: &[f32; N],
    weights: &[f32; N],
    max_code: u8,
    search: AffineSearch,
    codes: &mut [u8; N],
) -> (f32, f32) {
    let mut min = x.iter().copied().reduce(|min, x| if x < min { x } else { min }).unwrap_or(0.0);
    let max = x.iter().copied().reduce(|max, x| if x > max { x } else { max }).unwrap_or(0.0);
    let sum_w = sum(weights);
    let sum_x = x.iter().zip(weights).fold(0.0, |sum, (x, w)| sum + w * x);
    if min > 0.0 {
        min = 0.0;
    }
    if max <= min {
        *codes = [0; N];
        return (0.0, -min);
    }
    let code = |inverse: f32, min: f32, x: f32| nearest(inverse * (x - min)).clamp(0, max_code as i32) as u8;
    let error = |codes: &[u8; N], scale: f32, min: f32| {
        let mut error = 0.0f32;
        for ((&x, &w), &code) in x.iter().zip(weights).zip(codes) {
            let difference = scale * code as f32 + min - x;
            error += w * if search.absolute { difference.abs() } else { difference * difference };
        }
        error
    };

    let inverse = max_code as f32 / (max - min);
    *codes = x.map(|x| code(inverse, min, x));
    let mut scale = 1.0 / inverse;
    let mut best = error(codes, scale, min);
    for i in 0..=search.steps {
        // A minimum that won moves the range of all candidates after it.
        let inverse = (search.first + search.step * i as f32 + max_code as f32) / (max - min);
        let candidate = x.map(|x| code(inverse, min, x));
        let (mut sum_l, mut sum_ll, mut sum_xl) = (0.0f32, 0.0f32, 0.0f32);
        for ((&x, &w), &l) in x.iter().zip(weights).zip(&candidate) {
            let l = l as f32;
            sum_l += w * l;
            sum_ll += w * l * l;
            sum_xl += w * l * x;
        }
        let determinant = sum_w * sum_ll - sum_l * sum_l;
        if determinant > 0.0 {
            let mut new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut new_min = (sum_ll * sum_x - sum_l * sum_xl) / determinant;
            if new_min > 0.0 {
                new_min = 0.0;
                new_scale = sum_xl / sum_ll;
            }
            let new_error = error(&candidate, new_scale, new_min);
            if new_error < best {
                (*codes, best, scale, min) = (candidate, new_error, new_scale, new_min);
            }
        }
    }
    (scale, -min)
}

/// Finds `scale` such that `scale·code` is near `x ≥ 0`, codes up to `max_code`: ggml's `make_qp_quants`.
///
/// Tries 9 scales, then moves single codes in up to 5 passes. A negative `x` (which rounding in [`fit_affine`] can make of
/// a scale near 0) has a negative level in the sums, but its code is the level's low byte.
pub(super) fn fit_positive<const N: usize>(x: &[f32; N], weights: &[f32; N], max_code: u8, codes: &mut [u8; N]) -> f32 {
    let max = x.iter().fold(0.0, |max, &x| if x > max { x } else { max });
    if max < NEGLIGIBLE {
        *codes = [0; N];
        return 0.0;
    }
    let level = |v: f32| nearest(v).min(max_code as i32);
    let error = |inverse: f32, level: &dyn Fn(f32) -> i32| {
        let scale = 1.0 / inverse;
        let mut error = 0.0f32;
        for (&x, &w) in x.iter().zip(weights) {
            let difference = x - scale * level(inverse * x) as f32;
            error += w * difference * difference;
        }
        error
    };

    let mut inverse = max_code as f32 / max;
    let mut best = error(inverse, &|v| nearest(v) as u8 as i32);
    for step in (-4..=4).filter(|&step| step != 0) {
        let candidate = (0.1 * step as f32 + max_code as f32) / max;
        let new_error = error(candidate, &level);
        if new_error < best {
            (best, inverse) = (new_error, candidate);
        }
    }
    let (mut sum_xl, mut sum_ll) = (0.0f32, 0.0f32);
    for ((&x, &w), to) in x.iter().zip(weights).zip(codes.iter_mut()) {
        let l = level(inverse * x);
        *to = l as u8;
        let l = l as f32;
        sum_xl += w * x * l;
        sum_ll += w * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for ((&x, &w), to) in x.iter().zip(weights).zip(codes.iter_mut()) {
            let l = *to as f32;
            let (others_xl, others_ll) = (sum_xl - w * x * l, sum_ll - w * l * l);
            if others_xl > 0.0 && others_ll > 0.0 {
                let new_level = level(x * others_ll / others_xl);
                if new_level != *to as i32 {
                    let l = new_level as f32;
                    let (new_xl, new_ll) = (others_xl + w * x * l, others_ll + w * l * l);
                    if new_xl * new_xl * sum_ll > sum_xl * sum_xl * new_ll {
                        (*to, sum_xl, sum_ll) = (new_level as u8, new_xl, new_ll);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    if sum_ll > 0.0 { sum_xl / sum_ll } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_takes_ties_to_even() {
        for (x, expected) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2), (7.49, 7), (-7.51, -8)] {
            assert_eq!(nearest(x), expected, "{x}");
        }
    }

    #[test]
    fn truncation_is_total() {
        assert_eq!([8.9, -8.9, f32::NAN, f32::INFINITY, -3e9].map(truncate), [8, -8, i32::MIN, i32::MIN, i32::MIN]);
    }
}
