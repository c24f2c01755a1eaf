//! Elementwise functions and reductions with one rounding behaviour on every machine.
//!
//! Everything here is plain f32 arithmetic, multiplication and addition rounded apart, without branches on the data, so
//! the compiler vectorizes it for whichever instructions the caller has enabled and the bits do not depend on which.
//! Reductions keep 16 lanes (lane `l` takes elements `l`, `l + 16`, …) that are added pairwise at the end.

pub(crate) use crate::nonlinear::{exp, exp2_nonpositive};
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

/// Adds `x` to `y`.
#[inline(always)]
pub(crate) fn add(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
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
    fn every_level_gives_the_same_bits() {
        let x: Vec<f32> = (0..77).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.21).collect();
        let weight: Vec<f32> = (0..77).map(|i| 1.0 + i as f32 * 0.01).collect();
        let run = |level| {
            let mut y = x.clone();
            let total = vectorize(
                level,
                #[inline(always)]
                || {
                    add(&mut y, &weight);
                    y.iter_mut().for_each(|y| *y = exp(*y * 0.1));
                    rms_norm_in_place(&mut y, &weight, 1e-6);
                    sum(&y)
                },
            );
            y.push(total);
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            assert_eq!(run(level), run(Level::Scalar), "{}", level.name());
        }
    }
}
