//! Nonlinear functions with the same bits on every machine.
//!
//! Plain f32 arithmetic, multiplication and addition rounded apart, without branches on the data: the compiler vectorizes
//! it for whichever instructions the caller has enabled.

/// eˣ, within 2 units in the last place; denormal results included, 0 below −104, ∞ above 88.73.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; eʳ is the Taylor polynomial of degree 7 (truncated at 5·10⁻⁹ relative) and 2ⁿ two
/// factors, so that neither overflows before the product does.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it rounds to an integer that then stands in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
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

/// x · σ(x).
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The tanh form of GELU: ½x(1 + tanh u) = x · σ(2u) with u = √(2/π)·x·(1 + 0.044715·x²).
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769_1;
    x / (1.0 + exp(-(TWICE_SQRT_2_OVER_PI * x * (1.0 + 0.044715 * (x * x)))))
}
