//! Nonlinear functions with the same bits on every machine.
//!
//! Plain f32 arithmetic, multiplication and addition rounded apart, without branches on the data: the compiler vectorizes
//! it for whichever instructions the caller has enabled.

/// 1.5 · 2²³: adding it rounds to an integer that then stands in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;

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
