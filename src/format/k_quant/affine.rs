//! The quantizer of the formats whose groups have a scale and a minimum: Q2_K, Q4_K and Q5_K.

use super::SUPERBLOCK;
use crate::format::le::F16Le;
use crate::format::search::{
    AffineSearch, WITH_IMPORTANCE, error_weights, fit_affine, fit_positive, nearest, sum, sum_of_squares,
};
use num_traits::Float;

/// What tells the quantizers of these formats apart.
pub(super) struct AffineRule<const GROUPS: usize, P> {
    /// The largest code.
    pub(super) max_code: u8,
    /// The largest integer scale and minimum.
    pub(super) max_scale: u8,
    /// The search without an importance matrix.
    pub(super) search: AffineSearch,
    /// Whether, without an importance matrix, an error counts `√(mean of x²) + |x|` rather than `|x|`.
    pub(super) floor: bool,
    /// What multiplies the mean of x² in the weights of errors under an importance matrix.
    pub(super) variance: f32,
    /// Packs the integer scales and minima.
    pub(super) pack: fn(&[u8; GROUPS], &[u8; GROUPS]) -> P,
    /// Reads them.
    pub(super) unpack: fn(&P, &mut [u8; 16], &mut [u8; 16]),
}

/// A superblock whose codes are not packed yet.
pub(super) struct AffineSuperblock<P> {
    pub(super) d: F16Le,
    pub(super) dmin: F16Le,
    pub(super) scales: P,
    pub(super) codes: [u8; SUPERBLOCK],
}

/// Quantizes a superblock of `GROUPS` groups of `GROUP` weights.
pub(super) fn quantize_affine<const GROUP: usize, const GROUPS: usize, P>(
    x: &[f32; SUPERBLOCK],
    importance: Option<&[f32; SUPERBLOCK]>,
    rule: &AffineRule<GROUPS, P>,
) -> AffineSuperblock<P> {
    let groups = x.as_chunks::<GROUP>().0;
    let mut codes = [0; SUPERBLOCK];
    let (mut scales, mut mins, mut group_weights) = ([0.0; GROUPS], [0.0; GROUPS], [0.0; GROUPS]);
    let variance = rule.variance * sum_of_squares(x) / SUPERBLOCK as f32;
    for (g, (x, codes)) in groups.iter().zip(codes.as_chunks_mut::<GROUP>().0).enumerate().take(GROUPS) {
        let (weights, search) = match importance.and_then(|all| all.as_chunks::<GROUP>().0.get(g)) {
            Some(importance) => (error_weights(x, importance, variance), WITH_IMPORTANCE),
            None => {
                let floor = if rule.floor { Float::sqrt(sum_of_squares(x) / GROUP as f32) } else { 0.0 };
                (x.map(|x| floor + x.abs()), rule.search)
            }
        };
        group_weights[g] = sum(&weights);
        (scales[g], mins[g]) = fit_affine(x, &weights, rule.max_code, search, codes);
    }

    let (mut out_scales, mut out_mins) = ([0; GROUPS], [0; GROUPS]);
    let (d, dmin) = if importance.is_some() {
        (
            fit_positive(&scales, &group_weights, rule.max_scale, &mut out_scales),
            fit_positive(&mins, &group_weights, rule.max_scale, &mut out_mins),
        )
    } else {
        (spread(&scales, rule.max_scale, &mut out_scales), spread(&mins, rule.max_scale, &mut out_mins))
    };
    let (d, dmin) = (F16Le::from_f32(d), F16Le::from_f32(dmin));

    // The codes once more, for the scales as they will be read. Where the scale came to 0 those of the search stay.
    let packed = (rule.pack)(&out_scales, &out_mins);
    let (mut out_scales, mut out_mins) = ([0; 16], [0; 16]);
    (rule.unpack)(&packed, &mut out_scales, &mut out_mins);
    let (d_read, dmin_read) = (d.to_f32(), dmin.to_f32());
    for (g, (x, codes)) in groups.iter().zip(codes.as_chunks_mut::<GROUP>().0).enumerate().take(GROUPS) {
        let (scale, min) = (d_read * out_scales[g] as f32, dmin_read * out_mins[g] as f32);
        if scale != 0.0 {
            *codes = x.map(|x| nearest((x + min) / scale).clamp(0, rule.max_code as i32) as u8);
        }
    }
    AffineSuperblock { d, dmin, scales: packed, codes }
}

/// Integers for `values ≥ 0` such that the largest gets `max_code`; returns what multiplies them.
fn spread<const N: usize>(values: &[f32; N], max_code: u8, codes: &mut [u8; N]) -> f32 {
    let max = values.iter().fold(0.0, |max, &v| if v > max { v } else { max });
    let inverse = if max > 0.0 { max_code as f32 / max } else { 0.0 };
    *codes = values.map(|v| (nearest(inverse * v) as u8).min(max_code));
    max / max_code as f32
}
