//! Decode from native superblocks: lanes are codes of one row, then superblocks of that row.

use super::{
    super::{Inputs, flat::remaining_bias, native::NativeBlock, tile::SuperTile},
    BLOCK,
};
use crate::{
    QuantBlock,
    simd::{Isa, PANEL_ROWS},
};
use core::mem::MaybeUninit;

impl<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
> SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>
{
    /// [`IntTile::row_terms`](super::super::tile::IntTile::row_terms).
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn terms<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        blocks: &[F::Block],
        x: &Inputs<'_>,
        first: usize,
        terms: *mut f32,
    ) {
        let (mut d, mut dmin) = ([0u32; PANEL_ROWS], [0u32; PANEL_ROWS]);
        let mut dx = [0.0f32; PANEL_ROWS];
        let (mut sums, mut mins) = ([MaybeUninit::uninit(); PANEL_ROWS], [MaybeUninit::uninit(); PANEL_ROWS]);
        for b in blocks.len()..I::LANES {
            (sums[b], mins[b]) = (MaybeUninit::new(isa.splat(0)), MaybeUninit::new(isa.splat(0)));
        }
        let bias = const { remaining_bias::<I>(BITS, BIAS) };
        for (b, block) in blocks.iter().enumerate().take(I::LANES) {
            let at = first + b;
            let block = NativeBlock::<F>::read(isa, block);
            // SAFETY: `at` is a superblock of x.
            unsafe {
                (d[b], dmin[b], dx[b]) = (block.view.d, block.view.dmin, *x.arrays.d.as_ptr().add(at));
                let sum = Self::product::<F, I>(isa, &block, x.arrays.codes.as_ptr().cast::<u8>().add(at * BLOCK));
                let (group_sums, count) = if GROUP == 16 { (x.arrays.sums16, 16) } else { (x.arrays.sums32, 8) };
                let group_sums = group_sums.as_ptr().cast::<i16>().wrapping_add(at * count);
                sums[b].write(if Self::SCALED && bias != 0 {
                    let scaled = isa.dot_sums(&block.view.scales, SCALE_BIAS as i16, group_sums, count);
                    isa.sub(sum, isa.mul(scaled, isa.splat(bias)))
                } else {
                    sum
                });
                if MIN {
                    mins[b].write(isa.dot_sums(&block.view.mins, 0, group_sums, count));
                }
            }
        }
        // SAFETY: the arrays have room for a register; LANES of the sums are written, and of the minima's where there are such.
        unsafe {
            let mut sum = isa.sum_registers(
                #[inline(always)]
                |b| sums[b].assume_init(),
            );
            if !Self::SCALED && bias != 0 {
                let mut neg_sums = [0i32; PANEL_ROWS];
                neg_sums[..blocks.len()].copy_from_slice(&x.arrays.neg_sums[first..first + blocks.len()]);
                sum = isa.add(sum, isa.mul(isa.load(neg_sums.as_ptr().cast()), isa.splat(bias)));
            }
            let d = isa.load(d.as_ptr().cast());
            let d = if Self::SCALED { isa.widen_f16(d) } else { isa.bits_f32(d) };
            let mut term = isa.mul_f32(d, isa.to_f32(sum));
            if MIN {
                let dmin = isa.widen_f16(isa.load(dmin.as_ptr().cast()));
                let mins = isa.sum_registers(
                    #[inline(always)]
                    |b| mins[b].assume_init(),
                );
                term = isa.sub_f32(term, isa.mul_f32(dmin, isa.to_f32(mins)));
            }
            isa.store_f32(terms, isa.mul_f32(term, isa.load_f32(dx.as_ptr())));
        }
    }

    /// In any lanes, the sum of a block's products with x's codes, scaled by groups.
    ///
    /// # Safety
    /// `x` points to 256 codes.
    #[inline(always)]
    unsafe fn product<F: QuantBlock<Tile = Self>, I: Isa>(isa: I, block: &NativeBlock<'_, F>, x: *const u8) -> I::V {
        let mut sum = [[isa.splat(0)]];
        let codes = block.codes();
        for i in 0..BLOCK / 4 / I::LANES {
            let offset = i * I::LANES * 4;
            // SAFETY: registers of a superblock are inside its 256 codes, on both sides.
            let (w, x) =
                unsafe { (NativeBlock::<F>::unsigned(isa, isa.load(codes.add(offset))), isa.load(x.add(offset))) };
            if !Self::SCALED {
                isa.dot::<BITS, 1, 1, 1>(
                    &mut sum,
                    #[inline(always)]
                    |_, _| w,
                    #[inline(always)]
                    |_, _| x,
                );
                continue;
            }
            let scale = isa.spread_scales::<GROUP>(&block.view.scales, SCALE_BIAS as i16, i);
            // One step of 6-bit codes still fits the depth of 4-bit ones, uncentred.
            if BITS <= 6 {
                add_scaled::<I, 4>(isa, &mut sum, scale, w, x);
            } else {
                add_scaled::<I, 8>(isa, &mut sum, scale, w, x);
            }
        }
        sum[0][0]
    }
}

/// Adds the scaled products of a register of codes of at most `BITS` bits and one of x's.
#[inline(always)]
fn add_scaled<I: Isa, const BITS: u32>(isa: I, sum: &mut [[I::V; 1]; 1], scale: I::V, w: I::V, x: I::V) {
    isa.dot_scaled::<BITS, 1, 1, 1, false>(
        sum,
        [scale],
        #[inline(always)]
        |_, _| isa.splat(0),
        #[inline(always)]
        |_, _| w,
        #[inline(always)]
        |_, _| x,
    );
}
