//! Decode from native superblocks: lanes are codes of one row, then superblocks of that row.

use super::{
    super::{
        Inputs,
        flat::{prefetch, remaining_bias},
        tile::{RowBlocks, SuperTile},
    },
    BLOCK,
};
use crate::simd::{Isa, PANEL_ROWS};
use core::ops::Range;

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
    pub(super) unsafe fn terms<I: Isa>(
        isa: I,
        row: &RowBlocks<'_>,
        x: &Inputs<'_>,
        range: Range<usize>,
        terms: *mut f32,
    ) {
        let len = range.len();
        let mut dx = [0.0f32; PANEL_ROWS];
        let (mut sums, mut mins) = ([isa.splat(0); PANEL_ROWS], [isa.splat(0); PANEL_ROWS]);
        for b in 0..len {
            if row.prefetch_bytes > 0 {
                prefetch(isa, row.codes.wrapping_add(b * row.stride_bytes), row.prefetch_bytes);
            }
            let groups = &row.groups[b];
            let at = range.start + b;
            // SAFETY: `at` is a superblock of x; registers of a superblock are inside its 256 codes, on both sides.
            unsafe {
                dx[b] = *x.d.as_ptr().add(at);
                let codes = x.codes.as_ptr().cast::<u8>().add(at * BLOCK);
                let mut sum = [[isa.splat(0)]];
                for i in 0..BLOCK / 4 / I::LANES {
                    let offset = i * I::LANES * 4;
                    if !Self::SCALED {
                        isa.dot::<BITS, 1, 1, 1>(
                            &mut sum,
                            #[inline(always)]
                            |_, _| row.load(isa, b, offset),
                            #[inline(always)]
                            |_, _| isa.load(codes.add(offset)),
                        );
                    } else if BITS <= 6 {
                        // One step of 6-bit codes still fits the depth of 4-bit ones, uncentred.
                        isa.dot_scaled::<4, 1, 1, 1, false>(
                            &mut sum,
                            [isa.spread_scales::<GROUP>(&groups.scales, SCALE_BIAS as i16, i)],
                            #[inline(always)]
                            |_| isa.splat(0),
                            #[inline(always)]
                            |_, _| row.load(isa, b, offset),
                            #[inline(always)]
                            |_, _| isa.load(codes.add(offset)),
                        );
                    } else {
                        isa.dot_scaled::<8, 1, 1, 1, false>(
                            &mut sum,
                            [isa.spread_scales::<GROUP>(&groups.scales, SCALE_BIAS as i16, i)],
                            #[inline(always)]
                            |_| isa.splat(0),
                            #[inline(always)]
                            |_, _| row.load(isa, b, offset),
                            #[inline(always)]
                            |_, _| isa.load(codes.add(offset)),
                        );
                    }
                }
                let bias = const { remaining_bias::<I>(BITS, BIAS) };
                let (group_sums, count) = if GROUP == 16 { (x.sums16, 16) } else { (x.sums32, 8) };
                let group_sums = group_sums.as_ptr().cast::<i16>().wrapping_add(at * count);
                sums[b] = sum[0][0];
                if Self::SCALED && bias != 0 {
                    let scaled = isa.dot_sums(&groups.scales, SCALE_BIAS as i16, group_sums, count);
                    sums[b] = isa.sub(sums[b], isa.mul(scaled, isa.splat(bias)));
                }
                if MIN {
                    mins[b] = isa.dot_sums(&groups.mins, 0, group_sums, count);
                }
            }
        }
        // SAFETY: the arrays have room for a register.
        unsafe {
            let mut sum = isa.sum_registers(&sums);
            let bias = const { remaining_bias::<I>(BITS, BIAS) };
            if !Self::SCALED && bias != 0 {
                let mut neg_sums = [0i32; PANEL_ROWS];
                neg_sums[..len].copy_from_slice(&x.neg_sums[range]);
                sum = isa.add(sum, isa.mul(isa.load(neg_sums.as_ptr().cast()), isa.splat(bias)));
            }
            let d = isa.load(row.d.as_ptr().cast());
            let d = if Self::SCALED { isa.widen_f16(d) } else { isa.bits_f32(d) };
            let mut term = isa.mul_f32(d, isa.to_f32(sum));
            if MIN {
                let dmin = isa.widen_f16(isa.load(row.dmin.as_ptr().cast()));
                term = isa.sub_f32(term, isa.mul_f32(dmin, isa.to_f32(isa.sum_registers(&mins))));
            }
            isa.store_f32(terms, isa.mul_f32(term, isa.load_f32(dx.as_ptr())));
        }
    }
}
