//! Decode from native blocks of 32: lanes are codes of one row, then blocks of that row.

use super::{
    super::{Inputs, native::NativeBlock, planes::UNIT_CODES, tile::FlatTile},
    remaining_bias,
};
use crate::{
    QuantBlock,
    simd::{Isa, PANEL_ROWS},
};
use bytemuck::Zeroable;

/// What of x the blocks meet, where x ends before the registers do.
#[repr(C, align(64))]
struct Tail {
    codes: [[i8; UNIT_CODES]; PANEL_ROWS],
    d: [f32; PANEL_ROWS],
    d_sums: [f32; PANEL_ROWS],
    neg_sums: [i32; PANEL_ROWS],
}

impl<const BITS: u32, const BIAS: i32, const MIN: bool> FlatTile<BITS, BIAS, MIN> {
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
        // SAFETY: the blocks of x are inside its arrays, and LANES elements inside the tail's.
        unsafe {
            let codes: *const u8 = x.codes.as_ptr().cast::<u8>().add(first * UNIT_CODES);
            let (d, d_sums) = (x.d.as_ptr().add(first), x.d_sums.as_ptr().add(first));
            let neg_sums = x.neg_sums.as_ptr().add(first);
            if let Some(blocks) = blocks.get(..I::LANES) {
                return Self::whole_terms::<F, I>(isa, blocks, (codes, d, d_sums, neg_sums), terms);
            }
            let len = blocks.len();
            let mut tail = Tail {
                codes: [[0; UNIT_CODES]; PANEL_ROWS],
                d: [0.0; PANEL_ROWS],
                d_sums: [0.0; PANEL_ROWS],
                neg_sums: [0; PANEL_ROWS],
            };
            core::ptr::copy_nonoverlapping(codes, tail.codes.as_mut_ptr().cast(), len * UNIT_CODES);
            core::ptr::copy_nonoverlapping(d, tail.d.as_mut_ptr(), len);
            core::ptr::copy_nonoverlapping(d_sums, tail.d_sums.as_mut_ptr(), len);
            core::ptr::copy_nonoverlapping(neg_sums, tail.neg_sums.as_mut_ptr(), len);
            let mut padded = [F::Block::zeroed(); PANEL_ROWS];
            padded[..len].copy_from_slice(blocks);
            let x = (tail.codes.as_ptr().cast(), tail.d.as_ptr(), tail.d_sums.as_ptr(), tail.neg_sums.as_ptr());
            Self::whole_terms::<F, I>(isa, &padded[..I::LANES], x, terms);
        }
    }

    /// The terms of `LANES` blocks for x's codes, scales, and sums scaled and negated.
    ///
    /// # Safety
    /// x has as many, and `terms` room.
    #[inline(always)]
    unsafe fn whole_terms<F: QuantBlock<Tile = Self>, I: Isa>(
        isa: I,
        blocks: &[F::Block],
        (codes, dx, d_sums, neg_sums): (*const u8, *const f32, *const f32, *const i32),
        terms: *mut f32,
    ) {
        // The registers that hold a span of blocks, and the blocks in it.
        let (registers, len) = ((UNIT_CODES / 4).div_ceil(I::LANES), I::LANES.div_ceil(UNIT_CODES / 4));
        let (mut d, mut m) = ([0u16; PANEL_ROWS], [0u16; PANEL_ROWS]);
        let mut sums = [isa.splat(0); 8];
        // SAFETY: registers of LANES blocks are inside x, and the arrays have room for one.
        unsafe {
            for (s, blocks) in blocks.chunks_exact(len).enumerate().take(8 / registers) {
                let (mut units, mut fifth_bits) = ([[0; UNIT_CODES]; 2], 0u64);
                for (b, block) in blocks.iter().enumerate().take(2) {
                    let block = NativeBlock::<F>::read(isa, block);
                    (d[s * len + b], m[s * len + b]) = (block.view.d as u16, block.view.dmin as u16);
                    units[b] = block.codes().cast::<[u8; UNIT_CODES]>().read();
                    fifth_bits |= (block.fifth_bits as u64) << (b * UNIT_CODES);
                }
                for r in 0..registers {
                    let mut sum = [[isa.splat(0)]];
                    let i = s * registers + r;
                    isa.dot::<BITS, 1, 1, 1>(
                        &mut sum,
                        #[inline(always)]
                        |_, _| {
                            let first = r * I::LANES * 4;
                            let codes = isa.load(units.as_ptr().cast::<u8>().add(first));
                            if F::FIFTH_BITS {
                                isa.or(codes, isa.spread_fifth_bits(fifth_bits >> first))
                            } else {
                                NativeBlock::<F>::unsigned(isa, codes)
                            }
                        },
                        #[inline(always)]
                        |_, _| isa.load(codes.add(i * I::LANES * 4)),
                    );
                    sums[i] = sum[0][0];
                }
            }
            let mut sums = isa.sum_eights(sums);
            let bias = const { remaining_bias::<I>(BITS, BIAS) };
            if bias != 0 {
                sums = isa.add(sums, isa.mul(isa.load(neg_sums.cast()), isa.splat(bias)));
            }
            let d = isa.load_f16(d.as_ptr().cast());
            let sums = isa.add(sums, isa.splat(I::SUM_ORIGIN));
            let mut term = isa.mul_f32(isa.scale_sum(sums, d, isa.scale_origin(d)), isa.load_f32(dx));
            if MIN {
                let m = isa.load_f16(m.as_ptr().cast());
                term = isa.add_f32(term, isa.mul_f32(m, isa.load_f32(d_sums)));
            }
            isa.store_f32(terms, term);
        }
    }
}
