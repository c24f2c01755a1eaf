//! Nonlinear functions with the same bits on every machine.
//!
//! Plain f32 arithmetic, multiplication and addition rounded apart, without branches on the data: the compiler vectorizes
//! it for whichever instructions the caller has enabled.

use crate::simd::ROUND;

/// eˣ, within 2 units in the last place; denormal results included, 0 below −104, ∞ above 88.73.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; eʳ is the Taylor polynomial of degree 7 (truncated at 5·10⁻⁹ relative) and 2ⁿ two
/// factors, so that neither overflows before the product does.
#[cfg(feature = "model")]
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
#[cfg(feature = "model")]
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

#[cfg(all(test, feature = "model"))]
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
}
