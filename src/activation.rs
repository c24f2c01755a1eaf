//! Activations, quantized once and shared by every matmul that reads them (Q/K/V, gate and up).
//!
//! The rule is one for all instruction sets: a group (32 values for the formats of 32-blocks, 256 for the K-quants) has
//! `d = amax / 127` as f32, codes `x · (127 / amax)` rounded half to even, and the sums of codes that formats with a bias or
//! minima need. A group with `amax < 1e-36` counts as zero. **A NaN or an infinity makes its group's scale NaN**, and so
//! every element of that row of y.

use crate::{
    Error, Executor, Result,
    kernel::{Inputs, SharedMut},
    simd::{Isa, IsaTask, Level},
};
use alloc::{format, vec::Vec};

/// Which quantized forms of the activations there are: one for each block length that weight formats have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u8);

impl Kinds {
    /// None: float formats read x as it is.
    pub const NONE: Kinds = Kinds(0);
    /// A scale per 32 values: the legacy formats.
    pub const BLOCK32: Kinds = Kinds(1);
    /// A scale per 256 values: the K-quants.
    pub const BLOCK256: Kinds = Kinds(2);
    /// The values themselves: the float formats.
    pub const F32: Kinds = Kinds(4);

    /// Whether all of `other` are in `self`.
    pub const fn contains(self, other: Kinds) -> bool {
        self.0 & other.0 == other.0
    }

    const fn name(self) -> &'static str {
        match self.0 {
            0 => "none",
            1 => "BLOCK32",
            2 => "BLOCK256",
            3 => "BLOCK32 | BLOCK256",
            4 => "F32",
            _ => "F32 and quantized",
        }
    }
}

impl core::ops::BitOr for Kinds {
    type Output = Kinds;
    fn bitor(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }
}

impl core::ops::BitOrAssign for Kinds {
    fn bitor_assign(&mut self, other: Kinds) {
        self.0 |= other.0;
    }
}

/// Activations `[m, k]` in the forms that matmuls read.
///
/// The buffers are kept: quantizing again allocates only if the new shape needs more room.
#[derive(Debug, Clone)]
pub struct Activations {
    level: Level,
    m: usize,
    k: usize,
    kinds: Kinds,
    exact: bool,
    values: Vec<f32>,
    block32: Quantized,
    block256: Quantized,
}

/// One quantized form: codes with a scale per group of `GROUP`, and their sums.
#[derive(Debug, Clone, Default)]
struct Quantized {
    /// `[m, code_stride(k)]`, k of them used.
    codes: Vec<i8>,
    /// `[m, k / group]`.
    d: Vec<f32>,
    /// `−Σ codes` per group.
    neg_sums: Vec<i32>,
    /// `−32 · Σ codes` per 8 (BLOCK256 only).
    centres: Vec<i32>,
    /// `Σ codes` per 16 (BLOCK256 only).
    sums16: Vec<i16>,
    /// `Σ codes` per 32 (BLOCK256 only).
    sums32: Vec<i16>,
    /// `d · Σ codes` per 32 (BLOCK32 only).
    d_sums: Vec<f32>,
}

/// Codes from one row to the next: an odd number of cache lines, so that rows do not meet in the same sets.
const fn code_stride(k: usize) -> usize {
    (k.div_ceil(64) | 1) * 64
}

/// The smallest group maximum that is not taken for zero: its reciprocal times 127 is still finite.
const SMALLEST: f32 = 1e-36;

impl Default for Activations {
    fn default() -> Self {
        Self::new()
    }
}

impl Activations {
    /// No activations yet, quantized later by the fastest level of this CPU.
    pub fn new() -> Self {
        Self::with_level(Level::best())
    }

    /// No activations yet, quantized later by `level`, or by plain Rust if this CPU lacks it; the bits are the same.
    pub fn with_level(level: Level) -> Self {
        Activations {
            level,
            m: 0,
            k: 0,
            kinds: Kinds::NONE,
            exact: false,
            values: Vec::new(),
            block32: Quantized::default(),
            block256: Quantized::default(),
        }
    }

    /// Rows.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Columns.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The forms that are there.
    pub fn kinds(&self) -> Kinds {
        self.kinds
    }

    /// Whether matmuls run in f32 ([`Activations::keep_f32`]).
    pub fn is_f32(&self) -> bool {
        self.exact
    }

    /// Takes `x`, `[m, k]` row-major, in each of `kinds` (`weight.kinds()`, or'ed for several weights).
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not have `m · k` elements, [`Error::Block`] if `k` is not a multiple of a kind's block.
    pub fn quantize(&mut self, x: &[f32], m: usize, k: usize, kinds: Kinds, executor: &impl Executor) -> Result<()> {
        check_len(x, m, k)?;
        for (kind, block) in [(Kinds::BLOCK32, 32), (Kinds::BLOCK256, 256)] {
            if kinds.contains(kind) && !k.is_multiple_of(block) {
                return Err(Error::Block { format: kind.name(), block, k });
            }
        }
        (self.m, self.k, self.kinds, self.exact) = (m, k, kinds, false);
        if kinds.contains(Kinds::F32) {
            self.values.clear();
            self.values.extend_from_slice(x);
        }
        if kinds.contains(Kinds::BLOCK32) {
            self.block32.quantize::<32>(self.level, x, m, k, executor);
        }
        if kinds.contains(Kinds::BLOCK256) {
            self.block256.quantize::<256>(self.level, x, m, k, executor);
        }
        Ok(())
    }

    /// Takes `x`, `[m, k]` row-major, as it is: every matmul then multiplies dequantized weights by these f32 values, in
    /// f32. This is for verification, not for speed.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not have `m · k` elements.
    pub fn keep_f32(&mut self, x: &[f32], m: usize, k: usize) -> Result<()> {
        check_len(x, m, k)?;
        (self.m, self.k, self.kinds, self.exact) = (m, k, Kinds::F32, true);
        self.values.clear();
        self.values.extend_from_slice(x);
        Ok(())
    }

    /// What an integer kernel reads, if the activations were quantized that way.
    pub(crate) fn inputs(&self, format: &'static str, kind: Kinds) -> Result<Inputs<'_>> {
        if !self.kinds.contains(kind) {
            return Err(Error::ActivationKind { format, expected: kind.name(), found: self.kinds.name() });
        }
        let q = if kind == Kinds::BLOCK32 { &self.block32 } else { &self.block256 };
        Ok(Inputs {
            m: self.m,
            k: self.k,
            stride: code_stride(self.k),
            codes: &q.codes,
            d: &q.d,
            neg_sums: &q.neg_sums,
            centres: &q.centres,
            sums16: &q.sums16,
            sums32: &q.sums32,
            d_sums: &q.d_sums,
        })
    }

    /// The values themselves, if they were kept.
    pub(crate) fn values(&self, format: &'static str) -> Result<&[f32]> {
        if !self.kinds.contains(Kinds::F32) {
            let (expected, found) = (Kinds::F32.name(), self.kinds.name());
            return Err(Error::ActivationKind { format, expected, found });
        }
        Ok(&self.values)
    }
}

fn check_len(x: &[f32], m: usize, k: usize) -> Result<()> {
    let Some(expected) = m.checked_mul(k) else {
        return Err(Error::Overflow { what: format!("x of [m, k] = [{m}, {k}]") });
    };
    if x.len() != expected {
        return Err(Error::Shape { what: format!("x of [m, k] = [{m}, {k}]"), expected, found: x.len() });
    }
    Ok(())
}

/// One row's slices of a [`Quantized`].
struct RowMut<'a> {
    codes: &'a mut [i8],
    d: &'a mut [f32],
    neg_sums: &'a mut [i32],
    centres: &'a mut [i32],
    sums16: &'a mut [i16],
    sums32: &'a mut [i16],
    d_sums: &'a mut [f32],
}

struct QuantizeRow<'a, const GROUP: usize> {
    x: &'a [f32],
    row: RowMut<'a>,
}

impl<const GROUP: usize> IsaTask for QuantizeRow<'_, GROUP> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let RowMut { codes, d, neg_sums, centres, sums16, sums32, d_sums } = self.row;
        let groups = self.x.as_chunks::<GROUP>().0;
        for (g, (x, codes)) in groups.iter().zip(codes.as_chunks_mut::<GROUP>().0).enumerate() {
            let (scale, inverse) = scale_of(x);
            d[g] = scale;
            // Adding 1.5 · 2²³ leaves the integer, rounded half to even, in the low bits.
            const MAGIC: f32 = 12_582_912.0;
            for at in (0..GROUP).step_by(I::LANES) {
                // SAFETY: LANES divides GROUP, so that LANES values and codes follow.
                unsafe {
                    let scaled = isa.mul_f32(isa.load_f32(x.as_ptr().add(at)), isa.splat_f32(inverse));
                    let integer = isa.float_bits(isa.add_f32(scaled, isa.splat_f32(MAGIC)));
                    isa.store_bytes(codes.as_mut_ptr().add(at).cast(), integer);
                }
            }
            if inverse == 0.0 {
                codes.fill(0);
            }
        }
        for first in (0..groups.len() * GROUP).step_by(FOURS * 4) {
            let mut fours = [0i32; FOURS];
            let len = codes.len().min(first + FOURS * 4) - first;
            for at in (0..len).step_by(I::LANES * 4) {
                let mut sum = [[isa.splat(0)]];
                // SAFETY: a row of codes is whole cache lines, which registers of codes divide.
                unsafe {
                    isa.dot::<4, 1, 1, 1>(
                        &mut sum,
                        #[inline(always)]
                        |_, _| isa.splat(0x0101_0101),
                        #[inline(always)]
                        |_, _| isa.load(codes.as_ptr().add(first + at).cast()),
                    );
                    isa.store(fours.as_mut_ptr().add(at / 4).cast(), sum[0][0]);
                }
            }
            if GROUP == 256 {
                let (centres, sums16) =
                    (&mut centres[first / 8..][..FOURS / 2], &mut sums16[first / 16..][..FOURS / 4]);
                for (centre, fours) in centres.iter_mut().zip(fours.as_chunks::<2>().0) {
                    *centre = -32 * (fours[0] + fours[1]);
                }
                for (sum, fours) in sums16.iter_mut().zip(fours.as_chunks::<4>().0) {
                    *sum = (fours[0] + fours[1] + fours[2] + fours[3]) as i16;
                }
                for (sum, pair) in sums32[first / 32..].iter_mut().zip(sums16.as_chunks::<2>().0) {
                    *sum = pair[0] + pair[1];
                }
                neg_sums[first / 256] = -fours.iter().sum::<i32>();
            } else {
                let groups = first / GROUP..groups.len().min((first + FOURS * 4) / GROUP);
                for (g, fours) in groups.zip(fours.as_chunks::<8>().0) {
                    let sum = fours.iter().sum::<i32>();
                    neg_sums[g] = -sum;
                    d_sums[g] = d[g] * sum as f32;
                }
            }
        }
    }
}

/// Sums of four codes that are made at a time: those of 256 codes.
const FOURS: usize = 64;

/// The scale of a group and what its values are multiplied by; NaN and 0 if a value is not finite.
#[inline(always)]
fn scale_of<const GROUP: usize>(x: &[f32; GROUP]) -> (f32, f32) {
    // Magnitudes of floats order as integers, NaN above all.
    let amax = f32::from_bits(x.iter().fold(0, |max, value| max.max(value.to_bits() & 0x7FFF_FFFF)));
    if !amax.is_finite() {
        (f32::NAN, 0.0)
    } else if amax < SMALLEST {
        (0.0, 0.0)
    } else {
        (amax / 127.0, 127.0 / amax)
    }
}

impl Quantized {
    fn quantize<const GROUP: usize>(&mut self, level: Level, x: &[f32], m: usize, k: usize, executor: &impl Executor) {
        let groups = k / GROUP;
        let per = |values: usize| if GROUP == 256 { k / values } else { 0 };
        let (centres, sums16, sums32, d_sums) = (per(8), per(16), per(32), if GROUP == 32 { groups } else { 0 });
        let stride = code_stride(k);
        self.codes.resize(m * stride, 0);
        self.d.resize(m * groups, 0.0);
        self.neg_sums.resize(m * groups, 0);
        self.centres.resize(m * centres, 0);
        self.sums16.resize(m * sums16, 0);
        self.sums32.resize(m * sums32, 0);
        self.d_sums.resize(m * d_sums, 0.0);
        let codes = SharedMut::new(&mut self.codes);
        let d = SharedMut::new(&mut self.d);
        let neg_all = SharedMut::new(&mut self.neg_sums);
        let centres_all = SharedMut::new(&mut self.centres);
        let sums16_all = SharedMut::new(&mut self.sums16);
        let sums32_all = SharedMut::new(&mut self.sums32);
        let d_sums_all = SharedMut::new(&mut self.d_sums);
        let quantize_row = |i: usize| {
            // SAFETY: row i's ranges are this task's own: each row is quantized by one task.
            let row = unsafe {
                RowMut {
                    codes: codes.slice(i * stride, stride),
                    d: d.slice(i * groups, groups),
                    neg_sums: neg_all.slice(i * groups, groups),
                    centres: centres_all.slice(i * centres, centres),
                    sums16: sums16_all.slice(i * sums16, sums16),
                    sums32: sums32_all.slice(i * sums32, sums32),
                    d_sums: d_sums_all.slice(i * d_sums, d_sums),
                }
            };
            level.dispatch(QuantizeRow::<GROUP> { x: &x[i * k..(i + 1) * k], row });
        };
        // Entering the threads costs about as much as quantizing a few thousand values.
        if m == 1 || m * k < 1 << 14 || executor.threads() == 1 {
            (0..m).for_each(quantize_row);
        } else {
            executor.run(m, &quantize_row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Serial;
    use alloc::vec;

    fn quantized(x: &[f32], level: Level, kinds: Kinds) -> Activations {
        let mut a = Activations::with_level(level);
        a.quantize(x, 1, x.len(), kinds, &Serial).unwrap();
        a
    }

    #[test]
    fn codes_and_sums_follow_the_rule() {
        let x: Vec<f32> = (0..256).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        let a = quantized(&x, Level::Scalar, Kinds::BLOCK32 | Kinds::BLOCK256);
        for (g, group) in x.chunks(32).enumerate() {
            let amax = group.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert_eq!(a.block32.d[g], amax / 127.0);
            let sum: i32 = (0..32).map(|i| (group[i] * (127.0 / amax)).round_ties_even() as i32).sum();
            assert_eq!(a.block32.neg_sums[g], -sum);
            assert_eq!(a.block32.d_sums[g], amax / 127.0 * sum as f32);
        }
        let sum16: Vec<i16> =
            a.block256.codes[..256].chunks(16).map(|codes| codes.iter().map(|&code| code as i16).sum()).collect();
        assert_eq!(a.block256.sums16, sum16);
        assert_eq!(a.block256.neg_sums, [-sum16.iter().map(|&sum| sum as i32).sum::<i32>()]);
        let centres = a.block256.centres.chunks(2).map(|pair| (pair[0] + pair[1]) / -32);
        assert_eq!(centres.collect::<Vec<_>>(), sum16.iter().map(|&sum| sum as i32).collect::<Vec<_>>());
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let x: Vec<f32> = (0..512).map(|i| ((i * 7919) % 1009) as f32 * 0.37 - 180.0).collect();
        let kinds = Kinds::BLOCK32 | Kinds::BLOCK256;
        let reference = quantized(&x, Level::Scalar, kinds);
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            let a = quantized(&x, level, kinds);
            assert_eq!(a.block32.codes, reference.block32.codes);
            assert_eq!(a.block256.codes, reference.block256.codes);
            assert_eq!(a.block256.d, reference.block256.d);
        }
    }

    #[test]
    fn what_is_not_finite_makes_its_group_nan_and_tiny_groups_are_zero() {
        let mut x = vec![1.0; 96];
        x[3] = f32::INFINITY;
        x[32..64].fill(1e-40);
        let a = quantized(&x, Level::best(), Kinds::BLOCK32);
        assert!(a.block32.d[0].is_nan() && a.block32.d_sums[0].is_nan());
        assert_eq!((a.block32.d[1], a.block32.d[2]), (0.0, 1.0 / 127.0));
        assert_eq!(a.block32.codes[..64], [0; 64]);
        x[3] = f32::NAN;
        assert!(quantized(&x, Level::best(), Kinds::BLOCK32).block32.d[0].is_nan());
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let mut a = Activations::new();
        assert!(matches!(a.quantize(&[0.0; 31], 1, 32, Kinds::BLOCK32, &Serial), Err(Error::Shape { .. })));
        assert!(matches!(a.quantize(&[0.0; 33], 1, 33, Kinds::BLOCK32, &Serial), Err(Error::Block { .. })));
        assert!(matches!(a.quantize(&[0.0; 32], 1, 32, Kinds::BLOCK256, &Serial), Err(Error::Block { .. })));
        assert!(matches!(a.quantize(&[], usize::MAX, 32, Kinds::BLOCK32, &Serial), Err(Error::Overflow { .. })));
        assert!(a.quantize(&[], 0, 32, Kinds::BLOCK32, &Serial).is_ok());
    }
}
