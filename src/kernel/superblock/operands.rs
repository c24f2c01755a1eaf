//! Where the microkernels take a superblock of 16 rows from: a packed tile, unpacked in registers, or a block in scratch.

use super::super::packed::UNIT_STEPS;
use crate::simd::{Isa, PANEL_ROWS, VECTOR_BYTES};

/// Runs of eight steps of the codes of a superblock.
pub const RUNS: usize = 8;
/// Pairs of groups, at most: 256 / 16 / 2.
pub const MAX_PAIRS: usize = 8;

/// The registers of a superblock: `i` counts registers of rows, `p` pairs of groups (their values lie in the i16 halves of
/// each lane).
pub trait Operands<I: Isa> {
    /// The integer scales of pair `p`, in the form that [`Isa::dot_scaled`] multiplies by.
    fn scales(&self, p: usize, i: usize) -> [I::V; 2];
    /// The pair of integer scales.
    fn scale_pair(&self, p: usize, i: usize) -> I::V;
    /// The pair of minima.
    fn min_pair(&self, p: usize, i: usize) -> I::V;
    /// What the scales are multiplied by.
    fn d(&self, i: usize) -> I::F;
    /// What the minima are multiplied by.
    fn dmin(&self, i: usize) -> I::F;
    /// Asks for what the next superblocks need, in part `part` of `parts`, where that comes from memory: a burst of all of it
    /// would block the loads of this one.
    fn prefetch_part(&self, part: usize, parts: usize);
    /// Step `step` < 64 of the codes.
    fn codes(&self, step: usize, i: usize) -> I::V;
}

/// A superblock of 16 rows, ready to multiply.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Expanded {
    /// Steps of codes, or of codes times scales.
    pub codes: [[u8; VECTOR_BYTES]; RUNS * UNIT_STEPS],
    pub scale_pairs: [[i32; PANEL_ROWS]; MAX_PAIRS],
    /// Of the pairs, as [`Isa::split_scales`] gives them.
    pub scales: [[[i32; PANEL_ROWS]; 2]; MAX_PAIRS],
    pub min_pairs: [[i32; PANEL_ROWS]; MAX_PAIRS],
    pub d: [f32; PANEL_ROWS],
    pub dmin: [f32; PANEL_ROWS],
}

/// The expanded superblocks of the panels that a register tile covers.
pub struct ExpandedBlock<I> {
    isa: I,
    first: *const Expanded,
    stride: usize,
}

impl<I: Isa> ExpandedBlock<I> {
    /// The superblock at `first` of the first panel; that of the next panel is `stride` behind it.
    ///
    /// # Safety
    /// All superblocks of the registers that the operands are asked for are expanded, for as long as the value is used.
    #[inline(always)]
    pub unsafe fn new(isa: I, first: *const Expanded, stride: usize) -> Self {
        ExpandedBlock { isa, first, stride }
    }

    #[inline(always)]
    fn block(&self, i: usize) -> *const Expanded {
        self.first.wrapping_add(i / I::REGISTERS * self.stride)
    }

    /// The register's first row of its panel.
    #[inline(always)]
    fn row(i: usize) -> usize {
        i % I::REGISTERS * I::LANES
    }
}

impl<I: Isa> Operands<I> for ExpandedBlock<I> {
    #[inline(always)]
    fn scales(&self, p: usize, i: usize) -> [I::V; 2] {
        // SAFETY: an expanded block, by the promise of `new`; p is below its array's length and rows end at 16.
        unsafe {
            let pair = (&raw const (*self.block(i)).scales[p]).cast::<u8>().add(Self::row(i) * 4);
            [self.isa.load(pair), self.isa.load(pair.add(VECTOR_BYTES))]
        }
    }
    #[inline(always)]
    fn scale_pair(&self, p: usize, i: usize) -> I::V {
        // SAFETY: an expanded block, by the promise of `new`; p is below its array's length and rows end at 16.
        unsafe { self.isa.load((&raw const (*self.block(i)).scale_pairs[p]).cast::<u8>().add(Self::row(i) * 4)) }
    }
    #[inline(always)]
    fn min_pair(&self, p: usize, i: usize) -> I::V {
        // SAFETY: as above.
        unsafe { self.isa.load((&raw const (*self.block(i)).min_pairs[p]).cast::<u8>().add(Self::row(i) * 4)) }
    }
    #[inline(always)]
    fn d(&self, i: usize) -> I::F {
        // SAFETY: as above.
        unsafe { self.isa.load_f32((&raw const (*self.block(i)).d).cast::<f32>().add(Self::row(i))) }
    }
    #[inline(always)]
    fn dmin(&self, i: usize) -> I::F {
        // SAFETY: as above.
        unsafe { self.isa.load_f32((&raw const (*self.block(i)).dmin).cast::<f32>().add(Self::row(i))) }
    }
    #[inline(always)]
    fn prefetch_part(&self, _: usize, _: usize) {}
    #[inline(always)]
    fn codes(&self, step: usize, i: usize) -> I::V {
        // SAFETY: as above; there are 64 steps.
        unsafe { self.isa.load((&raw const (*self.block(i)).codes[step]).cast::<u8>().add(Self::row(i) * 4)) }
    }
}
