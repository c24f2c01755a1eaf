//! Elementwise functions and reductions with one rounding behaviour on every machine.
//!
//! Everything here is plain f32 arithmetic, multiplication and addition rounded apart, without branches on the data, so
//! the compiler vectorizes it for whichever instructions the caller has enabled and the bits do not depend on which.
//! Reductions keep 16 lanes (lane `l` takes elements `l`, `l + 16`, …) that are added pairwise at the end.

use crate::simd::{Isa, IsaTask, Level};

/// Lanes of a reduction, whatever the register width.
pub(crate) const LANES: usize = 16;

/// Runs `f` with the instructions of `level` enabled, as far as `f` is inlined.
#[inline(always)]
pub(crate) fn vectorize<R>(level: Level, f: impl FnOnce() -> R) -> R {
    struct Call<F>(F);
    impl<R, F: FnOnce() -> R> IsaTask for Call<F> {
        type Output = R;
        #[inline(always)]
        fn run<I: Isa>(self, _: I) -> R {
            (self.0)()
        }
    }
    level.dispatch(Call(f))
}

/// 1.5 · 2²³: adding it rounds to an integer that then stands in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;

/// eˣ, within 2 units in the last place; denormal results included, 0 below −104, ∞ above 88.73.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; eʳ is the Taylor polynomial of degree 7 (truncated at 5·10⁻⁹ relative) and 2ⁿ two
/// factors, so that neither overflows before the product does.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // ln 2 in two parts; n · LN2_HIGH is exact for |n| < 2⁹.
    const LN2_HIGH: f32 = 0.693_359_375;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -105.0 { -105.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let rounded = x * core::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN2_HIGH;
    let r = r - n * LN2_LOW;
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    let n = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    p * power(half) * power(n.wrapping_sub(half))
}

/// 2ˣ for x from −125 to 125, within 6·10⁻⁷ of it.
///
/// x = n + f with |f| ≤ ½, and 2ᶠ the polynomial of degree 5 with the least relative error, 4.4·10⁻⁷, that is 1 at 0.
#[inline(always)]
fn exp2_in_range(x: f32) -> f32 {
    let rounded = x + ROUND;
    let f = x - (rounded - ROUND);
    let mut p = 1.112_550_8e-3;
    p = p * f + 9.666_282_5e-3;
    p = p * f + 5.557_400_5e-2;
    p = p * f + 2.402_235_1e-1;
    p = p * f + 6.931_428_3e-1;
    p = p * f + 1.0;
    // The exponent's bits are the low bits of `rounded`; all others are shifted out.
    p * f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// 2ˣ for x ≤ 0; 2⁻⁶⁰ for all x below −60, where a softmax's weight is lost in the sum anyway: smaller ones would become
/// denormal in products, which cost a hundred times as much.
#[inline(always)]
pub(crate) fn exp2_nonpositive(x: f32) -> f32 {
    exp2_in_range(if x < -60.0 { -60.0 } else { x })
}

/// 1/x within 4 units in the last place, for x from 2⁻¹²⁵ to 2¹²⁵: a division blocks the divider for as long as all of the
/// other operations around it take.
///
/// The first guess mirrors the exponent and is within 12.5%; each of the Newton steps squares that.
#[inline(always)]
fn reciprocal(x: f32) -> f32 {
    let mut y = f32::from_bits(0x7EF3_11C7u32.wrapping_sub(x.to_bits()));
    for _ in 0..3 {
        y = y * (2.0 - x * y);
    }
    y
}

/// x · σ(u) with σ(u) = 1/(1 + e⁻ᵘ) and e⁻ᵘ = 2^`twos`.
#[inline(always)]
fn sigmoid_gate(x: f32, twos: f32) -> f32 {
    let twos = if twos < -125.0 { -125.0 } else { twos };
    // Beyond 2¹²⁵ the gate is closed: whatever x is, nothing comes through.
    let open = if twos > 125.0 { 0.0 } else { x };
    let twos = if twos > 125.0 { 125.0 } else { twos };
    open * reciprocal(1.0 + exp2_in_range(twos))
}

/// x · σ(x).
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    sigmoid_gate(x, -core::f32::consts::LOG2_E * x)
}

/// The tanh form of GELU: ½x(1 + tanh u) = x · σ(2u) with u = √(2/π)·x·(1 + 0.044715·x²).
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    /// 2 · √(2/π) · log₂ e.
    const FACTOR: f32 = 2.302_208_2;
    sigmoid_gate(x, -(FACTOR * x * (1.0 + 0.044715 * (x * x))))
}

/// `gate[i] = f(gate[i]) · up[i]`.
#[inline(always)]
pub(crate) fn gate(gate: &mut [f32], up: &[f32], f: impl Fn(f32) -> f32) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = f(*gate) * up;
    }
}

/// Adds `x` to `y`.
#[inline(always)]
pub(crate) fn add(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// Adds `scale · x` to `y`.
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f32], scale: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}

/// An integer for each float, in the same order: a maximum of them may be folded in any order.
#[inline(always)]
pub(crate) fn ordered(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    bits ^ ((bits >> 31) & 0x7FFF_FFFF)
}

/// The float of [`ordered`].
#[inline(always)]
pub(crate) fn from_ordered(order: i32) -> f32 {
    f32::from_bits((order ^ ((order >> 31) & 0x7FFF_FFFF)) as u32)
}

/// Folds the lanes of a reduction: halves pairwise, 8, 4, 2, 1.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = f(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Reduces `f(x)` over a slice; elements beyond a multiple of 16 go to the first lanes.
#[inline(always)]
fn reduce(x: &[f32], start: f32, f: impl Fn(f32) -> f32, op: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = op(lanes[lane], f(chunk[lane]));
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = op(*lane, f(value));
    }
    fold(lanes, op)
}

/// Σ x.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    reduce(x, 0.0, |v| v, |a, b| a + b)
}

/// Σ x · y.
#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    fold(lanes, |a, b| a + b)
}

/// The largest element; −∞ for none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    reduce(x, f32::NEG_INFINITY, |v| v, |a, b| if a < b { b } else { a })
}

/// What an RMS norm multiplies by: 1/√(mean x² + ε).
#[inline(always)]
fn rms_scale(x: &[f32], epsilon: f32) -> f32 {
    let square = reduce(x, 0.0, |v| v * v, |a, b| a + b);
    // f32::sqrt is correctly rounded everywhere.
    1.0 / (square / x.len() as f32 + epsilon).sqrt()
}

/// `out = x / rms(x) · weight`.
#[inline(always)]
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let scale = rms_scale(x, epsilon);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

/// [`rms_norm`] in place.
#[inline(always)]
pub(crate) fn rms_norm_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) {
    let scale = rms_scale(x, epsilon);
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp_and_handles_the_ends() {
        let mut x = -104.0f32;
        while x < 88.7 {
            let want = f64::from(x).exp();
            let ulp = f64::from((want as f32).next_up()) - f64::from(want as f32);
            assert!((f64::from(exp(x)) - want).abs() <= 2.0 * ulp, "exp({x}) = {}, not {want}", exp(x));
            x += 0.003;
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!((exp(f32::NEG_INFINITY), exp(f32::INFINITY), exp(89.0)), (0.0, f32::INFINITY, f32::INFINITY));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn exp2_is_within_its_bound() {
        let mut x = -60.0f32;
        while x <= 0.0 {
            let want = f64::from(x).exp2();
            assert!((f64::from(exp2_nonpositive(x)) / want - 1.0).abs() <= 6e-7, "2^{x}");
            x += 0.003;
        }
        assert_eq!((exp2_nonpositive(0.0), exp2_nonpositive(f32::NEG_INFINITY)), (1.0, 1.0 / (1u64 << 60) as f32));
        assert!(exp2_nonpositive(f32::NAN).is_nan());
    }

    #[test]
    fn activations_match_their_definitions() {
        for i in -400..400 {
            let x = i as f32 * 0.05;
            let wide = f64::from(x);
            let silu_wide = wide / (1.0 + (-wide).exp());
            let u = (2.0 / std::f64::consts::PI).sqrt() * wide * (1.0 + 0.044715 * wide * wide);
            let gelu_wide = 0.5 * wide * (1.0 + u.tanh());
            assert!((f64::from(silu(x)) - silu_wide).abs() <= 1e-6 * wide.abs().max(1.0), "silu({x})");
            assert!((f64::from(gelu_tanh(x)) - gelu_wide).abs() <= 1e-6 * wide.abs().max(1.0), "gelu({x})");
        }
        assert!((gelu_tanh(1e20) / 1e20 - 1.0).abs() < 1e-6 && (silu(1e30) / 1e30 - 1.0).abs() < 1e-6);
        assert_eq!((gelu_tanh(-1e20), silu(-1e30)), (0.0, 0.0));
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let x: Vec<f32> = (0..77).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.21).collect();
        let weight: Vec<f32> = (0..77).map(|i| 1.0 + i as f32 * 0.01).collect();
        let run = |level| {
            let mut y = x.clone();
            let (total, peak) = vectorize(
                level,
                #[inline(always)]
                || {
                    gate(&mut y, &weight, gelu_tanh);
                    gate(&mut y, &weight, silu);
                    rms_norm_in_place(&mut y, &weight, 1e-6);
                    (sum(&y), max(&y))
                },
            );
            y.extend([total, peak]);
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            assert_eq!(run(level), run(Level::Scalar), "{}", level.name());
        }
    }
}
