//! How attention computes with what a cache holds: dots of 16-bit integers, or of floats.

use super::{QueryVectors, TILE_ROWS};
use crate::{
    simd::Isa,
    transformer::{
        codes::{self, WEIGHT_LIMIT},
        kv_cache::{BLOCK, Element},
    },
};
use half::f16;

/// Rows that go through softmax together at most, rounded up to a register.
pub(super) const GROUP_ROWS: usize = 8;

/// A row's values for the positions of a block, on whole cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Row<T>(pub [T; BLOCK]);

/// What a block's scores leave for its weighted sums.
pub(super) struct Weights<E: Operand> {
    /// What the rows' values are multiplied by.
    pub factors: [Row<E::Factor>; TILE_ROWS],
    /// What a weighted sum is multiplied by.
    pub scales: [f32; TILE_ROWS],
    /// What the sums of the blocks before are multiplied by.
    pub corrections: [f32; TILE_ROWS],
}

/// An element of a cache as an operand of attention's dots.
pub(super) trait Operand: Element {
    /// What it is multiplied by: an element of a query, or a softmax weight.
    type Factor: Copy + Default;
    /// Whether a factor of zero gives zero, whatever the element is.
    const ZERO_HIDES: bool;
    /// A register of elements, factors or sums.
    type Lanes<I: Isa>: Copy;

    /// Sums of nothing.
    fn zero<I: Isa>(isa: I) -> Self::Lanes<I>;

    /// Loads `TOGETHER` elements for each lane.
    ///
    /// # Safety
    /// `LANES · TOGETHER` elements at `p` are readable.
    unsafe fn load<I: Isa>(isa: I, p: *const Self) -> Self::Lanes<I>;

    /// `TOGETHER` factors in every lane.
    ///
    /// # Safety
    /// `TOGETHER` factors at `p` are readable.
    unsafe fn broadcast<I: Isa>(isa: I, p: *const Self::Factor) -> Self::Lanes<I>;

    /// `sum + elements · factors`, summed over each lane's `TOGETHER`.
    fn add_product<I: Isa>(
        isa: I,
        sum: Self::Lanes<I>,
        elements: Self::Lanes<I>,
        factors: Self::Lanes<I>,
    ) -> Self::Lanes<I>;

    /// Sums as floats.
    fn to_f32<I: Isa>(isa: I, sum: Self::Lanes<I>) -> I::F;

    /// The queries that are multiplied.
    fn queries<'a>(q: &QueryVectors<'a>) -> &'a [Self::Factor];

    /// Turns the weights of `MR` rows into factors and gives what sums of them are multiplied by.
    fn factors<const MR: usize>(weights: &[Row<f32>; MR], factors: &mut [Row<Self::Factor>]) -> [f32; GROUP_ROWS];
}

impl Operand for i16 {
    type Factor = i16;
    const ZERO_HIDES: bool = true;
    type Lanes<I: Isa> = I::V;

    #[inline(always)]
    fn zero<I: Isa>(isa: I) -> I::V {
        isa.splat(0)
    }
    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, p: *const i16) -> I::V {
        // SAFETY: two codes fill a lane.
        unsafe { isa.load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn broadcast<I: Isa>(isa: I, p: *const i16) -> I::V {
        // SAFETY: two factors fill a lane.
        unsafe { isa.broadcast(p.cast()) }
    }
    #[inline(always)]
    fn add_product<I: Isa>(isa: I, sum: I::V, elements: I::V, factors: I::V) -> I::V {
        isa.dot_i16(sum, elements, factors)
    }
    #[inline(always)]
    fn to_f32<I: Isa>(isa: I, sum: I::V) -> I::F {
        isa.to_f32(sum)
    }
    #[inline(always)]
    fn queries<'a>(q: &QueryVectors<'a>) -> &'a [i16] {
        q.codes
    }
    #[inline(always)]
    fn factors<const MR: usize>(weights: &[Row<f32>; MR], factors: &mut [Row<i16>]) -> [f32; GROUP_ROWS] {
        let mut peaks = [0.0; GROUP_ROWS];
        for r in 0..MR {
            peaks[r] = codes::peak(&weights[r].0);
        }
        let (mut scales, mut inverses) = ([0.0; GROUP_ROWS], [0.0; GROUP_ROWS]);
        for r in 0..GROUP_ROWS {
            (scales[r], inverses[r]) = codes::scale_of_peak(peaks[r], WEIGHT_LIMIT);
        }
        for r in 0..MR {
            for (code, &weight) in factors[r].0.iter_mut().zip(&weights[r].0) {
                *code = codes::code(weight, inverses[r]);
            }
        }
        scales
    }
}

/// A float that a cache holds.
pub(super) trait Float: Element {
    /// Loads `LANES` of them as f32.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load<I: Isa>(isa: I, p: *const Self) -> I::F;
}

impl Float for f16 {
    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, p: *const f16) -> I::F {
        // SAFETY: the caller's promise.
        unsafe { isa.load_f16(p.cast()) }
    }
}

impl Float for f32 {
    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, p: *const f32) -> I::F {
        // SAFETY: the caller's promise.
        unsafe { isa.load_f32(p) }
    }
}

impl<E: Float> Operand for E {
    type Factor = f32;
    // 0 · ∞ is NaN.
    const ZERO_HIDES: bool = false;
    type Lanes<I: Isa> = I::F;

    #[inline(always)]
    fn zero<I: Isa>(isa: I) -> I::F {
        isa.splat_f32(0.0)
    }
    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, p: *const E) -> I::F {
        // SAFETY: an element for each lane.
        unsafe { Float::load(isa, p) }
    }
    #[inline(always)]
    unsafe fn broadcast<I: Isa>(isa: I, p: *const f32) -> I::F {
        // SAFETY: the caller vouches for one.
        isa.splat_f32(unsafe { *p })
    }
    #[inline(always)]
    fn add_product<I: Isa>(isa: I, sum: I::F, elements: I::F, factors: I::F) -> I::F {
        isa.mul_add_f32(elements, factors, sum)
    }
    #[inline(always)]
    fn to_f32<I: Isa>(_: I, sum: I::F) -> I::F {
        sum
    }
    #[inline(always)]
    fn queries<'a>(q: &QueryVectors<'a>) -> &'a [f32] {
        q.exact
    }
    #[inline(always)]
    fn factors<const MR: usize>(weights: &[Row<f32>; MR], factors: &mut [Row<f32>]) -> [f32; GROUP_ROWS] {
        factors[..MR].copy_from_slice(weights);
        [1.0; GROUP_ROWS]
    }
}
